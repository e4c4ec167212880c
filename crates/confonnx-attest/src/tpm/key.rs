//! Attestation keys (AKs), as TPMs describe them.

use der::Encode;
use der::asn1::Uint;
use sha2::{Digest as _, Sha256};

use super::algorithm::{ECC, NULL, P256, P384, RSA, SHA256};
use super::signature::Signature;
use super::wire::{Reader, WireError};
use crate::x509::{self, PublicKey};

/// The public part of an attestation key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AkPublic {
    key: PublicKey,
    /// The TPM's own description (TPMT_PUBLIC), when the key came as one.
    area: Option<Area>,
}

/// Bytes that are no attestation key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a TPMT_PUBLIC of an accepted kind.
    #[error("not the TPMT_PUBLIC of an attestation key: {0}")]
    Wire(#[from] WireError),
    /// Not a SubjectPublicKeyInfo of an accepted kind.
    #[error("not the SubjectPublicKeyInfo of an attestation key: {found}")]
    Spki {
        /// What the key is instead.
        found: String,
    },
    /// The numbers of the key do not fit its kind.
    #[error("the key's {field} has {found} bytes, expected {expected}")]
    Length {
        /// Which number.
        field: &'static str,
        /// Bytes that would fit.
        expected: &'static str,
        /// How many bytes there are, without leading zeros.
        found: usize,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Area {
    bytes: Vec<u8>,
    attributes: u32,
}

impl AkPublic {
    /// The key of the TPM's own description (TPMT_PUBLIC, part 2, 12.2.4), whose name algorithm is SHA-256.
    pub fn from_tpmt(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u16("type")?;
        reader.expect_u16("nameAlg", "0xb (SHA-256)", SHA256)?;
        let attributes = reader.u32("objectAttributes")?;
        reader.sized("authPolicy")?;
        reader.expect_u16("symmetric", "0x10 (null)", NULL)?;
        skip_scheme(&mut reader, "scheme")?;
        let key = match kind {
            RSA => {
                reader.u16("keyBits")?;
                let exponent = match reader.u32("exponent")? {
                    0 => DEFAULT_EXPONENT,
                    exponent => exponent,
                };
                rsa(reader.sized("unique")?, &exponent.to_be_bytes())?
            }
            ECC => {
                let curve = reader.u16("curveID")?;
                skip_scheme(&mut reader, "kdf")?;
                let (x, y) = (reader.sized("unique.x")?, reader.sized("unique.y")?);
                match curve {
                    P256 => PublicKey::P256(point(x, y, 32)?),
                    P384 => PublicKey::P384(point(x, y, 48)?),
                    found => {
                        let expected = "0x3 (P-256) or 0x4 (P-384)";
                        return Err(
                            WireError::Value { field: "curveID", expected, found: found.into() }.into()
                        );
                    }
                }
            }
            found => {
                let expected = "0x1 (RSA) or 0x23 (ECC)";
                return Err(WireError::Value { field: "type", expected, found: found.into() }.into());
            }
        };
        reader.finish()?;
        Ok(Self { key, area: Some(Area { bytes: bytes.to_vec(), attributes }) })
    }

    /// The key of a SubjectPublicKeyInfo (DER), which does not say that the key is a TPM's.
    pub fn from_spki(der: &[u8]) -> Result<Self, KeyError> {
        let malformed = |err: x509::KeyError| KeyError::Spki { found: err.to_string() };
        Ok(Self { key: PublicKey::from_der(der).map_err(malformed)?, area: None })
    }

    /// The key of an RSA modulus and exponent, big-endian, which do not say that the key is a TPM's.
    pub fn from_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        Ok(Self { key: rsa(modulus, exponent)?, area: None })
    }

    /// The TPM's description of the key, if it came as one.
    pub fn tpmt(&self) -> Option<&[u8]> {
        self.area.as_ref().map(|area| area.bytes.as_slice())
    }

    /// The digest in the key's TPM name: SHA-256 of its description, so it covers its attributes too.
    pub fn name(&self) -> Option<[u8; 32]> {
        self.tpmt().map(|bytes| Sha256::digest(bytes).into())
    }

    /// The attributes that an attestation key has to have and this one has not. A key without description has no
    /// attributes, and lacks all.
    pub(super) fn lacks(&self) -> Vec<&'static str> {
        let attributes = self.area.as_ref().map_or(0, |area| area.attributes);
        let mut lacks: Vec<_> =
            NEEDED.into_iter().filter_map(|(bit, name)| (attributes & bit == 0).then_some(name)).collect();
        if attributes & DECRYPT != 0 {
            lacks.push("no decrypt");
        }
        lacks
    }

    /// Whether this is the key of that certificate.
    pub(super) fn is_certified_by(&self, certificate: &x509::Certificate) -> bool {
        certificate.public_key().as_ref() == Ok(&self.key)
    }

    /// Whether this key made `signature` over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let len = match self.key {
            PublicKey::P256(_) => 32,
            PublicKey::P384(_) => 48,
            PublicKey::Rsa(_) => 0,
        };
        let bytes = match signature {
            Signature::Rsa { bytes, .. } => Some(bytes.clone()),
            Signature::Ecdsa { r, s, .. } => padded(r, len).zip(padded(s, len)).map(|(r, s)| [r, s].concat()),
        };
        bytes.is_some_and(|bytes| self.key.verify(signature.algorithm(), message, &bytes).is_ok())
    }

    /// The kind of the key, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self.key {
            PublicKey::Rsa(_) => "RSA",
            PublicKey::P256(_) => "P-256",
            PublicKey::P384(_) => "P-384",
        }
    }
}

