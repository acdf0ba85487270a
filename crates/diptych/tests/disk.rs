//! Damaged and full disks: damage is noticed and never returned as data; a full disk stops writes and nothing else,
//! and writes resume when there is room (issue 2, "Bad input").

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Cluster, refuses, until};

/// Bytes of a value; 40 of them are more than a memtable keeps.
const VALUE: usize = 1 << 20;

#[test]
fn damage_is_noticed_and_never_returned() {
    let mut cluster = Cluster::with(&["--nodes", "2"], |_| {});
    cluster.ok(&["table", "create", "t", "--family", "f", "--partition", "hash:1"]);
    for number in 0..40 {
        assert_eq!(cluster.http("PUT", &path(number), &value(number)).0, 200);
    }
    let primary =
        String::from(cluster.json(&["tablet", "list", "t"])["tablets"][0]["primary"].as_str().expect("a node"));
    let node = cluster.data().join(&primary);
    until("rows are flushed", || !files(&node.join("tables"), "").is_empty());
    // A few small ones, which the log alone has.
    for number in 40..60 {
        assert_eq!(cluster.http("PUT", &path(number), b"small").0, 200);
    }
    cluster.interrupt();

    // Each file that a start reads as a whole: the node refuses to start and names it.
    let log = files(&node.join("log"), "").into_iter().next().expect("a log");
    let manifest = files(&node.join("manifest"), "").pop().expect("a manifest");
    let master = cluster.data().join("m1/raft.log");
    for (file, at) in
        [(node.join("node.id"), 20), (log.clone(), 5 << 20), (log, 39 << 20), (manifest, 40), (master, 40)]
    {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        flip(&file, at);
        let data = file.strip_prefix(cluster.data()).expect("it is in there").components().next().expect("n1 or m1");
        let data = cluster.data().join(data);
        let data = data.to_str().expect("text");
        let ended = match name {
            "raft.log" => refuses(&["master", "run", "--data", data, "--grpc", "127.0.0.1:0"]),
            _ => refuses(&[
                "node",
                "run",
                "--data",
                data,
                "--id",
                &primary,
                "--master",
                "127.0.0.1:1",
                "--grpc",
                "127.0.0.1:0",
            ]),
        };
        let ended = ended.unwrap_or_else(|| panic!("byte {at} of {name} was flipped and nobody noticed"));
        let line = ended.err.lines().find(|line| line.starts_with("error: ")).expect("an error");
        println!("{line}");
        assert!(ended.code == 1 && line.contains(name), "{line}");
        flip(&file, at);
    }

    // A table is read block by block: what is damaged is refused, all else is as it was.
    let table =
        files(&node.join("tables"), "").into_iter().max_by_key(|file| fs::metadata(file).expect("it is there").len());
    flip(&table.expect("a table"), 7 << 20);
    cluster.up();
    assert_eq!(
        cluster.json(&["tablet", "list", "t"])["tablets"][0]["primary"],
        primary.as_str(),
        "damage is at the primary"
    );
    let mut refused = Vec::new();
    for number in 0..60 {
        match cluster.http("GET", &path(number), b"") {
            (200, read) => assert!(read == value(number) || number >= 40 && read == b"small", "row {number} is wrong"),
            (500, problem) => refused.push(String::from_utf8_lossy(&problem).into_owned()),
            (status, problem) => panic!("row {number}: {status} {}", String::from_utf8_lossy(&problem)),
        }
    }
    println!("{refused:?}");
    // The row before it as well, as long as a read looks into the next block for more cells of the row.
    assert!(matches!(refused.len(), 1 | 2) && refused.iter().all(|problem| problem.contains("data_loss")));
    let exported = cluster.run(&["scan", "t", "--json"]);
    assert!(exported.code == 1 && exported.err.contains("damaged"), "a scan does not pass over it: {}", exported.err);
}

#[test]
fn a_full_disk_stops_writes_until_there_is_room() {
    let small = tempfile::Builder::new().prefix("diptych-small-").tempdir().expect("a temporary folder");
    let Some(mount) = Mount::new(small.path(), "300m") else {
        println!("skipped: a small disk cannot be mounted here");
        return;
    };
    let cluster = Cluster::with(&["--nodes", "2"], |data| {
        fs::create_dir_all(data).expect("a folder");
        File::create(data.join("lock")).expect("it looks like a cluster's folder");
        std::os::unix::fs::symlink(&mount.0, data.join("n1")).expect("a link");
    });
    cluster.ok(&["table", "create", "t", "--family", "f", "--partition", "hash:1"]);
    assert_eq!(cluster.http("PUT", &path(0), &value(0)).0, 200);
    let filler = mount.0.join("filler");
    fill(&filler);

    let mut written = 1;
    let problem = loop {
        match cluster.rest("PUT", &path(written), &value(written)) {
            (200, _) => written += 1,
            (status, problem) => break (status, problem),
        }
        fill(&filler);
        assert!(written < 400, "the disk does not get full");
    };
    println!("after {written} MiB: {problem:?}");
    assert_eq!((problem.0, &problem.1["error"]["code"]), (507, &"resource_exhausted".into()), "{problem:?}");
    let ended = cluster.run(&["put", "t", "small", "f:x=1"]);
    assert!(ended.code == 3 && ended.err.contains("full") && ended.err.contains("n1"), "{ended:?}");
    until("the status tells", || {
        let status = cluster.json(&["status"]);
        status["nodes"]
            .as_array()
            .is_some_and(|nodes| nodes.iter().any(|node| node["id"] == "n1" && node["disk_full"] == true))
    });
    let all_are_there = || {
        for number in 0..written {
            let (status, read) = cluster.http("GET", &path(number), b"");
            assert!(status == 200 && read == value(number), "row {number}: {status}");
        }
    };
    all_are_there();

    fs::remove_file(&filler).expect("it was there");
    let begun = std::time::Instant::now();
    until("writes resume", || cluster.run(&["put", "t", "small", "f:x=1"]).code == 0);
    println!("writes resume {:?} after there is room", begun.elapsed());
    for number in written..written + 20 {
        assert_eq!(cluster.http("PUT", &path(number), &value(number)).0, 200);
    }
    all_are_there();
    assert_eq!(cluster.ok(&["get", "t", "small", "f:x", "--raw"]), "1");
}

/// A small disk, gone when it is dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path, size: &str) -> Option<Mount> {
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| Mount(at.to_path_buf()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Takes all the room that is left.
fn fill(path: &Path) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
    for size in [1 << 20, 4096] {
        let block = vec![0x5a; size];
        while file.write_all(&block).is_ok() {}
    }
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("a byte");
}

/// Files below the folder whose names end so, in order.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn path(number: usize) -> String {
    format!("/v1/tables/t/rows/{number:03}/f:v")
}

/// Bytes that are no row's but this one's.
fn value(number: usize) -> Vec<u8> {
    (0..VALUE).map(|at| (at.wrapping_mul(31) ^ at >> 8 ^ number.wrapping_mul(101)) as u8).collect()
}
