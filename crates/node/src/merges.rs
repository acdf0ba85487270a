//! Two tablets that become one: the right one is closed, then the left one's primary writes the entry, and whoever applies
//! it makes the heir of what it has of both.
//!
//! ```text
//!   right  FromMaster::Close ──▶ no new writes in this epoch ──Close in its log──▶ committed ──ToMaster::Closed──▶
//!   left   FromMaster::Merge ──▶ no new writes ──Merge in its log──▶ committed: both have ended
//!                                                                       │ the right one is applied up to its Close,
//!                                                                       ▼ the heir is born of both
//!   clients ◀── Moved(heir) ──────────────────────────────── left, right ──▶ heir (counts on from the larger lsn)
//!   master  ◀── Merged ─────────────────────────────────────
//! ```
//!
//! The master lets nobody reconfigure the right one's group from when it hears `Closed` until the left one's log has
//! decided. So each member of the heir has all of the right one; who has not, because of damage, has no heir either,
//! and learns it from the others. A closed tablet is open again in the next epoch: nothing has to be undone.

use bytes::Bytes;
use model::{
    Assignment, Close, Configuration, Epoch, Instant, Lineage, Lsn, Merge, Payload, Refusal, Tablet, TabletId,
};
use protocol::ToMaster;
use protocol::replica::Input as GroupInput;

use crate::api::{Effect, Event};
use crate::hosted::Hosted;
use crate::machine::Node;
use crate::splits::{End, Origin};

/// What the master wants of the left one's primary: that it ends, with the right one, in this heir, in this epoch or never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joining {
    pub epoch: Epoch,
    pub right: TabletId,
    pub right_epoch: Epoch,
    pub upto: Lsn,
    pub heir: TabletId,
}

impl Hosted {
    /// The heir that `merge`, the entry at `lsn`, makes of this tablet and the right one.
    pub(crate) fn join(&self, lsn: Lsn, right: &Hosted, merge: &Merge) -> Hosted {
        // Both are applied up to their last entries, so the heir counts on from the larger one.
        let rows = self.rows.fuse(merge.heir, &right.rows);
        let base = rows.applied();
        let tablet = Tablet { id: merge.heir, table: self.tablet.table, slice: merge.slice.clone() };
        let assignment = Assignment {
            tablet,
            schema: (*self.schema).clone(),
            configuration: merge.configuration.clone(),
            learner: None,
            lineage: Lineage::default(),
        };
        let replica = self.replica.bear(merge.heir, base);
        let mut heir = Hosted::with(&assignment, replica, rows, self.completions.unite(&right.completions));
        heir.saw_version(self.last_version.max(right.last_version));
        heir.damage = self.damage.clone().or_else(|| right.damage.clone());
        heir.diverged = self.diverged || right.diverged;
        heir.origin = Some(Origin { parent: self.id(), lsn, other: Some((right.id(), merge.upto)) });
        heir
    }
}

impl Node {
    /// The master wants the tablet closed, for the sake of an heir.
    pub(crate) fn on_close_wish(
        &mut self,
        now: Instant,
        tablet: TabletId,
        epoch: Epoch,
        heir: TabletId,
        out: &mut Vec<Effect>,
    ) {
        let room = self.check_disks(tablet).is_ok();
        let Some(hosted) = self.hosted.get_mut(&tablet).filter(|hosted| !hosted.ending.has_ended()) else { return };
        if hosted.ending.closure().is_some_and(|(closed, of, _)| (closed, of) == (epoch, heir)) {
            self.report_closed(tablet, out);
            return;
        }
        if !hosted.replica.may_order(now) || hosted.ending.is_under_way() || hosted.replica.epoch() < epoch {
            return; // The master says it again with every heartbeat.
        }
        let why = match () {
            () if hosted.replica.epoch() > epoch => "the right one's group was reconfigured meanwhile",
            () if hosted.damage.is_some() => "something of the right one is damaged",
            () if hosted.ending.closure().is_some() => "the right one is closed for another merge",
            () if !room => "a disk is full",
            () => {
                hosted.ending.close(epoch, heir);
                self.write_last(now, tablet, &Payload::Close(Close { heir }), out);
                return;
            }
        };
        out.push(Effect::Report(ToMaster::Unmerged { heir, left: false, why: why.into() }));
    }

    /// Tells the master that the tablet is closed, if its entry is committed.
    pub(crate) fn report_closed(&self, tablet: TabletId, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get(&tablet).filter(|hosted| !hosted.ending.has_ended()) else { return };
        if let Some((epoch, heir, Some(lsn))) = hosted.ending.closure() {
            out.push(Effect::Report(ToMaster::Closed { tablet, epoch, lsn, heir }));
        }
    }

