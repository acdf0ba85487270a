//! `node drain | scrub | remove`, `tablet check | move | transfer | recover`: what operators plan, and how far it is.

use std::time::Duration;

use client::Client;
use model::request::{ClusterStatus, Losses, ReplicaReport};
use model::{AdminReply, AdminRequest, EventQuery, NodeId, Slice, TabletId};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::cluster::fetch;
use super::{Failure, Output};

/// How often to look whether it is done, and how long without any progress before giving up looking.
const LOOK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);
/// Replicas of some gigabytes are read in less.
const CHECKED_WITHIN: Duration = Duration::from_secs(600);

/// Empties the node, and waits until nothing is left on it or nothing more can leave it.
pub async fn drain(client: &Client, node: NodeId, drain: bool, wait: bool, out: &mut Output) -> Result<(), Failure> {
    let words = ask(client, AdminRequest::DrainNode { node, drain }).await?;
    if !drain || !wait {
        return Ok(out.say(json!({"node": node.to_string(), "draining": drain}), words)?);
    }
    let left = wait_for(client, |status| {
        let configurations = status.tablets.iter().map(|tablet| &tablet.assignment.configuration);
        let left = configurations.clone().filter(|configuration| configuration.has(node)).count();
        let leads = configurations.filter(|configuration| configuration.primary == node).count();
        let homes = status.nodes.iter().filter(|other| other.alive && !other.draining && !other.disk_full).count();
        // Every tablet that cannot leave has a replica on each of the other nodes already.
        let stuck = status
            .tablets
            .iter()
            .filter(|tablet| tablet.assignment.configuration.has(node))
            .all(|tablet| tablet.assignment.configuration.size() > homes);
        (left == 0 || (stuck && leads == 0), left)
    })
    .await?;
    let answer = json!({"node": node.to_string(), "draining": true, "tablets": left});
    let words = match left {
        0 => format!("{node} is empty; it may be stopped, and removed: `diptych node remove {node}`"),
        left => format!("{node} leads no tablet, but keeps {left}: there is no other node for them"),
    };
    Ok(out.say(answer, words)?)
}

pub async fn remove(client: &Client, node: NodeId, out: &mut Output) -> Result<(), Failure> {
    let words = ask(client, AdminRequest::RemoveNode(node)).await?;
    Ok(out.say(json!({"node": node.to_string(), "done": "removed"}), words)?)
}

pub async fn scrub(client: &Client, node: NodeId, out: &mut Output) -> Result<(), Failure> {
    let words = ask(client, AdminRequest::ScrubNode(node)).await?;
    Ok(out.say(json!({"node": node.to_string(), "done": "begun"}), words)?)
}

/// Has the replicas compared, and waits for the event that tells how they are.
pub async fn check(client: &Client, tablet: TabletId, out: &mut Output) -> Result<(), Failure> {
    let newest = EventQuery { limit: 1, ..EventQuery::default() };
    let mut since = client.events(newest).await?.next;
    ask(client, AdminRequest::CheckTablet(tablet)).await?;
    let asked = Instant::now();
    while asked.elapsed() < CHECKED_WITHIN {
        let query = EventQuery {
            since: Some(since),
            limit: 100,
            tablet: Some(tablet),
            wait_ms: 2_000,
            ..EventQuery::default()
        };
        let page = client.events(query).await?;
        since = page.next;
        for event in page.events {
            let answer = json!({"tablet": tablet.to_string(), "event": event.name, "what": event.what});
            match event.name.as_str() {
                "replicas_agree" => return Ok(out.say(answer, event.what)?),
                "replica_diverged" => {
                    return Err(Failure::failed(format!("replicas of tablet {tablet} differ: {}", event.what))
                        .hint("If a majority is right, the others heal by themselves: `diptych events --follow`."));
                }
                "digest_incomplete" => {
                    return Err(Failure::failed(format!("tablet {tablet} was not compared: {}", event.what)));
                }
                _ => {}
            }
        }
    }
    Err(Failure::failed(format!("nothing was heard of tablet {tablet} for {CHECKED_WITHIN:?}"))
        .hint("A large tablet takes long: `diptych events --follow` tells how it was."))
}

