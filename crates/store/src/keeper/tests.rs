use std::collections::BTreeSet;
use std::time::Duration;

use disk::MemDisk;
use model::checkpoint::{Checkpoint, CheckpointId, Part, TableCopy, TabletCopy};
use model::random::Random;
use model::{
    Cell, Change, Compaction, Epoch, Family, FamilyId, LocalityGroup, LocalityId, NodeId, Partition, ReadOptions,
    Retention, Row, RowRange, Schema, Slice, TableId, Timestamp,
};

use super::*;
use crate::checkpoint::Added;
use crate::compaction::{Choice, Urgency};
use crate::digest::{BUCKETS, Sums};
use crate::job::JobKind;

const T: TabletId = TabletId(7);

#[test]
fn what_was_flushed_is_there_after_a_restart() {
    let mut house = House::new();
    house.write("a", "1");
    house.write("b", "2");
    house.flush("note 2").unwrap();
    house.write("a", "3");
    house.restart();
    assert_eq!((house.tablet.flushed(), &house.note[..]), (Lsn(2), &b"note 2"[..]));
    assert_eq!(house.scan(), "a=1 b=2");
}

/// A table is an edit in the log's terms: `freeze` gives nothing out when nothing came, and a record without changes is
/// something that came.
#[test]
fn a_flush_without_changes_moves_only_the_mark() {
    let mut house = House::new();
    assert!(house.tablet.freeze(Bytes::new(), &schema()).is_none());
    house.tablet.skip(Lsn(1));
    house.flush("skipped").unwrap();
    assert!(house.tablet.freeze(Bytes::new(), &schema()).is_none());
    assert_eq!(house.files(), Vec::<String>::new());
    house.restart();
    assert_eq!((house.tablet.flushed(), &house.note[..]), (Lsn(1), &b"skipped"[..]));
}

#[test]
fn writes_go_on_while_a_flush_runs() {
    let mut house = House::new();
    house.write("a", "1");
    let job = house.tablet.freeze(Bytes::new(), &schema()).unwrap();
    house.write("a", "2");
    let (before, between) = (house.tablet.view(), house.scan());
    assert!(house.tablet.freeze(Bytes::new(), &schema()).is_none(), "one flush at a time");
    let done = house.keeper.run(job).unwrap();
    house.tablet.install(done);
    assert_eq!((house.scan(), between), ("a=2".into(), "a=2".into()));
    assert_eq!(scan(&before), "a=2");
    assert_eq!((house.tablet.flushed(), house.tablet.applied()), (Lsn(1), Lsn(2)));
}

/// Old files stay as long as a view needs them, and no longer.
#[test]
fn a_view_pins_its_files() {
    let mut house = House::new();
    for n in 0..4 {
        house.write("a", &n.to_string());
        house.flush("").unwrap();
    }
    let old = house.tablet.view();
    assert_eq!(old.files().len(), 4);
    house.merge().unwrap();
    assert_eq!(house.files().len(), 5);
    assert_eq!((scan(&old), house.scan()), ("a=3".into(), "a=3".into()));
    drop(old);
    house.keeper.sweep().unwrap();
    assert_eq!(house.files().len(), 1);
    house.keeper.run(Job::Drop { tablet: T, date: Timestamp(0) }).unwrap();
    house.tablet = Tablet::new(T);
    house.keeper.sweep().unwrap();
    assert_eq!(house.files().len(), 0);
    house.restart();
    assert_eq!(house.tablet.flushed(), Lsn::ZERO);
}

/// Space comes back once nothing older can be covered.
#[test]
fn a_merge_of_all_leaves_no_deletions() {
    let mut house = House::new();
    for n in 0..3 {
        house.write("a", &n.to_string());
        house.flush("").unwrap();
    }
    house.apply("a", &[Change::DeleteRow]);
    house.flush("").unwrap();
    house.merge().unwrap();
    assert_eq!(house.tablet.view().files(), []);
    assert_eq!((house.scan(), house.tablet.flushed()), (String::new(), Lsn(4)));
    house.restart();
    assert_eq!((house.scan(), house.tablet.flushed()), (String::new(), Lsn(4)));
}

/// A merge without the oldest table may drop a version that retention gave up, but not bring back the value that it
/// had replaced.
#[test]
fn a_replaced_value_never_returns() {
    let mut house = House::new();
    let put = |version, value: &'static str| {
        let (family, qualifier, value) = (FamilyId(2), Bytes::new(), Bytes::from_static(value.as_bytes()));
        Change::Put { family, qualifier, timestamp: Timestamp(version), value }
    };
    for changes in [vec![put(5, "replaced")], vec![put(5, "given up")], vec![put(6, "x"), put(7, "y")]] {
        house.apply("a", &changes);
        house.flush("").unwrap();
    }
    let job = house.merge_of(1..3);
    house.run(Some(job)).unwrap();
    let delete = |version| {
        let (family, qualifier) = (FamilyId(2), Bytes::new());
        Change::DeleteCell { family, qualifier, timestamp: Timestamp(version) }
    };
    house.apply("a", &[delete(7)]);
    assert_eq!(house.scan(), "a=x");
    house.apply("a", &[delete(6)]);
    assert_eq!(house.scan(), "");
}

