//! The node of this very process, as its services see it: requests in, answers straight to whoever waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::{CheckpointAnswer, CheckpointOrder, NodeId, Operation, Refusal, Reply, Request};
use protocol::NodeMessage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::shard::Arrival;
use crate::host::inbox::Inbox;

/// Bytes of requests that may wait for their answers.
const REQUEST_BYTES: usize = 256 << 20;
/// What a request costs beside its keys and values.
const REQUEST_OVERHEAD: usize = 512;
/// Bytes of other nodes' frames that the shard has not looked at yet.
const FRAME_BYTES: usize = 64 << 20;

/// A request's answer.
pub type Answered = Result<Reply, Refusal>;
/// The answer to an order about checkpoints.
pub type Ordered = Result<CheckpointAnswer, Refusal>;

/// The way to the shard. Cheap to clone.
#[derive(Clone)]
pub struct Local {
    inbox: Arc<Inbox<Arrival>>,
    admission: Arc<Admission>,
    frames: Arc<Semaphore>,
}

impl Local {
    /// To the shard that reads this inbox.
    pub fn new(inbox: Arc<Inbox<Arrival>>) -> Local {
        Local { inbox, admission: Arc::default(), frames: Arc::new(Semaphore::new(FRAME_BYTES)) }
    }

    /// Asks the node and waits for the answer.
    pub async fn ask(&self, request: Request) -> Answered {
        let tablet = request.tablet;
        let admitted = self.admission.admit(weight(&request.operation)).ok_or(Refusal::Overloaded)?;
        let (answer, answered) = oneshot::channel();
        self.inbox.push(Arrival::Request(request, Waiter { to: To::One(answer), _admitted: admitted }));
        // Without an answer the process is on its way out.
        answered.await.unwrap_or(Err(Refusal::Unknown(tablet)))
    }

    /// Has the node do something about checkpoints, and waits until it is done.
    pub async fn order(&self, order: CheckpointOrder) -> Ordered {
        let (answer, answered) = oneshot::channel();
        self.inbox.push(Arrival::Checkpoint(order, answer));
        // Without an answer the process is on its way out.
        answered.await.unwrap_or(Err(Refusal::Overloaded))
    }

    /// Asks for many things at once; the answers go to `answers` as they come, each with the number of its request.
    pub fn ask_all(&self, requests: Vec<(u64, Request)>, answers: &mpsc::UnboundedSender<(u64, Answered)>) {
        let mut admitted = Vec::with_capacity(requests.len());
        for (number, request) in requests {
            match self.admission.admit(weight(&request.operation)) {
                Some(place) => {
                    admitted.push((request, Waiter { to: To::Stream(answers.clone(), number), _admitted: place }));
                }
                None => drop(answers.send((number, Err(Refusal::Overloaded)))),
            }
        }
        if !admitted.is_empty() {
            self.inbox.push(Arrival::Requests(admitted));
        }
    }

    /// What another node said. Waits while the shard lags behind, which holds up the sender's stream.
    pub async fn hear(&self, from: NodeId, messages: Vec<NodeMessage>, bytes: usize) {
        let bytes = u32::try_from(bytes.clamp(1, FRAME_BYTES)).expect("64 MiB fit into 32 bits");
        let permit = Arc::clone(&self.frames).acquire_many_owned(bytes).await.expect("the semaphore is never closed");
        self.inbox.push(Arrival::Frame(from, messages, FramePermit(permit)));
    }
}

/// Counts against [`FRAME_BYTES`] until it is dropped.
pub struct FramePermit(#[expect(dead_code, reason = "it matters when it is dropped")] OwnedSemaphorePermit);

fn weight(operation: &Operation) -> usize {
    REQUEST_OVERHEAD
        + match operation {
            Operation::Write { .. } | Operation::WriteMany { .. } => operation.weight(),
            Operation::Get { .. } => 0,
            // A page.
            Operation::GetMany { .. } | Operation::Scan { .. } | Operation::Changes(_) => 1 << 20,
        }
}

/// Who waits for an answer.
pub struct Waiter {
    to: To,
    _admitted: Admitted,
}

enum To {
    One(oneshot::Sender<Answered>),
    Stream(mpsc::UnboundedSender<(u64, Answered)>, u64),
}

impl Waiter {
    /// Gives the answer. Whoever asked may be gone; that is no matter.
    pub fn answer(self, answer: Answered) {
        match self.to {
            To::One(waiter) => drop(waiter.send(answer)),
            To::Stream(waiter, number) => drop(waiter.send((number, answer))),
        }
    }
}

/// Bounds the memory of requests that wait.
#[derive(Default)]
struct Admission {
    bytes: AtomicUsize,
}

/// A request's place; free again when it is dropped.
struct Admitted {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    /// A place for a request, unless too many wait. A lone request finds a place whatever its size.
    fn admit(self: &Arc<Self>, bytes: usize) -> Option<Admitted> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let place = Admitted { admission: Arc::clone(self), bytes };
        (before == 0 || before + bytes <= REQUEST_BYTES).then_some(place)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory is bounded: beyond the limit nobody gets in until somebody has left.
    #[test]
    fn a_full_house_admits_nobody() {
        let admission = Arc::<Admission>::default();
        let first = admission.admit(REQUEST_BYTES * 2).unwrap();
        assert!(admission.admit(1).is_none());
        drop(first);
        let second = admission.admit(REQUEST_BYTES - 1).unwrap();
        let third = admission.admit(1).unwrap();
        assert!(admission.admit(1).is_none());
        drop((second, third));
        assert_eq!(admission.bytes.load(Ordering::Relaxed), 0);
    }
}
