//! How old a replica's rows may be, for reads that it answers without being a primary with leases.
//!
//! ```text
//!   secondary                                primary
//!      │ ── BeaconAck(stamp: my clock, t1) ──▶ │
//!      │ ◀─ Beacon(heard: t1, committed) ───── │   sent after t1, and under leases of all: whatever was
//!                                                  acknowledged before t1 lies at or before `committed`
//! ```
//!
//! The stamp is the secondary's own and comes back to it, so neither the clocks of others nor the time that messages
//! are under way, nor that for which a process is stopped, can make the rows look younger than they are. A primary that
//! has not all leases may have a successor that acknowledges without it: what it says then counts for nothing here.

use core::time::Duration;
use model::{Instant, Lsn};

use super::{Part, Replica};
use crate::Mutant;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Fresh {
    /// All that was acknowledged before this is committed here.
    asof: Option<Instant>,
    /// All that was acknowledged before the instant lies at or before the lsn, which is not committed here yet.
    awaited: Option<(Instant, Lsn)>,
    /// The newest committed point of which the primary spoke.
    told: Lsn,
}

impl Replica {
    /// The primary of our epoch has said so, under leases of all: whatever was acknowledged before `asof`, by our
    /// clock, lies at or before `committed`.
    pub(super) fn on_fresh(&mut self, asof: Instant, committed: Lsn) {
        self.fresh.told = self.fresh.told.max(committed);
        // The older one is kept until it is reached: always waiting for the newest could be for ever.
        self.fresh.awaited.get_or_insert((asof, committed));
        self.refresh();
    }

    /// What was waited for may be committed now.
    pub(super) fn refresh(&mut self) {
        if let Some((asof, upto)) = self.fresh.awaited
            && (upto <= self.committed || self.mutant(Mutant::FreshUnreached))
        {
            self.fresh.asof = self.fresh.asof.max(Some(asof));
            self.fresh.awaited = None;
        }
    }

    /// Leases that we had as primary end with our part in this, or with a pause: what they vouched for stays true.
    pub(super) fn keep_freshness(&mut self, now: Instant) {
        self.fresh.asof = self.fresh_asof(now);
    }

    /// All that was acknowledged before this, by our clock, is committed here. `None` if nobody can say.
    pub fn fresh_asof(&self, now: Instant) -> Option<Instant> {
        if self.may_read(now) {
            return Some(now);
        }
        let leased = match &self.part {
            Part::Primary(primary) if self.serves(primary) && !primary.has_resigned() => primary.leased_until(self),
            _ => None,
        };
        self.fresh.asof.max(leased.map(|until| until.min(now)))
    }

    /// How old its rows may be: nothing is missing that was acknowledged longer ago.
    pub fn lag(&self, now: Instant) -> Option<Duration> {
        self.fresh_asof(now).map(|asof| now.since(asof))
    }

    /// Records that it knows to be committed but does not have as such.
    pub fn behind(&self) -> u64 {
        self.fresh.told.0.saturating_sub(self.committed.0)
    }
}
