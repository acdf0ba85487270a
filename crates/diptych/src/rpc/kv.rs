//! The service `diptych.v1.Kv`: rows. With a route the node of this process answers or refuses; without, the request
//! is passed on to whoever has the row.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use client::{Client, Error, Pipeline, Written};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use model::{Operation, Refusal, Request as NodeRequest, Rights};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Code, Request, Response, Status, Streaming};
use wire::status::{to_failure, to_status};
use wire::v1::pipeline_result::Outcome;
use wire::v1::{self, kv_server::Kv};
use wire::{Answer, Call, NamedRow, Scan, changes, convert};

use super::meter::Meter;
use crate::access::Caller;
use crate::gateway::Gateway;
use crate::host::node::local::{Answered, Local};

/// Operations of one pipeline that may be under way; also the most in one message.
const WINDOW: usize = 8_192;
/// Results that are looked at together.
const RESULTS: usize = 1_024;
/// A message of results, or a page of a scan over the whole table, is sent when it has so many bytes.
const MESSAGE_BYTES: usize = 1 << 20;

type Results<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub struct KvService {
    gateway: Gateway,
    local: Option<Local>,
    meters: Arc<Meters>,
}

struct Meters {
    mutate: Meter,
    mutate_many: Meter,
    get: Meter,
    get_many: Meter,
    scan: Meter,
    read_changes: Meter,
    pipeline: Meter,
}

impl KvService {
    /// With the node of this process, if there is one.
    pub fn new(gateway: Gateway, local: Option<Local>) -> KvService {
        let meter = |method| Meter::new("diptych.v1.Kv", method);
        let meters = Meters {
            mutate: meter("Mutate"),
            mutate_many: meter("MutateMany"),
            get: meter("Get"),
            get_many: meter("GetMany"),
            scan: meter("Scan"),
            read_changes: meter("ReadChanges"),
            pipeline: meter("Pipeline"),
        };
        KvService { gateway, local, meters: Arc::new(meters) }
    }

    async fn answer(&self, call: Call) -> Result<Answer, Status> {
        let Some(route) = call.route else {
            let answer = self.gateway.client().execute(&call.table, call.operation).await;
            return answer.map_err(|error| error.to_status());
        };
        self.ask(route.request(call.operation, self.rights())).await
    }

    /// What whoever asks may do.
    fn rights(&self) -> Option<Arc<Rights>> {
        self.gateway.access().present().rights()
    }

    async fn ask(&self, request: NodeRequest) -> Result<Answer, Status> {
        let answered = match &self.local {
            Some(local) => local.ask(request).await,
            None => Err(Refusal::NoSuchTablet(request.tablet)),
        };
        answered.map(Answer::from).map_err(|refusal| to_status(&refusal))
    }

    /// One tablet's rows, or those of several.
    async fn write_many(&self, call: Call) -> Result<v1::MutateManyResponse, Status> {
        if let Some(route) = call.route {
            return match self.ask(route.request(call.operation, self.rights())).await? {
                Answer::Written(Written::Applied { version }) => Ok(convert::mutate_many_response([Ok(version)])),
                answer => Err(unexpected(&answer)),
            };
        }
        let Operation::WriteMany { rows, .. } = call.operation else {
            return Err(to_status(&Refusal::Invalid(String::from("this writes several rows"))));
        };
        let pending = self.gateway.pipeline().mutate_many(&Arc::from(call.table), rows).await;
        let written = pending.written().await;
        match written.common_error() {
            Some(error) => Err(error.to_status()),
            None => {
                let failure = |error: client::Error| error.to_failure();
                Ok(convert::mutate_many_response(written.each().map(|row| row.map_err(failure))))
            }
        }
    }

    /// One page of several rows, or all of them.
    async fn many(&self, call: Call) -> Result<Results<v1::GetManyPage>, Status> {
        let Some(route) = call.route else {
            let Operation::GetMany { rows, options } = call.operation else {
                return Err(to_status(&Refusal::Invalid(String::from("this reads several rows"))));
            };
            let found = self.gateway.client().get_many_from(&call.table, rows, options);
            return Ok(Box::pin(stream::unfold(Some(found), many_page)));
        };
        match self.ask(route.request(call.operation, self.rights())).await? {
            Answer::Many(rows, from) => {
                let page = convert::get_many_page(rows.into_iter().map(|row| (row, from)));
                Ok(Box::pin(stream::iter([Ok(page)])))
            }
            answer => Err(unexpected(&answer)),
        }
    }

