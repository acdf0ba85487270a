//! Groups that rest are not named by beacons, and keep all that beacons give (PacificA, 2.3).

use model::{Incarnation, Lsn};
use protocol::{GroupMessage, Line, Stamp};

use super::*;

const OTHER: NodeId = NodeId(2);
const LIFE: Incarnation = Incarnation(1);

fn at(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

impl World {
    fn at(&mut self, ms: u64) {
        self.now = at(ms);
        self.sent.clear();
        self.step(Input::Tick);
    }

    /// The newest beacon: when it was sent, on which it builds, and the tablets that it names.
    fn beacon_sent(&self) -> (Instant, Option<Instant>, Vec<TabletId>, Vec<TabletId>) {
        let beacon = self.sent.iter().rev().find_map(|(to, message)| match message {
            NodeMessage::Beacon { life: LIFE, sent, base, groups, gone, .. } if *to == OTHER => {
                let groups = groups.iter().map(|line| line.tablet).collect();
                Some((*sent, *base, groups, gone.clone()))
            }
            _ => None,
        });
        beacon.expect("a primary sends beacons")
    }

    fn ack(&mut self, sent: Instant, known: bool, named: &[TabletId], without: &[TabletId]) {
        let groups = named.iter().map(|&tablet| (tablet, Epoch(1))).collect();
        let (life, without, stamp) = (LIFE, without.to_vec(), Stamp(LIFE, self.now));
        let ack = NodeMessage::BeaconAck { life, sent, known, groups, without, stamp, disk_full: false };
        self.step(Input::FromNode(OTHER, ack));
    }

    /// A primary that has nothing to say any more, at 250 ms.
    fn resting_primary() -> World {
        let mut world = World::empty();
        world.assign(Configuration::first(ME, [OTHER]));
        let prepared = GroupMessage::Prepared { epoch: Epoch(1), upto: Lsn(1) };
        world.step(Input::FromNode(OTHER, NodeMessage::Group(TABLET, prepared)));
        for ms in [0, 125, 250] {
            if ms > 0 {
                world.at(ms);
            }
            let (sent, base, named, _) = world.beacon_sent();
            assert_eq!(
                (base.is_none(), named.is_empty()),
                (ms == 0, ms == 250),
                "named until it was told that all is well"
            );
            world.ack(sent, true, &named, &[]);
        }
        world
    }

    /// A secondary that hears a beacon.
    fn hears(&mut self, sent: u64, base: Option<u64>, named: bool, gone: &[TabletId]) -> (bool, Vec<TabletId>) {
        let line = Line { tablet: TABLET, epoch: Epoch(1), committed: Lsn(0), leased: true };
        let groups = if named { vec![line] } else { vec![] };
        let (sent, base, heard, gone) = (at(sent), base.map(at), Some(Stamp(LIFE, self.now)), gone.to_vec());
        let beacon = NodeMessage::Beacon { life: LIFE, sent, base, heard, firm: true, groups, gone };
        self.sent.clear();
        self.step(Input::FromNode(OTHER, beacon));
        let answer = self.sent.iter().rev().find_map(|(_, message)| match message {
            NodeMessage::BeaconAck { known, without, .. } => Some((*known, without.clone())),
            _ => None,
        });
        answer.expect("every beacon is answered")
    }

    fn has_given_up(&self) -> bool {
        self.node.replicas().next().is_some_and(|replica| replica.abandoned() == Epoch(1))
    }
}

#[test]
fn a_primary_that_rests_is_not_named_and_keeps_its_leases() {
    let mut world = World::resting_primary();
    for ms in (375..5_000).step_by(125) {
        world.at(ms);
        let (sent, base, named, _) = world.beacon_sent();
        assert_eq!((base, named), (Some(at(ms - 125)), vec![]), "at {ms}");
        world.ack(sent, true, &[], &[]);
        assert_eq!(world.get("LAX"), Ok(vec![]));
    }
    world.at(5_200);
    world.now = at(5_374);
    assert_eq!(world.get("LAX"), Ok(vec![]), "500 ms after the beacon that was answered last, less one");
    world.now = at(5_375);
    assert_eq!(world.get("LAX"), Err(Refusal::NotReady(TABLET)));
}

/// Nobody wakes the replica while its peer answers for it, and it is woken when the peer falls silent.
#[test]
fn a_primary_that_rests_notices_silence() {
    let mut world = World::resting_primary();
    world.at(375);
    let (sent, ..) = world.beacon_sent();
    world.ack(sent, true, &[], &[]);
    for ms in [500, 625, 750, 874, 875] {
        world.at(ms);
    }
    let stage = world.node.replicas().next().unwrap().stage_with(world.now, |_| None);
    assert_eq!(stage, protocol::replica::Stage::Proposing, "it asks the master for a group without its secondary");
}

/// House seed 4909 of the simulator: a tablet became ready in the very instant in which its node had sent its beacons. Those
/// that named it were taken for a repetition of the others, whose answer then granted leases that nobody had given.
#[test]
fn no_two_beacons_are_of_one_instant() {
    const LATER: TabletId = TabletId(TABLET.0 + 1);
    let mut world = World::resting_primary();
    world.at(375);
    let (first, _, named, _) = world.beacon_sent();
    assert_eq!(named, []);
    let mut later = world.assignment(Configuration::first(ME, [OTHER]));
    later.tablet.id = LATER;
    world.sent.clear();
    world.step(Input::FromMaster(FromMaster::Assignments(vec![later])));
    let prepared = GroupMessage::Prepared { epoch: Epoch(1), upto: Lsn(1) };
    world.step(Input::FromNode(OTHER, NodeMessage::Group(LATER, prepared)));
    assert!(
        !world.sent.iter().any(|(_, message)| matches!(message, NodeMessage::Beacon { .. })),
        "that would be another"
    );
    world.ack(first, true, &[], &[]);
    assert!(!world.node.may_read(LATER, world.now), "of it the peer has not heard");
    world.now = Instant(world.now.0 + 1);
    world.step(Input::Tick);
    let (second, _, named, _) = world.beacon_sent();
    assert_eq!((second > first, named), (true, vec![LATER]), "and is told at once");
    world.ack(second, true, &[LATER], &[]);
    assert!(world.node.may_read(LATER, world.now));
}

#[test]
fn a_secondary_that_left_is_named_again_and_its_lease_ends() {
    let mut world = World::resting_primary();
    world.at(375);
    let (sent, ..) = world.beacon_sent();
    world.ack(sent, true, &[], &[TABLET]);
    world.at(500);
    let (sent, _, named, _) = world.beacon_sent();
    assert_eq!(named, [TABLET]);
    world.ack(sent, true, &[], &[TABLET]);
    world.at(600);
    world.now = at(749);
    assert_eq!(world.get("LAX"), Ok(vec![]));
    world.now = at(750);
    assert_eq!(world.get("LAX"), Err(Refusal::NotReady(TABLET)), "the last one was that of 250");
}

/// The peer was started again, and knows of nothing.
#[test]
fn a_peer_that_knows_nothing_is_told_everything() {
    let mut world = World::resting_primary();
    world.at(375);
    let (sent, ..) = world.beacon_sent();
    world.ack(sent, false, &[], &[]);
    world.at(500);
    let (sent, base, named, _) = world.beacon_sent();
    assert_eq!((base, named), (None, vec![TABLET]));
    world.ack(sent, true, &[TABLET], &[]);
    world.at(625);
    assert_eq!(world.beacon_sent().2, [], "that is enough: what it said of it has not changed");
}

/// Lease times of an earlier life are of another clock.
#[test]
fn answers_to_another_life_count_for_nothing() {
    let mut world = World::resting_primary();
    let (life, sent, stamp) = (Incarnation(9), at(10_000), Stamp(LIFE, at(0)));
    let (groups, without) = (vec![(TABLET, Epoch(1))], vec![]);
    let ack = NodeMessage::BeaconAck { life, sent, known: true, groups, without, stamp, disk_full: false };
    world.step(Input::FromNode(OTHER, ack));
    world.now = at(750);
    assert_eq!(world.get("LAX"), Err(Refusal::NotReady(TABLET)));
}

/// A process that was stopped for longer than anybody waits must not blame its peers for what they had answered before.
#[test]
fn after_a_stop_everything_is_asked_for_anew() {
    let mut world = World::resting_primary();
    world.at(375);
    let (sent, ..) = world.beacon_sent();
    world.at(3_000);
    world.ack(sent, true, &[], &[]);
    let (_, _, named, _) = world.beacon_sent();
    assert_eq!(named, [TABLET]);
    assert_eq!(world.get("LAX"), Err(Refusal::NotReady(TABLET)));
    let stage = world.node.replicas().next().unwrap().stage_with(world.now, |_| None);
    assert_eq!(stage, protocol::replica::Stage::Lapsing, "nobody is removed for it");
}

#[test]
fn a_secondary_that_is_not_named_stays_and_gives_up_after_silence() {
    let mut world = World::empty();
    world.assign(Configuration::first(OTHER, [ME]));
    assert_eq!(world.hears(0, None, true, &[]), (true, vec![]));
    let mut last = 0;
    for ms in (125..5_000).step_by(125) {
        world.at(ms);
        assert_eq!(world.hears(ms, Some(last), false, &[]), (true, vec![]));
        last = ms;
    }
    assert_eq!(last, 4_875);
    for ms in (5_000..5_575).step_by(25) {
        world.at(ms);
        assert!(!world.has_given_up(), "at {ms}: it has promised 700 ms at {last}");
    }
    world.at(5_575);
    assert!(world.has_given_up());
    assert_eq!(world.hears(5_600, Some(last), false, &[]), (true, vec![TABLET]), "and says so");
}

#[test]
fn a_beacon_that_builds_on_nothing_grants_nothing() {
    let mut world = World::empty();
    world.assign(Configuration::first(OTHER, [ME]));
    world.at(100);
    assert_eq!(world.hears(100, Some(50), false, &[]), (false, vec![]));
    world.at(400);
    assert_eq!(world.hears(300, Some(50), false, &[]), (false, vec![]));
    world.at(700);
    assert!(world.has_given_up(), "it has never heard of this tablet");
}

/// The eventual reader's lag is that of the pair of nodes.
#[test]
fn rows_at_rest_are_as_young_as_the_last_beacon() {
    let mut world = World::empty();
    world.assign(Configuration::first(OTHER, [ME]));
    world.hears(0, None, true, &[]);
    for ms in (125..1_000).step_by(125) {
        world.at(ms);
        world.hears(ms, Some(ms - 125), false, &[]);
    }
    world.now = at(1_000);
    assert_eq!(world.node.lag(TABLET, world.now), Some(std::time::Duration::from_millis(125)));
}
