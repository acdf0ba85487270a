//! One work of one engine, in a process of its own.
//!
//! A closed loop: each thread begins its next operation when the last is done, until a number of operations or a time is
//! up. Whatever is read is checked: a wrong answer ends the run with an error.

use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use model::random::Random;
use serde::{Deserialize, Serialize};

use crate::engine::{self, Engine, Reader, Settings};
use crate::pairs::{self, KEY, Shuffle, Values};
use crate::usage::{self, Usage};
use crate::work::Kind;

/// What one child does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Which engine.
    pub engine: String,
    /// Bytes of a value.
    pub value: usize,
    /// Keys of the data set.
    pub keys: u64,
    /// Bytes of the cache.
    pub cache: usize,
    /// Bytes of a memtable.
    pub buffer: usize,
    /// How long a run takes at most; a fill three times as long.
    pub seconds: f64,
    /// Bytes of [`Kind::FillRaw`] and of [`Kind::Log`].
    pub raw: u64,
    /// Where the engine has its files.
    pub folder: PathBuf,
    /// What is copied there before.
    pub copy_of: Option<PathBuf>,
    /// Settle when the work is done.
    pub settles: bool,
}

/// What one child saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub per_second: f64,
    pub operations: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
    /// Processor time of an operation, with all that was done in the background.
    pub cpu_us: f64,
    /// Bytes written by bytes that were to be written.
    pub write_amp: Option<f64>,
    /// Bytes from the disk for each operation.
    pub read_bytes: Option<f64>,
    /// Bytes on the disk, without the write-ahead log, by bytes of all keys and values that live.
    pub space_amp: Option<f64>,
    /// Bytes of the write-ahead log on the disk.
    pub log_mib: Option<f64>,
    /// How long it took until all was flushed and no compaction was due.
    pub settle_seconds: Option<f64>,
    /// Writes beside the reads.
    pub writes_per_second: Option<f64>,
    pub peak_mib: f64,
}

/// A fill takes so many times as long as another work.
const FILL_TIMES: f64 = 3.0;
/// Pairs of a batch.
const BATCH: u64 = 100;
/// Keys of chance are drawn from this.
const SEED: u64 = 0xd1b5_7c44;
/// Pairs of a scan.
const SCAN: usize = 100;
/// Keys that follow each other of which 9 in 10 are deleted, and then scanned.
const WINDOW: u64 = 1000;
/// Reads until the kernel has to forget the files again.
const COLD_READS: u64 = 500;
/// Bytes that are written in a second while others read.
const WRITE_RATE: u64 = 8 << 20;

/// When a loop ends: after so many operations, or so long.
#[derive(Clone, Copy)]
struct Limit {
    operations: u64,
    time: Duration,
}

/// What a loop saw.
struct Measured {
    operations: u64,
    elapsed: Duration,
    latencies: Histogram<u64>,
}

impl Measured {
    fn new() -> Result<Measured> {
        let latencies = Histogram::new_with_bounds(1, 600_000_000_000, 3)?;
        Ok(Measured { operations: 0, elapsed: Duration::ZERO, latencies })
    }

    fn add(&mut self, other: &Measured) -> Result<()> {
        self.operations += other.operations;
        self.elapsed += other.elapsed;
        Ok(self.latencies.add(&other.latencies)?)
    }
}

/// What a worker does again and again.
type Operation<'a> = Box<dyn FnMut(u64) -> Result<()> + 'a>;

/// So many threads, each with a worker of its own, which does the operation of the number that it gets.
fn drive<W>(threads: u64, limit: Limit, worker: impl Fn(u64) -> Result<W> + Sync) -> Result<Measured>
where
    W: FnMut(u64) -> Result<()>,
{
    let (ready, worker) = (Barrier::new(threads as usize), &worker);
    let one = |thread: u64| -> Result<(Instant, Instant, Measured)> {
        let mut seen = Measured::new()?;
        let operation = worker(thread);
        ready.wait();
        let mut operation = operation?;
        let begun = Instant::now();
        let mut last = begun;
        for number in (thread..limit.operations).step_by(threads as usize) {
            operation(number)?;
            let now = Instant::now();
            seen.latencies.saturating_record((now - last).as_nanos() as u64);
            seen.operations += 1;
            last = now;
            if now - begun >= limit.time {
                break;
            }
        }
        Ok((begun, last, seen))
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || one(thread))).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread of ours does not panic")).collect()
    });
    let mut sum = Measured::new()?;
    let (mut begun, mut ended) = (None::<Instant>, None::<Instant>);
    for seen in all {
        let (first, last, seen) = seen?;
        sum.add(&seen)?;
        begun = Some(begun.map_or(first, |begun| begun.min(first)));
        ended = Some(ended.map_or(last, |ended| ended.max(last)));
    }
    if let (Some(begun), Some(ended)) = (begun, ended) {
        sum.elapsed = ended - begun;
    }
    Ok(sum)
}

