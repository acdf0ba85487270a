//! Two tablets made of one: they share its files until merges take them apart.

use std::sync::Arc;

use disk::{Disk, MemDisk};
use model::{Bytes, Change, Family, FamilyId, Partition, ReadOptions, RowRange, Schema, TableId, Timestamp};

use super::*;
use crate::Keeper;

const PARENT: TabletId = TabletId(7);
const LEFT: TabletId = TabletId(8);
const RIGHT: TabletId = TabletId(9);
const HEIR: TabletId = TabletId(10);

/// A split copies nothing but what is in memory; each half is whole by itself, also after a restart, and in the end
/// nothing is left of the shared files.
#[test]
fn halves_share_files_until_merges_take_them_apart() {
    let disk = MemDisk::new();
    let (keeper, _) = Keeper::open(Arc::new(disk.clone()), Timestamp(0), Default::default()).unwrap();
    let mut parent = Tablet::new(PARENT);
    (0..40).for_each(|row| write(&mut parent, row, "old"));
    let job = parent.freeze(Bytes::new(), &schema());
    parent.install(keeper.run(job.unwrap()).unwrap());
    (0..40).step_by(2).for_each(|row| write(&mut parent, row, "new"));
    let (mut left, mut right) = (parent.split(LEFT, below("20")), parent.split(RIGHT, from("20")));
    assert_eq!((rows(&left), rows(&right)), (expected(0..20), expected(20..40)));
    assert_eq!(files(&disk), 1);
    assert!(left.choose_all(&schema()).is_none(), "an unsettled half has no manifest that a merge could change");

    // Later writes go on with the parent's numbers.
    write(&mut left, 0, "last");
    assert_eq!(left.applied(), parent.applied().next());
    for half in [&mut left, &mut right] {
        let job = half.freeze(Bytes::from_static(b"settled"), &schema());
        half.install(keeper.run(job.unwrap()).unwrap());
        assert!(!half.is_unsettled());
    }
    drop(parent);
    keeper.run(Job::Drop { tablet: PARENT, date: Timestamp(0) }).unwrap();
    keeper.sweep().unwrap();
    assert_eq!(files(&disk), 3, "the shared one and one for each");

    drop((left, right, keeper));
    disk.kill();
    let (keeper, mut tablets) = Keeper::open(Arc::new(disk.clone()), Timestamp(0), Default::default()).unwrap();
    let ((mut left, _), (mut right, note)) =
        (tablets.sound.remove(&LEFT).unwrap(), tablets.sound.remove(&RIGHT).unwrap());
    assert_eq!((&note[..], tablets.sound.len()), (&b"settled"[..], 0));
    left.set_bounds(below("20"));
    right.set_bounds(from("20"));
    assert_eq!(rows(&right), expected(20..40));
    let job = left.choose_all(&schema()).unwrap();
    left.install(keeper.run(job).unwrap());
    keeper.sweep().unwrap();
    assert_eq!(files(&disk), 3, "the right half still needs the shared file");
    // Not even if the right half is being dropped, until that is on the disk.
    drop(right);
    keeper.sweep().unwrap();
    assert_eq!(files(&disk), 3);
    keeper.run(Job::Drop { tablet: RIGHT, date: Timestamp(0) }).unwrap();
    keeper.sweep().unwrap();
    assert_eq!(files(&disk), 1);
    assert!(rows(&left).starts_with("00=last 01=old 02=new"), "{}", rows(&left));
}

/// A batch is one record: views see all of it or nothing, and a row that comes again sees what it did before.
#[test]
fn a_batch_is_seen_whole_and_in_its_order() {
    let mut tablet = Tablet::new(PARENT);
    write(&mut tablet, 1, "old");
    let before = tablet.view();
    let put = |row: &'static str, value: &'static str| RowChanges {
        row: Bytes::from_static(row.as_bytes()),
        changes: vec![Change::Put {
            family: FamilyId(1),
            qualifier: Bytes::new(),
            timestamp: Timestamp::SERVER,
            value: Bytes::from_static(value.as_bytes()),
        }],
    };
    let delete = RowChanges { row: Bytes::from_static(b"02"), changes: vec![Change::DeleteRow] };
    let batch = [put("03", "first"), put("01", "new"), put("02", "gone"), put("03", "last"), delete];
    let lsn = tablet.applied().next();
    tablet.apply_batch(lsn, &batch, Timestamp(50));
    assert_eq!((tablet.applied(), tablet.updates()), (lsn, 6));
    assert_eq!(rows(&tablet), "01=new 03=last");
    assert_eq!(rows_of(&before), "01=old");
}

