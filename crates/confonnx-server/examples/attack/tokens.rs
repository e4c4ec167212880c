//! Hostile callers of a language model beside honest ones, who are told their answers token by token and time them. As a
//! control hostile callers first do the same to another server, which shares the cores and nothing else; runs of two seconds,
//! which only look whether anything is lost, have none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use confonnx_attest::{Digest, produce::Attester};
use confonnx_engine::Engine;
use confonnx_protocol::{
    Aead, Kem, bhttp,
    client::{ChunkedReplyOpener, SealingKey},
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    runtime::{Handle, Runtime},
    task::JoinSet,
    time::sleep,
};

use super::{connect_from, harness::*};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hostile {
    Tokens,
    Schemas,
    Biases,
    EndlessAnswers,
    AbandonedStreams,
    LongestPrompts,
}

const ALL: [Hostile; 6] = [
    Hostile::Tokens,
    Hostile::Schemas,
    Hostile::Biases,
    Hostile::EndlessAnswers,
    Hostile::AbandonedStreams,
    Hostile::LongestPrompts,
];

/// Honest callers, each with an address of its own.
const HONEST: u8 = 4;
/// All at one address.
const ATTACKERS: usize = 16;
const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
/// The tests' model ends an answer with this token.
const END: &str = "301";
/// How long a phase has to be for its times to be compared.
const WORTH_COMPARING: Duration = Duration::from_secs(1);
/// Bytes of what is said of a token, which may be no text yet.
const PIECE: usize = 512;
/// Tokens of the tests' model, for a prompt and its answer.
const CONTEXT: usize = 512;

/// What became of requests of hostile callers.
#[derive(Default)]
struct Outcomes {
    answered: AtomicUsize,
    /// Sealed errors with a code.
    refused: AtomicUsize,
    /// Refused before anything was opened.
    turned_away: AtomicUsize,
    /// Streams that were left in their middle.
    left: AtomicUsize,
    /// Answers that are none of these.
    wrong: AtomicUsize,
}

/// What honest callers noticed.
#[derive(Default)]
struct Timed {
    between: Vec<Duration>,
    tokens: usize,
    lost: usize,
}

/// Measures honest callers alone, then beside each kind of hostile ones that is wanted; whether anything was wrong.
pub(super) fn attack(
    (serving, calling, attacking): (&Runtime, &Runtime, &Runtime),
    engine: &Engine,
    length: Duration,
    only: &[String],
) -> bool {
    let wanted = |hostile: &Hostile| only.is_empty() || only.contains(&format!("{hostile:?}"));
    if !ALL.iter().any(wanted) {
        return false;
    }
    let start = || {
        let config = config("decoder", |settings| {
            settings.max_request_bytes = Some(1 << 20);
            settings.max_connections = Some(64);
            settings.max_peer_percent = Some(50);
        });
        Arc::new(serving.block_on(start_by(config, Attester::insecure(Digest([7; 32])), engine)))
    };
    let (server, elsewhere) = (start(), start());
    let alone: Arc<[String]> = calling.block_on(async {
        let key = server.key(Kem::X25519).await;
        let mut answers = Vec::new();
        for number in 0..HONEST {
            let mut timed = Timed::default();
            answers.push(
                honest(&server, &key, number, &mut timed).await.expect("an answer to whoever is alone"),
            );
        }
        answers.into()
    });
    println!(
        "\n{:<18} {:>7} {:>9} {:>8} {:>10} {:>9} {:>8} {:>10} {:>8} {:>7} {:>9} {:>5} {:>5}",
        "hostile callers",
        "tokens",
        "median",
        "of quiet",
        "of control",
        "p99",
        "of quiet",
        "of control",
        "answered",
        "refused",
        "not taken",
        "left",
        "lost"
    );
    let (mut quiet, mut bad) = (None, false);
    for hostile in ALL.into_iter().filter(|hostile| matches!(hostile, Hostile::Tokens) || wanted(hostile)) {
        let run =
            |asked| calling.block_on(phase(&server, asked, &alone, hostile, length, attacking.handle()));
        let control = (hostile != Hostile::Tokens && length >= WORTH_COMPARING).then(|| run(&elsewhere).0);
        let (mut timed, outcomes) = run(&server);
        let (median, p99) = (timed.at(50), timed.at(99));
        let quiet = *quiet.get_or_insert((median, p99));
        let ratio = |this: f64, to: f64| format!("{:.2}", this / to.max(1e-9));
        let beside = control.map(|mut control| (ratio(median, control.at(50)), ratio(p99, control.at(99))));
        let (median_of, p99_of) = beside.unwrap_or_else(|| ("-".into(), "-".into()));
        let count = |of: &AtomicUsize| of.load(Relaxed);
        println!(
            "{:<18} {:>7} {:>6.2} ms {:>8} {median_of:>10} {:>6.2} ms {:>8} {p99_of:>10} {:>8} {:>7} {:>9} {:>5} {:>5}",
            format!("{hostile:?}"),
            timed.tokens,
            median * 1e3,
            ratio(median, quiet.0),
            p99 * 1e3,
            ratio(p99, quiet.1),
            count(&outcomes.answered),
            count(&outcomes.refused),
            count(&outcomes.turned_away),
            count(&outcomes.left),
            timed.lost,
        );
        bad |= timed.lost > 0 || timed.between.is_empty() || count(&outcomes.wrong) > 0;
        bad |= hostile != Hostile::Tokens && outcomes.seen() == 0;
    }
    for server in [server, elsewhere] {
        server.stop.send_replace(true);
    }
    bad
}

