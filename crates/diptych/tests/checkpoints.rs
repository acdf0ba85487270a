//! Checkpoints and what they are restored to: real processes, by the command line and over HTTP.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Cluster, Ended, until};
use model::random::Random;
use rustix::process::Signal;
use serde_json::{Value, json};
use wire::v1::{self, admin_client::AdminClient};

/// What is in a checkpoint comes back as it was, with all versions, whatever became of the table since.
#[test]
fn a_dropped_table_is_restored_as_it_was() {
    let mut cluster = Cluster::start();
    let rows = cluster.scratch().join("rows.ndjson");
    fs::write(&rows, lines(3_000, 7)).expect("a file");
    let rows = text(&rows);
    let cut = ["--partition", "range", "--split", "row01000", "--split", "row02000"];
    let stored = ["--compaction", "leveled", "--locality", "cold:compression=zstd", "--family-locality", "noise=cold"];
    let families = ["--family", "plain:versions=3", "--family", "noise"];
    cluster.ok(&[&["table", "create", "ranged"][..], &families, &cut, &stored].concat());
    cluster.ok(&[&["table", "create", "hashed"][..], &families, &["--partition", "hash:3"]].concat());
    for table in ["ranged", "hashed"] {
        cluster.ok(&["import", table, &rows]);
    }
    cluster.ok(&["del", "ranged", "row00007"]);

    // While others write: what was acknowledged before is in it.
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for at in 1_u64.. {
                cluster.ok(&["put", "ranged", "zz", &format!("plain:n={at}")]);
                acknowledged.store(at, Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        let over = OnDrop(&stop);
        until("some writes", || acknowledged.load(Ordering::SeqCst) > 2);
        let before = acknowledged.load(Ordering::SeqCst);
        cluster.ok(&["checkpoint", "create", "busy"]);
        drop(over);
        writer.join().expect("it writes");
        before
    });

    let made = cluster.json(&["checkpoint", "create", "monday"]);
    assert_eq!((&made["state"], &made["tables"][1]["table"]), (&json!("complete"), &json!("ranged")), "{made}");
    assert_eq!(made["tables"][1]["tablets"].as_array().map(Vec::len), Some(3));
    let (ranged, hashed) = (export(&cluster, "ranged"), export(&cluster, "hashed"));
    assert!(ranged.lines().count() == 3_000 && !ranged.contains("row00007") && ranged.len() > 1 << 20);

    cluster.ok(&["del", "ranged", "row00001"]);
    cluster.ok(&["put", "ranged", "row00002", "plain:q=changed"]);
    cluster.ok(&["table", "drop", "ranged"]);
    cluster.ok(&["del", "hashed", "row00001"]);
    let data = text(&cluster.data());
    let restore = |more: &[&str]| cluster.json(&[&["checkpoint", "restore"][..], more].concat());
    let checked = restore(&["monday", "--from", &data, "--table", "ranged", "--to", "back", "--dry-run"]);
    assert_eq!(checked["tablets"], 3, "{checked}");
    let done = restore(&["monday", "--from", &data, "--table", "ranged", "--to", "back"]);
    assert_eq!((&done["rows"], &done["from"]), (&json!(3_000), &json!("ranged")), "{done}");
    assert_same(&export(&cluster, "back"), &ranged);
    restore(&["monday", "--from", &data, "--table", "hashed", "--to", "back2", "--window", "16"]);
    assert_same(&export(&cluster, "back2"), &hashed);
    let (shown, table) = (cluster.json(&["table", "show", "back"]), cluster.json(&["table", "show", "back2"]));
    assert_eq!(shown["partition"], json!({"range": ["row01000", "row02000"]}));
    assert_eq!((&shown["compaction"], &shown["localities"][1]["compression"]), (&json!("leveled"), &json!("zstd")));
    assert_eq!(shown["families"][0], json!({"name": "plain", "keeps": "versions=3", "locality": "default"}));
    assert_eq!((&shown["families"][1]["locality"], &table["partition"]), (&json!("cold"), &json!({"hash": 3})));

    restore(&["busy", "--from", &data, "--table", "ranged", "--to", "back3"]);
    let there = cluster.json(&["get", "back3", "zz", "plain:n"]);
    let there: u64 = there["cells"]["plain:n"][0]["value"].as_str().and_then(|n| n.parse().ok()).expect("a number");
    assert!(there >= before && there <= acknowledged.load(Ordering::SeqCst), "{there}, {before} at least");

    // What is there already is not written to, and what makes no sense is refused with the reason.
    for (arguments, code, why) in [
        (&["monday", "--from", &data, "--table", "ranged", "--to", "back"][..], 1, "exists already"),
        (&["monday", "--from", &data, "--to", "new"], 2, "hashed, ranged"),
        (&["monday", "--from", &data, "--table", "x", "--to", "new"], 4, "no table \"x\""),
        (&["tuesday", "--from", &data, "--to", "new"], 4, "no checkpoint \"tuesday\""),
        (&["monday", "--from", "/nowhere", "--to", "new"], 4, "/nowhere is no folder"),
    ] {
        let ended = cluster.run(&[&["checkpoint", "restore"][..], arguments].concat());
        assert!(ended.code == code && ended.err.contains(why), "{arguments:?}: {ended:?}");
    }

    // The nodes' own housekeeping does not trip over it, also after a restart.
    cluster.interrupt();
    for node in ["n1", "n2", "n3", "n4"] {
        let checked = common::run(&["fsck", &text(&cluster.data().join(node))], "127.0.0.1:1");
        assert!(checked.code == 0 && checked.out.contains("checkpoint monday: complete"), "{checked:?}");
    }
    cluster.up();
    assert_eq!(state(&cluster, "monday"), "complete");
    let count = |folder: &str| fs::read_dir(cluster.data().join("n1").join(folder)).expect("a folder").count();
    let kept = count("checkpoints/monday/tables");
    assert!(kept > 0);
    cluster.ok(&["checkpoint", "remove", "monday"]);
    assert!(!cluster.data().join("n1/checkpoints/monday").exists() && count("checkpoints") == 1);
    assert_same(&export(&cluster, "back"), &ranged);
}

