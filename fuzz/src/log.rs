//! The log: whatever is in its segments, it opens or says why not, and then goes on: what is synced stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::{Disk, MemDisk};
use model::random::Random;
use model::{Bytes, Epoch, Lsn, TabletId};
use store::log::{self, Checked, Found, Kind, Log, Options, Record};

use crate::{Plain, crc, put, put_u32, read, u32_at};

const DIR: &str = "log";
const SEGMENT_HEADER: usize = 32;
const RECORD_HEADER: usize = 56;
const KINDS: u8 = 7;
/// Of new segments.
const OPTIONS: Options = Options { segment_bytes: 4 << 10 };

/// The input is one segment or two, behind the length of the first (u16). The first one's header says its number.
pub fn run(data: &[u8]) {
    let Some((len, bytes)) = split(data) else { return };
    let (one, other) = bytes.split_at(len);
    let first = number_of(one);
    let disk = MemDisk::new();
    disk.create_dir(DIR).and_then(|()| disk.sync_dir("")).expect("it has room");
    let names = [name(first), name(first + 1)];
    put(&disk, &names[0], one);
    if !other.is_empty() {
        put(&disk, &names[1], other);
    }

    let inspected = log::inspect(&disk, DIR);
    assert_eq!(read(&disk, &names[0]), one, "who inspects changes nothing");
    let (mut log, before) = match Log::open(Arc::new(disk.clone()), DIR, OPTIONS) {
        Ok((log, recovered)) => (log, recovered.tablets),
        Err(error) => {
            assert!(error.is_corrupt() || matches!(error, store::Error::Version { .. }), "{error}");
            return;
        }
    };
    let inspected = inspected.expect("what can be opened can be inspected");
    assert_eq!(inspected.tablets, before);
    read_all(&log, &before);

    // The host writes down what is in doubt. If that is not synced, the doubt is there again.
    let lost: Vec<Record> = before.iter().filter(|(_, found)| found.doubt.is_some()).map(lost).collect();
    log.append(&lost).expect("the disk does not fail");
    drop(log);
    let (mut log, again) = reopen(&disk, data.len() as u64);
    compare(&before, &again);
    log.append(&lost).and_then(|()| log.sync()).expect("the disk does not fail");

    // It goes on.
    let tablet = (1..).map(TabletId).find(|tablet| !before.contains_key(tablet)).expect("there are more numbers");
    let mut records = Vec::new();
    for lsn in 1..4 {
        let body = Bytes::from(vec![lsn as u8; 700]);
        let (epoch, committed) = (Epoch(1), Lsn(lsn - 1));
        records.push(Record { tablet, lsn: Lsn(lsn), epoch, committed, kind: Kind::Command, body });
    }
    for record in &records {
        log.append(std::slice::from_ref(record)).and_then(|()| log.sync()).expect("the disk does not fail");
    }
    log.mark().expect("the disk does not fail");
    assert_eq!(log.reader().read(tablet, Lsn(1), usize::MAX).expect("it was just written"), records);
    drop(log);
    let (mut log, after) = reopen(&disk, 1);
    assert_eq!(log.reader().read(tablet, Lsn(1), usize::MAX).expect("it was synced"), records);
    read_all(&log, &after);
    compare(&before, &after);

    // Whatever was in it is let go, damage as well, and what came then is kept.
    let mut floors: BTreeMap<TabletId, Lsn> = after.keys().map(|tablet| (*tablet, Lsn(u64::MAX))).collect();
    floors.insert(tablet, Lsn(3));
    let last = Record { lsn: Lsn(4), body: Bytes::from(vec![4; 3 << 10]), ..records.remove(0) };
    log.append(std::slice::from_ref(&last)).and_then(|()| log.sync()).expect("the disk does not fail");
    log.trim(&floors).expect("the disk does not fail");
    drop(log);
    let (log, after) = reopen(&disk, 2);
    compare(&before, &after);
    assert_eq!(log.reader().read(tablet, Lsn(4), usize::MAX).expect("it was synced"), [last]);
}

fn lost((tablet, _): (&TabletId, &Found)) -> Record {
    let body = Bytes::from_static(b"why");
    Record { tablet: *tablet, lsn: Lsn::ZERO, epoch: Epoch(1), committed: Lsn::ZERO, kind: Kind::Lost, body }
}

fn reopen(disk: &MemDisk, seed: u64) -> (Log, BTreeMap<TabletId, Found>) {
    disk.crash(seed);
    let (log, recovered) = Log::open(Arc::new(disk.clone()), DIR, OPTIONS).expect("it was open before");
    (log, recovered.tablets)
}

