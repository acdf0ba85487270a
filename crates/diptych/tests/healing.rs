//! Damaged files of real processes: every row is read right, never wrong, and the cluster heals by itself (issue 3,
//! "Self-healing").

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Cluster, run, until};

/// Bytes of a value; 40 of them are more than a memtable keeps.
const VALUE: usize = 1 << 20;
const ROWS: usize = 45;

#[test]
fn damaged_replicas_heal_by_themselves() {
    let mut cluster = Cluster::with(&["--nodes", "2"], |_| {});
    cluster.ok(&["table", "create", "t", "--family", "f", "--partition", "hash:1"]);
    for number in 0..40 {
        assert_eq!(cluster.http("PUT", &path(number), &value(number)).0, 200);
    }
    for node in ["n1", "n2"] {
        until("rows are flushed", || !files(&cluster.data().join(node).join("tables")).is_empty());
    }
    // A few that the log alone has.
    for number in 40..ROWS {
        assert_eq!(cluster.http("PUT", &path(number), &value(number)).0, 200);
    }

    let primary = cluster.data().join(cluster.primary("t", ""));
    cluster.interrupt();
    assert_eq!(fsck(&primary).0, 0, "all is well");
    let table = largest(&primary.join("tables"));
    flip(&table, 7 << 20);
    let (code, report) = fsck(&primary);
    assert!(code == 1 && report.contains(&name(&table)) && report.contains("\"clean\":false"), "{report}");
    cluster.up();
    assert!(fsck(&primary).1.contains("another process"), "a running node is left alone");
    check_rows(&cluster, "a damaged table");
    until_healed(&cluster);

    let primary = cluster.data().join(cluster.primary("t", ""));
    cluster.interrupt();
    let manifest = files(&primary.join("manifest")).pop().expect("a manifest");
    flip(&manifest, 40);
    cluster.up();
    check_rows(&cluster, "a damaged manifest");
    until_healed(&cluster);

    // The values of the last rows, which no table has.
    let primary = cluster.data().join(cluster.primary("t", ""));
    for number in 40..ROWS {
        assert_eq!(cluster.http("PUT", &path(number), &value(number)).0, 200);
    }
    cluster.interrupt();
    let log = last_log(&primary);
    let end = fs::read(&log).expect("a log").iter().rposition(|byte| *byte != 0).expect("records");
    flip(&log, end as u64 - 2 * VALUE as u64);
    let (code, report) = fsck(&primary);
    assert!(code == 1 && report.contains("may be missing"), "{report}");
    cluster.up();
    check_rows(&cluster, "a damaged log");
    until_healed(&cluster);

    // While all run: whoever reads meets it, or the scrubber, where what was read before is in memory.
    let node = cluster.primary("t", "");
    let table = largest(&cluster.data().join(&node).join("tables"));
    flip(&table, fs::metadata(&table).expect("a file").len() / 2);
    check_rows(&cluster, "damage at run time");
    cluster.ok(&["node", "scrub", &node]);
    until("what is damaged is thrown away", || !table.exists());
    check_rows(&cluster, "damage that was met");
    until_healed(&cluster);
    cluster.interrupt();
    for node in ["n1", "n2"] {
        let (code, report) = fsck(&cluster.data().join(node));
        println!("{node}: {report}");
        // A damaged part of the log stays in its segment until that goes; nothing of it counts any more.
        assert!(code == 0 || report.contains("log/"), "{report}");
        assert!(!report.contains("\"file\":\"tables/") && !report.contains("\"file\":\"manifest/"), "{report}");
        assert!(report.contains("trash/"), "what was damaged is kept for a while: {report}");
    }
}

