//! Which master a folder belongs to: written once, before the log begins.
//!
//! ```text
//!   master.id = one frame: the master's number, and a number drawn by chance (postcard)
//! ```

use super::frames::Frames;
use super::log::{decode, encode};
use crate::host::chance;
use anyhow::ensure;
use disk::Disk;

const FILE: &str = "master.id";

/// The folder's own number, never 0; a new folder draws it. Fails if the folder is of another master.
pub fn of(disk: &dyn Disk, id: u64) -> anyhow::Result<u64> {
    if !disk.exists(FILE)? {
        ensure!(
            !disk.exists(super::log::FILE)?,
            "{} is there and {FILE} is not; replace this master",
            super::log::FILE
        );
        let folder = chance().max(1);
        Frames::replace(disk, FILE, &encode(&(id, folder)))?;
        return Ok(folder);
    }
    let mut found = None;
    Frames::open(disk, FILE, |body| {
        found = Some(decode::<(u64, u64)>(&body)?);
        Ok(())
    })?;
    let (owner, folder) = found.ok_or_else(|| anyhow::anyhow!("{FILE} is empty; replace this master"))?;
    ensure!(owner == id, "this is the data of master {owner}, not of master {id}; give --id {owner} or another folder");
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::MemDisk;

    /// A folder that was wiped is another one, and one that was not is the same, but only for its own master.
    #[test]
    fn a_folder_is_known_again() {
        let disk = MemDisk::new();
        let folder = of(&disk, 2).unwrap();
        disk.crash(1);
        assert_eq!(of(&disk, 2).unwrap(), folder);
        assert!(of(&disk, 3).unwrap_err().to_string().contains("master 2"));
        assert_ne!(of(&MemDisk::new(), 2).unwrap(), folder);
        disk.remove(FILE).unwrap();
        disk.create(super::super::log::FILE).unwrap();
        assert!(of(&disk, 2).is_err(), "a log without an owner");
    }
}
