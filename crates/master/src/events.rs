//! What happened in the cluster, for all to read: the newest events, the same at every master.
//!
//! ```text
//!   a decision ──committed──▶ recorded with it, by every master alike
//!   a node's   ──Events─────▶ Command::Record ──committed──▶ recorded, once
//!   our own    ──Effect::Event─┘
//!   readers ◀── page, or wait until there is one
//! ```
//!
//! Whoever in the master has something to tell pushes an [`Effect::Event`]; only what a command itself decides is
//! described here (`decided`), so that no failure can come between a decision and its record.

use model::event::{Event, EventPage, EventQuery, Noted, Source};
use model::{AdminReply, Configuration, Incarnation, Instant, NodeId, Refusal, TabletId, Ticket, Timestamp};
use protocol::FromMaster;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::api::Effect;
use crate::machine::Master;
use crate::state::{Changed, Command, State};

/// The newest so many are kept, if they have no more bytes than that.
const MOST: usize = 10_000;
const MOST_BYTES: usize = 4 << 20;
/// Events on a page.
const PAGE: u32 = 1_000;
/// Readers that may wait, and for how long.
const READERS: usize = 1_000;
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The newest events, and what of each source is among them or was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    last: u64,
    kept: VecDeque<Event>,
    bytes: usize,
    /// Of each source: its life, and how many events of that life were recorded.
    heard: BTreeMap<Source, (u64, u64)>,
}

impl Events {
    /// The newest number.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// All that are kept, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.kept.iter()
    }

    /// Those after a number. Numbers have no gaps.
    pub fn after(&self, since: u64) -> impl DoubleEndedIterator<Item = &Event> {
        let first = self.last + 1 - self.kept.len() as u64;
        let skip = usize::try_from(since.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        self.kept.range(skip.min(self.kept.len())..)
    }

    fn add(&mut self, event: Event) {
        self.last += 1;
        self.bytes += weight(&event);
        self.kept.push_back(Event { seq: self.last, ..event });
        while self.kept.len() > MOST || self.bytes > MOST_BYTES {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= weight(&oldest);
        }
    }

    /// How many of that source's life were recorded.
    fn recorded(&self, source: Source, life: u64) -> u64 {
        self.heard.get(&source).filter(|(known, _)| *known == life).map_or(0, |(_, upto)| *upto)
    }

    /// Which of them to show.
    fn page(&self, query: &EventQuery) -> EventPage {
        let oldest = self.last + 1 - self.kept.len() as u64;
        let limit = query.limit.clamp(1, PAGE) as usize;
        let Some(since) = query.since else {
            let wanted = self.kept.iter().rev().filter(|event| query.wants(event));
            let mut events: Vec<Event> = wanted.take(limit).cloned().collect();
            events.reverse();
            return EventPage { events, next: self.last, oldest };
        };
        let events: Vec<Event> = self.after(since).filter(|event| query.wants(event)).take(limit).cloned().collect();
        let next = match events.last() {
            Some(event) if events.len() == limit => event.seq,
            // A number from another cluster, or of what an older master had lost, is no reason to wait for it.
            _ => self.last,
        };
        EventPage { events, next, oldest }
    }
}

fn weight(event: &Event) -> usize {
    event.name.len() + event.what.len() + event.table.as_ref().map_or(0, String::len) + 100
}

impl State {
    /// Records events of a source, each once.
    pub(crate) fn record(&mut self, source: Source, life: u64, first: u64, events: Vec<Noted>) -> Changed {
        let known = self.events.heard.get(&source).copied().unwrap_or((0, 0));
        let mut upto = if known.0 == life { known.1 } else { 0 };
        if life >= known.0 {
            for (number, noted) in (first..).zip(events) {
                if number <= upto {
                    continue;
                }
                upto = number;
                let Noted { at, name, tablet, what, count } = noted.shortened();
                let table = tablet.and_then(|tablet| self.table_of(tablet));
                self.events.add(Event {
                    seq: 0,
                    at,
                    source,
                    name,
                    table,
                    tablet,
                    node: None,
                    epochs: None,
                    what,
                    count,
                });
            }
            self.events.heard.insert(source, (life, upto));
        }
        Changed::Events(source, life, upto)
    }

