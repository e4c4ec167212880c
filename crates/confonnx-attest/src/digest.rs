//! Hashes as people and JSON write them: lower-case hex.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A SHA-256 value: of a model, an executable, a library.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// What a TEE measured of the program it runs; 32 to 64 bytes, depending on the TEE.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EnclaveHash(Vec<u8>);

/// `N` bytes of a policy or a verdict, in hex: a register, a key's digest, a chip's number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// Text that is not the hex of such a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HexError {
    /// The number of digits is wrong.
    #[error("expected {expected} hex digits, found {found} characters")]
    Length {
        /// Digits that would be right, as text because some values have a range.
        expected: &'static str,
        /// Bytes of text found.
        found: usize,
    },
    /// A digit is in upper case where values have one form.
    #[error("expected hex digits in lower case, found an upper-case one at position {position}")]
    UpperCase {
        /// Position of the character, in bytes from the start.
        position: usize,
    },
    /// A character is not a hex digit.
    #[error("expected hex digits (0-9, a-f), found another character at position {position}")]
    Digit {
        /// Position of the character, in bytes from the start.
        position: usize,
    },
}

impl EnclaveHash {
    /// A measurement of 32 to 64 bytes; `None` for any other length.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (32..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Digest> for EnclaveHash {
    fn from(digest: Digest) -> Self {
        Self(digest.0.to_vec())
    }
}

impl From<Hex<48>> for EnclaveHash {
    fn from(measurement: Hex<48>) -> Self {
        Self(measurement.0.to_vec())
    }
}

impl FromStr for Digest {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        decode_array(text).map(Self)
    }
}

impl FromStr for EnclaveHash {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        let length = HexError::Length { expected: "64 to 128", found: text.len() };
        if text.len() > 128 {
            return Err(length);
        }
        Self::new(decode(text)?).ok_or(length)
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        decode_array(text).map(Self)
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hex({self})")
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl fmt::Display for EnclaveHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for EnclaveHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnclaveHash({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for EnclaveHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EnclaveHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Lower-case hex.
pub(crate) fn encode(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Hex of exactly `N` bytes, in either case.
pub(crate) fn decode_array<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let expected = match N {
        4 => "8",
        8 => "16",
        16 => "32",
        20 => "40",
        32 => "64",
        48 => "96",
        64 => "128",
        _ => "another number of",
    };
    let length = HexError::Length { expected, found: text.len() };
    if text.len() != N.saturating_mul(2) {
        return Err(length);
    }
    decode(text)?.try_into().map_err(|_| length)
}

/// Bytes from hex in lower case alone: on the wire a value has one form.
pub(crate) fn decode_array_lower<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    match text.bytes().position(|c| c.is_ascii_uppercase()) {
        Some(position) => Err(HexError::UpperCase { position }),
        None => decode_array(text),
    }
}

pub(crate) fn decode(text: &str) -> Result<Vec<u8>, HexError> {
    let digits: Vec<u8> = text
        .bytes()
        .enumerate()
        .map(|(position, c)| {
            char::from(c)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
                .ok_or(HexError::Digit { position })
        })
        .collect::<Result<_, _>>()?;
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(HexError::Length { expected: "an even number of", found: text.len() });
    }
    Ok(pairs.iter().map(|[high, low]| (high << 4) | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip_as_hex() {
        let digest = Digest(std::array::from_fn(|i| i as u8 * 8));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.to_string().to_uppercase().parse(), Ok(digest));
    }

    #[test]
    fn wrong_text_says_what_is_wrong() {
        let found = |text: &str| text.parse::<Digest>().unwrap_err();
        assert_eq!(found(""), HexError::Length { expected: "64", found: 0 });
        assert_eq!(found(&"a".repeat(63)), HexError::Length { expected: "64", found: 63 });
        assert_eq!(found(&format!("{}g", "a".repeat(63))), HexError::Digit { position: 63 });
        assert_eq!(found(&"é".repeat(32)), HexError::Digit { position: 0 });
    }

    #[test]
    fn values_of_any_length_are_hex_too() {
        let register = Hex::<48>(std::array::from_fn(|i| i as u8));
        assert_eq!(register.to_string().parse(), Ok(register));
        assert_eq!("00".parse::<Hex<48>>(), Err(HexError::Length { expected: "96", found: 2 }));
        assert_eq!(serde_json::to_value(register).unwrap(), serde_json::json!(register.to_string()));
        assert!(serde_json::from_str::<Hex<8>>("\"0011\"").is_err());
    }

    #[test]
    fn enclave_hashes_are_32_to_64_bytes() {
        for (digits, ok) in [(62, false), (64, true), (96, true), (97, false), (128, true), (130, false)] {
            assert_eq!("a".repeat(digits).parse::<EnclaveHash>().is_ok(), ok, "{digits} digits");
        }
        assert_eq!(EnclaveHash::new([0; 31]), None);
    }
}
