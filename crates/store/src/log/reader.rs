//! Reading the log back: for catch-up while the writer goes on, and at recovery.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use model::{Lsn, TabletId};
use parking_lot::RwLock;

use super::Record;
use super::format::{self, Header, Place, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader};
use super::index::{Index, Shelf};
use super::segment::Segment;
use crate::Error;

/// What is read ahead of a record, since the next one is often near.
const AHEAD: usize = 32 << 10;

/// Records are at least so long, as far as reading ahead goes.
const LIKELY: u32 = 512;

/// Entries that are in one segment.
type Wanted = (Arc<Segment>, Vec<(Lsn, Place)>);

/// Reads entries while the writer goes on. The lock is held to look places up, never while the disk works.
#[derive(Clone)]
pub struct LogReader {
    index: Arc<RwLock<Index>>,
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogReader({} bytes)", self.index.read().bytes())
    }
}

impl LogReader {
    pub(super) fn new(index: Arc<RwLock<Index>>) -> LogReader {
        LogReader { index }
    }

    pub(super) fn index(&self) -> &RwLock<Index> {
        &self.index
    }

    /// The first segment in use from this number on, and the one after it.
    pub(super) fn segment_from(&self, number: u32) -> Option<(Arc<Segment>, Option<Arc<Segment>>)> {
        let index = self.index.read();
        let mut segments = index.segments_from(number);
        segments.next().map(|first| (first, segments.next()))
    }

    /// Is there an entry at this place or behind it in its segment, as far as is known?
    pub(super) fn has_entry_from(&self, place: Place) -> bool {
        self.index.read().has_entry_from(place)
    }

    /// Oldest entry that is held.
    pub fn first(&self, tablet: TabletId) -> Option<Lsn> {
        self.index.read().shelf(tablet).and_then(Shelf::first)
    }

    /// Newest entry, even if it has been trimmed; `ZERO` if there never was one.
    pub fn last(&self, tablet: TabletId) -> Lsn {
        self.index.read().shelf(tablet).map_or(Lsn::ZERO, Shelf::last)
    }

    /// How far back the tablet's newest entry is, to compare with others: later ones are greater. Nothing if none is held.
    pub fn newest(&self, tablet: TabletId) -> Option<u64> {
        self.index.read().shelf(tablet).and_then(Shelf::newest).map(Place::to_u64)
    }

    /// Tablets with entries after these floors in the oldest segments, in so many of these that without them the log would
    /// have no more than `most` bytes. Those of the oldest segment come first.
    pub fn pinning(&self, floors: &BTreeMap<TabletId, Lsn>, most: u64) -> Vec<TabletId> {
        self.index.read().pinning(floors, most)
    }

    /// Dense entries from `from` on, at least one and then as many as fit into `max_bytes` with their headers. Each is
    /// checked again. Nothing if `from` is past the end; [`Error::Trimmed`] if it is not held any more.
    pub fn read(&self, tablet: TabletId, from: Lsn, max_bytes: usize) -> Result<Vec<Record>, Error> {
        let wanted = self.find(tablet, from, max_bytes / RECORD_HEADER + 1)?;
        let mut records = Vec::new();
        let mut left = max_bytes;
        for (segment, places) in wanted {
            let mut window = Window::new(&segment, 0);
            let mut likely = LIKELY;
            for (at, &(lsn, place)) in places.iter().enumerate() {
                // Others' records may lie between: then no more is read than this one is likely to have.
                let near = places.get(at + 1).is_none_or(|(_, next)| next.offset - place.offset <= 2 * likely);
                window.ahead = if near { AHEAD } else { likely as usize };
                let (header, body) = match window.record(place.offset)? {
                    Some((header, body)) if header.record.tablet == tablet && header.record.lsn == lsn => {
                        (header, body)
                    }
                    _ => {
                        let what = format!("the entry {lsn} of {tablet} is not what was written");
                        return Err(Error::corrupt(&segment.name, u64::from(place.offset), what));
                    }
                };
                likely = header.whole_len().clamp(LIKELY, AHEAD as u32);
                let cost = RECORD_HEADER + body.len();
                if cost > left && !records.is_empty() {
                    return Ok(records);
                }
                left = left.saturating_sub(cost);
                records.push(Record { body: Bytes::copy_from_slice(body), ..header.record });
            }
        }
        Ok(records)
    }

    /// Places of at most `count` entries, by segment. The segments stay readable even if they are removed meanwhile.
    fn find(&self, tablet: TabletId, from: Lsn, count: usize) -> Result<Vec<Wanted>, Error> {
        let index = self.index.read();
        let Some(shelf) = index.shelf(tablet) else { return Ok(Vec::new()) };
        if shelf.lacks(from) {
            return Err(Error::Trimmed { tablet, from, first: shelf.first() });
        }
        let mut found: Vec<Wanted> = Vec::new();
        for (lsn, place) in shelf.places_from(from).take(count) {
            match found.last_mut() {
                Some((segment, places)) if segment.number == place.segment => places.push((lsn, place)),
                _ => found.push((index.segment(place.segment), vec![(lsn, place)])),
            }
        }
        Ok(found)
    }
}

/// A part of a segment in memory, moved along as it is read.
pub struct Window<'a> {
    segment: &'a Segment,
    ahead: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub fn new(segment: &'a Segment, ahead: usize) -> Window<'a> {
        Window { segment, ahead, start: 0, bytes: Vec::new() }
    }

    /// `len` bytes at `offset`, or fewer where the segment ends.
    pub fn get(&mut self, offset: u64, len: usize) -> Result<&[u8], Error> {
        let left = usize::try_from(self.segment.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left);
        if offset < self.start || offset + len as u64 > self.start + self.bytes.len() as u64 {
            self.bytes.resize(len.max(self.ahead).min(left), 0);
            let read = self.segment.file.read_at(offset, &mut self.bytes);
            self.bytes.truncate(read.map_err(|error| Error::io(&self.segment.name, "read", error))?);
            self.start = offset;
        }
        let at = (offset - self.start) as usize;
        Ok(&self.bytes[at..(at + len).min(self.bytes.len())])
    }

    pub fn segment_header(&mut self) -> Result<SegmentHeader, Error> {
        let number = self.segment.number;
        Ok(format::decode_segment_header(self.get(0, SEGMENT_HEADER)?, number))
    }

    /// The record at `offset` and its body, if a valid one is there.
    pub fn record(&mut self, offset: u32) -> Result<Option<(Header, &[u8])>, Error> {
        let place = self.segment.place(offset);
        let Some(header) = Header::decode(self.get(u64::from(offset), RECORD_HEADER)?, place) else { return Ok(None) };
        let padded = self.get(u64::from(offset) + RECORD_HEADER as u64, header.padded_len())?;
        Ok(header.body(padded).map(|body| (header, body)))
    }
}
