//! Requests over HTTP or HTTPS: bounded in size and time.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::timeout;
use tracing::error;

/// Asks services, and reuses connections to them for a moment.
pub struct Fetcher {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// An answer with status 200.
#[derive(Debug)]
pub struct Fetched {
    /// The answer's header fields.
    pub headers: HeaderMap,
    /// The answer's content, at most [`MAX_ANSWER`] bytes.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL cannot be asked.
    #[error("the URL is invalid: {0}")]
    Url(#[from] http::Error),
    /// The service answered with another status.
    #[error("expected status 200, found {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// How long the service wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The answer took too long.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// There is no connection, or one to somebody else.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// The connection broke.
    #[error("its answer ended early: {0}")]
    Truncated(String),
    /// The content is too long.
    #[error("its answer has more than {MAX_ANSWER} bytes")]
    TooLarge,
}

impl Fetcher {
    /// A client for http and https with the system's authorities, which the host chooses: so for content alone that is
    /// signed by whom it is about. Opens no connection yet.
    pub fn for_signed(timeout: Duration) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            error!(
                "this machine has no root certificates for https (install ca-certificates): collateral can only be \
                 fetched over http"
            );
        }
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls(roots)).https_or_http();
        Self::with(builder.enable_http1().wrap_connector(tcp(timeout)), timeout)
    }

    /// A client for https alone, with the authorities in `pem`; `None` without a usable one. Opens no connection yet.
    pub fn with_roots(pem: &[u8], timeout: Duration) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            // A bundle may have some that this TLS cannot use.
            let _ = roots.add(certificate.ok()?);
        }
        if roots.is_empty() {
            return None;
        }
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls(roots)).https_only();
        Some(Self::with(builder.enable_http1().wrap_connector(tcp(timeout)), timeout))
    }

    /// A client for https with these authorities alone, and for http if that is asked for. Opens no connection yet.
    pub fn trusting(roots: RootCertStore, http: bool, timeout: Duration) -> Self {
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls(roots));
        let builder = if http { builder.https_or_http() } else { builder.https_only() };
        Self::with(builder.enable_http1().wrap_connector(tcp(timeout)), timeout)
    }

    fn with(connector: HttpsConnector<HttpConnector>, timeout: Duration) -> Self {
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(5))
            .build(connector);
        Self { http, timeout }
    }

    /// The answer with status 200.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn get(&self, url: &str) -> Result<Fetched, FetchError> {
        let request = http::Request::get(url).header(header::ACCEPT, "*/*").body(Bytes::new())?;
        let (head, body) = self.send(request).await?.into_parts();
        if head.status != StatusCode::OK {
            let retry_after = retry_after(&head.headers, SystemTime::now());
            return Err(FetchError::Status { status: head.status, retry_after });
        }
        Ok(Fetched { headers: head.headers, body })
    }

    /// The answer, whatever its status; redirections are not followed.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Vec<u8>>, FetchError> {
        let whole = async {
            let answer = self.http.request(request.map(Full::new)).await;
            let (head, body) = answer.map_err(|error| FetchError::Unreachable(chain(&error)))?.into_parts();
            Ok(http::Response::from_parts(head, bounded(body).await?))
        };
        timeout(self.timeout, whole).await.map_err(|_| FetchError::Timeout(self.timeout))?
    }
}

impl FetchError {
    /// The error's label in the metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Status { status: StatusCode::TOO_MANY_REQUESTS, .. } => "rate-limited",
            Self::Status { .. } => "status",
            Self::Timeout(_) => "timeout",
            Self::Url(_) | Self::Unreachable(_) => "unreachable",
            Self::Truncated(_) => "truncated",
            Self::TooLarge => "too-large",
        }
    }

    /// How long the service wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

fn tcp(timeout: Duration) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(timeout.checked_div(2));
    tcp
}

fn tls(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|_| unreachable!("the provider has suites for TLS 1.2 and 1.3"))
        .with_root_certificates(roots)
        .with_no_client_auth()
}

async fn bounded(mut body: Incoming) -> Result<Vec<u8>, FetchError> {
    let mut received = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| FetchError::Truncated(chain(&error)))?;
        let Some(data) = frame.data_ref() else { continue };
        if received.len().saturating_add(data.len()) > MAX_ANSWER {
            return Err(FetchError::TooLarge);
        }
        received.extend_from_slice(data);
    }
    Ok(received)
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

/// How long a body may be. Revocation lists are the longest, with about 40 bytes an entry.
pub const MAX_ANSWER: usize = 512 * 1024;

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
