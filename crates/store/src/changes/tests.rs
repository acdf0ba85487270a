//! A window of changes against a list of all.

use std::sync::Arc;
use std::time::Duration;

use disk::MemDisk;
use model::random::Random;
use model::{
    Change, Family, LocalityGroup, LocalityId, Partition, Retention, RowRange, Settings, Storage, TableId, TabletId,
    changes,
};

use super::*;
use crate::{Job, Keeper, Tablet};

const KEPT: FamilyId = FamilyId(2);
const AGE: Duration = Duration::from_micros(400);

/// Whatever lies in memory and in files, in pages of whatever size: every change of the window once, by row and in order.
#[test]
fn a_window_has_all_its_changes_once() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut house = House::new();
        let mut all = Vec::new();
        let mut version = 0;
        for _ in 0..random.between(20, 300) {
            version += random.between(1, 4) as i64;
            let row = [b"a".as_slice(), b"a\0", b"b", b"c"][random.below(4) as usize];
            for number in 0..random.between(1, 3) as u32 {
                let at = Place { version: Timestamp(version), number };
                house.write(row, at);
                all.push((Bytes::from_static(row), at));
            }
            match random.below(40) {
                0 => house.flush(),
                1 => house.merge(),
                _ => {}
            }
        }
        all.sort();
        for _ in 0..10 {
            let since = random.chance(80).then(|| Timestamp(random.below(version as u64 + 9) as i64));
            let upto = Timestamp(random.below(version as u64 + 9) as i64);
            let now = Timestamp(version + random.below(200) as i64);
            let start = Bytes::from_static([b"".as_slice(), b"a", b"b"][random.below(3) as usize]);
            let end = random.chance(30).then(|| Bytes::from_static(b"c"));
            let query = ChangesQuery { range: RowRange { start, end }, since, ..ChangesQuery::default() };
            let within = |(row, at): &&(Bytes, Place)| {
                let kept = at.version >= now.minus(AGE) && query.range.covers(row);
                kept && query.since.is_none_or(|since| at.version > since) && at.version <= upto
            };
            let expected: Vec<(Bytes, Place)> = all.iter().filter(within).cloned().collect();
            let bytes = random.between(1, 3_000) as usize;
            assert_eq!(house.read(query.clone(), upto, now, bytes), expected, "seed {seed}, {query:?}, upto {upto}");
        }
    }
}

/// A page looks at so much: rows without a change of the window are passed over a part at a time.
#[test]
fn a_page_ends_although_it_has_found_nothing() {
    let mut house = House::new();
    for number in 0..60_000 {
        let row = format!("{number:06}");
        house.write(row.as_bytes(), Place { version: Timestamp(1), number });
    }
    let query = ChangesQuery { since: Some(Timestamp(1)), ..ChangesQuery::default() };
    let (found, resume) =
        house.tablet.view().changes(KEPT, &query, Timestamp(9), &house.schema, Timestamp(9), 1).unwrap();
    assert!(found.is_empty() && resume.is_some_and(|resume| resume.row > Bytes::from_static(b"0")));
}

struct House {
    keeper: Keeper,
    tablet: Tablet,
    schema: Arc<Schema>,
}

impl House {
    fn new() -> House {
        let options = crate::keeper::Options { table_bytes: 2 << 10, ..Default::default() };
        let (keeper, _) = Keeper::open(Arc::new(MemDisk::new()), Timestamp(0), options).unwrap();
        House { keeper, tablet: Tablet::new(TabletId(1)), schema: Arc::new(schema()) }
    }

    fn write(&mut self, row: &[u8], at: Place) {
        let (qualifier, value) = (Bytes::from_static(b"q"), Bytes::from_static(b"some value"));
        let put = Change::Put { family: FamilyId(1), qualifier, timestamp: Timestamp::SERVER, value };
        let kept = changes::record(KEPT, at, std::slice::from_ref(&put));
        let lsn = self.tablet.applied().next();
        self.tablet.apply(lsn, &Bytes::copy_from_slice(row), &[put, kept], at.version);
    }

    fn flush(&mut self) {
        let job = self.tablet.freeze(Bytes::new(), &self.schema);
        self.run(job);
    }

    fn merge(&mut self) {
        self.flush();
        let job = self.tablet.choose_all(&self.schema);
        self.run(job);
    }

    fn run(&mut self, job: Option<Job>) {
        if let Some(job) = job {
            self.tablet.install(self.keeper.run(job).unwrap());
        }
    }

    fn read(&self, mut query: ChangesQuery, upto: Timestamp, now: Timestamp, bytes: usize) -> Vec<(Bytes, Place)> {
        let mut all = Vec::new();
        loop {
            let (page, resume) = self.tablet.view().changes(KEPT, &query, upto, &self.schema, now, bytes).unwrap();
            for kept in page {
                let read = changes::read(kept.row, &kept.qualifier, &kept.value).unwrap();
                assert_eq!(read.changes.len(), 1);
                all.push((read.row, read.at));
            }
            let Some(Resume { row, after }) = resume else { return all };
            assert!(row > query.range.start || (row == query.range.start && after > query.after), "it goes on");
            (query.range.start, query.after) = (row, after);
        }
    }
}

fn schema() -> Schema {
    let family = |id, name: &str, retention, locality| Family {
        id: FamilyId(id),
        name: name.into(),
        retention,
        loosened: false,
        locality: LocalityId(locality),
        aggregate: None,
    };
    let group = |id, name: &str| LocalityGroup { id: LocalityId(id), name: name.into(), ..LocalityGroup::default() };
    let localities = vec![group(0, "default"), group(1, model::settings::CHANGES)];
    let changes = Some(family(2, model::settings::CHANGES, Retention::Age(AGE), 1));
    Schema {
        table: TableId(1),
        name: "t".into(),
        version: 1,
        families: vec![family(1, "f", Retention::Keep, 0)],
        next_family: FamilyId(3),
        partition: Partition::Hash { tablets: 1 },
        replicas: 1,
        min_replicas: 1,
        storage: Storage { localities, next_locality: LocalityId(2), ..Storage::default() },
        settings: Settings { changes, ..Settings::default() },
    }
}
