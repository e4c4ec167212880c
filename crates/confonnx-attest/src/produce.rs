//! Making evidence, inside a TEE. The one part of this crate that does IO.

use std::fs::File;
use std::io;

use sha2::Sha256;

#[cfg(feature = "insecure-dev")]
use crate::insecure;
use crate::{Digest, Evidence, Tee, azure, nitro, sgx, snp, tdx, tpm};

mod tsm;

pub use tsm::TsmError;
#[cfg(test)]
pub(crate) use tsm::fake;
pub(crate) use tsm::{Tsm, TsmReport};

/// A source of evidence.
#[derive(Debug)]
pub enum Attester {
    /// An Azure confidential VM.
    Azure(azure::Device),
    /// The software stand-in.
    #[cfg(feature = "insecure-dev")]
    Insecure {
        /// What it reports as measurement.
        measurement: Digest,
    },
    /// An AWS Nitro enclave.
    Nitro(nitro::Device),
    /// An Intel SGX enclave.
    Sgx(sgx::Device),
    /// An AMD SEV-SNP guest.
    Snp(snp::Device),
    /// An Intel TDX trust domain.
    Tdx(tdx::Device),
    /// The machine's TPM.
    Tpm(tpm::Device),
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// The running executable cannot be read.
    #[error("cannot read the running executable ({path}) to measure it: {source}")]
    Executable {
        /// Where it was looked for.
        path: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// An Azure confidential VM gives no evidence.
    #[error(transparent)]
    Azure(#[from] azure::DeviceError),
    /// An AWS Nitro enclave gives no document.
    #[error(transparent)]
    Nitro(#[from] nitro::DeviceError),
    /// An Intel SGX enclave gives no quote.
    #[error(transparent)]
    Sgx(#[from] sgx::DeviceError),
    /// An AMD SEV-SNP guest gives no report.
    #[error(transparent)]
    Snp(#[from] snp::DeviceError),
    /// An Intel TDX trust domain gives no quote.
    #[error(transparent)]
    Tdx(#[from] tdx::DeviceError),
    /// The TPM cannot be used.
    #[error(transparent)]
    Tpm(#[from] tpm::CommandError),
}

impl Attester {
    /// The software stand-in, which reports `measurement` (see [`measure_executable`]).
    #[cfg(feature = "insecure-dev")]
    pub fn insecure(measurement: Digest) -> Self {
        Self::Insecure { measurement }
    }

    /// The TEE it is part of.
    pub fn tee(&self) -> Tee {
        match *self {
            Self::Azure(_) => Tee::Azure,
            #[cfg(feature = "insecure-dev")]
            Self::Insecure { .. } => Tee::Insecure,
            Self::Nitro(_) => Tee::Nitro,
            Self::Sgx(_) => Tee::Sgx,
            Self::Snp(_) => Tee::Snp,
            Self::Tdx(_) => Tee::Tdx,
            Self::Tpm(_) => Tee::Tpm,
        }
    }

    /// Evidence that carries `report_data`. May block on the device for some 100 ms.
    pub fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, ProduceError> {
        match *self {
            Self::Azure(ref device) => Ok(Evidence::Azure(device.evidence(report_data)?)),
            #[cfg(feature = "insecure-dev")]
            Self::Insecure { measurement } => {
                Ok(Evidence::Insecure(insecure::Report { report_data: *report_data, measurement }))
            }
            Self::Nitro(ref device) => Ok(Evidence::Nitro(device.evidence(report_data)?)),
            Self::Sgx(ref device) => Ok(Evidence::Sgx(device.evidence(report_data)?)),
            Self::Snp(ref device) => Ok(Evidence::Snp(device.evidence(report_data)?)),
            Self::Tdx(ref device) => Ok(Evidence::Tdx(device.evidence(report_data)?)),
            Self::Tpm(ref device) => Ok(Evidence::Tpm(device.evidence(report_data)?)),
        }
    }
}

/// SHA-256 of the executable of this process.
pub fn measure_executable() -> Result<Digest, ProduceError> {
    let unreadable = |source| ProduceError::Executable { path: EXECUTABLE, source };
    let mut hash = HashWriter(Sha256::default());
    io::copy(&mut File::open(EXECUTABLE).map_err(unreadable)?, &mut hash).map_err(unreadable)?;
    Ok(Digest(sha2::Digest::finalize(hash.0).into()))
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sha2::Digest::update(&mut self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel's link to the running file: right even when the path was replaced meanwhile.
const EXECUTABLE: &str = "/proc/self/exe";
