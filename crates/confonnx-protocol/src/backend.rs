//! The library under the seals: bulk ciphers and key encapsulation. Nothing else on the sealed path names one.
//!
//! [`aws_lc`] by the feature `aws-lc`, the default, or the pure-Rust crates of RustCrypto (feature `rust-crypto`), which
//! compile for WebAssembly. With both, aws-lc is asked. Both answer alike: what the one refuses, the other refuses, too;
//! `vectors/runner` has the vectors made by either.

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(feature = "rust-crypto")]
#[cfg_attr(feature = "aws-lc", allow(dead_code, reason = "tests compare it with aws-lc"))]
mod rust_crypto;

#[cfg(not(any(feature = "aws-lc", feature = "rust-crypto")))]
compile_error!("confonnx-protocol needs a library for cryptography: feature `aws-lc` or `rust-crypto`");

use std::marker::PhantomData;

use aead::{
    AeadCore, AeadInOut, Key, KeyInit, KeySizeUser, Nonce, Tag, TagPosition,
    array::ArraySize,
    consts::{U12, U16, U32},
    inout::InOutBuf,
};

#[cfg(feature = "aws-lc")]
pub(crate) use self::aws_lc::{BulkKey, DhP256, DhX25519, XWing};
#[cfg(all(feature = "rust-crypto", not(feature = "aws-lc")))]
pub(crate) use self::rust_crypto::{BulkKey, DhP256, DhX25519, XWing};
use crate::suite::Aead;

/// The message was not authentic, or too long for the cipher.
#[derive(Debug)]
pub(crate) struct CipherFailure;

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
    #[expect(clippy::expect_used, reason = "the trait has no error, and the type fixes the length")]
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

#[cfg(all(test, feature = "aws-lc"))]
mod tests;
