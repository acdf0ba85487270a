//! Sorted table files: immutable runs of internal keys with their values (Bigtable 4 and 5.3).
//!
//! ```text
//!   file:    data block* | filter block | index block | properties block | footer
//!   footer:  offset  size  field
//!                 0    12  filter      offset u64, sealed length u32
//!                12    12  index       offset u64, sealed length u32
//!                24    12  properties  offset u64, sealed length u32
//!                36    12  zero
//!                48     4  version     2; of 1 the properties are fewer
//!                52     4  crc         CRC-32C of bytes 0..52 and of the footer's own offset (u64)
//!                56     8  magic
//! ```
//!
//! Blocks are sealed as [`block`] says. The index has an entry per data block: its last key, and as value offset u64 and
//! sealed length u32. Data blocks, filter, index, properties and footer lie end to end, so that every byte of the file is
//! under some checksum. Numbers are little-endian; the properties are a postcard of [`Properties`].
//!
//! An open table keeps filter, index and properties in memory; a point read costs one block. Nothing is cached
//! here beyond that: the kernel's page cache does it.

mod ahead;
pub mod block;
mod cache;
mod cursor;
pub mod filter;
mod properties;
mod shelf;
mod writer;

use std::fmt;
use std::sync::Arc;

use disk::File;
use model::{Bytes, FamilyId, RowRange, Timestamp};

use self::ahead::Ahead;
pub use self::ahead::Purpose;
use self::block::Malformed;
pub use self::cache::{Cache, Stats};
pub use self::cursor::TableCursor;
pub use self::properties::{Deletes, Properties};
pub use self::shelf::{Pin, Shelf};
pub use self::writer::{Shape, Writer};
use crate::{Error, key};

const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"diptable";
const FOOTER: usize = 64;
const PLACE: usize = 8 + 4;
const _: () = assert!(FOOTER == 3 * PLACE + 12 + 4 + 4 + 8);

/// Where a sealed block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// An open table.
pub struct Table {
    file: Arc<dyn File>,
    path: String,
    /// Keeps the file from being removed, if it is one of a tablet's.
    pin: Option<Pin>,
    bytes: u64,
    filter: Bytes,
    /// Last key and place of each data block.
    index: Vec<(Bytes, Place)>,
    properties: Properties,
    /// Why it cannot be read at all: the parts that stay in memory are damaged.
    broken: Option<(u64, String)>,
    /// It shows only these rows of another one.
    part: Option<Arc<Part>>,
    cache: Arc<Cache>,
    /// Its number in the cache.
    cached_as: u64,
}

