//! The `confonnx-server` program.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]

use std::{io::Write, path::Path, process::ExitCode};

use confonnx_server::{
    config::{Config, ConfigError, LogFormat, LogLevel, unknown_variables},
    hardening, log, server, tee,
};

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == confonnx_engine::ARGUMENT) {
        return confonnx_engine::run_box();
    }
    let config = match Config::load(std::env::args_os()) {
        Ok(config) => config,
        // Help and version, too: they go to standard output with status 0.
        Err(ConfigError::Arguments(error)) => error.exit(),
        Err(error) => {
            log::start(LogLevel::Error, LogFormat::Text);
            tracing::error!(target: "confonnx_server", "{error}");
            return ExitCode::from(2);
        }
    };
    log::start(config.log_level, config.log_format);
    hardening::silence_panics();
    for name in unknown_variables(std::env::vars_os().map(|(name, _)| name)) {
        tracing::warn!(target: "confonnx_server", "{name} is set, but no setting has that name; see --help");
    }
    let done = if config.check { check(&config) } else { run(config) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(target: "confonnx_server", "{}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error with its causes, each said once: some errors quote theirs.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text += ": ";
            text += &cause;
        }
    }
    text
}

/// Refuses variables that change what code runs, where somebody unseen could have set them.
fn check_environment(config: &Config) -> Result<(), hardening::EnvironmentError> {
    let names = std::env::vars_os().map(|(name, _)| name);
    hardening::check_environment(config.insecure || tee::measures_environment(Path::new("/")), names)
}

/// Says that the settings are good, if they are.
fn check(config: &Config) -> anyhow::Result<()> {
    check_environment(config)?;
    let mut out = std::io::stdout().lock();
    for line in server::check(config)? {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn run(config: Config) -> anyhow::Result<()> {
    check_environment(&config)?;
    hardening::forbid_dumps()?;
    hardening::lock_memory();
    // This runtime is for keys, collateral and the admin port; connections to the public one have threads of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let stop = server::signals()?;
        let server = server::Server::start(config).await?;
        server.run(stop).await;
        Ok(())
    });
    // Requests that still run had their grace.
    runtime.shutdown_background();
    ended
}
