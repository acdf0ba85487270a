//! Reads as values: what to read, of an immutable view, so that they can run anywhere and beside the writes.

use bytes::Bytes;
use model::{ReadOptions, Row, RowRange, Schema, Timestamp};
use std::sync::Arc;
use store::{Error, View};

/// Bytes of rows on one page, unless a single row is larger.
const PAGE_BYTES: usize = 1 << 20;

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
    Rows {
        range: RowRange,
        rows: u32,
    },
    /// Where the tablet's bytes are halved.
    Middle,
}

/// What a read has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The row, or `None` if it has no such cell.
    Row(Option<Row>),
    /// A page of rows, and where the next one begins.
    Rows(Vec<Row>, Option<Bytes>),
    /// The first row of the second half of a tablet's bytes, if it has two rows.
    Middle(Option<Bytes>),
}

impl Read {
    /// Reads. Blocks if it has to read files.
    pub fn run(&self) -> Result<Found, Error> {
        match &self.what {
            What::Row(key) => self.view.row(key, &self.options, &self.schema, self.now).map(Found::Row),
            What::Rows { range, rows } => self
                .view
                .scan(range, &self.options, &self.schema, self.now, *rows, PAGE_BYTES)
                .map(|(rows, resume)| Found::Rows(rows, resume)),
            What::Middle => self.view.middle(&self.schema, self.now).map(Found::Middle),
        }
    }

    /// May it have to read files? If not, it is quick.
    pub fn touches_files(&self) -> bool {
        match &self.what {
            What::Row(key) => self.view.touches_files(key),
            What::Rows { rows, .. } => self.view.has_files() || *rows > 100,
            What::Middle => true,
        }
    }
}
