//! Vectors of texts, asked for through the seal: `/v1/embeddings`.

use base64ct::{Base64, Encoding};
use confonnx_attest::{Digest, produce::Attester};
use confonnx_client::{Client, Options, Request};
use serde_json::{Value, json};

use super::harness::*;

async fn ask(client: &Client, more: Value) -> (u16, Value) {
    let mut body = json!({ "model": "encoder" });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    let request = Request::post("/v1/embeddings").field("content-type", "application/json");
    let response = client.request(request.body(body.to_string())).await.unwrap();
    (response.status(), serde_json::from_slice(response.body()).unwrap())
}

async fn vectors(client: &Client, more: Value) -> Vec<Vec<f64>> {
    let (status, answer) = ask(client, more).await;
    assert_eq!(status, 200, "{answer}");
    let data = answer["data"].as_array().unwrap();
    for (index, one) in data.iter().enumerate() {
        assert_eq!((&one["object"], &one["index"]), (&json!("embedding"), &json!(index)));
    }
    data.iter().map(|one| serde_json::from_value(one["embedding"].clone()).unwrap()).collect()
}

fn near(one: &[f64], other: &[f64]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| (one - other).abs() < 1e-6)
}

#[tokio::test]
async fn a_text_has_the_same_vector_whatever_it_came_with() {
    let server = start("encoder").await;
    let client = server.client(Options::default());
    let texts = ["a b", "x", "k l m n o p q", "A  B"];
    let together = vectors(&client, json!({ "input": texts })).await;
    assert_eq!(together.len(), 4);
    for (text, vector) in texts.iter().zip(&together) {
        let alone = vectors(&client, json!({ "input": text })).await;
        assert!(near(&alone[0], vector), "{text}: {alone:?} {vector:?}");
        let length = vector.iter().map(|number| number * number).sum::<f64>();
        assert!((length - 1.0).abs() < 1e-5 && vector.len() == 8, "{vector:?}");
    }
    assert!(near(&together[0], &together[3]) && !near(&together[0], &together[1]));
    // The first list is the tokens of "a b".
    let tokens = vectors(&client, json!({ "input": [[2, 6, 7, 3], [2, 29, 3]] })).await;
    assert!(near(&tokens[0], &together[0]) && near(&tokens[1], &together[1]), "{tokens:?}");
    let (_, answer) = ask(&client, json!({ "input": texts })).await;
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 4 + 3 + 9 + 4, "total_tokens": 20 }));
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("encoder")));
}

#[tokio::test]
async fn many_texts_are_run_in_turns_and_keep_their_order() {
    let server = start("encoder").await;
    let client = server.client(Options::default());
    let letter = |place: usize| char::from(b'a' + u8::try_from(place % 26).unwrap()).to_string();
    // Texts of all lengths, and more of them than go into one run.
    let text = |place: usize| vec![letter(place); 1 + place % 14].join(" ");
    let texts: Vec<String> = (0..2048).map(text).collect();
    let all = vectors(&client, json!({ "input": texts })).await;
    assert_eq!(all.len(), 2048);
    for place in [0, 1, 13, 500, 1999, 2047] {
        let alone = vectors(&client, json!({ "input": texts[place] })).await;
        assert!(near(&alone[0], &all[place]), "{place}");
    }
}

#[tokio::test]
async fn they_are_written_as_asked() {
    let server = start("encoder").await;
    let client = server.client(Options::default());
    let whole = vectors(&client, json!({ "input": "a b c" })).await.remove(0);
    let (_, answer) = ask(&client, json!({ "input": "a b c", "encoding_format": "base64" })).await;
    let bytes = Base64::decode_vec(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let numbers: Vec<f64> =
        bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()).into()).collect();
    assert!(near(&numbers, &whole), "{numbers:?} {whole:?}");
    // The first numbers of the vector, scaled to length 1 again.
    let short = vectors(&client, json!({ "input": "a b c", "dimensions": 3 })).await.remove(0);
    let length = whole.iter().take(3).map(|number| number * number).sum::<f64>().sqrt();
    let expected: Vec<f64> = whole.iter().take(3).map(|number| number / length).collect();
    assert!(near(&short, &expected), "{short:?} {expected:?}");
    let query = vectors(&client, json!({ "input": "a", "prompt_name": "query" })).await;
    let written = vectors(&client, json!({ "input": "query: a" })).await;
    assert!(near(&query[0], &written[0]));
    let long = "a ".repeat(40);
    let cut = vectors(&client, json!({ "input": long, "truncate": true })).await;
    let fits = vectors(&client, json!({ "input": "a ".repeat(14) })).await;
    assert!(near(&cut[0], &fits[0]), "16 tokens, [CLS] and [SEP] among them");
}

#[tokio::test]
async fn what_cannot_be_answered_is_said_in_that_apis_words() {
    let server = start("encoder").await;
    let client = server.client(Options::default());
    for (more, status, code, param) in [
        (json!({ "input": "a ".repeat(15) }), 400, "context_length_exceeded", json!("input")),
        (json!({ "input": [32] }), 400, "embedding-invalid", json!("input")),
        (json!({ "input": "a", "dimensions": 9 }), 400, "embedding-invalid", json!("dimensions")),
        (json!({ "input": "a", "prompt_name": "none" }), 400, "embedding-invalid", json!("prompt_name")),
        (json!({ "input": 1 }), 400, "invalid_value", json!("input")),
        (json!({}), 400, "missing_parameter", json!("input")),
        (json!({ "input": "a", "more": 1 }), 400, "unknown_parameter", json!("more")),
    ] {
        let (found, answer) = ask(&client, more.clone()).await;
        assert_eq!((found, answer["error"]["code"].as_str()), (status, Some(code)), "{more} {answer}");
        assert_eq!(answer["error"]["param"], param, "{answer}");
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
    let (status, answer) = ask(&client, json!({ "input": "a", "model": "other" })).await;
    assert_eq!((status, answer["code"].as_str()), (404, Some("model-not-found")), "{answer}");
    let other = start("mlp").await;
    let client = other.client(Options::default());
    let (status, answer) = ask(&client, json!({ "input": "a", "model": "mlp" })).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("model-not-embedding")), "{answer}");
}

#[tokio::test]
async fn a_model_without_its_own_process_makes_the_same_vectors() {
    let isolated = start("encoder").await;
    let source = Attester::insecure(Digest([7; 32]));
    let open = start_by(config("encoder", |_| {}), source, engine_in_process()).await;
    let asked = json!({ "input": ["a b", "c d e f"] });
    let one = vectors(&isolated.client(Options::default()), asked.clone()).await;
    let other = vectors(&open.client(Options::default()), asked).await;
    assert!(near(&one[0], &other[0]) && near(&one[1], &other[1]));
}
