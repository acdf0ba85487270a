//! One block of a table file: sorted entries with the beginnings that they share written once.
//!
//! ```text
//!   payload:  entry* | restart u32 * n | n u32
//!   entry:    varint shared | varint rest | varint value length | rest of the key | value
//! ```
//!
//! `shared` is how much of the key before it an entry repeats; it is 0 at each restart, so that a search can begin
//! there. Numbers are little-endian. How a payload lies in the file is `codec`'s. What does not decode, although it
//! was sealed, is [`Malformed`].

use std::ops::Range;

use crc_fast::{CrcAlgorithm, Digest};
use model::Bytes;

/// A key is no longer: row and qualifier at their limits, with every byte of them escaped, and 19 + 13 bytes beside them.
const MOST_KEY: usize = 64 << 10;
const _: () = assert!(MOST_KEY > 2 * (model::limits::ROW_KEY + model::limits::QUALIFIER) + 40);
/// What a prepared payload has behind its heads.
const TRAILER: usize = 3 * 4;
/// After so many bytes there is a restart: what a search has to walk through is a few lines of the processor's cache.
const STRETCH: usize = 384;
/// There are no more entries from one restart to the next.
const MOST_BEHIND: usize = 64;

/// Bytes that cannot be what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// CRC-32C of the parts, one after the other.
pub fn crc(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize() as u32
}

/// Collects sorted entries into a payload.
pub struct Builder {
    payload: Vec<u8>,
    restarts: Vec<u32>,
    last: Vec<u8>,
    since_restart: usize,
    interval: usize,
}

impl Builder {
    /// An empty one, with a restart at every `interval`th entry at least.
    pub fn new(interval: usize) -> Builder {
        Builder { payload: Vec::new(), restarts: Vec::new(), last: Vec::new(), since_restart: 0, interval }
    }

    /// Adds an entry; keys must rise.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        assert!(self.is_empty() || self.last[..] < *key, "entries come in order");
        let mut shared = 0;
        let far = |restart: &u32| self.payload.len() - *restart as usize >= STRETCH;
        if self.since_restart == self.interval || self.restarts.last().is_none_or(far) {
            self.restarts.push(number(self.payload.len()));
            self.since_restart = 0;
        } else {
            shared = common(&self.last, key);
        }
        self.since_restart += 1;
        push_varint(&mut self.payload, number(shared));
        push_varint(&mut self.payload, number(key.len() - shared));
        push_varint(&mut self.payload, number(value.len()));
        self.payload.extend_from_slice(&key[shared..]);
        self.payload.extend_from_slice(value);
        self.last.truncate(shared);
        self.last.extend_from_slice(&key[shared..]);
    }

    /// Key of the last entry.
    pub fn last(&self) -> &[u8] {
        &self.last
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.restarts.is_empty()
    }

    /// Appends the payload to `out` and begins anew.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.payload);
        for restart in &self.restarts {
            out.extend_from_slice(&restart.to_le_bytes());
        }
        out.extend_from_slice(&number(self.restarts.len()).to_le_bytes());
        self.restarts.clear();
        self.last.clear();
        self.since_restart = 0;
    }
}

/// A payload, as it lies in the file or prepared to be searched often.
///
/// ```text
///   prepared:  payload | head u64 * n | n u32 | shared u32 | length of the payload u32
/// ```
///
/// A head is what eight bytes of a restart's key are as a number, after the `shared` ones that all of them begin with. They lie
/// close together, where the keys do not.
#[derive(Clone, Debug)]
pub struct Payload {
    bytes: Bytes,
    prepared: bool,
}

impl Payload {
    /// As it lies in the file.
    pub fn plain(bytes: Bytes) -> Payload {
        Payload { bytes, prepared: false }
    }

    /// Prepares it.
    pub fn prepare(mut bytes: Vec<u8>) -> Result<Payload, Malformed> {
        let mut cursor = Cursor::default();
        // The cursor does not outlive this, so the bytes are ours alone again.
        let plain = Bytes::from(std::mem::take(&mut bytes));
        cursor.enter(Payload::plain(plain.clone()))?;
        let (len, restarts) = (plain.len(), cursor.restarts);
        let mut heads = Vec::with_capacity(restarts);
        let mut shared = 0;
        if let Some(last) = restarts.checked_sub(1) {
            shared = common(cursor.restart_key(0)?, cursor.restart_key(last)?);
            for restart in 0..restarts {
                heads.push(head(cursor.restart_key(restart)?.get(shared..).unwrap_or_default()));
            }
        }
        drop(cursor);
        let mut bytes = Vec::from(plain);
        bytes.reserve_exact(8 * restarts + TRAILER);
        heads.iter().for_each(|head| bytes.extend_from_slice(&head.to_le_bytes()));
        [restarts, shared, len].iter().for_each(|size| bytes.extend_from_slice(&number(*size).to_le_bytes()));
        Ok(Payload { bytes: Bytes::from(bytes), prepared: true })
    }

