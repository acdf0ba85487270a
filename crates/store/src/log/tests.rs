use std::collections::BTreeSet;

use disk::MemDisk;
use model::random::Random;

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

#[test]
fn a_missing_segment_is_corrupt() {
    let (disk, _) = small_log(false);
    disk.remove("log/00000002.log").unwrap();
    assert!(matches!(try_open(&disk), Err(Error::Corrupt { file, .. }) if file == "log/00000002.log"));
}

/// Issue 3 left it so that a node did not start. What the disk refuses to read is damage like any other: the tablets that
/// may have lost something are named, and it stays so when the disk has come to its senses.
#[test]
fn what_cannot_be_read_is_damage() {
    for refused in 1..=3 {
        let (disk, batches) = small_log(false);
        let last = disk.list("log").unwrap().len() as u32;
        let name = format!("log/{:08}.log", if refused == 3 { last } else { refused });
        disk.fail_reads(&name, true);
        let (log, recovered) = open(&disk);
        assert!(
            recovered.notes.iter().any(|note| note.starts_with("damaged: ") && note.contains(&name)),
            "{recovered:?}"
        );
        assert!(recovered.tablets.values().any(|found| found.doubt.is_some()), "{name}");
        Model::of(&batches.concat()).is_all_but_doubts(&log, &recovered).unwrap();
        drop(log);
        let (mut log, again) = open(&disk);
        assert_eq!(again.tablets, recovered.tablets, "{name}");
        // The node writes down what is lost, and the log goes on elsewhere.
        let doubted = again.tablets.iter().filter(|(_, found)| found.doubt.is_some()).map(|(tablet, _)| *tablet);
        let lost: Vec<Record> = doubted.map(|tablet| record(tablet, 0, 1, Kind::Lost, "why")).collect();
        log.append(&lost).unwrap();
        log.sync().unwrap();
        let floors = BTreeMap::from([(A, Lsn(9)), (B, Lsn(18))]);
        assert!(log.trim(&floors).unwrap() > 0);
        assert!(!disk.exists(&name).unwrap());
        let (_, healed) = open(&disk);
        assert_eq!(healed.notes, [""; 0]);
        for found in lost.iter().map(|record| &healed.tablets[&record.tablet]) {
            assert_eq!(found.doubt.as_ref().map(|doubt| doubt.upto), Some(Doubt::ALL));
        }
    }
}

/// The next segment begins with every tablet's state, and says so: not of one that is in doubt, though the power may fail before
/// the node has written that down (`fuzz`, target `log`).
#[test]
fn a_new_segment_does_not_vouch_for_what_is_in_doubt() {
    let (disk, _) = small_log(false);
    let last = disk.list("log").unwrap().len() as u32;
    disk.flip(&format!("log/{last:08}.log"), 32 + 8, 1);
    let (mut log, recovered) = open(&disk);
    let upto = |recovered: &Recovered| -> Vec<Option<Lsn>> {
        recovered.tablets.values().map(|found| found.doubt.as_ref().map(|doubt| doubt.upto)).collect()
    };
    assert!(upto(&recovered).contains(&Some(Doubt::ALL)), "{recovered:?}");
    log.append(&[record(A, 0, 1, Kind::State, &"x".repeat(2_000))]).unwrap();
    log.sync().unwrap();
    assert!(disk.exists(&format!("log/{:08}.log", last + 1)).unwrap());
    assert_eq!(upto(&open(&disk).1), upto(&recovered));
}

/// Damage that shows only while the log is open is found by whoever reads.
#[test]
fn every_read_is_checked() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.append(&[entry(A, 1, 1, "a")]).unwrap();
    disk.flip("log/00000001.log", 32 + 56, 1);
    assert!(matches!(log.reader().read(A, Lsn(1), 100), Err(Error::Corrupt { offset: 32, .. })));
}

/// No bit anywhere can change what is read. Either it is damage, and what it may have taken is in doubt while all else
/// is as it was; or it is in the last batch, which nothing shows to have been synced, and a prefix remains; or it is in
/// the room after the records, and harms nothing.
#[test]
fn every_flipped_bit_is_noticed() {
    for recycled in [false, true] {
        flip_every_bit(recycled);
    }
}

