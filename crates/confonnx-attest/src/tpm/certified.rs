//! Attestation keys that somebody certified (TCG EK Credential Profile 2.x, section on AK certificates).

use std::fmt;

use der::Decode;
use der::asn1::ObjectIdentifier;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::AkPublic;
use crate::x509::{Certificate, certificates_from_pem, shown_time};
use crate::{UnixTime, Verdict};

/// Certificate authorities trusted to certify attestation keys; in a policy file one string of PEM blocks.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AkRoots {
    pem: String,
    certificates: Vec<Certificate>,
}

impl AkRoots {
    /// Whether there is no authority.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// Records whether `chain`, leaf first, certifies `ak` at `now`; true if so.
    pub(super) fn check(
        &self,
        ak: &AkPublic,
        chain: &[Certificate],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> bool {
        let expected = format!("a certificate of the key as a TPM's, by {self}");
        let path = match self.path(ak, chain) {
            Ok(path) => path,
            Err(found) => {
                verdict.decide("ak certificate", expected, found, false);
                verdict.undecided("ak validity", shown_at(now), "no path of certificates");
                return false;
            }
        };
        let subjects = path.iter().map(|certificate| certificate.subject()).collect::<Vec<_>>();
        verdict.decide("ak certificate", expected, subjects.join(", by "), true);
        let validity = path.iter().map(|certificate| certificate.validity());
        let (from, until) = validity.fold((UnixTime(0), UnixTime(u64::MAX)), |(from, until), next| {
            (from.max(next.0), until.min(next.1))
        });
        let found = format!("valid {} to {}", shown_time(from), shown_time(until));
        if now > until {
            verdict.undecided("ak validity", shown_at(now), found);
            return false;
        }
        verdict.decide("ak validity", shown_at(now), found, now >= from);
        now >= from
    }

    /// The certificates from the key's to a root, or why there is no such path.
    fn path<'a>(&'a self, ak: &AkPublic, chain: &'a [Certificate]) -> Result<Vec<&'a Certificate>, String> {
        let leaf = chain.first().ok_or("a key without certificate")?;
        if !ak.is_certified_by(leaf) {
            return Err(format!("a certificate of another key, {}", leaf.subject()));
        }
        if !names_attestation_key(leaf) {
            return Err(format!("a certificate that does not say `attestation key`, {}", leaf.subject()));
        }
        let mut path = Vec::new();
        for (below, certificate) in chain.iter().enumerate() {
            path.push(certificate);
            if let Some(root) =
                self.certificates.iter().find(|root| certificate.issued_by(root, below).is_ok())
            {
                path.push(root);
                return Ok(path);
            }
            let Some(issuer) = chain.get(below.saturating_add(1)) else { break };
            let issued = certificate.issued_by(issuer, below);
            issued.map_err(|err| format!("{}: {err}", certificate.subject()))?;
        }
        let last = path.last().map(|certificate| certificate.subject()).unwrap_or_default();
        Err(format!("{last}, issued by none of them"))
    }
}

/// Whether the certificate's extended key usage is that of attestation keys. Without this check an authority's
/// certificate for any other purpose would do.
fn names_attestation_key(leaf: &Certificate) -> bool {
    let usage = leaf.extension(EXTENDED_KEY_USAGE).map(ExtendedKeyUsage::from_der);
    usage.is_some_and(|usage| usage.is_ok_and(|usage| usage.0.contains(&AIK_CERTIFICATE)))
}

fn shown_at(now: UnixTime) -> String {
    format!("valid at {}", shown_time(now))
}

impl fmt::Display for AkRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subjects = self.certificates.iter().map(Certificate::subject).collect::<Vec<_>>();
        f.write_str(&subjects.join(" or "))
    }
}

impl fmt::Debug for AkRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AkRoots({self})")
    }
}

impl Serialize for AkRoots {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.pem)
    }
}

impl<'de> Deserialize<'de> for AkRoots {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pem = String::deserialize(deserializer)?;
        let certificates = certificates_from_pem(&pem).map_err(serde::de::Error::custom)?;
        Ok(Self { pem, certificates })
    }
}

const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
/// The key usage tcg-kp-AIKCertificate.
const AIK_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.3");
