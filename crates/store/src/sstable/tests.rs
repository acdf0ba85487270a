mod random;
mod speed;

use disk::{Disk, MemDisk};
use model::storage::{Compression, Filter, LocalityGroup};
use model::{Change, FamilyId, LocalityId, Lsn, TabletId};

use super::*;
use crate::key::Seq;

/// A reader finds every row, and nothing where there is none.
#[test]
fn a_table_gives_back_what_was_written() {
    let disk = MemDisk::new();
    let table = write(&disk, 3000, 40);
    assert!(table.body.frame.index.blocks() > 5, "several blocks");
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
    assert_eq!(table.body.frame.index.blocks(), 3);
    assert_eq!(TableCursor::new(table, &entry(2).0, Purpose::Serve).unwrap().value(), value(2, 100_000));
}

/// No byte of the file is without a checksum, however its blocks are compressed.
#[test]
fn every_flipped_bit_and_every_cut_is_detected() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let disk = MemDisk::new();
        let locality = LocalityGroup { compression, filter: Filter::Columns, ..small_blocks() };
        let bytes = write_as(&disk, 30, 10, &locality).bytes();
        for offset in 0..bytes {
            for bit in 0..8 {
                assert!(disk.flip(PATH, offset, 1 << bit));
                let error = check(&disk).unwrap_err();
                assert!(
                    matches!(&error, Error::Corrupt { file, .. } if file == PATH),
                    "bit {bit} of {offset}: {error}"
                );
                disk.flip(PATH, offset, 1 << bit);
            }
        }
        check(&disk).unwrap();
        for cut in (0..bytes).rev() {
            disk.open(PATH).unwrap().set_len(cut).unwrap();
            assert!(check(&disk).unwrap_err().is_corrupt(), "cut at {cut}");
        }
    }
}

/// So is the dictionary, and whatever was compressed with it.
#[test]
fn a_changed_byte_of_a_table_with_a_dictionary_is_detected() {
    let disk = MemDisk::new();
    let table = write_as(&disk, 400, 10, &LocalityGroup { compression: Compression::Zstd, ..small_blocks() });
    assert!(table.body.frame.dictionary.is_some());
    for offset in 0..table.bytes() {
        let bit = 1 << (offset % 8);
        disk.flip(PATH, offset, bit);
        assert!(check(&disk).unwrap_err().is_corrupt(), "at {offset}");
        disk.flip(PATH, offset, bit);
    }
    check(&disk).unwrap();
}

/// What is read after a table was opened is checked as well.
#[test]
fn a_block_that_rots_later_is_detected_by_its_reader() {
    let disk = MemDisk::new();
    let table = write(&disk, 3000, 40);
    let place = place_of(&table, &entry(1500).0);
    disk.flip(PATH, place.offset + 100, 4);
    let error = TableCursor::new(table.clone(), &entry(1500).0, Purpose::Serve).err().unwrap();
    assert!(matches!(error, Error::Corrupt { offset, .. } if offset == place.offset));
    assert!(TableCursor::new(table.clone(), &entry(0).0, Purpose::Serve).is_ok());
    assert!(TableCursor::new(table.clone(), &entry(2999).0, Purpose::Serve).is_ok());
    // A peer does not get it either.
    assert!(table.read_raw(place.offset + 50, 10).unwrap_err().is_corrupt());
    assert!(table.read_raw(0, 10).is_ok());
}

