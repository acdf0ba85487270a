//! A node's stream to the master: reports one way, orders the other.
//!
//! The node keeps serving while there is none. The master that leads is tried first, if one is known, and else all in
//! turn: one that does not lead says who does. A master that says nothing for a while (it hangs) is left for the next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use client::Identity;
use futures_util::{Stream, StreamExt, stream};
use model::NodeId;
use parking_lot::Mutex;
use protocol::{FromMaster, ToMaster};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tonic::Status;
use wire::frame;
use wire::peer::v1::{Frame, peer_client::PeerClient};

use super::Health;
use super::inbox::Inbox;
use super::node::shard::Arrival;
use super::peers::{Peers, VERSION, connect};
use crate::masters::{self, Masters};

/// Reports that wait for a stream, beside the heartbeat.
const REPORTS: usize = 16_384;
/// Between attempts; doubles up to the second of these.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(100));

/// First frame of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Of what the two say to each other.
    pub version: u32,
    /// Who speaks.
    pub node: NodeId,
}

/// What a master says on a session. New kinds go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// Of the master as the machine that it is.
    Order(FromMaster),
    /// Where all masters are, at the beginning and whenever it changes.
    Masters(Vec<String>),
}

/// Reports on their way to the master. Of heartbeats only the newest is kept, of others the newest few: both are said
/// again.
#[derive(Debug, Default)]
pub struct Reports {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    heartbeat: Option<ToMaster>,
    others: VecDeque<ToMaster>,
    /// Number of the present stream; an older one gets nothing more.
    stream: u64,
}

impl Reports {
    /// Says it to the master as soon as there is one.
    pub fn push(&self, report: ToMaster) {
        let mut waiting = self.waiting.lock();
        match report {
            ToMaster::Heartbeat { .. } => waiting.heartbeat = Some(report),
            ToMaster::Propose(..)
            | ToMaster::Events { .. }
            | ToMaster::Divided { .. }
            | ToMaster::Undivided { .. }
            | ToMaster::Closed { .. }
            | ToMaster::Merged { .. }
            | ToMaster::Unmerged { .. }
            | ToMaster::Buried(_) => {
                if matches!(report, ToMaster::Events { .. }) {
                    // It is said again until it is kept.
                    waiting.others.retain(|other| !matches!(other, ToMaster::Events { .. }));
                }
                if waiting.others.len() == REPORTS {
                    waiting.others.pop_front();
                }
                waiting.others.push_back(report);
            }
        }
        drop(waiting);
        self.filled.notify_one();
    }

    /// The frames of a new stream; one that went before ends.
    fn frames(self: Arc<Self>) -> impl Stream<Item = Frame> + Send + 'static {
        let number = {
            let mut waiting = self.waiting.lock();
            waiting.stream += 1;
            waiting.stream
        };
        self.filled.notify_one();
        stream::unfold(self, move |reports| async move {
            let report = reports.next(number).await?;
            Some((frame::encode(&report), reports))
        })
    }

    async fn next(&self, number: u64) -> Option<ToMaster> {
        loop {
            {
                let mut waiting = self.waiting.lock();
                if waiting.stream != number {
                    // The call was for our successor.
                    self.filled.notify_one();
                    return None;
                }
                if let Some(report) = waiting.heartbeat.take().or_else(|| waiting.others.pop_front()) {
                    return Some(report);
                }
            }
            self.filled.notified().await;
        }
    }
}

/// A node's way to its masters.
pub struct Session {
    /// Which node.
    pub node: NodeId,
    /// Where the masters are.
    pub masters: Masters,
    /// As whom it comes.
    pub identity: Identity,
    /// A master that has not said a word for so long is not the one; it answers every heartbeat.
    pub silence: Duration,
    /// What it says.
    pub reports: Arc<Reports>,
    /// Who hears the orders.
    pub shard: Arc<Inbox<Arrival>>,
    /// Learns who is where.
    pub peers: Peers,
    /// Check `master`: passes from the first welcome on, because the node goes on to serve when the master is away.
    pub health: Health,
}

impl Session {
    /// Keeps a stream to a master for as long as the process lives.
    pub async fn keep(self) {
        let mut pause = PAUSES.0;
        let mut lost = false;
        for turn in 0.. {
            let Some(master) = self.masters.pick(turn) else { return };
            let mut heard = false;
            let why = self.talk(&master, &mut heard).await;
            if heard {
                tracing::info!(event = "master_lost", master, "{why}; reads and writes go on");
                pause = PAUSES.0;
            } else if !lost {
                tracing::info!(event = "master_awaited", master, "{why}");
            }
            self.masters.not_led_by(&master);
            lost = true;
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// One stream, from its beginning to its end, and why it ended. A leader that it was told of is noted.
    async fn talk(&self, master: &str, heard: &mut bool) -> String {
        let channel = match connect(master).await {
            Ok(channel) => channel,
            Err(why) => return why,
        };
        let mut client =
            PeerClient::with_interceptor(channel, self.identity.clone()).max_decoding_message_size(frame::MAX_FRAME);
        let hello = frame::encode(&Hello { version: VERSION, node: self.node });
        let outgoing = stream::iter([hello]).chain(Arc::clone(&self.reports).frames());
        let mut orders = match timeout(self.silence, client.session(outgoing)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return self.refused(&status),
            Err(_) => return format!("{master} does not answer"),
        };
        loop {
            match timeout(self.silence, orders.message()).await {
                Ok(Ok(Some(order))) => {
                    if let Err(status) = self.take(master, order, heard) {
                        return String::from(status.message());
                    }
                }
                Ok(Ok(None)) => return format!("{master} has ended the session"),
                Ok(Err(status)) => return self.refused(&status),
                Err(_) => return format!("{master} has said nothing for {:?}", self.silence),
            }
        }
    }

    fn refused(&self, status: &Status) -> String {
        if let Some(leader) = masters::hint_in(status.metadata()) {
            self.masters.led_by(&leader);
        }
        String::from(status.message())
    }

    fn take(&self, master: &str, order: Frame, heard: &mut bool) -> Result<(), Status> {
        let order = match frame::decode(order)? {
            Word::Order(order) => order,
            Word::Masters(addresses) => {
                self.masters.are_at(addresses);
                return Ok(());
            }
        };
        if let FromMaster::Welcome { cluster, directory, .. } = &order {
            self.peers.welcome(*cluster, directory);
            self.health.set("master", Ok(()));
            self.masters.led_by(master);
            if !*heard {
                tracing::info!(event = "master_found", master, %cluster, "the master has welcomed this node");
            }
            *heard = true;
        }
        self.shard.push(Arrival::Order(order));
        Ok(())
    }
}
