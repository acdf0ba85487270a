//! What a table keeps of its own changes: one cell of the family [`crate::settings::CHANGES`] for each row that a write changes.
//!
//! ```text
//!   qualifier   version i64 big-endian ‖ number u32 big-endian     so that a row's changes lie in their order
//!   timestamp   the version, by which retention judges
//!   value       1, then postcard: the changes, with the versions that their cells got
//! ```
//!
//! The primary writes it into the same entry of the log as the changes themselves: whoever has the one has the other, and a
//! repeated request leaves no second one. A deleted row is written as the deletion of its families, since a deletion of all
//! would take the record of it along.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::follow::StreamId;
use crate::{Change, FamilyId, RowRange, Schema, Timestamp};

/// Of the form of a value.
const VERSION: u8 = 1;

/// Where a change stands among those of its row. Changes of different rows, and of different tablets, may have the same place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The version that the primary chose for the write.
    pub version: Timestamp,
    /// Which of the write's rows it is: a write may change a row twice.
    pub number: u32,
}

impl Place {
    /// As the qualifier of its cell.
    pub fn qualifier(self) -> Bytes {
        let mut form = Vec::with_capacity(12);
        form.extend_from_slice(&self.version.0.to_be_bytes());
        form.extend_from_slice(&self.number.to_be_bytes());
        Bytes::from(form)
    }

    /// The place right after it.
    pub fn next(self) -> Place {
        match self.number.checked_add(1) {
            Some(number) => Place { number, ..self },
            None => Place { version: self.version.next(), number: 0 },
        }
    }

    /// From the qualifier of its cell.
    pub fn from_qualifier(qualifier: &[u8]) -> Option<Place> {
        let (version, rest) = qualifier.split_first_chunk()?;
        let number = rest.try_into().ok()?;
        Some(Place { version: Timestamp(i64::from_be_bytes(*version)), number: u32::from_be_bytes(number) })
    }
}

/// What a write has done to a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowChange<F = FamilyId> {
    /// Which row.
    pub row: Bytes,
    /// Where it stands among the row's changes.
    pub at: Place,
    /// What happened to the row, in this order.
    pub changes: Vec<Change<F>>,
}

impl<F> RowChange<F> {
    /// Bytes of the key and of the changes, for limits on answers.
    pub fn weight(&self) -> usize {
        self.row.len() + 16 + self.changes.iter().map(Change::weight).sum::<usize>()
    }
}

impl RowChange {
    /// With families by name. What was done to families that are gone is left out, and `None` is left of nothing.
    pub fn name(self, schema: &Schema) -> Option<RowChange<String>> {
        let named = |change: Change| {
            let name = |id| schema.families.iter().find(|family| family.id == id).map(|family| family.name.clone());
            change.try_rename(|id| name(id).ok_or(())).ok()
        };
        let changes: Vec<Change<String>> = self.changes.into_iter().filter_map(named).collect();
        (!changes.is_empty()).then_some(RowChange { row: self.row, at: self.at, changes })
    }
}

/// Which changes of a tablet are asked for. Those of `since` and before are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesQuery {
    /// Only if these are the ones that the tablet keeps.
    pub stream: Option<StreamId>,
    /// Of these rows.
    pub range: RowRange,
    /// Of the first row of the range those after this place only.
    pub after: Option<Place>,
    /// Made after this version; `None` is all that are kept.
    pub since: Option<Timestamp>,
    /// Made up to this version, to go on with a page; `None` is all that there are.
    pub upto: Option<Timestamp>,
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// With this row,
    pub row: Bytes,
    /// in it after this place.
    pub after: Option<Place>,
}

/// A page of changes: by row, and those of a row in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangesPage<F = FamilyId> {
    /// What happened.
    pub changes: Vec<RowChange<F>>,
    /// With the last page all changes up to this version were given: every later one has a greater version, whoever is primary
    /// then and whatever becomes of the tablet.
    pub upto: Timestamp,
    /// Where the next page begins; `None` after the last.
    pub resume: Option<Resume>,
}

/// Deletions of the row become those of its families. Only of tables that keep their changes.
pub fn without_row_deletions(schema: &Schema, changes: Vec<Change>) -> Vec<Change> {
    if !changes.contains(&Change::DeleteRow) {
        return changes;
    }
    let families = || schema.families.iter().map(|family| Change::DeleteFamily { family: family.id });
    let mut all = Vec::with_capacity(changes.len() + schema.families.len());
    for change in changes {
        match change {
            Change::DeleteRow => all.extend(families()),
            change => all.push(change),
        }
    }
    all
}

