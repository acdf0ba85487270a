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

use disk::{Disk, File, Hint};
use model::{Bytes, Lsn, RunId, TabletId, Timestamp};
use parking_lot::Mutex;

use crate::checkpoint;
use crate::compaction;
use crate::digest;
use crate::error::{Error, again_if_unreadable};
use crate::job::{Done, FileInfo, Inherited, Job};
use crate::manifest::{self, Edit, Manifest, Placed, State};
use crate::memtable::Memtable;
use crate::merge::Merge;
use crate::output::{self, Origin, Output};
use crate::scrub;
use crate::sstable::{Cache, Purpose, Shelf, Table};
use crate::tablet::Tablet;
use crate::trash;
use crate::version::Version;
use crate::view::View;

pub(crate) const TABLES: &str = "tables";
const INCOMING: &str = "incoming";
/// Bytes of a checkpoint that are read at once, whatever a peer asks for.
const MOST_FETCHED: u32 = 8 << 20;

/// The tablets that a restart brings back.
#[derive(Debug)]
pub struct Tablets {
    /// Those that can be read, each with the note of its last flush. Some of their tables may be damaged.
    pub sound: BTreeMap<TabletId, (Tablet, Bytes)>,
    /// Those of which nothing can be said, and why: which tables are theirs and how old those are is not known.
    pub damaged: BTreeMap<TabletId, String>,
}

/// Slows background work down, so that what somebody waits for is not slowed down by it.
pub trait Pace: Send + Sync {
    /// So many bytes are about to be written. Returns when they may be.
    fn spend(&self, bytes: u64);
}

/// As fast as the disk goes.
#[derive(Debug)]
pub struct Unhurried;

impl Pace for Unhurried {
    fn spend(&self, _: u64) {}
}

/// How tables are kept.
#[derive(Clone)]
pub struct Options {
    /// A table ends at the first row after so many bytes.
    pub table_bytes: u64,
    /// Bytes of blocks that are kept in memory.
    pub cache_bytes: u64,
    /// Holds flushes, merges and what peers send back.
    pub pace: Arc<dyn Pace>,
    /// Merges read past the kernel's memory: what they read once does not drive out what clients read often.
    pub direct: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { table_bytes: 64 << 20, cache_bytes: 64 << 20, pace: Arc::new(Unhurried), direct: false }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({} bytes a table, {} cached)", self.table_bytes, self.cache_bytes)
    }
}

/// All table files of a node.
pub struct Keeper {
    disk: Arc<dyn Disk>,
    options: Options,
    manifest: Mutex<Manifest>,
    shelf: Arc<Shelf>,
    cache: Arc<Cache>,
    /// Number of the next table file.
    next: AtomicU64,
    /// Held by whoever changes checkpoints: tablets of one share its folder.
    checkpoints: Mutex<()>,
}

