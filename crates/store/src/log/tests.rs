mod damage;
mod history;
mod reuse;

use disk::MemDisk;

use super::*;

const A: TabletId = TabletId(1);
const B: TabletId = TabletId(2);
const C: TabletId = TabletId(3);

#[test]
fn what_is_synced_is_there_again() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    let records = [entry(A, 1, 1, "a"), entry(B, 9, 1, "b"), state(A, "who"), entry(A, 2, 1, "c"), no_op(A, 3, 1)];
    log.append(&records).unwrap();
    log.sync().unwrap();
    assert_eq!(read(&log, A, 1), [records[0].clone(), records[3].clone(), records[4].clone()]);
    for seed in 0..20 {
        disk.crash(seed);
        let (log, recovered) = open(&disk);
        assert_eq!(recovered.notes, [""; 0]);
        assert_eq!(
            recovered.tablets[&A],
            Found {
                state: Some(Bytes::from_static(b"who")),
                first: Some(Lsn(1)),
                last: Lsn(3),
                committed: Lsn(2),
                doubt: None
            }
        );
        let b = Found { first: Some(Lsn(9)), last: Lsn(9), committed: Lsn(8), ..Found::default() };
        assert_eq!(recovered.tablets[&B], b);
        assert_eq!(read(&log, A, 2), [records[3].clone(), records[4].clone()]);
        assert_eq!(read(&log, B, 9), [records[1].clone()]);
        assert_eq!(read(&log, B, 10), []);
        assert_eq!(read(&log, TabletId(3), 1), []);
    }
}

/// PacificA 2.3: a new primary's entries replace what the old one could not commit.
#[test]
fn a_higher_epoch_replaces_the_tail() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.append(&[entry(A, 1, 1, "a"), entry(A, 2, 1, "b"), entry(A, 3, 1, "c"), entry(A, 2, 2, "B")]).unwrap();
    log.sync().unwrap();
    let expected = [entry(A, 1, 1, "a"), entry(A, 2, 2, "B")];
    assert_eq!(read(&log, A, 1), expected);
    let (log, recovered) = open(&disk);
    assert_eq!(recovered.tablets[&A].last, Lsn(2));
    assert_eq!(read(&log, A, 1), expected);
}

#[test]
fn cuts_gaps_and_dropped_tablets() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.append(&[entry(A, 1, 1, "a"), entry(A, 2, 1, "b"), entry(B, 1, 1, "x"), state(B, "s")]).unwrap();
    log.append(&[record(A, 1, 1, Kind::Cut, ""), record(B, 0, 1, Kind::Dropped, "")]).unwrap();
    assert_eq!(read(&log, A, 1), [entry(A, 1, 1, "a")]);
    assert_eq!(log.reader().last(B), Lsn::ZERO);
    // A checkpoint up to 49 came: what is before it is forgotten.
    log.append(&[entry(A, 50, 2, "far")]).unwrap();
    assert_eq!((log.reader().first(A), log.reader().last(A)), (Some(Lsn(50)), Lsn(50)));
    assert!(matches!(
        log.reader().read(A, Lsn(1), 100),
        Err(Error::Trimmed { tablet: A, from: Lsn(1), first: Some(Lsn(50)) })
    ));
    log.sync().unwrap();
    let (log, recovered) = open(&disk);
    assert_eq!(recovered.tablets.keys().collect::<Vec<_>>(), [&A]);
    assert_eq!(read(&log, A, 50), [entry(A, 50, 2, "far")]);
}

#[test]
fn reads_stop_at_the_limit_but_give_at_least_one() {
    let mut log = open(&MemDisk::new()).0;
    for lsn in 1..=20 {
        log.append(&[entry(A, lsn, 1, &"x".repeat(200))]).unwrap();
    }
    let count = |max| log.reader().read(A, Lsn(3), max).unwrap().len();
    assert_eq!((count(0), count(1), count(512), count(100_000)), (1, 1, 2, 18));
}

/// Group commit: one write and one sync, however many records and tablets.
#[test]
fn a_batch_costs_one_sync() {
    let disk = MemDisk::new();
    let mut log = open_with(&disk, 1 << 20).0;
    let before = disk.syncs();
    log.append(&(1..100).map(|lsn| entry(TabletId(lsn % 7), 1 + lsn / 7, 1, "x")).collect::<Vec<_>>()).unwrap();
    log.sync().unwrap();
    log.sync().unwrap();
    assert_eq!(disk.syncs(), before + 1);
}

/// Every segment begins with all states, so trimming loses none of them, nor the commit points and positions.
#[test]
fn trimming_keeps_states() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.append(&[state(A, "old"), state(A, "kept"), state(B, "too"), entry(B, 1, 1, "pin")]).unwrap();
    for lsn in 1..=100 {
        log.append(&[entry(A, lsn, 1, "some command")]).unwrap();
    }
    log.sync().unwrap();
    let before = log.bytes();
    assert_eq!(log.trim(&BTreeMap::from([(A, Lsn(90))])).unwrap(), 0);
    assert_eq!(log.oldest_tablets(), [B]);
    let freed = log.trim(&BTreeMap::from([(A, Lsn(90)), (B, Lsn(1))])).unwrap();
    assert!(freed > 0);
    assert_eq!(log.bytes(), before - freed);
    assert_eq!(log.oldest_tablets(), [A]);
    let first = log.reader().first(A).unwrap();
    assert!(Lsn(80) < first && first <= Lsn(91));
    let gone = log.reader().read(A, first.prev(), 100);
    assert!(matches!(gone, Err(Error::Trimmed { .. })));
    for seed in 0..20 {
        disk.crash(seed);
        let (log, recovered) = open(&disk);
        let [a, b] = [A, B].map(|tablet| recovered.tablets[&tablet].clone());
        assert_eq!((a.state.as_deref(), a.first, a.last), (Some(&b"kept"[..]), Some(first), Lsn(100)));
        assert_eq!(a.committed, Lsn(99));
        assert_eq!((b.state.as_deref(), b.first, b.last), (Some(&b"too"[..]), None, Lsn(1)));
        assert_eq!(read(&log, A, first.0).len() as u64, 101 - first.0);
    }
}

