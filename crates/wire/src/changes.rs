//! Pages of changes: protobuf ↔ the model's words.

use model::changes::{ChangesPage, ChangesQuery, Place, Resume, RowChange};
use model::follow::StreamId;
use model::{FamilyId, RowRange, TableId, Timestamp};

use crate::Route;
use crate::convert::{Invalid, change_from_proto, change_to_proto, missing, table_name};
use crate::v1;

/// Builds the message for a page of a tablet's changes.
pub fn read_changes_request(table: &str, route: Route, query: ChangesQuery) -> v1::ReadChangesRequest {
    let ChangesQuery { stream, range, after, since, upto } = query;
    v1::ReadChangesRequest {
        table: String::from(table),
        route: Some(route.into()),
        start: range.start,
        end: range.end,
        after: after.map(place_to_proto),
        since_micros: since.map(|since| since.0),
        upto_micros: upto.map(|upto| upto.0),
        stream: stream.map(|stream| v1::ChangeStream { table: stream.table.0, family: stream.family.0 }),
    }
}

/// Where it goes, and what is asked for.
pub fn query_from_proto(message: v1::ReadChangesRequest) -> Result<(Route, ChangesQuery), Invalid> {
    table_name(message.table)?;
    let without = || {
        let what = "changes are read tablet by tablet; say the route, or ask GET /v1/tables/{table}/changes";
        Invalid(String::from(what))
    };
    let stream = |of: v1::ChangeStream| StreamId { table: TableId(of.table), family: FamilyId(of.family) };
    let query = ChangesQuery {
        stream: message.stream.map(stream),
        range: RowRange { start: message.start, end: message.end },
        after: message.after.map(place_from_proto),
        since: message.since_micros.map(Timestamp),
        upto: message.upto_micros.map(Timestamp),
    };
    Ok((message.route.ok_or_else(without)?.into(), query))
}

impl From<ChangesPage<String>> for v1::ChangesPage {
    fn from(page: ChangesPage<String>) -> v1::ChangesPage {
        let change = |change: RowChange<String>| v1::RowChange {
            row: change.row,
            at: Some(place_to_proto(change.at)),
            changes: change.changes.into_iter().map(change_to_proto).collect(),
        };
        let (resume, resume_after) = match page.resume {
            Some(Resume { row, after }) => (Some(row), after.map(place_to_proto)),
            None => (None, None),
        };
        v1::ChangesPage {
            changes: page.changes.into_iter().map(change).collect(),
            upto_micros: page.upto.0,
            resume,
            resume_after,
        }
    }
}

impl TryFrom<v1::ChangesPage> for ChangesPage<String> {
    type Error = Invalid;

    fn try_from(message: v1::ChangesPage) -> Result<ChangesPage<String>, Invalid> {
        let change = |change: v1::RowChange| {
            Ok(RowChange {
                row: change.row,
                at: place_from_proto(change.at.ok_or_else(|| missing("place of a change"))?),
                changes: change.changes.into_iter().map(change_from_proto).collect::<Result<_, _>>()?,
            })
        };
        let after = message.resume_after.map(place_from_proto);
        Ok(ChangesPage {
            changes: message.changes.into_iter().map(change).collect::<Result<_, Invalid>>()?,
            upto: Timestamp(message.upto_micros),
            resume: message.resume.map(|row| Resume { row, after }),
        })
    }
}

fn place_to_proto(place: Place) -> v1::ChangePlace {
    v1::ChangePlace { version_micros: place.version.0, number: place.number }
}

fn place_from_proto(message: v1::ChangePlace) -> Place {
    Place { version: Timestamp(message.version_micros), number: message.number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use model::{Change, Epoch, TabletId};

    /// What one side says, the other hears.
    #[test]
    fn questions_and_pages_survive_the_way() {
        let at = Place { version: Timestamp(7), number: 3 };
        let range = RowRange { start: Bytes::from_static(b"a"), end: Some(Bytes::from_static(b"b")) };
        let stream = Some(StreamId { table: TableId(1), family: FamilyId(2) });
        let full = ChangesQuery { stream, range, after: Some(at), since: Some(Timestamp(5)), upto: Some(Timestamp(9)) };
        let route = Route { tablet: TabletId(4), epoch: Epoch(2) };
        for query in [full, ChangesQuery::default()] {
            let message = read_changes_request("t", route, query.clone());
            assert_eq!(query_from_proto(message.clone()), Ok((route, query)));
            assert!(query_from_proto(v1::ReadChangesRequest { route: None, ..message }).is_err());
        }
        let (row, family) = (Bytes::from_static(b"r"), String::from("f"));
        let change = RowChange { row: row.clone(), at, changes: vec![Change::DeleteFamily { family }] };
        for resume in [None, Some(Resume { row: row.clone(), after: None }), Some(Resume { row, after: Some(at) })] {
            let page = ChangesPage { changes: vec![change.clone()], upto: Timestamp(9), resume };
            assert_eq!(ChangesPage::try_from(v1::ChangesPage::from(page.clone())), Ok(page));
        }
    }
}
