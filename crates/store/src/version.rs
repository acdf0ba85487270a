//! The tables of a tablet at one time, as sorted runs.
//!
//! ```text
//!   locality 0:   run (level 6)  ▒▒▒▒ ▒▒▒▒ ▒▒▒▒ ▒▒▒▒      oldest; a table is ▒▒▒▒, its rows from left to right
//!                 run (level 5)     ▒▒▒▒   ▒▒▒▒
//!                 run (level 0)  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
//!                 run (level 0)  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒      youngest flush
//!   locality 1:   …
//! ```
//!
//! The tables of a run have no row in common, so a read of a row looks at one table of each run at most. What of two runs
//! is older, [`RunId`]'s order says; reads need not know, since keys tell it themselves.

use std::sync::Arc;

use model::{Bytes, Lsn, RunId};

use crate::key;
use crate::sstable::Table;

/// All tables, and what else the manifest says.
#[derive(Debug)]
pub(crate) struct Version {
    /// By locality group, oldest first.
    runs: Vec<Run>,
    /// The tables have everything up to this.
    pub flushed: Lsn,
    /// What the node knew as of `flushed`.
    pub note: Bytes,
}

/// Tables without a row in common.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Which.
    pub id: RunId,
    /// By their rows; those of which nothing can be read any more at the end.
    tables: Vec<Arc<Table>>,
    /// How many of them can be read.
    sound: usize,
}

impl Run {
    /// By their rows; those that cannot be read at the end.
    pub fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    fn new(id: RunId, mut tables: Vec<Arc<Table>>) -> Run {
        tables.sort_by(|a, b| {
            let key = |table: &Arc<Table>| (table.damage().is_some(), table.properties().first.clone());
            key(a).cmp(&key(b))
        });
        let sound = tables.partition_point(|table| table.damage().is_none());
        Run { id, tables, sound }
    }

    /// Two of its tables that have a row in common, though they must not.
    pub fn clash(&self) -> Option<(&Arc<Table>, &Arc<Table>)> {
        let clash =
            |pair: &&[Arc<Table>]| key::row_of(&pair[0].properties().last) >= key::row_of(&pair[1].properties().first);
        self.tables[..self.sound].windows(2).find(clash).map(|pair| (&pair[0], &pair[1]))
    }

    /// Those that may have keys from `start` on and before `end`.
    pub fn overlapping(&self, start: &[u8], end: Option<&[u8]>) -> impl Iterator<Item = &Arc<Table>> {
        let (sound, broken) = self.tables.split_at(self.sound);
        let from = sound.partition_point(|table| table.properties().last[..] < *start);
        let upto = end.map_or(sound.len(), |end| sound.partition_point(|table| table.properties().first[..] < *end));
        sound[from..upto.max(from)].iter().chain(broken)
    }
}

impl Version {
    /// The version with these tables.
    pub fn new(placed: Vec<(RunId, Arc<Table>)>, flushed: Lsn, note: Bytes) -> Version {
        let mut placed = placed;
        placed.sort_by_key(|(run, _)| *run);
        let run = |tables: &[(RunId, Arc<Table>)]| {
            Run::new(tables[0].0, tables.iter().map(|(_, table)| Arc::clone(table)).collect())
        };
        let runs = placed.chunk_by(|(a, _), (b, _)| a == b).map(run).collect();
        Version { runs, flushed, note }
    }

    /// By locality group, oldest first.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// All tables, with the run of each; those of a run by their rows.
    pub fn placed(&self) -> impl Iterator<Item = (RunId, &Arc<Table>)> + Clone {
        self.runs.iter().flat_map(|run| run.tables.iter().map(|table| (run.id, table)))
    }

    /// All tables.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> + Clone {
        self.runs.iter().flat_map(|run| &run.tables)
    }

    /// The table at this place of [`Version::tables`].
    pub fn table(&self, nth: usize) -> Option<&Arc<Table>> {
        self.tables().nth(nth)
    }

    /// Tables in which, by their rows, this one may be: at most one of each run, and those that cannot be read.
    pub fn for_row(&self, escaped_row: &[u8]) -> impl Iterator<Item = &Arc<Table>> {
        self.runs.iter().flat_map(move |run| {
            let (sound, broken) = run.tables.split_at(run.sound);
            let at = sound.partition_point(|table| table.properties().last[..] < *escaped_row);
            sound.get(at).into_iter().chain(broken)
        })
    }
}
