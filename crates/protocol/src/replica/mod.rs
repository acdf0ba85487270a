//! One replica of a tablet: the primary orders mutations, the others follow.
//!
//! After PacificA (Lin et al., 2008). The master alone changes who is in the group; each change is a new epoch.
//!
//! ```text
//!   client ──Propose──▶ primary ──Prepare──▶ each member
//!                          ▲                    │ on disk
//!   client ◀──Reply───── commit ◀──Prepared─────┘
//! ```
//!
//! Invariant (checked by `sim`): `committed(member) <= committed(primary) <= durable(member)`, and the committed
//! entries of any two replicas are a prefix of one another.
//!
//! Three rules differ from the paper, each for a reason (decision 0003):
//! - An entry keeps the epoch in which it was ordered. A new primary does not stamp its tail anew; instead a follower
//!   in a new epoch compares its tail with the primary's, entry by entry, and acknowledges only what it compared.
//! - A primary that was started again does not go on in its epoch: it may have sent entries that its own disk lost.
//!   It asks the master for the next epoch with the same members.
//! - While a proposed configuration is unanswered, its members count beside the present ones, for leases and for
//!   commits: the master may have accepted it already.
//!
//! Never reads a clock and never touches a disk: the host says what is durable, `node` reads old entries back.

mod follower;
mod freshness;
mod hand_over;
mod pace;
mod primary;
mod stage;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use model::request::Role;
use model::{Configuration, Epoch, Instant, Lsn, NodeId, Refusal, TabletId, Ticket};

use self::follower::Follower;
use self::freshness::Fresh;
use self::primary::Primary;
pub use self::stage::Stage;
use crate::tail::Tail;
use crate::{Core, Entry, GroupMessage, Mutant, Timing, Why};

/// What can happen to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The master's present decision, perhaps known already.
    Assign(Configuration, Option<NodeId>),
    /// A client's write, for the primary.
    Propose(Ticket, Bytes),
    /// An entry of the primary's own, for which nobody waits.
    Order(Bytes),
    /// A message of another replica.
    Receive(NodeId, GroupMessage),
    /// The sender asks for a lease as the primary of that epoch, and has committed so far.
    Beacon(NodeId, Epoch, Lsn),
    /// The primary of that epoch spoke under leases of all: whatever was acknowledged before the instant, by our own
    /// clock, lies at or before the lsn. For the age of eventual reads.
    Fresh(NodeId, Epoch, Instant, Lsn),
    /// The node has granted a lease by the beacon that went out at this time.
    Granted(NodeId, Epoch, Instant),
    /// The disk holds what the first so many [`Effect::Append`] and [`Effect::Save`] said.
    Durable(u64),
    /// Old entries for a peer, read back from the log; none if the log could not be read now.
    Fetched(NodeId, Vec<Entry>),
    /// A checkpoint that holds everything up to here has taken the place of whatever was there.
    Restored(Lsn),
    /// Hand the primary's place to this secondary, if the epoch is still this one: somebody planned it.
    HandOver(NodeId, Epoch),
    /// The master has answered what the node told it at this time. A primary without secondaries, whom nobody grants
    /// a lease, lives by that.
    Session(Instant),
    /// The master knows that this entry was committed, and that the tail holds it.
    Decided(Lsn),
    /// The process was stopped for a while: nobody else is to blame for the silence.
    Gap,
    /// There is no more input for now: send what has gathered.
    Settle,
    /// The deadline has come.
    Tick,
}

