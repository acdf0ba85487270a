//! Where each tablet's entries are, and what must outlive every segment: states, positions and commit points.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use model::{Epoch, Lsn, TabletId};

use super::format::Place;
use super::segment::Segment;
use super::{Doubt, Found, Kind, Record};

/// All tablets and all segments in use.
#[derive(Default)]
pub struct Index {
    tablets: BTreeMap<TabletId, Shelf>,
    /// Without gap, and never empty once the log is open.
    segments: BTreeMap<u32, Arc<Segment>>,
    /// The newest segment of which something is damaged.
    condemned: Option<u32>,
}

/// One tablet's part of the log. Its entries are `before + 1 ..= before + places.len()`.
#[derive(Default)]
pub struct Shelf {
    state: Option<Record>,
    lost: Option<Record>,
    /// What lay in a damaged part of the log.
    doubt: Option<Doubt>,
    committed: Lsn,
    before: Lsn,
    /// Rising, because an entry that is replaced takes all after it along.
    places: VecDeque<Place>,
}

impl Shelf {
    pub fn first(&self) -> Option<Lsn> {
        if self.places.is_empty() { None } else { Some(self.before.next()) }
    }

    pub fn newest(&self) -> Option<Place> {
        self.places.back().copied()
    }

    pub fn last(&self) -> Lsn {
        Lsn(self.before.0 + self.places.len() as u64)
    }

    /// Places of the entries from `from` on, which must not be before the first.
    pub fn places_from(&self, from: Lsn) -> impl Iterator<Item = (Lsn, Place)> + '_ {
        let skip = from.0.saturating_sub(self.before.0).saturating_sub(1);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.places.len());
        let before = self.before.0 + skip as u64;
        self.places.range(skip..).zip(1..).map(move |(place, nth)| (Lsn(before + nth), *place))
    }

    /// Whether `from` stands before everything that is held.
    pub fn lacks(&self, from: Lsn) -> bool {
        from <= self.before
    }

    fn put(&mut self, lsn: Lsn, place: Place) {
        if lsn > self.last().next() || lsn <= self.before {
            self.places.clear();
            self.before = lsn.prev();
        }
        self.cut(lsn.prev());
        self.places.push_back(place);
    }

    /// Drops what is after `lsn`. A tablet of which nothing is known yet takes the position.
    fn cut(&mut self, lsn: Lsn) {
        if lsn < self.before || self.last() == Lsn::ZERO {
            self.places.clear();
            self.before = lsn;
        } else {
            self.places.truncate(usize::try_from(lsn.0 - self.before.0).unwrap_or(usize::MAX));
        }
    }

    /// Segment of the first entry after `floor`.
    fn needs(&self, floor: Lsn) -> Option<u32> {
        if floor >= self.last() {
            return None;
        }
        self.places_from(floor.next()).next().map(|(_, place)| place.segment)
    }
}

impl Index {
    /// Takes over a record that has been written at `place`.
    pub fn note(&mut self, record: &Record, place: Place) {
        match record.kind {
            Kind::Dropped => _ = self.tablets.remove(&record.tablet),
            Kind::Mark => {}
            _ => self.note_of(record, place),
        }
    }

    fn note_of(&mut self, record: &Record, place: Place) {
        let shelf = self.tablets.entry(record.tablet).or_default();
        shelf.committed = shelf.committed.max(record.committed);
        match record.kind {
            Kind::Command | Kind::NoOp => shelf.put(record.lsn, place),
            Kind::State => shelf.state = Some(record.clone()),
            Kind::Cut => shelf.cut(record.lsn),
            Kind::Lost => shelf.lost = Some(record.clone()),
            Kind::Dropped | Kind::Mark => {}
        }
    }

    /// Something of the tablet lay in a damaged part of the log.
    pub fn doubt(&mut self, tablet: TabletId, why: &str) {
        let doubt = Doubt { upto: Doubt::ALL, why: why.to_owned() };
        self.tablets.entry(tablet).or_default().doubt.get_or_insert(doubt).upto = Doubt::ALL;
    }

    /// A segment began with the tablet's state, and with where its entries ended: only those before that are in doubt.
    pub fn carried(&mut self, tablet: TabletId, last: Lsn) {
        if let Some(shelf) = self.tablets.get_mut(&tablet)
            && let Some(doubt) = &mut shelf.doubt
        {
            doubt.upto = last;
            shelf.places.clear();
            shelf.before = last;
        }
    }

    /// The tablet is no more, though what says so is damaged.
    pub fn remove(&mut self, tablet: TabletId) {
        self.tablets.remove(&tablet);
    }

