//! Requests per minute and caller: a token bucket, kept as the time at which it will be full again.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::Refused;
use crate::clock::Later;

/// How often a caller may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// In the long run.
    pub(super) per_minute: NonZeroU32,
    /// At once, after a pause.
    pub(super) burst: NonZeroU32,
}

/// Counts requests by caller; holds at most so many callers.
pub(super) struct Limiter {
    capacity: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// When the caller's bucket is full again.
    full: HashMap<Arc<str>, Instant>,
    /// When those that are full were last looked for.
    swept: Option<Instant>,
}

impl Rate {
    /// Time for one request's place to come back.
    fn interval(self) -> Duration {
        MINUTE.checked_div(self.per_minute.get()).unwrap_or(MINUTE)
    }

    /// How far ahead of now the bucket may be promised full, and one more be taken.
    fn slack(self) -> Duration {
        self.interval().saturating_mul(self.burst.get() - 1)
    }
}

impl Limiter {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, table: Mutex::default() }
    }

    /// Counts a request of `name` at `now`, which never runs backwards.
    pub(super) fn admit(&self, name: &Arc<str>, rate: Rate, now: Instant) -> Result<(), Refused> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let full = match table.full.get(name) {
            Some(full) => (*full).max(now),
            None => {
                self.make_room(&mut table, now)?;
                now
            }
        };
        let ahead = full.saturating_duration_since(now);
        if ahead > rate.slack() {
            let retry_after = ahead.saturating_sub(rate.slack());
            return Err(Refused::RateLimited { per_minute: rate.per_minute.get(), retry_after });
        }
        table.full.insert(Arc::clone(name), full.later(rate.interval()));
        Ok(())
    }

    /// Forgets full buckets, which says nothing about their callers; when all are in use, refuses rather than forgets.
    fn make_room(&self, table: &mut Table, now: Instant) -> Result<(), Refused> {
        if table.full.len() < self.capacity {
            return Ok(());
        }
        // Once a second: whoever brings ever new names must not make every request walk the table.
        if table.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            table.full.retain(|_, full| *full > now);
            table.swept = Some(now);
        }
        if table.full.len() < self.capacity { Ok(()) } else { Err(Refused::Crowded { retry_after: SWEEP }) }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const SWEEP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_minute: u32, burst: u32) -> Rate {
        Rate { per_minute: NonZeroU32::new(per_minute).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    fn name(text: &str) -> Arc<str> {
        text.into()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let (limiter, alice, start) = (Limiter::new(9), name("alice"), Instant::now());
        let at = |ms| limiter.admit(&alice, rate(60, 3), start + Duration::from_millis(ms));
        for _ in 0..3 {
            at(0).unwrap();
        }
        let Err(Refused::RateLimited { per_minute: 60, retry_after }) = at(0) else { panic!() };
        assert_eq!(retry_after, Duration::from_secs(1));
        at(999).unwrap_err();
        at(1000).unwrap();
        at(1500).unwrap_err();
        // A long pause is worth one burst, no more.
        for _ in 0..3 {
            at(1_000_000).unwrap();
        }
        at(1_000_000).unwrap_err();
        // Another's requests count for themselves.
        limiter.admit(&name("bob"), rate(60, 1), start + Duration::from_secs(1000)).unwrap();
    }

    #[test]
    fn when_all_places_are_in_use_new_callers_wait() {
        let (limiter, start) = (Limiter::new(2), Instant::now());
        let at = |who: &str, s| limiter.admit(&name(who), rate(1, 1), start + Duration::from_secs(s));
        at("a", 0).unwrap();
        at("b", 30).unwrap();
        assert!(matches!(at("c", 40), Err(Refused::Crowded { .. })));
        // Those that are there are still counted, not forgotten.
        assert!(matches!(at("a", 40), Err(Refused::RateLimited { .. })));
        // The first has its whole bucket back: forgetting it changes nothing.
        at("c", 61).unwrap();
        assert!(matches!(at("a", 62), Err(Refused::Crowded { .. })));
    }
}
