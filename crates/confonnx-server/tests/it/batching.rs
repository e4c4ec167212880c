//! Requests that are batched, over sockets.

use std::sync::Arc;

use super::harness::*;
use confonnx_protocol::Kem;
use serde_json::{Value, json};
use tokio::task::JoinSet;

fn request(seed: u64, rows: u64) -> (String, Value) {
    let value = |index: u64| ((seed * 37 + index * 11) % 101) as f64 / 64.0;
    let data: Vec<f64> = (0..rows * 36).map(value).collect();
    let shape = json!([rows, 1, 6, 6]);
    let inputs = json!([{ "name": "x", "shape": shape, "datatype": "FP32", "data": data }]);
    (json!({ "inputs": inputs }).to_string(), shape)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_do_not_depend_on_who_else_asks() {
    let alone = start("rows").await;
    let together = start_with(config("rows_stated", |settings| {
        settings.model_name = Some("rows".into());
        (settings.max_batch_size, settings.max_batch_delay) = (Some(8), Some(2_000));
    }))
    .await;
    let together = Arc::new(together);
    let host = start_with(config("rows", |settings| settings.max_batch_size = Some(8))).await;
    for (server, batching) in [(&alone, None), (&together, Some(8)), (&host, None)] {
        // The host's setting alone lets no model batch.
        assert_eq!(server.attest().await.claims().models[0].batching, batching);
    }
    let (one, other) = (alone.key(Kem::X25519).await, together.key(Kem::X25519).await);
    let path = head("POST", "/v2/models/rows/infer");
    let counted = |server: &Running| {
        let page = server.app.metrics_page();
        let line = page.lines().find_map(|line| {
            line.strip_prefix("confonnx_batched_requests_total{model=\"rows\",version=\"1\"} ")
        });
        line.map(|n| n.parse::<u64>().unwrap())
    };
    for round in (0_u64..400).take_while(|round| *round < 8 || counted(&together) == Some(0)) {
        // One of the requests does not fit the model.
        let bodies: Vec<String> = (0..12_u64)
            .map(|seed| match seed {
                5 => r#"{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}"#.into(),
                _ => request(seed + 100 * round, 1 + seed % 2).0,
            })
            .collect();
        let mut asking = JoinSet::new();
        for (index, body) in bodies.iter().enumerate() {
            let ((sealed, opener), together) = (seal(&other, &path, body.as_bytes()), Arc::clone(&together));
            asking.spawn(async move { (index, Answer::open(together.post(SEALED, sealed).await, opener)) });
        }
        for (index, answer) in asking.join_all().await {
            let body = &bodies[index];
            let (sealed, opener) = seal(&one, &path, body.as_bytes());
            let expected = Answer::open(alone.post(SEALED, sealed).await, opener);
            assert_eq!(answer.head.status, expected.head.status);
            assert_eq!(answer.json()["outputs"], expected.json()["outputs"]);
        }
    }
    assert!(counted(&together) > Some(0), "{}", together.app.metrics_page());
    assert_eq!(counted(&alone), None, "its model is not batched");
}
