//! Reads a checkpoint, wherever its folder is now: on the node, or copied to another machine. Changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use disk::Disk;
use model::checkpoint::{Checkpoint, CheckpointId, Part};
use model::{RowRange, Slice, TabletId};

use crate::Error;
use crate::keeper::{check_version, path_of};
use crate::manifest::Manifest;
use crate::sstable::{Cache, Table};
use crate::tablet::Tablet;
use crate::version::Version;
use crate::view::View;

/// What the folder of a checkpoint says of it.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Which checkpoint it is.
    pub id: CheckpointId,
    /// The tablets that are in it,
    pub parts: BTreeMap<TabletId, Part>,
    /// and all of the checkpoint, if it is complete.
    pub sealed: Option<Checkpoint>,
}

/// Reads what the folder of a checkpoint, which is the root of `disk`, says of it.
pub fn read(disk: &dyn Disk) -> Result<Folder, Error> {
    let begun = super::begun(disk, "")?;
    let id = begun.ok_or_else(|| Error::corrupt(super::BEGUN, 0, "it is missing: nothing else counts without it"))?;
    let mut parts = BTreeMap::new();
    for name in super::names(disk, super::PARTS)? {
        let Ok(number) = name.parse() else { continue };
        let path = format!("{}/{name}", super::PARTS);
        let part = super::part(disk, &path)?;
        if part.copy.tablet != TabletId(number) || part.id != id {
            return Err(Error::corrupt(path, 0, "it belongs to something else"));
        }
        parts.insert(part.copy.tablet, part);
    }
    let sealed = super::sealed(disk, "")?;
    match sealed.as_ref().is_some_and(|sealed| sealed.id != id) {
        true => Err(Error::corrupt(super::COMPLETE, 0, "it belongs to another checkpoint")),
        false => Ok(Folder { id, parts, sealed }),
    }
}

/// A tablet of the checkpoint whose folder is the root of `disk`, as it was. Blocks are checked as they are read, and none
/// is kept.
pub fn open(disk: &Arc<dyn Disk>, part: &Part) -> Result<View, Error> {
    let tablet = part.copy.tablet;
    let state = Manifest::read_one(&**disk, tablet)?;
    if state.flushed != part.copy.upto {
        let what = format!("it is of lsn {}, and not of {}", state.flushed, part.copy.upto);
        return Err(Error::corrupt(format!("{}/{}", crate::manifest::DIR, tablet.0), 0, what));
    }
    let mut tables = Vec::new();
    for placed in &state.tables {
        let path = path_of(placed.number);
        let file = match disk.open(&path) {
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::corrupt(path, 0, "it is missing"));
            }
            opened => opened.map_err(|source| Error::io(&path, "open", source))?,
        };
        tables.push((placed.run, Arc::new(Table::open(file, path, None, &Cache::none())?)));
    }
    let version = Version::new(tables, state.flushed, state.note);
    check_version(tablet, &version)?;
    let mut tablet = Tablet::of_version(tablet, version);
    if let Slice::Rows { start, end } = &part.copy.slice {
        tablet.set_bounds(RowRange { start: start.clone(), end: end.clone() });
    }
    Ok(tablet.view().in_background())
}

/// Reads every block of the tablet's tables. Gives their bytes.
pub fn verify(view: &View) -> Result<u64, Error> {
    let mut bytes = 0;
    for table in view.version.tables() {
        table.verify()?;
        bytes += table.bytes();
    }
    Ok(bytes)
}
