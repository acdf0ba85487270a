//! Blocks of table files in memory, decompressed and checked: bounded by bytes, shared by all tables of a node.
//!
//! ```text
//!   read for a client ──▶ Cache ──miss──▶ file ──check──▶ Cache
//!   merge, scrub, check of what a peer sent ────────────▶ file      these neither fill it nor believe it
//! ```
//!
//! Rows that are read often are kept beside the blocks they come from ([`crate::reads`]), in an eighth of the room. A row is read
//! often if it comes again among the last ones that were asked for; the others would cost more than they bring.
//!
//! A block that is read once, as by a scan, leaves before one that is read again (S3-FIFO with a memory of what has left, in
//! `quick_cache`). Each open table has a number of its own here, so that a block is never taken for that of another file.
//!
//! Beside it, and counted apart, tables keep in memory what a read needs on its way to a block (filters and indexes: pinned, up
//! to a share of the cache's size; what is over that goes through the cache), and the blocks of tables that are held in
//! memory as a whole ([`super::Table::load`]).

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use model::Bytes;
use quick_cache::sync::DefaultLifecycle;
use quick_cache::{OptionsBuilder, Weighter, sync};

use super::block::Payload;
use super::index::Group;
use crate::reads::kept::KeptRow;

/// Of so many parts, each with a lock of its own. A number of its own accord, so that every machine does the same.
const SHARDS: usize = 16;
/// What a block is expected to weigh, to begin with.
const BLOCK: u64 = 8 << 10;
/// One byte of so many is for rows, and what one of those is expected to weigh.
const ROWS_SHARE: u64 = 8;
const ROW: u64 = 512;
/// Of so many rows that were asked for last, one that is asked for again is kept.
const ASKED: usize = 1 << 14;
/// What the cache needs for a block beside its bytes.
const BESIDE: u64 = 128;
/// Tables keep an index or a filter that needs no more than this, whatever others keep: the cache would not save memory.
const SMALL: u64 = 128 << 10;
/// Counters are spread, so that readers on many cores do not wait for one line of memory.
const STRIPES: usize = 8;

/// Where a block comes from: number of the open table, offset in its file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key(u64, u64);

impl Key {
    /// Of a row: no table has a number like its first one. What has the same key by chance tells who it is.
    fn of_row(tables: &[u64], hash: u64) -> Key {
        let mut mix = Mix::default();
        tables.iter().for_each(|&table| mix.write_u64(table));
        Key(mix.finish() | 1 << 63, hash)
    }
}

#[derive(Clone)]
struct Weigh;

/// What is kept.
#[derive(Clone)]
enum Held {
    /// A data block.
    Block(Payload),
    /// A piece of a filter.
    Piece(Bytes),
    /// A part of an index.
    Group(Arc<Group>),
    /// What some tables have of a row.
    Row(Arc<KeptRow>),
}

impl Weighter<Key, Held> for Weigh {
    fn weight(&self, _: &Key, held: &Held) -> u64 {
        let bytes = match held {
            Held::Block(block) => block.weight(),
            Held::Piece(piece) => piece.len(),
            Held::Group(group) => group.weight(),
            Held::Row(row) => row.weight(),
        };
        bytes as u64 + BESIDE
    }
}

/// Mixes the two numbers of a key, the same in every process.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Blocks = sync::Cache<Key, Held, Weigh, BuildHasherDefault<Mix>>;

/// See the module.
pub struct Cache {
    /// `None` if it never holds anything.
    blocks: Option<Blocks>,
    /// Likewise, for rows: in a cache of their own, or many small rows would drive out the blocks of many more.
    rows: Option<Blocks>,
    /// Which rows were asked for last, by a part of their hashes.
    asked: Box<[AtomicU32]>,
    next_table: AtomicU64,
    counts: [Counts; STRIPES],
    pinned: AtomicU64,
    may_pin: u64,
    loaded: AtomicU64,
}

