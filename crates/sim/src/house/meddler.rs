//! An operator who wants what is possible at the worst of all moments: replicas go back to where they have just left, and a
//! group gets another primary while its learner puts files in place, which takes long.

use model::{AdminRequest, NodeId, TabletId};
use node::Effect;
use store::Job;

use super::world::{OPERATOR, World};
use crate::agenda::{MS, SECOND};

/// In how many of 100 histories there is one.
pub(super) const MEDDLING: u64 = 25;

impl World {
    /// The node has just been taken out of the tablet's group.
    pub(super) fn note_removed(&mut self, tablet: TabletId, node: NodeId) {
        if self.climate.meddling {
            self.removed.push((tablet, node));
        }
    }

    /// Wants a replica back where it was last.
    pub(super) fn meddle(&mut self) {
        if !self.climate.meddling || self.agenda.now() >= self.healed_at {
            return;
        }
        let Some((tablet, to)) = self.removed.pop() else { return };
        let Some(from) = self.record.decided.get(&tablet).and_then(|decided| {
            let members: Vec<NodeId> = decided.members().collect();
            self.extra.pick(&members).copied()
        }) else {
            return;
        };
        let request = AdminRequest::MoveTablet { tablet, from, to };
        self.step_master(master::Input::Admin(OPERATOR, request));
    }

    /// How much longer the work takes, because it is that during which the meddler acts.
    pub(super) fn meddle_with(&mut self, effect: &Effect) -> u64 {
        let Effect::Run(_, Job::Adopt { tablet, .. }) = effect else { return 0 };
        if !self.climate.meddling || self.agenda.now() >= self.healed_at {
            return 0;
        }
        let Some(to) =
            self.record.decided.get(tablet).and_then(|decided| self.extra.pick(&decided.secondaries).copied())
        else {
            return 0;
        };
        self.say(format!("the operator wants {to} to lead {tablet}"));
        self.step_master(master::Input::Admin(OPERATOR, AdminRequest::Transfer { tablet: *tablet, to }));
        self.extra.between(100 * MS, 2 * SECOND)
    }
}
