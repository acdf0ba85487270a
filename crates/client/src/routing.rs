//! Where a row lives, as far as we know, and where to go after a refusal. Only deciding, no doing.
//!
//! The map may be old: nodes say so by refusing, and a refusal for a wrong epoch brings the newer configuration along.
//! Configurations only ever move to higher epochs, whoever told us.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::random::Random;
use model::request::ClusterMap;
use model::slice::hash_bucket;
use model::{Configuration, Heir, NodeId, Refusal, RowRange, Slice, TabletId};
use wire::Route;

use crate::Error;

/// The map, arranged for looking up.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    /// Of the map; `None` before the first.
    version: Option<u64>,
    /// Is it the last one of a master that is away?
    old: bool,
    addresses: BTreeMap<NodeId, Arc<str>>,
    tables: BTreeMap<String, Cut>,
    configurations: BTreeMap<TabletId, Configuration>,
}

/// How a table is cut, with the tablets that the map has.
#[derive(Debug)]
enum Cut {
    Hash {
        tablets: BTreeMap<u32, TabletId>,
        of: u32,
    },
    /// By first key.
    Range(BTreeMap<Bytes, (Option<Bytes>, TabletId)>),
}

/// What is looked for in a table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seek<'a> {
    /// The tablet of a row.
    Row(&'a [u8]),
    /// The tablet of the rows before this one, or of the last rows. Of a hashed table there is no such.
    Before(Option<&'a [u8]>),
    /// A tablet of a hashed table.
    Bucket(u32),
}

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) route: Route,
    /// Where the node serves.
    pub(crate) address: Arc<str>,
    /// Which rows the tablet has.
    pub(crate) slice: Slice,
}

impl Place {
    /// Where a tablet of a range begins and ends; all rows, for hashed tablets.
    pub(crate) fn range(&self) -> RowRange {
        match &self.slice {
            Slice::Hash { .. } => RowRange::default(),
            Slice::Rows { start, end } => RowRange { start: start.clone(), end: end.clone() },
        }
    }
}

/// What the map lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    Table,
    /// The table, and it may be newer than the map.
    Master,
    Tablet,
    Address(NodeId),
}

impl Unknown {
    /// As an error, when even a fresh map lacks it.
    pub(crate) fn into_error(self, table: &str) -> Error {
        match self {
            Unknown::Table => Error::Refused(Refusal::NoSuchTable(String::from(table))),
            Unknown::Master => Error::Refused(Refusal::NoMaster),
            Unknown::Tablet => Error::unreachable(table, "the map lacks a tablet of this table"),
            Unknown::Address(node) => Error::unreachable(&node.to_string(), "the map lacks its address"),
        }
    }
}

impl Routing {
    /// Has there ever been a map?
    pub(crate) fn is_loaded(&self) -> bool {
        self.version.is_some()
    }

    /// Takes a newer map; an older one, from a master that lags, changes nothing.
    pub(crate) fn replace(&mut self, map: ClusterMap) {
        self.old = map.old;
        if self.version > Some(map.version) {
            return;
        }
        let known = std::mem::take(self);
        (self.version, self.old) = (Some(map.version), known.old);
        self.addresses = map.nodes.into_iter().map(|(node, address)| (node, Arc::from(address))).collect();
        for assignment in map.tablets {
            let tablet = assignment.tablet.id;
            let table = self.tables.entry(assignment.schema.name).or_insert_with(|| match assignment.tablet.slice {
                Slice::Hash { of, .. } => Cut::Hash { tablets: BTreeMap::new(), of },
                Slice::Rows { .. } => Cut::Range(BTreeMap::new()),
            });
            match (table, assignment.tablet.slice) {
                (Cut::Hash { tablets, .. }, Slice::Hash { bucket, .. }) => {
                    tablets.insert(bucket, tablet);
                }
                (Cut::Range(tablets), Slice::Rows { start, end }) => {
                    tablets.insert(start, (end, tablet));
                }
                // A table is cut one way; whoever mixes them gets the first.
                _ => continue,
            }
            let newest = match known.configurations.get(&tablet) {
                Some(learned) if learned.epoch > assignment.configuration.epoch => learned.clone(),
                _ => assignment.configuration,
            };
            self.configurations.insert(tablet, newest);
        }
    }

