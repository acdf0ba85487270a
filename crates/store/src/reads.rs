//! Reads rows from a merge, and looks at no more than it must.
//!
//! ```text
//!   Merge ──entries──▶ Wanted: is it of a wanted column? ──▶ Sieve: does it live? ──▶ a cell
//!     ▲                          │ no                          │ all wanted versions are taken
//!     └────────── seek ──────────┴─────────────────────────────┘
//! ```
//!
//! What may be passed over: columns that nobody wants, and of a column what follows its last wanted version. Not what
//! retention must count, nor any deletion that may cover what is wanted. A few steps are cheaper than a seek, so a seek
//! comes after those.

pub(crate) mod kept;
mod wanted;

use model::{Bytes, Cell, ReadOptions, Schema, Timestamp};

use self::wanted::{Place, Wanted};
use crate::Error;
use crate::key::{self, Parts, Scope};
use crate::merge::{Fate, Merge, Sieve};
use crate::sstable::{Table, filter};

/// Steps over unwanted entries before a seek.
const NEAR: u32 = 8;
/// Qualifiers of a row that are remembered, since the next row mostly has the same.
const MOST_KNOWN: usize = 64;
/// What looking at an entry counts, beside its bytes.
const ENTRY: u64 = 32;

/// Entries in key order.
pub(crate) trait Entries {
    /// Key of the entry it stands on.
    fn key(&self) -> Option<&[u8]>;
    /// Where that entry is from, for messages.
    fn origin(&self) -> &str;
    /// The value with it.
    fn value(&self) -> Bytes;
    /// Its length.
    fn value_len(&self) -> usize;
    /// Goes on by one entry.
    fn advance(&mut self) -> Result<(), Error>;
    /// Goes on to the first key that is not below `target`.
    fn seek(&mut self, target: &[u8]) -> Result<(), Error>;
}

impl Entries for Merge {
    fn key(&self) -> Option<&[u8]> {
        Merge::key(self)
    }

    fn origin(&self) -> &str {
        Merge::origin(self)
    }

    fn value(&self) -> Bytes {
        Merge::value(self)
    }

    fn value_len(&self) -> usize {
        self.value_ref().len()
    }

    fn advance(&mut self) -> Result<(), Error> {
        Merge::advance(self)
    }

    fn seek(&mut self, target: &[u8]) -> Result<(), Error> {
        Merge::seek(self, target)
    }
}

/// The last entries of a row, which were met one by one from the end. There are few.
#[derive(Default)]
pub(crate) struct Met {
    /// Their keys, one after the other, and where each ends; last keys first.
    keys: Vec<u8>,
    entries: Vec<(usize, Bytes)>,
}

impl Met {
    /// Begins anew.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.entries.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The one before those.
    pub fn push(&mut self, key: &[u8], value: Bytes) {
        self.keys.extend_from_slice(key);
        self.entries.push((self.keys.len(), value));
    }
}

impl Entries for Met {
    fn key(&self) -> Option<&[u8]> {
        let (end, _) = self.entries.last()?;
        let start = self.entries.len().checked_sub(2).map_or(0, |before| self.entries[before].0);
        Some(&self.keys[start..*end])
    }

    fn origin(&self) -> &str {
        ""
    }

    fn value(&self) -> Bytes {
        self.entries.last().map(|(_, value)| value.clone()).unwrap_or_default()
    }

    fn value_len(&self) -> usize {
        self.entries.last().map_or(0, |(_, value)| value.len())
    }

    fn advance(&mut self) -> Result<(), Error> {
        self.entries.pop();
        Ok(())
    }

    fn seek(&mut self, target: &[u8]) -> Result<(), Error> {
        while self.key().is_some_and(|key| key < target) {
            self.entries.pop();
        }
        Ok(())
    }
}

/// What to do after an entry.
enum Next {
    Step,
    /// Nothing more of its column is wanted.
    Column,
    /// Nothing is wanted of its column that is newer than what is asked for.
    Older(Timestamp),
    /// Nothing before that of its row.
    Span(usize),
}

