//! Segments that are used again, and those that are left because a sync hangs.

use std::collections::BTreeSet;

use super::history::Model;
use super::*;

/// A trimmed segment becomes the next spare one, which costs no room, and what it held is never taken for records.
#[test]
fn trimmed_segments_are_used_again() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    let mut lsn = 0;
    let mut lap = |log: &mut Log| {
        for _ in 0..20 {
            lsn += 1;
            log.append(&[entry(A, lsn, 1, "some command of a length that fills segments quickly")]).unwrap();
            log.sync().unwrap();
        }
        log.trim(&BTreeMap::from([(A, Lsn(lsn))])).unwrap();
        lsn
    };
    lap(&mut log);
    let used = disk.used();
    for _ in 0..20 {
        let last = lap(&mut log);
        assert!(disk.used() <= used + 1_000, "nothing is allocated any more");
        let (segments, recovered) = (disk.list("log").unwrap(), open(&disk).1);
        assert_eq!((recovered.tablets[&A].last, &recovered.notes[..]), (Lsn(last), &[][..]), "{segments:?}");
        // That was another life; this one goes on where it was.
        log = open(&disk).0;
    }
    assert!(log.current.number > 50);
}

/// What is to be flushed so that the log becomes as short as it should be: those that hold its oldest segments, and no
/// others.
#[test]
fn only_those_pin_whose_entries_are_the_oldest() {
    let mut log = open(&MemDisk::new()).0;
    log.append(&[entry(B, 1, 1, "rests")]).unwrap();
    for lsn in 1..=60 {
        log.append(&[entry(A, lsn, 1, "some command")]).unwrap();
    }
    log.append(&[entry(C, 1, 1, "came late")]).unwrap();
    let (reader, whole) = (log.reader(), log.bytes());
    let pinning = |floors: &[(TabletId, Lsn)], most| reader.pinning(&floors.iter().copied().collect(), most);
    assert_eq!(pinning(&[], whole), [], "it is short enough");
    assert_eq!(pinning(&[], whole - 1), [A, B]);
    assert_eq!(pinning(&[(A, Lsn(30))], whole - 1), [B]);
    assert_eq!(pinning(&[(A, Lsn(30))], 1_000), [B, A], "oldest first");
    assert_eq!(pinning(&[(A, Lsn(30))], 0), [B, A, C]);
    assert_eq!(pinning(&[(A, Lsn(60)), (B, Lsn(1))], 1_000), [], "what nobody needs goes by itself");
    assert!(reader.newest(B) < reader.newest(A) && reader.newest(A) < reader.newest(C));
}

/// Whoever reads a segment that is trimmed meanwhile reads on: it is not used again before.
#[test]
fn a_segment_that_is_being_read_is_not_used_again() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.append(&[entry(A, 1, 1, "read")]).unwrap();
    let held = log.current.clone();
    for lsn in 2..30 {
        log.append(&[entry(A, lsn, 1, "some command")]).unwrap();
    }
    log.trim(&BTreeMap::from([(A, Lsn(29))])).unwrap();
    for lsn in 30..200 {
        log.append(&[entry(A, lsn, 1, "some command")]).unwrap();
        log.trim(&BTreeMap::from([(A, Lsn(lsn))])).unwrap();
    }
    let mut window = reader::Window::new(&held, 0);
    let (header, body) = window.record(32).unwrap().expect("it is still there");
    assert_eq!((header.record.lsn, body), (Lsn(1), &b"read"[..]));
    assert!(disk.exists("log/old-00000001.log").unwrap());
    drop(held);
    while disk.exists("log/old-00000001.log").unwrap() {
        lsn_after(&mut log);
    }
}

/// Appends one more, and reserves.
fn lsn_after(log: &mut Log) {
    let next = log.reader().last(A).next();
    assert!(next < Lsn(400), "it is never used again");
    log.append(&[entry(A, next.0, 1, "some command")]).unwrap();
    log.reserve().unwrap();
}

