//! Secure key release of Azure Key Vault and Managed HSM (REST API 7.4, "Release"), with a token of Microsoft Azure
//! Attestation.
//!
//! The evidence carries the digest of [`AkvKey::runtime_data`]; the attestation service puts that data into its token;
//! the vault wraps the released key to the RSA key in it (`RSA_AES_KEY_WRAP_256`: RSA-OAEP and AES-KWP, both of
//! PKCS#11 v3 §2.1.21 with SHA-256 and MGF1-SHA-256).

use std::fmt;

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, ECDH_P256, ECDH_P384, ECDH_P521},
    encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, PublicKeyX509Der},
    key_wrap::{AES_256, AesKek, KeyWrapPadded},
    rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey},
};
use base64ct::{Base64, Encoding};
use confonnx_tensor::Erased;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{decode, encode, shown};

/// A key that a vault can wrap another to, made for one attestation. aws-lc erases it when it is dropped.
pub struct AkvKey {
    private: OaepPrivateDecryptingKey,
    modulus: String,
}

/// A key as the vault sent it, wrapped to the key in the token.
#[derive(Debug)]
pub struct Wrapped {
    encrypted_kek: Vec<u8>,
    wrapped: Vec<u8>,
    kind: String,
}

/// A token that the attestation service encrypted to a machine's own key: the answer of `attest/AzureGuest`.
#[derive(Debug)]
pub struct SealedToken {
    encrypted_key: Vec<u8>,
    nonce: [u8; 12],
    /// The sealed bytes with their tag.
    sealed: Vec<u8>,
}

/// No key could be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no RSA key could be made")]
pub struct NoKey;

/// A key in a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName {
    name: String,
    version: Option<String>,
}

/// Text that names no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAME or NAME/VERSION, each of letters, digits and `-`; found {0:?}")]
pub struct KeyNameError(String);

/// What a vault released. Erased on drop.
#[derive(Debug)]
pub enum Released {
    /// Bytes of a symmetric key, as they were imported or generated.
    Bytes(Erased<Vec<u8>>),
    /// The private scalar of a key on a curve, big-endian, as long as the curve's order.
    Scalar(Erased<Vec<u8>>),
}

/// Why a released key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AkvError {
    /// Part of the answer is not JSON with the right members.
    #[error("{part}: {source}")]
    Json {
        /// The part of the answer.
        part: &'static str,
        /// What is wrong with the part.
        source: serde_json::Error,
    },
    /// The value is not three parts of base64url.
    #[error("expected a JWS in its compact form (RFC 7515, section 7.1)")]
    Jws,
    /// A member is not unpadded base64url.
    #[error("`{0}` is not base64url without padding")]
    Base64(&'static str),
    /// The key is wrapped in another way than asked for.
    #[error("the key is wrapped by `{0}`, expected {ENC}")]
    Enc(String),
    /// The released key was wrapped for another key, or damaged.
    #[error(
        "the released key does not unwrap with the key that was attested: it was wrapped for another, or changed on its way"
    )]
    Unwrap,
    /// A key of a kind that gives no bytes.
    #[error("the released key is of type `{0}`; expected an oct, oct-HSM, EC or EC-HSM key")]
    Kind(String),
    /// The released key does not have the form of its kind.
    #[error("the released key is no PKCS#8 private key on P-256, P-384 or P-521")]
    Private,
}

impl AkvKey {
    /// A fresh key of RSA with 2,048 bits, by aws-lc's own random generator.
    ///
    /// # Errors
    /// [`NoKey`]
    pub fn generate() -> Result<Self, NoKey> {
        Self::new(PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| NoKey)?)
    }

    fn new(private: PrivateDecryptingKey) -> Result<Self, NoKey> {
        let public: PublicKeyX509Der<'_> = private.public_key().as_der().map_err(|_| NoKey)?;
        // All such keys have the same lengths and exponent, so the modulus lies between two constants.
        let modulus =
            public.as_ref().strip_prefix(BEFORE_MODULUS).and_then(|rest| rest.strip_suffix(AFTER_MODULUS));
        let modulus = encode(modulus.ok_or(NoKey)?);
        Ok(Self { private: OaepPrivateDecryptingKey::new(private).map_err(|_| NoKey)?, modulus })
    }

    /// What the evidence's report data is the digest of, and what the token says of its bearer: a JWK set.
    pub fn runtime_data(&self) -> Vec<u8> {
        json!({
            "keys": [{ "e": "AQAB", "key_ops": ["encrypt"], "kid": KID, "kty": "RSA", "n": self.modulus }]
        })
        .to_string()
        .into_bytes()
    }

    /// The key in the vault's answer.
    ///
    /// The vault's signature on it is not checked: whoever can answer in the vault's name on its TLS connection could
    /// as well sign with a certificate of that name.
    ///
    /// # Errors
    /// See [`AkvError`].
    pub fn open(&self, answer: &[u8]) -> Result<Released, AkvError> {
        let wrapped = Wrapped::parse(answer)?;
        let key = self.kek(wrapped.encrypted_kek()).ok_or(AkvError::Unwrap)?;
        wrapped.open(&key)
    }

    fn kek(&self, encrypted: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut kek = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let len = self.private.decrypt(&OAEP_SHA256_MGF1SHA256, encrypted, &mut kek, None).ok()?.len();
        kek.truncate(len);
        Some(kek)
    }
}

