//! Who is too slow: how long a member takes to have an entry on disk, and since when that is beyond the bound.
//!
//! One entry at a time is watched. A member that has been beyond [`Timing::slow`] for [`Timing::patience`] is removed
//! and comes back by catch-up: with write-all, one slow disk would slow everybody (PacificA, discussion; decision 15 of
//! the design). A secondary's clock starts when our own disk has the entry, so a stall that all share blames nobody.

use core::time::Duration;
use model::{Instant, Lsn};

use crate::Timing;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Pace {
    /// The entry that is watched, and since when.
    watched: Option<(Lsn, Instant)>,
    /// Since when every entry that was watched took too long.
    slow_since: Option<Instant>,
    /// When the last entry that was watched got there.
    rested: Option<Instant>,
}

impl Pace {
    /// Watches this entry from now on, if none is watched. What was slow before a long rest says nothing of today.
    pub fn watch(&mut self, now: Instant, lsn: Lsn, timing: &Timing) {
        if self.watched.is_some() {
            return;
        }
        if self.rested.is_some_and(|rested| now.since(rested) > timing.patience) {
            self.slow_since = None;
        }
        self.watched = Some((lsn, now));
    }

    /// Everything up to here is on disk.
    pub fn reached(&mut self, now: Instant, upto: Lsn, bound: Duration) {
        let Some((_, since)) = self.watched.filter(|(lsn, _)| *lsn <= upto) else { return };
        self.watched = None;
        self.rested = Some(now);
        if now.since(since) > bound {
            self.slow_since.get_or_insert(since);
        } else {
            self.slow_since = None;
        }
    }

    /// Is no entry watched?
    pub fn rests(&self) -> bool {
        self.watched.is_none()
    }

    /// Beyond the bound for longer than patience lasts?
    pub fn is_slow(&self, now: Instant, timing: &Timing) -> bool {
        self.deadline(timing).is_some_and(|deadline| now >= deadline)
    }

    /// How long the entry that is watched has taken so far.
    pub fn behind(&self, now: Instant) -> Duration {
        self.watched.map_or(Duration::ZERO, |(_, since)| now.since(since))
    }

    /// When it will have been slow for too long, if the entry that is watched does not get there before.
    pub fn deadline(&self, timing: &Timing) -> Option<Instant> {
        let (_, since) = self.watched?;
        Some((self.slow_since.unwrap_or(since) + timing.patience).max(since + timing.slow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn one_slow_entry_is_forgiven_and_a_row_of_them_is_not() {
        let timing = Timing::default();
        let mut pace = Pace::default();
        pace.watch(at(0), Lsn(1), &timing);
        pace.reached(at(900), Lsn(1), timing.slow);
        pace.watch(at(900), Lsn(2), &timing);
        pace.reached(at(1000), Lsn(5), timing.slow);
        assert_eq!(pace.slow_since, None);
        for second in 1..3 {
            pace.watch(at(second * 1000), Lsn(second), &timing);
            pace.reached(at(second * 1000 + 900), Lsn(second), timing.slow);
        }
        pace.watch(at(3000), Lsn(3), &timing);
        assert!(!pace.is_slow(at(3499), &timing) && pace.is_slow(at(3500), &timing));
    }

    #[test]
    fn what_was_slow_before_a_rest_is_forgotten() {
        let timing = Timing::default();
        let mut pace = Pace::default();
        pace.watch(at(0), Lsn(1), &timing);
        pace.reached(at(900), Lsn(1), timing.slow);
        pace.watch(at(60_000), Lsn(2), &timing);
        assert!(!pace.is_slow(at(60_600), &timing) && pace.is_slow(at(62_500), &timing));
    }

    #[test]
    fn a_disk_that_hangs_is_slow_when_patience_ends() {
        let timing = Timing::default();
        let mut pace = Pace::default();
        pace.watch(at(100), Lsn(1), &timing);
        pace.watch(at(2000), Lsn(2), &timing);
        assert!(!pace.is_slow(at(2599), &timing) && pace.is_slow(at(2600), &timing));
    }
}
