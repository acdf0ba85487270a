//! Which tables to merge next, and the merging.
//!
//! ```text
//!   runs + policy ──choose──▶ Choice ──plan──▶ tables that only move │ groups of tables to merge ──merge──▶ new tables
//! ```
//!
//! The choice is a pure function of what there is. Inputs are always without gaps: of every row, whatever is between the
//! oldest and the youngest input is an input too ([`crate::merge`] says why). Input tables that share no row with any other
//! are not rewritten: they move. So what is written in the order of its keys is written once.

mod leveled;
mod tiered;

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{Bytes, Compaction, FamilyId, LocalityId, RowRange, RunId, Schema, Timestamp};

use crate::Error;
use crate::key;
use crate::merge::{Fate, Merge, Sieve};
use crate::output::{self, Output};
use crate::sstable::{Purpose, Table};
use crate::version::Version;

/// A table that is as small as this does not stay by itself next to others that are merged: there would be too many files.
const SMALL: u64 = 4 << 20;
/// One entry of so many may be a deletion before the oldest table of a row is rewritten without them.
const ENTRIES_PER_DELETION: u64 = 4;

/// Is there better to do?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Writes are coming: only what keeps reads and room within bounds.
    Busy,
    /// Nothing is written: what is left to gain is gained.
    Idle,
}

/// A run, as the choice sees it.
#[derive(Clone, Debug)]
pub(crate) struct Sorted {
    pub id: RunId,
    /// By their rows.
    pub pieces: Vec<Piece>,
}

/// A table, as the choice sees it.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub number: u64,
    pub bytes: u64,
    pub entries: u64,
    pub deletions: u64,
    /// Its first and last row, escaped.
    pub first: Bytes,
    pub last: Bytes,
    /// Most of it belongs to another tablet.
    pub foreign: bool,
}

/// What to merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Numbers of the tables.
    pub inputs: BTreeSet<u64>,
    /// What comes of them belongs to this run (of whichever locality group the families are).
    pub into: RunId,
    /// All are written anew, even those that could move.
    pub rewrite: bool,
}

impl Sorted {
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.bytes).sum()
    }

    /// All of some runs into one.
    fn all(runs: &[Sorted], into: RunId) -> Choice {
        let inputs = runs.iter().flat_map(|run| &run.pieces).map(|piece| piece.number).collect();
        Choice { inputs, into, rewrite: false }
    }

    fn alone(&self, piece: &Piece) -> Choice {
        Choice { inputs: BTreeSet::from([piece.number]), into: self.id, rewrite: true }
    }

    /// The pieces that may have rows from `first` to `last`.
    fn overlapping(&self, first: &Bytes, last: &Bytes) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(move |piece| piece.first <= *last && piece.last >= *first)
    }
}

/// Runs of one locality group, oldest first: what to merge next, if anything.
pub(crate) fn choose(runs: &[Sorted], policy: Compaction, urgency: Urgency) -> Option<Choice> {
    let by_policy = match policy {
        Compaction::Tiered => tiered::choose(runs, urgency),
        Compaction::Leveled => leveled::choose(runs, urgency),
    };
    // A table that was shared in a split keeps others' rows on the disk: it is written anew by itself.
    let foreign = || {
        let mut pieces = runs.iter().flat_map(|run| run.pieces.iter().map(move |piece| (run, piece)));
        pieces.find(|(_, piece)| piece.foreign).map(|(run, piece)| run.alone(piece))
    };
    // Where nothing is older, deletions delete nothing.
    let deletions = || {
        let oldest = runs.first()?;
        let worth = |piece: &&Piece| piece.deletions * ENTRIES_PER_DELETION > piece.entries;
        oldest.pieces.iter().find(worth).map(|piece| oldest.alone(piece))
    };
    by_policy.or_else(foreign).or_else(deletions)
}

/// Bytes that merges still have to write before nothing is due, about.
pub(crate) fn debt(runs: &[Sorted], policy: Compaction) -> u64 {
    match policy {
        Compaction::Tiered => tiered::debt(runs),
        Compaction::Leveled => leveled::debt(runs),
    }
}

/// What the runs of each locality group look like to the choice.
pub(crate) fn sorted(version: &Version, bounds: &RowRange) -> Vec<Vec<Sorted>> {
    let piece = |table: &Arc<Table>| {
        let properties = table.properties();
        let row = |key: &Bytes| key::row_of(key).map(|row| key.slice_ref(row));
        let sound = table.damage().is_none();
        Piece {
            number: table.number(),
            bytes: table.bytes(),
            entries: properties.entries,
            deletions: properties.deletions,
            first: row(&properties.first).filter(|_| sound).unwrap_or_default(),
            last: row(&properties.last).filter(|_| sound).unwrap_or_else(|| Bytes::from_static(&[0xff; 16])),
            foreign: table.is_mostly_foreign(bounds),
        }
    };
    let runs = version.runs().iter().map(|run| Sorted { id: run.id, pieces: run.tables().iter().map(piece).collect() });
    let runs: Vec<Sorted> = runs.collect();
    runs.chunk_by(|a, b| a.id.locality == b.id.locality).map(<[Sorted]>::to_vec).collect()
}

/// How a choice is carried out.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// These only get another place.
    pub moved: Vec<Arc<Table>>,
    /// Each of these groups is merged; they are in the order of their rows, and have none in common.
    pub groups: Vec<Group>,
}

