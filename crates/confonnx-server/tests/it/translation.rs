//! Models for which an encoder reads the prompt, asked through the seal for completions.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use confonnx_attest::Digest;
use confonnx_client::{Client, Options, Request};
use confonnx_engine::{Feed, ModelOptions};
use confonnx_generate::{
    decode::{Event, Order},
    sample::Choices,
};
use confonnx_model::{
    IndependentRows, ModelInfo, annotate,
    encrypted::{self, ModelKey},
    model_hash, with_encoder,
};
use confonnx_server::{
    generation::{Generator, Sink},
    models,
};
use serde_json::{Value, json};

use super::{harness::*, protected};

const COMPLETIONS: &str = "/v1/completions";
/// What onnxruntime's Python package says: see examples/chat/pair.py.
const SAID: [(&str, [u32; 12]); 3] = [
    ("hello", [283, 242, 133, 283, 242, 133, 242, 66, 56, 133, 91, 283]),
    ("olleh", [283, 242, 56, 91, 104, 24, 24, 104, 149, 24, 24, 283]),
    ("a longer text", [283, 242, 283, 185, 283, 242, 122, 53, 133, 53, 242, 133]),
];

fn said(tokens: &[u32]) -> String {
    let bytes = |token: &u32| {
        u8::try_from(*token).map_or_else(|_| format!("unused{token}").into(), |byte| vec![byte])
    };
    String::from_utf8_lossy(&tokens.iter().flat_map(bytes).collect::<Vec<u8>>()).into_owned()
}

fn request(path: &str, body: &Value) -> Request {
    Request::post(path).field("content-type", "application/json").body(body.to_string())
}

async fn ask(client: &Client, path: &str, body: Value) -> (u16, Value) {
    let response = client.request(request(path, &body)).await.unwrap();
    (response.status(), serde_json::from_slice(response.body()).unwrap())
}

