//! The log and the state machine against openraft's own suite, and groups of one and of three through restarts,
//! crashes, silence and changes of their members.

use super::letters::{Ask, Letter, VERSION};
use super::log::Log;
use super::members::Founding;
use super::*;
use disk::MemDisk;
use futures_util::future::BoxFuture;
use model::Refusal;
use model::random::Random;
use openraft::StorageError;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, RaftLogReader};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

/// A thread of the master that only keeps the commands it was given.
#[derive(Clone, Default)]
struct Commands {
    all: Arc<Mutex<Vec<(u64, Bytes)>>>,
    count: Arc<watch::Sender<usize>>,
    /// How often all came at once, as a snapshot.
    restored: Arc<Mutex<usize>>,
}

impl Commands {
    fn thread(&self) -> Thread {
        let commands = self.clone();
        Arc::new(move |apply| {
            let mut all = commands.all.lock();
            match apply {
                Apply::Committed(more, done) => {
                    all.extend(more);
                    let _ = done.send(());
                }
                Apply::Snapshot(answer) => {
                    let _ = answer.send(Bytes::from(postcard::to_allocvec(&*all).unwrap()));
                }
                Apply::Restore(state, done) => {
                    *all = postcard::from_bytes(&state).unwrap();
                    *commands.restored.lock() += 1;
                    let _ = done.send(Ok(()));
                }
            }
            commands.count.send_replace(all.len());
        })
    }

    fn texts(&self) -> Vec<String> {
        self.all.lock().iter().map(|(_, command)| String::from_utf8_lossy(command).into_owned()).collect()
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

/// A group of one that is restarted leads again, in a later term, with all that was committed, once and in order.
#[tokio::test]
async fn a_group_of_one_goes_on_after_a_crash() {
    let disk = MemDisk::new();
    let mut expected = Vec::new();
    let mut last_term = 0;
    for life in 0..4 {
        let one = Running::start(&disk, 1, Founding::Alone, &Arc::default()).await;
        let term = one.leads().await;
        assert!(term > last_term, "term {term} after {last_term}");
        last_term = term;
        assert_eq!(one.commands.texts(), expected, "life {life}: everything is applied when it leads");
        for number in 0..10 {
            expected.push(one.propose(format!("{life}.{number}")).await);
        }
        one.has(expected.len()).await;
        if life == 1 {
            one.compact().await;
        }
        assert_eq!(one.commands.texts(), expected);
        disk.crash(life);
        one.stop().await;
    }
}

/// Issue 3, "Master quorum": a leader that dies takes nothing with it, and comes back as a follower.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_masters_survive_their_leader() {
    let mut group = Group3::found().await;
    let mut expected = Vec::new();
    let first = group.leader().await;
    for number in 0..20 {
        expected.push(group.of(first).propose(format!("a{number}")).await);
    }
    group.all_have(&expected).await;

    let disk = group.end(first).await;
    let second = group.leader().await;
    assert_ne!(second, first);
    for number in 0..20 {
        expected.push(group.of(second).propose(format!("b{number}")).await);
    }
    group.all_have(&expected).await;

    group.begin(first, &disk, Founding::Unsaid).await;
    group.all_have(&expected).await;
    assert_eq!(group.leader().await, second, "whoever comes back deposes nobody");
}

/// A follower that lacks more than the leader's log still has gets the state as a whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_was_away_for_long_gets_a_snapshot() {
    let mut group = Group3::found().await;
    let leader = group.leader().await;
    let away = group.other(leader);
    let disk = group.end(away).await;
    let mut expected = Vec::new();
    for number in 0..40 {
        expected.push(group.of(leader).propose(format!("{number}")).await);
    }
    group.all_have(&expected).await;
    group.of(leader).compact().await;
    group.begin(away, &disk, Founding::Unsaid).await;
    group.all_have(&expected).await;
    assert!(*group.of(away).commands.restored.lock() > 0, "it came as a snapshot");
    expected.push(group.of(leader).propose(String::from("and goes on")).await);
    group.all_have(&expected).await;
    let disk = group.end(away).await;
    group.begin(away, &disk, Founding::Unsaid).await;
    group.all_have(&expected).await;
}

