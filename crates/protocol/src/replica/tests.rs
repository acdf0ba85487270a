//! The protocol as stories, in the paper's order. What a story does not list must not happen: effects are compared whole.

use super::*;
use alloc::vec;
use core::time::Duration;

const P: NodeId = NodeId(1);
const S: NodeId = NodeId(2);
const T: NodeId = NodeId(3);

// ---- 5.3 normal operation ------------------------------------------------------------------------------------------

/// PacificA 2.1: the client hears of success only once every member has the record on disk.
#[test]
fn the_client_hears_once_every_disk_has_it() {
    let mut primary = settled_primary(&[S, T]);
    assert_eq!(step(&mut primary, propose(7, b"x")), [append(2, 1, b"x")]);
    assert_eq!(step(&mut primary, Input::Settle), [prepare(S, 1, 1, 2, b"x"), prepare(T, 1, 1, 2, b"x")]);
    assert_eq!(step(&mut primary, Input::Durable(3)), []);
    assert_eq!(step(&mut primary, prepared(S, 1, 2)), []);
    assert_eq!(step(&mut primary, prepared(T, 1, 2)), [commit(2, 1, b"x", Some(7))]);
}

/// PacificA 2.1 with decision 5 of the design: "prepared" means synced.
#[test]
fn a_secondary_acknowledges_what_is_synced_and_applies_what_is_committed() {
    let mut secondary = settled_secondary();
    assert_eq!(step(&mut secondary, received(P, prepare_message(1, 0, 1, b""))), [append(1, 1, b"")]);
    assert_eq!(
        step(&mut secondary, Input::Durable(2)),
        [send(P, GroupMessage::Prepared { epoch: Epoch(1), upto: Lsn(1) })]
    );
    let effects = step(&mut secondary, received(P, prepare_message(1, 1, 2, b"x")));
    assert_eq!(effects, [append(2, 1, b"x"), commit(1, 1, b"", None)]);
}

/// Prepares come dense or not at all: what was lost is asked for once, and arrives in order.
#[test]
fn a_gap_is_asked_for_once() {
    let mut secondary = settled_secondary();
    step(&mut secondary, received(P, prepare_message(1, 0, 1, b"")));
    let missing = send(P, GroupMessage::Missing { epoch: Epoch(1), from: Lsn(2) });
    assert_eq!(step(&mut secondary, received(P, prepare_message(1, 0, 3, b"y"))), [missing]);
    assert_eq!(step(&mut secondary, received(P, prepare_message(1, 0, 4, b"z"))), []);
    assert_eq!(step(&mut secondary, received(P, prepare_message(1, 0, 2, b"x"))), [append(2, 1, b"x")]);
}

/// A beacon that was answered though an old prepare was not shows that the prepare got lost.
#[test]
fn what_stays_unacknowledged_is_sent_again() {
    let mut primary = settled_primary(&[S]);
    step(&mut primary, propose(7, b"x"));
    step(&mut primary, Input::Settle);
    let later = at(5_000);
    step_at(&mut primary, later, Input::Granted(S, Epoch(1), later));
    assert_eq!(step_at(&mut primary, later, Input::Settle), [prepare(S, 1, 1, 2, b"x")]);
}

// ---- 5.4 leases ------------------------------------------------------------------------------------------------------

/// PacificA 2.3: a lease runs from when the beacon was *sent*.
#[test]
fn a_primary_reads_only_under_leases_of_all() {
    let mut primary = settled_primary(&[S, T]);
    assert!(primary.may_read(at(599)));
    assert!(!primary.may_read(at(600)));
    step_at(&mut primary, at(700), Input::Granted(S, Epoch(1), at(500)));
    assert!(!primary.may_read(at(700)), "T has not granted");
    step_at(&mut primary, at(700), Input::Granted(T, Epoch(1), at(500)));
    assert!(primary.may_read(at(700)) && !primary.may_read(at(1_100)));
}

/// PacificA 2.3: the primary whose lease lapses proposes to go on without the silent secondary, and asks again until
/// it hears.
#[test]
fn a_silent_secondary_is_proposed_away() {
    let mut primary = settled_primary(&[S, T]);
    step(&mut primary, Input::Granted(T, Epoch(1), at(400)));
    let why = Why::Silent { node: S, silent: Duration::from_millis(600) };
    let fewer = Effect::ProposeConfiguration(configuration(2, P, &[T]), why);
    assert_eq!(primary.deadline(), Some(at(600)));
    assert_eq!(step_at(&mut primary, at(600), Input::Tick), vec![fewer.clone()]);
    assert_eq!(step_at(&mut primary, at(700), Input::Tick), []);
    assert_eq!(step_at(&mut primary, at(800), Input::Tick), [fewer]);
}