async fn streamed(client: &Client, path: &str, body: Value) -> Vec<Value> {
    let mut stream = client.stream(request(path, &body)).await.unwrap();
    assert_eq!(stream.status(), 200);
    let mut all = String::new();
    while let Some(piece) = stream.chunk().await.unwrap() {
        all.push_str(std::str::from_utf8(&piece).unwrap());
    }
    let data = all.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn greedy(prompt: &str, more: Value) -> Value {
    let mut body = json!({ "model": "translator", "prompt": prompt, "temperature": 0, "max_tokens": 12 });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn it_says_what_the_model_says_whole_and_as_it_comes() {
    let server = start("translator").await;
    let client = server.client(Options::default());
    for (text, tokens) in SAID {
        let (status, answer) = ask(&client, COMPLETIONS, greedy(text, json!({ "logprobs": 1 }))).await;
        assert_eq!(status, 200, "{answer}");
        let choice = &answer["choices"][0];
        assert_eq!(choice["text"].as_str().unwrap(), said(&tokens));
        assert_eq!(choice["finish_reason"], "length");
        assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().len(), tokens.len());
        let prompt = text.len() + 1;
        let usage = json!({ "prompt_tokens": prompt, "completion_tokens": 12, "total_tokens": prompt + 12 });
        assert_eq!(answer["usage"], usage, "with the token that the tokenizer puts at the end");
        let events = streamed(&client, COMPLETIONS, greedy(text, json!({ "stream": true }))).await;
        let parts: Vec<&str> =
            events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
        assert!(parts.len() > 2 && parts.concat() == said(&tokens), "{parts:?}");
        let generate = json!({ "text_input": text, "parameters": { "temperature": 0, "max_tokens": 12 } });
        let (status, answer) = ask(&client, "/v2/models/translator/generate", generate.clone()).await;
        assert_eq!(
            (status, answer["text_output"].as_str().unwrap()),
            (200, format!("{text}{}", said(&tokens)).as_str()),
            "with the prompt before it, as Triton's: {answer}"
        );
        let events = streamed(&client, "/v2/models/translator/generate_stream", generate).await;
        let parts = events.iter().filter_map(|event| event["text_output"].as_str());
        assert_eq!(parts.collect::<String>(), said(&tokens));
    }
}

#[tokio::test]
async fn callers_at_once_are_answered_as_each_alone() {
    let server = start("translator").await;
    let client = Arc::new(server.client(Options::default()));
    let body = |seed: usize| {
        greedy(SAID[seed % 3].0, json!({ "seed": seed, "n": 2, "temperature": 1.3, "max_tokens": 60 }))
    };
    let tasks: Vec<_> = (0..6)
        .map(|seed| {
            let client = Arc::clone(&client);
            tokio::spawn(async move { ask(&client, COMPLETIONS, body(seed)).await.1 })
        })
        .collect();
    for (seed, task) in tasks.into_iter().enumerate() {
        let (found, alone) = (task.await.unwrap(), ask(&client, COMPLETIONS, body(seed)).await.1);
        assert!(found["choices"][1]["text"].is_string(), "{found}");
        assert_eq!(found["choices"], alone["choices"], "{seed}");
    }
}

#[tokio::test]
async fn one_hash_is_of_both_files_and_one_encrypted_file_has_both() {
    let server = start("translator").await;
    let hash = model_hash(&model("translator")).unwrap();
    assert_eq!(server.attest().await.claims().models[0].sha256, Some(Digest(hash)));
    let folder = tempfile::tempdir().unwrap();
    let (decoder, encoder) =
        (folder.path().join("translator.onnx"), folder.path().join("translator_encoder.onnx"));
    fs::copy(model("translator"), &decoder).unwrap();
    let mut other = fs::read(model("translator_encoder")).unwrap();
    *other.last_mut().unwrap() ^= 1;
    fs::write(&encoder, other).unwrap();
    assert_ne!(model_hash(&decoder).unwrap(), hash, "of another encoder");
    let (key, sealed) = (ModelKey::generate().unwrap(), folder.path().join("translator.onnx.age"));
    let digests = encrypted::encrypt_file(&key, &model("translator"), &sealed).unwrap();
    let server = start_with(config("translator", |settings| {
        settings.model_path = Some(sealed.clone());
        settings.use_model_key_provisioning = Some(true);
    }))
    .await;
    let owner = protected::client(&server, digests.ciphertext);
    assert_eq!(owner.provision_model_key(None, &key, None).await.unwrap().sha256, Some(Digest(hash)));
    let (_, answer) = ask(&protected::client(&server, hash), COMPLETIONS, greedy("hello", json!({}))).await;
    assert_eq!(answer["choices"][0]["text"], said(&SAID[0].1), "{answer}");
}

#[tokio::test]
async fn errors_say_what_there_is_to_do() {
    let server = start("translator").await;
    let client = server.client(Options::default());
    let (status, answer) = ask(
        &client,
        "/v1/chat/completions",
        json!({ "model": "translator", "messages": [{ "role": "user", "content": "x" }] }),
    )
    .await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("prompt-invalid")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("/v1/completions"), "{answer}");
    for (prompt, max_tokens, status, part) in [
        ("x".repeat(127), 127, 200, ""),
        (
            "x".repeat(128),
            1,
            400,
            "129 tokens; expected 128 at most, which is as many as the model's encoder reads",
        ),
        ("x".into(), 128, 400, "128 are to be answered; expected 129 together"),
    ] {
        let (found, answer) =
            ask(&client, COMPLETIONS, greedy(&prompt, json!({ "max_tokens": max_tokens }))).await;
        assert_eq!(found, status, "{answer}");
        if status == 400 {
            assert_eq!(answer["error"]["code"], "context_length_exceeded", "{answer}");
            assert!(answer["error"]["message"].as_str().unwrap().contains(part), "{answer}");
        }
    }
    let (status, answer) = ask(&client, COMPLETIONS, greedy("x", json!({ "prompt": [[104, 999]] }))).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("generation-invalid")), "{answer}");
    // Tokens are read as they are given.
    let (_, answer) =
        ask(&client, COMPLETIONS, greedy("x", json!({ "prompt": [104, 101, 108, 108, 111, 301] }))).await;
    assert_eq!(answer["choices"][0]["text"], said(&SAID[0].1), "{answer}");
}

/// A chat that sets no limit and a token that the owner forbids: whatever is asked for, it is not said.
#[tokio::test]
async fn what_the_owner_forbids_is_not_said() {
    let server = start("translator").await;
    let client = server.client(Options::default());
    let more = json!({ "logit_bias": { "303": 100, "65": 100 }, "max_tokens": 5 });
    let (status, answer) = ask(&client, COMPLETIONS, greedy("hello", more)).await;
    assert_eq!((status, &answer["choices"][0]["text"]), (200, &json!("AAAAA")), "{answer}");
}

