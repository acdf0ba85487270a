//! Many rows at once, through real processes: a load goes on while its tablets are split, moved and merged and a node is killed,
//! and each row is there once, as it was given.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::collections::BTreeMap;
use std::thread;

use common::{Cluster, run, until};
use futures_util::StreamExt;
use model::{Bytes, Change, RowChanges, Timestamp};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Issue 4, part 8: bulk load of sorted data, and decision 0014.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_survives_splits_a_merge_and_a_crash() {
    let cluster = Cluster::start();
    cluster.ok(&["table", "create", "big", "--family", "f:versions=9", "--partition", "range"]);
    let file = cluster.scratch().join("rows.csv");
    let rows = (0..60_000).map(|row| format!("row {row:06},{row},{}\n", row * 7)).collect::<String>();
    std::fs::write(&file, format!("key,f:a,f:b\n{rows}")).expect("a file");
    let (path, endpoint) = (file.display().to_string(), cluster.grpc.clone());
    // A window that is small: the load shall last until all has happened.
    let import = ["import", "big", &path, "--key", "key", "--window", "3000", "--json"].map(String::from);
    let loading = thread::spawn(move || run(&import.each_ref().map(String::as_str), &endpoint));
    let is_there = |row: &str| cluster.run(&["get", "big", row]).code == 0;
    until("some rows are there", || is_there("row 000500"));
    let tablet_of = |row: &str| String::from(cluster.tablet("big", row)["tablet"].as_str().expect("it has a name"));
    for at in ["row 030000", "row 015000", "row 045000"] {
        cluster.ok(&["tablet", "split", &tablet_of(at), "--at", at]);
    }
    let primary = cluster.primary("big", "row 030000");
    cluster.signal(&primary, Signal::KILL);
    cluster.ok(&["node", "restart", &primary]);
    cluster.ok(&["tablet", "merge", &tablet_of("row 000000"), "--no-wait"]);
    let loaded = loading.join().expect("the import runs");
    assert_eq!(loaded.code, 0, "{loaded:?}");
    let said: Value = serde_json::from_str(&loaded.out).expect("JSON");
    assert_eq!((&said["rows"], &said["duplicates"]), (&json!(60_000), &json!(0)));
    let client = client::Client::connect(&cluster.grpc, client::Options::default()).expect("an endpoint");
    let options = model::ReadOptions { versions: 9, ..model::ReadOptions::default() };
    let mut found = client.scan("big", model::RowRange::default(), options, None);
    let mut count = 0;
    while let Some(row) = found.next().await {
        let row = row.expect("a scan finds all");
        assert_eq!(row.key, format!("row {count:06}"));
        let values: Vec<Bytes> = row.cells.into_iter().map(|cell| cell.value).collect();
        assert_eq!(values, [count.to_string(), (count * 7).to_string()], "each cell was written once");
        count += 1;
    }
    assert_eq!(count, 60_000);
}

/// Whoever asks a gateway gets each row to its tablet, and is told of each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_takes_rows_of_all_tablets() {
    let cluster = Cluster::start();
    cluster.ok(&["table", "create", "t", "--family", "f", "--partition", "hash:4"]);
    over_grpc(&cluster).await;
    over_rest(&cluster);
}

async fn over_grpc(cluster: &Cluster) {
    let mut kv = wire::v1::kv_client::KvClient::connect(format!("http://{}", cluster.grpc)).await.expect("a gateway");
    let row = |row: &str, family: &str, value: &str| RowChanges {
        row: Bytes::copy_from_slice(row.as_bytes()),
        changes: vec![Change::Put {
            family: String::from(family),
            qualifier: Bytes::from_static(b"q"),
            timestamp: Timestamp::SERVER,
            value: Bytes::copy_from_slice(value.as_bytes()),
        }],
    };
    let request = |rows: Vec<RowChanges<String>>| wire::v1::MutateManyRequest {
        request: None,
        ..wire::convert::mutate_many_request("t", model::RequestId::default(), vec![], rows)
    };
    let mut rows: Vec<_> = (0..500).map(|number| row(&format!("g{number:03}"), "f", "1")).collect();
    rows.push(row("g000", "f", "2"));
    rows.push(row("bad", "none", "1"));
    let answer = kv.mutate_many(request(rows)).await.expect("most are written").into_inner();
    assert_eq!((answer.version_micros.len(), answer.failed.len(), answer.failed[0].row), (502, 1, 501));
    assert!(answer.version_micros[..501].iter().all(|version| *version > 0) && answer.version_micros[501] == 0);
    assert_eq!(cluster.ok(&["get", "t", "g000", "f:q", "--raw"]), "2", "the last one wins");
    assert_eq!(
        cluster.ok(&["scan", "t", "--prefix", "g", "--json"]).lines().filter(|line| line.contains("g")).count(),
        500
    );
    let refused = kv.mutate_many(request(vec![row("bad", "none", "1")])).await.expect_err("there is no such family");
    assert_eq!(refused.code(), tonic::Code::NotFound, "{refused}");
    let empty = kv.mutate_many(request(vec![row("", "f", "1")])).await.expect_err("a row has a key");
    assert_eq!(empty.code(), tonic::Code::InvalidArgument);
}

fn over_rest(cluster: &Cluster) {
    let line =
        |row: &str, family: &str| json!({"row": row, "cells": {format!("{family}:q"): [{"value": "1"}]}}).to_string();
    let post = |lines: &[String]| cluster.rest("POST", "/v1/tables/t/rows", lines.join("\n").as_bytes());
    let (status, written) = post(&(0..300).map(|number| line(&format!("r{number:03}"), "f")).collect::<Vec<_>>());
    assert_eq!((status, &written), (200, &json!({"written": 300})));
    let (status, shown) = cluster.http("GET", "/v1/tables/t/rows?prefix=r", b"");
    assert_eq!((status, shown.iter().filter(|&&byte| byte == b'\n').count()), (200, 300));
    // What was shown is taken again.
    assert_eq!(cluster.rest("POST", "/v1/tables/t/rows", &shown).1, json!({"written": 300}));
    let (status, answer) = post(&[line("s1", "f"), line("s2", "none"), line("s3", "f")]);
    assert_eq!((status, &answer["written"], &answer["failed"][0]["line"]), (404, &json!(2), &json!(2)), "{answer}");
    assert_eq!(answer["error"]["code"], "not_found");
    let (status, answer) = post(&[line("s4", "f"), String::from("nonsense")]);
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("invalid_argument")), "{answer}");
    let there: BTreeMap<&str, u16> = ["s1", "s2", "s3", "s4"]
        .into_iter()
        .map(|row| (row, cluster.http("GET", &format!("/v1/tables/t/rows/{row}"), b"").0))
        .collect();
    assert_eq!(there, BTreeMap::from([("s1", 200), ("s2", 404), ("s3", 200), ("s4", 404)]));
    assert_eq!(cluster.rest("POST", "/v1/tables/none/rows", line("a", "f").as_bytes()).0, 404);
}
