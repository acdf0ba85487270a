//! What goes wrong in the house's history, and how it is healed.

use std::collections::BTreeSet;

use disk::Disk;
use model::random::Random;
use model::request::Role;
use model::{NodeId, TabletId};

use super::coverage::{State, States};
use super::machine::Machine;
use super::schedule::Planned;
use super::world::{Checked, Happening, SETTLED, World};
use crate::agenda::{MS, SECOND};

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Half of all messages are lost for a while.
    Loss,
    /// Messages take up to half a second.
    Delay,
    /// Messages come twice.
    Twice,
    /// Messages overtake each other.
    Reorder,
    /// Copies of messages come seconds later, when all has changed.
    Late,
    /// A link is cut in both directions.
    Cut,
    /// A link is cut in one direction.
    OneWay,
    /// A node is cut off from all others.
    Isolated,
    /// Two halves see each other only through one node.
    Bridge,
    /// Every node sees only its two neighbours.
    Ring,
    /// A machine loses its power, and what was not synced.
    Crash,
    /// A process dies, and its machine lives on.
    Kill,
    /// A machine loses its power in the middle of a write.
    Power,
    /// All machines lose their power at once.
    Blackout,
    /// A process stands still.
    Pause,
    /// A clock changes its speed.
    Drift,
    /// A calendar jumps, forward or back.
    Jump,
    /// The leading master dies, or is deposed without knowing it; what was not committed is lost.
    Master,
    /// A disk has no room.
    FullDisk,
    /// Syncs and reads take long.
    SlowDisk,
    /// Syncs and reads do not end.
    HungDisk,
    /// A sync fails.
    SyncFails,
    /// Reads fail.
    ReadFails,
    /// A byte on a disk changes.
    Rot,
    /// A write lands elsewhere in its file.
    Misdirected,
    /// A disk is replaced by an empty one, and the node by a fresh one.
    LostDisk,
}

/// Kinds that come together, by one name, and in how many of 100 histories. `network` is also what the climate does to
/// every message.
const KINDS: [(&str, u64, &[Fault]); 13] = [
    ("network", 100, &[Fault::Loss, Fault::Delay, Fault::Twice, Fault::Reorder]),
    ("cuts", 60, &[Fault::Cut, Fault::OneWay, Fault::Isolated, Fault::Bridge, Fault::Ring]),
    ("crashes", 75, &[Fault::Crash, Fault::Kill, Fault::Power]),
    ("blackouts", 20, &[Fault::Blackout]),
    ("pauses", 60, &[Fault::Pause]),
    ("clocks", 40, &[Fault::Drift, Fault::Jump]),
    ("master", 40, &[Fault::Master]),
    ("full", 20, &[Fault::FullDisk]),
    ("slow", 30, &[Fault::SlowDisk, Fault::HungDisk]),
    ("syncs", 25, &[Fault::SyncFails]),
    ("reads", 20, &[Fault::ReadFails]),
    ("rot", 20, &[Fault::Rot, Fault::Misdirected]),
    ("lost", 20, &[Fault::LostDisk]),
];

/// The kind that is drawn by itself, so that histories without it stay what they were; in how many of 100.
const LATE: u64 = 30;

const NAMES: [(Fault, &str); 26] = [
    (Fault::Loss, "loss"),
    (Fault::Delay, "delay"),
    (Fault::Twice, "twice"),
    (Fault::Reorder, "reorder"),
    (Fault::Late, "late"),
    (Fault::Cut, "cut"),
    (Fault::OneWay, "oneway"),
    (Fault::Isolated, "isolated"),
    (Fault::Bridge, "bridge"),
    (Fault::Ring, "ring"),
    (Fault::Crash, "crash"),
    (Fault::Kill, "kill"),
    (Fault::Power, "power"),
    (Fault::Blackout, "blackout"),
    (Fault::Pause, "pause"),
    (Fault::Drift, "drift"),
    (Fault::Jump, "jump"),
    (Fault::Master, "master"),
    (Fault::FullDisk, "full"),
    (Fault::SlowDisk, "slowdisk"),
    (Fault::HungDisk, "hungdisk"),
    (Fault::SyncFails, "syncs"),
    (Fault::ReadFails, "reads"),
    (Fault::Rot, "bitrot"),
    (Fault::Misdirected, "misdirected"),
    (Fault::LostDisk, "lost"),
];

