//! Merges as the master sees them.

use super::*;
use bytes::Bytes;
use model::request::{ReplicaReport, Role};
use model::{AdminReply, AdminRequest, Configuration, Incarnation, Instant, Ticket};
use protocol::{Core, ToMaster};

use crate::api::Input;
use crate::machine::Options;

const LEFT: TabletId = TabletId(1);
const RIGHT: TabletId = TabletId(2);

/// Invariant I13: at every index of the log the slices of a table hold every key once. The heir takes the places of both
/// in one step, and whoever still keeps them hears so until it says that nothing is left.
#[test]
fn an_heir_takes_the_places_of_both_in_one_step() {
    let mut state = state([1, 2], [1, 2]);
    let joint = intend(&mut state);
    assert!(state.is_expected(joint.heir) && !state.groups.contains_key(&joint.heir));
    let merge = merge(&state, &joint);
    let fuse = Command::Fuse { left: LEFT, lsn: Lsn(9), merge: merge.clone() };
    assert_eq!(state.apply(9, fuse.clone()), Ok(Changed::Nothing), "the right one is not known to be closed");
    assert_tiled(&state);
    state.apply(9, Command::Seal { left: LEFT, heir: joint.heir, lsn: Lsn(7) }).unwrap();
    assert_eq!(state.apply(10, fuse.clone()), Ok(Changed::Fused(LEFT, merge.clone())));
    assert_tiled(&state);
    assert_eq!(state.groups.keys().copied().collect::<Vec<_>>(), [joint.heir]);
    assert_eq!(state.groups[&joint.heir].configuration, merge.configuration);
    let after = state.clone();
    assert_eq!(state.apply(10, fuse), Ok(Changed::Nothing), "every member says so, and more than once");
    assert_eq!((&state, State::from_bytes(&state.to_bytes()).unwrap()), (&after, after.clone()));
    let ends: Vec<(TabletId, Lsn)> = state.ended.iter().map(|(&tablet, ended)| (tablet, ended.lsn)).collect();
    assert_eq!(ends, [(LEFT, Lsn(9)), (RIGHT, Lsn(7))]);
    for tablet in [LEFT, RIGHT] {
        for node in [NodeId(1), NodeId(2)] {
            state.apply(11, Command::Bury { tablet, node }).unwrap();
        }
    }
    assert!(state.ended.is_empty());
}

/// Decision 0011: each member of the heir must have all of the right one, so from the seal on nobody changes its group;
/// only the left one's primary knows whether the seal may be broken.
#[test]
fn a_sealed_group_stays_as_it_is() {
    let mut state = state([1, 2], [1, 2]);
    let joint = intend(&mut state);
    let before = state.groups[&RIGHT].configuration.clone();
    let cancel =
        |sealed| Command::CancelMerge { left: LEFT, heir: joint.heir, sealed, why: "it takes too long".into() };
    state.apply(9, Command::Seal { left: LEFT, heir: joint.heir, lsn: Lsn(7) }).unwrap();
    let alone =
        |tablet| Command::Configure { tablet, configuration: before.without(NodeId(2)), by: NodeId(1), why: None };
    state.apply(10, alone(RIGHT)).unwrap();
    state.apply(10, Command::Learn { tablet: RIGHT, epoch: Epoch(1), learner: Some(NodeId(3)) }).unwrap();
    let recover = Command::Recover { tablet: RIGHT, epoch: Epoch(1), from: NodeId(3), empty: true };
    assert!(matches!(state.apply(10, recover), Err(Refusal::Invalid(_))));
    assert_eq!((&state.groups[&RIGHT].configuration, state.groups[&RIGHT].learner), (&before, None));
    assert_eq!(state.apply(11, cancel(false)), Ok(Changed::Nothing), "that was decided before the seal");
    state.apply(12, alone(LEFT)).unwrap();
    assert_eq!(state.groups[&LEFT].configuration.epoch, Epoch(2), "the left one goes on by itself");
    assert!(matches!(state.apply(13, cancel(true)), Ok(Changed::Unfused(LEFT, RIGHT, _))));
    assert_eq!(state.groups[&RIGHT].configuration, before.next(), "open again, with the same members");
    assert_tiled(&state);
}