impl Keeper {
    /// Opens all tablets of which something is on the disk, each with its note, and throws away what nobody needs. `date`
    /// is the present date.
    pub fn open(disk: Arc<dyn Disk>, date: Timestamp, options: Options) -> Result<(Keeper, Tablets), Error> {
        for dir in [TABLES, INCOMING, manifest::DIR, trash::DIR] {
            disk.create_dir(dir).map_err(|source| Error::io(dir, "create", source))?;
        }
        disk.sync_dir("").map_err(|source| Error::io("the data folder", "sync", source))?;
        let (manifest, damaged) = Manifest::open(disk.clone())?;
        let named: BTreeSet<u64> =
            manifest.states().flat_map(|state| &state.tables).map(|placed| placed.number).collect();
        let mut greatest = named.last().copied().unwrap_or(0);
        for name in disk.list(TABLES).map_err(|source| Error::io(TABLES, "list", source))? {
            let Some(number) = name.strip_suffix(".sst").and_then(|number| number.parse().ok()) else { continue };
            greatest = greatest.max(number);
            if !named.contains(&number) {
                trash::put(&*disk, &format!("{TABLES}/{name}"), date)?;
            }
        }
        let (manifest, next) = (Mutex::new(manifest), AtomicU64::new(greatest + 1));
        let cache = Cache::new(options.cache_bytes);
        let shelf = Arc::default();
        let keeper = Keeper { disk, options, manifest, shelf, cache, next, checkpoints: Mutex::default() };
        keeper.remove_incoming(|_, _| true)?;
        let mut tablets = Tablets { sound: BTreeMap::new(), damaged };
        // Tablets that were made of one share its tables until they are merged.
        let mut open = BTreeMap::new();
        let states: Vec<State> = keeper.manifest.lock().states().cloned().collect();
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
                let Ok(file) = self.disk.open(&path) else { return Err(Error::corrupt(path, offset, what)) };
                Ok(Arc::new(Table::broken(file, path, Some(self.shelf.pin(number)), offset, what)))
            }
            other => other,
        };
        let mut tables = Vec::new();
        for Placed { number, run } in &state.tables {
            let table = match opened.get(number) {
                Some(table) => Arc::clone(table),
                None => open(number)?,
            };
            opened.insert(*number, Arc::clone(&table));
            tables.push((*run, table));
        }
        let version = Version::new(tables, state.flushed, state.note.clone());
        check_version(state.tablet, &version)?;
        Ok(Tablet::of_version(state.tablet, version))
    }

    /// Does a job. An error names the file; [`Error::is_full`] says that the job may be run again once there is room.
    pub fn run(&self, job: Job) -> Result<Done, Error> {
        // What cannot be removed now is found at the next start at the latest.
        let _ = self.sweep();
        match job {
            Job::Flush { tablet, memtable, after, upto, clock, note, inherited, schema } => {
                let (after_too, copied) = match &inherited {
                    Inherited::Copied(tables) => (Lsn::ZERO, &tables[..]),
                    Inherited::Nothing | Inherited::Shared(_) => (after, &[][..]),
                };
                let (origin, into) =
                    (Origin { tablet, after: after_too, upto, clock }, RunId { age: upto, ..RunId::default() });
                let mut output = Output::new(self, &schema, origin, into, output::localities(&schema));
                write_all(memtable, copied, &mut output)?;
                let tables = output.finish()?;
                let (added, note_too) = (tables.iter().map(placed).collect(), note.clone());
                let edit = match &inherited {
                    Inherited::Nothing => Edit::Flushed { added, after, upto, note: note_too },
                    Inherited::Copied(_) => Edit::Whole { tables: added, upto, note: note_too },
                    Inherited::Shared(shared) => {
                        let tables = shared.iter().map(placed).chain(added).collect();
                        Edit::Whole { tables, upto, note: note_too }
                    }
                };
                self.edit(tablet, edit, &tables)?;
                Ok(Done::Flushed { tablet, tables, upto, note })
            }
            Job::Merge { tablet, plan, into, localities, schema, now, bounds } => {
                let inputs: Vec<&Arc<Table>> = plan.groups.iter().flat_map(|group| &group.tables).collect();
                let properties = || inputs.iter().map(|table| table.properties());
                let origin = Origin {
                    tablet,
                    after: properties().map(|properties| properties.after).min().unwrap_or_default(),
                    upto: properties().map(|properties| properties.upto).max().unwrap_or_default(),
                    clock: properties().map(|properties| properties.clock).max().unwrap_or_default(),
                };
                let mut output = Output::new(self, &schema, origin, into, localities);
                for group in &plan.groups {
                    compaction::merge(&self.to_be_merged(group), &schema, now, &bounds, &mut output)?;
                }
                let built = output.finish()?;
                let moved = plan.moved.iter().map(|table| (into, Arc::clone(table)));
                let added: Vec<(RunId, Arc<Table>)> = built.iter().cloned().chain(moved).collect();
                let removed: Vec<u64> = inputs.into_iter().chain(&plan.moved).map(|table| table.number()).collect();
                let edit = Edit::Merged { removed: removed.clone(), added: added.iter().map(placed).collect() };
                self.edit(tablet, edit, &built)?;
                Ok(Done::Merged { tablet, removed, added })
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
            Job::Checkpoint { view, part } => {
                let _one_at_a_time = self.checkpoints.lock();
                let is_named = |number| self.manifest.lock().names(number);
                checkpoint::add(&self.disk, &part, &view, is_named).map(Done::Checkpointed)
            }
            Job::Checkpoints(order) => {
                let _one_at_a_time = self.checkpoints.lock();
                checkpoint::carry_out(&self.disk, order).map(Done::Checkpoints)
            }
            Job::Empty { until, bytes } => {
                let (bytes, more) = trash::empty(&*self.disk, until, bytes)?;
                Ok(Done::Emptied { bytes, more })
            }
        }
    }

    /// The tables as a merge reads them. Of what cannot be opened so, the usual way says what is wrong.
    fn to_be_merged(&self, group: &compaction::Group) -> compaction::Group {
        let directly = |table: &Arc<Table>| {
            let usual = self.disk.open_with(table.path(), Hint::Direct).ok().filter(|_| table.damage().is_none());
            let opened = usual.and_then(|file| Table::open(file, table.path().into(), None, &Cache::none()).ok());
            opened.map_or_else(|| Arc::clone(table), Arc::new)
        };
        match self.options.direct {
            true => compaction::Group { tables: group.tables.iter().map(directly).collect(), ..*group },
            false => group.clone(),
        }
    }

    /// All files of a tablet go to the trash; those who have them open may read on. The manifest goes first: tables that
    /// a crash leaves behind follow at the next start.
    fn throw_away(&self, tablet: TabletId, date: Timestamp) -> Result<(), Error> {
        let tables = self.manifest.lock().throw_away(tablet, date)?;
        let shared = |number: &u64| self.manifest.lock().names(*number);
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
        let shared = free.extract_if(.., |number| manifest.names(*number));
        self.shelf.retire(shared);
        for (at, &number) in free.iter().enumerate() {
            if let Err(error) = remove(&*self.disk, &path_of(number)) {
                self.shelf.retire(free[at..].iter().copied());
                return Err(error);
            }
        }
        Ok(())
    }

    /// The blocks in memory.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Where files are.
    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    /// A table ends at the first row after so many bytes.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.options.table_bytes
    }

    /// So many bytes are about to be written.
    pub(crate) fn pace(&self, bytes: u64) {
        self.options.pace.spend(bytes);
    }

    /// Number and path of the next table file.
    pub(crate) fn next_path(&self) -> (u64, String) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number, path_of(number))
    }

    /// Opens a table that has just been written.
    pub(crate) fn open_written(&self, file: Arc<dyn File>, path: String, number: u64) -> Result<Arc<Table>, Error> {
        Ok(Arc::new(Table::open(file, path, Some(self.shelf.pin(number)), &self.cache)?))
    }

    /// The names of all tables are durable when it returns.
    pub(crate) fn sync_tables(&self) -> Result<(), Error> {
        self.disk.sync_dir(TABLES).map_err(|source| Error::io(TABLES, "sync", source))
    }

    /// Nobody needs what was begun under these numbers.
    pub(crate) fn forget(&self, numbers: &[u64]) {
        if !numbers.is_empty() {
            self.shelf.retire(numbers.iter().copied());
            let _ = self.sweep();
        }
    }

    /// Makes an edit take effect. If that fails for certain, the tables that it would have brought are removed.
    fn edit(&self, tablet: TabletId, edit: Edit, built: &[(RunId, Arc<Table>)]) -> Result<(), Error> {
        let edited = self.manifest.lock().edit(tablet, edit);
        match edited {
            Ok(gone) => {
                self.shelf.retire(gone);
                Ok(())
            }
            Err(failed) => {
                if failed.certain {
                    self.shelf.retire(built.iter().map(|(_, table)| table.number()));
                }
                Err(failed.error)
            }
        }
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
        self.pace(bytes.len() as u64);
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
    ) -> Result<Vec<(RunId, Arc<Table>)>, Error> {
        let mut received = Vec::new();
        for (file, info) in (0..).zip(files) {
            received.push((info.run, self.check_received(incoming(tablet, attempt, file), info)?));
        }
        check_version(tablet, &Version::new(received.clone(), upto, Bytes::new()))?;

        let number = |_: &FileInfo| self.next.fetch_add(1, Ordering::Relaxed);
        let tables: Vec<Placed> = files.iter().map(|info| Placed { number: number(info), run: info.run }).collect();
        for ((_, table), placed) in received.iter().zip(&tables) {
            let renamed = self.disk.rename(table.path(), &path_of(placed.number));
            renamed.map_err(|source| Error::io(table.path(), "rename", source))?;
        }
        if !files.is_empty() {
            self.sync_tables()?;
        }
        let open = |placed: &Placed| self.open_table(placed.number).map(|table| (placed.run, table));
        let opened = tables.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        self.edit(tablet, Edit::Whole { tables, upto, note }, &opened)?;
        let _ = self.remove_incoming(|of, _| of == tablet);
        Ok(opened)
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
        match view.version.table(file as usize) {
            Some(table) => table.read_raw(offset, len.min(MOST_FETCHED)),
            None => Ok(Bytes::new()),
        }
    }

    fn open_table(&self, number: u64) -> Result<Arc<Table>, Error> {
        let path = path_of(number);
        let file: Arc<dyn File> = match self.disk.open(&path) {
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::corrupt(&path, 0, "a manifest names it, and it is not there"));
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
        write!(f, "Keeper({} tablets)", self.manifest.lock().states().count())
    }
}

