//! The consensus below the master: openraft, with its log and snapshots on our disk.
//!
//! ```text
//!   master's thread ──propose──▶ Raft ──▶ log.rs (synced) ──committed──▶ machine.rs ──Apply──▶ master's thread
//!                                 └─────── leads / follows ──────────────────────────────────▶ master's thread
//! ```
//!
//! A group of one for now: [`Alone`] is where the network to other masters will be. Nothing here knows what a command
//! means, and the master knows nothing of Raft. Decision: `docs/decisions/0001`.

mod frames;
mod log;
mod machine;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use disk::Disk;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{Fatal, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::type_config::alias;
use openraft::{BasicNode, Config, RaftMetrics, ServerState, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;

pub use machine::{Machine, Thread};

openraft::declare_raft_types!(
    /// The types of our group: commands are opaque bytes, nodes are numbered, and a node has a gRPC address.
    pub Group:
        D = Command,
        R = (),
);

type Entry = alias::EntryOf<Group>;
type LogId = alias::LogIdOf<Group>;
type Vote = alias::VoteOf<Group>;
type StoredMembership = alias::StoredMembershipOf<Group>;
type SnapshotMeta = alias::SnapshotMetaOf<Group>;
type Snapshot = alias::SnapshotOf<Group, Bytes>;

/// A command of the master; opaque here.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command(pub Bytes);

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the consensus wants of the master's thread. The next comes only after the answer to the one before.
pub enum Apply {
    /// These commands are committed, in this order, at these places of the log.
    Committed(Vec<(u64, Bytes)>, oneshot::Sender<()>),
    /// The state, as of the last command.
    Snapshot(oneshot::Sender<Bytes>),
    /// This is the state now.
    Restore(Bytes, oneshot::Sender<Result<(), String>>),
}

/// A running member of the group.
#[derive(Clone)]
pub struct Consensus {
    raft: openraft::Raft<Group, Machine>,
}

impl Consensus {
    /// Recovers what is below the disk's root, or founds a group of one, and stands for election. The state is
    /// restored when it returns. The texts are for the operator.
    pub async fn start(disk: Arc<dyn Disk>, id: u64, thread: Thread) -> anyhow::Result<(Consensus, Option<String>)> {
        let (log, note) = log::Log::open(disk.clone())?;
        let config = Config {
            cluster_name: String::from("diptych"),
            heartbeat_interval: 100,
            election_timeout_min: 300,
            election_timeout_max: 600,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(4096),
            max_in_snapshot_log_to_keep: 512,
            // Each life leads in a term of its own: what it leads with is then applied before.
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        let config = Arc::new(config.validate()?);
        let raft = openraft::Raft::new(id, config, Alone, log, Machine::new(disk, thread)).await?;
        if raft.is_initialized().await? {
            raft.trigger().elect(false).await?;
        } else {
            raft.initialize(BTreeMap::from([(id, BasicNode::default())])).await?;
        }
        Ok((Consensus { raft }, note))
    }

    /// Brings a command to all members, if this one leads. It may get lost; what happens is told by [`Apply`].
    /// False if the consensus has stopped.
    pub async fn propose(&self, command: Bytes) -> bool {
        self.raft.client_write_ff(Command(command), None).await.is_ok()
    }

    /// Tells whenever this member begins to lead (in which term; all that was committed before is applied) and when
    /// it ceases to. Returns when the consensus stops, with the reason if it had to.
    pub async fn follow(&self, mut tell: impl FnMut(Option<u64>)) -> Option<String> {
        let mut metrics = self.raft.metrics();
        let mut told = None;
        loop {
            let standing = {
                let metrics = metrics.borrow_watched();
                match &metrics.running_state {
                    Ok(()) => leads(&metrics),
                    Err(Fatal::Stopped) => return None,
                    Err(fatal) => return Some(fatal.to_string()),
                }
            };
            if standing != told {
                tell(standing);
                told = standing;
            }
            if metrics.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Stops; what was proposed and is not committed may be lost.
    pub async fn stop(&self) {
        let _ = self.raft.shutdown().await;
    }
}

/// The term in which this member leads and has applied an entry of its own, and with it all entries before.
fn leads(metrics: &RaftMetrics<Group>) -> Option<u64> {
    let term = metrics.current_term;
    let applied = metrics.last_applied.is_some_and(|last| last.leader_id.term == term);
    (metrics.state == ServerState::Leader && applied).then_some(term)
}

/// The network of a group of one: there is nobody.
pub struct Alone;

fn nobody() -> Unreachable<Group> {
    Unreachable::from_string("this master has no other masters beside it; a group has one member as yet")
}

impl RaftNetworkFactory<Group> for Alone {
    type Network = Alone;

    async fn new_client(&mut self, _: u64, _: &BasicNode) -> Alone {
        Alone
    }
}

impl RaftNetworkV2<Group> for Alone {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Group>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Group>, RPCError<Group>> {
        Err(nobody().into())
    }

    async fn vote(&mut self, _: VoteRequest<Group>, _: RPCOption) -> Result<VoteResponse<Group>, RPCError<Group>> {
        Err(nobody().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Group>, StreamingError<Group>> {
        Err(nobody().into())
    }
}

/// How many frames a file has, and what the next start would repair.
pub type Frames = (u64, Option<String>);

/// Files of a master's folder with what was found in each. They are read into memory and opened there, so that nothing is changed.
pub fn check_files(disk: &dyn disk::Disk) -> Vec<(&'static str, std::io::Result<Frames>)> {
    let check = |name: &str| {
        let file = disk.open(name)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).map_err(std::io::Error::other)?];
        let read = file.read_at(0, &mut bytes)?;
        let copy = disk::MemDisk::new();
        disk::Disk::create(&copy, name)?.write_at(0, &bytes[..read])?;
        let mut frames = 0;
        let (_, note) = frames::Frames::open(&copy, name, |_| {
            frames += 1;
            Ok(())
        })?;
        match note {
            // It got its name when it was whole.
            Some(note) if name == "raft.snapshot" => Err(std::io::Error::other(note)),
            note => Ok((frames, note)),
        }
    };
    let there = ["raft.log", "raft.snapshot"].into_iter().filter(|name| disk.exists(name).unwrap_or(false));
    there.map(|name| (name, check(name))).collect()
}
