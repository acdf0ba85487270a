//! The follower's part, as a secondary or a learner: writes what the primary says, and watches whether it is there.

use alloc::vec::Vec;
use model::{Epoch, Instant, Lsn, NodeId};

use super::{Effect, Part, Replica};
use crate::tail::Tail;
use crate::timing::earliest;
use crate::{Entry, GroupMessage, Mutant, Timing, Why};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Follower {
    /// When the primary was last heard.
    heard: Instant,
    /// Our log is the same as this epoch's primary's up to here. What lies behind in the tail is an older primary's
    /// and may be wrong, but it stays until it is replaced: should we become primary, it may be all there is.
    verified: Lsn,
    /// The last acknowledgement.
    acknowledged: Lsn,
    /// Numbers our attempts to learn.
    attempt: u64,
    /// The entry that was last asked for, and when.
    asked: Option<(Lsn, Instant)>,
    /// A secondary that wants to become primary.
    succession: Succession,
    /// When the other secondaries were last asked whether they hear the primary, since it fell silent.
    inquired: Option<Instant>,
    /// One of them does: then it is the primary's part to remove us, and we wait for one more grace period. No longer:
    /// if it can reach neither us nor the master, nobody else would help (design notes, 6.5).
    heard_elsewhere: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Succession {
    /// The primary is fine.
    No,
    /// It has been silent too long. That we obey it no more goes to disk first (mark): otherwise a crash here
    /// could let us acknowledge its entries again after the master has heard that we would not.
    Saving(u64),
    /// The master was asked at this time.
    Asked(Instant),
}

impl Follower {
    pub fn new(now: Instant, committed: Lsn) -> Follower {
        Follower {
            heard: now,
            verified: committed,
            acknowledged: Lsn::ZERO,
            attempt: now.0,
            asked: None,
            succession: Succession::No,
            inquired: None,
            heard_elsewhere: false,
        }
    }

    /// The primary has spoken; we may be told so later than of something else that it said since.
    pub fn hear(&mut self, at: Instant) {
        if at >= self.heard {
            self.heard = at;
            self.inquired = None;
            self.heard_elsewhere = false;
        }
    }

    /// Is nothing asked of anybody?
    pub fn rests(&self) -> bool {
        self.asked.is_none() && self.inquired.is_none() && !self.heard_elsewhere && self.succession == Succession::No
    }

    /// When the secondary gives the primary up.
    fn gives_up_at(&self, replica: &Replica) -> Instant {
        let grace = replica.timing.grace;
        self.heard + if self.heard_elsewhere { grace * 2 } else { grace }
    }

    /// When it asks the other secondaries, if there are any: in time to hear them before the grace period ends.
    fn inquires_at(&self, replica: &Replica) -> Option<Instant> {
        let Timing { grace, retry, .. } = replica.timing;
        let others = replica.configuration.secondaries.len() > 1;
        others.then(|| self.inquired.map_or(self.heard + (grace - retry.min(grace)), |at| at + retry))
    }

    pub fn verified(&self) -> Lsn {
        self.verified
    }

    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// Is it on its way to the disk that the primary is obeyed no more?
    pub fn is_saving(&self) -> bool {
        matches!(self.succession, Succession::Saving(_))
    }

    /// Was the master asked to make us the primary?
    pub fn has_asked(&self) -> bool {
        matches!(self.succession, Succession::Asked(_))
    }

    pub fn deadline(&self, replica: &Replica) -> Option<Instant> {
        let secondary = replica.configuration.has(replica.me);
        let asks_again = self.asked.map(|(_, at)| at + replica.timing.retry * 2);
        match self.succession {
            Succession::No if secondary => {
                earliest(earliest(Some(self.gives_up_at(replica)), self.inquires_at(replica)), asks_again)
            }
            Succession::No => asks_again,
            Succession::Saving(_) => None,
            Succession::Asked(at) => Some(at + replica.timing.retry),
        }
    }
}

impl Replica {
    pub(super) fn obeys(&self, from: NodeId, epoch: Epoch) -> bool {
        let given_up = epoch <= self.abandoned && !self.mutant(Mutant::AbandonedIgnored);
        let obeyed = epoch == self.configuration.epoch && !given_up && from == self.configuration.primary;
        obeyed && matches!(self.part, Part::Follower(_))
    }

    /// Only of the primary whom we obey.
    pub(super) fn follows(&mut self, from: NodeId, epoch: Epoch) -> Option<&mut Follower> {
        let obeyed = self.obeys(from, epoch);
        match &mut self.part {
            Part::Follower(follower) if obeyed => Some(follower),
            _ => None,
        }
    }

    pub(super) fn become_follower(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.part = Part::Follower(Follower::new(now, self.committed));
        // A member hears from the primary by itself, from the committed point on.
        if !self.configuration.has(self.me) {
            self.introduce(now, out);
        }
    }

    /// A learner introduces itself, and goes on doing so: its primary may have lost it, or know an older attempt.
    fn introduce(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let (epoch, primary) = (self.epoch(), self.configuration.primary);
        if let Part::Follower(follower) = &mut self.part {
            let from = follower.verified.next();
            follower.asked = Some((from, now));
            out.push(Effect::Send(primary, GroupMessage::Learn { epoch, attempt: follower.attempt, from }));
        }
    }

    /// Asks the primary to go back to the first entry that was not compared.
    fn ask(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let (epoch, primary) = (self.epoch(), self.configuration.primary);
        if let Part::Follower(follower) = &mut self.part {
            let from = follower.verified.next();
            follower.asked = Some((from, now));
            out.push(Effect::Send(primary, GroupMessage::Missing { epoch, from }));
        }
    }

    pub(super) fn on_beacon(
        &mut self,
        now: Instant,
        from: NodeId,
        epoch: Epoch,
        committed: Lsn,
        out: &mut Vec<Effect>,
    ) {
        if epoch > self.epoch() {
            out.push(Effect::AskMaster);
            return;
        }
        if epoch < self.epoch() {
            out.push(Effect::Send(from, GroupMessage::Stale { epoch: self.epoch() }));
            return;
        }
        let Some(follower) = self.follows(from, epoch) else { return };
        follower.hear(now);
        self.believe(from, committed, out);
        let Part::Follower(follower) = &self.part else { return };
        let known = committed.min(self.applicable(follower));
        if self.synced >= self.saved || self.mutant(Mutant::GrantBeforeSave) {
            out.push(Effect::Grant(from, epoch));
        }
        self.commit_to(known, out);
    }

    pub(super) fn on_prepare(
        &mut self,
        now: Instant,
        from: NodeId,
        committed: Lsn,
        entries: Vec<Entry>,
        out: &mut Vec<Effect>,
    ) {
        let Some(follower) = self.follows(from, self.configuration.epoch) else { return };
        follower.hear(now);
        self.believe(from, committed, out);
        let Part::Follower(follower) = &self.part else { return };
        let lacks = follower.verified.next();
        // A message without entries asks how far we are.
        let repeats = entries.last().is_none_or(|entry| entry.lsn < lacks);
        if let Some(first) = entries.first()
            && first.lsn > lacks
        {
            if self.mutant(Mutant::AckBeyondGap) {
                let upto = entries.last().map_or(first.lsn, |last| last.lsn);
                out.push(Effect::Send(from, GroupMessage::Prepared { epoch: self.epoch(), upto }));
            }
            let asked_already = follower.asked.is_some_and(|(lsn, _)| lsn == lacks);
            if !asked_already {
                self.ask(now, out);
            }
            return;
        }
        if let Part::Follower(follower) = &mut self.part
            && self.configuration.has(self.me)
        {
            follower.asked = None;
        }
        let fresh = self.compare(from, entries, out);
        self.append(fresh, out);
        self.acknowledge(repeats, out);
        if let Part::Follower(follower) = &self.part {
            let known = committed.min(self.applicable(follower));
            self.commit_to(known, out);
        }
    }

    /// Up to where it may apply what the primary has committed.
    fn applicable(&self, follower: &Follower) -> Lsn {
        if self.mutant(Mutant::CommitWithoutComparing) { self.tail.last() } else { follower.verified }
    }

    /// What the primary of our epoch has committed, a member need not compare: it has acknowledged every committed
    /// entry, or was admitted with it, and none is ever replaced. So a member lacks nothing that may have left the
    /// primary's log.
    fn believe(&mut self, from: NodeId, committed: Lsn, out: &mut Vec<Effect>) {
        let (member, last) = (self.configuration.has(self.me), self.tail.last());
        let Part::Follower(follower) = &mut self.part else { return };
        if member && committed > last {
            out.push(Effect::Suspect(from, "has committed entries that we never acknowledged"));
        } else if member {
            follower.verified = follower.verified.max(committed);
        }
    }

    /// Compares dense entries, of which the first is not beyond what was compared before, with our own; returns those
    /// that were not there. An entry of ours that differs goes, with all after it.
    fn compare(&mut self, from: NodeId, entries: Vec<Entry>, out: &mut Vec<Effect>) -> Vec<Entry> {
        let Part::Follower(follower) = &self.part else { return Vec::new() };
        let known = follower.verified;
        let mut verified = known;
        let mut fresh = Vec::new();
        for entry in entries.into_iter().skip_while(|entry| entry.lsn <= known) {
            if entry.lsn != verified.next() || entry.epoch > self.configuration.epoch {
                out.push(Effect::Suspect(from, "sends entries with gaps or of the future"));
                break;
            }
            verified = entry.lsn;
            let same = self.tail.epoch_at(entry.lsn) == Some(entry.epoch);
            if same || entry.lsn <= self.tail.last() && self.mutant(Mutant::KeepConflictingTail) {
                continue;
            }
            if entry.lsn <= self.tail.last() {
                self.cut(entry.lsn);
            }
            self.tail.push(entry.clone());
            fresh.push(entry);
        }
        if let Part::Follower(follower) = &mut self.part {
            follower.verified = verified;
        }
        fresh
    }

    /// Tells the primary what is compared and on disk, if that is news or it seems not to have heard.
    pub(super) fn acknowledge(&mut self, again: bool, out: &mut Vec<Effect>) {
        if self.synced < self.saved && !self.mutant(Mutant::AckBeforeSave) {
            return;
        }
        let (epoch, primary) = (self.epoch(), self.configuration.primary);
        let durable = if self.mutant(Mutant::AckBeforeSync) { self.tail.last() } else { self.durable };
        let compared_all = self.mutant(Mutant::AckWithoutComparing);
        let Some(follower) = self.follows(primary, epoch) else { return };
        let upto = if compared_all { durable } else { follower.verified.min(durable) };
        if upto > follower.acknowledged || again {
            follower.acknowledged = upto;
            out.push(Effect::Send(primary, GroupMessage::Prepared { epoch, upto }));
        }
    }

    pub(super) fn on_restored(&mut self, now: Instant, upto: Lsn, out: &mut Vec<Effect>) {
        assert!(!self.configuration.has(self.me), "only a learner's rows are replaced");
        self.tail = Tail::after(upto);
        self.committed = upto;
        self.durable = upto;
        self.unsynced.clear();
        if matches!(self.part, Part::Follower(_)) {
            self.become_follower(now, out);
        }
    }

    /// The primary is about to be given up: do the others hear it? (Gray failures: DynamoDB, by our design notes 6.5.)
    fn inquire_if_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let (epoch, me) = (self.epoch(), self.me);
        let Part::Follower(follower) = &self.part else { return };
        let due = follower.inquires_at(self).is_some_and(|at| now >= at);
        if !due || follower.succession != Succession::No || !self.configuration.has(me) {
            return;
        }
        let others = self.configuration.secondaries.iter().filter(|&&node| node != me);
        out.extend(others.map(|&node| Effect::Send(node, GroupMessage::Inquiry { epoch })));
        if let Part::Follower(follower) = &mut self.part {
            follower.inquired = Some(now);
        }
    }

    /// Another secondary has lost the primary. No answer means that we do not hear it either.
    pub(super) fn on_inquiry(&mut self, now: Instant, from: NodeId, out: &mut Vec<Effect>) {
        let (epoch, lease) = (self.epoch(), self.timing.lease);
        let Part::Follower(follower) = &self.part else { return };
        let hears = now.since(follower.heard) < lease && follower.succession == Succession::No;
        if hears && self.configuration.has(self.me) && self.configuration.has(from) {
            out.push(Effect::Send(from, GroupMessage::Hears { epoch }));
        }
    }

    pub(super) fn on_hears(&mut self, from: NodeId, out: &mut Vec<Effect>) {
        if !self.configuration.has(from) {
            return;
        }
        let Part::Follower(follower) = &mut self.part else { return };
        if follower.inquired.is_some() && !follower.heard_elsewhere && follower.succession == Succession::No {
            follower.heard_elsewhere = true;
            out.push(Effect::LinkBroken(from));
        }
    }

    /// The primary has been silent for the whole grace period: obey it no more, and stand for its place.
    fn give_up_primary(&mut self, out: &mut Vec<Effect>) {
        self.abandoned = self.configuration.epoch;
        self.save(out);
        let mark = self.marks;
        if let Part::Follower(follower) = &mut self.part {
            follower.succession = Succession::Saving(mark);
        }
    }

    /// Asks the master for the primary's place, once that we have given it up is on disk.
    pub(super) fn seek_primacy(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let (synced, retry) = (self.synced, self.timing.retry);
        let Part::Follower(follower) = &mut self.part else { return };
        let due = match follower.succession {
            Succession::No => false,
            Succession::Saving(mark) => synced >= mark,
            Succession::Asked(at) => now >= at + retry,
        };
        if due {
            follower.succession = Succession::Asked(now);
            let why = Why::PrimarySilent { primary: self.configuration.primary, silent: now.since(follower.heard) };
            out.push(Effect::ProposeConfiguration(self.configuration.succeeded_by(self.me), why));
        }
    }

    pub(super) fn on_tick(&mut self, now: Instant, out: &mut Vec<Effect>) {
        match &mut self.part {
            Part::Primary(_) => self.on_primary_tick(now, out),
            Part::Follower(_) => {
                self.inquire_if_due(now, out);
                let Part::Follower(follower) = &self.part else { return };
                let silent = now >= follower.gives_up_at(self);
                let ask_again = follower.asked.filter(|(_, at)| now >= *at + self.timing.retry * 2);
                if silent && follower.succession == Succession::No && self.configuration.has(self.me) {
                    self.give_up_primary(out);
                }
                self.seek_primacy(now, out);
                match ask_again {
                    Some(_) if self.configuration.has(self.me) => self.ask(now, out),
                    Some(_) => self.introduce(now, out),
                    None => {}
                }
            }
            Part::Returning(_) if self.timing.planted.has(Mutant::ReturnInOldEpoch) => self.become_primary(now, out),
            Part::Returning(asked) => {
                if asked.is_none_or(|at| now >= at + self.timing.retry) {
                    *asked = Some(now);
                    out.push(Effect::ProposeConfiguration(self.configuration.next(), Why::Returned));
                }
            }
            Part::Spare => {}
        }
    }

    pub(super) fn on_gap(&mut self, now: Instant) {
        match &mut self.part {
            Part::Follower(follower) => follower.hear(now),
            _ => self.on_primary_gap(now),
        }
    }
}
