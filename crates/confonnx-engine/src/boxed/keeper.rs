//! Starts a model's box, and starts it again when it ends.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed, mpsc},
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use super::{
    lane::Lane,
    process::{Cargo, Process, Setup},
    shared::Shared,
    wire::Facts,
};
use crate::error::EngineError;

/// What it takes to start a model's box.
pub(super) struct Keeper {
    pub(super) name: String,
    pub(super) setup: Arc<Setup>,
    pub(super) cargo: Cargo,
    pub(super) sessions: usize,
    pub(super) shared: Arc<Shared>,
}

impl Keeper {
    /// Keeps the box until the model is dropped; the first of what it says of itself goes to `loaded`.
    /// `spare` is a box that was prepared for whichever model comes first.
    pub(super) fn keep(self, loaded: &mpsc::Sender<Result<Facts, EngineError>>, spare: Option<Process>) {
        let first = match self.start(spare.filter(Process::runs)) {
            Ok((facts, process)) => {
                if loaded.send(Ok(facts.clone())).is_err() {
                    return;
                }
                Some((facts, process))
            }
            // Nobody waits if the thread that asked is gone.
            Err(error) => return drop(loaded.send(Err(error))),
        };
        let Some((facts, mut process)) = first else { return };
        let mut pause = Duration::ZERO;
        loop {
            let start = Instant::now();
            process.wait();
            if self.shared.forget(&process) {
                self.shared.crashes.fetch_add(1, Relaxed);
            }
            let how = process.end().map_or_else(|| "it is gone".to_owned(), |status| status.to_string());
            if self.shared.lock().closed {
                return;
            }
            if start.elapsed() > STABLE {
                pause = Duration::ZERO;
            }
            process = loop {
                warn!("{}: its process ended ({how}); it is started again in {pause:?}", self.name);
                if self.closes_within(pause) {
                    return;
                }
                pause = pause.saturating_mul(2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                match self.start(None) {
                    Ok((again, process))
                        if (&again.inputs, &again.outputs) == (&facts.inputs, &facts.outputs) =>
                    {
                        info!("{}: its process runs again", self.name);
                        break process;
                    }
                    Ok((_, process)) => {
                        error!("{}: its process says other inputs and outputs than before", self.name);
                        self.shared.forget(&process);
                    }
                    Err(error) => error!("{}: its process cannot be started again: {error}", self.name),
                }
            };
        }
    }

    /// A box that takes requests.
    fn start(&self, spare: Option<Process>) -> Result<(Facts, Arc<Process>), EngineError> {
        let failed = |error: io::Error| EngineError::NoBox(error.to_string());
        let (process, facts) = Process::load(&self.setup, &self.cargo, spare)?;
        let together = facts.largest_batch.as_ref().map_or(1, |rows| *rows).clamp(1, MOST_TOGETHER);
        // There is a thread for each request that runs, and for each that waits while it is batched.
        let threads = self.sessions.saturating_add(together).saturating_sub(1);
        // A thread that is done takes a request that is there already, for which nobody has to wake up.
        let ahead = if together == 1 { threads.saturating_mul(AHEAD).min(MOST_AHEAD) } else { 0 };
        let exchanges = process.begin(threads.saturating_add(ahead), threads).map_err(failed)?;
        let homes = exchanges.iter().take(threads).enumerate().collect::<Vec<_>>().into_iter().cycle();
        let lanes = exchanges.iter().zip(homes).zip(0..);
        let lanes = lanes.map(|((exchange, (thread, home)), index)| {
            Lane::new(index, Arc::clone(exchange), (thread, Arc::clone(home)))
        });
        let lanes = lanes.collect();
        let process = Arc::new(process);
        let mut state = self.shared.lock();
        if !state.closed {
            state.process = Some(Arc::clone(&process));
            state.idle = lanes;
            state.used = vec![0; threads];
        }
        drop(state);
        self.shared.changed.notify_waiters();
        Ok((facts, process))
    }

    /// Waits for `pause`; whether the model is not wanted any more.
    fn closes_within(&self, pause: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.closing.wait_timeout_while(state, pause, |state| !state.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }
}

/// A box that ran for this long is started again at once; one that did not, after a pause that doubles.
const STABLE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How many lanes there are beyond its own for each thread, and for all of them.
const AHEAD: usize = 3;
const MOST_AHEAD: usize = 24;
/// The most lanes for requests that wait to be batched.
const MOST_TOGETHER: usize = 256;
