//! Reads against a model that knows nothing of keys, sequences and merges; and that reads pass over what they do not want.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use disk::MemDisk;
use model::random::Random;
use model::storage::{Filter, LocalityGroup};
use model::{
    Change, ColumnFilter, Family, FamilyId, LocalityId, Partition, Retention, Row, RowRange, Storage, TableId, TabletId,
};

use super::*;
use crate::{Keeper, Tablet, View};

const NOW: Timestamp = Timestamp(1_000_000_000);

/// Random writes, flushes and merges, then random reads of what is in a live and a frozen memtable and in tables.
#[test]
fn reads_find_what_was_written() {
    for seed in 0..6 {
        let mut story = Story::new(seed);
        for _ in 0..4 {
            for _ in 0..story.random.between(1, 150) {
                story.write();
            }
            story.settle();
            for _ in 0..60 {
                story.read();
            }
        }
    }
}

/// The engine goes to what is wanted: of a thousand columns with a hundred versions each it looks at few.
#[test]
fn what_is_not_wanted_is_passed_over() {
    for flushed in [false, true] {
        let mut house = House::new();
        for version in 1..=100 {
            let columns = (0..1000).map(|n| put(1, &format!("q{n:03}"), version, "v")).collect::<Vec<_>>();
            house.apply(b"row", &columns);
        }
        house.apply(b"row", &[put(2, "", 1, "other")]);
        if flushed {
            house.flush();
        }
        let view = house.tablet.view();
        let read = |options: ReadOptions| {
            let schema = schema();
            let mut reader = Reader::of_row(&options, &schema, NOW);
            let cells = view.read_row(&mut reader, &key::row_start(b"row")).unwrap();
            // About so many entries.
            (cells.len(), reader.looked() / 60)
        };
        let column = |qualifier: &'static str| ColumnFilter {
            family: FamilyId(1),
            qualifier: Some(Bytes::from_static(qualifier.as_bytes())),
        };
        let one = ReadOptions { columns: vec![column("q500")], ..ReadOptions::default() };
        let (cells, looked) = read(one.clone());
        assert!(cells == 1 && looked < 50, "{cells} {looked}");
        let two = ReadOptions { columns: vec![column("q900"), column("q100")], versions: 3, ..one.clone() };
        let (cells, looked) = read(two);
        assert!(cells == 6 && looked < 100, "{cells} {looked}");
        let family =
            ReadOptions { columns: vec![ColumnFilter { family: FamilyId(2), qualifier: None }], ..one.clone() };
        let (cells, looked) = read(family);
        assert!(cells == 1 && looked < 50, "{cells} {looked}");
        let old = ReadOptions { before: Some(Timestamp(11)), since: Some(Timestamp(9)), versions: 9, ..one };
        let (cells, looked) = read(old);
        assert!(cells == 2 && looked < 100, "{cells} {looked}");
        let (cells, looked) = read(ReadOptions::default());
        assert!(cells == 1001 && looked < 15_000, "{cells} {looked}");
    }
}

/// A row that is read again is kept, as its tables have it: what is in memory comes on top, other rows' flushes leave it, and
/// its own take its place.
#[test]
fn a_row_that_is_read_often_is_kept() {
    let mut house = House::new();
    let read = |house: &House| {
        let (view, options) = (house.tablet.view(), ReadOptions::default());
        let row = view.row(b"row", &options, &schema(), NOW).unwrap();
        row.map(|row| String::from_utf8(row.cells[0].value.to_vec()).unwrap())
    };
    let kept = |house: &House| {
        let (view, start) = (house.tablet.view(), key::row_start(b"row"));
        let hash = filter::hash(&start);
        let tables = view.version.for_row(&start).filter(|table| table.may_hold(&start, hash));
        let numbers: Vec<u64> = tables.map(|table| table.cached_in().1).collect();
        house.keeper.cache().row(&numbers, &start, hash).is_some()
    };
    house.apply(b"row", &[put(2, "", 1, "one")]);
    house.flush();
    for expected in [false, true, true] {
        assert_eq!(read(&house).as_deref(), Some("one"));
        assert_eq!(kept(&house), expected, "the first read brings the block, the second keeps the row");
    }
    house.apply(b"row", &[put(2, "", 2, "two")]);
    assert_eq!((read(&house).as_deref(), kept(&house)), (Some("two"), true));
    house.flush();
    assert!(!kept(&house));
    (0..3).for_each(|_| assert_eq!(read(&house).as_deref(), Some("two")));
    assert!(kept(&house));
    house.apply(b"other", &[put(2, "", 2, "x")]);
    house.flush();
    assert!(kept(&house), "another row's flush changes nothing");
    house.apply(b"row", &[Change::DeleteRow]);
    assert_eq!(read(&house), None);
    house.flush();
    let job = house.tablet.choose_all(&schema());
    house.run(job);
    (0..3).for_each(|_| assert_eq!(read(&house), None));
}