/// Bigtable 6: "two log writing threads, each writing to its own log file". Whenever the power fails around a switch, what
/// was acknowledged is there, and nothing is there twice.
#[test]
fn a_switch_loses_nothing_at_any_crash() {
    let mut ends = BTreeSet::new();
    for operations in 0..30 {
        for seed in 0..20 {
            let disk = MemDisk::new();
            let mut log = open(&disk).0;
            let batches = [
                vec![state(A, "a"), entry(A, 1, 1, "x"), state(B, "b"), entry(B, 1, 1, "x"), entry(B, 2, 1, "x")],
                vec![entry(A, 2, 1, "y"), state(A, "b"), record(B, 1, 1, Kind::Cut, ""), entry(C, 7, 1, "y")],
                vec![entry(A, 3, 1, "z"), record(B, 0, 1, Kind::Dropped, ""), state(B, "anew"), entry(A, 2, 2, "z")],
            ];
            let records = batches.concat();
            log.append(&batches[0]).unwrap();
            log.sync().unwrap();
            log.reserve().unwrap();
            disk.power_fails_after(operations);
            let mut acknowledged = batches[0].len();
            let mut story = || {
                log.append(&batches[1])?;
                let late = log.begin_sync().unwrap();
                assert!(log.switch()?);
                log.append(&batches[2])?;
                log.sync()?;
                acknowledged = records.len();
                let held = log.reader().read(A, Lsn(1), 1 << 20)?;
                assert_eq!(held, [entry(A, 1, 1, "x"), entry(A, 2, 2, "z")]);
                let result = late.run();
                log.synced(&late, result)?;
                log.append(&[entry(A, 3, 2, "on")])?;
                log.sync()
            };
            let done: Result<(), Error> = story();
            drop(log);
            disk.crash(seed);
            let (log, recovered) = open(&disk);
            let records = [records, vec![entry(A, 3, 2, "on")]].concat();
            let found = Model::matching(&records, &log, &recovered, &BTreeMap::new());
            let found = found.unwrap_or_else(|| panic!("after {operations}, seed {seed}: no prefix: {recovered:#?}"));
            assert!(found >= acknowledged && (done.is_err() || found == records.len()), "{operations} {seed}");
            assert!(recovered.tablets.values().all(|found| found.doubt.is_none()), "{operations} {seed}");
            ends.insert(found);
        }
    }
    assert!(ends.len() > 4, "crashes at many places: {ends:?}");
}

/// It is left only for a file that is ready, and only if that one has proved to work since.
#[test]
fn there_is_no_switch_to_nowhere() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.append(&[entry(A, 1, 1, "a")]).unwrap();
    assert!(!log.switch().unwrap(), "no spare");
    log.reserve().unwrap();
    log.sync().unwrap();
    assert!(!log.switch().unwrap(), "nothing hangs");
    log.append(&[entry(A, 2, 1, "b")]).unwrap();
    let late = log.begin_sync().unwrap();
    assert!(log.switch().unwrap());
    log.reserve().unwrap();
    assert!(!log.switch().unwrap(), "both hang");
    log.synced(&late, Ok(())).unwrap();
    assert!(!log.is_synced(), "the file that was left says nothing");
    log.sync().unwrap();
    log.append(&[entry(A, 3, 1, "c")]).unwrap();
    assert!(log.switch().unwrap());
    log.sync().unwrap();
    // The file that was left may be trimmed, but is not used again while its sync hangs.
    log.trim(&BTreeMap::from([(A, Lsn(3))])).unwrap();
    assert!(disk.exists("log/old-00000001.log").unwrap());
    assert_eq!(open(&disk).1.tablets[&A].last, Lsn(3));
    log.append(&[entry(A, 4, 1, "d")]).unwrap();
    log.synced(&late, Err(io::Error::from_raw_os_error(5))).unwrap_err();
    assert!(log.sync().is_err(), "a failed sync is fatal, however late");
}
