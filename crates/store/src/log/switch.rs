//! Syncing apart from the writer, and leaving a file of which the sync hangs.
//!
//! ```text
//!   00000007.log   … synced ┃ a b c          the sync of a b c takes for ever
//!                           ┃ void ──────────▶ what lies here does not count any more
//!   00000008.log   header: "7 counts up to ┃" │ a b c │ states │ d …     synced here, and only then acknowledged
//! ```
//!
//! After Bigtable, which has two log files per server and writes to one of them. `a b c` and the states are what the
//! segment begins with: if a crash leaves less than all of that, it has not been begun, and 7 counts with what there is
//! of `a b c`. So whatever the crash leaves is a prefix, and nothing is there twice. That the sync of 7 ends one day is
//! of no interest to anybody but whoever wants to use the file again; if it fails, the log is poisoned all the same.
//!
//! Nothing here touches a folder: the spare has its name already, or the switch would hang behind the very sync.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use model::TabletId;

use super::format::{Place, SEGMENT_HEADER};
use super::segment::Segment;
use super::{Log, Record, encoded_len};
use crate::Error;

/// A sync of what has been appended so far, which any thread may run while the writer goes on.
#[must_use = "it has to be run, and the log has to hear of it"]
pub struct Syncing {
    segment: Arc<Segment>,
    upto: Place,
    /// Records that are synced when it has ended, counted from the start.
    records: u64,
}

impl Syncing {
    /// Waits for the disk. What comes of it goes to [`Log::synced`].
    pub fn run(&self) -> io::Result<()> {
        self.segment.file.sync()
    }
}

/// Records that are written but not synced, in their order.
#[derive(Default)]
pub struct Unsynced {
    records: Vec<Record>,
    /// Where each of them is, and the sum of the tablet's record before it.
    written: Vec<(Place, Option<u32>)>,
    /// How many went before the first of these.
    before: u64,
}

impl Unsynced {
    pub fn push(&mut self, record: Record, place: Place, chain: Option<u32>) {
        self.records.push(record);
        self.written.push((place, chain));
    }

    fn upto(&self) -> u64 {
        self.before + self.records.len() as u64
    }

    fn forget(&mut self, upto: u64) {
        let count = (upto.saturating_sub(self.before) as usize).min(self.records.len());
        self.records.drain(..count);
        self.written.drain(..count);
        self.before += count as u64;
    }

    /// Takes them back, with their places: the sums are again those of the records that are synced.
    fn take_back(&mut self, chains: &mut BTreeMap<TabletId, u32>) -> (Vec<Record>, Vec<Place>) {
        for (record, (_, chain)) in self.records.iter().zip(&self.written).rev() {
            match chain {
                Some(chain) => chains.insert(record.tablet, *chain),
                None => chains.remove(&record.tablet),
            };
        }
        let places = self.written.drain(..).map(|(place, _)| place).collect();
        (std::mem::take(&mut self.records), places)
    }
}

impl Log {
    /// What is to be run so that everything appended so far becomes durable; nothing if it is. Several may be under way.
    pub fn begin_sync(&self) -> Option<Syncing> {
        let (segment, upto, records) = (self.current.clone(), self.end, self.unsynced.upto());
        (!self.is_synced()).then_some(Syncing { segment, upto, records })
    }

    /// A sync has ended. If it failed, nobody knows what is durable, and the log is poisoned. One of a segment that was
    /// left meanwhile says nothing.
    pub fn synced(&mut self, syncing: &Syncing, result: io::Result<()>) -> Result<(), Error> {
        self.alive()?;
        self.poison_if(result, "sync")?;
        if syncing.segment.number == self.current.number && self.synced < syncing.upto {
            self.unsynced.forget(syncing.records);
            self.synced = syncing.upto;
            self.fill_ahead()?;
        }
        Ok(())
    }

    /// Whether all that was appended is durable.
    pub fn is_synced(&self) -> bool {
        self.synced == self.end
    }

    /// Leaves the current segment because its sync hangs: what is not synced is written once more into the spare one, to
    /// be synced there. False if that is not possible: there is nothing to write, no spare with room for it, or the
    /// current segment was not synced itself since the last switch. Then there is nothing to do but wait.
    pub fn switch(&mut self) -> Result<bool, Error> {
        self.alive()?;
        if self.synced.segment != self.current.number || self.is_synced() {
            return Ok(false);
        }
        let carry = self.index.read().carry();
        let len = SEGMENT_HEADER + encoded_len(&self.unsynced.records) + encoded_len(&carry);
        let Some(spare) = self.spare.take_if(|spare| len as u64 <= spare.len) else { return Ok(false) };
        let (mut records, before) = self.unsynced.take_back(&mut self.chains);
        records.extend(carry);
        let now = self.begin(spare, &records)?;
        self.index.write().relocate(records.iter().map(|record| record.tablet), &before, &now);
        Ok(true)
    }
}
