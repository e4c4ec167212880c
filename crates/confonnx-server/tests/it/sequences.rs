//! Models with a state, asked in sequences of requests.

use bytes::Bytes;
use confonnx_attest::Digest;
use confonnx_client::{Client, ClientError, DataType, Options, Request, Sequence, SequenceId, Shape, Tensor};
use confonnx_model::{Kept, ModelInfo, with_state};
use confonnx_protocol::{Kem, client::SealingKey};
use confonnx_server::config::Settings;
use http_body_util::{BodyExt, Full};
use sha2::{Digest as _, Sha256};

use super::harness::*;

fn tensor(dims: &[u64], values: &[f32]) -> Tensor<'static> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DataType::Fp32, Shape::new(dims.to_vec()).unwrap(), bytes).unwrap()
}

fn numbers(tensor: &Tensor<'_>) -> Vec<f32> {
    tensor.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// A request of a sequence to the model that adds up what it is given.
struct Ask<'c>(&'c Client, SequenceId);

impl Ask<'_> {
    async fn next(&self, x: [f32; 2], scale: Option<f32>, end: bool) -> Result<Vec<f32>, ClientError> {
        let mut inputs = vec![("x".to_owned(), tensor(&[1, 2], &x))];
        inputs.extend(scale.map(|scale| ("scale".to_owned(), tensor(&[1], &[scale]))));
        let sequence = Sequence { id: self.1.clone(), start: scale.is_some(), end };
        let request = Request::infer_in(sequence, Some("running_sum"), inputs, &[]).unwrap();
        let outputs = self.0.request(request).await?.success()?.tensors()?;
        let [(name, y)] = outputs.as_slice() else { panic!("its state is the server's: {outputs:?}") };
        assert_eq!(name, "y");
        Ok(numbers(y))
    }
}

fn code(result: Result<Vec<f32>, ClientError>) -> (u16, String) {
    match result.unwrap_err() {
        ClientError::Inner { status, code, .. } => (status, code),
        other => panic!("{other}"),
    }
}

fn text(text: &str) -> SequenceId {
    SequenceId::Text(text.into())
}

#[tokio::test]
async fn a_sequence_goes_on_with_what_it_left_and_knows_of_no_other() {
    let server = start("running_sum").await;
    let client = server.client(Options::default());
    let (one, other) = (Ask(&client, text("one: 5f1d0c77b2a9")), Ask(&client, text("other: 9c3e8d41f0a6")));
    assert_eq!(one.next([1.0, 2.0], Some(1.0), false).await.unwrap(), [1.0, 2.0]);
    assert_eq!(other.next([1.0, 1.0], Some(10.0), false).await.unwrap(), [10.0, 10.0]);
    assert_eq!(one.next([1.0, 2.0], None, false).await.unwrap(), [2.0, 4.0]);
    assert_eq!(other.next([1.0, 0.0], None, false).await.unwrap(), [20.0, 10.0]);
    assert_eq!(one.next([0.0, 1.0], None, true).await.unwrap(), [2.0, 5.0]);
    // What ended is gone; what is begun again begins with nothing.
    assert_eq!(code(one.next([1.0, 1.0], None, false).await), (404, "sequence-unknown".into()));
    assert_eq!(other.next([1.0, 1.0], Some(2.0), false).await.unwrap(), [2.0, 2.0]);
    // Without a sequence the model takes and gives all.
    let inputs = vec![
        ("x".to_owned(), tensor(&[1, 2], &[1.0, 1.0])),
        ("total".to_owned(), tensor(&[1, 2], &[5.0, 6.0])),
        ("scale".to_owned(), tensor(&[1], &[1.0])),
    ];
    assert_eq!(client.infer(Some("running_sum"), inputs, &[]).await.unwrap().len(), 2);
    let metadata = client.metadata(Some("running_sum")).await.unwrap();
    assert_eq!(metadata.parameters["state"], serde_json::json!({ "total": "total_next", "scale": null }));
}

#[tokio::test]
async fn what_is_no_request_of_a_sequence_is_told_apart() {
    let server = start("running_sum").await;
    let client = server.client(Options::default());
    for id in [SequenceId::Number(1), text("short")] {
        assert_eq!(
            code(Ask(&client, id).next([1.0; 2], Some(1.0), false).await),
            (400, "sequence-invalid".into())
        );
    }
    let ask = Ask(&client, SequenceId::Number(u64::MAX));
    assert_eq!(code(ask.next([1.0; 2], None, false).await), (404, "sequence-unknown".into()));
    ask.next([1.0; 2], Some(1.0), false).await.unwrap();
    let sequence = Sequence { id: ask.1.clone(), start: false, end: false };
    let again = |name: &str| {
        let inputs =
            vec![("x".to_owned(), tensor(&[1, 2], &[1.0; 2])), (name.to_owned(), tensor(&[1], &[9.0]))];
        Request::infer_in(sequence.clone(), Some("running_sum"), inputs, &[]).unwrap()
    };
    let given = client.request(again("scale")).await.unwrap();
    assert_eq!(given.status(), 400, "{:?}", String::from_utf8_lossy(given.body()));
    // A request that fails ends its sequence, and so its state is never half of one.
    assert_eq!(code(ask.next([1.0; 2], None, false).await), (404, "sequence-unknown".into()));
    let other = start("mlp").await;
    let request =
        Request::infer_in(sequence, Some("mlp"), vec![("x".to_owned(), tensor(&[1, 4], &[1.0; 4]))], &[]);
    let refused =
        other.client(Options::default()).request(request.unwrap()).await.unwrap().success().unwrap_err();
    assert!(refused.to_string().contains("annotate --state"), "{refused}");
}