/// Every way to ask for checkpoints, and every way in which that makes no sense.
#[test]
fn checkpoints_are_listed_shown_and_removed() {
    let cluster = Cluster::with(&["--nodes", "2"], |_| {});
    assert!(cluster.ok(&["checkpoint", "list"]).contains("no checkpoints yet"));
    let none = cluster.run(&["checkpoint", "create", "x"]);
    assert!(none.code == 1 && none.err.contains("no table"), "{none:?}");
    cluster.ok(&["table", "create", "t", "--family", "f"]);
    cluster.ok(&["table", "create", "u", "--family", "f"]);
    cluster.ok(&["put", "t", "row", "f:q=1"]);
    let made = cluster.ok(&["checkpoint", "create", "one", "--table", "t"]);
    assert!(made.contains("made checkpoint one: 2 tablets of t"), "{made}");
    for (arguments, code, why) in [
        (&["create", "one"][..], 1, "exists already"),
        (&["create", "../one"], 2, "no name of a checkpoint"),
        (&["create", ".one"], 2, "no name of a checkpoint"),
        (&["create", "two", "--table", "nix"], 4, "no table \"nix\""),
        (&["show", "two"], 4, "no checkpoint \"two\""),
        (&["remove", "two"], 4, "no checkpoint \"two\""),
    ] {
        let ended = cluster.run(&[&["checkpoint"][..], arguments].concat());
        assert!(ended.code == code && ended.err.contains(why), "{arguments:?}: {ended:?}");
    }
    let shown = cluster.ok(&["checkpoint", "show", "one"]);
    assert!(shown.contains("complete") && shown.contains("hash 1 of 2"), "{shown}");

    let (status, made) = cluster.rest("POST", "/v1/checkpoints", br#"{"name": "two"}"#);
    assert_eq!((status, &made["state"], made["tables"].as_array().map(Vec::len)), (201, &json!("complete"), Some(2)));
    let (status, listed) = cluster.rest("GET", "/v1/checkpoints", b"");
    let names: Vec<&str> =
        listed["checkpoints"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!((status, names), (200, vec!["one", "two"]));
    assert_eq!(listed["checkpoints"], cluster.json(&["checkpoint", "list"])["checkpoints"]);
    assert_eq!(cluster.rest("GET", "/v1/checkpoints/two", b"").1["checkpoints"][0]["id"], made["id"]);
    assert_eq!(cluster.rest("POST", "/v1/checkpoints", br#"{"name": "two"}"#).0, 409);
    assert_eq!(cluster.rest("POST", "/v1/checkpoints", br#"{"name": "/"}"#).0, 400);
    assert_eq!(cluster.rest("GET", "/v1/checkpoints/three", b"").0, 404);

    over_grpc(&cluster);

    // Nodes say so.
    let said = |name: &str| cluster.ok(&["events", "--name", name]).contains("one");
    until("an event says so", || said("checkpoint_made"));
    let (status, removed) = cluster.rest("DELETE", "/v1/checkpoints/two", b"");
    assert_eq!((status, &removed["removed"]), (200, &json!("two")), "{removed}");
    assert_eq!(cluster.rest("DELETE", "/v1/checkpoints/two", b"").0, 404);
    cluster.ok(&["checkpoint", "remove", "one"]);
    until("an event says so", || said("checkpoint_removed"));
    assert_eq!(cluster.json(&["checkpoint", "list"]), json!({"checkpoints": [], "unheard": []}));
}

/// The same for programs.
fn over_grpc(cluster: &Cluster) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut admin = AdminClient::connect(format!("http://{}", cluster.grpc)).await.expect("it is served");
        let wish = v1::CreateCheckpointRequest { name: "three".into(), table: Some("u".into()) };
        let made = admin.create_checkpoint(wish.clone()).await.expect("it is made").into_inner();
        assert_eq!((made.state(), made.tables.len()), (v1::CheckpointState::Complete, 1));
        let again = admin.create_checkpoint(wish).await.expect_err("it is there");
        assert_eq!(again.code(), tonic::Code::AlreadyExists, "{again}");
        let wish = v1::CreateCheckpointRequest { name: "four".into(), table: Some("nix".into()) };
        assert_eq!(admin.create_checkpoint(wish).await.expect_err("no table").code(), tonic::Code::NotFound);
        let wish = v1::ListCheckpointsRequest { name: Some("three".into()) };
        let listed = admin.list_checkpoints(wish).await.expect("a list").into_inner();
        assert_eq!((listed.checkpoints.len(), listed.checkpoints[0].id == made.id, listed.unheard.len()), (1, true, 0));
        for there in [true, false] {
            let wish = v1::RemoveCheckpointRequest { name: "three".into() };
            let removed = admin.remove_checkpoint(wish).await.expect("an answer").into_inner();
            assert_eq!(!removed.removed.is_empty(), there);
        }
    });
}

/// A damaged file is named and nothing is written; another copy of it will do. What is not there is named too.
#[test]
fn a_checkpoint_that_is_not_whole_is_refused_by_name() {
    let cluster = Cluster::with(&["--nodes", "2", "--replicas", "1"], |_| {});
    let rows = cluster.scratch().join("rows.ndjson");
    fs::write(&rows, lines(500, 3)).expect("a file");
    cluster.ok(&["table", "create", "t", "--family", "plain", "--family", "noise", "--partition", "hash:4"]);
    cluster.ok(&["import", "t", &text(&rows)]);
    cluster.ok(&["checkpoint", "create", "monday"]);
    let then = export(&cluster, "t");
    // As an operator would: only the checkpoints, to another place.
    let copies: Vec<PathBuf> = ["n1", "n2"]
        .iter()
        .map(|node| {
            let to = cluster.scratch().join("copy").join(node);
            copy_all(&cluster.data().join(node).join("checkpoints"), &to.join("checkpoints"));
            to
        })
        .collect();
    let copy = text(&cluster.scratch().join("copy"));
    let restore = |from: &[&str], to: &str| {
        let arguments = [&["checkpoint", "restore", "monday", "--to", to, "--from"][..], from].concat();
        cluster.run(&arguments)
    };
    let missing = restore(&[&text(&copies[0])], "back");
    assert!(missing.code == 1 && missing.err.contains("in the folder of n2"), "{missing:?}");

    let of_n1 = copies[0].join("checkpoints/monday");
    for file in ["tables", "manifest", "parts"] {
        let file = first_in(&of_n1.join(file));
        let good = fs::read(&file).expect("a file");
        flip(&file, good.len() as u64 / 2);
        let refused = restore(&[&copy], "back");
        let name = file.strip_prefix(&of_n1).expect("it is in there").display().to_string();
        assert!(refused.code == 1 && refused.err.contains(&name), "{name}: {refused:?}");
        fs::write(&file, good).expect("a file");
    }
    let table = first_in(&of_n1.join("tables"));
    flip(&table, 100);
    assert_eq!(restore(&[&copy], "back").code, 1);
    assert_eq!(cluster.run(&["table", "show", "back"]).code, 4, "nothing was made");
    let both = restore(&[&copy, &text(&cluster.data())], "back");
    assert_eq!(both.code, 0, "{both:?}");
    assert_same(&export(&cluster, "back"), &then);

    // A checkpoint of which nobody has said that it is complete counts for nothing.
    for copy in &copies {
        fs::remove_file(copy.join("checkpoints/monday/complete")).expect("it is there");
    }
    let incomplete = restore(&[&copy], "back2");
    assert!(incomplete.code == 1 && incomplete.err.contains("not complete"), "{incomplete:?}");
    fs::remove_file(cluster.data().join("n1/checkpoints/monday/complete")).expect("it is there");
    fs::remove_file(cluster.data().join("n2/checkpoints/monday/complete")).expect("it is there");
    assert_eq!(state(&cluster, "monday"), "incomplete");
    let shown = cluster.ok(&["checkpoint", "show", "monday"]);
    assert!(shown.contains("never completed"), "{shown}");
    cluster.ok(&["checkpoint", "remove", "monday"]);
    cluster.ok(&["checkpoint", "create", "monday"]);
}

/// A node that dies meanwhile may make it fail, but never makes it claim to be complete when it is not.
#[test]
fn a_node_that_dies_while_a_checkpoint_is_made() {
    let cluster = Cluster::with(&["--nodes", "3"], |_| {});
    let rows = cluster.scratch().join("rows.ndjson");
    fs::write(&rows, lines(4_000, 5)).expect("a file");
    cluster.ok(&["table", "create", "t", "--family", "plain", "--family", "noise", "--partition", "hash:8"]);
    cluster.ok(&["import", "t", &text(&rows)]);
    let data = text(&cluster.data());
    let mut random = Random::new(11);
    for round in 0..4 {
        let name = format!("round{round}");
        fs::write(cluster.scratch().join("rows.ndjson"), lines(4_000, 5 + round)).expect("a file");
        cluster.ok(&["import", "t", &text(&rows), "--no-resume"]);
        let victim = ["n1", "n2", "n3"][random.between(0, 3) as usize];
        let delay = Duration::from_millis(random.between(0, 40));
        let ended: Ended = std::thread::scope(|scope| {
            let making = scope.spawn(|| cluster.run(&["--timeout", "20s", "checkpoint", "create", &name]));
            std::thread::sleep(delay);
            // One that hangs does not even break off.
            cluster.signal(victim, if round % 2 == 0 { Signal::KILL } else { Signal::STOP });
            making.join().expect("it ends")
        });
        println!("{name}: {victim} was killed after {delay:?}: {ended:?}");
        let listed = cluster.json(&["checkpoint", "list"]);
        let of_name = |listed: &Value| {
            let all = listed["checkpoints"].as_array().expect("a list");
            all.iter().find(|one| one["name"] == *name).map(|one| one["state"].clone())
        };
        match ended.code {
            0 => assert!([Some(json!("complete")), Some(json!("unknown"))].contains(&of_name(&listed)), "{listed}"),
            _ => assert_ne!(of_name(&listed), Some(json!("complete")), "{listed}"),
        }
        cluster.ok(&["node", "restart", victim]);
        until("all nodes are back", || {
            let status = cluster.json(&["status"]);
            // Copies that are no members any more may wait ten minutes for their release: of so little data they are much.
            let steady = |tablet: &Value| {
                let secondaries = tablet["secondaries"].as_array().expect("a list");
                let is_steady = |member: &Value| {
                    let replicas = tablet["replicas"].as_array().expect("a list");
                    replicas.iter().any(|replica| replica["node"] == *member && replica["steady"] == true)
                };
                !secondaries.is_empty() && secondaries.iter().chain([&tablet["primary"]]).all(is_steady)
            };
            status["nodes"].as_array().expect("a list").iter().all(|node| node["alive"] == true)
                && status["tablets"].as_array().expect("a list").iter().all(steady)
        });
        if ended.code == 0 {
            assert_eq!(state(&cluster, &name), "complete");
            cluster.ok(&["checkpoint", "restore", &name, "--from", &data, "--to", "x", "--dry-run"]);
        } else {
            assert!(ended.err.contains(&name) || ended.err.contains("tablet"), "{ended:?}");
            let left = of_name(&cluster.json(&["checkpoint", "list"]));
            assert!([None, Some(json!("incomplete"))].contains(&left), "{left:?}");
        }
    }
    // With all of them up it is made for certain.
    cluster.ok(&["checkpoint", "create", "last"]);
    cluster.ok(&["checkpoint", "restore", "last", "--from", &data, "--to", "back"]);
    assert_same(&export(&cluster, "back"), &export(&cluster, "t"));
}

/// Tablets that become two, or one, while a checkpoint is made are in it as they were or as they are, and never in part.
#[test]
fn tablets_are_split_and_merged_while_a_checkpoint_is_made() {
    let cluster = Cluster::with(&["--nodes", "3"], |_| {});
    let rows = cluster.scratch().join("rows.ndjson");
    fs::write(&rows, lines(2_000, 9)).expect("a file");
    cluster.ok(&["table", "create", "t", "--family", "plain", "--family", "noise", "--partition", "range"]);
    cluster.ok(&["import", "t", &text(&rows)]);
    let (then, data) = (export(&cluster, "t"), text(&cluster.data()));
    let (stop, changed) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let mut random = Random::new(3);
            while !stop.load(Ordering::SeqCst) {
                let row = format!("row{:05}", random.between(0, 2_000));
                let tablet = String::from(cluster.tablet("t", &row)["tablet"].as_str().expect("a tablet"));
                // It may be the last one, or become another one just now.
                let ended = match random.between(0, 3) {
                    0 => cluster.run(&["tablet", "merge", &tablet]),
                    _ => cluster.run(&["tablet", "split", &tablet]),
                };
                changed.fetch_add(u64::from(ended.code == 0), Ordering::SeqCst);
            }
        });
        let over = OnDrop(&stop);
        for round in 0..8 {
            let name = format!("round{round}");
            let before = changed.load(Ordering::SeqCst);
            let made = cluster.run(&["checkpoint", "create", &name]);
            println!("{name}: {made:?}");
            assert_eq!(made.code, 0, "{made:?}");
            cluster.ok(&["checkpoint", "restore", &name, "--from", &data, "--to", "x", "--dry-run"]);
            until("tablets change", || changed.load(Ordering::SeqCst) > before);
        }
        drop(over);
        changing.join().expect("it changes tablets");
    });
    for name in ["round0", "round7"] {
        cluster.ok(&["checkpoint", "restore", name, "--from", &data, "--to", name]);
        assert_same(&export(&cluster, name), &then);
    }
}

