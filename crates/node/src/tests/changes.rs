//! Tables that keep their changes: what is kept, who sees it, and up to where a page is complete.

use super::splits::{LEFT, RIGHT};
use super::*;
use model::changes::{ChangesPage, ChangesQuery, Place};
use model::follow::StreamId;
use model::{Batch, Payload, RowChange, RowChanges};
use std::time::Duration;

const HEIR: TabletId = TabletId(20);
const OTHER: NodeId = NodeId(2);

/// A write that happened is kept once, with the versions that its cells got; one that did not happen, or came again, is not.
#[test]
fn what_happened_is_kept_once() {
    let mut world = World::keeping(1_000);
    let first = world.put("LAX", "info", "note", "busy").unwrap();
    let again = Operation::Write { request: request(9, 1), mutation: put("LAX", "info", "note", "busy") };
    assert_eq!(world.operate(again).unwrap(), first);
    world.cput("LAX", Some("quiet"), "1").unwrap();
    world.cput("LAX", Some("busy"), "2").unwrap();
    let gone = Mutation { row: "SFO".into(), condition: None, changes: vec![Change::DeleteRow] };
    world.write(request(5, 1), gone).unwrap();
    assert_eq!(
        world.all(),
        ["LAX 1000.0 1:note@1000=busy", "LAX 1003.0 1:note@1003=2", "SFO 1004.0 -1"],
        "a deleted row is its families' deletion, or the record would go with it"
    );
    world.restart();
    world.assign(Configuration { epoch: Epoch(2), primary: ME, secondaries: vec![] });
    assert_eq!(world.all().len(), 3);
}

/// A batch has one version: the rows are told apart, also one that comes twice, by their place in it.
#[test]
fn the_rows_of_a_batch_have_places() {
    let mut world = World::keeping(1_000);
    let rows = ["SFO", "LAX", "SFO"].map(|row| {
        let Mutation { row, changes, .. } = put(row, "info", "note", row);
        RowChanges { row, changes }
    });
    let batch = Operation::WriteMany { request: request(5, 1), part_of: vec![], rows: rows.to_vec() };
    world.operate(batch.clone()).unwrap();
    world.operate(batch).unwrap();
    let kept = ["LAX 1000.1 1:note@1000=LAX", "SFO 1000.0 1:note@1000=SFO", "SFO 1000.2 1:note@1000=SFO"];
    assert_eq!(world.all(), kept);
}

/// Nobody meets the history who reads rows, counts on them or writes them.
#[test]
fn kept_changes_are_hidden() {
    let mut world = World::keeping(1_000);
    world.put("LAX", "info", "note", "busy").unwrap();
    let row = |row: Option<model::Row>| row.map_or(0, |row| row.cells.len());
    let many = ReadOptions { versions: 99, ..ReadOptions::default() };
    let get = |options| Operation::Get { row: "LAX".into(), options };
    let Ok(Reply::Row(found, ..)) = world.operate(get(many.clone())) else { panic!() };
    assert_eq!(row(found), 1);
    let scan = Operation::Scan { range: RowRange::default(), options: many, rows: 9, reverse: true };
    let Ok(Reply::Rows { rows, .. }) = world.operate(scan) else { panic!() };
    assert_eq!(rows.iter().map(|row| row.cells.len()).collect::<Vec<_>>(), [1]);
    let named = ColumnFilter { family: model::settings::CHANGES.to_owned(), qualifier: None };
    let asked = get(ReadOptions { columns: vec![named], ..ReadOptions::default() });
    assert!(matches!(world.operate(asked), Err(Refusal::NoSuchFamily { .. })));
    let written = world.put("LAX", model::settings::CHANGES, "x", "y");
    assert!(matches!(written, Err(Refusal::NoSuchFamily { .. })));
    let cells = [("info", &b"note"[..], Timestamp(1_000), &b"busy"[..])];
    let unchanged = Condition::Unchanged { columns: vec![], versions: 1, fingerprint: Fingerprint::of(cells) };
    let write = Mutation { condition: Some(unchanged), ..put("LAX", "info", "note", "new") };
    assert!(matches!(world.write(request(5, 1), write), Ok(Reply::Written(Outcome::Applied { .. }))));
    let gone = Mutation { row: "LAX".into(), condition: None, changes: vec![Change::DeleteRow] };
    world.write(request(5, 2), gone).unwrap();
    let scan = Operation::Scan { range: RowRange::default(), options: ReadOptions::default(), rows: 9, reverse: false };
    let Ok(Reply::Rows { rows, .. }) = world.operate(scan) else { panic!() };
    assert_eq!((rows.len(), world.all().len()), (0, 3), "an empty row is none, and its history is there");
}

