//! Every problem code a client can meet before its request is opened.

use bytes::Bytes;
use confonnx_protocol::{Aead, Code, Kem, bhttp::Fields};
use hyper::Request;

use super::harness::*;

#[tokio::test]
async fn requests_that_cannot_be_opened() {
    let server = start("mlp").await;
    let key = server.key(Kem::X25519).await;
    let sealed = || seal(&key, &head("GET", "/v2"), b"").0;
    let id = key.config().key_id();

    for end in [0, 1, 6, 7, 20, 39, 40, sealed().len() - 1] {
        assert_eq!(
            code(&server.post(SEALED, sealed()[..end].to_vec()).await),
            "request-invalid",
            "cut at {end}"
        );
    }
    // The length of this request is needed to flip a bit in its middle and at its end.
    let len = sealed().len();
    for at in [7, 38, 39, len / 2, len - 1] {
        let mut flipped = sealed();
        flipped[at] ^= 1;
        assert_eq!(code(&server.post(SEALED, flipped).await), "request-invalid", "bit flipped at {at}");
    }
    let mut unknown = sealed();
    unknown[0] = id.wrapping_add(100);
    let response = server.post(SEALED, unknown).await;
    assert_eq!(code(&response), "key-unknown");
    let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(body["type"], "https://iana.org/assignments/http-problem-types#ohttp-key");
    for (at, value) in [(2, 0x21), (4, 0x02), (6, 0x09)] {
        let mut other = sealed();
        other[at] = value;
        assert_eq!(code(&server.post(SEALED, other).await), "suite-unsupported");
    }
    // A sealed message of the other framing does not open in this one.
    assert_eq!(code(&server.post("message/ohttp-chunked-req", sealed()).await), "request-invalid");
    assert_eq!(server.post(SEALED, sealed()).await.status(), 200);
}

#[tokio::test]
async fn a_replay_is_refused_in_both_framings() {
    let server = start("mlp").await;
    let key = server.key(Kem::XWing).await;
    let (sealed, _) = seal(&key, &head("GET", "/v2"), b"");
    assert_eq!(server.post(SEALED, sealed.clone()).await.status(), 200);
    let again = server.post(SEALED, sealed).await;
    assert_eq!((again.status().as_u16(), code(&again)), (409, "request-replayed".to_owned()));

    let mut chunked = Vec::new();
    let (sealer, mut opener) = key.seal_chunked(Aead::Aes256Gcm, 1 << 20, &mut rng(), &mut chunked).unwrap();
    sealer.finish(&message(&head("GET", "/v2"), b""), &mut chunked).unwrap();
    let response = server.post("message/ohttp-chunked-req", chunked.clone()).await;
    assert_eq!(response.headers()["content-type"], "message/ohttp-chunked-res");
    opener.push(response.body()).unwrap();
    assert_eq!(Answer::parse(&opener.finish().unwrap()).head.status, 200);
    assert_eq!(code(&server.post("message/ohttp-chunked-req", chunked).await), "request-replayed");
}

#[tokio::test]
async fn a_chunked_request_without_its_end_is_refused() {
    let server = start("mlp").await;
    let key = server.key(Kem::X25519).await;
    let mut chunked = Vec::new();
    let (mut sealer, _) =
        key.seal_chunked(Aead::ChaCha20Poly1305, 1 << 20, &mut rng(), &mut chunked).unwrap();
    sealer.chunk(&message(&head("GET", "/v2"), b""), &mut chunked).unwrap();
    assert_eq!(code(&server.post("message/ohttp-chunked-req", chunked).await), "request-invalid");
}

#[tokio::test]
async fn a_full_replay_table_refuses_rather_than_forgets() {
    let server = start_with(config("mlp", |settings| settings.replay_capacity = Some(2))).await;
    let key = server.key(Kem::X25519).await;
    let mut statuses = Vec::new();
    let (first, _) = seal(&key, &head("GET", "/v2"), b"");
    statuses.push(server.post(SEALED, first.clone()).await.status().as_u16());
    statuses.push(server.post(SEALED, seal(&key, &head("GET", "/v2"), b"").0).await.status().as_u16());
    assert_eq!(statuses, [200, 200]);
    let full = server.post(SEALED, seal(&key, &head("GET", "/v2"), b"").0).await;
    assert_eq!((full.status().as_u16(), code(&full)), (503, "replay-state-full".to_owned()));
    assert!(full.headers().contains_key("retry-after"));
    assert_eq!(code(&server.post(SEALED, first).await), "request-replayed");
}

