//! Streams between nodes: whoever has something to say opens one to the other's address, for its own messages only.
//!
//! ```text
//!   shard ──batches──▶ Outbox of the peer ──Hello, Vec<NodeMessage>, …──▶ Peer.Link there
//! ```
//!
//! Messages on one stream arrive in order or not at all. What cannot be sent is forgotten: the protocol says it again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use client::Identity;
use futures_util::{Stream, StreamExt, stream};
use model::{ClusterId, NodeId};
use parking_lot::Mutex;
use protocol::{GroupMessage, NodeMessage};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use wire::frame;
use wire::peer::v1::{Frame, peer_client::PeerClient};

/// Version of what processes of a cluster say to each other.
pub const VERSION: u32 = 3;
/// A frame is sent when it has so many bytes.
const FRAME_BYTES: usize = 4 << 20;
/// What may wait for one peer; beyond that, new messages are dropped.
const OUTBOX_BYTES: usize = 64 << 20;
/// Between attempts to reach a peer; doubles.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// First frame of a stream between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Must be [`VERSION`].
    pub version: u32,
    /// The sender's cluster.
    pub cluster: Option<ClusterId>,
    /// The sender.
    pub from: NodeId,
    /// Where the sender can be reached.
    pub address: String,
    /// Whom it means to speak to: another node may have taken over the address.
    pub to: NodeId,
}

/// Opens a connection between processes of the cluster.
pub async fn connect(address: &str) -> Result<Channel, String> {
    // A peer that vanished without a word, or was suspended, is noticed by the keep-alive within seconds.
    Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address} is no host:port: {error}"))?
        .connect_timeout(Duration::from_millis(500))
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(|error| format!("cannot reach {address}: {}", innermost(&error)))
}

/// The cause at the bottom says most.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// The other nodes. Clones share everything.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

struct Shared {
    me: NodeId,
    address: String,
    identity: Identity,
    cluster: OnceLock<ClusterId>,
    runtime: Handle,
    links: Mutex<BTreeMap<NodeId, Link>>,
}

struct Link {
    address: watch::Sender<String>,
    outbox: Arc<Outbox>,
}

impl Peers {
    /// Of the node `me` at `address`; streams live in the present runtime.
    pub fn new(me: NodeId, address: String, identity: Identity, cluster: Option<ClusterId>) -> Peers {
        let known = OnceLock::new();
        if let Some(cluster) = cluster {
            known.get_or_init(|| cluster);
        }
        let (runtime, links) = (Handle::current(), Mutex::default());
        Peers(Arc::new(Shared { me, address, identity, cluster: known, runtime, links }))
    }

    /// The master has said which cluster this is and where the nodes are.
    pub fn welcome(&self, cluster: ClusterId, directory: &[(NodeId, String)]) {
        self.0.cluster.get_or_init(|| cluster);
        for (node, address) in directory {
            self.met(*node, address);
        }
    }

    /// The node can be reached there.
    pub fn met(&self, node: NodeId, address: &str) {
        if node == self.0.me {
            return;
        }
        let mut links = self.0.links.lock();
        if let Some(link) = links.get(&node) {
            link.address.send_if_modified(|known| {
                let moved = known != address;
                if moved {
                    *known = String::from(address);
                }
                moved
            });
            return;
        }
        let (sender, addresses) = watch::channel(String::from(address));
        let outbox = Arc::<Outbox>::default();
        self.0.runtime.spawn(keep(self.clone(), node, addresses, Arc::clone(&outbox)));
        links.insert(node, Link { address: sender, outbox });
    }

    /// Says it to the node, if it can be reached.
    pub fn send(&self, to: NodeId, messages: Vec<NodeMessage>) {
        if let Some(link) = self.0.links.lock().get(&to) {
            link.outbox.push(messages);
        }
    }

    /// Is the one who says hello whom we may listen to?
    pub fn check(&self, hello: &Hello) -> Result<(), Status> {
        let Hello { version, cluster, from, to, .. } = hello;
        let me = self.0.me;
        if *version != VERSION {
            return Err(Status::failed_precondition(format!(
                "node {from} speaks version {version} and node {me} version {VERSION}; run the same release on both"
            )));
        }
        if *to != me {
            return Err(Status::failed_precondition(format!("this is node {me}, not {to}")));
        }
        match (cluster, self.0.cluster.get()) {
            (Some(theirs), Some(ours)) if theirs != ours => Err(Status::failed_precondition(format!(
                "node {from} belongs to cluster {theirs} and node {me} to cluster {ours}"
            ))),
            _ => Ok(()),
        }
    }

