//! Replicas compare what they hold: sums of their contents as of one entry of the group's log.
//!
//! ```text
//!   primary: it is time, or somebody asks ──Digest in the log──▶ every member applies it
//!                                                                   │ pins a view of just then, and sums it up,
//!                                                                   ▼ a slice at a time
//!   primary ◀──────────── GroupMessage::Digest(sums) ────────────── each secondary
//!      │ all equal ─▶ well
//!      │ different ─▶ once more, in a second entry; if that confirms it:
//!      ├── a majority of the group is equal ─▶ GroupMessage::Diverged to the others: they are damaged (crate::quarantine)
//!      └── no majority ─▶ an event for the operator; nobody knows who is right
//! ```
//!
//! Sums are over what readers see and over the completion records, so flushes and merges make no difference. Left out
//! are families of which replicas may lawfully hold different versions ([`Hosted::pin`]).
//!
//! Only a hint travels: nothing is copied, and a replica is thrown away only by the path of any other damage, which
//! never takes the last copy that is well.

use bytes::Bytes;
use model::request::Role;
use model::{Digest, Epoch, FamilyId, Instant, Lsn, NodeId, Payload, Schema, TabletId};
use protocol::replica::Input as GroupInput;
use protocol::{GroupMessage, NodeMessage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use store::digest::{BUCKETS, Sums, hash_of};
use store::{Done, Error, Job, View};

use crate::api::{Effect, Event};
use crate::hosted::Hosted;
use crate::machine::{Node, Working};

/// Bytes of a slice, and how soon the next one comes: what somebody waits for has room between.
const SLICE: u64 = 1 << 20;
const PAUSE: Duration = Duration::from_millis(20);
/// Views that wait here to be summed up. Each keeps files and memtables alive.
const MOST_PINNED: usize = 16;
/// Comparisons that a node begins by itself at a time.
const MOST_COMPARED: usize = 4;
/// How long the primary waits for its members' sums.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How soon a wish is tried again for which the tablet was not ready.
const AGAIN: Duration = Duration::from_millis(100);
/// After a start there is other work first.
const SETTLING: Duration = Duration::from_secs(60);
/// The place of the completion records among the sums, behind those of the rows.
const COMPLETIONS: usize = BUCKETS;

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    /// What this node is to sum up, and is summing up.
    pinned: VecDeque<Pinned>,
    running: bool,
    slice_due: Instant,
    /// Primary: whose sums are awaited.
    comparing: BTreeMap<TabletId, Comparison>,
    /// Primary: what shall be compared out of turn, and why; and of that what is in the log already.
    wanted: BTreeMap<TabletId, Wish>,
    ordered: BTreeMap<TabletId, (Epoch, Wish)>,
    wish_due: Instant,
    /// Whose turn it was, and when the next one's is.
    turn: TabletId,
    turn_due: Instant,
    /// How often replicas were equal, and how often not.
    pub agreed: u64,
    pub diverged: u64,
}

/// A tablet as of a digest.
#[derive(Debug)]
pub(crate) struct Pinned {
    tablet: TabletId,
    epoch: Epoch,
    lsn: Lsn,
    digest: Digest,
    view: View,
    schema: Arc<Schema>,
    without: BTreeSet<FamilyId>,
    completions: u64,
    /// The next row.
    from: Bytes,
    sums: Box<Sums>,
}

/// Why a comparison is made, if it is not only the tablet's turn.
#[derive(Clone, Debug, Default)]
struct Wish {
    /// Somebody wants to hear how it went.
    asked: bool,
    /// The last one showed these to be unlike the others; `None` if there was no difference.
    confirm: Option<BTreeSet<NodeId>>,
}

#[derive(Debug)]
struct Comparison {
    epoch: Epoch,
    lsn: Lsn,
    wish: Wish,
    members: BTreeSet<NodeId>,
    /// Without sums: that member has nothing to compare.
    answers: BTreeMap<NodeId, Vec<u64>>,
    until: Instant,
}

impl Digests {
    pub fn new(now: Instant, every: Duration) -> Digests {
        Digests { turn_due: now + every.min(SETTLING), ..Digests::default() }
    }

    pub fn deadline(&self, every: Duration) -> Option<Instant> {
        let slice = (!self.pinned.is_empty() && !self.running).then_some(self.slice_due);
        let wish = (!self.wanted.is_empty()).then_some(self.wish_due);
        let turn = (!every.is_zero()).then_some(self.turn_due);
        let until = self.comparing.values().map(|comparison| comparison.until);
        slice.into_iter().chain(wish).chain(turn).chain(until).min()
    }
}

