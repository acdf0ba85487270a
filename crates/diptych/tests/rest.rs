//! HTTP as architecture.md section 5 promises it to scripts: paths, shapes, status codes.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use common::{Cluster, http, until};
use serde_json::{Value, json};

#[test]
fn rows_tables_and_the_cluster_over_http() {
    let cluster = Cluster::start();
    tables(&cluster);
    settings(&cluster);
    cells(&cluster);
    conditional_writes(&cluster);
    scans(&cluster);
    refusals(&cluster);
    the_cluster(&cluster);
    tablets(&cluster);
    health(&cluster);
}

/// What can be done with tablets by the command line can be done over HTTP.
fn tablets(cluster: &Cluster) {
    let table = br#"{"name": "ranges", "families": ["f"], "partition": {"range": ["m"]}}"#;
    assert_eq!(cluster.rest("POST", "/v1/tables", table).0, 201);
    for row in ["a", "b", "c", "d"] {
        let cell = format!("/v1/tables/ranges/rows/{row}/f:q");
        until("a write is taken", || cluster.http("PUT", &cell, b"1").0 == 200);
    }
    let first = || cluster.rest("GET", "/v1/tables/ranges", b"").1["tablets"][0].clone();
    let name = |value: &Value| String::from(value.as_str().expect("a name"));
    let tablet = name(&first()["tablet"]);
    let (status, split) = cluster.rest("POST", &format!("/v1/tablets/{tablet}/split"), b"");
    assert_eq!((status, &split["at"]), (200, &json!("c")), "{split}");
    let (status, why) = cluster.rest("POST", &format!("/v1/tablets/{tablet}/split"), br#"{"at": "b"}"#);
    assert_eq!(status, 400, "it is no more: {why}");
    let (tablet, primary) = (name(&first()["tablet"]), name(&first()["primary"]));
    let secondary = name(&first()["secondaries"][0]);
    let wish = json!({"to": secondary}).to_string();
    let leads = || {
        cluster.rest("POST", &format!("/v1/tablets/{tablet}/transfer"), wish.as_bytes());
        first()["primary"] == json!(secondary)
    };
    until("the secondary leads", leads);
    let to = ["n1", "n2", "n3", "n4"].into_iter().find(|node| ![&primary, &secondary].iter().any(|kept| kept == node));
    let wish = json!({"from": primary, "to": to}).to_string();
    let moves = || cluster.rest("POST", &format!("/v1/tablets/{tablet}/move"), wish.as_bytes()).0 == 200;
    until("the move is decided", moves);
    until("the copy has moved", || first()["secondaries"] == json!([to]));
    assert_eq!(cluster.rest("POST", "/v1/tablets/t999/split", b"").0, 400);
    assert_eq!(cluster.rest("GET", &format!("/v1/tablets/{tablet}/split"), b"").0, 405);
    assert_eq!(cluster.rest("DELETE", "/v1/tables/ranges", b"").0, 200);
}

fn tables(cluster: &Cluster) {
    let table =
        br#"{"name": "t", "families": ["info", {"name": "mail", "keeps": "versions=2"}], "partition": {"hash": 2}}"#;
    let (status, made) = cluster.rest("POST", "/v1/tables", table);
    assert!(matches!(status, 200 | 201), "{status} {made}");
    assert_eq!(cluster.rest("POST", "/v1/tables", table).0, 409);
    let (status, listed) = cluster.rest("GET", "/v1/tables", b"");
    assert_eq!((status, &listed["tables"][0]["name"]), (200, &json!("t")), "{listed}");
    let (status, shown) = cluster.rest("GET", "/v1/tables/t", b"");
    assert_eq!((status, &shown["name"]), (200, &json!("t")), "{shown}");
}

/// What a table promises, and how one comes back: over HTTP and by the command line.
fn settings(cluster: &Cluster) {
    let table = br#"{"name": "kept", "families": [{"name": "hits", "aggregate": "sum"}], "granularity": "millis", "protected": true}"#;
    let (status, made) = cluster.rest("POST", "/v1/tables", table);
    assert_eq!((status, &made["protected"], &made["families"][0]["aggregate"]), (201, &json!(true), &json!("sum")));
    assert_eq!(cluster.rest("DELETE", "/v1/tables/kept", b"").0, 409, "it is protected");
    let refused = cluster.run(&["table", "drop", "kept"]);
    assert!(refused.code != 0 && refused.err.contains("protected"), "{refused:?}");
    let shown = cluster.run(&["table", "alter", "kept", "--unprotect", "--family", "low", "--aggregate", "low=min"]);
    assert!(shown.code == 0 && shown.out.contains("low=min"), "{shown:?}");
    let (status, dropped) = cluster.rest("DELETE", "/v1/tables/kept?keep=1h", b"");
    assert!(status == 200 && dropped["until"].is_i64(), "{dropped}");
    assert_eq!(cluster.rest("GET", "/v1/tables/kept", b"").0, 404);
    assert_eq!(cluster.rest("GET", "/v1/tables?hidden=true", b"").1["tables"][0]["name"], json!("kept"));
    let (status, back) = cluster.rest("POST", "/v1/tables/kept/restore", b"");
    assert_eq!((status, &back["granularity"]), (200, &json!("millis")), "{back}");
    assert_eq!(cluster.rest("POST", "/v1/tables/kept/restore", b"").0, 409, "it is there");
    let dropped = cluster.run(&["table", "drop", "kept", "--keep", "1h"]);
    assert!(dropped.out.contains("restore kept"), "{dropped:?}");
    assert!(cluster.run(&["table", "list", "--hidden"]).out.contains("kept"));
    assert_eq!(cluster.run(&["table", "restore", "kept"]).code, 0);
    assert_eq!(cluster.rest("DELETE", "/v1/tables/kept", b"").0, 200);
    assert_eq!(cluster.rest("POST", "/v1/tables/kept/restore", b"").0, 404, "at once means at once");
}

fn cells(cluster: &Cluster) {
    // Any bytes, in keys, qualifiers and values.
    let cell = "/v1/tables/t/rows/%00%ff%2F%C3%BC/info:a%3Ab%ff";
    let (status, written) = cluster.rest("PUT", cell, b"\xff\x00raw");
    assert!(status == 200 && written["version"].is_i64(), "{status} {written}");
    assert_eq!(cluster.http("GET", cell, b""), (200, b"\xff\x00raw".to_vec()));
    let (status, row) = cluster.rest("GET", "/v1/tables/t/rows/%00%ff%2F%C3%BC", b"");
    assert_eq!((status, &row["cells"]["info:a:b\\xff"][0]["value"]), (200, &json!({"base64": "/wByYXc="})), "{row}");
    // The same row by the command line.
    assert!(cluster.ok(&["get", "t", r"\x00\xff/ü", r"info:a:b\xff"]).contains(r"\xff\x00raw"));
    assert_eq!(cluster.http("DELETE", cell, b"").0, 200);
    assert_eq!(cluster.http("GET", cell, b"").0, 404);
    assert_eq!(cluster.http("PUT", "/v1/tables/t/rows/LAX/info:note", b"busy").0, 200);
    assert_eq!(cluster.http("PUT", "/v1/tables/t/rows/LAX/info:", b"no qualifier").0, 200);
    assert_eq!(cluster.http("DELETE", "/v1/tables/t/rows/LAX", b"").0, 200);
    assert_eq!(cluster.http("GET", "/v1/tables/t/rows/LAX", b"").0, 404);
    // An empty value is a value.
    assert_eq!(cluster.http("PUT", "/v1/tables/t/rows/LAX/info:note", b"").0, 200);
    assert_eq!(cluster.http("GET", "/v1/tables/t/rows/LAX/info:note", b""), (200, Vec::new()));
    // A large one arrives as it was.
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| (number.wrapping_mul(7919) >> 5) as u8).collect();
    assert_eq!(cluster.http("PUT", "/v1/tables/t/rows/large/mail:body", &large).0, 200);
    assert!(cluster.http("GET", "/v1/tables/t/rows/large/mail:body", b"").1 == large);
    assert_eq!(cluster.http("DELETE", "/v1/tables/t/rows/large", b"").0, 200);
}

