//! The key epochs: fresh secrets from the system's generator, and the ring that opens requests with them.

use std::sync::{Arc, PoisonError, RwLock, atomic::Ordering::Relaxed};
use std::time::Duration;

use confonnx_attest::{KeyClaim, UnixTime};
use confonnx_protocol::{
    EpochSecret,
    server::{KeyRing, RingConfig, RingError},
};
use getrandom::{SysRng, rand_core::UnwrapErr};
use tracing::{error, info};
use zeroize::Zeroizing;

use crate::{
    clock,
    config::{Config, KeyTimes},
    metrics::Metrics,
};

/// How far the `date` of a request may be from the server's clock (`docs/protocol.md`, section 4).
pub const DATE_WINDOW: Duration = Duration::from_secs(300);

/// The ring and what drives it.
pub struct Keys {
    ring: KeyRing,
    times: KeyTimes,
    metrics: Arc<Metrics>,
    /// Held while keys change, so that [`published`](Self::published) never mixes two states.
    changing: RwLock<()>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The system gives no randomness.
    #[error("no random bytes from the system: {0}")]
    Random(#[from] getrandom::Error),
    /// The ring refuses the settings or the secret.
    #[error("no keys: {0}")]
    Ring(#[from] RingError),
}

/// What a document says of the keys; both parts of one state.
pub struct Published {
    /// `application/ohttp-keys`
    pub configs: Vec<u8>,
    /// One for each key config, in the same order.
    pub claims: Vec<KeyClaim>,
}

impl Keys {
    /// Makes the first epoch's keys.
    ///
    /// # Errors
    /// See [`KeysError`].
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Self, KeysError> {
        let ring_config = RingConfig {
            rollover: config.keys.rollover,
            grace: config.keys.grace,
            date_window: DATE_WINDOW,
            replay_capacity: config.replay_capacity,
            sessions: config.resumption,
        };
        // A random first id: after a restart, old key ids are unknown rather than somebody else's.
        let mut first_key_id = [0];
        getrandom::fill(&mut first_key_id)?;
        let ring = KeyRing::new(ring_config, fresh_secret()?, first_key_id[0], clock::now())?;
        metrics.epochs.fetch_add(1, Relaxed);
        Ok(Self { ring, times: config.keys, metrics, changing: RwLock::new(()) })
    }

    /// The ring, to open requests with.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// The keys that can be sealed to now.
    pub fn published(&self) -> Published {
        let _unchanged = self.changing.read().unwrap_or_else(PoisonError::into_inner);
        let claim = |key: confonnx_protocol::server::KeyInfo| KeyClaim {
            key_id: key.key_id,
            kem: key.kem.name().into(),
            not_before: key.not_before,
            not_after: key.not_after,
            accepted_until: key.accepted_until,
        };
        Published {
            configs: self.ring.key_configs(),
            claims: self.ring.keys().into_iter().map(claim).collect(),
        }
    }

    /// Begins and ends epochs when it is time, for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            let now = clock::now();
            let wait = self.ring.next_change(now).0.saturating_sub(now.0);
            // The host may move its clock: look again before long.
            tokio::time::sleep(Duration::from_secs(wait.clamp(1, 60))).await;
            if let Err(err) = self.tick(clock::now()) {
                let retry = self.times.error_retry;
                error!("the next keys could not be made: {err}; next attempt in {} s", retry.as_secs());
                tokio::time::sleep(retry).await;
            }
        }
    }

    /// Does what is due at `now`.
    fn tick(&self, now: UnixTime) -> Result<(), KeysError> {
        let _alone = self.changing.write().unwrap_or_else(PoisonError::into_inner);
        if self.ring.keys().first().is_none_or(|current| current.not_after <= now) {
            self.ring.rotate(fresh_secret()?, now)?;
            self.metrics.epochs.fetch_add(1, Relaxed);
            let ids: Vec<_> = self.ring.keys().iter().map(|key| key.key_id).collect();
            info!(?ids, "a new key epoch began");
        }
        self.ring.retire(now);
        Ok(())
    }
}

fn fresh_secret() -> Result<EpochSecret, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice())?;
    Ok(EpochSecret::new(*bytes))
}

/// The system's generator, for sealing.
pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}
