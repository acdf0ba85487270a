//! What all masters agree on, and the commands that change it.

use bytes::Bytes;
use model::event::{Noted, Source};
use model::{
    Assignment, ClusterId, Configuration, Document, DocumentChange, Epoch, Family, FamilyId, Incarnation, Lineage, Lsn,
    Merge, NodeId, Partition, Refusal, Retention, Schema, SettingsChange, Split, SplitAt, StorageChange, TableId,
    Tablet, TabletId, Timestamp, limits,
};
use protocol::{Mutant, Planted, Why};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::events::Events;
use crate::library::Library;
use crate::localities;
use crate::merges::Joint;
use crate::settings;
use crate::splits::{Ended, Intent};

/// A change of the state. Commands are judged when they are applied, in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Names the cluster, once.
    Found(ClusterId),
    /// A node has started.
    Join {
        /// Which.
        node: NodeId,
        /// Where it serves.
        address: String,
        /// Its disk.
        disk: u64,
        /// Its life.
        incarnation: Incarnation,
    },
    /// A new table.
    CreateTable {
        /// Its name.
        name: String,
        /// Its families.
        families: Vec<(String, Retention)>,
        /// How it is cut.
        partition: Partition,
        /// Wanted replicas.
        replicas: u8,
        /// Fewest replicas for writes.
        min_replicas: u8,
        /// Who keeps each of its tablets, the primary first.
        placement: Vec<Vec<NodeId>>,
        /// How its rows lie on disks.
        storage: StorageChange,
        /// What else it promises.
        settings: SettingsChange,
    },
    /// A table less.
    DropTable(String),
    /// Other families, or other places for them.
    AlterTable {
        /// Of this table.
        table: String,
        /// New ones, and new rules.
        set: Vec<(String, Retention)>,
        /// Those to drop.
        drop: Vec<String>,
        /// How rows lie on disks.
        storage: StorageChange,
        /// What else it promises.
        settings: SettingsChange,
    },
    /// A new configuration, if it is the successor of the present one (PacificA, 2.4).
    Configure {
        /// Whose.
        tablet: TabletId,
        /// Which.
        configuration: Configuration,
        /// Who asked.
        by: NodeId,
        /// For which reason.
        why: Option<Why>,
    },
    /// A node shall learn the tablet, or no one, if the epoch is still this one.
    Learn {
        /// Which tablet.
        tablet: TabletId,
        /// As of which epoch this was decided.
        epoch: Epoch,
        /// Who.
        learner: Option<NodeId>,
    },
    /// The node shall be emptied, or may be filled again.
    Drain {
        /// Which.
        node: NodeId,
        /// Emptied?
        drain: bool,
    },
    /// The node keeps nothing and is struck off the list, for ever.
    RemoveNode(NodeId),
    /// `to` shall keep the tablet instead of `from`, if the epoch is still this one.
    Move {
        /// Which tablet.
        tablet: TabletId,
        /// As of which epoch this was decided.
        epoch: Epoch,
        /// A member.
        from: NodeId,
        /// Not a member.
        to: NodeId,
    },
    /// Nobody shall leave the tablet any more.
    Stay(TabletId),
    /// An operator begins the tablet anew with one member: all others are gone.
    Recover {
        /// Which tablet.
        tablet: TabletId,
        /// As of which epoch this was decided.
        epoch: Epoch,
        /// The only member.
        from: NodeId,
        /// With nothing.
        empty: bool,
    },
    /// This happened; each of them is recorded once.
    Record {
        /// Where.
        source: Source,
        /// In which life of a node, or term of a master.
        life: u64,
        /// Number of the first in that life.
        first: u64,
        /// In order.
        events: Vec<Noted>,
    },
    /// Split the tablet in this epoch.
    Split {
        /// Which.
        tablet: TabletId,
        /// As of which epoch this was decided.
        epoch: Epoch,
        /// Where.
        at: SplitAt,
    },
    /// The tablet has ended, and its heirs go on.
    Divide {
        /// Which.
        tablet: TabletId,
        /// Its last entry.
        lsn: Lsn,
        /// What that says.
        split: Split,
    },
    /// The tablet's log will not have the split.
    CancelSplit {
        /// Which.
        tablet: TabletId,
        /// The first heir that was meant.
        left: TabletId,
        /// Why.
        why: String,
    },
    /// The node keeps nothing of a tablet that has ended.
    Bury {
        /// Which tablet.
        tablet: TabletId,
        /// Which node.
        node: NodeId,
    },
    /// Make one tablet of these two, which are kept by the same nodes.
    Merge {
        /// The one,
        left: TabletId,
        /// and the one whose rows follow.
        right: TabletId,
    },
    /// The right one of two tablets is closed.
    Seal {
        /// The left one.
        left: TabletId,
        /// What they are to become.
        heir: TabletId,
        /// The right one's last entry.
        lsn: Lsn,
    },
    /// Both tablets have ended, and the heir goes on.
    Fuse {
        /// The left one.
        left: TabletId,
        /// Its last entry.
        lsn: Lsn,
        /// What that says.
        merge: Merge,
    },
    /// There will be no such merge.
    CancelMerge {
        /// The left one.
        left: TabletId,
        /// The heir that was meant.
        heir: TabletId,
        /// Was the right one sealed when this was decided?
        sealed: bool,
        /// Why.
        why: String,
    },
    /// Nobody sees the table any more, and it can be brought back for a while.
    HideTable {
        /// Which.
        table: String,
        /// Until then.
        until: Timestamp,
    },
    /// The table of that name that was hidden last is seen again.
    RestoreTable(String),
    /// Drops hidden tables whose time was over by then.
    Purge(Timestamp),
    /// Another text of a document, another document, or one less.
    ChangeDocument(DocumentChange),
}