    /// Takes a configuration that a node told us, if it is newer and of a tablet in the map.
    pub(crate) fn learn(&mut self, tablet: TabletId, configuration: &Configuration) {
        if let Some(known) = self.configurations.get_mut(&tablet)
            && known.epoch < configuration.epoch
        {
            known.clone_from(configuration);
        }
    }

    /// Takes a tablet's heirs in its place, if the map still has it.
    pub(crate) fn succeed(&mut self, tablet: TabletId, heirs: &[Heir]) {
        let of =
            |cut: &&mut Cut| matches!(cut, Cut::Range(ranges) if ranges.values().any(|(_, known)| *known == tablet));
        let Some(Cut::Range(ranges)) = self.tables.values_mut().find(of) else { return };
        ranges.retain(|_, (_, known)| *known != tablet);
        self.configurations.remove(&tablet);
        for heir in heirs {
            if let Slice::Rows { start, end } = &heir.slice {
                // An heir of two tablets takes the place of both.
                ranges.retain(|_, (_, known)| *known != heir.tablet);
                let within = |first: &Bytes| first > start && end.as_ref().is_none_or(|end| first < end);
                ranges.extract_if(.., |first, _| within(first)).for_each(|(_, (_, other))| {
                    self.configurations.remove(&other);
                });
                ranges.insert(start.clone(), (end.clone(), heir.tablet));
                self.configurations.insert(heir.tablet, heir.configuration.clone());
            }
        }
    }

    /// The tablet and whom to ask: its primary, or with a detour another member.
    pub(crate) fn locate(&self, table: &str, seek: Seek<'_>, detour: usize) -> Result<Place, Unknown> {
        let table = self.cut(table)?;
        let rows = |(start, (end, tablet)): (&Bytes, &(Option<Bytes>, TabletId))| {
            (*tablet, Slice::Rows { start: start.clone(), end: end.clone() })
        };
        let hashed = |tablets: &BTreeMap<u32, TabletId>, bucket, of| {
            tablets.get(&bucket).map(|tablet| (*tablet, Slice::Hash { bucket, of }))
        };
        let found = match (table, seek) {
            (Cut::Hash { tablets, of }, Seek::Row(row)) => hashed(tablets, hash_bucket(row, *of), *of),
            (Cut::Hash { tablets, of }, Seek::Bucket(bucket)) => hashed(tablets, bucket, *of),
            (Cut::Range(tablets), Seek::Row(row)) => upto(tablets, Bound::Included(row))
                .next_back()
                .filter(|(_, (end, _))| end.as_ref().is_none_or(|end| row < &end[..]))
                .map(rows),
            (Cut::Range(tablets), Seek::Before(row)) => upto(tablets, row.map_or(Bound::Unbounded, Bound::Excluded))
                .next_back()
                .filter(|(_, (end, _))| end.as_ref().is_none_or(|end| row.is_some_and(|row| row <= &end[..])))
                .map(rows),
            (Cut::Range(_), Seek::Bucket(_)) | (Cut::Hash { .. }, Seek::Before(_)) => None,
        };
        let (tablet, slice) = found.ok_or(Unknown::Tablet)?;
        let configuration = self.configurations.get(&tablet).ok_or(Unknown::Tablet)?;
        let node = configuration.members().nth(detour % configuration.size()).unwrap_or(configuration.primary);
        let address = self.addresses.get(&node).ok_or(Unknown::Address(node))?;
        let route = Route { tablet, epoch: configuration.epoch };
        Ok(Place { route, address: Arc::clone(address), slice })
    }

    /// Into how many hash tablets the table is cut, all of which the map has; `None` if it is cut by ranges.
    pub(crate) fn buckets(&self, table: &str) -> Result<Option<u32>, Unknown> {
        match self.cut(table)? {
            Cut::Hash { tablets, of } if tablets.len() == *of as usize => Ok(Some(*of)),
            Cut::Hash { .. } => Err(Unknown::Tablet),
            Cut::Range(_) => Ok(None),
        }
    }

    fn cut(&self, table: &str) -> Result<&Cut, Unknown> {
        self.tables.get(table).ok_or(if self.old { Unknown::Master } else { Unknown::Table })
    }

