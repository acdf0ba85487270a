//! Reads the records of the segments in use once more, while the writer goes on: damage that shows now can still be
//! repaired out of memory, and damage that shows at the next start cannot.
//!
//! A segment ends where the next one says, and the last one where no record is known to be behind.

use super::format::{Place, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader};
use super::reader::{LogReader, Window};
use crate::Error;

/// What is read at a time.
const AHEAD: usize = 256 << 10;

/// How far a check of the log has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked(Place);

impl Checked {
    /// Behind the segment of this place.
    pub fn next_segment(self) -> Checked {
        Checked(Place { segment: self.0.segment + 1, offset: 0 })
    }
}

impl LogReader {
    /// Bytes of all segments in use.
    pub fn bytes(&self) -> u64 {
        self.index().read().bytes()
    }

    /// Checks from there on until about `most` bytes are read, all of them in one segment. Gives how many were, and where
    /// to go on; nowhere at the end of the log. Damage is always in the segment of `from`: if that is not there, nothing is read,
    /// and it goes on with the first one that is.
    pub fn check(&self, from: Checked, most: u64) -> Result<(u64, Option<Checked>), Error> {
        let Some((segment, next)) = self.segment_from(from.0.segment) else { return Ok((0, None)) };
        let damaged = |at: u32, what: &str| Err(Error::corrupt(&segment.name, u64::from(at), what));
        if from.0.segment < segment.number {
            return Ok((0, Some(Checked(segment.place(0)))));
        }
        let start = from.0.offset;
        let mut window = Window::new(&segment, AHEAD);
        let mut at = start;
        if at == 0 {
            if !matches!(window.segment_header()?, SegmentHeader::Begun { .. }) {
                return damaged(0, "the segment's header is not what was written");
            }
            at = SEGMENT_HEADER as u32;
        }
        // Where the records of a segment end that is not the last: what the next one says, if that can be read.
        let until = match &next {
            Some(next) => match Window::new(next, SEGMENT_HEADER).segment_header()? {
                SegmentHeader::Begun { previous, .. } if previous.segment == segment.number => Some(previous.offset),
                _ => None,
            },
            None => None,
        };
        while u64::from(at - start) < most {
            if until.is_some_and(|until| at >= until) {
                break;
            }
            match window.record(at)? {
                Some((header, _)) => at += (RECORD_HEADER + header.padded_len()) as u32,
                None if until.is_some() || self.has_entry_from(segment.place(at)) => {
                    return damaged(at, "a record is not what was written");
                }
                None => {
                    let after = next.is_some().then(|| Checked(segment.place(0)).next_segment());
                    return Ok((u64::from(at - start), after));
                }
            }
        }
        let over = until.is_some_and(|until| at >= until);
        let after = if over { Checked(segment.place(0)).next_segment() } else { Checked(segment.place(at)) };
        Ok((u64::from(at - start), Some(after)))
    }

    /// Something of the segment of this place is damaged: the writer leaves it, if it is the last.
    pub fn condemn(&self, at: Checked) {
        let mut index = self.index().write();
        let segment = at.0.segment.max(index.oldest().number);
        index.condemn(segment);
    }
}
