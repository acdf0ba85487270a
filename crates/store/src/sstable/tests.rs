use disk::{Disk, MemDisk};
use model::{Change, FamilyId};

use super::*;
use crate::key::Seq;

/// A reader finds every row, and nothing where there is none.
#[test]
fn a_table_gives_back_what_was_written() {
    let disk = MemDisk::new();
    let table = write(&disk, 3000, 40);
    assert!(table.index.len() > 5, "several blocks");
    table.verify().unwrap();
    let mut cursor = TableCursor::new(table.clone(), &[]).unwrap();
    for n in 0..3000 {
        assert_eq!(cursor.key(), Some(&entry(n).0[..]));
        assert_eq!(cursor.value(), value(n, 40));
        cursor.advance().unwrap();
    }
    assert_eq!(cursor.key(), None);
    for n in (0..3000).step_by(7) {
        let start = key::row_start(&row(n));
        assert!(table.may_hold(&start, filter::hash(&start)));
        let cursor = TableCursor::new(table.clone(), &start).unwrap();
        assert_eq!(cursor.key(), Some(&entry(n).0[..]));
    }
    let past = key::row_start(b"s");
    assert!(!table.may_hold(&past, filter::hash(&past)));
    assert_eq!(TableCursor::new(table, &past).unwrap().key(), None);
}

/// A value may be larger than a block.
#[test]
fn large_values_get_blocks_of_their_own() {
    let disk = MemDisk::new();
    let table = write(&disk, 3, 100_000);
    table.verify().unwrap();
    assert_eq!(table.index.len(), 3);
    assert_eq!(TableCursor::new(table, &entry(2).0).unwrap().value(), value(2, 100_000));
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
    let error = TableCursor::new(table.clone(), &table.index[3].0).err().unwrap();
    assert!(matches!(error, Error::Corrupt { offset, .. } if offset == place.offset));
    assert!(TableCursor::new(table.clone(), &table.index[4].0).is_ok());
}

/// Tables of version 1 lie on disks: they must be readable for ever.
#[test]
fn the_form_of_version_1_is_pinned() {
    let disk = MemDisk::new();
    let bytes = write(&disk, 2, 3).bytes();
    let mut file = vec![0; bytes as usize];
    disk.open(PATH).unwrap().read_at(0, &mut file).unwrap();
    let hex: String = file.iter().map(|byte| format!("{byte:02x}")).collect();
    let pinned = [
        "002903726f7730303030300001010000000101710001017ffffffffffffffffffffffffffffffeffffffff0161616107",
        "2203310001010000000101710001017ffffffffffffffefffffffffffffffdffffffff01626262000000000100000000",
        "4639733e001801893044066000ef93068b00290c726f7730303030310001010000000101710001017ffffffffffffffe",
        "fffffffffffffffdffffffff01000000000000000064000000000000000100000000e9d22fa00700021202000229726f",
        "7730303030300001010000000101710001017ffffffffffffffffffffffffffffffeffffffff0129726f773030303031",
        "0001010000000101710001017ffffffffffffffefffffffffffffffdffffffff0100e983bfd764000000000000000d00",
        "0000710000000000000045000000b6000000000000006000000000000000000000000000000001000000cfdf6a7d6469",
        "707461626c65",
    ];
    assert_eq!(hex, pinned.concat());
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
    let range = (Lsn::ZERO, Lsn(rows as u64));
    let mut writer = Writer::create(disk, PATH.to_owned(), TabletId(7), range, Timestamp(9)).unwrap();
    for n in 0..rows {
        writer.add(&entry(n).0, &value(n, len)).unwrap();
    }
    let (file, path) = writer.finish().unwrap();
    Arc::new(Table::open(file, path, None).unwrap())
}

fn check(disk: &MemDisk) -> Result<(), Error> {
    Arc::new(Table::open(disk.open(PATH).unwrap(), PATH.to_owned(), None)?).verify()
}
