//! What is asked of the nodes is evened out, if one of them has clearly more of it.

use super::*;

const PAUSE: Duration = Duration::from_secs(10);

/// Issue 3, part 3: "tablets move to even out size and load". A primary's place is enough where a secondary is idle.
#[test]
fn a_busy_node_hands_over() {
    let (mut world, tablets) = World::with_loads(2, 4, 2);
    let [one, two] = [NodeId(1), NodeId(2)];
    let led = world.led_by(one, &tablets);
    assert_eq!(led.len(), 2, "each leads two");
    world.serve(one, &led, 200);
    world.beat(&[one, two], 12_000);
    assert_eq!(world.round(&[1, 2]), [], "400 a second are no reason");
    world.serve(one, &led, 2_000);
    let orders = world.round(&[1, 2]);
    assert!(
        matches!(orders[..], [Effect::Send(to, FromMaster::HandOver(tablet, _, heir))]
        if (to, heir) == (one, two) && led.contains(&tablet)),
        "one of two: {orders:?}"
    );
}

/// A tablet that has all the load is as heavy elsewhere; and numbers do not count where load does.
#[test]
fn a_busy_tablet_is_not_pushed_to_and_fro() {
    let (mut world, tablets) = World::with_loads(2, 4, 2);
    let [one, two] = [NodeId(1), NodeId(2)];
    let hot = world.led_by(one, &tablets)[0];
    world.serve(one, &[hot], 5_000);
    world.beat(&[one, two], 12_000);
    assert_eq!(world.round(&[1, 2]), []);
    for tablet in world.led_by(two, &tablets) {
        let configuration = world.configuration(tablet).handed_to(one);
        world.step(Input::FromNode(two, propose(tablet, configuration.clone())));
        world.report_all(tablet, &configuration);
    }
    world.serve(one, &[hot], 5_000);
    world.beat(&[one, two], 12_000);
    let orders = world.round(&[1, 2]);
    let handed =
        |effect: &Effect| matches!(effect, Effect::Send(_, FromMaster::HandOver(tablet, ..)) if *tablet != hot);
    assert!(!orders.is_empty() && orders.iter().all(handed), "four to none is evened out by the others: {orders:?}");
}

/// Where all members are busy, a copy goes to a node that is not, and that may lead it then.
#[test]
fn a_busy_group_gets_a_member_with_time() {
    let (mut world, tablets) = World::with_loads(2, 4, 2);
    let [one, two, three] = [1, 2, 3].map(NodeId);
    for node in [one, two] {
        let led = world.led_by(node, &tablets);
        world.serve(node, &led, 2_000);
    }
    world.step(heartbeat(3, vec![]));
    world.beat(&[one, two, three], 12_000);
    let moving: Vec<_> = world
        .master
        .state()
        .groups
        .values()
        .filter_map(|group| Some((group, group.learner?, group.leaving?)))
        .collect();
    assert!(!moving.is_empty());
    let (group, to, from) = moving[0];
    assert!(to == three && group.configuration.primary != from, "the primary stays until there is an heir: {group:?}");
}

/// Issue 3, "How well": ten thousand tablets are evened out in minutes, and large ones do not crowd the network.
#[test]
fn small_tablets_move_by_the_dozen_and_large_ones_by_twos() {
    for (bytes, at_once) in [(0, 16), (64 << 20, 2)] {
        let (mut world, _) = World::with_loads(2, 120, 1);
        for node in [NodeId(1), NodeId(2)] {
            let known = world.master.heard[&node].replicas.values().cloned();
            let reports = known.map(|report| ReplicaReport { bytes, ..report }).collect();
            world.step(heartbeat(node.0, reports));
        }
        world.step(heartbeat(3, vec![]));
        let moving = |world: &World| world.master.state().groups.values().filter(|it| it.leaving.is_some()).count();
        let mut most = 0;
        for _ in 0..30 {
            world.beat(&[NodeId(1), NodeId(2), NodeId(3)], 500);
            most = most.max(moving(&world));
        }
        assert_eq!(most, at_once, "of {bytes} bytes each");
    }
}

impl World {
    /// A table of tablets on these nodes, which are balanced after a pause, and all replicas are well.
    fn with_loads(nodes: u32, tablets: u32, replicas: u8) -> (World, Vec<TabletId>) {
        let mut world = World::with_nodes(nodes);
        world.master.options.balance_after = Some(PAUSE);
        world.create("t", Partition::Hash { tablets }, replicas);
        let tablets: Vec<TabletId> = world.master.state().groups.keys().copied().collect();
        (1..=nodes).for_each(|node| world.serve(NodeId(node), &[], 0));
        (world, tablets)
    }

    fn led_by(&self, node: NodeId, of: &[TabletId]) -> Vec<TabletId> {
        of.iter().copied().filter(|&tablet| self.configuration(tablet).primary == node).collect()
    }

    /// The node reports all that it keeps, and so many requests per second of each of these.
    fn serve(&mut self, node: NodeId, busy: &[TabletId], load: u64) {
        let groups: Vec<Configuration> =
            self.master.state().groups.values().map(|group| group.configuration.clone()).collect();
        let tablets: Vec<TabletId> = self.master.state().groups.keys().copied().collect();
        let kept = tablets.into_iter().zip(groups).filter(|(_, configuration)| configuration.has(node));
        let reports = kept.map(|(tablet, configuration)| {
            let role = if configuration.primary == node { Role::Primary } else { Role::Secondary };
            let load = if busy.contains(&tablet) { load } else { 0 };
            ReplicaReport { epoch: configuration.epoch, load, ..report(tablet, role) }
        });
        let reports = reports.collect();
        self.step(heartbeat(node.0, reports));
    }
}
