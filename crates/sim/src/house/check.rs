//! What must hold of the whole house at every moment, and in the end.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use disk::Disk;
use master::Master;
use model::request::Role;
use model::{Configuration, Epoch, FamilyId, Instant, Lsn, NodeId, Payload, RowRange, TableId, TabletId, Timestamp};
use node::Node;

use super::client::{Area, Observed, Register};
use super::eventual::Prefixes;
use super::ledger::{self, Count};
use super::machine::Process;
use super::world::{Checked, EPOCH_US, LAST_READS, World};
use crate::agenda::SECOND;
use crate::linear::{self, Action};

type Rows = (Vec<model::Row>, Option<Bytes>);

/// What is known for ever, of all nodes together.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// What was committed at each place.
    committed: BTreeMap<(TabletId, Lsn), (Epoch, Bytes)>,
    /// The same as values of rows, for reads of a prefix.
    pub prefixes: Prefixes,
    /// The completion records at each place.
    completions: BTreeMap<(TabletId, Lsn), Bytes>,
    /// How far each replica's commits have been compared; of one life of its node.
    compared: BTreeMap<(NodeId, u64, TabletId), Lsn>,
    /// Who has led each epoch.
    leaders: BTreeMap<(TabletId, Epoch), NodeId>,
    /// The newest epoch that anybody followed.
    pub newest: BTreeMap<TabletId, Epoch>,
    /// What is known of rows that are counted up.
    pub counts: BTreeMap<Bytes, Count>,
    /// What clients did to each register, and saw in it.
    histories: BTreeMap<Register, Vec<linear::Operation>>,
    /// The family in which a value was seen, and since when its writer knows that it is written.
    family_of: BTreeMap<u64, FamilyId>,
    written: BTreeMap<u64, u64>,
    /// When the master decided that there is such a family in the table that is always there.
    families: BTreeMap<FamilyId, u64>,
    tablets: BTreeSet<TabletId>,
    /// When the master first had a tablet, or the wish that it should be.
    appeared: BTreeMap<TabletId, u64>,
    /// What the master has decided last of each group.
    pub decided: BTreeMap<TabletId, Configuration>,
    /// Learners likewise, and nodes that are being emptied, since when.
    pub learners: BTreeMap<TabletId, NodeId>,
    pub drained: BTreeMap<NodeId, u64>,
    /// When the master decided that there is no such tablet any more: nobody is promised anything of it from then on.
    pub dropped: BTreeMap<TabletId, u64>,
    /// Likewise of tables.
    pub gone: BTreeMap<TableId, u64>,
    /// Since when a tablet is on its way from one node to another.
    moving: BTreeMap<TabletId, u64>,
    /// Of which table a tablet is or was.
    table_of: BTreeMap<TabletId, TableId>,
    tables: BTreeSet<TableId>,
    /// The newest of the master's commands that was taken note of.
    pub noted: u64,
}

impl Record {
    /// No two replicas ever commit different entries at one place.
    pub fn compare(&mut self, life: u64, node: &Node) -> Checked {
        for replica in node.replicas() {
            let tablet = replica.tablet();
            if replica.role() == Role::Primary {
                let leader = *self.leaders.entry((tablet, replica.epoch())).or_insert(node.id());
                if leader != node.id() {
                    return Err(format!("{leader} and {} both lead {tablet} in {}", node.id(), replica.epoch()));
                }
            }
            let epoch = self.newest.entry(tablet).or_default();
            *epoch = (*epoch).max(replica.epoch());
            if self.dropped.contains_key(&tablet) {
                continue;
            }
            let compared = self.compared.entry((node.id(), life, tablet)).or_default();
            if *compared < replica.committed() {
                let mine = node.completions(tablet).unwrap_or_default();
                let first = self.completions.entry((tablet, replica.committed())).or_insert_with(|| mine.clone());
                if *first != mine {
                    let (node, upto) = (node.id(), replica.committed());
                    return Err(format!("{node} has other completion records of {tablet} at {upto} than others had"));
                }
            }
            while *compared < replica.committed() {
                *compared = compared.next();
                let Some(entry) = replica.entry(*compared) else { continue };
                let mine = (entry.epoch, entry.payload.clone());
                if !self.committed.contains_key(&(tablet, entry.lsn)) {
                    let table = self.table_of.get(&tablet).copied().unwrap_or_default();
                    self.prefixes.add(table, tablet, entry)?;
                    let heirs = match postcard::from_bytes(&entry.payload) {
                        Ok(Payload::Split(split)) => vec![split.left, split.right],
                        Ok(Payload::Merge(merge)) => vec![merge.heir],
                        _ => vec![],
                    };
                    self.table_of.extend(heirs.into_iter().map(|heir| (heir, table)));
                }
                let first = self.committed.entry((tablet, entry.lsn)).or_insert_with(|| mine.clone());
                if *first != mine {
                    return Err(format!(
                        "{} commits {entry:?} in {tablet}, where another entry of {} was committed",
                        node.id(),
                        first.0
                    ));
                }
            }
        }
        Ok(())
    }

