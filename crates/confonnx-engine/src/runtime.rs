//! The ONNX Runtime shared library.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use confonnx_device::Mapping;
use ort::{environment::Environment, logging::LogLevel};
use rustix::fs::fstat;
use sha2::{Digest, Sha256};

use crate::{
    error::{Category, EngineError},
    memory,
};

/// An ONNX Runtime library that was read and hashed, and that nobody can change any more. Clones share it.
#[derive(Clone, Debug)]
pub struct Library {
    bytes: Arc<Bytes>,
    version: Arc<str>,
    sha256: [u8; 32],
}

/// Where its bytes are.
#[derive(Debug)]
enum Bytes {
    /// In a sealed memory file: what is loaded is what was hashed.
    Sealed(OwnedFd),
    /// At this path, where the system has no memory files (Gramine, whose manifest fixes the file).
    At(PathBuf),
}

/// The loaded ONNX Runtime library; one per process. Clones share it.
#[derive(Clone, Debug)]
pub struct Runtime {
    environment: Environment,
    version: Arc<str>,
    sha256: [u8; 32],
}

impl Library {
    /// Reads the shared library at `path`, and checks that it declares a release this crate works with.
    ///
    /// # Errors
    /// [`EngineError`] when the file is absent or of another release: a wrong pairing can abort the process.
    pub fn read(path: &Path) -> Result<Self, EngineError> {
        let expected = format!("1.{}", ort::MINOR_VERSION);
        let unreadable =
            |source| EngineError::LibraryFile { path: path.to_owned(), expected: expected.clone(), source };
        let file = std::fs::read(path).map_err(unreadable)?;
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
        let bytes = match memory::sealed("onnxruntime", &[&file]) {
            Ok(sealed) => Bytes::Sealed(sealed),
            // A relative path would be tried beside the executable first: not the file that was hashed.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                Bytes::At(path.canonicalize().map_err(unreadable)?)
            }
            Err(error) => return Err(unreadable(error)),
        };
        Ok(Self { bytes: Arc::new(bytes), version: version.into(), sha256: Sha256::digest(&file).into() })
    }

    /// A library whose bytes came in a memory file from a process that read and checked it.
    ///
    /// # Errors
    /// What the system says when the file is to be mapped.
    pub(crate) fn received(file: OwnedFd) -> io::Result<Self> {
        let len = usize::try_from(fstat(&file)?.st_size).map_err(io::Error::other)?;
        let version = declared_version(Mapping::new(&file, len)?.bytes()).unwrap_or("?").into();
        Ok(Self { bytes: Arc::new(Bytes::Sealed(file)), version, sha256: [0; 32] })
    }

    /// The memory file with the library's bytes, where there are such files.
    pub(crate) fn file(&self) -> Option<BorrowedFd<'_>> {
        match &*self.bytes {
            Bytes::Sealed(file) => Some(file.as_fd()),
            Bytes::At(_) => None,
        }
    }

    /// The library's version, such as `1.31.1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// SHA-256 of the library file.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Whether this is the library of a release that this version was tested with, on this architecture.
    pub fn is_known(&self) -> bool {
        let hex: String = self.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::KNOWN.contains(&hex.as_str())
    }

    /// SHA-256 of the libraries that are known, in hex: those of the onnxruntime wheels on PyPI, pinned by
    /// scripts/fetch-onnxruntime.
    #[cfg(target_arch = "x86_64")]
    pub const KNOWN: [&'static str; 1] = ["fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3"];
    /// SHA-256 of the libraries that are known, in hex: those of the onnxruntime wheels on PyPI, pinned by
    /// scripts/fetch-onnxruntime.
    #[cfg(target_arch = "aarch64")]
    pub const KNOWN: [&'static str; 1] = ["8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467"];
    /// No library is known for this architecture.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub const KNOWN: [&'static str; 0] = [];
}

impl Runtime {
    /// Reads the shared library at `path` as [`Library::read`] does, and loads it.
    ///
    /// # Errors
    /// As [`Library::read`] and [`Runtime::open`].
    pub fn load(path: &Path) -> Result<Self, EngineError> {
        Self::open(&Library::read(path)?)
    }

    /// Loads `library` into this process.
    ///
    /// # Errors
    /// [`EngineError`] when it is not loadable, or when a runtime is loaded already.
    pub fn open(library: &Library) -> Result<Self, EngineError> {
        let path = match &*library.bytes {
            Bytes::Sealed(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            Bytes::At(path) => path.clone(),
        };
        let environment = ort::init_from(&path)
            .map_err(|e| EngineError::LibraryLoad { path, reason: e.to_string() })?
            .with_name("confonnx")
            .with_telemetry(false)
            // ONNX Runtime's messages can quote tensor values, so none is kept anywhere.
            .with_logger(Arc::new(|_, _, _, _, _| {}))
            .build()
            .map_err(|e| match e.message() {
                "only one environment is allowed per process" => EngineError::AlreadyLoaded,
                _ => EngineError::Setup(Category::from(&e)),
            })?;
        environment.set_log_level(LogLevel::Fatal);
        Ok(Self { environment, version: Arc::clone(&library.version), sha256: library.sha256 })
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
        assert!(!Library::read(&path).unwrap().is_known());
        let absent = Runtime::load(&dir.path().join("absent")).unwrap_err();
        assert!(absent.to_string().contains("install ONNX Runtime 1.31"), "{absent}");
    }
}
