//! Attestation documents.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use confonnx_attest::{
    Digest, Nonce, Tee, UnixTime,
    produce::{Attester, ProduceError},
};
use confonnx_protocol::{Kem, KeyConfig};
use confonnx_server::{
    evidence::Source,
    server::{Parts, Server},
};
use http_body_util::{BodyExt, Empty};
use hyper::Request;

use super::harness::*;

#[tokio::test]
async fn the_claims_say_what_runs() {
    let server = start("mlp").await;
    let trusted = server.attest().await;
    let claims = trusted.claims();
    assert_eq!(claims.protocol, "confonnx/1");
    assert_eq!(claims.runtime.version, engine().version());
    assert_eq!(claims.runtime.sha256, Digest(engine().sha256()));
    assert_eq!((claims.models[0].name.as_str(), claims.models[0].version.as_str()), ("mlp", "1"));
    assert_eq!(claims.models[0].sha256, Some(Digest(confonnx_model::model_hash(&model("mlp")).unwrap())));
    assert_eq!((claims.key_source.kind.as_str(), claims.client_auth.kind.as_str()), ("local", "none"));
    assert_eq!(claims.settings["date_window_s"], 300);
    assert_eq!(claims.settings["insecure"], true);

    let configs = KeyConfig::parse_list(trusted.key_configs()).unwrap();
    let listed: Vec<_> = configs.iter().map(|config| (config.key_id(), config.kem().name())).collect();
    let claimed: Vec<_> = claims.keys.iter().map(|key| (key.key_id, key.kem.as_str())).collect();
    assert_eq!(listed, claimed);
    assert_eq!(configs.iter().map(KeyConfig::kem).collect::<Vec<_>>(), Kem::ALL);
    for key in &claims.keys {
        assert_eq!(key.not_after, UnixTime(key.not_before.0 + 86_400));
        assert_eq!(key.accepted_until, UnixTime(key.not_after.0 + 3600));
    }
}

#[tokio::test]
async fn a_model_with_external_data_has_the_hash_of_both() {
    let server = start("external").await;
    let hash = server.attest().await.claims().models[0].sha256.unwrap();
    assert_eq!(hash, Digest(confonnx_model::model_hash(&model("external")).unwrap()));
    let body = r#"{"inputs": [{"name": "x", "shape": [4], "datatype": "FP32", "data": [0, 0, 0, 0]}]}"#;
    let answer = server.ask(&head("POST", "/v2/models/external/infer"), body.as_bytes()).await;
    assert_eq!(answer.json()["outputs"][0]["data"], serde_json::json!([0.0, 1.0, 2.0, 3.0]));
}

#[tokio::test]
async fn each_of_many_callers_gets_a_proof_of_its_own_nonce() {
    let server = start("mlp").await;
    let mut tasks = Vec::new();
    for i in 0..64_u8 {
        let (app, nonce) = (Arc::clone(&server.app), Nonce([i; 32]));
        tasks.push(tokio::spawn(async move {
            let request = Request::get(format!("{ATTESTATION}?nonce={nonce}"));
            let response = app.answer(request.body(Empty::<Bytes>::new()).unwrap()).await;
            (nonce, response.into_body().collect().await.unwrap().to_bytes())
        }));
    }
    for task in tasks {
        let (nonce, document) = task.await.unwrap();
        trust(&document, Some(&nonce)).unwrap();
        trust(&document, Some(&Nonce([200; 32]))).unwrap_err();
    }
}

#[tokio::test]
async fn all_who_wait_for_the_device_share_its_next_quote() {
    let (go, wait) = mpsc::channel();
    let attester = Attester::insecure(Digest([7; 32]));
    let evidence = move |report_data: &[u8; 64]| {
        // Each quote waits until the test lets it go.
        wait.recv().unwrap();
        attester.evidence(report_data)
    };
    let source = Source {
        tee: Tee::Insecure,
        evidence: Box::new(evidence),
        machine_key: None,
        interval: Duration::ZERO,
    };
    // Lets the quote go that the server makes at its start.
    go.send(()).unwrap();
    let server = start_from(config("mlp", |_| {}), source).await;
    let quotes = || server.app.metrics().quotes.load(Ordering::Relaxed);
    let asked = Arc::new(AtomicUsize::new(0));
    let ask = |i: u8| {
        let (app, nonce, asked) = (Arc::clone(&server.app), Nonce([i; 32]), Arc::clone(&asked));
        tokio::spawn(async move {
            let request = Request::get(format!("{ATTESTATION}?nonce={nonce}"));
            asked.fetch_add(1, Ordering::Relaxed);
            let response = app.answer(request.body(Empty::<Bytes>::new()).unwrap()).await;
            trust(&response.into_body().collect().await.unwrap().to_bytes(), Some(&nonce)).unwrap();
        })
    };
    let mut tasks = vec![ask(0)];
    until(|| quotes() == 2).await;
    tasks.extend((1..=200).map(ask));
    // This test has one thread, so every task that was counted has run on until it waits.
    until(|| asked.load(Ordering::Relaxed) == 201).await;
    for _ in 0..2 {
        go.send(()).unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(quotes(), 3, "one to begin with, one for the first, one for all others");
}

#[tokio::test]
async fn a_device_without_evidence_keeps_the_server_from_starting() {
    let error = || ProduceError::Executable { path: "device", source: std::io::ErrorKind::TimedOut.into() };
    let source = Source {
        tee: Tee::Insecure,
        evidence: Box::new(move |_| Err(error())),
        machine_key: None,
        interval: Duration::ZERO,
    };
    let config = config("mlp", |_| {});
    let parts = Parts::load(&config, source, engine()).unwrap();
    let error = Server::assemble(config, parts).await.err().unwrap().to_string();
    assert!(error.starts_with("the TEE gives no evidence: "), "{error}");
}

#[tokio::test]
async fn without_a_nonce_the_latest_document_is_given_again() {
    let server = start("mlp").await;
    let (status, first) = server.get(ATTESTATION).await;
    let (_, second) = server.get(ATTESTATION).await;
    assert_eq!((status, &first), (200, &second));
    trust(&first, None).unwrap();
    // The cached document proves nothing to a client with a nonce.
    trust(&first, Some(&Nonce([1; 32]))).unwrap_err();
    // New keys make a new document.
    server.begin_epoch();
    let (_, third) = server.get(ATTESTATION).await;
    assert_ne!(first, third);
    assert!(trust(&third, None).unwrap().claims().keys.len() == 6);
}

#[tokio::test]
async fn documents_are_not_stored_on_the_way() {
    let server = start("mlp").await;
    let response = server.send(Request::get(ATTESTATION), Bytes::new()).await;
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["content-type"], "application/json");
}
