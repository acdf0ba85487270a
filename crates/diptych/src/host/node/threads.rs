//! The threads beside the shard: two for the log, some for reads, some for jobs. Each takes work from an inbox and
//! puts what came of it into the shard's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram, counter, histogram};
use model::{Lsn, TabletId};
use node::api::Input;
use node::read::Read;
use parking_lot::{Mutex, MutexGuard};
use store::log::{Crew, Log, LogReader, Part, Record};
use store::{Done, Job, JobKind, Keeper};

use super::pace::Pacer;
use super::pulse::Pulse;
use super::shard::Arrival;
use super::watch::Watch;
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

/// Work for the log threads.
pub enum LogWork {
    /// Append and sync.
    Append(Vec<Record>),
    /// Remove what is not needed: of each tablet the entries up to here.
    Trim(BTreeMap<TabletId, Lsn>),
}

/// What the log threads do: whatever has queued up while the log synced shares the next append and the next sync.
///
/// There are two of them, and one has the log at a time. When its sync hangs, the other one takes the log, leaves that
/// file ([`Log::switch`]) and goes on. The first one has no more to do, when its sync has ended, than to watch in turn.
pub struct LogThreads {
    writer: Mutex<Writer>,
    watch: Watch,
    work: Arc<Inbox<LogWork>>,
    shard: Arc<Inbox<Arrival>>,
    pulse: Arc<Pulse>,
    /// Hears how long syncs take.
    pacer: Arc<Pacer>,
    sync_time: Histogram,
    appended_bytes: Counter,
}

struct Writer {
    log: Log,
    /// Not appended yet.
    pending: Vec<Record>,
    /// Appended, but not known to be durable.
    appended: u64,
    /// Records synced since the start.
    durable: u64,
    /// What is to be trimmed.
    floors: Option<BTreeMap<TabletId, Lsn>>,
    /// Whether the disk had room when it was last asked.
    room: bool,
    /// The last batch has a mark behind it.
    marked: bool,
    /// Syncs of files that were left, which have not ended.
    late: usize,
    reported: Option<u64>,
}

impl LogThreads {
    /// Takes from `work`, tells `shard`.
    pub fn new(
        log: Log,
        work: Arc<Inbox<LogWork>>,
        shard: Arc<Inbox<Arrival>>,
        pulse: Arc<Pulse>,
        pacer: Arc<Pacer>,
    ) -> LogThreads {
        let writer = Writer {
            log,
            pending: Vec::new(),
            appended: 0,
            durable: 0,
            floors: None,
            room: true,
            marked: false,
            late: 0,
            reported: None,
        };
        LogThreads {
            writer: Mutex::new(writer),
            watch: Watch::default(),
            work,
            shard,
            pulse,
            pacer,
            sync_time: histogram!("diptych_wal_fsync_duration_seconds"),
            appended_bytes: counter!("diptych_wal_append_bytes_total"),
        }
    }

    /// One of the threads: works or watches until the inbox is closed.
    pub fn run(&self) {
        while self.watch.stand_by(|hangs| self.switch(hangs)) {
            if self.lead() {
                self.watch.close();
            }
        }
    }

    /// Works until the inbox is closed, and then says so; or until the other thread has taken the log.
    fn lead(&self) -> bool {
        let mut batch = VecDeque::new();
        loop {
            self.pulse.begin();
            let mut writer = self.writer.lock();
            self.append(&mut writer);
            let Some(mut writer) = self.sync(writer) else { return false };
            if writer.late == 0 {
                // A folder may hang behind the same sync.
                self.trim(&mut writer);
                self.prepare(&mut writer);
            }
            let until = writer.wakes_at();
            drop(writer);
            self.pulse.end();
            if !self.work.drain(&mut batch, until) {
                return true;
            }
            let mut writer = self.writer.lock();
            if batch.is_empty() && writer.pending.is_empty() && !writer.marked {
                self.pulse.begin();
                // Nobody waits for it; but an error means that the log is broken.
                writer.log.mark().unwrap_or_else(|error| die(&format!("the log cannot be written: {error}")));
                writer.marked = true;
            } else if !batch.is_empty() {
                writer.marked = false;
            }
            for work in batch.drain(..) {
                match work {
                    LogWork::Append(records) if writer.pending.is_empty() => writer.pending = records,
                    LogWork::Append(records) => writer.pending.extend(records),
                    LogWork::Trim(latest) => writer.floors = Some(latest),
                }
            }
        }
    }

