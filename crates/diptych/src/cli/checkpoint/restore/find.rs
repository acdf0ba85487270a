//! Finds the parts of a checkpoint below some folders, and makes sure that they are all there and whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disk::{Disk, ReadOnly};
use model::Schema;
use model::checkpoint::{Checkpoint, CheckpointId, Part, TableCopy, gap};
use store::checkpoint::{self, copy::Folder};
use store::{Error, View};

use super::super::super::{Failure, show};

/// The folders of `diptych up`, of a node, of its checkpoints, and whatever somebody has put them into.
const DEEPEST: usize = 8;
/// What is missing is named up to so often.
const NAMED: usize = 5;

/// A table of a checkpoint that is there and whole.
pub struct Sources {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The table as it was.
    pub schema: Schema,
    /// Its tablets.
    pub tablets: Vec<Source>,
    /// Bytes of their tables.
    pub bytes: u64,
}

/// A tablet, and where it is read.
pub struct Source {
    /// What it is.
    pub part: Part,
    /// Its rows.
    pub view: View,
    folder: PathBuf,
}

impl Source {
    /// The error with the file's whole path.
    pub fn name(&self, error: Error) -> String {
        named(&self.folder, error)
    }
}

fn named(folder: &Path, error: Error) -> String {
    match error.within(&folder.display().to_string()) {
        // The advice is for a node's own files.
        Error::Corrupt { file, offset, what } => format!("{file} is damaged at offset {offset}: {what}"),
        error => error.to_string(),
    }
}

/// A folder of the checkpoint.
struct Found {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    folder: Folder,
}

/// Everything that a restore needs of the checkpoint. Reads every block.
pub fn sources(name: &str, from: &[PathBuf], table: Option<&str>) -> Result<Sources, Failure> {
    let mut paths = BTreeSet::new();
    for root in from {
        if !root.is_dir() {
            return Err(Failure::not_found(format!("{} is no folder", root.display())));
        }
        search(root, name, DEEPEST, &mut paths);
    }
    if paths.is_empty() {
        let roots: Vec<String> = from.iter().map(|root| root.display().to_string()).collect();
        return Err(Failure::not_found(format!("there is no checkpoint {name:?} below {}", roots.join(", "))));
    }
    let (mut found, mut broken) = (Vec::new(), Vec::new());
    for path in paths {
        let disk = ReadOnly::open(&path).map_err(|error| Failure::file("open", &path, &error))?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        match checkpoint::copy::read(&*disk) {
            Ok(folder) => found.push(Found { path, disk, folder }),
            Err(error) => broken.push(named(&path, error)),
        }
    }
    let (checkpoint, wanted) = choose(name, table, &found, &broken)?;
    let TableCopy { schema, tablets } = wanted;
    if let Some(why) = gap(tablets.iter().map(|copy| &copy.slice)) {
        return Err(Failure::failed(format!("checkpoint {name}: table {}: {why}", schema.name)));
    }
    let (mut sources, mut bytes) = (Vec::new(), 0);
    for copy in &tablets {
        let source = whole(&checkpoint, copy, &found)?;
        bytes += copy.bytes;
        sources.push(source);
    }
    Ok(Sources { checkpoint, schema, tablets: sources, bytes })
}

/// Folders of the checkpoint in `root` and below.
fn search(root: &Path, name: &str, depth: usize, paths: &mut BTreeSet<PathBuf>) {
    if root.file_name().is_some_and(|last| last == name) && root.join("parts").is_dir() {
        paths.insert(fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf()));
        return;
    }
    // What cannot be read is missing, and missed where it is needed.
    let (Ok(entries), 1..) = (fs::read_dir(root), depth) else { return };
    for entry in entries.flatten() {
        let of_node = |name: &str| ["log", "tables", "manifest", "incoming", "trash"].contains(&name);
        if entry.path().is_dir() && !entry.file_name().to_str().is_some_and(of_node) {
            search(&entry.path(), name, depth - 1, paths);
        }
    }
}

