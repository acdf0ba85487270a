//! Sums of what a tablet holds, by which replicas compare themselves without sending rows.
//!
//! ```text
//!   view ──scan──▶ rows ──hash──▶ 64 buckets by the hash of the row's key; each the sum of its rows' hashes
//! ```
//!
//! What is summed up is what readers see, so that it does not matter which tables there are and what merges have dropped.
//! Left out are the families of which replicas may lawfully hold different versions (`Job::Digest`). A slice is a
//! [`crate::Job::Digest`]; the order of rows does not matter, so slices add up.

use std::collections::BTreeSet;

use model::{Bytes, FamilyId, ReadOptions, Row, RowRange, Schema, Timestamp};
use xxhash_rust::xxh3::Xxh3;

use crate::Error;
use crate::view::View;

/// Rows are divided into so many, so that a difference has a place.
pub const BUCKETS: usize = 64;
/// Rows of a slice, so that many small ones take no longer than a few large ones.
const MOST_ROWS: u32 = 4_096;

/// The sum of each bucket.
pub type Sums = [u64; BUCKETS];

/// Adds the rows from `from` on until there are about `most` bytes. Gives how many there were, and where to go on; nowhere
/// at the end.
pub(crate) fn slice(
    view: &View,
    from: Bytes,
    most: u64,
    schema: &Schema,
    now: Timestamp,
    without: &BTreeSet<FamilyId>,
    sums: &mut Sums,
) -> Result<(u64, Option<Bytes>), Error> {
    let range = RowRange { start: from, end: None };
    let all = ReadOptions { versions: u32::MAX, ..ReadOptions::default() };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let (rows, next) = view.in_background().scan(&range, &all, schema, now, MOST_ROWS, most)?;
    let mut bytes = 0;
    for mut row in rows {
        bytes += row.weight() as u64;
        row.cells.retain(|cell| !without.contains(&cell.family));
        if !row.cells.is_empty() {
            let sum = &mut sums[bucket(&row.key)];
            *sum = sum.wrapping_add(hash(&row));
        }
    }
    Ok((bytes, next))
}

/// In which bucket the row is.
pub fn bucket(row: &[u8]) -> usize {
    (xxhash_rust::xxh3::xxh3_64(row) % BUCKETS as u64) as usize
}

/// A sum of something that is only compared as a whole.
pub fn hash_of(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

fn hash(row: &Row) -> u64 {
    let mut hash = Xxh3::new();
    let mut take = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    take(&row.key);
    for cell in &row.cells {
        take(&cell.family.0.to_le_bytes());
        take(&cell.qualifier);
        take(&cell.timestamp.0.to_le_bytes());
        take(&cell.value);
    }
    hash.digest()
}
