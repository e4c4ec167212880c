//! Azure confidential VMs (protocol.md 2.11).
//!
//! There, the processor's report is about the paravisor: Microsoft's firmware inside the virtual machine, which runs a
//! virtual TPM for the guest. The report vouches for the vTPM's attestation key by the hash of the runtime data that
//! names it; that key signs a quote over the PCRs, into which the guest was measured, and over our report data.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::bound::Bound;
use crate::collateral::{Answer, Request, StapleError};
use crate::contract::Attested;
use crate::measured::Measured;
use crate::tpm::{BOOT_PCRS, Names, Pcrs, PcrsError, Quote, QuoteError, Quoted, list};
use crate::{EnclaveHash, UnixTime, Verdict, snp, tdx};

mod hcl;
#[cfg(feature = "produce")]
mod imds;
mod policy;
#[cfg(feature = "produce")]
mod produce;
mod runtime;

pub use hcl::{HardwareReport, HclError, HclReport};
#[cfg(feature = "produce")]
pub use imds::ImdsError;
pub use policy::Policy;
#[cfg(feature = "produce")]
pub use produce::{Device, DeviceError, GuestError, GuestKey};
pub use runtime::RuntimeDataError;
use runtime::{RuntimeData, VmConfiguration};

/// Evidence as received or produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    hardware: Hardware,
    runtime_data: RuntimeData,
    quote: Box<Quote>,
    pcrs: Pcrs,
}

/// The processor's statement about the paravisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hardware {
    Snp(Box<snp::Evidence>),
    Tdx(Box<tdx::Evidence>),
}

/// What a processor measured of a genuine report: the paravisor.
#[derive(Debug)]
pub(crate) enum Processor {
    Snp(Box<Measured<snp::Facts>>),
    Tdx(Box<Measured<tdx::Facts>>),
}

