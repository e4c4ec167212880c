//! Ending runs that take too long, or that nobody waits for.

use std::{
    cell::RefCell,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Tells the runs of one request to stop. Clones are of the same request.
#[derive(Clone, Default)]
pub struct Stop(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    stopped: bool,
    /// Stops what runs now.
    action: Option<Action>,
}

type Action = Box<dyn Fn() + Send>;

thread_local! {
    /// What stops the request that this thread runs.
    static CURRENT: RefCell<Option<Stop>> = const { RefCell::new(None) };
}

impl Stop {
    /// Ends what runs, at the next of its operators, and whatever the request would run after that.
    pub fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        if let Some(action) = &state.action {
            action();
        }
    }

    /// Whether the request was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// Does `work` on this thread; [`stop`](Self::stop) ends its runs.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let _ended = Ended(CURRENT.replace(Some(self.clone())));
        work()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("stopped", &self.is_stopped()).finish()
    }
}

/// On drop the thread has the request again that it had before, if any.
struct Ended(Option<Stop>);

impl Drop for Ended {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

/// Lets what stops this thread's request, if anything does, do `action`, for as long as what is returned lives.
pub(crate) fn stoppable(action: impl Fn() + Send + 'static) -> Stoppable {
    let stop = CURRENT.with_borrow(Clone::clone);
    if let Some(stop) = &stop {
        let mut state = stop.state();
        if state.stopped {
            action();
        }
        state.action = Some(Box::new(action));
    }
    Stoppable(stop)
}

pub(crate) struct Stoppable(Option<Stop>);

impl Drop for Stoppable {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.state().action = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    #[test]
    fn only_what_runs_is_stopped() {
        let (stop, count) = (Stop::default(), Arc::new(AtomicUsize::new(0)));
        let counting = || {
            let count = Arc::clone(&count);
            stoppable(move || {
                count.fetch_add(1, Relaxed);
            })
        };
        stop.during(|| {
            drop(counting());
            let running = counting();
            stop.stop();
            assert_eq!(count.load(Relaxed), 1);
            drop(running);
            // Work that comes after the stop is stopped, too.
            drop(counting());
            assert_eq!(count.load(Relaxed), 2);
        });
        drop(counting());
        stop.stop();
        assert_eq!(count.load(Relaxed), 2);
    }
}