    /// One page of one tablet, or the pages of the whole table.
    async fn pages(&self, scan: Scan) -> Result<Results<v1::ScanPage>, Status> {
        let Some(route) = scan.route else {
            let Scan { table, range, options, limit, reverse, .. } = scan;
            let rows = self.gateway.client().scan_from(&table, range, reverse, options, limit);
            let rows: client::Rows = Box::pin(rows.map_ok(|(row, _)| row));
            return Ok(Box::pin(stream::unfold(Some(rows), page)));
        };
        match self.ask(route.request(scan.into_page(), self.rights())).await? {
            Answer::Rows { rows, resume, from } => {
                Ok(Box::pin(stream::iter([Ok(convert::scan_page(rows, resume, from))])))
            }
            answer => Err(unexpected(&answer)),
        }
    }
}

fn unexpected(answer: &Answer) -> Status {
    Status::internal(format!("the node answered something else: {answer:?}"))
}

/// The next page of a scan over the whole table: whatever is there at once, up to a message's worth.
async fn page(rows: Option<client::Rows>) -> Option<(Result<v1::ScanPage, Status>, Option<client::Rows>)> {
    let mut rows = rows?;
    let (mut page, mut bytes) = (Vec::<NamedRow>::new(), 0);
    while bytes < MESSAGE_BYTES && page.len() < Scan::PAGE as usize {
        match rows.next().await {
            Some(Ok(row)) => {
                bytes += row.weight();
                page.push(row);
            }
            // The rows before the error are good: they go first, and the error meets the next call.
            Some(Err(error)) if page.is_empty() => return Some((Err(error.to_status()), None)),
            Some(Err(error)) => {
                let failed: client::Rows = Box::pin(stream::iter([Err(error)]));
                return Some((Ok(convert::scan_page(page, None, None)), Some(failed)));
            }
            None if page.is_empty() => return None,
            None => return Some((Ok(convert::scan_page(page, None, None)), None)),
        }
    }
    Some((Ok(convert::scan_page(page, None, None)), Some(rows)))
}

/// The next page of several rows: up to a message's worth.
async fn many_page(found: Option<client::Found>) -> Option<(Result<v1::GetManyPage, Status>, Option<client::Found>)> {
    let mut found = found?;
    let (mut page, mut bytes) = (Vec::new(), 0);
    while bytes < MESSAGE_BYTES {
        match found.next().await {
            Some(Ok((row, from))) => {
                bytes += row.as_ref().map_or(16, NamedRow::weight);
                page.push((row, from));
            }
            // The rows before the error are good: they go first, and the error meets the next call.
            Some(Err(error)) if page.is_empty() => return Some((Err(error.to_status()), None)),
            Some(Err(error)) => {
                let failed: client::Found = Box::pin(stream::iter([Err(error)]));
                return Some((Ok(convert::get_many_page(page)), Some(failed)));
            }
            None if page.is_empty() => return None,
            None => return Some((Ok(convert::get_many_page(page)), None)),
        }
    }
    Some((Ok(convert::get_many_page(page)), Some(found)))
}

#[tonic::async_trait]
impl Kv for KvService {
    type GetManyStream = Results<v1::GetManyPage>;
    type ScanStream = Results<v1::ScanPage>;
    type PipelineStream = Results<v1::PipelineResponse>;

    async fn mutate(&self, request: Request<v1::MutateRequest>) -> Result<Response<v1::MutateResponse>, Status> {
        let answering = async {
            match self.answer(Call::try_from(request.into_inner())?).await? {
                Answer::Written(written) => Ok(Response::new(written.into())),
                answer => Err(unexpected(&answer)),
            }
        };
        self.meters.mutate.measure(answering).await
    }

