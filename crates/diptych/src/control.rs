//! What `up` can do to the processes that it started.

pub use client::NodeAction;
use model::{NodeId, Refusal};
use std::sync::Arc;

/// Suspends, resumes, kills or restarts the process of a node. May block for a moment: call it where that is allowed.
pub type NodeControl = Arc<dyn Fn(NodeId, NodeAction) -> Result<(), Refusal> + Send + Sync>;