    /// Where nodes serve.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Arc<str>> {
        self.addresses.values()
    }
}

fn upto<'a, V>(
    ranges: &'a BTreeMap<Bytes, V>,
    last: Bound<&'a [u8]>,
) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a V)> {
    ranges.range::<[u8], _>((Bound::Unbounded, last))
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask again: we know better now.
    AtOnce,
    /// Ask again after a pause.
    Later,
    /// It will not become better.
    Never,
}

/// How one operation finds its way, attempt by attempt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Course {
    /// Which member of the configuration is asked; 0 is the primary. The others do not serve, but one that
    /// outlived the primary knows the new configuration.
    pub(crate) detour: usize,
    /// Attempts that ended in a pause.
    pauses: u32,
    /// Replicas that were too old.
    too_old: u32,
}

/// So many replicas that are too old are passed over without a pause.
const AT_ONCE: u32 = 2;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(80);

impl Course {
    /// Learns from what the attempt by `asked` met, and says whether to go on.
    pub(crate) fn after(&mut self, asked: Option<Route>, error: &Error, routing: &mut Routing) -> Next {
        match error {
            Error::Refused(Refusal::WrongEpoch { tablet, current }) => {
                routing.learn(*tablet, current);
                let known = routing.configurations.get(tablet).map(|configuration| configuration.epoch);
                if asked.is_some_and(|asked| known > Some(asked.epoch)) {
                    self.detour = 0;
                    return Next::AtOnce;
                }
                self.detour += 1;
            }
            // Another replica may be younger.
            Error::Refused(Refusal::TooOld { .. }) => {
                self.detour += 1;
                self.too_old += 1;
                return if self.too_old <= AT_ONCE { Next::AtOnce } else { Next::Later };
            }
            Error::Refused(Refusal::Moved { tablet, heirs }) => {
                routing.succeed(*tablet, heirs);
                self.detour = 0;
                if asked.is_some_and(|asked| asked.tablet == *tablet) {
                    return Next::AtOnce;
                }
            }
            Error::Refused(Refusal::NoSuchTablet(_)) | Error::Unreachable { .. } | Error::Lost { .. } => {
                self.detour += 1;
            }
            error if error.is_passing() => {}
            _ => return Next::Never,
        }
        Next::Later
    }

    /// How long to wait: 10 ms, doubled up to 80 ms, and of that a half to the whole by chance.
    pub(crate) fn pause(&mut self, random: &mut Random) -> Duration {
        let most = SHORTEST_PAUSE.saturating_mul(1 << self.pauses.min(8)).min(LONGEST_PAUSE);
        self.pauses += 1;
        most / 2 + Duration::from_micros(random.below(most.as_micros() as u64 / 2))
    }
}

impl Course {
    /// Begins with any member: `turn` says with which.
    pub(crate) fn anywhere(turn: usize) -> Course {
        Course { detour: turn, ..Course::default() }
    }
}

