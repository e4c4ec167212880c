//! Errors after opening: they travel inside the seal, where only the client reads them.

use confonnx_attest::UnixTime;
use confonnx_engine::InferError;
use confonnx_model::encrypted::{DecryptError, KeyError, OpenModelError};
use confonnx_protocol::{
    bhttp::BhttpError,
    oip::{HEADER_LENGTH, OipError},
};

use crate::{
    auth::{Forbidden, Refused},
    group::JoinRefusal,
    models::{Absent, ControlError, UnlockError},
};

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
    #[error("not everything is served that should be")]
    NotReady,
    #[error(transparent)]
    Absent(#[from] Absent),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the body is not what {path} takes: expected {expected}")]
    Body { path: String, expected: &'static str },
    #[error(transparent)]
    ModelKey(#[from] KeyError),
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    #[error("{path} takes {expected}, not {found}")]
    Method { path: String, expected: &'static str, found: String },
    #[error("{HEADER_LENGTH} is not a number of bytes")]
    HeaderLength,
    #[error(transparent)]
    Request(OipError),
    #[error(transparent)]
    Answer(OipError),
    #[error(transparent)]
    Infer(#[from] InferError),
    #[error("the answer cannot be sent as binary HTTP: {0}")]
    Unsendable(BhttpError),
    #[error(transparent)]
    Join(#[from] JoinRefusal),
    #[error("the server failed on this request; it keeps serving")]
    Panicked,
}

impl InnerError {
    /// HTTP status and the body's `code`.
    pub(super) fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::Message(_) => (400, "message-invalid"),
            Self::DateMissing => (400, "date-missing"),
            Self::DateOutOfWindow { .. } => (400, "date-out-of-window"),
            Self::Refused(refused) => refused.wire(),
            Self::NotFound { .. } => (404, "not-found"),
            Self::Absent(absent) | Self::Unlock(UnlockError::Absent(absent)) => match absent {
                Absent::Unknown { .. } => (404, "model-not-found"),
                Absent::Locked { .. } => (503, "model-locked"),
                Absent::Unavailable { .. } => (503, "model-unavailable"),
            },
            Self::NotReady => (503, "model-unavailable"),
            Self::Control(ControlError::Off) => (403, "model-control-off"),
            Self::Control(ControlError::Unknown { .. }) => (404, "model-not-found"),
            Self::Control(ControlError::Busy) | Self::Unlock(UnlockError::Busy) => {
                (409, "model-control-busy")
            }
            Self::Control(ControlError::Repository(_) | ControlError::Failed { .. }) => {
                (500, "model-unusable")
            }
            Self::Body { .. } => (400, "request-body-invalid"),
            Self::ModelKey(_)
            | Self::Unlock(UnlockError::Open(OpenModelError::Decrypt(DecryptError::WrongKey))) => {
                (400, "model-key-invalid")
            }
            Self::Unlock(UnlockError::Owner(_)) => (403, "owner-signature-invalid"),
            Self::Unlock(UnlockError::NotLocked { .. }) => (409, "model-not-locked"),
            Self::Unlock(_) => (500, "model-unusable"),
            Self::Method { .. } => (405, "method-not-allowed"),
            Self::HeaderLength | Self::Request(_) => (400, "inference-invalid"),
            Self::Answer(_) => (400, "answer-not-json"),
            Self::Infer(InferError::Runtime(_) | InferError::BoxedRun(_) | InferError::OutputType { .. }) => {
                (500, "inference-failed")
            }
            Self::Infer(InferError::Crashed) => (500, "inference-crashed"),
            Self::Infer(InferError::Timeout { .. }) => (504, "inference-timeout"),
            Self::Infer(InferError::Restarting) => (503, "model-unavailable"),
            Self::Infer(_) => (400, "input-invalid"),
            Self::Join(refusal) => refusal.wire(),
            Self::Unsendable(_) | Self::Panicked => (500, "internal"),
        }
    }
}

impl From<Forbidden> for InnerError {
    fn from(forbidden: Forbidden) -> Self {
        Self::Refused(forbidden.into())
    }
}
