//! Public keys and signature algorithms, as certificates name them.

use der::asn1::{Any, ObjectIdentifier};
use der::{Decode, Sequence};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::backend::{self, Key, Refused};
pub(crate) use crate::backend::{Algorithm, Hash};

/// A key that verifies signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicKey {
    /// An uncompressed point on P-256.
    P256(Vec<u8>),
    /// An uncompressed point on P-384.
    P384(Vec<u8>),
    /// DER of a PKCS#1 RSAPublicKey.
    Rsa(Vec<u8>),
}

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// Not DER of a SubjectPublicKeyInfo.
    #[error("not DER of a public key: {0}")]
    Der(der::Error),
    /// Neither ECDSA on P-256 or P-384 nor RSA.
    #[error("expected a key for ECDSA on P-256 or P-384, or for RSA; found algorithm {0}")]
    Unsupported(ObjectIdentifier),
}

/// A signature that does not verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    /// An algorithm that is not supported, or its parameters are not.
    #[error("signature algorithm {0} or its parameters are not supported")]
    Unsupported(ObjectIdentifier),
    /// The key is for another algorithm.
    #[error("the issuer's key is not for {0:?}")]
    KeyMismatch(Algorithm),
    /// The signature is not by that key over that message.
    #[error("the signature is wrong")]
    Wrong,
}

impl PublicKey {
    /// Reads DER of exactly one SubjectPublicKeyInfo.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        Self::from_info(&SubjectPublicKeyInfoOwned::from_der(der).map_err(KeyError::Der)?)
    }

    pub(super) fn from_info(info: &SubjectPublicKeyInfoOwned) -> Result<Self, KeyError> {
        let unsupported = KeyError::Unsupported(info.algorithm.oid);
        let bits = info.subject_public_key.as_bytes().ok_or(unsupported.clone())?.to_vec();
        match info.algorithm.oid {
            oid::RSA => Ok(Self::Rsa(bits)),
            oid::EC => {
                let curve = info.algorithm.parameters.as_ref().map(Any::decode_as::<ObjectIdentifier>);
                match curve {
                    Some(Ok(oid::P256)) => Ok(Self::P256(bits)),
                    Some(Ok(oid::P384)) => Ok(Self::P384(bits)),
                    Some(Ok(other)) => Err(KeyError::Unsupported(other)),
                    _ => Err(unsupported),
                }
            }
            _ => Err(unsupported),
        }
    }

    /// Whether this key made `signature` over `message`.
    pub(crate) fn verify(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        let key = match self {
            Self::P256(point) => Key::P256(point),
            Self::P384(point) => Key::P384(point),
            Self::Rsa(der) => Key::Rsa(der),
        };
        backend::verify(key, algorithm, message, signature).map_err(|refused| match refused {
            Refused::Mismatch => SignatureError::KeyMismatch(algorithm),
            Refused::Wrong => SignatureError::Wrong,
        })
    }
}

impl Algorithm {
    /// The algorithm that an AlgorithmIdentifier names.
    pub(super) fn from_identifier(identifier: &AlgorithmIdentifierOwned) -> Result<Self, SignatureError> {
        let null = identifier.parameters.as_ref().is_none_or(|any| *any == Any::null());
        match identifier.oid {
            oid::ECDSA_SHA256 if identifier.parameters.is_none() => Ok(Self::Ecdsa(Hash::Sha256)),
            oid::ECDSA_SHA384 if identifier.parameters.is_none() => Ok(Self::Ecdsa(Hash::Sha384)),
            oid::RSA_SHA256 if null => Ok(Self::RsaPkcs1(Hash::Sha256)),
            oid::RSA_SHA384 if null => Ok(Self::RsaPkcs1(Hash::Sha384)),
            oid::RSA_SHA512 if null => Ok(Self::RsaPkcs1(Hash::Sha512)),
            oid::RSA_PSS => identifier
                .parameters
                .as_ref()
                .and_then(|any| any.decode_as::<PssParameters>().ok())
                .and_then(|parameters| parameters.hash())
                .map(Self::RsaPss)
                .ok_or(SignatureError::Unsupported(identifier.oid)),
            other => Err(SignatureError::Unsupported(other)),
        }
    }
}

/// RSASSA-PSS-params (RFC 8017 A.2.3). Absent members would mean SHA-1, which is not supported.
#[derive(Sequence)]
struct PssParameters {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    hash: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    mask: Option<AlgorithmIdentifierOwned>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    salt_len: Option<u32>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    trailer: Option<u32>,
}

impl PssParameters {
    /// The hash of the parameters, when they name one hash throughout and everything else is as the library has it.
    fn hash(&self) -> Option<Hash> {
        let (hash, salt_len) = match self.hash.as_ref()?.oid {
            oid::SHA256 => (Hash::Sha256, 32),
            oid::SHA384 => (Hash::Sha384, 48),
            oid::SHA512 => (Hash::Sha512, 64),
            _ => return None,
        };
        let mask = self.mask.as_ref()?;
        let inner: AlgorithmIdentifierOwned = mask.parameters.as_ref()?.decode_as().ok()?;
        let same = mask.oid == oid::MGF1 && inner.oid == self.hash.as_ref()?.oid;
        let usual = self.salt_len == Some(salt_len) && self.trailer.unwrap_or(1) == 1;
        (same && usual).then_some(hash)
    }
}

mod oid {
    use der::asn1::ObjectIdentifier;

    const fn oid(text: &str) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(text)
    }

    pub(super) const RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
    pub(super) const EC: ObjectIdentifier = oid("1.2.840.10045.2.1");
    pub(super) const P256: ObjectIdentifier = oid("1.2.840.10045.3.1.7");
    pub(super) const P384: ObjectIdentifier = oid("1.3.132.0.34");
    pub(super) const ECDSA_SHA256: ObjectIdentifier = oid("1.2.840.10045.4.3.2");
    pub(super) const ECDSA_SHA384: ObjectIdentifier = oid("1.2.840.10045.4.3.3");
    pub(super) const RSA_PSS: ObjectIdentifier = oid("1.2.840.113549.1.1.10");
    pub(super) const RSA_SHA256: ObjectIdentifier = oid("1.2.840.113549.1.1.11");
    pub(super) const RSA_SHA384: ObjectIdentifier = oid("1.2.840.113549.1.1.12");
    pub(super) const RSA_SHA512: ObjectIdentifier = oid("1.2.840.113549.1.1.13");
    pub(super) const MGF1: ObjectIdentifier = oid("1.2.840.113549.1.1.8");
    pub(super) const SHA256: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.1");
    pub(super) const SHA384: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.2");
    pub(super) const SHA512: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.3");
}