#[test]
fn a_full_disk_fails_the_job_and_leaves_nothing_behind() {
    let mut house = House::new();
    // Of what repeats itself less would be written.
    let letter = |n: u32| char::from(b'a' + (xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()) % 26) as u8);
    house.write("a", &(0..10_000).map(letter).collect::<String>());
    for room in (0..11_000).step_by(500) {
        house.disk.set_capacity(Some(house.disk.used() + room));
        match house.flush("note") {
            Ok(()) => assert!(room > 9_000),
            Err(error) => {
                assert!(error.is_full(), "{error}");
                house.keeper.sweep().unwrap();
                assert_eq!((house.files(), house.disk.list(manifest::DIR).unwrap()), (vec![], vec![]));
            }
        }
        assert_eq!(house.scan().len(), 10_002);
    }
    assert_eq!(house.tablet.flushed(), Lsn(1));
    house.restart();
    assert_eq!((house.scan().len(), &house.note[..]), (10_002, &b"note"[..]));
}

/// The checkpoint of one replica becomes another one's tablet.
#[test]
fn a_checkpoint_is_adopted() {
    let (mut from, mut to) = (House::new(), House::new());
    for n in 0..3 {
        from.write(&format!("row{n}"), &n.to_string());
        from.flush("their note").unwrap();
    }
    from.write("not flushed", "x");
    to.write("old", "x");
    to.flush("old note").unwrap();
    let view = from.tablet.view();
    copy(&from, &view, &to, 1, false);
    let files = view.files();
    let short = Job::Adopt { tablet: T, attempt: 1, files: files[..2].to_vec(), upto: Lsn(1), note: Bytes::new() };
    assert!(to.keeper.run(short).unwrap_err().is_corrupt(), "tables younger than the checkpoint");
    let (upto, note) = (view.flushed(), view.note().clone());
    let done = to.keeper.run(Job::Adopt { tablet: T, attempt: 1, files, upto, note }).unwrap();
    to.tablet.install(done);
    assert_eq!((to.scan(), to.tablet.applied()), ("row0=0 row1=1 row2=2".into(), Lsn(3)));
    to.write("new", "y");
    to.flush("").unwrap();
    to.restart();
    assert_eq!((to.scan(), to.tablet.flushed()), ("new=y row0=0 row1=1 row2=2".into(), Lsn(4)));
    assert_eq!((to.files().len(), to.disk.list(INCOMING).unwrap().len()), (4, 0));
}

/// A learner keeps its attempt when its primary offers younger files under it, which may be shorter (found by `sim`, house
/// seed 5371: whatever stood behind them made every further attempt fail).
#[test]
fn a_second_offer_begins_its_files_anew() {
    let (mut from, mut to) = (House::new(), House::new());
    (0..40).for_each(|n| from.write(&format!("row{n}"), "long ago"));
    from.flush("").unwrap();
    copy(&from, &from.tablet.view(), &to, 1, false);
    let mut from = House::new();
    from.write("a", "1");
    from.flush("").unwrap();
    let view = from.tablet.view();
    copy(&from, &view, &to, 1, false);
    let (upto, note) = (view.flushed(), view.note().clone());
    let done = to.keeper.run(Job::Adopt { tablet: T, attempt: 1, files: view.files(), upto, note }).unwrap();
    to.tablet.install(done);
    assert_eq!(to.scan(), "a=1");
}

/// What came damaged over the wire is not adopted, and what was there stays.
#[test]
fn a_damaged_checkpoint_is_refused() {
    let (mut from, mut to) = (House::new(), House::new());
    from.write("a", "1");
    from.flush("").unwrap();
    to.write("old", "x");
    to.flush("old note").unwrap();
    let view = from.tablet.view();
    copy(&from, &view, &to, 1, true);
    let adopt = |attempt| Job::Adopt { tablet: T, attempt, files: view.files(), upto: Lsn(1), note: Bytes::new() };
    assert!(to.keeper.run(adopt(1)).unwrap_err().is_corrupt());
    assert!(to.keeper.run(adopt(9)).is_err(), "nothing came of this attempt");
    assert_eq!(to.scan(), "old=x");
    copy(&from, &view, &to, 2, false);
    assert_eq!(to.disk.list(INCOMING).unwrap().len(), 1, "the pieces of the first attempt are gone");
    let done = to.keeper.run(adopt(2)).unwrap();
    to.tablet.install(done);
    assert_eq!(to.scan(), "a=1");
}

/// A locality group in memory: its tables are read once, then its reads touch no file; one that is too large is read as any
/// other.
#[test]
fn a_group_in_memory_is_read_once() {
    for (cache_bytes, fits) in [(1 << 20, true), (1 << 10, false)] {
        let mut house = House::with(Options { cache_bytes, ..Options::default() });
        let schema = Arc::make_mut(&mut house.schema);
        schema.storage.localities[0].in_memory = true;
        for n in 0..20 {
            house.write(&format!("row{n}"), &"x".repeat(1000));
        }
        house.flush("").unwrap();
        let view = house.tablet.view();
        let read = |row: &[u8]| view.row(row, &ReadOptions::default(), &house.schema, Timestamp(0)).unwrap().is_some();
        assert!(view.touches_files(b"row7") && read(b"row7"));
        assert_eq!(
            (view.version.tables().all(|table| table.is_loaded()), house.keeper.cache().stats().loaded > 0),
            (fits, fits)
        );
        assert!(read(b"row12") && (!fits || !view.touches_files(b"row12")));
    }
}

