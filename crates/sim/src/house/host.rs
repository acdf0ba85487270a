//! The nodes' hosts: carry effects out, each after the delay that the seed draws for it.

use std::io::ErrorKind;

use model::{NodeId, Refusal, Reply, Ticket};
use node::{Effect, Input};
use protocol::Core;
use store::log::Kind;

use super::check;
use super::client::client_of;
use super::coverage::{State, States};
use super::net::Packet;
use super::world::{CLIENTS, Checked, Happening, LAST_READS, MASTER, World, short};
use crate::agenda::{MS, SECOND, US};

impl World {
    pub(super) fn lives(&self, node: usize, life: u64) -> bool {
        self.machines[node].life == life && self.machines[node].process.is_some()
    }

    pub(super) fn start(&mut self, node: usize) -> Checked {
        let now = self.agenda.now();
        let machine = &self.machines[node];
        if machine.process.is_some() || machine.retired {
            return Ok(());
        }
        if machine.hung_until > now {
            self.agenda.at(machine.hung_until, Happening::Restart(node));
            return Ok(());
        }
        let rate = self.random.between(990_000, 1_010_001);
        let skew = self.random.below(10_000_000) as i64 - 5_000_000;
        let machine = &mut self.machines[node];
        match machine.start(NodeId(node as u32), self.timing.clone(), self.digest_every, now, rate, skew) {
            Ok(()) => {}
            Err(error) if error.is_full() || is_eio(&error) => {
                self.say(format!("n{node} does not open: {error}"));
                self.agenda.after(200 * MS, Happening::Restart(node));
                return Ok(());
            }
            Err(error) if error.is_corrupt() => {
                self.stuck_at.get_or_insert(self.agenda.now());
                return self.notice_damage(&format!("n{node} does not open: {error}"));
            }
            Err(error) => return Err(format!("n{node} does not open: {error}")),
        }
        self.summary.starts += 1;
        let notes = machine.process.iter().flat_map(|process| process.hands.notes.clone());
        let damage: Vec<String> = notes.filter(|note| note.contains("damaged") || note.contains("lost")).collect();
        damage.iter().try_for_each(|note| self.notice_damage(note))?;
        let machine = &mut self.machines[node];
        let (life, notes) = (machine.life, machine.process.as_ref().map(|process| process.hands.notes.clone()));
        self.say(format!("n{node} starts, {notes:?}"));
        self.agenda.after(0, Happening::Wake { node, life });
        Ok(())
    }

    /// The machine loses its power.
    pub(super) fn crash(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if machine.process.take().is_some() {
            machine.life += 1;
            machine.disk.crash(self.random.draw());
        }
    }

    /// Only the process dies.
    pub(super) fn kill(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        if machine.process.take().is_some() {
            machine.life += 1;
            machine.disk.kill();
        }
    }

    /// Something on the node's disk has failed. The real host stops the process; here its machine has lost its power,
    /// or nothing should have failed.
    pub(super) fn disk_failed(&mut self, node: usize, error: &store::Error) -> Checked {
        self.say(format!("n{node}: {error}"));
        if is_damage(error) {
            self.notice_damage(&format!("n{node}: {error}"))?;
        }
        self.crash(node);
        let delay = self.random.below(2 * SECOND);
        self.agenda.after(delay, Happening::Restart(node));
        Ok(())
    }

    pub(super) fn give(&mut self, node: usize, input: Input) {
        let Some(process) = &mut self.machines[node].process else { return };
        process.inbox.push_back(input);
        if !process.draining && !process.paused {
            process.draining = true;
            let life = self.machines[node].life;
            let delay = if self.random.chance(60) { 0 } else { self.random.below(MS) };
            self.agenda.after(delay, Happening::Drain { node, life });
        }
    }

    /// A batch: every input that has gathered, then what they want to happen.
    pub(super) fn drain(&mut self, node: usize) -> Checked {
        let now = self.agenda.now();
        let life = self.machines[node].life;
        let process = self.machines[node].process.as_mut().ok_or("drained while down")?;
        process.draining = false;
        if process.paused {
            return Ok(());
        }
        let local = process.local(now);
        let mut effects = Vec::new();
        while let Some(input) = process.inbox.pop_front() {
            process.node.step(local, input, &mut effects);
        }
        process.node.step(local, Input::Settle, &mut effects);
        let process = self.machines[node].process.as_ref().ok_or("drained while down")?;
        self.record.compare(life, &process.node)?;
        let others = self.machines.iter().enumerate().filter(|(other, _)| *other != node);
        let others = others.filter_map(|(_, machine)| machine.process.as_ref()).filter(|process| !process.paused);
        self.check_holdings(node)?;
        self.check_freshness(node)?;
        let process = self.machines[node].process.as_ref().ok_or("drained while down")?;
        let stepped = (&process.node, local);
        check::one_reader(stepped, others.map(|process| (&process.node, process.local(now))))?;
        if !self.ambushes.is_empty() {
            let states = self.states_of(node);
            self.spring_ambushes(node, states)?;
        }
        for effect in effects {
            self.carry_out(node, life, effect)?;
        }
        self.sync(node)?;
        self.arm(node);
        Ok(())
    }

