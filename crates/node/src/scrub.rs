//! Reads everything that lies here from time to time, so that damage is met while others are still well.
//!
//! ```text
//!   a pass: the log ─▶ tablet ─▶ tablet ─▶ …      one slice at a time
//! ```
//!
//! The pace is such that all of it takes [`crate::Upkeep::scrub_every`], unless somebody wants it now; a tablet that was
//! damaged is not read any more. What a slice finds in a tablet goes the way of any other damage ([`crate::quarantine`]).
//! What it finds in the log is not lost yet, because memory still has it: all of that goes to tables, and the log goes
//! on in a new segment, so that the damaged one is needed by nobody.

use model::request::ScrubReport;
use model::{Instant, TabletId, Timestamp};
use std::time::Duration;
use store::log::{Checked, LogReader};
use store::scrub::Place;
use store::{Done, Error, Job};

use crate::api::{Effect, Event};
use crate::machine::{Node, Working};

/// Bytes of a slice.
const SLICE: u64 = 1 << 20;
/// How soon the next slice comes at the earliest: even a short pass leaves room for what somebody waits for.
const SOONEST: Duration = Duration::from_millis(20);

/// A slice that the disk refuses to read is tried again so often, after so long: then it is not chance.
const TRIES: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_secs(3);

/// How far the present pass has got.
#[derive(Debug, Default)]
pub(crate) struct Scrubbing {
    /// Reads the log.
    pub log: Option<LogReader>,
    /// The place in the log, unless this pass is through with it.
    log_at: Option<Checked>,
    /// The tablet, and the place in it.
    at: Option<(TabletId, Place)>,
    /// A slice is under way, and whether it is of a pass that was broken off.
    running: bool,
    stale: bool,
    /// How often the disk has refused to read the present slice.
    refused: u32,
    /// When the next slice, or the next pass, is due.
    due: Instant,
    /// When this pass began, what it has read in all and of tablets, and how many segments of the log are damaged.
    begun: Instant,
    read: u64,
    read_of_tablets: u64,
    /// Bytes of all tablets, as of the last slice.
    tablets: u64,
    log_damage: u64,
    /// Somebody wants this pass now: it makes no long pauses.
    hurries: bool,
    /// Of all passes, and when the last one ended.
    pub total: u64,
    pub completed: Option<Instant>,
    completed_date: Option<Timestamp>,
}

impl Scrubbing {
    pub fn new(now: Instant) -> Scrubbing {
        Scrubbing { due: now, begun: now, log_at: Some(Checked::default()), ..Scrubbing::default() }
    }

    /// `every`: zero, if passes are made only when somebody wants one.
    pub fn deadline(&self, every: Duration) -> Option<Instant> {
        (!self.running && (self.hurries || !every.is_zero())).then_some(self.due)
    }
}

impl Scrubbing {
    /// Did the disk refuse to read the slice, and is it worth another try?
    fn tries_again(&mut self, now: Instant, result: &Result<Done, Error>) -> bool {
        match result {
            Err(error) if error.is_unreadable() && self.refused + 1 < TRIES => {
                self.refused += 1;
                self.due = now + TRY_AGAIN;
                true
            }
            _ => {
                self.refused = 0;
                false
            }
        }
    }
}

impl Node {
    /// Somebody wants everything read now: a new pass begins, without long pauses.
    pub(crate) fn scrub_now(&mut self, now: Instant) {
        self.begin_pass(now);
        self.scrubbing.hurries = true;
    }

    fn begin_pass(&mut self, at: Instant) {
        let scrubbing = &mut self.scrubbing;
        (scrubbing.log_at, scrubbing.at) = (Some(Checked::default()), None);
        (scrubbing.read, scrubbing.read_of_tablets, scrubbing.log_damage) = (0, 0, 0);
        (scrubbing.begun, scrubbing.due, scrubbing.hurries) = (at, at, false);
        scrubbing.stale = scrubbing.running;
    }

