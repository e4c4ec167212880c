//! What a caller may have of language models: answers at once, and tokens a minute.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{
    Refused,
    limit::{Full, Limiter, Rate},
};

/// Counts answers and tokens by caller.
pub(super) struct Counts {
    tokens: Limiter,
    /// Answers that are being made. Callers with none are not in it.
    answers: Mutex<HashMap<Arc<str>, u32>>,
}

/// Of what a caller may have of language models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Tokens of prompts and answers.
    pub(super) tokens_per_minute: Option<NonZeroU32>,
    /// Answers that are made at the same time.
    pub(super) answers_at_once: Option<NonZeroU32>,
}

/// What one request of a caller was promised. Dropped, what it did not need is the caller's again.
pub struct Allowance(Option<Promised>);

struct Promised {
    counts: Arc<Counts>,
    name: Arc<str>,
    bounds: Bounds,
    /// Answers that have not ended.
    answers: AtomicU32,
    /// Tokens that are not spent yet.
    tokens: AtomicU32,
}

impl Bounds {
    /// All of a minute's tokens may be had at once.
    fn rate(self) -> Option<Rate> {
        self.tokens_per_minute.map(|tokens| Rate { per_minute: tokens, burst: tokens })
    }
}

impl Counts {
    /// For at most so many callers with bounds on tokens.
    pub(super) fn new(capacity: usize) -> Self {
        Self { tokens: Limiter::new(capacity), answers: Mutex::default() }
    }

    /// Promises `answers` with `prompt` tokens before them and `tokens` in them, all together.
    pub(super) fn promise(
        self: &Arc<Self>,
        name: &Arc<str>,
        bounds: Bounds,
        answers: usize,
        prompt: usize,
        tokens: usize,
    ) -> Result<Allowance, Refused> {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let answers = count(answers);
        if let Some(most) = bounds.answers_at_once {
            let mut making = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            let all = making.get(name).copied().unwrap_or(0).saturating_add(answers);
            if all > most.get() {
                return Err(Refused::Answers { wanted: answers, most: most.get() });
            }
            making.insert(Arc::clone(name), all);
        }
        let (prompt, tokens) = (count(prompt), count(tokens));
        let mut promised = Promised {
            counts: Arc::clone(self),
            name: Arc::clone(name),
            bounds,
            answers: AtomicU32::new(answers),
            // Until they are taken there are none to give back.
            tokens: AtomicU32::new(0),
        };
        if let Some(rate) = bounds.rate() {
            let per_minute = rate.per_minute.get();
            self.tokens.take(name, rate, prompt.saturating_add(tokens), Instant::now()).map_err(|full| {
                match full {
                    Full::Never => Refused::Budget { prompt, tokens, per_minute },
                    Full::For { retry_after } => Refused::TokensSpent { per_minute, retry_after },
                    Full::Crowded { retry_after } => Refused::Crowded { retry_after },
                }
            })?;
            promised.tokens = AtomicU32::new(tokens);
        }
        Ok(Allowance(Some(promised)))
    }
}

impl Allowance {
    /// For callers whose answers nobody counts.
    pub(super) fn unbounded() -> Self {
        Self(None)
    }

    /// A token of an answer was made.
    pub fn spend(&self) {
        if let Some(promised) = &self.0 {
            let _ = promised.tokens.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        }
    }

    /// An answer has ended. To be said before its client hears of that, which may ask again at once.
    pub fn end_one(&self) {
        if let Some(promised) = &self.0 {
            promised.end(1);
        }
    }
}

impl Promised {
    /// That many answers have ended; with the last one, the tokens that are left are the caller's again.
    fn end(&self, ended: u32) {
        let open = self.answers.fetch_update(Relaxed, Relaxed, |open| open.checked_sub(ended));
        if ended > 0 && open.is_ok() && self.bounds.answers_at_once.is_some() {
            let mut making = self.counts.answers.lock().unwrap_or_else(PoisonError::into_inner);
            let left = making.get(&self.name).copied().unwrap_or(0).saturating_sub(ended);
            if left == 0 {
                making.remove(&self.name);
            } else {
                making.insert(Arc::clone(&self.name), left);
            }
        }
        if let Some(rate) = self.bounds.rate().filter(|_| self.answers.load(Relaxed) == 0) {
            self.counts.tokens.give_back(&self.name, rate, self.tokens.swap(0, Relaxed));
        }
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        self.end(self.answers.load(Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(tokens: Option<u32>, answers: Option<u32>) -> Bounds {
        let number = |number: Option<u32>| number.map(|number| NonZeroU32::new(number).unwrap());
        Bounds { tokens_per_minute: number(tokens), answers_at_once: number(answers) }
    }

    #[test]
    fn answers_at_once_are_counted_until_they_end() {
        let (counts, alice) = (Arc::new(Counts::new(9)), Arc::from("alice"));
        let promise = |answers| counts.promise(&alice, bounds(None, Some(3)), answers, 10, 10);
        let two = promise(2).unwrap();
        assert!(matches!(promise(2), Err(Refused::Answers { wanted: 2, most: 3 })));
        let one = promise(1).unwrap();
        assert!(promise(1).is_err());
        counts.promise(&Arc::from("bob"), bounds(None, Some(1)), 1, 10, 10).unwrap();
        // One ends, and its client asks again before the request is done.
        two.end_one();
        drop(promise(1).unwrap());
        drop(two);
        drop(promise(2).unwrap());
        one.end_one();
        assert!(counts.answers.lock().unwrap().is_empty(), "what has ended is not counted");
        drop(one);
        assert!(counts.answers.lock().unwrap().is_empty(), "callers without answers are forgotten");
    }

    #[test]
    fn tokens_that_an_answer_did_not_need_are_the_callers_again() {
        let (counts, alice) = (Arc::new(Counts::new(9)), Arc::from("alice"));
        let promise = |prompt, tokens| counts.promise(&alice, bounds(Some(1000), Some(1)), 1, prompt, tokens);
        let Err(Refused::Budget { prompt: 600, tokens: 401, per_minute: 1000 }) = promise(600, 401) else {
            panic!()
        };
        let first = promise(600, 400).unwrap();
        for _ in 0..100 {
            first.spend();
        }
        drop(first);
        // 700 of 1000 are spent, but for what came back meanwhile.
        drop(promise(0, 300).unwrap());
        let Err(Refused::TokensSpent { retry_after, .. }) = promise(0, 400) else { panic!() };
        assert!((1..=6).contains(&retry_after.as_secs()), "{retry_after:?}");
        // What is refused holds no place.
        let last = promise(0, 300).unwrap();
        last.end_one();
        drop(promise(0, 300).unwrap());
        drop(last);
    }
}