/// A leader that hears no majority must not be taken for one: nodes would stay with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_hears_ceases_to_lead() {
    let group = Group3::found().await;
    let old = group.leader().await;
    group.room.silence(old);
    group.of(old).stands(|standing| standing.leads.is_none() && standing.leader.is_none()).await;
    let new = group.leader().await;
    assert_ne!(new, old);
    let lost = group.of(old).consensus.propose(Bytes::from_static(b"lost")).await;
    assert!(lost, "it may be proposed, and nobody hears of it");
    let kept = group.of(new).propose(String::from("kept")).await;
    group.room.hear_all();
    group.all_have(&[kept]).await;
    group.of(old).stands(|standing| standing.leader.as_ref().is_some_and(|(leader, _)| *leader == new)).await;
}

/// A disk that cannot be synced ends its master, with a reason, and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_whose_disk_fails_stops_and_the_others_go_on() {
    let mut group = Group3::found().await;
    let broken = group.leader().await;
    group.of(broken).disk.fail_next_sync();
    assert!(group.of(broken).consensus.propose(Bytes::from_static(b"not kept")).await);
    let why = group.of(broken).ended().await;
    assert!(why.is_some_and(|why| why.contains("raft.log")), "the reason names the file");
    group.end(broken).await;
    let next = group.leader().await;
    let kept = group.of(next).propose(String::from("kept")).await;
    group.of(next).has(1).await;
    assert!(group.of(next).commands.texts().ends_with(&[kept]));
}

/// What an empty folder promised it has forgotten: under its old id it counts for nothing, and hears why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_master_does_not_count() {
    let mut group = Group3::found().await;
    let leader = group.leader().await;
    let wiped = group.other(leader);
    let silent = group.other_than(&[leader, wiped]);
    group.end(wiped).await;
    group.begin(wiped, &MemDisk::new(), Founding::Initial(Group3::list())).await;
    if wiped == 1 {
        assert!(group.of(wiped).given_up().await.contains("belongs to a group already"));
    }
    group.room.silence(silent);
    group.of(leader).stands(|standing| standing.leads.is_none()).await;
    assert!(!group.of(wiped).consensus.raft.is_initialized().await.unwrap(), "it took nothing from anybody");
    let member = Member { address: address(wiped), disk: group.of(leader).consensus.mail.me.disk };
    let refused = group.of(leader).consensus.mail.ask(wiped, &member, Ask::Hello, Duration::from_secs(5)).await;
    assert!(refused.unwrap().answer.is_err_and(|why| why.contains("another data folder")));
    group.room.hear_all();
    let leader = group.leader().await;
    let kept = group.of(leader).propose(String::from("kept")).await;
    group.of(leader).has(1).await;
    assert_eq!(group.of(leader).commands.texts(), [kept]);
}