/// PacificA 2.3: grace outlasts lease, and what was given up stays given up, also after a crash: so it goes to disk
/// before the master hears of it.
#[test]
fn a_silent_primary_is_given_up_on_disk_first() {
    let mut secondary = settled_secondary();
    assert_eq!(secondary.deadline(), Some(at(900)));
    assert_eq!(step_at(&mut secondary, at(899), Input::Tick), []);
    let saved = Effect::Save { configuration: configuration(1, P, &[S]), learner: None, abandoned: Epoch(1) };
    assert_eq!(step_at(&mut secondary, at(900), Input::Tick), [saved]);
    assert_eq!(step_at(&mut secondary, at(901), Input::Beacon(P, Epoch(1), Lsn(0))), []);
    assert_eq!(step_at(&mut secondary, at(901), received(P, prepare_message(1, 0, 1, b""))), []);
    let why = Why::PrimarySilent { primary: P, silent: Duration::from_millis(902) };
    let succession = Effect::ProposeConfiguration(configuration(2, S, &[]), why);
    assert_eq!(step_at(&mut secondary, at(902), Input::Durable(2)), [succession]);
}

/// Design notes 6.5: a secondary that loses the primary asks the others in time; if one still hears it, the link is
/// broken and not the primary, whose part it is now to remove us. It waits for one more grace period, and no longer.
#[test]
fn a_secondary_with_a_broken_link_waits_once() {
    let mut secondary = settled_secondary_of_three();
    assert_eq!(secondary.deadline(), Some(at(700)));
    let inquiry = send(T, GroupMessage::Inquiry { epoch: Epoch(1) });
    assert_eq!(step_at(&mut secondary, at(700), Input::Tick), vec![inquiry.clone()]);
    let hears = received(T, GroupMessage::Hears { epoch: Epoch(1) });
    assert_eq!(step_at(&mut secondary, at(705), hears.clone()), [Effect::LinkBroken(T)]);
    assert_eq!(step_at(&mut secondary, at(900), Input::Tick), [inquiry]);
    assert_eq!(step_at(&mut secondary, at(905), hears), []);
    step_at(&mut secondary, at(1799), Input::Tick);
    assert_eq!(secondary.abandoned(), Epoch(0));
    step_at(&mut secondary, at(1800), Input::Tick);
    assert_eq!(secondary.abandoned(), Epoch(1));
}

/// If the others have lost the primary too, nobody answers, and no time is lost.
#[test]
fn a_secondary_whose_peers_are_silent_does_not_wait() {
    let mut secondary = settled_secondary_of_three();
    step_at(&mut secondary, at(700), Input::Tick);
    step_at(&mut secondary, at(900), Input::Tick);
    assert_eq!(secondary.abandoned(), Epoch(1));
}

/// Whoever hears the primary says so; whoever has lost it too, or has given it up, says nothing.
#[test]
fn an_inquiry_is_answered_by_who_hears_the_primary() {
    let mut secondary = settled_secondary_of_three();
    let inquiry = received(T, GroupMessage::Inquiry { epoch: Epoch(1) });
    let hears = send(T, GroupMessage::Hears { epoch: Epoch(1) });
    assert_eq!(step_at(&mut secondary, at(599), inquiry.clone()), [hears]);
    assert_eq!(step_at(&mut secondary, at(600), inquiry), []);
}

/// Design notes 6.5: a configuration of one has nobody to take a lease from; it lives by its session with the master.
#[test]
fn a_primary_alone_needs_a_session_with_the_master() {
    let mut primary = Replica::new(TabletId(1), P, timing());
    step(&mut primary, Input::Assign(configuration(1, P, &[]), None));
    assert_eq!(step(&mut primary, Input::Durable(2)), [], "it was never heard");
    assert!(!primary.may_read(at(0)) && !primary.may_write(at(0)));
    assert_eq!(step(&mut primary, Input::Session(at(0))), [commit(1, 1, b"", None)]);
    assert!(primary.may_read(at(2_999)) && primary.may_write(at(2_999)));
    assert!(!primary.may_read(at(3_000)) && !primary.may_write(at(3_000)));
    assert_eq!(
        step_at(&mut primary, at(3_000), propose(7, b"x")),
        [Effect::Refuse(Ticket(7), Refusal::NotReady(TabletId(1)))]
    );
}

