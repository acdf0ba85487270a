//! No engine: the same bytes, one after the other, in a file. What the disk can do.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Result, bail};
use parking_lot::Mutex;

use crate::engine::{Engine, Reader};

/// Bytes of one write.
const WRITE: usize = 1 << 20;

pub struct Plain(Mutex<BufWriter<File>>);

impl Plain {
    pub fn open(folder: &Path) -> Result<Plain> {
        Ok(Plain(Mutex::new(BufWriter::with_capacity(WRITE, File::create(folder.join("plain"))?))))
    }
}

impl Engine for Plain {
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        let mut file = self.0.lock();
        file.write_all(key)?;
        file.write_all(value)?;
        drop(file);
        if durable { self.sync() } else { Ok(()) }
    }

    fn delete(&self, _: &[u8]) -> Result<()> {
        bail!("a plain file deletes nothing")
    }

    fn put_many(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        pairs.iter().try_for_each(|(key, value)| self.put(key, value, false))
    }

    fn sync(&self) -> Result<()> {
        let mut file = self.0.lock();
        file.flush()?;
        Ok(file.get_ref().sync_data()?)
    }

    fn settle(&self) -> Result<()> {
        self.sync()
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        bail!("a plain file is not read")
    }
}
