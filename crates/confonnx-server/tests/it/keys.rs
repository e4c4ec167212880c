//! Key epochs over the wire.

use confonnx_client::Options;
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
    let current = || server.keys.published().claims[0].key_id;
    let accepted = || server.keys.published().claims.iter().any(|claim| claim.key_id == id);
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
    // A slow machine may skip an answer in between, but never goes back.
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
    server
        .keys
        .ring()
        .rotate(confonnx_protocol::EpochSecret::new([3; 32]), confonnx_server::clock::now())
        .unwrap();
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
