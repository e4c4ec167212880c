//! Language models, asked through the seal: the OpenAI API, whole and streamed.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use confonnx_attest::Digest;
use confonnx_client::{Chat, Client, ClientError, Options, Request};
use confonnx_engine::{Feed, LoadedModel};
use confonnx_generate::{
    decode::{Event, Finish, Order},
    sample::Choices,
};
use confonnx_model::{IndependentRows, ModelInfo, annotate};
use confonnx_protocol::{Aead, Kem};
use confonnx_server::generation::{Generator, Sink};
use getrandom::rand_core::{TryCryptoRng, TryRng};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{abuse::connect_from, harness::*};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn request(path: &str, body: &Value) -> Request {
    Request::post(path).field("content-type", "application/json").body(body.to_string())
}

async fn ask(client: &Client, path: &str, body: Value) -> (u16, Value) {
    let response = client.request(request(path, &body)).await.unwrap();
    (response.status(), serde_json::from_slice(response.body()).unwrap())
}

fn hello(more: Value) -> Value {
    let mut body =
        json!({ "model": "decoder", "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 20 });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// The pieces of a streamed answer.
async fn pieces(client: &Client, body: Value) -> Result<Vec<String>, ClientError> {
    let pieces = bytes(client, body).await?;
    Ok(pieces.into_iter().map(|piece| String::from_utf8(piece).unwrap()).collect())
}

async fn bytes(client: &Client, body: Value) -> Result<Vec<Vec<u8>>, ClientError> {
    let mut stream = client.stream(request(CHAT, &body)).await?;
    assert_eq!(stream.status(), 200);
    let mut pieces = Vec::new();
    while let Some(piece) = stream.chunk().await? {
        pieces.push(piece);
    }
    Ok(pieces)
}

/// The JSON of the events in the pieces.
fn events(pieces: &[String]) -> Vec<Value> {
    let all = pieces.concat();
    let data: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.last(), Some(&"[DONE]"));
    data[..data.len() - 1].iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[tokio::test]
async fn what_is_streamed_is_what_is_told_at_the_end() {
    let server = start("decoder").await;
    for chunked in [false, true] {
        let mut options = Options::default();
        options.chunked = chunked;
        let client = server.client(options);
        for more in
            [json!({ "temperature": 0 }), json!({ "seed": 7 }), json!({ "seed": 8, "stop": ["\u{c}"] })]
        {
            let (status, whole) = ask(&client, CHAT, hello(more.clone())).await;
            assert_eq!(status, 200, "{whole}");
            let mut asked = more;
            asked["stream"] = true.into();
            asked["stream_options"] = json!({ "include_usage": true });
            let pieces = pieces(&client, hello(asked)).await.unwrap();
            let events = events(&pieces);
            let choice = &whole["choices"][0];
            assert_eq!(text(&events), choice["message"]["content"].as_str().unwrap());
            let finish = events.iter().find_map(|event| event["choices"][0]["finish_reason"].as_str());
            assert_eq!(finish, choice["finish_reason"].as_str());
            assert_eq!(events.last().unwrap()["usage"], whole["usage"]);
            assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
            assert_eq!(whole["object"], "chat.completion");
            assert!(pieces.iter().all(|piece| piece.len().is_multiple_of(512)), "their sizes say nothing");
        }
    }
}

#[tokio::test]
async fn at_fixed_instants_pieces_of_one_size_are_sent() {
    let server = start("decoder").await;
    let client = server.client(Options::default());
    for more in [json!({ "seed": 7 }), json!({ "seed": 8, "n": 2, "logprobs": true, "top_logprobs": 9 })] {
        let (_, whole) = ask(&client, CHAT, hello(more.clone())).await;
        let mut asked = more;
        asked["stream"] = true.into();
        asked["pace_ms"] = 10.into();
        let pieces = bytes(&client, hello(asked)).await.unwrap();
        assert!(pieces.iter().all(|piece| piece.len() == 512), "an event, and a character, may take several");
        let events = events(&[String::from_utf8(pieces.concat()).unwrap()]);
        for (index, choice) in whole["choices"].as_array().unwrap().iter().enumerate() {
            let of = |event: &&Value| event["choices"][0]["index"] == index;
            let said: String = events
                .iter()
                .filter(of)
                .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
                .collect();
            assert_eq!(said, choice["message"]["content"].as_str().unwrap());
        }
    }
    let (status, answer) = ask(&client, CHAT, hello(json!({ "pace_ms": 10 }))).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("pace_ms")), "{answer}");
    // An answer whose caller is gone ends, although there would always be something to send.
    let more = json!({ "stream": true, "pace_ms": 10, "max_tokens": 400, "logit_bias": { "301": -100 } });
    let mut stream = client.stream(request(CHAT, &hello(more))).await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    drop(stream);
}

#[tokio::test]
async fn the_clients_own_chat_is_the_same_whole_and_as_it_comes() {
    let server = start("decoder").await;
    let client = server.client(Options::default());
    let chat = Chat::new().user("hello").parameter("seed", 7).parameter("max_tokens", 20);
    let whole = client.chat(&chat).await.unwrap();
    let (_, told) = ask(&client, CHAT, hello(json!({ "seed": 7 }))).await;
    assert_eq!(whole.text, told["choices"][0]["message"]["content"].as_str().unwrap());
    let usage = whole.usage.unwrap();
    assert_eq!(json!(usage.completion_tokens), told["usage"]["completion_tokens"]);
    let mut stream = client.chat_stream(&chat).await.unwrap();
    let mut said = Vec::new();
    while let Some(token) = stream.token().await.unwrap() {
        said.push(token);
    }
    assert!(said.len() > 1 && said.concat() == whole.text, "{said:?}");
    assert!(*stream.answer() == whole);
    // A request that cannot be answered is refused by an error that names the parameter, before anything of an answer.
    for bad in [chat.clone().parameter("temperature", 9), chat.parameter("temprature", 1)] {
        let whole = client.chat(&bad).await.unwrap_err();
        let streamed = client.chat_stream(&bad).await.unwrap_err();
        assert_eq!(whole.to_string(), streamed.to_string());
        assert!(
            matches!(&whole, ClientError::Inner { status: 400, message, .. } if message.contains("temp")),
            "{whole}"
        );
    }
    let other = client.chat(&Chat::new().user("hello").model("other")).await.unwrap_err();
    assert!(other.to_string().contains("other"), "{other}");
}

#[tokio::test]
async fn it_says_what_the_model_says() {
    let server = start("decoder").await;
    let client = server.client(Options::default());
    let body =
        json!({ "model": "decoder", "prompt": "hello", "temperature": 0, "max_tokens": 12, "logprobs": 1 });
    let (status, answer) = ask(&client, COMPLETIONS, body).await;
    assert_eq!(status, 200, "{answer}");
    // What onnxruntime's Python package says: see the engine's tests.
    let said = [255, 114, 156, 182, 152, 199, 12, 12, 12, 12, 12, 12];
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"].as_str().unwrap(), String::from_utf8_lossy(&said));
    assert_eq!((&choice["finish_reason"], &answer["object"]), (&json!("length"), &json!("text_completion")));
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17 }));
    assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().len(), 12);
    assert_eq!(choice["logprobs"]["token_logprobs"][1], choice["logprobs"]["top_logprobs"][1]["r"], "greedy");
    let (_, models) = {
        let response = client.request(Request::get("/v1/models")).await.unwrap();
        (response.status(), serde_json::from_slice::<Value>(response.body()).unwrap())
    };
    assert_eq!(models["data"][0]["id"], "decoder");
}

