//! Epoch secrets from one that a service releases: the same on every server that gets it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use confonnx_attest::{KeySource, UnixTime};
use confonnx_protocol::{
    EpochSecret,
    key_service::{RootSecret, ShortRoot},
    server::Epoch,
};

use super::provider::{BoxFuture, KeyProvider, ProviderError};
use crate::{
    clock,
    key_service::{ReleaseError, Secret},
};

/// Epochs of a calendar that begins in 1970, from the secret of a service.
pub struct Released {
    secret: Secret,
    rollover: Duration,
    state: Mutex<State>,
}

/// What was derived from the released secret, which is not kept.
#[derive(Default)]
struct State {
    /// Secrets by number: those given out that may be asked for again, and the one to come.
    known: BTreeMap<u64, EpochSecret>,
    /// The greatest number that was given out.
    given: Option<u64>,
}

/// Why there is no secret to derive others from.
#[derive(Debug, thiserror::Error)]
enum RootError {
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error("the released secret is of no use: {0}")]
    Short(#[from] ShortRoot),
}

impl Released {
    /// Asks for nothing yet.
    pub fn new(secret: Secret, rollover: Duration) -> Self {
        Self { secret, rollover, state: Mutex::default() }
    }

    async fn ask(&self) -> Result<RootSecret, RootError> {
        Ok(RootSecret::new(&self.secret.fetch().await?)?)
    }

    fn number(&self, at: UnixTime) -> u64 {
        at.0.checked_div(self.rollover.as_secs()).unwrap_or(at.0)
    }

    fn epoch_of(&self, number: u64, secret: &EpochSecret) -> Epoch {
        let length = self.rollover.as_secs().max(1);
        let not_before = number.saturating_mul(length);
        Epoch {
            number,
            secret: EpochSecret::copy(secret.expose()),
            not_before: UnixTime(not_before),
            not_after: UnixTime(not_before.saturating_add(length)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps what `root` gives for the epoch `number`, the one before and the one after. What was given out stays as it was,
    /// even if the service has another secret by now.
    fn learn(&mut self, root: &RootSecret, number: u64) {
        let before = number.saturating_sub(1);
        self.known.retain(|known, _| *known >= before);
        for number in before..=number.saturating_add(1) {
            if self.given.is_none_or(|given| number > given) || !self.known.contains_key(&number) {
                self.known.insert(number, root.epoch(number));
            }
        }
    }
}

impl KeyProvider for Released {
    fn claim(&self) -> KeySource {
        KeySource {
            kind: self.secret.kind().into(),
            service: Some(self.secret.service()),
            ..KeySource::default()
        }
    }

    fn epoch(&self, at: UnixTime) -> BoxFuture<'_, Result<Epoch, ProviderError>> {
        Box::pin(async move {
            let number = self.number(at);
            if !self.state().known.contains_key(&number) {
                let root = self.ask().await.map_err(ProviderError::new)?;
                self.state().learn(&root, number);
            }
            let mut state = self.state();
            state.given = state.given.max(Some(number));
            match state.known.get(&number) {
                Some(secret) => Ok(self.epoch_of(number, secret)),
                // Another task asked for a much later epoch meanwhile.
                None => Err(ProviderError::new(format!("key epoch {number} is over"))),
            }
        })
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            let root = self.ask().await.map_err(ProviderError::new)?;
            self.state().learn(&root, self.number(clock::now()));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(byte: u8) -> RootSecret {
        RootSecret::new(&[byte; 32]).unwrap()
    }

    #[test]
    fn what_was_given_out_stays_and_what_comes_is_of_the_latest_secret() {
        let mut state = State::default();
        state.learn(&root(1), 10);
        assert_eq!(state.known.keys().copied().collect::<Vec<_>>(), [9, 10, 11]);
        state.given = Some(10);
        state.learn(&root(2), 10);
        let secret = |number: u64| *state.known[&number].expose();
        assert_eq!(secret(9), *root(1).epoch(9).expose());
        assert_eq!(secret(10), *root(1).epoch(10).expose());
        assert_eq!(secret(11), *root(2).epoch(11).expose());
        state.given = Some(11);
        state.learn(&root(3), 12);
        assert_eq!(state.known.keys().copied().collect::<Vec<_>>(), [11, 12, 13]);
    }
}
