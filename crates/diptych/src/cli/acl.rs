//! `acl token | list | add | grant | revoke | renew | remove`: who may do what, where access is controlled.

use client::Client;
use model::access::{DOCUMENTS, Grant, Right, Scope};
use model::{AdminReply, AdminRequest, Document, DocumentChange, Refusal, Rights};
use serde_json::{Value, json};

use super::args::AclCommand;
use super::{Failure, Output};
use crate::access::{Digest, PREFIX, Principal, REFRESH, Token, name_of};

pub async fn run(client: &Client, command: AclCommand, out: &mut Output) -> Result<(), Failure> {
    match command {
        AclCommand::Token => {
            let token = draw()?;
            Ok(out.say(json!({"token": token.text()}), String::from(token.text()))?)
        }
        AclCommand::List => list(client, out).await,
        AclCommand::Add { name } => {
            Principal::check_name(&name).map_err(Failure::usage)?;
            let token = draw()?;
            let tokens = vec![Digest::of(token.text())];
            let principal = Principal { name, tokens, rights: Rights::default() };
            write(client, &principal, Some(0)).await?;
            tell_token(&principal, &token, out)
        }
        AclCommand::Renew { name, keep } => {
            let (version, mut principal) = read(client, &name).await?;
            let token = draw()?;
            if !keep {
                principal.tokens.clear();
            }
            principal.tokens.push(Digest::of(token.text()));
            write(client, &principal, Some(version)).await?;
            tell_token(&principal, &token, out)
        }
        AclCommand::Grant { name, right, scopes } => {
            change(client, &name, out, |rights| add(rights, right, &scopes)).await
        }
        AclCommand::Revoke { name, right, scopes } => {
            change(client, &name, out, |rights| take_away(rights, right, &scopes)).await
        }
        AclCommand::Remove { name } => {
            let (version, _) = read(client, &name).await?;
            change_document(client, &name, None, Some(version)).await?;
            Ok(out.say(json!({"removed": name}), format!("removed {name}; {}", soon()))?)
        }
    }
}

fn draw() -> Result<Token, Failure> {
    Token::draw().map_err(|error| Failure::failed(format!("cannot draw a token: {error}")))
}

/// When it holds everywhere.
fn soon() -> String {
    format!("every process knows within {} s", 2 * REFRESH.as_secs())
}

fn tell_token(principal: &Principal, token: &Token, out: &mut Output) -> Result<(), Failure> {
    let name = &principal.name;
    let text = format!("{}\n{name} has this token, which is shown only now; {}", token.text(), soon());
    Ok(out.say(json!({"name": name, "token": token.text()}), text)?)
}

async fn list(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let mut principals = Vec::new();
    for document in documents(client, PREFIX).await? {
        principals.push(parse(&document)?);
    }
    if out.json {
        return Ok(out.line(json!(principals.iter().map(to_json).collect::<Vec<_>>()))?);
    }
    let row = |principal: &Principal| {
        let grants: Vec<String> = principal.rights.grants.iter().map(Grant::to_string).collect();
        let grants = if grants.is_empty() { String::from("nothing") } else { grants.join(", ") };
        vec![principal.name.clone(), principal.tokens.len().to_string(), grants]
    };
    Ok(out.table(&["name", "tokens#", "may"], principals.iter().map(row).collect())?)
}

fn to_json(principal: &Principal) -> Value {
    let grant = |grant: &Grant| json!({"right": grant.right.to_string(), "on": grant.scope.to_string()});
    let grants: Vec<Value> = principal.rights.grants.iter().map(grant).collect();
    json!({"name": principal.name, "tokens": principal.tokens.len(), "grants": grants})
}

