//! Sorted table files: immutable runs of internal keys with their values (Bigtable 4 and 5.3).
//!
//! ```text
//!   Writer ──▶ file:  data blocks | dictionary | filter | index | top | properties | footer
//!                       │                          │       │
//!   get ──▶ filter ──▶ top ──▶ index ──▶ data      one block from the disk at most, where filter and index are in memory
//!   scan ────────────────────────────▶ data, data, …         read further and further ahead
//! ```
//!
//! `frame` draws the file, `codec` a sealed block, [`block`] its payload, [`filter`] and `index` those. An open table
//! keeps properties and the top of the index in memory, and filter and index blocks if they are small or if there is
//! room; everything else is in the [`Cache`], or read. A table of a locality group that is to be in memory is read whole
//! ([`Table::load`]). Every byte of the file is under some checksum, and what is read is checked before it is believed.

mod ahead;
pub mod block;
mod cache;
mod check;
mod codec;
mod cursor;
mod dictionary;
mod fences;
pub mod filter;
mod frame;
mod index;
mod properties;
mod shelf;
mod sieve;
mod source;
mod writer;

use std::fmt;
use std::sync::{Arc, OnceLock};

use disk::File;
use model::{Bytes, FamilyId, RowRange, Timestamp};

use self::ahead::Ahead;
pub use self::ahead::Purpose;
use self::block::Payload;
use self::cache::Charge;
pub use self::cache::{Cache, Stats};
pub use self::cursor::TableCursor;
use self::frame::Frame;
use self::index::Group;
pub use self::properties::{Deletes, Properties};
pub use self::shelf::{Pin, Shelf};
use self::source::Source;
pub use self::writer::{Shape, Writer};
use crate::{Error, key};

const PLACE: usize = 8 + 4;

/// Where a sealed block lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    offset: u64,
    len: u32,
}

impl Place {
    fn end(self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.len))
    }

    fn to_bytes(self) -> [u8; PLACE] {
        let mut bytes = [0; PLACE];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Place> {
        let (offset, len) = bytes.split_first_chunk()?;
        Some(Place { offset: u64::from_le_bytes(*offset), len: u32::from_le_bytes(len.try_into().ok()?) })
    }
}

/// An open table, or a part of one.
pub struct Table {
    body: Arc<Body>,
    /// It shows only these rows of it.
    part: Option<Part>,
    /// Of the file, or of the blocks of the part.
    bytes: u64,
}

/// What parts of a table share.
struct Body {
    source: Source,
    frame: Frame,
    /// Keeps the file from being removed, if it is one of a tablet's.
    pin: Option<Pin>,
    /// Of the file.
    bytes: u64,
    /// Why it cannot be read at all: the parts that stay in memory are damaged.
    broken: Option<(u64, String)>,
    loaded: OnceLock<Loaded>,
}

/// All data blocks, in order.
struct Loaded {
    payloads: Vec<Payload>,
    _charge: Charge,
}

