//! The ONNX Runtime shared library.

use std::{path::Path, sync::Arc};

use ort::{environment::Environment, logging::LogLevel};
use sha2::{Digest, Sha256};

use crate::error::{Category, EngineError};

/// The loaded ONNX Runtime library; one per process. Clones share it.
#[derive(Clone, Debug)]
pub struct Runtime {
    environment: Environment,
    version: Arc<str>,
    sha256: [u8; 32],
}

impl Runtime {
    /// Reads the shared library at `path`, checks that it declares a release this crate works with, then loads it.
    ///
    /// The digest is of the bytes that were read; the system loads the same path right after. Inside a measured
    /// image nobody can change it between the two.
    ///
    /// # Errors
    /// [`EngineError`] when the file is absent, of another release (a wrong pairing can abort the process, so it is
    /// never loaded), not loadable, or when a runtime is loaded already.
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        let expected = format!("1.{}", ort::MINOR_VERSION);
        let file = std::fs::read(path).map_err(|source| EngineError::LibraryFile {
            path: path.to_owned(),
            expected: expected.clone(),
            source,
        })?;
        let found = declared_version(&file);
        let version = match found {
            Some(version) if version.strip_prefix(&*expected).is_some_and(|rest| rest.starts_with('.')) => {
                version
            }
            found => {
                return Err(EngineError::LibraryVersion {
                    path: path.to_owned(),
                    expected,
                    found: found.map(str::to_owned),
                });
            }
        };
        // A relative path would be tried beside the executable first: not the file that was hashed.
        let absolute = path.canonicalize().map_err(|source| EngineError::LibraryFile {
            path: path.to_owned(),
            expected,
            source,
        })?;
        let environment = ort::init_from(&absolute)
            .map_err(|e| EngineError::LibraryLoad { path: absolute.clone(), reason: e.to_string() })?
            .with_name("confonnx")
            .with_telemetry(false)
            // Its messages can quote tensor values, so none is kept anywhere.
            .with_logger(Arc::new(|_, _, _, _, _| {}))
            .build()
            .map_err(|e| match e.message() {
                "only one environment is allowed per process" => EngineError::AlreadyLoaded,
                _ => EngineError::Setup(Category::from(&e)),
            })?;
        environment.set_log_level(LogLevel::Fatal);
        Ok(Self { environment, version: version.into(), sha256: Sha256::digest(&file).into() })
    }

    /// The library's version, such as `1.31.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// SHA-256 of the library file.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// The version in an ONNX Runtime ELF file: its exported symbols carry the version node `VERS_<version>`.
fn declared_version(file: &[u8]) -> Option<&str> {
    let text = file.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(b"VERS_".as_slice()))?;
    let valid = text.len() < 32 && text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    if valid { std::str::from_utf8(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_the_symbol_table() {
        assert_eq!(declared_version(b"\x7fELF\0\0VERS_1.31.1\0tail"), Some("1.31.1"));
        assert_eq!(declared_version(b"\x7fELF\0nothing"), None);
        assert_eq!(declared_version(b"VERS_%s\0"), None);
    }

    #[test]
    fn a_wrong_release_is_refused_before_it_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libonnxruntime.so");
        for (bytes, found) in [
            (&b"\x7fELF\0VERS_1.22.1\0"[..], "1.22.1"),
            (b"VERS_1.310.0\0", "1.310.0"),
            (b"", "no ONNX Runtime"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = Runtime::load(&path).unwrap_err();
            assert!(matches!(error, EngineError::LibraryVersion { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains("expected version 1.31.x") && text.contains(found), "{text}");
        }
        std::fs::write(&path, b"VERS_1.31.1\0 but not a library").unwrap();
        assert!(matches!(Runtime::load(&path), Err(EngineError::LibraryLoad { .. })));
        let absent = Runtime::load(&dir.path().join("absent")).unwrap_err();
        assert!(absent.to_string().contains("install ONNX Runtime 1.31"), "{absent}");
    }
}
