//! How fast a table is: prints, and asserts no times.
//!
//! ```text
//! cargo test --release -p store --lib -- --ignored --nocapture sstable::tests::speed
//! ```

// A clock is what this is about.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::Instant;

use disk::KernelDisk;

use super::*;

const ROWS: u64 = 400_000;

fn mix(n: u64) -> u64 {
    let x = (n ^ (n >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

fn key_of(n: u64) -> Bytes {
    let (family, qualifier) = (FamilyId(1), Bytes::from_static(b"field0"));
    let change =
        Change::Put { family, qualifier, timestamp: Timestamp(1_700_000_000_000_000 + n as i64), value: Bytes::new() };
    key::of_change(format!("user{n:012}").as_bytes(), &change, Seq(Lsn(n + 1), 0), Timestamp(0))
}

fn value_of(n: u64) -> Vec<u8> {
    let half = (0..50).map(|at| b'a' + (mix(n * 64 + at) % 26) as u8);
    half.chain([b'x'; 50]).collect()
}

/// Nanoseconds that this thread had a processor for: others do not count.
fn on_cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

fn timed(what: &str, times: u64, run: impl FnOnce()) {
    let (start, cpu) = (Instant::now(), on_cpu());
    run();
    let (taken, cpu) = (start.elapsed().as_nanos() as u64, on_cpu() - cpu);
    println!(
        "{what:<28} {:>9.1} ns of a processor each, {:>9.1} ns in all",
        cpu as f64 / times as f64,
        taken as f64 / times as f64
    );
}

#[test]
#[ignore = "prints times"]
fn speed() {
    let dir = std::env::temp_dir().join(format!("diptych-speed-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let disk = KernelDisk::open(&dir).unwrap();
    let mut table = None;
    timed("build", ROWS, || {
        let mut writer = writer(&disk, Lsn(ROWS + 1), &LocalityGroup::default());
        for n in 0..ROWS {
            writer.add(&key_of(n * 2), &value_of(n)).unwrap();
        }
        let (file, path) = writer.finish().unwrap();
        table = Some(Arc::new(Table::open(file, path, None, &Cache::new(256 << 20)).unwrap()));
    });
    let table = table.unwrap();
    println!("bytes {}", table.bytes());
    timed("build's own keys, values", ROWS, || {
        for n in 0..ROWS {
            black_box((key_of(n * 2), value_of(n)));
        }
    });
    for round in 0..2 {
        timed("get hit", ROWS, || {
            let mut found = 0;
            for n in 0..ROWS {
                let row = mix(n + round) % ROWS * 2;
                let start = key::row_start(format!("user{row:012}").as_bytes());
                if table.may_hold(&start, filter::hash(&start)) {
                    let cursor = TableCursor::new(table.clone(), &start, Purpose::Serve).unwrap();
                    found += cursor.value().len();
                }
            }
            black_box(found);
        });
    }
    timed("get missing", ROWS, || {
        let mut passed = 0;
        for n in 0..ROWS {
            let row = mix(n) % ROWS * 2 + 1;
            let start = key::row_start(format!("user{row:012}").as_bytes());
            passed += u64::from(table.may_hold(&start, filter::hash(&start)));
        }
        println!("passed {passed} of {ROWS}");
    });
    timed("get's own rows", ROWS, || {
        for n in 0..ROWS {
            let row = mix(n) % ROWS * 2 + 1;
            let start = key::row_start(format!("user{row:012}").as_bytes());
            black_box(filter::hash(&start));
        }
    });
    timed("scan", ROWS, || {
        let mut cursor = TableCursor::new(table.clone(), &[], Purpose::Serve).unwrap();
        let mut sum = 0;
        while let Some(key) = cursor.key() {
            sum += key.len() + cursor.value().len();
            cursor.advance().unwrap();
        }
        black_box(sum);
    });
    std::fs::remove_dir_all(&dir).unwrap();
}
