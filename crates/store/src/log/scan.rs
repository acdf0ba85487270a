//! Reads one segment, knowing nothing of the others but where the next one says that this one ended. So segments can be
//! read at the same time; what their records mean together, [`super::recovery`] finds out in their order.
//!
//! Behind the records there is nothing (zeros), what a torn write has left, or, in a file that is used again, what the
//! file held when it had lower numbers. So "not zero" shows nothing; what shows something is a valid header, which is one
//! at its own place in a segment of this number only.
//!
//! Stretches that the disk refuses to read, three times in a row, count as changed: they read as zeros and are damage
//! where a record would have to be, since no crash makes a disk refuse.

use bytes::Bytes;

use super::Kind;
use super::format::{self, Header, Place, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader};
use super::segment::Segment;
use crate::Error;
use crate::error::again_if_unreadable;

/// What is read at a time.
pub const CHUNK: usize = 1 << 20;
/// What is given up at a time where the disk refuses to read.
const SCRAP: usize = 4 << 10;
/// After so many the rest of a chunk is given up at once.
const SCRAPS: usize = 16;

/// Where a segment's records end.
#[derive(Clone, Copy)]
pub enum Until {
    /// Here, says the next segment.
    Offset(u32),
    /// There is a next segment, which does not say: behind the last record that can be found.
    Next,
    /// It is the last one: where nothing that follows shows that anything was synced.
    NoWitness,
}

/// What was found in a segment, in its order.
pub enum Item {
    Record {
        at: u32,
        header: Header,
    },
    /// Records are damaged from here to there.
    Hole(u32, u32),
}

/// A segment as it was read.
pub struct Scan {
    pub items: Vec<Item>,
    /// Where the records end.
    pub end: u32,
}

/// Reads all records of a segment of which the header has been read, over whatever is damaged, as that perhaps is.
pub fn scan(segment: &Segment, mut damaged: bool, until: Until) -> Result<Scan, Error> {
    let mut view = View::new(segment, CHUNK);
    let mut at = SEGMENT_HEADER as u32;
    let mut items = Vec::new();
    // From the first place on that is no valid record.
    let mut rest = None;
    while !matches!(until, Until::Offset(end) if at >= end) {
        if let Some((mut header, body)) = view.record(at)? {
            if matches!(header.record.kind, Kind::State | Kind::Lost) {
                header.record.body = Bytes::copy_from_slice(body);
            }
            let next = at + header.whole_len();
            items.push(Item::Record { at, header });
            at = next;
            continue;
        }
        let stop = match until {
            Until::Offset(end) => Some(end),
            _ => {
                // That it cannot be read shows that something was there.
                let refused = view.refuses(at)?.then_some(at + RECORD_HEADER as u32);
                let rest = match &rest {
                    Some(rest) => rest,
                    None => rest.insert(survey(segment, at)?),
                };
                let shown = refused.is_some() || rest.synced > segment.place(at) || matches!(until, Until::Next);
                // What shows an earlier hole may be here. It has to stay, or the next start would take that for a tear.
                let shown = shown || damaged;
                rest.end.filter(|end| *end > at).max(refused).filter(|_| shown)
            }
        };
        let Some(stop) = stop else { break };
        damaged = true;
        match view.next_record(at, stop)? {
            Some(next) => {
                items.push(Item::Hole(at, next));
                at = next;
            }
            None => {
                // It stays a hole, with what comes later behind it: a start that forgets it would take it for a tear.
                items.push(Item::Hole(at, stop));
                at = stop;
                break;
            }
        }
    }
    Ok(Scan { items, end: at })
}

/// Whether the segment has been begun: `carried` bytes of records follow its header, or that cannot be read.
pub fn carried_whole(segment: &Segment, carried: u32) -> Result<bool, Error> {
    let (mut view, mut end) = (View::new(segment, CHUNK), SEGMENT_HEADER as u32);
    while end - (SEGMENT_HEADER as u32) < carried
        && let Some((header, _)) = view.record(end)?
    {
        end += header.whole_len();
    }
    Ok(end - SEGMENT_HEADER as u32 >= carried || view.refuses(end)?)
}

/// What the segment's first bytes say; nothing valid if they cannot be read, and then that.
pub fn segment_header(segment: &Segment) -> Result<(SegmentHeader, bool), Error> {
    let mut view = View::new(segment, SEGMENT_HEADER);
    let header = format::decode_segment_header(view.get(0, SEGMENT_HEADER)?, segment.number);
    Ok((header, !view.refused.is_empty()))
}

/// What is in a segment from some offset on.
#[derive(Default)]
pub struct Survey {
    /// Where the last record ends of which the header is valid.
    pub end: Option<u32>,
    /// The highest place that a valid header says was synced. It was written behind that place.
    pub synced: Place,
    /// Offset of the last byte that is not zero.
    pub last_byte: Option<u64>,
}

/// Looks for valid headers at every place.
pub fn survey(segment: &Segment, from: u32) -> Result<Survey, Error> {
    let mut found = Survey::default();
    let mut view = View::new(segment, 0);
    let mut offset = u64::from(from);
    while offset < segment.len {
        // A header may reach over the end of the chunk.
        let bytes = view.get(offset, CHUNK + RECORD_HEADER)?;
        if bytes.is_empty() {
            break;
        }
        let chunk = &bytes[..bytes.len().min(CHUNK)];
        if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
            found.last_byte = Some(offset + last as u64);
            for at in (0..=last).step_by(8) {
                let place = segment.place((offset + at as u64) as u32);
                if let Some(header) = Header::decode(&bytes[at..], place) {
                    let end = u64::from(place.offset) + u64::from(header.whole_len());
                    found.end = Some(end.min(segment.len) as u32);
                    found.synced = found.synced.max(header.synced);
                }
            }
        }
        offset += chunk.len() as u64;
    }
    Ok(found)
}

