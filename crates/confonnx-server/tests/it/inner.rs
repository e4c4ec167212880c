//! The inner API, through the seal.

use std::time::Duration;

use confonnx_client::{ClientError, Options};
use confonnx_protocol::{Aead, Kem, oip::HEADER_LENGTH};
use confonnx_tensor::{DataType, Shape, Tensor};
use serde_json::json;

use super::harness::*;

const MLP_JSON: &str =
    r#"{"id": "7", "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}"#;

fn row() -> Tensor<'static> {
    let data: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DataType::Fp32, Shape::new(vec![1, 4]).unwrap(), data).unwrap()
}

#[tokio::test]
async fn json_in_json_out() {
    let server = start("mlp").await;
    let answer = server.ask(&head("POST", "/v2/models/mlp/infer"), MLP_JSON.as_bytes()).await;
    assert_eq!((answer.head.status, answer.field("confonnx-key")), (200, "current"));
    assert_eq!(answer.field("content-type"), "application/json");
    let body = answer.json();
    assert_eq!(
        (&body["model_name"], &body["model_version"], &body["id"]),
        (&json!("mlp"), &json!("1"), &json!("7"))
    );
    let output = &body["outputs"][0];
    assert_eq!((&output["name"], &output["shape"]), (&json!("y"), &json!([1, 3])));
    assert!((output["data"][1].as_f64().unwrap() - 4.438_95).abs() < 1e-4, "{output}");
}

#[tokio::test]
async fn every_suite_and_both_framings_give_the_same_answer() {
    let server = start("mlp").await;
    let mut answers = Vec::new();
    for kem in Kem::ALL {
        for aead in Aead::ALL {
            for chunked in [false, true] {
                let mut options = Options::default();
                (options.kem, options.aead, options.chunked) = (kem, aead, chunked);
                let client = server.client(options);
                answers.push(client.infer(None, vec![("x".into(), row())], &[]).await.unwrap());
            }
        }
    }
    assert_eq!(answers.len(), 18);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(answers[0][0].1.shape().dims(), [1, 3]);
}

#[tokio::test]
async fn a_large_message_goes_through_in_both_framings() {
    let server = start("identity_uint8").await;
    let data: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    for chunked in [false, true] {
        let mut options = Options::default();
        options.chunked = chunked;
        let shape = Shape::new(vec![data.len() as u64]).unwrap();
        let tensor = Tensor::new(DataType::Uint8, shape, &data).unwrap();
        let answer = server.client(options).infer(None, vec![("x".into(), tensor)], &[]).await.unwrap();
        assert!(answer[0].1.data() == data);
    }
}

#[tokio::test]
async fn strings_and_metadata() {
    let server = start("identity_bytes").await;
    let client = server.client(Options::default());
    let tensor = Tensor::from_strings(Shape::new(vec![2]).unwrap(), &["", "größe"]).unwrap();
    let answer = client.infer(None, vec![("x".into(), tensor.clone())], &["y".into()]).await.unwrap();
    assert_eq!(answer, [("y".to_owned(), tensor)]);

    let metadata = client.metadata(None).await.unwrap();
    assert_eq!((metadata.name.as_str(), metadata.platform.as_str()), ("identity_bytes", "onnxruntime_onnx"));
    assert_eq!(
        (metadata.inputs[0].datatype, metadata.inputs[0].shape.as_slice()),
        (DataType::Bytes, &[-1][..])
    );
    assert!(client.ready().await.unwrap());
    assert_eq!(
        client.server_metadata().await.unwrap().extensions,
        ["binary_tensor_data", "model_repository"]
    );
}

#[tokio::test]
async fn every_resource_answers() {
    let server = start("mlp").await;
    for (path, body) in [
        ("/v2/health/live", json!({"live": true})),
        ("/v2/health/ready", json!({"ready": true})),
        ("/v2/models/mlp/ready", json!({"name": "mlp", "ready": true})),
        ("/v2/models/mlp/versions/1/ready", json!({"name": "mlp", "ready": true})),
    ] {
        let answer = server.ask(&head("GET", path), b"").await;
        assert_eq!((answer.head.status, answer.json()), (200, body), "{path}");
    }
    for path in ["/v2/models/mlp", "/v2/models/mlp/versions/1"] {
        assert_eq!(server.ask(&head("GET", path), b"").await.json()["inputs"][0]["name"], "x");
    }
    assert_eq!(server.ask(&head("GET", "/v2"), b"").await.json()["name"], "confonnx");
}

