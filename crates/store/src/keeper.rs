//! The doing side of the tables: runs jobs, and brings tablets back after a restart.
//!
//! ```text
//!   manifest/<tablet>                      what counts: crate::manifest
//!   tables/<number>.sst                    written and synced, and the folder too, before a manifest names them
//!   incoming/<tablet>-<attempt>-<file>     pieces of a checkpoint from a peer; worth nothing after a restart
//!   trash/<seconds>-<name>                 what was dropped, or is named by nobody at the start: crate::trash
//! ```
//!
//! A job takes effect with one edit of the manifest. Files that no manifest names go: to the trash at the start, and for
//! good while running, once no view needs them. If a job fails before its edit, the files it has written are removed; if the edit itself
//! fails nobody knows whether it will outlive a crash, so everything stays as both outcomes need it. Any thread may
//! run a job; jobs that change one tablet never overlap, which is the caller's part.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use disk::{Disk, File};
use model::{Bytes, LocalityGroup, Lsn, TabletId, Timestamp};
use parking_lot::Mutex;

use crate::compaction;
use crate::digest;
use crate::error::{Error, again_if_unreadable};
use crate::job::{Done, FileInfo, Inherited, Job};
use crate::manifest::{self, Edit, Manifest, State};
use crate::memtable::Memtable;
use crate::merge::Merge;
use crate::scrub;
use crate::sstable::{Cache, Purpose, Shape, Shelf, Table, Writer};
use crate::tablet::Tablet;
use crate::trash;
use crate::view::{Version, View};

pub(crate) const TABLES: &str = "tables";
const INCOMING: &str = "incoming";
/// Bytes of a checkpoint that are read at once, whatever a peer asks for.
const MOST_FETCHED: u32 = 8 << 20;
/// Bytes of blocks that are kept in memory.
const CACHE: u64 = 64 << 20;

/// The tablets that a restart brings back.
#[derive(Debug)]
pub struct Tablets {
    /// Those that can be read, each with the note of its last flush. Some of their tables may be damaged.
    pub sound: BTreeMap<TabletId, (Tablet, Bytes)>,
    /// Those of which nothing can be said, and why: which tables are theirs and how old those are is not known.
    pub damaged: BTreeMap<TabletId, String>,
}

/// All table files of a node.
pub struct Keeper {
    disk: Arc<dyn Disk>,
    manifest: Mutex<Manifest>,
    shelf: Arc<Shelf>,
    cache: Arc<Cache>,
    /// Number of the next table file.
    next: AtomicU64,
}

