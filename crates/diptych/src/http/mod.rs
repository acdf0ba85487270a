//! HTTP: REST under `/v1`, health, metrics, and the console for people. Its own port, beside gRPC.
//!
//! ```text
//!   request ─▶ Resource (path, decoded once) ─▶ method ─▶ rows, tables ─▶ client::Client ─▶ the cluster
//! ```
//!
//! Row keys and qualifiers are any bytes, which is why the paths are read here and not by axum's router. Bodies are
//! bounded, each and all together. A change that a foreign page makes a browser send is refused. Every answer that is
//! not good is a [`Problem`].

mod changes;
mod checkpoints;
mod console;
mod events;
mod page;
mod problem;
mod processes;
mod resource;
mod rows;
mod tables;
mod tablets;

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use client::Client;
use metrics::{counter, histogram};
use model::access::{Right, forbidden};
use model::{Refusal, limits};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, SemaphorePermit};

use self::problem::Problem;
use self::resource::{Query, Resource};
use crate::access::{Access, Caller, Stranger, token_in};
use crate::gateway::Gateway;
use crate::host::{Health, Shutdown, until_stopped};
use crate::telemetry;

/// Bytes of a body of JSON: the largest value, twice, in base64.
const JSON: usize = limits::VALUE / 3 * 8 + (1 << 20);
/// Bytes of a body with many rows.
const ROWS: usize = 16 << 20;
/// Bytes of all bodies that are being read or carried out.
const BODIES: usize = 512 << 20;

/// Serves until the process shall stop. Without a gateway (a master has none) there are health and metrics only.
pub async fn serve(
    listener: TcpListener,
    gateway: impl Into<Option<Gateway>>,
    access: Access,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let bodies = Semaphore::new(BODIES);
    let site = Site { gateway: gateway.into(), access, health, shutdown: shutdown.clone(), bodies };
    let router = Router::new().fallback(answer).with_state(Arc::new(site));
    let due = shutdown.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { due.wait().await });
    until_stopped(&shutdown, async { serving.await }).await.context("the HTTP server failed")
}

struct Site {
    gateway: Option<Gateway>,
    access: Access,
    health: Health,
    shutdown: Shutdown,
    /// Bytes that bodies may still take.
    bodies: Semaphore,
}

async fn answer(State(site): State<Arc<Site>>, request: Request) -> Response {
    let begun = std::time::Instant::now();
    let resource = Resource::parse(request.uri().path());
    let name = resource.as_ref().map_or("none", Resource::name);
    let answered = match resource {
        Ok(resource) => match site.let_in(&resource, request.headers()) {
            Ok(caller) => caller.scope(site.carry_out(resource, request)).await,
            Err(problem) => Ok(unauthorized(problem, &resource)),
        },
        Err(problem) => Err(problem),
    };
    let mut response = answered.unwrap_or_else(Problem::into_response);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let code = response.status().as_u16().to_string();
    counter!("diptych_http_requests_total", "resource" => name, "code" => code).increment(1);
    histogram!("diptych_http_duration_seconds", "resource" => name).record(begun.elapsed());
    response
}