impl Wrapped {
    /// Reads the vault's answer; see [`AkvKey::open`] for what is not checked.
    ///
    /// # Errors
    /// See [`AkvError`].
    pub fn parse(answer: &[u8]) -> Result<Self, AkvError> {
        let json = |part| move |source| AkvError::Json { part, source };
        let Answer { value } =
            confonnx_attest::json::from_slice(answer).map_err(json("the vault's answer"))?;
        let mut parts = value.split('.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(AkvError::Jws);
        };
        let payload = decode(payload).ok_or(AkvError::Jws)?;
        let Payload { request, response } =
            confonnx_attest::json::from_slice(&payload).map_err(json("the payload of the vault's JWS"))?;
        if request.enc != ENC {
            return Err(AkvError::Enc(shown(&request.enc)));
        }
        let Key { key_hsm, kty } = response.key.key;
        let key_hsm = decode(&key_hsm).ok_or(AkvError::Base64("key_hsm"))?;
        let KeyHsm { ciphertext } = confonnx_attest::json::from_slice(&key_hsm).map_err(json("`key_hsm`"))?;
        let ciphertext = decode(&ciphertext).ok_or(AkvError::Base64("ciphertext"))?;
        let (encrypted_kek, wrapped) = ciphertext.split_at_checked(RSA_BYTES).ok_or(AkvError::Unwrap)?;
        Ok(Self { encrypted_kek: encrypted_kek.to_vec(), wrapped: wrapped.to_vec(), kind: kty })
    }

    /// The transfer key, encrypted by RSAES-OAEP with SHA-256 to the key of the token.
    pub fn encrypted_kek(&self) -> &[u8] {
        &self.encrypted_kek
    }

    /// The key that was wrapped.
    ///
    /// # Errors
    /// See [`AkvError`].
    pub fn open(&self, kek: &[u8]) -> Result<Released, AkvError> {
        let key = self.unwrap(kek).ok_or(AkvError::Unwrap)?;
        match self.kind.as_str() {
            "oct" | "oct-HSM" => Ok(Released::Bytes(Erased::new(key.to_vec()))),
            "EC" | "EC-HSM" => {
                let scalar = scalar(&key).ok_or(AkvError::Private)?;
                Ok(Released::Scalar(Erased::new(scalar.to_vec())))
            }
            other => Err(AkvError::Kind(shown(other))),
        }
    }

    fn unwrap(&self, kek: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let kek = AesKek::new(&AES_256, kek).ok()?;
        let mut key = Zeroizing::new(vec![0; self.wrapped.len()]);
        let len = kek.unwrap_with_padding(&self.wrapped, &mut key).ok()?.len();
        key.truncate(len);
        Some(key)
    }
}

impl fmt::Debug for AkvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AkvKey").field("modulus", &self.modulus).finish_non_exhaustive()
    }
}

impl std::str::FromStr for KeyName {
    type Err = KeyNameError;

    fn from_str(text: &str) -> Result<Self, KeyNameError> {
        let good = |part: &str| {
            (1..=127).contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        let (name, version) =
            text.split_once('/').map_or((text, None), |(name, version)| (name, Some(version)));
        if good(name) && version.is_none_or(good) {
            return Ok(Self { name: name.into(), version: version.map(Into::into) });
        }
        Err(KeyNameError(shown(text)))
    }
}

impl KeyName {
    /// Path and query of the request for its release.
    pub fn release_path(&self) -> String {
        // Without a version in the name the latest is released.
        let version = self.version.as_deref().unwrap_or_default();
        format!("/keys/{}/{version}/release?api-version=7.4", self.name).replace("//", "/")
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            None => f.write_str(&self.name),
            Some(version) => write!(f, "{}/{version}", self.name),
        }
    }
}

