//! Many rows in one entry.

use super::splits::{LEFT, RIGHT};
use super::*;
use model::RowChanges;

/// One version for all rows, and a row that comes twice is what it was made to be last.
#[test]
fn a_batch_is_one_entry() {
    let mut world = World::new();
    world.put("LAX", "info", "note", "old").unwrap();
    let (before, _, _) = world.node.applied(TABLET).unwrap();
    let answer = world.write_many(request(5, 1), &[("LAX", "1"), ("SFO", "2"), ("ATL", "3"), ("LAX", "4")]);
    let Ok(Reply::Written(Outcome::Applied { version })) = answer else { panic!("{answer:?}") };
    assert_eq!(version, Timestamp(1_001), "later than that of the put in the same moment");
    assert_eq!(world.node.applied(TABLET).unwrap().0, before.next());
    assert_eq!(world.notes(&["ATL", "LAX", "SFO"]), "3 4 2");
}

/// RIFL 2, and decision 0014: it is carried out once, whatever was asked for since, and also after a restart.
#[test]
fn a_repeated_batch_changes_nothing() {
    let mut world = World::new();
    let rows = [("LAX", "1"), ("SFO", "2")];
    let answer = world.write_many(request(5, 1), &rows);
    world.put("SFO", "info", "note", "newer").unwrap();
    let (before, _, _) = world.node.applied(TABLET).unwrap();
    assert_eq!(world.write_many(request(5, 1), &rows), answer);
    assert_eq!(world.node.applied(TABLET).unwrap().0, before, "it does not even go through the log again");
    world.restart();
    world.assign(Configuration { epoch: Epoch(2), primary: ME, secondaries: vec![] });
    assert_eq!(world.write_many(request(5, 1), &rows), answer);
    assert_eq!(world.notes(&["LAX", "SFO"]), "1 newer");
    world.write_many(request(5, 2), &[("SFO", "newest")]).unwrap();
    assert_eq!(world.notes(&["SFO"]), "newest", "versions go on rising");
}

/// What is wrong with one row is wrong with all of them.
#[test]
fn a_batch_with_a_bad_row_changes_nothing() {
    let mut world = World::range();
    ["a", "z"].iter().for_each(|row| _ = world.put(row, "info", "note", "old").unwrap());
    world.wish(1, Some("m"));
    let mut ask = |tablet, rows: &[(&str, &str)], family: &str| {
        let mut rows = changes(rows);
        if let Some(last) = rows.last_mut() {
            last.changes = put("", family, "note", "x").changes;
        }
        let answer = world.operate_on(tablet, Operation::WriteMany { request: request(5, 1), part_of: vec![], rows });
        assert_eq!(world.read(LEFT, "a").unwrap() == "old", answer.is_err());
        answer.map(|_| ())
    };
    assert_eq!(ask(LEFT, &[("a", "1"), ("z", "1")], "info"), Err(Refusal::NoSuchTablet(LEFT)), "the other heir has it");
    assert!(matches!(ask(LEFT, &[("a", "1"), ("b", "1")], "nope"), Err(Refusal::NoSuchFamily { .. })));
    let mut invalid = |rows: &[(&str, &str)]| match ask(LEFT, rows, "info") {
        Err(Refusal::Invalid(what)) => what,
        answer => panic!("{answer:?}"),
    };
    assert!(invalid(&[("a", "1"), ("", "1")]).starts_with("row 2 of the batch"));
    assert!(invalid(&[]).contains("no row"));
    assert!(invalid(&vec![("a", "1"); model::limits::BATCH_ROWS + 1]).contains("10001 rows; the limit is 10000"));
    let large = "x".repeat(model::limits::BATCH / 2);
    assert!(invalid(&[("a", &large), ("b", &large), ("c", "")]).contains("the limit is 1048576"));
    assert!(matches!(ask(TABLET, &[("a", "1")], "info"), Err(Refusal::Moved { .. })));
    assert_eq!(ask(LEFT, &[("a", "1"), ("b", "1")], "info"), Ok(()));
}

