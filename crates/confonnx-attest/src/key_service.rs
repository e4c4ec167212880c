//! Evidence in the forms that services want which release secrets against it: the Key Broker Service of Confidential
//! Containers Trustee, and Microsoft Azure Attestation, whose tokens Azure Key Vault takes.
//!
//! Whether they accept it is theirs to decide; nothing here is a verdict. A TEE whose form could not be checked against
//! the service's own code or documents has none here.

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha384};

#[cfg(feature = "produce")]
use zeroize::Zeroizing;

use crate::contract::Attested;
pub use crate::maa::MaaRequest;
use crate::{Evidence, Tee, snp};
#[cfg(feature = "produce")]
use crate::{azure, collateral};

/// A key of this machine to which services encrypt that do not take a key of ours, with the evidence that names it.
#[cfg(feature = "produce")]
#[derive(Debug)]
pub struct MachineKey(azure::GuestKey);

#[cfg(feature = "produce")]
pub use azure::{DeviceError as MachineError, GuestError as MachineFormError};

/// Why evidence has no form for a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The form for this TEE is not known.
    #[error("{service} is asked with evidence of {}, not of `{found}`: run the server there, or take another key provider", names(.expected))]
    Tee {
        /// The service.
        service: &'static str,
        /// The TEEs whose evidence has a form for the service.
        expected: &'static [Tee],
        /// The TEE of this server.
        found: Tee,
    },
    /// The report has no such form, or what vouches for it is missing.
    #[error(transparent)]
    Report(#[from] snp::FormError),
}

impl Tee {
    /// The name by which Trustee's `POST /kbs/v0/auth` knows it (crate `kbs-types` 0.18, `Tee`).
    ///
    /// # Errors
    /// [`ReleaseError::Tee`]
    pub fn trustee_name(self) -> Result<&'static str, ReleaseError> {
        match self {
            // Trustee's own stand-in, for tests: its default policies refuse it.
            Self::Insecure => Ok("sample"),
            Self::Snp => Ok("snp"),
            Self::Tdx => Ok("tdx"),
            Self::Sgx => Ok("sgx"),
            Self::Azure | Self::Nitro | Self::Tpm => {
                let expected = &[Self::Snp, Self::Tdx, Self::Sgx];
                Err(ReleaseError::Tee { service: TRUSTEE, expected, found: self })
            }
        }
    }
}

#[cfg(feature = "produce")]
impl crate::produce::Attester {
    /// A key of this machine, another one for each `unique`; `None` where services take keys of ours. May block for seconds.
    ///
    /// # Errors
    /// When the device makes none.
    pub fn machine_key(
        &self,
        unique: &[u8; 256],
    ) -> Result<Option<MachineKey>, crate::produce::ProduceError> {
        match self {
            Self::Azure(device) => Ok(Some(MachineKey(device.guest_key(unique)?))),
            _ => Ok(None),
        }
    }
}

#[cfg(feature = "produce")]
impl MachineKey {
    /// What is to be fetched of the processor's vendor, see [`Evidence::collateral_requests`].
    pub fn collateral_requests(&mut self) -> Vec<collateral::Request> {
        self.0.evidence().collateral_requests()
    }

    /// Adds the answers, see [`Evidence::staple`].
    ///
    /// # Errors
    /// When an answer is malformed.
    pub fn staple(&mut self, answers: &[Option<&collateral::Answer>]) -> Result<(), collateral::StapleError> {
        self.0.evidence().staple(answers)
    }

    /// What Microsoft Azure Attestation is asked with; it answers with a token that is encrypted to the key.
    ///
    /// # Errors
    /// When the key's evidence is of no form that the service reads.
    pub fn maa(&self) -> Result<MaaRequest, MachineFormError> {
        self.0.maa()
    }

