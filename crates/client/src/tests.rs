//! The client against a small fake cluster: real sockets on a port that the system chose, rows in memory.
//!
//! The fake nodes check routes like real ones and do what a script says; time is real, but nothing waits for it
//! except where a node is silent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use model::request::ClusterMap;
use model::{
    AdminReply, AdminRequest, Assignment, Change, Condition, Configuration, Epoch, Family, FamilyId, Heir, Mutation,
    NodeId, Operation, Partition, ReadOptions, Refusal, RequestId, Retention, RowChanges, RowRange, Schema, Slice,
    TableId, Tablet, TabletId, Timestamp,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};
use wire::v1::admin_server::{Admin, AdminServer};
use wire::v1::kv_server::{Kv, KvServer};
use wire::{Answer, Call, NamedCell, NamedRow, Present, Scan, Written, convert, status, v1};

use crate::{Client, Error, Options};

mod changes;

/// Given a cluster, whatever is written is read back, by tablet and by table.
#[tokio::test]
async fn what_is_written_is_read() {
    let cluster = Cluster::start(2, Partition::Hash { tablets: 4 });
    let client = cluster.client();
    for key in 0..20 {
        assert_eq!(client.mutate("t", put(key)).await, Ok(APPLIED));
    }
    for key in 0..20 {
        assert_eq!(client.get("t", name(key), ReadOptions::default()).await, Ok(Some(row(key))));
    }
    assert_eq!(client.get("t", name(99), ReadOptions::default()).await, Ok(None));
}

#[tokio::test]
async fn a_failed_condition_tells_what_is_there() {
    let cluster = Cluster::start(1, Partition::Hash { tablets: 1 });
    let client = cluster.client();
    let absent = Condition::Newest { family: "f".into(), qualifier: Bytes::new(), expect: None };
    let cput = Mutation { condition: Some(absent), ..put(1) };
    assert_eq!(client.mutate("t", cput.clone()).await, Ok(APPLIED));
    let present = Some(Present { timestamp: Timestamp(1), value: name(1) });
    assert_eq!(client.mutate("t", cput).await, Ok(Written::Differs { present }));
}

/// PacificA 2.2, RIFL 3.1: the refusal says where to go, and the request keeps its id.
#[tokio::test]
async fn a_wrong_epoch_leads_to_the_new_primary() {
    let cluster = Cluster::start(2, Partition::Hash { tablets: 1 });
    let client = cluster.client();
    client.mutate("t", put(1)).await.unwrap();
    let fetches = cluster.fetches();
    cluster.promote(0, 2);
    client.mutate("t", put(2)).await.unwrap();
    assert_eq!(cluster.fetches(), fetches, "the refusal was enough");
    let ids = cluster.world.lock().ids.clone();
    assert_eq!(ids.iter().map(|(node, id)| (node.0, id.sequence)).collect::<Vec<_>>(), [(1, 1), (1, 2), (2, 2)]);
}

/// RIFL 3.2: an operation that is sent again after its answer was lost happens once.
#[tokio::test]
async fn a_lost_answer_is_no_second_write() {
    let cluster = Cluster::start(1, Partition::Hash { tablets: 1 });
    let client = cluster.client();
    cluster.script(1, [Said::DoneButSilent, Said::Refuse(Refusal::NotReady(TabletId(0)))]);
    assert_eq!(client.mutate("t", put(1)).await, Ok(APPLIED));
    let world = cluster.world.lock();
    assert_eq!((world.ids.len(), world.applied), (3, 1));
    assert!(world.ids.iter().all(|(_, id)| *id == world.ids[0].1));
}

/// A primary that is gone is replaced by the master: the map says by whom.
#[tokio::test]
async fn after_a_crash_the_map_leads_to_the_heir() {
    let mut cluster = Cluster::start(3, Partition::Hash { tablets: 1 });
    let client = Client::connect(&cluster.address(3), OPTIONS).unwrap();
    client.mutate("t", put(1)).await.unwrap();
    cluster.kill(1);
    cluster.promote(0, 2);
    assert_eq!(client.get("t", name(1), ReadOptions::default()).await, Ok(Some(row(1))));
}

/// With the master away, another member of the group knows who is primary now.
#[tokio::test]
async fn after_a_crash_without_a_master_the_heir_is_found() {
    let mut cluster = Cluster::start(2, Partition::Hash { tablets: 1 });
    let client = cluster.client();
    client.mutate("t", put(1)).await.unwrap();
    cluster.world.lock().master_away = true;
    cluster.kill(1);
    cluster.promote(0, 2);
    assert_eq!(client.get("t", name(1), ReadOptions::default()).await, Ok(Some(row(1))));
}

/// A suspended primary (SIGSTOP) takes connections and never answers.
#[tokio::test]
async fn a_silent_primary_does_not_eat_the_deadline() {
    let cluster = Cluster::start(2, Partition::Hash { tablets: 1 });
    let client = Client::connect(&cluster.address(2), OPTIONS).unwrap();
    client.mutate("t", put(1)).await.unwrap();
    cluster.script(1, vec![Said::Silence; 100]);
    cluster.promote(0, 2);
    assert_eq!(client.get("t", name(1), ReadOptions::default()).await, Ok(Some(row(1))));
}

