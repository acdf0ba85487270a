//! Opens a node: what its disk remembers becomes replicas, rows and completion records again.
//!
//! ```text
//!   log segments ──crew──▶ index of the log ──▶ tablets that stand on their own ──crew──▶ replicas
//!                                               those made of others, in their order ──────▲
//! ```
//!
//! The crew is the host's. Tablets that this node led come first, and of those the ones written last.

use bytes::Bytes;
use disk::Disk;
use model::{Batch, ClusterId, Command, Epoch, Instant, Lsn, Merge, NodeId, Payload, TabletId};
use protocol::{Core, Entry, Replica};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::log::{Alone, Crew, Found, Kind, Log, LogReader, Part};
use store::{Error, Keeper};

use crate::completions::Completions;
use crate::hosted::{Applied, Hosted, SavedState};
use crate::identity::Identity;
use crate::machine::{NODE_ITSELF, Node, Options};
use crate::quarantine::Lost;
use crate::splits::Origin;

/// Bytes of entries that recovery holds in memory at a time.
const BATCH_BYTES: usize = 8 << 20;

/// What carries a node's effects out: the host calls it as the effects say.
pub struct Hands {
    /// For [`crate::Effect::Log`] and [`crate::Effect::Trim`].
    pub log: Log,
    /// For [`crate::Effect::ReadLog`].
    pub reader: LogReader,
    /// For [`crate::Effect::Run`].
    pub keeper: Arc<Keeper>,
    /// What the operator should know of the recovery, such as a torn tail that was cut.
    pub notes: Vec<String>,
}

/// Opens the node whose data lies on `disk`, or makes a new one if the disk is empty.
///
/// Fails if the disk is another node's, or if damage shows that cannot come from a crash; the error names the file.
pub fn open(disk: Arc<dyn Disk>, options: Options, now: Instant) -> Result<(Node, Hands), Error> {
    open_with(disk, options, now, &Alone)
}

