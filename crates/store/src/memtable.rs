//! The newest changes of a tablet, in memory and sorted: the shard writes while readers read.
//!
//! ```text
//!   apply ──▶ tree: where keys lie, in order ──▶ arena: keys and values, one after the other
//!               │
//!   reader ◀────┘ copies a window of entries under the lock, and walks it without
//! ```
//!
//! Nothing is ever removed or replaced: what came up to some lsn stays as it was, so a reader that ignores later changes
//! sees the tablet as of that lsn for ever, although it takes the lock only for moments. Grows until its tablet
//! freezes it; being written to a table is the business of [`crate::keeper`].

mod arena;
mod cursor;
mod lock;
mod tree;

use std::fmt;

use model::{Bytes, Change, Lsn, RowRange, Timestamp};

use self::arena::Value;
pub use self::cursor::MemoryCursor;
use self::lock::RwLock;
use self::tree::Tree;
use crate::key::{self, Scope, Seq};

/// Sorted changes by internal key.
#[derive(Default)]
pub struct Memtable(RwLock<Sorted>);

#[derive(Default)]
struct Sorted {
    tree: Tree,
    /// The key that is being made; kept for its memory.
    key: Vec<u8>,
}

impl Memtable {
    /// Adds the changes of a record.
    pub fn apply(&self, lsn: Lsn, row: &[u8], changes: &[Change], version: Timestamp) {
        self.add(Seq(lsn, 0), row, changes, version);
    }

    /// Adds changes of a row, of which the first one is made at `seq` and each other one right after the one before it.
    pub(crate) fn add(&self, Seq(lsn, first): Seq, row: &[u8], changes: &[Change], version: Timestamp) {
        let mut sorted = self.0.write();
        let Sorted { tree, key } = &mut *sorted;
        key.clear();
        key::push_row(row, key);
        let row_len = key.len();
        for (index, change) in (first..).zip(changes) {
            key.truncate(row_len);
            key::push_change(key, change, Seq(lsn, index), version);
            tree.insert(key, if let Change::Put { value, .. } = change { value.into() } else { Value::Small(&[]) });
        }
    }

    /// For the simulator: memory goes wrong, and there is an old version that nobody wrote. False if it holds no version.
    pub(crate) fn go_wrong(&self) -> bool {
        let mut sorted = self.0.write();
        let version = sorted.within(&RowRange::default()).find_map(|(key, value)| {
            let parts = key::Parts::parse(key)?;
            let Scope::Cell { sets: true, .. } = parts.scope else { return None };
            let (family, timestamp, value) = (parts.family, Timestamp(1), value.to_bytes());
            let change = Change::Put { family, qualifier: key::unescape(parts.qualifier), timestamp, value };
            Some((key::unescape(parts.row), change, parts.seq.0))
        });
        let Some((row, change, lsn)) = version else { return false };
        let key = key::of_change(&row, &change, Seq(lsn, u32::MAX), Timestamp(1));
        sorted.tree.insert(&key, Value::Small(b"0"));
        true
    }

    /// Takes over the other one's changes of rows within `bounds`.
    pub(crate) fn copy(&self, other: &Memtable, bounds: &RowRange) {
        let (mut sorted, other) = (self.0.write(), other.0.read());
        for (key, value) in other.within(bounds) {
            sorted.tree.insert(key, value);
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

    /// Has it a key from `start` on and before `end`?
    pub(crate) fn holds(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        let sorted = self.0.read();
        match end {
            Some(end) => sorted.tree.holds(start, end),
            None => sorted.tree.first_from(start).is_some(),
        }
    }

    /// Bytes of memory that it takes.
    pub fn weight(&self) -> usize {
        self.0.read().tree.taken()
    }

    /// How many changes it holds.
    pub fn updates(&self) -> u64 {
        self.0.read().tree.len()
    }

    /// Whether it holds no change.
    pub fn is_empty(&self) -> bool {
        self.updates() == 0
    }
}

impl Sorted {
    fn within(&self, bounds: &RowRange) -> impl Iterator<Item = (&[u8], Value<'_>)> {
        let end = bounds.end.as_ref().map(|end| key::row_start(end));
        let first = self.tree.first_from(&key::row_start(&bounds.start));
        let places = std::iter::successors(first, |place| self.tree.after(*place));
        let inside = move |key: &[u8]| end.as_ref().is_none_or(|end| key < &end[..]);
        places.map(|place| self.tree.entry(place)).take_while(move |(key, _)| inside(key))
    }
}

impl fmt::Debug for Memtable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memtable({} changes, {} bytes)", self.updates(), self.weight())
    }
}

#[cfg(test)]
mod tests;

#[cfg(all(test, feature = "shuttle"))]
mod schedules;
