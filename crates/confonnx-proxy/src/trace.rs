//! OpenTelemetry traces of what programs ask: a span for each request, sent by OTLP over HTTP to where the usual variables
//! say. A request's own trace (W3C `traceparent`) goes on. What is sealed carries nothing of it.

mod export;
mod message;

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, Method, Request, StatusCode};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::answer::{Answer, FAULT};
pub use export::TraceError;
use export::{Exporter, Target};
use message::{Span, attribute};

/// The collector to which spans go.
#[derive(Debug)]
pub struct Traces {
    spans: Mutex<Option<mpsc::Sender<Span>>>,
    exporter: Mutex<Option<JoinHandle<()>>>,
}

/// A request under way.
pub(crate) struct Started {
    span: Span,
    fault: bool,
}

impl Traces {
    /// What the variables of OpenTelemetry's SDKs ask for (`OTEL_EXPORTER_OTLP_ENDPOINT` and others); none if that is
    /// nothing. To be called within a runtime.
    ///
    /// # Errors
    /// [`TraceError`]
    pub fn from_environment() -> Result<Option<Self>, TraceError> {
        Ok(Target::of(|name| std::env::var(name).ok())?.map(Self::to))
    }

    fn to(target: Target) -> Self {
        let (spans, coming) = mpsc::channel(WAITING);
        let exporter = tokio::spawn(Exporter::new(target).run(coming));
        Self { spans: Mutex::new(Some(spans)), exporter: Mutex::new(Some(exporter)) }
    }

    /// Begins a span for a request; none for one that says that it is not to be recorded.
    pub(crate) fn begin<B>(request: &Request<B>) -> Option<Started> {
        let (trace, parent) = match parent(request.headers()) {
            Some(Parent { sampled: false, .. }) => return None,
            Some(parent) => (parent.trace, parent.span),
            None => (random::<16>()?, Vec::new()),
        };
        let route = route(request.uri().path());
        let span = Span {
            trace_id: trace,
            span_id: random::<8>()?,
            parent_span_id: parent,
            name: format!("{} {route}", method(request.method())),
            kind: message::SERVER,
            start_time_unix_nano: now(),
            attributes: vec![
                attribute("http.request.method", method(request.method())),
                attribute("http.route", &route),
            ],
            ..Span::default()
        };
        Some(Started { span, fault: false })
    }

    /// Sends a span on. Without room for it, it is dropped: nobody waits for a trace.
    pub(crate) fn end(&self, started: Started) {
        let Started { mut span, fault } = started;
        span.end_time_unix_nano = now();
        if fault {
            span.status = Some(message::Status { message: String::new(), code: message::ERROR });
        }
        if let Some(spans) = &*self.spans.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = spans.try_send(span);
        }
    }

    /// Sends what is left, and ends.
    pub async fn close(&self) {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).take();
        let exporter = self.exporter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(exporter) = exporter {
            // A collector that does not answer keeps nobody from ending.
            let _ = tokio::time::timeout(LAST, exporter).await;
        }
    }
}

impl Started {
    /// Notes the outcome of the request.
    pub(crate) fn answered(&mut self, answer: &Answer) {
        let status = answer.status();
        self.fault = status.is_server_error() || answer.headers().contains_key(FAULT);
        self.span.attributes.push(message::number("http.response.status_code", status.as_u16().into()));
        let field = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(kind) = field(FAULT) {
            self.span.attributes.push(attribute("error.type", kind));
        }
        // gRPC has its own, here if nothing but it is answered.
        if let Some(code) = field("grpc-status").filter(|_| status == StatusCode::OK) {
            self.span.attributes.push(attribute("rpc.grpc.status_code", code));
            self.fault |= !matches!(code, "0" | "1" | "3" | "5" | "6" | "7" | "9" | "11" | "16");
        }
    }
}

struct Parent {
    trace: Vec<u8>,
    span: Vec<u8>,
    sampled: bool,
}

