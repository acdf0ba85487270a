//! Leases between nodes: one beacon per pair of nodes for all groups that they share (PacificA, 2.3), which names only
//! those that have news ([`crate::standing`]).

use model::request::Role;
use model::{Epoch, Incarnation, Instant, NodeId, TabletId};
use protocol::replica::{Effect as GroupEffect, Input as GroupInput};
use protocol::{Core, Line, Mutant, NodeMessage, Replica, Stamp, Timing};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::Effect;
use crate::hosted::Hosted;
use crate::machine::Node;
use crate::standing::{Heard, Told};

/// A secondary that hears nothing for so long does something: it asks the others, before it gives its primary up.
fn patience(timing: &Timing) -> Duration {
    timing.grace - timing.retry.min(timing.grace)
}

fn line_of(tablet: TabletId, replica: &Replica, now: Instant) -> Line {
    Line { tablet, epoch: replica.epoch(), committed: replica.committed(), leased: replica.may_read(now) }
}

impl Node {
    /// Every primary here asks its peers for leases.
    pub(crate) fn send_beacons(&mut self, now: Instant, out: &mut Vec<Effect>) {
        // Beacons are told apart by when they were sent: of two of one instant the peer takes in the first, and its answer
        // would grant leases of what only the second one said.
        if self.beaconed.is_some_and(|last| now <= last) {
            self.next_beacon = now + Duration::from_nanos(1);
            return;
        }
        self.calm(now);
        let mut groups: BTreeMap<NodeId, Vec<Line>> = BTreeMap::new();
        for tablet in self.aloud.clone() {
            // Its leases may be younger than it was told.
            self.catch_up_with_leases(now, tablet, out);
            let Some(hosted) = self.hosted.get(&tablet) else {
                self.aloud.remove(&tablet);
                continue;
            };
            let (peers, line) = (hosted.replica.peers(), line_of(tablet, &hosted.replica, now));
            let said = |node: &NodeId| self.told.get(node).is_some_and(|told| told.says(&line));
            let covered = |node: &NodeId| self.covers(*node, tablet, line.epoch).is_some();
            if hosted.replica.rests() && peers.iter().all(|node| said(node) && covered(node)) || peers.is_empty() {
                self.aloud.remove(&tablet);
                self.deadlines.note(tablet, hosted.replica.deadline());
                continue;
            }
            for peer in peers {
                self.told.entry(peer).or_default().say(now, line);
                groups.entry(peer).or_default().push(line);
            }
        }
        let lease = self.options.timing.lease;
        // One that is silent matters only to those who rest.
        let aloud = &self.aloud;
        let matters = |told: &Told| told.tablets().any(|tablet| !aloud.contains(&tablet));
        let firm = self.told.values().all(|told| told.is_firm(now, lease) || !matters(told));
        let life = self.incarnation;
        for (&peer, told) in self.told.iter_mut().filter(|(_, told)| !told.is_empty()) {
            let heard = self.stamps.get(&peer).copied();
            let groups = groups.remove(&peer).unwrap_or_default();
            let (base, gone) = told.close(now);
            out.push(Effect::Send(peer, NodeMessage::Beacon { life, sent: now, base, heard, firm, groups, gone }));
            self.beaconed = Some(now);
        }
        self.told.retain(|_, told| !told.is_empty());
        self.next_beacon = now + self.options.timing.beacon;
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn on_beacon(
        &mut self,
        now: Instant,
        from: NodeId,
        life: Incarnation,
        sent: Instant,
        base: Option<Instant>,
        heard: Option<Stamp>,
        firm: bool,
        groups: Vec<Line>,
        gone: &[TabletId],
        out: &mut Vec<Effect>,
    ) {
        self.calm(now);
        let known = self.heard.get(&from).map(|heard| heard.life);
        if known.is_some_and(|known| known > life) {
            return; // Of a former life.
        }
        if known != Some(life) {
            let before: Vec<TabletId> = self.heard.get(&from).into_iter().flat_map(Heard::tablets).collect();
            before.iter().for_each(|&tablet| self.catch_up_with_leases(now, tablet, out));
            self.heard.insert(from, Heard::new(now, life));
            before.iter().for_each(|&tablet| self.wake(tablet));
        }
        let Some(admitted) = self.heard.get(&from).and_then(|heard| heard.admits(sent, base)) else { return };
        if !admitted {
            self.answer_beacon(now, from, life, sent, None, out);
            return;
        }
        // A stamp of an earlier life is of another clock.
        let asof = heard.filter(|Stamp(life, at)| *life == self.incarnation && *at <= now).map(|Stamp(_, at)| at);
        let asof = if self.mutant(Mutant::FreshOnArrival) { Some(now) } else { asof };
        // What was said before must reach the replicas that are not spoken of any more before it is forgotten.
        let leave: Vec<TabletId> = match base {
            None => self.heard.get(&from).map(|heard| heard.tablets().collect()).unwrap_or_default(),
            Some(_) => gone.to_vec(),
        };
        leave.iter().for_each(|&tablet| self.catch_up_with_leases(now, tablet, out));
        if let Some(heard) = self.heard.get_mut(&from) {
            let left = heard.take(now, sent, base, asof.filter(|_| firm), gone);
            left.into_iter().for_each(|tablet| self.wake(tablet));
        }
        let mut granted = Vec::new();
        for line in groups {
            let Line { tablet, epoch, committed, leased } = line;
            let mut effects = Vec::new();
            let mut stands = false;
            // The right one of two tablets that were merged has ended without a word in its own group: whoever still reads
            // there must lose its leases before another one than itself can serve the heir.
            if let Some(hosted) = self.hosted.get_mut(&tablet).filter(|hosted| !hosted.ending.is_joined()) {
                hosted.replica.step(now, GroupInput::Beacon(from, epoch, committed), &mut effects);
                self.deadlines.note(tablet, hosted.replica.deadline());
                if let (true, Some(asof)) = (leased, asof) {
                    hosted.replica.step(now, GroupInput::Fresh(from, epoch, asof, committed), &mut effects);
                }
                stands = hosted.replica.stands_by(from, epoch, committed);
            }
            effects.retain(|effect| match effect {
                GroupEffect::Grant(_, epoch) => {
                    granted.push((tablet, *epoch));
                    false
                }
                _ => true,
            });
            if let Some(heard) = self.heard.get_mut(&from) {
                heard.note(line, stands);
            }
            self.stirred.insert(tablet);
            self.carry_out(now, tablet, effects, out);
        }
        self.answer_beacon(now, from, life, sent, Some(granted), out);
    }

    /// `None`: the beacon could not be taken in.
    fn answer_beacon(
        &mut self,
        now: Instant,
        to: NodeId,
        life: Incarnation,
        sent: Instant,
        granted: Option<Vec<(TabletId, Epoch)>>,
        out: &mut Vec<Effect>,
    ) {
        let without = self.heard.get(&to).map(Heard::without).unwrap_or_default();
        let without = if self.mutant(Mutant::StandWhatever) { Vec::new() } else { without };
        let (disk_full, stamp) = (self.disk_full(), Stamp(self.incarnation, now));
        let (known, groups) = (granted.is_some(), granted.unwrap_or_default());
        out.push(Effect::Send(to, NodeMessage::BeaconAck { life, sent, known, groups, without, stamp, disk_full }));
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn on_beacon_ack(
        &mut self,
        now: Instant,
        from: NodeId,
        life: Incarnation,
        sent: Instant,
        known: bool,
        groups: Vec<(TabletId, Epoch)>,
        without: Vec<TabletId>,
        disk_full: bool,
        out: &mut Vec<Effect>,
    ) {
        if disk_full {
            self.full_peers.insert(from);
        } else {
            self.full_peers.remove(&from);
        }
        // What was asked before our process was stopped says nothing of who is silent now.
        if life != self.incarnation || sent < self.woken {
            return;
        }
        for (tablet, epoch) in groups {
            self.step_replica(now, tablet, GroupInput::Granted(from, epoch, sent), out);
        }
        self.calm(now);
        if !known {
            if self.told.get_mut(&from).is_some_and(|told| told.on_lost(sent)) {
                self.say_all_again(from);
            }
            return;
        }
        // The lease that it granted before, it did grant.
        without.iter().for_each(|&tablet| self.catch_up_with_leases(now, tablet, out));
        let Some(told) = self.told.get_mut(&from) else { return };
        if let Some(without) = told.on_answer(sent, without) {
            for &tablet in without {
                self.aloud.insert(tablet);
                let deadline = self.hosted.get(&tablet).and_then(|hosted| hosted.replica.deadline());
                self.deadlines.note(tablet, deadline);
            }
        }
    }

    /// The next beacon to this peer names every tablet of which it is told.
    fn say_all_again(&mut self, peer: NodeId) {
        let Some(told) = self.told.get(&peer) else { return };
        let tablets: Vec<TabletId> = told.tablets().collect();
        for tablet in tablets {
            self.aloud.insert(tablet);
            self.wake(tablet);
        }
    }

    /// Looks at the replicas that were stepped: what of them must be said, and who stands by whom no more.
    pub(crate) fn calm(&mut self, now: Instant) {
        for tablet in core::mem::take(&mut self.stirred) {
            let Some(hosted) = self.hosted.get_mut(&tablet) else { continue };
            let replica = &hosted.replica;
            let primary = replica.configuration().primary;
            if let Some(heard) = self.heard.get_mut(&primary)
                && let Some((epoch, committed)) = heard.committed(tablet)
                && !replica.stands_by(primary, epoch, committed)
            {
                heard.part(tablet);
            }
            let peers = replica.peers();
            for left in hosted.told.iter().filter(|node| !peers.contains(node)) {
                if let Some(told) = self.told.get_mut(left) {
                    told.forget(tablet);
                }
            }
            if !peers.is_empty() {
                let line = line_of(tablet, replica, now);
                let said = |node: &NodeId| self.told.get(node).is_some_and(|told| told.says(&line));
                if !replica.rests() || !peers.iter().all(said) {
                    self.aloud.insert(tablet);
                }
            }
            if hosted.followed != primary {
                if let Some(heard) = self.heard.get_mut(&hosted.followed) {
                    heard.part(tablet);
                }
                hosted.followed = primary;
            }
            hosted.told = peers;
            self.reporting.stir(tablet);
        }
    }

    /// The tablet is not kept here any more.
    pub(crate) fn part_from_all(&mut self, tablet: TabletId) {
        self.told.values_mut().for_each(|told| told.forget(tablet));
        self.heard.values_mut().for_each(|heard| heard.part(tablet));
        self.aloud.remove(&tablet);
        self.reporting.stir(tablet);
    }

    fn covers(&self, peer: NodeId, tablet: TabletId, epoch: Epoch) -> Option<Instant> {
        self.told.get(&peer).and_then(|told| told.covers(tablet, epoch))
    }

    /// Tells the replica of the leases that it was granted, or has granted, with all others of the pair of nodes.
    pub(crate) fn catch_up_with_leases(&mut self, now: Instant, tablet: TabletId, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let replica = &mut hosted.replica;
        let (epoch, primary) = (replica.epoch(), replica.configuration().primary);
        let mut effects = Vec::new();
        match replica.role() {
            Role::Primary => {
                for node in replica.peers() {
                    let granted = self.told.get(&node).and_then(|told| told.covers(tablet, epoch));
                    if let Some(sent) = granted.filter(|_| granted > replica.granted_by(node)) {
                        replica.step(now, GroupInput::Granted(node, epoch, sent), &mut effects);
                    }
                }
            }
            Role::Secondary | Role::Learner => {
                if let Some(heard) = self.heard.get(&primary)
                    && let Some(line) = heard.line(tablet, epoch)
                    && heard.at > hosted.heard
                {
                    hosted.heard = heard.at;
                    replica.step(heard.at, GroupInput::Beacon(primary, epoch, line.committed), &mut effects);
                    if let (true, Some(asof)) = (line.leased, heard.fresh) {
                        replica.step(now, GroupInput::Fresh(primary, epoch, asof, line.committed), &mut effects);
                    }
                    effects.retain(|effect| !matches!(effect, GroupEffect::Grant(..)));
                }
            }
            Role::Spare => {}
        }
        self.carry_out(now, tablet, effects, out);
    }

    /// The replica looks after itself again.
    pub(crate) fn wake(&mut self, tablet: TabletId) {
        self.reporting.stir(tablet);
        let deadline = self.hosted.get(&tablet).and_then(|hosted| hosted.replica.deadline());
        self.deadlines.note(tablet, deadline);
    }

    /// Need nobody look at the replica before its peers have been silent for too long? That, the pair's alarm says.
    pub(crate) fn is_parked(&self, tablet: TabletId) -> bool {
        let Some(hosted) = self.hosted.get(&tablet).filter(|hosted| hosted.replica.rests()) else { return false };
        let replica = &hosted.replica;
        match replica.role() {
            Role::Primary => replica.peers().iter().all(|node| {
                let told = self.told.get(node).filter(|told| !told.alarmed);
                told.is_some_and(|told| told.covers(tablet, replica.epoch()).is_some())
            }),
            Role::Secondary => {
                let heard = self.heard.get(&replica.configuration().primary).filter(|heard| !heard.alarmed);
                heard.is_some_and(|heard| heard.line(tablet, replica.epoch()).is_some())
            }
            Role::Learner | Role::Spare => false,
        }
    }

    /// When the silence of a peer is first too long for somebody who rests.
    pub(crate) fn silence_deadline(&self) -> Option<Instant> {
        let timing = &self.options.timing;
        let told = self.told.values().filter_map(|told| told.alarm(timing.lease));
        let heard = self.heard.values().filter_map(|heard| heard.alarm(patience(timing)));
        told.chain(heard).min()
    }

    /// Wakes all who rest and hang on a peer that has fallen silent.
    pub(crate) fn wake_if_silent(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.silence_deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let timing = self.options.timing.clone();
        let mut tablets: Vec<TabletId> = Vec::new();
        for told in self.told.values_mut().filter(|told| told.alarm(timing.lease).is_some_and(|at| now >= at)) {
            told.alarmed = true;
            tablets.extend(told.tablets());
        }
        for heard in self.heard.values_mut().filter(|heard| heard.alarm(patience(&timing)).is_some_and(|at| now >= at))
        {
            heard.alarmed = true;
            tablets.extend(heard.tablets());
        }
        for tablet in tablets {
            self.catch_up_with_leases(now, tablet, out);
            self.wake(tablet);
        }
    }

    /// The process was stopped: everything is asked for anew.
    pub(crate) fn forget_grants(&mut self, now: Instant) {
        self.woken = now;
        let peers: Vec<NodeId> = self.told.keys().copied().collect();
        for peer in peers {
            self.told.get_mut(&peer).into_iter().for_each(Told::on_gap);
            self.say_all_again(peer);
        }
    }

    fn later_leases<'a>(&'a self, hosted: &'a Hosted) -> impl Fn(NodeId) -> Option<Instant> + 'a {
        |node| self.covers(node, hosted.id(), hosted.replica.epoch())
    }

    /// May a read of the tablet be answered now?
    pub fn may_read(&self, tablet: TabletId, now: Instant) -> bool {
        let hosted = self.hosted.get(&tablet);
        hosted.is_some_and(|hosted| hosted.replica.may_read_with(now, self.later_leases(hosted)))
    }

    /// What the replica is about.
    pub(crate) fn group_stage(&self, hosted: &Hosted, now: Instant) -> protocol::replica::Stage {
        hosted.replica.stage_with(now, self.later_leases(hosted))
    }

    /// A primary with live leases, or a secondary that hears its primary.
    pub(crate) fn is_steady(&self, hosted: &Hosted, now: Instant) -> bool {
        let replica = &hosted.replica;
        match replica.role() {
            Role::Primary => self.may_read(hosted.id(), now),
            _ if replica.is_steady(now) => true,
            _ => {
                let heard = self.heard.get(&replica.configuration().primary);
                let heard = heard.filter(|heard| heard.line(hosted.id(), replica.epoch()).is_some());
                heard.is_some_and(|heard| now.since(heard.at) < self.options.timing.grace)
            }
        }
    }

    /// How old the replica's rows may be: nothing is missing that was acknowledged longer ago.
    pub fn lag(&self, tablet: TabletId, now: Instant) -> Option<Duration> {
        let replica = &self.hosted.get(&tablet)?.replica;
        let heard = self.heard.get(&replica.configuration().primary);
        let line = heard.and_then(|heard| Some((heard.line(tablet, replica.epoch())?, heard.fresh?)));
        let fresh = line.filter(|(line, _)| line.leased && line.committed <= replica.committed());
        let asof = replica.fresh_asof(now).max(fresh.map(|(_, asof)| asof));
        if self.may_read(tablet, now) { Some(Duration::ZERO) } else { asof.map(|asof| now.since(asof)) }
    }
}
