//! What clients ask of nodes and of the master, and what they hear.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use serde::{Deserialize, Serialize};

use crate::{
    Assignment, Change, ChangesPage, ChangesQuery, ClusterId, Configuration, DocumentChange, Documents, Epoch,
    EventPage, EventQuery, Freshness, Incarnation, Lsn, Mutation, NodeId, Outcome, Partition, ReadOptions, Refusal,
    RequestId, Retention, Rights, Row, RowChanges, RowRange, Schema, SettingsChange, Split, StorageChange, TabletId,
    Timestamp,
};

/// Names a request within one host, so that its answer finds the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A request for one tablet, routed by what the client believes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which tablet.
    pub tablet: TabletId,
    /// The configuration that the client knows; an older one than the node's is refused with the present one.
    pub epoch: Epoch,
    /// What to do.
    pub operation: Operation,
    /// What whoever asks may do; `None` if everything.
    pub by: Option<Arc<Rights>>,
}

/// What a client can do with the rows of a tablet. Families go by name until the node has looked them up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Changes a row; answered by [`Reply::Written`].
    Write {
        /// The same for every repetition.
        request: RequestId,
        /// What to change.
        mutation: Mutation<String>,
    },
    /// Changes rows, all of this tablet, all of them or none; answered by [`Reply::Written`] with one version.
    WriteMany {
        /// The same for every repetition.
        request: RequestId,
        /// As in a [`crate::Batch`].
        part_of: Vec<u64>,
        /// What to change, in this order.
        rows: Vec<RowChanges<String>>,
    },
    /// Reads a row; answered by [`Reply::Row`].
    Get {
        /// Which.
        row: Bytes,
        /// Which cells of it.
        options: ReadOptions<String>,
    },
    /// Reads rows by their keys; answered by [`Reply::Many`].
    GetMany {
        /// Which; all of this tablet.
        rows: Vec<Bytes>,
        /// Which cells of them.
        options: ReadOptions<String>,
    },
    /// Reads rows in key order or in reverse, a page at a time; answered by [`Reply::Rows`].
    Scan {
        /// Which rows; those of other tablets are passed over.
        range: RowRange,
        /// Which cells of them.
        options: ReadOptions<String>,
        /// Rows on a page, at least 1; the node may give fewer.
        rows: u32,
        /// From the last row to the first.
        reverse: bool,
    },
    /// Reads what has happened to rows, a page at a time, of a table that keeps its changes; answered by
    /// [`Reply::Changes`].
    Changes(ChangesQuery),
}

impl Operation {
    /// Bytes of keys and changes that it carries.
    pub fn weight(&self) -> usize {
        match self {
            Operation::Write { mutation, .. } => {
                mutation.row.len() + mutation.changes.iter().map(Change::weight).sum::<usize>()
            }
            Operation::WriteMany { rows, .. } => rows.iter().map(RowChanges::weight).sum(),
            Operation::GetMany { rows, .. } => rows.iter().map(Bytes::len).sum(),
            Operation::Get { row, .. }
            | Operation::Scan { range: RowRange { start: row, .. }, .. }
            | Operation::Changes(ChangesQuery { range: RowRange { start: row, .. }, .. }) => row.len(),
        }
    }
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The write is on the disk of every member of the group, or its condition did not hold.
    Written(Outcome),
    /// The row, or `None` if it has no such cell; and by whom and how old, if the read was eventual.
    Row(Option<Row>, Arc<Schema>, Option<Freshness>),
    /// As many of the rows that were asked for as fit into an answer, from the first on and at least one, each `None` if
    /// it has no such cell.
    Many(Vec<Option<Row>>, Arc<Schema>, Option<Freshness>),
    /// A page of rows.
    Rows {
        /// In the order that was asked for.
        rows: Vec<Row>,
        /// Where the next page begins, or in reverse before which row; `None` after the last.
        resume: Option<Bytes>,
        /// By which the cells' families have names.
        schema: Arc<Schema>,
        /// By whom and how old, if the scan was eventual.
        from: Option<Freshness>,
    },
    /// A page of changes, and by what its families have names.
    Changes(ChangesPage, Arc<Schema>),
}

