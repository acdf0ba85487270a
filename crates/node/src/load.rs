//! How busy a tablet is, and with which rows: requests in windows of a few seconds, the past weighing less and less.
//!
//! ```text
//!   requests ──▶ this window: a count and a few keys by chance ──window over──▶ rate = (rate + count) / 2
//! ```
//!
//! The rate is told in two digits, so that a tablet at rest reports the same again and again, and a busy one does not
//! pretend to know more. The keys say where a tablet is to be cut so that both halves get requests; one row that gets
//! most of them cannot be cut, and nobody tries.

use bytes::Bytes;
use model::random::Random;
use model::{Instant, Slice, Split, TabletId};
use std::time::Duration;

/// Requests are counted for so long, then the count weighs half.
const WINDOW: Duration = Duration::from_secs(5);
/// Keys that are kept of a window's requests.
const KEYS: usize = 64;
/// Bytes of a key that are kept: any key between two rows is good enough to cut at.
const KEY_BYTES: usize = 256;
/// Fewer keys say nothing.
const FEWEST: usize = 16;

/// How busy a tablet is at this node.
#[derive(Debug)]
pub(crate) struct Load {
    /// When the present window began.
    since: Instant,
    /// Requests in it.
    count: u64,
    /// Requests in a window before it, on a decaying average.
    rate: u64,
    /// Of the present window's requests, each with the same chance.
    keys: Vec<Bytes>,
    /// Those of the window before.
    before: Vec<Bytes>,
    random: Random,
}

impl Load {
    /// Nothing has been asked yet.
    pub fn new(tablet: TabletId) -> Load {
        let random = Random::new(tablet.0);
        Load { since: Instant::ZERO, count: 0, rate: 0, keys: Vec::new(), before: Vec::new(), random }
    }

    /// A request that has to do with this row is served.
    pub fn note(&mut self, now: Instant, row: &[u8]) {
        let passed = self.windows(now);
        if passed > 0 {
            self.rate = self.rate_after(passed);
            self.before = if passed == 1 { core::mem::take(&mut self.keys) } else { Vec::new() };
            self.keys.clear();
            (self.since, self.count) = (now, 0);
        }
        self.count += 1;
        let place = self.random.below(self.count) as usize;
        let key = || Bytes::copy_from_slice(&row[..row.len().min(KEY_BYTES)]);
        if self.keys.len() < KEYS {
            self.keys.push(key());
        } else if let Some(kept) = self.keys.get_mut(place) {
            *kept = key();
        }
    }

    /// Requests per second, in two digits.
    pub fn per_second(&self, now: Instant) -> u64 {
        let rate = match self.windows(now) {
            0 => self.rate,
            passed => self.rate_after(passed),
        };
        two_digits(rate / WINDOW.as_secs())
    }

    /// Will it say nothing but zero until something is asked of it?
    pub fn is_idle(&self, now: Instant) -> bool {
        self.windows(now) > 1 && self.per_second(now) == 0
    }

    /// The first row of the part that gets the other half of the requests, if each part gets a fifth of them or more.
    pub fn middle(&self, slice: &Slice) -> Option<Bytes> {
        let mut keys: Vec<&Bytes> = self.before.iter().chain(&self.keys).collect();
        if keys.len() < FEWEST {
            return None;
        }
        keys.sort();
        let cuts = (1..keys.len()).filter(|&at| keys[at] > keys[at - 1] && Split::cut(slice, keys[at]).is_some());
        let at = cuts.max_by_key(|&at| (at.min(keys.len() - at), core::cmp::Reverse(at)))?;
        (at.min(keys.len() - at) * 5 >= keys.len()).then(|| keys[at].clone())
    }

    /// Windows that are over.
    fn windows(&self, now: Instant) -> u32 {
        let passed = now.since(self.since).as_nanos() / WINDOW.as_nanos();
        u32::try_from(passed).unwrap_or(u32::MAX)
    }

    /// The rate when the present window and so many more without requests are over.
    fn rate_after(&self, passed: u32) -> u64 {
        ((self.rate + self.count) / 2).checked_shr(passed - 1).unwrap_or(0)
    }
}

fn two_digits(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 100 {
        unit *= 10;
    }
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    /// So many requests a second for a while, of these rows in turn.
    fn serve(load: &mut Load, seconds: std::ops::Range<u64>, per_second: usize, rows: &[&str]) {
        let mut rows = rows.iter().cycle();
        for second in seconds {
            (0..per_second).for_each(|_| load.note(at(second), rows.next().unwrap().as_bytes()));
        }
    }

    fn slice() -> Slice {
        Slice::Rows { start: Bytes::from_static(b"b"), end: Some(Bytes::from_static(b"y")) }
    }

    /// A tablet at rest must not give its node anything new to say.
    #[test]
    fn the_load_follows_the_requests_and_ends_at_nothing() {
        let mut load = Load::new(TabletId(1));
        assert_eq!(load.per_second(at(100)), 0);
        serve(&mut load, 100..160, 1_234, &["c", "m"]);
        assert_eq!(load.per_second(at(160)), 1_200);
        assert_eq!(load.per_second(at(166)), 610, "a window without requests");
        let rates: Vec<u64> = (160..400).map(|second| load.per_second(at(second))).collect();
        assert!(rates.is_sorted_by(|a, b| a >= b), "{rates:?}");
        assert_eq!((rates[239], load.per_second(at(u64::MAX / 1_000_000_000))), (0, 0));
    }

    #[test]
    fn the_cut_halves_the_requests_not_the_rows() {
        let mut load = Load::new(TabletId(1));
        serve(&mut load, 0..10, 100, &["c", "d", "m", "m", "x"]);
        assert_eq!(load.middle(&slice()), Some(Bytes::from_static(b"m")));
        serve(&mut load, 10..20, 100, &["c", "d", "e", "f"]);
        assert_eq!(load.middle(&slice()), Some(Bytes::from_static(b"e")), "what is past is forgotten");
    }

    /// A split helps only if it takes load away: a row that gets nearly all of it would be cut free again and again.
    #[test]
    fn one_hot_row_is_not_cut() {
        let mut load = Load::new(TabletId(1));
        serve(&mut load, 0..10, 100, &["m"]);
        assert_eq!(load.middle(&slice()), None);
        serve(&mut load, 10..20, 100, &["c", "m", "m", "m", "m", "m", "m", "m", "m", "x"]);
        assert_eq!(load.middle(&slice()), None);
        serve(&mut load, 20..30, 100, &["c", "m", "m"]);
        assert_eq!(load.middle(&slice()), Some(Bytes::from_static(b"m")), "a third goes to the other rows");
    }

    #[test]
    fn a_few_requests_and_the_first_row_are_no_reason() {
        let mut load = Load::new(TabletId(1));
        serve(&mut load, 0..5, 3, &["c", "m"]);
        assert_eq!(load.middle(&slice()), None, "too few");
        serve(&mut load, 5..15, 50, &["b"]);
        assert_eq!(load.middle(&slice()), None, "what begins with the first row is all of it");
    }

    /// Memory is bounded, whatever is asked for.
    #[test]
    fn keys_are_few_and_short() {
        let mut load = Load::new(TabletId(1));
        let long = "x".repeat(4_000);
        serve(&mut load, 0..60, 500, &[&long, "c"]);
        assert!(load.keys.len() + load.before.len() <= 2 * KEYS);
        assert!(load.keys.iter().all(|key| key.len() <= KEY_BYTES));
    }
}
