//! Eventual reads: who answers, and how old the answer may be.

use model::{Command, Consistency, Freshness, Lsn};
use protocol::{Entry, GroupMessage, Line, NodeMessage, Stamp};
use std::time::Duration;

use super::*;

const OTHER: NodeId = NodeId(2);

/// A secondary answers from what is committed as far as it knows, and says how old that may be: by a stamp of its own
/// clock that came back, so that no delay can make it look younger.
#[test]
fn a_secondary_answers_and_says_how_old() {
    let mut world = World::secondary();
    world.hear(1, b"busy");
    assert_eq!(world.eventual(None), Ok((None, None)), "nothing is known to be committed");
    let stamp = world.beacon(1, None, true);
    assert_eq!(world.eventual(None), Ok((Some("busy".into()), None)), "it cannot know how old");
    let refused = Refusal::TooOld { tablet: TABLET, lag: None };
    assert_eq!(world.eventual(Some(1_000)), Err(refused));

    world.now = at(100);
    world.beacon(1, Some(stamp), true);
    assert_eq!(world.eventual(None), Ok((Some("busy".into()), Some(100))));
    assert_eq!(world.eventual(Some(100)), Ok((Some("busy".into()), Some(100))));
    world.now = at(101);
    let refused = Refusal::TooOld { tablet: TABLET, lag: Some(Duration::from_millis(101)) };
    assert_eq!(world.eventual(Some(100)), Err(refused));
    // Who wants the newest must go to the primary.
    assert!(matches!(world.get("LAX"), Err(Refusal::WrongEpoch { .. })));
}

/// A primary that lacks leases may have a successor that acknowledges without it, and a stamp of a former life is of
/// another clock: neither makes anything younger.
#[test]
fn only_leases_and_our_own_clock_vouch_for_the_age() {
    let mut world = World::secondary();
    let stamp = world.beacon(0, None, true);
    world.now = at(50);
    world.beacon(0, Some(stamp), true);
    world.now = at(500);
    world.beacon(0, Some(Stamp(stamp.0, at(400))), false);
    world.beacon(0, Some(Stamp(model::Incarnation(stamp.0.0 + 1), at(400))), true);
    world.beacon(0, Some(Stamp(stamp.0, at(600))), true);
    assert_eq!(world.eventual(None), Ok((None, Some(500))));
}

/// What the primary has committed and we have not, is not in the answer: it is as old as the last that we have.
#[test]
fn a_secondary_that_lacks_entries_is_older() {
    let mut world = World::secondary();
    let stamp = world.beacon(0, None, true);
    world.now = at(50);
    world.beacon(0, Some(stamp), true);
    // The message with this entry got lost; the beacon tells of it, and it comes a little later.
    world.now = at(300);
    world.hear(1, b"busy");
    assert_eq!(world.eventual(None), Ok((None, Some(300))));
    let stamp = Stamp(stamp.0, at(250));
    world.beacon(1, Some(stamp), true);
    assert_eq!(world.eventual(None), Ok((Some("busy".into()), Some(50))));
}

/// An eventual read does not care which configuration the reader knows; but whoever is no member refuses.
#[test]
fn members_answer_whatever_the_epoch_and_others_do_not() {
    let mut world = World::secondary();
    for epoch in [0, 1, 7] {
        assert!(world.ask(request_of(epoch, None)).is_ok(), "epoch {epoch}");
    }
    let alone = Configuration { epoch: Epoch(2), primary: OTHER, secondaries: vec![] };
    world.assign(alone.clone());
    assert!(matches!(world.ask(request_of(2, None)), Err(Refusal::WrongEpoch { current, .. }) if current == alone));
    let learner = Assignment { learner: Some(ME), ..world.assignment(alone.next()) };
    world.step(Input::FromMaster(FromMaster::Assignments(vec![learner])));
    assert_eq!(world.node.replicas().map(protocol::Replica::role).collect::<Vec<_>>(), [Role::Learner]);
    assert!(matches!(world.ask(request_of(3, None)), Err(Refusal::WrongEpoch { .. })));
}

