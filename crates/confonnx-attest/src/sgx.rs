//! Intel SGX.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::collateral::{Answer, Request, StapleError};
use crate::evidence::Measured;
use crate::{UnixTime, Verdict};

/// Evidence as received or produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    report: Vec<u8>,
    endorsements: Map<String, Value>,
}

/// Bytes that are no such evidence.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {}

/// What this TEE says beyond the enclave hash, for [`Policy`].
#[derive(Debug)]
pub(crate) struct Facts {}

/// The `[sgx]` section of a policy. `Serialize` writes what `Deserialize` reads: a file's section is laid over a preset.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {}

impl Evidence {
    pub(crate) fn parse(report: &[u8], endorsements: &Map<String, Value>) -> Result<Self, ParseError> {
        Ok(Self { report: report.to_vec(), endorsements: endorsements.clone() })
    }

    pub(crate) fn report(&self) -> Vec<u8> {
        self.report.clone()
    }

    pub(crate) fn endorsements(&self) -> Map<String, Value> {
        self.endorsements.clone()
    }

    pub(crate) fn collateral_requests(&self) -> Vec<Request> {
        Vec::new()
    }

    pub(crate) fn staple(&mut self, _answers: &[Option<&Answer>]) -> Result<(), StapleError> {
        Ok(())
    }

    pub(crate) fn verify(
        &self,
        _report_data: &[u8; 64],
        _now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Measured> {
        verdict.undecided("signature", "evidence that this version can verify", "evidence of `sgx`");
        None
    }
}

impl Policy {
    /// Accepts only platforms without known weaknesses.
    pub fn strict() -> Self {
        Self {}
    }

    /// Accepts what real clouds run, which concedes what its documentation says.
    pub fn cloud() -> Self {
        Self {}
    }

    /// Whether it says which programs are accepted.
    pub(crate) fn names_program(&self) -> bool {
        false
    }

    pub(crate) fn allows_debug(&self) -> bool {
        false
    }

    /// Makes every check of this section.
    pub(crate) fn check(&self, _facts: &Facts, _measured: &Measured, _verdict: &mut Verdict) {}
}

impl Default for Policy {
    fn default() -> Self {
        Self::strict()
    }
}

/// MRSIGNER of a public key, a SubjectPublicKeyInfo as DER; `None` when SGX has no such keys.
pub(crate) fn signer_of(_der: &[u8]) -> Option<[u8; 32]> {
    None
}