impl SealedToken {
    /// Reads the service's answer, whose `token` is base64url of JSON.
    pub fn parse(answer: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Answer {
            token: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire {
            encrypted_inner_key: String,
            encryption_params: Params,
            authentication_data: String,
            jwt: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Params {
            iv: String,
        }
        let Answer { token } = confonnx_attest::json::from_slice(answer).ok()?;
        let json = decode(token.trim_end_matches('='))?;
        let wire: Wire = confonnx_attest::json::from_slice(&json).ok()?;
        let base64 = |text: &str| Base64::decode_vec(text).ok();
        let tag = base64(&wire.authentication_data).filter(|tag| tag.len() == AES_256_GCM.tag_len())?;
        Some(Self {
            encrypted_key: base64(&wire.encrypted_inner_key)?,
            nonce: base64(&wire.encryption_params.iv)?.try_into().ok()?,
            sealed: [base64(&wire.jwt)?, tag].concat(),
        })
    }

    /// The token's key, encrypted by RSAES-PKCS1-v1_5.
    pub fn encrypted_key(&self) -> &[u8] {
        &self.encrypted_key
    }

    /// The token, whose key has 16 or 32 bytes.
    pub fn open(mut self, key: &[u8]) -> Option<String> {
        let algorithm =
            [&AES_128_GCM, &AES_256_GCM].into_iter().find(|algorithm| algorithm.key_len() == key.len())?;
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let token = key.open_in_place(nonce, Aad::from(b"Transport Key"), &mut self.sealed).ok()?;
        let token = str::from_utf8(token).ok()?;
        (!token.is_empty() && super::trustee::is_token(token)).then(|| token.into())
    }
}

/// The token in the attestation service's answer, if there is one.
pub fn token(answer: &[u8]) -> Option<String> {
    super::trustee::token(answer)
}

/// The body of the request for a key's release.
pub fn release(token: &str) -> Vec<u8> {
    json!({ "target": token, "enc": ENC }).to_string().into_bytes()
}

/// The access token in the answer of the instance metadata service, if there is one.
pub fn access_token(answer: &[u8]) -> Option<Zeroizing<String>> {
    #[derive(Deserialize)]
    struct Token {
        access_token: String,
    }
    let Token { access_token } = confonnx_attest::json::from_slice(answer).ok()?;
    let access_token = Zeroizing::new(access_token);
    let usable = !access_token.is_empty() && access_token.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then_some(access_token)
}

/// What Azure's services say went wrong, for people; empty when they say nothing.
pub fn problem(answer: &[u8]) -> String {
    let answer: Value = confonnx_attest::json::from_slice(answer).unwrap_or_default();
    let text = |pointer| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match (text("/error/code"), text("/error/message")) {
        ("", message) => shown(message),
        (code, "") => shown(code),
        (code, message) => shown(&format!("{code}: {message}")),
    }
}

fn scalar(pkcs8: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    [&ECDH_P256, &ECDH_P384, &ECDH_P521].into_iter().find_map(|curve| {
        let key = agreement::PrivateKey::from_private_key_der(curve, pkcs8).ok()?;
        let scalar: EcPrivateKeyBin<'_> = key.as_be_bytes().ok()?;
        Some(Zeroizing::new(scalar.as_ref().to_vec()))
    })
}

#[derive(Deserialize)]
struct Answer {
    value: String,
}

#[derive(Deserialize)]
struct Payload {
    request: Request,
    response: Response,
}

#[derive(Deserialize)]
struct Request {
    enc: String,
}

#[derive(Deserialize)]
struct Response {
    key: KeyBundle,
}

#[derive(Deserialize)]
struct KeyBundle {
    key: Key,
}

#[derive(Deserialize)]
struct Key {
    key_hsm: String,
    kty: String,
}

#[derive(Deserialize)]
struct KeyHsm {
    ciphertext: String,
}

/// How many bytes a key of 2,048 bits has.
const RSA_BYTES: usize = 256;
const ENC: &str = "RSA_AES_KEY_WRAP_256";
const KID: &str = "confonnx";
/// SubjectPublicKeyInfo of RSA (RFC 8017, appendix A.1.1) with a modulus of 256 bytes whose top bit is set, and 65537.
const BEFORE_MODULUS: &[u8] = &[
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
    0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00,
];
const AFTER_MODULUS: &[u8] = &[0x02, 0x03, 0x01, 0x00, 0x01];

#[cfg(test)]
mod tests;
