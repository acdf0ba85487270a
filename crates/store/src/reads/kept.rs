//! What tables have of a row, kept in memory as a whole: the row cache.
//!
//! A point read of a row that is read often need not look for it in blocks again. What is kept is of tables only, and is named
//! by those that may have the row: tables never change, so it is never wrong, and a flush or a merge of other rows leaves it
//! as useful as it was. What memtables have is laid over it with every read, and retention is judged then.

use std::sync::Arc;

use model::Bytes;

use crate::merge::Merge;

/// Bytes of keys and values, and entries, up to which a row is kept.
const MOST_BYTES: usize = 4 << 10;
const MOST_ENTRIES: usize = 64;

/// The entries of a row in some tables.
#[derive(Debug)]
pub(crate) struct KeptRow {
    /// Numbers of the tables, as the cache has them.
    tables: Vec<u64>,
    /// The escaped row.
    row: Vec<u8>,
    /// Keys and values, one after the other: key, value, key, value …
    bytes: Bytes,
    /// Where each key and each value ends.
    ends: Vec<(u32, u32)>,
}

impl KeptRow {
    /// The entries of the row from where `merge` stands; `None` if they are too many to be kept. Then `merge` stands somewhere in
    /// the row.
    pub fn take(merge: &mut Merge, tables: Vec<u64>, row: &[u8]) -> Result<Option<KeptRow>, crate::Error> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        while let Some(key) = merge.key().filter(|key| key.starts_with(row)) {
            let value = merge.value_ref();
            if bytes.len() + key.len() + value.len() > MOST_BYTES || ends.len() == MOST_ENTRIES {
                return Ok(None);
            }
            bytes.extend_from_slice(key);
            let key_end = bytes.len() as u32;
            bytes.extend_from_slice(value);
            ends.push((key_end, bytes.len() as u32));
            merge.advance()?;
        }
        Ok(Some(KeptRow { tables, row: row.to_vec(), bytes: Bytes::from(bytes), ends }))
    }

    /// Is it this row, of these tables?
    pub fn is_of(&self, tables: &[u64], row: &[u8]) -> bool {
        self.row == row && self.tables == tables
    }

    /// Bytes that it takes, about.
    pub fn weight(&self) -> usize {
        size_of::<KeptRow>() + self.tables.len() * 8 + self.row.len() + self.bytes.len() + self.ends.len() * 8
    }
}

/// Walks the entries of a kept row. Stands on one, or is off an end.
pub(crate) struct KeptCursor {
    row: Arc<KeptRow>,
    /// The entry, counted from one; 0 is before the first.
    at: usize,
}

impl KeptCursor {
    /// Before the first.
    pub fn new(row: Arc<KeptRow>) -> KeptCursor {
        KeptCursor { row, at: 0 }
    }

    fn entry(&self) -> Option<(usize, usize, usize)> {
        let at = self.at.checked_sub(1)?;
        let &(key_end, end) = self.row.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.row.ends[before].1);
        Some((start as usize, key_end as usize, end as usize))
    }

    /// Key of the entry it stands on.
    pub fn key(&self) -> Option<&[u8]> {
        self.entry().map(|(start, key_end, _)| &self.row.bytes[start..key_end])
    }

    /// Its value, in the memory of the row.
    pub fn value(&self) -> Bytes {
        self.entry().map_or_else(Bytes::new, |(_, key_end, end)| self.row.bytes.slice(key_end..end))
    }

    /// As [`KeptCursor::value`], for those who do not keep it.
    pub fn value_ref(&self) -> &[u8] {
        self.entry().map_or(&[], |(_, key_end, end)| &self.row.bytes[key_end..end])
    }

    /// Goes to the first key that is not below `target`; stays if it stands on one. There are few.
    pub fn seek(&mut self, target: &[u8]) {
        self.at = self.at.max(1);
        while self.key().is_some_and(|key| key < target) {
            self.at += 1;
        }
    }

    /// Goes to the last key below `target`, or of all.
    pub fn seek_before(&mut self, target: Option<&[u8]>) {
        self.at = self.row.ends.len();
        while let (Some(key), Some(target)) = (self.key(), target)
            && key >= target
        {
            self.at -= 1;
        }
    }

    /// Goes on by one entry.
    pub fn advance(&mut self) {
        self.at += usize::from(self.key().is_some());
    }

    /// Goes back by one entry.
    pub fn retreat(&mut self) {
        self.at = self.at.saturating_sub(1);
    }
}
