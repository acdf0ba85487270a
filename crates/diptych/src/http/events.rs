//! What happened: a page as JSON, or a stream of server-sent events that resumes by their numbers.

use axum::Json;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use client::{Client, Error};
use futures_util::{StreamExt, stream};
use model::{EventPage, EventQuery};
use serde_json::{Value, json};

use super::problem::Problem;
use super::resource::Query;
use crate::cli::events::event_to_json;
use crate::cli::parse;
use crate::host::Shutdown;

/// Events on a page if the reader has no wish.
const PAGE: u32 = 100;

/// Which events. `last` is what a browser says that it has seen when it comes back.
fn read_query(query: &Query, last: Option<u64>) -> Result<EventQuery, Problem> {
    let text = |name: &str| query.bytes(name).map(|value| String::from_utf8_lossy(&value).into_owned());
    let number = |name, least| Ok::<_, Problem>(query.number(name, least)?.map(i64::unsigned_abs));
    Ok(EventQuery {
        since: last.or(number("since", 0)?),
        limit: number("limit", 1)?.map_or(PAGE, |limit| u32::try_from(limit).unwrap_or(u32::MAX)),
        tablet: text("tablet").map(|text| parse::tablet(&text)).transpose().map_err(Problem::invalid)?,
        node: text("node").map(|text| parse::node(&text)).transpose().map_err(Problem::invalid)?,
        name: text("name"),
        wait_ms: 0,
    })
}

/// A page.
pub async fn list(client: &Client, query: &Query) -> Result<Response, Problem> {
    let page = client.events(read_query(query, None)?).await?;
    let events: Vec<Value> = page.events.iter().map(event_to_json).collect();
    Ok(Json(json!({"events": events, "next": page.next, "oldest": page.oldest})).into_response())
}

/// All that there are, and all that come (`text/event-stream`). Whoever reads slowly holds back only itself: the next
/// page is fetched when this one was taken. It ends when the process stops, or when the cluster does not answer.
pub fn follow(client: &Client, query: &Query, last: Option<u64>, shutdown: Shutdown) -> Result<Response, Problem> {
    let pages = client.follow_events(read_query(query, last)?);
    let ended = async move { shutdown.wait().await };
    let pieces = pages.take_until(Box::pin(ended)).scan(false, |failed, page| {
        // After the first error there is nothing more.
        let piece = (!*failed).then(|| piece(page));
        *failed |= piece.as_ref().is_some_and(Result::is_err);
        std::future::ready(piece)
    });
    let hello = stream::iter([Ok(Bytes::from_static(b": events of a cluster\n\n"))]);
    Ok(([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(hello.chain(pieces))).into_response())
}

fn piece(page: Result<EventPage, Error>) -> Result<Bytes, Error> {
    let page = page?;
    if page.events.is_empty() {
        return Ok(Bytes::from_static(b": nothing new\n\n"));
    }
    let event = |event| {
        let json = event_to_json(event);
        // A name is one word of ours; JSON is one line.
        format!("id: {}\nevent: {}\ndata: {json}\n\n", event.seq, event.name.replace(['\r', '\n'], " "))
    };
    Ok(page.events.iter().map(event).collect::<String>().into())
}
