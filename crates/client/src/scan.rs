//! Rows of a whole table in key order, page by page.
//!
//! ```text
//!   range:  tablet 0 ─▶ tablet 1 ─▶ …  one walk along the keys
//!   hash:   walk of bucket 0 ─┐
//!           walk of bucket 1 ─┼─ merge by key ─▶
//!           walk of bucket n ─┘
//!
//!   in reverse the walks go from the last tablet to the first, and the merge takes the largest key
//! ```
//!
//! A walk's cursor is a key, not a tablet: where a tablet has been split or merged meanwhile, the next page is asked of
//! whoever has the rows at the cursor then, and none is left out or comes twice.
//!
//! Each walk fetches a page ahead and stops when nobody takes it, so memory is bounded by a few pages a tablet. A page
//! is retried like any read; after a failover the walk goes on where the last page ended.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::{BoxStream, try_unfold};
use model::{Freshness, ReadOptions, RowRange};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::Status;
use wire::v1::kv_client::KvClient;
use wire::{Answer, NamedRow, Scan};

use crate::call::Journey;
use crate::channels::Line;
use crate::routing::{Course, Place, Seek};
use crate::{Client, Error};

/// Rows of a scan, in key order. Ends after the first error; the rows before it are good.
pub type Rows = BoxStream<'static, Result<NamedRow, Error>>;
/// The same, with whoever gave the row in an eventual scan.
pub type RowsFrom = BoxStream<'static, Result<(NamedRow, Option<Freshness>), Error>>;

/// Rows that all walks together may hold on their current pages.
const ROWS_AHEAD: u32 = 4_096;
/// Pages that one scan fetches at the same time.
pub(crate) const FETCHES: usize = 16;

impl Client {
    /// The rows of `range`, in key order, each with the cells of `options`; at most `limit` rows.
    ///
    /// Each page is from one moment, the whole is not.
    pub fn scan(&self, table: &str, range: RowRange, options: ReadOptions<String>, limit: Option<u64>) -> Rows {
        Box::pin(self.scan_from(table, range, false, options, limit).map_ok(|(row, _)| row))
    }

    /// The same from the last row to the first.
    pub fn scan_back(&self, table: &str, range: RowRange, options: ReadOptions<String>, limit: Option<u64>) -> Rows {
        Box::pin(self.scan_from(table, range, true, options, limit).map_ok(|(row, _)| row))
    }

    /// Rows one way or the other, and with each row which replica gave it and how old it may be, if the scan is
    /// eventual. Each tablet is read at one replica as long as that answers.
    pub fn scan_from(
        &self,
        table: &str,
        range: RowRange,
        reverse: bool,
        options: ReadOptions<String>,
        limit: Option<u64>,
    ) -> RowsFrom {
        let wanted = Wanted { client: self.clone(), table: table.into(), range, reverse, options };
        let scanner = Scanner { wanted: Some(wanted), left: limit.unwrap_or(u64::MAX), ..Scanner::default() };
        Box::pin(try_unfold(scanner, |mut scanner| async move {
            let row = scanner.next().await?;
            Ok(row.map(|row| (row, scanner)))
        }))
    }
}

/// What a scan is about, also for its walks.
#[derive(Clone)]
struct Wanted {
    client: Client,
    table: Arc<str>,
    range: RowRange,
    reverse: bool,
    options: ReadOptions<String>,
}

/// A page of a walk, whether it was the last, and who gave it.
type Page = (Vec<NamedRow>, bool, Option<Freshness>);

#[derive(Default)]
struct Scanner {
    /// Until the walks have begun.
    wanted: Option<Wanted>,
    /// Rows still to be given.
    left: u64,
    pages: Vec<mpsc::Receiver<Result<Page, Error>>>,
    merge: Merge,
    /// Ends the walks when the scan is dropped.
    walks: JoinSet<()>,
}