#[tokio::test]
async fn many_callers_are_answered_as_if_each_were_alone() {
    let server = start("decoder").await;
    let client = Arc::new(server.client(Options::default()));
    let body = |seed: u64| hello(json!({ "seed": seed, "n": 2, "temperature": 1.5 }));
    let (_, alone) = ask(&client, CHAT, body(1)).await;
    let all = at_once(&client, (0..6).map(|seed| body(seed % 3)).collect()).await;
    for (seed, answer) in all.iter().enumerate() {
        assert_eq!(answer["choices"], all[seed % 3]["choices"]);
    }
    assert_eq!(all[1]["choices"], alone["choices"]);
    assert_ne!(all[0]["choices"], alone["choices"]);
    assert_ne!(alone["choices"][0]["message"], alone["choices"][1]["message"]);
}

#[tokio::test]
async fn callers_who_go_on_in_one_run_are_answered_as_if_each_were_alone() {
    let server = start("decoder").await;
    let alone = Arc::new(server.client(Options::default()));
    let body = |seed: u64| {
        let content = "x".repeat(usize::try_from(seed * 37).unwrap());
        let mut body = hello(json!({ "seed": seed, "temperature": 1.2, "max_tokens": 40 + seed }));
        body["messages"][0]["content"] = content.into();
        body
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decoder.onnx");
    let onnx = std::fs::read(model("decoder")).unwrap();
    std::fs::write(&path, annotate(&onnx, Some(&IndependentRows::default())).unwrap()).unwrap();
    let server = start_with(config("decoder", |settings| {
        settings.model_path = Some(path);
        settings.model_name = Some("decoder".into());
    }))
    .await;
    let client = Arc::new(server.client(Options::default()));
    let proof = server.attest().await;
    assert_eq!(proof.claims().models[0].batching, Some(8), "it shows in the claims");
    let together = at_once(&client, (0..10).map(body).collect()).await;
    for (seed, answer) in together.iter().enumerate() {
        let (_, alone) = ask(&alone, CHAT, body(seed as u64)).await;
        assert_eq!(answer["choices"], alone["choices"], "{seed}");
        assert!(answer["choices"][0]["message"]["content"].is_string(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_two_addresses_have_the_same_turns() {
    let server = start_with(config("decoder", |settings| settings.max_peer_percent = Some(50))).await;
    let key = server.key(Kem::X25519).await;
    let mut head = head("POST", CHAT);
    head.fields.push("content-type", "application/json");
    let endless = |n: u64, tokens: u64| {
        let mut asked = json!({ "n": n, "max_tokens": tokens, "seed": 1, "logit_bias": { "301": -100 } });
        (asked["stream"], asked["stream_options"]) = (true.into(), json!({ "include_usage": true }));
        hello(asked)
    };
    let mut sealed = Vec::new();
    let (sealer, _) = key.seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut rng(), &mut sealed).unwrap();
    sealer.finish(&message(&head, endless(8, 400).to_string().as_bytes()), &mut sealed).unwrap();
    let mut hostile = connect_from(&server, [127, 0, 0, 2]).await;
    let media = "message/ohttp-chunked-req";
    let post = format!(
        "POST {GATEWAY} HTTP/1.1\r\nhost: x\r\ncontent-type: {media}\r\ncontent-length: {}\r\n\r\n",
        sealed.len()
    );
    hostile.write_all(&[post.as_bytes(), &sealed].concat()).await.unwrap();
    let come = Arc::new(AtomicUsize::new(0));
    let coming = Arc::clone(&come);
    tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(1..) = hostile.read(&mut bytes).await.inspect(|some| {
            coming.fetch_add(*some, Relaxed);
        }) {}
    });
    until(|| come.load(Relaxed) > 20 * PIECE).await;
    let before = come.load(Relaxed);
    let client = server.client(Options::default());
    let events = events(&pieces(&client, endless(1, 100)).await.unwrap());
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 100);
    let beside = (come.load(Relaxed) - before) / PIECE;
    // Eight answers beside one: by answers it would have been 800.
    assert!((50..250).contains(&beside), "{beside} tokens beside 100");
}

/// Of a token's piece that is sent, about so many bytes.
const PIECE: usize = 550;

async fn at_once(client: &Arc<Client>, bodies: Vec<Value>) -> Vec<Value> {
    let tasks: Vec<_> = bodies
        .into_iter()
        .map(|body| {
            let client = Arc::clone(client);
            tokio::spawn(async move { ask(&client, CHAT, body).await.1 })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

#[tokio::test]
async fn a_chat_that_sets_no_limit_takes_what_room_the_model_has() {
    let server = start("decoder").await;
    let client = server.client(Options::default());
    let (status, answer) = ask(&client, CHAT, hello(json!({ "max_tokens": null, "seed": 7 }))).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer["usage"]["total_tokens"].as_u64().unwrap() <= 512, "{answer}");
}

#[tokio::test]
async fn errors_are_as_clients_of_the_api_read_them() {
    let server = start("decoder").await;
    let client = server.client(Options::default());
    let long = "x".repeat(600);
    for (path, body, status, code, param) in [
        (CHAT, hello(json!({ "temperature": 9 })), 400, "invalid_value", json!("temperature")),
        (CHAT, hello(json!({ "tools": [1] })), 400, "unsupported_parameter", json!("tools")),
        (CHAT, hello(json!({ "max_tokens": 600 })), 400, "context_length_exceeded", Value::Null),
        (
            CHAT,
            hello(
                json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": "x" } } } }),
            ),
            400,
            "invalid_value",
            json!("response_format"),
        ),
        (
            COMPLETIONS,
            json!({ "model": "decoder", "prompt": long }),
            400,
            "context_length_exceeded",
            Value::Null,
        ),
        (COMPLETIONS, json!({ "model": "decoder", "prompt": [999] }), 400, "generation-invalid", Value::Null),
        (COMPLETIONS, json!({ "model": "decoder", "prompt": "" }), 400, "generation-invalid", Value::Null),
    ] {
        let (found, answer) = ask(&client, path, body).await;
        assert_eq!(
            (found, &answer["error"]["code"], &answer["error"]["param"]),
            (status, &json!(code), &param),
            "{answer}"
        );
        assert!(answer["error"]["message"].as_str().unwrap().len() > 20);
    }
    let (status, answer) = ask(&client, CHAT, hello(json!({ "model": "other" }))).await;
    assert_eq!((status, &answer["code"]), (404, &json!("model-not-found")));
    let other = start("mlp").await;
    let (status, answer) =
        ask(&other.client(Options::default()), CHAT, hello(json!({ "model": "mlp" }))).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("model-not-generative")));
}

#[tokio::test]
async fn an_answer_that_has_to_be_json_is() {
    let server = start("decoder").await;
    let client = server.client(Options::default());
    let schema = json!({ "type": "object", "properties": { "yes": { "type": "boolean" }, "n": { "enum": [1, 22] } },
        "required": ["yes", "n"], "additionalProperties": false });
    let form =
        json!({ "type": "json_schema", "json_schema": { "name": "a", "strict": true, "schema": schema } });
    for seed in 0..5 {
        let more = json!({ "seed": seed, "max_tokens": 200, "response_format": form, "n": 2 });
        let (status, answer) = ask(&client, CHAT, hello(more)).await;
        assert_eq!(status, 200, "{answer}");
        for choice in answer["choices"].as_array().unwrap() {
            assert_eq!(choice["finish_reason"], "stop", "{choice}");
            let said: Value = serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap();
            assert!(said["yes"].is_boolean() && (said["n"] == 1 || said["n"] == 22), "{said}");
            assert_eq!(said.as_object().unwrap().len(), 2);
        }
    }
    let more = json!({ "seed": 1, "max_tokens": 1, "response_format": { "type": "json_object" } });
    let (_, answer) = ask(&client, CHAT, hello(more)).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert!(
        answer["choices"][0]["message"]["content"].as_str().unwrap().trim_start().chars().all(|c| c == '{')
    );
}

#[tokio::test]
async fn a_caller_has_so_many_answers_and_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.toml");
    let hash = |token: &str| Digest(Sha256::digest(token).into());
    let policy = format!(
        "[[caller]]\nname = \"alice\"\ntoken_sha256 = \"{}\"\ntokens_per_minute = 100\nanswers_at_once = 1\n\
         [[caller]]\nname = \"bob\"\ntoken_sha256 = \"{}\"\n",
        hash("alice"),
        hash("bob")
    );
    std::fs::write(&path, policy).unwrap();
    let server = start_with(config("decoder", |settings| settings.auth_file = Some(path))).await;
    let client = |token: &str| {
        let mut options = Options::default();
        options.auth_key = Some(token.into());
        server.client(options)
    };
    let (alice, bob) = (client("alice"), client("bob"));
    let (status, answer) = ask(&alice, CHAT, hello(json!({ "n": 2 }))).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("generation-invalid")), "{answer}");
    // What a caller may have is looked at before a form is prepared, which can take long.
    let schema =
        json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "nonsense" } } });
    for (client, code) in [(&bob, "invalid_value"), (&alice, "generation-invalid")] {
        let (status, answer) = ask(client, CHAT, hello(json!({ "n": 2, "response_format": schema }))).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(code)), "{answer}");
    }
    let (status, answer) = ask(&alice, CHAT, hello(json!({ "max_tokens": 100 }))).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
    let (mut spent, start) = (0, Instant::now());
    let refused = loop {
        let response = alice.request(request(CHAT, &hello(json!({ "seed": 1 })))).await.unwrap();
        let answer: Value = serde_json::from_slice(response.body()).unwrap();
        if response.status() != 200 {
            break (response, answer);
        }
        spent += answer["usage"]["total_tokens"].as_u64().unwrap();
        let back = start.elapsed().as_secs().saturating_add(1).saturating_mul(2);
        assert!(spent <= 100 + back, "{spent} of 100 tokens, and {back} that came back meanwhile");
    };
    assert!(spent > 50, "{spent}");
    assert_eq!((refused.0.status(), &refused.1["error"]["type"]), (429, &json!("rate_limit_error")));
    let wait: u64 =
        std::str::from_utf8(refused.0.fields().get("retry-after").unwrap()).unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // The limit is one caller's: another's requests are served.
    for _ in 0..4 {
        assert_eq!(ask(&bob, CHAT, hello(json!({ "n": 2, "max_tokens": 50 }))).await.0, 200);
    }
}

