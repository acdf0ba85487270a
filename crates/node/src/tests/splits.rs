//! Tablets that become two, on one node.

use super::*;
use model::SplitAt;

pub(super) const LEFT: TabletId = TabletId(8);
pub(super) const RIGHT: TabletId = TabletId(9);

/// Papers, 6.7: once the entry is committed the tablet answers by its heirs, and they have its rows.
#[test]
fn a_split_tablet_sends_everyone_to_its_heirs() {
    let mut world = World::range();
    ["a", "b", "m", "z"].iter().for_each(|row| _ = world.put(row, "info", "note", row).unwrap());
    world.wish(1, Some("m"));
    let Some(ToMaster::Divided { tablet: TABLET, split, .. }) = world.reports.first() else {
        panic!("{:?}", world.reports)
    };
    assert_eq!((split.left, split.right, &split.at[..]), (LEFT, RIGHT, &b"m"[..]));
    assert_eq!(split.configuration.epoch, Epoch(2), "no epoch in which a replica is made from nothing");
    for answer in [world.put("a", "info", "note", "x").map(|_| ()), world.get("a").map(|_| ())] {
        let Err(Refusal::Moved { tablet: TABLET, heirs }) = answer else { panic!("{answer:?}") };
        assert_eq!(heirs.iter().map(|heir| heir.tablet).collect::<Vec<_>>(), [LEFT, RIGHT]);
        assert!(heirs[0].slice.covers(b"a") && heirs[1].slice.covers(b"m"));
    }
    assert_eq!((world.read(LEFT, "b"), world.read(RIGHT, "z")), (Ok("b".into()), Ok("z".into())));
    assert_eq!(world.read(LEFT, "z"), Err(Refusal::NoSuchTablet(LEFT)));
    assert_eq!(rows(&world, LEFT) + &rows(&world, RIGHT), "a b m z ");
}

/// RIFL 3.4 (and papers, 6.14): a request that was carried out before the split is not carried out again by an heir, and
/// versions go on rising.
#[test]
fn an_heir_knows_what_was_carried_out() {
    let mut world = World::range();
    let first = request(5, 1);
    let answer = world.write(first, put("m", "info", "note", "1"));
    world.put("m", "info", "note", "2").unwrap();
    world.wish(1, Some("m"));
    let again = Operation::Write { request: first, mutation: put("m", "info", "note", "1") };
    assert_eq!(world.operate_on(RIGHT, again), answer);
    assert_eq!(world.read(RIGHT, "m"), Ok("2".into()));
    let next = Operation::Write { request: request(5, 2), mutation: put("m", "info", "note", "3") };
    world.operate_on(RIGHT, next).unwrap();
    assert_eq!(
        world.read(RIGHT, "m"),
        Ok("3".into()),
        "the date has not changed, and the version is newer all the same"
    );
}

/// A crash at any moment: before the heirs have files of their own they are born again out of the tablet, with what they
/// have written since; afterwards they stand alone.
#[test]
fn heirs_outlive_a_crash_before_and_after_they_are_settled() {
    for settled in [false, true] {
        let mut world = World::range();
        ["a", "b", "m", "z"].iter().for_each(|row| _ = world.put(row, "info", "note", row).unwrap());
        world.flush();
        world.put("b", "info", "note", "b2").unwrap();
        world.hold_jobs = !settled;
        world.wish(1, None);
        let write = |row| Operation::Write { request: request(6, 1), mutation: put(row, "info", "note", "new") };
        let tablets: Vec<TabletId> = world.node.replicas().map(protocol::Replica::tablet).collect();
        assert_eq!(tablets, [TABLET, LEFT, RIGHT]);
        let answer = world.operate_on(LEFT, write("a"));
        assert!(answer.is_ok());
        for _ in 0..2 {
            world.restart();
            assert!(matches!(world.get("a"), Err(Refusal::Moved { .. })));
            let lsn = world.node.applied(TABLET).unwrap().0;
            assert!(world.node.replicas().all(|replica| replica.committed() >= lsn));
        }
        assert!(world.reports.iter().any(|report| matches!(report, ToMaster::Divided { .. })), "it says so again");
        world.ended(LEFT);
        assert_eq!(world.node.applied(TABLET).is_some(), !settled, "the tablet stays while it is needed");
        world.hold_jobs = false;
        world.restart();
        [LEFT, RIGHT].iter().for_each(|&heir| world.lead(heir, 3));
        world.step(Input::LogBytes(u64::MAX));
        world.ended(LEFT);
        assert!(world.node.applied(TABLET).is_none());
        world.reports.clear();
        world.ended(LEFT);
        assert_eq!(world.reports, [ToMaster::Buried(TABLET)]);
        world.restart();
        [LEFT, RIGHT].iter().for_each(|&heir| world.lead(heir, 4));
        assert_eq!(rows(&world, LEFT) + &rows(&world, RIGHT), "a b m z ");
        assert_eq!((world.read(LEFT, "a"), world.read(LEFT, "b")), (Ok("new".into()), Ok("b2".into())));
        assert_eq!(world.operate_on(LEFT, write("a")), answer);
    }
}

