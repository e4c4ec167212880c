//! What evidence is bound to: a nonce, the key configs and the claims (protocol.md 2.3).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

use crate::digest::{self, HexError};

/// Seconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

/// Text that is no instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected Unix seconds or a time in UTC such as 2026-10-08T01:09:46Z")]
pub struct TimeError;

/// 32 random bytes by which a client knows that evidence was made after it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 32]);

impl FromStr for UnixTime {
    type Err = TimeError;

    /// From Unix seconds, or from RFC 3339 in UTC and whole seconds, years 1970 to 9999.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        if let Ok(seconds) = text.parse() {
            return Ok(Self(seconds));
        }
        let date: der::DateTime = text.parse().map_err(|_| TimeError)?;
        Ok(Self(date.unix_duration().as_secs()))
    }
}

impl FromStr for Nonce {
    type Err = HexError;

    /// From 64 hex digits.
    fn from_str(text: &str) -> Result<Self, HexError> {
        digest::decode_array(text).map(Self)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&digest::encode(&self.0))
    }
}

/// The 64 bytes that evidence has to carry for `root` (of the nonces), `key_configs` (`application/ohttp-keys`
/// bytes) and `claims` (the JSON bytes as sent).
pub fn report_data(root: &[u8; 32], key_configs: &[u8], claims: &[u8]) -> [u8; 64] {
    Sha512::new()
        .chain_update(b"confonnx attestation v1")
        .chain_update(root)
        .chain_update(Sha256::digest(key_configs))
        .chain_update(Sha256::digest(claims))
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_data_matches_a_value_computed_elsewhere() {
        // python: hashlib.sha512(b"confonnx attestation v1" + bytes(32) + sha256(b"k") + sha256(b"c"))
        let found = digest::encode(&report_data(&[0; 32], b"k", b"c"));
        assert_eq!(found, EXPECTED);
    }

    #[test]
    fn every_part_matters_and_no_byte_can_move_between_them() {
        let base = report_data(&[0; 32], b"ab", b"c");
        assert_ne!(base, report_data(&[1; 32], b"ab", b"c"));
        assert_ne!(base, report_data(&[0; 32], b"a", b"bc"));
        assert_ne!(base, report_data(&[0; 32], b"ab", b"d"));
    }

    #[test]
    fn instants_are_unix_seconds_or_utc() {
        let time = UnixTime(1_791_421_786);
        assert_eq!("1791421786".parse(), Ok(time));
        assert_eq!("2026-10-08T01:09:46Z".parse(), Ok(time));
        for text in [
            "",
            "-1",
            "2026-10-08",
            "2026-10-08T01:09:46",
            "2026-10-08T01:09:46+02:00",
            "2026-13-08T01:09:46Z",
        ] {
            assert_eq!(text.parse::<UnixTime>(), Err(TimeError), "{text}");
        }
    }

    const EXPECTED: &str = "8bb7e0fc2291deb16168baefa6217f846ad0c530b89b59c01fde5a0020ac98b338e425780badfafface906c63e2b853c79e5bd265602a6eb447039329dedf843";
}
