//! What happened to rows: a page as JSON, and the token with which the next one is asked for.

use axum::Json;
use axum::response::{IntoResponse, Response};
use client::{Client, Step};
use model::changes::RowChange;
use model::follow::Start;
use serde_json::{Value, json};

use super::problem::Problem;
use super::resource::Query;
use crate::cli::changes::{From, change_to_json, position_to_json};

/// A page ends when it has so many changes,
const CHANGES: usize = 1_000;
/// or so many bytes.
const BYTES: usize = 4 << 20;

/// A page. `more` says whether there was more when it was made; if not, the reader comes again after a while.
pub async fn list(client: &Client, table: &str, query: &Query) -> Result<Response, Problem> {
    let from = match query.bytes("from") {
        None => From::Start(Start::Kept),
        Some(text) => {
            From::parse(&String::from_utf8_lossy(&text)).map_err(|why| Problem::invalid(format!("from: {why}")))?
        }
    };
    if matches!(from, From::Token(_)) && ["prefix", "start", "end"].iter().any(|name| query.bytes(name).is_some()) {
        return Err(Problem::invalid("prefix, start and end go with a beginning; a token knows its rows"));
    }
    let mut changes = from.open(client, table, query.range()).await?;
    let (mut page, mut bytes, mut more) = (Vec::<Value>::new(), 0, true);
    while more && page.len() < CHANGES && bytes < BYTES {
        match changes.next().await {
            Ok(Step::Changes(next)) => {
                bytes += next.iter().map(RowChange::weight).sum::<usize>();
                page.extend(next.iter().map(change_to_json));
            }
            Ok(Step::Quiet) => more = false,
            // What came before it is good, and the error meets the next page.
            Err(error) if page.is_empty() => return Err(error.into()),
            Err(_) => break,
        }
    }
    let mut answer = position_to_json(&changes);
    answer["changes"] = Value::Array(page);
    answer["more"] = json!(more);
    Ok(Json(answer).into_response())
}
