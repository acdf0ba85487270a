//! The gate of the gRPC services: every call is let in or refused before any service sees it, and worked at, with its
//! answer to the last message, in the name of whoever made it.

use std::pin::Pin;
use std::task::{Context, Poll};

use client::ACTING;
use futures_util::FutureExt;
use futures_util::future::{Either, Map, Ready, ready};
use tokio::task::futures::TaskLocalFuture;
use tonic::Status;
use tonic::codegen::{Service, http};
use tower::Layer;

use super::{Access, CALLER, Caller, Stranger, token_in};

/// What anybody may ask: whether the process serves.
const OPEN: &str = "/grpc.health.v1.Health/";
/// What only processes may ask, and not for others.
const PEERS: &str = "/diptych.peer.v1.Peer/";

/// Puts the gate before services.
#[derive(Clone)]
pub struct Gate(pub Access);

/// A service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    access: Access,
    inner: S,
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { access: self.0.clone(), inner }
    }
}

impl<S> Gated<S> {
    fn let_in<B>(&self, request: &http::Request<B>) -> Result<Caller, Status> {
        let path = request.uri().path();
        if path.starts_with(OPEN) {
            return Ok(Caller::Anybody);
        }
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
        let token = header("authorization").and_then(token_in);
        let caller = self.access.caller(token.as_deref(), header(ACTING)).map_err(|stranger| match stranger {
            Stranger::TooEarly => Status::unavailable(stranger.message()),
            Stranger::NoToken | Stranger::Unknown => Status::unauthenticated(stranger.message()),
        })?;
        if path.starts_with(PEERS) && !caller.is_process() {
            return Err(Status::permission_denied("only processes of the cluster talk like this to each other"));
        }
        Ok(caller)
    }
}

/// The answer to a call for which nobody asks who makes it.
type Opened<F, R, E> = Map<F, fn(Result<http::Response<R>, E>) -> Result<http::Response<tonic::body::Body>, E>>;

impl<S, B, R> Service<http::Request<B>> for Gated<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = S::Error;
    type Future =
        Either<Either<Ready<Result<Self::Response, S::Error>>, Opened<S::Future, R, S::Error>>, Worked<S::Future>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if !self.access.is_on() {
            let answered = self.inner.call(request);
            return Either::Left(Either::Right(
                answered.map(|done| done.map(|response| response.map(tonic::body::Body::new))),
            ));
        }
        match self.let_in(&request) {
            Ok(caller) => {
                let work = CALLER.scope(caller.clone(), self.inner.call(request));
                Either::Right(Worked { work: Box::pin(work), caller })
            }
            Err(status) => Either::Left(Either::Left(ready(Ok(status.into_http())))),
        }
    }
}

/// A call that is being worked at.
pub struct Worked<F> {
    work: Pin<Box<TaskLocalFuture<Caller, F>>>,
    caller: Caller,
}

impl<F, R, E> Future for Worked<F>
where
    F: Future<Output = Result<http::Response<R>, E>>,
    R: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    R::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Output = Result<http::Response<tonic::body::Body>, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let done = std::task::ready!(self.work.as_mut().poll(context));
        let caller = self.caller.clone();
        let named = |body| tonic::body::Body::new(Named { body: Box::pin(body), caller });
        Poll::Ready(done.map(|response| response.map(named)))
    }
}

/// An answer whose messages are made while it is sent.
struct Named<R> {
    body: Pin<Box<R>>,
    caller: Caller,
}

impl<R: http_body::Body> http_body::Body for Named<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<R::Data>, R::Error>>> {
        let caller = self.caller.clone();
        CALLER.sync_scope(caller, || self.body.as_mut().poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
