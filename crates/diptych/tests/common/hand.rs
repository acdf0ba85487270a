//! A master and nodes started by hand, each behind the [`Proxy`], and what can be done to them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use model::random::Random;
use rustix::process::Signal;
use serde_json::Value;

use super::proxy::Proxy;
use super::{DIPTYCH, pid, send};

/// The master's name.
pub const MASTER: &str = "m1";
/// A process that starts says that it serves, or ends, by then.
const START: Duration = Duration::from_secs(40);

/// The processes. Started from the test's main thread: they end with the thread that started them.
pub struct Hand {
    /// The disk of one node, if it has one of its own. Gone before the folder.
    pub small: Option<SmallDisk>,
    temporary: tempfile::TempDir,
    pub proxy: Proxy,
    processes: BTreeMap<String, Process>,
    /// How many nodes there have been.
    numbered: u32,
}

struct Process {
    arguments: Vec<String>,
    /// Where others reach it.
    front: String,
    /// Where it listens, past the proxy.
    direct: String,
    child: Option<Child>,
}

impl Hand {
    /// A master, and so many nodes. The last one gets a disk of its own of that size, if this machine mounts one.
    pub async fn start(nodes: u32, small: Option<&str>) -> Hand {
        let temporary = tempfile::Builder::new().prefix("diptych-chaos-").tempdir().expect("a temporary folder");
        let proxy = Proxy::new();
        let mut hand = Hand { small: None, temporary, proxy, processes: BTreeMap::new(), numbered: 0 };
        let flags = ["--replicas", "3", "--min-replicas", "2", "--replace-after", "8s"];
        hand.add(MASTER, &[&["master", "run"][..], &flags].concat()).await;
        hand.begin(MASTER).expect("the master starts");
        for _ in 0..nodes {
            let node = hand.add_node().await;
            if let (Some(size), true) = (small, hand.numbered == nodes) {
                hand.small = SmallDisk::new(&hand.data(&node), size);
            }
            hand.begin(&node).expect("the node starts");
        }
        hand
    }

    /// A new node, which does not run yet.
    pub async fn add_node(&mut self) -> String {
        self.numbered += 1;
        let node = format!("n{}", self.numbered);
        let master = self.processes[MASTER].front.clone();
        self.add(&node, &["node", "run", "--id", &node, "--master", &master]).await;
        node
    }

    async fn add(&mut self, name: &str, arguments: &[&str]) {
        let front = self.proxy.front(name).await.to_string();
        let data = self.data(name);
        fs::create_dir_all(&data).expect("a folder");
        let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        arguments.extend(["--data", data.to_str().expect("text"), "--grpc", "127.0.0.1:0"].map(String::from));
        // The master's as well: nodes ask it where it says that it is.
        arguments.extend([String::from("--advertise"), front.clone()]);
        let process = Process { arguments, front, direct: String::new(), child: None };
        self.processes.insert(String::from(name), process);
    }

    /// The folder of a process.
    pub fn data(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.temporary.path().join(format!("{name}.log"))
    }

    /// All nodes, also those that do not run.
    pub fn nodes(&self) -> Vec<String> {
        self.processes.keys().filter(|name| *name != MASTER).cloned().collect()
    }

    /// Where others reach it.
    pub fn front(&self, name: &str) -> &str {
        &self.processes[name].front
    }

    pub fn runs(&self, name: &str) -> bool {
        self.processes[name].child.is_some()
    }

    /// Starts a process that does not run, and waits until it serves; `Err` has its last words if it ends instead.
    pub fn begin(&mut self, name: &str) -> Result<(), String> {
        let log = OpenOptions::new().create(true).append(true).open(self.log(name)).expect("a log");
        let process = self.processes.get_mut(name).expect("it was added");
        assert!(process.child.is_none(), "{name} runs already");
        let mut command = Command::new(DIPTYCH);
        command.args(&process.arguments).args(["--parent", &std::process::id().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
        let mut child = command.spawn().expect("diptych starts");
        self.proxy.runs(child.id(), name);
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, first) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = first.recv_timeout(START).unwrap_or_default();
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("grpc="));
        let Some(address) = address else {
            let _ = child.kill();
            let status = child.wait().expect("it is ours");
            let log = fs::read_to_string(self.log(name)).unwrap_or_default();
            let last = log.lines().rev().find(|line| line.contains("error")).or(log.lines().last());
            return Err(format!("{status}: {}", last.unwrap_or("no words")));
        };
        process.direct = String::from(address);
        self.proxy.served(name, address.parse().expect("an address"));
        process.child = Some(child);
        Ok(())
    }

