//! The bytes of one file, sparse and cheap to copy, and what a crash makes of those that were not synced.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: u64 = 4096;
/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// Bytes by page; a page that is not there is all zeros. Copies share their pages until one is written.
/// Bytes after `len` within a page are zeros.
#[derive(Clone, Default)]
pub struct Content {
    pub len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE as usize]>>,
}

impl Content {
    pub fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let len = self.len.saturating_sub(offset).min(into.len() as u64) as usize;
        for (page, within, part) in pieces(offset, len) {
            match self.pages.get(&page) {
                Some(bytes) => into[part.clone()].copy_from_slice(&bytes[within..within + part.len()]),
                None => into[part].fill(0),
            }
        }
        len
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (page, within, part) in pieces(offset, bytes.len()) {
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[within..within + part.len()].copy_from_slice(&bytes[part]);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE));
            if let Some(page) = self.pages.get_mut(&(len / PAGE)) {
                Arc::make_mut(page)[(len % PAGE) as usize..].fill(0);
            }
        }
        self.len = len;
    }

    /// Becomes what `live` is, where `live` has come from this by `changes`. Costs as much as the changes, not the file.
    pub fn follow(&mut self, changes: &[Unsynced], live: &Content) {
        for change in changes {
            match change {
                Unsynced::Len(len) => self.set_len(*len),
                Unsynced::Write { offset, bytes } => {
                    for (page, ..) in pieces(*offset, bytes.len()) {
                        match live.pages.get(&page) {
                            Some(bytes) => self.pages.insert(page, bytes.clone()),
                            None => self.pages.remove(&page),
                        };
                    }
                    self.len = self.len.max(offset + bytes.len() as u64);
                }
            }
        }
        self.len = live.len;
    }
}

/// Cuts `len` bytes at `offset` at the borders of pages: (page, offset in the page, range in the bytes).
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE) as usize;
        let take = (len - done).min(PAGE as usize - within);
        let start = done;
        done += take;
        (take > 0).then(|| (at / PAGE, within, start..start + take))
    })
}

/// A change that no sync has made durable yet.
pub enum Unsynced {
    Write { offset: u64, bytes: Vec<u8> },
    Len(u64),
}

impl Unsynced {
    /// It reached the disk before the crash.
    pub fn keep(&self, durable: &mut Content) {
        match self {
            Unsynced::Write { offset, bytes } => durable.write(*offset, bytes),
            Unsynced::Len(len) => durable.set_len(*len),
        }
    }

    /// Some sectors of it reached the disk, in any order.
    pub fn tear(&self, durable: &mut Content, draw: &mut Draw) {
        let Unsynced::Write { offset, bytes } = self else { return };
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let take = (SECTOR - (at % SECTOR as u64) as usize).min(bytes.len() - done);
            if draw.below(2) == 0 {
                durable.write(at, &bytes[done..done + take]);
            }
            done += take;
        }
    }
}

/// What happens to the unsynced changes of one file at a crash.
#[derive(Clone, Copy)]
pub enum Mood {
    LosesAll,
    KeepsAll,
    Mixes,
}

impl Mood {
    pub fn keeps(self, draw: &mut Draw) -> bool {
        matches!(self, Mood::KeepsAll) || matches!(self, Mood::Mixes) && draw.below(3) == 0
    }

    pub fn tears(self) -> bool {
        matches!(self, Mood::Mixes)
    }
}

/// Chance from a seed (SplitMix64); the crate stands beside `model`'s and depends on nothing of ours.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub fn mood(&mut self) -> Mood {
        match self.below(5) {
            0 => Mood::LosesAll,
            1 => Mood::KeepsAll,
            _ => Mood::Mixes,
        }
    }
}
