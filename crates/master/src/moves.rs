//! Tablets on their way from one node to another, and nodes that are emptied.
//!
//! ```text
//!   Move: learner = to, leaving = from ─▶ `to` learns ─▶ is a member ─▶ `from` hands over, if it is primary ─▶ is removed
//! ```
//!
//! The group is larger by one meanwhile, never smaller. Whoever fails on the way ends the move, not the group: a learner
//! that dies is withdrawn, and if a member has gone when the newcomer is in, the one that was to leave stays.

use model::{Instant, NodeId, TabletId};
use protocol::{FromMaster, Mutant, Why};
use std::collections::BTreeMap;

use crate::api::Effect;
use crate::machine::Master;
use crate::placement::Load;
use crate::state::{Command, Group};

/// Tablets that are being moved to one node at a time, beside those that it learns because copies are missing.
const MOVES_PER_NODE: usize = 2;

impl Master {
    /// May the node get replicas?
    pub(crate) fn is_able(&self, now: Instant, node: NodeId) -> bool {
        let draining = self.state.nodes.get(&node).is_none_or(|known| known.draining);
        let draining = draining && !self.options.timing.planted.has(Mutant::DrainingIsAble);
        self.is_alive(now, node) && !draining && self.heard.get(&node).is_some_and(|heard| !heard.disk_full)
    }

    /// Takes note of a member that goes because it is slow.
    pub(crate) fn note_slow(&mut self, now: Instant, tablet: TabletId, why: &Why) {
        if let Why::Slow { node, .. } = why {
            let (times, last) = self.slow.entry((tablet, *node)).or_insert((0, now));
            if now.since(*last) > self.options.timing.patience {
                *times += 1;
            }
            *last = now;
        }
    }

    /// A node that was slow comes back after a pause that doubles, from one session on up to five minutes.
    pub(crate) fn is_resting(&self, now: Instant, tablet: TabletId, node: NodeId) -> bool {
        self.slow.get(&(tablet, node)).is_some_and(|&(times, last)| {
            let pause = self.options.timing.session * 2u32.pow(times.min(7));
            now.since(last) < pause.min(core::time::Duration::from_secs(300))
        })
    }

    /// Was the tablet not asked about just now?
    pub(crate) fn is_unasked(&self, now: Instant, tablet: TabletId) -> bool {
        self.asked.get(&tablet).is_none_or(|&at| now.since(at) >= self.options.timing.heartbeat)
    }

    /// The secondary that should take over from the primary: alive, steady, not being emptied, with the fewest tablets
    /// to lead.
    pub(crate) fn heir(&self, now: Instant, tablet: TabletId, group: &Group, load: &Load) -> Option<NodeId> {
        self.heirs(now, tablet, group).min_by_key(|&node| (load.primaries_of(node), node))
    }

    /// The secondaries that could.
    pub(crate) fn heirs(&self, now: Instant, tablet: TabletId, group: &Group) -> impl Iterator<Item = NodeId> {
        let fit = move |node: &NodeId| {
            let draining = self.state.nodes.get(node).is_none_or(|known| known.draining);
            let steady = self.heard.get(node).and_then(|heard| heard.replicas.get(&tablet));
            let steady = steady.is_some_and(|report| report.steady && report.epoch == group.configuration.epoch);
            self.is_alive(now, *node) && !draining && steady && !self.is_resting(now, tablet, *node)
        };
        group.configuration.secondaries.iter().copied().filter(fit).filter(|&node| group.leaving != Some(node))
    }

    /// Has the node said that it follows the group's present configuration?
    fn follows(&self, node: NodeId, tablet: TabletId, group: &Group) -> bool {
        let report = self.heard.get(&node).and_then(|heard| heard.replicas.get(&tablet));
        report.is_some_and(|report| report.epoch == group.configuration.epoch)
    }

    /// Asks the primary to hand over.
    pub(crate) fn order_hand_over(&mut self, now: Instant, tablet: TabletId, heir: NodeId, out: &mut Vec<Effect>) {
        let Some(group) = self.state.groups.get(&tablet) else { return };
        let order = FromMaster::HandOver(tablet, group.configuration.epoch, heir);
        out.push(Effect::Send(group.configuration.primary, order));
        self.asked.insert(tablet, now);
    }