    /// All of which anything is known.
    pub fn tablets(&self) -> impl Iterator<Item = TabletId> + '_ {
        self.tablets.keys().copied()
    }

    /// What a new segment begins with, so that older ones may go: every tablet's state, and a cut that cuts nothing but
    /// tells where the entries end and what is committed. The new segment must not vouch for a state that is in doubt, before
    /// the host has written down that it is.
    pub fn carry(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (tablet, shelf) in &self.tablets {
            records.extend(shelf.state.clone());
            let record = |kind, lsn, body| {
                let (tablet, epoch, committed) = (*tablet, Epoch(0), shelf.committed);
                Record { tablet, lsn, epoch, committed, kind, body }
            };
            let doubt = shelf.doubt.as_ref().filter(|doubt| doubt.upto == Doubt::ALL);
            let lost = doubt.map(|doubt| record(Kind::Lost, Lsn::ZERO, Bytes::from(doubt.why.clone())));
            records.extend(shelf.lost.clone().or(lost));
            records.push(record(Kind::Cut, shelf.last(), Bytes::new()));
        }
        records
    }

    pub fn found(&self) -> BTreeMap<TabletId, Found> {
        let found = |shelf: &Shelf| Found {
            state: shelf.state.as_ref().map(|record| record.body.clone()),
            first: shelf.first(),
            last: shelf.last(),
            committed: shelf.committed,
            doubt: match &shelf.lost {
                Some(lost) => Some(Doubt { upto: Doubt::ALL, why: String::from_utf8_lossy(&lost.body).into_owned() }),
                None => shelf.doubt.clone(),
            },
        };
        self.tablets.iter().map(|(tablet, shelf)| (*tablet, found(shelf))).collect()
    }

    pub fn shelf(&self, tablet: TabletId) -> Option<&Shelf> {
        self.tablets.get(&tablet)
    }

    /// Entries of these tablets that were at the first places, which rise, are now at the second ones.
    pub fn relocate(&mut self, tablets: impl Iterator<Item = TabletId>, before: &[Place], now: &[Place]) {
        for tablet in tablets.collect::<BTreeSet<_>>() {
            let Some(shelf) = self.tablets.get_mut(&tablet) else { continue };
            for place in shelf.places.iter_mut().rev() {
                match before.binary_search(place) {
                    Ok(at) => *place = now[at],
                    // What was written before stays where it is.
                    Err(_) => break,
                }
            }
        }
    }

    pub fn segment(&self, number: u32) -> Arc<Segment> {
        self.segments.get(&number).expect("places point into segments in use").clone()
    }

    pub fn add(&mut self, segment: Arc<Segment>) {
        self.segments.insert(segment.number, segment);
    }

    pub fn segments_from(&self, number: u32) -> impl Iterator<Item = Arc<Segment>> + '_ {
        self.segments.range(number..).map(|(_, segment)| segment.clone())
    }

    pub fn has_entry_from(&self, place: Place) -> bool {
        let within = |at: &Place| at.segment == place.segment && *at >= place;
        self.tablets.values().any(|shelf| {
            let from = shelf.places.partition_point(|at| *at < place);
            shelf.places.get(from).is_some_and(within)
        })
    }

    pub fn condemn(&mut self, number: u32) {
        self.condemned = self.condemned.max(Some(number));
    }

    pub fn is_condemned(&self, number: u32) -> bool {
        self.condemned == Some(number)
    }

    pub fn oldest(&self) -> Arc<Segment> {
        self.segments.values().next().expect("an open log has a segment").clone()
    }

    pub fn bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.len).sum()
    }

    /// Oldest segment with an entry after its tablet's floor.
    pub fn oldest_needed(&self, floors: &BTreeMap<TabletId, Lsn>) -> Option<u32> {
        self.needs(floors).map(|(_, segment)| segment).min()
    }

    /// Tablets that need the oldest segment of all.
    pub fn pinning_oldest(&self, floors: &BTreeMap<TabletId, Lsn>) -> Vec<TabletId> {
        let oldest = self.oldest().number;
        self.needs(floors).filter(|(_, segment)| *segment == oldest).map(|(tablet, _)| tablet).collect()
    }

    /// Tablets that need any of the oldest segments, of which so many that without them no more than `most` bytes are left.
    pub fn pinning(&self, floors: &BTreeMap<TabletId, Lsn>, most: u64) -> Vec<TabletId> {
        let mut left = self.bytes();
        let mut goes = |segment: &&Arc<Segment>| {
            let goes = left > most;
            left -= segment.len.min(left);
            goes
        };
        let Some(last) = self.segments.values().take_while(&mut goes).last().map(|segment| segment.number) else {
            return Vec::new();
        };
        let mut pinning: Vec<(u32, TabletId)> = self
            .needs(floors)
            .map(|(tablet, segment)| (segment, tablet))
            .filter(|(segment, _)| *segment <= last)
            .collect();
        pinning.sort_unstable();
        pinning.into_iter().map(|(_, tablet)| tablet).collect()
    }

    fn needs<'a>(&'a self, floors: &'a BTreeMap<TabletId, Lsn>) -> impl Iterator<Item = (TabletId, u32)> + 'a {
        self.tablets.iter().filter_map(|(tablet, shelf)| {
            let floor = floors.get(tablet).copied().unwrap_or(Lsn::ZERO);
            shelf.needs(floor).map(|segment| (*tablet, segment))
        })
    }

    /// The oldest segment is gone, and the entries in it.
    pub fn forget(&mut self, number: u32) {
        self.segments.remove(&number);
        for shelf in self.tablets.values_mut() {
            let gone = shelf.places.partition_point(|place| place.segment <= number);
            shelf.places.drain(..gone);
            shelf.before.0 += gone as u64;
        }
    }
}
