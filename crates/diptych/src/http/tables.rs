//! Tables, the cluster's state, and what can be done to nodes. The JSON is the same as the command line's `--json`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use client::{Client, Error, NodeAction};
use model::request::{ClusterStatus, NewTable};
use model::{
    AdminReply, AdminRequest, Aggregate, Event, EventQuery, LocalityChange, NodeId, Refusal, Retention, Schema,
    SettingsChange, StorageChange,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::problem::Problem;
use super::read_json;
use super::resource::Query;
use crate::cli::cluster::{master_to_json, node_to_json, tablet_to_json};
use crate::cli::show::bytes_from_json;
use crate::cli::table::{assignment_to_json, schema_to_json, tablets_of};
use crate::cli::{parse, settings};
use crate::gateway::Gateway;

/// How long the master may take to tell the cluster's state.
const PATIENCE: Duration = Duration::from_secs(2);

/// All tables.
pub async fn list(client: &Client, query: &Query) -> Result<Response, Problem> {
    let tables = if query.flag("hidden") { settings::hidden(client).await? } else { client.tables().await? };
    let tables: Vec<Value> = tables.iter().map(schema_to_json).collect();
    Ok(Json(json!({"tables": tables})).into_response())
}

/// One table with its tablets.
pub async fn show(client: &Client, table: &str) -> Result<Response, Problem> {
    let map = client.map().await?;
    let tablets = tablets_of(&map, Some(table)).map_err(|_| map.lacks(table))?;
    let mut value = schema_to_json(&tablets[0].schema);
    value["tablets"] = tablets.iter().map(|tablet| assignment_to_json(tablet)).collect();
    Ok(Json(value).into_response())
}

/// The body that makes a table. A family is `name`, `name:versions=3,age=30d` or what a table shows of its own; so is a
/// locality group.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    name: String,
    families: Vec<FamilyWish>,
    #[serde(default)]
    partition: Option<PartitionWish>,
    #[serde(default)]
    replicas: Option<u8>,
    #[serde(default)]
    min_replicas: Option<u8>,
    #[serde(default)]
    compaction: Option<String>,
    #[serde(default)]
    localities: Vec<LocalityWish>,
    #[serde(default)]
    granularity: Option<String>,
    #[serde(default)]
    protected: Option<bool>,
    #[serde(default)]
    changes: Option<String>,
}

