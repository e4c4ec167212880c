//! `/dev/nsm` of AWS Nitro enclaves, as in the kernel's `include/uapi/linux/nsm.h`.

use std::fs::File;
use std::io;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// NSM_IOCTL_RAW: sends a CBOR request to the security module and returns its CBOR response.
///
/// # Errors
/// When `device` is not `/dev/nsm`, `request` is longer than 4096 bytes, or the module does not answer.
pub fn nsm_request(device: &File, request: &[u8]) -> io::Result<Vec<u8>> {
    if request.len() > REQUEST_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // A copy: the kernel gets addresses that it could write to.
    let mut request = request.to_vec();
    let mut response = vec![0; RESPONSE_BYTES];
    let mut call = Raw { request: Buffer::of(&mut request), response: Buffer::of(&mut response) };
    nsm_ioctl_raw(device, &mut call)?;
    let written = usize::try_from(call.response.length).unwrap_or(usize::MAX);
    if written > RESPONSE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    response.truncate(written);
    Ok(response)
}

/// `call` holds the addresses and lengths of two buffers that are alive for the call.
#[allow(unsafe_code)]
fn nsm_ioctl_raw(device: &File, call: &mut Raw) -> rustix::io::Result<()> {
    // SAFETY: the opcode is that of NSM_IOCTL_RAW, whose argument has the layout of `Raw` (tested below). Another device
    // than /dev/nsm refuses the opcode, or takes it to read and write 32 bytes at `call`.
    let updater = unsafe { Updater::<NSM_IOCTL_RAW, Raw>::new(call) };
    // SAFETY: the driver reads the request's bytes, writes at most the response's length and writes back how much that
    // was. Our only caller owns both buffers, with these lengths, has no reference to them during the call, and any bytes
    // are valid values of them.
    unsafe { ioctl(device, updater) }
}

/// `struct nsm_raw`.
#[repr(C)]
struct Raw {
    request: Buffer,
    response: Buffer,
}

/// `struct nsm_iovec`.
#[repr(C)]
struct Buffer {
    address: u64,
    length: u64,
}

impl Buffer {
    fn of(bytes: &mut [u8]) -> Self {
        Self { address: bytes.as_mut_ptr().expose_provenance() as u64, length: bytes.len() as u64 }
    }
}

const NSM_IOCTL_RAW: Opcode = opcode::read_write::<Raw>(0x0A, 0);
/// NSM_REQUEST_MAX_SIZE.
const REQUEST_BYTES: usize = 0x1000;
/// NSM_RESPONSE_MAX_SIZE.
const RESPONSE_BYTES: usize = 0x3000;

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn layout_and_opcode_are_the_kernels() {
        assert_eq!((size_of::<Raw>(), size_of::<Buffer>()), (32, 16));
        assert_eq!((offset_of!(Raw, response), offset_of!(Buffer, length)), (16, 8));
        assert_eq!(NSM_IOCTL_RAW, 0xC020_0A00);
    }

    #[test]
    fn another_file_refuses_and_so_do_long_requests() {
        let file = tempfile::tempfile().unwrap();
        // ENOTTY.
        assert_eq!(nsm_request(&file, &[0xa0]).unwrap_err().raw_os_error(), Some(25));
        let err = nsm_request(&file, &[0; REQUEST_BYTES + 1]).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::InvalidInput);
    }
}
