//! A fixed number of threads for work that blocks: opening, running, sealing.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, Thread},
};

use confonnx_engine::Stop;
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when this and its clones are dropped and the work is done.
#[derive(Clone)]
pub(super) struct Workers(Arc<Hand>);

/// Gives work out; the threads end without it.
struct Hand(Arc<Queue>);

#[derive(Default)]
struct Queue(Mutex<State>);

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Jobs that open a sealed request, of which nobody knows yet whether a caller may ask.
    sealed: VecDeque<Job>,
    /// How many other jobs went on since the last one of `sealed`.
    passed: usize,
    /// Threads that wait for work. The last one to finish is the first to go on: it is where its core and the threads of
    /// its session are, while another may be put on a core that those have, with the first one's idle.
    idle: Vec<Thread>,
    closed: bool,
}

/// Which jobs go on first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// For a request that is open: somebody sealed it, and may be known by a token.
    Opened,
    /// For one that is sealed, and may be anybody's garbage: while there are others, one of these to each few of them.
    Sealed,
}

/// The job did not finish: it panicked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job panicked")]
pub(super) struct Lost;

impl Workers {
    /// Starts `threads` of them.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub(super) fn start(threads: usize) -> std::io::Result<Self> {
        let hand = Hand(Arc::default());
        for index in 0..threads {
            let queue = Arc::clone(&hand.0);
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                while let Some(job) = queue.next() {
                    // The job's owner learns of a panic by the dropped channel.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })?;
        }
        Ok(Self(Arc::new(hand)))
    }

    /// Runs `work` on one of the threads; the second half of what it returns is dropped once the first is on its way. It
    /// keeps what it owns, such as its place in the queue, until it ends; if nobody waits for it any more, what it has a
    /// model run is told to stop. How much can wait is for the caller to bound.
    ///
    /// # Errors
    /// [`Lost`]
    pub(super) async fn run<T, R>(
        &self,
        turn: Turn,
        work: impl FnOnce() -> (T, R) + Send + 'static,
    ) -> Result<T, Lost>
    where
        T: Send + 'static,
    {
        let (done, result) = oneshot::channel();
        let stop = Stop::default();
        let unwanted = Unwanted(Some(stop.clone()));
        let job = move || {
            let (result, _rest) = stop.during(work);
            // An error means that nobody waits any more.
            let _ = done.send(result);
        };
        self.0.0.add(turn, Box::new(job));
        let result = result.await;
        unwanted.finished();
        result.map_err(|_| Lost)
    }
}

/// Stops what nobody waits for, when it is dropped.
struct Unwanted(Option<Stop>);

impl Unwanted {
    fn finished(mut self) {
        self.0 = None;
    }
}

impl Drop for Unwanted {
    fn drop(&mut self) {
        if let Some(stop) = &self.0 {
            stop.stop();
        }
    }
}

impl Queue {
    fn add(&self, turn: Turn, job: Job) {
        let mut state = self.state();
        match turn {
            Turn::Opened => state.jobs.push_back(job),
            Turn::Sealed => state.sealed.push_back(job),
        }
        let idle = state.idle.pop();
        drop(state);
        if let Some(thread) = idle {
            thread.unpark();
        }
    }

    /// The next job, for the thread that asks; `None` when there will be none.
    fn next(&self) -> Option<Job> {
        let own = thread::current();
        loop {
            let mut state = self.state();
            if let Some(job) = state.next() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            // The thread may still be among the idle ones: threads wake up without a reason, too.
            state.idle.retain(|thread| thread.id() != own.id());
            state.idle.push(own.clone());
            drop(state);
            thread::park();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> Option<Job> {
        let sealed_first = self.passed >= PASSING || self.jobs.is_empty();
        if let Some(job) = self.sealed.pop_front_if(|_| sealed_first) {
            self.passed = 0;
            return Some(job);
        }
        let job = self.jobs.pop_front()?;
        self.passed = if self.sealed.is_empty() { 0 } else { self.passed.saturating_add(1) };
        Some(job)
    }
}

/// Jobs of opened requests that may pass one of a sealed request.
const PASSING: usize = 8;

impl Drop for Hand {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        state.idle.drain(..).for_each(|thread| thread.unpark());
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[tokio::test]
    async fn a_panic_costs_only_its_own_job() {
        let workers = Workers::start(1).unwrap();
        assert_eq!(
            workers.run(Turn::Opened, || -> ((), ()) { panic!("as the test wants") }).await,
            Err(Lost)
        );
        assert_eq!(workers.run(Turn::Opened, || (7, ())).await, Ok(7));
    }

    #[tokio::test]
    async fn a_job_nobody_waits_for_still_runs() {
        let workers = Workers::start(1).unwrap();
        let (started, ran) = oneshot::channel();
        let waiting = workers.run(Turn::Opened, move || (started.send(()), ()));
        drop(tokio::time::timeout(Duration::ZERO, waiting).await);
        ran.await.unwrap();
    }

    #[tokio::test]
    async fn the_last_thread_to_finish_is_the_first_to_go_on() {
        let workers = Workers::start(3).unwrap();
        let thread = || (thread::current().id(), ());
        // Each worker answers before it waits for work again.
        let all_wait = || workers.0.0.state().idle.len() == 3;
        until(all_wait).await;
        let first = workers.run(Turn::Opened, thread).await.unwrap();
        for _ in 0..20 {
            until(all_wait).await;
            assert_eq!(workers.run(Turn::Opened, thread).await, Ok(first));
        }
    }

    #[tokio::test]
    async fn what_was_asked_for_is_done_before_the_threads_end() {
        let workers = Workers::start(2).unwrap();
        let (done, count) = mpsc::channel();
        for _ in 0..50 {
            let done = done.clone();
            let asked = workers.run(Turn::Opened, move || (done.send(()), ()));
            let _ = tokio::time::timeout(Duration::ZERO, asked).await;
        }
        let queue = Arc::downgrade(&workers.0.0);
        drop((workers, done));
        until(|| queue.upgrade().is_none()).await;
        assert_eq!(count.iter().count(), 50);
    }

    #[tokio::test]
    async fn what_is_open_goes_first_and_what_is_sealed_is_not_forgotten() {
        let workers = Workers::start(1).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (done, order) = mpsc::channel();
        let run = |turn, name: usize| {
            let (workers, done) = (workers.clone(), done.clone());
            tokio::spawn(async move { workers.run(turn, move || (done.send(name).unwrap(), ())).await })
        };
        let (begins, begun) = oneshot::channel();
        let waiting = {
            let workers = workers.clone();
            let work = move || {
                begins.send(()).unwrap();
                (held.recv().unwrap(), ())
            };
            tokio::spawn(async move { workers.run(Turn::Opened, work).await })
        };
        begun.await.unwrap();
        for name in [100, 101] {
            run(Turn::Sealed, name);
        }
        until(|| workers.0.0.state().sealed.len() == 2).await;
        for name in 0..12 {
            run(Turn::Opened, name);
            until(|| workers.0.0.state().jobs.len() == name + 1).await;
        }
        release.send(()).unwrap();
        waiting.await.unwrap().unwrap();
        let order: Vec<_> = (0..14).map(|_| order.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7, 100, 8, 9, 10, 11, 101]);
    }

    async fn until(condition: impl Fn() -> bool) {
        let waiting = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it never happened");
    }
}