    /// The master wants the tablet, and the closed one after it, to become one.
    pub(crate) fn on_merge_wish(&mut self, now: Instant, tablet: TabletId, joining: Joining, out: &mut Vec<Effect>) {
        let Joining { epoch, right, upto, heir, .. } = joining;
        let room = self.check_disks(tablet).is_ok();
        let Some(hosted) = self.hosted.get(&tablet) else { return };
        if hosted.ending.has_ended() {
            self.report_ended(tablet, out);
            return;
        }
        let busy = hosted.ending.is_under_way() || hosted.ending.closure().is_some() || !room;
        if !hosted.replica.may_order(now) || busy || hosted.replica.epoch() < epoch {
            return; // The master says it again with every heartbeat.
        }
        match self.check_merge(hosted, joining) {
            Ok(merge) => {
                if let Some(hosted) = self.hosted.get_mut(&tablet) {
                    hosted.ending.begin();
                }
                let what = format!("with {right}, which ends at {upto}, into {heir}");
                out.push(Effect::Event(Event { name: "merge_written", tablet: Some(tablet), what }));
                self.write_last(now, tablet, &Payload::Merge(merge), out);
            }
            Err(why) => {
                if let Some(hosted) = self.hosted.get_mut(&tablet) {
                    hosted.ending.refuse(heir);
                }
                out.push(Effect::Report(ToMaster::Unmerged { heir, left: true, why: why.into() }));
            }
        }
    }

    /// The entry, if all is as the master believes. A no is for ever.
    fn check_merge(&self, left: &Hosted, joining: Joining) -> Result<Merge, &'static str> {
        let Joining { epoch, right, right_epoch, upto, heir } = joining;
        if left.replica.epoch() > epoch || !left.ending.may_yet(heir) {
            // Whatever the primary of that epoch has written is applied here by now, and the merge was not in it.
            return Err("the left one's group was reconfigured meanwhile");
        }
        let right = self.hosted.get(&right).ok_or("the right one is not here")?;
        let closed = right.ending.closure() == Some((right_epoch, heir, Some(upto)));
        if right.replica.epoch() != right_epoch || !closed || right.rows.applied() < upto {
            return Err("the right one is not closed here");
        }
        if left.damage.is_some() || right.damage.is_some() {
            return Err("something of it is damaged");
        }
        let (mine, its) = (left.replica.configuration(), right.replica.configuration());
        if (mine.primary, &mine.secondaries) != (its.primary, &its.secondaries) {
            return Err("the two are not kept by the same nodes");
        }
        let slice = Merge::join(left.slice(), right.slice()).ok_or("the one does not begin where the other ends")?;
        let configuration = Configuration { epoch: mine.epoch.max(its.epoch).next(), ..mine.clone() };
        Ok(Merge { right: right.id(), upto, heir, slice, configuration })
    }

    /// Nothing of clients comes after it.
    fn write_last(&mut self, now: Instant, tablet: TabletId, payload: &Payload, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let refusal = Refusal::NotReady(tablet);
        out.extend(hosted.lanes.clear().map(|ticket| Effect::Refuse(ticket, refusal.clone())));
        let payload = postcard::to_allocvec(payload).expect("plain values have a form in bytes");
        self.step_replica(now, tablet, GroupInput::Order(Bytes::from(payload)), out);
    }

    /// The tablet has ended here, and the one after it with it: the heir begins, if both are here.
    pub(crate) fn on_merged(&mut self, now: Instant, left: TabletId, merge: Merge, out: &mut Vec<Effect>) {
        self.decide_closed(now, &merge, out);
        let (Some(mine), Some(right)) = (self.hosted.get(&left), self.hosted.get(&merge.right)) else {
            self.say_incomplete(left, &merge, out);
            self.report_ended(left, out);
            return;
        };
        let whole = right.rows.applied() == merge.upto && !self.adopting.contains(&merge.right);
        if !whole {
            self.say_incomplete(left, &merge, out);
            self.report_ended(left, out);
            return;
        }
        let heir = mine.join(mine.rows.applied(), right, &merge);
        self.end_joined(&merge);
        self.send_on(merge.right, out);
        self.on_born(now, left, vec![heir], out);
    }

    /// The left one's log shows that the right one's last entry was committed.
    fn decide_closed(&mut self, now: Instant, merge: &Merge, out: &mut Vec<Effect>) {
        let Some(right) = self.hosted.get(&merge.right) else { return };
        let entry = right.replica.entry(merge.upto).and_then(|entry| postcard::from_bytes(&entry.payload).ok());
        let closes = matches!(entry, Some(Payload::Close(Close { heir })) if heir == merge.heir);
        if closes && right.rows.applied() < merge.upto && !self.adopting.contains(&merge.right) {
            self.step_replica(now, merge.right, GroupInput::Decided(merge.upto), out);
        }
    }

    /// The right one is part of the heir from now on.
    pub(crate) fn end_joined(&mut self, merge: &Merge) {
        if let Some(right) = self.hosted.get_mut(&merge.right) {
            right.ending.end(merge.upto, End::Joined(merge.clone()));
        }
        // No lease is granted for it with those of the groups at rest either.
        self.heard.values_mut().for_each(|heard| heard.part(merge.right));
    }

    fn say_incomplete(&self, left: TabletId, merge: &Merge, out: &mut Vec<Effect>) {
        let what = format!("it became {} with {}, of which not all is here", merge.heir, merge.right);
        out.push(Effect::Event(Event { name: "merge_incomplete", tablet: Some(left), what }));
    }
}
