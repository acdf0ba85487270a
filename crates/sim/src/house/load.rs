//! What clients and the operator are made to do, and what becomes of it.

use std::time::Duration;

use model::request::NewTable;
use model::{
    AdminRequest, Compaction, Compression, Filter, LocalityChange, NodeId, Outcome, Partition, Refusal, Reply,
    Retention, SettingsChange, StorageChange, TabletId, Ticket,
};

use super::client::{Answered, Area, Rows, What, Wish, client_of, ticket};
use super::follow::{FOLLOWER, KEPT_SECONDS};
use super::ledger;
use super::net::Packet;
use super::world::{CLIENTS, Checked, Happening, LAST_READS, MASTER, OPERATOR, SETTLED, SETUP, World};
use crate::agenda::{MS, SECOND};

/// In how many of 100 histories clients write many rows at once, and how many of 100 operations then.
pub(super) const BATCH_HISTORIES: u64 = 50;
const BATCHES: u64 = 25;

impl World {
    // --- clients

    /// Begins the client's next operation.
    pub(super) fn act(&mut self, client: usize) -> Checked {
        let now = self.agenda.now();
        let wish = if now >= self.later(LAST_READS) { self.last_wish(client) } else { self.wish() };
        self.clients[client].begin(now, wish, &mut self.random, &mut self.next_value);
        let (sequence, attempt) = (self.clients[client].sequence, self.clients[client].attempt);
        self.attempt(client, sequence, attempt)
    }

    fn wish(&mut self) -> Wish {
        if self.climate.ledger && self.extra.chance(ledger::OPERATIONS) {
            return self.wish_of_the_ledger();
        }
        if self.climate.batches && self.batching.chance(BATCHES) {
            return self.wish_of_a_batch();
        }
        let settled = self.agenda.now() >= self.later(SETTLED);
        let area = match self.random.below(100) {
            0..15 if self.climate.tables => Area::Guest,
            15..30 if self.climate.families && settled => Area::Fast,
            15..30 if self.climate.families => Area::Loose,
            30..36 => Area::Quiet,
            _ => Area::Hot,
        };
        let row = self.random.below(area.rows());
        let what = match self.random.below(20) {
            0..=4 => What::Get,
            5..=6 if matches!(area, Area::Hot | Area::Quiet) => What::Eventual,
            5..=6 => What::Get,
            7 => What::Scan { all: self.random.chance(50) },
            8..=13 => What::Put,
            // What is quiet stays, and a row of a family that goes must not.
            _ if matches!(area, Area::Quiet | Area::Loose) => What::Get,
            14..=15 => What::Delete,
            _ => What::Cput,
        };
        // The guest may not be there.
        let most = if area == Area::Guest { SECOND } else { 6 * SECOND };
        Wish { area, row, what, patience: self.random.between(most / 6, most) }
    }

    fn wish_of_the_ledger(&mut self) -> Wish {
        let (area, does) = match self.extra.chance(50) {
            true => (Area::Count, What::Increment),
            false => (Area::Bank, What::Transfer),
        };
        let what = match self.extra.below(10) {
            0 => What::Get,
            1 => What::Eventual,
            _ => does,
        };
        Wish { area, row: self.extra.below(area.rows()), what, patience: self.extra.between(SECOND, 6 * SECOND) }
    }

    fn wish_of_a_batch(&mut self) -> Wish {
        let bits = 1 << Area::Hot.rows();
        let (rows, deletes) = (self.batching.between(1, bits), self.batching.below(bits) & self.batching.below(bits));
        let rows = Rows { rows, deletes, again: self.batching.chance(25) };
        Wish { area: Area::Hot, row: 0, what: What::Batch(rows), patience: self.batching.between(SECOND, 6 * SECOND) }
    }

    /// In the end every client reads every row, one by one or by scans.
    fn last_wish(&mut self, client: usize) -> Wish {
        let turn = self.clients[client].last_turns;
        self.clients[client].last_turns += 1;
        let hot = Area::Hot.rows();
        let (area, row, what) = match turn % (hot + 3) {
            row if row < hot => (Area::Hot, row, What::Get),
            row if row == hot && self.climate.families => (Area::Fast, 0, What::Scan { all: true }),
            row if row == hot + 1 && self.climate.tables => (Area::Guest, 0, What::Scan { all: true }),
            _ => (Area::Hot, 0, What::Scan { all: true }),
        };
        let patience = if area == Area::Guest { SECOND / 2 } else { 20 * SECOND };
        Wish { area, row, what, patience }
    }

