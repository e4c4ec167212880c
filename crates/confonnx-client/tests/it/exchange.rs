use std::time::Duration;

use confonnx_client::{Aead, ClientError, Options, Request, Sequence, SequenceId};

use crate::fake::{Fake, Fault, begin_epoch};
use crate::{client, client_with, echo, input};

#[tokio::test]
async fn one_attestation_serves_many_calls_and_counts_start_at_zero() {
    let server = Fake::start().await;
    let client = client(&server);
    for _ in 0..3 {
        echo(&client).await.unwrap();
    }
    assert_eq!((server.attestations(), server.opened()), (1, 3));
    assert_eq!(
        (client.key_rollover_count(), client.key_invalid_count(), client.key_outdated()),
        (0, 0, false)
    );
}

#[tokio::test]
async fn every_aead_works() {
    let server = Fake::start().await;
    for aead in Aead::ALL {
        let mut options = Options::default();
        options.aead = aead;
        echo(&client_with(&server, options)).await.unwrap();
    }
}

#[tokio::test]
async fn an_outdated_key_is_renewed_before_the_next_call() {
    let server = Fake::start().await;
    let client = client(&server);
    echo(&client).await.unwrap();
    begin_epoch(&server.state().ring);
    echo(&client).await.unwrap();
    assert!(client.key_outdated());
    assert_eq!((client.key_rollover_count(), server.attestations()), (0, 1));
    echo(&client).await.unwrap();
    assert_eq!(
        (client.key_rollover_count(), client.key_invalid_count(), client.key_outdated()),
        (1, 0, false)
    );
    assert_eq!((server.attestations(), server.opened()), (2, 3));
}

