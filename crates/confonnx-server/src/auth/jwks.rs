//! An issuer's public keys (JWK Set, RFC 7517): from a file, fixed, or from its URL, kept fresh.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::Refused;
use crate::{
    https::{FetchError, Fetcher},
    metrics::{JwksState, Metrics},
};

/// The keys of a set that can verify JWTs.
#[derive(Debug, Default)]
pub struct KeySet(Vec<Key>);

/// A key of the set.
#[derive(Debug)]
pub struct Key {
    /// `kid`.
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
    /// The algorithms by which the key can verify.
    algorithms: Vec<Algorithm>,
}

/// Where an issuer's keys come from.
pub(super) enum Keys {
    /// Read at the start.
    Fixed(Arc<KeySet>),
    /// Fetched.
    Remote(Arc<Remote>),
}

/// Keys that are fetched again and again.
pub struct Remote {
    url: String,
    fetcher: Fetcher,
    /// The time from one fetch to the next.
    refresh: Duration,
    /// How long keys are used that could not be fetched again.
    max_age: Duration,
    /// The least time between two fetches that callers cause.
    pause: Duration,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    wanted: Notify,
}

#[derive(Default)]
struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// When the last fetch began.
    asked: Option<Instant>,
    failures: u32,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// Not a JWK Set.
    #[error("not a JWK Set (RFC 7517): {0}")]
    Json(#[from] serde_json::Error),
    /// A set without a key that could verify anything.
    #[error("of its {found} keys none is an RSA, P-256, P-384 or Ed25519 key for signatures")]
    NoKey {
        /// How many bytes it has.
        found: usize,
    },
    /// A set of more keys than an issuer has.
    #[error("it has {found} keys; expected at most {MAX_KEYS}")]
    TooMany {
        /// How many keys it has.
        found: usize,
    },
    /// The authorities cannot be used.
    #[error("expected certificates in PEM, at least one")]
    Roots,
    /// The keys cannot be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl KeySet {
    /// Reads a set. Keys of kinds that are not known, or not for signatures, are passed over (RFC 7517, section 5).
    ///
    /// # Errors
    /// See [`JwksError`].
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let Set { keys } = confonnx_attest::json::from_slice(json)?;
        let found = keys.len();
        if found > MAX_KEYS {
            return Err(JwksError::TooMany { found });
        }
        let keys: Vec<_> = keys.into_iter().filter_map(Key::from_jwk).collect();
        if keys.is_empty() { Err(JwksError::NoKey { found }) } else { Ok(Self(keys)) }
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.0
    }
}

impl Key {
    fn from_jwk(json: Value) -> Option<Self> {
        let jwk: Jwk = confonnx_attest::json::from_value(json).ok()?;
        let family = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
            AlgorithmParameters::EllipticCurve(_) => AlgorithmFamily::Ec,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                AlgorithmFamily::Ed
            }
            // A shared secret is no public key, wherever it is found.
            _ => return None,
        };
        let common = &jwk.common;
        if common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature)
            || common.key_operations.as_ref().is_some_and(|allowed| !allowed.contains(&KeyOperations::Verify))
        {
            return None;
        }
        let mut algorithms = family.algorithms().to_vec();
        if let AlgorithmParameters::EllipticCurve(key) = &jwk.algorithm {
            algorithms = match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            };
        }
        if let Some(only) = common.key_algorithm {
            let only = Algorithm::try_from(only).ok()?;
            algorithms.retain(|algorithm| *algorithm == only);
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then_some(Self { id: jwk.common.key_id, key, algorithms })
    }

    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

impl Keys {
    /// The keys to use at `now`.
    pub(super) fn current(&self, now: Instant) -> Result<Arc<KeySet>, Refused> {
        match self {
            Self::Fixed(keys) => Ok(Arc::clone(keys)),
            Self::Remote(remote) => remote.current(now),
        }
    }