/// A checkpoint costs names only, stays as it was while the tablet goes on, and can be opened like a node's own folder.
#[test]
fn a_checkpoint_stays_as_it_was() {
    let mut house = House::new();
    for n in 0..4 {
        house.write(&format!("row{n}"), "then");
        house.flush("then").unwrap();
    }
    let used = house.disk.used();
    let job = house.checkpoint("monday", 1);
    let Ok(Done::Checkpointed(Added::Part(part))) = house.keeper.run(job.clone()) else { panic!("it makes one") };
    assert!(part.copy.bytes > 0 && house.disk.used() - used < 1000, "only names and small files");
    assert_eq!(part.copy.upto, Lsn(4));
    house.keeper.run(job).unwrap();
    let other = house.checkpoint("monday", 2);
    assert!(matches!(house.keeper.run(other), Ok(Done::Checkpointed(Added::NameTaken))), "the name is taken");
    house.write("row1", "now");
    house.merge().unwrap();
    house.flush("now").unwrap();
    house.keeper.sweep().unwrap();
    house.disk.crash(1);
    house.restart();
    assert_eq!(house.scan(), "row0=then row1=now row2=then row3=then");
    let disk: Arc<dyn Disk> = Arc::new(house.disk.clone());
    let below: Arc<dyn Disk> = Arc::new(disk::Below::new(Arc::clone(&disk), "checkpoints/monday").unwrap());
    assert!(!crate::fsck::check(&below).is_damaged());
    let (_, mut tablets) = Keeper::open(below, Timestamp(0), Options::default()).unwrap();
    let (tablet, note) = tablets.sound.remove(&T).unwrap();
    assert_eq!((scan(&tablet.view()), &note[..]), ("row0=then row1=then row2=then row3=then".into(), &b"then"[..]));
    assert!(!checkpoint::remove(&*disk, "monday", Some(CheckpointId(2))).unwrap(), "that is another one");
    assert!(checkpoint::remove(&*disk, "monday", Some(CheckpointId(1))).unwrap());
    assert!(!checkpoint::remove(&*disk, "monday", None).unwrap());
    assert_eq!(house.scan(), "row0=then row1=now row2=then row3=then");
}

/// What a node throws away goes to the trash at once, also under a view: its tables cannot get a second name any more.
#[test]
fn a_checkpoint_of_what_was_thrown_away_is_asked_for_again() {
    let mut house = House::new();
    house.write("row", "then");
    house.flush("then").unwrap();
    let (late, missing) = (house.checkpoint("monday", 1), house.checkpoint("tuesday", 2));
    let path = house.tablet.view().version.tables().next().unwrap().path().to_owned();
    house.disk.rename(&path, "elsewhere").unwrap();
    assert!(house.keeper.run(missing).is_err(), "a table that a manifest names is there");
    house.disk.rename("elsewhere", &path).unwrap();
    house.keeper.run(Job::Drop { tablet: T, date: Timestamp(0) }).unwrap();
    assert!(matches!(house.keeper.run(late), Ok(Done::Checkpointed(Added::Stale))));
}

