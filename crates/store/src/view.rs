//! A tablet as it was at some lsn: what readers read, and what is copied to a peer.
//!
//! A view costs a few handles and never changes; while it lives, the files that it needs stay. Reads may touch the disk,
//! so the host runs them off the shard's thread if [`View::touches_files`] says so.

use std::fmt;
use std::sync::Arc;

use model::{Bytes, Cell, Lsn, ReadOptions, Row, RowRange, Schema, TabletId, Timestamp};

use crate::Error;
use crate::job::FileInfo;
use crate::key;
use crate::memtable::Memtable;
use crate::merge::{Fate, Merge, Sieve};
use crate::sstable::{Purpose, filter};
use crate::version::Version;

/// Bytes up to which a tablet is read to find its middle.
const SMALL: u64 = 1 << 20;

/// A tablet as of [`View::at`].
#[derive(Clone)]
pub struct View {
    pub(crate) tablet: TabletId,
    pub(crate) at: Lsn,
    pub(crate) live: Arc<Memtable>,
    pub(crate) frozen: Option<Arc<Memtable>>,
    pub(crate) version: Arc<Version>,
    pub(crate) bounds: Arc<RowRange>,
}

impl View {
    /// Of which tablet.
    pub fn tablet(&self) -> TabletId {
        self.tablet
    }

    /// It has the changes of all records up to this one.
    pub fn at(&self) -> Lsn {
        self.at
    }

    /// The row with this key; `None` if nothing of what is asked for is there. Retention judges as of `now`.
    pub fn row(
        &self,
        key: &[u8],
        options: &ReadOptions,
        schema: &Schema,
        now: Timestamp,
    ) -> Result<Option<Row>, Error> {
        let start = key::row_start(key);
        let hash = filter::hash(&start);
        let mut merge = self.memory(&start, Some(key::row_end(key)));
        for table in self.version.for_row(&start).filter(|table| table.may_hold(&start, hash)) {
            merge.add_table(table.clone(), &start, Purpose::Serve)?;
        }
        let cells = next_row(&mut merge, &start, &mut Sieve::new(schema, now), options)?;
        Ok((!cells.is_empty()).then(|| Row { key: Bytes::copy_from_slice(key), cells }))
    }

    /// Rows of `range` in key order, until there are `rows` of them or they have `bytes`; at least one, if there is one.
    /// Then the first key that was not looked at, if the range goes on. Retention judges as of `now`.
    pub fn scan(
        &self,
        range: &RowRange,
        options: &ReadOptions,
        schema: &Schema,
        now: Timestamp,
        rows: u32,
        bytes: usize,
    ) -> Result<(Vec<Row>, Option<Bytes>), Error> {
        let range = range.intersect(&self.bounds);
        let start = key::row_start(&range.start);
        let end = range.end.as_ref().map(|end| key::row_start(end));
        let mut merge = self.memory(&start, end.clone());
        for table in self.version.overlapping(&start, end.as_deref()) {
            if table.overlaps(&start, end.as_deref()) {
                merge.add_table(table.clone(), &start, Purpose::Serve)?;
            }
        }
        let mut sieve = Sieve::new(schema, now);
        let (mut found, mut weight) = (Vec::new(), 0);
        while let Some(parts) = merge.parts()? {
            if end.as_ref().is_some_and(|end| parts.row >= &end[..]) {
                break;
            }
            if found.len() >= rows.max(1) as usize || (weight >= bytes && !found.is_empty()) {
                return Ok((found, Some(key::unescape(parts.row))));
            }
            let row = parts.row.to_vec();
            let cells = next_row(&mut merge, &row, &mut sieve, options)?;
            if !cells.is_empty() {
                let row = Row { key: key::unescape(&row), cells };
                weight += row.weight();
                found.push(row);
            }
        }
        Ok((found, None))
    }

    /// May reading this row touch a file?
    pub fn touches_files(&self, key: &[u8]) -> bool {
        let start = key::row_start(key);
        let hash = filter::hash(&start);
        self.version.for_row(&start).any(|table| table.may_hold(&start, hash))
    }

    /// Has the tablet any file?
    pub fn has_files(&self) -> bool {
        !self.version.runs().is_empty()
    }

