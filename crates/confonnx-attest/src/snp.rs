//! AMD SEV-SNP: the report of a guest, and AMD's chain for the key that signed it (protocol.md 2.8).
//!
//! Sources: AMD's "SEV Secure Nested Paging Firmware ABI Specification" (56860) for reports, "Versioned Chip Endorsement
//! Key (VCEK) Certificate and KDS Interface Specification" (57230) for the chain.

use serde_json::{Map, Value};

use crate::bound::Bound;
use crate::collateral::{Answer, Request, StapleError};
use crate::contract::Attested;
use crate::measured::{Measured, Signer};
use crate::x509::{Algorithm, Hash};
use crate::{EnclaveHash, Hex, UnixTime, Verdict, digest};

mod chain;
mod collateral;
mod id_key;
mod key_service;
pub mod measure;
mod policy;
#[cfg(feature = "produce")]
mod produce;
mod report;
#[cfg(feature = "produce")]
mod table;

pub(crate) use chain::{Endorsements, Roots};
use id_key::signer_of;
pub use key_service::FormError;
pub use policy::{MinimumTcb, Policy};
#[cfg(feature = "produce")]
pub use produce::{Device, DeviceError};
pub use report::Tcb;
pub(crate) use report::{Product, REPORT_BYTES, Report, SigningKey};

/// Evidence as received or produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    report: Box<Report>,
    endorsements: Box<Endorsements>,
}

/// Bytes that are no such evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The report has another length.
    #[error("expected a report of {REPORT_BYTES} bytes, found {found}")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// An endorsement is not a string of unpadded base64url.
    #[error("endorsements.{member} is not base64url without padding")]
    Base64 {
        /// Name of the member.
        member: &'static str,
    },
    /// An endorsement is not a certificate or revocation list.
    #[error("endorsements.{member}: {reason}")]
    X509 {
        /// Name of the member.
        member: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a genuine report says beyond the enclave hash, for [`Policy`].
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) report: Box<Report>,
    pub(crate) product: Option<Product>,
    /// The cloud provider whose VLEK signed the report.
    pub(crate) csp: Option<String>,
    /// Whether AMD's revocation list was stapled, and so was checked.
    pub(crate) revocation_checked: bool,
}

impl Evidence {
    /// Evidence of a report and what vouches for it, as found inside of other evidence or on a device.
    pub(crate) fn new(report: &[u8], endorsements: Endorsements) -> Result<Self, ParseError> {
        Ok(Self { report: Box::new(Report::parse(report)?), endorsements: Box::new(endorsements) })
    }

    /// Decides whether the report is genuine and carries what it has to; makes every check, whatever the others say.
    /// `None` when the report's format is unknown, so that nothing in it can be relied on.
    pub(crate) fn verify_with<'a>(
        &self,
        roots: &Roots,
        bound: impl Into<Bound<'a>>,
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Facts> {
        let bound = bound.into();
        let report = &self.report;
        self.check_form(verdict);
        self.check_key(verdict);
        let chain = chain::verify(report, &self.endorsements, roots, now, verdict);
        let key = chain.key.map(|certificate| certificate.public_key());
        let expected = format!("by the {}", report.signing_key().name());
        match key {
            Some(Ok(key)) => {
                let verified = match report.signature() {
                    None => Err("not padded with zeros".into()),
                    Some(signature) => key
                        .verify(Algorithm::EcdsaFixed(Hash::Sha384), report.signed(), &signature)
                        .map_err(|err| err.to_string()),
                };
                let passed = verified.is_ok();
                let found = verified.map_or_else(|err| err, |()| expected.clone());
                verdict.decide("signature", expected, found, passed);
            }
            Some(Err(err)) => verdict.decide("signature", expected, err.to_string(), false),
            None => {
                let found = format!("no {} stapled", report.signing_key().name());
                verdict.undecided("signature", expected, found);
            }
        }
        verdict.equal(bound.name, digest::encode(bound.bytes), digest::encode(&report.report_data));
        VERSIONS.contains(&report.version).then(|| Facts {
            report: report.clone(),
            product: chain.product,
            csp: chain.csp,
            revocation_checked: self.endorsements.crl.is_some(),
        })
    }