/// It is read without a log, and nothing is written: also where it was copied to.
#[test]
fn a_checkpoint_is_read_as_it_is() {
    let mut house = House::new();
    let all = |view: &View, schema: &Schema| {
        view.scan(&RowRange::default(), &ReadOptions::default(), schema, Timestamp(0), 100, 1 << 20).unwrap().0.len()
    };
    (0..30).for_each(|n| house.write(&format!("row{n}"), "x"));
    house.flush("").unwrap();
    let Ok(Done::Checkpointed(Added::Part(part))) = house.keeper.run(house.checkpoint("monday", 1)) else { panic!() };
    let disk: Arc<dyn Disk> = Arc::new(house.disk.clone());
    let below: Arc<dyn Disk> = Arc::new(disk::Below::new(Arc::clone(&disk), "checkpoints/monday").unwrap());
    let folder = checkpoint::copy::read(&*below).unwrap();
    assert_eq!((folder.id, folder.sealed.as_ref()), (CheckpointId(1), None));
    assert_eq!(folder.parts.values().collect::<Vec<_>>(), [&*part]);
    let files = || ["", "tables", "manifest", "parts"].map(|dir| below.list(dir).unwrap());
    let before = files();
    let view = checkpoint::copy::open(&below, &part).unwrap();
    assert_eq!((all(&view, &house.schema), checkpoint::copy::verify(&view).unwrap()), (30, part.copy.bytes));
    assert_eq!(files(), before);

    let checkpoint = Checkpoint {
        name: "monday".into(),
        id: CheckpointId(1),
        begun: Timestamp(7),
        tables: vec![TableCopy { schema: part.schema.clone(), tablets: vec![part.copy.clone()] }],
    };
    let seal = |checkpoint: &Checkpoint| {
        let order = checkpoint::Order::Seal { node: NodeId(1), checkpoint: checkpoint.clone() };
        match house.keeper.run(Job::Checkpoints(order)).unwrap() {
            Done::Checkpoints(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    };
    let mut other = checkpoint.clone();
    other.tables[0].tablets[0].upto = Lsn(31);
    assert!(matches!(seal(&other), checkpoint::Outcome::Unfit(_)), "not what is here");
    assert!(matches!(seal(&Checkpoint { id: CheckpointId(2), ..checkpoint.clone() }), checkpoint::Outcome::Unfit(_)));
    assert!(!crate::fsck::check(&disk).checkpoints[0].complete);
    assert_eq!(seal(&checkpoint), checkpoint::Outcome::Sealed);
    assert_eq!(checkpoint::copy::read(&*below).unwrap().sealed, Some(checkpoint.clone()));
    let held = checkpoint::list(&*disk, Some("monday")).unwrap().remove(0);
    assert_eq!((held.id, held.sealed, held.tablets), (Some(CheckpointId(1)), Some(checkpoint), vec![T]));
    assert_eq!((held.bytes, held.damage), (part.copy.bytes, None));

    let checked = crate::fsck::check(&disk);
    assert!(!checked.is_damaged() && checked.checkpoints[0].complete, "{checked:?}");
    let table = format!("checkpoints/monday/{}", house.files()[0]);
    assert!(house.disk.flip(&table, 20, 1));
    let damage = checkpoint::copy::verify(&checkpoint::copy::open(&below, &part).unwrap()).unwrap_err();
    assert!(damage.is_corrupt());
    let checked = crate::fsck::check(&disk);
    assert!(checked.findings.iter().any(|finding| finding.damage && finding.file == table), "{checked:?}");
}

/// How tables are read for a merge changes nothing of what comes of it; also what is damaged is named as ever.
#[test]
fn a_merge_may_read_past_the_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk::KernelDisk::open(folder.path()).unwrap());
    let mut found = Vec::new();
    for direct in [false, true] {
        let root = format!("{direct}");
        disk.create_dir(&root).unwrap();
        let below: Arc<dyn Disk> = Arc::new(disk::Below::new(Arc::clone(&disk), &root).unwrap());
        let options = Options { direct, ..Options::default() };
        let mut house = House::new();
        house.keeper = Keeper::open(Arc::clone(&below), Timestamp(0), options).unwrap().0;
        for round in 0..4 {
            // Large enough for pieces that are read directly.
            (0..40).for_each(|row| house.write(&format!("row{row}"), &format!("{round}{row:08}").repeat(2_000)));
            house.flush("").unwrap();
        }
        house.merge().unwrap();
        assert_eq!(house.tablet.view().files().len(), 1);
        let file = below.open(&house.tablet.view().files()[0].name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        found.push((house.scan(), bytes));
    }
    assert!(found[0] == found[1] && found[0].0.len() > 500_000);
}

/// A part that was said to be there is there after a power failure at any later moment; and one that was not does no harm.
#[test]
fn a_checkpoint_outlives_any_crash() {
    for operation in 0.. {
        let mut house = House::new();
        (0..3).for_each(|n| house.write(&format!("row{n}"), "x"));
        house.flush("").unwrap();
        house.disk.power_fails_after(operation);
        let done = house.keeper.run(house.checkpoint("monday", 1)).is_ok();
        house.disk.crash(operation);
        house.restart();
        let disk: Arc<dyn Disk> = Arc::new(house.disk.clone());
        let held = checkpoint::list(&*disk, None).unwrap();
        assert!(held.iter().all(|held| held.damage.is_none()), "{held:?}");
        let parts: usize = held.iter().map(|held| held.tablets.len()).sum();
        assert!(parts == 1 || !done, "{held:?}");
        if parts == 1 {
            let below: Arc<dyn Disk> = Arc::new(disk::Below::new(Arc::clone(&disk), "checkpoints/monday").unwrap());
            let folder = checkpoint::copy::read(&*below).unwrap();
            let view = checkpoint::copy::open(&below, &folder.parts[&T]).unwrap();
            checkpoint::copy::verify(&view).unwrap();
        }
        house.keeper.run(house.checkpoint("monday", 1)).unwrap();
        assert_eq!(checkpoint::list(&*disk, None).unwrap()[0].tablets, [T], "it can be tried again");
        if done {
            return;
        }
    }
}

/// A power failure at every single operation of each kind of job: before or after, never between.
#[test]
fn a_job_happens_as_a_whole_or_not_at_all() {
    for kind in [JobKind::Flush, JobKind::Merge, JobKind::Drop, JobKind::Adopt] {
        for operation in 0.. {
            let mut house = House::new();
            for n in 0..4 {
                house.write("a", &n.to_string());
                house.flush(&format!("note {n}")).unwrap();
            }
            house.write("b", "4");
            let job = match kind {
                JobKind::Flush => house.tablet.freeze(Bytes::from_static(b"new"), &schema()).unwrap(),
                JobKind::Merge => house.tablet.choose(&schema(), Urgency::Busy).unwrap(),
                JobKind::Drop => Job::Drop { tablet: T, date: Timestamp(0) },
                _ => {
                    let mut from = House::new();
                    from.write("c", "5");
                    from.flush("").unwrap();
                    copy(&from, &from.tablet.view(), &house, 1, false);
                    let (files, note) = (from.tablet.view().files(), Bytes::from_static(b"theirs"));
                    Job::Adopt { tablet: T, attempt: 1, files, upto: Lsn(1), note }
                }
            };
            let after = match kind {
                JobKind::Flush => ("a=3 b=4", Lsn(5), "new"),
                JobKind::Merge => ("a=3", Lsn(4), "note 3"),
                JobKind::Drop => ("", Lsn(0), ""),
                _ => ("c=5", Lsn(1), "theirs"),
            };
            house.disk.power_fails_after(operation);
            let done = house.keeper.run(job).is_ok();
            house.disk.crash(operation);
            house.restart();
            let note = String::from_utf8(house.note.to_vec()).unwrap();
            let found = (house.scan(), house.tablet.flushed(), note);
            let found = (&found.0[..], found.1, &found.2[..]);
            let before = ("a=3", Lsn(4), "note 3");
            assert!(found == after || (!done && found == before), "{kind:?} {operation}: {found:?}");
            if done {
                break;
            }
        }
    }
}

/// A sync that fails leaves the tablet as it was, and the job can be repeated; nothing that was lost is believed.
#[test]
fn a_failed_sync_fails_the_job() {
    let mut house = House::new();
    house.write("a", "1");
    house.disk.fail_next_sync();
    assert!(house.flush("").is_err());
    assert_eq!((house.tablet.flushed(), house.scan()), (Lsn::ZERO, "a=1".into()));
    house.flush("").unwrap();
    house.disk.crash(1);
    house.restart();
    assert_eq!(house.scan(), "a=1");
}

/// The engine beside a map: random changes, flushes, merges, old views, failures and crashes.
#[test]
fn the_engine_reads_like_a_map() {
    for seed in 0..200 {
        println!("seed {seed}");
        Story::new(seed).run(400);
    }
}

// --- a tablet with its disk

struct House {
    disk: MemDisk,
    keeper: Keeper,
    tablet: Tablet,
    note: Bytes,
    schema: Arc<Schema>,
    options: Options,
}

impl House {
    fn new() -> House {
        House::with(Options::default())
    }

    fn with(options: Options) -> House {
        let disk = MemDisk::new();
        let (keeper, _) = Keeper::open(Arc::new(disk.clone()), Timestamp(0), options.clone()).unwrap();
        House { disk, keeper, tablet: Tablet::new(T), note: Bytes::new(), schema: schema(), options }
    }

    /// Opens again what is on the disk; whoever wants a crash says so before.
    fn restart(&mut self) {
        self.disk.kill();
        let (keeper, Tablets { sound: mut tablets, damaged }) =
            Keeper::open(Arc::new(self.disk.clone()), Timestamp(0), self.options.clone()).unwrap();
        assert_eq!(damaged, BTreeMap::new());
        (self.tablet, self.note) = tablets.remove(&T).unwrap_or_else(|| (Tablet::new(T), Bytes::new()));
        self.keeper = keeper;
        let mut named: Vec<String> = self.tablet.view().files().into_iter().map(|file| file.name).collect();
        named.sort();
        assert_eq!(self.files(), named, "nothing is left that nobody names");
    }

    fn apply(&mut self, row: &str, changes: &[Change]) {
        let lsn = self.tablet.applied().next();
        self.tablet.apply(lsn, &Bytes::copy_from_slice(row.as_bytes()), changes, Timestamp(lsn.0 as i64));
    }

    fn write(&mut self, row: &str, value: &str) {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let (family, qualifier) = (FamilyId(1), Bytes::new());
        self.apply(row, &[Change::Put { family, qualifier, timestamp: Timestamp::SERVER, value }]);
    }

    fn flush(&mut self, note: &str) -> Result<(), Error> {
        let job = self.tablet.freeze(Bytes::copy_from_slice(note.as_bytes()), &self.schema);
        self.run(job)
    }

    fn merge(&mut self) -> Result<(), Error> {
        let job = self.tablet.choose(&self.schema, Urgency::Busy);
        self.run(job)
    }

    /// A merge of these runs, which are of one locality group and follow each other.
    fn merge_of(&mut self, runs: std::ops::Range<usize>) -> Job {
        let view = self.tablet.view();
        let runs = &view.version.runs()[runs];
        let inputs = runs.iter().flat_map(|run| run.tables()).map(|table| table.number()).collect();
        let choice = Choice { inputs, into: runs.last().unwrap().id, rewrite: false };
        self.tablet.merge(&choice, BTreeSet::from([choice.into.locality]), &self.schema)
    }

    fn run(&mut self, job: Option<Job>) -> Result<(), Error> {
        let Some(job) = job else { return Ok(()) };
        let kind = job.kind();
        match self.keeper.run(job) {
            Ok(done) => self.tablet.install(done),
            Err(error) => {
                self.tablet.failed(kind);
                return Err(error);
            }
        }
        Ok(())
    }

    fn checkpoint(&self, name: &str, id: u64) -> Job {
        let copy = TabletCopy {
            tablet: T,
            slice: Slice::Hash { bucket: 0, of: 1 },
            epoch: Epoch(1),
            upto: Lsn::ZERO,
            node: NodeId(1),
            date: Timestamp(5),
            bytes: 0,
        };
        let schema = Schema::clone(&self.schema);
        let part = Part { name: name.into(), id: CheckpointId(id), schema, copy };
        Job::Checkpoint { view: self.tablet.view(), part: Box::new(part) }
    }

    fn scan(&self) -> String {
        scan(&self.tablet.view())
    }

    fn files(&self) -> Vec<String> {
        self.disk.list(TABLES).unwrap().into_iter().map(|name| format!("{TABLES}/{name}")).collect()
    }
}

/// `row=newest value` of the whole tablet.
fn scan(view: &View) -> String {
    let range = RowRange::default();
    let (rows, _) = view.scan(&range, &ReadOptions::default(), &schema(), Timestamp(0), 99, usize::MAX).unwrap();
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let rows: Vec<_> = rows.iter().map(|row| format!("{}={}", text(&row.key), text(&row.cells[0].value))).collect();
    rows.join(" ")
}

/// Sends a checkpoint in small pieces, some byte of it wrong if told so.
fn copy(from: &House, view: &View, to: &House, attempt: u64, damage: bool) {
    for (file, info) in (0..).zip(view.files()) {
        let mut offset = 0;
        while offset < info.bytes {
            let job = Job::Fetch { view: view.clone(), file, offset, len: 100 };
            let Done::Fetched(bytes) = from.keeper.run(job).unwrap() else { panic!("a fetch fetches") };
            let mut bytes = bytes.to_vec();
            if damage && offset == 0 {
                bytes[3] ^= 16;
            }
            let piece = Job::Receive { tablet: T, attempt, file, offset, bytes: bytes.into() };
            let Done::Received { end, .. } = to.keeper.run(piece).unwrap() else { panic!("a receiver receives") };
            offset = end;
        }
        let past = Job::Fetch { view: view.clone(), file, offset, len: 100 };
        assert!(matches!(from.keeper.run(past), Ok(Done::Fetched(bytes)) if bytes.is_empty()));
    }
}

fn schema() -> Arc<Schema> {
    let second = Duration::from_secs(1);
    let retentions = [
        Retention::Keep,
        Retention::Versions(2),
        Retention::Age(second),
        Retention::Any(vec![Retention::Versions(3), Retention::Age(second)]),
        Retention::All(vec![Retention::Versions(1), Retention::Age(second / 2)]),
    ];
    let family = |(id, retention)| Family {
        id: FamilyId(id),
        name: id.to_string(),
        retention,
        loosened: false,
        locality: model::LocalityId(0),
        aggregate: None,
    };
    Arc::new(Schema {
        table: TableId(1),
        name: "t".into(),
        version: 1,
        families: (1..).zip(retentions).map(family).collect(),
        next_family: FamilyId(7),
        partition: Partition::Hash { tablets: 1 },
        replicas: 1,
        min_replicas: 1,
        storage: model::Storage::default(),
        settings: model::Settings::default(),
    })
}

// --- the model

/// Cells by family, qualifier and version; a change does at once what it says.
#[derive(Clone, Default)]
struct Model(BTreeMap<(Bytes, FamilyId, Bytes, std::cmp::Reverse<Timestamp>), Bytes>);

impl Model {
    fn apply(&mut self, row: &Bytes, changes: &[Change], chosen: Timestamp) {
        for change in changes.iter().cloned() {
            match change {
                Change::Put { family, qualifier, timestamp, value } => {
                    let timestamp = if timestamp == Timestamp::SERVER { chosen } else { timestamp };
                    self.0.insert((row.clone(), family, qualifier, std::cmp::Reverse(timestamp)), value);
                }
                Change::DeleteCell { family, qualifier, timestamp } => {
                    self.0.remove(&(row.clone(), family, qualifier, std::cmp::Reverse(timestamp)));
                }
                Change::DeleteColumn { family, qualifier } => {
                    self.0.retain(|(r, f, q, _), _| (r, f, q) != (row, &family, &qualifier));
                }
                Change::DeleteFamily { family } => self.0.retain(|(r, f, ..), _| (r, f) != (row, &family)),
                Change::DeleteRow => self.0.retain(|(r, ..), _| r != row),
            }
        }
    }

    fn rows(&self, range: &RowRange, options: &ReadOptions, schema: &Schema, now: Timestamp) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let (mut column, mut rank) = (None, 0);
        for ((row, family, qualifier, timestamp), value) in &self.0 {
            if column != Some((row, family, qualifier)) {
                (column, rank) = (Some((row, family, qualifier)), 0);
            }
            let Some(known) = schema.family_by_id(*family) else { continue };
            if known.retention.gives_up(rank, timestamp.0, now) {
                continue;
            }
            rank += 1;
            if rank <= options.versions && range.covers(row) && options.wants(*family, qualifier) {
                if rows.last().is_none_or(|last| last.key != row) {
                    rows.push(Row { key: row.clone(), cells: Vec::new() });
                }
                let (qualifier, value) = (qualifier.clone(), value.clone());
                let cell = Cell { family: *family, qualifier, timestamp: timestamp.0, value };
                rows.last_mut().unwrap().cells.push(cell);
            }
        }
        rows
    }
}

