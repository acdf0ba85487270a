//! `changes`: what happened to a table's rows, and what happens.

use client::{Changes, Client, Step};
use model::changes::RowChange;
use model::follow::{Start, Token};
use model::{Change, RowRange, Timestamp};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::args::ChangesArgs;
use super::show::{self, bytes_to_json, printable};
use super::{Failure, Output};

/// Where to begin, as people say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// There.
    Start(Start),
    /// Where another reader stood.
    Token(Box<Token>),
}

impl From {
    /// `kept`, `now`, microseconds since 1970, or a token.
    pub fn parse(text: &str) -> Result<From, String> {
        let micros = || text.parse::<i64>().ok().filter(|micros| *micros >= 0 && text.len() < 20);
        match text {
            "kept" => Ok(From::Start(Start::Kept)),
            "now" => Ok(From::Start(Start::Now)),
            // A token is longer than any number.
            text => match micros() {
                Some(micros) => Ok(From::Start(Start::After(Timestamp(micros.saturating_sub(1))))),
                None => Token::from_text(text)
                    .map(|token| From::Token(Box::new(token)))
                    .map_err(|why| format!("{why}; else there are: kept, now, microseconds since 1970")),
            },
        }
    }

    /// The reader of that table's rows. A token knows its rows.
    pub async fn open(self, client: &Client, table: &str, range: RowRange) -> Result<Changes, client::Error> {
        match self {
            From::Start(start) => client.changes(table, range, start).await,
            From::Token(token) => client.changes_from(table, *token).await,
        }
    }
}

pub async fn run(client: &Client, args: ChangesArgs, out: &mut Output) -> Result<(), Failure> {
    let ChangesArgs { table, from, follow, prefix } = args;
    if matches!(from, From::Token(_)) && prefix.is_some() {
        return Err(Failure::usage("--prefix goes with a beginning; a token knows its rows"));
    }
    let range = RowRange::prefix(&prefix.unwrap_or_default());
    let mut changes = from.open(client, &table, range).await?;
    let (mut away, mut told) = (false, false);
    loop {
        match changes.next().await {
            Ok(Step::Changes(page)) => {
                (away, told) = (false, true);
                page.iter().try_for_each(|change| tell(change, out))?;
            }
            Ok(Step::Quiet) if !follow => return Ok(tell_token(&changes, out)?),
            Ok(Step::Quiet) => {
                away = false;
                if std::mem::take(&mut told) && out.json {
                    tell_token(&changes, out)?;
                }
                out.flush()?;
                sleep(changes.pause()).await;
            }
            // A failover is no reason to give up.
            Err(error) if follow && error.exit_code() == 3 => {
                if !std::mem::replace(&mut away, true) {
                    eprintln!("waiting for the cluster: {error}");
                }
                sleep(changes.pause()).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn tell(change: &RowChange<String>, out: &mut Output) -> std::io::Result<()> {
    if out.json {
        return out.line(change_to_json(change));
    }
    let (key, date) = (printable(&change.row), show::date(change.at.version));
    let column = |family: &String, qualifier: &[u8]| format!("{family}:{}", printable(qualifier));
    for each in &change.changes {
        let text = match each {
            Change::Put { family, qualifier, timestamp, value } => {
                format!("put     {}  @{timestamp}  {}", column(family, qualifier), printable(value))
            }
            Change::DeleteCell { family, qualifier, timestamp } => {
                format!("delete  {}  @{timestamp}", column(family, qualifier))
            }
            Change::DeleteColumn { family, qualifier } => format!("delete  {}", column(family, qualifier)),
            Change::DeleteFamily { family } => format!("delete  {family}"),
            Change::DeleteRow => String::from("delete"),
        };
        out.line(format!("{date}  {key}  {text}"))?;
    }
    Ok(())
}

/// With this another reader goes on. For people it is beside what they read.
fn tell_token(changes: &Changes, out: &mut Output) -> std::io::Result<()> {
    if out.json {
        return out.line(position_to_json(changes));
    }
    out.flush()?;
    eprintln!("go on with --from {}", changes.token().to_text());
    Ok(())
}

/// Where a reader stands: with the token another one goes on; all changes up to `complete` were given.
pub fn position_to_json(changes: &Changes) -> Value {
    json!({"token": changes.token().to_text(), "complete": changes.complete().map(|version| version.0)})
}

/// What happened to a row. Values are as in rows.
pub fn change_to_json(change: &RowChange<String>) -> Value {
    let column = |family: &String, qualifier: &[u8]| format!("{family}:{}", printable(qualifier));
    let each = change.changes.iter().map(|change| match change {
        Change::Put { family, qualifier, timestamp, value } => {
            json!({"put": column(family, qualifier), "timestamp": timestamp.0, "value": bytes_to_json(value)})
        }
        Change::DeleteCell { family, qualifier, timestamp } => {
            json!({"delete": column(family, qualifier), "timestamp": timestamp.0})
        }
        Change::DeleteColumn { family, qualifier } => json!({"delete": column(family, qualifier)}),
        Change::DeleteFamily { family } => json!({"delete_family": family}),
        Change::DeleteRow => json!({"delete_row": true}),
    });
    json!({
        "row": bytes_to_json(&change.row),
        "version": change.at.version.0,
        "number": change.at.number,
        "changes": each.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::follow::StreamId;
    use model::{FamilyId, TableId};

    #[test]
    fn a_beginning_is_a_word_a_date_or_a_token() {
        let stream = StreamId { table: TableId(3), family: FamilyId(9) };
        let token = Token { stream, parts: Vec::new() };
        assert_eq!(From::parse("now"), Ok(From::Start(Start::Now)));
        assert_eq!(From::parse("17"), Ok(From::Start(Start::After(Timestamp(16)))), "from this one on");
        assert_eq!(From::parse(&token.to_text()), Ok(From::Token(Box::new(token))));
        for bad in ["", "-5", "yesterday", "01ff", "99999999999999999999"] {
            assert!(From::parse(bad).is_err(), "{bad}");
        }
    }
}
