//! The command line: every command, flag and default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use model::access::{Right, Scope};
use model::{Compaction, LocalityChange, NodeId, Retention, StorageChange, TabletId};

use super::bigtable::BigtableArgs;
use super::changes::From;
use super::parse::{self, Assignment, Column, Process};
use super::settings::SettingsArgs;
use crate::bench::Work;

/// Diptych: a replicated wide-column store.
#[derive(Debug, Parser)]
#[command(
    name = "diptych",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 unavailable, 4 not found, 5 condition not met.")]
pub struct CommandLine {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command that asks a cluster takes.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Any node, or the `up` process, as host:port
    #[arg(long, global = true, env = "DIPTYCH_ENDPOINT", default_value = "127.0.0.1:8086", value_name = "HOST:PORT")]
    pub endpoint: String,
    /// Write JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// How long a request may take with all its repetitions
    #[arg(long, global = true, default_value = "10s", value_parser = parse::duration, value_name = "DURATION")]
    pub timeout: Duration,
    /// The file with your token, where access is controlled
    #[arg(long, global = true, env = "DIPTYCH_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole local cluster: one master, several storage nodes; Ctrl-C stops it
    Up(Up),
    /// Run a master process; or list, add, remove the masters of a cluster
    Master {
        #[command(subcommand)]
        command: MasterCommand,
    },
    /// Run a storage node process; or list, suspend, resume, kill, restart the nodes of a local cluster
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Create, list, show, alter, drop tables
    Table {
        #[command(subcommand)]
        command: TableCommand,
    },
    /// Write cells of a row, all together or not at all
    Put(Put),
    /// Read a row, or several
    Get(Get),
    /// Change a row only if one of its columns holds what you expect (exit code 5 if not)
    Cput(Cput),
    /// Delete a row, or families, columns or one version of it
    Del(Del),
    /// Read rows in key order, or in reverse
    Scan(Scan),
    /// Write the rows of a CSV or NDJSON file; resumes where it was interrupted
    Import(Import),
    /// Write a table to a CSV or NDJSON file
    Export(Export),
    /// Read what happened to the rows of a table that keeps its changes
    Changes(ChangesArgs),
    /// Show nodes and tablets: who is alive, who is primary of what, who lags
    Status {
        /// Folder of a local cluster whose process ids to show
        #[arg(long, env = "DIPTYCH_DATA", default_value = "diptych-data", value_name = "DIR")]
        data: PathBuf,
    },
    /// Show what happened: who was removed, who succeeded whom, and why
    Events(Events),
    /// Show a table's tablets
    Tablet {
        #[command(subcommand)]
        command: TabletCommand,
    },
    /// Keep tables as they are, for a backup, and restore them
    Checkpoint {
        #[command(subcommand)]
        command: CheckpointCommand,
    },
    /// Say who may do what, where access is controlled (`--access`)
    Acl {
        #[command(subcommand)]
        command: AclCommand,
    },
    /// Check the folder of a stopped node or master, and change nothing (exit code 1 if something is damaged)
    Fsck {
        /// Folder of its data
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Measure: YCSB A to F, pure puts and gets
    Bench(Bench),
    /// Show every limit
    Limits,
    /// Write the completion script of a shell
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Debug, Args)]
pub struct Up {
    /// Folder of the cluster's data, logs and cluster.json
    #[arg(long, env = "DIPTYCH_DATA", default_value = "diptych-data", value_name = "DIR")]
    pub data: PathBuf,
    /// Storage nodes; as many as the folder has, or 4
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub nodes: Option<u32>,
    /// Masters; as many as the folder has, or 1. Three survive the loss of one, five that of two
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9))]
    pub masters: Option<u32>,
    /// Replicas of new tables' tablets, unless the table says otherwise
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub replicas: u8,
    /// A tablet of a range table with more bytes is split; 0 is never
    #[arg(long, default_value = "512MiB", value_parser = parse::bytes, value_name = "BYTES")]
    pub split_bytes: u64,
    /// A tablet of a range table that serves more requests per second is split; 0 is never
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub split_load: u64,
    /// Two tablets of a range table that have been small and cold for so long become one; 0s is never
    #[arg(long, default_value = "0s", value_parser = parse::duration, value_name = "DURATION")]
    pub merge_after: Duration,
    /// Where to serve HTTP; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "IP:PORT")]
    pub http: SocketAddr,
    /// Where to serve gRPC; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8086", value_name = "IP:PORT")]
    pub grpc: SocketAddr,
    /// Let nobody in without a token; the file has that of the processes themselves, the same for all (`acl token` makes one)
    #[arg(long, env = "DIPTYCH_ACCESS", value_name = "FILE")]
    pub access: Option<PathBuf>,
    #[command(flatten)]
    pub bigtable: BigtableArgs,
    #[command(flatten)]
    pub log: Log,
}

