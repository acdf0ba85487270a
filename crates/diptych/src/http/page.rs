//! The cluster's state as a page: made here, complete without a script, and everything in it escaped. Where scripts run,
//! the console (`console/`) takes its place.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::{self, Write};
use std::future::ready;

use axum::body::Body;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use client::Client;
use futures_util::{FutureExt, StreamExt, stream};
use model::request::{ClusterStatus, MasterStatus, NodeStatus, ReplicaReport, Role, TabletStatus};
use model::{Event, Schema, TableId};

use super::problem::Problem;
use super::{console, tables};
use crate::cli::cluster::{load, stalls};
use crate::cli::{events, parse, show, table};

/// The page may load what is ours, and speak to us; nothing else, and it stands in no other page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page. Its head goes at once, so that the console begins to load while the masters are asked. Without a master it
/// says so, and stays a page.
pub fn show(client: &Client) -> Response {
    let client = client.clone();
    let body = async move {
        match tables::status(&client).await {
            Ok(status) => page(&status, &tables::last_events(&client).await),
            Err(problem) => told(&problem),
        }
    };
    let head = stream::once(ready(head(console::entry("js").zip(console::entry("css")))));
    html(Body::from_stream(head.chain(stream::once(body.map(|body| body + FOOT))).map(Ok::<_, Infallible>)))
}

/// The page of a process that has no data to show.
pub fn show_without_data(problem: &Problem) -> Response {
    html(Body::from(head(None) + &told(problem) + FOOT))
}

fn html(body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    (headers, body).into_response()
}

fn told(problem: &Problem) -> String {
    let error = &problem.to_json()["error"];
    let text = |name| Text(error[name].as_str().unwrap_or_default()).to_string();
    format!("<p class=bad>{}</p><p>{}</p>", text("message"), text("hint"))
}

/// Text within HTML.
struct Text<T>(T);

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.to_string().chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                letter => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// Up to where the state begins. With the console's script and style, if there are such.
fn head(console: Option<(&str, &str)>) -> String {
    let (style, icon) = (console::STATUS_STYLE, console::ICON);
    let (class, refresh, loads) = match console {
        Some((script, sheet)) => (
            " class=console",
            "<noscript><meta http-equiv=refresh content=5></noscript>",
            format!(
                "<link rel=stylesheet href=\"/console/{sheet}\"><script type=module async src=\"/console/{script}\"></script>"
            ),
        ),
        None => ("", "<meta http-equiv=refresh content=5>", String::new()),
    };
    // What the console draws first, so that there is something to see before its script has come.
    let frame = console.map_or("", |_| "<header><a class=brand href=\"#/\">Diptych</a></header>");
    let note = match console {
        Some(_) => "",
        None => {
            "<p>The console, on which one operates the cluster, is not in this binary: it was built by <code>cargo build</code> \
             alone. <code>make run</code> builds both.</p>"
        }
    };
    format!(
        "<!doctype html><html lang=en{class}><head><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\"><title>Diptych</title>{refresh}\
         <link rel=icon href=\"/console/{icon}\"><link rel=stylesheet href=\"/console/{style}\">{loads}</head>\
         <body><div id=console>{frame}</div><main id=status><h1>Diptych</h1>{note}"
    )
}

const FOOT: &str = "<p><a href=/v1/cluster>as JSON</a> · <a href=/readyz?verbose>health</a> · \
     <a href=/metrics>metrics</a> · <a href=/openapi.json>interface</a></p></main></body></html>\n";