#[tokio::test]
async fn what_cannot_pass_is_told_at_once() {
    let cluster = Cluster::start(1, Partition::Hash { tablets: 1 });
    let client = cluster.client();
    let missing = Error::from(Refusal::NoSuchTable("nix".into()));
    assert_eq!(client.mutate("nix", put(1)).await, Err(missing.clone()));
    assert_eq!(client.scan("nix", RowRange::default(), ReadOptions::default(), None).try_next().await, Err(missing));
    let few = Refusal::TooFewReplicas { have: 1, need: 2 };
    cluster.script(1, [Said::Refuse(few.clone())]);
    assert_eq!(client.mutate("t", put(1)).await, Err(few.into()));
}

#[tokio::test]
async fn at_the_deadline_the_last_refusal_is_told() {
    let cluster = Cluster::start(1, Partition::Hash { tablets: 1 });
    let options = Options { deadline: Duration::from_millis(150), ..OPTIONS };
    let client = Client::connect(&cluster.address(1), options).unwrap();
    let busy = Refusal::Overloaded;
    cluster.script(1, vec![Said::Refuse(busy.clone()); 1_000]);
    let error = client.mutate("t", put(1)).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    assert_eq!((error.refusal(), error.exit_code()), (Some(&busy), 3));
}

#[tokio::test]
async fn nobody_at_the_endpoint_is_told_soon() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let options = Options { first_contact: Duration::from_millis(30), ..OPTIONS };
    let client = Client::connect(&address, options).unwrap();
    let errors = [
        client.get("t", name(1), ReadOptions::default()).await.unwrap_err(),
        client.admin(AdminRequest::Status).await.unwrap_err(),
        client.pipeline(1).mutate(&"t".into(), put(1)).await.await.unwrap_err(),
    ];
    assert!(errors.iter().all(|error| matches!(error, Error::Unreachable { .. })), "{errors:?}");
    assert!(Client::connect("no address", OPTIONS).is_err());
}

/// Rows of all tablets come in key order, whatever the way in which the table is cut.
#[tokio::test]
async fn a_scan_is_in_key_order() {
    let splits = [30, 31, 100].map(name).to_vec();
    for partition in [Partition::Hash { tablets: 5 }, Partition::Range { splits }] {
        let cluster = Cluster::start(2, partition);
        let client = cluster.client();
        cluster.fill(0..300);
        cluster.world.lock().page = 7;
        let scan = async |range, limit| {
            let rows = client.scan("t", range, ReadOptions::default(), limit).try_collect::<Vec<_>>().await.unwrap();
            rows.into_iter().map(|row| row.key).collect::<Vec<_>>()
        };
        let names = |keys: std::ops::Range<u64>| keys.map(name).collect::<Vec<_>>();
        assert_eq!(scan(RowRange::default(), None).await, names(0..300));
        assert_eq!(scan(RowRange { start: name(25), end: Some(name(150)) }, None).await, names(25..150));
        assert_eq!(scan(RowRange::prefix(b"row00"), Some(40)).await, names(0..40));
        assert_eq!(scan(RowRange { start: name(9), end: Some(name(9)) }, None).await, names(0..0));
        assert_eq!(scan(RowRange::default(), Some(0)).await, names(0..0));
    }
}

/// From the last row to the first: the last tablet first, and of hashed tablets the largest key first.
#[tokio::test]
async fn a_scan_in_reverse_is_in_descending_order() {
    let splits = [30, 31, 100].map(name).to_vec();
    for partition in [Partition::Hash { tablets: 5 }, Partition::Range { splits }] {
        let cluster = Cluster::start(2, partition);
        let client = cluster.client();
        cluster.fill(0..300);
        cluster.world.lock().page = 7;
        let scan = async |range, limit| {
            let rows = client.scan_back("t", range, ReadOptions::default(), limit);
            let rows = rows.try_collect::<Vec<_>>().await.unwrap();
            rows.into_iter().map(|row| row.key).collect::<Vec<_>>()
        };
        let names = |keys: std::ops::Range<u64>| keys.rev().map(name).collect::<Vec<_>>();
        assert_eq!(scan(RowRange::default(), None).await, names(0..300));
        assert_eq!(scan(RowRange { start: name(25), end: Some(name(150)) }, None).await, names(25..150));
        assert_eq!(scan(RowRange { start: name(30), end: Some(name(31)) }, None).await, names(30..31));
        assert_eq!(scan(RowRange { start: name(31), end: Some(name(100)) }, None).await, names(31..100));
        assert_eq!(scan(RowRange::prefix(b"row00"), Some(40)).await, names(60..100));
        assert_eq!(scan(RowRange { start: name(9), end: Some(name(9)) }, None).await, names(0..0));
        assert_eq!(scan(RowRange::default(), Some(0)).await, names(0..0));
    }
}

/// Bigtable 5.2, decision 0010: tablets are split and merged while they are scanned, one way or the other; no row is left
/// out and none comes twice.
#[tokio::test]
async fn a_scan_goes_on_over_splits_and_merges() {
    for reverse in [false, true] {
        let cluster = Cluster::start(2, Partition::Range { splits: vec![name(60), name(120)] });
        let client = cluster.client();
        cluster.fill(0..200);
        cluster.world.lock().page = 9;
        let mut rows = client.scan_from("t", RowRange::default(), reverse, ReadOptions::default(), None);
        let mut keys = Vec::new();
        while let Some(row) = rows.next().await {
            keys.push(row.unwrap().0.key);
            // In the middle of the tablet that is read, before it, and behind it.
            match keys.len() {
                20 => [30, 90, 170].into_iter().for_each(|key| cluster.split(key)),
                40 => [0, 40, 110].into_iter().for_each(|key| cluster.merge(key)),
                100 => [5, 100, 101, 195].into_iter().for_each(|key| cluster.split(key)),
                120 => (0..2).for_each(|_| cluster.merge(0)),
                _ => {}
            }
        }
        let expected: Vec<Bytes> =
            if reverse { (0..200).rev().map(name).collect() } else { (0..200).map(name).collect() };
        assert_eq!(keys, expected, "reverse: {reverse}");
    }
}