/// Writes a stretch once more as it was read; what cannot be read stays as it is.
pub fn rewrite(segment: &Segment, from: u32, to: u32) -> Result<(), Error> {
    let mut view = View::new(segment, CHUNK);
    let mut offset = u64::from(from);
    while offset < u64::from(to) {
        let piece = view.get(offset, CHUNK.min((u64::from(to) - offset) as usize))?;
        if piece.is_empty() {
            return Err(Error::corrupt(&segment.name, offset, "the file has become shorter while it was read"));
        }
        let (len, piece) = (piece.len() as u64, piece.to_vec());
        let mut at = offset;
        let gaps = std::mem::take(&mut view.refused);
        for (start, end) in gaps.into_iter().chain([(offset + len, offset + len)]) {
            let start = start.clamp(at, offset + len);
            let bytes = &piece[(at - offset) as usize..(start - offset) as usize];
            segment.file.write_at(at, bytes).map_err(|error| Error::io(&segment.name, "write", error))?;
            at = end.clamp(start, offset + len);
        }
        offset += len;
    }
    Ok(())
}

/// A part of a segment in memory, in which nothing stands where the disk refuses to read.
struct View<'a> {
    segment: &'a Segment,
    ahead: usize,
    start: u64,
    bytes: Vec<u8>,
    /// Where nothing could be read: start and end, rising.
    refused: Vec<(u64, u64)>,
}

impl<'a> View<'a> {
    fn new(segment: &'a Segment, ahead: usize) -> View<'a> {
        View { segment, ahead, start: 0, bytes: Vec::new(), refused: Vec::new() }
    }

    /// `len` bytes at `offset`, or fewer where the segment ends.
    fn get(&mut self, offset: u64, len: usize) -> Result<&[u8], Error> {
        let left = usize::try_from(self.segment.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left);
        if offset < self.start || offset + len as u64 > self.start + self.bytes.len() as u64 {
            self.bytes.resize(len.max(self.ahead).min(left), 0);
            self.start = offset;
            self.read()?;
        }
        let at = (offset - self.start) as usize;
        Ok(&self.bytes[at..(at + len).min(self.bytes.len())])
    }

    fn read(&mut self) -> Result<(), Error> {
        let Segment { name, file, .. } = self.segment;
        match file.read_at(self.start, &mut self.bytes) {
            Ok(read) => {
                self.bytes.truncate(read);
                return Ok(());
            }
            Err(error) if !is_eio(&error) => return Err(Error::io(name, "read", error)),
            Err(_) => {}
        }
        let mut offset = self.start;
        let mut given_up = 0;
        for scrap in self.bytes.chunks_mut(SCRAP) {
            let read =
                || again_if_unreadable(|| file.read_at(offset, scrap).map_err(|error| Error::io(name, "read", error)));
            // A disk may take seconds for each.
            match (given_up < SCRAPS).then(read) {
                Some(Ok(read)) => scrap[read..].fill(0),
                Some(Err(Error::Io { source, .. })) if !is_eio(&source) => {
                    return Err(Error::io(name, "read", source));
                }
                _ => {
                    given_up += 1;
                    scrap.fill(0);
                    self.refused.push((offset, offset + scrap.len() as u64));
                }
            }
            offset += scrap.len() as u64;
        }
        Ok(())
    }

    /// The record at `offset` and its body, if a valid one is there.
    fn record(&mut self, offset: u32) -> Result<Option<(Header, &[u8])>, Error> {
        let place = self.segment.place(offset);
        let Some(header) = Header::decode(self.get(u64::from(offset), RECORD_HEADER)?, place) else { return Ok(None) };
        let padded = self.get(u64::from(offset) + RECORD_HEADER as u64, header.padded_len())?;
        Ok(header.body(padded).map(|body| (header, body)))
    }

    /// Whether a part of what is no valid record at `offset` cannot be read.
    fn refuses(&mut self, offset: u32) -> Result<bool, Error> {
        let place = self.segment.place(offset);
        let header = Header::decode(self.get(u64::from(offset), RECORD_HEADER)?, place);
        let len = header.map_or(RECORD_HEADER as u32, |header| header.whole_len());
        let (from, to) = (u64::from(offset), u64::from(offset) + u64::from(len));
        Ok(self.refused.iter().any(|&(start, end)| start < to && from < end))
    }

    /// Where the next valid record begins, after `from` and before `stop`.
    fn next_record(&mut self, from: u32, stop: u32) -> Result<Option<u32>, Error> {
        // Where the next segment says that this one ended may be anywhere.
        let stop = stop.min(u32::try_from(self.segment.len).unwrap_or(u32::MAX));
        for at in (from.next_multiple_of(8).max(from + 8)..stop).step_by(8) {
            let place = self.segment.place(at);
            let header = Header::decode(self.get(u64::from(at), RECORD_HEADER)?, place);
            if header.is_some() && self.record(at)?.is_some() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

fn is_eio(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(5)
}