    /// One append, in all but monstrous cases, for everything that is pending. Without room it stays pending.
    fn append(&self, writer: &mut Writer) {
        let mut appended = 0;
        while appended < writer.pending.len() {
            let piece = piece(&writer.pending[appended..]);
            match writer.log.append(piece) {
                Ok(()) => appended += piece.len(),
                Err(error) if error.is_full() => {
                    self.say_room(writer, false);
                    break;
                }
                Err(error) => die(&format!("the log cannot be written: {error}")),
            }
        }
        writer.appended += appended as u64;
        let bytes = writer.pending.drain(..appended).map(|record| record.body.len() as u64).sum();
        self.appended_bytes.increment(bytes);
    }

    /// One sync for everything that is appended. Gives the log back, unless the other thread has taken it meanwhile.
    fn sync<'a>(&'a self, writer: MutexGuard<'a, Writer>) -> Option<MutexGuard<'a, Writer>> {
        let Some(syncing) = writer.log.begin_sync() else { return Some(writer) };
        drop(writer);
        let begun = Instant::now();
        self.watch.begin(begun);
        let result = syncing.run();
        let took = begun.elapsed();
        let mine = self.watch.end(begun, took);
        let mut writer = self.writer.lock();
        if let Err(error) = writer.log.synced(&syncing, result) {
            die(&format!("the log cannot be synced: {error}"));
        }
        self.sync_time.record(took);
        self.pacer.saw(took);
        if !mine {
            writer.late -= 1;
            return None;
        }
        let appended = std::mem::take(&mut writer.appended);
        if appended > 0 {
            writer.durable += appended;
            self.tell(Input::Durable(writer.durable));
        }
        Some(writer)
    }

    /// Leaves the file of which the sync hangs, if that is possible.
    fn switch(&self, hangs: Duration) -> bool {
        let mut writer = self.writer.lock();
        match writer.log.switch() {
            Ok(true) => {
                writer.late += 1;
                counter!("diptych_events_total", "event" => "log_switched").increment(1);
                let ms = hangs.as_millis();
                tracing::warn!(
                    event = "log_switched",
                    "a sync of the log hangs for {ms} ms; it goes on in the next segment"
                );
                true
            }
            Ok(false) => false,
            Err(error) => die(&format!("the log cannot be written: {error}")),
        }
    }

    fn trim(&self, writer: &mut Writer) {
        let Some(floors) = writer.floors.take() else { return };
        match writer.log.trim(&floors) {
            Ok(_) => {}
            Err(error) if error.is_full() => self.say_room(writer, false),
            Err(error) => die(&format!("the log cannot be trimmed: {error}")),
        }
    }

    /// Sees that the next append finds room, and reports how large the log is.
    fn prepare(&self, writer: &mut Writer) {
        match writer.log.reserve() {
            Ok(()) => {
                let room = writer.pending.is_empty();
                self.say_room(writer, room);
            }
            Err(error) if error.is_full() => self.say_room(writer, false),
            Err(error) => die(&format!("the log cannot grow: {error}")),
        }
        let bytes = writer.log.bytes();
        if writer.reported.is_none_or(|reported| bytes.abs_diff(reported) >= BYTES_STEP) {
            writer.reported = Some(bytes);
            self.tell(Input::LogBytes(bytes));
        }
    }

    fn say_room(&self, writer: &mut Writer, room: bool) {
        if writer.room != room {
            writer.room = room;
            self.tell(Input::Room(room));
        }
    }

    fn tell(&self, input: Input) {
        self.shard.push(Arrival::Core(input));
    }
}

impl Writer {
    /// When to look up though there is no work.
    fn wakes_at(&self) -> Option<Instant> {
        if !self.room {
            return Some(Instant::now() + ROOM_RETRY);
        }
        (!self.marked || self.late > 0).then(|| Instant::now() + IDLE)
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

/// Threads for a work that is done before the others start: recovery.
pub struct Hired(pub usize);

impl Crew for Hired {
    fn width(&self) -> usize {
        self.0
    }

    fn run<'a>(&self, parts: Vec<Part<'a>>) {
        let left = Mutex::new(parts.into_iter());
        let next = || left.lock().next();
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(|| {
                    while let Some(part) = next() {
                        part();
                    }
                });
            }
        });
    }
}

#[cfg(test)]
mod tests;