    pub(super) fn carry_out(&mut self, node: usize, life: u64, effect: Effect) -> Checked {
        if self.verbose > 0 && !matches!(effect, Effect::Send(..) | Effect::Report(_) | Effect::Reply(..)) {
            self.say(short(format!("    n{node} {effect:?}")));
        }
        if !self.lives(node, life) {
            return Ok(());
        }
        match effect {
            Effect::Log(records) => {
                if let Some(process) = &mut self.machines[node].process {
                    process.to_log.extend(records);
                }
            }
            Effect::Send(to, message) => self.send(node, to.0 as usize, Packet::Node(message)),
            Effect::Report(message) => self.send(node, MASTER, Packet::ToMaster(message)),
            Effect::Reply(ticket, reply) => {
                self.check_eventual(node, ticket, &reply)?;
                self.answer(node, ticket, Ok(reply));
            }
            Effect::Refuse(ticket, refusal) => self.answer(node, ticket, Err(refusal)),
            // Nobody here orders one.
            Effect::Checkpoint(..) => {}
            Effect::Trim(floors) => {
                self.trimming = true;
                self.spring_ambushes(node, States::from_iter([State::Trimming]))?;
                self.trimming = false;
                if !self.lives(node, life) {
                    return Ok(());
                }
                let process = self.machines[node].process.as_mut().ok_or("trims while down")?;
                match process.hands.log.trim(&floors) {
                    Ok(_) => {
                        let bytes = process.hands.log.bytes();
                        self.give(node, Input::LogBytes(bytes));
                    }
                    Err(error) => return self.disk_failed(node, &error),
                }
            }
            Effect::Read(..) | Effect::ReadLog { .. } | Effect::Run(..) => {
                let quick = matches!(&effect, Effect::Read(_, read) if !read.touches_files());
                let delay = match &effect {
                    _ if quick => 0,
                    Effect::Run(..) => self.random.between(200 * US, 100 * MS),
                    _ => self.random.between(50 * US, 10 * MS),
                } + self.slowness(node, quick)
                    + self.meddle_with(&effect);
                self.agenda.after(delay, Happening::Work { node, life, effect: Box::new(effect) });
            }
            Effect::Event(event) => {
                if event.name == "checkpoint_adopted" {
                    self.summary.checkpoints += 1;
                }
                self.summary.splits += u64::from(event.name == "tablet_born" && !event.what.contains(" and "));
                self.summary.merges += u64::from(event.name == "tablet_born" && event.what.contains(" and "));
                match event.name {
                    "peer_suspected" => return Err(format!("n{node}: {event:?}")),
                    "replica_diverged" if !self.wrong => return Err(format!("n{node}: {event:?}")),
                    "replica_diverged" => self.summary.diverged += 1,
                    "replica_healed" => self.summary.healed += 1,
                    "replica_damaged" if self.wrong => {}
                    "log_damaged" | "replica_damaged" => self.notice_damage(&format!("n{node}: {event:?}"))?,
                    _ => {}
                }
            }
            Effect::Stop(_) if self.machines[node].is_amnesiac() => self.replace(node),
            Effect::Stop(why) => return Err(format!("n{node} stops: {why}")),
        }
        Ok(())
    }

    /// How much longer than usual the node's disk takes.
    fn slowness(&mut self, node: usize, quick: bool) -> u64 {
        let slow = self.machines[node].slow_until > self.agenda.now() && !quick;
        if slow { self.random.between(20 * MS, SECOND) } else { 0 }
    }

    /// Until when the node's disk does nothing, if it hangs.
    pub(super) fn hangs_until(&self, node: usize) -> Option<u64> {
        Some(self.machines[node].hung_until).filter(|until| *until > self.agenda.now())
    }

    pub(super) fn answer(&mut self, node: usize, ticket: Ticket, answer: Result<Reply, Refusal>) {
        let (client, _) = client_of(ticket);
        let place = CLIENTS + client;
        self.send(node, place, Packet::Answer(ticket, answer));
    }

    /// Reads and jobs, when their time has come.
    pub(super) fn work(&mut self, node: usize, effect: Effect) -> Checked {
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        let input = match effect {
            Effect::Read(id, read) => Input::ReadDone(id, read.run()),
            Effect::ReadLog { id, tablet, from, max_bytes } => {
                Input::LogRead(id, process.hands.reader.read(tablet, from, max_bytes))
            }
            Effect::Run(id, job) => {
                self.summary.jobs += 1;
                Input::JobDone(id, process.hands.keeper.run(job))
            }
            _ => return Ok(()),
        };
        match &input {
            Input::ReadDone(_, Err(error)) | Input::JobDone(_, Err(error)) => {
                self.say(format!("n{node}: {error}"));
                if is_damage(error) {
                    self.notice_damage(&format!("n{node}: {error}"))?;
                } else if is_missing(error) {
                    return Err(format!("n{node}: a file is gone that is still needed: {error}"));
                } else if !error.is_full() && !is_eio(error) && !error.is_corrupt() {
                    // The power has gone.
                    return self.disk_failed(node, error);
                }
            }
            _ => {}
        }
        self.give(node, input);
        Ok(())
    }

