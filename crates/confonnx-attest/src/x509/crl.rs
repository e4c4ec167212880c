//! Certificate revocation lists.

use der::Decode;
use der::asn1::ObjectIdentifier;
use x509_cert::crl::CertificateList;
use x509_cert::ext::pkix::KeyUsage;

use super::key::{Algorithm, KeyError, SignatureError};
use super::{Certificate, X509Error, check_period, shown_time, signed_part, significant, unix_time};
use crate::{UnixTime, Verdict};

/// A revocation list that is well-formed, and no more than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Crl {
    der: Vec<u8>,
    /// The signed part, as it was received.
    tbs: Vec<u8>,
    inner: CertificateList,
}

/// Why a revocation list is not its issuer's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CrlError {
    /// Another issuer.
    #[error("its issuer is {issuer}, not {subject}")]
    Issuer {
        /// Whom the list names.
        issuer: String,
        /// Whom it was compared with.
        subject: String,
    },
    /// The issuer may not sign lists.
    #[error("{subject} may not sign revocation lists")]
    Usage {
        /// The issuer.
        subject: String,
    },
    /// An extension has to be understood and is not: the list may be partial, or about others' certificates.
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

impl Crl {
    /// Reads DER of exactly one revocation list.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        let malformed = |source| X509Error::Der { expected: "revocation list", source };
        let inner = CertificateList::from_der(der).map_err(malformed)?;
        let tbs = signed_part(der).map_err(malformed)?.to_vec();
        if inner.tbs_cert_list.signature != inner.signature_algorithm {
            return Err(X509Error::AlgorithmMismatch);
        }
        Ok(Self { der: der.to_vec(), tbs, inner })
    }

    /// The DER that the list was read from.
    pub(crate) fn der(&self) -> &[u8] {
        &self.der
    }

    /// When the list's successor is due.
    pub(crate) fn next_update(&self) -> Option<UnixTime> {
        self.inner.tbs_cert_list.next_update.map(unix_time)
    }

    /// Whether `issuer` issued this list: name, key usage, critical extensions, signature. Not: its age.
    pub(crate) fn issued_by(&self, issuer: &Certificate) -> Result<(), CrlError> {
        let list = &self.inner.tbs_cert_list;
        let subject = issuer.inner.tbs_certificate().subject();
        if list.issuer != *subject {
            return Err(CrlError::Issuer { issuer: list.issuer.to_string(), subject: subject.to_string() });
        }
        if !issuer.may(KeyUsage::crl_sign) {
            return Err(CrlError::Usage { subject: subject.to_string() });
        }
        let of_entries =
            list.revoked_certificates.iter().flatten().flat_map(|entry| &entry.crl_entry_extensions);
        let mut extensions = list.crl_extensions.iter().chain(of_entries).flatten();
        if let Some(extension) = extensions.find(|extension| extension.critical) {
            return Err(CrlError::Critical { oid: extension.extn_id });
        }
        let algorithm = Algorithm::from_identifier(&self.inner.signature_algorithm)?;
        let signature = self.inner.signature.as_bytes().unwrap_or_default();
        Ok(issuer.public_key()?.verify(algorithm, &self.tbs, signature)?)
    }

    /// Records whether the list is current at `now`: failed before it is, undecided once its successor was due. A list
    /// that does not say when that is does not expire.
    pub(crate) fn check_age(&self, name: &'static str, now: UnixTime, verdict: &mut Verdict) {
        let list = &self.inner.tbs_cert_list;
        let from = unix_time(list.this_update);
        let until = list.next_update.map(unix_time);
        let successor = until.map_or_else(|| "at no time".into(), shown_time);
        let found = format!("valid {} to {successor}", shown_time(from));
        check_period(name, now, from, until, found, verdict);
    }

    /// Since when a certificate of this list's issuer is revoked; `None` when it is not. `serial` is as
    /// [`Certificate::serial`] gives it.
    pub(crate) fn revoked_since(&self, serial: &[u8]) -> Option<UnixTime> {
        let mut entries = self.inner.tbs_cert_list.revoked_certificates.iter().flatten();
        let entry = entries.find(|entry| significant(entry.serial_number.as_bytes()) == serial)?;
        Some(unix_time(entry.revocation_date))
    }
}
