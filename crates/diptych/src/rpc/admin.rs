//! The service `diptych.v1.Admin`: tables and the cluster, answered by the master.

use std::pin::Pin;

use client::{Client, Error};
use futures_util::{Stream, stream};
use model::request::ClusterMap;
use model::{AdminReply, AdminRequest, EventPage, EventQuery, NodeId, Refusal};
use tonic::{Request, Response, Status};
use wire::status::to_status;
use wire::v1::{self, admin_server::Admin};

use super::checkpoints;
use crate::access::Access;
use crate::gateway::Gateway;
use crate::host::master::MasterHandle;
use crate::host::node::shard::Clock;

type Pages = Pin<Box<dyn Stream<Item = Result<v1::EventPage, Status>> + Send>>;
/// A follower of events hears at least this often, if only that there is nothing new.
const FOLLOW_WAIT_MS: u32 = 5_000;

/// How the service reaches the master. One attempt: the caller knows best whether to repeat it.
#[derive(Clone)]
pub enum AdminService {
    /// Over the network.
    Gateway(Gateway),
    /// In this very process.
    Master(MasterHandle, Access),
}

impl AdminService {
    async fn ask(&self, request: AdminRequest) -> Result<AdminReply, Status> {
        match self {
            AdminService::Gateway(gateway) => gateway.ask(request).await.map_err(|error| match error {
                // Nobody there is what a client of the cluster knows as a missing master.
                Error::Unreachable { .. } => to_status(&Refusal::NoMaster),
                error => error.to_status(),
            }),
            AdminService::Master(master, access) => {
                let rights = access.present().rights();
                let checked = rights.as_ref().map_or(Ok(()), |rights| rights.check_admin(&request));
                let answered = match checked {
                    // What somebody may see of the map, nodes say.
                    Ok(()) if rights.is_some() && request == AdminRequest::Map => Err(Refusal::NoMaster),
                    Ok(()) => master.admin(request).await,
                    Err(refusal) => Err(refusal),
                };
                answered.map_err(|refusal| to_status(&refusal))
            }
        }
    }

    /// For what concerns nodes and not the master.
    fn client(&self) -> Result<Client, Status> {
        match self {
            AdminService::Gateway(gateway) => Ok(gateway.client()),
            AdminService::Master(..) => Err(Status::unimplemented("nodes do this, and this is a master: ask a node")),
        }
    }

    async fn table(&self, request: AdminRequest) -> Result<Response<v1::Table>, Status> {
        match self.ask(request).await? {
            AdminReply::Table(schema) => Ok(Response::new(schema.into())),
            reply => Err(unexpected(&reply)),
        }
    }

    async fn masters(&self, request: AdminRequest) -> Result<Response<v1::Masters>, Status> {
        match self.ask(request).await? {
            AdminReply::Masters(masters) => {
                Ok(Response::new(v1::Masters { masters: wire::admin::masters_to_proto(masters) }))
            }
            reply => Err(unexpected(&reply)),
        }
    }

    async fn documents(&self, request: AdminRequest) -> Result<Response<v1::Documents>, Status> {
        match self.ask(request).await? {
            AdminReply::Documents(documents) => Ok(Response::new(documents.into())),
            reply => Err(unexpected(&reply)),
        }
    }

    async fn events(&self, query: EventQuery) -> Result<EventPage, Status> {
        match self.ask(AdminRequest::Events(query)).await? {
            AdminReply::Events(page) => Ok(page),
            reply => Err(unexpected(&reply)),
        }
    }

    async fn map(&self) -> Result<ClusterMap, Status> {
        match self.ask(AdminRequest::Map).await? {
            AdminReply::Map(map) => Ok(map),
            reply => Err(unexpected(&reply)),
        }
    }
}

fn unexpected(reply: &AdminReply) -> Status {
    Status::internal(format!("the master answered something else: {reply:?}"))
}

#[tonic::async_trait]
impl Admin for AdminService {
    type EventsStream = Pages;

    async fn create_table(&self, request: Request<v1::CreateTableRequest>) -> Result<Response<v1::Table>, Status> {
        self.table(AdminRequest::try_from(request.into_inner())?).await
    }

    async fn drop_table(&self, request: Request<v1::DropTableRequest>) -> Result<Response<v1::Table>, Status> {
        self.table(AdminRequest::from(request.into_inner())).await
    }

    async fn alter_table(&self, request: Request<v1::AlterTableRequest>) -> Result<Response<v1::Table>, Status> {
        self.table(AdminRequest::try_from(request.into_inner())?).await
    }

    async fn hide_table(&self, request: Request<v1::HideTableRequest>) -> Result<Response<v1::Table>, Status> {
        self.table(AdminRequest::try_from(request.into_inner())?).await
    }

    async fn restore_table(&self, request: Request<v1::RestoreTableRequest>) -> Result<Response<v1::Table>, Status> {
        self.table(AdminRequest::RestoreTable(request.into_inner().table)).await
    }

    async fn list_hidden_tables(
        &self,
        _: Request<v1::ListHiddenTablesRequest>,
    ) -> Result<Response<v1::ListTablesResponse>, Status> {
        match self.ask(AdminRequest::Hidden).await? {
            AdminReply::Hidden(tables) => {
                let tables = tables.into_iter().map(Into::into).collect();
                Ok(Response::new(v1::ListTablesResponse { tables }))
            }
            reply => Err(unexpected(&reply)),
        }
    }