/// Does one work.
pub fn run(kind: Kind, order: &Order) -> Result<Outcome> {
    if let Some(from) = &order.copy_of {
        usage::copy(from, &order.folder)?;
    }
    let folder = &order.folder;
    match kind {
        Kind::ReadCold | Kind::Recovery => usage::make_cold(folder)?,
        _ => usage::make_warm(folder)?,
    }
    match kind {
        Kind::Recovery => recovery(order),
        Kind::FillRaw => fill_raw(order),
        Kind::Log => fill_log(order),
        _ => on_open(kind, order),
    }
}

fn settings(kind: Kind, order: &Order) -> Settings {
    let log_only = matches!(kind, Kind::Log | Kind::Recovery);
    let read_only = matches!(kind, Kind::ReadCached | Kind::ReadMissing | Kind::Seek { .. } | Kind::ReadCold);
    // What is in the log takes more room in memory.
    let buffer = if log_only { order.raw as usize * 4 } else { order.buffer };
    Settings { cache: order.cache, buffer, log_only, read_only }
}

fn on_open(kind: Kind, order: &Order) -> Result<Outcome> {
    let engine = engine::open(&order.engine, &order.folder, &settings(kind, order))?;
    let Order { keys, value, .. } = *order;
    let engine_ref = &*engine;
    let time = Duration::from_secs_f64(order.seconds);
    let (all, fill) = (
        Limit { operations: u64::MAX, time },
        Limit { operations: keys, time: Duration::from_secs_f64(order.seconds * FILL_TIMES) },
    );
    let shuffle = Shuffle::new(keys, SEED);
    let mut before = Usage::now()?;
    let mut writes_per_second = None;
    let measured = match kind {
        Kind::Load => load(engine_ref, order, shuffle)?,
        Kind::FillSequential => drive(1, fill, writer(engine_ref, value, false, |_| |number| number))?,
        Kind::FillRandom => drive(1, fill, writer(engine_ref, value, false, |_| move |number| shuffle.at(number)))?,
        Kind::Overwrite => {
            let random = |thread| {
                let mut random = Random::new(SEED ^ thread);
                move |_| random.below(keys)
            };
            drive(1, fill, writer(engine_ref, value, false, random))?
        }
        Kind::FillSync(threads) => {
            let limit = Limit { operations: keys, time };
            drive(threads, limit, writer(engine_ref, value, true, |_| move |number| shuffle.at(number)))?
        }
        Kind::ReadCached => {
            // Half of the cache, by the bytes of keys and values.
            let hot = (order.cache as u64 / 2 / (KEY + value) as u64).clamp(1, keys / 2);
            let reads = |limit: Limit, number_of: fn(&mut Random, u64, u64) -> u64| {
                drive(1, limit, move |thread| {
                    let (mut reader, mut random) = (engine_ref.reader()?, Random::new(SEED ^ thread));
                    Ok(move |at| get(&mut *reader, keys / 4 + number_of(&mut random, at, hot), value))
                })
            };
            reads(Limit { operations: hot, time: Duration::MAX }, |_, at, _| at)?;
            before = Usage::now()?;
            reads(all, |random, _, hot| random.below(hot))?
        }
        Kind::ReadMissing => {
            let reads = |limit: Limit| {
                drive(1, limit, move |thread| {
                    let (mut reader, mut random) = (engine_ref.reader()?, Random::new(SEED ^ thread));
                    Ok(move |_| {
                        let number = random.below(keys);
                        let found = reader.get(&pairs::missing(number), &mut |_| ())?;
                        ensure!(!found, "a key after {number} was found that nobody wrote");
                        Ok(())
                    })
                })
            };
            reads(Limit { operations: keys / 20, time })?;
            before = Usage::now()?;
            reads(all)?
        }
        Kind::Seek { reverse } => drive(1, all, |thread| {
            let (mut reader, mut random) = (engine_ref.reader()?, Random::new(SEED ^ thread));
            Ok(move |_| {
                let number = random.below(keys - SCAN as u64);
                if reverse {
                    let from = number + SCAN as u64 - 1;
                    scan(&mut *reader, from, value, true, |at| from - at)
                } else {
                    scan(&mut *reader, number, value, false, |at| number + at)
                }
            })
        })?,
        Kind::ReadWhileWriting => {
            let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
            let measured = std::thread::scope(|scope| -> Result<Measured> {
                let beside = scope.spawn(|| write_at_rate(engine_ref, order, &stop, &written));
                let measured = drive(1, all, |thread| {
                    let (mut reader, mut random) = (engine_ref.reader()?, Random::new(SEED ^ thread));
                    Ok(move |_| get(&mut *reader, random.below(keys), value))
                });
                stop.store(true, Ordering::Relaxed);
                beside.join().expect("a thread of ours does not panic")?;
                measured
            })?;
            writes_per_second = Some(written.into_inner() as f64 / measured.elapsed.as_secs_f64());
            measured
        }
        Kind::DeleteScan => {
            let each = WINDOW / 10 * 9 + 1;
            let limit = Limit { operations: keys / WINDOW * each, ..fill };
            drive(1, limit, |_| {
                let mut reader = engine_ref.reader()?;
                Ok(move |number| {
                    let (window, at) = (number / each * WINDOW, number % each);
                    if at < each - 1 {
                        engine_ref.delete(&pairs::key(window + at / 9 * 10 + 1 + at % 9))
                    } else {
                        scan(&mut *reader, window, value, false, |at| window + at * 10)
                    }
                })
            })?
        }
        Kind::ReadCold => {
            let mut sum = Measured::new()?;
            let mut used = Usage::default();
            for piece in 0.. {
                usage::make_cold(&order.folder)?;
                let before = Usage::now()?;
                let limit = Limit { operations: COLD_READS, time };
                sum.add(&drive(1, limit, |_| {
                    let (mut reader, mut random) = (engine_ref.reader()?, Random::new(SEED ^ piece));
                    Ok(move |_| get(&mut *reader, random.below(keys), value))
                })?)?;
                let piece = Usage::since(before)?;
                used = Usage { cpu_ns: used.cpu_ns + piece.cpu_ns, read: used.read + piece.read, ..used };
                if sum.elapsed >= time {
                    break;
                }
            }
            let mut outcome = outcome(&sum, used)?;
            outcome.read_bytes = Some(used.read as f64 / sum.operations as f64);
            return Ok(outcome);
        }
        Kind::FillRaw | Kind::Log | Kind::Recovery => bail!("{kind:?} opens the engine itself"),
    };
    let mut settle_seconds = None;
    if order.settles {
        let begun = Instant::now();
        engine.settle()?;
        settle_seconds = Some(begun.elapsed().as_secs_f64());
    }
    let used = Usage::since(before)?;
    let mut outcome = Outcome { settle_seconds, writes_per_second, ..outcome(&measured, used)? };
    drop(engine);
    if order.settles {
        let bytes = |keys: u64| (keys * (KEY + value) as u64) as f64;
        let living = if kind == Kind::Overwrite { keys } else { measured.operations };
        let (log, data): (Vec<_>, Vec<_>) =
            usage::files(&order.folder)?.into_iter().partition(|path| engine::is_log(&order.engine, path));
        outcome.write_amp = Some(used.written as f64 / bytes(measured.operations));
        outcome.space_amp = Some(usage::disk_bytes(data.iter())? as f64 / bytes(living));
        outcome.log_mib = Some(usage::disk_bytes(log.iter())? as f64 / f64::from(1 << 20));
    }
    Ok(outcome)
}

