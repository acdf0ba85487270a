//! Where in a row lies what a reader wants, so that the rest can be passed over.

use model::{FamilyId, ReadOptions};

use crate::key;
use crate::sstable::filter;

/// Filters are asked for so many columns at most; for more, only for the row.
const MOST_ASKED: usize = 4;

/// Spans of what follows the escaped row in a key, in order; none of them is everything. Deletions that may cover what is
/// wanted are wanted too.
pub struct Wanted {
    spans: Vec<[Vec<u8>; 2]>,
    families: Vec<FamilyId>,
    /// If only a few columns are wanted: those, with their escaped qualifiers.
    columns: Vec<(FamilyId, Vec<u8>)>,
}

/// How a key stands to the spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the span that was come to.
    Within,
    /// Before that.
    Before,
    /// After the last.
    After,
}

impl Wanted {
    /// What these options want.
    pub fn new(options: &ReadOptions) -> Wanted {
        let (mut spans, mut families, mut columns) = (Vec::new(), Vec::new(), Vec::new());
        if options.columns.is_empty() {
            return Wanted { spans, families, columns };
        }
        let whole = |family| options.columns.iter().any(|other| other.family == family && other.qualifier.is_none());
        spans.push(key::row_deletions());
        for column in &options.columns {
            families.push(column.family);
            match &column.qualifier {
                Some(qualifier) if !whole(column.family) => {
                    spans.push(key::family_deletions(column.family));
                    spans.push(key::column_span(column.family, qualifier));
                    columns.push((column.family, key::row_start(qualifier)));
                }
                _ => spans.push(key::family_span(column.family)),
            }
        }
        spans.sort();
        spans.dedup();
        families.sort();
        families.dedup();
        if columns.len() < options.columns.len() || columns.len() > MOST_ASKED {
            columns.clear();
        }
        Wanted { spans, families, columns }
    }

    /// The columns of the row with this hash that filters are to be asked for; none is the row.
    pub fn columns(&self, row: u64) -> impl Iterator<Item = filter::Column> {
        self.columns.iter().map(move |(family, qualifier)| filter::Column::new(row, *family, qualifier))
    }

    /// The families, in order; none is all.
    pub fn families(&self) -> &[FamilyId] {
        &self.families
    }

    /// Where the key of which this is what follows the row stands. `at` is the span that was come to, 0 at the row's start.
    pub fn place(&self, at: &mut usize, rest: &[u8]) -> Place {
        if self.spans.is_empty() {
            return Place::Within;
        }
        while let Some([start, end]) = self.spans.get(*at) {
            if rest < &start[..] {
                return Place::Before;
            }
            if rest < &end[..] {
                return Place::Within;
            }
            *at += 1;
        }
        Place::After
    }

    /// Where a span starts.
    pub fn start(&self, span: usize) -> &[u8] {
        &self.spans[span][0]
    }
}