impl Hosted {
    /// The tablet as it is now, right after the entry `lsn`. Left out are families of which a merge may have dropped what
    /// another replica still shows: those whose rule was another one once, and those whose rule counts versions if single
    /// versions were deleted.
    pub(crate) fn pin(&self, lsn: Lsn, digest: Digest) -> Pinned {
        let unsure = |family: &&model::Family| {
            family.loosened || family.retention.counts() && self.completions.erased().contains(&family.id)
        };
        Pinned {
            tablet: self.id(),
            epoch: self.replica.epoch(),
            lsn,
            digest,
            view: self.rows.view(),
            schema: Arc::clone(&self.schema),
            without: self.schema.all_families().filter(unsure).map(|family| family.id).collect(),
            completions: hash_of(&self.completions.to_bytes()),
            from: Bytes::new(),
            sums: Box::new([0; BUCKETS]),
        }
    }

    /// May its primary order a digest now?
    fn may_compare(&self, now: Instant) -> bool {
        self.may_write(now) && self.replica.may_order(now) && !self.is_alone() && self.damage.is_none()
    }
}

impl Node {
    /// The master passes on that somebody wants to know whether the replicas are equal.
    pub(crate) fn on_check_wish(&mut self, now: Instant, tablet: TabletId) {
        self.digests.wanted.entry(tablet).or_default().asked = true;
        self.digests.wish_due = now;
    }

