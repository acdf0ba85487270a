//! Reads what lies in the file, whoever has it in memory, and says whether it is what was written.

use std::sync::Arc;

use model::Bytes;

use super::ahead::{Ahead, Purpose};
use super::frame::Frame;
use super::{Cache, Place, Properties, Source, Table, TableCursor, filter};
use crate::Error;
use crate::key::{self, Parts, Scope};

impl Table {
    /// Reads up to `len` raw bytes for a peer, and checks every data block that they touch: damage must not travel. The
    /// peer checks the whole file once more when it has it.
    pub fn read_raw(&self, offset: u64, len: u32) -> Result<Bytes, Error> {
        if let Some(damage) = self.damage() {
            return Err(damage);
        }
        let len = u64::from(len).min(self.body.bytes.saturating_sub(offset));
        self.check_blocks(offset, offset + len, u64::MAX)?;
        self.body.source.read(Place { offset, len: len as u32 })
    }

    /// Reads what the table has from this offset on, block by block until about `most` bytes are read, and checks it. Gives
    /// how many were, and where to go on; nowhere at the end.
    pub fn check(&self, from: u64, most: u64) -> Result<(u64, Option<u64>), Error> {
        if let Some(damage) = self.damage() {
            return Err(damage);
        }
        let index = &self.body.frame.index;
        let (start, end) = match &self.part {
            Some(part) => {
                (index.start_of(&part.start), part.end.as_ref().map_or(index.data_end(), |end| index.end_of(end)))
            }
            None => (0, index.data_end()),
        };
        if from < end {
            let next = self.check_blocks(from.max(start), end, most)?;
            return Ok((next - from.max(start), Some(next)));
        }
        // What an open table keeps in memory, once more.
        let Source { file, path, .. } = &self.body.source;
        let source = Source { file: file.clone(), path: path.clone(), cache: Cache::none(), number: 0 };
        if !Frame::read(&source, self.body.bytes)?.is_like(&self.body.frame) {
            return Err(Error::corrupt(path, index.data_end(), "the file is another one"));
        }
        Ok((self.body.bytes - index.data_end(), None))
    }

    /// Checks the data blocks that have bytes from `from` on and before `end`, until `most` bytes are read. Gives the end of
    /// the last one.
    fn check_blocks(&self, from: u64, end: u64, most: u64) -> Result<u64, Error> {
        let (source, frame) = (&self.body.source, &self.body.frame);
        let mut ahead = Ahead::upto(frame.index.data_end().min(end));
        let mut next = from;
        for group in frame.index.group_at(from)..frame.index.len() {
            if next >= end || next - from >= most {
                break;
            }
            let blocks = frame.index.group(source, group, Purpose::Background)?;
            let first = blocks.things().partition_point(|place| place.end().is_none_or(|end| end <= from));
            for place in &blocks.things()[first..] {
                if place.offset >= end || next - from >= most {
                    return Ok(next);
                }
                source.payload(*place, frame.dictionary.as_ref(), &mut ahead)?;
                next = place.end().unwrap_or(end);
            }
        }
        Ok(next)
    }

    /// Reads everything and checks it, down to the order of keys, the filter and the counts.
    pub fn verify(self: &Arc<Table>) -> Result<(), Error> {
        let corrupt = |what: &str| Error::corrupt(self.path(), 0, what);
        let p = self.properties();
        let mut counted = Properties { families: Some(Vec::new()), timestamps: None, ..p.clone() };
        (counted.entries, counted.deletions, counted.rows) = (0, 0, 0);
        (counted.key_bytes, counted.value_bytes, counted.deletes) = Default::default();
        let mut last: Vec<u8> = Vec::new();
        let mut row_hash = 0;
        let mut cursor = TableCursor::new(self.clone(), &[], Purpose::Background)?;
        // Of a large table it may not be in memory.
        let source = &self.body.source;
        self.body.frame.filter.load(source, &mut Ahead::upto(self.body.bytes))?;
        let holds = |hash: u64| self.body.frame.filter.may_hold(source, hash);
        while let Some(key) = cursor.key() {
            let parts = Parts::parse(key).ok_or_else(|| corrupt("a key does not decode"))?;
            if counted.entries == 0 && key != &p.first[..] {
                return Err(corrupt("the first key is not what the properties say"));
            }
            if counted.entries > 0 && key <= &last[..] {
                return Err(corrupt("keys do not rise"));
            }
            if !cursor.is_in_place() {
                return Err(corrupt("a key is not where the index has it"));
            }
            if parts.seq.0 <= p.after || parts.seq.0 > p.upto {
                return Err(corrupt("a key is not of the table's time"));
            }
            if key::row_of(&last) != Some(parts.row) {
                counted.rows += 1;
                row_hash = filter::hash(parts.row);
                if !holds(row_hash)? {
                    return Err(corrupt("the filter denies a row"));
                }
            }
            if p.filter == model::storage::Filter::Columns {
                let column = filter::Column::new(row_hash, parts.family, parts.qualifier);
                let hash = match parts.scope {
                    Scope::Row => column.row_deleted,
                    Scope::Family => column.family_deleted,
                    Scope::Column | Scope::Cell { .. } => column.column,
                };
                if !holds(hash)? {
                    return Err(corrupt("the filter denies a column"));
                }
            }
            counted.count(key, &parts, cursor.value_ref());
            last.clear();
            last.extend_from_slice(key);
            cursor.advance()?;
        }
        if p.families.is_none() {
            counted.forget_what_v1_lacks();
        }
        counted.last = Bytes::from(last);
        if counted != *p {
            return Err(corrupt("the entries are not those that the properties count"));
        }
        Ok(())
    }
}
