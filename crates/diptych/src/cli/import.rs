//! `import`: the rows of a file into a table, in batches, many of them under way at once.
//!
//! Rows may arrive in any order, except that a row whose key is under way goes with it or waits for it: the last one wins. Every second
//! the position up to which all rows are in is kept beside the file; the same command goes on there. Writing a row
//! again does no harm, so the position may lag.

mod source;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Batches, BlockId, Client, PendingRow};
use indicatif::{ProgressBar, ProgressStyle};
use model::{AdminReply, AdminRequest, Mutation, RowChanges, Schema, limits};
use serde_json::json;

use self::source::{Input, Source};
use super::args::{Import, OnDuplicate};
use super::file::{self, Identity, Progress};
use super::{Failure, Output, show};

/// Batches that are under way.
const BATCHES: usize = 16;
/// After so many rows it is looked what has become of those before.
const LOOK_EVERY: u64 = 64;
/// How often the position is kept.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Keys that are remembered to find duplicates: 8 bytes and some each.
const REMEMBERED: usize = 8 << 20;

pub async fn run(client: &Client, args: &Import, out: &mut Output) -> Result<(), Failure> {
    let input = Input::open(&args.file)?;
    let format = file::format(&args.file, args.format)?;
    let schema = client.table(&args.table).await?;
    let source = Source::new(input, format, args, &schema)?;
    let mut load = Load::begin(client, args, &schema, source).await?;
    let begun = Instant::now();
    let result = load.all().await;
    load.bar.finish_and_clear();
    // What is under way is waited for, also after a failure, so that the count is true.
    let result = match load.settle_all().await {
        Ok(()) => result,
        Err(failure) => Err(failure),
    };
    let (rows, seconds) = (load.rows, begun.elapsed().as_secs_f64());
    if let Err(failure) = result {
        load.keep();
        let message = format!("{}; {} in table {}", failure.message, show::rows_are(rows), args.table);
        return Err(Failure { message, ..failure });
    }
    if load.import.is_some() {
        Progress::remove(&args.file);
    }
    load.warn();
    let written = rows - load.resumed;
    let text = format!(
        "{} in table {} in {seconds:.1} s ({} rows/s)",
        show::rows(rows),
        args.table,
        show::count((written as f64 / seconds.max(1e-3)) as u64)
    );
    let json = json!({
        "table": args.table,
        "rows": rows,
        "resumed_after": load.resumed,
        "duplicates": load.duplicates,
        "empty": load.empty,
        "seconds": seconds,
    });
    Ok(out.say(json, text)?)
}

/// A row that is under way.
struct Flight {
    pending: PendingRow,
    /// Where the next row begins.
    end: u64,
    line: u64,
    key: u64,
}

struct Load<'a> {
    args: &'a Import,
    families: Vec<String>,
    have: String,
    source: Source,
    batches: Batches,
    /// What the position is kept for; `None` if it is not, as for stdin.
    import: Option<Identity>,
    /// Rows before this byte are in already.
    skip: u64,
    resumed: u64,
    flights: VecDeque<Flight>,
    /// Keys that are under way, each with what it went with last.
    under_way: HashMap<u64, BlockId>,
    seen: HashSet<u64>,
    duplicates: u64,
    empty: u64,
    /// Rows of the file that were given to be written, and those that are in the table.
    taken: u64,
    rows: u64,
    /// All rows before this byte are in: so many.
    complete: (u64, u64),
    /// Has a row failed? Then `complete` stays before it.
    failed: bool,
    kept: Instant,
    bar: ProgressBar,
}