impl Outcomes {
    /// How many requests the server had something to do with.
    fn seen(&self) -> usize {
        [&self.answered, &self.refused, &self.left].iter().map(|count| count.load(Relaxed)).sum()
    }
}

impl Timed {
    /// Seconds that so many of a hundred tokens took at most.
    fn at(&mut self, percent: usize) -> f64 {
        self.between.sort_unstable();
        let place = self.between.len().saturating_sub(1) * percent / 100;
        self.between.get(place).map_or(0.0, Duration::as_secs_f64)
    }
}

/// Honest callers of `server`, and hostile ones of the one that is `asked`.
async fn phase(
    server: &Arc<Running>,
    asked: &Arc<Running>,
    alone: &Arc<[String]>,
    kind: Hostile,
    length: Duration,
    attacking: &Handle,
) -> (Timed, Arc<Outcomes>) {
    let (stop, outcomes, begun) =
        (Arc::new(AtomicBool::new(false)), Arc::new(Outcomes::default()), Instant::now());
    let mut hostile = JoinSet::new();
    let bodies: Arc<[(&str, String)]> = bodies(kind).into();
    for number in 0..ATTACKERS {
        let (server, outcomes, bodies) = (Arc::clone(asked), Arc::clone(&outcomes), Arc::clone(&bodies));
        hostile.spawn_on(attacker(server, outcomes, kind, bodies, number), attacking);
    }
    let mut callers = JoinSet::new();
    for number in 0..HONEST {
        let (server, alone, stop) = (Arc::clone(server), Arc::clone(alone), Arc::clone(&stop));
        callers.spawn(async move {
            let key = server.key(Kem::X25519).await;
            let mut timed = Timed::default();
            while !stop.load(Relaxed) {
                match honest(&server, &key, number, &mut timed).await {
                    Ok(text) if text == alone[usize::from(number)] => {}
                    Ok(text) => {
                        println!("  another answer than alone: {text:?}");
                        timed.lost += 1;
                    }
                    Err(error) => {
                        println!("  lost: {error}");
                        timed.lost += 1;
                    }
                }
            }
            timed
        });
    }
    sleep(length).await;
    // However short the phase is, one hostile request has its outcome in it.
    while kind != Hostile::Tokens && outcomes.seen() == 0 && begun.elapsed() < PATIENCE {
        sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Relaxed);
    let mut all = Timed::default();
    for timed in callers.join_all().await {
        all.between.extend(timed.between);
        all.tokens += timed.tokens;
        all.lost += timed.lost;
    }
    hostile.shutdown().await;
    (all, outcomes)
}

