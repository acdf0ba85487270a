//! How fast flushes, merges and copies may write: as fast as the disk goes, unless that makes those wait who write or read.
//!
//! ```text
//!   log thread ──saw(sync time)──▶ Governor ──bytes per second──▶ spend() of the workers, which sleep if need be
//! ```
//!
//! The log's syncs are what every writer waits for, and they stand in the same queue as everything else that is written. What
//! they take when nothing else is written is learned; when, over a tenth of a second, they take more than twice as long while
//! workers write, the rate falls by a third, and otherwise it rises again. The floor keeps flushes ahead of writers; who
//! falls behind all the same meets the limits of memory (`Pressure`), not a slow disk.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use store::Pace;

/// Bytes per second.
const FLOOR: f64 = 24e6;
const CEILING: f64 = 4e9;
/// The rate is judged this often.
const WINDOW: Duration = Duration::from_millis(100);
/// Syncs may take so many times as long as without other work.
const ALLOWED: f64 = 2.0;
/// A sync that is as fast as this is fast, whatever it was before.
const FAST: Duration = Duration::from_millis(1);
/// Bytes that may be written at once.
const BURST: Duration = Duration::from_millis(50);

/// Decides on the rate; told the time.
#[derive(Debug)]
struct Governor {
    /// Bytes per second.
    rate: f64,
    /// Bytes that may be written now; below zero, they were written ahead of time.
    credit: f64,
    counted: Instant,
    /// What syncs take without other work, in seconds.
    calm: f64,
    /// The present window: since when, the slowest sync but one, bytes that workers wrote.
    since: Instant,
    slowest: [Duration; 2],
    spent: u64,
}

impl Governor {
    fn new(now: Instant) -> Governor {
        Governor {
            rate: CEILING,
            credit: 0.0,
            counted: now,
            calm: FAST.as_secs_f64(),
            since: now,
            slowest: [Duration::ZERO; 2],
            spent: 0,
        }
    }

    /// A sync took so long.
    fn saw(&mut self, now: Instant, took: Duration) {
        self.judge(now);
        if took >= self.slowest[0] {
            self.slowest = [took, self.slowest[0]];
        } else if took > self.slowest[1] {
            self.slowest[1] = took;
        }
    }

    /// Somebody is about to write so much. How long to wait before.
    fn spend(&mut self, now: Instant, bytes: u64) -> Duration {
        self.judge(now);
        self.spent += bytes;
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.counted = now;
        self.credit = (self.credit + passed * self.rate).min(self.rate * BURST.as_secs_f64()) - bytes as f64;
        Duration::from_secs_f64((-self.credit / self.rate).max(0.0))
    }

    fn judge(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) < WINDOW {
            return;
        }
        // One slow sync of many is chance.
        let slow = self.slowest[1].as_secs_f64();
        if self.spent == 0 {
            if slow > 0.0 {
                self.calm += (slow - self.calm) / 8.0;
            }
            self.rate = (self.rate * 1.5).min(CEILING);
        } else if slow > ALLOWED * self.calm.max(FAST.as_secs_f64()) {
            // From what was really written: a rate that nobody reaches holds nobody.
            let written = self.spent as f64 / now.saturating_duration_since(self.since).as_secs_f64();
            self.rate = (self.rate.min(written.max(FLOOR)) * 2.0 / 3.0).max(FLOOR);
        } else {
            self.rate = (self.rate * 1.1).min(CEILING);
        }
        (self.since, self.slowest, self.spent) = (now, [Duration::ZERO; 2], 0);
    }
}

/// The pace of a node's workers.
pub struct Pacer(Mutex<Governor>);

impl Default for Pacer {
    /// Without limit until syncs become slow.
    fn default() -> Pacer {
        Pacer(Mutex::new(Governor::new(Instant::now())))
    }
}

impl Pacer {
    /// A sync of the log took so long.
    pub fn saw(&self, took: Duration) {
        self.0.lock().saw(Instant::now(), took);
    }
}

impl Pace for Pacer {
    fn spend(&self, bytes: u64) {
        let wait = self.0.lock().spend(Instant::now(), bytes);
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Bytes written in `seconds` by a worker that always has more, while each sync takes `sync`.
    fn run(governor: &mut Governor, from: Instant, seconds: u32, sync: impl Fn(f64) -> Duration) -> (Instant, u64) {
        let (mut now, mut written, mut next_write) = (from, 0, from);
        while now < from + Duration::from_secs(1) * seconds {
            governor.saw(now, sync(governor.rate));
            while next_write <= now {
                next_write += governor.spend(next_write.max(now), 256 << 10).max(MS / 4);
                written += 256 << 10;
            }
            now += 5 * MS;
        }
        (now, written)
    }

    #[test]
    fn a_worker_that_harms_nobody_is_not_held() {
        let now = Instant::now();
        let mut governor = Governor::new(now);
        let (_, written) = run(&mut governor, now, 2, |_| MS);
        assert!(written > 1_000 << 20, "{written}");
    }

    /// Syncs that suffer from more than 100 MB/s: the rate finds about that, and rises again when they do not.
    #[test]
    fn the_rate_finds_what_syncs_bear() {
        let now = Instant::now();
        let mut governor = Governor::new(now);
        let (now, _) = run(&mut governor, now, 5, |rate| if rate > 100e6 { 20 * MS } else { MS });
        let (now, written) = run(&mut governor, now, 10, |rate| if rate > 100e6 { 20 * MS } else { MS });
        assert!((40 << 20..130 << 20).contains(&(written / 10)), "{written}");
        let (_, written) = run(&mut governor, now, 10, |_| MS);
        assert!(written / 10 > 200 << 20, "{written}");
    }

    /// However slow syncs are, flushes go on.
    #[test]
    fn the_rate_has_a_floor() {
        let now = Instant::now();
        let mut governor = Governor::new(now);
        let (now, _) = run(&mut governor, now, 5, |_| 500 * MS);
        let (_, written) = run(&mut governor, now, 4, |_| 500 * MS);
        assert!(written as f64 / 4.0 > FLOOR * 0.8, "{written}");
    }
}
