//! Checkpoints: tablets as they were, kept beside the nodes' own files under a name.
//!
//! ```text
//!   Add ──▶ the primary of each tablet ──▶ Copied          of this tablet: all that was committed up to `upto`
//!   Seal(Checkpoint) ──▶ every node that has a part         only now it counts
//! ```
//!
//! Each tablet is of one moment, the tablets of a checkpoint are not: what was acknowledged before the first [`CheckpointOrder::Add`]
//! is in it, what was written since may or may not be.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::{Bytes, Epoch, Lsn, NodeId, Schema, Slice, TabletId, Timestamp};

/// Tells attempts to make a checkpoint of the same name apart; drawn by chance. Printed in hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckpointId(pub u64);

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A tablet in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TabletCopy {
    /// Which.
    pub tablet: TabletId,
    /// The rows that it has.
    pub slice: Slice,
    /// In which configuration it was copied.
    pub epoch: Epoch,
    /// Everything that was committed up to this is in it, and nothing after.
    pub upto: Lsn,
    /// Whose folder it is in.
    pub node: NodeId,
    /// The date there, when it was copied.
    pub date: Timestamp,
    /// Of its tables. Those of other tablets of the node may be the same files.
    pub bytes: u64,
}

/// A table in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableCopy {
    /// The table as it was.
    pub schema: Schema,
    /// Its tablets, by slice. Together they have every row key once.
    pub tablets: Vec<TabletCopy>,
}

/// A checkpoint that is complete: what is written to every node that has a part of it, when all of them have theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What it is called.
    pub name: String,
    /// Which of that name.
    pub id: CheckpointId,
    /// The date at which it was begun, where the order came from.
    pub begun: Timestamp,
    /// By name.
    pub tables: Vec<TableCopy>,
}

impl Checkpoint {
    /// All tablets in it.
    pub fn tablets(&self) -> impl Iterator<Item = &TabletCopy> {
        self.tables.iter().flat_map(|table| &table.tablets)
    }

    /// Bytes of the tables of all of them.
    pub fn bytes(&self) -> u64 {
        self.tablets().map(|copy| copy.bytes).sum()
    }
}

/// One tablet's part of a checkpoint, with what must be known to read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The checkpoint's name.
    pub name: String,
    /// Which of that name.
    pub id: CheckpointId,
    /// By which its cells are named, and retention is judged.
    pub schema: Schema,
    /// What of it is there.
    pub copy: TabletCopy,
}

/// What a node has of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The checkpoint's name.
    pub name: String,
    /// Which of that name; `None` if that cannot be read.
    pub id: Option<CheckpointId>,
    /// These tablets.
    pub tablets: Vec<TabletId>,
    /// Bytes of the files, each counted once.
    pub bytes: u64,
    /// The whole checkpoint, if it is complete.
    pub sealed: Option<Checkpoint>,
    /// What is wrong with it here.
    pub damage: Option<String>,
}

/// What a node is to do about checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckpointOrder {
    /// Add a tablet of which it is the primary; answered by [`CheckpointAnswer::Added`].
    Add {
        /// To the checkpoint of this name,
        name: String,
        /// which must be this one, if there is one.
        id: CheckpointId,
        /// Which tablet.
        tablet: TabletId,
    },
    /// The checkpoint is complete; answered by [`CheckpointAnswer::Done`].
    Seal(Checkpoint),
    /// What is there; answered by [`CheckpointAnswer::Held`].
    List {
        /// Only of this name.
        name: Option<String>,
    },
    /// Remove a checkpoint; answered by [`CheckpointAnswer::Removed`].
    Remove {
        /// Of this name,
        name: String,
        /// and only if it is this one.
        id: Option<CheckpointId>,
    },
}

/// The answer to a [`CheckpointOrder`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckpointAnswer {
    /// The tablet is in the checkpoint.
    Added(Box<Part>),
    /// It is done.
    Done,
    /// What there is, by name.
    Held(Vec<Held>),
    /// Whether there was anything to remove.
    Removed(bool),
}

