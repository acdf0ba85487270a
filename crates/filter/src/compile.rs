//! A filter that was checked, with its patterns ready to match.

use std::sync::Arc;

use model::{Bytes, Timestamp};

use crate::pattern::Pattern;
use crate::tree::{Filter, Interval};
use crate::{Invalid, Needs};

/// Filters that lie in each other, at most.
const DEPTH: usize = 20;
/// Characters of a label, at most.
const LABEL: usize = 15;

/// A filter that can be applied.
#[derive(Debug)]
pub struct Compiled {
    root: Node,
    needs: Needs,
}

/// As [`Filter`].
#[derive(Debug)]
pub(crate) enum Node {
    Pass,
    Block,
    Chain(Vec<Node>),
    Interleave(Vec<Node>),
    Condition {
        predicate: Box<Node>,
        then: Option<Box<Node>>,
        otherwise: Option<Box<Node>>,
    },
    Sink,
    RowKey(Pattern),
    /// Rows that draw less than this.
    Sample(u64),
    Family(Pattern),
    Qualifier(Pattern),
    Columns {
        family: String,
        qualifiers: Interval,
    },
    Times {
        since: Timestamp,
        before: Option<Timestamp>,
    },
    Value(Pattern),
    Values(Interval),
    Mask(Bytes),
    Skip(u32),
    Limit(u32),
    LimitColumn(u32),
    Strip,
    Label(Arc<str>),
}

impl Compiled {
    /// Checks the whole filter and makes its patterns ready. What is wrong is said as of the field where it is.
    pub fn new(filter: &Filter) -> Result<Compiled, Invalid> {
        Ok(Compiled { root: compile(filter, 1, false)?, needs: Needs::of(filter) })
    }

    /// What of a row it needs.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }
}

/// `conditional`: it is a part of a condition.
fn compile(filter: &Filter, depth: usize, conditional: bool) -> Result<Node, Invalid> {
    if depth > DEPTH {
        return Err(Invalid(format!("filters lie more than {DEPTH} deep in each other")));
    }
    let inner = |filter: &Filter| compile(filter, depth + 1, conditional);
    Ok(match filter {
        Filter::Pass => Node::Pass,
        Filter::Block => Node::Block,
        Filter::Chain(filters) => {
            several("chain", filters)?;
            if filters.iter().filter(|filter| labels(filter)).count() > 1 {
                return invalid("Error in field 'chain' : a chain has at most one apply_label_transformer");
            }
            Node::Chain(filters.iter().map(inner).collect::<Result<_, _>>()?)
        }
        Filter::Interleave(filters) => {
            several("interleave", filters)?;
            Node::Interleave(filters.iter().map(inner).collect::<Result<_, _>>()?)
        }
        Filter::Condition { predicate, then, otherwise } => {
            let part = |filter: &Filter| compile(filter, depth + 1, true).map(Box::new);
            let [then, otherwise] = [then, otherwise].map(|branch| branch.as_deref().map(part).transpose());
            Node::Condition { predicate: part(predicate)?, then: then?, otherwise: otherwise? }
        }
        Filter::Sink if conditional => {
            return invalid("Error in field 'sink' : a sink must not be within a condition");
        }
        Filter::Sink => Node::Sink,
        Filter::RowKey(pattern) if pattern.is_empty() => {
            return invalid(
                "Error in field 'row_key_regex_filter' : the pattern is empty, and no row has an empty key",
            );
        }
        Filter::RowKey(pattern) => Node::RowKey(Pattern::new("row_key_regex_filter", pattern)?),
        Filter::Sample(share) if !(*share > 0.0 && *share < 1.0) => {
            return invalid(format!("Error in field 'row_sample_filter' : {share} is not between 0 and 1"));
        }
        // Of 2^64 equally likely numbers.
        Filter::Sample(share) => Node::Sample((share * (u64::MAX as f64)) as u64),
        Filter::Family(pattern) if pattern.contains(&b':') => {
            return invalid("Error in field 'family_name_regex_filter' : a family name has no ':'");
        }
        Filter::Family(pattern) => Node::Family(Pattern::new("family_name_regex_filter", pattern)?),
        Filter::Qualifier(pattern) => Node::Qualifier(Pattern::new("column_qualifier_regex_filter", pattern)?),
        Filter::Columns { family, .. } if family.is_empty() => {
            return invalid("Error in field 'column_range_filter' : no family is named");
        }
        Filter::Columns { family, qualifiers } => {
            rising("column_range_filter", qualifiers)?;
            Node::Columns { family: family.clone(), qualifiers: qualifiers.clone() }
        }
        Filter::Times { since, before } => {
            if before.is_some_and(|before| before < *since) || since.0 < 0 {
                let what = "the start is negative or after the end";
                return invalid(format!("Error in field 'timestamp_range_filter' : {what}"));
            }
            Node::Times { since: *since, before: *before }
        }
        Filter::Value(pattern) => Node::Value(Pattern::new("value_regex_filter", pattern)?),
        Filter::Values(interval) => {
            rising("value_range_filter", interval)?;
            Node::Values(interval.clone())
        }
        Filter::Mask(mask) if mask.is_empty() => {
            return invalid("Error in field 'value_bitmask_filter' : the mask is empty");
        }
        Filter::Mask(mask) => Node::Mask(mask.clone()),
        Filter::Skip(count) => Node::Skip(*count),
        Filter::Limit(0) => return invalid("Error in field 'cells_per_row_limit_filter' : 0 cells; give at least 1"),
        Filter::Limit(count) => Node::Limit(*count),
        Filter::LimitColumn(0) => {
            return invalid("Error in field 'cells_per_column_limit_filter' : 0 cells; give at least 1");
        }
        Filter::LimitColumn(count) => Node::LimitColumn(*count),
        Filter::Strip => Node::Strip,
        Filter::Label(label) => {
            let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if label.is_empty() || label.len() > LABEL || !label.bytes().all(good) {
                let rule = format!("use 1 to {LABEL} of a-z 0-9 -");
                return invalid(format!("Error in field 'apply_label_transformer' : {label:?} is no label; {rule}"));
            }
            Node::Label(Arc::from(label.as_str()))
        }
    })
}

/// Is there a label in it, however deep?
fn labels(filter: &Filter) -> bool {
    match filter {
        Filter::Label(_) => true,
        Filter::Chain(filters) | Filter::Interleave(filters) => filters.iter().any(labels),
        Filter::Condition { predicate, then, otherwise } => {
            [Some(predicate), then.as_ref(), otherwise.as_ref()].into_iter().flatten().any(|part| labels(part))
        }
        _ => false,
    }
}

fn invalid<T>(what: impl Into<String>) -> Result<T, Invalid> {
    Err(Invalid(what.into()))
}

fn several(field: &str, filters: &[Filter]) -> Result<(), Invalid> {
    match filters.len() {
        0 | 1 => invalid(format!("Error in field '{field}' : {} filters; give at least 2", filters.len())),
        _ => Ok(()),
    }
}

/// An interval must not end before it begins.
fn rising(field: &str, Interval { start, end }: &Interval) -> Result<(), Invalid> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let empty = match (start, end) {
        (Unbounded, _) | (_, Unbounded) => false,
        (Included(start), Included(end)) => start > end,
        (Included(start) | Excluded(start), Included(end) | Excluded(end)) => start >= end,
    };
    match empty {
        true => invalid(format!("Error in field '{field}' : the start must be before the end")),
        false => Ok(()),
    }
}
