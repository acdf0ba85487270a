//! The machine's own files, below a folder that one process has for itself.

use std::fs::{self, File as StdFile, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, statvfs};
use rustix::io::Errno;

use crate::direct::{self, DirectFile};
use crate::{Disk, File, Hint, check_dir, check_name};

const LOCK: &str = "LOCK";

/// A folder of the machine, locked against other processes for as long as this value lives.
#[derive(Debug)]
pub struct KernelDisk {
    root: PathBuf,
    /// Holds the lock; the kernel lets go of it with the process, however that ends.
    _lock: StdFile,
}

impl KernelDisk {
    /// Creates `root` if need be and locks it. Fails with `WouldBlock` if another process has it.
    pub fn open(root: &Path) -> io::Result<KernelDisk> {
        fs::create_dir_all(root)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(root.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(KernelDisk { root: root.to_path_buf(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("another process uses {}; stop it, or choose another data folder", root.display()),
            )),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Can files of this folder, which is open, be read past the kernel's memory ([`Hint::Direct`])? If not, that hint does
    /// nothing.
    pub fn reads_directly(root: &Path) -> bool {
        direct::open(&root.join(LOCK)).is_some()
    }

    fn dir(&self, path: &str) -> io::Result<PathBuf> {
        check_dir(path)?;
        Ok(self.root.join(path))
    }

    fn at(&self, path: &str) -> io::Result<PathBuf> {
        check_name(path)?;
        Ok(self.root.join(path))
    }
}

impl Disk for KernelDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.at(path)?)?;
        Ok(Arc::new(KernelFile(file)))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(KernelFile(OpenOptions::new().read(true).write(true).open(self.at(path)?)?)))
    }

    fn open_with(&self, path: &str, hint: Hint) -> io::Result<Arc<dyn File>> {
        let path = self.at(path)?;
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let advice = match hint {
            Hint::Random => Advice::Random,
            Hint::Sequential => Advice::Sequential,
            Hint::Direct => match direct::open(&path) {
                Some(direct) => return Ok(Arc::new(DirectFile::new(KernelFile(file), direct))),
                None => Advice::Sequential,
            },
        };
        // Advice that nobody takes is no error.
        let _ = fadvise(&file, 0, None, advice);
        Ok(Arc::new(KernelFile(file)))
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        fs::exists(self.dir(path)?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.dir(dir)?)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string()
                && (!dir.is_empty() || name != LOCK)
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        let path = self.at(path)?;
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.at(path)?)
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        fs::remove_dir_all(self.at(path)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from)?, self.at(to)?)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        fs::hard_link(self.at(from)?, self.at(to)?)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        StdFile::open(self.dir(dir)?)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let room = statvfs(&self.root)?;
        Ok(room.f_bavail.saturating_mul(room.f_frsize))
    }
}

/// An open file of the machine.
pub struct KernelFile(StdFile);

impl KernelFile {
    pub(crate) fn new(file: StdFile) -> KernelFile {
        KernelFile(file)
    }
}

impl File for KernelFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.0.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // A file system without reservations: the length at least is right, and a full disk shows at the write.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) if self.len()? < len => self.0.set_len(len),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_suite() {
        let folder = tempfile::tempdir().unwrap();
        crate::suite::run(&KernelDisk::open(folder.path()).unwrap());
    }

    #[test]
    fn one_folder_serves_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = KernelDisk::open(folder.path()).unwrap();
        let second = KernelDisk::open(folder.path()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        assert!(second.to_string().contains("another process"));
        drop(first);
        KernelDisk::open(folder.path()).unwrap();
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let disk = KernelDisk::open(&folder.path().join("a")).unwrap();
        for path in ["../b", "/etc/passwd", "x/../../b", "x//y", "."] {
            assert_eq!(disk.create(path).err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput), "{path}");
        }
    }
}