    fn table_of(&self, tablet: TabletId) -> Option<String> {
        let group = self.groups.get(&tablet)?;
        Some(self.tables.get(&group.tablet.table)?.name.clone())
    }

    /// Records what a command has decided. `before` is what [`decided`] knew of it.
    pub(crate) fn record_decision(&mut self, at: Timestamp, before: Decided, changed: &Changed) {
        let event = |name: &str, what: String| Event {
            seq: 0,
            at,
            source: Source::Master,
            name: name.to_owned(),
            table: None,
            tablet: None,
            node: None,
            epochs: None,
            what,
            count: 1,
        };
        let event = match changed {
            Changed::Node(node) => {
                let Some(known) = self.nodes.get(node) else { return };
                let what = format!("{node} at {}, life {}", known.address, known.incarnation);
                Event { node: Some(*node), ..event("node_joined", what) }
            }
            Changed::Table(schema, tablets) => {
                let (name, what) = match schema.version {
                    1 => ("table_changed", format!("made with {} tablets", tablets.len())),
                    _ if schema.settings.dropped.is_some() => {
                        ("table_dropped", format!("hidden with {} tablets, and can be brought back", tablets.len()))
                    }
                    version => ("table_changed", format!("changed to version {version}")),
                };
                Event { table: Some(schema.name.clone()), ..event(name, what) }
            }
            Changed::Dropped(schema, tablets) => {
                let what = format!("dropped with {} tablets", tablets.len());
                Event { table: Some(schema.name.clone()), ..event("table_dropped", what) }
            }
            Changed::Purged(tablets) => {
                event("tables_purged", format!("{} tablets of hidden tables are gone for good", tablets.len()))
            }
            Changed::Group(tablet, _) => {
                let Some(group) = self.groups.get(tablet) else { return };
                let Some((was, learned)) = &before.group else { return };
                let now = &group.configuration;
                let (name, node, what) = match (was.epoch == now.epoch, group.learner) {
                    (true, learner) if learner == *learned => return,
                    (true, Some(learner)) => {
                        ("learner_named", Some(learner), format!("{learner} shall keep it too, and learns"))
                    }
                    (true, None) => ("learner_named", *learned, String::from("nobody learns it any more")),
                    (false, _) => ("configuration_decided", subject(was, now), before.words(was, now)),
                };
                Event {
                    table: self.table_of(*tablet),
                    tablet: Some(*tablet),
                    node,
                    epochs: (was.epoch != now.epoch).then_some((was.epoch, now.epoch)),
                    ..event(name, what)
                }
            }
            Changed::Intent(tablet) => {
                let Some(intent) = self.splits.get(tablet) else { return };
                let what = format!("it is to become {} and {}", intent.left, intent.right);
                Event { table: self.table_of(*tablet), tablet: Some(*tablet), ..event("split_decided", what) }
            }
            Changed::Undivided(tablet, why) => {
                let table = self.table_of(*tablet);
                Event { table, tablet: Some(*tablet), ..event("split_cancelled", why.clone()) }
            }
            Changed::Joint(left) => {
                let Some(joint) = self.merges.get(left) else { return };
                let what = match joint.sealed {
                    None => format!("it and {} are to become {}", joint.right, joint.heir),
                    Some(upto) => format!("{} is closed at {upto}, to become {} with it", joint.right, joint.heir),
                };
                Event { table: self.table_of(*left), tablet: Some(*left), ..event("merge_decided", what) }
            }
            Changed::Unfused(left, right, why) => {
                let table = self.table_of(*left);
                self.events.add(Event { table, tablet: Some(*left), ..event("merge_cancelled", why.clone()) });
                let Some(group) = self.groups.get(right) else { return };
                let epoch = group.configuration.epoch;
                let epochs = Some((model::Epoch(epoch.0.saturating_sub(1)), epoch));
                let what = format!("it is open again, because it does not become one with {left}: {why}");
                Event { table: self.table_of(*right), tablet: Some(*right), epochs, ..event("merge_cancelled", what) }
            }
            Changed::Fused(left, merge) => {
                let (heir, right) = (merge.heir, merge.right);
                let table = self.table_of(heir);
                for parent in [*left, right] {
                    let what = format!("it has become part of {heir}");
                    let event = event("tablets_merged", what);
                    self.events.add(Event { table: table.clone(), tablet: Some(parent), ..event });
                }
                let first = merge.configuration.epoch;
                let epochs = Some((model::Epoch(first.0.saturating_sub(1)), first));
                let what = format!("made of {left} and {right}, {}", merge.slice);
                Event { table, tablet: Some(heir), epochs, ..event("tablets_merged", what) }
            }
            Changed::Divided(parent, split) => {
                let first = split.configuration.epoch;
                let (at, of) = (model::text::printable(&split.at), [split.left, split.right]);
                for (heir, other) in [(split.left, split.right), (split.right, split.left)] {
                    let what = format!("{parent} was split at {at}; the other part is {other}");
                    let event = event("tablet_split", what);
                    let epochs = Some((model::Epoch(first.0.saturating_sub(1)), first));
                    self.events.add(Event { table: self.table_of(heir), tablet: Some(heir), epochs, ..event });
                }
                let what = format!("it was split at {at} into {} and {}", of[0], of[1]);
                Event { table: self.table_of(of[0]), tablet: Some(*parent), ..event("tablet_split", what) }
            }
            _ => return,
        };
        self.events.add(event);
    }
}

