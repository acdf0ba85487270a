//! Rows and cells: values go raw, rows as JSON, scans as a stream with a row a line.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use client::{Client, NamedCell, NamedRow, Written};
use futures_util::{StreamExt, TryStreamExt, stream};
use model::{Change, ColumnFilter, Condition, Freshness, Mutation, ReadOptions, RowChanges, Timestamp, limits};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use super::resource::{Column, Query, column};
use crate::cli::show::{bytes_from_json, row_from_json, row_to_json, version_to_json};
use crate::gateway::Gateway;

/// The version of a value that goes raw.
const TIMESTAMP: HeaderName = HeaderName::from_static("x-diptych-timestamp");
/// Rows that are written at a time where they come fast.
const LINES: usize = 256;

/// Who answered an eventual read, at which position, and how old that may be, in microseconds.
fn stamped(mut response: Response, from: Option<Freshness>) -> Response {
    if let Some(Freshness { node, epoch, applied, lag, .. }) = from {
        let lag = lag.map_or_else(|| String::from("unknown"), |lag| lag.as_micros().to_string());
        let texts = [
            ("x-diptych-replica", node.to_string()),
            ("x-diptych-position", format!("{}/{applied}", epoch.0)),
            ("x-diptych-lag", lag),
        ];
        for (name, text) in texts {
            // Digits and letters: always a header.
            if let Ok(value) = HeaderValue::try_from(text) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
    }
    response
}

/// The raw newest value of a column.
pub async fn get_cell(
    client: &Client,
    table: &str,
    row: Bytes,
    column: Column,
    query: &Query,
) -> Result<Response, Problem> {
    let Column { family, qualifier } = column;
    let options = ReadOptions {
        columns: vec![ColumnFilter { family, qualifier: Some(qualifier) }],
        consistency: query.consistency()?,
        ..ReadOptions::default()
    };
    let (found, from) = client.get_from(table, row, options).await?;
    let Some(cell) = found.and_then(|row| row.cells.into_iter().next()) else {
        return Ok(stamped(Problem::not_found("the row has no such column", "").into_response(), from));
    };
    let stamp = cell.timestamp.to_string();
    let headers = [(CONTENT_TYPE, String::from("application/octet-stream")), (TIMESTAMP, stamp)];
    Ok(stamped((headers, cell.value).into_response(), from))
}

/// Writes a raw value.
pub async fn put_cell(
    client: &Client,
    table: &str,
    row: Bytes,
    column: Column,
    query: &Query,
    value: Bytes,
) -> Result<Response, Problem> {
    let Column { family, qualifier } = column;
    let timestamp = query.timestamp()?.unwrap_or(Timestamp::SERVER);
    write(client, table, row, Change::Put { family, qualifier, timestamp, value }).await
}

/// Deletes a column, or one version of it.
pub async fn delete_cell(
    client: &Client,
    table: &str,
    row: Bytes,
    column: Column,
    query: &Query,
) -> Result<Response, Problem> {
    let Column { family, qualifier } = column;
    let change = match query.timestamp()? {
        Some(timestamp) => Change::DeleteCell { family, qualifier, timestamp },
        None => Change::DeleteColumn { family, qualifier },
    };
    write(client, table, row, change).await
}

/// One row as JSON.
pub async fn get_row(client: &Client, table: &str, row: Bytes, query: &Query) -> Result<Response, Problem> {
    match client.get_from(table, row, query.read_options()?).await? {
        (Some(row), from) => Ok(stamped(Json(row_to_json(&row)).into_response(), from)),
        (None, from) => {
            let problem = Problem::not_found("there is no such row, or it has no such cells", "");
            Ok(stamped(problem.into_response(), from))
        }
    }
}

/// Deletes a row.
pub async fn delete_row(client: &Client, table: &str, row: Bytes) -> Result<Response, Problem> {
    write(client, table, row, Change::DeleteRow).await
}

async fn write(client: &Client, table: &str, row: Bytes, change: Change<String>) -> Result<Response, Problem> {
    let written = mutate(client, table, Mutation { row, condition: None, changes: vec![change] }).await?;
    match written {
        Written::Applied { version } => Ok(Json(json!({"version": version.0})).into_response()),
        Written::Differs { .. } => {
            Err(client::Error::Protocol(String::from("a condition that nobody made failed")).into())
        }
    }
}

async fn mutate(client: &Client, table: &str, mutation: Mutation<String>) -> Result<Written, Problem> {
    model::limits::check_mutation(&mutation).map_err(Problem::invalid)?;
    Ok(client.mutate(table, mutation).await?)
}

/// The body of a conditional write. `expect` may be null or absent: the column must have no value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cput {
    column: String,
    #[serde(default)]
    expect: Value,
    put: Value,
    #[serde(default)]
    timestamp: Option<i64>,
}

