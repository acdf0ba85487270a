//! What a filter lets through of a row.

use std::sync::Arc;

use model::Timestamp;

use crate::compile::{Compiled, Node};

/// What a filter looks at.
pub trait Cell {
    /// The name of the column's family.
    fn family(&self) -> &str;
    /// The column within it.
    fn qualifier(&self) -> &[u8];
    /// The version.
    fn timestamp(&self) -> Timestamp;
    /// What is kept.
    fn value(&self) -> &[u8];
}

/// A row that is to be filtered.
pub struct Input<'a, C> {
    /// Its key.
    pub key: &'a [u8],
    /// In their order: by family, qualifier, newest first.
    pub cells: &'a [C],
    /// What decides whether the row is in a sample: any number, equally likely; asked once for each sample.
    pub draw: &'a dyn Fn() -> u64,
}

/// A cell that has come through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Which of the cells.
    pub at: usize,
    /// Its value is not wanted.
    pub stripped: bool,
    /// What it was labelled with last.
    pub label: Option<Arc<str>>,
}

impl Compiled {
    /// The cells that come through, in the order of cells.
    pub fn apply<C: Cell>(&self, input: &Input<'_, C>) -> Vec<Pick> {
        let all = (0..input.cells.len()).map(|at| Pick { at, stripped: false, label: None });
        let mut sunk = Vec::new();
        let mut out = self.root().run(input, all.collect(), &mut sunk);
        if !sunk.is_empty() {
            out.append(&mut sunk);
            out.sort_by_key(|pick| pick.at);
        }
        out
    }
}

impl Node {
    fn run<C: Cell>(&self, input: &Input<'_, C>, mut picks: Vec<Pick>, sunk: &mut Vec<Pick>) -> Vec<Pick> {
        let cells = input.cells;
        // What an earlier filter stripped has no value any more.
        let value = |pick: &Pick| if pick.stripped { &[][..] } else { input.cells[pick.at].value() };
        match self {
            Node::Pass => {}
            Node::Block => picks.clear(),
            Node::Chain(filters) => {
                for filter in filters {
                    if picks.is_empty() {
                        break;
                    }
                    picks = filter.run(input, picks, sunk);
                }
            }
            Node::Interleave(filters) => {
                let mut pooled = Vec::new();
                for filter in filters {
                    pooled.append(&mut filter.run(input, picks.clone(), sunk));
                }
                pooled.sort_by_key(|pick| pick.at);
                picks = pooled;
            }
            Node::Condition { predicate, then, otherwise } => {
                let holds = !predicate.run(input, picks.clone(), sunk).is_empty();
                return match if holds { then } else { otherwise } {
                    Some(branch) => branch.run(input, picks, sunk),
                    None => Vec::new(),
                };
            }
            Node::Sink => sunk.append(&mut picks),
            Node::RowKey(pattern) if !pattern.matches(input.key) => picks.clear(),
            Node::RowKey(_) => {}
            Node::Sample(most) if (input.draw)() >= *most => picks.clear(),
            Node::Sample(_) => {}
            Node::Family(pattern) => picks.retain(|pick| pattern.matches(cells[pick.at].family().as_bytes())),
            Node::Qualifier(pattern) => picks.retain(|pick| pattern.matches(cells[pick.at].qualifier())),
            Node::Columns { family, qualifiers } => picks.retain(|pick| {
                let cell = &cells[pick.at];
                cell.family() == family && qualifiers.covers(cell.qualifier())
            }),
            Node::Times { since, before } => picks.retain(|pick| {
                let timestamp = cells[pick.at].timestamp();
                *since <= timestamp && before.is_none_or(|before| timestamp < before)
            }),
            Node::Value(pattern) => picks.retain(|pick| pattern.matches(value(pick))),
            Node::Values(interval) => picks.retain(|pick| interval.covers(value(pick))),
            Node::Mask(mask) => picks.retain(|pick| {
                let value = value(pick);
                value.len() == mask.len() && value.iter().zip(mask).all(|(byte, mask)| byte & mask == *mask)
            }),
            Node::Skip(count) => drop(picks.drain(..picks.len().min(*count as usize))),
            Node::Limit(count) => picks.truncate(*count as usize),
            Node::LimitColumn(most) => {
                let (mut column, mut seen) = (None, 0);
                picks.retain(|pick| {
                    let cell = &cells[pick.at];
                    let its = Some((cell.family(), cell.qualifier()));
                    seen = if column == its { seen + 1 } else { 1 };
                    column = its;
                    seen <= *most
                });
            }
            Node::Strip => picks.iter_mut().for_each(|pick| pick.stripped = true),
            Node::Label(label) => picks.iter_mut().for_each(|pick| pick.label = Some(Arc::clone(label))),
        }
        picks
    }
}
