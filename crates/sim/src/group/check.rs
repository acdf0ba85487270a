//! What must hold of a group at every moment (PacificA, 2.2-2.4; obligations 1-10 of our design notes).

use std::collections::BTreeMap;

use bytes::Bytes;
use model::{Configuration, Epoch, Lsn, NodeId};
use protocol::Entry;

/// What is known for ever, of all replicas together.
#[derive(Debug, Default)]
pub(super) struct Record {
    committed: BTreeMap<Lsn, Entry>,
    sent: BTreeMap<(Lsn, Epoch), Bytes>,
    configurations: BTreeMap<Epoch, Configuration>,
    /// The last entry of which a client heard that it is committed.
    pub acknowledged: Lsn,
    pub commits: u64,
}

impl Record {
    /// No two replicas ever commit different payloads at one place.
    pub fn on_commit(&mut self, node: NodeId, entry: &Entry, acknowledged: bool) -> Result<(), String> {
        self.commits += 1;
        let first = self.committed.entry(entry.lsn).or_insert_with(|| entry.clone());
        if first != entry {
            return Err(format!("{node} commits {entry:?} where {first:?} was committed"));
        }
        if acknowledged {
            self.acknowledged = self.acknowledged.max(entry.lsn);
        }
        Ok(())
    }

    /// `(lsn, epoch)` names one payload, as soon as anybody hears of it.
    pub fn on_sent(&mut self, node: NodeId, entry: &Entry) -> Result<(), String> {
        let first = self.sent.entry((entry.lsn, entry.epoch)).or_insert_with(|| entry.payload.clone());
        if first != &entry.payload {
            return Err(format!("{node} sends {entry:?}, which is another payload elsewhere"));
        }
        Ok(())
    }

    /// Configurations form one sequence, and a new primary was a member before.
    pub fn on_configuration(&mut self, configuration: &Configuration) -> Result<(), String> {
        if let Some(before) = self.configurations.get(&Epoch(configuration.epoch.0 - 1))
            && !before.has(configuration.primary)
        {
            return Err(format!("{configuration:?} follows {before:?}"));
        }
        match self.configurations.insert(configuration.epoch, configuration.clone()) {
            Some(other) if other != *configuration => Err(format!("{configuration:?} and {other:?}")),
            _ => Ok(()),
        }
    }
}
