//! `/dev/sev-guest`, as in the kernel's `include/uapi/linux/sev-guest.h`.

use std::fmt;
use std::fs::File;
use std::io;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// What the device answered.
#[derive(Clone, PartialEq, Eq)]
pub struct SevGuestReport {
    /// MSG_REPORT_RSP of AMD's SEV-SNP firmware ABI: status, size, 24 reserved bytes, the report.
    pub response: Vec<u8>,
    /// The host's table of certificates; all zeros when it has none.
    pub certificates: Vec<u8>,
}

/// Why the device gave no report.
#[derive(Debug)]
pub struct SevGuestError {
    /// What the kernel said.
    pub source: io::Error,
    /// The firmware's status; 0 when it was not asked.
    pub firmware: u32,
    /// The hypervisor's status; 2 when it is busy.
    pub hypervisor: u32,
}

/// SNP_GET_EXT_REPORT: a report that carries `report_data`, asked for at privilege level `vmpl`, with the host's table
/// of certificates.
///
/// # Errors
/// When `device` is not `/dev/sev-guest`, or firmware or hypervisor refuse.
pub fn sev_guest_extended_report(
    device: &File,
    report_data: &[u8; 64],
    vmpl: u32,
) -> Result<SevGuestReport, SevGuestError> {
    let mut certificates = vec![0; CERTIFICATES_BYTES];
    let mut response = vec![0; RESPONSE_BYTES];
    let mut request = ExtendedReportRequest {
        user_data: *report_data,
        vmpl,
        reserved: [0; 28],
        certs_address: address(certificates.as_mut_ptr()),
        certs_len: CERTIFICATES_BYTES as u32,
        padding: 0,
    };
    let mut call = GuestRequest {
        msg_version: 1,
        padding: [0; 7],
        req_data: address(&raw mut request),
        resp_data: address(response.as_mut_ptr()),
        firmware: 0,
        hypervisor: 0,
    };
    let answer = snp_get_ext_report(device, &mut call);
    answer.map_err(|err| SevGuestError {
        source: err.into(),
        firmware: call.firmware,
        hypervisor: call.hypervisor,
    })?;
    Ok(SevGuestReport { response, certificates })
}

/// `call` holds the addresses of a request, of a response buffer and, in the request, of a buffer for certificates, all
/// of them alive for the call and of the lengths the device expects.
#[allow(unsafe_code)]
fn snp_get_ext_report(device: &File, call: &mut GuestRequest) -> rustix::io::Result<()> {
    // SAFETY: the opcode is that of SNP_GET_EXT_REPORT, whose argument has the layout of `GuestRequest` (tested below).
    // Another device than /dev/sev-guest refuses the opcode, or takes it to read and write 32 bytes at `call`.
    let updater = unsafe { Updater::<SNP_GET_EXT_REPORT, GuestRequest>::new(call) };
    // SAFETY: the driver reads an `ExtendedReportRequest` at `req_data` and writes back its `certs_len`, writes at most
    // RESPONSE_BYTES at `resp_data` and at most `certs_len` bytes at `certs_address`. Our only caller owns all three, with
    // these lengths, has no reference to them during the call, and any bytes are valid values of them.
    unsafe { ioctl(device, updater) }
}

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
struct GuestRequest {
    msg_version: u8,
    padding: [u8; 7],
    req_data: u64,
    resp_data: u64,
    firmware: u32,
    hypervisor: u32,
}

/// `struct snp_ext_report_req`.
#[repr(C)]
struct ExtendedReportRequest {
    user_data: [u8; 64],
    vmpl: u32,
    reserved: [u8; 28],
    certs_address: u64,
    certs_len: u32,
    padding: u32,
}

/// The number by which the kernel reaches the memory that `pointer` points to.
fn address<T>(pointer: *mut T) -> u64 {
    pointer.expose_provenance() as u64
}

impl fmt::Display for SevGuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, firmware, hypervisor } = self;
        write!(f, "{source} (firmware status {firmware:#x}, hypervisor status {hypervisor:#x})")
    }
}

impl std::error::Error for SevGuestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl fmt::Debug for SevGuestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (response, certificates) = (self.response.len(), self.certificates.len());
        write!(f, "SevGuestReport({response} bytes, {certificates} bytes of certificates)")
    }
}

const SNP_GET_EXT_REPORT: Opcode = opcode::read_write::<GuestRequest>(b'S', 2);
/// `struct snp_report_resp`.
const RESPONSE_BYTES: usize = 4000;
/// The most that the kernel passes on (SEV_FW_BLOB_MAX_SIZE).
const CERTIFICATES_BYTES: usize = 0x4000;

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn layouts_and_opcode_are_the_kernels() {
        assert_eq!(size_of::<GuestRequest>(), 32);
        assert_eq!(offset_of!(GuestRequest, req_data), 8);
        assert_eq!(offset_of!(GuestRequest, resp_data), 16);
        assert_eq!(offset_of!(GuestRequest, firmware), 24);
        assert_eq!(offset_of!(GuestRequest, hypervisor), 28);
        assert_eq!(size_of::<ExtendedReportRequest>(), 112);
        assert_eq!(offset_of!(ExtendedReportRequest, vmpl), 64);
        assert_eq!(offset_of!(ExtendedReportRequest, certs_address), 96);
        assert_eq!(offset_of!(ExtendedReportRequest, certs_len), 104);
        assert_eq!(SNP_GET_EXT_REPORT, 0xC020_5302);
    }

    #[test]
    fn another_file_refuses() {
        let file = tempfile::tempfile().unwrap();
        let err = sev_guest_extended_report(&file, &[0; 64], 0).unwrap_err();
        // ENOTTY.
        assert_eq!((err.source.raw_os_error(), err.firmware, err.hypervisor), (Some(25), 0, 0));
        assert!(err.to_string().contains("firmware status 0x0"), "{err}");
    }
}