    /// Sends a running process a signal.
    pub fn signal(&self, name: &str, signal: Signal) {
        send(pid(self.processes[name].child.as_ref().expect("it runs")), signal);
    }

    /// kill -9.
    pub fn kill(&mut self, name: &str) {
        if let Some(mut child) = self.processes.get_mut(name).expect("it was added").child.take() {
            let _ = child.kill();
            child.wait().expect("it is ours");
        }
    }

    /// kill -9 at all at one moment, as a power cut would.
    pub fn kill_all(&mut self) {
        self.processes.values().filter_map(|it| it.child.as_ref()).for_each(|child| send(pid(child), Signal::KILL));
        for process in self.processes.values_mut() {
            if let Some(mut child) = process.child.take() {
                child.wait().expect("it is ours");
            }
        }
    }

    /// Throws a node away that does not run: nobody starts it again.
    pub fn forget(&mut self, name: &str) {
        let process = self.processes.remove(name).expect("it was added");
        assert!(process.child.is_none(), "{name} runs");
    }

    /// Processes that have ended by themselves, with their last words.
    pub fn fallen(&mut self) -> Vec<String> {
        let mut fallen = Vec::new();
        for (name, process) in &mut self.processes {
            if let Some(status) = process.child.as_mut().and_then(|child| child.try_wait().expect("it is ours")) {
                process.child = None;
                let log = fs::read_to_string(self.temporary.path().join(format!("{name}.log"))).unwrap_or_default();
                fallen.push(format!("{name}: {status}: {}", log.lines().last().unwrap_or_default()));
            }
        }
        fallen
    }

