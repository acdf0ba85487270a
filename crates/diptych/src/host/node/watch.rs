//! Who has the log, and whether its sync hangs.
//!
//! ```text
//!   leads:   begin ─── sync ─── end      begin ────── sync hangs ───────────────────── end: somebody else leads
//!   watches: ………………………………………………………………………… └─ longer than the limit: leave the file, and lead
//! ```

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// No sync hangs before so long.
const LEAST: Duration = Duration::from_millis(50);
/// Nor before so many times what a sync takes.
const TIMES: u32 = 4;
/// After a switch, or a try, there is none for so long.
const COOL: Duration = Duration::from_secs(5);
/// How often the watcher looks while there is work, and after how many looks at no work it sleeps until there is.
const LOOK: Duration = Duration::from_millis(25);
const LOOKS: u32 = 40;

/// Shared by the threads.
#[derive(Default)]
pub struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Somebody leads.
    led: bool,
    /// Since when the leader has been syncing.
    syncing: Option<Instant>,
    /// What a sync takes, smoothed.
    usual: Duration,
    /// No switch before.
    cool: Option<Instant>,
    /// The watcher wants to be woken.
    asleep: bool,
    closed: bool,
}

impl State {
    fn limit(&self) -> Duration {
        LEAST.max(self.usual * TIMES)
    }

    /// When the sync that is under way is to be given up.
    fn due(&self) -> Option<Instant> {
        self.syncing.map(|since| self.cool.map_or(since + self.limit(), |cool| cool.max(since + self.limit())))
    }
}

impl Watch {
    /// Waits until nobody leads, or until the leader's sync hangs and `switch`, which is told for how long, says that its
    /// file could be left. Then the caller leads. False once it is over.
    pub fn stand_by(&self, switch: impl Fn(Duration) -> bool) -> bool {
        let mut state = self.state.lock();
        let mut looks = 0;
        loop {
            if state.closed {
                return false;
            }
            if !state.led {
                state.led = true;
                return true;
            }
            let now = Instant::now();
            match (state.syncing, state.due()) {
                (Some(since), Some(due)) if due <= now => {
                    // While a sync is under way the leader touches nothing, and it does not end without this lock.
                    let switched = switch(now - since);
                    state.cool = Some(Instant::now() + COOL);
                    if switched {
                        state.syncing = None;
                        return true;
                    }
                }
                (_, Some(due)) => {
                    looks = 0;
                    self.changed.wait_until(&mut state, due);
                }
                (_, None) if looks < LOOKS => {
                    looks += 1;
                    self.changed.wait_for(&mut state, LOOK);
                }
                (_, None) => {
                    state.asleep = true;
                    self.changed.wait(&mut state);
                    state.asleep = false;
                    looks = 0;
                }
            }
        }
    }

    /// The leader's sync begins.
    pub fn begin(&self, now: Instant) {
        let mut state = self.state.lock();
        state.syncing = Some(now);
        if state.asleep {
            self.changed.notify_all();
        }
    }

    /// The sync that began then has ended. False if its file was left, and somebody else leads.
    pub fn end(&self, begun: Instant, took: Duration) -> bool {
        let mut state = self.state.lock();
        if state.syncing != Some(begun) {
            return false;
        }
        state.syncing = None;
        state.usual = if state.usual.is_zero() { took } else { (state.usual * 7 + took) / 8 };
        true
    }

    /// It is over.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}
