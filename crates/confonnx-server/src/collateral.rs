//! Vendor collateral: fetched here, kept, refreshed, and stapled to evidence, so that clients need no network.
//!
//! Nothing of it is trusted: vendors sign it and clients check it. What goes wrong here costs availability alone. While
//! a service is unreachable the last good answers are stapled; with none, documents go out without, and clients
//! say what they could not decide. Both show in the log and in the metrics.

mod fetch;
mod pace;
mod store;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use confonnx_attest::{
    Evidence, UnixTime,
    collateral::{Answer, Request, StapleError},
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

pub use fetch::Fetcher;
pub use store::StoreError;

use crate::{
    clock::Later,
    config::{Bases, CollateralConfig},
    metrics::{CollateralState, Metrics},
};
use fetch::{FetchError, url};
use pace::Pace;
use store::Store;

/// The collateral that is kept, and who fetches it.
pub struct Collateral {
    bases: Bases,
    store: Option<Arc<Store>>,
    pace: Pace,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Grows with every change of what is stapled.
    version: AtomicU64,
    /// Notifies when there may be something to fetch.
    wanted: Notify,
    /// Whether everything wanted is there or was tried.
    settled: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// The latest evidence, without endorsements of ours: answers are tried on it.
    evidence: Option<Evidence>,
    /// An entry for each of the evidence's requests, in their order.
    entries: Vec<Entry>,
}

struct Entry {
    request: Request,
    kept: Option<Arc<Kept>>,
    /// Attempts in a row that failed.
    failures: u32,
    /// When to fetch the entry next.
    due: Instant,
}

/// An answer, and what is known of its age.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    answer: Answer,
    fetched: UnixTime,
    expires: Option<UnixTime>,
}

/// Why an answer is not used.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    Malformed(StapleError),
    /// The answer has expired, or expires earlier than what is kept.
    #[error("the service is out of date: its answer expires at Unix time {}, and now is {}", expires.0, now.0)]
    Stale { expires: UnixTime, now: UnixTime },
}

impl Collateral {
    /// Fetches nothing yet.
    ///
    /// # Errors
    /// When the folder of the cache cannot be used.
    pub fn new(config: &CollateralConfig, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        Self::with_pace(config, Pace::default(), metrics)
    }

    fn with_pace(config: &CollateralConfig, pace: Pace, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let store = config.cache.as_deref().map(Store::open).transpose()?.map(Arc::new);
        Ok(Self {
            bases: config.bases.clone(),
            store,
            pace,
            metrics,
            state: Mutex::default(),
            version: AtomicU64::new(0),
            wanted: Notify::new(),
            settled: watch::Sender::new(true),
        })
    }

    /// Staples what is at hand, and has the rest fetched. Reads files when the requests are new, otherwise only memory.
    /// Returns the [`version`](Self::version) of what was stapled.
    pub fn staple(&self, evidence: &mut Evidence) -> u64 {
        let requests = evidence.collateral_requests();
        if requests.is_empty() {
            return self.version();
        }
        let mut state = self.state();
        let state = &mut *state;
        if !state.entries.iter().map(|entry| &entry.request).eq(&requests) {
            let entries =
                requests.into_iter().map(|request| self.entry(request, &mut state.entries)).collect();
            state.entries = entries;
            self.changed(state);
            self.wanted.notify_one();
        }
        state.evidence = Some(evidence.clone());
        // What does not fit (it can only be from a damaged file) is dropped, one at a time.
        while let Err(error) = staple(evidence, &state.entries) {
            let Some(entry) = at_fault(&error, &mut state.entries).filter(|entry| entry.kept.is_some())
            else {
                error!("no collateral is stapled: {error}");
                break;
            };
            warn!("kept collateral is dropped: {error}");
            (entry.kept, entry.due) = (None, Instant::now());
            self.changed(state);
            self.wanted.notify_one();
        }
        self.version()
    }

    /// A number that is another one after every change of what is stapled.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Waits until everything wanted is there or was tried, but no longer than `patience`.
    pub async fn settled(&self, patience: Duration) {
        let mut settled = self.settled.subscribe();
        // Whether the time runs out or the channel is closed changes nothing of what follows.
        let _ = tokio::time::timeout(patience, settled.wait_for(|settled| *settled)).await;
    }

