//! A queue into a thread: many push, the thread takes all there is at once.
//!
//! A push is one short lock; it wakes the thread only if the thread sleeps, so that a busy one is never disturbed.
//! The queue itself has no limit: whoever pushes on behalf of the outside admits only so much (see `local::Admission`).

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// The queue. Shared by `Arc`.
#[derive(Debug)]
pub struct Inbox<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    closed: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Inbox<T> {
        let state = State { queue: VecDeque::new(), closed: false };
        Inbox { state: Mutex::new(state), filled: Condvar::new() }
    }
}

impl<T> Inbox<T> {
    /// Adds one.
    pub fn push(&self, item: T) {
        self.state.lock().queue.push_back(item);
        // Costs next to nothing while nobody sleeps.
        self.filled.notify_one();
    }

    /// No thread waits any more: `drain` and `pop` return what is left, and then say that it is over.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }

    /// Takes all there is into `into`, which is empty; waits for something until then, or for ever. False once the
    /// inbox is closed and empty.
    pub fn drain(&self, into: &mut VecDeque<T>, until: Option<Instant>) -> bool {
        debug_assert!(into.is_empty());
        let mut state = self.state.lock();
        while state.queue.is_empty() && !state.closed {
            match until {
                Some(until) if self.filled.wait_until(&mut state, until).timed_out() => break,
                Some(_) => {}
                None => self.filled.wait(&mut state),
            }
        }
        std::mem::swap(&mut state.queue, into);
        !(state.closed && into.is_empty())
    }

    /// Takes the oldest, for queues that several threads share; waits for it. `None` once the inbox is closed and
    /// empty.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(item) = state.queue.pop_front() {
                return Some(item);
            }
            if state.closed {
                return None;
            }
            self.filled.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_thread_gets_all_in_order_and_then_the_end() {
        let inbox = Arc::new(Inbox::default());
        let thread = std::thread::spawn({
            let inbox = Arc::clone(&inbox);
            move || {
                let (mut all, mut batch) = (Vec::new(), VecDeque::new());
                while inbox.drain(&mut batch, None) {
                    all.extend(batch.drain(..));
                }
                all
            }
        });
        (0..1000).for_each(|n| inbox.push(n));
        inbox.close();
        assert_eq!(thread.join().unwrap(), (0..1000).collect::<Vec<_>>());
        assert_eq!(inbox.pop(), None);
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let inbox = Inbox::<u32>::default();
        let mut batch = VecDeque::new();
        assert!(inbox.drain(&mut batch, Some(Instant::now() + Duration::from_millis(1))));
        assert!(batch.is_empty());
    }
}
