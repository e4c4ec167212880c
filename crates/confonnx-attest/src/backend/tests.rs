//! Both libraries have to give the same answers.

use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, KeyPair as _};

use super::{Algorithm, Hash, Key, Refused, rust_crypto};

type Verify = fn(Key<'_>, Algorithm, &[u8], &[u8]) -> Result<(), Refused>;

const BACKENDS: &[Verify] = &[
    #[cfg(feature = "ring")]
    super::ring::verify,
    rust_crypto::verify,
];

/// Every backend's answer, which has to be the same.
fn verdict(key: Key<'_>, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), Refused> {
    let answers: Vec<_> = BACKENDS.iter().map(|verify| verify(key, algorithm, message, signature)).collect();
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{key:?} {algorithm:?}: {answers:?}");
    answers[0]
}

fn altered(key: Key<'_>, algorithm: Algorithm, signature: &[u8]) {
    assert_eq!(verdict(key, algorithm, b"message", signature), Ok(()));
    assert_eq!(verdict(key, algorithm, b"massage", signature), Err(Refused::Wrong));
    for at in 0..signature.len() {
        let mut bytes = signature.to_vec();
        bytes[at] ^= 1;
        assert_eq!(verdict(key, algorithm, b"message", &bytes), Err(Refused::Wrong), "byte {at}");
    }
    for bad in [&signature[1..], &signature[..signature.len() - 1], &[signature, &[0]].concat(), &[]] {
        assert_eq!(verdict(key, algorithm, b"message", bad), Err(Refused::Wrong));
    }
}

#[test]
fn ecdsa() {
    let random = SystemRandom::new();
    let kinds = [
        (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::EcdsaFixed(Hash::Sha256)),
        (&signature::ECDSA_P256_SHA256_ASN1_SIGNING, Algorithm::Ecdsa(Hash::Sha256)),
        (&signature::ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::EcdsaFixed(Hash::Sha384)),
        (&signature::ECDSA_P384_SHA384_ASN1_SIGNING, Algorithm::Ecdsa(Hash::Sha384)),
    ];
    for (i, (signing, algorithm)) in kinds.into_iter().enumerate() {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(signing, pkcs8.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let key = |point| if i < 2 { Key::P256(point) } else { Key::P384(point) };
        let made = pair.sign(&random, b"message").unwrap();
        altered(key(point), algorithm, made.as_ref());
        // Keys of other kinds, keys that are none, and forms of points that evidence has not.
        assert_eq!(verdict(Key::Rsa(point), algorithm, b"message", made.as_ref()), Err(Refused::Mismatch));
        let mut compressed = point[..=(point.len() / 2)].to_vec();
        compressed[0] = 2 + (point[point.len() - 1] & 1);
        let mut off_curve = point.to_vec();
        off_curve[5] ^= 1;
        for bad in [&compressed[..], &off_curve, &[], &point[1..]] {
            assert_eq!(verdict(key(bad), algorithm, b"message", made.as_ref()), Err(Refused::Wrong));
        }
    }
    for algorithm in [Algorithm::EcdsaFixed(Hash::Sha384), Algorithm::RsaPss(Hash::Sha256)] {
        assert_eq!(verdict(Key::P256(&[]), algorithm, b"", b""), Err(Refused::Mismatch));
    }
}

/// Signatures by OpenSSL over `message`, with keys of 2048, 3072 and 1024 bits; the last are too short for both.
#[test]
fn rsa() {
    const DATA: &str = include_str!("rsa.json");
    let cases: Vec<Case> = serde_json::from_str(DATA).unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let hash = match case.hash {
            256 => Hash::Sha256,
            384 => Hash::Sha384,
            _ => Hash::Sha512,
        };
        let algorithm = if case.pss { Algorithm::RsaPss(hash) } else { Algorithm::RsaPkcs1(hash) };
        let key = crate::digest::decode(&case.key).unwrap();
        let signature = crate::digest::decode(&case.signature).unwrap();
        if case.bits < 2048 {
            assert_eq!(verdict(Key::Rsa(&key), algorithm, b"message", &signature), Err(Refused::Wrong));
        } else {
            altered(Key::Rsa(&key), algorithm, &signature);
        }
        for at in [0, 1, 5, 9, 40, key.len() - 1] {
            let mut bad = key.clone();
            bad[at] ^= 0x41;
            assert_eq!(verdict(Key::Rsa(&bad), algorithm, b"message", &signature), Err(Refused::Wrong));
        }
    }
}

#[derive(serde::Deserialize)]
struct Case {
    bits: u32,
    hash: u32,
    pss: bool,
    key: String,
    signature: String,
}
