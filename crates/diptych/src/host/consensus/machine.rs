//! The state machine of the consensus: the master's thread, fed with committed commands, and its snapshots.
//!
//! The thread holds the state; here is only how far it is. A snapshot is one file that is replaced as a whole; after a
//! restart the consensus installs it and applies the rest of the log.

use super::frames::Frames;
use super::log::{blocking, decode, encode};
use super::{Apply, Group, LogId, Snapshot, SnapshotMeta, StoredMembership};
use bytes::Bytes;
use disk::Disk;
use futures_util::{Stream, TryStreamExt};
use openraft::entry::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use std::io;
use std::sync::Arc;
use tokio::sync::oneshot;

const FILE: &str = "raft.snapshot";
/// Commands that are given to the thread at a time.
const BATCH: usize = 256;

/// How the state machine reaches the master's thread, which outlives it.
pub type Thread = Arc<dyn Fn(Apply) + Send + Sync>;

/// The state machine.
pub struct Machine {
    disk: Arc<dyn Disk>,
    thread: Thread,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// A snapshot that was taken and is not written yet.
pub struct Builder {
    disk: Arc<dyn Disk>,
    meta: SnapshotMeta,
    state: io::Result<Bytes>,
}

impl Machine {
    /// Nothing is applied yet.
    pub fn new(disk: Arc<dyn Disk>, thread: Thread) -> Machine {
        Machine { disk, thread, applied: None, membership: StoredMembership::default() }
    }

    /// Asks the thread and waits for the answer.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Apply) -> io::Result<T> {
        let (answer, answered) = oneshot::channel();
        (self.thread)(question(answer));
        answered.await.map_err(|_| io::Error::other("the master's thread has stopped"))
    }

    async fn give(&mut self, batch: &mut Vec<EntryResponder<Group>>) -> io::Result<()> {
        let mut commands = Vec::new();
        let mut responders = Vec::new();
        for (entry, responder) in batch.drain(..) {
            let log_id = entry.log_id;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(command) => commands.push((log_id.index, command.0)),
                EntryPayload::Membership(members) => self.membership = StoredMembership::new(Some(log_id), members),
            }
            self.applied = Some(log_id);
            responders.extend(responder);
        }
        if !commands.is_empty() {
            self.ask(|done| Apply::Committed(commands, done)).await?;
        }
        responders.into_iter().for_each(|responder| responder.send(()));
        Ok(())
    }
}

impl RaftStateMachine<Group> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Group>>> + Unpin + OptionalSend,
    {
        let mut batch = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            batch.push(entry);
            if batch.len() >= BATCH {
                self.give(&mut batch).await?;
            }
        }
        self.give(&mut batch).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let state = self.ask(Apply::Snapshot).await;
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() };
        Builder { disk: self.disk.clone(), meta, state }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, state: Bytes) -> io::Result<()> {
        let held = read(self.disk.clone()).await?.is_some_and(|snapshot| snapshot.meta == *meta);
        if !held {
            write(self.disk.clone(), meta.clone(), state.clone()).await?;
        }
        let restored = self.ask(|done| Apply::Restore(state, done)).await?;
        restored.map_err(|what| io::Error::new(io::ErrorKind::InvalidData, format!("{FILE}: {what}")))?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        read(self.disk.clone()).await
    }
}

impl RaftSnapshotBuilder<Group> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let taken = std::mem::replace(&mut self.state, Err(io::Error::other("the snapshot is already written")));
        let snapshot = taken?;
        write(self.disk.clone(), self.meta.clone(), snapshot.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}

async fn write(disk: Arc<dyn Disk>, meta: SnapshotMeta, state: Bytes) -> io::Result<()> {
    blocking(move || Frames::replace(&*disk, FILE, &encode(&(meta, state))).map(drop)).await
}

/// The snapshot on disk. It was whole before it got its name, so anything else is damage.
async fn read(disk: Arc<dyn Disk>) -> io::Result<Option<Snapshot>> {
    blocking(move || {
        if !disk.exists(FILE)? {
            return Ok(None);
        }
        let mut snapshot = None;
        let (_, torn) = Frames::open(&*disk, FILE, |body| {
            let (meta, state): (SnapshotMeta, Bytes) = decode(&body)?;
            snapshot = Some(Snapshot { meta, snapshot: state });
            Ok(())
        })?;
        match (snapshot, torn) {
            (Some(snapshot), None) => Ok(Some(snapshot)),
            (_, what) => Err(io::Error::new(io::ErrorKind::InvalidData, what.unwrap_or(format!("{FILE} is empty")))),
        }
    })
    .await
}
