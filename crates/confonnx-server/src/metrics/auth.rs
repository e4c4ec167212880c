//! Who calls, and what is known of them.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::Family;

/// Counters and gauges of authentication and its log.
#[derive(Debug, Default)]
pub struct AuthMetrics {
    keys: Mutex<Option<JwksState>>,
    /// Lines that the audit log has not, because it was written too slowly.
    pub audit_dropped: AtomicU64,
    /// Lines that could not be written.
    pub audit_failures: AtomicU64,
}

/// The issuer's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JwksState {
    /// Keys at hand that can verify.
    pub keys: usize,
    /// Fetches in a row that failed: with some, the keys are old.
    pub failures: u32,
}

impl AuthMetrics {
    /// Notes which keys are at hand from now on.
    pub fn set_keys(&self, state: JwksState) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// The keys that are at hand, if any are fetched at all.
    pub fn keys(&self) -> Option<JwksState> {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn samples(&self) -> Vec<Family> {
        let plain = |value: String| vec![(String::new(), value)];
        let keys = self.keys();
        let gauge = |value: Option<String>| value.map(plain).unwrap_or_default();
        vec![
            (
                "issuer_keys",
                "gauge",
                "Keys of the issuer that can verify JWTs.",
                gauge(keys.map(|state| state.keys.to_string())),
            ),
            (
                "issuer_key_failures",
                "gauge",
                "Fetches of the issuer's keys in a row that failed: the last good ones are in use.",
                gauge(keys.map(|state| state.failures.to_string())),
            ),
            (
                "audit_dropped_total",
                "counter",
                "Requests missing from the audit log because it is written too slowly.",
                plain(self.audit_dropped.load(Relaxed).to_string()),
            ),
            (
                "audit_failures_total",
                "counter",
                "Lines that could not be written to the audit log.",
                plain(self.audit_failures.load(Relaxed).to_string()),
            ),
        ]
    }
}
