//! The internal key: bytes whose plain order is the order in which a merge wants to see a tablet's changes.
//!
//! ```text
//!   esc(row) 00 01 ─┬─ 0 ─ tail                                    the row is deleted
//!                   └─ 1 ─ family u32 ─┬─ 0 ─ tail                 the family is deleted
//!                                      └─ 1 ─ esc(qualifier) 00 01 ─┬─ 0 ─ tail                    the column is deleted
//!                                                                   └─ 1 ─ inv(timestamp) ─ tail   one version
//!   tail = inv(lsn) u64, inv(index) u32, op u8
//! ```
//!
//! `esc` writes 00 as 00 ff, so that no row is the beginning of another one's key; `inv` turns a number around, so that
//! the newest comes first; all numbers are big-endian. `index` is the place of the change in its mutation, `op` is 1
//! for a put and 0 for what deletes. A deletion stands before everything that it can cover, and covers only what is
//! older by ([`Seq`]), whatever the versions are. Keys of one tablet are unique by their `Seq`.

use model::{Bytes, Change, FamilyId, Lsn, Timestamp};

/// Bytes of every key's end: lsn, index, op.
const TAIL: usize = 8 + 4 + 1;
/// The end of an escaped string.
const END: [u8; 2] = [0, 1];
/// Deletes everything under the prefix before it.
const WHOLE: u8 = 0;
/// Goes one level down.
const INNER: u8 = 1;
const DELETES: u8 = 0;
const SETS: u8 = 1;

/// When a change was made: position of its record in the group's log, then its place in the mutation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(pub Lsn, pub u32);

impl Seq {
    /// Before every change.
    pub const ZERO: Seq = Seq(Lsn::ZERO, 0);
}

/// What a key speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The row is deleted.
    Row,
    /// The family is deleted.
    Family,
    /// The column is deleted.
    Column,
    /// One version is set or deleted.
    Cell {
        /// Which version.
        timestamp: Timestamp,
        /// Set, rather than deleted.
        sets: bool,
    },
}

/// What a key says, borrowed from it. Parts that its scope does not have are empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The row, escaped, with its end.
    pub row: &'a [u8],
    /// The family.
    pub family: FamilyId,
    /// The qualifier, escaped, with its end.
    pub qualifier: &'a [u8],
    /// What it speaks of.
    pub scope: Scope,
    /// When.
    pub seq: Seq,
}

impl<'a> Parts<'a> {
    /// How long the part of its key is that all keys of its column begin with.
    pub fn column_len(&self) -> usize {
        self.row.len() + 1 + size_of::<FamilyId>() + 1 + self.qualifier.len()
    }

    /// Reads a key; `None` if it is none.
    pub fn parse(key: &'a [u8]) -> Option<Parts<'a>> {
        let (row, rest) = split_escaped(key)?;
        Parts::parse_rest(row, rest)
    }

    /// Reads a key that begins with an escaped row of so many bytes, its end included.
    pub fn parse_in_row(key: &'a [u8], row_len: usize) -> Option<Parts<'a>> {
        let (row, rest) = key.split_at_checked(row_len)?;
        Parts::parse_rest(row, rest)
    }

    fn parse_rest(row: &'a [u8], rest: &'a [u8]) -> Option<Parts<'a>> {
        let parts = Parts { row, family: FamilyId(0), qualifier: &[], scope: Scope::Row, seq: Seq::ZERO };
        let rest = match rest.split_first()? {
            (&WHOLE, tail) => return parts.end(Scope::Row, tail),
            (&INNER, rest) => rest,
            _ => return None,
        };
        let (family, rest) = rest.split_first_chunk()?;
        let parts = Parts { family: FamilyId(u32::from_be_bytes(*family)), ..parts };
        let rest = match rest.split_first()? {
            (&WHOLE, tail) => return parts.end(Scope::Family, tail),
            (&INNER, rest) => rest,
            _ => return None,
        };
        let (qualifier, rest) = split_escaped(rest)?;
        let parts = Parts { qualifier, ..parts };
        match rest.split_first()? {
            (&WHOLE, tail) => parts.end(Scope::Column, tail),
            (&INNER, rest) => {
                let (timestamp, tail) = rest.split_first_chunk()?;
                let timestamp = Timestamp((!u64::from_be_bytes(*timestamp) ^ (1 << 63)) as i64);
                parts.end(Scope::Cell { timestamp, sets: *tail.last()? == SETS }, tail)
            }
            _ => None,
        }
    }

    fn end(self, scope: Scope, tail: &[u8]) -> Option<Parts<'a>> {
        let tail: &[u8; TAIL] = tail.try_into().ok()?;
        let op_fits = tail[TAIL - 1] == DELETES || (tail[TAIL - 1] == SETS && matches!(scope, Scope::Cell { .. }));
        op_fits.then_some(Parts { scope, seq: seq_of(tail), ..self })
    }
}

