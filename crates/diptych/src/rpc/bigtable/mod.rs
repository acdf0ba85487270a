//! Google's Bigtable API, on the port of the others: its clients work unchanged with `BIGTABLE_EMULATOR_HOST`.
//!
//! ```text
//!   data ───────┐                  ┌─ crate `bigtable`: what a request means
//!   tables ─────┼─ Tables: which ──┤
//!   instances ──┘   table is it    └─ client::Client: rows, where they are     Gateway: the master
//! ```
//!
//! What is not served answers `UNIMPLEMENTED` with a message.

mod data;
mod instances;
mod locks;
mod reading;
mod tables;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use ::bigtable::names::Table;
use ::bigtable::services::{
    bigtable_instance_admin_server::BigtableInstanceAdminServer, bigtable_server::BigtableServer,
    bigtable_table_admin_server::BigtableTableAdminServer,
};
use ::bigtable::{Code, Problem};
use client::{Client, Error};
use futures_util::future::{Either, Ready, ready};
use model::{Refusal, Schema, Timestamp};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tonic::service::Routes;

use crate::gateway::Gateway;

/// A cell may have 100 MiB, and a row 256.
const MESSAGE: usize = 300 << 20;
/// What was known of a table so long ago is asked for again.
const KNOWN_FOR: Duration = Duration::from_millis(500);

/// Adds the services.
pub fn add(routes: Routes, gateway: &Gateway) -> Routes {
    let tables = Tables { client: gateway.client().clone(), known: Arc::default() };
    let data = BigtableServer::new(data::Data::new(tables.clone()));
    let admin = BigtableTableAdminServer::new(tables::TableAdmin { tables: tables.clone() });
    let instances = BigtableInstanceAdminServer::new(instances::InstanceAdmin { tables });
    routes
        .add_service(Served {
            inner: data.max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE),
            methods: data::METHODS,
        })
        .add_service(Served { inner: admin.max_decoding_message_size(MESSAGE), methods: tables::METHODS })
        .add_service(Served { inner: instances, methods: instances::METHODS })
}

/// What was heard of a table, and when.
type Known = (Instant, Arc<Schema>);

/// Which tables there are, as the cluster calls them.
#[derive(Clone)]
struct Tables {
    client: Client,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

impl Tables {
    /// What is known of a table, from half a second ago at most.
    async fn schema(&self, table: &Table) -> Result<Arc<Schema>, Status> {
        let known = self.known.lock().get(&table.native()).cloned();
        match known {
            Some((heard, schema)) if heard.elapsed() < KNOWN_FOR => Ok(schema),
            _ => self.fetch(table).await,
        }
    }

    /// What is known of a table now.
    async fn fetch(&self, table: &Table) -> Result<Arc<Schema>, Status> {
        let native = table.native();
        let schema = self.client.table(&native).await.map_err(|error| self.status(table, &error))?;
        let schema = Arc::new(schema);
        self.known.lock().insert(native, (Instant::now(), Arc::clone(&schema)));
        Ok(schema)
    }

    /// As [`Tables::schema`], but certainly not older than the families that are named.
    async fn with_families<'a>(
        &self,
        table: &Table,
        families: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Arc<Schema>, Status> {
        let schema = self.schema(table).await?;
        match families.clone().all(|family| schema.family(family).is_some()) {
            true => Ok(schema),
            false => self.fetch(table).await,
        }
    }

    /// The table has changed.
    fn forget(&self, table: &Table) {
        self.known.lock().remove(&table.native());
    }

    /// What became of a request, in this API's words.
    fn status(&self, table: &Table, error: &Error) -> Status {
        match error.refusal() {
            Some(Refusal::NoSuchTable(_)) => {
                self.forget(table);
                Status::not_found(format!("Table not found: {}", table.path()))
            }
            Some(Refusal::NoSuchFamily { family, .. }) => {
                self.forget(table);
                Status::not_found(format!(
                    "Error while accessing '{}' : Requested column family not found. ({family})",
                    table.path()
                ))
            }
            Some(Refusal::Invalid(what)) => Status::invalid_argument(what.clone()),
            Some(Refusal::Exists(_)) => Status::already_exists(format!("Table already exists: {}", table.path())),
            // A request that may succeed later: clients repeat it.
            Some(refusal) => Status::unavailable(refusal.to_string()),
            None => Status::unavailable(error.to_string()),
        }
    }
}

fn status_of(problem: Problem) -> Status {
    let code = match problem.code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::AlreadyExists => tonic::Code::AlreadyExists,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::Unimplemented => tonic::Code::Unimplemented,
    };
    Status::new(code, problem.message)
}

fn no_family(table: &Table, row: &[u8]) -> Status {
    Status::not_found(format!(
        "Error while mutating the row '{}' ({}) : Requested column family not found.",
        row.escape_ascii(),
        table.path()
    ))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// A service that knows which of its methods it serves, and says of the others that it does not.
#[derive(Clone)]
struct Served<S> {
    inner: S,
    methods: &'static [&'static str],
}

impl<S: NamedService> NamedService for Served<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Served<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + NamedService,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        if self.methods.contains(&method) {
            return Either::Left(self.inner.call(request));
        }
        let what = format!("{}/{method} is not served by Diptych; docs/bigtable.md says what is", S::NAME);
        Either::Right(ready(Ok(Status::unimplemented(what).into_http())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/bigtable.md says what is served.
    #[test]
    fn the_document_lists_what_is_served() {
        let page = include_str!("../../../../../docs/bigtable.md");
        let listed = |service: &str| -> Vec<&str> {
            let line =
                page.lines().find_map(|line| line.strip_prefix(&format!("| `{service}` | "))).unwrap_or_default();
            line.trim_end_matches(" |").split(", ").collect()
        };
        let services = [
            ("Bigtable", data::METHODS),
            ("BigtableTableAdmin", tables::METHODS),
            ("BigtableInstanceAdmin", instances::METHODS),
        ];
        for (service, methods) in services {
            let (mut listed, mut served) = (listed(service), methods.to_vec());
            listed.sort_unstable();
            served.sort_unstable();
            assert_eq!(listed, served, "{service}");
        }
        let count: usize = services.iter().map(|(_, methods)| methods.len()).sum();
        assert!(page.contains(&format!("These {count} methods are served")), "{count}");
    }
}