/// Takes rows one after the other, each once.
pub(crate) struct Reader<'a> {
    options: &'a ReadOptions,
    schema: &'a Schema,
    sieve: Sieve<'a>,
    wanted: Wanted,
    target: Vec<u8>,
    /// Qualifiers of the cells of the rows before, by their place; `None` if they are not remembered.
    known: Option<Vec<Bytes>>,
    looked: u64,
}

impl<'a> Reader<'a> {
    /// Of a single row. Retention judges as of `now`.
    pub fn of_row(options: &'a ReadOptions, schema: &'a Schema, now: Timestamp) -> Reader<'a> {
        let (sieve, wanted) = (Sieve::new(schema, now), Wanted::new(options));
        Reader { options, schema, sieve, wanted, target: Vec::new(), known: None, looked: 0 }
    }

    /// Likewise of many, which mostly have the same columns.
    pub fn of_rows(options: &'a ReadOptions, schema: &'a Schema, now: Timestamp) -> Reader<'a> {
        Reader { known: Some(Vec::new()), ..Reader::of_row(options, schema, now) }
    }

    /// About how many bytes it has looked at.
    pub fn looked(&self) -> u64 {
        self.looked
    }

    /// Does it take whatever a row has?
    pub fn wants_all(&self) -> bool {
        let ReadOptions { columns, since, before, .. } = self.options;
        columns.is_empty() && since.is_none() && before.is_none()
    }

    /// May the table have anything of the row with this escaped key and [`filter::hash`] that matters to what is wanted?
    pub fn needs_of_row(&self, table: &Table, row: &[u8], hash: u64) -> Result<bool, Error> {
        let columns: Vec<filter::Column> = self.wanted.columns(hash).collect();
        let held = columns.is_empty() || columns.iter().any(|column| table.may_hold_column(row, column));
        Ok(held && self.needs(table) && table.may_hold_surely(row, hash)?)
    }

    /// May the table have anything that matters to what is wanted?
    pub fn needs(&self, table: &Table) -> bool {
        let families = self.wanted.families();
        if !families.is_empty() && !families.iter().any(|family| table.may_hold_family(*family)) {
            return false;
        }
        let ReadOptions { since, before, .. } = self.options;
        let deletes = &table.properties().deletes;
        // A deletion of a single version is of the time of that version.
        let (true, Some((least, greatest))) =
            (deletes.rows + deletes.families + deletes.columns == 0, table.timestamps())
        else {
            return true;
        };
        let too_old = since.is_some_and(|since| greatest < since);
        let too_new = before.is_some_and(|before| least >= before);
        // Retention that counts versions counts those too that are too new for the reader.
        let counts = |family: &model::Family| family.retention.counts();
        let passed_over = too_old || (too_new && !self.schema.families.iter().any(counts));
        !passed_over
    }

    /// What is left of the row with this escaped key, on whose first entry `entries` stands if it has any. Then they
    /// stand somewhere in the row, or after it.
    pub fn row(&mut self, entries: &mut impl Entries, row: &[u8]) -> Result<Vec<Cell>, Error> {
        let mut cells: Vec<Cell> = Vec::new();
        let (mut span, mut column, mut taken, mut near) = (0, self.sieve.column(), 0, 0);
        // All that is wanted of the column in which it is has been taken.
        let mut done = false;
        while let Some(key) = entries.key().filter(|key| key.starts_with(row)) {
            let wrong = || Error::corrupt(entries.origin(), 0, "a key does not decode");
            let parts = Parts::parse_in_row(key, row.len()).ok_or_else(wrong)?;
            self.looked += ENTRY + (key.len() + entries.value_len()) as u64;
            done &= self.sieve.is_in_column(&parts);
            let next = if done {
                Next::Column
            } else {
                match self.wanted.place(&mut span, &key[row.len()..]) {
                    Place::After => break,
                    Place::Before => Next::Span(span),
                    Place::Within => {
                        let fate = self.sieve.judge(&parts);
                        if column != self.sieve.column() {
                            (column, taken) = (self.sieve.column(), 0);
                        }
                        match parts.scope {
                            Scope::Cell { timestamp, .. } => {
                                let wanted = self.options.wants_time(timestamp) && taken < self.options.versions;
                                if fate == Fate::Lives && wanted {
                                    let qualifier = self.qualifier(&cells, taken > 0, parts.qualifier);
                                    let value = entries.value();
                                    cells.push(Cell { family: parts.family, qualifier, timestamp, value });
                                    taken += 1;
                                }
                                self.after_version(fate, timestamp, taken, &mut done)
                            }
                            Scope::Row | Scope::Family | Scope::Column => Next::Step,
                        }
                    }
                }
            };
            let column_len = parts.column_len();
            match next {
                Next::Step => {
                    near = 0;
                    entries.advance()?;
                }
                _ if near < NEAR => {
                    near += 1;
                    entries.advance()?;
                }
                Next::Column => self.seek(entries, column_len, |target, _| key::pass(target))?,
                Next::Older(timestamp) => {
                    self.seek(entries, column_len, |target, _| key::push_time(target, timestamp))?;
                }
                Next::Span(span) => {
                    self.seek(entries, row.len(), |target, wanted| target.extend_from_slice(wanted.start(span)))?;
                }
            }
        }
        Ok(cells)
    }

    /// Goes past the row with this escaped key, if the entries still stand in it.
    pub fn leave(&mut self, entries: &mut impl Entries, row: &[u8]) -> Result<(), Error> {
        let mut near = 0;
        while entries.key().is_some_and(|key| key.starts_with(row)) {
            self.looked += ENTRY;
            near += 1;
            if near <= NEAR {
                entries.advance()?
            } else {
                self.seek(entries, row.len(), |target, _| key::pass(target))?
            }
        }
        Ok(())
    }

    /// After a version was judged, when `taken` of its column have been taken.
    fn after_version(&self, fate: Fate, timestamp: Timestamp, taken: u32, done: &mut bool) -> Next {
        let ReadOptions { versions, since, before, .. } = self.options;
        *done = taken >= *versions || fate == Fate::GivenUp || since.is_some_and(|since| timestamp <= since);
        match before {
            Some(before) if !*done && timestamp >= *before && !self.sieve.counts() => {
                Next::Older(Timestamp(before.0.saturating_sub(1)))
            }
            _ => Next::Step,
        }
    }

    /// The qualifier of the next cell; `same` is true if it is of the same column as the last one.
    fn qualifier(&mut self, cells: &[Cell], same: bool, escaped: &[u8]) -> Bytes {
        if let (true, Some(last)) = (same, cells.last()) {
            return last.qualifier.clone();
        }
        match &mut self.known {
            Some(known) if cells.len() < MOST_KNOWN => {
                if known.len() <= cells.len() {
                    known.resize(cells.len() + 1, Bytes::new());
                }
                let known = &mut known[cells.len()];
                if !key::is_escaped_of(escaped, known) {
                    *known = key::unescape(escaped);
                }
                known.clone()
            }
            _ => key::unescape(escaped),
        }
    }

    /// On to a key that begins with so many bytes of the one that the entries stand on, and goes on as `finish` says.
    fn seek(
        &mut self,
        entries: &mut impl Entries,
        begins: usize,
        finish: impl FnOnce(&mut Vec<u8>, &Wanted),
    ) -> Result<(), Error> {
        self.target.clear();
        self.target.extend_from_slice(&entries.key().unwrap_or_default()[..begins]);
        finish(&mut self.target, &self.wanted);
        self.looked += ENTRY;
        entries.seek(&self.target)
    }
}

#[cfg(test)]
mod tests;
