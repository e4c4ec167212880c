//! Answers to the program.

use bytes::Bytes;
use confonnx_client::{BoxError, Response as Opened};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use serde_json::{Value, json};

use crate::fault::Fault;

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;
/// The answer that the program gets.
pub(crate) type Answer = Response<Body>;

pub(crate) const JSON: &str = "application/json";

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn with_body(status: StatusCode, media: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    answer
}

pub(crate) fn json_answer(value: &Value) -> Answer {
    with_body(StatusCode::OK, JSON, value.to_string())
}

/// An error as Triton writes them.
pub(crate) fn refusal(status: StatusCode, text: &str) -> Answer {
    with_body(status, JSON, json!({ "error": text }).to_string())
}

/// Says that there is no answer of the server, and why.
pub(crate) fn failure(fault: &Fault) -> Answer {
    let body = json!({ "error": fault.text, "code": fault.kind.name(), "checks": fault.checks });
    failed(fault, &body)
}

/// As [`failure`], with another body.
pub(crate) fn failed(fault: &Fault, body: &Value) -> Answer {
    let mut answer = with_body(fault.kind.status(), JSON, body.to_string());
    if let Some(wait) = fault.retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    // The field tells logs that it was this proxy that said no.
    answer.headers_mut().insert(FAULT, HeaderValue::from_static(fault.kind.name()));
    answer
}

/// What the server answered, whatever its status, as it is. Erased once it was sent.
pub(crate) fn opened(response: Opened) -> Answer {
    let mut answer = Response::new(());
    copy_head(response.status(), response.fields().iter(), &mut answer);
    answer.map(|()| full(Bytes::from_owner(Content(response))))
}

/// Status and those header fields that say what the content is.
pub(crate) fn copy_head<'f, T>(
    status: u16,
    fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    answer: &mut Response<T>,
) {
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in fields.filter(|(name, _)| PASSED.contains(name)) {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value))
        {
            answer.headers_mut().insert(name, value);
        }
    }
}

struct Content(Opened);

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        self.0.body()
    }
}

/// Names the kind of error that is the proxy's.
pub(crate) const FAULT: &str = "confonnx-proxy-error";

/// Fields of the server's answer that the program needs. Others are about keys, and the proxy's own business.
const PASSED: [&str; 6] = [
    "content-type",
    "inference-header-content-length",
    "retry-after",
    "www-authenticate",
    "cache-control",
    "x-request-id",
];
