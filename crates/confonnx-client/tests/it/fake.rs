//! A server for one model, `echo`, which returns its inputs.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use confonnx_attest::merkle::Tree;
use confonnx_attest::produce::Attester;
use confonnx_attest::{Claims, Digest, Document, KeyClaim, ModelClaim, Nonce, UnixTime, report_data};
use confonnx_protocol::bhttp::{self, RequestHead, ResponseHead};
use confonnx_protocol::oip::{HEADER_LENGTH, InferRequest, InferResponse};
use confonnx_protocol::resumption::RESUMPTION_FIELD;
use confonnx_protocol::server::{Epoch, KeyRing, ResumptionLimits, RingConfig};
use confonnx_protocol::{EpochSecret, padding};
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

pub(crate) struct Fake {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

pub(crate) struct State {
    pub(crate) ring: KeyRing,
    pub(crate) models: Vec<&'static str>,
    /// Faults of the next sealed requests, one for each.
    pub(crate) faults: VecDeque<Fault>,
    /// The fault of every attestation.
    pub(crate) attestation: Option<AttestationFault>,
    /// Heads of the requests that were opened.
    pub(crate) opened: Vec<RequestHead>,
    /// Outer headers and lengths of the sealed requests received.
    pub(crate) received: Vec<(hyper::HeaderMap, usize)>,
    pub(crate) attestations: usize,
    /// How many requests were opened by a resumption.
    pub(crate) resumed: usize,
    pub(crate) grants: bool,
    /// Outer headers of the requests for documents.
    pub(crate) asked: Vec<hyper::HeaderMap>,
    /// Paths of the sealed requests.
    pub(crate) paths: Vec<String>,
    last_reply: Vec<u8>,
}

/// What goes wrong with a sealed request.
pub(crate) enum Fault {
    None,
    /// An answer of status, media type and body, without opening the request.
    Answer(u16, &'static str, &'static str),
    /// The reply to the request before this one.
    OldReply,
    /// The reply without its last byte.
    Truncated,
    /// The reply with one bit flipped.
    Flipped,
    /// A head that announces more bytes than follow.
    HalfBody,
    /// No answer for a long time.
    Slow,
    /// A sealed error: status, body, and a `date` some seconds ahead.
    Sealed(u16, &'static str, u64),
}

pub(crate) enum AttestationFault {
    Answer(u16, &'static str, &'static str),
    OtherNonce,
    OtherKeys,
    KeysUnclaimed,
    Expired,
    Long,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            ring: ring(1),
            models: vec!["echo"],
            faults: VecDeque::new(),
            attestation: None,
            opened: Vec::new(),
            received: Vec::new(),
            attestations: 0,
            resumed: 0,
            grants: true,
            asked: Vec::new(),
            paths: Vec::new(),
            last_reply: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Number of attestations so far.
    pub(crate) fn attestations(&self) -> usize {
        self.state().attestations
    }

    /// Number of requests opened so far.
    pub(crate) fn opened(&self) -> usize {
        self.state().opened.len()
    }

    /// Number of sealed requests so far.
    pub(crate) fn received(&self) -> usize {
        self.state().received.len()
    }

    /// Number of requests opened by a resumption so far.
    pub(crate) fn resumed(&self) -> usize {
        self.state().resumed
    }

    /// Forgets resumptions and keeps the keys, as a replica with the same keys knows none.
    pub(crate) fn forget_resumptions(&self) {
        self.state().ring = ring(1);
    }

