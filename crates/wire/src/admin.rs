//! Tables and the cluster: protobuf ↔ the model's words.
//!
//! A table stands once in a message and its tablets name it by id; in the model every assignment has its schema.

use std::collections::BTreeMap;
use std::time::Duration;

use model::request::{
    ClusterMap, ClusterStatus, Losses, MasterStatus, NewTable, NodeStatus, ReplicaReport, Role, ScrubReport,
    TabletStatus,
};
use model::{
    AdminReply, AdminRequest, Assignment, ClusterId, Configuration, Epoch, Family, FamilyId, Incarnation, Lineage,
    LocalityId, Lsn, NodeId, Partition, Retention, Schema, SettingsChange, Slice, Split, StorageChange, TableId,
    Tablet, TabletId, Timestamp, limits,
};

use crate::convert::{Invalid, missing};
use crate::v1::{self, assignment, partition, retention};
use crate::{settings, storage};

impl TryFrom<v1::CreateTableRequest> for AdminRequest {
    type Error = Invalid;

    fn try_from(message: v1::CreateTableRequest) -> Result<AdminRequest, Invalid> {
        limits::check_table_name(short(&message.name)?).map_err(Invalid)?;
        if message.families.is_empty() {
            return Err(Invalid(String::from("a table needs at least one family")));
        }
        let partition = Partition::try_from(message.partition.ok_or_else(|| missing("partition"))?)?;
        check_partition(&partition)?;
        Ok(AdminRequest::CreateTable(NewTable {
            name: message.name,
            families: families(message.families)?,
            partition,
            replicas: message.replicas.map(|count| small(count, "replicas")).transpose()?,
            min_replicas: message.min_replicas.map(|count| small(count, "min_replicas")).transpose()?,
            storage: storage::change_from_proto(message.storage)?,
            settings: settings::change_from_proto(message.settings)?,
        }))
    }
}

impl From<NewTable> for v1::CreateTableRequest {
    fn from(table: NewTable) -> v1::CreateTableRequest {
        v1::CreateTableRequest {
            name: table.name,
            families: table.families.into_iter().map(new_family).collect(),
            partition: Some(table.partition.into()),
            replicas: table.replicas.map(u32::from),
            min_replicas: table.min_replicas.map(u32::from),
            storage: storage::change_to_proto(table.storage),
            settings: settings::change_to_proto(table.settings),
        }
    }
}

impl From<v1::DropTableRequest> for AdminRequest {
    fn from(message: v1::DropTableRequest) -> AdminRequest {
        AdminRequest::DropTable(message.table)
    }
}

impl TryFrom<v1::AddMasterRequest> for AdminRequest {
    type Error = Invalid;

    fn try_from(message: v1::AddMasterRequest) -> Result<AdminRequest, Invalid> {
        let address = short(&message.address)?;
        let port =
            address.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|_| !host.is_empty()));
        if message.master == 0 || port.is_none() {
            return Err(Invalid(format!("a master has an id from 1 and an address as host:port, not {address:?}")));
        }
        Ok(AdminRequest::AddMaster { id: message.master, address: message.address })
    }
}

impl From<v1::SplitTabletRequest> for AdminRequest {
    fn from(message: v1::SplitTabletRequest) -> AdminRequest {
        AdminRequest::SplitTablet { tablet: TabletId(message.tablet), at: message.at }
    }
}

impl From<Split> for v1::SplitTabletResponse {
    fn from(split: Split) -> v1::SplitTabletResponse {
        let Split { left, right, at, configuration } = split;
        let configuration = Some(configuration_to_proto(configuration));
        v1::SplitTabletResponse { left: left.0, right: right.0, at, configuration }
    }
}

impl TryFrom<v1::SplitTabletResponse> for Split {
    type Error = Invalid;

    fn try_from(message: v1::SplitTabletResponse) -> Result<Split, Invalid> {
        let configuration = message.configuration.ok_or_else(|| missing("configuration of a tablet"))?;
        Ok(Split {
            left: TabletId(message.left),
            right: TabletId(message.right),
            at: message.at,
            configuration: configuration_from_proto(configuration),
        })
    }
}

impl TryFrom<v1::AlterTableRequest> for AdminRequest {
    type Error = Invalid;

