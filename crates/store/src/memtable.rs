//! The newest changes of a tablet, in memory and sorted: the shard writes while readers read.
//!
//! Nothing is ever removed or replaced: what came up to some lsn stays as it was, so a reader that ignores later changes
//! sees the tablet as of that lsn for ever, although it takes the lock only for moments. Grows until its tablet
//! freezes it; being written to a table is the business of [`crate::keeper`].

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use model::{Bytes, Change, Lsn, RowRange, Timestamp};
use parking_lot::RwLock;

use crate::key::{self, Scope, Seq};

/// What an entry costs beside its bytes: two handles and its share of a tree node.
const OVERHEAD: usize = 96;
/// The most entries that a reader takes while it holds the lock.
const MOST_AT_ONCE: usize = 256;

/// Sorted changes by internal key.
#[derive(Default)]
pub struct Memtable(RwLock<Sorted>);

#[derive(Default)]
struct Sorted {
    entries: BTreeMap<Bytes, Bytes>,
    weight: usize,
}

impl Memtable {
    /// Adds the changes of one record.
    pub fn apply(&self, lsn: Lsn, row: &[u8], changes: &[Change], version: Timestamp) {
        let mut sorted = self.0.write();
        for (index, change) in (0..).zip(changes) {
            let key = key::of_change(row, change, Seq(lsn, index), version);
            let value = if let Change::Put { value, .. } = change { value.clone() } else { Bytes::new() };
            sorted.weight += key.len() + value.len() + OVERHEAD;
            sorted.entries.insert(key, value);
        }
    }

    /// For the simulator: memory goes wrong, and there is an old version that nobody wrote. False if it holds no version.
    pub(crate) fn go_wrong(&self) -> bool {
        let mut sorted = self.0.write();
        let version = sorted.entries.iter().find_map(|(key, value)| {
            let parts = key::Parts::parse(key)?;
            let Scope::Cell { sets: true, .. } = parts.scope else { return None };
            let (family, timestamp, value) = (parts.family, Timestamp(1), value.clone());
            let change = Change::Put { family, qualifier: key::unescape(parts.qualifier), timestamp, value };
            Some((key::unescape(parts.row), change, parts.seq.0))
        });
        let Some((row, change, lsn)) = version else { return false };
        let key = key::of_change(&row, &change, Seq(lsn, u32::MAX), Timestamp(1));
        sorted.entries.insert(key, Bytes::from_static(b"0"));
        true
    }

    /// Takes over the other one's changes of rows within `bounds`.
    pub(crate) fn copy(&self, other: &Memtable, bounds: &RowRange) {
        let (mut sorted, other) = (self.0.write(), other.0.read());
        for (key, value) in other.within(bounds) {
            sorted.weight += key.len() + value.len() + OVERHEAD;
            sorted.entries.insert(key.clone(), value.clone());
        }
    }

    /// Appends the rows within `bounds`, with what their changes weigh.
    pub(crate) fn weigh(&self, bounds: &RowRange, weights: &mut Vec<(Bytes, u64)>) {
        for (key, value) in self.0.read().within(bounds) {
            let Some(row) = key::row_of(key) else { continue };
            let (row, weight) = (key::unescape(row), (key.len() + value.len()) as u64);
            match weights.last_mut() {
                Some((last, sum)) if *last == row => *sum += weight,
                _ => weights.push((row, weight)),
            }
        }
    }

    /// Bytes that it takes, about.
    pub fn weight(&self) -> usize {
        self.0.read().weight
    }

    /// How many changes it holds.
    pub fn updates(&self) -> u64 {
        self.0.read().entries.len() as u64
    }

    /// Whether it holds no change.
    pub fn is_empty(&self) -> bool {
        self.updates() == 0
    }
}

impl Sorted {
    fn within(&self, bounds: &RowRange) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        let start = Bytes::from(key::row_start(&bounds.start));
        let end = bounds.end.as_ref().map(|end| key::row_start(end));
        let inside = move |key: &Bytes| end.as_ref().is_none_or(|end| key[..] < end[..]);
        self.entries.range(start..).take_while(move |(key, _)| inside(key))
    }
}

impl fmt::Debug for Memtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memtable({} changes, {} bytes)", self.updates(), self.weight())
    }
}