/// Each key has its answer in its place, whatever the tablets, the sizes of the pages and what happens meanwhile.
#[tokio::test]
async fn many_rows_come_in_the_order_of_their_keys() {
    let splits = [30, 31, 100].map(name).to_vec();
    for partition in [Partition::Hash { tablets: 5 }, Partition::Range { splits }] {
        let cluster = Cluster::start(2, partition);
        let client = cluster.client();
        cluster.fill(0..200);
        for page in [0, 1, 7] {
            cluster.world.lock().page = page;
            let keys: Vec<u64> = (0..300).map(|at| at * 67 % 250).collect();
            let found = client.get_many("t", keys.iter().copied().map(name).collect(), ReadOptions::default()).await;
            let expected: Vec<_> = keys.iter().map(|&key| (key < 200).then(|| row(key))).collect();
            assert_eq!(found, Ok(expected), "pages of {page}");
            cluster.promote(0, 2);
        }
        let none = client.get_many("t", vec![], ReadOptions::default()).await;
        assert!(matches!(none, Err(Error::Refused(Refusal::Invalid(_)))), "{none:?}");
        let missing = client.get_many("nix", vec![name(1)], ReadOptions::default()).await;
        assert_eq!(missing, Err(Refusal::NoSuchTable("nix".into()).into()));
    }
}

/// The map that a read begins with may be old before it ends.
#[tokio::test]
async fn many_rows_are_read_over_a_split() {
    let cluster = Cluster::start(2, Partition::Range { splits: vec![name(100)] });
    let client = cluster.client();
    cluster.fill(0..200);
    cluster.world.lock().page = 5;
    let mut found = client.get_many_from("t", (0..200).map(name).collect(), ReadOptions::default());
    let mut keys = Vec::new();
    while let Some(answer) = found.next().await {
        keys.push(answer.unwrap().0.unwrap().key);
        if keys.len() == 20 {
            [50, 150, 33].into_iter().for_each(|key| cluster.split(key));
            cluster.merge(60);
        }
    }
    assert_eq!(keys, (0..200).map(name).collect::<Vec<_>>());
}

/// A failover in the middle of a scan loses no row and gives none twice.
#[tokio::test]
async fn a_scan_goes_on_after_a_failover() {
    let cluster = Cluster::start(2, Partition::Hash { tablets: 2 });
    let client = cluster.client();
    cluster.fill(0..200);
    cluster.world.lock().page = 9;
    let mut rows = client.scan("t", RowRange::default(), ReadOptions::default(), None);
    let mut keys = Vec::new();
    while let Some(row) = rows.next().await {
        keys.push(row.unwrap().key);
        if keys.len() == 50 {
            cluster.promote(0, 2);
            cluster.promote(1, 2);
        }
    }
    assert_eq!(keys, (0..200).map(name).collect::<Vec<_>>());
}

/// Many operations under way, some refused in passing, some never answered: each happens once and is answered.
#[tokio::test]
async fn a_pipeline_answers_everything_once() {
    let cluster = Cluster::start(2, Partition::Hash { tablets: 4 });
    let client = cluster.client();
    let mut script = vec![Said::Serve; 900];
    for (at, said) in script.iter_mut().enumerate() {
        match at % 30 {
            3 => *said = Said::Refuse(Refusal::Overloaded),
            7 => *said = Said::Refuse(Refusal::Unknown(TabletId(0))),
            11 if at < 100 => *said = Said::DoneButSilent,
            13 if at < 100 => *said = Said::Silence,
            _ => {}
        }
    }
    cluster.script(1, script.clone());
    cluster.script(2, script);
    let (pipeline, table) = (client.pipeline(64), Arc::from("t"));
    let mut pending = Vec::new();
    for key in 0..1_000 {
        if key == 500 {
            cluster.promote(0, 2);
        }
        pending.push(pipeline.mutate(&table, put(key)).await);
    }
    for answer in pending {
        assert_eq!(answer.await, Ok(Answer::Written(APPLIED)));
    }
    assert_eq!(cluster.world.lock().applied, 1_000);
    let read = pipeline.get(&table, name(7), ReadOptions::default()).await.await;
    assert_eq!(read, Ok(Answer::Row(Some(row(7)), None)));
    let last = client.inner.sequences.open();
    assert_eq!(last.id.first_incomplete, last.id.sequence, "nothing is left open");
}

#[tokio::test]
async fn a_pipeline_tells_what_cannot_pass() {
    let cluster = Cluster::start(1, Partition::Hash { tablets: 1 });
    let pipeline = cluster.client().pipeline(2);
    let missing = pipeline.mutate(&"nix".into(), put(1)).await;
    let scan = Operation::Scan { range: RowRange::default(), options: ReadOptions::default(), rows: 1, reverse: true };
    let scan = pipeline.submit(&"t".into(), scan).await;
    assert_eq!(missing.await, Err(Refusal::NoSuchTable("nix".into()).into()));
    assert!(matches!(scan.await, Err(Error::Refused(Refusal::Invalid(_)))));
}

