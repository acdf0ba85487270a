//! How a table's rows lie on disks, and reads in every direction and of any time: real processes, by the command line and
//! over HTTP.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use common::{Cluster, until};
use serde_json::{Value, json};

/// Bigtable 6: locality groups and their settings are part of a table's schema, and every replica hears of them.
#[test]
fn locality_groups_are_made_altered_and_shown() {
    let cluster = Cluster::start();
    let made = cluster.json(&[
        "table",
        "create",
        "mail",
        "--family",
        "head",
        "--family",
        "body:versions=3",
        "--locality",
        "cold:compression=zstd,block=64KiB,filter=columns,in-memory",
        "--family-locality",
        "body=cold",
        "--compaction",
        "leveled",
    ]);
    assert_eq!(made["compaction"], "leveled");
    let cold =
        json!({"name": "cold", "compression": "zstd", "block_bytes": 65536, "filter": "columns", "in_memory": true});
    assert_eq!(made["localities"][1], cold, "{made}");
    assert_eq!(made["families"][1], json!({"name": "body", "keeps": "versions=3", "locality": "cold"}));
    for (row, text) in [("a", "1"), ("b", "2"), ("c", "3")] {
        cluster.ok(&["put", "mail", row, &format!("head:from={text}"), &format!("body:text={text}")]);
    }

    // What cannot be is refused, and changes nothing.
    for (arguments, why) in [
        (&["--drop-locality", "cold"][..], "has families: body"),
        (&["--drop-locality", "default"], "stays"),
        (&["--family-locality", "body=warm"], "no locality group"),
        (&["--family-locality", "tail=cold"], "no family"),
    ] {
        let ended = cluster.run(&[&["table", "alter", "mail"][..], arguments].concat());
        assert!(ended.code != 0 && ended.err.contains(why), "{arguments:?}: {}", ended.err);
    }
    let altered =
        cluster.json(&["table", "alter", "mail", "--locality", "cold:in-memory=no", "--compaction", "tiered"]);
    assert_eq!((&altered["version"], &altered["compaction"]), (&json!(2), &json!("tiered")));
    assert_eq!(altered["localities"][1]["in_memory"], false);
    assert_eq!(altered["localities"][1]["compression"], "zstd", "what is not said stays");

    let shown = cluster.ok(&["table", "show", "mail"]);
    assert!(shown.contains("tiered compaction"), "{shown}");
    assert!(shown.contains("compression=zstd,block=64KiB,filter=columns,in-memory=no"), "{shown}");
    assert!(cluster.ok(&["table", "list"]).contains("body:versions=3 (cold)"));
    let (_, page) = cluster.http("GET", "/", b"");
    assert!(String::from_utf8_lossy(&page).contains("cold: compression=zstd,block=64KiB"));

    // The same over HTTP, in one step: the family goes back, and the group goes.
    let body = br#"{"families": [{"name": "body", "locality": "default"}], "drop_localities": ["cold"]}"#;
    let (status, table) = cluster.rest("PATCH", "/v1/tables/mail", body);
    assert_eq!((status, &table["version"]), (200, &json!(3)), "{table}");
    assert_eq!(table["families"][1], json!({"name": "body", "keeps": "versions=3", "locality": "default"}));
    assert_eq!(cluster.rest("PATCH", "/v1/tables/mail", b"{}").0, 400);
    until("every replica has the newest schema", || {
        let status = cluster.json(&["status"]);
        let tablets = status["tablets"].as_array().expect("a list");
        let newest = |tablet: &Value| {
            let replicas = tablet["replicas"].as_array().expect("a list");
            replicas.len() == 2 && replicas.iter().all(|replica| replica["schema"] == 3)
        };
        tablets.len() == 2 && tablets.iter().all(newest)
    });
    assert_eq!(cluster.json(&["get", "mail", "b"])["cells"]["body:text"][0]["value"], "2");
}

/// Bigtable 4 and 2: rows are sorted, so they can be read from either end, and versions are asked for by their time.
#[test]
fn rows_are_read_in_reverse_of_some_time_and_by_their_keys() {
    let cluster = Cluster::start();
    cluster.ok(&["table", "create", "hashed", "--family", "f", "--partition", "hash:3"]);
    let split = ["--partition", "range", "--split", "row03", "--split", "row07"];
    cluster.ok(&[&["table", "create", "ranged", "--family", "f"][..], &split].concat());
    let names: Vec<String> = (0..10).map(|row| format!("row{row:02}")).collect();
    let lines = |text: String| -> Vec<String> {
        let row = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["row"].as_str().map(String::from);
        text.lines().map(|line| row(line).expect("a key")).collect()
    };
    for table in ["hashed", "ranged"] {
        for (at, row) in names.iter().enumerate() {
            let stamp = (1_000 + at).to_string();
            cluster.ok(&["put", table, row, &format!("f:q={at}"), "--timestamp", &stamp]);
        }
        let scan = |more: &[&str]| lines(cluster.ok(&[&["--json", "scan", table][..], more].concat()));
        let back: Vec<String> = names.iter().rev().cloned().collect();
        assert_eq!(scan(&["--reverse"]), back, "{table}");
        assert_eq!(scan(&["--reverse", "--limit", "4"]), back[..4]);
        assert_eq!(scan(&["--reverse", "--start", "row02", "--end", "row08"]), back[2..8]);
        assert_eq!(scan(&["--since", "1003", "--before", "1005"]), names[3..5]);
        assert_eq!(scan(&["--reverse", "--before", "1002"]), back[8..]);
        let (status, body) = cluster.http("GET", &format!("/v1/tables/{table}/rows?reverse=true&since=1008"), b"");
        assert_eq!((status, lines(String::from_utf8_lossy(&body).into_owned())), (200, back[..2].to_vec()));

        // Several rows by their keys, in the order of the keys.
        let some = cluster.ok(&["--json", "get", table, "row09", "--row", "row00", "--row", "row05"]);
        assert_eq!(lines(some), ["row09", "row00", "row05"]);
        let partly = cluster.run(&["get", table, "row09", "f:q", "--row", "nix", "--row", "row01"]);
        assert!(partly.out.contains("row09") && partly.out.contains("row01"), "{}", partly.out);
        assert!(partly.code == 4 && partly.err.contains("nix"), "{}: {}", partly.code, partly.err);
        let (status, body) = cluster.http("GET", &format!("/v1/tables/{table}/rows?row=row04&row=nix&row=row02"), b"");
        assert_eq!(status, 200);
        let text = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(lines(text.clone()), ["row04", "nix", "row02"], "{text}");
        assert!(text.contains("\"cells\":{}"), "{text}");
    }
    assert_eq!(cluster.run(&["get", "ranged", "row05", "--before", "1005"]).code, 4);
    assert_eq!(cluster.http("GET", "/v1/tables/ranged/rows?row=a&limit=1", b"").0, 400);
}