/// Bytes that are no such evidence.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not a JSON object with the members of the report.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A member is not unpadded base64url.
    #[error("{member} is not base64url without padding")]
    Base64 {
        /// Name of the member.
        member: &'static str,
    },
    /// The processor's report or its endorsements cannot be read.
    #[error("hardware_report: {0}")]
    Snp(snp::ParseError),
    /// The processor's quote or its endorsements cannot be read.
    #[error("hardware_report: {0}")]
    Tdx(tdx::ParseError),
    /// The runtime data cannot be read.
    #[error("runtime_data: {0}")]
    RuntimeData(#[from] RuntimeDataError),
    /// The quote cannot be read.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// The values are not those the quote covers.
    #[error(transparent)]
    Pcrs(#[from] PcrsError),
}

/// What this TEE says beyond the enclave hash, for [`Policy`].
#[derive(Debug)]
pub(crate) struct Facts {
    hardware: Processor,
    vm: VmConfiguration,
    pcrs: Pcrs,
    quoted: Quoted,
}

impl Evidence {
    /// As `verify`, for any data that a quote may carry and, for tests, under other roots.
    fn verify_with(
        &self,
        roots: &snp::Roots,
        data: &[u8],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Measured<Facts>> {
        let hardware = self.verify_hardware(roots, now, verdict);
        let names = Names { signature: "quote signature", data: "report data" };
        let quoted = self.quote.verify(&self.runtime_data.ak, data, &self.pcrs, names, verdict);
        let enclave_hash = self.pcrs.digest_of(&BOOT_PCRS);
        let expected = format!("pcrs {}, and others", list(&BOOT_PCRS));
        let found = format!("pcrs {}", list(self.pcrs.0.keys()));
        verdict.decide("boot pcrs", expected, found, enclave_hash.is_some());
        let hardware = hardware?;
        Some(Measured {
            enclave_hash: enclave_hash?.into(),
            signer: None,
            debug: hardware.debug(),
            facts: Facts {
                hardware,
                vm: self.runtime_data.vm.clone(),
                pcrs: self.pcrs.clone(),
                quoted: quoted?,
            },
        })
    }

    /// Checks the processor's report, whose report data is the hash of the runtime data; ours is in the quote.
    fn verify_hardware(&self, roots: &snp::Roots, now: UnixTime, verdict: &mut Verdict) -> Option<Processor> {
        let mut bytes = [0; 64];
        let hash = Sha256::digest(self.runtime_data.bytes());
        bytes.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        let bound = Bound { name: "runtime data", bytes: &bytes };
        Some(match &self.hardware {
            Hardware::Snp(evidence) => {
                let facts = evidence.verify_with(roots, bound, now, verdict)?;
                Processor::Snp(Box::new(facts.into_measured()))
            }
            Hardware::Tdx(evidence) => {
                let facts = evidence.verify_with(&tdx::Root::intel()?, bound, now, verdict)?;
                Processor::Tdx(Box::new(facts.into_measured()?))
            }
        })
    }
}

impl Facts {
    pub(crate) fn tcb_evaluation(&self) -> Option<u32> {
        match &self.hardware {
            Processor::Snp(_) => None,
            Processor::Tdx(measured) => measured.facts.tcb_evaluation(),
        }
    }
}

impl Attested for Evidence {
    type Error = ParseError;
    type Facts = Facts;

    fn parse(report: &[u8], endorsements: &Map<String, Value>) -> Result<Self, ParseError> {
        let wire: Wire = crate::json::from_slice(report)?;
        let report = base64("hardware_report", &wire.hardware_report)?;
        let hardware = match wire.hardware {
            Kind::Snp => snp::Evidence::parse(&report, endorsements)
                .map(|evidence| Hardware::Snp(Box::new(evidence)))
                .map_err(ParseError::Snp)?,
            Kind::Tdx => tdx::Evidence::parse(&report, endorsements)
                .map(|evidence| Hardware::Tdx(Box::new(evidence)))
                .map_err(ParseError::Tdx)?,
        };
        let runtime_data = RuntimeData::parse(&base64("runtime_data", &wire.runtime_data)?)?;
        let quote = Quote::parse(&base64("quote", &wire.quote)?, &base64("signature", &wire.signature)?)?;
        let pcrs = Pcrs::parse(quote.selection(), &wire.pcrs)?;
        Ok(Self { hardware, runtime_data, quote: Box::new(quote), pcrs })
    }

    fn report(&self) -> Vec<u8> {
        let (hardware, report) = match &self.hardware {
            Hardware::Snp(evidence) => (Kind::Snp, evidence.report()),
            Hardware::Tdx(evidence) => (Kind::Tdx, evidence.report()),
        };
        let base64 = Base64UrlUnpadded::encode_string;
        let wire = Wire {
            hardware,
            hardware_report: base64(&report),
            runtime_data: base64(self.runtime_data.bytes()),
            quote: base64(self.quote.message()),
            signature: base64(self.quote.signature()),
            pcrs: self.pcrs.to_wire(),
        };
        // Strings and lists of them: serializing them cannot fail.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    /// The endorsements of the processor's report.
    fn endorsements(&self) -> Map<String, Value> {
        match &self.hardware {
            Hardware::Snp(evidence) => evidence.endorsements(),
            Hardware::Tdx(evidence) => evidence.endorsements(),
        }
    }

    fn collateral_requests(&self) -> Vec<Request> {
        match &self.hardware {
            Hardware::Snp(evidence) => evidence.collateral_requests(),
            Hardware::Tdx(evidence) => evidence.collateral_requests(),
        }
    }

    fn staple(&mut self, answers: &[Option<&Answer>]) -> Result<(), StapleError> {
        match &mut self.hardware {
            Hardware::Snp(evidence) => evidence.staple(answers),
            Hardware::Tdx(evidence) => evidence.staple(answers),
        }
    }

    fn says(&self) -> Option<EnclaveHash> {
        self.pcrs.digest_of(&BOOT_PCRS).map(Into::into)
    }

    fn verify_whatever_it_carries(&self, now: UnixTime, verdict: &mut Verdict) -> Option<Measured<Facts>> {
        self.verify_with(snp::Roots::amd(), self.quote.data(), now, verdict)
    }

    fn verify(
        &self,
        report_data: &[u8; 64],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Measured<Facts>> {
        self.verify_with(snp::Roots::amd(), &Sha256::digest(report_data), now, verdict)
    }
}

impl Processor {
    pub(crate) fn enclave_hash(&self) -> &EnclaveHash {
        match self {
            Self::Snp(measured) => &measured.enclave_hash,
            Self::Tdx(measured) => &measured.enclave_hash,
        }
    }

    fn debug(&self) -> bool {
        match self {
            Self::Snp(measured) => measured.debug,
            Self::Tdx(measured) => measured.debug,
        }
    }
}

/// The document's `report`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    hardware: Kind,
    /// The attestation report of SEV-SNP, or a TD quote.
    hardware_report: String,
    runtime_data: String,
    quote: String,
    signature: String,
    /// The PCRs of the quote's selection, by index.
    pcrs: Vec<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Snp,
    Tdx,
}

fn base64(member: &'static str, text: &str) -> Result<Vec<u8>, ParseError> {
    Base64UrlUnpadded::decode_vec(text).map_err(|_| ParseError::Base64 { member })
}

#[cfg(test)]
mod tests;