/// However many rows were deleted, a page is done soon, and tells where to go on.
#[test]
fn a_page_ends_although_it_has_found_nothing() {
    let mut house = House::new();
    for n in 0..30_000u64 {
        house.apply(&n.to_be_bytes(), &[put(1, "", 1, "v"), Change::DeleteRow]);
    }
    house.apply(b"\0alive first", &[put(1, "", 1, "v")]);
    house.apply(b"alive last", &[put(1, "", 1, "v")]);
    let (view, schema, options) = (house.tablet.view(), schema(), ReadOptions::default());
    let (mut range, mut pages, mut found) = (RowRange::default(), 0, Vec::new());
    loop {
        let (rows, resume) = view.scan(&range, &options, &schema, NOW, 10, 1000).unwrap();
        found.extend(rows.into_iter().map(|row| row.key));
        pages += 1;
        let Some(resume) = resume else { break };
        assert!(resume > range.start, "it gets on");
        range.start = resume;
    }
    assert!((3..20).contains(&pages), "{pages}");
    assert_eq!(found, [&b"\0alive first"[..], b"alive last"]);
    let (mut range, mut pages, mut found) = (RowRange::default(), 0, Vec::new());
    loop {
        let (rows, resume) = view.scan_back(&range, &options, &schema, NOW, 10, 1000).unwrap();
        found.extend(rows.into_iter().map(|row| row.key));
        pages += 1;
        let Some(resume) = resume else { break };
        assert!(range.end.as_ref().is_none_or(|end| resume < *end), "it gets on");
        range.end = Some(resume);
    }
    assert!((3..20).contains(&pages), "{pages}");
    assert_eq!(found, [&b"alive last"[..], b"\0alive first"]);
}

// --- the model

/// Rows, their columns by family and qualifier, and of those the versions by time. A change does at once what it says.
type Model = BTreeMap<Vec<u8>, BTreeMap<(u32, Vec<u8>), BTreeMap<i64, Bytes>>>;

fn change(model: &mut Model, row: &[u8], change: &Change) {
    let columns = model.entry(row.to_vec()).or_default();
    match change {
        Change::Put { family, qualifier, timestamp, value } => {
            let versions = columns.entry((family.0, qualifier.to_vec())).or_default();
            versions.insert(timestamp.0, value.clone());
        }
        Change::DeleteCell { family, qualifier, timestamp } => {
            if let Some(versions) = columns.get_mut(&(family.0, qualifier.to_vec())) {
                versions.remove(&timestamp.0);
            }
        }
        Change::DeleteColumn { family, qualifier } => _ = columns.remove(&(family.0, qualifier.to_vec())),
        Change::DeleteFamily { family } => columns.retain(|(other, _), _| *other != family.0),
        Change::DeleteRow => columns.clear(),
    }
}

