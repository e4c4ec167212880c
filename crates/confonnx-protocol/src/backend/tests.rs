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
    seal_and_open::<HpkeAead<Aes256Gcm>, DhX25519, AesGcm256, X25519HkdfSha256>();
    seal_and_open::<AesGcm256, X25519HkdfSha256, HpkeAead<Aes256Gcm>, DhX25519>();
    seal_and_open::<HpkeAead<Aes256Gcm>, DhP256, AesGcm256, DhP256HkdfSha256>();
    seal_and_open::<AesGcm256, DhP256HkdfSha256, HpkeAead<Aes256Gcm>, DhP256>();
    seal_and_open::<HpkeAead<Aes128Gcm>, XWing, AesGcm128, Theirs>();
    seal_and_open::<AesGcm128, Theirs, HpkeAead<Aes128Gcm>, XWing>();
    seal_and_open::<HpkeAead<ChaCha20Poly1305>, XWing, HpkeChaCha, Theirs>();
    seal_and_open::<HpkeChaCha, Theirs, HpkeAead<ChaCha20Poly1305>, XWing>();
}

/// With both libraries compiled in, the one that is not chosen is compared with the one that is.
#[cfg(feature = "rust-crypto")]
#[test]
fn both_libraries_agree() {
    type Chosen = HpkeAead<Aes256Gcm>;
    seal_and_open::<Chosen, XWing, Chosen, rust_crypto::XWing>();
    seal_and_open::<Chosen, rust_crypto::XWing, Chosen, XWing>();
    seal_and_open::<Chosen, DhX25519, Chosen, rust_crypto::DhX25519>();
    seal_and_open::<Chosen, rust_crypto::DhP256, Chosen, DhP256>();
    for aead in Aead::ALL {
        let key = vec![3; aead.key_len()];
        let (ours, theirs) =
            (BulkKey::new(aead, &key).unwrap(), rust_crypto::BulkKey::new(aead, &key).unwrap());
        assert!(rust_crypto::BulkKey::new(aead, &key[1..]).is_none());
        for len in [0, 1, 16, 1_000] {
            let (mut one, mut other) = (vec![7; len], vec![7; len]);
            let tag = ours.seal([1; 12], b"aad", &mut one).unwrap();
            assert_eq!(theirs.seal([1; 12], b"aad", &mut other).unwrap(), tag, "{aead}");
            assert_eq!(one, other, "{aead}");
            theirs.open([1; 12], b"aad", &mut one, &tag).unwrap();
            assert_eq!(one, vec![7; len], "{aead}");
            assert!(theirs.open([1; 12], b"add", &mut other, &tag).is_err(), "{aead}");
        }
    }
}

#[cfg(feature = "rust-crypto")]
#[test]
fn the_other_library_refuses_x25519_shares_of_small_order() {
    // A share of order 8 (RFC 7748, section 7, and its companions): not zero, and still everybody's.
    let order_8 = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
    let mut share = [0; 32];
    for (byte, pair) in share.iter_mut().zip(order_8.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    }
    let rng = &mut UnwrapErr(SysRng);
    let (private, public) = rust_crypto::XWing::derive_keypair(&[7; 32]);
    let (_, encapsulated) = rust_crypto::XWing::encap_with_rng(&public, None, rng).unwrap();
    assert!(rust_crypto::XWing::decap(&private, None, &encapsulated).is_ok());
    for share in [[0; 32], share] {
        let mut bytes = encapsulated.to_bytes();
        bytes[1088..].copy_from_slice(&share);
        let encapsulated = Deserializable::from_bytes(&bytes).unwrap();
        assert!(rust_crypto::XWing::decap(&private, None, &encapsulated).is_err());
        let mut bytes = public.to_bytes();
        bytes[1184..].copy_from_slice(&share);
        let public = Deserializable::from_bytes(&bytes).unwrap();
        assert!(rust_crypto::XWing::encap_with_rng(&public, None, rng).is_err());
    }
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
        let private = aws_lc::XWingPrivateKey::from_bytes(&bytes("seed")).unwrap();
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
    let encapsulated = Deserializable::from_bytes(&bytes).unwrap();
    assert!(XWing::decap(&private, None, &encapsulated).is_err());
}
