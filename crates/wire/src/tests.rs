//! What goes over the wire comes out as it went in, and what nobody may send is refused by name.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use model::request::{ClusterMap, ClusterStatus, NewTable, NodeStatus, ReplicaReport, Role, TabletStatus};
use model::{
    AdminRequest, Assignment, Cell, Change, ClientId, ClusterId, ColumnFilter, Compaction, Compression, Condition,
    Configuration, Document, DocumentChange, Documents, Epoch, Family, FamilyId, Filter, Fingerprint, Granularity,
    Incarnation, LocalityGroup, LocalityId, Lsn, Mutation, NodeId, Operation, Outcome, Partition, ReadOptions, Refusal,
    Reply, RequestId, Retention, Row, RowChanges, RowRange, Schema, Settings, SettingsChange, Storage, StorageChange,
    TableId, Tablet, TabletId, Timestamp, limits,
};
use proptest::prelude::*;
use prost::Message;

use crate::{Answer, Call, Invalid, NamedRow, Route, Scan, Written, convert, v1};

/// Through protobuf bytes.
fn sent<M: Message + Default + PartialEq + Debug>(message: M) -> M {
    M::decode(&message.encode_to_vec()[..]).unwrap()
}

fn route() -> Route {
    Route { tablet: TabletId(7), epoch: Epoch(3) }
}

fn request_id() -> RequestId {
    RequestId { client: ClientId(u64::MAX), sequence: 9, first_incomplete: 4 }
}

fn mutation() -> Mutation<String> {
    let (family, qualifier) = (|| String::from("f"), Bytes::from_static(b"\xff\0"));
    Mutation {
        row: Bytes::from_static(b"LAX"),
        condition: Some(Condition::Newest {
            family: family(),
            qualifier: qualifier.clone(),
            expect: Some(Bytes::new()),
        }),
        changes: vec![
            Change::DeleteRow,
            Change::Put {
                family: family(),
                qualifier: qualifier.clone(),
                timestamp: Timestamp::SERVER,
                value: Bytes::new(),
            },
            Change::Put {
                family: family(),
                qualifier: qualifier.clone(),
                timestamp: Timestamp(0),
                value: vec![1; 9].into(),
            },
            Change::DeleteCell { family: family(), qualifier: qualifier.clone(), timestamp: Timestamp(5) },
            Change::DeleteColumn { family: family(), qualifier },
            Change::DeleteFamily { family: family() },
        ],
    }
}

fn options() -> ReadOptions<String> {
    let column = |qualifier| ColumnFilter { family: String::from("f"), qualifier };
    ReadOptions {
        columns: vec![column(None), column(Some(Bytes::new()))],
        versions: 3,
        consistency: model::Consistency::Eventual { max_lag: Some(std::time::Duration::from_millis(5)) },
        since: Some(Timestamp(0)),
        before: Some(Timestamp(7)),
    }
}

fn storage() -> Storage {
    let cold = LocalityGroup {
        id: LocalityId(1),
        name: "cold".into(),
        in_memory: true,
        compression: Compression::Zstd,
        block_bytes: 1 << 16,
        filter: Filter::Columns,
    };
    let localities = vec![LocalityGroup::default(), cold];
    Storage { compaction: Compaction::Leveled, localities, next_locality: LocalityId(2) }
}

fn schema() -> Schema {
    let family = |id, name: &str, retention| Family {
        id: FamilyId(id),
        name: String::from(name),
        retention,
        loosened: false,
        locality: LocalityId(id / 3),
        aggregate: (id == 3).then_some(model::Aggregate::Max),
    };
    let rules = vec![Retention::Versions(3), Retention::Age(Duration::from_millis(1_500)), Retention::Keep];
    Schema {
        table: TableId(2),
        name: String::from("users"),
        version: 4,
        families: vec![
            family(1, "a", Retention::Keep),
            family(3, "b", Retention::Any(vec![Retention::All(rules), Retention::Versions(9)])),
        ],
        next_family: FamilyId(4),
        partition: Partition::Range { splits: vec![Bytes::from_static(b"m")] },
        replicas: 3,
        min_replicas: 2,
        storage: storage(),
        settings: Settings {
            granularity: Granularity::Millis,
            protected: true,
            changes: Some(family(9, "$changes", Retention::Age(Duration::from_secs(60)))),
            dropped: Some(Timestamp(5)),
        },
    }
}

