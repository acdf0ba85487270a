//! The works: what is done, with which data set, and for which values.

use serde::{Deserialize, Serialize};

/// Bytes of a value, usually.
pub const SMALL: usize = 100;
/// Bytes of a value in the other half of the rows.
pub const LARGE: usize = 1024;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Makes the data set that others read: all keys in an order of chance, in batches, settled.
    Load,
    /// Each key once, in order.
    FillSequential,
    /// Each key once, in an order of chance.
    FillRandom,
    /// Keys of chance in a full data set.
    Overwrite,
    /// As [`Kind::FillRandom`], by so many writers, each write acknowledged when it is synced.
    FillSync(u64),
    /// Keys of chance among a part of the keys, which fits into the cache and has been read before.
    ReadCached,
    /// Keys that are not there.
    ReadMissing,
    /// From a key of chance on 100 pairs, in order or in reverse.
    Seek { reverse: bool },
    /// Keys of chance, while another thread writes at a fixed rate.
    ReadWhileWriting,
    /// Deletes 900 keys of 1,000 that follow each other, then scans what is left; and so on.
    DeleteScan,
    /// Keys of chance; the kernel has forgotten the files, so what the cache has not comes from the disk.
    ReadCold,
    /// Each key once, in order, in batches, and a sync at the end; beside the same bytes written to a file.
    FillRaw,
    /// Fills the write-ahead log only, and is killed.
    Log,
    /// Opens what [`Kind::Log`] left.
    Recovery,
}

/// With which data an engine begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// None.
    Empty,
    /// The loaded set, which is only read.
    Loaded,
    /// A copy of the loaded set.
    Copied,
    /// What a killed process left.
    Killed,
}

/// A work of the table.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub name: &'static str,
    pub kind: Kind,
    pub base: Base,
    /// Not for small values as well.
    pub only_large: bool,
    /// Works of which the amplification of writes and space are measured, after all compactions are done.
    pub settles: bool,
}

const fn work(name: &'static str, kind: Kind, base: Base) -> Work {
    Work { name, kind, base, only_large: false, settles: false }
}

/// All works, in the order of the table. Those that read come before the one that makes the files cold.
pub const WORKS: [Work; 14] = [
    Work { settles: true, ..work("fill-seq", Kind::FillSequential, Base::Empty) },
    Work { settles: true, ..work("fill-random", Kind::FillRandom, Base::Empty) },
    Work { settles: true, ..work("overwrite", Kind::Overwrite, Base::Copied) },
    work("fill-sync-1", Kind::FillSync(1), Base::Empty),
    work("fill-sync-16", Kind::FillSync(16), Base::Empty),
    work("read-cached", Kind::ReadCached, Base::Loaded),
    work("read-missing", Kind::ReadMissing, Base::Loaded),
    work("seek-100", Kind::Seek { reverse: false }, Base::Loaded),
    work("seek-100-back", Kind::Seek { reverse: true }, Base::Loaded),
    work("read-while-writing", Kind::ReadWhileWriting, Base::Copied),
    work("delete-scan", Kind::DeleteScan, Base::Copied),
    work("read-cold", Kind::ReadCold, Base::Loaded),
    Work { only_large: true, ..work("fill-raw", Kind::FillRaw, Base::Empty) },
    Work { only_large: true, ..work("recovery", Kind::Recovery, Base::Killed) },
];

/// The name of a work with values of so many bytes.
pub fn title(name: &str, value: usize) -> String {
    if value == LARGE { format!("{name}/1KiB") } else { format!("{name}/{value}") }
}