impl Resource {
    /// A label for metrics.
    fn name(&self) -> &'static str {
        match self {
            Resource::Page | Resource::Asset(_) => "page",
            Resource::Live | Resource::Ready => "health",
            Resource::Metrics | Resource::History => "metrics",
            Resource::OpenApi => "openapi",
            Resource::Tables | Resource::Table(_) | Resource::Restore(_) => "tables",
            Resource::Rows(_) => "rows",
            Resource::Changes(_) => "changes",
            Resource::Row(..) => "row",
            Resource::Cell(..) => "cell",
            Resource::Cput(..) => "cput",
            Resource::Cluster => "cluster",
            Resource::Events => "events",
            Resource::Process(..) | Resource::Drain(..) | Resource::Remove(_) | Resource::Processes => "nodes",
            Resource::Tablet(..) => "tablets",
            Resource::Checkpoints | Resource::Checkpoint(_) => "checkpoints",
        }
    }

    /// The methods that it has.
    fn methods(&self) -> &'static [Method] {
        match self {
            Resource::Page
            | Resource::Asset(_)
            | Resource::Processes
            | Resource::History
            | Resource::Live
            | Resource::Ready
            | Resource::Metrics
            | Resource::OpenApi
            | Resource::Cluster
            | Resource::Events
            | Resource::Changes(_) => &[Method::GET],
            Resource::Tables | Resource::Rows(_) | Resource::Checkpoints => &[Method::GET, Method::POST],
            Resource::Checkpoint(_) => &[Method::GET, Method::DELETE],
            Resource::Table(_) => &[Method::GET, Method::PATCH, Method::DELETE],
            Resource::Row(..) => &[Method::GET, Method::DELETE],
            Resource::Cell(..) => &[Method::GET, Method::PUT, Method::DELETE],
            Resource::Cput(..)
            | Resource::Process(..)
            | Resource::Drain(..)
            | Resource::Remove(_)
            | Resource::Tablet(..)
            | Resource::Restore(_) => &[Method::POST],
        }
    }

    /// The query parameters that it takes with this method.
    fn parameters(&self, method: &Method) -> &'static [&'static str] {
        match (self, method) {
            (Resource::Ready, _) => &["verbose", "exclude"],
            (Resource::History, _) => &["since"],
            (Resource::Tables, &Method::GET) => &["hidden"],
            (Resource::Table(_), &Method::DELETE) => &["keep"],
            (Resource::Events, _) => &["since", "limit", "tablet", "node", "name", "follow"],
            (Resource::Changes(_), _) => &["from", "prefix", "start", "end"],
            (Resource::Rows(_), &Method::GET) => &[
                "row",
                "prefix",
                "start",
                "end",
                "limit",
                "reverse",
                "column",
                "family",
                "versions",
                "since",
                "before",
                "consistency",
                "max_lag",
            ],
            (Resource::Row(..), &Method::GET) => {
                &["column", "family", "versions", "since", "before", "consistency", "max_lag"]
            }
            (Resource::Cell(..), &Method::GET) => &["consistency", "max_lag"],
            (Resource::Cell(..), &Method::PUT | &Method::DELETE) => &["timestamp"],
            _ => &[],
        }
    }
}

/// Asks for a token; a browser that shows a page, in its own way.
fn unauthorized(problem: Problem, resource: &Resource) -> Response {
    let scheme = if matches!(resource, Resource::Page) { "Basic realm=\"diptych\"" } else { "Bearer" };
    let mut response = problem.into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
    response
}