/// Tables that are merged, and have no row in common with any other input.
#[derive(Clone, Debug)]
pub struct Group {
    /// The tables.
    pub tables: Vec<Arc<Table>>,
    /// Nothing of the tablet is older where they have rows.
    pub oldest: bool,
}

/// What is to be done with these tables of the version.
pub(crate) fn plan(version: &Version, choice: &Choice) -> Plan {
    let mut inputs: Vec<(RunId, &Arc<Table>)> =
        version.placed().filter(|(_, table)| choice.inputs.contains(&table.number())).collect();
    inputs.sort_by(|(_, a), (_, b)| a.properties().first.cmp(&b.properties().first));
    // Stretches of tables that overlap, in the order of their rows.
    let mut stretches: Vec<Vec<(RunId, &Arc<Table>)>> = Vec::new();
    let mut end: Option<&[u8]> = None;
    for (run, table) in inputs {
        let first = key::row_of(&table.properties().first);
        let apart = table.damage().is_none() && end.is_none_or(|end| first > Some(end));
        match stretches.last_mut().filter(|_| !apart) {
            Some(stretch) => stretch.push((run, table)),
            None => stretches.push(vec![(run, table)]),
        }
        end = end.max(key::row_of(&table.properties().last));
    }
    // Large ones that overlap no other stay as they are, and what lies between them is merged.
    let mut sets: Vec<Vec<(RunId, &Arc<Table>)>> = vec![Vec::new()];
    for stretch in stretches {
        let large = matches!(&stretch[..], [(_, table)] if table.bytes() >= SMALL);
        match sets.last_mut().filter(|_| !large) {
            Some(set) => set.extend(stretch),
            None => sets.extend([stretch, Vec::new()]),
        }
    }
    let mut plan = Plan::default();
    for mut set in sets {
        match &set[..] {
            [] => {}
            [(_, table)] if !choice.rewrite && table.damage().is_none() => plan.moved.push(Arc::clone(table)),
            _ => {
                set.sort_by_key(|(run, _)| *run);
                let oldest = is_oldest(version, choice, &set);
                plan.groups
                    .push(Group { tables: set.into_iter().map(|(_, table)| Arc::clone(table)).collect(), oldest });
            }
        }
    }
    plan
}

/// Is nothing of the tablet, where these tables have rows, older than they are?
fn is_oldest(version: &Version, choice: &Choice, tables: &[(RunId, &Arc<Table>)]) -> bool {
    let Some(youngest) = tables.iter().map(|(run, _)| *run).max() else { return false };
    let rows = |table: &Arc<Table>| {
        let row = |key| key::row_of(key).unwrap_or_default().to_vec();
        (row(&table.properties().first), row(&table.properties().last))
    };
    let first = tables.iter().map(|(_, table)| rows(table).0).min().unwrap_or_default();
    let last = tables.iter().map(|(_, table)| rows(table).1).max().unwrap_or_default();
    let meets = |table: &Arc<Table>| {
        let (its_first, its_last) = rows(table);
        table.damage().is_some() || (its_first <= last && its_last >= first)
    };
    let mut others = version.placed().filter(|(_, table)| !choice.inputs.contains(&table.number()));
    !others.any(|(run, table)| run.locality == youngest.locality && run < youngest && meets(table))
}

/// The locality groups that are concerned by families which lie in tables of one and belong to another by now. All tables of
/// these groups are merged at once, since what is older of a row lies in several of them.
pub(crate) fn misplaced(version: &Version, schema: &Schema) -> BTreeSet<LocalityId> {
    let mut concerned = BTreeSet::new();
    for (run, table) in version.placed() {
        let belong = |families: &Vec<FamilyId>| families.iter().map(|&family| schema.locality_of(family)).collect();
        // Which families a table of version 1 has, it does not say.
        let all = || output::localities(schema);
        let belong: BTreeSet<LocalityId> = table.properties().families.as_ref().map_or_else(all, belong);
        if belong.iter().any(|&locality| locality != run.locality) {
            concerned.extend(belong);
            concerned.insert(run.locality);
        }
    }
    concerned
}

/// Merges tables into `output`, but only rows within `bounds`. Retention judges as of `now`.
pub(crate) fn merge(
    group: &Group,
    schema: &Schema,
    now: Timestamp,
    bounds: &RowRange,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let mut merge = Merge::default();
    let start = key::row_start(&bounds.start);
    let end = bounds.end.as_ref().map(|end| key::row_start(end));
    for table in &group.tables {
        merge.add_table(table.clone(), &start, Purpose::Background)?;
    }
    let oldest = group.oldest;
    let mut sieve = Sieve::new(schema, now);
    while let (Some(key), Some(parts)) = (merge.key(), merge.parts()?) {
        if end.as_ref().is_some_and(|end| key >= &end[..]) {
            break;
        }
        match sieve.judge(&parts) {
            Fate::Lives => output.add(&parts, key, &merge.value())?,
            Fate::Deletes if !oldest => output.add(&parts, key, &[])?,
            Fate::GivenUp if !oldest => {
                let mut key = key.to_vec();
                key::into_deletion(&mut key);
                output.add(&parts, &key, &[])?;
            }
            Fate::Deletes | Fate::GivenUp | Fate::Gone => {}
        }
        merge.advance()?;
    }
    output.cut()
}

#[cfg(test)]
mod tests;
