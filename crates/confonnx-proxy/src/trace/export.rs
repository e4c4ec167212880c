//! Spans to a collector, in batches.

use std::time::Duration;

use bytes::Bytes;
use confonnx_client::BoxError;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::{net::TcpStream, sync::mpsc};

use super::message::{Export, Resource, ResourceSpans, Scope, ScopeSpans, Span, attribute};

/// Why there are no traces although somebody asks for them.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The variables ask for another protocol.
    #[error(
        "{variable}: expected http/protobuf, the one way in which this proxy sends traces; found {found}"
    )]
    Protocol {
        /// The variable.
        variable: &'static str,
        /// The variable's value.
        found: String,
    },
    /// The variable has no address, or one that needs a certificate.
    #[error("{variable}: expected a collector such as http://localhost:4318, found {found}")]
    Endpoint {
        /// The variable.
        variable: &'static str,
        /// The variable's value.
        found: String,
    },
    /// The variable is not a list of header fields.
    #[error("{variable}: expected name=value,name=value")]
    Headers {
        /// The variable.
        variable: &'static str,
    },
}

/// What the variables say.
#[derive(Debug)]
pub(super) struct Target {
    authority: String,
    path: String,
    fields: Vec<(HeaderName, HeaderValue)>,
    service: String,
}

impl Target {
    pub(super) fn of(variable: impl Fn(&'static str) -> Option<String>) -> Result<Option<Self>, TraceError> {
        let said =
            |name| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let own = said(OWN_ENDPOINT).map(|url| (OWN_ENDPOINT, url));
        let all = || said(ENDPOINT).map(|url| (ENDPOINT, format!("{}/v1/traces", url.trim_end_matches('/'))));
        let Some((name, url)) = own.or_else(all) else { return Ok(None) };
        let off = said("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if off || said("OTEL_TRACES_EXPORTER").is_some_and(|exporter| exporter == "none") {
            return Ok(None);
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            match said(name) {
                Some(found) if found != "http/protobuf" => {
                    return Err(TraceError::Protocol { variable: name, found });
                }
                Some(_) => break,
                None => {}
            }
        }
        let found = url.clone();
        let endpoint = || TraceError::Endpoint { variable: name, found: found.clone() };
        let uri: Uri = url.parse().map_err(|_| endpoint())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(endpoint)?;
        let mut fields = Vec::new();
        for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"] {
            for pair in said(name).unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty()) {
                let field = pair.split_once('=').and_then(|(key, value)| {
                    Some((key.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
                });
                fields.push(field.ok_or(TraceError::Headers { variable: name })?);
            }
        }
        Ok(Some(Self {
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            fields,
            service: said("OTEL_SERVICE_NAME").unwrap_or_else(|| "confonnx-proxy".into()),
        }))
    }

    async fn send(&self, spans: Vec<Span>) -> Result<(), BoxError> {
        let scope = Scope { name: "confonnx-proxy".into(), version: env!("CARGO_PKG_VERSION").into() };
        let resource = Resource { attributes: vec![attribute("service.name", &self.service)] };
        let export = Export {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
            }],
        };
        let mut request = Request::post(&self.path).body(Full::new(Bytes::from(export.encode_to_vec())))?;
        let fields = request.headers_mut();
        fields.insert(header::HOST, HeaderValue::from_str(&self.authority)?);
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        for (name, value) in &self.fields {
            fields.insert(name, value.clone());
        }
        let stream = TcpStream::connect(&self.authority).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await?;
            if status.is_success() { Ok(()) } else { Err(BoxError::from(format!("status {status}"))) }
        };
        tokio::select! {
            done = exchange => done,
            ended = connection => Err(ended.err().map_or_else(|| "it hung up".into(), BoxError::from)),
        }
    }
}

pub(super) struct Exporter {
    target: Target,
}

impl Exporter {
    pub(super) fn new(target: Target) -> Self {
        Self { target }
    }

    /// Sends spans until nobody has any more. A span that the collector does not take is lost: none is kept for it.
    pub(super) async fn run(self, mut coming: mpsc::Receiver<Span>) {
        let mut spans = Vec::new();
        loop {
            if coming.recv_many(&mut spans, BATCH).await == 0 {
                return;
            }
            // Spans that come soon after go along.
            let more =
                async { while spans.len() < BATCH && coming.recv_many(&mut spans, BATCH).await > 0 {} };
            let _ = tokio::time::timeout(DELAY, more).await;
            let _ = tokio::time::timeout(PATIENCE, self.target.send(std::mem::take(&mut spans))).await;
        }
    }
}

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const OWN_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_ANSWER: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<(String, String)>, String> {
        let find =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let target = Target::of(find).map_err(|err| err.to_string())?;
        Ok(target.map(|target| (target.authority, target.path)))
    }

    #[test]
    fn variables_are_those_of_the_sdks() {
        let to = |authority: &str, path: &str| Ok(Some((authority.to_owned(), path.to_owned())));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[(ENDPOINT, "http://c:4318")]), to("c:4318", "/v1/traces"));
        assert_eq!(of(&[(ENDPOINT, "http://c/otlp/")]), to("c:80", "/otlp/v1/traces"));
        let own = [(ENDPOINT, "http://c:4318"), (OWN_ENDPOINT, "http://t:1/x")];
        assert_eq!(of(&own), to("t:1", "/x"));
        assert_eq!(of(&[(ENDPOINT, "http://c"), ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(of(&[(ENDPOINT, "http://c"), ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        for (name, value, said) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "expected http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "broken", "expected name=value"),
            (OWN_ENDPOINT, "https://c", "expected a collector"),
        ] {
            let refused = of(&[(ENDPOINT, "http://c"), (name, value)]).unwrap_err();
            assert!(refused.contains(said) && refused.contains(name), "{refused}");
        }
    }
}
