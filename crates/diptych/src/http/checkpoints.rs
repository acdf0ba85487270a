//! Checkpoints, as by `diptych checkpoint`: made when it answers, or not at all. The JSON is the same as the command line's.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use client::Client;
use serde::Deserialize;

use super::problem::Problem;
use super::read_json;
use crate::cli::checkpoint::{list_to_json, made_to_json, removal_to_json};
use crate::cli::parse;
use crate::host::node::shard::Clock;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    name: String,
    #[serde(default)]
    table: Option<String>,
}

fn read_wish(body: &[u8]) -> Result<Wish, Problem> {
    let Wish { name, table } = read_json(body)?;
    let table = table.map(|table| parse::table(&table)).transpose().map_err(Problem::invalid)?;
    Ok(Wish { name: parse::checkpoint(&name).map_err(Problem::invalid)?, table })
}

/// Makes one of all tables, or of one.
pub async fn create(client: &Client, body: &[u8]) -> Result<Response, Problem> {
    let Wish { name, table } = read_wish(body)?;
    let made = client.create_checkpoint(&name, table.as_deref(), Clock::wall()).await?;
    Ok((StatusCode::CREATED, Json(made_to_json(&made))).into_response())
}

/// All of them.
pub async fn list(client: &Client) -> Result<Response, Problem> {
    Ok(Json(list_to_json(&client.checkpoints(None).await?)).into_response())
}

/// Those of a name: one, if all is well.
pub async fn show(client: &Client, name: &str) -> Result<Response, Problem> {
    let found = client.checkpoints(Some(name)).await?;
    match found.all.is_empty() {
        true if found.unheard.is_empty() => Err(no_such(name)),
        true => Err(unheard(name)),
        false => Ok(Json(list_to_json(&found)).into_response()),
    }
}

/// Removes those of a name.
pub async fn remove(client: &Client, name: &str) -> Result<Response, Problem> {
    let removal = client.remove_checkpoint(name).await?;
    match (removal.removed.is_empty(), removal.unheard.is_empty()) {
        (_, false) => Err(unheard(name)),
        (true, true) => Err(no_such(name)),
        (false, true) => Ok(Json(removal_to_json(name, &removal)).into_response()),
    }
}

fn no_such(name: &str) -> Problem {
    Problem::not_found(format!("no checkpoint {name:?}"), "GET /v1/checkpoints lists them.")
}

fn unheard(name: &str) -> Problem {
    let message = format!("nodes that may have parts of checkpoint {name:?} do not answer");
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        message,
        "GET /v1/checkpoints names them; repeat this when they are back.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_from_json() {
        let wish = read_wish(br#"{"name": "monday", "table": "users"}"#).map(|wish| (wish.name, wish.table));
        assert_eq!(wish, Ok(("monday".into(), Some("users".into()))));
        for bad in ["", "{}", r#"{"name": "../x"}"#, r#"{"name": "x", "table": "/"}"#, r#"{"name": "x", "to": "y"}"#] {
            assert_eq!(read_wish(bad.as_bytes()).err().map(|problem| problem.status.as_u16()), Some(400), "{bad}");
        }
    }
}
