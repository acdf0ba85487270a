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

/// What a process needs before it can heal anything keeps it from starting. Other damage heals: `healing.rs`.
#[test]
fn damage_at_the_root_is_named_and_refused() {
    let mut cluster = Cluster::with(&["--nodes", "1", "--replicas", "1"], |_| {});
    cluster.interrupt();
    for (folder, file, at) in [("n1", "node.id", 20), ("m1", "raft.log", 40)] {
        let data = cluster.data().join(folder);
        let text = data.to_str().expect("text");
        let fsck = || common::run(&["fsck", text], "127.0.0.1:1");
        assert_eq!(fsck().code, 0, "{:?}", fsck());
        flip(&data.join(file), at);
        let found = fsck();
        assert!(found.code == 1 && found.out.contains(file), "{found:?}");
        let node: &[&str] =
            &["node", "run", "--data", text, "--id", folder, "--master", "127.0.0.1:1", "--grpc", "127.0.0.1:0"];
        let ended = match folder {
            "m1" => refuses(&["master", "run", "--data", text, "--grpc", "127.0.0.1:0"]),
            _ => refuses(node),
        };
        let ended = ended.unwrap_or_else(|| panic!("byte {at} of {file} was flipped and nobody noticed"));
        let line = ended.err.lines().find(|line| line.starts_with("error: ")).expect("an error");
        println!("{line}");
        assert!(ended.code == 1 && line.contains(file), "{line}");
    }
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

/// A master that cannot write ends and says why; reads and writes do not need it. With room it goes on where it was.
#[test]
fn a_master_on_a_full_disk_stops_nothing_but_changes() {
    let small = tempfile::Builder::new().prefix("diptych-small-").tempdir().expect("a temporary folder");
    let Some(mount) = Mount::new(small.path(), "8m") else {
        println!("skipped: a small disk cannot be mounted here");
        return;
    };
    let cluster = Cluster::with(&["--nodes", "2"], |data| {
        fs::create_dir_all(data).expect("a folder");
        File::create(data.join("lock")).expect("it looks like a cluster's folder");
        std::os::unix::fs::symlink(&mount.0, data.join("m1")).expect("a link");
    });
    cluster.ok(&["table", "create", "t", "--family", "f", "--partition", "hash:1"]);
    cluster.ok(&["put", "t", "before", "f:x=1"]);
    let filler = mount.0.join("filler");
    fill(&filler);
    let create = |name: &str| cluster.run(&["table", "create", name, "--family", "f", "--partition", "hash:1"]);
    let mut made = 0;
    let refused = loop {
        let ended = create(&format!("more{made}"));
        if ended.code != 0 {
            break ended;
        }
        fill(&filler);
        made += 1;
        assert!(made < 50, "the disk does not get full");
    };
    println!("after {made} tables: {}", refused.err);
    let log = cluster.data().join("logs").join("m1.log");
    until("it says why", || {
        let log = fs::read_to_string(&log).expect("its log");
        log.lines().any(|line| line.contains("error") && (line.contains("full") || line.contains("No space")))
    });
    cluster.ok(&["put", "t", "meanwhile", "f:x=2"]);
    assert_eq!(cluster.ok(&["get", "t", "before", "f:x", "--raw"]), "1");

    fs::remove_file(&filler).expect("it was there");
    cluster.ok(&["node", "restart", "m1"]);
    until("changes are made again", || create("after").code == 0 || create("after").err.contains("exists"));
    let tables = cluster.ok(&["table", "list"]);
    assert!((0..made).all(|number| tables.contains(&format!("more{number}"))), "{tables}");
    assert_eq!(cluster.ok(&["get", "t", "meanwhile", "f:x", "--raw"]), "2");
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

fn path(number: usize) -> String {
    format!("/v1/tables/t/rows/{number:03}/f:v")
}

/// Bytes that are no row's but this one's.
fn value(number: usize) -> Vec<u8> {
    (0..VALUE).map(|at| (at.wrapping_mul(31) ^ at >> 8 ^ number.wrapping_mul(101)) as u8).collect()
}