    /// Decrypts what Microsoft Azure Attestation encrypted: RSAES-PKCS1-v1_5. Blocks.
    ///
    /// # Errors
    /// When the machine does not decrypt it.
    pub fn decrypt_pkcs1(&mut self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, MachineError> {
        self.0.decrypt_pkcs1(ciphertext)
    }

    /// Decrypts what a vault encrypted: RSAES-OAEP with SHA-256. Blocks.
    ///
    /// # Errors
    /// When the machine does not decrypt it.
    pub fn decrypt_oaep(&mut self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, MachineError> {
        self.0.decrypt_oaep(ciphertext)
    }
}

impl Evidence {
    /// `primary_evidence` of Trustee's attestation payload: what the verifiers in its `deps/verifier` read.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub fn trustee(&self) -> Result<Value, ReleaseError> {
        self.tee().trustee_name()?;
        match self {
            #[cfg(feature = "insecure-dev")]
            Self::Insecure(report) => {
                // Trustee's verifier compares the digest alone, without the zeros that fill the field of real hardware.
                let (digest, _) = report.report_data.split_at_checked(TRUSTEE_DIGEST).unwrap_or_default();
                Ok(json!({ "svn": "1", "report_data": Base64::encode_string(digest) }))
            }
            Self::Snp(evidence) => Ok(evidence.trustee()?),
            Self::Tdx(evidence) => {
                Ok(json!({ "cc_eventlog": null, "quote": Base64::encode_string(&evidence.report()) }))
            }
            Self::Sgx(evidence) => Ok(json!({ "quote": Base64::encode_string(&evidence.report()) })),
            Self::Azure(_) | Self::Nitro(_) | Self::Tpm(_) => self.tee().trustee_name().map(|_| Value::Null),
        }
    }

    /// What Microsoft Azure Attestation is asked with (REST API, "Attest Sev Snp Vm" of 2022-08-01 and "Attest Tdx Vm" of
    /// 2025-06-01). The evidence has to carry [`maa_report_data`] of `runtime_data`, a JSON object.
    ///
    /// # Errors
    /// See [`ReleaseError`].
    pub fn maa(&self, runtime_data: &[u8]) -> Result<MaaRequest, ReleaseError> {
        let runtime = json!({ "data": Base64UrlUnpadded::encode_string(runtime_data), "dataType": "JSON" });
        match self {
            Self::Snp(evidence) => {
                let report = json!({
                    "SnpReport": Base64UrlUnpadded::encode_string(&evidence.report()),
                    "VcekCertChain": Base64UrlUnpadded::encode_string(evidence.chain_pem()?.as_bytes()),
                });
                let report = Base64UrlUnpadded::encode_string(report.to_string().as_bytes());
                let body = json!({ "report": report, "runtimeData": runtime });
                Ok(MaaRequest { path: "/attest/SevSnpVm?api-version=2022-08-01", body })
            }
            Self::Tdx(evidence) => {
                let quote = Base64UrlUnpadded::encode_string(&evidence.report());
                let body = json!({ "quote": quote, "runtimeData": runtime });
                Ok(MaaRequest { path: "/attest/TdxVm?api-version=2025-06-01", body })
            }
            other => {
                let expected = &[Tee::Snp, Tee::Tdx, Tee::Azure];
                Err(ReleaseError::Tee { service: MAA, expected, found: other.tee() })
            }
        }
    }
}

/// What evidence for Trustee has to carry: SHA-384 of the runtime data as canonical JSON (RFC 8785), then zeros.
pub fn trustee_report_data(runtime_data: &[u8]) -> [u8; 64] {
    padded(&Sha384::digest(runtime_data))
}

/// What evidence for Microsoft Azure Attestation has to carry: SHA-256 of the runtime data, then zeros.
pub fn maa_report_data(runtime_data: &[u8]) -> [u8; 64] {
    padded(&Sha256::digest(runtime_data))
}

fn padded(digest: &[u8]) -> [u8; 64] {
    let mut data = [0; 64];
    data.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    data
}

fn names(tees: &[Tee]) -> String {
    tees.iter().map(|tee| tee.name()).collect::<Vec<_>>().join(", ")
}

const TRUSTEE: &str = "a Key Broker Service";
const MAA: &str = "Microsoft Azure Attestation";
/// Bytes of SHA-384.
#[cfg(feature = "insecure-dev")]
const TRUSTEE_DIGEST: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, insecure};

    const QUOTE: &[u8] = include_bytes!("../../../vectors/evidence/tdx/tdx_quote");

    fn parse(tee: Tee, report: &[u8]) -> Evidence {
        Evidence::parse(tee.name(), report, &serde_json::Map::new()).unwrap()
    }

    #[test]
    fn the_stand_in_is_trustees_sample() {
        let report_data = trustee_report_data(b"{}");
        let report = insecure::Report { report_data, measurement: Digest([1; 32]), validity: None };
        let evidence = Evidence::Insecure(report);
        let expected = Base64::encode_string(&Sha384::digest(b"{}"));
        assert_eq!(evidence.trustee().unwrap(), json!({ "svn": "1", "report_data": expected }));
        assert_eq!(Tee::Insecure.trustee_name(), Ok("sample"));
        let error = evidence.maa(b"{}").unwrap_err().to_string();
        assert!(error.contains("snp, tdx") && error.contains("`insecure`"), "{error}");
    }

    #[test]
    fn quotes_go_as_they_are() {
        let evidence = parse(Tee::Tdx, QUOTE);
        let sent = evidence.trustee().unwrap();
        assert_eq!(sent["cc_eventlog"], Value::Null);
        let quote = Base64::decode_vec(sent["quote"].as_str().unwrap()).unwrap();
        assert!(QUOTE.starts_with(&quote) && quote.len() > 4000);
        let asked = evidence.maa(br#"{"keys":[]}"#).unwrap();
        assert_eq!(asked.path, "/attest/TdxVm?api-version=2025-06-01");
        assert_eq!(asked.body["quote"], Base64UrlUnpadded::encode_string(&quote));
        assert_eq!(asked.body["runtimeData"], json!({ "data": "eyJrZXlzIjpbXX0", "dataType": "JSON" }));

        let quote = include_bytes!("../../../vectors/evidence/sgx/sgx_quote");
        let sent = parse(Tee::Sgx, quote).trustee().unwrap();
        assert_eq!(sent.as_object().unwrap().keys().collect::<Vec<_>>(), ["quote"]);
    }

    #[test]
    fn a_tee_without_a_form_is_named() {
        for tee in [Tee::Azure, Tee::Nitro, Tee::Tpm] {
            let error = tee.trustee_name().unwrap_err().to_string();
            assert!(error.contains(&format!("not of `{tee}`")) && error.contains("snp, tdx, sgx"), "{error}");
        }
    }

    #[test]
    fn digests_are_followed_by_zeros() {
        let data = trustee_report_data(b"abc");
        assert_eq!((&data[..4], &data[48..]), (&[0xcb, 0x00, 0x75, 0x3f][..], &[0; 16][..]));
        let data = maa_report_data(b"abc");
        assert_eq!((&data[..4], &data[32..]), (&[0xba, 0x78, 0x16, 0xbf][..], &[0; 32][..]));
    }
}
