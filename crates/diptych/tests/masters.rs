//! Three masters: the one that leads dies, alone and together with a primary; all restart; one comes and one goes
//! (issue 3, "Master quorum").
//!
//! The times that it prints are what the machine gave; how many leaders are killed is `DIPTYCH_KILLS` (3).

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::load::{Load, TABLE};
use common::{Cluster, DIPTYCH, http, refuses, until};
use rustix::process::Signal;
use serde_json::Value;

/// "Killing the leader leaves reads and writes untouched and reconfiguration working again within 3 s."
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_does_not_hurt() {
    let kills = std::env::var("DIPTYCH_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(3_usize);
    let mut cluster = Cluster::with(&["--masters", "3", "--nodes", "3"], |_| {});
    let roles: Vec<Value> = cluster.file()["processes"].as_array().expect("a list").iter().map(role).collect();
    assert_eq!(roles, ["master", "master", "master", "node", "node", "node"]);
    cluster.ok(TABLE);
    let load = Load::start(&cluster.grpc, 5);
    load.until_written(&["a", "z"], 0);

    let mut gaps = Vec::new();
    for round in 0..kills {
        all_follow(&cluster);
        let leader = leader(&cluster);
        let killed = (load.now(), Instant::now());
        cluster.signal(&leader, Signal::KILL);
        // What has to be decided: a new table, with everybody it concerns.
        // A request that was under way in that moment may have been carried out: it is not repeated by itself.
        let table = format!("t{round}");
        until("a table is made", || {
            let made = cluster.run(&["table", "create", &table, "--family", "f"]);
            made.code == 0 || made.err.contains("exists already")
        });
        gaps.push(killed.1.elapsed());
        let (next_low, next_high) =
            (load.until_written(&["a", "b", "c"], killed.0), load.until_written(&["x", "y", "z"], killed.0));
        println!("{leader} killed: a table after {:?}, writes after {next_low:?} and {next_high:?}", gaps[round]);
        cluster.ok(&["node", "restart", &leader]);
    }
    gaps.sort_unstable();
    println!("{kills} leaders killed: a table after {:?} (median), {:?} (longest)", gaps[kills / 2], gaps[kills - 1]);

    // The leader and a primary at once: the tablet's secondary needs a master that decides.
    all_follow(&cluster);
    for (row, hurt) in [("a", &["a", "b", "c"]), ("z", &["x", "y", "z"])] {
        let mut follower = None;
        until("the tablet has a secondary again", || {
            follower = cluster.tablet("load", row)["secondaries"][0].as_str().map(String::from);
            follower.is_some()
        });
        cluster.until_secondary("load", row, &follower.expect("it was just found"));
        let (leader, primary) = (leader(&cluster), cluster.primary("load", row));
        let killed = load.now();
        cluster.signal(&leader, Signal::KILL);
        cluster.signal(&primary, Signal::KILL);
        println!("{leader} and {primary} killed: next write after {:?}", load.until_written(hurt, killed));
        cluster.ok(&["node", "restart", &leader]);
        cluster.ok(&["node", "restart", &primary]);
        cluster.until_secondary("load", row, &primary);
        all_follow(&cluster);
    }
    load.judge().await;

    cluster.kill_all();
    let took = cluster.up();
    println!("all killed: up again after {took:?}");
    all_follow(&cluster);
    let tables = cluster.json(&["table", "list"]);
    assert_eq!(tables["tables"].as_array().expect("a list").len(), 1 + kills, "{tables}");
    assert_eq!(cluster.run(&["put", "load", "a", "f:q=1"]).code, 0);
}

/// "Adding and removing a master": while it runs, and nobody else is restarted.
#[test]
fn masters_come_and_go() {
    let cluster = Cluster::with(&["--masters", "3", "--nodes", "2"], |_| {});
    all_follow(&cluster);
    cluster.ok(&["table", "create", "t", "--family", "f"]);

    let unreachable = cluster.run(&["master", "add", "m4", "127.0.0.1:9"]);
    assert!(unreachable.code == 1 && unreachable.err.contains("start it first"), "{unreachable:?}");
    let exists = cluster.run(&["master", "add", "m2", "127.0.0.1:9"]);
    assert!(exists.code == 1 && exists.err.contains("exists already"), "{exists:?}");
    let unknown = cluster.run(&["master", "remove", "m7"]);
    assert!(unknown.code == 1 && unknown.err.contains("m1, m2, m3"), "{unknown:?}");
    let data = cluster.scratch().join("m4");
    let data = data.to_str().expect("a path");
    let alone = refuses(&["master", "run", "--id", "4", "--data", data, "--grpc", "127.0.0.1:0"]);
    assert!(alone.expect("it ends").err.contains("--join"));

    let newcomer = Newcomer::start(data, cluster.scratch());
    let not_yet = String::from_utf8(http(&newcomer.http, "GET", "/readyz?verbose", b"").1).expect("text");
    assert!(not_yet.contains("[-]leader"), "{not_yet}");
    cluster.ok(&["master", "add", "m4", &newcomer.grpc]);
    assert_eq!(ids(&cluster), ["m1", "m2", "m3", "m4"]);

    // All that is left of the first three goes, the leader among them; the nodes follow.
    for id in ["m1", "m2", "m3"] {
        cluster.ok(&["master", "remove", id]);
    }
    assert_eq!(ids(&cluster), ["m4"]);
    let last = cluster.run(&["master", "remove", "m4"]);
    assert!(last.code == 1 && last.err.contains("the last one"), "{last:?}");
    for id in ["m1", "m2", "m3"] {
        cluster.signal(id, Signal::KILL);
    }
    let metrics = String::from_utf8(http(&newcomer.http, "GET", "/metrics", b"").1).expect("text");
    until("m4 leads", || leader(&cluster) == "m4");
    assert!(metrics.contains("diptych_master_applied_index"), "{metrics}");
    until("the nodes are at m4", || cluster.run(&["table", "create", "u", "--family", "f"]).code == 0);
    cluster.ok(&["put", "u", "r", "f:q=1"]);
    let primary = cluster.tablet("u", "r")["primary"].clone();
    cluster.signal(primary.as_str().expect("a node"), Signal::KILL);
    until("m4 has made another node primary", || cluster.run(&["--timeout", "2s", "put", "u", "r", "f:q=2"]).code == 0);
}

fn role(process: &Value) -> Value {
    process["role"].clone()
}

fn masters(cluster: &Cluster) -> Vec<Value> {
    let ended = cluster.run(&["master", "list", "--json"]);
    let list: Option<Value> = serde_json::from_str(&ended.out).ok();
    list.and_then(|list| list["masters"].as_array().cloned()).unwrap_or_default()
}

fn ids(cluster: &Cluster) -> Vec<String> {
    masters(cluster).iter().map(|master| String::from(master["id"].as_str().expect("an id"))).collect()
}

/// Who leads, once one does.
fn leader(cluster: &Cluster) -> String {
    let mut leader = None;
    until("a master leads", || {
        leader = masters(cluster).into_iter().find(|master| master["leads"] == true);
        leader.is_some()
    });
    String::from(leader.expect("one leads")["id"].as_str().expect("an id"))
}

/// Waits until all masters are there and lack nothing.
fn all_follow(cluster: &Cluster) {
    until("all masters follow", || {
        let masters = masters(cluster);
        masters.len() == 3 && masters.iter().all(|master| master["state"] != "down" && master["behind"] == 0)
    });
}

/// A master that waits to be added.
struct Newcomer {
    child: Child,
    grpc: String,
    http: String,
}

impl Newcomer {
    fn start(data: &str, scratch: &std::path::Path) -> Newcomer {
        use std::io::BufRead;
        let errors = File::create(scratch.join("m4.err")).expect("a file");
        let mut command = Command::new(DIPTYCH);
        command.args([
            "master",
            "run",
            "--id",
            "4",
            "--join",
            "--replicas",
            "2",
            "--min-replicas",
            "1",
            "--data",
            data,
        ]);
        command.args(["--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--parent", &std::process::id().to_string()]);
        let mut child = command.stdout(Stdio::piped()).stderr(errors).spawn().expect("diptych starts");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("a line");
        let word = |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)).map(String::from);
        let (grpc, http) = (word("grpc=").expect("an address"), word("http=").expect("an address"));
        Newcomer { child, grpc, http }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
