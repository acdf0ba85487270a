//! Checkpoints of the cluster: this end asks every tablet's primary for its part, and says when all are there.
//!
//! ```text
//!   map ──▶ tablets without a part ──Add──▶ their primaries ──parts──▶ do they tile each table? ──Seal──▶ all who have parts
//!    ▲                                           │ moved, split, away        │ no                │ one of them is away
//!    └───────────────── again ◀──────────────────┴───────────────────────────┴───────────────────┘
//! ```
//!
//! A checkpoint counts once it is sealed, with the list of all its parts. Whatever ends this before leaves parts that
//! count for nothing, and that are removed if their nodes can be reached.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{StreamExt, iter};
use model::checkpoint::{
    Checkpoint, CheckpointAnswer, CheckpointId, CheckpointOrder, Held, Part, TableCopy, TabletCopy, gap, holds,
};
use model::request::ClusterMap;
use model::{Assignment, NodeId, Refusal, Schema, TableId, TabletId, Timestamp};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use wire::frame;

use crate::sequence::chance;
use crate::{Client, Error};

/// Tablets of one node that are flushed at a time.
const AT_A_TIME: usize = 4;
/// The flush of a tablet, and the links, take less.
const ADDED_WITHIN: Duration = Duration::from_secs(65);
/// What needs no flush takes less, and what is only a look still less.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);
const SEEN_WITHIN: Duration = Duration::from_secs(3);
/// Rounds that brought parts. Two or three are the rule.
const MOST_MOVES: usize = 100;
/// After so many nodes that were away at the end, one after the other, it is given up.
const MOST_SEALS: u32 = 4;
/// How often it is looked whether those who are asked are still primaries.
const LOOK: Duration = Duration::from_millis(500);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(200);

/// Does a checkpoint count?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointState {
    /// All its parts are there.
    Complete,
    /// It was never finished, or some of its parts are gone: it counts for nothing.
    Incomplete,
    /// All was there, and nodes with parts of it do not answer now.
    Unknown,
}

impl CheckpointState {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            CheckpointState::Complete => "complete",
            CheckpointState::Incomplete => "incomplete",
            CheckpointState::Unknown => "unknown",
        }
    }
}

/// What each node has of a checkpoint.
type Holders = Vec<(NodeId, Held)>;

/// A checkpoint, as the nodes have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointStatus {
    /// What it is called.
    pub name: String,
    /// Which of that name; `None` if that cannot be read.
    pub id: Option<CheckpointId>,
    /// Does it count?
    pub state: CheckpointState,
    /// What is in it, if it was ever complete.
    pub whole: Option<Checkpoint>,
    /// What each node has of it.
    pub held: Holders,
    /// What is wrong with it, if anything.
    pub lacks: Vec<String>,
}

impl CheckpointStatus {
    /// Bytes of its files on all nodes that answered, as if nobody else had them.
    pub fn bytes(&self) -> u64 {
        self.held.iter().map(|(_, held)| held.bytes).sum()
    }
}

/// All checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// By name, and of one name in no order.
    pub all: Vec<CheckpointStatus>,
    /// Nodes that did not answer, and why.
    pub unheard: Vec<(NodeId, Error)>,
}

/// What came of removing one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// These had parts of it.
    pub removed: Vec<NodeId>,
    /// These did not answer, and may have parts of it still.
    pub unheard: Vec<(NodeId, Error)>,
}

/// A table of which a checkpoint is made.
struct Scope {
    table: TableId,
    name: String,
}

impl Client {
    /// Makes a checkpoint of one table, or of all. Everything that was acknowledged before this is in it; each tablet is of
    /// one moment, different tablets are not.
    pub async fn create_checkpoint(
        &self,
        name: &str,
        table: Option<&str>,
        now: Timestamp,
    ) -> Result<Checkpoint, Error> {
        let map = self.fresh_map().await?;
        let scope = scope(&map, table)?;
        let found = self.checkpoints(Some(name)).await?;
        if let Some(there) = found.all.first() {
            let state = there.state.name();
            return Err(Refusal::Exists(format!("checkpoint {name} ({state})")).into());
        }
        let mut making = Making {
            client: self,
            name,
            id: CheckpointId(chance()),
            begun: now,
            scope,
            done: BTreeMap::new(),
            touched: BTreeMap::new(),
            seals: 0,
        };
        match making.run().await {
            Ok(checkpoint) => Ok(checkpoint),
            Err(error) => Err(making.undo(error).await),
        }
    }

