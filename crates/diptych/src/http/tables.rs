//! Tables, the cluster's state, and what can be done to nodes. The JSON is the same as the command line's `--json`.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use client::{Client, Error, NodeAction};
use model::request::{ClusterStatus, NewTable};
use model::{AdminReply, AdminRequest, Event, EventQuery, NodeId, Refusal, Schema};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::problem::Problem;
use super::read_json;
use crate::cli::cluster::{master_to_json, node_to_json, tablet_to_json};
use crate::cli::parse;
use crate::cli::show::bytes_from_json;
use crate::cli::table::{assignment_to_json, schema_to_json, tablets_of};
use crate::gateway::Gateway;

/// How long the master may take to tell the cluster's state.
const PATIENCE: Duration = Duration::from_secs(2);

/// All tables.
pub async fn list(client: &Client) -> Result<Response, Problem> {
    let tables: Vec<Value> = client.tables().await?.iter().map(schema_to_json).collect();
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

/// The body that makes a table. A family is `name`, `name:versions=3,age=30d` or what a table shows of its own.
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
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FamilyWish {
    Short(String),
    Long {
        name: String,
        #[serde(default)]
        keeps: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum PartitionWish {
    Hash(u32),
    Range(Vec<Value>),
}

fn read_wish(body: &[u8]) -> Result<NewTable, Problem> {
    let wish: Wish = read_json(body)?;
    let family = |family: FamilyWish| {
        let rule = match family {
            FamilyWish::Short(rule) => rule,
            FamilyWish::Long { name, keeps } => match keeps.as_deref() {
                None | Some("keep all") => name,
                Some(keeps) => format!("{name}:{keeps}"),
            },
        };
        parse::family_rule(&rule)
    };
    let families = wish.families.into_iter().map(family).collect::<Result<Vec<_>, _>>().map_err(Problem::invalid)?;
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
    })
}

/// Makes a table.
pub async fn create(client: &Client, body: &[u8]) -> Result<Response, Problem> {
    let schema = change(client, AdminRequest::CreateTable(read_wish(body)?)).await?;
    Ok((StatusCode::CREATED, Json(schema_to_json(&schema))).into_response())
}

/// Drops a table with its data.
pub async fn drop_table(client: &Client, table: &str) -> Result<Response, Problem> {
    let schema = change(client, AdminRequest::DropTable(String::from(table))).await?;
    Ok(Json(json!({"dropped": schema.name})).into_response())
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
    use model::{Partition, Retention};

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