/// The promise of epoch 1 to obey nobody of epoch 0 must be on disk before it shows.
#[test]
fn nothing_is_granted_before_the_epoch_is_on_disk() {
    let mut secondary = Replica::new(TabletId(1), S, timing());
    step(&mut secondary, Input::Assign(configuration(1, P, &[S]), None));
    assert_eq!(step(&mut secondary, Input::Beacon(P, Epoch(1), Lsn(0))), []);
    step(&mut secondary, Input::Durable(1));
    assert_eq!(step(&mut secondary, Input::Beacon(P, Epoch(1), Lsn(0))), [Effect::Grant(P, Epoch(1))]);
}

/// A process that was stopped finds all leases lapsed, but blames nobody for it.
#[test]
fn a_pause_blames_nobody() {
    let mut primary = settled_primary(&[S]);
    step_at(&mut primary, at(5_000), Input::Gap);
    assert!(!primary.may_read(at(5_000)));
    assert_eq!(step_at(&mut primary, at(5_001), Input::Tick), []);
    let mut secondary = settled_secondary();
    step_at(&mut secondary, at(5_000), Input::Gap);
    let effects = step_at(&mut secondary, at(5_001), Input::Tick);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Save { .. })), "{effects:?}");
}

// ---- 5.5 reconfiguration ----------------------------------------------------------------------------------------------

/// PacificA 2.4: writes that wait for a removed secondary are acknowledged only once the master has removed it.
#[test]
fn waiting_writes_commit_when_the_removal_is_decided() {
    let mut primary = settled_primary(&[S]);
    step(&mut primary, propose(7, b"x"));
    step(&mut primary, Input::Durable(3));
    step_at(&mut primary, at(600), Input::Tick);
    let alone = configuration(2, P, &[]);
    let effects = step_at(&mut primary, at(610), Input::Assign(alone.clone(), None));
    let save = Effect::Save { configuration: alone, learner: None, abandoned: Epoch(0) };
    assert_eq!(effects, [save, commit(2, 1, b"x", Some(7))]);
}

/// PacificA 2.4: a new primary commits its predecessor's tail with the remaining members before it serves.
#[test]
fn a_new_primary_reconciles_before_it_serves() {
    let mut heir = Replica::recover(
        TabletId(1),
        S,
        timing(),
        at(0),
        configuration(1, P, &[S, T]),
        Epoch(1),
        Lsn(1),
        vec![entry(2, 1, b"x")],
    );
    let effects = step(&mut heir, Input::Assign(configuration(2, S, &[T]), None));
    let save = Effect::Save { configuration: configuration(2, S, &[T]), learner: None, abandoned: Epoch(1) };
    assert_eq!(effects, [save, append(3, 2, b"")]);
    assert!(!heir.may_write(at(0)));
    // It begins where it knows that all agree, and keeps the old entry's epoch.
    assert_eq!(step(&mut heir, Input::Settle), [], "nobody hears of an epoch that is not on disk");
    step(&mut heir, Input::Durable(2));
    let both = vec![entry(2, 1, b"x"), entry(3, 2, b"")];
    let message = GroupMessage::Prepare { epoch: Epoch(2), committed: Lsn(1), entries: both };
    assert_eq!(step(&mut heir, Input::Settle), [send(T, message)]);
    assert!(!heir.may_write(at(0)));
    let commits = Effect::Commit(vec![(entry(2, 1, b"x"), None), (entry(3, 2, b""), None)]);
    assert_eq!(step(&mut heir, prepared(T, 2, 3)), [commits]);
    assert!(heir.may_write(at(0)));
    assert!(!heir.may_read(at(0)), "T has granted no lease yet");
    step(&mut heir, Input::Granted(T, Epoch(2), at(0)));
    assert!(heir.may_read(at(0)));
}

