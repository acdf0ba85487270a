//! Brings a learner up to date: from the log as far as it goes back, otherwise from a checkpoint and then the log.
//!
//! ```text
//!   primary                                     learner
//!      │ ◀──────────── Learn(from) ───────────────│
//!      │  log has `from`:  Prepare, Prepare … ───▶│   (through `protocol::replica`)
//!      │  log has not:     Offer(files) ─────────▶│
//!      │ ◀──────────── Fetch(file, offset) ───────│   one piece at a time, asked again if it gets lost
//!      │  Chunk(bytes) ──────────────────────────▶│ ─▶ Job::Receive … Job::Adopt
//!      │ ◀──────────── Learn(from) ───────────────│
//! ```
//!
//! The view that an offer was made of pins its files until the learner has moved on.

use bytes::Bytes;
use model::{Epoch, Instant, Lsn, NodeId, TabletId};
use protocol::replica::Input as GroupInput;
use protocol::{Entry, FileInfo, GroupMessage, Mutant, NodeMessage};
use store::log::{Kind, Record};
use store::{Error, Job, View};

use crate::api::{CHUNK_BYTES, Effect, Event};
use crate::completions::Completions;
use crate::hosted::Hosted;
use crate::machine::{Node, Working};

/// Entries that are being read from the log for a peer.
#[derive(Debug)]
pub(crate) struct LogReading {
    tablet: TabletId,
    /// The epoch when the read began.
    epoch: Epoch,
    to: NodeId,
    from: Lsn,
    attempt: Option<u64>,
}

/// A checkpoint that is being given to a learner.
#[derive(Debug)]
pub(crate) struct Giving {
    attempt: u64,
    view: View,
}

/// A checkpoint that is arriving.
#[derive(Debug)]
pub(crate) struct Receiving {
    attempt: u64,
    from: NodeId,
    upto: Lsn,
    note: Bytes,
    files: Vec<FileInfo>,
    file: usize,
    offset: u64,
    /// When the next piece was asked for; `None` while a piece is being written.
    asked: Option<Instant>,
}

impl Node {
    /// A peer needs entries that are not in memory.
    pub(crate) fn on_older(
        &mut self,
        tablet: TabletId,
        to: NodeId,
        from: Lsn,
        attempt: Option<u64>,
        out: &mut Vec<Effect>,
    ) {
        let id = self.draw_id();
        if from == Lsn::ZERO {
            self.offer(tablet, to, from, attempt, out);
            return;
        }
        let Some(epoch) = self.hosted.get(&tablet).map(|hosted| hosted.replica.epoch()) else { return };
        self.log_reads.insert(id, LogReading { tablet, epoch, to, from, attempt });
        out.push(Effect::ReadLog { id, tablet, from, max_bytes: CHUNK_BYTES });
    }

    pub(crate) fn on_log_read(
        &mut self,
        now: Instant,
        id: u64,
        result: Result<Vec<Record>, Error>,
        out: &mut Vec<Effect>,
    ) {
        let Some(LogReading { tablet, epoch, to, from, attempt }) = self.log_reads.remove(&id) else { return };
        match result {
            Ok(records) => {
                // In another epoch, what was read may have been replaced since.
                let current = self.hosted.get(&tablet).is_some_and(|hosted| hosted.replica.epoch() == epoch);
                let records = if current { records } else { Vec::new() };
                let entries = records
                    .into_iter()
                    .map(|record| Entry { lsn: record.lsn, epoch: record.epoch, payload: record.body })
                    .collect();
                self.step_replica(now, tablet, GroupInput::Fetched(to, entries), out);
            }
            Err(Error::Corrupt { file, offset, what }) => {
                let what = format!("while reading old entries for {to}: {file} at {offset}: {what}");
                out.push(Effect::Event(Event { name: "log_damaged", tablet: Some(tablet), what }));
                // Memory still has what the log had, if tables have not.
                self.flush(tablet, out);
                self.tally.log += 1;
                self.tally.flushed += 1;
                self.offer(tablet, to, from, attempt, out);
            }
            Err(_) => self.offer(tablet, to, from, attempt, out),
        }
    }

