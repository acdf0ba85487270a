//! What a table is, as a whole.

use model::storage::{Compression, Filter};
use model::{Bytes, FamilyId, LocalityId, Lsn, TabletId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::key::{Parts, Scope};

/// What a table is, as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Properties {
    /// Whose rows.
    pub tablet: TabletId,
    /// It has the changes of all records after this one,
    pub after: Lsn,
    /// up to this one.
    pub upto: Lsn,
    /// The latest version that a primary had chosen by then: retention judges by no later time in a merge.
    pub clock: Timestamp,
    /// Keys.
    pub entries: u64,
    /// Keys that delete.
    pub deletions: u64,
    /// Rows.
    pub rows: u64,
    /// The first key.
    pub first: Bytes,
    /// The last key.
    pub last: Bytes,
    /// To which locality group its families belonged.
    pub locality: LocalityId,
    /// The families of its keys, in order; `None` of a table of version 1: any.
    pub families: Option<Vec<FamilyId>>,
    /// The least and the greatest timestamp of its cells, set or deleted; `None` if it has no cells.
    pub timestamps: Option<(Timestamp, Timestamp)>,
    /// What its deletions delete.
    pub deletes: Deletes,
    /// Bytes of all keys before anything was done to make them fewer; 0 of a table of version 1.
    pub key_bytes: u64,
    /// Bytes of all values before they were compressed; 0 of a table of version 1.
    pub value_bytes: u64,
    /// How its blocks are compressed.
    pub compression: Compression,
    /// Bytes of a block before it is compressed.
    pub block_bytes: u32,
    /// What its filter knows.
    pub filter: Filter,
}

/// Deletions by what they delete. Of a table of version 1 each is what they are at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletes {
    /// Rows.
    pub rows: u64,
    /// Families of a row.
    pub families: u64,
    /// Columns of a row.
    pub columns: u64,
    /// Single versions.
    pub cells: u64,
}

impl Properties {
    /// Counts an entry, all but its row.
    pub(super) fn count(&mut self, key: &[u8], parts: &Parts<'_>, value: &[u8]) {
        self.entries += 1;
        self.key_bytes += key.len() as u64;
        self.value_bytes += value.len() as u64;
        let count = match parts.scope {
            Scope::Row => Some(&mut self.deletes.rows),
            Scope::Family => Some(&mut self.deletes.families),
            Scope::Column => Some(&mut self.deletes.columns),
            Scope::Cell { timestamp, sets } => {
                let (least, greatest) = self.timestamps.get_or_insert((timestamp, timestamp));
                *least = timestamp.min(*least);
                *greatest = timestamp.max(*greatest);
                (!sets).then_some(&mut self.deletes.cells)
            }
        };
        if let Some(count) = count {
            *count += 1;
            self.deletions += 1;
        }
        if parts.scope != Scope::Row {
            let families = self.families.get_or_insert_default();
            // Mostly it is the last one's again.
            if let Err(at) = families.binary_search(&parts.family) {
                families.insert(at, parts.family);
            }
        }
    }

    /// Reads what a file of version 1 has.
    pub(super) fn from_v1(bytes: &[u8]) -> Result<Properties, postcard::Error> {
        let V1 { tablet, after, upto, clock, entries, deletions, rows, first, last } = postcard::from_bytes(bytes)?;
        let mut properties =
            Properties { tablet, after, upto, clock, entries, deletions, rows, first, last, ..Properties::default() };
        properties.compression = Compression::None;
        properties.block_bytes = 16 << 10;
        properties.filter = Filter::Rows;
        properties.forget_what_v1_lacks();
        Ok(properties)
    }

    /// Says of what is not in a file of version 1 what cannot be wrong.
    pub(super) fn forget_what_v1_lacks(&mut self) {
        let most = self.deletions;
        self.deletes = Deletes { rows: most, families: most, columns: most, cells: most };
        self.families = None;
        self.timestamps = Some((Timestamp(i64::MIN), Timestamp(i64::MAX)));
        (self.key_bytes, self.value_bytes) = (0, 0);
    }
}

/// The properties of version 1.
#[derive(Deserialize)]
struct V1 {
    tablet: TabletId,
    after: Lsn,
    upto: Lsn,
    clock: Timestamp,
    entries: u64,
    deletions: u64,
    rows: u64,
    first: Bytes,
    last: Bytes,
}
