//! What a crash left of the log: reads it from the oldest segment on, and repairs the end.
//!
//! ```text
//!   segments ──scan (several at a time)──▶ records and holes ──in their order──▶ index, chains, doubts
//!
//!   valid ─ valid ─ valid ─ ✗ hole ─ ? ─ ? ─ …
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
//! Whatever is behind the end, a torn tail or what the file held in former lives, is zeroed, and what remains is written
//! and synced once more before anything is appended: nothing old is ever found behind records that are yet to come, and
//! records that were only in the kernel's memory, perhaps after a failed sync, are durable before anyone relies on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use disk::Disk;
use model::TabletId;

use super::format::{self, Header, Place, SEGMENT_HEADER, SegmentHeader};
use super::index::Index;
use super::pool::Pool;
use super::scan::{self, CHUNK, Item, Scan, Until};
use super::segment::Segment;
use super::{Crew, Kind, Options};
use crate::Error;

/// The log as it goes on.
pub struct Recovery {
    pub index: Index,
    /// The sum of each tablet's last record.
    pub chains: BTreeMap<TabletId, u32>,
    pub current: Arc<Segment>,
    pub end: Place,
    pub pool: Pool,
    /// Something in the current segment is damaged.
    pub damaged: bool,
    /// There may have been tablets of which nothing is left.
    pub forgot: bool,
    pub notes: Vec<String>,
}

/// Opens the log in `dir`, or begins it.
pub fn recover(disk: &dyn Disk, dir: &str, options: Options, crew: &dyn Crew) -> Result<Recovery, Error> {
    disk.create_dir(dir).map_err(|error| Error::io(dir, "create", error))?;
    let parent = dir.rsplit_once('/').map_or("", |(parent, _)| parent);
    disk.sync_dir(parent).map_err(|error| Error::io(parent, "sync", error))?;

    let mut segments = open_segments(disk, dir)?;
    let mut notes = Vec::new();
    let replay = replay(&segments, crew)?;
    notes.extend(replay.holes.iter().map(|hole| format!("damaged: {hole}")));
    let Replay { mut index, chains, tail, end, durable, begun, forgot, damaged, .. } = replay;

    // Newest first and one by one, so that no crash leaves a gap in the numbers. They are not used again: they may hold
    // records under a number that will come again.
    for segment in segments.drain(begun..).rev() {
        if !matches!(scan::segment_header(&segment)?, (SegmentHeader::Invalid, _)) {
            notes.push(format!("removed {}, of which only the beginning was written", segment.name));
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
            notes.extend(cut(current, tail)?);
            harden(current, durable, end.offset)?;
            (current.clone(), end)
        }
        None => begin(disk, dir, options, &mut index)?,
    };
    let pool = Pool::open(disk, dir, options.segment_bytes, index.oldest().number)?;
    // What a former life removed last may not be gone for certain: if the next one goes first, there is a gap.
    disk.sync_dir(dir).map_err(|error| Error::io(dir, "sync", error))?;
    Ok(Recovery { index, chains, current, end, pool, damaged, forgot, notes })
}

/// Reads all segments that were begun, over whatever is damaged in them. Changes nothing.
pub fn replay(segments: &[Segment], crew: &dyn Crew) -> Result<Replay, Error> {
    let mut headers = Vec::new();
    for segment in segments {
        match scan::segment_header(segment)? {
            (SegmentHeader::Other { version }, _) => {
                return Err(Error::Version { file: segment.name.clone(), found: version, known: format::VERSION });
            }
            header => headers.push(header),
        }
    }
    let begun = begun(segments, &headers)?;
    let mut replay = Replay { begun, ..Replay::default() };
    let until = |at: usize| match headers.get(at + 1).filter(|_| at + 1 < begun) {
        // Where it ended, if the next one says so.
        Some((SegmentHeader::Begun { previous, .. }, _)) if previous.segment == segments[at].number => {
            Until::Offset(previous.offset)
        }
        Some(_) => Until::Next,
        None => Until::NoWitness,
    };
    // As many at a time as can be worked on, so that no more than these are in memory.
    let width = crew.width().max(1);
    for first in (0..begun).step_by(width) {
        let wave = first..begun.min(first + width);
        let mut scans: Vec<Option<Result<Scan, Error>>> = wave.clone().map(|_| None).collect();
        let parts = wave.clone().zip(&mut scans).map(|(at, into)| {
            let (segment, until) = (&segments[at], until(at));
            let damaged = !matches!(headers[at].0, SegmentHeader::Begun { .. });
            Box::new(move || *into = Some(scan::scan(segment, damaged, until))) as Box<dyn FnOnce() + Send + '_>
        });
        crew.run(parts.collect());
        for (at, scan) in wave.zip(scans) {
            replay.segment(&segments[at], &headers[at].0, scan.expect("the crew does all parts")?);
        }
    }
    replay.conclude();
    Ok(replay)
}