#[tokio::test]
async fn who_is_not_let_in_takes_no_place_in_the_replay_table() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "open-sesame\n").unwrap();
    let server = start_with(config("mlp", |settings| {
        (settings.replay_capacity, settings.auth_key_file) = (Some(2), Some(tokens));
    }))
    .await;
    let key = server.key(Kem::X25519).await;
    let ask = async |token: &str, date: Option<&str>| {
        let mut head = head("GET", "/v2");
        if let Some(date) = date {
            head.fields = Fields::default();
            head.fields.push("date", date);
        }
        head.fields.push("authorization", format!("Bearer {token}"));
        let (sealed, opener) = seal(&key, &head, b"");
        let response = server.post(SEALED, sealed.clone()).await;
        assert_eq!(response.status(), 200, "{}", code(&response));
        (sealed, Answer::open(response, opener).head.status)
    };
    for _ in 0..4 {
        let (refused, status) = ask("wrong", None).await;
        assert_eq!(status, 401);
        // A request that was refused is refused again when it is sent again: it left no trace that would make it a
        // replay.
        assert_eq!(server.post(SEALED, refused).await.status(), 200);
        assert_eq!(ask("open-sesame", Some("Sun, 06 Nov 1994 08:49:37 GMT")).await.1, 400);
    }
    let (served, status) = ask("open-sesame", None).await;
    assert_eq!(status, 200);
    assert_eq!(code(&server.post(SEALED, served).await), "request-replayed");
    assert_eq!(ask("open-sesame", None).await.1, 200);
    let full = server.post(SEALED, seal(&key, &head("GET", "/v2"), b"").0).await;
    assert_eq!(code(&full), "replay-state-full");
}

#[tokio::test]
async fn what_is_not_there_or_not_meant_so() {
    let server = start("mlp").await;
    let send = async |method: &str, path: &str, content_type: &str| {
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        let response = server.send(request, Bytes::from_static(b"{}")).await;
        (response.status().as_u16(), code(&response))
    };
    for (method, path, content_type, expected) in [
        ("GET", "/nowhere", SEALED, Code::NotFound),
        ("POST", "/v2/models/mlp/infer", "application/json", Code::NotFound),
        ("GET", "/metrics", SEALED, Code::NotFound),
        ("POST", "/", SEALED, Code::MethodNotAllowed),
        ("GET", GATEWAY, SEALED, Code::MethodNotAllowed),
        ("PUT", ATTESTATION, SEALED, Code::MethodNotAllowed),
        ("POST", GATEWAY, "application/json", Code::MediaTypeUnsupported),
        ("POST", GATEWAY, "message/ohttp-res", Code::MediaTypeUnsupported),
    ] {
        assert_eq!(
            send(method, path, content_type).await,
            (expected.status(), expected.name().to_owned()),
            "{path}"
        );
    }
    let (status, body) = server.get("/").await;
    assert_eq!((status, &body[..]), (200, &b"Healthy"[..]));
}

#[tokio::test]
async fn nonces_that_are_none() {
    let server = start("mlp").await;
    let digits = "0".repeat(64);
    for query in
        ["", "nonce=", "nonce=12", &digits, &format!("nonce={digits}0"), &format!("nonce={digits}&x=1")]
    {
        let response = server.send(Request::get(format!("{ATTESTATION}?{query}")), Bytes::new()).await;
        assert_eq!(code(&response), "nonce-invalid", "{query}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_read() {
    let server = start_with(config("mlp", |settings| settings.max_request_bytes = Some(2000))).await;
    for content_type in [SEALED, "message/ohttp-chunked-req"] {
        let response = server.post(content_type, vec![0; 2001]).await;
        assert_eq!((response.status().as_u16(), code(&response)), (413, "request-too-large".to_owned()));
    }
    let key = server.key(Kem::XWing).await;
    assert_eq!(server.post(SEALED, seal(&key, &head("GET", "/v2"), b"").0).await.status(), 200);
}

#[tokio::test]
async fn every_answer_has_an_id_and_echoes_the_clients() {
    let server = start("mlp").await;
    let mut ids = std::collections::HashSet::new();
    for (path, theirs) in
        [("/", "abc-123"), ("/nowhere", "abc-123"), ("/", "with space"), ("/", &"x".repeat(129))]
    {
        let response =
            server.send(Request::get(path).header("x-ms-client-request-id", theirs), Bytes::new()).await;
        let id = response.headers()["x-ms-request-id"].to_str().unwrap().to_owned();
        assert_eq!(id.len(), 36);
        assert!(ids.insert(id));
        let echo = response.headers().get("x-ms-client-request-id");
        assert_eq!(echo.is_some(), theirs == "abc-123", "{theirs}");
    }
}

#[tokio::test]
async fn http_2_without_tls_serves_the_same() {
    let server = start("mlp").await;
    let key = server.key(Kem::XWing).await;
    let (sealed, opener) = seal(&key, &head("GET", "/v2"), b"");
    let request = Request::post(format!("{}{GATEWAY}", server.url())).header("content-type", SEALED);
    assert_eq!(Answer::open(server.send_h2(request, sealed.into()).await, opener).head.status, 200);
    let refused = server.send_h2(Request::get(format!("{}/nowhere", server.url())), Bytes::new()).await;
    assert_eq!(code(&refused), "not-found");
}
