//! Which table files a tablet consists of: a log of edits per tablet.
//!
//! ```text
//!   manifest/7:  magic 8, version u32, crc u32 of these 12 │ frame: the whole state │ frame: an edit │ frame: an edit │ …
//!
//!   frame:  offset  size  field
//!                0     4  crc     CRC-32C of bytes 4..24, of the body, and of the frame's own offset (u64)
//!                4     4  len     bytes of the body
//!                8     8  tablet
//!               16     4  chain   crc of the frame before; 0 in the first one
//!               20     4  zero
//!               24   len  body    postcard of Edit
//! ```
//!
//! An edit is appended and synced: one sync. When the edits have grown longer than the state that they lead to, the state is
//! written to `manifest/7.new`, synced, renamed and the folder synced: so the switch is atomic, and so is the first
//! edit of a tablet. A tablet that nothing was flushed of has no file.
//!
//! **Torn tail or damage.** Nobody was told of an edit whose frame is not whole, so an end that does not verify is cut, and the
//! file written anew. If a valid frame follows what does not verify, it was synced once: that is damage, and so is anything
//! wrong in the first frame, which had no name before it was synced. Damage to the very last frame looks like a tear. Then
//! the tablet is what it was before that edit: what the log still has is replayed, and if the log, or a table that the edit
//! replaced, has gone since, that shows, and the tablet is learned anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::{Disk, File};
use model::{Bytes, Lsn, RunId, TabletId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{Error, again_if_unreadable};
use crate::sstable::block;
use crate::trash;

/// The folder of the manifests.
pub const DIR: &str = "manifest";
const MAGIC: [u8; 8] = *b"dipmanif";
const VERSION: u32 = 2;
/// Had the state as a whole, and every table was a run by itself.
const VERSION_1: u32 = 1;
const HEADER: usize = 16;
const HEADER_1: usize = 8 + 4 + 4 + 4;
const FRAME: usize = 24;
const NEW: &str = ".new";
/// Edits may be so long, and so many times as long as the state, before they are replaced by it.
const FREE_EDITS: u64 = 16 << 10;
const EDITS_PER_STATE: u64 = 4;

/// A table and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The table's number.
    pub number: u64,
    /// The run that it belongs to.
    pub run: RunId,
}

/// What a tablet consists of on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The tablet.
    pub tablet: TabletId,
    /// Its tables, by run, oldest first. They have the changes of all records
    pub tables: Vec<Placed>,
    /// up to this one.
    pub flushed: Lsn,
    /// What the node wants to know as of `flushed`.
    pub note: Bytes,
}

/// How a tablet's state changes. What must follow each other does, or it is a bug of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edit {
    /// The tablet is this and nothing else: it is new, or has become what a peer sent.
    Whole {
        /// Its tables, by run, oldest first.
        tables: Vec<Placed>,
        /// They have everything up to this.
        upto: Lsn,
        /// The note as of `upto`.
        note: Bytes,
    },
    /// A memtable has become tables, or none if it held no change.
    Flushed {
        /// The new tables.
        added: Vec<Placed>,
        /// They have what came after this,
        after: Lsn,
        /// up to this.
        upto: Lsn,
        /// The node's note as of `upto`.
        note: Bytes,
    },
    /// Tables have been merged, or have got another place.
    Merged {
        /// Those that are not there any more, or stand elsewhere.
        removed: Vec<u64>,
        /// Those that came, or where they stand now.
        added: Vec<Placed>,
    },
}

/// Why an edit failed.
#[derive(Debug)]
pub struct Failed {
    /// What went wrong.
    pub error: Error,
    /// It has certainly not happened. Otherwise it may or may not outlive a crash: what either state names must stay.
    pub certain: bool,
}

/// The states of all tablets, as the disk has them.
pub struct Manifest {
    disk: Arc<dyn Disk>,
    tablets: BTreeMap<TabletId, Known>,
}

