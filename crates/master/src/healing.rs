//! Finds nodes for tablets that lack replicas.

use model::{Instant, NodeId, TabletId};
use std::collections::{BTreeMap, BTreeSet};

use crate::api::Effect;
use crate::machine::Master;
use crate::placement::Load;
use crate::state::Command;

/// Replicas that one node may be learning at a time.
const CLONES_PER_NODE: usize = 2;

impl Master {
    /// Finds learners for tablets that lack replicas: a node that comes back with the tablet's data at once, a spare
    /// one after `replace_after`.
    pub(crate) fn heal(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let mut commands = Vec::new();
        let mut learning: BTreeMap<NodeId, usize> = BTreeMap::new();
        for group in self.state.groups.values() {
            if let Some(learner) = group.learner {
                *learning.entry(learner).or_default() += 1;
            }
        }
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
            let wanted = match group.learner {
                Some(learner) if complete || !self.is_alive(now, learner) => None,
                Some(learner) => Some(learner),
                None if complete => None,
                None => self.choose_learner(now, tablet, since, &learning),
            };
            if wanted != group.learner {
                if let Some(learner) = wanted {
                    *learning.entry(learner).or_default() += 1;
                }
                commands.push(Command::Learn { tablet, epoch: group.configuration.epoch, learner: wanted });
                self.asked.insert(tablet, now);
            }
        }
        for command in commands {
            self.propose(command, out);
        }
    }

    fn choose_learner(
        &self,
        now: Instant,
        tablet: TabletId,
        lacking_since: Instant,
        learning: &BTreeMap<NodeId, usize>,
    ) -> Option<NodeId> {
        let group = self.state.groups.get(&tablet)?;
        let able: BTreeSet<NodeId> = self
            .heard
            .iter()
            .filter(|(node, heard)| {
                self.is_alive(now, **node)
                    && self.removed.get(&(tablet, **node)).is_none_or(|&removed| heard.at > removed)
                    && !heard.disk_full
                    && !group.configuration.has(**node)
                    && learning.get(node).copied().unwrap_or(0) < CLONES_PER_NODE
            })
            .map(|(&node, _)| node)
            .collect();
        let returning = able.iter().copied().find(|node| self.heard[node].replicas.contains_key(&tablet));
        returning.or_else(|| {
            let overdue = now.since(lacking_since) >= self.options.timing.replace_after;
            overdue.then(|| Load::of(&self.state, able).least()).flatten()
        })
    }
}
