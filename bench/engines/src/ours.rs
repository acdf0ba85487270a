//! Our engine as a storage node uses it, without replication: one log, one tablet, one family, one column.
//!
//! ```text
//!   writers ──▶ queue ──▶ whoever finds no leader leads: append (and sync) what has queued, apply it, wake the others
//!                             │ log                                 │ tablet, frozen when its memtable is full
//!   readers ◀── view ◀────────┼─────────────────────────────────────┤
//!                             └── trim ◀── workers: Keeper::run ◀── jobs
//! ```
//!
//! A node has a thread for the log and one for the tablet; here the writers' own threads do it in turn, so that a lone
//! writer need not wait for another thread to wake up. What is acknowledged is in the log's file, and synced if asked for.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use ::disk::{Disk, KernelDisk};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use model::{
    Change, Compaction, Epoch, Family, FamilyId, Lsn, Partition, ReadOptions, Retention, RowRange, Schema, TableId,
    TabletId, Timestamp,
};
use parking_lot::{Condvar, Mutex};
use store::log::{self, Crew, Kind, Log, Part, Record, Syncing};
use store::{Done, Job, Keeper, Tablet, Urgency, View, keeper};

use crate::engine::{BLOCK, Each, Engine, Reader, Settings, WORKERS};

const TABLET: TabletId = TabletId(1);
const FAMILY: FamilyId = FamilyId(1);
const COLUMN: Bytes = Bytes::from_static(b"v");
/// Bytes of the log that are read at once when it is replayed.
const REPLAY: usize = 8 << 20;
/// Of what is not synced, the log keeps the records in memory: a worker syncs it when there is so much of it.
const SYNC_EVERY: usize = 8 << 20;

pub struct Ours {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    keeper: Keeper,
    schema: Arc<Schema>,
    buffer: usize,
    queue: Mutex<Queue>,
    /// Those whose records are of an even group, and of an odd one.
    turns: [Condvar; 2],
    log: Mutex<Journal>,
    shard: Mutex<Shard>,
    /// A job is there, or the end.
    work: Condvar,
    /// A job is done.
    done: Condvar,
}

/// Records that wait for the log.
#[derive(Default)]
struct Queue {
    waiting: Vec<Record>,
    durable: bool,
    /// Number of the group that is waiting.
    group: u64,
    /// The group before it is being written.
    led: bool,
    /// Groups before this one are written.
    done: u64,
    /// Of the last record.
    last: Lsn,
}

/// The log, and how much of it nobody has begun to sync.
struct Journal {
    log: Log,
    unsynced: usize,
}

/// The tablet, and the work that it has for others.
struct Shard {
    tablet: Tablet,
    syncs: VecDeque<Syncing>,
    jobs: VecDeque<Job>,
    running: usize,
    closed: bool,
}

impl Ours {
    pub fn open(folder: &Path, settings: &Settings, compaction: Compaction) -> Result<Ours> {
        let disk: Arc<dyn Disk> = Arc::new(KernelDisk::open(folder)?);
        let (log, recovered) = Log::open_with(Arc::clone(&disk), "log", log::Options::default(), &Threads)?;
        let options = keeper::Options { cache_bytes: settings.cache as u64, ..Default::default() };
        let (keeper, mut tablets) = Keeper::open(disk, Timestamp(0), options)?;
        if !recovered.notes.is_empty() || !tablets.damaged.is_empty() {
            bail!("damaged: {:?} {:?}", recovered.notes, tablets.damaged);
        }
        let mut tablet = tablets.sound.remove(&TABLET).map_or_else(|| Tablet::new(TABLET), |(tablet, _)| tablet);
        replay(&log, &mut tablet)?;
        let last = tablet.applied();
        let shared = Arc::new(Shared {
            keeper,
            schema: Arc::new(schema(compaction)),
            buffer: settings.buffer,
            queue: Mutex::new(Queue { last, ..Queue::default() }),
            turns: Default::default(),
            log: Mutex::new(Journal { log, unsynced: 0 }),
            shard: Mutex::new(Shard {
                tablet,
                syncs: VecDeque::new(),
                jobs: VecDeque::new(),
                running: 0,
                closed: false,
            }),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let worker = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.work())
        };
        Ok(Ours { workers: (0..WORKERS).map(worker).collect(), shared })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.shared.shard.lock().closed = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                eprintln!("a worker of ours panicked");
            }
        }
    }
}

/// Reads segments of the log at the same time.
struct Threads;

impl Crew for Threads {
    fn width(&self) -> usize {
        WORKERS
    }

    fn run<'a>(&self, parts: Vec<Part<'a>>) {
        let parts = Mutex::new(parts.into_iter());
        let next = || parts.lock().next();
        std::thread::scope(|scope| {
            (0..WORKERS).for_each(|_| {
                _ = scope.spawn(|| {
                    while let Some(part) = next() {
                        part()
                    }
                })
            });
        });
    }
}

