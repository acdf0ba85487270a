//! `checkpoint create | list | show | remove`: tablets kept as they are, at the price of a few names. `restore` reads
//! them again ([`restore`]).

mod restore;

use client::{CheckpointState, CheckpointStatus, Checkpoints, Client, Removal};
use model::NodeId;
use model::checkpoint::{Checkpoint, Held, TableCopy, TabletCopy};
use serde_json::{Value, json};

use super::args::CheckpointCommand;
use super::show::{self, date};
use super::table::slice_to_json;
use super::{Exit, Failure, Output};
use crate::host::node::shard::Clock;

pub async fn run(client: &Client, command: CheckpointCommand, out: &mut Output) -> Result<(), Failure> {
    match command {
        CheckpointCommand::Create { name, table } => create(client, &name, table.as_deref(), out).await,
        CheckpointCommand::List => list(client, out).await,
        CheckpointCommand::Show { name } => show(client, &name, out).await,
        CheckpointCommand::Remove { name } => remove(client, &name, out).await,
        CheckpointCommand::Restore(args) => restore::run(client, &args, out).await,
    }
}

async fn create(client: &Client, name: &str, table: Option<&str>, out: &mut Output) -> Result<(), Failure> {
    let made = client.create_checkpoint(name, table, Clock::wall()).await?;
    let tables: Vec<&str> = made.tables.iter().map(|table| table.schema.name.as_str()).collect();
    let text = format!(
        "made checkpoint {name}: {} of {}, {}",
        tablets_text(made.tablets().count()),
        tables.join(", "),
        show::size(made.bytes())
    );
    Ok(out.say(made_to_json(&made), text)?)
}

async fn list(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let found = client.checkpoints(None).await?;
    if out.json {
        return Ok(out.line(list_to_json(&found))?);
    }
    if found.all.is_empty() {
        out.line("no checkpoints yet; make one: diptych checkpoint create NAME")?;
    } else {
        let row = |status: &CheckpointStatus| {
            let tables = status.whole.iter().flat_map(|whole| &whole.tables).map(|table| table.schema.name.as_str());
            let tablets = match &status.whole {
                Some(whole) => whole.tablets().count(),
                None => status.held.iter().map(|(_, held)| held.tablets.len()).sum(),
            };
            vec![
                status.name.clone(),
                String::from(status.state.name()),
                status.whole.as_ref().map_or_else(|| String::from("-"), |whole| date(whole.begun)),
                tables.collect::<Vec<_>>().join(" "),
                tablets.to_string(),
                show::size(status.bytes()),
                names(status.held.iter().map(|(node, _)| *node)).join(" "),
            ]
        };
        let columns = ["checkpoint", "state", "begun", "tables", "tablets#", "size#", "nodes"];
        out.table(&columns, found.all.iter().map(row).collect())?;
    }
    for (node, error) in &found.unheard {
        out.line(format!("{node} does not answer: {error}"))?;
    }
    Ok(())
}

async fn show(client: &Client, name: &str, out: &mut Output) -> Result<(), Failure> {
    let found = client.checkpoints(Some(name)).await?;
    if found.all.is_empty() {
        return Err(nothing(name, &found.unheard));
    }
    if out.json {
        return Ok(out.line(list_to_json(&found))?);
    }
    for status in &found.all {
        let id = status.id.map_or_else(|| String::from("unknown"), |id| id.to_string());
        let begun = status.whole.as_ref().map_or_else(String::new, |whole| format!(", begun {}", date(whole.begun)));
        let size = show::size(status.bytes());
        out.line(format!("{}: {}{begun}, {size}, id {id}", status.name, status.state.name()))?;
        for lacks in &status.lacks {
            out.line(format!("  {lacks}"))?;
        }
        out.line("")?;
        let tables = status.whole.iter().flat_map(|whole| &whole.tables);
        let rows: Vec<Vec<String>> =
            tables.flat_map(|table| table.tablets.iter().map(|copy| row(table, copy))).collect();
        match rows.is_empty() {
            false => out.table(&["table", "tablet", "rows", "node", "epoch", "lsn#", "copied", "size#"], rows)?,
            true => {
                let row = |(node, held): &(NodeId, Held)| {
                    let tablets: Vec<String> = held.tablets.iter().map(ToString::to_string).collect();
                    vec![node.to_string(), tablets.join(" "), show::size(held.bytes)]
                };
                out.table(&["node", "tablets", "size#"], status.held.iter().map(row).collect())?;
            }
        }
    }
    for (node, error) in &found.unheard {
        out.line(format!("{node} does not answer: {error}"))?;
    }
    Ok(())
}

