//! AWS Nitro enclaves: the attestation document of the Nitro hypervisor (protocol.md 2.13).
//!
//! The document carries its own certificates and AWS publishes no revocation lists for it, so nothing is stapled. The
//! signing certificate lives three hours, so evidence verifies no longer than that.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha384};

use crate::contract::Attested;
use crate::digest::encode;
use crate::measured::Measured;
use crate::shown::shown;
use crate::x509::{Algorithm, Hash, shown_time};
use crate::{EnclaveHash, Hex, UnixTime, Verdict};

mod chain;
mod document;
pub mod measure;
mod policy;
#[cfg(feature = "produce")]
mod produce;

use chain::Chain;
pub use document::ParseError;
use document::{Document, Pcr};
pub use policy::{Policy, SigningCertificate, SigningCertificateError};
#[cfg(feature = "produce")]
pub use produce::{Device, DeviceError};

/// Evidence as received or produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    report: Vec<u8>,
    document: Document,
}

/// What this TEE says beyond the enclave hash, for [`Policy`].
#[derive(Debug)]
pub(crate) struct Facts {
    pcrs: BTreeMap<u8, Pcr>,
    debug: bool,
    /// Seconds since the hypervisor made the document.
    age_s: u64,
}

impl Evidence {
    /// `verify` under another root, for tests.
    fn verify_with(
        &self,
        root: &[u8],
        report_data: &[u8; 64],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Measured<Facts> {
        self.verify_carrying(root, report_data, now, verdict)
    }

    /// As `verify`, for a document that carries other data than ours.
    fn verify_carrying(
        &self,
        root: &[u8],
        report_data: &[u8],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Measured<Facts> {
        let document = &self.document;
        let chain = Chain::read(&document.cabundle, &document.certificate);
        match &chain {
            Ok(chain) => {
                self.check_signature(chain, verdict);
                chain.check(root, now, verdict);
                self.check_time(chain, now, verdict);
            }
            Err(error) => {
                verdict.undecided("signature", "ES384 by the document's certificate", "no such certificate");
                verdict.decide("chain", "certificates up to AWS's root", error.to_string(), false);
                verdict.undecided(
                    "chain validity",
                    format!("valid at {}", shown_time(now)),
                    "no certificates",
                );
                verdict.undecided("document time", "while its certificate is valid", "no such certificate");
            }
        }
        let user_data = document.user_data.as_deref();
        let said = |data: Option<&[u8]>| data.map_or_else(|| "absent".into(), encode);
        let expected = said(Some(report_data).filter(|data| !data.is_empty()));
        let carried = user_data.unwrap_or_default() == report_data;
        verdict.decide("report data", expected, said(user_data), carried);
        verdict.info("module", shown(&document.module_id));
        verdict.info("document nonce", length_of(document.nonce.as_deref()));
        verdict.info("public key", length_of(document.public_key.as_deref()));
        self.measured(now)
    }

    fn check_signature(&self, chain: &Chain, verdict: &mut Verdict) {
        let signed = self.document.signed();
        let found = match chain.signer().public_key() {
            Ok(key) => {
                let signature = &self.document.signature;
                key.verify(Algorithm::EcdsaFixed(Hash::Sha384), &signed, signature)
                    .map_err(|err| err.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        let passed = found.is_ok();
        let found = found.map_or_else(|error| error, |()| format!("ES384 by {}", chain.signer_name()));
        verdict.decide("signature", "ES384 by the document's certificate", found, passed);
    }

    /// The hypervisor's clock against its certificate's period and against ours.
    fn check_time(&self, chain: &Chain, now: UnixTime, verdict: &mut Verdict) {
        let made = self.made();
        let (from, until) = chain.signer().validity();
        let latest = UnixTime(until.0.min(now.0.saturating_add(CLOCK_TOLERANCE_S)));
        let expected = format!("{} to {}", shown_time(from), shown_time(latest));
        verdict.decide("document time", expected, shown_time(made), (from..=latest).contains(&made));
    }

    fn measured(&self, now: UnixTime) -> Measured<Facts> {
        let document = &self.document;
        let (registers, hash) = (self.registers(), self.hash());
        // Every image has something in each of them, so a zero one was not measured.
        let debug = registers.contains(&[0; 48]);
        Measured {
            enclave_hash: hash.into(),
            signer: None,
            debug,
            facts: Facts { pcrs: document.pcrs.clone(), debug, age_s: now.0.saturating_sub(self.made().0) },
        }
    }

    fn registers(&self) -> [Pcr; 3] {
        [self.document.pcr(0), self.document.pcr(1), self.document.pcr(2)]
    }

    fn hash(&self) -> Hex<48> {
        Hex(Sha384::digest(self.registers().concat()).into())
    }

    fn made(&self) -> UnixTime {
        UnixTime(self.document.timestamp_ms / 1000)
    }
}

impl Facts {
    /// None: Nitro's vendor counts no TCB recovery events.
    pub(crate) fn tcb_evaluation(&self) -> Option<u32> {
        None
    }
}

impl Attested for Evidence {
    type Error = ParseError;
    type Facts = Facts;

    /// Reads a COSE_Sign1. There are no endorsements; whatever is in their place is left out.
    fn parse(report: &[u8], _endorsements: &Map<String, Value>) -> Result<Self, ParseError> {
        Ok(Self { report: report.to_vec(), document: Document::parse(report)? })
    }

    fn report(&self) -> Vec<u8> {
        self.report.clone()
    }

    fn says(&self) -> Option<EnclaveHash> {
        Some(self.hash().into())
    }

    fn verify_whatever_it_carries(&self, now: UnixTime, verdict: &mut Verdict) -> Option<Measured<Facts>> {
        let carried = self.document.user_data.clone().unwrap_or_default();
        Some(self.verify_carrying(AWS_ROOT, &carried, now, verdict))
    }

    fn verify(
        &self,
        report_data: &[u8; 64],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Measured<Facts>> {
        Some(self.verify_with(AWS_ROOT, report_data, now, verdict))
    }
}

fn length_of(bytes: Option<&[u8]>) -> String {
    bytes.map_or("absent".into(), |bytes| format!("{} bytes", bytes.len()))
}

/// "AWS Nitro Enclaves Root-G1", SHA-256 641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b.
const AWS_ROOT: &[u8] = include_bytes!("nitro/root.der");

/// Seconds a document may come from the future: clocks differ.
const CLOCK_TOLERANCE_S: u64 = 300;

#[cfg(test)]
mod tests;
