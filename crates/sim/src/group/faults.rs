//! What goes wrong in a group's history, and how it is healed.

use model::random::Random;

use super::world::{Checked, HEALED, Happening, World};
use crate::agenda::{MS, SECOND};

/// Kinds of trouble that this history has, drawn from the seed.
#[derive(Debug)]
pub(super) struct Climate {
    pub loss: u64,
    pub twice: u64,
    /// Chance that a copy comes up to seconds later.
    pub late: u64,
    pub delay: u64,
    pub fifo: bool,
    pub slow_sync: u64,
    pub fault_every: u64,
    pub crashes: bool,
    pub pauses: bool,
    pub cuts: bool,
    pub gaps: bool,
    pub master_faults: bool,
    pub forgets: bool,
    pub hangs: bool,
    /// Chance, in percent and every 200 ms, that the primary is told to hand over.
    pub hand_overs: u64,
    pub heavy: bool,
    pub quiet_after_healing: bool,
    pub wanted: usize,
}

impl Climate {
    pub fn draw(random: &mut Random, late: &mut Random, wanted: usize) -> Climate {
        Climate {
            loss: [0, 0, 1, 5, 20][random.below(5) as usize],
            twice: [0, 2, 10][random.below(3) as usize],
            late: [0, 0, 3, 10][late.below(4) as usize],
            delay: [MS, 5 * MS, 50 * MS, 300 * MS][random.below(4) as usize],
            fifo: random.chance(40),
            slow_sync: [0, 1, 10][random.below(3) as usize],
            fault_every: [40 * MS, 150 * MS, 600 * MS, 1500 * MS][random.below(4) as usize],
            crashes: random.chance(75),
            pauses: random.chance(60),
            cuts: random.chance(60),
            gaps: random.chance(70),
            master_faults: random.chance(40),
            forgets: random.chance(50),
            heavy: random.chance(5),
            quiet_after_healing: random.chance(40),
            wanted,
            hangs: random.chance(30),
            hand_overs: [0, 0, 2, 10][random.below(4) as usize],
        }
    }
}

impl World {
    pub(super) fn on_fault(&mut self) -> Checked {
        let now = self.agenda.now();
        if now >= HEALED {
            return self.heal();
        }
        self.summary.faults += 1;
        let next = self.random.between(self.climate.fault_every / 4, self.climate.fault_every * 2);
        self.agenda.at((now + next).min(HEALED), Happening::Fault);
        let hosts = self.hosts.len() as u64;
        let node = 1 + self.random.below(hosts - 1) as usize;
        let long = |random: &mut Random| {
            let most = [50 * MS, 500 * MS, 2500 * MS, 6 * SECOND][random.below(4) as usize];
            random.below(most) + MS
        };
        match self.random.below(11) {
            0..=3 if self.climate.crashes => {
                self.say(format!("fault: crash of n{node}, {}", self.brief_or_down(node)));
                self.crash(node);
                let delay = long(&mut self.random);
                self.agenda.after(delay, Happening::Restart(node));
            }
            4..=5 if self.climate.pauses => {
                self.say(format!("fault: pause of n{node}"));
                if let Some(process) = &mut self.hosts[node].process {
                    process.paused = true;
                    let delay = long(&mut self.random);
                    self.agenda.after(delay, Happening::Resume(node));
                }
            }
            6..=8 if self.climate.cuts => {
                let first = if self.climate.master_faults { 0 } else { 1 };
                let other = first + self.random.below(hosts - first as u64) as usize;
                let delay = long(&mut self.random);
                let alone = (first..hosts as usize).filter(|&other| other != node);
                let ways = match self.random.below(4) {
                    0 => vec![(node, other), (other, node)],
                    1 => vec![(node, other)],
                    2 => vec![(other, node)],
                    _ => alone.flat_map(|other| [(node, other), (other, node)]).collect(),
                };
                self.say(format!("fault: cut {ways:?} for {delay}"));
                for (from, to) in ways {
                    if self.blocked.insert((from, to)) {
                        self.agenda.after(delay, Happening::Unblock(from, to));
                    }
                }
            }
            10 if self.climate.hangs => {
                self.say(format!("fault: the disk of n{node} hangs"));
                let until = now + long(&mut self.random);
                self.hosts[node].hangs_until = until.min(HEALED);
            }
            9 if self.climate.master_faults => {
                self.say(String::from("fault: master down"));
                self.master.up = false;
                let delay = long(&mut self.random);
                self.agenda.after(delay, Happening::MasterUp);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn heal(&mut self) -> Checked {
        self.say(String::from("all is healed"));
        self.blocked.clear();
        self.master.up = true;
        for node in 1..self.hosts.len() {
            self.start(node);
            self.resume(node)?;
        }
        Ok(())
    }
}
