//! Where a reader of a table's changes stands, so that it can go on there, whatever has become of the tablets.
//!
//! ```text
//!   Part  rows [a, z)   all up to 17                                    "what came after 17?"
//!           │  page: complete up to 30, resume at "k"
//!           ▼
//!         rows [a, z)   up to 17, window (17, 30] read as far as "k"    "what came after 17, up to 30, from k on?"
//!           │  the tablet was split at "m": its part of the window ends there
//!           ▼
//!         rows [a, m)   up to 30       rows [m, z)   up to 17
//! ```
//!
//! A part is never lost and no version of a row is passed twice: what a page does not cover stays as it was. Pure: clients and
//! the simulator ask, this says what to ask and what follows from the answer.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::changes::{ChangesPage, ChangesQuery, Place, Resume};
use crate::{FamilyId, RowRange, Slice, TableId, Timestamp};

/// Of the form of a token.
const VERSION: u8 = 1;

/// Which changes of a table these are: of this table, kept in this family. Where changes were switched off and on again, there
/// are others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamId {
    /// The table.
    pub table: TableId,
    /// The family.
    pub family: FamilyId,
}

/// From where on changes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// What will happen.
    Now,
    /// Whatever is kept.
    Kept,
    /// What happened after this version.
    After(Timestamp),
}

/// Some rows of a table, and how much of their changes was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// In a hashed table: which tablet.
    pub bucket: Option<u32>,
    /// These rows.
    pub range: RowRange,
    /// What comes after this was not read yet,
    pub from: Start,
    /// but for this.
    pub window: Option<Window>,
}

/// A window of versions that was read in part: of the rows before `row` all, of that row up to `after`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its last version.
    pub upto: Timestamp,
    /// Read on with this row,
    pub row: Bytes,
    /// in it after this place.
    pub after: Option<Place>,
}

impl Part {
    /// These rows, from there on.
    pub fn new(bucket: Option<u32>, range: RowRange, from: Start) -> Part {
        Part { bucket, range, from, window: None }
    }

    /// The row whose tablet is to be asked, unless the part has a bucket.
    pub fn next_row(&self) -> &Bytes {
        self.window.as_ref().map_or(&self.range.start, |window| &window.row)
    }

    /// What to ask.
    pub fn query(&self, stream: StreamId) -> ChangesQuery {
        let range = RowRange { start: self.next_row().clone(), end: self.range.end.clone() };
        let since = match self.from {
            Start::Kept => None,
            // Only up to where there is something.
            Start::Now => Some(Timestamp(i64::MAX)),
            Start::After(version) => Some(version),
        };
        let (after, upto) = match &self.window {
            Some(Window { upto, after, .. }) => (*after, Some(*upto)),
            None => (None, None),
        };
        ChangesQuery { stream: Some(stream), range, after, since, upto }
    }

    /// What is left to read once a tablet with the rows of `slice` has given this page, in the order of the rows. An error says
    /// what is wrong with the page.
    pub fn turn<F>(self, page: &ChangesPage<F>, slice: &Slice) -> Result<Vec<Part>, String> {
        let asked = self.next_row().clone();
        let end = match slice {
            Slice::Rows { end, .. } if self.bucket.is_none() => {
                [&self.range.end, end].into_iter().flatten().min().cloned()
            }
            _ => self.range.end.clone(),
        };
        let covered = RowRange { start: asked, end: end.clone() };
        self.check(page, &covered)?;
        let rest = end.filter(|end| self.range.end.as_ref() != Some(end)).map(|start| Part {
            range: RowRange { start, end: self.range.end.clone() },
            window: None,
            ..self.clone()
        });
        let range = RowRange { start: self.range.start.clone(), end: covered.end };
        let turned = match &page.resume {
            Some(Resume { row, after }) => {
                let window = Some(Window { upto: page.upto, row: row.clone(), after: *after });
                Part { range, window, ..self }
            }
            None => {
                let upto = match self.from {
                    Start::After(version) => version.max(page.upto),
                    Start::Now | Start::Kept => page.upto,
                };
                Part { range, from: Start::After(upto), window: None, ..self }
            }
        };
        Ok([turned].into_iter().chain(rest).collect())
    }

    fn check<F>(&self, page: &ChangesPage<F>, covered: &RowRange) -> Result<(), String> {
        let mut last = self.window.as_ref().and_then(|window| Some((window.row.clone(), window.after?)));
        for change in &page.changes {
            let next = (change.row.clone(), change.at);
            let early = matches!(self.from, Start::After(version) if change.at.version <= version);
            if early
                || change.at.version > page.upto
                || !covered.covers(&change.row)
                || last.is_some_and(|last| last >= next)
            {
                return Err(format!("a change of {:?} at {:?} is out of order", change.row, change.at));
            }
            last = Some(next);
        }
        let resumes_later = |resume: &Resume| {
            let next = (&resume.row, resume.after);
            let asked = (&covered.start, self.window.as_ref().and_then(|window| window.after));
            let behind = last.as_ref().is_none_or(|(row, at)| next >= (row, Some(*at)) || next.0 > row);
            next > asked && behind && covered.covers(&resume.row)
        };
        match &page.resume {
            Some(resume) if !resumes_later(resume) => Err(format!("a page of changes goes back to {:?}", resume.row)),
            _ if self.window.as_ref().is_some_and(|window| window.upto != page.upto) => {
                Err(format!("a page of changes is of another window, up to {}", page.upto))
            }
            _ => Ok(()),
        }
    }