/// [`open`], with a crew that reads the log and brings tablets back, several at a time.
pub fn open_with(disk: Arc<dyn Disk>, options: Options, now: Instant, crew: &dyn Crew) -> Result<(Node, Hands), Error> {
    let identity = Identity::open(&*disk, options.id, options.seed)?;
    let (mut log, recovered) = Log::open_with(Arc::clone(&disk), "log", options.log, crew)?;
    let checkpoints = store::checkpoint::list(&*disk, None);
    let (keeper, tablets) = Keeper::open(disk, options.upkeep.date, options.tables.clone())?;
    let (mut tables, mut damaged) = (tablets.sound, tablets.damaged);
    let mut notes = recovered.notes;
    let (me, timing) = (options.id, options.timing.clone());
    let date = options.upkeep.date;
    let mut node = Node::new(options, identity, now);
    match checkpoints {
        Ok(held) => node.checkpoints.note(&held),
        Err(error) => notes.push(format!("the checkpoints here are not known: {error}")),
    }
    let reader = log.reader();

    let mut states = BTreeMap::new();
    for (tablet, found) in recovered.tablets {
        let Some(state) = &found.state else {
            if let Some(doubt) = found.doubt.as_ref().filter(|_| tablet != NODE_ITSELF) {
                notes.push(format!("tablet {tablet} is lost here: {}", doubt.why));
                node.lost.insert(tablet, Lost::new(doubt.why.clone(), Epoch(0)));
            }
            continue;
        };
        if tablet == NODE_ITSELF {
            node.cluster = Some(cluster_id(state)?);
            continue;
        }
        let state = SavedState::from_bytes(state).map_err(|what| broken(tablet, &what))?;
        let flushed = tables.get(&tablet).map_or(Lsn::ZERO, |(rows, _)| rows.flushed());
        // Entries that tables have are not needed any more.
        let doubt = found.doubt.as_ref().filter(|doubt| doubt.upto > flushed).map(|doubt| doubt.why.clone());
        if let Some(why) = damaged.remove(&tablet).or(doubt) {
            tables.remove(&tablet);
            notes.push(format!("tablet {tablet} is lost here and is to be learned anew: {why}"));
            node.lost.insert(tablet, Lost::new(why, state.assignment.configuration.epoch));
            continue;
        }
        states.insert(tablet, (state, found));
    }
    let known: BTreeSet<TabletId> = states.keys().copied().collect();
    // That an heir was born shows that the entry by which its parent ended was committed.
    let mut ended: BTreeMap<TabletId, Lsn> = BTreeMap::new();
    ended.extend(states.values().filter_map(|(state, _)| state.origin).flat_map(Origin::parents));
    let replay = Replay { me, timing, now, reader: &reader, known: &known, ended: &ended };
    let mut alone = BTreeMap::new();
    let stands = |tablet: &TabletId, state: &SavedState| tables.contains_key(tablet) || state.origin.is_none();
    let standing: Vec<TabletId> =
        states.iter().filter(|(tablet, (state, _))| stands(tablet, state)).map(|(&tablet, _)| tablet).collect();
    for tablet in standing {
        let Some((state, found)) = states.get(&tablet) else { continue };
        alone.insert(tablet, (state.clone(), found.clone(), tables.remove(&tablet)));
    }
    let mut ready = replay.run_all(alone, crew);
    let mut born = BTreeMap::new();
    // Heirs have higher numbers, so whom they come from is there before them.
    for (tablet, (state, found)) in states {
        if let Some(merge) = state.origin.and_then(|origin| merge_of(&node, origin)) {
            if let (false, Some(left), Some(right)) =
                (ready.contains_key(&tablet), state.origin.map(|origin| origin.parent), node.hosted.get(&merge.right))
                && let Some(left) = node.hosted.get(&left)
                && right.rows.applied() == merge.upto
            {
                born.insert(tablet, left.join(left.rows.applied(), right, &merge));
            }
            node.end_joined(&merge);
        }
        let epoch = state.assignment.configuration.epoch;
        let (back, version) = match (ready.remove(&tablet), born.remove(&tablet)) {
            (Some(back), _) => (back?, None),
            (None, Some(heir)) => {
                let Hosted { rows, completions, .. } = heir;
                (replay.run(tablet, state, found, rows, completions)?, Some(heir.last_version))
            }
            (None, None) => {
                let why = "it was made out of a tablet that cannot be read or is not here any more".to_owned();
                notes.push(format!("tablet {tablet} is lost here and is to be learned anew: {why}"));
                node.lost.insert(tablet, Lost::new(why, epoch));
                continue;
            }
        };
        let Back { mut hosted, heirs, damage } = match back {
            Ok(back) => back,
            Err(why) => {
                notes.push(format!("tablet {tablet} is lost here and is to be learned anew: {why}"));
                node.lost.insert(tablet, Lost::new(why, epoch));
                continue;
            }
        };
        if let Some(damage) = damage {
            notes.push(format!("tablet {tablet}: {damage}"));
            hosted.damage = Some(damage);
        }
        hosted.saw_version(version.unwrap_or_default());
        born.extend(heirs.into_iter().map(|heir| (heir.id(), heir)));
        node.deadlines.note(tablet, hosted.replica.deadline());
        node.reporting.stir(tablet);
        node.tidying.stir(now, tablet);
        node.hosted.insert(tablet, hosted);
    }
    // Tables without a replica's state are what a crash left of a tablet that was dropped.
    let orphans = tables.into_keys().chain(damaged.into_keys());
    if recovered.forgot {
        // Or their state was in what the log has lost: then the master is heard first.
        node.dropping.extend(orphans);
    } else {
        for tablet in orphans {
            keeper.run(store::Job::Drop { tablet, date })?;
        }
    }
    // From now on the log says so too: what shows the damage may be trimmed.
    let lost = node.lost.iter().map(|(&tablet, lost)| lost.record(tablet)).collect::<Vec<_>>();
    if !lost.is_empty() {
        log.append(&lost)?;
        log.sync()?;
    }
    node.scrubbing.log = Some(reader.clone());
    node.forgot = recovered.forgot.then(|| now + node.options.timing.session);
    let hands = Hands { log, reader, keeper: Arc::new(keeper), notes };
    Ok((node, hands))
}

/// A tablet that is back.
struct Back {
    hosted: Hosted,
    /// If it has ended, and they are not on the disk: its heirs as they began.
    heirs: Vec<Hosted>,
    /// What of its tables is damaged.
    damage: Option<String>,
}