/// What clients ask of the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminRequest {
    /// Makes a table with its tablets; answered by [`AdminReply::Table`].
    CreateTable(NewTable),
    /// Removes a table and its data; answered by [`AdminReply::Table`].
    DropTable(String),
    /// Changes families and how rows lie on disks; answered by [`AdminReply::Table`].
    AlterTable {
        /// Which table.
        table: String,
        /// New families, or new rules for families that exist.
        set: Vec<(String, Retention)>,
        /// Families to drop, with their data.
        drop: Vec<String>,
        /// Changes of how its rows lie on disks.
        storage: StorageChange,
        /// Changes of what else it promises.
        settings: SettingsChange,
    },
    /// Tables, tablets, who keeps them and where those live; answered by [`AdminReply::Map`].
    Map,
    /// All that is known of the cluster; answered by [`AdminReply::Status`].
    Status,
    /// Empties a node, or lets it be filled again; answered by [`AdminReply::Done`].
    DrainNode {
        /// Which.
        node: NodeId,
        /// Shall it be emptied?
        drain: bool,
    },
    /// Strikes a node that keeps nothing off the list, for ever; answered by [`AdminReply::Done`].
    RemoveNode(NodeId),
    /// Another node shall keep the tablet instead of one that does; answered by [`AdminReply::Done`] when it is decided.
    MoveTablet {
        /// Which.
        tablet: TabletId,
        /// Who keeps it now.
        from: NodeId,
        /// Who shall.
        to: NodeId,
    },
    /// A secondary shall be primary; answered by [`AdminReply::Done`] when the primary has been asked.
    Transfer {
        /// Of which tablet.
        tablet: TabletId,
        /// Which secondary.
        to: NodeId,
    },
    /// What could be done about a tablet whose members are all gone; answered by [`AdminReply::Losses`].
    Losses(TabletId),
    /// Begins a tablet anew whose members are all gone; answered by [`AdminReply::Done`].
    Recover {
        /// Which.
        tablet: TabletId,
        /// The present epoch, as [`Losses`] said it.
        epoch: Epoch,
        /// Who shall be its only member.
        from: NodeId,
        /// With nothing in it, instead of what `from` holds.
        empty: bool,
    },
    /// Who the masters are; answered by [`AdminReply::Masters`].
    Masters,
    /// Takes a master into the group; answered by [`AdminReply::Masters`].
    AddMaster {
        /// Its number.
        id: u32,
        /// Where it serves gRPC, `host:port`.
        address: String,
    },
    /// Takes a master out of the group; answered by [`AdminReply::Masters`].
    RemoveMaster(u32),
    /// What happened; answered by [`AdminReply::Events`].
    Events(EventQuery),
    /// Makes two tablets of one; answered by [`AdminReply::Split`] when they are there.
    SplitTablet {
        /// Which; of a table that is cut by ranges.
        tablet: TabletId,
        /// The first row of the second one; `None` leaves it to the tablet's primary, which halves the bytes.
        at: Option<Bytes>,
    },
    /// Compares a tablet's replicas; answered by [`AdminReply::Done`] when the primary has been asked, and by an event.
    CheckTablet(TabletId),
    /// Has a node read all that it keeps; answered by [`AdminReply::Done`] when the node has been asked.
    ScrubNode(NodeId),
    /// Makes one tablet of this one, of a table that is cut by ranges, and the next; answered by [`AdminReply::Done`] when
    /// they are being brought together.
    MergeTablet(TabletId),
    /// Takes a table away from everybody, but keeps its data for a while; answered by [`AdminReply::Table`].
    HideTable {
        /// Which.
        table: String,
        /// How long.
        keep: Duration,
    },
    /// Brings back the table of that name that was hidden last; answered by [`AdminReply::Table`].
    RestoreTable(String),
    /// Tables that are hidden; answered by [`AdminReply::Hidden`].
    Hidden,
    /// Documents whose names begin so; answered by [`AdminReply::Documents`].
    Documents(String),
    /// Changes a document; answered by [`AdminReply::Documents`] with it, or with none if it is removed.
    ChangeDocument(DocumentChange),
}

impl AdminRequest {
    /// Does it change nothing, so that it may be repeated after a lost answer?
    pub fn only_asks(&self) -> bool {
        matches!(
            self,
            AdminRequest::Map
                | AdminRequest::Status
                | AdminRequest::Losses(_)
                | AdminRequest::Events(_)
                | AdminRequest::Masters
                | AdminRequest::Hidden
                | AdminRequest::Documents(_)
        )
    }

    /// How long the master may let it wait for something to happen.
    pub fn waits(&self) -> Duration {
        match self {
            AdminRequest::Events(query) => Duration::from_millis(query.wait_ms.into()),
            _ => Duration::ZERO,
        }
    }
}

/// A table to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTable {
    /// Its name.
    pub name: String,
    /// Families with their rules.
    pub families: Vec<(String, Retention)>,
    /// How it is cut.
    pub partition: Partition,
    /// Replicas of each tablet; `None` takes the cluster's default.
    pub replicas: Option<u8>,
    /// Fewest replicas that accept writes; `None` takes the cluster's default.
    pub min_replicas: Option<u8>,
    /// How its rows lie on disks, where that is not the default.
    pub storage: StorageChange,
    /// What else it promises, where that is not the default.
    pub settings: SettingsChange,
}

/// The answer to an [`AdminRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdminReply {
    /// The table as it is now, or was when it was dropped.
    Table(Schema),
    /// Where everything is.
    Map(ClusterMap),
    /// How everything is.
    Status(ClusterStatus),
    /// It is done, or will be: in words.
    Done(String),
    /// What a tablet that has lost its members would lose for ever.
    Losses(Losses),
    /// The masters.
    Masters(Vec<MasterStatus>),
    /// What happened.
    Events(EventPage),
    /// The tablets that took the place of one.
    Split(Split),
    /// Tables that can be brought back.
    Hidden(Vec<Schema>),
    /// Documents.
    Documents(Documents),
}

