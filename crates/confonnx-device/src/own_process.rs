//! What a process does to itself.

use std::io;

/// Closes every descriptor from `first` on: for a process that has just started and owns none of them.
///
/// # Errors
/// When the system does not know the call (Linux 5.9 does).
pub fn close_all_from(first: u32) -> io::Result<()> {
    // SAFETY: the call takes three numbers. That nobody owns what it closes is for the caller, at the start of a program
    // where nothing was opened yet.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0_u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// From now on SIGTERM, SIGINT and SIGHUP, which whoever stops a service sends to all of its processes, change nothing: the
/// process ends when its parent says so.
pub fn ignore_terminal_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: ignoring a signal runs no code of ours.
        #[allow(unsafe_code)]
        let _ = unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Gives the system back what memory the C library holds and nobody uses.
pub fn give_memory_back() {
    // SAFETY: what is in use stays as it is.
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    let _ = unsafe { libc::malloc_trim(0) };
}

/// From now on the C library keeps up to 32 MiB of what is freed, for the next buffers of up to 4 MiB: it gives such memory
/// back to the system at once otherwise, which clears each of its pages before it is used again.
pub fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in [(libc::M_MMAP_THRESHOLD, 4 << 20), (libc::M_TRIM_THRESHOLD, 32 << 20)] {
        // SAFETY: what is in use stays as it is; both numbers are within what mallopt(3) allows.
        #[allow(unsafe_code)]
        let _ = unsafe { libc::mallopt(parameter, bytes) };
    }
}
