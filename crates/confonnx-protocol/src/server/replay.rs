//! Which encapsulated keys were seen.

use std::collections::{HashSet, VecDeque};

use confonnx_attest::UnixTime;
use sha2::{Digest, Sha256};

/// Stands for an encapsulated key: the first 16 octets of its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Token([u8; 16]);

impl Token {
    pub(super) fn of(encapsulated: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(encapsulated).into();
        let (first, _) = digest.split_first_chunk().expect("16 octets are in 32");
        Self(*first)
    }
}

/// Why a token was not admitted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Seen,
    Full,
}

/// Remembers tokens in time buckets, as many as its capacity.
///
/// A request taken at `t` may have any `date` up to `t + window`, with which it would be in time until
/// `t + 2 × window`. So that is how long its token stays; until then nothing makes it go.
pub(super) struct ReplayTable {
    /// Oldest first.
    buckets: VecDeque<Bucket>,
    len: usize,
    capacity: usize,
    keep: u64,
    bucket_width: u64,
}

struct Bucket {
    first: u64,
    newest: u64,
    tokens: HashSet<Token>,
}

impl ReplayTable {
    /// `window` in seconds; `capacity` in tokens.
    pub(super) fn new(window: u64, capacity: usize) -> Self {
        Self {
            buckets: VecDeque::new(),
            len: 0,
            capacity,
            keep: window.saturating_mul(2),
            bucket_width: (window / 4).max(1),
        }
    }

    /// Whether `token` would be admitted. `now` must never decrease from call to call.
    pub(super) fn check(&mut self, token: &Token, now: UnixTime) -> Result<(), Refusal> {
        self.forget(now);
        if self.buckets.iter().any(|bucket| bucket.tokens.contains(token)) {
            Err(Refusal::Seen)
        } else if self.len >= self.capacity {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    /// Admits `token` once.
    pub(super) fn admit(&mut self, token: Token, now: UnixTime) -> Result<(), Refusal> {
        self.check(&token, now)?;
        let fits = |bucket: &&mut Bucket| now.0.saturating_sub(bucket.first) < self.bucket_width;
        match self.buckets.back_mut().filter(fits) {
            Some(bucket) => {
                bucket.newest = bucket.newest.max(now.0);
                bucket.tokens.insert(token);
            }
            None => {
                let tokens = HashSet::from([token]);
                self.buckets.push_back(Bucket { first: now.0, newest: now.0, tokens });
            }
        }
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    fn forget(&mut self, now: UnixTime) {
        let keep = self.keep;
        while let Some(bucket) =
            self.buckets.pop_front_if(|bucket| now.0 > bucket.newest.saturating_add(keep))
        {
            self.len = self.len.saturating_sub(bucket.tokens.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 300;

    fn token(n: u64) -> Token {
        Token::of(&n.to_be_bytes())
    }

    #[test]
    fn a_token_stays_as_long_as_a_date_valid_with_it_could_be_accepted() {
        let mut table = ReplayTable::new(WINDOW, 10);
        let taken = UnixTime(1_000);
        assert_eq!(table.admit(token(1), taken), Ok(()));
        // Taken with the latest date allowed, the request is in time for the last time here.
        let last = UnixTime(taken.0 + 2 * WINDOW);
        assert_eq!(table.check(&token(1), last), Err(Refusal::Seen));
        assert_eq!(table.check(&token(1), UnixTime(last.0 + 1)), Ok(()));
    }

    #[test]
    fn a_late_token_of_a_bucket_is_kept_as_long_as_an_early_one() {
        let mut table = ReplayTable::new(WINDOW, 10);
        assert_eq!(table.admit(token(1), UnixTime(1_000)), Ok(()));
        assert_eq!(table.admit(token(2), UnixTime(1_050)), Ok(()));
        assert_eq!(table.check(&token(2), UnixTime(1_050 + 2 * WINDOW)), Err(Refusal::Seen));
    }

    #[test]
    fn a_full_table_refuses_and_forgets_nothing() {
        let mut table = ReplayTable::new(WINDOW, 2);
        for n in 0..2 {
            assert_eq!(table.admit(token(n), UnixTime(1_000)), Ok(()));
        }
        assert_eq!(table.admit(token(2), UnixTime(1_600)), Err(Refusal::Full));
        assert_eq!(table.admit(token(0), UnixTime(1_600)), Err(Refusal::Seen));
        assert_eq!(table.admit(token(2), UnixTime(1_601)), Ok(()));
        assert_eq!(table.len, 1);
    }
}
