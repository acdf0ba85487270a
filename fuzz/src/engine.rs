//! The engine beside a map: any sequence of writes, flushes, merges, failures and crashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use disk::{Disk, MemDisk};
use model::storage::{Compression, Storage};
use model::{
    Bytes, Change, Compaction, Family, FamilyId, LocalityId, Lsn, Partition, ReadOptions, Retention, Row, RowRange,
    Schema, TableId, TabletId, Timestamp,
};
use store::keeper::Options;
use store::{Keeper, Tablet, Urgency, View};

const T: TabletId = TabletId(7);
const FAMILY: FamilyId = FamilyId(1);
const TABLES: &str = "tables";

/// What may happen.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    /// A row's newest version: so many of these bytes.
    Put { row: u8, byte: u8, len: u8 },
    /// A row is deleted.
    Delete { row: u8 },
    /// A record without changes.
    Skip,
    /// The memtable is written to a table.
    Flush(Trouble),
    /// Tables are merged, if that is due.
    Merge { busy: bool, trouble: Trouble },
    /// All tables are merged.
    MergeAll(Trouble),
    /// A reader keeps what is there now.
    Keep,
    /// The machine starts again.
    Crash { seed: u8 },
    /// Everything is compared.
    Compare,
}

/// What goes wrong during a job.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Trouble {
    Nothing,
    NothingEither,
    /// After so many operations the power fails.
    Power {
        after: u8,
        seed: u8,
    },
    /// A sync fails.
    Sync,
    /// The disk has no more room than this.
    Room(u8),
}

/// A record of the log: what it does to which row.
#[derive(Clone)]
enum Record {
    Put(Bytes, Bytes),
    Delete(Bytes),
    Skip,
}

type Map = BTreeMap<Bytes, Bytes>;

/// The input is a story.
pub fn run(data: &[u8]) {
    let mut unstructured = Unstructured::new(data);
    let leveled = unstructured.arbitrary().unwrap_or(false);
    let mut house = House::new(leveled);
    while !unstructured.is_empty() {
        let Ok(step) = unstructured.arbitrary() else { break };
        house.step(step);
    }
    house.compare();
    house.crash(None);
    house.compare();
}

struct House {
    disk: MemDisk,
    keeper: Keeper,
    tablet: Tablet,
    schema: Arc<Schema>,
    map: Map,
    log: Vec<Record>,
    /// What readers keep.
    kept: Vec<(View, Map)>,
    /// Flushed up to here for certain.
    promised: Lsn,
}

impl House {
    fn new(leveled: bool) -> House {
        let disk = MemDisk::new();
        let (keeper, tablet) = open(&disk);
        let schema = schema(leveled);
        House { disk, keeper, tablet, schema, map: Map::new(), log: Vec::new(), kept: Vec::new(), promised: Lsn::ZERO }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put { row, byte, len } => {
                // Every eighth is larger than a block.
                let len = if len % 8 == 7 { usize::from(len) * 16 } else { usize::from(len) / 8 };
                self.write(Record::Put(row_of(row), Bytes::from(vec![byte; len])));
            }
            Step::Delete { row } => self.write(Record::Delete(row_of(row))),
            Step::Skip => self.write(Record::Skip),
            Step::Flush(trouble) => {
                let note = Bytes::from(self.tablet.applied().0.to_string());
                let job = self.tablet.freeze(note, &self.schema);
                self.run(job, trouble);
            }
            Step::Merge { busy, trouble } => {
                let urgency = if busy { Urgency::Busy } else { Urgency::Idle };
                let job = self.tablet.choose(&self.schema, urgency);
                self.run(job, trouble);
            }
            Step::MergeAll(trouble) => {
                let job = self.tablet.choose_all(&self.schema);
                self.run(job, trouble);
            }
            Step::Keep if self.kept.len() < 3 => self.kept.push((self.tablet.view(), self.map.clone())),
            Step::Keep => _ = self.kept.remove(0),
            Step::Crash { seed } => self.crash(Some(u64::from(seed))),
            Step::Compare => self.compare(),
        }
    }

    fn write(&mut self, record: Record) {
        let lsn = self.tablet.applied().next();
        apply(&mut self.tablet, lsn, &record);
        match &record {
            Record::Put(row, value) => _ = self.map.insert(row.clone(), value.clone()),
            Record::Delete(row) => _ = self.map.remove(row),
            Record::Skip => {}
        }
        self.log.push(record);
    }

    fn run(&mut self, job: Option<store::Job>, trouble: Trouble) {
        let Some(job) = job else { return };
        let kind = job.kind();
        match trouble {
            Trouble::Nothing | Trouble::NothingEither => {}
            Trouble::Power { after, .. } => self.disk.power_fails_after(u64::from(after % 24)),
            Trouble::Sync => self.disk.fail_next_sync(),
            Trouble::Room(room) => self.disk.set_capacity(Some(self.disk.used() + u64::from(room) * 8)),
        }
        let result = self.keeper.run(job);
        self.disk.set_capacity(None);
        match result {
            Ok(done) => self.tablet.install(done),
            Err(error) => {
                assert!(!matches!(trouble, Trouble::Nothing | Trouble::NothingEither), "{error}");
                assert!(!error.is_corrupt(), "{error}");
                self.tablet.failed(kind);
            }
        }
        self.promised = self.promised.max(self.tablet.flushed());
        match trouble {
            Trouble::Power { seed, .. } => self.crash(Some(u64::from(seed))),
            // A sync that is yet to fail is not to fail at the next start; a failed one is forgotten by then.
            Trouble::Sync => self.crash(Some(0)),
            _ => {}
        }
    }

    /// Starts again, after a loss of power or without, and replays the log.
    fn crash(&mut self, seed: Option<u64>) {
        self.kept.clear();
        match seed {
            Some(seed) => self.disk.crash(seed),
            None => self.disk.kill(),
        }
        (self.keeper, self.tablet) = open(&self.disk);
        let flushed = self.tablet.flushed();
        assert!(flushed >= self.promised, "what was flushed stays");
        self.promised = flushed;
        for (record, lsn) in self.log.iter().zip(1..).skip(flushed.0 as usize) {
            apply(&mut self.tablet, Lsn(lsn), record);
        }
    }

    fn compare(&self) {
        self.compare_view(&self.tablet.view(), &self.map);
        self.kept.iter().for_each(|(view, map)| self.compare_view(view, map));
    }

    fn compare_view(&self, view: &View, map: &Map) {
        let (range, options) = (RowRange::default(), ReadOptions::default());
        let now = Timestamp(view.at().0 as i64);
        let pairs = |rows: Vec<Row>| -> Vec<(Bytes, Bytes)> {
            rows.into_iter().map(|mut row| (row.key, row.cells.remove(0).value)).collect()
        };
        let all: Vec<_> = map.iter().map(|(row, value)| (row.clone(), value.clone())).collect();
        let (found, end) = view.scan(&range, &options, &self.schema, now, 999, usize::MAX).expect("the disk is well");
        assert_eq!((pairs(found), end), (all.clone(), None));
        let (found, end) =
            view.scan_back(&range, &options, &self.schema, now, 999, usize::MAX).expect("the disk is well");
        let mut found = pairs(found);
        found.reverse();
        assert_eq!((found, end), (all, None));
        let keys: Vec<Bytes> = (0..ROWS).map(row_of).collect();
        let rows = view.rows(&keys, &options, &self.schema, now).expect("the disk is well");
        for (key, row) in keys.iter().zip(rows) {
            assert_eq!(row.as_ref().map(|row| &row.cells[0].value), map.get(key));
            assert_eq!(view.row(key, &options, &self.schema, now).expect("the disk is well"), row);
        }
    }
}

