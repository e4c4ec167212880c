//! The conversation against a key ring in memory, by a clock that stands still unless it is told to move.
//!
//! Each scene is a test here, and a row of `SCENES` for `vectors/runner`, which plays it in WebAssembly. What differs
//! between the two is at the root of each: `document`, `policy`, `rng`.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use confonnx_attest::merkle::Tree;
use confonnx_attest::{Claims, KeyClaim, Nonce, UnixTime};
use confonnx_client::conversation::{Body, Conversation, Exchange, Head, Now, Outcome, Step, Wait, Want};
use confonnx_client::{ClientError, Options, Request, Response};
use confonnx_protocol::bhttp::{self, ResponseHead};
use confonnx_protocol::resumption::RESUMPTION_FIELD;
use confonnx_protocol::server::{Epoch, KeyRing, ResumptionLimits, RingConfig};
use confonnx_protocol::{EpochSecret, padding};

use crate::{document, policy, rng};

const HOUR: u64 = 3600;

/// Both ends of the conversation, and what went between them.
struct World {
    ring: KeyRing,
    time: u64,
    max_request_bytes: Option<u64>,
    /// Problem codes that answer the next requests, which are not opened.
    refusals: Vec<&'static str>,
    /// How many of the next requests get no answer, because the connection ends.
    broken: usize,
    /// Status and code, inside the seal, of the next answers.
    inner: Vec<(u16, &'static str)>,
    /// What a gateway says, with a page of its own, in place of the next answers.
    gateways: Vec<u16>,
    /// Media types of the requests so far, `GET` for documents.
    seen: Vec<&'static str>,
    waited: Vec<Duration>,
}

impl World {
    fn new() -> Self {
        let config = RingConfig {
            grace: Duration::from_secs(HOUR),
            date_window: Duration::from_secs(300),
            replay_capacity: 1000,
            resumption: ResumptionLimits { max: 100, lifetime: Duration::from_secs(600) },
        };
        let time = 1_800_000_000;
        let ring = KeyRing::new(config, [1; 32], UnixTime(time)).unwrap();
        let mut world = Self {
            ring,
            time,
            max_request_bytes: None,
            refusals: Vec::new(),
            broken: 0,
            inner: Vec::new(),
            gateways: Vec::new(),
            seen: Vec::new(),
            waited: Vec::new(),
        };
        world.begin_epoch();
        world
    }

    fn begin_epoch(&mut self) {
        let number = self.ring.newest().map_or(0, |newest| newest.number + 1);
        let (not_before, not_after) = (UnixTime(self.time), UnixTime(self.time + 24 * HOUR));
        let secret = EpochSecret::new([number as u8; 32]);
        self.ring.install(Epoch { number, secret, not_before, not_after }, not_before).unwrap();
    }

    fn now(&self) -> Now {
        let elapsed = Duration::from_secs(self.time - 1_700_000_000);
        Now { clock: UNIX_EPOCH + Duration::from_secs(self.time), elapsed }
    }

    fn document(&self, nonce: Nonce) -> Vec<u8> {
        let (key_configs, keys) = self.ring.published();
        let mut claims = Claims::example(UnixTime(self.time));
        claims.keys = keys
            .iter()
            .map(|key| KeyClaim {
                key_id: key.key_id,
                kem: key.kem.name().into(),
                not_before: key.not_before,
                not_after: key.not_after,
                accepted_until: key.accepted_until,
            })
            .collect();
        if let Some(limit) = self.max_request_bytes {
            claims.settings.insert("max_request_bytes".into(), limit.into());
        }
        document(&key_configs, &claims.to_bytes(), &Tree::new(vec![nonce]).unwrap())
    }

