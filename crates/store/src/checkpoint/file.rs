//! The small files of a checkpoint, which say what it is.
//!
//! ```text
//!   offset  size  field
//!        0     8  magic    "dipcheck"
//!        8     1  version  1
//!        9     1  kind     1 = begun, 2 = a tablet's part, 3 = complete
//!       10     2  zero
//!       12     4  len      bytes of the body, with which the file ends
//!       16     4  crc      CRC-32C of bytes 0..16 and of the body
//!       20   len  body     postcard: of kind 1 the name and the id (u64), of 2 a Part, of 3 a Checkpoint (model::checkpoint)
//! ```
//!
//! Each is written to a draft (`.new`), synced, renamed, and the folder synced: so any wrong byte is damage.

use disk::Disk;
use model::checkpoint::{Checkpoint, CheckpointId, Part};
use serde::de::DeserializeOwned;

use crate::Error;
use crate::sstable::block;

const MAGIC: [u8; 8] = *b"dipcheck";
const VERSION: u8 = 1;
const HEADER: usize = 20;
const _: () = assert!(HEADER == 8 + 1 + 1 + 2 + 4 + 4);
/// No such file is longer: a checkpoint of a hundred thousand tablets has some ten megabytes.
const MOST: u64 = 1 << 30;

/// What such a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The checkpoint of this name is this one.
    Begun(String, CheckpointId),
    /// A tablet is in it.
    Part(Box<Part>),
    /// All tablets are.
    Complete(Checkpoint),
}

impl Content {
    fn to_bytes(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Content::Begun(name, id) => (1, postcard::to_allocvec(&(name, id))),
            Content::Part(part) => (2, postcard::to_allocvec(part)),
            Content::Complete(checkpoint) => (3, postcard::to_allocvec(checkpoint)),
        };
        let body = body.expect("plain values have a postcard");
        let len = u32::try_from(body.len()).expect("a checkpoint's list stays below 4 GiB");
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[VERSION, kind, 0, 0]);
        bytes.extend_from_slice(&len.to_le_bytes());
        let crc = block::crc(&[&bytes, &body]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// The file, durably.
pub(crate) fn write(disk: &dyn Disk, dir: &str, name: &str, content: &Content) -> Result<(), Error> {
    let path = format!("{dir}/{name}");
    let draft = format!("{path}.new");
    let file = disk.create(&draft).map_err(|source| Error::io(&draft, "create", source))?;
    file.write_at(0, &content.to_bytes()).map_err(|source| Error::io(&draft, "write", source))?;
    file.sync().map_err(|source| Error::io(&draft, "sync", source))?;
    disk.rename(&draft, &path).map_err(|source| Error::io(&path, "rename", source))?;
    disk.sync_dir(dir).map_err(|source| Error::io(dir, "sync", source))
}

/// The file, checked.
pub(crate) fn read(disk: &dyn Disk, path: &str) -> Result<Content, Error> {
    let file = disk.open(path).map_err(|source| Error::io(path, "open", source))?;
    let len = file.len().map_err(|source| Error::io(path, "measure", source))?;
    if len > MOST {
        return Err(Error::corrupt(path, 0, format!("it has {len} bytes, and no such file has")));
    }
    let mut bytes = vec![0; len as usize];
    let got = file.read_at(0, &mut bytes).map_err(|source| Error::io(path, "read", source))?;
    decode(path, &bytes[..got])
}

/// What the bytes of such a file say.
pub fn decode(path: &str, bytes: &[u8]) -> Result<Content, Error> {
    let corrupt = |offset, what: &str| Error::corrupt(path, offset, what);
    let Some((head, body)) = bytes.split_first_chunk::<HEADER>() else { return Err(corrupt(0, "it is too short")) };
    if head[..8] != MAGIC {
        return Err(corrupt(0, "it does not begin like a file of a checkpoint"));
    }
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[8] != VERSION {
        return Err(Error::Version { file: path.to_owned(), found: head[8].into(), known: VERSION.into() });
    }
    if number(16) != block::crc(&[&head[..16], body]) || number(12) as usize != body.len() {
        return Err(corrupt(16, "the checksum is wrong"));
    }
    match head[9] {
        1 => whole(path, body).map(|(name, id)| Content::Begun(name, id)),
        2 => whole(path, body).map(Content::Part),
        3 => whole(path, body).map(Content::Complete),
        _ => Err(corrupt(9, "this kind is not known")),
    }
}

fn whole<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, Error> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(Error::corrupt(path, HEADER as u64, "the body does not decode")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::checkpoint::{TableCopy, TabletCopy};
    use model::{Bytes, Epoch, Lsn, NodeId, Partition, Schema, Slice, Storage, TableId, TabletId, Timestamp};

    fn part() -> Part {
        let schema = Schema {
            table: TableId(3),
            name: "users".into(),
            version: 2,
            families: Vec::new(),
            next_family: model::FamilyId(1),
            partition: Partition::Range { splits: Vec::new() },
            replicas: 3,
            min_replicas: 2,
            storage: Storage { localities: Vec::new(), ..Storage::default() },
            settings: model::Settings::default(),
        };
        let slice = Slice::Rows { start: Bytes::from_static(b"g"), end: None };
        let copy = TabletCopy {
            tablet: TabletId(7),
            slice,
            epoch: Epoch(4),
            upto: Lsn(300),
            node: NodeId(2),
            date: Timestamp(5),
            bytes: 9,
        };
        Part { name: "monday".into(), id: CheckpointId(0x0102), schema, copy }
    }

    fn all() -> Vec<Content> {
        let Part { name, id, schema, copy } = part();
        let tables = vec![TableCopy { schema, tablets: vec![copy] }];
        let checkpoint = Checkpoint { name: name.clone(), id, begun: Timestamp(4), tables };
        vec![Content::Begun(name, id), Content::Part(Box::new(part())), Content::Complete(checkpoint)]
    }

    /// Disks keep them.
    #[test]
    fn bytes_of_version_1() {
        let expected: [&[u8]; 3] = [
            b"dipcheck\x01\x01\0\0\x09\0\0\0\x06monday\x82\x02",
            b"dipcheck\x01\x02\0\0\x29\0\0\0\x06monday\x82\x02\x03\x05users\x02\0\x01\x01\0\x03\x02\0\0\x01\0\0\0\0\x07\x01\x01g\0\x04\xac\x02\x02\x0a\x09",
            b"dipcheck\x01\x03\0\0\x2c\0\0\0\x06monday\x82\x02\x08\x01\x03\x05users\x02\0\x01\x01\0\x03\x02\0\0\x01\0\0\0\0\x01\x07\x01\x01g\0\x04\xac\x02\x02\x0a\x09",
        ];
        for (content, expected) in all().iter().zip(expected) {
            let mut bytes = content.to_bytes();
            bytes.drain(16..20);
            assert_eq!(bytes.escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        for content in all() {
            let bytes = content.to_bytes();
            assert_eq!(decode("x", &bytes).unwrap(), content);
            for len in 0..bytes.len() {
                assert!(decode("x", &bytes[..len]).is_err());
            }
            assert!(decode("x", &[&bytes[..], b"x"].concat()).is_err());
            for bit in 0..bytes.len() * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(decode("x", &bytes).is_err(), "bit {bit}");
            }
        }
    }
}