/// When a node dies with operations on the way, they go to its heir.
#[tokio::test]
async fn a_pipeline_survives_a_crash() {
    let mut cluster = Cluster::start(2, Partition::Hash { tablets: 2 });
    let client = Client::connect(&cluster.address(2), OPTIONS).unwrap();
    let (pipeline, table) = (client.pipeline(1_000), Arc::from("t"));
    pipeline.mutate(&table, put(1_000)).await.await.unwrap();
    cluster.script(1, vec![Said::Silence; 1_000]);
    let mut pending = Vec::new();
    for key in 0..200 {
        pending.push(pipeline.mutate(&table, put(key)).await);
    }
    cluster.kill(1);
    cluster.promote(0, 2);
    cluster.promote(1, 2);
    for answer in pending {
        assert_eq!(answer.await, Ok(Answer::Written(APPLIED)));
    }
    assert_eq!(cluster.world.lock().applied, 201);
}

/// Rows go to their tablets together, and each is told what became of it.
#[tokio::test]
async fn many_rows_are_written_in_few_requests() {
    for partition in [Partition::Hash { tablets: 4 }, Partition::Range { splits: vec![name(50), name(900)] }] {
        let tablets = partition.slices().len();
        let cluster = Cluster::start(2, partition);
        let client = cluster.client();
        let written = client.mutate_many("t", (0..1_000).map(rows).collect()).await;
        assert!(written.each().all(|row| row == Ok(Timestamp(1))) && written.each().count() == 1_000);
        let world = cluster.world.lock();
        assert_eq!((world.rows.len(), world.applied, world.done.len()), (1_000, 1_000, tablets));
    }
}

/// What breaks a limit goes nowhere, what is too large for a batch goes alone, and more than a batch is several.
#[tokio::test]
async fn rows_are_cut_at_the_limits() {
    let cluster = Cluster::start(1, Partition::Hash { tablets: 1 });
    let client = cluster.client();
    let large = |key: u64, bytes: usize| RowChanges { changes: sized(bytes).changes, ..rows(key) };
    let many = [
        rows(1),
        large(2, 2 << 20),
        rows(3),
        large(4, 600_000),
        large(5, 600_000),
        RowChanges { row: Bytes::new(), ..rows(6) },
    ];
    let written = client.mutate_many("t", many.to_vec()).await;
    assert!((0..5).all(|row| written.of(row) == Ok(Timestamp(1))));
    assert!(matches!(written.of(5), Err(Error::Refused(Refusal::Invalid(_)))));
    assert!(written.of(6).is_err() && written.common_error().is_none(), "there is no such row");
    assert_eq!(cluster.world.lock().done.len(), 4, "3 and 4 together");
    let written = client.mutate_many("t", (0..15_000).map(rows).collect()).await;
    assert!(written.each().all(|row| row.is_ok()));
    assert_eq!(cluster.world.lock().done.len(), 6);
    assert_eq!(client.mutate_many("t", vec![]).await.each().count(), 0);
    let missing = client.mutate_many("nix", vec![rows(1), rows(2)]).await;
    assert_eq!(missing.common_error(), Some(&Refusal::NoSuchTable("nix".into()).into()));
}

/// RIFL 3.2, decision 0014: however often parts are sent, and whatever becomes of their tablet meanwhile, each row is
/// written once.
#[tokio::test]
async fn a_batch_is_written_once_over_splits_and_merges() {
    for carried_out in [true, false] {
        let cluster = Cluster::start(2, Partition::Range { splits: vec![name(500)] });
        let client = cluster.client();
        client.mutate_many("t", vec![rows(0)]).await;
        let unknown = if carried_out { Said::DoneButSilent } else { Said::Silence };
        cluster.script(1, [unknown.clone(), unknown]);
        let writing = {
            let client = client.clone();
            tokio::spawn(async move { client.mutate_many("t", (1..1_000).map(rows).collect()).await })
        };
        while cluster.world.lock().ids.len() < 3 {
            tokio::task::yield_now().await;
        }
        [250, 750, 125].into_iter().for_each(|key| cluster.split(key));
        cluster.merge(600);
        let written = writing.await.unwrap();
        assert!(written.each().all(|row| row.is_ok()), "{written:?}");
        let world = cluster.world.lock();
        assert_eq!((world.rows.len(), world.applied), (1_000, 1_000), "{:?}", world.ids);
        let last = client.inner.sequences.open();
        assert_eq!(last.id.first_incomplete, last.id.sequence, "nothing is left open");
    }
}

/// One row of an unknown family is no reason not to write the others.
#[tokio::test]
async fn rows_that_are_not_at_fault_go_again() {
    let cluster = Cluster::start(1, Partition::Hash { tablets: 1 });
    let client = cluster.client();
    let mut many: Vec<RowChanges<String>> = (0..9).map(rows).collect();
    let deletes = Change::DeleteFamily { family: "g".into() };
    many[4].changes = vec![deletes];
    let refusal = Refusal::NoSuchFamily { family: "g".into(), have: "f".into() };
    cluster.script(1, [Said::Refuse(refusal.clone())]);
    let written = client.mutate_many("t", many).await;
    assert_eq!(written.of(4), Err(refusal.clone().into()));
    assert_eq!((written.each().filter(Result::is_ok).count(), cluster.world.lock().applied), (8, 8));
    cluster.script(1, [Said::Refuse(refusal.clone())]);
    let written = client.mutate_many("t", vec![rows(1), rows(2)]).await;
    assert_eq!(written.common_error(), Some(&refusal.into()), "whatever the node means by it");
}

