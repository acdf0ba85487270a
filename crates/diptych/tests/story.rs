//! What a user can do, line by line as issue 2 tells it, with the real program.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use common::{Cluster, DIPTYCH, run};
use rustix::process::Signal;
use serde_json::json;

/// As many as the real file has.
const AIRPORTS: usize = 3376;

#[test]
fn the_story_of_the_issue() {
    let mut cluster = Cluster::start();
    let csv = cluster.scratch().join("airports.csv");
    fs::write(&csv, airports()).expect("a file");

    cluster.ok(&["table", "create", "airports", "--family", "info", "--partition", "hash:2"]);
    let import = ["import", "airports", csv.to_str().expect("text"), "--key", "iata", "--family", "info"];
    let imported = cluster.json(&import);
    assert_eq!((&imported["rows"], &imported["duplicates"]), (&json!(AIRPORTS), &json!(0)));
    println!("import: {:.2} s", imported["seconds"].as_f64().expect("a number"));

    let lax = cluster.json(&["get", "airports", "LAX"]);
    assert_eq!(lax["cells"]["info:name"][0]["value"], "Los Angeles \"LAX\" International, CA");
    assert_eq!(lax["cells"]["info:city"][0]["value"], "Los Ángeles");
    assert_eq!(cluster.ok(&["get", "airports", "LAX", "info:state", "--raw"]), "CA");
    let scanned = cluster.ok(&["scan", "airports", "--prefix", "LA", "--limit", "5", "--json"]);
    let rows: Vec<serde_json::Value> =
        scanned.lines().map(|line| serde_json::from_str(line).expect("a row a line")).collect();
    let keys: Vec<&str> = rows.iter().map(|row| row["row"].as_str().expect("text")).collect();
    assert_eq!(keys, ["LAA", "LAB", "LAC", "LAD", "LAE"]);
    assert_eq!(count(&cluster), AIRPORTS);

    let version = cluster.json(&["put", "airports", "LAX", "info:note=busy"]);
    assert!(version["version"].as_i64().is_some_and(|micros| micros > 1_700_000_000_000_000));
    let cput = ["cput", "airports", "LAX", "info:note", "--expect", "busy", "--put", "quiet"];
    assert_eq!(cluster.json(&cput)["applied"], true);
    let differs = cluster.run(&[&cput[..], &["--json"]].concat());
    let answer: serde_json::Value = serde_json::from_str(&differs.out).expect("JSON");
    assert_eq!((differs.code, &answer["applied"], &answer["present"]["value"]), (5, &json!(false), &json!("quiet")));
    assert_eq!(cluster.run(&["cput", "airports", "LAX", "info:note", "--expect-absent", "--put", "x"]).code, 5);
    cluster.ok(&["del", "airports", "LAX", "info:note"]);
    assert_eq!(cluster.run(&["get", "airports", "LAX", "info:note"]).code, 4);

    let status = cluster.json(&["status", "--data", cluster.data().to_str().expect("text")]);
    let nodes = status["nodes"].as_array().expect("a list");
    assert!(nodes.len() == 4 && nodes.iter().all(|node| node["alive"] == true && node["pid"].is_u64()), "{status}");
    assert_eq!(status["tablets"].as_array().expect("a list").len(), 2);

    // kill -9 of a primary; nothing is lost, and it comes back.
    let primary = String::from(status["tablets"][0]["primary"].as_str().expect("a node"));
    cluster.signal(&primary, Signal::KILL);
    let killed = Instant::now();
    for row in ["LAX", "LAA", "LAB", "LAC"] {
        cluster.ok(&["put", "airports", row, "info:note=after"]);
    }
    println!("{primary} killed: four commands wrote to both tablets within {:?}", killed.elapsed());
    assert_eq!(count(&cluster), AIRPORTS);
    cluster.ok(&["node", "restart", &primary]);
    common::until("all replicas are there", || {
        let status = cluster.json(&["status"]);
        let tablets = status["tablets"].as_array().expect("a list").clone();
        tablets.iter().all(|tablet| tablet["secondaries"].as_array().is_some_and(|nodes| nodes.len() == 1))
    });

    // Ctrl-C, and all of it again.
    let before = cluster.ok(&["scan", "airports", "--json"]);
    let children: Vec<i64> =
        cluster.file()["processes"].as_array().expect("a list").iter().filter_map(|it| it["pid"].as_i64()).collect();
    let down = cluster.interrupt();
    assert!(down < Duration::from_secs(5), "{down:?}");
    let alive =
        |pid: &&i64| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(DIPTYCH.as_bytes()));
    assert_eq!((children.len(), children.iter().filter(alive).count()), (5, 0), "all children are gone with it");
    assert_eq!(run(&["get", "airports", "LAX"], &cluster.grpc).code, 3);
    let up = cluster.up();
    println!("Ctrl-C: {down:?}; up again: {up:?}");
    assert_eq!(cluster.ok(&["scan", "airports", "--json"]), before);

    let (status, lax) = cluster.rest("GET", "/v1/tables/airports/rows/LAX", b"");
    assert_eq!((status, &lax["cells"]["info:note"][0]["value"]), (200, &json!("after")));
    let (status, value) = cluster.http("GET", "/v1/tables/airports/rows/LAX/info:state", b"");
    assert_eq!((status, &value[..]), (200, &b"CA"[..]));

    export_and_import_give_the_same_rows(&cluster, &before);
    println!("a get by the CLI takes {:?} (debug build)", fastest_get(&cluster));
}

