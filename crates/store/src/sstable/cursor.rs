//! Walks a table, both ways.

use std::sync::Arc;

use model::Bytes;

use super::Table;
use super::ahead::{Ahead, Purpose};
use super::block::{self, Malformed};
use super::index::Group;
use crate::Error;

/// Walks a table in key order or against it. Stands on an entry, or is off one of the ends, where it stays.
pub struct TableCursor {
    table: Arc<Table>,
    purpose: Purpose,
    /// In which block it is; `None` off the ends.
    at: Option<At>,
    block: block::Cursor,
    ahead: Ahead,
    /// The block may have keys that the table does not show.
    edge: bool,
}

/// A data block.
struct At {
    group: usize,
    blocks: Arc<Group>,
    /// Which of them.
    block: usize,
}

impl TableCursor {
    /// Goes to the first key from `start` on.
    pub fn new(table: Arc<Table>, start: &[u8], purpose: Purpose) -> Result<TableCursor, Error> {
        let mut cursor = TableCursor::nowhere(table, purpose)?;
        match cursor.table.part.as_ref().map(|part| &part.start).filter(|edge| &edge[..] > start).cloned() {
            Some(edge) => cursor.go_to(&edge)?,
            None => cursor.go_to(start)?,
        }
        Ok(cursor)
    }

    /// Goes to the last key before `end`; to the last one of all without it.
    pub fn before(table: Arc<Table>, end: Option<&[u8]>, purpose: Purpose) -> Result<TableCursor, Error> {
        let mut cursor = TableCursor::nowhere(table, purpose)?;
        let edge = cursor.table.part.as_ref().and_then(|part| part.end.clone());
        let end = match (end, edge.as_deref()) {
            (Some(end), Some(edge)) => Some(end.min(edge)),
            (end, edge) => end.or(edge),
        };
        let groups = cursor.table.body.frame.index.len();
        let group = end.map_or(groups, |end| cursor.table.body.frame.index.find(end));
        match end {
            Some(end) if group < groups => {
                let blocks = cursor.group(group)?;
                let block = blocks.find(end);
                cursor.enter(At { group, blocks, block })?;
                cursor.in_block(|block| block.seek(end))?;
                cursor.retreat()?;
            }
            _ => cursor.enter_group_behind(groups)?,
        }
        Ok(cursor)
    }

    fn nowhere(table: Arc<Table>, purpose: Purpose) -> Result<TableCursor, Error> {
        if let Some(damage) = table.damage() {
            return Err(damage);
        }
        let ahead = Ahead::upto(table.body.frame.index.data_end());
        Ok(TableCursor { table, purpose, at: None, block: block::Cursor::default(), ahead, edge: false })
    }

    /// The table's file.
    pub fn path(&self) -> &str {
        self.table.path()
    }

    /// Key of the entry it stands on.
    pub fn key(&self) -> Option<&[u8]> {
        let key = self.block.key()?;
        (!self.edge || self.table.shows(key)).then_some(key)
    }

    /// Value of the entry it stands on, in the memory of its block; empty off the ends.
    pub fn value(&self) -> Bytes {
        self.block.value()
    }

    /// As [`TableCursor::value`], for those who do not keep it.
    pub fn value_ref(&self) -> &[u8] {
        self.block.value_ref()
    }

    /// Is the key that it stands on between those that the index has for this block and the one before it?
    pub(super) fn is_in_place(&self) -> bool {
        let (Some(At { group, blocks, block }), Some(key)) = (&self.at, self.block.key()) else { return false };
        let before = match (block.checked_sub(1), group.checked_sub(1)) {
            (Some(before), _) => Some(blocks.key(before)),
            (None, before) => before.map(|group| self.table.body.frame.index.key(group)),
        };
        key <= blocks.key(*block) && before.is_none_or(|before| key > before)
    }

    /// Goes on by one entry.
    pub fn advance(&mut self) -> Result<(), Error> {
        if self.at.is_none() {
            return Ok(());
        }
        self.in_block(block::Cursor::advance)?;
        self.skip_forwards()
    }

    /// Goes back by one entry.
    pub fn retreat(&mut self) -> Result<(), Error> {
        if self.at.is_none() {
            return Ok(());
        }
        self.in_block(block::Cursor::retreat)?;
        self.skip_backwards()
    }

