//! One write-ahead log for all tablets of a node: what is synced here is prepared.
//!
//! ```text
//!   append ──▶ 00000007.log │ 00000008.log │ 00000009.log ◀─ current     00000010.log ◀─ spare, so that what is
//!                 ▲                            │                            in flight finds room on a full disk
//!                 └─ trim lets the oldest go,  └─ begins with the latest state of every tablet
//!                    to become a spare again
//! ```
//!
//! After Bigtable (one log per server) and PacificA (the log is the prepared list): group commit costs one write and
//! one sync for all tablets together, and an index in memory finds each tablet's entries for catch-up and restart.
//!
//! What a tablet's records mean, in the order of the log: an entry ([`Kind::Command`], [`Kind::NoOp`]) at lsn k takes
//! the place of all its entries from k on, so the tail of a higher epoch replaces that of a lower one; an entry that
//! leaves a gap makes those before it forgotten (a checkpoint came instead). Entries are therefore always dense.
//!
//! What holds always: a segment is begun only when the last one is synced as far as it counts, and the new one's header
//! says how far that is; a segment is removed only when the states that it may hold are durable in a later one; segments
//! are numbered without gap. So after a crash the log is what was synced, and of what was not a prefix (`recovery` tells a
//! torn tail from damage).
//!
//! When a sync hangs, the writer can leave the file ([`Log::switch`]), and files are used again when they are trimmed
//! (`pool`).
//!
//! Never knows what a body means, nor what is committed beyond what it is told.

mod check;
mod format;
mod index;
mod pool;
mod reader;
mod recovery;
mod scan;
mod segment;
mod switch;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use disk::Disk;
use model::{Epoch, Lsn, TabletId};
use parking_lot::RwLock;

use self::format::{Place, SEGMENT_HEADER};
use self::index::Index;
use self::pool::Pool;
use self::segment::Segment;
use self::switch::Unsynced;
use crate::Error;

pub use self::check::Checked;
pub use self::reader::LogReader;
pub use self::switch::Syncing;

/// One record of one tablet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose log it belongs to.
    pub tablet: TabletId,
    /// Position of an entry or a cut; free for the other kinds.
    pub lsn: Lsn,
    /// Configuration in which the primary ordered it.
    pub epoch: Epoch,
    /// What the writer knew to be committed. The highest one is recovered.
    pub committed: Lsn,
    /// What it is.
    pub kind: Kind,
    /// What it says; opaque here.
    pub body: Bytes,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An entry with a command.
    Command = 1,
    /// An entry that changes nothing.
    NoOp = 2,
    /// What the replica wants to know after a restart; the latest one wins. Says nothing about entries.
    State = 3,
    /// Drops all entries after its lsn.
    Cut = 4,
    /// Forgets the tablet, entries and state.
    Dropped = 5,
    /// What the log has of the tablet must not be relied on, and why; holds until it is dropped.
    Lost = 6,
    /// Says nothing of any tablet; only that what stands before it was synced.
    Mark = 7,
}

impl Kind {
    /// Whether it is one of the dense, numbered entries.
    pub fn is_entry(self) -> bool {
        matches!(self, Kind::Command | Kind::NoOp)
    }
}

/// A piece of work that can be done at the same time as others.
pub type Part<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Whoever does parts of a longer work: the host, with its threads.
pub trait Crew: Sync {
    /// How many parts it does at a time.
    fn width(&self) -> usize;
    /// Does all parts, and returns when they are done. They are taken up in this order.
    fn run<'a>(&self, parts: Vec<Part<'a>>);
}

/// Does one part after the other.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Crew for Alone {
    fn width(&self) -> usize {
        1
    }

    fn run<'a>(&self, parts: Vec<Part<'a>>) {
        parts.into_iter().for_each(|part| part());
    }
}

/// How the log is cut into files.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a segment. One that must hold a longer append is longer.
    pub segment_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 64 << 20 }
    }
}

/// What was there when the log was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Every tablet that has not been dropped.
    pub tablets: BTreeMap<TabletId, Found>,
    /// There may have been tablets of which nothing is left.
    pub forgot: bool,
    /// What was repaired or is damaged, for people.
    pub notes: Vec<String>,
}

