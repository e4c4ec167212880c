//! Brings the epochs of a source into the ring, in time.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use confonnx_attest::UnixTime;
use confonnx_protocol::server::RingError;
use tokio::time::{Instant, timeout};
use tracing::{error, info};

use super::{
    Keys, is_recent,
    provider::{KeyProvider, ProviderError},
};
use crate::{clock::Later, config::KeyTimes, metrics::Metrics};

/// Asks a source for epochs: at the start, before an epoch ends, again after an error, and when a client has a key that is
/// not known.
pub struct Driver {
    keys: Arc<Keys>,
    provider: Arc<dyn KeyProvider>,
    times: KeyTimes,
    metrics: Arc<Metrics>,
}

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The source gives none.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The ring does not take the keys.
    #[error(transparent)]
    Ring(#[from] RingError),
}

impl Driver {
    /// A driver that has not asked the source yet.
    pub fn new(
        keys: Arc<Keys>,
        provider: Arc<dyn KeyProvider>,
        times: KeyTimes,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { keys, provider, times, metrics }
    }

    /// Asks for the epochs that matter now: the current one, the one before while it is accepted, and the next one when it
    /// begins within the sync interval.
    ///
    /// # Errors
    /// [`RefreshError`]; what was installed stays.
    pub async fn refresh(&self) -> Result<(), RefreshError> {
        let now = self.now();
        let current = self.provider.epoch(now).await?;
        let (begins, ends) = (current.not_before, current.not_after);
        self.keys.install(current, self.provider.claim(), now)?;
        if begins.0.saturating_add(self.times.grace.as_secs()) > now.0 {
            let before = self.provider.epoch(UnixTime(begins.0.saturating_sub(1))).await?;
            self.keys.install(before, self.provider.claim(), now)?;
        }
        if ends.0.saturating_sub(now.0) <= self.times.sync.as_secs() {
            let next = self.provider.epoch(ends).await?;
            self.keys.install(next, self.provider.claim(), now)?;
        }
        self.keys.retire(now);
        Ok(())
    }

    /// Asks for the first epochs. When that fails it is said, and tried again by [`run`](Self::run).
    pub async fn begin(&self) {
        self.attempt(false).await;
    }

    /// Keeps the keys up to date, for ever.
    pub async fn run(self) {
        let mut next_sync = Instant::now().later(self.times.sync);
        loop {
            if self.is_due() && !self.attempt(false).await {
                // The keys that there are stay as long as they are accepted.
                self.pause(self.times.error_retry).await;
                continue;
            }
            let wanted = timeout(self.next_look(next_sync), self.keys.wanted.notified()).await.is_ok();
            self.keys.retire(self.now());
            let mut begun = None;
            let rested = !is_recent(*self.keys.caught_up.borrow());
            let due = Instant::now() >= next_sync;
            if due || wanted && rested {
                begun = Some(Instant::now());
                next_sync = Instant::now().later(self.times.sync);
                if !self.attempt(true).await {
                    next_sync = Instant::now().later(self.times.error_retry);
                }
            }
            if wanted || begun.is_some() {
                self.caught_up(begun);
            }
        }
    }

    /// Whoever waits need not any more: the source was looked at, last at `begun` if it was now.
    fn caught_up(&self, begun: Option<Instant>) {
        self.keys.caught_up.send_modify(|last| *last = begun.or(*last));
    }

    /// Refreshes, after a look at the source if wanted; whether that worked.
    async fn attempt(&self, sync: bool) -> bool {
        let result = async {
            if sync {
                self.provider.sync().await?;
            }
            self.refresh().await
        };
        match result.await {
            Ok(()) => {
                if let Some(trouble) = self.keys.set_trouble(None) {
                    info!("keys are up to date again, after: {trouble}");
                }
                true
            }
            Err(err) => {
                self.metrics.key_errors.fetch_add(1, Relaxed);
                let retry = self.times.error_retry.as_secs();
                error!("no new keys: {err}; next attempt in {retry} s");
                self.keys.set_trouble(Some(err.to_string()));
                false
            }
        }
    }

    /// Waits; keys expire meanwhile, and nobody waits for this.
    async fn pause(&self, length: Duration) {
        let end = Instant::now().later(length);
        while Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            let wanted = timeout(left.min(LONGEST), self.keys.wanted.notified()).await.is_ok();
            self.keys.retire(self.now());
            if wanted {
                self.caught_up(Some(Instant::now()));
            }
        }
    }

    /// Whether the current epoch or the next one is missing.
    fn is_due(&self) -> bool {
        let now = self.now();
        match (self.keys.ring().current(), self.keys.ring().newest()) {
            (Some(current), Some(newest)) if newest.number == current.number => {
                current.not_after.0.saturating_sub(now.0) <= self.times.sync.as_secs()
            }
            (Some(current), Some(_)) => current.not_after <= now,
            _ => true,
        }
    }

    /// How long nothing is due. The host may move its clock, so never long.
    fn next_look(&self, next_sync: Instant) -> Duration {
        let now = self.now();
        let ring = self.keys.ring();
        let ask = ring.newest().map(|newest| newest.not_after.0.saturating_sub(self.times.sync.as_secs()));
        let next = [ask, ring.next_expiry().map(|expiry| expiry.0)].into_iter().flatten().min();
        let wait = Duration::from_secs(next.unwrap_or_default().saturating_sub(now.0));
        wait.min(next_sync.saturating_duration_since(Instant::now())).clamp(SHORTEST, LONGEST)
    }

    /// Now, by a clock that never runs backwards.
    fn now(&self) -> UnixTime {
        self.keys.now()
    }
}

const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(60);
