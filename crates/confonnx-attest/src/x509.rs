//! X.509 certificates and revocation lists (RFC 5280), as far as attestation needs them.
//!
//! No path building: each TEE's chain has a fixed shape, which its module spells out. Signatures are checked by `backend`.

use der::asn1::ObjectIdentifier;
use der::{Decode, Header, Reader, SliceReader, Tag};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};
use x509_cert::time::Time;

use crate::{UnixTime, Verdict};

mod crl;
mod key;
mod pem;

pub(crate) use crl::Crl;
pub(crate) use key::{Algorithm, Hash, KeyError, PublicKey, SignatureError};
pub(crate) use pem::{PemError, certificates_from_pem};

/// A certificate that is well-formed, and no more than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    der: Vec<u8>,
    /// The signed part, as it was received.
    tbs: Vec<u8>,
    inner: x509_cert::Certificate,
}

/// Bytes that are not a certificate or revocation list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum X509Error {
    /// Not DER of that structure, or bytes follow it.
    #[error("not DER of an X.509 {expected}: {source}")]
    Der {
        /// `certificate` or `revocation list`.
        expected: &'static str,
        /// What the decoder says.
        source: der::Error,
    },
    /// The algorithm inside and outside the signature differ (RFC 5280 4.1.1.2).
    #[error("the signed signature algorithm is not the outer one")]
    AlgorithmMismatch,
}

/// Why one certificate does not vouch for another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IssueError {
    /// Another issuer.
    #[error("its issuer is {issuer}, not {subject}")]
    Issuer {
        /// Whom the certificate names.
        issuer: String,
        /// Whom it was compared with.
        subject: String,
    },
    /// The issuer's certificate is not a certificate authority's.
    #[error("{subject} is not a certificate authority")]
    NotAuthority {
        /// The issuer.
        subject: String,
    },
    /// More authorities follow than the issuer may have below it.
    #[error("{subject} may have {allowed} authorities below it, found {found}")]
    PathLength {
        /// The issuer.
        subject: String,
        /// Its path length constraint.
        allowed: u8,
        /// Authorities below it.
        found: usize,
    },
    /// An extension has to be understood and is not.
    #[error("it has the critical extension {oid}, which is not understood")]
    Critical {
        /// The extension.
        oid: ObjectIdentifier,
    },
    /// The issuer's key cannot be used.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The signature is not by the issuer's key.
    #[error("{0}")]
    Signature(#[from] SignatureError),
}

