//! Evidence that the caller trusts: what comes of the second step.

use crate::{Claims, EnclaveHash, Genuine, Policy, PolicyError, Tee, UnixTime, Verdict};

/// A document whose evidence is genuine and is what the policy wants. Its keys can be sealed to.
///
/// Only [`Genuine::appraise`] makes one.
#[derive(Debug)]
pub struct Trusted {
    key_configs: Vec<u8>,
    claims: Claims,
    tee: Tee,
    enclave_hash: EnclaveHash,
    verdict: Verdict,
}

impl Genuine {
    /// Decides whether what the evidence proves is what `policy` wants at `now`. On refusal the error names every
    /// check of both steps.
    pub fn appraise(mut self, policy: &Policy, now: UnixTime) -> Result<Trusted, PolicyError> {
        let mut verdict = std::mem::take(&mut self.verdict);
        verdict.appraising();
        policy.check(&self, now, &mut verdict);
        if !verdict.passes() {
            return Err(PolicyError { verdict });
        }
        Ok(Trusted {
            key_configs: self.key_configs,
            claims: self.claims,
            tee: self.tee,
            enclave_hash: self.measured.enclave_hash,
            verdict,
        })
    }
}

impl Trusted {
    /// The `application/ohttp-keys` bytes the evidence vouches for, current keys first.
    pub fn key_configs(&self) -> &[u8] {
        &self.key_configs
    }

    /// The claims the evidence vouches for.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The TEE.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// What the TEE measured.
    pub fn enclave_hash(&self) -> &EnclaveHash {
        &self.enclave_hash
    }

    /// Every check that was made.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}
