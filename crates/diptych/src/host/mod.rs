//! The hosts: what gives the pure machines a clock, a disk, threads and a network.
//!
//! ```text
//!   rpc, http ──requests──▶ node: shard thread ──▶ log thread, readers, jobs
//!   peers, session ◀─────────────┘    ▲ answers straight to whoever waits
//!   master: thread of the master ◀──▶ consensus
//! ```
//!
//! A host decides nothing: it drains what came in, steps the machine, and carries its effects out in their order.

pub mod consensus;
pub mod inbox;
pub mod lifecycle;
pub mod master;
pub mod node;
pub mod peers;
pub mod session;

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use disk::{Disk, KernelDisk};
use model::NodeId;
use protocol::Timing;

pub use consensus::members::{Founding, MOST as MOST_MASTERS};
pub use lifecycle::{Health, Shutdown, announce, bind, until_stopped, without_huge_pages};
pub use master::run_master;
pub use node::run_node;

/// What the process of a storage node needs to know.
#[derive(Clone, Debug)]
pub struct NodeArgs {
    /// Folder of its data.
    pub data: PathBuf,
    /// Who it is.
    pub id: NodeId,
    /// Where it serves gRPC; port 0 takes a free one.
    pub grpc: SocketAddr,
    /// Where it serves HTTP, if at all.
    pub http: Option<SocketAddr>,
    /// `host:port` at which others reach its gRPC, if not at `grpc`.
    pub advertise: Option<String>,
    /// `host:port` of the masters' gRPC.
    pub masters: Vec<String>,
    /// Periods of the protocol; the same for all processes of a cluster.
    pub timing: Timing,
    /// What was thrown away is kept for so long.
    pub trash_keep: Duration,
    /// All files are read once in this time, to find damage; zero is never.
    pub scrub_every: Duration,
    /// All tablets that it leads compare their replicas once in this time; zero is never.
    pub digest_every: Duration,
    /// Merges read past the kernel's memory.
    pub direct_io: bool,
    /// What the operator has chosen for the Bigtable API.
    pub bigtable: crate::rpc::bigtable::Options,
    /// The file with the processes' token, if access is controlled.
    pub access: Option<PathBuf>,
}

/// What the process of a master needs to know.
#[derive(Clone, Debug)]
pub struct MasterArgs {
    /// Folder of its data.
    pub data: PathBuf,
    /// Its number in the group of masters.
    pub id: u32,
    /// How it comes to that group, if its folder is empty.
    pub founding: Founding,
    /// `host:port` at which others reach its gRPC, if not at `grpc`.
    pub advertise: Option<String>,
    /// Where it serves gRPC; port 0 takes a free one.
    pub grpc: SocketAddr,
    /// Where it serves HTTP, if at all.
    pub http: Option<SocketAddr>,
    /// Replicas of a new table's tablets, unless the table says otherwise.
    pub replicas: u8,
    /// Fewest replicas that accept writes, likewise.
    pub min_replicas: u8,
    /// When a tablet at rest may be moved to even out the nodes; `None` is never.
    pub balance_after: Option<Duration>,
    /// A tablet of a range with more bytes is split; 0 is never.
    pub split_bytes: u64,
    /// A tablet of a range that serves more requests per second is split; 0 is never.
    pub split_load: u64,
    /// Two tablets of a range that have been small and cold for so long become one; `None` is never.
    pub merge_after: Option<Duration>,
    /// Periods of the protocol, `replace_after` among them.
    pub timing: Timing,
    /// The file with the processes' token, if access is controlled.
    pub access: Option<PathBuf>,
}

/// Locks and opens a process's data folder.
fn open_disk(data: &Path) -> anyhow::Result<Arc<dyn Disk>> {
    let disk = KernelDisk::open(data).with_context(|| format!("cannot open the data in {}", data.display()))?;
    Ok(Arc::new(disk))
}

/// 64 bits of chance: the keys of the standard library's hasher come from the operating system.
fn chance() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
