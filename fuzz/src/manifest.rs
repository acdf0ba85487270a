//! A tablet's manifest: whatever is in the file, the tablet is known or said to be damaged, and goes on by edits that stay.

use std::sync::Arc;

use disk::{Disk, MemDisk};
use model::random::Random;
use model::{Bytes, Lsn, RunId, TabletId, Timestamp};
use store::manifest::{DIR, Edit, Manifest, Placed, State};

use crate::{Plain, crc, mutate_in_place, put, put_u32, read, u32_at};

const T: TabletId = TabletId(7);
const PATH: &str = "manifest/7";
const HEADER: usize = 16;
const HEADER_1: usize = 20;
const FRAME: usize = 24;

/// The input is the file `manifest/7`.
pub fn run(data: &[u8]) {
    let disk = MemDisk::new();
    for dir in [DIR, store::trash::DIR] {
        disk.create_dir(dir).expect("it has room");
    }
    disk.sync_dir("").expect("it has room");
    put(&disk, PATH, data);
    let Some((mut manifest, damaged)) = open(&disk) else { return };
    let found = state_of(&manifest);
    assert_eq!(found.is_some(), !damaged, "it is known, or known to be damaged");
    if damaged {
        assert_eq!(read(&disk, PATH), data, "what is damaged is not touched");
        manifest.throw_away(T, Timestamp(0)).expect("what is damaged can be thrown away");
    } else {
        manifest.check(T).expect("it says what it said");
    }
    let before = found.unwrap_or(State { tablet: T, tables: Vec::new(), flushed: Lsn::ZERO, note: Bytes::new() });

    // It goes on, and what it says stays.
    let Some(upto) = before.flushed.0.checked_add(1) else { return };
    let number = (0..).find(|number| !manifest.names(*number)).expect("there are more numbers than tables");
    let added = vec![Placed { number, run: RunId { age: Lsn(upto), ..RunId::default() } }];
    let flushed = Edit::Flushed { added, after: before.flushed, upto: Lsn(upto), note: Bytes::from_static(b"new") };
    let gone = manifest.edit(T, flushed).expect("the disk does not fail");
    assert_eq!(gone, [], "a flush takes no table away");
    let after = state_of(&manifest).expect("it was just edited");
    assert_eq!((after.flushed, &after.note[..]), (Lsn(upto), &b"new"[..]));
    assert_eq!(after.tables.len(), before.tables.len() + 1);
    reopen(&disk, &after, 1);

    // All of them become one.
    let (mut manifest, _) = open(&disk).expect("it was just opened");
    let removed: Vec<u64> = after.tables.iter().map(|placed| placed.number).collect();
    let into = Placed { number: number + 1, run: RunId { age: Lsn(upto), ..RunId::default() } };
    if !manifest.names(into.number) {
        let gone = manifest.edit(T, Edit::Merged { removed: removed.clone(), added: vec![into] });
        assert_eq!(gone.expect("the disk does not fail"), removed);
        reopen(&disk, &State { tables: vec![into], ..after }, 2);
    }
}

fn open(disk: &MemDisk) -> Option<(Manifest, bool)> {
    match Manifest::open(Arc::new(disk.clone())) {
        Ok((manifest, damaged)) => Some((manifest, damaged.contains_key(&T))),
        Err(store::Error::Version { .. }) => None,
        Err(error) => panic!("damage of one tablet is its own: {error}"),
    }
}

fn state_of(manifest: &Manifest) -> Option<State> {
    manifest.states().find(|state| state.tablet == T).cloned()
}

/// The power fails, and the tablet is what it was.
fn reopen(disk: &MemDisk, expected: &State, seed: u64) {
    disk.crash(seed);
    let (manifest, damaged) = open(disk).expect("it is of our version now");
    assert!(!damaged, "what we wrote is sound");
    assert_eq!(state_of(&manifest).as_ref(), Some(expected));
}

/// Mutates the file, or the body of one frame, and then makes all sums right, mostly.
pub fn mutate(data: &mut [u8], size: usize, most: usize, seed: u32, plain: Plain<'_>) -> usize {
    let mut random = Random::new(u64::from(seed));
    let size = match frames(&data[..size]) {
        frames if !frames.is_empty() && random.chance(70) => {
            let &(at, end) = random.pick(&frames).expect("there are some");
            let mut body = data[at + FRAME..end].to_vec();
            let mut len = body.len();
            if random.chance(50) {
                mutate_in_place(&mut body, plain);
            } else {
                let room = most - (size - len);
                body.resize(room.max(len), 0);
                len = plain(&mut body, len, room);
            }
            // The frames behind it move.
            let rest = data[end..size].to_vec();
            let file = [&data[..at + FRAME], &body[..len], &rest].concat();
            data[..file.len()].copy_from_slice(&file);
            put_u32(data, at + 4, len as u32);
            file.len()
        }
        _ => plain(data, size, most),
    };
    if random.chance(95) {
        seal(&mut data[..size]);
    }
    size
}

/// Where frames begin and end, as far as they follow each other.
fn frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut frames, mut at) = (Vec::new(), HEADER);
    while let Some(len) = u32_at(bytes, at + 4) {
        let Some(end) = at.checked_add(FRAME + len as usize).filter(|end| *end <= bytes.len()) else { break };
        frames.push((at, end));
        at = end;
    }
    frames
}

/// Makes the sums, the chain and the tablet right.
pub fn seal(file: &mut [u8]) {
    if file.len() < HEADER {
        return;
    }
    if u32_at(file, 8) == Some(1) && file.len() >= HEADER_1 {
        let len = (file.len() - HEADER_1) as u32;
        put_u32(file, 12, len);
        let sum = crc(&[&file[..16], &file[HEADER_1..]]);
        return put_u32(file, 16, sum);
    }
    let sum = crc(&[&file[..12]]);
    put_u32(file, 12, sum);
    let mut chain = 0;
    for (at, end) in frames(file) {
        file[at + 8..at + 16].copy_from_slice(&T.0.to_le_bytes());
        put_u32(file, at + 16, chain);
        chain = crc(&[&file[at + 4..end], &(at as u64).to_le_bytes()]);
        put_u32(file, at, chain);
    }
}
