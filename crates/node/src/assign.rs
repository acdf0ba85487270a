//! What the master says: who belongs, which tablets are kept here and with whom, and which go.

use bytes::Bytes;
use model::request::Role;
use model::{Assignment, ClusterId, Epoch, Instant, Lsn, Refusal, TabletId};
use protocol::replica::{Effect as GroupEffect, Input as GroupInput};
use protocol::{FromMaster, Mutant, Replica};
use std::sync::Arc;
use store::log::{Kind, Record};

use crate::api::{Effect, Event};
use crate::hosted::Hosted;
use crate::machine::{NODE_ITSELF, Node, state_record};
use crate::merges::Joining;
use crate::splits::Wish;

impl Node {
    pub(crate) fn on_master_message(&mut self, now: Instant, message: FromMaster, out: &mut Vec<Effect>) {
        match message {
            FromMaster::Welcome { cluster, sent, .. } => {
                self.on_welcome(cluster, out);
                self.on_session(now, sent, out);
            }
            FromMaster::Kept { life, upto } => self.on_events_kept(life, upto),
            // What a former life said may be answered late, and was about that life.
            FromMaster::Unwelcome(_, life) if life != self.incarnation => {}
            FromMaster::Unwelcome(why, _) => out.push(Effect::Stop(why)),
            FromMaster::Assignments(assignments) => {
                assignments.into_iter().for_each(|assignment| self.on_assignment(now, assignment, out));
                self.drop_givings();
            }
            FromMaster::HandOver(tablet, epoch, heir) => {
                if !self.on_hand_over(tablet, epoch, heir, out) {
                    self.step_replica(now, tablet, GroupInput::HandOver(heir, epoch), out);
                }
            }
            FromMaster::Forget(tablets) => {
                tablets.into_iter().for_each(|tablet| {
                    self.on_forget(tablet, out);
                    self.forget_lost(tablet, out);
                });
            }
            FromMaster::Split { tablet, epoch, left, right, at } => {
                self.on_split_wish(now, tablet, Wish { epoch, left, right }, at, out);
            }
            FromMaster::Check(tablet) => self.on_check_wish(now, tablet),
            FromMaster::Scrub => self.scrub_now(now),
            FromMaster::Close { tablet, epoch, heir } => self.on_close_wish(now, tablet, epoch, heir, out),
            FromMaster::Merge { tablet, epoch, right, right_epoch, upto, heir } => {
                self.on_merge_wish(now, tablet, Joining { epoch, right, right_epoch, upto, heir }, out);
            }
            FromMaster::Ended(tablets) => self.on_ended(now, tablets, out),
            FromMaster::SayAll(sent) => self.ask_master |= self.reporting.on_lost(sent),
            FromMaster::Release(tablets) => {
                for (tablet, epoch) in tablets {
                    let spare = |replica: &Replica| replica.role() == Role::Spare && replica.epoch() == epoch;
                    let old = self.mutant(Mutant::RemoveOnOldRelease);
                    if self.hosted.get(&tablet).is_some_and(|hosted| spare(&hosted.replica) || old)
                        && self.may_release(now, tablet, out)
                    {
                        self.on_forget(tablet, out);
                    }
                    if self.lost.get(&tablet).is_some_and(|lost| lost.report(tablet).epoch == epoch) {
                        self.forget_lost(tablet, out);
                    }
                }
            }
        }
    }

    /// The first welcome binds this disk to the cluster.
    fn on_welcome(&mut self, cluster: ClusterId, out: &mut Vec<Effect>) {
        match self.cluster {
            Some(known) if known == cluster => {}
            Some(known) => out.push(Effect::Stop(format!(
                "this folder holds data of cluster {known}, but the master belongs to cluster {cluster}; \
                 use an empty folder, or the master of {known}"
            ))),
            None => {
                self.cluster = Some(cluster);
                let body = Bytes::copy_from_slice(&cluster.0.to_le_bytes());
                let record = Record {
                    tablet: NODE_ITSELF,
                    lsn: Lsn::ZERO,
                    epoch: Epoch(0),
                    committed: Lsn::ZERO,
                    kind: Kind::State,
                    body,
                };
                self.log(vec![record], out);
            }
        }
    }

    /// The master has answered what was said to it at `sent`.
    fn on_session(&mut self, now: Instant, sent: Instant, out: &mut Vec<Effect>) {
        if sent > now {
            return; // From a former life, whose clock was another.
        }
        self.session = self.session.max(Some(sent));
        self.reporting.on_answer(sent);
        let alone = self.hosted.iter().filter(|(_, hosted)| hosted.replica.is_alone());
        let alone: Vec<TabletId> = alone.map(|(&tablet, _)| tablet).collect();
        for tablet in alone {
            self.step_replica(now, tablet, GroupInput::Session(sent), out);
        }
    }

