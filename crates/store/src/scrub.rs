//! Reads what lies on the disk before anybody needs it: every block of every table, in slices.
//!
//! A slice is a [`crate::Job::Scrub`]; what it found to be whole is `Done::Scrubbed`, with the place where the next one
//! begins. It reads through a view, so the files stay as long as it takes. At the end the tablet's manifest is read.

use crate::Error;
use crate::view::View;

/// How far a scrub has got in its view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Which of the tables.
    table: usize,
    /// From which offset of it on.
    offset: u64,
}

impl Place {
    /// After all tables.
    pub const END: Place = Place { table: usize::MAX, offset: 0 };
}

/// Checks from `from` on until about `most` bytes are read. Gives how many were, and where to go on; nowhere at the end.
pub(crate) fn slice(view: &View, from: Place, most: u64) -> Result<(u64, Option<Place>), Error> {
    let (mut at, mut bytes) = (from, 0);
    while let Some(table) = view.version.table(at.table) {
        if bytes >= most {
            return Ok((bytes, Some(at)));
        }
        let (read, next) = table.check(at.offset, most - bytes)?;
        bytes += read;
        at = match next {
            Some(offset) => Place { offset, ..at },
            None => Place { table: at.table + 1, offset: 0 },
        };
    }
    Ok((bytes, None))
}
