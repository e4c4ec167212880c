//! Brief work on the thread it arrived on.
//!
//! Handing a request to another thread and waking up again costs more than a small model. But the thread may be the one
//! that waits for all connections, and nobody takes that over from it by itself; so while work runs in place, a
//! watch wakes another thread up every now and then.

use std::{
    sync::{
        Arc, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{Semaphore, SemaphorePermit},
};

/// Where brief work may run.
pub(super) struct InPlace {
    shared: Arc<Shared>,
    watch: Thread,
}

struct Shared {
    /// A permit for each thread of the runtime but one, which goes on serving connections.
    places: Semaphore,
    threads: usize,
    /// How long work took of late, in µs.
    recent_micros: AtomicU64,
    /// The watch waits to be told of work.
    asleep: AtomicBool,
}

impl Shared {
    fn busy(&self) -> bool {
        self.places.available_permits() < self.threads
    }
}

impl InPlace {
    /// For the threads of the runtime this is called in.
    ///
    /// # Errors
    /// When the system gives no thread for the watch.
    pub(super) fn new() -> std::io::Result<Self> {
        let runtime = Handle::current();
        let threads = runtime.metrics().num_workers().saturating_sub(1);
        let shared = Arc::new(Shared {
            places: Semaphore::new(threads),
            threads,
            recent_micros: AtomicU64::new(u64::MAX),
            asleep: AtomicBool::new(false),
        });
        let watched = Arc::downgrade(&shared);
        let watch = thread::Builder::new().name("watch".into()).spawn(move || watch(&watched, &runtime))?;
        Ok(Self { shared, watch: watch.thread().clone() })
    }

    /// A place for work that is likely to be brief, if there is one.
    pub(super) fn place(&self) -> Option<SemaphorePermit<'_>> {
        if self.shared.recent_micros.load(Relaxed) > BRIEF_MICROS {
            return None;
        }
        let place = self.shared.places.try_acquire().ok()?;
        // Either the watch sees the place taken, or this sees it asleep.
        fence(SeqCst);
        if self.shared.asleep.load(Relaxed) && self.shared.asleep.swap(false, Relaxed) {
            self.watch.unpark();
        }
        Some(place)
    }

    /// Runs `work`, wherever this is, and remembers how long that took: at once if it was longer than what was remembered,
    /// which else fades, so that a few long ones among many keep all off these threads.
    pub(super) fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let recent = &self.shared.recent_micros;
        let before = recent.load(Relaxed);
        let faded = if before == u64::MAX { 0 } else { before - before / 4 };
        recent.store(micros.max(faded), Relaxed);
        done
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        // So that it finds nobody left to watch, once `shared` is gone.
        self.watch.unpark();
    }
}

/// Wakes a thread of `runtime` up while another is busy, until nobody is left to watch.
fn watch(watched: &Weak<Shared>, runtime: &Handle) {
    let mut idle = 0_u32;
    loop {
        thread::sleep(TICK);
        let Some(shared) = watched.upgrade() else { return };
        if shared.busy() {
            idle = 0;
            // A thread that has run it and finds nothing else waits for connections, if nobody does.
            drop(runtime.spawn(async {}));
        } else {
            idle = idle.saturating_add(1);
        }
        if idle == IDLE_TICKS {
            idle = 0;
            shared.asleep.store(true, Relaxed);
            fence(SeqCst);
            if shared.busy() {
                shared.asleep.store(false, Relaxed);
                continue;
            }
            drop(shared);
            thread::park();
        }
    }
}

/// What takes no longer may run in place. Handing over costs some tens of µs, a few hundredths of this.
const BRIEF_MICROS: u64 = 500;
/// For how long connections may have to wait for long work that looked brief.
const TICK: Duration = Duration::from_millis(2);
const IDLE_TICKS: u32 = 50;
