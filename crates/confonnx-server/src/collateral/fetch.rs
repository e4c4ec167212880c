//! One request to a vendor's service: bounded in size and time.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use confonnx_attest::collateral::{Answer, Request, Vendor};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tracing::error;

/// URLs of services to ask instead of the vendors' own.
#[derive(Clone, Debug, Default)]
pub struct Bases {
    /// Instead of AMD's Key Distribution Service.
    pub amd: Option<String>,
    /// Instead of Intel's Provisioning Certification Service: a caching one (PCCS).
    pub intel: Option<String>,
}

pub(super) struct Fetcher {
    http: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    bases: Bases,
    timeout: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the URL is invalid: {0}")]
    Url(#[from] http::Error),
    #[error("expected status 200, found {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("its answer ended early: {0}")]
    Truncated(String),
    #[error("its answer has more than {MAX_ANSWER} octets")]
    TooLarge,
}

impl Bases {
    /// Where `request` goes.
    pub(super) fn url(&self, request: &Request) -> String {
        let base = match request.vendor {
            Vendor::Amd => &self.amd,
            Vendor::Intel => &self.intel,
        };
        request.url(base.as_deref())
    }
}

impl Fetcher {
    /// Opens no connection yet.
    pub(super) fn new(bases: Bases, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(timeout / 2));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(5))
            .build(https);
        Self { http, bases, timeout }
    }

    /// The answer with status 200.
    pub(super) async fn get(&self, request: &Request) -> Result<Answer, FetchError> {
        let url = self.bases.url(request);
        let request = http::Request::get(url).header(header::ACCEPT, "*/*").body(Empty::new())?;
        let whole = async {
            let response =
                self.http.request(request).await.map_err(|error| FetchError::Unreachable(chain(&error)))?;
            let (head, body) = response.into_parts();
            if head.status != StatusCode::OK {
                let retry_after = retry_after(&head.headers, SystemTime::now());
                return Err(FetchError::Status { status: head.status, retry_after });
            }
            Ok(Answer { headers: text_fields(&head.headers), body: bounded(body).await? })
        };
        timeout(self.timeout, whole).await.map_err(|_| FetchError::Timeout(self.timeout))?
    }
}

impl FetchError {
    /// Its label in the metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Status { status: StatusCode::TOO_MANY_REQUESTS, .. } => "rate-limited",
            Self::Status { .. } => "status",
            Self::Timeout(_) => "timeout",
            Self::Url(_) | Self::Unreachable(_) => "unreachable",
            Self::Truncated(_) => "truncated",
            Self::TooLarge => "too-large",
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

async fn bounded(mut body: Incoming) -> Result<Vec<u8>, FetchError> {
    let mut received = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FetchError::Truncated(chain(&error)))?;
        let Some(data) = frame.data_ref() else { continue };
        if received.len() + data.len() > MAX_ANSWER {
            return Err(FetchError::TooLarge);
        }
        received.extend_from_slice(data);
    }
    Ok(received)
}

/// Fields that are text; hyper bounds how many and how long they are.
fn text_fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}

/// The wait that RFC 9110, section 10.2.3, lets a service ask for: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).ok(),
    }
}

/// An error and its causes: those of HTTP clients say little by themselves.
fn chain(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn tls() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        error!(
            "this machine has no root certificates for https (install ca-certificates): collateral can only be \
             fetched over http"
        );
    }
    ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|_| unreachable!("the provider has suites for TLS 1.2 and 1.3"))
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Octets of the longest body. Revocation lists are the longest, with about 40 an entry.
pub(super) const MAX_ANSWER: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Mon, 23 Nov 2026 12:00:00 GMT").unwrap();
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", value.parse().unwrap());
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(read("120"), Some(120));
        assert_eq!(read("Mon, 23 Nov 2026 12:00:30 GMT"), Some(30));
        for nonsense in ["", "-1", "soon", "1.5", "Mon, 23 Nov 2026 11:00:00 GMT"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
