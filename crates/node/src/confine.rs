//! Operations of those who may not do everything: what of them may be done, before anything else looks at them.
//!
//! Reads are confined to the families that may be read, so that no filter, limit or count of whoever asked can tell
//! anything of the others; what names others is refused. A condition tells what is there, and so needs the right to read.

use model::access::{Right, Rights, forbidden};
use model::settings::CHANGES;
use model::{ColumnFilter, Condition, Operation, ReadOptions, Refusal, Schema};

/// The operation as it may be carried out, or why not.
pub(crate) fn confine(schema: &Schema, rights: &Rights, operation: Operation) -> Result<Operation, Refusal> {
    Ok(match operation {
        Operation::Write { request, mut mutation } => {
            rights.check_changes(&schema.name, &mutation.changes)?;
            match &mut mutation.condition {
                None => {}
                Some(Condition::Newest { family, .. }) => rights.check(Right::Read, &schema.name, family)?,
                Some(Condition::Unchanged { columns, .. }) => confine_columns(schema, rights, columns)?,
            }
            Operation::Write { request, mutation }
        }
        Operation::WriteMany { request, part_of, rows } => {
            rows.iter().try_for_each(|row| rights.check_changes(&schema.name, &row.changes))?;
            Operation::WriteMany { request, part_of, rows }
        }
        Operation::Get { row, options } => Operation::Get { row, options: confine_read(schema, rights, options)? },
        Operation::GetMany { rows, options } => {
            Operation::GetMany { rows, options: confine_read(schema, rights, options)? }
        }
        Operation::Scan { range, options, rows, reverse } => {
            Operation::Scan { range, options: confine_read(schema, rights, options)?, rows, reverse }
        }
        Operation::Changes(query) => {
            rights.check(Right::Read, &schema.name, CHANGES)?;
            Operation::Changes(query)
        }
    })
}

fn confine_read(
    schema: &Schema,
    rights: &Rights,
    mut options: ReadOptions<String>,
) -> Result<ReadOptions<String>, Refusal> {
    confine_columns(schema, rights, &mut options.columns)?;
    Ok(options)
}

/// No column means all that may be read.
fn confine_columns(schema: &Schema, rights: &Rights, columns: &mut Vec<ColumnFilter<String>>) -> Result<(), Refusal> {
    if !columns.is_empty() {
        return columns.iter().try_for_each(|column| rights.check(Right::Read, &schema.name, &column.family));
    }
    match rights.families(Right::Read, schema) {
        None => Ok(()),
        Some(families) if families.is_empty() => Err(forbidden(Right::Read, &schema.name)),
        Some(families) => {
            let column = |family: &str| ColumnFilter { family: family.into(), qualifier: None };
            *columns = families.into_iter().map(column).collect();
            Ok(())
        }
    }
}
