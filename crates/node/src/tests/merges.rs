//! Tablets that become one, on one node.

use super::splits::{LEFT, RIGHT};
use super::*;
use model::{Close, Lsn, Merge, Payload};
use protocol::Line;

const HEIR: TabletId = TabletId(20);
const OTHER: NodeId = NodeId(2);

/// Once the entry is committed both tablets answer by the heir, and it has the rows of both, what was carried out, and
/// goes on with numbers and versions.
#[test]
fn two_tablets_send_everyone_to_their_heir() {
    let mut world = World::halves();
    let first = request(5, 1);
    let write = |value| Operation::Write { request: first, mutation: put("z", "info", "note", value) };
    let answer = world.operate_on(RIGHT, write("1"));
    world
        .operate_on(LEFT, Operation::Write { request: request(6, 1), mutation: put("b", "info", "note", "2") })
        .unwrap();
    let (before, upto) = (world.applied(LEFT), world.close());
    let merge = world.join(upto);
    assert_eq!((merge.right, merge.heir, merge.upto), (RIGHT, HEIR, upto));
    assert_eq!(merge.configuration.epoch, Epoch(3), "an epoch that neither had");
    for tablet in [LEFT, RIGHT] {
        let Err(Refusal::Moved { tablet: from, heirs }) = world.operate_on(tablet, get("a")) else { panic!() };
        assert_eq!((from, heirs.len(), heirs[0].tablet), (tablet, 1, HEIR));
        assert!(heirs[0].slice.covers(b"a") && heirs[0].slice.covers(b"z"));
    }
    assert!(world.applied(HEIR) > before.max(upto));
    assert_eq!(world.rows(HEIR), "a b m z ");
    assert_eq!(world.operate_on(HEIR, write("9")), answer, "it was carried out by the right one");
    assert_eq!((world.note(HEIR, "z"), world.note(HEIR, "b")), ("1".into(), "2".into()));
    let next = Operation::Write { request: request(5, 2), mutation: put("z", "info", "note", "3") };
    world.operate_on(HEIR, next).unwrap();
    assert_eq!(world.note(HEIR, "z"), "3", "the date has not changed, and the version is newer all the same");
}

/// Decision 0011: a tablet is closed for one epoch. Nothing has to be undone if nothing comes of it.
#[test]
fn a_closed_tablet_is_open_again_in_the_next_epoch() {
    let mut world = World::halves();
    let upto = world.close();
    let write = |row| Operation::Write { request: request(7, 1), mutation: put(row, "info", "note", "1") };
    assert_eq!(world.operate_on(RIGHT, write("z")), Err(Refusal::NotReady(RIGHT)));
    assert_eq!(world.note(RIGHT, "z"), "z", "it is read all the while");
    assert!(world.operate_on(LEFT, write("a")).is_ok(), "the other one is open");
    world.reports.clear();
    world.step(Input::FromMaster(close(2)));
    assert_eq!(world.reports, [closed(2, upto)], "it is said again, and not written again");
    world.lead(RIGHT, 3);
    assert!(world.operate_on(RIGHT, write("z")).is_ok());
    world.reports.clear();
    world.step(Input::FromMaster(merge(2, 2, upto)));
    assert!(matches!(&world.reports[..], [ToMaster::Unmerged { heir: HEIR, left: true, .. }]), "{:?}", world.reports);
    world.step(Input::FromMaster(close(2)));
    assert!(matches!(&world.reports[1..], [ToMaster::Unmerged { heir: HEIR, left: false, .. }]), "of an older epoch");
}

/// A wish is fulfilled in its own epoch or never, and a no is for ever.
#[test]
fn a_refused_merge_is_never_written() {
    let mut world = World::halves();
    world.step(Input::FromMaster(merge(2, 2, Lsn(9))));
    assert!(matches!(&world.reports[..], [ToMaster::Unmerged { left: true, .. }]), "the right one is not closed");
    let upto = world.close();
    world.reports.clear();
    world.step(Input::FromMaster(merge(2, 2, upto)));
    assert!(matches!(&world.reports[..], [ToMaster::Unmerged { .. }]), "a late copy of the same wish");
    world.lead(LEFT, 3);
    world.step(Input::FromMaster(merge(2, 2, upto)));
    assert!(matches!(&world.reports[1..], [ToMaster::Unmerged { .. }]), "of an older epoch");
    assert!(world.node.applied(HEIR).is_none());
}

