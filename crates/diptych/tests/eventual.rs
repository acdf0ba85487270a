//! Eventual reads of real processes: every replica answers, says how old it may be, and goes on when the primary is gone.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::collections::BTreeSet;

use common::{Cluster, until};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn any_replica_answers_and_says_how_old() {
    let cluster = Cluster::start();
    cluster.ok(&["table", "create", "t", "--family", "f", "--partition", "hash:1"]);
    cluster.ok(&["put", "t", "a", "f:q=1"]);
    let primary = cluster.primary("t", "a");
    let secondary = cluster.tablet("t", "a")["secondaries"][0].clone();
    let secondary = secondary.as_str().expect("there is one");
    cluster.until_secondary("t", "a", secondary);

    let read = |more: &[&str]| -> Value {
        let command = [&["--json", "get", "t", "a", "--consistency", "eventual"][..], more].concat();
        serde_json::from_str(&cluster.ok(&command)).expect("a line of JSON")
    };
    let mut seen = BTreeSet::new();
    until("both replicas have answered", || {
        let row = read(&["--max-lag", "5s"]);
        assert_eq!(row["cells"]["f:q"][0]["value"], "1", "{row}");
        let from = &row["from"];
        assert!(from["position"]["epoch"].as_u64() > Some(0) && from["position"]["lsn"].as_u64() > Some(0), "{row}");
        assert!(from["lag_us"].as_u64().is_some_and(|lag| lag <= 5_000_000), "{row}");
        seen.insert(String::from(from["node"].as_str().expect("a name")));
        seen.len() == 2
    });
    assert_eq!(seen, BTreeSet::from([primary.clone(), String::from(secondary)]));
    // The same over HTTP, and as a scan.
    let (status, rows) = cluster.http("GET", "/v1/tables/t/rows?consistency=eventual&max_lag=5s", b"");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&rows));
    assert!(String::from_utf8_lossy(&rows).contains("\"row\":\"a\""));
    assert_eq!(cluster.rest("GET", "/v1/tables/t/rows/a?max_lag=5s", b"").0, 400, "without consistency=eventual");

    cluster.signal(&primary, Signal::STOP);
    assert_eq!(read(&[])["from"]["node"], secondary, "nobody waits for the primary's successor");
    cluster.signal(&primary, Signal::CONT);
}