/// The key of a change of `row`. A put that leaves its version to the server gets `version`.
pub fn of_change(row: &[u8], change: &Change, seq: Seq, version: Timestamp) -> Bytes {
    let mut key = row_start(row);
    push_change(&mut key, change, seq, version);
    Bytes::from(key)
}

/// Appends to an escaped row what makes it the key of a change of that row.
pub fn push_change(key: &mut Vec<u8>, change: &Change, seq: Seq, version: Timestamp) {
    let mut op = DELETES;
    match change {
        Change::DeleteRow => key.push(WHOLE),
        Change::DeleteFamily { family } => push_family(*family, WHOLE, key),
        Change::DeleteColumn { family, qualifier } => {
            push_family(*family, INNER, key);
            escape(qualifier, key);
            key.push(WHOLE);
        }
        Change::DeleteCell { family, qualifier, timestamp } => {
            push_family(*family, INNER, key);
            push_cell(qualifier, *timestamp, key);
        }
        Change::Put { family, qualifier, timestamp, .. } => {
            op = SETS;
            push_family(*family, INNER, key);
            push_cell(qualifier, if *timestamp == Timestamp::SERVER { version } else { *timestamp }, key);
        }
    }
    key.extend_from_slice(&(!seq.0.0).to_be_bytes());
    key.extend_from_slice(&(!seq.1).to_be_bytes());
    key.push(op);
}

/// The first possible key of a row: what all its keys begin with.
pub fn row_start(row: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(row.len() + END.len());
    push_row(row, &mut key);
    key
}

/// Appends the first possible key of a row.
pub fn push_row(row: &[u8], key: &mut Vec<u8>) {
    escape(row, key);
}

/// After the last possible key of a row, and before the first of the next one.
pub fn row_end(row: &[u8]) -> Vec<u8> {
    let mut key = row_start(row);
    pass(&mut key);
    key
}

/// Turns what all keys of a row or a column begin with (it ends with an escaped string) into what comes after them.
pub fn pass(prefix: &mut [u8]) {
    *prefix.last_mut().expect("an escaped string has an end") += 1;
}

/// Where deletions of a row lie: from and up to, of what follows the escaped row.
pub fn row_deletions() -> [Vec<u8>; 2] {
    [vec![WHOLE], vec![INNER]]
}

/// Likewise, everything of a family.
pub fn family_span(family: FamilyId) -> [Vec<u8>; 2] {
    [WHOLE, INNER + 1].map(|level| family_level(family, level))
}

/// Likewise, deletions of the whole family.
pub fn family_deletions(family: FamilyId) -> [Vec<u8>; 2] {
    [WHOLE, INNER].map(|level| family_level(family, level))
}

/// Likewise, everything of a column.
pub fn column_span(family: FamilyId, qualifier: &[u8]) -> [Vec<u8>; 2] {
    let mut start = family_level(family, INNER);
    escape(qualifier, &mut start);
    let mut end = start.clone();
    pass(&mut end);
    [start, end]
}

/// Appends to an escaped row what makes it the first possible key of the columns from this one on.
pub fn push_column_start(key: &mut Vec<u8>, family: FamilyId, qualifier: &[u8]) {
    push_family(family, INNER, key);
    escape(qualifier, key);
}

fn family_level(family: FamilyId, level: u8) -> Vec<u8> {
    let mut key = Vec::new();
    push_family(family, level, &mut key);
    key
}