/// What a replica wants to happen, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write these to the log. An entry takes the place of the one at its lsn and of all after that.
    Append(Vec<Entry>),
    /// Write to the log that this is the configuration, and that no primary of `abandoned` or before is obeyed.
    Save {
        /// The configuration that the replica follows from now on.
        configuration: Configuration,
        /// The master's learner.
        learner: Option<NodeId>,
        /// The newest epoch whose primary this replica has given up.
        abandoned: Epoch,
    },
    /// Send it.
    Send(NodeId, GroupMessage),
    /// Grant the node a lease for its epoch.
    Grant(NodeId, Epoch),
    /// Ask the master for this configuration, for this reason.
    ProposeConfiguration(Configuration, Why),
    /// Report to the master at once: it knows something newer.
    AskMaster,
    /// These are committed: apply them in this order, and answer whoever waits.
    Commit(Vec<(Entry, Option<Ticket>)>),
    /// This write will get no other answer.
    Refuse(Ticket, Refusal),
    /// The peer needs entries from `from` on, and they are not in memory. `attempt` is a learner's.
    Older {
        /// Who needs them.
        to: NodeId,
        /// The first one.
        from: Lsn,
        /// The learner's attempt; `None` for a member.
        attempt: Option<u64>,
    },
    /// The primary is silent here, but this other secondary hears it: the link is broken, not the primary.
    LinkBroken(NodeId),
    /// The peer did what the protocol does not allow.
    Suspect(NodeId, &'static str),
}

/// A replica's part in its group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Part {
    Primary(Primary),
    Follower(Follower),
    /// Was the primary before it started again, and asks for a new epoch; last asked at this time.
    Returning(Option<Instant>),
    /// Not a member and not wanted as one.
    Spare,
}

/// One replica of a tablet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    tablet: TabletId,
    me: NodeId,
    timing: Timing,
    configuration: Configuration,
    learner: Option<NodeId>,
    abandoned: Epoch,
    part: Part,

    tail: Tail,
    /// Last entry that our own disk holds. Never more than `appended`.
    durable: Lsn,
    /// Last entry that is known to be committed.
    committed: Lsn,

    /// How many `Append` and `Save` effects there were, and which of the appends are not durable yet.
    marks: u64,
    unsynced: VecDeque<(u64, Lsn)>,
    /// The last `Save`, and what the disk holds. Until it holds the `Save`, nothing is acknowledged: a crash would
    /// take us back to an epoch that we have left.
    saved: u64,
    synced: u64,

    /// When the node last told the master something that it has answered.
    session: Option<Instant>,
    fresh: Fresh,
}

impl Replica {
    /// A replica of a tablet that has never held anything, or shall learn all of it.
    pub fn new(tablet: TabletId, me: NodeId, timing: Timing) -> Replica {
        assert!(timing.is_safe(), "grace must outlast lease: {timing:?}");
        let short = timing.planted.has(Mutant::ShortGrace);
        let timing = if short { Timing { grace: timing.lease / 2, ..timing } } else { timing };
        let nobody = Configuration { epoch: Epoch(0), primary: NodeId(0), secondaries: Vec::new() };
        Replica {
            tablet,
            me,
            timing,
            configuration: nobody,
            learner: None,
            abandoned: Epoch(0),
            part: Part::Spare,
            tail: Tail::after(Lsn::ZERO),
            durable: Lsn::ZERO,
            committed: Lsn::ZERO,
            marks: 0,
            unsynced: VecDeque::new(),
            saved: 0,
            synced: 0,
            session: None,
            fresh: Fresh::default(),
        }
    }

    /// A replica, beside this one, of a tablet that is made out of this one's and goes on with its log: it holds
    /// everything up to `base`.
    pub fn bear(&self, tablet: TabletId, base: Lsn) -> Replica {
        let mut replica = Replica::new(tablet, self.me, self.timing.clone());
        replica.tail = Tail::after(base);
        replica.committed = base;
        replica.durable = base;
        replica
    }

    /// The replica as its disk remembers it: what the last [`Effect::Save`] said, and the entries after `committed`.
    /// What is new, also about learners, the master will say.
    #[allow(clippy::too_many_arguments)]
    pub fn recover(
        tablet: TabletId,
        me: NodeId,
        timing: Timing,
        now: Instant,
        configuration: Configuration,
        abandoned: Epoch,
        committed: Lsn,
        tail: Vec<Entry>,
    ) -> Replica {
        let mut replica = Replica::new(tablet, me, timing);
        replica.part = if configuration.primary == me {
            Part::Returning(None)
        } else if configuration.has(me) {
            Part::Follower(Follower::new(now, committed))
        } else {
            Part::Spare
        };
        replica.configuration = configuration;
        replica.abandoned = abandoned;
        replica.committed = committed;
        replica.tail = Tail::after(committed);
        tail.into_iter().for_each(|entry| replica.tail.push(entry));
        replica.durable = replica.tail.last();
        replica
    }

