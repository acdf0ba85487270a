//! Processes are killed and suspended under load: writes go on soon, nothing acknowledged is lost, and one order
//! explains what all clients saw (issue 2, "How well").
//!
//! The times that it prints are what the machine gave; how many primaries are killed is `DIPTYCH_KILLS` (3).

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::time::Duration;

use common::Cluster;
use common::load::{Load, TABLE};
use rustix::process::Signal;

/// Rows of the tablet that is hurt.
const HURT: &[&str] = &["a", "b", "c"];

/// "Killing the primary under load: next acknowledged write within 1.5 s (median of 20 kills), zero acknowledged
/// writes lost"; "diptych node restart <it>: it catches up while writes go on, and is a secondary again".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_does_not_hurt() {
    let kills = kills();
    let cluster = Cluster::start();
    cluster.ok(TABLE);
    let load = Load::start(&cluster.grpc, 1);
    settled(&cluster, &load);
    let mut gaps = Vec::new();
    for _ in 0..kills {
        let primary = cluster.primary("load", "a");
        let killed = load.now();
        cluster.signal(&primary, Signal::KILL);
        gaps.push(load.until_written(HURT, killed));
        // Whoever knows no map gets through as well.
        let (status, answer) = cluster.http("PUT", "/v1/tables/load/rows/aa/f:q", b"1");
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        cluster.ok(&["node", "restart", &primary]);
        let back = cluster.until_secondary("load", "a", &primary);
        println!(
            "{primary} killed: next write after {:?}, a secondary again {back:?} after its start",
            gaps[gaps.len() - 1]
        );
    }
    gaps.sort_unstable();
    println!(
        "{kills} primaries killed: next write after {:?} (median), {:?} (longest)",
        gaps[kills / 2],
        gaps[kills - 1]
    );
    assert!(gaps[kills / 2] < Duration::from_secs(10));
    load.judge().await;
}

/// Waits until the load has begun and the groups have too.
fn settled(cluster: &Cluster, load: &Load) {
    load.until_written(HURT, 0);
    for row in ["a", "z"] {
        let secondary = cluster.tablet("load", row)["secondaries"][0].clone();
        cluster.until_secondary("load", row, secondary.as_str().expect("there is one"));
    }
}

fn kills() -> usize {
    std::env::var("DIPTYCH_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(3)
}

/// A primary that stands still for a while must not answer from what it believed before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_primary_does_not_hurt() {
    let cluster = Cluster::start();
    cluster.ok(TABLE);
    let load = Load::start(&cluster.grpc, 2);
    settled(&cluster, &load);
    for _ in 0..2 {
        let primary = cluster.primary("load", "a");
        let suspended = load.now();
        cluster.signal(&primary, Signal::STOP);
        let gap = load.until_written(HURT, suspended);
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.signal(&primary, Signal::CONT);
        let back = cluster.until_secondary("load", "a", &primary);
        println!("{primary} suspended: next write after {gap:?}, a secondary again {back:?} after it was resumed");
        assert!(gap < Duration::from_secs(15));
    }
    // Shorter than anybody notices: it stays what it is, or is replaced, but nothing is torn.
    let primary = cluster.primary("load", "a");
    for pause in [50, 300, 700, 1000] {
        cluster.signal(&primary, Signal::STOP);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        cluster.signal(&primary, Signal::CONT);
        load.until_written(HURT, load.now());
    }
    load.judge().await;
}

/// "Killing a secondary: within the lease."
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_secondary_does_not_hurt() {
    let cluster = Cluster::start();
    cluster.ok(TABLE);
    let load = Load::start(&cluster.grpc, 3);
    settled(&cluster, &load);
    for _ in 0..kills() {
        let tablet = cluster.tablet("load", "a");
        let secondary = tablet["secondaries"][0].as_str().expect("there is one");
        let killed = load.now();
        cluster.signal(secondary, Signal::KILL);
        let gap = load.until_written(HURT, killed);
        cluster.ok(&["node", "restart", secondary]);
        let back = cluster.until_secondary("load", "a", secondary);
        println!("{secondary} killed: next write after {gap:?}, a secondary again {back:?} after its start");
        assert!(gap < Duration::from_secs(10));
    }
    load.judge().await;
}

/// Issue 2, part 6: "Restarting the master loses nothing and does not stop reads and writes meanwhile."
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_does_not_hurt() {
    let cluster = Cluster::start();
    cluster.ok(TABLE);
    let load = Load::start(&cluster.grpc, 4);
    settled(&cluster, &load);
    let before = cluster.json(&["table", "show", "load"]);
    // Every process fetches the map within two seconds, asked or not.
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.signal("m1", Signal::KILL);
    let mut longest = Duration::ZERO;
    for _ in 0..40 {
        let now = load.now();
        longest = longest.max(load.until_written(HURT, now));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("without a master: the longest time to the next write was {longest:?}");
    without_a_master(&cluster);
    cluster.ok(&["node", "restart", "m1"]);
    assert_eq!(cluster.json(&["table", "show", "load"]), before);
    cluster.ok(&["table", "create", "another", "--family", "f"]);
    // One that hangs is no more in the way than one that is dead.
    cluster.signal("m1", Signal::STOP);
    without_a_master(&cluster);
    cluster.signal("m1", Signal::CONT);
    // The master that came back still replaces primaries.
    let primary = cluster.primary("load", "a");
    let killed = load.now();
    cluster.signal(&primary, Signal::KILL);
    println!("after its return, {primary} killed: next write after {:?}", load.until_written(HURT, killed));
    cluster.ok(&["node", "restart", &primary]);
    cluster.until_secondary("load", "a", &primary);
    load.judge().await;
}

/// Whoever comes new, through any gateway, reads and writes; who would change tables is told why that is not possible.
fn without_a_master(cluster: &Cluster) {
    let node = cluster.process("n3")["grpc"].as_str().map(String::from).expect("an address");
    for endpoint in [&cluster.grpc, &node] {
        for command in
            [&["put", "load", "aa", "f:q=1"][..], &["get", "load", "aa"], &["scan", "load"], &["table", "list"]]
        {
            let ended = common::run(command, endpoint);
            assert_eq!(ended.code, 0, "{command:?} at {endpoint}: {ended:?}");
        }
    }
    let (status, answer) = cluster.http("PUT", "/v1/tables/load/rows/aa/f:q", b"1");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let ended = cluster.run(&["table", "create", "other", "--family", "f", "--timeout", "1s"]);
    assert!(ended.code == 3 && ended.err.contains("master"), "{ended:?}");
}

/// "Nothing acknowledged is lost", when all processes are killed at one moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing() {
    let mut cluster = Cluster::start();
    cluster.ok(TABLE);
    let load = Load::start(&cluster.grpc, 5);
    for _ in 0..2 {
        load.until_written(HURT, load.now());
        tokio::time::sleep(Duration::from_millis(700)).await;
        cluster.kill_all();
        let up = cluster.up();
        let gap = load.until_written(HURT, load.now());
        println!("all killed: up again in {up:?}, next write {gap:?} later");
    }
    load.judge().await;
}