fn outcome(measured: &Measured, used: Usage) -> Result<Outcome> {
    let Measured { operations, elapsed, latencies } = measured;
    ensure!(*operations > 0, "no operation ended in time");
    Ok(Outcome {
        per_second: *operations as f64 / elapsed.as_secs_f64(),
        operations: *operations,
        p50_ns: latencies.value_at_quantile(0.5),
        p99_ns: latencies.value_at_quantile(0.99),
        p999_ns: latencies.value_at_quantile(0.999),
        max_ns: latencies.max(),
        cpu_us: used.cpu_ns as f64 / 1e3 / *operations as f64,
        peak_mib: usage::peak_kib()? as f64 / 1024.0,
        ..Outcome::default()
    })
}

/// Workers that write the keys whose numbers `keys` makes of the number of the operation.
fn writer<'a, K: FnMut(u64) -> u64 + 'a>(
    engine: &'a dyn Engine,
    value: usize,
    durable: bool,
    keys: impl Fn(u64) -> K + Sync,
) -> impl Fn(u64) -> Result<Operation<'a>> + Sync {
    move |thread| {
        let (mut values, mut keys) = (Values::new(value, thread), keys(thread));
        Ok(Box::new(move |number| {
            let key = keys(number);
            engine.put(&pairs::key(key), values.of(key), durable)
        }))
    }
}