fn settings() -> SettingsChange {
    SettingsChange {
        granularity: Some(Granularity::Micros),
        protected: Some(false),
        changes: Some(Duration::from_millis(1_500)),
        aggregates: vec![("b".into(), model::Aggregate::Min)],
    }
}

fn assignments() -> Vec<Assignment> {
    let slices = schema().partition.slices().into_iter().chain([model::Slice::Hash { bucket: 1, of: 2 }]);
    let assignment = |(at, slice)| Assignment {
        tablet: Tablet { id: TabletId(at), table: TableId(2), slice },
        schema: schema(),
        configuration: Configuration::first(NodeId(1), [NodeId(3), NodeId(2)]),
        learner: (at == 1).then_some(NodeId(4)),
        lineage: model::Lineage::default(),
    };
    (0..).zip(slices).map(assignment).collect()
}

#[test]
fn a_write_comes_out_as_it_went_in() {
    let message = sent(convert::mutate_request("users", Some(route()), request_id(), mutation()));
    let operation = Operation::Write { request: request_id(), mutation: mutation() };
    assert_eq!(Call::try_from(message), Ok(Call { table: "users".into(), route: Some(route()), operation }));
}

#[test]
fn a_condition_on_the_row_comes_out_as_it_went_in() {
    let condition = Condition::Unchanged {
        columns: options().columns,
        versions: 7,
        fingerprint: Fingerprint::of([("f", &b"q"[..], Timestamp(5), &b"v"[..])]),
    };
    let mutation = Mutation { condition: Some(condition), ..mutation() };
    let message = sent(convert::mutate_request("users", Some(route()), request_id(), mutation.clone()));
    let operation = Operation::Write { request: request_id(), mutation };
    assert_eq!(Call::try_from(message.clone()).map(|call| call.operation), Ok(operation));
    let mut broken = message;
    if let Some(unchanged) = broken.condition.as_mut().and_then(|condition| condition.unchanged.as_mut()) {
        unchanged.fingerprint.truncate(15);
    }
    assert!(Call::try_from(broken).is_err_and(|invalid| invalid.0.contains("15 bytes")));
}

#[test]
fn a_batch_comes_out_as_it_went_in() {
    let row = |key: &'static [u8]| RowChanges { row: Bytes::from_static(key), changes: mutation().changes };
    let rows = vec![row(b"b"), row(b"\xff"), row(b"b")];
    let message = |route: Option<Route>| v1::MutateManyRequest {
        route: route.map(Into::into),
        ..convert::mutate_many_request("users", request_id(), vec![3, 8], rows.clone())
    };
    let operation = Operation::WriteMany { request: request_id(), part_of: vec![3, 8], rows: rows.clone() };
    let call = Call { table: "users".into(), route: Some(route()), operation };
    assert_eq!(Call::try_from(sent(message(Some(route())))), Ok(call.clone()));
    let item = |route| Some(v1::pipeline_item::Operation::MutateMany(message(route)));
    assert_eq!(Call::try_from(item(Some(route()))), Ok(call));
    assert!(Call::try_from(item(None)).is_err(), "the stream has one answer for it");
    assert!(Call::try_from(message(None)).is_err(), "an id is of one tablet's request");
    let anonymous = |route: Option<Route>| v1::MutateManyRequest { request: None, part_of: vec![], ..message(route) };
    assert!(Call::try_from(anonymous(None)).is_ok() && Call::try_from(anonymous(Some(route()))).is_err());
    let large = |route| {
        let value = Bytes::from(vec![0; limits::BATCH]);
        let put = Change::Put { family: "f".into(), qualifier: Bytes::new(), timestamp: Timestamp(0), value };
        let row = RowChanges { row: Bytes::from_static(b"r"), changes: vec![put] };
        let rows = convert::mutate_many_request("users", request_id(), vec![], vec![row]).rows;
        v1::MutateManyRequest { rows, ..anonymous(route) }
    };
    assert!(Call::try_from(large(None)).is_ok(), "whoever passes it on divides it");
    let routed = v1::MutateManyRequest { request: message(None).request, ..large(Some(route())) };
    assert!(Call::try_from(routed).unwrap_err().0.contains("a larger row is written alone"));
}