impl Site {
    /// Whoever asks, if they may come in. Whether the process is well, anybody may ask.
    fn let_in(&self, resource: &Resource, headers: &HeaderMap) -> Result<Caller, Problem> {
        if matches!(resource, Resource::Live | Resource::Ready | Resource::OpenApi) {
            return Ok(Caller::Anybody);
        }
        let token = headers.get(AUTHORIZATION).and_then(|value| token_in(value.to_str().ok()?));
        let hint = "Send `Authorization: Bearer TOKEN`; `diptych acl add NAME` gives somebody one.";
        self.access.caller(token.as_deref(), None).map_err(|stranger| match stranger {
            Stranger::TooEarly => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", String::from(stranger.message()), hint)
            }
            Stranger::NoToken | Stranger::Unknown => {
                Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", String::from(stranger.message()), hint)
            }
        })
    }

    /// Refuses, unless whoever asks may see how the cluster is.
    fn check_cluster(&self) -> Result<(), Problem> {
        match self.access.present().rights().is_some_and(|rights| !rights.may_cluster(Right::Read)) {
            true => Err(forbidden(Right::Read, "cluster").into()),
            false => Ok(()),
        }
    }

    async fn carry_out(&self, resource: Resource, request: Request) -> Result<Response, Problem> {
        let method = match request.method() {
            &Method::HEAD => Method::GET,
            method => method.clone(),
        };
        if !resource.methods().contains(&method) {
            return Ok(wrong_method(&method, resource.methods()));
        }
        if method != Method::GET {
            check_origin(request.headers())?;
        }
        let query = Query::parse(request.uri().query(), resource.parameters(&method))?;
        let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
        let (parts, body) = request.into_parts();
        let headers = parts.headers;
        match (resource, &method) {
            (Resource::Live, _) => Ok("ok\n".into_response()),
            (Resource::Ready, _) => Ok(self.ready(&query)),
            (Resource::Metrics, _) => {
                self.check_cluster().map(|()| typed("text/plain; version=0.0.4; charset=utf-8", telemetry::metrics()))
            }
            (Resource::OpenApi, _) => Ok(typed("application/json", include_str!("openapi.json"))),
            (Resource::Page, _) => Ok(match self.client() {
                Ok(client) => page::show(&client),
                Err(problem) => page::show_without_data(&problem),
            }),
            (Resource::Asset(name), _) => console::file(&name, &headers),
            (Resource::History, _) => {
                self.check_cluster()?;
                processes::history(self.gateway.as_ref(), &self.access.identity(), &query).await
            }
            (Resource::Processes, _) => {
                self.check_cluster()?;
                processes::list(self.gateway()?).await
            }
            (Resource::Cluster, _) => tables::cluster(&self.client()?).await,
            (Resource::Events, _) if query.flag("follow") => {
                events::follow(&self.client()?, &query, last, self.shutdown.clone())
            }
            (Resource::Events, _) => events::list(&self.client()?, &query).await,
            (Resource::Tables, &Method::POST) => {
                let (body, _room) = self.read(body, 1 << 20).await?;
                tables::create(&self.client()?, &body).await
            }
            (Resource::Tables, _) => tables::list(&self.client()?, &query).await,
            (Resource::Table(table), &Method::PATCH) => {
                let (body, _room) = self.read(body, 1 << 20).await?;
                tables::alter(&self.client()?, &table, &body).await
            }
            (Resource::Table(table), &Method::DELETE) => tables::drop_table(&self.client()?, &table, &query).await,
            (Resource::Restore(table), _) => tables::restore(&self.client()?, table).await,
            (Resource::Table(table), _) => tables::show(&self.client()?, &table).await,
            (Resource::Rows(table), &Method::POST) => {
                let (body, _room) = self.read(body, ROWS).await?;
                rows::put_many(self.gateway()?, &table, &body).await
            }
            (Resource::Rows(table), _) if query.bytes("row").is_some() => {
                rows::get_many(&self.client()?, &table, &query).await
            }
            (Resource::Rows(table), _) => rows::scan(&self.client()?, &table, &query).await,
            (Resource::Changes(table), _) => changes::list(&self.client()?, &table, &query).await,
            (Resource::Row(table, row), &Method::DELETE) => rows::delete_row(&self.client()?, &table, row).await,
            (Resource::Row(table, row), _) => rows::get_row(&self.client()?, &table, row, &query).await,
            (Resource::Cput(table, row), _) => {
                let (body, _room) = self.read(body, JSON).await?;
                rows::cput(&self.client()?, &table, row, &body).await
            }
            (Resource::Cell(table, row, column), &Method::PUT) => {
                let (value, _room) = self.read(body, limits::VALUE).await?;
                rows::put_cell(&self.client()?, &table, row, column, &query, value).await
            }
            (Resource::Cell(table, row, column), &Method::DELETE) => {
                rows::delete_cell(&self.client()?, &table, row, column, &query).await
            }
            (Resource::Cell(table, row, column), _) => {
                rows::get_cell(&self.client()?, &table, row, column, &query).await
            }
            (Resource::Checkpoints, &Method::POST) => {
                let (body, _room) = self.read(body, 64 << 10).await?;
                checkpoints::create(&self.client()?, &body).await
            }
            (Resource::Checkpoints, _) => checkpoints::list(&self.client()?).await,
            (Resource::Checkpoint(name), &Method::DELETE) => checkpoints::remove(&self.client()?, &name).await,
            (Resource::Checkpoint(name), _) => checkpoints::show(&self.client()?, &name).await,
            (Resource::Remove(node), _) => tables::remove(&self.client()?, node).await,
            (Resource::Drain(node, drain), _) => tables::drain(&self.client()?, node, drain).await,
            (Resource::Tablet(tablet, action), _) => {
                let (body, _room) = self.read(body, 64 << 10).await?;
                tablets::act(&self.client()?, tablet, action, &body).await
            }
            (Resource::Process(node, action), _) => tables::control(self.gateway()?, node, action).await,
        }
    }

    fn gateway(&self) -> Result<&Gateway, Problem> {
        let hint = "Ask a storage node or `diptych up`; a master serves health and metrics only.";
        self.gateway.as_ref().ok_or_else(|| Problem::not_found("this process serves no data", hint))
    }

    fn client(&self) -> Result<Client, Problem> {
        Ok(self.gateway()?.client())
    }

    /// The whole body, with its place among all bodies.
    async fn read(&self, body: Body, limit: usize) -> Result<(Bytes, SemaphorePermit<'_>), Problem> {
        let too_long = || {
            let message = format!("the body has more than {limit} bytes");
            Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid_argument",
                message,
                "`diptych limits` shows every limit.",
            )
        };
        let length = body.size_hint().upper().map_or(limit, |length| usize::try_from(length).unwrap_or(usize::MAX));
        if length > limit {
            return Err(too_long());
        }
        let room = self.bodies.try_acquire_many(length as u32).map_err(|_| Refusal::Overloaded)?;
        let body = axum::body::to_bytes(body, limit).await.map_err(|_| match length {
            length if length == limit => too_long(),
            _ => Problem::invalid("the body broke off"),
        })?;
        Ok((body, room))
    }

    fn ready(&self, query: &Query) -> Response {
        let mut checks = self.health.checks();
        if self.shutdown.is_due() {
            checks.push(("shutdown", Err(String::from("the process is about to stop"))));
        }
        let excluded = query.bytes("exclude");
        let (ready, text) = readiness(&checks, excluded.as_deref(), query.flag("verbose"));
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, text).into_response()
    }
}

