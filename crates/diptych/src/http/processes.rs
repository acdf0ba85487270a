//! The processes that `up` started, as they are now: `cluster.json`, and what the kernel says of each.

use std::path::{Path, PathBuf};

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::gateway::Gateway;
use crate::up::{ClusterFile, Entry};

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
}