/// Masters come and go while the group works; what makes no sense is refused with the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masters_come_and_go() {
    let mut group = Group3::default();
    group.begin(1, &MemDisk::new(), Founding::Alone).await;
    assert_eq!(group.leader().await, 1);
    let mut expected = vec![group.of(1).propose(String::from("alone")).await];
    group.of(1).has(1).await;

    let one = group.of(1).consensus.clone();
    let invalid = |refused: Result<_, Refusal>, what: &str| match refused {
        Err(Refusal::Invalid(why)) => assert!(why.contains(what), "{why}"),
        other => panic!("{what}: {other:?}"),
    };
    invalid(one.remove(1).await, "the last one");
    invalid(one.remove(7).await, "there are m1");
    invalid(one.add(2, address(2)).await, "start it first");
    assert!(matches!(one.add(1, address(9)).await, Err(Refusal::Exists(_))));
    invalid(one.add(3, address(1)).await, "is where master 1 is");

    group.begin(2, &MemDisk::new(), Founding::Join).await;
    group.begin(3, &MemDisk::new(), Founding::Join).await;
    invalid(one.add(3, address(2)).await, "this is master 2");
    let masters = one.add(2, address(2)).await.unwrap();
    assert_eq!(masters.iter().map(|master| (master.id, master.learns)).collect::<Vec<_>>(), [(1, false), (2, false)]);
    assert_eq!(one.add(3, address(3)).await.unwrap().len(), 3);
    expected.push(group.of(1).propose(String::from("three")).await);
    group.all_have(&expected).await;

    // With m3 away, two are left of three, and one of two would be no majority.
    let disk = group.end(3).await;
    group
        .of(1)
        .consensus
        .raft
        .wait(None)
        .metrics(|m| members::list(m).iter().any(|it| !it.is_alive()), "m3 is missed")
        .await
        .unwrap();
    invalid(one.remove(2).await, "no majority");
    group.begin(3, &disk, Founding::Unsaid).await;
    group
        .of(1)
        .consensus
        .raft
        .wait(None)
        .metrics(|m| members::list(m).iter().all(|it| it.is_alive()), "m3 is back")
        .await
        .unwrap();

    // A leader that shall go lets another lead first.
    assert_eq!(one.remove(1).await, Err(Refusal::NoMaster));
    group.of(1).stands(|standing| standing.leader.as_ref().is_some_and(|(leader, _)| *leader != 1)).await;
    let leader = group.leader().await;
    assert_ne!(leader, 1);
    let masters = group.of(leader).consensus.remove(1).await.unwrap();
    assert_eq!(masters.iter().map(|master| master.id).collect::<Vec<_>>(), [2, 3]);
    group.end(1).await;
    expected.push(group.of(leader).propose(String::from("without the first")).await);
    group.all_have(&expected).await;
}

/// A master that comes back elsewhere tells the leader, which notes it for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_has_moved_is_found() {
    let mut group = Group3::found().await;
    let leader = group.leader().await;
    let moved = group.other(leader);
    let disk = group.end(moved).await;
    group.begin_at(moved, "elsewhere:1", &disk, Founding::Unsaid).await;
    let is_there = |members: &RaftMetrics<Group>| {
        members.membership_config.get_node(&moved).is_some_and(|member| member.address == "elsewhere:1")
    };
    group.of(leader).consensus.raft.wait(None).metrics(is_there, "it is noted").await.unwrap();
    let said = group.of(leader).propose(String::from("to all")).await;
    group.all_have(&[said]).await;
}

/// Nothing that comes over the network stops a master: not noise, not another's letters, not nonsense of a member.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_of_strangers_are_refused() {
    let group = Group3::found().await;
    let leader = group.leader().await;
    let other = group.other(leader);
    let (to, mail) = (group.of(leader), &group.of(other).consensus.mail);
    to.stands(|standing| standing.leads.is_some()).await;
    let letter = |ask| Letter {
        version: VERSION,
        cluster: None,
        from: mail.me.clone(),
        to: leader,
        to_disk: to.consensus.mail.me.disk,
        ask,
    };
    let ask = async |letter: &Letter| {
        let answer = to.consensus.answer(wire::frame::encode(letter)).await.unwrap();
        wire::frame::decode::<letters::Reply>(answer).unwrap().answer.err()
    };
    assert_eq!(ask(&letter(Ask::Hello)).await, None);
    let gap = openraft::raft::AppendEntriesRequest {
        vote: Vote::new_committed(99, other),
        prev_log_id: Some(log_id(3)),
        entries: vec![entry(7)],
        leader_commit: None,
    };
    let late = SnapshotMeta { last_log_id: Some(log_id(3)), last_membership: StoredMembership::default() };
    for wrong in [
        Letter { version: 9, ..letter(Ask::Hello) },
        Letter { to: 7, ..letter(Ask::Hello) },
        Letter { to_disk: 7, ..letter(Ask::Hello) },
        Letter { from: to.consensus.mail.me.clone(), ..letter(Ask::Hello) },
        letter(Ask::Append(gap)),
        letter(Ask::Snapshot(Vote::new_committed(1, 1), late, Bytes::new())),
    ] {
        assert!(ask(&wrong).await.is_some(), "{}", wrong.to);
    }
    to.consensus.mail.cluster.get_or_init(|| ClusterId(1));
    assert!(ask(&Letter { cluster: Some(ClusterId(2)), ..letter(Ask::Hello) }).await.is_some());

    let mut random = Random::new(5);
    for length in 0..400 {
        let noise: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        let good = wire::frame::encode(&letter(Ask::Hello)).body;
        let cut = good.slice(..good.len().min(length));
        for body in [Bytes::from(noise), cut] {
            let crc = wire::frame::encode(&()).crc;
            let _ = to.consensus.answer(Frame { crc, body: body.clone() }).await;
            assert!(postcard::from_bytes::<Letter>(&body).is_err() || body == good);
        }
    }
    let said = to.propose(String::from("still here")).await;
    group.all_have(&[said]).await;
}

