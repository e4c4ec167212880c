//! A model's box and its lanes, for all who have requests for it: what they take, wait for and give back.

use std::{
    pin::pin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{runtime, sync::Notify, time::timeout_at};

use super::{lane::Lane, process::Process};
use crate::recent::Recent;

/// How often a model's box ended, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deaths {
    /// By itself, or because it said what it was not asked.
    pub crashes: u64,
    /// Because a run did not end in time.
    pub timeouts: u64,
}

/// A model's box, for all who have requests for it.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// There is a lane, or another box.
    pub(super) changed: Notify,
    pub(super) closing: Condvar,
    pub(super) crashes: AtomicU64,
    pub(super) timeouts: AtomicU64,
    pub(super) recent: Recent,
    pub(super) batched: AtomicU64,
}

/// What changes.
#[derive(Default)]
pub(super) struct State {
    /// The box that runs, if one does.
    pub(super) process: Option<Arc<Process>>,
    /// Its lanes that are not in use; the last one back is the first to go on.
    pub(super) idle: Vec<Lane>,
    pub(super) closed: bool,
}

/// Why there is no lane.
pub(super) enum Absent {
    /// All run others' requests.
    Busy,
    /// There is no box.
    Restarting,
}

impl Shared {
    /// How often the box ended.
    pub(super) fn deaths(&self) -> Deaths {
        Deaths { crashes: self.crashes.load(Relaxed), timeouts: self.timeouts.load(Relaxed) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a lane of the box that runs, until its run would be `due`: one whose answers `runtime` waited for before, if
    /// there is one.
    pub(super) async fn take(
        &self,
        (start, due): (Instant, Instant),
        runtime: runtime::Id,
    ) -> Result<(Arc<Process>, Lane), Absent> {
        let restarted = start.checked_add(RESTART_PATIENCE).map_or(due, |at| at.min(due));
        if let Ok(taken) = self.try_take(runtime) {
            return Ok(taken);
        }
        loop {
            let mut changed = pin!(self.changed.notified());
            // Who gives a lane back from here on is noticed.
            changed.as_mut().enable();
            let absent = match self.try_take(runtime) {
                Ok(taken) => return Ok(taken),
                Err(absent) => absent,
            };
            let until = match absent {
                Absent::Busy => due,
                Absent::Restarting => restarted,
            };
            if timeout_at(until.into(), changed).await.is_err() {
                return Err(absent);
            }
        }
    }

    fn try_take(&self, runtime: runtime::Id) -> Result<(Arc<Process>, Lane), Absent> {
        let mut state = self.lock();
        let process = Arc::clone(state.process.as_ref().ok_or(Absent::Restarting)?);
        let there = state.idle.iter().rposition(|lane| lane.is_of(runtime));
        let lane = there.map(|index| state.idle.remove(index)).or_else(|| state.idle.pop());
        lane.map(|lane| (process, lane)).ok_or(Absent::Busy)
    }

    pub(super) fn give_back(&self, process: &Arc<Process>, lane: Lane) {
        let mut state = self.lock();
        if state.process.as_ref().is_some_and(|current| Arc::ptr_eq(current, process)) {
            state.idle.push(lane);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Lets nobody ask `process` any more; whether anybody could.
    pub(super) fn forget(&self, process: &Arc<Process>) -> bool {
        let mut state = self.lock();
        let current = state.process.as_ref().is_some_and(|current| Arc::ptr_eq(current, process));
        if current {
            state.process = None;
            state.idle.clear();
        }
        current
    }
}

/// How long a request waits for a box that is being started again.
const RESTART_PATIENCE: Duration = Duration::from_secs(10);
