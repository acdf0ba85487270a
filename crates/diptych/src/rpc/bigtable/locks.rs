//! Locks of rows: who decides by what a row is waits for others in this process who do, so that nobody has to begin anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use bigtable::names::Table;
use bytes::Bytes;
use parking_lot::Mutex;

/// What is locked.
type Lock = tokio::sync::Mutex<()>;

/// One lock for each row that somebody is deciding about.
#[derive(Default)]
pub struct RowLocks {
    rows: Mutex<BTreeMap<(String, Bytes), Weak<Lock>>>,
}

impl RowLocks {
    /// The lock of a row. Those that nobody holds any more are dropped when they have become many.
    pub fn lock(&self, table: &Table, row: &Bytes) -> Arc<Lock> {
        let mut rows = self.rows.lock();
        let key = (table.native(), row.clone());
        if let Some(lock) = rows.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        if rows.len() >= 1_024 && rows.len().is_power_of_two() {
            rows.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(Lock::new(()));
        rows.insert(key, Arc::downgrade(&lock));
        lock
    }
}
