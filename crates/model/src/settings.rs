//! What a table promises beside keeping its rows: how fine its versions are, what it keeps of its own changes, and from
//! what it is guarded.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use serde::{Deserialize, Serialize};

use crate::{Family, Timestamp};

/// The family in which a table's changes are kept. No one else's can have this name: `$` is not allowed in any.
pub const CHANGES: &str = "$changes";

/// A table's settings beside [`crate::Storage`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How fine its versions are.
    pub granularity: Granularity,
    /// It can be neither dropped nor lose a family until this is taken back.
    pub protected: bool,
    /// Where its changes are kept for those who read them in their order, if they are: [`CHANGES`], in a locality group of
    /// that name. Its retention is an age.
    pub changes: Option<Family>,
    /// It was dropped, and can be brought back until then.
    pub dropped: Option<Timestamp>,
}

/// How fine the versions of a table's cells are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Granularity {
    /// Microseconds, as everything that keeps them.
    #[default]
    Micros,
    /// Whole milliseconds: the Bigtable API refuses others, and rounds those of the server.
    Millis,
}

/// How the cells of a family add up, each of them the state of an aggregate (`bigtable-api.md` 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aggregate {
    /// The sum of 64-bit integers, which wraps around.
    Sum,
    /// The least of them.
    Min,
    /// The greatest.
    Max,
}

/// What shall be different about a table's settings. Empty changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsChange {
    /// How fine versions are from now on.
    pub granularity: Option<Granularity>,
    /// Shall it be guarded?
    pub protected: Option<bool>,
    /// How long changes are kept; of no time, they are not any more, and those that were kept go.
    pub changes: Option<Duration>,
    /// What new families add up, by name. Of a family that is there it cannot be changed.
    pub aggregates: Vec<(String, Aggregate)>,
}

impl SettingsChange {
    /// Does it change nothing?
    pub fn is_empty(&self) -> bool {
        *self == SettingsChange::default()
    }
}

impl Granularity {
    /// All, by the names that people give them.
    pub const NAMES: [(&str, Granularity); 2] = [("micros", Granularity::Micros), ("millis", Granularity::Millis)];
}

impl Aggregate {
    /// All, by the names that people give them.
    pub const NAMES: [(&str, Aggregate); 3] =
        [("sum", Aggregate::Sum), ("min", Aggregate::Min), ("max", Aggregate::Max)];

    /// Adds a value to what there is.
    pub fn add(self, state: i64, value: i64) -> i64 {
        match self {
            Aggregate::Sum => state.wrapping_add(value),
            Aggregate::Min => state.min(value),
            Aggregate::Max => state.max(value),
        }
    }
}

impl Settings {
    /// How long changes are kept, if they are.
    pub fn changes_kept(&self) -> Option<Duration> {
        match self.changes.as_ref()?.retention {
            crate::Retention::Age(age) => Some(age),
            _ => None,
        }
    }
}
