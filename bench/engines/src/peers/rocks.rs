//! RocksDB: leveled compaction, its defaults but for what all have in common.

use std::path::Path;

use anyhow::Result;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBPinnableSlice, FlushOptions, Options, ReadOptions,
    WaitForCompactOptions, WriteBatch, WriteOptions,
};

use crate::engine::{BLOCK, Each, Engine, FILTER_BITS, Reader, Settings, WORKERS};

pub struct Rocks {
    db: DB,
    durable: WriteOptions,
    plain: WriteOptions,
}

impl Rocks {
    pub fn open(folder: &Path, settings: &Settings) -> Result<Rocks> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(settings.cache));
        blocks.set_block_size(BLOCK);
        blocks.set_bloom_filter(FILTER_BITS as f64, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(settings.buffer);
        options.set_max_background_jobs(WORKERS as i32);
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        Ok(Rocks { db: DB::open(&options, folder)?, durable, plain: WriteOptions::default() })
    }
}

impl Engine for Rocks {
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        Ok(self.db.put_opt(key, value, if durable { &self.durable } else { &self.plain })?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.db.delete_opt(key, &self.plain)?)
    }

    fn put_many(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        pairs.iter().for_each(|(key, value)| batch.put(key, value));
        Ok(self.db.write_opt(batch, &self.plain)?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }

    fn settle(&self) -> Result<()> {
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        self.db.flush_opt(&flush)?;
        Ok(self.db.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(RocksReader { db: &self.db }))
    }
}

struct RocksReader<'a> {
    db: &'a DB,
}

impl Reader for RocksReader<'_> {
    fn get(&mut self, key: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value: Option<DBPinnableSlice<'_>> = self.db.get_pinned(key)?;
        Ok(value.map(|value| each(&value)).is_some())
    }

    fn scan(&mut self, from: &[u8], limit: usize, reverse: bool, each: Each<'_>) -> Result<()> {
        let mut iterator = self.db.raw_iterator_opt(ReadOptions::default());
        if reverse {
            iterator.seek_for_prev(from);
        } else {
            iterator.seek(from);
        }
        for _ in 0..limit {
            let Some((key, value)) = iterator.item() else { break };
            each(key, value);
            if reverse {
                iterator.prev();
            } else {
                iterator.next();
            }
        }
        Ok(iterator.status()?)
    }
}
