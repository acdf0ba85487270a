//! redb: a copy-on-write B-tree without a write-ahead log. What is not synced is a commit without durability, and every
//! so many of these a durable one, without which it cannot use the room of old pages again.

use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use ::redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};
use anyhow::Result;

use crate::engine::{Each, Engine, Reader, Settings};

const PAIRS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("pairs");
/// Commits without durability, and then one with it.
const DURABLE_EVERY: u64 = 10_000;

pub struct Redb {
    db: Database,
    commits: AtomicU64,
    read_only: bool,
}

impl Redb {
    pub fn open(folder: &Path, settings: &Settings) -> Result<Redb> {
        let db = Database::builder().set_cache_size(settings.cache).create(folder.join("pairs.redb"))?;
        let redb = Redb { db, commits: AtomicU64::new(0), read_only: settings.read_only };
        if !settings.read_only {
            redb.sync()?;
        }
        Ok(redb)
    }

    fn write<'a>(&self, durable: bool, pairs: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Result<()> {
        let mut write = self.db.begin_write()?;
        let durable = durable || self.commits.fetch_add(1, Ordering::Relaxed) % DURABLE_EVERY == DURABLE_EVERY - 1;
        write.set_durability(if durable { Durability::Immediate } else { Durability::None })?;
        let mut table = write.open_table(PAIRS)?;
        for (key, value) in pairs {
            match value {
                Some(value) => _ = table.insert(key, value)?,
                None => _ = table.remove(key)?,
            }
        }
        drop(table);
        Ok(write.commit()?)
    }

    fn table(&self) -> Result<ReadOnlyTable<&'static [u8], &'static [u8]>> {
        Ok(self.db.begin_read()?.open_table(PAIRS)?)
    }
}

impl Engine for Redb {
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        self.write(durable, [(key, Some(value))].into_iter())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(false, [(key, None)].into_iter())
    }

    fn put_many(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.write(false, pairs.iter().map(|(key, value)| (&key[..], Some(&value[..]))))
    }

    fn sync(&self) -> Result<()> {
        self.write(true, std::iter::empty())
    }

    fn settle(&self) -> Result<()> {
        self.sync()
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        // Nothing changes while it is read: one transaction serves all reads.
        let table = if self.read_only { Some(self.table()?) } else { None };
        Ok(Box::new(RedbReader { redb: self, table }))
    }
}

struct RedbReader<'a> {
    redb: &'a Redb,
    table: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl RedbReader<'_> {
    fn with<T>(&self, read: impl FnOnce(&ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T>) -> Result<T> {
        match &self.table {
            Some(table) => read(table),
            None => read(&self.redb.table()?),
        }
    }
}

impl Reader for RedbReader<'_> {
    fn get(&mut self, key: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.with(|table| Ok(table.get(key)?.map(|value| each(value.value())).is_some()))
    }

    fn scan(&mut self, from: &[u8], limit: usize, reverse: bool, each: Each<'_>) -> Result<()> {
        self.with(|table| {
            let mut left = limit;
            if reverse {
                let mut range = table.range::<&[u8]>((Bound::Unbounded, Bound::Included(from)))?;
                while left > 0
                    && let Some(pair) = range.next_back()
                {
                    let (key, value) = pair?;
                    each(key.value(), value.value());
                    left -= 1;
                }
            } else {
                let mut range = table.range::<&[u8]>(from..)?;
                while left > 0
                    && let Some(pair) = range.next()
                {
                    let (key, value) = pair?;
                    each(key.value(), value.value());
                    left -= 1;
                }
            }
            Ok(())
        })
    }
}
