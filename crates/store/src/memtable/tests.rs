use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use model::FamilyId;
use model::random::Random;

use super::*;

/// A view is as of one lsn, although the shard goes on writing, also into the gaps between what was read.
#[test]
fn a_reader_sees_what_was_there_and_nothing_later() {
    let memtable = Arc::new(Memtable::default());
    let row = |n: u64| format!("{:04}", n * 7919 % 1000).into_bytes();
    for lsn in 1..=500 {
        memtable.apply(Lsn(lsn), &row(lsn), &[put("a")], Timestamp(1));
    }
    let mut cursor = MemoryCursor::new(memtable.clone(), Lsn(500));
    cursor.seek(&[], None);
    let mut seen = Vec::new();
    for lsn in 501.. {
        let Some(key) = cursor.key() else { break };
        seen.push(key.to_vec());
        memtable.apply(Lsn(lsn), &row(lsn), &[put("b")], Timestamp(2));
        cursor.advance(None);
    }
    assert_eq!(seen.len(), 500);
    assert!(seen.is_sorted() && seen.iter().all(|key| key::lsn_of(key) <= Lsn(500)));
    assert_eq!(memtable.updates(), 1000);
}

#[test]
fn a_cursor_ends_before_its_end() {
    let memtable = Arc::new(Memtable::default());
    for lsn in 1..=100 {
        memtable.apply(Lsn(lsn), format!("{lsn:03}").as_bytes(), &[put("a")], Timestamp(1));
    }
    let (mut cursor, end) = (MemoryCursor::new(memtable, Lsn(100)), key::row_end(b"059"));
    cursor.seek(&key::row_start(b"010"), Some(&end));
    let mut rows = 0;
    while cursor.key().is_some() {
        rows += 1;
        cursor.advance(Some(&end));
    }
    assert_eq!(rows, 50);
}

fn put(value: &'static str) -> Change {
    let value = Bytes::from_static(value.as_bytes());
    Change::Put { family: FamilyId(1), qualifier: Bytes::new(), timestamp: Timestamp::SERVER, value }
}

/// Whatever keys look like and in whatever order they come: it holds them as a `BTreeMap` does.
#[test]
fn a_tree_is_a_sorted_map() {
    let mut random = Random::new(1);
    type Make = fn(&mut Random, u64) -> Vec<u8>;
    let shapes: [Make; 9] = [
        |random, _| random.draw().to_be_bytes()[..random.below(9) as usize].to_vec(),
        |random, _| (0..random.below(30)).map(|_| random.below(2) as u8).collect(),
        |random, _| format!("all of them begin alike {:08}", random.below(100_000)).into_bytes(),
        |_, n| format!("in order {n:08}").into_bytes(),
        |_, n| format!("against the order {:08}", 1_000_000 - n).into_bytes(),
        |_, n| {
            format!("first spread, then in order {:06}", if n < 3000 { n * 331 % 3001 * 300 } else { n * 77 })
                .into_bytes()
        },
        |_, n| format!("orders {:03} that take turns {n:06}", n / 50 % 7).into_bytes(),
        |_, n| [format!("by turns {}", n % 3).into_bytes(), n.to_be_bytes().to_vec()].concat(),
        |random, n| match n {
            0..5000 => format!("late comes something that shares nothing {:08}", random.below(100_000)).into_bytes(),
            _ => random.draw().to_le_bytes().to_vec(),
        },
    ];
    for make in shapes {
        let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
        for n in 0..6000 {
            let key = make(&mut random, n);
            let value = Bytes::from(n.to_string());
            tree.insert(&key, (&value).into());
            model.entry(key).or_insert(value);
        }
        assert_eq!(tree.len(), model.len() as u64);
        let owned = |place| {
            let (key, value) = tree.entry(place);
            (key.to_vec(), value.to_bytes())
        };
        let first = tree.first_from(&[]);
        let forwards = std::iter::successors(first, |place| tree.after(*place));
        assert!(forwards.map(owned).eq(model.clone()));
        let last = tree.last_before(&[0xff; 60]);
        let backwards = std::iter::successors(last, |place| tree.before(*place));
        assert!(backwards.map(owned).eq(model.clone().into_iter().rev()));
        assert_eq!(tree.last().map(|(key, _)| key), model.last_key_value().map(|(key, _)| &key[..]));
        for n in 0..6000 {
            let mut target = make(&mut random, n);
            match random.below(4) {
                0 => target.push(0),
                1 => _ = target.pop(),
                2 => target = random.draw().to_be_bytes().to_vec(),
                _ => {}
            }
            let model = |range: (Bound<Vec<u8>>, Bound<Vec<u8>>)| model.range(range);
            let (from, before) = (Bound::Included(target.clone()), Bound::Excluded(target.clone()));
            let key = |place: Option<_>| place.map(|place| tree.entry(place).0);
            let next = model((from, Bound::Unbounded)).next().map(|(key, _)| &key[..]);
            assert_eq!(key(tree.first_from(&target)), next);
            let last = model((Bound::Unbounded, before)).next_back().map(|(key, _)| &key[..]);
            assert_eq!(key(tree.last_before(&target)), last);
            let mut end = if random.chance(50) { make(&mut random, n) } else { target.clone() };
            end.push(random.below(3) as u8);
            let holds =
                target < end && model((Bound::Included(target.clone()), Bound::Excluded(end.clone()))).count() > 0;
            assert_eq!(target < end && tree.holds(&target, &end), holds);
        }
    }
}