/// A primary that is cut off answers too; it is as young as its leases let it be.
#[test]
fn a_primary_without_leases_says_since_when() {
    let mut world = World::empty();
    world.assign(Configuration::first(ME, [OTHER]));
    let group = |message| Input::FromNode(OTHER, NodeMessage::Group(TABLET, message));
    world.step(group(GroupMessage::Prepared { epoch: Epoch(1), upto: Lsn(1) }));
    assert_eq!(world.eventual(None), Ok((None, None)), "it has never had a lease");
    let (life, groups, without) = (model::Incarnation(1), vec![(TABLET, Epoch(1))], vec![]);
    let (sent, stamp) = (at(0), Stamp(life, at(0)));
    let ack = NodeMessage::BeaconAck { life, sent, known: true, groups, without, stamp, disk_full: false };
    world.step(Input::FromNode(OTHER, ack));
    assert_eq!(world.eventual(None), Ok((None, Some(0))));
    world.now = at(2_000);
    assert_eq!(world.eventual(None), Ok((None, Some(1_500))), "the lease of 500 ms was the last that it knew");
}

fn at(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

fn request_of(epoch: u32, max_lag_ms: Option<u64>) -> Request {
    let consistency = Consistency::Eventual { max_lag: max_lag_ms.map(Duration::from_millis) };
    let options = ReadOptions { consistency, ..ReadOptions::default() };
    let operation = Operation::Get { row: Bytes::from_static(b"LAX"), options };
    Request { tablet: TABLET, epoch: Epoch(epoch), operation, by: None }
}

impl World {
    /// A node that follows another in the tablet's first epoch.
    fn secondary() -> World {
        let mut world = World::empty();
        world.assign(Configuration::first(OTHER, [ME]));
        world
    }

    /// The primary sends a write of the row LAX that is not committed yet.
    fn hear(&mut self, lsn: u64, value: &[u8]) {
        let change = Change::Put {
            family: FamilyId(1),
            qualifier: Bytes::from_static(b"note"),
            timestamp: Timestamp::SERVER,
            value: Bytes::copy_from_slice(value),
        };
        let command = Command {
            request: request(5, lsn),
            version: Timestamp(lsn as i64),
            row: Bytes::from_static(b"LAX"),
            changes: Some(vec![change]),
        };
        let payload = Bytes::from(postcard::to_allocvec(&model::Payload::Write(command)).unwrap());
        let entries = vec![Entry { lsn: Lsn(lsn), epoch: Epoch(1), payload }];
        let message = GroupMessage::Prepare { epoch: Epoch(1), committed: Lsn(lsn - 1), entries };
        self.step(Input::FromNode(OTHER, NodeMessage::Group(TABLET, message)));
    }

    /// A beacon of the primary, and the stamp of the answer.
    fn beacon(&mut self, committed: u64, heard: Option<Stamp>, leased: bool) -> Stamp {
        self.sent.clear();
        self.beacons += 1;
        let (life, sent, base) = (model::Incarnation(1), Instant(self.beacons), None);
        let groups = vec![Line { tablet: TABLET, epoch: Epoch(1), committed: Lsn(committed), leased }];
        let beacon = NodeMessage::Beacon { life, sent, base, heard, firm: true, groups, gone: vec![] };
        self.step(Input::FromNode(OTHER, beacon));
        let stamps = self.sent.iter().filter_map(|(_, message)| match message {
            NodeMessage::BeaconAck { stamp, .. } => Some(*stamp),
            _ => None,
        });
        stamps.last().expect("a secondary grants its primary a lease")
    }

    /// The value of LAX, and how many milliseconds old it may be.
    #[allow(clippy::type_complexity)]
    fn eventual(&mut self, max_lag_ms: Option<u64>) -> Result<(Option<String>, Option<u64>), Refusal> {
        match self.ask(request_of(1, max_lag_ms))? {
            Reply::Row(row, _, Some(Freshness { node: ME, epoch: Epoch(1), lag, .. })) => {
                let cell = row.and_then(|row| row.cells.into_iter().next());
                let value = cell.map(|cell| String::from_utf8(cell.value.to_vec()).unwrap());
                Ok((value, lag.map(|lag| lag.as_millis() as u64)))
            }
            other => panic!("{other:?}"),
        }
    }
}
