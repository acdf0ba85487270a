//! Finds nodes for tablets that lack replicas, in the order of danger.

use model::{Instant, NodeId, TabletId};
use std::collections::{BTreeMap, BTreeSet};

use crate::api::Effect;
use crate::machine::Master;
use crate::placement::Load;
use crate::state::{Command, Group};

/// Replicas that one node may be learning at a time: so many large ones, or so many in all.
const CLONES_PER_NODE: usize = 2;
const SMALL_CLONES_PER_NODE: usize = 32;
/// What is small: most of it is the log's tail, and comes at once.
pub(crate) const SMALL: u64 = 4 << 20;

impl Master {
    /// A node that comes back with the tablet's data learns at once, a spare one after `replace_after`.
    pub(crate) fn heal(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let mut learning = self.learning();
        let (mut lacking, mut commands) = (Vec::new(), Vec::new());
        for (&tablet, group) in &self.state.groups {
            let Some(schema) = self.state.tables.get(&group.tablet.table) else { continue };
            let complete = group.configuration.size() >= usize::from(schema.replicas);
            let since = match complete {
                true => {
                    self.lacking.remove(&tablet);
                    now
                }
                false => *self.lacking.entry(tablet).or_insert(now),
            };
            let asked_lately = self.asked.get(&tablet).is_some_and(|&at| now.since(at) < self.options.timing.heartbeat);
            if asked_lately {
                continue;
            }
            match group.learner {
                Some(learner) if (complete && group.leaving.is_none()) || !self.is_alive(now, learner) => {
                    commands.push(Command::Learn { tablet, epoch: group.configuration.epoch, learner: None });
                }
                None if !complete => {
                    let alive = group.configuration.members().filter(|&node| self.is_alive(now, node)).count();
                    let spare = alive as i64 - i64::from(schema.min_replicas);
                    lacking.push((spare, alive, self.size_of(tablet, group), tablet, since));
                }
                _ => {}
            }
        }
        // First those that take no writes any more, then those with the fewest copies, of these the small ones.
        lacking.sort_unstable();
        let mut load = (!lacking.is_empty()).then(|| Load::of(&self.state, self.state.nodes.keys().copied()));
        for (.., bytes, tablet, since) in lacking {
            let Some(load) = &mut load else { break };
            if let Some(learner) = self.choose_learner(now, tablet, since, bytes, &learning, load) {
                *learning.entry(learner).or_default() += 1;
                load.count(learner);
                let epoch = self.state.groups[&tablet].configuration.epoch;
                commands.push(Command::Learn { tablet, epoch, learner: Some(learner) });
            }
        }
        for command in commands {
            if let Command::Learn { tablet, .. } = &command {
                self.asked.insert(*tablet, now);
            }
            self.propose(command, out);
        }
    }

    /// Bytes of a tablet, as its primary said.
    fn size_of(&self, tablet: TabletId, group: &Group) -> u64 {
        let heard = self.heard.get(&group.configuration.primary);
        heard.and_then(|heard| heard.replicas.get(&tablet)).map_or(0, |report| report.bytes)
    }

    fn choose_learner(
        &self,
        now: Instant,
        tablet: TabletId,
        lacking_since: Instant,
        bytes: u64,
        learning: &BTreeMap<NodeId, usize>,
        load: &Load,
    ) -> Option<NodeId> {
        let group = self.state.groups.get(&tablet)?;
        let most = if bytes < SMALL { SMALL_CLONES_PER_NODE } else { CLONES_PER_NODE };
        let able: BTreeSet<NodeId> = self
            .heard
            .iter()
            .filter(|(node, heard)| {
                self.is_able(now, **node)
                    && self.removed.get(&(tablet, **node)).is_none_or(|&removed| heard.at > removed)
                    && !self.is_resting(now, tablet, **node)
                    && !group.configuration.has(**node)
                    && learning.get(node).copied().unwrap_or(0) < most
            })
            .map(|(&node, _)| node)
            .collect();
        // Whoever has the data before whoever has lost it; whoever had it before others.
        let has = |damaged: bool| {
            let has =
                |node: &NodeId| self.report(*node, tablet).is_some_and(|report| report.damaged.is_some() == damaged);
            able.iter().copied().find(has)
        };
        let returning = has(false).or_else(|| has(true));
        returning.or_else(|| {
            let overdue = now.since(lacking_since) >= self.options.timing.replace_after;
            overdue.then(|| load.least_of(|node| able.contains(&node))).flatten()
        })
    }
}
