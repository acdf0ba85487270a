//! Where a memtable's keys and values lie: written once one after the other, never moved, freed all at once.
//!
//! ```text
//!   chunk:  1 KiB at first, each twice the one before, up to 256 KiB
//!   entry:  key length varint | key | value length * 2 + 0, varint | value                  begins at a multiple of 4
//!                             or    | 1, varint              | place in `large`, u32        a large value keeps its own
//! ```
//!
//! An [`Address`] is the number of the chunk and a quarter of the place in it, so there are 16 GiB of them.

use model::Bytes;

/// The largest chunk, unless a single entry is larger.
const CHUNK: usize = 256 << 10;
const SMALLEST: usize = 1 << 10;
const ALIGN: usize = 4;
/// Larger values stay where they are: to copy them costs more than to remember where they were.
pub(super) const LARGE: usize = 512;

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address(u32);

impl Address {
    const PLACE_BITS: u32 = (CHUNK / ALIGN).trailing_zeros();
    /// Of no entry: the last quarter of the last chunk, where none fits.
    pub const NONE: Address = Address(u32::MAX);

    fn new(chunk: usize, place: usize) -> Address {
        let chunk = u32::try_from(chunk).ok().filter(|&chunk| chunk < u32::MAX >> Address::PLACE_BITS);
        let chunk = chunk.expect("a memtable is flushed long before it has 16 GiB of keys");
        Address(chunk << Address::PLACE_BITS | (place / ALIGN) as u32)
    }

    fn chunk(self) -> usize {
        (self.0 >> Address::PLACE_BITS) as usize
    }

    fn place(self) -> usize {
        (self.0 & ((1 << Address::PLACE_BITS) - 1)) as usize * ALIGN
    }
}

/// A value as it lies in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// In line with its key.
    Small(&'a [u8]),
    /// Elsewhere.
    Large(&'a Bytes),
}

impl Value<'_> {
    pub fn len(&self) -> usize {
        match self {
            Value::Small(value) => value.len(),
            Value::Large(value) => value.len(),
        }
    }

    pub fn to_bytes(self) -> Bytes {
        match self {
            Value::Small(value) => Bytes::copy_from_slice(value),
            Value::Large(value) => value.clone(),
        }
    }
}

impl<'a> From<&'a Bytes> for Value<'a> {
    fn from(value: &'a Bytes) -> Value<'a> {
        if value.len() > LARGE { Value::Large(value) } else { Value::Small(value) }
    }
}

#[derive(Default)]
pub(super) struct Arena {
    /// Only the last one grows, within its capacity.
    chunks: Vec<Vec<u8>>,
    large: Vec<Bytes>,
    /// Bytes that were taken for all of that.
    taken: usize,
}

impl Arena {
    /// Bytes of memory that it takes.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Writes down an entry.
    pub fn push(&mut self, key: &[u8], value: Value<'_>) -> Address {
        let most = 10 + 10 + key.len() + value.len().min(LARGE);
        let address = self.reserve(most);
        let chunk = &mut self.chunks[address.chunk()];
        push_varint(chunk, key.len());
        chunk.extend_from_slice(key);
        match value {
            Value::Small(value) => {
                push_varint(chunk, value.len() << 1);
                chunk.extend_from_slice(value);
            }
            Value::Large(value) => {
                push_varint(chunk, 1);
                let place = u32::try_from(self.large.len()).expect("each large value has an address");
                chunk.extend_from_slice(&place.to_le_bytes());
                self.taken += value.len() + size_of::<Bytes>();
                self.large.push(value.clone());
            }
        }
        address
    }

    /// Where the next entry, of at most so many bytes, is to begin.
    fn reserve(&mut self, most: usize) -> Address {
        let fits = |chunk: &Vec<u8>| {
            let place = chunk.len().next_multiple_of(ALIGN);
            place < CHUNK && place + most <= chunk.capacity()
        };
        if !self.chunks.last().is_some_and(fits) {
            let size = self.chunks.last().map_or(SMALLEST, |chunk| (chunk.capacity() * 2).min(CHUNK)).max(most);
            let chunk = Vec::with_capacity(size);
            self.taken += chunk.capacity() + size_of::<Vec<u8>>();
            self.chunks.push(chunk);
        }
        let last = self.chunks.len() - 1;
        let chunk = &mut self.chunks[last];
        chunk.resize(chunk.len().next_multiple_of(ALIGN), 0);
        Address::new(last, chunk.len())
    }

    /// The entry's key.
    pub fn key(&self, address: Address) -> &[u8] {
        let mut at = address.place();
        let chunk = &self.chunks[address.chunk()];
        let len = take_varint(chunk, &mut at);
        &chunk[at..at + len]
    }

    /// The entry's key and value.
    pub fn entry(&self, address: Address) -> (&[u8], Value<'_>) {
        let mut at = address.place();
        let chunk = &self.chunks[address.chunk()];
        let len = take_varint(chunk, &mut at);
        let key = &chunk[at..at + len];
        at += len;
        let value = match take_varint(chunk, &mut at) {
            1 => {
                let place = chunk[at..].first_chunk().expect("what we wrote ends with the place of its value");
                Value::Large(&self.large[u32::from_le_bytes(*place) as usize])
            }
            len => Value::Small(&chunk[at..at + (len >> 1)]),
        };
        (key, value)
    }
}

fn push_varint(chunk: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        chunk.push(number as u8 | 0x80);
        number >>= 7;
    }
    chunk.push(number as u8);
}

#[inline]
fn take_varint(chunk: &[u8], at: &mut usize) -> usize {
    let first = chunk[*at];
    *at += 1;
    if first < 0x80 {
        return first.into();
    }
    let (mut number, mut shift) = (usize::from(first & 0x7f), 7);
    loop {
        let byte = chunk[*at];
        *at += 1;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
        shift += 7;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of all sizes, also those for which no chunk is made; nothing moves, and what it takes is what was there.
    #[test]
    fn what_was_written_down_stays() {
        let mut arena = Arena::default();
        let sizes = [0, 1, 3, 127, 128, LARGE, LARGE + 1, 20_000, 300_000];
        let mut written = Vec::new();
        for round in 0..40u8 {
            for (n, &key) in sizes.iter().enumerate() {
                let (key, value) = (vec![round; key], Bytes::from(vec![n as u8; sizes[(n + round as usize) % 9]]));
                let address = arena.push(&key, Value::from(&value));
                written.push((address, key, value));
            }
        }
        for (address, key, value) in &written {
            assert_eq!(arena.key(*address), key);
            let (found, at) = arena.entry(*address);
            assert_eq!((found, at.to_bytes()), (&key[..], value.clone()));
        }
        let sum: usize = written.iter().map(|(_, key, value)| key.len() + value.len()).sum();
        assert!(arena.taken() >= sum && arena.taken() < sum * 3 / 2, "{} for {sum}", arena.taken());
    }

    #[test]
    fn a_large_value_is_not_copied() {
        let mut arena = Arena::default();
        let value = Bytes::from(vec![7; LARGE + 1]);
        let address = arena.push(b"k", Value::from(&value));
        assert_eq!(arena.entry(address).1.to_bytes().as_ptr(), value.as_ptr());
    }

    #[test]
    fn nothing_costs_nothing_and_little_costs_little() {
        let mut arena = Arena::default();
        assert_eq!(arena.taken(), 0);
        arena.push(b"key", Value::Small(b"value"));
        assert!(arena.taken() <= SMALLEST + 64);
    }
}
