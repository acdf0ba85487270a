//! Bad input: each gets one clear line that names the thing, the right exit code or status, and nothing is lost
//! (issue 2, "Bad input").

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::fs;
use std::path::Path;

use common::{Cluster, Ended, announce, refuses, run};
use model::Refusal;
use wire::v1;
use wire::v1::kv_client::KvClient;

/// It ended so, and its first line on stderr is an error that has these words.
#[track_caller]
fn told(ended: &Ended, code: i32, words: &[&str]) {
    let line =
        ended.err.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("no error: {ended:?}"));
    assert_eq!(ended.code, code, "{ended:?}");
    let missing: Vec<_> = words.iter().filter(|word| !line.contains(**word)).collect();
    assert!(missing.is_empty(), "{missing:?} not in {line:?}");
}

#[test]
fn each_bad_command_is_told_what_is_wrong() {
    let cluster = Cluster::start();
    cluster.ok(&["table", "create", "t", "--family", "info", "--family", "mail:versions=2"]);
    cluster.ok(&["put", "t", "a", "info:x=1"]);
    let long_key = "k".repeat(model::limits::ROW_KEY + 1);
    let long_qualifier = format!("info:{}=1", "q".repeat(model::limits::QUALIFIER + 1));
    for (arguments, code, words) in [
        (&["get", "none", "a"][..], 4, &["none"][..]),
        (&["scan", "none"], 4, &["none"]),
        (&["put", "none", "a", "info:x=1"], 4, &["none"]),
        (&["table", "drop", "none"], 4, &["none"]),
        (&["tablet", "list", "none"], 4, &["none"]),
        (&["get", "t", "nobody"], 4, &["nobody", "t"]),
        (&["get", "t", "a", "none:x"], 4, &["none", "info, mail"]),
        (&["put", "t", "a", "none:x=1"], 4, &["none", "info, mail"]),
        (&["del", "t", "a", "none"], 4, &["none", "info, mail"]),
        (&["scan", "t", "--family", "none"], 4, &["none", "info, mail"]),
        (&["cput", "t", "a", "none:x", "--expect-absent", "--put", "1"], 4, &["none", "info, mail"]),
        (&["get", "t", "a", "--nonsense"], 2, &["--nonsense"]),
        (&["fetch", "t", "a"], 2, &["fetch"]),
        (&["put", "t", "a", "info"], 2, &["info"]),
        (&["put", "t", "a", "in fo:x=1"], 2, &["in fo"]),
        (&["put", "t", "a", "info:x=1", "--timestamp", "-5"], 2, &["-5"]),
        (&["put", "t", "", "info:x=1"], 2, &["empty"]),
        (&["put", "t", &long_key, "info:x=1"], 2, &["4097", "4096"]),
        (&["put", "t", "a", &long_qualifier], 2, &["16385", "16384"]),
        (&["cput", "t", "a", "info:x", "--put", "1"], 2, &[]),
        (&["cput", "t", "a", "info:x", "--expect", "2", "--put", "3"], 5, &["info:x"]),
        (&["table", "create", "t", "--family", "f"], 1, &["t", "exists"]),
        (&["table", "create", "no spaces!", "--family", "f"], 2, &["no spaces!"]),
        (&["table", "create", "u", "--family", "f:versions=0"], 2, &["versions"]),
        (&["table", "create", "u", "--family", "f", "--partition", "cube:3"], 2, &["cube:3"]),
        (&["table", "create", "u", "--family", "f", "--partition", "hash:0"], 2, &["0"]),
        (&["table", "create", "u", "--family", "f", "--replicas", "9"], 1, &["9"]),
        (&["node", "restart", "n99"], 1, &["n99"]),
        (&["node", "restart", "seven"], 2, &["seven"]),
        (&["get", "t", "a", "--endpoint", "not an address"], 2, &["not an address"]),
        (&["import", "t", "/nonexistent.csv", "--key", "k", "--family", "info"], 1, &["/nonexistent.csv"]),
    ] {
        println!("{arguments:.60?}");
        told(&cluster.run(arguments), code, words);
    }
    assert_eq!(cluster.ok(&["get", "t", "a", "info:x", "--raw"]), "1", "nothing has changed");
    // As JSON for scripts.
    let ended = cluster.run(&["get", "none", "a", "--json"]);
    let problem: serde_json::Value = serde_json::from_str(&ended.err).expect("JSON");
    assert_eq!(problem["error"]["code"], "not_found");
}