    async fn mutate_many(
        &self,
        request: Request<v1::MutateManyRequest>,
    ) -> Result<Response<v1::MutateManyResponse>, Status> {
        let answering = async { Ok(Response::new(self.write_many(Call::try_from(request.into_inner())?).await?)) };
        self.meters.mutate_many.measure(answering).await
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let answering = async {
            match self.answer(Call::try_from(request.into_inner())?).await? {
                Answer::Row(row, from) => Ok(Response::new(convert::get_response(row, from))),
                answer => Err(unexpected(&answer)),
            }
        };
        self.meters.get.measure(answering).await
    }

    async fn get_many(&self, request: Request<v1::GetManyRequest>) -> Result<Response<Self::GetManyStream>, Status> {
        let answering = async { Ok(Response::new(self.many(Call::try_from(request.into_inner())?).await?)) };
        self.meters.get_many.measure(answering).await
    }

    async fn scan(&self, request: Request<v1::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let answering = async { Ok(Response::new(self.pages(Scan::try_from(request.into_inner())?).await?)) };
        self.meters.scan.measure(answering).await
    }

    async fn read_changes(
        &self,
        request: Request<v1::ReadChangesRequest>,
    ) -> Result<Response<v1::ChangesPage>, Status> {
        let answering = async {
            let (route, query) = changes::query_from_proto(request.into_inner())?;
            match self.ask(route.request(Operation::Changes(query), self.rights())).await? {
                Answer::Changes(page) => Ok(Response::new(page.into())),
                answer => Err(unexpected(&answer)),
            }
        };
        self.meters.read_changes.measure(answering).await
    }

    async fn pipeline(
        &self,
        request: Request<Streaming<v1::PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        let (answers, answered) = mpsc::unbounded_channel();
        let (passed_on, came_back) = mpsc::unbounded_channel();
        let window = Arc::new(Semaphore::new(WINDOW));
        let intake = Intake {
            local: self.local.clone(),
            client: self.gateway.client(),
            caller: self.gateway.access().present(),
            pipeline: None,
            window: Arc::clone(&window),
            answers,
            passed_on,
        };
        tokio::spawn(intake.run(request.into_inner()));
        let output = Output {
            answered: Some(answered),
            came_back: Some(came_back),
            broken: None,
            window,
            ready: VecDeque::new(),
            meters: Arc::clone(&self.meters),
        };
        Ok(Response::new(Box::pin(stream::unfold(output, Output::next))))
    }
}

/// An operation's result that did not come from the node of this process.
enum Back {
    /// It was passed on, or could not even be.
    Result(u64, Result<Answer, Error>),
    /// The stream itself cannot go on.
    Broken(Status),
}

/// The incoming half of a pipeline: operations to the node of this process go in one piece, others are passed on.
struct Intake {
    local: Option<Local>,
    client: Client,
    /// Whose stream it is.
    caller: Caller,
    /// For what is passed on; made when it is needed.
    pipeline: Option<Pipeline>,
    window: Arc<Semaphore>,
    answers: mpsc::UnboundedSender<(u64, Answered)>,
    passed_on: mpsc::UnboundedSender<Back>,
}

impl Intake {
    async fn run(mut self, mut requests: Streaming<v1::PipelineRequest>) {
        loop {
            match requests.message().await {
                Ok(Some(request)) if request.items.len() <= WINDOW => self.take(request.items).await,
                Ok(Some(request)) => {
                    let what = format!("{} operations in a message; the limit is {WINDOW}", request.items.len());
                    return self.back(Back::Broken(to_status(&Refusal::Invalid(what))));
                }
                Ok(None) => return,
                Err(status) => return self.back(Back::Broken(status)),
            }
        }
    }

    async fn take(&mut self, items: Vec<v1::PipelineItem>) {
        let places = u32::try_from(items.len()).expect("checked against the window");
        // Given back when the results have been sent. The semaphore is never closed.
        if let Ok(permits) = self.window.acquire_many(places).await {
            permits.forget();
        }
        let mut requests = Vec::with_capacity(items.len());
        let rights = self.caller.rights();
        for v1::PipelineItem { id, operation } in items {
            match Call::try_from(operation) {
                Ok(Call { route: Some(route), operation, .. }) => {
                    requests.push((id, route.request(operation, rights.clone())));
                }
                Ok(call) => self.pass_on(id, call).await,
                Err(invalid) => self.back(Back::Result(id, Err(Refusal::from(invalid).into()))),
            }
        }
        match &self.local {
            Some(local) => local.ask_all(requests, &self.answers),
            None => {
                for (id, request) in requests {
                    self.back(Back::Result(id, Err(Refusal::NoSuchTablet(request.tablet).into())));
                }
            }
        }
    }

