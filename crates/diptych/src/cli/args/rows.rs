//! Rows, and what happens to them.

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};

use crate::cli::changes::From;
use crate::cli::parse::{self, Assignment, Column};

/// The row that a command is about.
#[derive(Clone, Debug, Args)]
pub struct RowName {
    /// The table
    #[arg(value_parser = parse::table)]
    pub table: String,
    /// The row key; \xNN is the byte NN
    #[arg(value_parser = parse::row_key)]
    pub row: Bytes,
}

#[derive(Debug, Args)]
pub struct Put {
    #[command(flatten)]
    pub at: RowName,
    /// family:qualifier=value
    #[arg(required = true, value_parser = parse::assignment, value_name = "COLUMN=VALUE")]
    pub cells: Vec<Assignment>,
    /// The version, in microseconds since 1970; the primary's time
    #[arg(long, value_name = "MICROS", value_parser = clap::value_parser!(i64).range(0..))]
    pub timestamp: Option<i64>,
}

#[derive(Debug, Args)]
pub struct Get {
    #[command(flatten)]
    pub at: RowName,
    /// Only these: family:qualifier, or family
    #[arg(value_parser = parse::column, value_name = "COLUMN")]
    pub columns: Vec<Column>,
    /// A further row to read
    #[arg(long = "row", value_parser = parse::row_key, value_name = "ROW")]
    pub more: Vec<Bytes>,
    /// Versions of each column
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub versions: u32,
    #[command(flatten)]
    pub times: Times,
    /// Only the bytes of the values, with a newline between two of them
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
    #[command(flatten)]
    pub consistent: Consistent,
}

#[derive(Clone, Debug, Args)]
pub struct ChangesArgs {
    /// The table
    #[arg(value_parser = parse::table)]
    pub table: String,
    /// Where to begin: kept (all that there are), now, microseconds since 1970, or the token with which an earlier run ended
    #[arg(long, default_value = "kept", value_parser = From::parse, value_name = "WHERE")]
    pub from: From,
    /// Go on with what happens, until it is interrupted
    #[arg(long)]
    pub follow: bool,
    /// Only rows whose keys begin like this
    #[arg(long, value_parser = parse::key_part, value_name = "KEY")]
    pub prefix: Option<Bytes>,
}

/// Of what time the versions are that are read.
#[derive(Clone, Copy, Debug, Args)]
pub struct Times {
    /// Only versions from this one on, in microseconds since 1970
    #[arg(long, value_name = "MICROS", allow_negative_numbers = true)]
    pub since: Option<i64>,
    /// Only versions before this one
    #[arg(long, value_name = "MICROS", allow_negative_numbers = true)]
    pub before: Option<i64>,
}

/// How new a read must be.
#[derive(Clone, Copy, Debug, Args)]
pub struct Consistent {
    /// See every acknowledged write (linearizable), or ask any replica (eventual)
    #[arg(long, value_enum, default_value_t = Kind::Linearizable, value_name = "KIND")]
    pub consistency: Kind,
    /// An eventual read passes over replicas that may be older than this
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    pub max_lag: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    Linearizable,
    Eventual,
}

#[derive(Debug, Args)]
pub struct Cput {
    #[command(flatten)]
    pub at: RowName,
    /// The column to look at: family:qualifier
    #[arg(value_parser = parse::one_column)]
    pub column: Column,
    /// The value that it must have
    #[arg(long, value_parser = parse::value, value_name = "VALUE", allow_hyphen_values = true)]
    #[arg(required_unless_present = "expect_absent", conflicts_with = "expect_absent")]
    pub expect: Option<Bytes>,
    /// It must have no value
    #[arg(long)]
    pub expect_absent: bool,
    /// The value that it gets
    #[arg(long, value_parser = parse::value, value_name = "VALUE", allow_hyphen_values = true)]
    #[arg(required_unless_present_any = ["set", "delete"])]
    pub put: Option<Bytes>,
    /// A further cell of the row to write: family:qualifier=value
    #[arg(long, value_parser = parse::assignment, value_name = "COLUMN=VALUE")]
    pub set: Vec<Assignment>,
    /// A column or a family of the row to delete
    #[arg(long, value_parser = parse::column, value_name = "COLUMN")]
    pub delete: Vec<Column>,
    /// The version, in microseconds since 1970; the primary's time
    #[arg(long, value_name = "MICROS", value_parser = clap::value_parser!(i64).range(0..))]
    pub timestamp: Option<i64>,
}

#[derive(Debug, Args)]
pub struct Del {
    #[command(flatten)]
    pub at: RowName,
    /// Only these: family:qualifier, or family
    #[arg(value_parser = parse::column, value_name = "COLUMN")]
    pub columns: Vec<Column>,
    /// Only this version of the columns
    #[arg(long, value_name = "MICROS", value_parser = clap::value_parser!(i64).range(0..))]
    pub timestamp: Option<i64>,
}

#[derive(Debug, Args)]
pub struct Scan {
    /// The table
    #[arg(value_parser = parse::table)]
    pub table: String,
    /// Only rows whose keys begin like this
    #[arg(long, value_parser = parse::key_part, value_name = "KEY")]
    pub prefix: Option<Bytes>,
    /// From this key on
    #[arg(long, value_parser = parse::key_part, value_name = "KEY")]
    pub start: Option<Bytes>,
    /// Up to, but without, this key
    #[arg(long, value_parser = parse::key_part, value_name = "KEY")]
    pub end: Option<Bytes>,
    /// At most so many rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// From the last row to the first
    #[arg(long)]
    pub reverse: bool,
    /// Only this family
    #[arg(long, value_parser = parse::family, value_name = "NAME")]
    pub family: Vec<String>,
    /// Only this column: family:qualifier
    #[arg(long, value_parser = parse::one_column, value_name = "COLUMN")]
    pub column: Vec<Column>,
    /// Versions of each column
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub versions: u32,
    #[command(flatten)]
    pub times: Times,
    /// Only the bytes of the values, with a newline between two of them
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
    #[command(flatten)]
    pub consistent: Consistent,
}