/// What is known of a command before it is applied.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    /// The group that it changes, as it is: configuration and learner.
    group: Option<(Configuration, Option<NodeId>)>,
    why: Option<String>,
    by: Option<NodeId>,
}

/// See [`State::record_decision`].
pub(crate) fn decided(state: &State, command: &Command) -> Decided {
    let group = |tablet: &TabletId| {
        let group = state.groups.get(tablet)?;
        Some((group.configuration.clone(), group.learner))
    };
    match command {
        Command::Configure { tablet, by, why, .. } => {
            Decided { group: group(tablet), why: why.as_ref().map(ToString::to_string), by: Some(*by) }
        }
        Command::Learn { tablet, learner, .. } => {
            let why = match learner {
                Some(learner) => format!("{learner} learns instead of another"),
                None => String::from("its learner is not wanted any more, or away"),
            };
            Decided { group: group(tablet), why: Some(why), by: None }
        }
        Command::Move { tablet, from, to, .. } => {
            Decided { group: group(tablet), why: Some(format!("{to} shall keep it instead of {from}")), by: None }
        }
        Command::Recover { tablet, from, empty, .. } => {
            let with = if *empty { "nothing" } else { "what it holds" };
            let why = format!("an operator begins it anew at {from} with {with}; its members were gone");
            Decided { group: group(tablet), why: Some(why), by: None }
        }
        _ => Decided::default(),
    }
}

impl Decided {
    /// `e4[n1 n2] became e5[n2]: the primary n1 has been silent for 902 ms (says n2)`.
    fn words(&self, was: &Configuration, now: &Configuration) -> String {
        let mut what = format!("{was:?} became {now:?}");
        if let Some(why) = &self.why {
            what += &format!(": {why}");
        }
        if let Some(by) = self.by {
            what += &format!(" (says {by})");
        }
        what
    }
}

/// Which node a change is about: who became primary, else who came, else who went.
fn subject(was: &Configuration, now: &Configuration) -> Option<NodeId> {
    if was.primary != now.primary {
        return Some(now.primary);
    }
    let came = now.members().find(|node| !was.has(*node));
    came.or_else(|| was.members().find(|node| !now.has(*node)))
}

/// A reader that waits for an event.
#[derive(Debug)]
pub(crate) struct Reader {
    ticket: Ticket,
    query: EventQuery,
    until: Instant,
}

