//! The world of the whole house: what happens when, and who hears of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::random::Random;
use model::{Instant, NodeId, TabletId, Ticket};
use node::Effect;
use protocol::Timing;

use super::check::Record;
use super::client::Client;
use super::elastic::{SPLIT_BYTES, SPLIT_LOAD};
use super::faults::{Climate, Fault, Weather};
use super::follow::Follower;
use super::ledger;
use super::load::BATCH_HISTORIES;
use super::machine::{Machine, timing};
use super::master::Mastery;
use super::meddler::MEDDLING;
use super::net::Packet;
use super::schedule::{self, Planned};
use super::{Setting, Summary};
use crate::agenda::{Agenda, MS, SECOND};
use crate::group::Violation;

pub(super) const MASTER: usize = 0;
/// Clients stand behind all nodes, also behind those that come later.
pub(super) const CLIENTS: usize = 1000;
/// When the faults begin and end, when the clients begin to read only, and when everything ends.
pub(super) const BEGINS: u64 = 2 * SECOND;
pub(super) const HEALED: u64 = 10 * SECOND;
/// When everybody has heard of what the operator did last.
pub(super) const SETTLED: u64 = 14 * SECOND;
pub(super) const LAST_READS: u64 = 22 * SECOND;
pub(super) const END: u64 = 27 * SECOND;
/// The date when the world began.
pub(super) const EPOCH_US: i64 = 1_700_000_000_000_000;
/// The ticket of whoever sets the house up, and that of who changes its tables later.
pub(super) const SETUP: Ticket = Ticket(u64::MAX);
pub(super) const OPERATOR: Ticket = Ticket(u64::MAX - 1);

#[derive(Debug)]
pub(super) enum Happening {
    Deliver { from: usize, to: usize, packet: Box<Packet> },
    Drain { node: usize, life: u64 },
    Wake { node: usize, life: u64 },
    Synced { node: usize, life: u64 },
    Reserve { node: usize, life: u64 },
    Work { node: usize, life: u64, effect: Box<Effect> },
    Commit { life: u64 },
    Follow { life: u64 },
    Undeceive { life: u64 },
    MasterWake { life: u64 },
    Setup,
    Operate,
    Act(usize),
    Attempt { client: usize, sequence: u64, attempt: u64 },
    Fault(Box<Planned>),
    Heal,
    Restart(usize),
    Resume(usize),
    Roomy(usize),
    Readable(usize),
    MasterStart,
    GoWrong,
    ReadChanges,
}

pub(super) struct World {
    pub agenda: Agenda<Happening>,
    /// Who follows what happens to rows, if anybody does.
    pub follower: Option<Follower>,
    pub random: Random,
    /// Chance of what concerns merges, likewise.
    pub joining: Random,
    /// Chance of what concerns splits, so that histories without them stay what they were.
    pub elastic: Random,
    /// Likewise of late copies.
    pub extra: Random,
    /// Likewise of writes of many rows.
    pub batching: Random,
    pub climate: Climate,
    pub timing: Timing,
    pub machines: Vec<Machine>,
    pub mastery: Mastery,
    pub clients: Vec<Client>,
    /// Until when which links are cut.
    pub blocked: BTreeMap<(usize, usize), u64>,
    pub weather: Weather,
    /// Faults that wait for a state.
    pub ambushes: Vec<Planned>,
    /// Who was taken out of which group, the last at the end: what the meddler wants back.
    pub removed: Vec<(TabletId, NodeId)>,
    /// Those that have struck.
    pub struck: Vec<Fault>,
    /// A log is about to be trimmed.
    pub trimming: bool,
    /// A history in which these strike one after the other is bad by definition: shrinking is tried on it.
    pub forbidden: Vec<Fault>,
    /// When all is healed, and by how much everything after that is earlier than usual.
    pub healed_at: u64,
    pub shift: u64,
    pub arrival: BTreeMap<(usize, usize), u64>,
    pub record: Record,
    /// A promise that was broken by what the step has only begun.
    pub broken: Option<String>,
    pub next_value: u64,
    pub ready: bool,
    /// How often nodes compare their replicas; zero is never.
    pub digest_every: Duration,
    /// The memory of a replica has gone wrong.
    pub wrong: bool,
    /// A byte on some disk has changed.
    pub rotten: bool,
    /// Since when the last copy of something is lost.
    pub doomed_at: Option<u64>,
    /// Since when a node does not open because of that: an operator would have to give it an empty folder.
    pub stuck_at: Option<u64>,
    pub summary: Summary,
    pub verbose: usize,
    pub events: VecDeque<String>,
}

