//! A disk in memory that behaves as badly as a real one: it forgets what was not synced, tears writes, rots and fills.
//!
//! ```text
//!   write_at ──▶ seen by readers        ──sync──▶      durable
//!                     └────────── crash: per write nothing, all, or some of its sectors ──▶ durable
//! ```
//!
//! Clones share the disk. What happens at a crash follows from the seed alone. After a crash the files that were open
//! fail, so that a process that died cannot write; the disk itself serves the next one.

mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use self::content::{Content, Draw, Unsynced};
use crate::{Disk, File, check_dir, check_name};

/// Files in memory, with the faults that can be asked for.
#[derive(Clone, Default)]
pub struct MemDisk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A sync that was held may go on.
    let_go: Condvar,
}

impl MemDisk {
    /// An empty disk without limit.
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// The machine loses its power and starts again: what was not synced is lost, kept or torn, as `seed` has it.
    /// Open files fail from now on.
    pub fn crash(&self, seed: u64) {
        self.0.state.lock().crash(&mut Draw(seed));
    }

    /// The process ends but the machine lives on: open files fail from now on, and nothing is lost.
    pub fn kill(&self) {
        let mut state = self.0.state.lock();
        state.generation += 1;
        state.power = None;
    }

    /// After `operations` more that change something, every operation fails until [`MemDisk::crash`] or
    /// [`MemDisk::kill`]. Finds the crash that matters when tried with every number.
    pub fn power_fails_after(&self, operations: u64) {
        self.0.state.lock().power = Some(operations);
    }

    /// How much may be written in all; `None` for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.state.lock().capacity = bytes;
    }

    /// The next sync of a file fails with EIO, and what it should have made durable is lost at the next crash, even
    /// though it can still be read and a later sync succeeds (as Linux does it).
    pub fn fail_next_sync(&self) {
        self.0.state.lock().fail_sync = true;
    }

    /// Whether syncs of this file hang, before they do anything, until they are let go.
    pub fn hold_syncs(&self, path: &str, hold: bool) {
        let held = &mut self.0.state.lock().hold_syncs;
        if hold {
            held.insert(path.to_owned());
        } else {
            held.remove(path);
            self.0.let_go.notify_all();
        }
    }

    /// Whether reads of this file fail with EIO from now on.
    pub fn fail_reads(&self, path: &str, fail: bool) {
        let reads = &mut self.0.state.lock().fail_reads;
        if fail {
            reads.insert(path.to_owned())
        } else {
            reads.remove(path)
        };
    }

    /// Whether reads of any file fail with EIO from now on.
    pub fn fail_all_reads(&self, fail: bool) {
        self.0.state.lock().fail_all_reads = fail;
    }

    /// The next write that extends a file in `dir` lands on what was written to the file before, and leaves zeros
    /// where it belongs. The disk says that all is well.
    pub fn misdirect_next_write(&self, dir: &str, seed: u64) {
        self.0.state.lock().misdirect = Some((dir.to_owned(), Draw(seed)));
    }

    /// Bit rot: flips the bits of `mask` in one byte, durably. False if there is no such byte.
    pub fn flip(&self, path: &str, offset: u64, mask: u8) -> bool {
        let mut byte = [0];
        self.0.state.lock().rot(path, offset, 1, |old| {
            byte[0] = old[0] ^ mask;
            byte.to_vec()
        })
    }

    /// Puts other bytes in place, durably. False if the file is not that long.
    pub fn corrupt(&self, path: &str, offset: u64, bytes: &[u8]) -> bool {
        self.0.state.lock().rot(path, offset, bytes.len(), |_| bytes.to_vec())
    }

    /// Syncs of files and folders so far, to count what an operation costs.
    pub fn syncs(&self) -> u64 {
        self.0.state.lock().syncs
    }

    /// Bytes in all files.
    pub fn used(&self) -> u64 {
        self.0.state.lock().used()
    }
}

/// Which file, whatever its name is now.
type Number = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    File(Number),
    Folder,
}

/// One change of names, which happens as a whole or not at all.
type Renaming = Vec<(String, Option<Entry>)>;

#[derive(Default)]
struct Node {
    live: Content,
    durable: Content,
    unsynced: Vec<Unsynced>,
}

