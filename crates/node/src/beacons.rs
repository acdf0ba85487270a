//! Leases between nodes: one beacon per pair of nodes for all groups that they share (PacificA, 2.3).

use model::{Epoch, Instant, Lsn, NodeId, TabletId};
use protocol::replica::{Effect as GroupEffect, Input as GroupInput};
use protocol::{Core, NodeMessage, Stamp};
use std::collections::BTreeMap;

use crate::api::Effect;
use crate::machine::Node;

impl Node {
    /// Every primary here asks its peers for leases.
    pub(crate) fn send_beacons(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let mut beacons: BTreeMap<NodeId, Vec<(TabletId, Epoch, Lsn, bool)>> = BTreeMap::new();
        for (&tablet, hosted) in &self.hosted {
            let replica = &hosted.replica;
            let leased = replica.may_read(now);
            for peer in replica.peers() {
                beacons.entry(peer).or_default().push((tablet, replica.epoch(), replica.committed(), leased));
            }
        }
        for (peer, groups) in beacons {
            let heard = self.stamps.get(&peer).copied();
            out.push(Effect::Send(peer, NodeMessage::Beacon { sent: now, heard, groups }));
        }
        self.next_beacon = now + self.options.timing.beacon;
    }

    pub(crate) fn on_beacon(
        &mut self,
        now: Instant,
        from: NodeId,
        sent: Instant,
        heard: Option<Stamp>,
        groups: Vec<(TabletId, Epoch, Lsn, bool)>,
        out: &mut Vec<Effect>,
    ) {
        let mut granted = Vec::new();
        // A stamp of an earlier life is of another clock.
        let asof = heard.filter(|Stamp(life, at)| *life == self.incarnation && *at <= now).map(|Stamp(_, at)| at);
        for (tablet, epoch, committed, leased) in groups {
            let mut effects = Vec::new();
            if let Some(hosted) = self.hosted.get_mut(&tablet) {
                hosted.replica.step(now, GroupInput::Beacon(from, epoch, committed), &mut effects);
                self.deadlines.note(tablet, hosted.replica.deadline());
                if let (true, Some(asof)) = (leased, asof) {
                    hosted.replica.step(now, GroupInput::Fresh(from, epoch, asof, committed), &mut effects);
                }
            }
            effects.retain(|effect| match effect {
                GroupEffect::Grant(_, epoch) => {
                    granted.push((tablet, *epoch));
                    false
                }
                _ => true,
            });
            self.carry_out(now, tablet, effects, out);
        }
        if !granted.is_empty() || self.disk_full() {
            let (disk_full, stamp) = (self.disk_full(), Stamp(self.incarnation, now));
            out.push(Effect::Send(from, NodeMessage::BeaconAck { sent, groups: granted, disk_full, stamp }));
        }
    }

    pub(crate) fn on_beacon_ack(
        &mut self,
        now: Instant,
        from: NodeId,
        sent: Instant,
        groups: Vec<(TabletId, Epoch)>,
        disk_full: bool,
        out: &mut Vec<Effect>,
    ) {
        if disk_full {
            self.full_peers.insert(from);
        } else {
            self.full_peers.remove(&from);
        }
        for (tablet, epoch) in groups {
            self.step_replica(now, tablet, GroupInput::Granted(from, epoch, sent), out);
        }
    }
}