/// PacificA 2.4: entries of a dead epoch that the new primary does not have are replaced.
#[test]
fn a_follower_drops_what_the_new_primary_never_had() {
    let mut follower = Replica::recover(
        TabletId(1),
        T,
        timing(),
        at(0),
        configuration(1, P, &[S, T]),
        Epoch(0),
        Lsn(1),
        vec![entry(2, 1, b"kept"), entry(3, 1, b"lost"), entry(4, 1, b"lost")],
    );
    step(&mut follower, Input::Assign(configuration(2, S, &[T]), None));
    step(&mut follower, Input::Durable(1));
    let entries = vec![entry(2, 1, b"kept"), entry(3, 2, b"")];
    let message = GroupMessage::Prepare { epoch: Epoch(2), committed: Lsn(1), entries };
    let acknowledged = send(S, GroupMessage::Prepared { epoch: Epoch(2), upto: Lsn(2) });
    assert_eq!(step(&mut follower, received(S, message)), [append(3, 2, b""), acknowledged]);
    assert_eq!(follower.appended(), Lsn(3));
}

/// Invariant 3 of the reference: who has followed a newer configuration never acknowledges an older one's primary.
#[test]
fn an_old_primary_hears_that_it_is_stale() {
    let mut follower = settled_secondary();
    step(&mut follower, Input::Assign(configuration(2, T, &[S]), None));
    let effects = step(&mut follower, received(P, prepare_message(1, 0, 1, b"x")));
    assert_eq!(effects, [send(P, GroupMessage::Stale { epoch: Epoch(2) })]);
    let mut primary = settled_primary(&[S]);
    let effects = step(&mut primary, received(S, GroupMessage::Stale { epoch: Epoch(2) }));
    assert_eq!(effects, [Effect::AskMaster]);
}

/// Whoever waits at a primary that is none any more learns that nobody knows.
#[test]
fn a_deposed_primary_says_unknown() {
    let mut primary = settled_primary(&[S]);
    step(&mut primary, propose(7, b"x"));
    let effects = step(&mut primary, Input::Assign(configuration(2, S, &[]), None));
    assert_eq!(effects[1..], [Effect::Refuse(Ticket(7), Refusal::Unknown(TabletId(1)))]);
    assert_eq!(primary.role(), Role::Spare);
}

/// PacificA 2.4: a newcomer gets all that is new while it fetches what is old, and counts once it has everything.
#[test]
fn a_learner_catches_up_and_is_proposed() {
    let mut primary = settled_primary(&[]);
    step(&mut primary, Input::Assign(configuration(1, P, &[]), Some(S)));
    step(&mut primary, received(S, GroupMessage::Learn { epoch: Epoch(1), attempt: 5, from: Lsn(1) }));
    assert_eq!(step(&mut primary, Input::Settle), [prepare(S, 1, 1, 1, b"")]);
    let joint = Effect::ProposeConfiguration(configuration(2, P, &[S]), Why::CaughtUp { node: S, upto: Lsn(1) });
    assert_eq!(step(&mut primary, prepared(S, 1, 1)), [joint]);
}

/// Once proposed, a learner counts: the master may have made it a member already.
#[test]
fn an_unanswered_proposal_counts_its_members() {
    let mut primary = settled_primary(&[]);
    step(&mut primary, Input::Assign(configuration(1, P, &[]), Some(S)));
    step(&mut primary, received(S, GroupMessage::Learn { epoch: Epoch(1), attempt: 5, from: Lsn(1) }));
    step(&mut primary, Input::Settle);
    assert!(primary.may_read(at(0)), "alone, it needs nobody's lease");
    step(&mut primary, prepared(S, 1, 1));
    assert!(!primary.may_read(at(0)));
    step(&mut primary, propose(7, b"x"));
    assert_eq!(step(&mut primary, Input::Durable(3)), []);
    assert_eq!(step(&mut primary, prepared(S, 1, 2)), [commit(2, 1, b"x", Some(7))]);
}

/// An entry of the node's own may found other groups with the members of now: nobody becomes one before it is committed, and
/// none is written while somebody may have become one (found by `sim`, house seed 3317).
#[test]
fn a_group_does_not_grow_around_an_entry_that_founds_others() {
    let mut primary = settled_primary(&[]);
    step(&mut primary, Input::Assign(configuration(1, P, &[]), Some(S)));
    step(&mut primary, received(S, GroupMessage::Learn { epoch: Epoch(1), attempt: 5, from: Lsn(1) }));
    step(&mut primary, Input::Order(Bytes::from_static(b"split")));
    step(&mut primary, Input::Settle);
    assert_eq!(step(&mut primary, prepared(S, 1, 2)), [], "it has even that which is not committed");
    let why = Why::CaughtUp { node: S, upto: Lsn(2) };
    let joint = Effect::ProposeConfiguration(configuration(2, P, &[S]), why);
    assert_eq!(step(&mut primary, Input::Durable(3)), [commit(2, 1, b"split", None), joint]);
    assert_eq!(step(&mut primary, Input::Order(Bytes::from_static(b"split"))), [], "it may be a member by now");
}