    /// Takes note of what the master has decided.
    pub fn on_decision(&mut self, now: u64, master: &Master) {
        let state = master.state();
        // A master that starts goes through all that was decided before.
        if state.applied < self.noted {
            return;
        }
        self.noted = state.applied;
        self.moving.retain(|tablet, _| state.groups.get(tablet).is_some_and(|group| group.leaving.is_some()));
        for (&tablet, _) in state.groups.iter().filter(|(_, group)| group.leaving.is_some()) {
            self.moving.entry(tablet).or_insert(now);
        }
        self.decided = state.groups.iter().map(|(&tablet, group)| (tablet, group.configuration.clone())).collect();
        let learners = state.groups.iter().filter_map(|(&tablet, group)| Some((tablet, group.learner?)));
        self.learners = learners.collect();
        let tablets: BTreeSet<TabletId> = state.groups.keys().copied().collect();
        for &gone in self.tablets.difference(&tablets) {
            self.dropped.entry(gone).or_insert(now);
        }
        let wished =
            state.splits.values().map(|intent| &intent.left).chain(state.merges.values().map(|joint| &joint.heir));
        for &tablet in tablets.iter().chain(wished) {
            self.appeared.entry(tablet).or_insert(now);
        }
        self.tablets = tablets;
        let tables: BTreeSet<TableId> = state.tables.keys().copied().collect();
        for &gone in self.tables.difference(&tables) {
            self.gone.entry(gone).or_insert(now);
        }
        self.tables = tables;
        self.table_of.extend(state.groups.values().map(|group| (group.tablet.id, group.tablet.table)));
        for (tablet, intent) in &state.splits {
            let table = self.table_of.get(tablet).copied().unwrap_or_default();
            self.table_of.extend([(intent.left, table), (intent.right, table)]);
        }
        for (tablet, joint) in &state.merges {
            let table = self.table_of.get(tablet).copied().unwrap_or_default();
            self.table_of.insert(joint.heir, table);
        }
        for family in state.table(Area::Hot.table()).iter().flat_map(|schema| &schema.families) {
            self.families.entry(family.id).or_insert(now);
        }
    }

    /// Has the tablet been there, or not been there any more, or on its way to another node, for less than what ends and
    /// begins anew may take? Busy tablets are split and moved as long as there are clients.
    pub fn is_in_motion(&self, now: u64, tablet: TabletId) -> bool {
        let times = [self.appeared.get(&tablet), self.dropped.get(&tablet), self.moving.get(&tablet)];
        times.into_iter().flatten().any(|&at| now < at + 3 * SECOND)
    }

    /// Takes note of what a client did or saw. A value never moves from one family to another: what went with a
    /// family does not come back with the next one of that name.
    pub fn observe(&mut self, observed: Observed) -> Checked {
        let Observed { area, register, operation, family } = observed;
        if ledger::is_count(&register.1) {
            let count = self.counts.entry(register.1.clone()).or_default();
            if let Action::Swap(..) = operation.action {
                count.swapped(operation.answered.is_some());
            }
            let answered = operation.answered.is_some();
            if let (Action::Read(Some(value)) | Action::Swap(_, Some(value)), true) = (operation.action, answered) {
                count.saw(value);
            }
        }
        if let (Action::Write(Some(value)), Some(answered)) = (operation.action, operation.answered) {
            self.written.insert(value, answered);
        }
        if let (Action::Write(Some(value)) | Action::Swap(_, Some(value)), Some(answered)) =
            (operation.action, operation.answered)
        {
            self.prefixes.acknowledged(value, answered);
        }
        if let (Action::Read(Some(value)), Some(family), false) = (operation.action, family, area == Area::Guest) {
            let first = *self.family_of.entry(value).or_insert(family);
            if first != family {
                return Err(format!("{value} of {register:?} was in family {first:?} and is in {family:?}"));
            }
            let (written, born) = (self.written.get(&value), self.families.get(&family));
            if let (Some(written), Some(born)) = (written, born)
                && written < born
            {
                let (written, born) = (Instant(*written), Instant(*born));
                return Err(format!("{value} was written by {written:?}, and its family {family:?} made at {born:?}"));
            }
        }
        // While their family comes and goes, rows lose what they had at no certain moment.
        if !Area::is_loose(&register.1) {
            self.histories.entry(register).or_default().push(operation);
        }
        Ok(())
    }

