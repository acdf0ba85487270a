//! Families and their rules, in Google's words and in ours.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Aggregate, Granularity, Retention, Schema, limits};
use prost::Message;

use crate::admin::gc_rule::{Intersection, Rule, Union};
use crate::admin::{ColumnFamily, GcRule};
use crate::{Problem, admin, changes, types};

/// Bytes of a rule, at most.
const RULE: usize = 500;
/// `Table.TimestampGranularity`; the second one is newer than the crate with the messages.
const MILLIS: i32 = 1;
const MICROS: i32 = 2;
/// Rules that lie in each other, at most.
const DEPTH: usize = 20;

/// A family's rule in our words; everything is kept without one.
pub fn retention(family: &str, rule: Option<&GcRule>) -> Result<Retention, Problem> {
    let wrong = |what: String| Problem::invalid(format!("Error in field 'gc_rule' : family {family:?} : {what}"));
    let Some(rule) = rule else { return Ok(Retention::Keep) };
    if rule.encoded_len() > RULE {
        return Err(wrong(format!("the rule has {} bytes; the limit is {RULE}", rule.encoded_len())));
    }
    convert(rule, 0).map_err(wrong)
}

fn convert(GcRule { rule }: &GcRule, depth: usize) -> Result<Retention, String> {
    if depth > DEPTH {
        return Err(format!("rules lie more than {DEPTH} deep in each other"));
    }
    let all = |rules: &[GcRule]| rules.iter().map(|rule| convert(rule, depth + 1)).collect::<Result<Vec<_>, _>>();
    Ok(match rule {
        None => Retention::Keep,
        Some(Rule::MaxNumVersions(count)) => match u32::try_from(*count) {
            Ok(count) if count > 0 => Retention::Versions(count),
            _ => return Err(format!("max_num_versions is {count}; give at least 1")),
        },
        Some(Rule::MaxAge(age)) => {
            let age = Duration::try_from(*age).map_err(|_| "max_age is negative".to_owned())?;
            if age < Duration::from_millis(1) {
                return Err("max_age is less than a millisecond".to_owned());
            }
            Retention::Age(age)
        }
        Some(Rule::Union(union)) => Retention::Any(all(&union.rules)?),
        Some(Rule::Intersection(intersection)) => Retention::All(all(&intersection.rules)?),
    })
}

/// A family's rule as it was given.
pub fn gc_rule(retention: &Retention) -> GcRule {
    let rule = match retention {
        Retention::Keep => None,
        Retention::Versions(count) => Some(Rule::MaxNumVersions(i32::try_from(*count).unwrap_or(i32::MAX))),
        Retention::Age(age) => Some(Rule::MaxAge(prost_types::Duration {
            seconds: i64::try_from(age.as_secs()).unwrap_or(i64::MAX),
            nanos: age.subsec_nanos() as i32,
        })),
        Retention::Any(rules) => Some(Rule::Union(Union { rules: rules.iter().map(gc_rule).collect() })),
        Retention::All(rules) => Some(Rule::Intersection(Intersection { rules: rules.iter().map(gc_rule).collect() })),
    };
    GcRule { rule }
}

/// The families of a table, by name.
pub fn families(schema: &Schema) -> BTreeMap<String, ColumnFamily> {
    let family = |family: &model::Family| {
        // Also one that says nothing: without it the family would be an empty message, which prost leaves out of a map's entry,
        // and Node's client then finds no family there.
        let value_type = family.aggregate.map(types::value_type);
        (family.name.clone(), ColumnFamily { gc_rule: Some(gc_rule(&family.retention)), value_type })
    };
    schema.families.iter().map(family).collect()
}

/// Checks a family that is to be made: its name, its rule, and what it adds up.
pub fn new_family(name: &str, family: &ColumnFamily) -> Result<(Retention, Option<Aggregate>), Problem> {
    limits::check_family_name(name).map_err(Problem::invalid)?;
    let aggregate = types::aggregate(name, family.value_type.as_ref())?;
    Ok((retention(name, family.gc_rule.as_ref())?, aggregate))
}

/// How fine the timestamps of a new table are: whole milliseconds unless it says otherwise.
pub fn granularity(wish: i32) -> Result<Granularity, Problem> {
    match wish {
        0 | MILLIS => Ok(Granularity::Millis),
        MICROS => Ok(Granularity::Micros),
        _ => Err(Problem::invalid(format!("Error in field 'granularity' : there is none with the number {wish}"))),
    }
}

/// A table with its families and settings.
pub fn table(path: String, schema: &Schema) -> admin::Table {
    let granularity = match schema.settings.granularity {
        Granularity::Millis => MILLIS,
        Granularity::Micros => MICROS,
    };
    let deletion_protection = schema.settings.protected;
    let column_families = families(schema);
    let change_stream_config = schema.settings.changes_kept().map(changes::config);
    admin::Table {
        name: path,
        column_families,
        granularity,
        deletion_protection,
        change_stream_config,
        ..admin::Table::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(seconds: i64, nanos: i32) -> GcRule {
        GcRule { rule: Some(Rule::MaxAge(prost_types::Duration { seconds, nanos })) }
    }

    fn versions(count: i32) -> GcRule {
        GcRule { rule: Some(Rule::MaxNumVersions(count)) }
    }

    #[test]
    fn rules_are_read_back_as_they_were_written() {
        let both = GcRule { rule: Some(Rule::Intersection(Intersection { rules: vec![versions(2), age(86_400, 5)] })) };
        let nested = GcRule { rule: Some(Rule::Union(Union { rules: vec![both.clone(), age(1, 0)] })) };
        for rule in [versions(1), age(0, 1_000_000), both, nested] {
            assert_eq!(gc_rule(&retention("f", Some(&rule)).unwrap()), rule);
        }
        assert_eq!(retention("f", None), Ok(Retention::Keep));
    }

    #[test]
    fn a_rule_that_keeps_nothing_is_refused() {
        let deep = (0..30).fold(versions(1), |rule, _| GcRule { rule: Some(Rule::Union(Union { rules: vec![rule] })) });
        let long = GcRule { rule: Some(Rule::Union(Union { rules: vec![age(1, 1); 100] })) };
        for rule in [versions(0), versions(-1), age(0, 999_999), age(-1, 0), deep, long] {
            let problem = retention("f", Some(&rule)).unwrap_err();
            assert!(problem.message.starts_with("Error in field 'gc_rule'"), "{problem}");
        }
    }
}
