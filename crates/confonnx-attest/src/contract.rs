//! What the folder of a TEE has to have.
//!
//! Besides these two traits: `Facts` (what only this TEE says, with `tcb_evaluation()`), `Policy` with `strict()` and `cloud()` (its section of a
//! policy file), `ParseError`, and with the feature `produce` a `Device` with `evidence(&[u8; 64])` and a `DeviceError`.

use serde_json::{Map, Value};

use crate::collateral::{Answer, Request, StapleError};
use crate::measured::Measured;
use crate::{EnclaveHash, UnixTime, Verdict};

/// Evidence of one kind of TEE.
pub(crate) trait Attested: Sized {
    /// Why bytes are no such evidence.
    type Error;
    /// What the TEE says beyond what all say; the section of a policy judges it.
    type Facts;

    /// Reads `report` and `endorsements` of a document's `evidence` (protocol.md 2.2).
    fn parse(report: &[u8], endorsements: &Map<String, Value>) -> Result<Self, Self::Error>;

    /// The raw bytes of the document's `report`.
    fn report(&self) -> Vec<u8>;

    /// The document's `endorsements`.
    fn endorsements(&self) -> Map<String, Value> {
        Map::new()
    }

    /// What to fetch of the TEE's vendor so that a client can verify the evidence without a network.
    fn collateral_requests(&self) -> Vec<Request> {
        Vec::new()
    }

    /// Staples the vendor's answers to the requests, in their order. Evidence that asks for nothing takes none.
    fn staple(&mut self, answers: &[Option<&Answer>]) -> Result<(), StapleError> {
        match answers.len() {
            0 => Ok(()),
            found => Err(StapleError::Count { expected: 0, found }),
        }
    }

    /// What the evidence says was measured, before anything of it is verified.
    fn says(&self) -> Option<EnclaveHash>;

    /// As [`verify`](Self::verify), whatever report data the evidence carries.
    fn verify_whatever_it_carries(
        &self,
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Measured<Self::Facts>>;

    /// Checks signatures and report data at `now`; says what the TEE measured, or nothing when the evidence does not
    /// say it. Makes every check, whatever the others say.
    fn verify(
        &self,
        report_data: &[u8; 64],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Measured<Self::Facts>>;
}

/// The section of a policy about one kind of TEE.
pub(crate) trait Section {
    /// The facts that the section judges.
    type Facts;

    /// Whether the section says which programs are accepted.
    fn names_program(&self) -> bool;

    /// Whether the section says which of a signer's programs are accepted, and from which version on: then a signing
    /// key that the policy gives elsewhere names programs. Where programs have no signer, none passes.
    fn narrows_signer(&self) -> bool {
        true
    }

    /// Whether the section accepts programs into which the host can look.
    fn allows_debug(&self, facts: &Self::Facts) -> bool;

    /// Makes every check of this section.
    fn check(&self, facts: &Self::Facts, enclave_hash: &EnclaveHash, verdict: &mut Verdict);
}