/// A page ends within a row if it must, and goes on there; new writes are of the next window.
#[test]
fn a_window_is_read_page_by_page() {
    let mut world = World::keeping(1_000_000_000);
    let value = "x".repeat(400 << 10);
    for row in ["a", "b", "b", "b", "b", "c"] {
        world.put(row, "info", "note", &value).unwrap();
    }
    let first = world.changes(TABLET, ChangesQuery::default()).unwrap();
    let resume = first.resume.unwrap();
    assert_eq!((&resume.row[..], first.changes.len(), first.upto), (&b"b"[..], 3, Timestamp(1_005)));
    assert_eq!(resume.after, Some(first.changes[2].at), "in the middle of a row");
    world.put("b", "info", "note", "later").unwrap();
    world.flush();
    let range = RowRange { start: resume.row, end: None };
    let next = ChangesQuery { range, after: resume.after, upto: Some(first.upto), ..ChangesQuery::default() };
    let second = world.changes(TABLET, next).unwrap();
    assert_eq!(second.changes.len() + first.changes.len(), 6);
    assert_eq!((second.resume, second.upto), (None, first.upto));
    let later = ChangesQuery { since: Some(first.upto), ..ChangesQuery::default() };
    let page = world.changes(TABLET, later).unwrap();
    assert_eq!((page.changes.len(), page.upto), (1, Timestamp(1_006)));
    let nothing = ChangesQuery { since: Some(page.upto), ..ChangesQuery::default() };
    assert_eq!(world.changes(TABLET, nothing).unwrap(), ChangesPage { upto: page.upto, ..ChangesPage::default() });
}

/// The next primary's clock is behind: what it writes is after all that anybody was told to be complete.
#[test]
fn a_new_primary_writes_after_what_was_said_to_be_complete() {
    let mut world = World::empty();
    world.keep(1_000_000_000);
    let configuration = Configuration::first(OTHER, [ME]);
    world.assign(configuration.clone());
    let rows = vec![RowChanges { row: "a".into(), changes: vec![Change::DeleteFamily { family: FamilyId(1) }] }];
    let batch = Batch { request: request(4, 1), part_of: vec![], version: Timestamp(9_000), rows };
    let payload = Bytes::from(postcard::to_allocvec(&Payload::Batch(batch)).unwrap());
    let entries = vec![protocol::Entry { lsn: Lsn(1), epoch: Epoch(1), payload }];
    let prepare = GroupMessage::Prepare { epoch: Epoch(1), committed: Lsn(1), entries };
    world.step(Input::FromNode(OTHER, NodeMessage::Group(TABLET, prepare)));
    world.assign(Configuration { epoch: Epoch(2), primary: ME, secondaries: vec![] });
    let page = world.changes(TABLET, ChangesQuery::default()).unwrap();
    assert_eq!(page.upto, Timestamp(9_000));
    let Ok(Reply::Written(Outcome::Applied { version })) = world.put("a", "info", "note", "1") else { panic!() };
    assert!(version > page.upto, "{version}");
}

