//! Tablets that become two while everything else goes on: the operator who asks for it, the client's way to the heirs, and
//! what must hold.

use model::{AdminRequest, Heir, Partition, Slice, TabletId};

use super::client::{Area, Client, Kind};
use super::world::{Checked, OPERATOR, World};

/// Bytes at which the master splits a tablet by itself, in histories in which it does.
pub(super) const SPLIT_BYTES: u64 = 12 << 10;
/// Requests per second at which it does.
pub(super) const SPLIT_LOAD: u64 = 10;

impl World {
    /// How the table that is always there is cut.
    pub(super) fn cut(&mut self) -> Partition {
        match self.climate.elastic {
            false => Partition::Hash { tablets: 2 },
            true if self.elastic.chance(50) => Partition::Range { splits: vec![] },
            true => Partition::Range { splits: vec![Area::Hot.row(3)] },
        }
    }

    /// The operator wants some tablet split, there or anywhere.
    pub(super) fn ask_for_a_split(&mut self) {
        let Some(master) = &self.mastery.master else { return };
        let tablets: Vec<TabletId> = master.state().groups.keys().copied().collect();
        let Some(&tablet) = self.elastic.pick(&tablets) else { return };
        let areas = [Area::Hot, Area::Hot, Area::Quiet, Area::Guest];
        let area = areas[self.elastic.below(4) as usize];
        let row = area.row(self.elastic.below(area.rows()));
        let at = self.elastic.chance(70).then_some(row);
        self.step_master(master::Input::Admin(OPERATOR, AdminRequest::SplitTablet { tablet, at }));
    }

    /// The operator wants some tablet and the next one to become one.
    pub(super) fn ask_for_a_merge(&mut self) {
        let Some(master) = &self.mastery.master else { return };
        let tablets: Vec<TabletId> = master.state().groups.keys().copied().collect();
        let Some(&tablet) = self.elastic.pick(&tablets) else { return };
        self.step_master(master::Input::Admin(OPERATOR, AdminRequest::MergeTablet(tablet)));
    }

    /// At every index of the master's log the tablets of a table hold each row once (invariant I13).
    pub(super) fn check_tiling(&self) -> Checked {
        let Some(master) = &self.mastery.master else { return Ok(()) };
        let state = master.state();
        for schema in state.tables.values() {
            let of = state.groups.values().filter(|group| group.tablet.table == schema.table);
            let mut slices: Vec<&Slice> = of.map(|group| &group.tablet.slice).collect();
            slices.sort_unstable_by(|a, b| place(a).cmp(&place(b)));
            // Each begins where the one before has ended, the first where all rows begin, and the last has no end.
            let first = slices.first().is_some_and(|first| place(first) == (0, &[]));
            let last = slices.last().is_some_and(|last| match last {
                Slice::Rows { end, .. } => end.is_none(),
                Slice::Hash { bucket, of } => bucket + 1 == *of,
            });
            let follows = |pair: &[&Slice]| match (pair[0], pair[1]) {
                (Slice::Rows { end, .. }, Slice::Rows { start, .. }) => end.as_ref() == Some(start),
                (Slice::Hash { bucket, of }, Slice::Hash { bucket: next, of: all }) => bucket + 1 == *next && of == all,
                _ => false,
            };
            if !first || !last || !slices.windows(2).all(follows) {
                return Err(format!("the tablets of {} do not hold each row once: {slices:?}", schema.name));
            }
        }
        Ok(())
    }