#[derive(Default)]
#[repr(align(128))]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What a cache has done, and what is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that went to a file.
    pub misses: u64,
    /// Blocks in it.
    pub blocks: u64,
    /// Rows in it.
    pub rows: u64,
    /// The bytes of both.
    pub bytes: u64,
    /// How many bytes there may be.
    pub capacity: u64,
    /// Bytes of filters and indexes that open tables keep.
    pub pinned: u64,
    /// Bytes of blocks of tables that are in memory as a whole.
    pub loaded: u64,
}

impl Cache {
    /// One that holds up to so many bytes of blocks. Tables may pin a quarter as much beside them.
    pub fn new(capacity: u64) -> Arc<Cache> {
        let for_rows = capacity / ROWS_SHARE;
        let (blocks, rows) = (Cache::part(capacity - for_rows, BLOCK), Cache::part(for_rows, ROW));
        Arc::new(Cache::of(Some((blocks, rows)), capacity / 4))
    }

    fn part(capacity: u64, typical: u64) -> Blocks {
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity((capacity / typical).clamp(64, 1 << 20) as usize)
            .weight_capacity(capacity)
            .build()
            .expect("both capacities are given");
        let lifecycle = DefaultLifecycle::default();
        Blocks::with_options(options, Weigh, BuildHasherDefault::default(), lifecycle)
    }

    /// One that never holds anything: for tools, which read everything once. Tables pin what they like.
    pub fn none() -> Arc<Cache> {
        Arc::new(Cache::of(None, u64::MAX))
    }

    fn of(parts: Option<(Blocks, Blocks)>, may_pin: u64) -> Cache {
        let (next_table, pinned, loaded) = Default::default();
        let (blocks, rows) = parts.unzip();
        let asked = (0..ASKED).map(|_| AtomicU32::new(0)).collect();
        Cache { blocks, rows, asked, next_table, counts: Default::default(), pinned, may_pin, loaded }
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        let sum = |count: fn(&Counts) -> &AtomicU64| self.counts.iter().map(|c| count(c).load(Ordering::Relaxed)).sum();
        Stats {
            hits: sum(|counts| &counts.hits),
            misses: sum(|counts| &counts.misses),
            blocks: self.blocks.as_ref().map_or(0, |blocks| blocks.len() as u64),
            rows: self.rows.as_ref().map_or(0, |rows| rows.len() as u64),
            bytes: self.parts().map(|part| part.weight()).sum(),
            capacity: self.parts().map(|part| part.capacity()).sum(),
            pinned: self.pinned.load(Ordering::Relaxed),
            loaded: self.loaded.load(Ordering::Relaxed),
        }
    }

    fn parts(&self) -> impl Iterator<Item = &Blocks> {
        self.blocks.iter().chain(&self.rows)
    }

    /// A number for a table that is opened.
    pub(super) fn number(&self) -> u64 {
        self.next_table.fetch_add(1, Ordering::Relaxed)
    }

    /// The data block at this offset of the table's file, if it is here. It counts as a read, as do the next two.
    pub(super) fn get(&self, table: u64, offset: u64) -> Option<Payload> {
        match self.find(Key(table, offset), true)? {
            Held::Block(block) => Some(block),
            _ => None,
        }
    }

    /// The piece of a filter.
    pub(super) fn get_piece(&self, table: u64, offset: u64) -> Option<Bytes> {
        match self.find(Key(table, offset), true)? {
            Held::Piece(piece) => Some(piece),
            _ => None,
        }
    }

    /// The part of an index.
    pub(super) fn get_group(&self, table: u64, offset: u64) -> Option<Arc<Group>> {
        match self.find(Key(table, offset), true)? {
            Held::Group(group) => Some(group),
            _ => None,
        }
    }

