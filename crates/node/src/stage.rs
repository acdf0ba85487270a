//! What a node is about, tablet by tablet, for checkers: they count which faults have met which states.

use model::Instant;
use protocol::replica::Stage as GroupStage;

use crate::machine::{Node, Working};

/// What a node is about with one of its tablets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// What its replica is about.
    Group(GroupStage),
    /// The replica is the only member, and serves.
    Alone,
    /// A checkpoint is arriving.
    Receiving,
    /// A checkpoint is put in place.
    Adopting,
    /// A memtable goes to disk.
    Flushing,
    /// Tables are merged.
    Merging,
    /// The files are removed.
    Dropping,
}

impl Node {
    /// What it is about now; a tablet may be about several things.
    pub fn stages(&self, now: Instant) -> impl Iterator<Item = Stage> {
        let groups = self.hosted.values().flat_map(move |hosted| {
            let stage = self.group_stage(hosted, now);
            let alone = stage == GroupStage::Serving && hosted.replica.configuration().size() == 1;
            let arriving = stage == GroupStage::Learning && hosted.receiving.is_some();
            let more = [alone.then_some(Stage::Alone), arriving.then_some(Stage::Receiving)];
            [Stage::Group(stage)].into_iter().chain(more.into_iter().flatten())
        });
        let jobs = self.jobs.values().filter_map(|working| match working {
            Working::Flush { .. } => Some(Stage::Flushing),
            Working::Merge { .. } => Some(Stage::Merging),
            _ => None,
        });
        let adopting = self.adopting.iter().map(|_| Stage::Adopting);
        let dropping = self.dropping.iter().map(|_| Stage::Dropping);
        groups.chain(jobs).chain(adopting).chain(dropping)
    }
}
