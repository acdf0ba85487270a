//! What goes, and when: spare replicas, and what lies in the trash.
//!
//! A replica that the master releases goes to the trash, not more than a fifth of the node's data at a time: an error of
//! the master's, or of an operator's, shall not empty a node before somebody notices. A table that was dropped, and a
//! replica that is damaged, go at once. The trash is emptied of what is older than [`crate::Upkeep::trash_keep`], and of
//! everything when the disk is full.

use model::{Instant, TabletId, Timestamp};
use std::time::Duration;
use store::{Done, Error, Job};

use crate::api::{Effect, Event};
use crate::machine::{Node, Working};

/// Of a node's bytes, this part may be released at a time.
const FIFTH: u64 = 5;
/// After so long, as much may go again.
const AGAIN: Duration = Duration::from_secs(600);
/// Replicas that are smaller than this do not count.
const SMALL: u64 = 1 << 20;
/// The trash is looked at this often, and so much goes at a time.
const LOOK: Duration = Duration::from_secs(600);
const MOST: u64 = 1 << 30;
/// Between two portions.
const PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Garbage {
    /// What was released since then.
    released: u64,
    since: Instant,
    deferred: bool,
    /// When the trash is looked at next, unless that is under way.
    due: Instant,
    emptying: bool,
}

impl Garbage {
    pub fn new(now: Instant) -> Garbage {
        Garbage { since: now, due: now, ..Garbage::default() }
    }

    pub fn deadline(&self) -> Option<Instant> {
        (!self.emptying).then_some(self.due)
    }
}

impl Node {
    /// Has a leading master told this life of the node what it keeps? Until then nothing goes of which only the log says
    /// nothing: the log may have lost something.
    pub(crate) fn knows_its_tablets(&self, now: Instant) -> bool {
        self.session.is_some() && self.forgot.is_none_or(|until| now >= until)
    }

    /// May the spare replica go now? If not, the master says it again with every report.
    pub(crate) fn may_release(&mut self, now: Instant, tablet: TabletId, out: &mut Vec<Effect>) -> bool {
        let bytes = |tablet: &TabletId| self.hosted.get(tablet).map_or(0, |hosted| hosted.rows.bytes());
        let (its, all) = (bytes(&tablet), self.hosted.keys().map(bytes).sum::<u64>());
        let garbage = &mut self.garbage;
        if now.since(garbage.since) >= AGAIN {
            (garbage.released, garbage.since, garbage.deferred) = (0, now, false);
        }
        // One replica may go, however large it is.
        let fits = garbage.released == 0 || garbage.released + its <= (all + garbage.released) / FIFTH;
        if its < SMALL || fits {
            garbage.released += its;
            return true;
        }
        if !garbage.deferred {
            garbage.deferred = true;
            let what = format!(
                "{} bytes were released, and {its} more would be over a fifth of this node's data; the rest waits {} s",
                garbage.released,
                AGAIN.as_secs()
            );
            out.push(Effect::Event(Event { name: "release_deferred", tablet: Some(tablet), what }));
        }
        false
    }

    /// Looks into the trash if it is time.
    pub(crate) fn empty_trash_if_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.garbage.emptying || now < self.garbage.due {
            return;
        }
        let keep = i64::try_from(self.options.upkeep.trash_keep.as_micros()).unwrap_or(i64::MAX);
        let until = match self.disk_full() {
            true => Timestamp(i64::MAX),
            false => Timestamp(self.date(now).0.saturating_sub(keep)),
        };
        self.garbage.emptying = true;
        self.run(Job::Empty { until, bytes: MOST }, Working::Empty, out);
    }

    /// The disk is full: nothing is kept for a while.
    pub(crate) fn empty_trash_now(&mut self, now: Instant) {
        self.garbage.due = now;
    }

    pub(crate) fn on_emptied(&mut self, now: Instant, result: &Result<Done, Error>, out: &mut Vec<Effect>) {
        self.garbage.emptying = false;
        let more = match result {
            Ok(Done::Emptied { bytes, more }) => {
                if *bytes > 0 {
                    let what = format!("{bytes} bytes");
                    out.push(Effect::Event(Event { name: "trash_emptied", tablet: None, what }));
                }
                *more
            }
            _ => false,
        };
        self.garbage.due = now + if more { PAUSE } else { LOOK.min(self.options.upkeep.trash_keep.max(PAUSE)) };
    }
}