    fn on_assignment(&mut self, now: Instant, assignment: Assignment, out: &mut Vec<Effect>) {
        let (tablet, me) = (assignment.tablet.id, self.options.id);
        if self.on_assignment_of_lost(now, &assignment, out) {
            return;
        }
        let Assignment { configuration, learner, schema, lineage, .. } = &assignment;
        let is_chosen = configuration.primary == me && lineage.founded < lineage.chosen;
        let obsolete = |hosted: &Hosted| hosted.replica.epoch() < lineage.chosen && !is_chosen;
        if self.hosted.get(&tablet).is_some_and(obsolete) {
            // An operator has chosen another replica's history. This one may hold what is no part of that, so it
            // learns from nothing, if it is wanted.
            self.on_forget(tablet, out);
            return;
        }
        if !self.hosted.contains_key(&tablet) {
            // Nothing is here: right for a new tablet and for a learner. A member that has lost its data must not
            // pass for one that has it.
            // What is said to a node that the master has not welcomed in this life may have been meant for a disk that was lost
            // (found by `sim`, house seed 4209).
            let founds = configuration.epoch == lineage.founded && configuration.has(me);
            // Nor does a late copy of its first assignment found a tablet that has left this node since.
            let had = self.forgotten.get(&tablet).is_some_and(|&epoch| configuration.epoch <= epoch);
            let fresh = founds && self.session.is_some() && !had;
            if (!fresh && *learner != Some(me)) || self.dropping.contains(&tablet) {
                return;
            }
            self.hosted.insert(tablet, Hosted::new(&assignment, me, self.options.timing.clone()));
        }
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        hosted.lineage = *lineage;
        if schema.version > hosted.schema.version {
            hosted.schema = Arc::new(schema.clone());
            let record = state_record(hosted);
            self.log(vec![record], out);
            // Files that lie as the former schema said may be brought into line.
            self.merge_if_due(tablet, out);
            self.tidying.stir(now, tablet);
        }
        let before = self.role_of(tablet);
        self.step_replica(now, tablet, GroupInput::Assign(configuration.clone(), *learner), out);
        if let Some(sent) = self.session {
            self.step_replica(now, tablet, GroupInput::Session(sent), out);
        }
        self.reopen(tablet);
        if before != self.role_of(tablet) {
            self.changed = true;
            if let Some(hosted) = self.hosted.get_mut(&tablet) {
                hosted.receiving = None;
                hosted.present.clear();
                let current = hosted.replica.configuration().clone();
                let refusal = Refusal::WrongEpoch { tablet, current };
                out.extend(hosted.lanes.clear().map(|ticket| Effect::Refuse(ticket, refusal.clone())));
            }
        }
    }

    fn role_of(&self, tablet: TabletId) -> Option<Role> {
        self.hosted.get(&tablet).map(|hosted| hosted.replica.role())
    }

    /// The newest tablets' numbers are the largest, and nobody speaks of the oldest any more.
    pub(crate) fn note_forgotten(&mut self, tablet: TabletId, epoch: Epoch) {
        const MOST: usize = 1 << 16;
        self.forgotten.insert(tablet, epoch);
        if self.forgotten.len() > MOST {
            self.forgotten.pop_first();
        }
    }

    pub(crate) fn on_forget(&mut self, tablet: TabletId, out: &mut Vec<Effect>) {
        if self.is_busy(tablet) {
            // The master says it again with every heartbeat.
            return;
        }
        let Some(mut hosted) = self.hosted.remove(&tablet) else { return };
        self.part_from_all(tablet);
        self.note_forgotten(tablet, hosted.replica.epoch());
        self.healing.remove(&tablet);
        self.refused.remove(&tablet);
        out.extend(hosted.lanes.clear().map(|ticket| Effect::Refuse(ticket, Refusal::NoSuchTablet(tablet))));
        let mut effects = Vec::new();
        hosted.replica.retire(&mut effects);
        for effect in effects {
            if let GroupEffect::Refuse(ticket, _) = effect {
                out.push(Effect::Refuse(ticket, Refusal::NoSuchTablet(tablet)));
            }
        }
        self.giving.retain(|(given, _), _| *given != tablet);
        let record = Record {
            tablet,
            lsn: Lsn::ZERO,
            epoch: hosted.replica.epoch(),
            committed: Lsn::ZERO,
            kind: Kind::Dropped,
            body: Bytes::new(),
        };
        self.log(vec![record], out);
        self.dropping.insert(tablet);
        self.to_drop.push_back((self.logged, tablet));
        out.push(Effect::Event(Event { name: "tablet_forgotten", tablet: Some(tablet), what: "removed".into() }));
    }
}