#[test]
fn a_read_comes_out_as_it_went_in() {
    let row = Bytes::from_static(b"LAX");
    let message = sent(convert::get_request("users", None, row.clone(), options()));
    let operation = Operation::Get { row, options: options() };
    assert_eq!(Call::try_from(message), Ok(Call { table: "users".into(), route: None, operation }));
}

#[test]
fn a_read_of_several_rows_comes_out_as_it_went_in() {
    let rows = vec![Bytes::from_static(b"SFO"), Bytes::from_static(b"\xff"), Bytes::from_static(b"SFO")];
    let message = sent(convert::get_many_request("users", Some(route()), rows.clone(), options()));
    let operation = Operation::GetMany { rows, options: options() };
    assert_eq!(Call::try_from(message), Ok(Call { table: "users".into(), route: Some(route()), operation }));
    let many = |count| convert::get_many_request("users", None, vec![Bytes::from_static(b"a"); count], options());
    assert!(Call::try_from(many(limits::KEYS)).is_ok());
    assert!(Call::try_from(many(limits::KEYS + 1)).is_err() && Call::try_from(many(0)).is_err());
    let empty = v1::GetManyRequest { rows: vec![Bytes::new()], ..many(1) };
    assert!(Call::try_from(empty).is_err());
    let found =
        vec![(None, Some(freshness(None))), (Some(NamedRow { key: Bytes::from_static(b"a"), cells: vec![] }), None)];
    let page = sent(convert::get_many_page(found.clone()));
    let back = page.found.into_iter().map(|found| (found.row.map(NamedRow::from), found.from.map(Into::into)));
    assert_eq!(back.collect::<Vec<_>>(), found);
}

#[test]
fn a_scan_comes_out_as_it_went_in() {
    let range = |start: &'static [u8], end: Option<&'static [u8]>| RowRange {
        start: Bytes::from_static(start),
        end: end.map(Bytes::from_static),
    };
    for range in [range(b"", None), range(b"a", Some(b"b")), range(b"", Some(b""))] {
        for reverse in [false, true] {
            let (table, range, limit) = ("users".into(), range.clone(), Some(u64::MAX));
            let scan = Scan { table, route: Some(route()), range, options: options(), limit, reverse };
            assert_eq!(Scan::try_from(sent(v1::ScanRequest::from(scan.clone()))), Ok(scan));
        }
    }
}

/// A prefix and a range together mean the rows that are in both.
#[test]
fn prefix_and_range_intersect() {
    let message = v1::ScanRequest {
        table: "users".into(),
        prefix: Bytes::from_static(b"LA"),
        start: Bytes::from_static(b"LAB"),
        ..Default::default()
    };
    let scan = Scan::try_from(message).unwrap();
    assert_eq!(scan.range, RowRange { start: Bytes::from_static(b"LAB"), end: Some(Bytes::from_static(b"LB")) });
    assert_eq!((scan.limit, scan.options.versions, scan.reverse), (None, 1, false));
    assert_eq!((scan.options.since, scan.options.before), (None, None));
}

/// RIFL 3.2: without an id a routed write could be carried out twice.
#[test]
fn a_routed_write_needs_a_request_id() {
    let anonymous = |route| v1::MutateRequest {
        request: None,
        ..convert::mutate_request("users", route, request_id(), mutation())
    };
    assert!(Call::try_from(anonymous(Some(route()))).is_err());
    assert!(Call::try_from(anonymous(None)).is_ok());
}

