//! What a browser needs so that pages of other origins may ask.

use bytes::Bytes;
use hyper::Request;

use super::harness::*;

const GATEWAY: &str = "/.well-known/ohttp-gateway";
const ATTESTATION: &str = "/.well-known/confonnx/attestation";

fn preflight(path: &str, origin: &str, method: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method("OPTIONS")
        .uri(path)
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "content-type")
}

#[tokio::test]
async fn pages_that_are_named_may_ask_and_read() {
    let named = |settings: &mut confonnx_server::config::Settings| {
        settings.cors_origin = Some("https://app.example, http://localhost:3000".into());
    };
    let server = start_with(config("mlp", named)).await;
    for (path, method) in [(GATEWAY, "POST"), (ATTESTATION, "GET")] {
        let answer = server.send(preflight(path, "https://app.example", method), Bytes::new()).await;
        assert_eq!(answer.status(), 204, "{path}");
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("access-control-allow-origin"), "https://app.example");
        assert_eq!(header("access-control-allow-methods"), method);
        assert!(header("access-control-allow-headers").contains("content-type"));
        assert_eq!(header("vary"), "origin");
    }
    // Pages can read problems, too, whose code decides what the client does next.
    let request = Request::post(GATEWAY)
        .header("origin", "http://localhost:3000")
        .header("content-type", "message/ohttp-req");
    let refused = server.send(request, Bytes::from_static(b"\xff")).await;
    assert_eq!(code(&refused), "request-invalid");
    assert_eq!(refused.headers()["access-control-allow-origin"], "http://localhost:3000");
    assert!(refused.headers()["access-control-expose-headers"].to_str().unwrap().contains("retry-after"));

    let other = server.send(preflight(GATEWAY, "https://evil.example", "POST"), Bytes::new()).await;
    assert_eq!(other.status(), 405);
    assert!(!other.headers().contains_key("access-control-allow-origin"));
    let elsewhere = server.send(preflight("/", "https://app.example", "GET"), Bytes::new()).await;
    assert_eq!(elsewhere.status(), 405);
}

#[tokio::test]
async fn by_default_no_page_may() {
    let server = start("mlp").await;
    let answer = server.send(preflight(GATEWAY, "https://app.example", "POST"), Bytes::new()).await;
    assert_eq!(answer.status(), 405);
    let request = Request::get(ATTESTATION).header("origin", "https://app.example");
    let answer = server.send(request, Bytes::new()).await;
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    assert!(!answer.headers().contains_key("vary"));
}
