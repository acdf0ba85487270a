//! The part of a table that one tablet keeps.

use bytes::Bytes;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::text;

/// Which rows belong to a tablet. The slices of a table hold every row key exactly once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slice {
    /// Rows whose hash modulo `of` is `bucket`.
    Hash {
        /// From 0.
        bucket: u32,
        /// The table's number of tablets.
        of: u32,
    },
    /// Rows from `start` up to, but without, `end`; `None` is the end of the table.
    Rows {
        /// First key.
        start: Bytes,
        /// First key that is not in it.
        end: Option<Bytes>,
    },
}

impl Slice {
    /// Does this row key belong here?
    pub fn covers(&self, row: &[u8]) -> bool {
        match self {
            Slice::Hash { bucket, of } => hash_bucket(row, *of) == *bucket,
            Slice::Rows { start, end } => row >= &start[..] && end.as_ref().is_none_or(|end| row < &end[..]),
        }
    }
}

/// Bucket of a row key in a table of `of` hash tablets: XXH3 (64 bits, seed 0) modulo `of`. Never changes: data
/// lies where it says.
pub fn hash_bucket(row: &[u8], of: u32) -> u32 {
    (xxhash_rust::xxh3::xxh3_64(row) % u64::from(of.max(1))) as u32
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slice::Hash { bucket, of } => write!(f, "hash {bucket} of {of}"),
            Slice::Rows { start, end: None } => write!(f, "[{}, end)", text::printable(start)),
            Slice::Rows { start, end: Some(end) } => {
                write!(f, "[{}, {})", text::printable(start), text::printable(end))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Partition;
    use alloc::vec;
    use alloc::vec::Vec;

    /// Invariant I13: the slices of a table tile its keys.
    #[test]
    fn slices_tile_the_keys() {
        let partitions = [
            Partition::Hash { tablets: 1 },
            Partition::Hash { tablets: 7 },
            Partition::Range { splits: vec![] },
            Partition::Range { splits: vec![Bytes::from_static(b"g"), Bytes::from_static(b"p")] },
        ];
        for partition in partitions {
            let slices = partition.slices();
            for row in [&b""[..], b"a", b"g", b"gg", b"o\xff", b"p", b"\xff\xff"] {
                let holders: Vec<_> = slices.iter().filter(|slice| slice.covers(row)).collect();
                assert_eq!(holders.len(), 1, "{row:?} in {partition:?}");
            }
        }
    }

    /// Data lies on disks by this number: it must never change.
    #[test]
    fn hash_is_pinned() {
        assert_eq!(hash_bucket(b"LAX", 2), (xxhash_rust::xxh3::xxh3_64(b"LAX") % 2) as u32);
        assert_eq!(xxhash_rust::xxh3::xxh3_64(b""), 0x2d06_8005_38d3_94c2);
    }
}
