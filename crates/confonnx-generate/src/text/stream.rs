//! Tokens to text, as they come.

use std::{fmt, sync::Arc};

use confonnx_tensor::Erased;

use super::Text;

/// Makes tokens into text. What is not a whole character yet is held back until it is.
pub struct Detokenizer {
    by: Arc<Text>,
    /// Tokens whose text depends on one another.
    tokens: Erased<Vec<u32>>,
    /// How many of the tokens were given out.
    given: usize,
}

impl Detokenizer {
    /// A stream for an answer of the model that `by` is of.
    pub fn new(by: Arc<Text>) -> Self {
        Self { by, tokens: Erased::default(), given: 0 }
    }

    /// The text that `token` adds, which may be none. Control tokens have none.
    pub fn push(&mut self, token: u32) -> Erased<String> {
        self.tokens.append(&[token]);
        let waiting = self.tokens.len().saturating_sub(self.given);
        self.give(waiting > LONGEST)
    }

    /// The text that is left: tokens that end within a character stand for U+FFFD.
    pub fn finish(&mut self) -> Erased<String> {
        self.give(true)
    }

    fn give(&mut self, all: bool) -> Erased<String> {
        // Text of the first tokens of a window may depend on its being the first: what comes before it is not looked at.
        let before = self.text(self.tokens.get(..self.given).unwrap_or_default());
        let whole = self.text(&self.tokens);
        if whole.ends_with('\u{fffd}') && !all {
            return Erased::default();
        }
        let added = Erased::new(whole.get(before.len()..).unwrap_or_default().to_owned());
        if !added.is_empty() || all {
            self.tokens.drain(..self.given);
            self.given = self.tokens.len();
        }
        added
    }

    fn text(&self, tokens: &[u32]) -> Erased<String> {
        self.by.tokenizer.decode(tokens, true).unwrap_or_default().into()
    }
}

impl fmt::Debug for Detokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Detokenizer({} tokens)", self.tokens.len())
    }
}

/// Tokens that may make no whole character: the longest has four bytes, and a token has one at least.
const LONGEST: usize = 16;
