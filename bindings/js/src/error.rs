//! Errors as JSON, from which `bindings/js/lib/error.js` makes its class.

use std::fmt::Display;

use confonnx_client::ClientError;
use serde_json::json;

/// The error with which a call ended.
pub(crate) fn of(error: &ClientError) -> String {
    let genuine = matches!(error, ClientError::NotTrusted(_));
    json!({
        "kind": error.kind().name(),
        "message": error.to_string(),
        "status": error.status(),
        "code": error.code(),
        "retryAfter": error.retry_after().map(|time| time.as_secs()),
        "checks": error.verdict().map(|verdict| &verdict.checks),
        "genuine": error.verdict().map(|_| genuine),
    })
    .to_string()
}

/// An error that says what is wrong with the argument `name`.
pub(crate) fn argument(name: &str, problem: impl Display) -> String {
    json!({ "kind": "argument", "message": format!("{name}: {problem}") }).to_string()
}

/// An error that says what is wrong with the expectations of the server.
pub(crate) fn policy(problem: impl Display) -> String {
    json!({ "kind": "policy", "message": problem.to_string() }).to_string()
}
