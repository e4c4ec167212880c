//! A fixed number of threads for work that blocks: opening, running, sealing.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when this and its clones are dropped and the work is done.
#[derive(Clone)]
pub struct Workers {
    jobs: mpsc::Sender<Job>,
}

/// The job did not finish: it panicked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job panicked")]
pub struct Lost;

impl Workers {
    /// Starts `threads` of them.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for index in 0..threads {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                loop {
                    // Waits inside the lock: the others wait for it instead of for the channel.
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    // Its owner learns of a panic by the dropped channel.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                }
            })?;
        }
        Ok(Self { jobs })
    }

    /// Runs `work` on one of the threads. It runs to its end even if nobody waits for it any more, and so keeps what
    /// it owns, such as its place in the queue. How much can wait is for the caller to bound.
    ///
    /// # Errors
    /// [`Lost`]
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody may be waiting any more.
            let _ = done.send(work());
        });
        self.jobs.send(job).map_err(|_| Lost)?;
        result.await.map_err(|_| Lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_only_its_own_job() {
        let workers = Workers::start(1).unwrap();
        assert_eq!(workers.run(|| panic!("as the test wants")).await, Err::<(), _>(Lost));
        assert_eq!(workers.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_job_nobody_waits_for_still_runs() {
        let workers = Workers::start(1).unwrap();
        let (started, ran) = oneshot::channel();
        let waiting = workers.run(move || started.send(()));
        drop(tokio::time::timeout(std::time::Duration::ZERO, waiting).await);
        ran.await.unwrap();
    }
}
