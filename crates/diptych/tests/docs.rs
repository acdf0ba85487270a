//! The documents tell the truth: every block marked `sh` in README.md and docs/ is carried out, in order.
//!
//! Each document has a fresh cluster and one shell, with `diptych` on the PATH. A line that is meant to fail says
//! `exit N` in its comment. Blocks that build, or that start processes which do not end, are left out.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Cluster, DIPTYCH};

/// What keeps a block from being carried out.
const NOT_HERE: [&str; 7] = ["make", "git clone", "cargo ", "diptych up", "master run", "node run", "systemctl"];

/// Tells a line that failed as its comment says from one that should not have.
const WATCH: &str = r#"
set -uo pipefail
failed() {
    local line; line=$(sed -n "$2p" "$0")
    case "$line" in *"exit $1"*) echo "$2" >> failed ;; *) echo "line $2 ended with $1: $line" >&2; exit 99 ;; esac
}
trap 'failed $? $LINENO' ERR
"#;

#[test]
fn the_commands_in_the_documents_work() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut documents = vec![root.join("README.md")];
    let docs = fs::read_dir(root.join("docs")).expect("the documents");
    documents.extend(docs.map(|entry| entry.expect("a file").path()));
    documents.retain(|path| path.extension().is_some_and(|end| end == "md") && path.exists());
    documents.sort();
    let mut carried_out = 0;
    for document in documents {
        let blocks = blocks(&fs::read_to_string(&document).expect("text"));
        if !blocks.is_empty() {
            println!("{}: {} blocks", document.display(), blocks.len());
            carried_out += blocks.len();
            carry_out(&document, &blocks);
        }
    }
    println!("{carried_out} blocks");
}

fn carry_out(document: &Path, blocks: &[String]) {
    let cluster = Cluster::start();
    let folder = cluster.scratch().join("work");
    fs::create_dir(&folder).expect("a folder");
    std::os::unix::fs::symlink(cluster.data(), folder.join("diptych-data")).expect("a link");
    let blocks = blocks.join("\n").replace("127.0.0.1:8080", &cluster.http).replace("127.0.0.1:8086", &cluster.grpc);
    let script = folder.join("script");
    fs::write(&script, format!("{WATCH}{blocks}")).expect("a file");
    let programs = PathBuf::from(DIPTYCH).parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .arg("script")
        .current_dir(&folder)
        .env("PATH", format!("{programs}:{path}"))
        .env("DIPTYCH_ENDPOINT", &cluster.grpc)
        .output()
        .expect("bash");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {}\n{text}", document.display(), output.status);
    let failed = fs::read_to_string(folder.join("failed")).unwrap_or_default();
    for (number, line) in fs::read_to_string(&script).expect("text").lines().enumerate() {
        let meant_to_fail = line.split_once('#').is_some_and(|(_, comment)| comment.contains("exit "));
        let did = failed.lines().any(|it| it == (number + 1).to_string());
        assert!(!meant_to_fail || did || line.contains("exit 0"), "{}: it did not fail: {line}", document.display());
    }
}

/// The blocks marked `sh` that can be carried out here.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line.trim() == "```sh") {
        let block: String =
            lines.by_ref().take_while(|line| line.trim() != "```").map(|line| format!("{line}\n")).collect();
        if !NOT_HERE.iter().any(|word| block.contains(word)) {
            blocks.push(block);
        }
    }
    blocks
}