// ---- the vocabulary ---------------------------------------------------------------------------------------------

fn address(id: u64) -> String {
    format!("m{id}:1")
}

/// Where the members of a test's group reach each other, and may be kept apart.
#[derive(Default)]
struct Room {
    members: Mutex<BTreeMap<String, Consensus>>,
    silent: Mutex<BTreeSet<u64>>,
}

impl Room {
    fn silence(&self, id: u64) {
        self.silent.lock().insert(id);
    }

    fn hear_all(&self) {
        self.silent.lock().clear();
    }
}

/// A member's way into the room.
struct Door(Arc<Room>, u64);

impl Post for Door {
    fn send<'a>(&'a self, address: &'a str, frame: Frame) -> BoxFuture<'a, Result<Frame, String>> {
        Box::pin(async move {
            let member = self.0.members.lock().get(address).cloned();
            let member = member.ok_or_else(|| format!("{address}: nobody is there"))?;
            let silent = |id| self.0.silent.lock().contains(&id);
            if silent(self.1) || silent(member.mail.me.id) {
                return Err(format!("{address}: cut off"));
            }
            member.answer(frame).await.map_err(|error| error.to_string())
        })
    }
}

/// A running member.
struct Running {
    consensus: Consensus,
    commands: Commands,
    disk: MemDisk,
    standing: watch::Receiver<Standing>,
    ended: watch::Receiver<Option<Option<String>>>,
    given_up: watch::Receiver<Option<String>>,
}

impl Running {
    async fn start(disk: &MemDisk, id: u64, founding: Founding, room: &Arc<Room>) -> Running {
        Running::start_at(&address(id), disk, id, founding, room).await
    }

    async fn start_at(at: &str, disk: &MemDisk, id: u64, founding: Founding, room: &Arc<Room>) -> Running {
        let commands = Commands::default();
        let beginning = Beginning {
            id,
            address: String::from(at),
            founding: founding.clone(),
            cluster: Arc::default(),
            post: Arc::new(Door(Arc::clone(room), id)),
        };
        let (consensus, _) = Consensus::start(Arc::new(disk.clone()), beginning, commands.thread()).await.unwrap();
        room.members.lock().insert(String::from(at), consensus.clone());
        let (tell, standing) = watch::channel(Standing::default());
        let (end, ended) = watch::channel(None);
        let follower = consensus.clone();
        tokio::spawn(async move {
            let why = follower.follow(|standing| drop(tell.send_replace(standing.clone()))).await;
            end.send_replace(Some(why));
        });
        let (give_up, given_up) = watch::channel(None);
        let keeper = consensus.clone();
        tokio::spawn(async move { give_up.send_replace(Some(keeper.keep(founding).await)) });
        Running { consensus, commands, disk: disk.clone(), standing, ended, given_up }
    }

