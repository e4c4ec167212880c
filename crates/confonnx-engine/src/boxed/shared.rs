//! A model's box and its lanes, for all who have requests for it: what they take, wait for and give back.

use std::{
    cmp::Reverse,
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
    /// Boxes that ended by themselves, or because they said something that they were not asked.
    pub crashes: u64,
    /// Boxes that were ended because a run did not end in time.
    pub timeouts: u64,
}

/// A model's box, for all who have requests for it.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Notifies when there is a lane, or another box.
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
    /// The box's lanes that are not in use; the last one back is the first to go on.
    pub(super) idle: Vec<Lane>,
    /// Of each thread of the box, how many of its lanes are in use.
    pub(super) used: Vec<usize>,
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
            // From here on it is noticed when a lane is given back.
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
        let is_brief = self.recent.is_brief();
        let mut state = self.lock();
        let process = Arc::clone(state.process.as_ref().ok_or(Absent::Restarting)?);
        let used = |lane: &Lane| state.used.get(lane.thread()).copied().unwrap_or_default();
        // Of lanes that are equally good, the last one is taken.
        let preferred = |(index, lane): &(usize, &Lane)| (used(lane), !lane.is_of(runtime), Reverse(*index));
        let (index, lane) = state.idle.iter().enumerate().min_by_key(preferred).ok_or(Absent::Busy)?;
        let thread = lane.thread();
        // Behind a run that is not brief the request would wait though another thread were free.
        if used(lane) > 0 && !is_brief {
            return Err(Absent::Busy);
        }
        let lane = state.idle.remove(index);
        if let Some(used) = state.used.get_mut(thread) {
            *used = used.saturating_add(1);
        }
        Ok((process, lane))
    }

    pub(super) fn give_back(&self, process: &Arc<Process>, lane: Lane) {
        let mut state = self.lock();
        if state.process.as_ref().is_some_and(|current| Arc::ptr_eq(current, process)) {
            if let Some(used) = state.used.get_mut(lane.thread()) {
                *used = used.saturating_sub(1);
            }
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
