//! Secrets made in this TEE, which nobody else has.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use confonnx_attest::{KeySource, UnixTime};
use confonnx_protocol::{
    EpochSecret,
    server::{Epoch, Ratchet},
};

use super::provider::{BoxFuture, KeyProvider, ProviderError};
use crate::{clock, config::KeyTimes, random::rng};

/// A ratchet whose first secret is made at the start.
pub struct Local {
    ratchet: Mutex<Ratchet>,
    grace: Duration,
}

impl Local {
    /// Makes the first secret.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new(times: &KeyTimes) -> Result<Self, getrandom::Error> {
        // A random number: after a restart, old key ids are unknown rather than somebody else's.
        let number = getrandom::u32()?.into();
        let first = EpochSecret::generate(&mut rng());
        let ratchet = Ratchet::start(first, number, clock::now(), times.rollover);
        Ok(Self { ratchet: Mutex::new(ratchet), grace: times.grace })
    }
}

impl KeyProvider for Local {
    fn claim(&self) -> KeySource {
        KeySource { kind: "local".into(), ..KeySource::default() }
    }

    fn epoch(&self, at: UnixTime) -> BoxFuture<'_, Result<Epoch, ProviderError>> {
        let mut ratchet = self.ratchet.lock().unwrap_or_else(PoisonError::into_inner);
        ratchet.forget(clock::now(), self.grace);
        let epoch = ratchet.epoch(at).map_err(ProviderError::new);
        Box::pin(std::future::ready(epoch))
    }
}
