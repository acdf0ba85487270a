//! Which tables to merge, and the merging.
//!
//! Tables are merged in runs without gaps in time, which end at the youngest table ([`crate::merge`] says why there
//! must be no gaps). A run grows towards the older tables as long as the next one is not much larger than all of the run
//! together. So every byte is rewritten about log2(tables) times, and there are about that many tables.

use std::ops::Range;
use std::sync::Arc;

use model::{RowRange, Schema, Timestamp};

use crate::Error;
use crate::key;
use crate::merge::{Fate, Merge, Sieve};
use crate::sstable::{Purpose, Table, Writer};

/// Fewer tables are not worth a merge.
const FEWEST: usize = 4;
/// With more tables than this the youngest are merged, whatever their sizes.
const MOST: usize = 16;

/// Which run of tables, of which these are the sizes, oldest first, should be merged now.
pub fn choose(sizes: &[u64]) -> Option<Range<usize>> {
    let mut start = sizes.len().checked_sub(FEWEST)?;
    let sum = |start: usize| sizes[start..].iter().sum::<u64>();
    let similar = |at: usize| sizes[at] <= sum(at + 1) * 2;
    let due = (start..sizes.len() - 1).all(similar) || sizes.len() > MOST;
    while due && start > 0 && sizes[start - 1] <= sum(start) / 5 * 6 {
        start -= 1;
    }
    due.then_some(start..sizes.len())
}

/// Merges tables that follow each other in time into `writer`, but only rows within `bounds`. `oldest` says that nothing
/// of the tablet is older.
pub fn merge(
    inputs: &[Arc<Table>],
    oldest: bool,
    schema: &Schema,
    now: Timestamp,
    bounds: &RowRange,
    writer: &mut Writer,
) -> Result<(), Error> {
    let mut merge = Merge::default();
    let start = key::row_start(&bounds.start);
    let end = bounds.end.as_ref().map(|end| key::row_start(end));
    for table in inputs {
        merge.add_table(table.clone(), &start, Purpose::Background)?;
    }
    let mut sieve = Sieve::new(schema, now);
    while let (Some(key), Some(parts)) = (merge.key(), merge.parts()?) {
        if end.as_ref().is_some_and(|end| key >= &end[..]) {
            break;
        }
        match sieve.judge(&parts) {
            Fate::Lives => writer.add(key, &merge.value())?,
            Fate::Deletes if !oldest => writer.add(key, &[])?,
            Fate::GivenUp if !oldest => {
                let mut key = key.to_vec();
                key::into_deletion(&mut key);
                writer.add(&key, &[])?;
            }
            Fate::Deletes | Fate::GivenUp | Fate::Gone => {}
        }
        merge.advance()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_tables_are_merged_and_a_large_one_is_left() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[10, 10, 10]), None);
        assert_eq!(choose(&[10, 10, 10, 10]), Some(0..4));
        assert_eq!(choose(&[70, 10, 10, 10]), None);
        assert_eq!(choose(&[45, 10, 10, 10, 10]), Some(0..5));
        assert_eq!(choose(&[100, 10, 10, 10, 10]), Some(1..5));
    }

    /// Equal flushes for ever: few tables, and each byte written a few times.
    #[test]
    fn tables_stay_few_and_bytes_are_written_seldom() {
        let (mut sizes, mut written) = (Vec::new(), 0u64);
        for _ in 0..1000 {
            sizes.push(10);
            written += 10;
            if let Some(run) = choose(&sizes) {
                let merged = sizes[run.clone()].iter().sum();
                sizes.splice(run, [merged]);
                written += merged;
            }
            assert!(sizes.len() <= 12, "{sizes:?}");
        }
        assert!(written < 10_000 * 10, "{written}");
    }

    #[test]
    fn too_many_tables_are_merged_whatever_their_sizes() {
        let sizes: Vec<u64> = (0..17).rev().map(|n| 1 << (2 * n)).collect();
        assert!(choose(&sizes).is_some());
        assert_eq!(choose(&sizes[1..]), None);
    }
}