/// A shared table of which most is another one's is merged by itself.
#[test]
fn a_half_gives_back_the_room_of_the_other() {
    let disk = MemDisk::new();
    let (keeper, _) = Keeper::open(Arc::new(disk.clone()), Timestamp(0), Default::default()).unwrap();
    let mut parent = Tablet::new(PARENT);
    let long = "x".repeat(10_000);
    (0..40).for_each(|row| write(&mut parent, row, &long));
    let job = parent.freeze(Bytes::new(), &schema());
    parent.install(keeper.run(job.unwrap()).unwrap());
    let mut left = parent.split(LEFT, below("20"));
    let before = parent.bytes();
    assert!((before / 3..before * 2 / 3).contains(&left.bytes()), "{} of {before}", left.bytes());
    let job = left.freeze(Bytes::new(), &schema());
    left.install(keeper.run(job.unwrap()).unwrap());
    let Some(Job::Merge { plan, .. }) = left.choose(&schema(), Urgency::Busy) else {
        panic!("one table is half foreign")
    };
    assert_eq!((plan.moved.len(), plan.groups.len(), plan.groups[0].tables.len()), (0, 1, 1));
    left.failed(JobKind::Merge);
    let job = left.choose(&schema(), Urgency::Busy);
    left.install(keeper.run(job.unwrap()).unwrap());
    assert!(left.choose(&schema(), Urgency::Busy).is_none());
}

/// The middle halves the bytes, of files and of memory; a single row has none.
#[test]
fn the_middle_halves_the_bytes() {
    let (keeper, _) = Keeper::open(Arc::new(MemDisk::new()), Timestamp(0), Default::default()).unwrap();
    let mut tablet = Tablet::new(PARENT);
    assert_eq!(middle_of(&tablet), None);
    write(&mut tablet, 5, "x");
    assert_eq!(middle_of(&tablet), None);
    write(&mut tablet, 6, "x");
    assert_eq!(middle_of(&tablet), Some(Bytes::from_static(b"06")));
    let long = "x".repeat(9_000);
    (10..50).for_each(|row| write(&mut tablet, row, &long));
    let middle = |tablet: &Tablet| String::from_utf8(middle_of(tablet).unwrap().to_vec()).unwrap();
    assert_eq!(middle(&tablet), "30");
    let job = tablet.freeze(Bytes::new(), &schema());
    tablet.install(keeper.run(job.unwrap()).unwrap());
    assert!(("27".."33").contains(&&middle(&tablet)[..]), "{}", middle(&tablet));
    assert!(&middle(&tablet.split(RIGHT, from("40")))[..] > "42");
}

/// A tablet may be a few rows of a block that it shares with others: those count which are its own and live.
#[test]
fn the_middle_of_a_small_tablet_is_exact() {
    let (keeper, _) = Keeper::open(Arc::new(MemDisk::new()), Timestamp(0), Default::default()).unwrap();
    let mut parent = Tablet::new(PARENT);
    (0..9).for_each(|row| write(&mut parent, row, "x"));
    let job = parent.freeze(Bytes::new(), &schema());
    parent.install(keeper.run(job.unwrap()).unwrap());
    assert_eq!(middle_of(&parent), Some(Bytes::from_static(b"04")));
    let mut left = parent.split(LEFT, below("03"));
    assert_eq!(middle_of(&left), Some(Bytes::from_static(b"01")));
    for row in [b"00", b"01"] {
        left.apply(left.applied().next(), &Bytes::from_static(row), &[Change::DeleteRow], Timestamp(99));
    }
    assert_eq!(middle_of(&left), None, "one row is left");
}

/// Of a large tablet nothing is read: its index tells it, also if there are only two rows, the first one small.
#[test]
fn the_middle_of_a_large_tablet_of_two_rows_lies_between_them() {
    let (keeper, _) = Keeper::open(Arc::new(MemDisk::new()), Timestamp(0), Default::default()).unwrap();
    let mut tablet = Tablet::new(PARENT);
    write(&mut tablet, 1, "x");
    write(&mut tablet, 2, &"x".repeat(2 << 20));
    let job = tablet.freeze(Bytes::new(), &schema());
    tablet.install(keeper.run(job.unwrap()).unwrap());
    assert_eq!(middle_of(&tablet), Some(Bytes::from_static(b"02")));
}