pub(super) type Checked = Result<(), String>;

impl World {
    pub fn new(seed: u64, verbose: usize, setting: &Setting) -> World {
        let mut random = Random::new(seed);
        let nodes = random.between(3, 6) as usize;
        let mut elastic = Random::new(seed ^ 0xe1a5_71c0);
        let mut extra = Random::new(seed ^ 0x1a7e_0000);
        let mut climate = Climate::draw(&mut random, &mut extra, setting.faults.as_ref(), setting.calm);
        climate.ledger = extra.chance(ledger::HISTORIES);
        climate.meddling = extra.chance(MEDDLING) || setting.meddling;
        climate.elastic = elastic.chance(60);
        climate.split_bytes = if elastic.chance(40) { SPLIT_BYTES } else { 0 };
        // A chance of its own: other seeds live as they always did.
        // It goes on to the end, and the balance would go on with it.
        let busy = Random::new(seed ^ 0x10ad).chance(30) && !climate.balance;
        climate.split_load = if busy { SPLIT_LOAD } else { 0 };
        // Chance of its own, so that the pinned histories stay what they were.
        let compares = Random::new(seed ^ 0x0d16_e533).chance(50) || setting.goes_wrong;
        if setting.goes_wrong {
            // Of two, nobody knows who is right; what is dropped tells nothing.
            (climate.replicas, climate.families, climate.tables) = (3, false, false);
        }
        let mut joining = Random::new(seed ^ 0x9019_7063);
        climate.merges = climate.elastic && !setting.goes_wrong && joining.chance(70);
        // The pinned histories have none.
        let mut batching = Random::new(seed ^ 0x0ba7_c565);
        climate.batches = batching.chance(BATCH_HISTORIES);
        let clients = random.between(2, 7) as usize;
        let clients = setting.clients.unwrap_or(clients);
        let healed_at = setting.heal_at.map_or(HEALED, |at| at.clamp(BEGINS, HEALED));
        // All are drawn, whenever the faults end: what is planned keeps its number.
        let planned = schedule::draw(&mut random.fork(), &climate, nodes, BEGINS, HEALED);
        let mut world = World {
            agenda: Agenda::default(),
            follower: setting.changes.then(|| Follower::new(seed)),
            random,
            elastic,
            extra,
            batching,
            joining,
            climate,
            // Entries that are longer, so that checkers see as many of them.
            timing: Timing { keep_bytes: timing().keep_bytes * if setting.changes { 4 } else { 1 }, ..timing() },
            machines: (0..=nodes).map(|_| Machine::new()).collect(),
            mastery: Mastery::new(),
            clients: (0..clients).map(|client| Client::new(1 + client as u64)).collect(),
            blocked: BTreeMap::new(),
            weather: Weather::default(),
            ambushes: Vec::new(),
            removed: Vec::new(),
            struck: Vec::new(),
            trimming: false,
            forbidden: setting.forbidden.clone(),
            healed_at,
            shift: HEALED - healed_at,
            arrival: BTreeMap::new(),
            record: Record::default(),
            digest_every: if compares { Duration::from_secs(1) } else { Duration::ZERO },
            wrong: false,
            broken: None,
            rotten: false,
            doomed_at: None,
            stuck_at: None,
            next_value: 0,
            ready: false,
            summary: Summary::default(),
            verbose,
            events: VecDeque::new(),
        };
        world.agenda.at(0, Happening::MasterStart);
        for node in 1..=nodes {
            world.agenda.at(node as u64, Happening::Restart(node));
        }
        world.agenda.at(1500 * MS, Happening::Setup);
        for planned in schedule::chosen(planned, setting) {
            world.agenda.at(planned.at, Happening::Fault(Box::new(planned)));
        }
        world.agenda.at(healed_at, Happening::Heal);
        world.agenda.at(2 * SECOND, Happening::Operate);
        if setting.changes {
            world.agenda.at(1600 * MS, Happening::ReadChanges);
        }
        if setting.goes_wrong {
            world.agenda.at(4 * SECOND, Happening::GoWrong);
        }
        world
    }

    /// The faults that will strike.
    pub fn planned(mut self) -> Vec<Planned> {
        let mut planned = Vec::new();
        while let Some(happening) = self.agenda.take() {
            if let Happening::Fault(fault) = happening {
                planned.push(*fault);
            }
        }
        planned
    }

