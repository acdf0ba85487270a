//! What a table promises beside its rows, as options, as text and as JSON; and tables that can be brought back.

use std::time::Duration;

use clap::Args;
use client::Client;
use model::{AdminReply, AdminRequest, Aggregate, Family, Granularity, Schema, SettingsChange};
use serde_json::{Value, json};

use super::show::date;
use super::table::{change, schema_to_json};
use super::{Failure, Output, parse};

/// Options of `table create` and `table alter`.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// How fine the versions of cells are for the Bigtable API: millis, or micros
    #[arg(long, value_parser = parse::granularity, value_name = "HOW")]
    pub granularity: Option<Granularity>,
    /// Neither the table nor a family of it can be dropped
    #[arg(long, conflicts_with = "unprotect")]
    pub protect: bool,
    /// They can be dropped again
    #[arg(long)]
    pub unprotect: bool,
    /// How long what happens to rows is kept for those who follow it, such as 7d, or off
    #[arg(long, value_parser = parse::changes, value_name = "DURATION")]
    pub changes: Option<Duration>,
    /// What the cells of a new family add up, for the Bigtable API: sum, min or max
    #[arg(long, value_parser = parse::aggregate, value_name = "FAMILY=HOW")]
    pub aggregate: Vec<(String, Aggregate)>,
}

impl SettingsArgs {
    /// What shall be different.
    pub fn into_change(self) -> SettingsChange {
        SettingsChange {
            granularity: self.granularity,
            protected: (self.protect || self.unprotect).then_some(self.protect),
            changes: self.changes,
            aggregates: self.aggregate,
        }
    }
}

/// `table drop`: at once, or so that it can be brought back for a while.
pub async fn drop(client: &Client, table: String, keep: Option<Duration>, out: &mut Output) -> Result<(), Failure> {
    let schema = change(client, drop_request(table, keep)).await?;
    let until = schema.settings.dropped.map(date);
    let text = match &until {
        None => format!("dropped table {}", schema.name),
        Some(until) => {
            format!("dropped table {}; until {until} UTC: diptych table restore {}", schema.name, schema.name)
        }
    };
    Ok(out.say(dropped_to_json(&schema), text)?)
}

/// The request that drops a table.
pub fn drop_request(table: String, keep: Option<Duration>) -> AdminRequest {
    match keep.filter(|keep| !keep.is_zero()) {
        None => AdminRequest::DropTable(table),
        Some(keep) => AdminRequest::HideTable { table, keep },
    }
}

/// What became of a table that was dropped.
pub fn dropped_to_json(schema: &Schema) -> Value {
    match schema.settings.dropped {
        None => json!({"dropped": schema.name}),
        Some(until) => json!({"dropped": schema.name, "until": until.0}),
    }
}

/// `table restore`.
pub async fn restore(client: &Client, table: String, out: &mut Output) -> Result<(), Failure> {
    let schema = change(client, AdminRequest::RestoreTable(table)).await?;
    Ok(out.say(schema_to_json(&schema), format!("table {} is back", schema.name))?)
}

/// Tables that can be brought back, the one that was dropped last first.
pub async fn hidden(client: &Client) -> Result<Vec<Schema>, client::Error> {
    match client.admin(AdminRequest::Hidden).await? {
        AdminReply::Hidden(tables) => Ok(tables),
        other => Err(client::Error::Protocol(format!("asked for hidden tables, got {other:?}"))),
    }
}

/// `table list --hidden`.
pub async fn list_hidden(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let tables = hidden(client).await?;
    if out.json {
        let tables: Vec<Value> = tables.iter().map(schema_to_json).collect();
        return Ok(out.line(json!({"tables": tables}))?);
    }
    if tables.is_empty() {
        return Ok(out.line("no table can be brought back")?);
    }
    let row = |schema: &Schema| {
        let until = schema.settings.dropped.map(date).unwrap_or_default();
        vec![schema.name.clone(), schema.table.0.to_string(), until]
    };
    Ok(out.table(&["table", "number#", "can be restored until"], tables.iter().map(row).collect())?)
}

/// What is not as in every table; empty, or with a semicolon before it.
pub fn text(schema: &Schema) -> String {
    let granularity = match schema.settings.granularity {
        Granularity::Micros => "",
        Granularity::Millis => "; whole milliseconds",
    };
    let protected = if schema.settings.protected { "; protected" } else { "" };
    let kept = |kept| format!("; changes {}", parse::show_duration(kept));
    let changes = schema.settings.changes_kept().map(kept).unwrap_or_default();
    format!("{granularity}{protected}{changes}")
}

/// What a family's cells are, if they add up.
pub fn aggregate_text(family: &Family) -> Option<&'static str> {
    family.aggregate.as_ref().map(|aggregate| parse::show_choice(aggregate, &Aggregate::NAMES))
}

/// Adds the settings to the JSON of a table.
pub fn add_to_json(schema: &Schema, table: &mut Value) {
    table["granularity"] = json!(parse::show_choice(&schema.settings.granularity, &Granularity::NAMES));
    table["protected"] = json!(schema.settings.protected);
    table["changes"] = json!(schema.settings.changes_kept().map(parse::show_duration));
    if let Some(until) = schema.settings.dropped {
        table["dropped_until"] = json!(until.0);
    }
}