    fn try_from(message: v1::AlterTableRequest) -> Result<AdminRequest, Invalid> {
        let storage = storage::change_from_proto(message.storage)?;
        let settings = settings::change_from_proto(message.settings)?;
        if message.set.is_empty() && message.drop.is_empty() && storage.is_empty() && settings.is_empty() {
            let what = "nothing to alter: name a family or a locality group to set or to drop, or a setting";
            return Err(Invalid(String::from(what)));
        }
        let set = families(message.set)?;
        Ok(AdminRequest::AlterTable { table: message.table, set, drop: message.drop, storage, settings })
    }
}

/// Builds the message that alters a table.
pub fn alter_request(
    table: String,
    set: Vec<(String, Retention)>,
    drop: Vec<String>,
    storage: StorageChange,
    settings: SettingsChange,
) -> v1::AlterTableRequest {
    let (storage, settings) = (storage::change_to_proto(storage), settings::change_to_proto(settings));
    v1::AlterTableRequest { table, set: set.into_iter().map(new_family).collect(), drop, storage, settings }
}

fn families(messages: Vec<v1::NewFamily>) -> Result<Vec<(String, Retention)>, Invalid> {
    if messages.len() > limits::FAMILIES {
        return Err(Invalid(format!("{} families; the limit is {}", messages.len(), limits::FAMILIES)));
    }
    let family = |message: v1::NewFamily| {
        limits::check_family_name(short(&message.name)?).map_err(Invalid)?;
        Ok((message.name, retention_from_proto(message.retention)?))
    };
    messages.into_iter().map(family).collect()
}

fn new_family((name, retention): (String, Retention)) -> v1::NewFamily {
    v1::NewFamily { name, retention: retention_to_proto(retention) }
}

/// A name that may be quoted in a message.
fn short(name: &str) -> Result<&str, Invalid> {
    if name.len() > 256 { Err(Invalid(format!("a name of {} bytes", name.len()))) } else { Ok(name) }
}

fn small(count: u32, what: &str) -> Result<u8, Invalid> {
    u8::try_from(count).map_err(|_| Invalid(format!("{what} is {count}; the limit is 255")))
}

fn check_partition(partition: &Partition) -> Result<(), Invalid> {
    let tablets = match partition {
        Partition::Hash { tablets } => *tablets as usize,
        Partition::Range { splits } => {
            if splits.first().is_some_and(|split| split.is_empty()) || !splits.is_sorted_by(|a, b| a < b) {
                return Err(Invalid(String::from(
                    "splits are not ascending; give each once, in key order, none empty",
                )));
            }
            if let Some(long) = splits.iter().find(|split| split.len() > limits::ROW_KEY) {
                return Err(Invalid(format!("a split of {} bytes; the limit is {}", long.len(), limits::ROW_KEY)));
            }
            splits.len() + 1
        }
    };
    match tablets {
        1..=limits::TABLETS => Ok(()),
        _ => Err(Invalid(format!("{tablets} tablets; a new table has 1 to {}", limits::TABLETS))),
    }
}

impl From<Partition> for v1::Partition {
    fn from(partition: Partition) -> v1::Partition {
        let kind = match partition {
            Partition::Hash { tablets } => partition::Kind::Hash(partition::Hash { tablets }),
            Partition::Range { splits } => partition::Kind::Range(partition::Range { splits }),
        };
        v1::Partition { kind: Some(kind) }
    }
}

impl TryFrom<v1::Partition> for Partition {
    type Error = Invalid;

    fn try_from(message: v1::Partition) -> Result<Partition, Invalid> {
        match message.kind.ok_or_else(|| missing("kind of partition"))? {
            partition::Kind::Hash(hash) => Ok(Partition::Hash { tablets: hash.tablets }),
            partition::Kind::Range(range) => Ok(Partition::Range { splits: range.splits }),
        }
    }
}

/// `None` keeps everything.
fn retention_to_proto(retention: Retention) -> Option<v1::Retention> {
    let rules = |rules: Vec<Retention>| retention::Rules {
        rules: rules.into_iter().map(|rule| retention_to_proto(rule).unwrap_or_default()).collect(),
    };
    let rule = match retention {
        Retention::Keep => return None,
        Retention::Versions(most) => retention::Rule::Versions(most),
        Retention::Age(age) => retention::Rule::Age(prost_types::Duration {
            seconds: i64::try_from(age.as_secs()).unwrap_or(i64::MAX),
            nanos: age.subsec_nanos() as i32,
        }),
        Retention::Any(any) => retention::Rule::Any(rules(any)),
        Retention::All(all) => retention::Rule::All(rules(all)),
    };
    Some(v1::Retention { rule: Some(rule) })
}

