//! Tablets that become two: what the masters agree on of it, and what the leading one does for it.
//!
//! ```text
//!   admin, size ──▶ Command::Split ──▶ intent ──FromMaster::Split──▶ primary: an entry in the tablet's log
//!                                        │                              │ committed
//!            cancelled ◀── Undivided ────┤ ◀───────── Divided ──────────┘
//!                                        ▼
//!                     Command::Divide: the heirs take the tablet's place in the map, in one step
//!                                        │
//!                  FromMaster::Ended ──▶ nodes that still keep the tablet ──ToMaster::Buried──▶ forgotten
//! ```
//!
//! An intent holds for one epoch of the tablet's group. Only that epoch's primary may write the entry; the primary of any
//! later one knows from its log whether the entry is in it. So an intent always ends in one of two ways, and the master
//! never has to guess (decision 0010).

use bytes::Bytes;
use model::{
    AdminReply, Epoch, Instant, Lineage, Lsn, NodeId, Refusal, Slice, Split, SplitAt, TableId, Tablet, TabletId, Ticket,
};
use protocol::{FromMaster, Mutant};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::api::Effect;
use crate::machine::{Master, Options};
use crate::state::{Changed, Command, Group, State};

/// Splits that may be under way at a time, unless an operator asks for more.
const MOST_SPLITS: usize = 4;
/// A tablet that could not be split is not tried again before this.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// The wish to split a tablet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// In which the entry may be written.
    pub epoch: Epoch,
    /// The heirs' numbers.
    pub left: TabletId,
    /// The other one.
    pub right: TabletId,
    /// Where.
    pub at: SplitAt,
}

/// A tablet that was split: nodes may still keep it, and must learn that its last entry is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Of which table.
    pub table: TableId,
    /// Its last entry.
    pub lsn: Lsn,
    /// The heir that the entry names first.
    pub left: TabletId,
    /// Who kept it, and has not said that it is gone.
    pub nodes: BTreeSet<NodeId>,
}

/// What the leading master knows of splits beside the state.
#[derive(Debug, Default)]
pub(crate) struct Splitting {
    /// Operators who wait for a split.
    waiting: BTreeMap<TabletId, (Ticket, Instant)>,
    /// Tablets that were asked to be split, because they are laden.
    asked: BTreeMap<TabletId, Asked>,
}

/// When a tablet was last asked to be split, and how often before.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    times: u32,
}

impl Asked {
    /// May it be asked again? A single hot or large row cannot be divided, today nor in a minute: the pauses grow.
    fn is_over(self, now: Instant) -> bool {
        now.since(self.at) >= TRY_AGAIN * 2u32.pow(self.times.min(6))
    }
}

impl State {
    /// Is it a tablet that may exist on nodes before the map has it?
    pub(crate) fn is_expected(&self, tablet: TabletId) -> bool {
        self.splits.values().any(|intent| intent.left == tablet || intent.right == tablet)
            || self.merges.values().any(|joint| joint.heir == tablet)
    }