#[tokio::test]
async fn a_stream_that_is_cut_anywhere_is_no_answer() {
    let server = start("decoder").await;
    let key = server.key(Kem::X25519).await;
    let mut head = head("POST", CHAT);
    head.fields.push("content-type", "application/json");
    let body = hello(json!({ "stream": true, "temperature": 0, "max_tokens": 3 })).to_string();
    let message = message(&head, body.as_bytes());
    // The same numbers each time give equal openers of one reply, as many as there are places to cut it.
    let start = || {
        let mut sealed = Vec::new();
        let (sealer, opener) =
            key.seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut Counting(0), &mut sealed).unwrap();
        (sealer, opener, sealed)
    };
    let (sealer, mut whole, mut sealed) = start();
    sealer.finish(&message, &mut sealed).unwrap();
    let response = server.post("message/ohttp-chunked-req", sealed).await;
    assert_eq!(response.status(), 200);
    let reply = response.into_body();
    for cut in 0..reply.len() {
        let (_, mut opening, _) = start();
        opening.push(&reply[..cut]).unwrap();
        assert!(opening.finish().is_err(), "cut after {cut} bytes of {}", reply.len());
    }
    whole.push(&reply).unwrap();
    whole.finish().unwrap();
}

/// A generator that counts, so that nothing it gives is secret.
struct Counting(u8);

