//! What others count on, and whether it is so: the promise is looked at after every step, not only the harm that would
//! come of it (invariants I3, I6, I9 and I15).
//!
//! ```text
//!   primary of the newest epoch ──"n2 has it up to 17"──▶ n2 runs: it keeps the tablet, and its disk holds it up to 17
//! ```

use std::collections::BTreeMap;

use model::request::Role;
use model::{Configuration, Instant, Lsn, NodeId, TabletId};
use node::Node;
use protocol::Replica;

use super::world::{Checked, World};
use crate::agenda::SECOND;

impl World {
    /// After a step of the node: what primaries count on, itself as such and others in it, is held.
    pub(super) fn check_holdings(&self, node: usize) -> Checked {
        let me = NodeId(node as u32);
        for (&tablet, decided) in &self.record.decided {
            if decided.primary == me {
                let Some(replica) = self.leads(tablet, decided) else { continue };
                for (peer, acked) in replica.acknowledged() {
                    self.check_held(tablet, me, peer, acked)?;
                }
            } else if let Some(primary) = self.leads(tablet, decided)
                && let Some((_, acked)) = primary.acknowledged().find(|(peer, _)| *peer == me)
            {
                self.check_held(tablet, decided.primary, me, acked)?;
            }
        }
        Ok(())
    }

    fn node(&self, node: NodeId) -> Option<&Node> {
        self.machines[node.0 as usize].process.as_ref().map(|process| &process.node)
    }

    /// The replica that leads the tablet in the newest epoch, if it knows.
    fn leads(&self, tablet: TabletId, decided: &Configuration) -> Option<&Replica> {
        let replica = self.node(decided.primary)?.replica(tablet)?;
        (replica.role() == Role::Primary && replica.epoch() == decided.epoch).then_some(replica)
    }

    fn check_held(&self, tablet: TabletId, primary: NodeId, peer: NodeId, acked: Lsn) -> Checked {
        let machine = &self.machines[peer.0 as usize];
        let Some(node) = self.node(peer).filter(|_| acked > Lsn::ZERO && !machine.is_amnesiac()) else { return Ok(()) };
        let held = match node.replica(tablet) {
            Some(replica) => replica.durable(),
            // What is damaged is no promise broken: it is no secret either.
            None if node.damaged().any(|(damaged, _)| damaged == tablet) => return Ok(()),
            None => {
                return Err(format!("{primary} counts on {acked} of {tablet} at {peer}, which keeps nothing of it"));
            }
        };
        match held < acked {
            true => Err(format!("{primary} counts on {acked} of {tablet} at {peer}, which holds it up to {held}")),
            false => Ok(()),
        }
    }

    /// Whoever is a member no more reads no more: those who go on will acknowledge without it.
    pub(super) fn check_removed(&mut self, before: &BTreeMap<TabletId, Configuration>) -> Checked {
        let mut all = Vec::new();
        for (tablet, decided) in &self.record.decided {
            let Some(before) = before.get(tablet).filter(|before| before.epoch != decided.epoch) else { continue };
            // One command changes one epoch, and the new primary was a member before.
            if decided.epoch != before.epoch.next() || !before.has(decided.primary) {
                return Err(format!("{tablet}: {decided:?} follows {before:?}"));
            }
            for removed in before.members().filter(|member| !decided.has(*member)) {
                all.push((*tablet, removed));
                let Some(process) = &self.machines[removed.0 as usize].process else { continue };
                let local = process.local(self.agenda.now());
                if process.node.may_read(*tablet, local) {
                    return Err(format!("{removed} is removed from {tablet} by {decided:?}, and may read"));
                }
            }
        }
        all.into_iter().for_each(|(tablet, node)| self.note_removed(tablet, node));
        Ok(())
    }

    /// Nodes that are being emptied get nothing new, from a second after the wish on.
    pub(super) fn check_drained(&mut self, before: &BTreeMap<TabletId, NodeId>) -> Checked {
        let now = self.agenda.now();
        let Some(master) = &self.mastery.master else { return Ok(()) };
        let state = master.state();
        // A master that starts goes through all that was decided before.
        if state.applied < self.record.noted {
            return Ok(());
        }
        let drained = &mut self.record.drained;
        drained.retain(|node, _| state.nodes.get(node).is_some_and(|known| known.draining));
        for (&node, _) in state.nodes.iter().filter(|(_, known)| known.draining) {
            drained.entry(node).or_insert(now);
        }
        for (tablet, group) in &state.groups {
            let Some(learner) = group.learner.filter(|learner| before.get(tablet) != Some(learner)) else { continue };
            if let Some(&since) = drained.get(&learner)
                && since + SECOND < now
            {
                let since = Instant(since);
                return Err(format!("{learner} is to be emptied since {since:?}, and shall learn {tablet}"));
            }
        }
        Ok(())
    }
}
