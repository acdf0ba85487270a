//! One operation, attempt by attempt, until it is answered or its time is up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use model::{Consistency, Freshness, Mutation, ReadOptions, Refusal, RequestId};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Status;
use wire::v1::kv_client::KvClient;
use wire::{NamedRow, Route, Written, convert};

use crate::channels::Line;
use crate::routing::{Course, Next, Place, Seek, doubts_map};
use crate::{Client, Error, Options};

/// The time that an operation has, and how it goes on after a failed attempt.
#[derive(Clone, Debug)]
pub(crate) struct Journey {
    pub(crate) course: Course,
    begun: Instant,
    deadline: Instant,
    patience: Duration,
}

impl Journey {
    pub(crate) fn new(options: &Options) -> Journey {
        let begun = Instant::now();
        Journey {
            course: Course::default(),
            begun,
            deadline: begun + options.deadline,
            patience: options.attempt.max(Duration::from_millis(1)),
        }
    }

    /// The same, with a course of its own.
    pub(crate) fn on(course: Course, options: &Options) -> Journey {
        Journey { course, ..Journey::new(options) }
    }

    /// When an attempt that begins at `now` is taken for lost.
    pub(crate) fn attempt_ends(&self, now: Instant) -> Instant {
        (now + self.patience).min(self.deadline)
    }

    /// The error for an attempt that had no answer in time; the next one gets more.
    pub(crate) fn too_slow(&mut self, address: &str) -> Error {
        let error = Error::lost(address, format!("none within {:?}", self.patience));
        self.patience = self.patience.saturating_mul(2);
        error
    }

    /// After a failed attempt: how long to pause before the next, or the error that the caller gets.
    pub(crate) fn after(&mut self, client: &Client, asked: Option<Route>, error: Error) -> Result<Duration, Error> {
        let next = self.course.after(asked, &error, &mut client.inner.routing.write());
        if matches!(error, Error::Refused(Refusal::WrongEpoch { .. } | Refusal::Moved { .. })) {
            client.inner.redirects.fetch_add(1, Ordering::Relaxed);
        }
        let pause = match next {
            Next::Never => return Err(error),
            Next::AtOnce => Duration::ZERO,
            Next::Later => {
                client.pause(&mut self.course) + error.refusal().map_or(Duration::ZERO, Refusal::retry_after)
            }
        };
        if client.never_met(&error, self.begun) {
            return Err(error);
        }
        if Instant::now() + pause >= self.deadline {
            return Err(Error::Deadline { after: self.begun.elapsed(), last: Box::new(error) });
        }
        if next == Next::Later && doubts_map(&error) {
            client.fetch_map_soon();
        }
        Ok(pause)
    }
}

impl Client {
    /// Lets `ask` ask wherever `seek` lives until there is an answer.
    pub(crate) async fn routed<T, F>(
        &self,
        table: &str,
        seek: Seek<'_>,
        course: Course,
        ask: impl Fn(KvClient<Line>, &Place) -> F,
    ) -> Result<(T, Place), Error>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut journey = Journey::on(course, &self.inner.options);
        loop {
            let (asked, error) =
                match timeout_at(journey.deadline, self.place(table, seek, journey.course.detour)).await {
                    Ok(Ok(place)) => {
                        let kv = self.inner.channels.kv(&place.address, &self.identity)?;
                        match timeout_at(journey.attempt_ends(Instant::now()), ask(kv, &place)).await {
                            Ok(Ok(answer)) => return Ok((answer, place)),
                            Ok(Err(status)) => (Some(place.route), Error::from_status(&place.address, &status)),
                            Err(_) => (Some(place.route), journey.too_slow(&place.address)),
                        }
                    }
                    Ok(Err(error)) => (None, error),
                    Err(_) => (None, Error::lost("the master", "no map before the deadline")),
                };
            sleep(journey.after(self, asked, error)?).await;
        }
    }

    /// Eventual reads are spread over the members in turn; all else begins with the primary.
    pub(crate) fn course(&self, options: &ReadOptions<String>) -> Course {
        match options.consistency {
            Consistency::Linearizable => Course::default(),
            Consistency::Eventual { .. } => Course::anywhere(self.inner.turns.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub(crate) async fn write(
        &self,
        table: &str,
        request: RequestId,
        mutation: Mutation<String>,
    ) -> Result<Written, Error> {
        let own = (request.sequence == 0).then(|| self.inner.sequences.open());
        let request = own.as_ref().map_or(request, |own| own.id);
        let row = mutation.row.clone();
        let ask = |mut kv: KvClient<Line>, place: &Place| {
            let message = convert::mutate_request(table, Some(place.route), request, mutation.clone());
            async move { kv.mutate(message).await }
        };
        let (response, _) = self.routed(table, Seek::Row(&row), Course::default(), ask).await?;
        Ok(response.into_inner().into())
    }

    pub(crate) async fn read(
        &self,
        table: &str,
        row: Bytes,
        options: ReadOptions<String>,
    ) -> Result<(Option<NamedRow>, Option<Freshness>), Error> {
        let course = self.course(&options);
        let ask = |mut kv: KvClient<Line>, place: &Place| {
            let message = convert::get_request(table, Some(place.route), row.clone(), options.clone());
            async move { kv.get(message).await }
        };
        let (response, _) = self.routed(table, Seek::Row(&row), course, ask).await?;
        let response = response.into_inner();
        Ok((response.row.map(Into::into), response.from.map(Into::into)))
    }
}
