mod random;
mod speed;

use disk::{Disk, MemDisk};
use model::{Change, FamilyId};

use model::{LocalityGroup, Lsn, TabletId};

use super::*;
use crate::key::Seq;

/// A reader finds every row, and nothing where there is none.
#[test]
fn a_table_gives_back_what_was_written() {
    let disk = MemDisk::new();
    let table = write(&disk, 3000, 40);
    assert!(table.index.len() > 5, "several blocks");
    table.verify().unwrap();
    let mut cursor = TableCursor::new(table.clone(), &[], Purpose::Serve).unwrap();
    for n in 0..3000 {
        assert_eq!(cursor.key(), Some(&entry(n).0[..]));
        assert_eq!(cursor.value(), value(n, 40));
        cursor.advance().unwrap();
    }
    assert_eq!(cursor.key(), None);
    for n in (0..3000).step_by(7) {
        let start = key::row_start(&row(n));
        assert!(table.may_hold(&start, filter::hash(&start)));
        let cursor = TableCursor::new(table.clone(), &start, Purpose::Serve).unwrap();
        assert_eq!(cursor.key(), Some(&entry(n).0[..]));
    }
    let past = key::row_start(b"s");
    assert!(!table.may_hold(&past, filter::hash(&past)));
    assert_eq!(TableCursor::new(table, &past, Purpose::Serve).unwrap().key(), None);
}

/// A value may be larger than a block.
#[test]
fn large_values_get_blocks_of_their_own() {
    let disk = MemDisk::new();
    let table = write(&disk, 3, 100_000);
    table.verify().unwrap();
    assert_eq!(table.index.len(), 3);
    assert_eq!(TableCursor::new(table, &entry(2).0, Purpose::Serve).unwrap().value(), value(2, 100_000));
}

/// No byte of the file is without a checksum.
#[test]
fn every_flipped_bit_and_every_cut_is_detected() {
    let disk = MemDisk::new();
    let bytes = write(&disk, 30, 10).bytes();
    for offset in 0..bytes {
        for bit in 0..8 {
            assert!(disk.flip(PATH, offset, 1 << bit));
            let error = check(&disk).unwrap_err();
            assert!(matches!(&error, Error::Corrupt { file, .. } if file == PATH), "bit {bit} of {offset}: {error}");
            disk.flip(PATH, offset, 1 << bit);
        }
    }
    check(&disk).unwrap();
    for cut in (0..bytes).rev() {
        disk.open(PATH).unwrap().set_len(cut).unwrap();
        assert!(check(&disk).unwrap_err().is_corrupt(), "cut at {cut}");
    }
}

/// What is read after a table was opened is checked as well.
#[test]
fn a_block_that_rots_later_is_detected_by_its_reader() {
    let disk = MemDisk::new();
    let table = write(&disk, 3000, 40);
    let place = table.index[3].1;
    disk.flip(PATH, place.offset + 100, 4);
    let error = TableCursor::new(table.clone(), &table.index[3].0, Purpose::Serve).err().unwrap();
    assert!(matches!(error, Error::Corrupt { offset, .. } if offset == place.offset));
    assert!(TableCursor::new(table.clone(), &table.index[4].0, Purpose::Serve).is_ok());
}

/// What was read once is in memory, unless it was read in passing.
#[test]
fn what_clients_read_is_cached() {
    let disk = MemDisk::new();
    write(&disk, 3000, 40);
    let cache = Cache::new(1 << 20);
    let table = Arc::new(Table::open(disk.open(PATH).unwrap(), PATH.to_owned(), None, &cache).unwrap());
    let (start, end) = (key::row_start(&row(1500)), key::row_end(&row(1500)));
    let in_passing = TableCursor::new(table.clone(), &start, Purpose::Background).unwrap();
    assert!(!table.is_cached(&start, &end));
    assert_eq!(cache.stats(), Stats { capacity: cache.stats().capacity, ..Stats::default() });
    let served = TableCursor::new(table.clone(), &start, Purpose::Serve).unwrap();
    assert_eq!(served.key(), in_passing.key());
    assert!(table.is_cached(&start, &end));
    disk.fail_reads(PATH, true);
    let again = TableCursor::new(table.clone(), &start, Purpose::Serve).unwrap();
    assert_eq!(again.key(), served.key());
    assert!(TableCursor::new(table.clone(), &entry(0).0, Purpose::Serve).is_err());
    let Stats { hits, misses, blocks, bytes, .. } = cache.stats();
    assert_eq!((hits, misses, blocks), (1, 2, 1));
    assert!(bytes > 16 << 10);
}

/// Blocks that were read often outlive those that a scan reads once.
#[test]
fn a_cache_is_bounded_and_a_scan_does_not_empty_it() {
    let disk = MemDisk::new();
    write(&disk, 40_000, 40);
    let cache = Cache::new(1 << 20);
    let table = Arc::new(Table::open(disk.open(PATH).unwrap(), PATH.to_owned(), None, &cache).unwrap());
    assert!(table.bytes() > 3 << 20);
    let hot: Vec<_> = (0..10).map(|n| key::row_start(&row(n * 100))).collect();
    for _ in 0..5 {
        for start in &hot {
            TableCursor::new(table.clone(), start, Purpose::Serve).unwrap();
        }
    }
    walk(&table);
    assert!(cache.stats().bytes <= 1 << 20);
    let misses = cache.stats().misses;
    for start in &hot {
        TableCursor::new(table.clone(), start, Purpose::Serve).unwrap();
    }
    assert_eq!(cache.stats().misses, misses);
}

