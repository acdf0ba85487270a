//! Splits as the master sees them.

use super::*;
use model::Configuration;
use protocol::{Core, ToMaster};
use std::collections::BTreeSet;

use crate::api::Input;
use crate::machine::Options;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

/// Invariant I13: at every index of the log the slices of a table hold every key once. The parent gives way to its heirs
/// in one step, and whoever still keeps it hears so until it says that nothing is left.
#[test]
fn heirs_take_their_parents_place_in_one_step() {
    let (mut state, parent) = state();
    state.apply(9, Command::Split { tablet: parent, epoch: Epoch(1), at: SplitAt::HalfTheBytes }).unwrap();
    let intent = state.splits[&parent].clone();
    assert!(state.is_expected(intent.left) && !state.groups.contains_key(&intent.left));
    assert_tiled(&state);
    let split = split(&intent, "g");
    let divide = Command::Divide { tablet: parent, lsn: Lsn(7), split: split.clone() };
    assert_eq!(state.apply(10, divide.clone()), Ok(Changed::Divided(parent, split.clone())));
    assert_tiled(&state);
    assert!(!state.groups.contains_key(&parent) && state.splits.is_empty());
    assert_eq!(state.groups[&intent.left].configuration, split.configuration);
    let after = state.clone();
    assert_eq!(state.apply(10, divide), Ok(Changed::Nothing), "every member says so, and more than once");
    assert_eq!(state, after);
    assert_eq!(State::from_bytes(&state.to_bytes()).unwrap(), state);
    for node in [ONE, TWO] {
        assert!(state.ended.contains_key(&parent));
        state.apply(11, Command::Bury { tablet: parent, node }).unwrap();
    }
    assert!(state.ended.is_empty());
}

/// A wish that was given up leaves everything as it was, and its numbers are never used again.
#[test]
fn a_cancelled_split_changes_nothing() {
    let (mut state, parent) = state();
    let ask = |state: &mut State| {
        state.apply(9, Command::Split { tablet: parent, epoch: Epoch(1), at: SplitAt::HalfTheBytes })
    };
    ask(&mut state).unwrap();
    assert!(matches!(ask(&mut state), Err(Refusal::Exists(_))), "one at a time");
    let first = state.splits[&parent].clone();
    let cancel = |left| Command::CancelSplit { tablet: parent, left, why: "one row".into() };
    state.apply(10, cancel(first.left)).unwrap();
    ask(&mut state).unwrap();
    let second = state.splits[&parent].clone();
    assert!(second.left > first.right);
    state.apply(11, cancel(first.left)).unwrap();
    let late = Command::Divide { tablet: parent, lsn: Lsn(7), split: split(&first, "g") };
    assert_eq!(state.apply(12, late), Ok(Changed::Nothing));
    assert_eq!(state.splits[&parent], second, "what concerns the first wish does not concern the second");
    assert_tiled(&state);
}

#[test]
fn what_cannot_be_split_is_refused() {
    let (mut state, parent) = state();
    let mut ask = |tablet, epoch, at: Option<&str>| {
        let at = at.map_or(SplitAt::HalfTheBytes, |at| SplitAt::Row(Bytes::copy_from_slice(at.as_bytes())));
        state.apply(9, Command::Split { tablet, epoch: Epoch(epoch), at })
    };
    assert!(matches!(ask(TabletId(99), 1, None), Err(Refusal::NoSuchTablet(_))));
    assert!(matches!(ask(parent, 2, None), Err(Refusal::NotReady(_))), "the group has gone on");
    for outside in ["", "m", "z"] {
        assert!(matches!(ask(parent, 1, Some(outside)), Err(Refusal::Invalid(_))), "{outside:?}");
    }
    assert!(ask(parent, 1, Some("g")).is_ok());
}

