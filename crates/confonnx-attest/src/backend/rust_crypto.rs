//! The crates of RustCrypto: no C, no assembly, any target.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPublicKey};
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::{Algorithm, Hash, Key, Refused};

pub(super) fn verify(
    key: Key<'_>,
    algorithm: Algorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Refused> {
    match (key, algorithm) {
        (Key::P256(point), Algorithm::Ecdsa(hash @ (Hash::Sha256 | Hash::Sha384))) => {
            p256_verify(point, hash, message, p256::ecdsa::Signature::from_der(signature))
        }
        (Key::P256(point), Algorithm::EcdsaFixed(hash @ Hash::Sha256)) => {
            p256_verify(point, hash, message, p256::ecdsa::Signature::from_slice(signature))
        }
        (Key::P384(point), Algorithm::Ecdsa(hash @ (Hash::Sha256 | Hash::Sha384))) => {
            p384_verify(point, hash, message, p384::ecdsa::Signature::from_der(signature))
        }
        (Key::P384(point), Algorithm::EcdsaFixed(hash @ Hash::Sha384)) => {
            p384_verify(point, hash, message, p384::ecdsa::Signature::from_slice(signature))
        }
        (Key::Ed25519(key), Algorithm::Ed25519) => {
            let key = ed25519_dalek::VerifyingKey::from_bytes(key).map_err(|_| Refused::Wrong)?;
            let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| Refused::Wrong)?;
            key.verify_strict(message, &signature).map_err(|_| Refused::Wrong)
        }
        (Key::Rsa(der), Algorithm::RsaPkcs1(hash)) => {
            let scheme = match hash {
                Hash::Sha256 => Pkcs1v15Sign::new::<rsa::sha2::Sha256>(),
                Hash::Sha384 => Pkcs1v15Sign::new::<rsa::sha2::Sha384>(),
                Hash::Sha512 => Pkcs1v15Sign::new::<rsa::sha2::Sha512>(),
            };
            let verified = rsa_key(der)?.verify(scheme, &digest(hash, message), signature);
            verified.map_err(|_| Refused::Wrong)
        }
        (Key::Rsa(der), Algorithm::RsaPss(hash)) => {
            let scheme = match hash {
                Hash::Sha256 => Pss::new_with_salt::<rsa::sha2::Sha256>(32),
                Hash::Sha384 => Pss::new_with_salt::<rsa::sha2::Sha384>(48),
                Hash::Sha512 => Pss::new_with_salt::<rsa::sha2::Sha512>(64),
            };
            let verified = rsa_key(der)?.verify(scheme, &digest(hash, message), signature);
            verified.map_err(|_| Refused::Wrong)
        }
        _ => Err(Refused::Mismatch),
    }
}

fn p256_verify<E>(
    point: &[u8],
    hash: Hash,
    message: &[u8],
    signature: Result<p256::ecdsa::Signature, E>,
) -> Result<(), Refused> {
    let key = uncompressed(point)
        .and_then(|point| p256::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| Refused::Wrong))?;
    let signature = signature.map_err(|_| Refused::Wrong)?;
    key.verify_prehash(&digest(hash, message), &signature).map_err(|_| Refused::Wrong)
}

fn p384_verify<E>(
    point: &[u8],
    hash: Hash,
    message: &[u8],
    signature: Result<p384::ecdsa::Signature, E>,
) -> Result<(), Refused> {
    let key = uncompressed(point)
        .and_then(|point| p384::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| Refused::Wrong))?;
    let signature = signature.map_err(|_| Refused::Wrong)?;
    key.verify_prehash(&digest(hash, message), &signature).map_err(|_| Refused::Wrong)
}

/// Compressed points, and others that SEC 1 knows, are not what evidence holds.
fn uncompressed(point: &[u8]) -> Result<&[u8], Refused> {
    if point.first() == Some(&UNCOMPRESSED) { Ok(point) } else { Err(Refused::Wrong) }
}

fn rsa_key(der: &[u8]) -> Result<RsaPublicKey, Refused> {
    let key = rsa::pkcs1::RsaPublicKey::try_from(der).map_err(|_| Refused::Wrong)?;
    let number = |uint: rsa::pkcs1::UintRef<'_>| BigUint::from_bytes_be(uint.as_bytes());
    let key = RsaPublicKey::new_with_max_size(number(key.modulus), number(key.public_exponent), MAX_BITS)
        .map_err(|_| Refused::Wrong)?;
    // `ring` takes odd moduli of these lengths and exponents from 3.
    let odd = |number: &BigUint| number.to_bytes_le().first().is_some_and(|byte| byte & 1 == 1);
    let bits = key.n().bits();
    let usable = (MIN_BITS..=MAX_BITS).contains(&bits) && odd(key.n()) && odd(key.e());
    if usable && *key.e() >= BigUint::from(3_u8) { Ok(key) } else { Err(Refused::Wrong) }
}

fn digest(hash: Hash, message: &[u8]) -> Vec<u8> {
    match hash {
        Hash::Sha256 => Sha256::digest(message).to_vec(),
        Hash::Sha384 => Sha384::digest(message).to_vec(),
        Hash::Sha512 => Sha512::digest(message).to_vec(),
    }
}

const UNCOMPRESSED: u8 = 4;
const MIN_BITS: usize = 2048;
const MAX_BITS: usize = 8192;
