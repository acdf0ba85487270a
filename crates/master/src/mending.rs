//! Takes damaged replicas out of their groups, as soon as others can go on without them.
//!
//! ```text
//!   a secondary, or lost altogether ─▶ the configuration without it     a learner ─▶ no learner: a new epoch
//!   a primary that still serves     ─▶ hand over to one who is well, and then as above
//! ```
//!
//! Never takes the last copy away: somebody who is alive, of the present epoch, with something on disk and not damaged must remain. Until then a
//! damaged member stays what it is. Whoever was taken out says so in its reports, and [`crate::healing`] lets it learn
//! the tablet anew at once.

use model::request::{ReplicaReport, Role};
use model::{Instant, Lsn, NodeId, TabletId};
use protocol::{FromMaster, Why};

use crate::api::Effect;
use crate::machine::Master;
use crate::state::{Command, Group};

impl Master {
    /// Looks for damaged members and learners.
    pub(crate) fn mend(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let damaged: Vec<(TabletId, NodeId)> = self
            .heard
            .iter()
            .filter(|(node, _)| self.is_alive(now, **node))
            .flat_map(|(&node, heard)| {
                heard
                    .replicas
                    .values()
                    .filter(|report| report.damaged.is_some())
                    .map(move |report| (report.tablet, node))
            })
            .collect();
        for (tablet, node) in damaged {
            let lately = |&at: &Instant| now.since(at) < self.options.timing.heartbeat;
            let Some(group) = self.state.groups.get(&tablet).filter(|_| !self.asked.get(&tablet).is_some_and(lately))
            else {
                continue;
            };
            if let Some(remedy) = self.remedy(now, group, node) {
                self.asked.insert(tablet, now);
                match remedy {
                    Remedy::Decide(command) => {
                        out.push(Effect::Event("replica_quarantined", format!("{tablet}: {node} is damaged")));
                        self.propose(command, out);
                    }
                    Remedy::HandOver(message) => out.push(Effect::Send(node, message)),
                }
            }
        }
    }

    fn remedy(&self, now: Instant, group: &Group, node: NodeId) -> Option<Remedy> {
        let (tablet, configuration) = (group.tablet.id, &group.configuration);
        let report = self.report(node, tablet)?;
        if group.learner == Some(node) && report.role == Role::Learner {
            return Some(Remedy::Decide(Command::Learn { tablet, epoch: configuration.epoch, learner: None }));
        }
        let well = |member: &NodeId| {
            *member != node
                && self.is_alive(now, *member)
                && self.report(*member, tablet).is_some_and(|report| {
                    // What its disk does not hold yet, a crash takes away, and nobody has it then.
                    report.damaged.is_none()
                        && report.durable > Lsn::ZERO
                        && report.epoch == configuration.epoch
                        && matches!(report.role, Role::Primary | Role::Secondary)
                })
        };
        let heir = configuration.members().filter(well).max_by_key(|member| {
            // The present primary if it can be, else whoever has most.
            let committed = self.report(*member, tablet).map(|report| report.committed);
            (*member == configuration.primary, committed, core::cmp::Reverse(*member))
        })?;
        if !configuration.has(node) {
            return None;
        }
        if report.epoch != configuration.epoch {
            // What it does in this epoch it has not said yet. It may read by the leases of an older one, or be the
            // primary of this one since: who comes after its removal would know nothing of that (invariant I9).
            return None;
        }
        let next = match configuration.primary == node {
            true if report.role == Role::Primary => {
                return Some(Remedy::HandOver(FromMaster::HandOver(tablet, configuration.epoch, heir)));
            }
            // It has said that it answers nothing any more.
            true => configuration.succeeded_by(heir),
            // The primary is to go on: if it cannot, the others will say so.
            false if self.is_alive(now, configuration.primary) => configuration.without(node),
            false => return None,
        };
        let why = Why::Damaged { node, what: report.damaged.clone().unwrap_or_default() };
        Some(Remedy::Decide(Command::Configure { tablet, configuration: next, by: node, why: Some(why) }))
    }

    pub(crate) fn report(&self, node: NodeId, tablet: TabletId) -> Option<&ReplicaReport> {
        self.heard.get(&node)?.replicas.get(&tablet)
    }
}

enum Remedy {
    Decide(Command),
    HandOver(FromMaster),
}
