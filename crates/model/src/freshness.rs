//! Reads that need not see the newest: what the reader allows, and what the replica says of its age.

use core::time::Duration;
use serde::{Deserialize, Serialize};

use crate::{Epoch, Lsn, NodeId};

/// What a read must see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// Every write that was acknowledged before it began. Only the primary can say.
    #[default]
    Linearizable,
    /// Some committed state. Any member of the group answers and says how old it may be.
    Eventual {
        /// A replica that may be older than this refuses; `None` takes any.
        max_lag: Option<Duration>,
    },
}

/// Which replica answered an eventual read, and how old its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// Who answered.
    pub node: NodeId,
    /// The configuration that it followed.
    pub epoch: Epoch,
    /// The answer holds all records up to here, and none after.
    pub applied: Lsn,
    /// Nothing is missing that was acknowledged longer ago than this, by the replica's clock. `None` if it cannot
    /// know: it has not heard a primary since it started.
    pub lag: Option<Duration>,
    /// Records that it knows to be committed and that are not in the answer.
    pub behind: u64,
}
