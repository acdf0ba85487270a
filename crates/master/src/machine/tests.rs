//! The master as stories.

use super::*;
use core::time::Duration;
use model::request::{NewTable, Role};
use model::{AdminRequest, Configuration, Epoch, Incarnation, Lsn, Partition, Retention, StorageChange, limits};

mod balance;
mod events;

/// The first leader names the cluster, by a command like any other.
#[test]
fn the_first_leader_founds_the_cluster() {
    let mut world = World::new();
    world.step(Input::Leading(1));
    assert_eq!(world.master.cluster(), Some(ClusterId(77)));
}

/// Nobody joins a master that does not lead: what it would say could be old.
#[test]
fn a_follower_says_nothing_and_refuses_clients() {
    let mut world = World::founded();
    world.step(Input::Following);
    assert_eq!(world.step(heartbeat(1, vec![])), []);
    let refused = Effect::Refuse(Ticket(1), Refusal::NoMaster);
    assert_eq!(world.step(Input::Admin(Ticket(1), AdminRequest::Map)), [refused]);
}

/// Two partitions with a primary and a secondary each, on four nodes: all four have work.
#[test]
fn a_new_table_is_spread_over_the_nodes() {
    let mut world = World::with_nodes(4);
    let effects = world.create("airports", Partition::Hash { tablets: 2 }, 2);
    let mut told: Vec<NodeId> = effects.iter().filter_map(assigned).collect();
    told.sort_unstable();
    assert_eq!(told, [NodeId(1), NodeId(2), NodeId(3), NodeId(4)]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Reply(Ticket(9), AdminReply::Table(_)))));
}

#[test]
fn a_table_that_cannot_be_is_refused_with_the_reason() {
    let mut world = World::with_nodes(2);
    let wish = |name: &str, families: &[&str], partition, replicas| NewTable {
        name: name.into(),
        families: families.iter().map(|&family| (family.into(), Retention::Keep)).collect(),
        partition,
        replicas: Some(replicas),
        min_replicas: None,
        storage: StorageChange::default(),
        settings: model::SettingsChange::default(),
    };
    let hash = |tablets| Partition::Hash { tablets };
    let range = |splits: &[&'static [u8]]| Partition::Range {
        splits: splits.iter().map(|&split| Bytes::from_static(split)).collect(),
    };
    let bad = [
        wish("", &["f"], hash(1), 1),
        wish("a b", &["f"], hash(1), 1),
        wish("t", &["f"; limits::FAMILIES + 1], hash(1), 1),
        wish("t", &["a", "a"], hash(1), 1),
        wish("t", &["a:b"], hash(1), 1),
        wish("t", &["f"], hash(0), 1),
        wish("t", &["f"], hash(1_000_000), 1),
        wish("t", &["f"], range(&[b"b", b"a"]), 1),
        wish("t", &["f"], range(&[b""]), 1),
        wish("t", &["f"], hash(1), 3),
        wish("t", &["f"], hash(1), 0),
    ];
    for table in bad {
        let effects = world.step(Input::Admin(Ticket(1), AdminRequest::CreateTable(table.clone())));
        assert!(matches!(&effects[..], [Effect::Refuse(_, Refusal::Invalid(_))]), "{table:?}: {effects:?}");
    }
    world.create("t", hash(1), 2);
    let again = Input::Admin(Ticket(1), AdminRequest::CreateTable(wish("t", &["f"], hash(1), 1)));
    assert!(matches!(&world.step(again)[..], [Effect::Refuse(_, Refusal::Exists(_))]));
}

/// PacificA 2.4: of two proposals for the same epoch the first wins, and the other one hears who did.
#[test]
fn the_first_proposal_wins() {
    let mut world = World::with_nodes(2);
    let tablet = world.one_tablet();
    let old = world.configuration(tablet);
    let (primary, secondary) = (old.primary, old.secondaries[0]);
    let first = old.succeeded_by(secondary);
    let effects = world.step(Input::FromNode(secondary, propose(tablet, first.clone())));
    assert!(effects.iter().filter_map(assigned).any(|node| node == primary), "the old primary hears of it");
    let effects = world.step(Input::FromNode(primary, propose(tablet, old.without(secondary))));
    assert_eq!(effects.iter().filter_map(assigned).collect::<Vec<_>>(), [primary]);
    assert_eq!(world.configuration(tablet), first);
}

