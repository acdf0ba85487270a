use std::io;
use std::sync::Arc;

use crate::{Disk, File, Hint, check_dir, check_name};

/// A folder of another disk, as a disk.
pub struct Below {
    disk: Arc<dyn Disk>,
    folder: String,
}

impl Below {
    /// The folder must be there.
    pub fn new(disk: Arc<dyn Disk>, folder: &str) -> io::Result<Below> {
        check_name(folder)?;
        match disk.exists(folder)? {
            true => Ok(Below { disk, folder: folder.to_owned() }),
            false => Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no folder {folder}"))),
        }
    }

    fn name(&self, path: &str) -> io::Result<String> {
        check_name(path)?;
        Ok(format!("{}/{path}", self.folder))
    }

    fn dir(&self, path: &str) -> io::Result<String> {
        check_dir(path)?;
        Ok(if path.is_empty() { self.folder.clone() } else { format!("{}/{path}", self.folder) })
    }
}

impl Disk for Below {
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.disk.create(&self.name(path)?)
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.disk.open(&self.name(path)?)
    }

    fn open_with(&self, path: &str, hint: Hint) -> io::Result<Arc<dyn File>> {
        self.disk.open_with(&self.name(path)?, hint)
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        self.disk.exists(&self.dir(path)?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(&self.dir(dir)?)
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir(&self.name(path)?)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(&self.name(path)?)
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        self.disk.remove_dir_all(&self.name(path)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.name(from)?, &self.name(to)?)
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.link(&self.name(from)?, &self.name(to)?)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(&self.dir(dir)?)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemDisk;

    #[test]
    fn passes_the_suite() {
        let disk = MemDisk::new();
        disk.create_dir("folder").unwrap();
        crate::suite::run(&Below::new(Arc::new(disk), "folder").unwrap());
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let disk = MemDisk::new();
        assert_eq!(Below::new(Arc::new(disk.clone()), "folder").err().unwrap().kind(), io::ErrorKind::NotFound);
        disk.create_dir("folder").unwrap();
        let below = Below::new(Arc::new(disk), "folder").unwrap();
        assert!(below.create("../x").is_err() && below.create("").is_err() && below.list("..").is_err());
    }
}