fn row(table: &TableCopy, copy: &TabletCopy) -> Vec<String> {
    vec![
        table.schema.name.clone(),
        copy.tablet.to_string(),
        copy.slice.to_string(),
        copy.node.to_string(),
        copy.epoch.to_string(),
        copy.upto.0.to_string(),
        date(copy.date),
        show::size(copy.bytes),
    ]
}

async fn remove(client: &Client, name: &str, out: &mut Output) -> Result<(), Failure> {
    let removal = client.remove_checkpoint(name).await?;
    let from = names(removal.removed.iter().copied()).join(", ");
    if !removal.unheard.is_empty() {
        let away = names(removal.unheard.iter().map(|(node, _)| *node)).join(", ");
        let gone = if from.is_empty() { String::new() } else { format!("removed from {from}; ") };
        let what = format!("checkpoint {name}: {gone}no answer from {away}, which may keep parts of it");
        return Err(Failure::new(Exit::Unavailable, what).hint("Repeat this when they are back."));
    }
    if removal.removed.is_empty() {
        return Err(nothing(name, &[]));
    }
    Ok(out.say(removal_to_json(name, &removal), format!("removed checkpoint {name} from {from}"))?)
}

/// There is no such checkpoint, as far as nodes answer.
fn nothing(name: &str, unheard: &[(NodeId, client::Error)]) -> Failure {
    match unheard.is_empty() {
        true => Failure::not_found(format!("no checkpoint {name:?}"))
            .hint("`diptych checkpoint list` shows the checkpoints there are."),
        false => {
            let away = names(unheard.iter().map(|(node, _)| *node)).join(", ");
            Failure::new(Exit::Unavailable, format!("no node that answers has a checkpoint {name:?}"))
                .hint(format!("{away} did not answer: `diptych status` shows which nodes are up."))
        }
    }
}

fn names(nodes: impl Iterator<Item = NodeId>) -> Vec<String> {
    nodes.map(|node| node.to_string()).collect()
}

fn tablets_text(count: usize) -> String {
    if count == 1 { String::from("1 tablet") } else { format!("{} tablets", show::count(count as u64)) }
}

/// All of them, as a list for machines.
pub fn list_to_json(found: &Checkpoints) -> Value {
    json!({
        "checkpoints": found.all.iter().map(status_to_json).collect::<Vec<_>>(),
        "unheard": unheard_to_json(&found.unheard),
    })
}

/// One that was just made.
pub fn made_to_json(made: &Checkpoint) -> Value {
    json!({
        "name": made.name,
        "id": made.id.to_string(),
        "state": CheckpointState::Complete.name(),
        "begun": made.begun.0,
        "bytes": made.bytes(),
        "tables": tables_to_json(made),
    })
}

/// One as the nodes have it.
pub fn status_to_json(status: &CheckpointStatus) -> Value {
    let held = |(node, held): &(NodeId, Held)| {
        let tablets: Vec<String> = held.tablets.iter().map(ToString::to_string).collect();
        json!({"node": node.to_string(), "tablets": tablets, "bytes": held.bytes})
    };
    json!({
        "name": status.name,
        "id": status.id.map(|id| id.to_string()),
        "state": status.state.name(),
        "begun": status.whole.as_ref().map(|whole| whole.begun.0),
        "bytes": status.bytes(),
        "tables": status.whole.as_ref().map_or_else(|| json!([]), tables_to_json),
        "nodes": status.held.iter().map(held).collect::<Vec<_>>(),
        "lacks": status.lacks,
    })
}

fn tables_to_json(checkpoint: &Checkpoint) -> Value {
    let copy = |copy: &TabletCopy| {
        json!({
            "tablet": copy.tablet.to_string(),
            "rows": slice_to_json(&copy.slice),
            "node": copy.node.to_string(),
            "epoch": copy.epoch.0,
            "lsn": copy.upto.0,
            "timestamp": copy.date.0,
            "bytes": copy.bytes,
        })
    };
    let table = |table: &TableCopy| json!({"table": table.schema.name, "tablets": table.tablets.iter().map(copy).collect::<Vec<_>>()});
    checkpoint.tables.iter().map(table).collect()
}

/// What was removed, and where.
pub fn removal_to_json(name: &str, removal: &Removal) -> Value {
    json!({
        "removed": name,
        "from": names(removal.removed.iter().copied()),
        "unheard": unheard_to_json(&removal.unheard),
    })
}

fn unheard_to_json(unheard: &[(NodeId, client::Error)]) -> Value {
    unheard.iter().map(|(node, error)| json!({"node": node.to_string(), "why": error.to_string()})).collect()
}
