//! Numbers for mutating requests (RIFL, 3.1 and 3.2).
//!
//! Invariant: `first_incomplete` is the smallest number that has been given out and whose holder still lives; so a
//! server that forgets everything before it forgets nothing that anybody may still ask.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use model::{ClientId, RequestId};
use parking_lot::Mutex;

/// Gives out the request ids of one client.
#[derive(Debug)]
pub(crate) struct Sequences {
    client: ClientId,
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    open: BTreeSet<u64>,
}

/// A request that is under way. Dropped when its answer is there or nobody wants it any more.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) id: RequestId,
    of: Arc<Sequences>,
}

impl Sequences {
    /// For a client of which there is no second.
    pub(crate) fn new(client: ClientId) -> Arc<Sequences> {
        Arc::new(Sequences { client, numbers: Mutex::default() })
    }

    /// The next request.
    pub(crate) fn open(self: &Arc<Self>) -> Open {
        let mut numbers = self.numbers.lock();
        numbers.last += 1;
        let sequence = numbers.last;
        numbers.open.insert(sequence);
        let first_incomplete = numbers.open.first().copied().unwrap_or(sequence);
        Open { id: RequestId { client: self.client, sequence, first_incomplete }, of: Arc::clone(self) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.of.numbers.lock().open.remove(&self.id.sequence);
    }
}

/// 64 bits of chance from the standard library's hasher keys, which come from the operating system.
pub(crate) fn chance() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RIFL 3.2: the watermark stops at the oldest request without an answer, and passes it once it is there.
    #[test]
    fn the_watermark_is_the_oldest_open_request() {
        let sequences = Sequences::new(ClientId(7));
        let (first, second, third) = (sequences.open(), sequences.open(), sequences.open());
        let watermark = |open: &Open| (open.id.sequence, open.id.first_incomplete);
        assert_eq!([&first, &second, &third].map(watermark), [(1, 1), (2, 1), (3, 1)]);
        drop(second);
        assert_eq!(watermark(&sequences.open()), (4, 1));
        drop(first);
        assert_eq!(watermark(&sequences.open()), (5, 3));
        drop(third);
        assert_eq!(watermark(&sequences.open()), (6, 6));
    }
}