    pub(super) fn attempt(&mut self, client: usize, sequence: u64, attempt: u64) -> Checked {
        let place = CLIENTS + client;
        let now = self.agenda.now();
        let this = &mut self.clients[client];
        let Some(doing) = this.doing.as_ref().filter(|_| this.sequence == sequence && this.attempt == attempt) else {
            return Ok(());
        };
        if now >= doing.gives_up {
            return self.give_up(client);
        }
        this.attempt += 1;
        let attempt = this.attempt;
        let request = this.request();
        let sequence = this.sequence;
        if let Some((node, request)) = request {
            self.send(place, node.0 as usize, Packet::Request(ticket(client, sequence), request));
        }
        if attempt % 3 == 1 {
            self.send(place, MASTER, Packet::Admin(ticket(client, 0), AdminRequest::Map));
        }
        let patience = self.random.between(100 * MS, 600 * MS);
        self.agenda.after(patience, Happening::Attempt { client, sequence, attempt });
        Ok(())
    }

    fn give_up(&mut self, client: usize) -> Checked {
        self.summary.unknown += 1;
        let observed = self.clients[client].give_up();
        observed.into_iter().try_for_each(|observed| self.record.observe(observed))?;
        self.agenda.after(MS, Happening::Act(client));
        Ok(())
    }

    pub(super) fn on_answer(&mut self, ticket: Ticket, answer: Result<Reply, Refusal>) -> Checked {
        let now = self.agenda.now();
        let (client, sequence) = client_of(ticket);
        if client == FOLLOWER {
            return self.on_changes(sequence, answer);
        }
        if self.clients[client].sequence != sequence {
            return Ok(());
        }
        // A read that the disk refused is told in the same way.
        if let Err(Refusal::Corrupt(what)) = &answer
            && !what.contains("os error 5")
        {
            self.notice_damage(what)?;
        }
        if let (Some(follower), Ok(Reply::Written(Outcome::Applied { version }))) = (&mut self.follower, &answer) {
            follower.acknowledge(self.clients[client].writes().into_iter(), *version);
        }
        let batch = self.clients[client].does_batch();
        let answered = self.clients[client].on_answer(now, answer)?;
        let this = &mut self.clients[client];
        let (observed, pause) = match answered {
            Answered::Not if this.doing.is_none() => return Ok(()),
            Answered::Not => (Vec::new(), self.random.between(5 * MS, 60 * MS)),
            Answered::Never => {
                return self.give_up(client);
            }
            Answered::Partly(page) => {
                *(if batch { &mut self.summary.parts } else { &mut self.summary.pages }) += 1;
                (page, self.random.below(5 * MS))
            }
            Answered::All(observed) => {
                this.doing = None;
                self.summary.answered += 1;
                self.summary.batches += u64::from(batch);
                // What is whole and quiet again finds little: there the load is light.
                let pause = if now < self.later(SETTLED) { 30 * MS } else { 200 * MS };
                self.agenda.after(self.random.below(pause), Happening::Act(client));
                self.summary.eventual += u64::from(observed.is_empty());
                (observed, 0)
            }
        };
        observed.into_iter().try_for_each(|observed| self.record.observe(observed))?;
        let this = &mut self.clients[client];
        if this.doing.is_some() {
            this.attempt += 1;
            let (sequence, attempt) = (this.sequence, this.attempt);
            self.agenda.after(pause, Happening::Attempt { client, sequence, attempt });
        }
        Ok(())
    }

    // --- the operator

    pub(super) fn set_up(&mut self) {
        if self.ready {
            return;
        }
        let families = vec![("f".into(), Retention::Keep), ("g".into(), Retention::Keep)];
        let partition = self.cut();
        let changes = self.follower.is_some().then_some(Duration::from_secs(KEPT_SECONDS));
        let settings = SettingsChange { changes, ..SettingsChange::default() };
        self.create_table(SETUP, Area::Hot.table(), families, partition, settings);
        self.agenda.after(300 * MS, Happening::Setup);
    }

    fn create_table(
        &mut self,
        ticket: Ticket,
        name: &str,
        families: Vec<(String, Retention)>,
        partition: Partition,
        settings: SettingsChange,
    ) {
        let table = NewTable {
            name: name.into(),
            families,
            partition,
            replicas: None,
            min_replicas: None,
            storage: StorageChange::default(),
            settings,
        };
        self.step_master(master::Input::Admin(ticket, AdminRequest::CreateTable(table)));
    }

