//! A bell that another process rings.

use std::{io, os::fd::OwnedFd, sync::Arc};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};
use tokio::io::{Interest, unix::AsyncFd};

/// An eventfd that another process rings. That process may be hostile: it decides when whoever waits wakes up, and
/// nothing else.
#[derive(Clone, Debug)]
pub struct Bell(Arc<OwnedFd>);

/// A bell that tasks of one runtime wait for.
#[derive(Debug)]
pub struct Listener(AsyncFd<Arc<OwnedFd>>);

impl Bell {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self::of(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// The other process's end of the bell.
    pub fn of(eventfd: OwnedFd) -> Self {
        Self(Arc::new(eventfd))
    }

    /// The descriptor of which the other process makes its end.
    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Wakes up whoever waits.
    pub fn ring(&self) {
        let once = 1_u64.to_ne_bytes();
        if let Err(Errno::AGAIN) = rustix::io::write(&self.0, &once) {
            // The count is full, which only a process brings about that wants to.
            let _ = rustix::io::read(&self.0, &mut [0; 8]);
            let _ = rustix::io::write(&self.0, &once);
        }
    }

    /// For tasks of the current tokio runtime to wait by.
    ///
    /// # Errors
    /// When the system does not let the runtime watch it.
    ///
    /// # Panics
    /// Outside of a runtime, or in one that does no input and output.
    pub fn listen(&self) -> io::Result<Listener> {
        // SAFETY: it is an open descriptor, always the same, and stays open for as long as what has it here lives.
        #[allow(unsafe_code)]
        let listener = unsafe { AsyncFd::register_with_interest(Arc::clone(&self.0), Interest::READABLE) };
        Ok(Listener(listener.map_err(io::Error::from)?))
    }
}

impl Listener {
    /// Waits until the bell was rung since the last time; perhaps shorter.
    ///
    /// # Errors
    /// The runtime ends.
    pub async fn rung(&self) -> io::Result<()> {
        // Each ring is another event, whether or not its count was read.
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn each_ring_is_heard_though_none_is_read() {
        let bell = Bell::new().unwrap();
        let (theirs, listener) = (Bell::of(bell.fd().try_clone().unwrap()), bell.listen().unwrap());
        for _ in 0..3 {
            theirs.ring();
            timeout(Duration::from_secs(10), listener.rung()).await.unwrap().unwrap();
            assert!(timeout(Duration::from_millis(20), listener.rung()).await.is_err(), "nobody rang");
        }
    }

    #[tokio::test]
    async fn one_that_was_rung_as_often_as_it_can_be_rings_still() {
        let bell = Bell::new().unwrap();
        let listener = bell.listen().unwrap();
        rustix::io::write(bell.fd(), &(u64::MAX - 1).to_ne_bytes()).unwrap();
        listener.rung().await.unwrap();
        bell.ring();
        timeout(Duration::from_secs(10), listener.rung()).await.unwrap().unwrap();
    }
}