    /// In the end no split is half done, and no node keeps what has ended.
    pub(super) fn check_splits_done(&self) -> Checked {
        let Some(master) = &self.mastery.master else { return Ok(()) };
        let state = master.state();
        // A node that is gone for good says nothing any more, and is waited for.
        let gone = |node: &model::NodeId| self.machines[node.0 as usize].retired;
        let (hopeless, now) = (self.hopeless(), self.agenda.now());
        let moves = |tablet: TabletId| self.record.is_in_motion(now, tablet);
        let waits = |tablet: TabletId| moves(tablet) || hopeless.contains(&tablet);
        let ended = state.ended.iter().all(|(&tablet, ended)| waits(tablet) || ended.nodes.iter().all(gone));
        let wished = state.splits.iter().all(|(tablet, intent)| moves(intent.left) || hopeless.contains(tablet));
        let joined = state
            .merges
            .iter()
            .all(|(tablet, joint)| moves(joint.heir) || hopeless.contains(tablet) || hopeless.contains(&joint.right));
        match wished && joined && ended {
            true => Ok(()),
            false => {
                let (splits, merges, ended) = (&state.splits, &state.merges, &state.ended);
                Err(format!("splits {splits:?}, merges {merges:?} and ends {ended:?} are not done"))
            }
        }
    }
}

impl Client {
    /// The tablet has heirs: they take its place in the map, and in a scan.
    pub(super) fn succeed(&mut self, tablet: TabletId, heirs: Vec<Heir>) {
        let Some(at) = self.tablets.iter().position(|known| known.tablet.id == tablet) else { return };
        let parent = self.tablets.remove(at);
        for heir in heirs {
            self.learn(heir.tablet, &heir.configuration);
            let mut assignment = parent.clone();
            assignment.tablet.id = heir.tablet;
            assignment.tablet.slice = heir.slice;
            assignment.configuration = heir.configuration;
            // An heir of two takes the place of both.
            self.tablets.retain(|known| {
                known.tablet.id != heir.tablet
                    && !(known.tablet.table == parent.tablet.table
                        && common(known.tablet.slice.clone(), &assignment.tablet.slice).is_some())
            });
            self.tablets.push(assignment);
        }
    }

    /// Goes where the rows are now, if the tablet that was asked is not in the map any more and its table is.
    pub(super) fn find_heirs(&mut self) {
        let Some(doing) = &mut self.doing else { return };
        let (Some(table), Some(tablet)) = (doing.table, doing.tablet) else { return };
        let of = |tablets: &[model::Assignment]| -> Vec<(TabletId, Slice)> {
            let of = tablets.iter().filter(|known| known.tablet.table == table);
            of.map(|known| (known.tablet.id, known.tablet.slice.clone())).collect()
        };
        let tablets = of(&self.tablets);
        if tablets.is_empty() || tablets.iter().any(|(known, _)| *known == tablet) {
            return;
        }
        match &mut doing.kind {
            Kind::Scan { left, .. } => {
                let Some((_, slice, start)) = left.pop() else { return };
                // A late answer of the parent is not one of an heir.
                self.sequence += 1;
                let heirs =
                    tablets.into_iter().filter_map(|(heir, its)| Some((heir, common(its, &slice)?, start.clone())));
                left.extend(heirs);
                doing.tablet = left.last().map(|(tablet, ..)| *tablet);
            }
            _ => {
                let holder = tablets.iter().find(|(_, slice)| slice.covers(&doing.row));
                doing.tablet = holder.map(|(tablet, _)| *tablet);
            }
        }
    }
}

/// What it begins with.
fn place(slice: &Slice) -> (u32, &[u8]) {
    match slice {
        Slice::Rows { start, .. } => (0, start),
        Slice::Hash { bucket, .. } => (*bucket, &[]),
    }
}

/// What an heir has of the part that was asked for.
fn common(heir: Slice, part: &Slice) -> Option<Slice> {
    match (heir, part) {
        (Slice::Rows { start, end }, Slice::Rows { start: other, end: other_end }) => {
            let start = start.max(other.clone());
            let end = end.iter().chain(other_end).min().cloned();
            end.as_ref().is_none_or(|end| *end > start).then_some(Slice::Rows { start, end })
        }
        (heir, part) => (heir == *part).then_some(heir),
    }
}
