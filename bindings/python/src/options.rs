//! A client's options: the attributes of `confonnx._options.Options`.

use std::path::PathBuf;
use std::time::Duration;

use confonnx_client::{
    Given, GivenError, GivenOption, NameError, Policy, Progress, Proxy, TokenSource, load_enclave_hash,
    load_policy,
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
    progress: Option<Py<PyAny>>,
}

impl Options {
    /// The policy and the options for `confonnx-client`.
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
        options.progress = self.progress.map(progress);
        options.basic = self.basic.map(|(user, password)| (user, password.into()));
        if let Some(name) = self.kem {
            options.kem = name.parse().map_err(|err: NameError| error::argument("kem", err))?;
        }
        if let Some(name) = self.aead {
            options.aead = name.parse().map_err(|err: NameError| error::argument("aead", err))?;
        }
        if let Some(seconds) = self.timeout {
            options.timeout =
                Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero()).ok_or_else(
                    || error::argument("timeout", format!("expected seconds above 0, found {seconds}")),
                )?;
        }
        Ok((policy, options))
    }

    /// The policy file or preset, narrowed to the expectations that are given beside it.
    fn policy(&self) -> PyResult<Policy> {
        let wrong = |err| error::expectation("policy", err);
        let source = self.policy.as_ref().map(|source| load_policy(&source.to_string_lossy()));
        let policy = source.transpose().map_err(wrong)?;
        let mut beside = Given::default();
        (beside.enclave_hashes, beside.signing_keys) = (&self.enclave_hashes, &self.enclave_signing_keys);
        (beside.model_hashes, beside.allow_debug) = (&self.enclave_model_hashes, self.enclave_allow_debug);
        beside.narrow(policy, load_enclave_hash).map_err(|err| match err {
            GivenError::Option { option, reason } => error::expectation(named(option), reason),
            err => error::policy(err),
        })
    }
}

fn named(option: GivenOption) -> &'static str {
    match option {
        GivenOption::EnclaveHash => "enclave_hash",
        GivenOption::SigningKey => "enclave_signing_key",
        GivenOption::ModelHash => "enclave_model_hash",
        GivenOption::AllowDebug => "enclave_allow_debug",
        _ => "policy",
    }
}

/// A bearer token, or a function that gives one for each call.
#[derive(FromPyObject)]
enum AuthKey {
    #[pyo3(transparent, annotation = "str")]
    Text(String),
    #[pyo3(transparent, annotation = "callable")]
    Source(Py<PyAny>),
}

fn token_source(source: Py<PyAny>) -> TokenSource {
    TokenSource::new(move || {
        // The function's exception reaches the caller as it is.
        let token = Python::attach(|py| source.call0(py)?.extract::<String>(py))?;
        Ok(token.into())
    })
}

fn progress(told: Py<PyAny>) -> Progress {
    Progress::new(move |transfer| {
        // When the interpreter ends there is no Python to tell.
        Python::try_attach(|py| {
            if let Err(err) = told.call1(py, (transfer.sending, transfer.done, transfer.total)) {
                // The transfer goes on: an exception of the function that shows it is no reason to give it up.
                err.write_unraisable(py, Some(told.bind(py)));
            }
        });
    })
}
