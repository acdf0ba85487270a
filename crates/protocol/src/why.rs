//! Why a configuration is proposed: the evidence of whoever asks. It goes to the master with the proposal and is kept
//! with the decision, so that an operator can read afterwards who was silent for how long, or who was slow.

use alloc::string::String;
use core::fmt;
use core::time::Duration;
use model::{Lsn, NodeId};
use serde::{Deserialize, Serialize};

/// The reason for a proposed configuration. New ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Why {
    /// The primary goes on without a member that has granted no lease for so long.
    Silent {
        /// Whom it has not heard; if there are several, the one silent for longest.
        node: NodeId,
        /// Since its last sign of life.
        silent: Duration,
    },
    /// A secondary stands for the place of a primary that it has not heard for so long.
    PrimarySilent {
        /// Whom it followed.
        primary: NodeId,
        /// Since the last word.
        silent: Duration,
    },
    /// The primary was started again and asks for the next epoch with the same members.
    Returned,
    /// The learner has everything that is committed, up to here.
    CaughtUp {
        /// Who becomes a member.
        node: NodeId,
        /// The last record that its disk holds.
        upto: Lsn,
    },
    /// A member is alive but lags behind beyond the bound: its disk or its network is slow.
    Slow {
        /// Who.
        node: NodeId,
        /// How far its oldest unanswered record lies back.
        behind: Duration,
    },
    /// The primary hands its role over as planned, because the master or an operator wishes it.
    Transfer {
        /// To whom.
        to: NodeId,
    },
    /// A node is being emptied.
    Drain {
        /// Which.
        node: NodeId,
    },
    /// A member's data is damaged, and it is made anew from the others.
    Damaged {
        /// Whose.
        node: NodeId,
        /// What was found, in words.
        what: String,
    },
    /// An operator has decided.
    Operator(String),
    /// A member goes because another node has taken its place.
    Moved {
        /// Who goes.
        node: NodeId,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Silent { node, silent } => write!(f, "{node} has been silent for {} ms", silent.as_millis()),
            Why::PrimarySilent { primary, silent } => {
                write!(f, "the primary {primary} has been silent for {} ms", silent.as_millis())
            }
            Why::Returned => write!(f, "the primary was started again"),
            Why::CaughtUp { node, upto } => write!(f, "{node} has caught up to lsn {upto}"),
            Why::Slow { node, behind } => write!(f, "{node} is {} ms behind", behind.as_millis()),
            Why::Transfer { to } => write!(f, "the primary hands over to {to}"),
            Why::Drain { node } => write!(f, "{node} is being drained"),
            Why::Damaged { node, what } => write!(f, "the replica at {node} is damaged: {what}"),
            Why::Moved { node } => write!(f, "another node has taken the place of {node}"),
            Why::Operator(what) => write!(f, "an operator decided: {what}"),
        }
    }
}
