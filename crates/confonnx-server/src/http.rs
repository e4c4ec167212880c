//! The public port: attestation and sealed messages. Sees only bytes that are sealed or public.

mod cors;
mod counted;
mod demo;
mod gateway;
mod peers;
mod problem;
mod serve;
mod threads;
mod vsock;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use confonnx_attest::Nonce;
use confonnx_protocol::Code;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use tokio::time::sleep_until;
use tracing::debug;

pub use demo::{Demo, DemoError};
pub use problem::problem;
pub use serve::{Listener, Stop};

use crate::{
    attestation::Attestation,
    body::Body,
    budget::{Budget, Purse},
    config::{Limits, Origins},
    metrics::Metrics,
    scheduling::Scheduling,
    service::Service,
};

/// The part of the server that answers requests; independent of any listener.
pub struct App {
    service: Arc<Service>,
    attestation: Arc<Attestation>,
    scheduling: Scheduling,
    budget: Budget,
    limits: Limits,
    origins: Origins,
    demo: Option<Demo>,
    metrics: Arc<Metrics>,
    draining: AtomicBool,
}

/// An answer, and how to count it.
struct Answered {
    response: Response<Body>,
    outcome: &'static str,
    /// An answer to a request that opened; any other is given to just anybody.
    is_sealed: bool,
}

impl App {
    /// An application that has yet to receive its first request.
    pub fn new(
        service: Arc<Service>,
        attestation: Arc<Attestation>,
        scheduling: Scheduling,
        limits: Limits,
        origins: Origins,
        metrics: Arc<Metrics>,
    ) -> Self {
        let budget = Budget::new(limits.held_bytes, limits.peer_bytes(), limits.connection_bytes());
        let budget = if limits.tells_peers_apart() { budget } else { budget.unpaced() };
        Self {
            service,
            attestation,
            scheduling,
            budget,
            limits,
            origins,
            demo: None,
            metrics,
            draining: AtomicBool::new(false),
        }
    }

    /// With a page for people.
    #[must_use]
    pub fn with_demo(self, demo: Option<Demo>) -> Self {
        Self { demo, ..self }
    }

    /// Refuses sealed requests from now on; those received so far are answered.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The reason why the server cannot serve, if there is one.
    pub fn trouble(&self) -> Option<String> {
        if self.is_draining() {
            return Some("draining".into());
        }
        let no_keys = |why: Option<String>| format!("no keys: {}", why.as_deref().unwrap_or("not yet"));
        if !self.service.is_ready() {
            return Some(no_keys(self.service.trouble()));
        }
        self.service.lacking()
    }