    /// Waits until it stands like this.
    async fn stands(&self, so: impl FnMut(&Standing) -> bool) -> Standing {
        self.standing.clone().wait_for(so).await.unwrap().clone()
    }

    /// The term in which it leads, once it does.
    async fn leads(&self) -> u64 {
        self.stands(|standing| standing.leads.is_some()).await.leads.unwrap()
    }

    async fn ended(&self) -> Option<String> {
        self.ended.clone().wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    async fn given_up(&self) -> String {
        self.given_up.clone().wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    async fn propose(&self, text: String) -> String {
        assert!(self.consensus.propose(Bytes::from(text.clone())).await);
        text
    }

    /// Waits until it has applied so many.
    async fn has(&self, count: usize) {
        self.commands.count.subscribe().wait_for(|&have| have >= count).await.unwrap();
    }

    /// Writes a snapshot and forgets all entries before it.
    async fn compact(&self) {
        let raft = &self.consensus.raft;
        raft.trigger().snapshot().await.unwrap();
        let metrics = raft.wait(None).metrics(|m| m.snapshot.is_some(), "a snapshot is written").await.unwrap();
        raft.trigger().purge_log(metrics.snapshot.unwrap().index).await.unwrap();
        raft.wait(None).metrics(|m| m.purged.is_some(), "the log is purged").await.unwrap();
    }

    async fn stop(&self) {
        self.consensus.stop().await;
    }
}

/// Up to three members.
#[derive(Default)]
struct Group3 {
    room: Arc<Room>,
    members: BTreeMap<u64, Running>,
}

impl Group3 {
    fn list() -> BTreeMap<u64, String> {
        (1..=3).map(|id| (id, address(id))).collect()
    }

    /// Three, which have found each other.
    async fn found() -> Group3 {
        let mut group = Group3::default();
        for id in 1..=3 {
            group.begin(id, &MemDisk::new(), Founding::Initial(Group3::list())).await;
        }
        let leader = group.leader().await;
        let all_known = |metrics: &RaftMetrics<Group>| {
            metrics.membership_config.nodes().all(|(_, member)| member.disk != 0)
                && metrics.membership_config == metrics.committed_membership_config
        };
        group.of(leader).consensus.raft.wait(None).metrics(all_known, "all folders are known").await.unwrap();
        group
    }

    async fn begin(&mut self, id: u64, disk: &MemDisk, founding: Founding) {
        self.begin_at(id, &address(id), disk, founding).await;
    }

    async fn begin_at(&mut self, id: u64, at: &str, disk: &MemDisk, founding: Founding) {
        self.members.insert(id, Running::start_at(at, disk, id, founding, &self.room).await);
    }

    /// Ends a member without warning; gives its disk.
    async fn end(&mut self, id: u64) -> MemDisk {
        let member = self.members.remove(&id).unwrap();
        self.room.members.lock().retain(|_, consensus| consensus.mail.me.id != id);
        member.stop().await;
        member.disk.crash(id);
        member.disk
    }

    fn of(&self, id: u64) -> &Running {
        &self.members[&id]
    }

    fn other(&self, than: u64) -> u64 {
        self.other_than(&[than])
    }

    fn other_than(&self, these: &[u64]) -> u64 {
        *self.members.keys().find(|id| !these.contains(id)).unwrap()
    }

    /// Who leads, once one does.
    async fn leader(&self) -> u64 {
        let leading = self.members.iter().map(|(id, member)| {
            Box::pin(async {
                member.leads().await;
                *id
            })
        });
        futures_util::future::select_all(leading).await.0
    }

    /// Waits until all have exactly these.
    async fn all_have(&self, expected: &[String]) {
        for (id, member) in &self.members {
            member.has(expected.len()).await;
            assert_eq!(member.commands.texts(), expected, "m{id}");
        }
    }
}
