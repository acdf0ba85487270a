//! A node's host: the part of the server that carries effects out, without its threads.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use disk::MemDisk;
use model::{Instant, NodeId, TabletId, Timestamp};
use node::{FlushOptions, Hands, Input, Node, Upkeep};
use protocol::Timing;
use store::log::Record;

use super::world::EPOCH_US;

/// A machine with its disk, and the node on it while that runs.
pub(super) struct Machine {
    pub disk: MemDisk,
    pub process: Option<Process>,
    /// Rises with every start and every crash.
    pub life: u64,
    /// The tablets of which its disk keeps something, or has kept it before it was replaced.
    pub keeps: BTreeSet<TabletId>,
    /// How often the disk was replaced by an empty one.
    pub disks: u64,
    /// How far the calendar has jumped, in microseconds.
    pub calendar: i64,
    /// Until then syncs and reads take long, or do not end.
    pub slow_until: u64,
    pub hung_until: u64,
    /// The master turned it away: it does not come back.
    pub retired: bool,
}

/// A running node.
pub(super) struct Process {
    pub node: Node,
    pub hands: Hands,
    /// What its clock showed and when, and its speed since then in millionths.
    shown: u64,
    since: u64,
    rate: u64,
    /// How far its calendar is off, in microseconds.
    pub skew: i64,
    pub paused: bool,
    pub inbox: VecDeque<Input>,
    pub draining: bool,
    pub woken_at: Option<u64>,
    /// What waits for the log, and how many records it has synced.
    pub to_log: Vec<Record>,
    pub synced: u64,
    pub syncing: usize,
    /// Whose state is among what is being synced, and whether it says that they are kept.
    pub kept: Vec<(TabletId, bool)>,
    pub room: bool,
}

/// The periods of all nodes and of the master. Dead replicas are made anew soon and little stays in memory, so that a
/// short history has learners, and these take files.
pub(super) fn timing() -> Timing {
    let (session, replace_after) = (Duration::from_millis(1200), Duration::from_millis(1500));
    Timing { session, replace_after, keep_bytes: 6 << 10, ..Timing::default() }
}

impl Machine {
    pub fn new() -> Machine {
        Machine {
            disk: MemDisk::new(),
            process: None,
            life: 0,
            keeps: BTreeSet::new(),
            disks: 0,
            calendar: 0,
            slow_until: 0,
            hung_until: 0,
            retired: false,
        }
    }

    /// Has it lost what it was given?
    pub fn is_amnesiac(&self) -> bool {
        self.disks > 0
    }

    /// Starts the node. Small memtables and segments, so that a short history flushes, merges and trims.
    pub fn start(
        &mut self,
        id: NodeId,
        timing: Timing,
        digest_every: Duration,
        now: u64,
        rate: u64,
        skew: i64,
    ) -> Result<(), store::Error> {
        self.life += 1;
        let options = node::Options {
            id,
            address: format!("{id}:1"),
            timing,
            seed: u64::from(id.0) * 1_000_003 + self.disks,
            flush: FlushOptions { bytes: 16 << 10, updates: 12, log_bytes: 64 << 10 },
            log: store::log::Options { segment_bytes: 4 << 10 },
            tables: store::keeper::Options { table_bytes: 2 << 10, cache_bytes: 64 << 10, ..Default::default() },
            upkeep: Upkeep {
                date: Timestamp(EPOCH_US + (now / 1_000) as i64 + skew),
                trash_keep: Duration::from_secs(5),
                scrub_every: Duration::from_secs(2),
                digest_every,
            },
        };
        let (node, hands) = node::open(Arc::new(self.disk.clone()), options, Instant::ZERO)?;
        self.process = Some(Process {
            node,
            hands,
            shown: 0,
            since: now,
            rate,
            skew,
            paused: false,
            inbox: VecDeque::new(),
            draining: false,
            woken_at: None,
            to_log: Vec::new(),
            synced: 0,
            syncing: 0,
            kept: Vec::new(),
            room: true,
        });
        Ok(())
    }
}

impl Process {
    /// What its clock shows.
    pub fn local(&self, now: u64) -> Instant {
        Instant(self.shown + (u128::from(now - self.since) * u128::from(self.rate) / 1_000_000) as u64)
    }

    /// Its clock goes on at this speed.
    pub fn run_at(&mut self, now: u64, rate: u64) {
        (self.shown, self.since, self.rate) = (self.local(now).0, now, rate);
    }

    /// When its clock will show that.
    pub fn global(&self, local: Instant) -> u64 {
        let elapsed =
            (u128::from(local.0.saturating_sub(self.shown)) * 1_000_000).div_ceil(u128::from(self.rate)) as u64;
        self.since.saturating_add(elapsed).saturating_add(1)
    }
}