/// PacificA 2.4: a new primary is a member of the configuration before, or it could lack what was committed.
#[test]
fn an_outsider_cannot_become_primary() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let old = world.configuration(tablet);
    let outsider = (1..=3).map(NodeId).find(|&node| !old.has(node)).unwrap();
    let coup = Configuration { primary: outsider, ..old.next() };
    world.step(Input::FromNode(outsider, propose(tablet, coup)));
    assert_eq!(world.configuration(tablet), old);
}

/// Re-replication: whoever comes back with the tablet's data learns at once; a spare node only after `replace_after`.
#[test]
fn a_returning_node_learns_at_once_and_a_spare_one_later() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let old = world.configuration(tablet);
    let (primary, gone) = (old.primary, old.secondaries[0]);
    world.beat(&[primary, gone, other(&old)], 2_000);
    world.step(heartbeat(gone.0, vec![report(tablet, Role::Secondary)]));
    world.step(Input::FromNode(primary, propose(tablet, old.without(gone))));

    world.step(Input::Tick);
    world.now = world.now + Duration::from_millis(150);
    world.step(Input::Tick);
    assert_eq!(world.learner(tablet), None, "{gone} has not been heard since it was removed");
    world.beat(&[primary, other(&old)], 4_000);
    assert_eq!(world.learner(tablet), None, "{gone} may come back");
    world.step(heartbeat(gone.0, vec![report(tablet, Role::Spare)]));
    world.beat(&[primary, other(&old), gone], 1_000);
    assert_eq!(world.learner(tablet), Some(gone));

    let before = world.configuration(tablet);
    world.beat(&[primary, other(&old)], 5_000);
    assert_eq!(world.learner(tablet), None, "it went away again");
    assert_eq!(world.configuration(tablet), before.next(), "what it acknowledged as a learner counts no more");
    world.beat(&[primary, other(&old)], 301_000);
    assert_eq!(world.learner(tablet), Some(other(&old)));
}

/// A tablet moves without ever having fewer members: the newcomer joins, the primary hands over if it is the one to
/// leave, and only then is it removed: not before it has heard that it is primary no more, or it might read by its old
/// leases while the others write without it (seeds 1831 and 2231 of the simulator's house).
#[test]
fn a_move_adds_first_and_removes_last() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let old = world.configuration(tablet);
    let (primary, secondary, newcomer) = (old.primary, old.secondaries[0], other(&old));
    let request = AdminRequest::MoveTablet { tablet, from: primary, to: newcomer };
    let effects = world.step(Input::Admin(Ticket(5), request));
    assert!(matches!(effects.last(), Some(Effect::Reply(Ticket(5), AdminReply::Done(_)))), "{effects:?}");
    assert_eq!(world.learner(tablet), Some(newcomer));

    world.step(Input::FromNode(primary, propose(tablet, old.with(newcomer))));
    let three = world.configuration(tablet);
    assert_eq!(three.size(), 3);
    world.report_all(tablet, &three);
    let orders = world.round(&[1, 2, 3]);
    let [Effect::Send(to, FromMaster::HandOver(of, epoch, heir))] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!((*to, *of, *epoch), (primary, tablet, three.epoch));
    assert!(*heir == secondary || *heir == newcomer);

    world.step(Input::FromNode(primary, propose(tablet, three.handed_to(*heir))));
    world.round(&[1, 2, 3]);
    let handed = world.configuration(tablet);
    assert!(handed.primary == *heir && handed.has(primary), "{handed:?}");
    world.report_all(tablet, &handed);
    world.round(&[1, 2, 3]);
    let two = world.configuration(tablet);
    assert!(two.size() == 2 && two.has(newcomer) && two.has(secondary), "{two:?}");
}