    async fn pass_on(&mut self, id: u64, call: Call) {
        let pipeline = self.pipeline.get_or_insert_with(|| self.client.pipeline(WINDOW));
        let pending = pipeline.submit(&Arc::from(call.table), call.operation).await;
        let passed_on = self.passed_on.clone();
        tokio::spawn(async move {
            // Whoever asked may be gone.
            let _ = passed_on.send(Back::Result(id, pending.await));
        });
    }

    fn back(&self, back: Back) {
        // Whoever asked may be gone.
        let _ = self.passed_on.send(back);
    }
}

/// The outgoing half: whatever results there are make one message.
struct Output {
    answered: Option<mpsc::UnboundedReceiver<(u64, Answered)>>,
    came_back: Option<mpsc::UnboundedReceiver<Back>>,
    broken: Option<Status>,
    window: Arc<Semaphore>,
    /// Not sent yet.
    ready: VecDeque<v1::PipelineResult>,
    meters: Arc<Meters>,
}

impl Output {
    async fn next(mut self) -> Option<(Result<v1::PipelineResponse, Status>, Output)> {
        loop {
            if !self.ready.is_empty() {
                return Some((Ok(self.message()), self));
            }
            if let Some(status) = self.broken.take() {
                (self.answered, self.came_back) = (None, None);
                return Some((Err(status), self));
            }
            if self.answered.is_none() && self.came_back.is_none() {
                return None;
            }
            self.gather().await;
        }
    }

    /// Waits for results.
    async fn gather(&mut self) {
        let (mut answers, mut backs) = (Vec::new(), Vec::new());
        tokio::select! {
            count = recv(&mut self.answered, &mut answers) => if count == 0 {
                self.answered = None;
            },
            count = recv(&mut self.came_back, &mut backs) => if count == 0 {
                self.came_back = None;
            },
        }
        for (id, answered) in answers {
            self.ready.push_back(convert::pipeline_result(id, answered.map(Answer::from)));
        }
        for back in backs {
            match back {
                Back::Result(id, Ok(answer)) => self.ready.push_back(convert::pipeline_result(id, Ok(answer))),
                Back::Result(id, Err(Error::Refused(refusal))) => {
                    self.ready.push_back(failure(id, to_failure(&refusal)));
                }
                Back::Result(id, Err(error)) => self.ready.push_back(failure(id, error.to_failure())),
                Back::Broken(status) => self.broken = Some(status),
            }
        }
    }

    fn message(&mut self) -> v1::PipelineResponse {
        let (mut results, mut bytes) = (Vec::with_capacity(self.ready.len()), 0);
        while bytes < MESSAGE_BYTES
            && let Some(result) = self.ready.pop_front()
        {
            bytes += weight(&result);
            results.push(result);
        }
        self.window.add_permits(results.len());
        let failed = results.iter().filter(|result| matches!(result.outcome, Some(Outcome::Failure(_)))).count();
        self.meters.pipeline.answered((results.len() - failed) as u64);
        if failed > 0 {
            self.meters.pipeline.failed(Code::Unknown, failed as u64);
        }
        v1::PipelineResponse { results }
    }
}

/// Takes what there is; never returns for a receiver that is gone.
async fn recv<T>(from: &mut Option<mpsc::UnboundedReceiver<T>>, into: &mut Vec<T>) -> usize {
    match from {
        Some(receiver) => receiver.recv_many(into, RESULTS).await,
        None => std::future::pending().await,
    }
}

fn failure(id: u64, failure: v1::Failure) -> v1::PipelineResult {
    v1::PipelineResult { id, outcome: Some(Outcome::Failure(failure)) }
}

fn weight(result: &v1::PipelineResult) -> usize {
    match &result.outcome {
        Some(Outcome::Get(v1::GetResponse { row: Some(row), .. })) => {
            row.cells.iter().map(|cell| cell.qualifier.len() + cell.value.len() + 32).sum()
        }
        Some(Outcome::Mutate(response)) => response.present.as_ref().map_or(0, |present| present.value.len()) + 16,
        _ => 16,
    }
}
