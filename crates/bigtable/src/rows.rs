//! Which rows are asked for.

use model::{Bytes, RowRange, limits};

use crate::Problem;
use crate::data::row_range::{EndKey, StartKey};
use crate::data::{self, RowSet};

/// The ranges of all rows in the set, in order, apart from each other and not empty. All rows of the table if there is no set or if it is
/// empty.
pub fn ranges(rows: Option<&RowSet>) -> Result<Vec<RowRange>, Problem> {
    let Some(RowSet { row_keys, row_ranges }) =
        rows.filter(|rows| !rows.row_keys.is_empty() || !rows.row_ranges.is_empty())
    else {
        return Ok(vec![RowRange::default()]);
    };
    let mut ranges = Vec::with_capacity(row_keys.len() + row_ranges.len());
    for (at, key) in row_keys.iter().enumerate() {
        check_key("rows.row_keys", at, key)?;
        ranges.push(RowRange::one(key.clone()));
    }
    for (at, range) in row_ranges.iter().enumerate() {
        ranges.push(convert(at, range)?);
    }
    Ok(merge(ranges))
}

/// One range.
pub fn range(range: &data::RowRange) -> Result<RowRange, Problem> {
    convert(0, range)
}

fn check_key(field: &str, at: usize, key: &Bytes) -> Result<(), Problem> {
    match key.len() {
        0 => Err(Problem::invalid(format!(
            "Error in field '{field}' : Error in element #{at} : Row keys must be non-empty"
        ))),
        len if len > limits::ROW_KEY => {
            let what = format!("the key has {len} bytes; the limit is {}", limits::ROW_KEY);
            Err(Problem::invalid(format!("Error in field '{field}' : Error in element #{at} : {what}")))
        }
        _ => Ok(()),
    }
}

/// A range of keys. An empty bound is none.
fn convert(at: usize, range: &data::RowRange) -> Result<RowRange, Problem> {
    let (start, start_open) = match &range.start_key {
        Some(StartKey::StartKeyClosed(key)) => (key.clone(), false),
        Some(StartKey::StartKeyOpen(key)) => (key.clone(), !key.is_empty()),
        None => (Bytes::new(), false),
    };
    let (end, end_closed) = match &range.end_key {
        Some(EndKey::EndKeyClosed(key)) => (Some(key).filter(|key| !key.is_empty()), true),
        Some(EndKey::EndKeyOpen(key)) => (Some(key).filter(|key| !key.is_empty()), false),
        None => (None, false),
    };
    if let Some(end) = end.filter(|_| !start.is_empty()) {
        let one = start == *end && !start_open && end_closed;
        if start > *end || (start == *end && !one) {
            let field = "Error in field 'rows.row_ranges'";
            return Err(Problem::invalid(format!(
                "{field} : Error in element #{at} : start_key must be less than end_key"
            )));
        }
    }
    let start = if start_open { after(&start) } else { start };
    let end = end.map(|end| if end_closed { after(end) } else { end.clone() });
    Ok(RowRange { start, end })
}

/// The next key of all.
fn after(key: &Bytes) -> Bytes {
    RowRange::one(key.clone()).end.unwrap_or_default()
}

/// The same rows, each once.
pub(crate) fn merge(mut ranges: Vec<RowRange>) -> Vec<RowRange> {
    ranges.retain(|range| range.end.as_ref().is_none_or(|end| range.start < *end));
    ranges.sort_by(|one, other| one.start.cmp(&other.start));
    let mut merged: Vec<RowRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(RowRange { end: None, .. }) => break,
            Some(RowRange { end: Some(end), .. }) if range.start <= *end => match range.end {
                Some(later) if later > *end => *end = later,
                Some(_) => {}
                None => merged.last_mut().expect("it is there").end = None,
            },
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn range(start: Option<StartKey>, end: Option<EndKey>) -> data::RowRange {
        data::RowRange { start_key: start, end_key: end }
    }

    fn found(keys: &[&str], row_ranges: Vec<data::RowRange>) -> Result<Vec<(Bytes, Option<Bytes>)>, Problem> {
        let set = RowSet { row_keys: keys.iter().map(|text| key(text)).collect(), row_ranges };
        Ok(ranges(Some(&set))?.into_iter().map(|range| (range.start, range.end)).collect())
    }

    #[test]
    fn a_set_is_its_rows_in_order_each_once() {
        assert_eq!(ranges(None).unwrap(), [RowRange::default()]);
        assert_eq!(found(&[], vec![]).unwrap(), [(key(""), None)]);
        assert_eq!(
            found(&["b", "a", "b"], vec![]).unwrap(),
            [(key("a"), Some(key("a\0"))), (key("b"), Some(key("b\0")))]
        );
        let open = range(Some(StartKey::StartKeyOpen(key("a"))), Some(EndKey::EndKeyClosed(key("c"))));
        let more = range(Some(StartKey::StartKeyClosed(key("b"))), Some(EndKey::EndKeyOpen(key("d"))));
        assert_eq!(
            found(&["a", "z"], vec![more, open]).unwrap(),
            [(key("a"), Some(key("d"))), (key("z"), Some(key("z\0")))]
        );
        // What Node sends for some prefixes.
        let endless = range(Some(StartKey::StartKeyClosed(key("m"))), Some(EndKey::EndKeyClosed(key(""))));
        assert_eq!(found(&["x"], vec![endless]).unwrap(), [(key("m"), None)]);
    }

    #[test]
    fn a_range_must_not_be_empty() {
        let k = || key("k");
        let one = range(Some(StartKey::StartKeyClosed(k())), Some(EndKey::EndKeyClosed(k())));
        assert_eq!(found(&[], vec![one]).unwrap(), [(k(), Some(key("k\0")))]);
        for (start, end) in [
            (StartKey::StartKeyOpen(k()), EndKey::EndKeyClosed(k())),
            (StartKey::StartKeyClosed(k()), EndKey::EndKeyOpen(k())),
            (StartKey::StartKeyClosed(key("l")), EndKey::EndKeyClosed(k())),
        ] {
            let problem = found(&[], vec![range(Some(start), Some(end))]).unwrap_err();
            assert!(problem.message.ends_with("start_key must be less than end_key"), "{problem}");
        }
        assert!(found(&[""], vec![]).unwrap_err().message.ends_with("Row keys must be non-empty"));
        assert!(found(&[&"k".repeat(4097)], vec![]).is_err());
    }
}
