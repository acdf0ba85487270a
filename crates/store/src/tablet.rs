//! A tablet as the node's shard has it: changes go in, views come out, and jobs that keep its memory small.
//!
//! ```text
//!   apply ──▶ live memtable ──freeze──▶ frozen memtable ──Job::Flush──▶ tables ──Job::Merge──▶ fewer tables
//! ```
//!
//! Invariant: flushed <= frozen <= applied; tables hold what came up to `flushed`, the frozen memtable what came up to
//! `frozen`, the live one the rest. A record is applied once and in order: after a start, the log is replayed from
//! `flushed` on. Nothing here touches the disk: [`crate::keeper::Keeper`] does.

use std::sync::Arc;

use model::{Bytes, Change, Lsn, RowRange, Schema, TabletId, Timestamp};

use crate::compaction;
use crate::job::{Done, Inherited, Job, JobKind};
use crate::manifest::run_of;
use crate::memtable::Memtable;
use crate::sstable::Table;
use crate::view::{Version, View};

/// The state of one tablet.
#[derive(Debug)]
pub struct Tablet {
    id: TabletId,
    /// Everything up to this is in memtables and tables.
    applied: Lsn,
    /// The latest version that a primary chose in what was applied.
    clock: Timestamp,
    live: Arc<Memtable>,
    frozen: Option<Frozen>,
    version: Arc<Version>,
    merging: bool,
    /// Rows outside are not its own, although its tables may have some: see [`Tablet::split`].
    bounds: Arc<RowRange>,
    /// It was made out of other tablets, and no manifest names it yet: until its first flush it is lost with the
    /// process, and is made out of them again.
    unsettled: bool,
    /// Likewise, and its tables are parts of those of two tablets.
    fused: bool,
}

/// A memtable that is, or is to be, written to a table.
#[derive(Debug)]
struct Frozen {
    memtable: Arc<Memtable>,
    upto: Lsn,
    clock: Timestamp,
    note: Bytes,
    /// Its job is out; else it has failed and is to be tried again.
    running: bool,
}

impl Tablet {
    /// A new, empty one.
    pub fn new(id: TabletId) -> Tablet {
        Tablet::of_version(id, Version { tables: Vec::new(), flushed: Lsn::ZERO, note: Bytes::new() })
    }

    pub(crate) fn of_version(id: TabletId, version: Version) -> Tablet {
        let clock = version.tables.iter().map(|table| table.properties().clock).max().unwrap_or_default();
        let (applied, live) = (version.flushed, Arc::default());
        Tablet {
            id,
            applied,
            clock,
            live,
            frozen: None,
            version: Arc::new(version),
            merging: false,
            bounds: Arc::default(),
            unsettled: false,
            fused: false,
        }
    }

    /// Makes a tablet out of the rows of this one that lie within `bounds`, as of [`Tablet::applied`]. It shares the
    /// tables, so that nothing is copied but what is in memory; merges take its own rows out of them by and by.
    pub fn split(&self, id: TabletId, bounds: RowRange) -> Tablet {
        let live = Memtable::default();
        for memtable in self.frozen.iter().map(|frozen| &frozen.memtable).chain([&self.live]) {
            live.copy(memtable, &bounds);
        }
        let own =
            self.version.tables.iter().filter(|table| table.damage().is_some() || table.bytes_within(&bounds) > 0);
        // What is of two tablets still cannot be shared, but is copied here as well.
        let tables = own.map(|table| if self.fused { table.within(&bounds) } else { Arc::clone(table) }).collect();
        let version = Version { tables, flushed: self.version.flushed, note: Bytes::new() };
        Tablet {
            id,
            applied: self.applied,
            clock: self.clock,
            live: Arc::new(live),
            frozen: None,
            version: Arc::new(version),
            merging: false,
            bounds: Arc::new(bounds),
            unsettled: true,
            fused: self.fused,
        }
    }

