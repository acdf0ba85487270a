//! One child process: how it is started, what it is told, what is heard of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use model::Refusal;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

use super::folder::{Entry, Folder};
use crate::cli::Failure;
use crate::cli::failure::reason;
use crate::cli::parse::Process as ProcessId;

/// What is heard of the process at that place. The pid tells its lives apart.
pub enum News {
    /// It serves there.
    Ready(usize, u32, Addresses),
    /// It is gone.
    Ended(usize, u32, Option<ExitStatus>),
    /// It was asked to end some time ago.
    Overdue(usize, u32),
}

/// Where a process serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Other processes and clients.
    pub grpc: SocketAddr,
    /// Health, metrics, and all the rest of HTTP.
    pub http: Option<SocketAddr>,
}

/// A process of the cluster, whether it runs or not.
pub struct Process {
    /// Which node or master.
    pub id: ProcessId,
    /// `n1` or `m1`.
    pub name: String,
    /// The folder of its data.
    pub data: PathBuf,
    /// Where it serves gRPC, or did last.
    pub grpc: Option<SocketAddr>,
    /// Where it serves HTTP, or did last.
    pub http: Option<SocketAddr>,
    /// While it runs.
    pub pid: Option<u32>,
    /// Has it said that it serves?
    pub ready: bool,
    /// Was it told to end?
    pub ending: bool,
    /// Who waits for its restart.
    pub restart: Option<oneshot::Sender<Result<(), Refusal>>>,
}

impl Process {
    /// Does not run yet. `before` is what an earlier `up` knew of it.
    pub fn new(id: ProcessId, folder: &Folder, before: Option<&Entry>) -> Process {
        let name = id.to_string();
        Process {
            id,
            data: folder.data(&name),
            grpc: before.and_then(|entry| entry.grpc.parse().ok()),
            http: before.and_then(|entry| entry.http.parse().ok()),
            name,
            pid: None,
            ready: false,
            ending: false,
            restart: None,
        }
    }

    /// Runs, and has not said yet that it serves.
    pub fn is_starting(&self) -> bool {
        self.pid.is_some() && !self.ready
    }

    /// For `cluster.json`.
    pub fn entry(&self) -> Entry {
        Entry {
            id: self.name.clone(),
            role: String::from(if self.id.as_master().is_some() { "master" } else { "node" }),
            pid: self.pid,
            grpc: self.grpc.map_or_else(String::new, |grpc| grpc.to_string()),
            http: self.http.map_or_else(String::new, |http| http.to_string()),
            data: self.data.clone(),
        }
    }

    /// Starts it with these arguments. Call it on the main thread: the child ends with the thread that started it.
    pub fn start(
        &mut self,
        at: usize,
        program: &Path,
        arguments: Vec<String>,
        folder: &Folder,
        news: &mpsc::UnboundedSender<News>,
    ) -> Result<(), Failure> {
        let failed = |error| Failure::failed(format!("cannot start {}: {}", self.name, reason(&error)));
        let log = folder.log(&self.name).map_err(failed)?;
        let mut command = Command::new(program);
        // The allocator claims memory as it is needed: an idle master takes 38 MB instead of 64.
        if std::env::var_os("MIMALLOC_ARENA_EAGER_COMMIT").is_none() {
            command.env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
        }
        // A group of its own: Ctrl-C is for us, and we tell the children in our way.
        command.args(arguments).args(["--parent", &std::process::id().to_string()]).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let child = command.spawn().map_err(failed)?;
        let pid = child.id().expect("it was not waited for yet");
        (self.pid, self.ready, self.ending) = (Some(pid), false, false);
        tokio::spawn(listen(at, pid, child, news.clone()));
        Ok(())
    }

    /// Sends a signal; does nothing if it does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended in this moment, of which there will be news.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to end, also if it is suspended.
    pub fn ask_to_end(&mut self) {
        self.ending = true;
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }
}

/// Hears the child out until it ends.
async fn listen(at: usize, pid: u32, mut child: Child, news: mpsc::UnboundedSender<News>) {
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(addresses) = ready_line(&line) {
                let _ = news.send(News::Ready(at, pid, addresses));
            }
        }
    }
    let status = child.wait().await.ok();
    // Nobody listens any more only if we are on our way out.
    let _ = news.send(News::Ended(at, pid, status));
}

/// `ready grpc=127.0.0.1:4711 http=127.0.0.1:4712`
fn ready_line(line: &str) -> Option<Addresses> {
    let rest = line.strip_prefix("ready ")?;
    let word = |name: &str| rest.split(' ').find_map(|word| word.strip_prefix(name))?.parse().ok();
    Some(Addresses { grpc: word("grpc=")?, http: word("http=") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_tells_the_port() {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let both = Addresses { grpc: local(4711), http: Some(local(4712)) };
        assert_eq!(ready_line("ready grpc=127.0.0.1:4711 http=127.0.0.1:4712"), Some(both));
        assert_eq!(ready_line("ready grpc=127.0.0.1:4711"), Some(Addresses { http: None, ..both }));
        assert_eq!(ready_line("ready"), None);
        assert_eq!(ready_line("steady grpc=127.0.0.1:1"), None);
    }
}
