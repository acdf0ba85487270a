//! Tables that follow each other in key order, as if they were one. A table is opened when the walk comes to it.

use std::sync::Arc;

use model::Bytes;

use crate::Error;
use crate::sstable::{Purpose, Table, TableCursor};

/// Walks a run in key order or against it. Stands on an entry, or is at an end.
pub struct Run {
    tables: Vec<Arc<Table>>,
    purpose: Purpose,
    /// In the table before `next`, if it stands on an entry.
    cursor: Option<TableCursor>,
    /// The table to go on with.
    next: usize,
}

impl Run {
    /// At an end; it is to be placed. Refused if one of the tables cannot be read at all: nobody knows what it has.
    pub fn new(tables: Vec<Arc<Table>>, purpose: Purpose) -> Result<Run, Error> {
        match tables.iter().find_map(|table| table.damage()) {
            Some(damage) => Err(damage),
            None => Ok(Run { tables, purpose, cursor: None, next: 0 }),
        }
    }

    /// Goes on to the first key that is not below `target`, if it is before `end`; stays if it stands on one.
    pub fn seek(&mut self, target: &[u8], end: Option<&[u8]>) -> Result<(), Error> {
        if let Some(cursor) = &mut self.cursor {
            cursor.seek(target)?;
            if cursor.key().is_some() {
                return Ok(());
            }
        }
        self.cursor = None;
        self.next += self.tables[self.next..].partition_point(|table| !table.overlaps(target, None));
        self.enter(target, end)
    }

    /// Goes on by one entry, if the next one is before `end`.
    pub fn advance(&mut self, end: Option<&[u8]>) -> Result<(), Error> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        cursor.advance()?;
        if cursor.key().is_none() {
            self.cursor = None;
            self.enter(&[], end)?;
        }
        Ok(())
    }

    /// Goes to the last key below `target`, or of all, if it is not below `start`.
    pub fn seek_before(&mut self, target: Option<&[u8]>, start: &[u8]) -> Result<(), Error> {
        self.cursor = None;
        self.next = self.tables.partition_point(|table| table.overlaps(&[], target));
        self.enter_before(target, start)
    }

    /// Goes back by one entry, if the one before is not below `start`.
    pub fn retreat(&mut self, start: &[u8]) -> Result<(), Error> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        cursor.retreat()?;
        if cursor.key().is_none() {
            self.cursor = None;
            self.next -= 1;
            self.enter_before(None, start)?;
        }
        Ok(())
    }

    /// To the first key from `target` on in the tables from the next one on.
    fn enter(&mut self, target: &[u8], end: Option<&[u8]>) -> Result<(), Error> {
        while let Some(table) = self.tables.get(self.next)
            && table.overlaps(target, end)
        {
            let cursor = TableCursor::new(Arc::clone(table), target, self.purpose)?;
            self.next += 1;
            if cursor.key().is_some() {
                self.cursor = Some(cursor);
                break;
            }
        }
        Ok(())
    }

    /// To the last key below `target` in the tables before the next one.
    fn enter_before(&mut self, target: Option<&[u8]>, start: &[u8]) -> Result<(), Error> {
        while let Some(table) = self.next.checked_sub(1).and_then(|before| self.tables.get(before))
            && table.overlaps(start, None)
        {
            let cursor = TableCursor::before(Arc::clone(table), target, self.purpose)?;
            if cursor.key().is_some() {
                self.cursor = Some(cursor);
                break;
            }
            self.next -= 1;
        }
        Ok(())
    }

    /// Key of the entry it stands on.
    pub fn key(&self) -> Option<&[u8]> {
        self.cursor.as_ref().and_then(TableCursor::key)
    }

    /// Value of the entry it stands on; empty at the end.
    pub fn value(&self) -> Bytes {
        self.cursor.as_ref().map_or(Bytes::new(), TableCursor::value)
    }

    /// As [`Run::value`], for those who do not keep it.
    pub fn value_ref(&self) -> &[u8] {
        self.cursor.as_ref().map_or(&[], TableCursor::value_ref)
    }

    /// The file it is in.
    pub fn path(&self) -> &str {
        self.cursor.as_ref().map_or("", TableCursor::path)
    }
}
