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
    Assignment, Epoch, Heir, Instant, Lineage, Lsn, Payload, Refusal, RowRange, Slice, Split, Tablet, TabletId,
};
use protocol::ToMaster;
use protocol::replica::Input as GroupInput;
use serde::{Deserialize, Serialize};

use crate::api::{Effect, Event};
use crate::hosted::Hosted;
use crate::machine::Node;

/// Where a tablet comes from that was not made empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The tablet out of which it was made,
    pub parent: TabletId,
    /// as of this entry of its log.
    pub lsn: Lsn,
}

/// How far a tablet is on its way to become two.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// This primary has written the entry, which is not committed yet: no new write may come after it.
    closing: bool,
    /// The newest left heir that this primary has said no to: a late copy of that wish must not be fulfilled.
    refused: TabletId,
    /// The entry is applied.
    ended: Option<(Lsn, Split)>,
    /// The master knows, so that the tablet itself is of no use any more.
    known: bool,
}

impl Ending {
    pub fn is_closed(&self) -> bool {
        self.closing || self.ended.is_some()
    }

    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// What this replica wrote as primary may be replaced now.
    pub fn resign(&mut self) {
        self.closing = false;
    }

    pub fn end(&mut self, lsn: Lsn, split: Split) {
        *self = Ending { ended: Some((lsn, split)), ..Ending::default() };
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
            let mut hosted = Hosted::with(&assignment, replica, rows, self.completions.clone());
            hosted.saw_version(self.last_version);
            hosted.damage = self.damage.clone();
            hosted.origin = Some(Origin { parent: self.id(), lsn });
            hosted
        };
        [(split.left, left), (split.right, right)].into_iter().map(heir).collect()
    }
}

