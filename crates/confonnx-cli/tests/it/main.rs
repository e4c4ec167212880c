//! The command as its users call it.

#![allow(clippy::restriction, reason = "a test may panic")]

mod help;
mod measure;
mod model;
mod repository;
mod shell;
mod token;
mod verify;

use std::process::{Command, Output};

/// Runs `confonnx` with nothing ambient that could change its output.
fn confonnx(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_confonnx"))
        .args(args)
        .env_remove("COLUMNS")
        .env_remove("CONFONNX_AUTH_KEY")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
