//! Access control with real processes: nobody comes in without a token, and nobody sees or changes more than they may,
//! whichever way they come.

#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Cluster, Ended, until};
use serde_json::{Value, json};
use tonic::{Code, Request, Status};
use wire::peer::v1::{Frame, peer_client::PeerClient};
use wire::v1::{self, admin_client::AdminClient, kv_client::KvClient};

/// A cluster with access control, and the files with the tokens of who is in it.
struct House {
    cluster: Cluster,
    tokens: tempfile::TempDir,
}

impl House {
    fn new() -> House {
        let tokens = tempfile::tempdir().expect("a folder");
        let root = tokens.path().join("root");
        let token = common::run(&["acl", "token"], "127.0.0.1:1");
        fs::write(&root, token.out).expect("a file");
        let cluster = Cluster::with(&["--nodes", "3", "--access", &root.display().to_string()], |_| {});
        let house = House { cluster, tokens };
        let create = ["table", "create", "t", "--family", "public", "--family", "secret", "--partition", "range"];
        house.ok("root", &create);
        house.ok("root", &["table", "create", "other", "--family", "f"]);
        house.ok("root", &["put", "other", "a", "f:q=1"]);
        house.ok("root", &["put", "t", "a", "public:x=1", "secret:y=2"]);
        house.ok("root", &["put", "t", "b", "secret:y=3"]);
        house
    }

    fn file(&self, who: &str) -> PathBuf {
        self.tokens.path().join(who)
    }

    fn token(&self, who: &str) -> String {
        String::from(fs::read_to_string(self.file(who)).expect("a token").trim())
    }

    /// As somebody, or as nobody.
    fn run(&self, who: &str, arguments: &[&str]) -> Ended {
        let file = self.file(who).display().to_string();
        let arguments = match who {
            "" => arguments.to_vec(),
            _ => [arguments, &["--token-file", &file]].concat(),
        };
        self.cluster.run(&arguments)
    }

    fn ok(&self, who: &str, arguments: &[&str]) -> String {
        let ended = self.run(who, arguments);
        assert_eq!(ended.code, 0, "{who} {arguments:?}: {ended:?}");
        ended.out
    }

