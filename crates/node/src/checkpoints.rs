//! Checkpoints: what a node does when it is told to keep tablets as they are. See [`store::checkpoint`].
//!
//! ```text
//!   Add ──▶ primary? ──▶ up to where is it applied? ──flush──▶ … ──flush──▶ that is in tables ──Job──▶ Added(part)
//!   Seal, List, Remove ──────────────────────────────────────────────────────────────────────Job──▶ Done, Held, Removed
//! ```
//!
//! What was acknowledged before the order came is applied at whoever is primary then, so a part has it. The lease is looked
//! at when the position is taken: a part is good for ever after. Nothing waits here for ever: who cannot go on is refused.

use model::checkpoint::{CheckpointAnswer, CheckpointId, CheckpointOrder, Held, Part, TabletCopy};
use model::request::Role;
use model::{Epoch, Instant, Lsn, Refusal, Schema, TabletId, Ticket};
use std::time::Duration;
use store::checkpoint::{Added, Order, Outcome, check_name};
use store::{Done, Error, Job};

use crate::api::{Effect, Event};
use crate::machine::{Node, Working};

/// Orders that may wait for flushes.
const MOST_WANTED: usize = 1_000;
/// Flushes of a large memtable on a slow disk take less. Whoever asked has asked again by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// A tablet that is to be in a checkpoint, once enough of it is in tables.
#[derive(Debug)]
pub(crate) struct Wanted {
    ticket: Ticket,
    name: String,
    id: CheckpointId,
    tablet: TabletId,
    epoch: Epoch,
    /// As much as this must be in tables.
    upto: Lsn,
    since: Instant,
}

/// What is known of checkpoints here.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    wanted: Vec<Wanted>,
    /// How many there are,
    count: usize,
    /// and the bytes of their files.
    bytes: u64,
}

impl Checkpoints {
    pub fn note(&mut self, held: &[Held]) {
        (self.count, self.bytes) = (held.len(), held.iter().map(|held| held.bytes).sum());
    }
}

impl Node {
    /// How many checkpoints have a part here, and the bytes of their files, most of which may be the node's own.
    pub fn checkpoints(&self) -> (usize, u64) {
        (self.checkpoints.count, self.checkpoints.bytes)
    }

    pub(crate) fn on_checkpoint_order(
        &mut self,
        now: Instant,
        ticket: Ticket,
        order: CheckpointOrder,
        out: &mut Vec<Effect>,
    ) {
        let name = match &order {
            CheckpointOrder::Add { name, .. } | CheckpointOrder::Remove { name, .. } => Some(name),
            CheckpointOrder::Seal(checkpoint) => Some(&checkpoint.name),
            CheckpointOrder::List { name } => name.as_ref(),
        };
        if let Some(Err(why)) = name.map(|name| check_name(name)) {
            out.push(Effect::Checkpoint(ticket, Err(Refusal::Invalid(why))));
            return;
        }
        let order = match order {
            CheckpointOrder::Add { name, id, tablet } => {
                match self.want(now, ticket, name, id, tablet) {
                    Ok(()) => self.go_on_with_checkpoints(now, Some(tablet), out),
                    Err(refusal) => out.push(Effect::Checkpoint(ticket, Err(refusal))),
                }
                return;
            }
            CheckpointOrder::Seal(checkpoint) => Order::Seal { node: self.options.id, checkpoint },
            CheckpointOrder::List { name } => Order::List { name },
            CheckpointOrder::Remove { name, id } => {
                // What has not been added yet will not be.
                let (gone, kept) = std::mem::take(&mut self.checkpoints.wanted)
                    .into_iter()
                    .partition(|wanted: &Wanted| wanted.name == name && id.is_none_or(|id| id == wanted.id));
                self.checkpoints.wanted = kept;
                for wanted in gone {
                    let why = format!("checkpoint {} was removed meanwhile", wanted.name);
                    out.push(Effect::Checkpoint(wanted.ticket, Err(Refusal::Invalid(why))));
                }
                Order::Remove { name, id }
            }
        };
        let about = match &order {
            Order::Seal { node, checkpoint } => {
                let here = checkpoint.tablets().filter(|copy| copy.node == *node);
                let (tablets, bytes) = here.fold((0, 0), |(tablets, bytes), copy| (tablets + 1, bytes + copy.bytes));
                format!("{}: {tablets} of its tablets are here, in tables of {bytes} bytes", checkpoint.name)
            }
            Order::Remove { name, .. } => name.clone(),
            Order::List { .. } => String::new(),
        };
        self.run(Job::Checkpoints(order), Working::Checkpoints { ticket: Some(ticket), about }, out);
    }