/// Decision 0014: whoever does not know whether a batch was carried out before its tablet was split asks both heirs for
/// their parts of it.
#[test]
fn the_parts_of_a_batch_are_what_it_was() {
    for carried_out in [true, false] {
        let mut world = World::range();
        world.put("z", "info", "note", "old").unwrap();
        if carried_out {
            world.write_many(request(5, 1), &[("a", "1"), ("z", "2")]).unwrap();
            world.put("z", "info", "note", "newer").unwrap();
        }
        world.wish(1, Some("m"));
        let mut part = |tablet, sequence, rows: &[(&str, &str)]| {
            let request = RequestId { sequence, ..request(5, 1) };
            world.operate_on(tablet, Operation::WriteMany { request, part_of: vec![1], rows: changes(rows) }).unwrap()
        };
        let first = part(LEFT, 2, &[("a", "1")]);
        assert_eq!(part(LEFT, 2, &[("a", "1")]), first);
        part(RIGHT, 3, &[("z", "2")]);
        let expected = if carried_out { "newer" } else { "2" };
        assert_eq!((world.read(LEFT, "a"), world.read(RIGHT, "z")), (Ok("1".into()), Ok(expected.into())));
    }
}

/// A condition sees the batches before it, also one that comes while a file is read for it.
#[test]
fn a_condition_sees_a_batch_that_comes_while_it_is_judged() {
    let mut world = World::new();
    world.put("LAX", "info", "note", "1").unwrap();
    world.flush();
    let cput = Operation::Write { request: request(6, 1), mutation: conditional("LAX", Some("1"), "by condition") };
    let mut out = Vec::new();
    let request = Request { tablet: TABLET, epoch: Epoch(1), operation: cput, by: None };
    world.node.step(world.now, Input::Request { ticket: Ticket(901), wall: Timestamp(2_000), request }, &mut out);
    let Some(Effect::Read(id, read)) = out.pop() else { panic!("{out:?}") };
    let found = read.run();
    world.write_many(super::request(7, 1), &[("LAX", "2"), ("SFO", "2")]).unwrap();
    world.step(Input::ReadDone(id, found));
    let Some((Ticket(901), Ok(Reply::Written(Outcome::Differs { present })))) = world.answers.pop() else { panic!() };
    assert_eq!(present.unwrap().value, "2");
    assert_eq!(world.notes(&["LAX", "SFO"]), "2 2");
}

/// A split by load looks at rows, however they come.
#[test]
fn every_row_of_a_batch_counts_as_a_request() {
    let mut world = World::new();
    let rows: Vec<(String, String)> = (0..500).map(|n| (format!("{n:03}"), String::from("1"))).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(row, value)| (&row[..], &value[..])).collect();
    for sequence in 1..=20 {
        world.write_many(request(5, sequence), &rows).unwrap();
    }
    world.now = world.now + std::time::Duration::from_secs(5);
    let hosted = &world.node.hosted[&TABLET];
    assert_eq!(hosted.load.per_second(world.now), 1_000, "of 10 000 in a window of five seconds half");
}

fn changes(rows: &[(&str, &str)]) -> Vec<RowChanges<String>> {
    let row = |(row, value): &(&str, &str)| {
        let Mutation { row, changes, .. } = put(row, "info", "note", value);
        RowChanges { row, changes }
    };
    rows.iter().map(row).collect()
}

impl World {
    fn write_many(&mut self, request: RequestId, rows: &[(&str, &str)]) -> Result<Reply, Refusal> {
        self.operate(Operation::WriteMany { request, part_of: vec![], rows: changes(rows) })
    }

    fn notes(&mut self, rows: &[&str]) -> String {
        let notes = rows.iter().map(|row| self.get(row).unwrap().pop().map_or(String::new(), |(_, value)| value));
        notes.collect::<Vec<_>>().join(" ")
    }
}