    /// Begins the next slice if it is time.
    pub(crate) fn scrub_if_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let never = self.options.upkeep.scrub_every.is_zero() && !self.scrubbing.hurries;
        if self.scrubbing.running || now < self.scrubbing.due || never {
            return;
        }
        if let (Some(from), Some(reader)) = (self.scrubbing.log_at, self.scrubbing.log.clone()) {
            self.scrubbing.running = true;
            self.run(Job::CheckLog { reader, from, bytes: SLICE }, Working::CheckLog, out);
            return;
        }
        let sound = |tablet: &TabletId| {
            self.hosted.get(tablet).is_some_and(|hosted| hosted.damage.is_none()) && !self.adopting.contains(tablet)
        };
        let at = self.scrubbing.at.filter(|(tablet, place)| *place != Place::END && sound(tablet));
        let after = self.scrubbing.at.map(|(tablet, _)| tablet);
        let next =
            || self.hosted.keys().copied().find(|tablet| after.is_none_or(|after| *tablet > after) && sound(tablet));
        let Some((tablet, place)) = at.or_else(|| next().map(|tablet| (tablet, Place::default()))) else {
            self.end_pass(now, out);
            return;
        };
        let Some(hosted) = self.hosted.get(&tablet) else { return };
        let job = Job::Scrub { view: hosted.rows.view(), from: place, bytes: SLICE };
        self.scrubbing.at = Some((tablet, place));
        self.scrubbing.running = true;
        self.run(job, Working::Scrub { tablet }, out);
    }

    /// A slice is done.
    pub(crate) fn on_scrubbed(&mut self, now: Instant, tablet: TabletId, result: Result<Done, Error>) {
        let scrubbing = &mut self.scrubbing;
        scrubbing.running = false;
        if std::mem::take(&mut scrubbing.stale) || scrubbing.tries_again(now, &result) {
            return;
        }
        let bytes = match result {
            Ok(Done::Scrubbed { bytes, next: Some(place) }) => {
                // A merge has other tables: what was read of the old ones need not be read again, but it may be.
                scrubbing.at = Some((tablet, place));
                bytes
            }
            other => {
                scrubbing.at = Some((tablet, Place::END));
                if let Ok(Done::Scrubbed { bytes, .. }) = other { bytes } else { 0 }
            }
        };
        self.scrubbing.read_of_tablets += bytes;
        self.pause_after(now, bytes);
    }

    /// A slice of the log is done.
    pub(crate) fn on_log_checked(&mut self, now: Instant, result: Result<Done, Error>, out: &mut Vec<Effect>) {
        self.scrubbing.running = false;
        if std::mem::take(&mut self.scrubbing.stale) || self.scrubbing.tries_again(now, &result) {
            return;
        }
        let from = self.scrubbing.log_at.unwrap_or_default();
        let bytes = match result {
            Ok(Done::LogChecked { bytes, next }) => {
                self.scrubbing.log_at = next;
                bytes
            }
            Err(error) if error.is_corrupt() || error.is_unreadable() => {
                self.scrubbing.log_at = Some(from.next_segment());
                self.scrubbing.log_damage += 1;
                self.leave_segment(from, &error, out);
                0
            }
            // It was removed meanwhile.
            _ => {
                self.scrubbing.log_at = Some(from.next_segment());
                0
            }
        };
        self.pause_after(now, bytes);
    }

    /// A segment of the log is damaged. Memory has what is in it and in no table: it goes to tables, and then the segment.
    fn leave_segment(&mut self, at: Checked, error: &Error, out: &mut Vec<Effect>) {
        let what = format!("{error}; what it holds goes from memory to tables, and then the segment goes");
        out.push(Effect::Event(Event { name: "log_damaged", tablet: None, what }));
        self.tally.log += 1;
        if let Some(reader) = &self.scrubbing.log {
            reader.condemn(at);
        }
        let tablets: Vec<TabletId> = self.hosted.keys().copied().collect();
        self.tally.flushed += tablets.len() as u64;
        tablets.into_iter().for_each(|tablet| self.flush(tablet, out));
        self.trim(out);
    }

    fn pause_after(&mut self, now: Instant, bytes: u64) {
        self.scrubbing.read += bytes;
        self.scrubbing.total += bytes;
        let log = self.scrubbing.log.as_ref().map_or(0, LogReader::bytes);
        self.scrubbing.tablets = self.hosted.values().map(|hosted| hosted.rows.bytes()).sum();
        let all = self.scrubbing.tablets + log;
        let share = bytes as f64 / all.max(1) as f64;
        // A little faster than needed, as what there is grows meanwhile.
        let pause = self.options.upkeep.scrub_every.mul_f64((share * 0.8).min(1.0));
        let pause = if self.scrubbing.hurries { SOONEST } else { pause.max(SOONEST) };
        self.scrubbing.due = now + pause;
    }

    fn end_pass(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let every = self.options.upkeep.scrub_every;
        let scrubbing = &mut self.scrubbing;
        let took = now.since(scrubbing.begun);
        if scrubbing.read > 0 {
            let damaged = self.hosted.values().filter(|hosted| hosted.damage.is_some()).count();
            let but = match (damaged, scrubbing.log_damage) {
                (0, 0) => String::new(),
                (tablets, 0) => format!(", but those of {tablets} tablets"),
                (0, parts) => format!(", but {parts} segments of the log"),
                (tablets, parts) => format!(", but those of {tablets} tablets and {parts} segments of the log"),
            };
            let what = format!("{} bytes were read in {} s, all of them well{but}", scrubbing.read, took.as_secs());
            out.push(Effect::Event(Event { name: "scrub_completed", tablet: None, what }));
        }
        let next = (scrubbing.begun + every).max(now + SOONEST);
        scrubbing.completed = Some(now);
        self.scrubbing.completed_date = Some(self.date(now));
        self.begin_pass(next);
    }

    /// How far it is, for the master and for metrics.
    pub fn scrub_report(&self, now: Instant) -> ScrubReport {
        let Scrubbing { read_of_tablets: read, tablets, begun, hurries, completed_date, .. } = self.scrubbing;
        let waits = begun > now || (self.options.upkeep.scrub_every.is_zero() && !hurries);
        let percent = (read as f64 / tablets.max(1) as f64 * 100.0).clamp(1.0, 99.0) as u8;
        let damage = self.tally.tables + self.tally.log;
        ScrubReport { percent: if waits { 0 } else { percent }, completed: completed_date, damage }
    }
}
