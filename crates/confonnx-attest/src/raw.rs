//! Evidence by itself, as devices and services give it: without a server's document around it.

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use serde_json::{Map, Value};

use crate::x509::{Certificate, Crl, certificates_from_pem};
use crate::{Evidence, EvidenceError, Policy, UnixTime, Verdict, digest};

/// Evidence without a document, whose report data is not compared with anything: what a machine measures, and whether
/// that is genuine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvidence {
    evidence: Evidence,
}

/// Files that are no evidence.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The report cannot be read.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The report is text in no encoding that is known.
    #[error("the report is text, but neither JSON nor hex nor base64")]
    Encoding,
    /// One of the files that should vouch for the report is none that could.
    #[error(
        "expected certificates or a revocation list (DER or PEM), or Intel's collateral (JSON); found something else"
    )]
    Endorsement {
        /// The file's place among them, from 0.
        index: usize,
    },
}

impl RawEvidence {
    /// Reads a report, quote or document of that TEE (its bytes, or hex or base64 of them) with what vouches for it, in any
    /// order: certificates and revocation list (DER or PEM), Intel's collateral (JSON, with the members of protocol.md 2.9).
    ///
    /// # Errors
    /// See [`RawError`].
    pub fn read(tee: &str, report: &[u8], others: &[Vec<u8>]) -> Result<Self, RawError> {
        let mut endorsements = Map::new();
        for (index, other) in others.iter().enumerate() {
            endorsements.extend(endorsement(other).ok_or(RawError::Endorsement { index })?);
        }
        let evidence = Evidence::parse(tee, &decoded(report)?, &endorsements)?;
        Ok(Self { evidence })
    }

    /// Makes the checks of both steps that are about the TEE and what it measured. There are no claims, no keys and no
    /// nonce: nothing can be sent to whoever showed it, whatever the outcome.
    pub fn judge(&self, policy: &Policy, now: UnixTime) -> Verdict {
        let mut verdict = Verdict::default();
        let measured = self.evidence.verify_whatever_it_carries(now, &mut verdict);
        verdict.carries_anything();
        if let Some(until) = verdict.decided_until() {
            verdict.info("decided until", crate::x509::shown_time(until));
        }
        match measured.filter(|_| verdict.passes()) {
            Some(measured) => {
                verdict.appraising();
                policy.check_platform(self.evidence.tee(), &measured, &mut verdict);
            }
            None => {
                if let Some(hash) = self.evidence.says() {
                    verdict.info("measured", format!("{hash}, as the evidence says"));
                }
            }
        }
        verdict
    }
}

/// Devices give bytes; people pass them on as text.
fn decoded(report: &[u8]) -> Result<Vec<u8>, RawError> {
    let text = match str::from_utf8(report) {
        Ok(text) if !text.trim_ascii_start().starts_with('{') => text,
        _ => return Ok(report.to_vec()),
    };
    let text: String = text.split_ascii_whitespace().collect();
    let base64 = || Base64::decode_vec(&text).or_else(|_| Base64UrlUnpadded::decode_vec(&text));
    digest::decode(&text).or_else(|_| base64()).map_err(|_| RawError::Encoding)
}

