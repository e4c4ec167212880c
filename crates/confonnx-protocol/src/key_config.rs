//! Published keys: the `application/ohttp-keys` format (RFC 9458 §3).

use thiserror::Error;

use crate::{
    context::PublicKey,
    suite::{Aead, KDF_ID, Kem},
};

/// One public key and the ciphers it can be used with. The key is well-formed for its KEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConfig {
    key_id: u8,
    kem: Kem,
    public_key: Vec<u8>,
    aeads: Vec<Aead>,
}

/// Why bytes are not a list of key configurations.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeyConfigError {
    /// The list ends inside an entry.
    #[error("the key configuration list ends inside entry {entry}; fetch it again")]
    Truncated {
        /// Position in the list, from 0.
        entry: usize,
    },
    /// An entry has bytes after its last field, or its cipher list is empty or no multiple of 4 bytes.
    #[error(
        "entry {entry} of the key configuration list is malformed; the server does not follow RFC 9458 section 3"
    )]
    Malformed {
        /// Position in the list, from 0.
        entry: usize,
    },
    /// The public key is no valid key of its KEM.
    #[error("key {key_id} is not a valid {kem} public key")]
    PublicKey {
        /// The key's identifier.
        key_id: u8,
        /// The key's mechanism.
        kem: Kem,
    },
    /// Two entries have the same identifier.
    #[error("key identifier {0} occurs twice in the key configuration list")]
    DuplicateKeyId(u8),
    /// No entry uses algorithms that are known here.
    #[error(
        "none of the {entries} keys uses X-Wing, X25519 or P-256 with HKDF-SHA256; a newer client may be needed"
    )]
    NoneUsable {
        /// Entries in the list.
        entries: usize,
    },
}

impl KeyConfig {
    /// A key of `kem`, to be used with `aeads`, the preferred one first.
    ///
    /// # Errors
    /// [`KeyConfigError::PublicKey`] when `public_key` is no valid key of `kem`.
    pub fn new(key_id: u8, kem: Kem, public_key: Vec<u8>, aeads: Vec<Aead>) -> Result<Self, KeyConfigError> {
        PublicKey::parse(kem, &public_key).ok_or(KeyConfigError::PublicKey { key_id, kem })?;
        Ok(Self { key_id, kem, public_key, aeads })
    }

    /// Reads a list, at least one entry of which is usable. Entries with unknown algorithms are skipped.
    ///
    /// # Errors
    /// See [`KeyConfigError`].
    pub fn parse_list(mut list: &[u8]) -> Result<Vec<Self>, KeyConfigError> {
        let mut configs: Vec<Self> = Vec::new();
        let mut entry = 0_usize;
        while !list.is_empty() {
            let body = read_vector(&mut list).ok_or(KeyConfigError::Truncated { entry })?;
            if let Some(config) = Self::parse(body, entry)? {
                if configs.iter().any(|other| other.key_id == config.key_id) {
                    return Err(KeyConfigError::DuplicateKeyId(config.key_id));
                }
                configs.push(config);
            }
            entry = entry.saturating_add(1);
        }
        if configs.is_empty() {
            return Err(KeyConfigError::NoneUsable { entries: entry });
        }
        Ok(configs)
    }

    /// Writes a list, each entry after its 2-byte length.
    pub fn encode_list<'a>(configs: impl IntoIterator<Item = &'a Self>) -> Vec<u8> {
        let mut list = Vec::new();
        for config in configs {
            let body = config.encode();
            list.extend(len_u16(body.len()));
            list.extend(body);
        }
        list
    }

    /// Identifies the key among those a server accepts.
    pub fn key_id(&self) -> u8 {
        self.key_id
    }

    /// The key encapsulation mechanism.
    pub fn kem(&self) -> Kem {
        self.kem
    }

    /// The serialized public key, of [`Kem::public_key_len`] bytes.
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// The ciphers to use it with, preferred first, at least one.
    pub fn aeads(&self) -> &[Aead] {
        &self.aeads
    }

    /// `None` when the entry is well-formed but uses algorithms unknown here.
    fn parse(mut body: &[u8], entry: usize) -> Result<Option<Self>, KeyConfigError> {
        let malformed = KeyConfigError::Malformed { entry };
        let truncated = KeyConfigError::Truncated { entry };
        let Some((key_id, rest)) = body.split_first() else {
            return Err(truncated);
        };
        body = rest;
        let Some(kem_id) = read_u16(&mut body) else {
            return Err(truncated);
        };
        let Some(kem) = Kem::from_id(kem_id) else {
            return Ok(None);
        };
        let Some((public_key, rest)) = body.split_at_checked(kem.public_key_len()) else {
            return Err(truncated);
        };
        body = rest;
        let Some(suites) = read_vector(&mut body) else {
            return Err(truncated);
        };
        let (suites, odd) = suites.as_chunks::<4>();
        if !body.is_empty() || suites.is_empty() || !odd.is_empty() {
            return Err(malformed);
        }
        let aeads: Vec<Aead> = suites
            .iter()
            .filter(|&&[k0, k1, ..]| u16::from_be_bytes([k0, k1]) == KDF_ID)
            .filter_map(|&[.., a0, a1]| Aead::from_id(u16::from_be_bytes([a0, a1])))
            .collect();
        if aeads.is_empty() {
            return Ok(None);
        }
        Self::new(*key_id, kem, public_key.to_vec(), aeads).map(Some)
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = vec![self.key_id];
        body.extend(self.kem.id().to_be_bytes());
        body.extend(&self.public_key);
        body.extend(len_u16(self.aeads.len().saturating_mul(4)));
        for aead in &self.aeads {
            body.extend(KDF_ID.to_be_bytes());
            body.extend(aead.id().to_be_bytes());
        }
        body
    }
}

fn read_u16(input: &mut &[u8]) -> Option<u16> {
    let (bytes, rest) = input.split_first_chunk::<2>()?;
    *input = rest;
    Some(u16::from_be_bytes(*bytes))
}

/// A vector after its 2-byte length.
fn read_vector<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = *input;
    let len = read_u16(&mut rest)?;
    let (body, rest) = rest.split_at_checked(usize::from(len))?;
    *input = rest;
    Some(body)
}

/// Lengths we write are below 1.3 KiB: the largest key and three ciphers.
fn len_u16(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()
}
