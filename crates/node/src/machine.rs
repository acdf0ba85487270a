//! The node itself: who gets which input, and what its tablets' effects become.

use bytes::Bytes;
use model::request::Role;
use model::{ClusterId, Epoch, Incarnation, Instant, Lsn, NodeId, Refusal, Schema, TabletId, Ticket, Timestamp};
use protocol::notes::Notes;
use protocol::replica::{Effect as GroupEffect, Input as GroupInput};
use protocol::{Core, Entry, GroupMessage, Mutant, NodeMessage, Replica, Stamp, Timing, ToMaster};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use store::log::{Kind, Record};
use store::{Error, Job};

use crate::api::{Effect, Event, Input};
use crate::catch_up::{Giving, LogReading};
use crate::checkpoints::Checkpoints;
use crate::deadlines::Deadlines;
use crate::digest::Digests;
use crate::eventual::Seen;
use crate::garbage::Garbage;
use crate::hosted::{Applied, Hosted};
use crate::lanes::Write;
use crate::pressure::{Stall, Stalls};
use crate::quarantine::{Lost, Refused, Tally};
use crate::read::Found;
use crate::report::Reporting;
use crate::scrub::Scrubbing;
use crate::splits::Wish;
use crate::standing::{Heard, Told};
use crate::tidy::Tidying;

/// The log keeps the node's own state, its cluster's id, under this number.
pub(crate) const NODE_ITSELF: TabletId = TabletId(0);

/// When a memtable goes to disk.
#[derive(Clone, Debug)]
pub struct FlushOptions {
    /// At this many bytes.
    pub bytes: usize,
    /// At this many updates.
    pub updates: u64,
    /// When the log has this many bytes: then every tablet's.
    pub log_bytes: u64,
}

impl Default for FlushOptions {
    fn default() -> FlushOptions {
        FlushOptions { bytes: 32 << 20, updates: 100_000, log_bytes: 4 << 30 }
    }
}

/// What a node does when it has time.
#[derive(Clone, Debug)]
pub struct Upkeep {
    /// The date at which the node is opened.
    pub date: Timestamp,
    /// What was thrown away is kept for so long.
    pub trash_keep: Duration,
    /// All files are read once in this time, to find damage; zero is never.
    pub scrub_every: Duration,
    /// All groups that the node leads compare their replicas once in this time; zero is never.
    pub digest_every: Duration,
}

impl Default for Upkeep {
    fn default() -> Upkeep {
        let day = Duration::from_secs(86_400);
        Upkeep { date: Timestamp(0), trash_keep: day, scrub_every: day * 3, digest_every: day / 4 }
    }
}

/// What a node must be told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which node.
    pub id: NodeId,
    /// Where others reach its gRPC port, `host:port`.
    pub address: String,
    /// The protocol's periods.
    pub timing: Timing,
    /// Chance, used once: for a new disk's id.
    pub seed: u64,
    /// When memtables go to disk.
    pub flush: FlushOptions,
    /// The shared log's options.
    pub log: store::log::Options,
    /// How tables are kept.
    pub tables: store::keeper::Options,
    /// What is done when there is time.
    pub upkeep: Upkeep,
}

/// Why a read is under way.
#[derive(Debug)]
pub(crate) enum Reading {
    /// A client asked. By the schema the cells that are found have their names, also if it changes meanwhile.
    Request { ticket: Ticket, tablet: TabletId, epoch: Epoch, schema: Arc<Schema> },
    /// The same, of whatever is applied here.
    Eventual { ticket: Ticket, tablet: TabletId, schema: Arc<Schema>, seen: Seen },
    /// A write waits for its condition to be judged.
    Condition { tablet: TabletId, epoch: Epoch, write: Write },
    /// The tablet is to be split in its middle.
    Middle { tablet: TabletId, wish: Wish },
}