/// What was closed in an epoch that is over counts for nothing.
#[test]
fn a_group_that_changed_before_the_seal_is_not_sealed() {
    for changed in [LEFT, RIGHT] {
        let mut state = state([1, 2], [1, 2]);
        let joint = intend(&mut state);
        let configuration = state.groups[&changed].configuration.next();
        state.apply(9, Command::Configure { tablet: changed, configuration, by: NodeId(1), why: None }).unwrap();
        let seal = Command::Seal { left: LEFT, heir: joint.heir, lsn: Lsn(7) };
        assert_eq!(state.apply(10, seal), Ok(Changed::Nothing));
        assert!(!state.is_sealed(RIGHT));
    }
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let mut apart = state([1, 2], [2, 1]);
    let ask = |state: &mut State, left, right| state.apply(9, Command::Merge { left, right });
    assert!(matches!(ask(&mut apart, LEFT, RIGHT), Err(Refusal::NotReady(_))), "another primary");
    let mut apart = state([1, 2], [1, 3]);
    assert!(matches!(ask(&mut apart, LEFT, RIGHT), Err(Refusal::NotReady(_))), "another member");
    let mut state = state([1, 2], [1, 2]);
    assert!(matches!(ask(&mut state, RIGHT, LEFT), Err(Refusal::Invalid(_))), "the wrong order");
    assert!(matches!(ask(&mut state, LEFT, TabletId(9)), Err(Refusal::NoSuchTablet(_))));
    ask(&mut state, LEFT, RIGHT).unwrap();
    assert!(matches!(ask(&mut state, LEFT, RIGHT), Err(Refusal::Exists(_))), "one at a time");
    let split = Command::Split { tablet: RIGHT, epoch: Epoch(1), at: model::SplitAt::HalfTheBytes };
    assert!(matches!(state.apply(9, split), Err(Refusal::Exists(_))));
}

/// A table that goes takes everything along.
#[test]
fn a_dropped_table_forgets_its_merges() {
    let mut state = state([1, 2], [1, 2]);
    let joint = intend(&mut state);
    state.apply(9, Command::Seal { left: LEFT, heir: joint.heir, lsn: Lsn(7) }).unwrap();
    state.apply(11, Command::DropTable("t".into())).unwrap();
    assert!(state.groups.is_empty() && state.merges.is_empty() && state.ended.is_empty());
}

/// An operator's wish is carried through: the right one's copy moves to where the left one's are, its primary's place
/// follows, then it is closed, and the left one's primary writes the entry.
#[test]
fn two_tablets_are_brought_together_and_merged() {
    let mut world = World::new(state([1, 2], [3, 1]), options());
    let seen = world.step(Input::Admin(Ticket(5), AdminRequest::MergeTablet(LEFT)));
    assert!(matches!(&seen[..], [Effect::Reply(Ticket(5), AdminReply::Done(_))]), "{seen:?}");
    assert!(matches!(&world.step(Input::Admin(Ticket(6), AdminRequest::MergeTablet(LEFT)))[..], [Effect::Refuse(..)]));
    world.until(|world| world.group(RIGHT).learner == Some(NodeId(2)));
    assert_eq!(world.group(RIGHT).leaving, Some(NodeId(3)));
    let joined = world.group(RIGHT).configuration.with(NodeId(2));
    world.configure(RIGHT, joined);
    let orders = world.until(|world| world.ordered.is_some());
    let Some((RIGHT, heir)) = orders else { panic!("{orders:?}") };
    let handed = world.group(RIGHT).configuration.handed_to(heir);
    world.configure(RIGHT, handed);
    world.until(|world| !world.group(RIGHT).configuration.has(NodeId(3)));
    if world.group(RIGHT).configuration.primary != NodeId(1) {
        world.ordered = None;
        world.until(|world| world.ordered == Some((RIGHT, NodeId(1))));
        let handed = world.group(RIGHT).configuration.handed_to(NodeId(1));
        world.configure(RIGHT, handed);
    }
    world.until(|world| world.master.state().merges.contains_key(&LEFT));
    let joint = world.master.state().merges[&LEFT].clone();
    let seen = world.step(world.beat(NodeId(1)));
    let close = FromMaster::Close { tablet: RIGHT, epoch: joint.right_epoch, heir: joint.heir };
    assert!(seen.contains(&Effect::Send(NodeId(1), close)), "{seen:?}");
    let closed = ToMaster::Closed { tablet: RIGHT, epoch: joint.right_epoch, lsn: Lsn(7), heir: joint.heir };
    let seen = world.step(Input::FromNode(NodeId(1), closed));
    let merges = |effect: &Effect| matches!(effect, Effect::Send(NodeId(1), FromMaster::Merge { upto: Lsn(7), .. }));
    assert!(seen.iter().any(merges), "{seen:?}");
    let merge = merge(world.master.state(), &joint);
    world.step(Input::FromNode(NodeId(1), ToMaster::Merged { tablet: LEFT, lsn: Lsn(9), merge: merge.clone() }));
    assert_eq!(world.group(joint.heir).tablet.slice, Slice::Rows { start: Bytes::new(), end: None });
    let seen = world.step(world.beat(NodeId(2)));
    let ends = vec![(LEFT, Lsn(9), joint.heir), (RIGHT, Lsn(7), joint.heir)];
    assert!(seen.contains(&Effect::Send(NodeId(2), FromMaster::Ended(ends))), "{seen:?}");
}

