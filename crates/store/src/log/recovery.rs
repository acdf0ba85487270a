//! What a crash left of the log: reads it from the oldest segment on, and repairs the end.
//!
//! ```text
//!   valid ─ valid ─ valid ─ ✗ hole ─ ? ─ ? ─ 0 0 0 …
//!                             └─ is there anywhere behind it a valid header that says `synced` > hole?
//!                                no:  a torn tail; nobody was told that it is durable. Cut.
//!                                yes: the hole was on the disk once. Damage: go on behind it, and say whose it was.
//! ```
//!
//! Whose it was, the chains tell: a tablet whose next record follows one that is not there has lost something in the hole,
//! and so may have a tablet of which no record comes any more. All others are sound. The next segment begins with the
//! state of every tablet and with where its entries end, so a hole before it leaves only entries in doubt.
//!
//! The last batch alone has no witness behind it, unless there was time to write a mark ([`super::Log::mark`]): should
//! the disk lose it after it was synced, that looks like a tear.
//!
//! What is cut is zeroed, and what remains is written and synced once more before anything is appended: records that
//! were only in the kernel's memory, perhaps after a failed sync, become durable before anyone relies on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use disk::Disk;
use model::TabletId;

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
    /// The sum of each tablet's last record.
    pub chains: BTreeMap<TabletId, u32>,
    pub current: Arc<Segment>,
    pub end: Place,
    /// There may have been tablets of which nothing is left.
    pub forgot: bool,
    pub notes: Vec<String>,
}

/// Opens the log in `dir`, or begins it.
pub fn recover(disk: &dyn Disk, dir: &str, options: Options) -> Result<Recovery, Error> {
    disk.create_dir(dir).map_err(|error| Error::io(dir, "create", error))?;
    let parent = dir.rsplit_once('/').map_or("", |(parent, _)| parent);
    disk.sync_dir(parent).map_err(|error| Error::io(parent, "sync", error))?;

    let mut segments = open_segments(disk, dir)?;
    let mut notes = Vec::new();
    let replay = replay(&segments)?;
    notes.extend(replay.holes.iter().map(|hole| format!("damaged: {hole}")));
    let Replay { mut index, chains, end, durable, begun, forgot, .. } = replay;

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
        index.add(segment.clone());
    }
    let (current, end) = match segments.last() {
        Some(current) => {
            notes.extend(cut(current, end.offset)?);
            harden(current, durable, end.offset)?;
            (current.clone(), end)
        }
        None => begin(disk, dir, options, &mut index)?,
    };
    Ok(Recovery { index, chains, current, end, forgot, notes })
}

/// Reads all segments that were begun, over whatever is damaged in them. Changes nothing.
pub fn replay(segments: &[Segment]) -> Result<Replay, Error> {
    let mut headers = Vec::new();
    for segment in segments {
        match Window::new(segment, SEGMENT_HEADER).segment_header()? {
            SegmentHeader::Other { version } => {
                return Err(Error::Version { file: segment.name.clone(), found: version, known: format::VERSION });
            }
            header => headers.push(header),
        }
    }
    let begun = begun(segments, &headers)?;
    let mut replay = Replay { begun, ..Replay::default() };
    for at in 0..begun {
        // Where it ended, if the next one says so.
        let until = match headers.get(at + 1).filter(|_| at + 1 < begun) {
            Some(SegmentHeader::Begun { previous, .. }) if previous.segment == segments[at].number => {
                Until::Offset(previous.offset)
            }
            Some(_) => Until::Zeros,
            None => Until::NoWitness,
        };
        replay.segment(&segments[at], &headers[at], until)?;
    }
    replay.conclude();
    Ok(replay)
}

/// How many of the segments have been begun: all but those at the end of which no more than the beginning was written,
/// and never synced.
fn begun(segments: &[Segment], headers: &[SegmentHeader]) -> Result<usize, Error> {
    for (at, segment) in segments.iter().enumerate().rev() {
        // Some record in it says that something of it was synced.
        if rest(segment, 0, segment.place(0))?.evidence {
            return Ok(at + 1);
        }
        if let SegmentHeader::Begun { carried, .. } = headers[at]
            && carried_whole(segment, carried)?
        {
            return Ok(at + 1);
        }
        // Only segment 1 has no segment before it while it is torn: the others' predecessors are removed later.
        if at == 0 && segment.number != 1 {
            return Ok(1);
        }
    }
    Ok(0)
}

fn carried_whole(segment: &Segment, carried: u32) -> Result<bool, Error> {
    let (mut window, mut end) = (Window::new(segment, CHUNK), SEGMENT_HEADER as u32);
    while end - (SEGMENT_HEADER as u32) < carried
        && let Some((header, _)) = window.record(end)?
    {
        end += (RECORD_HEADER + header.padded_len()) as u32;
    }
    Ok(end - SEGMENT_HEADER as u32 >= carried)
}

