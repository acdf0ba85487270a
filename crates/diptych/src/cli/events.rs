//! `events`: what happened, and what happens.

use std::time::Duration;

use client::Client;
use futures_util::StreamExt;
use model::{Event, EventQuery};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::args::Events;
use super::{Failure, Output, show};

/// Before the next try, when the cluster does not answer a follower.
const PAUSE: Duration = Duration::from_millis(500);

pub async fn run(client: &Client, args: Events, out: &mut Output) -> Result<(), Failure> {
    let Events { follow, since, limit, tablet, node, name } = args;
    let query = EventQuery { since, limit, tablet, node, name, wait_ms: 0 };
    if !follow {
        let page = client.events(query).await?;
        if since.is_some_and(|since| since.saturating_add(1) < page.oldest) {
            eprintln!("events before {} are not kept any more", page.oldest);
        }
        return tell(&page.events, out);
    }
    let mut pages = client.follow_events(query);
    let mut away = false;
    while let Some(page) = pages.next().await {
        match page {
            Ok(page) => {
                away = false;
                tell(&page.events, out)?;
                out.flush()?;
            }
            // A master that changes is no reason to give up.
            Err(error) if error.exit_code() == 3 => {
                if !std::mem::replace(&mut away, true) {
                    eprintln!("waiting for the master: {error}");
                }
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn tell(events: &[Event], out: &mut Output) -> Result<(), Failure> {
    for event in events {
        match out.json {
            true => out.line(event_to_json(event))?,
            false => out.line(event_to_text(event))?,
        }
    }
    Ok(())
}

/// A line: number, time, source, name, what it is about, and the words. Lines come one by one, so the columns are fixed.
fn event_to_text(event: &Event) -> String {
    let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
    let (date, source) = (show::date(event.at), event.source.to_string());
    let (subject, what) = (subject(event), show::printable(event.what.as_bytes()));
    let Event { seq, name, .. } = event;
    format!("{seq:>6}  {date}  {source:6}  {name:21}  {subject:14}  {what}{times}")
}

/// What it is about, in a word or two.
pub fn subject(event: &Event) -> String {
    let table = event.table.clone();
    let tablet = event.tablet.map(|tablet| tablet.to_string());
    let words: Vec<String> = table.into_iter().chain(tablet).collect();
    words.join(" ")
}

pub fn event_to_json(event: &Event) -> Value {
    json!({
        "seq": event.seq,
        "at": event.at.0,
        "time": show::date(event.at),
        "source": event.source.to_string(),
        "name": event.name,
        "table": event.table,
        "tablet": event.tablet.map(|tablet| tablet.to_string()),
        "node": event.node.map(|node| node.to_string()),
        "epochs": event.epochs.map(|(before, after)| [before.0, after.0]),
        "what": event.what,
        "count": event.count,
    })
}
