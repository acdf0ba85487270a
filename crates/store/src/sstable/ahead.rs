//! Reading a file in larger pieces than one asks for.

use disk::File;
use model::Bytes;

use super::{Place, read};
use crate::Error;

/// Bytes that a client's walk reads ahead at most,
const MOST_SERVED: usize = 256 << 10;
/// and what is not for a client, from its first block on.
const BACKGROUND: usize = 512 << 10;
/// So many blocks after one another are still read one by one: most reads want no more.
const SINGLE: u32 = 2;

/// Why a table is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// For a client: through the cache. A walk that goes on reads further ahead with each step.
    #[default]
    Serve,
    /// For us, once, and from one end to the other: in large pieces from the file, past the cache.
    Background,
}

/// A walk over the blocks of a file, one way or the other, and what was read beyond what it asked for.
#[derive(Default)]
pub struct Ahead {
    /// It reads no further than this.
    limit: u64,
    offset: u64,
    bytes: Bytes,
    last: Place,
    /// How many blocks were asked for one after the other.
    sequential: u32,
    /// Against their order.
    back: bool,
    window: usize,
}

impl Ahead {
    /// One that reads ahead, but not beyond `limit`.
    pub fn upto(limit: u64) -> Ahead {
        Ahead { limit, ..Ahead::default() }
    }

    /// The bytes of `place`.
    pub fn read(&mut self, (file, path): (&dyn File, &str), place: Place, purpose: Purpose) -> Result<Bytes, Error> {
        self.pass(place);
        if let Some(held) = self.held(place) {
            return Ok(held);
        }
        self.window = match purpose {
            Purpose::Background => BACKGROUND,
            Purpose::Serve if self.sequential <= SINGLE => 0,
            Purpose::Serve => (self.window * 2).max(4 * place.len as usize).min(MOST_SERVED),
        };
        let len = u64::from(place.len);
        let (mut start, mut end) = (place.offset, place.offset.saturating_add(len));
        if self.back {
            start = end.saturating_sub(len.max(self.window as u64));
        } else {
            end = end.max(self.limit.min(place.offset.saturating_add(self.window as u64)));
        }
        let piece = read(file, path, Place { offset: start, len: (end - start) as u32 })?;
        if end - start == len {
            return Ok(piece);
        }
        (self.offset, self.bytes) = (start, piece);
        let from = (place.offset - start) as usize;
        Ok(self.bytes.slice(from..from + place.len as usize))
    }

    /// A block that need not be read: it does not end a walk.
    pub fn pass(&mut self, place: Place) {
        let on = self.last.end() == Some(place.offset);
        self.back = place.end() == Some(self.last.offset);
        self.sequential = if on || self.back { self.sequential.saturating_add(1) } else { 0 };
        self.last = place;
    }

    fn held(&self, place: Place) -> Option<Bytes> {
        let from = usize::try_from(place.offset.checked_sub(self.offset)?).ok()?;
        let end = from.checked_add(place.len as usize).filter(|end| *end <= self.bytes.len())?;
        Some(self.bytes.slice(from..end))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use disk::{Disk, MemDisk};
    use parking_lot::Mutex;

    use super::*;

    /// A file that notes what is read of it.
    struct Noted(Arc<dyn File>, Mutex<Vec<(u64, usize)>>);

    impl File for Noted {
        fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
            self.1.lock().push((offset, into.len()));
            self.0.read_at(offset, into)
        }
        fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, bytes)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn allocate(&self, len: u64) -> io::Result<()> {
            self.0.allocate(len)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
    }

    const BLOCK: u32 = 10_000;

    /// What a walk over these blocks reads: in pieces of how many blocks, give or take a part.
    fn pieces(blocks: impl Iterator<Item = u64>, purpose: Purpose) -> Vec<u64> {
        let file = MemDisk::new().create("f").unwrap();
        let all: Vec<u8> = (0..2_000_000u32).map(|at| (at / 7) as u8).collect();
        file.write_at(0, &all).unwrap();
        let file = Noted(file, Mutex::default());
        let mut ahead = Ahead::upto(all.len() as u64);
        for block in blocks {
            let place = Place { offset: block * u64::from(BLOCK), len: BLOCK };
            let got = ahead.read((&file, "f"), place, purpose).unwrap();
            let from = place.offset as usize;
            assert_eq!(got, all[from..from + BLOCK as usize]);
        }
        file.1.into_inner().into_iter().map(|(_, len)| len as u64 / u64::from(BLOCK)).collect()
    }

    #[test]
    fn a_walk_reads_further_and_further_ahead() {
        assert_eq!(pieces(0..100, Purpose::Serve), [1, 1, 4, 8, 16, 26, 26, 26]);
        assert_eq!(pieces((100..200).rev(), Purpose::Serve)[..5], [1, 1, 1, 4, 8]);
        assert_eq!(pieces(0..200, Purpose::Background), [52, 52, 52, 44]);
    }

    #[test]
    fn a_reader_here_and_there_reads_what_it_wants() {
        assert_eq!(pieces([5, 9, 10, 3, 77].into_iter(), Purpose::Serve), [1; 5]);
    }
}