/// Whoever dies on the way ends the move, and the group is as it was.
#[test]
fn a_move_whose_newcomer_dies_is_called_off() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let old = world.configuration(tablet);
    let to = other(&old);
    world.step(Input::Admin(Ticket(5), AdminRequest::MoveTablet { tablet, from: old.primary, to }));
    let staying: Vec<NodeId> = old.members().collect();
    world.beat(&staying, 6_000);
    let group = &world.master.state().groups[&tablet];
    assert_eq!((group.learner, group.leaving), (None, None));
    assert_eq!(group.configuration, old.next(), "what the learner acknowledged counts no more");
}

/// A node that is emptied gives up its primaries' places first; then its copies go where there is room; then it may go
/// for ever.
#[test]
fn a_node_is_emptied_and_leaves() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let old = world.configuration(tablet);
    let (leaver, secondary, newcomer) = (old.primary, old.secondaries[0], other(&old));
    world.report_all(tablet, &old);
    let refused = world.step(Input::Admin(Ticket(4), AdminRequest::RemoveNode(leaver)));
    assert!(matches!(&refused[..], [Effect::Refuse(Ticket(4), Refusal::Invalid(_))]), "it keeps a tablet");
    world.step(Input::Admin(Ticket(5), AdminRequest::DrainNode { node: leaver, drain: true }));
    let orders = world.round(&[1, 2, 3]);
    assert_eq!(orders, [Effect::Send(leaver, FromMaster::HandOver(tablet, old.epoch, secondary))]);
    world.step(Input::FromNode(leaver, propose(tablet, old.handed_to(secondary))));
    world.round(&[1, 2, 3]);
    assert_eq!(world.learner(tablet), Some(newcomer));
    let joined = world.configuration(tablet).with(newcomer);
    world.step(Input::FromNode(secondary, propose(tablet, joined.clone())));
    world.report_all(tablet, &joined);
    world.round(&[1, 2, 3]);
    assert!(!world.configuration(tablet).has(leaver));
    let gone = world.step(Input::Admin(Ticket(6), AdminRequest::RemoveNode(leaver)));
    assert!(matches!(&gone[..], [Effect::Reply(Ticket(6), AdminReply::Done(_))]), "{gone:?}");
    let back = world.step(heartbeat(leaver.0, vec![]));
    assert!(matches!(&back[..], [Effect::Send(_, FromMaster::Unwelcome(..))]), "{back:?}");
}

/// Design notes 5.6: a group whose members are gone stays refused until an operator decides, and while one of them is
/// heard there is nothing to decide.
#[test]
fn a_lost_tablet_waits_for_an_operator() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let old = world.configuration(tablet);
    let witness = other(&old);
    let recover = |epoch, empty| AdminRequest::Recover { tablet, epoch, from: witness, empty };
    world.step(heartbeat(witness.0, vec![report(tablet, Role::Spare)]));
    let refused = world.step(Input::Admin(Ticket(5), recover(old.epoch, false)));
    assert!(matches!(&refused[..], [Effect::Refuse(_, Refusal::Invalid(_))]), "{refused:?}");
    world.beat(&[witness], 60_000);
    assert_eq!(world.configuration(tablet), old, "nobody decides by itself");
    let Some(Effect::Reply(_, AdminReply::Losses(losses))) =
        world.step(Input::Admin(Ticket(6), AdminRequest::Losses(tablet))).pop()
    else {
        panic!("no losses")
    };
    assert_eq!((losses.alive, losses.others.len()), (vec![], 1));
    world.step(Input::Admin(Ticket(7), recover(old.epoch, false)));
    let anew = world.configuration(tablet);
    assert_eq!(anew, Configuration { epoch: old.epoch.next(), primary: witness, secondaries: vec![] });
    let lineage = world.master.state().groups[&tablet].lineage;
    assert_eq!((lineage.founded, lineage.chosen), (Epoch(1), anew.epoch));
    let again = world.step(Input::Admin(Ticket(8), recover(old.epoch, true)));
    assert!(matches!(&again[..], [Effect::Refuse(..)]), "it was decided as of an older epoch: {again:?}");
}

