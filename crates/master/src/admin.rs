//! What clients ask of the master: tables, the map, how everything is.

use model::request::{ClusterMap, ClusterStatus, NewTable, NodeStatus, TabletStatus};
use model::{
    AdminReply, AdminRequest, Assignment, Instant, NodeId, Partition, Refusal, Retention, TabletId, Ticket, limits,
};
use std::collections::BTreeSet;

use crate::api::Effect;
use crate::machine::Master;
use crate::placement::Load;
use crate::state::Command;
use crate::{library, localities, settings};

impl Master {
    pub(crate) fn on_admin(&mut self, now: Instant, ticket: Ticket, request: AdminRequest, out: &mut Vec<Effect>) {
        if self.leading.is_none() || self.state.cluster.is_none() {
            out.push(Effect::Refuse(ticket, Refusal::NoMaster));
            return;
        }
        let command = match request {
            AdminRequest::Map => {
                out.push(Effect::Reply(ticket, AdminReply::Map(self.map())));
                return;
            }
            AdminRequest::Status => {
                out.push(Effect::Reply(ticket, AdminReply::Status(self.status(now))));
                return;
            }
            AdminRequest::Losses(tablet) => {
                out.push(match self.losses(now, tablet) {
                    Ok(losses) => Effect::Reply(ticket, AdminReply::Losses(losses)),
                    Err(refusal) => Effect::Refuse(ticket, refusal),
                });
                return;
            }
            AdminRequest::Transfer { tablet, to } => {
                self.pass_on(ticket, self.transfer(now, tablet, to), out);
                return;
            }
            AdminRequest::CheckTablet(tablet) => {
                self.pass_on(ticket, self.check_tablet(now, tablet), out);
                return;
            }
            AdminRequest::ScrubNode(node) => {
                self.pass_on(ticket, self.scrub_node(now, node), out);
                return;
            }
            AdminRequest::MergeTablet(tablet) => {
                out.push(match self.merge_tablet(now, tablet) {
                    Ok(words) => Effect::Reply(ticket, AdminReply::Done(words)),
                    Err(refusal) => Effect::Refuse(ticket, refusal),
                });
                return;
            }
            AdminRequest::DrainNode { node, drain } => self.check_node(node).map(|()| Command::Drain { node, drain }),
            AdminRequest::RemoveNode(node) => self.check_node(node).map(|()| Command::RemoveNode(node)),
            AdminRequest::MoveTablet { tablet, from, to } => self.move_tablet(now, tablet, from, to),
            AdminRequest::Recover { tablet, epoch, from, empty } => self.recover(now, tablet, epoch, from, empty),
            AdminRequest::Masters | AdminRequest::AddMaster { .. } | AdminRequest::RemoveMaster(_) => {
                // Who belongs to the group is the consensus' matter: the host answers.
                out.push(Effect::Refuse(ticket, Refusal::NoMaster));
                return;
            }
            AdminRequest::Events(query) => {
                self.on_event_query(now, ticket, query, out);
                return;
            }
            AdminRequest::Hidden => {
                let hidden = self.state.hidden().into_iter().cloned().collect();
                out.push(Effect::Reply(ticket, AdminReply::Hidden(hidden)));
                return;
            }
            AdminRequest::Documents(prefix) => {
                out.push(Effect::Reply(ticket, AdminReply::Documents(self.state.library.find(&prefix))));
                return;
            }
            AdminRequest::ChangeDocument(change) => library::check(&change).map(|()| Command::ChangeDocument(change)),
            AdminRequest::HideTable { table, keep } => {
                let until = self.date().plus(keep);
                self.check_table(&table).map(|()| Command::HideTable { table, until })
            }
            AdminRequest::RestoreTable(name) => Ok(Command::RestoreTable(name)),
            AdminRequest::CreateTable(table) => self.create_table(now, table),
            AdminRequest::SplitTablet { tablet, at } => self.split_tablet(tablet, at),
            AdminRequest::DropTable(name) => self.check_table(&name).map(|()| Command::DropTable(name)),
            AdminRequest::AlterTable { table, set, drop, storage, settings } => self
                .check_table(&table)
                .and_then(|()| check_families(&set))
                .and_then(|()| localities::check(&storage))
                .and_then(|()| settings::check(&settings))
                .map(|()| Command::AlterTable { table, set, drop, storage, settings }),
        };
        match command {
            Ok(command) => {
                let nonce = self.propose(command, out);
                self.waiting.insert(nonce, (ticket, now));
            }
            Err(refusal) => out.push(Effect::Refuse(ticket, refusal)),
        }
    }

    /// An order to a node, and words for who asked.
    fn pass_on(&self, ticket: Ticket, order: Result<(Effect, String), Refusal>, out: &mut Vec<Effect>) {
        out.extend(match order {
            Ok((order, words)) => vec![order, Effect::Reply(ticket, AdminReply::Done(words))],
            Err(refusal) => vec![Effect::Refuse(ticket, refusal)],
        });
    }