    /// What every client ever saw has an order that explains it. `last_reads`: since then every row was read.
    fn explain(&self, last_reads: Option<u64>) -> Checked {
        for ((table, row), operations) in &self.histories {
            let end = self.gone.get(table).copied();
            let last = operations.iter().filter_map(|operation| operation.answered).max().unwrap_or(0);
            if last_reads.is_some_and(|from| last < from) && end.is_none() {
                return Err(format!("{row:?} of {table} was last served at {:?}", Instant(last)));
            }
            let operations: Vec<linear::Operation> =
                operations.iter().filter_map(|operation| until(*operation, end.unwrap_or(u64::MAX))).collect();
            linear::check(&operations).map_err(|stuck| {
                let first = stuck.first().map_or(0, |operation| operation.called);
                let mut near: Vec<_> = operations.iter().filter(|o| o.called.abs_diff(first) < SECOND).collect();
                near.sort_by_key(|operation| operation.called);
                let near: Vec<String> = near.into_iter().map(describe).collect();
                let stuck: Vec<String> = stuck.iter().take(6).map(describe).collect();
                let (stuck, near) = (stuck.join("\n"), near.join("\n"));
                format!("no order explains {row:?} of {table}; left over are\n{stuck}\nof\n{near}")
            })?;
        }
        Ok(())
    }
}

/// What still counts of an operation if nothing that was answered after `end` does.
fn until(operation: linear::Operation, end: u64) -> Option<linear::Operation> {
    let late = operation.answered.is_some_and(|answered| answered >= end);
    match operation.action {
        _ if !late => Some(operation),
        Action::Read(_) => None,
        _ => Some(linear::Operation { answered: None, ..operation }),
    }
}

/// At most one node may read a tablet at one moment. `stepped` has just taken a step, and only a step makes a reader;
/// `others` are the other nodes that run now. Each with what its clock shows.
pub(super) fn one_reader<'a>(
    stepped: (&Node, Instant),
    others: impl Iterator<Item = (&'a Node, Instant)> + Clone,
) -> Checked {
    let (node, now) = stepped;
    for mine in node.replicas().filter(|replica| node.may_read(replica.tablet(), now)) {
        for (other, now) in others.clone() {
            if other.may_read(mine.tablet(), now) {
                return Err(format!("{} and {} may read {} at once", node.id(), other.id(), mine.tablet()));
            }
        }
    }
    Ok(())
}

impl World {
    /// The end: all is well again, unless a node is gone for good. What clients saw holds always.
    pub(super) fn check_end(&mut self) -> Checked {
        let stuck = self.stuck_at.is_some() || self.doomed_at.is_some();
        for client in &mut self.clients {
            for observed in client.give_up() {
                self.record.observe(observed)?;
            }
        }
        if !stuck {
            self.check_healed()?;
        }
        let hopeless = self.hopeless();
        if !stuck && hopeless.is_empty() {
            self.check_counts()?;
            self.check_changes()?;
        }
        let from = self.later(LAST_READS);
        // A client that waits for what nobody can bring back reads nothing else.
        self.record.explain((!stuck && hopeless.is_empty()).then_some(from))
    }

    /// Tablets whose last copy is damaged. What of it can be read is served; nobody can bring the rest back.
    pub(super) fn hopeless(&self) -> BTreeSet<TabletId> {
        let Some(master) = &self.mastery.master else { return BTreeSet::new() };
        let damaged = |tablet: TabletId, node: NodeId| {
            let process = self.machines[node.0 as usize].process.as_ref();
            process.is_some_and(|process| process.node.damaged().any(|(damaged, _)| damaged == tablet))
        };
        let is_hopeless = |tablet: TabletId, configuration: &Configuration| {
            configuration.members().all(|node| damaged(tablet, node) || self.has_nothing(tablet, node))
                && configuration.members().any(|node| damaged(tablet, node))
        };
        let groups = master.state().groups.iter();
        let hopeless = groups.filter(|(tablet, group)| is_hopeless(**tablet, &group.configuration));
        let mut hopeless: BTreeSet<TabletId> = hopeless.map(|(&tablet, _)| tablet).collect();
        // Those that such a one was made of: it cannot copy what it has of them only by reference.
        let ended = master.state().ended.iter().filter(|(_, ended)| hopeless.contains(&ended.left));
        let ended: Vec<TabletId> = ended.map(|(&tablet, _)| tablet).collect();
        hopeless.extend(ended);
        hopeless
    }

