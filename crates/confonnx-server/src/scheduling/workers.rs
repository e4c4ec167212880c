//! A fixed number of threads for work that blocks: opening, running, sealing. Peers take turns, and one has half of the threads
//! at most: what it sends may take long to read, and others' does not wait for that.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
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
struct Queue {
    state: Mutex<State>,
    /// How many threads one peer may have at once.
    most: usize,
}

#[derive(Default)]
struct State {
    opened: Line,
    /// Jobs that open a sealed request, of which nobody knows yet whether a caller may ask.
    sealed: Line,
    /// How many other jobs went on since the last one of `sealed`.
    passed: usize,
    /// How many threads each peer has.
    busy: HashMap<Peer, usize>,
    /// Threads that wait for work. The last one to finish is the first to go on: it is where its core and the threads of
    /// its session are, while another may be put on a core that those have, with the first one's idle.
    idle: Vec<Thread>,
    closed: bool,
}

/// Whose work it is; none is that of all whom nothing tells apart.
pub type Peer = Option<IpAddr>;

/// Jobs of peers, whoever had a turn longest ago first.
#[derive(Default)]
struct Line(VecDeque<(Peer, VecDeque<Job>)>);

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
    /// Starts `threads` of them for one peer, and as many for all others.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub(super) fn start(threads: usize) -> std::io::Result<Self> {
        let hand = Hand(Arc::new(Queue { state: Mutex::default(), most: threads }));
        for index in 0..threads.saturating_mul(2) {
            let queue = Arc::clone(&hand.0);
            thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                while let Some((peer, job)) = queue.next() {
                    // The job's owner learns of a panic by the dropped channel.
                    let _ = catch_unwind(AssertUnwindSafe(job));
                    queue.state().ended(peer);
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
        (turn, peer): (Turn, Peer),
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
        self.0.0.add(turn, peer, Box::new(job));
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
    fn add(&self, turn: Turn, peer: Peer, job: Job) {
        let mut state = self.state();
        match turn {
            Turn::Opened => state.opened.add(peer, job),
            Turn::Sealed => state.sealed.add(peer, job),
        }
        let idle = state.idle.pop();
        drop(state);
        if let Some(thread) = idle {
            thread.unpark();
        }
    }

    /// The next job, and whose it is, for the thread that asks; `None` when there will be none.
    fn next(&self) -> Option<(Peer, Job)> {
        let own = thread::current();
        loop {
            let mut state = self.state();
            if let Some(next) = state.next(self.most) {
                return Some(next);
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next job of a peer that has not as many threads as one may.
    fn next(&mut self, most: usize) -> Option<(Peer, Job)> {
        let Self { opened, sealed, passed, busy, .. } = self;
        let may = |peer: &Peer| busy.get(peer).is_none_or(|threads| *threads < most);
        let sealed_first = *passed >= PASSING || !opened.any(may);
        let next = match sealed.next(|peer| sealed_first && may(peer)) {
            Some(next) => {
                *passed = 0;
                next
            }
            None => {
                let next = opened.next(may)?;
                *passed = if sealed.any(may) { passed.saturating_add(1) } else { 0 };
                next
            }
        };
        let threads = busy.entry(next.0).or_default();
        *threads = threads.saturating_add(1);
        Some(next)
    }

    /// A job of `peer` ended.
    fn ended(&mut self, peer: Peer) {
        if let Some(threads) = self.busy.get_mut(&peer) {
            *threads = threads.saturating_sub(1);
        }
        self.busy.retain(|_, threads| *threads > 0);
    }
}

impl Line {
    fn add(&mut self, peer: Peer, job: Job) {
        match self.0.iter_mut().find(|(other, _)| *other == peer) {
            Some((_, jobs)) => jobs.push_back(job),
            None => self.0.push_back((peer, VecDeque::from([job]))),
        }
    }

    fn any(&self, may: impl Fn(&Peer) -> bool) -> bool {
        self.0.iter().any(|(peer, _)| may(peer))
    }

    /// The first job of the first peer that `may` go on, who goes last then.
    fn next(&mut self, may: impl Fn(&Peer) -> bool) -> Option<(Peer, Job)> {
        let place = self.0.iter().position(|(peer, _)| may(peer))?;
        let (peer, mut jobs) = self.0.remove(place)?;
        let job = jobs.pop_front()?;
        if !jobs.is_empty() {
            self.0.push_back((peer, jobs));
        }
        Some((peer, job))
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

    const ANYBODY: (Turn, Peer) = (Turn::Opened, None);

    impl Line {
        fn waiting(&self) -> usize {
            self.0.iter().map(|(_, jobs)| jobs.len()).sum()
        }
    }

    #[tokio::test]
    async fn a_panic_costs_only_its_own_job() {
        let workers = Workers::start(1).unwrap();
        assert_eq!(workers.run(ANYBODY, || -> ((), ()) { panic!("as the test wants") }).await, Err(Lost));
        assert_eq!(workers.run(ANYBODY, || (7, ())).await, Ok(7));
    }

    #[tokio::test]
    async fn a_job_nobody_waits_for_still_runs() {
        let workers = Workers::start(1).unwrap();
        let (started, ran) = oneshot::channel();
        let waiting = workers.run(ANYBODY, move || (started.send(()), ()));
        drop(tokio::time::timeout(Duration::ZERO, waiting).await);
        ran.await.unwrap();
    }

    #[tokio::test]
    async fn the_last_thread_to_finish_is_the_first_to_go_on() {
        let workers = Workers::start(3).unwrap();
        let thread = || (thread::current().id(), ());
        // Each worker answers before it waits for work again.
        let all_wait = || workers.0.0.state().idle.len() == 6;
        until(all_wait).await;
        let first = workers.run(ANYBODY, thread).await.unwrap();
        for _ in 0..20 {
            until(all_wait).await;
            assert_eq!(workers.run(ANYBODY, thread).await, Ok(first));
        }
    }

    #[tokio::test]
    async fn what_was_asked_for_is_done_before_the_threads_end() {
        let workers = Workers::start(2).unwrap();
        let (done, count) = mpsc::channel();
        for _ in 0..50 {
            let done = done.clone();
            let asked = workers.run(ANYBODY, move || (done.send(()), ()));
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
            tokio::spawn(
                async move { workers.run((turn, None), move || (done.send(name).unwrap(), ())).await },
            )
        };
        let (begins, begun) = oneshot::channel();
        let waiting = {
            let workers = workers.clone();
            let work = move || {
                begins.send(()).unwrap();
                (held.recv().unwrap(), ())
            };
            tokio::spawn(async move { workers.run(ANYBODY, work).await })
        };
        begun.await.unwrap();
        for name in [100, 101] {
            run(Turn::Sealed, name);
        }
        until(|| workers.0.0.state().sealed.waiting() == 2).await;
        for name in 0..12 {
            run(Turn::Opened, name);
            until(|| workers.0.0.state().opened.waiting() == name + 1).await;
        }
        release.send(()).unwrap();
        waiting.await.unwrap().unwrap();
        let order: Vec<_> = (0..14).map(|_| order.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        assert_eq!(order, [0, 1, 2, 3, 4, 5, 6, 7, 100, 8, 9, 10, 11, 101]);
    }

    fn peer(number: u8) -> Peer {
        Some(IpAddr::from([127, 0, 0, number]))
    }

    #[tokio::test]
    async fn a_peer_has_half_of_the_threads() {
        let workers = Workers::start(2).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let long = || {
            let (workers, held) = (workers.clone(), Arc::clone(&held));
            let work = move || (held.lock().unwrap().recv().unwrap(), ());
            tokio::spawn(async move { workers.run((Turn::Opened, peer(1)), work).await })
        };
        let all: Vec<_> = (0..5).map(|_| long()).collect();
        until(|| workers.0.0.state().opened.waiting() == 3).await;
        // Whoever else asks is answered at once.
        for turn in [Turn::Opened, Turn::Sealed] {
            assert_eq!(workers.run((turn, peer(2)), || (7, ())).await, Ok(7));
        }
        assert_eq!(workers.0.0.state().opened.waiting(), 3);
        for _ in &all {
            release.send(()).unwrap();
        }
        for one in all {
            one.await.unwrap().unwrap();
        }
        until(|| workers.0.0.state().busy.is_empty()).await;
    }

    #[test]
    fn peers_take_turns() {
        let mut state = State::default();
        for number in [1, 1, 1, 2, 2, 3] {
            state.opened.add(peer(number), Box::new(|| ()));
        }
        let mut next = || state.next(2).map(|(peer, _)| peer);
        assert_eq!([1, 2, 3, 1, 2].map(|_| next()), [1, 2, 3, 1, 2].map(|number| Some(peer(number))));
        assert_eq!(next(), None, "it has as many threads as one may");
        state.ended(peer(1));
        assert_eq!(state.next(2).map(|(peer, _)| peer), Some(peer(1)));
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
