//! `up`: a whole cluster of real processes on this machine.
//!
//! ```text
//!   up (this process: gateway, HTTP, supervision) ──starts──▶ m1 … masters
//!                                                 ├─starts──▶ n1 … storage nodes
//!                                                 └─writes──▶ DIR/cluster.json
//! ```
//!
//! The children are the same binary with the same commands that an operator would use. A child that ends is reported
//! and left down until somebody restarts it. Children never outlive this process: they are stopped with it, and the
//! kernel ends them if it is killed. All signals to children come from here.

mod folder;
mod process;

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::request::ClusterStatus;
use model::{AdminReply, AdminRequest, NodeId, Refusal};
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout, timeout_at};

use self::folder::Folder;
pub use self::folder::{ClusterFile, Entry};
use self::process::{News, Process};
use crate::access::Access;
use crate::cli::bigtable::BigtableArgs;
use crate::cli::failure::reason;
use crate::cli::parse::Process as ProcessId;
use crate::cli::{Failure, LogFormat, Up};
use crate::control::{NodeAction, NodeControl};
use crate::gateway::{self, Gateway};
use crate::host::Shutdown;
use crate::masters::Masters;
use crate::telemetry;

/// Nodes of a new cluster.
const NODES: u32 = 4;
/// A missing replica is made anew on another node after this.
const REPLACE_AFTER: &str = "30s";
/// How long a tablet is at rest before it may move to even out the nodes.
const BALANCE_AFTER: &str = "10s";
/// Its files are few, and somebody tries things out.
const SCRUB_EVERY: &str = "1h";
/// Fewest replicas of new tables that accept writes.
const MIN_REPLICAS: &str = "1";
/// A child that has not ended so long after it was asked to is killed.
const PATIENCE: Duration = Duration::from_millis(600);
/// The cluster is up by then, or something is wrong.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// Runs the cluster until a signal stops it.
pub fn run(args: &Up, as_json: bool) -> Result<(), Failure> {
    telemetry::init(args.log.log_format);
    let begun = Instant::now();
    let folder = Folder::open(&args.data)?;
    let nodes = number_of_nodes(args, folder.nodes())?;
    let masters = number_of_masters(args, folder.masters())?;
    if u32::from(args.replicas) > nodes {
        return Err(Failure::usage(format!("--replicas {} needs as many nodes, and there are {nodes}", args.replicas))
            .hint(format!("give --nodes {} or fewer replicas", args.replicas)));
    }
    let access = Access::open(args.access.as_deref())?;
    let runtime = crate::cli::server_runtime()?;
    let result = runtime.block_on(async {
        let grpc = listen(args.grpc, "--grpc").await?;
        let http = listen(args.http, "--http").await?;
        let mut supervisor = Supervisor::new(args, folder, masters, nodes, access);
        let result = supervisor.run(grpc, http, begun, as_json).await;
        supervisor.stop().await;
        result
    });
    runtime.shutdown_timeout(Duration::from_millis(50));
    result
}

/// Makes this process end with the one that started it.
pub fn die_with(parent: Option<u32>) -> Result<(), Failure> {
    let Some(parent) = parent else { return Ok(()) };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| Failure::failed(format!("cannot ask to end with process {parent}: {error}")))?;
    let present = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    match present == Some(parent) {
        true => Ok(()),
        false => Err(Failure::failed(format!("process {parent}, which started this one, is gone"))),
    }
}

fn number_of_nodes(args: &Up, present: u32) -> Result<u32, Failure> {
    match args.nodes {
        Some(nodes) if nodes < present => {
            let message = format!("{} has {present} nodes; --nodes {nodes} would leave some out", args.data.display());
            Err(Failure::usage(message)
                .hint("their tablets have replicas there: give as many nodes, or leave --nodes out"))
        }
        Some(nodes) => Ok(nodes),
        None if present == 0 => Ok(NODES.max(u32::from(args.replicas))),
        None => Ok(present),
    }
}

/// A cluster keeps the masters that it was made with: which those are stands in their log.
fn number_of_masters(args: &Up, present: u32) -> Result<u32, Failure> {
    match args.masters {
        Some(masters) if present > 0 && masters != present => {
            let message = format!("{} has {present} masters, not {masters}", args.data.display());
            Err(Failure::usage(message).hint("leave --masters out, or make a new cluster with another --data"))
        }
        masters => Ok(masters.unwrap_or(1).max(present)),
    }
}