fn flip_every_bit(recycled: bool) {
    let (disk, batches) = small_log(recycled);
    let files = files(&disk);
    let last = files.keys().last().unwrap();
    let all = batches.concat();
    let sure: usize = batches[..batches.len() - 1].iter().map(Vec::len).sum();
    let ends = ends(&files);
    let (mut damaged, mut repaired, mut sound) = (0, 0, 0);
    for (name, bytes) in &files {
        for bit in 0..bytes.len() * 8 {
            let disk = disk_with(&files);
            disk.flip(name, bit as u64 / 8, 1 << (bit % 8));
            let (log, recovered) = try_open(&disk).unwrap_or_else(|error| panic!("{name} bit {bit}: {error}"));
            let in_records = bit / 8 < ends[name];
            if recovered.notes.iter().any(|note| note.starts_with("damaged: ")) {
                damaged += 1;
                sound += recovered.tablets.values().filter(|found| found.doubt.is_none()).count();
                // The last batch may be gone as well.
                let as_it_was = |records: &[Record]| Model::of(records).is_all_but_doubts(&log, &recovered);
                let checked = as_it_was(&all).or_else(|what| as_it_was(&all[..sure]).map_err(|_| what));
                checked.unwrap_or_else(|what| panic!("{name} bit {bit}: {what}"));
                let (_, again) = open(&disk);
                assert_eq!(again.tablets, recovered.tablets, "{name} bit {bit}: what is in doubt stays so");
            } else {
                repaired += 1;
                let prefix = Model::matching(&all, &log, &recovered, &BTreeMap::new());
                let prefix = prefix.unwrap_or_else(|| panic!("{name} bit {bit}: not a prefix"));
                assert!(prefix >= sure, "{name} bit {bit}: lost what a later batch shows to be synced");
                assert!(name == last || !in_records, "{name} bit {bit}: damage before synced records");
                assert!(prefix == all.len() || in_records, "{name} bit {bit}: lost for what counts for nothing");
            }
        }
    }
    assert!(damaged > 5_000 && repaired > 1_000 && sound > damaged / 2, "{damaged} {repaired} {sound}");
}

/// How many bytes of each segment count.
fn ends(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    for (at, (name, bytes)) in files.iter().enumerate() {
        let end = match files.values().nth(at + 1) {
            Some(next) => u64::from_le_bytes(next[24..32].try_into().unwrap()) as u32,
            None => open(&disk_with(files)).0.end.offset,
        };
        assert!(end as usize <= bytes.len());
        ends.insert(name.clone(), end as usize);
    }
    ends
}

/// With a mark behind it, damage to the last batch does not pass for a torn tail.
#[test]
fn a_mark_is_a_witness_for_the_last_batch() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.append(&[state(A, "a"), state(B, "b"), entry(A, 1, 1, "a")]).unwrap();
    log.sync().unwrap();
    log.append(&[entry(B, 1, 1, "last")]).unwrap();
    log.sync().unwrap();
    log.mark().unwrap();
    log.mark().unwrap();
    let place = 32 + 3 * 64;
    assert!(disk.flip("log/00000001.log", place + 60, 1));
    let (log, recovered) = open(&disk);
    assert_eq!(recovered.notes, ["damaged: log/00000001.log from 224 to 288"]);
    // Neither has a record behind the hole: each may have had one in it.
    assert!(recovered.forgot && recovered.tablets.values().all(|found| found.doubt.is_some()));
    drop(log);
    disk.flip("log/00000001.log", place + 60, 1);
    assert_eq!(open(&disk).1.tablets[&B].last, Lsn(1));
}