#[test]
fn a_value_beyond_the_limit_is_refused_by_the_client_and_by_the_server() {
    let cluster = Cluster::with(&["--nodes", "2"], |_| {});
    cluster.ok(&["table", "create", "t", "--family", "info"]);
    let file = cluster.scratch().join("large.ndjson");
    let value = "v".repeat(model::limits::VALUE + 1);
    fs::write(&file, format!("{{\"k\": \"a\", \"x\": \"{value}\"}}\n")).expect("a file");
    let import = ["import", "t", file.to_str().expect("text"), "--key", "k", "--family", "info"];
    told(&cluster.run(&import), 1, &["104857601", "104857600", "line 1"]);
    let (status, _) = announce(&cluster.http, "PUT", "/v1/tables/t/rows/a/info:x", value.len(), b"");
    assert_eq!(status, 413, "it is refused before it is sent");
    assert_eq!(cluster.run(&["get", "t", "a"]).code, 4);
}

#[test]
fn each_bad_csv_is_told_with_its_line() {
    let cluster = Cluster::with(&["--nodes", "2"], |_| {});
    cluster.ok(&["table", "create", "t", "--family", "info"]);
    let import = |name: &str, content: &[u8], flags: &[&str]| {
        let file = cluster.scratch().join(name);
        fs::write(&file, content).expect("a file");
        let file = String::from(file.to_str().expect("text"));
        cluster.run(&[&["import", "t", &file, "--key", "k", "--family", "info"], flags].concat())
    };
    let missing = import("missing.csv", b"a,b\n1,2\n", &[]);
    told(&missing, 1, &["missing.csv", "\"k\""]);
    assert!(missing.err.contains("a, b"), "the columns that there are: {missing:?}");
    told(&import("quotes.csv", b"k,v\n1,x\n2,\"y\n3,z\n", &[]), 1, &["quotes.csv line 3", "quot"]);
    told(&import("latin.csv", b"k,v\n1,x\n2,\xfc\n", &[]), 1, &["latin.csv line 3", "UTF-8"]);
    told(&import("fields.csv", b"k,v\n1,x\n2\n", &[]), 1, &["fields.csv line 3"]);
    told(&import("empty.csv", b"", &[]), 1, &["empty.csv"]);
    told(&import("nokey.csv", b"k,v\n,x\n", &[]), 1, &["nokey.csv line 2", "empty"]);
    told(&import("twice.csv", b"k,v\n8,x\n8,y\n", &["--on-duplicate", "error"]), 1, &["twice.csv line 3", "8"]);
    // What came before the bad line is in, and the message says so; the last of two equal keys wins by default.
    let duplicates = import("duplicates.csv", b"k,v\n7,old\n7,new\n", &[]);
    assert!(duplicates.code == 0 && duplicates.err.contains("1 row with a key that came before"), "{duplicates:?}");
    assert_eq!(cluster.ok(&["get", "t", "7", "info:v", "--raw"]), "new");
    assert_eq!(cluster.ok(&["get", "t", "1", "info:v", "--raw"]), "x");
    assert_eq!(cluster.run(&["get", "t", "2"]).code, 4);
}

#[test]
fn a_second_cluster_on_the_same_folder_or_port_is_refused() {
    let mut cluster = Cluster::with(&["--nodes", "2"], |_| {});
    let free = "127.0.0.1:0";
    let (data, other) = (cluster.data(), cluster.scratch().join("other"));
    let up = |data: &Path, grpc: &str, http: &str| {
        let data = data.to_str().expect("text");
        refuses(&["up", "--data", data, "--grpc", grpc, "--http", http]).expect("it is refused")
    };
    told(&up(&data, free, free), 1, &["another cluster runs in", data.to_str().expect("text")]);
    let taken = up(&other, &cluster.grpc, free);
    told(&taken, 1, &[&cluster.grpc]);
    assert!(taken.err.contains("--grpc"), "{taken:?}");
    let taken = up(&other, free, &cluster.http);
    told(&taken, 1, &[&cluster.http]);
    assert!(taken.err.contains("--http"), "{taken:?}");
    // A node's folder has one process as well.
    let node = data.join("n1");
    let master = cluster.process("m1")["grpc"].clone();
    let master = master.as_str().expect("an address");
    let arguments =
        ["node", "run", "--id", "n1", "--master", master, "--grpc", free, "--data", node.to_str().expect("text")];
    told(&refuses(&arguments).expect("the folder is locked"), 1, &[node.to_str().expect("text")]);
    cluster.interrupt();
    let arguments =
        ["node", "run", "--id", "n2", "--master", master, "--grpc", free, "--data", node.to_str().expect("text")];
    told(&refuses(&arguments).expect("it is another's"), 1, &["n1", "n2"]);
}