    /// The part of it before this row, and the part from it on; of a table that is cut by ranges.
    pub fn cut(self, at: &Bytes) -> (Option<Part>, Option<Part>) {
        if *at <= self.range.start {
            return (None, Some(self));
        }
        if self.range.end.as_ref().is_some_and(|end| end <= at) {
            return (Some(self), None);
        }
        let left = Part { range: RowRange { start: self.range.start.clone(), end: Some(at.clone()) }, ..self.clone() };
        let right = Part { range: RowRange { start: at.clone(), end: self.range.end.clone() }, ..self };
        match &left.window {
            Some(window) if window.row < *at => (Some(left), Some(Part { window: None, ..right })),
            Some(window) => {
                let from = Start::After(window.upto);
                (Some(Part { from, window: None, ..left }), Some(right))
            }
            None => (Some(left), Some(right)),
        }
    }

    /// Up to which version all was read; `None` before anything was.
    pub fn complete(&self) -> Option<Timestamp> {
        match self.from {
            Start::After(version) => Some(version),
            Start::Now | Start::Kept => None,
        }
    }
}

/// Parts next to each other that stand at the same place become one.
pub fn join(parts: Vec<Part>) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::with_capacity(parts.len());
    for part in parts {
        let fits = |last: &&mut Part| {
            let next =
                last.bucket.is_none() && part.bucket.is_none() && last.range.end.as_ref() == Some(&part.range.start);
            next && last.from == part.from && last.window.is_none() && part.window.is_none()
        };
        match joined.last_mut().filter(fits) {
            Some(last) => last.range.end = part.range.end,
            None => joined.push(part),
        }
    }
    joined
}

/// Where a reader stands, as it gives it to whoever goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Of what.
    pub stream: StreamId,
    /// In the order of the rows.
    pub parts: Vec<Part>,
}

impl Token {
    /// A version byte, a sum of the rest, then postcard.
    pub fn to_bytes(&self) -> Vec<u8> {
        let form = postcard::to_allocvec(self).expect("plain values have a form in bytes");
        let mut bytes = Vec::with_capacity(9 + form.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&xxh3_64(&form).to_le_bytes());
        bytes.extend_from_slice(&form);
        bytes
    }

