//! How a table's rows lie on disks: locality groups and the way they are compacted (Bigtable 5.3 and 6).

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use serde::{Deserialize, Serialize};

use crate::{LocalityId, Lsn};

/// A table's settings for the engine. What does not fit them yet is brought into line by compaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// Which tables are merged, and when.
    pub compaction: Compaction,
    /// The locality groups; the first is [`LocalityGroup::default`]'s, in which families are unless they say otherwise.
    pub localities: Vec<LocalityGroup>,
    /// The id that the next locality group gets.
    pub next_locality: LocalityId,
}

/// Which sorted tables are merged, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compaction {
    /// Runs of similar size are merged into one: each byte is written about as often as there are runs, and there are
    /// about log2 of all bytes of them. For tables that are written more than read.
    #[default]
    Tiered,
    /// Runs on levels, each ten times as large as the one above, of which small parts are merged at a time: few runs for
    /// a read to look at and little room wasted, but more written.
    Leveled,
}

/// Families that lie in the same files, apart from those of other groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalityGroup {
    /// Its number within the table.
    pub id: LocalityId,
    /// Its name; as a family's.
    pub name: String,
    /// Its tables are read into memory when they are first needed, and stay there.
    pub in_memory: bool,
    /// How blocks are compressed.
    pub compression: Compression,
    /// Bytes of a block before it is compressed.
    pub block_bytes: u32,
    /// Which reads a table's filter spares.
    pub filter: Filter,
}

/// Which sorted run of a tablet a table belongs to. The tables of a run have no row in common; of two runs of a locality
/// group, that which comes first by this order is older wherever both have something of the same row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RunId {
    /// Whose families it has.
    pub locality: LocalityId,
    /// 0 where flushes arrive; a higher level is older, and has one run.
    pub level: u8,
    /// Tells runs of level 0 apart: position of the last record in it, at the time when it was made. 0 on other levels.
    pub age: Lsn,
}

impl RunId {
    /// A run on a level that has one.
    pub fn on_level(locality: LocalityId, level: u8) -> RunId {
        RunId { locality, level, age: Lsn::ZERO }
    }
}

impl Ord for RunId {
    fn cmp(&self, other: &RunId) -> core::cmp::Ordering {
        let key = |run: &RunId| (run.locality, Reverse(run.level), run.age);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for RunId {
    fn partial_cmp(&self, other: &RunId) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// How a block is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    /// As it is.
    None,
    /// LZ4: costs little time.
    #[default]
    Lz4,
    /// Zstandard, with a dictionary for the table where that pays: costs more time, saves more room.
    Zstd,
}

/// What a table's filter knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filter {
    /// Nothing.
    None,
    /// Rows.
    #[default]
    Rows,
    /// Rows, and each row's columns.
    Columns,
}

impl Compaction {
    /// All, by the names that people give them.
    pub const NAMES: [(&str, Compaction); 2] = [("tiered", Compaction::Tiered), ("leveled", Compaction::Leveled)];
}

impl Compression {
    /// All, by the names that people give them.
    pub const NAMES: [(&str, Compression); 3] =
        [("none", Compression::None), ("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];
}

impl Filter {
    /// All, by the names that people give them.
    pub const NAMES: [(&str, Filter); 3] =
        [("none", Filter::None), ("rows", Filter::Rows), ("columns", Filter::Columns)];
}

/// What shall be different about how a table's rows lie on disks. Empty changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageChange {
    /// How it is compacted from now on.
    pub compaction: Option<Compaction>,
    /// New locality groups, or other settings for those that are there.
    pub set: Vec<LocalityChange>,
    /// Families by name, and the locality groups in which they lie from now on.
    pub place: Vec<(String, String)>,
    /// Locality groups to drop; no family is in them any more when all else is done.
    pub drop: Vec<String>,
}

/// Settings of a locality group. What is not said stays as it is, or is as in [`LocalityGroup::default`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalityChange {
    /// Its name.
    pub name: String,
    /// Shall its tables stay in memory?
    pub in_memory: Option<bool>,
    /// How blocks are compressed.
    pub compression: Option<Compression>,
    /// Bytes of a block before it is compressed.
    pub block_bytes: Option<u32>,
    /// Which reads a table's filter spares.
    pub filter: Option<Filter>,
}

impl StorageChange {
    /// Does it change nothing?
    pub fn is_empty(&self) -> bool {
        *self == StorageChange::default()
    }
}

impl LocalityGroup {
    /// Bytes of a block, unless something else is asked for.
    pub const BLOCK_BYTES: u32 = 16 << 10;
}

impl Default for LocalityGroup {
    fn default() -> LocalityGroup {
        LocalityGroup {
            id: LocalityId(0),
            name: String::from("default"),
            in_memory: false,
            compression: Compression::default(),
            block_bytes: LocalityGroup::BLOCK_BYTES,
            filter: Filter::default(),
        }
    }
}

impl Default for Storage {
    fn default() -> Storage {
        let (compaction, localities) = (Compaction::default(), vec![LocalityGroup::default()]);
        Storage { compaction, localities, next_locality: LocalityId(1) }
    }
}

impl Storage {
    /// The locality group of that name.
    pub fn locality(&self, name: &str) -> Option<&LocalityGroup> {
        self.localities.iter().find(|locality| locality.name == name)
    }

    /// The locality group of that id.
    pub fn locality_by_id(&self, id: LocalityId) -> Option<&LocalityGroup> {
        self.localities.iter().find(|locality| locality.id == id)
    }
}
