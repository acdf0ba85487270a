//! Diptych: a replicated wide-column store. One binary for all of it: the processes of a cluster, and the commands.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the roof is where the real world is: clocks, threads, files"
)]

mod access;
mod bench;
mod cli;
mod control;
mod gateway;
mod history;
mod host;
mod http;
mod masters;
mod rpc;
mod telemetry;
mod up;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