/// A tablet with what must be known to append to its file.
struct Known {
    state: State,
    /// Where the next frame goes; `None` if the file must be written anew, because nobody knows what is behind its last edit.
    end: Option<u64>,
    chain: u32,
    /// Where the first frame ends.
    whole: u64,
    /// Where the last frame begins.
    last: u64,
}

impl Manifest {
    /// Reads the manifests of all tablets, and says of which tablets it is damaged, and how. What a crash left unfinished is
    /// removed.
    pub fn open(disk: Arc<dyn Disk>) -> Result<(Manifest, BTreeMap<TabletId, String>), Error> {
        let (mut tablets, mut damaged, mut torn) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for name in disk.list(DIR).map_err(|source| Error::io(DIR, "list", source))? {
            let path = format!("{DIR}/{name}");
            if name.ends_with(NEW) {
                disk.remove(&path).map_err(|source| Error::io(path, "remove", source))?;
            } else if let Ok(number) = name.parse() {
                let tablet = TabletId(number);
                match again_if_unreadable(|| read(&*disk, tablet)) {
                    Ok(known) => {
                        harden(&*disk, &path, &known)?;
                        torn.extend(known.end.is_none().then_some(tablet));
                        tablets.insert(tablet, known);
                    }
                    Err(error) if error.is_corrupt() || error.is_unreadable() => {
                        damaged.insert(tablet, error.to_string());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        // Nor may the names.
        disk.sync_dir(DIR).map_err(|source| Error::io(DIR, "sync", source))?;
        let mut manifest = Manifest { disk, tablets };
        for tablet in torn {
            let state = manifest.tablets[&tablet].state.clone();
            manifest.rewrite(state).map_err(|failed| failed.error)?;
        }
        Ok((manifest, damaged))
    }

    /// Reads the manifest of one tablet.
    pub fn read_one(disk: &dyn Disk, tablet: TabletId) -> Result<State, Error> {
        read(disk, tablet).map(|known| known.state)
    }

    /// The states of all tablets of which something is on the disk.
    pub fn states(&self) -> impl Iterator<Item = &State> {
        self.tablets.values().map(|known| &known.state)
    }

    /// Does any tablet have this table?
    pub fn names(&self, table: u64) -> bool {
        self.states().any(|state| state.tables.iter().any(|placed| placed.number == table))
    }

    /// The tablet is no more: its manifest goes to the trash, also a damaged one. Gives the tables that it named.
    pub fn throw_away(&mut self, tablet: TabletId, date: Timestamp) -> Result<Vec<u64>, Error> {
        trash::put(&*self.disk, &path_of(tablet), date)?;
        self.disk.sync_dir(DIR).map_err(|source| Error::io(DIR, "sync", source))?;
        let tables = self.tablets.remove(&tablet).map(|known| known.state.tables).unwrap_or_default();
        Ok(tables.into_iter().map(|placed| placed.number).collect())
    }

    /// Reads the tablet's manifest once more: it must say what it said.
    pub fn check(&self, tablet: TabletId) -> Result<(), Error> {
        match self.tablets.get(&tablet) {
            // After a failed edit nobody knows what it says.
            Some(known) if known.end.is_some() => {
                let found = read(&*self.disk, tablet)?;
                match found.state == known.state && found.end == known.end {
                    true => Ok(()),
                    false => {
                        let what = "it says something else than when it was written";
                        Err(Error::corrupt(path_of(tablet), 0, what))
                    }
                }
            }
            _ => Ok(()),
        }
    }

    /// Makes an edit, durably, and returns the tables that the tablet no longer has.
    pub fn edit(&mut self, tablet: TabletId, edit: Edit) -> Result<Vec<u64>, Failed> {
        let unborn = || State { tablet, tables: Vec::new(), flushed: Lsn::ZERO, note: Bytes::new() };
        let known = self.tablets.get(&tablet);
        let before = known.map_or_else(unborn, |known| known.state.clone());
        let after = before.clone().after(&edit);
        let append = known.and_then(|known| {
            let end = known.end.filter(|_| !matches!(edit, Edit::Whole { .. }))?;
            (end <= FREE_EDITS + known.whole * EDITS_PER_STATE).then_some((end, known.chain))
        });
        match append {
            Some((end, chain)) => self.append(tablet, &edit, end, chain)?,
            None => self.rewrite(after.clone())?,
        }
        if let Some(known) = self.tablets.get_mut(&tablet) {
            known.state = after.clone();
        }
        let kept = |number: u64| after.tables.iter().any(|placed| placed.number == number);
        Ok(before.tables.iter().map(|placed| placed.number).filter(|&number| !kept(number)).collect())
    }

    fn append(&mut self, tablet: TabletId, edit: &Edit, end: u64, chain: u32) -> Result<(), Failed> {
        let path = path_of(tablet);
        let mut frame = Vec::new();
        let crc = encode_frame(tablet, edit, end, chain, &mut frame);
        let known = self.tablets.get_mut(&tablet).expect("it has a file, so it is known");
        let file = self.disk.open(&path).map_err(|source| unharmed(Error::io(&path, "open", source)))?;
        if let Err(source) = file.write_at(end, &frame) {
            // A part of it may be there; if that is cut again, nothing has happened.
            let certain = file.set_len(end).and_then(|()| file.sync()).is_ok();
            known.end = known.end.filter(|_| certain);
            return Err(Failed { error: Error::io(path, "write", source), certain });
        }
        if let Err(source) = file.sync() {
            known.end = None;
            return Err(Failed { error: Error::io(path, "sync", source), certain: false });
        }
        (known.end, known.chain, known.last) = (Some(end + frame.len() as u64), crc, end);
        Ok(())
    }

    /// Writes the state as a whole, in place of the edits that led to it.
    fn rewrite(&mut self, state: State) -> Result<(), Failed> {
        let (tablet, path) = (state.tablet, path_of(state.tablet));
        let draft = format!("{path}{NEW}");
        let (bytes, chain) = encode_whole(&state);
        if let Err(error) = write(&*self.disk, &draft, &bytes) {
            // It may lie there until the next start, but it might be the last bytes of a full disk.
            let _ = self.disk.remove(&draft);
            return Err(unharmed(error));
        }
        let renamed = self.disk.rename(&draft, &path).map_err(|source| Error::io(&path, "rename", source));
        let synced = renamed.and_then(|()| self.disk.sync_dir(DIR).map_err(|source| Error::io(DIR, "sync", source)));
        if let Err(error) = synced {
            if let Some(known) = self.tablets.get_mut(&tablet) {
                known.end = None;
            }
            return Err(Failed { error, certain: false });
        }
        let whole = bytes.len() as u64;
        self.tablets.insert(tablet, Known { state, end: Some(whole), chain, whole, last: HEADER as u64 });
        Ok(())
    }
}

fn unharmed(error: Error) -> Failed {
    Failed { error, certain: true }
}

impl State {
    fn after(mut self, edit: &Edit) -> State {
        match edit {
            Edit::Whole { tables, upto, note } => {
                (self.tables, self.flushed, self.note) = (tables.clone(), *upto, note.clone());
            }
            Edit::Flushed { added, after, upto, note } => {
                assert_eq!(self.flushed, *after, "flushes of {} follow each other", self.tablet);
                self.tables.extend(added);
                (self.flushed, self.note) = (*upto, note.clone());
            }
            Edit::Merged { removed, added } => {
                let before = self.tables.len();
                self.tables.retain(|placed| !removed.contains(&placed.number));
                assert_eq!(self.tables.len() + removed.len(), before, "what is merged is the tablet's");
                self.tables.extend(added);
            }
        }
        self.tables.sort_by_key(|placed| placed.run);
        self
    }

    /// Does the edit follow this state? One that was written by us does.
    fn takes(&self, edit: &Edit) -> bool {
        match edit {
            Edit::Whole { .. } => true,
            Edit::Flushed { after, upto, .. } => self.flushed == *after && after <= upto,
            Edit::Merged { removed, .. } => {
                let named = |placed: &&Placed| removed.contains(&placed.number);
                self.tables.iter().filter(named).count() == removed.len()
            }
        }
    }
}

fn path_of(tablet: TabletId) -> String {
    format!("{DIR}/{}", tablet.0)
}

fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    let crc = block::crc(&[&bytes]);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// A file that says no more than this state, and the sum of its frame.
fn encode_whole(state: &State) -> (Vec<u8>, u32) {
    let mut bytes = header();
    let whole = Edit::Whole { tables: state.tables.clone(), upto: state.flushed, note: state.note.clone() };
    let chain = encode_frame(state.tablet, &whole, bytes.len() as u64, 0, &mut bytes);
    (bytes, chain)
}

/// Writes the state's manifest in another folder than that of the node.
pub(crate) fn write_whole(disk: &dyn Disk, dir: &str, state: &State) -> Result<(), Error> {
    let path = format!("{dir}/{}", state.tablet.0);
    let draft = format!("{path}{NEW}");
    write(disk, &draft, &encode_whole(state).0)?;
    disk.rename(&draft, &path).map_err(|source| Error::io(&path, "rename", source))?;
    disk.sync_dir(dir).map_err(|source| Error::io(dir, "sync", source))
}

/// Appends the frame of an edit that stands at `offset` of its file. Gives its sum.
fn encode_frame(tablet: TabletId, edit: &Edit, offset: u64, chain: u32, out: &mut Vec<u8>) -> u32 {
    let body = postcard::to_allocvec(edit).expect("plain values have a postcard");
    let len = u32::try_from(body.len()).expect("a tablet's state stays below 4 GiB");
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&tablet.0.to_le_bytes());
    out.extend_from_slice(&chain.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let crc = block::crc(&[&out[start + 4..], &body, &offset.to_le_bytes()]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&body);
    crc
}

/// A valid frame.
struct Frame {
    edit: Edit,
    crc: u32,
    chain: u32,
    len: usize,
}

/// The frame of the tablet at `offset`, if a valid one is there.
fn frame(bytes: &[u8], offset: usize, tablet: TabletId) -> Option<Frame> {
    let (head, rest) = bytes.get(offset..)?.split_first_chunk::<FRAME>()?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let body = rest.get(..number(4) as usize).filter(|_| head[8..16] == tablet.0.to_le_bytes())?;
    let crc = block::crc(&[&head[4..], body, &(offset as u64).to_le_bytes()]);
    if number(0) != crc {
        return None;
    }
    let edit = postcard::from_bytes(body).ok()?;
    Some(Frame { edit, crc, chain: number(16), len: FRAME + body.len() })
}

fn decode(path: &str, tablet: TabletId, bytes: &[u8]) -> Result<Known, Error> {
    let corrupt = |offset: usize, what: &str| Error::corrupt(path, offset as u64, what);
    let Some(head) = bytes.first_chunk::<HEADER>() else { return Err(corrupt(0, "the file is too short")) };
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if head[..8] != MAGIC {
        return Err(corrupt(0, "the file does not begin like a manifest"));
    }
    if version == VERSION_1 {
        let state = decode_version_1(path, tablet, bytes)?;
        return Ok(Known { state, end: None, chain: 0, whole: 0, last: 0 });
    }
    if block::crc(&[&head[..12]]).to_le_bytes() != head[12..] {
        return Err(corrupt(0, "the header's checksum is wrong"));
    }
    if version != VERSION {
        return Err(Error::Version { file: path.to_owned(), found: version, known: VERSION });
    }
    let first = frame(bytes, HEADER, tablet).filter(|frame| frame.chain == 0);
    let Some(first) = first else { return Err(corrupt(HEADER, "the first edit's checksum is wrong")) };
    let unborn = State { tablet, tables: Vec::new(), flushed: Lsn::ZERO, note: Bytes::new() };
    if !unborn.takes(&first.edit) {
        return Err(corrupt(HEADER, "the first edit follows one that is not there"));
    }
    let (mut state, mut chain) = (unborn.after(&first.edit), first.crc);
    let (mut last, mut end, whole) = (HEADER, HEADER + first.len, (HEADER + first.len) as u64);
    while let Some(next) = frame(bytes, end, tablet) {
        if next.chain != chain || !state.takes(&next.edit) {
            return Err(corrupt(end, "an edit does not follow the one before"));
        }
        state = state.after(&next.edit);
        (chain, last, end) = (next.crc, end, end + next.len);
    }
    let later = (end + 1..bytes.len()).any(|offset| frame(bytes, offset, tablet).is_some());
    if later {
        return Err(corrupt(end, "an edit's checksum is wrong"));
    }
    let whole_file = (end == bytes.len()).then_some(end as u64);
    Ok(Known { state, end: whole_file, chain, whole, last: last as u64 })
}

/// A file of version 1: the state as a whole. Each table becomes a run by itself, in the order in which they are named.
fn decode_version_1(path: &str, tablet: TabletId, bytes: &[u8]) -> Result<State, Error> {
    #[derive(Deserialize)]
    struct Whole {
        tablet: TabletId,
        tables: Vec<u64>,
        flushed: Lsn,
        note: Bytes,
    }
    let corrupt = |what| Error::corrupt(path, 0, what);
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_1>() else {
        return Err(corrupt("the file is too short for a manifest"));
    };
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if number(16) != block::crc(&[&header[..16], body]) || number(12) as usize != body.len() {
        return Err(corrupt("the checksum is wrong"));
    }
    let whole: Whole = postcard::from_bytes(body).map_err(|_| corrupt("the body does not decode"))?;
    if whole.tablet != tablet {
        return Err(corrupt("the file is another tablet's"));
    }
    // Younger than none of those that are to come, and apart from each other: there are no more tables than records.
    let oldest = whole.flushed.0.saturating_sub(whole.tables.len() as u64);
    let age = |nth: usize| Lsn(oldest + 1 + nth as u64);
    let placed = |(nth, &number)| Placed { number, run: RunId { age: age(nth), ..RunId::default() } };
    let tables = whole.tables.iter().enumerate().map(placed).collect();
    Ok(State { tablet, tables, flushed: whole.flushed, note: whole.note })
}

/// The last edit that we see may not be durable, even if a sync of it has been tried: it is written and synced once more. Files
/// that it does not name must not go before it is.
fn harden(disk: &dyn Disk, path: &str, known: &Known) -> Result<(), Error> {
    let Some(end) = known.end.filter(|&end| end > known.whole) else { return Ok(()) };
    let file = disk.open(path).map_err(|source| Error::io(path, "open", source))?;
    let mut last = vec![0; (end - known.last) as usize];
    file.read_at(known.last, &mut last).map_err(|source| Error::io(path, "read", source))?;
    file.write_at(known.last, &last).map_err(|source| Error::io(path, "write", source))?;
    file.sync().map_err(|source| Error::io(path, "sync", source))
}

fn write(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Result<(), Error> {
    let file = disk.create(path).map_err(|source| Error::io(path, "create", source))?;
    file.write_at(0, bytes).map_err(|source| Error::io(path, "write", source))?;
    file.sync().map_err(|source| Error::io(path, "sync", source))
}

fn read(disk: &dyn Disk, tablet: TabletId) -> Result<Known, Error> {
    let path = path_of(tablet);
    let io = |what| {
        let path = path.clone();
        move |source| Error::io(path, what, source)
    };
    let file: Arc<dyn File> = disk.open(&path).map_err(io("open"))?;
    let mut bytes = vec![0; file.len().map_err(io("measure"))? as usize];
    let got = file.read_at(0, &mut bytes).map_err(io("read"))?;
    decode(&path, tablet, &bytes[..got])
}

#[cfg(test)]
mod tests;
