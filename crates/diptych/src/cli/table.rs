//! `table create | list | show | alter | drop | restore`.

use client::Client;
use model::request::{ClusterMap, NewTable};
use model::{
    AdminReply, AdminRequest, Assignment, Compaction, Compression, Filter, LocalityGroup, LocalityId, Partition,
    Retention, Schema, Slice,
};
use serde_json::{Value, json};

use super::args::{TableAlter, TableCommand, TableCreate};
use super::show::{self, bytes_to_json, printable};
use super::{Failure, Output, parse, settings};

pub async fn run(client: &Client, command: TableCommand, out: &mut Output) -> Result<(), Failure> {
    match command {
        TableCommand::Create(args) => create(client, args, out).await,
        TableCommand::List { hidden: true } => settings::list_hidden(client, out).await,
        TableCommand::List { hidden: false } => list(client, out).await,
        TableCommand::Show { table } => show(client, &table, out).await,
        TableCommand::Alter(TableAlter { table, family: set, drop_family: drop, storage, drop_locality, settings }) => {
            let (storage, settings) = (storage.into_change(drop_locality), settings.into_change());
            let schema = change(client, AdminRequest::AlterTable { table, set, drop, storage, settings }).await?;
            let text = format!("altered table {}: {}{}", schema.name, families(&schema), storage_text(&schema));
            Ok(out.say(schema_to_json(&schema), text)?)
        }
        TableCommand::Drop { table, keep } => settings::drop(client, table, keep, out).await,
        TableCommand::Restore { table } => settings::restore(client, table, out).await,
    }
}

pub async fn change(client: &Client, request: AdminRequest) -> Result<Schema, Failure> {
    match client.admin(request).await? {
        AdminReply::Table(schema) => Ok(schema),
        other => Err(client::Error::Protocol(format!("asked for a table, got {other:?}")).into()),
    }
}

async fn create(client: &Client, args: TableCreate, out: &mut Output) -> Result<(), Failure> {
    let partition = parse::partition(&args.partition, &args.split).map_err(Failure::usage)?;
    if let (Some(replicas), Some(least)) = (args.replicas, args.min_replicas)
        && least > replicas
    {
        return Err(Failure::usage("--min-replicas is more than --replicas; no write could ever succeed"));
    }
    let mut names: Vec<&str> = args.family.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Failure::usage(format!("--family {} is given twice", twice[0])));
    }
    let table = NewTable {
        name: args.table,
        families: args.family,
        partition,
        replicas: args.replicas,
        min_replicas: args.min_replicas,
        storage: args.storage.into_change(Vec::new()),
        settings: args.settings.into_change(),
    };
    let schema = change(client, AdminRequest::CreateTable(table)).await?;
    let text = format!(
        "created table {}: {}; {}; {} replicas{}",
        schema.name,
        families(&schema),
        partition_text(&schema.partition),
        schema.replicas,
        storage_text(&schema)
    );
    Ok(out.say(schema_to_json(&schema), text)?)
}

async fn list(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let tables = client.tables().await?;
    if out.json {
        let tables: Vec<Value> = tables.iter().map(schema_to_json).collect();
        return Ok(out.line(json!({"tables": tables}))?);
    }
    if tables.is_empty() {
        return Ok(out.line("no tables yet; make one: diptych table create NAME --family FAMILY")?);
    }
    let row = |schema: &Schema| {
        vec![
            schema.name.clone(),
            families(schema),
            partition_text(&schema.partition),
            schema.replicas.to_string(),
            String::from(compaction_text(schema)),
        ]
    };
    let names = ["table", "families", "partition", "replicas#", "compaction"];
    Ok(out.table(&names, tables.iter().map(row).collect())?)
}

async fn show(client: &Client, table: &str, out: &mut Output) -> Result<(), Failure> {
    let map = client.map().await?;
    let tablets = tablets_of(&map, Some(table))?;
    let schema = &tablets[0].schema;
    if out.json {
        let mut value = schema_to_json(schema);
        value["tablets"] = tablets.iter().map(|tablet| assignment_to_json(tablet)).collect();
        return Ok(out.line(value)?);
    }
    out.line(format!(
        "{}: {}; {} replicas, writes need {}; {} compaction{}",
        schema.name,
        partition_text(&schema.partition),
        schema.replicas,
        schema.min_replicas,
        compaction_text(schema),
        settings::text(schema)
    ))?;
    out.line("")?;
    let family = |family: &model::Family| {
        let keeps = parse::show_retention(&family.retention);
        let adds = settings::aggregate_text(family).unwrap_or_default();
        vec![family.name.clone(), keeps, schema.locality(family.locality).name, String::from(adds)]
    };
    out.table(&["family", "keeps", "locality", "adds"], schema.families.iter().map(family).collect())?;
    out.line("")?;
    let locality = |locality: &LocalityGroup| vec![locality.name.clone(), parse::show_locality(locality)];
    out.table(&["locality", "settings"], schema.storage.localities.iter().map(locality).collect())?;
    out.line("")?;
    let tablet = |tablet: &&Assignment| {
        let configuration = &tablet.configuration;
        let secondaries: Vec<String> = configuration.secondaries.iter().map(ToString::to_string).collect();
        vec![
            tablet.tablet.id.to_string(),
            tablet.tablet.slice.to_string(),
            configuration.epoch.to_string(),
            configuration.primary.to_string(),
            secondaries.join(" "),
        ]
    };
    Ok(out.table(&["tablet", "rows", "epoch", "primary", "secondaries"], tablets.iter().map(tablet).collect())?)
}

