//! Filters as the documentation of `google.bigtable.v2` describes them.

use std::ops::Bound;

use model::{Bytes, Timestamp};
use proptest::prelude::*;

use crate::{Compiled, Filter, Input, Interval, Pick};

const FAMILIES: [&str; 3] = ["A", "B", "meta"];

#[derive(Clone, Debug, PartialEq)]
struct Cell {
    family: &'static str,
    qualifier: Bytes,
    timestamp: Timestamp,
    value: Bytes,
}

impl crate::Cell for Cell {
    fn family(&self) -> &str {
        self.family
    }

    fn qualifier(&self) -> &[u8] {
        &self.qualifier
    }

    fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    fn value(&self) -> &[u8] {
        &self.value
    }
}

fn cell(family: usize, qualifier: &str, timestamp: i64, value: &str) -> Cell {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Cell { family: FAMILIES[family], qualifier: bytes(qualifier), timestamp: Timestamp(timestamp), value: bytes(value) }
}

fn apply(filter: &Filter, key: &str, cells: &[Cell]) -> Vec<Pick> {
    apply_with(&Compiled::new(filter).unwrap(), key, cells)
}

fn apply_with(filter: &Compiled, key: &str, cells: &[Cell]) -> Vec<Pick> {
    filter.apply(&Input { key: key.as_bytes(), cells, draw: &|| 0 })
}

fn places(filter: &Filter, cells: &[Cell]) -> Vec<usize> {
    apply(filter, "row", cells).iter().map(|pick| pick.at).collect()
}

