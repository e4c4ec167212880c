//! Bulk ciphers and X-Wing decapsulation over aws-lc-rs. Nothing else names that library, so that a target without
//! it needs another version of this module alone.

mod xwing;

use std::{marker::PhantomData, sync::Arc};

use aead::{
    AeadCore, AeadInOut, Key, KeyInit, KeySizeUser, Nonce, Tag, TagPosition,
    array::ArraySize,
    consts::{U12, U16, U32},
    inout::InOutBuf,
};
use aws_lc_rs::aead as lc;

pub(crate) use self::xwing::{XWing, XWingPrivateKey};
use crate::suite::{Aead, NONCE_LEN, TAG_LEN};

/// The message was not authentic, or too long for the cipher.
#[derive(Debug)]
pub(crate) struct CipherFailure;

/// A cipher's key, for whoever keeps count of nonces.
#[derive(Clone)]
pub(crate) struct BulkKey(Arc<lc::LessSafeKey>);

impl BulkKey {
    /// `None` unless `key` has [`Aead::key_len`] octets.
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

/// A cipher as HPKE wants it: a type.
pub(crate) trait Cipher: Send + Sync + 'static {
    type KeySize: ArraySize;
    const AEAD: Aead;
}

pub(crate) struct Aes256Gcm;
pub(crate) struct Aes128Gcm;
pub(crate) struct ChaCha20Poly1305;

impl Cipher for Aes256Gcm {
    type KeySize = U32;
    const AEAD: Aead = Aead::Aes256Gcm;
}

impl Cipher for Aes128Gcm {
    type KeySize = U16;
    const AEAD: Aead = Aead::Aes128Gcm;
}

impl Cipher for ChaCha20Poly1305 {
    type KeySize = U32;
    const AEAD: Aead = Aead::ChaCha20Poly1305;
}

/// `C` as a type parameter of the `hpke` crate.
pub(crate) struct HpkeAead<C>(PhantomData<C>);

impl<C: Cipher> hpke::aead::Aead for HpkeAead<C> {
    type AeadImpl = HpkeKey<C>;
    const AEAD_ID: u16 = C::AEAD.id();
}

pub(crate) struct HpkeKey<C>(BulkKey, PhantomData<C>);

impl<C> Clone for HpkeKey<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<C: Cipher> KeySizeUser for HpkeKey<C> {
    type KeySize = C::KeySize;
}

impl<C: Cipher> KeyInit for HpkeKey<C> {
    fn new(key: &Key<Self>) -> Self {
        Self(BulkKey::new(C::AEAD, key).expect("the type fixes the key's length"), PhantomData)
    }
}

impl<C: Cipher> AeadCore for HpkeKey<C> {
    type NonceSize = U12;
    type TagSize = U16;
    const TAG_POSITION: TagPosition = TagPosition::Postfix;
}

impl<C: Cipher> AeadInOut for HpkeKey<C> {
    fn encrypt_inout_detached(
        &self,
        nonce: &Nonce<Self>,
        aad: &[u8],
        buffer: InOutBuf<'_, '_, u8>,
    ) -> aead::Result<Tag<Self>> {
        let data = buffer.into_out_with_copied_in();
        self.0.seal((*nonce).into(), aad, data).map(Tag::<Self>::from).map_err(|_| aead::Error)
    }

    fn decrypt_inout_detached(
        &self,
        nonce: &Nonce<Self>,
        aad: &[u8],
        buffer: InOutBuf<'_, '_, u8>,
        tag: &Tag<Self>,
    ) -> aead::Result<()> {
        let data = buffer.into_out_with_copied_in();
        self.0.open((*nonce).into(), aad, data, &(*tag).into()).map_err(|_| aead::Error)
    }
}
