//! What is stapled to attestation documents.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use confonnx_attest::{UnixTime, collateral::Vendor};

use super::Family;

/// Counters and gauges of collateral.
#[derive(Debug, Default)]
pub struct CollateralMetrics(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    fetches: BTreeMap<&'static str, u64>,
    failures: BTreeMap<(&'static str, &'static str), u64>,
    state: CollateralState,
}

/// The collateral that is at hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollateralState {
    /// Answers that this TEE's evidence needs.
    pub needed: usize,
    /// How many of these are missing, so that documents go out without, or were stapled although they had expired when
    /// that was last looked at.
    pub missing: usize,
    /// How many of these are in use since before a refresh failed.
    pub stale: usize,
    /// When the oldest of these was fetched.
    pub fetched: Option<UnixTime>,
    /// When the first of these expires.
    pub expires: Option<UnixTime>,
}

impl CollateralMetrics {
    /// Counts an attempt.
    pub fn fetch(&self, vendor: Vendor) {
        let mut inner = self.inner();
        let count = inner.fetches.entry(vendor.name()).or_default();
        *count = count.saturating_add(1);
    }

    /// Counts an attempt whose answer is not used.
    pub fn failure(&self, vendor: Vendor, reason: &'static str) {
        let mut inner = self.inner();
        let count = inner.failures.entry((vendor.name(), reason)).or_default();
        *count = count.saturating_add(1);
    }

    /// Notes which collateral is at hand from now on.
    pub fn set(&self, state: CollateralState) {
        self.inner().state = state;
    }

    /// The collateral that is at hand.
    pub fn state(&self) -> CollateralState {
        self.inner().state
    }

    /// Failed attempts for `reason`.
    pub fn failures(&self, reason: &str) -> u64 {
        self.inner().failures.iter().filter(|((_, label), _)| *label == reason).map(|(_, count)| count).sum()
    }

    pub(super) fn samples(&self) -> Vec<Family> {
        let inner = self.inner();
        let fetches =
            inner.fetches.iter().map(|(vendor, n)| (format!("{{vendor=\"{vendor}\"}}"), n.to_string()));
        let failures = inner.failures.iter().map(|((vendor, reason), n)| {
            (format!("{{vendor=\"{vendor}\",reason=\"{reason}\"}}"), n.to_string())
        });
        let gauge = |value: usize| vec![(String::new(), value.to_string())];
        let time = |time: Option<UnixTime>| time.map(|time| (String::new(), time.0.to_string())).into_iter();
        let CollateralState { needed, missing, stale, fetched, expires } = inner.state;
        vec![
            (
                "collateral_fetches_total",
                "counter",
                "Requests to the TEE vendor's service.",
                fetches.collect(),
            ),
            (
                "collateral_failures_total",
                "counter",
                "Requests to the TEE vendor's service without a usable answer.",
                failures.collect(),
            ),
            ("collateral_needed", "gauge", "Answers that evidence needs.", gauge(needed)),
            (
                "collateral_missing",
                "gauge",
                "Needed answers that are absent or expired: clients may refuse documents as undecided.",
                gauge(missing),
            ),
            (
                "collateral_stale",
                "gauge",
                "Needed answers whose refresh failed: the last good ones are in use.",
                gauge(stale),
            ),
            (
                "collateral_fetched_timestamp_seconds",
                "gauge",
                "When the oldest answer in use was fetched.",
                time(fetched).collect(),
            ),
            (
                "collateral_expiry_timestamp_seconds",
                "gauge",
                "When the first answer in use expires.",
                time(expires).collect(),
            ),
        ]
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
