//! Intel SGX (protocol.md 2.10).

use der::asn1::UintRef;
use der::{Decode, Sequence};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::bound::Bound;
use crate::collateral::{Answer, Request, StapleError};
use crate::contract::Attested;
use crate::dcap::{self, Collateral, CollateralError, EnclaveReport, Platform, Quote, Root};
use crate::measured::{Measured, Signer};
use crate::x509::PublicKey;
use crate::{Digest, EnclaveHash, UnixTime, Verdict};

pub mod measure;
mod policy;
#[cfg(feature = "produce")]
mod produce;

pub use crate::dcap::{Kind, QuoteError, TcbStatus};
pub use policy::Policy;
#[cfg(feature = "produce")]
pub use produce::{Device, DeviceError};

/// Evidence as received or produced: a quote and Intel's collateral.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    quote: Quote,
    collateral: Option<Collateral>,
}

/// Bytes that are no such evidence.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The report is not an SGX quote.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// The member `collateral` of the endorsements cannot be read.
    #[error("{0}")]
    Collateral(String),
}

/// What this TEE says beyond the enclave hash, for [`Policy`].
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) report: EnclaveReport,
    pub(crate) platform: Platform,
}

impl Evidence {
    pub(crate) fn verify_with<'a>(
        &self,
        root: &Root,
        bound: impl Into<Bound<'a>>,
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Facts> {
        let bound = bound.into();
        let platform = dcap::verify(root, &self.quote, self.collateral.as_ref(), bound, now, verdict)?;
        Some(Facts { report: self.quote.enclave_report()?, platform })
    }
}

impl Facts {
    pub(crate) fn tcb_evaluation(&self) -> Option<u32> {
        Some(self.platform.tcb_evaluation)
    }
}

impl Attested for Evidence {
    type Error = ParseError;
    type Facts = Facts;

    /// Reads a quote, and the member `collateral` of `endorsements` (protocol.md 2.10).
    fn parse(report: &[u8], endorsements: &Map<String, Value>) -> Result<Self, ParseError> {
        let quote = Quote::parse(report, Kind::Sgx)?;
        let collateral = endorsements.get("collateral").map(Collateral::parse).transpose()?;
        Ok(Self { quote, collateral })
    }

    fn report(&self) -> Vec<u8> {
        self.quote.bytes().to_vec()
    }

    fn endorsements(&self) -> Map<String, Value> {
        let collateral = self.collateral.as_ref();
        collateral.map(|collateral| ("collateral".into(), collateral.to_json())).into_iter().collect()
    }

    fn collateral_requests(&self) -> Vec<Request> {
        dcap::requests(&self.quote)
    }

    fn staple(&mut self, answers: &[Option<&Answer>]) -> Result<(), StapleError> {
        if let Some(collateral) = dcap::staple(&self.quote, answers)? {
            self.collateral = Some(collateral);
        }
        Ok(())
    }

    fn says(&self) -> Option<EnclaveHash> {
        Some(Digest(self.quote.enclave_report()?.mr_enclave).into())
    }

    fn verify_whatever_it_carries(&self, now: UnixTime, verdict: &mut Verdict) -> Option<Measured<Facts>> {
        self.verify(&self.quote.report_data(), now, verdict)
    }

    fn verify(
        &self,
        report_data: &[u8; 64],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Measured<Facts>> {
        let facts = self.verify_with(&Root::intel()?, report_data, now, verdict)?;
        Some(Measured {
            enclave_hash: Digest(facts.report.mr_enclave).into(),
            signer: Some(Signer::new(&facts.report.mr_signer, signer_of)),
            debug: facts.report.is_debug(),
            facts,
        })
    }
}

impl From<CollateralError> for ParseError {
    fn from(err: CollateralError) -> Self {
        Self::Collateral(err.to_string())
    }
}

/// MRSIGNER of a public key, a SubjectPublicKeyInfo as DER; `None` when SGX has no such keys: it signs with RSA-3072 and
/// exponent 3 (Intel SDM volume 3D, SIGSTRUCT).
pub(crate) fn signer_of(der: &[u8]) -> Option<Vec<u8>> {
    let Ok(PublicKey::Rsa(key)) = PublicKey::from_der(der) else { return None };
    let key = RsaPublicKey::from_der(&key).ok()?;
    let modulus = key.modulus.as_bytes();
    if modulus.len() != 384 || key.exponent.as_bytes() != [3] {
        return None;
    }
    let little_endian: Vec<u8> = modulus.iter().rev().copied().collect();
    Some(Sha256::digest(little_endian).to_vec())
}

/// PKCS#1 (RFC 8017 A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}