    fn check_form(&self, verdict: &mut Verdict) {
        let report = &self.report;
        let expected = format!("{} to {}", VERSIONS.start(), VERSIONS.end());
        let found = report.version.to_string();
        if report.version > *VERSIONS.end() {
            verdict.undecided("version", expected, format!("{found}: use a newer client"));
        } else {
            verdict.decide("version", expected, found, VERSIONS.contains(&report.version));
        }
        let algorithm = report.signature_algorithm.to_string();
        verdict.equal("signature algorithm", ECDSA_P384_SHA384.to_string(), algorithm);
        let reserved = &report.reserved;
        let found = if reserved.is_empty() { "all".into() } else { format!("not {}", reserved.join(", ")) };
        verdict.decide("reserved bytes", "all as specified", found, reserved.is_empty());
    }

    fn check_key(&self, verdict: &mut Verdict) {
        let report = &self.report;
        let key = report.signing_key();
        let known = matches!(key, SigningKey::Vcek | SigningKey::Vlek);
        verdict.decide("signing key", "VCEK or VLEK", key.name(), known);
        // A host that masks the chip's key has no VCEK to sign with.
        let (found, usable) = match (report.chip_key_masked(), key) {
            (false, _) => ("in use", true),
            (true, SigningKey::Vlek) => ("masked, signed by the VLEK", true),
            (true, _) => ("masked", false),
        };
        verdict.decide("chip key", "in use, or signed by the VLEK", found, usable);
        let has_digest = report.author_key_digest.iter().any(|&byte| byte != 0);
        let shown = |enabled, digest| format!("author key {enabled}, its digest {digest}");
        let enabled = report.author_key_enabled();
        let word = |there| if there { "present" } else { "absent" };
        verdict.equal(
            "author key flag",
            shown(word(enabled), word(enabled)),
            shown(word(enabled), word(has_digest)),
        );
    }
}

impl Facts {
    /// None: AMD counts no TCB recovery events.
    pub(crate) fn tcb_evaluation(&self) -> Option<u32> {
        None
    }
}

impl Attested for Evidence {
    type Error = ParseError;
    type Facts = Facts;

    fn parse(report: &[u8], endorsements: &Map<String, Value>) -> Result<Self, ParseError> {
        Self::new(report, Endorsements::parse(endorsements)?)
    }

    fn report(&self) -> Vec<u8> {
        self.report.bytes().to_vec()
    }

    fn endorsements(&self) -> Map<String, Value> {
        self.endorsements.to_members()
    }

    fn collateral_requests(&self) -> Vec<Request> {
        collateral::requests(&self.report, &self.endorsements)
    }

    fn staple(&mut self, answers: &[Option<&Answer>]) -> Result<(), StapleError> {
        let requests = self.collateral_requests();
        collateral::staple(&mut self.endorsements, &requests, answers)
    }

    fn says(&self) -> Option<EnclaveHash> {
        Some(EnclaveHash::from(Hex(self.report.measurement)))
    }

    fn verify_whatever_it_carries(&self, now: UnixTime, verdict: &mut Verdict) -> Option<Measured<Facts>> {
        self.verify(&self.report.report_data, now, verdict)
    }

    fn verify(
        &self,
        report_data: &[u8; 64],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Measured<Facts>> {
        let facts = self.verify_with(Roots::amd(), report_data, now, verdict)?;
        Some(facts.into_measured())
    }
}

impl Facts {
    pub(crate) fn into_measured(self) -> Measured<Self> {
        let report = &self.report;
        Measured {
            enclave_hash: EnclaveHash::from(Hex(report.measurement)),
            signer: report.id_key().map(|key| Signer::new(&key, signer_of)),
            debug: report.policy.allows_debug(),
            facts: self,
        }
    }
}

/// Formats whose meaning is known.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;
const ECDSA_P384_SHA384: u32 = 1;

#[cfg(test)]
pub(crate) mod tests;