    /// Makes new keys and forgets the old ones, as a restart does.
    pub(crate) fn restart(&self) {
        self.state().ring = ring(50);
    }
}

fn ring(first_key_id: u8) -> KeyRing {
    let config = RingConfig {
        grace: Duration::from_secs(3600),
        date_window: Duration::from_secs(300),
        replay_capacity: 1000,
        resumption: ResumptionLimits { max: 100, lifetime: Duration::from_secs(600) },
    };
    let ring = KeyRing::new(config, [first_key_id; 32], now()).unwrap();
    begin_epoch_of(&ring, EpochSecret::new([first_key_id; 32]));
    ring
}

/// Begins the next epoch.
pub(crate) fn begin_epoch(ring: &KeyRing) {
    begin_epoch_of(ring, EpochSecret::generate(&mut UnwrapErr(SysRng)));
}

fn begin_epoch_of(ring: &KeyRing, secret: EpochSecret) {
    let now = now();
    let number = ring.newest().map_or(0, |newest| newest.number + 1);
    let epoch = Epoch { number, secret, not_before: now, not_after: UnixTime(now.0 + 86_400) };
    ring.install(epoch, now).unwrap();
}

pub(crate) fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(query) = request.uri().query() {
        let nonce: Nonce = query.strip_prefix("nonce=").unwrap().parse().unwrap();
        let mut state = state.lock().unwrap();
        state.asked.push(request.headers().clone());
        return Ok(state.attest(nonce));
    }
    let (head, body) = request.into_parts();
    let is_resumed = head.headers["content-type"] == "message/confonnx-session-req";
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    let fault = {
        let mut state = state.lock().unwrap();
        state.received.push((head.headers, body.len()));
        state.paths.push(head.uri.path().into());
        state.faults.pop_front().unwrap_or(Fault::None)
    };
    if let Fault::Slow = fault {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    Ok(state.lock().unwrap().gateway(body, is_resumed, &fault))
}

impl State {
    fn attest(&mut self, nonce: Nonce) -> Response<Full<Bytes>> {
        self.attestations += 1;
        let key_configs = match self.attestation {
            Some(AttestationFault::OtherKeys) => ring(99).key_configs(),
            _ => self.ring.key_configs(),
        };
        let mut claims = Claims::example(now());
        let model = |name: &&str| ModelClaim {
            name: (*name).into(),
            version: "1".into(),
            sha256: Some(Digest([3; 32])),
            ciphertext_sha256: None,
            batching: None,
        };
        claims.models = self.models.iter().map(model).collect();
        claims.keys = self
            .ring
            .keys()
            .iter()
            .map(|key| {
                let times = match self.attestation {
                    Some(AttestationFault::Expired) => [100, 10, 1].map(|ago| UnixTime(now().0 - ago)),
                    _ => [key.not_before, key.not_after, key.accepted_until],
                };
                let [not_before, not_after, accepted_until] = times;
                let kem = key.kem.name().into();
                KeyClaim { key_id: key.key_id, kem, not_before, not_after, accepted_until }
            })
            .collect();
        if let Some(AttestationFault::KeysUnclaimed) = self.attestation {
            claims.keys.clear();
        }
        let nonce = match self.attestation {
            Some(AttestationFault::OtherNonce) => Nonce([0; 32]),
            _ => nonce,
        };
        let (tree, claims) = (Tree::new(vec![nonce]).unwrap(), claims.to_bytes());
        // With the fault `OtherKeys`, the document has other keys than those in the evidence.
        let bound = report_data(&tree.root(), &self.ring.key_configs(), &claims);
        let evidence = Attester::insecure(Digest([0xe1; 32])).evidence(&bound).unwrap();
        let document = Document::new(key_configs, claims, evidence, tree.root(), tree.proof(0)).to_json();
        match self.attestation {
            Some(AttestationFault::Answer(status, kind, body)) => respond(status, kind, body.into()),
            Some(AttestationFault::Long) => respond(200, "application/json", vec![b' '; (1 << 20) + 1]),
            _ => respond(200, "application/json", document),
        }
    }

    fn gateway(&mut self, body: Vec<u8>, is_resumed: bool, fault: &Fault) -> Response<Full<Bytes>> {
        if let Fault::Answer(status, kind, body) = fault {
            return respond(*status, kind, (*body).into());
        }
        let opened =
            if is_resumed { self.ring.open_resumed(body, now()) } else { self.ring.open(body, now()) };
        let (opened, reply) = match opened {
            Ok(opened) => opened,
            Err(err) => {
                let problem = format!(r#"{{"code": "{}"}}"#, err.code());
                return respond(err.code().status(), "application/problem+json", problem.into());
            }
        };
        self.resumed += usize::from(is_resumed);
        let (head, content) = bhttp::decode_request(opened.plaintext.expose()).unwrap();
        let mut message = Vec::new();
        let mut answer = ResponseHead::new(200);
        answer.fields.push("confonnx-key", if opened.outdated { "outdated" } else { "current" });
        if head.fields.get(RESUMPTION_FIELD).is_some() {
            let grant = opened.grant_resumption(&mut UnwrapErr(SysRng)).filter(|_| self.grants);
            grant.into_iter().for_each(|grant| answer.fields.push(RESUMPTION_FIELD, grant.to_string()));
        }
        if let Fault::Sealed(status, body, ahead) = fault {
            answer.status = *status;
            let date = SystemTime::now() + Duration::from_secs(*ahead);
            answer.fields.push("date", httpdate::fmt_http_date(date));
            bhttp::encode_response(&answer, &[body.as_bytes()], &mut message).unwrap();
        } else {
            let json_len =
                head.fields.get(HEADER_LENGTH).map(|len| std::str::from_utf8(len).unwrap().parse().unwrap());
            let request = InferRequest::decode(content.bytes(opened.plaintext.expose()), json_len).unwrap();
            let outputs = request.inputs;
            let response =
                InferResponse { model_name: "echo".into(), model_version: None, id: None, outputs };
            let encoded = response.encode(|_| true).unwrap();
            answer.fields.push(HEADER_LENGTH, encoded.json_len().unwrap().to_string());
            bhttp::encode_response(&answer, &encoded.parts(), &mut message).unwrap();
        }
        padding::pad(&mut message);
        self.opened.push(head);
        let mut sealed = reply.seal(&message, &mut UnwrapErr(SysRng)).unwrap();
        let fresh = sealed.clone();
        match fault {
            Fault::OldReply => sealed = self.last_reply.clone(),
            Fault::Truncated => drop(sealed.pop()),
            Fault::Flipped => sealed[100] ^= 1,
            _ => {}
        }
        self.last_reply = fresh;
        let media_type = if is_resumed { "message/confonnx-session-res" } else { "message/ohttp-res" };
        let mut response = respond(200, media_type, sealed);
        if let Fault::HalfBody = fault {
            response.headers_mut().insert("content-length", "100000".parse().unwrap());
        }
        response
    }
}

fn respond(status: u16, content_type: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(Full::new(body.into()))
        .unwrap()
}