#[test]
fn a_node_with_the_data_of_another_cluster_is_refused() {
    let (ours, mut theirs) = (Cluster::with(&["--nodes", "2"], |_| {}), Cluster::with(&["--nodes", "3"], |_| {}));
    theirs.interrupt();
    let (data, master) = (theirs.data().join("n3"), ours.process("m1")["grpc"].clone());
    let (data, master) = (data.to_str().expect("text"), master.as_str().expect("an address"));
    let arguments = ["node", "run", "--id", "n3", "--master", master, "--grpc", "127.0.0.1:0", "--data", data];
    let ended = refuses(&arguments).expect("it stops");
    assert!(ended.code == 1 && ended.err.contains("holds data of cluster"), "{ended:?}");
    assert_eq!(ours.json(&["status"])["nodes"].as_array().map(Vec::len), Some(2), "it did not join");
    theirs.up();
}

#[test]
fn a_dead_endpoint_is_unavailable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").to_string();
    for arguments in [&["get", "t", "a"][..], &["status"], &["table", "list"], &["put", "t", "a", "f:x=1"]] {
        told(&run(arguments, &free), 3, &[&free]);
    }
}

/// "A request to a node that does not hold the row": refused with where to go, and routed if it has no route.
#[tokio::test]
async fn a_node_without_the_row_says_so() {
    let cluster = Cluster::start();
    cluster.ok(&["table", "create", "t", "--family", "info", "--partition", "range", "--split", "m"]);
    cluster.ok(&["put", "t", "a", "info:x=1"]);
    let tablet = cluster.tablet("t", "a");
    let holds = |node: &str| tablet["primary"] == node || tablet["secondaries"][0] == node;
    let number: u64 = tablet["tablet"].as_str().and_then(|name| name[1..].parse().ok()).expect("t1");
    for node in ["n1", "n2", "n3", "n4"] {
        let address = cluster.process(node)["grpc"].as_str().map(String::from).expect("an address");
        let mut kv = KvClient::connect(format!("http://{address}")).await.expect("it serves");
        let ask =
            |row: &'static str, route| v1::GetRequest { table: "t".into(), row: row.into(), route, options: None };
        let found = kv.get(ask("a", None)).await.expect("it is passed on").into_inner();
        assert_eq!(found.row.expect("the row").cells[0].value, "1");
        let route = |epoch| Some(v1::Route { tablet: number, epoch });
        let refusal = |answer: Result<_, tonic::Status>| {
            let status = answer.map(|_: tonic::Response<v1::GetResponse>| ()).expect_err("it is refused");
            wire::status::from_status(&status).unwrap_or_else(|| panic!("{status:?}"))
        };
        match (holds(node), tablet["primary"] == node) {
            (false, _) => {
                let refusal = refusal(kv.get(ask("a", route(1))).await);
                assert!(matches!(refusal, Refusal::NoSuchTablet(_)), "{node}: {refusal:?}");
            }
            (true, false) => {
                let refusal = refusal(kv.get(ask("a", route(1))).await);
                assert!(matches!(refusal, Refusal::WrongEpoch { .. }), "{node}: {refusal:?}");
            }
            (true, true) => {
                assert!(kv.get(ask("a", route(1))).await.expect("it is here").into_inner().row.is_some());
                let refusal = refusal(kv.get(ask("z", route(1))).await);
                println!("a row of another tablet: {refusal:?}");
            }
        }
    }
}
