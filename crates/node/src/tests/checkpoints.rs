//! Orders about checkpoints.

use super::*;
use disk::Below;
use model::checkpoint::{Checkpoint, CheckpointAnswer, CheckpointId, CheckpointOrder, Held, Part, TableCopy};
use store::checkpoint;

const ID: CheckpointId = CheckpointId(5);

fn order(world: &mut World, order: CheckpointOrder) {
    world.tickets += 1;
    world.step(Input::Checkpoint(Ticket(world.tickets), order));
}

/// The answer, which is there at once.
fn obey(world: &mut World, what: CheckpointOrder) -> Result<CheckpointAnswer, Refusal> {
    order(world, what);
    let (ticket, answer) = world.checkpoints.pop().expect("there is an answer");
    assert_eq!((ticket, world.checkpoints.len()), (Ticket(world.tickets), 0), "and only one");
    answer
}

fn add(world: &mut World, name: &str) -> Result<Part, Refusal> {
    match obey(world, CheckpointOrder::Add { name: name.into(), id: ID, tablet: TABLET })? {
        CheckpointAnswer::Added(part) => Ok(*part),
        other => panic!("{other:?}"),
    }
}

fn held(world: &mut World) -> Vec<Held> {
    match obey(world, CheckpointOrder::List { name: None }) {
        Ok(CheckpointAnswer::Held(held)) => held,
        other => panic!("{other:?}"),
    }
}

fn whole(part: &Part) -> Checkpoint {
    let tables = vec![TableCopy { schema: part.schema.clone(), tablets: vec![part.copy.clone()] }];
    Checkpoint { name: part.name.clone(), id: part.id, begun: Timestamp(1), tables }
}

/// The rows of the part, read without the node.
fn rows(world: &World, part: &Part) -> Vec<String> {
    let disk: Arc<dyn Disk> = Arc::new(world.disk.clone());
    let below: Arc<dyn Disk> = Arc::new(Below::new(disk, &format!("checkpoints/{}", part.name)).unwrap());
    let view = checkpoint::copy::open(&below, part).unwrap();
    let all = view.scan(&RowRange::default(), &ReadOptions::default(), &part.schema, Timestamp(0), 100, 1 << 20);
    all.unwrap().0.into_iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect()
}

/// What was acknowledged before the order came is in it, and nothing that came after.
#[test]
fn a_part_has_what_was_acknowledged() {
    let mut world = World::new();
    world.put("LAX", "info", "note", "1").unwrap();
    world.put("SFO", "info", "note", "2").unwrap();
    let part = add(&mut world, "monday").unwrap();
    world.put("JFK", "info", "note", "3").unwrap();
    world.flush();
    assert_eq!(rows(&world, &part), ["LAX", "SFO"]);
    assert_eq!((part.copy.node, part.copy.epoch, part.copy.upto.0 >= 2), (ME, Epoch(1), true));
    assert_eq!(world.node.checkpoints().0, 0, "it does not count yet");
    assert_eq!(world.events("checkpoint_made"), Vec::<&str>::new());

    assert_eq!(obey(&mut world, CheckpointOrder::Seal(whole(&part))), Ok(CheckpointAnswer::Done));
    assert_eq!(world.events("checkpoint_made").len(), 1);
    assert_eq!(world.node.checkpoints(), (1, part.copy.bytes));
    world.restart();
    assert_eq!(world.node.checkpoints(), (1, part.copy.bytes));
    let there = held(&mut world);
    assert_eq!((there[0].sealed.as_ref(), &there[0].tablets[..]), (Some(&whole(&part)), &[TABLET][..]));
    assert_eq!(rows(&world, &part), ["LAX", "SFO"]);
}

/// A flush that is under way when the order comes may have begun before the last write.
#[test]
fn a_part_waits_for_as_many_flushes_as_it_takes() {
    let mut world = World::new();
    world.put("LAX", "info", "note", "1").unwrap();
    world.hold_jobs = true;
    world.step(Input::LogBytes(u64::MAX));
    world.step(Input::LogBytes(0));
    world.put("SFO", "info", "note", "2").unwrap();
    order(&mut world, CheckpointOrder::Add { name: "monday".into(), id: ID, tablet: TABLET });
    assert_eq!(world.held.len(), 1, "the flush is under way");
    world.hold_jobs = false;
    for (id, job) in std::mem::take(&mut world.held) {
        let done = world.hands.keeper.run(job);
        world.step(Input::JobDone(id, done));
    }
    let Some((_, Ok(CheckpointAnswer::Added(part)))) = world.checkpoints.pop() else { panic!("{:?}", world.events) };
    assert_eq!(rows(&world, &part), ["LAX", "SFO"]);
}

