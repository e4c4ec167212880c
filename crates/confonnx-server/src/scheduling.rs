//! Who runs where, and how many: the places of the queue, the threads, and the counts that decide.
//!
//! A request has a place from when it is received whole until its answer is sealed. What is short is opened, answered and
//! sealed where it arrived; what is long, and what blocks, goes to a worker. While a model runs in its own process nobody
//! has a thread: the place is all that a request holds.

mod workers;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use confonnx_protocol::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use workers::Workers;
pub use workers::{Peer, Turn};

/// The places and the threads.
pub struct Scheduling {
    workers: Workers,
    /// A permit for each sealed request that was received whole, and waits or runs.
    places: Arc<Semaphore>,
    all_places: u32,
    /// A permit for each that is being received.
    receiving: Semaphore,
    load: Arc<Load>,
}

/// How many requests there are.
#[derive(Debug, Default)]
pub struct Load {
    /// Received whole, and waiting for their model or a thread.
    pub queued: AtomicI64,
    /// Running.
    pub in_flight: AtomicI64,
}

/// A place for a request that was received whole. It waits until it runs.
pub struct Place {
    load: Arc<Load>,
    runs: bool,
    _permit: OwnedSemaphorePermit,
}

/// Where something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// On the thread that asks, whose other connections wait meanwhile.
    This,
    /// On a worker, when it is the peer's turn.
    Worker(Turn, Peer),
}

impl Scheduling {
    /// Scheduling for as many requests as `places`, with so many workers for one peer and as many for all others.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(places: usize, workers: usize, load: Arc<Load>) -> io::Result<Self> {
        Ok(Self {
            workers: Workers::start(workers)?,
            places: Arc::new(Semaphore::new(places)),
            all_places: u32::try_from(places).unwrap_or(u32::MAX),
            receiving: Semaphore::new(RECEIVING as usize),
            load,
        })
    }

    /// Whether there is no place.
    pub fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// Waits until another request may be received.
    pub async fn receive(&self) -> Option<SemaphorePermit<'_>> {
        // Closed never.
        self.receiving.acquire().await.ok()
    }

    /// A place for a request that is complete.
    ///
    /// # Errors
    /// [`Code::QueueFull`]
    pub fn place(&self) -> Result<Place, Code> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Code::QueueFull)?;
        self.load.queued.fetch_add(1, Relaxed);
        Ok(Place { load: Arc::clone(&self.load), runs: false, _permit: permit })
    }

    /// Whether there is one request at most, which may have all cores.
    pub fn has_one(&self) -> bool {
        self.load.queued.load(Relaxed).saturating_add(self.load.in_flight.load(Relaxed)) <= 1
    }

    /// Does `work`; the second half of what it returns is dropped once the first is on its way. On a worker, it is done even
    /// if nobody waits for it any more; what it has a model run is told to stop then.
    ///
    /// # Errors
    /// [`Code::RequestInvalid`]: it panicked. The service answers its own panics inside the seal; one outside it loses the
    /// keys to do so.
    pub async fn run<T, R>(
        &self,
        thread: Thread,
        work: impl FnOnce() -> (T, R) + Send + 'static,
    ) -> Result<T, Code>
    where
        T: Send + 'static,
    {
        let done = match thread {
            Thread::This => catch_unwind(AssertUnwindSafe(|| work().0)).ok(),
            Thread::Worker(turn, peer) => self.workers.run((turn, peer), work).await.ok(),
        };
        done.ok_or(Code::RequestInvalid)
    }

    /// Waits until no request is received, waiting or running.
    pub async fn idle(&self) {
        // Closed never: an error would mean idle, too.
        let _ = self.receiving.acquire_many(RECEIVING).await;
        let _ = self.places.acquire_many(self.all_places).await;
    }
}

impl Place {
    /// Says that the request runs from now on.
    pub fn runs(&mut self) {
        if !self.runs {
            self.runs = true;
            self.load.in_flight.fetch_add(1, Relaxed);
            self.load.queued.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counter = if self.runs { &self.load.in_flight } else { &self.load.queued };
        counter.fetch_sub(1, Relaxed);
    }
}

/// More requests than there can be connections, so that none is refused for it.
const RECEIVING: u32 = 1 << 28;
