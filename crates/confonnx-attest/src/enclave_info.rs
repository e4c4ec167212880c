//! `enclave_info.json`: what a build says that hardware will report of it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Digest, EnclaveHash, Tee};

/// The content of an `enclave_info.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EnclaveInfo {
    /// The kind of TEE, where the file says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tee: Option<Tee>,
    /// What the TEE will report.
    pub enclave_hash: EnclaveHash,
    /// The enclave hash under the name it has had for SGX enclaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mrenclave: Option<Digest>,
    /// How the hash came about, for people; nothing reads it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}

/// Text that is no `enclave_info.json`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnclaveInfoError {
    /// Not a JSON object with such members.
    #[error("not an enclave_info.json: {0}")]
    Json(#[from] serde_json::Error),
    /// There is no hash in it.
    #[error("expected a member `enclave_hash` (or `mrenclave`), found neither")]
    NoHash,
    /// The file's two hashes differ.
    #[error("expected `mrenclave` to equal `enclave_hash` ({enclave_hash}), found {mrenclave}")]
    Differ {
        /// The hash under its name of today.
        enclave_hash: EnclaveHash,
        /// The hash under its older name.
        mrenclave: Digest,
    },
}

impl EnclaveInfo {
    /// Reads such a file; members it does not know are ignored, and `mrenclave` alone will do.
    pub fn parse(json: &str) -> Result<Self, EnclaveInfoError> {
        let Received { tee, enclave_hash, mrenclave, details } = crate::json::from_str(json)?;
        let enclave_hash = match (enclave_hash, mrenclave) {
            (Some(enclave_hash), Some(mrenclave)) if enclave_hash != mrenclave.into() => {
                return Err(EnclaveInfoError::Differ { enclave_hash, mrenclave });
            }
            (Some(enclave_hash), _) => enclave_hash,
            (None, Some(mrenclave)) => mrenclave.into(),
            (None, None) => return Err(EnclaveInfoError::NoHash),
        };
        Ok(Self { tee, enclave_hash, mrenclave, details })
    }

    /// The file, for people to read too.
    pub fn to_json(&self) -> String {
        // Strings, numbers and string-keyed maps only: serializing them cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

#[derive(Deserialize)]
struct Received {
    tee: Option<Tee>,
    enclave_hash: Option<EnclaveHash>,
    mrenclave: Option<Digest>,
    #[serde(default)]
    details: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let hash = Digest([0xe1; 32]);
        let info = EnclaveInfo {
            tee: Some(Tee::Sgx),
            enclave_hash: hash.into(),
            mrenclave: Some(hash),
            details: Map::from_iter([("vcpus".into(), 4.into())]),
        };
        assert_eq!(EnclaveInfo::parse(&info.to_json()).unwrap(), info);
    }

    #[test]
    fn the_old_name_alone_will_do() {
        let old = format!(r#"{{"mrenclave": "{}", "mrsigner": "ab"}}"#, "e1".repeat(32));
        assert_eq!(EnclaveInfo::parse(&old).unwrap().enclave_hash, Digest([0xe1; 32]).into());
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let error = |json: &str| EnclaveInfo::parse(json).unwrap_err().to_string();
        assert!(error("{}").contains("found neither"));
        assert!(error(r#"{"enclave_hash": "12"}"#).contains("expected 64 to 128 hex digits, found 2"));
        assert!(error(r#"{"tee": "vax"}"#).contains("unknown variant `vax`"));
        let two = format!(r#"{{"enclave_hash": "{}", "mrenclave": "{}"}}"#, "e1".repeat(32), "e2".repeat(32));
        assert!(error(&two).contains("expected `mrenclave` to equal `enclave_hash` (e1e1"));
    }
}
