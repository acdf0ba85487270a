//! The host of a storage node: its threads, its streams and its services, put together.
//!
//! ```text
//!   Kv, HTTP ─▶ Local ─┐                        ┌─▶ log threads ─Durable──┐
//!   Peer.Link ─────────┼─▶ Inbox ─▶ shard ──────┼─▶ readers, workers ─────┼─▶ (back into the inbox)
//!   session ───────────┘             │          └─▶ peers, session        │
//!                                    └─▶ answers, straight to whoever waits
//! ```

mod batching;
pub mod local;
pub mod pace;
mod pulse;
pub mod shard;
pub(super) mod threads;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use disk::KernelDisk;
use metrics::{counter, gauge};
use node::{FlushOptions, Hands, Options, Upkeep};
use store::sstable::Cache;

use self::local::Local;
use self::pace::Pacer;
use self::pulse::Pulse;
use self::shard::{Clock, Outlets, Shard};
use self::threads::{Hired, LogThreads, spawn};
use super::inbox::Inbox;
use super::peers::Peers;
use super::session::{Reports, Session};
use super::{Health, NodeArgs, Shutdown, announce, bind, chance, open_disk, without_huge_pages};
use crate::access::Access;
use crate::gateway::Gateway;
use crate::masters::Masters;
use crate::{http, rpc};

/// Threads that read rows and old log entries, and threads that flush, merge and copy.
const READERS: usize = 2;
const WORKERS: usize = 2;
/// Threads that bring the data back, at most: each reads a segment of the log at a time.
const RECOVERERS: usize = 8;
/// A thread that has been at one piece of work for so long is stuck, most likely on the disk.
const STALL: Duration = Duration::from_secs(3);

/// Runs a storage node until the process is asked to stop.
pub async fn run_node(args: NodeArgs) -> anyhow::Result<()> {
    without_huge_pages();
    ensure!(!args.masters.is_empty(), "a node needs the address of a master; give --master HOST:PORT");
    ensure!(args.timing.is_safe(), "the grace period must outlast the lease: {:?}", args.timing);
    let shutdown = Shutdown::on_signals()?;
    let grpc = bind(args.grpc, "--grpc").await?;
    let web = match args.http {
        Some(address) => Some(bind(address, "--http").await?),
        None => None,
    };
    let grpc_address = grpc.local_addr()?;
    let web_address = web.as_ref().map(tokio::net::TcpListener::local_addr).transpose()?;
    let address = args.advertise.clone().unwrap_or_else(|| grpc_address.to_string());

    let (health, clock) = (Health::default(), Clock::start());
    let pacer = Arc::<Pacer>::default();
    let (node, hands) = open(&args, address.clone(), clock, Arc::clone(&pacer)).await?;
    health.set("master", Err(String::from("no master has been heard yet")));
    let access = Access::open(args.access.as_deref())?;
    let peers = Peers::new(args.id, address, access.identity(), node.cluster());
    let reports = Arc::<Reports>::default();
    let inbox = Arc::<Inbox<_>>::default();
    let local = Local::new(Arc::clone(&inbox));
    let masters = Masters::new(args.masters.clone());
    let session = Session {
        node: args.id,
        masters: masters.clone(),
        identity: access.identity(),
        silence: (args.timing.heartbeat * 4).max(Duration::from_secs(2)),
        reports: Arc::clone(&reports),
        shard: Arc::clone(&inbox),
        peers: peers.clone(),
        health: health.clone(),
    };
    let machine = Machine { node, hands, clock, pacer, peers: peers.clone(), reports, health: health.clone() };
    let pulses = machine.start(inbox);
    let gateway = Gateway::new(masters, access.clone()).with_bigtable(args.bigtable);
    tokio::spawn(session.keep());
    tokio::spawn(watch(pulses, health.clone()));

    announce(grpc_address, web_address);
    let services = rpc::serve_node(grpc, gateway.clone(), local, peers, health.clone(), shutdown.clone());
    match web {
        Some(web) => tokio::try_join!(services, http::serve(web, gateway, access, health, shutdown)).map(|_| ()),
        None => services.await,
    }
}

