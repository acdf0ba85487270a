//! Who keeps a tablet.

use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::{Epoch, NodeId, Schema, Slice, TableId, TabletId};

/// A tablet: a slice of a table that one replica group keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablet {
    /// Names the tablet and its group.
    pub id: TabletId,
    /// Of which table.
    pub table: TableId,
    /// Which of its rows.
    pub slice: Slice,
}

/// The members of a replica group, numbered by its epoch (PacificA, 2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Configuration {
    /// Rises by one with every change.
    pub epoch: Epoch,
    /// Orders the writes and answers the reads.
    pub primary: NodeId,
    /// Follow the primary; ascending, without it.
    pub secondaries: Vec<NodeId>,
}

impl Configuration {
    /// The first one of a new group.
    pub fn first(primary: NodeId, secondaries: impl IntoIterator<Item = NodeId>) -> Configuration {
        Configuration { epoch: Epoch(1), primary, secondaries: Vec::new() }.with_secondaries(secondaries)
    }

    /// Primary and secondaries.
    pub fn members(&self) -> impl Iterator<Item = NodeId> + '_ {
        core::iter::once(self.primary).chain(self.secondaries.iter().copied())
    }

    /// Is the node the primary or a secondary?
    pub fn has(&self, node: NodeId) -> bool {
        self.members().any(|member| member == node)
    }

    /// How many keep the tablet.
    pub fn size(&self) -> usize {
        1 + self.secondaries.len()
    }

    /// The next one, without `gone`. The primary cannot be removed: someone else must take its place first.
    pub fn without(&self, gone: NodeId) -> Configuration {
        assert!(gone != self.primary, "a configuration keeps its primary");
        self.next().with_secondaries(self.secondaries.iter().copied().filter(|&node| node != gone))
    }

    /// The next one, with `newcomer` as a secondary.
    pub fn with(&self, newcomer: NodeId) -> Configuration {
        self.next().with_secondaries(self.secondaries.iter().copied().chain([newcomer]))
    }

    /// The next one, in which the secondary `heir` has taken the place of the primary, which is gone.
    pub fn succeeded_by(&self, heir: NodeId) -> Configuration {
        Configuration { primary: heir, ..self.next() }.with_secondaries(self.secondaries.iter().copied())
    }

    /// The next one, in which the secondary `heir` leads and the present primary follows it.
    pub fn handed_to(&self, heir: NodeId) -> Configuration {
        Configuration { primary: heir, ..self.next() }.with_secondaries(self.members())
    }

    /// The same members one epoch later.
    pub fn next(&self) -> Configuration {
        Configuration { epoch: self.epoch.next(), ..self.clone() }
    }

    fn with_secondaries(mut self, secondaries: impl IntoIterator<Item = NodeId>) -> Configuration {
        self.secondaries = secondaries.into_iter().filter(|&node| node != self.primary).collect();
        self.secondaries.sort_unstable();
        self.secondaries.dedup();
        self
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}", self.epoch, self.primary)?;
        for node in &self.secondaries {
            write!(f, " {node}")?;
        }
        write!(f, "]")
    }
}

/// All that a node must know of a tablet: what the master decided, as of its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The tablet.
    pub tablet: Tablet,
    /// The table's schema.
    pub schema: Schema,
    /// Who keeps it.
    pub configuration: Configuration,
    /// A node that the master wants as a further member: it may learn from the primary, and once it has caught up
    /// the primary proposes it.
    pub learner: Option<NodeId>,
    /// Where the group's history begins.
    pub lineage: Lineage,
}

/// Where a group's history begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The epoch in which the group began with nothing. Only in it is a member's replica made from nothing: later, a
    /// member without data has lost it.
    pub founded: Epoch,
    /// The epoch in which an operator last chose what the group's history is, because its members were gone; otherwise
    /// `founded`. What a replica of an earlier epoch holds may be no part of it.
    pub chosen: Epoch,
}

impl Default for Lineage {
    fn default() -> Lineage {
        Lineage { founded: Epoch(1), chosen: Epoch(1) }
    }
}
