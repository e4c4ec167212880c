//! How long a model takes.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// How long runs of a model took of late, in µs.
#[derive(Debug)]
pub(crate) struct Recent(AtomicU64);

impl Default for Recent {
    /// A model that never ran is not brief.
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Recent {
    /// Remembers a run: at once if it took longer than what is remembered, which else fades, so that a few long ones among
    /// many keep the model from being brief.
    pub(crate) fn record(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let before = self.0.load(Relaxed);
        let faded = if before == u64::MAX { 0 } else { before.saturating_sub(before / 4) };
        self.0.store(micros.max(faded), Relaxed);
    }

    /// Whether the next run is likely to take no more than 500 µs.
    pub(crate) fn is_brief(&self) -> bool {
        self.0.load(Relaxed) <= BRIEF_MICROS
    }
}

/// A run that takes no longer than this gains little by more threads, which are in the way of everyone else; and by a
/// thread of its own, which has to be woken up.
const BRIEF_MICROS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_run_outweighs_some_brief_ones() {
        let recent = Recent::default();
        assert!(!recent.is_brief(), "nobody knows yet");
        recent.record(Duration::from_micros(100));
        assert!(recent.is_brief());
        recent.record(Duration::from_millis(2));
        for _ in 0..4 {
            assert!(!recent.is_brief());
            recent.record(Duration::from_micros(100));
        }
        recent.record(Duration::from_micros(100));
        assert!(recent.is_brief());
    }
}
