//! The host's clock, which is all there is inside a TEE; whoever relies on it guards against it running backwards.

#[cfg(feature = "insecure-dev")]
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use confonnx_attest::UnixTime;

/// Now; never before this program was written, whatever the host says.
pub fn now() -> UnixTime {
    at(host())
}

#[cfg(not(feature = "insecure-dev"))]
fn host() -> SystemTime {
    SystemTime::now()
}

#[cfg(feature = "insecure-dev")]
fn host() -> SystemTime {
    let ahead = Duration::from_secs(AHEAD.load(Ordering::Relaxed).into());
    SystemTime::now().checked_add(ahead).unwrap_or(UNIX_EPOCH)
}

/// From now on the host's clock is `seconds` ahead, as by a host that sets it. For development only, and for tests.
#[cfg(feature = "insecure-dev")]
pub fn set_ahead(seconds: u32) {
    AHEAD.store(seconds, Ordering::Relaxed);
}

#[cfg(feature = "insecure-dev")]
static AHEAD: AtomicU32 = AtomicU32::new(0);

fn at(time: SystemTime) -> UnixTime {
    UnixTime(time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())).max(WRITTEN)
}

/// When this program was written (`build.rs`).
const WRITTEN: UnixTime = UnixTime(seconds(env!("CONFONNX_WRITTEN").as_bytes()));

/// A decimal number, at compile time, where too large a one is an error.
#[expect(clippy::arithmetic_side_effects, reason = "evaluated by the compiler")]
const fn seconds(mut digits: &[u8]) -> u64 {
    let mut seconds = 0;
    while let [digit, rest @ ..] = digits {
        seconds = seconds * 10 + digit.saturating_sub(b'0') as u64;
        digits = rest;
    }
    seconds
}

/// Instants that do not overflow, whatever a setting says.
pub trait Later: Sized {
    /// The instant `length` after this one; a decade after it, if clocks do not reach that far.
    #[must_use]
    fn later(self, length: Duration) -> Self;
}

macro_rules! later {
    ($($instant:ty),*) => {$(
        impl Later for $instant {
            fn later(self, length: Duration) -> Self {
                self.checked_add(length).or_else(|| self.checked_add(DECADE)).unwrap_or(self)
            }
        }
    )*};
}

later!(std::time::Instant, tokio::time::Instant);

const DECADE: Duration = Duration::from_hours(24 * 3650);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_do_not_overflow() {
        let now = std::time::Instant::now();
        assert_eq!(now.later(Duration::from_secs(1)).duration_since(now).as_secs(), 1);
        assert!(now.later(Duration::MAX) > now.later(Duration::from_secs(1 << 25)));
    }

    /// Keys that a service releases are of a calendar: with the clock turned back, those of yesterday would be made again.
    #[test]
    fn the_host_cannot_turn_the_clock_back_before_the_program() {
        let at = |seconds| at(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), WRITTEN);
        assert_eq!(WRITTEN.0.to_string(), env!("CONFONNX_WRITTEN"));
        // 26 November 2026: no builder can say that it was earlier.
        const { assert!(WRITTEN.0 >= 1_795_651_200) };
        assert_eq!(at(WRITTEN.0 - 1), WRITTEN);
        assert_eq!(at(WRITTEN.0 + 1), UnixTime(WRITTEN.0 + 1));
    }
}
