//! Evidence of each TEE, and what it proves.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::collateral::{Answer, Request, StapleError};
#[cfg(feature = "insecure-dev")]
use crate::insecure;
use crate::policy::Signer;
use crate::{EnclaveHash, UnixTime, Verdict, azure, nitro, sgx, snp, tdx, tpm};

/// The kinds of trusted execution environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// A software stand-in for development. It protects nothing.
    Insecure,
    /// An Azure confidential VM: the paravisor's report and its vTPM's quote.
    Azure,
    /// An AWS Nitro enclave.
    Nitro,
    /// An Intel SGX enclave.
    Sgx,
    /// An AMD SEV-SNP guest.
    Snp,
    /// An Intel TDX trust domain.
    Tdx,
    /// A machine with measured boot and a TPM 2.0.
    Tpm,
}

/// A TEE's statement about the program it runs and the 64 bytes that program asked it to include, with what it takes
/// to check it without a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The software stand-in.
    #[cfg(feature = "insecure-dev")]
    Insecure(insecure::Report),
    /// An Azure confidential VM: the paravisor's report and its vTPM's quote.
    Azure(azure::Evidence),
    /// An AWS Nitro enclave.
    Nitro(nitro::Evidence),
    /// An Intel SGX enclave.
    Sgx(sgx::Evidence),
    /// An AMD SEV-SNP guest.
    Snp(snp::Evidence),
    /// An Intel TDX trust domain.
    Tdx(tdx::Evidence),
    /// A machine with measured boot and a TPM 2.0.
    Tpm(tpm::Evidence),
}

/// Evidence that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The TEE is unknown, or this build was made without it.
    #[error("expected evidence of a TEE this build can verify ({}), found `{found}`", known_tees())]
    Tee {
        /// The document's TEE name, shortened.
        found: String,
    },
    /// The insecure TEE's report is malformed.
    #[cfg(feature = "insecure-dev")]
    #[error("malformed report of the insecure TEE: {0}")]
    Insecure(insecure::ReportError),
    /// Evidence of `azure` is malformed.
    #[error("malformed evidence of `azure`: {0}")]
    Azure(azure::ParseError),
    /// Evidence of `nitro` is malformed.
    #[error("malformed evidence of `nitro`: {0}")]
    Nitro(nitro::ParseError),
    /// Evidence of `sgx` is malformed.
    #[error("malformed evidence of `sgx`: {0}")]
    Sgx(sgx::ParseError),
    /// Evidence of `snp` is malformed.
    #[error("malformed evidence of `snp`: {0}")]
    Snp(snp::ParseError),
    /// Evidence of `tdx` is malformed.
    #[error("malformed evidence of `tdx`: {0}")]
    Tdx(tdx::ParseError),
    /// Evidence of `tpm` is malformed.
    #[error("malformed evidence of `tpm`: {0}")]
    Tpm(tpm::ParseError),
}

