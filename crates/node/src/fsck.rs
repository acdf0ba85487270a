//! Checks what a stopped node has on its disk: its identity, and all that the engine keeps. Changes nothing.

use disk::Disk;
use std::sync::Arc;
pub use store::fsck::{Checked, Finding};

use crate::identity::Identity;

/// Reads everything and says what is not as it should be, and whose folder it is, if it is one.
pub fn fsck(disk: &Arc<dyn Disk>) -> (Option<String>, Checked) {
    let mut checked = store::fsck::check(disk);
    let whose = match Identity::read(&**disk) {
        Ok(Some(identity)) => Some(format!("node {}, start number {}", identity.node, identity.incarnation.0)),
        Ok(None) => {
            if checked.records > 0 || checked.tablets > 0 {
                checked.find("node.id", true, "it is missing, though there is data");
            }
            None
        }
        Err(error) => {
            checked.find("node.id", true, error.to_string());
            None
        }
    };
    (whose, checked)
}
