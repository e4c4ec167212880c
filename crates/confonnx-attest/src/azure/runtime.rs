//! The runtime data: what the paravisor says of the vTPM's key and of the virtual machine, vouched for by the
//! processor's report.
//!
//! Members are those of `RuntimeClaims` in OpenHCL's `openhcl_attestation_protocol`; unknown ones are ignored, because
//! the hash covers them and the paravisor adds some from release to release.

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::Deserialize;

use crate::shown::shown;
use crate::tpm::{AkPublic, KeyError};

/// Runtime data as it was received, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuntimeData {
    bytes: Vec<u8>,
    /// The key that signs the vTPM's quotes.
    pub(super) ak: AkPublic,
    pub(super) vm: VmConfiguration,
}

/// How the host set up the virtual machine. What an older paravisor does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct VmConfiguration {
    pub(super) secure_boot: Option<bool>,
    pub(super) console_enabled: Option<bool>,
    pub(super) interactive_console_enabled: Option<bool>,
    pub(super) tpm_enabled: Option<bool>,
    #[serde(rename = "vmUniqueId")]
    pub(super) vm_unique_id: Option<String>,
}

/// Bytes that are no runtime data.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDataError {
    /// Not a JSON object with such members.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// There is no attestation key, or several.
    #[error("expected one key `{AK}`, found {found}")]
    Keys {
        /// How many there are.
        found: usize,
    },
    /// The attestation key is of another kind.
    #[error("expected an RSA key as `{AK}`, found `{found}`")]
    KeyType {
        /// The key's kind, shortened.
        found: String,
    },
    /// A number of the attestation key is not unpadded base64url.
    #[error("`{AK}`: `{member}` is not base64url without padding")]
    Base64 {
        /// Name of the member.
        member: &'static str,
    },
    /// The attestation key cannot be used.
    #[error("`{AK}`: {0}")]
    Key(#[from] KeyError),
}

impl RuntimeData {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, RuntimeDataError> {
        let claims: Claims = crate::json::from_slice(bytes)?;
        let mut aks = claims.keys.iter().filter(|key| key.kid == AK);
        let (Some(ak), None) = (aks.next(), aks.next()) else {
            let found = claims.keys.iter().filter(|key| key.kid == AK).count();
            return Err(RuntimeDataError::Keys { found });
        };
        if ak.kty != "RSA" {
            return Err(RuntimeDataError::KeyType { found: shown(&ak.kty) });
        }
        let number = |member, text: &str| {
            Base64UrlUnpadded::decode_vec(text).map_err(|_| RuntimeDataError::Base64 { member })
        };
        let ak = AkPublic::from_rsa(&number("n", &ak.n)?, &number("e", &ak.e)?)?;
        Ok(Self { bytes: bytes.to_vec(), ak, vm: claims.vm_configuration })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Claims {
    keys: Vec<Jwk>,
    vm_configuration: VmConfiguration,
}

/// A key of RFC 7517. Its `key_ops` do not matter: early paravisors have "encrypt" for the attestation key.
#[derive(Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    n: String,
}

/// The attestation key's name. Runtime data without one is for other purposes, such as the release of keys.
const AK: &str = "HCLAkPub";

#[cfg(test)]
mod tests;