/// Is the map to be doubted after this?
pub(crate) fn doubts_map(error: &Error) -> bool {
    let certain = |refusal: &Refusal| {
        matches!(refusal, Refusal::Overloaded | Refusal::Unknown(_) | Refusal::TooOld { .. } | Refusal::Stalled { .. })
    };
    !matches!(error, Error::Refused(refusal) if certain(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Assignment, Epoch, Family, FamilyId, Partition, Retention, Schema, TableId, Tablet};

    const TABLET: TabletId = TabletId(0);

    /// The tablets of one table, the first on n1 with n2 and n3, in epoch 1.
    fn map(version: u64, partition: Partition) -> ClusterMap {
        let schema = Schema {
            table: TableId(1),
            name: "t".into(),
            version: 1,
            families: vec![Family {
                id: FamilyId(1),
                name: "f".into(),
                retention: Retention::Keep,
                loosened: false,
                locality: model::LocalityId(0),
                aggregate: None,
            }],
            next_family: FamilyId(2),
            partition: partition.clone(),
            replicas: 3,
            min_replicas: 2,
            storage: model::Storage::default(),
            settings: model::Settings::default(),
        };
        let assignment = |(id, slice)| Assignment {
            tablet: Tablet { id: TabletId(id), table: TableId(1), slice },
            schema: schema.clone(),
            configuration: Configuration::first(NodeId(1), [NodeId(2), NodeId(3)]),
            learner: None,
            lineage: model::Lineage::default(),
        };
        let nodes = (1..=3).map(|node| (NodeId(node), format!("n{node}"))).collect();
        let tablets = (0..).zip(partition.slices()).map(assignment).collect();
        ClusterMap { version, nodes, tablets, old: false, documents: 0 }
    }

    fn routing() -> Routing {
        let mut routing = Routing::default();
        routing.replace(map(1, Partition::Range { splits: vec!["m".into()] }));
        routing
    }

    fn asked(epoch: u32) -> Option<Route> {
        Some(Route { tablet: TABLET, epoch: Epoch(epoch) })
    }

    fn at(routing: &Routing, detour: usize) -> String {
        routing.locate("t", Seek::Row(b"a"), detour).unwrap().address.to_string()
    }

    fn wrong_epoch(current: &Configuration) -> Error {
        Refusal::WrongEpoch { tablet: TABLET, current: current.clone() }.into()
    }

    #[test]
    fn rows_find_their_range() {
        let routing = routing();
        let find =
            |row: &[u8]| routing.locate("t", Seek::Row(row), 0).map(|place| (place.route.tablet.0, place.range().end));
        assert_eq!(find(b"a"), Ok((0, Some("m".into()))));
        assert_eq!(find(b""), Ok((0, Some("m".into()))));
        assert_eq!(find(b"m"), Ok((1, None)));
        assert_eq!(routing.locate("u", Seek::Row(b"a"), 0), Err(Unknown::Table));
    }

    #[test]
    fn rows_find_their_bucket() {
        let partition = Partition::Hash { tablets: 5 };
        let slices = partition.slices();
        let mut routing = Routing::default();
        routing.replace(map(1, partition));
        for row in 0..100_u32 {
            let row = row.to_be_bytes();
            let place = routing.locate("t", Seek::Row(&row), 0).unwrap();
            assert!(slices[place.route.tablet.0 as usize].covers(&row));
        }
        assert_eq!(routing.locate("t", Seek::Bucket(3), 0).unwrap().route.tablet, TabletId(3));
        assert_eq!(routing.locate("t", Seek::Bucket(5), 0), Err(Unknown::Tablet));
    }

    /// PacificA 2.2: who is told of a newer configuration goes there at once.
    #[test]
    fn a_wrong_epoch_brings_the_new_primary() {
        let mut routing = routing();
        let newer = Configuration::first(NodeId(1), [NodeId(2)]).succeeded_by(NodeId(2));
        let mut course = Course { detour: 1, ..Course::default() };
        assert_eq!(course.after(asked(1), &wrong_epoch(&newer), &mut routing), Next::AtOnce);
        assert_eq!(at(&routing, course.detour), "n2");
    }

    /// A second operation that was refused by the same old epoch goes at once too, although nothing is new any more.
    #[test]
    fn what_another_operation_learned_serves_all() {
        let mut routing = routing();
        let newer = Configuration::first(NodeId(1), []).next();
        for _ in 0..2 {
            assert_eq!(Course::default().after(asked(1), &wrong_epoch(&newer), &mut routing), Next::AtOnce);
        }
    }

    /// A node that lags cannot send us back to an older configuration, nor in circles without a pause.
    #[test]
    fn an_older_epoch_is_no_news() {
        let mut routing = routing();
        let newer = Configuration::first(NodeId(2), [NodeId(1)]).next();
        routing.learn(TABLET, &newer);
        let mut course = Course::default();
        let older = Configuration::first(NodeId(1), [NodeId(2)]);
        assert_eq!(course.after(asked(2), &wrong_epoch(&older), &mut routing), Next::Later);
        assert_eq!(at(&routing, 0), "n2");
        routing.replace(map(2, Partition::Range { splits: vec!["m".into()] }));
        assert_eq!(at(&routing, 0), "n2");
    }

    /// When the primary is silent, the others are asked in turn, and then the primary again.
    #[test]
    fn after_silence_the_other_members_are_asked() {
        let mut routing = routing();
        let mut course = Course::default();
        let way: Vec<String> = (0..4)
            .map(|_| {
                assert_eq!(course.after(asked(1), &Error::lost("n1", "reset"), &mut routing), Next::Later);
                at(&routing, course.detour)
            })
            .collect();
        assert_eq!(way, ["n2", "n3", "n1", "n2"]);
    }

    #[test]
    fn what_does_not_pass_is_not_repeated() {
        let mut routing = routing();
        for refusal in [Refusal::Invalid("x".into()), Refusal::TooFewReplicas { have: 1, need: 2 }] {
            assert_eq!(Course::default().after(asked(1), &refusal.into(), &mut routing), Next::Never);
        }
        let overloaded = Error::from(Refusal::Overloaded);
        assert_eq!(Course::default().after(asked(1), &overloaded, &mut routing), Next::Later);
        assert!(!doubts_map(&overloaded));
    }

    /// Papers, 6.7: a tablet that was split names its heirs, and whoever asked it goes there at once; a refusal that
    /// comes later changes nothing any more.
    #[test]
    fn a_split_tablet_names_its_heirs() {
        let mut routing = routing();
        let heir = |tablet, slice: Slice| {
            let configuration = Configuration::first(NodeId(2), [NodeId(1)]).next();
            Heir { tablet: TabletId(tablet), slice, configuration }
        };
        let parts = |from: &str, at: &str, to: &str| {
            let (from, at, to) = (from.to_owned().into(), Bytes::from(at.to_owned()), Bytes::from(to.to_owned()));
            [Slice::Rows { start: from, end: Some(at.clone()) }, Slice::Rows { start: at, end: Some(to) }]
        };
        let [left, right] = parts("", "g", "m");
        let moved = Error::from(Refusal::Moved { tablet: TABLET, heirs: vec![heir(5, left), heir(6, right)] });
        for _ in 0..2 {
            assert_eq!(Course { detour: 1, ..Course::default() }.after(asked(1), &moved, &mut routing), Next::AtOnce);
        }
        let find = |routing: &Routing, row: &[u8]| {
            let place = routing.locate("t", Seek::Row(row), 0).unwrap();
            (place.route.tablet.0, place.range().end)
        };
        assert_eq!(at(&routing, 0), "n2");
        assert_eq!(find(&routing, b"f"), (5, Some("g".into())));
        assert_eq!(find(&routing, b"g"), (6, Some("m".into())));
        assert_eq!(find(&routing, b"m"), (1, None));
        let [left, right] = parts("g", "j", "m");
        let moved_on = Error::from(Refusal::Moved { tablet: TabletId(6), heirs: vec![heir(7, left), heir(8, right)] });
        let asked_6 = Some(Route { tablet: TabletId(6), epoch: Epoch(2) });
        assert_eq!(Course::default().after(asked_6, &moved_on, &mut routing), Next::AtOnce);
        assert_eq!(Course::default().after(asked(1), &moved, &mut routing), Next::AtOnce);
        assert_eq!((find(&routing, b"h").0, find(&routing, b"k").0), (7, 8));
    }

    /// A master that lags behind the one we heard before does not take tables away.
    #[test]
    fn an_older_map_changes_nothing() {
        let mut routing = Routing::default();
        routing.replace(map(5, Partition::Hash { tablets: 1 }));
        routing.replace(ClusterMap { version: 4, ..ClusterMap::default() });
        assert_eq!(routing.buckets("t"), Ok(Some(1)));
        routing.replace(ClusterMap { version: 6, ..ClusterMap::default() });
        assert_eq!(routing.buckets("t"), Err(Unknown::Table));
        // Whether there is such a table, only a master can say.
        routing.replace(ClusterMap { version: 5, old: true, ..ClusterMap::default() });
        assert_eq!(routing.buckets("t"), Err(Unknown::Master));
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let (mut course, mut random) = (Course::default(), Random::new(1));
        let pauses: Vec<Duration> = (0..20).map(|_| course.pause(&mut random)).collect();
        assert!(pauses[0] >= SHORTEST_PAUSE / 2 && pauses[0] < SHORTEST_PAUSE);
        assert!(pauses[6..].iter().all(|pause| (LONGEST_PAUSE / 2..LONGEST_PAUSE).contains(pause)));
    }
}
