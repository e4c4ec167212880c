//! `confonnx`: confidential inference from the command line.

mod args;
mod model;
mod predict;
mod test_inputs;
mod verify;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use confonnx_client::{ClientError, PolicyBuildError};

/// Confidential inference: verify a server, then send it what only its TEE may see.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Predict(predict::Predict),
    Verify(verify::Verify),
    HashModel(model::HashModel),
    ModelInfo(model::ModelInfo),
    CreateTestInputs(test_inputs::CreateTestInputs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Predict(command) => command.run(),
        Command::Verify(command) => return exit(command.run(), UNDECIDED),
        Command::HashModel(command) => command.run(),
        Command::ModelInfo(command) => command.run(),
        Command::CreateTestInputs(command) => command.run(),
    };
    exit(result, FAILED)
}

/// Prints the error, and the attestation checks if they are why; `otherwise` is the code of all other failures.
fn exit(result: anyhow::Result<()>, otherwise: u8) -> ExitCode {
    let Err(err) = result else { return ExitCode::SUCCESS };
    let mut stderr = io::stderr().lock();
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(stderr, "confonnx: {err:#}");
    let code = if err.is::<PolicyBuildError>() {
        USAGE
    } else if err.downcast_ref::<io::Error>().is_some_and(|err| err.kind() == io::ErrorKind::BrokenPipe) {
        FAILED
    } else {
        match err.downcast_ref() {
            Some(ClientError::Document(_) | ClientError::NotGenuine(_)) => NOT_GENUINE,
            Some(ClientError::NotTrusted(_)) => NOT_TRUSTED,
            _ => otherwise,
        }
    };
    ExitCode::from(code)
}

/// The checks as a table, marks in colour when a person is reading.
fn table(verdict: &confonnx_client::Verdict, to_terminal: bool) -> String {
    let table = verdict.to_string();
    if !to_terminal || std::env::var_os("NO_COLOR").is_some() {
        return table;
    }
    table
        .lines()
        .map(|line| match line.chars().next() {
            Some('✓') => line.replacen('✓', "\x1b[32m✓\x1b[0m", 1),
            Some('✗') => line.replacen('✗', "\x1b[31m✗\x1b[0m", 1),
            _ => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_GENUINE: u8 = 3;
const NOT_TRUSTED: u8 = 4;
const UNDECIDED: u8 = 5;
