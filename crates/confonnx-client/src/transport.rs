//! HTTP to the server: bytes out, bytes in, both bounded. Knows nothing of keys.

use std::time::Duration;

use base64ct::{Base64, Encoding};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::outgoing::Outgoing;
use crate::{ClientError, Options};

type Connector = HttpsConnector<HttpConnector>;

/// A pool of connections.
#[derive(Debug)]
pub(crate) struct Transport {
    http: Client<Connector, Outgoing>,
    connector: Connector,
    headers: HeaderMap,
}

/// Where the server is.
#[derive(Clone, Debug)]
pub(crate) struct Base(String);

impl Base {
    pub(crate) fn parse(url: &str) -> Result<Self, ClientError> {
        let wrong = |reason: &str| ClientError::Url { url: url.into(), reason: reason.into() };
        let uri: Uri = url.parse().map_err(|err: http::uri::InvalidUri| wrong(&err.to_string()))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(wrong("it has to start with http:// or https://"));
        }
        if uri.query().is_some() {
            return Err(wrong("it must have no query"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(ClientError::Url {
                url: "(with user name)".into(),
                reason: "give user and password as options, not in the URL".into(),
            });
        }
        Ok(Self(url.trim_end_matches('/').into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }
}

impl Transport {
    /// Opens no connection yet. `relay` is where sealed messages go, if not to the server.
    pub(crate) fn new(base: &Base, relay: Option<&Base>, options: &Options) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(options.connect_timeout));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(relay.filter(|relay| relay.is_https()).unwrap_or(base))?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self { http: pool(&https), connector: https, headers: outer_headers(options)? })
    }

    /// The same without its connections.
    pub(crate) fn afresh(&self) -> Self {
        let Self { connector, headers, .. } = self;
        Self { http: pool(connector), connector: connector.clone(), headers: headers.clone() }
    }

    /// An attestation document.
    pub(crate) async fn fetch(&self, url: &str, limit: usize) -> Result<Vec<u8>, ClientError> {
        let body = self.send(Method::GET, url, None, Outgoing::default(), "application/json").await?;
        collect(url, body, limit).await
    }

    /// A sealed reply to a sealed request, each with its media type.
    pub(crate) async fn exchange(
        &self,
        url: &str,
        request: Vec<u8>,
        media: (&'static str, &'static str),
        limit: usize,
    ) -> Result<Vec<u8>, ClientError> {
        let request = Outgoing::Whole(request.into());
        collect(url, self.send(Method::POST, url, Some(media.0), request, media.1).await?, limit).await
    }

    /// The same; `each` takes the bytes of the reply as they arrive.
    pub(crate) async fn exchange_as_it_comes(
        &self,
        url: &str,
        request: Outgoing,
        media: (&'static str, &'static str),
        limit: usize,
        each: impl FnMut(&[u8]) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let body = self.send(Method::POST, url, Some(media.0), request, media.1).await?;
        read(url, body, limit, each).await
    }

    /// The body of an answer of the type expected; anything else is an error.
    async fn send(
        &self,
        method: Method,
        url: &str,
        content_type: Option<&'static str>,
        body: Outgoing,
        expected: &'static str,
    ) -> Result<Incoming, ClientError> {
        let mut request = Request::builder().method(method).uri(url).body(body).map_err(|err| {
            let reason = err.to_string();
            ClientError::Url { url: url.into(), reason }
        })?;
        request.headers_mut().extend(self.headers.clone());
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let response =
            self.http.request(request).await.map_err(|source| transport_failed(url, source.into()))?;
        let (head, body) = response.into_parts();
        let (status, found) = (head.status.as_u16(), media_type(&head.headers));
        if status == 200 && found == expected {
            return Ok(body);
        }
        // What was not even meant for us is of no interest beyond the limit.
        let problem = match collect(url, body, MAX_PROBLEM).await {
            Ok(bytes) => serde_json::from_slice::<Problem>(&bytes).ok(),
            Err(ClientError::TooLarge { .. }) => None,
            Err(err) => return Err(err),
        };
        match problem.filter(|_| found == "application/problem+json") {
            Some(problem) => {
                let is_plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
                let code = problem.code.chars().filter(is_plain).take(64).collect();
                Err(ClientError::Refused { status, code })
            }
            None => Err(ClientError::Unsealed { status, expected, found }),
        }
    }
}

/// All bytes of `body`, at most `limit`.
async fn collect(url: &str, body: Incoming, limit: usize) -> Result<Vec<u8>, ClientError> {
    let announced = body.size_hint().exact().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
    let mut received = Vec::with_capacity(announced.min(limit));
    read(url, body, limit, |bytes| {
        received.extend_from_slice(bytes);
        Ok(())
    })
    .await?;
    Ok(received)
}

/// Hands on the bytes of `body`, at most `limit`, as they arrive.
async fn read(
    url: &str,
    mut body: Incoming,
    limit: usize,
    mut each: impl FnMut(&[u8]) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let mut left = limit;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| transport_failed(url, source.into()))?;
        let Some(data) = frame.data_ref() else { continue };
        left = left.checked_sub(data.len()).ok_or(ClientError::TooLarge { limit })?;
        each(data)?;
    }
    Ok(())
}

fn transport_failed(url: &str, source: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
    ClientError::Transport { url: url.into(), source }
}

fn pool(connector: &Connector) -> Client<Connector, Outgoing> {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector.clone())
}

#[derive(Deserialize)]
struct Problem {
    code: String,
}

fn tls(base: &Base) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    if base.is_https() {
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            let reason = "this machine has no root certificates for https (install ca-certificates)".into();
            return Err(ClientError::Url { url: base.0.clone(), reason });
        }
    }
    let provider = rustls::crypto::aws_lc_rs::default_provider().into();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|err| ClientError::System { source: err.into() })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn outer_headers(options: &Options) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    if let Some((user, password)) = &options.basic {
        let credentials = Zeroizing::new(format!("{user}:{}", password.expose()));
        let encoded = Zeroizing::new(Base64::encode_string(credentials.as_bytes()));
        let value = Zeroizing::new(format!("Basic {}", *encoded));
        headers.insert(AUTHORIZATION, sensitive("authorization", &value)?);
    }
    for (name, value) in &options.outer_headers {
        let invalid = |_| ClientError::Header { name: name.clone() };
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(invalid)?;
        headers.append(parsed, sensitive(name, value.expose())?);
    }
    Ok(headers)
}

fn sensitive(name: &str, value: &str) -> Result<HeaderValue, ClientError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| ClientError::Header { name: name.into() })?;
    value.set_sensitive(true);
    Ok(value)
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.chars().take(64).collect::<String>().to_ascii_lowercase()
}

const MAX_PROBLEM: usize = 16 * 1024;
// Below the 30 s after which a server may close an idle connection, so that no request meets one that is closing.
const IDLE: Duration = Duration::from_secs(25);