/// It, or why it is lost here.
type Tried = Result<Back, String>;

/// What the tablets have in common that are brought back.
struct Replay<'a> {
    me: NodeId,
    timing: protocol::Timing,
    now: Instant,
    reader: &'a LogReader,
    /// All tablets whose state was found.
    known: &'a BTreeSet<TabletId>,
    /// Tablets that have ended, for certain, and at which entry.
    ended: &'a BTreeMap<TabletId, Lsn>,
}

/// What is known of a tablet that needs no other, and its tables with their note.
type Standing = (SavedState, Found, Option<(store::Tablet, Bytes)>);

impl Replay<'_> {
    /// Brings back those that need no others: those that were led here first, and of these the ones written last.
    fn run_all(
        &self,
        tablets: BTreeMap<TabletId, Standing>,
        crew: &dyn Crew,
    ) -> BTreeMap<TabletId, Result<Tried, Error>> {
        let mut all: Vec<(TabletId, Standing)> = tablets.into_iter().collect();
        all.sort_by_cached_key(|(tablet, (state, ..))| {
            (state.assignment.configuration.primary != self.me, Reverse(self.reader.newest(*tablet)))
        });
        let mut done: Vec<(TabletId, Option<Result<Tried, Error>>)> =
            all.iter().map(|(tablet, _)| (*tablet, None)).collect();
        let parts = all.into_iter().zip(&mut done).map(|((tablet, (state, found, tables)), (_, into))| {
            Box::new(move || *into = Some(self.run_alone(tablet, state, found, tables))) as Part<'_>
        });
        crew.run(parts.collect());
        done.into_iter().map(|(tablet, back)| (tablet, back.expect("the crew does all parts"))).collect()
    }

    fn run_alone(
        &self,
        tablet: TabletId,
        state: SavedState,
        found: Found,
        tables: Option<(store::Tablet, Bytes)>,
    ) -> Result<Tried, Error> {
        let (rows, completions) = match tables {
            Some((rows, note)) => {
                let completions = Completions::from_bytes(&note);
                (rows, completions.ok_or_else(|| broken(tablet, "completion records make no sense"))?)
            }
            None => (store::Tablet::new(tablet), Completions::default()),
        };
        self.run(tablet, state, found, rows, completions)
    }

    fn run(
        &self,
        tablet: TabletId,
        state: SavedState,
        found: Found,
        rows: store::Tablet,
        completions: Completions,
    ) -> Result<Tried, Error> {
        // The last edit of a manifest may be damaged so that it looks torn: then the tables end before the log begins.
        let applied = rows.applied();
        if let Some(first) = found.first.filter(|first| *first > applied.next()) {
            return Ok(Err(format!("its tables end at {applied}, and the log begins at {first}")));
        }
        let ended = self.ended.get(&tablet).copied();
        let recovering = Recovering { tablet, me: self.me, state, found, known: self.known, ended };
        let damage = rows.view().damage().map(|damage| damage.to_string());
        let (hosted, heirs) = recovering.run(self.timing.clone(), self.now, self.reader, rows, completions)?;
        Ok(Ok(Back { hosted, heirs, damage }))
    }
}

struct Recovering<'a> {
    tablet: TabletId,
    me: NodeId,
    state: SavedState,
    found: Found,
    /// All tablets whose state was found.
    known: &'a BTreeSet<TabletId>,
    /// The tablet has ended at this entry, for certain.
    ended: Option<Lsn>,
}

