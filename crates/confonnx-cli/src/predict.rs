use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use confonnx_client::{blocking::Client, json};
use confonnx_model::{read_tensor_proto, write_tensor_proto};
use confonnx_tensor::Tensor;

use crate::args::{Called, Connection, Expected, bytes};
use crate::{print, progress};

/// Run a model on inputs that only the verified server can see
///
/// Inputs are TensorProto files (--pb-in) or JSON (--json-in); outputs are JSON on stdout unless --pb-out or --json-out
/// says otherwise. While much is on its way, a terminal shows how far it is. Nothing is sent before the server has proved what it is.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 evidence not genuine, 4 genuine but refused by the policy, 5 evidence
/// that cannot be decided about (certificates or revocation lists missing or too old).
#[derive(Args)]
#[command(group = ArgGroup::new("inputs").required(true))]
pub(crate) struct Predict {
    /// The server
    #[arg(long, value_name = "URL")]
    url: String,
    #[command(flatten)]
    model: Called,
    /// Outputs to return; all when left out
    #[arg(long, value_name = "NAME", num_args = 1..)]
    outputs: Vec<String>,
    /// Inputs as TensorProto files
    #[arg(long, value_name = "FILE", num_args = 1.., group = "inputs")]
    pb_in: Vec<PathBuf>,
    /// Their names, in the same order, instead of those in the files
    #[arg(long, value_name = "NAME", num_args = 1.., requires = "pb_in")]
    pb_in_names: Vec<String>,
    /// Folder for outputs as TensorProto files output_0.pb, output_1.pb, …
    #[arg(long, value_name = "DIR")]
    pb_out: Option<PathBuf>,
    /// Inputs as JSON, `-` for stdin: {"name": {"type": "float32", "values": […]}}
    #[arg(long, value_name = "FILE", group = "inputs")]
    json_in: Option<PathBuf>,
    /// File for outputs as JSON, `-` for stdout
    #[arg(long, value_name = "FILE")]
    json_out: Option<PathBuf>,
    #[command(flatten)]
    expected: Expected,
    #[command(flatten)]
    connection: Connection,
}

impl Predict {
    pub(crate) fn run(&self) -> Result<()> {
        let policy = self.expected.policy(None)?;
        let inputs = self.inputs()?;
        let mut options = self.connection.options()?;
        options.progress = progress::bar();
        let client = Client::new(&self.url, policy, options)?;
        let outputs = client.infer(self.model.get(), inputs, &self.outputs);
        // Dropping the client takes away what is left of the progress bar.
        drop(client);
        let outputs = outputs?;
        if let Some(folder) = &self.pb_out {
            write_files(folder, &outputs)?;
        }
        match &self.json_out {
            Some(path) if path != Path::new("-") => fs::write(path, json::write(&outputs)? + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?,
            None if self.pb_out.is_some() => {}
            _ => print(&json::write(&outputs)?)?,
        }
        Ok(())
    }

    fn inputs(&self) -> Result<Vec<(String, Tensor<'static>)>> {
        if let Some(path) = &self.json_in {
            let mut text = Vec::new();
            if path == Path::new("-") {
                io::stdin().lock().read_to_end(&mut text).context("cannot read stdin")?;
            } else {
                text = bytes(path)?;
            }
            return json::read(&text).with_context(|| format!("cannot use {}", path.display()));
        }
        if !self.pb_in_names.is_empty() && self.pb_in_names.len() != self.pb_in.len() {
            bail!(
                "expected as many --pb-in-names as --pb-in files, found {} and {}",
                self.pb_in_names.len(),
                self.pb_in.len()
            );
        }
        self.pb_in
            .iter()
            .enumerate()
            .map(|(i, path)| {
                let read = read_tensor_proto(&bytes(path)?);
                let (name, tensor) = read.with_context(|| format!("cannot use {}", path.display()))?;
                let name = self.pb_in_names.get(i).cloned().unwrap_or(name);
                if name.is_empty() {
                    bail!("{} says no name for its tensor: give one with --pb-in-names", path.display());
                }
                Ok((name, tensor))
            })
            .collect()
    }
}

fn write_files(folder: &Path, outputs: &[(String, Tensor<'_>)]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for (i, (name, tensor)) in outputs.iter().enumerate() {
        let path = folder.join(format!("output_{i}.pb"));
        fs::write(&path, write_tensor_proto(name, tensor))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
