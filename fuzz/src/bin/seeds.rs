//! Writes inputs to begin with to `corpus/`: small, and valid. `cargo run --bin seeds`, after a format got a new version; files
//! of older versions stay.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use disk::{Disk, MemDisk};
use model::random::Random;
use model::storage::{Compression, Filter, LocalityGroup};
use model::{Bytes, Change, Epoch, FamilyId, LocalityId, Lsn, RunId, TabletId, Timestamp};
use store::key::{self, Seq};
use store::log::{Kind, Log, Options, Record};
use store::manifest::{Edit, Manifest, Placed};
use store::sstable::{Shape, Writer};

const T: TabletId = TabletId(7);

fn main() {
    tables();
    manifests();
    logs();
    keys();
    stories();
}

fn save(target: &str, name: &str, bytes: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&dir).expect("the checkout can be written to");
    std::fs::write(dir.join(name), bytes).expect("the checkout can be written to");
}

fn bytes_of(disk: &MemDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path).expect("it was written");
    let mut bytes = vec![0; file.len().expect("it is there") as usize];
    file.read_at(0, &mut bytes).expect("it is there");
    bytes
}

fn tables() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/store/src/sstable/testdata");
    for name in ["v1.sst", "v2-lz4.sst", "v2-zstd.sst"] {
        save("table", name, &std::fs::read(testdata.join(name)).expect("a test of the store reads it too"));
    }
    for (name, rows, compression, filter, block_bytes) in [
        ("v2-plain.sst", 40, Compression::None, Filter::Rows, 512),
        ("v2-columns.sst", 40, Compression::None, Filter::Columns, 512),
        ("v2-mixed-lz4.sst", 200, Compression::Lz4, Filter::Columns, 1024),
        ("v2-one.sst", 1, Compression::None, Filter::Rows, 512),
        // Each entry gets a block, so that there are several index blocks.
        ("v2-groups.sst", 260, Compression::Lz4, Filter::Rows, 1),
    ] {
        let disk = MemDisk::new();
        let locality = LocalityGroup { compression, filter, block_bytes, ..LocalityGroup::default() };
        let shape = Shape { tablet: T, after: Lsn::ZERO, upto: Lsn(rows), clock: Timestamp(9), locality: &locality };
        let mut writer = Writer::create(&disk, "1.sst".to_owned(), shape).expect("it has room");
        for (key, value) in entries(rows) {
            writer.add(&key, &value).expect("it has room");
        }
        writer.finish().expect("it has room");
        save("table", name, &bytes_of(&disk, "1.sst"));
    }
}

/// Every scope, rows and qualifiers with zeros, several versions.
fn entries(rows: u64) -> BTreeMap<Bytes, Vec<u8>> {
    let mut entries = BTreeMap::new();
    for n in 0..rows {
        let row = [format!("row{:05}", n / 2).as_bytes(), &[b'\0'; 2][..(n % 3) as usize]].concat();
        let (family, qualifier) =
            (FamilyId(1 + (n % 2) as u32), Bytes::from_static([&b"q"[..], b"q\0", b""][n as usize % 3]));
        let timestamp = Timestamp(n as i64 - 3);
        let value = vec![b'a' + (n % 26) as u8; (n % 16) as usize];
        let change = match n % 12 {
            4 => Change::DeleteRow,
            5 => Change::DeleteFamily { family },
            6 => Change::DeleteColumn { family, qualifier },
            7 => Change::DeleteCell { family, qualifier, timestamp },
            _ => Change::Put { family, qualifier, timestamp, value: Bytes::new() },
        };
        let puts = matches!(change, Change::Put { .. });
        let key = key::of_change(&row, &change, Seq(Lsn(n + 1), n as u32 % 2), Timestamp(n as i64));
        entries.insert(key, if puts { value } else { Vec::new() });
    }
    entries
}

