//! Mutations as they are sent, checked, and what they change.

use std::collections::BTreeMap;

use model::{Bytes, Change, ColumnFilter, Granularity, Schema, Timestamp, limits};

use crate::chunks::Cell;
use crate::data::mutation::Mutation as Sent;
use crate::data::value::Kind as Value;
use crate::newer::Mutation;
use crate::{Problem, data, types};

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
    /// Adds to a cell of a family with an aggregate type.
    Aggregate {
        /// The column's family.
        family: String,
        /// The column within it.
        qualifier: Bytes,
        /// The cell within it.
        timestamp: Timestamp,
        /// What is added; nothing changes without it.
        value: Option<i64>,
    },
}

/// Says what is wrong with steps on families that are there: whoever adds needs an aggregate type, and whoever sets must not
/// have one.
pub fn check_types(steps: &[Step], schema: &Schema) -> Result<(), Problem> {
    let aggregates = |family: &str| schema.family(family).is_some_and(|family| family.aggregate.is_some());
    for step in steps {
        match step {
            Step::Aggregate { family, .. } if !aggregates(family) => {
                let what = format!("the family {family:?} has no aggregate type; a cell of it is set");
                return Err(Problem::invalid(format!("Error in field 'mutations' : {what}")));
            }
            Step::Plain(Change::Put { family, .. }) if aggregates(family) => {
                let what = format!("the family {family:?} has an aggregate type; a cell of it is added to, not set");
                return Err(Problem::invalid(format!("Error in field 'mutations' : {what}")));
            }
            Step::Aggregate { .. } | Step::Plain(_) | Step::Times { .. } => {}
        }
    }
    Ok(())
}

/// Timestamps of such a table are multiples of this many microseconds.
pub fn unit(granularity: Granularity) -> i64 {
    match granularity {
        Granularity::Millis => 1_000,
        Granularity::Micros => 1,
    }
}

