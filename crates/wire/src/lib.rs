//! Messages: what goes over a wire, and what it means in the model's words.
//!
//! ```text
//!   people's clients ──v1::{Kv, Admin}── protobuf ──convert──▶ Call, Scan, Answer, AdminRequest …
//!   our own processes ──peer::v1::Peer── Frame ──frame::decode──▶ any serde value
//!   model::Refusal ◀──status──▶ gRPC status
//! ```
//!
//! Whatever comes from outside is checked here once and is a type from then on; errors name what was wrong. Nothing
//! here decides, waits or keeps state.

pub mod admin;
pub mod changes;
pub mod convert;
pub mod events;
pub mod frame;
pub mod settings;
pub mod status;
mod storage;
#[cfg(test)]
mod tests;

pub use convert::{Answer, Call, Invalid, NamedCell, NamedRow, Present, Route, Scan, Written};
pub use status::hint;

/// Generated from `proto/diptych/v1`: the services `Kv` and `Admin` and their messages.
#[allow(missing_docs, clippy::all, clippy::disallowed_types)]
pub mod v1 {
    tonic::include_proto!("diptych.v1");
}

/// Generated from `proto/diptych/peer/v1`: what the processes of a cluster say to each other.
pub mod peer {
    /// The service `Peer` and its `Frame`.
    #[allow(missing_docs, clippy::all, clippy::disallowed_types)]
    pub mod v1 {
        tonic::include_proto!("diptych.peer.v1");
    }
}

/// Descriptors of all our .proto files with their imports, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Largest message between clients and servers: the largest row, and what goes around it.
pub const MAX_MESSAGE: usize = model::limits::ROW + (16 << 20);
