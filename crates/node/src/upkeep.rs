//! Work in the background: memtables go to disk, tables are merged, the log is trimmed, and what jobs bring back.

use model::{Instant, Lsn, TabletId};
use protocol::Mutant;
use store::{Done, Error, Job, Urgency};

use crate::api::{Effect, Event, NOTHING};
use crate::hosted::Hosted;
use crate::machine::{Node, Working};

/// So many memtables go to disk at the same time because the log is long.
const RELIEVED_AT_A_TIME: usize = 2;

impl Node {
    /// Is a job under way that changes the tablet's files? Such jobs do not overlap.
    pub(crate) fn is_busy(&self, tablet: TabletId) -> bool {
        self.jobs.values().any(|working| match working {
            Working::Flush { tablet: busy }
            | Working::Merge { tablet: busy }
            | Working::Drop { tablet: busy }
            | Working::Receive { tablet: busy, .. }
            | Working::Adopt { tablet: busy, .. } => *busy == tablet,
            Working::CheckLog => false,
            Working::Fetch { .. } | Working::Scrub { .. } | Working::Digest { .. } | Working::Empty => false,
            Working::Checkpoint { .. } | Working::Checkpoints { .. } => false,
        })
    }

    pub(crate) fn run(&mut self, job: Job, working: Working, out: &mut Vec<Effect>) {
        let id = self.draw_id();
        self.jobs.insert(id, working);
        out.push(Effect::Run(id, job));
    }

    /// Sends a memtable to disk when it is large.
    pub(crate) fn flush_if_due(&mut self, now: Instant, tablet: TabletId, out: &mut Vec<Effect>) {
        let limits = &self.options.flush;
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let large = hosted.rows.weight() >= limits.bytes || hosted.rows.updates() >= limits.updates;
        // An heir gets files of its own at once; what has ended needs no more of them.
        let settles = hosted.rows.is_unsettled() && !hosted.rows.is_flushing();
        let idle = (!large && !settles) || hosted.ending.has_ended();
        if idle || now < hosted.flush_after || self.adopting.contains(&tablet) {
            return;
        }
        self.flush(tablet, out);
    }

    /// Sends a memtable to disk, unless that is under way.
    pub(crate) fn flush(&mut self, tablet: TabletId, out: &mut Vec<Effect>) {
        let Some(hosted) = self.hosted.get_mut(&tablet).filter(|_| !self.adopting.contains(&tablet)) else { return };
        let note = hosted.completions.to_bytes();
        if let Some(job) = hosted.rows.freeze(note, &hosted.schema) {
            self.run(job, Working::Flush { tablet }, out);
        }
    }

    pub(crate) fn merge_if_due(&mut self, tablet: TabletId, out: &mut Vec<Effect>) {
        if self.adopting.contains(&tablet) {
            return;
        }
        let Some(hosted) = self.hosted.get_mut(&tablet).filter(|hosted| !hosted.ending.has_ended()) else { return };
        if let Some(job) = hosted.rows.choose(&hosted.schema, Urgency::Busy) {
            self.run(job, Working::Merge { tablet }, out);
        }
    }

