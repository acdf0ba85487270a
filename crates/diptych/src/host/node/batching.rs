//! Which writes wait for the log, so that they share its next sync.
//!
//! A write that comes while the log syncs cannot be committed before that sync is over anyway. Held back until then,
//! it goes on together with all others that came meanwhile: one append, one sync, and one message to each member,
//! instead of a handful each.
//!
//! A sync that takes too long holds nobody: the disk may hang, and then only the node can send clients elsewhere.

use model::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// No write is held back for longer than this.
const MOST: Duration = Duration::from_millis(100);

/// The writes that are held back.
#[derive(Debug)]
pub struct Batching<T> {
    held: VecDeque<T>,
    /// The held ones wait for the sync of this record: the last one when the first of them came. Records of tablets
    /// that others lead may go on and on; nobody waits for those.
    until: u64,
    /// When the first of the held ones came.
    since: Instant,
    /// Records given to the log, and how many of them it has synced.
    logged: u64,
    durable: u64,
    /// Without room the log itself waits, and nobody waits for the log.
    room: bool,
}

impl<T> Default for Batching<T> {
    fn default() -> Batching<T> {
        Batching { held: VecDeque::new(), until: 0, since: Instant::ZERO, logged: 0, durable: 0, room: true }
    }
}

impl<T> Batching<T> {
    /// A write has come: it is given back if it may go on at once.
    pub fn offer(&mut self, now: Instant, write: T) -> Option<T> {
        let syncing = self.room && self.durable < self.logged;
        if self.held.is_empty() {
            if !syncing {
                return Some(write);
            }
            (self.until, self.since) = (self.logged, now);
        }
        self.held.push_back(write);
        None
    }

    /// Those that may go on now, in the order in which they came.
    pub fn take_ready(&mut self, now: Instant) -> VecDeque<T> {
        let waits = self.room && self.durable < self.until && now < self.since + MOST;
        if waits { VecDeque::new() } else { std::mem::take(&mut self.held) }
    }

    /// When those that are held go on at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.held.is_empty()).then(|| self.since + MOST)
    }

    /// So many more records were given to the log.
    pub fn on_logged(&mut self, records: usize) {
        self.logged += records as u64;
    }

    /// The log has synced the first so many.
    pub fn on_durable(&mut self, upto: u64) {
        self.durable = upto;
    }

    /// Whether the log's disk has room.
    pub fn on_room(&mut self, room: bool) {
        self.room = room;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(7_000_000_000);

    #[test]
    fn a_write_waits_only_while_the_log_syncs() {
        let mut batching = Batching::default();
        assert_eq!(batching.offer(NOW, 1), Some(1));
        batching.on_logged(1);
        assert_eq!((batching.offer(NOW, 2), batching.offer(NOW, 3)), (None, None));
        assert!(batching.take_ready(NOW).is_empty());
        batching.on_durable(1);
        assert_eq!(batching.take_ready(NOW), [2, 3]);
        assert_eq!(batching.offer(NOW, 4), Some(4));
    }

    /// Issue 3, "How well": clients of a primary whose disk hung were held until the disk went on, long after their
    /// tablets had another primary.
    #[test]
    fn a_sync_that_hangs_holds_nobody() {
        let mut batching = Batching::default();
        batching.on_logged(1);
        assert_eq!((batching.offer(NOW, 1), batching.deadline()), (None, Some(NOW + MOST)));
        assert!(batching.take_ready(NOW + MOST / 2).is_empty());
        assert_eq!(batching.take_ready(NOW + MOST), [1]);
        assert_eq!(batching.deadline(), None);
    }

    /// What a busy secondary goes on logging must not hold its own tablets' writes for ever.
    #[test]
    fn nobody_waits_for_records_that_came_later() {
        let mut batching = Batching::default();
        batching.on_logged(1);
        assert_eq!(batching.offer(NOW, 1), None);
        batching.on_logged(10);
        batching.on_durable(1);
        assert_eq!(batching.take_ready(NOW), [1], "though ten more are under way");
    }

    /// A full disk stops the log; writes go on, to be refused.
    #[test]
    fn nobody_waits_for_a_log_without_room() {
        let mut batching = Batching::default();
        batching.on_logged(1);
        assert_eq!(batching.offer(NOW, 1), None);
        batching.on_room(false);
        assert_eq!(batching.take_ready(NOW), [1]);
        assert_eq!(batching.offer(NOW, 2), Some(2));
    }
}