/// A crash at any moment: before the heir has a file of its own it is born again out of both, with what it has written
/// since; afterwards it stands alone.
#[test]
fn an_heir_of_two_outlives_a_crash_before_and_after_it_is_settled() {
    for settled in [false, true] {
        let mut world = World::halves();
        world.hold_jobs = !settled;
        let upto = world.close();
        world.join(upto);
        let ended = world.ended_both();
        let write = || Operation::Write { request: request(6, 1), mutation: put("a", "info", "note", "new") };
        let answer = world.operate_on(HEIR, write());
        assert!(answer.is_ok());
        for _ in 0..2 {
            world.restart();
            for tablet in [LEFT, RIGHT] {
                assert!(matches!(world.operate_on(tablet, get("a")), Err(Refusal::Moved { .. })), "{tablet}");
            }
            assert!(world.reports.iter().any(|report| matches!(report, ToMaster::Merged { .. })), "it says so again");
        }
        world.step(Input::FromMaster(ended.clone()));
        for tablet in [LEFT, RIGHT] {
            assert_eq!(world.node.applied(tablet).is_some(), !settled, "they stay while they are needed");
        }
        world.hold_jobs = false;
        world.restart();
        world.lead(HEIR, 4);
        world.step(Input::LogBytes(u64::MAX));
        world.step(Input::FromMaster(ended.clone()));
        assert!(world.node.applied(LEFT).is_none() && world.node.applied(RIGHT).is_none());
        world.reports.clear();
        world.step(Input::FromMaster(ended));
        assert_eq!(world.reports, [ToMaster::Buried(LEFT), ToMaster::Buried(RIGHT)]);
        world.restart();
        world.lead(HEIR, 5);
        assert_eq!((world.rows(HEIR), world.note(HEIR, "a")), ("a b m z ".into(), "new".into()));
        assert_eq!(world.operate_on(HEIR, write()), answer);
    }
}

/// Whoever lags holds both entries and does not know that they are committed: the master says so. Who lacks one of them
/// has no heir, and nothing of worth.
#[test]
fn a_lagging_member_merges_when_the_master_says_so() {
    for holds in [true, false] {
        let mut world = World::lagging(holds);
        world.step(Input::FromMaster(FromMaster::Ended(vec![(LEFT, Lsn(2), HEIR), (RIGHT, Lsn(2), HEIR)])));
        assert_eq!(world.node.applied(HEIR).is_some(), holds);
        if holds {
            assert_eq!(world.rows(HEIR), "a z ");
        }
        assert!(world.node.applied(LEFT).is_none() && world.node.applied(RIGHT).is_none());
    }
}

/// PacificA 2.3: whoever reads the right one by leases must lose them before another one than itself can serve the heir;
/// the right one's own group never hears of it.
#[test]
fn nobody_grants_leases_for_what_has_become_part_of_another_one() {
    let mut world = World::lagging(true);
    // With the next beacon that names it, or by one that says: all is as it was.
    let granted = |world: &mut World, named: bool| {
        let last = world.now;
        world.now = world.now + std::time::Duration::from_millis(1);
        world.sent.clear();
        let line = Line { tablet: RIGHT, epoch: Epoch(1), committed: Lsn(0), leased: true };
        let (groups, base) = if named { (vec![line], None) } else { (vec![], Some(last)) };
        let (life, sent, heard) = (model::Incarnation(1), world.now, None);
        let beacon = NodeMessage::Beacon { life, sent, base, heard, firm: true, groups, gone: vec![] };
        world.step(Input::FromNode(OTHER, beacon));
        let Some(NodeMessage::BeaconAck { known: true, groups, without, .. }) = world
            .sent
            .iter()
            .map(|(_, message)| message)
            .find(|message| matches!(message, NodeMessage::BeaconAck { .. }))
        else {
            panic!("{:?}", world.sent)
        };
        !without.contains(&RIGHT) && named != groups.is_empty()
    };
    assert!(granted(&mut world, true) && granted(&mut world, false));
    world.hold_jobs = true;
    let prepare = protocol::GroupMessage::Prepare { epoch: Epoch(1), committed: Lsn(2), entries: vec![] };
    world.step(Input::FromNode(OTHER, NodeMessage::Group(LEFT, prepare)));
    assert!(world.node.applied(HEIR).is_some() && world.node.applied(RIGHT).is_some());
    assert!(!granted(&mut world, false) && !granted(&mut world, true));
}

fn command(row: &str) -> Payload {
    let changes = put(row, "info", "note", "1").changes.into_iter();
    let changes = changes.map(|change| change.try_rename(|_| Ok::<_, ()>(FamilyId(1))).unwrap()).collect();
    let row = Bytes::copy_from_slice(row.as_bytes());
    Payload::Write(model::Command { request: request(5, 1), version: Timestamp(7), row, changes: Some(changes) })
}

