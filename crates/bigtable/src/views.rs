//! Authorized views: what of a table's rows can be seen and written through one.
//!
//! ```text
//!   rows:    keys that begin with one of the prefixes            none, without prefixes
//!   columns: of these families, those of these names,
//!            or whose names begin so                             "" is all of a family
//! ```
//!
//! What cannot be seen is taken away before a filter looks at the row, so that no filter tells of it.

use std::collections::BTreeMap;

use model::{Bytes, Change, RowRange, limits};

use crate::admin::AuthorizedView;
use crate::admin::authorized_view::{AuthorizedView as Kind, SubsetView};
use crate::chunks::Cell;
use crate::names::Table;
use crate::writes::Step;
use crate::{Code, Problem, rows};

/// Characters of a view's id.
const ID: usize = 50;

/// What can be seen through a view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lens {
    /// In order, apart from each other.
    rows: Vec<RowRange>,
    families: BTreeMap<String, Columns>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Columns {
    names: Vec<Bytes>,
    prefixes: Vec<Bytes>,
}

impl Columns {
    fn has(&self, qualifier: &[u8]) -> bool {
        self.names.iter().any(|name| name == qualifier) || self.prefixes.iter().any(|it| qualifier.starts_with(it))
    }

    fn has_all(&self) -> bool {
        self.prefixes.iter().any(Bytes::is_empty)
    }
}

/// Reads `projects/P/instances/I/tables/T/authorizedViews/V`. `field` is where it stood.
pub fn parse(field: &str, name: &str) -> Result<(Table, String), Problem> {
    match name.split_once("/authorizedViews/") {
        Some((table, id)) => {
            check_id(field, id)?;
            Ok((Table::parse(field, table)?, id.to_owned()))
        }
        None => Err(Problem::invalid(format!(
            "Error in field '{field}' : {name:?} is no view; expected \
             projects/PROJECT/instances/INSTANCE/tables/TABLE/authorizedViews/VIEW"
        ))),
    }
}

/// Says what is wrong with a view's id, if anything.
pub fn check_id(field: &str, id: &str) -> Result<(), Problem> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if id.len() > ID || !id.bytes().all(good) || !id.bytes().next().is_some_and(first) {
        return Err(Problem::invalid(format!(
            "Error in field '{field}' : {id:?} is no view's id; use 1 to {ID} of a-z A-Z 0-9 - _ . with a letter, digit or _ first"
        )));
    }
    Ok(())
}

/// Checks a view that is to be made, or as it shall be.
pub fn check(view: &AuthorizedView) -> Result<&SubsetView, Problem> {
    let wrong = |what: String| Problem::invalid(format!("Error in field 'authorized_view.subset_view' : {what}"));
    let Some(Kind::SubsetView(subset)) = &view.authorized_view else {
        return Err(wrong("it is not set".to_owned()));
    };
    for prefix in &subset.row_prefixes {
        if prefix.len() > limits::ROW_KEY {
            return Err(wrong(format!(
                "a prefix of {} bytes; row keys have {} at most",
                prefix.len(),
                limits::ROW_KEY
            )));
        }
    }
    for (family, columns) in &subset.family_subsets {
        limits::check_family_name(family).map_err(wrong)?;
        let long = |name: &&Bytes| name.len() > limits::QUALIFIER;
        if let Some(name) = columns.qualifiers.iter().chain(&columns.qualifier_prefixes).find(long) {
            let limit = limits::QUALIFIER;
            return Err(wrong(format!(
                "family {family:?} : a qualifier of {} bytes; the limit is {limit}",
                name.len()
            )));
        }
    }
    Ok(subset)
}

impl Lens {
    /// Of such a view.
    pub fn new(view: &SubsetView) -> Lens {
        let columns = |(family, subset): (&String, &crate::admin::authorized_view::FamilySubsets)| {
            let columns = Columns { names: subset.qualifiers.clone(), prefixes: subset.qualifier_prefixes.clone() };
            (family.clone(), columns)
        };
        let prefixes = view.row_prefixes.iter().map(|prefix| RowRange::prefix(prefix));
        Lens { rows: rows::merge(prefixes.collect()), families: view.family_subsets.iter().map(columns).collect() }
    }

