//! Fuzz targets: each takes an input, does with it what a node would, and panics where a promise is broken.
//!
//! ```text
//!   libFuzzer ──▶ mutate: plain mutation, then sums are made right again ──▶ run: store's public functions, and what they
//!      ▲                                                                        promise of whatever bytes
//!      └── which branches it took, which comparisons it made ◀──────────────────┘
//! ```
//!
//! Everything on our disks is under checksums, which no blind mutation passes. So a mutator knows as much of a format as it takes
//! to compute them anew (the pictures are in the modules of `store`): what is behind them is not to be trusted either.
//!
//! `fuzz/run` builds and runs them (`make fuzz`); inputs to begin with are in `fuzz/corpus`, written by `src/bin/seeds.rs`.

pub mod engine;
pub mod key;
pub mod log;
pub mod manifest;
mod memory;
pub mod table;

use disk::{Disk, MemDisk};

/// libFuzzer's own mutation of the first so many bytes, up to so many, and how many there are then.
pub type Plain<'a> = &'a mut dyn FnMut(&mut [u8], usize, usize) -> usize;

/// CRC-32C.
fn crc(parts: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize() as u32
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|number| u32::from_le_bytes(*number))
}

fn put_u32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Mutates a part that keeps its length.
fn mutate_in_place(part: &mut [u8], plain: Plain<'_>) {
    plain(part, part.len(), part.len());
}

/// A durable file with these bytes.
fn put(disk: &MemDisk, path: &str, bytes: &[u8]) {
    let file = disk.create(path).expect("it has room");
    file.write_at(0, bytes).and_then(|()| file.sync()).expect("it has room");
    let (dir, _) = path.rsplit_once('/').unwrap_or_default();
    disk.sync_dir(dir).expect("the folder is there");
}

fn read(disk: &MemDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path).expect("it is there");
    let mut bytes = vec![0; file.len().expect("it is there") as usize];
    file.read_at(0, &mut bytes).expect("nothing is said to fail");
    bytes
}
