//! Rows that come one by one, and go to their tablets in batches.
//!
//! ```text
//!   put ─▶ block of tablet 3 ┐ full, or old, or waited for
//!   put ─▶ block of tablet 7 ┼──────────────────▶ Pipeline::mutate_many ──▶ what became of each row
//!   put ─▶ block of tablet 3 ┘
//! ```
//!
//! Memory is bounded by what may be under way and by [`OPEN_BYTES`]. Rows of one block are written in their order; of two
//! blocks either may be first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::{RowChanges, Slice, TabletId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::pipeline::{Pipeline, WrittenMany, outcome};
use crate::routing::Seek;
use crate::{Client, Error};

/// A block of so many rows or bytes is full: large enough that what a message, an entry and a sync cost is spread over many
/// rows, and small enough that several are under way.
const BLOCK_ROWS: usize = 2_000;
const BLOCK_BYTES: usize = 256 << 10;
/// All blocks that are not full.
const OPEN_BYTES: usize = 32 << 20;
/// A block that is not full is sent after this.
const LINGER: Duration = Duration::from_millis(50);

/// Collects rows into batches and sends these. Clones share the blocks.
#[derive(Clone)]
pub struct Batches {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    pipeline: Pipeline,
    table: Arc<str>,
    open: Mutex<Open>,
}

/// Blocks that are not sent yet.
#[derive(Default)]
struct Open {
    /// Rows that the map does not know are of one that no tablet has.
    blocks: BTreeMap<Option<TabletId>, Block>,
    /// Of the row before.
    last: Option<(Slice, TabletId)>,
    /// How many blocks there have been.
    blocks_begun: u64,
    bytes: usize,
}

struct Block {
    id: BlockId,
    rows: Vec<RowChanges<String>>,
    bytes: usize,
    done: watch::Sender<Option<Arc<WrittenMany>>>,
}

/// Rows that are sent together have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(u64, Option<TabletId>);

/// What will have become of a row. Dropping it does not take the row back.
pub struct PendingRow {
    block: BlockId,
    place: usize,
    outcome: watch::Receiver<Option<Arc<WrittenMany>>>,
    /// What is under way lives as long as somebody waits.
    _shared: Arc<Shared>,
}

impl PendingRow {
    /// With which rows it goes.
    pub fn block(&self) -> BlockId {
        self.block
    }

    /// Is it known what became of it?
    pub fn is_settled(&self) -> bool {
        self.outcome.borrow().is_some()
    }
}

impl Client {
    /// Writes rows of a table in batches, of which at most `in_flight` are under way.
    pub fn batches(&self, table: &Arc<str>, in_flight: usize) -> Batches {
        let (client, pipeline) = (self.clone(), self.pipeline(in_flight));
        let shared = Shared { client, pipeline, table: Arc::clone(table), open: Mutex::default() };
        Batches { shared: Arc::new(shared) }
    }
}

impl Batches {
    /// Takes a row. It is written after all rows of the block `after`, or given back: then wait for these first.
    pub async fn put(&self, row: RowChanges<String>, after: Option<BlockId>) -> Result<PendingRow, RowChanges<String>> {
        let (pending, full) = self.shared.take(row, after)?;
        if let Some(block) = full {
            self.shared.send(block).await;
        }
        Ok(pending)
    }

    /// Waits for a row, and sends its block for that.
    pub async fn written(&self, mut row: PendingRow) -> Result<Timestamp, Error> {
        let block = match row.is_settled() {
            true => None,
            false => self.shared.open.lock().remove(row.block),
        };
        if let Some(block) = block {
            self.shared.send(block).await;
        }
        outcome(&mut row.outcome).await.of(row.place)
    }
}

impl Open {
    fn remove(&mut self, id: BlockId) -> Option<Block> {
        let tablet = id.1;
        self.blocks.get(&tablet).filter(|block| block.id == id)?;
        let block = self.blocks.remove(&tablet)?;
        self.bytes -= block.bytes;
        // The map may have changed.
        self.last = None;
        Some(block)
    }
}

impl Shared {
    /// Puts a row into a block; and a block that is to be sent, if any.
    fn take(
        self: &Arc<Self>,
        row: RowChanges<String>,
        after: Option<BlockId>,
    ) -> Result<(PendingRow, Option<Block>), RowChanges<String>> {
        let mut open = self.open.lock();
        let open = &mut *open;
        if open.last.as_ref().is_none_or(|(slice, _)| !slice.covers(&row.row)) {
            let found = self.client.inner.routing.read().locate(&self.table, Seek::Row(&row.row), 0).ok();
            open.last = found.map(|place| (place.slice, place.route.tablet));
        }
        let tablet = open.last.as_ref().map(|(_, tablet)| *tablet);
        if after.is_some_and(|after| open.blocks.get(&tablet).is_none_or(|block| block.id != after)) {
            return Err(row);
        }
        let block = open.blocks.entry(tablet).or_insert_with(|| {
            open.blocks_begun += 1;
            let id = BlockId(open.blocks_begun, tablet);
            tokio::spawn(linger(Arc::clone(self), id));
            Block { id, rows: Vec::new(), bytes: 0, done: watch::channel(None).0 }
        });
        let weight = row.weight();
        let (place, outcome) = (block.rows.len(), block.done.subscribe());
        let pending = PendingRow { block: block.id, place, outcome, _shared: Arc::clone(self) };
        block.rows.push(row);
        block.bytes += weight;
        open.bytes += weight;
        let full = block.rows.len() >= BLOCK_ROWS || block.bytes >= BLOCK_BYTES;
        let id = match full {
            true => Some(block.id),
            false if open.bytes > OPEN_BYTES => {
                let largest = open.blocks.values().max_by_key(|block| block.bytes);
                largest.map(|block| block.id)
            }
            false => None,
        };
        let full = id.and_then(|id| open.remove(id));
        Ok((pending, full))
    }

    async fn send(&self, block: Block) {
        self.pipeline.send_many(&self.table, block.rows, block.done).await;
    }
}

/// Sends the block if it has not become full by then.
async fn linger(shared: Arc<Shared>, id: BlockId) {
    sleep(LINGER).await;
    let block = shared.open.lock().remove(id);
    if let Some(block) = block {
        shared.send(block).await;
    }
}
