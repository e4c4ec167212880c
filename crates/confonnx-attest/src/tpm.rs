//! TPM 2.0 with measured boot (protocol.md 2.12).
//!
//! A quote is signed by an attestation key (AK) of the TPM over the PCRs, into which firmware, boot loader and kernel
//! measured what they started. It is worth what the AK is worth, so a policy has to name it or who certified it.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::contract::Attested;
use crate::digest::encode;
use crate::measured::Measured;
use crate::x509::Certificate;
use crate::{EnclaveHash, UnixTime, Verdict};

mod algorithm;
mod boot_log;
mod certified;
#[cfg(feature = "produce")]
pub(crate) mod command;
mod key;
pub mod measure;
mod pcrs;
mod policy;
#[cfg(feature = "produce")]
mod produce;
mod quote;
mod signature;
mod wire;

use boot_log::{MAX_LOG_BYTES, SecureBoot};
pub use certified::AkRoots;
#[cfg(feature = "produce")]
pub use command::{CommandError, CommandError as DeviceError};
#[cfg(feature = "produce")]
pub(crate) use command::{DecryptionKey, Handle, Padding, Tpm};
pub use key::{AkPublic, KeyError};
pub(crate) use pcrs::list;
pub use pcrs::{Pcrs, PcrsError};
pub use policy::{PcrIndex, Policy};
pub(crate) use policy::{check_pcrs, pcrs_name_program};
#[cfg(feature = "produce")]
pub use produce::Device;
#[cfg(feature = "produce")]
pub(crate) use produce::{DEVICE, QUOTED_PCRS};
pub(crate) use quote::Names;
pub use quote::{Quote, QuoteError, Quoted};
pub use wire::WireError;

/// The PCRs whose values, in this order, the enclave hash is the SHA-256 of: all that measure code and what decides
/// which code runs. Firmware (0), option ROMs (2), EFI programs (4), Secure Boot (7), command line, kernel and initrd
/// as boot loader and kernel measure them (8, 9), the unified kernel image with its boot phases (11), its overrides and
/// credentials (12), system extensions (13).
///
/// The verifier fixes them: a quote's digest does not say which PCRs it is of, and software can set some of the others
/// (16, 23) to any value.
pub const BOOT_PCRS: [u8; 9] = [0, 2, 4, 7, 8, 9, 11, 12, 13];

/// The bytes of a TPMT_SIGNATURE by RSASSA.
#[cfg(feature = "produce")]
pub(crate) fn rsa_signature(tpmt: &[u8]) -> Option<Vec<u8>> {
    match signature::Signature::parse(tpmt) {
        Ok(signature::Signature::Rsa { padding: signature::Padding::Pkcs1, bytes, .. }) => Some(bytes),
        _ => None,
    }
}

/// Evidence as received or produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    ak: AkPublic,
    /// Certificates of the key, its own first, each issued by the next; empty if there is none.
    ak_chain: Vec<Certificate>,
    quote: Box<Quote>,
    pcrs: Pcrs,
    /// The firmware's log of what it measured.
    event_log: Option<Vec<u8>>,
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
    /// The attestation key cannot be read.
    #[error("ak_public: {0}")]
    Ak(#[from] KeyError),
    /// A certificate cannot be read.
    #[error("ak_certificates: {found}")]
    Certificate {
        /// What is wrong with it.
        found: String,
    },
    /// There are more certificates than a chain needs.
    #[error("ak_certificates: expected at most {MAX_CERTIFICATES}, found {found}")]
    Certificates {
        /// How many certificates there are.
        found: usize,
    },
    /// The event log is longer than one is.
    #[error("event_log: expected at most {MAX_LOG_BYTES} bytes, found {found}")]
    EventLog {
        /// Length in bytes.
        found: usize,
    },
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
    ak: AkPublic,
    ak_chain: Vec<Certificate>,
    pcrs: Pcrs,
    quoted: Quoted,
    secure_boot: SecureBoot,
    verified_at: UnixTime,
}

impl Facts {
    /// None: makers of TPMs count no TCB recovery events.
    pub(crate) fn tcb_evaluation(&self) -> Option<u32> {
        None
    }
}

impl Attested for Evidence {
    type Error = ParseError;
    type Facts = Facts;