    /// What of these ranges, which are in order and apart from each other, is seen.
    pub fn ranges(&self, ranges: Vec<RowRange>) -> Vec<RowRange> {
        let ends_first = |one: &RowRange, other: &RowRange| match (&one.end, &other.end) {
            (Some(one), Some(other)) => one <= other,
            (end, _) => end.is_some(),
        };
        let (mut mine, mut theirs) = (self.rows.iter().peekable(), ranges.iter().peekable());
        let mut seen = Vec::new();
        while let (Some(one), Some(other)) = (mine.peek(), theirs.peek()) {
            let both = one.intersect(other);
            if both.end.as_ref().is_none_or(|end| both.start < *end) {
                seen.push(both);
            }
            if ends_first(one, other) {
                mine.next()
            } else {
                theirs.next()
            };
        }
        seen
    }

    /// Is this row seen?
    pub fn has_row(&self, row: &[u8]) -> bool {
        let after = self.rows.partition_point(|range| range.start <= *row);
        after > 0 && self.rows[after - 1].covers(row)
    }

    fn has_column(&self, family: &str, qualifier: &[u8]) -> bool {
        self.families.get(family).is_some_and(|columns| columns.has(qualifier))
    }

    /// What of a row is seen.
    pub fn cells(&self, row: &[u8], mut cells: Vec<Cell>) -> Vec<Cell> {
        match self.has_row(row) {
            true => cells.retain(|cell| self.has_column(&cell.family, &cell.qualifier)),
            false => cells.clear(),
        }
        cells
    }

    /// Says which of these columns of a row is not seen, if any: it can be neither changed nor asked for.
    pub fn check_columns<'a>(
        &self,
        row: &[u8],
        columns: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<(), Problem> {
        if !self.has_row(row) {
            return Err(outside(&format!("row '{}'", row.escape_ascii())));
        }
        match columns.into_iter().find(|(family, qualifier)| !self.has_column(family, qualifier)) {
            None => Ok(()),
            Some((family, qualifier)) => Err(outside(&format!("column '{family}:{}'", qualifier.escape_ascii()))),
        }
    }

    /// The same of what is to be done to a row. A family may go if all of it is seen, and a row never.
    pub fn check_steps(&self, row: &[u8], steps: &[Step]) -> Result<(), Problem> {
        self.check_columns(row, [])?;
        for step in steps {
            match step {
                Step::Times { family, qualifier, .. }
                | Step::Aggregate { family, qualifier, .. }
                | Step::Plain(
                    Change::Put { family, qualifier, .. }
                    | Change::DeleteCell { family, qualifier, .. }
                    | Change::DeleteColumn { family, qualifier },
                ) => self.check_columns(row, [(family.as_str(), &qualifier[..])])?,
                Step::Plain(Change::DeleteFamily { family }) => {
                    if !self.families.get(family).is_some_and(Columns::has_all) {
                        return Err(outside(&format!("some of family '{family}'")));
                    }
                }
                Step::Plain(Change::DeleteRow) => return Err(outside("some of the row")),
            }
        }
        Ok(())
    }
}

