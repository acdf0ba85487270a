//! Internal keys: what is read of one must say all that it says, and bytes must order as what they mean does.

use std::cmp::Reverse;

use model::{Bytes, Change, Timestamp};
use store::key::{self, Parts, Scope};

/// The input is a key, or two of them behind the length of the first.
pub fn run(data: &[u8]) {
    check(data);
    if let Some((&len, rest)) = data.split_first() {
        let (one, other) = rest.split_at(rest.len().min(usize::from(len)));
        check(one);
        if let (Some(a), Some(b)) = (Parts::parse(one), Parts::parse(other)) {
            compare((one, &a), (other, &b));
        }
    }
}

fn check(bytes: &[u8]) {
    let row = key::row_of(bytes).map(key::unescape);
    // Of whatever there is of a key, the row's beginning is told.
    let begun = key::row_upto(bytes);
    match &row {
        Some(row) => assert_eq!(begun, row),
        None => assert!(key::row_start(&begun).len() <= bytes.len() + 2),
    }
    key::lsn_of(bytes);
    let Some(parts) = Parts::parse(bytes) else { return };
    let row = row.expect("what is a key has a row");
    assert_eq!(key::row_start(&row), parts.row);
    assert!(bytes >= &key::row_start(&row)[..] && bytes < &key::row_end(&row)[..]);
    assert_eq!(key::lsn_of(bytes), parts.seq.0);
    assert!(key::is_escaped_of(parts.row, &row) != row.contains(&0));
    for cut in 0..bytes.len() {
        let part = key::row_upto(&bytes[..cut]);
        assert!(row.starts_with(&part), "{part:?} of {row:?}");
        assert_eq!(Parts::parse(&bytes[..cut]), None, "no key is the beginning of another");
    }
    let (family, qualifier) = (parts.family, key::unescape(parts.qualifier));
    let (change, version) = match parts.scope {
        Scope::Row => (Change::DeleteRow, Timestamp(0)),
        Scope::Family => (Change::DeleteFamily { family }, Timestamp(0)),
        Scope::Column => (Change::DeleteColumn { family, qualifier }, Timestamp(0)),
        Scope::Cell { timestamp, sets: false } => (Change::DeleteCell { family, qualifier, timestamp }, Timestamp(0)),
        Scope::Cell { timestamp, sets: true } => {
            (Change::Put { family, qualifier, timestamp, value: Bytes::new() }, timestamp)
        }
    };
    assert_eq!(key::of_change(&row, &change, parts.seq, version), bytes);
    if let Scope::Cell { timestamp, .. } = parts.scope {
        let mut deletion = bytes.to_vec();
        key::into_deletion(&mut deletion);
        let deleted = Parts { scope: Scope::Cell { timestamp, sets: false }, ..parts };
        assert_eq!(Parts::parse(&deletion), Some(deleted));
    }
}

fn compare((one, a): (&[u8], &Parts<'_>), (other, b): (&[u8], &Parts<'_>)) {
    // Deletions of all that is below come before it; of what is the same the newest first; puts after deletions.
    let rank = |parts: &Parts<'_>| {
        let (family, qualifier) = (parts.family, key::unescape(parts.qualifier));
        let seq = Reverse(parts.seq);
        let within = match parts.scope {
            Scope::Row => (None, seq, false),
            Scope::Family => (Some((family, None)), seq, false),
            Scope::Column => (Some((family, Some((qualifier, None)))), seq, false),
            Scope::Cell { timestamp, sets } => (Some((family, Some((qualifier, Some(Reverse(timestamp)))))), seq, sets),
        };
        (key::unescape(parts.row), within)
    };
    assert_eq!(one.cmp(other), rank(a).cmp(&rank(b)), "{one:x?} and {other:x?}");
}
