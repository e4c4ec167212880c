//! Evidence of the enclave this process runs in, by way of Gramine (its manual, "Attestation and Secret Provisioning").

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Map;

use super::{Evidence, ParseError};
use crate::Hex;
use crate::contract::Attested;

/// Gramine's pseudo-files: what is written to `user_report_data` is in the next `quote`.
#[derive(Debug)]
pub struct Device {
    directory: PathBuf,
    /// One quote at a time.
    turn: Mutex<()>,
}

/// Why there is no evidence of this enclave.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A pseudo-file cannot be read or written.
    #[error("{path}: {source}; is the host's quoting service (AESM, PCCS) running?")]
    File {
        /// The pseudo-file.
        path: PathBuf,
        /// What Gramine said.
        source: io::Error,
    },
    /// Gramine was not told to use DCAP.
    #[error(
        "expected attestation of type dcap, Gramine says {found:?}: set sgx.remote_attestation = \"dcap\" in the manifest"
    )]
    Type {
        /// What Gramine says, shortened.
        found: String,
    },
    /// What Gramine gave is not a quote.
    #[error("what Gramine gave is not a quote: {0}")]
    Quote(#[from] ParseError),
    /// The quote is for another request.
    #[error("asked for a quote with {expected}, Gramine gave one with {found}")]
    OtherData {
        /// What was asked for.
        expected: Box<Hex<64>>,
        /// The report data that the quote carries.
        found: Box<Hex<64>>,
    },
}

impl Device {
    /// Gramine's files below `root`, which is `/` but in tests. `None` outside of Gramine's enclaves.
    ///
    /// # Errors
    /// When there is a way to quotes that cannot be used, and why.
    pub fn find(root: &Path) -> Result<Option<Self>, DeviceError> {
        let directory = root.join(DIRECTORY);
        let path = directory.join("attestation_type");
        let kind = match fs::read_to_string(&path) {
            Ok(kind) => kind,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DeviceError::File { path, source }),
        };
        if kind.trim_end() != "dcap" {
            return Err(DeviceError::Type { found: kind.trim_end().chars().take(32).collect() });
        }
        Ok(Some(Self { directory, turn: Mutex::new(()) }))
    }

    /// Evidence that carries `report_data`.
    ///
    /// # Errors
    /// When there is no quote, or one for another request.
    pub fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, DeviceError> {
        let quote = {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            self.write("user_report_data", report_data)?;
            self.read("quote")?
        };
        let evidence = Evidence::parse(&quote, &Map::new())?;
        let found = evidence.quote.report_data();
        if found != *report_data {
            let (expected, found) = (Box::new(Hex(*report_data)), Box::new(Hex(found)));
            return Err(DeviceError::OtherData { expected, found });
        }
        Ok(evidence)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DeviceError> {
        let path = self.directory.join(name);
        let written = OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(bytes));
        written.map_err(|source| DeviceError::File { path, source })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, DeviceError> {
        let path = self.directory.join(name);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_QUOTE_BYTES).read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|source| DeviceError::File { path, source })
    }
}

const DIRECTORY: &str = "dev/attestation";
/// More than any quote has, so that one that is too long is refused and not cut.
const MAX_QUOTE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tee;
    use crate::produce::Attester;

    const QUOTE: &[u8] = include_bytes!("../../../../vectors/evidence/sgx/sgx_quote");

    /// A root directory as Gramine shows it.
    fn fake(kind: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join(DIRECTORY);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("attestation_type"), kind).unwrap();
        fs::write(directory.join("user_report_data"), []).unwrap();
        fs::write(directory.join("quote"), QUOTE).unwrap();
        root
    }

    #[test]
    fn a_quote_is_evidence() {
        let root = fake("dcap");
        let attester = Attester::Sgx(Device::find(root.path()).unwrap().unwrap());
        assert_eq!(attester.tee(), Tee::Sgx);
        let data = Evidence::parse(QUOTE, &Map::new()).unwrap().quote.report_data();
        assert_eq!(attester.evidence(&data).unwrap().report(), QUOTE);
        assert_eq!(fs::read(root.path().join(DIRECTORY).join("user_report_data")).unwrap(), data);
    }

    #[test]
    fn a_quote_for_another_request_is_refused() {
        let device = Device::find(fake("dcap\n").path()).unwrap();
        assert!(device.is_some());
        let root = fake("dcap");
        let device = Device::find(root.path()).unwrap().unwrap();
        let error = device.evidence(&[7; 64]).unwrap_err().to_string();
        assert!(error.starts_with("asked for a quote with 0707"), "{error}");
    }

    #[test]
    fn what_cannot_be_used_says_what_to_do() {
        assert!(Device::find(tempfile::tempdir().unwrap().path()).unwrap().is_none());
        let error = Device::find(fake("none").path()).unwrap_err().to_string();
        assert!(error.contains("Gramine says \"none\": set sgx.remote_attestation = \"dcap\""), "{error}");
        let root = fake("dcap");
        fs::remove_file(root.path().join(DIRECTORY).join("quote")).unwrap();
        let device = Device::find(root.path()).unwrap().unwrap();
        let error = device.evidence(&[7; 64]).unwrap_err().to_string();
        assert!(error.contains("dev/attestation/quote: "), "{error}");
    }
}