    /// What to answer for a token whose key is not there, if it may be a new one.
    pub(super) fn miss(&self, now: Instant) -> Option<Refused> {
        match self {
            Self::Remote(remote) if remote.ask_again(now) => {
                let reason = "its key is not among its issuer's keys, which are being fetched again";
                Some(Refused::Unavailable { reason, retry_after: Duration::from_secs(1) })
            }
            _ => None,
        }
    }
}

impl Remote {
    /// Fetches nothing yet. Whoever answers at `url` has to have a certificate by one of `roots`.
    ///
    /// # Errors
    /// [`JwksError::Roots`]
    pub(super) fn new(
        url: &str,
        roots: &[u8],
        refresh: Duration,
        max_age: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Self, JwksError> {
        let fetcher = Fetcher::with_roots(roots, TIMEOUT).ok_or(JwksError::Roots)?;
        let (state, wanted) = (Mutex::default(), Notify::new());
        Ok(Self { url: url.into(), fetcher, refresh, max_age, pause: LEAST_PAUSE, metrics, state, wanted })
    }

    /// Fetches them when they are due or missed, for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.state().asked = Some(Instant::now());
            let fetched = self.fetch().await;
            let wait = self.receive(fetched);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, JwksError> {
        KeySet::parse(&self.fetcher.get(&self.url).await?.body)
    }

    /// Takes the result of a fetch; says when to fetch next.
    fn receive(&self, fetched: Result<KeySet, JwksError>) -> Duration {
        let mut state = self.state();
        let wait = match fetched {
            Ok(keys) => {
                if state.keys.is_none() || state.failures > 0 {
                    info!("{} keys of the issuer from {}", keys.0.len(), self.url);
                }
                state.keys = Some((Arc::new(keys), Instant::now()));
                state.failures = 0;
                self.refresh
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                let wait = FIRST_RETRY.saturating_mul(1 << state.failures.min(8)).min(self.refresh);
                let meanwhile = match &state.keys {
                    None => "until then no JWT can be checked".into(),
                    Some((_, fetched)) => {
                        let left = self.max_age.saturating_sub(fetched.elapsed());
                        format!("those fetched before are used for another {} s", left.as_secs())
                    }
                };
                warn!(
                    "the issuer's keys from {}: {error}; {meanwhile}; next attempt in {} s",
                    self.url,
                    wait.as_secs()
                );
                wait
            }
        };
        self.metrics.auth.set_keys(JwksState {
            keys: state.keys.as_ref().map_or(0, |(keys, _)| keys.0.len()),
            failures: state.failures,
        });
        wait
    }

    fn current(&self, now: Instant) -> Result<Arc<KeySet>, Refused> {
        let state = self.state();
        let reason = match &state.keys {
            Some((keys, fetched)) if now.saturating_duration_since(*fetched) <= self.max_age => {
                return Ok(Arc::clone(keys));
            }
            Some(_) => "its issuer's keys could not be fetched again for too long",
            None => "its issuer's keys have not been fetched yet",
        };
        Err(Refused::Unavailable { reason, retry_after: FIRST_RETRY })
    }

    /// Has the keys fetched now, unless that was done a moment ago.
    fn ask_again(&self, now: Instant) -> bool {
        let mut state = self.state();
        if state.asked.is_some_and(|asked| now.saturating_duration_since(asked) < self.pause) {
            return false;
        }
        // The fetch counts from here on, for whoever comes before it begins.
        state.asked = Some(now);
        self.wanted.notify_one();
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a URL is one of https, of a host, without user name.
pub(super) fn is_https(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| {
        let authority = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        uri.scheme_str() == Some("https") && authority
    })
}

/// Keys of the largest set. Issuers have two to ten.
const MAX_KEYS: usize = 64;
/// The time for a whole answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the first failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Anyone can send tokens with key ids that nobody knows: they cause no more fetches than one in this time.
const LEAST_PAUSE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