/// The body that alters a table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alteration {
    #[serde(default)]
    families: Vec<FamilyWish>,
    #[serde(default)]
    drop_families: Vec<String>,
    #[serde(default)]
    compaction: Option<String>,
    #[serde(default)]
    localities: Vec<LocalityWish>,
    #[serde(default)]
    drop_localities: Vec<String>,
    #[serde(default)]
    granularity: Option<String>,
    #[serde(default)]
    protected: Option<bool>,
    #[serde(default)]
    changes: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FamilyWish {
    Short(String),
    Long(LongFamily),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongFamily {
    name: String,
    #[serde(default)]
    keeps: Option<String>,
    #[serde(default)]
    locality: Option<String>,
    #[serde(default)]
    aggregate: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum LocalityWish {
    Short(String),
    Long(LongLocality),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LongLocality {
    name: String,
    #[serde(default)]
    compression: Option<String>,
    #[serde(default)]
    block_bytes: Option<u32>,
    #[serde(default)]
    filter: Option<String>,
    #[serde(default)]
    in_memory: Option<bool>,
}

impl LocalityWish {
    /// As the command line has it.
    fn read(self) -> Result<LocalityChange, String> {
        let wish = match self {
            LocalityWish::Short(text) => return parse::locality(&text),
            LocalityWish::Long(wish) => wish,
        };
        let mut settings = Vec::new();
        settings.extend(wish.compression.map(|name| format!("compression={name}")));
        settings.extend(wish.block_bytes.map(|bytes| format!("block={bytes}")));
        settings.extend(wish.filter.map(|name| format!("filter={name}")));
        settings.extend(wish.in_memory.map(|yes| format!("in-memory={}", if yes { "yes" } else { "no" })));
        parse::locality(&format!("{}:{}", wish.name, settings.join(",")))
    }
}

fn read_storage(compaction: Option<String>, localities: Vec<LocalityWish>) -> Result<StorageChange, Problem> {
    let compaction = compaction.as_deref().map(parse::compaction).transpose().map_err(Problem::invalid)?;
    let set = localities.into_iter().map(LocalityWish::read).collect::<Result<_, _>>().map_err(Problem::invalid)?;
    Ok(StorageChange { compaction, set, ..StorageChange::default() })
}

/// What is said of a family, checked.
struct Said {
    name: String,
    retention: Option<Retention>,
    locality: Option<String>,
    aggregate: Option<Aggregate>,
}

fn read_settings(
    granularity: Option<String>,
    protected: Option<bool>,
    changes: Option<String>,
) -> Result<SettingsChange, Problem> {
    let granularity = granularity.as_deref().map(parse::granularity).transpose().map_err(Problem::invalid)?;
    let changes = changes.as_deref().map(parse::changes).transpose().map_err(Problem::invalid)?;
    Ok(SettingsChange { granularity, protected, changes, aggregates: Vec::new() })
}

fn read_family(wish: FamilyWish) -> Result<Said, String> {
    Ok(match wish {
        FamilyWish::Short(rule) => {
            let (name, retention) = parse::family_rule(&rule)?;
            Said { name, retention: Some(retention), locality: None, aggregate: None }
        }
        FamilyWish::Long(LongFamily { name, keeps, locality, aggregate }) => {
            let name = parse::family(&name)?;
            let retention = match keeps.as_deref() {
                None => None,
                Some("keep all") => Some(Retention::Keep),
                Some(keeps) => Some(parse::family_rule(&format!("{name}:{keeps}"))?.1),
            };
            let aggregate = aggregate.map(|how| parse::aggregate(&format!("{name}={how}"))).transpose()?;
            Said { name, retention, locality, aggregate: aggregate.map(|(_, aggregate)| aggregate) }
        }
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum PartitionWish {
    Hash(u32),
    Range(Vec<Value>),
}

fn read_wish(body: &[u8]) -> Result<NewTable, Problem> {
    let wish: Wish = read_json(body)?;
    let mut storage = read_storage(wish.compaction, wish.localities)?;
    let mut settings = read_settings(wish.granularity, wish.protected, wish.changes)?;
    let mut families = Vec::new();
    for family in wish.families {
        let Said { name, retention, locality, aggregate } = read_family(family).map_err(Problem::invalid)?;
        storage.place.extend(locality.map(|locality| (name.clone(), locality)));
        settings.aggregates.extend(aggregate.map(|aggregate| (name.clone(), aggregate)));
        families.push((name, retention.unwrap_or_default()));
    }
    if families.is_empty() {
        return Err(Problem::invalid("a table needs at least one family"));
    }
    let partition = match wish.partition.unwrap_or(PartitionWish::Hash(2)) {
        PartitionWish::Hash(tablets) => parse::partition(&format!("hash:{tablets}"), &[]),
        PartitionWish::Range(splits) => splits
            .iter()
            .map(bytes_from_json)
            .collect::<Result<Vec<_>, _>>()
            .and_then(|splits| parse::partition("range", &splits)),
    };
    Ok(NewTable {
        name: parse::table(&wish.name).map_err(Problem::invalid)?,
        families,
        partition: partition.map_err(Problem::invalid)?,
        replicas: wish.replicas,
        min_replicas: wish.min_replicas,
        storage,
        settings,
    })
}

/// A family of which only the locality group is said keeps what it keeps.
fn read_alteration(table: &str, body: &[u8]) -> Result<AdminRequest, Problem> {
    let wish: Alteration = read_json(body)?;
    let mut storage = read_storage(wish.compaction, wish.localities)?;
    storage.drop = wish.drop_localities;
    let mut settings = read_settings(wish.granularity, wish.protected, wish.changes)?;
    let mut set = Vec::new();
    for family in wish.families {
        let Said { name, retention, locality, aggregate } = read_family(family).map_err(Problem::invalid)?;
        match (retention, locality.is_some()) {
            (None, true) => {}
            (retention, _) => set.push((name.clone(), retention.unwrap_or_default())),
        }
        settings.aggregates.extend(aggregate.map(|aggregate| (name.clone(), aggregate)));
        storage.place.extend(locality.map(|locality| (name, locality)));
    }
    if set.is_empty() && wish.drop_families.is_empty() && storage.is_empty() && settings.is_empty() {
        return Err(Problem::invalid("nothing to alter: name a family, a locality group or a setting"));
    }
    Ok(AdminRequest::AlterTable { table: String::from(table), set, drop: wish.drop_families, storage, settings })
}

/// Alters a table.
pub async fn alter(client: &Client, table: &str, body: &[u8]) -> Result<Response, Problem> {
    let schema = change(client, read_alteration(table, body)?).await?;
    Ok(Json(schema_to_json(&schema)).into_response())
}

/// Makes a table.
pub async fn create(client: &Client, body: &[u8]) -> Result<Response, Problem> {
    let schema = change(client, AdminRequest::CreateTable(read_wish(body)?)).await?;
    Ok((StatusCode::CREATED, Json(schema_to_json(&schema))).into_response())
}

/// Drops a table with its data, at once or after a while in which it can be brought back.
pub async fn drop_table(client: &Client, table: &str, query: &Query) -> Result<Response, Problem> {
    let keep = query.bytes("keep").map(|text| parse::duration(&String::from_utf8_lossy(&text)));
    let keep = keep.transpose().map_err(|why| Problem::invalid(format!("keep: {why}")))?;
    let schema = change(client, settings::drop_request(String::from(table), keep)).await?;
    Ok(Json(settings::dropped_to_json(&schema)).into_response())
}

/// Brings back the table of that name that was dropped last.
pub async fn restore(client: &Client, table: String) -> Result<Response, Problem> {
    let schema = change(client, AdminRequest::RestoreTable(table)).await?;
    Ok(Json(schema_to_json(&schema)).into_response())
}

async fn change(client: &Client, request: AdminRequest) -> Result<Schema, Problem> {
    match client.admin(request).await? {
        AdminReply::Table(schema) => Ok(schema),
        other => Err(Error::Protocol(format!("asked for a table, got {other:?}")).into()),
    }
}

/// How everything is. Whoever looks wants to know soon that there is no master, and not to wait for one.
pub async fn status(client: &Client) -> Result<ClusterStatus, Problem> {
    let asked = timeout(PATIENCE, client.admin(AdminRequest::Status)).await;
    match asked.map_err(|_| Refusal::NoMaster)?? {
        AdminReply::Status(status) => Ok(status),
        other => Err(Error::Protocol(format!("asked for the status, got {other:?}")).into()),
    }
}

/// The newest events for the page, which does without them if they do not come soon.
pub async fn last_events(client: &Client) -> Vec<Event> {
    let query = EventQuery { limit: 20, ..EventQuery::default() };
    match timeout(PATIENCE, client.events(query)).await {
        Ok(Ok(page)) => page.events,
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// How everything is, as JSON.
pub async fn cluster(client: &Client) -> Result<Response, Problem> {
    let status = status(client).await?;
    let pids = BTreeMap::new();
    let nodes: Vec<Value> = status.nodes.iter().map(|node| node_to_json(node, &status, &pids)).collect();
    let tablets: Vec<Value> = status.tablets.iter().map(tablet_to_json).collect();
    let masters: Vec<Value> = status.masters.iter().map(|master| master_to_json(master, &pids)).collect();
    let cluster = status.cluster.to_string();
    Ok(Json(json!({"cluster": cluster, "masters": masters, "nodes": nodes, "tablets": tablets})).into_response())
}

/// Empties a node, or lets it be filled again. Answers when it is decided, not when it is done.
pub async fn drain(client: &Client, node: NodeId, drain: bool) -> Result<Response, Problem> {
    match client.admin(AdminRequest::DrainNode { node, drain }).await? {
        AdminReply::Done(_) => Ok(Json(json!({"node": node.to_string(), "draining": drain})).into_response()),
        other => Err(Error::Protocol(format!("asked to drain, got {other:?}")).into()),
    }
}

/// Strikes a node off the list that keeps nothing.
pub async fn remove(client: &Client, node: NodeId) -> Result<Response, Problem> {
    match client.admin(AdminRequest::RemoveNode(node)).await? {
        AdminReply::Done(_) => Ok(Json(json!({"node": node.to_string(), "done": "removed"})).into_response()),
        other => Err(Error::Protocol(format!("asked to remove a node, got {other:?}")).into()),
    }
}

/// Does something to a node's process.
pub async fn control(gateway: &Gateway, node: NodeId, action: NodeAction) -> Result<Response, Problem> {
    if !gateway.has_control() {
        let hint = "Ask the HTTP port of `diptych up`, which started the processes.";
        return Err(Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            "unimplemented",
            "this process cannot control others",
            hint,
        ));
    }
    gateway.control(node, action).await?;
    let done = match action {
        NodeAction::Suspend => "suspended",
        NodeAction::Resume => "resumed",
        NodeAction::Kill => "killed",
        NodeAction::Restart => "restarted",
        NodeAction::Unspecified => "nothing",
    };
    Ok(Json(json!({"node": parse::Process(node).to_string(), "done": done})).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use model::{Compaction, Compression, Filter, Partition};

    #[test]
    fn a_table_is_made_from_json() {
        let body = br#"{"name": "users", "families": ["name", {"name": "mail", "keeps": "versions=3"}, {"name": "all", "keeps": "keep all"}],
                        "partition": {"range": ["g", {"base64": "/w=="}]}, "replicas": 3}"#;
        let table = read_wish(body).unwrap();
        let families = [("name", Retention::Keep), ("mail", Retention::Versions(3)), ("all", Retention::Keep)];
        assert_eq!(table.families, families.map(|(name, keeps)| (String::from(name), keeps)));
        let splits = vec![Bytes::from_static(b"g"), Bytes::from_static(b"\xff")];
        assert_eq!((table.partition, table.replicas, table.min_replicas), (Partition::Range { splits }, Some(3), None));
        let short = read_wish(br#"{"name": "users", "families": ["name"]}"#).unwrap();
        assert_eq!(short.partition, Partition::Hash { tablets: 2 });
    }

    /// What a table shows of its locality groups makes the same ones again.
    #[test]
    fn locality_groups_are_made_from_json() {
        let body = br#"{"name": "users", "compaction": "leveled",
                        "families": ["name", {"name": "mail", "keeps": "versions=3", "locality": "cold"}],
                        "localities": ["hot:in-memory", {"name": "cold", "compression": "zstd", "block_bytes": 65536,
                                                         "filter": "columns", "in_memory": false}]}"#;
        let storage = read_wish(body).unwrap().storage;
        assert_eq!((storage.compaction, storage.drop.len()), (Some(Compaction::Leveled), 0));
        assert_eq!(storage.place, [(String::from("mail"), String::from("cold"))]);
        let cold = LocalityChange {
            name: "cold".into(),
            in_memory: Some(false),
            compression: Some(Compression::Zstd),
            block_bytes: Some(65_536),
            filter: Some(Filter::Columns),
        };
        assert_eq!((storage.set[0].in_memory, &storage.set[1]), (Some(true), &cold));
    }

    /// What a table shows of its settings makes the same ones again.
    #[test]
    fn settings_are_made_from_json() {
        let body =
            br#"{"name": "users", "families": ["name", {"name": "hits", "aggregate": "sum"}], "granularity": "millis",
                        "protected": true}"#;
        let settings = read_wish(body).unwrap().settings;
        assert_eq!(settings.aggregates, [(String::from("hits"), Aggregate::Sum)]);
        assert_eq!((settings.granularity, settings.protected), (Some(model::Granularity::Millis), Some(true)));
        let alter = |body: &str| match read_alteration("users", body.as_bytes()) {
            Ok(AdminRequest::AlterTable { settings, .. }) => settings,
            other => panic!("{other:?}"),
        };
        assert_eq!(alter(r#"{"protected": false}"#).protected, Some(false));
        assert!(alter(r#"{"families": ["f"]}"#).is_empty());
        for body in [r#"{"granularity": "nanos"}"#, r#"{"families": [{"name": "f", "aggregate": "mean"}]}"#] {
            let problem = read_alteration("users", body.as_bytes()).expect_err(body);
            assert_eq!(problem.status, StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn a_table_is_altered_by_json() {
        let body = br#"{"families": ["new", {"name": "mail", "locality": "cold"}], "drop_families": ["old"],
                        "localities": [{"name": "cold"}], "drop_localities": ["warm"]}"#;
        let AdminRequest::AlterTable { set, drop, storage, .. } = read_alteration("users", body).unwrap() else {
            panic!("no alteration");
        };
        assert_eq!(set, [(String::from("new"), Retention::Keep)], "mail keeps what it keeps");
        assert_eq!((drop, storage.drop), (vec![String::from("old")], vec![String::from("warm")]));
        assert_eq!(storage.place, [(String::from("mail"), String::from("cold"))]);
        for body in [
            &b"{}"[..],
            br#"{"compaction": "lazy"}"#,
            br#"{"localities": [{"name": "cold", "block_bytes": 1}]}"#,
            br#"{"localities": [{"name": "cold", "blocks": 1024}]}"#,
            br#"{"families": [{"name": "mail", "place": "cold"}]}"#,
        ] {
            let problem = read_alteration("users", body).expect_err(&String::from_utf8_lossy(body));
            assert_eq!(problem.status, StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn a_table_that_makes_no_sense_is_refused() {
        for body in [
            &br#"{"name": "users"}"#[..],
            br#"{"name": "users", "families": []}"#,
            br#"{"name": "-", "families": ["name"]}"#,
            br#"{"name": "users", "families": ["name"], "partition": {"hash": 0}}"#,
            br#"{"name": "users", "families": ["name"], "partition": {"range": [""]}}"#,
            br#"{"name": "users", "families": ["name:versions=0"]}"#,
            br#"{"name": "users", "families": ["name"], "replica": 3}"#,
            br#"{"name": "users", "families": ["name"], "replicas": 300}"#,
            br#"[]"#,
        ] {
            let problem = read_wish(body).expect_err(&String::from_utf8_lossy(body));
            assert_eq!(problem.status, StatusCode::BAD_REQUEST);
        }
    }
}