/// What a job under way is for.
#[derive(Debug)]
pub(crate) enum Working {
    Flush {
        tablet: TabletId,
    },
    Merge {
        tablet: TabletId,
    },
    Drop {
        tablet: TabletId,
    },
    Fetch {
        tablet: TabletId,
        to: NodeId,
        attempt: u64,
        file: u32,
        offset: u64,
    },
    Receive {
        tablet: TabletId,
        attempt: u64,
        len: u64,
    },
    Adopt {
        tablet: TabletId,
        upto: Lsn,
        note: Bytes,
    },
    Scrub {
        tablet: TabletId,
    },
    CheckLog,
    Digest {
        tablet: TabletId,
    },
    Checkpoint {
        ticket: Ticket,
        tablet: TabletId,
    },
    /// What it is about, for an event; nobody waits for a count.
    Checkpoints {
        ticket: Option<Ticket>,
        about: String,
    },
    Empty,
}

/// A storage node.
#[derive(Debug)]
pub struct Node {
    pub(crate) options: Options,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) disk: u64,
    pub(crate) incarnation: Incarnation,

    pub(crate) hosted: BTreeMap<TabletId, Hosted>,
    /// Tablets that should be hosted, but were damaged beyond that.
    pub(crate) lost: BTreeMap<TabletId, Lost>,
    /// Until then, a tablet that nobody here knows may be one that the log has lost.
    pub(crate) forgot: Option<Instant>,
    pub(crate) scrubbing: Scrubbing,
    pub(crate) tidying: Tidying,
    pub(crate) digests: Digests,
    pub(crate) garbage: Garbage,
    pub(crate) checkpoints: Checkpoints,
    /// Tablets of which the disk refused to read something lately.
    pub(crate) refused: BTreeMap<TabletId, Refused>,
    /// Tablets that are learned anew, and why.
    pub(crate) healing: BTreeMap<TabletId, String>,
    /// How often damage was met, by what was damaged, and how often it was repaired.
    pub(crate) tally: Tally,
    /// Tablets whose replicas were stepped in this batch.
    pub(crate) touched: BTreeSet<TabletId>,
    /// Tablets that were removed in this life, and as of which epoch: to found them again takes a later one.
    pub(crate) forgotten: BTreeMap<TabletId, Epoch>,
    /// Tablets whose files are being removed.
    pub(crate) dropping: BTreeSet<TabletId>,
    /// Those among them whose files wait for the log to say on disk that they go: at this count of records. Files that
    /// go first would leave a replica in the log whose rows are nowhere, if that sync fails or the machine does.
    pub(crate) to_drop: VecDeque<(u64, TabletId)>,
    /// Tablets whose checkpoint is being put in place.
    pub(crate) adopting: BTreeSet<TabletId>,

    /// Records given to the log since the node was opened, and which replicas' marks wait for which count.
    pub(crate) logged: u64,
    pub(crate) unsynced: VecDeque<(u64, TabletId, u64)>,

    /// Tablets whose writes wait, and how often and for how long they did before.
    pub(crate) stalled: BTreeMap<TabletId, Stall>,
    pub(crate) stalls: Stalls,

    pub(crate) last_id: u64,
    pub(crate) reads: BTreeMap<u64, Reading>,
    pub(crate) log_reads: BTreeMap<u64, LogReading>,
    pub(crate) jobs: BTreeMap<u64, Working>,
    pub(crate) giving: BTreeMap<(TabletId, NodeId), Giving>,

    pub(crate) room: bool,
    /// Nodes whose disks are full, as they say.
    pub(crate) full_peers: BTreeSet<NodeId>,
    pub(crate) log_bytes: u64,
    /// What the primaries here have told each peer, and what each peer's have told us.
    pub(crate) told: BTreeMap<NodeId, Told>,
    pub(crate) heard: BTreeMap<NodeId, Heard>,
    /// Tablets that are led here and that every beacon names.
    pub(crate) aloud: BTreeSet<TabletId>,
    /// Tablets whose replicas were stepped since they were last looked at.
    pub(crate) stirred: BTreeSet<TabletId>,
    /// When the process went on after it was stopped for the last time.
    pub(crate) woken: Instant,
    pub(crate) reporting: Reporting,
    /// The last stamp of every peer, which goes back to it.
    pub(crate) stamps: BTreeMap<NodeId, Stamp>,
    /// The date as the host said it last, and when that was.
    pub(crate) date: (Instant, Timestamp),
    /// Events on their way to the master.
    pub(crate) notes: Notes,

    pub(crate) stepped: Instant,
    pub(crate) deadlines: Deadlines,
    pub(crate) next_beacon: Instant,
    /// When the last beacons went out.
    pub(crate) beaconed: Option<Instant>,
    pub(crate) reported: Instant,
    /// When it last told the master something that was answered.
    pub(crate) session: Option<Instant>,
    pub(crate) ask_master: bool,
    /// Something changed about who is who: beacons and a report are due at once.
    pub(crate) changed: bool,
}

