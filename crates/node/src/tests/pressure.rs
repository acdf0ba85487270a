//! A tablet that is written faster than it gets to disk.

use super::*;
use std::time::Duration;

/// A tablet whose flush is under way and does not end, with a memtable that is too large.
fn pressed() -> World {
    let mut world = World::new();
    world.hold_jobs = true;
    world.node.options.flush.bytes = 64 << 10;
    let value = "x".repeat(8 << 10);
    for row in 0.. {
        if world.node.stalls(world.now).tablets > 0 {
            break;
        }
        let row = format!("row{row}");
        let request = request(9, world.tickets + 1);
        let outcome = send(&mut world, Operation::Write { request, mutation: put(&row, "info", "note", &value) });
        assert!(matches!(outcome, None | Some(Ok(_))), "{outcome:?}");
    }
    world
}

/// The answer, if there is one already.
fn send(world: &mut World, operation: Operation) -> Option<Result<Reply, Refusal>> {
    world.tickets += 1;
    let epoch = world.node.replica(TABLET).unwrap().epoch();
    let request = Request { tablet: TABLET, epoch, operation, by: None };
    world.step(Input::Request { ticket: Ticket(world.tickets), wall: Timestamp(1_000), request });
    world.answers.pop().map(|(_, answer)| answer)
}

fn write(world: &mut World, row: &str, value: &str) -> Option<Result<Reply, Refusal>> {
    let request = request(9, world.tickets + 1);
    send(world, Operation::Write { request, mutation: put(row, "info", "note", value) })
}

/// The flush ends, as its job says.
fn let_go(world: &mut World) {
    world.hold_jobs = false;
    let held = std::mem::take(&mut world.held);
    for (id, job) in held {
        let done = world.hands.keeper.run(job);
        world.step(Input::JobDone(id, done));
    }
}

fn weight(world: &World) -> usize {
    world.node.hosted[&TABLET].rows.weight()
}

/// The memtable is bounded, and what waited goes on when the flush is done.
#[test]
fn writes_wait_for_a_flush() {
    let mut world = pressed();
    let bound = (64 << 10) * 4 + (16 << 10);
    assert!(weight(&world) <= bound);
    let held = world.answers.len();
    for row in 0..9 {
        assert_eq!(write(&mut world, &format!("more{row}"), "1"), None, "it waits");
    }
    assert_eq!(write(&mut world, "more0", "2"), None, "and so does who comes later");
    assert!(world.get("row0").is_ok_and(|cells| cells.len() == 1), "reads go on");
    assert!(world.node.reports(world.now)[0].stalled);
    assert!(weight(&world) <= bound, "nothing that waits is in it");
    world.now = world.now + Duration::from_millis(100);
    let_go(&mut world);
    assert_eq!(world.answers.len(), held + 11, "the one that met the stall, and ten");
    assert!(world.answers.drain(..).all(|(_, answer)| matches!(answer, Ok(Reply::Written(_)))));
    assert_eq!(world.get("more0"), Ok(vec![("note".into(), "2".into())]), "in their order");
    let stalls = world.node.stalls(world.now);
    assert_eq!((stalls.count, stalls.tablets, stalls.time), (1, 0, Duration::from_millis(100)));
    assert!(!world.node.reports(world.now)[0].stalled);
    assert_eq!(world.events("writes_stalled").len(), 1);
    assert!(world.events("writes_resumed")[0].contains("11 writes had to wait, 0 were refused"));
}

/// Who has waited for long hears why, and may come again.
#[test]
fn writes_that_wait_for_long_are_refused() {
    let mut world = pressed();
    assert_eq!(write(&mut world, "more", "1"), None);
    let deadline = world.node.deadline().unwrap();
    world.now = world.now + Duration::from_millis(500);
    assert!(deadline <= world.now, "the host is told when to come again");
    world.step(Input::Tick);
    let refused = std::mem::take(&mut world.answers);
    assert_eq!(refused.len(), 2, "the one that met the stall, and this one");
    for (_, answer) in refused {
        let Err(refusal @ Refusal::Stalled { tablet: TABLET, .. }) = answer else { panic!("{answer:?}") };
        assert!(refusal.is_passing() && refusal.to_string().contains("its flush is under way"), "{refusal}");
    }
    let_go(&mut world);
    assert!(matches!(write(&mut world, "more", "2"), Some(Ok(Reply::Written(_)))));
    assert_eq!(world.node.stalls(world.now).time, Duration::from_millis(500));
}

/// Those that wait are few: the rest is refused at once.
#[test]
fn not_everybody_may_wait() {
    let mut world = pressed();
    let refused = (0..2_000).filter_map(|at| write(&mut world, &format!("more{at}"), "1")).count();
    assert!((1_000..2_000).contains(&refused), "{refused}");
    let_go(&mut world);
    assert_eq!(world.answers.len() + refused, 2_001);
}

/// A primary that is none any more has nothing to hold back: it says who is.
#[test]
fn who_waits_hears_of_a_new_primary() {
    let mut world = pressed();
    assert_eq!(write(&mut world, "more", "1"), None);
    world.assign(Configuration { epoch: Epoch(2), primary: NodeId(2), secondaries: vec![ME] });
    assert_eq!(world.node.stalls(world.now).tablets, 0);
    let answers = std::mem::take(&mut world.answers);
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|(_, answer)| matches!(answer, Err(Refusal::WrongEpoch { .. }))), "{answers:?}");
}