impl Recovering<'_> {
    /// Applies what is known to be committed; the rest is the replica's tail. If the tablet has ended, its heirs as they
    /// began come along.
    fn run(
        self,
        timing: protocol::Timing,
        now: Instant,
        reader: &LogReader,
        rows: store::Tablet,
        completions: Completions,
    ) -> Result<(Hosted, Vec<Hosted>), Error> {
        let (tablet, base) = (self.tablet, rows.applied());
        let known = self.found.committed.max(base).max(self.ended.unwrap_or(base));
        let mut committed = known.min(self.found.last.max(base));
        let blank = Replica::new(tablet, self.me, timing.clone());
        let mut hosted = Hosted::with(&self.state.assignment, blank, rows, completions);
        hosted.origin = self.state.origin;
        let mut heirs = Vec::new();
        for entry in Entries::after(reader, tablet, base, committed) {
            let entry = entry?;
            let lsn = entry.lsn;
            // If a crash came before all heirs were on the disk, it stays in the tail, and they are born again when it is
            // committed again.
            match last_of(&entry) {
                Some(Payload::Split(split)) if !self.knows(&[split.left, split.right]) => {
                    heirs = hosted.bear(lsn, &split);
                    committed = lsn.prev();
                    break;
                }
                Some(Payload::Merge(merge)) if !self.knows(&[merge.heir]) => {
                    committed = lsn.prev();
                    break;
                }
                _ => {}
            }
            match hosted.apply(entry, None) {
                Some(Applied::Split(born)) => heirs = born,
                Some(Applied::Broken(what)) => return Err(broken(tablet, &what)),
                // Nobody waits for the sums of a former life.
                Some(
                    Applied::Row(..) | Applied::Batch(..) | Applied::Digest(_) | Applied::Merge(_) | Applied::Closed(_),
                )
                | None => {}
            }
        }
        let tail: Vec<Entry> = Entries::after(reader, tablet, committed, self.found.last).collect::<Result<_, _>>()?;
        for entry in &tail {
            let Ok(Payload::Write(Command { version, .. }) | Payload::Batch(Batch { version, .. })) =
                postcard::from_bytes(&entry.payload)
            else {
                continue;
            };
            hosted.saw_version(version);
        }
        let (configuration, abandoned) = (self.state.assignment.configuration, self.state.abandoned);
        hosted.replica = Replica::recover(tablet, self.me, timing, now, configuration, abandoned, committed, tail);
        Ok((hosted, heirs))
    }

    fn knows(&self, heirs: &[TabletId]) -> bool {
        heirs.iter().all(|heir| self.known.contains(heir))
    }
}

/// What an entry says that is no write.
fn last_of(entry: &Entry) -> Option<Payload> {
    if entry.payload.is_empty() || Payload::is_write(&entry.payload) {
        return None;
    }
    postcard::from_bytes(&entry.payload).ok()
}

/// The merge by which a tablet of this origin was made, if its left parent is still here.
fn merge_of(node: &Node, origin: Origin) -> Option<Merge> {
    let left = node.hosted.get(&origin.parent).filter(|_| origin.other.is_some())?;
    left.ending.merge().cloned()
}

/// Entries of a tablet out of the log, read a batch at a time.
struct Entries<'a> {
    reader: &'a LogReader,
    tablet: TabletId,
    next: Lsn,
    last: Lsn,
    batch: std::vec::IntoIter<store::log::Record>,
}

impl<'a> Entries<'a> {
    /// Those after `before`, up to `last`.
    fn after(reader: &'a LogReader, tablet: TabletId, before: Lsn, last: Lsn) -> Entries<'a> {
        Entries { reader, tablet, next: before.next(), last, batch: Vec::new().into_iter() }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next > self.last {
            return None;
        }
        if self.batch.len() == 0 {
            match self.reader.read(self.tablet, self.next, BATCH_BYTES) {
                Ok(records) => self.batch = records.into_iter(),
                Err(error) => {
                    self.next = self.last.next();
                    return Some(Err(error));
                }
            }
        }
        let record = self.batch.next()?;
        debug_assert!(matches!(record.kind, Kind::Command | Kind::NoOp));
        self.next = record.lsn.next();
        Some(Ok(Entry { lsn: record.lsn, epoch: record.epoch, payload: record.body }))
    }
}

fn cluster_id(state: &[u8]) -> Result<ClusterId, Error> {
    let bytes: [u8; 8] = state.try_into().map_err(|_| broken(NODE_ITSELF, "the cluster id has no 8 bytes"))?;
    Ok(ClusterId(u64::from_le_bytes(bytes)))
}

fn broken(tablet: TabletId, what: &str) -> Error {
    Error::Corrupt { file: format!("log (state of tablet {tablet})"), offset: 0, what: what.to_owned() }
}