    /// Fetches what is due, for ever.
    pub async fn run(self: Arc<Self>) {
        let mut fetcher = None;
        loop {
            let (due, next) = self.due(Instant::now());
            if due.is_empty() {
                tokio::select! {
                    () = self.wanted.notified() => {}
                    () = sleep_until(next) => {}
                }
                continue;
            }
            let fetcher =
                fetcher.get_or_insert_with(|| Arc::new(Fetcher::new(self.bases.clone(), self.pace.timeout)));
            let mut tasks = JoinSet::new();
            for request in due {
                let fetcher = Arc::clone(fetcher);
                tasks.spawn(async move { (fetcher.get(&request).await, request) });
            }
            while let Some(done) = tasks.join_next().await {
                // A panic would have been ours; the request stays due.
                let Ok((answer, request)) = done else { continue };
                self.metrics.collateral.fetch(request.vendor);
                if let Some(kept) = self.receive(&request, answer) {
                    self.keep(request, kept).await;
                }
            }
        }
    }

    /// Decides about the answer to `request`; returns it if it is adopted.
    fn receive(&self, request: &Request, answer: Result<Answer, FetchError>) -> Option<Arc<Kept>> {
        let mut state = self.state();
        let State { evidence, entries } = &mut *state;
        // The request may not be wanted any longer.
        let index = entries.iter().position(|entry| entry.request == *request)?;
        let considered = match answer {
            Err(error) => Err(error.into()),
            Ok(answer) => consider(evidence.as_ref()?, entries, index, answer, (self.pace.now)()),
        };
        let entry = entries.get_mut(index)?;
        let adopted = match considered {
            Ok(kept) => {
                if entry.failures > 0 {
                    info!("collateral is there again: {}", url(&self.bases, request));
                }
                entry.failures = 0;
                entry.due = Instant::now().later(self.pace.refresh(&kept, (self.pace.now)()));
                Some(kept)
            }
            Err(failure) => {
                self.metrics.collateral.failure(request.vendor, failure.reason());
                entry.failures = entry.failures.saturating_add(1);
                let wait = self.pace.retry(entry.failures, failure.retry_after());
                entry.due = Instant::now().later(wait);
                warn!(
                    "collateral from {}: {failure}; {}; next attempt in {:.1} s",
                    url(&self.bases, request),
                    Meanwhile(entry.kept.as_deref(), (self.pace.now)()),
                    wait.as_secs_f64()
                );
                None
            }
        };
        self.changed(&state);
        adopted
    }

    /// Writes to disk, if there is a cache.
    async fn keep(&self, request: Request, kept: Arc<Kept>) {
        let Some(store) = self.store.clone() else { return };
        let written = tokio::task::spawn_blocking(move || store.write(&request, &kept)).await;
        if let Ok(Err(error)) = written {
            warn!("collateral is not kept over a restart: {error}");
        }
    }

    /// What is due at `now`, and when something will be.
    fn due(&self, now: Instant) -> (Vec<Request>, Instant) {
        let state = self.state();
        let due = state.entries.iter().filter(|entry| entry.due <= now);
        let next = state.entries.iter().map(|entry| entry.due).min();
        (
            due.map(|entry| entry.request.clone()).collect(),
            next.unwrap_or_else(|| now.later(self.pace.longest_refresh)),
        )
    }

    /// An entry for `request`: the one there was, or what the cache has, or one to fetch now.
    fn entry(&self, request: Request, old: &mut Vec<Entry>) -> Entry {
        if let Some(index) = old.iter().position(|entry| entry.request == request) {
            return old.swap_remove(index);
        }
        let kept = self.store.as_ref().and_then(|store| match store.read(&request) {
            Ok(kept) => kept,
            Err(error) => {
                warn!("kept collateral is ignored: {error}");
                None
            }
        });
        let wait = kept.as_ref().map_or(Duration::ZERO, |kept| self.pace.refresh(kept, (self.pace.now)()));
        Entry { request, kept: kept.map(Arc::new), failures: 0, due: Instant::now().later(wait) }
    }