    /// The tablet that it replicates.
    pub fn tablet(&self) -> TabletId {
        self.tablet
    }

    /// The configuration that it follows.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The configuration's number.
    pub fn epoch(&self) -> Epoch {
        self.configuration.epoch
    }

    /// The learner that the master wants.
    pub fn learner(&self) -> Option<NodeId> {
        self.learner
    }

    /// The newest epoch whose primary it has given up.
    pub fn abandoned(&self) -> Epoch {
        self.abandoned
    }

    /// Last entry of its log, on disk or on its way there.
    pub fn appended(&self) -> Lsn {
        self.tail.last()
    }

    /// Last entry that its disk holds.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Last entry that it knows to be committed.
    pub fn committed(&self) -> Lsn {
        self.committed
    }

    /// The entry at `lsn`, if it is still in memory. For checkers.
    pub fn entry(&self, lsn: Lsn) -> Option<&Entry> {
        self.tail.get(lsn)
    }

    /// Has it this fault, one of those that check the checkers?
    pub fn mutant(&self, mutant: Mutant) -> bool {
        self.timing.planted.has(mutant)
    }

    /// Primary: its peers, each with the last entry of our log that its disk holds, as it said. For checkers.
    pub fn acknowledged(&self) -> impl Iterator<Item = (NodeId, Lsn)> + '_ {
        let primary = if let Part::Primary(primary) = &self.part { Some(primary) } else { None };
        primary.into_iter().flat_map(Primary::acknowledged)
    }

    /// What it does in its group.
    pub fn role(&self) -> Role {
        match &self.part {
            Part::Primary(_) | Part::Returning(_) => Role::Primary,
            Part::Follower(_) if self.configuration.has(self.me) => Role::Secondary,
            Part::Follower(_) => Role::Learner,
            Part::Spare => Role::Spare,
        }
    }

    /// May a read that was made of the committed state be answered now? True only at a primary whose epoch is on
    /// disk, which has taken over its predecessor's entries, and whose leases have not lapsed (PacificA, 2.3). A
    /// primary alone has nobody to ask for a lease: it needs a live session with the master.
    pub fn may_read(&self, now: Instant) -> bool {
        self.may_read_with(now, |_| None)
    }

    /// The same, by somebody who knows of later leases than this replica was told: of each node, when the beacon went
    /// out by which it granted the last one in this epoch.
    pub fn may_read_with(&self, now: Instant, granted: impl Fn(NodeId) -> Option<Instant>) -> bool {
        match &self.part {
            Part::Primary(primary) => {
                let later = |node| granted(node).is_some_and(|sent| now < sent + self.timing.lease);
                let leased = |node: NodeId| primary.leased(node, now, self) || later(node);
                let voters = || primary.voters(self);
                self.serves(primary)
                    && (!primary.has_resigned() || self.mutant(Mutant::ReadResigned))
                    && self.may_be_alone(primary, now)
                    && (voters().all(leased)
                        || self.mutant(Mutant::ReadWithoutLease)
                        || self.mutant(Mutant::ReadWithOneLease) && voters().any(leased))
            }
            _ => false,
        }
    }

    /// May it take new writes?
    pub fn may_write(&self, now: Instant) -> bool {
        match &self.part {
            Part::Primary(primary) => {
                self.serves(primary) && !primary.is_handing_over() && self.may_be_alone(primary, now)
            }
            _ => false,
        }
    }

    /// May it write an entry of its own, which says who goes on with the tablet? Not while it is asking for a newcomer.
    pub fn may_order(&self, now: Instant) -> bool {
        self.may_write(now) && !self.is_growing()
    }

    /// A primary whose configuration has nobody else?
    pub fn is_alone(&self) -> bool {
        matches!(&self.part, Part::Primary(primary) if primary.voters(self).next().is_none())
    }

    /// A primary alone must have been heard by the master lately: if it was not, an operator may have given the tablet
    /// up for lost and begun it anew elsewhere.
    fn may_be_alone(&self, primary: &Primary, now: Instant) -> bool {
        let session = self.session.is_some_and(|sent| now < sent + self.timing.session);
        session || primary.voters(self).next().is_some()
    }

    /// A primary with live leases, or a secondary that hears its primary.
    pub fn is_steady(&self, now: Instant) -> bool {
        match &self.part {
            Part::Primary(_) => self.may_read(now),
            Part::Follower(follower) => now.since(follower.heard()) < self.timing.grace,
            Part::Returning(_) | Part::Spare => false,
        }
    }

    /// Does it lack nothing but the next lease? A member all of whose entries are committed, who has asked for nothing
    /// and whom nobody owes an answer. Its deadline is then the silence of its peers, and nothing else.
    pub fn rests(&self) -> bool {
        let settled = self.synced >= self.saved && self.durable == self.tail.last();
        match &self.part {
            Part::Primary(primary) => settled && self.committed == self.tail.last() && primary.rests(self),
            Part::Follower(follower) => {
                settled && follower.rests() && self.configuration.has(self.me) && self.abandoned < self.epoch()
            }
            Part::Returning(_) | Part::Spare => false,
        }
    }

    /// Would it grant this primary another lease, and has it all that the primary has committed?
    pub fn stands_by(&self, primary: NodeId, epoch: Epoch, committed: Lsn) -> bool {
        self.obeys(primary, epoch) && self.synced >= self.saved && self.committed >= committed
    }

    /// Primary: when the beacon went out by which the node granted us its last lease.
    pub fn granted_by(&self, node: NodeId) -> Option<Instant> {
        match &self.part {
            Part::Primary(primary) => primary.peers.get(&node).and_then(|peer| peer.granted()),
            _ => None,
        }
    }

    /// Bytes of writes that wait for their commit.
    pub fn uncommitted_bytes(&self) -> usize {
        match &self.part {
            Part::Primary(primary) => primary.waiting_bytes(),
            _ => 0,
        }
    }

    /// Would a checkpoint up to here help? Only a learner that has not got as far by the log: what it has
    /// acknowledged it must not lose again.
    pub fn wants_checkpoint(&self, upto: Lsn) -> bool {
        self.role() == Role::Learner
            && (matches!(&self.part, Part::Follower(follower) if upto > follower.verified() && upto > self.committed)
                || self.mutant(Mutant::UselessCheckpoint))
    }

    /// Is it a primary whose epoch is on disk, so that others may hear of it?
    pub fn is_installed(&self) -> bool {
        matches!(&self.part, Part::Primary(primary) if self.synced >= primary.installed())
    }

    /// Primary: whom to send beacons.
    pub fn peers(&self) -> Vec<NodeId> {
        match &self.part {
            Part::Primary(primary) if self.synced >= primary.installed() => primary.peers().collect(),
            _ => Vec::new(),
        }
    }

    /// Primary: the last entry that every peer has. The log must be kept after it.
    pub fn needed_after(&self) -> Lsn {
        match &self.part {
            Part::Primary(primary) => primary.slowest().map_or(self.committed, |slowest| slowest.min(self.committed)),
            _ => self.committed,
        }
    }

    /// The tablet is removed from this node: whoever waits is refused, and nothing is done any more.
    pub fn retire(&mut self, out: &mut Vec<Effect>) {
        self.resign(out);
        self.part = Part::Spare;
    }

    /// Has it taken over what its predecessors may have committed? That needs its own entry after the `Save` of its
    /// epoch on every disk, so the epoch is on disk too.
    fn serves(&self, primary: &Primary) -> bool {
        self.committed >= primary.reconciled_at() || self.mutant(Mutant::ServeUnreconciled)
    }

    /// The master has decided.
    fn on_assign(
        &mut self,
        now: Instant,
        configuration: Configuration,
        learner: Option<NodeId>,
        out: &mut Vec<Effect>,
    ) {
        if configuration.epoch < self.configuration.epoch {
            return;
        }
        if configuration.epoch == self.configuration.epoch {
            assert!(configuration == self.configuration, "an epoch names one configuration: {configuration:?}");
            self.on_learner(now, learner, out);
            return;
        }
        self.keep_freshness(now);
        self.configuration = configuration;
        self.learner = learner;
        self.save(out);

        let was_primary = matches!(self.part, Part::Primary(_));
        if self.configuration.primary == self.me {
            if was_primary {
                self.continue_as_primary(now, out);
            } else {
                self.become_primary(now, out);
            }
            return;
        }
        self.resign(out);
        if self.configuration.has(self.me) || self.learner == Some(self.me) {
            self.become_follower(now, out);
        } else {
            self.part = Part::Spare;
        }
    }

    /// The same configuration, perhaps with another learner.
    fn on_learner(&mut self, now: Instant, learner: Option<NodeId>, out: &mut Vec<Effect>) {
        if learner == self.learner {
            return;
        }
        let before = core::mem::replace(&mut self.learner, learner);
        match &mut self.part {
            Part::Primary(_) => self.keep_peers(now),
            Part::Spare if learner == Some(self.me) => self.become_follower(now, out),
            Part::Follower(_) if before == Some(self.me) && !self.configuration.has(self.me) => {
                self.part = Part::Spare;
            }
            _ => {}
        }
    }

    /// Ceases to be primary: whoever waits may or may not get what they asked for.
    fn resign(&mut self, out: &mut Vec<Effect>) {
        if let Part::Primary(primary) = &mut self.part {
            let waiting = primary.take_waiting();
            out.extend(waiting.into_values().map(|ticket| Effect::Refuse(ticket, Refusal::Unknown(self.tablet))));
        }
    }

    fn save(&mut self, out: &mut Vec<Effect>) {
        self.marks += 1;
        self.saved = self.marks;
        out.push(Effect::Save {
            configuration: self.configuration.clone(),
            learner: self.learner,
            abandoned: if self.mutant(Mutant::AbandonedNotKept) { Epoch(0) } else { self.abandoned },
        });
    }

    /// Puts entries that are in the tail already on their way to the disk.
    fn append(&mut self, entries: Vec<Entry>, out: &mut Vec<Effect>) {
        let Some(last) = entries.last() else { return };
        self.marks += 1;
        self.unsynced.push_back((self.marks, last.lsn));
        out.push(Effect::Append(entries));
    }

    /// Forgets the tail from `lsn` on, also what of it is on its way to the disk.
    fn cut(&mut self, lsn: Lsn) {
        assert!(lsn > self.committed, "a committed entry stays: cut at {lsn}, committed {}", self.committed);
        self.tail.cut(lsn);
        self.durable = self.durable.min(lsn.prev());
        for (_, upto) in &mut self.unsynced {
            *upto = (*upto).min(lsn.prev());
        }
    }

    fn on_durable(&mut self, now: Instant, mark: u64) {
        assert!(mark <= self.marks, "only what was appended becomes durable");
        self.synced = self.synced.max(mark);
        while let Some(&(at, upto)) = self.unsynced.front() {
            if at > mark {
                break;
            }
            self.durable = self.durable.max(upto);
            self.unsynced.pop_front();
        }
        self.pace_own_disk(now);
    }

    /// Everything up to here is committed.
    fn commit_to(&mut self, upto: Lsn, out: &mut Vec<Effect>) {
        if upto <= self.committed {
            return;
        }
        assert!(upto <= self.tail.last(), "commits {upto} of {}", self.tail.last());
        let mut commits = Vec::new();
        while self.committed < upto {
            self.committed = self.committed.next();
            let entry = self.tail.get(self.committed).expect("what is not committed is in memory").clone();
            let ticket = match &mut self.part {
                Part::Primary(primary) => primary.take_ticket(&entry),
                _ => None,
            };
            commits.push((entry, ticket));
        }
        self.tail.trim(self.committed, self.timing.keep_bytes);
        self.refresh();
        out.push(Effect::Commit(commits));
    }

    /// For mutants: messages of older epochs that are taken for present ones.
    fn forgives(&self, message: &GroupMessage) -> bool {
        match message {
            GroupMessage::Prepare { .. } => self.mutant(Mutant::EpochOfPrepareIgnored),
            GroupMessage::Prepared { .. } => self.mutant(Mutant::EpochOfPreparedIgnored),
            _ => false,
        }
    }

    fn on_message(&mut self, now: Instant, from: NodeId, message: GroupMessage, out: &mut Vec<Effect>) {
        if let GroupMessage::Offer { .. }
        | GroupMessage::Fetch { .. }
        | GroupMessage::Chunk { .. }
        | GroupMessage::Digest { .. }
        | GroupMessage::Diverged { .. } = message
        {
            out.push(Effect::Suspect(from, "files and rows are the node's affair"));
            return;
        }
        let theirs = match &message {
            GroupMessage::Prepare { epoch, .. }
            | GroupMessage::Prepared { epoch, .. }
            | GroupMessage::Missing { epoch, .. }
            | GroupMessage::Stale { epoch }
            | GroupMessage::Inquiry { epoch }
            | GroupMessage::Hears { epoch }
            | GroupMessage::Learn { epoch, .. } => *epoch,
            _ => self.epoch(),
        };
        if theirs > self.epoch() {
            out.push(Effect::AskMaster);
            return;
        }
        if theirs < self.epoch() && !self.forgives(&message) {
            if !matches!(message, GroupMessage::Stale { .. }) {
                out.push(Effect::Send(from, GroupMessage::Stale { epoch: self.epoch() }));
            }
            return;
        }
        match message {
            GroupMessage::Prepare { committed, entries, .. } => self.on_prepare(now, from, committed, entries, out),
            GroupMessage::Prepared { upto, .. } => self.on_prepared(now, from, upto, out),
            GroupMessage::Missing { from: lsn, .. } => self.on_missing(now, from, lsn, out),
            GroupMessage::Learn { attempt, from: lsn, .. } => self.on_learn(now, from, attempt, lsn, out),
            GroupMessage::Inquiry { .. } => self.on_inquiry(now, from, out),
            GroupMessage::Hears { .. } => self.on_hears(from, out),
            _ => {}
        }
    }
}