/// Primaries' places and copies are evened out, one step at a time, once the groups have been at rest.
#[test]
fn a_new_node_gets_its_share() {
    let mut world = World::with_nodes(2);
    world.master.options.balance_after = Some(Duration::from_secs(10));
    world.create("t", Partition::Hash { tablets: 6 }, 1);
    world.beat(&[NodeId(1), NodeId(2)], 20_000);
    assert!(world.master.state().groups.values().all(|group| group.learner.is_none()), "three each is even");
    world.step(heartbeat(3, vec![]));
    world.beat(&[NodeId(1), NodeId(2), NodeId(3)], 1_000);
    let moving: Vec<_> =
        world.master.state().groups.values().filter_map(|group| Some((group.learner?, group.leaving?))).collect();
    assert_eq!(moving.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [NodeId(3); 2], "two at a time: {moving:?}");
}

/// A member that was slow comes back after a pause that doubles each time.
#[test]
fn the_slow_rest_before_they_come_back() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let old = world.configuration(tablet);
    let (primary, slow) = (old.primary, old.secondaries[0]);
    let why = protocol::Why::Slow { node: slow, behind: Duration::from_secs(3) };
    world.step(Input::FromNode(primary, ToMaster::Propose(tablet, old.without(slow), why)));
    world.step(heartbeat(slow.0, vec![report(tablet, Role::Spare)]));
    world.beat(&[primary, slow], 2_000);
    assert_eq!(world.learner(tablet), None);
    world.beat(&[primary, slow], 2_000);
    assert_eq!(world.learner(tablet), Some(slow));
}

/// A replica that no one needs is removed, but never one whose group is not complete without it.
#[test]
fn only_rubbish_is_forgotten() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let spare = other(&world.configuration(tablet));
    let mut spare_report = report(tablet, Role::Spare);
    spare_report.epoch = world.configuration(tablet).epoch;
    let forgets = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Send(_, FromMaster::Forget(_))));
    let releases = |effects: &[Effect]| effects.iter().any(|e| matches!(e, Effect::Send(_, FromMaster::Release(_))));
    let effects = world.step(heartbeat(spare.0, vec![spare_report.clone()]));
    assert!(releases(&effects));
    world.now = world.now + Duration::from_secs(60);
    let effects = world.step(heartbeat(spare.0, vec![spare_report]));
    assert!(!releases(&effects) && !forgets(&effects), "the members are silent: this may be the last copy");
    let effects = world.step(heartbeat(spare.0, vec![report(TabletId(99), Role::Primary)]));
    assert!(!forgets(&effects), "no such tablet was ever made here: this master may be the one that is behind");
    world.step(Input::Admin(Ticket(8), AdminRequest::DropTable("t".into())));
    let effects = world.step(heartbeat(spare.0, vec![report(tablet, Role::Primary)]));
    assert!(forgets(&effects), "its table is gone");
}

/// Bigtable 6: how rows lie on disks is part of the schema. Members hear of a change at once, and again as long as they
/// report an older schema.
#[test]
fn an_altered_table_reaches_its_nodes() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let configuration = world.configuration(tablet);
    let storage = StorageChange { compaction: Some(model::Compaction::Leveled), ..StorageChange::default() };
    let alter = AdminRequest::AlterTable {
        table: "t".into(),
        set: vec![],
        drop: vec![],
        storage,
        settings: model::SettingsChange::default(),
    };
    let leveled = |effect: &Effect| match effect {
        Effect::Send(node, FromMaster::Assignments(assignments)) => {
            let schema = &assignments[0].schema;
            assert_eq!((schema.version, schema.storage.compaction), (2, model::Compaction::Leveled));
            Some(*node)
        }
        _ => None,
    };
    let effects = world.step(Input::Admin(Ticket(8), alter));
    let mut told: Vec<NodeId> = effects.iter().filter_map(leveled).collect();
    told.sort_unstable();
    let mut members: Vec<NodeId> = configuration.members().collect();
    members.sort_unstable();
    assert_eq!(told, members);
    world.now = world.now + Duration::from_secs(10);
    let deaf = configuration.primary;
    let effects = world.step(heartbeat(deaf.0, vec![report(tablet, Role::Primary)]));
    assert_eq!(effects.iter().filter_map(leveled).collect::<Vec<_>>(), [deaf]);
    world.now = world.now + Duration::from_secs(10);
    let report = ReplicaReport { schema: 2, ..report(tablet, Role::Primary) };
    let effects = world.step(heartbeat(deaf.0, vec![report]));
    assert_eq!(effects.iter().filter_map(leveled).count(), 0, "it knows");
}