/// Every way in which a request can be wrong is told to whoever sent it.
#[test]
fn what_breaks_a_rule_is_invalid() {
    let good = || convert::mutate_request("users", Some(route()), request_id(), mutation());
    let bad = [
        v1::MutateRequest { table: String::new(), ..good() },
        v1::MutateRequest { table: "x".repeat(limits::TABLE_NAME + 1), ..good() },
        v1::MutateRequest { row: Bytes::new(), ..good() },
        v1::MutateRequest { row: vec![0; limits::ROW_KEY + 1].into(), ..good() },
        v1::MutateRequest { changes: vec![], ..good() },
        v1::MutateRequest { changes: vec![v1::Change { kind: None }], ..good() },
        v1::MutateRequest { request: Some(v1::RequestId { client: 1, sequence: 1, first_incomplete: 2 }), ..good() },
    ];
    for message in bad {
        assert!(Call::try_from(message).is_err());
    }
    assert!(Call::try_from(v1::GetRequest { table: "users".into(), ..Default::default() }).is_err());
    assert!(Call::try_from(None).is_err());
    assert_eq!(Refusal::from(Invalid("x".into())), Refusal::Invalid("x".into()));
}

/// A family that the schema does not have any more is not shown, nor a row that has nothing else.
#[test]
fn answers_name_families_and_leave_out_dropped_ones() {
    let cell = |family| Cell {
        family: FamilyId(family),
        qualifier: Bytes::from_static(b"q"),
        timestamp: Timestamp(1),
        value: Bytes::from_static(b"v"),
    };
    let row = |key: &'static [u8], families: &[u32]| Row {
        key: Bytes::from_static(key),
        cells: families.iter().map(|&family| cell(family)).collect(),
    };
    let rows = vec![row(b"1", &[1, 2, 3]), row(b"2", &[2])];
    let resume = Some(Bytes::from_static(b"3"));
    let answer = Answer::from(Reply::Rows { rows, resume: resume.clone(), schema: schema().into(), from: None });
    let Answer::Rows { rows, .. } = answer.clone() else { panic!("{answer:?}") };
    let families: Vec<Vec<&str>> =
        rows.iter().map(|row| row.cells.iter().map(|cell| cell.family.as_str()).collect()).collect();
    assert_eq!(families, [["a", "b"]]);
    assert_eq!(Answer::from(sent(convert::scan_page(rows, resume, None))), answer);
}

#[test]
fn answers_in_a_pipeline_come_out_as_they_went_in() {
    let row = Row {
        key: Bytes::from_static(b"1"),
        cells: vec![Cell {
            family: FamilyId(1),
            qualifier: Bytes::new(),
            timestamp: Timestamp(-1),
            value: Bytes::new(),
        }],
    };
    let cell = row.cells[0].clone();
    let answers = [
        Answer::Row(NamedRow::new(row, &schema()), None),
        Answer::Row(None, Some(freshness(Some(7)))),
        Answer::Row(None, Some(freshness(None))),
        Answer::Written(Written::from(Outcome::Applied { version: Timestamp(8) })),
        Answer::Written(Written::from(Outcome::Differs { present: Some(cell) })),
        Answer::Written(Written::Differs { present: None }),
    ];
    for answer in answers {
        let message = sent(convert::pipeline_result(4, Ok(answer.clone())));
        assert_eq!((message.id, Answer::from_outcome(message.outcome)), (4, Ok(Ok(answer))));
    }
    let message = sent(convert::pipeline_result(5, Err(Refusal::Overloaded)));
    let failure = Answer::from_outcome(message.outcome).unwrap().unwrap_err();
    assert_eq!(crate::status::from_failure(&failure).unwrap(), Refusal::Overloaded);
}

