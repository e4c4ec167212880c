//! Memory of a file, seen without a copy.

use std::{ffi::c_void, io, os::fd::AsFd, ptr::NonNull, slice};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The first bytes of a memory file, mapped to be read.
///
/// For boxes alone. What is mapped is either sealed against writing, or written by nobody while it is looked at: by the
/// process that asks the box, which waits for the answer. Whoever cannot rely on the other side must copy instead.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: it is memory that all threads of the process see, and is only read.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `file`, from its start.
    ///
    /// # Errors
    /// When `len` is 0 or more than the system maps, or `file` is none that can be mapped.
    pub fn new(file: impl AsFd, len: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ, MapFlags::SHARED);
        // SAFETY: without a wish for an address nothing that is mapped changes.
        #[allow(unsafe_code)]
        let start = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, file, 0) }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The bytes. Those past the end of the file must not be looked at: the process would end.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped at `start` for as long as `self` is; any are valid, and the type's contract is that
        // nobody writes meanwhile.
        #[allow(unsafe_code)]
        unsafe {
            slice::from_raw_parts(self.start.as_ptr().cast::<u8>(), self.len)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, and every view of it has ended. It cannot fail for what was mapped.
        #[allow(unsafe_code)]
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_written_is_seen() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"tensors").unwrap();
        let mapping = Mapping::new(&file, 7).unwrap();
        assert_eq!(mapping.bytes(), b"tensors");
        assert!(Mapping::new(&file, 0).is_err());
    }
}
