//! One file of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use disk::{Disk, File};

use super::format::Place;
use crate::Error;

/// A file of the log, open.
pub struct Segment {
    pub number: u32,
    /// Path on the disk.
    pub name: String,
    pub file: Arc<dyn File>,
    pub len: u64,
    /// Its blocks have been written, with whatever, at least up to this offset.
    written: AtomicU32,
}

impl Segment {
    pub fn name(dir: &str, number: u32) -> String {
        format!("{dir}/{number:08}.log")
    }

    /// A segment that is there.
    pub fn open(disk: &dyn Disk, dir: &str, number: u32) -> Result<Segment, Error> {
        let name = Segment::name(dir, number);
        let opened = disk.open(&name).and_then(|file| file.len().map(|len| (file, len)));
        let (file, len) = opened.map_err(|error| Error::io(&name, "open", error))?;
        // A place has 32 bits for the offset; we never write a longer one.
        let len = len.min(u64::from(u32::MAX));
        Ok(Segment { number, name, file, len, written: AtomicU32::new(0) })
    }

    /// A new segment of zeros, durable, or none at all.
    pub fn create(disk: &dyn Disk, dir: &str, number: u32, len: u64) -> Result<Segment, Error> {
        let name = Segment::name(dir, number);
        let create = || {
            let file = disk.create(&name)?;
            file.allocate(len)?;
            // Now, so that the first group commit in it has no length and no blocks to write.
            file.sync()?;
            disk.sync_dir(dir)?;
            Ok(file)
        };
        match create() {
            Ok(file) => Ok(Segment { number, name, file, len, written: AtomicU32::new(0) }),
            Err(error) => {
                // What is left of it is in the way of nothing but room; the next attempt empties it first.
                let _ = disk.remove(&name);
                Err(Error::io(name, "allocate", error))
            }
        }
    }

    /// Makes it at least `len` bytes long, durably.
    pub fn extend(&mut self, len: u64) -> Result<(), Error> {
        if self.len < len {
            let extended = self.file.allocate(len).and_then(|()| self.file.sync());
            extended.map_err(|error| Error::io(&self.name, "allocate", error))?;
            self.len = len;
        }
        Ok(())
    }

    pub fn place(&self, offset: u32) -> Place {
        Place { segment: self.number, offset }
    }

    pub fn written(&self) -> u32 {
        self.written.load(Ordering::Relaxed)
    }

    pub fn set_written(&self, offset: u32) {
        self.written.fetch_max(offset, Ordering::Relaxed);
    }
}
