//! Volumes that the kernel checks block by block as they are read (device mapper's target `verity`), as in the kernel's
//! `include/uapi/linux/dm-ioctl.h`.

use std::fs::File;
use std::io;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// Maps a read-only device of `sectors` of 512 bytes by a table of one target `verity` with these parameters (the kernel's
/// `Documentation/admin-guide/device-mapper/verity.rst`). Returns N of its file `/dev/dm-N`.
///
/// # Errors
/// When `control` is not `/dev/mapper/control`, name or parameters are too long, or the kernel refuses.
pub fn map_verity(control: &File, name: &str, sectors: u64, parameters: &str) -> io::Result<u32> {
    let mut request = Request::new(name)?;
    dm_ioctl::<CREATE>(control, &mut request)?;
    let device = request.device();
    let started = Request::new(name).and_then(|mut load| {
        load.set_table(sectors, parameters)?;
        dm_ioctl::<LOAD>(control, &mut load)?;
        // To resume it makes the table the one in use.
        Ok(dm_ioctl::<SUSPEND>(control, &mut Request::new(name)?)?)
    });
    if let Err(err) = started {
        // A device without a table is of no use; the reason counts.
        let _ = unmap(control, name);
        return Err(err);
    }
    Ok(device)
}

/// Removes the device of that name.
///
/// # Errors
/// When there is none, or it is in use.
pub fn unmap(control: &File, name: &str) -> io::Result<()> {
    Ok(dm_ioctl::<REMOVE>(control, &mut Request::new(name)?)?)
}

/// A request and the answer to it, which the kernel writes over it.
#[repr(C, align(8))]
struct Request([u8; BYTES]);

impl Request {
    /// A `struct dm_ioctl` of a device.
    fn new(name: &str) -> io::Result<Self> {
        let mut request = Self([0; BYTES]);
        // The version of the interface; the kernel's may be newer.
        request.put(0, &4_u32.to_ne_bytes())?;
        request.put(DATA_SIZE, &(BYTES as u32).to_ne_bytes())?;
        request.put(DATA_START, &(HEADER as u32).to_ne_bytes())?;
        if name.len() >= NAME_BYTES || name.bytes().any(|byte| byte == 0) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        request.put(NAME, name.as_bytes())?;
        Ok(request)
    }

    /// Adds a `struct dm_target_spec` and its parameters, for a device that cannot be written to.
    fn set_table(&mut self, sectors: u64, parameters: &str) -> io::Result<()> {
        self.put(TARGET_COUNT, &1_u32.to_ne_bytes())?;
        self.put(FLAGS, &READONLY.to_ne_bytes())?;
        self.put(HEADER + 8, &sectors.to_ne_bytes())?;
        self.put(HEADER + 24, b"verity")?;
        self.put(HEADER + TARGET, parameters.as_bytes())?;
        // The parameters end with a zero.
        self.put(parameters.len().saturating_add(HEADER + TARGET), &[0])
    }

    /// The minor number of the device, of the member `dev`.
    fn device(&self) -> u32 {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(self.0.iter().skip(DEV)).for_each(|(to, from)| *to = *from);
        let dev = u64::from_ne_bytes(bytes);
        (dev & 0xff) as u32 | ((dev >> 12) & 0xf_ff00) as u32
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> io::Result<()> {
        let end = at.saturating_add(bytes.len());
        self.0.get_mut(at..end).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
        Ok(())
    }
}

#[allow(unsafe_code)]
fn dm_ioctl<const COMMAND: Opcode>(control: &File, request: &mut Request) -> rustix::io::Result<()> {
    // SAFETY: COMMAND is one of the four below, whose argument is a `struct dm_ioctl` at the start of a buffer of the length
    // that its member `data_size` says, which is that of `Request`; the kernel reads and writes no more than that.
    let updater = unsafe { Updater::<COMMAND, Request>::new(request) };
    // SAFETY: any bytes are a valid `Request`, which the updater borrows for the call. Another file than the mapper's control
    // refuses the opcode.
    unsafe { ioctl(control, updater) }
}

/// Has the size of `struct dm_ioctl`, by which the kernel numbers its commands.
type Header = [u8; HEADER];

const CREATE: Opcode = opcode::read_write::<Header>(0xfd, 3);
const REMOVE: Opcode = opcode::read_write::<Header>(0xfd, 4);
const SUSPEND: Opcode = opcode::read_write::<Header>(0xfd, 6);
const LOAD: Opcode = opcode::read_write::<Header>(0xfd, 9);
/// Flag DM_READONLY_FLAG.
const READONLY: u32 = 1;
/// Sizes of `struct dm_ioctl`, `struct dm_target_spec`, and of a request with parameters.
const HEADER: usize = 312;
const TARGET: usize = 40;
const BYTES: usize = 4096;
/// Offsets of members of `struct dm_ioctl`.
const DATA_SIZE: usize = 12;
const DATA_START: usize = 16;
const TARGET_COUNT: usize = 20;
const FLAGS: usize = 28;
const DEV: usize = 40;
const NAME: usize = 48;
const NAME_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_and_layout_are_the_kernels() {
        assert_eq!([CREATE, REMOVE, SUSPEND, LOAD], [0xc138_fd03, 0xc138_fd04, 0xc138_fd06, 0xc138_fd09]);
        let mut request = Request::new("models").unwrap();
        request.set_table(80, "1 a b").unwrap();
        let text = |at: usize, len: usize| std::str::from_utf8(&request.0[at..at + len]).unwrap();
        assert_eq!((text(48, 7), text(312 + 24, 7), text(352, 6)), ("models\0", "verity\0", "1 a b\0"));
        assert_eq!(request.0[312 + 8..312 + 16], 80_u64.to_ne_bytes());
        // Minor numbers have 20 bits, the upper 12 of them above the major number's 12.
        request.put(DEV, &0xabc0_fd12_u64.to_ne_bytes()).unwrap();
        assert_eq!(request.device(), 0xa_bc12);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Request::new(&"x".repeat(128)).is_err() && Request::new("a\0b").is_err());
        let mut request = Request::new("models").unwrap();
        assert!(request.set_table(8, &"x".repeat(3744)).is_err());
        request.set_table(8, &"x".repeat(3743)).unwrap();
    }

    #[test]
    fn another_file_refuses() {
        let file = tempfile::tempfile().unwrap();
        // ENOTTY.
        assert_eq!(map_verity(&file, "models", 8, "1").unwrap_err().raw_os_error(), Some(25));
    }
}
