//! Many operations under way at once, over one stream to each node, many to a message.
//!
//! ```text
//!   submit ──▶ dispatch ──▶ lane of n1 ══ stream ══▶ n1       one lane a node: a queue, a task,
//!                 ▲    └──▶ lane of n2 ══ stream ══▶ n2       and the jobs that wait for their answer
//!                 └── again: after a pause, by the newest map ◀── refused, lost, too slow
//! ```
//!
//! Unary calls cost tens of microseconds each; on a stream with batches that is spread over many operations. Answers
//! come in any order, also to operations on the same row: who needs an order waits for the answer before the next. Many
//! rows go as one operation (`rows`).
//! Memory is bounded by the number of operations under way and by [`ROOM`] for what they carry.

mod rows;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use model::{Mutation, Operation, ReadOptions, Refusal, RequestId};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use wire::v1::kv_client::KvClient;
use wire::v1::pipeline_item::Operation as Message;
use wire::v1::{PipelineItem, PipelineRequest, PipelineResponse};
use wire::{Answer, Route, convert};

use crate::call::Journey;
use crate::channels::Line;
use crate::routing::{Course, Place, Seek};
use crate::sequence::Open;
use crate::{Client, Error};

pub(crate) use self::rows::outcome;
pub use self::rows::{PendingMany, WrittenMany};
use self::rows::{Rows, Whole};

/// Bytes of all mutations under way; a larger one goes alone.
const ROOM: usize = 128 << 20;
/// The unit in which room is counted.
const ROOM_UNIT: usize = 1 << 10;
/// Operations in a message.
const BATCH: usize = 512;
/// A message that has so many bytes is full.
const BATCH_BYTES: usize = 1 << 20;
/// Messages that wait for the connection.
const MESSAGES_AHEAD: usize = 4;
/// How often a lane looks for answers that are overdue.
const TICK: Duration = Duration::from_millis(50);

/// A way to have many operations under way. Clones share it.
#[derive(Clone)]
pub struct Pipeline {
    core: Arc<Core>,
}

pub(crate) struct Core {
    client: Client,
    lanes: Mutex<BTreeMap<Arc<str>, mpsc::UnboundedSender<Sent>>>,
    slots: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

/// The answer to come. Dropping it does not take the operation back.
pub struct Pending {
    answer: oneshot::Receiver<Result<Answer, Error>>,
    /// Lanes live as long as somebody waits.
    _core: Arc<Core>,
}

impl Future for Pending {
    type Output = Result<Answer, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(cx);
        answer.map(|answer| answer.unwrap_or_else(|_| Err(Error::Protocol(String::from("the runtime is shut down")))))
    }
}

/// An operation until it is answered.
struct Job {
    table: Arc<str>,
    content: Content,
    weight: usize,
    journey: Journey,
    to: To,
    /// The id that it has, unless it reads or came with one.
    request: Option<Open>,
    _slot: Option<OwnedSemaphorePermit>,
    _room: Option<OwnedSemaphorePermit>,
}

/// What is asked. Without a route, which each attempt fills in.
enum Content {
    /// Something about this row.
    Message(Bytes, Message),
    /// Writes of rows.
    Rows(Rows),
}

/// Who is told.
enum To {
    One(oneshot::Sender<Result<Answer, Error>>),
    /// Of rows that were given together, those at these places.
    Whole(Arc<Whole>, Vec<u32>),
}

/// A job on its way to a node.
struct Sent {
    job: Job,
    route: Route,
    /// When the attempt is taken for lost. Counts from when it is sent; until then, from when it entered the lane.
    ends: Instant,
}

impl Pipeline {
    pub(crate) fn new(client: Client, in_flight: usize) -> Pipeline {
        let slots = in_flight.clamp(1, Semaphore::MAX_PERMITS);
        let core = Core {
            client,
            lanes: Mutex::default(),
            slots: Arc::new(Semaphore::new(slots)),
            room: Arc::new(Semaphore::new(ROOM / ROOM_UNIT)),
        };
        Pipeline { core: Arc::new(core) }
    }

