//! The consensus below the master: openraft, with its log and snapshots on our disk, and the other masters.
//!
//! ```text
//!   master's thread ──propose──▶ Raft ──▶ log.rs (synced) ──committed──▶ machine.rs ──Apply──▶ master's thread
//!                                │ ▲└──── leads / follows ──────────────────────────────────▶ master's thread
//!                                ▼ │
//!                             network.rs ◀──letters──▶ other masters
//! ```
//!
//! Nothing here knows what a command means, and the master knows nothing of Raft. Who belongs to the group stands in
//! the log ([`Member`]); [`members`] founds the group and changes it. Decision: `docs/decisions/0001`.

mod frames;
mod gauges;
mod identity;
mod letters;
mod log;
mod machine;
pub mod members;
pub mod network;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use disk::Disk;
use model::ClusterId;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use openraft::type_config::alias;
use openraft::{Config, RaftMetrics, ServerState, SnapshotPolicy};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;
use wire::frame::FrameError;
use wire::peer::v1::Frame;

use letters::Sender;
use members::Founding;
use network::{Lines, Mail, Post};

pub use machine::{Machine, Thread};

/// A leader says so to all others this often.
const HEARTBEAT: Duration = Duration::from_millis(150);
/// Whoever hears no leader for a time between these two stands for election. Before the second has passed nobody
/// votes for another, so it is also how long a leader that hears no majority may still believe that it leads.
const ELECTION: (Duration, Duration) = (Duration::from_millis(450), Duration::from_millis(750));
/// A standing is looked at this often, even if nothing happens.
const GLANCE: Duration = Duration::from_millis(100);

openraft::declare_raft_types!(
    /// The types of our group: commands are opaque bytes, nodes are numbered, and a node has a gRPC address.
    pub Group:
        D = Command,
        R = (),
        Node = Member,
);

type Entry = alias::EntryOf<Group>;
type LogId = alias::LogIdOf<Group>;
type Vote = alias::VoteOf<Group>;
type StoredMembership = alias::StoredMembershipOf<Group>;
type SnapshotMeta = alias::SnapshotMetaOf<Group>;
type Snapshot = alias::SnapshotOf<Group, Bytes>;

/// A master as the group knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where it serves gRPC.
    pub address: String,
    /// Drawn when its folder was first used: a wiped folder must not pass for the one that voted. 0 until the group
    /// has heard of it.
    pub disk: u64,
}

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

/// What a member of the group needs to begin.
pub struct Beginning {
    /// Its number.
    pub id: u64,
    /// Where the other masters reach it.
    pub address: String,
    /// How it comes to a group, if its folder is empty.
    pub founding: Founding,
    /// The cluster, once the master's thread knows it.
    pub cluster: Arc<OnceLock<ClusterId>>,
    /// How letters travel.
    pub post: Arc<dyn Post>,
}

/// How a member stands in its group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The term in which it leads, and has applied all that was committed before.
    pub leads: Option<u64>,
    /// Who leads, as far as this member has heard, and where.
    pub leader: Option<(u64, String)>,
    /// Where all members are.
    pub members: Vec<String>,
    /// Why others refuse what this member says, if nobody leads that it hears of.
    pub refused: Option<String>,
}

/// A running member of the group.
#[derive(Clone)]
pub struct Consensus {
    raft: openraft::Raft<Group, Machine>,
    mail: Arc<Mail>,
    /// Held while the membership changes.
    changing: Arc<tokio::sync::Mutex<()>>,
}

