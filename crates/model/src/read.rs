//! What a reader may ask for.

use alloc::vec::Vec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Consistency, FamilyId, Timestamp};

/// Rows from `start` up to, but without, `end`, by row key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowRange {
    /// First key; empty is the first of all.
    pub start: Bytes,
    /// First key that is not in it; `None` is the end of the table.
    pub end: Option<Bytes>,
}

impl RowRange {
    /// Just this row.
    pub fn one(row: Bytes) -> RowRange {
        let mut end = Vec::with_capacity(row.len() + 1);
        end.extend_from_slice(&row);
        end.push(0);
        RowRange { start: row, end: Some(Bytes::from(end)) }
    }

    /// All rows whose keys begin like this.
    pub fn prefix(prefix: &[u8]) -> RowRange {
        RowRange { start: Bytes::copy_from_slice(prefix), end: after_prefix(prefix) }
    }

    /// Is the key in it?
    pub fn covers(&self, row: &[u8]) -> bool {
        row >= &self.start[..] && self.end.as_ref().is_none_or(|end| row < &end[..])
    }

    /// What is in both.
    pub fn intersect(&self, other: &RowRange) -> RowRange {
        let start = self.start.clone().max(other.start.clone());
        let end = match (&self.end, &other.end) {
            (Some(a), Some(b)) => Some(a.clone().min(b.clone())),
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        RowRange { start, end }
    }
}

/// The first key after all keys with this prefix; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
    let keep = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(Bytes::from(end))
}

/// Which columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnFilter<F = FamilyId> {
    /// The family.
    pub family: F,
    /// One column of it; `None` is all of them.
    pub qualifier: Option<Bytes>,
}

/// Which cells of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadOptions<F = FamilyId> {
    /// Only these columns; empty is all.
    pub columns: Vec<ColumnFilter<F>>,
    /// At most so many versions of a column, among those of the time that is asked for; at least 1.
    pub versions: u32,
    /// How new the answer must be.
    pub consistency: Consistency,
    /// Only versions with this timestamp or a later one.
    pub since: Option<Timestamp>,
    /// Only versions with an earlier timestamp.
    pub before: Option<Timestamp>,
}

impl<F> Default for ReadOptions<F> {
    fn default() -> Self {
        let (columns, consistency) = (Vec::new(), Consistency::default());
        ReadOptions { columns, versions: 1, consistency, since: None, before: None }
    }
}

impl ReadOptions {
    /// Are versions of this time asked for?
    pub fn wants_time(&self, timestamp: Timestamp) -> bool {
        self.since.is_none_or(|since| since <= timestamp) && self.before.is_none_or(|before| timestamp < before)
    }

    /// Is the column asked for?
    pub fn wants(&self, family: FamilyId, qualifier: &[u8]) -> bool {
        self.columns.is_empty()
            || self.columns.iter().any(|column| {
                column.family == family && column.qualifier.as_ref().is_none_or(|wanted| wanted == qualifier)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_covers_what_begins_with_it() {
        let range = RowRange::prefix(b"LA");
        assert!(range.covers(b"LA") && range.covers(b"LAX") && range.covers(b"LA\xff\xff"));
        assert!(!range.covers(b"KZZ") && !range.covers(b"LB"));
        assert_eq!(RowRange::prefix(b"a\xff").end, Some(Bytes::from_static(b"b")));
        assert_eq!(RowRange::prefix(b"\xff\xff").end, None);
        assert_eq!(RowRange::prefix(b"").end, None);
    }

    #[test]
    fn one_row_is_one_row() {
        let range = RowRange::one(Bytes::from_static(b"a"));
        assert!(range.covers(b"a") && !range.covers(b"a\0") && !range.covers(b""));
    }
}
