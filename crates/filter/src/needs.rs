//! What of a row a filter needs, so that the engine can leave out the rest.
//!
//! Only what must be so is said: filters that look at one cell at a time may change places with each other, so what any of
//! them in a chain turns away need not be read. Behind one that counts, nothing may: what it counts must all be there.

use model::{Bytes, Timestamp};

use crate::pattern::literal;
use crate::tree::Filter;

/// A column, or all of a family's, or those of that qualifier in all families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Of which family; any without it.
    pub family: Option<String>,
    /// With which qualifier; any without it.
    pub qualifier: Option<Bytes>,
}

/// What a filter can let through, at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Of which columns.
    pub column: Column,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub before: Option<Timestamp>,
    /// So many versions of each column, of those times; all of them without it.
    pub versions: Option<u32>,
    /// Nothing at all.
    pub nothing: bool,
    /// Each row of which no more than this is read, and of which there is anything, comes through.
    pub every_row: bool,
}

impl Needs {
    /// All of a row.
    pub const ALL: Needs = Needs {
        column: Column { family: None, qualifier: None },
        since: None,
        before: None,
        versions: None,
        nothing: false,
        every_row: true,
    };

    pub(crate) fn of(filter: &Filter) -> Needs {
        let mut needs = Needs::ALL;
        needs.narrow(filter);
        needs
    }

    /// Takes a filter into account that comes next; false if none after it may be.
    fn narrow(&mut self, filter: &Filter) -> bool {
        match filter {
            Filter::Chain(filters) => {
                let mut narrows = true;
                for filter in filters {
                    if narrows {
                        narrows = self.narrow(filter);
                    } else {
                        self.every_row &= leaves_some(filter);
                    }
                }
                return narrows;
            }
            // Whatever reaches it comes out.
            Filter::Sink => return false,
            Filter::Interleave(_) | Filter::Condition { .. } => {
                self.every_row = false;
                return false;
            }
            Filter::Block => self.nothing = true,
            Filter::Family(pattern) => match literal(pattern).and_then(|name| String::from_utf8(name).ok()) {
                Some(name) => self.only_family(name),
                None => self.every_row = false,
            },
            Filter::Columns { family, .. } => {
                self.only_family(family.clone());
                self.every_row = false;
            }
            Filter::Qualifier(pattern) => match literal(pattern).map(Bytes::from) {
                Some(qualifier) => match &self.column.qualifier {
                    Some(other) if *other != qualifier => self.nothing = true,
                    _ => self.column.qualifier = Some(qualifier),
                },
                None => self.every_row = false,
            },
            Filter::Times { since, before } => {
                self.since = self.since.max(Some(*since));
                self.before = [self.before, *before].into_iter().flatten().min();
            }
            Filter::LimitColumn(count) => {
                self.versions = Some(*count);
                return false;
            }
            Filter::Limit(_) => return false,
            Filter::Skip(_) => {
                self.every_row = false;
                return false;
            }
            // A limit on versions behind these counts what they let through: to be sure, nothing behind them is looked at.
            Filter::Value(_) | Filter::Values(_) | Filter::Mask(_) => {
                self.every_row = false;
                return false;
            }
            Filter::RowKey(_) | Filter::Sample(_) => self.every_row = false,
            Filter::Pass | Filter::Strip | Filter::Label(_) => {}
        }
        true
    }

    fn only_family(&mut self, name: String) {
        match &self.column.family {
            Some(other) if *other != name => self.nothing = true,
            _ => self.column.family = Some(name),
        }
    }
}

/// Does something of every row come through?
fn leaves_some(filter: &Filter) -> bool {
    match filter {
        Filter::Pass | Filter::Strip | Filter::Label(_) | Filter::Limit(_) | Filter::LimitColumn(_) => true,
        Filter::Chain(filters) => filters.iter().all(leaves_some),
        _ => false,
    }
}