/// Tables of version 1 lie on disks: they must be readable for ever. This one was written by the code of that time.
#[test]
fn a_table_of_version_1_is_read() {
    let disk = MemDisk::new();
    disk.create(PATH).unwrap().write_at(0, include_bytes!("testdata/v1.sst")).unwrap();
    check(&disk).unwrap();
    let table = open(&disk);
    let entries = entries_of_v1();
    assert_eq!(walk(&table), entries);
    let back: Vec<_> = walk_back(&table).into_iter().rev().collect();
    assert_eq!(back, entries);
    let p = table.properties();
    assert_eq!((p.tablet, p.after, p.upto, p.clock), (TabletId(7), Lsn(100), Lsn(200), Timestamp(9)));
    assert_eq!((p.entries, p.deletions, p.rows), (72, 12, 60));
    for (key, _) in &entries {
        let row = key::row_of(key).unwrap();
        assert!(table.may_hold(row, filter::hash(row)));
        let cursor = TableCursor::new(table.clone(), key, Purpose::Serve).unwrap();
        assert_eq!(cursor.key(), Some(&key[..]));
    }
    // What it does not say may be anything.
    assert!(table.may_hold_family(FamilyId(77)));
    assert_eq!(table.timestamps(), Some((Timestamp(i64::MIN), Timestamp(i64::MAX))));
}

const PATH: &str = "1.sst";

fn row(n: usize) -> Vec<u8> {
    format!("row{n:05}").into_bytes()
}

fn value(n: usize, len: usize) -> Bytes {
    Bytes::from(vec![b'a' + (n % 26) as u8; len])
}

fn entry(n: usize) -> (Bytes, Change) {
    let (family, qualifier, timestamp) = (FamilyId(1), Bytes::from_static(b"q"), Timestamp(n as i64));
    let change = Change::Put { family, qualifier, timestamp, value: Bytes::new() };
    (key::of_change(&row(n), &change, Seq(Lsn(n as u64 + 1), 0), Timestamp(0)), change)
}

fn write(disk: &MemDisk, rows: usize, len: usize) -> Arc<Table> {
    let mut writer = writer(disk, Lsn(rows as u64), &LocalityGroup::default());
    for n in 0..rows {
        writer.add(&entry(n).0, &value(n, len)).unwrap();
    }
    let (file, path) = writer.finish().unwrap();
    Arc::new(Table::open(file, path, None, &Cache::none()).unwrap())
}

fn writer(disk: &dyn Disk, upto: Lsn, locality: &LocalityGroup) -> Writer {
    let shape = Shape { tablet: TabletId(7), after: Lsn::ZERO, upto, clock: Timestamp(9), locality };
    Writer::create(disk, PATH.to_owned(), shape).unwrap()
}

fn check(disk: &MemDisk) -> Result<(), Error> {
    Arc::new(Table::open(disk.open(PATH).unwrap(), PATH.to_owned(), None, &Cache::none())?).verify()
}

fn open(disk: &MemDisk) -> Arc<Table> {
    Arc::new(Table::open(disk.open(PATH).unwrap(), PATH.to_owned(), None, &Cache::none()).unwrap())
}

fn walk(table: &Arc<Table>) -> Vec<(Bytes, Bytes)> {
    let mut cursor = TableCursor::new(table.clone(), &[], Purpose::Serve).unwrap();
    let mut entries = Vec::new();
    while let Some(key) = cursor.key() {
        entries.push((Bytes::copy_from_slice(key), cursor.value()));
        cursor.advance().unwrap();
    }
    entries
}

fn walk_back(table: &Arc<Table>) -> Vec<(Bytes, Bytes)> {
    let mut cursor = TableCursor::before(table.clone(), None, Purpose::Serve).unwrap();
    let mut entries = Vec::new();
    while let Some(key) = cursor.key() {
        entries.push((Bytes::copy_from_slice(key), cursor.value()));
        cursor.retreat().unwrap();
    }
    entries
}

/// Sixty rows, each with a put; of some rows something is deleted before it.
fn entries_of_v1() -> Vec<(Bytes, Bytes)> {
    let (family, qualifier) = (FamilyId(3), Bytes::from_static(b"q\0"));
    let mut entries = Vec::new();
    for n in 0..60u64 {
        let row = format!("row{:03}", n);
        let mut add = |change: Change, index, value: Vec<u8>| {
            let key = key::of_change(row.as_bytes(), &change, Seq(Lsn(101 + n), index), Timestamp(1000 + n as i64));
            entries.push((key, Bytes::from(value)));
        };
        if n % 20 == 0 {
            add(Change::DeleteRow, 0, vec![]);
        }
        if n % 20 == 1 {
            add(Change::DeleteFamily { family }, 0, vec![]);
        }
        if n % 20 == 2 {
            add(Change::DeleteColumn { family, qualifier: qualifier.clone() }, 0, vec![]);
        }
        add(
            Change::Put { family, qualifier: qualifier.clone(), timestamp: Timestamp::SERVER, value: Bytes::new() },
            1,
            vec![n as u8; 600],
        );
        if n % 20 == 3 {
            add(Change::DeleteCell { family, qualifier: qualifier.clone(), timestamp: Timestamp(7) }, 2, vec![]);
        }
    }
    entries
}
