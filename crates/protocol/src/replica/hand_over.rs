//! How a primary leaves its place to a secondary: because it was asked to, or because its own disk is too slow.
//!
//! ```text
//!   asked:    hold new writes ──▶ all are committed, the heir has them ──▶ propose heir, ourselves as its secondary
//!   too slow: read no more ─────▶ propose heir, without us
//! ```
//!
//! Asked, nothing is given up: until the master has decided, we are primary, and if it takes longer than a lease, new
//! writes are taken again. The heir reads only once we, its secondary, acknowledge its epoch, and then we are no
//! primary. Too slow, we are not asked any more once the master has decided, and the heir does not wait for our leases
//! to lapse; so we stop to read *before* the proposal goes out, for the rest of the epoch (PacificA, 2.3 and 2.4).

use alloc::vec::Vec;
use core::time::Duration;
use model::{Epoch, Instant, Lsn, NodeId};

use super::{Effect, Part, Replica};
use crate::{Mutant, Timing, Why};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum HandOver {
    /// Nobody takes our place.
    #[default]
    No,
    /// New writes wait since then, so that the heir can take over with nothing under way.
    To(NodeId, Instant),
    /// We have given our place up, and neither read nor take writes in this epoch any more.
    Resigned,
}

impl HandOver {
    pub fn holds_writes(self) -> bool {
        self != HandOver::No
    }

    pub fn has_resigned(self) -> bool {
        self == HandOver::Resigned
    }

    /// Gives up waiting for the heir or the master after a lease.
    pub fn tick(&mut self, now: Instant, timing: &Timing) {
        if self.deadline(timing).is_some_and(|deadline| now >= deadline) {
            *self = HandOver::No;
        }
    }

    pub fn deadline(self, timing: &Timing) -> Option<Instant> {
        match self {
            HandOver::To(_, since) => Some(since + timing.lease),
            HandOver::No | HandOver::Resigned => None,
        }
    }
}

impl Replica {
    /// Somebody planned that `heir` shall be primary.
    pub(super) fn on_hand_over(&mut self, now: Instant, heir: NodeId, epoch: Epoch, out: &mut Vec<Effect>) {
        let Part::Primary(primary) = &self.part else { return };
        let fit = self.configuration.secondaries.contains(&heir) && primary.leased(heir, now, self);
        let free = primary.proposal.is_none() && primary.hand_over == HandOver::No && self.serves(primary);
        if epoch != self.epoch() || !fit || !free {
            return;
        }
        if let Some(primary) = self.primary() {
            primary.hand_over = HandOver::To(heir, now);
        }
        self.hand_over_if_drained(now, out);
    }

    /// Proposes the heir once nothing is under way any more.
    pub(super) fn hand_over_if_drained(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let Part::Primary(primary) = &self.part else { return };
        let HandOver::To(heir, _) = primary.hand_over else { return };
        let last = self.tail.last();
        let has_all = primary.peers.get(&heir).is_some_and(|peer| peer.acked == last);
        let drained = self.committed == last && has_all || self.mutant(Mutant::HandOverUnderWay);
        if primary.proposal.is_none() && drained {
            self.propose(now, self.configuration.handed_to(heir), Why::Transfer { to: heir }, out);
        }
    }

    /// Our disk has been too slow for too long: the secondary that has most takes our place, and we come back by
    /// catch-up. Not if it is as slow as we are: then nothing would be better for it.
    pub(super) fn abdicate(&mut self, now: Instant, behind: Duration, out: &mut Vec<Effect>) {
        let Part::Primary(primary) = &self.part else { return };
        let fit = |node: &NodeId| -> Option<(Lsn, NodeId)> {
            let peer = primary.peers.get(node)?;
            (peer.acked > self.durable && primary.leased(*node, now, self)).then_some((peer.acked, *node))
        };
        let Some((_, heir)) = self.configuration.secondaries.iter().filter_map(fit).max() else {
            if let Some(primary) = self.primary() {
                primary.pace = super::pace::Pace::default();
            }
            return;
        };
        // From now on our leases vouch for nothing: the heir acknowledges without us.
        self.keep_freshness(now);
        if let Some(primary) = self.primary() {
            primary.hand_over = HandOver::Resigned;
        }
        let why = Why::Slow { node: self.me, behind };
        self.propose(now, self.configuration.succeeded_by(heir), why, out);
    }

    /// Our disk has more than before: that may be the entry that is watched, and from now on the secondaries are
    /// expected to have it too.
    pub(super) fn pace_own_disk(&mut self, now: Instant) {
        let (durable, last, timing) = (self.durable, self.tail.last(), &self.timing);
        let Part::Primary(primary) = &mut self.part else { return };
        primary.pace.reached(now, durable, timing.slow);
        if durable < last {
            primary.pace.watch(now, last, timing);
        }
        for peer in primary.peers.values_mut().filter(|peer| peer.acked < durable) {
            peer.pace.watch(now, durable, timing);
        }
    }
}
