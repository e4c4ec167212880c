//! The client's class.

use std::fmt::Display;
use std::future::Future;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use confonnx_client::{
    Aead, ClientError, Expectations, Kem, ModelRef, Options, Policy, SigningKey, TokenSource,
    load_enclave_hash, load_policy,
};
use confonnx_model::encrypted::{ModelKey, OwnerKey};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::error::{self, PyCheck};
use crate::tensor::{PyTensor, Returned, to_python};

/// How often a waiting call looks for signals, so that Ctrl-C ends it.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// See `confonnx.client.Client`.
#[pyclass(frozen, module = "confonnx._confonnx")]
pub(crate) struct Client {
    inner: confonnx_client::Client,
    threads: Mutex<Threads>,
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (url, *, auth_key, basic, auth_key_outside, enclave_signing_key, enclave_hash, enclave_model_hash, enclave_allow_debug, policy, kem, aead, timeout, sessions, relay, chunked))]
    #[expect(clippy::too_many_arguments, reason = "one for each keyword")]
    fn new(
        url: &str,
        auth_key: Option<AuthKey>,
        basic: Option<(String, String)>,
        auth_key_outside: bool,
        enclave_signing_key: Option<&str>,
        enclave_hash: Option<&str>,
        enclave_model_hash: Option<&str>,
        enclave_allow_debug: bool,
        policy: Option<&str>,
        kem: Option<&str>,
        aead: Option<&str>,
        timeout: Option<f64>,
        sessions: bool,
        relay: Option<String>,
        chunked: bool,
    ) -> PyResult<Self> {
        let given = Given { enclave_signing_key, enclave_hash, enclave_model_hash, enclave_allow_debug };
        let policy = given.policy(policy)?;

        let mut options = Options::default();
        (options.sessions, options.relay, options.chunked) = (sessions, relay, chunked);
        match auth_key {
            Some(_) if auth_key_outside && basic.is_some() => {
                return Err(PyValueError::new_err(
                    "both a key and a user outside the seal: expected one of them",
                ));
            }
            Some(AuthKey::Source(_)) if auth_key_outside => {
                return Err(PyValueError::new_err(
                    "a key outside the seal has to be a string, not a callable",
                ));
            }
            Some(AuthKey::Text(key)) if auth_key_outside => {
                options.outer_headers.push(("authorization".into(), format!("Bearer {key}").into()));
            }
            Some(AuthKey::Text(key)) => options.auth_key = Some(key.into()),
            Some(AuthKey::Source(source)) => options.auth_key_source = Some(token_source(source)),
            None => {}
        }
        options.basic = basic.map(|(user, password)| (user, password.into()));
        if let Some(name) = kem {
            options.kem = choice("kem", name, Kem::from_name, &Kem::ALL.map(Kem::name))?;
        }
        if let Some(name) = aead {
            options.aead = choice("aead", name, Aead::from_name, &Aead::ALL.map(Aead::name))?;
        }
        if let Some(seconds) = timeout {
            options.timeout =
                Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero()).ok_or_else(
                    || error::argument("timeout", format!("expected seconds above 0, found {seconds}")),
                )?;
        }

        let inner = confonnx_client::Client::new(url, policy, options).map_err(error::client)?;
        Ok(Self { inner, threads: Mutex::new(Threads::start()?) })
    }

    fn predict<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<PyTensor>,
        outputs: Vec<String>,
        model: Option<&str>,
        version: Option<&str>,
    ) -> PyResult<Vec<Returned<'py>>> {
        let model = ModelRef { name: model, version };
        let inputs = inputs.iter().map(PyTensor::parse).collect::<PyResult<_>>()?;
        let results = self.wait(py, self.inner.infer(model, inputs, &outputs))?;
        results.into_iter().map(|(name, tensor)| to_python(py, name, &tensor)).collect()
    }

    fn attest(&self, py: Python<'_>) -> PyResult<(&'static str, String, Vec<PyCheck>, String)> {
        let trusted = self.wait(py, self.inner.attest())?;
        let claims = String::from_utf8_lossy(&trusted.claims().to_bytes()).into_owned();
        let verdict = trusted.verdict();
        Ok((trusted.tee().name(), claims, error::checks(&verdict.checks), verdict.to_string()))
    }

    fn metadata(&self, py: Python<'_>, model: Option<&str>, version: Option<&str>) -> PyResult<Metadata> {
        let model = ModelRef { name: model, version };
        let metadata = self.wait(py, self.inner.metadata(model))?;
        let describe = |tensors: Vec<confonnx_client::TensorMetadata>| {
            tensors.into_iter().map(|tensor| (tensor.name, tensor.datatype.name(), tensor.shape)).collect()
        };
        Ok((
            metadata.name,
            metadata.versions,
            metadata.platform,
            describe(metadata.inputs),
            describe(metadata.outputs),
        ))
    }

    fn provision_model_key(
        &self,
        py: Python<'_>,
        key: &str,
        model: Option<&str>,
        version: Option<&str>,
        owner_key: Option<&str>,
    ) -> PyResult<Option<String>> {
        let model = ModelRef { name: model, version };
        // Looked at here, so that what is no key is never sent.
        let key: ModelKey = key.parse().map_err(|err| error::argument("key", err))?;
        let owner = owner_key.map(OwnerKey::from_pem).transpose();
        let owner = owner.map_err(|err| error::argument("owner_key", err))?;
        let claim = self.wait(py, self.inner.provision_model_key(model, &key, owner.as_ref()))?;
        Ok(claim.sha256.map(|hash| hash.to_string()))
    }

    #[getter]
    fn url(&self) -> String {
        self.inner.url()
    }

    #[setter]
    fn set_url(&self, url: &str) -> PyResult<()> {
        self.inner.set_url(url).map_err(error::client)
    }

    #[getter]
    fn key_rollover_count(&self) -> u64 {
        self.inner.key_rollover_count()
    }

    #[getter]
    fn key_invalid_count(&self) -> u64 {
        self.inner.key_invalid_count()
    }

    #[getter]
    fn key_outdated(&self) -> bool {
        self.inner.key_outdated()
    }
}

