//! Read, modify, write: what becomes of the newest cells of a row's columns.

use std::collections::BTreeMap;

use model::{Bytes, Change, Granularity, Schema, Timestamp, limits};

use crate::chunks::Cell;
use crate::data::ReadModifyWriteRule;
use crate::data::read_modify_write_rule::Rule;
use crate::{Code, Problem, writes};

/// Checks rules, and gives the columns that they look at, each once.
pub fn columns(rules: &[ReadModifyWriteRule]) -> Result<Vec<(String, Bytes)>, Problem> {
    let wrong = |what: String| Problem::invalid(format!("Error in field 'rules' : {what}"));
    if rules.is_empty() {
        return Err(wrong("no rules are given".to_owned()));
    }
    if rules.len() > limits::CHANGES {
        return Err(wrong(format!("{} rules; the limit is {}", rules.len(), limits::CHANGES)));
    }
    let mut columns = Vec::with_capacity(rules.len());
    for (at, rule) in rules.iter().enumerate() {
        let len = rule.column_qualifier.len();
        if len > limits::QUALIFIER {
            let what = format!("the column qualifier has {len} bytes; the limit is {}", limits::QUALIFIER);
            return Err(wrong(format!("Error in element #{at} : {what}")));
        }
        columns.push((rule.family_name.clone(), rule.column_qualifier.clone()));
    }
    columns.sort_unstable();
    columns.dedup();
    Ok(columns)
}

/// Says what is wrong with columns of families that are there: cells that add up are changed by mutations only.
pub fn check_types(columns: &[(String, Bytes)], schema: &Schema) -> Result<(), Problem> {
    let aggregates = |family: &str| schema.family(family).is_some_and(|family| family.aggregate.is_some());
    match columns.iter().find(|(family, _)| aggregates(family)) {
        None => Ok(()),
        Some((family, _)) => {
            let what = format!("the family {family:?} has an aggregate type; send add_to_cell in a mutation");
            Err(Problem::invalid(format!("Error in field 'rules' : {what}")))
        }
    }
}

/// What the rules make of the newest cells of those columns, in order: the changes, and the cells that are the newest then.
pub fn apply(
    rules: &[ReadModifyWriteRule],
    newest: Vec<Cell>,
    granularity: Granularity,
    now: Timestamp,
) -> Result<(Vec<Change<String>>, Vec<Cell>), Problem> {
    let now = writes::cut(now, granularity).0;
    let mut cells: BTreeMap<(String, Bytes), Cell> =
        newest.into_iter().map(|cell| ((cell.family.clone(), cell.qualifier.clone()), cell)).collect();
    for rule in rules {
        let column = (rule.family_name.clone(), rule.column_qualifier.clone());
        let old = cells.get(&column);
        let value = match &rule.rule {
            Some(Rule::AppendValue(tail)) => {
                let head = old.map_or(&[][..], |cell| &cell.value);
                if head.len() + tail.len() > limits::VALUE {
                    let what = format!("the value would have {} bytes", head.len() + tail.len());
                    return Err(Problem::invalid(format!(
                        "Error in field 'rules' : {what}; the limit is {}",
                        limits::VALUE
                    )));
                }
                Bytes::from([head, tail].concat())
            }
            // Node sends an increment by 0 as a rule without anything set.
            Some(Rule::IncrementAmount(_)) | None => {
                let amount = match rule.rule {
                    Some(Rule::IncrementAmount(amount)) => amount,
                    _ => 0,
                };
                let number = old.map_or(Some(0), |cell| cell.value[..].try_into().ok().map(i64::from_be_bytes));
                let Some(number) = number else {
                    let message = format!(
                        "Error in field 'rules' : the cell {}:{} has {} bytes. The increment operation can only be performed on 64-bit values",
                        rule.family_name,
                        rule.column_qualifier.escape_ascii(),
                        old.map_or(0, |cell| cell.value.len())
                    );
                    return Err(Problem { code: Code::FailedPrecondition, message });
                };
                Bytes::copy_from_slice(&number.wrapping_add(amount).to_be_bytes())
            }
        };
        // A cell of a time to come is replaced, one of the past stays as an older version.
        let timestamp = old.map_or(now, |cell| cell.timestamp.max(now));
        let (family, qualifier) = column.clone();
        cells.insert(column, Cell { family, qualifier, timestamp, value, label: None });
    }
    let touched = columns(rules)?;
    let cells: Vec<Cell> = touched.iter().filter_map(|column| cells.remove(column)).collect();
    let put = |Cell { family, qualifier, timestamp, value, .. }: Cell| {
        let timestamp = Timestamp(timestamp);
        Change::Put { family, qualifier, timestamp, value }
    };
    Ok((cells.iter().cloned().map(put).collect(), cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(2_000_500);

    fn rule(qualifier: &'static [u8], rule: Option<Rule>) -> ReadModifyWriteRule {
        ReadModifyWriteRule { family_name: "f".into(), column_qualifier: Bytes::from_static(qualifier), rule }
    }

    fn cell(timestamp: i64, value: &[u8]) -> Cell {
        let (qualifier, value) = (Bytes::from_static(b"q"), Bytes::copy_from_slice(value));
        Cell { family: "f".into(), qualifier, timestamp, value, label: None }
    }

    fn append(tail: &'static [u8]) -> Option<Rule> {
        Some(Rule::AppendValue(Bytes::from_static(tail)))
    }

    #[test]
    fn rules_see_those_before_them() {
        let rules =
            [rule(b"q", append(b"b")), rule(b"n", Some(Rule::IncrementAmount(i64::MAX))), rule(b"q", append(b"c"))];
        let (changes, cells) = apply(&rules, vec![cell(1_000, b"a")], Granularity::Millis, NOW).unwrap();
        assert_eq!(changes.len(), 2);
        let seen: Vec<_> = cells.iter().map(|cell| (&cell.qualifier[..], cell.timestamp, &cell.value[..])).collect();
        assert_eq!(seen, [(&b"n"[..], 2_000_000, &i64::MAX.to_be_bytes()[..]), (&b"q"[..], 2_000_000, &b"abc"[..])]);
    }

    #[test]
    fn a_sum_wraps_and_a_time_to_come_stays() {
        let future = cell(9_000_000, &i64::MAX.to_be_bytes());
        let (_, cells) =
            apply(&[rule(b"q", Some(Rule::IncrementAmount(1)))], vec![future], Granularity::Millis, NOW).unwrap();
        assert_eq!((cells[0].timestamp, &cells[0].value[..]), (9_000_000, &i64::MIN.to_be_bytes()[..]));
        let (_, cells) = apply(&[rule(b"q", None)], vec![], Granularity::Millis, NOW).unwrap();
        assert_eq!(cells[0].value, [0; 8][..]);
    }

    #[test]
    fn only_numbers_are_incremented() {
        for value in [&b""[..], b"1234567", b"123456789"] {
            let rules = [rule(b"q", Some(Rule::IncrementAmount(1)))];
            let problem = apply(&rules, vec![cell(0, value)], Granularity::Millis, NOW).unwrap_err();
            assert_eq!(problem.code, Code::FailedPrecondition);
            assert!(problem.message.contains("64-bit"));
        }
        assert!(columns(&[]).is_err());
    }
}