    /// What is left to do of moves that have begun.
    pub(crate) fn carry_moves_on(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let load = Load::of(&self.state, self.state.nodes.keys().copied());
        let rash = self.options.timing.planted.has(Mutant::RemoveUnheard);
        let mut steps = Vec::new();
        for (&tablet, group) in &self.state.groups {
            if group.learner.is_some() || !self.is_unasked(now, tablet) {
                continue;
            }
            let wanted = self.state.tables.get(&group.tablet.table).map_or(1, |schema| usize::from(schema.replicas));
            // A move that was called off may leave one too many.
            let surplus = || {
                let secondaries = group.configuration.secondaries.iter().copied();
                secondaries.max_by_key(|&node| (load.replicas_of(node), node))
            };
            let too_many = group.configuration.size() > wanted;
            let Some(leaving) = group.leaving.or_else(|| too_many.then(surplus).flatten()) else { continue };
            if group.leaving.is_none() && !group.configuration.members().all(|node| self.is_alive(now, node)) {
                continue;
            }
            let rest = group.configuration.members().filter(|&node| node != leaving);
            let lives = rest.filter(|&node| self.is_alive(now, node)).count();
            steps.push((
                tablet,
                match lives >= wanted {
                    false => Step::Stay,
                    true if group.configuration.primary == leaving => {
                        Step::HandOver(self.heir(now, tablet, group, &load))
                    }
                    // Until it has heard of this epoch, it may be primary of the one before and read by old leases, which
                    // the members after its removal know nothing of.
                    true if !self.follows(leaving, tablet, group) && !rash => continue,
                    true => Step::Remove(leaving),
                },
            ));
        }
        for (tablet, step) in steps {
            match step {
                Step::Stay => {
                    self.propose(Command::Stay(tablet), out);
                    self.asked.insert(tablet, now);
                }
                Step::HandOver(Some(heir)) => self.order_hand_over(now, tablet, heir, out),
                Step::HandOver(None) => {}
                Step::Remove(node) => {
                    let Some(group) = self.state.groups.get(&tablet) else { continue };
                    let (configuration, by) = (group.configuration.without(node), group.configuration.primary);
                    let why = Some(Why::Moved { node });
                    self.propose(Command::Configure { tablet, configuration, by, why }, out);
                    self.asked.insert(tablet, now);
                }
            }
        }
    }

    /// Takes the tablets of nodes that shall be emptied elsewhere: first the primaries' places, then the copies, as far
    /// as there are nodes for them.
    pub(crate) fn empty_draining(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let draining = |node: &NodeId| self.state.nodes.get(node).is_some_and(|known| known.draining);
        if !self.state.nodes.values().any(|known| known.draining) {
            return;
        }
        let mut load = Load::of(&self.state, self.state.nodes.keys().copied().filter(|&node| self.is_able(now, node)));
        let mut learning = self.learning();
        let (mut orders, mut commands) = (Vec::new(), Vec::new());
        for (&tablet, group) in &self.state.groups {
            let Some(leaving) = group.configuration.members().find(draining) else { continue };
            if !self.is_unasked(now, tablet) {
                continue;
            }
            if draining(&group.configuration.primary)
                && let Some(heir) = self.heir(now, tablet, group, &load)
            {
                orders.push((tablet, heir));
                continue;
            }
            if group.learner.is_some() || group.leaving.is_some() {
                continue;
            }
            let free = |node: NodeId| {
                !group.configuration.has(node)
                    && learning.get(&node).copied().unwrap_or(0) < MOVES_PER_NODE
                    && !self.is_resting(now, tablet, node)
            };
            if let Some(to) = load.least_of(free) {
                load.count(to);
                *learning.entry(to).or_default() += 1;
                commands.push(Command::Move { tablet, epoch: group.configuration.epoch, from: leaving, to });
            }
        }
        for (tablet, heir) in orders {
            self.order_hand_over(now, tablet, heir, out);
        }
        for command in commands {
            self.propose_move(now, command, out);
        }
    }

    pub(crate) fn propose_move(&mut self, now: Instant, command: Command, out: &mut Vec<Effect>) {
        if let Command::Move { tablet, .. } = &command {
            self.asked.insert(*tablet, now);
        }
        self.propose(command, out);
    }

    /// How many tablets each node is learning.
    pub(crate) fn learning(&self) -> BTreeMap<NodeId, usize> {
        let mut learning = BTreeMap::new();
        for learner in self.state.groups.values().filter_map(|group| group.learner) {
            *learning.entry(learner).or_default() += 1;
        }
        learning
    }
}

/// The next step of a move whose newcomer is in.
enum Step {
    /// A member has gone meanwhile: whoever was to leave is needed.
    Stay,
    /// The primary leaves: it hands over first, as soon as there is somebody.
    HandOver(Option<NodeId>),
    Remove(NodeId),
}