/// A disk that held another cluster's data, or none of what this node was given, must not pass for the right one.
#[test]
fn strangers_are_turned_away() {
    let mut world = World::with_nodes(1);
    let mut stranger = |cluster, disk| {
        world.step(Input::FromNode(
            NodeId(1),
            ToMaster::Heartbeat {
                cluster,
                disk,
                incarnation: Incarnation(2),
                address: "h:1".into(),
                disk_full: false,
                base: None,
                gone: vec![],
                scrub: model::request::ScrubReport::default(),
                replicas: vec![],
                sent: Instant::ZERO,
            },
        ))
    };
    assert!(matches!(&stranger(Some(ClusterId(5)), 1)[..], [Effect::Send(_, FromMaster::Unwelcome(..))]));
    assert!(matches!(&stranger(Some(ClusterId(77)), 9)[..], [Effect::Send(_, FromMaster::Unwelcome(..))]));
    assert!(!matches!(&stranger(Some(ClusterId(77)), 1)[..], [Effect::Send(_, FromMaster::Unwelcome(..))]));
}

/// A folder that was restored from a copy lacks what the node acknowledged since; two processes must not be one node.
#[test]
fn copies_of_a_folder_are_turned_away() {
    let mut world = World::with_nodes(1);
    let mut comes = |life, address: &str| {
        let heartbeat = ToMaster::Heartbeat {
            cluster: Some(ClusterId(77)),
            disk: 1,
            incarnation: Incarnation(life),
            address: address.into(),
            disk_full: false,
            base: None,
            gone: vec![],
            scrub: model::request::ScrubReport::default(),
            replicas: vec![],
            sent: Instant::ZERO,
        };
        let effects = world.step(Input::FromNode(NodeId(1), heartbeat));
        !effects.iter().any(|effect| matches!(effect, Effect::Send(_, FromMaster::Unwelcome(..))))
    };
    assert!(comes(5, "h:1"));
    assert!(comes(6, "h:2"), "started again elsewhere");
    assert!(!comes(5, "h:1"), "an old copy");
    assert!(!comes(6, "h:3"), "another process with a copy");
    assert!(comes(6, "h:2"));
    world.now = world.now + Duration::from_secs(60);
}

/// A damaged secondary is taken out at once, and learns anew at once: no disk has to be waited for.
#[test]
fn a_damaged_secondary_is_replaced_by_itself() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let Configuration { primary, secondaries, .. } = world.configuration(tablet);
    let secondary = secondaries[0];
    world.step(heartbeat(primary.0, vec![report(tablet, Role::Primary)]));
    world.step(heartbeat(secondary.0, vec![damaged(tablet, 1, Role::Secondary)]));
    world.beat(&[primary, secondary], 2_000);
    assert_eq!(world.configuration(tablet), Configuration { epoch: Epoch(2), primary, secondaries: vec![] });
    assert_eq!(world.learner(tablet), Some(secondary));
}

