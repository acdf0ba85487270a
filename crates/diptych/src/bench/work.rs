//! Which operation comes next, on which row: pure, from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;
use model::random::Random;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Writes of random rows, each a call
    Put,
    /// Reads of random rows, each a call
    Get,
    /// Writes of random rows over the pipelined stream
    PutPipelined,
    /// Reads of random rows over the pipelined stream
    GetPipelined,
    /// Writes of new rows in key order, --batch rows at once
    Load,
    /// Update heavy: half reads, half updates; some rows are hot
    YcsbA,
    /// Read mostly: 95 % reads, 5 % updates; some rows are hot
    YcsbB,
    /// Read only; some rows are hot
    YcsbC,
    /// Read latest: 95 % reads, 5 % inserts; the newest rows are hot
    YcsbD,
    /// Short ranges: 95 % scans of up to 100 rows, 5 % inserts
    YcsbE,
    /// Half reads, half read-modify-writes; some rows are hot
    YcsbF,
}

/// An operation on the row of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Read(u64),
    Update(u64),
    Insert(u64),
    ReadModifyWrite(u64),
    /// So many rows from there.
    Scan(u64, u64),
    /// So many new rows, the first with this number.
    Load(u64, u64),
}

impl Step {
    /// The name in the report.
    pub fn kind(&self) -> &'static str {
        match self {
            Step::Read(_) => "read",
            Step::Update(_) => "update",
            Step::Insert(_) => "insert",
            Step::ReadModifyWrite(_) => "read-modify-write",
            Step::Scan(..) => "scan",
            Step::Load(..) => "load",
        }
    }

    /// Does it need a value?
    pub fn writes(&self) -> bool {
        !matches!(self, Step::Read(_) | Step::Scan(..) | Step::Load(..))
    }

    /// As how many operations it counts.
    pub fn count(&self) -> u64 {
        if let Step::Load(_, rows) = self { *rows } else { 1 }
    }
}

impl Work {
    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }

    /// Must the rows be there before it begins?
    pub fn needs_rows(self) -> bool {
        !matches!(self, Work::Put | Work::PutPipelined | Work::Load)
    }

    /// Does it use the stream instead of calls?
    pub fn is_pipelined(self) -> bool {
        matches!(self, Work::PutPipelined | Work::GetPipelined)
    }

    /// How many operations one step is at most.
    pub fn step(self, batch: u64) -> u64 {
        if self == Work::Load { batch } else { 1 }
    }

    /// The next one, of so many operations. `rows` counts the rows; an insert adds one.
    pub fn draw(self, operations: u64, chooser: &Chooser, rows: &AtomicU64, random: &mut Random) -> Step {
        let uniform = |random: &mut Random| random.below(chooser.records());
        let insert = || Step::Insert(rows.fetch_add(1, Ordering::Relaxed));
        match self {
            Work::Put | Work::PutPipelined => Step::Update(uniform(random)),
            Work::Load => Step::Load(rows.fetch_add(operations, Ordering::Relaxed), operations),
            Work::Get | Work::GetPipelined => Step::Read(uniform(random)),
            Work::YcsbA if random.chance(50) => Step::Update(chooser.hot(random)),
            Work::YcsbB if random.chance(5) => Step::Update(chooser.hot(random)),
            Work::YcsbD if random.chance(5) => insert(),
            Work::YcsbE if random.chance(5) => insert(),
            Work::YcsbF if random.chance(50) => Step::ReadModifyWrite(chooser.hot(random)),
            Work::YcsbA | Work::YcsbB | Work::YcsbC | Work::YcsbF => Step::Read(chooser.hot(random)),
            Work::YcsbD => Step::Read(chooser.latest(rows.load(Ordering::Relaxed), random)),
            Work::YcsbE => Step::Scan(chooser.hot(random), 1 + random.below(100)),
        }
    }
}

