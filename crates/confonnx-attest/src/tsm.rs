//! The kernel's interface to the TEE of a virtual machine: configfs-tsm (since Linux 6.7), described in the kernel's
//! `Documentation/ABI/testing/configfs-tsm-report`.
//!
//! A directory made below `/sys/kernel/config/tsm/report` has attributes: the bytes to bind are written to `inblob`, then
//! `outblob` gives the report. `generation` counts the writes, which tells whether another process wrote between.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A directory of reports that this process uses.
#[derive(Debug)]
pub(crate) struct Tsm {
    entry: PathBuf,
    /// Whether the directory is this process's, to be removed with it.
    own: bool,
    provider: String,
    /// The lock by which one report is made at a time.
    turn: Mutex<()>,
}

/// What the kernel gave for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TsmReport {
    /// The report or quote.
    pub(crate) report: Vec<u8>,
    /// What the host gave with the report, such as certificates; often nothing.
    pub(crate) auxiliary: Vec<u8>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum TsmError {
    /// No directory for reports can be made.
    #[error(
        "cannot make {path} to ask the kernel for reports: {source}; the process needs to be root, and configfs to be \
         mounted writable"
    )]
    Entry {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An attribute cannot be read or written.
    #[error("{path}: {source}")]
    Attribute {
        /// The attribute's file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An attribute has another form.
    #[error("{path}: expected {expected}, found {found:?}")]
    Form {
        /// The attribute's file.
        path: PathBuf,
        /// What the attribute should have been.
        expected: &'static str,
        /// What the attribute was, shortened.
        found: String,
    },
    /// The kernel did not take what was written, or other processes kept writing to the same directory.
    #[error("{path}: another process kept asking for reports at the same time, {attempts} times in a row")]
    Conflict {
        /// The directory.
        path: PathBuf,
        /// How many attempts were made.
        attempts: u32,
    },
}

impl Tsm {
    /// The kernel's interface below `root`, which is `/` but in tests. `None` when the kernel has no such interface, or
    /// no TEE behind it.
    pub(crate) fn find(root: &Path) -> Result<Option<Self>, TsmError> {
        let reports = root.join(REPORTS);
        if !reports.is_dir() {
            return Ok(None);
        }
        // The kernel makes attributes that are root's, whoever makes the directory. The first process of the virtual machine
        // image, which is root, makes this one and hands it over with its attributes.
        let prepared = reports.join(PREPARED);
        if prepared.is_dir() {
            return Self::open(prepared, false).map(Some);
        }
        let entry = reports.join(format!("confonnx-{}", std::process::id()));
        match fs::create_dir(&entry) {
            Ok(()) => {}
            // The directory was left behind by a process that had this process's number.
            Err(err) if err.kind() == ErrorKind::AlreadyExists => {}
            Err(err) if err.raw_os_error() == Some(NO_PROVIDER) => return Ok(None),
            Err(source) => return Err(TsmError::Entry { path: entry, source }),
        }
        Self::open(entry, true).map(Some)
    }

    fn open(entry: PathBuf, own: bool) -> Result<Self, TsmError> {
        let mut tsm = Self { entry, own, provider: String::new(), turn: Mutex::new(()) };
        tsm.provider = tsm.text("provider")?;
        tsm.raise_level()?;
        Ok(tsm)
    }

    /// Which TEE is behind the interface: `sev_guest`, `tdx_guest`.
    pub(crate) fn provider(&self) -> &str {
        &self.provider
    }

    /// A report that carries `data`.
    pub(crate) fn report(&self, data: &[u8; 64]) -> Result<TsmReport, TsmError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..ATTEMPTS {
            if let Some(report) = self.try_report(data)? {
                return Ok(report);
            }
        }
        Err(TsmError::Conflict { path: self.entry.clone(), attempts: ATTEMPTS })
    }

    /// A report that carries `data`; `None` when something else was written between.
    fn try_report(&self, data: &[u8; 64]) -> Result<Option<TsmReport>, TsmError> {
        let before = self.generation()?;
        match self.write("inblob", data) {
            Err(err) if conflict(&err) => return Ok(None),
            written => written.map_err(|source| self.failed("inblob", source))?,
        }
        let report = match self.read("outblob") {
            Err(err) if conflict(&err) => return Ok(None),
            report => report.map_err(|source| self.failed("outblob", source))?,
        };
        let auxiliary = match self.read("auxblob") {
            Err(err) if conflict(&err) => return Ok(None),
            // Not every TEE has the attribute `auxblob`.
            Err(err) if err.kind() == ErrorKind::NotFound => Vec::new(),
            auxiliary => auxiliary.map_err(|source| self.failed("auxblob", source))?,
        };
        let ours = self.generation()? == before.wrapping_add(1);
        Ok(ours.then_some(TsmReport { report, auxiliary }))
    }

    /// Asks for the lowest privilege level that may ask: below a paravisor that is not the default, 0.
    fn raise_level(&self) -> Result<(), TsmError> {
        let floor = match self.text("privlevel_floor") {
            Err(TsmError::Attribute { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
            floor => floor?,
        };
        if floor == "0" {
            return Ok(());
        }
        self.write("privlevel", floor.as_bytes()).map_err(|source| self.failed("privlevel", source))
    }

    fn generation(&self) -> Result<u64, TsmError> {
        let text = self.text("generation")?;
        text.parse().map_err(|_| TsmError::Form {
            path: self.entry.join("generation"),
            expected: "a number",
            found: text.chars().take(32).collect(),
        })
    }

    /// A text attribute without its newline.
    fn text(&self, attribute: &str) -> Result<String, TsmError> {
        let bytes = self.read(attribute).map_err(|source| self.failed(attribute, source))?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    fn read(&self, attribute: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.entry.join(attribute))?;
        file.take(MAX_ATTRIBUTE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The kernel takes the value when the file is closed, and cannot say then that it did not.
    fn write(&self, attribute: &str, value: &[u8]) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.entry.join(attribute))?.write_all(value)
    }

    fn failed(&self, attribute: &str, source: io::Error) -> TsmError {
        TsmError::Attribute { path: self.entry.join(attribute), source }
    }
}

impl Drop for Tsm {
    fn drop(&mut self) {
        // To remove the directory removes the kernel's attributes with it. One that stays behind is used by the next
        // process of this number.
        if self.own {
            let _ = fs::remove_dir(&self.entry);
        }
    }
}

/// What the kernel answers when two processes use one directory.
fn conflict(err: &io::Error) -> bool {
    matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::ResourceBusy)
}

const REPORTS: &str = "sys/kernel/config/tsm/report";
/// The directory that `confonnx-init` makes.
const PREPARED: &str = "confonnx";
const ATTEMPTS: u32 = 5;
/// Four times the kernel's own limit on reports.
const MAX_ATTRIBUTE_BYTES: u64 = 128 << 10;
/// ENXIO: the interface is there without a TEE.
const NO_PROVIDER: i32 = 6;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