impl Scanner {
    async fn next(&mut self) -> Result<Option<(NamedRow, Option<Freshness>)>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        if let Some(wanted) = self.wanted.take() {
            self.begin(wanted).await?;
        }
        loop {
            match self.merge.pop() {
                Popped::Row(row, from) => {
                    self.left -= 1;
                    return Ok(Some((row, from)));
                }
                Popped::Starved(source) => match self.pages[source].recv().await {
                    Some(Ok((rows, last, from))) => self.merge.offer(source, rows, last, from),
                    Some(Err(error)) => return Err(error),
                    None => return Err(Error::Protocol(String::from("the scan was cut off"))),
                },
                Popped::Nothing => return Ok(None),
            }
        }
    }

    async fn begin(&mut self, wanted: Wanted) -> Result<(), Error> {
        if wanted.range.end.as_ref().is_some_and(|end| *end <= wanted.range.start) {
            return Ok(());
        }
        let buckets = wanted.client.buckets(&wanted.table).await?;
        let sources = buckets.unwrap_or(1).max(1);
        let rows = (ROWS_AHEAD / sources).clamp(16, Scan::PAGE);
        let rows = u32::try_from(self.left).unwrap_or(u32::MAX).min(rows);
        let gate = Arc::new(Semaphore::new(FETCHES));
        for source in 0..sources {
            // One page waits in the channel, one more in the hands of the walk.
            let (sender, receiver) = mpsc::channel(1);
            let walk = Walk {
                rest: wanted.range.clone(),
                bucket: buckets.map(|_| source),
                wanted: wanted.clone(),
                rows,
                left: self.left,
                course: wanted.client.course(&wanted.options),
            };
            self.walks.spawn(walk.run(Arc::clone(&gate), sender));
            self.pages.push(receiver);
        }
        self.merge = Merge::new(self.pages.len(), wanted.reverse);
        Ok(())
    }
}

/// Goes through one bucket, or through all tablets of a range.
struct Walk {
    wanted: Wanted,
    bucket: Option<u32>,
    /// What has not been read: the next page is at its beginning, or in reverse at its end.
    rest: RowRange,
    /// On a page.
    rows: u32,
    /// Rows after which nobody wants more.
    left: u64,
    /// With which member it begins.
    course: Course,
}

impl Walk {
    async fn run(mut self, gate: Arc<Semaphore>, pages: mpsc::Sender<Result<Page, Error>>) {
        loop {
            // The gate is never closed; if it were, the page would be fetched all the same.
            let turn = gate.acquire().await;
            let page = self.step().await;
            drop(turn);
            let goes_on = matches!(page, Ok((_, false, _)));
            if pages.send(page).await.is_err() || !goes_on {
                return;
            }
        }
    }

    /// Fetches a page and moves behind it.
    async fn step(&mut self) -> Result<Page, Error> {
        let Wanted { client, table, reverse, options, .. } = &self.wanted;
        let (reverse, wanted) = (*reverse, &self.rest);
        let seek = match self.bucket {
            Some(bucket) => Seek::Bucket(bucket),
            None if reverse => Seek::Before(wanted.end.as_deref()),
            None => Seek::Row(&wanted.start),
        };
        let rows = u64::from(self.rows).min(self.left);
        let ask = |mut kv: KvClient<Line>, place: &Place| {
            let scan = Scan {
                table: String::from(&**table),
                route: Some(place.route),
                range: wanted.clone(),
                options: options.clone(),
                limit: Some(rows),
                reverse,
            };
            async move {
                let page = kv.scan(wire::v1::ScanRequest::from(scan)).await?.into_inner().message().await?;
                page.ok_or_else(|| Status::unavailable("the stream ended before the page"))
            }
        };
        let (page, place) = client.routed(table, seek, self.course, ask).await?;
        let Answer::Rows { rows, resume, from } = Answer::from(page) else {
            return Err(Error::Protocol(String::from("a scan was answered by something else")));
        };
        let sorted = rows.is_sorted_by(|a, b| if reverse { a.key > b.key } else { a.key < b.key });
        if !sorted || !rows.iter().all(|row| wanted.covers(&row.key)) {
            return Err(Error::Protocol(format!("{} sent rows out of order", place.address)));
        }
        let rest = match reverse {
            false => rest_behind(wanted, resume.or(place.range().end)),
            true => rest_before(wanted, resume.or(Some(place.range().start))),
        };
        let shrinks = |rest: &RowRange| match reverse {
            false => rest.start > wanted.start,
            true => wanted.end.is_none() || rest.end < wanted.end,
        };
        let again = rows.last().is_some_and(|row| rest.as_ref().is_some_and(|rest| rest.covers(&row.key)));
        if again || !rest.as_ref().is_none_or(shrinks) {
            return Err(Error::Protocol(format!("{} sent a page that goes backwards", place.address)));
        }
        self.left = self.left.saturating_sub(rows.len() as u64);
        let last = rest.is_none() || self.left == 0;
        self.rest = rest.unwrap_or_default();
        Ok((rows, last, from))
    }
}

/// What lies from `next` on; `None` if nothing does.
fn rest_behind(range: &RowRange, next: Option<Bytes>) -> Option<RowRange> {
    let start = next.filter(|next| range.end.as_ref().is_none_or(|end| next < end))?;
    Some(RowRange { start, end: range.end.clone() })
}