/// Everything that a memtable and tables have, as it is.
fn write_all(memtable: Arc<Memtable>, tables: &[Arc<Table>], output: &mut Output<'_>) -> Result<(), Error> {
    let mut merge = Merge::default();
    merge.add_memtable(memtable, Lsn(u64::MAX), &[], None);
    for table in tables {
        merge.add_table(Arc::clone(table), &[], Purpose::Background)?;
    }
    while let (Some(key), Some(parts)) = (merge.key(), merge.parts()?) {
        output.add(&parts, key, &merge.value())?;
        merge.advance()?;
    }
    Ok(())
}

/// The tables of a tablet are not younger than it, and those of a run have no row in common. Some may be of a tablet that
/// it was made of, which is an older one.
pub(crate) fn check_version(tablet: TabletId, version: &Version) -> Result<(), Error> {
    for table in version.tables().filter(|table| table.damage().is_none()) {
        let properties = table.properties();
        if properties.tablet > tablet || properties.upto < properties.after {
            let what = format!("it does not belong to {tablet}");
            return Err(Error::corrupt(table.path(), 0, what));
        }
        if properties.upto > version.flushed {
            return Err(Error::corrupt(manifest::DIR, 0, format!("tables of {tablet} are younger than it")));
        }
    }
    for run in version.runs() {
        if let Some((left, right)) = run.clash() {
            let what = format!("it has rows that {} has too, and both are of one run of {tablet}", right.path());
            return Err(Error::corrupt(left.path(), 0, what));
        }
    }
    Ok(())
}

fn placed((run, table): &(RunId, Arc<Table>)) -> Placed {
    Placed { number: table.number(), run: *run }
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
