//! The bytes of the log. All numbers are little-endian; everything is aligned to 8 bytes.
//!
//! A segment, `log/<number, 8 digits>.log`, is preallocated with zeros; where a record's header would be and is not
//! valid, the records end. It begins with:
//!
//! ```text
//!   offset  size  field
//!        0     4  crc       CRC-32C of bytes 4..32
//!        4     4  version   2; these 32 bytes stay as they are in all versions
//!        8     8  magic     "diptychL"
//!       16     4  number    of this segment, as in its name
//!       20     4  carried   bytes of the records that follow only to let older segments go; without them it is not begun
//!       24     8  previous  place where the segment before this one ended, and was synced; 0 in the first of all
//! ```
//!
//! A place is one number: segment in the upper 32 bits, offset in the lower. A record:
//!
//! ```text
//!   offset  size  field
//!        0     4  crc       CRC-32C of this record's place (8 bytes) and of bytes 4..56
//!        4     4  len       bytes of the body
//!        8     8  tablet    whose log it belongs to
//!       16     8  lsn       position in that log
//!       24     8  committed what the writer knew to be committed
//!       32     8  synced    place up to which the log was durable when this was written
//!       40     4  epoch     configuration in which the primary ordered it
//!       44     4  body crc  CRC-32C of bytes 56 to the end, zeros included
//!       48     1  kind      1 = command, 2 = no-op, 3 = state, 4 = cut, 5 = dropped, 6 = lost, 7 = mark
//!       49     3  zero
//!       52     4  chain     crc of the tablet's record before this one; 0 if this is its first
//!       56   len  body, then zeros up to a multiple of 8
//! ```
//!
//! `synced` is what tells damage from a torn tail: bytes before a valid record's `synced` were on the disk once. `chain`
//! tells whose records lay in a damaged stretch: those tablets' next records follow something that is not there.
//! The header has a sum of its own, so that looking for such a record costs the same at every offset.

use bytes::Bytes;
use crc_fast::crc32_iscsi;
use model::{Epoch, Lsn, TabletId};

use super::{Kind, Record};

/// The version that is written, and the newest that is read.
pub const VERSION: u32 = 2;
pub const SEGMENT_HEADER: usize = 32;
pub const RECORD_HEADER: usize = 56;
const ALIGN: usize = 8;
const MAGIC: [u8; 8] = *b"diptychL";

const _: () = assert!(SEGMENT_HEADER == 4 + 4 + 8 + 4 + 4 + 8 && SEGMENT_HEADER.is_multiple_of(ALIGN));
const _: () = assert!(RECORD_HEADER == 4 + 4 + 8 + 8 + 8 + 8 + 4 + 4 + 1 + 7 && RECORD_HEADER.is_multiple_of(ALIGN));

/// Where something is in the log; ordered as it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub segment: u32,
    pub offset: u32,
}

impl Place {
    pub fn plus(self, bytes: usize) -> Place {
        let offset = u32::try_from(bytes).ok().and_then(|bytes| self.offset.checked_add(bytes));
        Place { offset: offset.expect("segments are far shorter than 4 GiB"), ..self }
    }

    pub fn to_u64(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.offset)
    }

    fn from_u64(place: u64) -> Place {
        Place { segment: (place >> 32) as u32, offset: place as u32 }
    }
}

pub fn encode_segment_header(number: u32, carried: u32, previous: Place, out: &mut Vec<u8>) {
    let mut header = [0; SEGMENT_HEADER];
    header[4..8].copy_from_slice(&VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&MAGIC);
    header[16..20].copy_from_slice(&number.to_le_bytes());
    header[20..24].copy_from_slice(&carried.to_le_bytes());
    header[24..32].copy_from_slice(&previous.to_u64().to_le_bytes());
    let crc = crc32_iscsi(&header[4..]);
    header[0..4].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&header);
}

/// What a segment's first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub enum SegmentHeader {
    /// Begun, when the one before had been synced up to `previous`; valid once `carried` bytes of records follow.
    Begun { previous: Place, carried: u32 },
    /// Written by a program of another time.
    Other { version: u32 },
    /// Not begun, torn, or damaged.
    Invalid,
}