// --- vocabulary

/// Tells a thread to end, also when what waits for it has panicked.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Rows with several versions: text that compresses well, and noise that does not.
fn lines(rows: u64, seed: u64) -> String {
    let mut random = Random::new(seed);
    let mut lines = String::new();
    for row in 0..rows {
        let noise: Vec<u8> = (0..200).map(|_| random.between(0, 256) as u8).collect();
        let version = |at: u64, text: &str| json!({"value": text.repeat(20), "timestamp": 1_000_000 + at});
        let plain = [version(3, "the quick brown fox "), version(2, "jumps over "), version(1, "the lazy dog ")];
        let noise = json!({"value": {"base64": base64(&noise)}, "timestamp": 7_000_000 + row});
        let cells = json!({"plain:q": plain, "noise:\\xff": [noise]});
        lines += &json!({"row": format!("row{row:05}"), "cells": cells}).to_string();
        lines.push('\n');
    }
    lines
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn export(cluster: &Cluster, table: &str) -> String {
    cluster.ok(&["export", table, "-", "--format", "ndjson", "--versions", "10"])
}

fn assert_same(one: &str, other: &str) {
    let differ = one.lines().zip(other.lines()).find(|(one, other)| one != other);
    assert!(differ.is_none() && one.len() == other.len(), "{} and {} bytes: {differ:?}", one.len(), other.len());
}

fn state(cluster: &Cluster, name: &str) -> String {
    let found = cluster.json(&["checkpoint", "show", name]);
    String::from(found["checkpoints"][0]["state"].as_str().expect("a state"))
}

fn text(path: &Path) -> String {
    String::from(path.to_str().expect("text"))
}

fn first_in(folder: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|it| it.expect("a file").path()).collect();
    files.sort();
    files.remove(0)
}

fn flip(file: &Path, at: u64) {
    let open = OpenOptions::new().read(true).write(true).open(file).expect("a file");
    let mut byte = [0];
    open.read_exact_at(&mut byte, at).expect("a byte");
    open.write_all_at(&[byte[0] ^ 4], at).expect("a byte");
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        match entry.path().is_dir() {
            true => copy_all(&entry.path(), &to.join(entry.file_name())),
            false => _ = fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy"),
        }
    }
}
