//! What is left of a tablet's changes when memtables and tables are laid over each other: one rule for reads and for
//! compaction.
//!
//! ```text
//!   memtable ─┐
//!   memtable ─┼─ Merge: all keys, in order ──▶ Sieve: the fate of each ──▶ a row, or a new table
//!   table * n ┘
//! ```
//!
//! Rules: a deletion covers only what is older by [`crate::key::Seq`]; of a version that was set twice the later one counts; a family
//! that was dropped is gone; retention gives up versions by their rank among those that are left. A family that the
//! schema does not have *yet* (this node may hear of schema changes late) keeps everything.
//!
//! Compaction may take any run of tables that is without gaps in time. Then what is set and not deleted within the run
//! was truly there at its end, and what retention gave up was truly given up. If the run does not begin with the
//! tablet's oldest table, deletions stay ([`Fate::Deletes`]), and what retention gave up leaves a deletion
//! ([`Fate::GivenUp`]), lest older changes of the same version come to light again.

mod run;
mod sieve;

use std::cmp::Ordering;
use std::sync::Arc;

use model::{Bytes, Lsn};

use self::run::Run;
pub use self::sieve::{Fate, Sieve};
use crate::Error;
use crate::key::{self, Parts};
use crate::memtable::{MemoryCursor, Memtable};
use crate::reads::kept::{KeptCursor, KeptRow};
use crate::sstable::{Purpose, Table};

/// One of the things that are merged.
enum Source {
    Memory(MemoryCursor),
    Run(Box<Run>),
    Kept(KeptCursor),
}

impl Source {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Source::Memory(cursor) => cursor.key(),
            Source::Run(run) => run.key(),
            Source::Kept(cursor) => cursor.key(),
        }
    }

    fn value(&self) -> Bytes {
        match self {
            Source::Memory(cursor) => cursor.value(),
            Source::Run(run) => run.value(),
            Source::Kept(cursor) => cursor.value(),
        }
    }

    fn value_ref(&self) -> &[u8] {
        match self {
            Source::Memory(cursor) => cursor.value_ref(),
            Source::Run(run) => run.value_ref(),
            Source::Kept(cursor) => cursor.value_ref(),
        }
    }

    /// For messages.
    fn origin(&self) -> &str {
        match self {
            Source::Memory(_) => "memory",
            Source::Run(run) => run.path(),
            Source::Kept(_) => "a row in memory",
        }
    }

    fn seek(&mut self, target: &[u8], end: Option<&[u8]>) -> Result<(), Error> {
        match self {
            Source::Memory(cursor) => cursor.seek(target, end),
            Source::Run(run) => run.seek(target, end)?,
            Source::Kept(cursor) => cursor.seek(target),
        }
        Ok(())
    }

    fn seek_before(&mut self, target: Option<&[u8]>, start: &[u8]) -> Result<(), Error> {
        match self {
            Source::Memory(cursor) => cursor.seek_before(target, start),
            Source::Run(run) => run.seek_before(target, start)?,
            Source::Kept(cursor) => cursor.seek_before(target),
        }
        Ok(())
    }

    fn advance(&mut self, end: Option<&[u8]>) -> Result<(), Error> {
        match self {
            Source::Memory(cursor) => cursor.advance(end),
            Source::Run(run) => run.advance(end)?,
            Source::Kept(cursor) => cursor.advance(),
        }
        Ok(())
    }

    fn retreat(&mut self, start: &[u8]) -> Result<(), Error> {
        match self {
            Source::Memory(cursor) => cursor.retreat(start),
            Source::Run(run) => run.retreat(start)?,
            Source::Kept(cursor) => cursor.retreat(),
        }
        Ok(())
    }
}

/// All entries of some memtables and tables, in key order or against it. Stands on an entry, or is at the end. What several
/// have of the same key comes once: the deletion of a row lies in the tables of all its locality groups.
///
/// Sources stand in a sorted list, so that a step costs one comparison as long as neighbours come from the same place,
/// and else about as many as in a heap; what moves are numbers.
#[derive(Default)]
pub struct Merge {
    sources: Vec<Source>,
    /// Which of them stand on an entry; the last one's comes first of all.
    order: Vec<usize>,
    /// The last two stand on the same key.
    tied: bool,
    backwards: bool,
    /// Where it ends: entries beyond are not wanted, and may come or not. Nowhere without it.
    edge: Option<Vec<u8>>,
}

impl Merge {
    /// Adds a memtable as of `at`, from `start` up to `end`.
    pub fn add_memtable(&mut self, memtable: Arc<Memtable>, at: Lsn, start: &[u8], end: Option<Vec<u8>>) {
        let mut cursor = MemoryCursor::new(memtable, at);
        cursor.seek(start, end.as_deref());
        self.edge = end;
        self.sources.push(Source::Memory(cursor));
        self.insert(self.sources.len() - 1);
    }

    /// Adds a table, from `start` on.
    pub fn add_table(&mut self, table: Arc<Table>, start: &[u8], purpose: Purpose) -> Result<(), Error> {
        let mut run = Run::new(vec![table], purpose)?;
        run.seek(start, self.edge.as_deref())?;
        self.sources.push(Source::Run(Box::new(run)));
        self.insert(self.sources.len() - 1);
        Ok(())
    }

    /// Adds a memtable as of `at`, not yet placed.
    pub(crate) fn push_memtable(&mut self, memtable: Arc<Memtable>, at: Lsn) {
        self.sources.push(Source::Memory(MemoryCursor::new(memtable, at)));
    }

    /// Adds tables that follow each other in key order, not yet placed.
    pub(crate) fn push_run(&mut self, tables: Vec<Arc<Table>>, purpose: Purpose) -> Result<(), Error> {
        self.sources.push(Source::Run(Box::new(Run::new(tables, purpose)?)));
        Ok(())
    }

