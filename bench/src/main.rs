//! Measures sealed requests to a real server process beside bare ONNX Runtime in this one, and beside other servers in
//! plaintext.
//!
//! All run the same model with the same ONNX Runtime and inputs. Rounds alternate between them, so that whatever else
//! the machine does meets all; medians and spreads are reported. Every answer is compared.

#![allow(clippy::restriction, reason = "measures, prints what it found, and may panic")]

mod attestation;
mod cost;
mod grpc;
mod http;
mod inputs;
mod load;
mod peers;
mod process;
mod proxied;
mod report;
mod resources;
mod sealed;
mod server;
mod stats;
mod table;
mod target;

use anyhow::ensure;
use clap::Parser;

/// Measure sealed requests beside bare ONNX Runtime and beside other servers.
#[derive(Parser)]
#[command(max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    table: table::Args,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Measure attestation with a slow device and many clients.
    Attestation(attestation::Args),
    /// Measure the server's memory, start and connections.
    Resources(resources::Args),
    /// Measure what the proxy adds: time, memory, connections.
    Proxy(proxied::Args),
    /// Be a process that runs a model and does nothing else.
    #[command(hide = true)]
    Bare(resources::BareArgs),
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(!cfg!(debug_assertions), "this is a debug build; run `make bench` or `make bench-attestation`");
    match &args.command {
        None => table::run(&args.table),
        Some(Command::Attestation(args)) => attestation::run(args),
        Some(Command::Resources(args)) => resources::run(args),
        Some(Command::Proxy(args)) => proxied::run(args),
        Some(Command::Bare(args)) => resources::bare(args),
    }
}
