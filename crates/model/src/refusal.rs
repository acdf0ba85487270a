//! Why a request is not served. A refusal is an answer of the protocol, not a fault: it says where to go instead.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use serde::{Deserialize, Serialize};

use crate::{Configuration, Heir, NodeId, TabletId, Timestamp};

/// A refused request. Unless it says otherwise, nothing has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The node does not keep the tablet.
    NoSuchTablet(TabletId),
    /// The node follows another configuration than the request was routed by, or is not its primary.
    WrongEpoch {
        /// The tablet.
        tablet: TabletId,
        /// The configuration that the node follows.
        current: Configuration,
    },
    /// The node is primary, but may not serve now: leases lapsed, or the group is being reconfigured. Try again soon.
    NotReady(TabletId),
    /// The request may or may not have been carried out: the node ceased to be primary while it waited. Sending it
    /// again with the same request id is safe.
    Unknown(TabletId),
    /// Fewer replicas than the table's `min_replicas` exist.
    TooFewReplicas {
        /// Members of the present configuration.
        have: u32,
        /// What the table demands.
        need: u32,
    },
    /// A replica's disk is full. Reads go on; writes resume when there is room.
    DiskFull(NodeId),
    /// Too much is waiting already. Try again after a pause.
    Overloaded,
    /// No such table.
    NoSuchTable(String),
    /// No such family in the table.
    NoSuchFamily {
        /// What was asked for.
        family: String,
        /// What there is.
        have: String,
    },
    /// The thing exists already.
    Exists(String),
    /// The request breaks a rule or a limit.
    Invalid(String),
    /// A file failed its checksum; the data is not returned.
    Corrupt(String),
    /// The master cannot be reached or does not lead.
    NoMaster,
    /// The replica may be older than the reader allows. Another one may not be.
    TooOld {
        /// The tablet.
        tablet: TabletId,
        /// How old the answer might be; `None` if the replica cannot know.
        lag: Option<Duration>,
    },
    /// The tablet has ended, and these go on with its rows.
    Moved {
        /// The tablet.
        tablet: TabletId,
        /// Their slices hold its slice.
        heirs: Vec<Heir>,
    },
    /// The tablet is written faster than it gets to disk. Reads go on; try again after a pause.
    Stalled {
        /// The tablet.
        tablet: TabletId,
        /// What it waits for.
        why: String,
        /// How long the pause should be.
        retry_after: Duration,
    },
    /// The table may neither be dropped nor lose families.
    Protected(String),
    /// Whoever asks may not do that: what, to what.
    Forbidden(String),
    /// The table of that name does not keep its changes.
    NoChanges(String),
    /// Changes after this version are asked for, and some of them may be gone already.
    ChangesGone {
        /// What was asked for.
        since: Timestamp,
        /// All after this are there.
        kept: Timestamp,
    },
}

impl Refusal {
    /// May the same request succeed at another node or a little later?
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Refusal::NoSuchTablet(_)
                | Refusal::WrongEpoch { .. }
                | Refusal::NotReady(_)
                | Refusal::Unknown(_)
                | Refusal::Overloaded
                | Refusal::NoMaster
                | Refusal::TooOld { .. }
                | Refusal::Moved { .. }
                | Refusal::Stalled { .. }
        )
    }

    /// How long whoever was refused should wait at least before it tries again.
    pub fn retry_after(&self) -> Duration {
        match self {
            Refusal::Stalled { retry_after, .. } => *retry_after,
            _ => Duration::ZERO,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NoSuchTablet(tablet) => write!(f, "this node does not keep tablet {tablet}"),
            Refusal::WrongEpoch { tablet, current } => {
                write!(f, "tablet {tablet} is in another configuration: {current:?}")
            }
            Refusal::NotReady(tablet) => write!(f, "tablet {tablet} is being reconfigured"),
            Refusal::Unknown(tablet) => {
                write!(f, "tablet {tablet} lost its primary while the request waited; it may have been carried out")
            }
            Refusal::TooFewReplicas { have, need } => {
                write!(f, "{have} replicas are alive and the table needs {need} to accept writes")
            }
            Refusal::DiskFull(node) => write!(f, "the disk of node {node} is full; writes resume when there is room"),
            Refusal::Overloaded => write!(f, "too many requests are waiting"),
            Refusal::NoSuchTable(name) => write!(f, "no table {name:?}"),
            Refusal::NoSuchFamily { family, have } => write!(f, "no family {family:?}; the table has: {have}"),
            Refusal::Exists(what) => write!(f, "{what} exists already"),
            Refusal::Invalid(what) => write!(f, "{what}"),
            Refusal::Protected(table) => {
                write!(f, "table {table:?} is protected: neither it nor a family of it may go")
            }
            Refusal::Forbidden(what) => write!(f, "not allowed: {what}"),
            Refusal::NoChanges(table) => write!(f, "table {table:?} does not keep its changes"),
            Refusal::ChangesGone { since, kept } => {
                write!(f, "changes after {since} are asked for, and those before {kept} are not kept any more")
            }
            Refusal::Corrupt(what) => write!(f, "damaged data: {what}"),
            Refusal::NoMaster => write!(f, "the master cannot be reached"),
            Refusal::TooOld { tablet, lag: Some(lag) } => {
                write!(f, "the replica of tablet {tablet} may be {} ms old, more than max_lag", lag.as_millis())
            }
            Refusal::TooOld { tablet, lag: None } => {
                write!(f, "the replica of tablet {tablet} cannot say how old it is: it has heard no primary yet")
            }
            Refusal::Stalled { tablet, why, .. } => write!(f, "tablet {tablet} takes no writes for now: {why}"),
            Refusal::Moved { tablet, heirs } => {
                write!(f, "tablet {tablet} was split or merged; its rows are in")?;
                heirs.iter().try_for_each(|heir| write!(f, " {}", heir.tablet))
            }
        }
    }
}