/// Whoever has a record behind the damage that follows on one before it has lost nothing.
#[test]
fn only_those_are_in_doubt_whose_records_are_damaged() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    for batch in [[state(A, "a"), state(B, "b")], [entry(A, 1, 1, "x"), entry(B, 1, 1, "x")]] {
        log.append(&batch).unwrap();
        log.sync().unwrap();
    }
    log.append(&[entry(A, 2, 1, "x"), entry(B, 2, 1, "x")]).unwrap();
    log.sync().unwrap();
    log.mark().unwrap();
    // The first entry of B.
    assert!(disk.flip("log/00000001.log", 32 + 3 * 64 + 8, 1));
    let (mut log, recovered) = open(&disk);
    assert_eq!(recovered.tablets[&A].doubt, None);
    assert_eq!(recovered.tablets[&B].doubt.as_ref().map(|doubt| doubt.upto), Some(Doubt::ALL));
    // The node writes that down; it outlives the segment.
    log.append(&[record(B, 0, 1, Kind::Lost, "why")]).unwrap();
    for lsn in 3..60 {
        log.append(&[entry(A, lsn, 1, "some command")]).unwrap();
    }
    log.sync().unwrap();
    log.trim(&BTreeMap::from([(A, Lsn(59)), (B, Lsn(2))])).unwrap();
    assert!(!disk.exists("log/00000001.log").unwrap());
    let (mut log, recovered) = open(&disk);
    assert_eq!(recovered.tablets[&B].doubt, Some(Doubt { upto: Doubt::ALL, why: "why".into() }));
    log.append(&[record(B, 0, 1, Kind::Dropped, ""), state(B, "anew")]).unwrap();
    log.sync().unwrap();
    let (_, recovered) = open(&disk);
    assert_eq!(recovered.tablets[&B], Found { state: Some("anew".into()), ..Found::default() });
}

/// A segment begins with the state of every tablet: damage before that leaves no more in doubt than entries.
#[test]
fn a_later_segment_vouches_for_states() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.append(&[state(A, "a"), state(B, "b"), entry(B, 1, 1, "x")]).unwrap();
    for lsn in 1..=60 {
        log.append(&[entry(A, lsn, 1, "some command")]).unwrap();
        log.sync().unwrap();
    }
    // The state of B, in the first segment.
    assert!(disk.flip("log/00000001.log", 32 + 64 + 8, 1));
    let (_, recovered) = open(&disk);
    let b = &recovered.tablets[&B];
    assert_eq!((b.state.as_deref(), b.last), (Some(&b"b"[..]), Lsn(1)));
    assert_eq!(b.doubt.as_ref().map(|doubt| doubt.upto), Some(Lsn(1)), "what tables have of it is enough");
    assert!(!recovered.forgot && recovered.tablets[&A].doubt.is_none());
}

/// A file that was cut anywhere gives a prefix or doubts, and the log goes on from there.
#[test]
fn every_cut_leaves_a_prefix() {
    for recycled in [false, true] {
        cut_everywhere(recycled);
    }
}

fn cut_everywhere(recycled: bool) {
    let (disk, batches) = small_log(recycled);
    let files = files(&disk);
    for (name, bytes) in &files {
        for len in 0..bytes.len() {
            let mut files = files.clone();
            files.insert(name.clone(), bytes[..len].to_vec());
            let disk = disk_with(&files);
            match try_open(&disk) {
                Err(error) => panic!("{name} cut at {len}: {error}"),
                Ok((log, recovered)) if recovered.notes.iter().any(|note| note.starts_with("damaged: ")) => {
                    assert_ne!(name, files.keys().last().unwrap());
                    Model::of(&batches.concat()).is_all_but_doubts(&log, &recovered).unwrap();
                }
                Ok((mut log, recovered)) => {
                    let found = Model::matching(&batches.concat(), &log, &recovered, &BTreeMap::new());
                    let mut records = batches.concat()[..found.expect("a prefix")].to_vec();
                    records.push(state(B, "goes on"));
                    log.append(&records[records.len() - 1..]).unwrap();
                    log.sync().unwrap();
                    let (log, recovered) = open(&disk);
                    assert!(Model::matching(&records, &log, &recovered, &BTreeMap::new()).is_some());
                }
            }
        }
    }
}