fn conditional_writes(cluster: &Cluster) {
    let cput = |body: Value| cluster.rest("POST", "/v1/tables/t/rows/alice:cput", body.to_string().as_bytes());
    let (status, first) = cput(json!({"column": "info:name", "expect": null, "put": "Ada"}));
    assert_eq!((status, &first["applied"]), (200, &json!(true)), "{first}");
    let (status, second) = cput(json!({"column": "info:name", "expect": null, "put": "Eve"}));
    assert_eq!((status, &second["applied"], &second["present"]["value"]), (200, &json!(false), &json!("Ada")));
    let (_, third) = cput(json!({"column": "info:name", "expect": "Ada", "put": {"base64": "/w=="}}));
    assert_eq!(third["applied"], true);
    assert_eq!(cluster.http("GET", "/v1/tables/t/rows/alice/info:name", b"").1, b"\xff");
}

fn scans(cluster: &Cluster) {
    for number in 0..25 {
        assert_eq!(cluster.http("PUT", &format!("/v1/tables/t/rows/s{number:02}/info:n"), b"1").0, 200);
    }
    let keys = |query: &str| -> Vec<String> {
        let (status, lines) = cluster.http("GET", &format!("/v1/tables/t/rows?{query}"), b"");
        assert_eq!(status, 200);
        let key =
            |line: &str| serde_json::from_str::<Value>(line).expect("a row a line")["row"].as_str().map(String::from);
        String::from_utf8(lines).expect("text").lines().filter_map(key).collect()
    };
    assert_eq!(keys("prefix=s0"), (0..10).map(|number| format!("s{number:02}")).collect::<Vec<_>>());
    assert_eq!(keys("start=s07&end=s12&limit=3"), ["s07", "s08", "s09"]);
    assert_eq!(keys("prefix=nothing"), Vec::<String>::new());
}