/// What a command has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing that anybody waits for.
    Nothing,
    /// This node joined.
    Node(NodeId),
    /// This table and these tablets.
    Table(Schema, Vec<TabletId>),
    /// The table went, and these tablets with it, which these nodes kept.
    Dropped(Schema, Vec<(TabletId, Vec<NodeId>)>),
    /// The same with several tables that nobody saw any more.
    Purged(Vec<(TabletId, Vec<NodeId>)>),
    /// This document, or that there is none.
    Document(Option<Document>),
    /// This tablet's group; those who should hear of it.
    Group(TabletId, BTreeSet<NodeId>),
    /// Of this life of the source, so many events are recorded.
    Events(Source, u64, u64),
    /// Something about a node that nobody but the masters needs to know: in words.
    Planned(String),
    /// This tablet is to be split.
    Intent(TabletId),
    /// It was.
    Divided(TabletId, Split),
    /// It will not be, and why.
    Undivided(TabletId, String),
    /// This tablet and the next one are to become one, as far as that is.
    Joint(TabletId),
    /// They have.
    Fused(TabletId, Merge),
    /// These two will not, and why; the second has a new epoch.
    Unfused(TabletId, TabletId, String),
}

/// A node as the masters know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownNode {
    /// Where it serves gRPC.
    pub address: String,
    /// Its disk; another one would not hold what it was given.
    pub disk: u64,
    /// Its last life.
    pub incarnation: Incarnation,
    /// It is being emptied.
    pub draining: bool,
}

/// A tablet and who keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The tablet.
    pub tablet: Tablet,
    /// Who keeps it.
    pub configuration: Configuration,
    /// Who shall keep it too.
    pub learner: Option<NodeId>,
    /// The member whose place the learner takes, if it is to take somebody's.
    pub leaving: Option<NodeId>,
    /// Where its history begins.
    pub lineage: Lineage,
}

/// A snapshot that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the bytes of a state.
    #[error("the master's snapshot cannot be read: {0}")]
    Snapshot(String),
}