/// A wish is fulfilled in its own epoch or never, and a no is for ever: the master may have given the numbers up.
#[test]
fn a_refused_wish_is_never_fulfilled() {
    let mut world = World::range();
    world.put("a", "info", "note", "1").unwrap();
    world.wish(1, None);
    assert!(matches!(&world.reports[..], [ToMaster::Undivided { tablet: TABLET, left: LEFT, .. }]), "one row");
    world.put("b", "info", "note", "1").unwrap();
    world.wish(1, None);
    assert!(matches!(&world.reports[1..], [ToMaster::Undivided { .. }]), "a late copy of the same wish");
    world.assign(Configuration::first(ME, []).next());
    world.step(Input::FromMaster(wish(1, TabletId(18), Some("b"))));
    assert!(matches!(&world.reports[2..], [ToMaster::Undivided { left: TabletId(18), .. }]), "of an older epoch");
    world.step(Input::FromMaster(wish(2, TabletId(28), Some("b"))));
    assert!(matches!(&world.reports[3..], [ToMaster::Divided { .. }, ..]), "{:?}", world.reports);
}

/// A tablet that has ended and turns out to be damaged stays, like one that is well, until its heirs have files of their own.
#[test]
fn a_damaged_tablet_is_kept_for_its_heirs() {
    for settled in [false, true] {
        let mut world = World::range();
        ["a", "z"].iter().for_each(|row| _ = world.put(row, "info", "note", row).unwrap());
        world.flush();
        world.hold_jobs = !settled;
        world.wish(1, Some("m"));
        let error = store::Error::Corrupt { file: "tables/1.sst".into(), offset: 0, what: "rotten".into() };
        world.node.quarantine(TABLET, &error, &mut Vec::new());
        let elsewhere = Configuration { epoch: Epoch(3), primary: NodeId(2), secondaries: vec![] };
        world.hold_jobs = true;
        world.assign(elsewhere.clone());
        assert!(
            world.damage().is_some() && world.node.applied(TABLET).is_none(),
            "it is nothing in its group any more"
        );
        assert_eq!(world.node.dropping.contains(&TABLET), settled);
        world.reports.clear();
        world.ended(LEFT);
        assert_eq!(world.reports, [], "something is left of it");
        assert_eq!(world.node.dropping.contains(&TABLET), settled);
    }
}

/// A tablet that is lost here and has ended elsewhere is of no use: nobody waits for it to be learned anew.
#[test]
fn a_lost_tablet_that_has_ended_goes() {
    let mut world = World::range();
    ["a", "z"].iter().for_each(|row| _ = world.put(row, "info", "note", row).unwrap());
    world.flush();
    assert!(world.disk.flip("manifest/7", 30, 4));
    world.restart();
    assert!(world.damage().is_some() && world.node.applied(TABLET).is_none());
    world.ended(LEFT);
    assert_eq!((world.damage(), world.node.dropping.contains(&TABLET)), (None, false), "its files have gone");
    world.ended(LEFT);
    assert!(world.reports.contains(&ToMaster::Buried(TABLET)), "{:?}", world.reports);
}

/// Seed 265 of the simulator's house: a tablet that had ended and was forgotten came back, empty, by a late assignment of
/// its first epoch, in which replicas are made from nothing.
#[test]
fn what_was_forgotten_is_not_made_anew_by_a_late_assignment() {
    let mut world = World::range();
    world.put("a", "info", "note", "1").unwrap();
    world.step(Input::FromMaster(FromMaster::Forget(vec![TABLET])));
    world.assign(Configuration::first(ME, []));
    assert!(world.node.applied(TABLET).is_none());
}