/// The tablets of a table, or of all; never none of a table.
pub fn tablets_of<'a>(map: &'a ClusterMap, table: Option<&str>) -> Result<Vec<&'a Assignment>, Failure> {
    let wanted = |tablet: &&Assignment| table.is_none_or(|table| tablet.schema.name == table);
    let tablets: Vec<&Assignment> = map.tablets.iter().filter(wanted).collect();
    match (tablets.is_empty(), table) {
        (true, Some(table)) => Err(client::Error::from(map.lacks(table)).into()),
        _ => Ok(tablets),
    }
}

/// Families with what they keep, and their locality groups, if they are not in the default one.
pub fn families(schema: &Schema) -> String {
    let family = |family: &model::Family| {
        let rule = match &family.retention {
            Retention::Keep => family.name.clone(),
            rule => format!("{}:{}", family.name, parse::show_retention(rule)),
        };
        let rule = settings::aggregate_text(family).map_or(rule.clone(), |aggregate| format!("{rule}={aggregate}"));
        match schema.locality(family.locality) {
            locality if locality.id == LocalityId::default() => rule,
            locality => format!("{rule} ({})", locality.name),
        }
    };
    schema.families.iter().map(family).collect::<Vec<_>>().join(" ")
}

/// `tiered` or `leveled`.
pub fn compaction_text(schema: &Schema) -> &'static str {
    parse::show_choice(&schema.storage.compaction, &Compaction::NAMES)
}

/// What is not as in every table; empty, or with a semicolon before it.
fn storage_text(schema: &Schema) -> String {
    let compaction = match schema.storage.compaction {
        Compaction::Tiered => String::new(),
        Compaction::Leveled => String::from("; leveled compaction"),
    };
    let standard = LocalityGroup::default();
    let groups = schema.storage.localities.iter().filter(|locality| **locality != standard);
    let text = |locality: &LocalityGroup| format!("; {}: {}", locality.name, parse::show_locality(locality));
    compaction + &groups.map(text).collect::<String>() + &settings::text(schema)
}

fn locality_to_json(locality: &LocalityGroup) -> Value {
    json!({
        "name": locality.name,
        "compression": parse::show_choice(&locality.compression, &Compression::NAMES),
        "block_bytes": locality.block_bytes,
        "filter": parse::show_choice(&locality.filter, &Filter::NAMES),
        "in_memory": locality.in_memory,
    })
}

/// `hash:2`, or `range` and how often it was cut.
pub fn partition_text(partition: &Partition) -> String {
    match partition {
        Partition::Hash { tablets } => format!("hash:{tablets}"),
        Partition::Range { splits } if splits.is_empty() => String::from("range"),
        Partition::Range { splits } => format!("range, {}", splits_text(splits.len())),
    }
}

fn splits_text(count: usize) -> String {
    if count == 1 { String::from("1 split") } else { format!("{} splits", show::count(count as u64)) }
}

pub fn schema_to_json(schema: &Schema) -> Value {
    let family = |family: &model::Family| {
        let mut family_json = json!({
            "name": family.name,
            "keeps": parse::show_retention(&family.retention),
            "locality": schema.locality(family.locality).name,
        });
        if let Some(aggregate) = settings::aggregate_text(family) {
            family_json["aggregate"] = json!(aggregate);
        }
        family_json
    };
    let partition = match &schema.partition {
        Partition::Hash { tablets } => json!({"hash": tablets}),
        Partition::Range { splits } => {
            json!({"range": splits.iter().map(|key| bytes_to_json(key)).collect::<Vec<_>>()})
        }
    };
    let mut table = json!({
        "name": schema.name,
        "version": schema.version,
        "families": schema.families.iter().map(family).collect::<Vec<_>>(),
        "partition": partition,
        "replicas": schema.replicas,
        "min_replicas": schema.min_replicas,
        "compaction": compaction_text(schema),
        "localities": schema.storage.localities.iter().map(locality_to_json).collect::<Vec<_>>(),
    });
    settings::add_to_json(schema, &mut table);
    table
}

/// A tablet as the map has it.
pub fn assignment_to_json(assignment: &Assignment) -> Value {
    let names = |nodes: &[model::NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let configuration = &assignment.configuration;
    json!({
        "tablet": assignment.tablet.id.to_string(),
        "table": assignment.schema.name,
        "rows": slice_to_json(&assignment.tablet.slice),
        "epoch": configuration.epoch.0,
        "primary": configuration.primary.to_string(),
        "secondaries": names(&configuration.secondaries),
        "learner": assignment.learner.map(|node| node.to_string()),
    })
}

pub fn slice_to_json(slice: &Slice) -> Value {
    match slice {
        Slice::Hash { bucket, of } => json!({"hash": bucket, "of": of}),
        Slice::Rows { start, end } => {
            json!({"start": printable(start), "end": end.as_ref().map(|end| printable(end))})
        }
    }
}