impl Node {
    pub(crate) fn new(options: Options, identity: crate::identity::Identity, now: Instant) -> Node {
        let date = options.upkeep.date;
        let digests = Digests::new(now, options.upkeep.digest_every);
        Node {
            options,
            cluster: None,
            disk: identity.disk,
            incarnation: identity.incarnation,
            hosted: BTreeMap::new(),
            lost: BTreeMap::new(),
            forgot: None,
            scrubbing: Scrubbing::new(now),
            tidying: Tidying::default(),
            digests,
            refused: BTreeMap::new(),
            healing: BTreeMap::new(),
            garbage: Garbage::new(now),
            checkpoints: Checkpoints::default(),
            tally: Tally::default(),
            touched: BTreeSet::new(),
            dropping: BTreeSet::new(),
            forgotten: BTreeMap::new(),
            to_drop: VecDeque::new(),
            adopting: BTreeSet::new(),
            logged: 0,
            unsynced: VecDeque::new(),
            stalled: BTreeMap::new(),
            stalls: Stalls::default(),
            last_id: 0,
            reads: BTreeMap::new(),
            log_reads: BTreeMap::new(),
            jobs: BTreeMap::new(),
            giving: BTreeMap::new(),
            room: true,
            full_peers: BTreeSet::new(),
            log_bytes: 0,
            told: BTreeMap::new(),
            heard: BTreeMap::new(),
            aloud: BTreeSet::new(),
            stirred: BTreeSet::new(),
            woken: Instant::ZERO,
            reporting: Reporting::default(),
            stamps: BTreeMap::new(),
            date: (now, date),
            notes: Notes::default(),
            stepped: now,
            deadlines: Deadlines::default(),
            next_beacon: now,
            beaconed: None,
            reported: now,
            session: None,
            ask_master: true,
            changed: true,
        }
    }

    /// Which node this is.
    pub fn id(&self) -> NodeId {
        self.options.id
    }