/// A part of a table: see [`Table::within`].
struct Part {
    whole: Arc<Table>,
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
        Table {
            file,
            path,
            pin,
            bytes,
            filter: Bytes::new(),
            index: Vec::new(),
            properties: Properties::default(),
            broken: Some((offset, why)),
            part: None,
            cache: Cache::none(),
            cached_as: 0,
        }
    }

    /// The rows of it that lie within `bounds`, as a table: the others in it belong to other tablets, and may be older than
    /// what those have of them.
    pub fn within(self: &Arc<Table>, bounds: &RowRange) -> Arc<Table> {
        let (whole, rows) = match &self.part {
            Some(part) => (&part.whole, part.rows.intersect(bounds)),
            None => (self, bounds.clone()),
        };
        let index = whole.blocks_within(&rows).to_vec();
        let bytes = index.iter().map(|(_, place)| u64::from(place.len)).sum();
        let (start, end) = (key::row_start(&rows.start), rows.end.as_ref().map(|end| key::row_start(end)));
        Arc::new(Table {
            file: whole.file.clone(),
            path: whole.path.clone(),
            pin: None,
            bytes,
            filter: whole.filter.clone(),
            index,
            properties: whole.properties.clone(),
            broken: whole.broken.clone(),
            part: Some(Arc::new(Part { whole: Arc::clone(whole), rows, start, end })),
            cache: whole.cache.clone(),
            cached_as: whole.cached_as,
        })
    }

    /// Why nothing of it can be read, if so.
    pub fn damage(&self) -> Option<Error> {
        self.broken.as_ref().map(|(offset, why)| Error::corrupt(&self.path, *offset, why))
    }

    /// Reads the parts that stay in memory, and checks them and that the parts fill the file.
    pub fn open(file: Arc<dyn File>, path: String, pin: Option<Pin>, cache: &Arc<Cache>) -> Result<Table, Error> {
        let bytes = file.len().map_err(|source| Error::io(&path, "measure", source))?;
        let corrupt = |offset, what: &str| Error::corrupt(&path, offset, what);
        let Some(footer_at) = bytes.checked_sub(FOOTER as u64) else {
            return Err(corrupt(0, "the file is too short for a table"));
        };
        let footer = read(&*file, &path, Place { offset: footer_at, len: FOOTER as u32 })?;
        if footer[56..] != MAGIC
            || block::crc(&[&footer[..52], &footer_at.to_le_bytes()]).to_le_bytes() != footer[52..56]
        {
            return Err(corrupt(footer_at, "the footer's checksum is wrong"));
        }
        let found = u32::from_le_bytes([footer[48], footer[49], footer[50], footer[51]]);
        if !(1..=VERSION).contains(&found) {
            return Err(Error::Version { file: path, found, known: VERSION });
        }
        let place = |at: usize| Place::from_bytes(&footer[at..at + PLACE]);
        let (Some(filter_at), Some(index_at), Some(properties_at)) = (place(0), place(12), place(24)) else {
            return Err(corrupt(footer_at, "the footer does not decode"));
        };
        let ends = [(filter_at, index_at.offset), (index_at, properties_at.offset), (properties_at, footer_at)];
        if ends.iter().any(|(place, next)| place.end() != Some(*next)) {
            return Err(corrupt(footer_at, "the parts do not fill the file"));
        }

        let payload = |place: Place| -> Result<Bytes, Error> {
            let sealed = read(&*file, &path, place)?;
            block::unseal(sealed, place.offset).map_err(|Malformed(what)| corrupt(place.offset, what))
        };
        let properties = payload(properties_at)?;
        let properties = match found {
            1 => Properties::from_v1(&properties),
            _ => postcard::from_bytes(&properties),
        };
        let properties = properties.map_err(|_| corrupt(properties_at.offset, "the properties do not decode"))?;
        let filter = payload(filter_at)?;
        let index = decode_index(payload(index_at)?, filter_at.offset)
            .map_err(|Malformed(what)| corrupt(index_at.offset, what))?;
        let (cache, cached_as) = (Arc::clone(cache), cache.number());
        Ok(Table { file, path, pin, bytes, filter, index, properties, broken: None, part: None, cache, cached_as })
    }

    /// What it is, as a whole.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the blocks that may have rows within `bounds`.
    pub fn bytes_within(&self, bounds: &RowRange) -> u64 {
        if *bounds == RowRange::default() {
            return self.bytes;
        }
        self.blocks_within(bounds).iter().map(|(_, place)| u64::from(place.len)).sum()
    }

    /// Has it rows outside of `bounds`, and are at most three quarters of its blocks within?
    pub(crate) fn is_mostly_foreign(&self, bounds: &RowRange) -> bool {
        let (first, last) = (&self.properties.first[..], &self.properties.last[..]);
        let outside = first < &key::row_start(&bounds.start)[..]
            || bounds.end.as_ref().is_some_and(|end| last >= &key::row_start(end)[..]);
        let blocks = self.index.last().and_then(|(_, place)| place.end()).unwrap_or(0);
        outside && self.broken.is_none() && self.bytes_within(bounds) <= blocks / 4 * 3
    }

    /// Appends a row of each block within `bounds`, with what the block weighs, and the first row of all.
    pub(crate) fn weigh(&self, bounds: &RowRange, weights: &mut Vec<(Bytes, u64)>) {
        let first = Some(&self.properties.first).filter(|key| self.shows(key)).and_then(|key| key::row_of(key));
        weights.extend(first.map(key::unescape).filter(|row| bounds.covers(row)).map(|row| (row, 0)));
        for (last, place) in self.blocks_within(bounds) {
            let row = key::row_of(last).filter(|_| self.shows(last)).map(key::unescape);
            let row = row.filter(|row| bounds.covers(row));
            weights.extend(row.map(|row| (row, u64::from(place.len))));
        }
    }

    /// Is the key in what it shows of its file?
    fn shows(&self, key: &[u8]) -> bool {
        self.part.as_ref().is_none_or(|part| part.covers(key))
    }

    fn blocks_within(&self, bounds: &RowRange) -> &[(Bytes, Place)] {
        let start = key::row_start(&bounds.start);
        let from = self.index.partition_point(|(last, _)| last[..] < start[..]);
        let upto = bounds.end.as_ref().map_or(self.index.len(), |end| {
            let end = key::row_start(end);
            if self.properties.first[..] >= end[..] {
                return from;
            }
            // The block in which the end lies belongs to both sides.
            (self.index.partition_point(|(last, _)| last[..] < end[..]) + 1).min(self.index.len())
        });
        &self.index[from..upto.max(from)]
    }

    /// The file's path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The file's number; 0 if it is not (yet) one of a tablet's.
    pub fn number(&self) -> u64 {
        self.pin.as_ref().map_or(0, Pin::number)
    }

    /// Whether it may have changes of the row with this escaped key and [`filter::hash`]; false is certain.
    pub fn may_hold(&self, escaped_row: &[u8], hash: u64) -> bool {
        if self.part.as_ref().is_some_and(|part| !part.covers(escaped_row)) {
            return false;
        }
        if self.broken.is_some() {
            return true;
        }
        let (first, last) = (&self.properties.first[..], &self.properties.last[..]);
        let after_first = escaped_row >= first || first.starts_with(escaped_row);
        after_first && escaped_row <= last && filter::may_hold(&self.filter, hash)
    }

    /// Whether a reader of this family must look at it: it may have keys of it, or delete rows. False is certain.
    pub fn may_hold_family(&self, family: FamilyId) -> bool {
        let families = self.properties.families.as_ref();
        let held = families.is_none_or(|families| families.binary_search(&family).is_ok());
        held || self.properties.deletes.rows > 0 || self.broken.is_some()
    }

    /// The least and the greatest timestamp of its cells, set or deleted; `None` if it has none, only larger deletions.
    pub fn timestamps(&self) -> Option<(Timestamp, Timestamp)> {
        match self.broken {
            Some(_) => Some((Timestamp(i64::MIN), Timestamp(i64::MAX))),
            None => self.properties.timestamps,
        }
    }

    /// Can its keys from `start` on and before `end` be read without the disk? By the time one reads, that may have changed.
    pub fn is_cached(&self, start: &[u8], end: &[u8]) -> bool {
        let first = self.find(start, 0);
        let last = self.find(end, first).min(self.index.len().saturating_sub(1));
        let mut places = self.index.get(first..=last).unwrap_or_default().iter().map(|(_, place)| place.offset);
        self.broken.is_none() && places.all(|offset| self.cache.has(self.cached_as, offset))
    }

    /// Whether it may have keys from `start` on and before `end`; false is certain.
    pub fn overlaps(&self, start: &[u8], end: Option<&[u8]>) -> bool {
        let apart = |part: &Arc<Part>| {
            end.is_some_and(|end| end <= &part.start[..]) || part.end.as_ref().is_some_and(|its| start >= &its[..])
        };
        if self.part.as_ref().is_some_and(apart) {
            return false;
        }
        let properties = &self.properties;
        let within = properties.last >= *start && end.is_none_or(|end| properties.first < *end);
        self.broken.is_some() || within
    }

    /// Reads up to `len` raw bytes for a peer, and checks every data block that they touch: damage must not travel. The
    /// peer checks the whole file once more when it has it.
    pub fn read_raw(&self, offset: u64, len: u32) -> Result<Bytes, Error> {
        if let Some(damage) = self.damage() {
            return Err(damage);
        }
        let left = self.bytes.saturating_sub(offset);
        let len = u64::from(len).min(left);
        let first = self.index.partition_point(|(_, place)| place.end().is_none_or(|end| end <= offset));
        for (_, place) in self.index[first..].iter().take_while(|(_, place)| place.offset < offset + len) {
            self.check(*place)?;
        }
        read(&*self.file, &self.path, Place { offset, len: len as u32 })
    }

    /// How many data blocks it has.
    pub fn blocks(&self) -> usize {
        self.index.len()
    }

    /// Reads the data block and checks it. Gives its length.
    pub fn check_block(&self, at: usize) -> Result<u64, Error> {
        match (self.damage(), self.index.get(at)) {
            (Some(damage), _) => Err(damage),
            (None, Some((_, place))) => self.check(*place).map(|()| u64::from(place.len)),
            (None, None) => Ok(0),
        }
    }

    /// Reads the parts that stay in memory once more, and checks that they are what they were. Gives their length.
    pub fn check_frame(&self) -> Result<u64, Error> {
        if let Some(part) = &self.part {
            return part.whole.check_frame();
        }
        if let Some(damage) = self.damage() {
            return Err(damage);
        }
        let again = Table::open(self.file.clone(), self.path.clone(), None, &Cache::none())?;
        let same = again.properties == self.properties && again.index == self.index && again.filter == self.filter;
        let data = self.index.last().and_then(|(_, place)| place.end()).unwrap_or(0);
        if same { Ok(self.bytes - data) } else { Err(Error::corrupt(&self.path, data, "the file is another one")) }
    }

    fn check(&self, place: Place) -> Result<(), Error> {
        let sealed = read(&*self.file, &self.path, place)?;
        let unsealed = block::unseal(sealed, place.offset);
        unsealed.map(|_| ()).map_err(|Malformed(what)| Error::corrupt(&self.path, place.offset, what))
    }

    /// Reads everything and checks it, down to the order of keys, the filter and the counts.
    pub fn verify(self: &Arc<Table>) -> Result<(), Error> {
        let corrupt = |what: &str| Error::corrupt(&self.path, 0, what);
        let (mut entries, mut deletions, mut rows) = (0, 0, 0);
        let mut last: Vec<u8> = Vec::new();
        let mut cursor = TableCursor::new(self.clone(), &[], Purpose::Background)?;
        while let Some(key) = cursor.key() {
            let parts = key::Parts::parse(key).ok_or_else(|| corrupt("a key does not decode"))?;
            if entries == 0 && key != &self.properties.first[..] {
                return Err(corrupt("the first key is not what the properties say"));
            }
            if entries > 0 && key <= &last[..] {
                return Err(corrupt("keys do not rise"));
            }
            if parts.seq.0 <= self.properties.after || parts.seq.0 > self.properties.upto {
                return Err(corrupt("a key is not of the table's time"));
            }
            if key::row_of(&last) != Some(parts.row) {
                rows += 1;
                if !filter::may_hold(&self.filter, filter::hash(parts.row)) {
                    return Err(corrupt("the filter denies a row"));
                }
            }
            entries += 1;
            deletions += u64::from(!matches!(parts.scope, key::Scope::Cell { sets: true, .. }));
            last.clear();
            last.extend_from_slice(key);
            cursor.advance()?;
        }
        let p = &self.properties;
        if (entries, deletions, rows, &last[..]) != (p.entries, p.deletions, p.rows, &p.last[..]) {
            return Err(corrupt("the entries are not those that the properties count"));
        }
        Ok(())
    }

    /// Number of the first block from `from` on that may have keys from `target` on.
    fn find(&self, target: &[u8], from: usize) -> usize {
        match self.index.get(from) {
            Some((last, _)) if last[..] < *target => {
                from + 1 + self.index[from + 1..].partition_point(|(last, _)| last[..] < *target)
            }
            _ => from,
        }
    }

    /// Has this block, and those before it, only keys below `target`?
    fn ends_below(&self, at: usize, target: &[u8]) -> bool {
        self.index[at].0[..] < *target
    }

    /// The payload of a block.
    fn block(&self, at: usize, purpose: Purpose, ahead: &mut Ahead) -> Result<Bytes, Error> {
        let place = self.index[at].1;
        let serves = purpose == Purpose::Serve;
        if serves && let Some(payload) = self.cache.get(self.cached_as, place.offset) {
            ahead.pass(place);
            return Ok(payload);
        }
        let limit = self.index.last().and_then(|(_, place)| place.end()).unwrap_or(0);
        let sealed = ahead.read((&*self.file, &self.path), place, limit, purpose)?;
        let payload = block::unseal(sealed, place.offset).map_err(|malformed| self.corrupt(at, malformed))?;
        if serves {
            self.cache.insert(self.cached_as, place.offset, &payload);
        }
        Ok(payload)
    }

    fn corrupt(&self, block: usize, Malformed(what): Malformed) -> Error {
        Error::corrupt(&self.path, self.index[block].1.offset, what)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({}, {} bytes, {} to {})", self.path, self.bytes, self.properties.after, self.properties.upto)
    }
}

fn decode_index(payload: Bytes, data_end: u64) -> Result<Vec<(Bytes, Place)>, Malformed> {
    let mut index = Vec::new();
    let mut end = 0;
    let mut cursor = block::Cursor::new(payload)?;
    while let Some(key) = cursor.key() {
        let place = Place::from_bytes(&cursor.value()).ok_or(Malformed("an index entry does not decode"))?;
        if place.offset != end || place.len == 0 {
            return Err(Malformed("the data blocks do not fill the file"));
        }
        end = place.end().ok_or(Malformed("a data block lies beyond the file"))?;
        index.push((Bytes::copy_from_slice(key), place));
        cursor.advance()?;
    }
    if end != data_end {
        return Err(Malformed("the data blocks do not fill the file"));
    }
    Ok(index)
}

/// Reads a place that must be in the file.
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
