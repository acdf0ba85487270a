//! Reads as values: what to read, of an immutable view, so that they can run anywhere and beside the writes.

use bytes::Bytes;
use model::changes::{self, ChangesPage, ChangesQuery};
use model::{FamilyId, ReadOptions, Row, RowRange, Schema, Timestamp};
use std::sync::Arc;
use store::{Error, KeptChange, View};

/// Bytes of rows on one page, unless a single row is larger.
const PAGE_BYTES: usize = 1 << 20;
/// Rows that are read first, of several that are asked for by their keys.
const FIRST_KEYS: usize = 4;
/// A row is taken for so large at least when it is guessed how many fit into an answer.
const LEAST_ROW: usize = 1 << 10;

/// A read that is complete in itself.
#[derive(Clone, Debug)]
pub struct Read {
    pub(crate) view: View,
    pub(crate) schema: Arc<Schema>,
    /// By which retention judges.
    pub(crate) now: Timestamp,
    pub(crate) options: ReadOptions,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Row(Bytes),
    /// These, as many as fit into an answer.
    Many(Vec<Bytes>),
    Rows {
        range: RowRange,
        rows: u32,
        /// From the last row to the first.
        reverse: bool,
    },
    /// Where the tablet's bytes are halved.
    Middle,
    /// What this family keeps of the tablet's changes, none after `upto`.
    Changes {
        family: FamilyId,
        query: Box<ChangesQuery>,
        upto: Timestamp,
    },
}

/// What a read has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The row, or `None` if it has no such cell.
    Row(Option<Row>),
    /// The first of those that were asked for, at least one.
    Many(Vec<Option<Row>>),
    /// A page of rows, and where the next one begins: in reverse, before which row.
    Rows(Vec<Row>, Option<Bytes>),
    /// The first row of the second half of a tablet's bytes, if it has two rows.
    Middle(Option<Bytes>),
    /// A page of changes, or why what was found is none.
    Changes(Result<ChangesPage, String>),
}

impl Read {
    /// Reads. Blocks if it has to read files.
    pub fn run(&self) -> Result<Found, Error> {
        let Read { options, schema, now, .. } = self;
        match &self.what {
            What::Row(key) => self.view.row(key, options, schema, *now).map(Found::Row),
            What::Many(keys) => self.many(keys).map(Found::Many),
            What::Rows { range, rows, reverse: false } => {
                let (rows, resume) = self.view.scan(range, options, schema, *now, *rows, PAGE_BYTES)?;
                Ok(Found::Rows(rows, resume))
            }
            What::Rows { range, rows, reverse: true } => {
                let (rows, resume) = self.view.scan_back(range, options, schema, *now, *rows, PAGE_BYTES)?;
                Ok(Found::Rows(rows, resume))
            }
            What::Middle => self.view.middle(schema, *now).map(Found::Middle),
            What::Changes { family, query, upto } => {
                let (kept, resume) = self.view.changes(*family, query, *upto, schema, *now, PAGE_BYTES)?;
                let read = |kept: KeptChange| changes::read(kept.row, &kept.qualifier, &kept.value);
                let changes = kept.into_iter().map(read).collect::<Result<_, _>>();
                Ok(Found::Changes(changes.map(|changes| ChangesPage { changes, upto: *upto, resume })))
            }
        }
    }

    /// As many as fit into an answer, a few at a time: how large rows are is known when some have been read.
    fn many(&self, keys: &[Bytes]) -> Result<Vec<Option<Row>>, Error> {
        let (mut found, mut bytes, mut largest) = (Vec::with_capacity(keys.len()), 0, PAGE_BYTES / FIRST_KEYS);
        while found.len() < keys.len() && bytes < PAGE_BYTES {
            let rest = &keys[found.len()..];
            let count = ((PAGE_BYTES - bytes) / largest).clamp(1, rest.len());
            let rows = self.view.rows(&rest[..count], &self.options, &self.schema, self.now)?;
            let weights = || rows.iter().flatten().map(Row::weight);
            bytes += weights().sum::<usize>();
            largest = if found.is_empty() { 0 } else { largest }.max(weights().max().unwrap_or(0)).max(LEAST_ROW);
            found.extend(rows);
        }
        Ok(found)
    }

    /// May it have to read files? If not, it is quick.
    pub fn touches_files(&self) -> bool {
        match &self.what {
            What::Row(key) => self.view.touches_files(key),
            What::Many(keys) => keys.len() > 100 || keys.iter().any(|key| self.view.touches_files(key)),
            What::Rows { rows, .. } => self.view.has_files() || *rows > 100,
            What::Middle | What::Changes { .. } => true,
        }
    }
}