fn pattern(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn chain(filters: impl Into<Vec<Filter>>) -> Filter {
    Filter::Chain(filters.into())
}

fn interleave(filters: impl Into<Vec<Filter>>) -> Filter {
    Filter::Interleave(filters.into())
}

fn row() -> Vec<Cell> {
    vec![
        cell(0, "a", 30, "new"),
        cell(0, "a", 20, "old"),
        cell(0, "b", 30, ""),
        cell(1, "a", 10, "other"),
        cell(2, "\u{e9}", 5, "x\ny"),
    ]
}

#[test]
fn each_looks_at_what_it_says() {
    let cells = row();
    let at = |filter: Filter| places(&filter, &cells);
    assert_eq!(at(Filter::Pass), [0, 1, 2, 3, 4]);
    assert_eq!(at(Filter::Block), [0; 0]);
    assert_eq!(at(Filter::RowKey(pattern("r.w"))), [0, 1, 2, 3, 4]);
    assert_eq!(at(Filter::RowKey(pattern("ro"))), [0; 0], "a pattern matches as a whole");
    assert_eq!(at(Filter::Family(pattern("A|meta"))), [0, 1, 2, 4]);
    assert_eq!(at(Filter::Qualifier(pattern("a"))), [0, 1, 3]);
    assert_eq!(at(Filter::Value(pattern("o.*"))), [1, 3]);
    assert_eq!(at(Filter::Value(pattern(""))), [2]);
    assert_eq!(at(Filter::Value(pattern(".*"))), [0, 1, 2, 3], "a dot is no newline");
    assert_eq!(at(Filter::Value(pattern(r"\C*"))), [0, 1, 2, 3, 4]);
    assert_eq!(at(Filter::Value(pattern("(?s).*"))), [0, 1, 2, 3, 4]);
    assert_eq!(at(Filter::Times { since: Timestamp(10), before: Some(Timestamp(30)) }), [1, 3]);
    assert_eq!(at(Filter::Times { since: Timestamp(10), before: None }), [0, 1, 2, 3]);
    let within = |start, end| Interval { start, end };
    let qualifiers = within(Bound::Excluded(pattern("a")), Bound::Unbounded);
    assert_eq!(at(Filter::Columns { family: "A".into(), qualifiers }), [2]);
    let values = within(Bound::Included(pattern("new")), Bound::Excluded(pattern("other")));
    assert_eq!(at(Filter::Values(values)), [0, 1]);
    assert_eq!(at(Filter::Mask(pattern("\x01\x01\x01"))), [0; 0]);
    assert_eq!(at(Filter::Mask(pattern("`@`"))), [0, 1], "n, e, w and o, l, d have these bits");
    assert_eq!(at(Filter::Skip(3)), [3, 4]);
    assert_eq!(at(Filter::Skip(9)), [0; 0]);
    assert_eq!(at(Filter::Limit(2)), [0, 1]);
    assert_eq!(at(Filter::LimitColumn(1)), [0, 2, 3, 4]);
}

#[test]
fn what_is_stripped_has_no_value_any_more() {
    let cells = row();
    let stripped = apply(&Filter::Strip, "row", &cells);
    assert!(stripped.len() == 5 && stripped.iter().all(|pick| pick.stripped));
    assert_eq!(places(&chain([Filter::Strip, Filter::Value(pattern("new"))]), &cells), [0; 0]);
    assert_eq!(places(&chain([Filter::Strip, Filter::Value(pattern(""))]), &cells), [0, 1, 2, 3, 4]);
}

/// Nothing is made one: the same cell from two branches comes twice, each with its own label.
#[test]
fn an_interleave_keeps_doubles() {
    let cells = row();
    let both = interleave([Filter::Family(pattern("A")), Filter::Qualifier(pattern("a"))]);
    assert_eq!(places(&both, &cells), [0, 0, 1, 1, 2, 3]);
    assert_eq!(places(&chain([both.clone(), Filter::Limit(3)]), &cells), [0, 0, 1]);
    assert_eq!(places(&chain([both, Filter::LimitColumn(2)]), &cells), [0, 0, 2, 3]);
}

/// The example of the documentation of `sink`.
#[test]
fn a_sink_goes_past_what_is_around_it() {
    let cells = [cell(0, "A", 1, "w"), cell(0, "B", 2, "x"), cell(1, "B", 4, "z")];
    let filter = chain([
        Filter::Family(pattern("A")),
        interleave([Filter::Pass, chain([Filter::Label("foo".into()), Filter::Sink])]),
        Filter::Qualifier(pattern("B")),
    ]);
    let mut found: Vec<_> =
        apply(&filter, "row", &cells).into_iter().map(|pick| (pick.at, pick.label.as_deref() == Some("foo"))).collect();
    found.sort_unstable();
    assert_eq!(found, [(0, true), (1, false), (1, true)]);
}

#[test]
fn a_condition_gives_its_input_to_a_branch() {
    let cells = row();
    let condition = |value: &str, otherwise| Filter::Condition {
        predicate: Box::new(chain([Filter::Value(pattern(value)), Filter::Strip])),
        then: Some(Box::new(Filter::Family(pattern("B")))),
        otherwise,
    };
    assert_eq!(places(&condition("old", None), &cells), [3]);
    assert_eq!(places(&condition("nothing", None), &cells), [0; 0]);
    assert_eq!(places(&condition("nothing", Some(Box::new(Filter::Limit(1)))), &cells), [0]);
}

#[test]
fn a_sample_takes_whole_rows() {
    let cells = row();
    let filter = Compiled::new(&Filter::Sample(0.25)).unwrap();
    let drawn = |draw: u64| {
        let input = Input { key: b"r", cells: &cells, draw: &move || draw };
        filter.apply(&input).len()
    };
    assert_eq!((drawn(0), drawn(u64::MAX / 4 - 1_000), drawn(u64::MAX / 4 + 1_000)), (5, 5, 0));
}

/// RE2 of bytes: one character is one byte.
#[test]
fn patterns_are_those_of_re2() {
    let cells = |value: &[u8]| [Cell { value: Bytes::copy_from_slice(value), ..cell(0, "q", 1, "") }];
    let matches = |pattern: &[u8], value: &[u8]| {
        places(&Filter::Value(Bytes::copy_from_slice(pattern)), &cells(value)).len() == 1
    };
    let good: [(&[u8], &[u8]); 34] = [
        (b"a+", b"aaa"),
        (b"\xff.", b"\xff\xfe"),
        (br"\xff[\x80-\xff]", b"\xff\x80"),
        ("é".as_bytes(), "é".as_bytes()),
        (br"\x{41}", b"A"),
        (br"\101\0", b"A\0"),
        (br"\Qa.b*\E+", b"a.b**"),
        (br"\Qa\", b"a\\"),
        (br"\<\>\-\ \@", b"<>- @"),
        (b"\\\n", b"\n"),
        (b"[[]", b"["),
        (b"[]a]+", b"]a"),
        (b"[^]a]", b"b"),
        (b"[a&&b]+", b"a&b"),
        (b"[a-c~~]+", b"b~"),
        (b"[a-]+", b"a-"),
        (b"[[:alpha:][:digit:]]+", b"ab12"),
        (br"[\d\s]+", b"1 2"),
        (br"[^\s]+", b"ab"),
        (br"\S\W", b"a-"),
        (b"(?i)abc", b"aBC"),
        (b"(?i:a)b", b"Ab"),
        (b"a|b|", b""),
        (b"^a$", b"a"),
        (b"(?P<n>a)(?:b)", b"ab"),
        (b"a{2,3}", b"aaa"),
        (b"{a}", b"{a}"),
        (b"a{,2}", b"a{,2}"),
        (b"x*?y??", b"xxy"),
        (br"\pL\p{Lu}\PL\p{^L}", b"aB12"),
        (br"\pL", b"\xe9"),
        (br"\v\t\r\n\f\a", b"\x0b\t\r\n\x0c\x07"),
        (br"a\b", b"a"),
        (br"(?U)a+", b"aa"),
    ];
    for (pattern, value) in good {
        assert!(matches(pattern, value), "{:?} on {value:?}", String::from_utf8_lossy(pattern));
        assert!(!matches(pattern, b"something else"), "{:?}", String::from_utf8_lossy(pattern));
    }
    assert!(!matches(br"\s", b"\x0b"), "a vertical tab is no space");
    let bad: [&[u8]; 16] = [
        b"(a",
        b"[a",
        b"a**",
        br"\1",
        br"(?=a)",
        br"(?<!a)",
        br"\y",
        br"\x{100}",
        b"(?u)a",
        b"a{1001}",
        b"*",
        br"\p{Greek}",
        br"\",
        b"a{9}{900}",
        b"a*??",
        b"(((a{100}){100}){100})",
    ];
    for pattern in bad {
        let error = Compiled::new(&Filter::Value(Bytes::copy_from_slice(pattern))).map(|_| ()).err();
        let refused = error.as_ref().is_some_and(|error| error.0.starts_with("Error in field 'value_regex_filter' : "));
        assert!(refused, "{:?}: {error:?}", String::from_utf8_lossy(pattern));
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_its_name() {
    let refused = |filter: Filter| Compiled::new(&filter).map(|_| ()).unwrap_err().0;
    assert!(refused(chain([Filter::Pass])).contains("'chain'"));
    assert!(refused(interleave([])).contains("'interleave'"));
    assert!(refused(chain([Filter::Label("a".into()), Filter::Label("b".into())])).contains("'chain'"));
    let deep = interleave([Filter::Label("b".into()), Filter::Pass]);
    assert!(refused(chain([Filter::Label("a".into()), deep])).contains("'chain'"));
    let predicate = Box::new(chain([Filter::Pass, Filter::Sink]));
    assert!(refused(Filter::Condition { predicate, then: None, otherwise: None }).contains("'sink'"));
    assert!(refused(Filter::Family(pattern("a:b"))).contains("':'"));
    for label in ["", "A", "sixteen-letters-", "a_b"] {
        assert!(refused(Filter::Label(label.into())).contains("label"));
    }
    for share in [0.0, 1.0, -1.0, f64::NAN] {
        assert!(refused(Filter::Sample(share)).contains("'row_sample_filter'"));
    }
    assert!(refused(Filter::Limit(0)).contains("'cells_per_row_limit_filter'"));
    assert!(refused(Filter::Mask(Bytes::new())).contains("'value_bitmask_filter'"));
    let empty = Interval { start: Bound::Excluded(pattern("k")), end: Bound::Included(pattern("k")) };
    assert!(refused(Filter::Values(empty)).contains("'value_range_filter'"));
    let nested = |depth| (1..depth).fold(Filter::Pass, |inner, _| chain([inner, Filter::Pass]));
    assert!(Compiled::new(&nested(20)).is_ok());
    assert!(refused(nested(21)).contains("deep"));
}

#[test]
fn a_filter_says_what_it_needs() {
    let needs = |filter: Filter| Compiled::new(&filter).unwrap().needs().clone();
    let filter = chain([
        Filter::Family(pattern("A")),
        Filter::Qualifier(pattern(r"a\-b")),
        Filter::Times { since: Timestamp(5), before: None },
        Filter::LimitColumn(1),
    ]);
    let found = needs(filter);
    assert_eq!((found.column.family.as_deref(), found.column.qualifier.as_deref()), (Some("A"), Some(&b"a-b"[..])));
    assert_eq!((found.since, found.before, found.versions), (Some(Timestamp(5)), None, Some(1)));
    assert!(needs(chain([Filter::Family(pattern("A")), Filter::Family(pattern("B"))])).nothing);
    let counted_first = needs(chain([Filter::Limit(1), Filter::Family(pattern("A"))]));
    assert_eq!(counted_first, crate::Needs { every_row: false, ..crate::Needs::ALL });
    assert!(found.every_row && !needs(Filter::RowKey(pattern("a"))).every_row);
    assert!(!needs(chain([Filter::LimitColumn(1), Filter::Family(pattern("A"))])).every_row);
    assert_eq!(needs(chain([Filter::Value(pattern("v")), Filter::LimitColumn(1)])).versions, None);
}

fn any_cell() -> impl Strategy<Value = Cell> {
    (
        0..3usize,
        prop::sample::select(vec!["", "a", "b", "ab"]),
        0..5i64,
        prop::sample::select(vec!["", "a", "b", "\u{1}"]),
    )
        .prop_map(|(family, qualifier, timestamp, value)| cell(family, qualifier, timestamp, value))
}

fn any_row() -> impl Strategy<Value = Vec<Cell>> {
    prop::collection::vec(any_cell(), 0..14).prop_map(|mut cells| {
        cells.sort_by_key(|cell| (cell.family, cell.qualifier.clone(), -cell.timestamp.0));
        cells.dedup_by_key(|cell| (cell.family, cell.qualifier.clone(), cell.timestamp));
        cells
    })
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let text = prop::sample::select(vec!["a", "b", "a|b", ".*", "", "[^a]", "meta", "A"]);
    let leaf = prop_oneof![
        Just(Filter::Pass),
        Just(Filter::Block),
        Just(Filter::Strip),
        text.clone().prop_map(|text| Filter::Family(pattern(text))),
        text.clone().prop_map(|text| Filter::Qualifier(pattern(text))),
        text.prop_map(|text| Filter::Value(pattern(text))),
        (0..4i64, 4..6i64).prop_map(|(since, before)| Filter::Times {
            since: Timestamp(since),
            before: (before == 4).then_some(Timestamp(before))
        }),
        prop::sample::select(FAMILIES.to_vec()).prop_map(|family| Filter::Columns {
            family: family.to_owned(),
            qualifiers: Interval { start: Bound::Included(pattern("a")), end: Bound::Unbounded }
        }),
        (0..4u32).prop_map(Filter::Skip),
        (1..4u32).prop_map(Filter::Limit),
        (1..3u32).prop_map(Filter::LimitColumn),
        Just(Filter::Label("x".to_owned())),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        let several = prop::collection::vec(inner.clone(), 2..4);
        let boxed = inner.prop_map(Box::new);
        prop_oneof![
            several.clone().prop_map(Filter::Chain),
            several.prop_map(Filter::Interleave),
            (boxed.clone(), prop::option::of(boxed.clone()), prop::option::of(boxed))
                .prop_map(|(predicate, then, otherwise)| Filter::Condition { predicate, then, otherwise }),
        ]
    })
}

proptest! {
    /// Whoever reads no more than a filter needs gets the same through it.
    #[test]
    fn what_is_not_needed_makes_no_difference(cells in any_row(), filter in any_filter()) {
        let Ok(compiled) = Compiled::new(&filter) else { return Ok(()) };
        let needs = compiled.needs().clone();
        let mut column = ("none", Bytes::new());
        let mut versions = 0;
        let read: Vec<Cell> = cells
            .iter()
            .filter(|cell| {
                let family = needs.column.family.as_ref().is_none_or(|name| name == cell.family);
                let qualifier = needs.column.qualifier.as_ref().is_none_or(|qualifier| *qualifier == cell.qualifier);
                let time = needs.since.is_none_or(|since| since <= cell.timestamp)
                    && needs.before.is_none_or(|before| cell.timestamp < before);
                if needs.nothing || !family || !qualifier || !time {
                    return false;
                }
                let its = (cell.family, cell.qualifier.clone());
                versions = if its == column { versions + 1 } else { 1 };
                column = its;
                needs.versions.is_none_or(|most| versions <= most)
            })
            .cloned()
            .collect();
        let seen = |cells: &[Cell]| -> Vec<(Cell, Pick)> {
            let picks = apply_with(&compiled, "row", cells);
            picks.into_iter().map(|pick| (cells[pick.at].clone(), Pick { at: 0, ..pick })).collect()
        };
        prop_assert_eq!(seen(&cells), seen(&read));
        prop_assert!(!needs.every_row || read.is_empty() || !seen(&read).is_empty());
    }

    /// What was not a pattern is refused, and no pattern brings anything down.
    #[test]
    fn any_bytes_are_a_pattern_or_not(bytes in prop::collection::vec(any::<u8>(), 0..12), value in prop::collection::vec(any::<u8>(), 0..4)) {
        let cells = [Cell { value: Bytes::from(value), ..cell(0, "q", 1, "") }];
        if let Ok(compiled) = Compiled::new(&Filter::Value(Bytes::from(bytes))) {
            prop_assert!(apply_with(&compiled, "row", &cells).len() <= 1);
        }
    }
}
