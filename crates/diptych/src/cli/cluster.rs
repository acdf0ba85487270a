//! `status`, `node list | suspend | resume | kill | restart`, `tablet list | split`.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use client::{Client, NodeAction};
use model::request::{ClusterStatus, MasterStatus, NodeStatus, ReplicaReport, Role, ScrubReport, TabletStatus};
use model::text::printable;
use model::{AdminReply, AdminRequest, NodeId, TabletId};
use serde_json::{Value, json};

use super::args::{MasterCommand, NodeCommand, NodeName, TabletCommand};
use super::{Failure, Output, operate, show, table};
use crate::up::ClusterFile;

/// Process ids of a local cluster.
pub type Pids = BTreeMap<String, u32>;

pub async fn status(client: &Client, data: &Path, out: &mut Output) -> Result<(), Failure> {
    let status = fetch(client).await?;
    let pids = local_pids(data, &status);
    if out.json {
        let nodes: Vec<Value> = status.nodes.iter().map(|node| node_to_json(node, &status, &pids)).collect();
        let tablets: Vec<Value> = status.tablets.iter().map(tablet_to_json).collect();
        let masters: Vec<Value> = status.masters.iter().map(|master| master_to_json(master, &pids)).collect();
        let cluster = status.cluster.to_string();
        return Ok(out.line(json!({"cluster": cluster, "masters": masters, "nodes": nodes, "tablets": tablets}))?);
    }
    let alive = status.nodes.iter().filter(|node| node.alive).count();
    let short = status.tablets.iter().filter(|tablet| is_short(tablet)).count();
    let tablets = match (status.tablets.len(), short) {
        (0, _) => String::from("no tables yet"),
        (all, 0) => format!("{all} tablets, all with their replicas"),
        (all, short) => format!("{short} of {all} tablets have fewer replicas than they should"),
    };
    out.line(format!("cluster {}: {alive} of {} nodes alive; {tablets}", status.cluster, status.nodes.len()))?;
    out.line("")?;
    if status.masters.len() > 1 {
        masters_table(&status.masters, &pids, out)?;
        out.line("")?;
    }
    nodes_table(&status, &pids, out)?;
    if !status.tablets.is_empty() {
        out.line("")?;
        tablets_table(status.tablets.iter().collect(), out)?;
    }
    Ok(())
}

pub async fn node(client: &Client, command: NodeCommand, out: &mut Output) -> Result<(), Failure> {
    let (NodeName { node }, action, done) = match command {
        NodeCommand::List => {
            let status = fetch(client).await?;
            let pids = Pids::new();
            if out.json {
                let nodes: Vec<Value> = status.nodes.iter().map(|node| node_to_json(node, &status, &pids)).collect();
                return Ok(out.line(json!({"nodes": nodes}))?);
            }
            return nodes_table(&status, &pids, out);
        }
        NodeCommand::Suspend(name) => (name, NodeAction::Suspend, "suspended"),
        NodeCommand::Resume(name) => (name, NodeAction::Resume, "resumed"),
        NodeCommand::Kill(name) => (name, NodeAction::Kill, "killed"),
        NodeCommand::Restart(name) => (name, NodeAction::Restart, "restarted"),
        NodeCommand::Drain { node, undo, no_wait } => return operate::drain(client, node, !undo, !no_wait, out).await,
        NodeCommand::Scrub { node } => return operate::scrub(client, node, out).await,
        NodeCommand::Remove { node } => return operate::remove(client, node, out).await,
        NodeCommand::Run(_) => unreachable!("`cli::run` carries it out"),
    };
    client.control_node(node.0, action).await?;
    Ok(out.say(json!({"node": node.to_string(), "done": done}), format!("{done} {node}"))?)
}