    /// Bytes of memory.
    pub fn weight(&self) -> usize {
        self.bytes.len()
    }
}

/// The first eight bytes, so that what is less as a number is less as bytes.
pub fn head(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..bytes.len()].copy_from_slice(bytes);
            u64::from_be_bytes(first)
        }
    }
}

/// Walks the entries of a payload, both ways. Stands on an entry, or is off one of the ends.
#[derive(Default)]
pub struct Cursor {
    payload: Bytes,
    /// Where the entries end and the restarts begin.
    entries_end: usize,
    restarts: usize,
    /// Where the heads begin, if it is prepared, and the bytes that all keys begin with.
    heads: Option<(usize, usize)>,
    /// Where the entry that it stands on begins, and where the one after it does.
    at: usize,
    next: usize,
    key: Vec<u8>,
    value: Range<usize>,
    valid: bool,
    /// Entries from a restart on up to the one that it stands on, as far as a retreat has decoded them.
    behind: Vec<Behind>,
    behind_keys: Vec<u8>,
}

/// An entry that a retreat will come to.
struct Behind {
    at: usize,
    /// Where in `behind_keys` its key begins; it goes on to the end of those.
    key: usize,
    value: Range<usize>,
}

/// An entry as it lies in the payload.
struct Entry {
    shared: usize,
    rest: Range<usize>,
    value: Range<usize>,
}

impl Cursor {
    /// Goes to the first entry.
    pub fn new(payload: Bytes) -> Result<Cursor, Malformed> {
        let mut cursor = Cursor::default();
        cursor.enter(Payload::plain(payload))?;
        cursor.advance()?;
        Ok(cursor)
    }

    /// Goes before the first entry of another payload.
    pub fn enter(&mut self, Payload { bytes: payload, prepared }: Payload) -> Result<(), Malformed> {
        let wrong = Malformed("a block's restarts do not fit it");
        let (rest, last) = payload.split_last_chunk().ok_or(wrong)?;
        let mut restarts = u32::from_le_bytes(*last) as usize;
        let mut rest = rest.len();
        self.heads = None;
        if prepared {
            let (_, trailer) = payload.split_last_chunk::<TRAILER>().ok_or(wrong)?;
            let numbers = trailer.as_chunks::<4>().0;
            let [count, shared, len] = [0, 1, 2].map(|at| u32::from_le_bytes(numbers[at]) as usize);
            (restarts, rest) = (count, len.checked_sub(4).ok_or(wrong)?);
            self.heads = Some((len, shared));
        }
        let entries_end = restarts.checked_mul(4).and_then(|len| rest.checked_sub(len)).ok_or(wrong)?;
        if (restarts == 0) != (entries_end == 0) {
            return Err(wrong);
        }
        (self.payload, self.entries_end, self.restarts) = (payload, entries_end, restarts);
        (self.at, self.next, self.valid) = (0, 0, false);
        self.key.clear();
        self.forget_behind();
        Ok(())
    }

    /// Goes to the first entry whose key is not below `target`.
    pub fn seek(&mut self, target: &[u8]) -> Result<(), Malformed> {
        let before = self.restarts_below(0, target)?.saturating_sub(1);
        let at = if self.restarts == 0 { 0 } else { self.restart(before)? };
        self.run_to(target, at, 0, 0)
    }

    /// As [`Cursor::seek`], from the entry on that it stands on, whose key is below `target`. Costs little if it is near.
    pub fn seek_on(&mut self, target: &[u8]) -> Result<(), Malformed> {
        let ahead = self.restarts_before(self.next)?;
        let near = ahead == self.restarts || self.restart_key(ahead)? >= target;
        if near && self.valid {
            return self.run_to(target, self.next, self.key.len(), common(&self.key, target));
        }
        let before = self.restarts_below(ahead, target)?.saturating_sub(1);
        let at = if self.restarts == 0 { 0 } else { self.restart(before)? };
        self.run_to(target, at, 0, 0)
    }