    /// Takes the position of a tablet that is led here.
    fn want(
        &mut self,
        now: Instant,
        ticket: Ticket,
        name: String,
        id: CheckpointId,
        tablet: TabletId,
    ) -> Result<(), Refusal> {
        if self.checkpoints.wanted.len() >= MOST_WANTED {
            return Err(Refusal::Overloaded);
        }
        let hosted = self.hosted.get(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        if let Some(refusal) = self.moved(tablet) {
            return Err(refusal);
        }
        let leads = hosted.replica.may_read(now) || self.may_read(tablet, now);
        if !leads || hosted.is_doubtful() || self.adopting.contains(&tablet) {
            return Err(match hosted.replica.role() {
                Role::Primary => Refusal::NotReady(tablet),
                _ => Refusal::WrongEpoch { tablet, current: hosted.replica.configuration().clone() },
            });
        }
        if let Some(damage) = &hosted.damage {
            return Err(Refusal::Corrupt(format!("tablet {tablet}: {damage}")));
        }
        if self.disk_full() {
            return Err(Refusal::DiskFull(self.options.id));
        }
        let (epoch, upto) = (hosted.replica.epoch(), hosted.rows.applied());
        self.checkpoints.wanted.push(Wanted { ticket, name, id, tablet, epoch, upto, since: now });
        Ok(())
    }

    /// Adds those whose flushes are done, of this tablet or of all, and sees to it that the others are flushed.
    pub(crate) fn go_on_with_checkpoints(&mut self, now: Instant, only: Option<TabletId>, out: &mut Vec<Effect>) {
        for wanted in std::mem::take(&mut self.checkpoints.wanted) {
            if only.is_some_and(|only| only != wanted.tablet) {
                self.checkpoints.wanted.push(wanted);
                continue;
            }
            let tablet = wanted.tablet;
            let hosted = self.hosted.get(&tablet).filter(|hosted| {
                let same = hosted.replica.epoch() == wanted.epoch && hosted.replica.role() == Role::Primary;
                same && !hosted.ending.has_ended() && !self.adopting.contains(&tablet)
            });
            let refusal = match hosted {
                None => Some(self.moved(tablet).unwrap_or(Refusal::NotReady(tablet))),
                Some(_) if now.since(wanted.since) > PATIENCE => Some(Refusal::NotReady(tablet)),
                Some(_) => None,
            };
            if let Some(refusal) = refusal {
                out.push(Effect::Checkpoint(wanted.ticket, Err(refusal)));
                continue;
            }
            let Some(hosted) = hosted else { continue };
            if hosted.rows.flushed() >= wanted.upto && !hosted.rows.is_unsettled() {
                let copy = TabletCopy {
                    tablet,
                    slice: hosted.tablet.slice.clone(),
                    epoch: wanted.epoch,
                    upto: hosted.rows.flushed(),
                    node: self.options.id,
                    date: self.date(now),
                    bytes: 0,
                };
                let part = Part { name: wanted.name, id: wanted.id, schema: Schema::clone(&hosted.schema), copy };
                let job = Job::Checkpoint { view: hosted.rows.view(), part: Box::new(part) };
                self.run(job, Working::Checkpoint { ticket: wanted.ticket, tablet }, out);
            } else {
                self.checkpoints.wanted.push(wanted);
                self.flush(tablet, out);
            }
        }
    }

    /// A flush has failed: what waits for it would wait for long.
    pub(crate) fn on_flush_failed(&mut self, tablet: TabletId, error: &Error, out: &mut Vec<Effect>) {
        let wanted = std::mem::take(&mut self.checkpoints.wanted);
        let (failed, kept) = wanted.into_iter().partition(|wanted: &Wanted| wanted.tablet == tablet);
        self.checkpoints.wanted = kept;
        let failed: Vec<Wanted> = failed;
        for wanted in failed {
            out.push(Effect::Checkpoint(wanted.ticket, Err(self.refusal_of_job(Some(tablet), error))));
        }
    }

    pub(crate) fn on_checkpointed(
        &mut self,
        ticket: Ticket,
        tablet: TabletId,
        result: Result<Done, Error>,
        out: &mut Vec<Effect>,
    ) {
        let answer = match result {
            Ok(Done::Checkpointed(Added::Part(part))) => Ok(CheckpointAnswer::Added(part)),
            Ok(Done::Checkpointed(Added::Stale)) => Err(self.moved(tablet).unwrap_or(Refusal::NotReady(tablet))),
            Ok(_) => Err(Refusal::Exists(String::from("another checkpoint of that name"))),
            Err(error) => Err(self.refusal_of_job(Some(tablet), &error)),
        };
        out.push(Effect::Checkpoint(ticket, answer));
    }

    pub(crate) fn on_checkpoints(
        &mut self,
        ticket: Option<Ticket>,
        about: String,
        result: Result<Done, Error>,
        out: &mut Vec<Effect>,
    ) {
        let mut changed = |name, out: &mut Vec<Effect>| {
            out.push(Effect::Event(Event { name, tablet: None, what: about.clone() }));
            let count = Job::Checkpoints(Order::List { name: None });
            self.run(count, Working::Checkpoints { ticket: None, about: String::new() }, out);
        };
        let answer = match result {
            Ok(Done::Checkpoints(Outcome::Sealed)) => {
                changed("checkpoint_made", out);
                Ok(CheckpointAnswer::Done)
            }
            Ok(Done::Checkpoints(Outcome::Removed(true))) => {
                changed("checkpoint_removed", out);
                Ok(CheckpointAnswer::Removed(true))
            }
            Ok(Done::Checkpoints(Outcome::Removed(false))) => Ok(CheckpointAnswer::Removed(false)),
            Ok(Done::Checkpoints(Outcome::Held(held))) => {
                if ticket.is_none() {
                    self.checkpoints.note(&held);
                }
                Ok(CheckpointAnswer::Held(held))
            }
            Ok(Done::Checkpoints(Outcome::Unfit(why))) => Err(Refusal::Invalid(why)),
            Ok(other) => Err(Refusal::Invalid(format!("a checkpoint's job has done something else: {other:?}"))),
            Err(error) => Err(self.refusal_of_job(None, &error)),
        };
        if let Some(ticket) = ticket {
            out.push(Effect::Checkpoint(ticket, answer));
        }
    }

    /// Why there is no checkpoint, by name.
    fn refusal_of_job(&self, tablet: Option<TabletId>, error: &Error) -> Refusal {
        let what = tablet.map_or_else(String::new, |tablet| format!("tablet {tablet}: "));
        match error {
            error if error.is_full() => Refusal::DiskFull(self.options.id),
            error if error.is_corrupt() => Refusal::Corrupt(format!("{what}{} has: {error}", self.options.id)),
            error => match tablet.filter(|tablet| !self.hosted.contains_key(tablet)) {
                Some(tablet) => Refusal::NoSuchTablet(tablet),
                None => Refusal::Invalid(format!("{what}{} says: {error}", self.options.id)),
            },
        }
    }
}
