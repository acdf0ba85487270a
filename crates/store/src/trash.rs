//! Files that nobody needs any more, kept for a while: whoever removed them may have been wrong.
//!
//! ```text
//!   tables/00000007.sst ──put──▶ trash/1700000000-tables-00000007.sst ──empty, when it is old──▶ gone
//! ```
//!
//! The name says when: seconds since 1970. The date is an argument, as everywhere. What lies here counts for nothing: an
//! operator may copy it back by hand while the node is stopped.

use std::io;

use disk::Disk;
use model::Timestamp;

use crate::Error;

/// The folder.
pub const DIR: &str = "trash";

/// Something that was thrown away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its path.
    pub path: String,
    /// When it was thrown away, to the second.
    pub date: Timestamp,
    /// Its size.
    pub bytes: u64,
}

/// Moves the file into the trash; well if it is gone already. Durable once both folders are synced.
pub fn put(disk: &dyn Disk, path: &str, date: Timestamp) -> Result<(), Error> {
    disk.create_dir(DIR).map_err(|source| Error::io(DIR, "create", source))?;
    let to = format!("{DIR}/{}-{}", seconds(date), path.replace('/', "-"));
    match disk.rename(path, &to) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::io(path, "throw away", source)),
        _ => Ok(()),
    }
}

/// All that lies in it, oldest first.
pub fn list(disk: &dyn Disk) -> Result<Vec<Item>, Error> {
    if !disk.exists(DIR).map_err(|source| Error::io(DIR, "find", source))? {
        return Ok(Vec::new());
    }
    let mut items = Vec::new();
    for name in disk.list(DIR).map_err(|source| Error::io(DIR, "list", source))? {
        // What does not bear a date is none of ours.
        let Some(seconds) = name.split('-').next().and_then(|date| date.parse::<i64>().ok()) else { continue };
        let path = format!("{DIR}/{name}");
        let bytes = disk.open(&path).and_then(|file| file.len()).unwrap_or(0);
        items.push(Item { path, date: Timestamp(seconds.saturating_mul(1_000_000)), bytes });
    }
    items.sort_by_key(|item| item.date);
    Ok(items)
}

/// Removes what was thrown away before `until`, oldest first, until `most` bytes are gone. Gives the bytes, and whether
/// there is more.
pub fn empty(disk: &dyn Disk, until: Timestamp, most: u64) -> Result<(u64, bool), Error> {
    let mut freed = 0;
    for item in list(disk)?.into_iter().take_while(|item| item.date < until) {
        if freed >= most {
            return Ok((freed, true));
        }
        disk.remove(&item.path).map_err(|source| Error::io(&item.path, "remove", source))?;
        freed += item.bytes;
    }
    Ok((freed, false))
}

fn seconds(date: Timestamp) -> i64 {
    date.0.div_euclid(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::MemDisk;

    const DAY: i64 = 86_400_000_000;

    #[test]
    fn what_is_thrown_away_goes_when_it_is_old() {
        let disk = MemDisk::new();
        disk.create_dir("tables").unwrap();
        for (name, date) in [("tables/1.sst", 3 * DAY), ("tables/2.sst", 2 * DAY)] {
            disk.create(name).unwrap().write_at(0, b"12345").unwrap();
            put(&disk, name, Timestamp(date)).unwrap();
            put(&disk, name, Timestamp(date)).unwrap();
        }
        assert_eq!(disk.list("tables").unwrap(), [""; 0]);
        let items: Vec<String> = list(&disk).unwrap().into_iter().map(|item| item.path).collect();
        assert_eq!(items, ["trash/172800-tables-2.sst", "trash/259200-tables-1.sst"]);
        assert_eq!(empty(&disk, Timestamp(2 * DAY), u64::MAX).unwrap(), (0, false));
        assert_eq!(empty(&disk, Timestamp(i64::MAX), 1).unwrap(), (5, true));
        assert_eq!(empty(&disk, Timestamp(i64::MAX), 1).unwrap(), (5, false));
        assert_eq!(list(&disk).unwrap(), []);
    }
}
