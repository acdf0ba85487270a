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
