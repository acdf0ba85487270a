//! A filter as it was asked for.

use std::ops::Bound;

use model::{Bytes, Timestamp};

/// Byte strings between two bounds, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The first ones.
    pub start: Bound<Bytes>,
    /// The last ones.
    pub end: Bound<Bytes>,
}

impl Interval {
    /// Is it in there?
    pub fn covers(&self, bytes: &[u8]) -> bool {
        let after = match &self.start {
            Bound::Included(start) => bytes >= &start[..],
            Bound::Excluded(start) => bytes > &start[..],
            Bound::Unbounded => true,
        };
        let before = match &self.end {
            Bound::Included(end) => bytes <= &end[..],
            Bound::Excluded(end) => bytes < &end[..],
            Bound::Unbounded => true,
        };
        after && before
    }
}

/// One filter, with those that it is made of. Patterns are RE2's, of bytes, and match as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All cells.
    Pass,
    /// None.
    Block,
    /// The first one's output goes into the second one, and so on.
    Chain(Vec<Filter>),
    /// Each gets the same cells; what comes out of any comes out, in the order of cells.
    Interleave(Vec<Filter>),
    /// If anything comes out of the first one, `then` gets the same cells, else `otherwise`. What is not there lets nothing through.
    Condition {
        /// What is asked.
        predicate: Box<Filter>,
        /// If so.
        then: Option<Box<Filter>>,
        /// If not.
        otherwise: Option<Box<Filter>>,
    },
    /// Straight into what comes out of the whole, past all that is around it.
    Sink,
    /// All cells, if the row's key matches.
    RowKey(Bytes),
    /// All cells, of so large a share of all rows.
    Sample(f64),
    /// Cells of the families whose names match.
    Family(Bytes),
    /// Cells of the columns whose qualifiers match.
    Qualifier(Bytes),
    /// Cells of the columns of this family whose qualifiers lie there.
    Columns {
        /// Its name.
        family: String,
        /// Where.
        qualifiers: Interval,
    },
    /// Cells from the first time on and before the second.
    Times {
        /// Not before this.
        since: Timestamp,
        /// Before this; for ever without it.
        before: Option<Timestamp>,
    },
    /// Cells whose values match.
    Value(Bytes),
    /// Cells whose values lie there.
    Values(Interval),
    /// Cells whose values are as long as this, and have all its bits.
    Mask(Bytes),
    /// All but the first so many cells of the row.
    Skip(u32),
    /// The first so many cells of the row.
    Limit(u32),
    /// The first so many cells of each column.
    LimitColumn(u32),
    /// All cells, without their values.
    Strip,
    /// All cells, with this label.
    Label(String),
}
