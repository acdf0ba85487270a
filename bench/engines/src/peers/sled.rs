//! sled: a log-structured tree without compression by LZ4. What is not synced lies in its own buffers, of which it
//! writes one when it is full or half a second old.
//!
//! Its `flush` ends with `sync_file_range`, which asks neither the file system for what it has to log nor the disk for
//! what it has cached: a crash may take what was flushed. So that a synced write is one here too, an `fdatasync` follows.

use std::fs::File;
use std::path::Path;

use ::sled::{Config, Db, IVec, Mode, Tree};
use anyhow::Result;

use crate::engine::{Each, Engine, Reader, Settings};

pub struct Sled {
    _db: Db,
    pairs: Tree,
    file: File,
}

impl Sled {
    pub fn open(folder: &Path, settings: &Settings) -> Result<Sled> {
        let config = Config::new().path(folder).cache_capacity(settings.cache as u64).mode(Mode::HighThroughput);
        let db = config.open()?;
        Ok(Sled { pairs: db.open_tree("pairs")?, _db: db, file: File::open(folder.join("db"))? })
    }
}

impl Engine for Sled {
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        self.pairs.insert(key, value)?;
        if durable { self.sync() } else { Ok(()) }
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.pairs.remove(key)?;
        Ok(())
    }

    fn put_many(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = ::sled::Batch::default();
        pairs.iter().for_each(|(key, value)| batch.insert(&key[..], &value[..]));
        Ok(self.pairs.apply_batch(batch)?)
    }

    fn sync(&self) -> Result<()> {
        self.pairs.flush()?;
        Ok(self.file.sync_data()?)
    }

    fn settle(&self) -> Result<()> {
        self.sync()
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(SledReader { pairs: &self.pairs }))
    }
}

struct SledReader<'a> {
    pairs: &'a Tree,
}

impl Reader for SledReader<'_> {
    fn get(&mut self, key: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.pairs.get(key)?.map(|value| each(&value)).is_some())
    }

    fn scan(&mut self, from: &[u8], limit: usize, reverse: bool, each: Each<'_>) -> Result<()> {
        let mut give = |pair: ::sled::Result<(IVec, IVec)>| -> Result<()> {
            let (key, value) = pair?;
            each(&key, &value);
            Ok(())
        };
        if reverse {
            self.pairs.range(..=from).rev().take(limit).try_for_each(&mut give)
        } else {
            self.pairs.range(from..).take(limit).try_for_each(&mut give)
        }
    }
}
