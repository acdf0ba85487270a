//! The world of one group: what happens when, and who hears of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use model::random::Random;
use model::{Configuration, Instant, Lsn, NodeId, TabletId, Ticket};
use protocol::Timing;
use protocol::replica::Input;

use super::check::Record;
use super::faults::Climate;
use super::host::Host;
use super::log::Log;
use super::master::Master;
use super::net::Packet;
use super::{Summary, Violation};
use crate::agenda::{Agenda, MS, SECOND};

pub(super) const TABLET: TabletId = TabletId(1);
pub(super) const MASTER: usize = 0;
/// When the faults end, and when the clients.
pub(super) const HEALED: u64 = 8 * SECOND;
pub(super) const QUIET: u64 = 16 * SECOND;
pub(super) const END: u64 = 20 * SECOND;

#[derive(Debug)]
pub(super) enum Happening {
    Deliver {
        from: usize,
        to: usize,
        packet: Packet,
    },
    /// The node's own round: beacons and heartbeats.
    Round {
        node: usize,
        life: u64,
    },
    /// The replica's deadline.
    Wake {
        node: usize,
        life: u64,
    },
    Settle {
        node: usize,
        life: u64,
    },
    Synced {
        node: usize,
        life: u64,
        records: usize,
        marks: u64,
    },
    Input {
        node: usize,
        life: u64,
        input: Input,
    },
    Restored {
        node: usize,
        life: u64,
        attempt: u64,
        upto: Lsn,
    },
    Client,
    Fault,
    Restart(usize),
    Resume(usize),
    Unblock(usize, usize),
    MasterUp,
    Decide(usize, Configuration),
    MasterRound,
}

pub(super) struct World {
    pub agenda: Agenda<Happening>,
    pub random: Random,
    /// Chance of what concerns late copies, so that histories without them stay what they were.
    pub late: Random,
    pub climate: Climate,
    pub timing: Timing,
    pub hosts: Vec<Host>,
    pub master: Master,
    pub blocked: BTreeSet<(usize, usize)>,
    pub arrival: BTreeMap<(usize, usize), u64>,
    pub record: Record,
    pub tickets: BTreeMap<Ticket, Bytes>,
    pub next_ticket: u64,
    pub payloads: Vec<Bytes>,
    pub summary: Summary,
    pub verbose: usize,
    pub events: VecDeque<String>,
    pub last_acknowledged_at: u64,
}

pub(super) type Checked = Result<(), String>;