    /// Appends what has gathered, if nothing is being synced, and begins to sync it.
    pub(super) fn sync(&mut self, node: usize) -> Checked {
        let life = self.machines[node].life;
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        if process.syncing > 0 || process.to_log.is_empty() || !process.room {
            return Ok(());
        }
        match process.hands.log.append(&process.to_log) {
            Ok(()) => {}
            Err(error) if error.is_full() => {
                process.room = false;
                self.give(node, Input::Room(false));
                self.agenda.after(300 * MS, Happening::Reserve { node, life });
                return Ok(());
            }
            Err(error) => return self.disk_failed(node, &error),
        }
        process.syncing = process.to_log.len();
        let states = process.to_log.iter().filter(|record| matches!(record.kind, Kind::State | Kind::Dropped));
        process.kept.extend(states.map(|record| (record.tablet, record.kind == Kind::State)));
        process.to_log.clear();
        // In the end nobody is slow any more: then all must be steady.
        let slow = self.random.chance(self.climate.slow_sync) && self.agenda.now() < self.later(LAST_READS);
        let delay = if slow { self.random.below(SECOND) } else { self.random.between(200 * US, 2 * MS) };
        let delay = delay + self.slowness(node, false);
        self.agenda.after(delay, Happening::Synced { node, life });
        Ok(())
    }

    pub(super) fn on_synced(&mut self, node: usize) -> Checked {
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        if let Err(error) = process.hands.log.sync() {
            return self.disk_failed(node, &error);
        }
        // There is time for a mark now and then.
        if self.random.chance(30) && process.hands.log.mark().is_ok() && self.random.chance(50) {
            let _ = process.hands.log.sync();
        }
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        let kept = core::mem::take(&mut process.kept);
        process.synced += core::mem::take(&mut process.syncing) as u64;
        let (synced, bytes) = (process.synced, process.hands.log.bytes());
        for (tablet, keeps) in kept {
            let all = &mut self.machines[node].keeps;
            if keeps {
                all.insert(tablet)
            } else {
                all.remove(&tablet)
            };
        }
        self.give(node, Input::Durable(synced));
        if self.random.chance(5) {
            self.give(node, Input::LogBytes(bytes));
        }
        self.sync(node)
    }

    pub(super) fn reserve(&mut self, node: usize) -> Checked {
        let life = self.machines[node].life;
        let Some(process) = &mut self.machines[node].process else { return Ok(()) };
        match process.hands.log.reserve() {
            Ok(()) => {
                process.room = true;
                self.give(node, Input::Room(true));
                return self.sync(node);
            }
            Err(error) if error.is_full() => self.agenda.after(300 * MS, Happening::Reserve { node, life }),
            Err(error) => return self.disk_failed(node, &error),
        }
        Ok(())
    }

    pub(super) fn arm(&mut self, node: usize) {
        let (now, life) = (self.agenda.now(), self.machines[node].life);
        let Some(process) = &mut self.machines[node].process else { return };
        let Some(deadline) = process.node.deadline() else { return };
        let at = process.global(deadline).max(now);
        if process.woken_at.is_none_or(|armed| armed > at || armed < now) {
            process.woken_at = Some(at);
            self.agenda.at(at, Happening::Wake { node, life });
        }
    }

    pub(super) fn wake(&mut self, node: usize) {
        let now = self.agenda.now();
        let Some(process) = &mut self.machines[node].process else { return };
        process.woken_at = None;
        if process.paused {
            return;
        }
        if process.node.deadline().is_some_and(|deadline| deadline <= process.local(now)) {
            self.give(node, Input::Tick);
        } else {
            self.arm(node);
        }
    }

    pub(super) fn resume(&mut self, node: usize) {
        let life = self.machines[node].life;
        let Some(process) = &mut self.machines[node].process else { return };
        process.paused = false;
        process.draining = true;
        process.woken_at = None;
        self.agenda.after(0, Happening::Drain { node, life });
        if self.random.chance(50) {
            self.wake(node);
        }
    }
}

/// A sync that was made to fail: the machine lives on.
fn is_eio(error: &store::Error) -> bool {
    matches!(error, store::Error::Io { source, .. } if source.raw_os_error() == Some(5))
}

/// A file is not there.
fn is_missing(error: &store::Error) -> bool {
    // Pieces of a checkpoint may still arrive when the replica that was learning has been dropped.
    matches!(error, store::Error::Io { file, source, .. }
        if source.kind() == ErrorKind::NotFound && !file.starts_with("incoming/"))
}

/// Bytes came back changed, be they those that say which version they have. Files that came from elsewhere are checked before
/// they are used: pieces of two checkpoints may have met in one.
fn is_damage(error: &store::Error) -> bool {
    let came = matches!(error, store::Error::Corrupt { file, .. } if file.starts_with("incoming/"));
    error.is_corrupt() && !came || matches!(error, store::Error::Version { .. })
}
