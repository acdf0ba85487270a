//! Tablets are split under load, by hand and by size: nobody fails, nothing is lost, and one order explains what all
//! clients saw (issue 3, part 3). The times that it prints are what the machine gave.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::collections::BTreeSet;

use common::load::{Load, ROWS, TABLE};
use common::{Cluster, until};
use rustix::process::Signal;

/// "Range tablets split … through the group's own log, under load and under faults, with no failed request beyond a
/// redirect." Then a primary of an heir is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_fails_while_tablets_are_split() {
    let cluster = Cluster::start();
    cluster.ok(TABLE);
    let load = Load::start(&cluster.grpc, 3);
    load.until_written(&ROWS, 0);
    let mut slowest = Vec::new();
    for (row, at) in [("a", "b"), ("z", "y"), ("b", "c"), ("z", "z")] {
        let tablet = String::from(cluster.tablet("load", row)["tablet"].as_str().expect("it has a name"));
        let begun = load.now();
        let said = cluster.json(&["tablet", "split", &tablet, "--at", at]);
        assert_eq!(said["at"], at, "{said}");
        load.until_written(&[row], load.now());
        let latencies = load.latencies(&ROWS, begun..load.now());
        assert!(latencies.iter().all(Option::is_some), "a write failed: {}", load.failures());
        slowest.extend(latencies.last().copied().flatten());
        println!("{tablet} split at {at}: the slowest write took {:?}", slowest[slowest.len() - 1]);
    }
    assert_eq!(load.failures(), "{}");
    let tablets: BTreeSet<String> = ROWS.iter().map(|row| cluster.tablet("load", row)["tablet"].to_string()).collect();
    assert_eq!(tablets.len(), 6, "each row has a tablet of its own: {tablets:?}");
    let primary = cluster.primary("load", "a");
    let killed = load.now();
    cluster.signal(&primary, Signal::KILL);
    load.until_written(&["a"], killed);
    cluster.ok(&["node", "restart", &primary]);
    load.judge().await;
}

/// A table that grows gets more tablets by itself, each row is in one of them, and a scan finds all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_grows_is_split() {
    let cluster = Cluster::with(&["--split-bytes", "64KiB"], |_| {});
    cluster.ok(&["table", "create", "big", "--family", "f", "--partition", "range"]);
    let file = cluster.scratch().join("rows.csv");
    let value = "x".repeat(1_000);
    let rows = (0..400).map(|row| format!("row {row:04},{value}\n")).collect::<String>();
    std::fs::write(&file, format!("key,f:q\n{rows}")).expect("a file");
    let path = file.display().to_string();
    cluster.ok(&["import", "big", &path, "--key", "key"]);
    let tablets = || {
        let tablets = cluster.json(&["tablet", "list", "big"])["tablets"].clone();
        tablets.as_array().expect("a list").len()
    };
    until("four tablets", || tablets() >= 4);
    let found = cluster.ok(&["scan", "big", "--json"]);
    let keys: Vec<&str> = found.lines().filter(|line| line.contains("row ")).collect();
    assert_eq!(keys.len(), 400, "each row once");
    println!("400 rows of 1 kB are in {} tablets", tablets());
}