impl Keeper {
    /// Opens all tablets of which something is on the disk, each with its note, and throws away what nobody needs. `date`
    /// is the present date.
    pub fn open(disk: Arc<dyn Disk>, date: Timestamp) -> Result<(Keeper, Tablets), Error> {
        for dir in [TABLES, INCOMING, manifest::DIR, trash::DIR] {
            disk.create_dir(dir).map_err(|source| Error::io(dir, "create", source))?;
        }
        disk.sync_dir("").map_err(|source| Error::io("the data folder", "sync", source))?;
        let (manifest, damaged) = Manifest::open(disk.clone())?;
        let named: BTreeSet<u64> = manifest.tablets().values().flat_map(|state| state.tables.iter().copied()).collect();
        let mut greatest = named.last().copied().unwrap_or(0);
        for name in disk.list(TABLES).map_err(|source| Error::io(TABLES, "list", source))? {
            let Some(number) = name.strip_suffix(".sst").and_then(|number| number.parse().ok()) else { continue };
            greatest = greatest.max(number);
            if !named.contains(&number) {
                trash::put(&*disk, &format!("{TABLES}/{name}"), date)?;
            }
        }
        let (manifest, next) = (Mutex::new(manifest), AtomicU64::new(greatest + 1));
        let keeper = Keeper { disk, manifest, shelf: Arc::default(), cache: Cache::new(CACHE), next };
        keeper.remove_incoming(|_, _| true)?;
        let mut tablets = Tablets { sound: BTreeMap::new(), damaged };
        // Tablets that were made of one share its tables until they are merged.
        let mut open = BTreeMap::new();
        let states: Vec<State> = keeper.manifest.lock().tablets().values().cloned().collect();
        for state in states {
            match keeper.open_tablet(&state, &mut open) {
                Ok(tablet) => {
                    tablets.sound.insert(state.tablet, (tablet, state.note));
                }
                Err(error) if error.is_corrupt() => {
                    tablets.damaged.insert(state.tablet, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok((keeper, tablets))
    }

    /// The tablet as its manifest has it. A table that cannot be read stays in its place and refuses.
    /// `opened` are the tables of others.
    fn open_tablet(&self, state: &State, opened: &mut BTreeMap<u64, Arc<Table>>) -> Result<Tablet, Error> {
        let open = |&number: &u64| match again_if_unreadable(|| self.open_table(number)) {
            Err(error) if error.is_corrupt() || error.is_unreadable() => {
                let (path, offset, what) = match error {
                    Error::Corrupt { file, offset, what } => (file, offset, what),
                    error => (path_of(number), 0, error.to_string()),
                };
                let file = self.disk.open(&path).map_err(|source| Error::io(&path, "open", source))?;
                Ok(Arc::new(Table::broken(file, path, Some(self.shelf.pin(number)), offset, what)))
            }
            other => other,
        };
        let mut tables = Vec::new();
        for number in &state.tables {
            let table = match opened.get(number) {
                Some(table) => Arc::clone(table),
                None => open(number)?,
            };
            opened.insert(*number, Arc::clone(&table));
            tables.push(table);
        }
        check_tables(state.tablet, &tables, state.flushed)?;
        let version = Version { tables, flushed: state.flushed, note: state.note.clone() };
        Ok(Tablet::of_version(state.tablet, version))
    }

    /// Does a job. An error names the file; [`Error::is_full`] says that the job may be run again once there is room.
    pub fn run(&self, job: Job) -> Result<Done, Error> {
        // What cannot be removed now is found at the next start at the latest.
        let _ = self.sweep();
        match job {
            Job::Flush { tablet, memtable, after, upto, clock, note, inherited } => {
                let table = self.build(|path| match &inherited {
                    Inherited::Copied(tables) => {
                        let shape =
                            Shape { tablet, after: Lsn::ZERO, upto, clock, locality: &LocalityGroup::default() };
                        let mut writer = Writer::create(&*self.disk, path, shape)?;
                        write_all(memtable, tables, &mut writer)?;
                        Ok(writer)
                    }
                    Inherited::Nothing | Inherited::Shared(_) => {
                        let shape = Shape { tablet, after, upto, clock, locality: &LocalityGroup::default() };
                        let mut writer = Writer::create(&*self.disk, path, shape)?;
                        write_all(memtable, &[], &mut writer)?;
                        Ok(writer)
                    }
                })?;
                let (new, note_too) = (number(&table), note.clone());
                let edit = match &inherited {
                    Inherited::Nothing => Edit::Flushed { table: new, after, upto, note: note_too },
                    Inherited::Copied(_) => Edit::Adopted { tables: new.into_iter().collect(), upto, note: note_too },
                    Inherited::Shared(shared) => {
                        let tables = shared.iter().map(|table| table.number()).chain(new).collect();
                        Edit::Adopted { tables, upto, note: note_too }
                    }
                };
                self.edit(tablet, edit, &table)?;
                Ok(Done::Flushed { tablet, table, upto, note })
            }
            Job::Merge { tablet, inputs, oldest, schema, now, bounds } => {
                let (first, last) = match &inputs[..] {
                    [] => return Ok(Done::Merged { tablet, removed: Vec::new(), added: None }),
                    [first, .., last] => (first.properties(), last.properties()),
                    [only] => (only.properties(), only.properties()),
                };
                let table = self.build(|path| {
                    let (after, upto, clock) = (first.after, last.upto, last.clock);
                    let shape = Shape { tablet, after, upto, clock, locality: &LocalityGroup::default() };
                    let mut writer = Writer::create(&*self.disk, path, shape)?;
                    compaction::merge(&inputs, oldest, &schema, now, &bounds, &mut writer)?;
                    Ok(writer)
                })?;
                let removed: Vec<u64> = inputs.iter().map(|table| table.number()).collect();
                let edit = Edit::Merged { removed: removed.clone(), added: number(&table) };
                self.edit(tablet, edit, &table)?;
                Ok(Done::Merged { tablet, removed, added: table })
            }
            Job::Drop { tablet, date } => {
                self.throw_away(tablet, date)?;
                self.remove_incoming(|of, _| of == tablet)?;
                Ok(Done::Dropped { tablet })
            }
            Job::Receive { tablet, attempt, file, offset, bytes } => {
                self.receive(tablet, attempt, file, offset, &bytes)?;
                Ok(Done::Received { tablet, attempt, file, end: offset.saturating_add(bytes.len() as u64) })
            }
            Job::Adopt { tablet, attempt, files, upto, note } => {
                let tables = self.adopt(tablet, attempt, &files, upto, note.clone())?;
                Ok(Done::Adopted { tablet, tables, upto, note })
            }
            Job::Fetch { view, file, offset, len } => self.fetch(&view, file, offset, len).map(Done::Fetched),
            Job::Scrub { view, from, bytes } => {
                let (bytes, next) = scrub::slice(&view, from, bytes)?;
                if next.is_none() {
                    self.manifest.lock().check(view.tablet())?;
                }
                Ok(Done::Scrubbed { bytes, next })
            }
            Job::CheckLog { reader, from, bytes } => {
                let (bytes, next) = reader.check(from, bytes)?;
                Ok(Done::LogChecked { bytes, next })
            }
            Job::Digest { view, from, bytes, schema, now, without, mut sums } => {
                let (bytes, next) = digest::slice(&view, from, bytes, &schema, now, &without, &mut sums)?;
                Ok(Done::Digested { sums, bytes, next })
            }
            Job::Empty { until, bytes } => {
                let (bytes, more) = trash::empty(&*self.disk, until, bytes)?;
                Ok(Done::Emptied { bytes, more })
            }
        }
    }

    /// All files of a tablet go to the trash; those who have them open may read on. The manifest goes first: tables that
    /// a crash leaves behind follow at the next start.
    fn throw_away(&self, tablet: TabletId, date: Timestamp) -> Result<(), Error> {
        let tables = self.manifest.lock().throw_away(tablet, date)?;
        let shared = |number: &u64| {
            let manifest = self.manifest.lock();
            manifest.tablets().values().any(|state| state.tables.contains(number))
        };
        for &number in tables.iter().filter(|number| !shared(number)) {
            trash::put(&*self.disk, &path_of(number), date)?;
        }
        if !tables.is_empty() {
            self.disk.sync_dir(trash::DIR).map_err(|source| Error::io(trash::DIR, "sync", source))?;
            self.disk.sync_dir(TABLES).map_err(|source| Error::io(TABLES, "sync", source))?;
        }
        Ok(())
    }

    /// Removes the files that no manifest names any more and no view needs.
    pub fn sweep(&self) -> Result<(), Error> {
        let mut free = self.shelf.take_free();
        if free.is_empty() {
            return Ok(());
        }
        // Tablets that were made of one share its tables: one that has gone for this one may stay for that one.
        let manifest = self.manifest.lock();
        let named = |number: &u64| manifest.tablets().values().any(|state| state.tables.contains(number));
        let shared = free.extract_if(.., |number| named(number));
        self.shelf.retire(shared);
        for (at, &number) in free.iter().enumerate() {
            if let Err(error) = remove(&*self.disk, &path_of(number)) {
                self.shelf.retire(free[at..].iter().copied());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes a table file and opens it; None if there is nothing to write. Leaves no file behind if it fails.
    fn build(&self, write: impl FnOnce(String) -> Result<Writer, Error>) -> Result<Option<Arc<Table>>, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = path_of(number);
        let built = write(path.clone()).and_then(|writer| {
            if writer.is_empty() {
                return Ok(None);
            }
            let (file, path) = writer.finish()?;
            self.disk.sync_dir(TABLES).map_err(|source| Error::io(TABLES, "sync", source))?;
            Ok(Some(Arc::new(Table::open(file, path, Some(self.shelf.pin(number)), &self.cache)?)))
        });
        if !matches!(built, Ok(Some(_))) {
            self.shelf.retire([number]);
            let _ = self.sweep();
        }
        built
    }

    /// Makes an edit take effect. If that fails for certain, the table that it would have brought is removed.
    fn edit(&self, tablet: TabletId, edit: Edit, table: &Option<Arc<Table>>) -> Result<(), Error> {
        let mut manifest = self.manifest.lock();
        let prepared = manifest.prepare(tablet, edit).inspect_err(|_| self.shelf.retire(number(table)))?;
        let gone = manifest.commit(prepared)?;
        self.shelf.retire(gone);
        Ok(())
    }

    fn receive(&self, tablet: TabletId, attempt: u64, file: u32, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let path = incoming(tablet, attempt, file);
        let io = |what| {
            let path = path.clone();
            move |source| Error::io(path, what, source)
        };
        // The first piece begins the file anew: what another offer brought under the same name may have been longer.
        let piece = if offset > 0 && self.disk.exists(&path).map_err(io("find"))? {
            self.disk.open(&path).map_err(io("open"))?
        } else {
            self.remove_incoming(|of, other| of == tablet && other < attempt)?;
            self.disk.create(&path).map_err(io("create"))?
        };
        piece.write_at(offset, bytes).map_err(io("write"))?;
        // Piece by piece: what gathers would go to the disk at once, and the log's syncs would wait behind it.
        piece.sync().map_err(io("sync"))
    }

    fn adopt(
        &self,
        tablet: TabletId,
        attempt: u64,
        files: &[FileInfo],
        upto: Lsn,
        note: Bytes,
    ) -> Result<Vec<Arc<Table>>, Error> {
        let mut received = Vec::new();
        for (file, info) in (0..).zip(files) {
            received.push(self.check_received(incoming(tablet, attempt, file), info)?);
        }
        check_tables(tablet, &received, upto)?;

        let numbers: Vec<u64> = files.iter().map(|_| self.next.fetch_add(1, Ordering::Relaxed)).collect();
        let mut manifest = self.manifest.lock();
        let prepared = manifest.prepare(tablet, Edit::Adopted { tables: numbers.clone(), upto, note })?;
        for (table, &number) in received.iter().zip(&numbers) {
            let renamed = self.disk.rename(table.path(), &path_of(number));
            renamed.map_err(|source| Error::io(table.path(), "rename", source))?;
        }
        if !files.is_empty() {
            self.disk.sync_dir(TABLES).map_err(|source| Error::io(TABLES, "sync", source))?;
        }
        let tables = numbers.iter().map(|&number| self.open_table(number)).collect::<Result<Vec<_>, _>>()?;
        let gone = manifest.commit(prepared)?;
        self.shelf.retire(gone);
        drop(manifest);
        let _ = self.remove_incoming(|of, _| of == tablet);
        Ok(tables)
    }

    /// Makes a received file durable and checks all of it.
    fn check_received(&self, path: String, info: &FileInfo) -> Result<Arc<Table>, Error> {
        let file = self.disk.open(&path).map_err(|source| Error::io(&path, "open", source))?;
        file.sync().map_err(|source| Error::io(&path, "sync", source))?;
        let table = Arc::new(Table::open(file, path, None, &Cache::none())?);
        if table.bytes() != info.bytes {
            let what = format!("it has {} bytes, {} were to come", table.bytes(), info.bytes);
            return Err(Error::corrupt(table.path(), 0, what));
        }
        table.verify()?;
        Ok(table)
    }

    fn fetch(&self, view: &View, file: u32, offset: u64, len: u32) -> Result<Bytes, Error> {
        match view.version.tables.get(file as usize) {
            Some(table) => table.read_raw(offset, len.min(MOST_FETCHED)),
            None => Ok(Bytes::new()),
        }
    }

    fn open_table(&self, number: u64) -> Result<Arc<Table>, Error> {
        let path = path_of(number);
        let file: Arc<dyn File> = match self.disk.open(&path) {
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::corrupt(manifest::DIR, 0, format!("it names {path}, which is not there")));
            }
            opened => opened.map_err(|source| Error::io(&path, "open", source))?,
        };
        Ok(Arc::new(Table::open(file, path, Some(self.shelf.pin(number)), &self.cache)?))
    }

    /// Removes received pieces by tablet and attempt.
    fn remove_incoming(&self, which: impl Fn(TabletId, u64) -> bool) -> Result<(), Error> {
        for name in self.disk.list(INCOMING).map_err(|source| Error::io(INCOMING, "list", source))? {
            let mut parts = name.split('-').map(|part| part.parse::<u64>().ok());
            if let (Some(Some(tablet)), Some(Some(attempt))) = (parts.next(), parts.next())
                && which(TabletId(tablet), attempt)
            {
                remove(&*self.disk, &format!("{INCOMING}/{name}"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({} tablets)", self.manifest.lock().tablets().len())
    }
}

/// Everything that a memtable and tables have, as it is.
fn write_all(memtable: Arc<Memtable>, tables: &[Arc<Table>], writer: &mut Writer) -> Result<(), Error> {
    let mut merge = Merge::default();
    merge.add_memtable(memtable, Lsn(u64::MAX), &[], None);
    for table in tables {
        merge.add_table(Arc::clone(table), &[], Purpose::Background)?;
    }
    while let Some(key) = merge.key() {
        writer.add(key, &merge.value())?;
        merge.advance()?;
    }
    Ok(())
}

/// Tables of one tablet follow each other in time. Some may be of a tablet that it was made of, which is an older one.
fn check_tables(tablet: TabletId, tables: &[Arc<Table>], upto: Lsn) -> Result<(), Error> {
    let mut end = Lsn::ZERO;
    for table in tables.iter().filter(|table| table.damage().is_none()) {
        let properties = table.properties();
        if properties.tablet > tablet || properties.after < end || properties.upto < properties.after {
            let what = format!("it does not belong at this place of {tablet}");
            return Err(Error::corrupt(table.path(), 0, what));
        }
        end = properties.upto;
    }
    if end > upto {
        return Err(Error::corrupt(manifest::DIR, 0, format!("tables of {tablet} are younger than it")));
    }
    Ok(())
}

fn number(table: &Option<Arc<Table>>) -> Option<u64> {
    table.as_ref().map(|table| table.number())
}

pub(crate) fn path_of(number: u64) -> String {
    format!("{TABLES}/{number:08}.sst")
}

fn incoming(tablet: TabletId, attempt: u64, file: u32) -> String {
    format!("{INCOMING}/{}-{attempt}-{file}", tablet.0)
}

/// Removes a file; well if it is gone already.
fn remove(disk: &dyn Disk, path: &str) -> Result<(), Error> {
    match disk.remove(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "remove", source)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