/// Members of a document's `endorsements`.
fn endorsement(file: &[u8]) -> Option<Map<String, Value>> {
    if let Ok(Value::Object(collateral)) = serde_json::from_slice(file) {
        return Some(Map::from_iter([("collateral".into(), Value::Object(collateral))]));
    }
    let member = |name: &str, der: &[u8]| (name.to_owned(), Base64UrlUnpadded::encode_string(der).into());
    if let Ok(list) = Crl::from_der(file) {
        return Some(Map::from_iter([member("crl", list.der())]));
    }
    let certificates = match Certificate::from_der(file) {
        Ok(certificate) => vec![certificate],
        Err(_) => certificates_from_pem(str::from_utf8(file).ok()?).ok()?,
    };
    let mut members = Map::new();
    for certificate in &certificates {
        let name = match certificate.common_name().as_str() {
            "SEV-VCEK" => "vcek",
            "SEV-VLEK" => "vlek",
            name if name.starts_with("SEV-VLEK-") => "asvk",
            name if name.starts_with("SEV-") => "ask",
            // AMD's files of a chain have the root, too; the verifier has its own.
            name if name.starts_with("ARK-") => continue,
            _ => return None,
        };
        members.extend([member(name, certificate.der())]);
    }
    Some(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expectations, Outcome, Preset};

    macro_rules! vector {
        ($name:literal) => {
            include_bytes!(concat!("../../../vectors/evidence/", $name))
        };
    }

    fn judge(tee: &str, report: &[u8], others: &[&[u8]], at: u64, hash: &str) -> Verdict {
        let others: Vec<_> = others.iter().map(|file| file.to_vec()).collect();
        let mut expected = Expectations::from(Preset::Cloud);
        expected.narrow_enclave_hashes(vec![hash.parse().unwrap()]).unwrap();
        let policy = Policy::new(expected).unwrap();
        RawEvidence::read(tee, report, &others).unwrap().judge(&policy, UnixTime(at))
    }

    #[test]
    fn a_report_of_hardware_is_judged_by_itself() {
        let files: [&[u8]; 2] = [vector!("snp/vcek_milan.der"), vector!("snp/cert_chain_milan")];
        let measurement = {
            let bytes =
                digest::decode(str::from_utf8(vector!("snp/report_milan.hex")).unwrap().trim()).unwrap();
            digest::encode(&bytes[0x90..0xC0])
        };
        let verdict = judge("snp", vector!("snp/report_milan.hex"), &files, 1_795_426_200, &measurement);
        assert!(verdict.passes(), "{verdict}");
        assert_eq!(verdict.check("report data").unwrap().outcome, Outcome::Info);
        assert!(verdict.not_judged().any(|check| check.name == "chip"));
        let other = judge("snp", vector!("snp/report_milan.hex"), &files, 1_795_426_200, &"3f".repeat(48));
        assert_eq!(other.failed().map(|check| check.name).collect::<Vec<_>>(), ["enclave hash"]);
        // Without the chain nothing is decided, and the hash can be read off all the same.
        let bare = judge("snp", vector!("snp/report_milan.hex"), &[], 1_795_426_200, &measurement);
        assert!(bare.is_undecided(), "{bare}");
        assert_eq!(bare.check("measured").unwrap().found, format!("{measurement}, as the evidence says"));
    }

    #[test]
    fn quotes_come_with_intels_collateral() {
        let collateral: &[u8] = vector!("tdx/tdx_quote_td15ex_collateral.json");
        let at = 1_791_421_786;
        let verdict = judge("tdx", vector!("tdx/tdx_quote_td15ex"), &[collateral], at, &"3f".repeat(48));
        assert_eq!(verdict.failed().map(|check| check.name).collect::<Vec<_>>(), ["enclave hash"]);
        let until = verdict.decided_until().unwrap();
        // The first end of all counts: Intel's lists live a month, its certificates for years.
        assert!((at..at + 31 * 86_400).contains(&until.0), "{verdict}");
        assert_eq!(verdict.check("decided until").unwrap().found, crate::x509::shown_time(until));
        // A second after that end nothing can be decided any more.
        let later =
            judge("tdx", vector!("tdx/tdx_quote_td15ex"), &[collateral], until.0 + 1, &"3f".repeat(48));
        assert!(later.is_undecided(), "{later}");
        let text = Base64::encode_string(vector!("sgx/sgx_quote"));
        let verdict = judge(
            "sgx",
            text.as_bytes(),
            &[vector!("sgx/sgx_quote_collateral.json")],
            1_750_334_171,
            &"3f".repeat(32),
        );
        let failed: Vec<_> = verdict.failed().map(|check| check.name).collect();
        assert_eq!(failed, ["enclave hash", "tcb status", "advisories"]);
    }

    #[test]
    fn a_quote_of_a_tpm_is_judged_whatever_it_carries() {
        let verdict = judge("tpm", vector!("tpm/evidence.json"), &[], 1_795_426_200, &"3f".repeat(32));
        let failed: Vec<_> = verdict.failed().map(|check| check.name).collect();
        assert_eq!(failed, ["enclave hash", "ak"]);
    }

    #[test]
    fn files_that_are_nothing_are_named() {
        let read = |tee, report: &[u8], others: &[Vec<u8>]| {
            RawEvidence::read(tee, report, others).unwrap_err().to_string()
        };
        assert!(read("snp", b"not hex", &[]).contains("neither JSON nor hex nor base64"));
        assert!(read("vax", &[0xff; 4], &[]).contains("`vax`"));
        assert!(read("snp", &[0xff; 4], &[]).contains("1184 bytes"));
        assert!(read("snp", &[0; 0x4A0], &[b"junk".to_vec()]).contains("expected certificates"));
    }
}