pub async fn move_tablet(
    client: &Client,
    tablet: TabletId,
    from: NodeId,
    to: NodeId,
    wait: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    ask(client, AdminRequest::MoveTablet { tablet, from, to }).await?;
    if wait {
        wait_for(client, |status| {
            let group = status.tablets.iter().find(|status| status.assignment.tablet.id == tablet);
            let done = group.is_none_or(|group| {
                group.assignment.configuration.has(to) && !group.assignment.configuration.has(from)
            });
            (done, group.map(|group| group.assignment.clone()))
        })
        .await?;
    }
    let answer = json!({"tablet": tablet.to_string(), "from": from.to_string(), "to": to.to_string()});
    let words = if wait { "moved" } else { "moves" };
    Ok(out.say(answer, format!("tablet {tablet} {words} from {from} to {to}"))?)
}

/// Brings the tablet and the next one together, and waits until there is one in their place.
pub async fn merge(client: &Client, tablet: TabletId, wait: bool, out: &mut Output) -> Result<(), Failure> {
    let before = fetch(client).await?;
    let slice = before.tablets.iter().find(|status| status.assignment.tablet.id == tablet);
    let slice = slice.map(|status| (status.assignment.tablet.table, status.assignment.tablet.slice.clone()));
    let mut words = ask(client, AdminRequest::MergeTablet(tablet)).await?;
    let mut answer = json!({"tablet": tablet.to_string(), "done": wait});
    if wait && let Some((table, Slice::Rows { start, .. })) = slice {
        let heir = wait_for(client, |status| {
            let mut groups = status.tablets.iter().map(|status| &status.assignment);
            // Whoever keeps the first row now.
            let holder = groups.find(|group| group.tablet.table == table && group.tablet.slice.covers(&start));
            let state = holder.map(|group| (group.tablet.id, group.configuration.clone()));
            (state.as_ref().is_none_or(|(holder, _)| *holder != tablet), state)
        })
        .await?;
        if let Some((heir, _)) = heir {
            words = format!("tablet {tablet} and the next one are {heir}");
            answer["heir"] = json!(heir.to_string());
        }
    }
    Ok(out.say(answer, words)?)
}

pub async fn transfer(
    client: &Client,
    tablet: TabletId,
    to: NodeId,
    wait: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut words = ask(client, AdminRequest::Transfer { tablet, to }).await?;
    if wait {
        let (mut asked, mut tries) = (Instant::now(), 0);
        loop {
            let status = fetch(client).await?;
            let group = status.tablets.iter().find(|status| status.assignment.tablet.id == tablet);
            if group.is_none_or(|group| group.assignment.configuration.primary == to) {
                break;
            }
            // The primary holds writes for a moment only; if that was not enough, or its master changed, ask again.
            if asked.elapsed() > Duration::from_secs(1) {
                tries += 1;
                if tries == 5 {
                    return Err(Failure::failed(format!("tablet {tablet} was not handed over to {to}"))
                        .hint("`diptych tablet list` shows how its replicas are."));
                }
                ask(client, AdminRequest::Transfer { tablet, to }).await?;
                asked = Instant::now();
            }
            sleep(LOOK / 4).await;
        }
        words = format!("{to} is the primary of tablet {tablet}");
    }
    Ok(out.say(json!({"tablet": tablet.to_string(), "primary": to.to_string(), "done": wait}), words)?)
}