#[test]
fn a_new_table_comes_out_as_it_went_in() {
    let families = schema().families.into_iter().map(|family| (family.name, family.retention)).collect::<Vec<_>>();
    let storage = StorageChange { drop: vec!["cold".into()], ..StorageChange::default() };
    let table = NewTable {
        name: "users".into(),
        families: families.clone(),
        partition: Partition::Hash { tablets: 2 },
        replicas: Some(3),
        min_replicas: None,
        storage: storage.clone(),
        settings: settings(),
    };
    let message = sent(v1::CreateTableRequest::from(table.clone()));
    assert_eq!(AdminRequest::try_from(message), Ok(AdminRequest::CreateTable(table)));
    for (set, drop, storage, settings) in [
        (families, vec!["x".into()], storage.clone(), settings()),
        (vec![], vec![], storage, SettingsChange::default()),
        (vec![], vec![], StorageChange::default(), settings()),
    ] {
        let (table, drop) = (String::from("users"), drop);
        let message = crate::admin::alter_request(
            table.clone(),
            set.clone(),
            Vec::clone(&drop),
            storage.clone(),
            settings.clone(),
        );
        let altered = AdminRequest::AlterTable { table, set, drop, storage, settings };
        assert_eq!(AdminRequest::try_from(sent(message)), Ok(altered));
    }
    let nothing = SettingsChange::default();
    let message = crate::admin::alter_request("users".into(), vec![], vec![], StorageChange::default(), nothing);
    assert!(AdminRequest::try_from(message).is_err(), "nothing to do");
    let unknown = v1::SettingsChange { granularity: 9, ..v1::SettingsChange::default() };
    let message = v1::AlterTableRequest { settings: Some(unknown), ..v1::AlterTableRequest::default() };
    assert!(AdminRequest::try_from(message).is_err());
}

#[test]
fn documents_and_hidden_tables_come_out_as_they_went_in() {
    let keep = Duration::from_millis(90_500);
    let hide = sent(crate::settings::hide_request("users".into(), keep));
    assert_eq!(AdminRequest::try_from(hide), Ok(AdminRequest::HideTable { table: "users".into(), keep }));
    for body in [None, Some(Bytes::from_static(b"\0x"))] {
        let change = DocumentChange { name: "a/b".into(), body, expect: Some(0) };
        assert_eq!(DocumentChange::from(sent(v1::ChangeDocumentRequest::from(change.clone()))), change);
    }
    let document = Document { name: "a/b".into(), version: 9, body: Bytes::from_static(b"x") };
    let documents = Documents { version: 12, documents: vec![document] };
    assert_eq!(Documents::from(sent(v1::Documents::from(documents.clone()))), documents);
}

#[test]
fn a_split_comes_out_as_it_went_in() {
    for at in [None, Some(Bytes::from_static(b"m\xff\0"))] {
        let message = sent(v1::SplitTabletRequest { tablet: 7, at: at.clone() });
        assert_eq!(AdminRequest::from(message), AdminRequest::SplitTablet { tablet: TabletId(7), at });
    }
    let configuration = Configuration { epoch: Epoch(5), ..Configuration::first(NodeId(2), [NodeId(3), NodeId(1)]) };
    let split = model::Split { left: TabletId(8), right: TabletId(9), at: Bytes::from_static(b"\xff"), configuration };
    assert_eq!(model::Split::try_from(sent(v1::SplitTabletResponse::from(split.clone()))), Ok(split));
    assert!(model::Split::try_from(v1::SplitTabletResponse::default()).is_err(), "without a configuration");
}

#[test]
fn a_bad_table_is_invalid() {
    let split = |splits: &[&'static [u8]]| Partition::Range {
        splits: splits.iter().map(|&split| Bytes::from_static(split)).collect(),
    };
    let table = |name: &str, partition| NewTable {
        name: name.into(),
        families: vec![("f".into(), Retention::Keep)],
        partition,
        replicas: None,
        min_replicas: None,
        storage: StorageChange::default(),
        settings: model::SettingsChange::default(),
    };
    let bad = [
        table("-", split(&[])),
        table("t", split(&[b"b", b"a"])),
        table("t", split(&[b"a", b"a"])),
        table("t", split(&[b""])),
        table("t", Partition::Hash { tablets: 0 }),
        table("t", Partition::Hash { tablets: 2_000 }),
        NewTable { families: vec![], ..table("t", split(&[])) },
        NewTable { families: vec![("f".into(), Retention::Versions(0))], ..table("t", split(&[])) },
        NewTable { families: vec![("f".into(), Retention::Age(Duration::ZERO))], ..table("t", split(&[])) },
    ];
    for table in bad {
        let message = v1::CreateTableRequest::from(table.clone());
        assert!(AdminRequest::try_from(message).is_err(), "{table:?}");
    }
}

