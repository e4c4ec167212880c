//! Which encapsulated keys were seen.

mod set;

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use confonnx_attest::UnixTime;

use self::set::Set;

/// Stands for an encapsulated key: a hash of 64 bits under a key of this process.
///
/// Two have the same one by chance, and the second request is then refused: with n remembered, one in 2⁶⁴/n, which is one
/// in 2⁴⁰ with the 2²⁴ that are by default. Nobody can bring that about for another's request, nor make a replay
/// look new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(u64);

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
///
/// The keys in shards by token, so that threads rarely wait for each other, and never for a large set to grow.
pub(super) struct ReplayTable {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    len: AtomicUsize,
    capacity: usize,
    keep: u64,
    bucket_width: u64,
    /// When all shards last forgot because the table was full.
    swept: AtomicU64,
}

/// Buckets, oldest first.
#[derive(Default)]
struct Shard(VecDeque<Bucket>);

struct Bucket {
    first: u64,
    newest: u64,
    tokens: Set,
}

impl ReplayTable {
    /// `window` in seconds; `capacity` in tokens.
    pub(super) fn new(window: u64, capacity: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            len: AtomicUsize::new(0),
            capacity,
            keep: window.saturating_mul(2),
            bucket_width: (window / 4).max(1),
            swept: AtomicU64::new(0),
        }
    }

    pub(super) fn token(&self, encapsulated: &[u8]) -> Token {
        Token(self.hasher.hash_one(encapsulated))
    }

    /// Whether `token` would be admitted. `clock` must never run backwards.
    pub(super) fn check(&self, token: Token, clock: impl Fn() -> UnixTime) -> Result<(), Refusal> {
        {
            let mut shard = self.shard(token);
            self.forget(&mut shard, clock());
            if shard.has(token) {
                return Err(Refusal::Seen);
            }
        }
        if self.is_full(&clock) { Err(Refusal::Full) } else { Ok(()) }
    }

    /// Admits `token` once.
    pub(super) fn admit(&self, token: Token, clock: impl Fn() -> UnixTime) -> Result<UnixTime, Refusal> {
        self.check(token, &clock)?;
        // A place before the token, so that there are never more tokens than places.
        if self.len.fetch_add(1, Relaxed) >= self.capacity {
            self.len.fetch_sub(1, Relaxed);
            return Err(Refusal::Full);
        }
        let mut shard = self.shard(token);
        // Read under the lock, so that a shard sees times in order.
        let now = clock();
        if shard.has(token) {
            self.len.fetch_sub(1, Relaxed);
            return Err(Refusal::Seen);
        }
        shard.insert(token, now, self.bucket_width);
        Ok(now)
    }

    /// Forgets what need not be remembered any more. That happens by and by whether this is called or not.
    pub(super) fn sweep(&self, clock: impl Fn() -> UnixTime) {
        for shard in &self.shards {
            self.forget(&mut lock(shard), clock());
        }
    }

    /// Whether there is no room, even after forgetting; which is tried once a second.
    fn is_full(&self, clock: &impl Fn() -> UnixTime) -> bool {
        let is_full = || self.len.load(Relaxed) >= self.capacity;
        if is_full() && self.swept.fetch_max(clock().0, Relaxed) < clock().0 {
            self.sweep(clock);
        }
        is_full()
    }

    fn forget(&self, shard: &mut Shard, now: UnixTime) {
        let over = |bucket: &mut Bucket| now.0 > bucket.newest.saturating_add(self.keep);
        while let Some(bucket) = shard.0.pop_front_if(over) {
            self.len.fetch_sub(bucket.tokens.len(), Relaxed);
        }
    }

    fn shard(&self, token: Token) -> MutexGuard<'_, Shard> {
        // The low bits; a set places tokens by the high ones.
        let Some(shard) = self.shards.get(token.0 as usize % SHARDS) else {
            unreachable!("there are as many shards")
        };
        lock(shard)
    }
}

impl Shard {
    fn has(&self, token: Token) -> bool {
        self.0.iter().any(|bucket| bucket.tokens.has(token.0))
    }

    fn insert(&mut self, token: Token, now: UnixTime, width: u64) {
        let fits = |bucket: &&mut Bucket| now.0.saturating_sub(bucket.first) < width;
        match self.0.back_mut().filter(fits) {
            Some(bucket) => {
                bucket.newest = bucket.newest.max(now.0);
                bucket.tokens.insert(token.0);
            }
            None => {
                let mut tokens = Set::default();
                tokens.insert(token.0);
                self.0.push_back(Bucket { first: now.0, newest: now.0, tokens });
            }
        }
    }
}

/// A shard is whole at any time.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

const SHARDS: usize = 256;

#[cfg(test)]
mod tests;
