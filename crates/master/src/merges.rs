//! Two tablets that become one: what the masters agree on of it, and what the leading one does for it.
//!
//! ```text
//!   admin, cold ──▶ wish: the right one comes to the nodes of the left one, and to its primary (moves, hand-overs)
//!                     ▼
//!   Command::Merge ──▶ intent ──FromMaster::Close──▶ the right one's primary: an entry, no writes after it
//!                        │ cancelled if an epoch changes          │ committed
//!                        ▼                                        ▼
//!   Command::Seal: nobody reconfigures the right one ◀─────── Closed
//!                        │ FromMaster::Merge ──▶ the left one's primary: an entry, or Unmerged
//!                        ▼                                        │ committed
//!   Command::Fuse: the heir takes the places of both, in one step ◀── Merged
//! ```
//!
//! Before the seal the master may give the intent up at any time; after it only the left one's primary may, for it alone
//! knows whether the entry is in its log. To give up is a new epoch of the right one: in that it is open (decision 0011).

use model::{Epoch, Instant, Lineage, Lsn, Merge, NodeId, Refusal, Slice, Tablet, TabletId};
use protocol::FromMaster;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::api::Effect;
use crate::machine::Master;
use crate::splits::Ended;
use crate::state::{Changed, Command, Group, State};

/// Merges that may be under way at a time, unless an operator asks for more.
const MOST_MERGES: usize = 2;
/// Two tablets are given up that are not one after this.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of both together above which they are not merged by themselves: all of it is copied once.
const MOST_BYTES: u64 = 64 << 20;
/// A tablet that serves as many requests per second is not cold.
const COLD: u64 = 10;

/// The intent to make one tablet of two. Kept under the left one's number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joint {
    /// The tablet whose rows follow.
    pub right: TabletId,
    /// What they become.
    pub heir: TabletId,
    /// In which the left one may write the entry.
    pub left_epoch: Epoch,
    /// In which the right one is closed.
    pub right_epoch: Epoch,
    /// The right one's last entry, once that is known to be committed.
    pub sealed: Option<Lsn>,
}

/// What the leading master knows of merges beside the state.
#[derive(Debug, Default)]
pub(crate) struct Merging {
    /// Pairs that are being brought together, by the left one, since when.
    wishes: BTreeMap<TabletId, (TabletId, Instant)>,
    /// Since when tablets have been small and cold.
    cold: BTreeMap<TabletId, Instant>,
    /// Since when this master has known of an intent.
    seen: BTreeMap<TabletId, Instant>,
}

impl State {
    /// Is it the right one of two, and closed, so that its group must stay as it is?
    pub(crate) fn is_sealed(&self, tablet: TabletId) -> bool {
        self.merges.values().any(|joint| joint.right == tablet && joint.sealed.is_some())
    }

    /// Is it one of two that are to become one?
    pub(crate) fn is_joining(&self, tablet: TabletId) -> bool {
        self.merges.iter().any(|(&left, joint)| left == tablet || joint.right == tablet)
    }

    pub(crate) fn intend_merge(&mut self, left: TabletId, right: TabletId) -> Result<Changed, Refusal> {
        let group = |tablet| self.groups.get(&tablet).ok_or(Refusal::NoSuchTablet(tablet));
        let (mine, its) = (group(left)?, group(right)?);
        check_join(mine, its)?;
        if [left, right].iter().any(|tablet| self.splits.contains_key(tablet) || self.is_joining(*tablet)) {
            return Err(Refusal::Exists(format!("a split or a merge of {left} or {right}")));
        }
        if !are_aligned(mine, its) {
            return Err(Refusal::NotReady(left));
        }
        let (left_epoch, right_epoch) = (mine.configuration.epoch, its.configuration.epoch);
        let heir = self.allot_tablet();
        self.merges.insert(left, Joint { right, heir, left_epoch, right_epoch, sealed: None });
        Ok(Changed::Joint(left))
    }

    /// The right one's last entry is committed. From here on its group stays as it is.
    pub(crate) fn seal(&mut self, left: TabletId, heir: TabletId, lsn: Lsn) -> Changed {
        let epoch = |tablet| self.groups.get(&tablet).map(|group| group.configuration.epoch);
        let Some(joint) = self.merges.get(&left).filter(|joint| joint.heir == heir && joint.sealed.is_none()) else {
            return Changed::Nothing;
        };
        if (epoch(left), epoch(joint.right)) != (Some(joint.left_epoch), Some(joint.right_epoch)) {
            return Changed::Nothing;
        }
        self.merges.entry(left).and_modify(|joint| joint.sealed = Some(lsn));
        Changed::Joint(left)
    }