#[test]
fn a_record_longer_than_a_segment_has_one_of_its_own() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    let long = "long ".repeat(5_000);
    log.append(&[entry(A, 1, 1, "a")]).unwrap();
    log.append(&[entry(A, 2, 1, &long)]).unwrap();
    log.append(&[entry(A, 3, 1, "c")]).unwrap();
    log.sync().unwrap();
    let expected = [entry(A, 1, 1, "a"), entry(A, 2, 1, &long), entry(A, 3, 1, "c")];
    assert_eq!(log.reader().read(A, Lsn(1), 1 << 20).unwrap(), expected);
    assert_eq!(open(&disk).0.reader().read(A, Lsn(1), 1 << 20).unwrap(), expected);
}

/// After a failed sync nobody knows what is durable (fsyncgate): the log says no more, and what the next start finds in
/// the kernel's memory is written again before anyone relies on it.
#[test]
fn a_failed_sync_poisons() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.append(&[entry(A, 1, 1, "a")]).unwrap();
    log.sync().unwrap();
    log.append(&[entry(A, 2, 1, "b")]).unwrap();
    disk.fail_next_sync();
    assert!(matches!(log.sync(), Err(Error::Io { what: "sync", .. })));
    assert!(log.sync().is_err());
    assert!(log.append(&[entry(A, 3, 1, "c")]).is_err());
    assert!(log.trim(&BTreeMap::new()).is_err());
    assert!(log.reserve().is_err());
    disk.kill();
    let (log, recovered) = open(&disk);
    assert_eq!(recovered.tablets[&A].last, Lsn(2));
    drop(log);
    disk.crash(5);
    let (_, recovered) = open(&disk);
    assert_eq!(recovered.tablets[&A].last, Lsn(2), "found once, it must not vanish");
}

/// A full disk refuses before anything is written; with a spare segment what is in flight still finds room.
#[test]
fn a_full_disk_is_survived() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.reserve().unwrap();
    disk.set_capacity(Some(disk.used()));
    let mut lsn = 0;
    let full = loop {
        match log.append(&[entry(A, lsn + 1, 1, "some command")]) {
            Ok(()) => lsn += 1,
            Err(error) => break error,
        }
    };
    assert!(full.is_full());
    assert!(log.reserve().is_err_and(|error| error.is_full()));
    assert!(lsn > 20, "both segments were used");
    log.sync().unwrap();
    assert_eq!(log.reader().last(A), Lsn(lsn));
    // Somebody makes room, and the work goes on.
    log.trim(&BTreeMap::from([(A, Lsn(lsn))])).unwrap();
    log.append(&[entry(A, lsn + 1, 1, "some command")]).unwrap();
    log.sync().unwrap();
    drop(log);
    disk.crash(1);
    assert_eq!(open(&disk).1.tablets[&A].last, Lsn(lsn + 1));
}

/// Found by seed 3835: an entry that has replaced a synced one must be durable before that one's segment goes.
#[test]
fn what_makes_a_segment_dispensable_is_durable_before_it_goes() {
    for seed in 0..20 {
        let disk = MemDisk::new();
        let mut log = open(&disk).0;
        log.append(&[entry(A, 1, 1, &"x".repeat(900))]).unwrap();
        log.append(&[entry(B, 1, 1, "y")]).unwrap();
        log.sync().unwrap();
        log.append(&[entry(A, 1, 2, "instead")]).unwrap();
        assert!(log.trim(&BTreeMap::new()).unwrap() > 0);
        disk.crash(seed);
        assert_eq!(read(&open(&disk).0, A, 1), [entry(A, 1, 2, "instead")], "seed {seed}");
    }
}

fn open(disk: &MemDisk) -> (Log, Recovered) {
    try_open(disk).unwrap()
}

fn try_open(disk: &MemDisk) -> Result<(Log, Recovered), Error> {
    Log::open(Arc::new(disk.clone()), "log", Options { segment_bytes: 1_000 })
}

fn open_with(disk: &MemDisk, segment_bytes: u64) -> (Log, Recovered) {
    Log::open(Arc::new(disk.clone()), "log", Options { segment_bytes }).unwrap()
}

fn read(log: &Log, tablet: TabletId, from: u64) -> Vec<Record> {
    log.reader().read(tablet, Lsn(from), 1 << 20).unwrap()
}

fn entry(tablet: TabletId, lsn: u64, epoch: u32, body: &str) -> Record {
    record(tablet, lsn, epoch, Kind::Command, body)
}

fn no_op(tablet: TabletId, lsn: u64, epoch: u32) -> Record {
    record(tablet, lsn, epoch, Kind::NoOp, "")
}

fn state(tablet: TabletId, body: &str) -> Record {
    record(tablet, 0, 1, Kind::State, body)
}

fn record(tablet: TabletId, lsn: u64, epoch: u32, kind: Kind, body: &str) -> Record {
    let committed = if kind.is_entry() { Lsn(lsn).prev() } else { Lsn::ZERO };
    Record { tablet, lsn: Lsn(lsn), epoch: Epoch(epoch), committed, kind, body: Bytes::from(body.to_owned()) }
}