    /// Sends a mutation, as soon as fewer than the allowed number of operations are under way.
    pub async fn mutate(&self, table: &Arc<str>, mutation: Mutation<String>) -> Pending {
        self.submit(table, Operation::Write { request: RequestId::default(), mutation }).await
    }

    /// Sends a read of a row, likewise.
    pub async fn get(&self, table: &Arc<str>, row: Bytes, options: ReadOptions<String>) -> Pending {
        self.submit(table, Operation::Get { row, options }).await
    }

    /// Sends a write or a get, likewise. A write that has no request id (sequence 0) gets one. Pipelines do not scan,
    /// and many rows go by [`Pipeline::mutate_many`].
    pub async fn submit(&self, table: &Arc<str>, operation: Operation) -> Pending {
        let weight = operation.weight();
        let (slot, room) = self.core.admit(weight).await;
        let (sender, receiver) = oneshot::channel();
        let pending = Pending { answer: receiver, _core: Arc::clone(&self.core) };
        let client = &self.core.client;
        let course = match &operation {
            Operation::Get { options, .. } => client.course(options),
            _ => Course::default(),
        };
        let (row, message, request) = match operation {
            Operation::Write { request, mutation } => {
                let own = (request.sequence == 0).then(|| client.inner.sequences.open());
                let request = own.as_ref().map_or(request, |own| own.id);
                let row = mutation.row.clone();
                (row, Message::Mutate(convert::mutate_request(table, None, request, mutation)), own)
            }
            Operation::Get { row, options } => {
                (row.clone(), Message::Get(convert::get_request(table, None, row, options)), None)
            }
            Operation::WriteMany { .. }
            | Operation::GetMany { .. }
            | Operation::Scan { .. }
            | Operation::Changes(_) => {
                let refusal = Refusal::Invalid(String::from("pipelines write and read one row at a time"));
                // The receiver is ours, two lines above.
                let _ = sender.send(Err(refusal.into()));
                return pending;
            }
        };
        self.core.dispatch(Job {
            table: Arc::clone(table),
            content: Content::Message(row, message),
            weight,
            journey: Journey::on(course, &client.inner.options),
            to: To::One(sender),
            request,
            _slot: slot,
            _room: room,
        });
        pending
    }
}

impl Job {
    fn finish(self, answer: Result<Answer, Error>) {
        match self.to {
            // Nobody may be waiting any more, which is their right.
            To::One(waiter) => drop(waiter.send(answer)),
            To::Whole(whole, places) => whole.put(&places, answer),
        }
    }

    /// Where it goes the others go as well.
    fn row(&self) -> &[u8] {
        match &self.content {
            Content::Message(row, _) => row,
            Content::Rows(part) => part.rows.first().map_or(&[], |row| &row.row),
        }
    }

    fn item(&self, id: u64, route: Route) -> PipelineItem {
        let mut message = match &self.content {
            Content::Message(_, message) => message.clone(),
            Content::Rows(part) => Message::MutateMany(part.message(&self.table, self.request.as_ref())),
        };
        match &mut message {
            Message::Mutate(mutate) => mutate.route = Some(route.into()),
            Message::Get(get) => get.route = Some(route.into()),
            Message::MutateMany(many) => many.route = Some(route.into()),
        }
        PipelineItem { id, operation: Some(message) }
    }
}

impl Core {
    /// Waits for a place for something of this weight.
    async fn admit(&self, weight: usize) -> (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>) {
        let units = weight.div_ceil(ROOM_UNIT).min(ROOM / ROOM_UNIT) as u32;
        // Neither semaphore is ever closed.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        (slot, Arc::clone(&self.room).acquire_many_owned(units).await.ok())
    }

