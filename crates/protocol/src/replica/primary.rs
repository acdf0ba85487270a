//! The primary's part: gives each write its place, and commits what every member has on disk.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use model::{Configuration, Epoch, Instant, Lsn, NodeId, Refusal, Ticket};

use super::hand_over::HandOver;
use super::pace::Pace;
use super::{Effect, Part, Replica};
use crate::timing::earliest;
use crate::{Entry, GroupMessage, Mutant, Why};

/// Bytes that may be under way to one peer.
const WINDOW_BYTES: usize = 16 << 20;
/// Bytes of entries in one message, unless a single entry is larger.
const MESSAGE_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Primary {
    /// Every secondary, and the learner once it has asked.
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// Who waits for which entry.
    waiting: BTreeMap<Lsn, Ticket>,
    /// Bytes of the payloads that are waited for.
    waiting_bytes: usize,
    /// Everything that predecessors may have committed lies at or before this.
    reconciled_at: Lsn,
    /// The `Save` of this epoch. Until it is on disk, nobody hears of us: started again, we could take the same epoch
    /// anew with less in our log, and followers would find it different from what they compared.
    installed: u64,
    /// Asked of the master and not answered; its members count already.
    pub(super) proposal: Option<Proposal>,
    /// The last entry that the node itself wrote. It may found other groups with our members: nobody becomes one before it is
    /// committed, so that whoever commits it was a member when it was written.
    ordered: Lsn,
    /// A secondary is about to take our place.
    pub(super) hand_over: HandOver,
    /// How fast our own disk is.
    pub(super) pace: Pace,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Proposal {
    configuration: Configuration,
    why: Why,
    /// When the master was last asked.
    asked: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer {
    /// Last entry of our log that its disk holds.
    pub(super) acked: Lsn,
    /// Last entry that went out to it, or that it has anyway.
    sent: Lsn,
    /// Where sending begins again after a loss. Never more than `sent`.
    base: Lsn,
    /// What is under way: last entry and bytes of each message.
    under_way: VecDeque<(Lsn, usize)>,
    /// When the last beacon went out that it acknowledged.
    granted: Option<Instant>,
    /// Since when its first answer in this epoch is expected; `None` once that has come.
    since: Option<Instant>,
    /// When it last acknowledged something new, or was sent something after a pause.
    progress: Instant,
    /// Entries for it are being read from the log.
    fetching: Option<Instant>,
    /// A learner's attempt.
    attempt: Option<u64>,
    /// How fast it has on disk what ours has.
    pub(super) pace: Pace,
}

impl Peer {
    fn new(now: Instant, has: Lsn) -> Peer {
        Peer {
            acked: Lsn::ZERO,
            sent: has,
            base: has,
            under_way: VecDeque::new(),
            granted: None,
            since: Some(now),
            progress: now,
            fetching: None,
            attempt: None,
            pace: Pace::default(),
        }
    }

    pub(super) fn granted(&self) -> Option<Instant> {
        self.granted
    }

    fn rests(&self, last: Lsn) -> bool {
        self.acked == last && self.since.is_none() && self.fetching.is_none() && self.pace.rests()
    }

    fn rewind(&mut self, now: Instant, to: Lsn) {
        self.sent = to;
        self.base = to;
        self.under_way.clear();
        self.fetching = None;
        self.progress = now;
    }

    fn under_way_bytes(&self) -> usize {
        self.under_way.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl Primary {
    pub fn reconciled_at(&self) -> Lsn {
        self.reconciled_at
    }

    pub fn installed(&self) -> u64 {
        self.installed
    }

    /// Is a configuration asked for that is not decided?
    pub fn proposes(&self) -> bool {
        self.proposal.is_some()
    }

    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub fn take_waiting(&mut self) -> BTreeMap<Lsn, Ticket> {
        core::mem::take(&mut self.waiting)
    }

    /// Who waits for the entry, which is committed now.
    pub fn take_ticket(&mut self, entry: &Entry) -> Option<Ticket> {
        let ticket = self.waiting.remove(&entry.lsn)?;
        self.waiting_bytes -= entry.payload.len();
        Some(ticket)
    }

    /// Has it left its place to another, or is about to?
    pub fn is_handing_over(&self) -> bool {
        self.hand_over.holds_writes()
    }

    /// Has it given up its place, so that it must not read any more in this epoch?
    pub fn has_resigned(&self) -> bool {
        self.hand_over.has_resigned()
    }

    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.keys().copied()
    }

    pub fn acknowledged(&self) -> impl Iterator<Item = (NodeId, Lsn)> + '_ {
        self.peers.iter().map(|(&node, peer)| (node, peer.acked))
    }

    /// Is nothing asked for, nothing under way, and every peer a secondary that has all we have?
    pub fn rests(&self, replica: &Replica) -> bool {
        let last = replica.tail.last();
        self.proposal.is_none()
            && self.hand_over == HandOver::No
            && self.pace.rests()
            && replica.learner.is_none()
            && !self.peers.is_empty()
            && self.peers.values().all(|peer| peer.rests(last))
    }

    pub fn slowest(&self) -> Option<Lsn> {
        self.peers.values().map(|peer| peer.acked).min()
    }

    /// Who must have an entry before it is committed, and grant a lease before a read: the members now, and those
    /// whom an unanswered proposal would add. Without ourselves.
    pub fn voters<'a>(&'a self, replica: &'a Replica) -> impl Iterator<Item = NodeId> + 'a {
        let members = &replica.configuration;
        let proposed = self.proposal.as_ref().map(|proposal| &proposal.configuration);
        let added = proposed.filter(|_| !replica.mutant(Mutant::IgnoreProposedMembers));
        let added = added.into_iter().flat_map(Configuration::members).filter(|node| !members.has(*node));
        let leaves = proposed.filter(|_| replica.mutant(Mutant::CommitBeforeRemoval));
        let stays = move |node: &NodeId| leaves.is_none_or(|proposed| proposed.has(*node));
        members.members().chain(added).filter(|&node| node != replica.me).filter(stays)
    }

    pub fn leased(&self, node: NodeId, now: Instant, replica: &Replica) -> bool {
        let granted = self.peers.get(&node).and_then(|peer| peer.granted);
        granted.is_some_and(|sent| now < sent + replica.timing.lease)
    }

    /// When the node will have been silent for too long. Someone who has not answered in this epoch gets longer: it
    /// may not have heard of the configuration, or not have it on disk.
    fn lapses(&self, node: NodeId, replica: &Replica) -> Instant {
        let timing = &replica.timing;
        match self.peers.get(&node) {
            Some(Peer { since: Some(since), .. }) => *since + timing.lease + timing.grace,
            Some(Peer { granted: Some(sent), .. }) => *sent + timing.lease,
            _ => Instant::ZERO,
        }
    }

    /// When the first of its leases ends or has ended; `None` if somebody has never granted one in this epoch.
    pub fn leased_until(&self, replica: &Replica) -> Option<Instant> {
        let granted = |node: NodeId| self.peers.get(&node).and_then(|peer| peer.granted);
        match self.voters(replica).map(granted).min() {
            Some(first) => first.map(|sent| sent + replica.timing.lease),
            None => replica.session.map(|sent| sent + replica.timing.session),
        }
    }

    /// How long the node has given no sign of life.
    fn silence(&self, node: NodeId, now: Instant) -> Duration {
        let last = self.peers.get(&node).and_then(|peer| peer.since.or(peer.granted));
        last.map_or(Duration::ZERO, |last| now.since(last))
    }

    pub fn deadline(&self, replica: &Replica) -> Option<Instant> {
        if let Some(proposal) = &self.proposal {
            return Some(proposal.asked + replica.timing.retry);
        }
        let fetching = self.peers.values().filter_map(|peer| peer.fetching).min();
        let waits = fetching.map(|since| since + replica.timing.retry * 5);
        let waits = earliest(waits, self.hand_over.deadline(&replica.timing));
        if replica.synced < self.installed {
            return waits;
        }
        let secondaries = &replica.configuration.secondaries;
        let lapses = secondaries.iter().map(|&node| self.lapses(node, replica)).min();
        let paces = secondaries.iter().filter_map(|node| self.peers.get(node)).map(|peer| &peer.pace);
        let slow = paces.chain([&self.pace]).filter_map(|pace| pace.deadline(&replica.timing)).min();
        earliest(earliest(waits, lapses), slow)
    }
}

impl Replica {
    pub(super) fn primary(&mut self) -> Option<&mut Primary> {
        match &mut self.part {
            Part::Primary(primary) => Some(primary),
            _ => None,
        }
    }

    /// Takes over: whatever the predecessor may have committed is in our tail, since we were a member.
    pub(super) fn become_primary(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.mutant(Mutant::TruncatingPrimary) {
            self.cut(self.committed.next());
        }
        let no_op = Entry { lsn: self.tail.last().next(), epoch: self.epoch(), payload: Bytes::new() };
        self.part = Part::Primary(Primary { reconciled_at: no_op.lsn, installed: self.saved, ..Primary::default() });
        self.tail.push(no_op.clone());
        self.append(vec![no_op], out);
        self.keep_peers(now);
    }

    /// Stays primary with other members. What old members acknowledged still holds: our log has not changed.
    pub(super) fn continue_as_primary(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let saved = self.saved;
        if let Some(primary) = self.primary() {
            primary.proposal = None;
            primary.installed = saved;
            primary.hand_over = HandOver::No;
        }
        // A learner's promises end with the epoch: it may have been told to forget since, and to learn anew.
        let members = self.configuration.clone();
        let keeps_promises = self.mutant(Mutant::OldPromisesCount);
        if let Some(primary) = self.primary() {
            primary.peers.retain(|node, _| members.has(*node) || keeps_promises);
        }
        self.keep_peers(now);
        // What is under way is of the old epoch and will be ignored. Every member holds what is committed.
        let committed = self.committed;
        if let Some(primary) = self.primary() {
            for peer in primary.peers.values_mut() {
                peer.rewind(now, committed.min(peer.sent));
                peer.since = Some(now);
                peer.pace = Pace::default();
            }
        }
        self.advance(now, out);
    }

    /// Makes the peers those whom the configuration names.
    pub(super) fn keep_peers(&mut self, now: Instant) {
        let (configuration, learner, committed) = (self.configuration.clone(), self.learner, self.committed);
        let Some(primary) = self.primary() else { return };
        primary.peers.retain(|node, _| configuration.has(*node) || learner == Some(*node));
        for &node in &configuration.secondaries {
            let peer = primary.peers.entry(node).or_insert_with(|| Peer::new(now, committed));
            peer.attempt = None;
        }
    }

    pub(super) fn on_propose(&mut self, now: Instant, ticket: Ticket, payload: Bytes, out: &mut Vec<Effect>) {
        if !self.may_write(now) {
            let refusal = match &self.part {
                Part::Primary(_) | Part::Returning(_) => Refusal::NotReady(self.tablet),
                _ => Refusal::WrongEpoch { tablet: self.tablet, current: self.configuration.clone() },
            };
            out.push(Effect::Refuse(ticket, refusal));
            return;
        }
        let (lsn, bytes) = (self.tail.last().next(), payload.len());
        if let Part::Primary(primary) = &mut self.part {
            primary.waiting.insert(lsn, ticket);
            primary.waiting_bytes += bytes;
            primary.pace.watch(now, lsn, &self.timing);
        }
        self.order(payload, out);
    }

    pub(super) fn on_order(&mut self, now: Instant, payload: Bytes, out: &mut Vec<Effect>) {
        if !self.may_write(now) || self.is_growing() {
            return;
        }
        let lsn = self.tail.last().next();
        if let Some(primary) = self.primary() {
            primary.ordered = lsn;
        }
        self.order(payload, out);
    }

    /// Does an unanswered proposal add somebody?
    pub fn is_growing(&self) -> bool {
        let Part::Primary(primary) = &self.part else { return false };
        let proposed = primary.proposal.as_ref().map(|proposal| &proposal.configuration);
        proposed.is_some_and(|proposed| proposed.members().any(|node| !self.configuration.has(node)))
    }

    fn order(&mut self, payload: Bytes, out: &mut Vec<Effect>) {
        let entry = Entry { lsn: self.tail.last().next(), epoch: self.epoch(), payload };
        self.tail.push(entry.clone());
        self.append(vec![entry], out);
    }

    /// Sends each peer what it has not been sent.
    pub(super) fn pump(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let hasty = self.mutant(Mutant::SpeakBeforeSave);
        let Part::Primary(primary) = &mut self.part else { return };
        if self.synced < primary.installed && !hasty {
            return;
        }
        let (epoch, committed, last) = (self.configuration.epoch, self.committed, self.tail.last());
        for (&node, peer) in &mut primary.peers {
            while peer.sent < last && peer.fetching.is_none() && peer.under_way_bytes() < WINDOW_BYTES {
                let from = peer.sent.next();
                let entries = self.tail.copy(from, MESSAGE_BYTES);
                let Some(sent) = entries.last().map(|entry| entry.lsn) else {
                    peer.fetching = Some(now);
                    out.push(Effect::Older { to: node, from, attempt: peer.attempt });
                    break;
                };
                if peer.under_way.is_empty() {
                    peer.progress = now;
                }
                let bytes = entries.iter().map(|entry| entry.payload.len() + 32).sum();
                peer.under_way.push_back((sent, bytes));
                peer.sent = sent;
                out.push(Effect::Send(node, GroupMessage::Prepare { epoch, committed, entries }));
            }
        }
    }

    /// Old entries, read back, go to the peer that lacks them.
    pub(super) fn on_fetched(&mut self, to: NodeId, entries: Vec<Entry>, out: &mut Vec<Effect>) {
        let (epoch, committed, synced) = (self.epoch(), self.committed, self.synced);
        let Some(primary) = self.primary() else { return };
        let installed = synced >= primary.installed;
        let Some(peer) = primary.peers.get_mut(&to) else { return };
        if peer.fetching.take().is_none() || !installed {
            return;
        }
        let Some((first, last)) = entries.first().zip(entries.last()).map(|(a, b)| (a.lsn, b.lsn)) else { return };
        if first == peer.sent.next() {
            let bytes = entries.iter().map(|entry| entry.payload.len() + 32).sum();
            peer.under_way.push_back((last, bytes));
            peer.sent = last;
            out.push(Effect::Send(to, GroupMessage::Prepare { epoch, committed, entries }));
        }
    }

    pub(super) fn on_prepared(&mut self, now: Instant, from: NodeId, upto: Lsn, out: &mut Vec<Effect>) {
        let (last, slow) = (self.tail.last(), self.timing.slow);
        let Some(peer) = self.primary().and_then(|primary| primary.peers.get_mut(&from)) else { return };
        if upto > last || upto > peer.sent {
            // A rewound peer may still acknowledge what went out before: its disk does hold it.
            if upto > last {
                out.push(Effect::Suspect(from, "acknowledges what was never sent"));
                return;
            }
            peer.sent = upto;
        }
        if upto > peer.acked {
            peer.acked = upto;
            peer.pace.reached(now, upto, slow);
            peer.base = peer.base.max(upto);
            peer.progress = now;
        }
        while peer.under_way.front().is_some_and(|(sent, _)| *sent <= upto) {
            peer.under_way.pop_front();
        }
        self.advance(now, out);
    }

    pub(super) fn on_missing(&mut self, now: Instant, from: NodeId, lsn: Lsn, out: &mut Vec<Effect>) {
        let (last, committed, member) = (self.tail.last(), self.committed, self.configuration.has(from));
        let Some(peer) = self.primary().and_then(|primary| primary.peers.get_mut(&from)) else { return };
        if lsn > last.next() {
            out.push(Effect::Suspect(from, "holds committed entries that we never had"));
            return;
        }
        // A member lacks nothing that is committed: it asked before it heard so.
        let to = if member { lsn.prev().max(committed) } else { lsn.prev() };
        peer.rewind(now, to);
    }

    /// The learner asks to be brought up to date; it holds everything before `lsn`.
    pub(super) fn on_learn(&mut self, now: Instant, from: NodeId, attempt: u64, lsn: Lsn, out: &mut Vec<Effect>) {
        if self.learner != Some(from) && !self.configuration.has(from) {
            return;
        }
        let (last, committed) = (self.tail.last(), self.committed);
        let Some(primary) = self.primary() else { return };
        if lsn > last.next() {
            out.push(Effect::Suspect(from, "holds committed entries that we never had"));
            out.push(Effect::Older { to: from, from: Lsn::ZERO, attempt: Some(attempt) });
            return;
        }
        let peer = primary.peers.entry(from).or_insert_with(|| Peer::new(now, committed));
        if peer.attempt == Some(attempt) {
            return;
        }
        peer.attempt = Some(attempt);
        peer.rewind(now, lsn.prev());
    }

    pub(super) fn on_granted(
        &mut self,
        now: Instant,
        from: NodeId,
        epoch: Epoch,
        sent: Instant,
        out: &mut Vec<Effect>,
    ) {
        if epoch != self.epoch() {
            return;
        }
        let (retry, last, committed) = (self.timing.retry, self.tail.last(), self.committed);
        let from_receipt = self.mutant(Mutant::LeaseFromReceipt);
        let Some(peer) = self.primary().and_then(|primary| primary.peers.get_mut(&from)) else { return };
        let sent = if from_receipt { now } else { sent };
        peer.granted = peer.granted.max(Some(sent));
        peer.since = None;
        // It lives, yet what was sent long ago is not acknowledged: that must have been lost.
        if peer.acked < peer.sent && peer.fetching.is_none() && now.since(peer.progress) > retry * 2 {
            let base = peer.base;
            peer.rewind(now, base);
            if base == last {
                // Nothing to send again: it was its answer that got lost.
                out.push(Effect::Send(from, GroupMessage::Prepare { epoch, committed, entries: Vec::new() }));
            }
        }
    }

    /// Commits what every voter has on disk; proposes the learner once it has all that is committed.
    pub(super) fn advance(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let Part::Primary(primary) = &self.part else { return };
        let acked = |node: NodeId| primary.peers.get(&node).map_or(Lsn::ZERO, |peer| peer.acked);
        let mut acked: Vec<Lsn> = primary.voters(self).map(acked).collect();
        if self.mutant(Mutant::CommitWithoutSlowest) {
            acked.sort_unstable();
            acked.drain(..acked.len().min(1));
        }
        let mine = if self.mutant(Mutant::CommitBeforeOwnSync) { self.tail.last() } else { self.durable };
        let everywhere = acked.into_iter().fold(mine, Lsn::min);
        if !self.may_be_alone(primary, now) {
            return;
        }
        self.commit_to(everywhere, out);
        self.admit_learner(now, out);
        self.hand_over_if_drained(now, out);
    }

    fn admit_learner(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let Part::Primary(primary) = &self.part else { return };
        let Some(learner) = self.learner else { return };
        let Some(upto) = primary.peers.get(&learner).map(|peer| peer.acked) else { return };
        let caught_up =
            upto >= self.committed && self.committed >= primary.ordered || self.mutant(Mutant::EarlyPromotion);
        if caught_up && primary.proposal.is_none() && self.serves(primary) && !self.configuration.has(learner) {
            self.propose(now, self.configuration.with(learner), Why::CaughtUp { node: learner, upto }, out);
        }
    }

    pub(super) fn propose(&mut self, now: Instant, configuration: Configuration, why: Why, out: &mut Vec<Effect>) {
        if let Some(primary) = self.primary() {
            primary.proposal = Some(Proposal { configuration: configuration.clone(), why: why.clone(), asked: now });
        }
        out.push(Effect::ProposeConfiguration(configuration, why));
    }

    pub(super) fn on_primary_tick(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let (retry, timing_fetch) = (self.timing.retry, self.timing.retry * 5);
        let Part::Primary(primary) = &mut self.part else { return };
        primary.hand_over.tick(now, &self.timing);
        if let Some(Proposal { configuration, why, asked }) = &mut primary.proposal {
            if now >= *asked + retry {
                *asked = now;
                out.push(Effect::ProposeConfiguration(configuration.clone(), why.clone()));
            }
            return;
        }
        for peer in primary.peers.values_mut() {
            if peer.fetching.is_some_and(|since| now >= since + timing_fetch) {
                peer.fetching = None;
            }
        }
        let Part::Primary(primary) = &self.part else { return };
        if self.synced < primary.installed {
            return;
        }
        let secondaries = &self.configuration.secondaries;
        let silent = secondaries.iter().filter(|&&node| now >= primary.lapses(node, self));
        let silent = silent.map(|&node| (primary.silence(node, now), node));
        let slow = secondaries.iter().filter_map(|&node| {
            let pace = &primary.peers.get(&node)?.pace;
            pace.is_slow(now, &self.timing).then(|| (pace.behind(now), node))
        });
        let (silent, slow): (Vec<_>, Vec<_>) = (silent.collect(), slow.collect());
        let mut fewer = self.configuration.next();
        fewer.secondaries.retain(|node| !silent.iter().chain(&slow).any(|(_, unfit)| unfit == node));
        if let Some(&(silence, node)) = silent.iter().max() {
            self.propose(now, fewer, Why::Silent { node, silent: silence }, out);
        } else if let Some(&(behind, node)) = slow.iter().max() {
            self.propose(now, fewer, Why::Slow { node, behind }, out);
        } else if primary.pace.is_slow(now, &self.timing) {
            let behind = primary.pace.behind(now);
            self.abdicate(now, behind, out);
        }
    }

    /// Our epoch is on disk, and beacons go out from now on: only now can anybody be expected to answer.
    pub(super) fn on_installed(&mut self, now: Instant) {
        let Some(primary) = self.primary() else { return };
        for peer in primary.peers.values_mut() {
            peer.since = peer.since.map(|_| now);
        }
    }

    pub(super) fn on_primary_gap(&mut self, now: Instant) {
        self.keep_freshness(now);
        let Some(primary) = self.primary() else { return };
        for peer in primary.peers.values_mut() {
            peer.granted = None;
            peer.since = Some(now);
            peer.pace = Pace::default();
        }
        primary.pace = Pace::default();
    }
}
