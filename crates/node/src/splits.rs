//! Tablets that become two: the primary writes the entry, and whoever applies it makes the two of what it has.
//!
//! ```text
//!   FromMaster::Split ──▶ closing (no new writes) ──Split in the log──▶ committed: ended
//!                                                                          │ two replicas are born here and now,
//!                                                                          ▼ with the same files and completions
//!   clients ◀── Moved(heirs) ─────────────────────────────────────── tablet ┬─▶ left   (goes on with the lsns)
//!   master  ◀── Divided ────────────────────────────────────────────        └─▶ right
//!   FromMaster::Ended ──▶ and both heirs have files of their own: the tablet is forgotten
//! ```
//!
//! Until its first flush an heir has no manifest: after a crash it is made again out of the tablet, which therefore stays
//! until then. What an heir has written since the split lies in its own log, whose first entry follows the split.

use bytes::Bytes;
use model::request::Role;
use model::{
    Assignment, Close, Configuration, Epoch, Heir, Instant, Lineage, Lsn, Merge, Payload, ReadOptions, Refusal,
    RowRange, Slice, Split, SplitAt, Tablet, TabletId,
};
use protocol::replica::Input as GroupInput;
use protocol::{Mutant, ToMaster};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::api::{Effect, Event};
use crate::completions::Completions;
use crate::hosted::Hosted;
use crate::machine::{Node, Reading};
use crate::read::{Found, Read, What};

/// Where a tablet comes from that was not made empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The tablet out of which it was made,
    pub parent: TabletId,
    /// as of this entry of its log.
    pub lsn: Lsn,
    /// The other one, likewise, if it was made out of two.
    pub other: Option<(TabletId, Lsn)>,
}

impl Origin {
    /// The tablets, each with its last entry.
    pub fn parents(self) -> impl Iterator<Item = (TabletId, Lsn)> {
        [(self.parent, self.lsn)].into_iter().chain(self.other)
    }

    fn is_of(self, tablet: TabletId) -> bool {
        self.parents().any(|(parent, _)| parent == tablet)
    }
}

/// How a tablet has ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// It has become two.
    Split(Split),
    /// It and the next one have become one.
    Merge(Merge),
    /// It has become part of one with the one before it.
    Joined(Merge),
}

impl End {
    /// Those that go on with its rows.
    fn heirs(&self, slice: &Slice) -> Vec<(TabletId, Slice, &Configuration)> {
        match self {
            End::Split(split) => {
                let Some((left, right)) = Split::cut(slice, &split.at) else { return Vec::new() };
                vec![(split.left, left, &split.configuration), (split.right, right, &split.configuration)]
            }
            End::Merge(merge) | End::Joined(merge) => vec![(merge.heir, merge.slice.clone(), &merge.configuration)],
        }
    }
}

/// What the master wants of a tablet's primary: that it ends in these two, in this epoch or never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub epoch: Epoch,
    pub left: TabletId,
    pub right: TabletId,
}

/// How far a tablet is on its way to become others.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// This primary has written the last entry, which is not committed yet: no new write may come after it.
    closing: bool,
    /// Its middle is being looked for.
    looking: bool,
    /// The newest heir that this primary has said no to: a late copy of that wish must not be fulfilled.
    refused: TabletId,
    /// This primary takes no writes in this epoch: it is to become part of that heir. Its entry, once that is committed.
    closed: Option<(Epoch, TabletId, Option<Lsn>)>,
    /// The last entry is applied.
    ended: Option<(Lsn, End)>,
    /// The master knows, so that the tablet itself is of no use any more.
    known: bool,
}