    /// The left one's entry is committed: from here on the map has the heir.
    pub(crate) fn fuse(&mut self, left: TabletId, lsn: Lsn, merge: Merge) -> Result<Changed, Refusal> {
        let intended = |joint: &Joint| (joint.right, joint.heir) == (merge.right, merge.heir) && joint.sealed.is_some();
        if !self.merges.get(&left).is_some_and(intended) {
            return Ok(Changed::Nothing);
        }
        let group = |tablet| self.groups.get(&tablet).ok_or(Refusal::NoSuchTablet(tablet));
        let (mine, its) = (group(left)?, group(merge.right)?);
        if Merge::join(&mine.tablet.slice, &its.tablet.slice).as_ref() != Some(&merge.slice) {
            return Err(Refusal::Invalid(format!("{left} and {} do not make {}", merge.right, merge.slice)));
        }
        let table = mine.tablet.table;
        let keep = |group: &Group| group.configuration.members().chain(group.learner).collect::<Vec<_>>();
        let mut nodes: BTreeSet<NodeId> = keep(mine).into_iter().chain(keep(its)).collect();
        nodes.extend(merge.configuration.members());
        let tablet = Tablet { id: merge.heir, table, slice: merge.slice.clone() };
        let (configuration, lineage) = (merge.configuration.clone(), Lineage::default());
        for (parent, lsn) in [(left, lsn), (merge.right, merge.upto)] {
            self.groups.remove(&parent);
            self.ended.insert(parent, Ended { table, lsn, left: merge.heir, nodes: nodes.clone() });
        }
        self.groups.insert(merge.heir, Group { tablet, configuration, learner: None, leaving: None, lineage });
        self.merges.remove(&left);
        Ok(Changed::Fused(left, merge))
    }

    /// `sealed`: as it was when that was decided. After the seal only the left one's primary gives up.
    pub(crate) fn cancel_merge(&mut self, left: TabletId, heir: TabletId, sealed: bool, why: String) -> Changed {
        let given_up = |joint: &&Joint| joint.heir == heir && joint.sealed.is_some() == sealed;
        let Some(joint) = self.merges.get(&left).filter(given_up).cloned() else { return Changed::Nothing };
        self.merges.remove(&left);
        if let Some(group) = self.groups.get_mut(&joint.right)
            && group.configuration.epoch == joint.right_epoch
        {
            group.configuration = group.configuration.next();
        }
        Changed::Unfused(left, joint.right, why)
    }
}

/// Do the two belong side by side?
fn check_join(left: &Group, right: &Group) -> Result<Slice, Refusal> {
    let slice =
        Merge::join(&left.tablet.slice, &right.tablet.slice).filter(|_| left.tablet.table == right.tablet.table);
    slice.ok_or_else(|| Refusal::Invalid(format!("{} does not begin where {} ends", right.tablet.id, left.tablet.id)))
}

/// Are they kept by the same nodes, with the same primary, and is nobody on the way?
fn are_aligned(left: &Group, right: &Group) -> bool {
    let still = |group: &Group| group.learner.is_none() && group.leaving.is_none();
    let (mine, its) = (&left.configuration, &right.configuration);
    still(left) && still(right) && (mine.primary, &mine.secondaries) == (its.primary, &its.secondaries)
}

impl Master {
    /// An operator wants the tablet and the one after it merged.
    pub(crate) fn merge_tablet(&mut self, now: Instant, tablet: TabletId) -> Result<String, Refusal> {
        let unknown = || Refusal::Invalid(format!("there is no tablet {tablet}; `diptych tablet list` shows them"));
        let group = self.state.groups.get(&tablet).ok_or_else(unknown)?;
        if matches!(group.tablet.slice, Slice::Hash { .. }) {
            return Err(Refusal::Invalid("a table that is cut by hash keeps its number of tablets".into()));
        }
        let last = || Refusal::Invalid(format!("tablet {tablet} is the last of its table: name the one before it"));
        let right = self.right_of(group).ok_or_else(last)?;
        if [tablet, right].iter().any(|&tablet| self.is_wished(tablet) || self.state.splits.contains_key(&tablet)) {
            return Err(Refusal::Exists(format!("a split or a merge of {tablet} or {right}")));
        }
        self.merging.wishes.insert(tablet, (right, now));
        Ok(format!("tablets {tablet} and {right} are brought together, and become one"))
    }

    fn right_of(&self, left: &Group) -> Option<TabletId> {
        let follows = |group: &&Group| check_join(left, group).is_ok();
        self.state.groups.values().find(follows).map(|group| group.tablet.id)
    }

    /// Is it one of two that are to be merged, or are being brought together for it? Nothing else is done with it then.
    pub(crate) fn is_wished(&self, tablet: TabletId) -> bool {
        let wished = self.merging.wishes.iter().any(|(&left, &(right, _))| left == tablet || right == tablet);
        wished || self.state.is_joining(tablet)
    }