impl Tee {
    /// Its name on the wire, in policy files and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insecure => "insecure",
            Self::Azure => "azure",
            Self::Nitro => "nitro",
            Self::Sgx => "sgx",
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Tpm => "tpm",
        }
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Evidence {
    /// The TEE that made it.
    pub fn tee(&self) -> Tee {
        match *self {
            #[cfg(feature = "insecure-dev")]
            Self::Insecure(_) => Tee::Insecure,
            Self::Azure(_) => Tee::Azure,
            Self::Nitro(_) => Tee::Nitro,
            Self::Sgx(_) => Tee::Sgx,
            Self::Snp(_) => Tee::Snp,
            Self::Tdx(_) => Tee::Tdx,
            Self::Tpm(_) => Tee::Tpm,
        }
    }

    /// Reads `report` and `endorsements` of a document's `evidence` (protocol.md 2.2).
    pub fn parse(tee: &str, report: &[u8], endorsements: &Map<String, Value>) -> Result<Self, EvidenceError> {
        match tee {
            #[cfg(feature = "insecure-dev")]
            "insecure" => {
                insecure::Report::parse(report).map(Self::Insecure).map_err(EvidenceError::Insecure)
            }
            "azure" => {
                azure::Evidence::parse(report, endorsements).map(Self::Azure).map_err(EvidenceError::Azure)
            }
            "nitro" => {
                nitro::Evidence::parse(report, endorsements).map(Self::Nitro).map_err(EvidenceError::Nitro)
            }
            "sgx" => sgx::Evidence::parse(report, endorsements).map(Self::Sgx).map_err(EvidenceError::Sgx),
            "snp" => snp::Evidence::parse(report, endorsements).map(Self::Snp).map_err(EvidenceError::Snp),
            "tdx" => tdx::Evidence::parse(report, endorsements).map(Self::Tdx).map_err(EvidenceError::Tdx),
            "tpm" => tpm::Evidence::parse(report, endorsements).map(Self::Tpm).map_err(EvidenceError::Tpm),
            _ => Err(EvidenceError::Tee { found: tee.chars().take(32).collect() }),
        }
    }

    /// The raw bytes of the document's `report`.
    pub(crate) fn report(&self) -> Vec<u8> {
        match *self {
            #[cfg(feature = "insecure-dev")]
            Self::Insecure(ref report) => report.to_bytes(),
            Self::Azure(ref evidence) => evidence.report(),
            Self::Nitro(ref evidence) => evidence.report(),
            Self::Sgx(ref evidence) => evidence.report(),
            Self::Snp(ref evidence) => evidence.report(),
            Self::Tdx(ref evidence) => evidence.report(),
            Self::Tpm(ref evidence) => evidence.report(),
        }
    }

    /// The document's `endorsements`.
    pub(crate) fn endorsements(&self) -> Map<String, Value> {
        match *self {
            #[cfg(feature = "insecure-dev")]
            Self::Insecure(_) => Map::new(),
            Self::Azure(ref evidence) => evidence.endorsements(),
            Self::Nitro(ref evidence) => evidence.endorsements(),
            Self::Sgx(ref evidence) => evidence.endorsements(),
            Self::Snp(ref evidence) => evidence.endorsements(),
            Self::Tdx(ref evidence) => evidence.endorsements(),
            Self::Tpm(ref evidence) => evidence.endorsements(),
        }
    }

    /// What to fetch of the TEE's vendor so that a client can verify this evidence without a network; empty when
    /// nothing is needed.
    pub fn collateral_requests(&self) -> Vec<Request> {
        match *self {
            #[cfg(feature = "insecure-dev")]
            Self::Insecure(_) => Vec::new(),
            Self::Azure(ref evidence) => evidence.collateral_requests(),
            Self::Nitro(ref evidence) => evidence.collateral_requests(),
            Self::Sgx(ref evidence) => evidence.collateral_requests(),
            Self::Snp(ref evidence) => evidence.collateral_requests(),
            Self::Tdx(ref evidence) => evidence.collateral_requests(),
            Self::Tpm(ref evidence) => evidence.collateral_requests(),
        }
    }

    /// Staples the vendor's `answers` to the requests of [`collateral_requests`](Self::collateral_requests), in their
    /// order; `None` stands for one that is not at hand, and what does without it is stapled all the same. Whether they
    /// are genuine is decided by who verifies.
    ///
    /// # Errors
    /// See [`StapleError`]; nothing was stapled then.
    pub fn staple(&mut self, answers: &[Option<&Answer>]) -> Result<(), StapleError> {
        match *self {
            #[cfg(feature = "insecure-dev")]
            Self::Insecure(_) => Ok(()),
            Self::Azure(ref mut evidence) => evidence.staple(answers),
            Self::Nitro(ref mut evidence) => evidence.staple(answers),
            Self::Sgx(ref mut evidence) => evidence.staple(answers),
            Self::Snp(ref mut evidence) => evidence.staple(answers),
            Self::Tdx(ref mut evidence) => evidence.staple(answers),
            Self::Tpm(ref mut evidence) => evidence.staple(answers),
        }
    }

    /// Checks signatures and report data at `now`; says what the TEE measured, or nothing when the evidence does not
    /// say it. Makes every check, whatever the others say.
    pub(crate) fn verify(
        &self,
        report_data: &[u8; 64],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Measured> {
        match *self {
            #[cfg(feature = "insecure-dev")]
            Self::Insecure(ref report) => Some(report.verify(report_data, verdict)),
            Self::Azure(ref evidence) => evidence.verify(report_data, now, verdict),
            Self::Nitro(ref evidence) => evidence.verify(report_data, now, verdict),
            Self::Sgx(ref evidence) => evidence.verify(report_data, now, verdict),
            Self::Snp(ref evidence) => evidence.verify(report_data, now, verdict),
            Self::Tdx(ref evidence) => evidence.verify(report_data, now, verdict),
            Self::Tpm(ref evidence) => evidence.verify(report_data, now, verdict),
        }
    }
}

/// What a TEE says of the program it runs.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) enclave_hash: EnclaveHash,
    /// Who signed the program, where programs are signed.
    pub(crate) signer: Option<Signer>,
    pub(crate) debug: bool,
    /// What the TEE's own section of a policy is about.
    pub(crate) facts: Facts,
}

/// What only one kind of TEE says.
#[derive(Debug)]
pub(crate) enum Facts {
    #[cfg(feature = "insecure-dev")]
    Insecure,
    Azure(azure::Facts),
    Nitro(nitro::Facts),
    Sgx(sgx::Facts),
    Snp(snp::Facts),
    Tdx(tdx::Facts),
    Tpm(tpm::Facts),
}

fn known_tees() -> &'static str {
    if cfg!(feature = "insecure-dev") {
        "azure, nitro, sgx, snp, tdx, tpm, insecure"
    } else {
        "azure, nitro, sgx, snp, tdx, tpm"
    }
}