/// An honest caller's answer, streamed; when each token came since the one before is added to `timed`. A server that is full
/// is asked again a moment later, as clients do.
async fn honest(server: &Running, key: &SealingKey, number: u8, timed: &mut Timed) -> Result<String, String> {
    let body = json!({
        "model": "decoder", "prompt": format!("caller {number}"), "max_tokens": 32, "seed": number, "stream": true,
        "logit_bias": { END: -100 },
    });
    for _ in 0..20 {
        let asked = ask(server, key, 10 + number, COMPLETIONS, &body.to_string()).await;
        let Some(mut answer) = asked.map_err(|error| format!("no connection: {error}"))? else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut last = None;
        while let Some(tokens) = answer.more().await? {
            if tokens > 0 {
                let now = Instant::now();
                timed.between.extend(last.replace(now).map(|last| now - last));
                timed.tokens += tokens;
            }
        }
        let (status, body) = answer.whole()?;
        if status != 200 {
            return Err(format!("{status} {}", String::from_utf8_lossy(&body)));
        }
        let text = String::from_utf8(body).map_err(|error| error.to_string())?;
        let events =
            text.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
        return Ok(events
            .filter_map(|event| event["choices"][0]["text"].as_str().map(str::to_owned))
            .collect());
    }
    Err("the server was full for a second".into())
}

async fn attacker(
    server: Arc<Running>,
    outcomes: Arc<Outcomes>,
    kind: Hostile,
    bodies: Arc<[(&'static str, String)]>,
    number: usize,
) {
    let key = server.key(Kem::X25519).await;
    for (path, body) in bodies.iter().cycle().skip(number) {
        // It hangs up on one who connects too often.
        let Ok(asked) = ask(&server, &key, 2, path, body).await else {
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        let Some(mut answer) = asked else {
            outcomes.turned_away.fetch_add(1, Relaxed);
            sleep(Duration::from_millis(1)).await;
            continue;
        };
        if kind == Hostile::AbandonedStreams && matches!(answer.more().await, Ok(Some(_))) {
            outcomes.left.fetch_add(1, Relaxed);
            continue;
        }
        while let Ok(Some(_)) = answer.more().await {}
        let outcome = match answer.whole() {
            Ok((200, _)) => &outcomes.answered,
            Ok((_, body)) if has_code(&body) => &outcomes.refused,
            Ok((status, body)) => {
                println!("  an error without a code: {status} {}", String::from_utf8_lossy(&body));
                &outcomes.wrong
            }
            Err(error) => {
                println!("  neither an answer nor an error: {error}");
                &outcomes.wrong
            }
        };
        outcome.fetch_add(1, Relaxed);
    }
}

/// Whether it is an error that says which one it is.
fn has_code(body: &[u8]) -> bool {
    let error: Value = serde_json::from_slice(body).unwrap_or_default();
    [&error["error"]["code"], &error["code"]]
        .iter()
        .any(|code| code.as_str().is_some_and(|code| !code.is_empty()))
}

/// An answer that comes in pieces.
struct Answering {
    incoming: Incoming,
    opener: ChunkedReplyOpener,
}

impl Answering {
    /// Waits for more of it; how many pieces are in that, each of which is a token's. None after the end.
    async fn more(&mut self) -> Result<Option<usize>, String> {
        let Some(frame) = self.incoming.frame().await else { return Ok(None) };
        let Ok(bytes) = frame.map_err(|error| error.to_string())?.into_data() else { return Ok(Some(0)) };
        let before = self.opener.opened().len();
        self.opener.push(&bytes).map_err(|error| error.to_string())?;
        Ok(Some((self.opener.opened().len() - before) / PIECE))
    }

    /// Status and content, of an answer that has ended as it should.
    fn whole(self) -> Result<(u16, Vec<u8>), String> {
        let message = self.opener.finish().map_err(|error| error.to_string())?;
        let (head, body) = bhttp::decode_response(message.expose()).map_err(|error| error.to_string())?;
        Ok((head.status, body.bytes(message.expose()).to_vec()))
    }
}

/// Asks in chunks from 127.0.0.`host`; none if the request was refused before it was opened.
async fn ask(
    server: &Running,
    key: &SealingKey,
    host: u8,
    path: &str,
    body: &str,
) -> Result<Option<Answering>, Box<dyn std::error::Error + Send + Sync>> {
    let mut asks = head("POST", path);
    asks.fields.push("content-type", "application/json");
    let mut sealed = Vec::new();
    let (sealer, opener) = key.seal_chunked(Aead::Aes256Gcm, 64 << 20, &mut rng(), &mut sealed)?;
    sealer.finish(&message(&asks, body.as_bytes()), &mut sealed)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(connect_from(host, server.address).await?)).await?;
    tokio::spawn(connection);
    let request = Request::post(GATEWAY)
        .header("host", "server")
        .header("content-type", "message/ohttp-chunked-req")
        .body(Full::new(bytes::Bytes::from(sealed)))?;
    let response = sender.send_request(request).await?;
    let is_sealed =
        response.headers().get("content-type").is_some_and(|kind| kind == "message/ohttp-chunked-res");
    Ok(is_sealed.then(|| Answering { incoming: response.into_body(), opener }))
}

/// What hostile callers of each kind send, one after another.
fn bodies(kind: Hostile) -> Vec<(&'static str, String)> {
    let chat = |more: Value| {
        let messages = json!([{ "role": "user", "content": "hello" }]);
        let mut body = json!({ "model": "decoder", "messages": messages, "max_tokens": 400, "n": 8 });
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        (CHAT, body.to_string())
    };
    let complete = |prompt: Value| {
        (COMPLETIONS, json!({ "model": "decoder", "prompt": prompt, "max_tokens": 1 }).to_string())
    };
    let biases = |count: usize, bias: f64| -> Value {
        let all: serde_json::Map<String, Value> =
            (0..count).map(|token| (token.to_string(), bias.into())).collect();
        all.into()
    };
    match kind {
        Hostile::Tokens => Vec::new(),
        Hostile::Schemas => schemas()
            .into_iter()
            .map(|schema| {
                chat(json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema } } }))
            })
            .collect(),
        Hostile::Biases => vec![
            chat(json!({ "logit_bias": biases(300, -1.0), "logprobs": true, "top_logprobs": 20 })),
            chat(json!({ "logit_bias": biases(1024, 0.5) })),
            chat(json!({ "logit_bias": biases(60_000, 0.5) })),
            chat(json!({ "logit_bias": biases(3, 1e9) })),
        ],
        Hostile::EndlessAnswers => vec![
            chat(json!({ "logit_bias": { END: -100 }, "max_tokens": 400 })),
            chat(json!({ "logit_bias": { END: -100 }, "max_tokens": null })),
            chat(json!({ "logit_bias": { END: -100 }, "logprobs": true, "top_logprobs": 20, "presence_penalty": 2 })),
            chat(json!({ "max_tokens": 1_000_000_000 })),
        ],
        Hostile::AbandonedStreams => vec![chat(json!({ "stream": true, "logit_bias": { END: -100 } }))],
        Hostile::LongestPrompts => vec![
            complete("x".repeat(CONTEXT - 2).into()),
            complete(vec!["x".repeat(CONTEXT - 2); 8].into()),
            complete("x ".repeat(400_000).into()),
            chat(json!({ "messages": vec![json!({ "role": "user", "content": "x".repeat(200) }); 4096] })),
        ],
    }
}

