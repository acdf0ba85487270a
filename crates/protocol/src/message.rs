//! Everything that machines say to each other. `docs/replication.md` has the table: who says what to whom, and why.

use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use model::event::Noted;
use model::request::{ReplicaReport, ScrubReport};
use model::{
    Assignment, ClusterId, Configuration, Epoch, Incarnation, Instant, Lsn, Merge, NodeId, RunId, Split, SplitAt,
    TabletId,
};
use serde::{Deserialize, Serialize};

use crate::Why;

/// A record of a group's log: the primary of `epoch` gave it `lsn`, once and for ever, so `(lsn, epoch)` names its
/// payload. An empty payload changes nothing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Its place.
    pub lsn: Lsn,
    /// The configuration whose primary put it there.
    pub epoch: Epoch,
    /// What the log keeps; opaque to the protocol.
    pub payload: Bytes,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}+{}", self.lsn, self.epoch, self.payload.len())
    }
}

/// What the replicas of one tablet say to each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GroupMessage {
    /// Primary to member or learner: write these to your log. Entries are dense.
    Prepare {
        /// The sender's configuration.
        epoch: Epoch,
        /// All up to here is committed.
        committed: Lsn,
        /// What to write; may be none.
        entries: Vec<Entry>,
    },
    /// Member or learner to primary: my disk holds your log up to here.
    Prepared {
        /// The sender's configuration.
        epoch: Epoch,
        /// Last entry.
        upto: Lsn,
    },
    /// Member or learner to primary: I lack the entry `from`; go back to it.
    Missing {
        /// The sender's configuration.
        epoch: Epoch,
        /// First entry that it lacks or has not compared.
        from: Lsn,
    },
    /// To a primary of an older configuration: there is a newer one; ask the master.
    Stale {
        /// The sender's configuration.
        epoch: Epoch,
    },
    /// Learner to primary: bring me up to date from here.
    Learn {
        /// The sender's configuration.
        epoch: Epoch,
        /// Number of this attempt; answers to an older one are ignored.
        attempt: u64,
        /// The learner holds all committed entries before this one.
        from: Lsn,
    },
    /// Primary to learner: what you lack has left my log; take this checkpoint.
    Offer {
        /// The sender's configuration.
        epoch: Epoch,
        /// The attempt that this answers.
        attempt: u64,
        /// The checkpoint holds everything up to here.
        upto: Lsn,
        /// The group's state beside its rows, opaque.
        note: Bytes,
        /// Its files.
        files: Vec<FileInfo>,
    },
    /// Learner to primary: a piece of a file of the offer, please.
    Fetch {
        /// The attempt.
        attempt: u64,
        /// Which file, by its place in the offer.
        file: u32,
        /// From which byte.
        offset: u64,
    },
    /// Primary to learner: a piece of a file.
    Chunk {
        /// The attempt.
        attempt: u64,
        /// Which file.
        file: u32,
        /// From which byte.
        offset: u64,
        /// The bytes; none means that the offer has lapsed.
        bytes: Bytes,
    },
    /// Secondary to the other secondaries: the primary has fallen silent here. Do you hear it?
    Inquiry {
        /// The sender's configuration.
        epoch: Epoch,
    },
    /// The answer to an inquiry: I do hear it, so it is only your link that is broken.
    Hears {
        /// The sender's configuration.
        epoch: Epoch,
    },
    /// Secondary to primary: the sums of what I hold as of that entry, which asks for them.
    Digest {
        /// The sender's configuration.
        epoch: Epoch,
        /// The entry.
        lsn: Lsn,
        /// Of the rows, by buckets, and of the completion records; none if there is nothing to compare.
        sums: Vec<u64>,
    },
    /// Primary to secondary: most hold something else than you.
    Diverged {
        /// The sender's configuration.
        epoch: Epoch,
        /// As of this entry.
        lsn: Lsn,
        /// The difference, in words.
        what: String,
    },
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileInfo {
    /// Its name at the sender.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Where it stands among the others.
    pub run: RunId,
}

/// A moment of a node's clock, and in which of its lives: every life has a clock of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp(pub Incarnation, pub Instant);

/// What nodes say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeMessage {
    /// Between replicas of a tablet.
    Group(TabletId, GroupMessage),
    /// Primaries of the sender ask the receiver for leases, all in one message (PacificA, 2.3). Of groups that rest
    /// nothing is said again: what the receiver was told of them up to `base` still holds, and it is asked for them too.
    Beacon {
        /// The sender's life.
        life: Incarnation,
        /// When, by the sender's clock; comes back in the answer.
        sent: Instant,
        /// The beacon on which this one builds: the receiver has answered it. `None` says everything anew.
        base: Option<Instant>,
        /// The newest stamp that the receiver has sent; comes back so that it knows how old what it hears may be.
        heard: Option<Stamp>,
        /// The sender has leases of everybody with whom it has groups that rest.
        firm: bool,
        /// Tablets of which there is something to say.
        groups: Vec<Line>,
        /// Tablets in which the sender does not ask the receiver any more.
        gone: Vec<TabletId>,
    },
    /// The receiver follows the sender and will not replace it for the grace period, in these groups and in all those of
    /// which it was told before, but for some.
    BeaconAck {
        /// The life that sent the beacon.
        life: Incarnation,
        /// From the beacon.
        sent: Instant,
        /// Whether it has taken in the beacon; if not, it lacks what the beacon builds on, and grants nothing.
        known: bool,
        /// The groups that the beacon named and for which it is granted.
        groups: Vec<(TabletId, Epoch)>,
        /// All groups of which it was told, now or before, that do not stand by the sender.
        without: Vec<TabletId>,
        /// When this was sent, by its sender's clock.
        stamp: Stamp,
        /// The receiver's disk is full: send it no new writes.
        disk_full: bool,
    },
}

