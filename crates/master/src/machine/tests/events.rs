//! What happened, and who hears of it.

use super::*;
use model::event::{Event, EventPage, EventQuery, Noted, Source};
use protocol::Why;

/// A decision is recorded with the evidence of whoever asked for it, and is there after a restart from a snapshot.
#[test]
fn a_decision_is_recorded_with_its_reason() {
    let mut world = World::with_nodes(2);
    world.step(Input::Date(Timestamp(5_000_000)));
    let tablet = world.one_tablet();
    let old = world.configuration(tablet);
    let (primary, heir) = (old.primary, old.secondaries[0]);
    let why = Why::PrimarySilent { primary, silent: Duration::from_millis(902) };
    world.step(Input::FromNode(heir, ToMaster::Propose(tablet, old.succeeded_by(heir), why)));
    // The loser of a race changes nothing, so nothing happened.
    world.step(Input::FromNode(primary, propose(tablet, old.without(heir))));

    let events = world.page(EventQuery { tablet: Some(tablet), limit: 9, ..EventQuery::default() }).events;
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!((event.name.as_str(), event.source, event.node), ("configuration_decided", Source::Master, Some(heir)));
    assert_eq!((event.epochs, event.table.as_deref()), (Some((Epoch(1), Epoch(2))), Some("t")));
    assert!(event.what.contains(&format!("{primary} has been silent for 902 ms (says {heir})")), "{event:?}");
    assert_eq!(event.at, Timestamp(5_000_000));

    let mut again = Master::new(options());
    again.restore(&world.master.snapshot()).unwrap();
    assert_eq!(again.state().events.iter().next_back(), Some(event));
}

/// A node tells again what it does not know to be recorded; it is recorded once.
#[test]
fn what_a_node_tells_twice_is_recorded_once() {
    let mut world = World::with_nodes(1);
    let kept = |upto| Effect::Send(NodeId(1), FromMaster::Kept { life: Incarnation(1), upto });
    assert_eq!(world.step(told(1, 1, &["a", "b"])), [kept(2)]);
    assert_eq!(world.step(told(1, 1, &["a", "b"])), [kept(2)]);
    assert_eq!(world.step(told(1, 2, &["b", "c"])), [kept(3)]);
    assert_eq!(world.step(told(7, 1, &["x"])), [], "of a life that has not joined");
    let query =
        EventQuery { node: Some(NodeId(1)), name: Some("job_failed".into()), limit: 9, ..EventQuery::default() };
    assert_eq!(words(&world.page(query)), ["a", "b", "c"]);
}

/// Whoever follows hears of what happens when it happens, resumes by number, and does not wait for ever.
#[test]
fn a_reader_waits_and_resumes() {
    let mut world = World::with_nodes(1);
    let start = world.page(EventQuery { limit: 1, ..EventQuery::default() });
    let failed = |since| EventQuery {
        since: Some(since),
        limit: 2,
        name: Some("job_failed".into()),
        wait_ms: 1_000,
        ..EventQuery::default()
    };
    let query = AdminRequest::Events(failed(start.next));
    assert_eq!(world.step(Input::Admin(Ticket(5), query)), []);
    let effects = world.step(told(1, 1, &["a", "b", "c"]));
    let [_, Effect::Reply(Ticket(5), AdminReply::Events(page))] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(words(page), ["a", "b"]);
    let page = world.page(failed(page.next));
    assert_eq!(words(&page), ["c"]);
    // Nothing more: a page without events, when the time is up.
    assert_eq!(world.step(Input::Admin(Ticket(6), AdminRequest::Events(failed(page.next)))), []);
    world.now = world.now + Duration::from_millis(1_001);
    let effects = world.step(Input::Tick);
    let empty = |effect: &Effect| matches!(effect, Effect::Reply(Ticket(6), AdminReply::Events(last)) if last.events.is_empty());
    assert!(effects.iter().any(empty), "{effects:?}");
    // Nobody waits at a master that leads no more.
    assert_eq!(world.step(Input::Admin(Ticket(7), AdminRequest::Events(failed(page.next)))), []);
    assert_eq!(world.step(Input::Following), [Effect::Refuse(Ticket(7), Refusal::NoMaster)]);
}

/// What the leader notices by itself is recorded too.
#[test]
fn the_masters_own_events_are_recorded() {
    let mut world = World::with_nodes(1);
    let index = world.index + 1;
    world.index = index;
    world.step(Input::Committed(index, Bytes::from_static(b"\xff")));
    let query = EventQuery { name: Some("command_unreadable".into()), limit: 9, ..EventQuery::default() };
    let events = world.page(query).events;
    assert!(matches!(&events[..], [Event { source: Source::Master, .. }]), "{events:?}");
}

fn told(life: u64, first: u64, what: &[&str]) -> Input {
    let noted = |what: &&str| Noted {
        at: Timestamp(1),
        name: "job_failed".into(),
        tablet: None,
        what: (*what).into(),
        count: 1,
    };
    let events = what.iter().map(noted).collect();
    Input::FromNode(NodeId(1), ToMaster::Events { life: Incarnation(life), first, events })
}

fn words(page: &EventPage) -> Vec<&str> {
    page.events.iter().map(|event| event.what.as_str()).collect()
}

impl World {
    fn page(&mut self, query: EventQuery) -> EventPage {
        match &self.step(Input::Admin(Ticket(4), AdminRequest::Events(query)))[..] {
            [Effect::Reply(Ticket(4), AdminReply::Events(page))] => page.clone(),
            other => panic!("{other:?}"),
        }
    }
}