fn manifests() {
    let disk = MemDisk::new();
    disk.create_dir("manifest").expect("it has room");
    let (mut manifest, _) = Manifest::open(Arc::new(disk.clone())).expect("an empty folder is none");
    let run = |level, age| RunId { locality: LocalityId(0), level, age: Lsn(age) };
    let whole = Edit::Whole {
        tables: vec![Placed { number: 300, run: run(2, 0) }],
        upto: Lsn(5),
        note: Bytes::from_static(b"note"),
    };
    let mut save_after = |name: &str, edit: Edit| {
        manifest.edit(T, edit).expect("it has room");
        save("manifest", name, &bytes_of(&disk, "manifest/7"));
    };
    save_after("v2-whole", whole);
    for (number, after) in [(301, 5), (302, 8)] {
        let added = vec![Placed { number, run: run(0, after + 3) }];
        let note = Bytes::from_static(b"new");
        save_after("v2-flushed", Edit::Flushed { added, after: Lsn(after), upto: Lsn(after + 3), note });
    }
    let added = vec![Placed { number: 303, run: run(1, 11) }];
    save_after("v2-merged", Edit::Merged { removed: vec![300, 302], added });
    // As version 1 wrote it: tablet 7, tables 3 and 300, flushed up to 9, a note.
    let body = [7, 2, 3, 0xac, 2, 9, 4, b'n', b'o', b't', b'e'];
    let mut old = [&b"dipmanif"[..], &1u32.to_le_bytes(), &[0; 8], &body].concat();
    fuzz::manifest::seal(&mut old);
    save("manifest", "v1", &old);
}

fn logs() {
    let record = |tablet, lsn, kind, len| Record {
        tablet: TabletId(tablet),
        lsn: Lsn(lsn),
        epoch: Epoch(3),
        committed: Lsn(lsn.saturating_sub(1)),
        kind,
        body: Bytes::from(vec![tablet as u8; len]),
    };
    let story: &[(u64, u64, Kind, usize)] = &[
        (1, 0, Kind::State, 5),
        (1, 1, Kind::Command, 9),
        (2, 5, Kind::NoOp, 0),
        (1, 2, Kind::Command, 100),
        (2, 6, Kind::Command, 3),
        (3, 1, Kind::Command, 8),
        (1, 2, Kind::Command, 20),
        (3, 0, Kind::Dropped, 0),
        (2, 5, Kind::Cut, 0),
        (4, 0, Kind::Lost, 12),
        (1, 3, Kind::Command, 400),
        (1, 4, Kind::Command, 300),
        (2, 6, Kind::NoOp, 0),
        (1, 5, Kind::Command, 30),
    ];
    for (name, count) in [("one", 6), ("two", story.len())] {
        let disk = MemDisk::new();
        let options = Options { segment_bytes: 1400 };
        let (mut log, _) = Log::open(Arc::new(disk.clone()), "log", options).expect("an empty disk");
        for (at, &(tablet, lsn, kind, len)) in story[..count].iter().enumerate() {
            log.append(&[record(tablet, lsn, kind, len)]).expect("it has room");
            if at % 3 == 1 {
                log.sync().expect("it has room");
            }
        }
        log.sync().expect("it has room");
        log.mark().expect("it has room");
        let segments: Vec<Vec<u8>> = (1..3)
            .map(|n| format!("log/{n:08}.log"))
            .filter(|name| disk.exists(name).unwrap_or(false))
            .map(|name| bytes_of(&disk, &name))
            .collect();
        let len = segments[0].len() as u16;
        save("log", name, &[&len.to_le_bytes()[..], &segments.concat()].concat());
    }
}

fn keys() {
    for (nth, key) in entries(12).into_keys().enumerate() {
        save("key", &format!("one-{nth}"), &key);
    }
    let keys: Vec<Bytes> = entries(24).into_keys().collect();
    for (nth, pair) in keys.windows(2).step_by(5).enumerate() {
        save("key", &format!("two-{nth}"), &[&[pair[0].len() as u8][..], &pair[0], &pair[1]].concat());
    }
}

/// A story is any bytes.
fn stories() {
    for seed in 0..6 {
        let mut random = Random::new(seed);
        let bytes: Vec<u8> = (0..400).map(|_| random.draw() as u8).collect();
        save("engine", &format!("seed-{seed}"), &bytes);
    }
}