/// `<version>-<trace>-<span>-<flags>`, of version 00 nothing more and of later ones what they like; what has another form is
/// passed over, as W3C has it.
fn parent(fields: &HeaderMap) -> Option<Parent> {
    let mut parts = fields.get("traceparent")?.to_str().ok()?.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let [version] = hex::<1>(version)?[..] else { return None };
    let [flags] = hex::<1>(flags)?[..] else { return None };
    if version == 0xff || (version == 0 && parts.next().is_some()) {
        return None;
    }
    let (trace, span) = (hex::<16>(trace)?, hex::<8>(span)?);
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    (!zero(&trace) && !zero(&span)).then_some(Parent { trace, span, sampled: flags & 1 == 1 })
}

/// The bytes of lower-case hex, as W3C has it.
fn hex<const N: usize>(text: &str) -> Option<Vec<u8>> {
    if text.len() != N.saturating_mul(2) || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let byte = |two: &[u32]| {
        two.iter().try_fold(0_u8, |byte, digit| byte.checked_mul(16)?.checked_add(u8::try_from(*digit).ok()?))
    };
    digits.chunks(2).map(byte).collect()
}

fn random<const N: usize>() -> Option<Vec<u8>> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.to_vec())
}

fn method(method: &Method) -> &str {
    const KNOWN: [Method; 6] =
        [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS];
    if KNOWN.contains(method) { method.as_str() } else { "_OTHER" }
}

/// The path with names replaced by what they name and unknown words by one word, so that there are few routes; eight segments
/// at most.
fn route(path: &str) -> String {
    let mut route = String::new();
    let mut before = "";
    for segment in path.split('/').skip(1).take(8) {
        let known = |word: &str| WORDS.contains(&word);
        route.push('/');
        route.push_str(match before {
            "versions" => "{version}",
            "region" => "{region}",
            // `stats` for all models is no model.
            "models" if segment != "stats" => "{model}",
            _ if known(segment) => segment,
            _ => "{other}",
        });
        before = if before == "models" { "" } else { segment };
    }
    route
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(0)
}

const WORDS: [&str; 33] = [
    "v1",
    "v2",
    "health",
    "live",
    "ready",
    "models",
    "versions",
    "infer",
    "config",
    "stats",
    "repository",
    "index",
    "load",
    "unload",
    "trace",
    "setting",
    "logging",
    "systemsharedmemory",
    "cudasharedmemory",
    "region",
    "register",
    "unregister",
    "status",
    "chat",
    "completions",
    "embeddings",
    "inference.GRPCInferenceService",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelMetadata",
    "ModelReady",
    "ServerLive",
    "ServerReady",
];
/// Spans that wait to be sent.
const WAITING: usize = 2048;
/// How long the last ones may take.
const LAST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn of(traceparent: &str) -> Option<(Vec<u8>, Vec<u8>, bool)> {
        let mut fields = HeaderMap::new();
        fields.insert("traceparent", traceparent.parse().unwrap());
        parent(&fields).map(|parent| (parent.trace, parent.span, parent.sampled))
    }

    #[test]
    fn a_trace_goes_on_if_it_is_one() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let (found, span, sampled) = of(&format!("00-{trace}-00f067aa0ba902b7-01")).unwrap();
        assert_eq!((found[0], found[15], span[1], sampled), (0x4b, 0x36, 0xf0, true));
        assert!(!of(&format!("00-{trace}-00f067aa0ba902b7-00")).unwrap().2);
        assert!(of(&format!("cc-{trace}-00f067aa0ba902b7-01-more")).is_some(), "a later version");
        for bad in [
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{trace}-00f067aa0ba902b7"),
            "00-é".into(),
        ] {
            assert!(bad.is_ascii() && of(&bad).is_none() || !bad.is_ascii(), "{bad}");
        }
    }

    #[test]
    fn routes_have_no_names() {
        for (path, found) in [
            ("/v2/models/secret/infer", "/v2/models/{model}/infer"),
            ("/v2/models/models/versions/7/infer", "/v2/models/{model}/versions/{version}/infer"),
            ("/v2/models/stats", "/v2/models/stats"),
            ("/v2/repository/models/secret/load", "/v2/repository/models/{model}/load"),
            ("/v1/chat/completions", "/v1/chat/completions"),
            ("/team-a/v2/health/ready", "/{other}/v2/health/ready"),
            ("/inference.GRPCInferenceService/ModelInfer", "/inference.GRPCInferenceService/ModelInfer"),
        ] {
            assert_eq!(route(path), found);
        }
    }
}