pub async fn tablet(client: &Client, command: TabletCommand, out: &mut Output) -> Result<(), Failure> {
    let table = match command {
        TabletCommand::List { table } => table,
        TabletCommand::Move { tablet, from, to, no_wait } => {
            return operate::move_tablet(client, tablet, from, to, !no_wait, out).await;
        }
        TabletCommand::Transfer { tablet, to, no_wait } => {
            return operate::transfer(client, tablet, to, !no_wait, out).await;
        }
        TabletCommand::Recover { tablet, from, empty, yes } => {
            return operate::recover(client, tablet, from, empty, yes, out).await;
        }
        TabletCommand::Check { tablet } => return operate::check(client, tablet, out).await,
        TabletCommand::Split { tablet, at } => return split(client, tablet, at, out).await,
        TabletCommand::Merge { tablet, no_wait } => return operate::merge(client, tablet, !no_wait, out).await,
    };
    let status = fetch(client).await?;
    let wanted = |tablet: &&TabletStatus| table.as_ref().is_none_or(|table| tablet.assignment.schema.name == *table);
    let tablets: Vec<&TabletStatus> = status.tablets.iter().filter(wanted).collect();
    if let (true, Some(table)) = (tablets.is_empty(), table) {
        return Err(client::Error::from(model::Refusal::NoSuchTable(table)).into());
    }
    if out.json {
        let tablets: Vec<Value> = tablets.into_iter().map(tablet_to_json).collect();
        return Ok(out.line(json!({"tablets": tablets}))?);
    }
    tablets_table(tablets, out)
}

/// `master list | add | remove`.
pub async fn master(client: &Client, command: MasterCommand, out: &mut Output) -> Result<(), Failure> {
    let (request, done) = match command {
        MasterCommand::List => (AdminRequest::Masters, None),
        MasterCommand::Add { id, address } => (AdminRequest::AddMaster { id, address }, Some(("added", id))),
        MasterCommand::Remove { id } => (AdminRequest::RemoveMaster(id), Some(("removed", id))),
        MasterCommand::Run(_) => unreachable!("`cli::run` carries it out"),
    };
    let masters = match client.admin(request).await? {
        AdminReply::Masters(masters) => masters,
        other => return Err(client::Error::Protocol(format!("asked for the masters, got {other:?}")).into()),
    };
    if out.json {
        let masters: Vec<Value> = masters.iter().map(|master| master_to_json(master, &Pids::new())).collect();
        return Ok(out.line(json!({"masters": masters}))?);
    }
    match done {
        Some((done, id)) => Ok(out.line(format!("{done} m{id}; there are {} masters now", masters.len()))?),
        None => masters_table(&masters, &Pids::new(), out),
    }
}

fn masters_table(masters: &[MasterStatus], pids: &Pids, out: &mut Output) -> Result<(), Failure> {
    let row = |master: &MasterStatus| {
        let id = format!("m{}", master.id);
        let heard = master.heard_ms_ago.map_or_else(|| String::from("-"), |ms| format!("{:.1} s ago", ms as f64 / 1e3));
        let behind = master.behind.map_or_else(|| String::from("?"), show::count);
        let pid = pids.get(&id).map_or_else(|| String::from("-"), ToString::to_string);
        vec![id, String::from(master.state()), heard, behind, master.address.clone(), pid]
    };
    let names = ["master", "state", "heard", "behind#", "address", "pid"];
    let shown = if pids.is_empty() { names.len() - 1 } else { names.len() };
    let mut rows: Vec<Vec<String>> = masters.iter().map(row).collect();
    rows.iter_mut().for_each(|row| row.truncate(shown));
    Ok(out.table(&names[..shown], rows)?)
}

pub fn master_to_json(master: &MasterStatus, pids: &Pids) -> Value {
    let id = format!("m{}", master.id);
    let mut value = json!({
        "id": id,
        "address": master.address,
        "state": master.state(),
        "leads": master.leads,
        "heard_ms_ago": master.heard_ms_ago,
        "behind": master.behind,
    });
    if let Some(pid) = pids.get(&id) {
        value["pid"] = json!(pid);
    }
    value
}

async fn split(client: &Client, tablet: TabletId, at: Option<Bytes>, out: &mut Output) -> Result<(), Failure> {
    let split = match client.admin(AdminRequest::SplitTablet { tablet, at }).await? {
        AdminReply::Split(split) => split,
        other => return Err(client::Error::Protocol(format!("asked for a split, got {other:?}")).into()),
    };
    let text = format!("split {tablet} at {}: {} and {}", printable(&split.at), split.left, split.right);
    Ok(out.say(split_to_json(tablet, &split), text)?)
}

