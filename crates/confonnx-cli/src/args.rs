//! Arguments that several commands share.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use confonnx_client::{
    Aead, Expectations, Kem, ModelPin, ModelRef, Options, Policy, Proxy, Secret, SigningKey,
    load_enclave_hash, load_policy,
};

/// What the server has to be.
#[derive(Args)]
#[command(next_help_heading = "What the server has to be")]
pub(crate) struct Expected {
    /// A policy file (docs/guides/attestation.md), or the preset `strict` or `cloud`. The flags below narrow it
    #[arg(long, value_name = "FILE|PRESET")]
    policy: Option<String>,
    /// What the TEE has to have measured of the server: hex, or an enclave_info.json as `confonnx measure` writes it.
    /// Repeat to accept several
    #[arg(long, value_name = "HEX|FILE")]
    enclave_hash: Vec<String>,
    /// The public key (PEM) that has to have signed the server's program. Repeat to accept several
    #[arg(long, value_name = "FILE")]
    enclave_signing_key_file: Vec<PathBuf>,
    /// The hash (see `confonnx hash-model`) of the model that is called, or for one model by name. Repeat to accept several
    #[arg(long, value_name = "HEX|NAME=HEX")]
    enclave_model_hash: Vec<ModelPin>,
    /// The same, read from a file
    #[arg(long, value_name = "FILE")]
    enclave_model_hash_file: Vec<PathBuf>,
    /// Accept TEEs in debug mode and, without an enclave hash, the insecure TEE: no confidentiality, for development.
    /// A policy says that itself
    #[arg(long, conflicts_with = "policy")]
    enclave_allow_debug: bool,
}

/// The model to call.
#[derive(Args)]
pub(crate) struct Called {
    /// The model; may be left out when the server has only one
    #[arg(long, visible_alias = "model-name", value_name = "NAME")]
    model: Option<String>,
    /// Its version [default: the highest with the expected model hash, or the highest]
    #[arg(long, value_name = "NUMBER")]
    model_version: Option<String>,
}

impl Called {
    pub(crate) fn get(&self) -> ModelRef<'_> {
        ModelRef { name: self.model.as_deref(), version: self.model_version.as_deref() }
    }
}

/// How to reach the server.
#[derive(Args)]
#[command(next_help_heading = "How to reach it")]
pub(crate) struct Connection {
    /// Bearer token for the server, in a file; or set CONFONNX_AUTH_KEY. It travels sealed
    #[arg(long, value_name = "FILE")]
    auth_key_file: Option<PathBuf>,
    /// User for HTTP Basic, for an ingress before the server. It travels outside the seal
    #[arg(long, value_name = "NAME", requires = "auth_pass_file")]
    auth_user: Option<String>,
    /// Its password, in a file
    #[arg(long, value_name = "FILE", requires = "auth_user")]
    auth_pass_file: Option<PathBuf>,
    /// Longest time for a call, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    timeout: f64,
    /// How often to repeat, after a pause, a call that the server was too busy for or whose connection broke
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    retries: u32,
    /// Certificates (PEM) that https is checked against, in place of this machine's
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// HTTP proxy on the way, or `none` [default: what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say]
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Key encapsulation: x-wing (post-quantum), x25519 or p-256
    #[arg(long, default_value = "x-wing")]
    kem: Kem,
    /// Encryption: aes-256-gcm, aes-128-gcm or chacha20-poly1305
    #[arg(long, default_value = "aes-256-gcm")]
    aead: Aead,
}

/// How a web server is reached that is no server of ours.
pub(crate) struct Way<'a> {
    /// Authorities in place of this machine's.
    pub(crate) ca_file: Option<&'a Path>,
    /// A proxy, or `none`; left out, what the environment says.
    pub(crate) proxy: Option<&'a str>,
    /// Longest wait for the head of an answer.
    pub(crate) timeout: Duration,
}

impl Expected {
    /// The policy; `max_age` for documents without our nonce.
    pub(crate) fn policy(&self, max_age: Option<Duration>) -> Result<Policy> {
        self.policy_of(&[], max_age)
    }

    /// The policy, with further sources of enclave hashes.
    pub(crate) fn policy_of(&self, released: &[String], max_age: Option<Duration>) -> Result<Policy> {
        let mut expected = match &self.policy {
            Some(source) => load_policy(source)?,
            None => Expectations::new().allow_debug(self.enclave_allow_debug),
        };
        let hashes = self.enclave_hash.iter().chain(released).map(|source| load_enclave_hash(source));
        expected.narrow_enclave_hashes(hashes.collect::<Result<_, _>>()?)?;
        let keys = self.enclave_signing_key_file.iter().map(|path| {
            SigningKey::from_pem(&text(path)?).with_context(|| format!("cannot use {}", path.display()))
        });
        expected.narrow_signing_keys(keys.collect::<Result<_>>()?)?;
        let read = self.enclave_model_hash_file.iter().map(|path| {
            text(path)?.trim().parse().with_context(|| format!("no model hash in {}", path.display()))
        });
        let given = self.enclave_model_hash.iter().cloned().map(Ok);
        expected.narrow_model_hashes(given.chain(read).collect::<Result<_>>()?)?;
        if let Some(max_age) = max_age {
            expected.narrow_max_age(max_age);
        }
        Ok(Policy::new(expected)?)
    }
}

impl Connection {
    pub(crate) fn options(&self) -> Result<Options> {
        let mut options = Options::default();
        options.auth_key = match &self.auth_key_file {
            Some(path) => Some(secret(path)?),
            None => std::env::var("CONFONNX_AUTH_KEY").ok().filter(|key| !key.is_empty()).map(Secret::from),
        };
        if let (Some(user), Some(path)) = (&self.auth_user, &self.auth_pass_file) {
            options.basic = Some((user.clone(), secret(path)?));
        }
        options.timeout = Duration::from_secs_f64(self.timeout);
        (options.retries, options.ca_file) = (self.retries, self.ca_file.clone());
        options.proxy = self.proxy.as_deref().map(Proxy::from_name).unwrap_or_default();
        (options.kem, options.aead) = (self.kem, self.aead);
        Ok(options)
    }

    /// How other servers of the web are reached.
    pub(crate) fn way(&self) -> Way<'_> {
        let (ca_file, proxy) = (self.ca_file.as_deref(), self.proxy.as_deref());
        Way { ca_file, proxy, timeout: Duration::from_secs_f64(self.timeout) }
    }
}

/// Bytes of a file, with its name in the error.
pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn secret(path: &Path) -> Result<Secret> {
    let text = text(path)?;
    if text.trim().is_empty() {
        bail!("expected a secret in {}, found an empty file", path.display());
    }
    Ok(text.trim().into())
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds from 0.001 to 86400".into()),
    }
}