async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::failed(format!("cannot listen on {address}: {}", reason(&error)))
            .hint(format!("choose another address with {flag}, for example {flag} {}:0 for a free port", address.ip()))
    })
}

/// A wish of somebody, and where the answer goes.
type Wish = (NodeId, NodeAction, oneshot::Sender<Result<(), Refusal>>);

struct Supervisor {
    folder: Folder,
    /// This program's file.
    program: PathBuf,
    replicas: u8,
    split_bytes: u64,
    split_load: u64,
    merge_after: Duration,
    bigtable: BigtableArgs,
    log_format: LogFormat,
    access: Access,
    /// Where the processes find their token, if access is controlled.
    access_file: Option<PathBuf>,
    /// The masters first.
    processes: Vec<Process>,
    /// How many of them are masters.
    masters: usize,
    cluster: String,
    grpc: String,
    http: String,
    news: mpsc::UnboundedReceiver<News>,
    tell: mpsc::UnboundedSender<News>,
}

impl Supervisor {
    fn new(args: &Up, folder: Folder, masters: u32, nodes: u32, access: Access) -> Supervisor {
        let before = folder.cluster_file();
        let process = |id: ProcessId| {
            let name = id.to_string();
            let entry = before.as_ref().and_then(|file| file.processes.iter().find(|entry| entry.id == name));
            Process::new(id, &folder, entry)
        };
        let nodes = (1..=nodes).map(|node| ProcessId(NodeId(node)));
        let processes = (1..=masters).map(ProcessId::master).chain(nodes).map(process).collect();
        let (tell, news) = mpsc::unbounded_channel();
        Supervisor {
            processes,
            masters: masters as usize,
            folder,
            program: std::env::current_exe().unwrap_or_default(),
            replicas: args.replicas,
            split_bytes: args.split_bytes,
            split_load: args.split_load,
            merge_after: args.merge_after,
            bigtable: args.bigtable.clone(),
            log_format: args.log.log_format,
            access,
            access_file: args.access.clone(),
            cluster: before.map(|file| file.cluster).unwrap_or_default(),
            grpc: String::new(),
            http: String::new(),
            news,
            tell,
        }
    }

    async fn run(
        &mut self,
        grpc: TcpListener,
        http: TcpListener,
        begun: Instant,
        as_json: bool,
    ) -> Result<(), Failure> {
        let hear = |kind| unix::signal(kind).map_err(|error| Failure::failed(format!("cannot hear signals: {error}")));
        let mut interrupt = hear(SignalKind::interrupt())?;
        let mut terminate = hear(SignalKind::terminate())?;
        let mut hangup = hear(SignalKind::hangup())?;
        let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string());
        (self.grpc, self.http) = (address(&grpc)?, address(&http)?);
        let (wish, mut wishes) = mpsc::channel::<Wish>(16);
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = Shutdown::when(async move {
            let _ = stopped.await;
        });
        let mut serving: JoinHandle<anyhow::Result<()>> = tokio::spawn(std::future::pending());

        let start = async {
            self.choose_addresses().await?;
            for at in 0..self.masters {
                self.start(at)?;
            }
            self.until_ready(0..self.masters).await?;
            let masters = Masters::new(self.addresses().into_iter().map(|(_, address)| address).collect());
            let gateway = Gateway::new(masters, self.access.clone()).with_bigtable(self.bigtable.options());
            let gateway = gateway.with_control(control(wish), self.folder.path().to_path_buf());
            serving = tokio::spawn(gateway::run(grpc, http, gateway.clone(), shutdown));
            for at in self.masters..self.processes.len() {
                self.start(at)?;
            }
            self.until_ready(self.masters..self.processes.len()).await?;
            let status = self.until_all_are_known(&gateway).await?;
            self.cluster = status.cluster.to_string();
            self.write_file();
            self.greet(begun, as_json);
            Ok::<(), Failure>(())
        };
        tokio::select! {
            started = start => started?,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
        loop {
            tokio::select! {
                Some(news) = self.news.recv() => self.on_news(news),
                Some((node, action, answer)) = wishes.recv() => self.on_wish(node, action, answer),
                ended = &mut serving => return match ended {
                    Ok(result) => Ok(result?),
                    Err(error) => Err(Failure::failed(format!("the gateway stopped: {error}"))),
                },
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = hangup.recv() => break,
            }
        }
        drop(stop);
        Ok(())
    }

