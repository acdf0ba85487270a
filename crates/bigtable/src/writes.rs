//! Mutations as they are sent, checked, and what they change.

use std::collections::BTreeSet;

use model::{Bytes, Change, Timestamp, limits};

use crate::chunks::Cell;
use crate::data::mutation::Mutation as Sent;
use crate::newer::Mutation;
use crate::{Problem, data};

/// Timestamps are multiples of this many microseconds.
pub const GRANULARITY: i64 = 1_000;
/// In `SetCell`: the server's time.
const SERVER: i64 = -1;
/// `Mutation.TimestampOrigin`: the client made it, and did not think of the granularity.
const CLIENT_MADE: i32 = 2;

/// One step of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A change that needs no look at the row.
    Plain(Change<String>),
    /// Deletes the versions of a column of a time.
    Times {
        /// The column's family.
        family: String,
        /// The column within it.
        qualifier: Bytes,
        /// Not before this.
        since: Timestamp,
        /// Before this; for ever without it.
        before: Option<Timestamp>,
    },
    /// Adds to a cell of a family with an aggregate type. There are none yet.
    Aggregate {
        /// The family.
        family: String,
    },
}

/// Says what is wrong with steps on families that are there: none of them has an aggregate type.
pub fn check_types(steps: &[Step]) -> Result<(), Problem> {
    let aggregate = |step: &Step| match step {
        Step::Aggregate { family } => Some(family.clone()),
        Step::Plain(_) | Step::Times { .. } => None,
    };
    match steps.iter().find_map(aggregate) {
        Some(family) => {
            Err(Problem::invalid(format!("Error in field 'mutations' : the family {family:?} has no aggregate type")))
        }
        None => Ok(()),
    }
}

/// The server's time, as a table can keep it.
pub fn server_time(now: Timestamp) -> Timestamp {
    Timestamp(now.0 - now.0.rem_euclid(GRANULARITY))
}

/// Says what is wrong with a row's key, if anything.
pub fn check_row_key(key: &[u8]) -> Result<(), Problem> {
    match key.len() {
        0 => Err(Problem::invalid("Error in field 'row_key' : Row keys must be non-empty")),
        len if len > limits::ROW_KEY => {
            let limit = limits::ROW_KEY;
            Err(Problem::invalid(format!("Error in field 'row_key' : the key has {len} bytes; the limit is {limit}")))
        }
        _ => Ok(()),
    }
}

/// Checks mutations of a row, all before any takes effect. `now` is the server's time.
pub fn steps(mutations: &[Mutation], now: Timestamp) -> Result<Vec<Step>, Problem> {
    if mutations.is_empty() {
        return Err(Problem::invalid("No mutations provided"));
    }
    if mutations.len() > limits::CHANGES {
        let what = format!("{} mutations; the limit is {}", mutations.len(), limits::CHANGES);
        return Err(Problem::invalid(format!("Error in field 'mutations' : {what}")));
    }
    let now = server_time(now);
    mutations.iter().enumerate().map(|(at, mutation)| step(at, mutation, now)).collect()
}

