//! Google's Bigtable API, on the port of the others: its clients work unchanged with `BIGTABLE_EMULATOR_HOST`.
//!
//! ```text
//!   data ───────┐                  ┌─ crate `bigtable`: what a request means
//!   tables ─────┼─ Tables: which ──┤
//!   instances ──┘   table is it    └─ client::Client: rows, where they are     Gateway: the master
//! ```
//!
//! What is not served answers `UNIMPLEMENTED` with a message.

mod changes;
mod data;
mod instances;
mod locks;
mod operations;
mod profiles;
mod reading;
mod shelf;
mod tables;
mod views;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use ::bigtable::names::Table;
use ::bigtable::services::{
    bigtable_instance_admin_server::BigtableInstanceAdminServer, bigtable_server::BigtableServer,
    bigtable_table_admin_server::BigtableTableAdminServer, operations_server::OperationsServer,
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

/// What an operator may choose.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a table that was deleted through this API can be brought back; zero is not at all.
    pub undelete_for: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { undelete_for: Duration::from_secs(3_600) }
    }
}

/// Adds the services.
pub fn add(routes: Routes, gateway: &Gateway) -> Routes {
    let tables = Tables { gateway: gateway.clone(), known: Arc::default() };
    let shelf = shelf::Shelf::new(tables.clone());
    let profiles = profiles::Profiles { shelf: shelf.clone() };
    let views = views::Views::new(tables.clone(), shelf.clone());
    let data = BigtableServer::new(data::Data::new(tables.clone(), profiles.clone(), views.clone()));
    let (done, undelete_for) = (operations::Done::default(), gateway.bigtable().undelete_for);
    let admin = tables::TableAdmin { tables: tables.clone(), views: views.clone(), done: done.clone(), undelete_for };
    let admin = BigtableTableAdminServer::new(admin);
    let instances = instances::InstanceAdmin { tables, shelf, profiles, views, done: done.clone(), undelete_for };
    let instances = BigtableInstanceAdminServer::new(instances);
    routes
        .add_service(Served {
            inner: data.max_decoding_message_size(MESSAGE).max_encoding_message_size(MESSAGE),
            methods: data::METHODS,
        })
        .add_service(Served { inner: admin.max_decoding_message_size(MESSAGE), methods: tables::METHODS })
        .add_service(Served { inner: instances, methods: instances::METHODS })
        .add_service(Served { inner: OperationsServer::new(done), methods: operations::METHODS })
}

/// What was heard of a table, and when.
type Known = (Instant, Arc<Schema>);

/// Which tables there are, as the cluster calls them.
#[derive(Clone)]
struct Tables {
    gateway: Gateway,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

impl Tables {
    /// In the name of whoever made the request.
    fn client(&self) -> Client {
        self.gateway.client()
    }

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
        let schema = self.client().table(&native).await.map_err(|error| self.status(table, &error))?;
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
            Some(refusal @ Refusal::NoChanges(_)) => Status::failed_precondition(refusal.to_string()),
            Some(refusal @ Refusal::ChangesGone { .. }) => Status::out_of_range(refusal.to_string()),
            Some(refusal @ Refusal::Protected(_)) => Status::failed_precondition(refusal.to_string()),
            Some(refusal @ Refusal::Forbidden(_)) => Status::permission_denied(refusal.to_string()),
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
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::Aborted => tonic::Code::Aborted,
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

fn time(at: Timestamp) -> prost_types::Timestamp {
    let nanos = (at.0.rem_euclid(1_000_000) * 1_000) as i32;
    prost_types::Timestamp { seconds: at.0.div_euclid(1_000_000), nanos }
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
        let what = format!("{}/{method} is not served by Diptych; {}", S::NAME, instead(method));
        Either::Right(ready(Ok(Status::unimplemented(what).into_http())))
    }
}

/// What there is in the place of a method that is not served.
fn instead(method: &str) -> &'static str {
    let with = |words: &[&str]| words.iter().any(|word| method.contains(word));
    match () {
        () if with(&["Backup", "Snapshot"]) || method == "RestoreTable" => {
            "`diptych checkpoint` keeps copies of tables and makes new ones of them"
        }
        () if with(&["Iam"]) => "`diptych acl` says who may do what, where access is controlled (--access)",
        () if with(&["Query"]) => "there is no SQL; read rows with filters",
        () if with(&["LogicalView", "MaterializedView"]) => "there are authorized views",
        () if with(&["SchemaBundle"]) => "values are bytes, whatever they mean",
        () if with(&["HotTablets"]) => "`diptych tablet list --json` shows the load of each tablet",
        () if with(&["Cluster", "MemoryLayer"]) => "an instance has one cluster, whose nodes `diptych node list` shows",
        () => "docs/bigtable.md says what is",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/bigtable.md says what is served: between two marks it is written by this test, if it runs with UPDATE=1.
    #[test]
    fn the_document_lists_what_is_served() {
        let services = [
            ("Bigtable", data::METHODS),
            ("BigtableTableAdmin", tables::METHODS),
            ("BigtableInstanceAdmin", instances::METHODS),
            ("Operations", operations::METHODS),
        ];
        let count: usize = services.iter().map(|(_, methods)| methods.len()).sum();
        let mut table = format!("These {count} methods are served:\n\n| service | served |\n|---|---|\n");
        for (service, methods) in services {
            table += &format!("| `{service}` | {} |\n", methods.join(", "));
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/bigtable.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (head, rest) = page.split_once("<!-- methods -->\n").unwrap();
        let (_, tail) = rest.split_once("<!-- end of methods -->\n").unwrap();
        let right = format!("{head}<!-- methods -->\n{table}<!-- end of methods -->\n{tail}");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &right).unwrap();
        } else {
            assert!(page == right, "docs/bigtable.md is out of date: run this test with UPDATE=1");
        }
    }
}