    /// Offers the files that hold everything up to the last flush, to a learner that lacks `from`.
    fn offer(&mut self, tablet: TabletId, to: NodeId, from: Lsn, attempt: Option<u64>, out: &mut Vec<Effect>) {
        let Some(attempt) = attempt else { return };
        // An heir without files of its own has no checkpoint yet; the learner asks again.
        let fit = |hosted: &&Hosted| !hosted.rows.is_unsettled() && !hosted.is_doubtful();
        let Some(hosted) = self.hosted.get(&tablet).filter(fit) else { return };
        let giving = self.giving.entry((tablet, to));
        let giving = giving
            .and_modify(|giving| {
                // One that ends before what it lacks does not help it, and there may have been a flush since.
                let helps = giving.view.flushed() >= from || giving.view.flushed() >= hosted.rows.flushed();
                if giving.attempt != attempt || !helps {
                    *giving = Giving { attempt, view: hosted.rows.view() };
                }
            })
            .or_insert_with(|| Giving { attempt, view: hosted.rows.view() });
        let files =
            giving.view.files().into_iter().map(|file| FileInfo { name: file.name, bytes: file.bytes, run: file.run });
        let message = GroupMessage::Offer {
            epoch: hosted.replica.epoch(),
            attempt,
            upto: giving.view.flushed(),
            note: giving.view.note().clone(),
            files: files.collect(),
        };
        let what = format!("gives {to} a checkpoint up to {}", giving.view.flushed());
        out.push(Effect::Event(Event { name: "checkpoint_offered", tablet: Some(tablet), what }));
        out.push(Effect::Send(to, NodeMessage::Group(tablet, message)));
    }