    async fn list_documents(
        &self,
        request: Request<v1::ListDocumentsRequest>,
    ) -> Result<Response<v1::Documents>, Status> {
        self.documents(AdminRequest::Documents(request.into_inner().prefix)).await
    }

    async fn change_document(
        &self,
        request: Request<v1::ChangeDocumentRequest>,
    ) -> Result<Response<v1::Documents>, Status> {
        self.documents(AdminRequest::ChangeDocument(request.into_inner().into())).await
    }

    async fn list_tables(&self, _: Request<v1::ListTablesRequest>) -> Result<Response<v1::ListTablesResponse>, Status> {
        let tables = wire::admin::tables(&self.map().await?).into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListTablesResponse { tables }))
    }

    async fn get_table(&self, request: Request<v1::GetTableRequest>) -> Result<Response<v1::Table>, Status> {
        let name = request.into_inner().table;
        let map = self.map().await?;
        let found = wire::admin::tables(&map).into_iter().find(|schema| schema.name == name);
        found.map(|schema| Response::new(schema.into())).ok_or_else(|| to_status(&map.lacks(&name)))
    }

    async fn get_map(&self, _: Request<v1::GetMapRequest>) -> Result<Response<v1::ClusterMap>, Status> {
        Ok(Response::new(self.map().await?.into()))
    }

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::ClusterStatus>, Status> {
        match self.ask(AdminRequest::Status).await? {
            AdminReply::Status(status) => Ok(Response::new(status.into())),
            reply => Err(unexpected(&reply)),
        }
    }

    async fn operate(&self, request: Request<v1::OperateRequest>) -> Result<Response<v1::OperateResponse>, Status> {
        let reply = self.ask(AdminRequest::try_from(request.into_inner())?).await?;
        let unexpected = unexpected(&reply);
        wire::admin::operate_response(reply).map(Response::new).ok_or(unexpected)
    }

    async fn list_masters(&self, _: Request<v1::ListMastersRequest>) -> Result<Response<v1::Masters>, Status> {
        self.masters(AdminRequest::Masters).await
    }

    async fn add_master(&self, request: Request<v1::AddMasterRequest>) -> Result<Response<v1::Masters>, Status> {
        self.masters(AdminRequest::try_from(request.into_inner())?).await
    }

    async fn remove_master(&self, request: Request<v1::RemoveMasterRequest>) -> Result<Response<v1::Masters>, Status> {
        self.masters(AdminRequest::RemoveMaster(request.into_inner().master)).await
    }

    async fn events(&self, request: Request<v1::EventsRequest>) -> Result<Response<Pages>, Status> {
        let request = request.into_inner();
        let follow = request.follow;
        let mut query = EventQuery::from(request);
        if follow {
            query.wait_ms = if query.wait_ms == 0 { FOLLOW_WAIT_MS } else { query.wait_ms };
        }
        // Nothing is fetched before the caller has taken what came before.
        let pages = stream::unfold(Some((self.clone(), query)), move |state| async move {
            let (service, query) = state?;
            let page = service.events(query.clone()).await;
            let next = page.as_ref().ok().filter(|_| follow).map(|page| page.next);
            let state = next.map(|next| (service, EventQuery { since: Some(next), ..query }));
            Some((page.map(Into::into), state))
        });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn split_tablet(
        &self,
        request: Request<v1::SplitTabletRequest>,
    ) -> Result<Response<v1::SplitTabletResponse>, Status> {
        match self.ask(AdminRequest::from(request.into_inner())).await? {
            AdminReply::Split(split) => Ok(Response::new(split.into())),
            reply => Err(unexpected(&reply)),
        }
    }

    async fn create_checkpoint(
        &self,
        request: Request<v1::CreateCheckpointRequest>,
    ) -> Result<Response<v1::Checkpoint>, Status> {
        let v1::CreateCheckpointRequest { name, table } = request.into_inner();
        let made = self.client()?.create_checkpoint(&name, table.as_deref(), Clock::wall()).await;
        made.map(|made| Response::new(checkpoints::made(made))).map_err(|error| error.to_status())
    }

    async fn list_checkpoints(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsResponse>, Status> {
        let found = self.client()?.checkpoints(request.into_inner().name.as_deref()).await;
        found.map(|found| Response::new(checkpoints::list(found))).map_err(|error| error.to_status())
    }

    async fn remove_checkpoint(
        &self,
        request: Request<v1::RemoveCheckpointRequest>,
    ) -> Result<Response<v1::RemoveCheckpointResponse>, Status> {
        let removal = self.client()?.remove_checkpoint(&request.into_inner().name).await;
        removal.map(|removal| Response::new(checkpoints::removal(removal))).map_err(|error| error.to_status())
    }

    async fn control_node(
        &self,
        request: Request<v1::ControlNodeRequest>,
    ) -> Result<Response<v1::ControlNodeResponse>, Status> {
        let request = request.into_inner();
        let gateway = match self {
            AdminService::Gateway(gateway) if gateway.has_control() => gateway,
            _ => return Err(Status::unimplemented("processes are controlled by `diptych up`, which started them")),
        };
        let action = match request.action() {
            v1::NodeAction::Unspecified => return Err(Status::invalid_argument("the message has no action")),
            action => action,
        };
        let done = gateway.control(NodeId(request.node), action).await;
        done.map(|()| Response::new(v1::ControlNodeResponse {})).map_err(|refusal| to_status(&refusal))
    }
}
