//! Work that takes long, as values: complete in themselves, so that any thread can do it.
//!
//! A [`crate::tablet::Tablet`] (or the node) makes a [`Job`], [`crate::keeper::Keeper::run`] does it, and
//! [`crate::tablet::Tablet::install`] takes what was [`Done`]. Jobs that change one tablet never overlap; whoever runs
//! them sees to it. A job that failed changed nothing that counts, and may be run again.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::checkpoint::Part;
use model::{Bytes, FamilyId, LocalityId, Lsn, RowRange, RunId, Schema, TabletId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::checkpoint;
use crate::compaction::Plan;
use crate::digest::Sums;
use crate::log::{self, LogReader};
use crate::memtable::Memtable;
use crate::scrub;
use crate::sstable::Table;
use crate::view::View;

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// What its keeper calls it; only for people.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
    /// Where it stands among the others.
    pub run: RunId,
}

/// What a tablet has of those it was made of, until its first flush.
#[derive(Clone, Debug, Default)]
pub enum Inherited {
    /// Nothing: it was not made of others, or has files of its own.
    #[default]
    Nothing,
    /// These tables, which it shares with another tablet.
    Shared(Vec<(RunId, Arc<Table>)>),
    /// Parts of these tables, which are copied: files of two tablets do not follow each other in time, and each may have
    /// rows of the other, which are older than the other's own.
    Copied(Vec<Arc<Table>>),
}

/// Something to be done on the disk.
#[derive(Clone, Debug)]
pub enum Job {
    /// Writes a frozen memtable to tables, one for each locality group.
    Flush {
        /// Of which tablet.
        tablet: TabletId,
        /// What to write; without changes, only `upto` and the note are.
        memtable: Arc<Memtable>,
        /// It has what came after this,
        after: Lsn,
        /// up to this.
        upto: Lsn,
        /// The latest version that a primary had chosen by then.
        clock: Timestamp,
        /// The node's note as of `upto`.
        note: Bytes,
        /// What the tablet has of those it was made of, if this is its first flush.
        inherited: Inherited,
        /// In which locality groups families are.
        schema: Arc<Schema>,
    },
    /// Merges tables.
    Merge {
        /// Of which tablet.
        tablet: TabletId,
        /// Which ones, and which only move.
        plan: Plan,
        /// What comes of them belongs to this run, of the families' locality groups.
        into: RunId,
        /// These groups.
        localities: BTreeSet<LocalityId>,
        /// By which families and retention are judged,
        schema: Arc<Schema>,
        /// as of this time.
        now: Timestamp,
        /// What lies outside goes.
        bounds: RowRange,
    },
    /// Forgets a tablet: its files go to the trash.
    Drop {
        /// Which.
        tablet: TabletId,
        /// The present date.
        date: Timestamp,
    },
    /// Writes down a piece of a checkpoint that a peer sends. Pieces of an older attempt are removed.
    Receive {
        /// Of which tablet.
        tablet: TabletId,
        /// Tells one transfer from the next; rises.
        attempt: u64,
        /// Its place in the list of files.
        file: u32,
        /// Where in the file.
        offset: u64,
        /// What belongs there.
        bytes: Bytes,
    },
    /// Checks the files of a checkpoint that has been received, and makes them the tablet, in place of all that it had.
    Adopt {
        /// Which tablet.
        tablet: TabletId,
        /// Which transfer.
        attempt: u64,
        /// Its files, as the peer's [`View::files`] had them.
        files: Vec<FileInfo>,
        /// They have everything up to this.
        upto: Lsn,
        /// The peer's note as of `upto`.
        note: Bytes,
    },
    /// Reads raw bytes of a checkpoint, for a peer.
    Fetch {
        /// Pins the checkpoint.
        view: View,
        /// Place in the view's list of files.
        file: u32,
        /// From where,
        offset: u64,
        /// how much at most.
        len: u32,
    },
    /// Reads a part of what a tablet has on the disk, to see that it is whole.
    Scrub {
        /// Of this one.
        view: View,
        /// From here on.
        from: scrub::Place,
        /// About so much.
        bytes: u64,
    },
    /// Reads a part of the log, to see that it is whole.
    CheckLog {
        /// By this reader,
        reader: LogReader,
        /// from here on,
        from: log::Checked,
        /// about so much.
        bytes: u64,
    },
    /// Sums up a part of what a tablet holds, to compare it with its peers'. See [`crate::digest`].
    Digest {
        /// Of this one.
        view: View,
        /// From this row on.
        from: Bytes,
        /// About so much.
        bytes: u64,
        /// By which families and retention are judged,
        schema: Arc<Schema>,
        /// as of this time.
        now: Timestamp,
        /// Families of which replicas may hold different versions.
        without: BTreeSet<FamilyId>,
        /// What came before.
        sums: Box<Sums>,
    },
    /// Adds what tables hold of a tablet to a checkpoint. See [`crate::checkpoint`].
    Checkpoint {
        /// Of this one.
        view: View,
        /// The checkpoint, whose name must be [`crate::checkpoint::check_name`]'s, and what is known of the tablet beside
        /// the view.
        part: Box<Part>,
    },
    /// Does something about a whole checkpoint.
    Checkpoints(checkpoint::Order),
    /// Removes what has been in the trash for long.
    Empty {
        /// Since before this date.
        until: Timestamp,
        /// About so much at a time.
        bytes: u64,
    },
}

