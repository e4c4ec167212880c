//! Keys in the form of the `age` tool: `AGE-SECRET-KEY-1…`, with the recipient `age1…`.

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    agreement::{self, X25519},
    hkdf,
    rand::{SecureRandom, SystemRandom},
};
use bech32::{Bech32, Hrp, primitives::decode::CheckedHrpstring};
use zeroize::Zeroizing;

use super::{Failed, Secret};

/// The key of encrypted models: an X25519 identity of the `age` format. Erased on drop, never printed.
pub struct ModelKey {
    /// The key's bytes on the heap: an array would leave a copy behind wherever it was before it moved.
    secret: Zeroizing<Vec<u8>>,
    recipient: [u8; 32],
}

/// Text that is not such a key. It does not quote the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no line that starts as keys do.
    #[error(
        "expected a line that starts with AGE-SECRET-KEY-1, as `confonnx encrypt-model` and age-keygen write it"
    )]
    NoKey,
    /// There is more than one key.
    #[error("expected one key, found several lines that start with AGE-SECRET-KEY-1")]
    Several,
    /// The key is damaged.
    #[error("the key's check sum or length is wrong: it was altered or cut")]
    Damaged,
}

impl ModelKey {
    /// A fresh key; `None` when the system gives no randomness.
    pub fn generate() -> Option<Self> {
        Self::from_secret(Zeroizing::new(random::<32>().ok()?.to_vec()))
    }

    /// The key whose secret is an X25519 scalar, as a key vault keeps it; the argument is not erased.
    pub fn from_bytes(secret: &[u8; 32]) -> Option<Self> {
        Self::from_secret(Zeroizing::new(secret.to_vec()))
    }

    /// The key as text: a secret, erased on drop.
    pub fn expose(&self) -> Zeroizing<String> {
        let Some(text) = encode(SECRET_PREFIX, &self.secret) else { return Zeroizing::default() };
        let text = Zeroizing::new(text);
        Zeroizing::new(text.to_ascii_uppercase())
    }

    /// The public half, `age1…`, to which other tools encrypt.
    pub fn recipient(&self) -> String {
        encode(RECIPIENT_PREFIX, &self.recipient).unwrap_or_default()
    }

    pub(crate) fn recipient_bytes(&self) -> &[u8; 32] {
        &self.recipient
    }

    /// The key that wraps a file key between this identity and `ephemeral`'s owner; `None` for a share of small order.
    pub(super) fn wrap_key(&self, ephemeral: &[u8; 32]) -> Option<Secret<32>> {
        let own = agreement::PrivateKey::from_private_key(&X25519, &self.secret).ok()?;
        wrap_key(&own, ephemeral, ephemeral, &self.recipient)
    }

    /// `None` unless it has 32 bytes.
    fn from_secret(secret: Zeroizing<Vec<u8>>) -> Option<Self> {
        let private = agreement::PrivateKey::from_private_key(&X25519, &secret).ok()?;
        let recipient = private.compute_public_key().ok()?.as_ref().try_into().ok()?;
        Some(Self { secret, recipient })
    }
}

/// HKDF-SHA256 of the shared secret: salt is ephemeral share ‖ recipient.
pub(super) fn wrap_key(
    own: &agreement::PrivateKey,
    peer: &[u8; 32],
    ephemeral: &[u8; 32],
    recipient: &[u8; 32],
) -> Option<Secret<32>> {
    let peer = agreement::UnparsedPublicKey::new(&X25519, peer);
    agreement::agree(own, peer, Failed, |shared| {
        let salt = [ephemeral.as_slice(), recipient].concat();
        derive(&salt, shared, b"age-encryption.org/v1/X25519")
    })
    .ok()
}

/// 32 bytes of HKDF-SHA256.
pub(super) fn derive(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<Secret<32>, Failed> {
    let mut key = Zeroizing::new([0; 32]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|material| material.fill(key.as_mut_slice()))
        .map_err(|_| Failed)?;
    Ok(key)
}

pub(super) fn random<const N: usize>() -> Result<Secret<N>, Failed> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| Failed)?;
    Ok(bytes)
}

impl FromStr for ModelKey {
    type Err = KeyError;

    /// From the text of a key file: empty lines and those that start with `#` are skipped, as by the `age` tool.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let line = lines.next().filter(|line| line.starts_with("AGE-SECRET-KEY-1")).ok_or(KeyError::NoKey)?;
        if lines.next().is_some() {
            return Err(KeyError::Several);
        }
        let parsed = CheckedHrpstring::new::<Bech32>(line).map_err(|_| KeyError::Damaged)?;
        // With room for all of the key, the buffer never moves.
        let mut secret = Zeroizing::new(Vec::with_capacity(line.len()));
        secret.extend(parsed.byte_iter());
        Self::from_secret(secret).ok_or(KeyError::Damaged)
    }
}

impl fmt::Debug for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelKey({})", self.recipient())
    }
}

fn encode(prefix: &str, bytes: &[u8]) -> Option<String> {
    bech32::encode::<Bech32>(Hrp::parse(prefix).ok()?, bytes).ok()
}

const SECRET_PREFIX: &str = "age-secret-key-";
const RECIPIENT_PREFIX: &str = "age";
