//! Writes a table file from sorted entries.

use std::sync::Arc;

use disk::{Disk, File};
use model::storage::{Compression, Filter, LocalityGroup};
use model::{Bytes, Lsn, TabletId, Timestamp};

use super::{FOOTER, MAGIC, PLACE, Place, Properties, VERSION, block, filter};
use crate::Error;
use crate::key::Parts;

/// A data block ends with the entry that brings it to what the locality group says, within these bounds.
const LEAST_BLOCK: u32 = 256;
const MOST_BLOCK: u32 = 4 << 20;
const RESTART_INTERVAL: usize = 16;
/// Sealed blocks go to the file in pieces of at least this size.
const PIECE: usize = 256 << 10;

/// A table file that is being written. Nothing of it counts before [`Writer::finish`].
pub struct Writer {
    file: Arc<dyn File>,
    path: String,
    /// Sealed blocks that are not yet in the file, which has the `written` bytes before them.
    out: Vec<u8>,
    written: u64,
    block: block::Builder,
    index: block::Builder,
    /// Of each row so far.
    hashes: Vec<u64>,
    row: Vec<u8>,
    properties: Properties,
}

/// What a table is to be.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// Whose rows.
    pub tablet: TabletId,
    /// It has the changes of all records after this one,
    pub after: Lsn,
    /// up to this one.
    pub upto: Lsn,
    /// The latest version that a primary had chosen by then.
    pub clock: Timestamp,
    /// How it lies on the disk.
    pub locality: &'a LocalityGroup,
}

impl Writer {
    /// Begins a file.
    pub fn create(disk: &dyn Disk, path: String, shape: Shape<'_>) -> Result<Writer, Error> {
        let file = disk.create(&path).map_err(|source| Error::io(&path, "create", source))?;
        let Shape { tablet, after, upto, clock, locality } = shape;
        Ok(Writer {
            file,
            path,
            out: Vec::new(),
            written: 0,
            block: block::Builder::new(RESTART_INTERVAL),
            index: block::Builder::new(1),
            hashes: Vec::new(),
            row: Vec::new(),
            properties: Properties {
                tablet,
                after,
                upto,
                clock,
                locality: locality.id,
                families: Some(Vec::new()),
                compression: Compression::None,
                block_bytes: locality.block_bytes.clamp(LEAST_BLOCK, MOST_BLOCK),
                filter: Filter::Rows,
                ..Properties::default()
            },
        })
    }

    /// Adds an entry; keys must rise.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let parts = Parts::parse(key).expect("keys that we merged were parsed before");
        if parts.row != &self.row[..] {
            self.row.clear();
            self.row.extend_from_slice(parts.row);
            self.hashes.push(filter::hash(parts.row));
        }
        if self.properties.entries == 0 {
            self.properties.first = Bytes::copy_from_slice(key);
        }
        self.properties.count(key, &parts, value);
        self.block.add(key, value);
        if self.block.len() >= self.properties.block_bytes as usize {
            self.end_block()?;
        }
        Ok(())
    }

    /// Bytes of the file so far, give or take a block: for those who cut what they write into several files.
    pub fn bytes(&self) -> u64 {
        self.written + (self.out.len() + self.block.len()) as u64
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.properties.entries == 0
    }

    /// Writes the rest and syncs the file; its name is the caller's to sync. Returns the file and its path.
    pub fn finish(mut self) -> Result<(Arc<dyn File>, String), Error> {
        self.properties.last =
            Bytes::copy_from_slice(if self.block.is_empty() { self.index.last() } else { self.block.last() });
        self.properties.rows = self.hashes.len() as u64;
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let filter = self.sealed(|writer, out| filter::build(&writer.hashes, out))?;
        let index = self.sealed(|writer, out| writer.index.finish(out))?;
        let properties = postcard::to_allocvec(&self.properties).expect("plain values have a postcard");
        let properties = self.sealed(|_, out| out.extend_from_slice(&properties))?;

        let offset = self.written + self.out.len() as u64;
        let mut footer = Vec::with_capacity(FOOTER);
        [filter, index, properties].iter().for_each(|place| footer.extend_from_slice(&place.to_bytes()));
        footer.resize(4 * PLACE, 0);
        footer.extend_from_slice(&VERSION.to_le_bytes());
        let crc = block::crc(&[&footer, &offset.to_le_bytes()]);
        footer.extend_from_slice(&crc.to_le_bytes());
        footer.extend_from_slice(&MAGIC);
        self.out.extend_from_slice(&footer);
        self.write_out()?;
        self.file.sync().map_err(|source| Error::io(&self.path, "sync", source))?;
        Ok((self.file, self.path))
    }

    fn end_block(&mut self) -> Result<(), Error> {
        let last = Bytes::copy_from_slice(self.block.last());
        let place = self.sealed(|writer, out| writer.block.finish(out))?;
        self.index.add(&last, &place.to_bytes());
        Ok(())
    }

    fn sealed(&mut self, write: impl FnOnce(&mut Writer, &mut Vec<u8>)) -> Result<Place, Error> {
        let mut out = std::mem::take(&mut self.out);
        let start = out.len();
        let offset = self.written + start as u64;
        write(self, &mut out);
        block::seal(&mut out, start, offset);
        let len = u32::try_from(out.len() - start).expect("the limits on keys and values keep a block below 4 GiB");
        self.out = out;
        if self.out.len() >= PIECE {
            self.write_out()?;
        }
        Ok(Place { offset, len })
    }

    fn write_out(&mut self) -> Result<(), Error> {
        self.file.write_at(self.written, &self.out).map_err(|source| Error::io(&self.path, "write", source))?;
        self.written += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }
}
