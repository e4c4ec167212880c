//! What a caller expects of a server.

use std::fmt;
use std::time::Duration;

use base64ct::{Base64, Encoding};
use sha2::{Digest as _, Sha256};

use crate::{Digest, EnclaveHash, Genuine, PROTOCOL, Tee, UnixTime, Verdict};

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

/// The public key that signs a program.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// SHA-256 of the key as DER, a SubjectPublicKeyInfo.
    fingerprint: [u8; 32],
}

/// Text that is not a public key in PEM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// There is no `PUBLIC KEY` block.
    #[error("expected a PEM file with a `-----BEGIN PUBLIC KEY-----` block, found none")]
    NoPublicKey,
    /// The block is not base64.
    #[error("the PUBLIC KEY block is not base64")]
    Base64,
}

impl Policy {
    /// A policy with those expectations; an error when they are none.
    pub fn new(expected: Expectations) -> Result<Self, PolicyBuildError> {
        if expected.enclave_hash.is_some() || expected.signing_key.is_some() || expected.allow_debug {
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
        match tee {
            Tee::Insecure => {
                let expected = if self.expected.allow_debug { "insecure, allowed" } else { "a hardware TEE" };
                verdict.decide("tee", expected, tee.name(), self.expected.allow_debug);
            }
        }
    }

    fn check_program(&self, genuine: &Genuine, verdict: &mut Verdict) {
        let measured = &genuine.measured;
        match &self.expected.enclave_hash {
            Some(expected) => {
                verdict.equal("enclave hash", expected.to_string(), measured.enclave_hash.to_string());
            }
            // Debug permission alone names no program, so it is enough for the insecure TEE only.
            None if self.expected.signing_key.is_none() && genuine.tee != Tee::Insecure => {
                verdict.decide(
                    "enclave hash",
                    "an enclave hash or signing key in the policy",
                    measured.enclave_hash.to_string(),
                    false,
                );
            }
            None => verdict.info("enclave hash", measured.enclave_hash.to_string()),
        }
        let signer = measured.signer.map_or("none".into(), |hash| Digest(hash).to_string());
        match &self.expected.signing_key {
            Some(key) => verdict.equal("enclave signer", Digest(key.fingerprint).to_string(), signer),
            None => verdict.info("enclave signer", signer),
        }
        let expected = if self.expected.allow_debug { "on, allowed" } else { "off" };
        let found = if measured.debug { "on" } else { "off" };
        verdict.decide("debug", expected, found, self.expected.allow_debug || !measured.debug);
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

impl SigningKey {
    /// From a PEM file with one `PUBLIC KEY` block (a SubjectPublicKeyInfo).
    pub fn from_pem(pem: &str) -> Result<Self, SigningKeyError> {
        let (_, rest) = pem.split_once("-----BEGIN PUBLIC KEY-----").ok_or(SigningKeyError::NoPublicKey)?;
        let (body, _) = rest.split_once("-----END PUBLIC KEY-----").ok_or(SigningKeyError::NoPublicKey)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = Base64::decode_vec(&body).map_err(|_| SigningKeyError::Base64)?;
        if der.is_empty() {
            return Err(SigningKeyError::NoPublicKey);
        }
        Ok(Self { fingerprint: Sha256::digest(der).into() })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", Digest(self.fingerprint))
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