/// Torn bytes behind the end are gone before anything new is appended: they can never be found behind it.
#[test]
fn a_torn_tail_is_cut_and_noted() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.append(&[entry(A, 1, 1, "a")]).unwrap();
    log.sync().unwrap();
    log.append(&[entry(A, 2, 1, "torn"), entry(A, 3, 1, "whole")]).unwrap();
    log.sync().unwrap();
    // 32 for the segment's header, 64 for each record with a short body.
    disk.flip("log/00000001.log", 32 + 64 + 60, 1);
    let (mut log, recovered) = open(&disk);
    assert_eq!(recovered.tablets[&A].last, Lsn(1));
    assert_eq!(recovered.notes, ["cut a torn tail of 128 bytes at log/00000001.log offset 96"]);
    log.append(&[entry(A, 2, 2, "anew")]).unwrap();
    log.sync().unwrap();
    let (log, recovered) = open(&disk);
    assert_eq!(recovered.notes, [""; 0]);
    assert_eq!(read(&log, A, 1), [entry(A, 1, 1, "a"), entry(A, 2, 2, "anew")]);
}

/// The log against a model, with crashes in between and in the middle of every operation: what was synced is there,
/// and what is there is a prefix of what was appended.
#[test]
fn crashes_leave_a_prefix_with_all_that_was_synced() {
    let mut repairs = BTreeSet::new();
    // More when asked for: SEEDS=60000 takes a minute.
    let seeds = std::env::var("SEEDS").map_or(400, |count| count.parse().unwrap());
    for seed in 0..seeds {
        history(seed, &mut repairs);
    }
    let expected = ["cut", "removed", "kept", "switched"];
    assert!(expected.iter().all(|kind| repairs.contains(*kind)), "{repairs:?}");
}

/// Reads with threads, and alone: it is the same.
fn compare_crews(disk: &MemDisk) {
    if !disk.exists("log").unwrap() || recovery::open_segments(disk, "log").is_err() {
        return;
    }
    let read = |crew: &dyn Crew| {
        let replay = recovery::replay(&recovery::open_segments(disk, "log").unwrap(), crew).unwrap();
        (replay.index.found(), replay.chains, replay.holes, replay.begun, replay.end, replay.records)
    };
    assert_eq!(read(&Alone), read(&Threads));
}

struct Threads;

impl Crew for Threads {
    fn width(&self) -> usize {
        3
    }

    fn run<'a>(&self, parts: Vec<Part<'a>>) {
        std::thread::scope(|scope| {
            parts.into_iter().for_each(|part| _ = scope.spawn(part));
        });
    }
}

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

fn history(seed: u64, repairs: &mut BTreeSet<String>) {
    let mut random = Random::new(seed);
    let disk = MemDisk::new();
    let mut records: Vec<Record> = Vec::new();
    let mut floors = BTreeMap::new();
    let mut synced = 0;
    let mut epoch = 1;
    for life in 0..8 {
        compare_crews(&disk);
        let (mut log, recovered) = try_open(&disk).unwrap_or_else(|error| panic!("seed {seed} life {life}: {error}"));
        repairs.extend(recovered.notes.iter().map(|note| note.split(' ').next().unwrap().to_owned()));
        let found = Model::matching(&records, &log, &recovered, &floors);
        let found =
            found.unwrap_or_else(|| panic!("seed {seed} life {life}: no prefix of {records:#?}\n{recovered:#?}"));
        assert!(found >= synced, "seed {seed} life {life}: {synced} synced, {found} there");
        records.truncate(found);
        // Between opening and the first crash nothing that was found may vanish.
        synced = found;
        epoch += 1;
        if random.chance(70) {
            disk.power_fails_after(random.below(40));
        }
        // A sync that is under way, and what it covers; nothing, if its file has been left.
        let mut syncing: Option<(Syncing, usize)> = None;
        for _ in 0..random.between(1, 60) {
            let going = match random.below(14) {
                0..5 => {
                    let mut model = Model::of(&records);
                    let mut batch = Vec::new();
                    for _ in 0..random.between(1, 5) {
                        batch.push(model.invent(&mut random, epoch, &floors));
                        model.apply(batch.last().unwrap());
                    }
                    let done = log.append(&batch);
                    records.extend(batch);
                    done.is_ok()
                }
                5..8 => {
                    let done = log.sync().is_ok();
                    synced = if done { records.len() } else { synced };
                    done
                }
                8 | 9 => log.reserve().is_ok(),
                10 => {
                    syncing = log.begin_sync().map(|syncing| (syncing, records.len())).or(syncing);
                    true
                }
                11 => match syncing.take() {
                    Some((ended, covered)) => {
                        let result = ended.run();
                        let done = log.synced(&ended, result).is_ok();
                        synced = if done { synced.max(covered) } else { synced };
                        done
                    }
                    None => true,
                },
                12 => match log.switch() {
                    Ok(true) => {
                        repairs.insert("switched".to_owned());
                        syncing = syncing.map(|(ended, _)| (ended, 0));
                        true
                    }
                    other => other.is_ok(),
                },
                _ => {
                    for (tablet, kept) in &Model::of(&records[..synced]).0 {
                        let floor: &mut Lsn = floors.entry(*tablet).or_default();
                        *floor = (*floor).max(Lsn(random.below(kept.last.0 + 1)));
                    }
                    let done = log.trim(&floors).is_ok();
                    let is_old = |name: &String| name.starts_with("old-");
                    if disk.list("log").is_ok_and(|names| names.iter().any(is_old)) {
                        repairs.insert("kept".to_owned());
                    }
                    done
                }
            };
            if !going {
                break;
            }
        }
        drop(log);
        if random.chance(80) {
            disk.crash(random.draw())
        } else {
            disk.kill()
        }
        // Power may fail during recovery as well.
        if random.chance(50) {
            disk.power_fails_after(random.below(8));
            let _ = try_open(&disk);
            disk.crash(random.draw());
        }
    }
}

