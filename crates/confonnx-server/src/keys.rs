//! What is served, and the keys that are bound to it: where they come from, and the ring that opens requests with them.
//!
//! Models change the claims, claims change the keys, both go into the documents: that is the only direction.

pub mod driver;
pub mod local;
pub mod provider;
pub mod released;

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, atomic::Ordering::Relaxed},
    time::Duration,
};

use confonnx_attest::{Claims, ClientAuth, KeyClaim, KeySource, UnixTime};
use confonnx_protocol::server::{Epoch, KeyInfo, KeyRing, RingConfig, RingError};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tracing::info;

use crate::{
    clock,
    config::Config,
    metrics::{Family, Metrics},
    models::Set,
};

/// How far the `date` of a request may be from the server's clock (`docs/protocol.md`, section 4).
pub const DATE_WINDOW: Duration = Duration::from_secs(300);

/// The ring, and what its keys are bound to.
pub struct Keys {
    ring: KeyRing,
    /// Changes together with the ring, while this is held.
    serving: RwLock<Serving>,
    metrics: Arc<Metrics>,
    /// Why there are no new keys, if the last attempt failed.
    trouble: Mutex<Option<String>>,
    /// Somebody has a key that is not known.
    wanted: Notify,
    /// When the source of keys was last looked at.
    caught_up: watch::Sender<Option<Instant>>,
}

/// The models that are served and the claims about them: one value, which is swapped whole.
struct Serving {
    set: Arc<Set>,
    /// The claims without time and keys; their models are those of the set.
    claims: Claims,
}

impl Serving {
    fn new(set: Arc<Set>, claims: Claims) -> Self {
        let claims = Claims { models: set.claims(), ..claims };
        Self { set, claims }
    }
}

/// The parts of a document, all of one state.
pub struct Published {
    /// `application/ohttp-keys`
    pub configs: Vec<u8>,
    /// The claims but for `issued_at`.
    pub claims: Claims,
}

/// For the counters: when the current key ends, if there is one.
pub fn expiry(not_after: Option<UnixTime>) -> Family {
    let ends = not_after.map(|time| (String::new(), time.0.to_string()));
    let help = "When the current key ends and another has to be there, in seconds of Unix time.";
    ("key_expiry_timestamp_seconds", "gauge", help, ends.into_iter().collect())
}

/// While it is held, neither what is served nor claims nor keys change.
pub struct Steady<'k>(RwLockReadGuard<'k, Serving>);

impl Steady<'_> {
    /// The models that are served.
    pub fn set(&self) -> Arc<Set> {
        Arc::clone(&self.0.set)
    }
}

impl Keys {
    /// Keys for `set` and `claims`, of which there are none yet. The claims' time, models and keys do not count.
    ///
    /// # Errors
    /// Settings that leave no keys.
    pub fn new(
        config: &Config,
        set: Arc<Set>,
        claims: Claims,
        metrics: Arc<Metrics>,
    ) -> Result<Self, RingError> {
        let serving = Serving::new(set, claims);
        let ring_config = RingConfig {
            grace: config.keys.grace,
            date_window: DATE_WINDOW,
            replay_capacity: config.replay_capacity,
            resumption: config.resumption,
        };
        let ring = KeyRing::new(ring_config, serving.claims.binding(), clock::now())?;
        Ok(Self {
            ring,
            serving: RwLock::new(serving),
            metrics,
            trouble: Mutex::new(None),
            wanted: Notify::new(),
            caught_up: watch::Sender::new(None),
        })
    }

    /// The ring, to open requests with.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Now, by a clock that never runs backwards.
    pub fn now(&self) -> UnixTime {
        clock::now().max(self.ring.time())
    }

    /// Whether there are keys to seal to.
    pub fn are_there(&self) -> bool {
        self.ring.current().is_some()
    }

