//! Whether a thread is alive: since when it has been at its present piece of work.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared by the thread and its watcher.
#[derive(Debug)]
pub struct Pulse {
    start: Instant,
    /// Milliseconds from `start` to the beginning of the work, plus 1; 0 while there is none.
    busy_since: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse { start: Instant::now(), busy_since: AtomicU64::new(0) }
    }
}

impl Pulse {
    /// A piece of work begins.
    pub fn begin(&self) {
        self.busy_since.store(self.elapsed_ms() + 1, Ordering::Relaxed);
    }

    /// It is done.
    pub fn end(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// How long the thread has been at it.
    pub fn busy_for(&self) -> Duration {
        match self.busy_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(self.elapsed_ms().saturating_sub(since - 1)),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}