/// Recursion is bounded by the decoder's, 100 messages deep.
fn retention_from_proto(message: Option<v1::Retention>) -> Result<Retention, Invalid> {
    let rules = |rules: retention::Rules| {
        rules.rules.into_iter().map(|rule| retention_from_proto(Some(rule))).collect::<Result<Vec<_>, _>>()
    };
    Ok(match message.and_then(|message| message.rule) {
        None => Retention::Keep,
        Some(retention::Rule::Versions(0)) => {
            return Err(Invalid(String::from("a family keeps at least one version")));
        }
        Some(retention::Rule::Versions(most)) => Retention::Versions(most),
        Some(retention::Rule::Age(age)) => match Duration::try_from(age) {
            Ok(age) if !age.is_zero() => Retention::Age(age),
            _ => return Err(Invalid(String::from("an age must be more than nothing"))),
        },
        Some(retention::Rule::Any(any)) => Retention::Any(rules(any)?),
        Some(retention::Rule::All(all)) => Retention::All(rules(all)?),
    })
}

impl From<Schema> for v1::Table {
    fn from(schema: Schema) -> v1::Table {
        v1::Table {
            id: schema.table.0,
            name: schema.name,
            version: schema.version,
            families: schema.families.into_iter().map(family_to_proto).collect(),
            next_family: schema.next_family.0,
            partition: Some(schema.partition.into()),
            replicas: schema.replicas.into(),
            min_replicas: schema.min_replicas.into(),
            storage: Some(schema.storage.into()),
            settings: Some(settings::to_proto(schema.settings)),
        }
    }
}

impl TryFrom<v1::Table> for Schema {
    type Error = Invalid;

    fn try_from(message: v1::Table) -> Result<Schema, Invalid> {
        Ok(Schema {
            table: TableId(message.id),
            name: message.name,
            version: message.version,
            families: message.families.into_iter().map(family_from_proto).collect::<Result<_, _>>()?,
            next_family: FamilyId(message.next_family),
            partition: message.partition.ok_or_else(|| missing("partition"))?.try_into()?,
            replicas: small(message.replicas, "replicas")?,
            min_replicas: small(message.min_replicas, "min_replicas")?,
            storage: message.storage.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            settings: message.settings.map(settings::from_proto).transpose()?.unwrap_or_default(),
        })
    }
}

pub(crate) fn family_to_proto(family: Family) -> v1::Family {
    v1::Family {
        id: family.id.0,
        name: family.name,
        retention: retention_to_proto(family.retention),
        locality: family.locality.0,
        aggregate: settings::aggregate_to_proto(family.aggregate),
    }
}

pub(crate) fn family_from_proto(family: v1::Family) -> Result<Family, Invalid> {
    let (aggregate, locality) = (settings::aggregate_from_proto(family.aggregate)?, LocalityId(family.locality));
    let retention = retention_from_proto(family.retention)?;
    // What was loosened only nodes and masters care for, who have it otherwise.
    Ok(Family { id: FamilyId(family.id), name: family.name, retention, loosened: false, locality, aggregate })
}

/// The tables of a map, each once in its newest version, by name.
pub fn tables(map: &ClusterMap) -> Vec<Schema> {
    let mut tables: Vec<Schema> = schemas(map.tablets.iter()).into_values().cloned().collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    tables
}

fn schemas<'a>(tablets: impl Iterator<Item = &'a Assignment>) -> BTreeMap<TableId, &'a Schema> {
    let mut schemas: BTreeMap<TableId, &Schema> = BTreeMap::new();
    for Assignment { tablet, schema, .. } in tablets {
        let known = schemas.entry(tablet.table).or_insert(schema);
        if known.version < schema.version {
            *known = schema;
        }
    }
    schemas
}

fn tables_to_proto<'a>(tablets: impl Iterator<Item = &'a Assignment>) -> Vec<v1::Table> {
    schemas(tablets).into_values().map(|schema| schema.clone().into()).collect()
}

fn tables_from_proto(tables: Vec<v1::Table>) -> Result<BTreeMap<TableId, Schema>, Invalid> {
    tables.into_iter().map(|table| Ok((TableId(table.id), table.try_into()?))).collect()
}