/// What all masters agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Index of the last command.
    pub applied: u64,
    /// The cluster's id, once it is founded.
    pub cluster: Option<ClusterId>,
    /// Nodes that ever joined.
    pub nodes: BTreeMap<NodeId, KnownNode>,
    /// Nodes that were struck off: their ids are not used again.
    pub removed: BTreeSet<NodeId>,
    /// Tables that exist, also those that are hidden.
    pub tables: BTreeMap<TableId, Schema>,
    /// Their tablets.
    pub groups: BTreeMap<TabletId, Group>,
    last_table: TableId,
    last_tablet: TabletId,
    /// What happened.
    pub events: Events,
    /// Tablets that are to be split.
    pub splits: BTreeMap<TabletId, Intent>,
    /// Tablets that were split, as long as nodes may keep them.
    pub ended: BTreeMap<TabletId, Ended>,
    /// Tablets that are to become one with the next.
    pub merges: BTreeMap<TabletId, Joint>,
    /// What the masters keep for those who serve.
    pub library: Library,
    /// Which fault it has, one of those that check the checkers.
    #[serde(skip)]
    pub(crate) planted: Planted,
}

impl State {
    const VERSION: u8 = 8;

    /// The whole as bytes: a version byte, then postcard.
    pub fn to_bytes(&self) -> Bytes {
        let form = postcard::to_extend(self, vec![Self::VERSION]).expect("plain values have a form in bytes");
        Bytes::from(form)
    }

