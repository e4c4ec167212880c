//! Evidence of each TEE, and what it proves.

use std::fmt;

use serde::Serialize;

#[cfg(feature = "insecure-dev")]
use crate::insecure;
use crate::{EnclaveHash, UnixTime, Verdict};

/// The kinds of trusted execution environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// A software stand-in for development. It protects nothing.
    Insecure,
}

/// A TEE's statement about the program it runs and the 64 bytes that program asked it to include.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The software stand-in.
    #[cfg(feature = "insecure-dev")]
    Insecure(insecure::Report),
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
}

impl Tee {
    /// Its name on the wire and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insecure => "insecure",
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
        }
    }

    pub(crate) fn parse(tee: &str, report: &[u8]) -> Result<Self, EvidenceError> {
        match tee {
            #[cfg(feature = "insecure-dev")]
            "insecure" => {
                insecure::Report::parse(report).map(Self::Insecure).map_err(EvidenceError::Insecure)
            }
            _ => {
                let _ = report;
                Err(EvidenceError::Tee { found: tee.chars().take(32).collect() })
            }
        }
    }

    /// The raw bytes of the document's `report`.
    pub(crate) fn report(&self) -> Vec<u8> {
        match *self {
            #[cfg(feature = "insecure-dev")]
            Self::Insecure(ref report) => report.to_bytes(),
        }
    }

    /// Checks signatures and report data at `now`; says what the TEE measured.
    #[cfg_attr(
        not(feature = "insecure-dev"),
        allow(unused_variables, reason = "without a TEE nothing reads them")
    )]
    pub(crate) fn verify(&self, report_data: &[u8; 64], now: UnixTime, verdict: &mut Verdict) -> Measured {
        match *self {
            #[cfg(feature = "insecure-dev")]
            Self::Insecure(ref report) => {
                // Nothing is signed, so no certificate can have expired at `now`.
                let _ = now;
                report.verify(report_data, verdict)
            }
        }
    }
}

/// What a TEE says of the program it runs.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) enclave_hash: EnclaveHash,
    /// SHA-256 of the signer's public key as DER, where programs are signed.
    pub(crate) signer: Option<[u8; 32]>,
    pub(crate) debug: bool,
}

fn known_tees() -> &'static str {
    if cfg!(feature = "insecure-dev") { "insecure" } else { "none" }
}
