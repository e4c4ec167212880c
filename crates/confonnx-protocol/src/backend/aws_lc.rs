//! Bulk ciphers and key encapsulation over aws-lc-rs.

mod dhkem;
mod xwing;

use std::sync::Arc;

use aws_lc_rs::aead as lc;

#[cfg(test)]
pub(super) use self::xwing::XWingPrivateKey;
use super::CipherFailure;
use crate::suite::{Aead, NONCE_LEN, TAG_LEN};

pub(crate) use self::xwing::XWing;

/// DHKEM(X25519, HKDF-SHA256).
pub(crate) type DhX25519 = dhkem::DhKem<dhkem::X25519>;
/// DHKEM(P-256, HKDF-SHA256).
pub(crate) type DhP256 = dhkem::DhKem<dhkem::P256>;

/// A cipher's key, for whoever keeps count of nonces.
#[derive(Clone)]
pub(crate) struct BulkKey(Arc<lc::LessSafeKey>);

impl BulkKey {
    /// `None` unless `key` has [`Aead::key_len`] bytes.
    pub(crate) fn new(aead: Aead, key: &[u8]) -> Option<Self> {
        let algorithm = match aead {
            Aead::Aes256Gcm => &lc::AES_256_GCM,
            Aead::Aes128Gcm => &lc::AES_128_GCM,
            Aead::ChaCha20Poly1305 => &lc::CHACHA20_POLY1305,
        };
        let key = lc::UnboundKey::new(algorithm, key).ok()?;
        Some(Self(Arc::new(lc::LessSafeKey::new(key))))
    }

    /// Encrypts `data` in place and returns the tag.
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LEN], CipherFailure> {
        let nonce = lc::Nonce::assume_unique_for_key(nonce);
        let tag =
            self.0.seal_in_place_separate_tag(nonce, lc::Aad::from(aad), data).map_err(|_| CipherFailure)?;
        tag.as_ref().try_into().map_err(|_| CipherFailure)
    }

    /// Decrypts `data` in place; it holds nothing of value when that fails.
    pub(crate) fn open(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), CipherFailure> {
        let nonce = lc::Nonce::assume_unique_for_key(nonce);
        self.0
            .open_in_place_separate_tag(nonce, lc::Aad::from(aad), tag, data)
            .map(|_| ())
            .map_err(|_| CipherFailure)
    }
}
