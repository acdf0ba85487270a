//! The end of a group's log, in memory: everything that is not committed, and some that is, to send it again.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use model::{Epoch, Lsn};

use crate::Entry;

/// Dense entries `first..=last`. Empty at the start: then `last` is what came before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tail {
    before: Lsn,
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Tail {
    /// Follows an entry `before` that it does not hold itself.
    pub fn after(before: Lsn) -> Tail {
        Tail { before, entries: VecDeque::new(), bytes: 0 }
    }

    /// Position of the last entry, held here or not.
    pub fn last(&self) -> Lsn {
        Lsn(self.before.0 + self.entries.len() as u64)
    }

    /// Position of the first entry that is held here, or would be.
    pub fn first(&self) -> Lsn {
        self.before.next()
    }

    /// Bytes of all payloads.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entry at `lsn`, if it is held.
    pub fn get(&self, lsn: Lsn) -> Option<&Entry> {
        let index = lsn.0.checked_sub(self.first().0)?;
        self.entries.get(usize::try_from(index).ok()?)
    }

    /// Which configuration the entry at `lsn` is of, if it is held.
    pub fn epoch_at(&self, lsn: Lsn) -> Option<Epoch> {
        self.get(lsn).map(|entry| entry.epoch)
    }

    /// Appends the entry after the last one.
    pub fn push(&mut self, entry: Entry) {
        assert!(entry.lsn == self.last().next(), "the log has no gaps: {:?} after {:?}", entry.lsn, self.last());
        self.bytes += entry.payload.len();
        self.entries.push_back(entry);
    }

    /// Forgets the entry at `lsn` and all after it.
    pub fn cut(&mut self, lsn: Lsn) {
        while self.last() >= lsn {
            let entry = self.entries.pop_back().expect("a cut stays within what is held");
            self.bytes -= entry.payload.len();
        }
    }

    /// Forgets entries from the front, all of them at or before `upto`, while more than `keep_bytes` are held.
    pub fn trim(&mut self, upto: Lsn, keep_bytes: usize) {
        while self.bytes > keep_bytes && self.first() <= upto {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.payload.len();
            self.before = entry.lsn;
        }
    }

    /// Entries from `from` on, until `max_bytes` of payloads, at least one; none if `from` is not held.
    pub fn copy(&self, from: Lsn, max_bytes: usize) -> Vec<Entry> {
        let Some(skip) = from.0.checked_sub(self.first().0) else { return Vec::new() };
        let mut bytes = 0;
        self.entries
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
            .take_while(|entry| {
                let fits = bytes == 0 || bytes + entry.payload.len() <= max_bytes;
                bytes += entry.payload.len().max(1);
                fits
            })
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(lsn: u64) -> Entry {
        Entry { lsn: Lsn(lsn), epoch: Epoch(1), payload: Bytes::from_static(b"12345678") }
    }

    #[test]
    fn holds_what_was_pushed_between_cut_and_trim() {
        let mut tail = Tail::after(Lsn(10));
        (11..=20).for_each(|lsn| tail.push(entry(lsn)));
        tail.cut(Lsn(19));
        assert_eq!(tail.last(), Lsn(18));
        tail.trim(Lsn(15), 0);
        assert_eq!((tail.first(), tail.bytes()), (Lsn(16), 24));
        assert_eq!(tail.copy(Lsn(16), 16).len(), 2);
        assert_eq!(tail.copy(Lsn(16), 1).len(), 1);
        assert_eq!(tail.copy(Lsn(15), 100), []);
        assert_eq!(tail.copy(Lsn(19), 100), []);
    }
}
