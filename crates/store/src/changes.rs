//! What a tablet keeps of its own changes (`model::changes`), read in windows of versions.
//!
//! ```text
//!   row "a"   … │ $changes: 17.0  18.0  21.0  40.0 │        window (17, 30]: seek to 17.0's successor, read up to 30,
//!   row "b"   … │ $changes: 16.0  29.1             │        pass to the next row
//! ```
//!
//! The qualifiers of a row's changes rise with their versions, so that of a row only the window is looked at, however long its
//! history is, and a page may end within a row. Tables without a version of the window are not opened.

use model::changes::{ChangesQuery, Place, Resume};
use model::{Bytes, ColumnFilter, FamilyId, ReadOptions, Schema, Timestamp};

use crate::Error;
use crate::key::{self, Parts, Scope};
use crate::reads::Reader;
use crate::view::{LEAST_LOOK, LOOK, View};

/// What looking at an entry counts, beside its bytes.
const ENTRY: u64 = 32;

/// A cell with changes of a row, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptChange {
    /// Which row.
    pub row: Bytes,
    /// Its [`Place`].
    pub qualifier: Bytes,
    /// What happened.
    pub value: Bytes,
}

impl View {
    /// What `family` keeps of the rows and the versions of the query, none after `upto`, until there are `bytes` of it or
    /// much more than that was looked at. Then where to go on. Retention judges as of `now`.
    pub fn changes(
        &self,
        family: FamilyId,
        query: &ChangesQuery,
        upto: Timestamp,
        schema: &Schema,
        now: Timestamp,
        bytes: usize,
    ) -> Result<(Vec<KeptChange>, Option<Resume>), Error> {
        let Some(retention) = schema.family_by_id(family).map(|family| &family.retention) else {
            return Ok((Vec::new(), None));
        };
        let (start, end) = self.edges(&query.range);
        let options = ReadOptions {
            columns: vec![ColumnFilter { family, qualifier: None }],
            since: query.since.map(Timestamp::next),
            before: Some(upto.next()),
            ..ReadOptions::default()
        };
        let mut merge = self.sources(&start, end.as_deref(), &Reader::of_rows(&options, schema, now))?;
        merge.place(&start, end.as_deref(), |_| true)?;
        let first = Place { version: query.since.map_or(Timestamp(0), Timestamp::next), number: 0 };
        let most_looked = (bytes as u64).saturating_mul(LOOK).max(LEAST_LOOK);
        let (mut found, mut weight, mut looked) = (Vec::new(), 0, 0);
        let (mut row, mut target) = (Vec::new(), Vec::new());
        while let Some(next) = merge.row()? {
            if end.as_ref().is_some_and(|end| next >= &end[..]) {
                break;
            }
            row.clear();
            row.extend_from_slice(next);
            let key = key::unescape(&row);
            if weight >= bytes || looked >= most_looked {
                return Ok((found, Some(Resume { row: key, after: None })));
            }
            let after = query.after.filter(|_| key == query.range.start);
            target.clone_from(&row);
            key::push_column_start(
                &mut target,
                family,
                &after.map_or(first, |after| after.next().max(first)).qualifier(),
            );
            merge.seek(&target)?;
            looked += ENTRY;
            let mut last = after;
            while let Some(entry) = merge.key().filter(|entry| entry.starts_with(&row)) {
                let wrong = || Error::corrupt(merge.origin(), 0, "a key does not decode");
                let parts = Parts::parse_in_row(entry, row.len()).ok_or_else(wrong)?;
                if parts.family != family {
                    break;
                }
                looked += ENTRY + (entry.len() + merge.value_ref().len()) as u64;
                if let Scope::Cell { timestamp, sets: true } = parts.scope
                    && !retention.gives_up(0, timestamp, now)
                {
                    if timestamp > upto {
                        break;
                    }
                    if weight >= bytes {
                        return Ok((found, Some(Resume { row: key, after: last })));
                    }
                    let kept = KeptChange {
                        row: key.clone(),
                        qualifier: key::unescape(parts.qualifier),
                        value: merge.value(),
                    };
                    last = Place::from_qualifier(&kept.qualifier).or(last);
                    weight += kept.row.len() + kept.value.len() + ENTRY as usize;
                    found.push(kept);
                }
                merge.advance()?;
            }
            target.clone_from(&row);
            key::pass(&mut target);
            merge.seek(&target)?;
        }
        Ok((found, None))
    }
}

#[cfg(test)]
mod tests;
