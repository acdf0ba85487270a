//! The words of the house: what a row, a tablet, an epoch and a moment are.
//!
//! ```text
//!   Table ──slices──▶ Tablet ──Configuration, Lineage(epoch)──▶ primary, secondaries
//!     │                  │
//!  families           rows: key ─▶ family:qualifier ─▶ timestamp ─▶ value
//! ```
//!
//! Everything here is a plain value. The crate is `no_std`, so that nothing in it can read a clock, draw a random
//! number or open a file; whoever needs those gets them as arguments.

#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

extern crate alloc;

pub mod access;
pub mod changes;
pub mod checkpoint;
pub mod document;
pub mod event;
pub mod follow;
pub mod freshness;
pub mod group;
pub mod ids;
pub mod limits;
pub mod mutation;
pub mod payload;
pub mod random;
pub mod read;
pub mod refusal;
pub mod request;
pub mod row;
pub mod schema;
pub mod settings;
pub mod slice;
pub mod storage;
pub mod text;
pub mod time;

pub use access::Rights;
pub use bytes::Bytes;
pub use changes::{ChangesPage, ChangesQuery, RowChange};
pub use checkpoint::{Checkpoint, CheckpointAnswer, CheckpointId, CheckpointOrder};
pub use document::{Document, DocumentChange, Documents};
pub use event::{Event, EventPage, EventQuery};
pub use freshness::{Consistency, Freshness};
pub use group::{Assignment, Configuration, Lineage, Tablet};
pub use ids::{
    ClientId, ClusterId, Epoch, FamilyId, Incarnation, LocalityId, Lsn, NodeId, RequestId, TableId, TabletId,
};
pub use mutation::{Batch, Change, Command, Condition, Mutation, Outcome, RowChanges};
pub use payload::{Close, Digest, Heir, Merge, Payload, Split, SplitAt};
pub use read::{ColumnFilter, ReadOptions, RowRange};
pub use refusal::Refusal;
pub use request::{AdminReply, AdminRequest, Operation, Reply, Request, Ticket};
pub use row::{Cell, Fingerprint, Row};
pub use schema::{Family, Partition, Retention, Schema};
pub use settings::{Aggregate, Granularity, Settings, SettingsChange};
pub use slice::Slice;
pub use storage::{Compaction, Compression, Filter, LocalityChange, LocalityGroup, RunId, Storage, StorageChange};
pub use time::{Instant, Timestamp};
