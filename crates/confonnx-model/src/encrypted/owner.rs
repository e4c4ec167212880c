//! Who may give a model its key: an owner's signature over the file and the key.

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
        UnparsedPublicKey, VerificationAlgorithm,
    },
};
use base64ct::{Base64, Encoding};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::ModelKey;

/// An owner's public key: Ed25519 or ECDSA on P-256.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnerPublicKey {
    /// SubjectPublicKeyInfo.
    der: Vec<u8>,
    algorithm: Algorithm,
}

/// An owner's private key, of the same kinds.
pub struct OwnerKey(Pair);

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Ed25519,
    P256,
}

/// Text that is not such a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnerKeyError {
    /// There is no such block.
    #[error("expected a PEM file with a `-----BEGIN {0}-----` block, found none")]
    NoBlock(&'static str),
    /// The block is not base64.
    #[error("the {0} block is not base64")]
    Base64(&'static str),
    /// The key is of another kind.
    #[error("expected an Ed25519 key or one of ECDSA on P-256, found another kind")]
    Kind,
}

/// The owner did not sign this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's owner did not sign this key for this file")]
pub struct NotSigned;

impl OwnerPublicKey {
    /// From a PEM file with a `PUBLIC KEY` block, as `openssl pkey -pubout` writes it.
    ///
    /// # Errors
    /// [`OwnerKeyError`]
    pub fn from_pem(pem: &str) -> Result<Self, OwnerKeyError> {
        let der = block(pem, "PUBLIC KEY")?;
        let algorithm = match der.as_slice() {
            der if der.starts_with(ED25519_INFO) && der.len() == 44 => Algorithm::Ed25519,
            der if der.starts_with(P256_INFO) && der.len() == 91 => Algorithm::P256,
            _ => return Err(OwnerKeyError::Kind),
        };
        Ok(Self { der: der.to_vec(), algorithm })
    }

    /// SHA-256 of the key as DER, a SubjectPublicKeyInfo.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// Whether the owner signed `key` for the encrypted file whose SHA-256 is `ciphertext`.
    ///
    /// # Errors
    /// [`NotSigned`]
    pub fn verify(&self, ciphertext: &[u8; 32], key: &ModelKey, signature: &[u8]) -> Result<(), NotSigned> {
        let (algorithm, prefix): (&dyn VerificationAlgorithm, _) = match self.algorithm {
            Algorithm::Ed25519 => (&ED25519, ED25519_INFO.len()),
            Algorithm::P256 => (&ECDSA_P256_SHA256_ASN1, P256_INFO.len()),
        };
        let bytes = self.der.get(prefix..).unwrap_or_default();
        UnparsedPublicKey::new(algorithm, bytes)
            .verify(&statement(ciphertext, key), signature)
            .map_err(|_| NotSigned)
    }
}

impl OwnerKey {
    /// From a PEM file with a `PRIVATE KEY` block (PKCS #8), as `openssl genpkey` writes it.
    ///
    /// # Errors
    /// [`OwnerKeyError`]
    pub fn from_pem(pem: &str) -> Result<Self, OwnerKeyError> {
        let der = block(pem, "PRIVATE KEY")?;
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            return Ok(Self(Pair::Ed25519(pair)));
        }
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der);
        pair.map(|pair| Self(Pair::P256(pair))).map_err(|_| OwnerKeyError::Kind)
    }

    /// Signs `key` for the encrypted file whose SHA-256 is `ciphertext`; `None` when the library fails.
    pub fn sign(&self, ciphertext: &[u8; 32], key: &ModelKey) -> Option<Vec<u8>> {
        let statement = statement(ciphertext, key);
        match &self.0 {
            Pair::Ed25519(pair) => Some(pair.sign(&statement).as_ref().to_vec()),
            Pair::P256(pair) => Some(pair.sign(&SystemRandom::new(), &statement).ok()?.as_ref().to_vec()),
        }
    }
}

/// What an owner signs: that this key is for this file. The recipient stands for the key, and tells nothing of it.
fn statement(ciphertext: &[u8; 32], key: &ModelKey) -> Vec<u8> {
    [b"confonnx model key v1\0".as_slice(), ciphertext, key.recipient_bytes()].concat()
}

fn block(pem: &str, label: &'static str) -> Result<Zeroizing<Vec<u8>>, OwnerKeyError> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let (_, rest) = pem.split_once(&begin).ok_or(OwnerKeyError::NoBlock(label))?;
    let (body, _) = rest.split_once(&end).ok_or(OwnerKeyError::NoBlock(label))?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    Base64::decode_vec(&body).map(Zeroizing::new).map_err(|_| OwnerKeyError::Base64(label))
}

impl fmt::Debug for OwnerPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerPublicKey")
    }
}

impl fmt::Debug for OwnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerKey")
    }
}

/// What comes before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo (RFC 8410).
const ED25519_INFO: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What comes before the 65 bytes of a P-256 key in its SubjectPublicKeyInfo (RFC 5480).
const P256_INFO: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
