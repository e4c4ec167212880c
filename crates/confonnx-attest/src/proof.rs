//! Genuine evidence.

use sha2::{Digest as _, Sha256};

use crate::evidence::Facts;
use crate::measured::Measured;
use crate::{Claims, Digest, EnclaveHash, Tee, UnixTime, Verdict};

/// A document whose evidence is genuine: a TEE of that kind vouches for key configs and claims. Whether the program
/// in it is the right one is for [`appraise`](Self::appraise) to say.
#[derive(Debug)]
pub struct Genuine {
    pub(crate) key_configs: Vec<u8>,
    pub(crate) claims: Claims,
    pub(crate) tee: Tee,
    pub(crate) measured: Measured<Facts>,
    /// Whether the evidence answers the caller's nonce.
    pub(crate) fresh: bool,
    /// Of the release in a log, as the document has it.
    pub(crate) release_proof: Option<String>,
    pub(crate) verdict: Verdict,
}

impl Genuine {
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

    /// The latest time at which the TEE's vendor stated any of what makes this evidence genuine: it cannot be earlier now,
    /// whatever a clock says.
    pub fn stated_at(&self) -> Option<UnixTime> {
        self.verdict.stated_at()
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
