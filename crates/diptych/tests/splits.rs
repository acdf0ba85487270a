//! Tablets are split under load, by hand and by size: nobody fails, nothing is lost, and one order explains what all
//! clients saw (issue 3, part 3). The times that it prints are what the machine gave.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::collections::BTreeSet;

use common::load::{Load, ROWS, TABLE};
use common::{Cluster, until};
use futures_util::StreamExt;
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
    // Compression must not make it small again.
    let mut random = model::random::Random::new(1);
    let mut value = || (0..1_000).map(|_| char::from(b'a' + random.below(26) as u8)).collect::<String>();
    let rows = (0..400).map(|row| format!("row {row:04},{}\n", value())).collect::<String>();
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

/// A scan that goes on while tablets are split finds every row that was there before and after, once and in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_across_a_split_finds_each_row_once() {
    let cluster = Cluster::start();
    cluster.ok(&["table", "create", "big", "--family", "f", "--partition", "range"]);
    let file = cluster.scratch().join("rows.csv");
    let rows = (0..600).map(|row| format!("row {row:04},{}\n", "x".repeat(200))).collect::<String>();
    std::fs::write(&file, format!("key,f:q\n{rows}")).expect("a file");
    cluster.ok(&["import", "big", &file.display().to_string(), "--key", "key"]);
    let client = client::Client::connect(&cluster.grpc, client::Options::default()).expect("an endpoint");
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let scans = tokio::spawn(scan_until(client.clone(), std::sync::Arc::clone(&over)));
    let tablet_of = |row: &str| String::from(cluster.tablet("big", row)["tablet"].as_str().expect("it has a name"));
    // Without a key the middle is found, also in tablets of a few kB that share their only file.
    for row in ["row 0000", "row 0599", "row 0100", "row 0000", "row 0599"] {
        let said = cluster.json(&["tablet", "split", &tablet_of(row)]);
        println!("{said}");
    }
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    let scans = scans.await.expect("every scan finds all");
    let tablets = cluster.json(&["tablet", "list", "big"])["tablets"].as_array().map(Vec::len);
    assert_eq!(tablets, Some(6));
    println!("{scans} scans while one tablet became six, {} redirects", client.redirects());
}

/// Scans the table again and again; how often.
async fn scan_until(client: client::Client, over: std::sync::Arc<std::sync::atomic::AtomicBool>) -> usize {
    let expected: Vec<String> = (0..600).map(|row| format!("row {row:04}")).collect();
    let mut scans = 0;
    loop {
        let last = over.load(std::sync::atomic::Ordering::Relaxed);
        let mut rows = client.scan("big", model::RowRange::default(), model::ReadOptions::default(), None);
        let mut found = Vec::new();
        while let Some(row) = rows.next().await {
            let row = row.expect("no scan fails");
            found.push(String::from_utf8(row.key.to_vec()).expect("text"));
        }
        assert_eq!(found, expected, "scan {scans}");
        scans += 1;
        if last {
            return scans;
        }
    }
}

/// A tablet that is asked of much is split between the rows that are asked for, though it is tiny.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_tablet_is_split() {
    let cluster = Cluster::with(&["--split-load", "40"], |_| {});
    cluster.ok(TABLE);
    let load = Load::start(&cluster.grpc, 5);
    load.until_written(&ROWS, 0);
    let tablets = || cluster.json(&["tablet", "list", "load"])["tablets"].as_array().expect("a list").clone();
    until("tablets are split because they are busy", || tablets().len() >= 4);
    let load_of = |tablet: &serde_json::Value| {
        let replicas = tablet["replicas"].as_array().expect("a list").clone();
        replicas.iter().filter_map(|replica| replica["load"].as_u64()).sum::<u64>()
    };
    println!("requests per second: {:?}", tablets().iter().map(load_of).collect::<Vec<_>>());
    assert_eq!(load.failures(), "{}");
    load.judge().await;
}

/// Tablets become one under load, though other nodes keep them: nobody fails, and one order explains what all saw. Then
/// the heir's primary is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_fails_while_tablets_are_merged() {
    let cluster = Cluster::start();
    cluster.ok(TABLE);
    let load = Load::start(&cluster.grpc, 7);
    load.until_written(&ROWS, 0);
    let name = |row: &str| String::from(cluster.tablet("load", row)["tablet"].as_str().expect("it has a name"));
    let mut slowest = Vec::new();
    for round in 0..3 {
        let begun = load.now();
        let merged = cluster.json(&["tablet", "merge", &name("a")]);
        assert_eq!((name("a"), merged["done"].as_bool()), (name("z"), Some(true)), "{merged}");
        load.until_written(&ROWS, load.now());
        let latencies = load.latencies(&ROWS, begun..load.now());
        assert!(latencies.iter().all(Option::is_some), "a write failed: {}", load.failures());
        slowest.extend(latencies.last().copied().flatten());
        println!("round {round}: one tablet, {merged}; the slowest write took {:?}", slowest[round]);
        if round < 2 {
            cluster.json(&["tablet", "split", &name("a"), "--at", "c"]);
            let halves = (name("b"), name("c"));
            assert_ne!(halves.0, halves.1);
            // The other half goes elsewhere, and has to come back.
            let tablet = cluster.tablet("load", "c");
            let kept = [&tablet["primary"], &tablet["secondaries"][0]];
            let to = ["n1", "n2", "n3", "n4"].into_iter().find(|node| !kept.iter().any(|kept| *kept == node));
            let (from, to) = (tablet["primary"].as_str().expect("a node"), to.expect("there are four"));
            cluster.ok(&["tablet", "move", &halves.1, "--from", from, "--to", to]);
        }
    }
    assert_eq!(load.failures(), "{}");
    let primary = cluster.primary("load", "a");
    let killed = load.now();
    cluster.signal(&primary, Signal::KILL);
    load.until_written(&["a"], killed);
    cluster.ok(&["node", "restart", &primary]);
    load.judge().await;
}

/// A table that nobody asks anything of becomes one tablet again by itself, with all its rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_table_is_merged() {
    let cluster = Cluster::with(&["--merge-after", "1s"], |_| {});
    let flags = ["--family", "f", "--partition", "range", "--split", "g", "--split", "p"];
    cluster.ok(&[&["table", "create", "cold"], &flags[..]].concat());
    for row in ["a", "h", "z"] {
        cluster.ok(&["put", "cold", row, "f:q=1"]);
    }
    let tablets = || cluster.json(&["tablet", "list", "cold"])["tablets"].as_array().map(Vec::len);
    until("one tablet", || tablets() == Some(1));
    let found = cluster.ok(&["scan", "cold", "--json"]);
    assert_eq!(found.lines().filter(|line| line.contains("row")).count(), 3, "{found}");
    let events = cluster.ok(&["events", "--json"]);
    assert!(events.contains("merge_decided") && events.contains("tablets_merged"), "{events}");
}
