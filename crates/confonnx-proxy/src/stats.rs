//! What was asked, by model: Triton's numbers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Upper bounds of the histogram's buckets, in milliseconds. Triton's own defaults are among them.
pub(crate) const BOUNDS_MS: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 500, 2000, 5000];

/// Name and version of a model.
pub(crate) type Key = (String, String);

/// Numbers of all models. Models that no server has proven to have are counted together, without a name: who asks for
/// names that do not exist makes nothing grow.
#[derive(Debug, Default)]
pub(crate) struct Stats(RwLock<BTreeMap<Key, Arc<Counts>>>);

/// Numbers of one model.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) success: Total,
    pub(crate) fail: Total,
    pub(crate) pending: AtomicU64,
    /// Milliseconds of Unix time; 0 before the first.
    pub(crate) last_ms: AtomicU64,
    pub(crate) buckets: [AtomicU64; BOUNDS_MS.len()],
}

/// How many requests, and how long all of them took.
#[derive(Debug, Default)]
pub(crate) struct Total {
    pub(crate) count: AtomicU64,
    pub(crate) ns: AtomicU64,
}

/// A request under way.
pub(crate) struct Running {
    counts: Arc<Counts>,
    since: Instant,
    succeeded: bool,
}

impl Stats {
    pub(crate) fn of(&self, key: &Key) -> Arc<Counts> {
        if let Some(counts) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Arc::clone(counts);
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(key.clone()).or_default())
    }

    pub(crate) fn begin(&self, key: &Key) -> Running {
        let counts = self.of(key);
        counts.pending.fetch_add(1, Relaxed);
        Running { counts, since: Instant::now(), succeeded: false }
    }

    pub(crate) fn all(&self) -> Vec<(Key, Arc<Counts>)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(key, counts)| (key.clone(), Arc::clone(counts))).collect()
    }
}

impl Running {
    /// The request was answered, and not with an error.
    pub(crate) fn succeeded(mut self) {
        self.succeeded = true;
    }
}

impl Drop for Running {
    /// Counted as failed unless it succeeded: the program may have hung up.
    fn drop(&mut self) {
        let took = self.since.elapsed();
        self.counts.pending.fetch_sub(1, Relaxed);
        if !self.succeeded {
            self.counts.fail.add(took);
            return;
        }
        self.counts.success.add(took);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.counts.last_ms.store(u64::try_from(now.as_millis()).unwrap_or(0), Relaxed);
        let fits = |bound: &u64| took <= Duration::from_millis(*bound);
        let bucket = BOUNDS_MS.iter().position(fits).and_then(|place| self.counts.buckets.get(place));
        if let Some(bucket) = bucket {
            bucket.fetch_add(1, Relaxed);
        }
    }
}

impl Total {
    fn add(&self, took: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.ns.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn get(&self) -> (u64, u64) {
        (self.count.load(Relaxed), self.ns.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_counts_as_failed_and_leaves_nothing_pending() {
        let stats = Stats::default();
        let key = ("m".to_owned(), "1".to_owned());
        drop(stats.begin(&key));
        stats.begin(&key).succeeded();
        let counts = stats.of(&key);
        assert_eq!((counts.success.get().0, counts.fail.get().0), (1, 1));
        assert_eq!(counts.pending.load(Relaxed), 0);
        assert!(counts.last_ms.load(Relaxed) > 0);
        assert_eq!(stats.all().len(), 1);
    }
}
