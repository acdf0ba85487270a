//! Evens out what the nodes carry: bytes, numbers of tablets, and whose primaries they are.
//!
//! One tablet or two at a time, only where it helps by much more than it costs, and not while copies are missing: the
//! cluster has other worries then (design notes, 6.14).

use model::{Instant, NodeId, TabletId};
use std::collections::BTreeMap;

use crate::api::Effect;
use crate::machine::Master;
use crate::placement::Load;
use crate::state::{Command, Group};

/// What every tablet weighs beside its bytes: files, beacons, a memtable.
const TABLET_WEIGHT: u64 = 1 << 20;
/// Tablets on their way at a time in the whole cluster.
const MOVES: usize = 2;
/// Primaries that are asked to hand over in one round.
const HAND_OVERS: usize = 8;
/// With more than this part of all tablets short of copies, nothing is evened out.
const MOST_SHORT: usize = 20;

impl Master {
    pub(crate) fn even_out(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let Some(pause) = self.options.balance_after else { return };
        if self.leading.is_none_or(|(since, _)| now.since(since) < pause.max(self.options.timing.session)) {
            return;
        }
        if self.lacking.len() * MOST_SHORT > self.state.groups.len() || self.state.nodes.len() < 2 {
            return;
        }
        let settled = |tablet: TabletId| self.settled.get(&tablet).is_none_or(|&since| now.since(since) >= pause);
        let under_way = self.state.groups.values().filter(|group| group.learner.is_some()).count();
        let choice = if under_way < MOVES { self.choose_move(now, &settled) } else { None };
        if let Some(command) = choice {
            self.propose_move(now, command, out);
            return;
        }
        for (tablet, heir) in self.choose_hand_overs(now, &settled) {
            self.order_hand_over(now, tablet, heir, out);
        }
    }

    /// A tablet that goes from the node that carries most to the one that carries least.
    fn choose_move(&self, now: Instant, settled: &dyn Fn(TabletId) -> bool) -> Option<Command> {
        let mut carried: BTreeMap<NodeId, u64> =
            self.state.nodes.keys().copied().filter(|&node| self.is_able(now, node)).map(|node| (node, 0)).collect();
        for (&tablet, group) in &self.state.groups {
            let weight = self.weight(tablet);
            for node in group.configuration.members().chain(group.learner).filter(|&node| group.leaving != Some(node)) {
                carried.entry(node).and_modify(|sum| *sum += weight);
            }
        }
        let (&from, &most) = carried.iter().max_by_key(|(node, sum)| (**sum, core::cmp::Reverse(**node)))?;
        let (&to, &least) = carried.iter().min_by_key(|(node, sum)| (**sum, **node))?;
        // A move must leave the two closer to each other by a tenth of the larger, or by two tablets.
        let gap = most - least;
        if gap < (most / 10).max(2 * TABLET_WEIGHT) {
            return None;
        }
        let fits = |&(&tablet, group): &(&TabletId, &Group)| {
            group.configuration.has(from)
                && !group.configuration.has(to)
                && group.learner.is_none()
                && group.leaving.is_none()
                && group.configuration.members().all(|node| self.is_alive(now, node))
                && settled(tablet)
                && self.is_unasked(now, tablet)
                && self.weight(tablet) * 2 <= gap
                && !self.is_resting(now, tablet, to)
        };
        // The heaviest that helps: fewest moves; of equals one that it does not lead.
        let chosen = self.state.groups.iter().filter(fits);
        let (&tablet, group) = chosen.max_by_key(|(tablet, group)| {
            (self.weight(**tablet), group.configuration.primary != from, core::cmp::Reverse(**tablet))
        })?;
        Some(Command::Move { tablet, epoch: group.configuration.epoch, from, to })
    }

    /// Primaries' places that go to nodes that lead fewer tablets.
    fn choose_hand_overs(&self, now: Instant, settled: &dyn Fn(TabletId) -> bool) -> Vec<(TabletId, NodeId)> {
        let mut load = Load::of(&self.state, self.state.nodes.keys().copied().filter(|&node| self.is_able(now, node)));
        let mut chosen = Vec::new();
        for (&tablet, group) in &self.state.groups {
            if chosen.len() >= HAND_OVERS {
                break;
            }
            let primary = group.configuration.primary;
            let free = group.learner.is_none() && group.leaving.is_none() && settled(tablet);
            if !free || !self.is_alive(now, primary) || !self.is_unasked(now, tablet) {
                continue;
            }
            if let Some(heir) = self.heir(now, tablet, group, &load)
                && load.primaries_of(primary) > load.primaries_of(heir) + 1
            {
                load.hand_over(primary, heir);
                chosen.push((tablet, heir));
            }
        }
        chosen
    }

    fn weight(&self, tablet: TabletId) -> u64 {
        let reports = self.heard.values().filter_map(|heard| heard.replicas.get(&tablet));
        TABLET_WEIGHT + reports.map(|report| report.bytes).max().unwrap_or(0)
    }
}