/// How a process logs.
#[derive(Clone, Copy, Debug, Args)]
pub struct Log {
    /// How to write the log on stderr
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum MasterCommand {
    /// Run a master until SIGTERM
    Run(Box<MasterRun>),
    /// List the masters: which of them leads, who lags
    List,
    /// Take a master that runs with --join into the group
    Add {
        /// Its number
        #[arg(value_parser = parse::master, value_name = "ID")]
        id: u32,
        /// Where it serves gRPC
        #[arg(value_parser = parse::address, value_name = "HOST:PORT")]
        address: String,
    },
    /// Take a master out of the group
    Remove {
        /// Its number
        #[arg(value_parser = parse::master, value_name = "ID")]
        id: u32,
    },
}

#[derive(Clone, Debug, Args)]
pub struct MasterRun {
    /// Folder of its data
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Its number among the masters
    #[arg(long, default_value = "1", value_parser = parse::master, value_name = "ID")]
    pub id: u32,
    /// With an empty folder: all masters of a new cluster, itself among them; the same list for each
    #[arg(long, value_delimiter = ',', value_parser = parse::initial, value_name = "ID=HOST:PORT,…")]
    pub initial: Vec<(u32, String)>,
    /// With an empty folder: wait until `master add` takes it into a group that exists
    #[arg(long, conflicts_with = "initial")]
    pub join: bool,
    /// Where others reach its gRPC, if not at --grpc
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Where to serve gRPC
    #[arg(long, default_value = "127.0.0.1:8085", value_name = "IP:PORT")]
    pub grpc: SocketAddr,
    /// Where to serve HTTP, if at all
    #[arg(long, value_name = "IP:PORT")]
    pub http: Option<SocketAddr>,
    /// Replicas of new tables' tablets, unless the table says otherwise
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub replicas: u8,
    /// Fewest replicas that accept writes, unless the table says otherwise
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub min_replicas: u8,
    /// When to replace a missing replica by one on another node
    #[arg(long, default_value = "5m", value_parser = parse::duration, value_name = "DURATION")]
    pub replace_after: Duration,
    /// When to move a tablet that has been at rest for so long, to even out the nodes; 0s moves nothing
    #[arg(long, default_value = "1m", value_parser = parse::duration, value_name = "DURATION")]
    pub balance_after: Duration,
    /// A tablet of a range table with more bytes is split; 0 is never
    #[arg(long, default_value = "512MiB", value_parser = parse::bytes, value_name = "BYTES")]
    pub split_bytes: u64,
    /// A tablet of a range table that serves more requests per second is split; 0 is never
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub split_load: u64,
    /// Two tablets of a range table that have been small and cold for so long become one; 0s is never
    #[arg(long, default_value = "0s", value_parser = parse::duration, value_name = "DURATION")]
    pub merge_after: Duration,
    /// Let nobody in without a token; the file has that of the processes themselves, the same for all (`acl token` makes one)
    #[arg(long, env = "DIPTYCH_ACCESS", value_name = "FILE")]
    pub access: Option<PathBuf>,
    #[command(flatten)]
    pub log: Log,
    /// The process that started it and without which it ends
    #[arg(long, hide = true, value_name = "PID")]
    pub parent: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Run a storage node until SIGTERM
    Run(Box<NodeRun>),
    /// List the nodes
    List,
    /// Stop a node's process where it stands (only under `diptych up`)
    Suspend(NodeName),
    /// Let a suspended node go on
    Resume(NodeName),
    /// End a node's process without warning
    Kill(NodeName),
    /// Start a node's process, and end it first if it runs
    Restart(NodeName),
    /// Empty a node: others become primary, and its tablets move as far as there are nodes for them
    Drain {
        /// n1, n2 …
        #[arg(value_parser = parse::node)]
        node: NodeId,
        /// Let it be filled again instead
        #[arg(long)]
        undo: bool,
        /// Do not wait until it is empty
        #[arg(long)]
        no_wait: bool,
    },
    /// Have a node read all that it keeps, now, to find damage
    Scrub {
        /// n1, n2 …
        #[arg(value_parser = parse::node)]
        node: NodeId,
    },
    /// Strike a node off the list that keeps nothing any more; its id is not used again
    Remove {
        /// n1, n2 …
        #[arg(value_parser = parse::node)]
        node: NodeId,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub struct NodeName {
    /// n1, n2 …; m1, m2 … are the masters
    #[arg(value_parser = parse::process)]
    pub node: Process,
}

#[derive(Clone, Debug, Args)]
pub struct NodeRun {
    /// Folder of its data
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Its number in the cluster: n1, n2 …
    #[arg(long, value_parser = parse::node, value_name = "ID")]
    pub id: NodeId,
    /// Where the masters serve gRPC; several with commas between them
    #[arg(long, value_delimiter = ',', required = true, value_name = "HOST:PORT")]
    pub master: Vec<String>,
    /// Where to serve gRPC
    #[arg(long, default_value = "127.0.0.1:8086", value_name = "IP:PORT")]
    pub grpc: SocketAddr,
    /// Where to serve HTTP, if at all
    #[arg(long, value_name = "IP:PORT")]
    pub http: Option<SocketAddr>,
    /// Where others reach its gRPC, if not at --grpc
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// In what time to read all files once, to find damage; 0s for never
    #[arg(long, default_value = "3d", value_parser = parse::duration, value_name = "DURATION")]
    pub scrub_every: Duration,
    /// In what time to compare the replicas of all tablets that it leads once; 0s for never
    #[arg(long, default_value = "6h", value_parser = parse::duration, value_name = "DURATION")]
    pub digest_every: Duration,
    /// How long to keep what was thrown away
    #[arg(long, default_value = "24h", value_parser = parse::duration, value_name = "DURATION")]
    pub trash_keep: Duration,
    /// Merges read past the kernel's memory (O_DIRECT), so that they do not drive out what is read often
    #[arg(long)]
    pub direct_io: bool,
    /// Let nobody in without a token; the file has that of the processes themselves, the same for all (`acl token` makes one)
    #[arg(long, env = "DIPTYCH_ACCESS", value_name = "FILE")]
    pub access: Option<PathBuf>,
    #[command(flatten)]
    pub bigtable: BigtableArgs,
    #[command(flatten)]
    pub log: Log,
    /// The process that started it and without which it ends
    #[arg(long, hide = true, value_name = "PID")]
    pub parent: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub enum AclCommand {
    /// Draw a token, for --access
    Token,
    /// List who there is, and what they may do
    List,
    /// Add somebody who may do nothing yet, and show the token
    Add {
        /// The name: 1 to 64 of a-z A-Z 0-9 - _ . @
        name: String,
    },
    /// Let somebody do something
    Grant {
        /// Whom
        name: String,
        /// read, write or admin
        right: Right,
        /// TABLE, TABLE:FAMILY or cluster; names may end with * for any end
        #[arg(required = true, value_name = "ON")]
        scopes: Vec<Scope>,
    },
    /// Take something back, as it was given
    Revoke {
        /// From whom
        name: String,
        /// read, write or admin
        right: Right,
        /// TABLE, TABLE:FAMILY or cluster, as it was given
        #[arg(required = true, value_name = "ON")]
        scopes: Vec<Scope>,
    },
    /// Give somebody another token in the place of the ones before
    Renew {
        /// Whom
        name: String,
        /// Those before are good, too, until the next `renew` without this
        #[arg(long)]
        keep: bool,
    },
    /// Remove somebody, with all tokens
    Remove {
        /// Whom
        name: String,
    },
}

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

#[derive(Clone, Debug, Args)]
pub struct Events {
    /// Go on with what happens, until it is interrupted
    #[arg(long)]
    pub follow: bool,
    /// Those after this number; without it, the newest
    #[arg(long, value_name = "SEQ")]
    pub since: Option<u64>,
    /// At most so many; with --follow, so many at a time
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Only of this tablet: t7
    #[arg(long, value_parser = parse::tablet, value_name = "TABLET")]
    pub tablet: Option<TabletId>,
    /// Only by or about this node: n2
    #[arg(long, value_parser = parse::node, value_name = "NODE")]
    pub node: Option<NodeId>,
    /// Only of this name, such as configuration_decided
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<CommandLine, clap::error::ErrorKind> {
        CommandLine::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    #[test]
    fn the_definitions_are_sound() {
        CommandLine::command().debug_assert();
    }

    /// Issue 2, "What a user can do".
    #[test]
    fn the_commands_of_the_story_parse() {
        for line in [
            "diptych up",
            "diptych up --data d --nodes 4 --replicas 2 --http 127.0.0.1:8080 --grpc 127.0.0.1:8086",
            "diptych table create airports --family info --partition hash:2",
            "diptych table create users --family name --family mail:versions=3,age=30d --partition range --split g",
            "diptych table create u --family f --compaction leveled --locality cold:compression=zstd,block=64KiB",
            "diptych table create u --family f --locality cold --family-locality f=cold",
            "diptych table alter u --compaction tiered",
            "diptych table alter u --locality cold:in-memory=no --family-locality f=default --drop-locality warm",
            "diptych import airports airports.csv --key iata --family info",
            "diptych get airports LAX",
            "diptych get users alice name:first --versions 3 --raw",
            "diptych scan airports --prefix LA --limit 5",
            "diptych scan airports --reverse --since 1795419153563886 --before 1795419153563900 --limit 1",
            "diptych get airports LAX --since 0",
            "diptych get airports LAX info:name --row SFO --row JFK",
            "diptych put airports LAX info:note=busy --timestamp 5",
            "diptych cput airports LAX info:note --expect busy --put quiet",
            "diptych cput airports LAX info:note --expect-absent --put -1",
            "diptych del airports LAX info:note",
            "diptych status --json",
            "diptych node restart n2",
            "diptych node run --data d --id n1 --master 127.0.0.1:1,127.0.0.1:2 --direct-io",
            "diptych master run --data d --replace-after 30s",
            "diptych master run --data d --id 2 --initial 1=a:8085,2=b:8085,3=c:8085",
            "diptych master run --data d --id m4 --join",
            "diptych master list --json",
            "diptych master add m4 10.0.0.4:8085",
            "diptych master remove 2",
            "diptych up --masters 3",
            "diptych tablet list airports",
            "diptych checkpoint create monday --table airports",
            "diptych checkpoint restore monday --from n1 n2 /mnt/copy --to airports2",
            "diptych bench ycsb-a --clients 8 --duration 2s",
            "diptych --endpoint 127.0.0.1:9 completion bash",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "diptych tabel list",
            "diptych get airports",
            "diptych get airports LAX --rwa",
            "diptych put airports LAX info:note",
            "diptych put airports LAX info:note=x --timestamp -5",
            "diptych cput airports LAX info:note --put x",
            "diptych cput airports LAX info:note --expect a --expect-absent --put x",
            "diptych cput airports LAX info:note --expect a",
            "diptych cput airports LAX info --expect a --put x",
            "diptych table create a",
            "diptych table create /a --family f",
            "diptych table alter a",
            "diptych table alter a --compaction",
            "diptych table alter a --family-locality f",
            "diptych table create a --family f --locality cold:block=1",
            "diptych scan airports --limit 0",
            "diptych checkpoint create ../monday",
            "diptych checkpoint restore monday --to airports2",
            "diptych node restart x",
            "diptych master run --data d --id 0",
            "diptych master run --data d --initial 1=a:1 --join",
            "diptych master run --data d --initial a:1",
            "diptych master add m4 10.0.0.4",
            "diptych master remove n2",
            "diptych up --masters 0",
            "diptych bench sing",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