    fn hello(&self, to: NodeId) -> Hello {
        let Shared { me, address, cluster, .. } = &*self.0;
        Hello { version: VERSION, cluster: cluster.get().copied(), from: *me, address: address.clone(), to }
    }
}

/// Keeps a stream to a peer while there is something to say to it.
async fn keep(peers: Peers, to: NodeId, mut addresses: watch::Receiver<String>, outbox: Arc<Outbox>) {
    let mut pause = PAUSES.0;
    let mut reported = false;
    loop {
        outbox.open();
        outbox.filled().await;
        let address = addresses.borrow_and_update().clone();
        let begun = Instant::now();
        let (met, why) = talk(&peers, to, &address, &outbox).await;
        outbox.close();
        if met || !reported {
            tracing::info!(event = "peer_lost", peer = %to, address, "{why}");
            reported = true;
        }
        if met && begun.elapsed() > PAUSES.1 {
            pause = PAUSES.0;
        }
        tokio::select! {
            () = sleep(pause) => {}
            moved = addresses.changed() => {
                if moved.is_err() {
                    return;
                }
            }
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// One stream, from its beginning to its end: whether the peer accepted it, and why it ended.
async fn talk(peers: &Peers, to: NodeId, address: &str, outbox: &Arc<Outbox>) -> (bool, String) {
    let channel = match connect(address).await {
        Ok(channel) => channel,
        Err(why) => return (false, why),
    };
    let hello = frame::encode(&peers.hello(to));
    let outgoing = stream::iter([hello]).chain(Arc::clone(outbox).frames());
    let mut answers = match PeerClient::with_interceptor(channel, peers.0.identity.clone()).link(outgoing).await {
        Ok(response) => response.into_inner(),
        Err(status) => return (false, String::from(status.message())),
    };
    tracing::info!(event = "peer_found", peer = %to, address, "linked");
    // Nothing is said on this way back; that it ends is the news.
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return (true, format!("{address} has closed the stream")),
            Err(status) => return (true, String::from(status.message())),
        }
    }
}

/// Messages on their way to one peer.
#[derive(Debug, Default)]
struct Outbox {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<(usize, Vec<NodeMessage>)>,
    bytes: usize,
    /// Closed while the peer is known not to be there: then everything is dropped.
    open: bool,
    /// Number of the present stream; an older one gets nothing more.
    stream: u64,
}

impl Outbox {
    fn push(&self, messages: Vec<NodeMessage>) {
        let bytes = messages.iter().map(weight).sum();
        let mut waiting = self.waiting.lock();
        if !waiting.open || waiting.bytes + bytes > OUTBOX_BYTES.max(bytes) {
            return;
        }
        waiting.bytes += bytes;
        waiting.batches.push_back((bytes, messages));
        drop(waiting);
        self.filled.notify_one();
    }

    fn open(&self) {
        self.waiting.lock().open = true;
    }

    fn close(&self) {
        let mut waiting = self.waiting.lock();
        let stream = waiting.stream + 1;
        *waiting = Waiting { stream, ..Waiting::default() };
        drop(waiting);
        // Lets the old stream see that it is over.
        self.filled.notify_one();
    }

    /// Waits until there is something to say.
    async fn filled(&self) {
        while self.waiting.lock().batches.is_empty() {
            self.filled.notified().await;
        }
    }

    /// The frames of a new stream, until the outbox is closed.
    fn frames(self: Arc<Self>) -> impl Stream<Item = Frame> + Send + 'static {
        let number = self.waiting.lock().stream;
        stream::unfold(self, move |outbox| async move {
            let messages = outbox.next(number).await?;
            Some((frame::encode(&messages), outbox))
        })
    }

    /// All that waits, up to a frame's worth.
    async fn next(&self, number: u64) -> Option<Vec<NodeMessage>> {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if waiting.stream != number {
                    // The call was for our successor.
                    self.filled.notify_one();
                    return None;
                }
                if let Some(messages) = waiting.take() {
                    return Some(messages);
                }
            }
            self.filled.notified().await;
        }
    }
}

