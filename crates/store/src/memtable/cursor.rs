//! Walks a memtable while it is written to: copies some entries at a time under the lock, and walks those.

use std::ops::Range;
use std::sync::Arc;

use model::{Bytes, Lsn};

use super::Memtable;
use super::arena::Value;
use crate::key;

/// Entries that are looked at under one lock: few at first, since most reads want one row;
const FEWEST_AT_ONCE: usize = 8;
/// and at most so many,
const MOST_AT_ONCE: usize = 256;
/// with about so many bytes, for a writer waits meanwhile.
const MOST_BYTES: usize = 64 << 10;

/// Walks a memtable as of some lsn, in key order or against it. Stands on an entry, or is at an end.
///
/// ```text
///   ······· low [ taken taken taken ) high ·······          no key between low and high is missing
/// ```
pub struct MemoryCursor {
    memtable: Arc<Memtable>,
    at: Lsn,
    taken: Vec<Taken>,
    /// Keys and small values of those.
    bytes: Vec<u8>,
    low: Vec<u8>,
    /// `None` is after all keys.
    high: Option<Vec<u8>>,
    /// On which one of those it stands; at an end if there is none.
    on: usize,
    /// How many to look at next.
    at_once: usize,
}

struct Taken {
    key: Range<usize>,
    value: Kept,
}

enum Kept {
    Here(Range<usize>),
    Apart(Bytes),
}

impl MemoryCursor {
    /// At an end; it is to be placed.
    pub fn new(memtable: Arc<Memtable>, at: Lsn) -> MemoryCursor {
        let (taken, bytes, low, high) = (Vec::new(), Vec::new(), Vec::new(), Some(Vec::new()));
        MemoryCursor { memtable, at, taken, bytes, low, high, on: 0, at_once: FEWEST_AT_ONCE }
    }

    /// Goes to the first key that is not below `target`. Those from `end` on are not wanted: it may be at its end there.
    pub fn seek(&mut self, target: &[u8], end: Option<&[u8]>) {
        if *target < self.low[..] || self.high.as_ref().is_some_and(|high| *target >= high[..]) {
            self.forget(target);
        }
        self.on = self.place(target);
        self.fill_forwards(end);
    }

    /// Goes to the last key below `target`, or of all. Those below `start` are not wanted: it may be at its end there.
    pub fn seek_before(&mut self, target: Option<&[u8]>, start: &[u8]) {
        let above = |target| self.high.as_ref().is_some_and(|high| target > &high[..]);
        match target {
            Some(target) if *target <= self.low[..] || above(target) => self.forget(target),
            None if self.high.is_some() => {
                let last = self.memtable.0.read().tree.last().map(|(key, _)| [key, &[0]].concat());
                self.forget(&last.unwrap_or_default());
                // What comes after that from now on is too new.
                self.high = None;
            }
            Some(_) | None => {}
        }
        self.on = target.map_or(self.taken.len(), |target| self.place(target));
        self.retreat(start);
    }

    /// Key of the entry it stands on.
    pub fn key(&self) -> Option<&[u8]> {
        self.taken.get(self.on).map(|taken| &self.bytes[taken.key.clone()])
    }

    /// Value of the entry it stands on; empty at the end.
    pub fn value(&self) -> Bytes {
        match self.taken.get(self.on).map(|taken| &taken.value) {
            Some(Kept::Here(place)) => Bytes::copy_from_slice(&self.bytes[place.clone()]),
            Some(Kept::Apart(value)) => value.clone(),
            None => Bytes::new(),
        }
    }

    /// As [`MemoryCursor::value`], for those who do not keep it.
    pub fn value_ref(&self) -> &[u8] {
        match self.taken.get(self.on).map(|taken| &taken.value) {
            Some(Kept::Here(place)) => &self.bytes[place.clone()],
            Some(Kept::Apart(value)) => value,
            None => &[],
        }
    }

    /// Goes on by one entry; those from `end` on are not wanted.
    pub fn advance(&mut self, end: Option<&[u8]>) {
        self.on = self.on.saturating_add(1);
        if self.on >= self.taken.len() {
            self.fill_forwards(end);
        }
    }