/// Nothing is left of a wish that finds the group changed: the right one is open again in a new epoch.
#[test]
fn a_merge_is_given_up_when_a_group_changes() {
    let mut world = World::new(state([1, 2], [1, 2]), options());
    world.step(Input::Admin(Ticket(5), AdminRequest::MergeTablet(LEFT)));
    world.until(|world| world.master.state().merges.contains_key(&LEFT));
    let next = world.group(LEFT).configuration.next();
    world.configure(LEFT, next);
    world.until(|world| world.master.state().merges.is_empty());
    assert_eq!(world.group(RIGHT).configuration.epoch, Epoch(2));
    world.pass(Duration::from_secs(5));
    assert!(world.master.state().merges.is_empty(), "an operator asks again, if that is still the wish");
}

/// Issue 3, part 3: "merge when small and cold".
#[test]
fn small_tablets_that_are_cold_for_long_are_merged() {
    for (bytes, load, merged) in [(1 << 10, 0, true), (1 << 30, 0, false), (1 << 10, COLD, false)] {
        let mut world = World::new(state([1, 2], [1, 2]), Options { merge_after: Some(PATIENCE), ..options() });
        (world.bytes, world.load) = (bytes, load);
        world.pass(PATIENCE - Duration::from_secs(10));
        assert!(world.master.state().merges.is_empty());
        world.pass(Duration::from_secs(15));
        assert_eq!(world.master.state().merges.len(), usize::from(merged), "{bytes} bytes, {load} a second");
    }
}

// ---- the vocabulary ---------------------------------------------------------------------------------------------

/// A table `t` of two tablets, cut at `m`, on these of three nodes, the primary first.
fn state(left: [u32; 2], right: [u32; 2]) -> State {
    let mut state = State::default();
    state.apply(1, Command::Found(model::ClusterId(1))).unwrap();
    for node in [1, 2, 3] {
        let (address, disk, incarnation) = (format!("n{node}"), u64::from(node), Incarnation(1));
        state.apply(2, Command::Join { node: NodeId(node), address, disk, incarnation }).unwrap();
    }
    let create = Command::CreateTable {
        name: "t".into(),
        families: vec![("f".into(), model::Retention::Keep)],
        partition: model::Partition::Range { splits: vec![Bytes::from_static(b"m")] },
        replicas: 2,
        min_replicas: 1,
        placement: vec![left.map(NodeId).to_vec(), right.map(NodeId).to_vec()],
        storage: model::StorageChange::default(),
        settings: model::SettingsChange::default(),
    };
    state.apply(3, create).unwrap();
    state
}

fn intend(state: &mut State) -> Joint {
    assert_eq!(state.apply(4, Command::Merge { left: LEFT, right: RIGHT }), Ok(Changed::Joint(LEFT)));
    state.merges[&LEFT].clone()
}

/// What the left one's primary would write.
fn merge(state: &State, joint: &Joint) -> Merge {
    let (mine, its) = (&state.groups[&LEFT], &state.groups[&joint.right]);
    let epoch = mine.configuration.epoch.max(its.configuration.epoch).next();
    Merge {
        right: joint.right,
        upto: Lsn(7),
        heir: joint.heir,
        slice: Merge::join(&mine.tablet.slice, &its.tablet.slice).unwrap(),
        configuration: Configuration { epoch, ..mine.configuration.clone() },
    }
}