/// Rows that come one by one are collected, and nobody waits for more rows than there are.
#[tokio::test]
async fn rows_that_come_one_by_one_go_together() {
    let cluster = Cluster::start(2, Partition::Range { splits: vec![name(500)] });
    let client = cluster.client();
    let (batches, table) = (client.batches(&Arc::from("t"), 4), Arc::from("t"));
    client.pipeline(1).mutate(&table, put(9_999)).await.await.unwrap();
    let mut pending = VecDeque::new();
    for key in 0..1_000 {
        pending.push_back(batches.put(rows(key * 7 % 1_000), None).await.unwrap());
    }
    let first = pending.pop_front().unwrap();
    let again = |value: u64| RowChanges { changes: rows(value).changes, ..rows(0) };
    let last = batches.put(again(1), Some(first.block())).await.unwrap();
    assert_eq!(first.block(), last.block());
    let sent = first.block();
    assert_eq!(batches.written(first).await, Ok(Timestamp(1)));
    let Err(back) = batches.put(again(2), Some(sent)).await else { panic!("that block has gone") };
    pending.push_back(batches.put(back, None).await.unwrap());
    for row in pending.into_iter().chain([last]) {
        assert_eq!(batches.written(row).await, Ok(Timestamp(1)));
    }
    assert_eq!(cluster.world.lock().rows[&name(0)], name(2));
    assert_eq!(cluster.world.lock().done.len(), 1 + 2 + 1);
    // Without anybody who waits, too.
    drop(batches.put(rows(2_000), None).await.unwrap());
    while !cluster.world.lock().rows.contains_key(&name(2_000)) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn tables_come_from_the_master() {
    let cluster = Cluster::start(1, Partition::Hash { tablets: 3 });
    let client = cluster.client();
    assert_eq!(client.tables().await, Ok(vec![schema(Partition::Hash { tablets: 3 })]));
    assert_eq!(client.table("nix").await, Err(Refusal::NoSuchTable("nix".into()).into()));
    let dropped = client.admin(AdminRequest::DropTable("t".into())).await;
    assert_eq!(dropped, Ok(AdminReply::Table(schema(Partition::Hash { tablets: 3 }))));
    assert_eq!(client.mutate("t", put(1)).await, Err(Refusal::NoSuchTable("t".into()).into()));
    assert!(matches!(client.control_node(NodeId(1), crate::NodeAction::Kill).await, Err(Error::Refused(_))));
}

// The vocabulary.

const OPTIONS: Options = Options {
    deadline: Duration::from_secs(10),
    attempt: Duration::from_millis(100),
    first_contact: Duration::from_secs(2),
};
const APPLIED: Written = Written::Applied { version: Timestamp(1) };

fn name(key: u64) -> Bytes {
    Bytes::from(format!("row{key:04}"))
}

/// Writes the row's name into it.
fn put(key: u64) -> Mutation<String> {
    let change =
        Change::Put { family: "f".into(), qualifier: Bytes::new(), timestamp: Timestamp::SERVER, value: name(key) };
    Mutation { row: name(key), condition: None, changes: vec![change] }
}

fn rows(key: u64) -> RowChanges<String> {
    let Mutation { row, changes, .. } = put(key);
    RowChanges { row, changes }
}

fn sized(bytes: usize) -> Mutation<String> {
    let value = Bytes::from(vec![0; bytes]);
    let change = Change::Put { family: "f".into(), qualifier: Bytes::new(), timestamp: Timestamp::SERVER, value };
    Mutation { changes: vec![change], ..put(0) }
}

fn row(key: u64) -> NamedRow {
    named(&name(key), &name(key))
}

fn named(key: &Bytes, value: &Bytes) -> NamedRow {
    let cell = NamedCell { family: "f".into(), qualifier: Bytes::new(), timestamp: Timestamp(1), value: value.clone() };
    NamedRow { key: key.clone(), cells: vec![cell] }
}

fn family(id: u32, name: &str) -> Family {
    Family {
        id: FamilyId(id),
        name: name.into(),
        retention: Retention::Keep,
        loosened: false,
        locality: model::LocalityId(0),
        aggregate: None,
    }
}

fn schema(partition: Partition) -> Schema {
    Schema {
        table: TableId(1),
        name: "t".into(),
        version: 1,
        families: vec![family(1, "f")],
        next_family: FamilyId(2),
        partition,
        replicas: 2,
        min_replicas: 1,
        storage: model::Storage::default(),
        settings: model::Settings { changes: Some(family(9, model::settings::CHANGES)), ..Default::default() },
    }
}

/// What a fake node does with the next operation.
#[derive(Clone, Debug)]
enum Said {
    Serve,
    Refuse(Refusal),
    Silence,
    DoneButSilent,
}

/// What all fake nodes share: the rows, and what the master decided.
#[derive(Default)]
struct World {
    map: ClusterMap,
    master_away: bool,
    fetches: u32,
    rows: BTreeMap<Bytes, Bytes>,
    /// Request ids as they came, with the node.
    ids: Vec<(NodeId, RequestId)>,
    done: BTreeSet<(u64, u64)>,
    applied: u32,
    scripts: BTreeMap<NodeId, VecDeque<Said>>,
    /// Most rows on a page; 0 is as asked.
    page: usize,
    /// Tablets that were split or merged.
    ended: BTreeMap<TabletId, Vec<Heir>>,
    /// What happened to which row, by version.
    changed: Vec<(Bytes, i64)>,
}

impl World {
    /// `None` is silence.
    fn serve(&mut self, node: NodeId, call: Call) -> Option<Result<Answer, Refusal>> {
        if let Operation::Write { request, .. } | Operation::WriteMany { request, .. } = &call.operation {
            self.ids.push((node, *request));
        }
        match self.scripts.entry(node).or_default().pop_front().unwrap_or(Said::Serve) {
            Said::Refuse(refusal) => return Some(Err(refusal)),
            Said::Silence => return None,
            Said::DoneButSilent => {
                let _ = self.carry_out(node, call);
                return None;
            }
            Said::Serve => {}
        }
        Some(self.carry_out(node, call))
    }

    fn carry_out(&mut self, node: NodeId, call: Call) -> Result<Answer, Refusal> {
        let route = call.route.ok_or_else(|| Refusal::Invalid("a node wants a route".into()))?;
        if let Some(heirs) = self.ended.get(&route.tablet) {
            return Err(Refusal::Moved { tablet: route.tablet, heirs: heirs.clone() });
        }
        let known = self.map.tablets.iter().find(|known| known.tablet.id == route.tablet);
        let known = known.ok_or(Refusal::NoSuchTablet(route.tablet))?;
        if known.configuration.primary != node || known.configuration.epoch != route.epoch {
            let current = known.configuration.clone();
            return Err(Refusal::WrongEpoch { tablet: route.tablet, current });
        }
        let slice = known.tablet.slice.clone();
        Ok(match call.operation {
            Operation::Write { request, mutation } => {
                assert!(slice.covers(&mutation.row));
                if let (Some(_), Some(value)) = (&mutation.condition, self.rows.get(&mutation.row)) {
                    let present = Some(Present { timestamp: Timestamp(1), value: value.clone() });
                    return Ok(Answer::Written(Written::Differs { present }));
                }
                if self.done.insert((request.client.0, request.sequence)) {
                    self.applied += 1;
                    self.rows.insert(mutation.row.clone(), mutation.row);
                }
                Answer::Written(APPLIED)
            }
            Operation::WriteMany { request, part_of, rows } => {
                if !rows.iter().all(|row| slice.covers(&row.row)) {
                    return Err(Refusal::NoSuchTablet(route.tablet));
                }
                let id = |sequence| (request.client.0, sequence);
                if !part_of.into_iter().chain([request.sequence]).any(|sequence| self.done.contains(&id(sequence))) {
                    self.done.insert(id(request.sequence));
                    self.applied += rows.len() as u32;
                    for RowChanges { row, changes } in rows {
                        let [Change::Put { value, .. }] = &changes[..] else { panic!("{changes:?}") };
                        self.rows.insert(row, value.clone());
                    }
                }
                Answer::Written(APPLIED)
            }
            Operation::Get { row, .. } => {
                assert!(slice.covers(&row));
                Answer::Row(self.rows.get(&row).map(|value| named(&row, value)), None)
            }
            Operation::GetMany { rows, .. } => {
                assert!(rows.iter().all(|row| slice.covers(row)));
                let most = if self.page == 0 { rows.len() } else { self.page };
                let read = |row: &Bytes| self.rows.get(row).map(|value| named(row, value));
                Answer::Many(rows.iter().take(most).map(read).collect(), None)
            }
            Operation::Scan { range, rows, reverse, .. } => {
                let most = if self.page == 0 { rows as usize } else { self.page.min(rows as usize) };
                let found = self.rows.iter().filter(|(key, _)| range.covers(key) && slice.covers(key));
                let mut found: VecDeque<NamedRow> = found.map(|(key, value)| named(key, value)).collect();
                if reverse {
                    found.make_contiguous().reverse();
                }
                let rows: Vec<NamedRow> = found.drain(..most.min(found.len())).collect();
                let resume = match reverse {
                    false => found.pop_front().map(|row| row.key),
                    true => rows.last().filter(|_| !found.is_empty()).map(|row| row.key.clone()),
                };
                Answer::Rows { rows, resume, from: None }
            }
            Operation::Changes(query) => Answer::Changes(self.changes(&query, &slice)),
        })
    }
}

impl World {
    /// Pages of two changes.
    fn changes(&self, query: &model::ChangesQuery, slice: &Slice) -> model::ChangesPage<String> {
        let newest = self.changed.iter().map(|(_, version)| *version).max().unwrap_or_default();
        let upto = query.upto.map_or(newest, |upto| upto.0.min(newest));
        let place = |version| model::changes::Place { version: Timestamp(version), number: 0 };
        let wanted = |(row, version): &&(Bytes, i64)| {
            let first = *row == query.range.start && query.after.is_some_and(|after| place(*version) <= after);
            let late = query.since.is_none_or(|since| *version > since.0) && *version <= upto;
            query.range.covers(row) && slice.covers(row) && late && !first
        };
        let mut found: Vec<&(Bytes, i64)> = self.changed.iter().filter(wanted).collect();
        found.sort();
        let change = |(row, version): &(Bytes, i64)| {
            let changes = vec![Change::DeleteFamily { family: "f".into() }];
            model::RowChange { row: row.clone(), at: place(*version), changes }
        };
        let changes: Vec<_> = found.iter().take(2).map(|found| change(found)).collect();
        let resume = found.get(2).map(|(row, _)| {
            let after = changes.last().filter(|last| last.row == *row).map(|last| last.at);
            model::changes::Resume { row: row.clone(), after }
        });
        model::ChangesPage { changes, upto: Timestamp(upto), resume }
    }
}

struct Cluster {
    world: Arc<Mutex<World>>,
    /// Each in a runtime of its own, so that killing one closes its sockets.
    nodes: BTreeMap<u32, Runtime>,
}

impl Cluster {
    /// Nodes n1, n2, …; n1 is primary of all tablets.
    fn start(nodes: u32, partition: Partition) -> Cluster {
        let world = Arc::new(Mutex::new(World::default()));
        let mut cluster = Cluster { world: Arc::clone(&world), nodes: BTreeMap::new() };
        let mut addresses = Vec::new();
        for node in (1..=nodes).map(NodeId) {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            addresses.push((node, listener.local_addr().unwrap().to_string()));
            let fake = Fake { node, world: Arc::clone(&world) };
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.spawn(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let server = tonic::transport::Server::builder()
                    .add_service(KvServer::new(fake.clone()))
                    .add_service(AdminServer::new(fake));
                server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
            });
            cluster.nodes.insert(node.0, runtime);
        }
        let assignment = |(id, slice)| Assignment {
            tablet: Tablet { id: TabletId(id), table: TableId(1), slice },
            schema: schema(partition.clone()),
            configuration: Configuration::first(NodeId(1), (2..=nodes).map(NodeId)),
            learner: None,
            lineage: model::Lineage::default(),
        };
        let tablets = (0..).zip(partition.slices()).map(assignment).collect();
        world.lock().map = ClusterMap { version: 1, nodes: addresses, tablets, old: false, documents: 0 };
        cluster
    }

    fn client(&self) -> Client {
        Client::connect(&self.address(self.nodes.len() as u32), OPTIONS).unwrap()
    }

    fn address(&self, node: u32) -> String {
        self.world.lock().map.nodes[node as usize - 1].1.clone()
    }

    fn script(&self, node: u32, said: impl IntoIterator<Item = Said>) {
        self.world.lock().scripts.insert(NodeId(node), said.into_iter().collect());
    }

    /// The master makes `heir` the primary of a tablet.
    fn promote(&self, tablet: usize, heir: u32) {
        let mut world = self.world.lock();
        world.map.version += 1;
        let configuration = &mut world.map.tablets[tablet].configuration;
        *configuration = configuration.succeeded_by(NodeId(heir));
        assert!(configuration.epoch > Epoch(1));
    }

    /// The tablet of the key becomes two, of which the second begins with the key.
    fn split(&self, key: u64) {
        let parts = |start: &Bytes, end: &Option<Bytes>| {
            let (first, second) = (Some(name(key)), name(key));
            vec![Slice::Rows { start: start.clone(), end: first }, Slice::Rows { start: second, end: end.clone() }]
        };
        self.replace(key, 1, parts);
    }

    /// The tablet of the key and the next one become one.
    fn merge(&self, key: u64) {
        self.replace(key, 2, |start, end| vec![Slice::Rows { start: start.clone(), end: end.clone() }]);
    }

    /// So many tablets from the one of the key on make way for these.
    fn replace(&self, key: u64, count: usize, parts: impl Fn(&Bytes, &Option<Bytes>) -> Vec<Slice>) {
        let mut world = self.world.lock();
        let first = world.map.tablets.iter().position(|known| known.tablet.slice.covers(&name(key))).unwrap();
        let gone: Vec<Assignment> = world.map.tablets.drain(first..first + count).collect();
        let Slice::Rows { start, .. } = &gone[0].tablet.slice else { panic!("a hashed tablet") };
        let Slice::Rows { end, .. } = &gone[count - 1].tablet.slice else { panic!("a hashed tablet") };
        world.map.version += 1;
        let (mut heirs, mut id) = (Vec::new(), world.map.version * 100);
        for (at, slice) in parts(start, end).into_iter().enumerate() {
            id += 1;
            let tablet = Tablet { id: TabletId(id), slice: slice.clone(), ..gone[0].tablet.clone() };
            let configuration = gone[0].configuration.next();
            heirs.push(Heir { tablet: TabletId(id), slice, configuration: configuration.clone() });
            world.map.tablets.insert(first + at, Assignment { tablet, configuration, ..gone[0].clone() });
        }
        world.ended.extend(gone.iter().map(|gone| (gone.tablet.id, heirs.clone())));
    }

    fn kill(&mut self, node: u32) {
        self.nodes.remove(&node).unwrap().shutdown_background();
    }

    fn fill(&self, keys: std::ops::Range<u64>) {
        self.world.lock().rows.extend(keys.map(|key| (name(key), name(key))));
    }

    fn fetches(&self) -> u32 {
        self.world.lock().fetches
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        std::mem::take(&mut self.nodes).into_values().for_each(Runtime::shutdown_background);
    }
}

