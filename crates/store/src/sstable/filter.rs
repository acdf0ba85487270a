//! Which rows a table may hold: a Bloom filter over escaped row keys.
//!
//! Ten bits and seven probes per row let about one in a hundred absent rows through. The probes are
//! `h + i * g` for the halves `h` and `g` (made odd) of the row's XXH3 (64 bits, seed 0), modulo the number of bits.

use model::Bytes;
use xxhash_rust::xxh3::xxh3_64;

const BITS_PER_ROW: usize = 10;
const PROBES: u64 = 7;

/// What the filter knows a row by.
pub fn hash(escaped_row: &[u8]) -> u64 {
    xxh3_64(escaped_row)
}

/// Appends the filter of these rows to `out`.
pub fn build(hashes: &[u64], out: &mut Vec<u8>) {
    let start = out.len();
    let bytes = (hashes.len() * BITS_PER_ROW).div_ceil(8).max(8);
    out.resize(start + bytes, 0);
    for &hash in hashes {
        for bit in probes(hash, bytes) {
            out[start + bit / 8] |= 1 << (bit % 8);
        }
    }
}

/// Whether the row may be among them; false is certain.
pub fn may_hold(filter: &Bytes, hash: u64) -> bool {
    filter.is_empty() || probes(hash, filter.len()).all(|bit| filter[bit / 8] & (1 << (bit % 8)) != 0)
}

fn probes(hash: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let (first, step) = (hash >> 32, (hash & 0xffff_ffff) | 1);
    (0..PROBES).map(move |n| ((first + n * step) % (bytes as u64 * 8)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_added_and_little_else() {
        let hash_of = |n: u32| hash(&n.to_be_bytes());
        let mut filter = Vec::new();
        build(&(0..10_000).map(hash_of).collect::<Vec<_>>(), &mut filter);
        let filter = Bytes::from(filter);
        assert!((0..10_000).all(|n| may_hold(&filter, hash_of(n))));
        let wrong = (10_000..110_000).filter(|&n| may_hold(&filter, hash_of(n))).count();
        assert!(wrong < 1_500, "{wrong} of 100000");
    }
}