/// What was found of one tablet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Body of the latest [`Kind::State`].
    pub state: Option<Bytes>,
    /// Oldest entry that is held.
    pub first: Option<Lsn>,
    /// Newest entry; `ZERO` if there never was one. Those up to `last` may all have been trimmed.
    pub last: Lsn,
    /// The highest `committed` of any record.
    pub committed: Lsn,
    /// Something of the tablet lay in a damaged part of the log.
    pub doubt: Option<Doubt>,
}

/// What of a tablet's part of the log is not to be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Entries up to here. If it is [`Doubt::ALL`], the state as well.
    pub upto: Lsn,
    /// Where the damage is.
    pub why: String,
}

impl Doubt {
    /// Nothing is to be relied on.
    pub const ALL: Lsn = Lsn(u64::MAX);
}

/// What lies in a log that nobody has open.
#[derive(Debug)]
pub struct Inspected {
    /// Segments that are in use.
    pub segments: usize,
    /// Valid records.
    pub records: u64,
    /// Damaged stretches, for people.
    pub holes: Vec<String>,
    /// What is there of each tablet.
    pub tablets: BTreeMap<TabletId, Found>,
    /// Segment and offset up to which something shows that it was synced.
    pub witnessed: (u32, u32),
}

/// Reads the whole log in `dir` and changes nothing.
pub fn inspect(disk: &dyn Disk, dir: &str) -> Result<Inspected, Error> {
    let segments = recovery::open_segments(disk, dir)?;
    let replay = recovery::replay(&segments, &Alone)?;
    Ok(Inspected {
        segments: replay.begun,
        records: replay.records,
        tablets: replay.index.found(),
        witnessed: (replay.durable.segment, replay.durable.offset),
        holes: replay.holes,
    })
}

/// Longest segment that may be asked for, so that every offset fits into 32 bits, even after a long append.
const MAX_SEGMENT: u64 = 1 << 30;
/// Longest sum of records that one append takes; far above what a request may carry.
const MAX_APPEND: usize = 1 << 30;
/// Bytes of zeros that are written ahead of the records at a time.
const FILL_AHEAD: u32 = 1 << 20;
/// A buffer that grew beyond this for a large record is given back.
const KEEP_BUFFER: usize = 4 << 20;

/// The writer. There is one; readers are many.
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: String,
    options: Options,
    index: Arc<RwLock<Index>>,
    current: Arc<Segment>,
    /// Where the next record goes.
    end: Place,
    /// All before it is durable. Never after `end`.
    synced: Place,
    /// The current segment's blocks are written, with records or with zeros, at least up to this offset.
    filled: u32,
    /// What lies after `synced`, to be written once more if the segment has to be left.
    unsynced: Unsynced,
    /// The next segment: named, allocated, empty or with what it held under lower numbers.
    spare: Option<Segment>,
    pool: Pool,
    floors: BTreeMap<TabletId, Lsn>,
    /// The sum of each tablet's last record.
    chains: BTreeMap<TabletId, u32>,
    /// The last record is a mark.
    marked: bool,
    buffer: Vec<u8>,
    /// Why nothing more may be written.
    failed: Option<String>,
}

impl Log {
    /// Recovers what is in `dir`, which is created if need be, and gives the writer and what was found.
    ///
    /// If bytes that were synced are not there any more, or cannot be read, the tablets that may have lost something are
    /// named; only a segment that is missing as a whole fails with [`Error::Corrupt`].
    pub fn open(disk: Arc<dyn Disk>, dir: &str, options: Options) -> Result<(Log, Recovered), Error> {
        Log::open_with(disk, dir, options, &Alone)
    }

