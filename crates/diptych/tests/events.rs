//! Events of real processes: a killed primary's succession is told with its evidence, by the command line and as a stream.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use common::{Cluster, until};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn who_succeeded_whom_and_why() {
    let cluster = Cluster::start();
    cluster.ok(&["table", "create", "t", "--family", "f", "--partition", "hash:1"]);
    cluster.ok(&["put", "t", "a", "f:q=1"]);
    let primary = cluster.primary("t", "a");
    let tablet = cluster.tablet("t", "a");
    let (id, heir) = (tablet["tablet"].to_string(), tablet["secondaries"][0].clone());
    let id = id.trim_matches('"');
    cluster.until_secondary("t", "a", heir.as_str().expect("there is one"));
    let (_, page) = cluster.rest("GET", "/v1/events?limit=1", b"");
    let since = page["next"].as_u64().expect("a number");

    // A stream that is open before anything happens.
    let mut stream = TcpStream::connect(&cluster.http).expect("HTTP is served");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let path = format!("/v1/events?follow=true&since={since}&name=configuration_decided&tablet={id}");
    write!(stream, "GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").expect("the request is sent");

    cluster.signal(&primary, Signal::KILL);
    let told = |event: &Value| event["node"] == heir && event["what"].as_str().is_some_and(|it| it.contains("silent"));
    let since = since.to_string();
    let command = ["--json", "events", "--since", &since, "--tablet", id, "--name", "configuration_decided"];
    let mut found = Value::Null;
    until("the succession is told", || {
        let lines = cluster.ok(&command);
        let mut events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        found = events.find(told).unwrap_or_default();
        !found.is_null()
    });
    let what = found["what"].as_str().expect("words");
    assert!(what.contains(&format!("the primary {primary} has been silent for")), "{what}");
    assert!(found["epochs"][0].as_u64() < found["epochs"][1].as_u64() && found["table"] == "t", "{found}");

    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("the stream goes on"));
    assert!(lines.any(|line| line == "event: configuration_decided"));
    let data = lines.find_map(|line| line.strip_prefix("data: ").map(String::from)).expect("an event has data");
    let streamed: Value = serde_json::from_str(&data).expect("JSON on one line");
    assert_eq!(streamed["tablet"], found["tablet"]);

    // For people, and on the page.
    assert!(cluster.ok(&["events"]).contains("configuration_decided"));
    let (status, page) = cluster.http("GET", "/", b"");
    assert!(status == 200 && String::from_utf8_lossy(&page).contains("configuration_decided"));

    // The master keeps them.
    cluster.ok(&["node", "restart", "m1"]);
    until("the master answers again", || cluster.rest("GET", "/v1/events", b"").0 == 200);
    let (_, page) = cluster.rest("GET", &format!("/v1/events?since={since}&tablet={id}"), b"");
    assert!(page["events"].as_array().expect("a list").contains(&found), "{page}");
}
