//! The log and the state machine against openraft's own suite, and a group of one through restarts and crashes.

use super::log::Log;
use super::*;
use disk::MemDisk;
use openraft::StorageError;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, RaftLogReader};
use parking_lot::Mutex;

/// A thread of the master that only keeps the commands it was given.
#[derive(Clone, Default)]
struct Commands(Arc<Mutex<Vec<(u64, Bytes)>>>);

impl Commands {
    fn thread(&self) -> Thread {
        let commands = self.clone();
        Arc::new(move |apply| {
            let mut commands = commands.0.lock();
            match apply {
                Apply::Committed(more, done) => {
                    commands.extend(more);
                    let _ = done.send(());
                }
                Apply::Snapshot(answer) => {
                    let _ = answer.send(Bytes::from(postcard::to_allocvec(&*commands).unwrap()));
                }
                Apply::Restore(state, done) => {
                    *commands = postcard::from_bytes(&state).unwrap();
                    let _ = done.send(Ok(()));
                }
            }
        })
    }

    fn texts(&self) -> Vec<String> {
        self.0.lock().iter().map(|(_, command)| String::from_utf8_lossy(command).into_owned()).collect()
    }
}

struct OnMemory;

impl StoreBuilder<Group, Log, Machine> for OnMemory {
    async fn build(&self) -> Result<((), Log, Machine), StorageError<Group>> {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let (log, _) = Log::open(disk.clone()).unwrap();
        Ok(((), log, Machine::new(disk, Commands::default().thread())))
    }
}

/// What openraft expects of a log and a state machine.
#[tokio::test]
async fn openrafts_suite_passes() {
    Suite::test_all(OnMemory).await.unwrap();
}

fn log_id(index: u64) -> LogId {
    LogId::new(openraft::vote::leader_id_adv::LeaderId { term: 3, node_id: 1 }, index)
}

fn entry(index: u64) -> Entry {
    Entry { log_id: log_id(index), payload: EntryPayload::Normal(Command(Bytes::from(format!("command {index}")))) }
}

async fn entries_of(log: &mut Log) -> Vec<Entry> {
    log.get_log_reader().await.try_get_log_entries(..).await.unwrap()
}

/// The point of a log: what was acknowledged survives a power cut at every moment, in order and without gaps.
#[tokio::test]
async fn acknowledged_entries_survive_a_power_cut_at_every_operation() {
    for seed in 0..3 {
        for operations in 0..60 {
            let disk = MemDisk::new();
            disk.power_fails_after(operations);
            let mut acknowledged = Vec::new();
            let _ = fill(&disk, &mut acknowledged).await;
            disk.crash(seed * 1_000 + operations);
            let (mut log, _) = Log::open(Arc::new(disk.clone()))
                .unwrap_or_else(|error| panic!("seed {seed}, power cut after {operations} operations: {error}"));
            let state = log.get_log_state().await.unwrap();
            let last = acknowledged.last().map_or(0, |&index| index);
            let have = state.last_log_id.map_or(0, |id| id.index);
            assert!(have >= last, "seed {seed}, after {operations} operations: {have} of {last}");
            let first = state.last_purged_log_id.map_or(1, |id| id.index + 1);
            let expected: Vec<Entry> = (first..=have).map(entry).collect();
            assert_eq!(entries_of(&mut log).await, expected, "seed {seed}, after {operations} operations");
        }
    }
}

async fn fill(disk: &MemDisk, acknowledged: &mut Vec<u64>) -> anyhow::Result<()> {
    let (mut log, _) = Log::open(Arc::new(disk.clone()))?;
    log.save_vote(&Vote::new_committed(3, 1)).await?;
    for index in 1..=12 {
        log.blocking_append([entry(index)]).await?;
        acknowledged.push(index);
        log.save_committed(Some(log_id(index))).await?;
        if index % 5 == 0 {
            log.purge(log_id(index - 2)).await?;
        }
    }
    Ok(())
}

/// A master must not vote twice in a term, also over restarts.
#[tokio::test]
async fn vote_committed_and_truncation_survive_a_restart() {
    let disk = MemDisk::new();
    let (mut log, _) = Log::open(Arc::new(disk.clone())).unwrap();
    log.save_vote(&Vote::new_committed(3, 1)).await.unwrap();
    log.blocking_append((1..=6).map(entry)).await.unwrap();
    log.save_committed(Some(log_id(4))).await.unwrap();
    log.truncate_after(Some(log_id(5))).await.unwrap();
    disk.crash(1);
    let (mut log, note) = Log::open(Arc::new(disk)).unwrap();
    assert_eq!(note, None);
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new_committed(3, 1)));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(4)));
    assert_eq!(entries_of(&mut log).await, (1..=5).map(entry).collect::<Vec<_>>());
}

/// A failed sync may have lost what an earlier one seemed to keep; nothing more is acknowledged.
#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged() {
    let disk = MemDisk::new();
    let (mut log, _) = Log::open(Arc::new(disk.clone())).unwrap();
    disk.fail_next_sync();
    assert!(log.blocking_append([entry(1)]).await.is_err());
    assert!(log.save_vote(&Vote::new_committed(3, 1)).await.is_err());
}

/// The bytes of the first version: a log that was written by it must open for ever.
#[test]
fn records_are_pinned() {
    let record = log::encode(&vec![entry(1)]);
    assert_eq!(record, [&[1, 3, 1, 1, 1, 9][..], b"command 1"].concat());
    let vote = log::encode(&Vote::new_committed(3, 1));
    assert_eq!(vote, [3, 1, 1]);
}

async fn leading(consensus: &Consensus) -> Arc<Mutex<Option<u64>>> {
    let term = Arc::new(Mutex::new(None));
    let (told, heard) = oneshot::channel();
    let mut told = Some(told);
    let (consensus, shared) = (consensus.clone(), term.clone());
    tokio::spawn(async move {
        consensus
            .follow(|standing| {
                *shared.lock() = standing;
                if standing.is_some()
                    && let Some(told) = told.take()
                {
                    let _ = told.send(());
                }
            })
            .await
    });
    heard.await.unwrap();
    term
}

async fn committed(commands: &Commands, count: usize) {
    while commands.0.lock().len() < count {
        tokio::task::yield_now().await;
    }
}

/// A group of one that is restarted leads again, in a later term, with all that was committed, once and in order.
#[tokio::test]
async fn a_group_of_one_goes_on_after_a_crash() {
    let disk = MemDisk::new();
    let mut expected = Vec::new();
    let mut last_term = 0;
    for life in 0..4 {
        let commands = Commands::default();
        let (consensus, _) = Consensus::start(Arc::new(disk.clone()), 1, commands.thread()).await.unwrap();
        let term = leading(&consensus).await.lock().unwrap();
        assert!(term > last_term, "term {term} after {last_term}");
        last_term = term;
        assert_eq!(commands.texts(), expected, "life {life}: everything is applied when it leads");
        for number in 0..10 {
            let command = format!("{life}.{number}");
            assert!(consensus.propose(Bytes::from(command.clone())).await);
            expected.push(command);
        }
        committed(&commands, expected.len()).await;
        if life == 1 {
            consensus.raft.trigger().snapshot().await.unwrap();
            consensus.raft.wait(None).metrics(|m| m.snapshot.is_some(), "a snapshot is written").await.unwrap();
            consensus.raft.trigger().purge_log(10).await.unwrap();
            consensus.raft.wait(None).metrics(|m| m.purged.is_some(), "the log is purged").await.unwrap();
        }
        assert_eq!(commands.texts(), expected);
        disk.crash(life);
        consensus.stop().await;
    }
}
