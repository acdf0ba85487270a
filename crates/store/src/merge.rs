//! What is left of a tablet's changes when memtables and tables are laid over each other: one rule for reads and for
//! compaction.
//!
//! ```text
//!   memtable ─┐
//!   memtable ─┼─ Merge: all keys, in order ──▶ Sieve: the fate of each ──▶ a row, or a new table
//!   table * n ┘
//! ```
//!
//! Rules: a deletion covers only what is older by [`Seq`]; of a version that was set twice the later one counts; a family
//! that was dropped is gone; retention gives up versions by their rank among those that are left. A family that the
//! schema does not have *yet* (this node may hear of schema changes late) keeps everything.
//!
//! Compaction may take any run of tables that is without gaps in time. Then what is set and not deleted within the run
//! was truly there at its end, and what retention gave up was truly given up. If the run does not begin with the
//! tablet's oldest table, deletions stay ([`Fate::Deletes`]), and what retention gave up leaves a deletion
//! ([`Fate::GivenUp`]), lest older changes of the same version come to light again.

use std::sync::Arc;

use model::{Bytes, FamilyId, Lsn, Retention, Schema, Timestamp};

use crate::Error;
use crate::key::{Parts, Scope, Seq};
use crate::memtable::{MemoryCursor, Memtable};
use crate::sstable::{Purpose, Table, TableCursor};

/// One of the things that are merged.
enum Source {
    /// With where it ends.
    Memory(MemoryCursor, Option<Vec<u8>>),
    Table(TableCursor),
}

impl Source {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Source::Memory(cursor, _) => cursor.key(),
            Source::Table(cursor) => cursor.key(),
        }
    }

    fn value(&self) -> Bytes {
        match self {
            Source::Memory(cursor, _) => cursor.value(),
            Source::Table(cursor) => cursor.value(),
        }
    }

    /// For messages.
    fn origin(&self) -> &str {
        match self {
            Source::Memory(..) => "memory",
            Source::Table(cursor) => cursor.path(),
        }
    }

    fn advance(&mut self) -> Result<(), Error> {
        match self {
            Source::Memory(cursor, end) => cursor.advance(end.as_deref()),
            Source::Table(cursor) => cursor.advance()?,
        }
        Ok(())
    }
}

/// All entries of some memtables and tables, in key order. Stands on an entry, or is at the end.
#[derive(Default)]
pub struct Merge {
    /// By the key they stand on, the greatest first; none is at its end.
    sources: Vec<Source>,
}

impl Merge {
    /// Adds a memtable as of `at`, from `start` up to `end`.
    pub fn add_memtable(&mut self, memtable: Arc<Memtable>, at: Lsn, start: &[u8], end: Option<Vec<u8>>) {
        let mut cursor = MemoryCursor::new(memtable, at);
        cursor.seek(start, end.as_deref());
        self.insert(Source::Memory(cursor, end));
    }

    /// Adds a table, from `start` on.
    pub fn add_table(&mut self, table: Arc<Table>, start: &[u8], purpose: Purpose) -> Result<(), Error> {
        self.insert(Source::Table(TableCursor::new(table, start, purpose)?));
        Ok(())
    }

    /// Key of the entry it stands on.
    pub fn key(&self) -> Option<&[u8]> {
        self.sources.last().and_then(Source::key)
    }

    /// What the key of the entry it stands on says.
    pub fn parts(&self) -> Result<Option<Parts<'_>>, Error> {
        let Some(source) = self.sources.last() else { return Ok(None) };
        let parts = source.key().and_then(Parts::parse);
        parts.map(Some).ok_or_else(|| Error::corrupt(source.origin(), 0, "a key does not decode"))
    }

    /// Value of the entry it stands on; empty at the end.
    pub fn value(&self) -> Bytes {
        self.sources.last().map(Source::value).unwrap_or_default()
    }

    /// Goes on by one entry.
    pub fn advance(&mut self) -> Result<(), Error> {
        let Some(first) = self.sources.last_mut() else { return Ok(()) };
        first.advance()?;
        // Mostly it stays the first: neighbours come from the same place.
        let stays = match (self.key(), self.sources.iter().rev().nth(1).and_then(Source::key)) {
            (Some(key), Some(next)) => key <= next,
            (key, _) => key.is_some(),
        };
        if !stays {
            let source = self.sources.pop().expect("it was just advanced");
            self.insert(source);
        }
        Ok(())
    }

    fn insert(&mut self, source: Source) {
        if let Some(key) = source.key() {
            let at = self.sources.partition_point(|other| other.key() > Some(key));
            self.sources.insert(at, source);
        }
    }
}

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
    qualifier: Option<Vec<u8>>,
    column_deleted: Seq,
    timestamp: Option<Timestamp>,
    /// Versions of the column that live so far.
    rank: u32,
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
            qualifier: None,
            column_deleted: Seq::ZERO,
            timestamp: None,
            rank: 0,
        }
    }

    /// How many versions of the last key's column live so far.
    pub fn rank(&self) -> u32 {
        self.rank
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
            self.qualifier = None;
        }
        let in_column = matches!(parts.scope, Scope::Column | Scope::Cell { .. });
        if in_column && self.qualifier.as_deref() != Some(parts.qualifier) {
            let qualifier = self.qualifier.get_or_insert_default();
            qualifier.clear();
            qualifier.extend_from_slice(parts.qualifier);
            self.column_deleted = self.family_deleted;
            self.timestamp = None;
            self.rank = 0;
        }
    }
}

#[cfg(test)]
mod tests;
