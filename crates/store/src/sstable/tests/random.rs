//! Random tables beside a `BTreeMap`.

use std::collections::BTreeMap;

use model::storage::{Compression, Filter};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

type Entries = BTreeMap<Bytes, Bytes>;

/// Keys whose rows and qualifiers have zeros, shared beginnings and gaps.
fn key() -> impl Strategy<Value = Bytes> {
    let bytes = || vec(prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(b'b'), Just(255)], 0..6);
    (bytes(), 0..5u8, 0..3u32, bytes(), -2..3i64, 1..4u64).prop_map(|(row, kind, family, qualifier, timestamp, lsn)| {
        let (family, qualifier, timestamp) = (FamilyId(family), Bytes::from(qualifier), Timestamp(timestamp));
        let change = match kind {
            0 => Change::DeleteRow,
            1 => Change::DeleteFamily { family },
            2 => Change::DeleteColumn { family, qualifier },
            3 => Change::DeleteCell { family, qualifier, timestamp },
            _ => Change::Put { family, qualifier, timestamp, value: Bytes::new() },
        };
        key::of_change(&row, &change, Seq(Lsn(lsn), 0), Timestamp(0))
    })
}

fn entries() -> impl Strategy<Value = Entries> {
    let value = (0..200usize, any::<u8>()).prop_map(|(len, byte)| Bytes::from(vec![byte; len]));
    btree_map(key(), value, 1..150)
}

fn locality() -> impl Strategy<Value = LocalityGroup> {
    let compression = prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)];
    let filter = prop_oneof![Just(Filter::None), Just(Filter::Rows), Just(Filter::Columns)];
    (256..2000u32, compression, filter).prop_map(|(block_bytes, compression, filter)| LocalityGroup {
        block_bytes,
        compression,
        filter,
        ..LocalityGroup::default()
    })
}

fn table_of(entries: &Entries, locality: &LocalityGroup) -> Arc<Table> {
    let disk = MemDisk::new();
    let mut writer = writer(&disk, Lsn(9), locality);
    for (key, value) in entries {
        writer.add(key, value).unwrap();
    }
    let (file, path) = writer.finish().unwrap();
    Arc::new(Table::open(file, path, None, &Cache::new(1 << 20)).unwrap())
}

/// A step of a cursor.
#[derive(Clone, Debug)]
enum Step {
    Advance,
    Retreat,
    Seek(Bytes),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Advance),
        3 => Just(Step::Retreat),
        1 => key().prop_map(Step::Seek),
    ];
    vec(step, 0..120)
}

fn pair((key, value): (&Bytes, &Bytes)) -> (Bytes, Bytes) {
    (key.clone(), value.clone())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_table_is_a_sorted_map(entries in entries(), locality in locality(), targets in vec(key(), 20)) {
        let table = table_of(&entries, &locality);
        table.verify().unwrap();
        let all: Vec<_> = entries.iter().map(pair).collect();
        prop_assert_eq!(&walk(&table), &all);
        let mut back = walk_back(&table);
        back.reverse();
        prop_assert_eq!(&back, &all);
        for target in &targets {
            let from = TableCursor::new(table.clone(), target, Purpose::Serve).unwrap();
            prop_assert_eq!(from.key(), entries.range(target.clone()..).next().map(|(key, _)| &key[..]));
            let upto = TableCursor::before(table.clone(), Some(target), Purpose::Serve).unwrap();
            prop_assert_eq!(upto.key(), entries.range(..target.clone()).next_back().map(|(key, _)| &key[..]));
        }
        for key in entries.keys() {
            let row = key::row_of(key).unwrap();
            let hash = filter::hash(row);
            prop_assert!(table.may_hold(row, hash));
            let parts = key::Parts::parse(key).unwrap();
            prop_assert!(parts.scope == key::Scope::Row || table.may_hold_family(parts.family));
            // Whatever a reader of a column has to see.
            for family in (0..3).map(FamilyId) {
                let sees = match parts.scope {
                    key::Scope::Row => true,
                    key::Scope::Family => family == parts.family,
                    _ => false,
                };
                let column = filter::Column::new(hash, family, b"other\0\x01");
                prop_assert!(!sees || table.may_hold_column(row, &column));
            }
            let column = filter::Column::new(hash, parts.family, parts.qualifier);
            prop_assert!(table.may_hold_column(row, &column));
        }
    }

    /// However a cursor came to where it stands, it goes on from there.
    #[test]
    fn a_cursor_walks_both_ways(entries in entries(), locality in locality(), start in key(), steps in steps()) {
        let table = table_of(&entries, &locality);
        let mut cursor = TableCursor::new(table, &start, Purpose::Serve).unwrap();
        let mut at = entries.range(start..).next().map(pair);
        for step in steps {
            let Some((key, _)) = at.clone() else { break };
            match step {
                Step::Advance => {
                    cursor.advance().unwrap();
                    at = entries.range(key..).nth(1).map(pair);
                }
                Step::Retreat => {
                    cursor.retreat().unwrap();
                    at = entries.range(..key).next_back().map(pair);
                }
                Step::Seek(target) => {
                    cursor.seek(&target).unwrap();
                    at = entries.range(target.max(key)..).next().map(pair);
                }
            }
            prop_assert_eq!(cursor.key(), at.as_ref().map(|(key, _)| &key[..]));
            prop_assert_eq!(cursor.value_ref(), at.as_ref().map_or(&[][..], |(_, value)| &value[..]));
        }
    }

    /// A part of a table shows its rows and no others, from whichever side one comes.
    #[test]
    fn a_part_shows_only_its_rows(entries in entries(), locality in locality(), a in key(), b in key()) {
        let row_of = |key: &Bytes| key::unescape(key::row_of(key).unwrap());
        let (start, end) = (row_of(&a).min(row_of(&b)), row_of(&a).max(row_of(&b)));
        let rows = RowRange { start, end: Some(end) };
        let part = table_of(&entries, &locality).within(&rows);
        let inside: Vec<_> = entries.iter().map(pair).filter(|(key, _)| rows.covers(&row_of(key))).collect();
        prop_assert_eq!(&walk(&part), &inside);
        let mut back = walk_back(&part);
        back.reverse();
        prop_assert_eq!(&back, &inside);
    }
}
