//! Tablets as they were at one time, kept beside the node's own files: for a backup, at the price of a few names.
//!
//! ```text
//!   tables/00000031.sst ──hard link──▶ checkpoints/monday/tables/00000031.sst
//!                                      checkpoints/monday/manifest/7            what the view had flushed
//!                                      checkpoints/monday/parts/7               whose it is: table, slice, up to where
//!                                      checkpoints/monday/begun                 which checkpoint of that name it is
//!                                      checkpoints/monday/complete              all its tablets, on whatever node
//! ```
//!
//! A checkpoint has the layout of a node's folder without a log, so whatever reads the one reads the other
//! ([`crate::Keeper::open`], [`crate::fsck::check`], through [`disk::Below`]). Its files share their bytes with the node's as long as both are there. A
//! tablet belongs to it once its part is there; what is only in memory does not: flush before. It counts only when it is
//! complete, which whoever asked for it knows first. [`copy`] reads it; `file` has the bytes of the small files.

pub mod copy;
pub mod file;

use std::io;
use std::sync::Arc;

use disk::Disk;
use model::checkpoint::{Checkpoint, CheckpointId, Held, Part};
use model::{NodeId, TabletId};

use crate::Error;
use crate::keeper::TABLES;
use crate::manifest::{self, Placed, State};
use crate::view::View;

/// The folder of all checkpoints.
pub const DIR: &str = "checkpoints";
/// In a checkpoint's folder: a file for each tablet,
const PARTS: &str = "parts";
/// which checkpoint it is,
const BEGUN: &str = "begun";
/// and that all its tablets are there.
const COMPLETE: &str = "complete";

/// What is to be done about whole checkpoints.
#[derive(Clone, Debug)]
pub enum Order {
    /// It is complete.
    Seal {
        /// Whose disk this is.
        node: NodeId,
        /// All of it.
        checkpoint: Checkpoint,
    },
    /// What is there.
    List {
        /// Only of this name.
        name: Option<String>,
    },
    /// Remove one.
    Remove {
        /// Of this name,
        name: String,
        /// if it is this one.
        id: Option<CheckpointId>,
    },
}

/// What came of an [`Order`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is complete here too.
    Sealed,
    /// What is there is not what was to be sealed: why.
    Unfit(String),
    /// What there is.
    Held(Vec<Held>),
    /// Was it there?
    Removed(bool),
}

/// What came of adding a tablet.
#[derive(Clone, Debug)]
pub enum Added {
    /// Its part, with what the view knew of it.
    Part(Box<Part>),
    /// There is another checkpoint of this name.
    NameTaken,
    /// The node gave up a table of the view before it had its second name: the tablet has gone, or was merged and what it
    /// came of has gone. A later view has others.
    Stale,
}

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

