//! Rows as readers see them.

use alloc::vec::Vec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::{FamilyId, Timestamp};

/// One version of one column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The column's family.
    pub family: FamilyId,
    /// The column within its family; any bytes, also none.
    pub qualifier: Bytes,
    /// The version.
    pub timestamp: Timestamp,
    /// What is kept.
    pub value: Bytes,
}

/// A row with the cells that were asked for, by family, qualifier, and newest version first. Never without cells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The row key.
    pub key: Bytes,
    /// At least one cell.
    pub cells: Vec<Cell>,
}

/// What tells one state of a row's cells from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of these cells in their order, each with the name of its family: XXH3 with 128 bits over all that they are.
    pub fn of<'a>(cells: impl IntoIterator<Item = (&'a str, &'a [u8], Timestamp, &'a [u8])>) -> Fingerprint {
        let mut hash = Xxh3::new();
        for (family, qualifier, timestamp, value) in cells {
            for part in [family.as_bytes(), qualifier, &timestamp.0.to_le_bytes(), value] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        Fingerprint(hash.digest128().to_le_bytes())
    }
}

impl Row {
    /// Bytes of keys and values, for limits on answers.
    pub fn weight(&self) -> usize {
        self.key.len() + self.cells.iter().map(|cell| cell.qualifier.len() + cell.value.len() + 16).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where one part ends and the next begins makes a difference.
    #[test]
    fn a_fingerprint_is_of_all_parts_of_all_cells() {
        let of = |family, qualifier: &'static str, timestamp, value: &'static str| {
            Fingerprint::of([(family, qualifier.as_bytes(), Timestamp(timestamp), value.as_bytes())])
        };
        let all = [
            of("f", "q", 1, "v"),
            of("fq", "", 1, "v"),
            of("f", "q", 2, "v"),
            of("f", "qv", 1, ""),
            Fingerprint::of([]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| one != other));
        }
        assert_eq!(of("f", "q", 1, "v"), all[0]);
    }
}
