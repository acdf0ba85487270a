//! Files, and measuring.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{ArgAction, Args, ValueEnum};

use super::rows::Consistent;
use crate::bench::Work;
use crate::cli::parse;

/// How a file holds rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Values with commas between them, a line with the columns' names first
    Csv,
    /// The same with tabs
    Tsv,
    /// A JSON object a line
    Ndjson,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnDuplicate {
    /// The last one wins, and you are told how many there were
    Last,
    /// Stop
    Error,
}

#[derive(Clone, Debug, Args)]
pub struct Import {
    /// The table
    #[arg(value_parser = parse::table)]
    pub table: String,
    /// The file; - is stdin
    pub file: PathBuf,
    /// The column or field with the row key; NDJSON as `export` writes it needs none
    #[arg(long, value_name = "COLUMN")]
    pub key: Option<String>,
    /// The family of columns whose names have none
    #[arg(long, value_parser = parse::family, value_name = "NAME")]
    pub family: Option<String>,
    /// By the file's name: .csv, .tsv, .ndjson, .jsonl
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// When a row key comes twice
    #[arg(long, value_enum, default_value_t = OnDuplicate::Last, value_name = "WHAT")]
    pub on_duplicate: OnDuplicate,
    /// The version, in microseconds since 1970; the primary's time
    #[arg(long, value_name = "MICROS", value_parser = clap::value_parser!(i64).range(0..))]
    pub timestamp: Option<i64>,
    /// Begin at the first row even if an import of this file was interrupted
    #[arg(long)]
    pub no_resume: bool,
    /// Rows under way at a time
    #[arg(long, default_value_t = 65536, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub window: u32,
}

#[derive(Clone, Debug, Args)]
pub struct Export {
    /// The table
    #[arg(value_parser = parse::table)]
    pub table: String,
    /// The file; - is stdout. It is written as FILE.part until it is complete
    pub file: PathBuf,
    /// By the file's name: .csv, .tsv, .ndjson, .jsonl
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Only rows whose keys begin like this
    #[arg(long, value_parser = parse::key_part, value_name = "KEY")]
    pub prefix: Option<Bytes>,
    /// Only this family
    #[arg(long, value_parser = parse::family, value_name = "NAME")]
    pub family: Vec<String>,
    /// Versions of each column; NDJSON only
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub versions: u32,
    /// Name of the CSV column with the row key
    #[arg(long, default_value = "row", value_name = "COLUMN")]
    pub key: String,
    /// Go on with a FILE.part that was interrupted
    #[arg(long)]
    pub resume: bool,
    /// Replace FILE if it is there
    #[arg(long, action = ArgAction::SetTrue)]
    pub overwrite: bool,
}

#[derive(Clone, Debug, Args)]
pub struct Bench {
    /// What to do
    #[arg(value_enum)]
    pub work: Work,
    /// Clients, each with one operation under way (or --depth, if pipelined)
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub clients: u32,
    /// Operations that each client has under way over the pipelined stream
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub depth: u32,
    /// Rows that are written at once in a load
    #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub batch: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub value_bytes: u32,
    /// Rows to begin with, and to choose from
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub records: u64,
    /// How long
    #[arg(long, default_value = "10s", value_parser = parse::duration, value_name = "DURATION")]
    pub duration: Duration,
    /// How many operations, if that comes first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub operations: Option<u64>,
    /// Replicas of the table; the cluster's default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub replicas: Option<u8>,
    /// Tablets of the table
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub tablets: u32,
    /// Use this table, and make it if it is not there
    #[arg(long, value_parser = parse::table, value_name = "NAME")]
    pub table: Option<String>,
    /// Do not drop the table at the end
    #[arg(long)]
    pub keep: bool,
    /// How new reads must be
    #[command(flatten)]
    pub consistent: Consistent,
    /// Seed of the choice of rows and values
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}
