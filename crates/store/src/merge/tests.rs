//! The rules, told through a tablet in memory; [`crate::keeper`] tests that tables change nothing.

use std::time::Duration;

use model::random::Random;
use model::{Cell, Change, Family, FamilyId, Partition, ReadOptions, Retention, Schema, TableId, TabletId, Timestamp};

use super::*;
use crate::key::Seq;
use crate::tablet::Tablet;

const NOW: Timestamp = Timestamp(1_000_000_000);

/// papers-storage 1.1: "a tombstone covers cells whose sn is smaller than the tombstone's": a later put with an older
/// version is seen.
#[test]
fn a_deletion_covers_only_what_was_there() {
    for deletion in [Change::DeleteRow, Change::DeleteFamily { family: KEEP }, delete_column(KEEP)] {
        let mut tablet = Tablet::new(TabletId(1));
        apply(&mut tablet, &[put(KEEP, 5, "before")]);
        apply(&mut tablet, &[deletion]);
        assert_eq!(read(&tablet, 9), "");
        apply(&mut tablet, &[put(KEEP, 3, "after")]);
        assert_eq!(read(&tablet, 9), "after");
    }
}

/// Changes of one mutation apply in order: a later one sees the earlier ones.
#[test]
fn order_counts_within_a_mutation() {
    let mut tablet = Tablet::new(TabletId(1));
    apply(&mut tablet, &[put(KEEP, 5, "a"), Change::DeleteRow, put(KEEP, 5, "b"), put(KEEP, 6, "c")]);
    assert_eq!(read(&tablet, 9), "c b");
    apply(&mut tablet, &[put(KEEP, 7, "d"), delete_column(KEEP)]);
    assert_eq!(read(&tablet, 9), "");
}

/// papers-storage 1.1, rule 1: of the same version the last applied counts.
#[test]
fn the_same_version_is_replaced() {
    let mut tablet = Tablet::new(TabletId(1));
    apply(&mut tablet, &[put(KEEP, 5, "a")]);
    apply(&mut tablet, &[put(KEEP, 5, "b")]);
    assert_eq!(read(&tablet, 9), "b");
    apply(&mut tablet, &[delete_cell(KEEP, 5)]);
    assert_eq!(read(&tablet, 9), "");
    apply(&mut tablet, &[put(KEEP, 5, "c")]);
    assert_eq!(read(&tablet, 9), "c");
}

/// papers-storage 1.1, rule 3: results never depend on when compaction comes.
#[test]
fn retention_holds_at_once() {
    let mut tablet = Tablet::new(TabletId(1));
    for version in 1..=5 {
        apply(&mut tablet, &[put(TWO, version, "v"), put(YOUNG, NOW.0 - 1_000_000 * version, "y")]);
    }
    let row = tablet.view().row(b"r", &options(9), &schema(), NOW).unwrap().unwrap();
    let versions: Vec<_> = row.cells.iter().map(|cell| (cell.family, cell.timestamp.0)).collect();
    assert_eq!(versions, [(TWO, 5), (TWO, 4), (YOUNG, NOW.0 - 1_000_000), (YOUNG, NOW.0 - 2_000_000)]);
}

#[test]
fn a_reader_gets_as_many_versions_as_it_asks_for() {
    let mut tablet = Tablet::new(TabletId(1));
    apply(&mut tablet, &[put(KEEP, 1, "a"), put(KEEP, 2, "b"), put(KEEP, 3, "c"), delete_cell(KEEP, 3)]);
    assert_eq!(read(&tablet, 1), "b");
    assert_eq!(read(&tablet, 2), "b a");
}