#[derive(Clone)]
struct Fake {
    node: NodeId,
    world: Arc<Mutex<World>>,
}

impl Fake {
    async fn answer(&self, call: Call) -> Result<Answer, Status> {
        let said = self.world.lock().serve(self.node, call);
        match said {
            Some(answer) => answer.map_err(|refusal| status::to_status(&refusal)),
            None => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl Kv for Fake {
    type GetManyStream = BoxStream<'static, Result<v1::GetManyPage, Status>>;
    type ScanStream = BoxStream<'static, Result<v1::ScanPage, Status>>;
    type PipelineStream = BoxStream<'static, Result<v1::PipelineResponse, Status>>;

    async fn mutate(&self, request: Request<v1::MutateRequest>) -> Result<Response<v1::MutateResponse>, Status> {
        match self.answer(request.into_inner().try_into()?).await? {
            Answer::Written(written) => Ok(Response::new(written.into())),
            other => panic!("{other:?}"),
        }
    }

    async fn mutate_many(
        &self,
        request: Request<v1::MutateManyRequest>,
    ) -> Result<Response<v1::MutateManyResponse>, Status> {
        match self.answer(request.into_inner().try_into()?).await? {
            Answer::Written(Written::Applied { version }) => {
                Ok(Response::new(convert::mutate_many_response([Ok(version)])))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        match self.answer(request.into_inner().try_into()?).await? {
            Answer::Row(row, from) => Ok(Response::new(convert::get_response(row, from))),
            other => panic!("{other:?}"),
        }
    }

    async fn get_many(&self, request: Request<v1::GetManyRequest>) -> Result<Response<Self::GetManyStream>, Status> {
        match self.answer(request.into_inner().try_into()?).await? {
            Answer::Many(rows, from) => {
                let page = convert::get_many_page(rows.into_iter().map(|row| (row, from)));
                Ok(Response::new(futures_util::stream::iter([Ok(page)]).boxed()))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn scan(&self, request: Request<v1::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let scan = Scan::try_from(request.into_inner())?;
        let call = Call { table: scan.table.clone(), route: scan.route, operation: scan.into_page() };
        match self.answer(call).await? {
            Answer::Rows { rows, resume, from } => {
                let page = convert::scan_page(rows, resume, from);
                Ok(Response::new(futures_util::stream::iter([Ok(page)]).boxed()))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn read_changes(
        &self,
        request: Request<v1::ReadChangesRequest>,
    ) -> Result<Response<v1::ChangesPage>, Status> {
        let (route, query) = wire::changes::query_from_proto(request.into_inner())?;
        let call = Call { table: "t".into(), route: Some(route), operation: Operation::Changes(query) };
        match self.answer(call).await? {
            Answer::Changes(page) => Ok(Response::new(page.into())),
            other => panic!("{other:?}"),
        }
    }

    async fn pipeline(
        &self,
        request: Request<Streaming<v1::PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        let fake = self.clone();
        let responses = request.into_inner().map_ok(move |request| {
            let result = |item: v1::PipelineItem| {
                let answer = fake.world.lock().serve(fake.node, item.operation.try_into().unwrap())?;
                Some(convert::pipeline_result(item.id, answer))
            };
            v1::PipelineResponse { results: request.items.into_iter().filter_map(result).collect() }
        });
        Ok(Response::new(responses.boxed()))
    }
}

#[tonic::async_trait]
impl Admin for Fake {
    type EventsStream = futures_util::stream::BoxStream<'static, Result<v1::EventPage, Status>>;

    async fn events(&self, _: Request<v1::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        Err(Status::unimplemented("no events"))
    }

    async fn get_map(&self, _: Request<v1::GetMapRequest>) -> Result<Response<v1::ClusterMap>, Status> {
        let mut world = self.world.lock();
        world.fetches += 1;
        if world.master_away {
            return Err(status::to_status(&Refusal::NoMaster));
        }
        Ok(Response::new(world.map.clone().into()))
    }

    async fn drop_table(&self, _: Request<v1::DropTableRequest>) -> Result<Response<v1::Table>, Status> {
        let mut world = self.world.lock();
        world.map.version += 1;
        let tablets = std::mem::take(&mut world.map.tablets);
        Ok(Response::new(tablets[0].schema.clone().into()))
    }

    async fn create_table(&self, _: Request<v1::CreateTableRequest>) -> Result<Response<v1::Table>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn alter_table(&self, _: Request<v1::AlterTableRequest>) -> Result<Response<v1::Table>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn split_tablet(
        &self,
        _: Request<v1::SplitTabletRequest>,
    ) -> Result<Response<v1::SplitTabletResponse>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn create_checkpoint(
        &self,
        _: Request<v1::CreateCheckpointRequest>,
    ) -> Result<Response<v1::Checkpoint>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn list_checkpoints(
        &self,
        _: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsResponse>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn remove_checkpoint(
        &self,
        _: Request<v1::RemoveCheckpointRequest>,
    ) -> Result<Response<v1::RemoveCheckpointResponse>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn hide_table(&self, _: Request<v1::HideTableRequest>) -> Result<Response<v1::Table>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn restore_table(&self, _: Request<v1::RestoreTableRequest>) -> Result<Response<v1::Table>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_hidden_tables(
        &self,
        _: Request<v1::ListHiddenTablesRequest>,
    ) -> Result<Response<v1::ListTablesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_documents(&self, _: Request<v1::ListDocumentsRequest>) -> Result<Response<v1::Documents>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn change_document(&self, _: Request<v1::ChangeDocumentRequest>) -> Result<Response<v1::Documents>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_tables(&self, _: Request<v1::ListTablesRequest>) -> Result<Response<v1::ListTablesResponse>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn get_table(&self, _: Request<v1::GetTableRequest>) -> Result<Response<v1::Table>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn list_masters(&self, _: Request<v1::ListMastersRequest>) -> Result<Response<v1::Masters>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn add_master(&self, _: Request<v1::AddMasterRequest>) -> Result<Response<v1::Masters>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn remove_master(&self, _: Request<v1::RemoveMasterRequest>) -> Result<Response<v1::Masters>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::ClusterStatus>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }

    async fn operate(
        &self,
        _: tonic::Request<wire::v1::OperateRequest>,
    ) -> Result<tonic::Response<wire::v1::OperateResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("not asked for"))
    }

    async fn control_node(
        &self,
        _: Request<v1::ControlNodeRequest>,
    ) -> Result<Response<v1::ControlNodeResponse>, Status> {
        Err(Status::unimplemented("not in this fake"))
    }
}