/// Recovers what the node's folder holds. Blocks a while, if there is much.
async fn open(args: &NodeArgs, address: String, clock: Clock, pace: Arc<Pacer>) -> anyhow::Result<(node::Node, Hands)> {
    let data = args.data.clone();
    let options = Options {
        id: args.id,
        address,
        timing: args.timing.clone(),
        seed: chance(),
        flush: FlushOptions::default(),
        log: store::log::Options::default(),
        tables: store::keeper::Options { pace, direct: args.direct_io, ..Default::default() },
        upkeep: Upkeep {
            date: Clock::wall(),
            trash_keep: args.trash_keep,
            scrub_every: args.scrub_every,
            digest_every: args.digest_every,
        },
    };
    let opening = tokio::task::spawn_blocking(move || {
        let hired = Hired(std::thread::available_parallelism().map_or(1, usize::from).min(RECOVERERS));
        let (disk, direct) = (open_disk(&data)?, options.tables.direct);
        if direct && !KernelDisk::reads_directly(&data) {
            let what = "the file system has no O_DIRECT: merges read as without --direct-io";
            tracing::warn!(event = "direct_io_refused", "{what}");
        }
        node::open_with(disk, options, clock.now(), &hired)
            .with_context(|| format!("cannot recover the data in {}", data.display()))
    });
    let (node, hands) = opening.await.context("recovery met a bug in Diptych")??;
    for note in &hands.notes {
        tracing::warn!(event = "recovery_note", "{note}");
    }
    tracing::info!(event = "node_opened", node = %args.id, tablets = node.replicas().count(), "recovered");
    Ok((node, hands))
}

/// A node with all that its threads need.
struct Machine {
    node: node::Node,
    hands: Hands,
    clock: Clock,
    pacer: Arc<Pacer>,
    peers: Peers,
    reports: Arc<Reports>,
    health: Health,
}

impl Machine {
    /// Starts the threads; they live as long as the process. Gives what shows that they are alive.
    fn start(self, inbox: Arc<Inbox<shard::Arrival>>) -> Vec<(&'static str, Arc<Pulse>)> {
        let Hands { log, reader, keeper, .. } = self.hands;
        tokio::spawn(publish_cache(Arc::clone(keeper.cache())));
        let (log_pulse, shard_pulse) = (Arc::<Pulse>::default(), Arc::<Pulse>::default());
        let outlets = Outlets {
            log: Arc::default(),
            readers: Arc::default(),
            jobs: Arc::default(),
            peers: self.peers,
            reports: self.reports,
        };
        let (work, pulse) = (Arc::clone(&outlets.log), Arc::clone(&log_pulse));
        let log = Arc::new(LogThreads::new(log, work, Arc::clone(&inbox), pulse, self.pacer));
        for number in 0..2 {
            let log = Arc::clone(&log);
            spawn(&format!("log-{number}"), move || log.run());
        }
        for number in 0..READERS {
            let (reader, work, shard) = (reader.clone(), Arc::clone(&outlets.readers), Arc::clone(&inbox));
            spawn(&format!("reader-{number}"), move || threads::read(&reader, &work, &shard));
        }
        for number in 0..WORKERS {
            let (keeper, jobs, shard) = (Arc::clone(&keeper), Arc::clone(&outlets.jobs), Arc::clone(&inbox));
            spawn(&format!("worker-{number}"), move || threads::work(&keeper, &jobs, &shard));
        }
        let shard = Shard::new(self.node, self.clock, inbox, outlets, self.health, Arc::clone(&shard_pulse));
        spawn("shard", move || shard.run());
        vec![("log", log_pulse), ("shard", shard_pulse)]
    }
}

/// What the cache of blocks does, for `/metrics`.
async fn publish_cache(cache: Arc<Cache>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let stats = cache.stats();
        counter!("diptych_block_cache_hits_total").absolute(stats.hits);
        counter!("diptych_block_cache_misses_total").absolute(stats.misses);
        gauge!("diptych_block_cache_bytes").set(stats.bytes as f64);
        gauge!("diptych_block_cache_capacity_bytes").set(stats.capacity as f64);
        gauge!("diptych_table_pinned_bytes").set(stats.pinned as f64);
        gauge!("diptych_table_loaded_bytes").set(stats.loaded as f64);
    }
}

/// Reports threads that are stuck.
async fn watch(pulses: Vec<(&'static str, Arc<Pulse>)>, health: Health) {
    let mut ticks = tokio::time::interval(Duration::from_millis(500));
    loop {
        ticks.tick().await;
        for (thread, pulse) in &pulses {
            let busy = pulse.busy_for();
            let stuck = || format!("the {thread} thread has been at one piece of work for {} s", busy.as_secs());
            health.set(thread, if busy < STALL { Ok(()) } else { Err(stuck()) });
        }
    }
}
