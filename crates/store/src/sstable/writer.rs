//! Writes a table file from sorted entries.
//!
//! ```text
//!   add ──▶ block::Builder ──full──▶ Encoder ──▶ file
//!              │                       │  the first blocks wait until a dictionary was tried on them, if one may pay
//!              └─last, next key──▶ IndexBuilder ◀─┘ sealed length
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use disk::{Disk, File};
use model::storage::{Compression, Filter, LocalityGroup};
use model::{Bytes, Lsn, TabletId, Timestamp};

use super::codec::Encoder;
use super::fences::separator;
use super::filter;
use super::frame::Footer;
use super::index::Top;
use super::{Place, Properties, block, dictionary};
use crate::Error;
use crate::key::{Parts, Scope};

/// A data block ends with the entry that brings it to what the locality group says, within these bounds.
const LEAST_BLOCK: u32 = 256;
pub(super) const MOST_BLOCK: u32 = 4 << 20;
const RESTART_INTERVAL: usize = 16;
/// An index block ends with the entry that brings it here.
const INDEX_BLOCK: usize = 4 << 10;
/// Sealed blocks go to the file in pieces of at least this size.
const PIECE: usize = 256 << 10;

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

/// A table file that is being written. Nothing of it counts before [`Writer::finish`].
pub struct Writer {
    file: Arc<dyn File>,
    path: String,
    /// Sealed blocks that are not yet in the file, which has the `written` bytes before them.
    out: Vec<u8>,
    written: u64,
    encoder: Encoder,
    block: block::Builder,
    /// Blocks that wait for a dictionary; `None` once that is decided.
    samples: Option<dictionary::Samples>,
    dictionary: Option<Vec<u8>>,
    index: IndexBuilder,
    /// Of each row so far, and of each column if the filter is to know those.
    hashes: Vec<u64>,
    row: Vec<u8>,
    row_hash: u64,
    /// The last key of a finished block, as long as the next one has none.
    last: Option<Vec<u8>>,
    properties: Properties,
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
            encoder: Encoder::new(locality.compression),
            block: block::Builder::new(RESTART_INTERVAL),
            samples: (locality.compression == Compression::Zstd).then(dictionary::Samples::default),
            dictionary: None,
            index: IndexBuilder::default(),
            hashes: Vec::new(),
            row: Vec::new(),
            row_hash: 0,
            last: None,
            properties: Properties {
                tablet,
                after,
                upto,
                clock,
                locality: locality.id,
                families: Some(Vec::new()),
                compression: locality.compression,
                block_bytes: locality.block_bytes.clamp(LEAST_BLOCK, MOST_BLOCK),
                filter: locality.filter,
                ..Properties::default()
            },
        })
    }

    /// Adds an entry; keys must rise.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let parts = Parts::parse(key).expect("keys that we merged were parsed before");
        self.note(&parts);
        if self.properties.entries == 0 {
            self.properties.first = Bytes::copy_from_slice(key);
        }
        self.properties.count(key, &parts, value);
        if let Some(last) = self.last.take() {
            self.index.end_block(separator(&last, key));
        }
        self.block.add(key, value);
        if self.block.len() >= self.properties.block_bytes as usize {
            self.end_block()?;
        }
        Ok(())
    }

    /// Counts the row, and tells the filter of it and of its columns.
    fn note(&mut self, parts: &Parts<'_>) {
        if parts.row != &self.row[..] {
            self.row.clear();
            self.row.extend_from_slice(parts.row);
            self.row_hash = filter::hash(parts.row);
            self.properties.rows += 1;
            if self.properties.filter != Filter::None {
                self.hashes.push(self.row_hash);
            }
        }
        if self.properties.filter == Filter::Columns {
            let hash = match parts.scope {
                Scope::Row => filter::hash_row_deleted(self.row_hash),
                Scope::Family => filter::hash_family_deleted(self.row_hash, parts.family),
                Scope::Column | Scope::Cell { .. } => filter::hash_column(self.row_hash, parts.family, parts.qualifier),
            };
            // A column's versions come one after the other.
            if self.hashes.last() != Some(&hash) {
                self.hashes.push(hash);
            }
        }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.properties.entries == 0
    }

    /// Bytes of the file so far, or a little more if some of them are not compressed yet: for those who cut what they write
    /// into several files.
    pub fn bytes(&self) -> u64 {
        let waiting = self.samples.as_ref().map_or(0, |samples| samples.bytes());
        self.written + (self.out.len() + waiting + self.block.len()) as u64
    }

    /// Writes the rest and syncs the file; its name is the caller's to sync. Returns the file and its path.
    pub fn finish(mut self) -> Result<(Arc<dyn File>, String), Error> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        self.decide()?;
        if let Some(last) = self.last.take() {
            self.properties.last = Bytes::copy_from_slice(&last);
            self.index.end_block(last);
        }
        let mut plain = Encoder::new(Compression::None);
        let mut footer = Footer { data_end: self.end(), blocks: self.index.blocks, ..Footer::default() };
        if let Some(dictionary) = self.dictionary.take() {
            footer.dictionary = self.seal(&mut plain, &dictionary)?.len;
        }
        if self.properties.filter != Filter::None {
            let shape = filter::Shape::of(self.hashes.len());
            let lines = filter::build(shape, &self.hashes);
            footer.pieces = shape.pieces as u32;
            for piece in lines.chunks(shape.lines * filter::LINE) {
                footer.piece = self.seal(&mut plain, piece)?.len;
            }
        }
        footer.index = self.end();
        let mut top = block::Builder::new(RESTART_INTERVAL);
        for group in std::mem::take(&mut self.index).finish() {
            let place = self.seal(&mut plain, &group.payload)?;
            top.add(&group.key, &Top { place, data: group.data, before: group.before }.to_bytes());
        }
        let mut payload = Vec::new();
        top.finish(&mut payload);
        footer.top = self.seal(&mut plain, &payload)?;
        let properties = postcard::to_allocvec(&self.properties).expect("plain values have a postcard");
        footer.properties = self.seal(&mut plain, &properties)?.len;
        let offset = self.end();
        self.out.extend_from_slice(&footer.to_bytes(offset));
        self.write_out()?;
        self.file.sync().map_err(|source| Error::io(&self.path, "sync", source))?;
        Ok((self.file, self.path))
    }

    fn end_block(&mut self) -> Result<(), Error> {
        self.last = Some(self.block.last().to_vec());
        let mut payload = Vec::new();
        self.block.finish(&mut payload);
        match &mut self.samples {
            Some(samples) => {
                samples.add(payload);
                if samples.are_enough() { self.decide() } else { Ok(()) }
            }
            None => self.write_block(&payload),
        }
    }

    /// Whether a dictionary pays, as far as the first blocks tell; then they are written.
    fn decide(&mut self) -> Result<(), Error> {
        let Some(samples) = self.samples.take() else { return Ok(()) };
        self.dictionary = samples.train();
        if let Some(dictionary) = &self.dictionary {
            self.encoder = Encoder::with_dictionary(dictionary);
        }
        samples.into_payloads().iter().try_for_each(|payload| self.write_block(payload))
    }

    fn write_block(&mut self, payload: &[u8]) -> Result<(), Error> {
        let mut encoder = std::mem::replace(&mut self.encoder, Encoder::new(Compression::None));
        let place = self.seal(&mut encoder, payload)?;
        self.encoder = encoder;
        self.index.add_block(place);
        Ok(())
    }

    /// Where the next block will be.
    fn end(&self) -> u64 {
        self.written + self.out.len() as u64
    }

    fn seal(&mut self, encoder: &mut Encoder, payload: &[u8]) -> Result<Place, Error> {
        let (offset, start) = (self.end(), self.out.len());
        encoder.seal(payload, offset, &mut self.out);
        let len =
            u32::try_from(self.out.len() - start).expect("the limits on keys and values keep a block below 4 GiB");
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

/// Collects where data blocks lie into index blocks. A block's place may come before or after its key.
#[derive(Default)]
struct IndexBuilder {
    keys: VecDeque<Vec<u8>>,
    places: VecDeque<Place>,
    block: Option<(block::Builder, u64, u32)>,
    groups: Vec<Group>,
    /// Data blocks so far.
    blocks: u32,
}

/// An index block that is complete.
struct Group {
    key: Vec<u8>,
    payload: Vec<u8>,
    /// Where its first data block lies, and how many come before that.
    data: u64,
    before: u32,
}

impl IndexBuilder {
    /// The key of the next block that has none yet.
    fn end_block(&mut self, key: Vec<u8>) {
        self.keys.push_back(key);
        self.pair();
    }

    /// The place of the next block that has none yet.
    fn add_block(&mut self, place: Place) {
        self.places.push_back(place);
        self.pair();
    }

    fn pair(&mut self) {
        while let (Some(key), Some(place)) = (self.keys.front(), self.places.front()) {
            let (block, ..) =
                self.block.get_or_insert_with(|| (block::Builder::new(RESTART_INTERVAL), place.offset, self.blocks));
            block.add(key, &place.len.to_le_bytes());
            self.blocks += 1;
            if block.len() >= INDEX_BLOCK {
                self.end_group();
            }
            self.keys.pop_front();
            self.places.pop_front();
        }
    }

    fn end_group(&mut self) {
        if let Some((mut block, data, before)) = self.block.take() {
            let (key, mut payload) = (block.last().to_vec(), Vec::new());
            block.finish(&mut payload);
            self.groups.push(Group { key, payload, data, before });
        }
    }

    fn finish(mut self) -> Vec<Group> {
        self.end_group();
        self.groups
    }
}
