//! What is too large. Each limit is named in the message that enforces it.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use crate::{Change, Condition, LocalityChange, Mutation, RowChanges};

/// Bytes of a row key.
pub const ROW_KEY: usize = 4 << 10;
/// Bytes of a qualifier.
pub const QUALIFIER: usize = 16 << 10;
/// Bytes of a cell value.
pub const VALUE: usize = 100 << 20;
/// Bytes of a row's cells as one answer.
pub const ROW: usize = 256 << 20;
/// Characters of a table name; those of Bigtable's tables begin with their project and instance.
pub const TABLE_NAME: usize = 180;
/// Characters of a family name.
pub const FAMILY_NAME: usize = 64;
/// Families of a table.
pub const FAMILIES: usize = 100;
/// Locality groups of a table.
pub const LOCALITIES: usize = 20;
/// Fewest bytes of a locality group's blocks.
pub const LEAST_BLOCK: usize = 1 << 10;
/// Bytes of a locality group's blocks.
pub const BLOCK: usize = 4 << 20;
/// Changes in one mutation.
pub const CHANGES: usize = 100_000;
/// Rows in a batch, which is one entry of a tablet's log.
pub const BATCH_ROWS: usize = 10_000;
/// Bytes of a batch.
pub const BATCH: usize = 1 << 20;
/// How often a batch may have been divided, because its tablets were split while it was under way.
pub const BATCH_PARTS: usize = 64;
/// Rows that are asked for by their keys at once.
pub const KEYS: usize = 1_000;
/// Tablets of a table when it is created.
pub const TABLETS: usize = 1_024;
/// How long a table's changes are kept at most.
pub const CHANGES_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Characters of a document's name.
pub const DOCUMENT_NAME: usize = 1_024;
/// Bytes of a document.
pub const DOCUMENT: usize = 64 << 10;
/// Bytes of all documents together: each master has them in memory and in its snapshots.
pub const DOCUMENTS: usize = 16 << 20;

/// Every limit with its unit, for `diptych limits` and the documentation.
pub const ALL: &[(&str, usize, &str)] = &[
    ("row key", ROW_KEY, "bytes"),
    ("qualifier", QUALIFIER, "bytes"),
    ("cell value", VALUE, "bytes"),
    ("row", ROW, "bytes"),
    ("table name", TABLE_NAME, "characters"),
    ("family name", FAMILY_NAME, "characters"),
    ("families per table", FAMILIES, ""),
    ("locality groups per table", LOCALITIES, ""),
    ("block of a locality group, least", LEAST_BLOCK, "bytes"),
    ("block of a locality group", BLOCK, "bytes"),
    ("changes per mutation", CHANGES, ""),
    ("rows per batch", BATCH_ROWS, ""),
    ("batch", BATCH, "bytes"),
    ("rows per read by keys", KEYS, ""),
    ("tablets per new table", TABLETS, ""),
    ("document", DOCUMENT, "bytes"),
    ("all documents", DOCUMENTS, "bytes"),
];

/// Says what is wrong with a row key, if anything.
pub fn check_row_key(row: &[u8]) -> Result<(), String> {
    match row.len() {
        0 => Err(String::from("the row key is empty; a row key has at least one byte")),
        len if len > ROW_KEY => Err(format!("the row key has {len} bytes; the limit is {ROW_KEY}")),
        _ => Ok(()),
    }
}

/// Says what is wrong with the keys of rows that are asked for at once, if anything.
pub fn check_row_keys(rows: &[crate::Bytes]) -> Result<(), String> {
    match rows.len() {
        0 => Err(String::from("no row is asked for; give at least one key")),
        count if count > KEYS => Err(format!("{count} rows are asked for at once; the limit is {KEYS}")),
        _ => rows.iter().try_for_each(|row| check_row_key(row)),
    }
}

/// Says what is wrong with a mutation's sizes, if anything.
pub fn check_mutation<F>(mutation: &Mutation<F>) -> Result<(), String> {
    match &mutation.condition {
        Some(Condition::Newest { qualifier, .. }) => check_qualifier(qualifier)?,
        Some(Condition::Unchanged { columns, .. }) => {
            columns
                .iter()
                .filter_map(|column| column.qualifier.as_ref())
                .try_for_each(|named| check_qualifier(named))?;
        }
        None => {}
    }
    check_changes(&mutation.row, &mutation.changes)
}

