//! What a crash left of the log: reads it from the oldest segment on, as far as it is whole, and repairs the end.
//!
//! ```text
//!   valid ─ valid ─ valid ─ ✗ hole ─ ? ─ ? ─ 0 0 0 …
//!                             └─ is there anywhere behind it a valid header that says `synced` > hole?
//!                                no:  a torn tail; nobody was told that it is durable. Cut.
//!                                yes: the hole was on the disk once. Damage: refuse.
//! ```
//!
//! The last batch alone has no witness behind it: should the disk lose it after it was synced, that looks like a tear.
//!
//! What is cut is zeroed, and what remains is written and synced once more before anything is appended: records that
//! were only in the kernel's memory, perhaps after a failed sync, become durable before anyone relies on them.

use std::sync::Arc;

use bytes::Bytes;
use disk::Disk;

use super::format::{self, Header, Place, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader};
use super::index::Index;
use super::reader::{Segment, Window};
use super::{Kind, Options};
use crate::Error;

/// What is read at a time.
const CHUNK: usize = 1 << 20;

/// The log as it goes on.
pub struct Recovery {
    pub index: Index,
    pub current: Arc<Segment>,
    pub end: Place,
    pub notes: Vec<String>,
}

/// Opens the log in `dir`, or begins it.
pub fn recover(disk: &dyn Disk, dir: &str, options: Options) -> Result<Recovery, Error> {
    disk.create_dir(dir).map_err(|error| Error::io(dir, "create", error))?;
    let parent = dir.rsplit_once('/').map_or("", |(parent, _)| parent);
    disk.sync_dir(parent).map_err(|error| Error::io(parent, "sync", error))?;

    let mut segments = open_segments(disk, dir)?;
    let mut notes = Vec::new();
    let mut replay = Replay::default();
    let mut before = None;
    for segment in &segments {
        if !replay.segment(segment, before)? {
            break;
        }
        before = Some(segment);
    }
    let hole = replay.end;
    let begun = segments.partition_point(|segment| segment.number <= hole.segment);
    refuse_damage(&segments, begun, hole)?;

    // Newest first and one by one, so that no crash leaves a gap in the numbers.
    for segment in segments.drain(begun..).rev() {
        if let Some(last) = rest(&segment, 0, Place::default())?.last_byte {
            notes.push(format!("removed {}, of which only {} bytes were written", segment.name, last + 1));
        }
        disk.remove(&segment.name).map_err(|error| Error::io(&segment.name, "remove", error))?;
        disk.sync_dir(dir).map_err(|error| Error::io(dir, "sync", error))?;
    }
    let segments: Vec<Arc<Segment>> = segments.into_iter().map(Arc::new).collect();
    for segment in &segments {
        replay.index.add(segment.clone());
    }
    let (current, end) = match segments.last() {
        Some(current) => {
            notes.extend(cut(current, hole.offset)?);
            harden(current, replay.durable, hole.offset)?;
            (current.clone(), hole)
        }
        None => begin(disk, dir, options, &mut replay.index)?,
    };
    Ok(Recovery { index: replay.index, current, end, notes })
}

/// All segment files by number. Other files in the folder are none of ours.
fn open_segments(disk: &dyn Disk, dir: &str) -> Result<Vec<Segment>, Error> {
    let names = disk.list(dir).map_err(|error| Error::io(dir, "list", error))?;
    let number = |name: &String| name.strip_suffix(".log").filter(|digits| digits.len() == 8)?.parse().ok();
    let mut segments: Vec<Segment> = Vec::new();
    // Eight digits sort as the numbers do.
    for number in names.iter().filter_map(number) {
        if let Some(before) = segments.last()
            && before.number + 1 != number
        {
            let missing = Segment::name(dir, before.number + 1);
            return Err(Error::corrupt(missing, 0, format!("the file is missing, but {number:08}.log is there")));
        }
        let name = Segment::name(dir, number);
        let opened = disk.open(&name).and_then(|file| file.len().map(|len| (file, len)));
        let (file, len) = opened.map_err(|error| Error::io(&name, "open", error))?;
        // A place has 32 bits for the offset; we never write a longer one.
        let len = len.min(u64::from(u32::MAX));
        segments.push(Segment { number, name, file, len });
    }
    Ok(segments)
}

/// What has been read so far, from the oldest segment on.
#[derive(Default)]
struct Replay {
    index: Index,
    /// Where the valid records end.
    end: Place,
    /// What the valid records say was durable when they were written.
    durable: Place,
}

impl Replay {
    /// Reads one segment, the one after `before`; false if it has not been begun.
    fn segment(&mut self, segment: &Segment, before: Option<&Segment>) -> Result<bool, Error> {
        let mut window = Window::new(segment, CHUNK);
        let (previous, carried) = match window.segment_header()? {
            SegmentHeader::Begun { previous, carried } => (previous, carried),
            SegmentHeader::Invalid => return Ok(false),
            SegmentHeader::Newer { version } => {
                return Err(Error::Version { file: segment.name.clone(), found: version, known: format::VERSION });
            }
        };
        if let Some(before) = before
            && previous != self.end
        {
            let what = format!("no valid record is here, but records were synced up to {}", previous.offset);
            return Err(Error::corrupt(&before.name, u64::from(self.end.offset), what));
        }
        let (mut end, mut durable) = (segment.place(SEGMENT_HEADER as u32), previous);
        while let Some((mut header, body)) = window.record(end.offset)? {
            if header.record.kind == Kind::State {
                header.record.body = Bytes::copy_from_slice(body);
            }
            self.index.note(&header.record, end);
            durable = durable.max(header.synced);
            end = end.plus(RECORD_HEADER + header.padded_len());
        }
        // What is carried only repeats what the index knows, so a part of it has changed nothing.
        let begun = end.offset - SEGMENT_HEADER as u32 >= carried;
        if begun {
            (self.end, self.durable) = (end, durable);
        }
        Ok(begun)
    }
}