/// A table that goes takes everything along.
#[test]
fn a_dropped_table_forgets_its_splits() {
    let (mut state, parent) = state();
    let other = TabletId(2);
    for tablet in [parent, other] {
        state.apply(9, Command::Split { tablet, epoch: Epoch(1), at: SplitAt::HalfTheBytes }).unwrap();
    }
    let intent = state.splits[&parent].clone();
    state.apply(10, Command::Divide { tablet: parent, lsn: Lsn(7), split: split(&intent, "g") }).unwrap();
    state.apply(11, Command::DropTable("t".into())).unwrap();
    assert!(state.groups.is_empty() && state.splits.is_empty() && state.ended.is_empty());
}

/// The leading master tells the primary again and again, forgets no child that the map does not have yet, and the
/// operator hears when all is done.
#[test]
fn an_operators_wish_is_followed_through() {
    let (mut master, parent, mut index) = leading(options());
    let mut now = Instant::ZERO;
    let mut step = |master: &mut Master, input: Input| {
        let (mut inputs, mut seen) = (vec![input], Vec::new());
        now = now + Duration::from_millis(100);
        while let Some(input) = inputs.pop() {
            let mut out = Vec::new();
            master.step(now, input, &mut out);
            for effect in out {
                match effect {
                    Effect::Propose(command) => {
                        index += 1;
                        inputs.push(Input::Committed(index, command));
                    }
                    Effect::Event(..) => {}
                    other => seen.push(other),
                }
            }
        }
        seen
    };
    let ask = model::AdminRequest::SplitTablet { tablet: parent, at: Some(Bytes::from_static(b"g")) };
    let seen = step(&mut master, Input::Admin(Ticket(5), ask));
    let intent = master.state().splits[&parent].clone();
    let told = |seen: &[Effect]| {
        seen.iter()
            .any(|effect| matches!(effect, Effect::Send(ONE, FromMaster::Split { tablet, .. }) if *tablet == parent))
    };
    assert!(told(&seen) && !seen.iter().any(|effect| matches!(effect, Effect::Reply(..))), "{seen:?}");
    let seen = step(&mut master, beat(ONE, &[parent, intent.left, intent.right], 0));
    assert!(told(&seen) && !seen.iter().any(|effect| matches!(effect, Effect::Send(_, FromMaster::Forget(_)))));
    let divided = ToMaster::Divided { tablet: parent, lsn: Lsn(7), split: split(&intent, "g") };
    let seen = step(&mut master, Input::FromNode(ONE, divided));
    assert!(seen.iter().any(|effect| matches!(effect, Effect::Reply(Ticket(5), AdminReply::Split(_)))), "{seen:?}");
    for node in [ONE, TWO] {
        let seen = step(&mut master, beat(node, &[parent], 0));
        let ended = |effect: &Effect| matches!(effect, Effect::Send(to, FromMaster::Ended(_)) if *to == node);
        assert!(seen.iter().any(ended), "{seen:?}");
        step(&mut master, Input::FromNode(node, ToMaster::Buried(parent)));
    }
    assert!(master.state().ended.is_empty());
}

/// Issue 3, part 3: "split by size and by load". What cannot be divided, as one hot row, is asked after ever longer
/// pauses, and a tablet that is asked of less than that never.
#[test]
fn a_busy_tablet_is_split_and_a_hot_row_is_left_alone() {
    let mut asked = Vec::new();
    let (mut master, parent, mut index) = leading(Options { split_load: 1_000, ..options() });
    for second in 0..1_000 {
        let load = if second < 10 { 1_000 } else { 1_100 };
        let now = Instant::ZERO + Duration::from_secs(second);
        let mut inputs = vec![beat(ONE, &[parent], load), beat(TWO, &[parent], 0), Input::Tick];
        while let Some(input) = inputs.pop() {
            let mut out = Vec::new();
            master.step(now, input, &mut out);
            for effect in out {
                if let Effect::Propose(command) = effect {
                    index += 1;
                    inputs.push(Input::Committed(index, command));
                } else if let Effect::Send(ONE, FromMaster::Split { left, at, .. }) = effect {
                    assert_eq!(at, SplitAt::HalfTheLoad);
                    asked.push(second);
                    let why = "one row".into();
                    inputs.push(Input::FromNode(ONE, ToMaster::Undivided { tablet: parent, left, why }));
                }
            }
        }
    }
    asked.dedup();
    let pauses: Vec<u64> = asked.windows(2).map(|times| times[1] - times[0]).collect();
    assert!(asked[0] >= 10 && pauses[0] >= 60, "{asked:?}");
    assert!(pauses.len() >= 3 && pauses.windows(2).all(|pauses| pauses[1] >= pauses[0] * 3 / 2), "{asked:?}");
}