    /// What an operator may want of nodes and tablets: mostly possible, sometimes not.
    fn arrangement(&mut self) -> AdminRequest {
        let nodes = self.machines.len() as u64;
        let mut node = || NodeId(self.random.between(1, nodes) as u32);
        let (from, to) = (node(), node());
        let groups = self.mastery.master.as_ref().map(|master| master.state().groups.keys().copied().collect());
        let groups: Vec<TabletId> = groups.unwrap_or_default();
        let tablet = self.random.pick(&groups).copied().unwrap_or(TabletId(1));
        match self.random.below(8) {
            0 => AdminRequest::DrainNode { node: from, drain: true },
            1 => AdminRequest::DrainNode { node: from, drain: false },
            2..=4 => AdminRequest::MoveTablet { tablet, from, to },
            _ => AdminRequest::Transfer { tablet, to },
        }
    }

    /// Makes and drops the guest, and families; in the end the family that comes and goes is there.
    pub(super) fn operate(&mut self) {
        let now = self.agenda.now();
        if now >= self.later(LAST_READS) {
            return;
        }
        let pause = self.random.between(100 * MS, 1500 * MS);
        self.agenda.after(pause, Happening::Operate);
        self.meddle();
        if self.climate.elastic && now < self.healed_at && self.elastic.chance(60) {
            self.ask_for_a_split();
        }
        if self.climate.merges && now < self.healed_at && self.joining.chance(60) {
            self.ask_for_a_merge();
        }
        if self.climate.balance && now < self.healed_at && self.random.chance(40) {
            let request = self.arrangement();
            return self.step_master(master::Input::Admin(OPERATOR, request));
        }
        if self.climate.balance && now >= self.healed_at {
            for node in 1..self.machines.len() as u32 {
                let request = AdminRequest::DrainNode { node: NodeId(node), drain: false };
                self.step_master(master::Input::Admin(OPERATOR, request));
            }
        }
        let mut storage = StorageChange::default();
        let (set, drop) = match self.random.below(6) {
            _ if now >= self.healed_at && self.climate.families => (vec![("g".into(), Retention::Keep)], vec![]),
            _ if now >= self.healed_at => return,
            0..=2 if self.climate.tables => {
                if self.random.chance(50) {
                    let partition = match self.random.chance(50) {
                        true => Partition::Range { splits: vec![Area::Guest.row(2)] },
                        false => Partition::Hash { tablets: 2 },
                    };
                    let families = vec![("f".into(), Retention::Keep)];
                    let settings = SettingsChange::default();
                    self.create_table(OPERATOR, Area::Guest.table(), families, partition, settings);
                } else {
                    let request = AdminRequest::DropTable(Area::Guest.table().into());
                    self.step_master(master::Input::Admin(OPERATOR, request));
                }
                return;
            }
            3 if self.climate.families => (vec![], vec!["g".into()]),
            4 if self.climate.families => (vec![("g".into(), Retention::Keep)], vec![]),
            5 if self.climate.families => {
                let rule = [Retention::Keep, Retention::Versions(1), Retention::Versions(3)];
                let choice = self.random.below(3);
                storage = elsewhere(choice);
                (vec![("f".into(), rule[choice as usize].clone())], vec![])
            }
            _ => return,
        };
        let request = AdminRequest::AlterTable {
            table: Area::Hot.table().into(),
            set,
            drop,
            storage,
            settings: SettingsChange::default(),
        };
        self.step_master(master::Input::Admin(OPERATOR, request));
    }
}

/// Other files for the family that the checks are about, or another way to compact it.
fn elsewhere(choice: u64) -> StorageChange {
    let place = |group: &str| vec![(String::from("f"), String::from(group))];
    let cold = LocalityChange {
        name: "cold".into(),
        in_memory: Some(true),
        compression: Some(Compression::Zstd),
        block_bytes: Some(1 << 10),
        filter: Some(Filter::Columns),
    };
    match choice {
        0 => StorageChange { set: vec![cold], place: place("cold"), ..StorageChange::default() },
        1 => StorageChange { compaction: Some(Compaction::Leveled), ..StorageChange::default() },
        _ => {
            StorageChange { compaction: Some(Compaction::Tiered), place: place("default"), ..StorageChange::default() }
        }
    }
}