    /// With every heartbeat of the node: what it must do for merges, and has perhaps not heard.
    pub(crate) fn remind_of_merges(&self, node: NodeId, out: &mut Vec<Effect>) {
        self.state.merges.keys().for_each(|&left| self.wish_merge(left, Some(node), out));
    }

    /// Tells the primary whose turn it is, if that is `node` or nobody is named.
    fn wish_merge(&self, left: TabletId, node: Option<NodeId>, out: &mut Vec<Effect>) {
        let Some(&Joint { right, heir, left_epoch, right_epoch, sealed }) = self.state.merges.get(&left) else {
            return;
        };
        let (tablet, message) = match sealed {
            None => (right, FromMaster::Close { tablet: right, epoch: right_epoch, heir }),
            Some(upto) => (left, FromMaster::Merge { tablet: left, epoch: left_epoch, right, right_epoch, upto, heir }),
        };
        let Some(group) = self.state.groups.get(&tablet) else { return };
        if node.is_none_or(|node| node == group.configuration.primary) {
            out.push(Effect::Send(group.configuration.primary, message));
        }
    }

    /// The node says that the right one of two is closed.
    pub(crate) fn on_closed(
        &mut self,
        tablet: TabletId,
        epoch: Epoch,
        lsn: Lsn,
        heir: TabletId,
        out: &mut Vec<Effect>,
    ) {
        let meant = |joint: &Joint| (joint.right, joint.right_epoch, joint.heir) == (tablet, epoch, heir);
        let found = self.state.merges.iter().find(|(_, joint)| meant(joint) && joint.sealed.is_none());
        if let Some((&left, _)) = found {
            self.propose(Command::Seal { left, heir, lsn }, out);
        }
    }

    /// The node says that the left one's log has the merge.
    pub(crate) fn on_merged(&mut self, node: NodeId, left: TabletId, lsn: Lsn, merge: Merge, out: &mut Vec<Effect>) {
        if self.state.merges.get(&left).is_some_and(|joint| joint.heir == merge.heir) {
            self.propose(Command::Fuse { left, lsn, merge }, out);
        } else {
            self.tell_ended(node, out);
        }
    }

    /// The node says that there will be no such merge. `left`: the left one's primary does.
    pub(crate) fn on_unmerged(&mut self, heir: TabletId, left: bool, why: String, out: &mut Vec<Effect>) {
        let found = self.state.merges.iter().find(|(_, joint)| joint.heir == heir);
        if let Some((&tablet, _)) = found {
            self.propose(Command::CancelMerge { left: tablet, heir, sealed: left, why }, out);
        }
    }

    /// A merge was decided on, or the right one is sealed.
    pub(crate) fn tell_joint(&mut self, left: TabletId, out: &mut Vec<Effect>) {
        self.merging.wishes.remove(&left);
        self.wish_merge(left, None, out);
    }

    /// A merge was carried out.
    pub(crate) fn tell_fused(&mut self, left: TabletId, merge: &Merge, out: &mut Vec<Effect>) {
        for tablet in [left, merge.right] {
            self.forget_tablet(tablet);
            self.forget_merging(tablet);
        }
        let nodes = self.state.ended.get(&left).map(|ended| ended.nodes.clone()).unwrap_or_default();
        for node in nodes {
            self.assign(node, &[merge.heir], out);
            self.tell_ended(node, out);
        }
        let what = format!("{left} and {} into {}, {}", merge.right, merge.heir, merge.slice);
        out.push(Effect::Event("tablets_merged", what));
    }

    /// A merge was given up: the right one is open again in the next epoch.
    pub(crate) fn tell_unfused(&mut self, left: TabletId, right: TabletId, why: &str, out: &mut Vec<Effect>) {
        self.forget_merging(left);
        self.forget_merging(right);
        if let Some(group) = self.state.groups.get(&right) {
            let nodes: Vec<NodeId> = group.configuration.members().chain(group.learner).collect();
            nodes.into_iter().for_each(|node| self.assign(node, &[right], out));
        }
        out.push(Effect::Event("merge_cancelled", format!("{left} and {right}: {why}")));
    }

    /// The tablet is not there any more, or not to be merged any more.
    pub(crate) fn forget_merging(&mut self, tablet: TabletId) {
        self.merging.wishes.retain(|&left, &mut (right, _)| left != tablet && right != tablet);
        self.merging.cold.remove(&tablet);
        self.merging.seen.remove(&tablet);
    }

