//! Signatures as TPMs write them.

use super::algorithm::{ECDSA, RSAPSS, RSASSA, SHA256, SHA384};
use super::wire::{Reader, WireError};
use crate::x509::{Algorithm, Hash};

/// A TPMT_SIGNATURE (TPM 2.0 library, part 2, 11.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Signature {
    Rsa { padding: Padding, hash: Hash, bytes: Vec<u8> },
    Ecdsa { hash: Hash, r: Vec<u8>, s: Vec<u8> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    Pkcs1,
    /// RSASSA-PSS, whose salt is as long as the hash.
    Pss,
}

impl Signature {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let scheme = reader.u16("sigAlg")?;
        let hash = match reader.u16("hash")? {
            SHA256 => Hash::Sha256,
            SHA384 => Hash::Sha384,
            found => {
                let expected = "0xb (SHA-256) or 0xc (SHA-384)";
                return Err(WireError::Value { field: "hash", expected, found: found.into() });
            }
        };
        let mut rsa =
            |padding| reader.sized("sig").map(|bytes| Self::Rsa { padding, hash, bytes: bytes.to_vec() });
        let signature = match scheme {
            RSASSA => rsa(Padding::Pkcs1)?,
            RSAPSS => rsa(Padding::Pss)?,
            ECDSA => {
                let (r, s) = (reader.sized("signatureR")?.to_vec(), reader.sized("signatureS")?.to_vec());
                Self::Ecdsa { hash, r, s }
            }
            found => {
                let expected = "0x14 (RSASSA), 0x16 (RSAPSS) or 0x18 (ECDSA)";
                return Err(WireError::Value { field: "sigAlg", expected, found: found.into() });
            }
        };
        reader.finish()?;
        Ok(signature)
    }

    /// The signature's hash; the digest of a quote's PCRs uses the same.
    pub(super) fn hash(&self) -> Hash {
        match *self {
            Self::Rsa { hash, .. } | Self::Ecdsa { hash, .. } => hash,
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match *self {
            Self::Rsa { padding: Padding::Pkcs1, hash, .. } => Algorithm::RsaPkcs1(hash),
            Self::Rsa { padding: Padding::Pss, hash, .. } => Algorithm::RsaPss(hash),
            Self::Ecdsa { hash, .. } => Algorithm::EcdsaFixed(hash),
        }
    }

    pub(super) fn scheme(&self) -> &'static str {
        match self {
            Self::Rsa { padding: Padding::Pkcs1, .. } => "RSASSA",
            Self::Rsa { padding: Padding::Pss, .. } => "RSAPSS",
            Self::Ecdsa { .. } => "ECDSA",
        }
    }
}
