//! A tablet that this node keeps: its replica, its rows, and what lies between a commit and a row.

use bytes::Bytes;
use model::{
    Assignment, Cell, Command, Condition, Instant, Lsn, Mutation, NodeId, Outcome, ReadOptions, Reply, Schema, Slice,
    Tablet, TabletId, Ticket, Timestamp,
};
use protocol::{Entry, Replica};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use store::Error;

use crate::completions::Completions;
use crate::read::{Found, Read, What};

/// What the log keeps of a replica beside its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedState {
    pub assignment: Assignment,
    /// The newest epoch whose primary was given up.
    pub abandoned: model::Epoch,
}

impl SavedState {
    const VERSION: u8 = 1;

    /// A version byte, then postcard.
    pub fn to_bytes(&self) -> Bytes {
        let form = postcard::to_extend(self, vec![Self::VERSION]).expect("plain values have a form in bytes");
        Bytes::from(form)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<SavedState, String> {
        match bytes.split_first() {
            Some((&Self::VERSION, rest)) => postcard::from_bytes(rest).map_err(|error| error.to_string()),
            Some((version, _)) => Err(format!("version {version} of a replica's state is not known")),
            None => Err("a replica's state is empty".into()),
        }
    }
}

/// A committed entry that is not applied yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub entry: Entry,
    pub ticket: Option<Ticket>,
}

/// What came of applying.
#[derive(Debug)]
pub(crate) enum Applied {
    /// Answer this.
    Reply(Ticket, Reply),
    /// The next entry's condition is about a row in files: run this, then call [`Hosted::judge`].
    Read(Read),
    /// A committed entry makes no sense: its bytes are not a command.
    Broken(String),
}

/// A tablet that this node keeps.
#[derive(Debug)]
pub(crate) struct Hosted {
    pub tablet: Tablet,
    pub schema: Arc<Schema>,
    pub replica: Replica,
    pub rows: store::Tablet,
    pub completions: Completions,
    /// Committed, in order, not applied.
    waiting: VecDeque<Waiting>,
    /// The read that the first of `waiting` needs is under way.
    pub judging: Option<u64>,
    /// The newest version that a command of this tablet has.
    last_version: Timestamp,
    /// How many of the replica's `Append` and `Save` effects there were.
    pub marks: u64,
    /// Bytes of files that arrive, when this replica is learning from files.
    pub receiving: Option<crate::catch_up::Receiving>,
    /// No flush before this: the last one failed.
    pub flush_after: Instant,
}

impl Hosted {
    pub fn new(assignment: &Assignment, me: NodeId, timing: protocol::Timing) -> Hosted {
        let id = assignment.tablet.id;
        Hosted::with(assignment, Replica::new(id, me, timing), store::Tablet::new(id), Completions::default())
    }

    pub fn with(assignment: &Assignment, replica: Replica, rows: store::Tablet, completions: Completions) -> Hosted {
        let last_version = completions.newest();
        Hosted {
            tablet: assignment.tablet.clone(),
            schema: Arc::new(assignment.schema.clone()),
            replica,
            rows,
            completions,
            waiting: VecDeque::new(),
            judging: None,
            last_version,
            marks: 0,
            receiving: None,
            flush_after: Instant::ZERO,
        }
    }

    pub fn id(&self) -> TabletId {
        self.tablet.id
    }

    pub fn slice(&self) -> &Slice {
        &self.tablet.slice
    }

    /// What must survive a restart.
    pub fn state(&self) -> Bytes {
        let assignment = Assignment {
            tablet: self.tablet.clone(),
            schema: (*self.schema).clone(),
            configuration: self.replica.configuration().clone(),
            learner: self.replica.learner(),
        };
        SavedState { assignment, abandoned: self.replica.abandoned() }.to_bytes()
    }

    /// A version for a new command: the date, but always later than the last one, whoever was primary then.
    pub fn next_version(&mut self, wall: Timestamp) -> Timestamp {
        self.last_version = wall.max(self.last_version.next());
        self.last_version
    }

    /// Takes note of a version in the log, so that later ones are later.
    pub fn saw_version(&mut self, version: Timestamp) {
        self.last_version = self.last_version.max(version);
    }

