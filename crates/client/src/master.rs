//! The way to the master: over any node's Admin service, or however a process of the cluster itself has it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use model::{AdminReply, AdminRequest};
use parking_lot::Mutex;
use tokio::time::timeout;
use tonic::Status;
use wire::{admin, settings, v1};

use crate::channels::Channels;
use crate::{Error, Identity};

/// Asks the master. A client library does it through the nodes; a gateway inside the cluster has its own call.
pub trait Master: Send + Sync + 'static {
    /// One request, one attempt. The caller repeats what failed in passing, but nothing that was lost
    /// ([`Error::Lost`]) if it changes something.
    fn ask(&self, request: AdminRequest) -> BoxFuture<'_, Result<AdminReply, Error>>;
}

/// How long one node may take to answer what only asks.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many other nodes are tried when the endpoint does not answer.
const OTHERS: usize = 3;

/// The master as seen from outside: through the Admin service of the endpoint, or of a node if the endpoint is away.
pub(crate) struct Gateway {
    endpoint: Arc<str>,
    channels: Arc<Channels>,
    identity: Identity,
    /// Addresses of the last map.
    nodes: Mutex<Vec<Arc<str>>>,
}

impl Gateway {
    pub(crate) fn new(endpoint: Arc<str>, channels: Arc<Channels>, identity: Identity) -> Gateway {
        Gateway { endpoint, channels, identity, nodes: Mutex::default() }
    }

    async fn ask_someone(&self, request: AdminRequest) -> Result<AdminReply, Error> {
        let asks = request.only_asks();
        let patience = PATIENCE + request.waits();
        let others = self.nodes.lock().iter().filter(|node| **node != self.endpoint).take(OTHERS).cloned().collect();
        let candidates: Vec<Arc<str>> = [vec![Arc::clone(&self.endpoint)], others].concat();
        let mut first = None;
        for address in &candidates {
            let attempt = self.ask_at(address, request.clone());
            let result = match asks {
                true => timeout(patience, attempt)
                    .await
                    .unwrap_or_else(|_| Err(Error::lost(address, format!("none within {patience:?}")))),
                false => attempt.await,
            };
            match result {
                Err(error @ Error::Unreachable { .. }) => first = first.or(Some(error)),
                Err(error @ Error::Lost { .. }) if asks => first = first.or(Some(error)),
                Err(error) if asks && error.is_passing() => first = first.or(Some(error)),
                result => return result,
            }
        }
        Err(first.unwrap_or_else(|| Error::unreachable(&self.endpoint, "no address to ask")))
    }

    async fn ask_at(&self, address: &Arc<str>, request: AdminRequest) -> Result<AdminReply, Error> {
        let mut admin = self.channels.admin(address, &self.identity)?;
        let failed = |status: Status| Error::from_status(address, &status);
        Ok(match request {
            AdminRequest::CreateTable(table) => {
                let request = v1::CreateTableRequest::from(table);
                AdminReply::Table(admin.create_table(request).await.map_err(failed)?.into_inner().try_into()?)
            }
            AdminRequest::DropTable(table) => {
                let request = v1::DropTableRequest { table };
                AdminReply::Table(admin.drop_table(request).await.map_err(failed)?.into_inner().try_into()?)
            }
            AdminRequest::HideTable { table, keep } => {
                let request = settings::hide_request(table, keep);
                AdminReply::Table(admin.hide_table(request).await.map_err(failed)?.into_inner().try_into()?)
            }
            AdminRequest::RestoreTable(table) => {
                let request = v1::RestoreTableRequest { table };
                AdminReply::Table(admin.restore_table(request).await.map_err(failed)?.into_inner().try_into()?)
            }
            AdminRequest::Hidden => {
                let tables = admin.list_hidden_tables(v1::ListHiddenTablesRequest {}).await.map_err(failed)?;
                let tables = tables.into_inner().tables.into_iter().map(TryInto::try_into);
                AdminReply::Hidden(tables.collect::<Result<_, _>>()?)
            }
            AdminRequest::Documents(prefix) => {
                let documents = admin.list_documents(v1::ListDocumentsRequest { prefix }).await.map_err(failed)?;
                AdminReply::Documents(documents.into_inner().into())
            }
            AdminRequest::ChangeDocument(change) => {
                let documents = admin.change_document(v1::ChangeDocumentRequest::from(change)).await.map_err(failed)?;
                AdminReply::Documents(documents.into_inner().into())
            }
            AdminRequest::AlterTable { table, set, drop, storage, settings } => {
                let request = admin::alter_request(table, set, drop, storage, settings);
                AdminReply::Table(admin.alter_table(request).await.map_err(failed)?.into_inner().try_into()?)
            }
            AdminRequest::SplitTablet { tablet, at } => {
                let request = v1::SplitTabletRequest { tablet: tablet.0, at };
                AdminReply::Split(admin.split_tablet(request).await.map_err(failed)?.into_inner().try_into()?)
            }
            AdminRequest::Map => {
                let map = admin.get_map(v1::GetMapRequest {}).await.map_err(failed)?.into_inner();
                *self.nodes.lock() = map.nodes.iter().map(|node| Arc::from(node.address.as_str())).collect();
                AdminReply::Map(map.try_into()?)
            }
            AdminRequest::Events(query) => {
                let mut pages = admin.events(wire::events::request(query)).await.map_err(failed)?.into_inner();
                let page = pages.message().await.map_err(failed)?;
                AdminReply::Events(page.ok_or_else(|| Error::lost(address, "the stream ended before the page"))?.into())
            }
            AdminRequest::Status => {
                let status = admin.get_status(v1::GetStatusRequest {}).await.map_err(failed)?;
                AdminReply::Status(status.into_inner().try_into()?)
            }
            AdminRequest::Masters => {
                let masters = admin.list_masters(v1::ListMastersRequest {}).await.map_err(failed)?;
                AdminReply::Masters(admin::masters_from_proto(masters.into_inner().masters))
            }
            AdminRequest::AddMaster { id, address } => {
                let masters = admin.add_master(v1::AddMasterRequest { master: id, address }).await.map_err(failed)?;
                AdminReply::Masters(admin::masters_from_proto(masters.into_inner().masters))
            }
            AdminRequest::RemoveMaster(id) => {
                let masters = admin.remove_master(v1::RemoveMasterRequest { master: id }).await.map_err(failed)?;
                AdminReply::Masters(admin::masters_from_proto(masters.into_inner().masters))
            }
            request => {
                let unsaid = || Error::Protocol(format!("there is no message for {request:?}"));
                let message = admin::operate_request(&request).ok_or_else(unsaid)?;
                admin.operate(message).await.map_err(failed)?.into_inner().try_into()?
            }
        })
    }
}

impl Master for Gateway {
    fn ask(&self, request: AdminRequest) -> BoxFuture<'_, Result<AdminReply, Error>> {
        Box::pin(self.ask_someone(request))
    }
}
