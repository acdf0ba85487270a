//! What operators ask of the master: that nodes are emptied and leave, that tablets move, and what becomes of a tablet
//! whose members are all gone.

use model::request::Losses;
use model::{Epoch, Instant, NodeId, Refusal, TabletId};
use protocol::FromMaster;

use crate::api::Effect;
use crate::machine::Master;
use crate::state::{Command, Group};

impl Master {
    pub(crate) fn check_node(&self, node: NodeId) -> Result<(), Refusal> {
        match self.state.nodes.contains_key(&node) {
            true => Ok(()),
            false => {
                Err(Refusal::Invalid(format!("there is no node {node}; `diptych node list` shows those there are")))
            }
        }
    }

    fn group(&self, tablet: TabletId) -> Result<&Group, Refusal> {
        self.state.groups.get(&tablet).ok_or_else(|| {
            Refusal::Invalid(format!("there is no tablet {tablet}; `diptych tablet list` shows those there are"))
        })
    }

    /// The order to the primary, and words for who asked.
    pub(crate) fn transfer(&self, now: Instant, tablet: TabletId, to: NodeId) -> Result<(Effect, String), Refusal> {
        let configuration = &self.group(tablet)?.configuration;
        if !configuration.secondaries.contains(&to) {
            return Err(Refusal::Invalid(format!(
                "{to} is no secondary of tablet {tablet}, which is {configuration:?}; only a secondary can take over"
            )));
        }
        if let Some(dead) = [configuration.primary, to].into_iter().find(|&node| !self.is_alive(now, node)) {
            return Err(Refusal::Invalid(format!("node {dead} is down, and a planned transfer needs both alive")));
        }
        let words = format!("{} hands tablet {tablet} over to {to}", configuration.primary);
        let order = FromMaster::HandOver(tablet, configuration.epoch, to);
        Ok((Effect::Send(configuration.primary, order), words))
    }

    /// To the primary: compare the replicas.
    pub(crate) fn check_tablet(&self, now: Instant, tablet: TabletId) -> Result<(Effect, String), Refusal> {
        let configuration = &self.group(tablet)?.configuration;
        let primary = configuration.primary;
        if configuration.secondaries.is_empty() {
            return Err(Refusal::Invalid(format!("only {primary} keeps tablet {tablet}: there is nothing to compare")));
        }
        if !self.is_alive(now, primary) {
            return Err(Refusal::NotReady(tablet));
        }
        let words = format!("{primary} compares the replicas of tablet {tablet}; an event tells how they are");
        Ok((Effect::Send(primary, FromMaster::Check(tablet)), words))
    }

    pub(crate) fn scrub_node(&self, now: Instant, node: NodeId) -> Result<(Effect, String), Refusal> {
        self.check_node(node)?;
        if !self.is_alive(now, node) {
            return Err(Refusal::Invalid(format!("node {node} is down and reads nothing")));
        }
        let words = format!("{node} reads all that it keeps; `diptych node list` shows how far it is");
        Ok((Effect::Send(node, FromMaster::Scrub), words))
    }

    pub(crate) fn move_tablet(
        &self,
        now: Instant,
        tablet: TabletId,
        from: NodeId,
        to: NodeId,
    ) -> Result<Command, Refusal> {
        self.check_node(to)?;
        let group = self.group(tablet)?;
        if !group.configuration.has(from) || group.configuration.has(to) {
            return Err(Refusal::Invalid(format!(
                "tablet {tablet} is {:?}; it moves from a node that keeps it to one that does not",
                group.configuration
            )));
        }
        if !self.is_able(now, to) {
            return Err(Refusal::Invalid(format!("node {to} is down, full or being emptied, and gets no tablets")));
        }
        if group.learner.is_some() || group.leaving.is_some() {
            return Err(Refusal::NotReady(tablet));
        }
        Ok(Command::Move { tablet, epoch: group.configuration.epoch, from, to })
    }

    /// What an operator must know before the tablet is begun anew.
    pub(crate) fn losses(&self, now: Instant, tablet: TabletId) -> Result<Losses, Refusal> {
        let configuration = self.group(tablet)?.configuration.clone();
        let alive = configuration.members().filter(|&node| self.is_alive(now, node)).collect();
        let mut others: Vec<_> = self
            .heard
            .iter()
            .filter(|(node, _)| !configuration.has(**node) && self.is_alive(now, **node))
            .filter_map(|(&node, heard)| Some((node, heard.replicas.get(&tablet)?.clone())))
            .collect();
        others.sort_by_key(|(_, report)| core::cmp::Reverse((report.epoch, report.committed, report.durable)));
        Ok(Losses { configuration, alive, others })
    }

    /// Only if no member has been heard for two sessions: until one has passed, a primary alone may still serve.
    pub(crate) fn recover(
        &self,
        now: Instant,
        tablet: TabletId,
        epoch: Epoch,
        from: NodeId,
        empty: bool,
    ) -> Result<Command, Refusal> {
        self.check_node(from)?;
        let configuration = &self.group(tablet)?.configuration;
        let patience = self.options.timing.session * 2;
        let young = self.leading.is_none_or(|(since, _)| now.since(since) < patience);
        let lately = |node: &NodeId| self.heard.get(node).is_some_and(|heard| now.since(heard.at) < patience);
        if let Some(member) = configuration.members().find(|node| *node != from && lately(node)) {
            return Err(Refusal::Invalid(format!(
                "{member} keeps tablet {tablet} and was heard less than {patience:?} ago: nothing is lost; \
                 if it must go, stop it first"
            )));
        }
        if configuration.has(from) && !empty {
            return Err(Refusal::Invalid(format!(
                "{from} is a member of tablet {tablet}, {configuration:?}: once it runs, it takes over by itself"
            )));
        }
        if young {
            return Err(Refusal::NoMaster);
        }
        let holds = self.heard.get(&from).is_some_and(|heard| heard.replicas.contains_key(&tablet));
        if !self.is_alive(now, from) || (!holds && !empty) {
            return Err(Refusal::Invalid(format!(
                "{from} is down or holds nothing of tablet {tablet}; `diptych tablet recover {tablet}` lists who does"
            )));
        }
        Ok(Command::Recover { tablet, epoch, from, empty })
    }
}