    /// Makes a tablet out of this one and the one that has the rows after its own. Until its first flush, which copies
    /// all of it, it reads what it needs of both ones' tables.
    pub fn fuse(&self, id: TabletId, right: &Tablet) -> Tablet {
        let (live, mut tables) = (Memtable::default(), Vec::new());
        for half in [self, right] {
            for memtable in half.frozen.iter().map(|frozen| &frozen.memtable).chain([&half.live]) {
                live.copy(memtable, &half.bounds);
            }
            let own = half.version.tables.iter().map(|table| table.within(&half.bounds));
            tables.extend(own.filter(|table| table.damage().is_some() || table.bytes() > 0));
        }
        let bounds = RowRange { start: self.bounds.start.clone(), end: right.bounds.end.clone() };
        Tablet {
            applied: self.applied.max(right.applied),
            clock: self.clock.max(right.clock),
            live: Arc::new(live),
            version: Arc::new(Version { tables, flushed: Lsn::ZERO, note: Bytes::new() }),
            bounds: Arc::new(bounds),
            unsettled: true,
            fused: true,
            ..Tablet::new(id)
        }
    }

    /// Does no manifest name it yet?
    pub fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// Is a flush running?
    pub fn is_flushing(&self) -> bool {
        self.frozen.as_ref().is_some_and(|frozen| frozen.running)
    }

    /// Only these rows are its own.
    pub fn set_bounds(&mut self, bounds: RowRange) {
        self.bounds = Arc::new(bounds);
    }

    /// Which one.
    pub fn id(&self) -> TabletId {
        self.id
    }

    /// Applies the changes of the next record. `version` is what the primary chose: it takes the place of
    /// [`Timestamp::SERVER`].
    pub fn apply(&mut self, lsn: Lsn, row: &Bytes, changes: &[Change], version: Timestamp) {
        self.skip(lsn);
        self.clock = self.clock.max(version);
        self.live.apply(lsn, row, changes, version);
    }

    /// The next record changes nothing.
    pub fn skip(&mut self, lsn: Lsn) {
        assert_eq!(lsn, self.applied.next(), "records of {} are applied one after the other", self.id);
        self.applied = lsn;
    }

    /// For the simulator, in which memory goes wrong without anybody noticing. False if there is nothing in memory.
    #[doc(hidden)]
    pub fn go_wrong(&self) -> bool {
        self.live.go_wrong()
    }

    /// Everything up to this is seen by views.
    pub fn applied(&self) -> Lsn {
        self.applied
    }

    /// Everything up to this is in tables, so the log need not keep it.
    pub fn flushed(&self) -> Lsn {
        self.version.flushed
    }

    /// The tablet as of [`Tablet::applied`].
    pub fn view(&self) -> View {
        View {
            tablet: self.id,
            at: self.applied,
            live: self.live.clone(),
            frozen: self.frozen.as_ref().map(|frozen| frozen.memtable.clone()),
            version: self.version.clone(),
            bounds: Arc::clone(&self.bounds),
        }
    }

    /// Bytes of the live memtable, about.
    pub fn weight(&self) -> usize {
        self.live.weight()
    }

    /// Changes in the live memtable.
    pub fn updates(&self) -> u64 {
        self.live.updates()
    }