    /// The checkpoint that the view pins: files that together have everything up to [`View::flushed`].
    pub fn files(&self) -> Vec<FileInfo> {
        let placed = self.version.placed();
        placed.map(|(run, table)| FileInfo { name: table.path().to_owned(), bytes: table.bytes(), run }).collect()
    }

    /// Damage that shows without reading further: a table of which nothing can be read.
    pub fn damage(&self) -> Option<Error> {
        self.version.tables().find_map(|table| table.damage())
    }

    /// The first row of about the second half of the bytes, if there is more than one row. A small tablet is read, so
    /// that the answer is exact; of a larger one the tables' indexes tell it, and no file is read.
    pub fn middle(&self, schema: &Schema, now: Timestamp) -> Result<Option<Bytes>, Error> {
        let weights = match self.is_small() {
            true => {
                let (all, options) = (RowRange::default(), ReadOptions::default());
                let (rows, _) = self.scan(&all, &options, schema, now, u32::MAX, usize::MAX)?;
                rows.into_iter().map(|row| (row.key.clone(), row.weight() as u64)).collect()
            }
            false => self.estimates(),
        };
        let all: u64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut before = 0;
        let at = weights.iter().position(|(_, weight)| {
            let there = before * 2 + weight >= all;
            before += weight;
            there
        });
        let (Some(at), Some((first, _))) = (at, weights.first()) else { return Ok(None) };
        // Both halves have a row of their own.
        let first = first.max(&self.bounds.start);
        Ok(weights[at..].iter().find(|(row, _)| row > first).map(|(row, _)| row.clone()))
    }

    /// Is it cheaper to read it than to be wrong about where it is large?
    fn is_small(&self) -> bool {
        let memory: usize = self.frozen.iter().chain([&self.live]).map(|memtable| memtable.weight()).sum();
        let tables: u64 = self.version.tables().map(|table| table.bytes_within(&self.bounds)).sum();
        memory as u64 + tables <= SMALL
    }

    /// Rows in order, and about how many bytes lie before each, from the one before on.
    fn estimates(&self) -> Vec<(Bytes, u64)> {
        let mut weights: Vec<(Bytes, u64)> = Vec::new();
        self.version.tables().for_each(|table| table.weigh(&self.bounds, &mut weights));
        self.frozen.iter().chain([&self.live]).for_each(|memtable| memtable.weigh(&self.bounds, &mut weights));
        weights.sort();
        weights
    }

    /// What the files hold.
    pub fn flushed(&self) -> Lsn {
        self.version.flushed
    }

    /// The node's note as of [`View::flushed`].
    pub fn note(&self) -> &Bytes {
        &self.version.note
    }

    fn memory(&self, start: &[u8], end: Option<Vec<u8>>) -> Merge {
        let mut merge = Merge::default();
        for memtable in self.frozen.iter().chain([&self.live]) {
            merge.add_memtable(memtable.clone(), self.at, start, end.clone());
        }
        merge
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} at {}, {} files to {})", self.tablet, self.at, self.version.tables().count(), self.flushed())
    }
}

/// Takes the entries of the row with this escaped key, on which `merge` stands if there are any, and returns what is
/// left of them.
fn next_row(
    merge: &mut Merge,
    escaped_row: &[u8],
    sieve: &mut Sieve<'_>,
    options: &ReadOptions,
) -> Result<Vec<Cell>, Error> {
    let mut cells: Vec<Cell> = Vec::new();
    let mut taken = 0;
    while let Some(parts) = merge.parts()? {
        if parts.row != escaped_row {
            break;
        }
        if let (Fate::Lives, key::Scope::Cell { timestamp, .. }) = (sieve.judge(&parts), parts.scope) {
            // The newest of the column that lives is the first that it ranks.
            taken = if sieve.rank() == 1 { 0 } else { taken };
            let qualifier = key::unescape(parts.qualifier);
            if taken < options.versions && options.wants_time(timestamp) && options.wants(parts.family, &qualifier) {
                cells.push(Cell { family: parts.family, qualifier, timestamp, value: merge.value() });
                taken += 1;
            }
        }
        merge.advance()?;
    }
    Ok(cells)
}