impl TryRng for Counting {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(7)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(7)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
        Ok(())
    }
}

impl TryCryptoRng for Counting {}

/// A caller who counts the events of an answer, and goes away after so many.
struct Goes(usize, Arc<Mutex<usize>>);

impl Sink for Goes {
    fn take(&mut self, _: &Event) -> bool {
        let mut seen = self.1.lock().unwrap();
        *seen += 1;
        *seen < self.0
    }
}

/// The tests' decoder and what answers with it, and an order of 400 tokens.
fn alone() -> (Arc<LoadedModel>, Generator) {
    let onnx = std::fs::read(model("decoder")).unwrap();
    let loaded: Arc<LoadedModel> =
        Arc::new(engine().load("decoder", &onnx, &one_session(), Duration::from_secs(60)).unwrap());
    let generator = Generator::of("decoder", &loaded, &ModelInfo::parse(&onnx).unwrap()).unwrap().unwrap();
    (loaded, generator)
}

fn order() -> Order {
    Order {
        holder: None,
        prompt: vec![104, 101].into(),
        max_tokens: Some(400),
        choices: Choices { logit_bias: vec![(301, -100.0)], ..Choices::default() },
        seed: 1,
        stop: Vec::new(),
        constraint: None,
    }
}

#[test]
fn what_is_done_beside_a_step_is_done_though_the_step_fails() {
    let (loaded, _) = alone();
    let feed = |past| Feed { sequence: 1, past, tokens: vec![104].into(), wanted: true, ..Feed::default() };
    let mut done = 0;
    loaded.step(&[], &[feed(0)], || done += 1).unwrap();
    loaded.step(&[], &[feed(5)], || done += 1).unwrap_err();
    assert_eq!(done, 2);
}