    /// [`Log::open`], with a crew that reads segments at the same time.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        dir: &str,
        options: Options,
        crew: &dyn Crew,
    ) -> Result<(Log, Recovered), Error> {
        let options = Options { segment_bytes: options.segment_bytes.min(MAX_SEGMENT) };
        let recovery = recovery::recover(&*disk, dir, options, crew)?;
        let tablets = recovery.index.found();
        let end = recovery.end;
        let mut log = Log {
            disk,
            dir: dir.to_owned(),
            options,
            index: Arc::new(RwLock::new(recovery.index)),
            current: recovery.current,
            end,
            synced: end,
            filled: end.offset,
            unsynced: Unsynced::default(),
            spare: None,
            pool: recovery.pool,
            floors: BTreeMap::new(),
            chains: recovery.chains,
            marked: false,
            buffer: Vec::new(),
            failed: None,
        };
        log.filled = log.filled.max(log.current.written());
        if recovery.damaged {
            // What is damaged once may be so again. Not at once: the next segment would vouch for what is in doubt.
            log.index.write().condemn(log.current.number);
        }
        Ok((log, Recovered { tablets, forgot: recovery.forgot, notes: recovery.notes }))
    }

    /// Writes the records, in this order, as one write; [`Log::sync`] makes them durable. Readers see them at once.
    ///
    /// After [`Error::Full`] nothing has been written and the call may be repeated; after another error the log is
    /// poisoned.
    pub fn append(&mut self, records: &[Record]) -> Result<(), Error> {
        self.alive()?;
        let len = encoded_len(records);
        if len > MAX_APPEND {
            let why = format!("{len} bytes in one append; the limit is {MAX_APPEND}");
            return Err(Error::io(&self.dir, "append to", io::Error::new(io::ErrorKind::InvalidInput, why)));
        }
        if self.end.offset as usize + len > self.current.len as usize {
            self.turn(len)?;
        }
        self.write(records)
    }

    /// Group commit: everything appended so far is durable when it returns. After an error nobody knows what is, so
    /// the log is poisoned and every later call fails: the node has to start again.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.alive()?;
        match self.begin_sync() {
            Some(syncing) => {
                let result = syncing.run();
                self.synced(&syncing, result)
            }
            None => Ok(()),
        }
    }

    /// Writes a mark after the last batch, if it is synced and none is there: a witness that it was. Worth it when there
    /// is time: without one, damage to the last batch looks like a torn tail. Later syncs make it durable, or the kernel.
    pub fn mark(&mut self) -> Result<(), Error> {
        self.alive()?;
        let mark = Record {
            tablet: TabletId(0),
            lsn: Lsn::ZERO,
            epoch: Epoch(0),
            committed: Lsn::ZERO,
            kind: Kind::Mark,
            body: Bytes::new(),
        };
        let fits = self.end.offset as usize + mark.encoded_len() <= self.current.len as usize;
        if self.marked || !fits || self.synced < self.end {
            return Ok(());
        }
        self.write(&[mark])?;
        self.marked = true;
        Ok(())
    }

    /// Writes zeros over blocks that are allocated but were never written. A file system has to log the first write of
    /// a block, so that syncing a small record costs it two writes; this way it does so once for many syncs.
    fn fill_ahead(&mut self) -> Result<(), Error> {
        let len = u32::try_from(self.current.len).unwrap_or(u32::MAX);
        if self.filled.saturating_sub(self.end.offset) >= FILL_AHEAD / 2 || self.filled >= len {
            return Ok(());
        }
        let zeros = vec![0; FILL_AHEAD.min(len - self.filled) as usize];
        let written = self.current.file.write_at(u64::from(self.filled), &zeros);
        self.poison_if(written, "write")?;
        self.filled += zeros.len() as u32;
        Ok(())
    }

    /// A reader that sees what is appended, synced or not.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.index.clone())
    }

    /// Lets whole segments go, oldest first, that hold no entry after its tablet's floor (a tablet without floor needs
    /// all of its entries), and gives the bytes freed. States are kept: the current segment begins with them.
    pub fn trim(&mut self, floors: &BTreeMap<TabletId, Lsn>) -> Result<u64, Error> {
        self.alive()?;
        self.floors.clone_from(floors);
        if self.index.read().is_condemned(self.current.number) {
            // So that it can go too. If there is no room for another one, the next call tries again.
            self.turn_if_room()?;
        }
        let oldest_needed = self.index.read().oldest_needed(floors).unwrap_or(self.current.number);
        let mut freed = 0;
        loop {
            let oldest = self.index.read().oldest();
            if oldest.number >= oldest_needed.min(self.current.number) {
                return Ok(freed);
            }
            // What makes the segment dispensable, states and later entries, has to be durable first.
            self.sync()?;
            self.index.write().forget(oldest.number);
            freed += oldest.len;
            self.pool.put(&*self.disk, &self.dir, self.options.segment_bytes, oldest)?;
            // Before the next one goes, or a crash could leave a gap in the numbers.
            self.disk.sync_dir(&self.dir).map_err(|error| Error::io(&self.dir, "sync", error))?;
        }
    }

    /// Bytes of all segments in use; the spare one is not.
    pub fn bytes(&self) -> u64 {
        self.index.read().bytes()
    }

    /// Tablets whose entries pin the oldest segment, given the floors of the last [`Log::trim`]. Flushing them helps.
    pub fn oldest_tablets(&self) -> Vec<TabletId> {
        self.index.read().pinning_oldest(&self.floors)
    }

    /// Makes sure that a spare segment is allocated, so that what is in flight finds room when the disk is full.
    /// [`Error::Full`] if there is no room for one; call again later.
    pub fn reserve(&mut self) -> Result<(), Error> {
        self.alive()?;
        if self.spare.is_none() {
            let number = self.current.number + 1;
            let again = self.pool.take(&*self.disk, &self.dir, number)?;
            self.spare = Some(match again {
                Some(again) => again,
                None => Segment::create(&*self.disk, &self.dir, number, self.options.segment_bytes)?,
            });
        }
        Ok(())
    }

    fn turn_if_room(&mut self) -> Result<(), Error> {
        match self.turn(0) {
            Err(error) if !error.is_full() => Err(error),
            _ => Ok(()),
        }
    }

    /// Goes on in the next segment, with room for `len` bytes after the states that it begins with.
    fn turn(&mut self, len: usize) -> Result<(), Error> {
        // Whatever can fail for want of room comes before the first write.
        self.reserve()?;
        let carry = self.index.read().carry();
        if let Some(spare) = &mut self.spare {
            spare.extend((SEGMENT_HEADER + encoded_len(&carry) + len) as u64)?;
        }
        self.sync()?;
        let spare = self.spare.take().expect("reserved above");
        self.begin(spare, &carry)?;
        Ok(())
    }

    /// Begins the segment, whose first records are these: only with all of them does it count. The one before counts as
    /// far as it is synced. They tell the index nothing new but their places.
    fn begin(&mut self, spare: Segment, records: &[Record]) -> Result<Vec<Place>, Error> {
        let spare = Arc::new(spare);
        self.current.set_written(self.filled);
        self.buffer.clear();
        format::encode_segment_header(spare.number, encoded_len(records) as u32, self.synced, &mut self.buffer);
        self.current = spare.clone();
        self.end = spare.place(0);
        self.filled = spare.written();
        self.index.write().add(spare);
        self.put(records)
    }

    fn write(&mut self, records: &[Record]) -> Result<(), Error> {
        let places = self.put(records)?;
        let mut index = self.index.write();
        for (record, place) in records.iter().zip(places) {
            index.note(record, place);
        }
        Ok(())
    }

    /// Writes what is in the buffer, and then `records`, at the end of the current segment, where there is room. Gives
    /// their places.
    fn put(&mut self, records: &[Record]) -> Result<Vec<Place>, Error> {
        let start = self.end;
        let mut places = Vec::with_capacity(records.len());
        for record in records {
            assert!(!record.kind.is_entry() || record.lsn > Lsn::ZERO, "no entry stands before the first");
            let place = start.plus(self.buffer.len());
            places.push(place);
            let chain = self.chains.get(&record.tablet).copied();
            self.unsynced.push(record.clone(), place, chain);
            let crc = record.encode(place, self.synced, chain.unwrap_or(0), &mut self.buffer);
            match record.kind {
                Kind::Dropped => _ = self.chains.remove(&record.tablet),
                Kind::Mark => {}
                _ => _ = self.chains.insert(record.tablet, crc),
            }
        }
        self.marked = false;
        let written = self.current.file.write_at(u64::from(start.offset), &self.buffer);
        self.end = start.plus(self.buffer.len());
        self.filled = self.filled.max(self.end.offset);
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_BUFFER);
        self.poison_if(written, "write")?;
        Ok(places)
    }

    fn alive(&self) -> Result<(), Error> {
        match &self.failed {
            None => Ok(()),
            Some(why) => {
                let source = io::Error::other(format!("{why}; nothing more can be promised, start this node again"));
                Err(Error::io(&self.dir, "go on in", source))
            }
        }
    }

    /// After a failed write or sync nobody knows what is on the disk.
    fn poison_if(&mut self, result: io::Result<()>, what: &'static str) -> Result<(), Error> {
        result.map_err(|error| {
            // Never `Full`, which promises that nothing has been written.
            let error = Error::Io { file: self.current.name.clone(), what, source: error };
            self.failed = Some(error.to_string());
            error
        })
    }
}

fn encoded_len(records: &[Record]) -> usize {
    records.iter().map(Record::encoded_len).sum()
}

#[cfg(test)]
mod tests;