/// What has left the memory is fetched from the log, by the node.
#[test]
fn a_learner_far_behind_needs_older_entries() {
    let mut primary =
        Replica::recover(TabletId(1), P, timing(), at(0), configuration(1, P, &[]), Epoch(0), Lsn(90), vec![]);
    step(&mut primary, Input::Session(at(0)));
    step(&mut primary, Input::Assign(configuration(2, P, &[]), Some(S)));
    step(&mut primary, Input::Durable(2));
    step(&mut primary, received(S, GroupMessage::Learn { epoch: Epoch(2), attempt: 5, from: Lsn(11) }));
    let older = Effect::Older { to: S, from: Lsn(11), attempt: Some(5) };
    assert_eq!(step(&mut primary, Input::Settle), [older]);
    assert_eq!(step(&mut primary, Input::Settle), []);
    let fetched = vec![entry(11, 1, b"old")];
    let message = GroupMessage::Prepare { epoch: Epoch(2), committed: Lsn(91), entries: fetched.clone() };
    assert_eq!(step(&mut primary, Input::Fetched(S, fetched)), [send(S, message)]);
}

// ---- 5.6 restart -------------------------------------------------------------------------------------------------------

/// Decision 0003: a primary that was started again may have sent what its disk has lost; it needs a new epoch.
#[test]
fn a_restarted_primary_asks_for_a_new_epoch() {
    let mut primary = Replica::recover(
        TabletId(1),
        P,
        timing(),
        at(0),
        configuration(4, P, &[S]),
        Epoch(0),
        Lsn(1),
        vec![entry(2, 4, b"x")],
    );
    assert!(!primary.may_write(at(0)) && !primary.may_read(at(0)));
    let again = Effect::ProposeConfiguration(configuration(5, P, &[S]), Why::Returned);
    assert_eq!(step(&mut primary, Input::Tick), [again]);
    let refused = Effect::Refuse(Ticket(7), Refusal::NotReady(TabletId(1)));
    assert_eq!(step(&mut primary, propose(7, b"y")), [refused]);
}

/// What a restarted secondary had given up stays given up.
#[test]
fn a_restarted_secondary_remembers_whom_it_gave_up() {
    let mut secondary =
        Replica::recover(TabletId(1), S, timing(), at(0), configuration(1, P, &[S]), Epoch(1), Lsn(0), vec![]);
    assert_eq!(step(&mut secondary, Input::Beacon(P, Epoch(1), Lsn(0))), []);
    assert_eq!(step(&mut secondary, received(P, prepare_message(1, 0, 1, b"x"))), []);
}

// ---- what others may send -----------------------------------------------------------------------------------------------

/// A peer cannot make us stop, only be suspected.
#[test]
fn nonsense_is_suspected() {
    let mut primary = settled_primary(&[S]);
    let effects = step(&mut primary, prepared(S, 1, 99));
    assert_eq!(effects, [Effect::Suspect(S, "acknowledges what was never sent")]);
    let effects = step(&mut primary, received(S, GroupMessage::Missing { epoch: Epoch(1), from: Lsn(99) }));
    assert_eq!(effects, [Effect::Suspect(S, "holds committed entries that we never had")]);
    assert_eq!(step(&mut primary, received(T, prepare_message(1, 0, 1, b"x"))), []);
    let mut secondary = settled_secondary();
    let entries = vec![entry(1, 1, b"a"), entry(3, 1, b"c")];
    let message = GroupMessage::Prepare { epoch: Epoch(1), committed: Lsn(9), entries };
    let effects = step(&mut secondary, received(P, message));
    let never = Effect::Suspect(P, "has committed entries that we never acknowledged");
    let gaps = Effect::Suspect(P, "sends entries with gaps or of the future");
    assert_eq!(effects[..2], [never, gaps]);
    assert_eq!(secondary.committed(), Lsn(1), "only what is compared is committed");
}

