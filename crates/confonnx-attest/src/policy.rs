//! What a caller expects of a server.

use std::fmt;
use std::time::Duration;

use crate::{Digest, EnclaveHash, Genuine, PROTOCOL, Tee, UnixTime, Verdict};

mod platforms;
mod signing_key;

pub use platforms::Platforms;
pub(crate) use signing_key::Signer;
pub use signing_key::{SigningKey, SigningKeyError};

/// What a server has to be. Whatever is given is always compared; nothing is skipped.
#[derive(Clone, Debug)]
pub struct Policy {
    expected: Expectations,
}

/// The parts of a [`Policy`].
#[derive(Clone, Debug, Default)]
pub struct Expectations {
    /// What the TEE has to have measured.
    pub enclave_hash: Option<EnclaveHash>,
    /// The key that has to have signed the program. A TEE whose programs are not signed then fails.
    pub signing_key: Option<SigningKey>,
    /// The hash of a model the server has to serve.
    pub model_hash: Option<Digest>,
    /// Accepts debug mode, and with it the insecure TEE, without confidentiality. Alone it accepts the insecure TEE
    /// only.
    pub allow_debug: bool,
    /// Accepts documents without the caller's nonce when they say they are no older. That rests on the host's clock.
    pub max_age: Option<Duration>,
    /// What each kind of TEE has to be beyond that; [`Platforms::strict`] by default.
    pub platforms: Platforms,
}

/// Expectations that would accept programs of anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyBuildError {
    /// Nothing was expected.
    #[error(
        "nothing is expected of the server: give the enclave hash or the enclave signing key (or, for development \
         only, allow debug)"
    )]
    NoExpectation,
    /// Only a model hash was expected, which any program may claim.
    #[error(
        "a model hash alone proves nothing, because any program may claim it: give the enclave hash or the enclave \
         signing key too (or, for development only, allow debug)"
    )]
    ModelHashAlone,
}

/// Genuine evidence that is not what the policy wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// Every check of both steps.
    pub verdict: Verdict,
}

impl Policy {
    /// A policy with those expectations; an error when they are none.
    pub fn new(expected: Expectations) -> Result<Self, PolicyBuildError> {
        if expected.enclave_hash.is_some()
            || expected.signing_key.is_some()
            || expected.allow_debug
            || expected.platforms.name_programs()
        {
            return Ok(Self { expected });
        }
        Err(match expected.model_hash {
            Some(_) => PolicyBuildError::ModelHashAlone,
            None => PolicyBuildError::NoExpectation,
        })
    }

    /// The longest a document may be old when it was not made for the caller's nonce.
    pub fn max_age(&self) -> Option<Duration> {
        self.expected.max_age
    }

    /// Makes every check, whatever the others say.
    pub(crate) fn check(&self, genuine: &Genuine, now: UnixTime, verdict: &mut Verdict) {
        self.check_tee(genuine.tee, verdict);
        self.check_program(genuine, verdict);
        self.check_model(genuine, verdict);
        self.check_age(genuine, now, verdict);
        verdict.equal("protocol", PROTOCOL, shown(&genuine.claims.protocol));
    }

    fn check_tee(&self, tee: Tee, verdict: &mut Verdict) {
        if tee == Tee::Insecure {
            let expected = if self.expected.allow_debug { "insecure, allowed" } else { "a hardware TEE" };
            return verdict.decide("tee", expected, tee.name(), self.expected.allow_debug);
        }
        let accepted = self.expected.platforms.accepted();
        let expected = accepted.iter().map(|tee| tee.name()).collect::<Vec<_>>().join(", ");
        verdict.decide("tee", expected, tee.name(), accepted.contains(&tee));
    }

    fn check_program(&self, genuine: &Genuine, verdict: &mut Verdict) {
        let measured = &genuine.measured;
        let section = self.expected.platforms.section(&measured.facts);
        let named_by_section = section.is_some_and(|section| section.names_program());
        match &self.expected.enclave_hash {
            Some(expected) => {
                verdict.equal("enclave hash", expected.to_string(), measured.enclave_hash.to_string());
            }
            // Debug permission alone names no program, so it is enough for the insecure TEE only.
            None if self.expected.signing_key.is_none()
                && !named_by_section
                && genuine.tee != Tee::Insecure =>
            {
                verdict.decide(
                    "enclave hash",
                    "an enclave hash or signing key in the policy",
                    measured.enclave_hash.to_string(),
                    false,
                );
            }
            None => verdict.info("enclave hash", measured.enclave_hash.to_string()),
        }
        let signer = measured.signer.as_ref().map_or("none".into(), Signer::to_string);
        match &self.expected.signing_key {
            Some(key) => verdict.equal("enclave signer", key.expected(measured.signer.as_ref()), signer),
            None => verdict.info("enclave signer", signer),
        }
        let allowed = self.expected.allow_debug || section.is_some_and(|section| section.allows_debug());
        let expected = if allowed { "on, allowed" } else { "off" };
        let found = if measured.debug { "on" } else { "off" };
        verdict.decide("debug", expected, found, allowed || !measured.debug);
        if let Some(section) = section {
            section.check(measured, verdict);
        }
    }

    fn check_model(&self, genuine: &Genuine, verdict: &mut Verdict) {
        let models = &genuine.claims.models;
        let list = models.iter().map(|model| format!("{} ({})", model.sha256, shown(&model.name)));
        let found = if models.is_empty() { "none".into() } else { list.collect::<Vec<_>>().join(", ") };
        match self.expected.model_hash {
            Some(expected) => {
                let served = models.iter().any(|model| model.sha256 == expected);
                verdict.decide("model hash", expected.to_string(), found, served);
            }
            None => verdict.info("model hash", found),
        }
    }

    fn check_age(&self, genuine: &Genuine, now: UnixTime, verdict: &mut Verdict) {
        let issued_at = genuine.claims.issued_at;
        let age = match now.0.checked_sub(issued_at.0) {
            Some(seconds) => format!("{seconds} s"),
            None => format!("{} s in the future", issued_at.0.saturating_sub(now.0)),
        };
        if genuine.fresh {
            return verdict.info("age", format!("made for our nonce ({age} by the server's clock)"));
        }
        let (expected, passed) = match self.expected.max_age {
            Some(max_age) => {
                let oldest = now.0.saturating_sub(max_age.as_secs());
                let newest = now.0.saturating_add(CLOCK_TOLERANCE);
                let expected = format!("at most {} s", max_age.as_secs());
                (expected, (oldest..=newest).contains(&issued_at.0))
            }
            None => ("a document made for our nonce, or a maximum age in the policy".into(), false),
        };
        verdict.decide("age", expected, age, passed);
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server's evidence is genuine but not what was asked for: {}", self.verdict.summary())
    }
}

impl std::error::Error for PolicyError {}

/// Server-chosen text in a verdict: bounded, one line, no control characters.
pub(crate) fn shown(text: &str) -> String {
    let clean: String = text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(64).is_some() { clean + "…" } else { clean }
}

/// Seconds a document may come from the future: clocks differ.
const CLOCK_TOLERANCE: u64 = 300;