    /// How many restarts have keys below `target`, if the first `low` do.
    fn restarts_below(&self, mut low: usize, target: &[u8]) -> Result<usize, Malformed> {
        let mut high = self.restarts;
        if let Some((heads, shared)) = self.heads.filter(|_| low < high) {
            let beginning = self.restart_key(0)?.get(..shared).unwrap_or_default();
            let same = common(beginning, target);
            if same < beginning.len() {
                let below = target.get(same).is_none_or(|byte| *byte < beginning[same]);
                return Ok(if below { low } else { high });
            }
            let heads = self.payload.get(heads..heads + 8 * high).unwrap_or_default().as_chunks::<8>().0;
            let wanted = head(&target[same..]);
            low = low.max(heads.partition_point(|head| u64::from_le_bytes(*head) < wanted));
            high = high.min(
                low + heads.get(low..).unwrap_or_default().partition_point(|head| u64::from_le_bytes(*head) == wanted),
            );
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.restart_key(middle)? < target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// How many restarts lie before this offset.
    fn restarts_before(&self, offset: usize) -> Result<usize, Malformed> {
        let (mut low, mut high) = (0, self.restarts);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.restart(middle)? < offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Goes on from the entry at `at` to the first whose key is not below `target`. The key before it has `before` bytes,
    /// is below `target` too, and begins like it for `matched` bytes.
    ///
    /// That tells of most entries whether they are below without a look at their keys: one that shares more than `matched`
    /// with its neighbour differs from `target` where that one did; one that shares less has risen above it there.
    fn run_to(&mut self, target: &[u8], mut at: usize, mut before: usize, mut matched: usize) -> Result<(), Malformed> {
        self.forget_behind();
        while at < self.entries_end {
            let entry = self.entry(at)?;
            if entry.shared > before {
                return Err(Malformed("an entry does not fit its block"));
            }
            let mut found = entry.shared < matched;
            if entry.shared == matched {
                let (rest, wanted) = (&self.payload[entry.rest.clone()], &target[matched..]);
                let same = common(rest, wanted);
                found = same == wanted.len() || (same < rest.len() && rest[same] > wanted[same]);
                matched += if found { 0 } else { same };
            }
            if found {
                self.key.clear();
                self.key.reserve(entry.shared + entry.rest.len());
                self.key.extend_from_slice(&target[..entry.shared]);
                self.stand_on(at, entry);
                return Ok(());
            }
            before = entry.shared + entry.rest.len();
            at = entry.value.end;
        }
        self.go_behind_all();
        Ok(())
    }

    /// Goes on by one entry.
    pub fn advance(&mut self) -> Result<(), Malformed> {
        if self.next >= self.entries_end {
            self.go_behind_all();
            return Ok(());
        }
        if !self.behind.is_empty() {
            self.forget_behind();
        }
        let entry = self.entry(self.next)?;
        if entry.shared > self.key.len() {
            return Err(Malformed("an entry does not fit its block"));
        }
        self.key.truncate(entry.shared);
        self.stand_on(self.next, entry);
        Ok(())
    }

    /// Goes behind the last entry.
    pub fn go_behind_all(&mut self) {
        self.forget_behind();
        (self.at, self.next, self.valid) = (self.entries_end, self.entries_end, false);
        self.value = 0..0;
    }

    /// Goes back by one entry. What was decoded on the way there is kept for the next step.
    pub fn retreat(&mut self) -> Result<(), Malformed> {
        if self.behind.is_empty() && self.at > 0 {
            self.look_behind()?;
        }
        match self.behind.pop() {
            Some(entry) => {
                self.key.clear();
                self.key.extend_from_slice(&self.behind_keys[entry.key..]);
                self.behind_keys.truncate(entry.key);
                (self.at, self.next) = (entry.at, entry.value.end);
                (self.value, self.valid) = (entry.value, true);
            }
            None => {
                self.key.clear();
                (self.at, self.next, self.valid) = (0, 0, false);
                self.value = 0..0;
            }
        }
        Ok(())
    }

    /// Decodes the entries from the restart before the one that it stands on up to that one.
    fn look_behind(&mut self) -> Result<(), Malformed> {
        let far = Malformed("a block's restarts are too far apart");
        let restart = self.restarts_before(self.at)?.checked_sub(1).ok_or(far)?;
        let mut at = self.restart(restart)?;
        self.key.clear();
        while at < self.at {
            let entry = self.entry(at)?;
            if entry.shared > self.key.len() || self.behind.len() == MOST_BEHIND {
                return Err(far);
            }
            self.key.truncate(entry.shared);
            self.key.extend_from_slice(&self.payload[entry.rest]);
            self.behind.push(Behind { at, key: self.behind_keys.len(), value: entry.value.clone() });
            self.behind_keys.extend_from_slice(&self.key);
            at = entry.value.end;
        }
        if at == self.at { Ok(()) } else { Err(far) }
    }

    fn forget_behind(&mut self) {
        self.behind.clear();
        self.behind_keys.clear();
    }

    /// The entry at `at`; its key's beginning is in place.
    fn stand_on(&mut self, at: usize, entry: Entry) {
        self.key.extend_from_slice(&self.payload[entry.rest]);
        (self.at, self.next) = (at, entry.value.end);
        (self.value, self.valid) = (entry.value, true);
    }

    fn entry(&self, at: usize) -> Result<Entry, Malformed> {
        let wrong = Malformed("an entry does not fit its block");
        let bytes = self.payload.get(at..self.entries_end).ok_or(wrong)?;
        let (shared, rest, value, head) = match *bytes {
            // Mostly all three are short.
            [shared, rest, value, ..] if (shared | rest | value) < 0x80 => {
                (usize::from(shared), usize::from(rest), usize::from(value), 3)
            }
            _ => {
                let mut left = bytes;
                let shared = take_varint(&mut left).ok_or(wrong)?;
                let rest = take_varint(&mut left).ok_or(wrong)?;
                let value = take_varint(&mut left).ok_or(wrong)?;
                (shared, rest, value, bytes.len() - left.len())
            }
        };
        if shared + rest > MOST_KEY || head + rest + value > bytes.len() {
            return Err(wrong);
        }
        let (rest, value) = (at + head..at + head + rest, at + head + rest..at + head + rest + value);
        Ok(Entry { shared, rest, value })
    }

    /// Where the entries from this restart on begin.
    fn restart(&self, number: usize) -> Result<usize, Malformed> {
        let at = self.entries_end + 4 * number;
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
        Ok(u32::from_le_bytes(*bytes.ok_or(Malformed("a block has no such restart"))?) as usize)
    }

    fn restart_key(&self, number: usize) -> Result<&[u8], Malformed> {
        let entry = self.entry(self.restart(number)?)?;
        Ok(&self.payload[entry.rest])
    }

    /// Key of the entry it stands on.
    pub fn key(&self) -> Option<&[u8]> {
        self.valid.then_some(&self.key[..])
    }

    /// Value of the entry it stands on, sharing the block's memory.
    pub fn value(&self) -> Bytes {
        self.payload.slice(self.value.clone())
    }

    /// Value of the entry it stands on.
    pub fn value_ref(&self) -> &[u8] {
        &self.payload[self.value.clone()]
    }
}

/// How many bytes `a` and `b` begin with in common.
pub fn common(a: &[u8], b: &[u8]) -> usize {
    let mut same = 0;
    for (x, y) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        let differs = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differs != 0 {
            return same + differs.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    same + a[same..].iter().zip(&b[same..]).take_while(|(x, y)| x == y).count()
}

fn number(len: usize) -> u32 {
    u32::try_from(len).expect("the limits on keys and values keep a block below 4 GiB")
}

fn push_varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0u64;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(number).ok().map(|number| number as usize);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("row{:05}", n * 3)).collect()
    }

    fn block(count: usize, interval: usize) -> Bytes {
        let mut builder = Builder::new(interval);
        keys(count).iter().for_each(|key| builder.add(key.as_bytes(), key.as_bytes()));
        let mut out = Vec::new();
        builder.finish(&mut out);
        Bytes::from(out)
    }

    #[test]
    fn a_seek_finds_the_first_that_is_not_below() {
        for (count, interval) in [(1, 16), (16, 16), (17, 16), (200, 16), (50, 1)] {
            let keys = keys(count);
            let plain = block(count, interval);
            for payload in [Payload::prepare(plain.to_vec()).unwrap(), Payload::plain(plain)] {
                let mut cursor = Cursor::default();
                cursor.enter(payload).unwrap();
                for target in
                    (0..count * 3 + 2).map(|n| format!("row{n:05}")).chain(["", "q", "s", "ro"].map(String::from))
                {
                    cursor.seek(target.as_bytes()).unwrap();
                    let expected = keys.iter().find(|key| **key >= target);
                    assert_eq!(cursor.key(), expected.map(|key| key.as_bytes()));
                    assert!(expected.is_none_or(|key| cursor.value() == key.as_bytes()));
                }
            }
        }
    }

    /// Bytes that pass the checksum but were never written so must not bring us down.
    #[test]
    fn any_bytes_are_walked_without_panic() {
        let good = block(40, 4);
        for at in 0..good.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff, good[at] ^ 1] {
                let mut bad = good.to_vec();
                bad[at] = byte;
                if let Ok(payload) = Payload::prepare(bad.clone()) {
                    let mut cursor = Cursor::default();
                    cursor.enter(payload).unwrap();
                    let _ = cursor.seek(b"row00050");
                    let _ = cursor.seek_on(b"row00060");
                }
                let Ok(mut cursor) = Cursor::new(Bytes::from(bad)) else { continue };
                let _ = cursor.seek(b"row00050");
                while cursor.key().is_some() && cursor.retreat().is_ok() {}
                let _ = cursor.seek(b"row00050");
                while cursor.key().is_some() && cursor.advance().is_ok() {}
            }
        }
    }
}
