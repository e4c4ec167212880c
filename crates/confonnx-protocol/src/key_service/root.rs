//! Epoch secrets from a secret that a service released (`docs/protocol.md`, section 3).

use std::fmt;

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use crate::secret::EpochSecret;

/// A root secret, of which only what HKDF extracted is kept. aws-lc erases that when it is dropped.
pub struct RootSecret(hkdf::Prk);

/// A secret that is too short to derive others from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a secret of {MIN_ROOT} bytes or more, found {0}: make one with `openssl rand {MIN_ROOT}`")]
pub struct ShortRoot(usize);

impl RootSecret {
    /// The root in the bytes that the service released.
    ///
    /// # Errors
    /// [`ShortRoot`]
    pub fn new(bytes: &[u8]) -> Result<Self, ShortRoot> {
        if bytes.len() < MIN_ROOT {
            return Err(ShortRoot(bytes.len()));
        }
        Ok(Self(hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(bytes)))
    }

    /// The secret of epoch `number`: `HKDF-Expand(PRK, "epoch" ‖ number as 8 bytes, 32)`.
    pub fn epoch(&self, number: u64) -> EpochSecret {
        let mut secret = Zeroizing::new([0; 32]);
        let info: [&[u8]; 2] = [b"epoch", &number.to_be_bytes()];
        let filled = self.0.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(secret.as_mut_slice()));
        debug_assert!(filled.is_ok(), "32 bytes are fewer than HKDF's limit");
        EpochSecret::new(*secret)
    }
}

impl fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootSecret")
    }
}

/// How many bytes the shortest root has.
pub const MIN_ROOT: usize = 32;
const SALT: &[u8] = b"confonnx root v1";

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by the Python package `cryptography`.
    #[test]
    fn epochs_are_those_of_hkdf() {
        let root = RootSecret::new(&(0..48).collect::<Vec<u8>>()).unwrap();
        let hex =
            |secret: &EpochSecret| secret.expose().iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&root.epoch(0)), "f03059268e227a9850e1398b50de9948bd95af4c44e6492c54a3dbf85c616c56");
        assert_eq!(
            hex(&root.epoch(20_780)),
            "a57402c543082e05a6979c1face3caef1e37989c5873f8f42513a5fc9bae87bb"
        );
        assert_eq!(format!("{root:?}"), "RootSecret");
    }

    #[test]
    fn a_short_root_is_refused() {
        let error = RootSecret::new(&[7; 31]).unwrap_err();
        assert!(error.to_string().contains("found 31"), "{error}");
    }
}
