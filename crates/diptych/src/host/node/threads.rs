//! The threads beside the shard: one for the log, some for reads, some for jobs. Each takes work from an inbox and
//! puts what came of it into the shard's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram, counter, histogram};
use model::{Lsn, TabletId};
use node::api::Input;
use node::read::Read;
use store::log::{Log, LogReader, Record};
use store::{Done, Job, JobKind, Keeper};

use super::pace::Pacer;
use super::pulse::Pulse;
use super::shard::Arrival;
use crate::host::inbox::Inbox;

/// A full disk is looked at again this often.
const ROOM_RETRY: Duration = Duration::from_secs(1);
/// After so long without work the log gets a mark, as a witness for its last batch.
const IDLE: Duration = Duration::from_secs(1);
/// Bytes of bodies in one append, unless a single one is longer.
const APPEND_BYTES: usize = 256 << 20;
/// The shard hears of the log's size when it has changed so much.
const BYTES_STEP: u64 = 1 << 20;

/// How much less of a busy processor a worker gets.
const BACKGROUND: i32 = 10;

/// Starts a thread that lives as long as the process. If it panics, what we guarantee does not hold, and the process
/// stops rather than going on half alive.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) {
    let label = String::from(name);
    let guarded = move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
            die(&format!("the {label} thread met a bug in Diptych; please report the message above"));
        }
    };
    std::thread::Builder::new().name(String::from(name)).spawn(guarded).expect("a process may start some threads");
}

/// Ends the process: it cannot go on, and this is why.
pub fn die(why: &str) -> ! {
    tracing::error!(event = "process_stopped", "{why}");
    std::process::exit(1)
}

/// Work for the log thread.
pub enum LogWork {
    /// Append and sync.
    Append(Vec<Record>),
    /// Remove what is not needed: of each tablet the entries up to here.
    Trim(BTreeMap<TabletId, Lsn>),
}

/// The log thread: whatever has queued up while it synced shares the next append and the next sync.
pub struct LogThread {
    log: Log,
    work: Arc<Inbox<LogWork>>,
    shard: Arc<Inbox<Arrival>>,
    pulse: Arc<Pulse>,
    /// Hears how long syncs take.
    pacer: Arc<Pacer>,
    /// Not appended yet.
    pending: Vec<Record>,
    /// Records synced since the start.
    durable: u64,
    /// Whether the disk had room when it was last asked.
    room: bool,
    reported: Option<u64>,
    sync_time: Histogram,
    appended_bytes: Counter,
}

impl LogThread {
    /// Takes from `work`, tells `shard`.
    pub fn new(
        log: Log,
        work: Arc<Inbox<LogWork>>,
        shard: Arc<Inbox<Arrival>>,
        pulse: Arc<Pulse>,
        pacer: Arc<Pacer>,
    ) -> LogThread {
        LogThread {
            log,
            work,
            shard,
            pulse,
            pacer,
            pending: Vec::new(),
            durable: 0,
            room: true,
            reported: None,
            sync_time: histogram!("diptych_wal_fsync_duration_seconds"),
            appended_bytes: counter!("diptych_wal_append_bytes_total"),
        }
    }

    /// Works until the inbox is closed.
    pub fn run(mut self) {
        let mut batch = VecDeque::new();
        let mut marked = false;
        while self.work.drain(&mut batch, self.wakes_at(marked)) {
            self.pulse.begin();
            let idle = batch.is_empty() && self.pending.is_empty();
            if idle && !marked {
                self.mark();
            }
            marked = idle;
            let mut floors = None;
            for work in batch.drain(..) {
                match work {
                    LogWork::Append(records) if self.pending.is_empty() => self.pending = records,
                    LogWork::Append(records) => self.pending.extend(records),
                    LogWork::Trim(latest) => floors = Some(latest),
                }
            }
            self.write();
            if let Some(floors) = floors {
                self.trim(&floors);
            }
            self.prepare();
            self.pulse.end();
        }
    }

    /// One append, in all but monstrous cases, and one sync for everything that is pending. Without room it stays
    /// pending.
    fn write(&mut self) {
        let mut appended = 0;
        while appended < self.pending.len() {
            let piece = piece(&self.pending[appended..]);
            match self.log.append(piece) {
                Ok(()) => appended += piece.len(),
                Err(error) if error.is_full() => {
                    self.say_room(false);
                    break;
                }
                Err(error) => die(&format!("the log cannot be written: {error}")),
            }
        }
        if appended == 0 {
            return;
        }
        let begun = Instant::now();
        if let Err(error) = self.log.sync() {
            die(&format!("the log cannot be synced: {error}"));
        }
        let took = begun.elapsed();
        self.sync_time.record(took);
        self.pacer.saw(took);
        let bytes = self.pending.drain(..appended).map(|record| record.body.len() as u64).sum();
        self.appended_bytes.increment(bytes);
        self.durable += appended as u64;
        self.tell(Input::Durable(self.durable));
    }

