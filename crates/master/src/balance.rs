//! Evens out what the nodes carry: bytes, numbers of tablets, whose primaries they are, and what is asked of them.
//!
//! Requests count only if one node serves more than twice as many as another, and 500 per second more: then a primary's
//! place goes there, or a copy that can get it. Who leads a busy tablet is not changed for the sake of bytes or numbers.
//!
//! One large tablet or two at a time, or a few small ones, only where it helps by much more than it costs, and not while copies are missing: the
//! cluster has other worries then (design notes, 6.14).

use model::{Instant, NodeId, TabletId};
use std::collections::BTreeMap;

use crate::api::Effect;
use crate::healing::SMALL;
use crate::machine::Master;
use crate::placement::Load;
use crate::state::{Command, Group};

/// What every tablet weighs beside its bytes: files, beacons, a memtable.
const TABLET_WEIGHT: u64 = 1 << 20;
/// Tablets on their way at a time in the whole cluster, if one is large, and otherwise.
const MOVES: usize = 2;
const SMALL_MOVES: usize = 16;
/// Primaries that are asked to hand over in one round.
const HAND_OVERS: usize = 8;
/// Requests per second that are no reason to do anything.
const LEAST_LOAD: u64 = 500;
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
        let served = self.served(now);
        let settled = |tablet: TabletId| {
            self.settled.get(&tablet).is_none_or(|&since| now.since(since) >= pause) && !self.is_wished(tablet)
        };
        let under_way = self.state.groups.values().filter(|group| group.learner.is_some()).count();
        if let Some((tablet, heir)) = self.choose_relief(now, &served, &settled) {
            self.order_hand_over(now, tablet, heir, out);
            return;
        }
        let by_load = if under_way < MOVES { self.choose_move_by_load(now, &served, &settled) } else { None };
        let moves = match by_load {
            Some(command) => vec![command],
            None => self.choose_moves(now, under_way, &settled),
        };
        if !moves.is_empty() {
            moves.into_iter().for_each(|command| self.propose_move(now, command, out));
            return;
        }
        for (tablet, heir) in self.choose_hand_overs(now, &served, &settled) {
            self.order_hand_over(now, tablet, heir, out);
        }
    }

    /// Tablets that go from the node that carries most to the one that carries least.
    fn choose_moves(&self, now: Instant, under_way: usize, settled: &dyn Fn(TabletId) -> bool) -> Vec<Command> {
        let Some((from, to, gap)) = self.widest_gap(now).filter(|_| under_way < SMALL_MOVES) else { return Vec::new() };
        let fits = |&(&tablet, group): &(&TabletId, &Group)| {
            // Who leads a busy tablet was chosen by its load.
            let busy = group.configuration.primary == from && self.load(tablet, from) >= LEAST_LOAD;
            group.configuration.has(from)
                && !busy
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
        let fit = self.state.groups.iter().filter(fits);
        let mut fit: Vec<_> = fit
            .map(|(&tablet, group)| {
                let led = group.configuration.primary == from;
                (core::cmp::Reverse(self.weight(tablet)), led, tablet, group.configuration.epoch)
            })
            .collect();
        fit.sort_unstable();
        let mut moved = 0;
        let helps = |&(core::cmp::Reverse(weight), ..): &(_, _, _, _)| {
            moved += weight;
            (under_way < MOVES || weight < SMALL) && moved * 2 <= gap
        };
        let most = match fit.first() {
            Some((core::cmp::Reverse(weight), ..)) if *weight >= SMALL => 1,
            _ => SMALL_MOVES - under_way,
        };
        let chosen = fit.into_iter().take_while(helps).take(most);
        chosen.map(|(_, _, tablet, epoch)| Command::Move { tablet, epoch, from, to }).collect()
    }

    /// The node that carries most, the one that carries least, and how far they are apart, if that is worth a move.
    fn widest_gap(&self, now: Instant) -> Option<(NodeId, NodeId, u64)> {
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
        (gap >= (most / 10).max(2 * TABLET_WEIGHT)).then_some((from, to, gap))
    }

    /// Primaries' places that go to nodes that lead fewer tablets.
    fn choose_hand_overs(
        &self,
        now: Instant,
        served: &BTreeMap<NodeId, u64>,
        settled: &dyn Fn(TabletId) -> bool,
    ) -> Vec<(TabletId, NodeId)> {
        let idlest = served.values().copied().min().unwrap_or(0);
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
                && !is_clear(served.get(&heir).copied().unwrap_or(0) + self.load(tablet, primary), idlest)
            {
                load.hand_over(primary, heir);
                chosen.push((tablet, heir));
            }
        }
        chosen
    }

    /// A primary's place that goes from the node that serves most requests to one that serves far fewer.
    fn choose_relief(
        &self,
        now: Instant,
        served: &BTreeMap<NodeId, u64>,
        settled: &dyn Fn(TabletId) -> bool,
    ) -> Option<(TabletId, NodeId)> {
        let (&from, &most) = served.iter().max_by_key(|(node, sum)| (**sum, core::cmp::Reverse(**node)))?;
        let mut best = None;
        for (&tablet, group) in self.led_by(from) {
            let load = self.load(tablet, from);
            let free = group.learner.is_none() && group.leaving.is_none() && settled(tablet);
            if load == 0 || !free || !self.is_unasked(now, tablet) {
                continue;
            }
            for heir in self.heirs(now, tablet, group) {
                let Some(&least) = served.get(&heir).filter(|&&least| is_clear(most, least)) else { continue };
                if load * 2 <= most - least {
                    best = best.max(Some((load, core::cmp::Reverse(least), tablet, heir)));
                }
            }
        }
        best.map(|(_, _, tablet, heir)| (tablet, heir))
    }

    /// A busy tablet whose primary has nobody to hand over to that serves less: a secondary's copy goes to the node that
    /// serves least, which may lead it then.
    fn choose_move_by_load(
        &self,
        now: Instant,
        served: &BTreeMap<NodeId, u64>,
        settled: &dyn Fn(TabletId) -> bool,
    ) -> Option<Command> {
        let (&from, &most) = served.iter().max_by_key(|(node, sum)| (**sum, core::cmp::Reverse(**node)))?;
        let (&to, &least) = served.iter().min_by_key(|(node, sum)| (**sum, **node))?;
        if !is_clear(most, least) {
            return None;
        }
        let fits = |(tablet, group): &(&TabletId, &Group)| {
            let load = self.load(**tablet, from);
            load > 0
                && load * 2 <= most - least
                && !group.configuration.has(to)
                && group.learner.is_none()
                && group.leaving.is_none()
                && group.configuration.members().all(|node| self.is_alive(now, node))
                && settled(**tablet)
                && self.is_unasked(now, **tablet)
                && !self.is_resting(now, **tablet, to)
        };
        let busiest = self.led_by(from).filter(fits);
        let (&tablet, group) = busiest.max_by_key(|(tablet, _)| (self.load(**tablet, from), **tablet))?;
        let secondaries = group.configuration.secondaries.iter().copied();
        let leaving = secondaries.max_by_key(|node| (served.get(node).copied().unwrap_or(u64::MAX), *node))?;
        Some(Command::Move { tablet, epoch: group.configuration.epoch, from: leaving, to })
    }

    fn led_by(&self, node: NodeId) -> impl Iterator<Item = (&TabletId, &Group)> {
        self.state.groups.iter().filter(move |(_, group)| group.configuration.primary == node)
    }

    /// Requests per second that each node serves which may lead tablets.
    fn served(&self, now: Instant) -> BTreeMap<NodeId, u64> {
        let able = self.heard.iter().filter(|(node, _)| self.is_able(now, **node));
        able.map(|(&node, heard)| (node, heard.replicas.values().map(|report| report.load).sum())).collect()
    }

    /// Requests per second of the tablet that the node serves.
    fn load(&self, tablet: TabletId, node: NodeId) -> u64 {
        let report = self.heard.get(&node).and_then(|heard| heard.replicas.get(&tablet));
        report.map_or(0, |report| report.load)
    }

    fn weight(&self, tablet: TabletId) -> u64 {
        let reports = self.heard.values().filter_map(|heard| heard.replicas.get(&tablet));
        TABLET_WEIGHT + reports.map(|report| report.bytes).max().unwrap_or(0)
    }
}

/// Does the one serve so many more requests that something should be done about it?
fn is_clear(most: u64, least: u64) -> bool {
    most > least * 2 + LEAST_LOAD
}