impl Certificate {
    /// Reads DER of exactly one certificate.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        let expected = "certificate";
        let malformed = |source| X509Error::Der { expected, source };
        let inner = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let tbs = signed_part(der).map_err(malformed)?.to_vec();
        if inner.tbs_certificate().signature() != inner.signature_algorithm() {
            return Err(X509Error::AlgorithmMismatch);
        }
        Ok(Self { der: der.to_vec(), tbs, inner })
    }

    /// The DER that the certificate was read from.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject's name, for people.
    pub(crate) fn subject(&self) -> String {
        self.inner.tbs_certificate().subject().to_string()
    }

    /// The subject's common name; empty when it has none.
    pub(crate) fn common_name(&self) -> String {
        let name = self.inner.tbs_certificate().subject().common_name();
        name.ok().flatten().map(|name| name.value().into_owned()).unwrap_or_default()
    }

    /// The serial number, big-endian, without leading zeros.
    pub(crate) fn serial(&self) -> &[u8] {
        significant(self.inner.tbs_certificate().serial_number().as_bytes())
    }

    /// The subject's key.
    pub(crate) fn public_key(&self) -> Result<PublicKey, KeyError> {
        PublicKey::from_info(self.inner.tbs_certificate().subject_public_key_info())
    }

    /// The value of an extension: the contents of its octet string. `None` if absent or there twice.
    pub(crate) fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let mut found = self.extensions().iter().filter(|extension| extension.extn_id == oid);
        let value = found.next()?.extn_value.as_bytes();
        found.next().is_none().then_some(value)
    }

    /// First and last second in which the certificate is valid.
    pub(crate) fn validity(&self) -> (UnixTime, UnixTime) {
        let validity = self.inner.tbs_certificate().validity();
        (unix_time(validity.not_before), unix_time(validity.not_after))
    }

    /// Records whether the certificate is valid at `now`: failed before it is, undecided once it has expired.
    pub(crate) fn check_validity(&self, name: &'static str, now: UnixTime, verdict: &mut Verdict) {
        let (from, until) = self.validity();
        let found = format!("valid {} to {}", shown_time(from), shown_time(until));
        check_period(name, now, from, Some(until), found, verdict);
    }

    /// Whether `issuer`, which has `below` other authorities between itself and the end of the path, issued this
    /// certificate: name, authority, path length, critical extensions, signature. Not: validity, revocation.
    pub(crate) fn issued_by(&self, issuer: &Self, below: usize) -> Result<(), IssueError> {
        let (ours, theirs) = (self.inner.tbs_certificate(), issuer.inner.tbs_certificate());
        if ours.issuer() != theirs.subject() {
            return Err(IssueError::Issuer { issuer: ours.issuer().to_string(), subject: issuer.subject() });
        }
        let not_authority = || IssueError::NotAuthority { subject: issuer.subject() };
        let constraints: BasicConstraints =
            issuer.decoded(BASIC_CONSTRAINTS).ok_or_else(not_authority)?.ok_or_else(not_authority)?;
        if !constraints.ca || !issuer.may(KeyUsage::key_cert_sign) {
            return Err(not_authority());
        }
        if let Some(allowed) = constraints.path_len_constraint
            && below > usize::from(allowed)
        {
            return Err(IssueError::PathLength { subject: issuer.subject(), allowed, found: below });
        }
        for certificate in [self, issuer] {
            let unknown = |oid: &ObjectIdentifier| ![BASIC_CONSTRAINTS, KEY_USAGE].contains(oid);
            let critical = certificate.extensions().iter().filter(|extension| extension.critical);
            if let Some(oid) = critical.map(|extension| extension.extn_id).find(unknown) {
                return Err(IssueError::Critical { oid });
            }
        }
        self.verify_signature(issuer)
    }

    /// Whether the certificate's key may sign data: it is no authority's, and no key usage forbids it.
    pub(crate) fn may_sign_data(&self) -> bool {
        let authority = match self.decoded::<BasicConstraints>(BASIC_CONSTRAINTS) {
            None => false,
            Some(constraints) => constraints.is_none_or(|constraints| constraints.ca),
        };
        !authority && self.may(KeyUsage::digital_signature)
    }

    fn verify_signature(&self, issuer: &Self) -> Result<(), IssueError> {
        let algorithm = Algorithm::from_identifier(self.inner.signature_algorithm())?;
        let signature = self.inner.signature().as_bytes().unwrap_or_default();
        Ok(issuer.public_key()?.verify(algorithm, &self.tbs, signature)?)
    }

    fn extensions(&self) -> &[x509_cert::ext::Extension] {
        self.inner.tbs_certificate().extensions().map_or(&[], Vec::as_slice)
    }

    /// Whether the key usage allows `usage`; certificates without that extension may be used for anything.
    fn may(&self, usage: impl Fn(&KeyUsage) -> bool) -> bool {
        match self.decoded::<KeyUsage>(KEY_USAGE) {
            None => true,
            Some(None) => false,
            Some(Some(key_usage)) => usage(&key_usage),
        }
    }

    /// The extension, decoded. `None`: absent; `Some(None)`: malformed, or there twice.
    fn decoded<'a, T: Decode<'a>>(&'a self, oid: ObjectIdentifier) -> Option<Option<T>> {
        self.extensions()
            .iter()
            .any(|extension| extension.extn_id == oid)
            .then(|| self.extension(oid).and_then(|value| T::from_der(value).ok()))
    }
}

/// Records whether `now` lies in a period: failed before it, undecided after it.
pub(crate) fn check_period(
    name: &'static str,
    now: UnixTime,
    from: UnixTime,
    until: Option<UnixTime>,
    found: String,
    verdict: &mut Verdict,
) {
    let expected = format!("valid at {}", shown_time(now));
    match until {
        Some(until) if now.0 > until.0 => verdict.undecided(name, expected, found),
        until => {
            if now.0 >= from.0 {
                verdict.valid(from, until);
            }
            verdict.decide(name, expected, found, now.0 >= from.0);
        }
    }
}

/// A time as people write it, such as `2026-11-23T12:00:00Z`.
pub(crate) fn shown_time(time: UnixTime) -> String {
    let date = der::DateTime::from_unix_duration(std::time::Duration::from_secs(time.0));
    date.map_or_else(|_| format!("{} s after 1970", time.0), |date| date.to_string())
}

/// The first member of an outer sequence, as bytes.
fn signed_part(der: &[u8]) -> Result<&[u8], der::Error> {
    let mut reader = SliceReader::new(der)?;
    Header::decode(&mut reader)?.tag().assert_eq(Tag::Sequence)?;
    reader.tlv_bytes()
}

fn unix_time(time: Time) -> UnixTime {
    UnixTime(time.to_unix_duration().as_secs())
}

/// The number without leading zeros.
fn significant(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

#[cfg(test)]
mod tests;
