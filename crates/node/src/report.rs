//! What the master hears of this node: all of it once, then only what has changed since it last answered.
//!
//! ```text
//!   stepped replicas ──▶ stirred ──▶ Heartbeat(base, those that differ) ──▶ master
//!                                        ▲ until it is answered                │
//!                                        └───────── Welcome(sent) ◀────────────┤
//!                                   everything ◀── SayAll (it is a new leader) ┘
//! ```

use model::request::ReplicaReport;
use model::{Instant, TabletId};
use protocol::ToMaster;
use std::collections::{BTreeMap, BTreeSet};

use crate::api::Effect;
use crate::hosted::Hosted;
use crate::machine::Node;

/// What the master was told of the replicas here.
#[derive(Debug, Default)]
pub(crate) struct Reporting {
    /// The newest heartbeat that was answered.
    base: Option<Instant>,
    /// The last report of each; `None` of what is gone, until the master knows.
    said: BTreeMap<TabletId, Option<ReplicaReport>>,
    /// Told since then, and not answered: in each heartbeat from this one on.
    pending: BTreeMap<TabletId, Instant>,
    /// Those of which there may be news.
    stirred: BTreeSet<TabletId>,
    /// Those that were lost here, or busy, when the last heartbeat went out: they may cease to be so without a step.
    fleeting: BTreeSet<TabletId>,
}

impl Reporting {
    /// There may be news of it.
    pub fn stir(&mut self, tablet: TabletId) {
        self.stirred.insert(tablet);
    }

    fn say(&mut self, now: Instant, tablet: TabletId, report: Option<ReplicaReport>) {
        let known = self.said.get(&tablet);
        if known == Some(&report) || known.is_none() && report.is_none() {
            return;
        }
        self.said.insert(tablet, report);
        self.pending.insert(tablet, now);
    }

    fn news(&self) -> (Vec<ReplicaReport>, Vec<TabletId>) {
        let (mut reports, mut gone) = (Vec::new(), Vec::new());
        for tablet in self.pending.keys() {
            match self.said.get(tablet) {
                Some(Some(report)) => reports.push(report.clone()),
                _ => gone.push(*tablet),
            }
        }
        (reports, gone)
    }

    /// The master has taken in the heartbeat of that time.
    pub fn on_answer(&mut self, sent: Instant) {
        self.base = self.base.max(Some(sent));
        let said = &mut self.said;
        self.pending.retain(|tablet, since| {
            let known = *since <= sent;
            if known && said.get(tablet).is_some_and(Option::is_none) {
                said.remove(tablet);
            }
            !known
        });
    }

    /// The master lacks what the heartbeat of that time builds on. Is that news?
    pub fn on_lost(&mut self, sent: Instant) -> bool {
        let news = self.base.is_some_and(|base| sent > base);
        if news {
            self.base = None;
            self.said.retain(|_, report| report.is_some());
            self.pending = self.said.keys().map(|&tablet| (tablet, sent)).collect();
        }
        news
    }
}

impl Node {
    /// What the node reports of its replicas.
    pub fn reports(&self, now: Instant) -> Vec<ReplicaReport> {
        self.hosted.values().map(|hosted| self.report_of(hosted, now)).chain(self.lost_reports()).collect()
    }

    fn report_of(&self, hosted: &Hosted, now: Instant) -> ReplicaReport {
        let replica = &hosted.replica;
        ReplicaReport {
            tablet: hosted.id(),
            epoch: replica.epoch(),
            schema: hosted.schema.version,
            learner: replica.learner(),
            role: replica.role(),
            durable: replica.durable(),
            committed: replica.committed(),
            steady: self.is_steady(hosted, now),
            bytes: hosted.rows.bytes(),
            damaged: hosted.damage.clone(),
            load: hosted.load.per_second(now),
            stalled: self.stalled.contains_key(&hosted.id()),
        }
    }

    pub(crate) fn report(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.calm(now);
        self.ask_master = false;
        self.reported = now;
        let mut stirred = core::mem::take(&mut self.reporting.stirred);
        stirred.append(&mut self.reporting.fleeting);
        stirred.extend(self.lost.keys());
        for tablet in stirred {
            let report = match (self.hosted.get(&tablet), self.lost.get(&tablet)) {
                (Some(hosted), _) => Some(self.report_of(hosted, now)),
                (None, lost) => lost.map(|lost| lost.report(tablet)),
            };
            let busy = |hosted: &Hosted| !hosted.load.is_idle(now);
            if self.lost.contains_key(&tablet) || self.hosted.get(&tablet).is_some_and(busy) {
                self.reporting.fleeting.insert(tablet);
            }
            self.reporting.say(now, tablet, report);
        }
        let (replicas, gone) = self.reporting.news();
        out.push(Effect::Report(ToMaster::Heartbeat {
            cluster: self.cluster,
            disk: self.disk,
            incarnation: self.incarnation,
            address: self.options.address.clone(),
            disk_full: self.disk_full(),
            base: self.reporting.base,
            replicas,
            gone,
            sent: now,
            scrub: self.scrub_report(now),
        }));
        self.report_all_ended(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::request::Role;
    use model::{Epoch, Lsn};

    fn report(tablet: u64, committed: u64) -> Option<ReplicaReport> {
        Some(ReplicaReport {
            tablet: TabletId(tablet),
            epoch: Epoch(1),
            schema: 1,
            learner: None,
            role: Role::Secondary,
            durable: Lsn(committed),
            committed: Lsn(committed),
            steady: true,
            bytes: 0,
            damaged: None,
            load: 0,
            stalled: false,
        })
    }

    fn tablets(reporting: &Reporting) -> (Vec<u64>, Vec<u64>) {
        let (reports, gone) = reporting.news();
        (reports.iter().map(|report| report.tablet.0).collect(), gone.iter().map(|tablet| tablet.0).collect())
    }

    #[test]
    fn news_are_told_until_they_are_answered() {
        let mut reporting = Reporting::default();
        reporting.say(Instant(1), TabletId(1), report(1, 5));
        reporting.say(Instant(1), TabletId(2), report(2, 5));
        assert_eq!(tablets(&reporting), (vec![1, 2], vec![]));
        reporting.say(Instant(3), TabletId(2), report(2, 6));
        reporting.on_answer(Instant(2));
        assert_eq!(tablets(&reporting), (vec![2], vec![]), "that changed after what was answered");
        reporting.on_answer(Instant(3));
        reporting.say(Instant(4), TabletId(2), report(2, 6));
        assert_eq!(tablets(&reporting), (vec![], vec![]));
        reporting.say(Instant(5), TabletId(1), None);
        assert_eq!(tablets(&reporting), (vec![], vec![1]));
        reporting.on_answer(Instant(5));
        assert_eq!((tablets(&reporting), reporting.said.len()), ((vec![], vec![]), 1));
    }

    #[test]
    fn a_new_leader_is_told_everything_once() {
        let mut reporting = Reporting::default();
        reporting.say(Instant(1), TabletId(1), report(1, 5));
        reporting.on_answer(Instant(1));
        assert!(reporting.on_lost(Instant(2)));
        assert_eq!((tablets(&reporting), reporting.base), ((vec![1], vec![]), None));
        assert!(!reporting.on_lost(Instant(2)), "another copy of the same answer");
        reporting.on_answer(Instant(4));
        assert!(!reporting.on_lost(Instant(3)), "an answer to an older heartbeat");
        assert_eq!(tablets(&reporting), (vec![], vec![]));
    }
}
