//! Where a flush or a merge writes: sorted entries go to a table of the locality group that their family is in.
//!
//! ```text
//!   entries by key ──▶ locality of the family ──▶ writer ──▶ tables/00000031.sst, 32.sst …   of one run
//!                  └─ the row is deleted ──▶ all of them
//! ```
//!
//! A table ends at the first row that begins when it is large enough, so a row lies in one table of a run. What has been
//! written counts for nothing before a manifest names it; if the job fails, it is removed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{LocalityId, Lsn, RunId, Schema, TabletId, Timestamp};

use crate::Error;
use crate::keeper::Keeper;
use crate::key::{Parts, Scope};
use crate::sstable::{Shape, Table, Writer};

/// What all tables of an output have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// Whose rows.
    pub tablet: TabletId,
    /// They have what came after this,
    pub after: Lsn,
    /// up to this.
    pub upto: Lsn,
    /// The latest version that a primary had chosen by then.
    pub clock: Timestamp,
}

/// All locality groups in which the schema has families, and the default one.
pub(crate) fn localities(schema: &Schema) -> BTreeSet<LocalityId> {
    let families = schema.all_families().map(|family| schema.locality_of(family.id));
    families.chain([LocalityId::default()]).collect()
}

/// A writer per locality group.
pub(crate) struct Output<'a> {
    keeper: &'a Keeper,
    schema: &'a Schema,
    origin: Origin,
    /// The run that the tables belong to, but for its locality group.
    into: RunId,
    /// Groups that learn of a deleted row.
    localities: BTreeSet<LocalityId>,
    open: BTreeMap<LocalityId, Open>,
    done: Vec<(RunId, Arc<Table>)>,
    /// Numbers of all files that were begun.
    begun: Vec<u64>,
}

struct Open {
    writer: Writer,
    number: u64,
    row: Vec<u8>,
    /// What the pace has been told of.
    told: u64,
}

impl<'a> Output<'a> {
    /// Begins nothing yet. A deleted row is told to these locality groups.
    pub fn new(
        keeper: &'a Keeper,
        schema: &'a Schema,
        origin: Origin,
        into: RunId,
        localities: BTreeSet<LocalityId>,
    ) -> Output<'a> {
        Output { keeper, schema, origin, into, localities, open: BTreeMap::new(), done: Vec::new(), begun: Vec::new() }
    }

    /// Adds an entry; keys must rise.
    pub fn add(&mut self, parts: &Parts<'_>, key: &[u8], value: &[u8]) -> Result<(), Error> {
        if parts.scope != Scope::Row {
            return self.put(self.schema.locality_of(parts.family), parts.row, key, value);
        }
        let localities = std::mem::take(&mut self.localities);
        let told = localities.iter().try_for_each(|&locality| self.put(locality, parts.row, key, value));
        self.localities = localities;
        told
    }

    fn put(&mut self, locality: LocalityId, row: &[u8], key: &[u8], value: &[u8]) -> Result<(), Error> {
        if let Some(open) = self.open.get_mut(&locality)
            && open.writer.bytes() >= self.keeper.table_bytes()
            && open.row != row
        {
            self.end(locality)?;
        }
        let open = match self.open.entry(locality) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(vacant) => {
                let (number, path) = self.keeper.next_path();
                self.begun.push(number);
                let Origin { tablet, after, upto, clock } = self.origin;
                let shape = Shape { tablet, after, upto, clock, locality: &self.schema.locality(locality) };
                let writer = Writer::create(self.keeper.disk(), path, shape)?;
                vacant.insert(Open { writer, number, row: Vec::new(), told: 0 })
            }
        };
        if open.row != row {
            open.row.clear();
            open.row.extend_from_slice(row);
        }
        open.writer.add(key, value)?;
        let bytes = open.writer.bytes();
        if bytes > open.told {
            self.keeper.pace(bytes - open.told);
            open.told = bytes;
        }
        Ok(())
    }

    /// The next entries are apart from those before: tables end here.
    pub fn cut(&mut self) -> Result<(), Error> {
        while let Some((&locality, _)) = self.open.first_key_value() {
            self.end(locality)?;
        }
        Ok(())
    }

    fn end(&mut self, locality: LocalityId) -> Result<(), Error> {
        let Some(Open { writer, number, .. }) = self.open.remove(&locality) else { return Ok(()) };
        let (file, path) = writer.finish()?;
        let table = self.keeper.open_written(file, path, number)?;
        self.done.push((RunId { locality, ..self.into }, table));
        Ok(())
    }

    /// Ends all tables. Their names are synced; the caller makes a manifest name them.
    pub fn finish(mut self) -> Result<Vec<(RunId, Arc<Table>)>, Error> {
        self.cut()?;
        if !self.done.is_empty() {
            self.keeper.sync_tables()?;
        }
        self.begun.clear();
        Ok(std::mem::take(&mut self.done))
    }
}

impl Drop for Output<'_> {
    /// Of what was not finished no file is left behind.
    fn drop(&mut self) {
        self.open.clear();
        self.done.clear();
        self.keeper.forget(&self.begun);
    }
}