impl Client {
    /// Runs `work` to its end without the GIL, or until a signal handler raises.
    fn wait<T: Send>(
        &self,
        py: Python<'_>,
        work: impl Future<Output = Result<T, ClientError>> + Send,
    ) -> PyResult<T> {
        py.detach(|| {
            self.runtime()?.block_on(async {
                let mut work = std::pin::pin!(work);
                loop {
                    match timeout(SIGNAL_INTERVAL, &mut work).await {
                        Ok(result) => return result.map_err(error::client),
                        Err(_) => Python::attach(|py| py.check_signals())?,
                    }
                }
            })
        })
    }
}

impl Client {
    /// That of this process: threads do not survive a fork.
    fn runtime(&self) -> PyResult<Arc<Runtime>> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.process != process::id() {
            *threads = Threads::start()?;
        }
        Ok(Arc::clone(&threads.runtime))
    }
}

/// The thread that keeps connections alive, and the process it belongs to.
struct Threads {
    process: u32,
    runtime: Arc<Runtime>,
}

impl Threads {
    fn start() -> PyResult<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("confonnx-client")
            .enable_all()
            .build()
            .map_err(PyErr::from)?;
        Ok(Self { process: process::id(), runtime: Arc::new(runtime) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // In a fork there is no thread to wait for, and what it watched is still the parent's.
        if self.process != process::id() {
            std::mem::forget(Arc::clone(&self.runtime));
        }
    }
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

/// What is expected beside a policy file.
struct Given<'a> {
    enclave_signing_key: Option<&'a str>,
    enclave_hash: Option<&'a str>,
    enclave_model_hash: Option<&'a str>,
    enclave_allow_debug: bool,
}

impl Given<'_> {
    /// The policy of `source`, a preset or a file, narrowed to what is given.
    fn policy(&self, source: Option<&str>) -> PyResult<Policy> {
        if source.is_some() && self.enclave_allow_debug {
            return Err(error::expectation(
                "enclave_allow_debug",
                "expected none beside a policy, which says itself whether debug is allowed",
            ));
        }
        let mut expected = match source {
            Some(source) => load_policy(source).map_err(|err| error::expectation("policy", err))?,
            None => Expectations { allow_debug: self.enclave_allow_debug, ..Expectations::default() },
        };
        let keys = listed("enclave_signing_key", self.enclave_signing_key.map(SigningKey::from_pem))?;
        let hashes = listed("enclave_hash", self.enclave_hash.map(load_enclave_hash))?;
        let models = listed("enclave_model_hash", self.enclave_model_hash.map(str::parse))?;
        expected
            .narrow_signing_keys(keys)
            .and_then(|()| expected.narrow_enclave_hashes(hashes))
            .and_then(|()| expected.narrow_model_hashes(models))
            .and_then(|()| Policy::new(expected))
            .map_err(error::policy)
    }
}

/// The expectation `name`, if it is given.
fn listed<T, E: Display>(name: &str, given: Option<Result<T, E>>) -> PyResult<Vec<T>> {
    Ok(given.transpose().map_err(|err| error::expectation(name, err))?.into_iter().collect())
}

/// Name, type and shape; -1 where any size will do.
type Described = Vec<(String, &'static str, Vec<i64>)>;

/// Name, versions, platform, inputs, outputs.
type Metadata = (String, Vec<String>, String, Described, Described);

fn choice<T>(argument: &str, name: &str, parse: impl Fn(&str) -> Option<T>, known: &[&str]) -> PyResult<T> {
    let unknown =
        || error::argument(argument, format!("expected one of {}, found {name:?}", known.join(", ")));
    parse(name).ok_or_else(unknown)
}
