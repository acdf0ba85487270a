//! Row filters (Bigtable, `google.bigtable.v2.RowFilter`): a row goes in as an ordered list of cells, and some come out, perhaps
//! more than once, without their values or with a label.
//!
//! ```text
//!   Filter ──check──▶ Compiled ──apply(row)──▶ picks: which cells, stripped or not, with which label
//!      └──────────────▶ Needs: families, columns, times and versions that no filter asks for need not be read at all
//! ```
//!
//! Nothing here reads rows or knows messages. Who filters brings the row, and chance if rows are to be sampled.

mod apply;
mod compile;
mod needs;
mod pattern;
#[cfg(test)]
mod tests;
mod tree;

pub use self::apply::{Cell, Input, Pick};
pub use self::compile::Compiled;
pub use self::needs::{Column, Needs};
pub use self::tree::{Filter, Interval};

/// What is wrong with a filter, for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(pub String);

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Invalid {}
