//! Starting, stopping, and what the operator sees.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::harness::*;
use bytes::Bytes;
use confonnx_attest::{Digest, produce::Attester};
use confonnx_protocol::Kem;
use confonnx_server::{
    admin,
    models::{LoadError, OpenError},
    server::{Parts, Server, StartError},
};
use hyper::Request;

#[tokio::test]
async fn what_was_received_is_finished_and_nothing_new_is_taken() {
    let server = start("count").await;
    let key = server.key(Kem::X25519).await;
    let (sealed, opener) = seal(&key, &head("POST", "/v2/models/count/infer"), count_to(LONG).as_bytes());
    let answer = server.post(SEALED, sealed);
    tokio::pin!(answer);
    tokio::select! {
        _ = &mut answer => panic!("answered too soon to see anything"),
        () = until(|| server.app.metrics().load.in_flight.load(Relaxed) == 1) => {}
    }
    server.stop.send_replace(true);
    until(|| server.app.is_draining()).await;
    let refused = server.post(SEALED, seal(&key, &head("GET", "/v2"), b"").0).await;
    assert_eq!((refused.status().as_u16(), code(&refused)), (503, "shutting-down".to_owned()));
    assert_eq!(
        Answer::open(answer.await, opener).json()["outputs"][0]["data"],
        serde_json::json!([LONG as f64])
    );
    server.stopped().await;
}

#[tokio::test]
async fn an_idle_server_stops_at_once_with_connections_open() {
    let server = start("mlp").await;
    let stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    until(|| server.app.metrics().connections.load(Relaxed) == 1).await;
    server.stop.send_replace(true);
    server.stopped().await;
    drop(stream);
    tokio::net::TcpStream::connect(server.address).await.unwrap_err();
}

#[tokio::test]
async fn what_takes_too_long_is_dropped() {
    let mut config = config("count", |_| {});
    config.shutdown_grace = Duration::from_millis(50);
    let server = start_with(config).await;
    let key = server.key(Kem::X25519).await;
    let (sealed, _) = seal(&key, &head("POST", "/v2/models/count/infer"), count_to(4 * LONG).as_bytes());
    let address = server.address;
    tokio::spawn(async move {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let body = http_body_util::Full::new(Bytes::from(sealed));
        let request =
            Request::post(GATEWAY).header("host", "x").header("content-type", SEALED).body(body).unwrap();
        let _ = sender.send_request(request).await;
    });
    until(|| server.app.metrics().load.in_flight.load(Relaxed) == 1).await;
    server.stop.send_replace(true);
    server.stopped().await;
    assert_eq!(
        server.app.metrics().load.in_flight.load(Relaxed),
        1,
        "the request ended by itself; make it longer"
    );
}