    /// The whole from bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<State, Error> {
        match bytes.split_first() {
            Some((&Self::VERSION, rest)) => {
                postcard::from_bytes(rest).map_err(|error| Error::Snapshot(error.to_string()))
            }
            Some((version, _)) => Err(Error::Snapshot(format!("version {version} is not known"))),
            None => Err(Error::Snapshot("it is empty".into())),
        }
    }

    pub(crate) fn with(self, planted: Planted) -> State {
        State { planted, ..self }
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Option<&Schema> {
        self.tables.values().find(|schema| schema.name == name && schema.settings.dropped.is_none())
    }

    /// Was there such a tablet, and is there none any more? Ids are given out once, in order, so one that is higher than
    /// all is not gone: a master that was deposed has just not heard of it (`sim`, masters that disagree).
    pub fn is_gone(&self, tablet: TabletId) -> bool {
        tablet <= self.last_tablet && !self.groups.contains_key(&tablet)
    }

    /// What nodes are told of a tablet.
    pub fn assignment(&self, tablet: TabletId) -> Option<Assignment> {
        let group = self.groups.get(&tablet)?;
        let schema = self.tables.get(&group.tablet.table)?.clone();
        Some(Assignment {
            tablet: group.tablet.clone(),
            schema,
            configuration: group.configuration.clone(),
            learner: group.learner,
            lineage: group.lineage,
        })
    }

    /// Applies the command at `index`.
    pub fn apply(&mut self, index: u64, command: Command) -> Result<Changed, Refusal> {
        self.applied = index;
        match command {
            Command::Found(cluster) => {
                self.cluster.get_or_insert(cluster);
                Ok(Changed::Nothing)
            }
            Command::Join { node, address, disk, incarnation } => self.join(node, address, disk, incarnation),
            Command::CreateTable {
                name,
                families,
                partition,
                replicas,
                min_replicas,
                placement,
                storage,
                settings,
            } => self.create_table(name, families, partition, (replicas, min_replicas), placement, storage, settings),
            Command::DropTable(name) => self.drop_table(&name),
            Command::AlterTable { table, set, drop, storage, settings } => {
                self.alter_table(&table, set, &drop, storage, settings)
            }
            Command::HideTable { table, until } => self.hide_table(&table, until),
            Command::RestoreTable(name) => self.restore_table(&name),
            Command::Purge(date) => Ok(self.purge(date)),
            Command::ChangeDocument(change) => self.library.change(index, change).map(Changed::Document),
            Command::Configure { tablet, configuration, by, .. } => self.configure(tablet, configuration, by),
            Command::Learn { tablet, epoch, learner } => self.learn(tablet, epoch, learner),
            Command::Drain { node, drain } => self.drain(node, drain),
            Command::RemoveNode(node) => self.remove_node(node),
            Command::Move { tablet, epoch, from, to } => self.move_tablet(tablet, epoch, from, to),
            Command::Stay(tablet) => {
                let group = self.groups.get_mut(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
                group.leaving = None;
                Ok(Changed::Nothing)
            }
            Command::Recover { tablet, epoch, from, empty } => self.recover(tablet, epoch, from, empty),
            Command::Record { source, life, first, events } => Ok(self.record(source, life, first, events)),
            Command::Split { tablet, epoch, at } => self.intend_split(tablet, epoch, at),
            Command::Divide { tablet, lsn, split } => self.divide(tablet, lsn, split),
            Command::CancelSplit { tablet, left, why } => Ok(self.cancel_split(tablet, left, why)),
            Command::Bury { tablet, node } => Ok(self.bury(tablet, node)),
            Command::Merge { left, right } => self.intend_merge(left, right),
            Command::Seal { left, heir, lsn } => Ok(self.seal(left, heir, lsn)),
            Command::Fuse { left, lsn, merge } => self.fuse(left, lsn, merge),
            Command::CancelMerge { left, heir, sealed, why } => Ok(self.cancel_merge(left, heir, sealed, why)),
        }
    }

    fn join(&mut self, node: NodeId, address: String, disk: u64, incarnation: Incarnation) -> Result<Changed, Refusal> {
        if self.removed.contains(&node) {
            return Err(Refusal::Invalid(format!("node {node} was removed from the cluster")));
        }
        let unknown = || KnownNode { address: String::new(), disk, incarnation, draining: false };
        let known = self.nodes.entry(node).or_insert_with(unknown);
        if known.disk != disk || incarnation < known.incarnation {
            return Err(Refusal::Invalid(format!("node {node} is known with another disk or a later life")));
        }
        known.address = address;
        known.incarnation = incarnation;
        Ok(Changed::Node(node))
    }

    #[allow(clippy::too_many_arguments)]
    fn create_table(
        &mut self,
        name: String,
        families: Vec<(String, Retention)>,
        partition: Partition,
        (replicas, min_replicas): (u8, u8),
        placement: Vec<Vec<NodeId>>,
        storage: StorageChange,
        settings: SettingsChange,
    ) -> Result<Changed, Refusal> {
        if self.table(&name).is_some() {
            return Err(Refusal::Exists(format!("table {name:?}")));
        }
        let table = TableId(self.last_table.0 + 1);
        let mut schema = Schema {
            table,
            name,
            version: 1,
            families: Vec::new(),
            next_family: FamilyId(1),
            partition,
            replicas,
            min_replicas,
            storage: model::Storage::default(),
            settings: model::Settings::default(),
        };
        set_families(&mut schema, families);
        localities::change(&mut schema, storage)?;
        settings::change(&mut schema, settings, 0)?;
        self.last_table = table;
        let mut tablets = Vec::new();
        for (slice, nodes) in schema.partition.slices().into_iter().zip(placement) {
            let Some((&primary, secondaries)) = nodes.split_first() else { continue };
            let tablet = Tablet { id: self.allot_tablet(), table, slice };
            tablets.push(tablet.id);
            let configuration = Configuration::first(primary, secondaries.iter().copied());
            self.groups.insert(
                tablet.id,
                Group { tablet, configuration, learner: None, leaving: None, lineage: Lineage::default() },
            );
        }
        self.tables.insert(table, schema.clone());
        Ok(Changed::Table(schema, tablets))
    }

    /// A number that no tablet ever had.
    pub(crate) fn allot_tablet(&mut self) -> TabletId {
        self.last_tablet.0 += 1;
        self.last_tablet
    }

    fn drop_table(&mut self, name: &str) -> Result<Changed, Refusal> {
        let schema = self.table(name).cloned().ok_or_else(|| Refusal::NoSuchTable(name.to_owned()))?;
        settings::check_droppable(&schema)?;
        let gone = self.remove_table(schema.table);
        Ok(Changed::Dropped(schema, gone))
    }

    /// Takes a table out with its tablets, and gives those and who kept them.
    pub(crate) fn remove_table(&mut self, table: TableId) -> Vec<(TabletId, Vec<NodeId>)> {
        self.tables.remove(&table);
        let gone: Vec<(TabletId, Vec<NodeId>)> = self
            .groups
            .values()
            .filter(|group| group.tablet.table == table)
            .map(|group| (group.tablet.id, group.configuration.members().chain(group.learner).collect()))
            .collect();
        gone.iter().for_each(|(tablet, _)| {
            self.groups.remove(tablet);
            self.splits.remove(tablet);
            self.merges.remove(tablet);
        });
        self.ended.retain(|_, ended| ended.table != table);
        gone
    }

    /// The tablets of a table.
    pub(crate) fn tablets_of(&self, table: TableId) -> Vec<TabletId> {
        let tablets = self.groups.values().filter(|group| group.tablet.table == table);
        tablets.map(|group| group.tablet.id).collect()
    }

    fn alter_table(
        &mut self,
        name: &str,
        set: Vec<(String, Retention)>,
        drop: &[String],
        storage: StorageChange,
        settings: SettingsChange,
    ) -> Result<Changed, Refusal> {
        let mut schema = self.table(name).cloned().ok_or_else(|| Refusal::NoSuchTable(name.to_owned()))?;
        if let Some(missing) = drop.iter().find(|family| schema.family(family).is_none()) {
            return Err(Refusal::NoSuchFamily { family: missing.clone(), have: schema.family_names() });
        }
        if !drop.is_empty() && settings.protected != Some(false) {
            settings::check_droppable(&schema)?;
        }
        let before = schema.next_family.0;
        schema.families.retain(|family| !drop.contains(&family.name));
        set_families(&mut schema, set);
        if schema.families.len() > limits::FAMILIES {
            let most = limits::FAMILIES;
            return Err(Refusal::Invalid(format!(
                "a table has at most {most} families, not {}",
                schema.families.len()
            )));
        }
        localities::change(&mut schema, storage)?;
        settings::change(&mut schema, settings, before)?;
        Ok(self.put_schema(schema))
    }

    /// Another version of a table's schema is in force.
    pub(crate) fn put_schema(&mut self, schema: Schema) -> Changed {
        let schema = Schema { version: schema.version + 1, ..schema };
        let tablets = self.tablets_of(schema.table);
        self.tables.insert(schema.table, schema.clone());
        Changed::Table(schema, tablets)
    }

    fn configure(&mut self, tablet: TabletId, configuration: Configuration, by: NodeId) -> Result<Changed, Refusal> {
        let known = configuration.members().all(|node| self.nodes.contains_key(&node)) && !self.is_sealed(tablet);
        let group = self.groups.get_mut(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        let mut concerned: BTreeSet<NodeId> = [by].into();
        // A new primary is always a member of the configuration before (PacificA, 2.4).
        let follows = (configuration.epoch == group.configuration.epoch.next() || self.planted.has(Mutant::AnyEpoch))
            && group.configuration.has(configuration.primary)
            && known;
        if follows {
            concerned.extend(group.configuration.members());
            concerned.extend(configuration.members());
            concerned.extend(group.learner);
            group.learner = group.learner.filter(|&learner| !configuration.has(learner));
            group.leaving = group.leaving.filter(|&leaving| configuration.has(leaving));
            group.configuration = configuration;
        }
        Ok(Changed::Group(tablet, concerned))
    }

    fn learn(&mut self, tablet: TabletId, epoch: Epoch, learner: Option<NodeId>) -> Result<Changed, Refusal> {
        let known = learner.is_none_or(|node| self.nodes.contains_key(&node)) && !self.is_sealed(tablet);
        let group = self.groups.get_mut(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        let member = learner.is_some_and(|node| group.configuration.has(node));
        if group.configuration.epoch != epoch || member || !known {
            return Ok(Changed::Nothing);
        }
        let before = core::mem::replace(&mut group.learner, learner);
        group.leaving = None;
        if before.is_some() && !self.planted.has(Mutant::SilentLearnerChange) {
            // What the former learner acknowledged, or its primary proposed for it, must not count any more should it
            // be chosen again with an empty disk: a new epoch ends all that (found by `sim`, group seed 544).
            group.configuration = group.configuration.next();
        }
        let concerned = group.configuration.members().chain(before).chain(learner).collect();
        Ok(Changed::Group(tablet, concerned))
    }
}

/// What operators and the balance of the cluster want.
impl State {
    fn drain(&mut self, node: NodeId, drain: bool) -> Result<Changed, Refusal> {
        let known = self.nodes.get_mut(&node).ok_or_else(|| unknown_node(node))?;
        known.draining = drain;
        Ok(Changed::Planned(match drain {
            true => format!("{node} is being emptied, and gets no new replicas"),
            false => format!("{node} may get replicas again"),
        }))
    }

    fn remove_node(&mut self, node: NodeId) -> Result<Changed, Refusal> {
        let keeps = |group: &&Group| group.configuration.has(node) || group.learner == Some(node);
        let kept = self.groups.values().filter(keeps).count();
        if kept > 0 {
            return Err(Refusal::Invalid(format!(
                "node {node} still keeps {kept} tablets; empty it first: `diptych node drain {node}`"
            )));
        }
        self.nodes.remove(&node).ok_or_else(|| unknown_node(node))?;
        self.removed.insert(node);
        // Nobody waits for it to say that nothing is left of a tablet there.
        self.ended.retain(|_, ended| {
            ended.nodes.remove(&node);
            !ended.nodes.is_empty()
        });
        Ok(Changed::Planned(format!("{node} is removed; its id will not be used again")))
    }

    fn move_tablet(&mut self, tablet: TabletId, epoch: Epoch, from: NodeId, to: NodeId) -> Result<Changed, Refusal> {
        let known = self.nodes.contains_key(&to) && !self.is_joining(tablet);
        let group = self.groups.get_mut(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        let free = group.learner.is_none() && group.leaving.is_none() && group.configuration.epoch == epoch;
        if !free || !known || !group.configuration.has(from) || group.configuration.has(to) {
            return Err(Refusal::NotReady(tablet));
        }
        group.learner = Some(to);
        group.leaving = Some(from);
        let concerned = group.configuration.members().chain([to]).collect();
        Ok(Changed::Group(tablet, concerned))
    }

    fn recover(&mut self, tablet: TabletId, epoch: Epoch, from: NodeId, empty: bool) -> Result<Changed, Refusal> {
        if !self.nodes.contains_key(&from) {
            return Err(unknown_node(from));
        }
        if self.is_sealed(tablet) {
            let why = "is about to become part of the one before it; recover that one first";
            return Err(Refusal::Invalid(format!("tablet {tablet} {why}")));
        }
        let group = self.groups.get_mut(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        if group.configuration.epoch != epoch {
            return Err(Refusal::NotReady(tablet));
        }
        let concerned = group.configuration.members().chain(group.learner).chain([from]).collect();
        group.configuration = Configuration { epoch: epoch.next(), primary: from, secondaries: Vec::new() };
        group.lineage.chosen = epoch.next();
        if empty {
            group.lineage.founded = epoch.next();
        }
        (group.learner, group.leaving) = (None, None);
        Ok(Changed::Group(tablet, concerned))
    }
}

fn unknown_node(node: NodeId) -> Refusal {
    Refusal::Invalid(format!("there is no node {node}; `diptych node list` shows those there are"))
}

/// Adds families, or gives those that exist new rules.
fn set_families(schema: &mut Schema, families: Vec<(String, Retention)>) {
    for (name, retention) in families {
        match schema.families.iter_mut().find(|family| family.name == name) {
            Some(family) => {
                family.loosened |= family.retention != retention && family.retention != Retention::Keep;
                family.retention = retention;
            }
            None => {
                schema.families.push(Family {
                    id: schema.next_family,
                    name,
                    retention,
                    loosened: false,
                    locality: model::LocalityId(0),
                    aggregate: None,
                });
                schema.next_family.0 += 1;
            }
        }
    }
}