#[test]
fn nobody_answers_who_is_gone() {
    let (loaded, generator) = alone();
    let seen = Arc::new(Mutex::new(0));
    generator.begin(vec![order()]).unwrap().give(|_| Box::new(Goes(5, Arc::clone(&seen))));
    // The caller of these goes away before the answer is begun.
    drop(generator.begin(vec![order(), order()]).unwrap());
    let patience = std::time::Instant::now() + PATIENCE;
    while !generator.is_idle() {
        assert!(std::time::Instant::now() < patience, "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(*seen.lock().unwrap(), 5);
    // The model keeps nothing of the first answer, whose sequence is 0: its prompt, four tokens, and the one that it was at work
    // on when nobody wanted the fifth any more.
    let again = Feed { sequence: 0, past: 7, tokens: vec![1].into(), wanted: true, ..Feed::default() };
    assert!(loaded.step(&[], &[again], || ()).is_err());
    let all = Arc::new(Mutex::new(0));
    generator.begin(vec![order()]).unwrap().give(|_| Box::new(Goes(1000, Arc::clone(&all))));
    while !generator.is_idle() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(*all.lock().unwrap(), 400);
}

/// A caller who keeps how an answer ended.
struct Keeps(Arc<Mutex<Vec<Event>>>);

impl Sink for Keeps {
    fn take(&mut self, event: &Event) -> bool {
        self.0.lock().unwrap().push(event.clone());
        true
    }
}

#[test]
fn an_answer_that_has_taken_as_long_as_any_may_ends_with_what_there_is() {
    let (_, mut generator) = alone();
    generator.set_longest(Duration::ZERO);
    let events = Arc::new(Mutex::new(Vec::new()));
    generator.begin(vec![order()]).unwrap().give(|_| Box::new(Keeps(Arc::clone(&events))));
    let patience = Instant::now() + PATIENCE;
    while !generator.is_idle() {
        assert!(Instant::now() < patience, "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    let events = events.lock().unwrap();
    let end = events.last().unwrap().end.unwrap();
    assert_eq!((end.finish, events.iter().filter(|event| event.end.is_some()).count()), (Finish::Length, 1));
    assert!(end.answer < 400, "{}", end.answer);
}
