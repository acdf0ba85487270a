//! Which of things that lie in order a key belongs to: the index of a table, as it is in memory.
//!
//! ```text
//!   keys    row00 | row07 | row0b | …         the last key of each thing, or anything up to the first one of the next
//!   heads   "07…"   "0b…"                     eight bytes of each after what all begin with, as a number
//! ```
//!
//! A search goes over the heads, which lie close together, and looks at keys only where those are the same.

use super::block::{self, Malformed, common, head};
use model::Bytes;

/// Things of kind `T` with their keys.
#[derive(Debug, PartialEq, Eq)]
pub struct Fences<T> {
    /// Bytes that all keys begin with.
    shared: usize,
    heads: Vec<u64>,
    keys: Vec<u8>,
    /// Where in `keys` each ends.
    ends: Vec<u32>,
    things: Vec<T>,
}

impl<T> Default for Fences<T> {
    fn default() -> Fences<T> {
        Fences { shared: 0, heads: Vec::new(), keys: Vec::new(), ends: Vec::new(), things: Vec::new() }
    }
}

impl<T: Copy> Fences<T> {
    /// Only one.
    pub fn single(key: &[u8], thing: T) -> Fences<T> {
        Fences {
            shared: key.len(),
            heads: vec![0],
            keys: key.to_vec(),
            ends: vec![key.len() as u32],
            things: vec![thing],
        }
    }

    /// Reads them from the payload of a block; `decode` makes things of its values, in order.
    pub fn decode(
        payload: Bytes,
        mut decode: impl FnMut(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Fences<T>, Malformed> {
        let mut fences = Fences::default();
        let mut cursor = block::Cursor::new(payload)?;
        while let Some(key) = cursor.key() {
            if !fences.ends.is_empty() && fences.key(fences.ends.len() - 1) >= key {
                return Err(Malformed("the index is not in order"));
            }
            fences.keys.extend_from_slice(key);
            let end = u32::try_from(fences.keys.len()).map_err(|_| Malformed("the index is too large"))?;
            fences.ends.push(end);
            fences.things.push(decode(cursor.value_ref())?);
            cursor.advance()?;
        }
        if let Some(last) = fences.len().checked_sub(1) {
            fences.shared = common(fences.key(0), fences.key(last));
            fences.heads = (0..=last).map(|at| head(&fences.key(at)[fences.shared..])).collect();
        }
        Ok(fences)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.things.len()
    }

    /// The key of one of them.
    pub fn key(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.keys[start as usize..self.ends[at] as usize]
    }

    /// All things, in order.
    pub fn things(&self) -> &[T] {
        &self.things
    }

    /// Bytes of memory.
    pub fn weight(&self) -> usize {
        self.keys.len() + self.len() * (8 + 4 + size_of::<T>())
    }

    /// The first whose key is not below `target`; their number if there is none.
    pub fn find(&self, target: &[u8]) -> usize {
        if self.heads.is_empty() {
            return 0;
        }
        let shared = &self.keys[..self.shared];
        let same = common(shared, target);
        if same < shared.len() {
            let below = target.get(same).is_none_or(|byte| *byte < shared[same]);
            return if below { 0 } else { self.len() };
        }
        let head = head(&target[same..]);
        let low = self.heads.partition_point(|other| *other < head);
        let alike = self.heads[low..].partition_point(|other| *other == head);
        let (mut low, mut high) = (low, low + alike);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle) < target {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// A short string that is not below `last`, and below `next`, which is above `last`.
pub fn separator(last: &[u8], next: &[u8]) -> Vec<u8> {
    let same = common(last, next);
    // `next` as far as it tells the two apart, unless that is all of it.
    let cut = same + 1;
    if cut < next.len() && cut < last.len() { next[..cut].to_vec() } else { last.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fences(keys: &[&[u8]]) -> Fences<u8> {
        let mut builder = block::Builder::new(16);
        keys.iter().zip(0u8..).for_each(|(key, at)| builder.add(key, &[at]));
        let mut payload = Vec::new();
        builder.finish(&mut payload);
        Fences::decode(Bytes::from(payload), |value| Ok(value[0])).unwrap()
    }

    #[test]
    fn a_search_finds_the_first_that_is_not_below() {
        let sets: [&[&[u8]]; 5] = [
            &[],
            &[b""],
            &[b"row"],
            &[b"row", b"row\0", b"row\0\0", b"row\0\0\0\0\0\0\0\0\0a", b"row\0\0\0\0\0\0\0\0\0b", b"rowb"],
            &[b"prefix0000000000", b"prefix00000000001", b"prefix1", b"prefix\xff\xff\xff\xff\xff\xff\xff\xff\xff"],
        ];
        for keys in sets {
            let fences = fences(keys);
            let mut targets: Vec<Vec<u8>> = vec![b"".to_vec(), b"a".to_vec(), b"z".to_vec(), b"prefix".to_vec()];
            for key in keys {
                targets.push(key.to_vec());
                targets.push([*key, b"\0"].concat());
                targets.push(key[..key.len().saturating_sub(1)].to_vec());
            }
            for target in targets {
                let expected = keys.iter().position(|key| *key >= &target[..]).unwrap_or(keys.len());
                assert_eq!(fences.find(&target), expected, "{target:?} in {keys:?}");
            }
        }
    }

    #[test]
    fn a_separator_lies_between_and_is_short() {
        let cases: [(&[u8], &[u8], &[u8]); 6] = [
            (b"row0001xxxxx", b"row0002xxxxx", b"row0002"),
            (b"row1", b"row1xxxxx", b"row1"),
            (b"row1xxxxx", b"row2", b"row1xxxxx"),
            (b"a", b"b", b"a"),
            (b"", b"b", b""),
            (b"a\xff\xffxx", b"bbbb", b"b"),
        ];
        for (last, next, expected) in cases {
            let separator = separator(last, next);
            assert_eq!(separator, expected);
            assert!(last <= &separator[..] && &separator[..] < next);
        }
    }

    #[test]
    fn what_is_not_in_order_is_refused() {
        let mut builder = block::Builder::new(1);
        [b"a", b"b", b"c"].iter().for_each(|key| builder.add(*key, b""));
        let mut payload = Vec::new();
        builder.finish(&mut payload);
        let at = payload.iter().position(|byte| *byte == b'b').unwrap();
        payload[at] = b'd';
        assert!(Fences::decode(Bytes::from(payload), |_| Ok(())).is_err());
    }
}