    fn parse(report: &[u8], _endorsements: &Map<String, Value>) -> Result<Self, ParseError> {
        let wire: Wire = crate::json::from_slice(report)?;
        let ak = AkPublic::from_tpmt(&base64("ak_public", &wire.ak_public)?)?;
        let quote = Quote::parse(&base64("quote", &wire.quote)?, &base64("signature", &wire.signature)?)?;
        let pcrs = Pcrs::parse(quote.selection(), &wire.pcrs)?;
        let ak_chain = certificates(&wire.ak_certificates)?;
        let event_log = wire.event_log.map(|log| base64("event_log", &log)).transpose()?;
        if let Some(found) = event_log.as_ref().map(Vec::len).filter(|&len| len > MAX_LOG_BYTES) {
            return Err(ParseError::EventLog { found });
        }
        Ok(Self { ak, ak_chain, quote: Box::new(quote), pcrs, event_log })
    }

    fn report(&self) -> Vec<u8> {
        let base64 = Base64UrlUnpadded::encode_string;
        let wire = Wire {
            ak_public: base64(self.ak.tpmt().unwrap_or_default()),
            ak_certificates: self.ak_chain.iter().map(|certificate| base64(certificate.der())).collect(),
            quote: base64(self.quote.message()),
            signature: base64(self.quote.signature()),
            pcrs: self.pcrs.to_wire(),
            event_log: self.event_log.as_deref().map(base64),
        };
        // Strings and lists of them: serializing them cannot fail.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    fn says(&self) -> Option<EnclaveHash> {
        self.pcrs.digest_of(&BOOT_PCRS).map(Into::into)
    }

    fn verify_whatever_it_carries(&self, now: UnixTime, verdict: &mut Verdict) -> Option<Measured<Facts>> {
        self.verify_carrying(self.quote.data(), now, verdict)
    }

    fn verify(
        &self,
        report_data: &[u8; 64],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Measured<Facts>> {
        self.verify_carrying(&Sha256::digest(report_data), now, verdict)
    }
}

impl Evidence {
    /// As `verify`, for any data that a quote may carry.
    fn verify_carrying(&self, data: &[u8], now: UnixTime, verdict: &mut Verdict) -> Option<Measured<Facts>> {
        let names = Names { signature: "signature", data: "report data" };
        let quoted = self.quote.verify(&self.ak, data, &self.pcrs, names, verdict);
        // The description of the key is bytes that nobody signed: certificates are of the key alone.
        let name = self.ak.name();
        let named = name.is_some_and(|name| self.quote.is_signed_by(&name));
        let found = name.map_or_else(|| "a key without description".into(), |name| encode(&name));
        let found = if named { found } else { format!("{found}, which is not the name in the quote") };
        verdict.decide("ak name", "the name of the key that the quote says signed it", found, named);
        let lacks = self.ak.lacks();
        let found =
            if lacks.is_empty() { ATTRIBUTES.into() } else { format!("without {}", lacks.join(", ")) };
        verdict.decide("ak attributes", ATTRIBUTES, found, lacks.is_empty());
        let enclave_hash = self.pcrs.digest_of(&BOOT_PCRS);
        let expected = format!("pcrs {}, and others", list(&BOOT_PCRS));
        let found = format!("pcrs {}", list(self.pcrs.0.keys()));
        verdict.decide("boot pcrs", expected, found, enclave_hash.is_some());
        let secure_boot = boot_log::check(self.event_log.as_deref(), &self.pcrs, verdict);
        let facts = Facts {
            ak: self.ak.clone(),
            ak_chain: self.ak_chain.clone(),
            pcrs: self.pcrs.clone(),
            quoted: quoted?,
            secure_boot,
            verified_at: now,
        };
        // A TPM knows no debug mode of what it measures: that shows in the PCRs.
        let debug = false;
        Some(Measured { enclave_hash: enclave_hash?.into(), signer: None, debug, facts })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    ak_public: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ak_certificates: Vec<String>,
    quote: String,
    signature: String,
    /// The PCRs of the quote's selection, by index.
    pcrs: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_log: Option<String>,
}

fn certificates(members: &[String]) -> Result<Vec<Certificate>, ParseError> {
    if members.len() > MAX_CERTIFICATES {
        return Err(ParseError::Certificates { found: members.len() });
    }
    let certificate = |member: &String| {
        Certificate::from_der(&base64("ak_certificates", member)?)
            .map_err(|err| ParseError::Certificate { found: err.to_string() })
    };
    members.iter().map(certificate).collect()
}

fn base64(member: &'static str, text: &str) -> Result<Vec<u8>, ParseError> {
    Base64UrlUnpadded::decode_vec(text).map_err(|_| ParseError::Base64 { member })
}

const MAX_CERTIFICATES: usize = 4;
const ATTRIBUTES: &str = "fixedTPM, fixedParent, sensitiveDataOrigin, restricted, sign, no decrypt";

#[cfg(test)]
pub(crate) mod tests;