/// What was read once is in memory, unless it was read in passing.
#[test]
fn what_clients_read_is_cached() {
    let disk = MemDisk::new();
    write(&disk, 3000, 40);
    let cache = Cache::new(1 << 20);
    let table = Arc::new(Table::open(disk.open(PATH).unwrap(), PATH.to_owned(), None, &cache).unwrap());
    let start = key::row_start(&row(1500));
    let hash = filter::hash(&start);
    let in_passing = TableCursor::new(table.clone(), &start, Purpose::Background).unwrap();
    assert!(!table.is_cached(&start, hash));
    assert_eq!((cache.stats().hits, cache.stats().misses, cache.stats().blocks), (0, 0, 0));
    let served = TableCursor::new(table.clone(), &start, Purpose::Serve).unwrap();
    assert_eq!(served.key(), in_passing.key());
    assert!(table.is_cached(&start, hash));
    disk.fail_reads(PATH, true);
    let again = TableCursor::new(table.clone(), &start, Purpose::Serve).unwrap();
    assert_eq!(again.key(), served.key());
    assert!(TableCursor::new(table.clone(), &entry(0).0, Purpose::Serve).is_err());
    let Stats { hits, misses, blocks, bytes, .. } = cache.stats();
    assert_eq!((hits, misses, blocks), (1, 2, 1));
    assert!(bytes > 16 << 10);
    assert!(cache.stats().pinned > 0);
    drop((table, in_passing, served, again));
    assert_eq!(cache.stats().pinned, 0);
}

