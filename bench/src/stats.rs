//! Medians and spreads: what a shared machine disturbs least.

use std::time::Duration;

use serde::Serialize;

/// The median of some rounds, with the least and the most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// The spread of these values, all zeros if there is none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let values = sorted(values);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self { median: 0.0, min: 0.0, max: 0.0 };
        };
        Self { median: middle(&values), min, max }
    }
}

/// The middle value, or the mean of the middle two; 0 of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    middle(&sorted(values))
}

/// The least value that at least `percent` of the values do not exceed (nearest rank); 0 of none.
pub(crate) fn percentile(values: impl IntoIterator<Item = f64>, percent: u32) -> f64 {
    let values = sorted(values);
    let rank = (values.len() * percent as usize).div_ceil(100);
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// The most of the ascending `times` that lie within any `length`.
pub(crate) fn window(times: &[Duration], length: Duration) -> usize {
    let within =
        |start: usize| times[start..].iter().take_while(|time| **time - times[start] < length).count();
    (0..times.len()).map(within).max().unwrap_or_default()
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn middle(sorted: &[f64]) -> f64 {
    match sorted {
        [] => 0.0,
        [.., _] if sorted.len() % 2 == 1 => sorted[sorted.len() / 2],
        _ => f64::midpoint(sorted[sorted.len() / 2 - 1], sorted[sorted.len() / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_in_any_order() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median([7.0]), 7.0);
        assert_eq!(median([]), 0.0);
        // One disturbed round does not move the median far.
        assert_eq!(median([10.0, 11.0, 12.0, 13.0, 9_000.0]), 12.0);
    }

    #[test]
    fn percentile_is_the_nearest_rank() {
        let hundred = || (1..=100).rev().map(f64::from);
        assert_eq!(percentile(hundred(), 50), 50.0);
        assert_eq!(percentile(hundred(), 99), 99.0);
        assert_eq!(percentile(hundred(), 100), 100.0);
        assert_eq!(percentile([1.0, 2.0, 3.0], 50), 2.0);
        assert_eq!(percentile([1.0, 2.0], 99), 2.0);
        assert_eq!(percentile([5.0], 1), 5.0);
        assert_eq!(percentile([5.0, 6.0], 0), 5.0);
        assert_eq!(percentile([], 99), 0.0);
    }

    #[test]
    fn spread_has_both_ends() {
        assert_eq!(Spread::of([2.0, 9.0, 1.0]), Spread { median: 2.0, min: 1.0, max: 9.0 });
        assert_eq!(Spread::of([]), Spread { median: 0.0, min: 0.0, max: 0.0 });
    }

    #[test]
    fn the_busiest_window_counts() {
        let times: Vec<_> = [0, 900, 1000, 1100, 1899, 5000].map(Duration::from_millis).into();
        assert_eq!(window(&times, Duration::from_secs(1)), 4);
        assert_eq!(window(&times, Duration::from_millis(100)), 1);
        assert_eq!(window(&[], Duration::from_secs(1)), 0);
    }
}
