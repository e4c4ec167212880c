//! The backend in pure Rust: the crates of RustCrypto and dalek, and the key encapsulation of the `hpke` crate over them.

mod xwing;

use std::sync::Arc;

use aead::{AeadInOut, KeyInit, inout::InOutBuf};

#[cfg_attr(feature = "aws-lc", allow(unused_imports, reason = "tests compare it with aws-lc"))]
pub(crate) use self::xwing::XWing;
use super::CipherFailure;
use crate::suite::{Aead, NONCE_LEN, TAG_LEN};

/// DHKEM(X25519, HKDF-SHA256).
pub(crate) type DhX25519 = hpke::kem::X25519HkdfSha256;
/// DHKEM(P-256, HKDF-SHA256).
pub(crate) type DhP256 = hpke::kem::DhP256HkdfSha256;

/// A cipher's key, for whoever keeps count of nonces. Erased when its last clone goes.
#[derive(Clone)]
pub(crate) struct BulkKey(Arc<Expanded>);

enum Expanded {
    Aes256Gcm(aes_gcm::Aes256Gcm),
    Aes128Gcm(aes_gcm::Aes128Gcm),
    ChaCha20Poly1305(chacha20poly1305::ChaCha20Poly1305),
}

impl BulkKey {
    /// `None` unless `key` has [`Aead::key_len`] bytes.
    pub(crate) fn new(aead: Aead, key: &[u8]) -> Option<Self> {
        Some(Self(Arc::new(match aead {
            Aead::Aes256Gcm => Expanded::Aes256Gcm(KeyInit::new_from_slice(key).ok()?),
            Aead::Aes128Gcm => Expanded::Aes128Gcm(KeyInit::new_from_slice(key).ok()?),
            Aead::ChaCha20Poly1305 => Expanded::ChaCha20Poly1305(KeyInit::new_from_slice(key).ok()?),
        })))
    }

    /// Encrypts `data` in place and returns the tag.
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CipherFailure> {
        let (nonce, data) = (nonce.into(), InOutBuf::from(data));
        match &*self.0 {
            Expanded::Aes256Gcm(key) => key.encrypt_inout_detached(&nonce, aad, data),
            Expanded::Aes128Gcm(key) => key.encrypt_inout_detached(&nonce, aad, data),
            Expanded::ChaCha20Poly1305(key) => key.encrypt_inout_detached(&nonce, aad, data),
        }
        .map(Into::into)
        .map_err(|_| CipherFailure)
    }

    /// Decrypts `data` in place; it holds nothing of value when that fails.
    pub(crate) fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), CipherFailure> {
        let (nonce, data, tag) = (nonce.into(), InOutBuf::from(data), (*tag).into());
        match &*self.0 {
            Expanded::Aes256Gcm(key) => key.decrypt_inout_detached(&nonce, aad, data, &tag),
            Expanded::Aes128Gcm(key) => key.decrypt_inout_detached(&nonce, aad, data, &tag),
            Expanded::ChaCha20Poly1305(key) => key.decrypt_inout_detached(&nonce, aad, data, &tag),
        }
        .map_err(|_| CipherFailure)
    }
}