    /// From those bytes, or what is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Token, String> {
        let damaged = || String::from("the token is damaged; use one as it was given");
        let (&version, rest) = bytes.split_first().ok_or_else(|| String::from("the token is empty"))?;
        if version != VERSION {
            return Err(format!("version {version} of a token is not known; this is version {VERSION}"));
        }
        let (sum, form) = rest.split_first_chunk().ok_or_else(damaged)?;
        if u64::from_le_bytes(*sum) != xxh3_64(form) {
            return Err(damaged());
        }
        postcard::from_bytes(form).map_err(|_| damaged())
    }

    /// As text: digits, and letters from a to f.
    pub fn to_text(&self) -> String {
        self.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// From that text, or what is wrong with it.
    pub fn from_text(text: &str) -> Result<Token, String> {
        let damaged = || String::from("the token is damaged; use one as it was given");
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| match pair {
            &[high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        Token::from_bytes(&bytes.ok_or_else(damaged)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, RowChange};
    use alloc::vec;

    const STREAM: StreamId = StreamId { table: TableId(3), family: FamilyId(9) };

    fn key(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn rows(start: &'static str, end: Option<&'static str>) -> RowRange {
        RowRange { start: key(start), end: end.map(key) }
    }

    fn slice(start: &'static str, end: Option<&'static str>) -> Slice {
        Slice::Rows { start: key(start), end: end.map(key) }
    }

    fn after(version: i64) -> Start {
        Start::After(Timestamp(version))
    }

    fn at(version: i64) -> Place {
        Place { version: Timestamp(version), number: 0 }
    }

    fn page(changes: &[(&'static str, i64)], upto: i64, resume: Option<(&'static str, Option<i64>)>) -> ChangesPage {
        let change = |&(row, version)| RowChange { row: key(row), at: at(version), changes: vec![Change::DeleteRow] };
        let resume = resume.map(|(row, after)| Resume { row: key(row), after: after.map(at) });
        ChangesPage { changes: changes.iter().map(change).collect(), upto: Timestamp(upto), resume }
    }

    /// The picture above: a window that was begun, a split within it, and what is left on both sides.
    #[test]
    fn a_split_cuts_a_window_where_the_tablet_ends() {
        let part = Part::new(None, rows("a", Some("z")), after(17));
        let query = part.query(STREAM);
        assert_eq!((query.since, query.upto, query.range.start), (Some(Timestamp(17)), None, key("a")));
        let [part] =
            &part.turn(&page(&[("b", 20), ("k", 18)], 30, Some(("k", Some(18)))), &slice("", None)).unwrap()[..]
        else {
            panic!()
        };
        let query = part.query(STREAM);
        assert_eq!((query.upto, query.range.start, query.after), (Some(Timestamp(30)), key("k"), Some(at(18))));
        let turned = part.clone().turn(&page(&[("k", 29)], 30, None), &slice("h", Some("m"))).unwrap();
        let left = Part::new(None, rows("a", Some("m")), after(30));
        assert_eq!(turned, [left, Part::new(None, rows("m", Some("z")), after(17))]);
    }

    /// What a tablet that was merged is complete up to may be less than what is asked for, and a part never goes back.
    #[test]
    fn a_part_never_goes_back() {
        let part = Part::new(Some(3), RowRange::default(), after(50));
        let hashed = Slice::Hash { bucket: 3, of: 4 };
        assert_eq!(part.clone().turn(&page(&[], 30, None), &hashed), Ok(vec![part.clone()]));
        let new = Part::new(Some(3), RowRange::default(), Start::Now);
        assert_eq!(new.query(STREAM).since, Some(Timestamp(i64::MAX)));
        assert_eq!(new.turn(&page(&[], 30, None), &hashed).unwrap()[0].from, after(30));
    }

    #[test]
    fn what_a_page_cannot_be_is_refused() {
        let window = Some(Window { upto: Timestamp(30), row: key("k"), after: Some(at(20)) });
        let part = Part { window, ..Part::new(None, rows("a", Some("z")), after(17)) };
        let wrong = [
            page(&[("k", 20)], 30, None),
            page(&[("c", 25)], 30, None),
            page(&[("z", 25)], 30, None),
            page(&[("l", 17)], 30, None),
            page(&[("l", 31)], 30, None),
            page(&[("m", 20), ("l", 20)], 30, None),
            page(&[], 31, None),
            page(&[], 30, Some(("k", Some(20)))),
            page(&[("m", 20)], 30, Some(("l", None))),
        ];
        for page in wrong {
            assert!(part.clone().turn(&page, &slice("", None)).is_err(), "{page:?}");
        }
        assert!(part.turn(&page(&[("k", 21), ("l", 18)], 30, Some(("m", None))), &slice("", None)).is_ok());
    }

    /// Of a window that was begun, the rows before its place are read, and those behind it are not.
    #[test]
    fn a_part_is_cut_before_and_behind_its_place() {
        let window = Some(Window { upto: Timestamp(30), row: key("k"), after: Some(at(20)) });
        let part = Part { window: window.clone(), ..Part::new(None, rows("a", Some("z")), after(17)) };
        let whole = |start, end, version| Some(Part::new(None, rows(start, Some(end)), after(version)));
        let begun =
            |start, end| Some(Part { window: window.clone(), ..Part::new(None, rows(start, Some(end)), after(17)) });
        assert_eq!(part.clone().cut(&key("a")), (None, Some(part.clone())));
        assert_eq!(part.clone().cut(&key("z")), (Some(part.clone()), None));
        assert_eq!(part.clone().cut(&key("c")), (whole("a", "c", 30), begun("c", "z")));
        assert_eq!(part.clone().cut(&key("k")), (whole("a", "k", 30), begun("k", "z")));
        assert_eq!(part.cut(&key("m")), (begun("a", "m"), whole("m", "z", 17)));
    }

    #[test]
    fn neighbours_at_one_place_become_one() {
        let part = |start, end, version| Part::new(None, rows(start, end), after(version));
        let parts = vec![part("", Some("c"), 5), part("c", Some("f"), 5), part("f", Some("h"), 6), part("k", None, 6)];
        let joined = [part("", Some("f"), 5), part("f", Some("h"), 6), part("k", None, 6)];
        assert_eq!(join(parts), joined);
    }

    /// A token goes through many hands: each cut and each flipped bit shows.
    #[test]
    fn a_token_is_read_as_it_was_given_or_not_at_all() {
        let window = Some(Window { upto: Timestamp(30), row: key("k"), after: Some(at(20)) });
        let part = Part { window, ..Part::new(None, rows("a", None), after(17)) };
        let token = Token { stream: STREAM, parts: vec![part, Part::new(Some(1), RowRange::default(), Start::Kept)] };
        assert_eq!(Token::from_text(&token.to_text()), Ok(token.clone()));
        let bytes = token.to_bytes();
        assert_eq!(bytes[0], 1);
        assert_eq!(
            bytes[9..],
            [3, 9, 2, 0, 1, b'a', 0, 2, 34, 1, 60, 1, b'k', 1, 40, 0, 1, 1, 0, 0, 1, 0],
            "docs/formats.md: readers keep them while programs change"
        );
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Token::from_bytes(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Token::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(Token::from_text("0x").is_err() && Token::from_text("123").is_err() && Token::from_text("").is_err());
    }
}
