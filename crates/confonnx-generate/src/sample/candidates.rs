//! Tokens that may come next, with their weights.

use std::cmp::Ordering;

/// Tokens with the weights that their logits give them; the most likely has 1.
pub(super) struct Candidates {
    tokens: Vec<(u32, f64)>,
    /// How many of the first candidates are in order, from the most likely on.
    ordered: usize,
}

impl Candidates {
    /// The candidates of `logits`, of which the token `most` has the highest.
    pub(super) fn new(logits: &[f32], most: u32, temperature: f32) -> Self {
        let highest =
            usize::try_from(most).ok().and_then(|most| logits.get(most)).copied().unwrap_or_default();
        // A logit may be infinite: it is then all there is.
        let weight = |logit: f32| match logit {
            logit if logit == highest => 1.0,
            logit if logit.is_nan() => 0.0,
            logit => ((f64::from(logit) - f64::from(highest)) / f64::from(temperature)).exp(),
        };
        let tokens = (0_u32..).zip(logits).map(|(token, logit)| (token, weight(*logit)));
        Self { tokens: tokens.filter(|(_, weight)| *weight > 0.0).collect(), ordered: 0 }
    }

    /// Keeps the `count` most likely.
    pub(super) fn keep(&mut self, count: usize) {
        self.order(count);
        self.tokens.truncate(count);
    }

    /// Keeps the fewest of the most likely that have at least the fraction `mass` together; one at least.
    pub(super) fn keep_mass(&mut self, mass: f64) {
        let wanted = mass * self.sum();
        let mut count = FIRST;
        loop {
            self.order(count);
            let mut sum = 0.0;
            let ordered = self.tokens.iter().take(self.ordered);
            let reached = ordered.map(|(_, weight)| {
                sum += weight;
                sum
            });
            if let Some(last) = reached.into_iter().position(|sum| sum >= wanted) {
                return self.tokens.truncate(last.saturating_add(1));
            }
            if self.ordered >= self.tokens.len() {
                return;
            }
            count = count.saturating_mul(8);
        }
    }

    /// Keeps those that are at least `fraction` as likely as the most likely.
    pub(super) fn keep_above(&mut self, fraction: f64) {
        self.tokens.retain(|(_, weight)| *weight >= fraction);
        self.ordered = self.ordered.min(self.tokens.len());
    }

    /// The token at `fraction` of the whole weight.
    pub(super) fn at(&self, fraction: f64) -> Option<u32> {
        let mut left = fraction * self.sum();
        for (token, weight) in &self.tokens {
            left -= weight;
            if left < 0.0 {
                return Some(*token);
            }
        }
        self.tokens.last().map(|(token, _)| *token)
    }

    fn sum(&self) -> f64 {
        self.tokens.iter().map(|(_, weight)| weight).sum()
    }

    /// Puts the `count` most likely first, in order.
    fn order(&mut self, count: usize) {
        let count = count.min(self.tokens.len());
        if count <= self.ordered {
            return;
        }
        if count < self.tokens.len() {
            self.tokens.select_nth_unstable_by(count, more_likely);
        }
        if let Some(first) = self.tokens.get_mut(..count) {
            first.sort_unstable_by(more_likely);
        }
        self.ordered = count;
    }
}

/// Puts more weight first; of equal weight, the lower number: sorting depends on nothing else.
fn more_likely(one: &(u32, f64), other: &(u32, f64)) -> Ordering {
    other.1.total_cmp(&one.1).then(one.0.cmp(&other.0))
}

/// The token with the highest logit; of equal ones the first.
pub(super) fn best(logits: &[f32]) -> Option<u32> {
    // Highest ones of several rows of logits beside each other: a processor compares as many at once. Nothing that is no
    // number is higher than anything.
    let mut highest = [f32::NEG_INFINITY; BESIDE];
    let (rows, rest) = logits.as_chunks::<BESIDE>();
    for row in rows {
        for (highest, logit) in highest.iter_mut().zip(row) {
            *highest = if *logit > *highest { *logit } else { *highest };
        }
    }
    let highest = highest.iter().chain(rest).fold(f32::NEG_INFINITY, |highest, logit| highest.max(*logit));
    let best = (0_u32..).zip(logits).find(|(_, logit)| **logit == highest && **logit > f32::NEG_INFINITY);
    best.map(|(token, _)| token)
}

/// The `count` tokens with the highest logits, highest first.
pub(super) fn most(logits: &[f32], count: usize) -> Vec<u32> {
    let weights = (0_u32..).zip(logits).filter(|(_, logit)| !logit.is_nan());
    let mut all =
        Candidates { tokens: weights.map(|(token, logit)| (token, f64::from(*logit))).collect(), ordered: 0 };
    all.keep(count);
    all.tokens.into_iter().map(|(token, _)| token).collect()
}

/// The logarithm of the sum of the exponentials.
pub(super) fn log_sum(logits: &[f32]) -> f64 {
    let numbers = || logits.iter().map(|logit| f64::from(*logit)).filter(|logit| !logit.is_nan());
    let highest = numbers().fold(f64::NEG_INFINITY, f64::max);
    highest + numbers().map(|logit| (logit - highest).exp()).sum::<f64>().ln()
}

/// How many logits are compared at once.
const BESIDE: usize = 16;
/// How many tokens mostly have most of the weight together.
const FIRST: usize = 64;
