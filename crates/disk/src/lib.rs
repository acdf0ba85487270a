//! The one door to the disk: files and folders below a root, and what of them survives a crash.
//!
//! ```text
//!   Disk ──create, open──▶ File     read_at, write_at: at once visible, durable after sync()
//!    │
//!    └──names: create, link, rename, remove: at once visible, durable after sync_dir() of the folder they are in
//! ```
//!
//! [`KernelDisk`] is the machine's; [`MemDisk`] lives in memory, forgets what was not synced, tears, rots and fills.
//! [`Below`] is a folder of either. [`ReadOnly`] is a folder that may be anybody's. The others pass the same [`suite`]. Paths are relative to the root and separated by `/`; the root itself is `""`.
//! Nothing here caches, buffers or retries: what a call returns is what the disk said.

// This crate is the door that the lint guards.
#![allow(clippy::disallowed_methods)]

mod below;
mod direct;
mod folder;
mod kernel;
mod memory;
pub mod suite;

use std::io;
use std::sync::Arc;

pub use below::Below;
pub use folder::ReadOnly;
pub use kernel::KernelDisk;
pub use memory::MemDisk;

/// How a file will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Here and there: nothing is to be read ahead.
    Random,
    /// From the beginning to the end.
    Sequential,
    /// Once, in long pieces, by somebody who must not drive what others read out of the kernel's memory.
    Direct,
}

/// Files and folders below one root.
pub trait Disk: Send + Sync {
    /// A new, empty file, open to read and write. Empties the file of that name if there is one; the parent must exist.
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>>;
    /// A file that is there, open to read and write.
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>>;
    /// A file that is there, to be read in that way. What is read is the same.
    fn open_with(&self, path: &str, hint: Hint) -> io::Result<Arc<dyn File>> {
        let _ = hint;
        self.open(path)
    }
    /// Whether a file or folder of that name is there.
    fn exists(&self, path: &str) -> io::Result<bool>;
    /// The names (not paths) of the files and folders in `dir`, sorted.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Creates a folder; well if it is there. The parent must exist.
    fn create_dir(&self, path: &str) -> io::Result<()>;
    /// Removes a file. Whoever has it open may read on.
    fn remove(&self, path: &str) -> io::Result<()>;
    /// Removes a folder and all that is in it.
    fn remove_dir_all(&self, path: &str) -> io::Result<()>;
    /// Gives a file another name, at once and in place of the file that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Gives a file one more name, under which it lives on when the first is removed: what is written by one name is read
    /// by the other. Fails with `AlreadyExists` if something has that name.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    /// Names that were created, linked, renamed or removed in `dir` are durable when it returns.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Bytes that may still be written.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. All calls take their place, so one file serves many threads.
pub trait File: Send + Sync {
    /// Reads from `offset` and says how much; less than asked for only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`; a gap before `offset` reads as zeros. After an error any part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Everything written, and the length, is durable when it returns. After an error what was written since the
    /// last sync may be lost even if a later sync succeeds.
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reserves room up to `len` and extends the file with zeros to it, so that writes below find room. Never shrinks.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// Checks the path of a folder: relative, without empty parts, `.` and `..`. The root is `""`.
fn check_dir(path: &str) -> io::Result<()> {
    let part_is_bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
    if !path.is_empty() && path.split('/').any(part_is_bad) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is not a path below the root")));
    }
    Ok(())
}

/// Checks the path of something below the root.
fn check_name(path: &str) -> io::Result<()> {
    if path.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root itself is not to be changed"));
    }
    check_dir(path)
}
