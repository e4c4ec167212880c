//! The only map from Rust errors to exception classes, those of `confonnx.exceptions`.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use confonnx_client::json::JsonError;
use confonnx_client::{Check, ClientError, ModelRefused, Outcome};
use confonnx_model::encrypted::{EncryptFileError, KeyError};
use confonnx_model::{AnnotateError, HashError, ModelError, TensorProtoError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

mod exceptions {
    pyo3::import_exception!(confonnx.exceptions, AttestationError);
    pyo3::import_exception!(confonnx.exceptions, AuthError);
    pyo3::import_exception!(confonnx.exceptions, ConfonnxError);
    pyo3::import_exception!(confonnx.exceptions, PolicyError);
    pyo3::import_exception!(confonnx.exceptions, ReplyError);
    pyo3::import_exception!(confonnx.exceptions, RequestError);
    pyo3::import_exception!(confonnx.exceptions, RequestTimeoutError);
    pyo3::import_exception!(confonnx.exceptions, ServerError);
    pyo3::import_exception!(confonnx.exceptions, TransportError);
}
use exceptions::{
    AttestationError, AuthError, ConfonnxError, PolicyError, ReplyError, RequestError, RequestTimeoutError,
    ServerError, TransportError,
};

/// One check of an attestation.
#[pyclass(frozen, get_all, name = "Check", module = "confonnx._confonnx")]
#[derive(Clone)]
pub(crate) struct PyCheck {
    name: &'static str,
    expected: String,
    found: String,
    outcome: &'static str,
}

impl PyCheck {
    /// `confonnx.exceptions.Check`, which is a named tuple.
    fn tuple(&self) -> (&'static str, String, String, &'static str) {
        (self.name, self.expected.clone(), self.found.clone(), self.outcome)
    }
}

pub(crate) fn client(error: ClientError) -> PyErr {
    let message = error.to_string();
    if let Some(verdict) = error.verdict() {
        let checks: Vec<_> = checks(&verdict.checks).iter().map(PyCheck::tuple).collect();
        let genuine = matches!(error, ClientError::NotTrusted(_));
        return AttestationError::new_err((message, checks, genuine, verdict.to_string()));
    }
    match error {
        ClientError::Url { .. }
        | ClientError::Header { .. }
        | ClientError::Proxy { .. }
        | ClientError::Inputs(_)
        | ClientError::NotEncrypted { .. }
        | ClientError::Model(ModelRefused::Unnamed { .. }) => PyValueError::new_err(message),
        // `ca_file` is the only option that names a file to the client.
        ClientError::File { .. } => argument("ca_file", message),
        // The error that the server itself would answer.
        ClientError::RequestTooLarge { .. } => refused(message, 413, Some("request-too-large".into()), None),
        ClientError::Token { source } => match source.downcast::<PyErr>() {
            Ok(raised) => *raised,
            Err(_) => ConfonnxError::new_err(message),
        },
        ClientError::Transport { .. } => TransportError::new_err(message),
        ClientError::Timeout { .. } => RequestTimeoutError::new_err(message),
        ClientError::Model(ModelRefused::Hash { .. }) => {
            AttestationError::new_err((message, Vec::<u8>::new(), true))
        }
        ClientError::Document(_) | ClientError::NoKey { .. } => AttestationError::new_err(message),
        ClientError::Inner { status, code, retry_after, .. }
        | ClientError::Refused { status, code, retry_after } => {
            refused(message, status, Some(code), retry_after)
        }
        ClientError::Unsealed { status, .. } if status >= 400 => refused(message, status, None, None),
        ClientError::Unsealed { .. } | ClientError::ReplyInvalid { .. } | ClientError::TooLarge { .. } => {
            ReplyError::new_err(message)
        }
        _ => ConfonnxError::new_err(message),
    }
}

/// The exception for a wrong argument `name`.
pub(crate) fn argument(name: &str, error: impl Display) -> PyErr {
    PyValueError::new_err(format!("{name}: {error}"))
}

/// The exception for a call after `close`.
pub(crate) fn closed() -> PyErr {
    PyValueError::new_err("the client is closed: make another one")
}

/// The exception for a wrong expectation `name`.
pub(crate) fn expectation(name: &str, error: impl Display) -> PyErr {
    PolicyError::new_err(format!("{name}: {error}"))
}

pub(crate) fn policy(error: impl Display) -> PyErr {
    PolicyError::new_err(error.to_string())
}

pub(crate) fn model_key(error: KeyError) -> PyErr {
    argument("key", error)
}

pub(crate) fn encrypt(error: EncryptFileError) -> PyErr {
    match error {
        EncryptFileError::File { path, error } => file(&path.to_string_lossy(), error),
        error => PyValueError::new_err(error.to_string()),
    }
}

pub(crate) fn json(error: JsonError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

pub(crate) fn tensor_proto(error: TensorProtoError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

pub(crate) fn model(path: &str, error: ModelError) -> PyErr {
    argument(path, error)
}

pub(crate) fn annotate(path: &str, error: AnnotateError) -> PyErr {
    argument(path, error)
}

pub(crate) fn hash(path: &str, error: HashError) -> PyErr {
    match error {
        HashError::Read { path, error } => file(&path.to_string_lossy(), error),
        error => argument(path, error),
    }
}

/// Python's own exception for an I/O error, such as `FileNotFoundError`, with the path in its message.
pub(crate) fn file(path: &str, error: io::Error) -> PyErr {
    io::Error::new(error.kind(), format!("cannot read {path}: {error}")).into()
}

pub(crate) fn checks(checks: &[Check]) -> Vec<PyCheck> {
    let outcome = |outcome| match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Undecided => "undecided",
        Outcome::Info => "info",
        Outcome::Notable => "notable",
    };
    let row = |check: &Check| PyCheck {
        name: check.name,
        expected: check.expected.clone(),
        found: check.found.clone(),
        outcome: outcome(check.outcome),
    };
    checks.iter().map(row).collect()
}

fn refused(message: String, status: u16, code: Option<String>, retry_after: Option<Duration>) -> PyErr {
    let arguments = (message, status, code, retry_after.map(|wait| wait.as_secs_f64()));
    match status {
        401 | 403 => AuthError::new_err(arguments),
        429 | 500.. => ServerError::new_err(arguments),
        _ => RequestError::new_err(arguments),
    }
}