/// What the records mean, said once more and simply.
#[derive(Default, PartialEq)]
struct Model(BTreeMap<TabletId, Kept>);

#[derive(Default, PartialEq)]
struct Kept {
    state: Option<Bytes>,
    committed: Lsn,
    last: Lsn,
    entries: BTreeMap<Lsn, Record>,
}

impl Model {
    fn of(records: &[Record]) -> Model {
        let mut model = Model::default();
        records.iter().for_each(|record| model.apply(record));
        model
    }

    fn apply(&mut self, record: &Record) {
        let kept = self.0.entry(record.tablet).or_default();
        kept.committed = kept.committed.max(record.committed);
        match record.kind {
            Kind::Command | Kind::NoOp => {
                if record.lsn > kept.last.next() {
                    kept.entries.clear();
                }
                kept.entries.split_off(&record.lsn);
                kept.entries.insert(record.lsn, record.clone());
                kept.last = record.lsn;
            }
            Kind::State => kept.state = Some(record.body.clone()),
            Kind::Cut => {
                kept.entries.split_off(&record.lsn.next());
                kept.last = if kept.last == Lsn::ZERO { record.lsn } else { kept.last.min(record.lsn) };
            }
            Kind::Dropped => {
                self.0.remove(&record.tablet);
            }
            Kind::Lost | Kind::Mark => unreachable!("no history has them"),
        }
    }

    /// What is not in doubt is as it was after all records, and only entries are in doubt of what has a state.
    fn is_all_but_doubts(&self, log: &Log, recovered: &Recovered) -> Result<(), String> {
        for (tablet, kept) in &self.0 {
            let Some(found) = recovered.tablets.get(tablet) else {
                return if recovered.forgot { Ok(()) } else { Err(format!("{tablet} is forgotten")) };
            };
            let upto = found.doubt.as_ref().map_or(Lsn::ZERO, |doubt| doubt.upto);
            if upto == Doubt::ALL {
                continue;
            }
            let held: Vec<Record> = match found.first {
                None => Vec::new(),
                Some(first) => log.reader().read(*tablet, first, 1 << 20).unwrap(),
            };
            let held = held.iter().filter(|record| record.lsn > upto);
            let same = found.state == kept.state
                && found.committed == kept.committed
                && found.last == kept.last
                && kept.entries.range(upto.next()..).map(|(_, record)| record).eq(held);
            if !same {
                return Err(format!("{tablet} is {found:?} without a doubt"));
            }
        }
        let more =
            recovered.tablets.iter().find(|(tablet, found)| !self.0.contains_key(tablet) && found.doubt.is_none());
        more.map_or(Ok(()), |(tablet, _)| Err(format!("{tablet} was dropped and is back")))
    }

