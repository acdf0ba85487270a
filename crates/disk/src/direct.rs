//! Long reads that do not go through the kernel's memory (O_DIRECT), for work in the background.
//!
//! The kernel wants place, length and memory aligned. So a read goes through a buffer of ours; a short one, and one that the
//! file system refuses, goes the usual way. Writes always do.

use std::fs::{File as StdFile, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::OFlags;

use crate::File;
use crate::kernel::KernelFile;

/// No disk has larger blocks.
const ALIGN: usize = 4096;
/// What is read at a time.
const CHUNK: usize = 1 << 20;
/// Shorter reads are better served by what the kernel has read ahead.
const SHORT: usize = 64 << 10;

/// The file without the kernel's memory between, if the file system can do that.
pub fn open(path: &Path) -> Option<StdFile> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
    OpenOptions::new().read(true).custom_flags(flags).open(path).ok()
}

/// A file that is open twice.
pub struct DirectFile {
    usual: KernelFile,
    direct: StdFile,
    buffer: Mutex<Vec<u8>>,
}

impl DirectFile {
    pub fn new(usual: KernelFile, direct: StdFile) -> DirectFile {
        DirectFile { usual, direct, buffer: Mutex::new(Vec::new()) }
    }

    /// What lies at `offset`, as far as one piece goes; nothing at the end of the file.
    fn piece(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut buffer = self.buffer.lock();
        buffer.resize(CHUNK + ALIGN, 0);
        let skip = buffer.as_ptr().align_offset(ALIGN);
        let Some(aligned) = buffer.get_mut(skip..skip + CHUNK) else {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        };
        let within = (offset % ALIGN as u64) as usize;
        let len = (within + into.len()).next_multiple_of(ALIGN).min(CHUNK);
        let read = self.direct.read_at(&mut aligned[..len], offset - within as u64)?;
        let bytes = aligned.get(within..read).unwrap_or_default();
        let bytes = &bytes[..bytes.len().min(into.len())];
        into[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}

impl File for DirectFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while into.len() - done >= SHORT {
            match self.piece(offset + done as u64, &mut into[done..]) {
                Ok(0) => return Ok(done),
                Ok(read) => done += read,
                // Whatever it does not like: the usual way says what is really wrong.
                Err(_) => break,
            }
        }
        Ok(done + self.usual.read_at(offset + done as u64, &mut into[done..])?)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.usual.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.usual.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.usual.len()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.usual.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.usual.set_len(len)
    }
}