/// Blocks that were read often outlive those that a scan reads once.
#[test]
fn a_cache_is_bounded_and_a_scan_does_not_empty_it() {
    let disk = MemDisk::new();
    write(&disk, 40_000, 40);
    let cache = Cache::new(1 << 20);
    let table = Arc::new(Table::open(disk.open(PATH).unwrap(), PATH.to_owned(), None, &cache).unwrap());
    let Properties { key_bytes, value_bytes, .. } = table.properties();
    assert!(key_bytes + value_bytes > 3 << 20);
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

/// A table of which neither the index nor the filter stays in memory is read through the cache.
#[test]
fn a_large_table_is_found_in_parts() {
    let disk = MemDisk::new();
    let locality = LocalityGroup { block_bytes: 256, filter: Filter::Columns, ..small_blocks() };
    let rows = 60_000;
    let whole = write_as(&disk, rows, 0, &locality);
    assert!(whole.body.frame.index.len() > 5, "several index blocks");
    whole.verify().unwrap();
    let cache = Cache::new(400 << 10);
    let table = Arc::new(Table::open(disk.open(PATH).unwrap(), PATH.to_owned(), None, &cache).unwrap());
    assert_eq!(cache.stats().pinned, 0);
    let mut cached = 0;
    for n in (0..rows).step_by(977) {
        let start = key::row_start(&row(n));
        let hash = filter::hash(&start);
        assert!(table.may_hold(&start, hash));
        assert!(table.may_hold_surely(&start, hash).unwrap());
        let column = filter::Column::new(hash, FamilyId(1), b"q\0\x01");
        assert!(table.may_hold_column(&start, &column));
        assert_eq!(TableCursor::new(table.clone(), &start, Purpose::Serve).unwrap().key(), Some(&entry(n).0[..]));
        cached += usize::from(table.is_cached(&start, hash));
        assert_eq!(TableCursor::before(table.clone(), Some(&start), Purpose::Serve).unwrap().key().is_none(), n == 0);
    }
    assert!(cached > 55, "of 62 that were just read some have made room for others: {cached}");
    let absent: Vec<_> = (0..2000).map(|n| key::row_start(&[&row(n * 30)[..], b"x"].concat())).collect();
    let passed = absent.iter().filter(|start| table.may_hold_surely(start, filter::hash(start)).unwrap()).count();
    assert!(passed < 60, "{passed}");
    let other = |start: &Vec<u8>| filter::Column::new(filter::hash(start), FamilyId(1), b"other\0\x01");
    let held: Vec<_> = (0..2000).map(|n| key::row_start(&row(n * 30))).collect();
    let passed = held.iter().filter(|start| table.may_hold_column(start, &other(start))).count();
    assert!(passed < 1000, "what is not in memory may hold it, but much is: {passed}");
    assert!(cache.stats().bytes <= 400 << 10);
    // Its parts are known to the index block.
    let half = RowRange { start: Bytes::from(row(rows / 2)), end: None };
    let (part, data) = (table.within(&half), table.body.frame.index.data_end());
    assert!(part.bytes().abs_diff(data / 2) < data / 8, "{} of {data}", part.bytes());
    assert_eq!(TableCursor::new(part.clone(), &[], Purpose::Background).unwrap().key(), Some(&entry(rows / 2).0[..]));
    let mut weights = Vec::new();
    part.weigh(&half, &mut weights);
    assert!(weights.len() > 5 && weights.iter().all(|(row, _)| half.covers(row)));
}

/// A table that is in memory as a whole does not need its disk.
#[test]
fn a_loaded_table_is_read_without_the_disk() {
    for compression in [Compression::None, Compression::Lz4] {
        let disk = MemDisk::new();
        write_as(&disk, 60_000, 0, &LocalityGroup { compression, ..small_blocks() });
        let cache = Cache::new(100 << 10);
        let table = Arc::new(Table::open(disk.open(PATH).unwrap(), PATH.to_owned(), None, &cache).unwrap());
        let start = key::row_start(&row(7));
        assert!(!table.is_loaded() && !table.is_cached(&start, filter::hash(&start)));
        table.load().unwrap();
        disk.fail_reads(PATH, true);
        assert!(table.is_loaded() && table.is_cached(&start, filter::hash(&start)));
        assert_eq!(walk(&table).len(), 60_000);
        assert_eq!(walk_back(&table).len(), 60_000);
        assert!(!table.may_hold(&key::row_start(b"row00007x"), filter::hash(&key::row_start(b"row00007x"))));
        let Stats { hits, misses, blocks, loaded, .. } = cache.stats();
        assert_eq!((hits, misses, blocks), (0, 0, 0));
        assert!(loaded > 1 << 20);
        // What a scrub says is of the disk.
        assert!(table.check(0, 1).is_err());
        drop(table);
        assert_eq!(cache.stats().loaded, 0);
    }
}

/// A scrub reads every byte once, in slices.
#[test]
fn a_table_is_checked_in_slices() {
    let disk = MemDisk::new();
    let table = write_as(&disk, 3000, 40, &small_blocks());
    let (mut from, mut sum, mut slices) = (0, 0, 0);
    loop {
        let (bytes, next) = table.check(from, 5_000).unwrap();
        (sum, slices) = (sum + bytes, slices + 1);
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(sum, table.bytes());
    assert!(slices > 5);
    for offset in (0..table.bytes()).step_by(301) {
        disk.flip(PATH, offset, 1);
        let (mut from, mut found) = (Some(0), false);
        while let Some(at) = from.filter(|_| !found) {
            match table.check(at, 5_000) {
                Ok((_, next)) => from = next,
                Err(error) => found = error.is_corrupt(),
            }
        }
        assert!(found, "at {offset}");
        disk.flip(PATH, offset, 1);
    }
}

#[test]
fn the_properties_say_what_there_is() {
    let disk = MemDisk::new();
    let locality = LocalityGroup { id: LocalityId(5), compression: Compression::Lz4, ..small_blocks() };
    let mut writer = writer(&disk, Lsn(200), &locality);
    for (key, value) in entries_of_v1() {
        writer.add(&key, &value).unwrap();
    }
    let (written, (file, path)) = (writer.bytes(), writer.finish().unwrap());
    let table = Arc::new(Table::open(file, path, None, &Cache::none()).unwrap());
    table.verify().unwrap();
    assert!(table.bytes() > written);
    let p = table.properties();
    assert_eq!((p.entries, p.deletions, p.rows, p.value_bytes), (72, 12, 60, 60 * 600));
    assert_eq!(p.deletes, Deletes { rows: 3, families: 3, columns: 3, cells: 3 });
    assert_eq!((p.locality, p.compression, p.block_bytes), (LocalityId(5), Compression::Lz4, 512));
    assert_eq!(table.timestamps(), Some((Timestamp(7), Timestamp(1059))));
    assert_eq!(p.families, Some(vec![FamilyId(3)]));
    // Rows are deleted in it, whatever the family.
    assert!(table.may_hold_family(FamilyId(3)) && table.may_hold_family(FamilyId(4)));
    assert!(!write(&disk, 3, 3).may_hold_family(FamilyId(4)));
}

/// Tables of version 2 lie on disks: what is written is pinned, and what compressors made of it is read, whatever they make of
/// it today.
#[test]
fn the_form_of_version_2_is_pinned() {
    let disk = MemDisk::new();
    let locality = LocalityGroup { compression: Compression::None, filter: Filter::Columns, ..small_blocks() };
    let bytes = write_as(&disk, 2, 3, &locality).bytes();
    let mut file = vec![0; bytes as usize];
    disk.open(PATH).unwrap().read_at(0, &mut file).unwrap();
    let hex: String = file.iter().map(|byte| format!("{byte:02x}")).collect();
    let pinned = [
        "002903726f7730303030300001010000000101710001017ffffffffffffffffffffffffffffffeffffffff0161616107",
        "2203310001010000000101710001017ffffffffffffffefffffffffffffffdffffffff01626262000000000100000000",
        "4639733e1088840010000000000000400000000000800000000004080204000000000020001080000000000040000000",
        "000000200000100c10004000000802000004080000eed534cb002904726f773030303031000101000000010171000101",
        "7ffffffffffffffefffffffffffffffdffffffff0164000000000000000100000000d095d421002918726f7730303030",
        "310001010000000101710001017ffffffffffffffefffffffffffffffdffffffff01a9000000000000003d0000000000",
        "00000000000000000000000000000100000000aa3763870700021202000229726f773030303030000101000000010171",
        "0001017ffffffffffffffffffffffffffffffeffffffff0129726f7730303030310001010000000101710001017fffff",
        "fffffffffefffffffffffffffdffffffff01000101010100020000000052060080040200be4c57e36400000000000000",
        "01000000000000000100000045000000a900000000000000e60000000000000051000000710000000200000083c27a05",
        "6469707461626c65",
    ];
    assert_eq!(hex, pinned.concat());
    for (file, dictionary) in
        [(&include_bytes!("testdata/v2-lz4.sst")[..], false), (include_bytes!("testdata/v2-zstd.sst"), true)]
    {
        disk.create(PATH).unwrap().write_at(0, file).unwrap();
        check(&disk).unwrap();
        let table = open(&disk);
        assert_eq!(table.body.frame.dictionary.is_some(), dictionary);
        let entries = walk(&table);
        assert_eq!(entries.len(), 400);
        assert!((0..400).all(|n| entries[n] == (entry(n).0, value(n, 10))));
        let start = key::row_start(&row(77));
        assert!(table.may_hold(&start, filter::hash(&start)));
        let absent = (0..100).map(|n| key::row_start(format!("row00077{n}").as_bytes()));
        assert!(absent.filter(|start| table.may_hold(start, filter::hash(start))).count() < 10);
    }
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

fn small_blocks() -> LocalityGroup {
    LocalityGroup { block_bytes: 512, ..LocalityGroup::default() }
}

fn write(disk: &MemDisk, rows: usize, len: usize) -> Arc<Table> {
    write_as(disk, rows, len, &LocalityGroup { compression: Compression::None, ..LocalityGroup::default() })
}

fn write_as(disk: &MemDisk, rows: usize, len: usize, locality: &LocalityGroup) -> Arc<Table> {
    let mut writer = writer(disk, Lsn(rows as u64), locality);
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

fn place_of(table: &Arc<Table>, key: &[u8]) -> Place {
    let Body { source, frame, .. } = &*table.body;
    let group = frame.index.group(source, frame.index.find(key), Purpose::Background).unwrap();
    group.things()[group.find(key)]
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
