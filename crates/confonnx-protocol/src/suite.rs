//! The algorithms that can be negotiated, by their registered identifiers (RFC 9180 §7, draft-ietf-hpke-pq).

use std::{fmt, str::FromStr};

/// The only key derivation function: HKDF-SHA256 (RFC 9180 §7.2).
pub const KDF_ID: u16 = 0x0001;

/// How many bytes an authentication tag has, the same for every [`Aead`].
pub const TAG_LEN: usize = 16;

/// How many bytes a nonce has, the same for every [`Aead`].
pub(crate) const NONCE_LEN: usize = 12;

/// A name of no algorithm that is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {expected}, found {found:?}")]
pub struct NameError {
    expected: String,
    found: String,
}

impl NameError {
    fn new(known: &[&str], found: &str) -> Self {
        Self { expected: known.join(", "), found: found.to_owned() }
    }
}

/// A key encapsulation mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kem {
    /// ML-KEM-768 with X25519, the post-quantum hybrid; the default.
    XWing,
    /// DHKEM(X25519, HKDF-SHA256).
    X25519,
    /// DHKEM(P-256, HKDF-SHA256).
    P256,
}

impl Kem {
    /// Every mechanism, the preferred one first.
    pub const ALL: [Self; 3] = [Self::XWing, Self::X25519, Self::P256];

    /// The mechanism registered under `id`.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kem| kem.id() == id)
    }

    /// The mechanism named `name` in claims and settings.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kem| kem.name() == name)
    }

    /// The registered identifier.
    pub const fn id(self) -> u16 {
        match self {
            Self::XWing => 0x647a,
            Self::X25519 => 0x0020,
            Self::P256 => 0x0010,
        }
    }

    /// The name in claims and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::XWing => "x-wing",
            Self::X25519 => "x25519",
            Self::P256 => "p-256",
        }
    }

    /// How many bytes a public key has (Npk).
    pub const fn public_key_len(self) -> usize {
        match self {
            Self::XWing => 1216,
            Self::X25519 => 32,
            Self::P256 => 65,
        }
    }

    /// How many bytes an encapsulated key has (Nenc).
    pub const fn encapsulated_key_len(self) -> usize {
        match self {
            Self::XWing => 1120,
            Self::X25519 => 32,
            Self::P256 => 65,
        }
    }
}

impl FromStr for Kem {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::from_name(name).ok_or_else(|| NameError::new(&Self::ALL.map(Self::name), name))
    }
}

impl fmt::Display for Kem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An authenticated cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aead {
    /// AES-256-GCM; the default.
    Aes256Gcm,
    /// AES-128-GCM.
    Aes128Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

impl Aead {
    /// Every cipher, the preferred one first.
    pub const ALL: [Self; 3] = [Self::Aes256Gcm, Self::Aes128Gcm, Self::ChaCha20Poly1305];

    /// The cipher registered under `id`.
    pub fn from_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|aead| aead.id() == id)
    }

    /// The cipher named `name` in settings.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|aead| aead.name() == name)
    }

    /// The registered identifier.
    pub const fn id(self) -> u16 {
        match self {
            Self::Aes128Gcm => 0x0001,
            Self::Aes256Gcm => 0x0002,
            Self::ChaCha20Poly1305 => 0x0003,
        }
    }

    /// The name in settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// How many bytes a key has (Nk).
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// How many bytes the exported secret and the nonce that starts a reply have: max(Nn, Nk) (RFC 9458 §4.4).
    pub const fn reply_nonce_len(self) -> usize {
        if self.key_len() > NONCE_LEN { self.key_len() } else { NONCE_LEN }
    }
}

impl FromStr for Aead {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::from_name(name).ok_or_else(|| NameError::new(&Self::ALL.map(Self::name), name))
    }
}

impl fmt::Display for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_names_are_bijective() {
        for kem in Kem::ALL {
            assert_eq!(Kem::from_id(kem.id()), Some(kem));
            assert_eq!(Kem::from_name(kem.name()), Some(kem));
        }
        for aead in Aead::ALL {
            assert_eq!(Aead::from_id(aead.id()), Some(aead));
            assert_eq!(Aead::from_name(aead.name()), Some(aead));
        }
        assert_eq!(Kem::from_id(0x0012), None);
        assert_eq!(Aead::from_id(0xffff), None);
    }
}