    /// The highest number of records after which the model is what the log is now.
    fn matching(
        records: &[Record],
        log: &Log,
        recovered: &Recovered,
        floors: &BTreeMap<TabletId, Lsn>,
    ) -> Option<usize> {
        (0..=records.len()).rev().find(|count| Model::of(&records[..*count]).is(log, recovered, floors))
    }

    fn is(&self, log: &Log, recovered: &Recovered, floors: &BTreeMap<TabletId, Lsn>) -> bool {
        self.0.keys().eq(recovered.tablets.keys())
            && self.0.iter().all(|(tablet, kept)| {
                let found = &recovered.tablets[tablet];
                let floor = floors.get(tablet).copied().unwrap_or_default();
                let needed = kept.entries.keys().find(|lsn| **lsn > floor).copied();
                let held: Vec<Record> = match found.first {
                    None => Vec::new(),
                    Some(first) => log.reader().read(*tablet, first, 1 << 20).unwrap(),
                };
                let first = found.first.unwrap_or(Lsn(u64::MAX));
                found.state == kept.state
                    && found.committed == kept.committed
                    && found.last == kept.last
                    && needed.is_none_or(|needed| first <= needed)
                    && kept.entries.range(first..).map(|(_, record)| record).eq(&held)
            })
    }

    /// Something that a node might append.
    fn invent(&self, random: &mut Random, epoch: u32, floors: &BTreeMap<TabletId, Lsn>) -> Record {
        let tablet = TabletId(random.between(1, 4));
        let last = self.0.get(&tablet).map_or(Lsn::ZERO, |kept| kept.last);
        let floor = floors.get(&tablet).copied().unwrap_or_default().min(last);
        let body = format!("{:x}{}", random.draw(), "-".repeat(random.below(150) as usize));
        match random.below(20) {
            0 => record(tablet, random.between(floor.0, last.0 + 1), epoch, Kind::Cut, ""),
            1 => record(tablet, random.between(floor.0 + 1, last.0 + 2), epoch, Kind::NoOp, ""),
            2 => entry(tablet, random.between(floor.0 + 1, last.0 + 2), epoch, &body),
            3 if random.chance(30) => entry(tablet, last.0 + random.between(2, 9), epoch, &body),
            3 if random.chance(30) => record(tablet, 0, epoch, Kind::Dropped, ""),
            4..8 => state(tablet, &body),
            _ => entry(tablet, last.0 + 1, epoch, &body),
        }
    }
}

/// A log of several small segments, and the batches that were synced. Perhaps in files that have been segments before.
fn small_log(recycled: bool) -> (MemDisk, Vec<Vec<Record>>) {
    let disk = MemDisk::new();
    let mut log = open_with(&disk, 800).0;
    let mut batches = Vec::new();
    if recycled {
        let mut former: Vec<Record> = (1..40).map(|lsn| entry(C, lsn, 1, &"former life ".repeat(9))).collect();
        former.push(record(C, 0, 1, Kind::Dropped, ""));
        for record in &former {
            log.append(std::slice::from_ref(record)).unwrap();
        }
        log.trim(&BTreeMap::new()).unwrap();
        batches.push(former);
    }
    let olds = |disk: &MemDisk| disk.list("log").unwrap().into_iter().filter(|name| name.starts_with("old-")).count();
    assert_eq!(olds(&disk), if recycled { 4 } else { 0 });
    for at in 1..=9 {
        let batch = vec![
            entry(A, at, 1, "a"),
            state(B, &format!("state {at}")),
            entry(B, at * 2, at as u32, &format!("b{at}")),
        ];
        log.append(&batch).unwrap();
        log.sync().unwrap();
        batches.push(batch);
    }
    assert!(!recycled || olds(&disk) < 2, "they are in use again");
    let segments: Vec<u32> =
        (1..=9).map(|lsn| log.index.read().shelf(A).unwrap().places_from(Lsn(lsn)).next().unwrap().1.segment).collect();
    assert!(segments[0] + 2 <= segments[7], "several segments: {segments:?}");
    assert_eq!(segments[7], segments[8], "several batches in the last one, each a witness of the one before");
    (disk, batches)
}