    /// The cluster it belongs to, once it has joined one.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Its replicas, for checkers and metrics.
    pub fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.hosted.values().map(|hosted| &hosted.replica)
    }

    /// Its replica of a tablet. For checkers.
    pub fn replica(&self, tablet: TabletId) -> Option<&Replica> {
        self.hosted.get(&tablet).map(|hosted| &hosted.replica)
    }

    /// The rows of a tablet as far as they are applied here, and up to where that is. For checkers: no lease is asked.
    pub fn applied(&self, tablet: TabletId) -> Option<(Lsn, store::View, Arc<model::Schema>)> {
        let hosted = self.hosted.get(&tablet)?;
        Some((hosted.rows.applied(), hosted.rows.view(), Arc::clone(&hosted.schema)))
    }

    /// The completion records of a tablet, as bytes. For checkers.
    pub fn completions(&self, tablet: TabletId) -> Option<Bytes> {
        self.hosted.get(&tablet).map(|hosted| hosted.completions.to_bytes())
    }

    /// Bytes of the log, as last heard of the host.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Has it this fault, one of those that check the checkers?
    pub(crate) fn mutant(&self, mutant: Mutant) -> bool {
        self.options.timing.planted.has(mutant)
    }

    pub(crate) fn disk_full(&self) -> bool {
        !self.room
    }

    pub(crate) fn draw_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn log(&mut self, records: Vec<Record>, out: &mut Vec<Effect>) {
        self.logged += records.len() as u64;
        out.push(Effect::Log(records));
    }

    pub(crate) fn step_replica(&mut self, now: Instant, tablet: TabletId, input: GroupInput, out: &mut Vec<Effect>) {
        let mut effects = Vec::new();
        if self.touched.insert(tablet) {
            self.stirred.insert(tablet);
            self.catch_up_with_leases(now, tablet, out);
        }
        if let Some(hosted) = self.hosted.get_mut(&tablet) {
            hosted.replica.step(now, input, &mut effects);
            self.deadlines.note(tablet, hosted.replica.deadline());
        }
        self.carry_out(now, tablet, effects, out);
    }

    /// What a replica wants to happen becomes what the node wants to happen.
    pub(crate) fn carry_out(
        &mut self,
        now: Instant,
        tablet: TabletId,
        effects: Vec<GroupEffect>,
        out: &mut Vec<Effect>,
    ) {
        for effect in effects {
            match effect {
                GroupEffect::Append(entries) => self.append(tablet, entries, out),
                GroupEffect::Save { .. } => self.save(tablet, out),
                GroupEffect::Send(to, message) => out.push(Effect::Send(to, NodeMessage::Group(tablet, message))),
                GroupEffect::ProposeConfiguration(configuration, why) => {
                    out.push(Effect::Report(ToMaster::Propose(tablet, configuration, why)));
                }
                GroupEffect::AskMaster => self.ask_master = true,
                GroupEffect::Commit(commits) => self.apply(now, tablet, commits, out),
                GroupEffect::Refuse(ticket, refusal) => out.push(Effect::Refuse(ticket, refusal)),
                GroupEffect::Older { to, from, attempt } => self.on_older(tablet, to, from, attempt, out),
                GroupEffect::LinkBroken(witness) => {
                    let what = format!("the primary is silent here, but {witness} hears it");
                    out.push(Effect::Event(Event { name: "link_broken", tablet: Some(tablet), what }));
                }
                GroupEffect::Suspect(node, why) => {
                    let what = format!("{node} {why}");
                    out.push(Effect::Event(Event { name: "peer_suspected", tablet: Some(tablet), what }));
                }
                GroupEffect::Grant(..) => {}
            }
        }
    }

    fn append(&mut self, tablet: TabletId, entries: Vec<protocol::Entry>, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let committed = hosted.replica.committed();
        let records: Vec<Record> = entries
            .into_iter()
            .map(|entry| {
                let kind = if entry.payload.is_empty() { Kind::NoOp } else { Kind::Command };
                Record { tablet, lsn: entry.lsn, epoch: entry.epoch, committed, kind, body: entry.payload }
            })
            .collect();
        hosted.marks += 1;
        let mark = hosted.marks;
        self.log(records, out);
        self.unsynced.push_back((self.logged, tablet, mark));
    }

    fn save(&mut self, tablet: TabletId, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        hosted.marks += 1;
        let mark = hosted.marks;
        let role = hosted.replica.role();
        let what = format!("{:?} as {role:?}", hosted.replica.configuration());
        let record = state_record(hosted);
        self.log(vec![record], out);
        if matches!(role, Role::Primary | Role::Secondary) {
            self.on_healed(tablet, out);
        }
        self.unsynced.push_back((self.logged, tablet, mark));
        self.changed = true;
        out.push(Effect::Event(Event { name: "replica_configured", tablet: Some(tablet), what }));
    }

    fn on_durable(&mut self, now: Instant, upto: u64, out: &mut Vec<Effect>) {
        let mut marks: BTreeMap<TabletId, u64> = BTreeMap::new();
        while let Some(&(at, tablet, mark)) = self.unsynced.front() {
            if at > upto {
                break;
            }
            marks.insert(tablet, mark);
            self.unsynced.pop_front();
        }
        while let Some(&(_, tablet)) = self.to_drop.front().filter(|(at, _)| *at <= upto) {
            self.to_drop.pop_front();
            self.run(Job::Drop { tablet, date: self.date(now) }, Working::Drop { tablet }, out);
        }
        for (tablet, mark) in marks {
            // A tablet that was dropped and came back counts its marks anew.
            let Some(hosted) = self.hosted.get(&tablet).filter(|hosted| hosted.marks >= mark) else { continue };
            let before = hosted.replica.is_installed();
            self.step_replica(now, tablet, GroupInput::Durable(mark), out);
            // Whoever leads since this moment asks for leases at once.
            let installed = |hosted: &Hosted| hosted.replica.is_installed();
            self.changed |= !before && self.hosted.get(&tablet).is_some_and(installed);
        }
    }

    /// Applies what is committed, answers whoever waits, and lets those go on who waited for these rows.
    fn apply(&mut self, now: Instant, tablet: TabletId, commits: Vec<(Entry, Option<Ticket>)>, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let (mut rows, mut heirs, mut merge, mut pinned) = (Vec::new(), None, None, Vec::new());
        for (entry, ticket) in commits {
            let lsn = entry.lsn;
            match hosted.apply(entry, ticket) {
                Some(Applied::Row(row, answer)) => {
                    out.extend(answer.map(|(ticket, answer)| Effect::answer(ticket, answer)));
                    hosted.lanes.applied(&row);
                    rows.push(row);
                }
                Some(Applied::Batch(request, answer)) => {
                    out.extend(answer.map(|(ticket, answer)| Effect::answer(ticket, answer)));
                    rows.extend(hosted.lanes.batch_applied(request));
                }
                Some(Applied::Split(born)) => heirs = Some(born),
                Some(Applied::Digest(digest)) => pinned.push(hosted.pin(lsn, digest)),
                Some(Applied::Merge(merged)) => merge = Some(merged),
                Some(Applied::Closed(close)) => hosted.ending.closed(close, hosted.rows.applied()),
                Some(Applied::Broken(what)) => {
                    out.push(Effect::Stop(format!("tablet {tablet} cannot go on: {what}")));
                    return;
                }
                None => {}
            }
        }
        match (heirs, merge) {
            (Some(heirs), _) => self.on_born(now, tablet, heirs, out),
            (None, Some(merge)) => self.on_merged(now, tablet, merge, out),
            (None, None) => rows.iter().for_each(|row| self.advance_lane(now, tablet, row, out)),
        }
        pinned.into_iter().for_each(|pinned| self.on_digest_applied(now, pinned, out));
        self.report_closed(tablet, out);
        self.flush_if_due(now, tablet, out);
    }

    fn on_read_done(&mut self, now: Instant, id: u64, found: Result<Found, Error>, out: &mut Vec<Effect>) {
        match self.reads.remove(&id) {
            Some(Reading::Request { ticket, tablet, epoch, schema }) => {
                self.notice(now, tablet, &found, out);
                self.answer_read(now, ticket, tablet, epoch, schema, found, out);
            }
            Some(Reading::Eventual { ticket, tablet, schema, seen }) => {
                self.notice(now, tablet, &found, out);
                self.answer_eventual(now, ticket, tablet, schema, seen, found, out);
            }
            Some(Reading::Condition { tablet, epoch, write }) => {
                self.notice(now, tablet, &found, out);
                let row = write.mutation.row.clone();
                let hosted = self.hosted.get(&tablet);
                if hosted.is_some_and(|hosted| hosted.replica.epoch() == epoch && hosted.may_write(now)) {
                    self.judge(now, tablet, write, found, out);
                    self.advance_lane(now, tablet, &row, out);
                } else {
                    out.push(Effect::Refuse(write.ticket, Refusal::NotReady(tablet)));
                    if let Some(hosted) = self.hosted.get_mut(&tablet) {
                        hosted.lanes.judged(&row, false);
                    }
                    self.advance_lane(now, tablet, &row, out);
                }
            }
            Some(Reading::Middle { tablet, wish }) => {
                self.notice(now, tablet, &found, out);
                self.on_middle(now, tablet, wish, found, out);
            }
            None => {}
        }
    }

    fn on_node_message(&mut self, now: Instant, from: NodeId, message: NodeMessage, out: &mut Vec<Effect>) {
        match message {
            NodeMessage::Beacon { life, sent, base, heard, firm, groups, gone } => {
                self.on_beacon(now, from, life, sent, base, heard, firm, groups, &gone, out);
            }
            NodeMessage::BeaconAck { life, sent, known, groups, without, stamp, disk_full } => {
                self.stamps.insert(from, stamp);
                self.on_beacon_ack(now, from, life, sent, known, groups, without, disk_full, out);
            }
            NodeMessage::Group(tablet, GroupMessage::Offer { epoch, attempt, upto, note, files }) => {
                let current = self.hosted.get(&tablet).is_some_and(|hosted| hosted.replica.epoch() == epoch);
                if current {
                    self.on_offer(now, tablet, from, attempt, upto, note, files, out);
                }
            }
            NodeMessage::Group(tablet, GroupMessage::Fetch { attempt, file, offset }) => {
                self.on_fetch(tablet, from, attempt, file, offset, out);
            }
            NodeMessage::Group(tablet, GroupMessage::Chunk { attempt, file, offset, bytes }) => {
                self.on_chunk(tablet, attempt, file, offset, bytes, out);
            }
            NodeMessage::Group(tablet, GroupMessage::Digest { epoch, lsn, sums }) => {
                self.on_digest(now, tablet, from, epoch, lsn, sums, out);
            }
            NodeMessage::Group(tablet, GroupMessage::Diverged { epoch, lsn, what }) => {
                self.on_diverged(tablet, from, epoch, lsn, what, out);
            }
            // What a replica would acknowledge now, the checkpoint would take away again.
            NodeMessage::Group(tablet, _)
                if self.adopting.contains(&tablet) && !self.mutant(Mutant::ListenWhileAdopting) => {}
            NodeMessage::Group(tablet, message) => {
                let served = self.may_write(now, tablet);
                self.step_replica(now, tablet, GroupInput::Receive(from, message), out);
                // Whoever serves from now on lacks only leases: no need to wait for the next beacons.
                self.changed |= !served && self.may_write(now, tablet);
            }
        }
    }

    fn may_write(&self, now: Instant, tablet: TabletId) -> bool {
        self.hosted.get(&tablet).is_some_and(|hosted| hosted.replica.may_write(now))
    }

    /// The batch is over: send what has gathered.
    fn on_settle(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if !self.stalled.is_empty() {
            self.release_held(now, out);
        }
        for tablet in core::mem::take(&mut self.touched) {
            self.step_replica(now, tablet, GroupInput::Settle, out);
        }
        self.touched.clear();
        if self.changed {
            self.changed = false;
            self.ask_master = true;
            self.send_beacons(now, out);
        }
        let soon = self.reported + self.options.timing.heartbeat / 20;
        if self.ask_master && (now >= soon || self.reported == Instant::ZERO) {
            self.report(now, out);
        }
        self.send_events(now, out);
    }

    fn on_tick(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.wake_if_silent(now, out);
        for tablet in self.deadlines.take_due(now) {
            self.catch_up_with_leases(now, tablet, out);
            let deadline = self.hosted.get(&tablet).and_then(|hosted| hosted.replica.deadline());
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.step_replica(now, tablet, GroupInput::Tick, out);
            } else if !self.is_parked(tablet) {
                self.deadlines.note(tablet, deadline);
            }
        }
        if now >= self.next_beacon {
            self.send_beacons(now, out);
        }
        if now >= self.reported + self.options.timing.heartbeat {
            self.on_catch_up_tick(now, out);
            self.go_on_with_checkpoints(now, None, out);
            self.report(now, out);
            self.settle(now, out);
            let waits = |tablet| self.to_drop.iter().any(|(_, other)| *other == tablet);
            let again = self.dropping.iter().copied().filter(|&tablet| !self.is_busy(tablet) && !waits(tablet));
            let again: Vec<TabletId> = if self.knows_its_tablets(now) { again.collect() } else { Vec::new() };
            for tablet in again {
                self.run(Job::Drop { tablet, date: self.date(now) }, Working::Drop { tablet }, out);
            }
        }
        self.scrub_if_due(now, out);
        self.digest_if_due(now, out);
        self.empty_trash_if_due(now, out);
        self.tidy_if_due(now, out);
    }

    /// After a stop of the whole process nobody else is to blame for the silence.
    fn notice_gap(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if now.since(self.stepped) > self.options.timing.grace / 2 {
            let tablets: Vec<TabletId> = self.hosted.keys().copied().collect();
            for tablet in tablets {
                self.step_replica(now, tablet, GroupInput::Gap, out);
            }
            self.forget_grants(now);
            self.ask_master = true;
        }
        self.stepped = now;
    }
}