/// Nothing is lost of a tablet, and nobody is told that what is in doubt is sound.
fn compare(before: &BTreeMap<TabletId, Found>, after: &BTreeMap<TabletId, Found>) {
    let upto = |found: &Found| found.doubt.as_ref().map(|doubt| doubt.upto);
    for (tablet, before) in before {
        let after = after.get(tablet).unwrap_or_else(|| panic!("{tablet} is forgotten"));
        assert_eq!((before.last, &before.state), (after.last, &after.state), "of {tablet}");
        assert!(upto(before) <= upto(after), "{tablet} is in doubt: {before:?}, then {after:?}");
    }
}

fn read_all(log: &Log, tablets: &BTreeMap<TabletId, Found>) {
    let reader = log.reader();
    for (tablet, found) in tablets {
        let Some(first) = found.first else { continue };
        assert_eq!(reader.last(*tablet), found.last);
        let held = found.last.0 - first.0 + 1;
        let records = reader.read(*tablet, first, usize::MAX).expect("what was found can be read");
        assert_eq!(records.len() as u64, held, "entries of {tablet} are dense");
        assert!(records.iter().zip(first.0..).all(|(record, lsn)| record.lsn == Lsn(lsn) && record.kind.is_entry()));
    }
    let mut from = Some(Checked::default());
    while let Some(at) = from {
        from = match reader.check(at, 1000) {
            Ok((_, next)) => next,
            Err(error) => {
                assert!(error.is_corrupt(), "{error}");
                Some(at.next_segment())
            }
        };
    }
}

fn split(data: &[u8]) -> Option<(usize, &[u8])> {
    let (len, bytes) = data.split_first_chunk()?;
    Some((usize::from(u16::from_le_bytes(*len)).min(bytes.len()), bytes))
}

fn number_of(segment: &[u8]) -> u32 {
    u32_at(segment, 16).unwrap_or(1).clamp(1, 99_999_000)
}

fn name(number: u32) -> String {
    format!("{DIR}/{number:08}.log")
}

/// Mutates all, or one header or one record, and then makes all sums right, mostly.
pub fn mutate(data: &mut [u8], size: usize, most: usize, seed: u32, plain: Plain<'_>) -> usize {
    let mut random = Random::new(u64::from(seed));
    let Some((len, _)) = split(&data[..size]) else { return plain(data, size, most) };
    let starts = [2, 2 + len];
    let mut parts = Vec::new();
    for (start, end) in [(starts[0], starts[1]), (starts[1], size)] {
        if end - start >= SEGMENT_HEADER {
            parts.push((start, start + SEGMENT_HEADER));
            parts.extend(records(&data[start..end]).map(|(from, to)| (start + from, start + to)));
        }
    }
    let mut len = size;
    match random.pick(&parts).copied() {
        Some((from, to)) if random.chance(70) => {
            let head = if random.chance(70) { (from + RECORD_HEADER).min(to) } else { to };
            plain(&mut data[from..head], head - from, head - from);
        }
        _ => len = plain(data, size, most),
    }
    if random.chance(95) {
        seal(&mut data[..len], random.chance(80));
    }
    len
}

/// Where the records of a segment seem to begin and end.
fn records(segment: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut at = SEGMENT_HEADER;
    std::iter::from_fn(move || {
        while let Some(header) = segment.get(at..at + RECORD_HEADER) {
            let len = (u32_at(header, 4)? as usize).next_multiple_of(8);
            let end = at + RECORD_HEADER + len;
            if (1..=KINDS).contains(&header[48]) && end <= segment.len() {
                return Some((std::mem::replace(&mut at, end), end));
            }
            at += 8;
        }
        None
    })
}

/// Makes the sums of both segments right, and the chains if told so.
pub fn seal(data: &mut [u8], chained: bool) {
    let Some((len, bytes)) = split(data) else { return };
    let first = number_of(&bytes[..len]);
    let (one, other) = data[2..].split_at_mut(len);
    let mut chains = BTreeMap::new();
    for (segment, number) in [(one, first), (other, first + 1)] {
        if segment.len() < SEGMENT_HEADER {
            continue;
        }
        put_u32(segment, 16, number);
        let sum = crc(&[&segment[4..SEGMENT_HEADER]]);
        put_u32(segment, 0, sum);
        let places: Vec<_> = records(segment).collect();
        for (from, to) in places {
            let record = &mut segment[from..to];
            record[49..52].fill(0);
            let sum = crc(&[&record[RECORD_HEADER..]]);
            put_u32(record, 44, sum);
            let tablet: [u8; 8] = *record[8..].first_chunk().expect("a header is longer");
            if chained {
                put_u32(record, 52, chains.get(&tablet).copied().unwrap_or(0));
            }
            let place = u64::from(number) << 32 | from as u64;
            let sum = crc(&[&place.to_le_bytes(), &record[4..RECORD_HEADER]]);
            put_u32(record, 0, sum);
            match record[48] {
                5 => _ = chains.remove(&tablet),
                7 => {}
                _ => _ = chains.insert(tablet, sum),
            }
        }
    }
}
