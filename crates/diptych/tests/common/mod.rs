//! A cluster of real processes for a test: started in a temporary folder on free ports, and gone with the test.
//!
//! Only processes that the cluster itself has started are ever signalled: `up`, and those that its `cluster.json` names.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod hand;
pub mod load;
pub mod proxy;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The program under test.
pub const DIPTYCH: &str = env!("CARGO_BIN_EXE_diptych");
/// Nothing that a test waits for takes longer, unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A local cluster under `diptych up`.
pub struct Cluster {
    temporary: tempfile::TempDir,
    arguments: Vec<String>,
    up: Option<Child>,
    /// Where `up` serves gRPC.
    pub grpc: String,
    /// Where `up` serves HTTP.
    pub http: String,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Cluster {
    /// One master and four nodes.
    pub fn start() -> Cluster {
        Cluster::with(&[], |_| {})
    }

    /// With these flags of `up`; `prepare` may look at the folder first.
    pub fn with(flags: &[&str], prepare: impl FnOnce(&Path)) -> Cluster {
        let temporary = tempfile::Builder::new().prefix("diptych-test-").tempdir().expect("a temporary folder");
        let arguments = flags.iter().map(ToString::to_string).collect();
        let any = || String::from("127.0.0.1:0");
        let mut cluster = Cluster { temporary, arguments, up: None, grpc: any(), http: any() };
        prepare(&cluster.data());
        cluster.up();
        cluster
    }

    /// Starts it, also again on the same ports, and waits until it is up. Returns how long that took.
    pub fn up(&mut self) -> Duration {
        let begun = Instant::now();
        let errors = self.temporary.path().join("up.err");
        let mut command = Command::new(DIPTYCH);
        command.args(["up", "--json", "--http", &self.http, "--grpc", &self.grpc, "--data"]).arg(self.data());
        command.args(&self.arguments).env_remove("DIPTYCH_ENDPOINT");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&errors).expect("a file"));
        let mut child = command.spawn().expect("diptych starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        self.up = Some(child);
        let file: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("no cluster: {line}{}", fs::read_to_string(&errors).unwrap_or_default()));
        let address = |name: &str| String::from(file[name].as_str().expect("an address"));
        (self.grpc, self.http) = (address("grpc"), address("http"));
        begun.elapsed()
    }

    /// Its folder.
    pub fn data(&self) -> PathBuf {
        self.temporary.path().join("data")
    }

    /// A folder beside it, for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.temporary.path()
    }

    /// Carries out a command against it.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        run(arguments, &self.grpc)
    }

    /// The same for one that must succeed; gives its output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {}{}", ended.out, ended.err);
        ended.out
    }

    /// The same with JSON as output.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let out = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
    }

    /// What `cluster.json` says.
    pub fn file(&self) -> Value {
        let bytes = fs::read(self.data().join("cluster.json")).expect("cluster.json");
        serde_json::from_slice(&bytes).expect("cluster.json is JSON")
    }

    /// What `cluster.json` says of a process.
    pub fn process(&self, id: &str) -> Value {
        let file = self.file();
        let processes = file["processes"].as_array().expect("a list");
        processes.iter().find(|process| process["id"] == id).unwrap_or_else(|| panic!("no process {id}")).clone()
    }

    /// Sends a process a signal.
    pub fn signal(&self, id: &str, signal: Signal) {
        let pid = self.process(id)["pid"].as_i64().unwrap_or_else(|| panic!("{id} does not run"));
        send(i32::try_from(pid).expect("a pid"), signal);
    }

    /// The tablet that keeps the row of a table cut by ranges, as `tablet list` shows it.
    pub fn tablet(&self, table: &str, row: &str) -> Value {
        let tablets = self.json(&["tablet", "list", table]);
        let keeps = |tablet: &&Value| {
            let (start, end) = (&tablet["rows"]["start"], tablet["rows"]["end"].as_str());
            start.as_str().is_none_or(|start| start <= row) && end.is_none_or(|end| row < end)
        };
        tablets["tablets"].as_array().expect("a list").iter().find(keeps).expect("a tablet").clone()
    }

    /// Who is primary for the row.
    pub fn primary(&self, table: &str, row: &str) -> String {
        String::from(self.tablet(table, row)["primary"].as_str().expect("a node"))
    }

    /// Waits until the node follows the row's primary and lacks nothing. Returns how long that took.
    pub fn until_secondary(&self, table: &str, row: &str, node: &str) -> Duration {
        let begun = Instant::now();
        until(&format!("{node} is a secondary again"), || {
            let tablet = self.tablet(table, row);
            let follows = tablet["secondaries"].as_array().is_some_and(|nodes| nodes.iter().any(|it| it == node));
            let replicas = tablet["replicas"].as_array().expect("a list");
            let steady = |name: &Value| replicas.iter().any(|it| it["node"] == *name && it["steady"] == true);
            follows && steady(&node.into()) && steady(&tablet["primary"])
        });
        begun.elapsed()
    }

    /// Asks `up` over HTTP.
    pub fn http(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        http(&self.http, method, path, body)
    }

    /// The same where the answer is JSON.
    pub fn rest(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let (status, body) = self.http(method, path, body);
        let json = serde_json::from_slice(&body);
        (status, json.unwrap_or_else(|error| panic!("{method} {path}: {error}: {}", String::from_utf8_lossy(&body))))
    }

    /// Ctrl-C: `up` has to end well. Returns how long that took.
    pub fn interrupt(&mut self) -> Duration {
        let begun = Instant::now();
        let mut up = self.up.take().expect("it is up");
        send(pid(&up), Signal::INT);
        let status = ended(&mut up, PATIENCE).expect("it ends");
        assert!(status.success(), "{status}");
        begun.elapsed()
    }

    /// Ends all processes at once, without warning, as a power cut would.
    pub fn kill_all(&mut self) {
        let file = self.file();
        let mut up = self.up.take().expect("it is up");
        let children = file["processes"].as_array().expect("a list").iter().filter_map(|it| it["pid"].as_i64());
        children.for_each(|pid| send(i32::try_from(pid).expect("a pid"), Signal::KILL));
        send(pid(&up), Signal::KILL);
        up.wait().expect("it was ours");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut up) = self.up.take() {
            send(pid(&up), Signal::TERM);
            if ended(&mut up, Duration::from_secs(5)).is_none() {
                // Its children end with it.
                send(pid(&up), Signal::KILL);
                let _ = up.wait();
            }
        }
        if std::thread::panicking() {
            for log in fs::read_dir(self.data().join("logs")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(log.path()).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- {}\n{}", log.path().display(), lines[lines.len().saturating_sub(25)..].join("\n"));
            }
            eprintln!("--- up\n{}", fs::read_to_string(self.temporary.path().join("up.err")).unwrap_or_default());
        }
    }
}