    /// Is it here? Nothing comes of the question; nor of the next two.
    pub(super) fn has(&self, table: u64, offset: u64) -> bool {
        self.blocks.as_ref().is_some_and(|blocks| blocks.contains_key(&Key(table, offset)))
    }

    /// The piece of a filter.
    pub(super) fn peek_piece(&self, table: u64, offset: u64) -> Option<Bytes> {
        match self.find(Key(table, offset), false)? {
            Held::Piece(piece) => Some(piece),
            _ => None,
        }
    }

    /// The part of an index.
    pub(super) fn peek_group(&self, table: u64, offset: u64) -> Option<Arc<Group>> {
        match self.find(Key(table, offset), false)? {
            Held::Group(group) => Some(group),
            _ => None,
        }
    }

    fn find(&self, key: Key, counts: bool) -> Option<Held> {
        let blocks = self.blocks.as_ref();
        if !counts {
            return blocks?.peek(&key);
        }
        let found = blocks.and_then(|blocks| blocks.get(&key));
        let counts = &self.counts[(key.0 ^ (key.1 >> 12)) as usize % STRIPES];
        let count = if found.is_some() { &counts.hits } else { &counts.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// What these tables have of the row with this escaped key and hash, if it is here.
    pub(crate) fn row(&self, tables: &[u64], row: &[u8], hash: u64) -> Option<Arc<KeptRow>> {
        match self.rows.as_ref()?.get(&Key::of_row(tables, hash))? {
            Held::Row(kept) => kept.is_of(tables, row).then_some(kept),
            _ => None,
        }
    }

    /// Keeps what tables have of a row.
    pub(crate) fn insert_row(&self, tables: &[u64], hash: u64, row: Arc<KeptRow>) {
        if let Some(rows) = &self.rows {
            rows.insert(Key::of_row(tables, hash), Held::Row(row));
        }
    }

    /// Was the row with this hash asked for not long ago? It is now.
    pub(crate) fn asks_again(&self, hash: u64) -> bool {
        let tag = (hash >> 32) as u32 | 1;
        self.asked[hash as usize % ASKED].swap(tag, Ordering::Relaxed) == tag
    }

    /// Keeps a data block that was just read.
    pub(super) fn insert(&self, table: u64, offset: u64, block: &Payload) {
        self.keep(Key(table, offset), Held::Block(block.clone()));
    }

    /// Keeps a piece of a filter that was just read.
    pub(super) fn insert_piece(&self, table: u64, offset: u64, piece: &Bytes) {
        self.keep(Key(table, offset), Held::Piece(piece.clone()));
    }

    /// Keeps a part of an index that was just read.
    pub(super) fn insert_group(&self, table: u64, offset: u64, group: &Arc<Group>) {
        self.keep(Key(table, offset), Held::Group(group.clone()));
    }

    fn keep(&self, key: Key, held: Held) {
        if let Some(blocks) = &self.blocks {
            blocks.insert(key, held);
        }
    }

    /// Lets a table keep so much of its index or filter, if that is little, or if there is room.
    pub(super) fn pin(self: &Arc<Cache>, bytes: u64) -> Option<Charge> {
        let room = |pinned: u64| pinned.checked_add(bytes).filter(|sum| bytes <= SMALL || *sum <= self.may_pin);
        self.pinned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Charge { cache: Arc::clone(self), bytes, to: |cache| &cache.pinned })
    }

    /// Counts what a table keeps that is in memory as a whole.
    pub(super) fn count_loaded(self: &Arc<Cache>, bytes: u64) -> Charge {
        self.loaded.fetch_add(bytes, Ordering::Relaxed);
        Charge { cache: Arc::clone(self), bytes, to: |cache| &cache.loaded }
    }
}

/// Bytes that a table keeps beside the cache; counted until it is dropped.
pub(super) struct Charge {
    cache: Arc<Cache>,
    bytes: u64,
    to: fn(&Cache) -> &AtomicU64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        (self.to)(&self.cache).fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}