    pub(crate) fn on_job_done(&mut self, now: Instant, id: u64, result: Result<Done, Error>, out: &mut Vec<Effect>) {
        let Some(working) = self.jobs.remove(&id) else { return };
        if let Err(error) = &result {
            let what = format!("{working:?}: {error}");
            out.push(Effect::Event(Event { name: "job_failed", tablet: None, what }));
        }
        match &working {
            // What a peer's piece brings is not ours; what is damaged of a checkpoint is found when it is adopted.
            Working::Drop { .. } | Working::Receive { .. } | Working::CheckLog | Working::Empty => {}
            // What is damaged in the folder of a checkpoint is no damage to the tablet.
            Working::Checkpoint { .. } | Working::Checkpoints { .. } => {}
            Working::Flush { tablet }
            | Working::Merge { tablet }
            | Working::Fetch { tablet, .. }
            | Working::Scrub { tablet }
            | Working::Digest { tablet }
            | Working::Adopt { tablet, .. } => {
                self.reporting.stir(*tablet);
                self.notice(now, *tablet, &result, out);
            }
        }
        match (working, result) {
            (Working::Flush { tablet }, Ok(done)) => {
                if let Some(hosted) = self.hosted.get_mut(&tablet) {
                    hosted.rows.install(done);
                }
                self.tidying.stir(now, tablet);
                self.on_settled(tablet, out);
                self.trim(out);
                self.merge_if_due(tablet, out);
                self.flush_if_due(now, tablet, out);
                self.relieve_log(now, out);
                self.go_on_with_checkpoints(now, Some(tablet), out);
            }
            (Working::Merge { tablet }, Ok(done)) => {
                if let Some(hosted) = self.hosted.get_mut(&tablet) {
                    hosted.rows.install(done);
                }
                self.tidying.stir(now, tablet);
                self.merge_if_due(tablet, out);
            }
            (Working::Flush { tablet }, Err(error)) => {
                self.on_flush_failed(tablet, &error, out);
                if let Some(hosted) = self.hosted.get_mut(&tablet) {
                    hosted.rows.failed(store::JobKind::Flush);
                    hosted.flush_after = now + self.options.timing.session;
                }
            }
            (Working::Merge { tablet }, Err(_)) => {
                if let Some(hosted) = self.hosted.get_mut(&tablet) {
                    hosted.rows.failed(store::JobKind::Merge);
                }
            }
            (Working::Drop { tablet }, Ok(_)) => {
                self.dropping.remove(&tablet);
                // Whoever is to learn the tablet anew may begin.
                self.ask_master |= self.lost.contains_key(&tablet);
            }
            (Working::Scrub { tablet }, result) => self.on_scrubbed(now, tablet, result),
            (Working::Checkpoint { ticket, tablet }, result) => self.on_checkpointed(ticket, tablet, result, out),
            (Working::Checkpoints { ticket, about }, result) => self.on_checkpoints(ticket, about, result, out),
            (Working::CheckLog, result) => self.on_log_checked(now, result, out),
            (Working::Digest { .. }, result) => self.on_summed_up(now, result, out),
            (Working::Empty, result) => self.on_emptied(now, &result, out),
            // It stays among those to be dropped, and is tried again with the next report.
            (Working::Drop { .. }, Err(_)) => {}
            (Working::Fetch { tablet, to, attempt, file, offset }, result) => {
                let bytes = match result {
                    Ok(Done::Fetched(bytes)) => bytes,
                    _ => NOTHING,
                };
                self.send_chunk(tablet, to, attempt, file, offset, bytes, out);
            }
            (Working::Receive { tablet, attempt, len }, result) => {
                self.on_received(now, tablet, attempt, len, result.is_ok(), out);
            }
            (Working::Adopt { tablet, upto, note }, Ok(done)) => self.on_adopted(now, tablet, upto, &note, done, out),
            (Working::Adopt { tablet, .. }, Err(_)) => {
                self.adopting.remove(&tablet);
            }
        }
    }

    /// Tells the log what nobody needs any more.
    pub(crate) fn trim(&mut self, out: &mut Vec<Effect>) {
        let rash = self.mutant(Mutant::TrimBeyondFlush);
        let flushed = |hosted: &Hosted| if rash { Lsn(u64::MAX) } else { hosted.rows.flushed() };
        let floor = |hosted: &Hosted| flushed(hosted).min(hosted.replica.needed_after());
        let floors = self.hosted.iter().map(|(&tablet, hosted)| (tablet, floor(hosted))).collect();
        out.push(Effect::Trim(floors));
    }

    pub(crate) fn on_log_bytes(&mut self, now: Instant, bytes: u64, out: &mut Vec<Effect>) {
        // A trim that frees nothing, because somebody still needs the oldest entries, is answered by the same number.
        let same = std::mem::replace(&mut self.log_bytes, bytes) == bytes;
        if !same {
            self.relieve_log(now, out);
            if bytes > self.options.flush.log_bytes {
                self.trim(out);
            }
        }
    }

    /// While the log is longer than it should be, sends those memtables to disk that hold back its oldest segments, a few
    /// at a time. The next ones follow when these are done.
    fn relieve_log(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let excess = self.log_bytes.saturating_sub(self.options.flush.log_bytes);
        let Some(log) = self.scrubbing.log.clone().filter(|_| excess > 0) else { return };
        let most = log.bytes().saturating_sub(excess);
        let floors = self.hosted.iter().map(|(&tablet, hosted)| (tablet, hosted.rows.flushed())).collect();
        for tablet in log.pinning(&floors, most) {
            let flushing = self.jobs.values().filter(|working| matches!(working, Working::Flush { .. })).count();
            if flushing >= RELIEVED_AT_A_TIME {
                return;
            }
            let can = |hosted: &&Hosted| !hosted.ending.has_ended() && now >= hosted.flush_after;
            if self.hosted.get(&tablet).filter(can).is_some() {
                self.flush(tablet, out);
            }
        }
    }

    pub(crate) fn on_room(&mut self, now: Instant, room: bool, out: &mut Vec<Effect>) {
        if room != self.room {
            let (name, what) = if room {
                ("disk_has_room", "writes resume")
            } else {
                ("disk_full", "new writes are refused until there is room")
            };
            out.push(Effect::Event(Event { name, tablet: None, what: what.into() }));
        }
        self.room = room;
        if !room {
            self.empty_trash_now(now);
        }
    }
}