    /// Bytes of all memtables, and of the tables' blocks that may have rows of it.
    pub fn bytes(&self) -> u64 {
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.memtable.weight());
        let tables: u64 = self.version.tables.iter().map(|table| table.bytes_within(&self.bounds)).sum();
        (self.weight() + frozen) as u64 + tables
    }

    /// Freezes the memtable and returns the job that writes it. None if a flush is running or nothing came since the
    /// last one. `note` is what the node wants to know as of [`Tablet::applied`] after a restart. A flush that has
    /// failed is returned again as it was, with its own note.
    pub fn freeze(&mut self, note: Bytes) -> Option<Job> {
        if self.frozen.is_none() {
            if self.applied == self.version.flushed && !self.unsettled {
                return None;
            }
            let memtable = std::mem::take(&mut self.live);
            self.frozen = Some(Frozen { memtable, upto: self.applied, clock: self.clock, note, running: false });
        }
        let frozen = self.frozen.as_mut().filter(|frozen| !frozen.running)?;
        frozen.running = true;
        Some(Job::Flush {
            tablet: self.id,
            memtable: frozen.memtable.clone(),
            after: self.version.flushed,
            upto: frozen.upto,
            clock: frozen.clock,
            note: frozen.note.clone(),
            inherited: match (self.unsettled, self.fused) {
                (false, _) => Inherited::Nothing,
                (true, false) => Inherited::Shared(self.version.tables.clone()),
                (true, true) => Inherited::Copied(self.version.tables.clone()),
            },
        })
    }

    /// A merge, if one is due and none is running. It drops what `schema` drops as of the last applied record's
    /// version, so what is read as of a later record is the same after it as before, with one exception: a version
    /// that retention gave up by its rank may come to light again when a newer one is deleted
    /// ([`Change::DeleteCell`]), unless a merge has dropped it by then.
    pub fn choose(&mut self, schema: &Schema) -> Option<Job> {
        if self.merging || self.unsettled {
            return None;
        }
        let sizes: Vec<u64> = self.version.tables.iter().map(|table| table.bytes()).collect();
        // A table that was shared in a split keeps others' rows on the disk: it is merged by itself.
        let foreign = |table: &Arc<Table>| table.is_mostly_foreign(&self.bounds);
        let shared = || self.version.tables.iter().position(foreign).map(|at| at..at + 1);
        let run = compaction::choose(&sizes).or_else(shared)?;
        Some(self.merge(run, schema))
    }

    /// A merge of all tables, which drops everything that can be dropped; None if there is no table or a merge is running.
    pub fn choose_all(&mut self, schema: &Schema) -> Option<Job> {
        let tables = self.version.tables.len();
        if self.merging || self.unsettled || tables == 0 { None } else { Some(self.merge(0..tables, schema)) }
    }

    fn merge(&mut self, run: std::ops::Range<usize>, schema: &Schema) -> Job {
        self.merging = true;
        let (oldest, inputs) = (run.start == 0, self.version.tables[run].to_vec());
        let (schema, bounds) = (schema.clone(), RowRange::clone(&self.bounds));
        Job::Merge { tablet: self.id, inputs, oldest, schema, now: self.clock, bounds }
    }

    /// Takes what a job of this tablet has done.
    pub fn install(&mut self, done: Done) {
        match done {
            Done::Flushed { tablet, table, upto, note } => {
                assert_eq!(tablet, self.id, "a job comes back to its tablet");
                let frozen = self.frozen.take().expect("a flush comes back to the frozen memtable");
                assert_eq!(frozen.upto, upto, "a flush comes back to the frozen memtable");
                let kept = if self.fused { &[][..] } else { &self.version.tables[..] };
                let tables = kept.iter().cloned().chain(table).collect();
                self.version = Arc::new(Version { tables, flushed: upto, note });
                (self.unsettled, self.fused) = (false, false);
            }
            Done::Merged { tablet, removed, added } => {
                assert_eq!(tablet, self.id, "a job comes back to its tablet");
                let Version { tables, flushed, note } = &*self.version;
                let numbers: Vec<u64> = tables.iter().map(|table| table.number()).collect();
                let run = run_of(&numbers, &removed).expect("what was merged is a run of the tablet's tables");
                let mut tables: Vec<Arc<Table>> = tables.clone();
                tables.splice(run, added);
                self.version = Arc::new(Version { tables, flushed: *flushed, note: note.clone() });
                self.merging = false;
            }
            Done::Adopted { tablet, tables, upto, note } => {
                assert_eq!(tablet, self.id, "a job comes back to its tablet");
                let bounds = std::mem::take(&mut self.bounds);
                *self = Tablet::of_version(tablet, Version { tables, flushed: upto, note });
                self.bounds = bounds;
            }
            Done::Dropped { .. }
            | Done::Received { .. }
            | Done::Fetched(_)
            | Done::Scrubbed { .. }
            | Done::LogChecked { .. }
            | Done::Digested { .. }
            | Done::Emptied { .. } => {}
        }
        assert!(self.flushed() <= self.applied);
    }

    /// A job of this tablet has failed: it is given out again when asked for.
    pub fn failed(&mut self, kind: JobKind) {
        match kind {
            JobKind::Flush => {
                if let Some(frozen) = &mut self.frozen {
                    frozen.running = false;
                }
            }
            JobKind::Merge => self.merging = false,
            JobKind::Drop
            | JobKind::Receive
            | JobKind::Adopt
            | JobKind::Fetch
            | JobKind::Scrub
            | JobKind::CheckLog
            | JobKind::Digest
            | JobKind::Empty => {}
        }
    }
}

#[cfg(test)]
mod tests;
