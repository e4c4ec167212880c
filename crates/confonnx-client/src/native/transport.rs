//! HTTP to the server: bytes out, bytes in, both bounded. Knows nothing of keys.

use std::time::Duration;

use base64ct::{Base64, Encoding};
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHORIZATION, RETRY_AFTER,
};
use http::{Method, Request};
use hyper::body::{Body, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use super::outgoing::Outgoing;
use super::proxies::{Proxies, Way};
use crate::base::Base;
use crate::conversation::Head;
use crate::{BoxError, ClientError, Options};

type Connector = HttpsConnector<Way>;

/// A pool of connections.
#[derive(Debug)]
pub(crate) struct Transport {
    http: Client<Connector, Outgoing>,
    connector: Connector,
    proxies: Proxies,
    headers: HeaderMap,
}

impl Transport {
    /// A pool without connections yet. `relay` is where sealed messages go, if not to the server.
    pub(crate) fn new(base: &Base, relay: Option<&Base>, options: &Options) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(options.connect_timeout));
        let proxies = Proxies::new(&options.proxy)?;
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(relay.filter(|relay| relay.is_https()).unwrap_or(base), options)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Way { tcp, proxies: proxies.clone() });
        Ok(Self { http: pool(&https), connector: https, proxies, headers: outer_headers(options)? })
    }

    /// The same pool without its connections.
    pub(crate) fn afresh(&self) -> Self {
        let Self { connector, proxies, headers, .. } = self;
        Self {
            http: pool(connector),
            connector: connector.clone(),
            proxies: proxies.clone(),
            headers: headers.clone(),
        }
    }

    /// Sends a request; the head of its answer, and the body to be read. `ours` are the header fields of the options, which are
    /// for the server and whatever stands before it, and not for a relay.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        content_type: Option<&'static str>,
        accept: &'static str,
        body: Outgoing,
        ours: bool,
    ) -> Result<(Head, Incoming), Failed> {
        let failed = |source: BoxError| Failed { source, sent: false };
        let mut request =
            Request::builder().method(method).uri(url).body(body).map_err(|err| failed(err.into()))?;
        if ours {
            request.headers_mut().extend(self.headers.clone());
        }
        if let Some(credentials) = self.proxies.credentials(request.uri()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, credentials);
        }
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let response = self.http.request(request).await.map_err(|err| {
            let sent = !err.is_connect();
            Failed { source: err.into(), sent }
        })?;
        let (parts, body) = response.into_parts();
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(Into::into);
        let mut head = Head::new(parts.status.as_u16());
        head.content_type = text(CONTENT_TYPE);
        head.retry_after = text(RETRY_AFTER);
        head.content_length = body.size_hint().exact();
        Ok((head, body))
    }
}

/// No answer.
pub(crate) struct Failed {
    pub(crate) source: BoxError,
    /// Whether the server may have got the request all the same.
    pub(crate) sent: bool,
}

fn pool(connector: &Connector) -> Client<Connector, Outgoing> {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector.clone())
}

fn tls(base: &Base, options: &Options) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &options.ca_file {
        let unusable = |reason: String| ClientError::File { path: path.clone(), reason };
        let found = CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|err| unusable(format!("expected certificates in PEM: {err}")))?;
        for certificate in found {
            roots.add(certificate).map_err(|err| unusable(format!("expected a CA's certificate: {err}")))?;
        }
        if roots.is_empty() {
            return Err(unusable("expected certificates in PEM, found none".into()));
        }
    } else if base.is_https() {
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            let reason = "this machine has no root certificates for https (install ca-certificates)".into();
            return Err(ClientError::Url { url: base.as_str().into(), reason });
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

// Below the 30 s after which a server may close an idle connection, so that no request meets one that is closing.
const IDLE: Duration = Duration::from_secs(25);
