//! Resumptions, and what a server or somebody before it can do to them.

use confonnx_attest::Nonce;
use confonnx_client::{ClientError, Options};

use crate::fake::{Fake, Fault, begin_epoch};
use crate::{client, client_with, echo};

const PROBLEM: &str = "application/problem+json";

fn without_resumptions() -> Options {
    let mut options = Options::default();
    options.resumption = false;
    options
}

#[tokio::test]
async fn from_the_third_call_on_there_is_no_key_encapsulation() {
    let server = Fake::start().await;
    let client = client(&server);
    for resumed in [0, 0, 1, 2, 3] {
        echo(&client).await.unwrap();
        assert_eq!(server.resumed(), resumed);
    }
    let state = server.state();
    let offers = state.opened.iter().filter(|head| head.fields.get("confonnx-session").is_some());
    assert_eq!((offers.count(), state.received.len(), state.attestations), (1, 5, 1));
}

#[tokio::test]
async fn resumptions_can_be_turned_off() {
    let server = Fake::start().await;
    let mut chunked = Options::default();
    chunked.chunked = true;
    for options in [without_resumptions(), chunked] {
        let client = client_with(&server, options);
        for _ in 0..4 {
            // The fake server takes no chunked requests, so the call may fail; what it was asked is what counts.
            let _ = echo(&client).await;
        }
    }
    let state = server.state();
    assert!(state.opened.iter().all(|head| head.fields.get("confonnx-session").is_none()));
    assert!(state.received.iter().all(|(head, _)| head["content-type"] != "message/confonnx-session-req"));
}

#[tokio::test]
async fn a_server_that_grants_nothing_is_offered_again_and_loses_nothing() {
    let server = Fake::start().await;
    server.state().grants = false;
    let client = client(&server);
    for _ in 0..4 {
        echo(&client).await.unwrap();
    }
    assert_eq!((server.resumed(), server.received()), (0, 4));
}

#[tokio::test]
async fn a_forgotten_resumption_costs_one_more_request_and_no_attestation() {
    let server = Fake::start().await;
    let client = client(&server);
    for _ in 0..3 {
        echo(&client).await.unwrap();
    }
    server.forget_resumptions();
    echo(&client).await.unwrap();
    assert_eq!((server.received(), server.resumed(), server.attestations()), (5, 1, 1));
    // The resumption that was granted meanwhile is used now.
    echo(&client).await.unwrap();
    assert_eq!((server.received(), server.resumed()), (6, 2));
    assert_eq!((client.key_invalid_count(), client.key_rollover_count()), (0, 0));
}

#[tokio::test]
async fn whatever_says_that_a_resumption_is_no_good_ends_it_alone() {
    for code in
        ["session-unknown", "key-unknown", "request-invalid", "request-replayed", "media-type-unsupported"]
    {
        let server = Fake::start().await;
        let client = client(&server);
        for _ in 0..3 {
            echo(&client).await.unwrap();
        }
        let body: &'static str = format!(r#"{{"code": "{code}"}}"#).leak();
        server.state().faults.push_back(Fault::Answer(400, PROBLEM, body));
        echo(&client).await.unwrap();
        assert_eq!((server.received(), server.opened(), server.attestations()), (5, 4, 1), "{code}");
        assert_eq!(client.key_invalid_count(), 0, "{code}");
    }
}

