//! Events go to the master, which keeps them for all to read. Whoever has something to tell pushes an
//! [`Effect::Event`]; the rest happens here.

use model::event::Noted;
use model::{Incarnation, Instant, Timestamp};
use protocol::ToMaster;

use crate::api::{Effect, Event};
use crate::machine::Node;

/// Events that stay in the node's own log: what they tell was decided by the master, which has recorded it.
const LOCAL: &[&str] = &["replica_configured"];

impl Node {
    /// The date, by what the host said last.
    pub(crate) fn date(&self, now: Instant) -> Timestamp {
        let (told, date) = self.date;
        Timestamp(date.0.saturating_add(i64::try_from(now.since(told).as_micros()).unwrap_or(i64::MAX)))
    }

    /// Takes note of the events among these effects.
    pub(crate) fn note_events(&mut self, now: Instant, effects: &[Effect]) {
        for effect in effects {
            let Effect::Event(Event { name, tablet, what }) = effect else { continue };
            if !LOCAL.contains(name) {
                let (name, what) = ((*name).to_owned(), what.clone());
                self.notes.note(now, Noted { at: self.date(now), name, tablet: *tablet, what, count: 1 });
            }
        }
    }

    /// Sends what is due to the master.
    pub(crate) fn send_events(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let date = self.date(now);
        if let Some((first, events)) = self.notes.batch(now, date) {
            out.push(Effect::Report(ToMaster::Events { life: self.incarnation, first, events }));
        }
    }

    pub(crate) fn on_events_kept(&mut self, life: Incarnation, upto: u64) {
        if life == self.incarnation {
            self.notes.on_kept(upto);
        }
    }
}