pub fn split_to_json(tablet: TabletId, split: &model::Split) -> Value {
    let (left, right, at) = (split.left.to_string(), split.right.to_string(), printable(&split.at).to_string());
    json!({"tablet": tablet.to_string(), "at": at, "left": left, "right": right})
}

pub async fn fetch(client: &Client) -> Result<ClusterStatus, Failure> {
    match client.admin(AdminRequest::Status).await? {
        AdminReply::Status(status) => Ok(status),
        other => Err(client::Error::Protocol(format!("asked for the status, got {other:?}")).into()),
    }
}

/// Process ids, if the folder's cluster is the one that answers.
fn local_pids(data: &Path, status: &ClusterStatus) -> Pids {
    match ClusterFile::read(data) {
        Ok(Some(file)) if file.cluster == status.cluster.to_string() => {
            file.processes.into_iter().filter_map(|process| Some((process.id, process.pid?))).collect()
        }
        _ => Pids::new(),
    }
}

fn nodes_table(status: &ClusterStatus, pids: &Pids, out: &mut Output) -> Result<(), Failure> {
    let row = |node: &NodeStatus| {
        let (primaries, secondaries) = roles(node.node, status);
        let state = match (node.alive, node.disk_full) {
            (true, _) if node.draining && primaries + secondaries == 0 => "drained",
            (true, _) if node.draining => "draining",
            (true, true) => "disk full",
            (true, false) if stalls(node.node, status) > 0 => "stalled",
            (true, false) => "alive",
            (false, _) if node.heard_ms_ago.is_none() => "not heard",
            (false, _) => "down",
        };
        let heard = node.heard_ms_ago.map_or_else(|| String::from("-"), |ms| format!("{:.1} s ago", ms as f64 / 1e3));
        let pid = pids.get(&node.node.to_string()).map_or_else(|| String::from("-"), ToString::to_string);
        let id = node.node.to_string();
        let (led, followed) = (primaries.to_string(), secondaries.to_string());
        vec![id, state.into(), heard, led, followed, scrubbed(node), node.address.clone(), pid]
    };
    let names = ["node", "state", "heard", "primary of#", "secondary of#", "read", "address", "pid"];
    let shown = if pids.is_empty() { names.len() - 1 } else { names.len() };
    let mut rows: Vec<Vec<String>> = status.nodes.iter().map(row).collect();
    rows.iter_mut().for_each(|row| row.truncate(shown));
    Ok(out.table(&names[..shown], rows)?)
}

/// How far it is with reading all that it keeps.
fn scrubbed(node: &NodeStatus) -> String {
    let ScrubReport { percent, completed, damage } = node.scrub;
    let read = match (percent, completed) {
        (0, None) => String::from("-"),
        (0, Some(date)) => show::date(date),
        (percent, _) => format!("{percent} %"),
    };
    if damage == 0 { read } else { format!("{read}, damage met {damage} times") }
}

fn tablets_table(tablets: Vec<&TabletStatus>, out: &mut Output) -> Result<(), Failure> {
    let row = |tablet: &TabletStatus| {
        let assignment = &tablet.assignment;
        let configuration = &assignment.configuration;
        let lag = lag(tablet);
        let follower = |node: NodeId| match lag.get(&node) {
            Some(0) => node.to_string(),
            Some(behind) => format!("{node} (-{})", show::count(*behind)),
            None => format!("{node} (?)"),
        };
        let mut followers: Vec<String> = configuration.secondaries.iter().map(|&node| follower(node)).collect();
        followers.extend(assignment.learner.map(|node| format!("{} learns", follower(node))));
        let primary = report(tablet, configuration.primary);
        vec![
            assignment.tablet.id.to_string(),
            assignment.schema.name.clone(),
            assignment.tablet.slice.to_string(),
            configuration.epoch.to_string(),
            match primary.is_some_and(|report| report.steady && report.role == Role::Primary) {
                true if primary.is_some_and(|report| report.stalled) => format!("{} (stalled)", configuration.primary),
                true => configuration.primary.to_string(),
                false => format!("{} (not ready)", configuration.primary),
            },
            followers.join(", "),
            primary.map_or_else(|| String::from("?"), |report| show::count(report.committed.0)),
            primary.map_or_else(|| String::from("?"), |report| show::size(report.bytes)),
            show::count(load(tablet)),
        ]
    };
    let names = ["tablet", "table", "rows", "epoch", "primary", "secondaries", "committed#", "size#", "load/s#"];
    Ok(out.table(&names, tablets.into_iter().map(row).collect())?)
}

