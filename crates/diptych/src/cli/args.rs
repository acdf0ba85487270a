//! The command line: every command, flag and default.

mod files;
mod processes;
mod rows;
mod tables;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use model::{NodeId, TabletId};

use super::parse;

pub use files::*;
pub use processes::*;
pub use rows::*;
pub use tables::*;

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