pub(crate) fn state_record(hosted: &Hosted) -> Record {
    Record {
        tablet: hosted.id(),
        lsn: Lsn::ZERO,
        epoch: hosted.replica.epoch(),
        committed: hosted.replica.committed(),
        kind: Kind::State,
        body: hosted.state(),
    }
}

impl Core for Node {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        let before = out.len();
        self.notice_gap(now, out);
        match input {
            Input::Date(date) => self.date = (now, date),
            Input::Request { ticket, wall, request } => self.on_request(now, ticket, wall, request, out),
            Input::Checkpoint(ticket, order) => self.on_checkpoint_order(now, ticket, order, out),
            Input::FromNode(from, message) => self.on_node_message(now, from, message, out),
            Input::FromMaster(message) => self.on_master_message(now, message, out),
            Input::Durable(upto) => self.on_durable(now, upto, out),
            Input::ReadDone(id, found) => self.on_read_done(now, id, found, out),
            Input::LogRead(id, result) => self.on_log_read(now, id, result, out),
            Input::JobDone(id, result) => self.on_job_done(now, id, result, out),
            Input::Room(room) => self.on_room(now, room, out),
            Input::LogBytes(bytes) => self.on_log_bytes(now, bytes, out),
            Input::Settle => self.on_settle(now, out),
            Input::Tick => self.on_tick(now, out),
        }
        self.note_events(now, &out[before..]);
    }

    fn deadline(&self) -> Option<Instant> {
        let replicas = self.deadlines.earliest();
        let own = self.next_beacon.min(self.reported + self.options.timing.heartbeat);
        let scrub = self.scrubbing.deadline(self.options.upkeep.scrub_every);
        let digest = self.digests.deadline(self.options.upkeep.digest_every);
        let silence = self.silence_deadline();
        let (garbage, notes) = (self.garbage.deadline(), self.notes.deadline());
        let (tidy, stall) = (self.tidying.deadline(), self.stall_deadline());
        [replicas, silence, scrub, digest, garbage, notes, tidy, stall, Some(own)].into_iter().flatten().min()
    }
}
