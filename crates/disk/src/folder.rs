//! The machine's own files below a folder that may be anybody's: to be read, and nothing else.

use std::fs::{self, File as StdFile};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::kernel::KernelFile;
use crate::{Disk, File, check_dir, check_name};

/// A folder of the machine, which is not locked and not changed: all that writes fails. Also one on a medium that cannot be
/// written, or that another process has.
#[derive(Debug)]
pub struct ReadOnly {
    root: PathBuf,
}

impl ReadOnly {
    /// The folder must be there.
    pub fn open(root: &Path) -> io::Result<ReadOnly> {
        match fs::metadata(root)?.is_dir() {
            true => Ok(ReadOnly { root: root.to_path_buf() }),
            false => Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no folder", root.display()))),
        }
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "this folder was opened to be read only"))
}

impl Disk for ReadOnly {
    fn create(&self, _: &str) -> io::Result<Arc<dyn File>> {
        refused()
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        check_name(path)?;
        // What is opened to be read is not written through either: the kernel sees to it.
        Ok(Arc::new(KernelFile::new(StdFile::open(self.root.join(path))?)))
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        check_dir(path)?;
        fs::exists(self.root.join(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        check_dir(dir)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(dir))? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn remove_dir_all(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn link(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("dir")).unwrap();
        fs::write(folder.path().join("dir/a"), b"12345").unwrap();
        let disk = ReadOnly::open(folder.path()).unwrap();
        let file = disk.open("dir/a").unwrap();
        let mut bytes = [0; 9];
        assert_eq!((file.read_at(1, &mut bytes).unwrap(), &bytes[..4], file.len().unwrap()), (4, &b"2345"[..], 5));
        assert!(file.write_at(0, b"x").is_err() && file.set_len(0).is_err());
        assert!(disk.exists("dir").unwrap() && !disk.exists("dir/b").unwrap());
        assert!(disk.create("b").is_err() && disk.remove("dir/a").is_err() && disk.open("../x").is_err());
        assert_eq!((disk.list("").unwrap(), disk.list("dir").unwrap()), (vec!["dir".into()], vec!["a".into()]));
        assert!(
            ReadOnly::open(&folder.path().join("dir/a")).is_err() && ReadOnly::open(&folder.path().join("x")).is_err()
        );
    }
}