fn step(at: usize, Mutation { mutation, timestamp_origin }: &Mutation, now: Timestamp) -> Result<Step, Problem> {
    let wrong =
        |what: String| Problem::invalid(format!("Error in field 'mutations' : Error in element #{at} : {what}"));
    let qualifier = |qualifier: &Bytes| match qualifier.len() {
        len if len > limits::QUALIFIER => {
            Err(wrong(format!("the column qualifier has {len} bytes; the limit is {}", limits::QUALIFIER)))
        }
        _ => Ok(qualifier.clone()),
    };
    Ok(match mutation {
        None => return Err(wrong("no kind of mutation is set".to_owned())),
        Some(Sent::SetCell(set)) => {
            if set.value.len() > limits::VALUE {
                return Err(wrong(format!("the value has {} bytes; the limit is {}", set.value.len(), limits::VALUE)));
            }
            let timestamp = match set.timestamp_micros {
                SERVER => now,
                made if *timestamp_origin == CLIENT_MADE && made >= 0 => server_time(Timestamp(made)),
                made => aligned(made).map_err(wrong)?,
            };
            let (family, value) = (set.family_name.clone(), set.value.clone());
            Step::Plain(Change::Put { family, qualifier: qualifier(&set.column_qualifier)?, timestamp, value })
        }
        Some(Sent::DeleteFromColumn(delete)) => {
            let (family, qualifier) = (delete.family_name.clone(), qualifier(&delete.column_qualifier)?);
            let data::TimestampRange { start_timestamp_micros, end_timestamp_micros } =
                delete.time_range.unwrap_or_default();
            let (since, end) = (aligned(start_timestamp_micros).map_err(wrong)?, end_timestamp_micros);
            let before = (end != 0).then(|| aligned(end).map_err(wrong)).transpose()?;
            match (since, before) {
                (Timestamp(0), None) => Step::Plain(Change::DeleteColumn { family, qualifier }),
                (since, Some(before)) if since >= before => {
                    return Err(wrong(format!("the time range ends at {before} and begins at {since}")));
                }
                (since, before) => Step::Times { family, qualifier, since, before },
            }
        }
        Some(Sent::DeleteFromFamily(delete)) => {
            Step::Plain(Change::DeleteFamily { family: delete.family_name.clone() })
        }
        Some(Sent::DeleteFromRow(_)) => Step::Plain(Change::DeleteRow),
        Some(Sent::AddToCell(data::mutation::AddToCell { family_name, .. }))
        | Some(Sent::MergeToCell(data::mutation::MergeToCell { family_name, .. })) => {
            Step::Aggregate { family: family_name.clone() }
        }
    })
}

fn aligned(micros: i64) -> Result<Timestamp, String> {
    match micros {
        micros if micros < 0 => Err(format!("the timestamp {micros} is negative")),
        micros if micros % GRANULARITY != 0 => Err(format!(
            "Timestamp granularity mismatch. Expected a multiple of {GRANULARITY} (millisecond granularity), but got {micros}."
        )),
        micros => Ok(Timestamp(micros)),
    }
}

/// The changes, if none of the steps needs a look at the row.
pub fn plain(steps: &[Step]) -> Option<Vec<Change<String>>> {
    let plain = |step: &Step| match step {
        Step::Plain(change) => Some(change.clone()),
        Step::Times { .. } | Step::Aggregate { .. } => None,
    };
    steps.iter().map(plain).collect()
}

/// The changes to a row that has these cells, all of them: each step sees what those before it left.
pub fn resolve(steps: &[Step], cells: &[Cell]) -> Vec<Change<String>> {
    let mut there: BTreeSet<(String, Bytes, i64)> =
        cells.iter().map(|cell| (cell.family.clone(), cell.qualifier.clone(), cell.timestamp)).collect();
    let mut changes = Vec::new();
    for step in steps {
        match step {
            Step::Plain(change) => {
                match change {
                    Change::Put { family, qualifier, timestamp, .. } => {
                        there.insert((family.clone(), qualifier.clone(), timestamp.0));
                    }
                    Change::DeleteCell { family, qualifier, timestamp } => {
                        there.remove(&(family.clone(), qualifier.clone(), timestamp.0));
                    }
                    Change::DeleteColumn { family, qualifier } => {
                        there.retain(|(its, column, _)| its != family || column != qualifier);
                    }
                    Change::DeleteFamily { family } => there.retain(|(its, ..)| its != family),
                    Change::DeleteRow => there.clear(),
                }
                changes.push(change.clone());
            }
            // Refused before anything is resolved.
            Step::Aggregate { .. } => {}
            Step::Times { family, qualifier, since, before } => {
                let goes = |(its, column, timestamp): &(String, Bytes, i64)| {
                    let time = since.0 <= *timestamp && before.is_none_or(|before| *timestamp < before.0);
                    its == family && column == qualifier && time
                };
                let gone: Vec<_> = there.iter().filter(|cell| goes(cell)).cloned().collect();
                for cell in gone {
                    there.remove(&cell);
                    let (family, qualifier, timestamp) = (cell.0, cell.1, Timestamp(cell.2));
                    changes.push(Change::DeleteCell { family, qualifier, timestamp });
                }
            }
        }
    }
    changes
}

