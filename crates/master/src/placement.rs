//! Where replicas go: on distinct nodes, the least laden first.

use model::NodeId;
use std::collections::BTreeMap;

use crate::state::State;

/// How much each node that may be chosen carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    replicas: BTreeMap<NodeId, u32>,
    primaries: BTreeMap<NodeId, u32>,
}

impl Load {
    /// What the `candidates` carry now; learners count as replicas.
    pub fn of(state: &State, candidates: impl IntoIterator<Item = NodeId>) -> Load {
        let mut load = Load::default();
        for node in candidates {
            load.replicas.insert(node, 0);
            load.primaries.insert(node, 0);
        }
        for group in state.groups.values() {
            for node in group.configuration.members().chain(group.learner) {
                load.replicas.entry(node).and_modify(|count| *count += 1);
            }
            load.primaries.entry(group.configuration.primary).and_modify(|count| *count += 1);
        }
        load
    }

    /// How many nodes there are to choose from.
    pub fn nodes(&self) -> usize {
        self.replicas.len()
    }

    /// The node with the fewest replicas of those that are `free`.
    pub fn least_of(&self, free: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let free = self.replicas.iter().filter(|(node, _)| free(**node));
        free.min_by_key(|&(node, count)| (count, node)).map(|(&node, _)| node)
    }

    /// The node has one replica more.
    pub fn count(&mut self, node: NodeId) {
        self.replicas.entry(node).and_modify(|count| *count += 1);
    }

    /// How many replicas the node carries.
    pub fn replicas_of(&self, node: NodeId) -> u32 {
        self.replicas.get(&node).copied().unwrap_or(0)
    }

    /// How many tablets the node leads.
    pub fn primaries_of(&self, node: NodeId) -> u32 {
        self.primaries.get(&node).copied().unwrap_or(0)
    }

    /// The heir leads a tablet more, and the primary one less.
    pub fn hand_over(&mut self, primary: NodeId, heir: NodeId) {
        self.primaries.entry(primary).and_modify(|count| *count = count.saturating_sub(1));
        self.primaries.entry(heir).and_modify(|count| *count += 1);
    }

    /// Chooses `replicas` distinct nodes for a new tablet, the primary first, and counts them.
    pub fn place(&mut self, replicas: usize) -> Vec<NodeId> {
        let mut by_load: Vec<(u32, NodeId)> = self.replicas.iter().map(|(&node, &count)| (count, node)).collect();
        by_load.sort_unstable();
        let mut chosen: Vec<NodeId> = by_load.into_iter().take(replicas).map(|(_, node)| node).collect();
        chosen.sort_by_key(|node| (self.primaries[node], *node));
        for (place, node) in chosen.iter().enumerate() {
            self.replicas.entry(*node).and_modify(|count| *count += 1);
            if place == 0 {
                self.primaries.entry(*node).and_modify(|count| *count += 1);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Two partitions with a primary and a secondary each find four nodes.
    #[test]
    fn four_nodes_share_two_pairs() {
        let mut load = Load::of(&State::default(), (1..=4).map(NodeId));
        let placed: Vec<Vec<NodeId>> = (0..2).map(|_| load.place(2)).collect();
        let used: BTreeSet<NodeId> = placed.iter().flatten().copied().collect();
        assert_eq!(used.len(), 4);
    }

    #[test]
    fn replicas_and_primaries_are_spread_evenly() {
        let mut load = Load::of(&State::default(), (1..=5).map(NodeId));
        let placed: Vec<Vec<NodeId>> = (0..25).map(|_| load.place(3)).collect();
        assert!(placed.iter().all(|nodes| nodes.iter().collect::<BTreeSet<_>>().len() == 3));
        assert!(load.replicas.values().all(|&count| count == 15), "{load:?}");
        assert!(load.primaries.values().all(|&count| (4..=6).contains(&count)), "{load:?}");
    }
}
