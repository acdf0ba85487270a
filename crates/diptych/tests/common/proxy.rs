//! A network that can be hurt: every process of a test's cluster is reached through it, and through nothing else.
//!
//! ```text
//!   n1 ──▶ front of n2 ══ forth: may n1 speak to n2? ══▶ n2
//!      ◀══ back: may n2 speak to n1? ═══════════════════
//! ```
//!
//! Who has opened a connection is asked of the kernel: all processes are on this machine. So each direction between two
//! processes can be hurt alone, whichever of the two opened the connection. What is cut is as in a real network: bytes
//! wait and connections stay open, on both sides, and nobody is told; what waited arrives when the cut is lifted.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Who is no process of the cluster: the test's own clients.
pub const CLIENTS: &str = "clients";
const CHUNK: usize = 16 << 10;

/// From whom, to whom.
type Way = (String, String);

/// What happens to bytes on a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// They wait.
    Cut,
    /// Each chunk of them is late by so much.
    Late(Duration),
    /// So many pass in a second.
    Slow(u32),
}

#[derive(Debug, Default)]
struct Rules {
    troubles: BTreeMap<Way, Trouble>,
    /// How often the connections of a pair were reset.
    resets: BTreeMap<Way, u64>,
}

/// The network. Needs a runtime; clones share everything.
#[derive(Clone)]
pub struct Proxy(Arc<Shared>);

struct Shared {
    rules: watch::Sender<Rules>,
    /// Processes by id, with their names.
    processes: Mutex<BTreeMap<u32, String>>,
    /// Where a name is served now.
    targets: Mutex<BTreeMap<String, SocketAddr>>,
}

impl Proxy {
    pub fn new() -> Proxy {
        let (rules, processes, targets) = (watch::Sender::default(), Mutex::default(), Mutex::default());
        Proxy(Arc::new(Shared { rules, processes, targets }))
    }

    /// Gives `name` an address at which all others reach it, for as long as the runtime lives.
    pub async fn front(&self, name: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (proxy, name) = (self.clone(), String::from(name));
        tokio::spawn(async move {
            loop {
                let Ok((stream, from)) = listener.accept().await else { continue };
                tokio::spawn(proxy.clone().carry(stream, from, address, name.clone()));
            }
        });
        address
    }

    /// The process runs as `name`.
    pub fn runs(&self, process: u32, name: &str) {
        self.0.processes.lock().expect("nobody panics with it").insert(process, String::from(name));
    }

    /// `name` is served there.
    pub fn served(&self, name: &str, at: SocketAddr) {
        self.0.targets.lock().expect("nobody panics with it").insert(String::from(name), at);
    }

    /// Hurts one direction.
    pub fn hurt(&self, from: &str, to: &str, trouble: Trouble) {
        self.0.rules.send_modify(|rules| {
            rules.troubles.insert(way(from, to), trouble);
        });
    }

    /// Ends the connections between two.
    pub fn reset(&self, one: &str, other: &str) {
        self.0.rules.send_modify(|rules| *rules.resets.entry(pair(one, other)).or_default() += 1);
    }

    /// All is well again.
    pub fn heal(&self) {
        self.0.rules.send_modify(|rules| rules.troubles.clear());
    }

    /// One connection, from its beginning to its end.
    async fn carry(self, near: TcpStream, from: SocketAddr, at: SocketAddr, to: String) {
        let Some(from) = self.opened_by(from, at) else { return };
        let (forth, back) = (way(&from, &to), way(&to, &from));
        let mut rules = self.0.rules.subscribe();
        let resets = |rules: &Rules| rules.resets.get(&pair(&from, &to)).copied().unwrap_or(0);
        let before = resets(&rules.borrow());
        let carrying = async {
            pass(&mut self.0.rules.subscribe(), &forth, 0).await;
            let target = self.0.targets.lock().expect("nobody panics with it").get(&to).copied();
            let far = match target {
                Some(target) => TcpStream::connect(target).await.ok(),
                None => None,
            };
            let Some(far) = far else {
                // That nobody listens is news as well, and takes the way back.
                pass(&mut self.0.rules.subscribe(), &back, 0).await;
                return;
            };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::join!(
                pump(near_in, far_out, self.0.rules.subscribe(), &forth),
                pump(far_in, near_out, self.0.rules.subscribe(), &back),
            );
        };
        let reset = async {
            let _ = rules.wait_for(|rules| resets(rules) != before).await;
        };
        tokio::select! {
            () = carrying => {}
            () = reset => {}
        }
    }

    /// Whose socket has the address `from` and is connected to ours at `at`? `None` if it is gone.
    fn opened_by(&self, from: SocketAddr, at: SocketAddr) -> Option<String> {
        let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
        let socket = table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let port = |field: usize| u16::from_str_radix(fields.get(field)?.rsplit(':').next()?, 16).ok();
            (port(1) == Some(from.port()) && port(2) == Some(at.port())).then(|| format!("socket:[{}]", fields[9]))
        })?;
        let processes = self.0.processes.lock().expect("nobody panics with it");
        // The newest first: those before may have ended.
        let owner = processes.iter().rev().find(|(process, _)| {
            let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|link| link.as_os_str() == socket.as_str())
        });
        Some(owner.map_or_else(|| String::from(CLIENTS), |(_, name)| name.clone()))
    }
}

fn way(from: &str, to: &str) -> Way {
    (String::from(from), String::from(to))
}

fn pair(one: &str, other: &str) -> Way {
    way(one.min(other), one.max(other))
}

/// Waits until so many bytes may go that way.
async fn pass(rules: &mut watch::Receiver<Rules>, way: &Way, bytes: usize) {
    loop {
        let trouble = rules.borrow_and_update().troubles.get(way).copied();
        match trouble {
            None => return,
            Some(Trouble::Late(late)) => return tokio::time::sleep(late).await,
            Some(Trouble::Slow(rate)) => {
                return tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / f64::from(rate))).await;
            }
            Some(Trouble::Cut) => {
                if rules.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Bytes one way, until they end; then the end.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut rules: watch::Receiver<Rules>, way: &Way) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await.unwrap_or(0);
        pass(&mut rules, way, read).await;
        if read == 0 || to.write_all(&chunk[..read]).await.is_err() {
            let _ = to.shutdown().await;
            return;
        }
    }
}
