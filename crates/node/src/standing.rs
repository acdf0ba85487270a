//! What two nodes need not say to each other again and again: leases of groups that rest.
//!
//! ```text
//!   primaries' node                                secondaries' node
//!   Told: what the peer was told of each tablet    Heard: what the peer said of each tablet that stands by it
//!      │ ── Beacon(base, groups with news) ──────▶ │
//!      │ ◀─ BeaconAck(all, without those) ──────── │
//!      ▼                                           ▼
//!   one instant: when all were asked               one instant: when all were asked, by the other clock
//! ```
//!
//! Thousands of tablets have nothing to say for most of the time, and a beacon that names each costs more than all
//! else that an idle node does. So a group is named as long as it has news; then its lease hangs on one instant that it
//! shares with all others of the pair. That instant is given to a replica when it is stepped the next time, and before
//! it could act on the silence: nobody can tell the difference, except that nobody was woken.

use model::{Epoch, Incarnation, Instant, Lsn, TabletId};
use protocol::Line;
use std::collections::{BTreeMap, BTreeSet};

/// What the primaries here have told a peer.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The newest line of each tablet, and since which beacon it has been this one.
    lines: BTreeMap<TabletId, (Line, Instant)>,
    /// Tablets that are not its affair any more, and since which beacon it is told so.
    gone: BTreeMap<TabletId, Option<Instant>>,
    /// The newest beacon that it has taken in.
    base: Option<Instant>,
    /// The beacon by which it granted leases last; not that of before a stop of our process.
    granted: Option<Instant>,
    /// For which it did not.
    without: BTreeSet<TabletId>,
    /// It has been silent for so long that each replica looks for itself.
    pub alarmed: bool,
}

impl Told {
    /// Does the peer count for anything?
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.gone.is_empty()
    }

    pub fn tablets(&self) -> impl Iterator<Item = TabletId> + '_ {
        self.lines.keys().copied()
    }

    /// The line goes out with this beacon.
    pub fn say(&mut self, sent: Instant, line: Line) {
        self.gone.remove(&line.tablet);
        let known = self.lines.entry(line.tablet).or_insert((line, sent));
        if known.0 != line {
            *known = (line, sent);
        }
    }

    /// The tablet is not its affair any more.
    pub fn forget(&mut self, tablet: TabletId) {
        if self.lines.remove(&tablet).is_some() {
            self.gone.insert(tablet, None);
        }
    }

    /// What is gone, for the beacon of that time; and on which beacon it builds.
    pub fn close(&mut self, sent: Instant) -> (Option<Instant>, Vec<TabletId>) {
        self.gone.values_mut().for_each(|since| {
            since.get_or_insert(sent);
        });
        if self.base.is_none() {
            self.gone.clear();
        }
        (self.base, self.gone.keys().copied().collect())
    }

    /// When the beacon went out by which the peer granted its last lease for what we say of the tablet now, if it need
    /// not be said again.
    pub fn covers(&self, tablet: TabletId, epoch: Epoch) -> Option<Instant> {
        let granted = self.granted?;
        let (line, since) = self.lines.get(&tablet)?;
        (line.epoch == epoch && *since <= granted && !self.without.contains(&tablet)).then_some(granted)
    }

    /// Is what the peer was told last exactly this?
    pub fn says(&self, line: &Line) -> bool {
        self.lines.get(&line.tablet).is_some_and(|(known, _)| known == line)
    }

    /// The peer's answer to the beacon of that time. `None`: it is an older one.
    pub fn on_answer(&mut self, sent: Instant, without: Vec<TabletId>) -> Option<&BTreeSet<TabletId>> {
        if self.granted.max(self.base).is_some_and(|granted| sent <= granted) {
            return None;
        }
        self.base = Some(sent);
        self.granted = Some(sent);
        self.without = without.into_iter().filter(|tablet| self.lines.contains_key(tablet)).collect();
        self.gone.retain(|_, since| since.is_none_or(|since| since > sent));
        self.alarmed = false;
        Some(&self.without)
    }

    /// The peer lacks what the beacon of that time builds on. Is that news?
    pub fn on_lost(&mut self, sent: Instant) -> bool {
        let news = self.base.is_some_and(|base| sent > base);
        if news {
            (self.base, self.granted) = (None, None);
        }
        news
    }

    /// Our process was stopped: what was granted before says nothing of who is silent now.
    pub fn on_gap(&mut self) {
        self.granted = None;
    }

    /// When its silence lasts too long for somebody.
    pub fn alarm(&self, lease: core::time::Duration) -> Option<Instant> {
        self.granted.filter(|_| !self.alarmed && !self.lines.is_empty()).map(|granted| granted + lease)
    }

    /// Does the last lease still hold?
    pub fn is_firm(&self, now: Instant, lease: core::time::Duration) -> bool {
        self.lines.is_empty() || self.granted.is_some_and(|granted| now < granted + lease)
    }
}