impl Node {
    /// The master wants the tablet split.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn on_split_wish(
        &mut self,
        now: Instant,
        tablet: TabletId,
        epoch: Epoch,
        left: TabletId,
        right: TabletId,
        at: Option<Bytes>,
        out: &mut Vec<Effect>,
    ) {
        let room = self.check_disks(tablet).is_ok();
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        if hosted.ending.has_ended() {
            self.report_ended(tablet, out);
            return;
        }
        if !hosted.replica.may_write(now) || hosted.ending.closing || hosted.replica.epoch() < epoch {
            return; // The master says it again with every heartbeat.
        }
        let late = hosted.replica.epoch() > epoch || left <= hosted.ending.refused;
        let key = at.or_else(|| hosted.rows.view().middle());
        let refusal = if late {
            // Whatever the primary of that epoch has written is applied here by now, and the split was not in it.
            Some("its group was reconfigured meanwhile; try again")
        } else if hosted.damage.is_some() {
            Some("something of it is damaged")
        } else if key.as_ref().is_none_or(|key| Split::cut(hosted.slice(), key).is_none()) {
            Some("no row key divides it: it has fewer than two rows")
        } else {
            None
        };
        if let Some(why) = refusal {
            hosted.ending.refused = hosted.ending.refused.max(left);
            out.push(Effect::Report(ToMaster::Undivided { tablet, left, why: why.into() }));
            return;
        }
        let Some(at) = key.filter(|_| room) else { return };
        hosted.ending.closing = true;
        let refusal = Refusal::NotReady(tablet);
        out.extend(hosted.lanes.clear().map(|ticket| Effect::Refuse(ticket, refusal.clone())));
        let configuration = hosted.replica.configuration().next();
        let split = Payload::Split(Split { left, right, at, configuration });
        let payload = postcard::to_allocvec(&split).expect("plain values have a form in bytes");
        self.step_replica(now, tablet, GroupInput::Order(Bytes::from(payload)), out);
    }

    /// The tablet has ended here: its heirs begin.
    pub(crate) fn on_born(&mut self, now: Instant, parent: TabletId, heirs: Vec<Hosted>, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get_mut(&parent) else { return };
        let waiting: Vec<_> = hosted.lanes.clear().collect();
        if let Some(refusal) = self.moved(parent) {
            out.extend(waiting.into_iter().map(|ticket| Effect::Refuse(ticket, refusal.clone())));
        }
        for heir in heirs {
            let (tablet, configuration) = (heir.id(), heir.first.clone());
            // It may have come from elsewhere meanwhile.
            if self.hosted.contains_key(&tablet) || self.dropping.contains(&tablet) {
                continue;
            }
            let what = format!("made out of {parent}, {}", heir.slice());
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

    /// Where to go instead, if the tablet has ended.
    pub(crate) fn moved(&self, tablet: TabletId) -> Option<Refusal> {
        let hosted = self.hosted.get(&tablet)?;
        let (_, split) = hosted.ending.ended.as_ref()?;
        let (left, right) = Split::cut(hosted.slice(), &split.at)?;
        let heir = |(tablet, slice)| {
            let present = self.hosted.get(&tablet).map(|heir| heir.replica.configuration().clone());
            Heir { tablet, slice, configuration: present.unwrap_or_else(|| split.configuration.clone()) }
        };
        let heirs = [(split.left, left), (split.right, right)].into_iter().map(heir).collect();
        Some(Refusal::Moved { tablet, heirs })
    }

    fn report_ended(&self, tablet: TabletId, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get(&tablet) else { return };
        if let Some((lsn, split)) = hosted.ending.ended.clone().filter(|_| !hosted.ending.known) {
            out.push(Effect::Report(ToMaster::Divided { tablet, lsn, split }));
        }
    }

    /// With every report: what has ended here and the master does not know yet.
    pub(crate) fn report_all_ended(&self, out: &mut Vec<Effect>) {
        self.hosted.keys().for_each(|&tablet| self.report_ended(tablet, out));
    }

    /// The master knows that these tablets have ended.
    pub(crate) fn on_ended(&mut self, now: Instant, tablets: Vec<(TabletId, Lsn, TabletId)>, out: &mut Vec<Effect>) {
        for (tablet, lsn, left) in tablets {
            let Some(hosted) = self.hosted.get(&tablet) else {
                if !self.dropping.contains(&tablet) {
                    out.push(Effect::Report(ToMaster::Buried(tablet)));
                }
                continue;
            };
            if self.adopting.contains(&tablet) {
                continue;
            }
            if !hosted.ending.has_ended() {
                let split = hosted.replica.entry(lsn).and_then(|entry| postcard::from_bytes(&entry.payload).ok());
                match split {
                    // An entry that is the committed one has the committed ones before it.
                    Some(Payload::Split(split)) if split.left == left => {
                        self.step_replica(now, tablet, GroupInput::Decided(lsn), out);
                    }
                    _ => {
                        self.on_forget(tablet, out);
                        continue;
                    }
                }
            }
            if let Some(hosted) = self.hosted.get_mut(&tablet) {
                hosted.ending.known = true;
            }
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
        let Some((_, split)) = hosted.ending.ended.as_ref().filter(|_| hosted.ending.known) else { return };
        let settled = |heir| self.hosted.get(heir).is_none_or(|heir: &Hosted| !heir.rows.is_unsettled());
        if [split.left, split.right].iter().all(settled) {
            self.on_forget(tablet, out);
        }
    }

    /// An heir has files of its own now.
    pub(crate) fn on_settled(&mut self, heir: TabletId, out: &mut Vec<Effect>) {
        let origin = self.hosted.get(&heir).and_then(|hosted| hosted.origin);
        if let Some(Origin { parent, .. }) = origin {
            self.bury(parent, out);
        }
    }

    /// Has the group gone on to a role in which what it wrote as primary may be lost?
    pub(crate) fn reopen(&mut self, tablet: TabletId) {
        if let Some(hosted) = self.hosted.get_mut(&tablet)
            && hosted.replica.role() != Role::Primary
        {
            hosted.ending.resign();
        }
    }
}