pub fn decode_segment_header(bytes: &[u8], number: u32) -> SegmentHeader {
    let Some(header) = bytes.first_chunk::<SEGMENT_HEADER>() else { return SegmentHeader::Invalid };
    if u32_at(header, 0) != crc32_iscsi(&header[4..]) || header[8..16] != MAGIC || u32_at(header, 16) != number {
        return SegmentHeader::Invalid;
    }
    match u32_at(header, 4) {
        VERSION => SegmentHeader::Begun { previous: Place::from_u64(u64_at(header, 24)), carried: u32_at(header, 20) },
        version => SegmentHeader::Other { version },
    }
}

impl Record {
    pub(super) fn encoded_len(&self) -> usize {
        RECORD_HEADER + self.body.len().next_multiple_of(ALIGN)
    }

    /// Appends the record as it stands at `place` when the log is durable up to `synced`, after the tablet's record with
    /// the sum `chain`. Gives its own sum.
    pub(super) fn encode(&self, place: Place, synced: Place, chain: u32, out: &mut Vec<u8>) -> u32 {
        let body_crc = {
            let start = out.len() + RECORD_HEADER;
            out.resize(start, 0);
            out.extend_from_slice(&self.body);
            out.resize(start + self.body.len().next_multiple_of(ALIGN), 0);
            crc32_iscsi(&out[start..])
        };
        let start = out.len() - self.encoded_len();
        let header = &mut out[start..start + RECORD_HEADER];
        let len = u32::try_from(self.body.len()).expect("append bounds the sum of all bodies");
        header[4..8].copy_from_slice(&len.to_le_bytes());
        header[8..16].copy_from_slice(&self.tablet.0.to_le_bytes());
        header[16..24].copy_from_slice(&self.lsn.0.to_le_bytes());
        header[24..32].copy_from_slice(&self.committed.0.to_le_bytes());
        header[32..40].copy_from_slice(&synced.to_u64().to_le_bytes());
        header[40..44].copy_from_slice(&self.epoch.0.to_le_bytes());
        header[44..48].copy_from_slice(&body_crc.to_le_bytes());
        header[48] = self.kind as u8;
        header[52..56].copy_from_slice(&chain.to_le_bytes());
        let crc = header_crc(header, place);
        header[0..4].copy_from_slice(&crc.to_le_bytes());
        crc
    }
}

/// A valid record header; the body is still to be checked.
#[derive(Debug)]
pub struct Header {
    /// The record, with an empty body.
    pub record: Record,
    pub synced: Place,
    /// The record's own sum.
    pub crc: u32,
    /// The sum of the tablet's record before it.
    pub chain: u32,
    len: usize,
    body_crc: u32,
}

impl Header {
    /// The header at `place`, if `bytes` begin with one.
    pub fn decode(bytes: &[u8], place: Place) -> Option<Header> {
        let header = bytes.first_chunk::<RECORD_HEADER>()?;
        let kind = match header[48] {
            1 => Kind::Command,
            2 => Kind::NoOp,
            3 => Kind::State,
            4 => Kind::Cut,
            5 => Kind::Dropped,
            6 => Kind::Lost,
            7 => Kind::Mark,
            _ => return None,
        };
        // Most of what is no header is told by these bytes, before anything is summed up.
        if header[49..52] != [0; 3] || u32_at(header, 0) != header_crc(header, place) {
            return None;
        }
        let lsn = u64_at(header, 16);
        let numbers = kind.is_entry() || kind == Kind::Cut;
        if numbers && (lsn == u64::MAX || (lsn == 0 && kind != Kind::Cut)) {
            // Nobody writes an entry that stands before the first, or that no entry can follow.
            return None;
        }
        Some(Header {
            record: Record {
                tablet: TabletId(u64_at(header, 8)),
                lsn: Lsn(lsn),
                epoch: Epoch(u32_at(header, 40)),
                committed: Lsn(u64_at(header, 24)),
                kind,
                body: Bytes::new(),
            },
            synced: Place::from_u64(u64_at(header, 32)),
            crc: u32_at(header, 0),
            chain: u32_at(header, 52),
            len: u32_at(header, 4) as usize,
            body_crc: u32_at(header, 44),
        })
    }

    /// Bytes of header and body.
    pub fn whole_len(&self) -> u32 {
        u32::try_from(RECORD_HEADER + self.padded_len()).unwrap_or(u32::MAX)
    }

    /// Bytes after the header that belong to the record.
    pub fn padded_len(&self) -> usize {
        self.len.next_multiple_of(ALIGN)
    }

