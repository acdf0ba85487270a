//! What can happen to a node, and what it wants to happen: the whole of its dealings with the world.

use bytes::Bytes;
use model::request::Request;
use model::{CheckpointAnswer, CheckpointOrder, Lsn, NodeId, Refusal, Reply, TabletId, Ticket, Timestamp};
use protocol::{FromMaster, NodeMessage, ToMaster};
use std::collections::BTreeMap;
use store::log::Record;
use store::{Done, Error, Job};

use crate::read::{Found, Read};

/// What can happen to a node.
#[derive(Debug)]
pub enum Input {
    /// A client asks. `wall` is the date at its arrival, from which the primary makes versions.
    Request {
        /// For the answer.
        ticket: Ticket,
        /// The present date.
        wall: Timestamp,
        /// What it asks.
        request: Request,
    },
    /// Somebody orders something about checkpoints; answered by [`Effect::Checkpoint`].
    Checkpoint(Ticket, CheckpointOrder),
    /// Another node speaks.
    FromNode(NodeId, NodeMessage),
    /// The master speaks.
    FromMaster(FromMaster),
    /// The first so many records of all [`Effect::Log`] since the node was opened are synced.
    Durable(u64),
    /// An [`Effect::Read`] is done.
    ReadDone(u64, Result<Found, Error>),
    /// An [`Effect::ReadLog`] is done.
    LogRead(u64, Result<Vec<Record>, Error>),
    /// An [`Effect::Run`] is done.
    JobDone(u64, Result<Done, Error>),
    /// Whether the log's disk has room for more than what is under way.
    Room(bool),
    /// The log occupies so many bytes.
    LogBytes(u64),
    /// The present date, for events. The host says it now and then.
    Date(Timestamp),
    /// There is no more input for now. The host says so after every batch of inputs.
    Settle,
    /// The deadline has come.
    Tick,
}

/// What a node wants to happen, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Append to the log and sync; many of these may share a sync. Then [`Input::Durable`] with the number of records
    /// since the node was opened.
    Log(Vec<Record>),
    /// To another node.
    Send(NodeId, NodeMessage),
    /// To the master.
    Report(ToMaster),
    /// Call [`Read::run`], anywhere, and give the result to [`Input::ReadDone`].
    Read(u64, Read),
    /// Read entries from the log, anywhere, then [`Input::LogRead`].
    ReadLog {
        /// For the answer.
        id: u64,
        /// Whose entries.
        tablet: TabletId,
        /// The first one.
        from: Lsn,
        /// Roughly how much.
        max_bytes: usize,
    },
    /// Call `Keeper::run`, on a thread that may block, then [`Input::JobDone`].
    Run(u64, Job),
    /// Remove what is not needed of the log: of each tablet the entries up to here.
    Trim(BTreeMap<TabletId, Lsn>),
    /// The answer to a request.
    Reply(Ticket, Reply),
    /// The answer to a request that is not served.
    Refuse(Ticket, Refusal),
    /// The answer to an [`Input::Checkpoint`]. Its tickets are others than those of requests.
    Checkpoint(Ticket, Result<CheckpointAnswer, Refusal>),
    /// Something that an operator may want to know.
    Event(Event),
    /// The node cannot go on, and this is why.
    Stop(String),
}

impl Effect {
    /// The answer to a request, whatever it is.
    pub(crate) fn answer(ticket: Ticket, answer: Result<Reply, Refusal>) -> Effect {
        match answer {
            Ok(reply) => Effect::Reply(ticket, reply),
            Err(refusal) => Effect::Refuse(ticket, refusal),
        }
    }
}

/// Something that an operator may want to know. The name is stable: scripts and alerts may match it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What kind of thing, such as `replica_role_changed`.
    pub name: &'static str,
    /// Of which tablet.
    pub tablet: Option<TabletId>,
    /// In words.
    pub what: String,
}

/// The payload of a checkpoint piece is at most this long.
pub const CHUNK_BYTES: usize = 1 << 20;

/// An empty payload.
pub(crate) const NOTHING: Bytes = Bytes::new();