impl Waiting {
    fn take(&mut self) -> Option<Vec<NodeMessage>> {
        let (mut total, mut messages) = self.batches.pop_front()?;
        while let Some((bytes, _)) = self.batches.front()
            && total + bytes <= FRAME_BYTES
        {
            total += bytes;
            messages.extend(self.batches.pop_front().map(|(_, more)| more).unwrap_or_default());
        }
        self.bytes -= total;
        Some(messages)
    }
}

/// Roughly the bytes of a message.
fn weight(message: &NodeMessage) -> usize {
    const OVERHEAD: usize = 32;
    OVERHEAD
        + match message {
            NodeMessage::Group(_, GroupMessage::Prepare { entries, .. }) => {
                entries.iter().map(|entry| entry.payload.len() + OVERHEAD).sum()
            }
            NodeMessage::Group(_, GroupMessage::Chunk { bytes, .. }) => bytes.len(),
            NodeMessage::Group(_, GroupMessage::Offer { note, files, .. }) => note.len() + files.len() * OVERHEAD,
            NodeMessage::Group(..) => 0,
            NodeMessage::Beacon { groups, gone, .. } => (groups.len() + gone.len()) * OVERHEAD,
            NodeMessage::BeaconAck { groups, without, .. } => (groups.len() + without.len()) * OVERHEAD,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Epoch, TabletId};

    fn stale(epoch: u32) -> NodeMessage {
        NodeMessage::Group(TabletId(1), GroupMessage::Stale { epoch: Epoch(epoch) })
    }

    fn chunk(len: usize) -> NodeMessage {
        let bytes = vec![0; len].into();
        NodeMessage::Group(TabletId(1), GroupMessage::Chunk { attempt: 1, file: 0, offset: 0, bytes })
    }

    /// One frame for all that has gathered, in order; a new frame when it is full.
    #[test]
    fn messages_gather_up_to_a_frame() {
        let outbox = Outbox::default();
        outbox.open();
        outbox.push(vec![stale(1), stale(2)]);
        outbox.push(vec![stale(3)]);
        outbox.push(vec![chunk(FRAME_BYTES)]);
        let mut waiting = outbox.waiting.lock();
        assert_eq!(waiting.take(), Some(vec![stale(1), stale(2), stale(3)]));
        assert_eq!(waiting.take(), Some(vec![chunk(FRAME_BYTES)]));
        assert_eq!((waiting.take(), waiting.bytes), (None, 0));
    }

    /// Memory is bounded, also when the peer does not take anything.
    #[test]
    fn a_full_or_closed_outbox_drops() {
        let outbox = Outbox::default();
        outbox.push(vec![stale(1)]);
        assert!(outbox.waiting.lock().batches.is_empty());
        outbox.open();
        (0..20).for_each(|_| outbox.push(vec![chunk(8 << 20)]));
        assert!(outbox.waiting.lock().bytes <= OUTBOX_BYTES);
        outbox.close();
        assert_eq!(outbox.waiting.lock().bytes, 0);
    }

    /// A stream that broke must not take messages from its successor.
    #[tokio::test]
    async fn an_old_stream_ends_when_a_new_one_begins() {
        let outbox = Arc::<Outbox>::default();
        outbox.open();
        let mut old = Box::pin(Arc::clone(&outbox).frames());
        outbox.close();
        outbox.open();
        let mut new = Box::pin(Arc::clone(&outbox).frames());
        outbox.push(vec![stale(7)]);
        assert_eq!(old.next().await, None);
        let frame = new.next().await.unwrap();
        assert_eq!(frame::decode::<Vec<NodeMessage>>(frame).unwrap(), vec![stale(7)]);
    }

    /// Whoever took over an address, or comes from elsewhere, is told so.
    #[tokio::test]
    async fn strangers_are_turned_away() {
        let peers = Peers::new(NodeId(1), String::from("h:1"), Identity::default(), Some(ClusterId(7)));
        let good = Hello {
            version: VERSION,
            cluster: Some(ClusterId(7)),
            from: NodeId(2),
            address: String::from("h:2"),
            to: NodeId(1),
        };
        assert!(peers.check(&good).is_ok());
        assert!(peers.check(&Hello { cluster: None, ..good.clone() }).is_ok());
        assert!(peers.check(&Hello { cluster: Some(ClusterId(8)), ..good.clone() }).is_err());
        assert!(peers.check(&Hello { to: NodeId(3), ..good.clone() }).is_err());
        assert!(peers.check(&Hello { version: VERSION + 1, ..good }).is_err());
    }
}
