//! HTTP: REST under `/v1`, health, metrics, and a page for people. Its own port, beside gRPC.
//!
//! ```text
//!   request ─▶ Resource (path, decoded once) ─▶ method ─▶ rows, tables ─▶ client::Client ─▶ the cluster
//! ```
//!
//! Row keys and qualifiers are any bytes, which is why the paths are read here and not by axum's router. Bodies are
//! bounded, each and all together. A change that a foreign page makes a browser send is refused. Every answer that is
//! not good is a [`Problem`].

mod page;
mod problem;
mod resource;
mod rows;
mod tables;

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use client::Client;
use metrics::{counter, histogram};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use self::problem::Problem;
use self::resource::{Query, Resource};
use crate::gateway::Gateway;
use crate::host::{Health, Shutdown, until_stopped};
use crate::telemetry;

/// Bytes of a body of JSON: the largest value, twice, in base64.
const JSON: usize = model::limits::VALUE / 3 * 8 + (1 << 20);
/// Bytes of all bodies that are being read or carried out.
const BODIES: usize = 512 << 20;

/// Serves until the process shall stop. Without a gateway (a master has none) there are health and metrics only.
pub async fn serve(
    listener: TcpListener,
    gateway: impl Into<Option<Gateway>>,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let site = Site { gateway: gateway.into(), health, shutdown: shutdown.clone(), bodies: Semaphore::new(BODIES) };
    let router = Router::new().fallback(answer).with_state(Arc::new(site));
    let due = shutdown.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { due.wait().await });
    until_stopped(&shutdown, async { serving.await }).await.context("the HTTP server failed")
}

struct Site {
    gateway: Option<Gateway>,
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
        Ok(resource) => site.carry_out(resource, request).await,
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
            Resource::Page => "page",
            Resource::Live | Resource::Ready => "health",
            Resource::Metrics => "metrics",
            Resource::OpenApi => "openapi",
            Resource::Tables | Resource::Table(_) => "tables",
            Resource::Rows(_) => "rows",
            Resource::Row(..) => "row",
            Resource::Cell(..) => "cell",
            Resource::Cput(..) => "cput",
            Resource::Cluster => "cluster",
            Resource::Process(..) => "nodes",
        }
    }

    /// The methods that it has.
    fn methods(&self) -> &'static [Method] {
        match self {
            Resource::Page
            | Resource::Live
            | Resource::Ready
            | Resource::Metrics
            | Resource::OpenApi
            | Resource::Rows(_)
            | Resource::Cluster => &[Method::GET],
            Resource::Tables => &[Method::GET, Method::POST],
            Resource::Table(_) | Resource::Row(..) => &[Method::GET, Method::DELETE],
            Resource::Cell(..) => &[Method::GET, Method::PUT, Method::DELETE],
            Resource::Cput(..) | Resource::Process(..) => &[Method::POST],
        }
    }

    /// The query parameters that it takes with this method.
    fn parameters(&self, method: &Method) -> &'static [&'static str] {
        match (self, method) {
            (Resource::Ready, _) => &["verbose", "exclude"],
            (Resource::Rows(_), _) => &["prefix", "start", "end", "limit", "column", "family", "versions"],
            (Resource::Row(..), &Method::GET) => &["column", "family", "versions"],
            (Resource::Cell(..), &Method::PUT | &Method::DELETE) => &["timestamp"],
            _ => &[],
        }
    }
}

impl Site {
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
        match resource {
            Resource::Live => return Ok("ok\n".into_response()),
            Resource::Ready => return Ok(self.ready(&query)),
            Resource::Metrics => return Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::metrics()).into_response()),
            Resource::OpenApi => return Ok(([(CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()),
            _ => {}
        }
        let Some(gateway) = &self.gateway else {
            let hint = "Ask a storage node or `diptych up`; a master serves health and metrics only.";
            return Err(Problem::not_found("this process serves no data", hint));
        };
        self.use_cluster(gateway, resource, &method, &query, request).await
    }

    async fn use_cluster(
        &self,
        gateway: &Gateway,
        resource: Resource,
        method: &Method,
        query: &Query,
        request: Request,
    ) -> Result<Response, Problem> {
        let client: &Client = gateway.client();
        let body = request.into_body();
        match (resource, method) {
            (Resource::Page, _) => page::show(client).await,
            (Resource::Cluster, _) => tables::cluster(client).await,
            (Resource::Tables, &Method::POST) => {
                let (body, _room) = self.read(body, 1 << 20).await?;
                tables::create(client, &body).await
            }
            (Resource::Tables, _) => tables::list(client).await,
            (Resource::Table(table), &Method::DELETE) => tables::drop_table(client, &table).await,
            (Resource::Table(table), _) => tables::show(client, &table).await,
            (Resource::Rows(table), _) => rows::scan(client, &table, query).await,
            (Resource::Row(table, row), &Method::DELETE) => rows::delete_row(client, &table, row).await,
            (Resource::Row(table, row), _) => rows::get_row(client, &table, row, query).await,
            (Resource::Cput(table, row), _) => {
                let (body, _room) = self.read(body, JSON).await?;
                rows::cput(client, &table, row, &body).await
            }
            (Resource::Cell(table, row, column), &Method::PUT) => {
                let (value, _room) = self.read(body, model::limits::VALUE).await?;
                rows::put_cell(client, &table, row, column, query, value).await
            }
            (Resource::Cell(table, row, column), &Method::DELETE) => {
                rows::delete_cell(client, &table, row, column, query).await
            }
            (Resource::Cell(table, row, column), _) => rows::get_cell(client, &table, row, column).await,
            (Resource::Process(node, action), _) => tables::control(gateway, node, action).await,
            (Resource::Live | Resource::Ready | Resource::Metrics | Resource::OpenApi, _) => {
                unreachable!("answered without the cluster")
            }
        }
    }
}
