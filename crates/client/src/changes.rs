//! What happens to a table's rows, followed from tablet to tablet (docs/changes.md).
//!
//! ```text
//!   parts (model::follow) ── those that are due, a few at a time ──▶ a page of each ──▶ Step::Changes, and what is left of it
//!                                 ▲                                                      │ all are where their tablets are
//!                                 └──────────────── the next round ── Step::Quiet ◀──────┘
//! ```
//!
//! Always: [`Changes::token`] says what was given so far and nothing more, also after an error; whoever goes on with it gets each
//! change that was not given once, and those of a row in their order. Of different rows the order is any.
//! Memory is bounded by the pages of a round. Never sleeps on its own: [`Changes::pause`] says how long would be right.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use model::follow::{Part, Start, StreamId, Token, Window, join};
use model::{ChangesPage, Refusal, RowChange, RowRange, Schema, Slice, TabletId, Timestamp};
use wire::changes::read_changes_request;
use wire::v1::kv_client::KvClient;

use crate::channels::Line;
use crate::routing::{Course, Place, Seek};
use crate::scan::FETCHES;
use crate::{Client, Error};

/// Between two rounds that find nothing: at first so long, then longer and longer.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A reader of a table's changes.
pub struct Changes {
    client: Client,
    table: Arc<str>,
    stream: StreamId,
    parts: BTreeMap<u64, Part>,
    next: u64,
    /// Those of this round that were not asked yet.
    due: VecDeque<u64>,
    /// Pages that were not given yet.
    ready: VecDeque<Page>,
    /// Which tablet gave the last page.
    tablet: Option<(TabletId, Slice)>,
    quiet: u32,
    /// The part of which the last page was, and what it became first.
    taken: Option<(Part, u64, Timestamp)>,
}

/// What a part's tablet said.
struct Page {
    of: u64,
    left: Vec<Part>,
    changes: Vec<RowChange<String>>,
    upto: Timestamp,
    tablet: (TabletId, Slice),
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// This has happened.
    Changes(Vec<RowChange<String>>),
    /// All that had happened when this round began was given.
    Quiet,
}

impl Client {
    /// Follows what happens to the rows of `range` from there on. The table must keep its changes.
    pub async fn changes(&self, table: &str, range: RowRange, from: Start) -> Result<Changes, Error> {
        let stream = stream_of(&self.table(table).await?)?;
        let buckets = self.buckets(table).await?;
        let parts = match buckets {
            Some(of) => (0..of).map(|bucket| Part::new(Some(bucket), range.clone(), from)).collect(),
            None => vec![Part::new(None, range, from)],
        };
        Ok(Changes::new(self, table, Token { stream, parts }))
    }

    /// Goes on where a reader of the same table stood.
    pub async fn changes_from(&self, table: &str, token: Token) -> Result<Changes, Error> {
        if stream_of(&self.table(table).await?)? != token.stream {
            let what = format!("the token is not of the changes that table {table:?} keeps now; begin anew");
            return Err(Refusal::Invalid(what).into());
        }
        Ok(Changes::new(self, table, token))
    }
}

/// Which changes a table keeps, if it does.
fn stream_of(schema: &Schema) -> Result<StreamId, Error> {
    let family = schema.settings.changes.as_ref().ok_or_else(|| Refusal::NoChanges(schema.name.clone()))?;
    Ok(StreamId { table: schema.table, family: family.id })
}

impl Changes {
    fn new(client: &Client, table: &str, token: Token) -> Changes {
        let parts: BTreeMap<u64, Part> = (0..).zip(token.parts).collect();
        Changes {
            client: client.clone(),
            table: Arc::from(table),
            stream: token.stream,
            next: parts.len() as u64,
            due: parts.keys().copied().collect(),
            parts,
            ready: VecDeque::new(),
            tablet: None,
            quiet: 0,
            taken: None,
        }
    }

    /// What comes next. After an error the same is asked again.
    pub async fn next(&mut self) -> Result<Step, Error> {
        loop {
            while let Some(page) = self.ready.pop_front() {
                let changes = self.take(page);
                if !changes.is_empty() {
                    self.quiet = 0;
                    return Ok(Step::Changes(changes));
                }
            }
            if self.due.is_empty() {
                self.join();
                self.due = self.parts.keys().copied().collect();
                self.quiet = self.quiet.saturating_add(1);
                return Ok(Step::Quiet);
            }
            self.fetch().await?;
        }
    }