/// Retention counts all versions, a reader only those of the time it asks for.
#[test]
fn a_reader_may_ask_for_a_time() {
    let mut tablet = Tablet::new(TabletId(1));
    for version in 1..=5 {
        apply(&mut tablet, &[put(KEEP, version, "v"), put(TWO, version, "v")]);
    }
    let seen = |since: Option<i64>, before: Option<i64>, versions| {
        let (since, before) = (since.map(Timestamp), before.map(Timestamp));
        let options = ReadOptions { since, before, versions, ..ReadOptions::default() };
        let row = tablet.view().row(b"r", &options, &schema(), NOW).unwrap();
        let version = |cell: &Cell| (cell.family.0, cell.timestamp.0);
        row.map(|row| row.cells.iter().map(version).collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!(seen(None, None, 1), [(1, 5), (2, 5)]);
    assert_eq!(seen(Some(4), None, 9), [(1, 5), (1, 4), (2, 5), (2, 4)]);
    assert_eq!(seen(Some(2), Some(5), 1), [(1, 4), (2, 4)]);
    assert_eq!(seen(Some(2), Some(5), 2), [(1, 4), (1, 3), (2, 4)]);
    assert_eq!(seen(None, Some(4), 9), [(1, 3), (1, 2), (1, 1)]);
    assert_eq!(seen(Some(6), None, 9), []);
}

/// A dropped family is gone; one that this node has not heard of yet is not.
#[test]
fn families_are_those_of_the_schema_and_those_to_come() {
    let mut tablet = Tablet::new(TabletId(1));
    apply(&mut tablet, &[put(DROPPED, 1, "dropped"), put(FamilyId(9), 1, "to come")]);
    assert_eq!(read(&tablet, 1), "to come");
}

#[test]
fn columns_may_be_chosen() {
    let mut tablet = Tablet::new(TabletId(1));
    let other = Change::Put { family: KEEP, qualifier: Bytes::from_static(b"p"), timestamp: NOW, value: Bytes::new() };
    apply(&mut tablet, &[put(KEEP, 1, "a"), put(TWO, 1, "b"), other]);
    let column = |family, qualifier| model::ColumnFilter { family, qualifier };
    let seen = |columns| {
        let options = ReadOptions { columns, ..ReadOptions::default() };
        tablet.view().row(b"r", &options, &schema(), NOW).unwrap().map_or(0, |row| row.cells.len())
    };
    assert_eq!(seen(vec![]), 3);
    assert_eq!(seen(vec![column(KEEP, None)]), 2);
    assert_eq!(seen(vec![column(KEEP, Some(Bytes::from_static(b"q"))), column(TWO, None)]), 2);
    assert_eq!(seen(vec![column(TWO, Some(Bytes::new()))]), 0);
}

/// A merge that does not begin with the oldest table must leave behind what older ones need.
#[test]
fn what_retention_gave_up_hides_what_is_older_still() {
    let schema = schema();
    let mut sieve = Sieve::new(&schema, NOW);
    let mut fates = Vec::new();
    let mut keys: Vec<_> = [put(TWO, 3, ""), put(TWO, 2, ""), put(TWO, 1, ""), put(TWO, 1, ""), delete_cell(TWO, 0)]
        .iter()
        .zip((1..10).rev())
        .map(|(change, lsn)| crate::key::of_change(b"r", change, Seq(Lsn(lsn), 0), NOW))
        .collect();
    keys.sort();
    for key in &keys {
        fates.push(sieve.judge(&Parts::parse(key).unwrap()));
    }
    assert_eq!(fates, [Fate::Lives, Fate::Lives, Fate::GivenUp, Fate::Gone, Fate::Deletes]);
}

#[test]
fn a_scan_stops_where_it_is_told_and_says_where_to_go_on() {
    let mut tablet = Tablet::new(TabletId(1));
    for row in ["a", "b\0", "b\0x", "c", "d"] {
        let lsn = tablet.applied().next();
        tablet.apply(lsn, &Bytes::from_static(row.as_bytes()), &[put(KEEP, 1, "v")], NOW);
    }
    let lsn = tablet.applied().next();
    tablet.apply(lsn, &Bytes::from_static(b"c"), &[Change::DeleteRow], NOW);
    let scan = |start: &'static str, end: Option<&'static str>, rows, bytes| {
        let bound = |key: &'static str| Bytes::from_static(key.as_bytes());
        let range = model::RowRange { start: bound(start), end: end.map(bound) };
        let (rows, resume) = tablet.view().scan(&range, &options(1), &schema(), NOW, rows, bytes).unwrap();
        let text = |key: Bytes| String::from_utf8(key.to_vec()).unwrap();
        (rows.into_iter().map(|row| text(row.key)).collect::<Vec<_>>().join(" "), resume.map(text))
    };
    let all = usize::MAX;
    assert_eq!(scan("", None, 9, all), ("a b\0 b\0x d".into(), None));
    assert_eq!(scan("", None, 2, all), ("a b\0".into(), Some("b\0x".into())));
    assert_eq!(scan("b\0x", None, 9, all), ("b\0x d".into(), None));
    assert_eq!(scan("a\0", Some("b\0x"), 9, all), ("b\0".into(), None));
    assert_eq!(scan("", None, 9, 0), ("a".into(), Some("b\0".into())));
    assert_eq!(scan("b\0x", None, 1, all), ("b\0x".into(), Some("c".into())));
    assert_eq!(scan("c", None, 1, all), ("d".into(), None));
    assert_eq!(scan("e", None, 1, all), ("".into(), None));
    assert_eq!(scan("c", Some("a"), 1, all), ("".into(), None));
}

/// Of few sources or many, which may have the same keys: one sorted sequence, either way.
#[test]
fn many_sources_are_one_sequence() {
    let mut random = Random::new(5);
    for count in [1, 2, 3, 8, 50] {
        let memtables: Vec<Arc<Memtable>> = (0..count).map(|_| Arc::default()).collect();
        let mut all = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let (lsn, row) = (Lsn(random.between(1, 1000)), random.below(300).to_be_bytes());
            // The deletion of a row lies in several tables.
            for _ in 0..random.between(1, 4) {
                random.pick(&memtables).unwrap().apply(lsn, &row, &[Change::DeleteRow], NOW);
            }
            all.insert(crate::key::of_change(&row, &Change::DeleteRow, Seq(lsn, 0), NOW));
        }
        let mut merge = Merge::default();
        memtables.iter().for_each(|memtable| merge.push_memtable(Arc::clone(memtable), Lsn(1000)));
        let walk = |merge: &mut Merge| {
            let mut keys = Vec::new();
            while let Some(key) = merge.key().map(Bytes::copy_from_slice) {
                keys.push(key);
                merge.advance().unwrap();
            }
            keys
        };
        merge.place(&[], None, |_| true).unwrap();
        assert!(walk(&mut merge).iter().eq(&all));
        merge.place_before(None, &[]).unwrap();
        assert!(walk(&mut merge).iter().eq(all.iter().rev()));
        for _ in 0..200 {
            let [low, middle] =
                [(); 2].map(|()| random.below(300).to_be_bytes()).map(|row| crate::key::row_start(&row));
            let (low, middle) = (low.clone().min(middle.clone()), low.max(middle));
            let steps = random.below(4);
            merge.place(&low, None, |_| true).unwrap();
            (0..steps).for_each(|_| merge.advance().unwrap());
            let past = all.range(Bytes::from(low.clone())..).nth(steps as usize).cloned();
            merge.seek(&middle).unwrap();
            let next = past.and_then(|past| all.range(past.max(Bytes::from(middle.clone()))..).next());
            assert_eq!(merge.key(), next.map(|key| &key[..]));
            merge.place_before(Some(&middle), &[]).unwrap();
            merge.seek_back(&low).unwrap();
            let last = all.range(..Bytes::from(low)).next_back();
            assert_eq!(merge.key(), last.map(|key| &key[..]));
        }
    }
}

const KEEP: FamilyId = FamilyId(1);
const TWO: FamilyId = FamilyId(2);
const YOUNG: FamilyId = FamilyId(3);
const DROPPED: FamilyId = FamilyId(4);

fn schema() -> Schema {
    let family = |id, retention| Family {
        id,
        name: id.to_string(),
        retention,
        loosened: false,
        locality: model::LocalityId(0),
        aggregate: None,
    };
    Schema {
        table: TableId(1),
        name: "t".into(),
        version: 1,
        families: vec![
            family(KEEP, Retention::Keep),
            family(TWO, Retention::Versions(2)),
            family(YOUNG, Retention::Age(Duration::from_millis(2500))),
        ],
        next_family: FamilyId(5),
        partition: Partition::Hash { tablets: 1 },
        replicas: 1,
        min_replicas: 1,
        storage: model::Storage::default(),
        settings: model::Settings::default(),
    }
}

fn put(family: FamilyId, version: i64, value: &'static str) -> Change {
    let value = Bytes::from_static(value.as_bytes());
    Change::Put { family, qualifier: Bytes::from_static(b"q"), timestamp: Timestamp(version), value }
}

fn delete_cell(family: FamilyId, version: i64) -> Change {
    Change::DeleteCell { family, qualifier: Bytes::from_static(b"q"), timestamp: Timestamp(version) }
}

fn delete_column(family: FamilyId) -> Change {
    Change::DeleteColumn { family, qualifier: Bytes::from_static(b"q") }
}

fn apply(tablet: &mut Tablet, changes: &[Change]) {
    tablet.apply(tablet.applied().next(), &Bytes::from_static(b"r"), changes, NOW);
}

fn options(versions: u32) -> ReadOptions {
    ReadOptions { versions, ..ReadOptions::default() }
}

fn read(tablet: &Tablet, versions: u32) -> String {
    let row = tablet.view().row(b"r", &options(versions), &schema(), NOW).unwrap();
    let text = |cell: Cell| String::from_utf8(cell.value.to_vec()).unwrap();
    row.map(|row| row.cells.into_iter().map(text).collect::<Vec<_>>().join(" ")).unwrap_or_default()
}
