//! `put`, `get`, `cput`, `del`, `scan`.

use std::time::Duration;

use bytes::Bytes;
use client::{Client, Written};
use futures_util::StreamExt;
use model::{
    Change, ColumnFilter, Condition, Consistency, Freshness, Mutation, ReadOptions, RowRange, Timestamp, limits,
};
use serde_json::json;

use super::args::{Consistent, Cput, Del, Get, Kind, Put, RowName, Scan, Times};
use super::parse::{Assignment, Column};
use super::show::{printable, version_to_json};
use super::{Exit, Failure, Output};

pub async fn put(client: &Client, args: Put, out: &mut Output) -> Result<(), Failure> {
    let changes = args.cells.into_iter().map(|cell| put_change(cell, args.timestamp)).collect();
    write(client, args.at, None, changes, out).await
}

pub async fn del(client: &Client, args: Del, out: &mut Output) -> Result<(), Failure> {
    let changes = match (args.columns.is_empty(), args.timestamp) {
        (true, None) => vec![Change::DeleteRow],
        (true, Some(_)) => return Err(Failure::usage("--timestamp deletes one version of a column: name the column")),
        (false, timestamp) => {
            args.columns.into_iter().map(|column| delete_change(column, timestamp)).collect::<Result<_, _>>()?
        }
    };
    write(client, args.at, None, changes, out).await
}

pub async fn cput(client: &Client, args: Cput, out: &mut Output) -> Result<(), Failure> {
    let Column { family, qualifier } = args.column;
    let qualifier = qualifier.unwrap_or_default();
    let put = args.put.map(|value| Assignment { family: family.clone(), qualifier: qualifier.clone(), value });
    let puts = put.into_iter().chain(args.set).map(|cell| Ok(put_change(cell, args.timestamp)));
    let deletes = args.delete.into_iter().map(|column| delete_change(column, None));
    let changes = deletes.chain(puts).collect::<Result<_, Failure>>()?;
    let condition = Condition::Newest { family, qualifier, expect: args.expect };
    write(client, args.at, Some(condition), changes, out).await
}

fn put_change(cell: Assignment, timestamp: Option<i64>) -> Change<String> {
    let Assignment { family, qualifier, value } = cell;
    Change::Put { family, qualifier, value, timestamp: timestamp.map_or(Timestamp::SERVER, Timestamp) }
}

fn delete_change(column: Column, timestamp: Option<i64>) -> Result<Change<String>, Failure> {
    Ok(match (column, timestamp) {
        (Column { family, qualifier: Some(qualifier) }, Some(timestamp)) => {
            Change::DeleteCell { family, qualifier, timestamp: Timestamp(timestamp) }
        }
        (Column { family, qualifier: Some(qualifier) }, None) => Change::DeleteColumn { family, qualifier },
        (Column { family, qualifier: None }, None) => Change::DeleteFamily { family },
        (Column { family, .. }, Some(_)) => {
            let message = format!("--timestamp deletes one version of a column, and {family} is a family");
            return Err(Failure::usage(message).hint(format!("name the column as {family}:qualifier")));
        }
    })
}

async fn write(
    client: &Client,
    RowName { table, row }: RowName,
    condition: Option<Condition<String>>,
    changes: Vec<Change<String>>,
    out: &mut Output,
) -> Result<(), Failure> {
    let mutation = Mutation { row: row.clone(), condition: condition.clone(), changes };
    limits::check_mutation(&mutation).map_err(Failure::usage)?;
    match (client.mutate(&table, mutation).await?, condition) {
        (Written::Applied { version }, None) => Ok(out.say(json!({"version": version.0}), format!("@{version}"))?),
        (Written::Applied { version }, Some(_)) => {
            Ok(out.say(json!({"applied": true, "version": version.0}), format!("@{version}"))?)
        }
        (Written::Differs { present }, condition) => {
            let column = match condition {
                Some(Condition::Newest { family, qualifier, .. }) => format!("{family}:{}", printable(&qualifier)),
                Some(Condition::Unchanged { .. }) | None => String::new(),
            };
            let row = printable(&row);
            let (json, message) = match &present {
                Some(present) => {
                    let text = format!("{row}  {column}  @{}  {}", present.timestamp, printable(&present.value));
                    let json = version_to_json(&present.value, present.timestamp);
                    if !out.json {
                        out.line(text)?;
                    }
                    (json, format!("{column} of row {row} has another value; nothing was changed"))
                }
                None => (json!(null), format!("{column} of row {row} has no value; nothing was changed")),
            };
            if out.json {
                out.line(json!({"applied": false, "present": json}))?;
            }
            let hint = "read the row again, decide anew, and give the value that you saw as --expect";
            Err(Failure::new(Exit::Differs, message).hint(hint))
        }
    }
}