/// Makes what all keys of a column begin with the first possible key of its versions of this time or an earlier one.
pub fn push_time(key: &mut Vec<u8>, timestamp: Timestamp) {
    key.push(INNER);
    key.extend_from_slice(&(!(timestamp.0 as u64 ^ (1 << 63))).to_be_bytes());
}

/// The escaped row of a key, with its end; `None` if it is no key.
pub fn row_of(key: &[u8]) -> Option<&[u8]> {
    split_escaped(key).map(|(row, _)| row)
}

/// Position in the log of the record that a (valid) key came from.
pub fn lsn_of(key: &[u8]) -> Lsn {
    key.last_chunk().map_or(Lsn::ZERO, |tail| seq_of(tail).0)
}

/// Turns the key of a put into that of the deletion of its version, as of the same moment.
pub fn into_deletion(key: &mut [u8]) {
    *key.last_mut().expect("a key has a tail") = DELETES;
}

/// The string whose escaped form, with its end, this is.
pub fn unescape(escaped: &[u8]) -> Bytes {
    let body = &escaped[..escaped.len().saturating_sub(END.len())];
    if !body.contains(&0) {
        return Bytes::copy_from_slice(body);
    }
    let mut plain = Vec::with_capacity(body.len());
    let mut bytes = body.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(byte);
        if byte == 0 {
            bytes.next();
        }
    }
    Bytes::from(plain)
}

/// The row of a key, or of as much of one as there is: then it is the beginning of the row, which is not above it.
pub fn row_upto(key: &[u8]) -> Bytes {
    match row_of(key) {
        Some(row) => unescape(row),
        None => {
            // A zero at the end is the first half of something.
            let begun = key.strip_suffix(&[0]).unwrap_or(key);
            unescape(&[begun, &END].concat())
        }
    }
}

/// Is this the escaped form, with its end, of that string? Maybe not, if it has a zero.
pub fn is_escaped_of(escaped: &[u8], plain: &[u8]) -> bool {
    escaped.strip_suffix(&END) == Some(plain) && !plain.contains(&0)
}

fn escape(plain: &[u8], key: &mut Vec<u8>) {
    let mut rest = plain;
    while let Some(zero) = rest.iter().position(|&byte| byte == 0) {
        key.extend_from_slice(&rest[..=zero]);
        key.push(0xff);
        rest = &rest[zero + 1..];
    }
    key.extend_from_slice(rest);
    key.extend_from_slice(&END);
}

/// Cuts after the end of the escaped string that `bytes` begins with.
fn split_escaped(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let zero = from + bytes[from..].iter().position(|&byte| byte == 0)?;
        match bytes.get(zero + 1)? {
            1 => return Some(bytes.split_at(zero + 2)),
            0xff => from = zero + 2,
            _ => return None,
        }
    }
}

fn push_family(family: FamilyId, level: u8, key: &mut Vec<u8>) {
    key.push(INNER);
    key.extend_from_slice(&family.0.to_be_bytes());
    key.push(level);
}

fn push_cell(qualifier: &[u8], timestamp: Timestamp, key: &mut Vec<u8>) {
    escape(qualifier, key);
    push_time(key, timestamp);
}