    /// The body within the bytes after the header, if they are what was written.
    pub fn body<'a>(&self, padded: &'a [u8]) -> Option<&'a [u8]> {
        (padded.len() == self.padded_len() && crc32_iscsi(padded) == self.body_crc).then(|| &padded[..self.len])
    }
}

fn header_crc(header: &[u8], place: Place) -> u32 {
    let mut covered = [0; ALIGN + RECORD_HEADER - 4];
    covered[..8].copy_from_slice(&place.to_u64().to_le_bytes());
    covered[8..].copy_from_slice(&header[4..RECORD_HEADER]);
    crc32_iscsi(&covered)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("within a header of fixed size"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("within a header of fixed size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 2: these bytes are read for ever once it has shipped.
    #[test]
    fn version_2_is_pinned() {
        let mut bytes = Vec::new();
        encode_segment_header(2, 64, Place { segment: 1, offset: 0x60 }, &mut bytes);
        let place = Place { segment: 2, offset: 32 };
        let record = Record {
            tablet: TabletId(7),
            lsn: Lsn(300),
            epoch: Epoch(4),
            committed: Lsn(299),
            kind: Kind::Command,
            body: Bytes::from_static(b"hello"),
        };
        record.encode(place, Place { segment: 1, offset: 0x60 }, 0xabcd, &mut bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, PINNED);
        assert_eq!(
            decode_segment_header(&bytes, 2),
            SegmentHeader::Begun { previous: Place { segment: 1, offset: 0x60 }, carried: 64 }
        );
        let header = Header::decode(&bytes[32..], place).unwrap();
        assert_eq!(header.synced, Place { segment: 1, offset: 0x60 });
        assert_eq!(header.body(&bytes[88..]), Some(&b"hello"[..]));
        assert_eq!(Record { body: record.body.clone(), ..header.record }, record);
    }

    const PINNED: &str = "717dd88f02000000646970747963684c02000000400000006000000001000000\
        650afb580500000007000000000000002c010000000000002b01000000000000600000000100000004000000b3ed039001000000cdab00\
        0068656c6c6f000000";

    /// A record that the disk put elsewhere is not taken for the one that should be there.
    #[test]
    fn a_record_is_valid_at_its_own_place_only() {
        let record = Record {
            tablet: TabletId(1),
            lsn: Lsn(1),
            epoch: Epoch(1),
            committed: Lsn(0),
            kind: Kind::NoOp,
            body: Bytes::new(),
        };
        let (here, there) = (Place { segment: 1, offset: 32 }, Place { segment: 1, offset: 40 });
        let mut bytes = Vec::new();
        record.encode(here, here, 0, &mut bytes);
        assert!(Header::decode(&bytes, here).is_some());
        assert!(Header::decode(&bytes, there).is_none());
        assert!(Header::decode(&bytes, Place { segment: 2, offset: 32 }).is_none());
    }

    /// Sums that are right do not make a record one that we wrote (`fuzz`, target `log`).
    #[test]
    fn an_entry_has_a_place_after_the_first_and_before_the_last() {
        let place = Place { segment: 1, offset: 32 };
        let is_valid = |kind, lsn| {
            let (tablet, epoch, committed) = (TabletId(1), Epoch(1), Lsn(0));
            let record = Record { tablet, lsn: Lsn(lsn), epoch, committed, kind, body: Bytes::new() };
            let mut bytes = Vec::new();
            record.encode(place, place, 0, &mut bytes);
            Header::decode(&bytes, place).is_some()
        };
        for kind in [Kind::Command, Kind::NoOp] {
            assert_eq!([0, 1, u64::MAX - 1, u64::MAX].map(|lsn| is_valid(kind, lsn)), [false, true, true, false]);
        }
        assert_eq!([0, u64::MAX].map(|lsn| is_valid(Kind::Cut, lsn)), [true, false]);
        assert_eq!([0, u64::MAX].map(|lsn| is_valid(Kind::State, lsn)), [true, true]);
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let mut bytes = Vec::new();
        encode_segment_header(1, 0, Place::default(), &mut bytes);
        bytes[4] = 3;
        assert_eq!(decode_segment_header(&bytes, 1), SegmentHeader::Invalid);
        let crc = crc32_iscsi(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_segment_header(&bytes, 1), SegmentHeader::Other { version: 3 });
    }
}
