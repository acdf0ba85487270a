//! A replica of which something is damaged: what it had written cannot be read any more. It leaves its group and learns
//! the tablet anew from the others, without an operator.
//!
//! ```text
//!            damage is met                 the master has others who are well
//!   hosted ───────────────▶ hosted, damaged ──────────────────────────────▶ removed ─▶ files go ─▶ learner ─▶ hosted
//!                             │ of a primary: hand over                        ▲
//!                             ▼                                                │
//!   opened without rows ──▶ lost: serves nothing, promises nothing ────────────┘
//! ```
//!
//! Until the master has removed it, a damaged member does what it always did: it still holds everything new, and it may
//! be the last that holds anything. What cannot be read is refused, never made up. The files of a member stay until its
//! group goes on without it; what it acknowledged counts for no later attempt, because it leaves with an epoch and comes
//! back with a later one (invariants I6, I15).

use bytes::Bytes;
use model::request::{ReplicaReport, Role};
use model::{Assignment, Epoch, Instant, Lsn, NodeId, Refusal, TabletId};
use protocol::Mutant;
use protocol::replica::Effect as GroupEffect;
use std::time::Duration;
use store::Error;
use store::log::{Kind, Record};

use crate::api::{Effect, Event};
use crate::hosted::Hosted;
use crate::machine::Node;

/// A tablet that this node should have, but has lost.
#[derive(Debug)]
pub(crate) struct Lost {
    why: String,
    /// The newest configuration that was heard of meanwhile.
    epoch: Epoch,
    schema: u32,
    learner: Option<NodeId>,
    /// Nothing is left of it here, so it may be learned.
    gone: bool,
}

/// So long and so often the disk must have refused to read before the bytes are given up: it may pass.
const UNREADABLE_FOR: Duration = Duration::from_secs(10);
const UNREADABLE_TIMES: u32 = 3;
/// What is longer ago counts no more.
const FORGIVEN: Duration = Duration::from_secs(600);

/// Reads of a tablet that the disk refused.
#[derive(Debug)]
pub(crate) struct Refused {
    since: Instant,
    last: Instant,
    times: u32,
}

/// How often damage was met, and how often it was repaired, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tables or manifests that cannot be read.
    pub tables: u64,
    /// Parts of the log that cannot be read.
    pub log: u64,
    /// Replicas that began to learn anew.
    pub rebuilt: u64,
    /// Memtables that were flushed because the log could not be read.
    pub flushed: u64,
    /// Bytes that were read to find damage.
    pub scrubbed: u64,
    /// Since the last time that everything was read.
    pub whole: Option<Instant>,
}

impl Lost {
    /// What was in the epoch is lost.
    pub fn new(why: String, epoch: Epoch) -> Lost {
        Lost { why, epoch, schema: 0, learner: None, gone: false }
    }

    pub fn report(&self, tablet: TabletId) -> ReplicaReport {
        ReplicaReport {
            tablet,
            epoch: self.epoch,
            schema: self.schema,
            learner: self.learner,
            role: Role::Spare,
            durable: Lsn::ZERO,
            committed: Lsn::ZERO,
            steady: false,
            bytes: 0,
            damaged: Some(self.why.clone()),
            load: 0,
            stalled: false,
        }
    }

    /// What the log keeps of it.
    pub fn record(&self, tablet: TabletId) -> Record {
        let body = Bytes::copy_from_slice(self.why.as_bytes());
        Record { tablet, lsn: Lsn::ZERO, epoch: self.epoch, committed: Lsn::ZERO, kind: Kind::Lost, body }
    }

    fn hear(&mut self, assignment: &Assignment) {
        self.epoch = assignment.configuration.epoch;
        self.schema = assignment.schema.version;
    }
}

impl Node {
    /// Something of the tablet cannot be read any more, and this is how it showed.
    pub(crate) fn quarantine(&mut self, tablet: TabletId, error: &Error, out: &mut Vec<Effect>) {
        self.condemn(tablet, error.to_string(), out);
    }

