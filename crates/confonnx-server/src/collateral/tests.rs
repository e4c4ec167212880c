//! The whole of fetching, against a service on this machine that misbehaves as it is told.

mod evidence;
mod service;

use std::{collections::BTreeSet, path::Path};

use super::*;
use evidence::{evidence, stapled};
use service::{Mode, Service};

/// When the tests take place: the certificates they use are valid, and one list has expired.
fn now() -> UnixTime {
    UnixTime(1_795_000_000)
}

fn pace() -> Pace {
    Pace {
        now,
        timeout: Duration::from_millis(500),
        first_retry: Duration::from_millis(5),
        longest_retry: Duration::from_millis(40),
        longest_refresh: Duration::from_secs(3600),
    }
}

struct Under {
    collateral: Arc<Collateral>,
    metrics: Arc<Metrics>,
    task: tokio::task::JoinHandle<()>,
}

fn start(url: &str, cache: Option<&Path>, pace: Pace) -> Under {
    let bases = Bases { amd: Some(url.into()), intel: Some(url.into()) };
    let config = CollateralConfig { bases, cache: cache.map(Into::into) };
    let metrics = Arc::new(Metrics::default());
    let collateral = Arc::new(Collateral::with_pace(&config, pace, Arc::clone(&metrics)).unwrap());
    let task = tokio::spawn(Arc::clone(&collateral).run());
    Under { collateral, metrics, task }
}

impl Under {
    /// Names of what is stapled to evidence of the firmware's `level`.
    fn staple(&self, level: u8) -> BTreeSet<String> {
        let mut evidence = evidence(level);
        self.collateral.staple(&mut evidence);
        stapled(&evidence)
    }

