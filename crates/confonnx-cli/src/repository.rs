use anyhow::Result;
use clap::Args;
use confonnx_client::{ModelState, blocking::Client};
use serde_json::json;

use crate::args::{Connection, Expected};
use crate::model::aligned;
use crate::print;

/// List the models of a server, and whether each is served
///
/// The server is verified first; it lists the models that the caller may use. Exit codes are those of `confonnx predict`.
#[derive(Args)]
pub(crate) struct Models {
    /// Print JSON: [{"name", "version", "state", "reason"}, …]
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Load a model of a server's repository, or what of it has changed
///
/// For servers with --model-control explicit, and callers that may `manage`. The server is verified first. The models are
/// part of what it proves, so every client asks for a new proof before its next call. Exit codes are those of
/// `confonnx predict`.
#[derive(Args)]
pub(crate) struct Load {
    /// The model: its folder's name in the repository
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    server: Server,
}

/// Unload a model: the server serves it no more, until it is loaded again
///
/// For servers with --model-control explicit, and callers that may `manage`. The server is verified first. Requests that
/// it has opened are still answered. Exit codes are those of `confonnx predict`.
#[derive(Args)]
pub(crate) struct Unload {
    /// The model
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
struct Server {
    /// The server
    #[arg(long, value_name = "URL")]
    url: String,
    #[command(flatten)]
    expected: Expected,
    #[command(flatten)]
    connection: Connection,
}

impl Models {
    pub(crate) fn run(&self) -> Result<()> {
        let models = self.server.client()?.models()?;
        Ok(print(&if self.json { report(&models)? } else { table(&models) })?)
    }
}

impl Load {
    pub(crate) fn run(&self) -> Result<()> {
        self.server.client()?.load(&self.name)?;
        Ok(print(&format!("Loaded: {}", self.name))?)
    }
}

impl Unload {
    pub(crate) fn run(&self) -> Result<()> {
        self.server.client()?.unload(&self.name)?;
        Ok(print(&format!("Unloaded: {}", self.name))?)
    }
}

impl Server {
    fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.url, self.expected.policy(None)?, self.connection.options()?)?)
    }
}

fn report(models: &[ModelState]) -> serde_json::Result<String> {
    let model = |model: &ModelState| json!({ "name": model.name, "version": model.version, "state": model.state, "reason": model.reason });
    serde_json::to_string_pretty(&models.iter().map(model).collect::<Vec<_>>())
}

fn table(models: &[ModelState]) -> String {
    let mut rows = vec![["name", "version", "state", "reason"].map(String::from)];
    rows.extend(models.iter().map(|model| {
        let version = model.version.as_deref().unwrap_or("-");
        [&model.name, version, &model.state, &model.reason].map(visible)
    }));
    aligned(&rows).trim_end().to_owned()
}

/// What the server says, without what a terminal would take for commands.
fn visible(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_reason_sends_no_commands_to_the_terminal() {
        assert_eq!(super::visible("gone\x1b[2J\nREADY"), "gone\u{fffd}[2J\u{fffd}READY");
    }
}
