//! When to fetch: before expiry, and again after a failure.

use std::time::Duration;

use confonnx_attest::UnixTime;

use super::Kept;
use crate::clock;

/// All times of fetching; tests have shorter ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The time of day.
    pub(super) now: fn() -> UnixTime,
    /// The time for a whole answer.
    pub(super) timeout: Duration,
    /// The pause after the first failure; it doubles with each further one.
    pub(super) first_retry: Duration,
    /// The longest pause: after many failures, and when the service asks for patience.
    pub(super) longest_retry: Duration,
    /// However long an answer is valid. Vendors publish news long before what they replace expires.
    pub(super) longest_refresh: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            now: clock::now,
            timeout: Duration::from_secs(20),
            first_retry: Duration::from_secs(1),
            longest_retry: Duration::from_secs(600),
            longest_refresh: Duration::from_secs(24 * 3600),
        }
    }
}

impl Pace {
    /// How long from `now` until `kept` is fetched anew: when half of its life is over, at the latest.
    pub(super) fn refresh(&self, kept: &Kept, now: UnixTime) -> Duration {
        let life = kept.expires.map_or(u64::MAX, |expires| expires.0.saturating_sub(kept.fetched.0));
        let interval = self.longest_refresh.min(Duration::from_secs(life / 2)).max(self.first_retry);
        // An answer from the future is from a clock that was wrong.
        let age = now.0.checked_sub(kept.fetched.0).map_or(interval, Duration::from_secs);
        jittered(interval, 0.9).saturating_sub(age)
    }

    /// How long after the `failures`th failure in a row to try again.
    pub(super) fn retry(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let backoff = jittered(self.first_retry.saturating_mul(doubled).min(self.longest_retry), 0.5);
        // An unauthenticated header asked for the pause, so it is bounded.
        asked.map_or(backoff, |asked| backoff.max(asked.min(self.longest_retry)))
    }
}

/// A random time from `least` times `duration` to all of it, so that replicas do not ask in step.
fn jittered(duration: Duration, least: f64) -> Duration {
    let mut random = [0; 2];
    // Without randomness it is the whole time.
    let random = getrandom::fill(&mut random)
        .map_or(1.0, |()| f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX));
    duration.mul_f64(least + (1.0 - least) * random)
}

#[cfg(test)]
mod tests {
    use confonnx_attest::collateral::Answer;

    use super::*;

    const HOUR: u64 = 3600;

    fn kept(fetched: u64, expires: Option<u64>) -> Kept {
        let answer = Answer { headers: Vec::new(), body: Vec::new() };
        Kept { answer, fetched: UnixTime(fetched), expires: expires.map(UnixTime) }
    }

    fn between(found: Duration, least: u64, most: u64) {
        assert!((Duration::from_secs(least)..=Duration::from_secs(most)).contains(&found), "{found:?}");
    }

    #[test]
    fn answers_are_renewed_at_half_of_their_life_and_once_a_day() {
        let (pace, now) = (Pace::default(), 1_795_000_000);
        let refresh = |kept: Kept| pace.refresh(&kept, UnixTime(now));
        between(refresh(kept(now, None)), 24 * HOUR * 9 / 10, 24 * HOUR);
        between(refresh(kept(now, Some(now + 30 * 24 * HOUR))), 24 * HOUR * 9 / 10, 24 * HOUR);
        between(refresh(kept(now, Some(now + 2 * HOUR))), HOUR * 9 / 10, HOUR);
        // The answer was kept over a restart: its age counts.
        between(refresh(kept(now - 12 * HOUR, None)), 9 * HOUR, 12 * HOUR);
        for overdue in [kept(now - 24 * HOUR, None), kept(now - HOUR, Some(now - 1)), kept(now + 1, None)] {
            assert_eq!(refresh(overdue.clone()), Duration::ZERO, "{overdue:?}");
        }
    }

    #[test]
    fn failures_double_the_wait_up_to_a_bound_which_holds_for_the_service_too() {
        let pace = Pace::default();
        for (failures, longest) in [(1, 1), (2, 2), (5, 16), (11, 600), (u32::MAX, 600)] {
            between(pace.retry(failures, None) * 2, longest, 2 * longest);
        }
        between(pace.retry(1, Some(Duration::from_secs(30))), 30, 30);
        between(pace.retry(1, Some(Duration::from_secs(86_400))), 600, 600);
        between(pace.retry(20, Some(Duration::ZERO)), 300, 600);
    }
}