/// Walks a memtable as of some lsn, in key order. Stands on an entry, or is at the end.
pub struct MemoryCursor {
    memtable: Arc<Memtable>,
    at: Lsn,
    /// No key from here on is wanted.
    end: Option<Vec<u8>>,
    /// Taken under one lock; the cursor stands on its last entry, for it is in reverse.
    taken: Vec<(Bytes, Bytes)>,
    /// Where to go on, once those are used up; `None` if there is nothing more.
    next: Option<Bound<Bytes>>,
    /// How many to take at once: few at first, since most reads want one row.
    at_once: usize,
}

impl MemoryCursor {
    /// Goes to the first key from `start` on and before `end`.
    pub fn new(memtable: Arc<Memtable>, at: Lsn, start: &[u8], end: Option<Vec<u8>>) -> MemoryCursor {
        let next = Some(Bound::Included(Bytes::copy_from_slice(start)));
        let mut cursor = MemoryCursor { memtable, at, end, taken: Vec::new(), next, at_once: 8 };
        cursor.fill();
        cursor
    }

    /// The entry it stands on.
    pub fn entry(&self) -> Option<(&[u8], &Bytes)> {
        self.taken.last().map(|(key, value)| (&key[..], value))
    }

    /// Goes on by one entry.
    pub fn advance(&mut self) {
        self.taken.pop();
        self.fill();
    }

    fn fill(&mut self) {
        while self.taken.is_empty()
            && let Some(from) = self.next.take()
        {
            self.take(from);
        }
    }

    fn take(&mut self, from: Bound<Bytes>) {
        let sorted = self.memtable.0.read();
        let from = from.as_ref().map(|key| &key[..]);
        let mut seen = 0;
        for (key, value) in sorted.entries.range::<[u8], _>((from, Bound::Unbounded)) {
            if self.end.as_ref().is_some_and(|end| key[..] >= end[..]) {
                break;
            }
            if key::lsn_of(key) <= self.at {
                self.taken.push((key.clone(), value.clone()));
            }
            seen += 1;
            if seen == self.at_once {
                self.next = Some(Bound::Excluded(key.clone()));
                break;
            }
        }
        drop(sorted);
        self.taken.reverse();
        self.at_once = (self.at_once * 4).min(MOST_AT_ONCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::FamilyId;

    /// A view is as of one lsn, although the shard goes on writing, also into the gaps between what was read.
    #[test]
    fn a_reader_sees_what_was_there_and_nothing_later() {
        let memtable = Arc::new(Memtable::default());
        let row = |n: u64| format!("{:04}", n * 7919 % 1000).into_bytes();
        for lsn in 1..=500 {
            memtable.apply(Lsn(lsn), &row(lsn), &[put("a")], Timestamp(1));
        }
        let mut cursor = MemoryCursor::new(memtable.clone(), Lsn(500), &[], None);
        let mut seen = Vec::new();
        for lsn in 501.. {
            let Some((key, _)) = cursor.entry() else { break };
            seen.push(key.to_vec());
            memtable.apply(Lsn(lsn), &row(lsn), &[put("b")], Timestamp(2));
            cursor.advance();
        }
        assert_eq!(seen.len(), 500);
        assert!(seen.is_sorted() && seen.iter().all(|key| key::lsn_of(key) <= Lsn(500)));
        assert_eq!(memtable.updates(), 1000);
    }

    #[test]
    fn a_cursor_ends_before_its_end() {
        let memtable = Arc::new(Memtable::default());
        for lsn in 1..=100 {
            memtable.apply(Lsn(lsn), format!("{lsn:03}").as_bytes(), &[put("a")], Timestamp(1));
        }
        let mut cursor = MemoryCursor::new(memtable, Lsn(100), &key::row_start(b"010"), Some(key::row_end(b"059")));
        let mut rows = 0;
        while cursor.entry().is_some() {
            rows += 1;
            cursor.advance();
        }
        assert_eq!(rows, 50);
    }

    fn put(value: &'static str) -> Change {
        let value = Bytes::from_static(value.as_bytes());
        Change::Put { family: FamilyId(1), qualifier: Bytes::new(), timestamp: Timestamp::SERVER, value }
    }
}
