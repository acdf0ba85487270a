//! Where a replica stands in the protocol, for checkers and for whoever looks on.

use model::{Instant, NodeId};

use super::{Part, Replica};

/// What a replica is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Primary with live leases.
    Serving,
    /// Primary that has not heard of some member for half a lease.
    Lapsing,
    /// Primary with a configuration at the master that is not decided.
    Proposing,
    /// New primary that has not taken over all that its predecessor may have committed.
    Reconciling,
    /// Was primary before it started again, and asks for a new epoch.
    Returning,
    /// Secondary that hears its primary.
    Following,
    /// Secondary that writes to its disk that it obeys the primary no more.
    GivingUp,
    /// Secondary that has asked to become primary.
    Succeeding,
    /// On its way to become a member.
    Learning,
    /// Neither a member nor wanted.
    Spare,
}

impl Replica {
    /// What it is about now, by somebody who knows of these later leases ([`Replica::may_read_with`]).
    pub fn stage_with(&self, now: Instant, granted: impl Fn(NodeId) -> Option<Instant>) -> Stage {
        match &self.part {
            Part::Primary(primary) if !self.serves(primary) => Stage::Reconciling,
            Part::Primary(primary) if primary.proposes() => Stage::Proposing,
            Part::Primary(primary) => {
                let half = self.timing.lease / 2;
                let later = |node| granted(node).is_some_and(|sent| now + half < sent + self.timing.lease);
                let fresh = |node| primary.leased(node, now + half, self) || later(node);
                let all = primary.voters(self).all(fresh);
                if all { Stage::Serving } else { Stage::Lapsing }
            }
            Part::Returning(_) => Stage::Returning,
            Part::Follower(_) if !self.configuration.has(self.me) => Stage::Learning,
            Part::Follower(follower) if follower.is_saving() => Stage::GivingUp,
            Part::Follower(follower) if follower.has_asked() => Stage::Succeeding,
            Part::Follower(_) => Stage::Following,
            Part::Spare => Stage::Spare,
        }
    }
}
