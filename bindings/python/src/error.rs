//! The only map from Rust errors to exception classes, those of `confonnx.exceptions`.

use std::fmt::Display;
use std::io;

use confonnx_client::json::JsonError;
use confonnx_client::{Check, ClientError, ModelRefused, Outcome, PolicyBuildError};
use confonnx_model::encrypted::{EncryptFileError, KeyError};
use confonnx_model::{HashError, ModelError, TensorProtoError};
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

/// `(name, expected, found, outcome)`
pub(crate) type PyCheck = (&'static str, String, String, &'static str);

pub(crate) fn client(error: ClientError) -> PyErr {
    let message = error.to_string();
    if let Some(verdict) = error.verdict() {
        return AttestationError::new_err((message, checks(&verdict.checks)));
    }
    match error {
        ClientError::Url { .. }
        | ClientError::Header { .. }
        | ClientError::Inputs(_)
        | ClientError::NotEncrypted { .. }
        | ClientError::Model(ModelRefused::Unnamed { .. }) => PyValueError::new_err(message),
        ClientError::Token { source } => match source.downcast::<PyErr>() {
            Ok(raised) => *raised,
            Err(_) => ConfonnxError::new_err(message),
        },
        ClientError::Transport { .. } => TransportError::new_err(message),
        ClientError::Timeout { .. } => RequestTimeoutError::new_err(message),
        ClientError::Document(_)
        | ClientError::NoKey { .. }
        | ClientError::Model(ModelRefused::Hash { .. }) => AttestationError::new_err(message),
        ClientError::Refused { status, code } | ClientError::Inner { status, code, .. } => {
            refused(message, status, Some(code))
        }
        ClientError::Unsealed { status, .. } if status >= 400 => refused(message, status, None),
        ClientError::Unsealed { .. } | ClientError::ReplyInvalid { .. } | ClientError::TooLarge { .. } => {
            ReplyError::new_err(message)
        }
        _ => ConfonnxError::new_err(message),
    }
}

/// What is wrong with the argument `name`.
pub(crate) fn argument(name: &str, error: impl Display) -> PyErr {
    PyValueError::new_err(format!("{name}: {error}"))
}

/// What is wrong with the expectation `name`.
pub(crate) fn expectation(name: &str, error: impl Display) -> PyErr {
    PolicyError::new_err(format!("{name}: {error}"))
}

pub(crate) fn policy(error: PolicyBuildError) -> PyErr {
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

pub(crate) fn hash(path: &str, error: HashError) -> PyErr {
    match error {
        HashError::Read { path, error } => file(&path.to_string_lossy(), error),
        error => argument(path, error),
    }
}

/// Python's own class for it, such as `FileNotFoundError`, with the path in its message.
pub(crate) fn file(path: &str, error: io::Error) -> PyErr {
    io::Error::new(error.kind(), format!("cannot read {path}: {error}")).into()
}

pub(crate) fn checks(checks: &[Check]) -> Vec<PyCheck> {
    let outcome = |outcome| match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Undecided => "undecided",
        Outcome::Info => "info",
    };
    let row =
        |check: &Check| (check.name, check.expected.clone(), check.found.clone(), outcome(check.outcome));
    checks.iter().map(row).collect()
}

fn refused(message: String, status: u16, code: Option<String>) -> PyErr {
    let arguments = (message, status, code);
    match status {
        401 | 403 => AuthError::new_err(arguments),
        429 | 500.. => ServerError::new_err(arguments),
        _ => RequestError::new_err(arguments),
    }
}