/// Forwards, backwards and by jumps, while the shard writes.
#[test]
fn a_cursor_walks_what_was_there_in_any_direction() {
    let mut random = Random::new(2);
    for _ in 0..40 {
        let memtable = Arc::new(Memtable::default());
        let mut lsn = Lsn::ZERO;
        let mut write = |random: &mut Random| {
            lsn = lsn.next();
            let (row, len) = (format!("row{}", random.below(40)), random.below(4) * 300);
            let change = Change::Put {
                family: FamilyId(1),
                qualifier: Bytes::new(),
                timestamp: Timestamp::SERVER,
                value: Bytes::from(vec![lsn.0 as u8; len as usize]),
            };
            memtable.apply(lsn, row.as_bytes(), &[change], Timestamp(lsn.0 as i64));
            lsn
        };
        let upto = (0..random.between(1, 600)).map(|_| write(&mut random)).last().unwrap();
        let model: Vec<(Vec<u8>, Bytes)> = memtable
            .0
            .read()
            .within(&RowRange::default())
            .map(|(key, value)| (key.to_vec(), value.to_bytes()))
            .collect();
        let mut cursor = MemoryCursor::new(memtable.clone(), upto);
        // Where the model stands: at one of its entries, or at none.
        let mut on: Option<usize> = None;
        for _ in 0..500 {
            let row = format!("row{}", random.below(41));
            let target = if random.chance(50) { key::row_start(row.as_bytes()) } else { key::row_end(row.as_bytes()) };
            let upto = model.partition_point(|(key, _)| *key < target);
            match random.below(8) {
                0 => {
                    cursor.seek(&target, None);
                    on = Some(upto);
                }
                1 => {
                    cursor.seek_before(Some(&target), &[]);
                    on = upto.checked_sub(1);
                }
                2 if random.chance(10) => {
                    cursor.seek_before(None, &[]);
                    on = model.len().checked_sub(1);
                }
                2..5 if on.is_some_and(|on| on < model.len()) => {
                    cursor.advance(None);
                    on = on.map(|on| on + 1);
                }
                5..8 if on.is_some_and(|on| on < model.len()) => {
                    cursor.retreat(&[]);
                    on = on.and_then(|on| on.checked_sub(1));
                }
                _ => _ = write(&mut random),
            }
            let expected = on.and_then(|on| model.get(on));
            assert_eq!(cursor.key(), expected.map(|(key, _)| &key[..]));
            let value = expected.map(|(_, value)| value.clone()).unwrap_or_default();
            assert_eq!(cursor.value_ref(), value);
            assert_eq!(cursor.value(), value);
        }
    }
}

/// 49 bytes of key and 8 of value: what comes on top is little. Ten thousand tablets that rest take next to nothing.
#[test]
fn a_small_cell_takes_little_memory() {
    let value = Change::Put {
        family: FamilyId(1),
        qualifier: Bytes::from_static(b"q"),
        timestamp: Timestamp::SERVER,
        value: Bytes::from_static(b"8 bytes."),
    };
    let mut random = Random::new(3);
    let in_order = |_: &mut Random, n: u64| u128::from(n) << 7 | 1 << 100;
    let at_random = |random: &mut Random, _| u128::from(random.draw()) << 64 | u128::from(random.draw());
    for (make, most) in [(in_order as fn(&mut Random, u64) -> u128, 76), (at_random, 82)] {
        let memtable = Memtable::default();
        assert_eq!(memtable.weight(), 0);
        for lsn in 1..=50_000 {
            let row = make(&mut random, lsn).to_be_bytes().map(|byte| byte | 1);
            memtable.apply(Lsn(lsn), &row, std::slice::from_ref(&value), Timestamp(1));
        }
        let each = memtable.weight() as u64 / memtable.updates();
        assert!((59..=most).contains(&each), "{each}");
    }
}