// ---- planned changes, and those who are slow -------------------------------------------------------------------------

/// Design notes 5.5, planned primary transfer: new writes wait until the heir has everything, then the master decides.
#[test]
fn the_primary_hands_over_with_nothing_under_way() {
    let mut primary = settled_primary(&[S, T]);
    step(&mut primary, propose(7, b"x"));
    step(&mut primary, Input::Settle);
    step(&mut primary, Input::Durable(3));
    assert_eq!(step(&mut primary, Input::HandOver(S, Epoch(1))), []);
    let refused = Effect::Refuse(Ticket(8), Refusal::NotReady(TabletId(1)));
    assert_eq!(step(&mut primary, propose(8, b"y")), [refused]);
    assert_eq!(step(&mut primary, prepared(S, 1, 2)), []);
    let handed = Effect::ProposeConfiguration(configuration(2, S, &[P, T]), Why::Transfer { to: S });
    assert_eq!(step(&mut primary, prepared(T, 1, 2)), [commit(2, 1, b"x", Some(7)), handed]);
    assert!(primary.may_read(at(1)), "until the master has decided, it is the primary");
    step(&mut primary, Input::Assign(configuration(2, S, &[P, T]), None));
    assert!(!primary.may_read(at(1)) && primary.role() == Role::Secondary);
}

/// The master may be away, and then writes go on: whether it has decided shows when they are acknowledged, or not.
#[test]
fn a_hand_over_that_nobody_answers_holds_writes_no_longer_than_a_lease() {
    let mut primary = settled_primary(&[S]);
    step(&mut primary, Input::HandOver(S, Epoch(1)));
    assert!(!primary.may_write(at(599)));
    step_at(&mut primary, at(600), Input::Tick);
    assert!(primary.may_write(at(600)));
}

#[test]
fn nobody_hands_over_to_a_stranger_or_in_another_epoch() {
    let mut primary = settled_primary(&[S]);
    for order in [Input::HandOver(T, Epoch(1)), Input::HandOver(S, Epoch(2)), Input::HandOver(P, Epoch(1))] {
        assert_eq!(step(&mut primary, order), []);
        assert!(primary.may_write(at(0)));
    }
}

/// Decision 15 of the design: a secondary that grants leases but does not write is removed after seconds.
#[test]
fn a_secondary_whose_disk_hangs_is_proposed_away() {
    let mut primary = settled_primary(&[S, T]);
    step(&mut primary, propose(7, b"x"));
    step(&mut primary, Input::Settle);
    step(&mut primary, Input::Durable(3));
    step(&mut primary, prepared(T, 1, 2));
    for ms in [2_400, 2_500] {
        step_at(&mut primary, at(ms), Input::Granted(S, Epoch(1), at(ms)));
        step_at(&mut primary, at(ms), Input::Granted(T, Epoch(1), at(ms)));
    }
    assert_eq!(step_at(&mut primary, at(2_499), Input::Tick), []);
    assert_eq!(primary.deadline(), Some(at(2_500)));
    let why = Why::Slow { node: S, behind: Duration::from_millis(2_500) };
    let fewer = Effect::ProposeConfiguration(configuration(2, P, &[T]), why);
    assert_eq!(step_at(&mut primary, at(2_500), Input::Tick), [fewer]);
}

/// A primary whose own disk hangs, while a secondary has more than it: that one takes over. The heir will not wait for
/// our leases to lapse, so we read no more before we ask.
#[test]
fn a_primary_whose_disk_hangs_hands_over_and_reads_no_more() {
    let mut primary = settled_primary(&[S, T]);
    step(&mut primary, propose(7, b"x"));
    step(&mut primary, Input::Settle);
    step(&mut primary, prepared(T, 1, 2));
    for node in [S, T] {
        step_at(&mut primary, at(2_500), Input::Granted(node, Epoch(1), at(2_500)));
    }
    assert!(primary.may_read(at(2_500)));
    let why = Why::Slow { node: P, behind: Duration::from_millis(2_500) };
    let without_me = Effect::ProposeConfiguration(configuration(2, T, &[S]), why);
    assert_eq!(step_at(&mut primary, at(2_500), Input::Tick), [without_me]);
    assert!(!primary.may_read(at(2_500)) && !primary.may_write(at(2_500)));
}

