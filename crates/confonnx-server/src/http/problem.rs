//! Problem codes as HTTP answers (RFC 9457): the only place that turns one into a status and a body.

use bytes::Bytes;
use confonnx_protocol::Code;
use http::{Response, StatusCode, header};

use crate::body::Body;

/// The answer for `code`: nothing in it depends on the request.
pub fn problem(code: Code) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(body(code))));
    *response.status_mut() = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    if let Code::QueueFull
    | Code::ReplayStateFull
    | Code::ConnectionsFull
    | Code::AttestationUnavailable
    | Code::KeysUnavailable = code
    {
        headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    }
    response
}

/// The body's JSON.
pub(super) fn body(code: Code) -> Vec<u8> {
    let body = serde_json::json!({
        "type": code.type_uri(),
        "title": code.title(),
        "status": code.status(),
        "code": code.name(),
    });
    body.to_string().into_bytes()
}
