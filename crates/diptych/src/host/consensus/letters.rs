//! What masters say to each other, and how that is checked before the consensus hears it.
//!
//! ```text
//!   Letter { version, cluster, from, to, to_disk, ask }  ──Peer.Consensus──▶  Reply { cluster, from, founded, answer }
//! ```
//!
//! A letter is for one master with one data folder: a process that took over an address, belongs to another cluster, or
//! came back with an empty folder refuses, and whoever wrote hears why. So no master counts twice, and none whose disk
//! has forgotten what it promised counts at all (openraft: node ids must not be reused). A letter that came through is
//! still looked at: what no member of a group can say would make the consensus stop.

use super::{Entry, Group, LogId, Member, Snapshot, SnapshotMeta, Vote};
use bytes::Bytes;
use model::ClusterId;
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

/// Version of what masters say to each other.
pub const VERSION: u32 = 2;

/// A master says who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// Its number.
    pub id: u64,
    /// Its data folder.
    pub disk: u64,
    /// Where it serves gRPC.
    pub address: String,
}

/// One master asks another.
#[derive(Serialize, Deserialize)]
pub struct Letter {
    /// Must be [`VERSION`].
    pub version: u32,
    /// The sender's cluster, if it belongs to one.
    pub cluster: Option<ClusterId>,
    /// The sender.
    pub from: Sender,
    /// For whom this is.
    pub to: u64,
    /// With which data folder; 0 if the sender does not know.
    pub to_disk: u64,
    /// What it asks.
    pub ask: Ask,
}

/// What one master asks another. New kinds go to the end.
#[derive(Serialize, Deserialize)]
pub enum Ask {
    /// Who are you?
    Hello,
    /// The leader's log.
    Append(AppendEntriesRequest<Group>),
    /// A candidate asks for a vote.
    Vote(VoteRequest<Group>),
    /// Would you vote for me? Promises nothing.
    PreVote(VoteRequest<Group>),
    /// The state, for whoever lacks too much of the log.
    Snapshot(Vote, SnapshotMeta, Bytes),
    /// Lead in my place.
    Transfer(TransferLeaderRequest<Group>),
}

/// The answer to a [`Letter`].
#[derive(Serialize, Deserialize)]
pub struct Reply {
    /// The cluster of whoever answers.
    pub cluster: Option<ClusterId>,
    /// Who answers.
    pub from: Sender,
    /// Does it belong to a group of masters already?
    pub founded: bool,
    /// What it says, or why it does not.
    pub answer: Result<Answer, String>,
}

/// What a master answers. New kinds go to the end.
#[derive(Serialize, Deserialize)]
pub enum Answer {
    /// To a hello: the rest of the reply says it all.
    Hello,
    /// To an append.
    Append(AppendEntriesResponse<Group>),
    /// To both kinds of votes.
    Vote(VoteResponse<Group>),
    /// To a snapshot.
    Snapshot(SnapshotResponse<Group>),
    /// To a transfer.
    Transfer(TransferLeaderResponse<Group>),
}

impl Letter {
    /// Whether it is for this master of this cluster, and can be meant.
    pub fn check(&self, me: &Sender, cluster: Option<ClusterId>) -> Result<(), String> {
        let (from, me_id) = (self.from.id, me.id);
        if self.version != VERSION {
            return Err(format!(
                "master {from} speaks version {} and this one {VERSION}; run one release",
                self.version
            ));
        }
        if self.to != me_id {
            return Err(format!("this is master {me_id}, not {}; look at the masters' addresses", self.to));
        }
        if from == me_id {
            return Err(format!("two masters have the id {me_id}; give each its own"));
        }
        if let (Some(ours), Some(theirs)) = (cluster, self.cluster)
            && ours != theirs
        {
            return Err(format!("this is a master of cluster {ours}, not of {theirs}"));
        }
        if self.to_disk != 0 && self.to_disk != me.disk {
            return Err(format!(
                "master {me_id} belongs to the group with another data folder than it has now; give it that folder back, \
                 or remove it and add it again"
            ));
        }
        match &self.ask {
            Ask::Append(append) => check_entries(append.prev_log_id, &append.entries),
            Ask::Snapshot(vote, meta, _) => check_snapshot(vote, meta),
            Ask::Hello | Ask::Vote(_) | Ask::PreVote(_) | Ask::Transfer(_) => Ok(()),
        }
    }
}

impl Reply {
    /// The answer, if it is of the member that was asked.
    pub fn check(self, to: u64, member: &Member, cluster: Option<ClusterId>) -> Result<Answer, String> {
        let answer = self.answer?;
        if self.from.id != to {
            return Err(format!("{} is master {}, not {to}", member.address, self.from.id));
        }
        if member.disk != 0 && member.disk != self.from.disk {
            return Err(format!("master {to} has another data folder than the one that belongs to the group"));
        }
        match (cluster, self.cluster) {
            (Some(ours), Some(theirs)) if ours != theirs => Err(format!("{} is of cluster {theirs}", member.address)),
            _ => Ok(answer),
        }
    }
}

/// Entries of a log are dense, and a membership names who votes, and where they are.
fn check_entries(before: Option<LogId>, entries: &[Entry]) -> Result<(), String> {
    let mut last = before;
    for entry in entries {
        let expected = last.map_or(0, |last| last.index.saturating_add(1));
        if entry.log_id.index != expected || last.is_some_and(|last| last.leader_id > entry.log_id.leader_id) {
            return Err(format!("entry {:?} cannot follow {last:?}", entry.log_id));
        }
        if let EntryPayload::Membership(members) = &entry.payload {
            let voters = members.voter_ids().count();
            if voters == 0 || members.voter_ids().any(|id| members.get_node(&id).is_none()) {
                return Err(String::from("a membership without voters, or without their addresses"));
            }
        }
        last = Some(entry.log_id);
    }
    Ok(())
}

/// No leader has a snapshot of later than its own term.
fn check_snapshot(vote: &Vote, meta: &SnapshotMeta) -> Result<(), String> {
    match meta.last_log_id {
        Some(last) if last.leader_id > *vote.leader_id() => {
            Err(format!("a snapshot up to {last:?} is later than its sender, {vote:?}"))
        }
        _ => Ok(()),
    }
}

/// A snapshot in a letter.
pub fn snapshot(meta: SnapshotMeta, state: Bytes) -> Snapshot {
    Snapshot { meta, snapshot: state }
}
