//! What can be done with tablets, as by `diptych tablet`. Answers when it is decided: a split when it is done, all
//! else before.

use axum::Json;
use axum::response::{IntoResponse, Response};
use client::{Client, Error};
use model::{AdminReply, AdminRequest, NodeId, TabletId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::Problem;
use super::read_json;
use super::resource::TabletAction;
use crate::cli::cluster::split_to_json;
use crate::cli::parse;
use crate::cli::show::bytes_from_json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    from: String,
    to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    to: String,
}

/// Where to split; nothing leaves it to the tablet's primary.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Split {
    #[serde(default)]
    at: Option<Value>,
}

/// What the body asks for.
fn read_wish(tablet: TabletId, action: TabletAction, body: &[u8]) -> Result<AdminRequest, Problem> {
    Ok(match action {
        TabletAction::Move => {
            let Move { from, to } = read_json(body)?;
            AdminRequest::MoveTablet { tablet, from: node(&from)?, to: node(&to)? }
        }
        TabletAction::Transfer => {
            let Transfer { to } = read_json(body)?;
            AdminRequest::Transfer { tablet, to: node(&to)? }
        }
        TabletAction::Split => {
            let Split { at } = if body.is_empty() { Split::default() } else { read_json(body)? };
            let at = at.as_ref().map(bytes_from_json).transpose().map_err(Problem::invalid)?;
            AdminRequest::SplitTablet { tablet, at }
        }
        TabletAction::Merge => AdminRequest::MergeTablet(tablet),
    })
}

/// Does it.
pub async fn act(client: &Client, tablet: TabletId, action: TabletAction, body: &[u8]) -> Result<Response, Problem> {
    let wish = read_wish(tablet, action, body)?;
    let name = tablet.to_string();
    let answer = match (client.admin(wish.clone()).await?, wish) {
        (AdminReply::Done(_), AdminRequest::MoveTablet { from, to, .. }) => {
            json!({"tablet": name, "from": from.to_string(), "to": to.to_string()})
        }
        (AdminReply::Done(_), AdminRequest::Transfer { to, .. }) => {
            json!({"tablet": name, "primary": to.to_string(), "done": false})
        }
        (AdminReply::Done(_), AdminRequest::MergeTablet(_)) => json!({"tablet": name, "done": false}),
        (AdminReply::Split(split), _) => split_to_json(tablet, &split),
        (other, _) => return Err(Error::Protocol(format!("asked for a change of a tablet, got {other:?}")).into()),
    };
    Ok(Json(answer).into_response())
}

fn node(name: &str) -> Result<NodeId, Problem> {
    parse::node(name).map_err(Problem::invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const TABLET: TabletId = TabletId(7);

    #[test]
    fn a_wish_is_read_from_json() {
        let read = |action, body: &str| read_wish(TABLET, action, body.as_bytes()).unwrap();
        let moved = AdminRequest::MoveTablet { tablet: TABLET, from: NodeId(1), to: NodeId(4) };
        assert_eq!(read(TabletAction::Move, r#"{"from": "n1", "to": "n4"}"#), moved);
        let to = AdminRequest::Transfer { tablet: TABLET, to: NodeId(2) };
        assert_eq!(read(TabletAction::Transfer, r#"{"to": "n2"}"#), to);
        assert_eq!(read(TabletAction::Merge, ""), AdminRequest::MergeTablet(TABLET));
        let split = |at| AdminRequest::SplitTablet { tablet: TABLET, at };
        assert_eq!(read(TabletAction::Split, ""), split(None));
        assert_eq!(read(TabletAction::Split, "{}"), split(None));
        assert_eq!(read(TabletAction::Split, r#"{"at": "m"}"#), split(Some(Bytes::from_static(b"m"))));
        let bytes = r#"{"at": {"base64": "/w=="}}"#;
        assert_eq!(read(TabletAction::Split, bytes), split(Some(Bytes::from_static(b"\xff"))));
    }

    #[test]
    fn a_wish_that_makes_no_sense_is_refused() {
        for (action, body) in [
            (TabletAction::Move, ""),
            (TabletAction::Move, r#"{"from": "n1"}"#),
            (TabletAction::Move, r#"{"from": "n1", "to": "x"}"#),
            (TabletAction::Transfer, r#"{"to": 2}"#),
            (TabletAction::Split, r#"{"on": "m"}"#),
            (TabletAction::Split, r#"{"at": 5}"#),
        ] {
            let problem = read_wish(TABLET, action, body.as_bytes()).expect_err(body);
            assert_eq!(problem.status.as_u16(), 400, "{body}");
        }
    }
}