#[test]
fn the_map_comes_out_as_it_went_in() {
    let map = ClusterMap {
        version: 12,
        nodes: vec![(NodeId(1), "[::1]:99".into())],
        tablets: assignments(),
        old: true,
        documents: 7,
    };
    let message = sent(v1::ClusterMap::from(map.clone()));
    assert_eq!(message.tables.len(), 1);
    assert_eq!(ClusterMap::try_from(message), Ok(map.clone()));
    assert_eq!(crate::admin::tables(&map), [schema()]);
}

#[test]
fn the_status_comes_out_as_it_went_in() {
    let report = |role| ReplicaReport {
        tablet: TabletId(1),
        epoch: Epoch(2),
        schema: 4,
        learner: Some(NodeId(0)),
        role,
        durable: Lsn(9),
        committed: Lsn(8),
        steady: true,
        bytes: 7,
        load: 1_200,
        damaged: Some("tables/00000001.sst".into()),
        stalled: true,
    };
    let replicas = || {
        let roles = [Role::Primary, Role::Secondary, Role::Learner, Role::Spare];
        (1..).map(NodeId).zip(roles.map(report)).collect()
    };
    let node = NodeStatus {
        node: NodeId(1),
        address: "127.0.0.1:1".into(),
        alive: true,
        incarnation: Incarnation(3),
        heard_ms_ago: Some(0),
        disk_full: true,
        draining: true,
        scrub: model::request::ScrubReport { percent: 41, completed: Some(Timestamp(1_700)), damage: 2 },
    };
    let status = ClusterStatus {
        cluster: ClusterId(0xabc),
        nodes: vec![node],
        tablets: assignments()
            .into_iter()
            .map(|assignment| TabletStatus { assignment, replicas: replicas() })
            .collect(),
        masters: vec![model::request::MasterStatus {
            id: 2,
            address: "127.0.0.1:2".into(),
            leads: true,
            learns: false,
            heard_ms_ago: Some(5),
            behind: None,
        }],
    };
    assert_eq!(ClusterStatus::try_from(sent(v1::ClusterStatus::from(status.clone()))), Ok(status));
}

/// Reflection needs every file with what it imports.
#[test]
fn descriptors_are_whole() {
    let files = prost_types::FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap().file;
    let names: Vec<&str> = files.iter().map(|file| file.name()).collect();
    for file in &files {
        assert!(file.dependency.iter().all(|import| names.contains(&import.as_str())), "{names:?}");
    }
    let services: Vec<&str> = files.iter().flat_map(|file| &file.service).map(|service| service.name()).collect();
    assert!(["Kv", "Admin", "Peer"].iter().all(|service| services.contains(service)), "{services:?}");
}

proptest! {
    /// No bytes from a peer make us panic.
    #[test]
    fn any_bytes_are_an_error_or_a_request(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = v1::PipelineRequest::decode(&bytes[..]) {
            for item in message.items {
                let _ = Call::try_from(item.operation);
            }
        }
        let _ = v1::CreateTableRequest::decode(&bytes[..]).map(AdminRequest::try_from);
        let _ = v1::ClusterMap::decode(&bytes[..]).map(ClusterMap::try_from);
        let _ = v1::ClusterStatus::decode(&bytes[..]).map(ClusterStatus::try_from);
        let status = tonic::Status::with_details(tonic::Code::Internal, "x", Bytes::from(bytes));
        let _ = crate::status::from_status(&status);
    }
}

fn freshness(lag_ms: Option<u64>) -> model::Freshness {
    model::Freshness {
        node: NodeId(2),
        epoch: Epoch(3),
        applied: model::Lsn(4),
        lag: lag_ms.map(std::time::Duration::from_millis),
        behind: 5,
    }
}
