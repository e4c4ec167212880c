//! A `confonnx-server` process of our own, on a free port.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, bail};
use confonnx_server::config::Config;

/// The running server; killed on drop.
pub(crate) struct Server {
    pub(crate) url: String,
    process: Child,
}

/// The flags a server for `model` gets. Whatever they do not say is the server's default.
fn flags(model: &Path) -> Vec<String> {
    let rest = ["--debug", "--address", "127.0.0.1", "--http-port", "0", "--admin-port", "0"];
    let model = ["--model-path".to_owned(), model.display().to_string()];
    model.into_iter().chain(rest.map(str::to_owned)).collect()
}

/// The settings that a server for `model` comes to from its flags and our environment, read by its own code.
pub(crate) fn config(model: &Path) -> anyhow::Result<Config> {
    let arguments = [String::from("confonnx-server")].into_iter().chain(flags(model));
    Config::load(arguments).context("the server's settings")
}

impl Server {
    /// Starts `executable` for `model` and waits until it says where it listens.
    pub(crate) fn start(executable: &Path, model: &Path) -> anyhow::Result<Self> {
        let mut process = Command::new(executable)
            .args(flags(model))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}; run `make bench`", executable.display()))?;
        let log = process.stderr.take().context("the server's log")?;
        let mut server = Self { url: String::new(), process };
        let mut log = BufReader::new(log).lines();
        let mut said = String::new();
        for line in &mut log {
            let line = line?;
            if let Some(url) = address(&line) {
                server.url = url.to_owned();
                // Read on, or the server would wait for room in the pipe.
                thread::spawn(move || log.for_each(drop));
                return Ok(server);
            }
            said.push_str(&line);
            said.push('\n');
        }
        bail!("{} stopped before it served. It said:\n{said}", executable.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing left to do then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn address(line: &str) -> Option<&str> {
    let (_, url) = line.split_once("serving on ")?;
    url.starts_with("http://").then(|| url.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_log() {
        let line = "2026-11-23T11:50:39.000001Z  INFO serving on http://127.0.0.1:40123";
        assert_eq!(address(line), Some("http://127.0.0.1:40123"));
        assert_eq!(address("INFO model tiny from serving on"), None);
    }

    #[test]
    fn settings_are_the_defaults_but_for_ports_and_debug() {
        let config = config(Path::new("some/tiny.onnx")).unwrap();
        assert_eq!((config.model_name.as_str(), config.http.port(), config.admin), ("tiny", 0, None));
        assert!(config.insecure && config.http.ip().is_loopback());
    }
}
