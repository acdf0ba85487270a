//! One HTTP/2 connection for each address, opened when it is first used and again after it broke.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use wire::MAX_MESSAGE;
use wire::frame::MAX_FRAME;
use wire::peer::v1::peer_client::PeerClient;
use wire::v1::{admin_client::AdminClient, kv_client::KvClient};

use crate::{Error, Identity};

/// A connection on which every request says whose it is.
pub(crate) type Line = InterceptedService<Channel, Identity>;

/// The connections of one client.
#[derive(Debug, Default)]
pub(crate) struct Channels(Mutex<BTreeMap<Arc<str>, Channel>>);

impl Channels {
    /// The Kv service at `address`.
    pub(crate) fn kv(&self, address: &Arc<str>, identity: &Identity) -> Result<KvClient<Line>, Error> {
        let client = KvClient::with_interceptor(self.channel(address)?, identity.clone());
        Ok(client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    /// The Admin service at `address`.
    pub(crate) fn admin(&self, address: &Arc<str>, identity: &Identity) -> Result<AdminClient<Line>, Error> {
        Ok(AdminClient::with_interceptor(self.channel(address)?, identity.clone())
            .max_decoding_message_size(MAX_MESSAGE))
    }

    /// The Peer service at `address`.
    pub(crate) fn peer(&self, address: &Arc<str>, identity: &Identity) -> Result<PeerClient<Line>, Error> {
        let client = PeerClient::with_interceptor(self.channel(address)?, identity.clone());
        Ok(client.max_decoding_message_size(MAX_FRAME).max_encoding_message_size(MAX_FRAME))
    }

    /// Closes the connections to whoever is not needed any more.
    pub(crate) fn keep(&self, needed: impl Fn(&str) -> bool) {
        self.0.lock().retain(|address, _| needed(address));
    }

    fn channel(&self, address: &Arc<str>) -> Result<Channel, Error> {
        let mut open = self.0.lock();
        if let Some(channel) = open.get(address) {
            return Ok(channel.clone());
        }
        let channel = endpoint(address)?.connect_lazy();
        open.insert(Arc::clone(address), channel.clone());
        Ok(channel)
    }
}

/// Checks `host:port`.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| Error::unreachable(address, format!("{error}; write host:port")))?;
    // Windows for streams of large rows; keep-alive because nothing else notices a peer that vanished.
    Ok(endpoint
        .connect_timeout(Duration::from_millis(500))
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true))
}
