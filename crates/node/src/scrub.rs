//! Reads everything that lies here from time to time, so that damage is met while others are still well.
//!
//! One slice at a time, at a pace by which all of it takes [`crate::Upkeep::scrub_every`], tablet after tablet; a tablet
//! that was damaged is not read any more. What a slice finds goes the way of any other damage ([`crate::quarantine`]).

use model::{Instant, TabletId};
use std::time::Duration;
use store::scrub::Place;
use store::{Done, Error, Job};

use crate::api::{Effect, Event};
use crate::machine::{Node, Working};

/// Bytes of a slice.
const SLICE: u64 = 1 << 20;
/// How soon the next slice comes at the earliest: even a short pass leaves room for what somebody waits for.
const SOONEST: Duration = Duration::from_millis(20);

/// How far the present pass has got.
#[derive(Debug, Default)]
pub(crate) struct Scrubbing {
    /// The tablet, and the place in it.
    at: Option<(TabletId, Place)>,
    /// A slice is under way.
    running: bool,
    /// When the next slice, or the next pass, is due.
    due: Instant,
    /// When this pass began, and what it has read.
    begun: Instant,
    read: u64,
    /// Of all passes, and when the last one ended.
    pub total: u64,
    pub completed: Option<Instant>,
}

impl Scrubbing {
    pub fn new(now: Instant) -> Scrubbing {
        Scrubbing { due: now, begun: now, ..Scrubbing::default() }
    }

    pub fn deadline(&self) -> Option<Instant> {
        (!self.running).then_some(self.due)
    }
}

impl Node {
    /// Begins the next slice if it is time.
    pub(crate) fn scrub_if_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.scrubbing.running || now < self.scrubbing.due || self.options.upkeep.scrub_every.is_zero() {
            return;
        }
        let sound = |tablet: &TabletId| {
            self.hosted.get(tablet).is_some_and(|hosted| hosted.damage.is_none()) && !self.adopting.contains(tablet)
        };
        let at = self.scrubbing.at.filter(|(tablet, place)| *place != Place::END && sound(tablet));
        let after = self.scrubbing.at.map(|(tablet, _)| tablet);
        let next =
            || self.hosted.keys().copied().find(|tablet| after.is_none_or(|after| *tablet > after) && sound(tablet));
        let Some((tablet, place)) = at.or_else(|| next().map(|tablet| (tablet, Place::default()))) else {
            self.end_pass(now, out);
            return;
        };
        let Some(hosted) = self.hosted.get(&tablet) else { return };
        let job = Job::Scrub { view: hosted.rows.view(), from: place, bytes: SLICE };
        self.scrubbing.at = Some((tablet, place));
        self.scrubbing.running = true;
        self.run(job, Working::Scrub { tablet }, out);
    }

    /// A slice is done.
    pub(crate) fn on_scrubbed(&mut self, now: Instant, tablet: TabletId, result: Result<Done, Error>) {
        let scrubbing = &mut self.scrubbing;
        scrubbing.running = false;
        let bytes = match result {
            Ok(Done::Scrubbed { bytes, next: Some(place) }) => {
                // A merge has other tables: what was read of the old ones need not be read again, but it may be.
                scrubbing.at = Some((tablet, place));
                bytes
            }
            other => {
                scrubbing.at = Some((tablet, Place::END));
                if let Ok(Done::Scrubbed { bytes, .. }) = other { bytes } else { 0 }
            }
        };
        scrubbing.read += bytes;
        scrubbing.total += bytes;
        let all: u64 = self.hosted.values().map(|hosted| hosted.rows.bytes()).sum::<u64>().max(1);
        let share = bytes as f64 / all as f64;
        // A little faster than needed, as what there is grows meanwhile.
        let pause = self.options.upkeep.scrub_every.mul_f64((share * 0.8).min(1.0));
        self.scrubbing.due = now + pause.max(SOONEST);
    }

    fn end_pass(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let every = self.options.upkeep.scrub_every;
        let scrubbing = &mut self.scrubbing;
        let took = now.since(scrubbing.begun);
        if scrubbing.read > 0 {
            let what = format!("{} bytes were read in {} s, all of them well", scrubbing.read, took.as_secs());
            let damaged = self.hosted.values().filter(|hosted| hosted.damage.is_some()).count();
            let what = if damaged == 0 { what } else { format!("{what}, but those of {damaged} tablets") };
            out.push(Effect::Event(Event { name: "scrub_completed", tablet: None, what }));
        }
        scrubbing.completed = Some(now);
        scrubbing.at = None;
        scrubbing.read = 0;
        scrubbing.due = (scrubbing.begun + every).max(now + SOONEST);
        scrubbing.begun = scrubbing.due;
    }
}