    /// Goes back by one entry; those below `start` are not wanted.
    pub fn retreat(&mut self, start: &[u8]) {
        match self.on.checked_sub(1) {
            Some(before) => self.on = before,
            None => self.fill_backwards(start),
        }
    }

    /// Where among those taken the first is that is not below `target`.
    fn place(&self, target: &[u8]) -> usize {
        self.taken.partition_point(|taken| self.bytes[taken.key.clone()] < *target)
    }

    /// An empty window, there.
    fn forget(&mut self, place: &[u8]) {
        self.taken.clear();
        self.low.clear();
        self.low.extend_from_slice(place);
        let high = self.high.get_or_insert_default();
        high.clear();
        high.extend_from_slice(place);
        self.at_once = FEWEST_AT_ONCE;
    }

    /// If it has come to the upper end of the window: takes the next one.
    fn fill_forwards(&mut self, end: Option<&[u8]>) {
        while self.on >= self.taken.len()
            && let Some(from) = self.high.take_if(|from| end.is_none_or(|end| from[..] < *end))
        {
            let mut window = Window::new(&mut self.taken, &mut self.bytes, self.at, self.at_once);
            let sorted = self.memtable.0.read();
            let mut place = sorted.tree.first_from(&from);
            let mut high = std::mem::replace(&mut self.low, from);
            high.clear();
            self.high = loop {
                let Some((key, value)) = place.map(|place| sorted.tree.entry(place)) else { break None };
                if end.is_some_and(|end| key >= end) {
                    high.extend_from_slice(key);
                    break Some(high);
                }
                if window.take(key, value) {
                    high.extend_from_slice(key);
                    high.push(0);
                    break Some(high);
                }
                place = place.and_then(|place| sorted.tree.after(place));
            };
            drop(sorted);
            self.on = 0;
            self.at_once = (self.at_once * 4).min(MOST_AT_ONCE);
        }
    }

    /// At the lower end of the window: takes the one before.
    fn fill_backwards(&mut self, start: &[u8]) {
        // Before the first there is none.
        self.on = usize::MAX;
        while self.low[..] > *start && self.on == usize::MAX {
            let mut window = Window::new(&mut self.taken, &mut self.bytes, self.at, self.at_once);
            let sorted = self.memtable.0.read();
            let mut place = sorted.tree.last_before(&self.low);
            let low: &[u8] = loop {
                let Some((key, value)) = place.map(|place| sorted.tree.entry(place)) else { break &[] };
                if key < start {
                    break start;
                }
                if window.take(key, value) {
                    break key;
                }
                place = place.and_then(|place| sorted.tree.before(place));
            };
            let high = std::mem::replace(&mut self.low, low.to_vec());
            drop(sorted);
            self.high = Some(high);
            self.taken.reverse();
            self.at_once = (self.at_once * 4).min(MOST_AT_ONCE);
            self.on = self.taken.len().wrapping_sub(1);
        }
    }
}

/// A window that is being taken.
struct Window<'a> {
    taken: &'a mut Vec<Taken>,
    bytes: &'a mut Vec<u8>,
    at: Lsn,
    left: usize,
}

impl Window<'_> {
    fn new<'a>(taken: &'a mut Vec<Taken>, bytes: &'a mut Vec<u8>, at: Lsn, left: usize) -> Window<'a> {
        taken.clear();
        bytes.clear();
        Window { taken, bytes, at, left }
    }

    /// Copies the entry, unless it is too new. True if that is enough.
    fn take(&mut self, key: &[u8], value: Value<'_>) -> bool {
        if key::lsn_of(key) <= self.at {
            let key = self.copy(key);
            let value = match value {
                Value::Small(value) => Kept::Here(self.copy(value)),
                Value::Large(value) => Kept::Apart(value.clone()),
            };
            self.taken.push(Taken { key, value });
        }
        self.left -= 1;
        self.left == 0 || self.bytes.len() >= MOST_BYTES
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }
}