#[tokio::test]
async fn an_unknown_key_is_renewed_and_the_call_repeated_once() {
    let server = Fake::start().await;
    let client = client(&server);
    echo(&client).await.unwrap();
    server.restart();
    echo(&client).await.unwrap();
    assert_eq!((client.key_rollover_count(), client.key_invalid_count()), (0, 1));

    let unknown = || Fault::Answer(400, "application/problem+json", r#"{"code": "key-unknown"}"#);
    server.state().faults.extend([unknown(), unknown()]);
    let before = server.received();
    let err = echo(&client).await.unwrap_err();
    assert!(matches!(&err, ClientError::Refused { status: 400, code, .. } if code == "key-unknown"), "{err}");
    assert_eq!(server.received(), before + 2);
}

#[tokio::test]
async fn an_invalid_request_is_repeated_only_when_the_key_changed() {
    let invalid = || Fault::Answer(400, "application/problem+json", r#"{"code": "request-invalid"}"#);
    let server = Fake::start().await;
    let client = client(&server);
    server.state().faults.push_back(invalid());
    let err = echo(&client).await.unwrap_err();
    assert!(matches!(&err, ClientError::Refused { code, .. } if code == "request-invalid"), "{err}");
    assert_eq!((client.key_invalid_count(), server.received()), (0, 1));

    server.restart();
    server.state().faults.push_back(invalid());
    echo(&client).await.unwrap();
    assert_eq!(client.key_invalid_count(), 1);
}

#[tokio::test]
async fn no_unsealed_answer_is_a_result() {
    let server = Fake::start().await;
    let client = client(&server);
    let result = r#"{"model_name": "echo", "outputs": []}"#;
    server.state().faults.push_back(Fault::Answer(200, "application/json", result));
    let err = echo(&client).await.unwrap_err();
    assert!(
        matches!(&err, ClientError::Unsealed { status: 200, found, .. } if found == "application/json"),
        "{err}"
    );
    server.state().faults.push_back(Fault::Answer(200, "message/ohttp-res", result));
    let err = echo(&client).await.unwrap_err();
    assert!(matches!(err, ClientError::ReplyInvalid { .. }), "{err}");
    server.state().faults.push_back(Fault::Answer(500, "message/ohttp-res", result));
    let err = echo(&client).await.unwrap_err();
    assert!(matches!(err, ClientError::Unsealed { status: 500, .. }), "{err}");
    // After all of these errors the client still works.
    echo(&client).await.unwrap();
}

#[tokio::test]
async fn replies_that_were_tampered_with_are_refused() {
    let server = Fake::start().await;
    let client = client_with(&server, Options::new().retries(0));
    echo(&client).await.unwrap();
    for fault in [Fault::OldReply, Fault::Truncated, Fault::Flipped] {
        server.state().faults.push_back(fault);
        let err = echo(&client).await.unwrap_err();
        assert!(matches!(err, ClientError::ReplyInvalid { .. }), "{err}");
    }
    server.state().faults.push_back(Fault::HalfBody);
    let err = echo(&client).await.unwrap_err();
    assert!(matches!(err, ClientError::Transport { .. }), "{err}");
    echo(&client).await.unwrap();
}

#[tokio::test]
async fn sealed_errors_carry_the_servers_code() {
    let server = Fake::start().await;
    let client = client(&server);
    let body = r#"{"error": "expected 3 inputs, found 1", "code": "input-invalid"}"#;
    server.state().faults.push_back(Fault::Sealed(422, body, 0));
    let err = echo(&client).await.unwrap_err();
    assert_eq!(err.to_string(), "expected 3 inputs, found 1 (input-invalid, status 422)");
    assert!(matches!(err, ClientError::Inner { status: 422, .. }));
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_once() {
    let server = Fake::start().await;
    let client = client(&server);
    let refused = || Fault::Sealed(400, r#"{"error": "date", "code": "date-out-of-window"}"#, 7200);
    server.state().faults.push_back(refused());
    echo(&client).await.unwrap();
    let dates: Vec<_> =
        server.state().opened.iter().map(|head| date(head.fields.get("date").unwrap())).collect();
    let ahead = dates[1].duration_since(dates[0]).unwrap().as_secs();
    assert!((7190..7290).contains(&ahead), "{ahead} s");

    server.state().faults.extend([refused(), refused()]);
    let err = echo(&client).await.unwrap_err();
    assert!(matches!(&err, ClientError::Inner { code, .. } if code == "date-out-of-window"), "{err}");
}

#[tokio::test]
async fn secrets_travel_where_they_belong() {
    let server = Fake::start().await;
    let mut options = Options::default();
    options.auth_key = Some("sealed-token".into());
    options.basic = Some(("user".into(), "pass".into()));
    assert!(!format!("{options:?}").contains("sealed-token"));
    echo(&client_with(&server, options)).await.unwrap();
    let state = server.state();
    assert_eq!(state.opened[0].fields.get("authorization"), Some(&b"Bearer sealed-token"[..]));
    assert_eq!(state.received[0].0["authorization"], "Basic dXNlcjpwYXNz");
}

#[tokio::test]
async fn requests_have_padded_sizes() {
    let server = Fake::start().await;
    let client = client(&server);
    echo(&client).await.unwrap();
    let mut options = Options::default();
    options.auth_key = Some("x".repeat(40).into());
    echo(&client_with(&server, options)).await.unwrap();
    let state = server.state();
    assert_eq!(state.received[0].1, state.received[1].1);
}

#[tokio::test]
async fn slow_servers_and_long_replies_meet_limits() {
    let server = Fake::start().await;
    let mut options = Options::default();
    options.timeout = Duration::from_millis(300);
    server.state().faults.push_back(Fault::Slow);
    let err = echo(&client_with(&server, options)).await.unwrap_err();
    assert!(matches!(err, ClientError::Timeout { .. }), "{err}");

    let mut options = Options::default();
    options.max_reply = 100;
    let err = echo(&client_with(&server, options)).await.unwrap_err();
    assert!(matches!(err, ClientError::TooLarge { limit: 100 }), "{err}");
}

#[tokio::test]
async fn the_model_may_be_left_out_only_when_there_is_one() {
    let server = Fake::start().await;
    server.state().models = vec!["a", "b"];
    let client = client(&server);
    let err = echo(&client).await.unwrap_err();
    assert_eq!(err.to_string(), "name a model: the server has a, b");
    client.infer(Some("a/../b"), input(), &[]).await.unwrap();
    assert_eq!(server.state().opened[0].path, "/v2/models/a%2F..%2Fb/infer");
}

#[tokio::test]
async fn another_url_means_another_attestation() {
    let (first, second) = (Fake::start().await, Fake::start().await);
    let client = client(&first);
    echo(&client).await.unwrap();
    client.set_url(&second.url()).unwrap();
    echo(&client).await.unwrap();
    assert_eq!((second.attestations(), second.opened()), (1, 1));
    assert_eq!((client.key_rollover_count(), client.key_invalid_count()), (0, 0));
}

#[tokio::test]
async fn concurrent_calls_share_an_attestation() {
    let server = Fake::start().await;
    let client = client(&server);
    let (a, b, c) = tokio::join!(echo(&client), echo(&client), echo(&client));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(server.attestations(), 1);
}

#[tokio::test]
async fn an_unreachable_server_is_named() {
    let server = Fake::start().await;
    let client = client(&server);
    client.set_url("http://127.0.0.1:1").unwrap();
    let err = echo(&client).await.unwrap_err();
    assert!(matches!(err, ClientError::Transport { .. }), "{err}");
    assert!(err.to_string().contains("http://127.0.0.1:1") && err.to_string().contains("refused"), "{err}");
}

#[tokio::test]
async fn what_breaks_on_its_way_is_asked_again_as_often_as_told() {
    let server = Fake::start().await;
    let faults =
        || [Fault::HalfBody, Fault::Answer(429, "application/problem+json", r#"{"code": "queue-full"}"#)];
    let once = client_with(&server, Options::new().retries(0));
    server.state().faults.extend(faults());
    assert!(matches!(echo(&once).await.unwrap_err(), ClientError::Transport { .. }));
    let refused = echo(&once).await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { status: 429, .. }), "{refused:?}");
    server.state().faults.extend(faults());
    let before = server.received();
    echo(&client_with(&server, Options::new().retries(2))).await.unwrap();
    assert_eq!(server.received() - before, 3);
}

#[tokio::test]
async fn a_request_of_a_sequence_is_not_sent_twice_unasked() {
    let server = Fake::start().await;
    let client = client_with(&server, Options::new().retries(2));
    let id = SequenceId::Text("5f1d0c77b2a9e0d1".into());
    let ask = async || {
        let sequence = Sequence { id: id.clone(), start: false, end: false };
        client.request(Request::infer_in(sequence, Some("echo"), input(), &[]).unwrap()).await
    };
    // The server may have run it, and then the model's state has gone on.
    for lost in [Fault::HalfBody, Fault::Answer(502, "text/html", "<h1>Bad Gateway</h1>")] {
        server.state().faults.push_back(lost);
        let before = server.received();
        let err = ask().await.unwrap_err();
        assert!(
            matches!(err, ClientError::Transport { sent: true, .. } | ClientError::Unsealed { .. }),
            "{err:?}"
        );
        assert_eq!(server.received() - before, 1);
    }
    // What was refused unopened was not run.
    server.state().faults.push_back(Fault::Answer(
        429,
        "application/problem+json",
        r#"{"code": "queue-full"}"#,
    ));
    let before = server.received();
    ask().await.unwrap();
    assert_eq!(server.received() - before, 2);
}

#[test]
fn the_blocking_face_does_the_same() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Fake::start());
    let expected = confonnx_client::Expectations::new().allow_debug(true);
    let policy = confonnx_client::Policy::new(expected).unwrap();
    let client = confonnx_client::blocking::Client::new(&server.url(), policy, Options::default()).unwrap();
    for _ in 0..2 {
        assert_eq!(client.infer(Some("echo"), input(), &[]).unwrap(), input());
    }
    assert_eq!(server.attestations(), 1);
}

fn date(field: &[u8]) -> std::time::SystemTime {
    httpdate::parse_http_date(std::str::from_utf8(field).unwrap()).unwrap()
}