/// Two halves that were one become one again: each has rows of the other in its files, and those are old. Reads see
/// only what is a half's own, before and after the files are copied, and over a restart.
#[test]
fn two_tablets_become_one() {
    let disk = MemDisk::new();
    let (keeper, _) = Keeper::open(Arc::new(disk.clone()), Timestamp(0), Default::default()).unwrap();
    let mut parent = Tablet::new(PARENT);
    (0..8).for_each(|row| write(&mut parent, row, "old"));
    let job = parent.freeze(Bytes::new(), &schema());
    parent.install(keeper.run(job.unwrap()).unwrap());
    let (mut left, mut right) = (parent.split(LEFT, below("04")), parent.split(RIGHT, from("04")));
    for half in [&mut left, &mut right] {
        let job = half.freeze(Bytes::new(), &schema());
        half.install(keeper.run(job.unwrap()).unwrap());
    }
    // What the right one has deleted for good is still in the file that the left one reads.
    right.apply(right.applied().next(), &Bytes::from_static(b"05"), &[Change::DeleteRow], Timestamp(99));
    let job = right.freeze(Bytes::new(), &schema());
    right.install(keeper.run(job.unwrap()).unwrap());
    let job = right.choose_all(&schema());
    right.install(keeper.run(job.unwrap()).unwrap());
    write(&mut right, 6, "new");
    write(&mut left, 2, "new");
    write(&mut left, 2, "new");
    let mut heir = left.fuse(HEIR, &right);
    assert_eq!((heir.applied(), heir.is_unsettled()), (right.applied().max(left.applied()), true));
    let expected = "00=old 01=old 02=new 03=old 04=old 06=new 07=old";
    assert_eq!(rows(&heir), expected);
    let read = |tablet: &Tablet, row: &str| {
        let row = tablet.view().row(row.as_bytes(), &ReadOptions::default(), &schema(), Timestamp(0)).unwrap();
        row.map(|row| String::from_utf8(row.cells[0].value.to_vec()).unwrap())
    };
    assert_eq!(
        (read(&heir, "05"), read(&heir, "06"), read(&heir, "03")),
        (None, Some("new".into()), Some("old".into()))
    );
    let upto = heir.applied();
    let job = heir.freeze(Bytes::from_static(b"note"), &schema());
    write(&mut heir, 9, "new");
    heir.install(keeper.run(job.unwrap()).unwrap());
    assert_eq!((heir.flushed(), heir.is_unsettled(), heir.view().files().len()), (upto, false, 1));
    assert_eq!(rows(&heir), format!("{expected} 09=new"));
    drop((left, right, parent, heir, keeper));
    let (_, mut tablets) = Keeper::open(Arc::new(disk), Timestamp(0), Default::default()).unwrap();
    let (heir, note) = tablets.sound.remove(&HEIR).unwrap();
    assert_eq!((rows(&heir), &note[..]), (expected.to_owned(), &b"note"[..]));
}

/// House seed 809 of the simulator: a tablet was split again before it had copied what it has of two others, and its halves
/// took the others' files for their own.
#[test]
fn what_was_made_of_two_may_be_split_at_once() {
    let (keeper, _) = Keeper::open(Arc::new(MemDisk::new()), Timestamp(0), Default::default()).unwrap();
    let mut parent = Tablet::new(PARENT);
    (0..8).for_each(|row| write(&mut parent, row, "old"));
    let job = parent.freeze(Bytes::new(), &schema());
    parent.install(keeper.run(job.unwrap()).unwrap());
    let (left, mut right) = (parent.split(LEFT, below("04")), parent.split(RIGHT, from("04")));
    (4..8).for_each(|row| write(&mut right, row, "new"));
    let job = right.freeze(Bytes::new(), &schema());
    right.install(keeper.run(job.unwrap()).unwrap());
    let heir = left.fuse(HEIR, &right);
    let (first, second) = (heir.split(TabletId(11), below("06")), heir.split(TabletId(12), from("06")));
    for (mut half, expected) in [(first, "00=old 01=old 02=old 03=old 04=new 05=new"), (second, "06=new 07=new")] {
        assert_eq!(rows(&half), expected);
        let job = half.freeze(Bytes::new(), &schema());
        half.install(keeper.run(job.unwrap()).unwrap());
        assert_eq!((rows(&half), half.view().files().len()), (expected.to_owned(), 1));
        let job = half.choose_all(&schema());
        half.install(keeper.run(job.unwrap()).unwrap());
        assert_eq!(rows(&half), expected);
    }
}