#[tokio::test]
async fn a_sequence_is_its_callers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.toml");
    let caller = |name: &str| {
        let hash = Digest(Sha256::digest(name).into());
        format!("[[caller]]\nname = \"{name}\"\ntoken_sha256 = \"{hash}\"\n")
    };
    std::fs::write(&path, caller("alice") + &caller("bob")).unwrap();
    let server = start_with(config("running_sum", |settings| settings.auth_file = Some(path))).await;
    let client = |token: &str| {
        let mut options = Options::default();
        options.auth_key = Some(token.into());
        server.client(options)
    };
    let (alice, bob) = (client("alice"), client("bob"));
    // Each has a sequence of the same name.
    let (alices, bobs) = (Ask(&alice, SequenceId::Number(1)), Ask(&bob, SequenceId::Number(1)));
    alices.next([1.0, 1.0], Some(1.0), false).await.unwrap();
    assert_eq!(code(bobs.next([1.0, 1.0], None, false).await), (404, "sequence-unknown".into()));
    assert_eq!(bobs.next([5.0, 5.0], Some(1.0), false).await.unwrap(), [5.0, 5.0]);
    assert_eq!(alices.next([1.0, 1.0], None, false).await.unwrap(), [2.0, 2.0]);
}

const INFER: &str = "/v2/models/running_sum/infer";

/// The body of a request that adds 1 and 2.
fn add(id: &str, parameters: &str) -> String {
    let x = r#"{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}"#;
    // The first request says how much all of them count.
    let scale = r#", {"name": "scale", "shape": [1], "datatype": "FP32", "data": [1]}"#;
    let scale = if parameters.contains("sequence_start") { scale } else { "" };
    format!(r#"{{"id": "{id}", "parameters": {{{parameters}}}, "inputs": [{x}{scale}]}}"#)
}

/// A request that goes on with the running sum, sealed and asked as from that address.
async fn ask_from(server: &Running, key: &SealingKey, from: [u8; 4], parameters: &str) -> Answer {
    let body = add("", parameters);
    let (sealed, opener) = seal(key, &head("POST", INFER), body.as_bytes());
    let budget = server.app.budget();
    let request = http::Request::post(GATEWAY).header("content-type", SEALED);
    let request = request.extension(budget.purse(&budget.peer().of(from.into())));
    let response = server.app.answer(request.body(Full::new(Bytes::from(sealed))).unwrap()).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer::open(http::Response::from_parts(head, body), opener)
}

#[tokio::test]
async fn one_address_leaves_sequences_to_others() {
    let share = |settings: &mut Settings| settings.max_peer_percent = Some(50);
    let server = start_with(config("running_sum", share)).await;
    let key = server.key(Kem::X25519).await;
    let begin = |number: u64| format!(r#""sequence_id": {}, "sequence_start": true"#, (1_u64 << 50) + number);
    for number in 0..512 {
        let begun = ask_from(&server, &key, [192, 0, 2, 1], &begin(number)).await;
        assert_eq!(begun.head.status, 200, "{}", begun.json());
    }
    let refused = ask_from(&server, &key, [192, 0, 2, 1], &begin(512)).await;
    assert_eq!((refused.head.status, &refused.json()["code"]), (429, &"sequences-share".into()));
    assert!(refused.head.fields.get("retry-after").is_some());
    assert_eq!(ask_from(&server, &key, [192, 0, 2, 2], &begin(512)).await.head.status, 200);
    let ended = ask_from(&server, &key, [192, 0, 2, 1], &(begin(0) + r#", "sequence_end": true"#)).await;
    assert_eq!(ended.head.status, 200);
    assert_eq!(ask_from(&server, &key, [192, 0, 2, 1], &begin(513)).await.head.status, 200);
}

#[tokio::test]
async fn a_request_that_is_sent_again_does_not_go_on_twice() {
    let server = start("running_sum").await;
    let key = server.key(Kem::X25519).await;
    let ask = async |more: &str, id: &str| {
        let body = add(id, &format!(r#""sequence_id": "5f1d0c77b2a9e0d1"{more}"#));
        let (sealed, opener) = seal(&key, &head("POST", INFER), body.as_bytes());
        Answer::open(server.post(SEALED, sealed).await, opener)
    };
    let sum = |answer: &Answer| answer.json()["outputs"][0]["data"].clone();
    ask(r#", "sequence_start": true"#, "1").await;
    ask("", "2").await;
    // The answer was lost, and the request is sealed anew.
    let again = ask("", "2").await;
    assert_eq!((again.head.status, &again.json()["code"]), (409, &"sequence-repeated".into()));
    assert_eq!(sum(&ask("", "3").await), serde_json::json!([3.0, 6.0]));
    // Without an id nobody knows; a first request begins anew.
    ask("", "").await;
    assert_eq!(sum(&ask("", "").await), serde_json::json!([5.0, 10.0]));
    for _ in 0..2 {
        assert_eq!(sum(&ask(r#", "sequence_start": true"#, "1").await), serde_json::json!([1.0, 2.0]));
    }
}

#[test]
fn the_statement_is_part_of_the_file_and_has_to_fit_it() {
    let onnx = std::fs::read(model("two")).unwrap();
    let kept =
        |input: &str, output: Option<&str>| Kept { input: input.into(), output: output.map(str::to_owned) };
    let state = [kept("a", Some("sum")), kept("b", None)];
    let stated = with_state(&onnx, &state).unwrap();
    assert_eq!(ModelInfo::parse(&stated).unwrap().state, state);
    assert_eq!(with_state(&stated, &[]).unwrap(), onnx);
    for wrong in [kept("c", Some("sum")), kept("a", Some("b"))] {
        assert!(with_state(&onnx, &[wrong]).unwrap_err().to_string().contains("expected"));
    }
}
