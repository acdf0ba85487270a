//! What an entry of a group's log can be.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Batch, Command, Configuration, Lsn, Slice, TabletId, Timestamp};

/// What an entry of a group's log says. An entry without bytes says nothing and has no payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// A write.
    Write(Command),
    /// The tablet ends here, and two others go on with its rows.
    Split(Split),
    /// Changes nothing: all members sum up what they hold as of this place, and compare.
    Digest(Digest),
    /// The tablet takes no writes after this in the epoch of this entry, because it is to become one with the one before it.
    Close(Close),
    /// The tablet ends here, and another one goes on with its rows and those of the next one.
    Merge(Merge),
    /// Writes of many rows.
    Batch(Batch),
}

impl Payload {
    const WRITE: u8 = 0;
    const BATCH: u8 = 5;

    /// Does it write rows? Tells by the first byte.
    pub fn is_write(form: &[u8]) -> bool {
        matches!(form.first(), Some(&(Payload::WRITE | Payload::BATCH)))
    }
}

/// How the members of a group sum up what they hold, so that equal contents have equal sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Retention is judged as of this date, which is not before any version of the entries before it.
    pub date: Timestamp,
    /// By the schema of this version; whoever has another one has nothing to compare.
    pub schema: u32,
}

/// Where a tablet ends and two others begin. It is the last entry of its tablet that may change anything: whoever
/// applies it makes the two out of what it has, so that no row is copied from node to node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Keeps the rows before `at`.
    pub left: TabletId,
    /// Keeps those from `at` on.
    pub right: TabletId,
    /// The first row of the right one.
    pub at: Bytes,
    /// The first configuration of both: that of the primary who wrote this, one epoch later. So a child never has an
    /// epoch in which a replica may be made from nothing.
    pub configuration: Configuration,
}

impl Split {
    /// The parts of a slice, the left one first; `None` if it cannot be cut there.
    pub fn cut(slice: &Slice, at: &Bytes) -> Option<(Slice, Slice)> {
        match slice {
            Slice::Rows { start, end } if at > start && end.as_ref().is_none_or(|end| at < end) => {
                let left = Slice::Rows { start: start.clone(), end: Some(at.clone()) };
                Some((left, Slice::Rows { start: at.clone(), end: end.clone() }))
            }
            _ => None,
        }
    }
}

/// The right one of two tablets is closed, for as long as its group has this configuration: so long its last entry is
/// this one, and every member has all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The tablet that is to be.
    pub heir: TabletId,
}

/// Where the left one of two tablets ends, and with it the right one. Whoever applies it makes one out of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merge {
    /// The other tablet,
    pub right: TabletId,
    /// which ends with this entry of its log, a [`Close`].
    pub upto: Lsn,
    /// Goes on with the rows of both.
    pub heir: TabletId,
    /// All these rows.
    pub slice: Slice,
    /// The heir's first configuration: the members that both had, in an epoch that neither had.
    pub configuration: Configuration,
}

impl Merge {
    /// The rows of two slices; `None` if the second does not begin where the first ends.
    pub fn join(left: &Slice, right: &Slice) -> Option<Slice> {
        match (left, right) {
            (Slice::Rows { start, end: Some(border) }, Slice::Rows { start: next, end }) if border == next => {
                Some(Slice::Rows { start: start.clone(), end: end.clone() })
            }
            _ => None,
        }
    }
}

/// Where a tablet is to be cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SplitAt {
    /// Here: an operator says so.
    Row(Bytes),
    /// Where about half of its bytes lie on each side; its primary looks where that is.
    HalfTheBytes,
    /// Where about half of its requests go to each side; its primary has seen where that is.
    HalfTheLoad,
}

/// A tablet that goes on with rows of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heir {
    /// Which.
    pub tablet: TabletId,
    /// With which rows.
    pub slice: Slice,
    /// Who keeps it, as far as the one knows who says so.
    pub configuration: Configuration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestId;
    use alloc::vec::Vec;

    /// docs/formats.md: entries of a log that a former release wrote are read for ever.
    #[test]
    fn the_first_byte_says_whether_it_writes() {
        let request = RequestId { client: crate::ClientId(1), sequence: 2, first_incomplete: 2 };
        let row = Bytes::from_static(b"r");
        let command = Command { request, version: Timestamp(4), row: row.clone(), changes: Some(Vec::new()) };
        let rows = alloc::vec![crate::RowChanges { row, changes: alloc::vec![crate::Change::DeleteRow] }];
        let batch = Batch { request, part_of: alloc::vec![1], version: Timestamp(4), rows };
        let form = |payload: &Payload| postcard::to_allocvec(payload).unwrap();
        assert_eq!(form(&Payload::Write(command)), [0, 1, 2, 2, 8, 1, b'r', 1, 0]);
        assert_eq!(form(&Payload::Batch(batch.clone())), [5, 1, 2, 2, 1, 1, 8, 1, 1, b'r', 1, 4]);
        assert_eq!(postcard::from_bytes(&form(&Payload::Batch(batch.clone()))), Ok(Payload::Batch(batch.clone())));
        assert!(Payload::is_write(&form(&Payload::Batch(batch))) && Payload::is_write(&[0]));
        let close = form(&Payload::Close(Close { heir: TabletId(7) }));
        assert!(![&close[..], &[], &[1], &[2], &[4], &[6]].into_iter().any(Payload::is_write));
    }

    /// Invariant I13: what a slice is cut into tiles it.
    #[test]
    fn a_slice_is_cut_inside_only() {
        let key = Bytes::from_static;
        let slice = Slice::Rows { start: key(b"c"), end: Some(key(b"p")) };
        let Some((left, right)) = Split::cut(&slice, &key(b"g")) else { panic!("g lies inside") };
        for row in [&b"b"[..], b"c", b"fz", b"g", b"o", b"p"] {
            let parts = u32::from(left.covers(row)) + u32::from(right.covers(row));
            assert_eq!(parts, u32::from(slice.covers(row)), "{row:?}");
        }
        assert_eq!(Merge::join(&left, &right).as_ref(), Some(&slice));
        assert_eq!((Merge::join(&right, &left), Merge::join(&left, &left)), (None, None));
        for outside in [&b""[..], b"b", b"c", b"p", b"q"] {
            assert_eq!(Split::cut(&slice, &Bytes::copy_from_slice(outside)), None);
        }
        assert_eq!(Split::cut(&Slice::Hash { bucket: 0, of: 1 }, &key(b"g")), None);
    }
}
