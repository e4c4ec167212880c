//! Bulk ciphers and key encapsulation over aws-lc-rs. Nothing else names that library, so that a target without
//! it needs another version of this module alone.

mod dhkem;
mod xwing;

use std::{marker::PhantomData, sync::Arc};

use aead::{
    AeadCore, AeadInOut, Key, KeyInit, KeySizeUser, Nonce, Tag, TagPosition,
    array::ArraySize,
    consts::{U12, U16, U32},
    inout::InOutBuf,
};
use aws_lc_rs::aead as lc;

pub(crate) use self::dhkem::{DhKem, P256, X25519};
pub(crate) use self::xwing::{XWing, XWingPrivateKey};
use crate::suite::{Aead, NONCE_LEN, TAG_LEN};

/// The message was not authentic, or too long for the cipher.
#[derive(Debug)]
pub(crate) struct CipherFailure;

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

#[cfg(test)]
mod tests {
    use std::fs;

    use getrandom::{SysRng, rand_core::UnwrapErr};
    use hpke::{
        Deserializable, Kem, OpModeR, OpModeS, Serializable,
        aead::{Aead as HpkeAeadTrait, AesGcm128, AesGcm256, ChaCha20Poly1305 as HpkeChaCha},
        kdf::HkdfSha256,
        setup_receiver, setup_sender_with_rng,
    };

    use super::*;

    type Theirs = hpke::kem::XWing;

    /// Seals with one pair of implementations and opens with the other.
    fn seal_and_open<SA: HpkeAeadTrait, SK: Kem, RA: HpkeAeadTrait, RK: Kem>() {
        let rng = &mut UnwrapErr(SysRng);
        let (private, public) = RK::derive_keypair(&[7; 32]);
        let public = SK::PublicKey::from_bytes(&public.to_bytes()).unwrap();
        let (encapsulated, mut sender) =
            setup_sender_with_rng::<SA, HkdfSha256, SK>(&OpModeS::Base, &public, b"info", rng).unwrap();
        let encapsulated = RK::EncappedKey::from_bytes(&encapsulated.to_bytes()).unwrap();
        let mut receiver =
            setup_receiver::<RA, HkdfSha256, RK>(&OpModeR::Base, &private, &encapsulated, b"info").unwrap();
        for n in 0..3_usize {
            let message = vec![n as u8; 1_000 * n];
            let sealed = sender.seal(&message, b"aad").unwrap();
            assert_eq!(receiver.open(&sealed, b"aad").unwrap(), message);
        }
        let (mut ours, mut theirs) = ([0; 32], [0; 32]);
        sender.export(b"label", &mut ours).unwrap();
        receiver.export(b"label", &mut theirs).unwrap();
        assert_eq!(ours, theirs);
    }

    #[test]
    fn ciphers_and_x_wing_agree_with_those_of_the_hpke_crate() {
        seal_and_open::<HpkeAead<Aes256Gcm>, XWing, AesGcm256, Theirs>();
        seal_and_open::<AesGcm256, Theirs, HpkeAead<Aes256Gcm>, XWing>();
        use hpke::kem::{DhP256HkdfSha256, X25519HkdfSha256};
        seal_and_open::<HpkeAead<Aes256Gcm>, DhKem<X25519>, AesGcm256, X25519HkdfSha256>();
        seal_and_open::<AesGcm256, X25519HkdfSha256, HpkeAead<Aes256Gcm>, DhKem<X25519>>();
        seal_and_open::<HpkeAead<Aes256Gcm>, DhKem<P256>, AesGcm256, DhP256HkdfSha256>();
        seal_and_open::<AesGcm256, DhP256HkdfSha256, HpkeAead<Aes256Gcm>, DhKem<P256>>();
        seal_and_open::<HpkeAead<Aes128Gcm>, XWing, AesGcm128, Theirs>();
        seal_and_open::<AesGcm128, Theirs, HpkeAead<Aes128Gcm>, XWing>();
        seal_and_open::<HpkeAead<ChaCha20Poly1305>, XWing, HpkeChaCha, Theirs>();
        seal_and_open::<HpkeChaCha, Theirs, HpkeAead<ChaCha20Poly1305>, XWing>();
    }

    #[test]
    fn x_wing_gives_the_secrets_of_the_draft() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/x-wing");
        let mut cases = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let case = fs::read(entry.unwrap().path().join("case.json")).unwrap();
            let case: serde_json::Value = serde_json::from_slice(&case).unwrap();
            let bytes = |member: &str| -> Vec<u8> {
                let digits = case[member].as_str().unwrap().as_bytes();
                let byte = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
                digits.chunks(2).map(byte).collect()
            };
            let private = XWingPrivateKey::from_bytes(&bytes("seed")).unwrap();
            assert_eq!(XWing::sk_to_pk(&private).to_bytes().as_slice(), bytes("pk"));
            let encapsulated = Deserializable::from_bytes(&bytes("ct")).unwrap();
            let secret = XWing::decap(&private, None, &encapsulated).unwrap();
            assert_eq!(secret.0.as_slice(), bytes("ss"));
            cases += 1;
        }
        assert_eq!(cases, 3);
    }

    #[test]
    fn an_x25519_share_of_small_order_is_refused() {
        let (private, public) = XWing::derive_keypair(&[7; 32]);
        let (_, encapsulated) = XWing::encap_with_rng(&public, None, &mut UnwrapErr(SysRng)).unwrap();
        let mut bytes = encapsulated.to_bytes();
        bytes[1088..].fill(0);
        assert!(private.decapsulate(&bytes).is_err());
    }
}
