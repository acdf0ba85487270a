//! The processes under test: started on free loopback ports in one folder, and ended by their own ids.
//!
//! They are killed when this is dropped, and by the kernel if this process is killed (`setpriv --pdeathsig`). What they
//! say goes to `*.log` in the folder; a process that ends early is reported with the end of its log.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Something is wrong if it is not up by then.
pub const READY_WITHIN: Duration = Duration::from_secs(20);
/// Killed if it has not ended so long after it was asked to.
const PATIENCE: Duration = Duration::from_secs(5);
/// Storage nodes of Diptych.
const NODES: u8 = 4;
/// Members of etcd.
const MEMBERS: usize = 3;

/// All of them, up.
pub struct Servers {
    /// `host:port` of Diptych.
    pub diptych: String,
    /// `host:port` of each member.
    pub etcd: Vec<String>,
    /// `host:port` of redis.
    pub redis: String,
    processes: Vec<Process>,
}

struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Servers {
    /// Starts them.
    pub async fn start(folder: &Path, program: &Path) -> Result<Servers> {
        let program = program.canonicalize().with_context(|| format!("no program {}", program.display()))?;
        let (up, diptych) = start_diptych(folder, &program).await?;
        let mut processes = vec![up];
        let etcd = start_etcd(folder, &mut processes)?;
        let redis = start_redis(folder, &mut processes)?;
        let mut servers = Servers { diptych, etcd, redis, processes };
        servers.accept_connections().await?;
        Ok(servers)
    }

    /// Until the peers answer; ours has said so.
    async fn accept_connections(&mut self) -> Result<()> {
        let addresses: Vec<String> = self.etcd.iter().chain([&self.redis]).cloned().collect();
        let all = async {
            for address in addresses {
                while tokio::net::TcpStream::connect(&address).await.is_err() {
                    self.processes.iter_mut().try_for_each(Process::check)?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            anyhow::Ok(())
        };
        timeout(READY_WITHIN, all).await.context("the peers do not accept connections")?
    }

    /// Asks all to end, waits, and says if one had ended before.
    pub async fn stop(mut self) -> Result<()> {
        let early = self.processes.iter_mut().try_for_each(Process::check);
        for process in &self.processes {
            // Not there any more: then it need not be asked.
            let _ = process.pid().map(|pid| kill_process(pid, Signal::TERM));
        }
        for process in &mut self.processes {
            if timeout(PATIENCE, process.child.wait()).await.is_err() {
                process.child.kill().await?;
            }
        }
        early
    }
}

impl Process {
    fn start(folder: &Path, name: &str, program: &Path, args: &[String], stdout: Option<Stdio>) -> Result<Process> {
        let path = folder.join(format!("{name}.log"));
        let log = File::create(&path)?;
        let stdout = match stdout {
            Some(stdout) => stdout,
            None => log.try_clone()?.into(),
        };
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Process { name: name.to_string(), log: path, child })
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()?).ok()?)
    }

    /// An error if it has ended.
    fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(5).collect();
        bail!("{} has ended ({status}):\n{}", self.name, last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }
}

async fn start_diptych(folder: &Path, program: &Path) -> Result<(Process, String)> {
    let args = ["up", "--json", "--data", "diptych", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--nodes"];
    let args: Vec<String> = args.into_iter().map(String::from).chain([NODES.to_string()]).collect();
    let mut process = Process::start(folder, "diptych", program, &args, Some(Stdio::piped()))?;
    let stdout = process.child.stdout.take().context("no pipe for the output of diptych")?;
    // It says where it is once it is ready.
    let mut lines = BufReader::new(stdout).lines();
    let line = timeout(READY_WITHIN, lines.next_line()).await.context("diptych is not ready")??;
    let Some(line) = line else {
        timeout(PATIENCE, process.child.wait()).await.context("diptych closed its output")??;
        process.check()?;
        bail!("diptych closed its output");
    };
    let place: Value = serde_json::from_str(&line).with_context(|| format!("diptych says {line}"))?;
    let grpc = place["grpc"].as_str().with_context(|| format!("diptych does not say where it is: {line}"))?;
    let grpc = grpc.to_string();
    // What else it says is read, lest the pipe fill.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok((process, grpc))
}

/// Three members with etcd's own defaults, as Debian packages it.
fn start_etcd(folder: &Path, processes: &mut Vec<Process>) -> Result<Vec<String>> {
    let ports = free_ports(2 * MEMBERS)?;
    let (clients, peers) = ports.split_at(MEMBERS);
    let members: Vec<String> = peers.iter().enumerate().map(|(i, peer)| format!("e{i}=http://{peer}")).collect();
    for (i, (client, peer)) in clients.iter().zip(peers).enumerate() {
        let name = format!("e{i}");
        let args = [
            format!("--name={name}"),
            format!("--data-dir={name}"),
            format!("--listen-client-urls=http://{client}"),
            format!("--advertise-client-urls=http://{client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster={}", members.join(",")),
            String::from("--initial-cluster-state=new"),
            String::from("--initial-cluster-token=peers"),
            String::from("--logger=zap"),
            String::from("--log-level=warn"),
        ];
        processes.push(Process::start(folder, &format!("etcd-{name}"), Path::new("etcd"), &args, None)?);
    }
    Ok(clients.to_vec())
}

/// Every write is in the synced append-only file before its answer. Snapshots and rewrites of that file, which would
/// only disturb it, are off.
fn start_redis(folder: &Path, processes: &mut Vec<Process>) -> Result<String> {
    let address = free_ports(1)?.remove(0);
    let (host, port) = address.split_once(':').context("an address has a port")?;
    std::fs::create_dir(folder.join("redis"))?;
    let args = ["--bind", host, "--port", port, "--dir", "redis", "--appendonly", "yes", "--appendfsync", "always"];
    let quiet = ["--save", "", "--auto-aof-rewrite-percentage", "0", "--daemonize", "no"];
    let args: Vec<String> = args.into_iter().chain(quiet).map(String::from).collect();
    processes.push(Process::start(folder, "redis", Path::new("redis-server"), &args, None)?);
    Ok(address)
}

/// Addresses nobody listens on. All are held until all are known, so that they differ.
fn free_ports(count: usize) -> Result<Vec<String>> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<std::io::Result<_>>()?;
    let addresses: Vec<String> =
        held.iter().map(|one| one.local_addr().map(|address| address.to_string())).collect::<std::io::Result<_>>()?;
    ensure!(addresses.len() == count, "too few ports");
    Ok(addresses)
}