/// Chooses rows as Zipf's law has it: the n-th most popular with a chance of 1/n^0.99 (Gray et al., "Quickly
/// generating billion-record synthetic databases", 1994; the constant is YCSB's).
pub struct Chooser {
    records: u64,
    zeta: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Chooser {
    /// Among so many rows, at least 1.
    pub fn new(records: u64) -> Chooser {
        let records = records.max(1);
        let sum = |n: u64| (1..=n).map(|rank| (rank as f64).powf(-THETA)).sum::<f64>();
        let (zeta, zeta_of_two) = (sum(records), sum(2));
        let eta = (1.0 - (2.0 / records as f64).powf(1.0 - THETA)) / (1.0 - zeta_of_two / zeta);
        Chooser { records, zeta, eta }
    }

    /// How many rows there were at the start.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How popular: 0 is the most popular.
    fn rank(&self, random: &mut Random) -> u64 {
        let u = (random.draw() >> 11) as f64 / (1_u64 << 53) as f64;
        let scaled = u * self.zeta;
        if scaled < 1.0 || self.records == 1 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let rank = self.records as f64 * (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        (rank as u64).min(self.records - 1)
    }

    /// A row; the popular ones are spread over all.
    pub fn hot(&self, random: &mut Random) -> u64 {
        scatter(self.rank(random)) % self.records
    }

    /// A row; the last of `rows` is the most popular.
    pub fn latest(&self, rows: u64, random: &mut Random) -> u64 {
        rows.saturating_sub(1 + self.rank(random))
    }
}

/// Spreads numbers so that neighbours are far apart; the same number always lands at the same place, two never at
/// one (the finaliser of MurmurHash3).
pub fn scatter(number: u64) -> u64 {
    let mut hash = number.wrapping_add(1);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 7;

    fn shares(work: Work) -> std::collections::BTreeMap<&'static str, u64> {
        let (chooser, rows, mut random) = (Chooser::new(1000), AtomicU64::new(1000), Random::new(SEED));
        let mut shares = std::collections::BTreeMap::new();
        for _ in 0..10_000 {
            let step = work.draw(work.step(10), &chooser, &rows, &mut random);
            let (Step::Read(row)
            | Step::Update(row)
            | Step::Insert(row)
            | Step::ReadModifyWrite(row)
            | Step::Load(row, _)
            | Step::Scan(row, _)) = step;
            assert!(row < rows.load(Ordering::Relaxed), "seed {SEED}: {step:?}");
            *shares.entry(step.kind()).or_default() += 1;
        }
        shares
    }

    /// YCSB (2010), table 2.
    #[test]
    fn the_mixes_are_those_of_the_paper() {
        let near = |found: Option<&u64>, percent: u64| found.is_some_and(|found| found.abs_diff(percent * 100) < 250);
        for (work, kind, percent) in [
            (Work::YcsbA, "update", 50),
            (Work::YcsbB, "read", 95),
            (Work::YcsbC, "read", 100),
            (Work::YcsbD, "insert", 5),
            (Work::YcsbE, "scan", 95),
            (Work::YcsbF, "read-modify-write", 50),
            (Work::Put, "update", 100),
            (Work::GetPipelined, "read", 100),
            (Work::Load, "load", 100),
        ] {
            let shares = shares(work);
            assert!(near(shares.get(kind), percent), "seed {SEED}: {work:?} {shares:?}");
        }
    }

    /// With 1000 rows and theta 0.99 the most popular has about 1/7.7 of all.
    #[test]
    fn some_rows_are_hot() {
        let (chooser, mut random) = (Chooser::new(1000), Random::new(SEED));
        let mut counts = vec![0_u32; 1000];
        for _ in 0..100_000 {
            counts[chooser.rank(&mut random) as usize] += 1;
        }
        assert!((11_000..15_000).contains(&counts[0]), "seed {SEED}: {}", counts[0]);
        assert!(counts[0] > counts[1] && counts[1] > counts[9] && counts[9] > counts[500], "seed {SEED}");
        assert!((0..100).all(|_| Chooser::new(1).hot(&mut random) == 0));
        assert!((0..1000).all(|_| Chooser::new(2).hot(&mut random) < 2));
    }

    #[test]
    fn keys_do_not_collide() {
        let keys: std::collections::BTreeSet<u64> = (0..100_000).map(scatter).collect();
        assert_eq!(keys.len(), 100_000);
    }
}
