//! What must hold of a group at every moment (PacificA, 2.2-2.4; obligations 1-10 of our design notes).

use std::collections::BTreeMap;

use bytes::Bytes;
use model::request::Role;
use model::{Configuration, Epoch, Instant, Lsn, NodeId};
use protocol::Entry;

use super::world::{Checked, QUIET, World};
use crate::agenda::SECOND;

/// What is known for ever, of all replicas together.
#[derive(Debug, Default)]
pub(super) struct Record {
    committed: BTreeMap<Lsn, Entry>,
    sent: BTreeMap<(Lsn, Epoch), Bytes>,
    configurations: BTreeMap<Epoch, Configuration>,
    /// The newest epoch whose primary each node has obeyed, or would instead of all before.
    promised: BTreeMap<usize, Epoch>,
    /// Up to where each node has said, in each epoch, that its disk holds its primary's log.
    acknowledged_in: BTreeMap<(usize, Epoch), Lsn>,
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

    /// Whoever obeys the primary of an epoch, or stands for its place, never obeys an older one again.
    pub fn on_promise(&mut self, node: usize, epoch: Epoch) -> Result<(), String> {
        let newest = self.promised.entry(node).or_default();
        if epoch < *newest {
            return Err(format!("n{node} obeys {epoch} after {newest}"));
        }
        *newest = epoch;
        Ok(())
    }

    /// The node says to its primary that its disk holds all up to there.
    pub fn on_acknowledged(&mut self, node: usize, epoch: Epoch, upto: Lsn) {
        let newest = self.acknowledged_in.entry((node, epoch)).or_default();
        *newest = upto.max(*newest);
    }

    /// The node has been told to forget everything.
    pub fn on_forgotten(&mut self, node: usize) {
        self.promised.remove(&node);
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

impl World {
    /// A promise to obey the primary of an epoch is kept after a crash only if the disk knows of it.
    pub(super) fn check_promise(&mut self, node: usize, epoch: Epoch) -> Checked {
        let state = &self.hosts[node].log.durable.state;
        let known =
            state.as_ref().map_or(Epoch(0), |(configuration, abandoned)| configuration.epoch.max(abandoned.next()));
        if known < epoch {
            return Err(format!("n{node} obeys {epoch}, and its disk knows only of {known}"));
        }
        self.record.on_promise(node, epoch)
    }

    /// A planned heir takes over with nothing under way, so that no write fails for it.
    pub(super) fn check_hand_over(&self, node: usize, heir: NodeId) -> Checked {
        let replica = self.replica(node);
        let last = replica.appended();
        let has = replica.acknowledged().find(|(peer, _)| *peer == heir).map(|(_, acked)| acked);
        // After a lease in vain it takes writes again, while the master may still decide.
        let holds_writes = !replica.may_write(self.local(node));
        if holds_writes && (replica.committed() != last || has != Some(last)) {
            let committed = replica.committed();
            return Err(format!("n{node} hands over at {committed} of {last}, of which {heir} has {has:?}"));
        }
        Ok(())
    }

    /// After every step.
    pub(super) fn check(&mut self) -> Checked {
        let mut readers = Vec::new();
        let mut primaries = BTreeMap::new();
        for node in 1..self.hosts.len() {
            let Some(process) = &self.hosts[node].process else { continue };
            let Some(replica) = &process.replica else { continue };
            if replica.role() == Role::Primary
                && let Some(other) = primaries.insert(replica.epoch(), node)
            {
                return Err(format!("n{node} and n{other} are both primary of {}", replica.epoch()));
            }
            if replica.epoch() == self.master.configuration.epoch {
                for (peer, acked) in replica.acknowledged() {
                    let said = self.record.acknowledged_in.get(&(peer.0 as usize, replica.epoch()));
                    if !replica.configuration().has(peer) && said.is_none_or(|upto| *upto < acked) && acked > Lsn::ZERO
                    {
                        let epoch = replica.epoch();
                        return Err(format!(
                            "n{node} counts on {acked} of {peer}, a learner, which said {said:?} in {epoch}"
                        ));
                    }
                    let entry = replica.entry(acked);
                    let host = &self.hosts[peer.0 as usize];
                    if entry.is_some_and(|entry| !host.log.holds(acked, entry.epoch)) {
                        return Err(format!("n{node} counts on {peer} for {entry:?}, which it does not hold"));
                    }
                }
            }
            if process.paused || !replica.may_read(self.local(node)) {
                continue;
            }
            readers.push(node);
            if replica.committed() < self.record.acknowledged {
                let (committed, acknowledged) = (replica.committed(), self.record.acknowledged);
                return Err(format!("n{node} may read at {committed}, and {acknowledged} was acknowledged"));
            }
        }
        self.summary.readable += u64::from(!readers.is_empty());
        if readers.len() > 1 {
            return Err(format!("{readers:?} may read at once"));
        }
        Ok(())
    }

    /// Long after the last fault the group is whole, serves, and its replicas are equal.
    pub(super) fn check_healed(&mut self) -> Checked {
        let configuration = self.master.configuration.clone();
        let state: Vec<String> = (1..self.hosts.len()).map(|node| self.brief_or_down(node)).collect();
        let master = format!("master {configuration:?} learner {:?}", self.master.learner);
        let state = format!("{master}\n{}", state.join("\n"));
        if configuration.size() != self.climate.wanted {
            return Err(format!("the group has not grown to {}: {state}", self.climate.wanted));
        }
        let primary = configuration.primary.0 as usize;
        let replica = self.replica(primary);
        if !replica.may_write(self.local(primary)) || !replica.may_read(self.local(primary)) {
            return Err(format!("the primary does not serve: {state}"));
        }
        let committed = replica.committed();
        if committed < self.record.acknowledged || committed < replica.appended() {
            return Err(format!("{} was acknowledged: {state}", self.record.acknowledged));
        }
        for member in configuration.members() {
            let replica = self.replica(member.0 as usize);
            if replica.committed() != committed || replica.configuration() != &configuration {
                return Err(format!("{member} has not followed: {state}"));
            }
        }
        if !self.climate.quiet_after_healing && self.last_acknowledged_at < QUIET - 2 * SECOND {
            return Err(format!("no write since {:?}: {state}", Instant(self.last_acknowledged_at)));
        }
        self.summary.committed = committed;
        Ok(())
    }
}