#[test]
fn a_decoder_and_an_encoder_that_do_not_belong_together_are_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = folder.path().join("model.onnx");
    let whole = fs::read(model("translator")).unwrap();
    let load = |onnx: &[u8]| {
        fs::write(&decoder, onnx).unwrap();
        let config = config("translator", |settings| settings.model_path = Some(decoder.clone()));
        models::load(&config, engine()).map(drop).map_err(|error| error.to_string())
    };
    let put = |name: &str| fs::copy(model(name), folder.path().join("translator_encoder.onnx")).unwrap();
    let why = load(&whole).unwrap_err();
    assert!(why.contains("cannot read translator_encoder.onnx"), "not there: {why}");
    put("encoder");
    let why = load(&whole).unwrap_err();
    assert!(
        why.contains("translator_encoder.onnx: the encoder gives last_hidden_state FP32 [rows, tokens, 8]"),
        "{why}"
    );
    assert!(
        why.contains("takes encoder_hidden_states FP32 [batch_size, encoder_sequence_length, 32]"),
        "{why}"
    );
    put("mlp");
    let why = load(&whole).unwrap_err();
    assert!(why.contains("not an encoder of text") && why.contains("x FP32 [batch, 4] in, y FP32"), "{why}");
    put("external");
    let why = load(&whole).unwrap_err();
    assert!(why.contains("external.bin") && why.contains("expected one file"), "{why}");
    fs::write(folder.path().join("translator_encoder.onnx"), b"<html>").unwrap();
    let why = load(&whole).unwrap_err();
    assert!(why.contains("translator_encoder.onnx: this is an HTML page"), "{why}");
    put("translator_encoder");
    load(&whole).unwrap();
    // Without its owner's word for an encoder, it would answer nothing, although it has a tokenizer.
    let why = load(&renamed(&whole, "confonnx.encoder", "confonnx.encodes")).unwrap_err();
    assert!(why.contains("names no encoder") && why.contains("--encoder encoder_model.onnx"), "{why}");
    let why = load(&renamed(&whole, "decoder_start_token_id", "decoder_start_token_xx")).unwrap_err();
    assert!(why.contains("expected \"decoder_start_token_id\""), "{why}");
    let why = load(&with_encoder(&fs::read(model("decoder")).unwrap(), "translator_encoder.onnx").unwrap())
        .unwrap_err();
    assert!(why.contains("not the decoder of an encoder") && why.contains("found input_ids INT64"), "{why}");
    // Without either it is a model as any other, tensor by tensor.
    let bare = renamed(
        &renamed(&whole, "confonnx.encoder", "confonnx.encodes"),
        "confonnx.text.tokenizer.json",
        "confonnx.texx.tokenizer.json",
    );
    load(&bare).unwrap();
    assert!(
        with_encoder(&whole, "../encoder.onnx").unwrap_err().to_string().contains("below the model's folder")
    );
}

fn renamed(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (mut out, from) = (bytes.to_vec(), from.as_bytes());
    let at = out.windows(from.len()).position(|window| window == from).unwrap();
    out[at..at + from.len()].copy_from_slice(to.as_bytes());
    out
}

/// The statement of rows, which is about batches, batches nothing here, and the log and the claims do not say that it does.
#[tokio::test]
async fn each_caller_goes_on_alone_whatever_is_stated_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = folder.path().join("translator.onnx");
    let stated =
        annotate(&fs::read(model("translator")).unwrap(), Some(&IndependentRows::default())).unwrap();
    fs::write(&decoder, stated).unwrap();
    fs::copy(model("translator_encoder"), folder.path().join("translator_encoder.onnx")).unwrap();
    let server = start_with(config("translator", |settings| settings.model_path = Some(decoder))).await;
    assert_eq!(server.attest().await.claims().models[0].batching, None);
    let (_, answer) = ask(&server.client(Options::default()), COMPLETIONS, greedy("hello", json!({}))).await;
    assert_eq!(answer["choices"][0]["text"], said(&SAID[0].1), "{answer}");
}

/// A caller who goes away after so many tokens.
struct Goes(usize, Arc<Mutex<usize>>);

impl Sink for Goes {
    fn take(&mut self, _: &Event) -> bool {
        let mut seen = self.1.lock().unwrap();
        *seen += 1;
        *seen < self.0
    }
}

#[test]
fn nothing_is_kept_for_who_is_gone() {
    let onnx = fs::read(model("translator")).unwrap();
    let encoder = fs::read(model("translator_encoder")).unwrap();
    let options = ModelOptions { encoder: Some(encoder.into()), ..one_session() };
    let loaded = Arc::new(engine().load("translator", &onnx, &options, Duration::from_secs(60)).unwrap());
    let generator = Generator::of("translator", &loaded, &ModelInfo::parse(&onnx).unwrap()).unwrap().unwrap();
    let order = || Order {
        holder: None,
        prompt: generator.prompt("hello").unwrap().into(),
        max_tokens: Some(100),
        choices: Choices { logit_bias: vec![(301, -100.0)], ..Choices::default() },
        seed: 1,
        stop: Vec::new(),
        constraint: None,
    };
    let seen = Arc::new(Mutex::new(0));
    generator.begin(vec![order()]).unwrap().give(|_| Box::new(Goes(5, Arc::clone(&seen))));
    drop(generator.begin(vec![order(), order()]).unwrap());
    let patience = Instant::now() + PATIENCE;
    while !generator.is_idle() {
        assert!(Instant::now() < patience, "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(*seen.lock().unwrap(), 5);
    for sequence in 0..3 {
        for past in 1..8 {
            let again = Feed { sequence, past, tokens: vec![1].into(), wanted: true, ..Feed::default() };
            assert!(loaded.step(&[], &[again], || ()).is_err(), "{sequence} after {past}");
        }
    }
}
