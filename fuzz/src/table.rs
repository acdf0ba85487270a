//! Table files: whatever is in one, it is read or refused as damaged, and what [`Table::verify`] accepts is read the same by
//! every way that leads into it.

use std::sync::Arc;

use disk::{Disk, MemDisk};
use model::random::Random;
use model::{Bytes, RowRange};
use store::Error;
use store::key::{self, Parts, Scope};
use store::sstable::{Cache, Purpose, Table, TableCursor, filter};

use crate::{Plain, crc, mutate_in_place, put, put_u32, u32_at};

const PATH: &str = "1.sst";
const FOOTER: usize = 64;
const CRC: usize = 4;
/// Of how many entries each is looked for.
const SOUGHT: usize = 40;

type Entries = Vec<(Bytes, Bytes)>;

/// The input is a table file.
pub fn run(data: &[u8]) {
    let disk = MemDisk::new();
    put(&disk, PATH, data);
    // With and without room for its index, filter and blocks.
    for cache in [Cache::new(8 << 20), Cache::none()] {
        let file = disk.open(PATH).expect("it was just written");
        let Some(table) = refused(Table::open(file, PATH.to_owned(), None, &cache)) else { return };
        let table = Arc::new(table);
        let sound = refused(table.verify()).is_some();
        let as_told = |entries: Option<Entries>| {
            assert!(!sound || entries.is_some(), "a sound table is read");
            entries
        };
        let served = as_told(refused(walk(&table, Purpose::Serve)));
        let passed = as_told(refused(walk(&table, Purpose::Background)));
        let back = as_told(refused(walk_back(&table)));
        if sound {
            let entries = served.expect("a sound table is read");
            assert_eq!(passed.as_ref(), Some(&entries));
            assert_eq!(back.as_ref(), Some(&entries));
            check_sound(&table, &entries, data);
        }
        ask(&table, data);
        if refused(table.load()).is_none() {
            assert!(!sound, "a sound table is loaded");
            return;
        }
        let loaded = as_told(refused(walk(&table, Purpose::Serve)));
        let back = as_told(refused(walk_back(&table)));
        if sound {
            assert_eq!((&loaded, &back), (&passed, &passed));
            check_sound(&table, &loaded.expect("a sound table is read"), data);
        }
    }
}

/// `None` of what is refused as damaged; no other refusal is right.
fn refused<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Corrupt { .. } | Error::Version { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

fn walk(table: &Arc<Table>, purpose: Purpose) -> Result<Entries, Error> {
    let mut entries = Vec::new();
    let mut cursor = TableCursor::new(table.clone(), &[], purpose)?;
    while let Some(key) = cursor.key() {
        entries.push((Bytes::copy_from_slice(key), cursor.value()));
        cursor.advance()?;
    }
    Ok(entries)
}

/// In the order of keys all the same.
fn walk_back(table: &Arc<Table>) -> Result<Entries, Error> {
    let mut entries = Vec::new();
    let mut cursor = TableCursor::before(table.clone(), None, Purpose::Serve)?;
    while let Some(key) = cursor.key() {
        entries.push((Bytes::copy_from_slice(key), cursor.value()));
        cursor.retreat()?;
    }
    entries.reverse();
    Ok(entries)
}

fn check_sound(table: &Arc<Table>, entries: &Entries, data: &[u8]) {
    let properties = table.properties();
    assert_eq!(properties.entries, entries.len() as u64);
    assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b));
    assert_eq!(
        (entries.first(), entries.last()).0.map(|(key, _)| key),
        (!entries.is_empty()).then_some(&properties.first)
    );
    for at in (0..entries.len()).step_by(entries.len().div_ceil(SOUGHT).max(1)) {
        let (key, value) = &entries[at];
        let parts = Parts::parse(key).expect("the table was verified");
        let cursor = TableCursor::new(table.clone(), key, Purpose::Serve).expect("the table is sound");
        assert_eq!((cursor.key(), cursor.value_ref()), (Some(&key[..]), &value[..]));
        let before = TableCursor::before(table.clone(), Some(key), Purpose::Serve).expect("the table is sound");
        assert_eq!(before.key(), at.checked_sub(1).map(|before| &entries[before].0[..]));
        let mut cursor = TableCursor::new(table.clone(), &[], Purpose::Serve).expect("the table is sound");
        cursor.seek(key).expect("the table is sound");
        assert_eq!(cursor.key(), Some(&key[..]));

        let hash = filter::hash(parts.row);
        assert!(table.may_hold(parts.row, hash) && table.may_hold_surely(parts.row, hash).expect("it is sound"));
        let column = filter::Column::new(hash, parts.family, parts.qualifier);
        assert!(table.may_hold_column(parts.row, &column));
        assert!(parts.scope == Scope::Row || table.may_hold_family(parts.family));
        if let Scope::Cell { timestamp, .. } = parts.scope {
            assert!(table.timestamps().is_some_and(|(least, most)| (least..=most).contains(&timestamp)));
        }

        let row = key::unescape(parts.row);
        let part = table.within(&RowRange::one(row.clone()));
        let of_it: Entries = entries.iter().filter(|(key, _)| key.starts_with(parts.row)).cloned().collect();
        assert_eq!(walk(&part, Purpose::Serve).expect("the table is sound"), of_it);
        assert_eq!(walk_back(&part).expect("the table is sound"), of_it);
        assert!(part.bytes() > 0);
    }
    assert!(check(table).is_some(), "a sound table passes a scrub");
    let raw = refused(table.read_raw(0, u32::MAX)).expect("a sound table is sent");
    assert_eq!(raw, data);
}