/// The one who leads must stop to serve before another does; then it is as with a secondary.
#[test]
fn a_damaged_primary_is_asked_to_hand_over() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let Configuration { primary, secondaries, .. } = world.configuration(tablet);
    let heir = secondaries[0];
    world.step(heartbeat(heir.0, vec![report(tablet, Role::Secondary)]));
    world.step(heartbeat(primary.0, vec![damaged(tablet, 1, Role::Primary)]));
    world.beat(&[primary, heir], 1_000);
    let asked = world.step(Input::Tick);
    world.now = world.now + Duration::from_millis(500);
    let asked = [asked, world.step(Input::Tick)].concat();
    assert!(asked.contains(&Effect::Send(primary, FromMaster::HandOver(tablet, Epoch(1), heir))));
    assert_eq!(world.configuration(tablet).primary, primary, "it serves still");
    world.step(heartbeat(primary.0, vec![damaged(tablet, 1, Role::Spare)]));
    world.beat(&[primary, heir], 1_000);
    let after = Configuration { epoch: Epoch(2), primary: heir, secondaries: vec![] };
    assert_eq!((world.configuration(tablet), world.learner(tablet)), (after, Some(primary)));
}

/// A member that has just been told of a new tablet has nothing on disk: were it left alone and crashed, the tablet would be
/// nowhere (found by `sim`, house seed 3596).
#[test]
fn a_damaged_member_stays_until_another_has_something_on_disk() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let old = world.configuration(tablet);
    let (first, second) = (old.primary, old.secondaries[0]);
    let has = |upto| ReplicaReport { durable: Lsn(upto), ..report(tablet, Role::Secondary) };
    world.step(heartbeat(first.0, vec![damaged(tablet, 1, Role::Spare)]));
    world.step(heartbeat(second.0, vec![has(0)]));
    world.beat(&[first, second], 1_000);
    assert_eq!(world.configuration(tablet), old);
    world.step(heartbeat(second.0, vec![has(1)]));
    world.beat(&[first, second], 1_000);
    assert_eq!(world.configuration(tablet), old.succeeded_by(second));
}

/// Whoever has not heard of this epoch may read by the leases of an older one, or lead this one since: its damage is
/// dealt with once it says what it does now (I9).
#[test]
fn a_damaged_member_stays_until_it_knows_the_epoch() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let old = world.configuration(tablet);
    let (first, second) = (old.primary, old.secondaries[0]);
    let handed = old.handed_to(second);
    world.step(Input::FromNode(first, propose(tablet, handed.clone())));
    let well = |node: NodeId, role| heartbeat(node.0, vec![ReplicaReport { epoch: Epoch(2), ..report(tablet, role) }]);

    // The old primary, as it was before it handed over.
    world.step(well(second, Role::Primary));
    world.step(heartbeat(first.0, vec![damaged(tablet, 1, Role::Primary)]));
    world.beat(&[first, second], 2_000);
    assert_eq!(world.configuration(tablet), handed, "it may still read");

    // The new primary, as it was before it heard that it is.
    world.step(well(first, Role::Secondary));
    world.step(heartbeat(second.0, vec![damaged(tablet, 1, Role::Secondary)]));
    world.beat(&[first, second], 2_000);
    assert_eq!(world.configuration(tablet), handed, "it may lead by now");

    world.step(well(second, Role::Primary));
    world.step(heartbeat(first.0, vec![damaged(tablet, 2, Role::Secondary)]));
    world.beat(&[first, second], 1_000);
    assert_eq!(world.configuration(tablet), handed.without(first));
}

/// Damaged data is better than none.
#[test]
fn the_last_copy_is_never_taken_away() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let before = world.configuration(tablet);
    let (primary, secondary) = (before.primary, before.secondaries[0]);
    world.step(heartbeat(primary.0, vec![damaged(tablet, 1, Role::Primary)]));
    world.step(heartbeat(secondary.0, vec![damaged(tablet, 1, Role::Secondary)]));
    world.beat(&[primary, secondary], 2_000);
    assert_eq!(world.configuration(tablet), before, "the other is damaged too");
    world.now = world.now + Duration::from_secs(60);
    world.beat(&[secondary], 10_000);
    assert_eq!(world.configuration(tablet), before, "the other is silent");
}