impl Core for Replica {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Assign(configuration, learner) => self.on_assign(now, configuration, learner, out),
            Input::Propose(ticket, payload) => self.on_propose(now, ticket, payload, out),
            Input::Order(payload) => self.on_order(now, payload, out),
            Input::Receive(from, message) => self.on_message(now, from, message, out),
            Input::Beacon(from, epoch, committed) => self.on_beacon(now, from, epoch, committed, out),
            Input::Fresh(from, epoch, asof, committed) => {
                if self.follows(from, epoch).is_some() {
                    self.on_fresh(asof, committed);
                }
            }
            Input::Granted(from, epoch, sent) => self.on_granted(now, from, epoch, sent, out),
            Input::Durable(mark) => {
                let saving = self.synced < self.saved;
                self.on_durable(now, mark);
                if saving && self.synced >= self.saved {
                    self.on_installed(now);
                }
                self.advance(now, out);
                self.acknowledge(false, out);
                self.seek_primacy(now, out);
            }
            Input::Fetched(to, entries) => self.on_fetched(to, entries, out),
            Input::Restored(upto) => self.on_restored(now, upto, out),
            Input::HandOver(to, epoch) => self.on_hand_over(now, to, epoch, out),
            Input::Session(sent) => {
                self.session = self.session.max(Some(sent));
                self.advance(now, out);
            }
            Input::Decided(lsn) => self.commit_to(lsn.min(self.tail.last()), out),
            Input::Gap => self.on_gap(now),
            Input::Settle => self.pump(now, out),
            Input::Tick => self.on_tick(now, out),
        }
        assert!(self.committed <= self.tail.last());
        assert!(self.durable <= self.tail.last());
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.part {
            Part::Primary(primary) => primary.deadline(self),
            Part::Follower(follower) => follower.deadline(self),
            Part::Returning(asked) => Some(asked.map_or(Instant::ZERO, |at| at + self.timing.retry)),
            Part::Spare => None,
        }
    }
}