    /// All checkpoints, or those of a name.
    pub async fn checkpoints(&self, name: Option<&str>) -> Result<Checkpoints, Error> {
        let map = self.fresh_map().await?;
        let order = CheckpointOrder::List { name: name.map(String::from) };
        let mut found: BTreeMap<(String, Option<CheckpointId>), Holders> = BTreeMap::new();
        let mut unheard = Vec::new();
        for (node, answer) in self.order_all(nodes(&map), order).await {
            match answer {
                Ok(CheckpointAnswer::Held(held)) => {
                    for held in held {
                        found.entry((held.name.clone(), held.id)).or_default().push((node, held));
                    }
                }
                Ok(other) => return Err(unexpected(&other)),
                Err(error @ Error::Refused(Refusal::Invalid(_))) => return Err(error),
                Err(error) => unheard.push((node, error)),
            }
        }
        let away: BTreeSet<NodeId> = unheard.iter().map(|(node, _)| *node).collect();
        let known: BTreeSet<NodeId> = map.nodes.iter().map(|(node, _)| *node).collect();
        let all = found.into_iter().map(|((name, id), held)| judge(name, id, held, &away, &known)).collect();
        Ok(Checkpoints { all, unheard })
    }

    /// Removes all checkpoints of the name, complete or not.
    pub async fn remove_checkpoint(&self, name: &str) -> Result<Removal, Error> {
        let map = self.fresh_map().await?;
        let found = self.checkpoints(Some(name)).await?;
        let order = CheckpointOrder::Remove { name: name.into(), id: None };
        let (mut removed, mut unheard) = (Vec::new(), Vec::new());
        for (node, answer) in self.order_all(nodes(&map), order).await {
            match answer {
                Ok(CheckpointAnswer::Removed(true)) => removed.push(node),
                Ok(CheckpointAnswer::Removed(false)) => {}
                Ok(other) => return Err(unexpected(&other)),
                Err(error @ Error::Refused(Refusal::Invalid(_))) => return Err(error),
                Err(error) => unheard.push((node, error)),
            }
        }
        // Whoever has no part of what is known to be complete need not be heard.
        let wholes: Vec<&Checkpoint> = found.all.iter().filter_map(|status| status.whole.as_ref()).collect();
        let may_keep = |node: NodeId| {
            wholes.len() < found.all.len() || wholes.iter().any(|whole| whole.tablets().any(|copy| copy.node == node))
        };
        if !found.all.is_empty() {
            unheard.retain(|(node, _)| may_keep(*node));
        }
        Ok(Removal { removed, unheard })
    }

    /// The map as a master has it now: an old one may lack a table.
    async fn fresh_map(&self) -> Result<ClusterMap, Error> {
        let map = self.map().await?;
        if map.old { Err(Refusal::NoMaster.into()) } else { Ok(map) }
    }

    /// Orders the same of several nodes at once.
    async fn order_all(
        &self,
        nodes: BTreeMap<NodeId, Arc<str>>,
        order: CheckpointOrder,
    ) -> Vec<(NodeId, Result<CheckpointAnswer, Error>)> {
        let looks = matches!(order, CheckpointOrder::List { .. });
        let within = if looks { SEEN_WITHIN } else { ANSWERED_WITHIN };
        let orders = nodes.into_iter().map(|(node, address)| {
            let order = order.clone();
            async move { (node, self.order(&address, order, within).await) }
        });
        let mut answers: Vec<_> = iter(orders).buffer_unordered(64).collect().await;
        answers.sort_by_key(|(node, _)| *node);
        answers
    }

    /// Keeps up with who is primary of what.
    async fn watch(&self, primaries: &Mutex<BTreeMap<TabletId, NodeId>>) -> Infallible {
        loop {
            sleep(LOOK).await;
            if let Ok(map) = self.fresh_map().await {
                *primaries.lock() = primaries_of(&map);
            }
        }
    }

    async fn order(
        &self,
        address: &Arc<str>,
        order: CheckpointOrder,
        within: Duration,
    ) -> Result<CheckpointAnswer, Error> {
        let mut peer = self.inner.channels.peer(address, &self.identity)?;
        match timeout(within, peer.checkpoint(frame::encode(&order))).await {
            Ok(Ok(response)) => match frame::decode::<Result<CheckpointAnswer, Refusal>>(response.into_inner()) {
                Ok(answer) => answer.map_err(Error::Refused),
                Err(error) => Err(Error::Protocol(error.to_string())),
            },
            Ok(Err(status)) => Err(Error::from_status(address, &status)),
            Err(_) => Err(Error::lost(address, format!("none within {within:?}"))),
        }
    }
}

