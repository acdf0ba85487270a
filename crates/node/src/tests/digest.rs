//! Replicas compare what they hold.

use model::{Digest, Lsn, Payload};
use protocol::{Entry, GroupMessage};

use super::*;

const OTHER: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);

/// Sums are of contents, wherever these are: in memory, in a file, or in a checkpoint that came from a peer.
#[test]
fn equal_contents_have_equal_sums() {
    let mut in_memory = World::follower();
    in_memory.follow(&[write(1, "LAX", "busy"), write(2, "SFO", "calm"), digest(3)]);
    let mut in_a_file = World::follower();
    in_a_file.follow(&[write(1, "LAX", "busy")]);
    in_a_file.flush();
    in_a_file.follow(&[write(2, "SFO", "calm"), digest(3)]);
    let mut other = World::follower();
    other.follow(&[write(1, "LAX", "busy"), write(2, "SFO", "wild"), digest(3)]);
    assert_eq!(in_memory.sums(3).len(), 65, "64 buckets of rows, and the completion records");
    assert_eq!(in_memory.sums(3), in_a_file.sums(3));
    let (one, two) = (in_memory.sums(3), other.sums(3));
    let differs: Vec<usize> = (0..65).filter(|&at| one[at] != two[at]).collect();
    assert_eq!(differs, [store::digest::bucket(b"SFO")]);
}

/// Schemas come from the master, and to some later than to others: what they drop differs until then.
#[test]
fn another_schema_has_nothing_to_compare() {
    let mut world = World::follower();
    world.follow(&[write(1, "LAX", "busy"), order(2, Payload::Digest(Digest { date: Timestamp(9), schema: 2 }))]);
    assert_eq!(world.sums(2), []);
}

/// Whoever differs from most is damaged, by the word of its primary and about the very digest that it sent; it answers
/// nothing until it has learned the tablet anew.
#[test]
fn who_differs_from_most_is_damaged() {
    let mut world = World::follower();
    world.follow(&[write(1, "LAX", "busy"), digest(2), digest(3)]);
    let diverged = |from, epoch, lsn| {
        let message = GroupMessage::Diverged { epoch: Epoch(epoch), lsn: Lsn(lsn), what: "a difference".into() };
        Input::FromNode(from, NodeMessage::Group(TABLET, message))
    };
    for idle in [diverged(THIRD, 1, 3), diverged(OTHER, 2, 3), diverged(OTHER, 1, 2)] {
        world.step(idle);
        assert_eq!(world.damage(), None);
    }
    assert!(world.look().is_ok());
    world.step(diverged(OTHER, 1, 3));
    assert!(world.damage().unwrap().contains("a difference"));
    assert_eq!(world.role(), Some(Role::Secondary), "until the others go on without it");
    assert_eq!(world.look(), Err(Refusal::NotReady(TABLET)), "it may be wrong");
}

/// A difference counts when a second digest shows it again. With a majority the others are told.
#[test]
fn a_difference_is_confirmed_and_the_minority_told() {
    let mut world = World::leader(&[OTHER, THIRD]);
    let others = |world: &mut World, changed| {
        let (lsn, mut sums) = world.order_digest();
        world.answer(THIRD, lsn, sums.clone());
        sums[5] += u64::from(changed);
        world.answer(OTHER, lsn, sums);
        world.told()
    };
    assert_eq!(others(&mut world, true), [], "once");
    assert_eq!(others(&mut world, false), [], "and it has gone");
    assert_eq!(others(&mut world, true), []);
    assert_eq!(others(&mut world, true), [OTHER], "twice");
    assert_eq!((world.damage(), world.node.compared()), (None, (1, 1)));
}

/// The primary itself may be the one that differs: then it serves nothing until another has taken its place.
#[test]
fn a_primary_that_differs_serves_nothing() {
    let mut world = World::leader(&[OTHER, THIRD]);
    for _ in 0..2 {
        let (lsn, mut sums) = world.order_digest();
        sums[7] += 1;
        world.answer(OTHER, lsn, sums.clone());
        world.answer(THIRD, lsn, sums);
    }
    assert_eq!(world.told(), []);
    assert!(world.damage().unwrap().contains("n1 differs in 1 of 64 buckets of rows (7)"));
    assert_eq!(world.get("LAX"), Err(Refusal::NotReady(TABLET)));
    assert_eq!(world.put("LAX", "info", "note", "2"), Err(Refusal::NotReady(TABLET)));
}

/// Of two that differ nobody knows who is right: nothing is done to either.
#[test]
fn of_two_nobody_is_thrown_away() {
    let mut world = World::leader(&[OTHER]);
    for _ in 0..2 {
        let (lsn, mut sums) = world.order_digest();
        sums[7] += 1;
        world.answer(OTHER, lsn, sums);
    }
    assert_eq!((world.damage(), world.told(), world.node.compared()), (None, vec![], (0, 1)));
    assert!(world.get("LAX").is_ok());
}

/// A digest tells nothing of writes: a restart applies it like any other entry, and sums up nothing for a former life.
#[test]
fn a_restart_passes_over_digests() {
    let mut world = World::new();
    world.put("LAX", "info", "note", "1").unwrap();
    world.assign(Configuration { epoch: Epoch(2), primary: OTHER, secondaries: vec![ME] });
    let applied = world.node.applied(TABLET).unwrap().0;
    let entry = |lsn: Lsn| Entry { epoch: Epoch(2), ..digest(lsn.0) };
    world.prepare(Epoch(2), vec![entry(applied.next()), entry(applied.next().next())], applied.next());
    world.sent.clear();
    world.restart();
    assert_eq!(world.node.applied(TABLET).unwrap().0, applied.next());
    assert!(world.sent.iter().all(|(_, message)| !matches!(message, NodeMessage::Group(..))));
}

