//! The log of the consensus: votes, commands and how far they are committed, on disk before they are acknowledged.
//!
//! ```text
//!   Log ──Record──▶ Frames "raft.log"        each record is one synced frame
//!    └─────────────▶ Memory                  the same, applied: reads come from here
//! ```
//!
//! Recovery applies the records of the file in order. [`RaftLogStorage::purge`] writes what is left to a new file,
//! so file and memory stay as small as the snapshot policy wants. All file access is on threads that may block.

use super::frames::Frames;
use super::{Entry, Group, LogId, Vote};
use disk::Disk;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

pub(super) const FILE: &str = "raft.log";

/// What a frame holds, in postcard encoding. New kinds go to the end.
#[derive(Serialize, Deserialize)]
enum Record {
    /// Everything, at the beginning of a file.
    Whole(Box<Memory>),
    Vote(Vote),
    Committed(Option<LogId>),
    Append(Vec<Entry>),
    /// Entries behind this one are gone.
    TruncateAfter(Option<LogId>),
}

/// The log as it is.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Memory {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// Up to here a snapshot holds everything.
    purged: Option<LogId>,
    /// Dense, from behind `purged`.
    entries: BTreeMap<u64, Entry>,
}

/// The log; clones are the same one.
#[derive(Clone)]
pub struct Log {
    disk: Arc<dyn Disk>,
    memory: Arc<Mutex<Memory>>,
    /// Held while the disk works; taken before `memory`.
    file: Arc<Mutex<Frames>>,
}

impl Log {
    /// Opens the log below the disk's root or begins one. The text tells of a torn tail.
    pub fn open(disk: Arc<dyn Disk>) -> io::Result<(Log, Option<String>)> {
        let mut memory = Memory::default();
        let (frames, note) = if disk.exists(FILE)? {
            Frames::open(&*disk, FILE, |body| memory.apply(decode(&body)?))?
        } else {
            (Frames::replace(&*disk, FILE, &encode(&Record::Whole(Box::default())))?, None)
        };
        let log = Log { disk, memory: Arc::new(Mutex::new(memory)), file: Arc::new(Mutex::new(frames)) };
        Ok((log, note))
    }

    /// Writes and syncs the record, then applies it.
    async fn write(&self, record: Record) -> io::Result<()> {
        let log = self.clone();
        blocking(move || {
            let mut file = log.file.lock();
            file.append(&encode(&record))?;
            log.memory.lock().apply(record).map_err(io::Error::other)
        })
        .await
    }
}

impl Memory {
    /// Says what is wrong with the record, if it does not fit.
    fn apply(&mut self, record: Record) -> Result<(), String> {
        match record {
            Record::Whole(memory) => *self = *memory,
            Record::Vote(vote) => self.vote = Some(vote),
            Record::Committed(committed) => self.committed = committed,
            Record::Append(entries) => {
                for entry in entries {
                    let index = entry.log_id.index;
                    if let Some(last) = self.last().filter(|last| last.index + 1 != index) {
                        return Err(format!("entry {index} follows entry {}", last.index));
                    }
                    self.entries.insert(index, entry);
                }
            }
            Record::TruncateAfter(last) => {
                self.entries.split_off(&last.map_or(0, |last| last.index + 1));
            }
        }
        Ok(())
    }

    /// The last entry, also if it is purged.
    fn last(&self) -> Option<LogId> {
        self.entries.last_key_value().map(|(_, entry)| entry.log_id).or(self.purged)
    }
}

impl RaftLogStorage<Group> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> io::Result<LogState<Group>> {
        let memory = self.memory.lock();
        Ok(LogState { last_purged_log_id: memory.purged, last_log_id: memory.last() })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write(Record::Vote(*vote)).await
    }

    /// Synced like all else: a record that follows is proof that the ones before it were whole.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.write(Record::Committed(committed)).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.memory.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Group>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let written = self.write(Record::Append(entries.into_iter().collect())).await;
        callback.io_completed(match &written {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        });
        written
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.write(Record::TruncateAfter(last)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        let log = self.clone();
        blocking(move || {
            let mut file = log.file.lock();
            let mut kept = log.memory.lock().clone();
            kept.entries = kept.entries.split_off(&(upto.index + 1));
            kept.purged = Some(upto);
            let shorter = Frames::replace(&*log.disk, FILE, &encode(&Record::Whole(Box::new(kept.clone()))));
            *file = shorter.inspect_err(|_| file.give_up())?;
            *log.memory.lock() = kept;
            Ok(())
        })
        .await
    }
}

impl RaftLogReader<Group> for Log {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<Entry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        Ok(self.memory.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.memory.lock().vote)
    }
}

/// Runs it on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("our records are plain data, and memory grows")
}

pub(super) fn decode<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, String> {
    postcard::from_bytes(body).map_err(|error| format!("a record of another version: {error}"))
}