    pub(crate) fn carry_merges_on(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.give_merges_up(now, out);
        self.note_the_cold(now);
        let wishes: Vec<(TabletId, TabletId, Instant)> =
            self.merging.wishes.iter().map(|(&left, &(right, since))| (left, right, since)).collect();
        for (left, right, since) in wishes {
            if now.since(since) > PATIENCE || !self.bring_together(now, left, right, out) {
                self.forget_merging(left);
                let what = format!("{left} and {right}: they could not be brought to the same nodes");
                out.push(Effect::Event("merge_cancelled", what));
            }
        }
    }

    /// Intents of which nothing came, and that may still be given up.
    fn give_merges_up(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let mut late = Vec::new();
        for (&left, joint) in &self.state.merges {
            let since = *self.merging.seen.entry(left).or_insert(now);
            let epoch = |tablet| self.state.groups.get(&tablet).map(|group| group.configuration.epoch);
            let epochs = (epoch(left), epoch(joint.right));
            let why = match joint.sealed {
                Some(_) => continue,
                None if epochs != (Some(joint.left_epoch), Some(joint.right_epoch)) => {
                    "a group was reconfigured meanwhile"
                }
                None if now.since(since) > PATIENCE => "the right one could not be closed",
                None => continue,
            };
            late.push(Command::CancelMerge { left, heir: joint.heir, sealed: false, why: why.into() });
        }
        late.into_iter().for_each(|command| _ = self.propose(command, out));
    }

    /// One step on the way to the same nodes and the same primary. False if there is no way.
    fn bring_together(&mut self, now: Instant, left: TabletId, right: TabletId, out: &mut Vec<Effect>) -> bool {
        let (Some(mine), Some(its)) = (self.state.groups.get(&left), self.state.groups.get(&right)) else {
            return false;
        };
        if check_join(mine, its).is_err() {
            return false;
        }
        let moves = |group: &Group| group.learner.is_some() || group.leaving.is_some();
        if moves(mine) || moves(its) || !self.is_unasked(now, left) || !self.is_unasked(now, right) {
            return true;
        }
        let (at, of) = (&mine.configuration, &its.configuration);
        let to = at.members().find(|&node| !of.has(node));
        let from = of.members().find(|&node| !at.has(node));
        match (from, to) {
            (Some(from), Some(to)) => {
                if self.is_able(now, to) && !self.is_resting(now, right, to) {
                    let command = Command::Move { tablet: right, epoch: of.epoch, from, to };
                    self.propose_move(now, command, out);
                }
            }
            // One of them lacks a copy, or has one too many: that is mended first.
            (Some(_), None) | (None, Some(_)) => {}
            (None, None) if of.primary != at.primary => {
                let heir = at.primary;
                if self.heirs(now, right, its).any(|node| node == heir) {
                    self.order_hand_over(now, right, heir, out);
                }
            }
            (None, None) => {
                let steady = |tablet, node, epoch| {
                    self.report(node, tablet).is_some_and(|report| report.steady && report.epoch == epoch)
                };
                if at.members().all(|node| steady(left, node, at.epoch) && steady(right, node, of.epoch)) {
                    self.asked.insert(left, now);
                    self.propose(Command::Merge { left, right }, out);
                }
            }
        }
        true
    }

    /// Wishes that two tablets are merged which have been small and cold for long.
    fn note_the_cold(&mut self, now: Instant) {
        let Some(pause) = self.options.merge_after else { return };
        let most = match self.options.split_bytes {
            0 => MOST_BYTES,
            bytes => MOST_BYTES.min(bytes / 2),
        };
        let mut cold = BTreeMap::new();
        for (&tablet, group) in &self.state.groups {
            let Some(report) = self.report(group.configuration.primary, tablet) else { continue };
            let ranged = matches!(group.tablet.slice, Slice::Rows { .. });
            if ranged && report.bytes <= most && report.load < COLD && !self.is_wished(tablet) {
                let since = self.merging.cold.get(&tablet).copied().unwrap_or(now);
                cold.insert(tablet, (since, report.bytes));
            }
        }
        self.merging.cold = cold.iter().map(|(&tablet, &(since, _))| (tablet, since)).collect();
        if self.lacking.len() * 20 > self.state.groups.len() {
            return;
        }
        cold.retain(|_, (since, _)| now.since(*since) >= pause);
        for (&left, &(_, bytes)) in &cold {
            if self.merging.wishes.len() + self.state.merges.len() >= MOST_MERGES {
                return;
            }
            let right = self.state.groups.get(&left).and_then(|group| self.right_of(group));
            let other = right.and_then(|right| Some((right, cold.get(&right)?.1)));
            if let Some((right, more)) = other
                && bytes + more <= most
                && !self.is_wished(left)
                && !self.is_wished(right)
            {
                self.merging.wishes.insert(left, (right, now));
            }
        }
    }

    /// What this master has wished is nobody's wish any more.
    pub(crate) fn forget_all_merging(&mut self) {
        self.merging = Merging::default();
    }
}

#[cfg(test)]
mod tests;