fn seq_of(tail: &[u8; TAIL]) -> Seq {
    let lsn = u64::from_be_bytes([tail[0], tail[1], tail[2], tail[3], tail[4], tail[5], tail[6], tail[7]]);
    let index = u32::from_be_bytes([tail[8], tail[9], tail[10], tail[11]]);
    Seq(Lsn(!lsn), !index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(family: u32, qualifier: &'static [u8], timestamp: i64) -> Change {
        let (family, qualifier) = (FamilyId(family), Bytes::from_static(qualifier));
        Change::Put { family, qualifier, timestamp: Timestamp(timestamp), value: Bytes::new() }
    }

    fn column(family: u32, qualifier: &'static [u8]) -> Change {
        Change::DeleteColumn { family: FamilyId(family), qualifier: Bytes::from_static(qualifier) }
    }

    /// Rows first, whatever bytes they have; deletions before what they cover; newest versions first; newest change of
    /// a version first.
    #[test]
    fn plain_order_is_the_order_of_the_merge() {
        let key = |row: &[u8], change: &Change, lsn, index| of_change(row, change, Seq(Lsn(lsn), index), Timestamp(0));
        let keys = [
            key(b"", &Change::DeleteRow, 1, 0),
            key(b"\0", &put(0, b"", 0), 1, 0),
            key(b"\0\0", &put(0, b"", 0), 1, 0),
            key(b"\0\x01", &put(0, b"", 0), 1, 0),
            key(b"\x01", &put(0, b"", 0), 1, 0),
            key(b"a", &Change::DeleteRow, 9, 1),
            key(b"a", &Change::DeleteRow, 9, 0),
            key(b"a", &Change::DeleteRow, 8, 0),
            key(b"a", &Change::DeleteFamily { family: FamilyId(0) }, 1, 0),
            key(b"a", &column(0, b""), 1, 0),
            key(b"a", &put(0, b"", i64::MAX), 1, 0),
            key(b"a", &put(0, b"", 5), 7, 0),
            key(b"a", &put(0, b"", 5), 6, 3),
            key(b"a", &put(0, b"", 5), 6, 2),
            key(b"a", &put(0, b"", 0), 8, 0),
            key(b"a", &put(0, b"", -2), 9, 0),
            key(b"a", &put(0, b"", i64::MIN), 9, 0),
            key(b"a", &put(0, b"\0", 0), 9, 0),
            key(b"a", &column(0, b"q"), 1, 0),
            key(b"a", &put(0, b"q", 0), 1, 0),
            key(b"a", &put(0, b"q\0", 0), 1, 0),
            key(b"a", &Change::DeleteFamily { family: FamilyId(1) }, 1, 0),
            key(b"a", &put(256, b"", 0), 1, 0),
            key(b"a\0", &put(0, b"", 0), 1, 0),
            key(b"aa", &put(0, b"", 0), 1, 0),
            key(b"a\xff", &put(0, b"", 0), 1, 0),
        ];
        for pair in keys.windows(2) {
            assert!(pair[0] < pair[1], "{:x?} before {:x?}", pair[0], pair[1]);
        }
        for row in [&b"a"[..], b"\0", b"a\0"] {
            for key in &keys {
                let inside = key[..] >= row_start(row)[..] && key[..] < row_end(row)[..];
                assert_eq!(inside, unescape(row_of(key).unwrap()) == row);
            }
        }
    }

    #[test]
    fn a_part_of_a_key_has_the_beginning_of_its_row() {
        let key = of_change(b"r\0\0w", &put(7, b"q", 1), Seq(Lsn(1), 0), Timestamp(0));
        let rows: Vec<Bytes> = (0..10).map(|len| row_upto(&key[..len])).collect();
        let expected: [&[u8]; 10] =
            [b"", b"r", b"r", b"r\0", b"r\0", b"r\0\0", b"r\0\0w", b"r\0\0w", b"r\0\0w", b"r\0\0w"];
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_key_tells_what_was_written() {
        let seq = Seq(Lsn(77), 3);
        for row in [&b"r"[..], b"\0", b"a\0\xff\x01", b"\xff"] {
            let key = of_change(row, &put(7, b"q\0", -1), seq, Timestamp(42));
            let parts = Parts::parse(&key).unwrap();
            assert_eq!(unescape(parts.row), row);
            assert_eq!(unescape(parts.qualifier), &b"q\0"[..]);
            assert_eq!((parts.family, parts.seq), (FamilyId(7), seq));
            assert_eq!(parts.scope, Scope::Cell { timestamp: Timestamp(42), sets: true });
            assert_eq!(lsn_of(&key), Lsn(77));
            let mut deletion = key.to_vec();
            into_deletion(&mut deletion);
            let scope = Parts::parse(&deletion).unwrap().scope;
            assert_eq!(scope, Scope::Cell { timestamp: Timestamp(42), sets: false });
            for cut in 0..key.len() {
                assert_eq!(Parts::parse(&key[..cut]), None);
            }
        }
    }

    /// Data lies on disks in this order: it must never change.
    #[test]
    fn the_form_of_version_1_is_pinned() {
        let key = of_change(b"r\0", &put(258, b"q", 1), Seq(Lsn(5), 2), Timestamp(0));
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "7200ff0001010000010201710001017ffffffffffffffefffffffffffffffafffffffd01");
    }
}
