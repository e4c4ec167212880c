//! What passed: genuine evidence, and evidence the caller trusts.

use sha2::{Digest as _, Sha256};

use crate::evidence::Measured;
use crate::{Claims, Digest, EnclaveHash, Policy, PolicyError, Tee, UnixTime, Verdict};

/// A document whose evidence is genuine: a TEE of that kind vouches for key configs and claims. Whether the program
/// in it is the right one is for [`appraise`](Self::appraise) to say.
#[derive(Debug)]
pub struct Genuine {
    pub(crate) key_configs: Vec<u8>,
    pub(crate) claims: Claims,
    pub(crate) tee: Tee,
    pub(crate) measured: Measured,
    /// Whether it answers the caller's nonce.
    pub(crate) fresh: bool,
    pub(crate) verdict: Verdict,
}

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

    /// The checks made so far.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The claims the evidence vouches for, as far as its program is honest.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The TEE.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// What the TEE measured.
    pub fn enclave_hash(&self) -> &EnclaveHash {
        &self.measured.enclave_hash
    }

    /// The `peer_policy_sha256` of a group whose members have to be the same program as this one, in the same kind of TEE,
    /// on platforms as the preset `cloud` wants them (protocol.md 3.3).
    pub fn same_program(&self) -> Digest {
        let Claims { build, runtime, .. } = &self.claims;
        let (tee, hash) = (self.tee.name(), &self.measured.enclave_hash);
        let text = format!("confonnx same program v1\n{tee}\n{hash}\n{}\n{}\n", build.sha256, runtime.sha256);
        Digest(Sha256::digest(text).into())
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
