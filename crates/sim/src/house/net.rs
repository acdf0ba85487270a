//! The network of the house: delays, loses, doubles and reorders what is sent, and brings the rest.

use model::request::Request;
use model::{AdminReply, AdminRequest, NodeId, Refusal, Reply, Ticket, Timestamp};
use node::Input;
use protocol::{FromMaster, NodeMessage, ToMaster};

use super::world::{Checked, EPOCH_US, HEALED, Happening, World};
use crate::agenda::{MS, US};

#[derive(Clone, Debug)]
pub(super) enum Packet {
    Node(NodeMessage),
    ToMaster(ToMaster),
    FromMaster(FromMaster),
    Request(Ticket, Request),
    Answer(Ticket, Result<Reply, Refusal>),
    Admin(Ticket, AdminRequest),
    Map(AdminReply),
}

impl World {
    pub(super) fn send(&mut self, from: usize, to: usize, packet: Packet) {
        let healed = self.agenda.now() > HEALED;
        let loss = if healed { 0 } else { self.climate.loss };
        if self.blocked.contains(&(from, to)) || self.random.chance(loss) {
            return;
        }
        let copies = if !healed && self.random.chance(self.climate.twice) { 2 } else { 1 };
        for _ in 0..copies {
            let most = if healed { MS } else { self.climate.delay };
            let delay = if self.random.chance(80) { self.random.below(MS) } else { self.random.below(most) };
            let mut at = self.agenda.now() + 50 * US + delay;
            // Requests of clients wander through gateways and may always overtake each other.
            if self.climate.fifo && from < self.machines.len() && to < self.machines.len() {
                let last = self.arrival.entry((from, to)).or_default();
                at = at.max(*last);
                *last = at;
            }
            self.agenda.at(at, Happening::Deliver { from, to, packet: packet.clone() });
        }
    }

    pub(super) fn on_packet(&mut self, from: usize, to: usize, packet: Packet) -> Checked {
        let sender = NodeId(from as u32);
        match packet {
            Packet::Node(message) => self.give(to, Input::FromNode(sender, message)),
            Packet::FromMaster(message) => self.give(to, Input::FromMaster(message)),
            Packet::Request(ticket, request) => {
                if let Some(process) = &self.machines[to].process {
                    let wall = Timestamp(EPOCH_US + (self.agenda.now() / US) as i64 + process.skew);
                    self.give(to, Input::Request { ticket, wall, request });
                }
            }
            Packet::ToMaster(message) => self.step_master(master::Input::FromNode(sender, message)),
            Packet::Admin(ticket, request) => self.step_master(master::Input::Admin(ticket, request)),
            Packet::Answer(ticket, answer) => return self.on_answer(ticket, answer),
            Packet::Map(reply) => {
                if let AdminReply::Map(map) = reply {
                    self.clients[to - self.machines.len()].learn_map(map.tablets);
                }
            }
        }
        Ok(())
    }
}