/// The families that the steps name.
pub fn families(steps: &[Step]) -> impl Iterator<Item = &str> + Clone {
    steps.iter().filter_map(|step| match step {
        Step::Times { family, .. }
        | Step::Aggregate { family }
        | Step::Plain(
            Change::Put { family, .. }
            | Change::DeleteCell { family, .. }
            | Change::DeleteColumn { family, .. }
            | Change::DeleteFamily { family },
        ) => Some(family.as_str()),
        Step::Plain(Change::DeleteRow) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_123_456);

    fn set(timestamp_micros: i64, timestamp_origin: i32) -> Mutation {
        let set = data::mutation::SetCell { family_name: "f".into(), timestamp_micros, ..Default::default() };
        Mutation { mutation: Some(Sent::SetCell(set)), timestamp_origin }
    }

    fn delete(start_timestamp_micros: i64, end_timestamp_micros: i64) -> Mutation {
        let delete = data::mutation::DeleteFromColumn {
            family_name: "f".into(),
            column_qualifier: Bytes::from_static(b"q"),
            time_range: Some(data::TimestampRange { start_timestamp_micros, end_timestamp_micros }),
        };
        Mutation { mutation: Some(Sent::DeleteFromColumn(delete)), timestamp_origin: 0 }
    }

    fn timestamp(mutation: Mutation) -> Result<i64, Problem> {
        match &steps(&[mutation], NOW)?[..] {
            [Step::Plain(Change::Put { timestamp, .. })] => Ok(timestamp.0),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn timestamps_are_of_whole_milliseconds() {
        assert_eq!(timestamp(set(-1, 0)), Ok(1_700_000_000_123_000));
        assert_eq!(timestamp(set(0, 0)), Ok(0));
        assert_eq!(timestamp(set(5_000, 1)), Ok(5_000));
        assert_eq!(timestamp(set(5_999, 2)), Ok(5_000));
        for wrong in [set(5_001, 0), set(5_001, 1), set(-2, 0), set(-2_000, 2)] {
            assert!(timestamp(wrong).is_err());
        }
        assert!(timestamp(set(1, 0)).unwrap_err().message.contains("Expected a multiple of 1000"));
    }

    #[test]
    fn a_time_range_without_bounds_is_the_column() {
        let column = Step::Plain(Change::DeleteColumn { family: "f".into(), qualifier: Bytes::from_static(b"q") });
        assert_eq!(steps(&[delete(0, 0)], NOW).unwrap(), [column]);
        assert!(matches!(&steps(&[delete(1_000, 0)], NOW).unwrap()[..], [Step::Times { before: None, .. }]));
        for (start, end) in [(1_000, 1_000), (2_000, 1_000), (1, 0), (0, 1_001), (-1_000, 0)] {
            assert!(steps(&[delete(start, end)], NOW).is_err(), "{start} {end}");
        }
    }

    #[test]
    fn what_is_nothing_is_refused() {
        assert_eq!(steps(&[], NOW).unwrap_err().message, "No mutations provided");
        assert!(steps(&[Mutation::default()], NOW).unwrap_err().message.contains("element #0"));
        let many = vec![set(0, 0); limits::CHANGES + 1];
        assert!(steps(&many, NOW).unwrap_err().message.contains("100001"));
    }

    /// A range deletes what is there, and what the steps before it have put there, and nothing else.
    #[test]
    fn each_step_sees_those_before_it() {
        let cell = |qualifier: &'static [u8], timestamp| Cell {
            family: "f".into(),
            qualifier: Bytes::from_static(qualifier),
            timestamp,
            value: Bytes::new(),
            label: None,
        };
        let put = |timestamp| {
            let (family, qualifier, value) = ("f".into(), Bytes::from_static(b"q"), Bytes::new());
            Step::Plain(Change::Put { family, qualifier, timestamp: Timestamp(timestamp), value })
        };
        let times = Step::Times {
            family: "f".into(),
            qualifier: Bytes::from_static(b"q"),
            since: Timestamp(2_000),
            before: Some(Timestamp(5_000)),
        };
        let row = [cell(b"other", 3_000), cell(b"q", 5_000), cell(b"q", 3_000), cell(b"q", 1_000)];
        let changes = resolve(&[put(4_000), times, put(4_000)], &row);
        let deleted: Vec<i64> = changes
            .iter()
            .filter_map(|change| match change {
                Change::DeleteCell { timestamp, .. } => Some(timestamp.0),
                _ => None,
            })
            .collect();
        assert_eq!(deleted, [3_000, 4_000]);
        assert!(matches!(changes.last(), Some(Change::Put { .. })) && changes.len() == 4);
    }
}
