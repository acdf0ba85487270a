//! The log against a model, with crashes in between and in the middle of every operation.

use std::collections::BTreeSet;

use model::random::Random;

use super::*;

/// The log against a model, with crashes in between and in the middle of every operation: what was synced is there,
/// and what is there is a prefix of what was appended.
#[test]
fn crashes_leave_a_prefix_with_all_that_was_synced() {
    let mut repairs = BTreeSet::new();
    // More when asked for: SEEDS=60000 takes a minute.
    let seeds = std::env::var("SEEDS").map_or(400, |count| count.parse().unwrap());
    for seed in 0..seeds {
        history(seed, &mut repairs);
    }
    let expected = ["cut", "removed", "kept", "switched"];
    assert!(expected.iter().all(|kind| repairs.contains(*kind)), "{repairs:?}");
}

/// Reads with threads, and alone: it is the same.
fn compare_crews(disk: &MemDisk) {
    if !disk.exists("log").unwrap() || recovery::open_segments(disk, "log").is_err() {
        return;
    }
    let read = |crew: &dyn Crew| {
        let replay = recovery::replay(&recovery::open_segments(disk, "log").unwrap(), crew).unwrap();
        (replay.index.found(), replay.chains, replay.holes, replay.begun, replay.end, replay.records)
    };
    assert_eq!(read(&Alone), read(&Threads));
}

struct Threads;

impl Crew for Threads {
    fn width(&self) -> usize {
        3
    }

    fn run<'a>(&self, parts: Vec<Part<'a>>) {
        std::thread::scope(|scope| {
            parts.into_iter().for_each(|part| _ = scope.spawn(part));
        });
    }
}

fn history(seed: u64, repairs: &mut BTreeSet<String>) {
    let mut random = Random::new(seed);
    let disk = MemDisk::new();
    let mut records: Vec<Record> = Vec::new();
    let mut floors = BTreeMap::new();
    let mut synced = 0;
    let mut epoch = 1;
    for life in 0..8 {
        compare_crews(&disk);
        let (mut log, recovered) = try_open(&disk).unwrap_or_else(|error| panic!("seed {seed} life {life}: {error}"));
        repairs.extend(recovered.notes.iter().map(|note| note.split(' ').next().unwrap().to_owned()));
        let found = Model::matching(&records, &log, &recovered, &floors);
        let found =
            found.unwrap_or_else(|| panic!("seed {seed} life {life}: no prefix of {records:#?}\n{recovered:#?}"));
        assert!(found >= synced, "seed {seed} life {life}: {synced} synced, {found} there");
        records.truncate(found);
        // Between opening and the first crash nothing that was found may vanish.
        synced = found;
        epoch += 1;
        if random.chance(70) {
            disk.power_fails_after(random.below(40));
        }
        // A sync that is under way, and what it covers; nothing, if its file has been left.
        let mut syncing: Option<(Syncing, usize)> = None;
        for _ in 0..random.between(1, 60) {
            let going = match random.below(14) {
                0..5 => {
                    let mut model = Model::of(&records);
                    let mut batch = Vec::new();
                    for _ in 0..random.between(1, 5) {
                        batch.push(model.invent(&mut random, epoch, &floors));
                        model.apply(batch.last().unwrap());
                    }
                    let done = log.append(&batch);
                    records.extend(batch);
                    done.is_ok()
                }
                5..8 => {
                    let done = log.sync().is_ok();
                    synced = if done { records.len() } else { synced };
                    done
                }
                8 | 9 => log.reserve().is_ok(),
                10 => {
                    syncing = log.begin_sync().map(|syncing| (syncing, records.len())).or(syncing);
                    true
                }
                11 => match syncing.take() {
                    Some((ended, covered)) => {
                        let result = ended.run();
                        let done = log.synced(&ended, result).is_ok();
                        synced = if done { synced.max(covered) } else { synced };
                        done
                    }
                    None => true,
                },
                12 => match log.switch() {
                    Ok(true) => {
                        repairs.insert("switched".to_owned());
                        syncing = syncing.map(|(ended, _)| (ended, 0));
                        true
                    }
                    other => other.is_ok(),
                },
                _ => {
                    for (tablet, kept) in &Model::of(&records[..synced]).0 {
                        let floor: &mut Lsn = floors.entry(*tablet).or_default();
                        *floor = (*floor).max(Lsn(random.below(kept.last.0 + 1)));
                    }
                    let done = log.trim(&floors).is_ok();
                    let is_old = |name: &String| name.starts_with("old-");
                    if disk.list("log").is_ok_and(|names| names.iter().any(is_old)) {
                        repairs.insert("kept".to_owned());
                    }
                    done
                }
            };
            if !going {
                break;
            }
        }
        drop(log);
        if random.chance(80) {
            disk.crash(random.draw())
        } else {
            disk.kill()
        }
        // Power may fail during recovery as well.
        if random.chance(50) {
            disk.power_fails_after(random.below(8));
            let _ = try_open(&disk);
            disk.crash(random.draw());
        }
    }
}

/// What the records mean, said once more and simply.
#[derive(Default, PartialEq)]
pub(super) struct Model(BTreeMap<TabletId, Kept>);