fn order(lsn: u64, payload: Payload) -> Entry {
    Entry { lsn: Lsn(lsn), epoch: Epoch(1), payload: Bytes::from(postcard::to_allocvec(&payload).unwrap()) }
}

fn digest(lsn: u64) -> Entry {
    order(lsn, Payload::Digest(Digest { date: Timestamp(1_000_000), schema: 1 }))
}

fn write(lsn: u64, row: &str, value: &str) -> Entry {
    let change = Change::Put {
        family: FamilyId(1),
        qualifier: Bytes::from_static(b"note"),
        timestamp: Timestamp::SERVER,
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    let row = Bytes::copy_from_slice(row.as_bytes());
    let command =
        model::Command { request: request(5, lsn), version: Timestamp(lsn as i64), row, changes: Some(vec![change]) };
    order(lsn, Payload::Write(command))
}

impl World {
    /// A secondary of three.
    fn follower() -> World {
        let mut world = World::empty();
        world.assign(Configuration::first(OTHER, [ME, THIRD]));
        world
    }

    /// A primary that serves, with a row.
    fn leader(others: &[NodeId]) -> World {
        let mut world = World::empty();
        world.assign(Configuration::first(ME, others.iter().copied()));
        world.hold_up();
        world.tickets += 1;
        let operation = Operation::Write { request: request(9, 1), mutation: put("LAX", "info", "note", "1") };
        let request = Request { tablet: TABLET, epoch: Epoch(1), operation, by: None };
        let (ticket, wall) = (Ticket(world.tickets), Timestamp(1_000));
        world.step(Input::Request { ticket, wall, request });
        world.hold_up();
        assert!(matches!(world.answers.pop(), Some((_, Ok(_)))));
        world
    }

    /// The other members have written all, and grant their leases.
    fn hold_up(&mut self) {
        let replica = self.node.replicas().next().unwrap();
        let (upto, others) = (replica.appended(), replica.configuration().secondaries.clone());
        for other in others {
            let prepared = GroupMessage::Prepared { epoch: Epoch(1), upto };
            self.step(Input::FromNode(other, NodeMessage::Group(TABLET, prepared)));
            let (sent, groups) = (self.now, vec![(TABLET, Epoch(1))]);
            let stamp = protocol::Stamp(model::Incarnation(1), self.now);
            let (life, without) = (self.node.incarnation, vec![]);
            let ack = NodeMessage::BeaconAck { life, sent, known: true, groups, without, stamp, disk_full: false };
            self.step(Input::FromNode(other, ack));
        }
    }

    fn prepare(&mut self, epoch: Epoch, entries: Vec<Entry>, committed: Lsn) {
        let message = GroupMessage::Prepare { epoch, committed, entries };
        self.step(Input::FromNode(OTHER, NodeMessage::Group(TABLET, message)));
    }

    /// The primary sends entries and says that they are committed.
    fn follow(&mut self, entries: &[Entry]) {
        let last = entries.last().unwrap().lsn;
        self.prepare(Epoch(1), entries.to_vec(), last);
        self.now = self.now + std::time::Duration::from_millis(100);
        self.step(Input::Tick);
    }

    /// What this secondary has sent of that digest.
    fn sums(&self, lsn: u64) -> Vec<u64> {
        let sums = self.sent.iter().find_map(|(to, message)| match message {
            NodeMessage::Group(TABLET, GroupMessage::Digest { lsn: Lsn(at), sums, .. }) if *at == lsn => {
                assert_eq!(*to, OTHER);
                Some(sums.clone())
            }
            _ => None,
        });
        sums.expect("a member answers a digest")
    }

    /// An operator asks for a digest, and it is committed. Its place, and this primary's sums.
    fn order_digest(&mut self) -> (Lsn, Vec<u64>) {
        // What was sent before is sent again, if it is still to be confirmed.
        let before = self.node.applied(TABLET).unwrap().0;
        self.now = self.now + std::time::Duration::from_millis(150);
        self.hold_up();
        self.step(Input::FromMaster(FromMaster::Check(TABLET)));
        self.step(Input::Tick);
        self.hold_up();
        let (lsn, view, _) = self.node.applied(TABLET).unwrap();
        assert!(lsn > before, "a digest is in the log");
        drop(view);
        (lsn, self.node.own_sums(TABLET).expect("nothing else is to be read"))
    }

    fn answer(&mut self, from: NodeId, lsn: Lsn, sums: Vec<u64>) {
        let message = GroupMessage::Digest { epoch: Epoch(1), lsn, sums };
        self.step(Input::FromNode(from, NodeMessage::Group(TABLET, message)));
    }

    /// Who was told that it differs.
    fn told(&self) -> Vec<NodeId> {
        let diverged = |message: &NodeMessage| matches!(message, NodeMessage::Group(_, GroupMessage::Diverged { .. }));
        self.sent.iter().filter(|(_, message)| diverged(message)).map(|(to, _)| *to).collect()
    }

    fn look(&mut self) -> Result<Reply, Refusal> {
        let consistency = model::Consistency::Eventual { max_lag: None };
        let options = ReadOptions { consistency, ..ReadOptions::default() };
        self.operate(Operation::Get { row: Bytes::from_static(b"LAX"), options })
    }
}
