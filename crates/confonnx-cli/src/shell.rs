//! What a shell and `man` know of the command, made from its own definition.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{Cli, print};

/// Print what a shell needs to complete this command's words
///
/// For bash: confonnx completions bash > ~/.local/share/bash-completion/completions/confonnx
#[derive(Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

/// Write manual pages: confonnx.1, confonnx-predict.1, …
///
/// For `man confonnx`: confonnx man ~/.local/share/man/man1
#[derive(Args)]
pub(crate) struct Man {
    /// Folder to write to
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
}

impl Completions {
    pub(crate) fn run(&self) -> Result<()> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "confonnx", &mut text);
        Ok(print(String::from_utf8(text)?.trim_end())?)
    }
}

impl Man {
    pub(crate) fn run(&self) -> Result<()> {
        let folder = &self.folder;
        fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
            .with_context(|| format!("cannot write to {}", folder.display()))
    }
}