/// Changes what somebody may do, made of what it is now.
async fn change(
    client: &Client,
    name: &str,
    out: &mut Output,
    change: impl FnOnce(&mut Rights) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (version, mut principal) = read(client, name).await?;
    change(&mut principal.rights)?;
    write(client, &principal, Some(version)).await?;
    let grants: Vec<String> = principal.rights.grants.iter().map(Grant::to_string).collect();
    let may = if grants.is_empty() { String::from("nothing any more") } else { grants.join(", ") };
    Ok(out.say(to_json(&principal), format!("{name} may {may}; {}", soon()))?)
}

fn add(rights: &mut Rights, right: Right, scopes: &[Scope]) -> Result<(), Failure> {
    for scope in scopes {
        let grant = Grant { right, scope: scope.clone() };
        if right == Right::Admin && matches!(scope, Scope::Families { .. }) && scope.to_string().contains(':') {
            let message = format!("{grant}: tables are administered as a whole");
            return Err(Failure::usage(message).hint("leave the family out"));
        }
        if right == Right::Write && *scope == Scope::Cluster {
            return Err(Failure::usage("the cluster is read or administered, and not written"));
        }
        if !rights.grants.contains(&grant) {
            rights.grants.push(grant);
        }
    }
    Ok(())
}

fn take_away(rights: &mut Rights, right: Right, scopes: &[Scope]) -> Result<(), Failure> {
    for scope in scopes {
        let grant = Grant { right, scope: scope.clone() };
        let before = rights.grants.len();
        rights.grants.retain(|known| *known != grant);
        if rights.grants.len() == before {
            return Err(Failure::failed(format!("there is no grant to {grant}"))
                .hint("grants are taken back as they were given; `diptych acl list` shows them"));
        }
    }
    Ok(())
}

async fn read(client: &Client, name: &str) -> Result<(u64, Principal), Failure> {
    Principal::check_name(name).map_err(Failure::usage)?;
    let document = format!("{PREFIX}{name}");
    let found = documents(client, &document).await?.into_iter().find(|found| found.name == document);
    match found {
        Some(found) => Ok((found.version, parse(&found)?)),
        None => Err(Failure::failed(format!("there is no principal {name:?}"))
            .hint("`diptych acl list` shows who there is; `diptych acl add` makes one")),
    }
}

fn parse(document: &Document) -> Result<Principal, Failure> {
    let name = name_of(&document.name).unwrap_or_default();
    let damaged = |why| Failure::failed(format!("the document of principal {name:?} cannot be read: {why}"));
    Principal::from_bytes(&document.body).map_err(damaged)
}

async fn documents(client: &Client, prefix: &str) -> Result<Vec<Document>, Failure> {
    debug_assert!(prefix.starts_with(DOCUMENTS), "only what is about access");
    match client.admin(AdminRequest::Documents(prefix.into())).await? {
        AdminReply::Documents(found) => Ok(found.documents),
        other => Err(client::Error::Protocol(format!("asked for documents, got {other:?}")).into()),
    }
}

async fn write(client: &Client, principal: &Principal, expect: Option<u64>) -> Result<(), Failure> {
    principal.check().map_err(Failure::failed)?;
    change_document(client, &principal.name, Some(principal.to_bytes()), expect).await
}

async fn change_document(
    client: &Client,
    name: &str,
    body: Option<bytes::Bytes>,
    expect: Option<u64>,
) -> Result<(), Failure> {
    let change = DocumentChange { name: format!("{PREFIX}{name}"), body, expect };
    match client.admin(AdminRequest::ChangeDocument(change)).await {
        Ok(_) => Ok(()),
        Err(client::Error::Refused(Refusal::Exists(_))) if expect == Some(0) => {
            Err(Failure::failed(format!("principal {name:?} is there already"))
                .hint("`diptych acl grant` gives it rights, `diptych acl renew` another token"))
        }
        Err(client::Error::Refused(Refusal::Exists(_))) => {
            Err(Failure::failed(format!("principal {name:?} was changed by somebody else just now")).hint("try again"))
        }
        Err(error) => Err(error.into()),
    }
}