fn assert_tiled(state: &State) {
    let slices: Vec<&Slice> = state.groups.values().map(|group| &group.tablet.slice).collect();
    for row in [&b"a"[..], b"l", b"m", b"z"] {
        assert_eq!(slices.iter().filter(|slice| slice.covers(row)).count(), 1, "{row:?} in {slices:?}");
    }
}

fn options() -> Options {
    Options {
        timing: protocol::Timing::default(),
        seed: 1,
        replicas: 2,
        min_replicas: 1,
        balance_after: None,
        split_bytes: 0,
        split_load: 0,
        merge_after: None,
    }
}

/// A master that leads, and three nodes that are well.
struct World {
    master: Master,
    now: Instant,
    index: u64,
    bytes: u64,
    load: u64,
    /// The last order to hand over: which tablet, and to whom.
    ordered: Option<(TabletId, NodeId)>,
}

impl World {
    fn new(known: State, options: Options) -> World {
        let mut master = Master::new(options);
        master.restore(&known.to_bytes()).unwrap();
        let index = known.applied;
        let mut world = World { master, now: Instant::ZERO, index, bytes: 1 << 10, load: 0, ordered: None };
        world.step(Input::Leading(1));
        world.pass(Duration::from_secs(3));
        world
    }

    fn group(&self, tablet: TabletId) -> &Group {
        &self.master.state().groups[&tablet]
    }

    /// What the node says of all that it keeps.
    fn beat(&self, node: NodeId) -> Input {
        let schema = 1;
        let kept = self.master.state().groups.iter().filter(|(_, group)| group.configuration.has(node));
        let report = |(&tablet, group): (&TabletId, &Group)| ReplicaReport {
            tablet,
            epoch: group.configuration.epoch,
            schema,
            learner: group.learner,
            role: if group.configuration.primary == node { Role::Primary } else { Role::Secondary },
            durable: Lsn(7),
            committed: Lsn(7),
            steady: true,
            bytes: self.bytes,
            load: self.load,
            damaged: None,
            stalled: false,
        };
        let heartbeat = ToMaster::Heartbeat {
            sent: Instant::ZERO,
            cluster: None,
            disk: u64::from(node.0),
            incarnation: Incarnation(1),
            address: node.to_string(),
            disk_full: false,
            base: None,
            gone: vec![],
            scrub: Default::default(),
            replicas: kept.map(report).collect(),
        };
        Input::FromNode(node, heartbeat)
    }

    /// Time passes, and all are heard.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(500);
            (1..=3).for_each(|node| _ = self.step(self.beat(NodeId(node))));
            self.step(Input::Tick);
        }
    }

    /// Lets time pass until it is so; the last order to hand over.
    fn until(&mut self, done: impl Fn(&World) -> bool) -> Option<(TabletId, NodeId)> {
        for _ in 0..20 {
            if done(self) {
                return self.ordered;
            }
            self.pass(Duration::from_millis(500));
        }
        panic!("it never comes: {:?}", self.master.state().groups);
    }

    fn configure(&mut self, tablet: TabletId, configuration: Configuration) {
        let primary = self.group(tablet).configuration.primary;
        self.step(Input::FromNode(primary, ToMaster::Propose(tablet, configuration, protocol::Why::Returned)));
    }

    /// Steps, and lets consensus commit whatever is proposed at once.
    fn step(&mut self, input: Input) -> Vec<Effect> {
        let (mut inputs, mut seen) = (std::collections::VecDeque::from([input]), Vec::new());
        while let Some(input) = inputs.pop_front() {
            let mut out = Vec::new();
            self.master.step(self.now, input, &mut out);
            for effect in out {
                match effect {
                    Effect::Propose(command) => {
                        self.index += 1;
                        inputs.push_back(Input::Committed(self.index, command));
                    }
                    Effect::Send(_, FromMaster::HandOver(tablet, _, heir)) => self.ordered = Some((tablet, heir)),
                    Effect::Event(..) | Effect::Recorded(_) => {}
                    other => seen.push(other),
                }
            }
        }
        seen
    }
}
