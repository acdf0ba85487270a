//! What a URL names. Row keys and qualifiers are bytes, so paths are taken apart before they are decoded.

use bytes::Bytes;
use client::NodeAction;
use model::{ColumnFilter, Consistency, NodeId, ReadOptions, RowRange, TabletId, Timestamp, limits};

use super::problem::Problem;
use crate::cli::parse;

/// The things that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The page for people.
    Page,
    /// A file of the console.
    Asset(String),
    /// Is the process alive?
    Live,
    /// Can it serve?
    Ready,
    /// Metrics for Prometheus.
    Metrics,
    /// The description of this interface.
    OpenApi,
    /// All tables.
    Tables,
    /// One table.
    Table(String),
    /// A table that was dropped, which shall be brought back.
    Restore(String),
    /// The rows of a table.
    Rows(String),
    /// What happened to the rows of a table.
    Changes(String),
    /// One row.
    Row(String, Bytes),
    /// One column of a row.
    Cell(String, Bytes, Column),
    /// A conditional write to a row.
    Cput(String, Bytes),
    /// The cluster's state.
    Cluster,
    /// What happened.
    Events,
    /// A node's process, to which something shall be done.
    Process(NodeId, NodeAction),
    /// Empty a node, or let it be filled again.
    Drain(NodeId, bool),
    /// Strike a node off the list.
    Remove(NodeId),
    /// The processes that `up` started.
    Processes,
    /// The last hour of the metrics.
    History,
    /// All checkpoints.
    Checkpoints,
    /// One checkpoint.
    Checkpoint(String),
    /// A tablet, with which something shall be done.
    Tablet(TabletId, TabletAction),
}

/// What can be done with a tablet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TabletAction {
    /// Another node shall keep it instead of one that does.
    Move,
    /// A secondary shall be primary.
    Transfer,
    /// It shall become two.
    Split,
    /// It shall become one with the next.
    Merge,
}

/// A column by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its family.
    pub family: String,
    /// The column within it; any bytes, also none.
    pub qualifier: Bytes,
}

impl Resource {
    /// Reads the path of a URL.
    pub fn parse(path: &str) -> Result<Resource, Problem> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        Ok(match parts[..] {
            [""] => Resource::Page,
            ["console", name] => Resource::Asset(text(name)?),
            ["livez"] => Resource::Live,
            ["readyz"] => Resource::Ready,
            ["metrics"] => Resource::Metrics,
            ["openapi.json"] => Resource::OpenApi,
            ["v1", "cluster"] => Resource::Cluster,
            ["v1", "processes"] => Resource::Processes,
            ["v1", "history"] => Resource::History,
            ["v1", "events"] => Resource::Events,
            ["v1", "tables"] => Resource::Tables,
            ["v1", "tables", table] => Resource::Table(table_name(table)?),
            ["v1", "tables", table, "restore"] => Resource::Restore(table_name(table)?),
            ["v1", "tables", table, "changes"] => Resource::Changes(table_name(table)?),
            ["v1", "tables", table, "rows"] => Resource::Rows(table_name(table)?),
            ["v1", "tables", table, "rows", row] => match row.strip_suffix(":cput") {
                Some(row) => Resource::Cput(table_name(table)?, row_key(row)?),
                None => Resource::Row(table_name(table)?, row_key(row)?),
            },
            ["v1", "tables", table, "rows", row, name] => {
                Resource::Cell(table_name(table)?, row_key(row)?, column(&decode(name, false)?)?)
            }
            ["v1", "checkpoints"] => Resource::Checkpoints,
            ["v1", "checkpoints", name] => {
                Resource::Checkpoint(parse::checkpoint(&text(name)?).map_err(Problem::invalid)?)
            }
            ["v1", "nodes", node, action @ ("drain" | "undrain")] => {
                let node = parse::node(&text(node)?).map_err(Problem::invalid)?;
                Resource::Drain(node, action == "drain")
            }
            ["v1", "nodes", node, "remove"] => Resource::Remove(parse::node(&text(node)?).map_err(Problem::invalid)?),
            ["v1", "tablets", tablet, action] => {
                let tablet = parse::tablet(&text(tablet)?).map_err(Problem::invalid)?;
                Resource::Tablet(tablet, tablet_action(action)?)
            }
            ["v1", "nodes", node, action] => {
                let node = parse::process(&text(node)?).map_err(Problem::invalid)?.0;
                Resource::Process(node, node_action(action)?)
            }
            _ => {
                return Err(Problem::not_found(
                    format!("there is nothing at {path}"),
                    "/openapi.json says what there is.",
                ));
            }
        })
    }
}

