//! The master of one group, as a compare-and-set that chooses learners.

use model::{Configuration, NodeId};
use protocol::Mutant;

use super::net::Packet;
use super::world::{Checked, HEALED, Happening, MASTER, World};
use crate::agenda::{MS, SECOND, US};

pub(super) struct Master {
    pub configuration: Configuration,
    pub learner: Option<NodeId>,
    pub heard: Vec<u64>,
    pub up: bool,
}

impl World {
    pub(super) fn on_master_packet(&mut self, from: usize, packet: Packet) -> Checked {
        if !self.master.up {
            return Ok(());
        }
        match packet {
            Packet::Heartbeat(sent) => {
                self.master.heard[from] = self.agenda.now();
                self.send(MASTER, from, Packet::Welcome(sent));
                self.tell(from);
            }
            Packet::Propose(configuration) => {
                let delay = self.random.between(500 * US, 10 * MS);
                self.agenda.after(delay, Happening::Decide(from, configuration));
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn decide(&mut self, from: usize, proposed: Configuration) -> Checked {
        let present = &self.master.configuration;
        let knows = |node: NodeId| present.has(node) || self.master.learner == Some(node);
        if !self.master.up {
            return Ok(());
        }
        if proposed.epoch != present.epoch.next() || !present.has(proposed.primary) || !proposed.members().all(knows) {
            self.tell(from);
            return Ok(());
        }
        let before = core::mem::replace(&mut self.master.configuration, proposed.clone());
        if self.master.learner.is_some_and(|learner| proposed.has(learner)) {
            self.master.learner = None;
        }
        self.say(format!("master: {before:?} -> {proposed:?}"));
        self.record.on_configuration(&proposed)?;
        (1..self.hosts.len()).for_each(|node| self.tell(node));
        Ok(())
    }

    /// Tells a node what concerns it.
    pub(super) fn tell(&mut self, node: usize) {
        let (configuration, learner) = (self.master.configuration.clone(), self.master.learner);
        let me = NodeId(node as u32);
        if configuration.has(me) || learner == Some(me) {
            self.send(MASTER, node, Packet::Assign(configuration, learner));
        } else if self.climate.forgets && self.random.chance(50) {
            self.send(MASTER, node, Packet::Forget(configuration.epoch));
        } else {
            self.send(MASTER, node, Packet::Assign(configuration, learner));
        }
    }

    pub(super) fn on_master_round(&mut self) {
        self.agenda.after(200 * MS, Happening::MasterRound);
        if !self.master.up {
            return;
        }
        let now = self.agenda.now();
        let alive = |master: &Master, node: usize| now.saturating_sub(master.heard[node]) < 3 * SECOND;
        let gone = self.master.learner.is_some_and(|node| !alive(&self.master, node.0 as usize));
        let whim = now < HEALED && self.random.chance(2);
        let before = self.master.learner;
        if before.is_some() && (gone || whim) {
            // What the learner has promised ends with the epoch.
            self.master.learner = None;
            if !self.timing.planted.has(Mutant::SilentLearnerChange) {
                self.master.configuration = self.master.configuration.next();
            }
            let next = self.master.configuration.clone();
            self.record.on_configuration(&next).expect("the same members");
        }
        if self.master.learner.is_none() && self.master.configuration.size() < self.climate.wanted {
            let free: Vec<NodeId> = (1..self.hosts.len())
                .filter(|&node| alive(&self.master, node))
                .map(|node| NodeId(node as u32))
                .filter(|node| !self.master.configuration.has(*node))
                .collect();
            self.master.learner = self.random.pick(&free).copied();
        }
        if now < HEALED
            && self.random.chance(self.climate.hand_overs)
            && let Some(&heir) = self.random.pick(&self.master.configuration.secondaries)
        {
            self.say(format!("master: {heir} shall be primary"));
            let Configuration { primary, epoch, .. } = self.master.configuration;
            self.send(MASTER, primary.0 as usize, Packet::HandOver(heir, epoch));
        }
        if self.master.learner != before {
            self.say(format!("master: learner {before:?} -> {:?}", self.master.learner));
            (1..self.hosts.len()).for_each(|node| self.tell(node));
        }
    }
}
