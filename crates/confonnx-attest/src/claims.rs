//! What a server says of itself and its evidence binds (protocol.md 2.4).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::shown::shown;
use crate::{Digest, UnixTime};

/// The protocol that this crate speaks.
pub const PROTOCOL: &str = "confonnx/1";

/// A server's statements. True only as far as the measured program is honest, which is what the enclave hash says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// [`PROTOCOL`].
    pub protocol: String,
    /// When the document was made, by the TEE's clock, which the host sets.
    pub issued_at: UnixTime,
    /// The server's program.
    pub build: Build,
    /// The inference engine.
    pub runtime: Runtime,
    /// The models that the server serves.
    pub models: Vec<ModelClaim>,
    /// One entry for each key config, in the same order.
    pub keys: Vec<KeyClaim>,
    /// Where epoch secrets come from.
    pub key_source: KeySource,
    /// How clients authenticate themselves.
    pub client_auth: ClientAuth,
    /// Every host setting that touches trust.
    #[serde(default)]
    pub settings: Map<String, Value>,
}

/// The server's program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The program's version, such as `0.1.0`.
    pub version: String,
    /// SHA-256 of the executable.
    pub sha256: Digest,
}

/// The inference engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runtime {
    /// The engine's name: `onnxruntime`.
    pub name: String,
    /// The engine's version.
    pub version: String,
    /// SHA-256 of the library file.
    pub sha256: Digest,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelClaim {
    /// The name in request paths.
    pub name: String,
    /// The version in request paths.
    pub version: String,
    /// The model hash; absent while an encrypted model waits for its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// SHA-256 of the encrypted file, when the model is stored encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ciphertext_sha256: Option<Digest>,
    /// The most rows of several callers' requests that run together; absent: each request runs by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batching: Option<u64>,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyClaim {
    /// The id in the key config.
    pub key_id: u8,
    /// `x-wing`, `x25519` or `p-256`.
    pub kem: String,
    /// Start of the epoch.
    pub not_before: UnixTime,
    /// End of the epoch: from then on replies say `outdated`.
    pub not_after: UnixTime,
    /// When the key is erased; no request may be sealed to it from then on.
    pub accepted_until: UnixTime,
}

/// Where epoch secrets come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySource {
    /// `local`: made in this TEE; `peer`: in one of a group of TEEs that verified each other; `kbs`, `akv`: released by a service.
    pub kind: String,
    /// The service that releases the secret that keys are derived from. Its operator can derive them, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<KeyService>,
    /// Names the group that shares the secrets: derived from its first secret, of which it tells nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Digest>,
    /// SHA-256 of what the members of the group demand of each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_policy_sha256: Option<Digest>,
}

/// A service that releases a secret against evidence, and what is taken for proof that it is this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyService {
    /// The service's base URL. With `https`, the service shows a certificate for the name in it.
    pub url: String,
    /// The secret's name at the service.
    pub name: String,
    /// The authorities that certify names: SHA-256 of the sorted SHA-256s of their certificates (DER).
    pub roots_sha256: Digest,
    /// The service whose word about evidence the first one takes, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation_url: Option<String>,
}

/// How clients authenticate themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAuth {
    /// `none`, `bearer` (tokens), `oidc` (an issuer's JWTs) or `bearer+oidc`.
    pub kind: String,
    /// SHA-256 of the policy that says who may do what, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_sha256: Option<Digest>,
}

/// Bytes that are not claims.
#[derive(Debug, thiserror::Error)]
#[error("not a claims object: {0}")]
pub struct ClaimsError(#[from] serde_json::Error);

impl ModelClaim {
    /// The hashes by which a policy can name the model: its own, and that of its encrypted form.
    pub fn hashes(&self) -> impl Iterator<Item = &Digest> {
        self.sha256.iter().chain(&self.ciphertext_sha256)
    }
}

impl fmt::Display for ModelClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = shown(&self.name);
        match (self.sha256, self.ciphertext_sha256) {
            (Some(hash), None) => write!(f, "{hash} ({name})"),
            (Some(hash), Some(ciphertext)) => write!(f, "{hash} ({name}, stored encrypted as {ciphertext})"),
            (None, Some(ciphertext)) => write!(f, "{ciphertext} ({name}, encrypted, waiting for its key)"),
            (None, None) => write!(f, "no hash ({name})"),
        }
    }
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.kind))?;
        match self.policy_sha256 {
            Some(policy) => write!(f, ", policy {policy}"),
            None => Ok(()),
        }
    }
}