/// What a learner acknowledged before it found damage must not count when it begins anew: a new epoch ends it.
#[test]
fn a_damaged_learner_begins_anew_in_a_new_epoch() {
    let mut world = World::with_nodes(3);
    let tablet = world.one_tablet();
    let Configuration { primary, secondaries, .. } = world.configuration(tablet);
    let alone = Configuration { epoch: Epoch(2), primary, secondaries: vec![] };
    world.step(Input::FromNode(primary, ToMaster::Propose(tablet, alone, protocol::Why::Returned)));
    let learner = secondaries[0];
    world.beat(&[primary], 500);
    world.step(heartbeat(learner.0, vec![ReplicaReport { epoch: Epoch(2), ..report(tablet, Role::Spare) }]));
    world.step(heartbeat(primary.0, vec![ReplicaReport { epoch: Epoch(2), ..report(tablet, Role::Primary) }]));
    world.beat(&[primary, learner], 2_000);
    assert_eq!(world.learner(tablet), Some(learner));
    world.step(heartbeat(learner.0, vec![damaged(tablet, 2, Role::Learner)]));
    world.now = world.now + Duration::from_millis(500);
    world.step(Input::Tick);
    assert_eq!((world.configuration(tablet).epoch, world.learner(tablet)), (Epoch(3), None));
}

/// Everything but what was merely heard comes back from a snapshot.
#[test]
fn a_snapshot_holds_the_state() {
    let mut world = World::with_nodes(3);
    world.one_tablet();
    let mut copy = Master::new(options());
    copy.restore(&world.master.snapshot()).unwrap();
    assert_eq!(copy.state(), world.master.state());
    assert!(copy.restore(b"").is_err() && copy.restore(b"\x09abc").is_err());
}

/// A master that was restarted has heard of nobody yet: that is no reason to say that there are too few nodes.
#[test]
fn a_new_leader_waits_for_its_nodes() {
    let mut world = World::with_nodes(2);
    let snapshot = world.master.snapshot();
    world.master = Master::new(options());
    world.master.restore(&snapshot).unwrap();
    world.step(Input::Leading(2));
    let refused = world.create("t", Partition::Hash { tablets: 1 }, 2);
    assert_eq!(refused, [Effect::Refuse(Ticket(9), Refusal::NoMaster)], "try again");
    world.beat(&[NodeId(1)], 2_000);
    let refused = world.create("t", Partition::Hash { tablets: 1 }, 2);
    assert!(matches!(&refused[..], [Effect::Refuse(_, Refusal::Invalid(_))]), "n2 had its time");
    world.step(heartbeat(2, vec![]));
    assert!(world.create("t", Partition::Hash { tablets: 1 }, 2).iter().any(|effect| assigned(effect).is_some()));
}

// ---- the vocabulary ---------------------------------------------------------------------------------------------

struct World {
    master: Master,
    now: Instant,
    index: u64,
}

impl World {
    fn new() -> World {
        World { master: Master::new(options()), now: Instant::ZERO, index: 0 }
    }

    fn founded() -> World {
        let mut world = World::new();
        world.step(Input::Leading(1));
        world
    }

    fn with_nodes(nodes: u32) -> World {
        let mut world = World::founded();
        (1..=nodes).for_each(|node| {
            world.step(heartbeat(node, vec![]));
        });
        world
    }

