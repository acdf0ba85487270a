//! The network between masters: letters over gRPC, and who is where.
//!
//! ```text
//!   openraft ──▶ Line to a master ──Letter──▶ Post (gRPC, or a test's) ──▶ Mail::answer there ──▶ openraft
//! ```
//!
//! Every call ends within its time. Connections are kept and come back by themselves. Where a master is says the
//! group's membership, or the master itself, if it has written from elsewhere since.

use super::letters::{Answer, Ask, Letter, Reply, Sender, VERSION, snapshot};
use super::{Group, Machine, Member, Snapshot, Vote};
use client::Identity;
use futures_util::future::BoxFuture;
use model::ClusterId;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use wire::frame;
use wire::peer::v1::{Frame, peer_client::PeerClient};

/// How long another master may take to write and sync entries, and to take a snapshot.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// How letters travel. Its future may be dropped.
pub trait Post: Send + Sync + 'static {
    /// Brings the frame to the master there, and its answer back. The error says why not.
    fn send<'a>(&'a self, address: &'a str, frame: Frame) -> BoxFuture<'a, Result<Frame, String>>;
}

/// Letters over gRPC.
pub struct Grpc {
    identity: Identity,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Grpc {
    /// As this one.
    pub fn new(identity: Identity) -> Grpc {
        Grpc { identity, channels: Mutex::default() }
    }

    fn channel(&self, address: &str) -> Result<Channel, String> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| format!("{address} is no host:port: {error}"))?
            .connect_timeout(Duration::from_millis(500))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(3));
        let channel = endpoint.connect_lazy();
        channels.insert(String::from(address), channel.clone());
        Ok(channel)
    }
}

impl Post for Grpc {
    fn send<'a>(&'a self, address: &'a str, frame: Frame) -> BoxFuture<'a, Result<Frame, String>> {
        Box::pin(async move {
            let client = PeerClient::with_interceptor(self.channel(address)?, self.identity.clone());
            let mut client =
                client.max_decoding_message_size(frame::MAX_FRAME).max_encoding_message_size(frame::MAX_FRAME);
            let answer = client.consensus(frame).await;
            answer.map(tonic::Response::into_inner).map_err(|status| format!("{address}: {}", status.message()))
        })
    }
}

/// What a master knows of itself and of the others. Shared by all that writes and answers letters.
pub struct Mail {
    /// This master.
    pub me: Sender,
    /// The cluster, once it is founded.
    pub cluster: Arc<OnceLock<ClusterId>>,
    post: Arc<dyn Post>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The group, as of the newest membership in the log.
    members: BTreeMap<u64, Member>,
    /// Who has written, with which folder and from where.
    met: BTreeMap<u64, Member>,
    /// Why a master refused our last letter.
    refused: BTreeMap<u64, String>,
    /// When a leader last wrote.
    led: Option<Instant>,
}

impl Mail {
    /// Of this master.
    pub fn new(me: Sender, cluster: Arc<OnceLock<ClusterId>>, post: Arc<dyn Post>) -> Mail {
        Mail { me, cluster, post, known: Mutex::default() }
    }

    /// The group has these members now.
    pub fn learn(&self, members: BTreeMap<u64, Member>) {
        self.known.lock().members = members;
    }

    /// How long ago a leader wrote.
    pub fn led_ago(&self) -> Option<Duration> {
        self.known.lock().led.map(|at| at.elapsed())
    }

    /// Why another refuses this master's letters, if one does.
    pub fn refusal(&self) -> Option<String> {
        self.known.lock().refused.values().next().cloned()
    }

    /// What the membership should say of its members: folders that it does not know, addresses that have changed.
    pub fn corrections(&self) -> BTreeMap<u64, Member> {
        let known = self.known.lock();
        let mut met = known.met.clone();
        met.insert(self.me.id, Member { address: self.me.address.clone(), disk: self.me.disk });
        let wrong = |(id, member): (&u64, &Member)| {
            let present = met.get(id).filter(|present| *present != member)?;
            (member.disk == 0 || member.disk == present.disk).then(|| (*id, present.clone()))
        };
        known.members.iter().filter_map(wrong).collect()
    }

    /// Where the member is, as far as is known, and with which folder.
    fn member(&self, id: u64, otherwise: &Member) -> Member {
        let known = self.known.lock();
        let member = known.members.get(&id).unwrap_or(otherwise);
        let moved = known.met.get(&id).filter(|present| present.disk == member.disk);
        moved.unwrap_or(member).clone()
    }

    /// Asks a master. The error says why there is no answer.
    pub async fn ask(&self, to: u64, member: &Member, ask: Ask, patience: Duration) -> Result<Reply, String> {
        let letter = Letter {
            version: VERSION,
            cluster: self.cluster.get().copied(),
            from: self.me.clone(),
            to,
            to_disk: member.disk,
            ask,
        };
        let frame = frame::encode(&letter);
        drop(letter);
        if frame.body.len() > frame::MAX_BODY {
            return Err(format!("a letter of {} bytes; the limit is {}", frame.body.len(), frame::MAX_BODY));
        }
        let answer = timeout(patience, self.post.send(&member.address, frame)).await;
        let answer = answer.map_err(|_| format!("{}: no answer within {patience:?}", member.address))??;
        let reply: Reply = frame::decode(answer).map_err(|error| format!("{}: {error}", member.address))?;
        let mut known = self.known.lock();
        match &reply.answer {
            Ok(_) => {
                known.refused.remove(&to);
                if reply.from.id == to {
                    known.met.insert(to, Member { address: member.address.clone(), disk: reply.from.disk });
                }
            }
            Err(why) => drop(known.refused.insert(to, why.clone())),
        }
        drop(known);
        Ok(reply)
    }