/// A table of one of two tablets that cannot be read spoils the rows that it may have, and no others.
#[test]
fn damage_of_one_half_stays_there() {
    let (keeper, _) = Keeper::open(Arc::new(MemDisk::new()), Timestamp(0), Default::default()).unwrap();
    let (mut left, mut right) = (Tablet::new(LEFT), Tablet::new(RIGHT));
    left.set_bounds(below("04"));
    right.set_bounds(from("04"));
    write(&mut left, 1, "x");
    write(&mut right, 5, "x");
    for half in [&mut left, &mut right] {
        let job = half.freeze(Bytes::new(), &schema());
        half.install(keeper.run(job.unwrap()).unwrap());
    }
    let (run, table) = right.version.placed().next().unwrap();
    let file = MemDisk::new().create("x").unwrap();
    let broken = Table::broken(file, table.path().into(), None, 0, "rotten".into());
    right.version = Arc::new(Version::new(vec![(run, Arc::new(broken))], right.flushed(), Bytes::new()));
    let mut heir = left.fuse(HEIR, &right);
    let read = |row: &[u8]| heir.view().row(row, &ReadOptions::default(), &schema(), Timestamp(0));
    assert!(read(b"01").unwrap().is_some() && read(b"05").unwrap_err().is_corrupt());
    assert!(heir.view().damage().is_some());
    let job = heir.freeze(Bytes::new(), &schema());
    assert!(keeper.run(job.unwrap()).unwrap_err().is_corrupt(), "it is not copied without what is damaged");
}

fn middle_of(tablet: &Tablet) -> Option<Bytes> {
    tablet.view().middle(&schema(), Timestamp(0)).unwrap()
}

fn below(end: &'static str) -> RowRange {
    RowRange { start: Bytes::new(), end: Some(Bytes::from_static(end.as_bytes())) }
}

fn from(start: &'static str) -> RowRange {
    RowRange { start: Bytes::from_static(start.as_bytes()), end: None }
}

fn write(tablet: &mut Tablet, row: u64, value: &str) {
    let (lsn, value) = (tablet.applied().next(), Bytes::copy_from_slice(value.as_bytes()));
    let put = Change::Put { family: FamilyId(1), qualifier: Bytes::new(), timestamp: Timestamp::SERVER, value };
    tablet.apply(lsn, &Bytes::from(format!("{row:02}")), &[put], Timestamp(lsn.0 as i64));
}

fn expected(rows: std::ops::Range<u64>) -> String {
    let row = |row| format!("{row:02}={}", if row % 2 == 0 { "new" } else { "old" });
    rows.map(row).collect::<Vec<_>>().join(" ")
}

fn rows(tablet: &Tablet) -> String {
    rows_of(&tablet.view())
}

fn rows_of(view: &View) -> String {
    let all = RowRange::default();
    let (rows, _) = view.scan(&all, &ReadOptions::default(), &schema(), Timestamp(0), 99, usize::MAX).unwrap();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    rows.iter().map(|row| format!("{}={}", text(&row.key), text(&row.cells[0].value))).collect::<Vec<_>>().join(" ")
}

fn files(disk: &MemDisk) -> usize {
    disk.list("tables").unwrap().len()
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema {
        table: TableId(1),
        name: "t".into(),
        version: 1,
        families: vec![Family {
            id: FamilyId(1),
            name: "f".into(),
            retention: model::Retention::Keep,
            loosened: false,
            locality: model::LocalityId(0),
            aggregate: None,
        }],
        next_family: FamilyId(2),
        partition: Partition::Range { splits: vec![] },
        replicas: 1,
        min_replicas: 1,
        storage: model::Storage::default(),
        settings: model::Settings::default(),
    })
}