/// Whoever lags holds the entry and does not know that it is committed: the master says so.
#[test]
fn a_lagging_replica_applies_the_split_when_the_master_says_so() {
    let other = NodeId(2);
    for holds in [true, false] {
        let mut world = World::range_of(Configuration::first(other, [ME]));
        let write = |lsn, payload| {
            let payload = Bytes::from(postcard::to_allocvec(&payload).unwrap());
            protocol::Entry { lsn: model::Lsn(lsn), epoch: Epoch(1), payload }
        };
        let changes = put("m", "info", "note", "1").changes.into_iter();
        let changes = changes.map(|change| change.try_rename(|_| Ok::<_, ()>(FamilyId(1))).unwrap()).collect();
        let command =
            model::Command { request: request(5, 1), version: Timestamp(7), row: "m".into(), changes: Some(changes) };
        let split = model::Split {
            left: LEFT,
            right: RIGHT,
            at: "m".into(),
            configuration: Configuration::first(other, [ME]).next(),
        };
        let mut entries = vec![write(1, model::Payload::Write(command)), write(2, model::Payload::Split(split))];
        entries.truncate(1 + usize::from(holds));
        let prepare = protocol::GroupMessage::Prepare { epoch: Epoch(1), committed: model::Lsn(0), entries };
        world.step(Input::FromNode(other, protocol::NodeMessage::Group(TABLET, prepare)));
        world.step(Input::FromMaster(FromMaster::Ended(vec![(TABLET, model::Lsn(2), LEFT)])));
        let tablets: Vec<TabletId> = world.node.replicas().map(protocol::Replica::tablet).collect();
        assert_eq!(tablets, if holds { vec![LEFT, RIGHT] } else { vec![] });
        if holds {
            assert_eq!(rows(&world, RIGHT), "m ");
        }
    }
}

impl World {
    pub(super) fn range() -> World {
        World::range_of(Configuration::first(ME, []))
    }

    fn range_of(configuration: Configuration) -> World {
        let mut world = World::empty();
        world.slice = Slice::Rows { start: Bytes::new(), end: None };
        world.assign(configuration);
        world
    }

    pub(super) fn wish(&mut self, epoch: u32, at: Option<&str>) {
        self.step(Input::FromMaster(wish(epoch, LEFT, at)));
    }

    pub(super) fn ended(&mut self, left: TabletId) {
        let lsn = self.reports.iter().find_map(|report| match report {
            ToMaster::Divided { lsn, .. } => Some(*lsn),
            _ => None,
        });
        let ended = FromMaster::Ended(vec![(TABLET, lsn.unwrap_or_default(), left)]);
        self.step(Input::FromMaster(ended));
    }

    /// Makes this node the primary of an heir in that epoch.
    pub(super) fn lead(&mut self, heir: TabletId, epoch: u32) {
        let slice = self.slice.clone();
        let tablet = Tablet { id: heir, table: TableId(1), slice };
        let configuration = Configuration { epoch: Epoch(epoch), primary: ME, secondaries: vec![] };
        let (schema, lineage) = (self.schema.clone(), model::Lineage::default());
        let assignment = Assignment { tablet, schema, configuration, learner: None, lineage };
        self.step(Input::FromMaster(FromMaster::Assignments(vec![assignment])));
    }

    pub(super) fn read(&mut self, tablet: TabletId, row: &str) -> Result<String, Refusal> {
        match self.operate_on(tablet, get(row))? {
            Reply::Row(Some(row), ..) => Ok(String::from_utf8(row.cells[0].value.to_vec()).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

fn wish(epoch: u32, left: TabletId, at: Option<&str>) -> FromMaster {
    let at = at.map_or(SplitAt::HalfTheBytes, |at| SplitAt::Row(Bytes::copy_from_slice(at.as_bytes())));
    FromMaster::Split { tablet: TABLET, epoch: Epoch(epoch), left, right: TabletId(left.0 + 1), at }
}

/// The keys that a tablet has, of all that lie in its files.
pub(super) fn rows(world: &World, tablet: TabletId) -> String {
    let (_, view, schema) = world.node.applied(tablet).unwrap();
    let all = RowRange::default();
    let (rows, _) = view.scan(&all, &ReadOptions::default(), &schema, Timestamp(0), 99, usize::MAX).unwrap();
    rows.iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap() + " ").collect()
}