/// What comes out goes in again, in either format; an import that was interrupted goes on.
fn export_and_import_give_the_same_rows(cluster: &Cluster, rows: &str) {
    let without_versions = |rows: &str| -> Vec<serde_json::Value> {
        let row = |line| {
            let mut row: serde_json::Value = serde_json::from_str(line).expect("a row");
            for versions in row["cells"].as_object_mut().expect("cells").values_mut() {
                versions[0]["timestamp"].take();
            }
            row
        };
        rows.lines().map(row).collect()
    };
    for (table, name, key) in [("from_csv", "out.csv", &["--key", "row"][..]), ("from_json", "out.ndjson", &[][..])] {
        let file = cluster.scratch().join(name);
        let file = file.to_str().expect("text");
        cluster.ok(&["export", "airports", file]);
        cluster.ok(&["table", "create", table, "--family", "info", "--partition", "range", "--split", "LA"]);
        cluster.ok(&[&["import", table, file][..], key].concat());
        let copy = cluster.ok(&["scan", table, "--json"]);
        assert_eq!(without_versions(&copy), without_versions(rows), "{name}");
    }
}

fn fastest_get(cluster: &Cluster) -> Duration {
    let get = || {
        let begun = Instant::now();
        cluster.ok(&["get", "airports", "LAX"]);
        begun.elapsed()
    };
    (0..10).map(|_| get()).min().expect("there are ten")
}

fn count(cluster: &Cluster) -> usize {
    cluster.ok(&["scan", "airports", "--column", "info:name", "--json"]).lines().count()
}

/// The columns of vega-datasets' airports.csv: three letters from AAA on, with quotes, commas, line breaks and UTF-8.
fn airports() -> String {
    let mut csv = String::from("iata,name,city,state,country,latitude,longitude\r\n");
    let letter = |number: usize| char::from(b'A' + (number % 26) as u8);
    let mut codes: Vec<String> = (0..)
        .map(|number| format!("{}{}{}", letter(number / 676), letter(number / 26), letter(number)))
        .take(AIRPORTS - 26)
        .collect();
    codes.extend((0..26).map(|number| format!("LA{}", letter(number))));
    for (number, code) in codes.iter().enumerate() {
        let (name, city, state) = match code.as_str() {
            "LAX" => (String::from("\"Los Angeles \"\"LAX\"\" International, CA\""), "Los Ángeles", "CA"),
            _ if number % 7 == 0 => (format!("\"Field of {code},\n{number}\""), "東京", ""),
            _ => (format!("{code} Municipal"), "Ō, \"x\"", "TX"),
        };
        let city = format!("\"{}\"", city.replace('"', "\"\""));
        let (north, west) = (number as f64 / 100.0, -(number as f64) / 37.0);
        writeln!(csv, "{code},{name},{city},{state},USA,{north:.4},{west:.4}\r").expect("memory");
    }
    csv
}