    /// Every group is whole, its replicas are equal, and nothing is left of tables that were dropped.
    fn check_healed(&self) -> Checked {
        if !self.ready {
            return Err("the table was never made".into());
        }
        let master = self.mastery.master.as_ref().ok_or("the master is down")?;
        let (hopeless, now) = (self.hopeless(), self.agenda.now());
        let moves = |tablet: &TabletId| self.record.is_in_motion(now, *tablet);
        let settled = |(tablet, _): &(&TabletId, _)| !hopeless.contains(tablet) && !moves(tablet);
        for (tablet, group) in master.state().groups.iter().filter(settled) {
            let state = format!("{:?} learner {:?}\n{}", group.configuration, group.learner, self.reports(*tablet));
            if group.configuration.size() != usize::from(self.climate.replicas) {
                return Err(format!("{tablet} has not become whole: {state}"));
            }
            self.check_group(*tablet, &group.configuration).map_err(|what| format!("{what}: {state}"))?;
            let epoch = group.configuration.epoch;
            let decides = |event: &model::Event| {
                event.tablet == Some(*tablet) && event.epochs.is_some_and(|(_, after)| after == epoch)
            };
            if epoch > Epoch(1) && !master.state().events.iter().any(decides) {
                return Err(format!("no event tells how {tablet} came to {epoch}"));
            }
        }
        let numbers: Vec<u64> = master.state().events.iter().map(|event| event.seq).collect();
        if numbers.windows(2).any(|pair| pair[1] != pair[0] + 1) {
            return Err(format!("the numbers of events have gaps: {numbers:?}"));
        }
        self.check_splits_done()?;
        for machine in self.machines[1..].iter().filter(|machine| !machine.retired) {
            if machine.is_amnesiac() {
                return Err("a node that came with an empty disk was not turned away".into());
            }
            let process = machine.process.as_ref().ok_or("a node is down")?;
            if let Some((tablet, why)) = process.node.damaged().find(|(tablet, _)| !hopeless.contains(tablet)) {
                return Err(format!("{} has not healed {tablet}: {why}", process.node.id()));
            }
            let hosted: BTreeSet<TabletId> = process.node.replicas().map(|replica| replica.tablet()).collect();
            let hosted: BTreeSet<TabletId> = hosted.union(&hopeless).copied().collect();
            let on_disk = machine.disk.list("manifest").map_err(|error| error.to_string())?;
            let on_disk = on_disk.iter().filter_map(|name| name.parse().ok()).map(TabletId);
            let left: Vec<TabletId> = hosted
                .iter()
                .copied()
                .filter(|tablet| !master.state().groups.contains_key(tablet))
                .chain(on_disk.filter(|tablet| !hosted.contains(tablet)))
                .filter(|tablet| !moves(tablet) && !hopeless.contains(tablet))
                .collect();
            if !left.is_empty() {
                return Err(format!("{} still has something of {left:?}", process.node.id()));
            }
        }
        Ok(())
    }

    fn reports(&self, tablet: TabletId) -> String {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let reports = processes.flat_map(|process| process.node.reports(process.local(self.agenda.now())));
        let of = reports.filter(|report| report.tablet == tablet);
        of.map(|report| format!("{report:?}\n")).collect()
    }

    /// Members follow, and hold the same rows.
    fn check_group(&self, tablet: TabletId, configuration: &Configuration) -> Checked {
        let now = self.agenda.now();
        let mut contents = Vec::new();
        for member in configuration.members() {
            let process: &Process =
                self.machines[member.0 as usize].process.as_ref().ok_or_else(|| format!("{member} is down"))?;
            let report = process.node.reports(process.local(now)).into_iter().find(|report| report.tablet == tablet);
            let role = if member == configuration.primary { Role::Primary } else { Role::Secondary };
            if !report.is_some_and(|report| report.steady && report.role == role && report.epoch == configuration.epoch)
            {
                return Err(format!("{member} is not steady in {tablet}"));
            }
            let (applied, view, schema) =
                process.node.applied(tablet).ok_or_else(|| format!("{member} has no {tablet}"))?;
            // Versions that a rule gave up come back with another rule, unless a merge has removed them here.
            let versions = if self.climate.families { 1 } else { u32::MAX };
            let all = model::ReadOptions { versions, ..model::ReadOptions::default() };
            let rows = view.scan(&RowRange::default(), &all, &schema, Timestamp(EPOCH_US * 2), u32::MAX, usize::MAX);
            match rows {
                Ok(rows) => contents.push((applied, rows)),
                Err(error) => return Err(format!("{member}: {error}")),
            }
        }
        // A digest may have come just now.
        let moves = !self.digest_every.is_zero();
        let same = |other: &(Lsn, Rows)| (moves || other.0 == contents[0].0) && other.1 == contents[0].1;
        if let Some(other) = contents.iter().find(|other| !same(other)) {
            return Err(format!("replicas of {tablet} differ at {} and {}", contents[0].0, other.0));
        }
        Ok(())
    }
}

fn describe(operation: &linear::Operation) -> String {
    format!("{:?} from {:?} to {:?}", operation.action, Instant(operation.called), operation.answered.map(Instant))
}
