//! Rows as readers see them.

use alloc::vec::Vec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{FamilyId, Timestamp};

/// One version of one column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The column's family.
    pub family: FamilyId,
    /// The column within its family; any bytes, also none.
    pub qualifier: Bytes,
    /// The version.
    pub timestamp: Timestamp,
    /// What is kept.
    pub value: Bytes,
}

/// A row with the cells that were asked for, by family, qualifier, and newest version first. Never without cells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The row key.
    pub key: Bytes,
    /// At least one cell.
    pub cells: Vec<Cell>,
}

impl Row {
    /// Bytes of keys and values, for limits on answers.
    pub fn weight(&self) -> usize {
        self.key.len() + self.cells.iter().map(|cell| cell.qualifier.len() + cell.value.len() + 16).sum::<usize>()
    }
}