impl From<ClusterMap> for v1::ClusterMap {
    fn from(map: ClusterMap) -> v1::ClusterMap {
        v1::ClusterMap {
            version: map.version,
            old: map.old,
            documents: map.documents,
            tables: tables_to_proto(map.tablets.iter()),
            nodes: map.nodes.into_iter().map(|(node, address)| v1::NodeAddress { node: node.0, address }).collect(),
            tablets: map.tablets.into_iter().map(assignment_to_proto).collect(),
        }
    }
}

impl TryFrom<v1::ClusterMap> for ClusterMap {
    type Error = Invalid;

    fn try_from(message: v1::ClusterMap) -> Result<ClusterMap, Invalid> {
        let tables = tables_from_proto(message.tables)?;
        Ok(ClusterMap {
            version: message.version,
            old: message.old,
            documents: message.documents,
            nodes: message.nodes.into_iter().map(|node| (NodeId(node.node), node.address)).collect(),
            tablets: message
                .tablets
                .into_iter()
                .map(|tablet| assignment_from_proto(tablet, &tables))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn assignment_to_proto(assignment: Assignment) -> v1::Assignment {
    let Assignment { tablet, configuration, learner, .. } = assignment;
    v1::Assignment {
        tablet: tablet.id.0,
        table: tablet.table.0,
        slice: Some(match tablet.slice {
            Slice::Hash { bucket, of } => assignment::Slice::Hash(assignment::HashSlice { bucket, of }),
            Slice::Rows { start, end } => assignment::Slice::Rows(assignment::RowSlice { start, end }),
        }),
        configuration: Some(configuration_to_proto(configuration)),
        learner: learner.map(|node| node.0),
    }
}

fn configuration_to_proto(configuration: Configuration) -> v1::Configuration {
    v1::Configuration {
        epoch: configuration.epoch.0,
        primary: configuration.primary.0,
        secondaries: configuration.secondaries.into_iter().map(|node| node.0).collect(),
    }
}

fn configuration_from_proto(configuration: v1::Configuration) -> Configuration {
    Configuration {
        epoch: Epoch(configuration.epoch),
        primary: NodeId(configuration.primary),
        secondaries: configuration.secondaries.into_iter().map(NodeId).collect(),
    }
}

fn assignment_from_proto(message: v1::Assignment, tables: &BTreeMap<TableId, Schema>) -> Result<Assignment, Invalid> {
    let table = TableId(message.table);
    let schema = tables.get(&table).ok_or_else(|| missing("table of a tablet"))?.clone();
    let slice = match message.slice.ok_or_else(|| missing("slice of a tablet"))? {
        assignment::Slice::Hash(hash) => Slice::Hash { bucket: hash.bucket, of: hash.of },
        assignment::Slice::Rows(rows) => Slice::Rows { start: rows.start, end: rows.end },
    };
    let configuration = message.configuration.ok_or_else(|| missing("configuration of a tablet"))?;
    Ok(Assignment {
        tablet: Tablet { id: TabletId(message.tablet), table, slice },
        schema,
        configuration: configuration_from_proto(configuration),
        learner: message.learner.map(NodeId),
        // A client has no use for it.
        lineage: Lineage::default(),
    })
}

impl From<ClusterStatus> for v1::ClusterStatus {
    fn from(status: ClusterStatus) -> v1::ClusterStatus {
        let node = |node: NodeStatus| v1::NodeStatus {
            node: node.node.0,
            address: node.address,
            alive: node.alive,
            incarnation: node.incarnation.0,
            heard_ms_ago: node.heard_ms_ago,
            disk_full: node.disk_full,
            draining: node.draining,
            scrub: Some(v1::ScrubReport {
                percent: node.scrub.percent.into(),
                completed_us: node.scrub.completed.map(|date| date.0),
                damage: node.scrub.damage,
            }),
        };
        let tablet = |tablet: TabletStatus| v1::TabletStatus {
            assignment: Some(assignment_to_proto(tablet.assignment)),
            replicas: tablet.replicas.into_iter().map(replica_to_proto).collect(),
        };
        v1::ClusterStatus {
            cluster: status.cluster.to_string(),
            nodes: status.nodes.into_iter().map(node).collect(),
            tables: tables_to_proto(status.tablets.iter().map(|tablet| &tablet.assignment)),
            tablets: status.tablets.into_iter().map(tablet).collect(),
            masters: masters_to_proto(status.masters),
        }
    }
}

/// Builds the messages of masters.
pub fn masters_to_proto(masters: Vec<MasterStatus>) -> Vec<v1::MasterStatus> {
    let master = |master: MasterStatus| v1::MasterStatus {
        master: master.id,
        address: master.address,
        leads: master.leads,
        learns: master.learns,
        heard_ms_ago: master.heard_ms_ago,
        behind: master.behind,
    };
    masters.into_iter().map(master).collect()
}

/// Reads what [`masters_to_proto`] builds.
pub fn masters_from_proto(masters: Vec<v1::MasterStatus>) -> Vec<MasterStatus> {
    let master = |master: v1::MasterStatus| MasterStatus {
        id: master.master,
        address: master.address,
        leads: master.leads,
        learns: master.learns,
        heard_ms_ago: master.heard_ms_ago,
        behind: master.behind,
    };
    masters.into_iter().map(master).collect()
}

impl TryFrom<v1::ClusterStatus> for ClusterStatus {
    type Error = Invalid;

    fn try_from(message: v1::ClusterStatus) -> Result<ClusterStatus, Invalid> {
        let tables = tables_from_proto(message.tables)?;
        let node = |node: v1::NodeStatus| NodeStatus {
            node: NodeId(node.node),
            address: node.address,
            alive: node.alive,
            incarnation: Incarnation(node.incarnation),
            heard_ms_ago: node.heard_ms_ago,
            disk_full: node.disk_full,
            draining: node.draining,
            scrub: node.scrub.map(scrub_from_proto).unwrap_or_default(),
        };
        let tablet = |tablet: v1::TabletStatus| {
            let assignment = tablet.assignment.ok_or_else(|| missing("assignment of a tablet"))?;
            Ok(TabletStatus {
                assignment: assignment_from_proto(assignment, &tables)?,
                replicas: tablet.replicas.into_iter().map(replica_from_proto).collect::<Result<_, _>>()?,
            })
        };
        Ok(ClusterStatus {
            cluster: u64::from_str_radix(&message.cluster, 16)
                .map(ClusterId)
                .map_err(|_| Invalid(String::from("the cluster's id is not hexadecimal")))?,
            nodes: message.nodes.into_iter().map(node).collect(),
            tablets: message.tablets.into_iter().map(tablet).collect::<Result<_, _>>()?,
            masters: masters_from_proto(message.masters),
        })
    }
}

fn scrub_from_proto(scrub: v1::ScrubReport) -> ScrubReport {
    ScrubReport {
        percent: u8::try_from(scrub.percent).unwrap_or(100),
        completed: scrub.completed_us.map(Timestamp),
        damage: scrub.damage,
    }
}

impl TryFrom<v1::OperateRequest> for AdminRequest {
    type Error = Invalid;

    fn try_from(message: v1::OperateRequest) -> Result<AdminRequest, Invalid> {
        use v1::operate_request::What;
        Ok(match message.what.ok_or_else(|| missing("what to do"))? {
            What::Drain(drain) => AdminRequest::DrainNode { node: NodeId(drain.node), drain: drain.drain },
            What::RemoveNode(node) => AdminRequest::RemoveNode(NodeId(node)),
            What::Move(moved) => AdminRequest::MoveTablet {
                tablet: TabletId(moved.tablet),
                from: NodeId(moved.from),
                to: NodeId(moved.to),
            },
            What::Transfer(transfer) => {
                AdminRequest::Transfer { tablet: TabletId(transfer.tablet), to: NodeId(transfer.to) }
            }
            What::Losses(tablet) => AdminRequest::Losses(TabletId(tablet)),
            What::Merge(tablet) => AdminRequest::MergeTablet(TabletId(tablet)),
            What::Recover(recover) => AdminRequest::Recover {
                tablet: TabletId(recover.tablet),
                epoch: Epoch(recover.epoch),
                from: NodeId(recover.from),
                empty: recover.empty,
            },
            What::CheckTablet(tablet) => AdminRequest::CheckTablet(TabletId(tablet)),
            What::ScrubNode(node) => AdminRequest::ScrubNode(NodeId(node)),
        })
    }
}

/// Builds the message that says what an operator wants; `None` of a request that has a message of its own.
pub fn operate_request(request: &AdminRequest) -> Option<v1::OperateRequest> {
    use v1::operate_request::{Drain, Move, Recover, Transfer, What};
    let what = match *request {
        AdminRequest::DrainNode { node, drain } => What::Drain(Drain { node: node.0, drain }),
        AdminRequest::RemoveNode(node) => What::RemoveNode(node.0),
        AdminRequest::MoveTablet { tablet, from, to } => What::Move(Move { tablet: tablet.0, from: from.0, to: to.0 }),
        AdminRequest::Transfer { tablet, to } => What::Transfer(Transfer { tablet: tablet.0, to: to.0 }),
        AdminRequest::Losses(tablet) => What::Losses(tablet.0),
        AdminRequest::CheckTablet(tablet) => What::CheckTablet(tablet.0),
        AdminRequest::ScrubNode(node) => What::ScrubNode(node.0),
        AdminRequest::MergeTablet(tablet) => What::Merge(tablet.0),
        AdminRequest::Recover { tablet, epoch, from, empty } => {
            What::Recover(Recover { tablet: tablet.0, epoch: epoch.0, from: from.0, empty })
        }
        _ => return None,
    };
    Some(v1::OperateRequest { what: Some(what) })
}

/// Builds the answer to an operator; `None` of a reply to something else.
pub fn operate_response(reply: AdminReply) -> Option<v1::OperateResponse> {
    use v1::operate_response::{Answer, Losses as Message};
    let answer = match reply {
        AdminReply::Done(words) => Answer::Done(words),
        AdminReply::Losses(losses) => Answer::Losses(Message {
            configuration: Some(configuration_to_proto(losses.configuration)),
            alive: losses.alive.into_iter().map(|node| node.0).collect(),
            others: losses.others.into_iter().map(replica_to_proto).collect(),
        }),
        _ => return None,
    };
    Some(v1::OperateResponse { answer: Some(answer) })
}

impl TryFrom<v1::OperateResponse> for AdminReply {
    type Error = Invalid;

    fn try_from(message: v1::OperateResponse) -> Result<AdminReply, Invalid> {
        use v1::operate_response::Answer;
        Ok(match message.answer.ok_or_else(|| missing("answer"))? {
            Answer::Done(words) => AdminReply::Done(words),
            Answer::Losses(losses) => AdminReply::Losses(Losses {
                configuration: configuration_from_proto(losses.configuration.ok_or_else(|| missing("configuration"))?),
                alive: losses.alive.into_iter().map(NodeId).collect(),
                others: losses.others.into_iter().map(replica_from_proto).collect::<Result<_, _>>()?,
            }),
        })
    }
}

fn replica_to_proto((node, report): (NodeId, ReplicaReport)) -> v1::tablet_status::Replica {
    v1::tablet_status::Replica {
        node: node.0,
        tablet: report.tablet.0,
        epoch: report.epoch.0,
        schema: report.schema,
        learner: report.learner.map(|node| node.0),
        role: match report.role {
            Role::Primary => v1::Role::Primary,
            Role::Secondary => v1::Role::Secondary,
            Role::Learner => v1::Role::Learner,
            Role::Spare => v1::Role::Spare,
        } as i32,
        durable: report.durable.0,
        committed: report.committed.0,
        steady: report.steady,
        bytes: report.bytes,
        load: report.load,
        damaged: report.damaged.clone(),
        stalled: report.stalled,
    }
}

fn replica_from_proto(message: v1::tablet_status::Replica) -> Result<(NodeId, ReplicaReport), Invalid> {
    let role = match message.role() {
        v1::Role::Primary => Role::Primary,
        v1::Role::Secondary => Role::Secondary,
        v1::Role::Learner => Role::Learner,
        v1::Role::Spare => Role::Spare,
        v1::Role::Unspecified => return Err(missing("role of a replica")),
    };
    let report = ReplicaReport {
        tablet: TabletId(message.tablet),
        epoch: Epoch(message.epoch),
        schema: message.schema,
        learner: message.learner.map(NodeId),
        role,
        durable: Lsn(message.durable),
        committed: Lsn(message.committed),
        steady: message.steady,
        bytes: message.bytes,
        load: message.load,
        damaged: message.damaged,
        stalled: message.stalled,
    };
    Ok((NodeId(message.node), report))
}