/// The verdict, and its text: a line a check if that is asked for or something is wrong.
fn readiness(checks: &[(&str, Result<(), String>)], excluded: Option<&[u8]>, verbose: bool) -> (bool, String) {
    let checks: Vec<_> = checks.iter().filter(|(name, _)| Some(name.as_bytes()) != excluded).collect();
    let ready = checks.iter().all(|(_, verdict)| verdict.is_ok());
    if ready && !verbose {
        return (true, String::from("ok\n"));
    }
    let line = |(name, verdict): &&(&str, Result<(), String>)| match verdict {
        Ok(()) => format!("[+]{name} ok\n"),
        Err(why) => format!("[-]{name} failed: {why}\n"),
    };
    let verdict = if ready { "readyz check passed\n" } else { "readyz check failed\n" };
    (ready, checks.iter().map(line).chain([String::from(verdict)]).collect())
}

fn typed(kind: &'static str, body: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, kind)], body.into()).into_response()
}

fn wrong_method(method: &Method, methods: &[Method]) -> Response {
    let allowed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let message = format!("{method} is not possible here");
    let hint = format!("There are: {allowed}.");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_argument", message, hint);
    ([(ALLOW, allowed)], problem).into_response()
}

/// A browser says which site made it send a change: only our own pages may.
fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let site = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, site)| site.as_bytes());
    if site.is_some() && site == headers.get(HOST).map(HeaderValue::as_bytes) {
        return Ok(());
    }
    let message = "a page of another site must not change anything here";
    Err(Problem::new(StatusCode::FORBIDDEN, "permission_denied", message, ""))
}

/// A value from a body of JSON.
fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::invalid(format!("the body is not the JSON that is expected: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The form that etcd and Kubernetes made usual.
    #[test]
    fn readiness_tells_check_by_check() {
        let checks = [("log", Ok(())), ("master", Err(String::from("no master")))];
        let expected = "[+]log ok\n[-]master failed: no master\nreadyz check failed\n";
        assert_eq!(readiness(&checks, None, false), (false, String::from(expected)));
        assert_eq!(readiness(&checks, Some(b"master"), false), (true, String::from("ok\n")));
        let expected = "[+]log ok\nreadyz check passed\n";
        assert_eq!(readiness(&checks[..1], None, true), (true, String::from(expected)));
    }

    /// A page from elsewhere must not kill nodes of a cluster on the reader's machine.
    #[test]
    fn a_change_from_a_foreign_page_is_refused() {
        let headers = |origin: Option<&'static str>| {
            let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("127.0.0.1:8080"))]);
            headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
            headers
        };
        assert_eq!(check_origin(&headers(None)), Ok(()));
        assert_eq!(check_origin(&headers(Some("http://127.0.0.1:8080"))), Ok(()));
        for foreign in ["http://evil.example", "null", "http://127.0.0.1:9"] {
            assert_eq!(check_origin(&headers(Some(foreign))).unwrap_err().status, StatusCode::FORBIDDEN, "{foreign}");
        }
    }

    /// The description names every path and method that there is, and no other.
    #[test]
    fn openapi_describes_what_is_served() {
        let openapi: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let paths = openapi["paths"].as_object().unwrap();
        for (path, operations) in paths {
            let path = [
                ("{table}", "users"),
                ("{row}", "a"),
                ("{family}", "f"),
                ("{qualifier}", "q"),
                ("{node}", "n1"),
                ("{action}", "kill"),
                ("{tablet}", "t1"),
                ("{checkpoint}", "monday"),
                ("{asset}", "console.js"),
            ]
            .iter()
            .fold(path.clone(), |path, (name, value)| path.replace(name, value));
            let resource = Resource::parse(&path).unwrap_or_else(|problem| panic!("{path}: {problem:?}"));
            let mut described: Vec<String> =
                operations.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
            let mut served: Vec<String> = resource.methods().iter().map(ToString::to_string).collect();
            described.sort();
            served.sort();
            assert_eq!(described, served, "{path}");
            for (method, operation) in operations.as_object().unwrap() {
                let parameters = operation["parameters"].as_array().into_iter().flatten();
                let names: Vec<&str> =
                    parameters.filter(|p| p["in"] == "query").map(|p| p["name"].as_str().unwrap()).collect();
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                assert_eq!(names, resource.parameters(&method), "{method} {path}");
            }
        }
        assert_eq!(paths.len(), 25, "a resource without a description, or the other way round");
    }
}
