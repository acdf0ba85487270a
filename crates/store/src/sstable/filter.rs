//! What a table may hold: a blocked Bloom filter over its rows, and over the columns of each if it is asked for.
//!
//! ```text
//!   hash ─┬─ upper half ──▶ one of the lines, 64 bytes each        pieces of up to 1024 lines are sealed one by one
//!         └─ lower half ──▶ seven of its 512 bits
//! ```
//!
//! Ten bits for each thing. All its bits are in one line, so that a question costs one miss of the processor's cache.
//! Things are spread over pieces by their hash and not by their order: so a question needs no search for its piece, and a
//! large filter can still be read, checked and given up in parts. The price is that a writer keeps eight bytes for each
//! thing until it is done; who writes without end cuts what he writes into several tables.
//!
//! A row is known by the XXH3 (64 bits, seed 0) of its escaped key. A column is known by the XXH3 of its escaped qualifier with
//! a seed made of row and family; so is a family of a row of which something is deleted as a whole (an empty qualifier), and
//! a row that is deleted (of no family): who reads a column must see those too.

use model::{Bytes, FamilyId};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const BITS: usize = 10;
const PROBES: u32 = 7;
/// Bytes of a line.
pub(super) const LINE: usize = 64;
/// A piece has no more lines.
const MOST_LINES: usize = 1024;
/// Spreads the lower half of a hash over 64 bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What the filter knows a row by.
pub fn hash(escaped_row: &[u8]) -> u64 {
    xxh3_64(escaped_row)
}

/// What the filter knows a column of a row by, and what else its reader must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// The row's [`hash`].
    pub row: u64,
    /// The column.
    pub(super) column: u64,
    /// That something of its family is deleted, or all of the row.
    pub(super) family_deleted: u64,
    pub(super) row_deleted: u64,
}

impl Column {
    /// Of the row with this hash.
    pub fn new(row: u64, family: FamilyId, escaped_qualifier: &[u8]) -> Column {
        Column {
            row,
            column: hash_column(row, family, escaped_qualifier),
            family_deleted: hash_family_deleted(row, family),
            row_deleted: hash_row_deleted(row),
        }
    }
}

pub(super) fn hash_column(row: u64, family: FamilyId, escaped_qualifier: &[u8]) -> u64 {
    xxh3_64_with_seed(escaped_qualifier, row.wrapping_add(u64::from(family.0).wrapping_add(1).wrapping_mul(SPREAD)))
}

pub(super) fn hash_family_deleted(row: u64, family: FamilyId) -> u64 {
    hash_column(row, family, &[])
}

pub(super) fn hash_row_deleted(row: u64) -> u64 {
    xxh3_64_with_seed(&[], row)
}

/// How a filter lies in the file: as how many pieces, each of how many lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// None: nothing is known.
    pub pieces: usize,
    /// Of each piece.
    pub lines: usize,
}

impl Shape {
    /// For so many things.
    pub fn of(things: usize) -> Shape {
        let lines = (things * BITS).div_ceil(LINE * 8).max(1);
        let pieces = lines.div_ceil(MOST_LINES);
        Shape { pieces, lines: lines.div_ceil(pieces) }
    }

    /// Bytes of all lines.
    pub fn bytes(self) -> usize {
        self.pieces * self.lines * LINE
    }

    /// In which line the thing is, of all.
    pub fn line(self, hash: u64) -> usize {
        (((hash >> 32) * (self.pieces * self.lines) as u64) >> 32) as usize
    }
}

/// The lines of a filter of these things.
pub fn build(shape: Shape, hashes: &[u64]) -> Vec<u8> {
    let mut lines = vec![0; shape.bytes()];
    for &hash in hashes {
        let at = shape.line(hash) * LINE;
        for bit in probes(hash) {
            lines[at + bit / 8] |= 1 << (bit % 8);
        }
    }
    lines
}

/// Whether the thing may be among those of the line; false is certain.
pub fn line_holds(line: &[u8], hash: u64) -> bool {
    line.first_chunk::<LINE>().is_none_or(|line| probes(hash).all(|bit| line[bit / 8] & (1 << (bit % 8)) != 0))
}

fn probes(hash: u64) -> impl Iterator<Item = usize> {
    let bits = (hash & 0xffff_ffff).wrapping_mul(SPREAD);
    (0..PROBES).map(move |n| (bits >> (55 - 9 * n)) as usize & 511)
}

/// The filter of version 1: over rows, ten bits each, and seven probes anywhere in it.
pub mod v1 {
    use super::*;

    /// Whether the row may be among them; false is certain.
    pub fn may_hold(filter: &Bytes, hash: u64) -> bool {
        filter.is_empty() || probes(hash, filter.len()).all(|bit| filter[bit / 8] & (1 << (bit % 8)) != 0)
    }

    fn probes(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
        let (first, step) = (hash >> 32, (hash & 0xffff_ffff) | 1);
        (0..7).map(move |n| ((first + n * step) % (bytes as u64 * 8)) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_added_and_little_else() {
        let hash_of = |n: u32| hash(&n.to_be_bytes());
        for things in [1, 50, 10_000, 200_000] {
            let shape = Shape::of(things as usize);
            assert!(shape.lines <= MOST_LINES);
            assert!(shape.bytes() <= things as usize * BITS / 8 + (shape.pieces + 1) * LINE);
            let lines = build(shape, &(0..things).map(hash_of).collect::<Vec<_>>());
            let holds = |hash| line_holds(&lines[shape.line(hash) * LINE..], hash);
            assert!((0..things).all(|n| holds(hash_of(n))));
            let wrong = (things..things + 100_000).filter(|&n| holds(hash_of(n))).count();
            assert!(wrong < 1_600, "{wrong} of 100000 beside {things}");
        }
    }

    /// Filters lie on disks.
    #[test]
    fn what_things_are_known_by_is_pinned() {
        let row = hash(b"row\0\x01");
        let column = Column::new(row, FamilyId(7), b"q\0\x01");
        let shape = Shape { pieces: 3, lines: 1000 };
        assert_eq!(row, 0xd2d7_49e2_ab64_93cc);
        assert_eq!(column.column, 0x7129_e7da_7142_5acc);
        assert_eq!((column.family_deleted, column.row_deleted), (0x1274_e3bb_0f1a_cc3d, 0xef24_a671_b340_c53f));
        assert_eq!(shape.line(row), 2470);
        assert_eq!(probes(row).collect::<Vec<_>>(), [199, 91, 495, 59, 121, 443, 478]);
    }
}