    /// Asks the tablets of a few parts at the same time.
    async fn fetch(&mut self) -> Result<(), Error> {
        let wanted: Vec<u64> = self.due.iter().take(FETCHES).copied().collect();
        let mut asked = Vec::with_capacity(wanted.len());
        for (id, part) in wanted.iter().filter_map(|id| self.parts.get(id).map(|part| (*id, part.clone()))) {
            let (client, table, stream) = (self.client.clone(), Arc::clone(&self.table), self.stream);
            asked.push(async move { (id, client.page(&table, stream, part).await) });
        }
        let answers = join_all(asked).await;
        let mut failed = None;
        for (of, answer) in answers {
            match answer {
                Ok((left, ChangesPage { changes, upto, .. }, tablet)) => {
                    self.due.retain(|due| *due != of);
                    self.ready.push_back(Page { of, left, changes, upto, tablet });
                }
                Err(error) => failed = Some(error),
            }
        }
        // What was answered is given first.
        failed.filter(|_| self.ready.is_empty()).map_or(Ok(()), Err)
    }

    fn take(&mut self, page: Page) -> Vec<RowChange<String>> {
        let Page { of, left, changes, upto, tablet } = page;
        let before = self.parts.remove(&of);
        self.taken = before.map(|before| (before, self.next, upto));
        for (number, part) in (0..).zip(left) {
            // What it goes on with in this round: a window that was begun, and the rows of other tablets.
            if number > 0 || part.window.is_some() {
                self.due.push_back(self.next);
            }
            self.parts.insert(self.next, part);
            self.next += 1;
        }
        self.tablet = Some(tablet);
        changes
    }

    /// Parts that came to stand at one place are one from now on. Between two rounds only.
    fn join(&mut self) {
        self.parts = (self.next..).zip(join(self.parts())).collect();
        self.next += self.parts.len() as u64;
        self.taken = None;
    }

    /// In the order of the rows.
    pub fn parts(&self) -> Vec<Part> {
        in_order(self.parts.values().cloned().collect())
    }

    /// Of which changes it is the reader.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Where the reader stands: with this another one goes on.
    pub fn token(&self) -> Token {
        Token { stream: self.stream, parts: join(self.parts()) }
    }

    /// Where it stood after this change of the last page, and before those that came after it.
    pub fn token_after(&self, change: &RowChange<String>) -> Token {
        let Some((before, became, upto)) = &self.taken else { return self.token() };
        let others = self.parts.iter().filter(|(id, _)| **id != *became).map(|(_, part)| part.clone());
        let mut parts: Vec<Part> = others.collect();
        if let Some(now) = self.parts.get(became) {
            let window = Some(Window { upto: *upto, row: change.row.clone(), after: Some(change.at) });
            parts.push(Part { window, range: now.range.clone(), ..before.clone() });
        }
        Token { stream: self.stream, parts: join(in_order(parts)) }
    }

    /// All changes up to this version were given; `None` as long as that is not known of every part.
    pub fn complete(&self) -> Option<Timestamp> {
        self.parts.values().map(Part::complete).min().flatten()
    }

    /// Which tablet was asked last, and its rows.
    pub fn tablet(&self) -> Option<&(TabletId, Slice)> {
        self.tablet.as_ref()
    }

    /// How long to wait after [`Step::Quiet`].
    pub fn pause(&self) -> Duration {
        SHORTEST_PAUSE.saturating_mul(1 << self.quiet.saturating_sub(1).min(8)).min(LONGEST_PAUSE)
    }
}

fn in_order(mut parts: Vec<Part>) -> Vec<Part> {
    parts.sort_by(|a, b| (a.bucket, &a.range.start).cmp(&(b.bucket, &b.range.start)));
    parts
}

impl Client {
    /// A page of a part's changes, and what is left of the part then.
    #[allow(clippy::type_complexity)]
    async fn page(
        &self,
        table: &str,
        stream: StreamId,
        part: Part,
    ) -> Result<(Vec<Part>, ChangesPage<String>, (TabletId, Slice)), Error> {
        let seek = match part.bucket {
            Some(bucket) => Seek::Bucket(bucket),
            None => Seek::Row(part.next_row()),
        };
        let query = part.query(stream);
        let ask = |mut kv: KvClient<Line>, place: &Place| {
            let message = read_changes_request(table, place.route, query.clone());
            async move { kv.read_changes(message).await }
        };
        let (page, place) = self.routed(table, seek, Course::default(), ask).await?;
        let page = ChangesPage::try_from(page.into_inner())?;
        let wrong = |what| Error::Protocol(format!("{} sent a bad page: {what}", place.address));
        let left = part.clone().turn(&page, &place.slice).map_err(wrong)?;
        Ok((left, page, (place.route.tablet, place.slice)))
    }
}
