//! Tablets as they were at one time, kept beside the node's own files: for a backup, at the price of a few names.
//!
//! ```text
//!   tables/00000031.sst ──hard link──▶ checkpoints/monday/tables/00000031.sst
//!                                      checkpoints/monday/manifest/7            what the view had flushed
//! ```
//!
//! A checkpoint has the layout of a node's folder without a log, so whatever reads the one reads the other
//! ([`crate::Keeper::open`], [`crate::fsck::check`], through [`disk::Below`]). Its files share their bytes with the node's as long as both are there. A
//! tablet belongs to it once its manifest is there; what is only in memory does not: flush before.

use std::sync::Arc;

use disk::Disk;

use crate::Error;
use crate::keeper::TABLES;
use crate::manifest::{self, Placed, State};
use crate::view::View;

/// The folder of all checkpoints.
pub const DIR: &str = "checkpoints";

/// A name that can be a folder: letters, digits, `-`, `_` and `.`, not beginning with a dot, at most 64 of them.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match name {
        "" => Err(String::from("a checkpoint needs a name")),
        name if name.len() > 64 || name.starts_with('.') || !name.bytes().all(allowed) => {
            Err(format!("{name:?} is no name of a checkpoint: use at most 64 letters, digits, '-', '_' and '.'"))
        }
        _ => Ok(()),
    }
}

/// Adds the view's tablet to the checkpoint of this name, in place of what it has of it. Gives the bytes of its tables.
pub(crate) fn add(disk: &Arc<dyn Disk>, name: &str, view: &View) -> Result<u64, Error> {
    let root = format!("{DIR}/{name}");
    let (tables, manifests) = (format!("{root}/{TABLES}"), format!("{root}/{}", manifest::DIR));
    for (dir, parent) in [(DIR, ""), (&root[..], DIR), (&tables[..], &root[..]), (&manifests[..], &root[..])] {
        disk.create_dir(dir).map_err(|source| Error::io(dir, "create", source))?;
        disk.sync_dir(parent).map_err(|source| Error::io(parent, "sync", source))?;
    }
    let mut bytes = 0;
    for table in view.version.tables() {
        if let Some(damage) = table.damage() {
            return Err(damage);
        }
        let to = format!("{root}/{}", table.path());
        // It may be there for another tablet that shares it, or from an attempt that a crash ended.
        if !disk.exists(&to).map_err(|source| Error::io(&to, "find", source))? {
            disk.link(table.path(), &to).map_err(|source| Error::io(&to, "link", source))?;
        }
        bytes += table.bytes();
    }
    disk.sync_dir(&tables).map_err(|source| Error::io(&tables, "sync", source))?;
    let placed = |(run, table): (_, &Arc<crate::sstable::Table>)| Placed { number: table.number(), run };
    let state = State {
        tablet: view.tablet(),
        tables: view.version.placed().map(placed).collect(),
        flushed: view.flushed(),
        note: view.note().clone(),
    };
    manifest::write_whole(&**disk, &manifests, &state)?;
    Ok(bytes)
}

/// Removes a checkpoint; well if it is not there. What the node still uses of it stays.
pub fn remove(disk: &Arc<dyn Disk>, name: &str) -> Result<(), Error> {
    let root = format!("{DIR}/{name}");
    if disk.exists(&root).map_err(|source| Error::io(&root, "find", source))? {
        disk.remove_dir_all(&root).map_err(|source| Error::io(&root, "remove", source))?;
        disk.sync_dir(DIR).map_err(|source| Error::io(DIR, "sync", source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        assert!(check_name("monday-1.2_x").is_ok());
        for bad in ["", "..", ".x", "a/b", "a b", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
