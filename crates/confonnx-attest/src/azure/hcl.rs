//! The report that the paravisor ("HCL", OpenHCL) keeps in the vTPM's NV index 0x01400001.
//!
//! A header, the processor's own report, and the runtime data that report vouches for; little-endian. The layout is that
//! of `IgvmAttestRequestBase` in OpenHCL's `openhcl_attestation_protocol`.

use crate::cursor::{Cursor, Truncated};

/// A report whose form is right. Nothing in it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HclReport {
    /// The processor's report.
    pub hardware: HardwareReport,
    /// JSON; the processor's report carries its SHA-256.
    pub runtime_data: Vec<u8>,
}

/// What the processor reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HardwareReport {
    /// An attestation report of SEV-SNP: 1,184 bytes.
    Snp(Vec<u8>),
    /// A TDREPORT: 1,024 bytes. Only the same machine can verify it; its quoting enclave makes a TD quote of it.
    Tdx(Vec<u8>),
}

/// Bytes that are no such report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HclError {
    /// The report ends early.
    #[error("expected {wanted} more bytes for the {what}, found {left}")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// The length of what was to be read, in bytes.
        wanted: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A number is not what it has to be.
    #[error("{field}: expected {expected}, found {found}")]
    Field {
        /// Which number.
        field: &'static str,
        /// The number expected.
        expected: String,
        /// The number found.
        found: u32,
    },
    /// Bytes that have to be zero are not.
    #[error("{field}: expected zeros")]
    NotZero {
        /// Which bytes.
        field: &'static str,
    },
}

impl HclReport {
    /// Reads the content of the NV index: the report, and zeros up to the index's size.
    pub fn parse(bytes: &[u8]) -> Result<Self, HclError> {
        let mut cursor = Cursor::new(bytes);
        number(&mut cursor, "signature", &[SIGNATURE])?;
        number(&mut cursor, "version", &[1, 2])?;
        let report_size = cursor.u32("report size")?;
        number(&mut cursor, "request type", &[REQUEST_TYPE])?;
        number(&mut cursor, "status", &[0])?;
        zero("reserved", cursor.take("reserved", 12)?)?;
        let report = cursor.take("hardware report", HARDWARE_REPORT_BYTES)?;
        let data_size = cursor.u32("data size")?;
        number(&mut cursor, "data version", &[1])?;
        let hardware = match number(&mut cursor, "report type", &[SNP, TDX])? {
            SNP => HardwareReport::Snp(report.to_vec()),
            _ => {
                let (report, padding) = report.split_at_checked(TDREPORT_BYTES).unwrap_or((report, &[]));
                zero("padding of the TDREPORT", padding)?;
                HardwareReport::Tdx(report.to_vec())
            }
        };
        number(&mut cursor, "hash type", &[SHA256])?;
        let runtime_data = cursor.sized_u32("runtime data")?.to_vec();
        // Both sizes repeat what is known: the request data has a header of 20 bytes, and 1,216 bytes come before it.
        let found = u32::try_from(runtime_data.len()).unwrap_or(u32::MAX);
        equal("data size", data_size, found.saturating_add(20))?;
        equal("report size", report_size, found.saturating_add(20 + 32 + 1184))?;
        zero("bytes after the runtime data", cursor.rest())?;
        Ok(Self { hardware, runtime_data })
    }
}

impl From<Truncated> for HclError {
    fn from(Truncated { what, wanted, left }: Truncated) -> Self {
        Self::Truncated { what, wanted, left }
    }
}

fn number(cursor: &mut Cursor<'_>, field: &'static str, accepted: &[u32]) -> Result<u32, HclError> {
    let found = cursor.u32(field)?;
    if accepted.contains(&found) {
        return Ok(found);
    }
    let expected = accepted.iter().map(u32::to_string).collect::<Vec<_>>().join(" or ");
    Err(HclError::Field { field, expected, found })
}

fn equal(field: &'static str, found: u32, expected: u32) -> Result<(), HclError> {
    if found == expected {
        return Ok(());
    }
    Err(HclError::Field { field, expected: expected.to_string(), found })
}

fn zero(field: &'static str, bytes: &[u8]) -> Result<(), HclError> {
    if bytes.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(HclError::NotZero { field }) }
}

/// "HCLA".
const SIGNATURE: u32 = 0x414c_4348;
/// A request for a certificate of the attestation key, whose form the report borrows.
const REQUEST_TYPE: u32 = 2;
const SNP: u32 = 2;
const TDX: u32 = 4;
const SHA256: u32 = 1;
const HARDWARE_REPORT_BYTES: usize = 1184;
const TDREPORT_BYTES: usize = 1024;

#[cfg(test)]
mod tests;