/// The heirs of a split, and the heir of a merge, go on after what their parents were complete up to.
#[test]
fn heirs_write_after_what_was_said_to_be_complete() {
    let mut world = World::empty();
    world.keep(1_000_000_000);
    world.slice = Slice::Rows { start: Bytes::new(), end: None };
    world.assign(Configuration::first(ME, []));
    ["a", "b", "m", "z"].iter().for_each(|row| _ = world.put(row, "info", "note", row).unwrap());
    world.flush();
    let said = world.changes(TABLET, ChangesQuery::default()).unwrap().upto;
    world.wish(1, Some("m"));
    world.ended(LEFT);
    world.reports.clear();
    for heir in [LEFT, RIGHT] {
        let page = world.changes(heir, ChangesQuery::default()).unwrap();
        assert_eq!((page.changes.len(), page.upto), (2, said), "each has the history of its own rows");
    }
    for (row, sequence) in [("z", 1), ("y", 2)] {
        let mutation = put(row, "info", "note", "1");
        world.operate_on(RIGHT, Operation::Write { request: request(5, sequence), mutation }).unwrap();
    }
    let right = world.changes(RIGHT, ChangesQuery { since: Some(said), ..ChangesQuery::default() }).unwrap();
    assert!(right.changes.len() == 2 && right.changes.iter().all(|change| change.at.version > said));
    world.step(Input::FromMaster(FromMaster::Close { tablet: RIGHT, epoch: Epoch(2), heir: HEIR }));
    let closed = world.reports.iter().find_map(|report| match report {
        ToMaster::Closed { tablet: RIGHT, lsn, .. } => Some(*lsn),
        _ => None,
    });
    let upto = closed.unwrap();
    world.step(Input::FromMaster(FromMaster::Merge {
        tablet: LEFT,
        epoch: Epoch(2),
        right: RIGHT,
        right_epoch: Epoch(2),
        upto,
        heir: HEIR,
    }));
    let all = world.changes(HEIR, ChangesQuery::default()).unwrap();
    assert_eq!((all.changes.len(), all.upto), (6, right.upto));
    let mutation = put("a", "info", "note", "2");
    world.operate_on(HEIR, Operation::Write { request: request(5, 3), mutation }).unwrap();
    let later = world.changes(HEIR, ChangesQuery { since: Some(all.upto), ..ChangesQuery::default() }).unwrap();
    assert_eq!(later.changes.len(), 1, "its row is of the left one, which was complete up to less");
}

/// A reader that was away for too long is told so; a tablet that nobody writes says from time to time that it is complete.
#[test]
fn what_may_be_forgotten_is_refused_and_silence_is_marked() {
    let mut world = World::keeping(80_000_000);
    world.put("a", "info", "note", "1").unwrap();
    let since = |at| ChangesQuery { since: Some(Timestamp(at)), ..ChangesQuery::default() };
    assert!(world.changes_at(5_000_000, TABLET, since(1_000)).is_ok());
    let gone = world.changes_at(100_000_000, TABLET, since(1_000));
    assert_eq!(gone, Err(Refusal::ChangesGone { since: Timestamp(1_000), kept: Timestamp(20_000_000) }));
    let (lsn, _, _) = world.node.applied(TABLET).unwrap();
    let marked = world.changes_at(100_000_000, TABLET, since(30_000_000));
    assert_eq!(marked, Err(Refusal::NotReady(TABLET)), "what was complete last is too old to go on from");
    let page = world.changes_at(100_000_001, TABLET, since(30_000_000)).unwrap();
    assert_eq!(page.upto, Timestamp(100_000_000));
    assert_eq!(world.node.applied(TABLET).unwrap().0, lsn.next(), "one entry, not one for each question");
    world.now = world.now + Duration::from_secs(2);
    assert_eq!(world.changes_at(105_000_000, TABLET, since(30_000_000)).unwrap().upto, page.upto);
}

