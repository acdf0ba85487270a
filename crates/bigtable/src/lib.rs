//! Google's Bigtable API in our words. Decides nothing about rows and speaks to nobody: what comes in is checked and put into the words
//! of `model` and `filter`, what goes out is cut into the messages that clients expect.
//!
//! ```text
//!   RowSet, RowFilter ──▶ rows, filters ──▶ ranges, filter::Filter          Row ──▶ chunks ──▶ ReadRowsResponse …
//!   Mutation ──▶ writes ──▶ model::Change        ReadModifyWriteRule ──▶ modify ──▶ model::Change
//!   Table, ColumnFamily, GcRule ◀──▶ tables ◀──▶ families and retention      names: where a table is
//! ```
//!
//! Messages come from a crate that is generated from the published schemas; what is newer than that is in [`newer`].

pub mod bounds;
pub mod changes;
pub mod chunks;
pub mod filters;
pub mod modify;
pub mod names;
pub mod newer;
mod problem;
pub mod rows;
pub mod tables;
pub mod types;
pub mod views;
pub mod writes;

pub use googleapis_tonic_google_bigtable_admin_v2::google::bigtable::admin::v2 as admin;
pub use googleapis_tonic_google_bigtable_v2::google::bigtable::v2 as data;

pub use googleapis_tonic_google_longrunning::google::longrunning;
pub use googleapis_tonic_google_rpc::google::rpc;

pub use self::problem::{Code, Problem};

/// `google.protobuf.Empty`.
pub type Empty = ();

/// The services as traits, and what serves them.
#[allow(missing_docs, clippy::all, reason = "generated")]
pub mod services {
    include!(concat!(env!("OUT_DIR"), "/google.bigtable.v2.Bigtable.rs"));
    include!(concat!(env!("OUT_DIR"), "/google.bigtable.admin.v2.BigtableTableAdmin.rs"));
    include!(concat!(env!("OUT_DIR"), "/google.bigtable.admin.v2.BigtableInstanceAdmin.rs"));
    include!(concat!(env!("OUT_DIR"), "/google.longrunning.Operations.rs"));
}
