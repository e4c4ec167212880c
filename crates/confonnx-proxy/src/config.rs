//! Several servers in one file.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use confonnx_client::{Client, Options, Policy, load_policy};
use serde::Deserialize;

use crate::Upstream;

/// A file with `[[upstream]]` tables.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The servers; the first that has a model is asked for it.
    pub upstream: Vec<UpstreamConfig>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// The server's name for people: in metrics and on the page.
    pub name: String,
    /// The server's URL.
    pub url: String,
    /// The server's policy: a policy file, found beside this one, or a preset.
    pub policy: String,
    /// The models that it is asked for: names, or how they start with `*` at the end. All when left out.
    #[serde(default)]
    pub models: Vec<String>,
    /// The beginning of paths that go to this server whatever model they name, such as `/team-a`.
    pub path: Option<String>,
    /// The token for the server, in a file found beside this one. It travels sealed.
    pub auth_key_file: Option<PathBuf>,
    /// Longest time for a call, in seconds.
    pub timeout: Option<f64>,
    /// Certificates that https is checked against, in place of this machine's.
    pub ca_file: Option<PathBuf>,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file says something else.
    #[error("{}: {reason}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        reason: String,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let invalid = |reason: String| ConfigError::Invalid { path: path.into(), reason };
        let config: Self = toml::from_str(&text(path)?).map_err(|err| invalid(err.to_string()))?;
        if config.upstream.is_empty() {
            return Err(invalid("expected at least one [[upstream]], found none".into()));
        }
        for (place, upstream) in config.upstream.iter().enumerate() {
            upstream.check().map_err(&invalid)?;
            if config.upstream.iter().take(place).any(|other| other.name == upstream.name) {
                return Err(invalid(format!(
                    "two upstreams have the name `{}`: give each its own",
                    upstream.name
                )));
            }
        }
        Ok(config)
    }

    /// The servers, each with `options` where its table says nothing else. Files are looked for in `folder`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn open(self, folder: &Path, options: &Options) -> Result<Vec<Upstream>, ConfigError> {
        self.upstream.into_iter().map(|upstream| upstream.open(folder, options.clone())).collect()
    }
}

impl UpstreamConfig {
    fn check(&self) -> Result<(), String> {
        if let Some(path) = &self.path
            && (!path.starts_with('/') || path.trim_end_matches('/').is_empty())
        {
            return Err(format!("upstream `{}`: expected a path such as /team-a, found `{path}`", self.name));
        }
        match self.timeout {
            Some(seconds) if !(0.001..=86_400.0).contains(&seconds) => Err(format!(
                "upstream `{}`: expected a timeout from 0.001 to 86400 seconds, found {seconds}",
                self.name
            )),
            _ => Ok(()),
        }
    }

    fn open(self, folder: &Path, mut options: Options) -> Result<Upstream, ConfigError> {
        let said = format!("upstream `{}`", self.name);
        let invalid = |reason: String| ConfigError::Invalid { path: said.clone().into(), reason };
        let beside = folder.join(&self.policy);
        let source = if beside.is_file() { beside.display().to_string() } else { self.policy.clone() };
        let expected = load_policy(&source).map_err(|err| invalid(err.to_string()))?;
        let policy = Policy::new(expected).map_err(|err| invalid(err.to_string()))?;
        if let Some(path) = &self.auth_key_file {
            let path = folder.join(path);
            let token = text(&path)?;
            if token.trim().is_empty() {
                return Err(ConfigError::Invalid {
                    path,
                    reason: "expected a secret, found an empty file".into(),
                });
            }
            options = options.auth_key(token.trim());
        }
        if let Some(seconds) = self.timeout {
            options.timeout = Duration::from_secs_f64(seconds);
        }
        if let Some(path) = &self.ca_file {
            options.ca_file = Some(folder.join(path));
        }
        let passes_token = options.auth_key.is_none();
        let client = Client::new(&self.url, policy, options).map_err(|err| invalid(err.to_string()))?;
        Ok(Upstream::new(self.name, client).models(self.models).path(self.path).passes_token(passes_token))
    }
}

fn text(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Config::read(file.path()).map_err(|err| err.to_string())
    }

    #[test]
    fn the_sample_is_two_servers() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/samples/proxy/proxy.toml");
        let upstreams =
            Config::read(&path).unwrap().open(path.parent().unwrap(), &Options::default()).unwrap();
        assert_eq!(upstreams.len(), 2);
        assert!(upstreams[0].has("resnet50") && upstreams[0].has("digits") && !upstreams[0].has("digits2"));
        assert_eq!(upstreams[1].path.as_deref(), Some("/team-a"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let one = "[[upstream]]\nname = \"a\"\nurl = \"http://h\"\npolicy = \"strict\"\n";
        assert!(read(one).is_ok());
        for (text, said) in [
            ("upstream = []".into(), "at least one [[upstream]]"),
            (format!("{one}{one}"), "two upstreams have the name `a`"),
            (format!("{one}path = \"team\""), "a path such as /team-a"),
            (format!("{one}path = \"/\""), "a path such as /team-a"),
            (format!("{one}timeout = 0"), "timeout from 0.001"),
            (format!("{one}polcy = 1"), "polcy"),
        ] {
            let refused = read(&text).unwrap_err();
            assert!(refused.contains(said), "{text}: {refused}");
        }
    }
}