/// The checkpoint of which all parts of the wanted table are there, if there is one.
fn choose(
    name: &str,
    table: Option<&str>,
    found: &[Found],
    broken: &[String],
) -> Result<(Checkpoint, TableCopy), Failure> {
    let but = |what: String| match broken.first() {
        Some(broken) => Failure::failed(format!("{what}; {broken}")),
        None => Failure::failed(what),
    };
    let mut sealed: Vec<&Checkpoint> = Vec::new();
    for checkpoint in found.iter().filter_map(|found| found.folder.sealed.as_ref()) {
        if !sealed.contains(&checkpoint) {
            sealed.push(checkpoint);
        }
    }
    if sealed.is_empty() {
        return Err(but(format!("checkpoint {name} is not complete: no folder says that all of it was there"))
            .hint("It counts for nothing: take another one."));
    }
    let (mut fits, mut lacks) = (BTreeMap::<CheckpointId, (Checkpoint, TableCopy)>::new(), Vec::new());
    for checkpoint in sealed {
        let wanted = pick(checkpoint, table)?;
        let there = |copy: &&model::checkpoint::TabletCopy| holders(checkpoint, copy, found).next().is_some();
        let missing: Vec<String> = wanted
            .tablets
            .iter()
            .filter(|copy| !there(copy))
            .map(|copy| format!("tablet {} ({}), which was in the folder of {}", copy.tablet, copy.slice, copy.node))
            .collect();
        match missing.is_empty() {
            true => _ = fits.entry(checkpoint.id).or_insert_with(|| (checkpoint.clone(), wanted.clone())),
            false => lacks.push((wanted.schema.name.clone(), missing)),
        }
    }
    let mut fitting = fits.into_values();
    match (fitting.next(), fitting.next(), lacks.first()) {
        (Some(fit), None, _) => Ok(fit),
        (Some((one, _)), Some((other, _)), _) => {
            let what = format!("there are two checkpoints {name}, {} and {}", one.id, other.id);
            Err(Failure::failed(what).hint("Give only the folders of one of them with --from."))
        }
        (None, _, lacks) => {
            let (table, missing) = lacks.map_or((name, &[][..]), |(table, missing)| (table, missing));
            let more = missing.len().saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(", and {more} more") };
            let named = missing[..missing.len().min(NAMED)].join("; ");
            Err(but(format!("checkpoint {name} lacks of table {table}: {named}{more}"))
                .hint("Give the folders of all nodes with --from."))
        }
    }
}

fn pick<'a>(checkpoint: &'a Checkpoint, table: Option<&str>) -> Result<&'a TableCopy, Failure> {
    let names: Vec<&str> = checkpoint.tables.iter().map(|table| table.schema.name.as_str()).collect();
    let have = names.join(", ");
    match (table, &checkpoint.tables[..]) {
        (None, [only]) => Ok(only),
        (None, _) => Err(Failure::usage(format!("the checkpoint has several tables: choose one with --table: {have}"))),
        (Some(name), tables) => {
            let found = tables.iter().find(|table| table.schema.name == name);
            found.ok_or_else(|| {
                Failure::not_found(format!("the checkpoint {} has no table {name:?}; it has: {have}", checkpoint.name))
            })
        }
    }
}

/// Folders that have this tablet of this checkpoint.
fn holders<'a>(
    checkpoint: &'a Checkpoint,
    copy: &'a model::checkpoint::TabletCopy,
    found: &'a [Found],
) -> impl Iterator<Item = (&'a Found, &'a Part)> {
    let of = found.iter().filter(|found| found.folder.id == checkpoint.id);
    of.filter_map(|found| Some((found, found.folder.parts.get(&copy.tablet)?))).filter(|(_, part)| part.copy == *copy)
}

/// The tablet out of the first folder in which all of it can be read.
fn whole(checkpoint: &Checkpoint, copy: &model::checkpoint::TabletCopy, found: &[Found]) -> Result<Source, Failure> {
    let mut first = None;
    for (found, part) in holders(checkpoint, copy, found) {
        let tried =
            checkpoint::copy::open(&found.disk, part).and_then(|view| checkpoint::copy::verify(&view).map(|_| view));
        match tried {
            Ok(view) => return Ok(Source { part: part.clone(), view, folder: found.path.clone() }),
            Err(error) => first = first.or(Some(named(&found.path, error))),
        }
    }
    let why = first.unwrap_or_else(|| format!("tablet {} is missing", copy.tablet));
    Err(Failure::failed(format!("tablet {} of {}: {why}", copy.tablet, show::size(copy.bytes)))
        .hint("Nothing was written. Another copy of this folder may be whole: give it with --from too."))
}