/// What the log has that the tables have not.
fn replay(log: &Log, tablet: &mut Tablet) -> Result<()> {
    let reader = log.reader();
    let upto = reader.last(TABLET);
    while tablet.applied() < upto {
        for record in reader.read(TABLET, tablet.applied().next(), REPLAY)? {
            apply(tablet, &record)?;
        }
    }
    Ok(())
}

fn schema(compaction: Compaction) -> Schema {
    let mut storage = model::Storage { compaction, ..Default::default() };
    for locality in &mut storage.localities {
        locality.block_bytes = BLOCK as u32;
    }
    Schema {
        table: TableId(1),
        name: String::from("pairs"),
        version: 1,
        families: vec![Family {
            id: FAMILY,
            name: String::from("f"),
            retention: Retention::Versions(1),
            loosened: false,
            locality: model::LocalityId::default(),
        }],
        next_family: FamilyId(2),
        partition: Partition::Range { splits: Vec::new() },
        replicas: 1,
        min_replicas: 1,
        storage,
    }
}

/// A record's body: the length of the key, the key, and then, unless it is a deletion, a value after a zero.
fn body(key: &[u8], value: Option<&[u8]>) -> Bytes {
    let mut body = Vec::with_capacity(2 + key.len() + value.map_or(0, |value| 1 + value.len()));
    body.extend_from_slice(&(key.len() as u16).to_le_bytes());
    body.extend_from_slice(key);
    if let Some(value) = value {
        body.push(0);
        body.extend_from_slice(value);
    }
    Bytes::from(body)
}

fn apply(tablet: &mut Tablet, record: &Record) -> Result<()> {
    let key = record.body.first_chunk().map(|len| 2 + usize::from(u16::from_le_bytes(*len)));
    let key_end = key.filter(|&end| end <= record.body.len()).context("a record of the log has no key")?;
    let row = record.body.slice(2..key_end);
    let change = if record.body.len() > key_end {
        let value = record.body.slice(key_end + 1..);
        Change::Put { family: FAMILY, qualifier: COLUMN, timestamp: Timestamp::SERVER, value }
    } else {
        Change::DeleteRow
    };
    tablet.apply(record.lsn, &row, &[change], Timestamp(record.lsn.0 as i64));
    Ok(())
}

impl Shared {
    /// Group commit: returns when the records are in the log, synced if `durable`, and in the tablet.
    fn write(&self, bodies: impl Iterator<Item = Bytes>, durable: bool) {
        let mut queue = self.queue.lock();
        for body in bodies {
            queue.last = queue.last.next();
            let lsn = queue.last;
            let (epoch, committed, kind) = (Epoch(1), lsn.prev(), Kind::Command);
            queue.waiting.push(Record { tablet: TABLET, lsn, epoch, committed, kind, body });
        }
        queue.durable |= durable;
        let own = queue.group;
        while queue.led && queue.done <= own {
            self.turns[(own % 2) as usize].wait(&mut queue);
        }
        if queue.done > own {
            return;
        }
        let records = std::mem::take(&mut queue.waiting);
        let durable = std::mem::take(&mut queue.durable);
        (queue.led, queue.group) = (true, own + 1);
        drop(queue);
        self.lead(&records, durable).unwrap_or_else(|error| die(&error));
        let mut queue = self.queue.lock();
        (queue.led, queue.done) = (false, own + 1);
        drop(queue);
        // The others of this group are done, and one of the next may lead.
        self.turns[(own % 2) as usize].notify_all();
        self.turns[((own + 1) % 2) as usize].notify_one();
    }

    fn lead(&self, records: &[Record], durable: bool) -> Result<()> {
        let mut journal = self.log.lock();
        journal.log.append(records)?;
        let mut syncing = None;
        if durable {
            journal.log.sync()?;
            journal.unsynced = 0;
        } else {
            journal.unsynced += records.iter().map(|record| record.body.len()).sum::<usize>();
            if journal.unsynced >= SYNC_EVERY {
                journal.unsynced = 0;
                syncing = journal.log.begin_sync();
            }
        }
        drop(journal);
        let mut shard = self.shard.lock();
        if let Some(syncing) = syncing {
            shard.syncs.push_back(syncing);
            self.work.notify_one();
        }
        // Two memtables at most, as the others have.
        while shard.tablet.weight() >= self.buffer && shard.tablet.is_flushing() {
            self.done.wait(&mut shard);
        }
        records.iter().try_for_each(|record| apply(&mut shard.tablet, record))?;
        self.flush_if_full(&mut shard);
        Ok(())
    }

