//! Where policies come from.

use std::path::{Path, PathBuf};
use std::{fs, io};

use confonnx_attest::{
    EnclaveHash, EnclaveInfo, EnclaveInfoError, Expectations, HexError, PolicyFileError, Preset,
};

/// A policy or an enclave hash that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("expected {expected}, found `{found}`, which cannot be read: {source}")]
    Read {
        /// What may be given.
        expected: &'static str,
        /// What was given.
        found: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is no policy.
    #[error("policy {}: {source}", .path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PolicyFileError,
    },
    /// The file is no `enclave_info.json`.
    #[error("{}: {source}", .path.display())]
    EnclaveInfo {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: EnclaveInfoError,
    },
    /// Neither a hash nor the name of a file.
    #[error("enclave hash: {0}")]
    Hex(HexError),
}

/// What `source` expects of a server: the name of a preset (`strict`, `cloud`) or the path of a policy file
/// (docs/guides/attestation.md). Files that it names are looked for beside it.
pub fn load_policy(source: &str) -> Result<Expectations, LoadError> {
    if let Ok(preset) = source.parse::<Preset>() {
        return Ok(preset.into());
    }
    let path = Path::new(source);
    let text = fs::read_to_string(path).map_err(|error| LoadError::Read {
        expected: "`strict`, `cloud` or a policy file",
        found: source.into(),
        source: error,
    })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    Expectations::from_toml(&text, &mut |name| fs::read_to_string(folder.join(name)))
        .map_err(|source| LoadError::Policy { path: path.into(), source })
}

/// The enclave hash that `source` is: hex, or the path of an `enclave_info.json`.
pub fn load_enclave_hash(source: &str) -> Result<EnclaveHash, LoadError> {
    let malformed = match source.parse() {
        Ok(hash) => return Ok(hash),
        Err(err) => err,
    };
    if source.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(LoadError::Hex(malformed));
    }
    let path = Path::new(source);
    let text = fs::read_to_string(path).map_err(|error| LoadError::Read {
        expected: "an enclave hash (64 to 128 hex digits) or an enclave_info.json",
        found: source.into(),
        source: error,
    })?;
    let info =
        EnclaveInfo::parse(&text).map_err(|source| LoadError::EnclaveInfo { path: path.into(), source })?;
    Ok(info.enclave_hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_need_no_file() {
        assert!(load_policy("strict").is_ok() && load_policy("cloud").is_ok());
        let error = load_policy("lax").unwrap_err().to_string();
        assert!(error.starts_with("expected `strict`, `cloud` or a policy file, found `lax`"), "{error}");
    }

    #[test]
    fn files_named_by_a_policy_are_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.toml");
        let hash = "e1".repeat(32);
        fs::write(folder.path().join("info.json"), format!(r#"{{"mrenclave": "{hash}"}}"#)).unwrap();
        fs::write(&policy, "enclave_info_files = [\"info.json\"]").unwrap();
        let expected = load_policy(policy.to_str().unwrap()).unwrap();
        assert_eq!(expected.enclave_hashes, [hash.parse().unwrap()]);
        fs::write(&policy, "enclave_hash = 1").unwrap();
        let error = load_policy(policy.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("policy.toml: ") && error.contains("unknown field `enclave_hash`"), "{error}");
    }

    #[test]
    fn enclave_hashes_are_hex_or_files() {
        let hash = "e1".repeat(48);
        assert_eq!(load_enclave_hash(&hash).unwrap().to_string(), hash);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!(r#"{{"enclave_hash": "{hash}"}}"#)).unwrap();
        assert_eq!(load_enclave_hash(file.path().to_str().unwrap()).unwrap().to_string(), hash);
        fs::write(file.path(), "{}").unwrap();
        let error = load_enclave_hash(file.path().to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("expected a member `enclave_hash`"), "{error}");
        assert!(matches!(load_enclave_hash("12"), Err(LoadError::Hex(_))));
        let error = load_enclave_hash("none.json").unwrap_err().to_string();
        assert!(error.starts_with("expected an enclave hash (64 to 128 hex digits) or"), "{error}");
    }
}