    fn json(&self, who: &str, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(who, &[arguments, &["--json"]].concat())).expect("JSON")
    }

    /// It is refused, for want of this right.
    fn forbidden(&self, who: &str, arguments: &[&str], right: &str) {
        let ended = self.run(who, arguments);
        assert!(ended.code != 0 && ended.err.contains(right), "{who} {arguments:?}: {ended:?}");
    }

    /// Somebody new, with these rights, of whom all processes know.
    fn add(&self, who: &str, grants: &[(&str, &str)]) {
        let made = self.json("root", &["acl", "add", who]);
        fs::write(self.file(who), made["token"].as_str().expect("a token")).expect("a file");
        for (right, scope) in grants {
            self.ok("root", &["acl", "grant", who, right, scope]);
        }
        self.until_known(who);
    }

    /// Every process that clients ask lets them in.
    fn until_known(&self, who: &str) {
        let file = self.file(who).display().to_string();
        let nodes = ["n1", "n2", "n3"].map(|node| self.cluster.process(node)["grpc"].as_str().map(String::from));
        for address in nodes.into_iter().flatten().chain([self.cluster.grpc.clone()]) {
            let listed = || common::run(&["table", "list", "--token-file", &file], &address);
            until("all know", || listed().code == 0);
        }
        // Who they are, but perhaps not yet what they may: each looks once a second.
        std::thread::sleep(Duration::from_millis(2_500));
    }

    fn http(&self, who: &str, method: &str, path: &str, body: &str) -> (u16, String) {
        let authorization = match who {
            "" => String::new(),
            _ => format!("Authorization: Bearer {}\r\n", self.token(who)),
        };
        let mut stream = TcpStream::connect(&self.cluster.http).expect("it serves");
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}");
        write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}").expect("it hears");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), answer)
    }

    fn signed<T>(&self, who: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if !who.is_empty() {
            let value = format!("Bearer {}", self.token(who)).parse().expect("a header");
            request.metadata_mut().insert("authorization", value);
        }
        request
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_or_changes_more_than_they_may() {
    let house = House::new();
    nobody_comes_in_without_a_token(&house).await;
    house.add("ada", &[("read", "t:public")]);
    a_reader_of_a_family_sees_that_one(&house);
    the_way_round_the_gateway_is_watched_too(&house).await;
    house.add("bob", &[("write", "t:public")]);
    a_writer_need_not_see(&house);
    house.add("carl", &[("admin", "own*")]);
    whoever_administers_a_table_does_what_they_want_with_it(&house);
    house.add("dora", &[("read", "cluster")]);
    the_cluster_is_for_those_who_run_it(&house);
    what_was_taken_back_holds(&house);
    it_is_there_after_a_restart(house);
}

async fn nobody_comes_in_without_a_token(house: &House) {
    for arguments in [&["table", "list"][..], &["get", "t", "a"], &["status"], &["acl", "list"]] {
        let ended = house.run("", arguments);
        assert!(ended.code != 0 && ended.err.contains("token"), "{arguments:?}: {ended:?}");
    }
    fs::write(house.file("stranger"), "dip_this-is-nobodys-token").expect("a file");
    assert!(house.run("stranger", &["table", "list"]).err.contains("nobody has this token"));
    for (path, status) in [
        ("/v1/tables", 401),
        ("/v1/tables/t/rows/a", 401),
        ("/metrics", 401),
        ("/", 401),
        ("/livez", 200),
        ("/readyz", 200),
    ] {
        assert_eq!(house.http("", "GET", path, "").0, status, "{path}");
    }
    let grpc = format!("http://{}", house.cluster.grpc);
    let mut kv = KvClient::connect(grpc.clone()).await.expect("it serves");
    let get = v1::GetRequest { table: "t".into(), row: "a".into(), route: None, options: None };
    assert_eq!(kv.get(get).await.expect_err("no token").code(), Code::Unauthenticated);
    let channel = tonic::transport::Endpoint::from_shared(grpc).expect("an address").connect_lazy();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let check = tonic_health::pb::HealthCheckRequest { service: String::new() };
    assert!(health.check(check).await.is_ok(), "that it is well anybody may know");
}

fn a_reader_of_a_family_sees_that_one(house: &House) {
    let row = house.json("ada", &["get", "t", "a"]);
    assert_eq!(
        row["cells"].as_object().map(|cells| cells.keys().cloned().collect::<Vec<_>>()),
        Some(vec!["public:x".into()])
    );
    assert_eq!(house.run("ada", &["get", "t", "b"]).code, 4, "a row of secrets is none");
    let rows = house.ok("ada", &["scan", "t", "--json"]);
    assert!(rows.contains("public:x") && !rows.contains("secret") && !rows.contains("\"b\""), "{rows}");
    house.forbidden("ada", &["get", "t", "a", "secret:y"], "read on t:secret");
    house.forbidden("ada", &["scan", "t", "--family", "secret"], "read on t:secret");
    house.forbidden("ada", &["put", "t", "a", "public:x=9"], "write on t:public");
    house.forbidden("ada", &["cput", "t", "a", "secret:y", "--expect", "2", "--put", "5"], "");
    house.forbidden("ada", &["del", "t", "a"], "write on t");
    house.forbidden("ada", &["get", "other", "a"], "");
    let tables = house.json("ada", &["table", "list"]).to_string();
    assert!(tables.contains("\"t\"") && !tables.contains("other"), "{tables}");
    for (who, path, status) in [
        ("ada", "/v1/tables/t/rows/a", 200),
        ("ada", "/v1/tables/t/rows/a?family=secret", 403),
        ("ada", "/v1/tables/t/rows/a/secret:y", 403),
        ("ada", "/v1/tables/other", 404),
        ("ada", "/v1/cluster", 403),
        ("ada", "/metrics", 403),
        ("root", "/metrics", 200),
        ("root", "/", 200),
    ] {
        let (got, answer) = house.http(who, "GET", path, "");
        assert!(got == status && (who == "root" || !answer.contains("Mg==")), "{who} {path}: {answer}");
    }
    assert_eq!(house.http("ada", "PUT", "/v1/tables/t/rows/a/public:x", "9").0, 403);
    let many = json!({"row": "c", "cells": {"public:x": [{"value": "1"}]}}).to_string();
    assert_eq!(house.http("ada", "POST", "/v1/tables/t/rows", &many).0, 403);
}

/// Clients go to nodes directly, with tablets that they name themselves.
async fn the_way_round_the_gateway_is_watched_too(house: &House) {
    let tablet = {
        let list = house.json("root", &["tablet", "list", "t"]);
        let tablet = list["tablets"][0].clone();
        (tablet["tablet"].as_str().expect("a name")[1..].parse::<u64>().expect("a number"), tablet)
    };
    let primary = tablet.1["primary"].as_str().expect("a node");
    let epoch = tablet.1["epoch"].as_u64().expect("an epoch") as u32;
    let address = format!("http://{}", house.cluster.process(primary)["grpc"].as_str().expect("an address"));
    let mut kv = KvClient::connect(address.clone()).await.expect("it serves");
    // The name of a table that she knows does not open another one's tablet.
    let route = Some(v1::Route { tablet: tablet.0, epoch });
    let column = v1::Column { family: "secret".into(), qualifier: None };
    let options = Some(v1::ReadOptions { columns: vec![column], versions: 1, ..v1::ReadOptions::default() });
    let get = v1::GetRequest { table: "public".into(), row: "a".into(), route, options };
    let refused = kv.get(house.signed("ada", get)).await.expect_err("it is refused");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let get = v1::GetRequest { table: "t".into(), row: "a".into(), route, options: None };
    let row = kv.get(house.signed("ada", get.clone())).await.expect("she may").into_inner().row.expect("the row");
    assert!(row.cells.iter().all(|cell| cell.family == "public") && row.cells.len() == 1);
    // To act for somebody else is for processes.
    let mut request = house.signed("ada", get);
    request.metadata_mut().insert(client::ACTING, "root".parse().expect("a header"));
    assert_eq!(kv.get(request).await.expect("as herself").into_inner().row.expect("the row").cells.len(), 1);
    let mut peer = PeerClient::connect(address.clone()).await.expect("it serves");
    let said = peer.checkpoint(house.signed("ada", Frame::default())).await.expect_err("it is refused");
    assert_eq!(said.code(), Code::PermissionDenied);
    let master = house.cluster.process("m1")["grpc"].as_str().map(|at| format!("http://{at}")).expect("an address");
    let mut peer = PeerClient::connect(master.clone()).await.expect("it serves");
    assert_eq!(peer.admin(Frame::default()).await.expect_err("no token").code(), Code::Unauthenticated);
    let mut admin = AdminClient::connect(master).await.expect("it serves");
    let drop = v1::DropTableRequest { table: "t".into() };
    let denied = |status: Status| [Code::PermissionDenied, Code::Unavailable].contains(&status.code());
    assert!(denied(admin.drop_table(house.signed("ada", drop)).await.expect_err("it is refused")));
}

fn a_writer_need_not_see(house: &House) {
    house.ok("bob", &["put", "t", "a", "public:x=2"]);
    house.forbidden("bob", &["get", "t", "a"], "read on t");
    house.forbidden("bob", &["put", "t", "a", "secret:y=9"], "write on t:secret");
    house.forbidden("bob", &["put", "t", "a", "public:x=3", "secret:y=9"], "write on t:secret");
    house.forbidden("bob", &["cput", "t", "a", "public:x", "--expect", "2", "--put", "5"], "");
    assert_eq!(house.json("ada", &["get", "t", "a"])["cells"]["public:x"][0]["value"], json!("2"));
}

fn whoever_administers_a_table_does_what_they_want_with_it(house: &House) {
    house.ok("carl", &["table", "create", "own1", "--family", "f"]);
    house.ok("carl", &["put", "own1", "r", "f:q=1"]);
    house.ok("carl", &["table", "alter", "own1", "--family", "g"]);
    house.ok("carl", &["del", "own1", "r"]);
    house.forbidden("carl", &["table", "create", "mine", "--family", "f"], "admin on mine");
    house.forbidden("carl", &["table", "drop", "t"], "admin on t");
    house.forbidden("carl", &["status"], "read on cluster");
    house.forbidden("carl", &["acl", "list"], "admin on cluster");
    house.ok("carl", &["table", "drop", "own1"]);
}

fn the_cluster_is_for_those_who_run_it(house: &House) {
    house.ok("dora", &["status"]);
    house.ok("dora", &["events"]);
    assert_eq!(house.http("dora", "GET", "/metrics", "").0, 200);
    house.forbidden("dora", &["node", "drain", "n1", "--no-wait"], "admin on cluster");
    house.forbidden("dora", &["node", "kill", "n1"], "admin on cluster");
    house.forbidden("dora", &["checkpoint", "create", "x"], "");
    house.forbidden("dora", &["get", "t", "a"], "");
    house.forbidden("dora", &["acl", "grant", "dora", "admin", "cluster"], "admin on cluster");
}

fn what_was_taken_back_holds(house: &House) {
    house.ok("root", &["acl", "revoke", "ada", "read", "t:public"]);
    until("all know", || house.run("ada", &["get", "t", "a"]).code != 0);
    house.ok("root", &["acl", "grant", "ada", "read", "t"]);
    until("all know", || house.run("ada", &["get", "t", "a", "secret:y"]).code == 0);
    let renewed = house.json("root", &["acl", "renew", "ada"]);
    until("all know", || house.run("ada", &["table", "list"]).err.contains("nobody has this token"));
    fs::write(house.file("ada"), renewed["token"].as_str().expect("a token")).expect("a file");
    house.until_known("ada");
    house.ok("ada", &["get", "t", "b"]);
    house.ok("root", &["acl", "remove", "bob"]);
    until("all know", || house.run("bob", &["put", "t", "a", "public:x=7"]).code != 0);
    let twice = house.run("root", &["acl", "add", "ada"]);
    assert!(twice.err.contains("is there already"), "{twice:?}");
    for (arguments, said) in [
        (&["acl", "grant", "nobody", "read", "t"][..], "there is no principal"),
        (&["acl", "revoke", "ada", "write", "t"], "there is no grant"),
        (&["acl", "grant", "ada", "own", "t"], "is no right"),
        (&["acl", "grant", "ada", "read", "a*b"], "names nothing"),
        (&["acl", "grant", "ada", "admin", "t:f"], "as a whole"),
        (&["acl", "add", "a b"], "is no name"),
    ] {
        let ended = house.run("root", arguments);
        assert!(ended.code != 0 && ended.err.contains(said), "{arguments:?}: {ended:?}");
    }
}

fn it_is_there_after_a_restart(mut house: House) {
    house.cluster.kill_all();
    house.cluster.up();
    until("rows are served", || house.run("ada", &["get", "t", "a", "secret:y"]).code == 0);
    assert!(house.run("", &["get", "t", "a"]).code != 0);
    assert!(house.run("ada", &["put", "t", "a", "public:x=1"]).code != 0);
    let without = Path::new("/nonexistent/token").display().to_string();
    let ended = house.cluster.run(&["get", "t", "a", "--token-file", &without]);
    assert!(ended.code == 2 && ended.err.contains("--token-file"), "{ended:?}");
}
