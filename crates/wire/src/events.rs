//! Events: protobuf ↔ the model's words.

use model::event::{Event, EventPage, EventQuery, Source};
use model::{Epoch, NodeId, TabletId, Timestamp};

use crate::v1;

/// Events on a page if the reader has no wish.
const PAGE: u32 = 100;

impl From<v1::EventsRequest> for EventQuery {
    fn from(message: v1::EventsRequest) -> EventQuery {
        EventQuery {
            since: message.since,
            limit: if message.limit == 0 { PAGE } else { message.limit },
            tablet: message.tablet.map(TabletId),
            node: message.node.map(NodeId),
            name: message.name,
            wait_ms: message.wait_ms,
        }
    }
}

/// Builds the message that asks for one page.
pub fn request(query: EventQuery) -> v1::EventsRequest {
    v1::EventsRequest {
        since: query.since,
        limit: query.limit,
        tablet: query.tablet.map(|tablet| tablet.0),
        node: query.node.map(|node| node.0),
        name: query.name,
        wait_ms: query.wait_ms,
        follow: false,
    }
}

impl From<EventPage> for v1::EventPage {
    fn from(page: EventPage) -> v1::EventPage {
        let events = page.events.into_iter().map(Into::into).collect();
        v1::EventPage { events, next: page.next, oldest: page.oldest }
    }
}

impl From<v1::EventPage> for EventPage {
    fn from(message: v1::EventPage) -> EventPage {
        let events = message.events.into_iter().map(Into::into).collect();
        EventPage { events, next: message.next, oldest: message.oldest }
    }
}

impl From<Event> for v1::Event {
    fn from(event: Event) -> v1::Event {
        v1::Event {
            seq: event.seq,
            at_micros: event.at.0,
            source: match event.source {
                Source::Master => None,
                Source::Node(node) => Some(node.0),
            },
            name: event.name,
            table: event.table,
            tablet: event.tablet.map(|tablet| tablet.0),
            node: event.node.map(|node| node.0),
            epoch_before: event.epochs.map(|(before, _)| before.0),
            epoch_after: event.epochs.map(|(_, after)| after.0),
            what: event.what,
            count: event.count,
        }
    }
}

impl From<v1::Event> for Event {
    fn from(message: v1::Event) -> Event {
        Event {
            seq: message.seq,
            at: Timestamp(message.at_micros),
            source: message.source.map_or(Source::Master, |node| Source::Node(NodeId(node))),
            name: message.name,
            table: message.table,
            tablet: message.tablet.map(TabletId),
            node: message.node.map(NodeId),
            epochs: message.epoch_before.map(Epoch).zip(message.epoch_after.map(Epoch)),
            what: message.what,
            count: message.count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_out_as_it_went_in() {
        let decided = Event {
            seq: 7,
            at: Timestamp(8),
            source: Source::Master,
            name: "configuration_decided".into(),
            table: Some("users".into()),
            tablet: Some(TabletId(3)),
            node: Some(NodeId(2)),
            epochs: Some((Epoch(4), Epoch(5))),
            what: "why".into(),
            count: 1,
        };
        let noticed = Event {
            source: Source::Node(NodeId(1)),
            table: None,
            tablet: None,
            node: None,
            epochs: None,
            ..decided.clone()
        };
        let page = EventPage { events: vec![decided, noticed], next: 8, oldest: 2 };
        assert_eq!(EventPage::from(v1::EventPage::from(page.clone())), page);
        let query = EventQuery { since: Some(4), limit: 5, node: Some(NodeId(6)), wait_ms: 7, ..EventQuery::default() };
        assert_eq!(EventQuery::from(request(query.clone())), query);
    }
}
