//! A `confonnx-server` process of our own, on a free port.

use std::path::Path;

use anyhow::Context;
use confonnx_server::config::Config;

use crate::process::Group;

/// The running server.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) group: Group,
}

/// The flags that a server for `model` gets. Other settings have the server's defaults.
fn flags(model: &Path) -> Vec<String> {
    let rest = ["--debug", "--address", "127.0.0.1", "--http-port", "0", "--admin-port", "0"];
    let model = ["--model-path".to_owned(), model.display().to_string()];
    model.into_iter().chain(rest.map(str::to_owned)).collect()
}

/// The settings that a server for `model` comes to from its flags and this process's environment, read by the server's
/// code.
pub(crate) fn config(model: &Path) -> anyhow::Result<Config> {
    let arguments = [String::from("confonnx-server")].into_iter().chain(flags(model));
    Config::load(arguments).context("the server's settings")
}

impl Server {
    /// Starts `executable` for `model`, with more `flags`, and waits until it says where it listens.
    pub(crate) fn start(executable: &Path, model: &Path, more: &[&str], log: &Path) -> anyhow::Result<Self> {
        let mut arguments = flags(model);
        arguments.extend(more.iter().map(|&flag| flag.to_owned()));
        // All load comes from one address. The setting is a variable, as older servers do not know the flag.
        let alone = [("CONFONNX_MAX_PEER_PERCENT", "100".to_owned())];
        let mut group = Group::start(executable, &arguments, &alone, log)?;
        let url = group.wait_for(|said| said.lines().find_map(address).map(str::to_owned));
        Ok(Self { url: url.with_context(|| executable.display().to_string())?, group })
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
        assert_eq!((config.models.name(), config.http.port(), config.admin), ("tiny", 0, None));
        assert!(config.insecure && config.http.ip().is_loopback());
    }
}
