//! The world of the whole house: what happens when, and who hears of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use model::random::Random;
use model::{Instant, Ticket};
use node::Effect;
use protocol::Timing;

use super::Summary;
use super::check::Record;
use super::client::Client;
use super::faults::{Climate, Fault};
use super::machine::{Machine, timing};
use super::master::Mastery;
use super::net::Packet;
use crate::agenda::{Agenda, MS, SECOND};
use crate::group::Violation;

pub(super) const MASTER: usize = 0;
/// When the faults end, when the clients begin to read only, and when everything ends.
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
    Deliver { from: usize, to: usize, packet: Packet },
    Drain { node: usize, life: u64 },
    Wake { node: usize, life: u64 },
    Synced { node: usize, life: u64 },
    Reserve { node: usize, life: u64 },
    Work { node: usize, life: u64, effect: Box<Effect> },
    Commit { life: u64, command: Bytes },
    MasterWake { life: u64 },
    Setup,
    Operate,
    Act(usize),
    Attempt { client: usize, sequence: u64, attempt: u64 },
    Fault,
    Restart(usize),
    Resume(usize),
    Unblock(usize, usize),
    Roomy(usize),
    MasterStart,
}

pub(super) struct World {
    pub agenda: Agenda<Happening>,
    pub random: Random,
    pub climate: Climate,
    pub timing: Timing,
    pub machines: Vec<Machine>,
    pub mastery: Mastery,
    pub clients: Vec<Client>,
    pub blocked: BTreeSet<(usize, usize)>,
    pub arrival: BTreeMap<(usize, usize), u64>,
    pub record: Record,
    pub next_value: u64,
    pub ready: bool,
    /// A byte on some disk has changed, and since when somebody knows.
    pub rotten: bool,
    pub noticed_at: Option<u64>,
    pub summary: Summary,
    pub verbose: usize,
    pub events: VecDeque<String>,
}

pub(super) type Checked = Result<(), String>;

impl World {
    pub fn new(seed: u64, verbose: usize, faults: Option<&BTreeSet<Fault>>) -> World {
        let mut random = Random::new(seed);
        let nodes = random.between(3, 6) as usize;
        let climate = Climate::draw(&mut random, faults);
        let clients = random.between(2, 7) as usize;
        let mut world = World {
            agenda: Agenda::default(),
            random,
            climate,
            timing: timing(),
            machines: (0..=nodes).map(|_| Machine::new()).collect(),
            mastery: Mastery { master: None, life: 0, started: 0, log: Vec::new(), snapshot: None },
            clients: (0..clients).map(|client| Client::new(1 + client as u64)).collect(),
            blocked: BTreeSet::new(),
            arrival: BTreeMap::new(),
            record: Record::default(),
            rotten: false,
            noticed_at: None,
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
        world.agenda.at(2 * SECOND, Happening::Fault);
        world.agenda.at(2 * SECOND, Happening::Operate);
        world
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
        self.summary.lived = self.agenda.now();
        self.summary.damaged = self.noticed_at.is_some();
        self.summary.dropped = self.record.dropped.len() as u64;
        self.summary.epochs = self.record.newest.values().map(|epoch| u64::from(epoch.0)).sum();
        match result {
            Ok(()) => Ok(self.summary),
            Err(what) => Err(Violation { time: self.agenda.now(), what, events: self.events.into_iter().collect() }),
        }
    }

    /// When the history ends: soon, if there is damage that nothing repairs.
    fn end(&self) -> u64 {
        self.noticed_at.map_or(END, |at| END.min(at + SECOND))
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
        self.on(happening)
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
            Happening::Deliver { from, to, packet } => return self.on_packet(from, to, packet),
            Happening::Drain { node, life } if self.lives(node, life) => return self.drain(node),
            Happening::Wake { node, life } if self.lives(node, life) => self.wake(node),
            Happening::Synced { node, life } if self.lives(node, life) => return self.on_synced(node),
            Happening::Reserve { node, life } if self.lives(node, life) => return self.reserve(node),
            Happening::Work { node, life, effect } if self.lives(node, life) => return self.work(node, *effect),
            Happening::Commit { life, command } if self.mastery.life == life && self.mastery.master.is_some() => {
                self.mastery.log.push(command.clone());
                let index = self.mastery.log.len() as u64;
                self.step_master(master::Input::Committed(index, command));
                if let Some(master) = &self.mastery.master {
                    self.record.on_decision(self.agenda.now(), master);
                }
                self.maybe_snapshot();
            }
            Happening::MasterWake { life } if self.mastery.life == life => self.wake_master(),
            Happening::Setup => self.set_up(),
            Happening::Operate => self.operate(),
            Happening::Act(client) => return self.act(client),
            Happening::Attempt { client, sequence, attempt } => return self.attempt(client, sequence, attempt),
            Happening::Fault => self.on_fault(),
            Happening::Restart(node) => return self.start(node),
            Happening::Resume(node) => self.resume(node),
            Happening::Unblock(from, to) => {
                self.blocked.remove(&(from, to));
            }
            Happening::Roomy(node) => self.machines[node].disk.set_capacity(None),
            Happening::MasterStart => return self.start_master(),
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