#[test]
fn a_checkpoint_is_removed_as_a_whole() {
    let mut world = World::new();
    world.put("LAX", "info", "note", "1").unwrap();
    let part = add(&mut world, "monday").unwrap();
    obey(&mut world, CheckpointOrder::Seal(whole(&part))).unwrap();
    let remove = |name: &str, id| CheckpointOrder::Remove { name: name.into(), id };
    assert_eq!(obey(&mut world, remove("monday", Some(CheckpointId(6)))), Ok(CheckpointAnswer::Removed(false)));
    assert_eq!(obey(&mut world, remove("monday", None)), Ok(CheckpointAnswer::Removed(true)));
    assert_eq!(obey(&mut world, remove("monday", None)), Ok(CheckpointAnswer::Removed(false)));
    assert_eq!((held(&mut world), world.node.checkpoints()), (vec![], (0, 0)));
    assert_eq!(world.events("checkpoint_removed"), ["monday"]);
    assert_eq!(world.get("LAX"), Ok(vec![("note".into(), "1".into())]));
}

#[test]
fn who_cannot_make_a_part_says_why() {
    let mut world = World::new();
    world.put("LAX", "info", "note", "1").unwrap();
    assert!(matches!(add(&mut world, "../monday"), Err(Refusal::Invalid(_))));
    let other = CheckpointOrder::Add { name: "monday".into(), id: ID, tablet: TabletId(8) };
    assert_eq!(obey(&mut world, other), Err(Refusal::NoSuchTablet(TabletId(8))));
    add(&mut world, "monday").unwrap();
    let again = CheckpointOrder::Add { name: "monday".into(), id: CheckpointId(6), tablet: TABLET };
    assert!(matches!(obey(&mut world, again), Err(Refusal::Exists(_))), "it is another checkpoint of that name");
    add(&mut world, "monday").expect("the same one may be asked again");
    world.step(Input::Room(false));
    assert_eq!(add(&mut world, "tuesday"), Err(Refusal::DiskFull(ME)));
    world.step(Input::Room(true));
    world.assign(Configuration { epoch: Epoch(2), primary: NodeId(2), secondaries: vec![ME] });
    assert!(matches!(add(&mut world, "tuesday"), Err(Refusal::WrongEpoch { .. })));
}

/// Whoever waits for a flush hears when it does not come: the disk is full, or the tablet is somebody else's now.
#[test]
fn nobody_waits_for_a_part_for_ever() {
    let mut world = World::new();
    world.put("LAX", "info", "note", "1").unwrap();
    world.disk.set_capacity(Some(world.disk.used()));
    assert_eq!(add(&mut world, "monday"), Err(Refusal::DiskFull(ME)));
    world.disk.set_capacity(None);
    world.now = world.now + std::time::Duration::from_secs(60);
    world.welcome();
    world.step(Input::Tick);

    world.put("LAX", "info", "note", "2").unwrap();
    world.hold_jobs = true;
    order(&mut world, CheckpointOrder::Add { name: "monday".into(), id: ID, tablet: TABLET });
    assert_eq!((world.held.len(), world.checkpoints.len()), (1, 0));
    world.assign(Configuration { epoch: Epoch(2), primary: NodeId(2), secondaries: vec![ME] });
    world.now = world.now + std::time::Duration::from_secs(1);
    world.step(Input::Tick);
    assert_eq!(world.checkpoints.pop().map(|(_, answer)| answer), Some(Err(Refusal::NotReady(TABLET))));
    world.hold_jobs = false;
    for (id, job) in std::mem::take(&mut world.held) {
        let done = world.hands.keeper.run(job);
        world.step(Input::JobDone(id, done));
    }
    assert_eq!(held(&mut world), vec![]);
}

/// A tablet that is made of another one shares its tables, until it has some of its own.
#[test]
fn an_heir_has_a_part_of_its_own() {
    let mut world = World::range();
    for row in ["a", "b", "m", "n"] {
        world.put(row, "info", "note", row).unwrap();
    }
    world.flush();
    world.put("z", "info", "note", "z").unwrap();
    world.hold_jobs = true;
    world.wish(1, Some("m"));
    world.hold_jobs = false;
    for (id, job) in std::mem::take(&mut world.held) {
        let done = world.hands.keeper.run(job);
        world.step(Input::JobDone(id, done));
    }
    let mut parts = Vec::new();
    for tablet in [splits::LEFT, splits::RIGHT] {
        let what = CheckpointOrder::Add { name: "monday".into(), id: ID, tablet };
        let Ok(CheckpointAnswer::Added(part)) = obey(&mut world, what) else { panic!() };
        parts.push(part);
    }
    assert_eq!((rows(&world, &parts[0]).concat(), rows(&world, &parts[1]).concat()), ("ab".into(), "mnz".into()));
    let gone = CheckpointOrder::Add { name: "monday".into(), id: ID, tablet: TABLET };
    assert!(matches!(obey(&mut world, gone), Err(Refusal::Moved { .. } | Refusal::NoSuchTablet(_))));
}