impl Ending {
    pub fn is_closed(&self) -> bool {
        self.closing || self.closed.is_some() || self.ended.is_some()
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Has it become part of another one, by an entry that is not of its own log?
    pub fn is_joined(&self) -> bool {
        matches!(self.ended, Some((_, End::Joined(_))))
    }

    /// The merge by which it has ended, as the left one.
    pub fn merge(&self) -> Option<&Merge> {
        match &self.ended {
            Some((_, End::Merge(merge))) => Some(merge),
            _ => None,
        }
    }

    /// What this replica wrote as primary may be replaced now.
    pub fn resign(&mut self) {
        self.closing = false;
    }

    pub fn end(&mut self, lsn: Lsn, end: End) {
        *self = Ending { ended: Some((lsn, end)), ..Ending::default() };
    }

    /// May a wish that names this heir be fulfilled? Not if this primary has said no to it.
    pub fn may_yet(&self, heir: TabletId) -> bool {
        heir > self.refused
    }

    /// Says no to it, for ever.
    pub fn refuse(&mut self, heir: TabletId) {
        self.refused = self.refused.max(heir);
    }

    /// Is it on its way to another end, or already there?
    pub fn is_under_way(&self) -> bool {
        self.closing || self.looking
    }

    /// This primary has written its last entry.
    pub fn begin(&mut self) {
        self.closing = true;
    }

    /// This primary takes no writes in this epoch from now on.
    pub fn close(&mut self, epoch: Epoch, heir: TabletId) {
        self.closed = Some((epoch, heir, None));
    }

    /// The entry that says so is committed.
    pub fn closed(&mut self, close: Close, lsn: Lsn) {
        if let Some((_, heir, at)) = &mut self.closed
            && *heir == close.heir
        {
            *at = Some(lsn);
        }
    }

    /// In which epoch, for which heir, and by which entry it is closed.
    pub fn closure(&self) -> Option<(Epoch, TabletId, Option<Lsn>)> {
        self.closed
    }

    /// What was closed in an older epoch is open again.
    pub fn open(&mut self, epoch: Epoch) {
        self.closed = self.closed.filter(|(closed, ..)| *closed == epoch);
    }
}

/// The rows that a range tablet keeps.
pub(crate) fn bounds(slice: &Slice) -> RowRange {
    match slice {
        Slice::Hash { .. } => RowRange::default(),
        Slice::Rows { start, end } => RowRange { start: start.clone(), end: end.clone() },
    }
}

impl Hosted {
    /// The heirs that `split`, the entry at `lsn`, makes of this tablet. Everything before it must be applied, and nothing
    /// after it.
    pub(crate) fn bear(&self, lsn: Lsn, split: &Split) -> Vec<Hosted> {
        let Some((left, right)) = Split::cut(self.slice(), &split.at) else { return Vec::new() };
        let heir = |(id, slice): (TabletId, Slice)| {
            let mut rows = self.rows.split(id, bounds(&slice));
            if rows.applied() < lsn {
                rows.skip(lsn);
            }
            let assignment = Assignment {
                tablet: Tablet { id, table: self.tablet.table, slice },
                schema: (*self.schema).clone(),
                configuration: split.configuration.clone(),
                learner: None,
                lineage: Lineage::default(),
            };
            let replica = self.replica.bear(id, lsn);
            let forgets = self.replica.mutant(Mutant::HeirForgetsRequests);
            let completions = if forgets { Completions::default() } else { self.completions.clone() };
            let mut hosted = Hosted::with(&assignment, replica, rows, completions);
            hosted.saw_version(self.last_version);
            hosted.damage = self.damage.clone();
            hosted.diverged = self.diverged;
            hosted.origin = Some(Origin { parent: self.id(), lsn, other: None });
            hosted
        };
        [(split.left, left), (split.right, right)].into_iter().map(heir).collect()
    }
}

impl Node {
    /// The master wants the tablet split.
    pub(crate) fn on_split_wish(
        &mut self,
        now: Instant,
        tablet: TabletId,
        wish: Wish,
        at: SplitAt,
        out: &mut Vec<Effect>,
    ) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        if hosted.ending.has_ended() {
            self.report_ended(tablet, out);
            return;
        }
        let busy = hosted.ending.is_under_way() || hosted.ending.closure().is_some();
        if !hosted.replica.may_order(now) || busy || hosted.replica.epoch() < wish.epoch {
            return; // The master says it again with every heartbeat.
        }
        let late = hosted.replica.epoch() > wish.epoch || !hosted.ending.may_yet(wish.left);
        if late {
            // Whatever the primary of that epoch has written is applied here by now, and the split was not in it.
            self.refuse_split(tablet, wish, "its group was reconfigured meanwhile; try again", out);
        } else if hosted.damage.is_some() {
            self.refuse_split(tablet, wish, "something of it is damaged", out);
        } else {
            match at {
                SplitAt::Row(row) => self.split_at(now, tablet, wish, Some(row), out),
                SplitAt::HalfTheBytes => self.look_for_the_middle(now, tablet, wish, out),
                SplitAt::HalfTheLoad => match hosted.load.middle(hosted.slice()) {
                    Some(row) => self.split_at(now, tablet, wish, Some(row), out),
                    None => self.refuse_split(tablet, wish, "no row key divides what is asked of it", out),
                },
            }
        }
    }

