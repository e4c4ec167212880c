//! What a caller expects of an enclave.

use std::fmt;

use base64ct::{Base64, Encoding};
use der::Decode as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha384};

use super::Facts;
use super::document::Pcr;
use crate::contract::Section;
use crate::list::at_least_one;
use crate::{EnclaveHash, Hex, Verdict};

/// The `[nitro]` section of a policy. A register whose list is empty may have any value, which the verdict then states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Accepted values of PCR0: the image without its signature.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub pcr0: Vec<Hex<48>>,
    /// Accepted values of PCR1: kernel, its command line and the first ramdisk.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub pcr1: Vec<Hex<48>>,
    /// Accepted values of PCR2: the application, which is all other ramdisks.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub pcr2: Vec<Hex<48>>,
    /// Accepted values of PCR3: the IAM role of the parent instance, as SHA-384 of 48 zero bytes and its ARN.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub pcr3: Vec<Hex<48>>,
    /// Accepted values of PCR4: the parent instance, as SHA-384 of 48 zero bytes and its id.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub pcr4: Vec<Hex<48>>,
    /// Accepted values of PCR8: the certificate that signed the image.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub pcr8: Vec<Hex<48>>,
    /// Certificates of which one has to have signed the image; the same as their PCR8.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "at_least_one")]
    pub signing_certificates: Vec<SigningCertificate>,
    /// Accepts debug mode: the parent instance reads the enclave's console, and its registers are zero.
    pub debug: bool,
    /// Seconds that may have passed since the hypervisor made the document, by its clock.
    pub max_age_s: Option<u64>,
}

/// A certificate that signs enclave images (`nitro-cli build-enclave --signing-certificate`).
#[derive(Clone, PartialEq, Eq)]
pub struct SigningCertificate {
    der: Vec<u8>,
}

/// Text that is not such a certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningCertificateError {
    /// There is no `CERTIFICATE` block, or several.
    #[error("expected a PEM file with one `-----BEGIN CERTIFICATE-----` block, found {found}")]
    Blocks {
        /// How many.
        found: usize,
    },
    /// The block is not base64.
    #[error("the CERTIFICATE block is not base64")]
    Base64,
    /// The block is not a certificate.
    #[error("the CERTIFICATE block is not an X.509 certificate: {0}")]
    Certificate(der::Error),
}

impl Policy {
    /// No debug mode. The platform has no other switches: AWS patches it and does not report how.
    pub fn strict() -> Self {
        Self::default()
    }

    /// The same as [`strict`](Self::strict): there is nothing to concede.
    pub fn cloud() -> Self {
        Self::default()
    }

    /// Accepted values of PCR8, from both members.
    fn signers(&self) -> Vec<Hex<48>> {
        let certificates = self.signing_certificates.iter().map(|certificate| Hex(certificate.pcr8()));
        self.pcr8.iter().copied().chain(certificates).collect()
    }
}

impl Section for Policy {
    type Facts = Facts;

    /// Whether the section says which programs are accepted: by image, or by its two parts. A signer does not: images
    /// have no version, so all that it ever signed would do.
    fn names_program(&self) -> bool {
        let parts = !self.pcr1.is_empty() && !self.pcr2.is_empty();
        !self.pcr0.is_empty() || parts
    }

    fn allows_debug(&self, _facts: &Facts) -> bool {
        self.debug
    }

    fn check(&self, facts: &Facts, _enclave_hash: &EnclaveHash, verdict: &mut Verdict) {
        let registers = [
            ("pcr0", 0, self.pcr0.clone()),
            ("pcr1", 1, self.pcr1.clone()),
            ("pcr2", 2, self.pcr2.clone()),
            ("pcr3", 3, self.pcr3.clone()),
            ("pcr4", 4, self.pcr4.clone()),
            ("pcr8", 8, self.signers()),
        ];
        for (name, index, accepted) in registers {
            let found = facts.pcrs.get(&index).copied().map(Hex);
            let shown = found.map_or("absent".into(), |pcr| pcr.to_string());
            if accepted.is_empty() {
                verdict.info(name, shown);
                continue;
            }
            let expected = accepted.iter().map(Hex::to_string).collect::<Vec<_>>().join(" or ");
            // Zero is what a register holds that nothing was measured into: it names nobody.
            let named = found.is_some_and(|pcr| accepted.contains(&pcr) && (facts.debug || pcr.0 != [0; 48]));
            verdict.decide(name, expected, shown, named);
        }
        let age = format!("{} s", facts.age_s);
        match self.max_age_s {
            Some(max) => {
                verdict.decide("document age", format!("at most {max} s"), age, facts.age_s <= max);
            }
            None => verdict.info("document age", age),
        }
    }
}

impl SigningCertificate {
    /// The certificate of a PEM file with one `CERTIFICATE` block.
    ///
    /// # Errors
    /// When it has none or several, or the block is no certificate.
    pub fn from_pem(pem: &str) -> Result<Self, SigningCertificateError> {
        let found = pem.matches(BEGIN).count();
        let block = pem.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
        let (Some((body, _)), 1) = (block, found) else {
            return Err(SigningCertificateError::Blocks { found });
        };
        let body: String = body.split_ascii_whitespace().collect();
        let der = Base64::decode_vec(&body).map_err(|_| SigningCertificateError::Base64)?;
        x509_cert::Certificate::from_der(&der).map_err(SigningCertificateError::Certificate)?;
        Ok(Self { der })
    }

    /// What PCR8 of an image signed with it is: 48 zero bytes extended by SHA-384 of the DER.
    pub fn pcr8(&self) -> Pcr {
        Sha384::new().chain_update([0; 48]).chain_update(Sha384::digest(&self.der)).finalize().into()
    }

    fn to_pem(&self) -> String {
        format!("{BEGIN}\n{}\n{END}\n", Base64::encode_string(&self.der))
    }
}

impl fmt::Debug for SigningCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningCertificate(PCR8 {})", Hex(self.pcr8()))
    }
}

impl Serialize for SigningCertificate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_pem())
    }
}

impl<'de> Deserialize<'de> for SigningCertificate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_pem(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
