//! The choice of the next token.

mod candidates;
mod random;

use std::collections::HashMap;

use self::candidates::Candidates;
pub use self::random::Random;

/// How to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Choices {
    /// 0 takes the most likely token; up to 2.
    pub temperature: f32,
    /// Keep only the most likely tokens that have this probability together; 1 is all.
    pub top_p: f32,
    /// Keep only as many of the most likely tokens; 0 is all.
    pub top_k: usize,
    /// Keep only tokens at least this fraction as likely as the most likely one; 0 is all.
    pub min_p: f32,
    /// Divides the logit of what was said already, prompt and answer, if it is positive, and multiplies it otherwise; 1 changes
    /// nothing.
    pub repetition_penalty: f32,
    /// Taken from the logit of what was said already in the answer.
    pub presence_penalty: f32,
    /// Taken from the logit of a token for each time that it was said in the answer.
    pub frequency_penalty: f32,
    /// Added to the logits of some tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// How many of the most likely tokens to tell, with logarithms of their probabilities; none tells nothing.
    pub logprobs: Option<usize>,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            logprobs: None,
        }
    }
}

/// A token that was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The token.
    pub token: u32,
    /// How likely the token and others were before anything was changed, if that was asked for.
    pub logprobs: Option<Logprobs>,
}

/// Logarithms of probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// The logarithm of the chosen token's probability.
    pub chosen: f32,
    /// Those of the most likely tokens, which come first.
    pub top: Vec<(u32, f32)>,
}

/// Nothing can be chosen: no logit is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's answer is not a number: no token can be chosen")]
pub struct NoChoice;

/// Chooses the tokens of one answer. The same choices, seed, prompt and logits give the same tokens.
#[derive(Debug)]
pub struct Sampler {
    choices: Choices,
    random: Random,
    /// The tokens of the prompt.
    prompt: Vec<u32>,
    /// The tokens that were chosen so far, and how often.
    counts: HashMap<u32, u32>,
}

impl Sampler {
    /// A sampler for an answer to `prompt`.
    pub fn new(choices: Choices, seed: u64, prompt: &[u32]) -> Self {
        let mut prompt = if choices.repetition_penalty == 1.0 { Vec::new() } else { prompt.to_vec() };
        prompt.sort_unstable();
        prompt.dedup();
        Self { choices, random: Random::new(seed), prompt, counts: HashMap::new() }
    }

    /// Chooses by `logits`, one for each token, which are changed. Tokens that `allowed` refuses are never chosen.
    ///
    /// # Errors
    /// [`NoChoice`]
    pub fn choose(
        &mut self,
        logits: &mut [f32],
        allowed: Option<&dyn Fn(u32) -> bool>,
    ) -> Result<Chosen, NoChoice> {
        let told =
            self.choices.logprobs.map(|count| (candidates::log_sum(logits), candidates::most(logits, count)));
        let before = told.as_ref().map(|_| logits.to_vec());
        self.change(logits);
        if let Some(allowed) = allowed {
            for (token, logit) in (0_u32..).zip(logits.iter_mut()) {
                if !allowed(token) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        let token = self.pick(logits).ok_or(NoChoice)?;
        let count = self.counts.entry(token).or_default();
        *count = count.saturating_add(1);
        let logprobs = told.zip(before).map(|((sum, top), before)| {
            let of = |token: u32| {
                logit_of(&before, token).map_or(f32::NEG_INFINITY, |logit| (f64::from(logit) - sum) as f32)
            };
            Logprobs { chosen: of(token), top: top.into_iter().map(|token| (token, of(token))).collect() }
        });
        Ok(Chosen { token, logprobs })
    }

    fn change(&self, logits: &mut [f32]) {
        let Choices { repetition_penalty, presence_penalty, frequency_penalty, logit_bias, .. } =
            &self.choices;
        let mut with = |token: u32, change: &dyn Fn(f32) -> f32| {
            if let Some(logit) = usize::try_from(token).ok().and_then(|token| logits.get_mut(token)) {
                *logit = change(*logit);
            }
        };
        if *repetition_penalty != 1.0 {
            let said = self.counts.keys().filter(|token| self.prompt.binary_search(token).is_err());
            for token in self.prompt.iter().chain(said) {
                with(*token, &|logit| {
                    if logit > 0.0 { logit / repetition_penalty } else { logit * repetition_penalty }
                });
            }
        }
        if *presence_penalty != 0.0 || *frequency_penalty != 0.0 {
            for (token, count) in &self.counts {
                with(*token, &|logit| logit - presence_penalty - frequency_penalty * *count as f32);
            }
        }
        for (token, bias) in logit_bias {
            with(*token, &|logit| logit + bias);
        }
    }

    fn pick(&mut self, logits: &[f32]) -> Option<u32> {
        let Choices { temperature, top_p, top_k, min_p, .. } = self.choices;
        let most = candidates::best(logits)?;
        if temperature <= 0.0 {
            return Some(most);
        }
        let mut candidates = Candidates::new(logits, most, temperature);
        if top_k > 0 {
            candidates.keep(top_k);
        }
        if top_p < 1.0 {
            candidates.keep_mass(f64::from(top_p));
        }
        if min_p > 0.0 {
            candidates.keep_above(f64::from(min_p));
        }
        // A number is drawn whatever is left, so that a seed's later numbers do not depend on it.
        candidates.at(self.random.fraction()).or(Some(most))
    }
}

fn logit_of(logits: &[f32], token: u32) -> Option<f32> {
    logits.get(usize::try_from(token).ok()?).copied()
}

#[cfg(test)]
mod tests;