    fn flush_if_full(&self, shard: &mut Shard) {
        if shard.tablet.weight() >= self.buffer
            && let Some(job) = shard.tablet.freeze(Bytes::new(), &self.schema)
        {
            self.submit(shard, job);
        }
    }

    fn submit(&self, shard: &mut Shard, job: Job) {
        shard.jobs.push_back(job);
        self.work.notify_one();
    }

    /// A worker: syncs and does jobs until the end.
    fn work(&self) {
        let mut shard = self.shard.lock();
        loop {
            if let Some(syncing) = shard.syncs.pop_front() {
                drop(shard);
                let result = syncing.run();
                self.log.lock().log.synced(&syncing, result).unwrap_or_else(|error| die(&error.into()));
                shard = self.shard.lock();
                continue;
            }
            let Some(job) = shard.jobs.pop_front() else {
                if shard.closed {
                    return;
                }
                self.work.wait(&mut shard);
                continue;
            };
            shard.running += 1;
            drop(shard);
            let done = self.keeper.run(job).unwrap_or_else(|error| die(&error.into()));
            let flushed = matches!(done, Done::Flushed { .. });
            shard = self.shard.lock();
            shard.tablet.install(done);
            self.flush_if_full(&mut shard);
            if let Some(job) = shard.tablet.choose(&self.schema, Urgency::Busy) {
                self.submit(&mut shard, job);
            }
            self.done.notify_all();
            let floors = BTreeMap::from([(TABLET, shard.tablet.flushed())]);
            drop(shard);
            // Files that nobody needs any more would else stay until the next job.
            self.keeper.sweep().unwrap_or_else(|error| die(&error.into()));
            if flushed {
                self.log.lock().log.trim(&floors).unwrap_or_else(|error| die(&error.into()));
            }
            shard = self.shard.lock();
            shard.running -= 1;
            self.done.notify_all();
        }
    }
}

fn die(error: &anyhow::Error) -> ! {
    eprintln!("ours: {error:#}");
    std::process::exit(1)
}

impl Engine for Ours {
    fn put(&self, key: &[u8], value: &[u8], durable: bool) -> Result<()> {
        self.shared.write(std::iter::once(body(key, Some(value))), durable);
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.shared.write(std::iter::once(body(key, None)), false);
        Ok(())
    }

    fn put_many(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.shared.write(pairs.iter().map(|(key, value)| body(key, Some(value))), false);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.shared.log.lock().log.sync()?)
    }

    fn settle(&self) -> Result<()> {
        let mut shard = self.shared.shard.lock();
        loop {
            let schema = &self.shared.schema;
            let jobs = [shard.tablet.freeze(Bytes::new(), schema), shard.tablet.choose(schema, Urgency::Idle)];
            jobs.into_iter().flatten().for_each(|job| self.shared.submit(&mut shard, job));
            if shard.jobs.is_empty() && shard.running == 0 {
                return Ok(());
            }
            self.shared.done.wait(&mut shard);
        }
    }

    fn reader(&self) -> Result<Box<dyn Reader + '_>> {
        Ok(Box::new(OursReader { shared: &self.shared, options: ReadOptions::default() }))
    }
}

struct OursReader<'a> {
    shared: &'a Shared,
    options: ReadOptions,
}

impl OursReader<'_> {
    fn view(&self) -> View {
        self.shared.shard.lock().tablet.view()
    }
}

/// By which retention judges: nothing is too old.
const NOW: Timestamp = Timestamp(i64::MAX);

impl Reader for OursReader<'_> {
    fn get(&mut self, key: &[u8], each: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let row = self.view().row(key, &self.options, &self.shared.schema, NOW)?;
        let cell = row.as_ref().and_then(|row| row.cells.first());
        Ok(cell.map(|cell| each(&cell.value)).is_some())
    }

    fn scan(&mut self, from: &[u8], limit: usize, reverse: bool, each: Each<'_>) -> Result<()> {
        let view = self.view();
        let mut range = RowRange { start: Bytes::copy_from_slice(from), end: None };
        if reverse {
            range = RowRange { start: Bytes::new(), end: RowRange::one(range.start).end };
        }
        let mut left = limit;
        // It comes back early when it has passed many deleted rows.
        while left > 0 {
            let (options, schema) = (&self.options, &self.shared.schema);
            let scan = if reverse { View::scan_back } else { View::scan };
            let (rows, next) = scan(&view, &range, options, schema, NOW, left as u32, usize::MAX)?;
            for row in &rows {
                row.cells.iter().for_each(|cell| each(&row.key, &cell.value));
            }
            left -= rows.len();
            match next {
                Some(next) if reverse => range.end = Some(next),
                Some(next) => range.start = next,
                None => break,
            }
        }
        Ok(())
    }
}