fn page(status: &ClusterStatus, events: &[Event]) -> String {
    let alive = status.nodes.iter().filter(|node| node.alive).count();
    let short = status.tablets.iter().filter(|tablet| is_short(tablet)).count();
    let mut body =
        format!("<p>Cluster <code>{}</code>: {alive} of {} nodes alive, ", status.cluster, status.nodes.len());
    body += &match short {
        0 => format!("<span class=good>all {} tablets complete</span>.</p>", status.tablets.len()),
        _ => format!("<span class=bad>{short} of {} tablets lack replicas</span>.</p>", status.tablets.len()),
    };
    body += "<h2>Masters</h2><div><table><tr><th>master<th>state<th>heard<th class=n>behind<th>address</tr>";
    status.masters.iter().for_each(|master| body += &master_line(master));
    body += "</table></div><h2>Nodes</h2><div><table><tr><th>node<th>state<th>heard<th class=n>primary of<th class=n>secondary of<th>address</tr>";
    status.nodes.iter().for_each(|node| body += &node_line(node, status));
    body += "</table></div>";
    let tables = newest_schemas(status);
    if !tables.is_empty() {
        body += "<h2>Tables</h2><div><table><tr><th>table<th>families<th>partition<th class=n>replicas<th>compaction<th>locality groups</tr>";
        tables.iter().for_each(|schema| body += &table_line(schema));
        body += "</table></div>";
    }
    body += "<h2>Tablets</h2>";
    if status.tablets.is_empty() {
        body += "<p>No tables yet. Make one: <code>diptych table create users --family name</code></p>";
    } else {
        body += "<div><table><tr><th>table<th>tablet<th>rows<th>epoch<th>primary<th>secondaries<th class=n>committed<th class=n>size<th class=n>load/s</tr>";
        status.tablets.iter().for_each(|tablet| body += &tablet_line(tablet));
        body += "</table></div>";
    }
    if !events.is_empty() {
        body += "<h2>Events</h2><div><table><tr><th>when (UTC)<th>source<th>event<th>of<th>what</tr>";
        events.iter().rev().for_each(|event| body += &event_line(event));
        body += "</table></div>";
    }
    body
}

fn master_line(master: &MasterStatus) -> String {
    let class = if master.is_alive() { "good" } else { "bad" };
    let heard = master.heard_ms_ago.map_or(String::from("never"), |ms| format!("{:.1} s ago", ms as f64 / 1e3));
    let behind = master.behind.map_or(String::from("?"), show::count);
    format!(
        "<tr><td>m{}<td><span class={class}>{}</span><td>{heard}<td class=n>{behind}<td><code>{}</code></tr>",
        master.id,
        master.state(),
        Text(&master.address)
    )
}

fn event_line(event: &Event) -> String {
    format!(
        "<tr><td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
        show::date(event.at),
        event.source,
        Text(&event.name),
        Text(events::subject(event)),
        Text(&event.what)
    )
}

fn node_line(node: &NodeStatus, status: &ClusterStatus) -> String {
    let configurations = || status.tablets.iter().map(|tablet| &tablet.assignment.configuration);
    let primary = configurations().filter(|configuration| configuration.primary == node.node).count();
    let secondary = configurations().filter(|configuration| configuration.secondaries.contains(&node.node)).count();
    let state = match (node.alive, node.disk_full) {
        (true, false) if stalls(node.node, status) > 0 => "<span class=bad>stalled</span>",
        (true, false) => "<span class=good>alive</span>",
        (true, true) => "<span class=bad>disk full</span>",
        (false, _) => "<span class=bad>down</span>",
    };
    let heard = node.heard_ms_ago.map_or(String::from("never"), |ms| format!("{:.1} s ago", ms as f64 / 1e3));
    format!(
        "<tr><td>{}<td>{state}<td>{heard}<td class=n>{primary}<td class=n>{secondary}<td><code>{}</code></tr>",
        node.node,
        Text(&node.address)
    )
}

/// Each table once, by name.
fn newest_schemas(status: &ClusterStatus) -> Vec<&Schema> {
    let mut tables: BTreeMap<(&str, TableId), &Schema> = BTreeMap::new();
    for TabletStatus { assignment, .. } in &status.tablets {
        let schema = &assignment.schema;
        let known = tables.entry((&schema.name, schema.table)).or_insert(schema);
        if known.version < schema.version {
            *known = schema;
        }
    }
    tables.into_values().collect()
}

fn table_line(schema: &Schema) -> String {
    let groups = schema.storage.localities.iter();
    let groups: Vec<String> =
        groups.map(|group| format!("{}: {}", Text(&group.name), Text(parse::show_locality(group)))).collect();
    format!(
        "<tr><td>{}<td>{}<td>{}<td class=n>{}<td>{}<td>{}</tr>",
        Text(&schema.name),
        Text(table::families(schema)),
        Text(table::partition_text(&schema.partition)),
        schema.replicas,
        table::compaction_text(schema),
        groups.join("<br>"),
    )
}