/// A stall that all share (one machine, one disk) is nobody's fault.
#[test]
fn a_stall_that_all_share_changes_nothing() {
    let mut primary = settled_primary(&[S]);
    step(&mut primary, propose(7, b"x"));
    step(&mut primary, Input::Settle);
    step_at(&mut primary, at(2_500), Input::Granted(S, Epoch(1), at(2_500)));
    assert_eq!(step_at(&mut primary, at(2_500), Input::Tick), []);
    assert!(primary.may_read(at(2_500)));
}

// ---- the vocabulary -------------------------------------------------------------------------------------------------------

/// Periods that are easy to count with.
fn timing() -> Timing {
    let (beacon, lease, grace) = (Duration::from_millis(150), Duration::from_millis(600), Duration::from_millis(900));
    Timing { beacon, lease, grace, ..Timing::default() }
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn configuration(epoch: u32, primary: NodeId, secondaries: &[NodeId]) -> Configuration {
    Configuration { epoch: Epoch(epoch), primary, secondaries: secondaries.to_vec() }
}

/// The primary of epoch 1, whose first entry is committed, with leases from time 0 on.
fn settled_primary(secondaries: &[NodeId]) -> Replica {
    let mut primary = Replica::new(TabletId(1), P, timing());
    step(&mut primary, Input::Assign(configuration(1, P, secondaries), None));
    step(&mut primary, Input::Session(at(0)));
    step(&mut primary, Input::Settle);
    step(&mut primary, Input::Durable(2));
    for &node in secondaries {
        step(&mut primary, prepared(node, 1, 1));
        step(&mut primary, Input::Granted(node, Epoch(1), at(0)));
    }
    assert!(primary.may_read(at(0)) && primary.may_write(at(0)));
    primary
}

/// A secondary of epoch 1 that holds nothing yet.
fn settled_secondary() -> Replica {
    let mut secondary = Replica::new(TabletId(1), S, timing());
    step(&mut secondary, Input::Assign(configuration(1, P, &[S]), None));
    step(&mut secondary, Input::Durable(1));
    secondary
}

/// The same with another secondary beside it.
fn settled_secondary_of_three() -> Replica {
    let mut secondary = Replica::new(TabletId(1), S, timing());
    step(&mut secondary, Input::Assign(configuration(1, P, &[S, T]), None));
    step(&mut secondary, Input::Durable(1));
    secondary
}

fn step(replica: &mut Replica, input: Input) -> Vec<Effect> {
    step_at(replica, at(0), input)
}

fn step_at(replica: &mut Replica, now: Instant, input: Input) -> Vec<Effect> {
    let mut out = Vec::new();
    replica.step(now, input, &mut out);
    out
}

fn entry(lsn: u64, epoch: u32, payload: &'static [u8]) -> Entry {
    Entry { lsn: Lsn(lsn), epoch: Epoch(epoch), payload: Bytes::from_static(payload) }
}

fn propose(ticket: u64, payload: &'static [u8]) -> Input {
    Input::Propose(Ticket(ticket), Bytes::from_static(payload))
}

fn received(from: NodeId, message: GroupMessage) -> Input {
    Input::Receive(from, message)
}

fn prepared(from: NodeId, epoch: u32, upto: u64) -> Input {
    received(from, GroupMessage::Prepared { epoch: Epoch(epoch), upto: Lsn(upto) })
}

fn prepare_message(epoch: u32, committed: u64, lsn: u64, payload: &'static [u8]) -> GroupMessage {
    let entries = vec![entry(lsn, epoch, payload)];
    GroupMessage::Prepare { epoch: Epoch(epoch), committed: Lsn(committed), entries }
}

fn prepare(to: NodeId, epoch: u32, committed: u64, lsn: u64, payload: &'static [u8]) -> Effect {
    send(to, prepare_message(epoch, committed, lsn, payload))
}

fn send(to: NodeId, message: GroupMessage) -> Effect {
    Effect::Send(to, message)
}

fn append(lsn: u64, epoch: u32, payload: &'static [u8]) -> Effect {
    Effect::Append(vec![entry(lsn, epoch, payload)])
}

fn commit(lsn: u64, epoch: u32, payload: &'static [u8], ticket: Option<u64>) -> Effect {
    Effect::Commit(vec![(entry(lsn, epoch, payload), ticket.map(Ticket))])
}
