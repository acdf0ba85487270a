//! Tables that keep their changes: the primary writes what happens to a row into the same entry as the change itself, and reads
//! it out again in windows of versions.
//!
//! ```text
//!   write ──▶ version ──▶ entry { changes, $changes: version.number = changes } ──▶ log, replicas, memtable
//!
//!   after 17 ──▶ newest applied version: 30 ──▶ window (17, 30] of the view ──page──▶ … ──▶ complete up to 30
//!              └─ not after 17 ──▶ at once: nothing new, complete up to it
//! ```
//!
//! Why a window is complete: versions rise from entry to entry, also across primaries, splits and merges, and those that the
//! completion records know travel with the rows. Never the date: a write under way may have an older version.
//!
//! A tablet that nobody writes would say for ever that it is complete up to its last write, which is forgotten one day. So
//! whoever asks makes it write an entry that changes nothing, from time to time ([`MARK`]).

use bytes::Bytes;
use model::changes::{ChangesPage, ChangesQuery, Place, count_without_row_deletions, record, without_row_deletions};
use model::follow::StreamId;
use model::request::Role;
use model::{
    Change, ClientId, Command, Instant, Payload, Refusal, Reply, RequestId, RowChanges, Schema, TabletId, Ticket,
    Timestamp, limits,
};
use protocol::Mutant;
use protocol::replica::Input as GroupInput;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Effect;
use crate::hosted::Hosted;
use crate::machine::{Node, Reading};
use crate::read::{Read, What};
use crate::serve::{MOST_READS, within};

/// A tablet whose changes are read says at least this often that there are none, or so often that one eighth of the time for
/// which changes are kept lies between.
const MARK: Duration = Duration::from_secs(10);
const MARKS_IN_AGE: u32 = 8;
/// No client has this number.
const NOBODY: ClientId = ClientId(0);

impl Hosted {
    /// The changes of a row as they go into an entry of this version: with what is kept of them, if the table keeps changes.
    pub fn with_record(&self, changes: Vec<Change>, version: Timestamp, number: u32) -> Vec<Change> {
        let Some(family) = &self.schema.settings.changes else { return changes };
        let mut changes = without_row_deletions(&self.schema, changes);
        let kept = record(family.id, Place { version, number }, &changes);
        changes.push(kept);
        changes
    }

    /// The same for rows that are written together.
    pub fn with_records(&self, rows: Vec<RowChanges>, version: Timestamp) -> Vec<RowChanges> {
        let with = |(number, RowChanges { row, changes })| RowChanges {
            row,
            changes: self.with_record(changes, version, number),
        };
        match self.schema.settings.changes {
            Some(_) => (0..).zip(rows).map(with).collect(),
            None => rows,
        }
    }
}

/// Says what is wrong with the sizes of changes that are to be kept, if they are: an entry has them twice.
pub(crate) fn check_kept(schema: &Schema, changes: &[Change]) -> Result<(), Refusal> {
    if schema.settings.changes.is_none() {
        return Ok(());
    }
    let count = count_without_row_deletions(schema, changes);
    if count > limits::CHANGES {
        let most = limits::CHANGES;
        let what = format!("{count} changes, since each deletion of a row is one of every family; the limit is {most}");
        return Err(Refusal::Invalid(what));
    }
    let weight: usize = changes.iter().map(Change::weight).sum();
    let most = limits::ROW / 2;
    if weight > most {
        let what =
            format!("a write of {weight} bytes; the limit for a row of a table that keeps its changes is {most}");
        return Err(Refusal::Invalid(what));
    }
    Ok(())
}

impl Node {
    pub(crate) fn read_changes(
        &mut self,
        now: Instant,
        ticket: Ticket,
        tablet: TabletId,
        wall: Timestamp,
        mut query: ChangesQuery,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let hosted = self.hosted.get(&tablet).ok_or(Refusal::NoSuchTablet(tablet))?;
        let schema = Arc::clone(&hosted.schema);
        let (Some(family), Some(age)) = (&schema.settings.changes, schema.settings.changes_kept()) else {
            return Err(Refusal::NoChanges(schema.name.clone()));
        };
        let stream = StreamId { table: schema.table, family: family.id };
        if query.stream.is_some_and(|wanted| wanted != stream) {
            let what = format!("the changes of table {:?} are kept anew since; those before are gone", schema.name);
            return Err(Refusal::Invalid(what));
        }
        if !self.may_read(tablet, now) || hosted.is_doubtful() {
            return Err(match hosted.replica.role() {
                Role::Primary => Refusal::NotReady(tablet),
                _ => Refusal::WrongEpoch { tablet, current: hosted.replica.configuration().clone() },
            });
        }
        let kept = wall.minus(age);
        if let Some(since) = query.since.filter(|since| since.next() < kept) {
            return Err(Refusal::ChangesGone { since, kept });
        }
        let newest = hosted.completions.newest();
        // Whoever was told to stand there would hear soon that what comes next may be gone already.
        if newest < wall.minus(age / 2) && query.upto.is_none() {
            self.mark(now, tablet, wall, out);
            return Err(Refusal::NotReady(tablet));
        }
        let upto = match hosted.replica.mutant(Mutant::ChangesByClock) {
            true => newest.max(wall),
            false => query.upto.map_or(newest, |upto| upto.min(newest)),
        };
        if query.since.is_some_and(|since| since >= upto) {
            let page = ChangesPage { upto, ..ChangesPage::default() };
            out.push(Effect::Reply(ticket, Reply::Changes(page, Arc::clone(&schema))));
        } else {
            if self.reads.len() >= MOST_READS {
                return Err(Refusal::Overloaded);
            }
            query.range = within(hosted.slice(), &query.range);
            let (view, what) = (hosted.rows.view(), What::Changes { family: family.id, query: Box::new(query), upto });
            let read = Read { view, schema: Arc::clone(&schema), now: wall, options: Default::default(), what };
            let (epoch, id) = (hosted.replica.epoch(), self.draw_id());
            self.reads.insert(id, Reading::Request { ticket, tablet, epoch, schema: Arc::clone(&schema) });
            out.push(Effect::Read(id, read));
        }
        if newest.plus(MARK.min(age / MARKS_IN_AGE)) < wall {
            self.mark(now, tablet, wall, out);
        }
        Ok(())
    }

    /// Writes an entry that changes nothing but the newest version.
    fn mark(&mut self, now: Instant, tablet: TabletId, wall: Timestamp, out: &mut Vec<Effect>) {
        if self.check_disks(tablet).is_err() {
            return;
        }
        let Some(hosted) = self.hosted.get_mut(&tablet) else { return };
        let quiet = hosted.marked.is_none_or(|marked| now.since(marked) > Duration::from_secs(1));
        if !quiet || !hosted.may_write(now) || !hosted.replica.may_order(now) {
            return;
        }
        hosted.marked = Some(now);
        let version = hosted.next_version(wall);
        let sequence = u64::try_from(version.0).unwrap_or_default();
        let request = RequestId { client: NOBODY, sequence, first_incomplete: sequence };
        let command = Payload::Write(Command { request, version, row: Bytes::new(), changes: None });
        let payload = postcard::to_allocvec(&command).expect("plain values have a form in bytes");
        self.step_replica(now, tablet, GroupInput::Order(Bytes::from(payload)), out);
    }
}
