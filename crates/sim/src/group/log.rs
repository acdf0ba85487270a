//! The log of one replica's host, in a few lines: what is appended, what is durable, what a crash leaves.

use std::collections::BTreeMap;

use model::random::Random;
use model::{Configuration, Epoch, Lsn};
use protocol::Entry;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Record {
    /// Entries, and what the writer knew to be committed.
    Entries(Vec<Entry>, Lsn),
    State {
        configuration: Configuration,
        abandoned: Epoch,
        committed: Lsn,
    },
    /// A checkpoint up to here has taken the place of all entries.
    Restart(Lsn),
}

/// What a list of records amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Content {
    pub before: Lsn,
    pub entries: BTreeMap<Lsn, Entry>,
    pub state: Option<(Configuration, Epoch)>,
    pub committed: Lsn,
}

impl Content {
    pub fn last(&self) -> Lsn {
        self.entries.last_key_value().map_or(self.before, |(lsn, _)| *lsn)
    }

    fn apply(&mut self, record: &Record) {
        match record {
            Record::Entries(entries, committed) => {
                for entry in entries {
                    if entry.lsn <= self.before {
                        continue;
                    }
                    self.entries.split_off(&entry.lsn);
                    assert!(entry.lsn == self.last().next(), "the log gets a gap: {entry:?} after {}", self.last());
                    self.entries.insert(entry.lsn, entry.clone());
                }
                self.committed = self.committed.max(*committed);
            }
            Record::State { configuration, abandoned, committed } => {
                self.state = Some((configuration.clone(), *abandoned));
                self.committed = self.committed.max(*committed);
            }
            Record::Restart(upto) => {
                self.entries.clear();
                self.before = *upto;
            }
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Log {
    unsynced: Vec<Record>,
    /// Everything that was appended.
    pub written: Content,
    /// What the disk holds for sure.
    pub durable: Content,
    /// Tables on the same disk hold everything up to here.
    pub flushed: Lsn,
}

impl Log {
    pub fn append(&mut self, record: Record) {
        self.written.apply(&record);
        self.unsynced.push(record);
    }

    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The first so many unsynced records are durable.
    pub fn sync(&mut self, records: usize) {
        for record in self.unsynced.drain(..records) {
            self.durable.apply(&record);
        }
    }

    /// Loses what is not synced, or only a part of it, and opens what is left.
    pub fn crash(&mut self, random: &mut Random) {
        self.lose(random.below(self.unsynced.len() as u64 + 1) as usize);
    }

    /// Keeps so many records of those that are not synced.
    pub fn lose(&mut self, keeps: usize) {
        self.sync(keeps);
        self.unsynced.clear();
        if self.flushed > self.durable.last() {
            self.durable.apply(&Record::Restart(self.flushed));
        }
        self.durable.committed = self.durable.committed.max(self.flushed);
        self.written = self.durable.clone();
    }

    /// Removes entries that the tables hold.
    pub fn trim(&mut self) {
        for content in [&mut self.written, &mut self.durable] {
            let keep = content.entries.split_off(&self.flushed.next());
            if let Some((last, _)) = content.entries.last_key_value() {
                content.before = *last;
            }
            content.entries = keep;
        }
    }

    /// Does the disk surely hold this entry, in the log or in the tables?
    pub fn holds(&self, lsn: Lsn, epoch: Epoch) -> bool {
        lsn <= self.flushed || self.durable.entries.get(&lsn).is_some_and(|entry| entry.epoch == epoch)
    }
}
