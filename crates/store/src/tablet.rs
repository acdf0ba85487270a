//! A tablet as the node's shard has it: changes go in, views come out, and jobs that keep its memory small.
//!
//! ```text
//!   apply ──▶ live memtable ──freeze──▶ frozen memtable ──Job::Flush──▶ tables ──Job::Merge──▶ fewer tables
//! ```
//!
//! Invariant: flushed <= frozen <= applied; tables hold what came up to `flushed`, the frozen memtable what came up to
//! `frozen`, the live one the rest. A record is applied once and in order: after a start, the log is replayed from
//! `flushed` on. Nothing here touches the disk: [`crate::keeper::Keeper`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{Bytes, Change, LocalityId, Lsn, RowChanges, RowRange, RunId, Schema, TabletId, Timestamp};

use crate::compaction::{self, Choice, Urgency};
use crate::job::{Done, Inherited, Job, JobKind};
use crate::key::Seq;
use crate::memtable::Memtable;
use crate::output;
use crate::sstable::{Purpose, Table};
use crate::version::Version;
use crate::view::View;

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

/// What waits for flushes and merges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Bytes of all memtables, about.
    pub memory: usize,
    /// Flushed runs that a read of a row must look at, in the locality group that has most.
    pub runs: usize,
    /// Bytes that merges have to write before none is due, about.
    pub debt: u64,
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
        Tablet::of_version(id, Version::new(Vec::new(), Lsn::ZERO, Bytes::new()))
    }

    pub(crate) fn of_version(id: TabletId, version: Version) -> Tablet {
        let clock = version.tables().map(|table| table.properties().clock).max().unwrap_or_default();
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
        let own = self.version.placed();
        let own = own.filter(|(_, table)| table.damage().is_some() || table.bytes_within(&bounds) > 0);
        // What is of two tablets still cannot be shared, but is copied here as well.
        let part = |table: &Arc<Table>| if self.fused { table.within(&bounds) } else { Arc::clone(table) };
        let tables = own.map(|(run, table)| (run, part(table))).collect();
        let version = Version::new(tables, self.version.flushed, Bytes::new());
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
            let own = half.version.tables().map(|table| table.within(&half.bounds));
            tables.extend(own.filter(|table| table.damage().is_some() || table.bytes() > 0));
        }
        // Nothing of two tablets follows each other: each table is a run by itself, until all are copied.
        let run = |nth| RunId { age: Lsn(nth), ..RunId::default() };
        let tables = (0..).map(run).zip(tables).collect();
        let bounds = RowRange { start: self.bounds.start.clone(), end: right.bounds.end.clone() };
        Tablet {
            applied: self.applied.max(right.applied),
            clock: self.clock.max(right.clock),
            live: Arc::new(live),
            version: Arc::new(Version::new(tables, Lsn::ZERO, Bytes::new())),
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

    /// Applies the next record, which changes many rows, in their order; a row may come several times. Views see all of it
    /// or nothing.
    pub fn apply_batch(&mut self, lsn: Lsn, rows: &[RowChanges], version: Timestamp) {
        self.skip(lsn);
        self.clock = self.clock.max(version);
        let mut index = 0;
        for RowChanges { row, changes } in rows {
            self.live.add(Seq(lsn, index), row, changes, version);
            index += u32::try_from(changes.len()).expect("a batch has fewer changes");
        }
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
            purpose: Purpose::Serve,
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
        let tables: u64 = self.version.tables().map(|table| table.bytes_within(&self.bounds)).sum();
        (self.weight() + frozen) as u64 + tables
    }

    /// Freezes the memtable and returns the job that writes it. None if a flush is running or nothing came since the
    /// last one. `note` is what the node wants to know as of [`Tablet::applied`] after a restart. A flush that has
    /// failed is returned again as it was, with its own note.
    pub fn freeze(&mut self, note: Bytes, schema: &Arc<Schema>) -> Option<Job> {
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
                (true, false) => {
                    Inherited::Shared(self.version.placed().map(|(run, table)| (run, Arc::clone(table))).collect())
                }
                (true, true) => Inherited::Copied(self.version.tables().cloned().collect()),
            },
            schema: Arc::clone(schema),
        })
    }

    /// A merge, if one is due and none is running. It drops what `schema` drops as of the last applied record's
    /// version, so what is read as of a later record is the same after it as before, with one exception: a version
    /// that retention gave up by its rank may come to light again when a newer one is deleted
    /// ([`Change::DeleteCell`]), unless a merge has dropped it by then.
    pub fn choose(&mut self, schema: &Arc<Schema>, urgency: Urgency) -> Option<Job> {
        if self.merging || self.unsettled || self.version.runs().is_empty() {
            return None;
        }
        let misplaced = compaction::misplaced(&self.version, schema);
        if !misplaced.is_empty() {
            // Where a table cannot be read, the tablet is about to be learned anew.
            let sound = self.version.tables().all(|table| table.damage().is_none());
            return sound.then(|| self.regroup(misplaced, schema));
        }
        let policy = schema.storage.compaction;
        let groups = compaction::sorted(&self.version, &self.bounds);
        let choice = groups.iter().find_map(|runs| compaction::choose(runs, policy, urgency))?;
        let localities = BTreeSet::from([choice.into.locality]);
        Some(self.merge(&choice, localities, schema))
    }

    /// A merge of all tables, which drops everything that can be dropped; None if there is no table or a merge is running.
    pub fn choose_all(&mut self, schema: &Arc<Schema>) -> Option<Job> {
        if self.merging || self.unsettled || self.version.runs().is_empty() {
            return None;
        }
        let localities = self.version.runs().iter().map(|run| run.id.locality).collect();
        Some(self.regroup(localities, schema))
    }

    /// All tables of these locality groups are written anew, and families get to where they belong.
    fn regroup(&mut self, localities: BTreeSet<LocalityId>, schema: &Arc<Schema>) -> Job {
        let concerned = self.version.placed().filter(|(run, _)| localities.contains(&run.locality));
        let inputs = concerned.clone().map(|(_, table)| table.number()).collect();
        // Deepest first: where the oldest run stands, nothing is in the way of those that come.
        let into = concerned.map(|(run, _)| RunId { locality: LocalityId::default(), ..run }).min().unwrap_or_default();
        let choice = Choice { inputs, into, rewrite: true };
        let localities = localities.into_iter().chain(output::localities(schema)).collect();
        self.merge(&choice, localities, schema)
    }

    pub(crate) fn merge(&mut self, choice: &Choice, localities: BTreeSet<LocalityId>, schema: &Arc<Schema>) -> Job {
        self.merging = true;
        Job::Merge {
            tablet: self.id,
            plan: compaction::plan(&self.version, choice),
            into: choice.into,
            localities,
            schema: Arc::clone(schema),
            now: self.clock,
            bounds: RowRange::clone(&self.bounds),
        }
    }

    /// Flushed runs that a read of a row must look at, in the locality group that has most.
    pub fn young_runs(&self) -> usize {
        let young = self.version.runs().iter().filter(|run| run.id.level == 0);
        let mut counts = BTreeMap::new();
        young.for_each(|run| *counts.entry(run.id.locality).or_insert(0) += 1);
        counts.into_values().max().unwrap_or(0)
    }

    /// What waits for flushes and merges.
    pub fn pressure(&self, schema: &Schema) -> Pressure {
        let groups = compaction::sorted(&self.version, &self.bounds);
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.memtable.weight());
        Pressure {
            memory: self.live.weight() + frozen,
            runs: self.young_runs(),
            debt: groups.iter().map(|runs| compaction::debt(runs, schema.storage.compaction)).sum(),
        }
    }

    /// Takes what a job of this tablet has done.
    pub fn install(&mut self, done: Done) {
        match done {
            Done::Flushed { tablet, tables, upto, note } => {
                assert_eq!(tablet, self.id, "a job comes back to its tablet");
                let frozen = self.frozen.take().expect("a flush comes back to the frozen memtable");
                assert_eq!(frozen.upto, upto, "a flush comes back to the frozen memtable");
                let kept = self.version.placed().filter(|_| !self.fused);
                let all = kept.map(|(run, table)| (run, Arc::clone(table))).chain(tables).collect();
                self.version = Arc::new(Version::new(all, upto, note));
                (self.unsettled, self.fused) = (false, false);
            }
            Done::Merged { tablet, removed, added } => {
                assert_eq!(tablet, self.id, "a job comes back to its tablet");
                let removed: BTreeSet<u64> = removed.into_iter().collect();
                let kept = self.version.placed().filter(|(_, table)| !removed.contains(&table.number()));
                let all = kept.map(|(run, table)| (run, Arc::clone(table))).chain(added).collect();
                self.version = Arc::new(Version::new(all, self.version.flushed, self.version.note.clone()));
                self.merging = false;
            }
            Done::Adopted { tablet, tables, upto, note } => {
                assert_eq!(tablet, self.id, "a job comes back to its tablet");
                let bounds = std::mem::take(&mut self.bounds);
                *self = Tablet::of_version(tablet, Version::new(tables, upto, note));
                self.bounds = bounds;
            }
            Done::Dropped { .. }
            | Done::Received { .. }
            | Done::Fetched(_)
            | Done::Scrubbed { .. }
            | Done::LogChecked { .. }
            | Done::Digested { .. }
            | Done::Checkpointed(_)
            | Done::Checkpoints(_)
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
            | JobKind::Checkpoint
            | JobKind::Checkpoints
            | JobKind::Empty => {}
        }
    }
}

#[cfg(test)]
mod tests;
