//! One block of a table file: sorted entries with the beginnings that they share written once, sealed with a checksum.
//!
//! ```text
//!   sealed block:  payload | codec u8, 0 = as it is | crc u32
//!   payload:       entry* | restart u32 * n | n u32
//!   entry:         varint shared | varint rest | varint value length | rest of the key | value
//! ```
//!
//! `shared` is how much of the key before it an entry repeats; it is 0 at each restart, so that a search can begin
//! there. Numbers are little-endian. The checksum is CRC-32C of payload, codec and the block's own offset in the
//! file (u64), so that a block that was written to the wrong place shows. Bytes that pass the checksum are still not
//! trusted: what does not decode is [`Malformed`].

use std::ops::Range;

use crc_fast::{CrcAlgorithm, Digest};
use model::Bytes;

/// Bytes that sealing adds to a payload.
pub const SEAL: usize = 1 + 4;
const CODEC_NONE: u8 = 0;

/// Bytes that cannot be what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// CRC-32C of the parts, one after the other.
pub fn crc(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize() as u32
}

/// Appends to `out` what makes of its bytes from `start` on a block at `offset` of a file.
pub fn seal(out: &mut Vec<u8>, start: usize, offset: u64) {
    out.push(CODEC_NONE);
    let crc = crc(&[&out[start..], &offset.to_le_bytes()]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// The payload of the block that was sealed for `offset`.
pub fn unseal(sealed: Bytes, offset: u64) -> Result<Bytes, Malformed> {
    let (body, stored) = sealed.split_last_chunk().ok_or(Malformed("a block is too short"))?;
    if crc(&[body, &offset.to_le_bytes()]) != u32::from_le_bytes(*stored) {
        return Err(Malformed("a block's checksum is wrong"));
    }
    match body.last() {
        Some(&CODEC_NONE) => Ok(sealed.slice(..body.len() - 1)),
        _ => Err(Malformed("a block has an unknown codec")),
    }
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
    /// An empty one, with a restart at every `interval`th entry.
    pub fn new(interval: usize) -> Builder {
        Builder { payload: Vec::new(), restarts: Vec::new(), last: Vec::new(), since_restart: 0, interval }
    }

    /// Adds an entry; keys must rise.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        assert!(self.is_empty() || self.last[..] < *key, "entries come in order");
        let mut shared = 0;
        if self.restarts.is_empty() || self.since_restart == self.interval {
            self.restarts.push(number(self.payload.len()));
            self.since_restart = 0;
        } else {
            shared = self.last.iter().zip(key).take_while(|(a, b)| a == b).count();
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

/// Walks the entries of a payload in order. Stands on an entry, or is at the end.
pub struct Cursor {
    payload: Bytes,
    /// Where the entries end and the restarts begin.
    entries_end: usize,
    restarts: usize,
    /// Where the entry after this one begins.
    next: usize,
    key: Vec<u8>,
    value: Range<usize>,
    valid: bool,
}

impl Cursor {
    /// Goes to the first entry.
    pub fn new(payload: Bytes) -> Result<Cursor, Malformed> {
        let wrong = Malformed("a block's restarts do not fit it");
        let (rest, count) = payload.split_last_chunk().ok_or(wrong)?;
        let restarts = u32::from_le_bytes(*count) as usize;
        let entries_end = restarts.checked_mul(4).and_then(|len| rest.len().checked_sub(len)).ok_or(wrong)?;
        let (next, key, value) = (0, Vec::new(), 0..0);
        let mut cursor = Cursor { payload, entries_end, restarts, next, key, value, valid: false };
        cursor.advance()?;
        Ok(cursor)
    }

    /// Goes to the first entry whose key is not below `target`.
    pub fn seek(&mut self, target: &[u8]) -> Result<(), Malformed> {
        let (mut low, mut high) = (0, self.restarts);
        // All restarts before `low` have keys below the target; those from `high` on do not.
        while low < high {
            let middle = low + (high - low) / 2;
            self.go_to(middle)?;
            if self.key[..] < *target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.go_to(low.saturating_sub(1))?;
        while self.valid && self.key[..] < *target {
            self.advance()?;
        }
        Ok(())
    }

    fn go_to(&mut self, restart: usize) -> Result<(), Malformed> {
        let at = self.entries_end + 4 * restart;
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
        self.next = u32::from_le_bytes(*bytes.ok_or(Malformed("a block has no such restart"))?) as usize;
        self.key.clear();
        self.advance()
    }

    /// Goes on by one entry.
    pub fn advance(&mut self) -> Result<(), Malformed> {
        self.valid = self.next < self.entries_end;
        if !self.valid {
            return Ok(());
        }
        let wrong = Malformed("an entry does not fit its block");
        let mut rest = &self.payload[self.next..self.entries_end];
        let shared = take_varint(&mut rest).ok_or(wrong)?;
        let key_len = take_varint(&mut rest).ok_or(wrong)?;
        let value_len = take_varint(&mut rest).ok_or(wrong)?;
        if shared > self.key.len() || rest.len() < key_len || rest.len() - key_len < value_len {
            return Err(wrong);
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(&rest[..key_len]);
        let start = self.entries_end - rest.len() + key_len;
        self.value = start..start + value_len;
        self.next = self.value.end;
        Ok(())
    }

    /// Key of the entry it stands on.
    pub fn key(&self) -> Option<&[u8]> {
        self.valid.then_some(&self.key[..])
    }

    /// Value of the entry it stands on, sharing the block's memory.
    pub fn value(&self) -> Bytes {
        self.payload.slice(self.value.clone())
    }
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
            let mut cursor = Cursor::new(block(count, interval)).unwrap();
            for n in 0..count * 3 + 2 {
                let target = format!("row{n:05}");
                cursor.seek(target.as_bytes()).unwrap();
                let expected = keys.iter().find(|key| **key >= target);
                assert_eq!(cursor.key(), expected.map(|key| key.as_bytes()));
                assert!(expected.is_none_or(|key| cursor.value() == key.as_bytes()));
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
                let Ok(mut cursor) = Cursor::new(Bytes::from(bad)) else { continue };
                let _ = cursor.seek(b"row00050");
                while cursor.key().is_some() && cursor.advance().is_ok() {}
            }
        }
    }

    #[test]
    fn a_block_in_another_place_is_not_the_block() {
        let mut sealed = block(3, 16).to_vec();
        seal(&mut sealed, 0, 100);
        assert!(unseal(Bytes::from(sealed.clone()), 100).is_ok());
        assert!(unseal(Bytes::from(sealed), 101).is_err());
    }
}