struct Record {
    row: Bytes,
    changes: Vec<Change>,
    version: Timestamp,
}

struct Story {
    random: Random,
    house: House,
    /// What a write-ahead log would have: record n has lsn n + 1.
    log: Vec<Record>,
    model: Model,
    old: Vec<(View, Model, Timestamp)>,
    /// A flush up to here has been reported as done.
    promised: Lsn,
}

impl Story {
    fn new(seed: u64) -> Story {
        let mut random = Random::new(seed);
        let table_bytes = *random.pick(&[200, 3_000, 64 << 20]).unwrap();
        let mut house = House::with(Options { table_bytes, ..Options::default() });
        if random.chance(50) {
            Arc::make_mut(&mut house.schema).storage.compaction = Compaction::Leveled;
        }
        Story { random, house, log: Vec::new(), model: Model::default(), old: Vec::new(), promised: Lsn::ZERO }
    }

    fn run(&mut self, steps: u32) {
        for _ in 0..steps {
            match self.random.below(100) {
                0..70 => self.write(),
                70..80 => self.flush(),
                80..88 => self.merge(),
                88..90 => self.old.push((self.house.tablet.view(), self.model.clone(), self.now())),
                90..92 => self.crash(),
                92 if self.random.chance(20) => self.alter(),
                _ => self.check(),
            }
        }
        self.crash();
        self.check();
        self.check_sums();
    }