/// Carries out a command with this endpoint.
pub fn run(arguments: &[&str], endpoint: &str) -> Ended {
    let mut command = Command::new(DIPTYCH);
    command.args(arguments).env("DIPTYCH_ENDPOINT", endpoint).env_remove("DIPTYCH_DATA").stdin(Stdio::null());
    Ended::from(command.output().expect("diptych starts"))
}

/// Starts a process that should end by itself; `None` if it serves instead, in which case it is ended.
pub fn refuses(arguments: &[&str]) -> Option<Ended> {
    let mut command = Command::new(DIPTYCH);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("diptych starts");
    if ended(&mut child, Duration::from_secs(10)).is_none() {
        send(pid(&child), Signal::KILL);
        let output = Ended::from(child.wait_with_output().expect("it was ours"));
        eprintln!("{arguments:?} goes on: {output:?}");
        return None;
    }
    Some(Ended::from(child.wait_with_output().expect("it was ours")))
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Ended { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// Waits until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One request and its answer.
pub fn http(address: &str, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
    announce(address, method, path, body.len(), body)
}

/// A request that announces so many bytes and sends these. HTTP/1.0, so that the answer is plain and ends with the
/// connection.
pub fn announce(address: &str, method: &str, path: &str, length: usize, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("HTTP is served");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let head = format!("{method} {path} HTTP/1.0\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).expect("the request is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("a head is text");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, answer.split_off(end + 4))
}

fn ended(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < within {
        if let Some(status) = child.try_wait().expect("it is ours") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).expect("a pid")
}

fn send(pid: i32, signal: Signal) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_raw(pid).expect("a pid"), signal);
}