/// A checkpoint that is being made.
struct Making<'a> {
    client: &'a Client,
    name: &'a str,
    id: CheckpointId,
    begun: Timestamp,
    scope: Vec<Scope>,
    /// Parts that are there.
    done: BTreeMap<TabletId, Part>,
    /// Nodes that may have parts.
    touched: BTreeMap<NodeId, Arc<str>>,
    /// How often a node was away when all parts were there.
    seals: u32,
}

impl Making<'_> {
    /// Goes on as long as it gets anywhere.
    async fn run(&mut self) -> Result<Checkpoint, Error> {
        let patience = self.client.inner.options.deadline;
        let (mut moved, mut moves) = (Instant::now(), 0);
        loop {
            match self.round().await? {
                Round::Complete(checkpoint) => return Ok(checkpoint),
                Round::Progress if moves < MOST_MOVES => (moved, moves) = (Instant::now(), moves + 1),
                Round::Progress => {
                    let what = format!("tables change faster than they are copied; {moves} times was too often");
                    return Err(Refusal::Invalid(what).into());
                }
                Round::Stuck(error) if moved.elapsed() > patience => {
                    return Err(Error::Deadline { after: moved.elapsed(), last: Box::new(error) });
                }
                Round::Stuck(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn round(&mut self) -> Result<Round, Error> {
        let map = match self.client.fresh_map().await {
            Ok(map) => map,
            Err(error) if error.is_passing() => return Ok(Round::Stuck(error)),
            Err(error) => return Err(error),
        };
        let missing = self.missing(&map)?;
        if !missing.is_empty() {
            return self.add(&map, missing).await;
        }
        match self.checkpoint() {
            Ok(checkpoint) => self.seal(checkpoint).await,
            Err((table, why)) => {
                // Tablets became others in a way that their parts do not fit: all of the table once more.
                self.done.retain(|_, part| part.schema.table != table);
                Ok(Round::Stuck(Refusal::Invalid(why).into()))
            }
        }
    }

    /// The tablets whose rows no part has, or only one of before the table's last change.
    fn missing(&mut self, map: &ClusterMap) -> Result<Vec<Assignment>, Error> {
        let mut missing = Vec::new();
        for Scope { table, name } in &self.scope {
            let tablets: Vec<&Assignment> = map.tablets.iter().filter(|there| there.tablet.table == *table).collect();
            let of_map = tablets.iter().map(|there| there.schema.version).max();
            let Some(of_map) = of_map else { return Err(Refusal::NoSuchTable(name.clone()).into()) };
            let of_parts = self.done.values().filter(|part| part.schema.table == *table);
            let version = of_parts.map(|part| part.schema.version).max().unwrap_or(0).max(of_map);
            self.done.retain(|_, part| part.schema.table != *table || part.schema.version == version);
            let parts: Vec<&Part> = self.done.values().filter(|part| part.schema.table == *table).collect();
            let has = |there: &Assignment| parts.iter().any(|part| holds(&part.copy.slice, &there.tablet.slice));
            missing.extend(tablets.into_iter().filter(|there| !has(there)).cloned());
        }
        Ok(missing)
    }

    /// Asks the primaries for these.
    async fn add(&mut self, map: &ClusterMap, missing: Vec<Assignment>) -> Result<Round, Error> {
        let addresses = nodes(map);
        let mut by_node: BTreeMap<NodeId, Vec<Assignment>> = BTreeMap::new();
        for tablet in missing {
            by_node.entry(tablet.configuration.primary).or_default().push(tablet);
        }
        // A node that hangs is asked no longer than until others have taken its place.
        let primaries = &Mutex::new(primaries_of(map));
        let mut orders = Vec::new();
        for (node, tablets) in by_node {
            let address = addresses.get(&node).cloned();
            if let Some(address) = &address {
                self.touched.insert(node, Arc::clone(address));
            }
            let (client, name, id) = (self.client, self.name, self.id);
            orders.push(async move {
                let add = |there: Assignment| {
                    let order = CheckpointOrder::Add { name: name.into(), id, tablet: there.tablet.id };
                    let address = address.clone();
                    async move {
                        let unless_replaced = replaced(primaries, there.tablet.id, node);
                        let answer = match &address {
                            Some(address) => tokio::select! {
                                answer = client.order(address, order, ADDED_WITHIN) => answer,
                                error = unless_replaced => Err(error),
                            },
                            None => Err(Refusal::NotReady(there.tablet.id).into()),
                        };
                        (there, answer)
                    }
                };
                iter(tablets.into_iter().map(add)).buffer_unordered(AT_A_TIME).collect::<Vec<_>>().await
            });
        }
        let answers = tokio::select! {
            answers = join_all(orders) => answers,
            never = self.client.watch(primaries) => match never {},
        };
        let (mut progress, mut last) = (false, None);
        for (there, answer) in answers.into_iter().flatten() {
            let named = |error| Error::About {
                what: format!("tablet {} of table {}", there.tablet.id, there.schema.name),
                last: Box::new(error),
            };
            match answer {
                Ok(CheckpointAnswer::Added(part)) => {
                    progress = true;
                    self.done.insert(part.copy.tablet, *part);
                }
                Ok(other) => return Err(named(unexpected(&other))),
                Err(error) if error.is_passing() => last = Some(named(error)),
                Err(error) => return Err(named(error)),
            }
        }
        match (progress, last) {
            (false, Some(error)) => Ok(Round::Stuck(error)),
            (_, last) => {
                if last.is_some() {
                    sleep(PAUSE).await;
                }
                Ok(Round::Progress)
            }
        }
    }

    /// All parts that are needed, if they fit.
    fn checkpoint(&self) -> Result<Checkpoint, (TableId, String)> {
        let mut tables = Vec::new();
        for Scope { table, name } in &self.scope {
            let parts = self.done.values().filter(|part| part.schema.table == *table).collect();
            let chosen = tile(parts).map_err(|why| (*table, format!("table {name}: {why}")))?;
            tables.push(chosen);
        }
        Ok(Checkpoint { name: self.name.into(), id: self.id, begun: self.begun, tables })
    }

    async fn seal(&mut self, checkpoint: Checkpoint) -> Result<Round, Error> {
        let order = CheckpointOrder::Seal(checkpoint.clone());
        let needed: BTreeSet<NodeId> = checkpoint.tablets().map(|copy| copy.node).collect();
        let mut away = None;
        for (node, answer) in self.client.order_all(self.touched.clone(), order).await {
            let error = match answer {
                Ok(CheckpointAnswer::Done) => continue,
                Ok(other) => return Err(unexpected(&other)),
                // It has no part that counts.
                Err(_) if !needed.contains(&node) => continue,
                Err(error) => Error::About { what: format!("node {node}"), last: Box::new(error) },
            };
            if !error.is_passing() {
                return Err(error);
            }
            // Others are the primaries of its tablets by now, or soon.
            self.done.retain(|_, part| part.copy.node != node);
            away = Some(error);
        }
        let Some(error) = away else { return Ok(Round::Complete(checkpoint)) };
        self.seals += 1;
        if self.seals == MOST_SEALS {
            return Err(error);
        }
        sleep(PAUSE).await;
        Ok(Round::Progress)
    }

    /// Removes what there is, as far as nodes can be reached, and says so.
    async fn undo(&self, error: Error) -> Error {
        let order = CheckpointOrder::Remove { name: self.name.into(), id: Some(self.id) };
        let answers = self.client.order_all(self.touched.clone(), order).await;
        let left: Vec<String> =
            answers.into_iter().filter(|(_, answer)| answer.is_err()).map(|(node, _)| node.to_string()).collect();
        let what = match left.is_empty() {
            true => format!("no checkpoint {} was made", self.name),
            false => format!(
                "checkpoint {} was not completed, and {} may keep parts of it that count for nothing",
                self.name,
                left.join(", ")
            ),
        };
        Error::About { what, last: Box::new(error) }
    }
}

fn primaries_of(map: &ClusterMap) -> BTreeMap<TabletId, NodeId> {
    map.tablets.iter().map(|there| (there.tablet.id, there.configuration.primary)).collect()
}

/// Returns when another node is the primary of the tablet.
async fn replaced(primaries: &Mutex<BTreeMap<TabletId, NodeId>>, tablet: TabletId, node: NodeId) -> Error {
    loop {
        sleep(LOOK).await;
        if primaries.lock().get(&tablet) != Some(&node) {
            return Refusal::NotReady(tablet).into();
        }
    }
}

/// Those parts of a table that have each row once: of a tablet and one that was made of it later, the one that has more; of
/// the same rows, the later one.
fn tile(parts: Vec<&Part>) -> Result<TableCopy, String> {
    let outdone = |part: &&&Part| {
        parts.iter().any(|other| {
            let (ours, theirs) = (&part.copy, &other.copy);
            holds(&theirs.slice, &ours.slice) && (theirs.slice != ours.slice || theirs.tablet > ours.tablet)
        })
    };
    let chosen: Vec<&Part> = parts.iter().filter(|part| !outdone(part)).copied().collect();
    if let Some(why) = gap(chosen.iter().map(|part| &part.copy.slice)) {
        return Err(why);
    }
    let first = chosen.first().ok_or_else(|| String::from("it has no tablet"))?;
    let mut tablets: Vec<TabletCopy> = chosen.iter().map(|part| part.copy.clone()).collect();
    tablets.sort_by(|a, b| order_of(&a.slice).cmp(&order_of(&b.slice)));
    Ok(TableCopy { schema: first.schema.clone(), tablets })
}

/// What came of a round.
enum Round {
    Complete(Checkpoint),
    Progress,
    Stuck(Error),
}

/// By what tablets of a table are sorted.
fn order_of(slice: &model::Slice) -> (u32, &[u8]) {
    match slice {
        model::Slice::Hash { bucket, .. } => (*bucket, &[]),
        model::Slice::Rows { start, .. } => (0, start),
    }
}

fn scope(map: &ClusterMap, table: Option<&str>) -> Result<Vec<Scope>, Error> {
    let tables: Vec<Schema> = wire::admin::tables(map);
    let wanted = tables.iter().filter(|schema| table.is_none_or(|table| table == schema.name));
    let scope: Vec<Scope> = wanted.map(|schema| Scope { table: schema.table, name: schema.name.clone() }).collect();
    match (scope.is_empty(), table) {
        (false, _) => Ok(scope),
        (true, Some(table)) => Err(map.lacks(table).into()),
        (true, None) => Err(Refusal::Invalid(String::from("there is no table of which to make a checkpoint")).into()),
    }
}

fn nodes(map: &ClusterMap) -> BTreeMap<NodeId, Arc<str>> {
    map.nodes.iter().map(|(node, address)| (*node, Arc::from(address.as_str()))).collect()
}

/// Puts together what the nodes have of a checkpoint.
fn judge(
    name: String,
    id: Option<CheckpointId>,
    held: Holders,
    away: &BTreeSet<NodeId>,
    known: &BTreeSet<NodeId>,
) -> CheckpointStatus {
    let mut best: Option<(CheckpointState, Checkpoint, Vec<String>)> = None;
    // If a node went away while it was made, there may be several that are as good as each other.
    for whole in held.iter().filter_map(|(_, held)| held.sealed.as_ref()) {
        let (mut state, mut lacks) = (CheckpointState::Complete, Vec::new());
        for copy in whole.tablets() {
            let here = |(node, held): &(NodeId, Held)| *node == copy.node && held.tablets.contains(&copy.tablet);
            if held.iter().any(here) {
                continue;
            }
            if away.contains(&copy.node) {
                lacks.push(format!("{} of tablet {} does not answer", copy.node, copy.tablet));
                if state == CheckpointState::Complete {
                    state = CheckpointState::Unknown;
                }
            } else {
                let gone = if known.contains(&copy.node) { "" } else { ", which has left the cluster" };
                lacks.push(format!("tablet {} is not at {} any more{gone}", copy.tablet, copy.node));
                state = CheckpointState::Incomplete;
            }
        }
        let rank = |state| match state {
            CheckpointState::Complete => 2,
            CheckpointState::Unknown => 1,
            CheckpointState::Incomplete => 0,
        };
        if best.as_ref().is_none_or(|(known, ..)| rank(state) > rank(*known)) {
            best = Some((state, whole.clone(), lacks));
        }
    }
    let (mut state, whole, mut lacks) = match best {
        Some((state, whole, lacks)) => (state, Some(whole), lacks),
        None if away.is_empty() => (CheckpointState::Incomplete, None, vec![String::from("it was never completed")]),
        None => (CheckpointState::Unknown, None, vec![String::from("no node that answers knows it to be complete")]),
    };
    for (node, held) in &held {
        if let Some(damage) = &held.damage {
            state = CheckpointState::Incomplete;
            lacks.push(format!("{node} has: {damage}"));
        }
    }
    CheckpointStatus { name, id, state, whole, held, lacks }
}

fn unexpected(answer: &CheckpointAnswer) -> Error {
    Error::Protocol(format!("a node answered an order about checkpoints with {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use model::{Epoch, FamilyId, Lsn, Partition, Slice, Storage};

    fn part(tablet: u64, start: &'static str, end: Option<&'static str>) -> Part {
        let schema = Schema {
            table: TableId(1),
            name: "users".into(),
            version: 1,
            families: Vec::new(),
            next_family: FamilyId(1),
            partition: Partition::Range { splits: Vec::new() },
            replicas: 2,
            min_replicas: 1,
            storage: Storage::default(),
            settings: model::Settings::default(),
        };
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let copy = TabletCopy {
            tablet: TabletId(tablet),
            slice: Slice::Rows { start: bytes(start), end: end.map(bytes) },
            epoch: Epoch(1),
            upto: Lsn(5),
            node: NodeId(tablet as u32),
            date: Timestamp(1),
            bytes: 10,
        };
        Part { name: "monday".into(), id: CheckpointId(1), schema, copy }
    }

    fn tiled(parts: &[Part]) -> Result<Vec<u64>, String> {
        let table = tile(parts.iter().collect())?;
        Ok(table.tablets.iter().map(|copy| copy.tablet.0).collect())
    }

    /// Tablets may be split and merged between one part and the next.
    #[test]
    fn parts_of_former_and_of_later_tablets_are_told_apart() {
        let (left, right, all) = (part(2, "", Some("m")), part(1, "m", None), part(3, "", None));
        assert_eq!(tiled(&[right.clone(), left.clone()]), Ok(vec![2, 1]));
        assert_eq!(tiled(&[left.clone(), all.clone()]), Ok(vec![3]), "the left half was split off, or merged into it");
        assert_eq!(tiled(&[all.clone(), part(4, "", None)]), Ok(vec![4]), "two moments of the same rows");
        assert!(tiled(&[left.clone(), part(4, "k", None)]).is_err(), "they do not fit: all of it is asked for again");
        assert!(tiled(&[left]).is_err() && tiled(&[]).is_err());
    }

    fn whole() -> Checkpoint {
        let parts = [part(1, "", Some("m")), part(2, "m", None)];
        let table = tile(parts.iter().collect()).unwrap();
        Checkpoint { name: "monday".into(), id: CheckpointId(1), begun: Timestamp(1), tables: vec![table] }
    }

    fn held(node: u32, tablets: &[u64], sealed: bool) -> (NodeId, Held) {
        let held = Held {
            name: "monday".into(),
            id: Some(CheckpointId(1)),
            tablets: tablets.iter().copied().map(TabletId).collect(),
            bytes: 10,
            sealed: sealed.then(whole),
            damage: None,
        };
        (NodeId(node), held)
    }

    /// Complete is what somebody has sealed and of which all parts are there; and nothing else.
    #[test]
    fn nothing_claims_to_be_complete_that_is_not() {
        let state = |held: Vec<(NodeId, Held)>, away: &[u32]| {
            let away = away.iter().copied().map(NodeId).collect();
            let known = [NodeId(1), NodeId(2), NodeId(3)].into();
            judge("monday".into(), Some(CheckpointId(1)), held, &away, &known).state
        };
        use CheckpointState::{Complete, Incomplete, Unknown};
        assert_eq!(state(vec![held(1, &[1], true), held(2, &[2], true)], &[]), Complete);
        assert_eq!(state(vec![held(1, &[1], true), held(2, &[2], false)], &[3]), Complete, "one who knows is enough");
        assert_eq!(state(vec![held(1, &[1], false), held(2, &[2], false)], &[]), Incomplete);
        assert_eq!(state(vec![held(1, &[1], true), held(2, &[], true)], &[]), Incomplete);
        assert_eq!(state(vec![held(1, &[1], true), held(2, &[1], true)], &[]), Incomplete);
        assert_eq!(state(vec![held(1, &[1], true)], &[2]), Unknown);
        assert_eq!(state(vec![held(1, &[1], true)], &[3]), Incomplete);
        assert_eq!(state(vec![held(1, &[1], false)], &[2]), Unknown, "who is away may have sealed it");
        let (node, damaged) = held(2, &[2], true);
        let damaged = Held { damage: Some("parts/2".into()), ..damaged };
        assert_eq!(state(vec![held(1, &[1], true), (node, damaged)], &[]), Incomplete);
    }
}
