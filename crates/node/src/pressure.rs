//! What a tablet does when it is written faster than its memtable gets to disk, or than what got there is merged: new writes
//! wait, and then are refused.
//!
//! ```text
//!             memtable too large, too many runs   the flush, the merge is done
//!   serving ─────────────────────▶ stalled ──────────────────────────▶ serving: those that waited go on, in their order
//!                                    │ new writes wait
//!                                    └── half a second, or too many ──▶ Refusal::Stalled
//! ```
//!
//! Without this a memtable would grow for as long as a flush takes, or fails. Reads go on, and so does what is in the log
//! already: a primary does not hold back what its secondaries have.

use model::request::Request;
use model::{Instant, Operation, Refusal, TabletId, Ticket, Timestamp};
use std::collections::VecDeque;
use std::time::Duration;

use crate::api::{Effect, Event};
use crate::hosted::Hosted;
use crate::machine::{FlushOptions, Node};

/// Writes stall when the memtable is so many times as large as when its flush was due.
const STALL_AT: usize = 4;
/// With so many flushes that were not merged yet, reads would have to look at too many tables.
const MOST_RUNS: usize = 40;
/// A write waits for so long: less than a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// When whoever was refused may try again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Writes of a tablet that wait; their bytes are bounded by those of a flush.
const MOST_HELD: usize = 1_000;

/// Why writes of a tablet wait; `None` if they need not.
pub(crate) fn pressure(hosted: &Hosted, options: &FlushOptions) -> Option<String> {
    let (weight, limit) = (hosted.rows.weight(), options.bytes.saturating_mul(STALL_AT));
    let flush =
        if hosted.rows.is_flushing() { "its flush is under way" } else { "its flush cannot begin or has failed" };
    if weight >= limit {
        return Some(format!("the memtable has {weight} bytes, at most {limit}, and {flush}"));
    }
    let runs = hosted.rows.young_runs();
    (runs >= MOST_RUNS).then(|| format!("{runs} flushes wait to be merged, at most {MOST_RUNS}"))
}

/// A tablet whose writes wait.
#[derive(Debug)]
pub(crate) struct Stall {
    since: Instant,
    why: String,
    held: VecDeque<Held>,
    bytes: usize,
    /// How many writes had to wait, and how many were refused.
    waited: u64,
    refused: u64,
}

#[derive(Debug)]
struct Held {
    until: Instant,
    ticket: Ticket,
    wall: Timestamp,
    request: Request,
    bytes: usize,
}

/// How often writes stalled in this life of the node, for how long, and of how many tablets they do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// Stalls that began.
    pub count: u64,
    /// How long they lasted, all together, up to now.
    pub time: Duration,
    /// Tablets whose writes wait now.
    pub tablets: u32,
}

impl Node {
    /// How often and for how long writes stalled.
    pub fn stalls(&self, now: Instant) -> Stalls {
        let under_way: Duration = self.stalled.values().map(|stall| now.since(stall.since)).sum();
        Stalls { time: self.stalls.time + under_way, tablets: self.stalled.len() as u32, ..self.stalls }
    }

    /// What waits for flushes and merges: of all tablets, and of runs as many as the tablet has that has most.
    pub fn backlog(&self) -> store::tablet::Pressure {
        let of = |hosted: &Hosted| hosted.rows.pressure(&hosted.schema);
        self.hosted.values().map(of).fold(store::tablet::Pressure::default(), |sum, of| store::tablet::Pressure {
            memory: sum.memory + of.memory,
            runs: sum.runs.max(of.runs),
            debt: sum.debt + of.debt,
        })
    }

    /// Takes a write that has to wait; gives it back if it need not.
    pub(crate) fn hold_back(
        &mut self,
        now: Instant,
        ticket: Ticket,
        wall: Timestamp,
        request: Request,
        out: &mut Vec<Effect>,
    ) -> Option<Request> {
        let tablet = request.tablet;
        let writes = matches!(request.operation, Operation::Write { .. } | Operation::WriteMany { .. });
        let Some(hosted) = self.hosted.get(&tablet).filter(|_| writes) else { return Some(request) };
        if !self.stalled.contains_key(&tablet) {
            // Whoever may not write is told so at once.
            let Some(why) = pressure(hosted, &self.options.flush).filter(|_| hosted.may_write(now)) else {
                return Some(request);
            };
            self.stalls.count += 1;
            self.note_stall("writes_stalled", tablet, format!("new writes wait: {why}"), out);
            let (held, bytes, waited, refused) = (VecDeque::new(), 0, 0, 0);
            self.stalled.insert(tablet, Stall { since: now, why, held, bytes, waited, refused });
        }
        let bytes = request.operation.weight();
        let stall = self.stalled.get_mut(&tablet)?;
        if stall.held.len() >= MOST_HELD || !stall.held.is_empty() && stall.bytes + bytes > self.options.flush.bytes {
            stall.refused += 1;
            out.push(Effect::Refuse(ticket, refusal(tablet, stall)));
            return None;
        }
        stall.bytes += bytes;
        stall.waited += 1;
        stall.held.push_back(Held { until: now + PATIENCE, ticket, wall, request, bytes });
        None
    }

    /// Lets the writes go on whose tablets' memtables are small again, or that shall hear something else, and refuses those
    /// that have waited for too long.
    pub(crate) fn release_held(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let flush = &self.options.flush;
        let presses = |tablet: &TabletId| {
            let hosted = self.hosted.get(tablet).filter(|hosted| hosted.may_write(now));
            hosted.is_some_and(|hosted| pressure(hosted, flush).is_some())
        };
        let over: Vec<TabletId> = self.stalled.keys().copied().filter(|tablet| !presses(tablet)).collect();
        for tablet in over {
            let Some(stall) = self.stalled.remove(&tablet) else { continue };
            let lasted = now.since(stall.since);
            self.stalls.time += lasted;
            let Stall { waited, refused, held, .. } = stall;
            let seconds = lasted.as_secs_f64();
            let what = format!("after {seconds:.1} s: {waited} writes had to wait, {refused} were refused");
            self.note_stall("writes_resumed", tablet, what, out);
            for Held { ticket, wall, request, .. } in held {
                self.on_request(now, ticket, wall, request, out);
            }
        }
        for (&tablet, stall) in &mut self.stalled {
            while let Some(held) = stall.held.pop_front_if(|held| held.until <= now) {
                stall.bytes -= held.bytes;
                stall.refused += 1;
                out.push(Effect::Refuse(held.ticket, refusal(tablet, stall)));
            }
        }
    }

    /// When the first write has waited for too long.
    pub(crate) fn stall_deadline(&self) -> Option<Instant> {
        self.stalled.values().filter_map(|stall| stall.held.front().map(|held| held.until)).min()
    }

    fn note_stall(&mut self, name: &'static str, tablet: TabletId, what: String, out: &mut Vec<Effect>) {
        self.ask_master = true;
        self.reporting.stir(tablet);
        out.push(Effect::Event(Event { name, tablet: Some(tablet), what }));
    }
}

fn refusal(tablet: TabletId, stall: &Stall) -> Refusal {
    Refusal::Stalled { tablet, why: stall.why.clone(), retry_after: RETRY_AFTER }
}
