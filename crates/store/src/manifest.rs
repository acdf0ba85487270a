//! Which table files a tablet consists of: a small file per tablet that is replaced as a whole.
//!
//! ```text
//!   manifest/7:  offset  size  field
//!                     0     8  magic
//!                     8     4  version  1
//!                    12     4  len      bytes of the body; the file ends after it
//!                    16     4  crc      CRC-32C of bytes 0..16 and of the body
//!                    20   len  body     postcard of State
//! ```
//!
//! An edit is written to `manifest/7.new` and synced ([`Manifest::prepare`]), then renamed and the folder synced
//! ([`Manifest::commit`]). So a file that bears a tablet's name was synced before it got it, and any byte in it that is
//! wrong is damage: there is no torn tail to tell apart. A tablet that nothing was flushed of has no file.
//! Edits of a tablet cost two syncs; they come with flushes and merges, minutes apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::Disk;
use model::{Bytes, Lsn, TabletId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::error::{Error, again_if_unreadable};
use crate::sstable::block;
use crate::trash;

/// The folder of the manifests.
pub const DIR: &str = "manifest";
const MAGIC: [u8; 8] = *b"dipmanif";
const VERSION: u32 = 1;
const HEADER: usize = 8 + 4 + 4 + 4;
const NEW: &str = ".new";

/// What a tablet consists of on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The tablet.
    pub tablet: TabletId,
    /// Numbers of its tables, oldest first. They have the changes of all records
    pub tables: Vec<u64>,
    /// up to this one.
    pub flushed: Lsn,
    /// What the node wants to know as of `flushed`.
    pub note: Bytes,
}

/// How a tablet's state changes. What must follow each other does, or it is a bug of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A memtable has become a table, unless it held no change.
    Flushed {
        /// The new table.
        table: Option<u64>,
        /// It has what came after this,
        after: Lsn,
        /// up to this.
        upto: Lsn,
        /// The node's note as of `upto`.
        note: Bytes,
    },
    /// Tables that followed each other have become one, or none if nothing was left.
    Merged {
        /// The old ones, oldest first; not none.
        removed: Vec<u64>,
        /// The new one.
        added: Option<u64>,
    },
    /// The tablet has become what a peer sent.
    Adopted {
        /// The new tables, oldest first.
        tables: Vec<u64>,
        /// They have everything up to this.
        upto: Lsn,
        /// The peer's note as of `upto`.
        note: Bytes,
    },
}

/// The states of all tablets, as the disk has them.
pub struct Manifest {
    disk: Arc<dyn Disk>,
    tablets: BTreeMap<TabletId, State>,
}

/// An edit that is on the disk, but not yet under the tablet's name.
#[must_use]
pub struct Prepared {
    tablet: TabletId,
    state: State,
}

