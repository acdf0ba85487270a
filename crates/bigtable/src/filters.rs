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

/// What to read of rows so that the filter has all that it needs, and whether then every row comes through of which there is
/// anything; `None` if nothing can come through it. Of the table these families are known: others may have been made just now, so
/// what cannot be named among these is not narrowed, and the filter alone decides.
pub fn options(filter: &filter::Compiled, families: &[&str]) -> Option<(ReadOptions<String>, bool)> {
    let Needs { column, since, before, versions, nothing, every_row } = filter.needs();
    if *nothing {
        return None;
    }
    let (columns, narrowed) = match (&column.family, &column.qualifier) {
        (None, None) => (Vec::new(), true),
        (Some(family), qualifier) if families.contains(&family.as_str()) => {
            (vec![ColumnFilter { family: family.clone(), qualifier: qualifier.clone() }], true)
        }
        (Some(_), _) | (None, Some(_)) => (Vec::new(), false),
    };
    let versions = versions.unwrap_or(u32::MAX);
    let options = ReadOptions { columns, versions, since: *since, before: *before, ..ReadOptions::default() };
    Some((options, *every_row && narrowed))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(filters: Vec<newer::Filter>) -> filter::Compiled {
        let filters = filters.into_iter().map(|filter| RowFilter { filter: Some(filter) }).collect();
        let chain = newer::Filter::Chain(newer::Filters { filters });
        compile(Some(&RowFilter { filter: Some(chain) })).expect("a good filter")
    }

    /// A family that this process has not heard of yet may have rows that were acknowledged before somebody asks for them.
    #[test]
    fn only_what_is_known_is_narrowed() {
        let family = || newer::Filter::FamilyNameRegexFilter("f".into());
        let qualifier = || newer::Filter::ColumnQualifierRegexFilter(Bytes::from_static(b"q"));
        let read = |filters: Vec<newer::Filter>, families: &[&str]| {
            let (options, every_row) = options(&compiled(filters), families).expect("something may come through");
            (options.columns.len(), every_row)
        };
        assert_eq!(read(vec![family(), qualifier()], &["f", "g"]), (1, true));
        assert_eq!(read(vec![family(), qualifier()], &["g"]), (0, false));
        assert_eq!(read(vec![qualifier(), newer::Filter::PassAllFilter(true)], &["f", "g"]), (0, false));
        assert!(options(&compiled(vec![family(), newer::Filter::BlockAllFilter(true)]), &["f"]).is_none());
    }
}
