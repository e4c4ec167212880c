//! The library that checks signatures. No other module of this crate names such a library.
//!
//! [`ring`] by the feature of that name, or the pure-Rust crates of RustCrypto (feature `rust-crypto`), which compile for
//! WebAssembly. With both, `ring` is asked; `dcap-qvl`, which follows the same features, decides likewise. Both answer
//! alike: key lengths, exponents and encodings that the one refuses, the other refuses, too.

#[cfg(feature = "ring")]
mod ring;
#[cfg(feature = "rust-crypto")]
#[cfg_attr(feature = "ring", allow(dead_code, reason = "tests compare it with ring"))]
mod rust_crypto;

#[cfg(not(any(feature = "ring", feature = "rust-crypto")))]
compile_error!("confonnx-attest needs a library for signatures: feature `ring` or `rust-crypto`");

/// A public key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key<'a> {
    /// An uncompressed point on P-256.
    P256(&'a [u8]),
    /// An uncompressed point on P-384.
    P384(&'a [u8]),
    /// As RFC 8032 encodes it.
    Ed25519(&'a [u8; 32]),
    /// DER of a PKCS#1 RSAPublicKey, whose modulus has 2048 to 8192 bits.
    Rsa(&'a [u8]),
}

/// How a signature was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// ECDSA, signature as DER.
    Ecdsa(Hash),
    /// ECDSA, signature as r ‖ s, each big-endian and as long as the curve's field.
    EcdsaFixed(Hash),
    /// RFC 8032, of the message itself.
    Ed25519,
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(Hash),
    /// RSASSA-PSS with MGF1 of the same hash and a salt as long as the hash.
    RsaPss(Hash),
}

/// The hash of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// Why a signature is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A key of that kind does not sign that way.
    Mismatch,
    /// The signature is not by that key over that message, or the key is none.
    Wrong,
}

/// Whether `key` made `signature` over `message`.
pub(crate) fn verify(
    key: Key<'_>,
    algorithm: Algorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Refused> {
    #[cfg(feature = "ring")]
    return ring::verify(key, algorithm, message, signature);
    #[cfg(all(feature = "rust-crypto", not(feature = "ring")))]
    return rust_crypto::verify(key, algorithm, message, signature);
    #[cfg(not(any(feature = "ring", feature = "rust-crypto")))]
    Err(Refused::Wrong)
}

#[cfg(all(test, feature = "rust-crypto"))]
mod tests;
