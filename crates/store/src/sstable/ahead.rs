//! Reading a file in larger pieces than one asks for.

use disk::File;
use model::Bytes;

use super::{Place, read};
use crate::Error;

/// Bytes that a client's scan reads ahead at most,
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

/// What was read of a file beyond what was asked for.
#[derive(Default)]
pub(super) struct Ahead {
    offset: u64,
    bytes: Bytes,
    /// How many blocks were read one after the other.
    sequential: u32,
    window: usize,
    /// Where the last one ended.
    end: u64,
}

impl Ahead {
    /// The bytes of `place`. What is read ahead ends at `limit`.
    pub(super) fn read(
        &mut self,
        (file, path): (&dyn File, &str),
        place: Place,
        limit: u64,
        purpose: Purpose,
    ) -> Result<Bytes, Error> {
        self.sequential = if place.offset == self.end { self.sequential + 1 } else { 0 };
        let len = u64::from(place.len);
        self.end = place.offset.saturating_add(len);
        if let Some(from) = place.offset.checked_sub(self.offset)
            && from + len <= self.bytes.len() as u64
        {
            return Ok(self.bytes.slice(from as usize..(from + len) as usize));
        }
        self.window = match purpose {
            Purpose::Background => BACKGROUND,
            Purpose::Serve if self.sequential <= SINGLE => 0,
            Purpose::Serve => (self.window * 2).max(4 * place.len as usize).min(MOST_SERVED),
        };
        let most = limit.saturating_sub(place.offset).min(self.window as u64);
        let piece = read(file, path, Place { offset: place.offset, len: most.max(len) as u32 })?;
        if piece.len() as u64 == len {
            return Ok(piece);
        }
        (self.offset, self.bytes) = (place.offset, piece);
        Ok(self.bytes.slice(..len as usize))
    }

    /// A block that was not read, since it was here: it does not end a walk.
    pub(super) fn pass(&mut self, place: Place) {
        self.sequential = if place.offset == self.end { self.sequential + 1 } else { 0 };
        self.end = place.offset.saturating_add(u64::from(place.len));
    }
}
