//! Pages in reverse, and versions of some time.

use super::*;

fn scan(range: RowRange, rows: u32, reverse: bool) -> Operation {
    Operation::Scan { range, options: ReadOptions::default(), rows, reverse }
}

fn page(world: &mut World, operation: Operation) -> (String, Option<Bytes>) {
    let Ok(Reply::Rows { rows, resume, .. }) = world.operate(operation) else { panic!("no page") };
    (rows.iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect(), resume)
}

/// In reverse a page begins with the last row, and says before which row the next one begins.
#[test]
fn a_scan_goes_back_page_by_page() {
    let mut world = World::new();
    for row in ["a", "b", "c", "d", "e"] {
        world.put(row, "info", "note", row).unwrap();
        if row == "c" {
            world.flush();
        }
    }
    let mut rest = RowRange::default();
    for (rows, more) in [("ed", true), ("cb", true), ("a", false)] {
        let (found, resume) = page(&mut world, scan(rest.clone(), 2, true));
        assert_eq!((found.as_str(), resume.is_some()), (rows, more));
        rest.end = resume;
    }
    let some = RowRange { start: Bytes::from_static(b"b"), end: Some(Bytes::from_static(b"d")) };
    assert_eq!(page(&mut world, scan(some.clone(), 9, true)), ("cb".into(), None));
    assert_eq!(page(&mut world, scan(some, 9, false)), ("bc".into(), None));
    assert_eq!(page(&mut world, scan(RowRange::prefix(b"x"), 9, true)), (String::new(), None));
}

/// A page is bounded by its bytes, in both directions.
#[test]
fn large_rows_make_short_pages() {
    let mut world = World::new();
    let value = "x".repeat(700 << 10);
    for row in ["a", "b", "c"] {
        world.put(row, "info", "note", &value).unwrap();
    }
    let (forth, resume) = page(&mut world, scan(RowRange::default(), 9, false));
    assert!(forth.len() < 3 && resume.is_some(), "{forth}");
    let (back, resume) = page(&mut world, scan(RowRange::default(), 9, true));
    assert_eq!((back.as_str(), resume.as_deref()), ("cb", Some(&b"b"[..])), "a page ends with the row that fills it");
}

/// Bigtable 2: clients may ask for versions of some time; those are counted, and rows without any are left out.
#[test]
fn versions_of_some_time() {
    let mut world = World::new();
    for (row, value) in [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")] {
        world.put(row, "info", "note", value).unwrap();
    }
    let stamp = |world: &mut World, at: usize| {
        let options = ReadOptions { versions: 9, ..ReadOptions::default() };
        let operation = Operation::Get { row: Bytes::from_static(b"a"), options };
        let Ok(Reply::Row(Some(row), ..)) = world.operate(operation) else { panic!("no row") };
        row.cells[at].timestamp
    };
    let (first, second, last) = (stamp(&mut world, 2), stamp(&mut world, 1), stamp(&mut world, 0));
    let mut read = |since, before, versions| {
        let options = ReadOptions { since, before, versions, ..ReadOptions::default() };
        let operation = Operation::Scan { range: RowRange::default(), options, rows: 9, reverse: false };
        let Ok(Reply::Rows { rows, .. }) = world.operate(operation) else { panic!("no page") };
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let cells = |row: &model::Row| row.cells.iter().map(|cell| text(&cell.value)).collect::<String>();
        rows.iter().map(|row| format!("{}{}", text(&row.key), cells(row))).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(read(None, None, 9), "a421 b3");
    assert_eq!(read(None, Some(last), 1), "a2 b3", "the newest one before");
    assert_eq!(read(None, Some(last), 9), "a21 b3");
    assert_eq!(read(Some(second), None, 9), "a42 b3");
    assert_eq!(read(Some(first), Some(second), 9), "a1");
    assert_eq!(read(Some(last), Some(last), 9), "");
}

/// Whoever may read one family sees a table with that one: in reads, in conditions, and nowhere anything of the others.
#[test]
fn somebody_who_may_not_do_everything_is_confined() {
    let mut world = World::empty();
    world.schema.families.push(model::Family {
        id: model::FamilyId(9),
        name: "secret".into(),
        ..world.schema.families[0].clone()
    });
    world.schema.next_family = model::FamilyId(10);
    world.assign(Configuration::first(ME, []));
    let open = world.schema.families[0].name.clone();
    let put = |family: &str, value: &'static str| Change::Put {
        family: family.into(),
        qualifier: Bytes::from_static(b"q"),
        timestamp: Timestamp(5),
        value: Bytes::from_static(value.as_bytes()),
    };
    let write = |sequence, changes, condition| Operation::Write {
        request: RequestId { client: model::ClientId(77), sequence, first_incomplete: sequence },
        mutation: Mutation { row: Bytes::from_static(b"r"), condition, changes },
    };
    world.operate(write(1, vec![put(&open, "seen"), put("secret", "unseen")], None)).unwrap();
    let grant = |text: &str, scope: String| model::access::Grant {
        right: text.parse().unwrap(),
        scope: scope.parse().unwrap(),
    };
    let table = world.schema.name.clone();
    let rights = model::Rights { grants: vec![grant("read", format!("{table}:{open}"))] };
    let by = Some(Arc::new(rights));
    let mut ask = |operation| {
        let request = Request { tablet: TABLET, epoch: Epoch(1), operation, by: by.clone() };
        world.ask(request)
    };
    let cells = |reply: Result<Reply, Refusal>| match reply.unwrap() {
        Reply::Row(row, ..) => row.map_or(0, |row| row.cells.len()),
        Reply::Rows { rows, .. } => rows.iter().map(|row| row.cells.len()).sum(),
        Reply::Many(rows, ..) => rows.into_iter().flatten().map(|row| row.cells.len()).sum(),
        other => panic!("{other:?}"),
    };
    let named = |family: &str| ReadOptions {
        columns: vec![model::ColumnFilter { family: family.into(), qualifier: None }],
        ..ReadOptions::default()
    };
    let row = || Bytes::from_static(b"r");
    let scan = |options| Operation::Scan { range: model::RowRange::default(), options, rows: 9, reverse: false };
    for options in [ReadOptions::default(), named(&open)] {
        assert_eq!(cells(ask(Operation::Get { row: row(), options: options.clone() })), 1);
        assert_eq!(cells(ask(Operation::GetMany { rows: vec![row()], options: options.clone() })), 1);
        assert_eq!(cells(ask(scan(options))), 1);
    }
    let no = |what: &str| Err(Refusal::Forbidden(what.into()));
    let secret = format!("read on {table}:secret");
    assert_eq!(ask(Operation::Get { row: row(), options: named("secret") }), no(&secret));
    assert_eq!(ask(scan(named("secret"))), no(&secret));
    assert_eq!(ask(write(2, vec![put(&open, "x")], None)), no(&format!("write on {table}:{open}")));
    assert_eq!(ask(write(3, vec![Change::DeleteRow], None)), no(&format!("write on {table}")));
    let guess = Condition::Newest {
        family: "secret".into(),
        qualifier: Bytes::from_static(b"q"),
        expect: Some(Bytes::from_static(b"unseen")),
    };
    assert_eq!(ask(write(4, vec![], Some(guess))), no(&secret), "a condition would tell");
}
