//! The host of the master. (Signatures for `rpc::peer`; the body follows.)

use model::{AdminReply, AdminRequest, NodeId, Refusal};
use protocol::{FromMaster, ToMaster};
use tokio::sync::mpsc;

/// Where requests and nodes reach the master's thread. Cheap to clone.
#[derive(Clone)]
pub struct MasterHandle {}

impl MasterHandle {
    /// Asks the master; `Refusal::NoMaster` if it stops or does not lead, `Refusal::Overloaded` if too much waits.
    /// Dropping the future forgets the answer, not the request.
    pub async fn admin(&self, request: AdminRequest) -> Result<AdminReply, Refusal> {
        let _ = request;
        Err(Refusal::NoMaster)
    }

    /// A node's stream has opened: what the master says to the node goes to `outgoing` (with `try_send`: a full queue
    /// loses messages, the protocol repeats them; use about 64). The newest session of a node takes the place of an
    /// older one. Ends when the [`Session`] is dropped, and then `outgoing` is dropped too.
    pub fn session(&self, node: NodeId, outgoing: mpsc::Sender<FromMaster>) -> Session {
        let _ = (node, outgoing);
        Session {}
    }

    /// Does this master lead (for health checks)?
    pub fn leads(&self) -> bool {
        false
    }
}

/// A node's open stream.
pub struct Session {}

impl Session {
    /// The node has said this. Lost if too much waits already; the node repeats it.
    pub fn hear(&self, message: ToMaster) {
        let _ = message;
    }
}