    pub(crate) fn intend_split(&mut self, tablet: TabletId, epoch: Epoch, at: SplitAt) -> Result<Changed, Refusal> {
        let group = self.groups.get(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        check_split(&group.tablet.slice, &at)?;
        if self.splits.contains_key(&tablet) || self.is_joining(tablet) {
            return Err(Refusal::Exists(format!("a split or a merge of tablet {tablet}")));
        }
        if group.configuration.epoch != epoch {
            return Err(Refusal::NotReady(tablet));
        }
        let (left, right) = (self.allot_tablet(), self.allot_tablet());
        self.splits.insert(tablet, Intent { epoch, left, right, at });
        Ok(Changed::Intent(tablet))
    }

    /// The entry is committed: from here on the map has the heirs.
    pub(crate) fn divide(&mut self, tablet: TabletId, lsn: Lsn, split: Split) -> Result<Changed, Refusal> {
        let intended = |intent: &Intent| (intent.left, intent.right) == (split.left, split.right);
        if !self.splits.get(&tablet).is_some_and(intended) {
            return Ok(Changed::Nothing);
        }
        let group = self.groups.get(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        let Some((left, right)) = Split::cut(&group.tablet.slice, &split.at) else {
            return Err(Refusal::Invalid(format!("{tablet} cannot be cut there")));
        };
        let table = group.tablet.table;
        let mut nodes: BTreeSet<NodeId> = group.configuration.members().chain(group.learner).collect();
        nodes.extend(split.configuration.members());
        for (id, slice) in [(split.left, left), (split.right, right)] {
            let tablet = Tablet { id, table, slice };
            let (configuration, lineage) = (split.configuration.clone(), Lineage::default());
            self.groups.insert(id, Group { tablet, configuration, learner: None, leaving: None, lineage });
        }
        if !self.planted.has(Mutant::ParentStays) {
            self.groups.remove(&tablet);
        }
        self.splits.remove(&tablet);
        self.ended.insert(tablet, Ended { table, lsn, left: split.left, nodes });
        Ok(Changed::Divided(tablet, split))
    }

    pub(crate) fn cancel_split(&mut self, tablet: TabletId, left: TabletId, why: String) -> Changed {
        if self.splits.get(&tablet).is_none_or(|intent| intent.left != left) {
            return Changed::Nothing;
        }
        self.splits.remove(&tablet);
        Changed::Undivided(tablet, why)
    }

    pub(crate) fn bury(&mut self, tablet: TabletId, node: NodeId) -> Changed {
        if let Some(ended) = self.ended.get_mut(&tablet) {
            ended.nodes.remove(&node);
            if ended.nodes.is_empty() {
                self.ended.remove(&tablet);
            }
        }
        Changed::Nothing
    }
}

impl Master {
    /// An operator wants a tablet split.
    pub(crate) fn split_tablet(&self, tablet: TabletId, at: Option<Bytes>) -> Result<Command, Refusal> {
        let unknown = || Refusal::Invalid(format!("there is no tablet {tablet}; `diptych tablet list` shows them"));
        let group = self.state.groups.get(&tablet).ok_or_else(unknown)?;
        let at = at.map_or(SplitAt::HalfTheBytes, SplitAt::Row);
        check_split(&group.tablet.slice, &at)?;
        Ok(Command::Split { tablet, epoch: group.configuration.epoch, at })
    }

    /// Is it a tablet that nodes may keep although the map has it not yet, or no more?
    pub(crate) fn is_between(&self, tablet: TabletId) -> bool {
        self.state.ended.contains_key(&tablet) || self.state.is_expected(tablet)
    }

    /// Tells the primary what is wished, if the tablet is to be split.
    pub(crate) fn wish_split(&self, tablet: TabletId, out: &mut Vec<Effect>) {
        let (Some(group), Some(intent)) = (self.state.groups.get(&tablet), self.state.splits.get(&tablet)) else {
            return;
        };
        let Intent { epoch, left, right, at } = intent.clone();
        let message = FromMaster::Split { tablet, epoch, left, right, at };
        out.push(Effect::Send(group.configuration.primary, message));
    }

    /// With every heartbeat of the node: what it must do for splits, and has perhaps not heard.
    pub(crate) fn remind_of_splits(&self, node: NodeId, out: &mut Vec<Effect>) {
        for &tablet in self.state.splits.keys() {
            if self.state.groups.get(&tablet).is_some_and(|group| group.configuration.primary == node) {
                self.wish_split(tablet, out);
            }
        }
        self.tell_ended(node, out);
    }

    pub(crate) fn tell_ended(&self, node: NodeId, out: &mut Vec<Effect>) {
        // Somebody may keep it who left its group long before.
        let keeps = |tablet: &TabletId| self.heard.get(&node).is_some_and(|heard| heard.replicas.contains_key(tablet));
        let told = |(tablet, ended): &(&TabletId, &Ended)| ended.nodes.contains(&node) || keeps(tablet);
        let ended = self.state.ended.iter().filter(told);
        let ended: Vec<_> = ended.map(|(&tablet, ended)| (tablet, ended.lsn, ended.left)).collect();
        if !ended.is_empty() {
            out.push(Effect::Send(node, FromMaster::Ended(ended)));
        }
    }

    /// The node says that its tablet's log has the split.
    pub(crate) fn on_divided(&mut self, node: NodeId, tablet: TabletId, lsn: Lsn, split: Split, out: &mut Vec<Effect>) {
        if self.state.splits.contains_key(&tablet) {
            self.propose(Command::Divide { tablet, lsn, split }, out);
        } else {
            self.tell_ended(node, out);
        }
    }

    /// The node says that its tablet's log will not have the split.
    pub(crate) fn on_undivided(&mut self, tablet: TabletId, left: TabletId, why: String, out: &mut Vec<Effect>) {
        if self.state.splits.get(&tablet).is_some_and(|intent| intent.left == left) {
            self.propose(Command::CancelSplit { tablet, left, why }, out);
        }
    }

    /// The node keeps nothing of the tablet any more.
    pub(crate) fn on_buried(&mut self, node: NodeId, tablet: TabletId, out: &mut Vec<Effect>) {
        if self.state.ended.get(&tablet).is_some_and(|ended| ended.nodes.contains(&node)) {
            self.propose(Command::Bury { tablet, node }, out);
        }
    }

    /// A split was decided on.
    pub(crate) fn tell_intent(
        &mut self,
        now: Instant,
        ticket: Option<Ticket>,
        tablet: TabletId,
        out: &mut Vec<Effect>,
    ) {
        if let Some(ticket) = ticket {
            self.splitting.waiting.insert(tablet, (ticket, now));
        }
        self.wish_split(tablet, out);
    }

    /// A split was carried out.
    pub(crate) fn tell_divided(&mut self, tablet: TabletId, split: Split, out: &mut Vec<Effect>) {
        self.forget_tablet(tablet);
        self.splitting.asked.remove(&tablet);
        let nodes = self.state.ended.get(&tablet).map(|ended| ended.nodes.clone()).unwrap_or_default();
        for node in nodes {
            self.assign(node, &[split.left, split.right], out);
            self.tell_ended(node, out);
        }
        let what = format!("{tablet} at {} into {} and {}", model::text::printable(&split.at), split.left, split.right);
        out.push(Effect::Event("tablet_split", what));
        if let Some((ticket, _)) = self.splitting.waiting.remove(&tablet) {
            out.push(Effect::Reply(ticket, AdminReply::Split(split)));
        }
    }

    /// A split was given up.
    pub(crate) fn tell_undivided(&mut self, tablet: TabletId, why: String, out: &mut Vec<Effect>) {
        out.push(Effect::Event("split_cancelled", format!("{tablet}: {why}")));
        if let Some((ticket, _)) = self.splitting.waiting.remove(&tablet) {
            out.push(Effect::Refuse(ticket, Refusal::Invalid(format!("tablet {tablet} was not split: {why}"))));
        }
    }

    /// Whoever waits for a split of this tablet waits in vain.
    pub(crate) fn forget_splitting(&mut self, tablet: TabletId, out: &mut Vec<Effect>) {
        self.splitting.asked.remove(&tablet);
        if let Some((ticket, _)) = self.splitting.waiting.remove(&tablet) {
            out.push(Effect::Refuse(ticket, Refusal::NoSuchTablet(tablet)));
        }
    }

    /// Answers those who have waited for too long.
    pub(crate) fn give_splits_up(&mut self, now: Option<Instant>, out: &mut Vec<Effect>) {
        let patience = self.options.timing.session * 2;
        let late = |asked: &Instant| now.is_none_or(|now| now.since(*asked) > patience);
        for (tablet, (ticket, _)) in self.splitting.waiting.extract_if(.., |_, (_, asked)| late(asked)) {
            let refusal = if now.is_some() { Refusal::NotReady(tablet) } else { Refusal::NoMaster };
            out.push(Effect::Refuse(ticket, refusal));
        }
        if now.is_none() {
            self.splitting = Splitting::default();
        }
    }

    /// Splits tablets that have grown large, or that get more requests than one node should serve: a few at a time, and
    /// none while many groups lack replicas, when every new group would be one more to repair.
    pub(crate) fn split_the_laden(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let lacking = self.lacking.len() * 20 > self.state.groups.len();
        let most = MOST_SPLITS.saturating_sub(self.state.splits.len());
        let Options { split_bytes, split_load, .. } = self.options;
        if lacking || most == 0 || (split_bytes == 0 && split_load == 0) {
            return;
        }
        let laden = |(&tablet, group): (&TabletId, &Group)| {
            let report = self.heard.get(&group.configuration.primary)?.replicas.get(&tablet)?;
            let at = match report {
                report if split_bytes > 0 && report.bytes > split_bytes => SplitAt::HalfTheBytes,
                report if split_load > 0 && report.load > split_load => SplitAt::HalfTheLoad,
                _ => return None,
            };
            let due = report.steady
                && report.epoch == group.configuration.epoch
                && matches!(group.tablet.slice, Slice::Rows { .. })
                && !self.state.splits.contains_key(&tablet)
                && !self.is_wished(tablet)
                && self.splitting.asked.get(&tablet).is_none_or(|asked| asked.is_over(now));
            due.then_some((tablet, report.epoch, at))
        };
        let due: Vec<(TabletId, Epoch, SplitAt)> = self.state.groups.iter().filter_map(laden).take(most).collect();
        for (tablet, epoch, at) in due {
            let times = self.splitting.asked.get(&tablet).map_or(0, |asked| asked.times + 1);
            self.splitting.asked.insert(tablet, Asked { at: now, times });
            self.propose(Command::Split { tablet, epoch, at }, out);
        }
    }
}

fn check_split(slice: &Slice, at: &SplitAt) -> Result<(), Refusal> {
    let why = match (slice, at) {
        (Slice::Hash { .. }, _) => "a table that is cut by hash keeps its number of tablets".to_owned(),
        (Slice::Rows { .. }, SplitAt::HalfTheBytes | SplitAt::HalfTheLoad) => return Ok(()),
        (Slice::Rows { .. }, SplitAt::Row(at)) => {
            model::limits::check_row_key(at).map_err(Refusal::Invalid)?;
            match Split::cut(slice, at) {
                Some(_) => return Ok(()),
                None => format!("the tablet keeps {slice}; give a key inside, and not its first"),
            }
        }
    };
    Err(Refusal::Invalid(why))
}

#[cfg(test)]
mod tests;