/// Why these slices, which belong to one table, do not have every row key exactly once; `None` if they do.
pub fn gap<'a>(slices: impl Iterator<Item = &'a Slice>) -> Option<String> {
    let (mut buckets, mut ranges) = (BTreeMap::<u32, u32>::new(), Vec::new());
    let mut hashed = None;
    for slice in slices {
        match slice {
            Slice::Hash { bucket, of } => {
                hashed = hashed.or(Some(*of));
                if hashed != Some(*of) {
                    return Some(alloc::format!("there is a tablet of {slice} beside others"));
                }
                *buckets.entry(*bucket).or_default() += 1;
            }
            Slice::Rows { start, end } => ranges.push((start, end.as_ref())),
        }
    }
    if let Some(of) = hashed {
        if !ranges.is_empty() {
            return Some(String::from("there are tablets by hash beside tablets by range"));
        }
        let wrong = (0..of).map(|bucket| (bucket, buckets.get(&bucket).copied().unwrap_or(0)));
        return wrong.into_iter().find(|(_, count)| *count != 1).map(|(bucket, count)| match count {
            0 => alloc::format!("the tablet of {} is missing", Slice::Hash { bucket, of }),
            _ => alloc::format!("there are {count} tablets of {}", Slice::Hash { bucket, of }),
        });
    }
    ranges.sort();
    let (empty, mut reached) = (Bytes::new(), Some(Bytes::new()));
    for (start, end) in ranges {
        match &reached {
            Some(here) if here == start => reached = end.cloned(),
            Some(here) if here < start => {
                let missing = Slice::Rows { start: here.clone(), end: Some(start.clone()) };
                return Some(alloc::format!("the rows {missing} are missing"));
            }
            _ => {
                let twice = Slice::Rows { start: start.clone(), end: end.cloned() };
                return Some(alloc::format!("the rows {twice} are there twice, at least in part"));
            }
        }
    }
    let here = reached?;
    let missing = Slice::Rows { start: if here.is_empty() { empty } else { here }, end: None };
    Some(alloc::format!("the rows {missing} are missing"))
}

/// Does `outer` have all rows of `inner`?
pub fn holds(outer: &Slice, inner: &Slice) -> bool {
    match (outer, inner) {
        (Slice::Rows { start, end }, Slice::Rows { start: from, end: to }) => {
            start <= from && (end.is_none() || to.as_ref().is_some_and(|to| end.as_ref().is_some_and(|end| to <= end)))
        }
        _ => outer == inner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn rows(start: &'static str, end: Option<&'static str>) -> Slice {
        Slice::Rows {
            start: Bytes::from_static(start.as_bytes()),
            end: end.map(|end| Bytes::from_static(end.as_bytes())),
        }
    }

    fn hash(bucket: u32) -> Slice {
        Slice::Hash { bucket, of: 3 }
    }

    #[test]
    fn slices_that_tile_have_no_gap() {
        for good in [
            vec![rows("", None)],
            vec![rows("m", None), rows("", Some("g")), rows("g", Some("m"))],
            vec![hash(2), hash(0), hash(1)],
        ] {
            assert_eq!(gap(good.iter()), None, "{good:?}");
        }
        for (bad, part) in [
            (vec![], "[, end)"),
            (vec![rows("", Some("g"))], "[g, end)"),
            (vec![rows("g", None)], "[, g)"),
            (vec![rows("", Some("g")), rows("h", None)], "[g, h)"),
            (vec![rows("", Some("h")), rows("g", None)], "twice"),
            (vec![rows("", None), rows("g", None)], "twice"),
            (vec![hash(0), hash(2)], "hash 1 of 3 is missing"),
            (vec![hash(0), hash(1), hash(1), hash(2)], "2 tablets"),
            (vec![hash(0), Slice::Hash { bucket: 0, of: 2 }], "beside"),
            (vec![hash(0), rows("", None)], "beside"),
        ] {
            assert!(gap(bad.iter()).is_some_and(|why| why.contains(part)), "{bad:?}: {:?}", gap(bad.iter()));
        }
    }

    #[test]
    fn a_slice_holds_its_halves() {
        let whole = rows("", None);
        assert!(
            holds(&whole, &rows("g", None))
                && holds(&whole, &whole)
                && holds(&rows("a", Some("m")), &rows("b", Some("m")))
        );
        assert!(!holds(&rows("", Some("g")), &whole) && !holds(&rows("b", Some("m")), &rows("a", Some("m"))));
        assert!(holds(&hash(1), &hash(1)) && !holds(&hash(1), &hash(0)));
    }
}