#[tokio::test]
async fn errors_travel_inside_the_seal() {
    let server = start("mlp").await;
    let infer = || head("POST", "/v2/models/mlp/infer");
    let mut no_number = infer();
    no_number.fields.push(HEADER_LENGTH, "+5");
    let mut too_long = infer();
    too_long.fields.push(HEADER_LENGTH, "999999");
    let input = |name: &str, shape: &str, data: &str| {
        format!(
            r#"{{"inputs": [{{"name": "{name}", "shape": {shape}, "datatype": "FP32", "data": {data}}}]}}"#
        )
    };
    let wrong_type = MLP_JSON.replace("FP32", "INT32");
    let huge = input("x", "[4294967296, 4294967296, 4294967296]", "[]");
    for (head, body, expected) in [
        (head("GET", "/v3"), "", (404, "not-found")),
        (head("GET", "/v2/models"), "", (404, "not-found")),
        (head("GET", "/v2/models/other"), "", (404, "model-not-found")),
        (head("GET", "/v2/models/mlp/versions/2"), "", (404, "model-not-found")),
        (head("GET", "/v2/models/mlp/infer"), "", (405, "method-not-allowed")),
        (head("POST", "/v2/health/live"), "", (405, "method-not-allowed")),
        (infer(), "", (400, "inference-invalid")),
        (infer(), "{\"inputs\": 7}", (400, "inference-invalid")),
        (infer(), "\u{1}\u{2}\u{3}", (400, "inference-invalid")),
        (infer(), &huge, (400, "inference-invalid")),
        (infer(), r#"{"inputs": []}"#, (400, "input-invalid")),
        (infer(), &input("y", "[1, 4]", "[1, 2, 3, 4]"), (400, "input-invalid")),
        (infer(), &input("x", "[1, 3]", "[1, 2, 3]"), (400, "input-invalid")),
        (infer(), &wrong_type, (400, "input-invalid")),
        (no_number, MLP_JSON, (400, "inference-invalid")),
        (too_long, MLP_JSON, (400, "inference-invalid")),
    ] {
        let answer = server.ask(&head, body.as_bytes()).await;
        assert_eq!(answer.error(), (expected.0, expected.1.to_owned()), "{head:?} {body}");
        assert!(!answer.json()["error"].as_str().unwrap().is_empty());
    }
    // After all of these errors the server still serves.
    assert_eq!(server.ask(&infer(), MLP_JSON.as_bytes()).await.head.status, 200);
}

#[tokio::test]
async fn what_is_not_binary_http_is_an_error_inside_the_seal() {
    let server = start("mlp").await;
    let key = server.key(Kem::XWing).await;
    for message in [&[0xff; 600][..], b"", &[0, 3, b'G', b'E']] {
        let (sealed, opener) = key.seal(Aead::Aes256Gcm, message, &mut rng()).unwrap();
        let answer = Answer::open(server.post(SEALED, sealed).await, opener);
        assert_eq!(answer.error(), (400, "message-invalid".to_owned()));
    }
}

#[tokio::test]
async fn a_model_that_fails_quotes_nothing() {
    let server = start("gather").await;
    let body = r#"{"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [7654321]}]}"#;
    let answer = server.ask(&head("POST", "/v2/models/gather/infer"), body.as_bytes()).await;
    assert_eq!(answer.error(), (500, "inference-failed".to_owned()));
    assert!(!String::from_utf8_lossy(&answer.body).contains("7654321"));
}

#[tokio::test]
async fn an_infinity_has_no_json_form_but_a_binary_one() {
    let server = start("scalar").await;
    let mut infer = head("POST", "/v2/models/scalar/infer");
    let json = r#"{"inputs": [{"name": "x", "shape": [], "datatype": "FP32", "parameters": {"binary_data_size": 4}}], "parameters": {"binary_data_output": BINARY}}"#;
    let mut body = json.replace("BINARY", "false").into_bytes();
    infer.fields.push(HEADER_LENGTH, body.len().to_string());
    body.extend(f32::INFINITY.to_le_bytes());
    assert_eq!(server.ask(&infer, &body).await.error(), (400, "answer-not-json".to_owned()));

    let mut infer = head("POST", "/v2/models/scalar/infer");
    let mut body = json.replace("BINARY", "true").into_bytes();
    infer.fields.push(HEADER_LENGTH, body.len().to_string());
    body.extend(f32::INFINITY.to_le_bytes());
    let answer = server.ask(&infer, &body).await;
    assert_eq!((answer.head.status, answer.field("content-type")), (200, "application/octet-stream"));
    assert!(answer.body.ends_with(&f32::NEG_INFINITY.to_le_bytes()));
}

#[tokio::test]
async fn the_date_has_to_be_there_and_near() {
    let server = start("mlp").await;
    let without = confonnx_protocol::bhttp::RequestHead::new("GET", "/v2");
    assert_eq!(server.ask(&without, b"").await.error(), (400, "date-missing".to_owned()));
    for (seconds, ahead) in [(400, true), (400, false), (1 << 31, true)] {
        let offset = Duration::from_secs(seconds);
        let now = std::time::SystemTime::now();
        let date = if ahead { now + offset } else { now - offset };
        let mut wrong = without.clone();
        wrong.fields.push("date", httpdate::fmt_http_date(date));
        let answer = server.ask(&wrong, b"").await;
        assert_eq!(answer.error(), (400, "date-out-of-window".to_owned()));
        let theirs = httpdate::parse_http_date(answer.field("date")).unwrap();
        assert!(theirs.duration_since(now).unwrap_or_else(|err| err.duration()) < PATIENCE);
    }
}

#[tokio::test]
async fn the_obsolete_forms_of_dates_are_read_too() {
    let server = start("mlp").await;
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let [weekday, day, month, year, time, _] = date.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{date}")
    };
    let short = weekday.trim_end_matches(',');
    let long = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
        .into_iter()
        .find(|name| name.starts_with(short))
        .unwrap();
    let unpadded = day.trim_start_matches('0');
    for form in [
        format!("{long}, {day}-{month}-{} {time} GMT", &year[2..]),
        format!("{short} {month} {unpadded:>2} {time} {year}"),
    ] {
        let mut dated = confonnx_protocol::bhttp::RequestHead::new("GET", "/v2");
        dated.fields.push("date", form.clone());
        assert_eq!(server.ask(&dated, b"").await.head.status, 200, "{form}");
        let mut undated = confonnx_protocol::bhttp::RequestHead::new("GET", "/v2");
        undated.fields.push("date", form.replace(time, "25:61:61"));
        assert_eq!(server.ask(&undated, b"").await.head.status, 400, "{form}");
    }
}

