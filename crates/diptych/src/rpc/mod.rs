//! The gRPC services, and what a process of each kind serves on its port.
//!
//! ```text
//!              Kv   Bigtable   Admin   Peer                 beside: reflection, health
//!   node       x    x          x       Link
//!   gateway    x    x          x
//!   master                     x       Session, Admin
//! ```

pub mod admin;
pub mod bigtable;
mod checkpoints;
pub mod kv;
pub mod meter;
pub mod peer;

use std::time::Duration;

use anyhow::Context;
use model::access::DOCUMENTS;
use model::{AdminReply, AdminRequest};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::server::HealthReporter;
use wire::v1::kv_server::KvServer;
use wire::{MAX_MESSAGE, frame};

use self::admin::AdminService;
use self::kv::KvService;
use self::peer::{LinkService, MasterService};
use crate::access::Access;
use crate::access::gate::Gate;
use crate::gateway::Gateway;
use crate::host::master::MasterHandle;
use crate::host::node::local::Local;
use crate::host::peers::Peers;
use crate::host::{Health, Shutdown, until_stopped};
use wire::peer::v1::peer_server::PeerServer;
use wire::v1::admin_server::AdminServer;

/// Requests under way on one connection.
const STREAMS: u32 = 4_096;
/// The health service looks at the checks this often.
const HEALTH: Duration = Duration::from_millis(500);

/// Serves what a storage node serves, until the process shall stop.
pub async fn serve_node(
    listener: TcpListener,
    gateway: Gateway,
    local: Local,
    peers: Peers,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let access = gateway.access().clone();
    let routes = bigtable::add(kv(KvService::new(gateway.clone(), Some(local.clone()))), &gateway)
        .add_service(AdminServer::new(AdminService::Gateway(gateway)))
        .add_service(peer(LinkService::new(local, peers)));
    serve(listener, routes, access, health, shutdown).await
}

/// Serves what a process without a node serves: everything is passed on.
pub async fn serve_gateway(
    listener: TcpListener,
    gateway: Gateway,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let access = gateway.access().clone();
    let routes = bigtable::add(kv(KvService::new(gateway.clone(), None)), &gateway)
        .add_service(AdminServer::new(AdminService::Gateway(gateway)));
    serve(listener, routes, access, health, shutdown).await
}

/// Serves what a master serves.
pub async fn serve_master(
    listener: TcpListener,
    master: MasterHandle,
    access: Access,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    if access.is_on() {
        tokio::spawn(keep_policy(master.clone(), access.clone()));
    }
    let routes = Routes::new(peer(MasterService::new(master.clone())))
        .add_service(AdminServer::new(AdminService::Master(master, access.clone())));
    serve(listener, routes, access, health, shutdown).await
}

fn kv(service: KvService) -> Routes {
    let server = KvServer::new(service);
    Routes::new(server.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
}

fn peer<S: wire::peer::v1::peer_server::Peer>(service: S) -> PeerServer<S> {
    PeerServer::new(service).max_decoding_message_size(frame::MAX_FRAME).max_encoding_message_size(frame::MAX_FRAME)
}

/// A master that leads knows who may do what; another one only sends callers on.
async fn keep_policy(master: MasterHandle, access: Access) {
    loop {
        if let Ok(AdminReply::Documents(documents)) = master.admin(AdminRequest::Documents(DOCUMENTS.into())).await {
            access.learn(&documents);
        }
        tokio::time::sleep(access.refresh()).await;
    }
}

async fn serve(
    listener: TcpListener,
    routes: Routes,
    access: Access,
    health: Health,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .context("our own descriptors are broken")?;
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let reporting = tokio::spawn(report_health(reporter, health, shutdown.clone()));
    let due = shutdown.clone();
    // Keep-alive, because nothing else notices a peer that vanished.
    let serving = Server::builder()
        .layer(Gate(access))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(STREAMS)
        // After a pause of the process many calls have been given up at once; that is no attack.
        .http2_max_pending_accept_reset_streams(Some(STREAMS as usize))
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_routes(routes.add_service(reflection).add_service(health_service).prepare())
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            due.wait().await;
        });
    let result = until_stopped(&shutdown, serving).await.context("the gRPC server failed");
    reporting.abort();
    result
}

/// Keeps grpc.health.v1 true, for the process ("") and for Kv.
async fn report_health(reporter: HealthReporter, health: Health, shutdown: Shutdown) {
    loop {
        let serving = health.is_ready() && !shutdown.is_due();
        let status =
            if serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
        reporter.set_service_status("", status).await;
        reporter.set_service_status("diptych.v1.Kv", status).await;
        if shutdown.is_due() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(HEALTH) => {}
            () = shutdown.wait() => {}
        }
    }
}
