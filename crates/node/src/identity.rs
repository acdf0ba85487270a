//! Who this disk belongs to.
//!
//! The file `node.id`, written anew at every start:
//!
//! ```text
//!   offset  size  field
//!        0     8  magic        "DIPTNODE"
//!        8     4  version      1, little-endian, like all numbers here
//!       12     4  node         the node's id
//!       16     8  disk         drawn when the disk was first used
//!       24     8  incarnation  rises by one with every start
//!       32     4  crc          CRC-32C of bytes 0..32
//! ```

use disk::Disk;
use model::{Incarnation, NodeId};
use store::Error;

const FILE: &str = "node.id";
const MAGIC: &[u8; 8] = b"DIPTNODE";
const VERSION: u32 = 1;
const SIZE: usize = 36;
const _: () = assert!(SIZE == 8 + 4 + 4 + 8 + 8 + 4);

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub node: NodeId,
    pub disk: u64,
    pub incarnation: Incarnation,
}

impl Identity {
    /// Reads the file, or begins a new one if there is none, and counts this start.
    pub fn open(disk: &dyn Disk, node: NodeId, seed: u64) -> Result<Identity, Error> {
        let identity = match Identity::read(disk)? {
            Some(old) if old.node != node => {
                return Err(Error::Foreign {
                    what: format!(
                        "this folder holds the data of node {}, not of {node}; start it as {}, or give {node} another folder",
                        old.node, old.node
                    ),
                });
            }
            Some(old) => Identity { incarnation: Incarnation(old.incarnation.0 + 1), ..old },
            None => Identity { node, disk: seed, incarnation: Incarnation(1) },
        };
        identity.write(disk)?;
        Ok(identity)
    }

    pub fn read(disk: &dyn Disk) -> Result<Option<Identity>, Error> {
        let failed = |what| move |source| Error::io(FILE, what, source);
        if !disk.exists(FILE).map_err(failed("look for"))? {
            return Ok(None);
        }
        let file = disk.open(FILE).map_err(failed("open"))?;
        let mut bytes = [0; SIZE];
        let read = file.read_at(0, &mut bytes).map_err(failed("read"))?;
        let corrupt = |offset, what: &str| Error::Corrupt { file: FILE.into(), offset, what: what.into() };
        if read < SIZE {
            return Err(corrupt(read as u64, "the file ends too early"));
        }
        if number(&bytes[32..36]) != u64::from(checksum(&bytes[..32])) {
            return Err(corrupt(32, "the checksum does not match"));
        }
        if &bytes[..8] != MAGIC || number(&bytes[8..12]) != u64::from(VERSION) {
            return Err(corrupt(0, "this is no identity file of a known version"));
        }
        Ok(Some(Identity {
            node: NodeId(number(&bytes[12..16]) as u32),
            disk: number(&bytes[16..24]),
            incarnation: Incarnation(number(&bytes[24..32])),
        }))
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SIZE);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.node.0.to_le_bytes());
        bytes.extend_from_slice(&self.disk.to_le_bytes());
        bytes.extend_from_slice(&self.incarnation.0.to_le_bytes());
        let crc = checksum(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn write(&self, disk: &dyn Disk) -> Result<(), Error> {
        let failed = |what| move |source| Error::io(FILE, what, source);
        let fresh = format!("{FILE}.new");
        let file = disk.create(&fresh).map_err(failed("create"))?;
        file.write_at(0, &self.to_bytes()).map_err(failed("write"))?;
        file.sync().map_err(failed("sync"))?;
        disk.rename(&fresh, FILE).map_err(failed("rename"))?;
        disk.sync_dir("").map_err(failed("sync the folder of"))
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_version_1() {
        let identity = Identity { node: NodeId(3), disk: 0x0102, incarnation: Incarnation(9) };
        let bytes = identity.to_bytes();
        assert_eq!(&bytes[..32], b"DIPTNODE\x01\0\0\0\x03\0\0\0\x02\x01\0\0\0\0\0\0\x09\0\0\0\0\0\0\0");
        assert_eq!(bytes.len(), SIZE);
    }
}