impl World {
    pub fn new(seed: u64, verbose: usize) -> World {
        let mut random = Random::new(seed);
        let nodes = random.between(2, 6) as usize;
        let wanted = (random.between(2, 4) as usize).min(nodes);
        let mut late = Random::new(seed ^ 0x1a7e);
        let climate = Climate::draw(&mut random, &mut late, wanted);
        let first = 1 + random.below(wanted as u64) as u32;
        let members = (1..=wanted as u32).map(NodeId);
        let heavy = if climate.heavy { 48 } else { 0 };
        let payloads = (0..heavy).map(|n| Bytes::from(vec![n as u8; 1 << 20])).collect();
        let mut world = World {
            agenda: Agenda::default(),
            random,
            late,
            climate,
            timing: Timing::default(),
            hosts: Vec::new(),
            master: Master {
                configuration: Configuration::first(NodeId(first), members),
                learner: None,
                heard: vec![0; nodes + 1],
                up: true,
            },
            blocked: BTreeSet::new(),
            arrival: BTreeMap::new(),
            record: Record::default(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            payloads,
            summary: Summary::default(),
            verbose,
            events: VecDeque::new(),
            last_acknowledged_at: 0,
        };
        // Host 0 is the master's place.
        for node in 0..=nodes {
            let (log, applied) = (Log::default(), Lsn::ZERO);
            world.hosts.push(Host { log, process: None, life: 0, had: false, applied, hangs_until: 0 });
            if node != MASTER {
                world.start(node);
            }
        }
        let first = world.master.configuration.clone();
        world.record.on_configuration(&first).expect("the first is the first");
        world.agenda.after(MS, Happening::MasterRound);
        world.agenda.after(MS, Happening::Client);
        world.agenda.after(SECOND, Happening::Fault);
        world
    }

    pub fn run(mut self) -> Result<Summary, Violation> {
        let mut result = Ok(());
        if self.verbose > 0 {
            let climate = format!("{} nodes, {:?}", self.hosts.len() - 1, self.climate);
            self.events.push_back(climate);
        }
        while self.agenda.now() < END && result.is_ok() {
            let Some(happening) = self.agenda.take() else { break };
            self.note(&happening);
            // An assertion of a core is a violation like any other.
            let step = std::panic::AssertUnwindSafe(|| self.on(happening).and_then(|()| self.check()));
            result = std::panic::catch_unwind(step).unwrap_or_else(|panic| Err(words_of(&*panic)));
        }
        let result = result.and_then(|()| self.check_healed());
        self.summary.lived = self.agenda.now();
        self.summary.commits = self.record.commits;
        self.summary.epochs = self.master.configuration.epoch.0;
        match result {
            Ok(()) => Ok(self.summary),
            Err(what) => Err(Violation { time: self.agenda.now(), what, events: self.events.into_iter().collect() }),
        }
    }

    pub(super) fn note(&mut self, happening: &Happening) {
        let now = self.agenda.now();
        let kind = match happening {
            Happening::Deliver { from, to, packet } => 1 + *from as u64 * 7 + *to as u64 * 31 + packet.weight() * 1009,
            Happening::Round { node, .. } => 2 + *node as u64 * 7,
            Happening::Wake { node, .. } => 3 + *node as u64 * 7,
            _ => 4,
        };
        self.summary.trace = (self.summary.trace.rotate_left(5) ^ now ^ kind).wrapping_mul(0x517c_c1b7_2722_0a95);
        if self.verbose > 0
            && !matches!(happening, Happening::Round { .. } | Happening::MasterRound | Happening::Client)
        {
            self.say(format!("{happening:?}"));
        }
    }

    pub(super) fn say(&mut self, what: String) {
        if self.verbose > 0 {
            if self.events.len() > self.verbose {
                self.events.remove(1);
            }
            self.events.push_back(format!("{:?} {what}", Instant(self.agenda.now())));
        }
    }

    pub(super) fn on(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Deliver { from, to, packet } => return self.on_packet(from, to, packet),
            Happening::Round { node, life } if self.lives(node, life) => return self.on_round(node),
            Happening::Wake { node, life } if self.lives(node, life) => return self.on_wake(node),
            Happening::Settle { node, life } if self.lives(node, life) => return self.settle(node),
            Happening::Synced { node, life, records, marks } if self.lives(node, life) => {
                return self.on_synced(node, records, marks);
            }
            Happening::Input { node, life, input } if self.lives(node, life) => return self.input(node, input),
            Happening::Restored { node, life, attempt, upto } if self.lives(node, life) => {
                return self.on_restored(node, attempt, upto);
            }
            Happening::Client => return self.on_client(),
            Happening::Fault => return self.on_fault(),
            Happening::Restart(node) => self.start(node),
            Happening::Resume(node) => return self.resume(node),
            Happening::Unblock(from, to) => {
                self.blocked.remove(&(from, to));
            }
            Happening::MasterUp => self.master.up = true,
            Happening::Decide(from, configuration) => return self.decide(from, configuration),
            Happening::MasterRound => self.on_master_round(),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn on_client(&mut self) -> Checked {
        let now = self.agenda.now();
        let until = if self.climate.quiet_after_healing { HEALED } else { QUIET };
        if now >= until {
            return Ok(());
        }
        let pause = self.random.between(MS, 30 * MS);
        self.agenda.after(pause, Happening::Client);
        let node = 1 + self.random.below(self.hosts.len() as u64 - 1) as usize;
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let payload = match self.random.pick(&self.payloads) {
            Some(payload) => payload.clone(),
            None => Bytes::copy_from_slice(&ticket.0.to_le_bytes()),
        };
        self.tickets.insert(ticket, payload.clone());
        self.input(node, Input::Propose(ticket, payload))
    }

    pub(super) fn brief_or_down(&self, node: usize) -> String {
        if self.hosts[node].process.is_some() { self.brief(node) } else { String::from("down") }
    }
}

/// What a panic said.
pub(crate) fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", words.unwrap_or("without words"))
}
