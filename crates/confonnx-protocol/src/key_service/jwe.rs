//! Secrets encrypted to a key of ours: JWE (RFC 7516) in its flattened JSON form, with `ECDH-ES+A256KW` on P-256 and
//! `A256GCM` (RFC 7518 §4.6, §5.3), as Trustee makes them.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, ECDH_P256},
    key_wrap::{AES_256, AesKek, KeyWrap},
};
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{concat_kdf::concat_kdf, decode, encode, shown};

/// A key that a secret can be encrypted to, made for one attestation. aws-lc erases it when it is dropped.
pub struct KbsKey {
    private: agreement::PrivateKey,
    x: String,
    y: String,
}

/// The public half, as JWK (RFC 7517) in the order that canonical JSON (RFC 8785) has.
#[derive(Serialize)]
pub(super) struct PublicJwk<'a> {
    alg: &'static str,
    crv: &'static str,
    kty: &'static str,
    x: &'a str,
    y: &'a str,
}

/// Why a secret cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum JweError {
    /// The text is not a flattened JWE.
    #[error("expected a JWE in its flattened JSON form (RFC 7516, section 7.2.2): {0}")]
    Json(serde_json::Error),
    /// The protected header is not what it has to be.
    #[error("the JWE's protected header: {0}")]
    Header(serde_json::Error),
    /// A member is not unpadded base64url.
    #[error("the JWE's `{0}` is not base64url without padding")]
    Base64(&'static str),
    /// The JWE uses another algorithm.
    #[error("the JWE's `{member}` is `{found}`, expected `{expected}`")]
    Algorithm {
        /// `alg`, `enc`, `crv` or `kty`.
        member: &'static str,
        /// What was asked for.
        expected: &'static str,
        /// What came instead, shortened.
        found: String,
    },
    /// The header lacks a member.
    #[error("the JWE's protected header has no `{0}`")]
    Missing(&'static str),
    /// The header has what we are told not to ignore.
    #[error("the JWE's protected header has `{0}`, which is not supported")]
    Unsupported(&'static str),
    /// The answer was made for another key, or damaged.
    #[error(
        "the JWE does not open with the key that was attested: it was made for another, or changed on its way"
    )]
    Open,
}

impl KbsKey {
    /// A fresh key on P-256; `None` when `rng` gives nothing that is one.
    pub fn generate(rng: &mut impl CryptoRng) -> Option<Self> {
        // Out of range once in 2^32 draws.
        (0..=u8::MAX).find_map(|_| {
            let mut candidate = Zeroizing::new([0; 32]);
            rng.fill_bytes(candidate.as_mut_slice());
            Self::from_bytes(&candidate)
        })
    }

    fn from_bytes(private: &[u8; 32]) -> Option<Self> {
        let private = agreement::PrivateKey::from_private_key(&ECDH_P256, private).ok()?;
        let public = private.compute_public_key().ok()?;
        // SEC 1, uncompressed: 4, x, y.
        let (x, y) = public.as_ref().get(1..)?.split_at_checked(32)?;
        let (x, y) = (encode(x), encode(y));
        Some(Self { private, x, y })
    }

