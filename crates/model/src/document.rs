//! Small documents that the masters keep for those who serve: what an API has beside tables, and who may do what.

use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A document as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Parts with slashes between them, such as `bigtable/profiles/p/i/default`.
    pub name: String,
    /// Index in the masters' log of what wrote it: another one each time.
    pub version: u64,
    /// What it says.
    pub body: Bytes,
}

/// What shall become of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentChange {
    /// Of which.
    pub name: String,
    /// What it says then; `None` removes it.
    pub body: Option<Bytes>,
    /// Only if it is of this version; 0: only if there is none. `None`: in any case.
    pub expect: Option<u64>,
}

/// All documents whose names begin in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Documents {
    /// As of the change of any document that was last by then.
    pub version: u64,
    /// By name.
    pub documents: Vec<Document>,
}
