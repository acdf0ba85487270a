//! The service `diptych.peer.v1.Peer`: what nodes say to a node, and nodes and gateways to a master.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, future, stream};
use model::{AdminReply, AdminRequest, CheckpointOrder, Refusal};
use protocol::{FromMaster, NodeMessage, ToMaster};
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status, Streaming};
use wire::frame;
use wire::peer::v1::{Frame, peer_server::Peer};

use crate::host::master::{Led, MasterHandle};
use crate::host::node::local::Local;
use crate::host::peers::{self, Peers, VERSION};
use crate::host::session::{self, Word};
use crate::masters;

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

    async fn checkpoint(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let order: CheckpointOrder = frame::decode(request.into_inner())?;
        Ok(Response::new(frame::encode(&self.local.order(order).await)))
    }

    async fn consensus(&self, _: Request<Frame>) -> Result<Response<Frame>, Status> {
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
        let standing = self.master.standing();
        if standing.leads.is_none() {
            return Err(does_not_lead(standing.leader));
        }
        let (orders, outgoing) = mpsc::channel(ORDERS);
        let session = self.master.session(hello.node, orders);
        let deposed = self.master.deposed();
        // Ends with the stream, and then the session: the master drops `orders`, and so the way back ends. Also when
        // this master ceases to lead: the node has to find the one that does.
        tokio::spawn(async move {
            tokio::pin!(deposed);
            loop {
                let report = tokio::select! {
                    report = reports.message() => report,
                    () = &mut deposed => return,
                };
                let Ok(Some(report)) = report else { return };
                match frame::decode::<ToMaster>(report) {
                    Ok(report) => session.hear(report),
                    Err(error) => {
                        tracing::warn!(event = "session_broken", node = %hello.node, "{error}");
                        return;
                    }
                }
            }
        });
        let words = words(outgoing, self.master.watch()).map(|word| Ok(frame::encode(&word)));
        Ok(Response::new(Box::pin(words)))
    }

    async fn admin(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let request: AdminRequest = frame::decode(request.into_inner())?;
        let answer: Result<AdminReply, Refusal> = self.master.admin(request).await;
        let mut response = Response::new(frame::encode(&answer));
        let standing = self.master.standing();
        if let (None, Some(leader)) = (standing.leads, standing.leader) {
            masters::hint_at(&leader, response.metadata_mut());
        }
        Ok(response)
    }

    async fn checkpoint(&self, _: Request<Frame>) -> Result<Response<Frame>, Status> {
        Err(Status::unimplemented("this is a master, not a storage node: it keeps no tablets"))
    }

    async fn consensus(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let consensus = self.master.consensus().ok_or_else(|| Status::unavailable("this master is starting"))?;
        Ok(Response::new(consensus.answer(request.into_inner()).await?))
    }
}

/// The orders until they end, and between them where the masters are: first, and whenever that has changed.
fn words(orders: mpsc::Receiver<FromMaster>, standing: watch::Receiver<Led>) -> impl Stream<Item = Word> + Send {
    stream::unfold((orders, standing, Vec::new()), |(mut orders, mut standing, told)| async move {
        loop {
            let masters = standing.borrow_and_update().masters.clone();
            if masters != told && !masters.is_empty() {
                return Some((Word::Masters(masters.clone()), (orders, standing, masters)));
            }
            tokio::select! {
                order = orders.recv() => return Some((Word::Order(order?), (orders, standing, told))),
                changed = standing.changed() => changed.ok()?,
            }
        }
    })
}

fn does_not_lead(leader: Option<String>) -> Status {
    let Some(leader) = leader else {
        return Status::unavailable("this master does not lead, and has heard of none that does");
    };
    let mut status = Status::unavailable(format!("this master does not lead; the one at {leader} does"));
    masters::hint_at(&leader, status.metadata_mut());
    status
}

async fn first<T: serde::de::DeserializeOwned>(frames: &mut Streaming<Frame>) -> Result<T, Status> {
    let frame = frames.message().await?.ok_or_else(|| Status::invalid_argument("the stream ended before it began"))?;
    Ok(frame::decode(frame)?)
}
