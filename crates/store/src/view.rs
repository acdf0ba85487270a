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
use crate::merge::Merge;
use crate::reads::kept::KeptRow;
use crate::reads::{Met, Reader};
use crate::sstable::{Purpose, Table, filter};
use crate::version::Version;

/// Bytes up to which a tablet is read to find its middle.
const SMALL: u64 = 1 << 20;
/// A page may look at so many times the bytes that it may have,
pub(crate) const LOOK: u64 = 16;
/// and always at so many.
pub(crate) const LEAST_LOOK: u64 = 1 << 20;
/// Entries up to which a row is read backwards as it is met; a larger one is read once more from its start.
const MOST_MET: usize = 64;

/// A tablet as of [`View::at`].
#[derive(Clone)]
pub struct View {
    pub(crate) tablet: TabletId,
    pub(crate) at: Lsn,
    pub(crate) live: Arc<Memtable>,
    pub(crate) frozen: Option<Arc<Memtable>>,
    pub(crate) version: Arc<Version>,
    pub(crate) bounds: Arc<RowRange>,
    pub(crate) purpose: Purpose,
}

impl View {
    /// The same for a reader who comes once and is no client: what it reads is not cached, and comes from the disk.
    pub(crate) fn in_background(&self) -> View {
        View { purpose: Purpose::Background, ..self.clone() }
    }

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
        self.warm(schema)?;
        let mut reader = Reader::of_row(options, schema, now);
        let cells = self.read_row(&mut reader, &key::row_start(key))?;
        Ok((!cells.is_empty()).then(|| Row { key: Bytes::copy_from_slice(key), cells }))
    }

    /// The rows with these keys, as [`View::row`] would give them. Costs less than one after the other, above all if they
    /// lie near each other.
    pub fn rows(
        &self,
        keys: &[Bytes],
        options: &ReadOptions,
        schema: &Schema,
        now: Timestamp,
    ) -> Result<Vec<Option<Row>>, Error> {
        self.warm(schema)?;
        let mut sorted: Vec<usize> = (0..keys.len()).collect();
        sorted.sort_by_key(|&at| &keys[at]);
        let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return Ok(Vec::new()) };
        let (start, end) = (key::row_start(&keys[*first]), key::row_end(&keys[*last]));
        let mut reader = Reader::of_rows(options, schema, now);
        let mut merge = self.memory(&start, Some(&end));
        let in_memory = merge.len();
        let runs = self.runs(&start, Some(&end), &reader);
        runs.iter().try_for_each(|tables| merge.push_run(tables.clone(), self.purpose))?;
        let mut rows: Vec<Option<Row>> = vec![None; keys.len()];
        let mut before: Option<usize> = None;
        for at in sorted {
            let key = &keys[at];
            rows[at] = match before.filter(|&before| keys[before] == *key) {
                Some(before) => rows[before].clone(),
                None => {
                    let (start, end) = (key::row_start(key), key::row_end(key));
                    let hash = filter::hash(&start);
                    let holds = |tables: &Vec<Arc<Table>>| tables.iter().any(|table| table.may_hold(&start, hash));
                    let takes = |n: usize| n.checked_sub(in_memory).is_none_or(|n| holds(&runs[n]));
                    merge.place(&start, Some(&end), takes)?;
                    let cells = reader.row(&mut merge, &start)?;
                    (!cells.is_empty()).then(|| Row { key: key.clone(), cells })
                }
            };
            before = Some(at);
        }
        Ok(rows)
    }

    /// Rows of `range` in key order, until there are `rows` of them or they have `bytes`, or much more than that was looked
    /// at: of deleted rows there may be many. Then the first key that was not looked at, if the range goes on. Retention
    /// judges as of `now`.
    pub fn scan(
        &self,
        range: &RowRange,
        options: &ReadOptions,
        schema: &Schema,
        now: Timestamp,
        rows: u32,
        bytes: usize,
    ) -> Result<(Vec<Row>, Option<Bytes>), Error> {
        self.warm(schema)?;
        let (start, end) = self.edges(range);
        let mut reader = Reader::of_rows(options, schema, now);
        let mut merge = self.sources(&start, end.as_deref(), &reader)?;
        merge.place(&start, end.as_deref(), |_| true)?;
        let mut page = Page::new(rows, bytes);
        let mut row = Vec::new();
        while let Some(next) = merge.row()? {
            if end.as_ref().is_some_and(|end| next >= &end[..]) {
                break;
            }
            if page.is_full(&reader) {
                return Ok((page.rows, Some(key::unescape(next))));
            }
            row.clear();
            row.extend_from_slice(next);
            let cells = reader.row(&mut merge, &row)?;
            reader.leave(&mut merge, &row)?;
            page.add(&row, cells);
        }
        Ok((page.rows, None))
    }

    /// The same from the end of the range on, the row with the greatest key first. The key with which it returns is that of
    /// the last row that was looked at: those before it are still to come.
    pub fn scan_back(
        &self,
        range: &RowRange,
        options: &ReadOptions,
        schema: &Schema,
        now: Timestamp,
        rows: u32,
        bytes: usize,
    ) -> Result<(Vec<Row>, Option<Bytes>), Error> {
        self.warm(schema)?;
        let (start, end) = self.edges(range);
        let mut reader = Reader::of_rows(options, schema, now);
        let mut merge = self.sources(&start, end.as_deref(), &reader)?;
        merge.place_before(end.as_deref(), &start)?;
        let mut page = Page::new(rows, bytes);
        let (mut row, mut met) = (Vec::new(), Met::default());
        while let Some(next) = merge.row()? {
            if next < &start[..] {
                break;
            }
            if page.is_full(&reader) {
                return Ok((page.rows, Some(key::unescape(&row))));
            }
            row.clear();
            row.extend_from_slice(next);
            met.clear();
            while let Some(key) = merge.key().filter(|key| met.len() < MOST_MET && key.starts_with(&row)) {
                met.push(key, merge.value());
                merge.advance()?;
            }
            let cells = if merge.key().is_some_and(|key| key.starts_with(&row)) {
                merge.seek_back(&row)?;
                self.read_row(&mut reader, &row)?
            } else {
                reader.row(&mut met, &row)?
            };
            page.add(&row, cells);
        }
        Ok((page.rows, None))
    }

    /// May reading this row touch a file? What is in the cache does not.
    pub fn touches_files(&self, key: &[u8]) -> bool {
        let start = key::row_start(key);
        let hash = filter::hash(&start);
        self.version.for_row(&start).any(|table| table.may_hold(&start, hash) && !table.is_cached(&start, hash))
    }

    /// Tables of locality groups that are in memory are read when they are first needed, and stay (Bigtable, 6). If they are
    /// more than the cache may have, they are read like all others.
    fn warm(&self, schema: &Schema) -> Result<(), Error> {
        let in_memory =
            |locality| schema.storage.localities.iter().any(|group| group.id == locality && group.in_memory);
        if self.purpose != Purpose::Serve || !schema.storage.localities.iter().any(|group| group.in_memory) {
            return Ok(());
        }
        let runs = self.version.runs().iter().filter(|run| in_memory(run.id.locality));
        let mut cold = runs.flat_map(|run| run.tables()).filter(|table| !table.is_loaded() && table.damage().is_none());
        cold.try_for_each(|table| if table.may_load() { table.load() } else { Ok(()) })
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

    /// What is in memory of the keys from `start` on and before `end`, not yet placed.
    fn memory(&self, start: &[u8], end: Option<&[u8]>) -> Merge {
        let mut merge = Merge::default();
        for memtable in self.frozen.iter().chain([&self.live]).filter(|memtable| memtable.holds(start, end)) {
            merge.push_memtable(memtable.clone(), self.at);
        }
        merge
    }

    /// Of each run the tables that may have what the reader wants of the keys from `start` on and before `end`.
    fn runs(&self, start: &[u8], end: Option<&[u8]>, reader: &Reader<'_>) -> Vec<Vec<Arc<Table>>> {
        let needed = |table: &&Arc<Table>| table.overlaps(start, end) && reader.needs(table);
        let runs = self.version.runs().iter();
        let tables = runs.map(|run| run.overlapping(start, end).filter(needed).cloned().collect::<Vec<_>>());
        tables.filter(|tables| !tables.is_empty()).collect()
    }

    /// What is in memory, and those, not yet placed.
    pub(crate) fn sources(&self, start: &[u8], end: Option<&[u8]>, reader: &Reader<'_>) -> Result<Merge, Error> {
        let mut merge = self.memory(start, end);
        for tables in self.runs(start, end, reader) {
            merge.push_run(tables, self.purpose)?;
        }
        Ok(merge)
    }

    /// What is left of the row with this escaped key.
    pub(crate) fn read_row(&self, reader: &mut Reader<'_>, start: &[u8]) -> Result<Vec<Cell>, Error> {
        let mut end = start.to_vec();
        key::pass(&mut end);
        let (hash, mut merge) = (filter::hash(start), self.memory(start, Some(&end)));
        let mut tables = Vec::new();
        for table in self.version.for_row(start) {
            if reader.needs_of_row(table, start, hash)? {
                tables.push(table);
            }
        }
        match self.kept(reader, &tables, start, &end, hash)? {
            Some(row) => merge.push_kept(row),
            None => tables.into_iter().try_for_each(|table| merge.push_run(vec![Arc::clone(table)], self.purpose))?,
        }
        if merge.len() == 0 {
            return Ok(Vec::new());
        }
        merge.place(start, Some(&end), |_| true)?;
        reader.row(&mut merge, start)
    }

    /// What these tables have of the row, out of memory, if it is read often and is small. What was just read from a file is
    /// not kept yet: it may never be wanted again.
    fn kept(
        &self,
        reader: &Reader<'_>,
        tables: &[&Arc<Table>],
        start: &[u8],
        end: &[u8],
        hash: u64,
    ) -> Result<Option<Arc<KeptRow>>, Error> {
        let Some(first) = tables.first().filter(|_| reader.wants_all() && self.purpose == Purpose::Serve) else {
            return Ok(None);
        };
        let cache = first.cached_in().0;
        let numbers: Vec<u64> = tables.iter().map(|table| table.cached_in().1).collect();
        // Of a table in parts only some rows are this tablet's, and tables without a cache have no numbers.
        if tables.iter().any(|table| table.is_part() || table.damage().is_some()) {
            return Ok(None);
        }
        if let Some(row) = cache.row(&numbers, start, hash) {
            return Ok(Some(row));
        }
        if !cache.asks_again(hash) || !tables.iter().all(|table| !table.is_loaded() && table.is_cached(start, hash)) {
            return Ok(None);
        }
        let mut merge = Merge::default();
        tables.iter().try_for_each(|table| merge.push_run(vec![Arc::clone(table)], self.purpose))?;
        merge.place(start, Some(end), |_| true)?;
        let Some(row) = KeptRow::take(&mut merge, numbers.clone(), start)? else { return Ok(None) };
        let row = Arc::new(row);
        cache.insert_row(&numbers, hash, Arc::clone(&row));
        Ok(Some(row))
    }

    /// Where the keys of its own rows within `range` begin and end.
    pub(crate) fn edges(&self, range: &RowRange) -> (Vec<u8>, Option<Vec<u8>>) {
        let range = range.intersect(&self.bounds);
        (key::row_start(&range.start), range.end.as_ref().map(|end| key::row_start(end)))
    }
}

/// Rows that a scan has found.
struct Page {
    rows: Vec<Row>,
    weight: usize,
    most_rows: usize,
    most_bytes: usize,
    any: bool,
}

impl Page {
    fn new(rows: u32, bytes: usize) -> Page {
        Page { rows: Vec::new(), weight: 0, most_rows: rows.max(1) as usize, most_bytes: bytes, any: false }
    }

    /// The row was looked at, and this is left of it.
    fn add(&mut self, escaped_row: &[u8], cells: Vec<Cell>) {
        self.any = true;
        if !cells.is_empty() {
            let row = Row { key: key::unescape(escaped_row), cells };
            self.weight += row.weight();
            self.rows.push(row);
        }
    }

    fn is_full(&self, reader: &Reader<'_>) -> bool {
        let found = self.rows.len() >= self.most_rows || (self.weight >= self.most_bytes && !self.rows.is_empty());
        let most_looked = (self.most_bytes as u64).saturating_mul(LOOK).max(LEAST_LOOK);
        found || (self.any && reader.looked() >= most_looked)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} at {}, {} files to {})", self.tablet, self.at, self.version.tables().count(), self.flushed())
    }
}