impl<'a> Load<'a> {
    async fn begin(client: &Client, args: &'a Import, schema: &Schema, source: Source) -> Result<Load<'a>, Failure> {
        let resumable = !file::is_standard(&args.file);
        let import = match resumable {
            true => Some(identity(client, args, schema).await?),
            false => None,
        };
        let mut load = Load {
            args,
            families: schema.families.iter().map(|family| family.name.clone()).collect(),
            have: schema.family_names(),
            bar: bar(source.size()),
            source,
            batches: client.batches(&Arc::from(args.table.as_str()), BATCHES),
            import,
            skip: 0,
            resumed: 0,
            flights: VecDeque::new(),
            under_way: HashMap::new(),
            seen: HashSet::new(),
            duplicates: 0,
            empty: 0,
            taken: 0,
            rows: 0,
            complete: (0, 0),
            failed: false,
            kept: Instant::now(),
        };
        if !args.no_resume {
            load.resume();
        }
        Ok(load)
    }

    fn resume(&mut self) {
        let Some(import) = &self.import else { return };
        match Progress::read(&self.args.file) {
            Some(progress) if progress.import == *import => {
                eprintln!("resuming {}: {} in already", self.args.file.display(), show::rows_are(progress.rows));
                (self.skip, self.resumed) = (progress.offset, progress.rows);
                (self.rows, self.complete) = (progress.rows, (progress.offset, progress.rows));
            }
            Some(_) => eprintln!("the interrupted import was another one (file, table or flags): beginning anew"),
            None => {}
        }
    }

    async fn all(&mut self) -> Result<(), Failure> {
        while let Some(row) = self.source.next()? {
            let key = hash(&row.mutation.row);
            let again = self.is_again(key);
            if again {
                self.duplicates += 1;
                if self.args.on_duplicate == OnDuplicate::Error {
                    let why = format!("the key {} comes a second time", show::printable(&row.mutation.row));
                    return Err(self.at(row.line, why).hint("--on-duplicate last lets the last one win"));
                }
            }
            if row.mutation.changes.is_empty() {
                self.empty += 1;
                continue;
            }
            if row.end <= self.skip {
                continue;
            }
            limits::check_mutation(&row.mutation)
                .map_err(|why| self.at(row.line, why).hint("`diptych limits` shows them all"))?;
            self.check_families(&row.mutation, row.line)?;
            while self.flights.len() >= self.args.window as usize {
                self.settle_one().await?;
            }
            let Mutation { row: name, changes, .. } = row.mutation;
            let mut changed = RowChanges { row: name, changes };
            let pending = loop {
                match self.batches.put(changed, self.under_way.get(&key).copied()).await {
                    Ok(pending) => break pending,
                    Err(back) => changed = back,
                }
                self.settle_one().await?;
            };
            self.under_way.insert(key, pending.block());
            self.flights.push_back(Flight { pending, end: row.end, line: row.line, key });
            self.taken += 1;
            if self.taken.is_multiple_of(LOOK_EVERY) {
                while self.flights.front().is_some_and(|flight| flight.pending.is_settled()) {
                    self.settle_one().await?;
                }
                if self.kept.elapsed() >= KEEP_EVERY {
                    self.keep();
                }
            }
        }
        Ok(())
    }

    fn at(&self, line: u64, why: String) -> Failure {
        Failure::failed(self.source.at(line, &why))
    }

    /// Has the key come before? Beyond the memory for keys the answer is no; order is kept all the same.
    fn is_again(&mut self, key: u64) -> bool {
        if self.seen.len() >= REMEMBERED { self.seen.contains(&key) } else { !self.seen.insert(key) }
    }

    fn check_families(&self, mutation: &Mutation<String>, line: u64) -> Result<(), Failure> {
        for change in &mutation.changes {
            if let model::Change::Put { family, .. } = change
                && !self.families.contains(family)
            {
                let why = format!("no family {family:?}; the table has: {}", self.have);
                let hint = format!("diptych table alter {} --family {family}", self.args.table);
                return Err(Failure::not_found(self.source.at(line, &why)).hint(hint));
            }
        }
        Ok(())
    }

    async fn settle_all(&mut self) -> Result<(), Failure> {
        let mut first = Ok(());
        while !self.flights.is_empty() {
            first = first.and(self.settle_one().await);
        }
        first
    }

    /// Waits for the oldest row. After a failure the position stays before it.
    async fn settle_one(&mut self) -> Result<(), Failure> {
        let Some(flight) = self.flights.pop_front() else { return Ok(()) };
        let block = flight.pending.block();
        let written = self.batches.written(flight.pending).await;
        if self.under_way.get(&flight.key) == Some(&block) {
            self.under_way.remove(&flight.key);
        }
        let at = |failure: Failure| Failure { message: self.source.at(flight.line, &failure.message), ..failure };
        if let Err(error) = written {
            self.failed = true;
            let hint = if self.import.is_some() { "run the same command again: it goes on here" } else { "" };
            let failure = Failure::from(error);
            return Err(at(if failure.hint.is_empty() { failure.hint(hint) } else { failure }));
        }
        self.rows += 1;
        if !self.failed {
            self.complete = (flight.end, self.complete.1 + 1);
            self.bar.set_position(flight.end);
            self.bar.set_message(show::rows(self.rows));
        }
        Ok(())
    }

    fn keep(&mut self) {
        self.kept = Instant::now();
        let Some(import) = &self.import else { return };
        let (offset, rows) = self.complete;
        let progress = Progress { import: import.clone(), offset, rows };
        if let Err(error) = progress.write(&self.args.file) {
            self.import = None;
            self.say(&format!(
                "warning: cannot write {} ({}): if this import is interrupted, the next one begins anew",
                Progress::path(&self.args.file).display(),
                super::failure::reason(&error)
            ));
        }
    }

    fn warn(&self) {
        if self.duplicates > 0 {
            self.say(&format!(
                "warning: {} with a key that came before; the last one won",
                show::rows(self.duplicates)
            ));
        }
        if self.empty > 0 {
            self.say(&format!("warning: {} with a key and no value were left out", show::rows(self.empty)));
        }
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}

async fn identity(client: &Client, args: &Import, schema: &Schema) -> Result<Identity, Failure> {
    let AdminReply::Status(status) = client.admin(AdminRequest::Status).await? else {
        return Err(Failure::failed("unexpected answer to a question for the status"));
    };
    let of_file = Identity::of_file(&args.file).map_err(|error| Failure::file("read", &args.file, &error))?;
    Ok(Identity {
        cluster: status.cluster.to_string(),
        table: schema.table.0,
        key: args.key.clone(),
        family: args.family.clone(),
        timestamp: args.timestamp,
        ..of_file
    })
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// On a terminal only; elsewhere it draws nothing.
fn bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{bar:30} {bytes}/{total_bytes}  {msg}  {eta} to go"),
        None => (ProgressBar::no_length(), "{spinner} {bytes}  {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is ours"))
}

/// How a path is called in messages.
fn name(path: &Path) -> String {
    if file::is_standard(path) { String::from("stdin") } else { path.display().to_string() }
}
