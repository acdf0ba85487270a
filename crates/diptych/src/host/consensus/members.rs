//! Who belongs to the group: how it is founded, and how masters come and go while it runs.
//!
//! ```text
//!   --initial: the lowest of the listed masters asks the others who they are; once a majority has answered and none
//!              belongs to a group, it founds one with all of them
//!   add:       hello ──▶ learner ──caught up──▶ voter          remove: voter ──▶ gone; a leader first hands over
//! ```
//!
//! Only the leader changes anything, one change at a time, and every change is an entry of the log. A change that would
//! leave the group without a majority that is alive is refused.

use super::letters::Ask;
use super::{Consensus, Group, Member, leads};
use futures_util::future::join_all;
use model::Refusal;
use model::request::MasterStatus;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, RaftMetrics};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Masters that a group may have: more make it slower and not safer.
pub const MOST: usize = 9;
/// How long a new master may take to say who it is, to catch up, and a change to be committed. Together less than a
/// gateway waits.
const HELLO: Duration = Duration::from_millis(1500);
const CATCH_UP: Duration = Duration::from_secs(4);
const CHANGE: Duration = Duration::from_secs(2);
/// Between two looks at what is to be done.
const PAUSE: Duration = Duration::from_millis(250);

/// How a master with an empty folder comes to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Founding {
    /// It founds one with itself alone.
    Alone,
    /// It founds one with these, by id, or is one of them.
    Initial(BTreeMap<u64, String>),
    /// It waits until a leader adds it.
    Join,
    /// Not at all: its folder must not be empty.
    Unsaid,
}

impl Consensus {
    /// Takes up what the folder holds, or comes to a group if that needs nobody else.
    pub(super) async fn begin(&self, founding: Founding) -> anyhow::Result<()> {
        let me = self.mail.me.id;
        if self.raft.is_initialized().await? {
            let voters: Vec<u64> = self.raft.voter_ids().collect();
            if voters == [me] {
                self.raft.trigger().elect(false).await?;
            }
            return Ok(());
        }
        match founding {
            Founding::Alone => {
                self.raft.initialize(BTreeMap::from([(me, self.myself())])).await?;
            }
            Founding::Initial(masters) => {
                anyhow::ensure!(masters.contains_key(&me), "--initial does not list master {me} itself");
            }
            Founding::Join => {}
            Founding::Unsaid => anyhow::bail!(
                "the folder of master {me} is empty; say --initial with all masters of a new cluster, or --join to wait \
                 until `diptych master add {me} {}`",
                self.mail.me.address
            ),
        }
        Ok(())
    }

    fn myself(&self) -> Member {
        Member { address: self.mail.me.address.clone(), disk: self.mail.me.disk }
    }

    /// Founds the group if that is this master's part, and then keeps the membership true for as long as it leads.
    /// Returns only if it cannot go on, with the reason.
    pub async fn keep(&self, founding: Founding) -> String {
        if let Founding::Initial(masters) = &founding
            && masters.keys().next() == Some(&self.mail.me.id)
            && let Err(why) = self.found(masters).await
        {
            return why;
        }
        loop {
            self.correct().await;
            sleep(PAUSE).await;
        }
    }