/// A part of a table: see [`Table::within`].
struct Part {
    rows: RowRange,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl Part {
    fn covers(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

impl Table {
    /// A table of which nothing can be read any more. It stands for its file, so that what else the tablet has can be
    /// read: whatever might be in it is refused.
    pub fn broken(file: Arc<dyn File>, path: String, pin: Option<Pin>, offset: u64, why: String) -> Table {
        let bytes = file.len().unwrap_or(0);
        let source = Source { file, path, cache: Cache::none(), number: 0 };
        let (frame, broken, loaded) = (Frame::empty(), Some((offset, why)), OnceLock::new());
        Table { body: Arc::new(Body { source, frame, pin, bytes, broken, loaded }), part: None, bytes }
    }

    /// The rows of it that lie within `bounds`, as a table: the others in it belong to other tablets, and may be older than
    /// what those have of them.
    pub fn within(self: &Arc<Table>, bounds: &RowRange) -> Arc<Table> {
        let rows = self.part.as_ref().map_or_else(|| bounds.clone(), |part| part.rows.intersect(bounds));
        let bytes = self.body.bytes_within(&rows);
        let (start, end) = (key::row_start(&rows.start), rows.end.as_ref().map(|end| key::row_start(end)));
        Arc::new(Table { body: Arc::clone(&self.body), part: Some(Part { rows, start, end }), bytes })
    }

    /// Why nothing of it can be read, if so.
    pub fn damage(&self) -> Option<Error> {
        self.body.broken.as_ref().map(|(offset, why)| Error::corrupt(self.path(), *offset, why))
    }

    /// Reads the parts that stay in memory, and checks them and that the parts fill the file.
    pub fn open(file: Arc<dyn File>, path: String, pin: Option<Pin>, cache: &Arc<Cache>) -> Result<Table, Error> {
        let bytes = file.len().map_err(|source| Error::io(&path, "measure", source))?;
        let source = Source { file, path, cache: Arc::clone(cache), number: cache.number() };
        let frame = Frame::read(&source, bytes)?;
        let body = Body { source, frame, pin, bytes, broken: None, loaded: OnceLock::new() };
        Ok(Table { body: Arc::new(body), part: None, bytes })
    }

    /// Reads all of it into memory, where it stays: reads do not touch the disk any more.
    pub fn load(&self) -> Result<(), Error> {
        if let Some(damage) = self.damage() {
            return Err(damage);
        }
        if self.is_loaded() {
            return Ok(());
        }
        let Body { source, frame, .. } = &*self.body;
        let mut ahead = Ahead::upto(self.body.bytes);
        let mut payloads = Vec::with_capacity(frame.index.blocks() as usize);
        for group in 0..frame.index.len() {
            for place in frame.index.group(source, group, Purpose::Background)?.things() {
                let walk = (Purpose::Background, &mut ahead);
                payloads.push(source.block(*place, frame.dictionary.as_ref(), walk)?);
            }
        }
        frame.filter.load(source, &mut ahead)?;
        frame.index.load(source, &mut ahead)?;
        let bytes = payloads.iter().map(|payload| payload.weight() as u64).sum();
        let _charge = source.cache.count_loaded(bytes);
        let _ = self.body.loaded.set(Loaded { payloads, _charge });
        Ok(())
    }

    /// Is there room for it in memory? What is loaded may be as large as the cache, beside it.
    pub fn may_load(&self) -> bool {
        let stats = self.body.source.cache.stats();
        stats.loaded.saturating_add(self.properties().key_bytes + self.properties().value_bytes) <= stats.capacity
    }

    /// Is all of it in memory?
    pub fn is_loaded(&self) -> bool {
        self.body.loaded.get().is_some()
    }

    /// Does it show only some rows of its file?
    pub(crate) fn is_part(&self) -> bool {
        self.part.is_some()
    }

    /// What keeps its blocks, and its number there.
    pub(crate) fn cached_in(&self) -> (&Arc<Cache>, u64) {
        (&self.body.source.cache, self.body.source.number)
    }

    /// What it is, as a whole.
    pub fn properties(&self) -> &Properties {
        &self.body.frame.properties
    }

    /// Bytes of the file, or of the blocks in which the part lies.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the blocks that may have rows within `bounds`. Of a large table the end is not known to the block.
    pub fn bytes_within(&self, bounds: &RowRange) -> u64 {
        if *bounds == RowRange::default() {
            return self.bytes;
        }
        match &self.part {
            Some(part) => self.body.bytes_within(&part.rows.intersect(bounds)),
            None => self.body.bytes_within(bounds),
        }
    }

    /// Has it rows outside of `bounds`, and are at most three quarters of its blocks within?
    pub(crate) fn is_mostly_foreign(&self, bounds: &RowRange) -> bool {
        let (first, last) = (&self.properties().first[..], &self.properties().last[..]);
        let outside = first < &key::row_start(&bounds.start)[..]
            || bounds.end.as_ref().is_some_and(|end| last >= &key::row_start(end)[..]);
        let blocks = self.body.frame.index.data_end();
        outside && self.body.broken.is_none() && self.bytes_within(bounds) <= blocks / 4 * 3
    }

    /// Appends a row between each two blocks within `bounds`, with what the one before it weighs, and the first row of all. Of
    /// a large table not every block gets one.
    pub(crate) fn weigh(&self, bounds: &RowRange, weights: &mut Vec<(Bytes, u64)>) {
        let first = Some(&self.properties().first).filter(|key| self.shows(key)).and_then(|key| key::row_of(key));
        weights.extend(first.map(key::unescape).filter(|row| bounds.covers(row)).map(|row| (row, 0)));
        for (key, weight) in self.body.frame.index.weights() {
            let row = key::row_upto(key);
            let rows = self.part.as_ref().map_or(bounds, |part| &part.rows);
            if bounds.covers(&row) && rows.covers(&row) {
                weights.push((row, weight));
            }
        }
    }

    /// Is the key in what it shows of its file?
    fn shows(&self, key: &[u8]) -> bool {
        self.part.as_ref().is_none_or(|part| part.covers(key))
    }

    /// The file's path.
    pub fn path(&self) -> &str {
        &self.body.source.path
    }

    /// The file's number; 0 if it is not (yet) one of a tablet's.
    pub fn number(&self) -> u64 {
        self.body.pin.as_ref().filter(|_| self.part.is_none()).map_or(0, Pin::number)
    }

    /// Whether it may have changes of the row with this escaped key and [`filter::hash`]; false is certain. Asks only what is
    /// in memory: where the filter is not, it may.
    pub fn may_hold(&self, escaped_row: &[u8], hash: u64) -> bool {
        self.body.broken.is_some() && self.shows(escaped_row)
            || self.spans(escaped_row) && self.body.knows(hash).unwrap_or(true)
    }

    /// As [`Table::may_hold`], but reads what of the filter is not in memory.
    pub fn may_hold_surely(&self, escaped_row: &[u8], hash: u64) -> Result<bool, Error> {
        match self.damage().filter(|_| self.shows(escaped_row)) {
            Some(damage) => Err(damage),
            None => Ok(self.spans(escaped_row) && self.body.frame.filter.may_hold(&self.body.source, hash)?),
        }
    }

    /// Whether a reader of this column of the row must look at it: it may have changes of the column, or delete its family
    /// or row. False is certain. As [`Table::may_hold`], and no better if the filter knows rows only.
    pub fn may_hold_column(&self, escaped_row: &[u8], column: &filter::Column) -> bool {
        let Body { frame, .. } = &*self.body;
        if self.body.broken.is_some() || frame.properties.filter != model::storage::Filter::Columns {
            return self.may_hold(escaped_row, column.row);
        }
        let deletes = &frame.properties.deletes;
        let asked = [
            (column.column, true),
            (column.family_deleted, deletes.families > 0),
            (column.row_deleted, deletes.rows > 0),
        ];
        self.spans(escaped_row) && asked.iter().any(|(hash, ask)| *ask && self.body.knows(*hash).unwrap_or(true))
    }

    /// Whether a reader of this family must look at it: it may have keys of it, or delete rows. False is certain.
    pub fn may_hold_family(&self, family: FamilyId) -> bool {
        let families = self.properties().families.as_ref();
        let held = families.is_none_or(|families| families.binary_search(&family).is_ok());
        held || self.properties().deletes.rows > 0 || self.body.broken.is_some()
    }

    /// The least and the greatest timestamp of its cells, set or deleted; `None` if it has none, only larger deletions.
    pub fn timestamps(&self) -> Option<(Timestamp, Timestamp)> {
        match self.body.broken {
            Some(_) => Some((Timestamp(i64::MIN), Timestamp(i64::MAX))),
            None => self.properties().timestamps,
        }
    }

    /// Does the row lie between its first key and its last, and in what it shows?
    fn spans(&self, escaped_row: &[u8]) -> bool {
        let (first, last) = (&self.properties().first[..], &self.properties().last[..]);
        let after_first = escaped_row >= first || first.starts_with(escaped_row);
        after_first && escaped_row <= last && self.shows(escaped_row)
    }

    /// Can what it has of the row with this escaped key and [`filter::hash`] be read without the disk? By the time one
    /// reads, that may have changed.
    pub fn is_cached(&self, escaped_row: &[u8], hash: u64) -> bool {
        if self.body.broken.is_some() || self.is_loaded() || !self.spans(escaped_row) {
            return true;
        }
        match self.body.knows(hash) {
            Some(true) => self.body.is_cached(escaped_row),
            Some(false) => true,
            None => false,
        }
    }

    /// Whether it may have keys from `start` on and before `end`; false is certain.
    pub fn overlaps(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        let apart = |part: &Part| {
            end.is_some_and(|end| end <= &part.start[..]) || part.end.as_ref().is_some_and(|its| start >= &its[..])
        };
        if self.part.as_ref().is_some_and(apart) {
            return false;
        }
        let properties = self.properties();
        let within = properties.last >= *start && end.is_none_or(|end| properties.first < *end);
        self.body.broken.is_some() || within
    }
}

impl Body {
    /// See [`Table::bytes_within`].
    fn bytes_within(&self, bounds: &RowRange) -> u64 {
        let Frame { properties, index, .. } = &self.frame;
        let start = index.start_of(&key::row_start(&bounds.start));
        let end = match bounds.end.as_ref().map(|end| key::row_start(end)) {
            Some(end) if properties.first[..] >= end[..] => start,
            // The block in which the end lies belongs to both sides.
            Some(end) => index.end_of(&end),
            None => index.data_end(),
        };
        end.saturating_sub(start)
    }

    /// Whether the filter lets it pass, as far as memory knows.
    fn knows(&self, hash: u64) -> Option<bool> {
        self.frame.filter.knows(&self.source, hash)
    }

    /// Are the blocks in memory that may have keys of the row?
    fn is_cached(&self, escaped_row: &[u8]) -> bool {
        let index = &self.frame.index;
        let group = index.find(escaped_row);
        let Some(blocks) = (group < index.len()).then(|| index.in_memory(&self.source, group)).flatten() else {
            return group == index.len();
        };
        for at in blocks.find(escaped_row)..blocks.len() {
            if !self.source.cache.has(self.source.number, blocks.things()[at].offset) {
                return false;
            }
            if !blocks.key(at).starts_with(escaped_row) {
                return true;
            }
        }
        // It goes on in the next group: a large row.
        group + 1 == index.len()
    }

    /// The payload of a data block of the group.
    fn payload(&self, group: usize, blocks: &Group, at: usize, walk: (Purpose, &mut Ahead)) -> Result<Payload, Error> {
        let (place, dictionary, (purpose, ahead)) = (blocks.things()[at], self.frame.dictionary.as_ref(), walk);
        if purpose == Purpose::Background {
            return self.source.payload(place, dictionary, ahead).map(Payload::plain);
        }
        let loaded = self.loaded.get().and_then(|loaded| loaded.payloads.get(self.frame.index.before(group) + at));
        match loaded {
            Some(payload) => Ok(payload.clone()),
            None => self.source.serve(place, dictionary, ahead),
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Properties { after, upto, .. } = self.properties();
        write!(f, "Table({}, {} bytes, {after} to {upto})", self.path(), self.bytes)
    }
}

/// Reads what must be in the file.
fn read(file: &dyn File, path: &str, place: Place) -> Result<Bytes, Error> {
    let mut bytes = vec![0; place.len as usize];
    let got = file.read_at(place.offset, &mut bytes).map_err(|source| Error::io(path, "read", source))?;
    if got < bytes.len() {
        return Err(Error::corrupt(path, place.offset + got as u64, "the file ends too early"));
    }
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests;
