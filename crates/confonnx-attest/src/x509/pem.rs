//! Certificates in PEM (RFC 7468), as vendors' services send chains.

use base64ct::{Base64, Encoding};

use super::{Certificate, X509Error};

/// Text that is not certificates in PEM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PemError {
    /// Text outside of the blocks, or a block without end.
    #[error("expected `-----BEGIN CERTIFICATE-----` blocks and nothing else")]
    Block,
    /// A block is not base64.
    #[error("block {0} is not base64")]
    Base64(usize),
    /// A block is not a certificate.
    #[error("block {0}: {1}")]
    Certificate(usize, X509Error),
}

/// All certificates of a text that has nothing but them; at least one.
pub(crate) fn certificates_from_pem(text: &str) -> Result<Vec<Certificate>, PemError> {
    let mut certificates = Vec::new();
    let mut rest = text.trim_ascii();
    while !rest.is_empty() {
        let (body, after) = rest
            .strip_prefix("-----BEGIN CERTIFICATE-----")
            .and_then(|rest| rest.split_once("-----END CERTIFICATE-----"))
            .ok_or(PemError::Block)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = Base64::decode_vec(&body).map_err(|_| PemError::Base64(certificates.len()))?;
        let certificate =
            Certificate::from_der(&der).map_err(|err| PemError::Certificate(certificates.len(), err))?;
        certificates.push(certificate);
        rest = after.trim_ascii_start();
    }
    if certificates.is_empty() { Err(PemError::Block) } else { Ok(certificates) }
}
