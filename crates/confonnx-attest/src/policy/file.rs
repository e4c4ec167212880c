//! Policies as files (docs/guides/attestation.md).

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use toml::Table;

use crate::tee::for_each_tee;
use crate::{
    AcceptedKeyService, Digest, EnclaveHash, EnclaveInfo, EnclaveInfoError, Expectations, Maxima, ModelPin,
    Platforms, ReleaseLog, ServerExpectations, SigningKey, SigningKeyError,
};

/// Where the sections of a policy start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Preset {
    /// Only platforms without known weaknesses.
    #[default]
    Strict,
    /// Platforms as real clouds run them; what that concedes, each section's `cloud` says.
    Cloud,
}

/// Text that is not a policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFileError {
    /// Not TOML, or with keys or values that a policy has not.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// A list is empty.
    #[error("`{key}` is an empty list: expected at least one value, or no such key when it does not matter")]
    EmptyList {
        /// Its key.
        key: &'static str,
    },
    /// A file that the policy names cannot be read.
    #[error("`{key}` names {path}, which cannot be read: {source}")]
    Read {
        /// The key.
        key: &'static str,
        /// The file's name, as the policy has it.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file of `signing_key_files` is no public key.
    #[error("`signing_key_files` names {path}: {source}")]
    SigningKey {
        /// The file's name, as the policy has it.
        path: String,
        /// What is wrong with it.
        source: SigningKeyError,
    },
    /// A file of `enclave_info_files` is no `enclave_info.json`.
    #[error("`enclave_info_files` names {path}: {source}")]
    EnclaveInfo {
        /// The file's name, as the policy has it.
        path: String,
        /// What is wrong with it.
        source: EnclaveInfoError,
    },
}

/// Reads a file that a policy names.
pub(crate) type Reader<'a> = dyn FnMut(&str) -> std::io::Result<String> + 'a;

impl Preset {
    /// The names of the presets, which [`FromStr`] reads.
    pub const NAMES: [&str; 2] = ["strict", "cloud"];

    /// The preset's sections.
    pub fn platforms(self) -> Platforms {
        match self {
            Self::Strict => Platforms::strict(),
            Self::Cloud => Platforms::cloud(),
        }
    }
}

impl Preset {
    /// What the claims of a server may say at most.
    pub fn maxima(self) -> Maxima {
        match self {
            Self::Strict => Maxima::STRICT,
            Self::Cloud => Maxima::CLOUD,
        }
    }
}

impl FromStr for Preset {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "strict" => Ok(Self::Strict),
            "cloud" => Ok(Self::Cloud),
            _ => Err(()),
        }
    }
}

impl From<Preset> for Expectations {
    /// What the preset says of platforms, and nothing of programs.
    fn from(preset: Preset) -> Self {
        let server = ServerExpectations { maxima: preset.maxima(), ..ServerExpectations::default() };
        Self { platforms: preset.platforms(), server, ..Self::default() }
    }
}

impl Expectations {
    /// Reads a policy file. `read` gives the content of files it names, by the names it has for them.
    ///
    /// A file without sections accepts every kind of TEE as its preset does. With sections it accepts those kinds only,
    /// and each section holds what differs from the preset.
    pub fn from_toml(text: &str, read: &mut Reader<'_>) -> Result<Self, PolicyFileError> {
        // The text is read twice: typed, so that errors name key, line and column; and untyped, to lay over the preset
        // what is there.
        let file: File = toml::from_str(text)?;
        let sections: Table = toml::from_str(text)?;
        let mut enclave_hashes = list("enclave_hashes", file.enclave_hashes)?;
        for path in list("enclave_info_files", file.enclave_info_files)? {
            let info = EnclaveInfo::parse(&open("enclave_info_files", &path, read)?)
                .map_err(|source| PolicyFileError::EnclaveInfo { path, source })?;
            enclave_hashes.push(info.enclave_hash);
        }
        let mut signing_keys = Vec::new();
        for path in list("signing_key_files", file.signing_key_files)? {
            let key = SigningKey::from_pem(&open("signing_key_files", &path, read)?)
                .map_err(|source| PolicyFileError::SigningKey { path, source })?;
            signing_keys.push(key);
        }
        Ok(Self {
            enclave_hashes,
            signing_keys,
            model_hashes: list("model_hashes", file.model_hashes)?,
            client_auth: list("client_auth_sha256", file.client_auth_sha256)?,
            allow_debug: file.allow_debug,
            key_services: list("key_services", file.key_services)?,
            peer_policies: list("peer_policy_sha256", file.peer_policy_sha256)?,
            server: ServerExpectations { maxima: file.preset.maxima(), ..file.server },
            max_age: file.max_evidence_age_s.map(Duration::from_secs),
            release_log: file.release_log,
            platforms: file.preset.platforms().refined(&sections)?,
        })
    }
}

macro_rules! file {
    ($($(#[$doc:meta])* $kind:ident $folder:ident;)*) => {
        /// A policy file. The sections are here to be checked; their values come from [`Platforms::refined`].
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct File {
            preset: Preset,
            max_evidence_age_s: Option<u64>,
            enclave_hashes: Option<Vec<EnclaveHash>>,
            enclave_info_files: Option<Vec<String>>,
            signing_key_files: Option<Vec<String>>,
            model_hashes: Option<Vec<ModelPin>>,
            client_auth_sha256: Option<Vec<Digest>>,
            allow_debug: bool,
            key_services: Option<Vec<AcceptedKeyService>>,
            peer_policy_sha256: Option<Vec<Digest>>,
            release_log: Option<ReleaseLog>,
            server: ServerExpectations,
            $(
                #[allow(dead_code, reason = "read to be checked")]
                $folder: Option<crate::$folder::Policy>,
            )*
        }
    };
}
for_each_tee!(file);

fn list<T>(key: &'static str, values: Option<Vec<T>>) -> Result<Vec<T>, PolicyFileError> {
    match values {
        Some(values) if values.is_empty() => Err(PolicyFileError::EmptyList { key }),
        values => Ok(values.unwrap_or_default()),
    }
}

fn open(key: &'static str, path: &str, read: &mut Reader<'_>) -> Result<String, PolicyFileError> {
    read(path).map_err(|source| PolicyFileError::Read { key, path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
