//! As whom a client comes: what it says of itself with every request.

use std::fmt;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::Error;

/// In the metadata of a request that a process of the cluster makes for somebody: for whom.
pub const ACTING: &str = "diptych-acting";

/// What a client says of itself. The default says nothing, which is enough where nobody asks.
#[derive(Clone, Default)]
pub struct Identity {
    token: Option<MetadataValue<Ascii>>,
    acting: Option<MetadataValue<Ascii>>,
}

impl Identity {
    /// With a bearer token.
    pub fn with_token(token: &str) -> Result<Identity, Error> {
        let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
        let mut value = value.map_err(|_| Error::Protocol("the token has characters that no token has".into()))?;
        value.set_sensitive(true);
        Ok(Identity { token: Some(value), acting: None })
    }

    /// What the header `authorization` of a request over HTTP is.
    pub fn authorization(&self) -> Option<&str> {
        self.token.as_ref().and_then(|token| token.to_str().ok())
    }

    /// The same for somebody else, whose name this is: only processes of the cluster may.
    pub fn acting_for(self, name: &str) -> Result<Identity, Error> {
        let name = name.parse().map_err(|_| Error::Protocol(format!("{name:?} is no name of a principal")))?;
        Ok(Identity { acting: Some(name), ..self })
    }
}

impl Interceptor for Identity {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        if let Some(name) = &self.acting {
            request.metadata_mut().insert(ACTING, name.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.token.is_some() { "a token" } else { "no token" };
        write!(f, "Identity({token}, for {:?})", self.acting)
    }
}