/// Reads one key and checks its value.
fn get(reader: &mut dyn Reader, number: u64, bytes: usize) -> Result<()> {
    let mut checked = Ok(());
    let found = reader.get(&pairs::key(number), &mut |value| checked = pairs::check(number, value, bytes))?;
    ensure!(found, "key {number} was written and is not there");
    checked
}

/// Scans from a key and checks what comes.
fn scan(reader: &mut dyn Reader, from: u64, bytes: usize, reverse: bool, expected: impl Fn(u64) -> u64) -> Result<()> {
    let (mut at, mut checked) = (0, Ok(()));
    reader.scan(&pairs::key(from), SCAN, reverse, &mut |key, value| {
        let number = expected(at);
        at += 1;
        // The value says which key it is of; to make up each key to compare would cost more than some engines' step.
        if (at == 1 || at == SCAN as u64) && key != pairs::key(number) {
            checked = Err(anyhow::anyhow!("{key:?} came where key {number} was to come"));
        } else if checked.is_ok() {
            checked = pairs::check(number, value, bytes);
        }
    })?;
    ensure!(at == SCAN as u64, "a scan from {from} gave {at} pairs, not {SCAN}");
    checked
}

/// Writes keys of chance, a few every millisecond.
fn write_at_rate(engine: &dyn Engine, order: &Order, stop: &AtomicBool, written: &AtomicU64) -> Result<()> {
    let (mut values, mut random) = (Values::new(order.value, 1), Random::new(!SEED));
    let rate = WRITE_RATE as f64 / (KEY + order.value) as f64;
    let (begun, mut done) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * rate) as u64;
        while done < due && !stop.load(Ordering::Relaxed) {
            let number = random.below(order.keys);
            engine.put(&pairs::key(number), values.of(number), false)?;
            done += 1;
        }
        written.store(done, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Writes keys in batches; `number_of` makes their numbers. Only the batches' own times count.
fn batches(
    engine: &dyn Engine,
    operations: u64,
    value: usize,
    number_of: impl Fn(u64) -> u64 + Sync,
) -> Result<Measured> {
    let limit = Limit { operations: operations.div_ceil(BATCH), time: Duration::MAX };
    let number_of = &number_of;
    let mut measured = drive(1, limit, |_| {
        let mut values = Values::new(value, 0);
        Ok(move |batch| {
            let numbers = (batch * BATCH..operations.min((batch + 1) * BATCH)).map(number_of);
            let pairs: Vec<_> =
                numbers.map(|number| (pairs::key(number).to_vec(), values.of(number).to_vec())).collect();
            engine.put_many(&pairs)
        })
    })?;
    measured.operations = operations;
    Ok(measured)
}

fn load(engine: &dyn Engine, order: &Order, shuffle: Shuffle) -> Result<Measured> {
    batches(engine, order.keys, order.value, |number| shuffle.at(number))
}

fn fill_raw(order: &Order) -> Result<Outcome> {
    let engine = engine::open(&order.engine, &order.folder, &settings(Kind::FillRaw, order))?;
    let operations = order.raw / (KEY + order.value) as u64;
    let before = Usage::now()?;
    let begun = Instant::now();
    let mut measured = batches(&*engine, operations, order.value, |number| number)?;
    engine.sync()?;
    measured.elapsed = begun.elapsed();
    outcome(&measured, Usage::since(before)?)
}

fn fill_log(order: &Order) -> Result<Outcome> {
    let engine = engine::open(&order.engine, &order.folder, &settings(Kind::Log, order))?;
    let operations = order.raw / (KEY + order.value) as u64;
    let before = Usage::now()?;
    let measured = batches(&*engine, operations, order.value, |number| number)?;
    let outcome = outcome(&measured, Usage::since(before)?);
    // As it is: whoever started us kills us.
    std::mem::forget(engine);
    outcome
}

fn recovery(order: &Order) -> Result<Outcome> {
    let operations = order.raw / (KEY + order.value) as u64;
    let before = Usage::now()?;
    let mut measured = Measured::new()?;
    let begun = Instant::now();
    let engine = engine::open(&order.engine, &order.folder, &settings(Kind::Recovery, order))?;
    let last = operations.checked_sub(1).context("an empty log is not recovered")?;
    get(&mut *engine.reader()?, last, order.value)?;
    measured.elapsed = begun.elapsed();
    measured.operations = operations;
    measured.latencies.saturating_record(measured.elapsed.as_nanos() as u64);
    let outcome = outcome(&measured, Usage::since(before)?);
    get(&mut *engine.reader()?, 0, order.value)?;
    outcome
}
