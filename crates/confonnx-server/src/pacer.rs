//! What happens at fixed instants, whatever else does: a thread that ticks.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tracing::warn;

/// Something that is to be done at fixed instants.
pub trait Paced: Send {
    /// Does it, without waiting; whether it is to be done again.
    fn tick(&mut self) -> bool;
}

/// Calls each [`Paced`] at its instants. Its thread begins with the first of them.
#[derive(Default)]
pub struct Pacer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    all: Vec<Timed>,
    runs: bool,
    closed: bool,
}

struct Timed {
    due: Instant,
    every: Duration,
    what: Box<dyn Paced>,
}

impl Pacer {
    /// From now on `what` ticks each `every`, the first time when that much has gone by.
    pub fn add(&self, every: Duration, what: Box<dyn Paced>) {
        let mut state = self.shared.lock();
        if !state.runs {
            let shared = Arc::clone(&self.shared);
            match thread::Builder::new().name("pacer".into()).spawn(move || shared.run()) {
                Ok(_) => state.runs = true,
                // Dropped, `what` is an answer that is cut short.
                Err(error) => return warn!("nothing is sent at fixed instants: {error}"),
            }
        }
        let due = after(Instant::now(), every);
        state.all.push(Timed { due, every, what });
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

impl State {
    /// Ticks what is due, once for each instant that has gone by.
    fn tick(&mut self, now: Instant) {
        self.all.retain_mut(|timed| {
            while timed.due <= now {
                timed.due = after(timed.due, timed.every);
                if !timed.what.tick() {
                    return false;
                }
            }
            true
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            let now = Instant::now();
            state.tick(now);
            state = match state.all.iter().map(|timed| timed.due).min() {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let wait = due.saturating_duration_since(Instant::now());
                    self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.all.clear();
    }
}

fn after(instant: Instant, every: Duration) -> Instant {
    instant.checked_add(every.max(LEAST)).unwrap_or(instant)
}

/// The least time between two instants.
const LEAST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Counts(usize, usize);

    impl Paced for Counts {
        fn tick(&mut self) -> bool {
            self.0 += 1;
            self.0 < self.1
        }
    }

    #[test]
    fn there_is_one_tick_for_each_instant_however_late_it_is() {
        let (start, every) = (Instant::now(), Duration::from_millis(10));
        let mut state = State::default();
        state.all.push(Timed { due: start + every, every, what: Box::new(Counts(0, 100)) });
        state.tick(start);
        assert_eq!(state.all[0].due, start + every);
        state.tick(start + 10 * every);
        assert_eq!(state.all[0].due, start + 11 * every, "ten ticks");
        state.tick(start + 200 * every);
        assert!(state.all.is_empty(), "it ended by itself");
    }

    struct Says(Sender<()>, usize);

    impl Paced for Says {
        fn tick(&mut self) -> bool {
            self.1 -= 1;
            self.0.send(()).is_ok() && self.1 > 0
        }
    }

    #[test]
    fn it_ticks_by_itself_until_nobody_wants_more() {
        let pacer = Pacer::default();
        let (said, heard) = channel();
        for count in [3, 4] {
            pacer.add(Duration::from_millis(1), Box::new(Says(said.clone(), count)));
        }
        drop(said);
        // What ended is dropped, so that nobody is left who could say more.
        assert_eq!(heard.iter().count(), 7);
    }
}