    /// Several masters have to know each other's addresses before the first of them starts. Those that they had before
    /// they must have again; processes of before that were killed just now may still be on their way out.
    async fn choose_addresses(&mut self) -> Result<(), Failure> {
        if self.masters == 1 {
            return Ok(());
        }
        // All are held until all are chosen, so that none is chosen twice.
        let mut held = Vec::new();
        for process in self.processes.iter_mut().take(self.masters) {
            let Some(before) = process.grpc else {
                let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
                process.grpc = Some(listener.local_addr()?);
                held.push(listener);
                continue;
            };
            let free = async {
                while !is_free(&before) {
                    sleep(Duration::from_millis(20)).await;
                }
            };
            // If it is not, the start of that master will say so.
            let _ = timeout(PATIENCE * 3, free).await;
        }
        Ok(())
    }

    /// Where the masters are, by their numbers.
    fn addresses(&self) -> Vec<(u32, String)> {
        let masters = self.processes.iter().take(self.masters);
        masters.filter_map(|process| Some((process.id.as_master()?, process.grpc?.to_string()))).collect()
    }

    /// Starts a process; of its readiness there will be news.
    fn start(&mut self, at: usize) -> Result<(), Failure> {
        let masters = self.addresses();
        let started = self.processes.iter().any(|process| process.pid.is_some());
        // The file may have been removed or replaced since; what runs here is there still.
        let program = if self.program.exists() { &self.program } else { Path::new("/proc/self/exe") };
        let process = &mut self.processes[at];
        let before = process.grpc.filter(is_free);
        let fixed = started || masters.len() > 1;
        if let (Some(_), true, None, Some(port)) = (process.id.as_master(), fixed, before, process.grpc) {
            // The others know no other.
            let name = &process.name;
            return Err(Failure::failed(format!("the address of {name}, {port}, is taken by another program")));
        }
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let port = before.unwrap_or(any);
        let http = process.http.filter(is_free).unwrap_or(any);
        let format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let data = process.data.display().to_string();
        let mut arguments: Vec<String> = match process.id.as_master() {
            Some(_) => ["master", "run", "--replace-after", REPLACE_AFTER, "--min-replicas", MIN_REPLICAS]
                .into_iter()
                .chain(["--balance-after", BALANCE_AFTER])
                .map(String::from)
                .collect(),
            None => {
                ["node", "run", "--scrub-every", SCRUB_EVERY, "--digest-every", SCRUB_EVERY].map(String::from).into()
            }
        };
        let mut flag = |name: &str, value: String| arguments.extend([String::from(name), value]);
        flag("--data", data);
        flag("--grpc", port.to_string());
        flag("--http", http.to_string());
        flag("--log-format", String::from(format));
        if let Some(file) = &self.access_file {
            flag("--access", file.display().to_string());
        }
        match process.id.as_master() {
            Some(number) => {
                flag("--replicas", self.replicas.to_string());
                flag("--split-bytes", self.split_bytes.to_string());
                flag("--split-load", self.split_load.to_string());
                flag("--merge-after", format!("{}ms", self.merge_after.as_millis()));
                flag("--id", number.to_string());
                if masters.len() > 1 {
                    let all: Vec<String> = masters.iter().map(|(id, address)| format!("{id}={address}")).collect();
                    flag("--initial", all.join(","));
                }
            }
            None => {
                flag("--id", process.id.to_string());
                self.bigtable.flags().into_iter().for_each(|(name, value)| flag(name, value));
                let all: Vec<String> = masters.into_iter().map(|(_, address)| address).collect();
                flag("--master", all.join(","));
            }
        }
        process.start(at, program, arguments, &self.folder, &self.tell)
    }

    /// Waits until these have said that they serve, or have ended. Fails if all of them have.
    async fn until_ready(&mut self, range: std::ops::Range<usize>) -> Result<(), Failure> {
        let deadline = tokio::time::Instant::now() + READY_WITHIN;
        let mut last = Ok(());
        while let Some(late) = self.processes[range.clone()].iter().find(|process| process.is_starting()) {
            let name = late.name.clone();
            match timeout_at(deadline, self.news.recv()).await {
                Ok(Some(News::Ended(at, pid, status))) if self.processes[at].pid == Some(pid) => {
                    let name = self.processes[at].name.clone();
                    let words = self.folder.last_words(&name).unwrap_or_default();
                    last = Err(self.not_up(&name, format!("{name} {}: {words}", how_it_ended(status))));
                    self.on_ended(at, pid, status);
                }
                Ok(Some(news)) => self.on_news(news),
                Ok(None) => break,
                Err(_) => return Err(self.not_up(&name, format!("{name} does not get ready"))),
            }
        }
        if self.processes[range].iter().any(|process| process.ready) { Ok(()) } else { last }
    }