/// What a peer has told of the tablets whose primaries are there.
#[derive(Debug)]
pub(crate) struct Heard {
    /// The peer's life.
    pub life: Incarnation,
    /// The newest beacon that was taken in, by the peer's clock.
    asof: Option<Instant>,
    /// When that arrived.
    pub at: Instant,
    /// All that was acknowledged before this, by our clock, lies at or before what its lines say, if they were leased.
    pub fresh: Option<Instant>,
    /// Tablets that stand by it.
    lines: BTreeMap<TabletId, Line>,
    /// Tablets of which it has told, and that do not.
    without: BTreeSet<TabletId>,
    /// It has been silent for so long that each replica looks for itself.
    pub alarmed: bool,
}

impl Heard {
    pub fn new(now: Instant, life: Incarnation) -> Heard {
        let (lines, without) = (BTreeMap::new(), BTreeSet::new());
        Heard { life, asof: None, at: now, fresh: None, lines, without, alarmed: false }
    }

    pub fn tablets(&self) -> impl Iterator<Item = TabletId> + '_ {
        self.lines.keys().copied()
    }

    pub fn line(&self, tablet: TabletId, epoch: Epoch) -> Option<&Line> {
        self.lines.get(&tablet).filter(|line| line.epoch == epoch)
    }

    /// May the beacon be taken in? Not if it is an older one (`None`) or builds on what was never heard.
    pub fn admits(&self, sent: Instant, base: Option<Instant>) -> Option<bool> {
        if self.asof.is_some_and(|asof| sent <= asof) {
            return None;
        }
        Some(base.is_none_or(|base| self.asof.is_some_and(|asof| base <= asof)))
    }

    /// Takes the beacon in, but for its lines. Returns tablets of which it does not speak any more.
    pub fn take(
        &mut self,
        now: Instant,
        sent: Instant,
        base: Option<Instant>,
        fresh: Option<Instant>,
        gone: &[TabletId],
    ) -> Vec<TabletId> {
        self.asof = Some(sent);
        self.at = now;
        self.fresh = self.fresh.max(fresh);
        self.alarmed = false;
        let mut left: Vec<TabletId> = Vec::new();
        if base.is_none() {
            left.extend(core::mem::take(&mut self.lines).into_keys());
            self.without.clear();
        }
        for tablet in gone {
            left.extend(self.lines.remove(tablet).map(|line| line.tablet));
            self.without.remove(tablet);
        }
        left
    }

    /// Whether the tablet stands by it, in what this line says.
    pub fn note(&mut self, line: Line, stands: bool) {
        if stands {
            self.without.remove(&line.tablet);
            self.lines.insert(line.tablet, line);
        } else {
            self.lines.remove(&line.tablet);
            self.without.insert(line.tablet);
        }
    }

    /// The tablet does not stand by it any more.
    pub fn part(&mut self, tablet: TabletId) {
        if self.lines.remove(&tablet).is_some() {
            self.without.insert(tablet);
        }
    }

    /// What each answer says.
    pub fn without(&self) -> Vec<TabletId> {
        self.without.iter().copied().collect()
    }

    /// The committed point of which it has told, if the tablet stands by it.
    pub fn committed(&self, tablet: TabletId) -> Option<(Epoch, Lsn)> {
        self.lines.get(&tablet).map(|line| (line.epoch, line.committed))
    }

    /// When its silence lasts too long for somebody.
    pub fn alarm(&self, patience: core::time::Duration) -> Option<Instant> {
        (!self.alarmed && !self.lines.is_empty()).then(|| self.at + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const LEASE: Duration = Duration::from_millis(500);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn line(tablet: u64, epoch: u32) -> Line {
        Line { tablet: TabletId(tablet), epoch: Epoch(epoch), committed: Lsn(7), leased: true }
    }

    #[test]
    fn an_answer_covers_what_was_said_before_and_nothing_else() {
        let mut told = Told::default();
        told.say(at(0), line(1, 1));
        told.say(at(0), line(2, 1));
        assert_eq!(told.close(at(0)), (None, vec![]), "the first says everything");
        assert_eq!(told.covers(TabletId(1), Epoch(1)), None);
        told.on_answer(at(0), vec![TabletId(2)]).unwrap();
        assert_eq!(told.covers(TabletId(1), Epoch(1)), Some(at(0)));
        assert_eq!(told.covers(TabletId(2), Epoch(1)), None, "that one does not stand by us");
        told.say(at(100), line(1, 2));
        assert_eq!(told.close(at(100)), (Some(at(0)), vec![]));
        assert_eq!(told.covers(TabletId(1), Epoch(1)), None, "what we say now it has not heard yet");
        assert_eq!(told.covers(TabletId(1), Epoch(2)), None);
        told.on_answer(at(100), vec![]).unwrap();
        assert_eq!(told.covers(TabletId(1), Epoch(2)), Some(at(100)));
        assert_eq!(told.on_answer(at(50), vec![TabletId(1)]), None, "a late answer takes nothing back");
        assert_eq!((told.alarm(LEASE), told.is_firm(at(599), LEASE)), (Some(at(600)), true));
        assert!(!told.is_firm(at(600), LEASE));
    }

    #[test]
    fn what_is_gone_is_said_until_it_is_known() {
        let mut told = Told::default();
        told.say(at(0), line(1, 1));
        told.close(at(0));
        told.on_answer(at(0), vec![]).unwrap();
        told.forget(TabletId(1));
        assert_eq!(told.close(at(100)), (Some(at(0)), vec![TabletId(1)]));
        told.on_answer(at(50), vec![]).unwrap();
        assert_eq!(told.close(at(200)), (Some(at(50)), vec![TabletId(1)]), "that answer is of before");
        told.on_answer(at(100), vec![]).unwrap();
        assert_eq!(told.close(at(300)), (Some(at(100)), vec![]));
        assert!(told.is_empty());
    }

    #[test]
    fn a_peer_that_has_lost_it_all_is_told_everything() {
        let mut told = Told::default();
        told.say(at(0), line(1, 1));
        told.close(at(0));
        told.on_answer(at(0), vec![]).unwrap();
        assert!(told.on_lost(at(100)));
        assert_eq!((told.covers(TabletId(1), Epoch(1)), told.close(at(200)).0), (None, None));
        told.on_answer(at(200), vec![]).unwrap();
        assert!(!told.on_lost(at(150)), "it said so before it was told");
        assert!(told.covers(TabletId(1), Epoch(1)).is_some());
    }

    #[test]
    fn a_stop_of_the_process_ends_what_was_granted_and_not_what_is_known() {
        let mut told = Told::default();
        told.say(at(0), line(1, 1));
        told.on_answer(at(0), vec![]).unwrap();
        told.on_gap();
        assert_eq!((told.covers(TabletId(1), Epoch(1)), told.alarm(LEASE)), (None, None));
        assert_eq!(told.close(at(900)).0, Some(at(0)));
    }

    #[test]
    fn a_beacon_is_taken_in_if_what_it_builds_on_was() {
        let mut heard = Heard::new(at(0), Incarnation(1));
        assert_eq!(heard.admits(at(5), Some(at(1))), Some(false));
        assert_eq!(heard.admits(at(5), None), Some(true));
        assert_eq!(heard.take(at(10), at(5), None, None, &[]), []);
        heard.note(line(1, 1), true);
        heard.note(line(2, 1), false);
        assert_eq!((heard.admits(at(5), None), heard.admits(at(4), None)), (None, None), "again, or late");
        assert_eq!((heard.admits(at(6), Some(at(5))), heard.admits(at(9), Some(at(6)))), (Some(true), Some(false)));
        assert_eq!(heard.without(), [TabletId(2)]);
        heard.part(TabletId(1));
        assert_eq!((heard.without(), heard.line(TabletId(1), Epoch(1))), (vec![TabletId(1), TabletId(2)], None));
        heard.note(line(1, 1), true);
        assert_eq!(heard.take(at(20), at(6), Some(at(5)), None, &[TabletId(2)]), []);
        assert_eq!((heard.without(), heard.at), (vec![], at(20)));
        assert_eq!(heard.take(at(30), at(7), None, None, &[]), [TabletId(1)], "it begins anew, and names it no more");
    }
}