/// Writes rows, one JSON object a line, as scans show them. If some fail, the answer is the first failure, and says which.
pub async fn put_many(gateway: &Gateway, table: &str, body: &[u8]) -> Result<Response, Problem> {
    let (lines, rows): (Vec<u64>, Vec<RowChanges<String>>) = read_rows(body)?.into_iter().unzip();
    let written = gateway.pipeline().mutate_many(&Arc::from(table), rows).await.written().await;
    let failed = |(line, row): (u64, Result<Timestamp, client::Error>)| Some((line, Problem::from(row.err()?)));
    Ok(many_written(lines.len(), lines.iter().copied().zip(written.each()).filter_map(failed).collect()))
}

/// Each with its line.
fn read_rows(body: &[u8]) -> Result<Vec<(u64, RowChanges<String>)>, Problem> {
    let mut rows = Vec::new();
    for (line, text) in (1..).zip(body.split(|&byte| byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let invalid = |why: String| Problem::invalid(format!("line {line}: {why}"));
        let value: Value = serde_json::from_slice(text).map_err(|error| invalid(format!("no JSON object: {error}")))?;
        let NamedRow { key, cells } = row_from_json(&value).map_err(invalid)?;
        let put =
            |NamedCell { family, qualifier, timestamp, value }| Change::Put { family, qualifier, timestamp, value };
        let row = RowChanges { row: key, changes: cells.into_iter().map(put).collect() };
        limits::check_changes(&row.row, &row.changes).map_err(invalid)?;
        rows.push((line, row));
        if rows.len() > limits::BATCH_ROWS {
            let what = format!("more than {} rows; send the others with another request", limits::BATCH_ROWS);
            return Err(Problem::invalid(what));
        }
    }
    match rows.is_empty() {
        true => Err(Problem::invalid("the body has no row; give one JSON object a line")),
        false => Ok(rows),
    }
}

fn many_written(rows: usize, failed: Vec<(u64, Problem)>) -> Response {
    let written = rows - failed.len();
    let Some((_, first)) = failed.first() else { return Json(json!({"written": written})).into_response() };
    let (status, mut body) = (first.status, first.to_json());
    let lines = failed.iter().map(|(line, problem)| {
        let mut failure = problem.to_json();
        failure["line"] = json!(line);
        failure
    });
    body["written"] = json!(written);
    body["failed"] = lines.collect();
    (status, Json(body)).into_response()
}

/// Puts a value if the column holds what is expected.
pub async fn cput(client: &Client, table: &str, row: Bytes, body: &[u8]) -> Result<Response, Problem> {
    let written = mutate(client, table, read_cput(row, body)?).await?;
    Ok(Json(written_to_json(&written)).into_response())
}

fn read_cput(row: Bytes, body: &[u8]) -> Result<Mutation<String>, Problem> {
    let body: Cput = super::read_json(body)?;
    let Column { family, qualifier } = column(body.column.as_bytes())?;
    let bytes =
        |name: &str, value: &Value| bytes_from_json(value).map_err(|why| Problem::invalid(format!("{name}: {why}")));
    let expect = if body.expect.is_null() { None } else { Some(bytes("expect", &body.expect)?) };
    let timestamp = match body.timestamp {
        None => Timestamp::SERVER,
        Some(micros) if micros >= 0 => Timestamp(micros),
        Some(_) => return Err(Problem::invalid("timestamp is negative; give microseconds since 1970")),
    };
    let change = Change::Put {
        family: family.clone(),
        qualifier: qualifier.clone(),
        timestamp,
        value: bytes("put", &body.put)?,
    };
    Ok(Mutation { row, condition: Some(Condition::Newest { family, qualifier, expect }), changes: vec![change] })
}

fn written_to_json(written: &Written) -> Value {
    match written {
        Written::Applied { version } => json!({"applied": true, "version": version.0}),
        Written::Differs { present } => json!({
            "applied": false,
            "present": present.as_ref().map(|present| version_to_json(&present.value, present.timestamp)),
        }),
    }
}

/// The rows of these keys, in their order, one JSON object a line; one that is not there has no cells. If it breaks off
/// it ends as a scan does.
pub async fn get_many(client: &Client, table: &str, query: &Query) -> Result<Response, Problem> {
    if let Some(name) =
        ["prefix", "start", "end", "limit", "reverse"].into_iter().find(|name| query.bytes(name).is_some())
    {
        return Err(Problem::invalid(format!("{name} goes with a scan, not with the keys of rows")));
    }
    let keys: Vec<Bytes> = query.all("row").cloned().collect();
    model::limits::check_row_keys(&keys).map_err(Problem::invalid)?;
    let mut found = client.get_many_from(table, keys.clone(), query.read_options()?);
    // What fails at once gets its status.
    let first = found.try_next().await?;
    let from = first.as_ref().and_then(|(_, from)| *from);
    let rows = stream::iter(first.map(Ok)).chain(found).zip(stream::iter(keys));
    let rows = rows.map(|(found, key)| found.map(|(row, _)| row.unwrap_or(NamedRow { key, cells: Vec::new() })));
    let lines = rows.ready_chunks(LINES).flat_map(|rows| stream::iter(lines(rows)));
    Ok(stamped(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response(), from))
}

/// Rows one way or the other, one JSON object a line. If it breaks off, the last line is the error, and the stream ends
/// without its proper end.
pub async fn scan(client: &Client, table: &str, query: &Query) -> Result<Response, Problem> {
    let limit = query.number("limit", 1)?.map(i64::unsigned_abs);
    let mut rows = client.scan_from(table, query.range(), query.flag("reverse"), query.read_options()?, limit);
    // What fails at once gets its status.
    let first = rows.try_next().await?;
    let from = first.as_ref().and_then(|(_, from)| *from);
    let rows = stream::iter(first.map(Ok)).chain(rows).map_ok(|(row, _)| row);
    let lines = rows.ready_chunks(LINES).flat_map(|rows| stream::iter(lines(rows)));
    Ok(stamped(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response(), from))
}

/// One piece of the body, or two, of which the second breaks it off.
fn lines(rows: Vec<Result<NamedRow, client::Error>>) -> Vec<Result<Bytes, client::Error>> {
    let mut text = String::new();
    let mut failed = None;
    for row in rows {
        match row {
            Ok(row) => text.push_str(&row_to_json(&row).to_string()),
            Err(error) => {
                text.push_str(&Problem::from(error.clone()).to_json().to_string());
                failed = Some(error);
            }
        }
        text.push('\n');
    }
    std::iter::once(Ok(Bytes::from(text))).chain(failed.map(Err)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::Present;
    use model::Refusal;

    fn row(key: &str) -> NamedRow {
        let cell = NamedCell {
            family: String::from("info"),
            qualifier: Bytes::from_static(b"note"),
            timestamp: Timestamp(1732276800000000),
            value: Bytes::from_static(b"busy"),
        };
        NamedRow { key: Bytes::copy_from_slice(key.as_bytes()), cells: vec![cell] }
    }

    /// architecture.md 5: NDJSON, a row a line.
    #[test]
    fn a_scan_is_a_row_a_line() {
        let pieces = lines(vec![Ok(row("LAX")), Ok(row("SFO"))]);
        let [Ok(text)] = &pieces[..] else { panic!("{pieces:?}") };
        let first: Value = serde_json::from_slice(text.split(|&byte| byte == b'\n').next().unwrap()).unwrap();
        let expected =
            json!({"row": "LAX", "cells": {"info:note": [{"value": "busy", "timestamp": 1732276800000000_i64}]}});
        assert_eq!((first, text.iter().filter(|&&byte| byte == b'\n').count()), (expected, 2));
    }

    /// A reader that counts lines must not take half a table for a whole one.
    #[test]
    fn a_scan_that_breaks_off_says_so() {
        let error = client::Error::Protocol(String::from("x"));
        let pieces = lines(vec![Ok(row("LAX")), Err(error.clone())]);
        assert_eq!(pieces.len(), 2);
        assert!(pieces[0].as_ref().is_ok_and(|text| text.ends_with(b"\"message\":\"unexpected answer: x\"}}\n")));
        assert_eq!(pieces[1], Err(error));
    }

    /// What a scan shows is what a write of many rows takes; what is wrong is told with its line, before anything happens.
    #[test]
    fn many_rows_come_a_line_each() {
        let shown = lines(vec![Ok(row("LAX")), Ok(row("SFO"))]);
        let rows = read_rows(shown[0].as_ref().unwrap()).unwrap();
        let [(1, lax), (2, sfo)] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((&lax.row[..], &sfo.row[..]), (&b"LAX"[..], &b"SFO"[..]));
        assert!(matches!(&sfo.changes[..], [Change::Put { timestamp: Timestamp(1732276800000000), .. }]));
        let good = r#"{"row": "a", "cells": {"f:q": [{"value": "1"}]}}"#;
        let rows = read_rows(format!("\n{good}\r\n\n").as_bytes()).unwrap();
        assert!(matches!(&rows[..], [(2, RowChanges { changes, .. })]
            if matches!(&changes[..], [Change::Put { timestamp: Timestamp::SERVER, .. }])));
        for bad in ["[1]", "{", r#"{"row": "", "cells": {"f:q": [{"value": "1"}]}}"#, r#"{"row": "a", "cells": {}}"#] {
            let problem = read_rows(format!("{good}\n{bad}\n").as_bytes()).unwrap_err();
            assert!(problem.to_json()["error"]["message"].as_str().unwrap().starts_with("line 2: "), "{problem:?}");
        }
        let many = format!("{good}\n").repeat(limits::BATCH_ROWS + 1);
        assert!(read_rows(b"\n").is_err() && read_rows(many.as_bytes()).is_err());
        assert!(read_rows(&many.as_bytes()[good.len() + 1..]).is_ok());
    }

    /// Whoever looks at the status only must not take a part for all.
    #[test]
    fn rows_that_failed_are_told_one_by_one() {
        assert_eq!(many_written(3, vec![]).status().as_u16(), 200);
        let refusal = || Refusal::NoSuchFamily { family: String::from("g"), have: String::from("f") };
        let answer = many_written(3, vec![(2, Problem::from(refusal()))]);
        assert_eq!(answer.status(), Problem::from(refusal()).status);
    }

    #[test]
    fn a_cput_says_what_it_expects() {
        let key = Bytes::from_static(b"alice");
        let body = br#"{"column": "name:first", "expect": "Ada", "put": {"base64": "/w=="}}"#;
        let mutation = read_cput(key.clone(), body).unwrap();
        let expects = |condition: Option<Condition<String>>| match condition {
            Some(Condition::Newest { expect, .. }) => expect,
            other => panic!("{other:?}"),
        };
        assert_eq!(expects(mutation.condition), Some(Bytes::from_static(b"Ada")));
        assert!(matches!(&mutation.changes[..], [Change::Put { value, .. }] if value[..] == [0xff]));
        for absent in [
            &br#"{"column": "name:first", "put": "x"}"#[..],
            br#"{"column": "name:first", "expect": null, "put": "x"}"#,
        ] {
            assert_eq!(expects(read_cput(key.clone(), absent).unwrap().condition), None);
        }
        for bad in [
            &b"{"[..],
            br#"{"column": "name", "put": "x"}"#,
            br#"{"column": "a:b"}"#,
            br#"{"column": "a:b", "put": 5}"#,
        ] {
            assert_eq!(read_cput(key.clone(), bad).unwrap_err().status.as_u16(), 400);
        }
    }

    /// architecture.md 5: `{"applied": bool, "present": …}`.
    #[test]
    fn a_cput_answers_with_what_is_present() {
        let present = Present { timestamp: Timestamp(7), value: Bytes::from_static(b"Eve") };
        assert_eq!(
            written_to_json(&Written::Differs { present: Some(present) }),
            json!({"applied": false, "present": {"value": "Eve", "timestamp": 7}})
        );
        assert_eq!(written_to_json(&Written::Differs { present: None }), json!({"applied": false, "present": null}));
        assert_eq!(
            written_to_json(&Written::Applied { version: Timestamp(9) }),
            json!({"applied": true, "version": 9})
        );
    }
}