    /// Founds the group once a majority of these has said that it belongs to none.
    async fn found(&self, masters: &BTreeMap<u64, String>) -> Result<(), String> {
        let mut told = None;
        while let Ok(false) = self.raft.is_initialized().await {
            let others = masters.iter().filter(|(id, _)| **id != self.mail.me.id);
            let hellos = others.map(async |(id, address)| {
                let member = Member { address: address.clone(), disk: 0 };
                (*id, self.mail.ask(*id, &member, Ask::Hello, HELLO).await)
            });
            let mut members: BTreeMap<u64, Member> =
                masters.iter().map(|(id, address)| (*id, Member { address: address.clone(), disk: 0 })).collect();
            members.insert(self.mail.me.id, self.myself());
            let (mut heard, mut missing) = (1, Vec::new());
            for (id, reply) in join_all(hellos).await {
                let member = &members[&id];
                match reply.and_then(|reply| {
                    let (disk, founded) = (reply.from.disk, reply.founded);
                    reply.check(id, member, None).map(|_| (disk, founded))
                }) {
                    Ok((_, true)) => {
                        return Err(format!(
                            "the master at {} belongs to a group already, and this folder is empty: if this master's \
                             folder was lost, remove it with `diptych master remove {}` and add it again with --join",
                            member.address, self.mail.me.id
                        ));
                    }
                    Ok((disk, false)) => {
                        heard += 1;
                        members.entry(id).and_modify(|member| member.disk = disk);
                    }
                    Err(why) => missing.push(why),
                }
            }
            if heard * 2 > members.len() {
                let founded = self.raft.initialize(members).await;
                return founded.map_err(|error| format!("cannot found the group of masters: {error}"));
            }
            let missing = missing.join("; ");
            if told.as_ref() != Some(&missing) {
                tracing::info!(event = "masters_awaited", "a new cluster needs a majority of its masters: {missing}");
                told = Some(missing);
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// If this master leads: finishes a change that another leader has begun, and puts right what the membership says
    /// of its members.
    async fn correct(&self) {
        let Ok(_changing) = self.changing.try_lock() else { return };
        let metrics = self.raft.metrics().borrow_watched().clone();
        if leads(&metrics).is_none() {
            return;
        }
        let joint = metrics.membership_config.get_joint_config();
        if let [_, .., last] = &joint[..] {
            let change: ChangeMembers<u64, Member> = last.clone().into();
            if let Err(refusal) = self.change(change).await {
                tracing::warn!(event = "masters_change", "a change of the masters is not finished: {refusal}");
            }
            return;
        }
        for (id, member) in self.mail.corrections() {
            let what = format!("master {id} is at {}", member.address);
            match self.change(ChangeMembers::SetNodes(BTreeMap::from([(id, member)]))).await {
                Ok(()) => tracing::info!(event = "masters_changed", "{what}"),
                Err(refusal) => tracing::warn!(event = "masters_change", "{what}, which is not noted: {refusal}"),
            }
        }
    }

    /// The masters as the leader knows them.
    pub fn masters(&self) -> Result<Vec<MasterStatus>, Refusal> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        if leads(&metrics).is_none() {
            return Err(Refusal::NoMaster);
        }
        Ok(list(&metrics))
    }

    /// Takes a master into the group.
    pub async fn add(&self, id: u64, address: String) -> Result<Vec<MasterStatus>, Refusal> {
        let _changing = self.changing.lock().await;
        let invalid = |why: String| Refusal::Invalid(format!("master {id} cannot be added: {why}"));
        let masters = self.masters()?;
        if id == 0 {
            return Err(invalid(String::from("masters are numbered from 1")));
        }
        if let Some(there) = masters.iter().find(|master| u64::from(master.id) == id && !master.learns) {
            return Err(Refusal::Exists(format!("master {id}, at {},", there.address)));
        }
        if let Some(there) = masters.iter().find(|master| u64::from(master.id) != id && master.address == address) {
            return Err(invalid(format!("{address} is where master {} is", there.id)));
        }
        if masters.len() >= MOST {
            return Err(invalid(format!("there are {} already, and {MOST} is the limit", masters.len())));
        }
        let start = format!("start it first: diptych master run --id {id} --join --grpc {address} --data DIR");
        let unknown = Member { address: address.clone(), disk: 0 };
        let reply = self.mail.ask(id, &unknown, Ask::Hello, HELLO).await;
        let reply = reply.map_err(|why| invalid(format!("{why}; {start}")))?;
        let (disk, cluster, founded) = (reply.from.disk, reply.cluster, reply.founded);
        reply.check(id, &unknown, None).map_err(invalid)?;
        if founded && cluster != self.mail.cluster.get().copied() {
            return Err(invalid(format!("{address} belongs to another cluster; start it with an empty folder")));
        }
        if masters.iter().any(|master| u64::from(master.id) == id) {
            // Left over from an attempt that was cut short, perhaps with another folder.
            self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await?;
        }
        match timeout(CATCH_UP, self.raft.add_learner(id, Member { address, disk }, true)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(refusal(error)),
            Err(_) => {
                self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await?;
                return Err(invalid(format!("it has not caught up within {CATCH_UP:?}; try again")));
            }
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await?;
        tracing::info!(event = "masters_changed", "master {id} was added");
        self.masters()
    }

    /// Takes a master out of the group. A leader that shall go hands over first, and then does not lead.
    pub async fn remove(&self, id: u64) -> Result<Vec<MasterStatus>, Refusal> {
        let _changing = self.changing.lock().await;
        let invalid = |why: String| Refusal::Invalid(format!("master {id} cannot be removed: {why}"));
        let masters = self.masters()?;
        let Some(there) = masters.iter().find(|master| u64::from(master.id) == id) else {
            let ids: Vec<String> = masters.iter().map(|master| format!("m{}", master.id)).collect();
            return Err(invalid(format!("there are {}", ids.join(", "))));
        };
        if there.learns {
            self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await?;
            return self.masters();
        }
        let rest: Vec<&MasterStatus> =
            masters.iter().filter(|master| u64::from(master.id) != id && !master.learns).collect();
        if rest.is_empty() {
            return Err(invalid(String::from("it is the last one")));
        }
        let alive = |master: &&&MasterStatus| master.is_alive();
        let heard = rest.iter().filter(alive).count();
        if heard * 2 <= rest.len() {
            return Err(invalid(format!(
                "of the other {} only {heard} answer, which is no majority; start them, or remove those first",
                rest.len()
            )));
        }
        if id == self.mail.me.id {
            let best = rest.iter().filter(alive).min_by_key(|master| master.behind);
            if let Some(best) = best {
                tracing::info!(event = "masters_change", "this master shall go: m{} shall lead", best.id);
                let handed = self.raft.trigger().transfer_leader(u64::from(best.id)).await;
                handed.map_err(|error| invalid(error.to_string()))?;
            }
            return Err(Refusal::NoMaster);
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await?;
        tracing::info!(event = "masters_changed", "master {id} was removed");
        self.masters()
    }

    async fn change(&self, change: ChangeMembers<u64, Member>) -> Result<(), Refusal> {
        match timeout(CHANGE, self.raft.change_membership(change, false)).await {
            Ok(done) => done.map(drop).map_err(refusal),
            Err(_) => Err(Refusal::Invalid(format!(
                "no majority of the masters has confirmed the change within {CHANGE:?}; it may still come true: \
                 diptych master list"
            ))),
        }
    }
}

fn refusal(error: RaftError<Group, ClientWriteError<Group>>) -> Refusal {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) | RaftError::Fatal(_) => Refusal::NoMaster,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))) => {
            Refusal::Invalid(String::from("another change of the masters is under way; try again"))
        }
        RaftError::APIError(error) => Refusal::Invalid(format!("the masters were not changed: {error}")),
    }
}

/// As a leader has heard.
pub(super) fn list(metrics: &RaftMetrics<Group>) -> Vec<MasterStatus> {
    let members = metrics.membership_config.membership();
    let voters: BTreeSet<u64> = members.voter_ids().collect();
    let last = metrics.last_log_index.unwrap_or(0);
    let status = |(&id, member): (&u64, &Member)| {
        let me = id == metrics.id;
        let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(&id).copied().flatten());
        let heard = heard.map(|at| openraft::Instant::elapsed(&*at).as_millis() as u64);
        let matched = metrics.replication.as_ref().and_then(|matched| matched.get(&id).copied().flatten());
        MasterStatus {
            id: u32::try_from(id).unwrap_or(u32::MAX),
            address: member.address.clone(),
            leads: me,
            learns: !voters.contains(&id),
            heard_ms_ago: if me { Some(0) } else { heard },
            behind: if me { Some(0) } else { matched.map(|matched| last.saturating_sub(matched.index)) },
        }
    };
    members.nodes().map(status).collect()
}