/// Says what is wrong with the sizes of rows that are written at once, if anything.
pub fn check_rows<F>(rows: &[RowChanges<F>]) -> Result<(), String> {
    match rows.len() {
        0 => return Err(String::from("the batch has no row; give at least one")),
        count if count > BATCH_ROWS => return Err(format!("the batch has {count} rows; the limit is {BATCH_ROWS}")),
        _ => {}
    }
    for (number, row) in (1..).zip(rows) {
        check_changes(&row.row, &row.changes).map_err(|what| format!("row {number} of the batch: {what}"))?;
    }
    Ok(())
}

/// Says what is wrong with the sizes of a batch, which is rows of one tablet, if anything.
pub fn check_batch<F>(rows: &[RowChanges<F>]) -> Result<(), String> {
    check_rows(rows)?;
    let changes: usize = rows.iter().map(|row| row.changes.len()).sum();
    if changes > CHANGES {
        return Err(format!("the batch has {changes} changes; the limit is {CHANGES}"));
    }
    let weight: usize = rows.iter().map(RowChanges::weight).sum();
    if weight > BATCH {
        return Err(format!("the batch has {weight} bytes; the limit is {BATCH}; a larger row is written alone"));
    }
    Ok(())
}

/// Says what is wrong with the sizes of a row's changes, if anything.
pub fn check_changes<F>(row: &[u8], changes: &[Change<F>]) -> Result<(), String> {
    check_row_key(row)?;
    if changes.is_empty() {
        return Err(String::from("the mutation changes nothing; give at least one change"));
    }
    if changes.len() > CHANGES {
        return Err(format!("the mutation has {} changes; the limit is {CHANGES}", changes.len()));
    }
    for change in changes {
        match change {
            Change::Put { qualifier, value, timestamp, .. } => {
                check_qualifier(qualifier)?;
                if value.len() > VALUE {
                    return Err(format!("a value has {} bytes; the limit is {VALUE}", value.len()));
                }
                if timestamp.0 < -1 {
                    return Err(format!("the timestamp {timestamp} is negative; give microseconds since 1970"));
                }
            }
            Change::DeleteCell { qualifier, .. } | Change::DeleteColumn { qualifier, .. } => {
                check_qualifier(qualifier)?;
            }
            Change::DeleteFamily { .. } | Change::DeleteRow => {}
        }
    }
    let weight: usize = changes.iter().map(Change::weight).sum();
    if weight > ROW {
        return Err(format!("the mutation has {weight} bytes; the limit for a row is {ROW}"));
    }
    Ok(())
}

fn check_qualifier(qualifier: &[u8]) -> Result<(), String> {
    if qualifier.len() > QUALIFIER {
        return Err(format!("a qualifier has {} bytes; the limit is {QUALIFIER}", qualifier.len()));
    }
    Ok(())
}

/// Says what is wrong with a table's name, if anything.
pub fn check_table_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > TABLE_NAME || !name.chars().all(good) || name.starts_with(['-', '.', '_']) {
        return Err(format!(
            "{name:?} is no table name; use 1 to {TABLE_NAME} of a-z A-Z 0-9 - _ . with a letter or digit first"
        ));
    }
    Ok(())
}

/// Says what is wrong with a family's name, if anything.
pub fn check_family_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > FAMILY_NAME || !name.chars().all(good) {
        return Err(format!("{name:?} is no family name; use 1 to {FAMILY_NAME} of a-z A-Z 0-9 - _ ."));
    }
    Ok(())
}

/// Says what is wrong with a locality group's name or settings, if anything.
pub fn check_locality(locality: &LocalityChange) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name = &locality.name;
    if name.is_empty() || name.len() > FAMILY_NAME || !name.chars().all(good) {
        return Err(format!("{name:?} is no locality group's name; use 1 to {FAMILY_NAME} of a-z A-Z 0-9 - _ ."));
    }
    match locality.block_bytes.map(|bytes| bytes as usize) {
        Some(bytes) if !(LEAST_BLOCK..=BLOCK).contains(&bytes) => {
            Err(format!("locality group {name:?}: a block of {bytes} bytes; the limits are {LEAST_BLOCK} and {BLOCK}"))
        }
        _ => Ok(()),
    }
}
