//! The command line: reads it, does what it says, and tells how it ended.
//!
//! ```text
//!   args (clap) ──▶ run ──▶ host::run_node, host::run_master     the processes
//!                      ├──▶ up::run                              all of them at once
//!                      └──▶ table, rows, cluster, checkpoint, import, export, bench ──▶ client
//! ```
//!
//! What a command answers goes to stdout, all else to stderr. A failure is one line and a hint ([`Failure`]).

mod acl;
mod args;
pub mod bigtable;
pub mod changes;
pub mod checkpoint;
pub mod cluster;
mod csv;
pub mod events;
mod export;
pub mod failure;
mod file;
mod fsck;
mod import;
mod operate;
pub mod parse;
mod rows;
pub mod settings;
pub mod show;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory, Parser};
use client::{Client, Identity, Options};
use model::limits;
use protocol::Timing;
use serde_json::json;

pub use args::{Bench, Common, LogFormat, Up};
use args::{Command, CommandLine, MasterCommand, MasterRun, NodeCommand, NodeRun};
pub use failure::{Exit, Failure};
pub use rows::consistency;
pub use show::Output;

use crate::{bench, host, telemetry, up};

/// Carries out the command line of this process.
pub fn main() -> ExitCode {
    let CommandLine { common, command } = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) if !error.use_stderr() => {
            // Help or the version; a reader who has seen enough is no fault.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) if asks_for_nothing(&error) => error.exit(),
        Err(error) => {
            usage(&error).tell(std::env::args_os().any(|argument| argument == "--json"));
            return ExitCode::from(Exit::Usage as u8);
        }
    };
    match run(&common, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(common.json);
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(common: &Common, command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::run(&args, common.json),
        Command::Master { command: MasterCommand::Run(args) } => run_master(*args),
        Command::Node { command: NodeCommand::Run(args) } => run_node(*args),
        Command::Limits => limits(common),
        Command::Fsck { folder } => {
            let mut out = Output::new(common.json);
            let result = fsck::run(&folder, &mut out);
            let flushed = out.flush();
            result?;
            Ok(flushed?)
        }
        Command::Completion { shell } => completion(shell),
        Command::Bench(args) => server_runtime()?.block_on(async {
            let client = connect(common)?;
            with_output(common, async |out| bench::run(&client, &args, out).await).await
        }),
        // Rows are read while others are on their way.
        command @ Command::Import(_) => server_runtime()?.block_on(async {
            let client = connect(common)?;
            with_output(common, async |out| ask(&client, command, out).await).await
        }),
        command => runtime(&mut tokio::runtime::Builder::new_current_thread())?.block_on(async {
            let client = connect(common)?;
            with_output(common, async |out| ask(&client, command, out).await).await
        }),
    }
}

/// A command without its subcommand: the help says more than an error.
fn asks_for_nothing(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand)
}

/// What clap found wrong, as one line, and what it knows to do about it.
fn usage(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let first = parts.next().unwrap_or_default();
    let argument = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let message = match (error.source(), argument) {
        (Some(why), Some(argument)) => format!("{argument}: {why}"),
        _ => String::from(first.strip_prefix("error: ").unwrap_or(&first)),
    };
    let known = |part: &String| part.starts_with("tip: ") || part.starts_with("Usage: ");
    let hint = parts.find(known).map(|part| part.trim_start_matches("tip: ").to_string());
    Failure::usage(message).hint(hint.unwrap_or_else(|| String::from("--help shows how")))
}

/// The commands that ask a cluster.
async fn ask(client: &Client, command: Command, out: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Table { command } => table::run(client, command, out).await,
        Command::Put(args) => rows::put(client, args, out).await,
        Command::Get(args) => rows::get(client, args, out).await,
        Command::Cput(args) => rows::cput(client, args, out).await,
        Command::Del(args) => rows::del(client, args, out).await,
        Command::Scan(args) => rows::scan(client, args, out).await,
        Command::Import(args) => import::run(client, &args, out).await,
        Command::Export(args) => export::run(client, &args, out).await,
        Command::Changes(args) => changes::run(client, args, out).await,
        Command::Status { data } => cluster::status(client, &data, out).await,
        Command::Node { command } => cluster::node(client, command, out).await,
        Command::Master { command } => cluster::master(client, command, out).await,
        Command::Events(args) => events::run(client, args, out).await,
        Command::Tablet { command } => cluster::tablet(client, command, out).await,
        Command::Checkpoint { command } => checkpoint::run(client, command, out).await,
        Command::Acl { command } => acl::run(client, command, out).await,
        Command::Up(_) | Command::Bench(_) | Command::Limits | Command::Fsck { .. } | Command::Completion { .. } => {
            unreachable!("`run` carries them out")
        }
    }
}

async fn with_output(
    common: &Common,
    body: impl AsyncFnOnce(&mut Output) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut out = Output::new(common.json);
    let result = body(&mut out).await;
    // What came before a failure is good.
    let flushed = out.flush();
    result?;
    Ok(flushed?)
}

fn connect(common: &Common) -> Result<Client, Failure> {
    // It connects later: what can be wrong now is the address itself.
    Client::connect_as(&common.endpoint, Options { deadline: common.timeout, ..Options::default() }, identity(common)?)
        .map_err(|error| Failure::usage(error.to_string()))
}

