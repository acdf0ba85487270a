//! What happens to rows is followed while tablets are split and merged and primaries die (docs/changes.md), by the command line
//! and over HTTP.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::collections::BTreeMap;

use common::{Cluster, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Every write once, those of a row in their order, whatever becomes of the tablets between two pages.
#[test]
fn changes_are_followed_by_whoever_has_the_token() {
    let cluster = Cluster::start();
    cluster.ok(&[
        "table",
        "create",
        "t",
        "--family",
        "f",
        "--partition",
        "range",
        "--replicas",
        "2",
        "--changes",
        "1h",
    ]);
    assert_eq!(cluster.json(&["table", "show", "t"])["changes"], json!("1h"));
    let rows = ["a", "b", "m", "z"];
    let (mut written, mut read) = (BTreeMap::<&str, Vec<String>>::new(), BTreeMap::<String, Vec<String>>::new());
    let mut token = String::from("kept");
    for turn in 0..6 {
        for (number, row) in rows.iter().cycle().take(10).enumerate() {
            let value = format!("{turn}.{number}");
            let cell = format!("/v1/tables/t/rows/{row}/f:q");
            until("a write is taken", || cluster.http("PUT", &cell, value.as_bytes()).0 == 200);
            written.entry(row).or_default().push(value);
        }
        match turn {
            0 => split(&cluster, "m"),
            2 => {
                let primary = cluster.primary("t", "m");
                cluster.signal(&primary, Signal::KILL);
            }
            3 => split(&cluster, "b"),
            4 => {
                let tablet = cluster.tablet("t", "b")["tablet"].clone();
                cluster.ok(&["tablet", "merge", tablet.as_str().expect("it has a name")]);
            }
            _ => {}
        }
        loop {
            let mut page = Value::Null;
            until("a page", || {
                let (status, answer) = cluster.rest("GET", &format!("/v1/tables/t/changes?from={token}"), b"");
                page = answer;
                status == 200
            });
            token = String::from(page["token"].as_str().expect("a token"));
            for change in page["changes"].as_array().expect("changes") {
                let [put] = &change["changes"].as_array().expect("of a row")[..] else { panic!("{change}") };
                assert_eq!(put["put"], json!("f:q"));
                let text = |value: &Value| String::from(value.as_str().expect("text"));
                read.entry(text(&change["row"])).or_default().push(text(&put["value"]));
            }
            if page["more"] == json!(false) {
                break;
            }
        }
    }
    let written: BTreeMap<String, Vec<String>> =
        written.into_iter().map(|(row, values)| (String::from(row), values)).collect();
    assert_eq!(read, written);

    // The command line reads the same, from the beginning, and says how to go on.
    let all = cluster.run(&["changes", "t"]);
    assert_eq!((all.code, all.out.lines().count()), (0, 60), "{all:?}");
    let token = all.err.trim().strip_prefix("go on with --from ").map(String::from).expect("a token");
    cluster.ok(&["del", "t", "a"]);
    let next = cluster.ok(&["changes", "t", "--from", &token, "--json"]);
    let lines: Vec<Value> = next.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        (lines.len(), &lines[0]["row"], &lines[0]["changes"]),
        (2, &json!("a"), &json!([{"delete_family": "f"}]))
    );
    assert!(lines[1]["token"].is_string(), "{next}");

    // Readers of rows see none of it.
    assert_eq!(cluster.ok(&["scan", "t"]).lines().count(), 3);
    let refused = cluster.run(&["put", "t", "a", "$changes:x=y"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    refusals(&cluster, &token);
}

fn split(cluster: &Cluster, at: &str) {
    let tablet = cluster.tablet("t", at)["tablet"].clone();
    cluster.ok(&["tablet", "split", tablet.as_str().expect("it has a name"), "--at", at]);
}

/// What is wrong is said, and is not the same for everything.
fn refusals(cluster: &Cluster, token: &str) {
    let page = |table: &str, from: &str| cluster.rest("GET", &format!("/v1/tables/{table}/changes?from={from}"), b"");
    assert_eq!(page("t", "1000").0, 410, "long before what is kept");
    assert_eq!(page("t", "yesterday").0, 400);
    assert_eq!(page("t", &token.replace('0', "1")).0, 400, "a damaged token");
    assert_eq!(page("none", "kept").0, 404);
    cluster.ok(&["table", "create", "plain", "--family", "f"]);
    assert_eq!(page("plain", "kept").0, 409, "it keeps no changes");
    let (status, altered) = cluster.rest("PATCH", "/v1/tables/plain", br#"{"changes": "1d"}"#);
    assert_eq!((status, &altered["changes"]), (200, &json!("1d")), "{altered}");
    assert_eq!(page("plain", token).0, 400, "a token of another table");
    until("its nodes have heard of it", || page("plain", "kept").0 == 200);
    cluster.ok(&["table", "alter", "plain", "--changes", "off"]);
    until("they have heard of that", || page("plain", "kept").0 == 409);
    let too_long = cluster.run(&["table", "alter", "plain", "--changes", "8d"]);
    assert!(too_long.code != 0, "{too_long:?}");
}
