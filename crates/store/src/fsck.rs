//! Reads everything that a stopped node has on its disk, and says what is not as it should be. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use disk::Disk;
use model::TabletId;

use crate::manifest::{self, Manifest};
use crate::sstable::{Cache, Table};
use crate::{Error, checkpoint, keeper, log, trash};

/// Something that is not as it should be, or that one may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub file: String,
    /// What.
    pub what: String,
    /// What was written cannot be read any more; otherwise it is only a remark.
    pub damage: bool,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What is to be said, in the order in which it was found.
    pub findings: Vec<Finding>,
    /// Valid records of the log, and its segments.
    pub records: u64,
    /// See `records`.
    pub segments: usize,
    /// Tablets with a manifest.
    pub tablets: usize,
    /// Tables that are whole, and their bytes.
    pub tables: usize,
    /// See `tables`.
    pub bytes: u64,
    /// What lies in the trash.
    pub trash: Vec<trash::Item>,
    /// Checkpoints, by name.
    pub checkpoints: Vec<Kept>,
}

/// What the folder has of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// Does it count: is it said to be complete?
    pub complete: bool,
    /// Its tablets here.
    pub tablets: usize,
    /// Bytes of their tables, each file counted once.
    pub bytes: u64,
}

impl Checked {
    /// Notes something.
    pub fn find(&mut self, file: impl Into<String>, damage: bool, what: impl Into<String>) {
        self.findings.push(Finding { file: file.into(), what: what.into(), damage });
    }

    fn find_error(&mut self, error: &Error) {
        let file = match error {
            Error::Io { file, .. } | Error::Corrupt { file, .. } | Error::Version { file, .. } => file.clone(),
            _ => String::new(),
        };
        self.find(file, true, error.to_string());
    }

    /// Is anything damaged?
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.damage)
    }
}

/// Checks the log, all manifests and all tables, and how they fit together.
pub fn check(disk: &Arc<dyn Disk>) -> Checked {
    let mut checked = Checked::default();
    let logged = check_log(&**disk, &mut checked);
    if let Err(error) = check_tables(disk, &logged, &mut checked) {
        checked.find_error(&error);
    }
    match trash::list(&**disk) {
        Ok(items) => checked.trash = items,
        Err(error) => checked.find_error(&error),
    }
    if let Err(error) = check_checkpoints(disk, &mut checked) {
        checked.find_error(&error);
    }
    checked
}

/// Reads all of each checkpoint. A node does not repair them: what is damaged there is no damage to its own data, but the
/// checkpoint is good for nothing.
fn check_checkpoints(disk: &Arc<dyn Disk>, checked: &mut Checked) -> Result<(), Error> {
    for held in checkpoint::list(&**disk, None)? {
        let folder = format!("{}/{}", checkpoint::DIR, held.name);
        let below = disk::Below::new(Arc::clone(disk), &folder);
        let below: Arc<dyn Disk> = Arc::new(below.map_err(|source| Error::io(&folder, "open", source))?);
        let named = |error: Error| error.within(&folder);
        match checkpoint::copy::read(&*below) {
            Ok(read) => {
                if read.sealed.is_none() {
                    checked.find(&folder, false, "this checkpoint is not complete; it counts for nothing");
                }
                for part in read.parts.values() {
                    let whole = checkpoint::copy::open(&below, part).and_then(|view| checkpoint::copy::verify(&view));
                    if let Err(error) = whole.map_err(named) {
                        checked.find_error(&error);
                    }
                }
            }
            Err(error) => checked.find_error(&named(error)),
        }
        let complete = held.sealed.is_some() && held.damage.is_none();
        checked.checkpoints.push(Kept { name: held.name, complete, tablets: held.tablets.len(), bytes: held.bytes });
    }
    Ok(())
}

fn check_log(disk: &dyn Disk, checked: &mut Checked) -> BTreeMap<TabletId, log::Found> {
    if !disk.exists("log").unwrap_or(false) {
        return BTreeMap::new();
    }
    match log::inspect(disk, "log") {
        Ok(inspected) => {
            (checked.records, checked.segments) = (inspected.records, inspected.segments);
            for hole in inspected.holes {
                checked.find(
                    hole.split(' ').next().unwrap_or("log"),
                    true,
                    format!("what was written is changed: {hole}"),
                );
            }
            for (tablet, found) in &inspected.tablets {
                if let Some(doubt) = &found.doubt {
                    let upto = if doubt.upto == log::Doubt::ALL {
                        String::from("all of it")
                    } else {
                        format!("entries up to {}", doubt.upto)
                    };
                    checked.find("log", true, format!("tablet {tablet}: {upto} may be missing: {}", doubt.why));
                }
            }
            inspected.tablets
        }
        Err(error) => {
            checked.find_error(&error);
            BTreeMap::new()
        }
    }
}

fn check_tables(
    disk: &Arc<dyn Disk>,
    logged: &BTreeMap<TabletId, log::Found>,
    checked: &mut Checked,
) -> Result<(), Error> {
    let (mut named, mut complete) = (BTreeSet::new(), true);
    for name in list(&**disk, manifest::DIR)? {
        let path = format!("{}/{name}", manifest::DIR);
        let Ok(number) = name.parse() else {
            checked.find(path, false, "a crash left it behind; the next start removes it");
            continue;
        };
        checked.tablets += 1;
        let state = match Manifest::read_one(&**disk, TabletId(number)) {
            Ok(state) => state,
            Err(error) => {
                checked.find_error(&error);
                complete = false;
                continue;
            }
        };
        if !logged.is_empty() && logged.get(&state.tablet).is_none_or(|found| found.state.is_none()) {
            checked.find(&path, false, "the log knows no such tablet; the next start throws it away");
        }
        for number in state.tables.iter().map(|placed| placed.number) {
            named.insert(number);
            match check_table(disk, number) {
                Ok(table) => {
                    let properties = table.properties();
                    if properties.tablet > state.tablet || properties.upto > state.flushed {
                        checked.find(table.path(), true, format!("it does not belong where {path} has it"));
                    }
                    checked.tables += 1;
                    checked.bytes += table.bytes();
                }
                Err(error) => checked.find_error(&error),
            }
        }
    }
    for name in list(&**disk, keeper::TABLES)? {
        let number = name.strip_suffix(".sst").and_then(|number| number.parse().ok());
        if number.is_none_or(|number: u64| !named.contains(&number)) {
            let what = match complete {
                true => "no manifest names it; the next start throws it away",
                false => "no manifest that can be read names it",
            };
            checked.find(format!("{}/{name}", keeper::TABLES), false, what);
        }
    }
    Ok(())
}

fn check_table(disk: &Arc<dyn Disk>, number: u64) -> Result<Arc<Table>, Error> {
    let path = keeper::path_of(number);
    let file = disk.open(&path).map_err(|source| Error::io(&path, "open", source))?;
    let table = Arc::new(Table::open(file, path, None, &Cache::none())?);
    table.verify()?;
    Ok(table)
}

fn list(disk: &dyn Disk, dir: &str) -> Result<Vec<String>, Error> {
    match disk.exists(dir).map_err(|source| Error::io(dir, "find", source))? {
        true => disk.list(dir).map_err(|source| Error::io(dir, "list", source)),
        false => Ok(Vec::new()),
    }
}
