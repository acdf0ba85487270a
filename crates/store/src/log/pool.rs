//! Segments that nobody needs any more, kept to be used again.
//!
//! ```text
//!   00000003.log ──trimmed──▶ old-00000003.log ──▶ 00000012.log, the next spare
//! ```
//!
//! Syncing a write is cheaper where the file's blocks have been written before, and no new ones have to be found. What
//! they hold stays there until it is overwritten. It is never taken for records: a record is valid at its own place
//! only, the number of the segment included, and a file comes here only when it is trimmed, so that its next number is
//! higher than all that it ever had. A segment that was torn while it was begun is removed instead.

use std::io;
use std::sync::Arc;

use disk::Disk;

use super::segment::Segment;
use crate::Error;

/// How many are kept.
const KEEP: usize = 4;

/// The files that wait to be used again.
#[derive(Default)]
pub struct Pool {
    files: Vec<Old>,
}

struct Old {
    name: String,
    written: u32,
    /// What it was, as long as a reader, or a sync that hangs, may have it open.
    was: Option<Arc<Segment>>,
}

impl Old {
    fn is_free(&self) -> bool {
        self.was.as_ref().is_none_or(|was| Arc::strong_count(was) == 1)
    }
}

impl Pool {
    /// Those that an earlier life has left. Those that are of no use are removed: of another length, too many, or
    /// with a number that the log has not left behind.
    pub fn open(disk: &dyn Disk, dir: &str, len: u64, current: u32) -> Result<Pool, Error> {
        let mut pool = Pool::default();
        for name in disk.list(dir).map_err(|error| Error::io(dir, "list", error))? {
            let Some(number) = name.strip_prefix("old-").and_then(|name| name.strip_suffix(".log")) else { continue };
            let name = format!("{dir}/{name}");
            let useful = number.parse::<u32>().is_ok_and(|number| number < current) && pool.files.len() < KEEP;
            if useful && disk.open(&name).and_then(|file| file.len()).is_ok_and(|there| there == len) {
                pool.files.push(Old { name, written: 0, was: None });
            } else {
                disk.remove(&name).map_err(|error| Error::io(&name, "remove", error))?;
            }
        }
        Ok(pool)
    }

    /// Takes the name of a segment away, durably once the folder is synced: keeps the file, or removes it.
    pub fn put(&mut self, disk: &dyn Disk, dir: &str, len: u64, segment: Arc<Segment>) -> Result<(), Error> {
        let keep = segment.len == len && self.files.len() < KEEP;
        let name = format!("{dir}/old-{:08}.log", segment.number);
        let gone = if keep { disk.rename(&segment.name, &name) } else { disk.remove(&segment.name) };
        match gone {
            Ok(()) if keep => {
                self.files.push(Old { name, written: segment.written(), was: Some(segment) });
                Ok(())
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&segment.name, "remove", error)),
            _ => Ok(()),
        }
    }

    /// One of them as the segment of this number, durably.
    pub fn take(&mut self, disk: &dyn Disk, dir: &str, number: u32) -> Result<Option<Segment>, Error> {
        let Some(free) = self.files.iter().position(Old::is_free) else { return Ok(None) };
        let old = self.files.swap_remove(free);
        let name = Segment::name(dir, number);
        disk.rename(&old.name, &name).map_err(|error| Error::io(&old.name, "rename", error))?;
        disk.sync_dir(dir).map_err(|error| Error::io(dir, "sync", error))?;
        let segment = Segment::open(disk, dir, number)?;
        segment.set_written(old.written);
        Ok(Some(segment))
    }
}