impl Consensus {
    /// Recovers what is below the disk's root, or comes to a group as told, and takes part. The state is restored
    /// when it returns. The texts are for the operator.
    pub async fn start(
        disk: Arc<dyn Disk>,
        beginning: Beginning,
        thread: Thread,
    ) -> anyhow::Result<(Consensus, Option<String>)> {
        let Beginning { id, address, founding, cluster, post } = beginning;
        let folder = identity::of(&*disk, id)?;
        let (log, note) = log::Log::open(disk.clone())?;
        let config = Config {
            cluster_name: String::from("diptych"),
            heartbeat_interval: HEARTBEAT.as_millis() as u64,
            election_timeout_min: ELECTION.0.as_millis() as u64,
            election_timeout_max: ELECTION.1.as_millis() as u64,
            install_snapshot_timeout: 10_000,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(4096),
            max_in_snapshot_log_to_keep: 512,
            backoff: String::from("100ms 200ms ..500ms"),
            enable_pre_vote: Some(true),
            // Each life leads in a term of its own: what it leads with is then applied before.
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        let config = Arc::new(config.validate()?);
        let mail = Arc::new(Mail::new(Sender { id, disk: folder, address }, cluster, post));
        let lines = Lines(Arc::clone(&mail));
        let raft = openraft::Raft::new(id, config, lines, log, Machine::new(disk, thread)).await?;
        let consensus = Consensus { raft, mail, changing: Arc::default() };
        consensus.begin(founding).await?;
        Ok((consensus, note))
    }

    /// Brings a command to all members, if this one leads. It may get lost; what happens is told by [`Apply`].
    /// False if the consensus has stopped.
    pub async fn propose(&self, command: Bytes) -> bool {
        self.raft.client_write_ff(Command(command), None).await.is_ok()
    }

    /// Another master's letter, and the answer.
    pub async fn answer(&self, letter: Frame) -> Result<Frame, FrameError> {
        self.mail.answer(&self.raft, letter).await
    }

    /// Tells whenever this member begins to lead (all that was committed before is applied), when it ceases to, and
    /// when another leads. Returns when the consensus stops, with the reason if it had to.
    pub async fn follow(&self, mut tell: impl FnMut(&Standing)) -> Option<String> {
        let mut metrics = self.raft.metrics();
        let mut told = Standing::default();
        loop {
            let standing = {
                let metrics = metrics.borrow_watched();
                match &metrics.running_state {
                    Ok(()) => self.standing(&metrics),
                    Err(Fatal::Stopped) => return None,
                    Err(fatal) => return Some(fatal.to_string()),
                }
            };
            if standing != told {
                tell(&standing);
                told = standing;
            }
            // Also when nothing happens: a leader that nobody answers must notice it.
            if let Ok(Err(_)) = timeout(GLANCE, metrics.changed()).await {
                return None;
            }
        }
    }

    fn standing(&self, metrics: &RaftMetrics<Group>) -> Standing {
        let members = metrics.membership_config.membership();
        self.mail.learn(members.nodes().map(|(id, member)| (*id, member.clone())).collect());
        let leads = leads(metrics);
        let heard = leads.is_some() || self.mail.led_ago().is_some_and(|ago| ago < ELECTION.1);
        let leader = metrics.current_leader.filter(|id| heard && (*id != metrics.id || leads.is_some()));
        let known = |id| Some((id, members.get_node(&id)?.address.clone()));
        let leader = leader.and_then(known);
        let refused = self.mail.refusal().filter(|_| leader.is_none());
        let members = members.nodes().map(|(_, member)| member.address.clone()).collect();
        Standing { leads, leader, members, refused }
    }

    /// Stops; what was proposed and is not committed may be lost.
    pub async fn stop(&self) {
        let _ = self.raft.shutdown().await;
    }
}

/// The term in which this member leads, has been heard by a majority lately, and has applied an entry of its own, and
/// with it all entries before. A term may have two leaders, one after the other: the entry must be this one's.
fn leads(metrics: &RaftMetrics<Group>) -> Option<u64> {
    let applied = metrics.last_applied.is_some_and(|last| last.leader_id == *metrics.vote.leader_id());
    let alone = metrics.membership_config.voter_ids().all(|id| id == metrics.id);
    let heard = alone || metrics.last_quorum_acked.is_some_and(|at| openraft::Instant::elapsed(&*at) < ELECTION.1);
    (metrics.state == ServerState::Leader && applied && heard).then_some(metrics.current_term)
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