fn node_action(name: &str) -> Result<NodeAction, Problem> {
    match name {
        "suspend" => Ok(NodeAction::Suspend),
        "resume" => Ok(NodeAction::Resume),
        "kill" => Ok(NodeAction::Kill),
        "restart" => Ok(NodeAction::Restart),
        _ => Err(Problem::not_found(
            format!("{name:?} cannot be done to a node"),
            "There are suspend, resume, kill, restart, drain, undrain and remove.",
        )),
    }
}

fn tablet_action(name: &str) -> Result<TabletAction, Problem> {
    match name {
        "move" => Ok(TabletAction::Move),
        "transfer" => Ok(TabletAction::Transfer),
        "split" => Ok(TabletAction::Split),
        "merge" => Ok(TabletAction::Merge),
        _ => Err(Problem::not_found(
            format!("{name:?} cannot be done with a tablet"),
            "There are move, transfer, split and merge.",
        )),
    }
}

fn table_name(part: &str) -> Result<String, Problem> {
    parse::table(&text(part)?).map_err(Problem::invalid)
}

fn row_key(part: &str) -> Result<Bytes, Problem> {
    let row = decode(part, false)?;
    limits::check_row_key(&row).map_err(Problem::invalid)?;
    Ok(row)
}

/// `family:qualifier`. A family has no colon in its name, so the first one is the border, also if it came as `%3A`.
pub fn column(name: &[u8]) -> Result<Column, Problem> {
    match filter(name)? {
        ColumnFilter { family, qualifier: Some(qualifier) } => Ok(Column { family, qualifier }),
        ColumnFilter { family, .. } => Err(Problem::invalid(format!(
            "{family:?} names a family; a column is family:qualifier, such as {family}:name"
        ))),
    }
}

/// `family:qualifier`, or `family` for all of its columns.
fn filter(name: &[u8]) -> Result<ColumnFilter<String>, Problem> {
    let border = name.iter().position(|&byte| byte == b':');
    let family = std::str::from_utf8(&name[..border.unwrap_or(name.len())])
        .map_err(|_| Problem::invalid("the family's name is not UTF-8"))?;
    let family = parse::family(family).map_err(Problem::invalid)?;
    let qualifier = border.map(|border| Bytes::copy_from_slice(&name[border + 1..]));
    Ok(ColumnFilter { family, qualifier })
}

fn text(part: &str) -> Result<String, Problem> {
    String::from_utf8(decode(part, false)?.to_vec()).map_err(|_| Problem::invalid(format!("{part:?} is not UTF-8")))
}

/// Percent-decoding (RFC 3986, 2.1) to any bytes. In a query `+` is a space, as forms and browsers write it.
pub fn decode(part: &str, query: bool) -> Result<Bytes, Problem> {
    let broken = || Problem::invalid(format!("{part:?} has a % without two hexadecimal digits; a % itself is %25"));
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        rest = others;
        bytes.push(match first {
            b'%' => {
                let (digits, others) = rest.split_at_checked(2).ok_or_else(broken)?;
                rest = others;
                digit(digits[0]).zip(digit(digits[1])).map(|(high, low)| high << 4 | low).ok_or_else(broken)?
            }
            b'+' if query => b' ',
            byte => byte,
        });
    }
    Ok(Bytes::from(bytes))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// The part of a URL behind the `?`, decoded.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, Bytes)>);