    pub(super) fn public(&self) -> PublicJwk<'_> {
        PublicJwk { alg: ALG, crv: CRV, kty: KTY, x: &self.x, y: &self.y }
    }

    /// The secret in `jwe`.
    ///
    /// # Errors
    /// See [`JweError`].
    pub fn open(&self, jwe: &[u8]) -> Result<Zeroizing<Vec<u8>>, JweError> {
        let jwe: Flattened<'_> = confonnx_attest::json::from_slice(jwe).map_err(JweError::Json)?;
        let header = Base64Member("protected").decode(&jwe.protected)?;
        let header: Header = confonnx_attest::json::from_slice(&header).map_err(JweError::Header)?;
        let ephemeral = header.check()?;
        let encrypted_key = Base64Member("encrypted_key").decode(&jwe.encrypted_key)?;
        let (iv, tag) = (Base64Member("iv").decode(&jwe.iv)?, Base64Member("tag").decode(&jwe.tag)?);
        let mut sealed = Base64Member("ciphertext").decode(&jwe.ciphertext)?;

        let content_key = self.unwrap(&header, ephemeral, &encrypted_key)?;
        let key = UnboundKey::new(&AES_256_GCM, content_key.as_slice()).map_err(|_| JweError::Open)?;
        let iv = Nonce::try_assume_unique_for_key(&iv).map_err(|_| JweError::Open)?;
        if tag.len() != AES_256_GCM.tag_len() {
            return Err(JweError::Open);
        }
        // RFC 7516, section 5.2, step 15.
        let aad = match &jwe.aad {
            None => jwe.protected.to_string(),
            Some(aad) => format!("{}.{aad}", jwe.protected),
        };
        sealed.extend_from_slice(&tag);
        let opened = LessSafeKey::new(key).open_in_place(iv, Aad::from(aad), &mut sealed);
        let len = opened.map_err(|_| JweError::Open)?.len();
        sealed.truncate(len);
        Ok(sealed)
    }

    /// The content encryption key: 32 bytes.
    fn unwrap(
        &self,
        header: &Header,
        ephemeral: &EphemeralKey,
        encrypted_key: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, JweError> {
        let info = |member, text: &Option<String>| {
            text.as_deref().map_or(Ok(Zeroizing::default()), |text| Base64Member(member).decode(text))
        };
        let (apu, apv) = (info("apu", &header.apu)?, info("apv", &header.apv)?);
        let point = [
            &[4],
            Base64Member("epk.x").decode(&ephemeral.x)?.as_slice(),
            Base64Member("epk.y").decode(&ephemeral.y)?.as_slice(),
        ]
        .concat();
        let peer = agreement::UnparsedPublicKey::new(&ECDH_P256, point);
        let kek = agreement::agree(&self.private, peer, JweError::Open, |z| {
            concat_kdf::<32>(z, ALG.as_bytes(), &apu, &apv).ok_or(JweError::Open)
        })?;
        let kek = AesKek::new(&AES_256, kek.as_slice()).map_err(|_| JweError::Open)?;
        // aws-lc wants room for all it was given.
        let mut room = Zeroizing::new([0; 40]);
        if encrypted_key.len() != room.len() {
            return Err(JweError::Open);
        }
        let key = kek.unwrap(encrypted_key, room.as_mut_slice()).map_err(|_| JweError::Open)?;
        let mut content_key = Zeroizing::new([0; 32]);
        if key.len() != content_key.len() {
            return Err(JweError::Open);
        }
        content_key.copy_from_slice(key);
        Ok(content_key)
    }
}

impl fmt::Debug for KbsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KbsKey").field("x", &self.x).finish_non_exhaustive()
    }
}

/// RFC 7516, section 7.2.2. What an unprotected header says is nobody's word, and not read.
#[derive(Deserialize)]
struct Flattened<'a> {
    #[serde(borrow)]
    protected: std::borrow::Cow<'a, str>,
    encrypted_key: std::borrow::Cow<'a, str>,
    iv: std::borrow::Cow<'a, str>,
    ciphertext: std::borrow::Cow<'a, str>,
    tag: std::borrow::Cow<'a, str>,
    aad: Option<std::borrow::Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    enc: String,
    epk: Option<EphemeralKey>,
    apu: Option<String>,
    apv: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
    zip: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct EphemeralKey {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

impl Header {
    fn check(&self) -> Result<&EphemeralKey, JweError> {
        let is = |member, expected, found: &str| {
            let found = shown(found);
            if found == expected { Ok(()) } else { Err(JweError::Algorithm { member, expected, found }) }
        };
        is("alg", ALG, &self.alg)?;
        is("enc", ENC, &self.enc)?;
        let epk = self.epk.as_ref().ok_or(JweError::Missing("epk"))?;
        is("kty", KTY, &epk.kty)?;
        is("crv", CRV, &epk.crv)?;
        match (&self.crit, &self.zip) {
            (Some(_), _) => Err(JweError::Unsupported("crit")),
            (_, Some(_)) => Err(JweError::Unsupported("zip")),
            (None, None) => Ok(epk),
        }
    }
}

struct Base64Member(&'static str);

impl Base64Member {
    fn decode(&self, text: &str) -> Result<Zeroizing<Vec<u8>>, JweError> {
        decode(text).ok_or(JweError::Base64(self.0))
    }
}

const ALG: &str = "ECDH-ES+A256KW";
const ENC: &str = "A256GCM";
const CRV: &str = "P-256";
const KTY: &str = "EC";

#[cfg(test)]
mod tests;