    fn not_up(&self, name: &str, message: String) -> Failure {
        Failure::failed(message).hint(format!("its log is {}", self.folder.log_path(name).display()))
    }

    /// Waits until the master has heard of all nodes.
    async fn until_all_are_known(&self, gateway: &Gateway) -> Result<ClusterStatus, Failure> {
        let nodes = self.processes[self.masters..].iter().filter(|process| process.ready).count();
        let ask = async {
            loop {
                if let Ok(AdminReply::Status(status)) = gateway.ask_of_itself(AdminRequest::Status).await
                    && status.nodes.iter().filter(|node| node.alive).count() >= nodes
                {
                    return status;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(READY_WITHIN, ask)
            .await
            .map_err(|_| self.not_up("m1", format!("no master leads that hears of all {nodes} nodes")))
    }

    fn on_news(&mut self, news: News) {
        match news {
            News::Ready(at, pid, addresses) if self.processes[at].pid == Some(pid) => {
                let process = &mut self.processes[at];
                (process.ready, process.grpc, process.http) = (true, Some(addresses.grpc), addresses.http);
                if let Some(answer) = process.restart.take() {
                    tracing::info!(
                        event = "process_started",
                        process = process.name,
                        pid,
                        "{} runs again",
                        process.name
                    );
                    let _ = answer.send(Ok(()));
                }
                self.write_file();
            }
            News::Ended(at, pid, status) if self.processes[at].pid == Some(pid) => self.on_ended(at, pid, status),
            News::Overdue(at, pid) if self.processes[at].pid == Some(pid) => self.processes[at].signal(Signal::KILL),
            _ => {}
        }
    }

    fn on_ended(&mut self, at: usize, pid: u32, status: Option<ExitStatus>) {
        let process = &mut self.processes[at];
        let (was_ready, ending) = (process.ready, process.ending);
        (process.pid, process.ready) = (None, false);
        let name = process.name.clone();
        if process.restart.is_some() && (was_ready || ending) {
            if let Err(failure) = self.start(at) {
                self.refuse_restart(at, failure.message);
            }
        } else {
            let has_said_why = status.is_some_and(|status| status.code().is_some_and(|code| code != 0));
            let how = match self.folder.last_words(&name).filter(|_| has_said_why) {
                Some(words) => format!("{}: {words}", how_it_ended(status)),
                None => how_it_ended(status),
            };
            if process.restart.is_some() {
                self.refuse_restart(at, format!("{name} {how}"));
            }
            let log = self.folder.log_path(&name);
            tracing::warn!(
                event = "process_ended",
                process = name,
                pid,
                "{name} (pid {pid}) {how}; its log is {}; start it again: diptych node restart {name}",
                log.display()
            );
        }
        self.write_file();
    }

    fn refuse_restart(&mut self, at: usize, why: String) {
        if let Some(answer) = self.processes[at].restart.take() {
            let _ = answer.send(Err(Refusal::Invalid(why)));
        }
    }

    fn on_wish(&mut self, node: NodeId, action: NodeAction, answer: oneshot::Sender<Result<(), Refusal>>) {
        let Some(at) = self.processes.iter().position(|process| process.id.0 == node) else {
            let names: Vec<&str> = self.processes.iter().map(|process| process.name.as_str()).collect();
            let why = format!("no process {}; there are {}", ProcessId(node), names.join(", "));
            let _ = answer.send(Err(Refusal::Invalid(why)));
            return;
        };
        let process = &mut self.processes[at];
        let name = process.name.clone();
        let result = match (action, process.pid) {
            (_, _) if process.restart.is_some() => Err(format!("{name} is being restarted")),
            (NodeAction::Restart, Some(pid)) => {
                process.restart = Some(answer);
                process.ask_to_end();
                let tell = self.tell.clone();
                tokio::spawn(async move {
                    sleep(PATIENCE).await;
                    let _ = tell.send(News::Overdue(at, pid));
                });
                return;
            }
            (NodeAction::Restart, None) => {
                process.restart = Some(answer);
                process.ending = false;
                if let Err(failure) = self.start(at) {
                    self.refuse_restart(at, failure.message);
                }
                return;
            }
            (_, None) => Err(format!("{name} does not run; start it: diptych node restart {name}")),
            (NodeAction::Suspend, Some(_)) => Ok(Signal::STOP),
            (NodeAction::Resume, Some(_)) => Ok(Signal::CONT),
            (NodeAction::Kill, Some(_)) => Ok(Signal::KILL),
            (NodeAction::Unspecified, Some(_)) => Err(String::from("say suspend, resume, kill or restart")),
        };
        let result = result.map(|signal| {
            tracing::info!(event = "node_control", process = name, "{action:?} {name}");
            process.signal(signal);
        });
        // Whoever asked may have gone away.
        let _ = answer.send(result.map_err(Refusal::Invalid));
    }

    fn write_file(&self) {
        if self.cluster.is_empty() {
            return;
        }
        let content = ClusterFile {
            cluster: self.cluster.clone(),
            grpc: self.grpc.clone(),
            http: self.http.clone(),
            processes: self.processes.iter().map(Process::entry).collect(),
        };
        if let Err(error) = self.folder.write_cluster_file(&content) {
            tracing::warn!(event = "cluster_file", "cannot write cluster.json: {}", reason(&error));
        }
    }

    fn greet(&self, begun: Instant, as_json: bool) {
        if as_json {
            match self.folder.cluster_file() {
                Some(file) => println!("{}", serde_json::json!(file)),
                None => println!("{{}}"),
            }
            return;
        }
        let (all, seconds) = (self.processes.len() - self.masters, begun.elapsed().as_secs_f64());
        let masters = match self.masters {
            1 => String::from("a master"),
            several => format!("{several} masters"),
        };
        let nodes = match self.processes[self.masters..].iter().filter(|process| process.ready).count() {
            ready if ready == all => format!("{all} nodes"),
            ready => format!("{ready} of {all} nodes"),
        };
        let program = self.callable();
        let mut endpoint = String::new();
        if self.grpc != "127.0.0.1:8086" {
            endpoint = format!("  export DIPTYCH_ENDPOINT={}\n", self.grpc);
        }
        println!(
            "Diptych {}: cluster {} is up in {seconds:.2} s: {masters} and {nodes}\n\n  \
             gRPC   {}\n  HTTP   http://{}\n  data   {}\n\nTry:\n{endpoint}  \
             {program} table create airports --family info\n  \
             {program} put airports LAX info:name='Los Angeles'\n  \
             {program} status\n\nCtrl-C stops it; the data stays.",
            env!("CARGO_PKG_VERSION"),
            self.cluster,
            self.grpc,
            self.http,
            self.folder.path().display()
        );
    }

    /// How this program can be called from where we are.
    fn callable(&self) -> String {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        if std::env::split_paths(&paths).any(|folder| folder.join("diptych").is_file()) {
            return String::from("diptych");
        }
        let here = std::env::current_dir().ok();
        let near = here.and_then(|here| Some(format!("./{}", self.program.strip_prefix(here).ok()?.display())));
        near.unwrap_or_else(|| self.program.display().to_string())
    }

    /// Ends all children, in well under a second.
    async fn stop(&mut self) {
        self.processes.iter_mut().for_each(Process::ask_to_end);
        for patience in [PATIENCE, PATIENCE / 3] {
            let all_ended = async {
                while self.processes.iter().any(|process| process.pid.is_some()) {
                    if let Some(News::Ended(at, pid, _)) = self.news.recv().await
                        && self.processes[at].pid == Some(pid)
                    {
                        self.processes[at].pid = None;
                    }
                }
            };
            if timeout(patience, all_ended).await.is_ok() {
                break;
            }
            self.processes.iter().for_each(|process| process.signal(Signal::KILL));
        }
        self.processes.iter_mut().for_each(|process| process.pid = None);
        self.write_file();
    }
}

/// Carries wishes to the supervisor. Blocks until it is done.
fn control(wishes: mpsc::Sender<Wish>) -> NodeControl {
    Arc::new(move |node, action| {
        let stopping = || Refusal::Invalid(String::from("the cluster is being stopped"));
        let (answer, answered) = oneshot::channel();
        wishes.blocking_send((node, action, answer)).map_err(|_| stopping())?;
        answered.blocking_recv().map_err(|_| stopping())?
    })
}

fn is_free(address: &SocketAddr) -> bool {
    StdListener::bind(address).is_ok()
}

fn how_it_ended(status: Option<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => String::from("ended"),
        },
        None => String::from("ended"),
    }
}