/// What a reader is to see of a row.
fn expected(model: &Model, row: &[u8], options: &ReadOptions) -> Option<Row> {
    let mut cells = Vec::new();
    for ((family, qualifier), versions) in model.get(row)? {
        let wanted = |column: &ColumnFilter| {
            column.family.0 == *family && column.qualifier.as_ref().is_none_or(|wanted| wanted == qualifier)
        };
        if !options.columns.is_empty() && !options.columns.iter().any(wanted) {
            continue;
        }
        let newest_first = versions.iter().rev();
        let kept: Vec<_> = match family {
            1 => newest_first.collect(),
            2 => newest_first.take(3).collect(),
            3 => newest_first.filter(|(timestamp, _)| **timestamp >= NOW.0 - 20).collect(),
            // It was dropped.
            _ => continue,
        };
        let since = options.since.map_or(i64::MIN, |since| since.0);
        let of_the_time = kept.into_iter().filter(|(timestamp, _)| {
            **timestamp >= since && options.before.is_none_or(|before| **timestamp < before.0)
        });
        for (timestamp, value) in of_the_time.take(options.versions as usize) {
            let (family, qualifier) = (FamilyId(*family), Bytes::from(qualifier.clone()));
            cells.push(Cell { family, qualifier, timestamp: Timestamp(*timestamp), value: value.clone() });
        }
    }
    (!cells.is_empty()).then(|| Row { key: Bytes::copy_from_slice(row), cells })
}

struct Story {
    random: Random,
    house: House,
    model: Model,
}

impl Story {
    fn new(seed: u64) -> Story {
        Story { random: Random::new(seed), house: House::new(), model: Model::new() }
    }

    fn row(&mut self) -> Vec<u8> {
        let rows: [&[u8]; 9] = [b"a", b"a\0", b"a\0\xff", b"ab", b"b", b"c", b"d", b"\xff", b"\xff\xff"];
        self.random.pick(&rows).unwrap().to_vec()
    }

    fn qualifier(&mut self) -> Bytes {
        match self.random.below(20) {
            0 => Bytes::new(),
            1 => Bytes::from_static(b"1\0"),
            n => Bytes::from(n.to_string()),
        }
    }

    fn write(&mut self) {
        let row = self.row();
        let changes: Vec<Change> = (0..self.random.between(1, 12)).map(|_| self.change()).collect();
        self.house.apply(&row, &changes);
        changes.iter().for_each(|made| change(&mut self.model, &row, made));
    }

    fn change(&mut self) -> Change {
        let (family, qualifier) = (FamilyId(self.random.between(1, 5) as u32), self.qualifier());
        let timestamp = Timestamp(NOW.0 - self.random.below(40) as i64);
        match self.random.below(300) {
            0 => Change::DeleteRow,
            1..4 => Change::DeleteFamily { family },
            4..10 => Change::DeleteColumn { family, qualifier },
            // What was given up by its rank comes to light again, unless a merge came between.
            10..30 if family.0 != 2 => Change::DeleteCell { family, qualifier, timestamp },
            _ => {
                let len = if self.random.chance(3) { 2000 } else { self.random.below(10) };
                let value = Bytes::from(vec![self.random.draw() as u8; len as usize]);
                Change::Put { family, qualifier, timestamp, value }
            }
        }
    }

    fn settle(&mut self) {
        match self.random.below(6) {
            0 => {}
            1..4 => self.house.flush(),
            4 => _ = self.house.tablet.freeze(Bytes::new(), &schema()),
            _ => {
                self.house.flush();
                let job = self.house.tablet.choose_all(&schema());
                self.house.run(job);
            }
        }
    }

    fn options(&mut self) -> ReadOptions {
        let mut options = ReadOptions { versions: self.random.between(1, 5) as u32, ..ReadOptions::default() };
        if self.random.chance(20) {
            options.versions = u32::MAX;
        }
        if self.random.chance(50) {
            for _ in 0..self.random.between(1, 5) {
                let family = FamilyId(self.random.between(1, 5) as u32);
                let qualifier = self.random.chance(70).then(|| self.qualifier());
                options.columns.push(ColumnFilter { family, qualifier });
            }
        }
        let mut time = |percent| {
            let some = self.random.chance(percent);
            some.then(|| Timestamp(NOW.0 - self.random.below(45) as i64 + 2))
        };
        (options.since, options.before) = (time(30), time(30));
        options
    }