/// What a beacon says of a tablet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Which.
    pub tablet: TabletId,
    /// The configuration of which the sender is the primary.
    pub epoch: Epoch,
    /// All up to here is committed.
    pub committed: Lsn,
    /// The sender has the leases of all its members.
    pub leased: bool,
}

/// What a node says to the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToMaster {
    /// I am here, and this is what I keep.
    Heartbeat {
        /// The cluster whose data lies on the node's disk; `None` on a disk that never joined one.
        cluster: Option<ClusterId>,
        /// Drawn when the disk was first used: tells a wiped disk from the one that held the data.
        disk: u64,
        /// The node's present life.
        incarnation: Incarnation,
        /// Where it serves gRPC.
        address: String,
        /// Its disk is full.
        disk_full: bool,
        /// The heartbeat on which this one builds: the master has answered it. `None` says everything anew.
        base: Option<Instant>,
        /// The replicas of which there is news since then.
        replicas: Vec<ReplicaReport>,
        /// Those that are not here any more.
        gone: Vec<TabletId>,
        /// When, by the node's clock; comes back in the answer.
        sent: Instant,
        /// How far it is with reading all that it keeps.
        scrub: ScrubReport,
    },
    /// Make this the configuration, if the present one is its predecessor (PacificA, 2.4), for this reason.
    Propose(TabletId, Configuration, Why),
    /// This happened here.
    Events {
        /// The node's present life.
        life: Incarnation,
        /// Number of the first of them in this life, from 1.
        first: u64,
        /// In order.
        events: Vec<Noted>,
    },
    /// The tablet has ended at that entry of its log, which is committed: its heirs may take its place in the map.
    Divided {
        /// Which.
        tablet: TabletId,
        /// The entry.
        lsn: Lsn,
        /// What it says.
        split: Split,
    },
    /// Nothing is kept here of this tablet, of which the master says that it has ended.
    Buried(TabletId),
    /// The split into `left` and another one is not in the tablet's log and never will be.
    Undivided {
        /// Which.
        tablet: TabletId,
        /// The first heir that the master had meant.
        left: TabletId,
        /// Why not.
        why: String,
    },
    /// The tablet is closed: the entry is committed, and no write follows it in that epoch.
    Closed {
        /// Which.
        tablet: TabletId,
        /// The configuration in which it is.
        epoch: Epoch,
        /// The entry.
        lsn: Lsn,
        /// For the sake of this one.
        heir: TabletId,
    },
    /// The tablet has ended at that entry of its log, which is committed: the heir may take its place, and that of the next.
    Merged {
        /// Which.
        tablet: TabletId,
        /// The entry.
        lsn: Lsn,
        /// What it says.
        merge: Merge,
    },
    /// The merge into this heir is not in the log of the left tablet and never will be, or the right one is not closed for it.
    Unmerged {
        /// The heir that the master had meant.
        heir: TabletId,
        /// Does the left one's primary say so?
        left: bool,
        /// Why not.
        why: String,
    },
}

/// What the master says to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromMaster {
    /// The heartbeat was heard. `cluster` is the cluster's id.
    Welcome {
        /// The cluster that the node belongs to from now on.
        cluster: ClusterId,
        /// Where the nodes are.
        directory: Vec<(NodeId, String)>,
        /// From the heartbeat.
        sent: Instant,
    },
    /// The node, in this life, may not join; it must stop and tell its operator why.
    Unwelcome(String, Incarnation),
    /// What the master decided of these tablets: news to the node, or answers to what it proposed.
    Assignments(Vec<Assignment>),
    /// The tables of these tablets are gone: remove them.
    Forget(Vec<TabletId>),
    /// The groups of these tablets are complete without this node, as of that epoch: remove what is spare.
    Release(Vec<(TabletId, Epoch)>),
    /// The primary of the tablet in that epoch shall hand its place to this secondary.
    HandOver(TabletId, Epoch, NodeId),
    /// The node's events up to this number are recorded.
    Kept {
        /// Of this life.
        life: Incarnation,
        /// The last one.
        upto: u64,
    },
    /// To a primary: split the tablet, in this epoch or not at all.
    Split {
        /// Which.
        tablet: TabletId,
        /// The configuration in which it was decided.
        epoch: Epoch,
        /// The heir that keeps the lower rows.
        left: TabletId,
        /// The other one.
        right: TabletId,
        /// Where.
        at: SplitAt,
    },
    /// These tablets have ended at that entry of their logs, which names this left heir: whoever holds it may apply
    /// it, and whoever does not holds nothing of worth.
    Ended(Vec<(TabletId, Lsn, TabletId)>),
    /// The heartbeat that was sent at this time builds on one that this master does not know: say everything.
    SayAll(Instant),
    /// To the primary of the tablet: compare its replicas now.
    Check(TabletId),
    /// Read all that lies there, now.
    Scrub,
    /// To a primary: take no more writes in this epoch.
    Close {
        /// Which.
        tablet: TabletId,
        /// The configuration in which it was decided.
        epoch: Epoch,
        /// What it is to be a part of.
        heir: TabletId,
    },
    /// To the primary of two tablets, of which the right one is closed: make one of both, in this epoch of the left one or
    /// not at all.
    Merge {
        /// The left one,
        tablet: TabletId,
        /// and its configuration.
        epoch: Epoch,
        /// The right one,
        right: TabletId,
        /// its configuration,
        right_epoch: Epoch,
        /// and its last entry.
        upto: Lsn,
        /// What both become.
        heir: TabletId,
    },
}