    /// Steps, and lets consensus commit whatever is proposed at once.
    fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut inputs = std::collections::VecDeque::from([input]);
        let mut seen = Vec::new();
        while let Some(input) = inputs.pop_front() {
            let mut out = Vec::new();
            self.master.step(self.now, input, &mut out);
            for effect in out {
                match effect {
                    Effect::Propose(command) => {
                        self.index += 1;
                        inputs.push_back(Input::Committed(self.index, command));
                    }
                    Effect::Event(..) | Effect::Recorded(_) => {}
                    other => seen.push(other),
                }
            }
        }
        seen
    }

    fn create(&mut self, name: &str, partition: Partition, replicas: u8) -> Vec<Effect> {
        let table = NewTable {
            name: name.into(),
            families: vec![("f".into(), Retention::Keep)],
            partition,
            replicas: Some(replicas),
            min_replicas: None,
            storage: StorageChange::default(),
            settings: model::SettingsChange::default(),
        };
        self.step(Input::Admin(Ticket(9), AdminRequest::CreateTable(table)))
    }

    fn one_tablet(&mut self) -> TabletId {
        self.create("t", Partition::Hash { tablets: 1 }, 2);
        *self.master.state().groups.keys().next().unwrap()
    }

    fn configuration(&self, tablet: TabletId) -> Configuration {
        self.master.state().groups[&tablet].configuration.clone()
    }

    fn learner(&self, tablet: TabletId) -> Option<NodeId> {
        self.master.state().groups[&tablet].learner
    }

    /// Every member says that it is well in this configuration.
    fn report_all(&mut self, tablet: TabletId, configuration: &Configuration) {
        for member in configuration.members() {
            let role = if member == configuration.primary { Role::Primary } else { Role::Secondary };
            let well = ReplicaReport { epoch: configuration.epoch, ..report(tablet, role) };
            self.step(heartbeat(member.0, vec![well]));
        }
    }

    /// Time enough for the master to look at everything once, while these nodes are heard; what it tells nodes then.
    fn round(&mut self, nodes: &[u32]) -> Vec<Effect> {
        let nodes: Vec<NodeId> = nodes.iter().copied().map(NodeId).collect();
        self.beat(&nodes, 1_000);
        self.now = self.now + Duration::from_millis(500);
        let effects = self.step(Input::Tick);
        effects.into_iter().filter(|effect| matches!(effect, Effect::Send(_, FromMaster::HandOver(..)))).collect()
    }

    /// Lets time pass while these nodes are heard.
    fn beat(&mut self, nodes: &[NodeId], ms: u64) {
        for _ in 0..ms / 500 {
            self.now = self.now + Duration::from_millis(500);
            for node in nodes {
                let known = self.master.heard.get(node).map(|heard| heard.replicas.values().cloned().collect());
                self.step(heartbeat(node.0, known.unwrap_or_default()));
            }
            self.step(Input::Tick);
        }
    }
}

fn options() -> Options {
    Options {
        timing: Timing::default(),
        seed: 77,
        replicas: 2,
        min_replicas: 1,
        balance_after: None,
        split_bytes: 0,
        split_load: 0,
        merge_after: None,
    }
}

fn heartbeat(node: u32, replicas: Vec<ReplicaReport>) -> Input {
    Input::FromNode(
        NodeId(node),
        ToMaster::Heartbeat {
            cluster: None,
            disk: u64::from(node),
            incarnation: Incarnation(1),
            address: format!("host:{node}"),
            disk_full: false,
            base: None,
            gone: vec![],
            scrub: model::request::ScrubReport::default(),
            replicas,
            sent: Instant::ZERO,
        },
    )
}

fn report(tablet: TabletId, role: Role) -> ReplicaReport {
    ReplicaReport {
        tablet,
        epoch: Epoch(1),
        schema: 1,
        learner: None,
        role,
        durable: Lsn(1),
        committed: Lsn(0),
        steady: true,
        bytes: 0,
        load: 0,
        damaged: None,
        stalled: false,
    }
}

fn damaged(tablet: TabletId, epoch: u32, role: Role) -> ReplicaReport {
    ReplicaReport { epoch: Epoch(epoch), damaged: Some("tables/7.sst".into()), ..report(tablet, role) }
}

fn other(configuration: &Configuration) -> NodeId {
    (1..=3).map(NodeId).find(|&node| !configuration.has(node)).unwrap()
}

fn assigned(effect: &Effect) -> Option<NodeId> {
    match effect {
        Effect::Send(node, FromMaster::Assignments(_)) => Some(*node),
        _ => None,
    }
}

fn propose(tablet: TabletId, configuration: Configuration) -> ToMaster {
    ToMaster::Propose(tablet, configuration, protocol::Why::Returned)
}
