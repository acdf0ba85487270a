//! Following a table's changes while its tablets come and go.

use model::follow::{Start, Token};

use super::*;
use crate::{Changes, Step};

/// Whatever becomes of the tablets, and whoever goes on with the token of the last page: each change once, and those of a row
/// in their order.
#[tokio::test]
async fn changes_are_followed_through_splits_merges_and_failovers() {
    for handed_on in [false, true] {
        let cluster = Cluster::start(3, Partition::Range { splits: vec![name(10)] });
        let client = cluster.client();
        let mut changes = client.changes("t", RowRange::default(), Start::Kept).await.unwrap();
        let (mut given, mut version) = (Vec::new(), 0);
        for turn in 0..6 {
            for key in [1, 3, 3, 7, 11, 15, 15, 15, 19] {
                version += 1;
                cluster.world.lock().changed.push((name(key), version));
            }
            match turn {
                1 => cluster.split(3),
                2 => cluster.split(15),
                3 => cluster.promote(0, 2),
                4 => cluster.merge(1),
                _ => {}
            }
            let mut steps = 0;
            while let Step::Changes(page) = changes.next().await.unwrap() {
                given.extend(page.into_iter().map(|change| (change.row, change.at.version.0)));
                steps += 1;
                if turn == 2 && steps == 2 {
                    cluster.split(7);
                }
                if handed_on {
                    let token = Token::from_text(&changes.token().to_text()).unwrap();
                    changes = client.changes_from("t", token).await.unwrap();
                }
            }
        }
        while changes.complete() != Some(Timestamp(version)) {
            if let Step::Changes(page) = changes.next().await.unwrap() {
                given.extend(page.into_iter().map(|change| (change.row, change.at.version.0)));
            }
        }
        for key in 0..20 {
            let of = |row: &Bytes| *row == name(key);
            let given: Vec<i64> = given.iter().filter(|(row, _)| of(row)).map(|(_, version)| *version).collect();
            let made = cluster.world.lock().changed.clone();
            let made: Vec<i64> = made.iter().filter(|(row, _)| of(row)).map(|(_, version)| *version).collect();
            assert_eq!(given, made, "row {key}");
        }
        assert!(changes.token().parts.len() <= 3, "parts at one place are one: {:?}", changes.token());
    }
}

/// Also in the middle of a page: what came before it is not given again, what comes after it is.
#[tokio::test]
async fn a_reader_goes_on_after_any_change() {
    let cluster = Cluster::start(1, Partition::Range { splits: vec![name(3)] });
    let client = cluster.client();
    let made = [(1, 1), (1, 2), (1, 3), (2, 4), (4, 5), (4, 6)];
    cluster.world.lock().changed.extend(made.map(|(key, version)| (name(key), version)));
    let mut changes = client.changes("t", RowRange::default(), Start::Kept).await.unwrap();
    let mut given = Vec::new();
    while let Step::Changes(page) = changes.next().await.unwrap() {
        for change in page {
            given.push(change.at.version.0);
            let mut next = client.changes_from("t", changes.token_after(&change)).await.unwrap();
            let left: Vec<i64> = (1..=6).filter(|version| !given.contains(version)).collect();
            assert_eq!(all(&mut next).await, left);
        }
    }
    assert_eq!(given.len(), 6);
}

/// From now on, from a date on, and of some rows.
#[tokio::test]
async fn a_reader_begins_where_it_says() {
    for partition in [Partition::Hash { tablets: 3 }, Partition::Range { splits: vec![name(2)] }] {
        let cluster = Cluster::start(1, partition);
        let client = cluster.client();
        cluster.world.lock().changed.extend((1..=4).map(|key| (name(key), key as i64)));
        let mut readers = Vec::new();
        for (start, range) in [
            (Start::Now, RowRange::default()),
            (Start::After(Timestamp(2)), RowRange::default()),
            (Start::Kept, RowRange { start: name(2), end: Some(name(4)) }),
        ] {
            readers.push(client.changes("t", range, start).await.unwrap());
        }
        let mut before = Vec::new();
        for reader in &mut readers {
            before.push(all(reader).await);
        }
        assert_eq!(before, [vec![], vec![3, 4], vec![2, 3]]);
        cluster.world.lock().changed.push((name(3), 9));
        for reader in &mut readers {
            assert_eq!(all(reader).await, [9]);
        }
    }
}

/// A token is of one table's changes, and of the ones that it keeps now.
#[tokio::test]
async fn a_token_of_other_changes_is_refused() {
    let cluster = Cluster::start(1, Partition::Hash { tablets: 1 });
    let client = cluster.client();
    let mut token = client.changes("t", RowRange::default(), Start::Now).await.unwrap().token();
    assert!(client.changes_from("t", token.clone()).await.is_ok());
    token.stream.family = FamilyId(4);
    assert!(matches!(client.changes_from("t", token).await, Err(Error::Refused(Refusal::Invalid(_)))));
    cluster.world.lock().map.tablets.iter_mut().for_each(|tablet| tablet.schema.settings.changes = None);
    let refused = client.changes("t", RowRange::default(), Start::Now).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::NoChanges(_)))));
}

/// Versions of all that has happened, by row and in order.
async fn all(changes: &mut Changes) -> Vec<i64> {
    let mut given = Vec::new();
    while let Step::Changes(page) = changes.next().await.unwrap() {
        given.extend(page.into_iter().map(|change| (change.row, change.at.version.0)));
    }
    given.sort();
    given.into_iter().map(|(_, version)| version).collect()
}