    /// A learner wants a piece of a file.
    pub(crate) fn on_fetch(
        &mut self,
        tablet: TabletId,
        from: NodeId,
        attempt: u64,
        file: u32,
        offset: u64,
        out: &mut Vec<Effect>,
    ) {
        let giving = self.giving.get(&(tablet, from)).filter(|giving| giving.attempt == attempt);
        let sized = giving.and_then(|giving| {
            let info = giving.view.files().into_iter().nth(file as usize)?;
            Some((giving.view.clone(), info.bytes))
        });
        let Some((view, bytes)) = sized.filter(|(_, bytes)| offset < *bytes) else {
            self.send_chunk(tablet, from, attempt, file, offset, Bytes::new(), out);
            return;
        };
        let len = (bytes - offset).min(CHUNK_BYTES as u64) as u32;
        let job = Job::Fetch { view, file, offset, len };
        self.run(job, Working::Fetch { tablet, to: from, attempt, file, offset }, out);
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn send_chunk(
        &mut self,
        tablet: TabletId,
        to: NodeId,
        attempt: u64,
        file: u32,
        offset: u64,
        bytes: Bytes,
        out: &mut Vec<Effect>,
    ) {
        let message = GroupMessage::Chunk { attempt, file, offset, bytes };
        out.push(Effect::Send(to, NodeMessage::Group(tablet, message)));
    }

    /// Unpins checkpoints of learners that have gone or have learned.
    pub(crate) fn drop_givings(&mut self) {
        let hosted = &self.hosted;
        self.giving
            .retain(|(tablet, to), _| hosted.get(tablet).is_some_and(|hosted| hosted.replica.learner() == Some(*to)));
    }

    /// The primary offers a checkpoint.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn on_offer(
        &mut self,
        now: Instant,
        tablet: TabletId,
        from: NodeId,
        attempt: u64,
        upto: Lsn,
        note: Bytes,
        files: Vec<FileInfo>,
        out: &mut Vec<Effect>,
    ) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let learning =
            hosted.replica.role() == model::request::Role::Learner && hosted.replica.configuration().primary == from;
        let known = hosted.receiving.as_ref().is_some_and(|receiving| receiving.attempt == attempt);
        if !learning || known || self.adopting.contains(&tablet) || !hosted.replica.wants_checkpoint(upto) {
            return;
        }
        hosted.receiving = Some(Receiving { attempt, from, upto, note, files, file: 0, offset: 0, asked: Some(now) });
        self.ask_for_piece(now, tablet, out);
    }

    /// Asks for the next piece, or adopts the checkpoint when it has all.
    fn ask_for_piece(&mut self, now: Instant, tablet: TabletId, out: &mut Vec<Effect>) {
        let busy = self.is_busy(tablet);
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let Some(receiving) = &mut hosted.receiving else { return };
        while receiving.files.get(receiving.file).is_some_and(|file| receiving.offset >= file.bytes) {
            receiving.file += 1;
            receiving.offset = 0;
        }
        if receiving.file < receiving.files.len() {
            receiving.asked = Some(now);
            let message = GroupMessage::Fetch {
                attempt: receiving.attempt,
                file: receiving.file as u32,
                offset: receiving.offset,
            };
            out.push(Effect::Send(receiving.from, NodeMessage::Group(tablet, message)));
            return;
        }
        if busy {
            // A flush or merge of what the checkpoint will replace; the next tick looks again.
            receiving.asked = Some(now);
            return;
        }
        let Some(done) = hosted.receiving.take() else { return };
        if !hosted.replica.wants_checkpoint(done.upto) {
            return; // Meanwhile the log has brought more than the files hold.
        }
        let files =
            done.files.iter().map(|file| store::FileInfo { name: file.name.clone(), bytes: file.bytes, run: file.run });
        let job = Job::Adopt {
            tablet,
            attempt: done.attempt,
            files: files.collect(),
            upto: done.upto,
            note: done.note.clone(),
        };
        self.adopting.insert(tablet);
        self.run(job, Working::Adopt { tablet, upto: done.upto, note: done.note }, out);
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn on_chunk(
        &mut self,
        tablet: TabletId,
        attempt: u64,
        file: u32,
        offset: u64,
        bytes: Bytes,
        out: &mut Vec<Effect>,
    ) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let Some(receiving) = &mut hosted.receiving else { return };
        let next = (receiving.attempt, receiving.file as u32, receiving.offset);
        if next != (attempt, file, offset) || receiving.asked.is_none() {
            return;
        }
        if bytes.is_empty() {
            hosted.receiving = None;
            return;
        }
        receiving.asked = None;
        let len = bytes.len() as u64;
        let job = Job::Receive { tablet, attempt, file, offset, bytes };
        self.run(job, Working::Receive { tablet, attempt, len }, out);
    }

    /// A piece is written.
    pub(crate) fn on_received(
        &mut self,
        now: Instant,
        tablet: TabletId,
        attempt: u64,
        len: u64,
        good: bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let Some(receiving) = hosted.receiving.as_mut().filter(|receiving| receiving.attempt == attempt) else {
            return;
        };
        if !good {
            hosted.receiving = None;
            return;
        }
        receiving.offset += len;
        self.ask_for_piece(now, tablet, out);
    }

    /// Asks again for pieces that got lost.
    pub(crate) fn on_catch_up_tick(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let patience = self.options.timing.retry * 5;
        let late = |hosted: &crate::hosted::Hosted| {
            let asked = hosted.receiving.as_ref().and_then(|receiving| receiving.asked);
            asked.is_some_and(|asked| now.since(asked) > patience)
        };
        let late: Vec<TabletId> =
            self.hosted.iter().filter(|(_, hosted)| late(hosted)).map(|(&tablet, _)| tablet).collect();
        for tablet in late {
            self.ask_for_piece(now, tablet, out);
        }
    }

    /// The checkpoint has taken the place of what was there.
    pub(crate) fn on_adopted(
        &mut self,
        now: Instant,
        tablet: TabletId,
        upto: Lsn,
        note: &[u8],
        done: store::Done,
        out: &mut Vec<Effect>,
    ) {
        self.adopting.remove(&tablet);
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let Some(completions) = Completions::from_bytes(note) else {
            out.push(Effect::Stop(format!("the completion records in the checkpoint of tablet {tablet} are broken")));
            return;
        };
        hosted.rows.install(done);
        hosted.saw_version(completions.newest());
        let forgets = hosted.replica.mutant(Mutant::CheckpointWithoutCompletions);
        hosted.completions = if forgets { Completions::default() } else { completions };
        // Whatever the log holds after the checkpoint is of a dead epoch.
        let epoch = hosted.replica.epoch();
        let cut = Record { tablet, lsn: upto, epoch, committed: upto, kind: Kind::Cut, body: Bytes::new() };
        self.log(vec![cut], out);
        let what = format!("has a checkpoint up to {upto}");
        out.push(Effect::Event(Event { name: "checkpoint_adopted", tablet: Some(tablet), what }));
        self.step_replica(now, tablet, GroupInput::Restored(upto), out);
    }
}