impl Fault {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Fault> {
        NAMES.iter().map(|(fault, _)| *fault)
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(fault, _)| *fault == self).map_or("", |(_, name)| name)
    }

    /// At most one of its kind is in a history.
    pub(super) fn is_rare(self) -> bool {
        matches!(self, Fault::Rot | Fault::Misdirected | Fault::LostDisk)
    }

    /// Reads a list such as `crashes,rot` of faults and of kinds of them; `none` is the empty one.
    pub fn parse(list: &str) -> Option<BTreeSet<Fault>> {
        if list == "none" {
            return Some(BTreeSet::new());
        }
        let mut faults = BTreeSet::new();
        for name in list.split(',') {
            let kind = KINDS.iter().find(|(known, ..)| *known == name).map(|(.., kind)| *kind);
            let one = NAMES.iter().find(|(_, known)| *known == name).map(|(fault, _)| std::slice::from_ref(fault));
            faults.extend(kind.or(one)?);
        }
        Some(faults)
    }
}

/// What this history is like, drawn from the seed.
#[derive(Debug)]
pub(super) struct Climate {
    pub loss: u64,
    pub twice: u64,
    pub delay: u64,
    pub fifo: bool,
    pub slow_sync: u64,
    pub fault_every: u64,
    pub faults: BTreeSet<Fault>,
    /// Tables come and go.
    pub tables: bool,
    /// Families come and go.
    pub families: bool,
    /// Tablets move to even the nodes out, and an operator moves them too.
    pub balance: bool,
    pub replicas: u8,
    /// The table that is always there is cut by ranges, and split.
    pub elastic: bool,
    /// The master splits a tablet with more bytes; 0 is never.
    pub split_bytes: u64,
    /// The master splits a tablet that serves more requests per second; 0 is never.
    pub split_load: u64,
    /// Clients count and move money.
    pub ledger: bool,
    /// An operator acts where it is most delicate.
    pub meddling: bool,
    /// An operator has tablets merged.
    pub merges: bool,
    /// Clients write many rows at once.
    pub batches: bool,
}

