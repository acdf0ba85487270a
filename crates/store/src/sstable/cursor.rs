//! Walks a table, both ways.

use std::sync::Arc;

use model::Bytes;

use super::ahead::{Ahead, Purpose};
use super::{Table, block};
use crate::Error;

/// Walks a table in key order or against it. Stands on an entry, or is off one of the ends, where it stays.
pub struct TableCursor {
    table: Arc<Table>,
    purpose: Purpose,
    /// Number of the block it is in; `None` off the ends.
    at: Option<usize>,
    block: block::Cursor,
    ahead: Ahead,
}

impl TableCursor {
    /// Goes to the first key from `start` on.
    pub fn new(table: Arc<Table>, start: &[u8], purpose: Purpose) -> Result<TableCursor, Error> {
        let mut cursor = TableCursor::nowhere(table, purpose)?;
        let part = cursor.table.part.clone();
        let start = part.as_ref().map_or(start, |part| start.max(&part.start[..]));
        cursor.enter_at(start, 0)?;
        Ok(cursor)
    }

    /// Goes to the last key before `end`; to the last one of all without it.
    pub fn before(table: Arc<Table>, end: Option<&[u8]>, purpose: Purpose) -> Result<TableCursor, Error> {
        let mut cursor = TableCursor::nowhere(table, purpose)?;
        let part = cursor.table.part.clone();
        let edge = part.as_ref().and_then(|part| part.end.as_deref());
        let end = match (end, edge) {
            (Some(end), Some(edge)) => Some(end.min(edge)),
            (end, edge) => end.or(edge),
        };
        let blocks = cursor.table.index.len();
        let at = end.map_or(blocks, |end| cursor.table.find(end, 0));
        match end {
            Some(end) if at < blocks => {
                cursor.enter(at)?;
                cursor.in_block(|block| block.seek(end))?;
                cursor.retreat()?;
            }
            _ => cursor.enter_behind(blocks)?,
        }
        Ok(cursor)
    }

    fn nowhere(table: Arc<Table>, purpose: Purpose) -> Result<TableCursor, Error> {
        match table.damage() {
            Some(damage) => Err(damage),
            None => {
                Ok(TableCursor { table, purpose, at: None, block: block::Cursor::default(), ahead: Ahead::default() })
            }
        }
    }

    /// The table's file.
    pub fn path(&self) -> &str {
        self.table.path()
    }

    /// Key of the entry it stands on.
    pub fn key(&self) -> Option<&[u8]> {
        self.at?;
        self.block.key().filter(|key| self.table.shows(key))
    }

    /// Value of the entry it stands on, in the memory of its block; empty off the ends.
    pub fn value(&self) -> Bytes {
        self.at.map_or(Bytes::new(), |_| self.block.value())
    }

    /// As [`TableCursor::value`], for those who do not keep it.
    pub fn value_ref(&self) -> &[u8] {
        self.at.map_or(&[], |_| self.block.value_ref())
    }

    /// Goes on by one entry.
    pub fn advance(&mut self) -> Result<(), Error> {
        if self.at.is_some() {
            self.in_block(block::Cursor::advance)?;
        }
        self.skip_forwards()
    }

    /// Goes back by one entry.
    pub fn retreat(&mut self) -> Result<(), Error> {
        let Some(at) = self.at else { return Ok(()) };
        self.in_block(block::Cursor::retreat)?;
        if self.block.key().is_none() { self.enter_behind(at) } else { Ok(()) }
    }

    /// Goes on to the first key that is not below `target`; stays if it stands on one. Costs little if that is near.
    pub fn seek(&mut self, target: &[u8]) -> Result<(), Error> {
        let Some(at) = self.at else { return Ok(()) };
        if self.block.key().is_some_and(|key| key >= target) {
            return Ok(());
        }
        if self.table.ends_below(at, target) {
            return self.enter_at(target, at + 1);
        }
        self.in_block(|block| block.seek_on(target))?;
        self.skip_forwards()
    }

    /// Goes to the first key from `target` on, which lies in no block before `from`.
    fn enter_at(&mut self, target: &[u8], from: usize) -> Result<(), Error> {
        let at = self.table.find(target, from);
        if at == self.table.index.len() {
            self.at = None;
            return Ok(());
        }
        self.enter(at)?;
        self.in_block(|block| block.seek(target))?;
        self.skip_forwards()
    }

    /// From the end of a block to the next one.
    fn skip_forwards(&mut self) -> Result<(), Error> {
        while let Some(at) = self.at
            && self.block.key().is_none()
        {
            if at + 1 == self.table.index.len() {
                self.at = None;
                return Ok(());
            }
            self.enter(at + 1)?;
            self.in_block(block::Cursor::advance)?;
        }
        Ok(())
    }

    /// To the last entry before this block.
    fn enter_behind(&mut self, mut at: usize) -> Result<(), Error> {
        self.at = None;
        while let Some(before) = at.checked_sub(1) {
            self.enter(before)?;
            self.block.go_behind_all();
            self.in_block(block::Cursor::retreat)?;
            if self.block.key().is_some() {
                return Ok(());
            }
            (self.at, at) = (None, before);
        }
        Ok(())
    }

    /// Before the first entry of the block.
    fn enter(&mut self, at: usize) -> Result<(), Error> {
        let payload = self.table.block(at, self.purpose, &mut self.ahead)?;
        self.at = Some(at);
        self.in_block(|block| block.enter(payload))
    }

    fn in_block(&mut self, step: impl FnOnce(&mut block::Cursor) -> Result<(), block::Malformed>) -> Result<(), Error> {
        let at = self.at.unwrap_or_default();
        step(&mut self.block).map_err(|malformed| self.table.corrupt(at, malformed))
    }
}
