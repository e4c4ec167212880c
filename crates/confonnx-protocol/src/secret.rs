//! Secrets and plaintext: erased on drop, never printed, read only through `expose`.

use std::{fmt, ops::Range};

use confonnx_tensor::Erased;
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

/// A decrypted message, erased on drop. It may sit inside a larger buffer, the one it was decrypted in.
pub struct Plaintext {
    buffer: Erased<Vec<u8>>,
    message: Range<usize>,
}

impl Plaintext {
    /// The bytes of the message.
    pub fn expose(&self) -> &[u8] {
        self.buffer.get(self.message.clone()).unwrap_or_default()
    }

    /// How many bytes the message has.
    pub fn len(&self) -> usize {
        self.message.len()
    }

    /// Whether the message has no bytes.
    pub fn is_empty(&self) -> bool {
        self.message.is_empty()
    }

    /// `message` must lie within `buffer`.
    pub(crate) fn within(buffer: impl Into<Erased<Vec<u8>>>, message: Range<usize>) -> Self {
        let buffer = buffer.into();
        debug_assert!(buffer.get(message.clone()).is_some());
        Self { buffer, message }
    }
}

impl fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plaintext({} bytes)", self.len())
    }
}

/// The 32 bytes from which all keys of one epoch are derived (`docs/protocol.md`, section 3).
///
/// The bytes stay in one place however often the secret is moved, so that no copy is left behind when they are erased.
pub struct EpochSecret(Box<Zeroizing<[u8; 32]>>);

impl EpochSecret {
    /// A fresh secret.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self::written(|secret| rng.fill_bytes(secret))
    }

    /// A secret made elsewhere; the argument is erased.
    pub fn new(mut secret: [u8; 32]) -> Self {
        let kept = Self::copy(&secret);
        secret.zeroize();
        kept
    }

    /// A copy of a secret that somebody else erases.
    pub fn copy(secret: &[u8; 32]) -> Self {
        Self::written(|kept| kept.copy_from_slice(secret))
    }

    /// The secret that `write` puts where it stays.
    pub(crate) fn written(write: impl FnOnce(&mut [u8; 32])) -> Self {
        let mut secret = Box::new(Zeroizing::new([0; 32]));
        write(&mut secret);
        Self(secret)
    }

    /// The bytes of the secret.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for EpochSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochSecret(32 bytes)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let plaintext = Plaintext::within(b"..attack at dawn".to_vec(), 2..16);
        assert_eq!(plaintext.expose(), b"attack at dawn");
        assert_eq!(format!("{plaintext:?}"), "Plaintext(14 bytes)");
        assert_eq!(format!("{:?}", EpochSecret::new([7; 32])), "EpochSecret(32 bytes)");
    }
}