impl Manifest {
    /// Reads the manifests of all tablets, and says of which tablets it is damaged, and how. What was prepared and not
    /// committed is removed.
    pub fn open(disk: Arc<dyn Disk>) -> Result<(Manifest, BTreeMap<TabletId, String>), Error> {
        let (mut tablets, mut damaged) = (BTreeMap::new(), BTreeMap::new());
        for name in disk.list(DIR).map_err(|source| Error::io(DIR, "list", source))? {
            let path = format!("{DIR}/{name}");
            if name.ends_with(NEW) {
                disk.remove(&path).map_err(|source| Error::io(path, "remove", source))?;
            } else if let Ok(number) = name.parse() {
                let tablet = TabletId(number);
                match again_if_unreadable(|| Manifest::read_one(&*disk, tablet)) {
                    Ok(state) => {
                        tablets.insert(tablet, state);
                    }
                    Err(error) if error.is_corrupt() || error.is_unreadable() => {
                        damaged.insert(tablet, error.to_string());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        // A name that we see may not be durable: files that it does not name must not go before it is.
        disk.sync_dir(DIR).map_err(|source| Error::io(DIR, "sync", source))?;
        Ok((Manifest { disk, tablets }, damaged))
    }

    /// Reads the manifest of one tablet.
    pub fn read_one(disk: &dyn Disk, tablet: TabletId) -> Result<State, Error> {
        let path = path_of(tablet);
        let state = read(disk, &path)?;
        if state.tablet != tablet {
            return Err(Error::corrupt(path, 0, format!("the file is that of {}", state.tablet)));
        }
        Ok(state)
    }

    /// All tablets of which something is on the disk.
    pub fn tablets(&self) -> &BTreeMap<TabletId, State> {
        &self.tablets
    }

    /// The tablet is no more: its manifest goes to the trash, also a damaged one. Gives the tables that it named.
    pub fn throw_away(&mut self, tablet: TabletId, date: Timestamp) -> Result<Vec<u64>, Error> {
        trash::put(&*self.disk, &path_of(tablet), date)?;
        self.disk.sync_dir(DIR).map_err(|source| Error::io(DIR, "sync", source))?;
        Ok(self.tablets.remove(&tablet).map(|state| state.tables).unwrap_or_default())
    }

    /// Reads the tablet's manifest once more: it must say what it said.
    pub fn check(&self, tablet: TabletId) -> Result<(), Error> {
        match self.tablets.get(&tablet) {
            Some(state) if read(&*self.disk, &path_of(tablet))? != *state => {
                Err(Error::corrupt(path_of(tablet), 0, "it says something else than when it was written"))
            }
            _ => Ok(()),
        }
    }

    /// Writes down what will be after `edit`. Changes nothing yet, whether it fails or not.
    pub fn prepare(&self, tablet: TabletId, edit: Edit) -> Result<Prepared, Error> {
        let unborn = State { tablet, tables: Vec::new(), flushed: Lsn::ZERO, note: Bytes::new() };
        let state = self.tablets.get(&tablet).cloned().unwrap_or(unborn).after(edit);
        let path = format!("{}{NEW}", path_of(tablet));
        let written = write(&*self.disk, &path, &state);
        if written.is_err() {
            // It may lie there until the next start, but it might be the last bytes of a full disk.
            let _ = self.disk.remove(&path);
        }
        written?;
        Ok(Prepared { tablet, state })
    }

    /// Makes it so, and returns the tables that the tablet no longer has. After an error the edit may or may not
    /// outlive a crash: what either state names must stay.
    pub fn commit(&mut self, prepared: Prepared) -> Result<Vec<u64>, Error> {
        let Prepared { tablet, state } = prepared;
        let path = path_of(tablet);
        let renamed = self.disk.rename(&format!("{path}{NEW}"), &path);
        renamed.map_err(|source| Error::io(&path, "rename", source))?;
        self.disk.sync_dir(DIR).map_err(|source| Error::io(DIR, "sync", source))?;
        let kept = state.tables.clone();
        let before = self.tablets.insert(tablet, state);
        let before = before.map(|state| state.tables).unwrap_or_default();
        Ok(before.into_iter().filter(|table| !kept.contains(table)).collect())
    }
}

impl State {
    fn after(mut self, edit: Edit) -> State {
        match edit {
            Edit::Flushed { table, after, upto, note } => {
                assert_eq!(self.flushed, after, "flushes of {} follow each other", self.tablet);
                self.tables.extend(table);
                (self.flushed, self.note) = (upto, note);
            }
            Edit::Merged { removed, added } => {
                let run = run_of(&self.tables, &removed).expect("what is merged is a run of the tablet's tables");
                self.tables.splice(run, added);
            }
            Edit::Adopted { tables, upto, note } => {
                (self.tables, self.flushed, self.note) = (tables, upto, note);
            }
        }
        self
    }
}

/// Where `run` lies in `all`.
pub fn run_of(all: &[u64], run: &[u64]) -> Option<std::ops::Range<usize>> {
    let start = all.iter().position(|table| Some(table) == run.first())?;
    let range = start..start + run.len();
    (all.get(range.clone())? == run).then_some(range)
}

fn path_of(tablet: TabletId) -> String {
    format!("{DIR}/{}", tablet.0)
}

fn encode(state: &State) -> Vec<u8> {
    let body = postcard::to_allocvec(state).expect("plain values have a postcard");
    let len = u32::try_from(body.len()).expect("a tablet's state stays below 4 GiB");
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&len.to_le_bytes());
    let crc = block::crc(&[&bytes, &body]);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn decode(path: &str, bytes: &[u8]) -> Result<State, Error> {
    let corrupt = |offset, what| Error::corrupt(path, offset, what);
    let Some((header, body)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(corrupt(0, "the file is too short for a manifest"));
    };
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..8] != MAGIC || number(16) != block::crc(&[&header[..16], body]) {
        return Err(corrupt(0, "the checksum is wrong"));
    }
    if number(8) != VERSION {
        return Err(Error::Version { file: path.to_owned(), found: number(8), known: VERSION });
    }
    if number(12) as usize != body.len() {
        return Err(corrupt(12, "the length is wrong"));
    }
    postcard::from_bytes(body).map_err(|_| corrupt(HEADER as u64, "the body does not decode"))
}

fn write(disk: &dyn Disk, path: &str, state: &State) -> Result<(), Error> {
    let file = disk.create(path).map_err(|source| Error::io(path, "create", source))?;
    file.write_at(0, &encode(state)).map_err(|source| Error::io(path, "write", source))?;
    file.sync().map_err(|source| Error::io(path, "sync", source))
}

fn read(disk: &dyn Disk, path: &str) -> Result<State, Error> {
    let io = |what| move |source| Error::io(path, what, source);
    let file = disk.open(path).map_err(io("open"))?;
    let mut bytes = vec![0; file.len().map_err(io("measure"))? as usize];
    let got = file.read_at(0, &mut bytes).map_err(io("read"))?;
    decode(path, &bytes[..got])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State { tablet: TabletId(7), tables: vec![3, 300], flushed: Lsn(9), note: Bytes::from_static(b"note") }
    }

    /// A name is given only to what was synced, so whatever is wrong is damage.
    #[test]
    fn every_flipped_bit_and_every_cut_is_detected() {
        let good = encode(&state());
        assert_eq!(decode("manifest/7", &good).unwrap(), state());
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(decode("manifest/7", &bad).unwrap_err().is_corrupt(), "bit {bit} of byte {at}");
            }
            assert!(decode("manifest/7", &good[..at]).unwrap_err().is_corrupt(), "cut at {at}");
        }
        let longer = [&good[..], b"\0"].concat();
        assert!(decode("manifest/7", &longer).unwrap_err().is_corrupt());
    }

    /// Tablets of version 1 lie on disks: they must be readable for ever.
    #[test]
    fn the_form_of_version_1_is_pinned() {
        let hex: String = encode(&state()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "6469706d616e6966010000000b00000041f2a62a070203ac0209046e6f7465");
    }

    #[test]
    fn a_merge_replaces_a_run() {
        let edit = |removed: &[u64], added| Edit::Merged { removed: removed.to_vec(), added };
        let state = State { tables: vec![1, 2, 3, 4], ..state() };
        assert_eq!(state.clone().after(edit(&[2, 3], Some(9))).tables, [1, 9, 4]);
        assert_eq!(state.clone().after(edit(&[3, 4], None)).tables, [1, 2]);
        assert_eq!(run_of(&state.tables, &[2, 4]), None);
        assert_eq!(run_of(&state.tables, &[4, 5]), None);
    }
}