/// All segment files by number. Other files in the folder are none of ours.
pub fn open_segments(disk: &dyn Disk, dir: &str) -> Result<Vec<Segment>, Error> {
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

/// Where a segment's records end.
#[derive(Clone, Copy)]
enum Until {
    /// Here, says the next segment.
    Offset(u32),
    /// There is a next segment, which does not say: where only zeros follow.
    Zeros,
    /// It is the last one: where nothing that follows shows that anything was synced.
    NoWitness,
}

/// What has been read so far, from the oldest segment on.
#[derive(Default)]
pub struct Replay {
    pub index: Index,
    pub chains: BTreeMap<TabletId, u32>,
    /// Segments that have been begun.
    pub begun: usize,
    /// Where the valid records end.
    pub end: Place,
    /// What the valid records say was durable when they were written.
    pub durable: Place,
    /// Damaged stretches, for people.
    pub holes: Vec<String>,
    /// Tablets that have had no record since a hole, which may have lost something in it.
    suspects: BTreeSet<TabletId>,
    /// Since the last hole no segment has said which tablets there are.
    pub forgot: bool,
    /// Valid records.
    pub records: u64,
}

impl Replay {
    fn segment(&mut self, segment: &Segment, header: &SegmentHeader, until: Until) -> Result<(), Error> {
        let mut window = Window::new(segment, CHUNK);
        let mut at = SEGMENT_HEADER as u32;
        let mut carry = None;
        match header {
            SegmentHeader::Begun { previous, carried } => {
                self.durable = self.durable.max(*previous);
                carry = Some((at + carried, BTreeSet::new()));
            }
            _ => self.hole(segment, 0, at),
        }
        loop {
            if let Some((whole, listed)) = carry.take_if(|(whole, _)| at >= *whole) {
                debug_assert!(at >= whole);
                self.keep_only(&listed);
            }
            if matches!(until, Until::Offset(end) if at >= end) {
                break;
            }
            if let Some((mut header, body)) = window.record(at)? {
                if matches!(header.record.kind, Kind::State | Kind::Lost) {
                    header.record.body = Bytes::copy_from_slice(body);
                }
                let next = at + (RECORD_HEADER + header.padded_len()) as u32;
                self.record(segment, at, &header);
                if let Some((whole, listed)) = &mut carry
                    && next <= *whole
                {
                    listed.insert(header.record.tablet);
                    if header.record.kind == Kind::Cut {
                        self.index.carried(header.record.tablet, header.record.lsn);
                    }
                }
                at = next;
                continue;
            }
            let stop = match until {
                Until::Offset(end) => Some(end),
                Until::Zeros => rest(segment, at, Place::default())?.last_byte.map(|last| last as u32 + 1),
                Until::NoWitness => {
                    let rest = rest(segment, at, segment.place(at))?;
                    rest.last_byte.filter(|_| rest.evidence).map(|last| last as u32 + 1)
                }
            };
            let Some(stop) = stop else { break };
            match next_record(segment, &mut window, at, stop)? {
                Some(next) => {
                    self.hole(segment, at, next);
                    // A part of the list is gone, if it was not over: it lists nobody.
                    carry = None;
                    at = next;
                }
                None => {
                    self.hole(segment, at, stop);
                    if let Until::Offset(end) = until {
                        at = end;
                    }
                    break;
                }
            }
        }
        self.end = segment.place(at);
        Ok(())
    }

    fn record(&mut self, segment: &Segment, at: u32, header: &Header) {
        let (record, place) = (&header.record, segment.place(at));
        let tablet = record.tablet;
        self.records += 1;
        self.durable = self.durable.max(header.synced);
        if record.kind != Kind::Mark {
            let before = self.chains.get(&tablet).copied();
            let follows = match before {
                Some(before) => header.chain == before,
                // The records before it were in segments that are gone, or it is the first.
                None => self.holes.is_empty() || header.chain == 0,
            };
            if header.chain == 0 && before.is_some_and(|before| before != 0) {
                // It was dropped in the hole, and has come back.
                self.index.remove(tablet);
            } else if !follows {
                let why = format!("records before {at} of {} are damaged", segment.name);
                self.index.doubt(tablet, &why);
            }
            self.suspects.remove(&tablet);
            match record.kind {
                Kind::Dropped => _ = self.chains.remove(&tablet),
                _ => _ = self.chains.insert(tablet, header.crc),
            }
        }
        self.index.note(record, place);
    }

    fn hole(&mut self, segment: &Segment, from: u32, to: u32) {
        self.holes.push(format!("{} from {from} to {to}", segment.name));
        self.suspects.extend(self.index.tablets());
        self.forgot = true;
    }

    /// The segment has listed all tablets.
    fn keep_only(&mut self, listed: &BTreeSet<TabletId>) {
        if self.forgot {
            let gone: Vec<TabletId> = self.index.tablets().filter(|tablet| !listed.contains(tablet)).collect();
            for tablet in gone {
                self.index.remove(tablet);
                self.chains.remove(&tablet);
                self.suspects.remove(&tablet);
            }
            self.forgot = false;
        }
    }

    fn conclude(&mut self) {
        for tablet in std::mem::take(&mut self.suspects) {
            self.index.doubt(tablet, &format!("it may have had records in {}", self.holes.join(", ")));
        }
    }
}

/// Where the next valid record begins, after `from` and before `stop`.
fn next_record(segment: &Segment, window: &mut Window<'_>, from: u32, stop: u32) -> Result<Option<u32>, Error> {
    for at in (from.next_multiple_of(8).max(from + 8)..stop).step_by(8) {
        let header = Header::decode(window.get(u64::from(at), RECORD_HEADER)?, segment.place(at));
        if header.is_some() && window.record(at)?.is_some() {
            return Ok(Some(at));
        }
    }
    Ok(None)
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
