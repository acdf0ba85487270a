use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use disk::{Disk, MemDisk};
use model::{Epoch, Lsn, TabletId};
use node::api::Input;
use store::log::{Kind, Log, Options, Record};

use super::*;

struct Host {
    disk: MemDisk,
    work: Arc<Inbox<LogWork>>,
    shard: Arc<Inbox<Arrival>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    written: u64,
}

impl Host {
    fn start() -> Host {
        let disk = MemDisk::new();
        let (log, _) = Log::open(Arc::new(disk.clone()), "log", Options { segment_bytes: 4 << 20 }).unwrap();
        let (work, shard) = (Arc::<Inbox<LogWork>>::default(), Arc::<Inbox<Arrival>>::default());
        let log = Arc::new(LogThreads::new(log, Arc::clone(&work), Arc::clone(&shard), Arc::default(), Arc::default()));
        let run = |_| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || log.run())
        };
        let threads = (0..2).map(run).collect();
        Host { disk, work, shard, threads, written: 0 }
    }

    fn write(&mut self) {
        self.written += 1;
        let (lsn, body) = (Lsn(self.written), Bytes::from_static(b"command"));
        let record =
            Record { tablet: TabletId(1), lsn, epoch: Epoch(1), committed: lsn.prev(), kind: Kind::Command, body };
        self.work.push(LogWork::Append(vec![record]));
    }

    /// Waits until all that was written is durable.
    fn all_is_durable(&self) {
        loop {
            if let Some(Arrival::Core(Input::Durable(upto))) = self.shard.pop()
                && upto == self.written
            {
                return;
            }
        }
    }

    /// What is found after a loss of power.
    fn last_after_crash(mut self, seed: u64) -> Lsn {
        self.work.close();
        self.disk.hold_syncs("log/00000001.log", false);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        self.disk.crash(seed);
        let (_, recovered) = Log::open(Arc::new(self.disk.clone()), "log", Options::default()).unwrap();
        assert_eq!(recovered.notes, [""; 0]);
        recovered.tablets[&TabletId(1)].last
    }
}

/// Bigtable 6: a log file that is slow holds nobody, because there is another one.
#[test]
fn a_sync_that_hangs_holds_nobody() {
    let mut host = Host::start();
    for _ in 0..3 {
        host.write();
        host.all_is_durable();
    }
    host.disk.hold_syncs("log/00000001.log", true);
    for _ in 0..20 {
        host.write();
        host.all_is_durable();
    }
    assert!(host.disk.exists("log/00000002.log").unwrap());
    // The late one ends, and its thread watches. Nothing is lost, nothing is there twice.
    host.disk.hold_syncs("log/00000001.log", false);
    host.write();
    host.all_is_durable();
    assert_eq!(host.last_after_crash(7), Lsn(24));
}

/// If no other file can be synced either, the log waits, and goes on when the disk does.
#[test]
fn when_both_files_hang_the_log_waits() {
    let mut host = Host::start();
    host.write();
    host.all_is_durable();
    host.disk.hold_syncs("log/00000001.log", true);
    host.disk.hold_syncs("log/00000002.log", true);
    host.write();
    std::thread::sleep(Duration::from_millis(200));
    let mut told = VecDeque::new();
    assert!(host.shard.drain(&mut told, Some(Instant::now())));
    assert!(!told.iter().any(|arrival| matches!(arrival, Arrival::Core(Input::Durable(_)))));
    host.disk.hold_syncs("log/00000002.log", false);
    host.all_is_durable();
    host.write();
    host.all_is_durable();
    assert_eq!(host.last_after_crash(1), Lsn(3));
}