    /// Goes on to the first key that is not below `target`; stays if it stands on one. Costs little if that is near.
    pub fn seek(&mut self, target: &[u8]) -> Result<(), Error> {
        let Some(At { group, blocks, block }) = &self.at else { return Ok(()) };
        if self.block.key().is_some_and(|key| key >= target) {
            return Ok(());
        }
        if blocks.key(*block) >= target {
            self.in_block(|block| block.seek_on(target))?;
            return self.skip_forwards();
        }
        if self.table.body.frame.index.key(*group) < target {
            return self.go_to(target);
        }
        let at = At { group: *group, blocks: Arc::clone(blocks), block: blocks.find(target) };
        self.enter(at)?;
        self.in_block(|block| block.seek(target))?;
        self.skip_forwards()
    }

    /// Goes to the first key from `target` on.
    fn go_to(&mut self, target: &[u8]) -> Result<(), Error> {
        let group = self.table.body.frame.index.find(target);
        if group == self.table.body.frame.index.len() {
            self.leave();
            return Ok(());
        }
        let blocks = self.group(group)?;
        let block = blocks.find(target);
        self.enter(At { group, blocks, block })?;
        self.in_block(|block| block.seek(target))?;
        self.skip_forwards()
    }

    /// From the end of a block to the first entry behind it.
    fn skip_forwards(&mut self) -> Result<(), Error> {
        while self.block.key().is_none()
            && let Some(At { group, blocks, block }) = self.at.take()
        {
            if block + 1 < blocks.len() {
                self.enter(At { group, blocks, block: block + 1 })?;
            } else if group + 1 < self.table.body.frame.index.len() {
                let blocks = self.group(group + 1)?;
                self.enter(At { group: group + 1, blocks, block: 0 })?;
            } else {
                self.leave();
                return Ok(());
            }
            self.in_block(block::Cursor::advance)?;
        }
        Ok(())
    }

    /// From the beginning of a block to the last entry before it.
    fn skip_backwards(&mut self) -> Result<(), Error> {
        while self.block.key().is_none()
            && let Some(At { group, blocks, block }) = self.at.take()
        {
            match block.checked_sub(1) {
                Some(block) => self.enter_behind(At { group, blocks, block })?,
                None => return self.enter_group_behind(group),
            }
        }
        Ok(())
    }

    /// To the last entry before this group.
    fn enter_group_behind(&mut self, group: usize) -> Result<(), Error> {
        self.leave();
        let Some(group) = group.checked_sub(1) else { return Ok(()) };
        let blocks = self.group(group)?;
        let Some(block) = blocks.len().checked_sub(1) else { return Ok(()) };
        self.enter_behind(At { group, blocks, block })?;
        self.skip_backwards()
    }

    /// To the last entry of the block.
    fn enter_behind(&mut self, at: At) -> Result<(), Error> {
        self.enter(at)?;
        self.block.go_behind_all();
        self.in_block(block::Cursor::retreat)
    }

    fn leave(&mut self) {
        self.at = None;
        self.block.go_behind_all();
    }

    fn group(&self, group: usize) -> Result<Arc<Group>, Error> {
        let body = &self.table.body;
        body.frame.index.group(&body.source, group, self.purpose)
    }

    /// Before the first entry of the block.
    fn enter(&mut self, at: At) -> Result<(), Error> {
        let At { group, blocks, block } = &at;
        // If it cannot be read, it stands nowhere.
        self.leave();
        let payload = self.table.body.payload(*group, blocks, *block, (self.purpose, &mut self.ahead))?;
        self.edge = self.table.part.as_ref().is_some_and(|part| {
            let starts_within = block.checked_sub(1).is_some_and(|before| *blocks.key(before) >= part.start[..]);
            let ends_within = part.end.as_ref().is_none_or(|end| blocks.key(*block) < &end[..]);
            !(starts_within && ends_within)
        });
        self.at = Some(at);
        self.in_block(|block| block.enter(payload))
    }

    fn in_block(&mut self, step: impl FnOnce(&mut block::Cursor) -> Result<(), Malformed>) -> Result<(), Error> {
        step(&mut self.block).map_err(|malformed| {
            let place = self.at.as_ref().map(|at| at.blocks.things()[at.block]).unwrap_or_default();
            self.table.body.source.corrupt(place, malformed)
        })
    }
}