    /// Whatever is due.
    pub(crate) fn digest_if_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let late = |comparison: &Comparison| comparison.until <= now;
        let late = self.digests.comparing.iter().filter(|(_, comparison)| late(comparison));
        let late: Vec<TabletId> = late.map(|(&tablet, _)| tablet).collect();
        late.into_iter().for_each(|tablet| self.conclude(now, tablet, out));
        if now >= self.digests.wish_due {
            self.order_wanted(now, out);
        }
        if now >= self.digests.turn_due && !self.options.upkeep.digest_every.is_zero() {
            self.order_next(now, out);
        }
        self.sum_up_if_due(now, out);
    }

    fn order_wanted(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let wanted: Vec<TabletId> = self.digests.wanted.keys().copied().collect();
        for tablet in wanted {
            let hosted = self.hosted.get(&tablet).filter(|hosted| hosted.replica.role() == Role::Primary);
            let ready = hosted.is_some_and(|hosted| hosted.may_compare(now));
            if ready && !self.digests.comparing.contains_key(&tablet) && !self.is_ordered(tablet) {
                self.order(now, tablet, out);
            } else if hosted.is_none_or(Hosted::is_alone) {
                let wish = self.digests.wanted.remove(&tablet).unwrap_or_default();
                if wish.asked {
                    let what = "this node is not its primary, or the only one that keeps it: nothing to compare";
                    self.tell(tablet, "digest_incomplete", what.into(), out);
                }
            }
        }
        self.digests.wish_due = now + AGAIN;
    }

    /// The next tablet has its turn, so that all have had theirs in [`crate::Upkeep::digest_every`].
    fn order_next(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let every = self.options.upkeep.digest_every;
        let led = self.hosted.iter().filter(|(_, hosted)| hosted.may_compare(now)).map(|(&tablet, _)| tablet);
        let led: Vec<TabletId> = led.collect();
        self.digests.turn_due = now + (every / u32::try_from(led.len().max(1)).unwrap_or(u32::MAX)).max(PAUSE);
        if self.digests.comparing.len() >= MOST_COMPARED {
            return;
        }
        let after = self.digests.turn;
        let next = led.iter().find(|tablet| **tablet > after).or(led.first());
        if let Some(&tablet) = next {
            self.digests.turn = tablet;
            if !self.digests.comparing.contains_key(&tablet) && !self.is_ordered(tablet) {
                self.order(now, tablet, out);
            }
        }
    }

    fn order(&mut self, now: Instant, tablet: TabletId, out: &mut Vec<Effect>) {
        let date = self.date(now);
        let Some(hosted) = self.hosted.get(&tablet) else { return };
        let digest = Digest { date: date.max(hosted.last_version), schema: hosted.schema.version };
        let payload = postcard::to_allocvec(&Payload::Digest(digest)).expect("plain values have a form in bytes");
        let wish = self.digests.wanted.remove(&tablet).unwrap_or_default();
        self.digests.ordered.insert(tablet, (hosted.replica.epoch(), wish));
        self.step_replica(now, tablet, GroupInput::Order(Bytes::from(payload)), out);
    }

    /// Is an entry on its way? One of an older epoch may be lost.
    fn is_ordered(&self, tablet: TabletId) -> bool {
        let epoch = self.hosted.get(&tablet).map(|hosted| hosted.replica.epoch());
        self.digests.ordered.get(&tablet).is_some_and(|(ordered, _)| Some(*ordered) == epoch)
    }

    /// The entry is applied, and this is what it was applied to.
    pub(crate) fn on_digest_applied(&mut self, now: Instant, pinned: Pinned, out: &mut Vec<Effect>) {
        let Pinned { tablet, epoch, lsn, digest, .. } = pinned;
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let role = hosted.replica.role();
        let sound = hosted.damage.is_none() && !hosted.ending.has_ended();
        let same = digest.schema == hosted.schema.version;
        if role == Role::Primary {
            let (_, wish) = self.digests.ordered.remove(&tablet).unwrap_or_default();
            let members = hosted.replica.configuration().members().collect();
            let every = self.options.upkeep.digest_every;
            let patience = if every.is_zero() { PATIENCE } else { PATIENCE.min(every) };
            let (answers, until) = (BTreeMap::new(), now + patience);
            let comparison = Comparison { epoch, lsn, wish, members, answers, until };
            self.digests.comparing.insert(tablet, comparison);
        } else if role != Role::Secondary {
            return;
        }
        if sound && same && self.digests.pinned.len() < MOST_PINNED {
            self.digests.pinned.push_back(pinned);
            self.sum_up_if_due(now, out);
        } else {
            self.answer_digest(now, tablet, epoch, lsn, Vec::new(), out);
        }
    }

    fn sum_up_if_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.digests.running || now < self.digests.slice_due {
            return;
        }
        let Some(pinned) = self.digests.pinned.front() else { return };
        let job = Job::Digest {
            view: pinned.view.clone(),
            from: pinned.from.clone(),
            bytes: SLICE,
            schema: Arc::clone(&pinned.schema),
            now: pinned.digest.date,
            without: pinned.without.clone(),
            sums: pinned.sums.clone(),
        };
        let tablet = pinned.tablet;
        self.digests.running = true;
        self.run(job, Working::Digest { tablet }, out);
    }

    /// A slice is summed up, or cannot be read.
    pub(crate) fn on_summed_up(&mut self, now: Instant, result: Result<Done, Error>, out: &mut Vec<Effect>) {
        self.digests.running = false;
        self.digests.slice_due = now + PAUSE;
        let Some(pinned) = self.digests.pinned.front_mut() else { return };
        let all = match result {
            Ok(Done::Digested { sums, next: Some(row), .. }) => {
                (pinned.sums, pinned.from) = (sums, row);
                return;
            }
            Ok(Done::Digested { sums, next: None, .. }) => {
                let mut all = sums.to_vec();
                all.push(pinned.completions);
                all
            }
            _ => Vec::new(),
        };
        let (tablet, epoch, lsn) = (pinned.tablet, pinned.epoch, pinned.lsn);
        self.digests.pinned.pop_front();
        self.answer_digest(now, tablet, epoch, lsn, all, out);
    }

    fn answer_digest(
        &mut self,
        now: Instant,
        tablet: TabletId,
        epoch: Epoch,
        lsn: Lsn,
        sums: Vec<u64>,
        out: &mut Vec<Effect>,
    ) {
        let Some(hosted) = self.hosted.get_mut(&tablet).filter(|hosted| hosted.replica.epoch() == epoch) else {
            return;
        };
        hosted.summed_up = Some(lsn);
        let primary = hosted.replica.configuration().primary;
        if primary == self.options.id {
            self.on_digest(now, tablet, primary, epoch, lsn, sums, out);
        } else {
            let message = GroupMessage::Digest { epoch, lsn, sums };
            out.push(Effect::Send(primary, NodeMessage::Group(tablet, message)));
        }
    }

    /// Primary: a member has summed up.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn on_digest(
        &mut self,
        now: Instant,
        tablet: TabletId,
        from: NodeId,
        epoch: Epoch,
        lsn: Lsn,
        sums: Vec<u64>,
        out: &mut Vec<Effect>,
    ) {
        let known = |comparison: &&mut Comparison| {
            comparison.epoch == epoch && comparison.lsn == lsn && comparison.members.contains(&from)
        };
        let Some(comparison) = self.digests.comparing.get_mut(&tablet).filter(known) else { return };
        // Whatever else a peer sends is nothing that could be compared.
        let sums = if sums.len() == COMPLETIONS + 1 { sums } else { Vec::new() };
        comparison.answers.insert(from, sums);
        if comparison.answers.len() == comparison.members.len() {
            self.conclude(now, tablet, out);
        }
    }

    /// Everybody has answered, or nobody waits any longer.
    fn conclude(&mut self, now: Instant, tablet: TabletId, out: &mut Vec<Effect>) {
        let Some(comparison) = self.digests.comparing.remove(&tablet) else { return };
        let Comparison { epoch, lsn, wish, members, mut answers, .. } = comparison;
        let leads = |hosted: &Hosted| hosted.replica.epoch() == epoch && hosted.replica.role() == Role::Primary;
        let current = self.hosted.get(&tablet).is_some_and(leads);
        answers.retain(|_, sums| !sums.is_empty());
        let verdict = Verdict::of(&answers, members.len());
        match verdict {
            Verdict::Equal if current && answers.len() == members.len() => {
                self.digests.agreed += 1;
                if wish.asked || wish.confirm.is_some() {
                    let what = format!("{} hold the same as of {lsn} of {epoch}", names(&members));
                    self.tell(tablet, "replicas_agree", what, out);
                }
            }
            Verdict::Different { unlike, known, evidence } if current => {
                if wish.confirm != Some(unlike.clone()) {
                    // Whatever it is, if it is true it is still so in a moment.
                    let wish = Wish { confirm: Some(unlike), asked: wish.asked };
                    self.digests.wanted.insert(tablet, wish);
                    self.digests.wish_due = now;
                    return;
                }
                self.digests.diverged += 1;
                let what = match known {
                    true => format!("as of {lsn} of {epoch} {evidence}; the majority is right"),
                    false => format!(
                        "as of {lsn} of {epoch} {evidence}; there is no majority to say who is right, \
                         so nothing is done: look at them"
                    ),
                };
                self.tell(tablet, "replica_diverged", what, out);
                for node in unlike.into_iter().filter(|_| known) {
                    let what = format!("as of {lsn} of {epoch} {evidence}");
                    if node == self.options.id {
                        self.diverge(tablet, what, out);
                    } else {
                        let message = GroupMessage::Diverged { epoch, lsn, what };
                        out.push(Effect::Send(node, NodeMessage::Group(tablet, message)));
                    }
                }
            }
            _ if wish.asked => {
                let missing: BTreeSet<NodeId> =
                    members.iter().copied().filter(|member| !answers.contains_key(member)).collect();
                let what = match current {
                    true => format!("{} could not be compared; ask again", names(&missing)),
                    false => String::from("the group was reconfigured meanwhile; ask again"),
                };
                self.tell(tablet, "digest_incomplete", what, out);
            }
            _ => {}
        }
    }

    /// The primary says that this member holds something else than most.
    pub(crate) fn on_diverged(
        &mut self,
        tablet: TabletId,
        from: NodeId,
        epoch: Epoch,
        lsn: Lsn,
        what: String,
        out: &mut Vec<Effect>,
    ) {
        let concerned = |hosted: &Hosted| {
            let replica = &hosted.replica;
            let member = replica.role() == Role::Secondary && replica.configuration().primary == from;
            member && replica.epoch() == epoch && hosted.summed_up == Some(lsn)
        };
        if self.hosted.get(&tablet).is_some_and(concerned) {
            self.diverge(tablet, what, out);
        }
    }

    fn diverge(&mut self, tablet: TabletId, what: String, out: &mut Vec<Effect>) {
        if let Some(hosted) = self.hosted.get_mut(&tablet) {
            hosted.diverged = true;
            self.condemn(tablet, format!("this replica holds something else than the others: {what}"), out);
        }
    }

    fn tell(&self, tablet: TabletId, name: &'static str, what: String, out: &mut Vec<Effect>) {
        out.push(Effect::Event(Event { name, tablet: Some(tablet), what }));
    }

    /// This primary's sums of the comparison under way. For tests.
    #[cfg(test)]
    pub(crate) fn own_sums(&self, tablet: TabletId) -> Option<Vec<u64>> {
        self.digests.comparing.get(&tablet)?.answers.get(&self.options.id).cloned()
    }

    /// For the simulator: the replica's memory goes wrong without anybody noticing. False if it has nothing in memory.
    #[doc(hidden)]
    pub fn go_wrong(&self, tablet: TabletId) -> bool {
        self.hosted.get(&tablet).is_some_and(|hosted| hosted.rows.go_wrong())
    }

    /// How often the replicas of a group were found equal, and how often different, since the start. For metrics.
    pub fn compared(&self) -> (u64, u64) {
        (self.digests.agreed, self.digests.diverged)
    }
}

