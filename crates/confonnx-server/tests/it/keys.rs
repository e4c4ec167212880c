//! Key epochs over the wire.

use std::sync::atomic::Ordering;

use confonnx_attest::{Digest, Expectations, Policy};
use confonnx_client::{Client, ClientError, Options};
use confonnx_protocol::Kem;

use super::harness::*;

#[tokio::test]
async fn keys_change_are_still_accepted_then_erased() {
    let server = start_with(config("mlp", |settings| {
        settings.key_rollover_interval = Some(2);
        settings.key_grace = Some(1);
    }))
    .await;
    let key = server.key(Kem::X25519).await;
    let id = key.config().key_id();
    let current = || server.keys.published().claims.keys[0].key_id;
    let accepted = || server.keys.published().claims.keys.iter().any(|claim| claim.key_id == id);
    let first = current();
    let ask = async || {
        let (sealed, opener) = seal(&key, &head("GET", "/v2"), b"");
        let response = server.post(SEALED, sealed).await;
        if response.status() == 200 {
            Answer::open(response, opener).field("confonnx-key").to_owned()
        } else {
            code(&response)
        }
    };
    // The client's answers come in this order; on a slow machine one may be missing, but never goes back.
    let order = ["current", "outdated", "key-unknown"];
    let mut seen = vec![ask().await];
    while seen.last().unwrap() != "key-unknown" {
        let answer = ask().await;
        if answer != *seen.last().unwrap() {
            seen.push(answer);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let positions: Vec<_> =
        seen.iter().map(|answer| order.iter().position(|known| known == answer).unwrap()).collect();
    assert!(positions.is_sorted(), "{seen:?}");
    until(|| !accepted()).await;
    assert_ne!(current(), first);
}

#[tokio::test]
async fn a_client_follows_a_rollover_without_a_failed_request() {
    let server = start("mlp").await;
    let client = server.client(Options::default());
    client.server_metadata().await.unwrap();
    assert_eq!((client.key_rollover_count(), client.key_outdated()), (0, false));
    server.begin_epoch();
    client.server_metadata().await.unwrap();
    assert!(client.key_outdated());
    client.server_metadata().await.unwrap();
    assert_eq!(
        (client.key_rollover_count(), client.key_outdated(), client.key_invalid_count()),
        (1, false, 0)
    );
}

#[tokio::test]
async fn two_servers_share_no_key() {
    let (one, other) = (start("mlp").await, start("mlp").await);
    let client = one.client(Options::default());
    client.server_metadata().await.unwrap();
    let configs = |server: &Running| server.keys.published().configs;
    assert_ne!(configs(&one), configs(&other));
}

#[tokio::test]
async fn other_models_are_other_keys_and_pinned_clients_send_nothing() {
    let server = start("mlp").await;
    let hash = confonnx_model::model_hash(&model("mlp")).unwrap();
    let expected = Expectations::new().allow_debug(true).model_hash(Digest(hash).into());
    let pinned = Client::new(&server.url(), Policy::new(expected).unwrap(), Options::default()).unwrap();
    let other = server.client(Options::default());
    pinned.server_metadata().await.unwrap();
    other.server_metadata().await.unwrap();
    let key = server.key(Kem::XWing).await;
    let (sealed, _) = seal(&key, &head("GET", "/v2"), b"");
    let (_, cached) = server.get(ATTESTATION).await;

    assert_eq!(server.keys.published().claims.models.len(), 1);
    server.keys.serve(std::sync::Arc::default());
    // A request sealed before the models changed is not opened any more, whoever sends it.
    let refused = server.post(SEALED, sealed).await;
    assert!(
        matches!(&*code(&refused), "key-unknown" | "request-invalid" | "suite-unsupported"),
        "{refused:?}"
    );
    // The document shows both the new keys and the new models.
    let (_, document) = server.get(ATTESTATION).await;
    assert_ne!(cached, document);
    let trusted = trust(&document, None).unwrap();
    assert!(trusted.claims().models.is_empty());
    assert_eq!(trusted.key_configs(), server.keys.published().configs);
    // A client that pinned nothing follows; one that pinned the model refuses.
    other.server_metadata().await.unwrap();
    assert_eq!(other.key_invalid_count(), 1);
    let opened = || server.app.metrics().received_bytes.load(Ordering::Relaxed);
    // The client's first request is sealed to a key that is gone; its second attempt is refused before anything is
    // sent.
    let err = pinned.server_metadata().await.unwrap_err();
    assert!(matches!(err, ClientError::NotTrusted(_)), "{err}");
    let before = opened();
    assert!(matches!(pinned.server_metadata().await.unwrap_err(), ClientError::NotTrusted(_)));
    assert_eq!(opened(), before, "nothing is sent to a server that is not trusted");
}