#[derive(Default, PartialEq)]
struct Kept {
    state: Option<Bytes>,
    committed: Lsn,
    last: Lsn,
    entries: BTreeMap<Lsn, Record>,
}

impl Model {
    pub(super) fn of(records: &[Record]) -> Model {
        let mut model = Model::default();
        records.iter().for_each(|record| model.apply(record));
        model
    }

    pub(super) fn apply(&mut self, record: &Record) {
        let kept = self.0.entry(record.tablet).or_default();
        kept.committed = kept.committed.max(record.committed);
        match record.kind {
            Kind::Command | Kind::NoOp => {
                if record.lsn > kept.last.next() {
                    kept.entries.clear();
                }
                kept.entries.split_off(&record.lsn);
                kept.entries.insert(record.lsn, record.clone());
                kept.last = record.lsn;
            }
            Kind::State => kept.state = Some(record.body.clone()),
            Kind::Cut => {
                kept.entries.split_off(&record.lsn.next());
                kept.last = if kept.last == Lsn::ZERO { record.lsn } else { kept.last.min(record.lsn) };
            }
            Kind::Dropped => {
                self.0.remove(&record.tablet);
            }
            Kind::Lost | Kind::Mark => unreachable!("no history has them"),
        }
    }

    /// What is not in doubt is as it was after all records, and only entries are in doubt of what has a state.
    pub(super) fn is_all_but_doubts(&self, log: &Log, recovered: &Recovered) -> Result<(), String> {
        for (tablet, kept) in &self.0 {
            let Some(found) = recovered.tablets.get(tablet) else {
                return if recovered.forgot { Ok(()) } else { Err(format!("{tablet} is forgotten")) };
            };
            let upto = found.doubt.as_ref().map_or(Lsn::ZERO, |doubt| doubt.upto);
            if upto == Doubt::ALL {
                continue;
            }
            let held: Vec<Record> = match found.first {
                None => Vec::new(),
                Some(first) => log.reader().read(*tablet, first, 1 << 20).unwrap(),
            };
            let held = held.iter().filter(|record| record.lsn > upto);
            let same = found.state == kept.state
                && found.committed == kept.committed
                && found.last == kept.last
                && kept.entries.range(upto.next()..).map(|(_, record)| record).eq(held);
            if !same {
                return Err(format!("{tablet} is {found:?} without a doubt"));
            }
        }
        let more =
            recovered.tablets.iter().find(|(tablet, found)| !self.0.contains_key(tablet) && found.doubt.is_none());
        more.map_or(Ok(()), |(tablet, _)| Err(format!("{tablet} was dropped and is back")))
    }

    /// The highest number of records after which the model is what the log is now.
    pub(super) fn matching(
        records: &[Record],
        log: &Log,
        recovered: &Recovered,
        floors: &BTreeMap<TabletId, Lsn>,
    ) -> Option<usize> {
        (0..=records.len()).rev().find(|count| Model::of(&records[..*count]).is(log, recovered, floors))
    }

    pub(super) fn is(&self, log: &Log, recovered: &Recovered, floors: &BTreeMap<TabletId, Lsn>) -> bool {
        self.0.keys().eq(recovered.tablets.keys())
            && self.0.iter().all(|(tablet, kept)| {
                let found = &recovered.tablets[tablet];
                let floor = floors.get(tablet).copied().unwrap_or_default();
                let needed = kept.entries.keys().find(|lsn| **lsn > floor).copied();
                let held: Vec<Record> = match found.first {
                    None => Vec::new(),
                    Some(first) => log.reader().read(*tablet, first, 1 << 20).unwrap(),
                };
                let first = found.first.unwrap_or(Lsn(u64::MAX));
                found.state == kept.state
                    && found.committed == kept.committed
                    && found.last == kept.last
                    && needed.is_none_or(|needed| first <= needed)
                    && kept.entries.range(first..).map(|(_, record)| record).eq(&held)
            })
    }

    /// Something that a node might append.
    pub(super) fn invent(&self, random: &mut Random, epoch: u32, floors: &BTreeMap<TabletId, Lsn>) -> Record {
        let tablet = TabletId(random.between(1, 4));
        let last = self.0.get(&tablet).map_or(Lsn::ZERO, |kept| kept.last);
        let floor = floors.get(&tablet).copied().unwrap_or_default().min(last);
        let body = format!("{:x}{}", random.draw(), "-".repeat(random.below(150) as usize));
        match random.below(20) {
            0 => record(tablet, random.between(floor.0, last.0 + 1), epoch, Kind::Cut, ""),
            1 => record(tablet, random.between(floor.0 + 1, last.0 + 2), epoch, Kind::NoOp, ""),
            2 => entry(tablet, random.between(floor.0 + 1, last.0 + 2), epoch, &body),
            3 if random.chance(30) => entry(tablet, last.0 + random.between(2, 9), epoch, &body),
            3 if random.chance(30) => record(tablet, 0, epoch, Kind::Dropped, ""),
            4..8 => state(tablet, &body),
            _ => entry(tablet, last.0 + 1, epoch, &body),
        }
    }
}
