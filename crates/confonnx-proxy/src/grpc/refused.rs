//! What went wrong, as gRPC says it.

use confonnx_client::{Response, TensorError};
use serde_json::Value;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::{
    answer::FAULT,
    fault::{Fault, Kind},
};

/// Says that there is no answer of the server, and why.
pub(super) fn fault(fault: &Fault) -> Status {
    let code = match fault.kind {
        Kind::NotGenuine
        | Kind::NotTrusted
        | Kind::Changed
        | Kind::Model
        | Kind::Key
        | Kind::Refused
        | Kind::Unreachable => Code::Unavailable,
        Kind::Slow => Code::DeadlineExceeded,
        Kind::Busy | Kind::TooLarge => Code::ResourceExhausted,
        Kind::AnswerInvalid | Kind::Proxy => Code::Internal,
    };
    let mut status = Status::new(code, bounded(&fault.text));
    status.metadata_mut().insert(FAULT, MetadataValue::from_static(fault.kind.name()));
    status
}

/// The server's own error.
pub(super) fn inner(answer: &Response) -> Status {
    sealed(answer.status(), answer.body())
}

/// The server's own error of this status and body.
pub(super) fn sealed(status: u16, body: &[u8]) -> Status {
    let code = match status {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        405 | 501 => Code::Unimplemented,
        409 => Code::Aborted,
        413 | 429 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    };
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = body.get("error").and_then(Value::as_str).unwrap_or("the server gave no reason");
    Status::new(code, bounded(text))
}

pub(super) fn invalid(text: impl Into<String>) -> Status {
    Status::invalid_argument(text)
}

pub(super) fn tensor(name: &str, error: &TensorError) -> Status {
    invalid(format!("input '{name}': {error}"))
}

/// The text travels in a header field, of which clients take 8 KiB.
fn bounded(text: &str) -> String {
    const LONGEST: usize = 2048;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.into(),
    }
}