    /// A command past the proxy, at the master; its output if it succeeded.
    pub fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let ended = super::run(&[&["--timeout", "5s"][..], arguments].concat(), &self.processes[MASTER].direct);
        if ended.code == 0 { Ok(ended.out) } else { Err(format!("{arguments:?}: {}{}", ended.out, ended.err)) }
    }

    fn tablets(&self) -> Result<Vec<Value>, String> {
        let out = self.ask(&["tablet", "list", "--json"])?;
        let mut value: Value = serde_json::from_str(&out).map_err(|error| format!("{error}: {out}"))?;
        match value["tablets"].take() {
            Value::Array(tablets) => Ok(tablets),
            other => Err(format!("no list: {other}")),
        }
    }

    /// Who is primary of the table's first tablet.
    pub fn primary(&self, table: &str) -> Option<String> {
        let tablets = self.tablets().ok()?;
        let first = tablets.iter().find(|tablet| tablet["table"] == table && tablet["rows"]["start"] != "m")?;
        first["primary"].as_str().map(String::from)
    }

    /// A tablet of the table, a secondary of it, and a node that keeps nothing of it.
    pub fn movable(&self, table: &str) -> Option<(String, String, String)> {
        let tablets = self.tablets().ok()?;
        let tablet = tablets.iter().find(|tablet| tablet["table"] == table && tablet["learner"].is_null())?;
        let secondaries: Vec<&str> = tablet["secondaries"].as_array()?.iter().filter_map(Value::as_str).collect();
        let keeps = |node: &String| tablet["primary"] == node.as_str() || secondaries.contains(&node.as_str());
        let free = self.nodes().into_iter().find(|node| !keeps(node))?;
        Some((String::from(tablet["tablet"].as_str()?), String::from(*secondaries.first()?), free))
    }

    /// How many tablets the node keeps as a member, and how many of them it leads.
    pub fn kept(&self, node: &str) -> (usize, usize) {
        let tablets = self.tablets().unwrap_or_default();
        let leads = |tablet: &&Value| tablet["primary"] == node;
        let follows = |tablet: &&Value| {
            tablet["secondaries"].as_array().is_some_and(|members| members.iter().any(|member| member == node))
        };
        let led = tablets.iter().filter(leads).count();
        (tablets.iter().filter(follows).count() + led, led)
    }

    /// Has every tablet three members that lack nothing? Otherwise, what is missing.
    pub fn whole(&self) -> Result<(), String> {
        for tablet in self.tablets()? {
            let members: Vec<&Value> =
                tablet["secondaries"].as_array().into_iter().flatten().chain([&tablet["primary"]]).collect();
            let replicas = tablet["replicas"].as_array().ok_or("no replicas")?;
            let steady = |member: &&&Value| replicas.iter().any(|it| it["node"] == ***member && it["steady"] == true);
            if members.len() != 3 || members.iter().filter(steady).count() != 3 || !tablet["learner"].is_null() {
                return Err(tablet.to_string());
            }
        }
        Ok(())
    }

    /// Waits until every tablet is whole. Returns how long that took.
    pub fn until_whole(&self, within: Duration) -> Duration {
        let begun = Instant::now();
        loop {
            let missing = match self.whole() {
                Ok(()) => return begun.elapsed(),
                Err(missing) => missing,
            };
            assert!(begun.elapsed() < within, "not whole after {within:?}: {missing}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Hangs the disk of a node, or rather every thread of it that touches the disk; `None` if this machine cannot.
    /// It goes on when the answer is dropped.
    pub fn hang(&self, name: &str) -> Option<Hung> {
        let process = pid(self.processes[name].child.as_ref().expect("it runs"));
        Hung::new(u32::try_from(process).expect("a pid"))
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking() {
            for name in self.processes.keys() {
                let text = fs::read_to_string(self.log(name)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- {name}\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
            }
        }
    }
}

/// Threads that stand still, frozen by a control group of version 1, which takes single threads.
pub struct Hung(PathBuf);

const FREEZER: &str = "/sys/fs/cgroup/freezer";

impl Hung {
    fn new(process: u32) -> Option<Hung> {
        let hung = Hung(Path::new(FREEZER).join(format!("diptych-{process}")));
        if !Path::new(FREEZER).join("tasks").exists() || fs::create_dir(&hung.0).is_err() {
            return None;
        }
        for task in fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.starts_with("log") || name.starts_with("reader-") || name.starts_with("worker-") {
                fs::write(hung.0.join("tasks"), task.file_name().as_encoded_bytes()).ok()?;
            }
        }
        fs::write(hung.0.join("freezer.state"), "FROZEN").ok()?;
        Some(hung)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        for task in fs::read_to_string(self.0.join("tasks")).unwrap_or_default().lines() {
            let _ = fs::write(Path::new(FREEZER).join("tasks"), task);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// A small disk, gone when it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` if this machine mounts nothing.
    pub fn new(at: &Path, size: &str) -> Option<SmallDisk> {
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|status| status.success()).then(|| SmallDisk(at.to_path_buf()))
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler()).expect("a file");
        for size in [1 << 20, 4096] {
            let block = vec![0x5a; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    /// Gives it back.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it was there");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Flips a bit of the log in the folder of a node that does not run, in the older half of what was written: the last
/// batch of a log cannot be told from one that was torn. Says where.
pub fn flip(data: &Path, random: &mut Random) -> String {
    let mut logs: Vec<PathBuf> = fs::read_dir(data.join("log")).expect("a log").flatten().map(|it| it.path()).collect();
    logs.sort();
    let path = logs.into_iter().next().expect("a segment");
    let bytes = fs::read(&path).expect("it is read");
    let written = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0) as u64;
    let at = random.below(written / 2 + 1);
    let bit = 1 << random.below(8);
    let file: File = OpenOptions::new().write(true).open(&path).expect("a file");
    file.write_all_at(&[bytes[at as usize] ^ bit], at).expect("a byte");
    format!("byte {at} of {}", path.file_name().and_then(|name| name.to_str()).expect("a name"))
}
