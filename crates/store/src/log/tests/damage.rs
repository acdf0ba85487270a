//! Bits that changed, stretches that cannot be read, files that were cut: what is noticed, and what is in doubt.

use super::history::Model;
use super::*;

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

/// What shows that bytes were lost is not cut away with a torn tail: the node may end before it has written down what is in
/// doubt, and then the next start has to see it again (`fuzz`, target `log`).
#[test]
fn what_shows_damage_stays() {
    let disk = MemDisk::new();
    let mut log = open(&disk).0;
    log.append(&[state(A, "a"), state(B, "b")]).unwrap();
    log.sync().unwrap();
    // The second record was written when the first was not synced; only the third one shows that it was.
    log.append(&[entry(A, 1, 1, "lost"), entry(B, 1, 1, "b")]).unwrap();
    log.sync().unwrap();
    log.append(&[entry(A, 2, 1, "torn")]).unwrap();
    log.sync().unwrap();
    drop(log);
    assert!([2, 4].iter().all(|nth| disk.flip("log/00000001.log", 32 + nth * 64 + 60, 1)));
    let (log, recovered) = open(&disk);
    assert!(recovered.tablets[&A].doubt.is_some(), "{recovered:?}");
    drop(log);
    for seed in 0..5 {
        disk.crash(seed);
        assert_eq!(open(&disk).1.tablets, recovered.tablets);
    }
}

/// The rest of a list of tablets that a segment should have begun with is damage, even if nothing stands behind it: what is
/// written next is not taken for that rest (`fuzz`, target `log`: the tablets that were not on it were forgotten).
#[test]
fn a_list_of_tablets_without_its_end_lists_nobody() {
    let (disk, _) = small_log(false);
    let mut files = files(&disk);
    let last = files.len() as u32;
    let bytes = files.values_mut().next_back().unwrap();
    let carried = bytes.len() as u32;
    bytes[20..24].copy_from_slice(&carried.to_le_bytes());
    let sum = crc_fast::crc32_iscsi(&bytes[4..32]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    let disk = disk_with(&files);
    let (mut log, recovered) = open(&disk);
    assert!(recovered.notes.iter().any(|note| note.contains(&format!("{last:08}.log"))), "{recovered:?}");
    let records: Vec<Record> = (1..=9).map(|lsn| entry(C, lsn, 1, &"new ".repeat(30))).collect();
    for record in &records {
        log.append(std::slice::from_ref(record)).unwrap();
        log.sync().unwrap();
        let (log, again) = open(&disk);
        assert_eq!(again.tablets.keys().collect::<Vec<_>>(), [&A, &B, &C]);
        assert_eq!(read(&log, C, 1), records[..record.lsn.0 as usize]);
    }
}