    /// Reads another master's letter and answers.
    pub async fn answer(
        &self,
        raft: &openraft::Raft<Group, Machine>,
        frame: Frame,
    ) -> Result<Frame, frame::FrameError> {
        let letter: Letter = frame::decode(frame)?;
        let cluster = self.cluster.get().copied();
        let answer = match letter.check(&self.me, cluster) {
            Ok(()) => {
                self.meet(&letter);
                carry_out(raft, letter.ask).await
            }
            Err(why) => Err(why),
        };
        let founded = raft.is_initialized().await.unwrap_or(false);
        Ok(frame::encode(&Reply { cluster, from: self.me.clone(), founded, answer }))
    }

    fn meet(&self, letter: &Letter) {
        let mut known = self.known.lock();
        let Sender { id, disk, address } = letter.from.clone();
        known.met.insert(id, Member { address, disk });
        if matches!(letter.ask, Ask::Append(_) | Ask::Snapshot(..)) {
            known.led = Some(Instant::now());
        }
    }
}

async fn carry_out(raft: &openraft::Raft<Group, Machine>, ask: Ask) -> Result<Answer, String> {
    Ok(match ask {
        Ask::Hello => Answer::Hello,
        Ask::Append(append) => Answer::Append(raft.append_entries(append).await.map_err(|error| error.to_string())?),
        Ask::Vote(vote) => Answer::Vote(raft.vote(vote).await.map_err(|error| error.to_string())?),
        Ask::PreVote(vote) => Answer::Vote(raft.pre_vote(vote).await.map_err(|error| error.to_string())?),
        Ask::Snapshot(vote, meta, state) => {
            let taken = raft.install_full_snapshot(vote, snapshot(meta, state)).await;
            Answer::Snapshot(taken.map_err(|error| error.to_string())?)
        }
        Ask::Transfer(transfer) => {
            Answer::Transfer(raft.handle_transfer_leader(transfer).await.map_err(|error| error.to_string())?)
        }
    })
}

/// Makes the lines to other masters.
pub struct Lines(pub Arc<Mail>);

impl RaftNetworkFactory<Group> for Lines {
    type Network = Line;

    async fn new_client(&mut self, target: u64, member: &Member) -> Line {
        Line { mail: Arc::clone(&self.0), target, member: member.clone() }
    }
}

/// The line to one master.
pub struct Line {
    mail: Arc<Mail>,
    target: u64,
    /// As it was when the line was made.
    member: Member,
}

impl Line {
    async fn ask(&self, ask: Ask, patience: Duration) -> Result<Answer, Unreachable<Group>> {
        let member = self.mail.member(self.target, &self.member);
        let reply = self.mail.ask(self.target, &member, ask, patience).await;
        let answer = reply.and_then(|reply| reply.check(self.target, &member, self.mail.cluster.get().copied()));
        answer.map_err(Unreachable::from_string)
    }
}

fn other_answer() -> Unreachable<Group> {
    Unreachable::from_string("the answer is to another question")
}

impl RaftNetworkV2<Group> for Line {
    type SnapshotData = bytes::Bytes;

    async fn append_entries(
        &mut self,
        append: AppendEntriesRequest<Group>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Group>, RPCError<Group>> {
        match self.ask(Ask::Append(append), PATIENCE.0).await? {
            Answer::Append(answer) => Ok(answer),
            _ => Err(other_answer().into()),
        }
    }

    async fn vote(
        &mut self,
        vote: VoteRequest<Group>,
        option: RPCOption,
    ) -> Result<VoteResponse<Group>, RPCError<Group>> {
        match self.ask(Ask::Vote(vote), option.hard_ttl()).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(other_answer().into()),
        }
    }

    async fn pre_vote(
        &mut self,
        vote: VoteRequest<Group>,
        option: RPCOption,
    ) -> Result<VoteResponse<Group>, RPCError<Group>> {
        match self.ask(Ask::PreVote(vote), option.hard_ttl()).await? {
            Answer::Vote(answer) => Ok(answer),
            _ => Err(other_answer().into()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Group>, StreamingError<Group>> {
        let ask = self.ask(Ask::Snapshot(vote, snapshot.meta, snapshot.snapshot), PATIENCE.1);
        tokio::select! {
            closed = cancel => Err(closed.into()),
            answer = ask => match answer? {
                Answer::Snapshot(answer) => Ok(answer),
                _ => Err(other_answer().into()),
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        transfer: TransferLeaderRequest<Group>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Group>, RPCError<Group>> {
        match self.ask(Ask::Transfer(transfer), option.hard_ttl()).await? {
            Answer::Transfer(answer) => Ok(answer),
            _ => Err(other_answer().into()),
        }
    }
}
