//! `confonnx`: confidential inference from the command line.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]

mod annotate;
mod args;
mod chat;
mod download;
mod measure;
mod model;
mod predict;
mod progress;
mod proof;
mod protect;
mod proxy;
mod release;
mod repository;
mod shell;
mod test_inputs;
mod token;
mod top;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use confonnx_client::{ClientError, LoadError, ModelRefused, PolicyBuildError, Verdict};

/// Confidential inference: verify a server, then send it what only its TEE may see.
#[derive(Parser)]
#[command(name = "confonnx", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Predict(predict::Predict),
    Chat(chat::Chat),
    Verify(verify::Verify),
    Proxy(Box<proxy::Proxy>),
    Top(top::Top),
    Measure(measure::Measure),
    Models(repository::Models),
    Load(repository::Load),
    Unload(repository::Unload),
    Provision(protect::Provision),
    EncryptModel(protect::EncryptModel),
    Annotate(annotate::Annotate),
    HashModel(model::HashModel),
    ModelInfo(model::ModelInfo),
    CreateTestInputs(test_inputs::CreateTestInputs),
    CreateToken(token::CreateToken),
    HashToken(token::HashToken),
    Completions(shell::Completions),
    Man(shell::Man),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Predict(command) => command.run(),
        Command::Chat(command) => command.run(),
        Command::Verify(command) => match command.run() {
            Ok(code) => return ExitCode::from(code),
            Err(err) => return exit(Err(err), UNDECIDED),
        },
        Command::Proxy(command) => match command.run() {
            Ok(code) => return code,
            Err(err) => Err(err),
        },
        Command::Top(command) => command.run(),
        Command::Measure(command) => command.run(),
        Command::Models(command) => command.run(),
        Command::Load(command) => command.run(),
        Command::Unload(command) => command.run(),
        Command::Provision(command) => command.run(),
        Command::EncryptModel(command) => command.run(),
        Command::Annotate(command) => command.run(),
        Command::HashModel(command) => command.run(),
        Command::ModelInfo(command) => command.run(),
        Command::CreateTestInputs(command) => command.run(),
        Command::CreateToken(command) => command.run(),
        Command::HashToken(command) => command.run(),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
    };
    exit(result, FAILED)
}

/// Prints the error, and the attestation checks if they are why; `otherwise` is the code of all other failures.
fn exit(result: anyhow::Result<()>, otherwise: u8) -> ExitCode {
    let Err(err) = result else { return ExitCode::SUCCESS };
    let mut stderr = io::stderr().lock();
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(stderr, "confonnx: {}", told(&err));
    ExitCode::from(code(&err, otherwise))
}

fn complain(text: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr().lock(), "confonnx: {text}");
}

fn code(err: &anyhow::Error, otherwise: u8) -> u8 {
    if err.is::<PolicyBuildError>() || err.is::<LoadError>() {
        return USAGE;
    }
    if err.downcast_ref::<io::Error>().is_some_and(|err| err.kind() == io::ErrorKind::BrokenPipe) {
        return FAILED;
    }
    match err.downcast_ref() {
        Some(err) if ClientError::verdict(err).is_some_and(Verdict::is_undecided) => UNDECIDED,
        Some(ClientError::Document(_) | ClientError::NotGenuine(_)) => NOT_GENUINE,
        Some(ClientError::NotTrusted(_) | ClientError::Model(ModelRefused::Hash { .. })) => NOT_TRUSTED,
        _ => otherwise,
    }
}

/// The error with its causes, each said once: some errors quote theirs.
fn told(err: &anyhow::Error) -> String {
    err.chain().fold(String::new(), |text, cause| match cause.to_string() {
        cause if text.contains(&cause) => text,
        cause if text.is_empty() => cause,
        cause => format!("{text}: {cause}"),
    })
}

/// The checks as a table, as wide as the terminal and with marks in colour when a person is reading.
fn table(verdict: &Verdict) -> String {
    let Some((terminal_size::Width(width), _)) = terminal_size::terminal_size_of(io::stdout()) else {
        return verdict.table(None);
    };
    let table = verdict.table(Some(width.into()));
    if std::env::var_os("NO_COLOR").is_some() {
        return table;
    }
    let coloured = |line: &str| {
        let colour = match line.chars().next() {
            Some('✓') => "32",
            Some('✗') => "31",
            Some('?') => "33",
            Some('!') => "1;33",
            Some('·' | ' ') | None => return line.to_owned(),
            // The line is a question that heads a group.
            Some(_) => return format!("\x1b[1m{line}\x1b[0m"),
        };
        let (mark, rest) = line.split_at(line.chars().next().map_or(0, char::len_utf8));
        format!("\x1b[{colour}m{mark}\x1b[0m{rest}")
    };
    table.lines().map(coloured).collect::<Vec<_>>().join("\n")
}

/// The text in a colour of its own when a person is reading.
fn warned(text: &str) -> String {
    let person = terminal_size::terminal_size_of(io::stdout()).is_some();
    let coloured = person && std::env::var_os("NO_COLOR").is_none();
    if coloured { format!("\x1b[1;33m{text}\x1b[0m") } else { text.to_owned() }
}

fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_GENUINE: u8 = 3;
const NOT_TRUSTED: u8 = 4;
const UNDECIDED: u8 = 5;

#[cfg(test)]
mod tests {
    use confonnx_client::{Check, Outcome, PolicyError, Step, VerifyError};

    use super::*;

    fn verdict(outcomes: &[Outcome]) -> Verdict {
        let check = |outcome: &Outcome| Check {
            step: Step::Verify,
            name: "revocation",
            expected: "a list valid now".into(),
            found: "none stapled".into(),
            outcome: *outcome,
        };
        let mut verdict = Verdict::default();
        verdict.checks = outcomes.iter().map(check).collect();
        verdict
    }

    #[test]
    fn what_cannot_be_decided_has_a_code_of_its_own() {
        let not_genuine = |outcomes: &[Outcome]| {
            let err = VerifyError { verdict: verdict(outcomes) };
            code(&ClientError::from(err).into(), FAILED)
        };
        assert_eq!(not_genuine(&[Outcome::Passed, Outcome::Undecided]), UNDECIDED);
        assert_eq!(not_genuine(&[Outcome::Undecided, Outcome::Failed]), NOT_GENUINE);
        let err = PolicyError { verdict: verdict(&[Outcome::Undecided]) };
        assert_eq!(code(&ClientError::from(err).into(), FAILED), UNDECIDED);
        let err = PolicyError { verdict: verdict(&[Outcome::Failed]) };
        assert_eq!(code(&ClientError::from(err).into(), FAILED), NOT_TRUSTED);
    }
}