    /// The replica is not what it should be, and this is why.
    pub(crate) fn condemn(&mut self, tablet: TabletId, why: String, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get_mut(&tablet).filter(|hosted| hosted.damage.is_none()) else { return };
        if hosted.replica.mutant(Mutant::DamageIgnored) {
            return;
        }
        let role = hosted.replica.role();
        let what = match hosted.is_alone() {
            true => format!("{why}; this is the only copy: what can be read is served, the rest is refused"),
            false => format!("{why}; it was {role:?}, and is to learn the tablet anew from the others"),
        };
        hosted.damage = Some(why);
        self.reporting.stir(tablet);
        out.push(Effect::Event(Event { name: "replica_damaged", tablet: Some(tablet), what }));
        self.tally.tables += 1;
        self.changed = true;
        if role == Role::Spare {
            self.discard(tablet, out);
        }
    }

    /// How a read that met damage is refused: it succeeds elsewhere soon, unless there is no other copy.
    pub(crate) fn refusal_of(&self, tablet: TabletId, error: &Error) -> Refusal {
        match self.hosted.get(&tablet) {
            Some(hosted) if hosted.is_alone() => Refusal::Corrupt(error.to_string()),
            _ => Refusal::NotReady(tablet),
        }
    }

    /// The master knows a secondary that is well: a damaged primary leaves its place. From here on it answers nothing,
    /// and says so, so that the master can name the heir without waiting for leases.
    /// False if it is not damaged, and somebody has planned this for another reason.
    pub(crate) fn on_hand_over(&mut self, tablet: TabletId, epoch: Epoch, heir: NodeId, out: &mut Vec<Effect>) -> bool {
        let leaves =
            |hosted: &&Hosted| hosted.damage.is_some() && hosted.replica.epoch() == epoch && !hosted.is_alone();
        let Some(why) = self.hosted.get(&tablet).filter(leaves).and_then(|hosted| hosted.damage.clone()) else {
            return false;
        };
        self.set_aside(tablet, why, Refusal::NotReady(tablet), out);
        let what = format!("makes room for {heir}");
        out.push(Effect::Event(Event { name: "replica_set_aside", tablet: Some(tablet), what }));
        true
    }

    /// Ceases to be anything in the group; whoever waits is refused. The files stay.
    fn set_aside(&mut self, tablet: TabletId, why: String, refusal: Refusal, out: &mut Vec<Effect>) {
        let Some(mut hosted) = self.hosted.remove(&tablet) else { return };
        self.part_from_all(tablet);
        self.note_forgotten(tablet, hosted.replica.epoch());
        out.extend(hosted.lanes.clear().map(|ticket| Effect::Refuse(ticket, refusal.clone())));
        let mut effects = Vec::new();
        hosted.replica.retire(&mut effects);
        out.extend(effects.into_iter().filter_map(|effect| match effect {
            GroupEffect::Refuse(ticket, refusal) => Some(Effect::Refuse(ticket, refusal)),
            _ => None,
        }));
        self.giving.retain(|(given, _), _| *given != tablet);
        self.adopting.remove(&tablet);
        self.lost.insert(tablet, Lost::new(why, hosted.replica.epoch()));
        self.changed = true;
    }

    /// The group goes on without this damaged replica: what is left of it goes.
    fn discard(&mut self, tablet: TabletId, out: &mut Vec<Effect>) {
        if let Some(why) = self.hosted.get(&tablet).and_then(|hosted| hosted.damage.clone()) {
            self.set_aside(tablet, why, Refusal::NotReady(tablet), out);
        }
        let busy = self.is_busy(tablet) || self.has_unsettled_heirs(tablet);
        let Some(lost) = self.lost.get_mut(&tablet).filter(|lost| !lost.gone && !busy) else { return };
        lost.gone = true;
        let what = format!("its files go, because {}", lost.why);
        let (epoch, body) = (lost.epoch, Bytes::new());
        let record = Record { tablet, lsn: Lsn::ZERO, epoch, committed: Lsn::ZERO, kind: Kind::Dropped, body };
        self.log(vec![record], out);
        self.dropping.insert(tablet);
        self.to_drop.push_back((self.logged, tablet));
        out.push(Effect::Event(Event { name: "replica_discarded", tablet: Some(tablet), what }));
    }