/// What a tablet that has lost its members would lose for ever, should an operator begin it anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Its last configuration. Everything that was acknowledged is at each of these nodes.
    pub configuration: Configuration,
    /// Which of them live.
    pub alive: Vec<NodeId>,
    /// Other nodes that live and hold something of it, most first. What was acknowledged after what they hold is lost.
    pub others: Vec<(NodeId, ReplicaReport)>,
}

/// Where everything is: what a client needs to route. It may be old; nodes say so by refusing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Index of the master's log that it reflects.
    pub version: u64,
    /// Nodes with the addresses at which they serve gRPC, `host:port`.
    pub nodes: Vec<(NodeId, String)>,
    /// Tablets of all tables, by table and slice.
    pub tablets: Vec<Assignment>,
    /// No master answered, and this is the last that was heard: a table that it lacks may be there.
    pub old: bool,
    /// Version of the newest change of any document.
    pub documents: u64,
}

impl ClusterMap {
    /// Why a table is not in it.
    pub fn lacks(&self, table: &str) -> Refusal {
        if self.old { Refusal::NoMaster } else { Refusal::NoSuchTable(String::from(table)) }
    }
}

/// How everything is, as the leading master has heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// All nodes that ever joined.
    pub nodes: Vec<NodeStatus>,
    /// All tablets.
    pub tablets: Vec<TabletStatus>,
    /// All masters.
    pub masters: Vec<MasterStatus>,
}

/// One master, as the leading one has heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterStatus {
    /// Its number.
    pub id: u32,
    /// Where it serves gRPC.
    pub address: String,
    /// Is it the one that leads?
    pub leads: bool,
    /// Does it only catch up, without a vote yet?
    pub learns: bool,
    /// Milliseconds since it was heard; `None` if not since this master leads.
    pub heard_ms_ago: Option<u64>,
    /// Entries of the log that it lacks; `None` if unknown.
    pub behind: Option<u64>,
}

impl MasterStatus {
    /// A master that has not answered for so many milliseconds is called down.
    const DOWN_MS: u64 = 1_500;

    /// Has it answered lately?
    pub fn is_alive(&self) -> bool {
        self.heard_ms_ago.is_some_and(|ms| ms < MasterStatus::DOWN_MS)
    }

    /// In a word.
    pub fn state(&self) -> &'static str {
        match (self.leads, self.is_alive(), self.learns) {
            (true, ..) => "leads",
            (_, false, _) => "down",
            (_, true, true) => "learns",
            (_, true, false) => "follows",
        }
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Which.
    pub node: NodeId,
    /// Where it serves gRPC.
    pub address: String,
    /// Has it been heard within the session time?
    pub alive: bool,
    /// Its present or last life.
    pub incarnation: Incarnation,
    /// Milliseconds since it was heard; `None` if not since this master leads.
    pub heard_ms_ago: Option<u64>,
    /// Is its disk full?
    pub disk_full: bool,
    /// Is it being emptied?
    pub draining: bool,
    /// How far it is with reading all that it keeps.
    pub scrub: ScrubReport,
}

/// How far a node is with reading all that it keeps, to find damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Of the pass under way, in percent; 0 between two passes.
    pub percent: u8,
    /// The date at which it had last read everything, in this life.
    pub completed: Option<Timestamp>,
    /// How often it has met damage in this life, whoever was reading.
    pub damage: u64,
}

/// One tablet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TabletStatus {
    /// What the master decided.
    pub assignment: Assignment,
    /// What its replicas last reported.
    pub replicas: Vec<(NodeId, ReplicaReport)>,
}

/// What a node reports of a replica with every heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// Which tablet.
    pub tablet: TabletId,
    /// The configuration it follows.
    pub epoch: Epoch,
    /// Version of the schema it has.
    pub schema: u32,
    /// The learner it knows of.
    pub learner: Option<NodeId>,
    /// What it does.
    pub role: Role,
    /// Last record that its disk holds.
    pub durable: Lsn,
    /// Last record that it knows to be committed.
    pub committed: Lsn,
    /// A primary whose leases are live, or a secondary that hears its primary.
    pub steady: bool,
    /// Bytes of the tablet's tables and memtables.
    pub bytes: u64,
    /// What that it had written cannot be read any more, if so: it must not be relied on.
    pub damaged: Option<String>,
    /// Requests per second that it has served lately, in two digits.
    pub load: u64,
    /// It is written faster than it gets to disk: new writes wait, or are refused.
    pub stalled: bool,
}

/// What a replica does in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Orders the writes.
    Primary,
    /// Follows.
    Secondary,
    /// Catches up, and counts for nothing yet.
    Learner,
    /// Was a member once and is not wanted any more.
    Spare,
}
