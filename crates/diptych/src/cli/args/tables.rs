//! Tables, tablets and checkpoints.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use model::{Compaction, LocalityChange, NodeId, Retention, StorageChange, TabletId};

use crate::cli::parse;
use crate::cli::settings::SettingsArgs;

#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// Create a table
    Create(TableCreate),
    /// List the tables
    List {
        /// Those that were dropped and can be brought back
        #[arg(long)]
        hidden: bool,
    },
    /// Show a table's families and tablets
    Show {
        /// The table
        #[arg(value_parser = parse::table)]
        table: String,
    },
    /// Add families, change what they keep and where they lie, drop families with their data
    Alter(TableAlter),
    /// Drop a table with its data
    Drop {
        /// The table
        #[arg(value_parser = parse::table)]
        table: String,
        /// Keep its data so long, so that it can be brought back: 7d, 1h
        #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
        keep: Option<Duration>,
    },
    /// Bring back the table of that name that was dropped last with --keep
    Restore {
        /// The table
        #[arg(value_parser = parse::table)]
        table: String,
    },
}

#[derive(Debug, Args)]
pub struct TableCreate {
    /// Its name
    #[arg(value_parser = parse::table)]
    pub table: String,
    /// A family, with what it keeps: NAME, NAME:versions=3, NAME:age=30d, NAME:versions=3,age=30d
    #[arg(long, required = true, value_parser = parse::family_rule, value_name = "FAMILY")]
    pub family: Vec<(String, Retention)>,
    /// How rows find their tablet: hash:N for N tablets, or range
    #[arg(long, default_value = "hash:2", value_name = "PARTITION")]
    pub partition: String,
    /// With --partition range: a key at which a new tablet begins
    #[arg(long, value_parser = parse::key_part, value_name = "KEY")]
    pub split: Vec<Bytes>,
    /// Replicas of each tablet; the cluster's default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub replicas: Option<u8>,
    /// Fewest replicas that accept writes; the cluster's default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub min_replicas: Option<u8>,
    #[command(flatten)]
    pub storage: StorageArgs,
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// How a table's rows lie on disks.
#[derive(Debug, Args)]
pub struct StorageArgs {
    /// Which files are merged: tiered, for tables that are written more, or leveled, for those that are read more
    #[arg(long, value_parser = parse::compaction, value_name = "HOW")]
    pub compaction: Option<Compaction>,
    /// A locality group, families in files of their own: NAME, or
    /// NAME:compression=zstd,block=64KiB,filter=columns,in-memory
    #[arg(long, value_parser = parse::locality, value_name = "GROUP")]
    pub locality: Vec<LocalityChange>,
    /// In which locality group a family lies
    #[arg(long, value_parser = parse::place, value_name = "FAMILY=GROUP")]
    pub family_locality: Vec<(String, String)>,
}

impl StorageArgs {
    /// What shall be different, and these groups dropped.
    pub fn into_change(self, drop: Vec<String>) -> StorageChange {
        StorageChange { compaction: self.compaction, set: self.locality, place: self.family_locality, drop }
    }
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true)
    .args(["family", "drop_family", "compaction", "locality", "family_locality", "drop_locality", "granularity", "protect",
        "changes",
           "unprotect", "aggregate"])))]
pub struct TableAlter {
    /// The table
    #[arg(value_parser = parse::table)]
    pub table: String,
    /// A new family, or a new rule for one that is there: NAME, NAME:versions=3, NAME:age=30d
    #[arg(long, value_parser = parse::family_rule, value_name = "FAMILY")]
    pub family: Vec<(String, Retention)>,
    /// A family to drop with its data
    #[arg(long, value_parser = parse::family, value_name = "NAME")]
    pub drop_family: Vec<String>,
    #[command(flatten)]
    pub storage: StorageArgs,
    /// A locality group to drop, in which no family is any more
    #[arg(long, value_parser = parse::family, value_name = "NAME")]
    pub drop_locality: Vec<String>,
    #[command(flatten)]
    pub settings: SettingsArgs,
}

