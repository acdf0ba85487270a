//! The three calls of etcd's v3 API that the comparison needs, over the transport that our own client has.
//!
//! Field numbers are those of etcd's `rpc.proto` and `kv.proto`; fields that nobody reads here are left out.

use anyhow::{Context, Result};
use bytes::Bytes;
use prost::Message;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

/// `serializable` (tag 7) left out is false: the read is linearizable.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// A connection to one member.
#[derive(Clone, Debug)]
pub struct Etcd(Channel);

impl Etcd {
    /// Connects to `host:port`.
    pub async fn connect(address: &str) -> Result<Etcd> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        Ok(Etcd(endpoint.connect().await?))
    }

    /// Sets a key.
    pub async fn put(&self, key: Bytes, value: Bytes) -> Result<()> {
        let response: PutResponse = self.call("/etcdserverpb.KV/Put", PutRequest { key, value }).await?;
        response.header.filter(|header| header.revision > 0).context("etcd names no revision for a put")?;
        Ok(())
    }

    /// Reads a key, linearizably.
    pub async fn get(&self, key: Bytes) -> Result<Option<Bytes>> {
        let response: RangeResponse = self.call("/etcdserverpb.KV/Range", RangeRequest { key }).await?;
        Ok(response.kvs.into_iter().next().map(|kv| kv.value))
    }

    /// Is this member the leader? An error if it knows of none.
    pub async fn leads(&self) -> Result<bool> {
        let response: StatusResponse = self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await?;
        anyhow::ensure!(response.leader != 0, "etcd has no leader");
        Ok(response.header.is_some_and(|header| header.member_id == response.leader))
    }

    async fn call<Q, R>(&self, path: &'static str, request: Q) -> Result<R>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await?;
        let codec = ProstCodec::<Q, R>::default();
        Ok(grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await?.into_inner())
    }
}