    /// Families get into other locality groups, and tables are merged by another policy.
    fn alter(&mut self) {
        let schema = Arc::make_mut(&mut self.house.schema);
        let group = |id| LocalityGroup { id: LocalityId(id), ..LocalityGroup::default() };
        schema.storage.localities = (0..3).map(group).collect();
        schema.storage.compaction = *self.random.pick(&[Compaction::Tiered, Compaction::Leveled]).unwrap();
        let family = self.random.below(schema.families.len() as u64) as usize;
        schema.families[family].locality = LocalityId(self.random.below(3) as u32);
    }

    /// Whatever was flushed, merged and lost: the sums are those of a replica that has all of it in memory.
    fn check_sums(&mut self) {
        let (mut fresh, now) = (Tablet::new(T), self.now());
        for (record, lsn) in self.log.iter().zip(1..) {
            fresh.apply(Lsn(lsn), &record.row, &record.changes, record.version);
        }
        let without = if self.random.chance(50) { BTreeSet::from([FamilyId(2)]) } else { BTreeSet::new() };
        let whole = self.sums(&fresh.view(), now, u64::MAX, &without);
        let slice = self.random.below(2_000);
        let cached = self.house.keeper.cache().stats();
        assert_eq!(self.sums(&self.house.tablet.view(), now, slice, &without), whole);
        assert_eq!(self.house.keeper.cache().stats(), cached, "it is read from the disk");
        // One byte of one value shows, and where.
        let row = self.row();
        let put = |value: &'static [u8]| Change::Put {
            family: FamilyId(1),
            qualifier: Bytes::new(),
            timestamp: Timestamp::SERVER,
            value: Bytes::from_static(value),
        };
        let mut other = fresh.split(T, RowRange::default());
        other.apply(other.applied().next(), &row, &[put(b"0")], now.next());
        fresh.apply(fresh.applied().next(), &row, &[put(b"1")], now.next());
        let [one, other] = [fresh, other].map(|tablet| self.sums(&tablet.view(), now.next(), slice, &without));
        let differs = (0..BUCKETS).filter(|&at| one[at] != other[at]).collect::<Vec<_>>();
        assert_eq!(differs, [digest::bucket(&row)]);
    }

    fn sums(&self, view: &View, now: Timestamp, bytes: u64, without: &BTreeSet<FamilyId>) -> Sums {
        let (mut from, mut sums) = (Bytes::new(), Box::new([0; BUCKETS]));
        let schema = schema();
        loop {
            let (view, schema, without) = (view.clone(), Arc::clone(&schema), without.clone());
            let job = Job::Digest { view, from, bytes, schema, now, without, sums };
            let Ok(Done::Digested { sums: so_far, next, .. }) = self.house.keeper.run(job) else {
                panic!("it adds up")
            };
            let Some(next) = next else { return *so_far };
            (from, sums) = (next, so_far);
        }
    }

    fn write(&mut self) {
        let lsn = self.house.tablet.applied().next();
        let row = self.row();
        let version = Timestamp(lsn.0 as i64 * 10_000);
        let changes: Vec<_> = (0..self.random.below(4)).map(|_| self.change(version)).collect();
        if changes.is_empty() {
            self.house.tablet.skip(lsn);
        } else {
            self.house.tablet.apply(lsn, &row, &changes, version);
        }
        self.model.apply(&row, &changes, version);
        self.log.push(Record { row, changes, version });
    }

    fn row(&mut self) -> Bytes {
        let rows: [&[u8]; 8] = [b"a", b"a\0", b"a\0\0", b"a\0\x01", b"b", b"\0", b"\xff", b"\xff\xff"];
        Bytes::from_static(self.random.pick(&rows).unwrap())
    }

    fn change(&mut self, now: Timestamp) -> Change {
        // Family 6 was dropped.
        let family = FamilyId(self.random.between(1, 7) as u32);
        let qualifier = Bytes::from_static(self.random.pick(&[&b""[..], b"q", b"q\0"]).unwrap());
        let timestamp = Timestamp(now.0 - 10_000 * self.random.below(150) as i64);
        match self.random.below(20) {
            0 => Change::DeleteRow,
            1 => Change::DeleteFamily { family },
            2 | 3 => Change::DeleteColumn { family, qualifier },
            // Where retention counts versions, what it gave up does not come back when a newer one is deleted,
            // but only if a merge came between.
            4..7 if [1, 3].contains(&family.0) => Change::DeleteCell { family, qualifier, timestamp },
            n => {
                let timestamp = if n % 2 == 0 { Timestamp::SERVER } else { timestamp };
                let len = if self.random.chance(5) { 20_000 } else { self.random.below(30) };
                let value = Bytes::from(vec![self.random.draw() as u8; len as usize]);
                Change::Put { family, qualifier, timestamp, value }
            }
        }
    }

    fn flush(&mut self) {
        let applied = self.house.tablet.applied();
        let job = self.house.tablet.freeze(Bytes::from(applied.0.to_string()), &self.house.schema);
        self.run_job(job);
    }

    fn merge(&mut self) {
        let urgency = if self.random.chance(50) { Urgency::Busy } else { Urgency::Idle };
        let job = match self.random.below(10) {
            0..3 => self.any_merge(),
            3 => self.house.tablet.choose_all(&self.house.schema),
            _ => self.house.tablet.choose(&self.house.schema, urgency),
        };
        self.run_job(job);
    }

    /// Of any runs of a locality group that follow each other, chosen or not.
    fn any_merge(&mut self) -> Option<Job> {
        let view = self.house.tablet.view();
        if !compaction::misplaced(&view.version, &self.house.schema).is_empty() {
            return None;
        }
        let locality = self.random.pick(view.version.runs())?.id.locality;
        let of_it = |at: &usize| view.version.runs()[*at].id.locality == locality;
        let runs: Vec<usize> = (0..view.version.runs().len()).filter(of_it).collect();
        let start = self.random.below(runs.len() as u64) as usize;
        let end = start + 1 + self.random.below((runs.len() - start) as u64) as usize;
        Some(self.house.merge_of(runs[start]..runs[start] + end - start))
    }

    fn run_job(&mut self, job: Option<Job>) {
        let Some(job) = job else { return };
        let trouble = self.random.below(10);
        let room = self.random.below(40_000);
        match trouble {
            0 => self.house.disk.power_fails_after(room % 16),
            1 => self.house.disk.fail_next_sync(),
            2 => self.house.disk.set_capacity(Some(self.house.disk.used() + room)),
            _ => {}
        }
        let result = self.house.run(Some(job));
        self.house.disk.set_capacity(None);
        self.promised = self.promised.max(self.house.tablet.flushed());
        match result {
            Err(error) if trouble == 0 || self.random.chance(30) => {
                assert!(trouble <= 2, "{error}");
                self.crash();
            }
            Err(error) => assert!(trouble <= 2, "{error}"),
            // The power fails soon after.
            Ok(()) if trouble == 0 => self.crash(),
            Ok(()) => {}
        }
    }

    fn crash(&mut self) {
        self.old.clear();
        if self.random.chance(80) {
            self.house.disk.crash(self.random.draw());
        }
        self.house.restart();
        let tablet = &mut self.house.tablet;
        assert!(tablet.flushed() >= self.promised, "what was flushed stays");
        let note = if tablet.flushed() == Lsn::ZERO { String::new() } else { tablet.flushed().0.to_string() };
        assert_eq!(self.house.note, note.as_bytes());
        for (record, lsn) in self.log.iter().zip(1..).skip(tablet.flushed().0 as usize) {
            match &record.changes[..] {
                [] => tablet.skip(Lsn(lsn)),
                changes => tablet.apply(Lsn(lsn), &record.row, changes, record.version),
            }
        }
        self.promised = tablet.flushed();
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.house.tablet.applied().0 as i64 * 10_000)
    }

    fn check(&mut self) {
        let view = self.house.tablet.view();
        let (model, now) = (self.model.clone(), self.now());
        self.compare(&view, &model, now);
        for (view, model, now) in std::mem::take(&mut self.old) {
            self.compare(&view, &model, now);
            if self.random.chance(50) {
                self.old.push((view, model, now));
            }
        }
    }

    fn compare(&mut self, view: &View, model: &Model, now: Timestamp) {
        let schema = schema();
        let mut options = ReadOptions { versions: self.random.between(1, 5) as u32, ..ReadOptions::default() };
        let all = model.rows(&RowRange::default(), &options, &schema, now);
        let (found, end) = view.scan(&RowRange::default(), &options, &schema, now, 99, usize::MAX).unwrap();
        assert_eq!((&found, end), (&all, None));

        // The same in pieces of some range.
        let mut range = RowRange { start: self.row(), end: self.random.chance(50).then(|| self.row()) };
        let expected = model.rows(&range, &options, &schema, now);
        let mut pieces = Vec::new();
        loop {
            let (rows, bytes) = (self.random.between(1, 4) as u32, self.random.below(1000) as usize);
            let (found, resume) = view.scan(&range, &options, &schema, now, rows, bytes).unwrap();
            assert!(found.len() <= rows as usize && (!found.is_empty() || resume.is_none()));
            pieces.extend(found);
            let Some(resume) = resume else { break };
            assert!(range.covers(&resume) && pieces.last().is_none_or(|row| row.key < resume));
            range.start = resume;
        }
        assert_eq!(pieces, expected);

        // One row, some columns.
        let (family, qualifier) = (FamilyId(self.random.between(1, 7) as u32), Bytes::from_static(b"q"));
        options.columns.push(model::ColumnFilter { family, qualifier: self.random.chance(50).then_some(qualifier) });
        let row = self.row();
        let expected = model.rows(&RowRange::one(row.clone()), &options, &schema, now).pop();
        assert_eq!(view.row(&row, &options, &schema, now).unwrap(), expected);
        assert!(view.has_files() || !view.touches_files(&row));
    }
}
