//! A page for people: what was verified, and what is going on.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    Proxy, Upstream,
    answer::{Answer, JSON, refusal, with_body},
    stats::BOUNDS_MS,
};

/// What is at a path below `/ui`.
pub(crate) fn answer(proxy: &Proxy, path: &str) -> Answer {
    let (media, body) = match path {
        "" | "/" => ("text/html; charset=utf-8", PAGE.to_owned()),
        "/page.css" => ("text/css; charset=utf-8", STYLE.to_owned()),
        "/page.js" => ("text/javascript; charset=utf-8", SCRIPT.to_owned()),
        "/status.json" => (JSON, status(proxy).to_string()),
        _ => return refusal(StatusCode::NOT_FOUND, "expected /ui or /ui/status.json"),
    };
    let mut answer = with_body(StatusCode::OK, media, body);
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// The page loads nothing from elsewhere, and no page shows it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const PAGE: &str = include_str!("ui/page.html");
const STYLE: &str = include_str!("ui/page.css");
const SCRIPT: &str = include_str!("ui/page.js");

fn status(proxy: &Proxy) -> Value {
    let models = proxy.stats.all().into_iter().map(|((name, version), counts)| {
        let ((success, success_ns), (fail, _)) = (counts.success.get(), counts.fail.get());
        json!({
            "name": name,
            "version": version,
            "success": success,
            "success_ns": success_ns,
            "fail": fail,
            "pending": counts.pending.load(Relaxed),
            "buckets": counts.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect::<Vec<_>>(),
        })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "now": unix(SystemTime::now()),
        "started": unix(proxy.started),
        "bounds_ms": BOUNDS_MS,
        "models": models.collect::<Vec<_>>(),
        "servers": proxy.upstreams.iter().map(server).collect::<Vec<_>>(),
    })
}

fn server(upstream: &Upstream) -> Value {
    let proof = upstream.client.proof();
    let fault = upstream.last_fault().map(|(time, fault)| {
        json!({ "at": unix(time), "kind": fault.kind.name(), "text": fault.text, "checks": fault.checks })
    });
    let faults = upstream.faults().filter(|(_, count)| *count > 0);
    let faults = faults.map(|(kind, count)| (kind.name().to_owned(), count.into()));
    let evidence = proof.map(|proof| {
        let claims = proof.claims();
        let keys = claims.keys.iter().map(|key| {
            json!({
                "id": key.key_id,
                "kem": key.kem,
                "not_before": key.not_before.0,
                "not_after": key.not_after.0,
                "accepted_until": key.accepted_until.0,
            })
        });
        let models = claims
            .models
            .iter()
            .map(|model| json!({ "name": model.name, "version": model.version, "sha256": model.sha256 }));
        json!({
            "tee": proof.tee().name(),
            "enclave_hash": proof.enclave_hash(),
            "issued_at": claims.issued_at.0,
            "build": claims.build.version,
            "runtime": format!("{} {}", claims.runtime.name, claims.runtime.version),
            "keys": keys.collect::<Vec<_>>(),
            "models": models.collect::<Vec<_>>(),
            "checks": proof.verdict().checks,
        })
    });
    json!({
        "name": upstream.name,
        "url": upstream.client.url(),
        "evidence": evidence,
        "fault": fault,
        "faults": Value::Object(faults.collect()),
        "rollovers": upstream.client.key_rollover_count(),
        "unknown_keys": upstream.client.key_invalid_count(),
        "key_outdated": upstream.client.key_outdated(),
    })
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
