//! Events on their way to the masters: kept until they are recorded, repetitions folded, and never too many.
//!
//! ```text
//!   note ──▶ waiting ──batch──▶ under way ──(sent again until)──▶ kept
//! ```
//!
//! One batch is under way at a time, and its events are numbered: whoever records them knows a repetition. What is lost
//! with a process is lost; decisions do not go this way, the master records them itself.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use model::event::Noted;
use model::{Instant, TabletId, Timestamp};

/// Events that may wait.
const MOST: usize = 1_000;
/// Events in a batch.
pub const BATCH: usize = 100;
/// Between two batches, and longer after a large one: a node that has something to tell all the time must not fill
/// what the masters keep for all.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_PER_EVENT: Duration = Duration::from_millis(50);
/// A batch that was not kept by then is sent again.
const AGAIN: Duration = Duration::from_secs(1);
/// The same event is not sent twice within this; it is counted instead.
const FOLD: Duration = Duration::from_secs(10);

type Key = (String, Option<TabletId>, String);

/// What waits, and what is under way.
#[derive(Debug, Default)]
pub struct Notes {
    /// With the earliest moment to send it.
    waiting: VecDeque<(Instant, Noted)>,
    under_way: Vec<Noted>,
    /// How many were kept: the first under way has the number after that.
    kept: u64,
    sent: Option<Instant>,
    /// No new batch before this.
    rests_until: Instant,
    /// When the same was last sent.
    lately: BTreeMap<Key, Instant>,
    dropped: u32,
}

fn key(noted: &Noted) -> Key {
    (noted.name.clone(), noted.tablet, noted.what.clone())
}

impl Notes {
    /// Takes note of an event.
    pub fn note(&mut self, now: Instant, noted: Noted) {
        let noted = noted.shortened();
        let same = |(_, known): &&mut (Instant, Noted)| {
            known.name == noted.name && known.tablet == noted.tablet && known.what == noted.what
        };
        if let Some((_, known)) = self.waiting.iter_mut().find(same) {
            known.count = known.count.saturating_add(noted.count);
            return;
        }
        if self.waiting.len() >= MOST {
            self.dropped = self.dropped.saturating_add(noted.count);
            return;
        }
        let due = self.lately.get(&key(&noted)).map_or(now, |&sent| now.max(sent + FOLD));
        self.waiting.push_back((due, noted));
    }

    /// What to send now, if anything: the number of the first event, and the events.
    pub fn batch(&mut self, now: Instant, date: Timestamp) -> Option<(u64, Vec<Noted>)> {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return None;
        }
        if self.under_way.is_empty() {
            self.lately.retain(|_, sent| now < *sent + FOLD);
            let mut later = VecDeque::new();
            while let Some((due, noted)) = self.waiting.pop_front() {
                if due > now || self.under_way.len() >= BATCH {
                    later.push_back((due, noted));
                    continue;
                }
                if self.lately.len() < MOST {
                    self.lately.insert(key(&noted), now);
                }
                self.under_way.push(noted);
            }
            self.waiting = later;
            let dropped = core::mem::take(&mut self.dropped);
            if dropped > 0 {
                let what = format!("{dropped} events were not recorded: too many at once");
                let (name, tablet) = (String::from("events_dropped"), None);
                self.under_way.push(Noted { at: date, name, tablet, what, count: dropped });
            }
        }
        self.sent = Some(now);
        self.rests_until = now + PAUSE.max(PAUSE_PER_EVENT * self.under_way.len() as u32);
        Some((self.kept + 1, self.under_way.clone()))
    }

    /// All up to this number are recorded.
    pub fn on_kept(&mut self, upto: u64) {
        if upto >= self.kept + self.under_way.len() as u64 {
            self.kept += self.under_way.len() as u64;
            self.under_way.clear();
        }
    }

    /// When to ask for a batch.
    pub fn deadline(&self) -> Option<Instant> {
        if !self.under_way.is_empty() {
            return self.sent.map(|sent| sent + AGAIN);
        }
        let due = self.waiting.iter().map(|(due, _)| *due).min()?;
        Some(due.max(self.rests_until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(what: &str) -> Noted {
        Noted { at: Timestamp(1), name: "job_failed".into(), tablet: None, what: what.into(), count: 1 }
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000_000)
    }

    fn batch(notes: &mut Notes, ms: u64) -> Option<(u64, Vec<(String, u32)>)> {
        let (first, events) = notes.batch(at(ms), Timestamp(1))?;
        Some((first, events.into_iter().map(|noted| (noted.what, noted.count)).collect()))
    }

    /// A batch goes out again until it is kept, with the same numbers.
    #[test]
    fn what_was_not_kept_is_sent_again() {
        let mut notes = Notes::default();
        notes.note(at(0), noted("a"));
        assert_eq!(batch(&mut notes, 0), Some((1, [("a".into(), 1)].into())));
        notes.note(at(1), noted("b"));
        assert_eq!(batch(&mut notes, 500), None);
        assert_eq!(batch(&mut notes, 1_000), Some((1, [("a".into(), 1)].into())));
        notes.on_kept(1);
        assert_eq!(batch(&mut notes, 1_200), Some((2, [("b".into(), 1)].into())));
        notes.on_kept(1);
        assert_eq!(notes.deadline(), Some(at(2_200)), "an old answer keeps nothing");
        notes.on_kept(2);
        assert_eq!(notes.deadline(), None);
    }

    /// Whatever happens over and over is told once, and then counted.
    #[test]
    fn repetitions_are_counted() {
        let mut notes = Notes::default();
        notes.note(at(0), noted("a"));
        notes.note(at(0), noted("a"));
        assert_eq!(batch(&mut notes, 0), Some((1, [("a".into(), 2)].into())));
        notes.on_kept(1);
        (1..=50).for_each(|ms| notes.note(at(ms), noted("a")));
        assert_eq!(batch(&mut notes, 9_999), None);
        assert_eq!(batch(&mut notes, 10_000), Some((2, [("a".into(), 50)].into())));
    }

    /// Whoever always has something new to tell is slowed down.
    #[test]
    fn a_large_batch_is_followed_by_a_long_pause() {
        let mut notes = Notes::default();
        (0..BATCH + 1).for_each(|number| notes.note(at(0), noted(&format!("{number}"))));
        assert_eq!(batch(&mut notes, 0).unwrap().1.len(), BATCH);
        notes.on_kept(BATCH as u64);
        assert_eq!(notes.deadline(), Some(at(50 * BATCH as u64)));
    }

    /// Memory is bounded, and what did not fit is an event of its own.
    #[test]
    fn too_many_are_dropped_and_counted() {
        let mut notes = Notes::default();
        for number in 0..MOST + 7 {
            notes.note(at(0), noted(&format!("{number}")));
        }
        let (first, events) = notes.batch(at(0), Timestamp(1)).unwrap();
        assert_eq!((first, events.len()), (1, BATCH + 1));
        assert_eq!((events[BATCH].name.as_str(), events[BATCH].count), ("events_dropped", 7));
    }
}
