//! Filters as they are sent.

use std::ops::Bound;

use filter::{Filter, Interval, Needs};
use model::{Bytes, ColumnFilter, ReadOptions, Timestamp};
use prost::Message;

use crate::Problem;
use crate::chunks::Cell;
use crate::data::{column_range, value_range};
use crate::newer::{self, RowFilter};

/// Bytes of a filter, at most.
const BYTES: usize = 20 << 10;

/// A filter in our words, ready to be applied.
pub fn compile(filter: Option<&RowFilter>) -> Result<filter::Compiled, Problem> {
    let filter = match filter {
        None => Filter::Pass,
        Some(filter) if filter.encoded_len() > BYTES => {
            let len = filter.encoded_len();
            return Err(Problem::invalid(format!(
                "Error in field 'filter' : it has {len} bytes; the limit is {BYTES}"
            )));
        }
        Some(filter) => convert(filter)?,
    };
    filter::Compiled::new(&filter).map_err(|invalid| Problem::invalid(invalid.0))
}

/// The cells of a row that come through a filter, with their labels. `draw` is asked once for each sample.
pub fn through(filter: &filter::Compiled, key: &[u8], cells: &[Cell], draw: &dyn Fn() -> u64) -> Vec<Cell> {
    let pick = |pick: filter::Pick| {
        let cell = &cells[pick.at];
        let value = if pick.stripped { Bytes::new() } else { cell.value.clone() };
        Cell { value, label: pick.label.as_deref().map(str::to_owned), ..cell.clone() }
    };
    filter.apply(&filter::Input { key, cells, draw }).into_iter().map(pick).collect()
}

/// What to read of rows of a table with these families so that the filter has all that it needs; `None` if nothing can
/// come through it.
pub fn options(filter: &filter::Compiled, families: &[&str]) -> Option<ReadOptions<String>> {
    let Needs { column, since, before, versions, nothing, .. } = filter.needs();
    if *nothing || column.family.as_ref().is_some_and(|family| !families.contains(&family.as_str())) {
        return None;
    }
    let of = |family: &str| ColumnFilter { family: family.to_owned(), qualifier: column.qualifier.clone() };
    let columns = match (&column.family, &column.qualifier) {
        (None, None) => Vec::new(),
        (Some(family), _) => vec![of(family)],
        (None, Some(_)) => families.iter().map(|family| of(family)).collect(),
    };
    let versions = versions.unwrap_or(u32::MAX);
    Some(ReadOptions { columns, versions, since: *since, before: *before, ..ReadOptions::default() })
}

fn convert(RowFilter { filter }: &RowFilter) -> Result<Filter, Problem> {
    use newer::Filter as Sent;
    let Some(filter) = filter else { return Ok(Filter::Pass) };
    let all = |filters: &newer::Filters| filters.filters.iter().map(convert).collect::<Result<Vec<_>, _>>();
    let boxed = |filter: &Option<Box<RowFilter>>| filter.as_deref().map(convert).transpose();
    Ok(match filter {
        Sent::Chain(filters) => Filter::Chain(all(filters)?),
        Sent::Interleave(filters) => Filter::Interleave(all(filters)?),
        Sent::Condition(condition) => Filter::Condition {
            predicate: Box::new(boxed(&condition.predicate_filter)?.unwrap_or(Filter::Pass)),
            then: boxed(&condition.true_filter)?.map(Box::new),
            otherwise: boxed(&condition.false_filter)?.map(Box::new),
        },
        Sent::RowKeyRegexFilter(pattern) => Filter::RowKey(pattern.clone()),
        Sent::FamilyNameRegexFilter(pattern) => Filter::Family(Bytes::from(pattern.clone())),
        Sent::ColumnQualifierRegexFilter(pattern) => Filter::Qualifier(pattern.clone()),
        Sent::ValueRegexFilter(pattern) => Filter::Value(pattern.clone()),
        Sent::ColumnRangeFilter(range) => {
            use column_range::{EndQualifier, StartQualifier};
            let start = match &range.start_qualifier {
                Some(StartQualifier::StartQualifierClosed(start)) => Bound::Included(start.clone()),
                Some(StartQualifier::StartQualifierOpen(start)) => Bound::Excluded(start.clone()),
                None => Bound::Unbounded,
            };
            let end = match &range.end_qualifier {
                Some(EndQualifier::EndQualifierClosed(end)) => Bound::Included(end.clone()),
                Some(EndQualifier::EndQualifierOpen(end)) => Bound::Excluded(end.clone()),
                None => Bound::Unbounded,
            };
            Filter::Columns { family: range.family_name.clone(), qualifiers: Interval { start, end } }
        }
        Sent::ValueRangeFilter(range) => {
            use value_range::{EndValue, StartValue};
            let start = match &range.start_value {
                Some(StartValue::StartValueClosed(start)) => Bound::Included(start.clone()),
                Some(StartValue::StartValueOpen(start)) => Bound::Excluded(start.clone()),
                None => Bound::Unbounded,
            };
            let end = match &range.end_value {
                Some(EndValue::EndValueClosed(end)) => Bound::Included(end.clone()),
                Some(EndValue::EndValueOpen(end)) => Bound::Excluded(end.clone()),
                None => Bound::Unbounded,
            };
            Filter::Values(Interval { start, end })
        }
        Sent::TimestampRangeFilter(range) => Filter::Times {
            since: Timestamp(range.start_timestamp_micros),
            before: (range.end_timestamp_micros != 0).then_some(Timestamp(range.end_timestamp_micros)),
        },
        Sent::ValueBitmaskFilter(bitmask) => Filter::Mask(bitmask.mask.clone()),
        Sent::CellsPerRowOffsetFilter(count) => Filter::Skip(whole("cells_per_row_offset_filter", *count)?),
        Sent::CellsPerRowLimitFilter(count) => Filter::Limit(whole("cells_per_row_limit_filter", *count)?),
        Sent::CellsPerColumnLimitFilter(count) => Filter::LimitColumn(whole("cells_per_column_limit_filter", *count)?),
        Sent::RowSampleFilter(share) => Filter::Sample(*share),
        Sent::ApplyLabelTransformer(label) => Filter::Label(label.clone()),
        Sent::StripValueTransformer(yes) => only_true("strip_value_transformer", *yes, Filter::Strip)?,
        Sent::Sink(yes) => only_true("sink", *yes, Filter::Sink)?,
        Sent::PassAllFilter(yes) => only_true("pass_all_filter", *yes, Filter::Pass)?,
        Sent::BlockAllFilter(yes) => only_true("block_all_filter", *yes, Filter::Block)?,
    })
}

fn whole(field: &str, count: i32) -> Result<u32, Problem> {
    u32::try_from(count).map_err(|_| Problem::invalid(format!("Error in field '{field}' : {count} is negative")))
}

fn only_true(field: &str, yes: bool, filter: Filter) -> Result<Filter, Problem> {
    match yes {
        true => Ok(filter),
        false => Err(Problem::invalid(format!("Error in field '{field}' : it can only be true; leave it out instead"))),
    }
}