    pub fn enqueue(&mut self, entry: Entry, ticket: Option<Ticket>) {
        self.waiting.push_back(Waiting { entry, ticket });
    }

    /// Forgets what was committed but not applied: a checkpoint has taken its place.
    pub fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.judging = None;
    }

    /// Applies committed entries as far as it goes without reading files.
    pub fn apply(&mut self, out: &mut Vec<Applied>) {
        while self.judging.is_none() {
            let Some(Waiting { entry, ticket }) = self.waiting.pop_front() else { return };
            if entry.payload.is_empty() {
                self.rows.skip(entry.lsn);
                continue;
            }
            let command: Command = match postcard::from_bytes(&entry.payload) {
                Ok(command) => command,
                Err(error) => {
                    out.push(Applied::Broken(format!("entry {} of tablet {}: {error}", entry.lsn, self.id())));
                    return;
                }
            };
            self.saw_version(command.version);
            if let Some(version) = self.completions.find(command.request) {
                self.rows.skip(entry.lsn);
                out.extend(ticket.map(|ticket| Applied::Reply(ticket, written(version))));
                continue;
            }
            if let Some(condition) = &command.mutation.condition {
                let read = self.read_of(&command, condition);
                if read.touches_files() {
                    self.waiting.push_front(Waiting { entry, ticket });
                    out.push(Applied::Read(read));
                    return;
                }
                match read.run() {
                    Ok(found) => self.decide(entry.lsn, command, ticket, found, out),
                    Err(error) => out.push(Applied::Broken(error.to_string())),
                }
            } else {
                self.carry_out(entry.lsn, &command, ticket, out);
            }
        }
    }

    /// The read that the first waiting entry needed is done.
    pub fn judge(&mut self, found: Result<Found, Error>, out: &mut Vec<Applied>) {
        self.judging = None;
        let Some(Waiting { entry, ticket }) = self.waiting.pop_front() else { return };
        match (postcard::from_bytes::<Command>(&entry.payload), found) {
            (Ok(command), Ok(found)) => {
                self.decide(entry.lsn, command, ticket, found, out);
                self.apply(out);
            }
            (Err(error), _) => out.push(Applied::Broken(error.to_string())),
            (_, Err(error)) => out.push(Applied::Broken(error.to_string())),
        }
    }

    /// The column that the condition is about, newest version, as of everything before this entry.
    fn read_of(&self, command: &Command, condition: &Condition) -> Read {
        let column = model::ColumnFilter { family: condition.family, qualifier: Some(condition.qualifier.clone()) };
        Read {
            view: self.rows.view(),
            schema: Arc::clone(&self.schema),
            now: command.version,
            options: ReadOptions { columns: vec![column], versions: 1 },
            what: What::Row(command.mutation.row.clone()),
        }
    }

    /// Compares what the condition expects with what is there.
    fn decide(&mut self, lsn: Lsn, command: Command, ticket: Option<Ticket>, found: Found, out: &mut Vec<Applied>) {
        let present: Option<Cell> = match found {
            Found::Row(row) => row.and_then(|row| row.cells.into_iter().next()),
            Found::Rows(..) => None,
        };
        let expect = command.mutation.condition.as_ref().and_then(|condition| condition.expect.as_ref());
        if present.as_ref().map(|cell| &cell.value) == expect {
            self.carry_out(lsn, &command, ticket, out);
        } else {
            self.rows.skip(lsn);
            out.extend(ticket.map(|ticket| Applied::Reply(ticket, Reply::Written(Outcome::Differs { present }))));
        }
    }

    fn carry_out(&mut self, lsn: Lsn, command: &Command, ticket: Option<Ticket>, out: &mut Vec<Applied>) {
        let Mutation { row, changes, .. } = &command.mutation;
        self.rows.apply(lsn, row, changes, command.version);
        self.completions.record(lsn, command.request, command.version);
        out.extend(ticket.map(|ticket| Applied::Reply(ticket, written(command.version))));
    }
}

fn written(version: Timestamp) -> Reply {
    Reply::Written(Outcome::Applied { version })
}
