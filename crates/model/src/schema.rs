//! What a table is: its families, how it is cut into tablets, how many replicas keep it.

use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use serde::{Deserialize, Serialize};

use crate::{Aggregate, ColumnFilter, FamilyId, LocalityGroup, LocalityId, Settings, Storage, TableId, Timestamp};

/// A table's schema. The master owns it; nodes keep the copy that came with their tablets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The table.
    pub table: TableId,
    /// Its name: `[a-zA-Z0-9][-_.a-zA-Z0-9]*`, at most 180 characters.
    pub name: String,
    /// Rises by one with every change.
    pub version: u32,
    /// In the order in which they were created.
    pub families: Vec<Family>,
    /// The id that the next family gets.
    pub next_family: FamilyId,
    /// How rows find their tablet.
    pub partition: Partition,
    /// How many replicas each tablet should have.
    pub replicas: u8,
    /// Below this many replicas writes are refused.
    pub min_replicas: u8,
    /// How its rows lie on disks.
    pub storage: Storage,
    /// What else it promises.
    pub settings: Settings,
}

/// A column family: the unit of retention, and of much else later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// Its number within the table.
    pub id: FamilyId,
    /// `[-_.a-zA-Z0-9]+`, at most 64 characters.
    pub name: String,
    /// Which versions may go.
    pub retention: Retention,
    /// Once other versions might go. What a merge has given up then is gone at one replica, and comes to light again at
    /// another that has not merged yet: they may differ.
    pub loosened: bool,
    /// With which families it lies in the same files.
    pub locality: LocalityId,
    /// What its cells add up, if they do; for ever.
    pub aggregate: Option<Aggregate>,
}

/// How a table's rows are spread over tablets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Partition {
    /// By the hash of the row key, modulo `tablets`.
    Hash {
        /// How many tablets, for ever.
        tablets: u32,
    },
    /// By ranges of the row key; `splits` are the first keys of all tablets but the first, ascending.
    Range {
        /// Where one tablet ends and the next begins.
        splits: Vec<Bytes>,
    },
}

/// Which versions of a column may be collected. Reads apply it at once, compaction later (Bigtable, 2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Retention {
    /// None.
    #[default]
    Keep,
    /// All but the newest `n`.
    Versions(u32),
    /// Those older than this.
    Age(Duration),
    /// Those that any of these gives up.
    Any(Vec<Retention>),
    /// Those that all of these give up.
    All(Vec<Retention>),
}

impl Retention {
    /// May the version go that is the `rank`-th newest of its column (from 0) and was made at `timestamp`?
    pub fn gives_up(&self, rank: u32, timestamp: Timestamp, now: Timestamp) -> bool {
        match self {
            Retention::Keep => false,
            Retention::Versions(most) => rank >= *most,
            Retention::Age(age) => timestamp < now.minus(*age),
            Retention::Any(rules) => rules.iter().any(|rule| rule.gives_up(rank, timestamp, now)),
            Retention::All(rules) => !rules.is_empty() && rules.iter().all(|rule| rule.gives_up(rank, timestamp, now)),
        }
    }
}

impl Retention {
    /// Does it count versions? Then one that it gave up comes to light again when a newer one is deleted, unless a merge
    /// has dropped it by then.
    pub fn counts(&self) -> bool {
        match self {
            Retention::Keep | Retention::Age(_) => false,
            Retention::Versions(_) => true,
            Retention::Any(rules) | Retention::All(rules) => rules.iter().any(Retention::counts),
        }
    }
}

impl Schema {
    /// The family of that name.
    pub fn family(&self, name: &str) -> Option<&Family> {
        self.families.iter().find(|family| family.name == name)
    }

    /// The family of that id, also that of the changes; `None` when it was dropped.
    pub fn family_by_id(&self, id: FamilyId) -> Option<&Family> {
        self.all_families().find(|family| family.id == id)
    }

    /// The families, and with them that of the changes, which only the engine and their readers know.
    pub fn all_families(&self) -> impl Iterator<Item = &Family> {
        self.families.iter().chain(&self.settings.changes)
    }

    /// What a reader gets that names no columns: none, which is all, unless there are cells that are not for everybody.
    pub fn visible_columns(&self) -> Vec<ColumnFilter> {
        let Some(changes) = &self.settings.changes else { return Vec::new() };
        let all = |family: &Family| ColumnFilter { family: family.id, qualifier: None };
        match self.families.is_empty() {
            false => self.families.iter().map(all).collect(),
            // None at all; no change has this place.
            true => alloc::vec![ColumnFilter { family: changes.id, qualifier: Some(Bytes::new()) }],
        }
    }

    /// The locality group in which the family lies; the default one if neither the family nor its group is known.
    pub fn locality_of(&self, family: FamilyId) -> LocalityId {
        let wanted = self.family_by_id(family).map(|family| family.locality);
        wanted.filter(|&id| self.storage.locality_by_id(id).is_some()).unwrap_or_default()
    }

    /// The locality group of that id; a default one if it is not known.
    pub fn locality(&self, id: LocalityId) -> LocalityGroup {
        self.storage.locality_by_id(id).cloned().unwrap_or_else(|| LocalityGroup { id, ..LocalityGroup::default() })
    }

    /// Names of the families, for messages to people.
    pub fn family_names(&self) -> String {
        let names: Vec<&str> = self.families.iter().map(|family| family.name.as_str()).collect();
        names.join(", ")
    }
}

impl Partition {
    /// The slices of a table that is cut this way, in order. Together they hold every key once.
    pub fn slices(&self) -> Vec<crate::Slice> {
        match self {
            Partition::Hash { tablets } => {
                (0..*tablets).map(|bucket| crate::Slice::Hash { bucket, of: *tablets }).collect()
            }
            Partition::Range { splits } => {
                let starts = core::iter::once(Bytes::new()).chain(splits.iter().cloned());
                let ends = splits.iter().cloned().map(Some).chain(core::iter::once(None));
                starts.zip(ends).map(|(start, end)| crate::Slice::Rows { start, end }).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// Bigtable 2: "only the last n versions" and "only new-enough versions" combine.
    #[test]
    fn union_gives_up_what_any_rule_gives_up() {
        let day = Duration::from_secs(86_400);
        let now = Timestamp(day.as_micros() as i64 * 10);
        let rules = vec![Retention::Versions(2), Retention::Age(day)];
        let old = now.minus(day * 2);
        assert!(Retention::Any(rules.clone()).gives_up(0, old, now));
        assert!(Retention::Any(rules.clone()).gives_up(2, now, now));
        assert!(!Retention::Any(rules.clone()).gives_up(1, now, now));
        assert!(Retention::All(rules.clone()).gives_up(2, old, now));
        assert!(!Retention::All(rules).gives_up(0, old, now));
        assert!(!Retention::All(vec![]).gives_up(9, old, now));
    }
}