#[tokio::test]
async fn a_server_that_is_busy_is_not_asked_again_at_once() {
    let server = Fake::start().await;
    let client = client_with(&server, Options::new().retries(0));
    for _ in 0..3 {
        echo(&client).await.unwrap();
    }
    server.state().faults.push_back(Fault::Answer(429, PROBLEM, r#"{"code": "queue-full"}"#));
    let err = echo(&client).await.unwrap_err();
    assert!(matches!(err, ClientError::Refused { status: 429, .. }), "{err}");
    assert_eq!(server.received(), 4);
    echo(&client).await.unwrap();
    assert_eq!(server.resumed(), 2, "the resumption goes on");
}

#[tokio::test]
async fn behind_replicas_that_forget_every_other_request_it_stops_trying() {
    let server = Fake::start().await;
    let client = client(&server);
    for _ in 0..30 {
        echo(&client).await.unwrap();
        server.forget_resumptions();
    }
    // The first two requests are full; then three resumed ones are refused and sent again in full, and for a while no
    // more.
    assert_eq!((server.opened(), server.received(), server.resumed()), (30, 33, 0));
    assert_eq!(server.attestations(), 1);
}

#[tokio::test]
async fn a_resumption_ends_with_an_outdated_key() {
    let server = Fake::start().await;
    let client = client(&server);
    for _ in 0..3 {
        echo(&client).await.unwrap();
    }
    begin_epoch(&server.state().ring);
    // This request is resumed, and its answer says that the key is outdated.
    echo(&client).await.unwrap();
    assert!(client.key_outdated());
    for resumed in [2, 2, 3] {
        echo(&client).await.unwrap();
        assert_eq!(server.resumed(), resumed);
    }
    assert_eq!((server.attestations(), server.received(), client.key_invalid_count()), (2, 7, 0));
}

#[tokio::test]
async fn a_reply_of_an_earlier_request_is_refused() {
    let server = Fake::start().await;
    let client = client(&server);
    for _ in 0..4 {
        echo(&client).await.unwrap();
    }
    for fault in [Fault::OldReply, Fault::Truncated, Fault::Flipped] {
        server.state().faults.push_back(fault);
        let err = echo(&client).await.unwrap_err();
        assert!(matches!(err, ClientError::ReplyInvalid { .. }), "{err}");
    }
    echo(&client).await.unwrap();
}

#[tokio::test]
async fn concurrent_calls_share_a_resumption_and_make_one_offer() {
    let server = Fake::start().await;
    let client = client(&server);
    echo(&client).await.unwrap();
    let (a, b, c) = tokio::join!(echo(&client), echo(&client), echo(&client));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    let offers = |server: &Fake| {
        server.state().opened.iter().filter(|head| head.fields.get("confonnx-session").is_some()).count()
    };
    assert_eq!(offers(&server), 1);
    let before = server.resumed();
    let (a, b, c) = tokio::join!(echo(&client), echo(&client), echo(&client));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!((server.resumed(), offers(&server)), (before + 3, 1));
}

#[tokio::test]
async fn an_abandoned_offer_does_not_stop_the_next() {
    let server = Fake::start().await;
    let client = client(&server);
    echo(&client).await.unwrap();
    server.state().faults.push_back(Fault::Slow);
    let abandoned = tokio::time::timeout(std::time::Duration::from_millis(300), echo(&client)).await;
    assert!(abandoned.is_err());
    for resumed in [0, 1] {
        echo(&client).await.unwrap();
        assert_eq!(server.resumed(), resumed);
    }
}

#[tokio::test]
async fn a_relay_takes_everything_and_gets_nothing_of_the_callers() {
    let (server, relay) = (Fake::start().await, Fake::start().await);
    // The fake relay has keys and opens requests itself, in place of a server behind it.
    let mut options = Options::default();
    options.relay = Some(format!("{}/relay?no", relay.url()));
    let err = confonnx_client::Client::new(&server.url(), crate::policy(), options.clone()).unwrap_err();
    assert!(matches!(err, ClientError::Url { .. }), "{err}");
    options.relay = Some(format!("{}/relay/", relay.url()));
    options.basic = Some(("user".into(), "pass".into()));
    options.outer_headers.push(("x-secret".into(), "outer".into()));
    let client = client_with(&server, options);
    for _ in 0..4 {
        echo(&client).await.unwrap();
    }
    client.fetch_document(Some(&Nonce([7; 32]))).await.unwrap();
    // Nothing goes to the server directly: neither requests for documents nor sealed ones.
    assert_eq!((server.attestations(), server.received()), (0, 0));
    assert_eq!((relay.attestations(), relay.received(), relay.resumed()), (2, 4, 0));
    let state = relay.state();
    assert!(state.paths.iter().all(|path| path == "/relay/"));
    let outer = state.asked.iter().chain(state.received.iter().map(|(headers, _)| headers));
    for headers in outer {
        for name in ["authorization", "x-secret"] {
            assert!(!headers.contains_key(name), "{name} went to the relay");
        }
    }
}