impl Claims {
    /// Reads claims; members it does not know are ignored.
    pub fn parse(bytes: &[u8]) -> Result<Self, ClaimsError> {
        Ok(crate::json::from_slice(bytes)?)
    }

    /// The JSON bytes to hash and to send.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings, numbers and string-keyed maps only: serializing them cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// SHA-256 of all that a client can rely on: of the JSON bytes without `issued_at` and `keys`. Keys are for one value
    /// of it alone (protocol.md 3).
    pub fn binding(&self) -> [u8; 32] {
        let Self { protocol, build, runtime, models, key_source, client_auth, settings, .. } = self;
        let bound = Bound { protocol, build, runtime, models, key_source, client_auth, settings };
        // As in `to_bytes`: serializing cannot fail.
        Sha256::digest(serde_json::to_vec(&bound).unwrap_or_default()).into()
    }

    /// Complete claims with made-up values, for tests and examples.
    #[cfg(feature = "insecure-dev")]
    pub fn example(issued_at: UnixTime) -> Self {
        let later = |seconds| UnixTime(issued_at.0.saturating_add(seconds));
        let digest = |byte| Digest([byte; 32]);
        Self {
            protocol: PROTOCOL.into(),
            issued_at,
            build: Build { version: "0.1.0".into(), sha256: digest(0xb1) },
            runtime: Runtime { name: "onnxruntime".into(), version: "1.31.1".into(), sha256: digest(0xa7) },
            models: vec![ModelClaim {
                name: "digits".into(),
                version: "1".into(),
                sha256: Some(digest(0x3d)),
                ciphertext_sha256: None,
                batching: None,
            }],
            keys: vec![KeyClaim {
                key_id: 17,
                kem: "x-wing".into(),
                not_before: issued_at,
                not_after: later(86_400),
                accepted_until: later(90_000),
            }],
            key_source: KeySource { kind: "local".into(), ..KeySource::default() },
            client_auth: ClientAuth { kind: "none".into(), policy_sha256: None },
            settings: Map::new(),
        }
    }
}

/// [`Claims`] without time and keys, in the same order.
#[derive(Serialize)]
struct Bound<'a> {
    protocol: &'a str,
    build: &'a Build,
    runtime: &'a Runtime,
    models: &'a [ModelClaim],
    key_source: &'a KeySource,
    client_auth: &'a ClientAuth,
    settings: &'a Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binding_is_of_all_but_time_and_keys() {
        let claims = Claims::example(UnixTime(5));
        let mut json: Value = serde_json::from_slice(&claims.to_bytes()).unwrap();
        for member in ["issued_at", "keys"] {
            json.as_object_mut().unwrap().remove(member).unwrap();
        }
        let bound: Map<String, Value> = serde_json::from_value(json).unwrap();
        assert_eq!(bound.len(), 7, "{bound:?}");
        assert_eq!(Claims { keys: vec![], ..Claims::example(UnixTime(9)) }.binding(), claims.binding());
        let mut others = vec![];
        let changes: [fn(&mut Claims); 7] = [
            |claims| claims.protocol.push('2'),
            |claims| claims.build.version.push('2'),
            |claims| claims.runtime.version.push('2'),
            |claims| claims.models.clear(),
            |claims| claims.key_source.group = Some(Digest([1; 32])),
            |claims| claims.client_auth.kind = "bearer".into(),
            |claims| drop(claims.settings.insert("insecure".into(), true.into())),
        ];
        for change in changes {
            let mut other = claims.clone();
            change(&mut other);
            others.push(other.binding());
        }
        others.push(claims.binding());
        let distinct: std::collections::BTreeSet<_> = others.iter().collect();
        assert_eq!(distinct.len(), 8);
    }
}