/// What the sums say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing to compare, or no difference.
    Equal,
    Different {
        /// Those who differ from the majority; without one, all that answered.
        unlike: BTreeSet<NodeId>,
        /// There is a majority.
        known: bool,
        evidence: String,
    },
}

impl Verdict {
    /// Of a group of `size`.
    fn of(answers: &BTreeMap<NodeId, Vec<u64>>, size: usize) -> Verdict {
        let mut alike: BTreeMap<&[u64], BTreeSet<NodeId>> = BTreeMap::new();
        for (&node, sums) in answers {
            alike.entry(sums).or_default().insert(node);
        }
        let Some((most, nodes)) = alike.iter().max_by_key(|(_, nodes)| nodes.len()).filter(|_| alike.len() > 1) else {
            return Verdict::Equal;
        };
        let known = nodes.len() * 2 > size;
        let others = answers.iter().filter(|(node, _)| !nodes.contains(node));
        let differences: Vec<String> =
            others.clone().map(|(node, sums)| format!("{node} {}", difference(most, sums))).collect();
        let evidence = format!("{} hold the same, but {}", names(nodes), differences.join(", "));
        let unlike = if known { others.map(|(&node, _)| node).collect() } else { answers.keys().copied().collect() };
        Verdict::Different { unlike, known, evidence }
    }
}