/// Whoever the token says that we are.
fn identity(common: &Common) -> Result<Identity, Failure> {
    let Some(path) = &common.token_file else { return Ok(Identity::default()) };
    let cannot =
        |why: &dyn std::fmt::Display| Failure::usage(format!("cannot read --token-file {}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| cannot(&failure::reason(&error)))?;
    match text.trim() {
        "" => Err(cannot(&"it is empty")),
        token => Identity::with_token(token).map_err(|error| cannot(&error)),
    }
}

/// The runtime of a process that serves: a worker for each core, or as many as TOKIO_WORKER_THREADS says.
pub fn server_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    runtime(&mut tokio::runtime::Builder::new_multi_thread())
}

fn runtime(builder: &mut tokio::runtime::Builder) -> Result<tokio::runtime::Runtime, Failure> {
    builder.enable_all().build().map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        let exit = match error.exit_code() {
            3 => Exit::Unavailable,
            4 => Exit::NotFound,
            _ => Exit::Failed,
        };
        Failure::new(exit, failure::plain(&error.to_string())).hint(error.hint())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::failed(failure::plain(&format!("{error:#}")))
    }
}

fn run_node(args: NodeRun) -> Result<(), Failure> {
    telemetry::init(args.log.log_format);
    up::die_with(args.parent)?;
    let NodeRun {
        data,
        id,
        master: masters,
        grpc,
        http,
        advertise,
        scrub_every,
        digest_every,
        trash_keep,
        direct_io,
        bigtable,
        access,
        ..
    } = args;
    let timing = Timing::default();
    let args = host::NodeArgs {
        data,
        id,
        grpc,
        http,
        advertise,
        masters,
        timing,
        trash_keep,
        scrub_every,
        digest_every,
        direct_io,
        bigtable: bigtable.options(),
        access,
    };
    let runtime = server_runtime()?;
    let result = runtime.block_on(host::run_node(args));
    runtime.shutdown_background();
    Ok(result?)
}

fn run_master(args: MasterRun) -> Result<(), Failure> {
    if args.min_replicas > args.replicas {
        return Err(Failure::usage("--min-replicas is more than --replicas; no write could ever succeed"));
    }
    telemetry::init(args.log.log_format);
    up::die_with(args.parent)?;
    let timing = Timing { replace_after: args.replace_after, ..Timing::default() };
    let MasterRun {
        data,
        id,
        initial,
        join,
        advertise,
        grpc,
        http,
        replicas,
        min_replicas,
        balance_after,
        split_bytes,
        split_load,
        merge_after,
        access,
        ..
    } = args;
    let founding = founding(id, initial, join)?;
    let balance_after = (!balance_after.is_zero()).then_some(balance_after);
    let merge_after = (!merge_after.is_zero()).then_some(merge_after);
    let args = host::MasterArgs {
        data,
        id,
        founding,
        advertise,
        grpc,
        http,
        replicas,
        min_replicas,
        balance_after,
        split_bytes,
        split_load,
        merge_after,
        timing,
        access,
    };
    let runtime = server_runtime()?;
    let result = runtime.block_on(host::run_master(args));
    runtime.shutdown_background();
    Ok(result?)
}

/// How a master with an empty folder comes to a group.
fn founding(id: u32, initial: Vec<(u32, String)>, join: bool) -> Result<host::Founding, Failure> {
    if join {
        return Ok(host::Founding::Join);
    }
    if initial.is_empty() {
        return Ok(if id == 1 { host::Founding::Alone } else { host::Founding::Unsaid });
    }
    let count = initial.len();
    let masters: BTreeMap<u64, String> = initial.into_iter().map(|(id, address)| (u64::from(id), address)).collect();
    let addresses: BTreeSet<&String> = masters.values().collect();
    if masters.len() < count || addresses.len() < count {
        return Err(Failure::usage("--initial names an id or an address twice"));
    }
    if !masters.contains_key(&u64::from(id)) {
        return Err(Failure::usage(format!("--initial does not list master {id} itself"))
            .hint("give all masters of the new cluster the same list"));
    }
    if count > host::MOST_MASTERS {
        return Err(Failure::usage(format!("{count} masters; the limit is {}", host::MOST_MASTERS)));
    }
    Ok(host::Founding::Initial(masters))
}

fn limits(common: &Common) -> Result<(), Failure> {
    let mut out = Output::new(common.json);
    if out.json {
        let all: serde_json::Map<_, _> =
            limits::ALL.iter().map(|(name, limit, _)| (name.replace(' ', "_"), json!(limit))).collect();
        out.line(json!(all))?;
    } else {
        let row = |(name, limit, unit): &(&str, usize, &str)| {
            vec![name.to_string(), show::count(*limit as u64), unit.to_string()]
        };
        out.table(&["what", "limit#", "unit"], limits::ALL.iter().map(row).collect())?;
    }
    Ok(out.flush()?)
}

fn completion(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "diptych", &mut script);
    let mut out = Output::new(false);
    out.raw(&script)?;
    Ok(out.flush()?)
}
