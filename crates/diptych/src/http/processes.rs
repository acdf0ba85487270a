//! The processes that `up` started, as they are now: `cluster.json`, and what the kernel says of each; and the last hour of
//! their metrics.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use client::Identity;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::problem::Problem;
use super::resource::Query;
use crate::gateway::Gateway;
use crate::up::{ClusterFile, Entry};

/// How long another process may take to tell its history, and how many bytes that may have: an hour has a sixth of it.
const PATIENCE: Duration = Duration::from_millis(700);
const LONGEST: u64 = 4 << 20;

/// The list; empty where there is none, with `control` false.
pub async fn list(gateway: &Gateway) -> Result<Response, Problem> {
    let version = env!("CARGO_PKG_VERSION");
    let Some(folder) = gateway.folder().map(Path::to_path_buf) else {
        return Ok(
            Json(json!({"version": version, "control": false, "endpoint": null, "processes": []})).into_response()
        );
    };
    let read = tokio::task::spawn_blocking(move || processes(folder));
    let processes = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let processes = processes.map_err(|error| {
        let message = format!("cluster.json cannot be read: {error}");
        Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "unavailable", message, "Try again.")
    })?;
    let (endpoint, processes) = processes;
    let control = gateway.has_control();
    let answer = json!({"version": version, "control": control, "endpoint": endpoint, "processes": processes});
    Ok(Json(answer).into_response())
}

/// The last hour of this process's metrics, and of those that it started. One that does not answer soon is left out.
pub async fn history(gateway: Option<&Gateway>, own: &Identity, query: &Query) -> Result<Response, Problem> {
    let since = query.number("since", 0)?.map_or(0, i64::unsigned_abs);
    let mut all = serde_json::Map::new();
    all.insert(String::from("here"), crate::history::since(since));
    if let Some(folder) = gateway.and_then(Gateway::folder).map(Path::to_path_buf) {
        let read = tokio::task::spawn_blocking(move || ClusterFile::read(&folder)).await;
        let entries = read.ok().and_then(Result::ok).flatten().map(|file| file.processes).unwrap_or_default();
        let asked = entries.into_iter().filter(|entry| entry.pid.is_some()).map(|entry| async move {
            let answer = timeout(PATIENCE, fetch(&entry.http, &format!("/v1/history?since={since}"), own)).await;
            Some((entry.id, answer.ok()?.ok()?))
        });
        for (id, mut history) in join_all(asked).await.into_iter().flatten() {
            // A process that we started has started none itself.
            all.insert(id, history["processes"]["here"].take());
        }
    }
    Ok(Json(json!({"processes": all})).into_response())
}

/// Asks a process of ours for JSON, as what we are.
async fn fetch(address: &str, path: &str, own: &Identity) -> std::io::Result<Value> {
    let invalid = |why: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_owned());
    let mut stream = TcpStream::connect(address).await?;
    let token = own.authorization().map(|token| format!("authorization: {token}\r\n")).unwrap_or_default();
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n{token}\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    if !answer.starts_with(b"HTTP/1.0 200 ") && !answer.starts_with(b"HTTP/1.1 200 ") {
        return Err(invalid("an answer that is not 200"));
    }
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| invalid("no end of the head"))?;
    Ok(serde_json::from_slice(&answer[end + 4..])?)
}

/// Where this process serves gRPC, and the others.
fn processes(folder: PathBuf) -> std::io::Result<(Option<String>, Vec<Value>)> {
    let Some(file) = ClusterFile::read(&folder)? else { return Ok((None, Vec::new())) };
    let state = |entry: &Entry| to_json(entry, entry.pid.and_then(stat).as_deref());
    Ok((Some(file.grpc), file.processes.iter().map(state).collect()))
}

/// The kernel's line about a process.
fn stat(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

fn to_json(entry: &Entry, stat: Option<&str>) -> Value {
    let Entry { id, role, pid, grpc, http, .. } = entry;
    let state = match (pid, stat.and_then(letter)) {
        (None, _) | (_, Some('Z' | 'X')) => "down",
        (_, Some('T' | 't')) => "suspended",
        _ => "running",
    };
    json!({"id": id, "role": role, "state": state, "pid": pid, "grpc": grpc, "http": http})
}

/// The state stands after the name, which is in parentheses and may hold anything.
fn letter(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: Option<u32>) -> Entry {
        let text = String::from;
        Entry { id: text("n1"), role: text("node"), pid, grpc: text("a:1"), http: text("a:2"), data: PathBuf::new() }
    }

    /// proc(5): the third field, after a name that may hold spaces and parentheses.
    #[test]
    fn a_state_is_what_the_kernel_says() {
        let state = |pid, stat| to_json(&entry(pid), stat)["state"].as_str().map(String::from).unwrap();
        assert_eq!(state(None, None), "down");
        assert_eq!(state(Some(7), Some("7 (dip) T (x) S 1 7 7")), "running");
        assert_eq!(state(Some(7), Some("7 (diptych) T 1 7 7")), "suspended");
        assert_eq!(state(Some(7), Some("7 (diptych) Z 1 7 7")), "down");
        assert_eq!(state(Some(7), None), "running");
    }

    /// This very process runs.
    #[test]
    fn the_kernel_knows_us() {
        let line = stat(std::process::id()).expect("there is /proc");
        assert!(letter(&line).is_some_and(|letter| "RSD".contains(letter)), "{line}");
    }

    /// Whoever answers at that address may be another program by now.
    #[tokio::test]
    async fn only_a_good_answer_of_json_is_a_history() {
        let own = Identity::with_token("secret").expect("a token");
        let answer = async |text: &'static str| {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("it is bound").to_string();
            let serve = async {
                let (mut stream, _) = listener.accept().await.expect("somebody asks");
                let mut asked = [0; 200];
                let length = stream.read(&mut asked).await.expect("a question");
                assert!(String::from_utf8_lossy(&asked[..length]).contains("\r\nauthorization: Bearer secret\r\n\r\n"));
                stream.write_all(text.as_bytes()).await.expect("it listens");
            };
            tokio::join!(fetch(&address, "/v1/history", &own), serve).0
        };
        assert_eq!(answer("HTTP/1.0 200 OK\r\na: b\r\n\r\n[1]").await.unwrap(), json!([1]));
        for bad in ["HTTP/1.0 503 No\r\n\r\n[1]", "HTTP/1.0 200 OK\r\n\r\n[1", "HTTP/1.0 200 OK\r\n[1]", "", "\n\n"] {
            assert!(answer(bad).await.is_err(), "{bad:?}");
        }
    }
}