    /// The counters, in Prometheus' text format.
    pub fn metrics_page(&self) -> String {
        self.metrics.render(&self.service.samples())
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Bytes that are held for connections.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Waits until no sealed request is received, waiting or running.
    pub async fn idle(&self) {
        self.scheduling.idle().await;
    }

    /// Answers one request.
    pub async fn answer<B>(self: &Arc<Self>, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Send,
    {
        let start = Instant::now();
        let id = request_id();
        let echo = request.headers().get(CLIENT_REQUEST_ID).filter(|value| is_token(value)).cloned();
        let received = http_body::Body::size_hint(request.body()).exact();
        let origin = cors::origin(&request, &self.origins);
        let purse = request
            .extensions()
            .get::<Purse>()
            .cloned()
            .unwrap_or_else(|| self.budget.purse(&self.budget.peer()));
        // Making it is what costs, and who waits for one more takes a place in a queue that all have.
        let is_document = request.uri().path() == ATTESTATION;
        if is_document {
            self.turn(&purse).await;
        }
        let answered = self.route(request, &id, &purse, origin.is_some()).await;
        let Answered { mut response, outcome, is_sealed } = answered;
        if !is_document && !is_sealed {
            self.turn(&purse).await;
        }
        self.metrics.count(outcome);
        let (id_text, sent) =
            (id.to_str().unwrap_or_default(), http_body::Body::size_hint(response.body()).exact());
        debug!(id = id_text, outcome, received, sent, micros = start.elapsed().as_micros(), "request");
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, id);
        if let Some(origin) = origin {
            cors::grant(headers, origin);
        }
        if let Some(echo) = echo {
            headers.insert(CLIENT_REQUEST_ID, echo);
        }
        response
    }

    /// Waits until the peer gets another answer that is not sealed.
    async fn turn(&self, purse: &Purse) {
        if !self.is_draining()
            && let Some(turn) = purse.unsealed(tokio::time::Instant::now())
        {
            sleep_until(turn).await;
        }
    }

    async fn route<B>(
        self: &Arc<Self>,
        request: Request<B>,
        id: &HeaderValue,
        purse: &Purse,
        from_page: bool,
    ) -> Answered
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Send,
    {
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let taken = match request.uri().path() {
            ATTESTATION => Some(Method::GET),
            GATEWAY => Some(Method::POST),
            _ => None,
        };
        if from_page && let Some(response) = taken.and_then(|method| cors::preflight(&request, method)) {
            return Answered { response, outcome: "ok", is_sealed: false };
        }
        match request.uri().path() {
            "/" if get => ok(Bytes::from_static(b"Healthy"), "text/plain"),
            ATTESTATION if get => self.attest(request.uri().query(), purse).await,
            GATEWAY if request.method() == Method::POST => {
                gateway::answer(self, request, id, purse).await.unwrap_or_else(refused)
            }
            "/" | ATTESTATION => not_allowed("GET, HEAD"),
            GATEWAY => not_allowed("POST"),
            path => match self.demo.as_ref().filter(|_| get).and_then(|demo| demo.answer(path)) {
                Some(response) => Answered { response, outcome: "ok", is_sealed: false },
                None => refused(Code::NotFound),
            },
        }
    }

    async fn attest(&self, query: Option<&str>, purse: &Purse) -> Answered {
        let nonce = match query {
            None => None,
            Some(query) => match query.strip_prefix("nonce=").and_then(|hex| hex.parse::<Nonce>().ok()) {
                Some(nonce) => Some(nonce),
                None => return refused(Code::NonceInvalid),
            },
        };
        if !self.service.is_ready() {
            return refused(Code::KeysUnavailable);
        }
        match self.attestation.document(nonce).await {
            Ok(document) => {
                // Counted until it is written: whoever asks and does not read gets no more.
                let Ok(share) = purse.reply(document.len()) else {
                    return refused(Code::AttestationUnavailable);
                };
                let mut answered = ok(share.hold(document), "application/json");
                let headers = answered.response.headers_mut();
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                answered
            }
            Err(_) => refused(Code::AttestationUnavailable),
        }
    }
}

fn ok(body: Bytes, content_type: &'static str) -> Answered {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Answered { response, outcome: "ok", is_sealed: false }
}

fn refused(code: Code) -> Answered {
    Answered { response: problem(code), outcome: code.name(), is_sealed: false }
}

fn not_allowed(allow: &'static str) -> Answered {
    let mut answered = refused(Code::MethodNotAllowed);
    answered.response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    answered
}

/// The media type without parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

/// 128 random bits, as a UUID of version 4 (RFC 9562).
fn request_id() -> HeaderValue {
    // Ids are names, not secrets: keyed hashes of a counter are as unlikely to meet as random ones, without a system call.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let [high, low] = KEYS.each_ref().map(|key| u128::from(key.hash_one(count)));
    let mut bytes = (high << 64 | low).to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut id = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        for nibble in [byte >> 4, byte & 0x0f] {
            id.extend(char::from_digit(nibble.into(), 16));
        }
    }
    HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

fn is_token(value: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~:+/=".contains(byte);
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(allowed)
}

const ATTESTATION: &str = "/.well-known/confonnx/attestation";
const GATEWAY: &str = "/.well-known/ohttp-gateway";
const REQUEST_ID: &str = "x-ms-request-id";
const CLIENT_REQUEST_ID: &str = "x-ms-client-request-id";