    /// When to look up though there is no work.
    fn wakes_at(&self, marked: bool) -> Option<Instant> {
        match (self.room, marked) {
            (false, _) => Some(Instant::now() + ROOM_RETRY),
            (true, false) => Some(Instant::now() + IDLE),
            (true, true) => None,
        }
    }

    /// Nobody waits for it; but an error means that the log is broken.
    fn mark(&mut self) {
        if let Err(error) = self.log.mark().and_then(|()| self.log.sync()) {
            die(&format!("the log cannot be written: {error}"));
        }
    }

    fn trim(&mut self, floors: &BTreeMap<TabletId, Lsn>) {
        match self.log.trim(floors) {
            Ok(_) => {}
            Err(error) if error.is_full() => self.say_room(false),
            Err(error) => die(&format!("the log cannot be trimmed: {error}")),
        }
    }

    /// Sees that the next append finds room, and reports how large the log is.
    fn prepare(&mut self) {
        match self.log.reserve() {
            Ok(()) => self.say_room(self.pending.is_empty()),
            Err(error) if error.is_full() => self.say_room(false),
            Err(error) => die(&format!("the log cannot grow: {error}")),
        }
        let bytes = self.log.bytes();
        if self.reported.is_none_or(|reported| bytes.abs_diff(reported) >= BYTES_STEP) {
            self.reported = Some(bytes);
            self.tell(Input::LogBytes(bytes));
        }
    }

    fn say_room(&mut self, room: bool) {
        if self.room != room {
            self.room = room;
            self.tell(Input::Room(room));
        }
    }

    fn tell(&self, input: Input) {
        self.shard.push(Arrival::Core(input));
    }
}

/// The first records of these that go into one append; at least one.
fn piece(records: &[Record]) -> &[Record] {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        bytes += record.body.len();
        bytes <= APPEND_BYTES
    };
    let count = records.iter().take_while(fits).count();
    &records[..count.max(1)]
}

/// Work for a reader.
pub enum Reading {
    /// Rows.
    Rows(u64, Read),
    /// Old entries of the log.
    Log {
        /// For the answer.
        id: u64,
        /// Whose entries.
        tablet: TabletId,
        /// The first one.
        from: Lsn,
        /// Roughly how much.
        max_bytes: usize,
    },
}

/// A reader: several share an inbox.
pub fn read(log: &LogReader, work: &Inbox<Reading>, shard: &Inbox<Arrival>) {
    while let Some(reading) = work.pop() {
        shard.push(Arrival::Core(match reading {
            Reading::Rows(id, read) => Input::ReadDone(id, read.run()),
            Reading::Log { id, tablet, from, max_bytes } => Input::LogRead(id, log.read(tablet, from, max_bytes)),
        }));
    }
}

/// A worker for flushes, merges and checkpoints: several share an inbox.
pub fn work(keeper: &Keeper, work: &Inbox<(u64, Job)>, shard: &Inbox<Arrival>) {
    // On Linux this is the thread's own: what has time gives way to what somebody waits for.
    let _ = rustix::process::nice(BACKGROUND);
    let meters = JobMeters::new();
    while let Some((id, job)) = work.pop() {
        let (kind, begun) = (job.kind(), Instant::now());
        let done = keeper.run(job);
        meters.record(kind, begun.elapsed(), &done);
        shard.push(Arrival::Core(Input::JobDone(id, done)));
    }
}

/// What flushes and compactions cost.
struct JobMeters {
    flush: (Histogram, Counter),
    compaction: (Histogram, Counter),
}

impl JobMeters {
    fn new() -> JobMeters {
        JobMeters {
            flush: (histogram!("diptych_flush_duration_seconds"), counter!("diptych_flush_bytes_total")),
            compaction: (histogram!("diptych_compaction_duration_seconds"), counter!("diptych_compaction_bytes_total")),
        }
    }

    /// Failures have their events.
    fn record(&self, kind: JobKind, time: Duration, done: &Result<Done, store::Error>) {
        let (Ok(done), Some((duration, bytes))) = (done, self.of(kind)) else { return };
        duration.record(time);
        bytes.increment(written(done));
    }

    fn of(&self, kind: JobKind) -> Option<&(Histogram, Counter)> {
        match kind {
            JobKind::Flush => Some(&self.flush),
            JobKind::Merge => Some(&self.compaction),
            _ => None,
        }
    }
}

/// Bytes of the tables that are new.
fn written(done: &Done) -> u64 {
    match done {
        Done::Flushed { tables, .. } => tables.iter().map(|(_, table)| table.bytes()).sum(),
        // Some only stand elsewhere now.
        Done::Merged { removed, added, .. } => {
            let new = added.iter().filter(|(_, table)| !removed.contains(&table.number()));
            new.map(|(_, table)| table.bytes()).sum()
        }
        _ => 0,
    }
}