#[tokio::test]
async fn the_operator_sees_counts_and_health() {
    let server = start_with(config("mlp", |settings| settings.admin_port = Some(free_port()))).await;
    let body = r#"{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}"#;
    server.ask(&head("POST", "/v2/models/mlp/infer"), body.as_bytes()).await;
    server.post(SEALED, Bytes::from_static(b"junk")).await;

    let page = |path: &str| admin::answer(&Request::get(path).body(()).unwrap(), &server.app);
    assert_eq!(page("/health/ready").status(), 200);
    assert_eq!(page("/nowhere").status(), 404);
    let metrics = server.app.metrics_page();
    for line in [
        "confonnx_requests_total{outcome=\"ok\"} 2",
        "confonnx_requests_total{outcome=\"request-invalid\"} 1",
        "confonnx_quotes_total 2",
        "confonnx_key_epochs_total 1",
        "confonnx_in_flight 0",
        "confonnx_stage_seconds_count{stage=\"infer\"} 1",
        // A long answer is no reason to look no further.
        "confonnx_stage_seconds_bucket{stage=\"infer\",le=\"600\"} 1",
        "confonnx_model_ready{model=\"mlp\",version=\"1\"} 1",
        concat!("confonnx_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let value = |name: &str| -> u64 {
        let of = |line: &str| line.strip_prefix(name).and_then(|rest| rest.trim().parse().ok());
        metrics.lines().find_map(of).unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
    };
    let day = 86_400;
    assert!((now..=now + day).contains(&value("confonnx_key_expiry_timestamp_seconds")), "{metrics}");
    assert!((now - day..=now).contains(&value("confonnx_evidence_timestamp_seconds")), "{metrics}");
    // The admin port gives the same metrics, and no other port does.
    let url = server.admin.unwrap();
    let stream = tokio::net::TcpStream::connect(url).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request =
        Request::get("/metrics").header("host", "x").body(http_body_util::Empty::<Bytes>::new()).unwrap();
    assert!(whole(sender.send_request(request).await.unwrap()).await.body().starts_with(b"# HELP confonnx_"));

    server.app.drain();
    assert_eq!(page("/health/ready").status(), 503);
    assert_eq!(page("/health/live").status(), 200);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_flag_to_change_it() {
    let first = start("mlp").await;
    let config = config("mlp", |settings| settings.http_port = Some(first.address.port()));
    let parts = Parts::load(&config, Attester::insecure(Digest([7; 32])), engine()).unwrap();
    let Err(error) = Server::assemble(config, parts).await else { panic!("both listen") };
    assert!(error.to_string().contains("--http-port"), "{error}");
}

#[test]
fn models_that_cannot_be_served() {
    let dir = tempfile::tempdir().unwrap();
    let load = |path: std::path::PathBuf| {
        let config = config("mlp", |settings| settings.model_path = Some(path));
        match Parts::load(&config, Attester::insecure(Digest([7; 32])), engine()) {
            Err(StartError::Models(OpenError::Model { path, source })) => (path, source),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("loaded"),
        }
    };
    assert!(matches!(load(dir.path().join("absent.onnx")).1, LoadError::Read { .. }));
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    assert!(matches!(load(dir.path().join("folder")).1, LoadError::Folder));

    let whole = std::fs::read(model("mlp")).unwrap();
    let truncated = dir.path().join("truncated.onnx");
    for end in [0, 10, whole.len() / 2, whole.len() - 10] {
        std::fs::write(&truncated, &whole[..end]).unwrap();
        let (path, error) = load(truncated.clone());
        assert!(matches!(error, LoadError::Model(_) | LoadError::Engine(_)), "{error}");
        assert_eq!(path, truncated);
    }
    assert!(load(model("unknown_op")).1.to_string().contains("Frobnicate"));
    // External data that is missing, or that is a link out of the model's folder.
    let external = dir.path().join("external.onnx");
    std::fs::copy(model("external"), &external).unwrap();
    assert!(matches!(load(external.clone()).1, LoadError::Read { .. }));
    std::os::unix::fs::symlink(
        model("external").with_file_name("external.bin"),
        dir.path().join("external.bin"),
    )
    .unwrap();
    assert!(matches!(load(external).1, LoadError::Outside { .. }));
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn counters_tell_what_is_inside_the_seal_only_if_the_claims_say_so() {
    for told in [false, true] {
        let server = start_with(config("mlp", |settings| settings.request_metrics = Some(told))).await;
        assert_eq!(server.keys.published().claims.settings["request_metrics"], told);
        let answer = server.ask(&head("GET", "/v2/models/other"), b"").await;
        assert_eq!(answer.error(), (404, "model-not-found".to_owned()));
        let page = server.app.metrics_page();
        assert_eq!(page.contains("outcome=\"model-not-found\""), told, "{page}");
        assert_eq!(server.ask(&head("POST", "/v2/models/mlp/infer"), b"no tensors").await.head.status, 400);
        let page = server.app.metrics_page();
        assert_eq!(page.contains("model_requests_total{model=\"mlp\",version=\"1\"}"), told, "{page}");
    }
}
