//! Eventual reads: any member of a group answers from what it has applied, and says how old that may be.
//!
//! Neither lease nor epoch is asked: a replica that was cut off, or removed without knowing it, answers too, with a lag
//! that grows. Whoever is no member by its own configuration refuses: a learner may lack what its group had long ago.

use bytes::Bytes;
use model::request::Role;
use model::{
    Consistency, Epoch, Freshness, Instant, Lsn, Operation, ReadOptions, Refusal, RowRange, Schema, TabletId, Ticket,
    Timestamp,
};
use std::sync::Arc;
use std::time::Duration;

use crate::api::Effect;
use crate::hosted::Hosted;
use crate::machine::{Node, Reading};
use crate::read::{Found, Read};
use crate::serve::{MOST_READS, found_to_effect, many_rows, one_row, page, resolve_options};

/// A read that need not see the newest.
#[derive(Debug)]
pub(crate) struct Eventual {
    wanted: Wanted,
    options: ReadOptions<String>,
    max_lag: Option<Duration>,
}

/// Which rows.
#[derive(Debug)]
enum Wanted {
    Row(Bytes),
    Many(Vec<Bytes>),
    Page { range: RowRange, rows: u32, reverse: bool },
}

impl Eventual {
    /// If the operation is one.
    pub fn of(operation: &Operation) -> Option<Eventual> {
        let (wanted, options) = match operation {
            Operation::Get { row, options } => (Wanted::Row(row.clone()), options),
            Operation::GetMany { rows, options } => (Wanted::Many(rows.clone()), options),
            Operation::Scan { range, options, rows, reverse } => {
                (Wanted::Page { range: range.clone(), rows: *rows, reverse: *reverse }, options)
            }
            Operation::Write { .. } | Operation::WriteMany { .. } | Operation::Changes(_) => return None,
        };
        match options.consistency {
            Consistency::Linearizable => None,
            Consistency::Eventual { max_lag } => Some(Eventual { wanted, options: options.clone(), max_lag }),
        }
    }
}

/// The state of which a read was made.
#[derive(Debug)]
pub(crate) struct Seen {
    epoch: Epoch,
    applied: Lsn,
    /// All that was acknowledged before this is in it.
    asof: Option<Instant>,
    behind: u64,
    max_lag: Option<Duration>,
}

impl Seen {
    fn of(hosted: &Hosted, now: Instant, max_lag: Option<Duration>) -> Seen {
        let replica = &hosted.replica;
        Seen {
            epoch: replica.epoch(),
            applied: hosted.rows.applied(),
            // What is committed is applied in the same step; were it not, nobody could say.
            asof: replica.fresh_asof(now).filter(|_| hosted.rows.applied() >= replica.committed()),
            behind: replica.behind(),
            max_lag,
        }
    }

    fn lag(&self, now: Instant) -> Option<Duration> {
        self.asof.map(|asof| now.since(asof))
    }

    /// Too old for the reader?
    fn check(&self, now: Instant, tablet: TabletId) -> Result<(), Refusal> {
        let lag = self.lag(now);
        let within = self.max_lag.is_none_or(|most| lag.is_some_and(|lag| lag <= most));
        if within { Ok(()) } else { Err(Refusal::TooOld { tablet, lag }) }
    }
}

impl Node {
    pub(crate) fn read_eventually(
        &mut self,
        now: Instant,
        ticket: Ticket,
        tablet: TabletId,
        wall: Timestamp,
        read: Eventual,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.catch_up_with_leases(now, tablet, out);
        let hosted = self.hosted.get(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        if !matches!(hosted.replica.role(), Role::Primary | Role::Secondary) {
            return Err(Refusal::WrongEpoch { tablet, current: hosted.replica.configuration().clone() });
        }
        if hosted.is_doubtful() {
            return Err(Refusal::NotReady(tablet));
        }
        let seen = Seen::of(hosted, now, read.max_lag);
        seen.check(now, tablet)?;
        if self.reads.len() >= MOST_READS {
            return Err(Refusal::Overloaded);
        }
        let what = match read.wanted {
            Wanted::Row(row) => one_row(hosted, row)?,
            Wanted::Many(rows) => many_rows(hosted, rows)?,
            Wanted::Page { range, rows, reverse } => page(hosted, &range, rows, reverse),
        };
        let schema = Arc::clone(&hosted.schema);
        let options = resolve_options(&schema, read.options)?;
        let read = Read { view: hosted.rows.view(), schema: Arc::clone(&schema), now: wall, options, what };
        let id = self.draw_id();
        self.reads.insert(id, Reading::Eventual { ticket, tablet, schema, seen });
        out.push(Effect::Read(id, read));
        Ok(())
    }

    /// The age is that of the answer: reading may have taken long.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn answer_eventual(
        &mut self,
        now: Instant,
        ticket: Ticket,
        tablet: TabletId,
        schema: Arc<Schema>,
        seen: Seen,
        found: Result<Found, store::Error>,
        out: &mut Vec<Effect>,
    ) {
        let doubtful = self.hosted.get(&tablet).is_some_and(Hosted::is_doubtful);
        let fit = if doubtful { Err(Refusal::NotReady(tablet)) } else { seen.check(now, tablet) };
        if let Err(refusal) = fit {
            out.push(Effect::Refuse(ticket, refusal));
            return;
        }
        let Seen { epoch, applied, behind, .. } = seen;
        let from = Freshness { node: self.options.id, epoch, applied, lag: seen.lag(now), behind };
        let answer = found_to_effect(ticket, found, schema, Some(from));
        let answer = answer.map_err(|error| self.refusal_of(tablet, &error));
        out.push(answer.unwrap_or_else(|refusal| Effect::Refuse(ticket, refusal)));
    }
}