/// Says what would be lost, and does it only if that is what the operator wants.
pub async fn recover(
    client: &Client,
    tablet: TabletId,
    from: Option<NodeId>,
    empty: Option<NodeId>,
    yes: bool,
    out: &mut Output,
) -> Result<(), Failure> {
    let losses = match client.admin(AdminRequest::Losses(tablet)).await? {
        AdminReply::Losses(losses) => losses,
        other => return Err(client::Error::Protocol(format!("asked for losses, got {other:?}")).into()),
    };
    let Some(node) = from.or(empty) else {
        return Ok(out.say(to_json(tablet, &losses), to_text(tablet, &losses, None))?);
    };
    if !yes {
        let text = to_text(tablet, &losses, from);
        return Err(Failure::usage(format!("{text}\nadd --yes to do it: it cannot be undone")));
    }
    let epoch = losses.configuration.epoch;
    let words = ask(client, AdminRequest::Recover { tablet, epoch, from: node, empty: empty.is_some() }).await?;
    Ok(out.say(json!({"tablet": tablet.to_string(), "node": node.to_string(), "empty": empty.is_some()}), words)?)
}

fn to_json(tablet: TabletId, losses: &Losses) -> Value {
    let names = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let holder = |(node, report): &(NodeId, ReplicaReport)| json!({"node": node.to_string(), "epoch": report.epoch.0, "committed": report.committed.0, "durable": report.durable.0});
    json!({
        "tablet": tablet.to_string(),
        "epoch": losses.configuration.epoch.0,
        "members": names(&losses.configuration.members().collect::<Vec<_>>()),
        "alive": names(&losses.alive),
        "others": losses.others.iter().map(holder).collect::<Vec<_>>(),
    })
}

fn to_text(tablet: TabletId, losses: &Losses, from: Option<NodeId>) -> String {
    let names = |nodes: Vec<NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let members = names(losses.configuration.members().collect());
    let mut lines = vec![format!(
        "tablet {tablet} is kept by {members} since epoch {}; all that was acknowledged is on each of them",
        losses.configuration.epoch.0
    )];
    match losses.alive.is_empty() {
        true => lines.push(String::from(
            "none of them is heard. Should one of them come back, nothing is lost: that is the better way. \
             If they run and are only cut off, what they acknowledge from now on would be lost: stop them first",
        )),
        false => lines.push(format!(
            "{} of them alive: nothing is lost, and nothing has to be recovered",
            names(losses.alive.clone())
        )),
    }
    let shown = losses.others.iter().filter(|(node, _)| from.is_none_or(|from| from == *node));
    for (node, report) in shown {
        lines.push(format!(
            "{node} holds it up to lsn {} as of epoch {}: with --from {node} every write acknowledged after that is lost",
            report.committed.0, report.epoch.0
        ));
    }
    if losses.others.is_empty() && losses.alive.is_empty() {
        lines.push(String::from(
            "no other node that is heard holds anything of it: with --empty NODE all its rows are lost",
        ));
    }
    lines.join("\n")
}

async fn ask(client: &Client, request: AdminRequest) -> Result<String, Failure> {
    match client.admin(request).await? {
        AdminReply::Done(words) => Ok(words),
        other => Err(client::Error::Protocol(format!("asked for something to be done, got {other:?}")).into()),
    }
}

/// Looks until it is done; gives up when nothing has changed for a while.
async fn wait_for<S: PartialEq + Clone>(
    client: &Client,
    look: impl Fn(&ClusterStatus) -> (bool, S),
) -> Result<S, Failure> {
    let mut last: Option<(S, Instant)> = None;
    loop {
        let (done, state) = look(&fetch(client).await?);
        if done {
            return Ok(state);
        }
        match &last {
            Some((known, since)) if *known == state => {
                if since.elapsed() > PATIENCE {
                    return Err(Failure::failed(format!("nothing has changed for {PATIENCE:?}; it goes on by itself"))
                        .hint(
                            "`diptych status` and `diptych tablet list` show how far it is; --no-wait does not wait.",
                        ));
                }
            }
            _ => last = Some((state, Instant::now())),
        }
        sleep(LOOK).await;
    }
}
