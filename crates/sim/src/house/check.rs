//! What must hold of the whole house at every moment.

use std::collections::BTreeMap;

use bytes::Bytes;
use model::{Epoch, Instant, Lsn, NodeId, TabletId};
use node::Node;

/// What is known for ever, of all nodes together.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// What was committed at each place.
    committed: BTreeMap<(TabletId, Lsn), (Epoch, Bytes)>,
    /// How far each replica's commits have been compared; of one life of its node.
    compared: BTreeMap<(NodeId, u64, TabletId), Lsn>,
    /// The newest epoch that anybody followed.
    pub newest: BTreeMap<TabletId, Epoch>,
}

impl Record {
    /// No two replicas ever commit different entries at one place.
    pub fn compare(&mut self, life: u64, node: &Node) -> Result<(), String> {
        for replica in node.replicas() {
            let tablet = replica.tablet();
            let epoch = self.newest.entry(tablet).or_default();
            *epoch = (*epoch).max(replica.epoch());
            let compared = self.compared.entry((node.id(), life, tablet)).or_default();
            while *compared < replica.committed() {
                *compared = compared.next();
                let Some(entry) = replica.entry(*compared) else { continue };
                let mine = (entry.epoch, entry.payload.clone());
                let first = self.committed.entry((tablet, entry.lsn)).or_insert_with(|| mine.clone());
                if *first != mine {
                    return Err(format!(
                        "{} commits {entry:?} in {tablet}, where another entry of {} was committed",
                        node.id(),
                        first.0
                    ));
                }
            }
        }
        Ok(())
    }
}

/// At most one node may read a tablet at one moment. `running` are the nodes that run now, by their own clocks.
pub(super) fn one_reader<'a>(running: impl Iterator<Item = (&'a Node, Instant)>) -> Result<(), String> {
    let mut readers: BTreeMap<TabletId, NodeId> = BTreeMap::new();
    for (node, now) in running {
        for replica in node.replicas().filter(|replica| replica.may_read(now)) {
            if let Some(other) = readers.insert(replica.tablet(), node.id()) {
                return Err(format!("{other} and {} may read {} at once", node.id(), replica.tablet()));
            }
        }
    }
    Ok(())
}
