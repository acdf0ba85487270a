//! What a work needs of an engine, and how each is opened. One file in `peers/` for each; [`crate::ours`] is ours.

use std::path::Path;

use anyhow::Result;
use model::Compaction;

use crate::peers::{disk, fjall, redb, rocks, sled};

/// What is the same for all engines, as far as they can be told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of the cache of blocks or pages.
    pub cache: usize,
    /// Bytes of a memtable at which it goes to the disk.
    pub buffer: usize,
    /// Keep all that was written in memory, so that it is only in the log: `buffer` is out of reach.
    pub log_only: bool,
    /// Nothing is written while it is open.
    pub read_only: bool,
}

/// Bytes of a block before it is compressed.
pub const BLOCK: usize = 4 << 10;
/// Bits of a filter for each key.
pub const FILTER_BITS: usize = 10;
/// Threads for flushes and compactions.
pub const WORKERS: usize = 2;

/// An open engine with one keyspace.
pub trait Engine: Send + Sync {
    /// Writes one pair; returns when it is in the write-ahead log, and if `durable`, when that is synced.
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()>;
    /// Deletes a key; not synced.
    fn delete(&self, key: &[u8]) -> Result<()>;
    /// Writes many pairs as one batch; not synced.
    fn put_many(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;
    /// All that was written is durable.
    fn sync(&self) -> Result<()>;
    /// Flushes, and waits until no compaction is due.
    fn settle(&self) -> Result<()>;
    /// For one thread.
    fn reader(&self) -> Result<Box<dyn Reader + '_>>;
}

/// Takes a pair; copies what it wants to keep.
pub type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]);

/// Reads of one thread. Every call sees what was written before it.
pub trait Reader {
    /// Gives the value to `each`; false if there is none.
    fn get(&mut self, key: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<bool>;
    /// At most `limit` pairs in order from `from` on, or, in reverse, from `from` back.
    fn scan(&mut self, from: &[u8], limit: usize, reverse: bool, each: Each<'_>) -> Result<()>;
}

/// Ours, and what it is compared with.
pub const OURS: &str = "ours";
/// The engines, in the order of the table.
pub const ENGINES: [&str; 5] = [OURS, "rocksdb", "fjall", "redb", "sled"];
/// Ours with the other way of compaction; only if asked for.
pub const LEVELED: &str = "leveled";
/// No engine: a file to which the same bytes are written.
pub const DISK: &str = "disk";

/// Opens, or creates, an engine in a folder.
pub fn open(name: &str, folder: &Path, settings: &Settings) -> Result<Box<dyn Engine>> {
    Ok(match name {
        OURS => Box::new(crate::ours::Ours::open(folder, settings, Compaction::default())?),
        LEVELED => Box::new(crate::ours::Ours::open(folder, settings, Compaction::Leveled)?),
        "rocksdb" => Box::new(rocks::Rocks::open(folder, settings)?),
        "fjall" => Box::new(fjall::Fjall::open(folder, settings)?),
        "redb" => Box::new(redb::Redb::open(folder, settings)?),
        "sled" => Box::new(sled::Sled::open(folder, settings)?),
        DISK => Box::new(disk::Plain::open(folder)?),
        _ => anyhow::bail!("no engine {name}; there are {}", ENGINES.join(", ")),
    })
}

/// Has it a write-ahead log that is apart from its data, and recovered from after a crash?
pub fn has_log(name: &str) -> bool {
    [OURS, LEVELED, "rocksdb", "fjall"].contains(&name)
}

/// Is this a file of a write-ahead log? It is as long as it was allocated, however much data there is.
pub fn is_log(engine: &str, path: &Path) -> bool {
    let ends = |with: &str| path.extension().is_some_and(|extension| extension == with);
    match engine {
        OURS | LEVELED | "rocksdb" => ends("log"),
        "fjall" => ends("jnl"),
        _ => false,
    }
}