fn files(disk: &MemDisk) -> BTreeMap<String, Vec<u8>> {
    let read = |name: String| {
        let path = format!("log/{name}");
        let file = disk.open(&path).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        (path, bytes)
    };
    disk.list("log").unwrap().into_iter().filter(|name| !name.starts_with("old-")).map(read).collect()
}

fn disk_with(files: &BTreeMap<String, Vec<u8>>) -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir("log").unwrap();
    for (path, bytes) in files {
        disk.create(path).unwrap().write_at(0, bytes).unwrap();
    }
    disk
}

/// What is read again while the log is in use: every byte of a record, in all segments, and nothing behind the end.
#[test]
fn a_check_meets_every_changed_byte() {
    let disk = MemDisk::new();
    let (mut log, _) = open_with(&disk, 512);
    for lsn in 1..=12 {
        let body = Bytes::from(vec![lsn as u8; 40]);
        let (tablet, lsn) = (TabletId(1 + lsn % 2), Lsn(lsn.div_ceil(2)));
        log.append(&[Record { tablet, lsn, epoch: Epoch(1), committed: Lsn::ZERO, kind: Kind::Command, body }])
            .unwrap();
        log.sync().unwrap();
    }
    let reader = log.reader();
    let check = || {
        let (mut at, mut bytes) = (Checked::default(), 0);
        loop {
            let (read, next) = reader.check(at, 100)?;
            bytes += read;
            match next {
                Some(next) => at = next,
                None => return Ok::<u64, Error>(bytes),
            }
        }
    };
    let whole = check().unwrap();
    let segments: Vec<String> = disk.list("log").unwrap().into_iter().map(|name| format!("log/{name}")).collect();
    let used = segments.iter().map(|name| disk.open(name).unwrap().len().unwrap()).sum::<u64>();
    assert!(segments.len() > 2 && whole > used / 2, "{whole} of {used} bytes in {} segments", segments.len());
    let mut met = 0;
    for name in &segments {
        for offset in 0..disk.open(name).unwrap().len().unwrap() {
            assert!(disk.flip(name, offset, 1));
            match check() {
                Err(error) => {
                    assert!(error.is_corrupt() && error.to_string().contains("log/"), "{error}");
                    met += 1;
                }
                Ok(bytes) => assert_eq!(bytes, whole, "{name} at {offset}"),
            }
            assert!(disk.flip(name, offset, 1));
        }
    }
    assert_eq!(met, whole, "the bytes that were written, and no others");
}

/// A sum that is right does not make it true where the segment before ended: nothing is looked for behind the end of its file
/// (`fuzz`, target `log`: for minutes).
#[test]
fn a_segment_ends_with_its_file() {
    let [mut one, mut two] = [Vec::new(), Vec::new()];
    format::encode_segment_header(1, 0, Place::default(), &mut one);
    one.resize(500, 0);
    format::encode_segment_header(2, 0, Place { segment: 1, offset: u32::MAX - 7 }, &mut two);
    let files = BTreeMap::from([("log/00000001.log".to_owned(), one), ("log/00000002.log".to_owned(), two)]);
    assert_eq!(inspect(&disk_with(&files), "log").unwrap().segments, 2);
}

/// Who goes on behind the damaged segment does so in one step, also where the log begins late (`fuzz`, target `log`: the same
/// damage was met once for each segment that had ever been).
#[test]
fn damage_of_the_oldest_segment_is_met_once() {
    let (disk, _) = small_log(false);
    let mut log = open(&disk).0;
    assert!(log.trim(&BTreeMap::from([(A, Lsn(9)), (B, Lsn(18))])).unwrap() > 0);
    let oldest = disk.list("log").unwrap().into_iter().find(|name| !name.starts_with("old-")).unwrap();
    assert_ne!(oldest, "00000001.log");
    disk.flip(&format!("log/{oldest}"), 9, 1);
    let (mut at, mut met) = (Some(Checked::default()), 0);
    while let Some(from) = at {
        at = match log.reader().check(from, 100) {
            Ok((_, next)) => next,
            Err(_) => {
                met += 1;
                Some(from.next_segment())
            }
        };
    }
    assert_eq!(met, 1);
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
