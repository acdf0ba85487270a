//! What can happen to the master, and what it wants to happen.

use bytes::Bytes;
use model::{AdminReply, AdminRequest, Event, NodeId, Refusal, Ticket, Timestamp};
use protocol::{FromMaster, ToMaster};

/// What can happen to the master.
#[derive(Clone, Debug)]
pub enum Input {
    /// A node speaks.
    FromNode(NodeId, ToMaster),
    /// A client asks, through some gateway.
    Admin(Ticket, AdminRequest),
    /// The consensus library has committed this command at this index of the log. Every committed command comes here,
    /// once, in order, at every master.
    Committed(u64, Bytes),
    /// This master leads from now on, and has applied everything that was committed before.
    Leading(u64),
    /// Another master leads, or nobody.
    Following,
    /// The present date, for events. The host says it now and then.
    Date(Timestamp),
    /// The deadline has come.
    Tick,
}

/// What the master wants to happen, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Bring this command to all masters, if this one still leads; it may get lost.
    Propose(Bytes),
    /// To a node. May get lost.
    Send(NodeId, FromMaster),
    /// The answer to a request.
    Reply(Ticket, AdminReply),
    /// The answer to a request that is not served.
    Refuse(Ticket, Refusal),
    /// Something that an operator may want to know: a stable name, and words. It is recorded soon.
    Event(&'static str, String),
    /// This is recorded now, at every master.
    Recorded(Event),
}