impl Master {
    /// The date, by what the host said last.
    pub(crate) fn date(&self) -> Timestamp {
        let (told, date) = self.date;
        Timestamp(date.0.saturating_add(i64::try_from(self.stepped.since(told).as_micros()).unwrap_or(i64::MAX)))
    }

    pub(crate) fn on_event_query(&mut self, now: Instant, ticket: Ticket, query: EventQuery, out: &mut Vec<Effect>) {
        let page = self.state.events.page(&query);
        if query.wait_ms == 0 || !page.events.is_empty() {
            out.push(Effect::Reply(ticket, AdminReply::Events(page)));
        } else if self.readers.len() >= READERS {
            out.push(Effect::Refuse(ticket, Refusal::Overloaded));
        } else {
            let until = now + Duration::from_millis(query.wait_ms.into()).min(LONGEST_WAIT);
            // What was looked at need not be looked at again.
            let query = EventQuery { since: Some(page.next), ..query };
            self.readers.push(Reader { ticket, query, until });
        }
    }

    /// Something was recorded: tells the host, and answers those who waited for it.
    pub(crate) fn tell_events(&mut self, since: u64, out: &mut Vec<Effect>) {
        out.extend(self.state.events.after(since).cloned().map(Effect::Recorded));
        let events = &self.state.events;
        self.readers.retain_mut(|reader| {
            let page = events.page(&reader.query);
            if page.events.is_empty() {
                reader.query.since = Some(page.next);
                return true;
            }
            out.push(Effect::Reply(reader.ticket, AdminReply::Events(page)));
            false
        });
    }

    /// Answers those who have waited long enough, with nothing.
    pub(crate) fn release_readers(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let events = &self.state.events;
        self.readers.retain(|reader| {
            if now >= reader.until {
                out.push(Effect::Reply(reader.ticket, AdminReply::Events(events.page(&reader.query))));
            }
            now < reader.until
        });
    }

    /// Nobody is answered by a master that leads no more.
    pub(crate) fn turn_readers_away(&mut self, out: &mut Vec<Effect>) {
        let readers = core::mem::take(&mut self.readers);
        out.extend(readers.into_iter().map(|reader| Effect::Refuse(reader.ticket, Refusal::NoMaster)));
    }

    /// A node tells what happened there.
    pub(crate) fn on_node_events(
        &mut self,
        node: NodeId,
        life: Incarnation,
        first: u64,
        mut events: Vec<Noted>,
        out: &mut Vec<Effect>,
    ) {
        if self.state.nodes.get(&node).is_none_or(|known| known.incarnation != life) || first > u64::MAX / 2 {
            return;
        }
        events.truncate(2 * protocol::notes::BATCH);
        let (source, last) = (Source::Node(node), first.saturating_add(events.len() as u64).saturating_sub(1));
        let upto = self.state.events.recorded(source, life.0);
        if upto >= last {
            out.push(Effect::Send(node, FromMaster::Kept { life, upto }));
        } else {
            self.propose(Command::Record { source, life: life.0, first, events }, out);
        }
    }

    /// Takes note of our own events among these effects, and has them recorded.
    pub(crate) fn record_own(&mut self, now: Instant, from: usize, out: &mut Vec<Effect>) {
        let Some((_, term)) = self.leading else { return };
        let date = self.date();
        for effect in &out[from..] {
            if let Effect::Event(name, what) = effect {
                let (name, what) = ((*name).to_owned(), what.clone());
                self.notes.note(now, Noted { at: date, name, tablet: None, what, count: 1 });
            }
        }
        if let Some((first, events)) = self.notes.batch(now, date) {
            self.propose(Command::Record { source: Source::Master, life: term, first, events }, out);
        }
    }

    /// These are recorded now: whoever told them need not tell them again.
    pub(crate) fn on_recorded(&mut self, source: Source, life: u64, upto: u64, out: &mut Vec<Effect>) {
        match source {
            Source::Node(node) => out.push(Effect::Send(node, FromMaster::Kept { life: Incarnation(life), upto })),
            Source::Master if self.leading.is_some_and(|(_, term)| term == life) => self.notes.on_kept(upto),
            Source::Master => {}
        }
    }
}
