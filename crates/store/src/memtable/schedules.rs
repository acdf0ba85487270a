//! Reads while the shard writes, freezes and flushes, under many schedules of the threads.
//!
//! ```text
//! cargo test -p store --features shuttle --lib schedules
//! ```

use std::sync::Arc;

use disk::MemDisk;
use model::{Family, FamilyId, Partition, ReadOptions, Retention, Schema, TableId, TabletId};
use shuttle::sync::mpsc;
use shuttle::thread;

use super::*;
use crate::{Keeper, Tablet, View};

const ROWS: u64 = 24;

/// Whatever the order of their steps: a reader of a view finds what was there when the view was taken, also when it
/// reads in several windows, both ways, from a memtable that is live, frozen, or being flushed.
#[test]
fn a_view_never_changes() {
    shuttle::check_random(scenario, 150);
    shuttle::check_pct(scenario, 100, 3);
}

fn scenario() {
    let (keeper, _) = Keeper::open(Arc::new(MemDisk::new()), Timestamp(0), Default::default()).unwrap();
    let schema = Arc::new(schema());
    let keeper = Arc::new(keeper);
    let mut tablet = Tablet::new(TabletId(1));
    let mut readers = Vec::new();
    let (done, jobs) = mpsc::channel();
    for round in 0..3 {
        // Each row gets one more version, whose value is its number; some rows are new each time.
        for row in 0..ROWS {
            write(&mut tablet, row * 3 + round % 2);
            if row == ROWS / 2 {
                readers.push(read(tablet.view()));
            }
        }
        if let Some(job) = tablet.freeze(Bytes::new(), &schema) {
            let (keeper, done) = (Arc::clone(&keeper), done.clone());
            readers.push(thread::spawn(move || done.send(keeper.run(job).unwrap()).unwrap()));
        }
        readers.push(read(tablet.view()));
        if let Ok(flushed) = jobs.try_recv() {
            tablet.install(flushed);
            readers.push(read(tablet.view()));
        }
    }
    drop(done);
    while let Ok(flushed) = jobs.recv() {
        tablet.install(flushed);
    }
    readers.push(read(tablet.view()));
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

fn write(tablet: &mut Tablet, row: u64) {
    let lsn = tablet.applied().next();
    let change = Change::Put {
        family: FamilyId(1),
        qualifier: Bytes::new(),
        timestamp: Timestamp(lsn.0 as i64),
        value: Bytes::from(lsn.0.to_string()),
    };
    tablet.apply(lsn, &Bytes::copy_from_slice(&row.to_be_bytes()), &[change], Timestamp(1));
}

/// Reads the view in another thread: all versions up to its lsn must be there, each once, and no other.
fn read(view: View) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let (schema, options) = (schema(), ReadOptions { versions: u32::MAX, ..ReadOptions::default() });
        let now = Timestamp(1);
        let (forwards, _) = view.scan(&RowRange::default(), &options, &schema, now, u32::MAX, usize::MAX).unwrap();
        let mut seen: Vec<i64> = forwards.iter().flat_map(|row| &row.cells).map(|cell| cell.timestamp.0).collect();
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(1..=view.at().0 as i64), "{seen:?} at {}", view.at());
        assert!(forwards.is_sorted_by(|a, b| a.key < b.key));
        let (mut back, _) = view.scan_back(&RowRange::default(), &options, &schema, now, u32::MAX, usize::MAX).unwrap();
        back.reverse();
        assert_eq!(back, forwards);
        let row = &forwards[forwards.len() / 2];
        assert_eq!(view.row(&row.key, &options, &schema, now).unwrap().as_ref(), Some(row));
    })
}

fn schema() -> Schema {
    let family = Family {
        id: FamilyId(1),
        name: "f".into(),
        retention: Retention::Keep,
        loosened: false,
        locality: model::LocalityId(0),
        aggregate: None,
    };
    Schema {
        table: TableId(1),
        name: "t".into(),
        version: 1,
        families: vec![family],
        next_family: FamilyId(2),
        partition: Partition::Hash { tablets: 1 },
        replicas: 1,
        min_replicas: 1,
        storage: model::Storage::default(),
        settings: model::Settings::default(),
    }
}