    fn read(&mut self) {
        let (view, schema, options) = (self.house.tablet.view(), schema(), self.options());
        let row = self.row();
        let found = view.row(&row, &options, &schema, NOW).unwrap();
        assert_eq!(found, expected(&self.model, &row, &options), "{options:?}");

        let keys: Vec<Bytes> = (0..self.random.below(12)).map(|_| Bytes::from(self.row())).collect();
        let each: Vec<_> = keys.iter().map(|key| expected(&self.model, key, &options)).collect();
        assert_eq!(view.rows(&keys, &options, &schema, NOW).unwrap(), each, "{options:?}");

        let start = if self.random.chance(50) { Bytes::new() } else { Bytes::from(self.row()) };
        let range = RowRange { start, end: self.random.chance(50).then(|| Bytes::from(self.row())) };
        let mut all: Vec<Row> = Vec::new();
        for row in self.model.keys().filter(|row| range.covers(row)) {
            all.extend(expected(&self.model, row, &options));
        }
        assert_eq!(self.pages(&view, &range, &options, false), all, "{range:?} {options:?}");
        all.reverse();
        assert_eq!(self.pages(&view, &range, &options, true), all, "{range:?} {options:?}");
    }

    /// A scan in pages of random sizes.
    fn pages(&mut self, view: &View, range: &RowRange, options: &ReadOptions, back: bool) -> Vec<Row> {
        let (mut range, mut all, schema) = (range.clone(), Vec::new(), schema());
        loop {
            let (rows, bytes) = (self.random.between(1, 12) as u32, self.random.below(20_000) as usize);
            let page = match back {
                false => view.scan(&range, options, &schema, NOW, rows, bytes),
                true => view.scan_back(&range, options, &schema, NOW, rows, bytes),
            };
            let (page, resume) = page.unwrap();
            assert!(page.len() <= rows as usize);
            all.extend(page);
            match resume {
                None => return all,
                Some(resume) if back => range.end = Some(resume),
                Some(resume) => range.start = resume,
            }
        }
    }
}

struct House {
    keeper: Keeper,
    tablet: Tablet,
}

impl House {
    fn new() -> House {
        // Small tables, so that runs have several.
        let options = crate::keeper::Options { table_bytes: 2 << 10, ..Default::default() };
        let (keeper, _) = Keeper::open(Arc::new(MemDisk::new()), Timestamp(0), options).unwrap();
        House { keeper, tablet: Tablet::new(TabletId(1)) }
    }

    fn apply(&mut self, row: &[u8], changes: &[Change]) {
        let lsn = self.tablet.applied().next();
        self.tablet.apply(lsn, &Bytes::copy_from_slice(row), changes, NOW);
    }

    fn flush(&mut self) {
        let job = self.tablet.freeze(Bytes::new(), &schema());
        self.run(job);
    }

    fn run(&mut self, job: Option<crate::Job>) {
        if let Some(job) = job {
            self.tablet.install(self.keeper.run(job).unwrap());
        }
    }
}

fn put(family: u32, qualifier: &str, timestamp: i64, value: &'static str) -> Change {
    Change::Put {
        family: FamilyId(family),
        qualifier: Bytes::copy_from_slice(qualifier.as_bytes()),
        timestamp: Timestamp(timestamp),
        value: Bytes::from_static(value.as_bytes()),
    }
}

fn schema() -> Arc<Schema> {
    let retentions = [Retention::Keep, Retention::Versions(3), Retention::Age(Duration::from_micros(20))];
    let family = |(id, retention): (u32, Retention)| Family {
        id: FamilyId(id),
        name: id.to_string(),
        retention,
        loosened: false,
        locality: LocalityId(id % 2),
        aggregate: None,
    };
    let group = |id, filter| LocalityGroup {
        id: LocalityId(id),
        name: id.to_string(),
        filter,
        block_bytes: 1 << 10,
        ..LocalityGroup::default()
    };
    let localities = vec![group(0, Filter::Rows), group(1, Filter::Columns)];
    let storage = Storage { localities, next_locality: LocalityId(2), ..Storage::default() };
    Arc::new(Schema {
        table: TableId(1),
        name: "t".into(),
        version: 1,
        families: (1..).zip(retentions).map(family).collect(),
        // Family 4 was dropped.
        next_family: FamilyId(5),
        partition: Partition::Hash { tablets: 1 },
        replicas: 1,
        min_replicas: 1,
        storage,
        settings: model::Settings::default(),
    })
}