    /// Sends the job where the map says; asks for the map first if it does not say.
    fn dispatch(self: &Arc<Self>, job: Job) {
        let detour = job.journey.course.detour;
        let place = self.client.inner.routing.read().locate(&job.table, Seek::Row(job.row()), detour);
        match place {
            Ok(place) => self.send_to(job, &place),
            Err(_) => {
                let core = Arc::clone(self);
                tokio::spawn(async move {
                    match core.client.place(&job.table, Seek::Row(job.row()), detour).await {
                        Ok(place) => core.send_to(job, &place),
                        Err(error) => core.again(job, None, error),
                    }
                });
            }
        }
    }

    /// Sends the job there, if all its rows live there.
    fn send_to(self: &Arc<Self>, mut job: Job, place: &Place) {
        match &mut job.content {
            Content::Rows(part) if !part.are_within(&place.slice) => return self.divide(job),
            Content::Rows(part) => part.sent = true,
            Content::Message(..) => {}
        }
        self.send(&place.address, job, place.route);
    }

    /// Puts the job into the node's lane, and opens the lane if there is none.
    fn send(self: &Arc<Self>, address: &Arc<str>, job: Job, route: Route) {
        let ends = job.journey.attempt_ends(Instant::now());
        let mut sent = Sent { job, route, ends };
        let mut lanes = self.lanes.lock();
        if let Some(lane) = lanes.get(address) {
            match lane.send(sent) {
                Ok(()) => return,
                // Its task has died; open another.
                Err(mpsc::error::SendError(back)) => sent = back,
            }
        }
        let kv = match self.client.inner.channels.kv(address, &self.client.identity) {
            Ok(kv) => kv,
            Err(error) => return sent.job.finish(Err(error)),
        };
        let (sender, queue) = mpsc::unbounded_channel();
        if sender.send(sent).is_ok() {
            lanes.insert(Arc::clone(address), sender);
        }
        let lane = Lane {
            core: Arc::downgrade(self),
            address: Arc::clone(address),
            kv,
            queue,
            backlog: VecDeque::new(),
            waiting: BTreeMap::new(),
            last_id: 0,
        };
        tokio::spawn(lane.run());
    }

    /// After a failed attempt: tries again, or answers.
    fn again(self: &Arc<Self>, mut job: Job, asked: Option<Route>, error: Error) {
        match job.journey.after(&self.client, asked, error) {
            Err(error) => self.fail(job, error),
            Ok(Duration::ZERO) => self.dispatch(job),
            Ok(pause) => {
                let core = Arc::clone(self);
                tokio::spawn(async move {
                    sleep(pause).await;
                    core.dispatch(job);
                });
            }
        }
    }
}

/// What goes to one node, and waits for its answer.
struct Lane {
    core: Weak<Core>,
    address: Arc<str>,
    kv: KvClient<Line>,
    queue: mpsc::UnboundedReceiver<Sent>,
    /// Taken from the queue, not sent. At most a batch, and a message's worth.
    backlog: VecDeque<Sent>,
    /// Sent. Every attempt has an id of its own, so late answers to former ones are recognised.
    waiting: BTreeMap<u64, Sent>,
    last_id: u64,
}

impl Lane {
    /// Holds a stream as long as it holds, and another when there is more to send; until the pipeline is gone.
    async fn run(mut self) {
        while self.take_from_queue().await {
            let error = self.stream().await;
            // What waited for this stream looks for another way. The queue as well: it was meant for this node.
            while let Ok(sent) = self.queue.try_recv() {
                self.backlog.push_back(sent);
            }
            let Some(core) = self.core.upgrade() else { return };
            let (now, waiting) = (Instant::now(), std::mem::take(&mut self.waiting).into_values());
            for Sent { mut job, route, ends } in waiting.chain(std::mem::take(&mut self.backlog)) {
                let error = if now >= ends { job.journey.too_slow(&self.address) } else { error.clone() };
                core.again(job, Some(route), error);
            }
        }
    }

    /// Waits for something to send; false when the pipeline is gone.
    async fn take_from_queue(&mut self) -> bool {
        let mut taken = Vec::new();
        let count = self.queue.recv_many(&mut taken, BATCH).await;
        self.backlog.extend(taken);
        count > 0
    }