/// What a job does, without what it does it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobKind {
    /// [`Job::Flush`]
    Flush,
    /// [`Job::Merge`]
    Merge,
    /// [`Job::Drop`]
    Drop,
    /// [`Job::Receive`]
    Receive,
    /// [`Job::Adopt`]
    Adopt,
    /// [`Job::Fetch`]
    Fetch,
    /// [`Job::Scrub`]
    Scrub,
    /// [`Job::CheckLog`]
    CheckLog,
    /// [`Job::Digest`]
    Digest,
    /// [`Job::Checkpoint`]
    Checkpoint,
    /// [`Job::Checkpoints`]
    Checkpoints,
    /// [`Job::Empty`]
    Empty,
}

impl Job {
    /// What it does.
    pub fn kind(&self) -> JobKind {
        match self {
            Job::Flush { .. } => JobKind::Flush,
            Job::Merge { .. } => JobKind::Merge,
            Job::Drop { .. } => JobKind::Drop,
            Job::Receive { .. } => JobKind::Receive,
            Job::Adopt { .. } => JobKind::Adopt,
            Job::Fetch { .. } => JobKind::Fetch,
            Job::Scrub { .. } => JobKind::Scrub,
            Job::CheckLog { .. } => JobKind::CheckLog,
            Job::Digest { .. } => JobKind::Digest,
            Job::Checkpoint { .. } => JobKind::Checkpoint,
            Job::Checkpoints(_) => JobKind::Checkpoints,
            Job::Empty { .. } => JobKind::Empty,
        }
    }

    /// To which tablet, if it is about one.
    pub fn tablet(&self) -> Option<TabletId> {
        match self {
            Job::Flush { tablet, .. }
            | Job::Merge { tablet, .. }
            | Job::Drop { tablet, .. }
            | Job::Receive { tablet, .. }
            | Job::Adopt { tablet, .. } => Some(*tablet),
            Job::Fetch { view, .. }
            | Job::Scrub { view, .. }
            | Job::Digest { view, .. }
            | Job::Checkpoint { view, .. } => Some(view.tablet()),
            Job::CheckLog { .. } | Job::Checkpoints(_) | Job::Empty { .. } => None,
        }
    }
}

/// What has been done, durably.
#[derive(Clone, Debug)]
pub enum Done {
    /// A memtable is on the disk.
    Flushed {
        /// Of which tablet.
        tablet: TabletId,
        /// The new tables; none if there was no change.
        tables: Vec<(RunId, Arc<Table>)>,
        /// Everything up to this is in tables.
        upto: Lsn,
        /// The node's note as of `upto`.
        note: Bytes,
    },
    /// Tables have been merged.
    Merged {
        /// Of which tablet.
        tablet: TabletId,
        /// Numbers of the old ones, and of those that stand elsewhere now.
        removed: Vec<u64>,
        /// The new ones, and where the others stand now.
        added: Vec<(RunId, Arc<Table>)>,
    },
    /// The tablet is forgotten.
    Dropped {
        /// Which.
        tablet: TabletId,
    },
    /// The piece is written, though not synced: adopting does that.
    Received {
        /// Of which tablet.
        tablet: TabletId,
        /// Which transfer.
        attempt: u64,
        /// Which file.
        file: u32,
        /// Where the piece ends.
        end: u64,
    },
    /// The tablet is what the peer had.
    Adopted {
        /// Which tablet.
        tablet: TabletId,
        /// Its tables.
        tables: Vec<(RunId, Arc<Table>)>,
        /// They have everything up to this.
        upto: Lsn,
        /// The peer's note as of `upto`.
        note: Bytes,
    },
    /// Bytes of a checkpoint; fewer than asked for only at the end of the file.
    Fetched(Bytes),
    /// It is whole.
    Scrubbed {
        /// So much was read.
        bytes: u64,
        /// Where to go on; `None` at the end of the tablet.
        next: Option<scrub::Place>,
    },
    /// That part of the log is whole.
    LogChecked {
        /// So much was read.
        bytes: u64,
        /// Where to go on; `None` at its end.
        next: Option<log::Checked>,
    },
    /// A part is summed up.
    Digested {
        /// With what came before.
        sums: Box<Sums>,
        /// So much was read.
        bytes: u64,
        /// The row to go on with; `None` at the end of the tablet.
        next: Option<Bytes>,
    },
    /// The checkpoint has the tablet, whose tables' bytes it shares with the node for now, or has not.
    Checkpointed(checkpoint::Added),
    /// What came of an order.
    Checkpoints(checkpoint::Outcome),
    /// The trash is emptier.
    Emptied {
        /// By so much.
        bytes: u64,
        /// There is more to remove.
        more: bool,
    },
}