#[tokio::test]
async fn a_bearer_token_is_checked_inside_the_seal() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    std::fs::write(&file, "battery\nstaple\n").unwrap();
    let server = start_with(config("mlp", |settings| settings.auth_key_file = Some(file))).await;
    assert_eq!(server.attest().await.claims().client_auth.kind, "bearer");
    let answer = server.ask(&head("GET", "/v2"), b"").await;
    assert_eq!(
        (answer.error(), answer.field("www-authenticate")),
        ((401, "unauthorized".to_owned()), "Bearer")
    );

    let client = |key: &str| {
        let mut options = Options::default();
        options.auth_key = Some(key.into());
        server.client(options)
    };
    assert!(client("staple").server_metadata().await.is_ok());
    let refused = client("horse").server_metadata().await.unwrap_err();
    assert!(matches!(refused, ClientError::Inner { status: 401, .. }), "{refused:?}");
    // Outside the seal a token counts for nothing.
    let key = server.key(Kem::X25519).await;
    let (sealed, opener) = seal(&key, &head("GET", "/v2"), b"");
    let outside =
        hyper::Request::post(GATEWAY).header("content-type", SEALED).header("authorization", "Bearer staple");
    assert_eq!(Answer::open(server.send(outside, sealed.into()).await, opener).head.status, 401);
}