impl Climate {
    /// `faults`: these instead of those that the seed would draw. `calm`: the network breaks only by these. `extra`: chance
    /// of what came later.
    pub fn draw(random: &mut Random, extra: &mut Random, faults: Option<&BTreeSet<Fault>>, calm: bool) -> Climate {
        let mut climate = Climate {
            loss: [0, 0, 1, 5][random.below(4) as usize],
            twice: [0, 0, 3][random.below(3) as usize],
            delay: [MS, 5 * MS, 50 * MS, 300 * MS][random.below(4) as usize],
            fifo: random.chance(70),
            slow_sync: [0, 1, 10][random.below(3) as usize],
            fault_every: [100 * MS, 300 * MS, 1000 * MS, 2500 * MS][random.below(4) as usize],
            faults: KINDS
                .iter()
                .filter(|(_, percent, _)| random.chance(*percent))
                .flat_map(|(.., kind)| kind.iter().copied())
                .collect(),
            tables: random.chance(40),
            families: random.chance(40),
            replicas: random.between(2, 4) as u8,
            balance: random.chance(50),
            elastic: false,
            split_bytes: 0,
            split_load: 0,
            ledger: false,
            meddling: false,
            merges: false,
            batches: false,
        };
        if extra.chance(LATE) {
            climate.faults.insert(Fault::Late);
        }
        if let Some(faults) = faults {
            climate.faults.clone_from(faults);
        }
        if calm || !climate.has(Fault::Loss) {
            (climate.loss, climate.twice, climate.delay, climate.fifo) = (0, 0, MS, true);
        }
        climate
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

/// What the network does for a while beside what it does always.
#[derive(Debug, Default)]
pub(super) struct Weather {
    pub loss_until: u64,
    pub delay_until: u64,
    pub twice_until: u64,
    pub reorder_until: u64,
    pub late_until: u64,
}

impl World {
    /// The time of a planned fault has come. It may lie in ambush.
    pub(super) fn on_fault(&mut self, planned: Planned) -> Checked {
        if self.agenda.now() >= self.healed_at {
            return Ok(());
        }
        match planned.awaits {
            None => self.strike(&planned),
            Some(state) => match self.whoever_is(state) {
                Some(node) => self.strike(&Planned { node, ..planned }),
                None => {
                    self.ambushes.push(planned);
                    Ok(())
                }
            },
        }
    }

    /// The node is in these states now: who lies in ambush for one of them, strikes it.
    pub(super) fn spring_ambushes(&mut self, node: usize, states: States) -> Checked {
        if self.ambushes.is_empty() || self.agenda.now() >= self.healed_at {
            return Ok(());
        }
        let met = |planned: &Planned| planned.awaits.is_some_and(|state| states.has(state));
        // All who wait for it: what is seldom and short must meet many faults.
        while let Some(first) = self.ambushes.iter().position(met) {
            let planned = self.ambushes.remove(first);
            self.strike(&Planned { node, ..planned })?;
        }
        Ok(())
    }

    /// A node that is in the state; for that of the master any.
    fn whoever_is(&self, state: State) -> Option<usize> {
        if state == State::NoMaster {
            return self.mastery.master.is_none().then_some(1);
        }
        (1..self.machines.len()).find(|&node| self.states_of(node).has(state))
    }

    /// In which states the node is.
    pub(super) fn states_of(&self, node: usize) -> States {
        let Some(process) = &self.machines[node].process else { return States::default() };
        process.node.stages(process.local(self.agenda.now())).filter_map(State::of).collect()
    }

    /// In which states the house is.
    fn states(&self) -> States {
        let nodes = (1..self.machines.len()).map(|node| self.states_of(node));
        let mut states = nodes.fold(States::default(), States::with);
        if self.mastery.master.is_none() {
            states.add(State::NoMaster);
        }
        if self.trimming {
            states.add(State::Trimming);
        }
        states
    }

    fn strike(&mut self, planned: &Planned) -> Checked {
        let states = self.states();
        if self.carry_out_fault(planned) {
            self.summary.faults += 1;
            self.summary.coverage.met(planned.fault, states);
            self.struck.push(planned.fault);
            self.say(format!("fault: {planned}"));
            let mut struck = self.struck.iter();
            if !self.forbidden.is_empty() && self.forbidden.iter().all(|fault| struck.any(|other| other == fault)) {
                return Err(format!("{:?} have struck one after the other", self.forbidden));
            }
        }
        Ok(())
    }

    /// Whether it could be done.
    fn carry_out_fault(&mut self, planned: &Planned) -> bool {
        let Planned { fault, node, lasts, draw, .. } = *planned;
        let (now, mut random) = (self.agenda.now(), Random::new(draw));
        let until = now + lasts;
        let nodes = self.machines.len() - 1;
        let is_up = self.machines[node].process.is_some();
        match fault {
            Fault::Loss => self.weather.loss_until = until,
            Fault::Delay => self.weather.delay_until = until,
            Fault::Twice => self.weather.twice_until = until,
            Fault::Reorder => self.weather.reorder_until = until,
            Fault::Late => self.weather.late_until = until,
            Fault::Cut | Fault::OneWay | Fault::Isolated | Fault::Bridge | Fault::Ring => {
                // The master's links too, where the master may fail.
                let first = usize::from(!self.climate.has(Fault::Master));
                for way in ways(fault, node, first, nodes, &mut random) {
                    let end = self.blocked.entry(way).or_insert(until);
                    *end = until.max(*end);
                }
            }
            Fault::Crash | Fault::Kill | Fault::Power if !is_up => return false,
            Fault::Crash => self.crash_machine(node, lasts),
            Fault::Kill => {
                self.kill(node);
                self.agenda.after(lasts, Happening::Restart(node));
            }
            Fault::Power => self.machines[node].disk.power_fails_after(random.below(30)),
            Fault::Blackout => {
                (1..=nodes).for_each(|node| self.crash_machine(node, MS + random.below(lasts)));
                if random.chance(50) {
                    self.crash_master(lasts);
                }
            }
            Fault::Pause => match &mut self.machines[node].process {
                Some(process) if !process.paused => {
                    process.paused = true;
                    // Often longer than a lease.
                    let longer = if random.chance(50) { SECOND } else { 0 };
                    self.agenda.after(lasts + longer, Happening::Resume(node));
                }
                _ => return false,
            },
            Fault::Drift => match &mut self.machines[node].process {
                Some(process) => {
                    process.run_at(now, random.between(990_000, 1_010_001));
                    self.arm(node);
                }
                None => return false,
            },
            Fault::Jump => {
                let far = [SECOND, 60 * SECOND, 86_400 * SECOND][random.below(3) as usize] / 1000;
                self.machines[node].calendar += random.below(2 * far) as i64 - far as i64;
            }
            Fault::Master => {
                if self.mastery.master.is_none() {
                    return false;
                }
                match random.chance(50) {
                    true => self.elect(),
                    false => self.crash_master(lasts),
                }
            }
            Fault::FullDisk => {
                let used = self.machines[node].disk.used();
                self.machines[node].disk.set_capacity(Some(used + random.below(50_000)));
                self.agenda.after(lasts, Happening::Roomy(node));
            }
            Fault::SlowDisk => self.machines[node].slow_until = until,
            Fault::HungDisk => self.machines[node].hung_until = until,
            Fault::SyncFails => self.machines[node].disk.fail_next_sync(),
            Fault::ReadFails => {
                self.machines[node].disk.fail_all_reads(true);
                self.agenda.after(lasts, Happening::Readable(node));
            }
            Fault::Rot => return !self.rotten && self.rot(node, &mut random),
            Fault::Misdirected => {
                if self.rotten {
                    return false;
                }
                self.rotten = true;
                self.machines[node].disk.misdirect_next_write("tables", draw);
            }
            Fault::LostDisk => {
                if !is_up || self.depends_on(node) {
                    return false;
                }
                self.crash(node);
                let machine = &mut self.machines[node];
                machine.disk = disk::MemDisk::new();
                machine.disks += 1;
                self.agenda.after(lasts, Happening::Restart(node));
            }
        }
        true
    }

    fn crash_machine(&mut self, node: usize, lasts: u64) {
        self.crash(node);
        self.agenda.after(lasts, Happening::Restart(node));
    }

    fn crash_master(&mut self, lasts: u64) {
        self.mastery.master = None;
        self.mastery.life += 1;
        self.agenda.after(lasts, Happening::MasterStart);
        // What waits for this, strikes as soon as that has happened.
        let waits = |planned: &Planned| planned.awaits == Some(State::NoMaster);
        if let Some(first) = self.ambushes.iter().position(waits) {
            let planned = self.ambushes.remove(first);
            self.agenda.after(MS, Happening::Fault(Box::new(planned)));
        }
    }

    /// Would the loss of the node's disk take the last copy of a tablet with it? A group that was reduced to this node
    /// by a message that is still under way shows itself later, and ends the history.
    fn depends_on(&self, node: usize) -> bool {
        let lost = |tablet, member: NodeId| member.0 as usize == node || self.has_nothing(tablet, member);
        let mut decided = self.record.decided.iter();
        decided.any(|(&tablet, configuration)| configuration.members().all(|member| lost(tablet, member)))
    }

    /// Has the member nothing of the tablet? Its disk is gone, or it was named and never took it: the configuration of
    /// heirs is that of the epoch in which their split was asked for.
    pub(super) fn has_nothing(&self, tablet: TabletId, member: NodeId) -> bool {
        let machine = &self.machines[member.0 as usize];
        machine.is_amnesiac() || !machine.keeps.contains(&tablet)
    }

    /// Tablets whose last members have all lost their disks: what they held is gone, and nobody promised otherwise.
    pub(super) fn doomed(&self) -> Option<TabletId> {
        let had = |tablet: &TabletId, node: NodeId| {
            let machine = &self.machines[node.0 as usize];
            machine.is_amnesiac() && machine.keeps.contains(tablet)
        };
        let mut decided = self.record.decided.iter();
        let doomed = decided.find(|(tablet, configuration)| {
            configuration.members().all(|member| self.has_nothing(**tablet, member))
                && configuration.members().any(|member| had(tablet, member))
        });
        doomed.map(|(&tablet, _)| tablet)
    }

    /// A node that came back with an empty disk was turned away. A fresh one takes its place.
    pub(super) fn replace(&mut self, node: usize) {
        self.machines[node].process = None;
        self.machines[node].life += 1;
        self.machines[node].retired = true;
        self.machines.push(Machine::new());
        let fresh = self.machines.len() - 1;
        self.say(format!("n{node} is turned away; n{fresh} takes its place"));
        self.agenda.after(MS, Happening::Restart(fresh));
    }

    /// Changes a bit on the node's disk, in anything but the end of the log: that this was once synced, nothing shows.
    fn rot(&mut self, node: usize, random: &mut Random) -> bool {
        let disk = self.machines[node].disk.clone();
        let in_dir = |dir: &str| -> Vec<String> {
            let names = disk.list(dir).unwrap_or_default();
            names.into_iter().map(|name| format!("{dir}/{name}")).collect()
        };
        let mut kinds = vec![in_dir("log"), in_dir("log"), in_dir("tables"), in_dir("tables"), in_dir("manifest")];
        kinds.retain(|files| !files.is_empty());
        let Some(file) = random.pick(&kinds).and_then(|files| random.clone().pick(files).cloned()) else {
            return false;
        };
        let all = disk.open(&file).and_then(|file| file.len()).unwrap_or(0);
        let len = match file.strip_prefix("log/").and_then(|name| name.strip_suffix(".log")) {
            Some(number) => {
                let Ok(found) = store::log::inspect(&disk, "log") else { return false };
                let (segment, offset) = found.witnessed;
                match number.parse::<u32>() {
                    Ok(number) if number < segment => all,
                    Ok(number) if number == segment => u64::from(offset),
                    _ => 0,
                }
            }
            None => all,
        };
        if len == 0 {
            return false;
        }
        let (offset, bit) = (random.below(len), random.below(8));
        self.rotten = disk.flip(&file, offset, 1 << bit);
        self.say(format!("bit {bit} at {offset} of {file} ({len} bytes) of n{node} changes"));
        self.rotten
    }

    /// The memory of some member of a group goes wrong.
    pub(super) fn go_wrong(&mut self) {
        let nodes: Vec<usize> = (1..self.machines.len()).collect();
        let Some(&node) = self.random.pick(&nodes) else { return };
        let process = self.machines[node].process.as_ref().filter(|_| self.agenda.now() < self.later(SETTLED));
        let member = |replica: &&protocol::Replica| matches!(replica.role(), Role::Primary | Role::Secondary);
        let whole = |tablet: &TabletId| self.record.decided.get(tablet).is_some_and(|decided| decided.size() == 3);
        let wrong = process.and_then(|process| {
            let mut members = process.node.replicas().filter(member).map(protocol::Replica::tablet);
            members.find(|tablet| whole(tablet) && process.node.go_wrong(*tablet))
        });
        match wrong {
            Some(tablet) => {
                self.wrong = true;
                self.say(format!("n{node}'s memory of {tablet} goes wrong"));
            }
            None if self.agenda.now() < self.later(SETTLED) => self.agenda.after(50 * MS, Happening::GoWrong),
            None => {}
        }
    }

    /// Somebody has found changed bytes.
    pub(super) fn notice_damage(&mut self, what: &str) -> Checked {
        if !self.rotten {
            return Err(format!("damage without a cause: {what}"));
        }
        self.say(format!("damage is noticed: {what}"));
        self.summary.damaged = true;
        Ok(())
    }

    pub(super) fn heal(&mut self) {
        self.say("all is healed".into());
        self.blocked.clear();
        self.ambushes.clear();
        (self.weather, self.healed_at) = (Weather::default(), self.agenda.now());
        self.agenda.after(0, Happening::MasterStart);
        for node in 1..self.machines.len() {
            let machine = &mut self.machines[node];
            machine.disk.set_capacity(None);
            machine.disk.power_fails_after(u64::MAX);
            machine.disk.fail_all_reads(false);
            (machine.slow_until, machine.hung_until) = (0, 0);
            self.agenda.after(0, Happening::Restart(node));
            self.agenda.after(0, Happening::Resume(node));
        }
    }
}

/// Which ways a cut closes. `first` is the first place that may be cut off, the last `nodes`.
fn ways(fault: Fault, node: usize, first: usize, nodes: usize, random: &mut Random) -> Vec<(usize, usize)> {
    let places = || first..=nodes;
    let both = |a: usize, b: usize| [(a, b), (b, a)];
    let other = first + random.below((nodes + 1 - first) as u64) as usize;
    match fault {
        Fault::Cut => both(node, other).into(),
        Fault::OneWay if random.chance(50) => vec![(node, other)],
        Fault::OneWay => vec![(other, node)],
        Fault::Isolated => places().filter(|&other| other != node).flat_map(|other| both(node, other)).collect(),
        // The node is the bridge; the others are on one bank or the other.
        Fault::Bridge => {
            let bank: Vec<bool> = (0..=nodes).map(|_| random.chance(50)).collect();
            let pairs = places().flat_map(|a| places().map(move |b| (a, b)));
            pairs.filter(|&(a, b)| a != node && b != node && bank[a] != bank[b]).collect()
        }
        // Those who stand beside each other in the ring see each other; the master sees all.
        _ => {
            let far = |a: usize, b: usize| {
                let distance = a.abs_diff(b);
                distance > 1 && distance + 1 < nodes
            };
            let pairs = (1..=nodes).flat_map(|a| (1..=nodes).map(move |b| (a, b)));
            pairs.filter(|&(a, b)| far(a, b)).collect()
        }
    }
}
