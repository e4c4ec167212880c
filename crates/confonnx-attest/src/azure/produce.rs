//! Evidence of this machine, when it is an Azure confidential VM.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Map;
use sha2::{Digest as _, Sha256};

use super::imds::{self, ImdsError};
use super::runtime::{RuntimeData, RuntimeDataError};
use super::{Evidence, Hardware, HardwareReport, HclError, HclReport};
use crate::contract::Attested;
use crate::tpm::{CommandError, DEVICE, Handle, QUOTED_PCRS, Tpm};
use crate::{snp, tdx};

mod guest;

pub use guest::{GuestError, GuestKey};

/// The virtual TPM of this confidential VM, through the kernel's resource manager.
#[derive(Debug)]
pub struct Device {
    root: PathBuf,
    path: PathBuf,
    imds: SocketAddr,
    /// The last TDREPORT with its quote: the report stays the same from boot to boot, and quotes take the host long.
    quoted: Mutex<Option<(Vec<u8>, Vec<u8>)>>,
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The virtual TPM cannot be used.
    #[error(transparent)]
    Tpm(#[from] CommandError),
    /// The paravisor's report cannot be read.
    #[error("the report in the vTPM's NV index 0x01400001 cannot be read: {0}")]
    Hcl(#[from] HclError),
    /// The runtime data in it cannot be read.
    #[error("the runtime data in the vTPM's NV index 0x01400001 cannot be read: {0}")]
    RuntimeData(#[from] RuntimeDataError),
    /// The processor's report in it cannot be read.
    #[error("the processor's report in the vTPM's NV index 0x01400001 cannot be read: {0}")]
    Snp(#[from] snp::ParseError),
    /// There is no TD quote.
    #[error(transparent)]
    Imds(#[from] ImdsError),
    /// The TD quote cannot be read.
    #[error("the TD quote of Azure's metadata service cannot be read: {0}")]
    Tdx(#[from] tdx::ParseError),
    /// The firmware's event log cannot be read.
    #[error("the firmware's event log {path} cannot be read: {source}")]
    Log {
        /// The log's file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A signature is of another kind than Azure's keys make.
    #[error("expected an RSASSA signature of the vTPM's attestation key 0x81000003, found another")]
    Signature,
}

impl Device {
    /// The virtual TPM below `root`, which is `/` but in tests. `None`: there is no TPM, or none that has a paravisor's
    /// report.
    ///
    /// # Errors
    /// When the TPM cannot be used, or its report not be read.
    pub fn find(root: &Path) -> Result<Option<Self>, DeviceError> {
        Self::find_with(root, IMDS)
    }

    /// As [`find`](Self::find), with the metadata service elsewhere, for tests.
    pub(super) fn find_with(root: &Path, imds: SocketAddr) -> Result<Option<Self>, DeviceError> {
        let path = root.join(DEVICE);
        if !path.exists() {
            return Ok(None);
        }
        let Some(report) = Tpm::open(&path)?.nv_read_if_defined(HCL_REPORT)? else { return Ok(None) };
        HclReport::parse(&report)?;
        Ok(Some(Self { root: root.to_owned(), path, imds, quoted: Mutex::default() }))
    }

    /// A quote that carries the SHA-256 of `report_data`, with what vouches for the key that signed it. Blocks for as long
    /// as the virtual TPM takes and, the first time on TDX, the host's quoting enclave.
    ///
    /// # Errors
    /// See [`DeviceError`]. The next call starts anew.
    pub fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, DeviceError> {
        self.quoted_by(&mut Tpm::open(&self.path)?, &Sha256::digest(report_data), &QUOTED_PCRS)
    }

    /// Evidence with a quote that carries `data`.
    fn quoted_by(&self, tpm: &mut Tpm, data: &[u8], pcrs: &[u8]) -> Result<Evidence, DeviceError> {
        let report = HclReport::parse(&tpm.nv_read(HCL_REPORT)?)?;
        let hardware = match report.hardware {
            HardwareReport::Snp(report) => {
                Hardware::Snp(Box::new(snp::Evidence::parse(&report, &Map::new())?))
            }
            HardwareReport::Tdx(report) => {
                Hardware::Tdx(Box::new(tdx::Evidence::parse(&self.td_quote(report)?, &Map::new())?))
            }
        };
        let runtime_data = RuntimeData::parse(&report.runtime_data)?;
        let (quote, pcrs) = tpm.quote_with_values(AK, data, pcrs)?;
        Ok(Evidence { hardware, runtime_data, quote: Box::new(quote), pcrs })
    }

    fn td_quote(&self, report: Vec<u8>) -> Result<Vec<u8>, ImdsError> {
        let mut quoted = self.quoted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, quote)) = quoted.as_ref()
            && *of == report
        {
            return Ok(quote.clone());
        }
        let quote = imds::td_quote(self.imds, &report)?;
        *quoted = Some((report, quote.clone()));
        Ok(quote)
    }
}

/// Where the paravisor keeps its report.
const HCL_REPORT: Handle = Handle(0x0140_0001);
/// The attestation key that the runtime data name `HCLAkPub`.
const AK: Handle = Handle(0x8100_0003);
/// The metadata service, at the same address in every virtual machine of Azure.
const IMDS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

#[cfg(test)]
mod tests;