/// Requests per second that the replicas of a tablet have served lately.
pub fn load(tablet: &TabletStatus) -> u64 {
    tablet.replicas.iter().map(|(_, report)| report.load).sum()
}

fn report(tablet: &TabletStatus, node: NodeId) -> Option<&ReplicaReport> {
    tablet.replicas.iter().find(|(at, _)| *at == node).map(|(_, report)| report)
}

/// How many records each follower's disk lacks of what the primary has committed, as last reported by both.
fn lag(tablet: &TabletStatus) -> BTreeMap<NodeId, u64> {
    let Some(primary) = report(tablet, tablet.assignment.configuration.primary) else { return BTreeMap::new() };
    let behind = |report: &ReplicaReport| primary.committed.0.saturating_sub(report.durable.0);
    tablet.replicas.iter().map(|(node, report)| (*node, behind(report))).collect()
}

fn is_short(tablet: &TabletStatus) -> bool {
    tablet.assignment.configuration.size() < usize::from(tablet.assignment.schema.replicas)
}

/// Tablets whose new writes wait at the node.
pub fn stalls(node: NodeId, status: &ClusterStatus) -> usize {
    let stalled = |tablet: &&TabletStatus| report(tablet, node).is_some_and(|report| report.stalled);
    status.tablets.iter().filter(stalled).count()
}

fn roles(node: NodeId, status: &ClusterStatus) -> (usize, usize) {
    let configurations = || status.tablets.iter().map(|tablet| &tablet.assignment.configuration);
    let primaries = configurations().filter(|configuration| configuration.primary == node).count();
    let secondaries = configurations().filter(|configuration| configuration.secondaries.contains(&node)).count();
    (primaries, secondaries)
}

pub fn node_to_json(node: &NodeStatus, status: &ClusterStatus, pids: &Pids) -> Value {
    let (primaries, secondaries) = roles(node.node, status);
    let mut value = json!({
        "id": node.node.to_string(),
        "address": node.address,
        "alive": node.alive,
        "incarnation": node.incarnation.0,
        "heard_ms_ago": node.heard_ms_ago,
        "disk_full": node.disk_full,
        "draining": node.draining,
        "scrub": {
            "percent": node.scrub.percent,
            "completed": node.scrub.completed.map(show::date),
            "damage": node.scrub.damage,
        },
        "primary_of": primaries,
        "secondary_of": secondaries,
        "stalled": stalls(node.node, status),
    });
    if let Some(pid) = pids.get(&node.node.to_string()) {
        value["pid"] = json!(pid);
    }
    value
}

pub fn tablet_to_json(tablet: &TabletStatus) -> Value {
    let lag = lag(tablet);
    let replica = |(node, report): &(NodeId, ReplicaReport)| {
        json!({
            "node": node.to_string(),
            "role": match report.role {
                Role::Primary => "primary",
                Role::Secondary => "secondary",
                Role::Learner => "learner",
                Role::Spare => "spare",
            },
            "epoch": report.epoch.0,
            "schema": report.schema,
            "durable": report.durable.0,
            "committed": report.committed.0,
            "lag": lag.get(node),
            "steady": report.steady,
            "bytes": report.bytes,
            "load": report.load,
            "damaged": report.damaged,
            "stalled": report.stalled,
        })
    };
    let mut value = table::assignment_to_json(&tablet.assignment);
    value["replicas"] = tablet.replicas.iter().map(replica).collect();
    value
}

impl std::fmt::Display for super::parse::Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.as_master() {
            Some(number) => write!(f, "m{number}"),
            None => self.0.fmt(f),
        }
    }
}
