//! Memory files: bytes that have a descriptor and no name.

use std::{
    io::{self, IoSlice},
    ops::Range,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    buffer::spare_capacity,
    fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create},
    io::{Errno, pread, pwritev},
};

/// A memory file with `parts`, one after another, that nobody can change any more.
pub(crate) fn sealed(name: &str, parts: &[&[u8]]) -> io::Result<OwnedFd> {
    let file = memory(name)?;
    let mut at = 0_u64;
    for part in parts {
        write_all(&file, &[part], at)?;
        at = at.saturating_add(part.len() as u64);
    }
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file)
}

/// A memory file of `len` zeros that can only grow: whoever reads it meets no end where there was none before.
pub(crate) fn growing(name: &str, len: u64) -> io::Result<OwnedFd> {
    let file = memory(name)?;
    ftruncate(&file, len)?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK)?;
    Ok(file)
}

fn memory(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?)
}

/// Writes `parts` one after another from `at` on.
pub(crate) fn write_all(file: impl AsFd, parts: &[&[u8]], mut at: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = slices.as_mut_slice();
    while left.iter().any(|slice| !slice.is_empty()) {
        let now = left.get(..left.len().min(MOST_SLICES)).unwrap_or_default();
        let written = retry(|| pwritev(&file, now, at))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut left, written);
        at = at.saturating_add(written as u64);
    }
    Ok(())
}

/// The `len` bytes from `at` on.
///
/// # Errors
/// `OutOfMemory` when there is no room for them, `UnexpectedEof` when there are less.
pub(crate) fn read(file: impl AsFd, len: usize, at: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    while bytes.len() < len {
        let from = at.saturating_add(bytes.len() as u64);
        // There may be more room than was asked for, and more in the file than belongs to this.
        let read = retry(|| pread(&file, spare_capacity(&mut bytes), from))?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(len);
    }
    Ok(bytes)
}

/// Erases the bytes in `range`, and gives the memory back if it is much.
pub(crate) fn erase(file: impl AsFd, range: Range<u64>) -> io::Result<()> {
    let Range { start: mut at, end } = range;
    let len = end.saturating_sub(at);
    if len > KEPT {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        return Ok(fallocate(&file, flags, at, len)?);
    }
    while at < end {
        let now = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(ZEROS.len());
        write_all(&file, &[ZEROS.get(..now).unwrap_or_default()], at)?;
        at = at.saturating_add(now as u64);
    }
    Ok(())
}

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
/// Memory that is written over rather than given back, in bytes: as much as most requests take, again and again.
const KEPT: u64 = 4 << 20;

/// How many slices the system takes at once (UIO_MAXIOV).
const MOST_SLICES: usize = 1024;

/// Calls again when a signal came in between.
pub(crate) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_cannot_be_cut_off() {
        let file = growing("test", 5).unwrap();
        assert_eq!(read(&file, 5, 0).unwrap(), [0; 5]);
        write_all(&file, &[b"abc"], 10).unwrap();
        assert!(rustix::fs::ftruncate(&file, 1).is_err());
        assert_eq!(read(&file, 2, 11).unwrap(), b"bc");
        assert_eq!(read(&file, 4, 10).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        for len in [12, KEPT + 1] {
            write_all(&file, &[b"abc"], 10).unwrap();
            erase(&file, 0..len).unwrap();
            assert_eq!(read(&file, 3, 10).unwrap(), if len == 12 { *b"\0\0c" } else { [0; 3] });
        }
    }
}
