//! So much per minute and caller, of requests or tokens: a bucket, kept as the time at which it will be full again.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::clock::Later;

/// How much a caller may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// How many in the long run.
    pub(super) per_minute: NonZeroU32,
    /// How many at once, after a pause.
    pub(super) burst: NonZeroU32,
}

/// Why nothing was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// More is asked for than can ever be had at once.
    Never,
    /// More is asked for than there is now.
    For {
        /// When there will be enough.
        retry_after: Duration,
    },
    /// More callers have a rate to be kept than there is room for.
    Crowded {
        /// When there may be room.
        retry_after: Duration,
    },
}

/// Counts by caller; holds at most so many callers.
pub(super) struct Limiter {
    capacity: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// When the caller's bucket is full again.
    full: HashMap<Arc<str>, Instant>,
    /// When buckets that are full were last looked for.
    swept: Option<Instant>,
}

impl Rate {
    /// Time in which `amount` comes back.
    fn time_of(self, amount: u32) -> Duration {
        let nanos = MINUTE.as_nanos().saturating_mul(u128::from(amount));
        let nanos = nanos.checked_div(u128::from(self.per_minute.get())).unwrap_or(u128::MAX);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Limiter {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, table: Mutex::default() }
    }

    /// Counts `amount` for `name` at `now`, which never runs backwards.
    ///
    /// # Errors
    /// [`Full`]: nothing was counted.
    pub(super) fn take(&self, name: &Arc<str>, rate: Rate, amount: u32, now: Instant) -> Result<(), Full> {
        if amount > rate.burst.get() {
            return Err(Full::Never);
        }
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let full = match table.full.get(name) {
            Some(full) => (*full).max(now),
            None => {
                self.make_room(&mut table, now)?;
                now
            }
        };
        let ahead = full.saturating_duration_since(now).saturating_add(rate.time_of(amount));
        if let Some(retry_after) =
            ahead.checked_sub(rate.time_of(rate.burst.get())).filter(|wait| !wait.is_zero())
        {
            return Err(Full::For { retry_after });
        }
        table.full.insert(Arc::clone(name), full.later(rate.time_of(amount)));
        Ok(())
    }

    /// Gives back what was counted and not needed.
    pub(super) fn give_back(&self, name: &Arc<str>, rate: Rate, amount: u32) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full) = table.full.get_mut(name)
            && let Some(sooner) = full.checked_sub(rate.time_of(amount))
        {
            *full = sooner;
        }
    }

    /// Forgets full buckets, which says nothing about their callers; when all are in use, refuses rather than forgets.
    fn make_room(&self, table: &mut Table, now: Instant) -> Result<(), Full> {
        if table.full.len() < self.capacity {
            return Ok(());
        }
        // The table is swept once a second: whoever brings ever new names must not make every request walk it.
        if table.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            table.full.retain(|_, full| *full > now);
            table.swept = Some(now);
        }
        if table.full.len() < self.capacity { Ok(()) } else { Err(Full::Crowded { retry_after: SWEEP }) }
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
        let at = |ms| limiter.take(&alice, rate(60, 3), 1, start + Duration::from_millis(ms));
        for _ in 0..3 {
            at(0).unwrap();
        }
        assert_eq!(at(0), Err(Full::For { retry_after: Duration::from_secs(1) }));
        at(999).unwrap_err();
        at(1000).unwrap();
        at(1500).unwrap_err();
        // A long pause is worth one burst, no more.
        for _ in 0..3 {
            at(1_000_000).unwrap();
        }
        at(1_000_000).unwrap_err();
        // Another caller's requests count for themselves.
        limiter.take(&name("bob"), rate(60, 1), 1, start + Duration::from_secs(1000)).unwrap();
    }

    #[test]
    fn what_costs_more_takes_more_and_is_given_back() {
        let (limiter, alice, start) = (Limiter::new(9), name("alice"), Instant::now());
        let take = |amount, s| limiter.take(&alice, rate(600, 600), amount, start + Duration::from_secs(s));
        assert_eq!(take(601, 0), Err(Full::Never));
        take(500, 0).unwrap();
        assert_eq!(take(200, 0), Err(Full::For { retry_after: Duration::from_secs(10) }));
        limiter.give_back(&alice, rate(600, 600), 400);
        take(500, 0).unwrap();
        assert_eq!(take(1, 0), Err(Full::For { retry_after: Duration::from_millis(100) }));
        take(600, 60).unwrap();
    }

    #[test]
    fn when_all_places_are_in_use_new_callers_wait() {
        let (limiter, start) = (Limiter::new(2), Instant::now());
        let at = |who: &str, s| limiter.take(&name(who), rate(1, 1), 1, start + Duration::from_secs(s));
        at("a", 0).unwrap();
        at("b", 30).unwrap();
        assert!(matches!(at("c", 40), Err(Full::Crowded { .. })));
        // Callers that are there are still counted, not forgotten.
        assert!(matches!(at("a", 40), Err(Full::For { .. })));
        // The first has its whole bucket back: forgetting it changes nothing.
        at("c", 61).unwrap();
        assert!(matches!(at("a", 62), Err(Full::Crowded { .. })));
    }
}
