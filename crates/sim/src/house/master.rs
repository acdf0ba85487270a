//! The real master, and a stand-in for consensus: commits after a while, and loses at a crash what was not committed.

use std::time::Duration;

use bytes::Bytes;
use master::Master;
use model::{Instant, Refusal};
use protocol::Core;

use super::client::client_of;
use super::net::Packet;
use super::world::{CLIENTS, Checked, Happening, MASTER, OPERATOR, SETUP, World};
use crate::agenda::{MS, US};

/// The master with what consensus has kept of it.
pub(super) struct Mastery {
    pub master: Option<Master>,
    pub life: u64,
    pub started: u64,
    pub log: Vec<Bytes>,
    pub snapshot: Option<(u64, Bytes)>,
}

impl World {
    pub(super) fn start_master(&mut self) -> Checked {
        if self.mastery.master.is_some() {
            return Ok(());
        }
        self.mastery.life += 1;
        self.mastery.started = self.agenda.now();
        let balance_after = self.climate.balance.then_some(Duration::from_secs(1));
        let (timing, replicas) = (self.timing.clone(), self.climate.replicas);
        let options = master::Options { timing, seed: 4711, replicas, min_replicas: 1, balance_after };
        let mut master = Master::new(options);
        let mut applied = 0;
        if let Some((index, snapshot)) = &self.mastery.snapshot {
            master.restore(snapshot).map_err(|error| format!("the master's snapshot: {error}"))?;
            applied = *index;
        }
        self.mastery.master = Some(master);
        for index in applied as usize..self.mastery.log.len() {
            let command = self.mastery.log[index].clone();
            self.step_master(master::Input::Committed(index as u64 + 1, command));
        }
        let term = self.mastery.life;
        self.step_master(master::Input::Leading(term));
        Ok(())
    }

    pub(super) fn step_master(&mut self, input: master::Input) {
        let now = Instant(self.agenda.now() - self.mastery.started);
        let life = self.mastery.life;
        let Some(master) = &mut self.mastery.master else { return };
        let mut effects = Vec::new();
        master.step(now, input, &mut effects);
        if let Some(deadline) = master.deadline() {
            self.agenda.at(self.mastery.started + deadline.0, Happening::MasterWake { life });
        }
        for effect in effects {
            match effect {
                master::Effect::Propose(command) => {
                    let delay = self.random.between(500 * US, 10 * MS);
                    self.agenda.after(delay, Happening::Commit { life, command });
                }
                master::Effect::Send(node, message) => self.send(MASTER, node.0 as usize, Packet::FromMaster(message)),
                master::Effect::Reply(SETUP, _) | master::Effect::Refuse(SETUP, Refusal::Exists(_)) => {
                    if !self.ready {
                        self.ready = true;
                        (0..self.clients.len()).for_each(|client| self.agenda.after(10 * MS, Happening::Act(client)));
                    }
                }
                master::Effect::Reply(OPERATOR, _) => {}
                master::Effect::Reply(ticket, reply) => {
                    let place = CLIENTS + client_of(ticket).0;
                    self.send(MASTER, place, Packet::Map(reply));
                }
                master::Effect::Refuse(..) => {}
                master::Effect::Event(name, what) => self.say(format!("master: {name} {what}")),
                master::Effect::Recorded(event) => self.say(format!("recorded: {event:?}")),
            }
        }
    }

    pub(super) fn wake_master(&mut self) {
        let now = Instant(self.agenda.now() - self.mastery.started);
        let due = |master: &Master| master.deadline().is_some_and(|deadline| deadline <= now);
        if self.mastery.master.as_ref().is_some_and(due) {
            self.step_master(master::Input::Tick);
        }
    }

    pub(super) fn maybe_snapshot(&mut self) {
        if self.random.chance(10)
            && let Some(master) = &self.mastery.master
        {
            self.mastery.snapshot = Some((master.applied(), master.snapshot()));
        }
    }
}