#[derive(Debug, Subcommand)]
pub enum TabletCommand {
    /// List a table's tablets, or all
    List {
        /// The table
        #[arg(value_parser = parse::table)]
        table: Option<String>,
    },
    /// Give a tablet's replica to another node
    Move {
        /// t1, t2 …
        #[arg(value_parser = parse::tablet)]
        tablet: TabletId,
        /// Who keeps it now
        #[arg(long, value_parser = parse::node, value_name = "NODE")]
        from: NodeId,
        /// Who shall keep it
        #[arg(long, value_parser = parse::node, value_name = "NODE")]
        to: NodeId,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Make a secondary the primary
    Transfer {
        /// t1, t2 …
        #[arg(value_parser = parse::tablet)]
        tablet: TabletId,
        /// Which secondary
        #[arg(long, value_parser = parse::node, value_name = "NODE")]
        to: NodeId,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Compare what a tablet's replicas hold; exits with 1 if they differ
    Check {
        /// t1, t2 …
        #[arg(value_parser = parse::tablet)]
        tablet: TabletId,
    },
    /// Begin a tablet anew whose members are all gone; without --from or --empty it only says what would be lost
    Recover {
        /// t1, t2 …
        #[arg(value_parser = parse::tablet)]
        tablet: TabletId,
        /// With what this node holds, which is no member any more
        #[arg(long, value_parser = parse::node, value_name = "NODE")]
        from: Option<NodeId>,
        /// With nothing, on this node
        #[arg(long, value_parser = parse::node, value_name = "NODE", conflicts_with = "from")]
        empty: Option<NodeId>,
        /// Do it: what is lost is lost for ever
        #[arg(long)]
        yes: bool,
    },
    /// Make two tablets of one, of a table that is cut by ranges, while it is in use
    Split {
        /// t1, t2 …
        #[arg(value_parser = parse::tablet)]
        tablet: TabletId,
        /// The first row key of the second tablet; about the middle of the bytes
        #[arg(long, value_parser = parse::row_key, value_name = "KEY")]
        at: Option<Bytes>,
    },
    /// Make one tablet of this one and the next, of a table that is cut by ranges, while they are in use
    Merge {
        /// t1, t2 …
        #[arg(value_parser = parse::tablet)]
        tablet: TabletId,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// Keep the tablets of a table, or of all, as they are, on the disks of their primaries
    Create {
        /// Its name
        #[arg(value_parser = parse::checkpoint)]
        name: String,
        /// Only this table
        #[arg(long, value_parser = parse::table, value_name = "TABLE")]
        table: Option<String>,
    },
    /// List the checkpoints, whether they are complete, and how large they are
    List,
    /// Show what is in a checkpoint: tablets, nodes, up to where
    Show {
        /// Its name
        #[arg(value_parser = parse::checkpoint)]
        name: String,
    },
    /// Remove a checkpoint from all nodes
    Remove {
        /// Its name
        #[arg(value_parser = parse::checkpoint)]
        name: String,
    },
    /// Make a new table of a table in a checkpoint, out of folders of nodes or copies of them
    Restore(Restore),
}

#[derive(Clone, Debug, Args)]
pub struct Restore {
    /// The checkpoint's name
    #[arg(value_parser = parse::checkpoint)]
    pub name: String,
    /// Folders of nodes, of `diptych up`, or copies of either: all below them is searched for checkpoints/NAME
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    pub from: Vec<PathBuf>,
    /// Which table of the checkpoint, if it has several
    #[arg(long, value_parser = parse::table, value_name = "TABLE")]
    pub table: Option<String>,
    /// The name of the new table
    #[arg(long, value_parser = parse::table, value_name = "TABLE")]
    pub to: String,
    /// Replicas of each tablet; as the table had
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub replicas: Option<u8>,
    /// Fewest replicas that accept writes; as the table had
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub min_replicas: Option<u8>,
    /// Rows under way at a time
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub window: u32,
    /// Check the checkpoint, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}
