//! From the document's certificate up to AWS's root ("Nitro Enclaves Attestation Process", section 3.2.3).

use sha2::{Digest as _, Sha256};

use crate::digest::encode;
use crate::x509::{Certificate, X509Error, check_period, shown_time};
use crate::{UnixTime, Verdict};

/// Well-formed certificates, the signer first and the root last.
pub(super) struct Chain {
    certificates: Vec<Certificate>,
    signer: Certificate,
}

/// A certificate that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{position}: {source}")]
pub(super) struct ChainError {
    position: String,
    source: X509Error,
}

impl Chain {
    /// Reads `cabundle`, whose first is the root, and the document's own certificate.
    pub(super) fn read(cabundle: &[Vec<u8>], certificate: &[u8]) -> Result<Self, ChainError> {
        let read = |position: String, der: &[u8]| {
            Certificate::from_der(der).map_err(|source| ChainError { position, source })
        };
        let signer = read("certificate".into(), certificate)?;
        let issuers = cabundle.iter().enumerate().rev();
        let issuers = issuers.map(|(i, der)| read(format!("cabundle[{i}]"), der));
        let certificates = std::iter::once(Ok(signer.clone())).chain(issuers).collect::<Result<_, _>>()?;
        Ok(Self { certificates, signer })
    }

    /// The certificate whose key signs the document.
    pub(super) fn signer(&self) -> &Certificate {
        &self.signer
    }

    pub(super) fn signer_name(&self) -> String {
        crate::shown::shown(&self.signer.common_name())
    }

    /// Checks root, links, uses and validity.
    pub(super) fn check(&self, root: &[u8], now: UnixTime, verdict: &mut Verdict) {
        let found = self.certificates.last().map_or_else(String::new, |last| fingerprint(last.der()));
        verdict.equal("root", fingerprint(root), found);
        let linked = self.linked();
        let passed = linked.is_ok();
        let found = linked.unwrap_or_else(|reason| reason);
        verdict.decide("chain", "each certificate issued by the next, for its use", found, passed);
        self.check_validity(now, verdict);
    }

    /// The names from signer to root, or what is wrong.
    fn linked(&self) -> Result<String, String> {
        if !self.signer.may_sign_data() {
            return Err(format!("{} may not sign documents", self.signer_name()));
        }
        // Authorities between the issuer and the signer.
        for (below, pair) in self.certificates.windows(2).enumerate() {
            if let [subject, issuer] = pair {
                let named = crate::shown::shown(&subject.common_name());
                subject.issued_by(issuer, below).map_err(|error| format!("{named}: {error}"))?;
            }
        }
        let names =
            self.certificates.iter().map(|certificate| crate::shown::shown(&certificate.common_name()));
        Ok(names.collect::<Vec<_>>().join(" ← "))
    }

    /// All have to be valid, so the period that counts is the one they share.
    fn check_validity(&self, now: UnixTime, verdict: &mut Verdict) {
        let start = (UnixTime(0), UnixTime(u64::MAX));
        let (from, until) = self.certificates.iter().fold(start, |(from, until), certificate| {
            let (not_before, not_after) = certificate.validity();
            (from.max(not_before), until.min(not_after))
        });
        let found = format!("valid {} to {}", shown_time(from), shown_time(until));
        check_period("chain validity", now, from, Some(until), found, verdict);
    }
}

fn fingerprint(der: &[u8]) -> String {
    encode(&Sha256::digest(der))
}
