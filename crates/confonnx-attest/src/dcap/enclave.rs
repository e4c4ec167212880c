//! Reports of SGX enclaves: of programs, and of the quoting enclave that vouches for them.

use crate::cursor::{Cursor, Truncated};

/// Length of a `sgx_report_body_t`.
pub(crate) const ENCLAVE_REPORT_BYTES: usize = 384;

/// What SGX hardware says of an enclave (Intel SDM volume 3D, table "Layout of REPORT").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnclaveReport {
    pub(crate) misc_select: u32,
    pub(crate) attributes: [u8; 16],
    pub(crate) mr_enclave: [u8; 32],
    pub(crate) mr_signer: [u8; 32],
    pub(crate) config_id: [u8; 64],
    pub(crate) isv_prod_id: u16,
    pub(crate) isv_svn: u16,
    pub(crate) config_svn: u16,
    pub(crate) report_data: [u8; 64],
}

impl EnclaveReport {
    pub(crate) fn parse(bytes: &[u8; ENCLAVE_REPORT_BYTES]) -> Result<Self, Truncated> {
        let mut cursor = Cursor::new(bytes);
        cursor.take("CPUSVN", 16)?;
        let misc_select = cursor.u32("MISCSELECT")?;
        cursor.take("reserved bytes and ISVEXTPRODID", 28)?;
        let attributes = cursor.array("ATTRIBUTES")?;
        let mr_enclave = cursor.array("MRENCLAVE")?;
        cursor.take("reserved bytes", 32)?;
        let mr_signer = cursor.array("MRSIGNER")?;
        cursor.take("reserved bytes", 32)?;
        let config_id = cursor.array("CONFIGID")?;
        let isv_prod_id = cursor.u16("ISVPRODID")?;
        let isv_svn = cursor.u16("ISVSVN")?;
        let config_svn = cursor.u16("CONFIGSVN")?;
        cursor.take("reserved bytes and ISVFAMILYID", 58)?;
        let report_data = cursor.array("REPORTDATA")?;
        Ok(Self {
            misc_select,
            attributes,
            mr_enclave,
            mr_signer,
            config_id,
            isv_prod_id,
            isv_svn,
            config_svn,
            report_data,
        })
    }

    /// Whether the host can read and change the enclave: ATTRIBUTES.DEBUG.
    pub(crate) fn is_debug(&self) -> bool {
        u128::from_le_bytes(self.attributes) & DEBUG != 0
    }
}

const DEBUG: u128 = 1 << 1;