    /// Adds a row that is kept, not yet placed.
    pub(crate) fn push_kept(&mut self, row: Arc<KeptRow>) {
        self.sources.push(Source::Kept(KeptCursor::new(row)));
    }

    /// How many sources were added.
    pub(crate) fn len(&self) -> usize {
        self.sources.len()
    }

    /// Goes to the first key from `start` on, to go forwards from there up to `end`. Only the sources that `takes` says, by
    /// their numbers, take part. Once it has been placed, it may be placed further on, not further back.
    pub(crate) fn place(
        &mut self,
        start: &[u8],
        end: Option<&[u8]>,
        mut takes: impl FnMut(usize) -> bool,
    ) -> Result<(), Error> {
        self.turn(false, end);
        for number in (0..self.sources.len()).filter(|number| takes(*number)) {
            self.sources[number].seek(start, end)?;
            self.insert(number);
        }
        Ok(())
    }

    /// Goes to the last key before `end`, to go backwards from there as far as `start`.
    pub(crate) fn place_before(&mut self, end: Option<&[u8]>, start: &[u8]) -> Result<(), Error> {
        self.turn(true, Some(start));
        for number in 0..self.sources.len() {
            self.sources[number].seek_before(end, start)?;
            self.insert(number);
        }
        Ok(())
    }

    fn turn(&mut self, backwards: bool, edge: Option<&[u8]>) {
        self.order.clear();
        (self.tied, self.backwards, self.edge) = (false, backwards, edge.map(<[u8]>::to_vec));
    }

    /// Key of the entry it stands on.
    pub fn key(&self) -> Option<&[u8]> {
        self.order.last().and_then(|&first| self.sources[first].key())
    }

    /// What the key of the entry it stands on says.
    pub fn parts(&self) -> Result<Option<Parts<'_>>, Error> {
        let Some(&first) = self.order.last() else { return Ok(None) };
        let source = &self.sources[first];
        let parts = source.key().and_then(Parts::parse);
        parts.map(Some).ok_or_else(|| Error::corrupt(source.origin(), 0, "a key does not decode"))
    }

    /// The escaped row of that key, with its end.
    pub fn row(&self) -> Result<Option<&[u8]>, Error> {
        let Some(key) = self.key() else { return Ok(None) };
        let row = key::row_of(key);
        row.map(Some).ok_or_else(|| Error::corrupt(self.origin(), 0, "a key does not decode"))
    }

    /// Where the entry that it stands on is from, for messages.
    pub fn origin(&self) -> &str {
        self.order.last().map_or("", |&first| self.sources[first].origin())
    }

    /// Value of the entry it stands on; empty at the end.
    pub fn value(&self) -> Bytes {
        self.order.last().map(|&first| self.sources[first].value()).unwrap_or_default()
    }

    /// As [`Merge::value`], for those who do not keep it.
    pub fn value_ref(&self) -> &[u8] {
        self.order.last().map(|&first| self.sources[first].value_ref()).unwrap_or_default()
    }

    /// Goes on by one entry, in its direction.
    pub fn advance(&mut self) -> Result<(), Error> {
        loop {
            let Some(&first) = self.order.last() else { return Ok(()) };
            let more = self.tied;
            let (source, edge) = (&mut self.sources[first], self.edge.as_deref());
            match self.backwards {
                false => source.advance(edge)?,
                true => source.retreat(edge.unwrap_or_default())?,
            }
            self.settle();
            if !more {
                return Ok(());
            }
        }
    }

    /// Goes on to the first key that is not below `target`; only forwards.
    pub fn seek(&mut self, target: &[u8]) -> Result<(), Error> {
        while let Some(&first) = self.order.last()
            && self.sources[first].key().is_some_and(|key| key < target)
        {
            self.sources[first].seek(target, self.edge.as_deref())?;
            self.settle();
        }
        Ok(())
    }

    /// Goes back to the last key that is below `target`; only backwards.
    pub(crate) fn seek_back(&mut self, target: &[u8]) -> Result<(), Error> {
        while let Some(&first) = self.order.last()
            && self.sources[first].key().is_some_and(|key| key >= target)
        {
            self.sources[first].seek_before(Some(target), self.edge.as_deref().unwrap_or_default())?;
            self.settle();
        }
        Ok(())
    }

    /// The source that came first has moved: it finds its new place. Mostly that is the old one.
    fn settle(&mut self) {
        let Some(moved) = self.order.pop() else { return };
        match (self.sources[moved].key(), self.order.last()) {
            (Some(_), None) => {
                self.order.push(moved);
                self.tied = false;
            }
            (Some(key), Some(&next)) => match self.compare(Some(key), self.sources[next].key()) {
                Ordering::Greater => self.insert(moved),
                order => {
                    self.order.push(moved);
                    self.tied = order == Ordering::Equal;
                }
            },
            (None, _) => self.tie(),
        }
    }

    fn insert(&mut self, source: usize) {
        if let Some(key) = self.sources[source].key() {
            let later = |other: &usize| self.compare(self.sources[*other].key(), Some(key)) == Ordering::Greater;
            let at = self.order.partition_point(later);
            self.order.insert(at, source);
        }
        self.tie();
    }

    fn tie(&mut self) {
        self.tied = match self.order[..] {
            [.., next, first] => self.sources[next].key() == self.sources[first].key(),
            _ => false,
        };
    }

    /// Which comes first.
    fn compare(&self, a: Option<&[u8]>, b: Option<&[u8]>) -> Ordering {
        if self.backwards { b.cmp(&a) } else { a.cmp(&b) }
    }
}

#[cfg(test)]
mod tests;