/// A time, as a table can keep it.
pub fn cut(time: Timestamp, granularity: Granularity) -> Timestamp {
    Timestamp(time.0 - time.0.rem_euclid(unit(granularity)))
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

/// Checks mutations of a row of such a table, all before any takes effect. `now` is the server's time.
pub fn steps(mutations: &[Mutation], granularity: Granularity, now: Timestamp) -> Result<Vec<Step>, Problem> {
    if mutations.is_empty() {
        return Err(Problem::invalid("No mutations provided"));
    }
    if mutations.len() > limits::CHANGES {
        let what = format!("{} mutations; the limit is {}", mutations.len(), limits::CHANGES);
        return Err(Problem::invalid(format!("Error in field 'mutations' : {what}")));
    }
    let now = cut(now, granularity);
    mutations.iter().enumerate().map(|(at, mutation)| step(at, mutation, granularity, now)).collect()
}

fn step(
    at: usize,
    Mutation { mutation, timestamp_origin }: &Mutation,
    granularity: Granularity,
    now: Timestamp,
) -> Result<Step, Problem> {
    let wrong =
        |what: String| Problem::invalid(format!("Error in field 'mutations' : Error in element #{at} : {what}"));
    let qualifier = |qualifier: &Bytes| match qualifier.len() {
        len if len > limits::QUALIFIER => {
            Err(wrong(format!("the column qualifier has {len} bytes; the limit is {}", limits::QUALIFIER)))
        }
        _ => Ok(qualifier.clone()),
    };
    let aligned = |micros: i64| aligned(micros, granularity);
    Ok(match mutation {
        None => return Err(wrong("no kind of mutation is set".to_owned())),
        Some(Sent::SetCell(set)) => {
            if set.value.len() > limits::VALUE {
                return Err(wrong(format!("the value has {} bytes; the limit is {}", set.value.len(), limits::VALUE)));
            }
            let timestamp = match set.timestamp_micros {
                SERVER => now,
                made if *timestamp_origin == CLIENT_MADE && made >= 0 => cut(Timestamp(made), granularity),
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
        Some(Sent::AddToCell(add)) => {
            let value = match kind(&add.input) {
                Some(Value::IntValue(value)) => Some(*value),
                _ => return Err(wrong("the input of add_to_cell is no int_value".to_owned())),
            };
            let (column, timestamp) = place(&add.column_qualifier, &add.timestamp).map_err(wrong)?;
            let (family, qualifier) = (add.family_name.clone(), qualifier(column)?);
            Step::Aggregate { family, qualifier, timestamp: aligned(timestamp).map_err(wrong)?, value }
        }
        Some(Sent::MergeToCell(merge)) => {
            let value = match kind(&merge.input) {
                Some(Value::RawValue(state)) => {
                    Some(types::state(&merge.family_name, state).map_err(|problem| wrong(problem.message))?)
                }
                None => None,
                Some(_) => return Err(wrong("the input of merge_to_cell is no raw_value".to_owned())),
            };
            let (column, timestamp) = place(&merge.column_qualifier, &merge.timestamp).map_err(wrong)?;
            let (family, qualifier) = (merge.family_name.clone(), qualifier(column)?);
            Step::Aggregate { family, qualifier, timestamp: aligned(timestamp).map_err(wrong)?, value }
        }
    })
}

fn kind(value: &Option<data::Value>) -> Option<&Value> {
    value.as_ref().and_then(|value| value.kind.as_ref())
}

/// The column and the timestamp to which is added.
fn place<'a>(qualifier: &'a Option<data::Value>, timestamp: &Option<data::Value>) -> Result<(&'a Bytes, i64), String> {
    match (kind(qualifier), kind(timestamp)) {
        (Some(Value::RawValue(qualifier)), Some(Value::RawTimestampMicros(timestamp))) => Ok((qualifier, *timestamp)),
        (Some(Value::RawValue(_)), _) => Err("the timestamp is no raw_timestamp_micros".to_owned()),
        _ => Err("the column qualifier is no raw_value".to_owned()),
    }
}

fn aligned(micros: i64, granularity: Granularity) -> Result<Timestamp, String> {
    let unit = unit(granularity);
    match micros {
        micros if micros < 0 => Err(format!("the timestamp {micros} is negative")),
        micros if micros % unit != 0 => Err(format!(
            "Timestamp granularity mismatch. Expected a multiple of {unit} (millisecond granularity), but got {micros}."
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

/// The columns at which the steps look, in all their versions.
pub fn columns(steps: &[Step]) -> Vec<ColumnFilter<String>> {
    let mut columns: Vec<(&String, &Bytes)> = Vec::new();
    for step in steps {
        if let Step::Times { family, qualifier, .. } | Step::Aggregate { family, qualifier, .. } = step {
            columns.push((family, qualifier));
        }
    }
    columns.sort_unstable();
    columns.dedup();
    let filter = |(family, qualifier): (&String, &Bytes)| ColumnFilter {
        family: family.clone(),
        qualifier: Some(qualifier.clone()),
    };
    columns.into_iter().map(filter).collect()
}

/// The changes to a row that has these cells, in all columns at which the steps look: each step sees what those before it left.
pub fn resolve(steps: &[Step], cells: &[Cell], schema: &Schema) -> Result<Vec<Change<String>>, Problem> {
    let mut there: BTreeMap<(String, Bytes, i64), Bytes> = cells
        .iter()
        .map(|cell| ((cell.family.clone(), cell.qualifier.clone(), cell.timestamp), cell.value.clone()))
        .collect();
    let mut changes = Vec::new();
    for step in steps {
        match step {
            Step::Plain(change) => {
                match change {
                    Change::Put { family, qualifier, timestamp, value } => {
                        there.insert((family.clone(), qualifier.clone(), timestamp.0), value.clone());
                    }
                    Change::DeleteCell { family, qualifier, timestamp } => {
                        there.remove(&(family.clone(), qualifier.clone(), timestamp.0));
                    }
                    Change::DeleteColumn { family, qualifier } => {
                        there.retain(|(its, column, _), _| its != family || column != qualifier);
                    }
                    Change::DeleteFamily { family } => there.retain(|(its, ..), _| its != family),
                    Change::DeleteRow => there.clear(),
                }
                changes.push(change.clone());
            }
            Step::Aggregate { value: None, .. } => {}
            Step::Aggregate { family, qualifier, timestamp, value: Some(value) } => {
                let aggregate = schema.family(family).and_then(|family| family.aggregate).ok_or_else(|| {
                    Problem::invalid(format!(
                        "Error in field 'mutations' : the family {family:?} has no aggregate type"
                    ))
                })?;
                let place = (family.clone(), qualifier.clone(), timestamp.0);
                let sum = match there.get(&place) {
                    Some(state) => aggregate.add(types::state(family, state)?, *value),
                    None => *value,
                };
                let value = Bytes::copy_from_slice(&sum.to_be_bytes());
                there.insert(place, value.clone());
                let (family, qualifier) = (family.clone(), qualifier.clone());
                changes.push(Change::Put { family, qualifier, timestamp: *timestamp, value });
            }
            Step::Times { family, qualifier, since, before } => {
                let goes = |(its, column, timestamp): &(String, Bytes, i64)| {
                    let time = since.0 <= *timestamp && before.is_none_or(|before| *timestamp < before.0);
                    its == family && column == qualifier && time
                };
                let gone: Vec<_> = there.keys().filter(|cell| goes(cell)).cloned().collect();
                for cell in gone {
                    there.remove(&cell);
                    let (family, qualifier, timestamp) = (cell.0, cell.1, Timestamp(cell.2));
                    changes.push(Change::DeleteCell { family, qualifier, timestamp });
                }
            }
        }
    }
    Ok(changes)
}

/// The families that the steps name.
pub fn families(steps: &[Step]) -> impl Iterator<Item = &str> + Clone {
    steps.iter().filter_map(|step| match step {
        Step::Times { family, .. }
        | Step::Aggregate { family, .. }
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
        match &steps(&[mutation], Granularity::Millis, NOW)?[..] {
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
    fn a_table_may_keep_microseconds() {
        let timestamp = |mutation| match &steps(&[mutation], Granularity::Micros, NOW)?[..] {
            [Step::Plain(Change::Put { timestamp, .. })] => Ok::<i64, Problem>(timestamp.0),
            other => panic!("{other:?}"),
        };
        assert_eq!(timestamp(set(-1, 0)), Ok(NOW.0));
        assert_eq!(timestamp(set(5_001, 0)), Ok(5_001));
        assert_eq!(timestamp(set(5_999, 2)), Ok(5_999));
        assert!(timestamp(set(-2, 0)).is_err());
        assert!(steps(&[delete(1, 2)], Granularity::Micros, NOW).is_ok());
    }

    fn value(kind: Value) -> Option<data::Value> {
        Some(data::Value { kind: Some(kind), ..data::Value::default() })
    }

    fn add(family: &str, timestamp: i64, input: i64) -> Mutation {
        let add = data::mutation::AddToCell {
            family_name: family.into(),
            column_qualifier: value(Value::RawValue(Bytes::from_static(b"q"))),
            timestamp: value(Value::RawTimestampMicros(timestamp)),
            input: value(Value::IntValue(input)),
        };
        Mutation { mutation: Some(Sent::AddToCell(add)), timestamp_origin: 0 }
    }

    fn merge(family: &str, timestamp: i64, input: Option<&[u8]>) -> Mutation {
        let merge = data::mutation::MergeToCell {
            family_name: family.into(),
            column_qualifier: value(Value::RawValue(Bytes::from_static(b"q"))),
            timestamp: value(Value::RawTimestampMicros(timestamp)),
            input: input.and_then(|state| value(Value::RawValue(Bytes::copy_from_slice(state)))),
        };
        Mutation { mutation: Some(Sent::MergeToCell(merge)), timestamp_origin: 0 }
    }

    /// A table with the families f, plain, and sum, min and max.
    fn schema() -> Schema {
        let family = |(id, name, aggregate): (u32, &str, Option<model::Aggregate>)| model::Family {
            id: model::FamilyId(id),
            name: name.into(),
            retention: model::Retention::Keep,
            loosened: false,
            locality: model::LocalityId(0),
            aggregate,
        };
        let named = model::Aggregate::NAMES.iter().map(|(name, aggregate)| (9, *name, Some(*aggregate)));
        Schema {
            table: model::TableId(1),
            name: "t".into(),
            version: 1,
            families: [(1, "f", None)].into_iter().chain(named).map(family).collect(),
            next_family: model::FamilyId(10),
            partition: model::Partition::Range { splits: vec![] },
            replicas: 1,
            min_replicas: 1,
            storage: model::Storage::default(),
            settings: model::Settings::default(),
        }
    }

    fn cell(family: &str, timestamp: i64, value: &[u8]) -> Cell {
        let (qualifier, value) = (Bytes::from_static(b"q"), Bytes::copy_from_slice(value));
        Cell { family: family.into(), qualifier, timestamp, value, label: None }
    }

    /// What the mutations put, by family and timestamp.
    fn sums(mutations: &[Mutation], cells: &[Cell]) -> Result<Vec<(String, i64, i64)>, Problem> {
        let steps = steps(mutations, Granularity::Millis, NOW)?;
        check_types(&steps, &schema())?;
        let put = |change| match change {
            Change::Put { family, timestamp, value, .. } => {
                Some((family, timestamp.0, i64::from_be_bytes(value[..].try_into().unwrap())))
            }
            _ => None,
        };
        Ok(resolve(&steps, cells, &schema())?.into_iter().filter_map(put).collect())
    }

    #[test]
    fn what_is_added_is_added_to_what_is_there() {
        let there = [cell("sum", 1_000, &i64::MAX.to_be_bytes()), cell("min", 0, &5i64.to_be_bytes())];
        let of = |name: &str, timestamp, sum| (String::from(name), timestamp, sum);
        assert_eq!(sums(&[add("sum", 1_000, 1)], &there), Ok(vec![of("sum", 1_000, i64::MIN)]), "it wraps");
        assert_eq!(sums(&[add("sum", 2_000, 7)], &there), Ok(vec![of("sum", 2_000, 7)]), "another time, another cell");
        let twice =
            [add("min", 0, 9), add("max", 0, -3), add("max", 0, -9), merge("min", 0, Some(&2i64.to_be_bytes()))];
        let expected = [of("min", 0, 5), of("max", 0, -3), of("max", 0, -3), of("min", 0, 2)];
        assert_eq!(sums(&twice, &there), Ok(expected.to_vec()));
        assert_eq!(sums(&[merge("sum", 0, None)], &there), Ok(vec![]), "no input, no effect");
        let delete = data::mutation::DeleteFromFamily { family_name: "min".into() };
        let delete = Mutation { mutation: Some(Sent::DeleteFromFamily(delete)), timestamp_origin: 0 };
        assert_eq!(
            sums(&[delete, add("min", 0, 9)], &there),
            Ok(vec![of("min", 0, 9)]),
            "what was deleted is not there"
        );
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let code = |mutation: Mutation, cells: &[Cell]| sums(&[mutation], cells).unwrap_err().code;
        use crate::Code::{FailedPrecondition, InvalidArgument};
        assert_eq!(code(add("f", 0, 1), &[]), InvalidArgument, "a plain family");
        assert_eq!(code(add("sum", 1, 1), &[]), InvalidArgument, "no whole millisecond");
        assert_eq!(code(add("sum", -1, 1), &[]), InvalidArgument, "there is no server's time here");
        assert_eq!(code(merge("sum", 0, Some(b"seven!!")), &[]), InvalidArgument);
        assert_eq!(code(add("sum", 0, 1), &[cell("sum", 0, b"else")]), FailedPrecondition);
        let put = data::mutation::SetCell { family_name: "sum".into(), ..Default::default() };
        assert_eq!(code(Mutation { mutation: Some(Sent::SetCell(put)), timestamp_origin: 0 }, &[]), InvalidArgument);
        let bare = data::mutation::AddToCell { family_name: "sum".into(), ..Default::default() };
        assert_eq!(code(Mutation { mutation: Some(Sent::AddToCell(bare)), timestamp_origin: 0 }, &[]), InvalidArgument);
    }

    /// Others who write to the row elsewhere need not wait, nor be waited for.
    #[test]
    fn only_columns_that_matter_are_looked_at() {
        let mutations = [set(0, 0), add("sum", 0, 1), add("sum", 1_000, 1), delete(1_000, 2_000)];
        let columns = columns(&steps(&mutations, Granularity::Millis, NOW).unwrap());
        let names: Vec<&str> = columns.iter().map(|column| column.family.as_str()).collect();
        assert_eq!(names, ["f", "sum"]);
    }

    #[test]
    fn a_time_range_without_bounds_is_the_column() {
        let column = Step::Plain(Change::DeleteColumn { family: "f".into(), qualifier: Bytes::from_static(b"q") });
        assert_eq!(steps(&[delete(0, 0)], Granularity::Millis, NOW).unwrap(), [column]);
        assert!(matches!(
            &steps(&[delete(1_000, 0)], Granularity::Millis, NOW).unwrap()[..],
            [Step::Times { before: None, .. }]
        ));
        for (start, end) in [(1_000, 1_000), (2_000, 1_000), (1, 0), (0, 1_001), (-1_000, 0)] {
            assert!(steps(&[delete(start, end)], Granularity::Millis, NOW).is_err(), "{start} {end}");
        }
    }

    #[test]
    fn what_is_nothing_is_refused() {
        assert_eq!(steps(&[], Granularity::Millis, NOW).unwrap_err().message, "No mutations provided");
        assert!(steps(&[Mutation::default()], Granularity::Millis, NOW).unwrap_err().message.contains("element #0"));
        let many = vec![set(0, 0); limits::CHANGES + 1];
        assert!(steps(&many, Granularity::Millis, NOW).unwrap_err().message.contains("100001"));
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
        let changes = resolve(&[put(4_000), times, put(4_000)], &row, &schema()).unwrap();
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
