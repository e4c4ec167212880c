//! The key that signs a program, in the forms in which TEEs report it.

use std::fmt;

use base64ct::{Base64, Encoding};
use sha2::{Digest as _, Sha256};

use crate::Digest;
use crate::measured::Signer;

/// The public key that signs a program.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// The SubjectPublicKeyInfo, DER.
    der: Vec<u8>,
}

/// Text that is not a public key in PEM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigningKeyError {
    /// There is no `PUBLIC KEY` block.
    #[error("expected a PEM file with a `-----BEGIN PUBLIC KEY-----` block, found none")]
    NoPublicKey,
    /// The block is not base64.
    #[error("the PUBLIC KEY block is not base64")]
    Base64,
}

impl SigningKey {
    /// The key of a PEM file with one `PUBLIC KEY` block (a SubjectPublicKeyInfo).
    pub fn from_pem(pem: &str) -> Result<Self, SigningKeyError> {
        let (_, rest) = pem.split_once("-----BEGIN PUBLIC KEY-----").ok_or(SigningKeyError::NoPublicKey)?;
        let (body, _) = rest.split_once("-----END PUBLIC KEY-----").ok_or(SigningKeyError::NoPublicKey)?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = Base64::decode_vec(&body).map_err(|_| SigningKeyError::Base64)?;
        if der.is_empty() {
            return Err(SigningKeyError::NoPublicKey);
        }
        Ok(Self { der })
    }

    /// How the TEE that reported `found` would report this key.
    pub(crate) fn expected(&self, found: Option<&Signer>) -> String {
        let reported = found.and_then(|signer| signer.would_be(&self.der));
        reported.unwrap_or_else(|| format!("a program signed by {self:?}"))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", Digest(Sha256::digest(&self.der).into()))
    }
}