/// What lies before `next`; `None` if nothing does.
fn rest_before(range: &RowRange, next: Option<Bytes>) -> Option<RowRange> {
    let end = next.filter(|next| *next > range.start)?;
    Some(RowRange { start: range.start.clone(), end: Some(end) })
}

impl Client {
    /// Into how many hash tablets the table is cut; `None` if by ranges.
    pub(crate) async fn buckets(&self, table: &str) -> Result<Option<u32>, Error> {
        let mut journey = Journey::new(&self.inner.options);
        loop {
            let unknown = match self.inner.routing.read().buckets(table) {
                Ok(buckets) => return Ok(buckets),
                Err(unknown) => unknown,
            };
            let error = match self.fetch_map(Instant::now()).await {
                Ok(()) if self.inner.routing.read().buckets(table) != Err(unknown) => continue,
                Ok(()) => unknown.into_error(table),
                Err(error) => error,
            };
            sleep(journey.after(self, None, error)?).await;
        }
    }
}

/// Rows of several sources, each in key order or all in reverse, become one sequence in that order.
#[derive(Default)]
struct Merge {
    sources: Vec<Source>,
    reverse: bool,
    /// First key of every source that has rows.
    heads: BTreeSet<(Bytes, usize)>,
    /// Sources that have none, and are not at their end.
    starved: Vec<usize>,
}

#[derive(Default)]
struct Source {
    rows: VecDeque<NamedRow>,
    ended: bool,
    from: Option<Freshness>,
}

#[derive(Debug, PartialEq, Eq)]
enum Popped {
    Row(NamedRow, Option<Freshness>),
    /// The next row may be this source's: its next page is needed.
    Starved(usize),
    Nothing,
}

impl Merge {
    fn new(sources: usize, reverse: bool) -> Merge {
        Merge {
            reverse,
            sources: (0..sources).map(|_| Source::default()).collect(),
            heads: BTreeSet::new(),
            starved: (0..sources).rev().collect(),
        }
    }

    /// Takes the next page of a source that is starved.
    fn offer(&mut self, source: usize, rows: Vec<NamedRow>, last: bool, from: Option<Freshness>) {
        self.sources[source] = Source { rows: rows.into(), ended: last, from };
        self.starved.retain(|&starved| starved != source);
        self.line_up(source);
    }

    fn pop(&mut self) -> Popped {
        if let Some(&source) = self.starved.last() {
            return Popped::Starved(source);
        }
        let head = if self.reverse { self.heads.pop_last() } else { self.heads.pop_first() };
        let Some((_, source)) = head else { return Popped::Nothing };
        let from = self.sources[source].from;
        let row = self.sources[source].rows.pop_front().expect("a head is the key of a row");
        self.line_up(source);
        Popped::Row(row, from)
    }

    fn line_up(&mut self, source: usize) {
        let Source { rows, ended, .. } = &self.sources[source];
        match rows.front() {
            Some(row) => {
                self.heads.insert((row.key.clone(), source));
            }
            None if !ended => self.starved.push(source),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::random::Random;

    fn row(key: u64) -> NamedRow {
        NamedRow { key: Bytes::copy_from_slice(&key.to_be_bytes()), cells: Vec::new() }
    }

    /// Whatever the sizes of the pages, the merge is the sorted whole, and no source is asked before it is needed.
    #[test]
    fn a_merge_is_the_sorted_whole() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let count = random.between(1, 6) as usize;
            let mut sources: Vec<VecDeque<u64>> = vec![VecDeque::new(); count];
            let (total, reverse) = (random.below(60), seed % 2 == 1);
            let mut keys: Vec<u64> = (0..total).collect();
            if reverse {
                keys.reverse();
            }
            for &key in &keys {
                sources[random.below(count as u64) as usize].push_back(key);
            }
            let (mut merge, mut merged) = (Merge::new(count, reverse), Vec::new());
            loop {
                match merge.pop() {
                    Popped::Row(row, _) => merged.push(row),
                    Popped::Starved(source) => {
                        assert!(merge.sources[source].rows.is_empty(), "seed {seed}");
                        let size = (random.below(4) as usize).min(sources[source].len());
                        let page = sources[source].drain(..size).map(row).collect();
                        merge.offer(source, page, sources[source].is_empty(), None);
                    }
                    Popped::Nothing => break,
                }
            }
            assert_eq!(merged, keys.into_iter().map(row).collect::<Vec<_>>(), "seed {seed}");
        }
    }
}
