//! `ring`.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

use super::{Algorithm, Hash, Key, Refused};

pub(super) fn verify(
    key: Key<'_>,
    algorithm: Algorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Refused> {
    let (verification, key) = match key {
        Key::P256(point) => (p256(algorithm), point),
        Key::P384(point) => (p384(algorithm), point),
        Key::Ed25519(key) => (ed25519(algorithm), &key[..]),
        Key::Rsa(der) => (rsa(algorithm), der),
    };
    let key = UnparsedPublicKey::new(verification.ok_or(Refused::Mismatch)?, key);
    key.verify(message, signature).map_err(|_| Refused::Wrong)
}

fn p256(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::Ecdsa(Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        Algorithm::Ecdsa(Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        Algorithm::EcdsaFixed(Hash::Sha256) => &signature::ECDSA_P256_SHA256_FIXED,
        _ => return None,
    })
}

fn p384(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::Ecdsa(Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        Algorithm::Ecdsa(Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        Algorithm::EcdsaFixed(Hash::Sha384) => &signature::ECDSA_P384_SHA384_FIXED,
        _ => return None,
    })
}

fn ed25519(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    (algorithm == Algorithm::Ed25519).then_some(&signature::ED25519 as _)
}

fn rsa(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::RsaPkcs1(Hash::Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RsaPkcs1(Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RsaPkcs1(Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::RsaPss(Hash::Sha256) => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::RsaPss(Hash::Sha384) => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::RsaPss(Hash::Sha512) => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Ecdsa(_) | Algorithm::EcdsaFixed(_) | Algorithm::Ed25519 => return None,
    })
}
