//! The service `diptych.peer.v1.Peer`: what nodes say to a node, and nodes and gateways to a master.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, future, stream};
use model::{AdminReply, AdminRequest, Refusal};
use protocol::{NodeMessage, ToMaster};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::frame;
use wire::peer::v1::{Frame, peer_server::Peer};

use crate::host::master::MasterHandle;
use crate::host::node::local::Local;
use crate::host::peers::{self, Peers, VERSION};
use crate::host::session;

/// Orders that wait for a node's stream.
const ORDERS: usize = 64;

type Frames = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

/// What a node serves to other nodes.
pub struct LinkService {
    local: Local,
    peers: Peers,
}

impl LinkService {
    /// Passes on to `local` what those say whom `peers` knows.
    pub fn new(local: Local, peers: Peers) -> LinkService {
        LinkService { local, peers }
    }
}

#[tonic::async_trait]
impl Peer for LinkService {
    type LinkStream = Frames;
    type SessionStream = Frames;

    async fn link(&self, request: Request<Streaming<Frame>>) -> Result<Response<Frames>, Status> {
        let mut frames = request.into_inner();
        let hello: peers::Hello = first(&mut frames).await?;
        self.peers.check(&hello)?;
        self.peers.met(hello.from, &hello.address);
        let local = self.local.clone();
        // Nothing is said on the way back, but its end tells the sender why nobody listens any more.
        let listening = async move {
            loop {
                match frames.message().await {
                    Ok(Some(frame)) => {
                        let bytes = frame.body.len();
                        match frame::decode::<Vec<NodeMessage>>(frame) {
                            Ok(messages) => local.hear(hello.from, messages, bytes).await,
                            Err(error) => return Some(Err(Status::from(error))),
                        }
                    }
                    Ok(None) => return None,
                    Err(status) => return Some(Err(status)),
                }
            }
        };
        Ok(Response::new(Box::pin(stream::once(listening).filter_map(future::ready))))
    }

    async fn session(&self, _: Request<Streaming<Frame>>) -> Result<Response<Frames>, Status> {
        Err(no_master())
    }

    async fn admin(&self, _: Request<Frame>) -> Result<Response<Frame>, Status> {
        Err(no_master())
    }
}

fn no_master() -> Status {
    Status::unimplemented("this is a storage node, not a master; look at --master")
}

/// What a master serves to nodes and gateways.
pub struct MasterService {
    master: MasterHandle,
}

impl MasterService {
    /// Passes on to `master`.
    pub fn new(master: MasterHandle) -> MasterService {
        MasterService { master }
    }
}

#[tonic::async_trait]
impl Peer for MasterService {
    type LinkStream = Frames;
    type SessionStream = Frames;

    async fn link(&self, _: Request<Streaming<Frame>>) -> Result<Response<Frames>, Status> {
        Err(Status::unimplemented("this is a master, not a storage node"))
    }

    async fn session(&self, request: Request<Streaming<Frame>>) -> Result<Response<Frames>, Status> {
        let mut reports = request.into_inner();
        let hello: session::Hello = first(&mut reports).await?;
        if hello.version != VERSION {
            return Err(Status::failed_precondition(format!(
                "node {} speaks version {} and the master version {VERSION}; run the same release on both",
                hello.node, hello.version
            )));
        }
        let (orders, outgoing) = mpsc::channel(ORDERS);
        let session = self.master.session(hello.node, orders);
        // Ends with the stream, and then the session: the master drops `orders`, and so the way back ends.
        tokio::spawn(async move {
            while let Ok(Some(report)) = reports.message().await {
                match frame::decode::<ToMaster>(report) {
                    Ok(report) => session.hear(report),
                    Err(error) => {
                        tracing::warn!(event = "session_broken", node = %hello.node, "{error}");
                        return;
                    }
                }
            }
        });
        let frames = ReceiverStream::new(outgoing).map(|order| Ok(frame::encode(&order)));
        Ok(Response::new(Box::pin(frames)))
    }

    async fn admin(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let request: AdminRequest = frame::decode(request.into_inner())?;
        let answer: Result<AdminReply, Refusal> = self.master.admin(request).await;
        Ok(Response::new(frame::encode(&answer)))
    }
}

async fn first<T: serde::de::DeserializeOwned>(frames: &mut Streaming<Frame>) -> Result<T, Status> {
    let frame = frames.message().await?.ok_or_else(|| Status::invalid_argument("the stream ended before it began"))?;
    Ok(frame::decode(frame)?)
}