/// Fails if anything behind `hole` shows that the hole was synced once. The first `begun` segments have been begun.
fn refuse_damage(segments: &[Segment], begun: usize, hole: Place) -> Result<(), Error> {
    let Some(last) = begun.checked_sub(1).map(|at| &segments[at]) else {
        // Only segment 1 can be torn while nothing stands before it: the others' predecessors are removed later.
        return match segments.first() {
            Some(first) if first.number != 1 || behind(segments, hole)? => {
                Err(Error::corrupt(&first.name, 0, "the segment does not begin as it should"))
            }
            _ => Ok(()),
        };
    };
    let tail = rest(last, hole.offset, hole)?;
    if !tail.evidence && !behind(&segments[begun..], hole)? {
        return Ok(());
    }
    match segments.get(begun) {
        Some(next) if tail.last_byte.is_none() => Err(Error::corrupt(
            &next.name,
            0,
            "the segment does not begin as it should, but records after it were synced",
        )),
        _ => {
            let what = "no valid record is here, but one was synced: a later record says so";
            Err(Error::corrupt(&last.name, u64::from(hole.offset), what))
        }
    }
}

/// Whether anything in these whole segments shows that `hole` was synced once.
fn behind(segments: &[Segment], hole: Place) -> Result<bool, Error> {
    for segment in segments {
        let header = Window::new(segment, SEGMENT_HEADER).segment_header()?;
        if matches!(header, SegmentHeader::Begun { previous, .. } if previous > hole)
            || rest(segment, 0, hole)?.evidence
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What is in a segment after its valid records.
struct Rest {
    /// Offset of the last byte that is not zero.
    last_byte: Option<u64>,
    /// There is a valid header of a record that was written when `hole` had been synced.
    evidence: bool,
}

fn rest(segment: &Segment, from: u32, hole: Place) -> Result<Rest, Error> {
    let mut rest = Rest { last_byte: None, evidence: false };
    let mut window = Window::new(segment, 0);
    let mut offset = u64::from(from);
    while offset < segment.len {
        // A header may reach over the end of the chunk.
        let bytes = window.get(offset, CHUNK + RECORD_HEADER)?;
        if bytes.is_empty() {
            break;
        }
        let chunk = &bytes[..bytes.len().min(CHUNK)];
        if let Some(last) = chunk.iter().rposition(|byte| *byte != 0) {
            rest.last_byte = Some(offset + last as u64);
            for at in (0..=last).step_by(8) {
                let place = segment.place((offset + at as u64) as u32);
                let header = Header::decode(&bytes[at..], place);
                rest.evidence |= header.is_some_and(|header| header.synced > hole);
            }
        }
        offset += chunk.len() as u64;
    }
    Ok(rest)
}

/// Zeroes what is after `end`, so that nothing of it is ever found behind records that are yet to come.
fn cut(segment: &Segment, end: u32) -> Result<Option<String>, Error> {
    let Some(last) = rest(segment, end, Place::default())?.last_byte else { return Ok(None) };
    let mut offset = u64::from(end);
    while offset <= last {
        let zeros = vec![0; CHUNK.min((last + 1 - offset) as usize)];
        segment.file.write_at(offset, &zeros).map_err(|error| Error::io(&segment.name, "write", error))?;
        offset += zeros.len() as u64;
    }
    let bytes = last + 1 - u64::from(end);
    Ok(Some(format!("cut a torn tail of {bytes} bytes at {} offset {end}", segment.name)))
}

/// Writes once more what no record says is durable, and syncs.
fn harden(segment: &Segment, durable: Place, end: u32) -> Result<(), Error> {
    let mut window = Window::new(segment, CHUNK);
    let mut offset = u64::from(if durable.segment == segment.number { durable.offset } else { 0 });
    while offset < u64::from(end) {
        let piece = window.get(offset, CHUNK.min((u64::from(end) - offset) as usize))?;
        if piece.is_empty() {
            return Err(Error::corrupt(&segment.name, offset, "the file has become shorter while it was read"));
        }
        segment.file.write_at(offset, piece).map_err(|error| Error::io(&segment.name, "write", error))?;
        offset += piece.len() as u64;
    }
    segment.file.sync().map_err(|error| Error::io(&segment.name, "sync", error))
}

/// The first segment of a new log.
fn begin(disk: &dyn Disk, dir: &str, options: Options, index: &mut Index) -> Result<(Arc<Segment>, Place), Error> {
    let mut header = Vec::new();
    format::encode_segment_header(1, 0, Place::default(), &mut header);
    let first = Arc::new(Segment::create(disk, dir, 1, options.segment_bytes.max(header.len() as u64))?);
    let written = first.file.write_at(0, &header).and_then(|()| first.file.sync());
    written.map_err(|error| Error::io(&first.name, "write", error))?;
    index.add(first.clone());
    Ok((first.clone(), first.place(SEGMENT_HEADER as u32)))
}