/// Questions to a table of which nothing is known.
fn ask(table: &Arc<Table>, data: &[u8]) {
    let tail = data.len().saturating_sub(100);
    let targets = [&table.properties().first[..], &table.properties().last[..], b"", b"row00007\0\x01", &data[tail..]];
    for target in targets {
        let hash = filter::hash(target);
        table.may_hold(target, hash);
        table.is_cached(target, hash);
        refused(table.may_hold_surely(target, hash));
        table.overlaps(target, Some(b"x"));
        let seek = || -> Result<(), Error> {
            let mut cursor = TableCursor::new(table.clone(), target, Purpose::Serve)?;
            cursor.advance()?;
            cursor.retreat()?;
            cursor.seek(b"row00100\0\x01")?;
            cursor.seek(target)?;
            let mut cursor = TableCursor::before(table.clone(), Some(target), Purpose::Serve)?;
            cursor.retreat()?;
            cursor.seek(target)
        };
        refused(seek());
        let part = table.within(&RowRange { start: key::row_upto(target), end: Some(Bytes::from_static(b"row00200")) });
        refused(walk(&part, Purpose::Background));
        refused(walk_back(&part));
        part.bytes_within(&RowRange::one(key::row_upto(target)));
    }
    refused(table.read_raw(data.len() as u64 / 2, 100));
    check(table);
}

/// Scrubs it in slices; `None` if it is damaged.
fn check(table: &Table) -> Option<()> {
    let mut from = Some(0);
    while let Some(at) = from {
        let (_, next) = refused(table.check(at, 2_000))?;
        assert!(next.is_none_or(|next| next > at), "it gets on");
        from = next;
    }
    Some(())
}

/// Mutates one block or the footer (or, without any knowledge, all), and makes the sums right.
pub fn mutate(data: &mut [u8], size: usize, most: usize, seed: u32, plain: Plain<'_>) -> usize {
    let mut random = Random::new(u64::from(seed));
    let blocks = blocks(&data[..size]);
    let Some(&(_, end)) = blocks.last().filter(|_| random.chance(95)) else { return plain(data, size, most) };
    // The last ones say where all others are.
    let choice = random.below(blocks.len() as u64 + 12) as usize;
    let Some(&(at, next)) = blocks.get(choice).or_else(|| blocks.iter().rev().nth(choice - blocks.len())) else {
        // Its sum, its version and its magic number are of no interest.
        mutate_in_place(&mut data[end..end + 48], plain);
        seal_footer(&mut data[end..size], end);
        return size;
    };
    let mut block = data[at..next - CRC].to_vec();
    let mut len = block.len();
    if at < data_end(&data[end..size]) || random.chance(70) {
        mutate_in_place(&mut block, plain);
    } else {
        block.resize(len + (most - size).min(64), 0);
        let room = block.len();
        len = plain(&mut block, len, room);
    }
    // What is behind it moves.
    let moved = |offset: usize| offset + len + CRC - (next - at);
    let rest = data[next..size].to_vec();
    data[at..at + len].copy_from_slice(&block[..len]);
    seal_block(data, at, at + len);
    data[moved(next)..moved(size)].copy_from_slice(&rest);
    for &(from, to) in blocks.iter().filter(|(from, _)| *from >= next) {
        seal_block(data, moved(from), moved(to) - CRC);
    }
    let footer = &mut data[moved(end)..moved(size)];
    if moved(next) != next {
        move_footer(footer, (at, next), moved(next));
    }
    seal_footer(footer, moved(end));
    moved(size)
}

/// Where the blocks of the file begin and end, their sums included: each ends where its sum stands. None, if any sum is wrong.
fn blocks(file: &[u8]) -> Vec<(usize, usize)> {
    let Some(end) = file.len().checked_sub(FOOTER) else { return Vec::new() };
    let (mut blocks, mut start, mut sum) = (Vec::new(), 0, !0);
    let mut at = 0;
    while at + CRC <= end {
        let whole = (start as u64).to_le_bytes().iter().fold(sum, |sum, byte| step(sum, *byte));
        if at > start && u32_at(file, at) == Some(!whole) {
            at += CRC;
            blocks.push((start, at));
            (start, sum) = (at, !0);
        } else {
            sum = step(sum, file[at]);
            at += 1;
        }
    }
    if start == end { blocks } else { Vec::new() }
}

/// CRC-32C, byte by byte.
fn step(sum: u32, byte: u8) -> u32 {
    TABLE[usize::from(sum as u8 ^ byte)] ^ (sum >> 8)
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut sum, mut bit) = (byte as u32, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

fn data_end(footer: &[u8]) -> usize {
    u32_at(footer, 0).unwrap_or(0) as usize
}

/// A block behind the data has another length: says so, in the words of version 2.
fn move_footer(footer: &mut [u8], (from, to): (usize, usize), now: usize) {
    let moved = |offset: usize| if offset >= to { offset + now - to } else { offset };
    let number = |at: usize| u32_at(footer, at).unwrap_or(0) as usize;
    let (dictionary, index, top) = (number(0), number(24), number(32));
    let properties = top.saturating_add(number(40));
    let len = (now - from) as u32;
    let lens = [(dictionary, 12), (top, 40), (properties, 44)];
    let moves = [(24, moved(index)), (32, moved(top))];
    lens.iter().filter(|(place, _)| *place == from).for_each(|(_, at)| put_u32(footer, *at, len));
    moves.iter().for_each(|(at, offset)| put_u32(footer, *at, *offset as u32));
}

fn seal_block(file: &mut [u8], at: usize, end: usize) {
    let sum = crc(&[&file[at..end], &(at as u64).to_le_bytes()]);
    put_u32(file, end, sum);
}

fn seal_footer(footer: &mut [u8], at: usize) {
    let sum = crc(&[&footer[..52], &(at as u64).to_le_bytes()]);
    put_u32(footer, 52, sum);
}
