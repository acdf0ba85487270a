//! The engine: what a storage node keeps on its disk, as plain blocking code over a [`disk::Disk`].
//!
//! ```text
//!   records ──▶ log        one for all tablets of the node; what is synced here is prepared
//!      │
//!      └─apply─▶ tablet    memtable ──flush──▶ sorted tables ──merge──▶ fewer sorted tables
//!                  │                              named by the manifest
//!                  └─view─▶ rows, merged over all of them
//! ```
//!
//! Every byte that comes back from the disk is checked; damage is an [`Error::Corrupt`] with its place. Work that takes
//! long is a value (a job) that the host runs where it likes: nothing here starts a thread or reads a clock.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod error;
pub mod fsck;
pub mod log;

mod changes;
pub mod checkpoint;
pub mod compaction;
pub mod digest;
pub mod job;
pub mod keeper;
pub mod key;
pub mod manifest;
pub mod memtable;
pub mod merge;
mod output;
mod reads;
pub mod scrub;
pub mod sstable;
pub mod tablet;
pub mod trash;
mod version;
pub mod view;

pub use changes::KeptChange;
pub use compaction::Urgency;
pub use error::Error;
pub use job::{Done, FileInfo, Job, JobKind};
pub use keeper::{Keeper, Pace};
pub use tablet::{Pressure, Tablet};
pub use view::View;