#[derive(Default)]
struct State {
    names: BTreeMap<String, Entry>,
    durable_names: BTreeMap<String, Entry>,
    /// In the order in which they were made.
    unsynced_names: Vec<Renaming>,
    /// Files that have a name, durable or not, and those that are only open: freed at the next crash.
    nodes: BTreeMap<Number, Node>,
    next: Number,
    /// Rises with each crash; an open file of an earlier one is dead.
    generation: u64,
    power: Option<u64>,
    capacity: Option<u64>,
    fail_sync: bool,
    fail_reads: BTreeSet<String>,
    hold_syncs: BTreeSet<String>,
    fail_all_reads: bool,
    misdirect: Option<(String, Draw)>,
    syncs: u64,
}

impl State {
    /// Before anything that changes the disk.
    fn change(&mut self) -> io::Result<()> {
        match &mut self.power {
            Some(0) => Err(dead()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn look(&self) -> io::Result<()> {
        if self.power == Some(0) { Err(dead()) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        let number = |entry: &Entry| if let Entry::File(number) = entry { Some(*number) } else { None };
        let mut files: Vec<Number> = self.names.values().filter_map(number).collect();
        // A file that has several names takes its room once.
        files.sort_unstable();
        files.dedup();
        files.into_iter().map(|number| self.node(number).live.len).sum()
    }

    fn node(&self, number: Number) -> &Node {
        self.nodes.get(&number).expect("files are freed only when no name and no open file of this generation is left")
    }

    fn node_mut(&mut self, number: Number) -> &mut Node {
        self.nodes
            .get_mut(&number)
            .expect("files are freed only when no name and no open file of this generation is left")
    }

    fn find(&self, path: &str) -> io::Result<Entry> {
        if path.is_empty() { Ok(Entry::Folder) } else { self.names.get(path).copied().ok_or_else(|| missing(path)) }
    }

    fn find_file(&self, path: &str) -> io::Result<Number> {
        match self.find(path)? {
            Entry::File(number) => Ok(number),
            Entry::Folder => Err(io::Error::new(ErrorKind::IsADirectory, format!("{path} is a folder"))),
        }
    }

    fn find_folder(&self, path: &str) -> io::Result<()> {
        match self.find(path)? {
            Entry::Folder => Ok(()),
            Entry::File(_) => Err(io::Error::new(ErrorKind::NotADirectory, format!("{path} is a file"))),
        }
    }

    fn rename(&mut self, renaming: Renaming) {
        for (path, entry) in &renaming {
            set(&mut self.names, path, *entry);
        }
        self.unsynced_names.push(renaming);
    }

    /// Makes the names in `dir` durable, and with them whatever came before to the same paths.
    fn sync_dir(&mut self, dir: &str) {
        let mut paths = BTreeSet::new();
        let mut chosen = vec![false; self.unsynced_names.len()];
        for (at, renaming) in self.unsynced_names.iter().enumerate().rev() {
            if renaming.iter().any(|(path, _)| parent(path) == dir || paths.contains(path)) {
                chosen[at] = true;
                paths.extend(renaming.iter().map(|(path, _)| path.clone()));
            }
        }
        let mut chosen = chosen.into_iter();
        let durable = &mut self.durable_names;
        self.unsynced_names.retain(|renaming| {
            let now = chosen.next() == Some(true);
            if now {
                renaming.iter().for_each(|(path, entry)| set(durable, path, *entry));
            }
            !now
        });
    }

    /// Fails if a file of `now` bytes has no room to become `then` bytes long.
    fn reserve(&self, now: u64, then: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if then > now && self.used() + (then - now) > capacity => {
                Err(io::Error::from(ErrorKind::StorageFull))
            }
            _ => Ok(()),
        }
    }

    /// Bytes that may still be written.
    fn room(&self) -> u64 {
        self.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(self.used()))
    }

    /// Where a write of `len` bytes to a file that is `now` bytes long lands.
    fn lands_at(&mut self, path: &str, now: u64, offset: u64, len: u64) -> u64 {
        let extends = offset >= now && now > 0 && len > 0;
        match self.misdirect.take_if(|(dir, _)| extends && parent(path) == dir) {
            Some((_, mut draw)) => draw.below(now.min(offset.saturating_sub(len) + 1).max(1)),
            None => offset,
        }
    }

    fn rot(&mut self, path: &str, offset: u64, len: usize, change: impl FnOnce(&[u8]) -> Vec<u8>) -> bool {
        let Ok(number) = self.find_file(path) else { return false };
        let node = self.node_mut(number);
        let mut old = vec![0; len];
        if node.live.read(offset, &mut old) < len {
            return false;
        }
        let new = change(&old);
        node.live.write(offset, &new);
        if offset + len as u64 <= node.durable.len {
            node.durable.write(offset, &new);
        }
        true
    }

    fn crash(&mut self, draw: &mut Draw) {
        self.generation += 1;
        (self.power, self.fail_sync) = (None, false);
        // Names: what touches a path after something lost did is lost too.
        let mood = draw.mood();
        let mut lost = BTreeSet::new();
        for renaming in std::mem::take(&mut self.unsynced_names) {
            let whole = !renaming.iter().any(|(path, _)| lost.contains(path));
            if whole && mood.keeps(draw) {
                renaming.iter().for_each(|(path, entry)| set(&mut self.durable_names, path, *entry));
            } else {
                lost.extend(renaming.into_iter().map(|(path, _)| path));
            }
        }
        // A folder that is lost takes with it what is in it. Parents sort before children.
        self.names.clear();
        for (path, entry) in std::mem::take(&mut self.durable_names) {
            if parent(&path).is_empty() || self.names.get(parent(&path)) == Some(&Entry::Folder) {
                self.names.insert(path, entry);
            }
        }
        self.durable_names = self.names.clone();
        let named: BTreeSet<Number> = self
            .names
            .values()
            .filter_map(|entry| if let Entry::File(number) = entry { Some(*number) } else { None })
            .collect();
        self.nodes.retain(|number, _| named.contains(number));
        for node in self.nodes.values_mut() {
            let mood = draw.mood();
            for unsynced in std::mem::take(&mut node.unsynced) {
                if mood.keeps(draw) {
                    unsynced.keep(&mut node.durable);
                } else if mood.tears() && draw.below(2) == 0 {
                    unsynced.tear(&mut node.durable, draw);
                }
            }
            node.live = node.durable.clone();
        }
    }
}

impl Disk for MemDisk {
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        check_name(path)?;
        let mut state = self.0.state.lock();
        state.change()?;
        state.find_folder(parent(path))?;
        let number = match state.find_file(path) {
            Ok(number) => {
                let node = state.node_mut(number);
                node.live.set_len(0);
                node.unsynced.push(Unsynced::Len(0));
                number
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let number = state.next;
                state.next += 1;
                state.nodes.insert(number, Node::default());
                state.rename(vec![(path.to_owned(), Some(Entry::File(number)))]);
                number
            }
            Err(error) => return Err(error),
        };
        Ok(self.handle(&state, number, path))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        check_name(path)?;
        let state = self.0.state.lock();
        state.look()?;
        Ok(self.handle(&state, state.find_file(path)?, path))
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        check_dir(path)?;
        let state = self.0.state.lock();
        state.look()?;
        Ok(state.find(path).is_ok())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        check_dir(dir)?;
        let state = self.0.state.lock();
        state.look()?;
        state.find_folder(dir)?;
        let within = state.names.keys().filter(|path| parent(path) == dir);
        Ok(within.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        check_name(path)?;
        let mut state = self.0.state.lock();
        state.change()?;
        state.find_folder(parent(path))?;
        match state.find(path) {
            Ok(Entry::Folder) => Ok(()),
            Ok(Entry::File(_)) => Err(io::Error::new(ErrorKind::AlreadyExists, format!("{path} is a file"))),
            Err(_) => {
                state.rename(vec![(path.to_owned(), Some(Entry::Folder))]);
                Ok(())
            }
        }
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        check_name(path)?;
        let mut state = self.0.state.lock();
        state.change()?;
        state.find_file(path)?;
        state.rename(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn remove_dir_all(&self, path: &str) -> io::Result<()> {
        check_name(path)?;
        let mut state = self.0.state.lock();
        state.change()?;
        state.find_folder(path)?;
        let below = format!("{path}/");
        let mut gone: Vec<String> = state.names.keys().filter(|name| name.starts_with(&below)).cloned().collect();
        gone.push(path.to_owned());
        for name in gone {
            state.rename(vec![(name, None)]);
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let mut state = self.0.state.lock();
        state.change()?;
        let number = state.find_file(from)?;
        state.find_folder(parent(to))?;
        match state.find(to) {
            Ok(Entry::Folder) => return Err(io::Error::new(ErrorKind::IsADirectory, format!("{to} is a folder"))),
            Ok(Entry::File(same)) if same == number => return Ok(()),
            _ => {}
        }
        state.rename(vec![(from.to_owned(), None), (to.to_owned(), Some(Entry::File(number)))]);
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let mut state = self.0.state.lock();
        state.change()?;
        let number = state.find_file(from)?;
        state.find_folder(parent(to))?;
        if state.find(to).is_ok() {
            return Err(io::Error::new(ErrorKind::AlreadyExists, format!("{to} is there")));
        }
        state.rename(vec![(to.to_owned(), Some(Entry::File(number)))]);
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        check_dir(dir)?;
        let mut state = self.0.state.lock();
        state.change()?;
        state.find_folder(dir)?;
        state.syncs += 1;
        state.sync_dir(dir);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.0.state.lock();
        state.look()?;
        Ok(state.room())
    }
}

impl MemDisk {
    fn handle(&self, state: &State, number: Number, path: &str) -> Arc<dyn File> {
        Arc::new(MemFile { disk: self.0.clone(), number, generation: state.generation, path: path.to_owned() })
    }
}

struct MemFile {
    disk: Arc<Shared>,
    number: Number,
    generation: u64,
    /// The name it was opened by, to which faults are attached.
    path: String,
}

impl MemFile {
    fn state(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.disk.state.lock();
        state.look()?;
        if state.generation == self.generation { Ok(state) } else { Err(dead()) }
    }

    /// Makes the file `len` bytes long.
    fn resize(&self, mut state: parking_lot::MutexGuard<'_, State>, len: u64) -> io::Result<()> {
        state.change()?;
        state.reserve(state.node(self.number).live.len, len)?;
        let node = state.node_mut(self.number);
        node.live.set_len(len);
        node.unsynced.push(Unsynced::Len(len));
        Ok(())
    }
}

impl File for MemFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let state = self.state()?;
        if state.fail_all_reads || state.fail_reads.contains(&self.path) {
            return Err(broken());
        }
        Ok(state.node(self.number).live.read(offset, into))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        state.change()?;
        let end = offset.checked_add(bytes.len() as u64).ok_or(ErrorKind::FileTooLarge)?;
        let now = state.node(self.number).live.len;
        // What fits is written before the disk says that it is full.
        let (bytes, result) = match state.reserve(now, end) {
            Ok(()) => (bytes, Ok(())),
            Err(full) => {
                let fits = (now + state.room()).saturating_sub(offset).min(bytes.len() as u64);
                (&bytes[..fits as usize], Err(full))
            }
        };
        if result.is_err() && bytes.is_empty() {
            return result;
        }
        let to = state.lands_at(&self.path, now, offset, bytes.len() as u64);
        let node = state.node_mut(self.number);
        if to != offset {
            let end = offset + bytes.len() as u64;
            node.live.set_len(end);
            node.unsynced.push(Unsynced::Len(end));
        }
        node.live.write(to, bytes);
        node.unsynced.push(Unsynced::Write { offset: to, bytes: bytes.to_vec() });
        result
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        while state.hold_syncs.contains(&self.path) {
            self.disk.let_go.wait(&mut state);
        }
        if state.generation != self.generation {
            return Err(dead());
        }
        state.change()?;
        state.syncs += 1;
        let fails = std::mem::take(&mut state.fail_sync);
        let node = state.node_mut(self.number);
        let unsynced = std::mem::take(&mut node.unsynced);
        if fails {
            return Err(broken());
        }
        node.durable.follow(&unsynced, &node.live);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.node(self.number).live.len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let state = self.state()?;
        if state.node(self.number).live.len >= len { Ok(()) } else { self.resize(state, len) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(self.state()?, len)
    }
}

fn set(names: &mut BTreeMap<String, Entry>, path: &str, entry: Option<Entry>) {
    match entry {
        Some(entry) => names.insert(path.to_owned(), entry),
        None => names.remove(path),
    };
}

/// The folder that `path` is in.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn missing(path: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("{path} does not exist"))
}

/// EIO, as the kernel has it.
fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn dead() -> io::Error {
    io::Error::other("the machine has crashed")
}

#[cfg(test)]
mod tests;