const ROWS: u8 = 24;

/// Few, and such as are hard to tell apart.
fn row_of(number: u8) -> Bytes {
    let rows: [&[u8]; 8] = [b"a", b"a\0", b"a\0\0", b"a\0\x01", b"b", b"\0", b"\xff", b""];
    let number = number % ROWS;
    let tail = [&b""[..], b"\0\xff", b"row"][usize::from(number / 8)];
    Bytes::from([rows[usize::from(number % 8)], tail].concat())
}

fn apply(tablet: &mut Tablet, lsn: Lsn, record: &Record) {
    let version = Timestamp(lsn.0 as i64);
    match record {
        Record::Put(row, value) => {
            let (family, qualifier, value) = (FAMILY, Bytes::from_static(b"q"), value.clone());
            let put = Change::Put { family, qualifier, timestamp: Timestamp::SERVER, value };
            tablet.apply(lsn, row, &[put], version);
        }
        Record::Delete(row) => tablet.apply(lsn, row, &[Change::DeleteRow], version),
        Record::Skip => tablet.skip(lsn),
    }
}

fn open(disk: &MemDisk) -> (Keeper, Tablet) {
    let options = Options { table_bytes: 2 << 10, cache_bytes: 64 << 10, ..Options::default() };
    let (keeper, mut tablets) =
        Keeper::open(Arc::new(disk.clone()), Timestamp(0), options).expect("what was left can be opened");
    assert!(tablets.damaged.is_empty(), "{:?}", tablets.damaged);
    let (tablet, note) = tablets.sound.remove(&T).unwrap_or_else(|| (Tablet::new(T), Bytes::from_static(b"0")));
    assert_eq!(note, tablet.flushed().0.to_string().as_bytes(), "the note is of the last flush");
    let mut named: Vec<String> = tablet.view().files().into_iter().map(|file| file.name).collect();
    named.sort();
    let there = disk.list(TABLES).expect("the folder is there");
    let there: Vec<String> = there.into_iter().map(|name| format!("{TABLES}/{name}")).collect();
    assert_eq!(there, named, "nothing is left that nobody names");
    (keeper, tablet)
}

fn schema(leveled: bool) -> Arc<Schema> {
    let mut storage = Storage::default();
    storage.compaction = if leveled { Compaction::Leveled } else { Compaction::Tiered };
    for locality in &mut storage.localities {
        locality.block_bytes = 1 << 10;
        locality.compression = if leveled { Compression::Zstd } else { Compression::Lz4 };
    }
    let family = Family {
        id: FAMILY,
        name: "f".into(),
        retention: Retention::Versions(1),
        loosened: false,
        locality: LocalityId(0),
    };
    Arc::new(Schema {
        table: TableId(1),
        name: "t".into(),
        version: 1,
        families: vec![family],
        next_family: FamilyId(2),
        partition: Partition::Hash { tablets: 1 },
        replicas: 1,
        min_replicas: 1,
        storage,
    })
}