    pub fn run(mut self) -> Result<Summary, Violation> {
        if self.verbose > 0 {
            let climate =
                format!("{} nodes, {} clients, {:?}", self.machines.len() - 1, self.clients.len(), self.climate);
            self.events.push_back(climate);
        }
        let mut result = Ok(());
        while self.agenda.now() < self.end() && result.is_ok() {
            // An assertion of a core is a violation like any other.
            let step = std::panic::AssertUnwindSafe(|| self.step());
            result = std::panic::catch_unwind(step).unwrap_or_else(|panic| Err(crate::group::words_of(&*panic)));
        }
        let result = result.and_then(|()| self.check_end());
        self.summary.changes = self.follower.as_ref().map_or(0, Follower::given);
        self.summary.lived = self.agenda.now();
        self.summary.dropped = self.record.dropped.len() as u64;
        self.summary.epochs = self.record.newest.values().map(|epoch| u64::from(epoch.0)).sum();
        match result {
            Ok(()) => Ok(self.summary),
            Err(what) => Err(Violation { time: self.agenda.now(), what, events: self.events.into_iter().collect() }),
        }
    }

    /// When the history ends: soon, if a node is gone for good.
    fn end(&self) -> u64 {
        let hopeless = self.stuck_at.into_iter().chain(self.doomed_at).min();
        hopeless.map_or(self.later(END), |at| self.later(END).min(at + SECOND))
    }

    /// When this phase begins in this history, of those after the healing.
    pub fn later(&self, phase: u64) -> u64 {
        phase - self.shift
    }

    fn step(&mut self) -> Checked {
        let happening = self.agenda.take().ok_or("nothing happens any more")?;
        let now = self.agenda.now();
        let kind = match &happening {
            Happening::Deliver { from, to, .. } => 1 + *from as u64 * 7 + *to as u64 * 31,
            Happening::Drain { node, .. } => 2 + *node as u64 * 7,
            Happening::Wake { node, .. } => 3 + *node as u64 * 7,
            _ => 4,
        };
        self.summary.trace = (self.summary.trace.rotate_left(5) ^ now ^ kind).wrapping_mul(0x517c_c1b7_2722_0a95);
        if self.verbose > 0
            && !matches!(happening, Happening::Drain { .. } | Happening::Wake { .. } | Happening::MasterWake { .. })
        {
            self.say(short(format!("{happening:?}")));
        }
        self.on(happening)?;
        self.broken.take().map_or(Ok(()), Err)
    }

    pub(super) fn say(&mut self, what: String) {
        if self.verbose > 0 {
            if self.events.len() > self.verbose {
                self.events.remove(1);
            }
            self.events.push_back(format!("{:?} {what}", Instant(self.agenda.now())));
        }
    }

    fn on(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Deliver { from, to, packet } => return self.on_packet(from, to, *packet),
            Happening::Drain { node, life } if self.lives(node, life) => return self.drain(node),
            Happening::Wake { node, life } if self.lives(node, life) => self.wake(node),
            Happening::Synced { node, .. } | Happening::Reserve { node, .. } | Happening::Work { node, .. }
                if self.hangs_until(node).is_some() =>
            {
                let until = self.hangs_until(node).unwrap_or(0);
                self.agenda.at(until, happening);
            }
            Happening::Synced { node, life } if self.lives(node, life) => return self.on_synced(node),
            Happening::Reserve { node, life } if self.lives(node, life) => return self.reserve(node),
            Happening::Work { node, life, effect } if self.lives(node, life) => return self.work(node, *effect),
            Happening::Commit { life } => {
                self.commit(life);
                return self.check_tiling();
            }
            Happening::Follow { life } => return self.follow(life),
            Happening::Undeceive { life } => return self.undeceive(life),
            Happening::MasterWake { life } => self.wake_master(life),
            Happening::Setup => self.set_up(),
            Happening::Operate => self.operate(),
            Happening::Act(client) => return self.act(client),
            Happening::Attempt { client, sequence, attempt } => return self.attempt(client, sequence, attempt),
            Happening::Fault(planned) => return self.on_fault(*planned),
            Happening::Heal => self.heal(),
            Happening::Restart(node) => return self.start(node),
            Happening::Resume(node) => self.resume(node),
            Happening::Roomy(node) => self.machines[node].disk.set_capacity(None),
            Happening::Readable(node) => self.machines[node].disk.fail_all_reads(false),
            Happening::MasterStart => return self.start_master(),
            Happening::GoWrong => self.go_wrong(),
            Happening::ReadChanges => self.read_changes(),
            _ => {}
        }
        Ok(())
    }
}

/// Payloads are long.
pub(super) fn short(mut text: String) -> String {
    if text.len() > 700 {
        let end = (0..=700).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