/// Schemas that take long to prepare, or to keep to, and some that are refused for it.
fn schemas() -> Vec<Value> {
    let mut deep = json!({ "type": "string" });
    for _ in 0..100 {
        deep = json!({ "type": "array", "items": deep });
    }
    let words: Vec<String> =
        (0..4000_u32).map(|word| format!("{:010}", word.wrapping_mul(2_654_435_761))).collect();
    let pattern = |number: usize| json!({ "type": "string", "pattern": format!("^([a-z]{{1,40}}[0-9]{{1,40}}){{1,8}}{number}$") });
    let patterns = |count: usize| (0..count).map(pattern).collect::<Vec<Value>>();
    let properties: serde_json::Map<String, Value> = (0..1500)
        .map(|number| (format!("p{number}"), json!({ "type": "string", "maxLength": number })))
        .collect();
    vec![
        deep,
        json!({ "enum": words }),
        json!({ "anyOf": patterns(64) }),
        json!({ "anyOf": patterns(65) }),
        json!({ "allOf": patterns(8) }),
        json!({ "type": "string", "pattern": format!("^({})$", ["abc"; 15_000].join("|")) }),
        json!({ "type": "string", "pattern": "^((a?){30}){30}a{900}$" }),
        json!({ "type": "object", "properties": properties }),
        json!({ "$defs": { "a": { "type": "array", "items": { "$ref": "#/$defs/a" } } }, "$ref": "#/$defs/a" }),
        json!({ "enum": ["x".repeat(100_000)] }),
        json!({ "type": "nonsense" }),
    ]
}
