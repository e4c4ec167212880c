//! Errors after opening: they travel inside the seal, where only the client reads them.

use std::error::Error;

use confonnx_attest::UnixTime;
use confonnx_protocol::bhttp::BhttpError;

use crate::{
    auth::{Forbidden, Refused},
    models::Absent,
};

/// An error of one resource, which says itself how it travels.
pub(super) trait WireError: Error + Send + Sync {
    /// HTTP status and the body's `code`.
    fn wire(&self) -> (u16, &'static str);

    /// The value of `retry-after` in seconds, if it has one.
    fn retry_after(&self) -> Option<u64> {
        None
    }

    /// The body, where it is not [`ErrorBody`](confonnx_protocol::oip::ErrorBody)'s.
    fn body(&self) -> Option<serde_json::Value> {
        None
    }
}

/// Why an opened request has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum InnerError {
    #[error("the message inside the seal is not binary HTTP: {0}")]
    Message(#[from] BhttpError),
    #[error("the request has no date field of the form `Sun, 06 Nov 1994 08:49:37 GMT`")]
    DateMissing,
    #[error(
        "the request's date is more than {window_s} s from the server's clock; see the date field of this answer"
    )]
    DateOutOfWindow { window_s: u64, now: UnixTime },
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("there is no resource {path}; see GET /v2 and POST /v2/repository/index")]
    NotFound { path: String },
    #[error("{path} takes {expected}, not {found}")]
    Method { path: String, expected: &'static str, found: String },
    #[error("the body is not what {path} takes: expected {expected}")]
    Body { path: String, expected: &'static str },
    #[error("not everything is served that should be")]
    NotReady,
    #[error("the answer cannot be sent as binary HTTP: {0}")]
    Unsendable(BhttpError),
    #[error("the server failed on this request; it keeps serving")]
    Panicked,
    #[error("{0}")]
    Resource(Box<dyn WireError>),
}

impl InnerError {
    /// The body of a request to `path` should have been something else.
    pub(super) fn body(path: &str, expected: &'static str) -> Self {
        Self::Body { path: path.into(), expected }
    }

    /// HTTP status and the body's `code`.
    pub(super) fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::Message(_) => (400, "message-invalid"),
            Self::DateMissing => (400, "date-missing"),
            Self::DateOutOfWindow { .. } => (400, "date-out-of-window"),
            Self::Refused(refused) => refused.wire(),
            Self::NotFound { .. } => (404, "not-found"),
            Self::Method { .. } => (405, "method-not-allowed"),
            Self::Body { .. } => (400, "request-body-invalid"),
            Self::NotReady => (503, "model-unavailable"),
            Self::Unsendable(_) | Self::Panicked => (500, "internal"),
            Self::Resource(error) => error.wire(),
        }
    }
}

impl WireError for Absent {
    fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::Unknown { .. } => (404, "model-not-found"),
            Self::Locked { .. } => (503, "model-locked"),
            Self::Unavailable { .. } => (503, "model-unavailable"),
        }
    }
}

impl<E: WireError + 'static> From<E> for InnerError {
    fn from(error: E) -> Self {
        Self::Resource(Box::new(error))
    }
}

impl From<Forbidden> for InnerError {
    fn from(forbidden: Forbidden) -> Self {
        Self::Refused(forbidden.into())
    }
}
