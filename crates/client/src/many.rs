//! Rows by their keys, those of one tablet together.
//!
//! ```text
//!   keys ──by tablet──▶ walk of tablet 0 ─┐
//!                       walk of tablet 3 ─┼─ in the order of the keys ─▶
//!                       walk of tablet 4 ─┘
//! ```
//!
//! Each walk has its keys in their order and fetches a page ahead, so the answer to the next key is always the first one
//! that its walk has, and memory is bounded by a few pages a tablet. A walk asks whoever has its next key then: where its
//! tablet has been split meanwhile, it goes on piece by piece.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::stream::{BoxStream, try_unfold};
use model::{Freshness, ReadOptions, Refusal, limits};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tonic::Status;
use wire::v1::kv_client::KvClient;
use wire::{NamedRow, convert};

use crate::channels::Line;
use crate::routing::{Course, Place, Seek};
use crate::scan::FETCHES;
use crate::{Client, Error};

/// The answers to several keys, in their order: each row, `None` if it has no such cell, and who gave it, if the read is
/// eventual. Ends after the first error; what comes before it is good.
pub type Found = BoxStream<'static, Result<(Option<NamedRow>, Option<Freshness>), Error>>;

impl Client {
    /// Reads rows by their keys, in the order of the keys; each `None` if it has no such cell. Each is as new as with
    /// [`Client::get`], all together are not of one moment.
    pub async fn get_many(
        &self,
        table: &str,
        rows: Vec<Bytes>,
        options: ReadOptions<String>,
    ) -> Result<Vec<Option<NamedRow>>, Error> {
        self.get_many_from(table, rows, options).map_ok(|(row, _)| row).try_collect().await
    }

    /// The same as a stream, with whoever gave each row, if the read is eventual.
    pub fn get_many_from(&self, table: &str, rows: Vec<Bytes>, options: ReadOptions<String>) -> Found {
        let wanted = Wanted { client: self.clone(), table: Arc::from(table), rows, options };
        let reader =
            Reader { wanted: Some(wanted), order: VecDeque::new(), walks: Vec::new(), running: JoinSet::new() };
        Box::pin(try_unfold(reader, |mut reader| async move {
            let answer = reader.next().await?;
            Ok(answer.map(|answer| (answer, reader)))
        }))
    }
}

type Answer = (Option<NamedRow>, Option<Freshness>);
type Page = Result<VecDeque<Answer>, Error>;

/// What is read of which table.
struct Wanted {
    client: Client,
    table: Arc<str>,
    rows: Vec<Bytes>,
    options: ReadOptions<String>,
}

struct Reader {
    /// Until the walks have begun.
    wanted: Option<Wanted>,
    /// Of each key that has no answer yet: which walk brings it.
    order: VecDeque<usize>,
    walks: Vec<(mpsc::Receiver<Page>, VecDeque<Answer>)>,
    /// Ends the walks when the stream is dropped.
    running: JoinSet<()>,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Answer>, Error> {
        if let Some(wanted) = self.wanted.take() {
            limits::check_row_keys(&wanted.rows).map_err(Refusal::Invalid)?;
            self.begin(wanted).await?;
        }
        let Some(walk) = self.order.pop_front() else { return Ok(None) };
        let (pages, page) = &mut self.walks[walk];
        loop {
            if let Some(answer) = page.pop_front() {
                return Ok(Some(answer));
            }
            let next = pages.recv().await;
            *page = next.ok_or_else(|| Error::Protocol(String::from("the read was cut off")))??;
        }
    }

    async fn begin(&mut self, Wanted { client, table, rows, options }: Wanted) -> Result<(), Error> {
        // Fetches the map, if there is none; an old one costs a refusal and no more.
        client.buckets(&table).await?;
        let (mut walk_of, mut keys) = (BTreeMap::new(), Vec::<VecDeque<Bytes>>::new());
        for row in rows {
            // Those of which the map knows nothing go together, and each finds its way.
            let tablet = client.inner.routing.read().locate(&table, Seek::Row(&row), 0).ok();
            let walk = *walk_of.entry(tablet.map(|place| place.route.tablet)).or_insert_with(|| {
                keys.push(VecDeque::new());
                keys.len() - 1
            });
            keys[walk].push_back(row);
            self.order.push_back(walk);
        }
        let gate = Arc::new(Semaphore::new(FETCHES));
        for keys in keys {
            // One page waits in the channel, one more in the hands of the walk.
            let (sender, receiver) = mpsc::channel(1);
            let course = client.course(&options);
            let walk =
                Walk { client: client.clone(), table: Arc::clone(&table), keys, options: options.clone(), course };
            self.running.spawn(walk.run(Arc::clone(&gate), sender));
            self.walks.push((receiver, VecDeque::new()));
        }
        Ok(())
    }
}

/// Brings the rows of keys that were in one tablet when it began.
struct Walk {
    client: Client,
    table: Arc<str>,
    /// Without an answer.
    keys: VecDeque<Bytes>,
    options: ReadOptions<String>,
    /// With which member it begins.
    course: Course,
}

impl Walk {
    async fn run(mut self, gate: Arc<Semaphore>, pages: mpsc::Sender<Page>) {
        while !self.keys.is_empty() {
            // The gate is never closed; if it were, the page would be fetched all the same.
            let turn = gate.acquire().await;
            let page = self.step().await;
            drop(turn);
            let failed = page.is_err();
            if pages.send(page).await.is_err() || failed {
                return;
            }
        }
    }

    /// Asks for as many keys as lie in one tablet, from the first on.
    async fn step(&mut self) -> Page {
        let Walk { client, table, keys, options, course } = self;
        let first = keys.front().cloned().unwrap_or_default();
        let ask = |mut kv: KvClient<Line>, place: &Place| {
            let rows: Vec<Bytes> = keys.iter().take_while(|key| place.slice.covers(key)).cloned().collect();
            let asked = rows.len();
            let message = convert::get_many_request(table, Some(place.route), rows, options.clone());
            async move {
                let page = kv.get_many(message).await?.into_inner().message().await?;
                let page = page.ok_or_else(|| Status::unavailable("the stream ended before the page"))?;
                Ok((page.found, asked))
            }
        };
        let ((found, asked), place) = client.routed(table, Seek::Row(&first), *course, ask).await?;
        if found.is_empty() || found.len() > asked {
            let what = format!("{} answered {} of {asked} keys", place.address, found.len());
            return Err(Error::Protocol(what));
        }
        let mut page = VecDeque::with_capacity(found.len());
        for (key, found) in keys.drain(..found.len()).zip(found) {
            let row = found.row.map(NamedRow::from);
            if row.as_ref().is_some_and(|row| row.key != key) {
                return Err(Error::Protocol(format!("{} sent another row than was asked for", place.address)));
            }
            page.push_back((row, found.from.map(Into::into)));
        }
        Ok(page)
    }
}
