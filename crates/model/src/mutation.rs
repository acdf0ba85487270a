//! What a client may do to a row, and what the log keeps of it.

use alloc::vec::Vec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Cell, ColumnFilter, FamilyId, Fingerprint, RequestId, Timestamp};

/// One change of a row. `F` names the family: by id in the log, by name in a request that nobody has checked yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change<F = FamilyId> {
    /// Sets a version of a column. The same version again replaces the value.
    Put {
        /// Family of the column.
        family: F,
        /// The column within it.
        qualifier: Bytes,
        /// The version; [`Timestamp::SERVER`] in a request lets the primary choose.
        timestamp: Timestamp,
        /// The new value.
        value: Bytes,
    },
    /// Deletes one version of a column.
    DeleteCell {
        /// Family of the column.
        family: F,
        /// The column within it.
        qualifier: Bytes,
        /// Which version.
        timestamp: Timestamp,
    },
    /// Deletes every version of a column.
    DeleteColumn {
        /// Family of the column.
        family: F,
        /// The column within it.
        qualifier: Bytes,
    },
    /// Deletes every cell of a family.
    DeleteFamily {
        /// Which.
        family: F,
    },
    /// Deletes every cell of the row.
    DeleteRow,
}

impl<F> Change<F> {
    /// The same change with its family named in another way, or the first family that `rename` does not know.
    pub fn try_rename<G, E>(self, rename: impl FnOnce(F) -> Result<G, E>) -> Result<Change<G>, E> {
        Ok(match self {
            Change::Put { family, qualifier, timestamp, value } => {
                Change::Put { family: rename(family)?, qualifier, timestamp, value }
            }
            Change::DeleteCell { family, qualifier, timestamp } => {
                Change::DeleteCell { family: rename(family)?, qualifier, timestamp }
            }
            Change::DeleteColumn { family, qualifier } => Change::DeleteColumn { family: rename(family)?, qualifier },
            Change::DeleteFamily { family } => Change::DeleteFamily { family: rename(family)? },
            Change::DeleteRow => Change::DeleteRow,
        })
    }

    /// The family that it is about, if it is not the whole row.
    pub fn family(&self) -> Option<&F> {
        match self {
            Change::Put { family, .. }
            | Change::DeleteCell { family, .. }
            | Change::DeleteColumn { family, .. }
            | Change::DeleteFamily { family } => Some(family),
            Change::DeleteRow => None,
        }
    }

    /// Bytes of qualifier and value, for limits.
    pub fn weight(&self) -> usize {
        match self {
            Change::Put { qualifier, value, .. } => qualifier.len() + value.len() + 16,
            Change::DeleteCell { qualifier, .. } | Change::DeleteColumn { qualifier, .. } => qualifier.len() + 16,
            Change::DeleteFamily { .. } | Change::DeleteRow => 16,
        }
    }
}

/// Changes of one row that happen together or not at all. They apply in order: a later one sees the earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutation<F = FamilyId> {
    /// Which row.
    pub row: Bytes,
    /// Applied only if the row is like this (cput).
    pub condition: Option<Condition<F>>,
    /// What happens to it.
    pub changes: Vec<Change<F>>,
}

/// Changes of one row of several that are written together, without a condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChanges<F = FamilyId> {
    /// Which row.
    pub row: Bytes,
    /// What happens to it, in this order.
    pub changes: Vec<Change<F>>,
}

impl<F> RowChanges<F> {
    /// Bytes of the key and of the changes, for limits.
    pub fn weight(&self) -> usize {
        self.row.len() + self.changes.iter().map(Change::weight).sum::<usize>()
    }
}

/// What a conditional write expects of its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition<F = FamilyId> {
    /// The newest version of a column has this value.
    Newest {
        /// Family of the column.
        family: F,
        /// The column within it.
        qualifier: Bytes,
        /// The expected value; `None` expects that the column has no version.
        expect: Option<Bytes>,
    },
    /// The row is as somebody has read it, who decided then what to write.
    Unchanged {
        /// In these columns; in all of them if none are named.
        columns: Vec<ColumnFilter<F>>,
        /// In so many versions of each.
        versions: u32,
        /// Of all those cells.
        fingerprint: Fingerprint,
    },
}

/// What the primary writes into the log: complete, so that every replica that applies it gets the same row without a
/// clock, chance, a message or even a look at the row: a condition was judged before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Whose request it is: a second record with the same id changes nothing.
    pub request: RequestId,
    /// The primary's choice: the version of whatever asked for [`Timestamp::SERVER`]. Rises from record to record, also
    /// across primaries.
    pub version: Timestamp,
    /// Which row.
    pub row: Bytes,
    /// What happens to it; `None` if its condition did not hold. That is logged too: a late repeat of the request must
    /// not succeed after the client has heard that it failed.
    pub changes: Option<Vec<Change>>,
}

/// Many rows of one tablet that are changed by one record, in their order: all of them or none. The same row may come
/// several times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Whose request it is, as in a [`Command`].
    pub request: RequestId,
    /// The client's requests of which this is a part, by their sequences: they were for a tablet that was split. If one
    /// of them was carried out before that, this one was too, and changes nothing (decision 0014).
    pub part_of: Vec<u64>,
    /// The primary's choice for all rows, as in a [`Command`].
    pub version: Timestamp,
    /// What happens to which row.
    pub rows: Vec<RowChanges>,
}

/// What became of a [`Mutation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is in the table.
    Applied {
        /// The version that the primary chose.
        version: Timestamp,
    },
    /// The condition did not hold, and nothing changed.
    Differs {
        /// What the column holds instead; `None` if nothing.
        present: Option<Cell>,
    },
}
