//! What becomes of each entry: the rules of the merge.

use model::{FamilyId, Retention, Schema, Timestamp};

use crate::key::{Parts, Scope, Seq};

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A version that readers see.
    Lives,
    /// A deletion that may still cover what is older than all that was merged.
    Deletes,
    /// A version that retention gave up.
    GivenUp,
    /// Covered by something newer, or of a dropped family.
    Gone,
}

/// Tells the fate of entries that come in key order.
pub struct Sieve<'a> {
    schema: &'a Schema,
    now: Timestamp,
    /// Escaped row of the last key; all its changes up to `row_deleted` are covered. And so on, inwards.
    row: Vec<u8>,
    row_deleted: Seq,
    family: Option<FamilyId>,
    /// `None` if the family was dropped.
    retention: Option<&'a Retention>,
    family_deleted: Seq,
    /// It is in a column, with this escaped qualifier.
    in_column: bool,
    qualifier: Vec<u8>,
    column_deleted: Seq,
    timestamp: Option<Timestamp>,
    /// Versions of the column that live so far.
    rank: u32,
    columns: u64,
}

impl<'a> Sieve<'a> {
    /// Before the first key; retention judges as of `now`.
    pub fn new(schema: &'a Schema, now: Timestamp) -> Sieve<'a> {
        Sieve {
            schema,
            now,
            row: Vec::new(),
            row_deleted: Seq::ZERO,
            family: None,
            retention: None,
            family_deleted: Seq::ZERO,
            in_column: false,
            qualifier: Vec::new(),
            column_deleted: Seq::ZERO,
            timestamp: None,
            rank: 0,
            columns: 0,
        }
    }

    /// The number of the last key's column among all that it was shown.
    pub fn column(&self) -> u64 {
        self.columns
    }

    /// Does the retention of the last key's family count versions?
    pub fn counts(&self) -> bool {
        self.retention.is_some_and(Retention::counts)
    }

    /// Is the key of the last key's column?
    pub fn is_in_column(&self, parts: &Parts<'_>) -> bool {
        matches!(parts.scope, Scope::Column | Scope::Cell { .. })
            && self.in_column
            && self.qualifier == parts.qualifier
            && self.family == Some(parts.family)
            && self.row == parts.row
    }

    /// The fate of the entry with this key.
    pub fn judge(&mut self, parts: &Parts<'_>) -> Fate {
        self.enter(parts);
        let deleted = match parts.scope {
            Scope::Row => &mut self.row_deleted,
            Scope::Family => &mut self.family_deleted,
            Scope::Column => &mut self.column_deleted,
            Scope::Cell { timestamp, sets } => return self.judge_cell(timestamp, sets, parts.seq),
        };
        let dropped = parts.scope != Scope::Row && self.retention.is_none();
        if dropped || parts.seq <= *deleted {
            return Fate::Gone;
        }
        *deleted = parts.seq;
        Fate::Deletes
    }

    fn judge_cell(&mut self, timestamp: Timestamp, sets: bool, seq: Seq) -> Fate {
        let superseded = self.timestamp.replace(timestamp) == Some(timestamp);
        match self.retention {
            Some(retention) if !superseded && seq > self.column_deleted => {
                if !sets {
                    Fate::Deletes
                } else if retention.gives_up(self.rank, timestamp, self.now) {
                    Fate::GivenUp
                } else {
                    self.rank += 1;
                    Fate::Lives
                }
            }
            _ => Fate::Gone,
        }
    }

    /// Follows the key into its row, family and column. A deletion of the outer one holds for the inner one.
    fn enter(&mut self, parts: &Parts<'_>) {
        if self.row != parts.row {
            self.row.clear();
            self.row.extend_from_slice(parts.row);
            self.row_deleted = Seq::ZERO;
            self.family = None;
        }
        if parts.scope != Scope::Row && self.family != Some(parts.family) {
            self.family = Some(parts.family);
            self.retention = match self.schema.family_by_id(parts.family) {
                Some(family) => Some(&family.retention),
                None if parts.family >= self.schema.next_family => Some(&Retention::Keep),
                None => None,
            };
            self.family_deleted = self.row_deleted;
            self.in_column = false;
        }
        let in_column = matches!(parts.scope, Scope::Column | Scope::Cell { .. });
        if in_column && !(self.in_column && self.qualifier == parts.qualifier) {
            self.in_column = true;
            self.qualifier.clear();
            self.qualifier.extend_from_slice(parts.qualifier);
            self.column_deleted = self.family_deleted;
            self.timestamp = None;
            self.rank = 0;
            self.columns += 1;
        }
    }
}