/// Adds the view's tablet to the checkpoint of this name, in place of what it has of it. `is_named` says whether any
/// manifest names a table: what the node throws away loses its path at once, whoever reads it.
pub(crate) fn add(
    disk: &Arc<dyn Disk>,
    part: &Part,
    view: &View,
    is_named: impl Fn(u64) -> bool,
) -> Result<Added, Error> {
    let root = format!("{DIR}/{}", part.name);
    let (tables, manifests) = (format!("{root}/{TABLES}"), format!("{root}/{}", manifest::DIR));
    let parts = format!("{root}/{PARTS}");
    for (dir, parent) in [(DIR, ""), (&root[..], DIR)] {
        make_dir(disk, dir, parent)?;
    }
    match begun(&**disk, &root)? {
        Some(id) if id != part.id => return Ok(Added::NameTaken),
        Some(_) => {}
        None => file::write(&**disk, &root, BEGUN, &file::Content::Begun(part.name.clone(), part.id))?,
    }
    for dir in [&tables, &manifests, &parts] {
        make_dir(disk, dir, &root)?;
    }
    let mut bytes = 0;
    for table in view.version.tables() {
        if let Some(damage) = table.damage() {
            return Err(damage);
        }
        let to = format!("{root}/{}", table.path());
        // It may be there for another tablet that shares it, or from an attempt that a crash ended.
        if !disk.exists(&to).map_err(|source| Error::io(&to, "find", source))? {
            match disk.link(table.path(), &to) {
                Err(source) if source.kind() == io::ErrorKind::NotFound && !is_named(table.number()) => {
                    return Ok(Added::Stale);
                }
                linked => linked.map_err(|source| Error::io(&to, "link", source))?,
            }
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
    let mut part = part.clone();
    (part.copy.upto, part.copy.bytes) = (view.flushed(), bytes);
    file::write(&**disk, &parts, &view.tablet().0.to_string(), &file::Content::Part(Box::new(part.clone())))?;
    Ok(Added::Part(Box::new(part)))
}

/// Does what is ordered.
pub(crate) fn carry_out(disk: &Arc<dyn Disk>, order: Order) -> Result<Outcome, Error> {
    match order {
        Order::Seal { node, checkpoint } => seal(&**disk, node, checkpoint),
        Order::List { name } => list(&**disk, name.as_deref()).map(Outcome::Held),
        Order::Remove { name, id } => remove(&**disk, &name, id).map(Outcome::Removed),
    }
}

/// Writes down that the checkpoint is complete, after a look whether this node has what is said of it.
fn seal(disk: &dyn Disk, node: NodeId, checkpoint: Checkpoint) -> Result<Outcome, Error> {
    let root = format!("{DIR}/{}", checkpoint.name);
    if !is_there(disk, &root)? || begun(disk, &root)? != Some(checkpoint.id) {
        return Ok(Outcome::Unfit(format!("{node} has no checkpoint {} of id {}", checkpoint.name, checkpoint.id)));
    }
    for copy in checkpoint.tablets().filter(|copy| copy.node == node) {
        let path = format!("{root}/{PARTS}/{}", copy.tablet.0);
        let part = if is_there(disk, &path)? { Some(part(disk, &path)?) } else { None };
        if part.is_none_or(|part| part.copy != *copy) {
            return Ok(Outcome::Unfit(format!(
                "tablet {} in {root} of {node} is not what it was said to be",
                copy.tablet
            )));
        }
    }
    file::write(disk, &root, COMPLETE, &file::Content::Complete(checkpoint))?;
    Ok(Outcome::Sealed)
}

/// What there is, by name.
pub fn list(disk: &dyn Disk, only: Option<&str>) -> Result<Vec<Held>, Error> {
    if !is_there(disk, DIR)? {
        return Ok(Vec::new());
    }
    let names = disk.list(DIR).map_err(|source| Error::io(DIR, "list", source))?;
    let ours = |name: &&String| check_name(name).is_ok() && only.is_none_or(|only| only == name.as_str());
    names.iter().filter(ours).map(|name| held(disk, name)).collect()
}

fn held(disk: &dyn Disk, name: &str) -> Result<Held, Error> {
    let root = format!("{DIR}/{name}");
    let mut damage = None;
    let id = unless_damaged(begun(disk, &root), &mut damage)?;
    let sealed = unless_damaged(sealed(disk, &root), &mut damage)?;
    let parts = names(disk, &format!("{root}/{PARTS}"))?;
    let mut tablets: Vec<TabletId> = parts.iter().filter_map(|name| name.parse().ok()).map(TabletId).collect();
    tablets.sort_unstable();
    let mut bytes = 0;
    for name in names(disk, &format!("{root}/{TABLES}"))? {
        let path = format!("{root}/{TABLES}/{name}");
        let len = disk.open(&path).and_then(|file| file.len());
        bytes += len.map_err(|source| Error::io(&path, "measure", source))?;
    }
    Ok(Held { name: name.to_owned(), id, tablets, bytes, sealed, damage })
}

/// Nothing instead of what cannot be read, which is noted.
fn unless_damaged<T>(read: Result<Option<T>, Error>, damage: &mut Option<String>) -> Result<Option<T>, Error> {
    match read {
        Err(error) if error.is_corrupt() || error.is_unreadable() || matches!(error, Error::Version { .. }) => {
            *damage = Some(error.to_string());
            Ok(None)
        }
        read => read,
    }
}

/// Removes a checkpoint, if it is this one. What the node still uses of it stays. It ceases to be complete before anything
/// of it goes.
pub fn remove(disk: &dyn Disk, name: &str, id: Option<CheckpointId>) -> Result<bool, Error> {
    let root = format!("{DIR}/{name}");
    if !is_there(disk, &root)? || (id.is_some() && begun(disk, &root)?.is_some_and(|begun| Some(begun) != id)) {
        return Ok(false);
    }
    let complete = format!("{root}/{COMPLETE}");
    if is_there(disk, &complete)? {
        disk.remove(&complete).map_err(|source| Error::io(&complete, "remove", source))?;
        disk.sync_dir(&root).map_err(|source| Error::io(&root, "sync", source))?;
    }
    disk.remove_dir_all(&root).map_err(|source| Error::io(&root, "remove", source))?;
    disk.sync_dir(DIR).map_err(|source| Error::io(DIR, "sync", source))?;
    Ok(true)
}

/// Which checkpoint it is; nothing if a crash came before that was said.
fn begun(disk: &dyn Disk, root: &str) -> Result<Option<CheckpointId>, Error> {
    let path = below(root, BEGUN);
    match is_there(disk, &path)? {
        true => match file::read(disk, &path)? {
            file::Content::Begun(_, id) => Ok(Some(id)),
            _ => Err(Error::corrupt(path, 9, "it is another kind of file")),
        },
        false => Ok(None),
    }
}

fn sealed(disk: &dyn Disk, root: &str) -> Result<Option<Checkpoint>, Error> {
    let path = below(root, COMPLETE);
    match is_there(disk, &path)? {
        true => match file::read(disk, &path)? {
            file::Content::Complete(checkpoint) => Ok(Some(checkpoint)),
            _ => Err(Error::corrupt(path, 9, "it is another kind of file")),
        },
        false => Ok(None),
    }
}

fn part(disk: &dyn Disk, path: &str) -> Result<Part, Error> {
    match file::read(disk, path)? {
        file::Content::Part(part) => Ok(*part),
        _ => Err(Error::corrupt(path, 9, "it is another kind of file")),
    }
}

fn below(root: &str, name: &str) -> String {
    if root.is_empty() { name.to_owned() } else { format!("{root}/{name}") }
}

fn is_there(disk: &dyn Disk, path: &str) -> Result<bool, Error> {
    disk.exists(path).map_err(|source| Error::io(path, "find", source))
}

fn names(disk: &dyn Disk, dir: &str) -> Result<Vec<String>, Error> {
    match is_there(disk, dir)? {
        true => disk.list(dir).map_err(|source| Error::io(dir, "list", source)),
        false => Ok(Vec::new()),
    }
}

fn make_dir(disk: &Arc<dyn Disk>, dir: &str, parent: &str) -> Result<(), Error> {
    disk.create_dir(dir).map_err(|source| Error::io(dir, "create", source))?;
    disk.sync_dir(parent).map_err(|source| Error::io(parent, "sync", source))
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
