//! What a client is told: the attributes of `confonnx.client.Options`.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use confonnx_client::{
    Aead, Expectations, Kem, Policy, Proxy, SigningKey, TokenSource, load_enclave_hash, load_policy,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error;

#[derive(FromPyObject)]
pub(crate) struct Options {
    auth_key: Option<AuthKey>,
    basic: Option<(String, String)>,
    auth_key_outside: bool,
    enclave_signing_keys: Vec<String>,
    enclave_hashes: Vec<String>,
    enclave_model_hashes: Vec<String>,
    enclave_allow_debug: bool,
    policy: Option<PathBuf>,
    kem: Option<String>,
    aead: Option<String>,
    timeout: Option<f64>,
    sessions: bool,
    relay: Option<String>,
    chunked: bool,
    retries: u32,
    ca_file: Option<PathBuf>,
    proxy: Option<String>,
}

impl Options {
    /// The policy and the options that the client takes.
    pub(crate) fn parse(self) -> PyResult<(Policy, confonnx_client::Options)> {
        let policy = self.policy()?;
        let mut options = confonnx_client::Options::default();
        (options.resumption, options.relay, options.chunked) = (self.sessions, self.relay, self.chunked);
        (options.retries, options.ca_file) = (self.retries, self.ca_file);
        options.proxy = self.proxy.as_deref().map(Proxy::from_name).unwrap_or_default();
        match self.auth_key {
            Some(_) if self.auth_key_outside && self.basic.is_some() => {
                return Err(PyValueError::new_err(
                    "auth_key_outside: both a key and a user outside the seal; expected one of them",
                ));
            }
            Some(AuthKey::Source(_)) if self.auth_key_outside => {
                return Err(PyValueError::new_err(
                    "auth_key: a key outside the seal has to be a string, not a callable",
                ));
            }
            Some(AuthKey::Text(key)) if self.auth_key_outside => {
                options.outer_headers.push(("authorization".into(), format!("Bearer {key}").into()));
            }
            Some(AuthKey::Text(key)) => options.auth_key = Some(key.into()),
            Some(AuthKey::Source(source)) => options.auth_key_source = Some(token_source(source)),
            None => {}
        }
        options.basic = self.basic.map(|(user, password)| (user, password.into()));
        if let Some(name) = self.kem {
            options.kem = choice("kem", &name, Kem::from_name, &Kem::ALL.map(Kem::name))?;
        }
        if let Some(name) = self.aead {
            options.aead = choice("aead", &name, Aead::from_name, &Aead::ALL.map(Aead::name))?;
        }
        if let Some(seconds) = self.timeout {
            options.timeout =
                Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero()).ok_or_else(
                    || error::argument("timeout", format!("expected seconds above 0, found {seconds}")),
                )?;
        }
        Ok((policy, options))
    }

    /// The policy file or preset, narrowed to what is given beside it.
    fn policy(&self) -> PyResult<Policy> {
        if self.policy.is_some() && self.enclave_allow_debug {
            return Err(error::expectation(
                "enclave_allow_debug",
                "expected none beside a policy, which says itself whether debug is allowed",
            ));
        }
        let mut expected = match &self.policy {
            Some(source) => {
                load_policy(&source.to_string_lossy()).map_err(|err| error::expectation("policy", err))?
            }
            None => Expectations::new().allow_debug(self.enclave_allow_debug),
        };
        let keys = parsed("enclave_signing_key", &self.enclave_signing_keys, SigningKey::from_pem)?;
        let hashes = parsed("enclave_hash", &self.enclave_hashes, load_enclave_hash)?;
        let models = parsed("enclave_model_hash", &self.enclave_model_hashes, str::parse)?;
        expected
            .narrow_signing_keys(keys)
            .and_then(|()| expected.narrow_enclave_hashes(hashes))
            .and_then(|()| expected.narrow_model_hashes(models))
            .and_then(|()| Policy::new(expected))
            .map_err(error::policy)
    }
}

/// The expectations `name`, each of them parsed.
fn parsed<T, E: Display>(
    name: &str,
    given: &[String],
    parse: impl Fn(&str) -> Result<T, E>,
) -> PyResult<Vec<T>> {
    given.iter().map(|text| parse(text).map_err(|err| error::expectation(name, err))).collect()
}

/// A bearer token, or what gives one for each call.
#[derive(FromPyObject)]
enum AuthKey {
    #[pyo3(transparent, annotation = "str")]
    Text(String),
    #[pyo3(transparent, annotation = "callable")]
    Source(Py<PyAny>),
}

fn token_source(source: Py<PyAny>) -> TokenSource {
    TokenSource::new(move || {
        // Its exception reaches the caller as it is.
        let token = Python::attach(|py| source.call0(py)?.extract::<String>(py))?;
        Ok(token.into())
    })
}

fn choice<T>(argument: &str, name: &str, parse: impl Fn(&str) -> Option<T>, known: &[&str]) -> PyResult<T> {
    let unknown =
        || error::argument(argument, format!("expected one of {}, found {name:?}", known.join(", ")));
    parse(name).ok_or_else(unknown)
}