    /// What the master says of a tablet that is damaged or lost here. True if there is nothing more to do about it.
    pub(crate) fn on_assignment_of_lost(
        &mut self,
        now: Instant,
        assignment: &Assignment,
        out: &mut Vec<Effect>,
    ) -> bool {
        let (tablet, me) = (assignment.tablet.id, self.options.id);
        let Assignment { configuration, learner, .. } = assignment;
        let before = |hosted: &Hosted| hosted.damage.is_some() && hosted.replica.epoch() < configuration.epoch;
        if self.hosted.get(&tablet).is_some_and(before) && !configuration.has(me) {
            self.discard(tablet, out);
        }
        self.forgot = self.forgot.filter(|&until| now < until);
        let unknown = !self.hosted.contains_key(&tablet) && !self.lost.contains_key(&tablet);
        if unknown && self.forgot.is_some() && configuration.has(me) {
            // It may be one of which the log has lost all: then it is no new one, though the epoch is the first.
            let lost = Lost::new(String::from("a damaged part of the log may have held it"), configuration.epoch);
            self.log(vec![lost.record(tablet)], out);
            self.lost.insert(tablet, lost);
            self.changed = true;
        }
        let Some(lost) = self.lost.get_mut(&tablet) else { return false };
        if configuration.epoch < lost.epoch {
            return true;
        }
        lost.hear(assignment);
        if configuration.has(me) {
            // What we lost counts still: the others must go on without us first.
            return true;
        }
        if !lost.gone {
            self.discard(tablet, out);
            return true;
        }
        if *learner != Some(me) || self.dropping.contains(&tablet) {
            return true;
        }
        if let Some(lost) = self.lost.remove(&tablet) {
            self.healing.insert(tablet, lost.why);
        }
        self.tally.rebuilt += 1;
        let what = String::from("learns the tablet anew");
        out.push(Effect::Event(Event { name: "replica_rebuilding", tablet: Some(tablet), what }));
        false
    }

    /// What was learned anew is a member again.
    pub(crate) fn on_healed(&mut self, tablet: TabletId, out: &mut Vec<Effect>) {
        if let Some(why) = self.healing.remove(&tablet) {
            let what = format!("is a member again; it was taken out because {why}");
            out.push(Effect::Event(Event { name: "replica_healed", tablet: Some(tablet), what }));
        }
    }

    /// Nobody wants the lost tablet any more: its table is gone, or its group is complete.
    pub(crate) fn forget_lost(&mut self, tablet: TabletId, out: &mut Vec<Effect>) {
        self.discard(tablet, out);
        if self.lost.get(&tablet).is_some_and(|lost| lost.gone) {
            self.lost.remove(&tablet);
        }
    }

    /// Tablets that are damaged or lost here, and why. For metrics and checkers.
    pub fn damaged(&self) -> impl Iterator<Item = (TabletId, &str)> {
        let hosted = self.hosted.iter().filter_map(|(&tablet, hosted)| Some((tablet, hosted.damage.as_deref()?)));
        hosted.chain(self.lost.iter().map(|(&tablet, lost)| (tablet, lost.why.as_str())))
    }

    /// What was damaged and repaired since the start. For metrics.
    pub fn tally(&self) -> Tally {
        Tally { scrubbed: self.scrubbing.total, whole: self.scrubbing.completed, ..self.tally }
    }

    /// Reports of lost tablets, beside those of the replicas.
    pub(crate) fn lost_reports(&self) -> impl Iterator<Item = ReplicaReport> {
        self.lost.iter().map(|(&tablet, lost)| lost.report(tablet))
    }

    /// Looks for damage in what a job or a read has brought.
    pub(crate) fn notice<T>(
        &mut self,
        now: Instant,
        tablet: TabletId,
        result: &Result<T, Error>,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Err(error) if error.is_corrupt() => self.quarantine(tablet, error, out),
            Err(error) if error.is_unreadable() => self.on_unreadable(now, tablet, error, out),
            _ => {}
        }
    }

    /// The disk has refused to read. Once may be chance; if it goes on, what lies there is lost.
    fn on_unreadable(&mut self, now: Instant, tablet: TabletId, error: &Error, out: &mut Vec<Effect>) {
        let first = || Refused { since: now, last: now, times: 0 };
        let refused = self.refused.entry(tablet).or_insert_with(first);
        if now.since(refused.last) > FORGIVEN {
            *refused = first();
        }
        (refused.last, refused.times) = (now, refused.times.saturating_add(1));
        let long = now.since(refused.since);
        if refused.times >= UNREADABLE_TIMES && long >= UNREADABLE_FOR {
            let why = format!("{error}; {} times in {} s", refused.times, long.as_secs());
            self.refused.remove(&tablet);
            self.condemn(tablet, why, out);
        }
    }
}

impl Hosted {
    /// Is it the only one that has the tablet?
    pub fn is_alone(&self) -> bool {
        self.replica.configuration().size() == 1 && self.replica.role() == Role::Primary
    }
}