/// Where two sums differ.
fn difference(one: &[u64], other: &[u64]) -> String {
    let differs = |at: &usize| one.get(*at) != other.get(*at);
    let rows: Vec<String> = (0..BUCKETS).filter(differs).map(|at| at.to_string()).collect();
    let completions = differs(&COMPLETIONS);
    match (rows.len(), completions) {
        (0, _) => String::from("has other completion records"),
        (count, false) => format!("differs in {count} of {BUCKETS} buckets of rows ({})", rows.join(" ")),
        (count, true) => {
            format!("differs in {count} of {BUCKETS} buckets of rows ({}) and in completion records", rows.join(" "))
        }
    }
}

fn names(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of three are right; of two nobody knows, and neither if of three one is silent.
    #[test]
    fn only_a_majority_of_the_group_is_right() {
        let sums = |changed: Option<usize>| (0..=BUCKETS).map(|at| u64::from(changed == Some(at))).collect::<Vec<_>>();
        let of = |answers: &[(u32, Option<usize>)], size| {
            let answers = answers.iter().map(|(node, changed)| (NodeId(*node), sums(*changed))).collect();
            match Verdict::of(&answers, size) {
                Verdict::Equal => None,
                Verdict::Different { unlike, known, .. } => {
                    Some((unlike.iter().map(|node| node.0).collect::<Vec<_>>(), known))
                }
            }
        };
        assert_eq!(of(&[(1, None), (2, None), (3, None)], 3), None);
        assert_eq!(of(&[(1, None), (2, Some(5)), (3, None)], 3), Some((vec![2], true)));
        assert_eq!(of(&[(1, Some(COMPLETIONS)), (2, None), (3, None)], 3), Some((vec![1], true)));
        assert_eq!(of(&[(1, None), (2, Some(5))], 2), Some((vec![1, 2], false)));
        assert_eq!(of(&[(1, None), (2, Some(5))], 3), Some((vec![1, 2], false)));
        assert_eq!(of(&[(1, None), (2, Some(5)), (3, Some(6))], 3), Some((vec![1, 2, 3], false)));
        assert_eq!(of(&[(1, None)], 3), None);
    }

    #[test]
    fn a_difference_has_a_place() {
        let equal = vec![0; BUCKETS + 1];
        let with = |places: &[usize]| {
            let mut sums = equal.clone();
            places.iter().for_each(|&at| sums[at] = 1);
            difference(&equal, &sums)
        };
        assert_eq!(with(&[3, 40]), "differs in 2 of 64 buckets of rows (3 40)");
        assert_eq!(with(&[3, 64]), "differs in 1 of 64 buckets of rows (3) and in completion records");
        assert_eq!(with(&[64]), "has other completion records");
    }
}