/// A TPMT_…_SCHEME: an algorithm and, unless that is null, its hash.
fn skip_scheme(reader: &mut Reader<'_>, field: &'static str) -> Result<(), WireError> {
    if reader.u16(field)? != NULL {
        reader.u16(field)?;
    }
    Ok(())
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, KeyError> {
    let (modulus, exponent) = (stripped(modulus), stripped(exponent));
    if !(256..=512).contains(&modulus.len()) {
        return Err(KeyError::Length { field: "modulus", expected: "256 to 512", found: modulus.len() });
    }
    let malformed = |_| KeyError::Length { field: "exponent", expected: "1 to 8", found: exponent.len() };
    let uint = |number| Uint::new(number).map_err(malformed);
    let key = RsaPublicKey { modulus: uint(modulus)?, exponent: uint(exponent)? };
    key.to_der().map(PublicKey::Rsa).map_err(malformed)
}

/// PKCS #1 RSAPublicKey (RFC 8017, A.1.1).
#[derive(der::Sequence)]
struct RsaPublicKey {
    modulus: Uint,
    exponent: Uint,
}

/// An uncompressed point.
fn point(x: &[u8], y: &[u8], len: usize) -> Result<Vec<u8>, KeyError> {
    let expected = if len == 32 { "at most 32" } else { "at most 48" };
    let number = |field, number: &[u8]| {
        padded(number, len).ok_or(KeyError::Length { field, expected, found: number.len() })
    };
    Ok([vec![UNCOMPRESSED], number("unique.x", x)?, number("unique.y", y)?].concat())
}

/// A big-endian number in exactly `len` bytes; TPMs leave out leading zeros.
fn padded(number: &[u8], len: usize) -> Option<Vec<u8>> {
    let missing = len.checked_sub(number.len())?;
    Some([vec![0; missing], number.to_vec()].concat())
}

fn stripped(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

const DEFAULT_EXPONENT: u32 = 65_537;
const UNCOMPRESSED: u8 = 4;

// Part 2, 8.3 (TPMA_OBJECT). Only a restricted key never signs foreign bytes that look like a quote.
const DECRYPT: u32 = 1 << 17;
const NEEDED: [(u32, &str); 5] = [
    (1 << 1, "fixedTPM"),
    (1 << 4, "fixedParent"),
    (1 << 5, "sensitiveDataOrigin"),
    (1 << 16, "restricted"),
    (1 << 18, "sign"),
];