/// Limits hold for what goes into the log, which is more than what was sent.
#[test]
fn what_becomes_too_much_is_refused() {
    let mut world = World::keeping(1_000);
    let write = |changes| Mutation { row: Bytes::from_static(b"a"), condition: None, changes };
    let value = Bytes::from(vec![b'x'; 70 << 20]);
    let put = |qualifier: &'static str| Change::Put {
        family: "info".to_owned(),
        qualifier: qualifier.into(),
        timestamp: Timestamp(5),
        value: value.clone(),
    };
    let refused = world.write(request(5, 1), write(vec![put("a"), put("b")]));
    assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
    assert!(world.write(request(5, 2), write(vec![put("a")])).is_ok());
    let families =
        (10..12).map(|id| Family { id: FamilyId(id), name: id.to_string(), ..world.schema.families[0].clone() });
    world.schema.families.extend(families.collect::<Vec<_>>());
    world.schema.next_family = FamilyId(12);
    world.schema.version += 1;
    world.assign(Configuration::first(ME, []));
    let refused = world.write(request(5, 3), write(vec![Change::DeleteRow; 40_000]));
    assert!(matches!(refused, Err(Refusal::Invalid(_))), "{refused:?}");
}

#[test]
fn a_table_that_keeps_nothing_says_so() {
    let mut world = World::new();
    let mut other = World::keeping(1_000);
    let stream = StreamId { table: TableId(1), family: FamilyId(5) };
    let of_another = other.changes(TABLET, ChangesQuery { stream: Some(stream), ..ChangesQuery::default() });
    assert!(matches!(of_another, Err(Refusal::Invalid(_))), "{of_another:?}");
    let asked = world.changes(TABLET, ChangesQuery::default());
    assert_eq!(asked, Err(Refusal::NoChanges("airports".into())));
}

impl World {
    /// A node that keeps one tablet alone, and its changes for so many microseconds.
    fn keeping(micros: u64) -> World {
        let mut world = World::empty();
        world.keep(micros);
        world.assign(Configuration::first(ME, []));
        world
    }

    fn keep(&mut self, micros: u64) {
        let family = Family {
            id: FamilyId(2),
            name: model::settings::CHANGES.into(),
            retention: Retention::Age(Duration::from_micros(micros)),
            ..self.schema.families[0].clone()
        };
        self.schema.settings.changes = Some(family);
        self.schema.next_family = FamilyId(3);
    }

    fn changes(&mut self, tablet: TabletId, query: ChangesQuery) -> Result<ChangesPage, Refusal> {
        self.changes_at(1_000, tablet, query)
    }

    fn changes_at(&mut self, wall: i64, tablet: TabletId, query: ChangesQuery) -> Result<ChangesPage, Refusal> {
        let replica = self.node.replicas().find(|replica| replica.tablet() == tablet);
        let epoch = replica.map_or(Epoch(1), protocol::Replica::epoch);
        self.tickets += 1;
        let (ticket, operation) = (Ticket(self.tickets), Operation::Changes(query));
        let request = Request { tablet, epoch, operation, by: None };
        self.step(Input::Request { ticket, wall: Timestamp(wall), request });
        let (answered, answer) = self.answers.pop().expect("every request has an answer");
        assert_eq!((answered, self.answers.len()), (ticket, 0));
        match answer? {
            Reply::Changes(page, _) => Ok(page),
            other => panic!("{other:?}"),
        }
    }

    /// All that is kept, in words.
    fn all(&mut self) -> Vec<String> {
        let page = self.changes(TABLET, ChangesQuery::default()).unwrap();
        assert_eq!(page.resume, None);
        page.changes.iter().map(in_words).collect()
    }
}

fn in_words(change: &RowChange) -> String {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let Place { version, number } = change.at;
    let each = change.changes.iter().map(|change| match change {
        Change::Put { family, qualifier, timestamp, value } => {
            format!("{}:{}@{timestamp}={}", family.0, text(qualifier), text(value))
        }
        Change::DeleteFamily { family } => format!("-{}", family.0),
        other => format!("{other:?}"),
    });
    format!("{} {version}.{number} {}", text(&change.row), each.collect::<Vec<_>>().join(" "))
}