/// How many changes [`without_row_deletions`] makes of these.
pub fn count_without_row_deletions<F: PartialEq>(schema: &Schema, changes: &[Change<F>]) -> usize {
    let deletions = changes.iter().filter(|change| **change == Change::DeleteRow).count();
    changes.len() + deletions.saturating_mul(schema.families.len())
}

/// The cell, in this family, that keeps these changes of a row. The write has this version.
pub fn record(family: FamilyId, at: Place, changes: &[Change]) -> Change {
    let chosen: Vec<Change> = changes.iter().map(|change| chosen(change, at.version)).collect();
    let form = postcard::to_extend(&chosen, alloc::vec![VERSION]).expect("plain values have a form in bytes");
    Change::Put { family, qualifier: at.qualifier(), timestamp: at.version, value: Bytes::from(form) }
}

/// With the version that it got.
fn chosen(change: &Change, version: Timestamp) -> Change {
    let mut change = change.clone();
    if let Change::Put { timestamp, .. } = &mut change
        && *timestamp == Timestamp::SERVER
    {
        *timestamp = version;
    }
    change
}

/// Reads a cell that [`record`] made, or says what is wrong with it.
pub fn read(row: Bytes, qualifier: &[u8], value: &[u8]) -> Result<RowChange, String> {
    let at = Place::from_qualifier(qualifier).ok_or_else(|| String::from("a kept change has no place in its row"))?;
    match value.split_first() {
        Some((&VERSION, form)) => match postcard::from_bytes(form) {
            Ok(changes) => Ok(RowChange { row, at, changes }),
            Err(error) => Err(format!("a kept change does not decode: {error}")),
        },
        Some((version, _)) => {
            Err(format!("version {version} of a kept change is not known; this is version {VERSION}"))
        }
        None => Err(String::from("a kept change is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const AT: Place = Place { version: Timestamp(7), number: 2 };

    fn put(timestamp: Timestamp) -> Change {
        let (qualifier, value) = (Bytes::from_static(b"q"), Bytes::from_static(b"v"));
        Change::Put { family: FamilyId(3), qualifier, timestamp, value }
    }

    /// docs/formats.md: what a former release kept is read for as long as it is kept.
    #[test]
    fn a_change_is_kept_in_these_bytes() {
        let changes = vec![put(Timestamp::SERVER), Change::DeleteFamily { family: FamilyId(4) }];
        let Change::Put { family, qualifier, timestamp, value } = record(FamilyId(9), AT, &changes) else { panic!() };
        assert_eq!((family, timestamp), (FamilyId(9), Timestamp(7)));
        assert_eq!(qualifier[..], [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 2]);
        assert_eq!(value[..], [1, 2, 0, 3, 1, b'q', 14, 1, b'v', 3, 4]);
        let read = read(Bytes::from_static(b"r"), &qualifier, &value).unwrap();
        assert_eq!(read.at, AT);
        assert_eq!(read.changes, [put(Timestamp(7)), changes[1].clone()]);
    }

    #[test]
    fn what_is_not_a_kept_change_is_said_so() {
        let row = || Bytes::from_static(b"r");
        for (qualifier, value) in [(&b"q"[..], &[1, 0][..]), (&[0; 12], &[]), (&[0; 12], &[2, 0]), (&[0; 12], &[1, 9])]
        {
            assert!(read(row(), qualifier, value).is_err(), "{qualifier:?} {value:?}");
        }
        assert!(read(row(), &[0; 12], &[1, 0]).is_ok());
    }

    /// A row's changes are read in their order because their qualifiers are.
    #[test]
    fn places_and_their_qualifiers_have_one_order() {
        let place = |version, number| Place { version: Timestamp(version), number };
        let places = [place(0, 0), place(1, 0), place(1, 1), place(1, 256), place(256, 0), place(i64::MAX, u32::MAX)];
        assert!(places.is_sorted() && places.map(Place::qualifier).is_sorted());
        assert_eq!(places.map(|place| Place::from_qualifier(&place.qualifier())), places.map(Some));
    }
}