    /// One stream, until it breaks or is silent for too long; says why.
    async fn stream(&mut self) -> Error {
        let (requests, receiver) = mpsc::channel(MESSAGES_AHEAD);
        // The first message goes along, for servers that answer only then.
        let first = self.next_message();
        let ends = self.waiting.values().map(|sent| sent.ends).max().unwrap_or_else(Instant::now);
        if requests.try_send(first).is_err() {
            return Error::lost(&self.address, "the stream was closed before it began");
        }
        let mut kv = self.kv.clone();
        let mut responses = match timeout_at(ends, kv.pipeline(ReceiverStream::new(receiver))).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Error::from_status(&self.address, &status),
            Err(_) => return Error::lost(&self.address, "the stream did not open"),
        };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                biased;
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        heard = Instant::now();
                        self.on_response(response);
                    }
                    Ok(None) => return Error::lost(&self.address, "the stream was closed"),
                    Err(status) => return Error::from_status(&self.address, &status),
                },
                now = tick.tick() => {
                    if self.is_stuck(heard, now) {
                        return Error::lost(&self.address, "the stream is silent");
                    }
                    self.on_tick(now);
                }
                more = self.queue.recv(), if self.backlog.len() < BATCH => match more {
                    Some(sent) => self.backlog.push_back(sent),
                    None => return Error::lost(&self.address, "the pipeline is gone"),
                },
                permit = requests.reserve(), if !self.backlog.is_empty() => match permit {
                    Ok(permit) => permit.send(self.next_message()),
                    Err(_) => return Error::lost(&self.address, "the stream was closed"),
                },
            }
        }
    }

    /// Moves a message's worth from the backlog to those that wait.
    fn next_message(&mut self) -> PipelineRequest {
        let (now, mut bytes) = (Instant::now(), 0);
        let mut items = Vec::with_capacity(self.backlog.len().min(BATCH));
        while items.len() < BATCH && bytes < BATCH_BYTES {
            let Some(mut sent) = self.backlog.pop_front() else { break };
            sent.ends = sent.job.journey.attempt_ends(now);
            self.last_id += 1;
            bytes += sent.job.weight;
            items.push(sent.job.item(self.last_id, sent.route));
            self.waiting.insert(self.last_id, sent);
        }
        PipelineRequest { items }
    }

    fn on_response(&mut self, response: PipelineResponse) {
        for result in response.results {
            // An answer that comes after its time has nobody waiting.
            let Some(Sent { job, route, .. }) = self.waiting.remove(&result.id) else { continue };
            let error = match Answer::from_outcome(result.outcome) {
                Ok(Ok(answer)) => {
                    job.finish(Ok(answer));
                    continue;
                }
                Ok(Err(failure)) => Error::from_failure(&self.address, &failure),
                Err(invalid) => invalid.into(),
            };
            if let Some(core) = self.core.upgrade() {
                core.again(job, Some(route), error);
            }
        }
    }

    /// Has nothing come for so long that what was sent and what was not should go elsewhere?
    fn is_stuck(&self, heard: Instant, now: Instant) -> bool {
        let oldest = self.waiting.values().chain(&self.backlog).map(|sent| sent.ends).min();
        oldest.is_some_and(|ends| now >= ends) && now >= heard + self.patience()
    }

    fn patience(&self) -> Duration {
        self.core.upgrade().map_or(Duration::ZERO, |core| core.client.inner.options.attempt)
    }

    /// Sends those elsewhere whose answers are overdue, while others are answered.
    fn on_tick(&mut self, now: Instant) {
        let Some(core) = self.core.upgrade() else { return };
        for (_, Sent { mut job, route, .. }) in self.waiting.extract_if(.., |_, sent| now >= sent.ends) {
            let error = job.journey.too_slow(&self.address);
            core.again(job, Some(route), error);
        }
    }
}