impl Query {
    /// Reads it; every name must be among `known`.
    pub fn parse(query: Option<&str>, known: &[&str]) -> Result<Query, Problem> {
        let mut pairs = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let known = if known.is_empty() { String::from("none") } else { known.join(", ") };
                return Err(Problem::invalid(format!("{name:?} is no parameter here; there are: {known}")));
            }
            pairs.push((String::from(name), decode(value, true)?));
        }
        Ok(Query(pairs))
    }

    /// All values of that name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Bytes> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value)
    }

    /// The value of that name, if it is there; the last one counts.
    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        self.all(name).last().cloned()
    }

    /// Is it there, and not `false` or `0`?
    pub fn flag(&self, name: &str) -> bool {
        self.bytes(name).is_some_and(|value| !matches!(&value[..], b"false" | b"0"))
    }

    /// A number from `least`.
    pub fn number(&self, name: &str, least: i64) -> Result<Option<i64>, Problem> {
        let Some(value) = self.bytes(name) else { return Ok(None) };
        let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
        match number.filter(|&number| number >= least) {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::invalid(format!("{name} is no number from {least}"))),
        }
    }

    /// `timestamp`: the version to write or delete.
    pub fn timestamp(&self) -> Result<Option<Timestamp>, Problem> {
        Ok(self.number("timestamp", 0)?.map(Timestamp))
    }

    /// `column` and `family`, which may come several times, `versions`, `since` and `before`.
    pub fn read_options(&self) -> Result<ReadOptions<String>, Problem> {
        let columns = self.all("column").chain(self.all("family")).map(|name| filter(name));
        let versions = self.number("versions", 1)?.unwrap_or(1);
        Ok(ReadOptions {
            columns: columns.collect::<Result<_, _>>()?,
            versions: u32::try_from(versions).unwrap_or(u32::MAX),
            consistency: self.consistency()?,
            since: self.number("since", i64::MIN)?.map(Timestamp),
            before: self.number("before", i64::MIN)?.map(Timestamp),
        })
    }

    /// `consistency` and `max_lag`.
    pub fn consistency(&self) -> Result<Consistency, Problem> {
        let max_lag = match self.bytes("max_lag") {
            None => None,
            Some(text) => Some(
                parse::duration(&String::from_utf8_lossy(&text))
                    .map_err(|why| Problem::invalid(format!("max_lag: {why}")))?,
            ),
        };
        match (self.bytes("consistency").as_deref(), max_lag) {
            (Some(b"eventual"), max_lag) => Ok(Consistency::Eventual { max_lag }),
            (None | Some(b"linearizable"), None) => Ok(Consistency::Linearizable),
            (None | Some(b"linearizable"), Some(_)) => Err(Problem::invalid("max_lag goes with consistency=eventual")),
            (Some(_), _) => Err(Problem::invalid("consistency is linearizable or eventual")),
        }
    }

    /// `prefix`, `start` and `end`.
    pub fn range(&self) -> RowRange {
        let between = RowRange { start: self.bytes("start").unwrap_or_default(), end: self.bytes("end") };
        between.intersect(&RowRange::prefix(&self.bytes("prefix").unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Resource {
        Resource::parse(path).unwrap_or_else(|problem| panic!("{path}: {problem:?}"))
    }

    fn cell(row: &'static [u8], family: &str, qualifier: &'static [u8]) -> Resource {
        let column = Column { family: family.into(), qualifier: Bytes::from_static(qualifier) };
        Resource::Cell("users".into(), Bytes::from_static(row), column)
    }

    /// architecture.md 5.
    #[test]
    fn the_promised_urls_are_there() {
        assert_eq!(parsed("/"), Resource::Page);
        assert_eq!(parsed("/v1/tables"), Resource::Tables);
        assert_eq!(parsed("/v1/tables/users"), Resource::Table("users".into()));
        assert_eq!(parsed("/v1/tables/users/rows"), Resource::Rows("users".into()));
        assert_eq!(parsed("/v1/tables/users/rows/alice"), Resource::Row("users".into(), Bytes::from_static(b"alice")));
        assert_eq!(
            parsed("/v1/tables/users/rows/alice:cput"),
            Resource::Cput("users".into(), Bytes::from_static(b"alice"))
        );
        assert_eq!(parsed("/v1/tables/users/rows/alice/name:first"), cell(b"alice", "name", b"first"));
        assert_eq!(parsed("/v1/nodes/n2/suspend"), Resource::Process(NodeId(2), NodeAction::Suspend));
        assert_eq!(parsed("/v1/nodes/n2/drain"), Resource::Drain(NodeId(2), true));
        assert_eq!(parsed("/v1/nodes/n2/remove"), Resource::Remove(NodeId(2)));
        assert_eq!(parsed("/v1/processes"), Resource::Processes);
        assert_eq!(parsed("/console/console-1.js"), Resource::Asset("console-1.js".into()));
        assert_eq!(parsed("/v1/tablets/t7/split"), Resource::Tablet(TabletId(7), TabletAction::Split));
        assert_eq!(parsed("/v1/checkpoints/monday"), Resource::Checkpoint("monday".into()));
        assert_eq!(parsed("/v1/nodes/2/restart"), Resource::Process(NodeId(2), NodeAction::Restart));
    }

    /// Row keys and qualifiers are any bytes; a slash or a colon in them is written with percent signs.
    #[test]
    fn keys_and_qualifiers_are_percent_decoded_bytes() {
        assert_eq!(parsed("/v1/tables/users/rows/a%2Fb%00%fF/name:x%2Fy%25"), cell(b"a/b\0\xff", "name", b"x/y%"));
        assert_eq!(parsed("/v1/tables/users/rows/a+b/name:"), cell(b"a+b", "name", b""));
        assert_eq!(parsed("/v1/tables/users/rows/a/name%3Afirst"), cell(b"a", "name", b"first"));
        assert_eq!(parsed("/v1/tables/users/rows/a/name:b:c"), cell(b"a", "name", b"b:c"));
        assert_eq!(
            parsed("/v1/tables/users/rows/a%3Acput"),
            Resource::Row("users".into(), Bytes::from_static(b"a:cput"))
        );
        assert_eq!(parsed("/v1/tables/users/rows/Z%C3%BCrich"), Resource::Row("users".into(), Bytes::from("Zürich")));
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        for path in [
            "/v1/tables/users/rows/%",
            "/v1/tables/users/rows/%4",
            "/v1/tables/users/rows/%zz",
            "/v1/tables/users/rows/%+1",
            "/v1/tables/users/rows/",
            "/v1/tables/-users",
            "/v1/tables/%ff/rows",
            "/v1/tables/users/rows/a/name",
            "/v1/tables/users/rows/a/:x",
            "/v1/tables/users/rows/a/%ff:x",
            "/v1/nodes/x/kill",
            "/v1/tablets/7x/split",
            "/v1/checkpoints/a%2Fb",
        ] {
            let problem = Resource::parse(path).expect_err(path);
            assert_eq!(problem.status.as_u16(), 400, "{path}");
        }
        for path in ["/v2", "/v1/tables/users/rows/a/b:c/d", "/v1/nodes/n1/explode", "/v1/tablets/t1/x", "//"] {
            assert_eq!(Resource::parse(path).expect_err(path).status.as_u16(), 404, "{path}");
        }
    }

    #[test]
    fn a_query_names_ranges_and_columns() {
        let known = ["prefix", "start", "end", "limit", "column", "versions", "since", "before", "reverse"];
        let query =
            Query::parse(Some("prefix=L+A%2b&limit=10&column=info:a%3Ab&column=info&versions=3"), &known).unwrap();
        assert_eq!(query.range(), RowRange::prefix(b"L A+"));
        assert_eq!(query.number("limit", 1).unwrap(), Some(10));
        let options = query.read_options().unwrap();
        let qualifiers: Vec<_> = options.columns.iter().map(|column| column.qualifier.as_deref()).collect();
        assert_eq!((qualifiers, options.versions), (vec![Some(&b"a:b"[..]), None], 3));

        assert_eq!((options.since, options.before, query.flag("reverse")), (None, None, false));

        let query = Query::parse(Some("since=5&before=9&reverse=true"), &known).unwrap();
        let options = query.read_options().unwrap();
        assert_eq!((options.since, options.before), (Some(Timestamp(5)), Some(Timestamp(9))));
        assert!(query.flag("reverse"));
        assert!(Query::parse(Some("since=noon"), &known).unwrap().read_options().is_err());

        let query = Query::parse(Some("start=a&end=b&prefix="), &known).unwrap();
        assert_eq!(query.range(), RowRange { start: Bytes::from_static(b"a"), end: Some(Bytes::from_static(b"b")) });
        assert!(Query::parse(Some("limit=0"), &known).unwrap().number("limit", 1).is_err());
        assert!(Query::parse(Some("limti=5"), &known).is_err());
    }
}