pub async fn get(client: &Client, args: Get, out: &mut Output) -> Result<(), Failure> {
    let RowName { table, row } = args.at;
    let consistency = consistency(args.consistent)?;
    let columns = filters(args.columns.clone());
    let options = read_options(columns, args.versions, args.times, consistency);
    if !args.more.is_empty() {
        let rows = [row].into_iter().chain(args.more).collect();
        return get_many(client, &table, rows, options, args.raw, out).await;
    }
    let (found, from) = client.get_from(&table, row.clone(), options).await?;
    let Some(found) = found else {
        let row = printable(&row);
        let columns: Vec<String> = args.columns.iter().map(Column::to_string).collect();
        return Err(Failure::not_found(match columns.is_empty() {
            true => format!("no row {row} in table {table}"),
            false => format!("no {} in row {row} of table {table}", columns.join(" or ")),
        })
        .hint(from.as_ref().map(freshness).unwrap_or_default()));
    };
    match args.raw {
        true => out.values(&found, &mut true)?,
        false => out.row_from(&found, from.as_ref())?,
    }
    if let (false, Some(from)) = (out.json, from) {
        eprintln!("{}", freshness(&from));
    }
    Ok(())
}

/// Writes those that are there, and fails if any is not.
async fn get_many(
    client: &Client,
    table: &str,
    rows: Vec<Bytes>,
    options: ReadOptions<String>,
    raw: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    limits::check_row_keys(&rows).map_err(Failure::usage)?;
    let mut found = client.get_many_from(table, rows.clone(), options);
    let (mut first, mut oldest, mut missing) = (true, None, Vec::new());
    for key in &rows {
        // The stream has an answer for every key.
        let Some(answer) = found.next().await else { break };
        let (row, from) = answer?;
        match row {
            Some(row) if raw => out.values(&row, &mut first)?,
            Some(row) => out.row_from(&row, from.as_ref())?,
            None => missing.push(printable(key)),
        }
        oldest = older(oldest, from);
    }
    if let (false, Some(from)) = (out.json, oldest) {
        eprintln!("oldest part: {}", freshness(&from));
    }
    match missing.is_empty() {
        true => Ok(()),
        false => {
            Err(Failure::not_found(format!("not in table {table}, or without such cells: {}", missing.join(", "))))
        }
    }
}

/// Who does not know its age is older than anybody.
fn older(oldest: Option<Freshness>, from: Option<Freshness>) -> Option<Freshness> {
    from.into_iter().chain(oldest).max_by_key(|from| from.lag.unwrap_or(Duration::MAX))
}

pub async fn scan(client: &Client, args: Scan, out: &mut Output) -> Result<(), Failure> {
    let prefix = args.prefix.as_deref().map_or_else(RowRange::default, RowRange::prefix);
    let range = prefix.intersect(&RowRange { start: args.start.unwrap_or_default(), end: args.end });
    let families = args.family.into_iter().map(|family| Column { family, qualifier: None });
    let consistency = consistency(args.consistent)?;
    let options = read_options(filters(families.chain(args.column)), args.versions, args.times, consistency);
    let mut rows = client.scan_from(&args.table, range, args.reverse, options, args.limit);
    let mut first = true;
    let mut oldest = None;
    while let Some(row) = rows.next().await {
        let (row, from) = row?;
        match args.raw {
            true => out.values(&row, &mut first)?,
            false => out.row_from(&row, from.as_ref())?,
        }
        oldest = older(oldest, from);
    }
    if let (false, Some(from)) = (out.json, oldest) {
        eprintln!("oldest part: {}", freshness(&from));
    }
    Ok(())
}

fn read_options(
    columns: Vec<ColumnFilter<String>>,
    versions: u32,
    Times { since, before }: Times,
    consistency: Consistency,
) -> ReadOptions<String> {
    let (since, before) = (since.map(Timestamp), before.map(Timestamp));
    ReadOptions { columns, versions, consistency, since, before }
}

/// What the read must see.
pub fn consistency(Consistent { consistency, max_lag }: Consistent) -> Result<Consistency, Failure> {
    match (consistency, max_lag) {
        (Kind::Eventual, max_lag) => Ok(Consistency::Eventual { max_lag }),
        (Kind::Linearizable, None) => Ok(Consistency::Linearizable),
        (Kind::Linearizable, Some(_)) => {
            Err(Failure::usage("--max-lag goes with --consistency eventual; other reads see every acknowledged write"))
        }
    }
}

/// Which replica answered, in a line for people.
fn freshness(from: &Freshness) -> String {
    let Freshness { node, epoch, applied, lag, .. } = from;
    match lag {
        Some(lag) => format!("from {node} at {epoch} {applied}; at most {:.1} ms old", lag.as_secs_f64() * 1e3),
        None => format!("from {node} at {epoch} {applied}; it cannot say how old"),
    }
}

fn filters(columns: impl IntoIterator<Item = Column>) -> Vec<ColumnFilter<String>> {
    columns.into_iter().map(|Column { family, qualifier }| ColumnFilter { family, qualifier }).collect()
}

impl std::fmt::Display for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.qualifier {
            Some(qualifier) => write!(f, "{}:{}", self.family, printable(qualifier)),
            None => write!(f, "family {}", self.family),
        }
    }
}
