//! Key providers as somebody outside writes them: only what docs/guides/keys.md names is used.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use confonnx_attest::{Claims, KeySource, UnixTime};
use confonnx_protocol::{EpochSecret, server::Epoch};
use confonnx_server::{
    clock,
    keys::{
        Keys,
        driver::Driver,
        provider::{BoxFuture, KeyProvider, ProviderError},
    },
    metrics::Metrics,
};

use super::harness::*;

/// A provider that makes hourly epochs from one secret by the calendar, unless it is down.
struct Scripted {
    down: AtomicBool,
    syncs: AtomicU64,
    /// The 32nd byte of every epoch's secret.
    root: AtomicU64,
}

impl KeyProvider for Scripted {
    fn claim(&self) -> KeySource {
        KeySource { kind: "scripted".into(), ..KeySource::default() }
    }

    fn epoch(&self, at: UnixTime) -> BoxFuture<'_, Result<Epoch, ProviderError>> {
        Box::pin(async move {
            if self.down.load(Relaxed) {
                return Err(ProviderError::new("the source is down"));
            }
            let number = at.0 / 3600;
            let mut secret = [self.root.load(Relaxed) as u8; 32];
            secret[..8].copy_from_slice(&number.to_be_bytes());
            let times = [number, number + 1].map(|number| UnixTime(number * 3600));
            let [not_before, not_after] = times;
            Ok(Epoch { number, secret: EpochSecret::new(secret), not_before, not_after })
        })
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), ProviderError>> {
        self.syncs.fetch_add(1, Relaxed);
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Driven {
    keys: Arc<Keys>,
    source: Arc<Scripted>,
    metrics: Arc<Metrics>,
}

impl Driven {
    fn start(down: bool, error_retry: u64) -> Self {
        let config = config("mlp", |settings| {
            settings.key_rollover_interval = Some(3600);
            settings.key_grace = Some(3600);
            settings.key_error_retry_interval = Some(error_retry);
        });
        let metrics = Arc::new(Metrics::default());
        let claims = Claims::example(UnixTime(0));
        let keys = Arc::new(Keys::new(&config, Arc::default(), claims, Arc::clone(&metrics)).unwrap());
        let source =
            Arc::new(Scripted { down: down.into(), syncs: AtomicU64::new(0), root: AtomicU64::new(1) });
        let driver =
            Driver::new(Arc::clone(&keys), Arc::clone(&source) as _, config.keys, Arc::clone(&metrics));
        tokio::spawn(driver.run());
        Self { keys, source, metrics }
    }

    fn numbers(&self) -> Vec<u64> {
        let claims = self.keys.published().claims;
        claims.keys.chunks(3).map(|keys| keys[0].not_before.0 / 3600).collect()
    }
}

#[tokio::test]
async fn the_epochs_that_replicas_accept_are_known_from_the_start() {
    let driven = Driven::start(false, 1);
    until(|| driven.keys.are_there()).await;
    until(|| driven.numbers().len() == 2).await;
    let number = clock::now().0 / 3600;
    assert_eq!(driven.numbers(), [number, number - 1]);
    // The ring has the next epoch, too, though that is not published.
    until(|| driven.keys.ring().newest().unwrap().number == number + 1).await;
    assert_eq!(driven.keys.published().claims.key_source.kind, "scripted");
    assert_eq!(driven.keys.trouble(), None);
}

#[tokio::test]
async fn a_source_that_is_down_is_asked_again_and_the_reason_is_shown() {
    let driven = Driven::start(true, 1);
    until(|| driven.keys.trouble().is_some()).await;
    assert_eq!(driven.keys.trouble().unwrap(), "the source is down");
    assert!(!driven.keys.are_there() && driven.keys.published().configs.is_empty());
    driven.source.down.store(false, Relaxed);
    until(|| driven.keys.are_there()).await;
    until(|| driven.keys.trouble().is_none()).await;
    assert!(driven.metrics.key_errors.load(Relaxed) >= 1);
}

#[tokio::test]
async fn unknown_keys_make_the_server_look_at_the_source_once() {
    let driven = Driven::start(false, 1);
    until(|| driven.keys.are_there()).await;
    let configs = driven.keys.published().configs;
    driven.source.root.store(2, Relaxed);
    driven.keys.catch_up().await;
    assert_ne!(driven.keys.published().configs, configs, "the new secret counts at once");
    for _ in 0..20 {
        driven.keys.catch_up().await;
    }
    assert_eq!(driven.source.syncs.load(Relaxed), 1);
}

#[tokio::test]
async fn what_is_known_is_served_while_the_source_is_down() {
    let driven = Driven::start(false, 1);
    until(|| driven.keys.are_there()).await;
    driven.source.down.store(true, Relaxed);
    driven.keys.catch_up().await;
    until(|| driven.keys.trouble().is_some()).await;
    assert!(driven.keys.are_there());
    // Nobody waits for a provider that is known to be down.
    tokio::time::timeout(Duration::from_secs(4), driven.keys.catch_up()).await.unwrap();
}