/// Every checksum of a replica is right, and yet it holds something else: a table file of another tablet has taken the
/// place of its own. Digests show it, the two others are right, and it heals. Afterwards the log of a running node is
/// damaged, which only the scrubber can meet in time.
#[test]
fn a_replica_that_differs_is_found_and_heals() {
    let mut cluster = Cluster::with(&["--nodes", "3"], |_| {});
    let nodes = ["n1", "n2", "n3"];
    for (table, files_then) in [("other", 1), ("t", 2)] {
        cluster.ok(&["table", "create", table, "--family", "f", "--partition", "hash:1", "--replicas", "3"]);
        // Just over what a memtable keeps; the same number of writes, so that the files have the same place in the logs.
        for number in 0..34 {
            let path = format!("/v1/tables/{table}/rows/{number:03}/f:v");
            let value = if table == "t" { value(number) } else { value(number + 500) };
            assert_eq!(cluster.http("PUT", &path, &value).0, 200);
        }
        for node in nodes {
            let tables = cluster.data().join(node).join("tables");
            until("rows are flushed", || files(&tables).len() == files_then);
        }
    }
    let tablet = cluster.tablet("t", "")["tablet"].as_str().expect("a name").to_owned();
    let said = cluster.ok(&["tablet", "check", &tablet]);
    assert!(said.contains("n1, n2, n3 hold the same"), "{said}");

    let liar = cluster.tablet("t", "")["secondaries"][0].as_str().expect("a node").to_owned();
    cluster.interrupt();
    let folder = cluster.data().join(&liar);
    let tables = files(&folder.join("tables"));
    fs::copy(&tables[0], &tables[1]).expect("a copy");
    assert_eq!(fsck(&folder).0, 0, "no checksum shows it");
    cluster.up();
    until("all three follow", || {
        let tablet = &cluster.json(&["tablet", "list", "t"])["tablets"][0];
        let steady = |replica: &serde_json::Value| replica["steady"] == true && replica["epoch"] == tablet["epoch"];
        tablet["secondaries"].as_array().is_some_and(|nodes| nodes.len() == 2)
            && tablet["replicas"].as_array().is_some_and(|replicas| replicas.iter().all(steady))
    });
    let ended = cluster.run(&["tablet", "check", &tablet]);
    println!("{}", ended.err);
    assert!(ended.code == 1 && ended.err.contains(&format!("but {liar} differs in")), "{ended:?}");
    until("it heals", || cluster.ok(&["events", "--name", "replica_healed"]).contains(&liar));
    until("all are equal", || cluster.run(&["tablet", "check", &tablet]).code == 0);
    for number in 0..34 {
        assert!(cluster.http("GET", &path(number), b"").1 == value(number), "row {number} is wrong");
    }

    // Memory still has what the log has lost.
    flip(&last_log(&folder), 200);
    cluster.ok(&["node", "scrub", &liar]);
    until("the log is left", || cluster.ok(&["events", "--name", "log_damaged"]).contains(&liar));
    until("the pass is over", || {
        let nodes = &cluster.json(&["node", "list"])["nodes"];
        let node =
            nodes.as_array().expect("a list").iter().find(|node| node["id"] == liar.as_str()).expect("it is there");
        node["scrub"]["completed"].is_string() && node["scrub"]["damage"].as_u64() > Some(1)
    });
    until("the damaged segment is gone", || fsck_of_a_copy(&folder, cluster.scratch()).0 == 0);
    assert_eq!(cluster.run(&["tablet", "check", &tablet]).code, 0);
}

/// Of a running node only a copy can be checked.
fn fsck_of_a_copy(folder: &Path, scratch: &Path) -> (i32, String) {
    let copy = scratch.join("copy");
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(copy.join("log")).expect("a folder");
    for file in files(&folder.join("log")) {
        // It may go in this very moment.
        let _ = fs::copy(&file, copy.join("log").join(name(&file)));
    }
    let _ = fs::copy(folder.join("node.id"), copy.join("node.id"));
    fsck(&copy)
}

fn check_rows(cluster: &Cluster, when: &str) {
    let begun = std::time::Instant::now();
    for number in 0..ROWS {
        let (status, read) = cluster.http("GET", &path(number), b"");
        assert!(status == 200, "{when}: row {number}: {status} {}", String::from_utf8_lossy(&read));
        assert!(read == value(number), "{when}: row {number} is wrong");
    }
    println!("{when}: {ROWS} rows in {:?}", begun.elapsed());
}

fn until_healed(cluster: &Cluster) {
    let begun = std::time::Instant::now();
    until("it heals", || {
        let tablet = &cluster.json(&["tablet", "list", "t"])["tablets"][0];
        let replicas = tablet["replicas"].as_array().expect("a list");
        let well = |replica: &serde_json::Value| {
            replica["damaged"].is_null() && replica["steady"] == true && replica["epoch"] == tablet["epoch"]
        };
        tablet["secondaries"].as_array().is_some_and(|nodes| nodes.len() == 1)
            && replicas.len() == 2
            && replicas.iter().all(well)
    });
    println!("healed within {:?}", begun.elapsed());
}

/// Its exit code, and what it says.
fn fsck(folder: &Path) -> (i32, String) {
    let ended = run(&["fsck", folder.to_str().expect("text"), "--json"], "127.0.0.1:1");
    (ended.code, ended.out + &ended.err)
}

fn largest(folder: &Path) -> PathBuf {
    files(folder).into_iter().max_by_key(|file| fs::metadata(file).expect("it is there").len()).expect("a table")
}

/// The newest segment that has been begun.
fn last_log(node: &Path) -> PathBuf {
    // One that is to be used again still has what it was before, and under another number.
    let begun = |path: &PathBuf| {
        let (mut magic, mut number) = ([0; 8], [0; 4]);
        let file = fs::File::open(path).expect("a file");
        file.read_exact_at(&mut magic, 8).expect("bytes");
        file.read_exact_at(&mut number, 16).expect("bytes");
        let name = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        magic == *b"diptychL" && name == Some(u32::from_le_bytes(number))
    };
    files(&node.join("log")).into_iter().rfind(begun).expect("a segment")
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("a byte");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

fn path(number: usize) -> String {
    format!("/v1/tables/t/rows/{number:03}/f:v")
}

/// Bytes that are no row's but this one's.
fn value(number: usize) -> Vec<u8> {
    (0..VALUE).map(|at| (at.wrapping_mul(31) ^ at >> 8 ^ number.wrapping_mul(101)) as u8).collect()
}
