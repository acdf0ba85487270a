//! The keys and values of all works: numbered, so that a reader can tell whether it got what was written.

use anyhow::{Result, bail};
use model::random::Random;

/// Bytes of a key.
pub const KEY: usize = 16;
/// Values are cut out of so many bytes.
const POOL: usize = 1 << 20;
/// Half of each piece repeats the other half: what compresses values compresses them to about a half.
const PIECE: usize = 100;

/// The `n`-th key. They are in the order of their numbers.
pub fn key(n: u64) -> [u8; KEY] {
    digits(n * 2)
}

/// A key that nobody writes, between the `n`-th and the next one.
pub fn missing(n: u64) -> [u8; KEY] {
    digits(n * 2 + 1)
}

fn digits(mut number: u64) -> [u8; KEY] {
    let mut digits = [b'0'; KEY];
    for digit in digits.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    digits
}

/// A source of values.
pub struct Values {
    pool: Vec<u8>,
    at: usize,
    value: Vec<u8>,
}

impl Values {
    /// Values of so many bytes, at least 16. Another `seed`, other values.
    pub fn new(bytes: usize, seed: u64) -> Values {
        let mut random = Random::new(seed);
        let mut pool = Vec::with_capacity(POOL + PIECE);
        while pool.len() < POOL {
            let half: Vec<u8> = (0..PIECE / 2).map(|_| random.draw() as u8).collect();
            pool.extend_from_slice(&half);
            pool.extend_from_slice(&half);
        }
        Values { pool, at: 0, value: vec![0; bytes] }
    }

    /// A value for the `n`-th key: its number, and noise.
    pub fn of(&mut self, n: u64) -> &[u8] {
        let bytes = self.value.len();
        if self.at + bytes > self.pool.len() {
            self.at = 0;
        }
        self.value.copy_from_slice(&self.pool[self.at..self.at + bytes]);
        self.value[..8].copy_from_slice(&n.to_le_bytes());
        self.at += bytes;
        &self.value
    }
}

/// Is this a value that was written to the `n`-th key?
pub fn check(n: u64, value: &[u8], bytes: usize) -> Result<()> {
    if value.len() != bytes || value[..8] != n.to_le_bytes() {
        bail!("key {n} has a value of {} bytes that nobody wrote there", value.len());
    }
    Ok(())
}

/// All numbers below a bound, each once, in an order that looks like chance (a Feistel network over the next power of
/// four; what falls outside is shuffled again).
#[derive(Clone, Copy)]
pub struct Shuffle {
    below: u64,
    half: u32,
    seed: u64,
}

impl Shuffle {
    /// The numbers below `below`.
    pub fn new(below: u64, seed: u64) -> Shuffle {
        let bits = 64 - below.max(2).leading_zeros();
        Shuffle { below, half: bits.div_ceil(2), seed }
    }

    /// The `index`-th of them.
    pub fn at(self, index: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let mut number = index % self.below;
        loop {
            let (mut left, mut right) = (number >> self.half, number & mask);
            for round in 0..4 {
                let mixed = Random::new(self.seed ^ right << 8 ^ round).draw() & mask;
                (left, right) = (right, left ^ mixed);
            }
            number = left << self.half | right;
            if number < self.below {
                return number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_has_every_number_once() {
        for below in [1, 2, 3, 1000, 4096, 5000] {
            let shuffle = Shuffle::new(below, 7);
            let mut all: Vec<u64> = (0..below).map(|index| shuffle.at(index)).collect();
            assert!(below < 1000 || !all.is_sorted());
            all.sort_unstable();
            assert_eq!(all, (0..below).collect::<Vec<_>>());
        }
    }

    #[test]
    fn keys_are_in_order_and_missing_ones_lie_between() {
        assert!((0..2000).all(|n| key(n) < missing(n) && missing(n) < key(n + 1)));
        assert_eq!(&key(21), b"0000000000000042");
    }

    #[test]
    fn a_value_shows_whose_it_is() {
        let mut values = Values::new(100, 1);
        let value = values.of(5).to_vec();
        assert!(check(5, &value, 100).is_ok());
        assert!(check(6, &value, 100).is_err() && check(5, &value[1..], 100).is_err());
        assert_ne!(values.of(5), &value[..]);
    }
}