fn refusals(cluster: &Cluster) {
    for (method, path, body, status, code) in [
        ("GET", "/v1/tables/none/rows/a", &b""[..], 404, "not_found"),
        ("PUT", "/v1/tables/t/rows/a/none:x", b"1", 404, "not_found"),
        ("PUT", "/v1/tables/t/rows/a/info", b"1", 400, "invalid_argument"),
        ("GET", "/v1/tables/t/rows/a%zz", b"", 400, "invalid_argument"),
        ("POST", "/v1/tables", b"{", 400, "invalid_argument"),
        ("POST", "/v1/tables", br#"{"name": "no spaces!", "families": ["f"]}"#, 400, "invalid_argument"),
        ("GET", "/v1/tables/t/rows?limit=many", b"", 400, "invalid_argument"),
        ("POST", "/v1/tables/t/rows/a:cput", br#"{"column": "info:x"}"#, 400, "invalid_argument"),
        ("POST", "/v1/nodes/n99/restart", b"", 400, "invalid_argument"),
        ("GET", "/nowhere", b"", 404, "not_found"),
    ] {
        let (got, problem) = cluster.rest(method, path, body);
        assert_eq!((got, &problem["error"]["code"]), (status, &json!(code)), "{method} {path}: {problem}");
        assert!(problem["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    let long_key = format!("/v1/tables/t/rows/{}/info:x", "k".repeat(5000));
    assert_eq!(cluster.http("PUT", &long_key, b"1").0, 400);
    assert_eq!(cluster.http("PUT", "/v1/tables/t", b"").0, 405);
}

fn the_cluster(cluster: &Cluster) {
    let (status, shown) = cluster.rest("GET", "/v1/cluster", b"");
    assert_eq!((status, &shown["cluster"]), (200, &cluster.file()["cluster"]));
    assert_eq!(shown["nodes"].as_array().map(Vec::len), Some(4));
    let alive = |id: &str| {
        let (_, shown) = cluster.rest("GET", "/v1/cluster", b"");
        let nodes = shown["nodes"].as_array().expect("a list").clone();
        nodes.iter().any(|node| node["id"] == id && node["alive"] == true)
    };
    assert_eq!(cluster.http("POST", "/v1/nodes/n4/suspend", b"").0, 200);
    until("n4 is seen to be suspended", || !alive("n4"));
    assert_eq!(cluster.http("POST", "/v1/nodes/n4/resume", b"").0, 200);
    until("n4 is seen to be resumed", || alive("n4"));
    assert_eq!(cluster.http("POST", "/v1/nodes/n4/kill", b"").0, 200);
    until("n4 is seen to be killed", || !alive("n4"));
    assert_eq!(cluster.http("POST", "/v1/nodes/n4/restart", b"").0, 200);
    until("n4 is back", || alive("n4"));
    let (status, page) = cluster.http("GET", "/", b"");
    assert!(status == 200 && String::from_utf8_lossy(&page).contains("n4"));
}

fn health(cluster: &Cluster) {
    assert_eq!(cluster.http("GET", "/livez", b"").0, 200);
    let (status, checks) = cluster.http("GET", "/readyz?verbose", b"");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&checks));
    let (status, metrics) = http(&cluster.http, "GET", "/metrics", b"");
    assert!(status == 200 && String::from_utf8_lossy(&metrics).contains("diptych_http_requests_total"));
    let (status, described) = cluster.rest("GET", "/openapi.json", b"");
    assert!(status == 200 && described["paths"].is_object());
    // A cluster that loses its table says so too.
    assert_eq!(cluster.rest("DELETE", "/v1/tables/t", b"").0, 200);
    // Its primary hears of it in a moment.
    until("the dropped table's row is gone", || cluster.http("GET", "/v1/tables/t/rows/alice", b"").0 == 404);
}
