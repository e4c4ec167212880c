//! Pages of other origins (the Fetch standard's CORS protocol): who may read answers, and what preflights are told.

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use crate::{body::Body, config::Origins};

/// The origin that `request` comes from, if its page may ask.
pub(super) fn origin<B>(request: &Request<B>, origins: &Origins) -> Option<HeaderValue> {
    let origin = request.headers().get(header::ORIGIN)?;
    origins.allow(origin.as_bytes()).then(|| origin.clone())
}

/// The answer to a preflight, if `request` is one: `method` is what its path takes.
pub(super) fn preflight<B>(request: &Request<B>, method: Method) -> Option<Response<Body>> {
    let asked = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if request.method() != Method::OPTIONS || !asked {
        return None;
    }
    let mut response = Response::new(Body::from(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_str(method.as_str()).ok()?;
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    Some(response)
}

/// Lets pages of `origin` read the answer.
pub(super) fn grant(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

/// What a client may send besides what every page may: the media types of sealed messages, credentials for an ingress.
const ALLOWED: &str = "authorization, content-type, x-ms-client-request-id";
const EXPOSED: &str = "retry-after, x-ms-request-id";