fn outside(what: &str) -> Problem {
    Problem { code: Code::PermissionDenied, message: format!("{what} is outside the Authorized View") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::authorized_view::FamilySubsets;
    use model::Timestamp;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    /// Rows that begin with a or cc; of f the columns q and those that begin with x, and all of g.
    fn view() -> SubsetView {
        let f = FamilySubsets { qualifiers: vec![bytes("q")], qualifier_prefixes: vec![bytes("x")] };
        let g = FamilySubsets { qualifiers: vec![], qualifier_prefixes: vec![bytes("")] };
        SubsetView {
            row_prefixes: vec![bytes("cc"), bytes("a"), bytes("ab")],
            family_subsets: [("f".to_owned(), f), ("g".to_owned(), g)].into(),
        }
    }

    fn range(start: &'static str, end: Option<&'static str>) -> RowRange {
        RowRange { start: bytes(start), end: end.map(bytes) }
    }

    #[test]
    fn only_rows_that_are_seen_are_read() {
        let lens = Lens::new(&view());
        assert_eq!(lens.ranges(vec![RowRange::default()]), [range("a", Some("b")), range("cc", Some("cd"))]);
        let asked = vec![range("A", Some("a1")), range("a5", Some("a6")), range("az", Some("cc1")), range("d", None)];
        let seen = [range("a", Some("a1")), range("a5", Some("a6")), range("az", Some("b")), range("cc", Some("cc1"))];
        assert_eq!(lens.ranges(asked), seen);
        assert_eq!(Lens::default().ranges(vec![RowRange::default()]), []);
        let all = Lens::new(&SubsetView { row_prefixes: vec![bytes("")], ..view() });
        assert_eq!(all.ranges(vec![range("d", None)]), [range("d", None)]);
        for (row, seen) in [("a", true), ("azz", true), ("b", false), ("cc", true), ("c", false), ("cd", false)] {
            assert_eq!(lens.has_row(row.as_bytes()), seen, "{row}");
        }
    }

    #[test]
    fn only_columns_that_are_seen_come_out() {
        let cell = |family: &str, qualifier: &'static str| Cell {
            family: family.into(),
            qualifier: bytes(qualifier),
            timestamp: 0,
            value: Bytes::new(),
            label: None,
        };
        let row = vec![cell("f", ""), cell("f", "q"), cell("f", "qq"), cell("f", "xyz"), cell("g", ""), cell("h", "q")];
        let seen = Lens::new(&view()).cells(b"a", row.clone());
        let names: Vec<_> = seen.iter().map(|cell| (cell.family.as_str(), &cell.qualifier[..])).collect();
        assert_eq!(names, [("f", &b"q"[..]), ("f", b"xyz"), ("g", b"")]);
        assert_eq!(Lens::new(&view()).cells(b"b", row), []);
    }

    #[test]
    fn nothing_is_changed_that_is_not_seen() {
        let lens = Lens::new(&view());
        let (row, timestamp) = (b"a", Timestamp(0));
        let put = |family: &str, qualifier| {
            let (family, value) = (family.to_owned(), Bytes::new());
            Step::Plain(Change::Put { family, qualifier: bytes(qualifier), timestamp, value })
        };
        let family = |family: &str| Step::Plain(Change::DeleteFamily { family: family.to_owned() });
        let good = [put("f", "q"), put("f", "x"), put("g", "any"), family("g")];
        assert_eq!(lens.check_steps(row, &good), Ok(()));
        let add = Step::Aggregate { family: "f".into(), qualifier: bytes("no"), timestamp, value: None };
        let times = Step::Times { family: "h".into(), qualifier: bytes("q"), since: timestamp, before: None };
        for bad in [put("f", "p"), put("h", "q"), family("f"), Step::Plain(Change::DeleteRow), add, times] {
            assert_eq!(lens.check_steps(row, &[bad]).unwrap_err().code, Code::PermissionDenied);
        }
        assert_eq!(lens.check_steps(b"b", &[put("f", "q")]).unwrap_err().code, Code::PermissionDenied);
    }

    #[test]
    fn a_view_has_a_name_and_a_kind() {
        let name = "projects/p/instances/i/tables/t/authorizedViews/v";
        let (table, id) = parse("name", name).unwrap();
        assert_eq!((table.path().as_str(), id.as_str()), ("projects/p/instances/i/tables/t", "v"));
        for bad in ["projects/p/instances/i/tables/t", "projects/p/instances/i/authorizedViews/v", &format!("{name}/x")]
        {
            assert!(parse("name", bad).is_err(), "{bad}");
        }
        assert!(check(&AuthorizedView::default()).is_err());
        let with = |subset| AuthorizedView { authorized_view: Some(Kind::SubsetView(subset)), ..Default::default() };
        assert!(check(&with(view())).is_ok());
        let long = SubsetView { row_prefixes: vec![Bytes::from(vec![0; 5_000])], ..view() };
        assert!(check(&with(long)).is_err());
    }
}
