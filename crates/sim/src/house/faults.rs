//! What goes wrong in the house's history, and how it is healed.

use std::collections::BTreeSet;

use disk::Disk;
use model::random::Random;

use super::world::{Checked, HEALED, Happening, World};
use crate::agenda::{MS, SECOND};

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Messages are lost, doubled and late.
    Network,
    /// Links are cut.
    Cuts,
    /// Processes die, or their machines lose power.
    Crashes,
    /// Processes stand still for a while.
    Pauses,
    /// The master dies, and loses what was not committed.
    Master,
    /// Disks have no room.
    FullDisks,
    /// A sync fails.
    Syncs,
    /// A byte on a disk changes. Once in a history, which ends soon after anybody notices.
    Rot,
}

impl Fault {
    /// Each kind with its name, and in how many of 100 histories it is.
    const ALL: [(Fault, &'static str, u64); 8] = [
        (Fault::Network, "network", 100),
        (Fault::Cuts, "cuts", 60),
        (Fault::Crashes, "crashes", 75),
        (Fault::Pauses, "pauses", 60),
        (Fault::Master, "master", 40),
        (Fault::FullDisks, "full", 20),
        (Fault::Syncs, "syncs", 25),
        (Fault::Rot, "rot", 15),
    ];

    /// Reads a list such as `crashes,rot`; `none` is the empty one.
    pub fn parse(list: &str) -> Option<BTreeSet<Fault>> {
        let fault = |name: &str| Fault::ALL.iter().find(|(_, known, _)| *known == name).map(|(fault, ..)| *fault);
        if list == "none" { Some(BTreeSet::new()) } else { list.split(',').map(fault).collect() }
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
}

impl Climate {
    /// `faults`: these instead of those that the seed would draw.
    pub fn draw(random: &mut Random, faults: Option<&BTreeSet<Fault>>) -> Climate {
        let mut climate = Climate {
            loss: [0, 0, 1, 5][random.below(4) as usize],
            twice: [0, 0, 3][random.below(3) as usize],
            delay: [MS, 5 * MS, 50 * MS, 300 * MS][random.below(4) as usize],
            fifo: random.chance(70),
            slow_sync: [0, 1, 10][random.below(3) as usize],
            fault_every: [100 * MS, 300 * MS, 1000 * MS, 2500 * MS][random.below(4) as usize],
            faults: Fault::ALL
                .iter()
                .filter(|(.., percent)| random.chance(*percent))
                .map(|(fault, ..)| *fault)
                .collect(),
            tables: random.chance(40),
            families: random.chance(40),
            replicas: random.between(2, 4) as u8,
            balance: random.chance(50),
        };
        if let Some(faults) = faults {
            climate.faults.clone_from(faults);
        }
        if !climate.has(Fault::Network) {
            (climate.loss, climate.twice, climate.delay, climate.fifo) = (0, 0, MS, true);
        }
        climate
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

impl World {
    pub(super) fn on_fault(&mut self) {
        let now = self.agenda.now();
        if now >= HEALED {
            return self.heal();
        }
        self.summary.faults += 1;
        let next = self.random.between(self.climate.fault_every / 4, self.climate.fault_every * 2);
        self.agenda.at((now + next).min(HEALED), Happening::Fault);
        let nodes = self.machines.len() as u64 - 1;
        let node = 1 + self.random.below(nodes) as usize;
        let most = [50 * MS, 500 * MS, 2500 * MS, 6 * SECOND][self.random.below(4) as usize];
        let long = MS + self.random.below(most);
        match self.random.below(13) {
            0..=3 if self.climate.has(Fault::Crashes) => {
                if self.random.chance(40) {
                    let operations = self.random.below(30);
                    self.say(format!("fault: n{node} loses its power after {operations} operations"));
                    if self.machines[node].process.is_some() {
                        self.machines[node].disk.power_fails_after(operations);
                    }
                } else {
                    self.say(format!("fault: crash of n{node}"));
                    self.crash(node);
                    self.agenda.after(long, Happening::Restart(node));
                }
            }
            4..=5 if self.climate.has(Fault::Pauses) => {
                self.say(format!("fault: pause of n{node} for {long}"));
                if let Some(process) = &mut self.machines[node].process {
                    process.paused = true;
                    self.agenda.after(long, Happening::Resume(node));
                }
            }
            6..=8 if self.climate.has(Fault::Cuts) => {
                let first = u64::from(!self.climate.has(Fault::Master));
                let other = (first + self.random.below(nodes + 1 - first)) as usize;
                let alone = (first as usize..=nodes as usize).filter(|&other| other != node);
                let ways = match self.random.below(4) {
                    0 => vec![(node, other), (other, node)],
                    1 => vec![(node, other)],
                    2 => vec![(other, node)],
                    _ => alone.flat_map(|other| [(node, other), (other, node)]).collect(),
                };
                self.say(format!("fault: cut {ways:?} for {long}"));
                for (from, to) in ways {
                    if self.blocked.insert((from, to)) {
                        self.agenda.after(long, Happening::Unblock(from, to));
                    }
                }
            }
            9 if self.climate.has(Fault::Master) => {
                self.say("fault: the master crashes".into());
                self.mastery.master = None;
                self.mastery.life += 1;
                self.agenda.after(long, Happening::MasterStart);
            }
            10 if self.climate.has(Fault::FullDisks) => {
                self.say(format!("fault: the disk of n{node} is full for {long}"));
                let used = self.machines[node].disk.used();
                let more = self.random.below(50_000);
                self.machines[node].disk.set_capacity(Some(used + more));
                self.agenda.after(long, Happening::Roomy(node));
            }
            11 if self.climate.has(Fault::Syncs) => {
                self.say(format!("fault: the next sync of n{node} fails"));
                self.machines[node].disk.fail_next_sync();
            }
            12 if self.climate.has(Fault::Rot) && !self.rotten => self.rot(node),
            _ => {}
        }
    }

    /// Changes a bit on the node's disk, in anything but the end of the log: that this was once synced, nothing shows.
    fn rot(&mut self, node: usize) {
        let disk = &self.machines[node].disk;
        let in_dir = |dir: &str| -> Vec<String> {
            let names = disk.list(dir).unwrap_or_default();
            names.into_iter().map(|name| format!("{dir}/{name}")).collect()
        };
        let mut log = in_dir("log");
        // The last two may be the current segment and the spare one.
        log.truncate(log.len().saturating_sub(2));
        let kinds = [log, in_dir("tables"), in_dir("tables"), in_dir("manifest"), vec!["node.id".to_owned()]];
        let kind = self.random.below(kinds.len() as u64) as usize;
        let Some(file) = self.random.pick(&kinds[kind]).cloned() else { return };
        let len = disk.open(&file).and_then(|file| file.len()).unwrap_or(0);
        if len > 0 {
            let (offset, bit) = (self.random.below(len), self.random.below(8));
            self.rotten = disk.flip(&file, offset, 1 << bit);
            self.say(format!("fault: bit {bit} at {offset} of {file} ({len} bytes) of n{node} changes"));
        }
    }

    /// Somebody has found changed bytes. Nothing repairs them yet, so the history ends soon.
    pub(super) fn notice_damage(&mut self, what: &str) -> Checked {
        if !self.rotten {
            return Err(format!("damage without a cause: {what}"));
        }
        self.say(format!("damage is noticed: {what}"));
        self.noticed_at.get_or_insert(self.agenda.now());
        Ok(())
    }

    fn heal(&mut self) {
        self.say("all is healed".into());
        self.blocked.clear();
        self.agenda.after(0, Happening::MasterStart);
        for node in 1..self.machines.len() {
            self.machines[node].disk.set_capacity(None);
            self.machines[node].disk.power_fails_after(u64::MAX);
            self.agenda.after(0, Happening::Restart(node));
            self.agenda.after(0, Happening::Resume(node));
        }
    }
}