    fn check_table(&self, name: &str) -> Result<(), Refusal> {
        self.state.table(name).map(|_| ()).ok_or_else(|| Refusal::NoSuchTable(name.to_owned()))
    }

    /// Checks the wish and finds nodes for it.
    fn create_table(&self, now: Instant, table: NewTable) -> Result<Command, Refusal> {
        let NewTable { name, families, partition, replicas, min_replicas, storage, settings } = table;
        limits::check_table_name(&name).map_err(Refusal::Invalid)?;
        if self.state.table(&name).is_some() {
            return Err(Refusal::Exists(format!("table {name:?}")));
        }
        if families.len() > limits::FAMILIES {
            let most = limits::FAMILIES;
            return Err(Refusal::Invalid(format!("a table has at most {most} families, not {}", families.len())));
        }
        check_families(&families)?;
        localities::check(&storage)?;
        settings::check(&settings)?;
        let tablets = check_partition(&partition)?;
        let replicas = replicas.unwrap_or(self.options.replicas);
        let min_replicas = min_replicas.unwrap_or(self.options.min_replicas).min(replicas.max(1));
        if replicas == 0 || min_replicas == 0 {
            return Err(Refusal::Invalid("replicas and min_replicas are at least 1".into()));
        }
        let able = |node: &NodeId| self.is_able(now, *node);
        let mut load = Load::of(&self.state, self.state.nodes.keys().copied().filter(able));
        if load.nodes() < usize::from(replicas) {
            let young = self.leading.is_some_and(|(since, _)| now.since(since) < self.options.timing.heartbeat * 2);
            if young && self.state.nodes.len() >= usize::from(replicas) {
                // They may be there: the nodes have hardly had the time to say so.
                return Err(Refusal::NoMaster);
            }
            return Err(Refusal::Invalid(format!(
                "{replicas} replicas need {replicas} nodes, and {} are alive with room on their disks; \
                 start more nodes or ask for fewer replicas",
                load.nodes()
            )));
        }
        let placement = (0..tablets).map(|_| load.place(usize::from(replicas))).collect();
        Ok(Command::CreateTable { name, families, partition, replicas, min_replicas, placement, storage, settings })
    }

    fn map(&self) -> ClusterMap {
        ClusterMap {
            version: self.state.applied,
            nodes: self.directory(),
            tablets: self
                .state
                .groups
                .keys()
                .filter_map(|&tablet| self.state.assignment(tablet))
                .filter(is_seen)
                .collect(),
            old: false,
            documents: self.state.library.version(),
        }
    }

    fn status(&self, now: Instant) -> ClusterStatus {
        let node = |(&node, known): (&NodeId, &crate::state::KnownNode)| {
            let heard = self.heard.get(&node);
            NodeStatus {
                node,
                address: known.address.clone(),
                alive: self.is_alive(now, node),
                incarnation: known.incarnation,
                heard_ms_ago: heard.map(|heard| now.since(heard.at).as_millis() as u64),
                disk_full: heard.is_some_and(|heard| heard.disk_full),
                draining: known.draining,
                scrub: heard.map(|heard| heard.scrub).unwrap_or_default(),
            }
        };
        let tablet = |&tablet: &TabletId| {
            let assignment = self.state.assignment(tablet)?;
            let replicas = self
                .heard
                .iter()
                .filter_map(|(&node, heard)| heard.replicas.get(&tablet).map(|report| (node, report.clone())));
            Some(TabletStatus { assignment, replicas: replicas.collect() })
        };
        ClusterStatus {
            cluster: self.state.cluster.unwrap_or_default(),
            nodes: self.state.nodes.iter().map(node).collect(),
            tablets: self.state.groups.keys().filter_map(tablet).collect(),
            // The host adds them.
            masters: Vec::new(),
        }
    }
}

/// Has nobody dropped its table?
fn is_seen(assignment: &Assignment) -> bool {
    assignment.schema.settings.dropped.is_none()
}

fn check_families(families: &[(String, Retention)]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for (name, _) in families {
        limits::check_family_name(name).map_err(Refusal::Invalid)?;
        if !seen.insert(name) {
            return Err(Refusal::Invalid(format!("family {name:?} is named twice")));
        }
    }
    Ok(())
}

/// How many tablets it makes.
fn check_partition(partition: &Partition) -> Result<usize, Refusal> {
    let most = limits::TABLETS;
    let tablets = match partition {
        Partition::Hash { tablets } => *tablets as usize,
        Partition::Range { splits } => {
            if splits.first().is_some_and(|first| first.is_empty()) || splits.windows(2).any(|pair| pair[0] >= pair[1])
            {
                return Err(Refusal::Invalid("split keys must be ascending, distinct and not empty".into()));
            }
            for split in splits {
                limits::check_row_key(split).map_err(Refusal::Invalid)?;
            }
            splits.len() + 1
        }
    };
    if tablets == 0 || tablets > most {
        return Err(Refusal::Invalid(format!("a new table has 1 to {most} tablets, not {tablets}")));
    }
    Ok(tablets)
}