fn tablet_line(tablet: &TabletStatus) -> String {
    let assignment = &tablet.assignment;
    let configuration = &assignment.configuration;
    let report = |node| tablet.replicas.iter().find(|(at, _)| *at == node).map(|(_, report)| report);
    let primary: Option<&ReplicaReport> = report(configuration.primary);
    let steady = primary.is_some_and(|report| report.steady && report.role == Role::Primary);
    let mut secondaries: Vec<String> = configuration.secondaries.iter().map(ToString::to_string).collect();
    secondaries.extend(assignment.learner.map(|node| format!("{node} learns")));
    format!(
        "<tr><td>{}<td>{}<td><code>{}</code><td>{}<td>{}{}<td{}>{}<td class=n>{}<td class=n>{}<td class=n>{}</tr>",
        Text(&assignment.schema.name),
        assignment.tablet.id,
        Text(&assignment.tablet.slice),
        configuration.epoch,
        configuration.primary,
        match primary {
            Some(report) if steady && report.stalled => " <span class=bad>stalled</span>",
            _ if steady => "",
            _ => " <span class=bad>not ready</span>",
        },
        if is_short(tablet) { " class=bad" } else { "" },
        if secondaries.is_empty() { String::from("none") } else { secondaries.join(", ") },
        primary.map_or(String::from("?"), |report| show::count(report.committed.0)),
        primary.map_or(String::from("?"), |report| show::size(report.bytes)),
        show::count(load(tablet)),
    )
}

fn is_short(tablet: &TabletStatus) -> bool {
    tablet.assignment.configuration.size() < usize::from(tablet.assignment.schema.replicas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use model::{Assignment, Configuration, FamilyId, NodeId, Partition, Slice, Tablet, TabletId};

    /// Whatever a row key or an address holds, it is text on the page.
    #[test]
    fn everything_is_escaped() {
        let split = Bytes::from_static(b"<script>alert('x')</script>&\"");
        let schema = Schema {
            table: TableId(1),
            name: String::from("users"),
            version: 1,
            families: Vec::new(),
            next_family: FamilyId(1),
            partition: Partition::Range { splits: vec![split.clone()] },
            replicas: 2,
            min_replicas: 1,
            storage: model::Storage::default(),
            settings: model::Settings::default(),
        };
        let tablet = Tablet { id: TabletId(1), table: TableId(1), slice: Slice::Rows { start: split, end: None } };
        let configuration = Configuration::first(NodeId(1), []);
        let assignment =
            Assignment { tablet, schema, configuration, learner: None, lineage: model::Lineage::default() };
        let node = NodeStatus {
            node: NodeId(1),
            address: String::from("<b>"),
            alive: true,
            incarnation: model::Incarnation(1),
            heard_ms_ago: None,
            disk_full: false,
            draining: false,
            scrub: model::request::ScrubReport::default(),
        };
        let tablets = vec![TabletStatus { assignment, replicas: Vec::new() }];
        let address = String::from("<b>");
        let master = MasterStatus { id: 2, address, leads: true, learns: false, heard_ms_ago: Some(0), behind: None };
        let masters = vec![master];
        let event = Event {
            seq: 1,
            at: model::Timestamp(0),
            source: model::event::Source::Master,
            name: String::from("<b>"),
            table: Some(String::from("<b>")),
            tablet: None,
            node: None,
            epochs: None,
            what: String::from("<script>"),
            count: 1,
        };
        let page = page(&ClusterStatus { cluster: model::ClusterId(7), nodes: vec![node], tablets, masters }, &[event]);
        assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains("alert('"), "{page}");
        assert!(page.contains("<td>m2<td><span class=good>leads</span>"), "{page}");
        let table = "<td>users<td><td>range, 1 split<td class=n>2<td>tiered<td>default: compression=lz4,block=16KiB";
        assert!(page.contains(table), "{page}");
        assert!(page.contains("&lt;script&gt;") && page.contains("1 of 1 tablets lack replicas"), "{page}");
    }
    /// The script is only named if there is one; without it the page reloads itself, and says how to get it.
    #[test]
    fn the_page_names_the_console_that_there_is() {
        let with = head(Some(("console-1.js", "console-2.css")));
        assert!(with.contains("src=\"/console/console-1.js\"") && with.contains("href=\"/console/console-2.css\""));
        assert!(with.contains("<noscript><meta http-equiv=refresh") && !with.contains("make run"), "{with}");
        let without = head(None);
        assert!(!without.contains("<script") && without.contains("make run"), "{without}");
    }
}