    /// Why there are no new keys, if the last attempt to get some failed.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys that can be sealed to now, none at first, and the claims they are bound to.
    pub fn published(&self) -> Published {
        let serving = self.serving();
        let claim = |key: KeyInfo| KeyClaim {
            key_id: key.key_id,
            kem: key.kem.name().into(),
            not_before: key.not_before,
            not_after: key.not_after,
            accepted_until: key.accepted_until,
        };
        // The clock is read once: an epoch may begin between two readings.
        let (configs, keys) = self.ring.published();
        let keys = keys.into_iter().map(claim).collect();
        Published { configs, claims: Claims { keys, ..serving.claims.clone() } }
    }

    /// Takes an epoch of a source that says of itself what `source` does.
    ///
    /// # Errors
    /// [`RingError`]; nothing changed but the source in the claims.
    pub fn install(&self, epoch: Epoch, source: KeySource, now: UnixTime) -> Result<(), RingError> {
        let mut serving = self.serving.write().unwrap_or_else(PoisonError::into_inner);
        if serving.claims.key_source != source {
            serving.claims.key_source = source;
            self.ring.rebind(serving.claims.binding());
        }
        let (number, before) = (epoch.number, self.ring.newest());
        self.ring.install(epoch, now)?;
        if self.ring.newest() != before {
            self.metrics.epochs.fetch_add(1, Relaxed);
            info!(number, "a new key epoch is known");
        }
        Ok(())
    }

    /// From now on `set` is served; what was before is returned. Claims and keys change with it: the old keys are gone, and
    /// whatever was sealed to them and is not opened yet never will be.
    pub fn serve(&self, set: Arc<Set>) -> Arc<Set> {
        let claims = set.claims();
        let mut serving = self.serving.write().unwrap_or_else(PoisonError::into_inner);
        serving.claims.models = claims;
        let before = mem::replace(&mut serving.set, set);
        self.ring.rebind(serving.claims.binding());
        before
    }

    /// From now on callers are known as `claim` says, which `change` brings about. If that is something else than before, the
    /// old keys are gone, as with [`serve`](Self::serve).
    pub fn admit_by(&self, claim: ClientAuth, change: impl FnOnce()) {
        let mut serving = self.serving.write().unwrap_or_else(PoisonError::into_inner);
        if serving.claims.client_auth != claim {
            serving.claims.client_auth = claim;
            self.ring.rebind(serving.claims.binding());
        }
        change();
    }

    /// The models that are served now.
    pub fn set(&self) -> Arc<Set> {
        Arc::clone(&self.serving().set)
    }

    /// Holds off [`serve`](Self::serve): what is opened and looked up meanwhile is of one state. Not for long.
    pub fn steady(&self) -> Steady<'_> {
        Steady(self.serving())
    }

    fn serving(&self) -> RwLockReadGuard<'_, Serving> {
        self.serving.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client has a key that is not known here: waits until the source was looked at again, which happens once in a
    /// while at most. So whoever sends unknown keys wakes nobody, and waits for nothing, most of the time.
    pub async fn catch_up(&self) {
        let mut caught_up = self.caught_up.subscribe();
        if is_recent(*caught_up.borrow_and_update()) {
            return;
        }
        self.wanted.notify_one();
        // The look at the source may be slow; the client then attests again.
        let _ = timeout(CATCH_UP_PATIENCE, caught_up.changed()).await;
    }

    fn retire(&self, now: UnixTime) {
        self.ring.retire(now);
    }

    /// Returns what was there before.
    fn set_trouble(&self, trouble: Option<String>) -> Option<String> {
        mem::replace(&mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner), trouble)
    }
}

/// Whether the source was looked at so lately that it is not looked at again.
fn is_recent(caught_up: Option<Instant>) -> bool {
    caught_up.is_some_and(|last| last.elapsed() < CATCH_UP_REST)
}

/// Clients with unknown keys make the server look at its source no more often.
const CATCH_UP_REST: Duration = Duration::from_secs(10);
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(5);
