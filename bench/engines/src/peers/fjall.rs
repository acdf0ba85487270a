//! fjall: an LSM tree in Rust; leveled compaction, its defaults but for what all have in common.

use std::path::Path;
use std::time::{Duration, Instant};

use ::fjall::config::{BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use ::fjall::{CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};
use anyhow::Result;

use crate::engine::{BLOCK, Each, Engine, FILTER_BITS, Reader, Settings, WORKERS};

/// So long nothing may happen before it counts as settled: it does not say what is due.
const QUIET: Duration = Duration::from_millis(200);

pub struct Fjall {
    db: Database,
    keyspace: Keyspace,
}

impl Fjall {
    pub fn open(folder: &Path, settings: &Settings) -> Result<Fjall> {
        let mut builder = Database::builder(folder).cache_size(settings.cache as u64).worker_threads(WORKERS);
        if settings.log_only {
            builder = builder.max_journaling_size(settings.buffer as u64 * 2);
        }
        let db = builder.open()?;
        let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS as f32));
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(settings.buffer as u64)
                .data_block_size_policy(BlockSizePolicy::all(BLOCK as u32))
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
                .filter_policy(FilterPolicy::all(filter))
        };
        let keyspace = db.keyspace("pairs", options)?;
        Ok(Fjall { db, keyspace })
    }
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        self.keyspace.insert(key, value)?;
        if durable { self.sync() } else { Ok(()) }
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.keyspace.remove(key)?)
    }

    fn put_many(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = self.db.batch();
        pairs.iter().for_each(|(key, value)| batch.insert(&self.keyspace, &key[..], &value[..]));
        Ok(batch.commit()?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn settle(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        let (mut quiet_since, mut completed) = (Instant::now(), self.db.compactions_completed());
        while quiet_since.elapsed() < QUIET {
            std::thread::sleep(Duration::from_millis(5));
            let now = self.db.compactions_completed();
            let busy = self.db.active_compactions() > 0 || self.db.outstanding_flushes() > 0;
            if busy || now != completed {
                (quiet_since, completed) = (Instant::now(), now);
            }
        }
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(FjallReader { keyspace: &self.keyspace }))
    }
}

struct FjallReader<'a> {
    keyspace: &'a Keyspace,
}

impl Reader for FjallReader<'_> {
    fn get(&mut self, key: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.keyspace.get(key)?.map(|value| each(&value)).is_some())
    }

    fn scan(&mut self, from: &[u8], limit: usize, reverse: bool, each: Each<'_>) -> Result<()> {
        let mut give = |guard: Guard| -> Result<()> {
            let (key, value) = guard.into_inner()?;
            each(&key, &value);
            Ok(())
        };
        if reverse {
            self.keyspace.range(..=from).rev().take(limit).try_for_each(&mut give)
        } else {
            self.keyspace.range(from..).take(limit).try_for_each(&mut give)
        }
    }
}