fn close(epoch: u32) -> FromMaster {
    FromMaster::Close { tablet: RIGHT, epoch: Epoch(epoch), heir: HEIR }
}

fn closed(epoch: u32, lsn: Lsn) -> ToMaster {
    ToMaster::Closed { tablet: RIGHT, epoch: Epoch(epoch), lsn, heir: HEIR }
}

fn merge(epoch: u32, right_epoch: u32, upto: Lsn) -> FromMaster {
    let (epoch, right_epoch) = (Epoch(epoch), Epoch(right_epoch));
    FromMaster::Merge { tablet: LEFT, epoch, right: RIGHT, right_epoch, upto, heir: HEIR }
}

impl World {
    /// Two tablets side by side, cut at `m`, with two rows each.
    fn halves() -> World {
        let mut world = World::range();
        ["a", "b", "m", "z"].iter().for_each(|row| _ = world.put(row, "info", "note", row).unwrap());
        world.flush();
        world.wish(1, Some("m"));
        world.ended(LEFT);
        world.reports.clear();
        assert!(world.node.applied(TABLET).is_none());
        world
    }

    /// A secondary of two tablets, which holds their last entries, or not that of the right one, and knows nothing of
    /// them to be committed.
    fn lagging(holds: bool) -> World {
        let mut world = World::empty();
        let border = Bytes::from_static(b"m");
        for (id, start, end) in [(LEFT, Bytes::new(), Some(border.clone())), (RIGHT, border, None)] {
            let tablet = Tablet { id, table: TableId(1), slice: Slice::Rows { start, end } };
            let configuration = Configuration::first(OTHER, [ME]);
            let (schema, lineage) = (world.schema.clone(), model::Lineage::default());
            let assignment = Assignment { tablet, schema, configuration, learner: None, lineage };
            world.step(Input::FromMaster(FromMaster::Assignments(vec![assignment])));
        }
        let configuration = Configuration::first(OTHER, [ME]).next();
        let slice = Slice::Rows { start: Bytes::new(), end: None };
        let merge = Payload::Merge(Merge { right: RIGHT, upto: Lsn(2), heir: HEIR, slice, configuration });
        let mut close = vec![command("z"), Payload::Close(Close { heir: HEIR })];
        close.truncate(1 + usize::from(holds));
        for (tablet, payloads) in [(LEFT, vec![command("a"), merge]), (RIGHT, close)] {
            let entries = (1..).zip(payloads).map(|(lsn, payload)| {
                let payload = Bytes::from(postcard::to_allocvec(&payload).unwrap());
                protocol::Entry { lsn: Lsn(lsn), epoch: Epoch(1), payload }
            });
            let entries = entries.collect();
            let prepare = protocol::GroupMessage::Prepare { epoch: Epoch(1), committed: Lsn(0), entries };
            world.step(Input::FromNode(OTHER, NodeMessage::Group(tablet, prepare)));
        }
        world
    }

    /// Closes the right one, and says where.
    fn close(&mut self) -> Lsn {
        self.step(Input::FromMaster(close(2)));
        let closed = self.reports.iter().find_map(|report| match report {
            ToMaster::Closed { tablet: RIGHT, lsn, .. } => Some(*lsn),
            _ => None,
        });
        closed.unwrap_or_else(|| panic!("{:?}", self.reports))
    }

    fn join(&mut self, upto: Lsn) -> Merge {
        self.step(Input::FromMaster(merge(2, 2, upto)));
        self.merged().1
    }

    fn merged(&self) -> (Lsn, Merge) {
        let merged = self.reports.iter().find_map(|report| match report {
            ToMaster::Merged { tablet: LEFT, lsn, merge } => Some((*lsn, merge.clone())),
            _ => None,
        });
        merged.unwrap_or_else(|| panic!("{:?}", self.reports))
    }

    fn ended_both(&self) -> FromMaster {
        let (lsn, merge) = self.merged();
        FromMaster::Ended(vec![(LEFT, lsn, HEIR), (RIGHT, merge.upto, HEIR)])
    }

    fn applied(&self, tablet: TabletId) -> Lsn {
        self.node.applied(tablet).unwrap().0
    }

    fn rows(&self, tablet: TabletId) -> String {
        super::splits::rows(self, tablet)
    }

    fn note(&mut self, tablet: TabletId, row: &str) -> String {
        self.read(tablet, row).unwrap()
    }
}
