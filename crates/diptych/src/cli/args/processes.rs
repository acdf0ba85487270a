//! Processes: those that serve, and who may ask them for what.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use model::NodeId;
use model::access::{Right, Scope};

use crate::cli::bigtable::BigtableArgs;
use crate::cli::parse::{self, Process};

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