/// How many of the segments have been begun: all but those at the end of which no more than the beginning was written,
/// and never synced.
fn begun(segments: &[Segment], headers: &[(SegmentHeader, bool)]) -> Result<usize, Error> {
    for (at, segment) in segments.iter().enumerate().rev() {
        let (header, refused) = &headers[at];
        if let SegmentHeader::Begun { carried, .. } = header
            && scan::carried_whole(segment, *carried)?
        {
            return Ok(at + 1);
        }
        // Or some record in it says that something of it was synced; or nobody can know.
        if *refused || scan::survey(segment, 0)?.synced > segment.place(0) {
            return Ok(at + 1);
        }
        // Only segment 1 has no segment before it while it is torn: the others' predecessors are removed later.
        if at == 0 && segment.number != 1 {
            return Ok(1);
        }
    }
    Ok(0)
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
        segments.push(Segment::open(disk, dir, number)?);
    }
    Ok(segments)
}

/// What has been read so far, from the oldest segment on.
#[derive(Default)]
pub struct Replay {
    pub index: Index,
    pub chains: BTreeMap<TabletId, u32>,
    /// Segments that have been begun.
    pub begun: usize,
    /// Offset in the last segment behind which nothing counts,
    tail: u32,
    /// and where it goes on, which is later if a part of what it must have begun with is gone.
    pub end: Place,
    /// What the valid records say was durable when they were written.
    pub durable: Place,
    /// Damaged stretches, for people.
    pub holes: Vec<String>,
    /// Something in the last segment is damaged.
    pub damaged: bool,
    /// Tablets that have had no record since a hole, which may have lost something in it.
    suspects: BTreeSet<TabletId>,
    /// Since the last hole no segment has said which tablets there are.
    pub forgot: bool,
    /// Valid records.
    pub records: u64,
}

impl Replay {
    fn segment(&mut self, segment: &Segment, header: &SegmentHeader, scan: Scan) {
        let start = SEGMENT_HEADER as u32;
        self.damaged = false;
        // Where the list of all tablets ends, and who is on it.
        let mut carry = None;
        match header {
            SegmentHeader::Begun { previous, carried } => {
                self.durable = self.durable.max(*previous);
                carry = Some((start.saturating_add(*carried), BTreeSet::new()));
            }
            _ => self.hole(segment, 0, start),
        }
        let mut items = scan.items.into_iter();
        let mut at = start;
        loop {
            if let Some((_, listed)) = carry.take_if(|(whole, _)| at >= *whole) {
                self.keep_only(&listed);
            }
            match items.next() {
                Some(Item::Record { at: place, header }) => {
                    self.record(segment, place, &header);
                    at = place + header.whole_len();
                    if let Some((whole, listed)) = &mut carry
                        && at <= *whole
                    {
                        listed.insert(header.record.tablet);
                        if header.record.kind == Kind::Cut {
                            self.index.carried(header.record.tablet, header.record.lsn);
                        }
                    }
                }
                Some(Item::Hole(from, to)) => {
                    self.hole(segment, from, to);
                    // A part of the list is gone, if it was not over: it lists nobody.
                    carry = None;
                }
                None => break,
            }
        }
        let mut end = scan.end;
        if let Some((whole, _)) = carry.filter(|(whole, _)| at < *whole) {
            // It was begun, so all of the list was there. What is written next must not be taken for the rest of it.
            self.hole(segment, at, whole);
            let len = u32::try_from(segment.len).unwrap_or(u32::MAX);
            end = end.max(whole.checked_next_multiple_of(8).unwrap_or(len).min(len));
        }
        segment.set_written(scan.end);
        self.tail = scan.end;
        self.end = segment.place(end);
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
        self.damaged = true;
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

/// Zeroes what is after `end`, where no record counts, so that nothing of it is ever found behind records that are yet to come.
fn cut(segment: &Segment, end: u32) -> Result<Option<String>, Error> {
    let rest = scan::survey(segment, end)?;
    let Some(last) = rest.last_byte else { return Ok(None) };
    let mut offset = u64::from(end);
    while offset <= last {
        let zeros = vec![0; CHUNK.min((last + 1 - offset) as usize)];
        segment.file.write_at(offset, &zeros).map_err(|error| Error::io(&segment.name, "write", error))?;
        offset += zeros.len() as u64;
    }
    segment.set_written((last + 1).min(u64::from(u32::MAX)) as u32);
    // What the file held in former lives is no news.
    let torn = rest.end.map(|torn| torn.saturating_sub(end));
    Ok(torn.map(|bytes| format!("cut a torn tail of {bytes} bytes at {} offset {end}", segment.name)))
}

/// Writes once more what no record says is durable, and syncs.
fn harden(segment: &Segment, durable: Place, end: u32) -> Result<(), Error> {
    let from = if durable.segment == segment.number { durable.offset } else { 0 };
    scan::rewrite(segment, from, end)?;
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