    fn changed(&self, state: &State) {
        self.version.fetch_add(1, Ordering::AcqRel);
        let now = (self.pace.now)();
        let usable = |kept: &&Arc<Kept>| kept.expires.is_none_or(|expires| now < expires);
        let kept = || state.entries.iter().filter_map(|entry| entry.kept.as_ref());
        let unsettled = state.entries.iter().any(|entry| entry.kept.is_none() && entry.failures == 0);
        self.metrics.collateral.set(CollateralState {
            needed: state.entries.len(),
            missing: state.entries.len().saturating_sub(kept().filter(usable).count()),
            stale: state.entries.iter().filter(|entry| entry.kept.is_some() && entry.failures > 0).count(),
            fetched: kept().map(|kept| kept.fetched).min(),
            expires: kept().filter_map(|kept| kept.expires).min(),
        });
        self.settled.send_if_modified(|settled| std::mem::replace(settled, !unsettled) == unsettled);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts `answer` in its place among `entries`, unless it is no better than what is there.
fn consider(
    evidence: &Evidence,
    entries: &mut [Entry],
    index: usize,
    answer: Answer,
    now: UnixTime,
) -> Result<Arc<Kept>, Failure> {
    let kept = Arc::new(Kept { fetched: now, expires: answer.expires(), answer });
    let before = entries.get(index).and_then(|entry| entry.kept.clone());
    let newest = before.as_ref().and_then(|before| before.expires).max(Some(now));
    let stale = kept.expires.filter(|expires| Some(*expires) < newest);
    if let (Some(expires), Some(before)) = (stale, &before)
        && before.expires >= kept.expires
    {
        return Err(Failure::Stale { expires, now });
    }
    let mut put = |kept| entries.get_mut(index).map(|entry| entry.kept = kept);
    put(Some(Arc::clone(&kept)));
    if let Err(error) = staple(&mut evidence.clone(), entries) {
        if let Some(entry) = entries.get_mut(index) {
            entry.kept = before;
        }
        return Err(Failure::Malformed(error));
    }
    // The answer is better than what there was, if not good: clients then say what is wrong with it.
    stale.map_or(Ok(kept), |expires| Err(Failure::Stale { expires, now }))
}

fn staple(evidence: &mut Evidence, entries: &[Entry]) -> Result<(), StapleError> {
    let answers: Vec<_> = entries.iter().map(|entry| entry.kept.as_ref().map(|kept| &kept.answer)).collect();
    evidence.staple(&answers)
}

fn at_fault<'a>(error: &StapleError, entries: &'a mut [Entry]) -> Option<&'a mut Entry> {
    let (StapleError::Malformed { path, .. } | StapleError::Header { path, .. }) = error else { return None };
    entries.iter_mut().find(|entry| entry.request.path == *path)
}

impl Failure {
    /// The failure's label in the metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.reason(),
            Self::Malformed(_) => "malformed",
            Self::Stale { .. } => "stale",
        }
    }

    /// How long the service wants to be left alone.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Fetch(error) => error.retry_after(),
            Self::Malformed(_) | Self::Stale { .. } => None,
        }
    }
}

/// What clients get while an answer cannot be fetched.
struct Meanwhile<'a>(Option<&'a Kept>, UnixTime);

impl fmt::Display for Meanwhile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kept, now) = *self;
        match kept.map(|kept| kept.expires) {
            None => f.write_str("documents go out without it, and clients may refuse them as undecided"),
            Some(None) => f.write_str("the one fetched before stays in use"),
            Some(Some(expires)) if now < expires => {
                write!(
                    f,
                    "the one fetched before stays in use and expires in {} s",
                    expires.0.saturating_sub(now.0)
                )
            }
            Some(Some(expires)) => write!(
                f,
                "the one in use expired {} s ago, and clients may refuse it as undecided",
                now.0.saturating_sub(expires.0)
            ),
        }
    }
}

#[cfg(test)]
mod tests;