    /// The sealed answer: the request's body, said twice.
    fn gateway(&mut self, content_type: &str, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let (rng, now) = (&mut rng(), UnixTime(self.time));
        let inner = (!self.inner.is_empty()).then(|| self.inner.remove(0));
        let answer = |request: &[u8], outdated: bool, grant: Option<String>| {
            let (_, content) = bhttp::decode_request(request).unwrap();
            let mut head = ResponseHead::new(inner.map_or(200, |(status, _)| status));
            head.fields.push("confonnx-key", if outdated { "outdated" } else { "current" });
            grant.into_iter().for_each(|grant| head.fields.push(RESUMPTION_FIELD, grant));
            let mut message = Vec::new();
            let content = content.bytes(request);
            let problem = inner.map(|(_, code)| format!(r#"{{"error": "", "code": "{code}"}}"#));
            let content = problem.as_ref().map_or([content, content], |problem| [problem.as_bytes(), b""]);
            bhttp::encode_response(&head, &content, &mut message).unwrap();
            padding::pad(&mut message);
            message
        };
        if content_type == "message/ohttp-chunked-req" {
            let mut opener = self.ring.chunked_opener(1 << 30);
            opener.push(&body, now).unwrap();
            let (opened, reply) = opener.finish(now).unwrap();
            let message = answer(opened.plaintext.expose(), opened.outdated, None);
            let pieces = reply.pieces((&message).into(), rng).unwrap();
            let sealed = pieces.flat_map(Result::unwrap).collect();
            return Ok(sealed);
        }
        let opened = match content_type {
            "message/confonnx-session-req" => self.ring.open_resumed(body, now),
            _ => self.ring.open(body, now),
        };
        let (opened, reply) = opened.map_err(|err| err.code().name().to_owned())?;
        let grant = opened.grant_resumption(rng).map(|grant| grant.to_string());
        Ok(reply.seal(&answer(opened.plaintext.expose(), opened.outdated, grant), rng).unwrap())
    }

    /// Runs an exchange; each answer comes in pieces of `piece` bytes.
    fn run(&mut self, exchange: &mut Exchange<'_>, piece: usize) -> Result<Outcome, ClientError> {
        loop {
            match exchange.step(self.now(), &mut rng()) {
                Step::Done(outcome) => return outcome,
                Step::Wait(Wait::For(time)) => {
                    self.waited.push(time);
                    self.time += time.as_secs() + 1;
                }
                Step::Wait(Wait::Attestation) => panic!("nobody else attests"),
                Step::Post { content_type, .. } if self.broken > 0 => {
                    self.seen.push(content_type);
                    self.broken -= 1;
                    exchange.failed("connection reset".into(), true, self.now());
                }
                Step::Post { content_type, .. } if !self.gateways.is_empty() => {
                    self.seen.push(content_type);
                    let mut head = Head::new(self.gateways.remove(0));
                    head.content_type = Some("text/html".into());
                    exchange.head(&head);
                    assert!(exchange.data(b"<h1>no server</h1>"));
                    exchange.end(self.now());
                }
                step => self.answer(exchange, step, piece),
            }
        }
    }

    fn answer(&mut self, exchange: &mut Exchange<'_>, step: Step, piece: usize) {
        let (content_type, answer) = match step {
            Step::Get { url, accept, .. } => {
                self.seen.push("GET");
                let nonce = url.rsplit_once("nonce=").unwrap().1.parse().unwrap();
                (accept, Ok(self.document(nonce)))
            }
            Step::Post { content_type, accept, body, .. } => {
                self.seen.push(content_type);
                let refusal = (!self.refusals.is_empty()).then(|| self.refusals.remove(0));
                let body: Vec<u8> = Body::flat_map(body, Result::unwrap).collect();
                (accept, refusal.map_or_else(|| self.gateway(content_type, body), |code| Err(code.into())))
            }
            Step::Wait(_) | Step::Done(_) => unreachable!(),
        };
        let mut head = Head::new(if answer.is_ok() { 200 } else { 400 });
        head.content_type =
            Some(answer.as_ref().map_or("application/problem+json", |_| content_type).to_owned());
        exchange.head(&head);
        let bytes = answer.unwrap_or_else(|code| format!(r#"{{"code": "{code}"}}"#).into_bytes());
        for bytes in bytes.chunks(piece) {
            assert!(exchange.data(bytes));
        }
        exchange.end(self.now());
    }

    fn call(&mut self, conversation: &Arc<Conversation>) -> Result<(), ClientError> {
        let request = Request::post("/v1/echo").body("hello");
        let mut exchange = Exchange::new(Arc::clone(conversation), Want::Call(request.into()), None);
        self.run(&mut exchange, usize::MAX)?;
        Ok(())
    }
}

fn conversation(options: Options) -> Arc<Conversation> {
    Arc::new(Conversation::new("https://server.example", policy(), options).unwrap())
}

const FULL: &str = "message/ohttp-req";
const RESUMED: &str = "message/confonnx-session-req";

#[cfg_attr(test, test)]
fn a_key_serves_until_the_clock_says_that_it_does_not() {
    let (mut world, conversation) = (World::new(), conversation(Options::default()));
    for _ in 0..4 {
        world.call(&conversation).unwrap();
    }
    assert_eq!(world.seen, ["GET", FULL, FULL, RESUMED, RESUMED]);
    // When the resumption has ended, the next request is full.
    world.seen.clear();
    world.time += 600;
    world.call(&conversation).unwrap();
    world.call(&conversation).unwrap();
    assert_eq!(world.seen, [FULL, RESUMED]);
    // When the key has ended, the client attests again.
    world.seen.clear();
    world.time += 25 * HOUR;
    world.begin_epoch();
    world.call(&conversation).unwrap();
    assert_eq!(world.seen, ["GET", FULL]);
    assert_eq!((conversation.key_rollover_count(), conversation.key_invalid_count()), (1, 0));
}

#[cfg_attr(test, test)]
fn an_outdated_key_is_renewed_by_the_next_call() {
    let (mut world, conversation) = (World::new(), conversation(Options::default()));
    world.call(&conversation).unwrap();
    world.time += 24 * HOUR;
    world.begin_epoch();
    world.call(&conversation).unwrap();
    assert!(conversation.key_outdated());
    world.seen.clear();
    world.call(&conversation).unwrap();
    assert_eq!(world.seen, ["GET", FULL]);
    assert!(!conversation.key_outdated());
}

#[cfg_attr(test, test)]
fn what_was_refused_for_a_while_is_tried_again_after_pauses_that_grow() {
    let mut world = World::new();
    let conversation = conversation(Options::new().retries(2));
    world.refusals = vec!["queue-full", "connections-full"];
    world.call(&conversation).unwrap();
    assert_eq!(world.seen, ["GET", FULL, FULL, FULL]);
    assert!(world.waited[0] >= Duration::from_millis(100) && world.waited[1] >= Duration::from_millis(200));
    world.refusals = vec!["queue-full"; 3];
    let err = world.call(&conversation).unwrap_err();
    assert!(matches!(&err, ClientError::Refused { code, .. } if code == "queue-full"), "{err}");
    // A request that may have run is not sent again.
    world.refusals = vec!["request-replayed"; 2];
    world.seen.clear();
    world.call(&conversation).unwrap_err();
    assert_eq!(world.seen.len(), 1);
}

/// What the server says of a request that it did not run, sealed: `model-restarting`, too, as a model's process is started
/// again.
#[cfg_attr(test, test)]
fn what_was_not_run_is_tried_again_as_the_sealed_answer_says() {
    let mut world = World::new();
    let conversation = conversation(Options::new().retries(1));
    // The status in the end, and after how many pauses.
    let mut call = |answers: &[(u16, &'static str)]| {
        (world.inner, world.waited) = (answers.to_vec(), Vec::new());
        let request = Request::post("/v1/echo").body("hello");
        let mut exchange = Exchange::new(Arc::clone(&conversation), Want::Call(request.into()), None);
        let Outcome::Answer(answer) = world.run(&mut exchange, usize::MAX).unwrap() else {
            panic!("an answer")
        };
        assert!(world.inner.is_empty());
        (Response::from(answer).status(), world.waited.len())
    };
    for answer in [(503, "model-restarting"), (503, "auth-unavailable"), (429, "rate-limited")] {
        assert_eq!(call(&[answer]), (200, 1), "{answer:?}");
        // As often as retries are allowed.
        assert_eq!(call(&[answer, answer]), (answer.0, 1), "{answer:?}");
    }
    // What was run, or what will not be otherwise in a moment.
    for answer in [(500, "inference-crashed"), (503, "model-unavailable"), (504, "inference-timeout")] {
        assert_eq!(call(&[answer]), (answer.0, 0), "{answer:?}");
    }
}

#[cfg_attr(test, test)]
fn a_connection_that_breaks_costs_no_inference() {
    let (mut world, conversation) = (World::new(), conversation(Options::default()));
    let infer = |world: &mut World, path: &str| {
        let request = Request::post(path).body("{}");
        let mut exchange = Exchange::new(Arc::clone(&conversation), Want::Call(request.into()), None);
        world.run(&mut exchange, usize::MAX)
    };
    world.broken = 2;
    infer(&mut world, "/v2/models/m/infer").unwrap();
    assert_eq!(world.seen, ["GET", FULL, FULL, FULL]);
    world.broken = 3;
    let err = infer(&mut world, "/v2/models/m/infer").err().unwrap();
    assert!(matches!(err, ClientError::Transport { sent: true, .. }), "{err}");
    // The answers of a gateway before the server.
    world.gateways = vec![502, 503];
    infer(&mut world, "/v2/models/m/infer").unwrap();
    world.gateways = vec![500];
    let err = infer(&mut world, "/v2/models/m/infer").err().unwrap();
    assert!(matches!(err, ClientError::Unsealed { status: 500, .. }), "{err}");
    // A request that may have changed something is not sent again.
    world.gateways = vec![504];
    let err = infer(&mut world, "/v2/repository/models/m/load").err().unwrap();
    assert!(matches!(err, ClientError::Unsealed { status: 504, .. }), "{err}");
    world.broken = 1;
    let err = infer(&mut world, "/v2/repository/models/m/load").err().unwrap();
    assert!(matches!(err, ClientError::Transport { sent: true, .. }), "{err}");
}

#[cfg_attr(test, test)]
fn no_pause_is_begun_that_the_timeout_would_cut_short() {
    let mut world = World::new();
    let conversation = conversation(Options::new().retries(9).timeout(Duration::from_millis(50)));
    world.refusals = vec!["queue-full"];
    let err = world.call(&conversation).unwrap_err();
    assert!(matches!(err, ClientError::Refused { .. }), "{err}");
    assert!(world.waited.is_empty());
}

#[cfg_attr(test, test)]
fn a_request_over_the_servers_limit_is_not_sent() {
    let (mut world, conversation) = (World::new(), conversation(Options::default()));
    world.max_request_bytes = Some(2000);
    world.call(&conversation).unwrap();
    let request = Request::post("/v1/echo").body(vec![7; 4000]);
    let mut exchange = Exchange::new(Arc::clone(&conversation), Want::Call(request.into()), None);
    let err = world.run(&mut exchange, usize::MAX).unwrap_err();
    assert!(matches!(err, ClientError::RequestTooLarge { len: 4000.., limit: 2000 }), "{err}");
    assert_eq!(world.seen, ["GET", FULL]);
}

#[cfg_attr(test, test)]
fn one_call_attests_and_the_others_wait_for_it() {
    let (mut world, conversation) = (World::new(), conversation(Options::default()));
    let exchange = || Exchange::new(Arc::clone(&conversation), Want::Proof, None);
    let (mut first, mut second) = (exchange(), exchange());
    let rng = &mut rng();
    let step = first.step(world.now(), rng);
    assert!(matches!(second.step(world.now(), rng), Step::Wait(Wait::Attestation)));
    let context = Context::from_waker(Waker::noop());
    assert_eq!(conversation.poll_attested(&context), Poll::Pending);
    world.answer(&mut first, step, usize::MAX);
    assert_eq!(conversation.poll_attested(&context), Poll::Ready(()));
    assert!(matches!(second.step(world.now(), rng), Step::Done(Ok(Outcome::Proof(_)))));
    // An exchange that is given up lets the next one attest.
    conversation.forget();
    let mut abandoned = exchange();
    assert!(matches!(abandoned.step(world.now(), rng), Step::Get { .. }));
    drop(abandoned);
    world.run(&mut second_try(&conversation), usize::MAX).unwrap();
}

fn second_try(conversation: &Arc<Conversation>) -> Exchange<'static> {
    Exchange::new(Arc::clone(conversation), Want::Proof, None)
}

#[cfg_attr(test, test)]
fn chunks_are_opened_however_they_are_cut() {
    let mut world = World::new();
    let conversation = conversation(Options::new().chunked(true));
    for piece in [1, 7, 16_384, 1 << 20] {
        let body = vec![0x5a; 40_000];
        let request = Request::post("/v1/echo").body(body.clone());
        let mut exchange = Exchange::new(Arc::clone(&conversation), Want::Call(request.into()), None);
        let Outcome::Answer(answer) = world.run(&mut exchange, piece).unwrap() else { panic!() };
        assert_eq!(format!("{answer:?}"), "Answer(200, 80000 bytes)");
    }
}

#[cfg_attr(test, test)]
fn a_clock_that_is_wrong_shows_in_the_exchange_alone() {
    // A client whose clock is a day ahead thinks that the key has ended, and says so.
    let (world, conversation) = (World::new(), conversation(Options::default()));
    let mut exchange = Exchange::new(conversation, Want::Proof, None);
    let rng = &mut rng();
    let Step::Get { url, .. } = exchange.step(world.now(), rng) else { panic!() };
    let mut head = Head::new(200);
    head.content_type = Some("application/json".into());
    exchange.head(&head);
    exchange.data(&world.document(url.rsplit_once("nonce=").unwrap().1.parse().unwrap()));
    let later = Now { clock: world.now().clock + Duration::from_secs(48 * HOUR), ..world.now() };
    assert!(later.clock > SystemTime::UNIX_EPOCH);
    exchange.end(later);
    let Step::Done(Err(err)) = exchange.step(later, rng) else { panic!() };
    assert!(matches!(&err, ClientError::NoKey { reason } if reason.contains("clock")), "{err}");
}

/// All scenes, by name.
#[allow(dead_code, reason = "vectors/runner plays them")]
pub(crate) const SCENES: [(&str, fn()); 10] = [
    (
        "a_key_serves_until_the_clock_says_that_it_does_not",
        a_key_serves_until_the_clock_says_that_it_does_not,
    ),
    ("an_outdated_key_is_renewed_by_the_next_call", an_outdated_key_is_renewed_by_the_next_call),
    (
        "what_was_refused_for_a_while_is_tried_again_after_pauses_that_grow",
        what_was_refused_for_a_while_is_tried_again_after_pauses_that_grow,
    ),
    (
        "what_was_not_run_is_tried_again_as_the_sealed_answer_says",
        what_was_not_run_is_tried_again_as_the_sealed_answer_says,
    ),
    ("a_connection_that_breaks_costs_no_inference", a_connection_that_breaks_costs_no_inference),
    (
        "no_pause_is_begun_that_the_timeout_would_cut_short",
        no_pause_is_begun_that_the_timeout_would_cut_short,
    ),
    ("a_request_over_the_servers_limit_is_not_sent", a_request_over_the_servers_limit_is_not_sent),
    ("one_call_attests_and_the_others_wait_for_it", one_call_attests_and_the_others_wait_for_it),
    ("chunks_are_opened_however_they_are_cut", chunks_are_opened_however_they_are_cut),
    ("a_clock_that_is_wrong_shows_in_the_exchange_alone", a_clock_that_is_wrong_shows_in_the_exchange_alone),
];
