//! The filter of an open table, in memory or in the cache.

use std::sync::OnceLock;

use model::Bytes;

use super::Place;
use super::ahead::Ahead;
use super::block::Malformed;
use super::cache::Charge;
use super::filter::{self, LINE, Shape};
use super::frame::{Footer, shape_of};
use super::source::Source;
use crate::Error;

/// See the module.
#[derive(Debug)]
pub enum Sieve {
    /// Lets everything pass.
    Open,
    /// Of a table of version 1.
    V1(Bytes),
    /// In lines.
    Lines(Lines),
}

/// See [`filter`].
#[derive(Debug)]
pub struct Lines {
    shape: Shape,
    /// Where the pieces begin, and the sealed length of each.
    offset: u64,
    piece: u32,
    /// All lines, once they are in memory.
    lines: OnceLock<Bytes>,
    charge: OnceLock<Charge>,
}

impl Sieve {
    /// Where the footer has it.
    pub fn of(footer: Footer) -> Result<Sieve, Malformed> {
        let shape = shape_of(footer)?;
        if shape.pieces == 0 {
            return Ok(Sieve::Open);
        }
        let (offset, piece) = (footer.data_end + u64::from(footer.dictionary), footer.piece);
        Ok(Sieve::Lines(Lines { shape, offset, piece, lines: OnceLock::new(), charge: OnceLock::new() }))
    }

    /// Keeps all of it in memory if it is small, or if there is room.
    pub fn pin(&self, source: &Source, ahead: &mut Ahead) -> Result<(), Error> {
        if let Sieve::Lines(lines) = self
            && let Some(charge) = source.cache.pin(lines.shape.bytes() as u64)
        {
            let _ = lines.charge.set(charge);
            self.load(source, ahead)?;
        }
        Ok(())
    }

    /// Keeps all of it in memory.
    pub fn load(&self, source: &Source, ahead: &mut Ahead) -> Result<(), Error> {
        if let Sieve::Lines(lines) = self
            && lines.lines.get().is_none()
        {
            let _ = lines.lines.set(lines.read(source, ahead)?);
        }
        Ok(())
    }

    /// Whether the thing may be in the table, as far as memory knows; `None` if that would have to be read.
    pub fn knows(&self, source: &Source, hash: u64) -> Option<bool> {
        match self {
            Sieve::Open => Some(true),
            Sieve::V1(filter) => Some(filter::v1::may_hold(filter, hash)),
            Sieve::Lines(lines) => {
                let line = lines.shape.line(hash);
                match lines.lines.get() {
                    Some(all) => Some(filter::line_holds(&all[line * LINE..], hash)),
                    None => {
                        let (place, line) = lines.place(line);
                        let piece = source.cache.peek_piece(source.number, place.offset)?;
                        Some(filter::line_holds(&piece[line * LINE..], hash))
                    }
                }
            }
        }
    }

    /// Whether the thing may be in the table.
    pub fn may_hold(&self, source: &Source, hash: u64) -> Result<bool, Error> {
        match self {
            Sieve::Lines(lines) if lines.lines.get().is_none() => {
                let (place, line) = lines.place(lines.shape.line(hash));
                let piece = match source.cache.get_piece(source.number, place.offset) {
                    Some(piece) => piece,
                    None => {
                        let piece = lines.piece(source, place, &mut Ahead::default())?;
                        source.cache.insert_piece(source.number, place.offset, &piece);
                        piece
                    }
                };
                Ok(filter::line_holds(&piece[line * LINE..], hash))
            }
            _ => Ok(self.knows(source, hash).unwrap_or(true)),
        }
    }

    /// Is it what another reading of the file gave?
    pub fn is_like(&self, other: &Sieve) -> bool {
        match (self, other) {
            (Sieve::Open, Sieve::Open) => true,
            (Sieve::V1(a), Sieve::V1(b)) => a == b,
            (Sieve::Lines(a), Sieve::Lines(b)) => {
                let same = match (a.lines.get(), b.lines.get()) {
                    (Some(a), Some(b)) => a == b,
                    _ => true,
                };
                same && (a.shape, a.offset) == (b.shape, b.offset)
            }
            _ => false,
        }
    }
}

impl Lines {
    /// The piece with this line, and which line of that it is.
    fn place(&self, line: usize) -> (Place, usize) {
        let piece = (line / self.shape.lines) as u64;
        (Place { offset: self.offset + piece * u64::from(self.piece), len: self.piece }, line % self.shape.lines)
    }

    fn piece(&self, source: &Source, place: Place, ahead: &mut Ahead) -> Result<Bytes, Error> {
        let piece = source.payload(place, None, ahead)?;
        let fits = piece.len() == self.shape.lines * LINE;
        fits.then_some(piece).ok_or_else(|| source.corrupt(place, Malformed("a filter block has another length")))
    }

    fn read(&self, source: &Source, ahead: &mut Ahead) -> Result<Bytes, Error> {
        let mut all = Vec::with_capacity(self.shape.bytes());
        for piece in 0..self.shape.pieces {
            all.extend_from_slice(&self.piece(source, self.place(piece * self.shape.lines).0, ahead)?);
        }
        Ok(Bytes::from(all))
    }
}