/// A table `t` of two tablets, cut at `m`, on two nodes; and its first tablet.
fn state() -> (State, TabletId) {
    let mut state = State::default();
    state.apply(1, Command::Found(model::ClusterId(1))).unwrap();
    for node in [ONE, TWO] {
        let (address, disk, incarnation) = (node.to_string(), u64::from(node.0), model::Incarnation(1));
        state.apply(2, Command::Join { node, address, disk, incarnation }).unwrap();
    }
    let create = Command::CreateTable {
        name: "t".into(),
        families: vec![("f".into(), model::Retention::Keep)],
        partition: model::Partition::Range { splits: vec![Bytes::from_static(b"m")] },
        replicas: 2,
        min_replicas: 1,
        placement: vec![vec![ONE, TWO], vec![TWO, ONE]],
        storage: model::StorageChange::default(),
        settings: model::SettingsChange::default(),
    };
    state.apply(3, create).unwrap();
    (state, TabletId(1))
}

fn options() -> Options {
    Options {
        timing: protocol::Timing::default(),
        seed: 1,
        replicas: 2,
        min_replicas: 1,
        balance_after: None,
        split_bytes: 0,
        split_load: 0,
        merge_after: None,
    }
}

/// A master that leads with that table, the tablet, and the last index.
fn leading(options: Options) -> (Master, TabletId, u64) {
    let (known, parent) = state();
    let mut master = Master::new(options);
    master.restore(&known.to_bytes()).unwrap();
    master.step(Instant::ZERO, Input::Leading(1), &mut Vec::new());
    (master, parent, known.applied)
}

/// The node keeps these, each with so many requests per second.
fn beat(node: NodeId, tablets: &[TabletId], load: u64) -> Input {
    let report = |&tablet: &TabletId| model::request::ReplicaReport {
        tablet,
        epoch: Epoch(1),
        schema: 1,
        learner: None,
        role: model::request::Role::Secondary,
        durable: Lsn(7),
        committed: Lsn(7),
        steady: true,
        bytes: 0,
        load,
        damaged: None,
        stalled: false,
    };
    let heartbeat = ToMaster::Heartbeat {
        sent: Instant::ZERO,
        cluster: None,
        disk: u64::from(node.0),
        incarnation: model::Incarnation(1),
        address: node.to_string(),
        disk_full: false,
        base: None,
        gone: vec![],
        scrub: model::request::ScrubReport::default(),
        replicas: tablets.iter().map(report).collect(),
    };
    Input::FromNode(node, heartbeat)
}

fn split(intent: &Intent, at: &str) -> Split {
    let configuration = Configuration::first(ONE, [TWO]).next();
    Split { left: intent.left, right: intent.right, at: Bytes::copy_from_slice(at.as_bytes()), configuration }
}

fn assert_tiled(state: &State) {
    let slices: Vec<&Slice> = state.groups.values().map(|group| &group.tablet.slice).collect();
    for row in [&b"a"[..], b"f", b"g", b"l", b"m", b"z"] {
        assert_eq!(slices.iter().filter(|slice| slice.covers(row)).count(), 1, "{row:?} in {slices:?}");
    }
    let ids: BTreeSet<TabletId> = state.groups.keys().copied().collect();
    assert_eq!(ids.len(), slices.len());
}