    /// Waits until the state is such.
    async fn until(&self, condition: impl Fn(CollateralState) -> bool) {
        let wait = async {
            while !condition(self.metrics.collateral.state()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let state = || self.metrics.collateral.state();
        tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{:?}", state()));
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn all() -> BTreeSet<String> {
    ["crl", "vcek"].map(String::from).into()
}

fn none() -> BTreeSet<String> {
    BTreeSet::new()
}

fn complete(state: CollateralState) -> bool {
    state.needed == 2 && state.missing == 0 && state.stale == 0
}

#[tokio::test]
async fn a_quote_gets_intels_collateral_from_a_caching_service() {
    let service = Service::start().await;
    service.set(Mode::Intel);
    // The time when this collateral was valid.
    let then = Pace { now: || UnixTime(1_791_421_786), ..pace() };
    let under = start(&service.url, None, then);
    let mut quote = evidence::quote();
    under.collateral.staple(&mut quote);
    assert_eq!(stapled(&quote), none());
    under.until(|state| state.needed == 4 && state.missing == 0 && state.stale == 0).await;
    assert_eq!(service.asked().len(), 4, "{:?}", service.asked());
    let mut quote = evidence::quote();
    under.collateral.staple(&mut quote);
    let (found, expected) = (evidence::endorsement(&quote, "collateral"), evidence::quote_collateral());
    for member in ["tcb_info", "tcb_info_signature", "qe_identity", "pck_crl", "root_ca_crl"] {
        assert_eq!(found[member], expected[member], "{member}");
    }
}

#[tokio::test]
async fn what_evidence_needs_is_fetched_and_stapled() {
    let service = Service::start().await;
    let server = start(&service.url, None, pace());
    assert_eq!(server.staple(0), none(), "nothing is there yet");
    let before = server.collateral.version();
    server.collateral.settled(Duration::from_secs(60)).await;
    server.until(complete).await;
    assert_eq!(server.staple(0), all());
    assert!(server.collateral.version() > before);
    let asked = service.asked();
    assert_eq!(asked.len(), 2, "each once: {asked:?}");
    assert!(
        asked.iter().any(|path| path.contains("blSPL=")) && asked.iter().any(|path| path.ends_with("/crl"))
    );

    let page = server.metrics.render(&[]);
    for line in [
        "confonnx_collateral_fetches_total{vendor=\"amd\"} 2",
        "confonnx_collateral_needed 2",
        "confonnx_collateral_missing 0",
        "confonnx_collateral_stale 0",
        "confonnx_collateral_fetched_timestamp_seconds 1795000000",
        "confonnx_collateral_expiry_timestamp_seconds 1803647040",
    ] {
        assert!(page.lines().any(|found| found == line), "no {line:?} in\n{page}");
    }
}

#[tokio::test]
async fn every_failure_is_counted_logged_and_overcome() {
    for (mode, reason) in [
        (Mode::Status(429, Some("0")), "rate-limited"),
        (Mode::Status(429, Some("86400")), "rate-limited"),
        (Mode::Status(500, None), "status"),
        (Mode::Status(503, Some("Mon, 23 Nov 2026 12:00:00 GMT")), "status"),
        (Mode::Status(404, None), "status"),
        (Mode::Status(302, None), "status"),
        (Mode::Status(204, None), "status"),
        (Mode::Silent, "timeout"),
        (Mode::Dripping, "timeout"),
        (Mode::Truncated, "truncated"),
        (Mode::Endless, "too-large"),
        (Mode::SignIn, "malformed"),
        (Mode::Swapped, "malformed"),
        (Mode::Reset, "unreachable"),
    ] {
        let service = Service::start().await;
        service.set(mode);
        let server = start(&service.url, None, pace());
        server.staple(0);
        // Settled means tried, which is when the port begins to serve.
        server.collateral.settled(Duration::from_secs(60)).await;
        server.until(|_| server.metrics.collateral.failures(reason) >= 3).await;
        assert_eq!(server.staple(0), none(), "{mode:?}");
        assert_eq!(server.metrics.collateral.state().missing, 2, "{mode:?}");
        service.set(Mode::Good);
        server.until(complete).await;
        assert_eq!(server.staple(0), all(), "{mode:?}");
    }
}

#[tokio::test]
async fn the_last_good_answers_serve_while_the_service_is_down() {
    let service = Service::start().await;
    let eager = Pace { longest_refresh: Duration::from_millis(10), ..pace() };
    let server = start(&service.url, None, eager);
    server.staple(0);
    server.until(complete).await;
    for mode in [Mode::Status(500, None), Mode::SignIn, Mode::Swapped, Mode::Outdated, Mode::Reset] {
        service.set(mode);
        // The outdated list is no match for the one at hand; the certificate beside it is as good as ever.
        let stale = if mode == Mode::Outdated { 1 } else { 2 };
        server.until(|state| state.stale == stale && state.missing == 0).await;
        assert_eq!(server.staple(0), all(), "{mode:?}");
        service.set(Mode::Good);
        server.until(complete).await;
    }
}

#[tokio::test]
async fn an_expired_answer_is_better_than_none_and_said_to_be_expired() {
    let service = Service::start().await;
    service.set(Mode::Outdated);
    let server = start(&service.url, None, pace());
    server.staple(0);
    server.until(|state| (state.missing, state.stale) == (1, 1)).await;
    assert!(server.metrics.collateral.failures("stale") > 0);
    assert_eq!(server.staple(0), all(), "clients see what is wrong with it");
    service.set(Mode::Good);
    server.until(complete).await;
}

#[tokio::test]
async fn a_restart_needs_no_service() {
    let cache = tempfile::tempdir().unwrap();
    let service = Service::start().await;
    let server = start(&service.url, Some(cache.path()), pace());
    server.staple(0);
    server.until(complete).await;
    // Written after they are stapled.
    while std::fs::read_dir(cache.path()).unwrap().filter(is_kept).count() < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(server);

    service.set(Mode::Reset);
    let server = start(&service.url, Some(cache.path()), pace());
    assert_eq!(server.staple(0), all(), "at once");
    assert!(complete(server.metrics.collateral.state()));
    server.collateral.settled(Duration::ZERO).await;
    drop(server);

    // A damaged file is as good as none; so is one that holds something else.
    let files: Vec<_> = std::fs::read_dir(cache.path()).unwrap().map(|file| file.unwrap().path()).collect();
    let [one, other] = &files[..] else { panic!("{files:?}") };
    std::fs::write(one, b"{").unwrap();
    let text = std::fs::read_to_string(other).unwrap();
    let mut stored: serde_json::Value = serde_json::from_str(&text).unwrap();
    stored["body"] = "bm90aGluZw==".into();
    std::fs::write(other, stored.to_string()).unwrap();
    service.set(Mode::Good);
    let server = start(&service.url, Some(cache.path()), pace());
    assert_eq!(server.staple(0), none());
    server.until(complete).await;
    assert_eq!(server.staple(0), all());
}

fn is_kept(file: &std::io::Result<std::fs::DirEntry>) -> bool {
    file.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "json")
}

#[tokio::test]
async fn new_firmware_needs_new_certificates_and_only_those() {
    let service = Service::start().await;
    let server = start(&service.url, None, pace());
    server.staple(0);
    server.until(complete).await;
    assert_eq!(server.staple(1), ["crl".to_owned()].into(), "not the certificate of the old firmware");
    server.until(complete).await;
    assert_eq!(server.staple(1), all());
    let asked = service.asked();
    assert_eq!(asked.iter().filter(|path| path.ends_with("/crl")).count(), 1, "{asked:?}");
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 3, "{asked:?}");
}

#[tokio::test]
async fn evidence_that_needs_nothing_gets_nothing() {
    let server = start("http://127.0.0.1:9", None, pace());
    let mut evidence = Evidence::parse("insecure", &evidence::insecure(), &serde_json::Map::new()).unwrap();
    let before = evidence.clone();
    server.collateral.staple(&mut evidence);
    server.collateral.settled(Duration::ZERO).await;
    assert_eq!(evidence, before);
    assert_eq!(server.metrics.collateral.state(), CollateralState::default());
}