    /// Where the middle is may be in files: somebody else reads them.
    fn look_for_the_middle(&mut self, now: Instant, tablet: TabletId, wish: Wish, out: &mut Vec<Effect>) {
        let date = self.date(now);
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        hosted.ending.looking = true;
        let (view, schema) = (hosted.rows.view(), Arc::clone(&hosted.schema));
        let read = Read { view, schema, now: date, options: ReadOptions::default(), what: What::Middle };
        let id = self.draw_id();
        self.reads.insert(id, Reading::Middle { tablet, wish });
        out.push(Effect::Read(id, read));
    }

    /// Here it is.
    pub(crate) fn on_middle(
        &mut self,
        now: Instant,
        tablet: TabletId,
        wish: Wish,
        found: Result<Found, store::Error>,
        out: &mut Vec<Effect>,
    ) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        hosted.ending.looking = false;
        // If it cannot be read now, or the group has gone on meanwhile, the master's next word finds that so.
        if let (Ok(Found::Middle(at)), true) = (found, hosted.replica.epoch() == wish.epoch) {
            self.split_at(now, tablet, wish, at, out);
        }
    }

    fn split_at(&mut self, now: Instant, tablet: TabletId, wish: Wish, at: Option<Bytes>, out: &mut Vec<Effect>) {
        let room = self.check_disks(tablet).is_ok();
        // Heirs begin with the members of now: whoever is about to become one may be the only one left when the entry is
        // committed (found by `sim`, house seed 3317).
        let may = |hosted: &&mut Hosted| hosted.may_write(now) && hosted.replica.may_order(now);
        let Some(hosted) = self.hosted.get_mut(&tablet).filter(may) else { return };
        let Some(at) = at.filter(|at| Split::cut(hosted.slice(), at).is_some()) else {
            self.refuse_split(tablet, wish, "no row key divides it: it has fewer than two rows", out);
            return;
        };
        if !room {
            return;
        }
        hosted.ending.begin();
        let refusal = Refusal::NotReady(tablet);
        out.extend(hosted.lanes.clear().map(|ticket| Effect::Refuse(ticket, refusal.clone())));
        let configuration = hosted.replica.configuration().next();
        let split = Payload::Split(Split { left: wish.left, right: wish.right, at, configuration });
        let payload = postcard::to_allocvec(&split).expect("plain values have a form in bytes");
        self.step_replica(now, tablet, GroupInput::Order(Bytes::from(payload)), out);
    }

    /// Says no, for ever: the master may give the numbers up.
    fn refuse_split(&mut self, tablet: TabletId, wish: Wish, why: &str, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        hosted.ending.refuse(wish.left);
        out.push(Effect::Report(ToMaster::Undivided { tablet, left: wish.left, why: why.into() }));
    }

    /// The tablet has ended here: its heirs begin.
    pub(crate) fn on_born(&mut self, now: Instant, parent: TabletId, heirs: Vec<Hosted>, out: &mut Vec<Effect>) {
        self.send_on(parent, out);
        for heir in heirs {
            let (tablet, configuration) = (heir.id(), heir.first.clone());
            // It may have come from elsewhere meanwhile.
            if self.hosted.contains_key(&tablet) || self.dropping.contains(&tablet) {
                continue;
            }
            let parents = heir.origin.into_iter().flat_map(Origin::parents).map(|(parent, _)| parent.to_string());
            let what = format!("made out of {}, {}", parents.collect::<Vec<_>>().join(" and "), heir.slice());
            out.push(Effect::Event(Event { name: "tablet_born", tablet: Some(tablet), what }));
            self.hosted.insert(tablet, heir);
            self.step_replica(now, tablet, GroupInput::Assign(configuration, None), out);
            if let Some(sent) = self.session {
                self.step_replica(now, tablet, GroupInput::Session(sent), out);
            }
            self.flush_if_due(now, tablet, out);
        }
        // Beacons tell the others that the entry is committed; the master hears at once.
        self.changed = true;
        self.report_ended(parent, out);
    }

    /// Whoever waits for a tablet that has ended learns where to go.
    pub(crate) fn send_on(&mut self, parent: TabletId, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get_mut(&parent) else { return };
        let waiting: Vec<_> = hosted.lanes.clear().collect();
        if let Some(refusal) = self.moved(parent) {
            out.extend(waiting.into_iter().map(|ticket| Effect::Refuse(ticket, refusal.clone())));
        }
    }

    /// Where to go instead, if the tablet has ended.
    pub(crate) fn moved(&self, tablet: TabletId) -> Option<Refusal> {
        let hosted = self.hosted.get(&tablet)?;
        let (_, end) = hosted.ending.ended.as_ref()?;
        let heir = |(tablet, slice, first): (TabletId, Slice, &Configuration)| {
            let present = self.hosted.get(&tablet).map(|heir| heir.replica.configuration().clone());
            Heir { tablet, slice, configuration: present.unwrap_or_else(|| first.clone()) }
        };
        Some(Refusal::Moved { tablet, heirs: end.heirs(hosted.slice()).into_iter().map(heir).collect() })
    }

    pub(crate) fn report_ended(&self, tablet: TabletId, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get(&tablet).filter(|hosted| !hosted.ending.known) else { return };
        out.extend(match hosted.ending.ended.clone() {
            Some((lsn, End::Split(split))) => Some(Effect::Report(ToMaster::Divided { tablet, lsn, split })),
            Some((lsn, End::Merge(merge))) => Some(Effect::Report(ToMaster::Merged { tablet, lsn, merge })),
            Some((_, End::Joined(_))) | None => None,
        });
    }

    /// With every report: what has ended here and the master does not know yet.
    pub(crate) fn report_all_ended(&self, out: &mut Vec<Effect>) {
        let ended = self.hosted.iter().filter(|(_, hosted)| hosted.ending.has_ended());
        ended.for_each(|(&tablet, _)| self.report_ended(tablet, out));
    }

    /// The master knows that these tablets have ended.
    pub(crate) fn on_ended(&mut self, now: Instant, tablets: Vec<(TabletId, Lsn, TabletId)>, out: &mut Vec<Effect>) {
        // First those whose own entry says so: they take others along.
        for &(tablet, lsn, heir) in &tablets {
            let Some(hosted) = self.hosted.get(&tablet).filter(|hosted| !hosted.ending.has_ended()) else { continue };
            let entry = hosted.replica.entry(lsn).and_then(|entry| postcard::from_bytes(&entry.payload).ok());
            let ends = match entry {
                Some(Payload::Split(split)) => split.left == heir,
                Some(Payload::Merge(merge)) => merge.heir == heir,
                _ => false,
            };
            // An entry that is the committed one has the committed ones before it.
            if ends && !self.adopting.contains(&tablet) {
                self.step_replica(now, tablet, GroupInput::Decided(lsn), out);
            }
        }
        for (tablet, ..) in tablets {
            let Some(hosted) = self.hosted.get_mut(&tablet) else {
                // Nobody has it any more to learn it from.
                self.forget_lost(tablet, out);
                if !self.dropping.contains(&tablet) && !self.lost.contains_key(&tablet) {
                    out.push(Effect::Report(ToMaster::Buried(tablet)));
                }
                continue;
            };
            if self.adopting.contains(&tablet) {
                continue;
            }
            if !hosted.ending.has_ended() {
                self.on_forget(tablet, out);
                continue;
            }
            hosted.ending.known = true;
            self.bury(tablet, out);
        }
    }

    /// With every report: heirs whose first flush has failed, or who were made anew after a crash, get files.
    pub(crate) fn settle(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let unsettled = self.hosted.iter().filter(|(_, hosted)| hosted.rows.is_unsettled());
        let unsettled: Vec<TabletId> = unsettled.map(|(&tablet, _)| tablet).collect();
        unsettled.into_iter().for_each(|tablet| self.flush_if_due(now, tablet, out));
    }

    /// Forgets a tablet that has ended, once its heirs do not need it any more to be made anew after a crash.
    fn bury(&mut self, tablet: TabletId, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get(&tablet) else { return };
        if hosted.ending.known && !self.has_unsettled_heirs(tablet) {
            self.on_forget(tablet, out);
        }
    }

    /// Would an heir be lost in a crash without what is left of the tablet?
    pub(crate) fn has_unsettled_heirs(&self, tablet: TabletId) -> bool {
        let from = |hosted: &Hosted| hosted.origin.is_some_and(|origin| origin.is_of(tablet));
        self.hosted.values().any(|hosted| from(hosted) && hosted.rows.is_unsettled())
    }

    /// An heir has files of its own now.
    pub(crate) fn on_settled(&mut self, heir: TabletId, out: &mut Vec<Effect>) {
        let origin = self.hosted.get(&heir).and_then(|hosted| hosted.origin);
        for (parent, _) in origin.into_iter().flat_map(Origin::parents) {
            self.bury(parent, out);
        }
    }

    /// Has the group gone on to a role in which what it wrote as primary may be lost?
    pub(crate) fn reopen(&mut self, tablet: TabletId) {
        if let Some(hosted) = self.hosted.get_mut(&tablet) {
            hosted.ending.open(hosted.replica.epoch());
            if hosted.replica.role() != Role::Primary {
                hosted.ending.resign();
            }
        }
    }
}
