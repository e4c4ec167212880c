//! Texts to vectors: what a sentence encoder needs around its tensors, by the files that it was published with.

mod pool;
mod request;
mod settings;

use confonnx_tensor::Erased;
use tokenizers::{PostProcessor, Tokenizer, TruncationDirection};

pub use self::{
    pool::{Hidden, Pooling, finished, pooled},
    request::{Encoding, Input, Request, answer},
    settings::Files,
};
use crate::text::FilesError;
use settings::Settings;

/// How an encoder's texts become tokens, and its tensors vectors.
pub struct Encoder {
    tokenizer: Tokenizer,
    settings: Settings,
    /// Tokens that are added to every text.
    added: usize,
    pad: u32,
}

/// Why a text has no vector.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// The input has more tokens than the model reads.
    #[error(
        "input[{index}] has {found} tokens; expected {most} at most: send a shorter text, or \"truncate\": true"
    )]
    TooLong {
        /// The input's index.
        index: usize,
        /// Tokens, those that are added too.
        found: usize,
        /// Tokens allowed.
        most: usize,
    },
    /// The input has nothing to read.
    #[error("input[{index}] has no tokens; expected a text")]
    Empty {
        /// The input's index.
        index: usize,
    },
    /// The model has no such token.
    #[error("input[{index}] has the token {token}; expected tokens below {tokens}")]
    Token {
        /// The input's index.
        index: usize,
        /// The token.
        token: u32,
        /// How many tokens there are.
        tokens: usize,
    },
    /// The model has no such prompt.
    #[error("the model has no prompt {name:?}; expected one of {expected:?}")]
    Prompt {
        /// The name asked for.
        name: String,
        /// The prompts that there are.
        expected: Vec<String>,
    },
    /// The tokenizer fails.
    #[error("input[{index}] cannot be made into tokens")]
    Tokenizer {
        /// The input's index.
        index: usize,
    },
}

impl Encoder {
    /// Reads the files.
    ///
    /// # Errors
    /// [`FilesError`]
    pub fn new(files: &Files<'_>) -> Result<Self, FilesError> {
        let unusable = |error: tokenizers::Error| FilesError::Tokenizer(error.to_string());
        let mut tokenizer: Tokenizer = files.tokenizer.parse().map_err(unusable)?;
        let padding = tokenizer.get_padding().map(|padding| padding.pad_id);
        tokenizer.with_truncation(None).map_err(unusable)?;
        tokenizer.with_padding(None);
        let settings = Settings::new(files)?;
        let named = settings.pad.as_deref().and_then(|name| tokenizer.token_to_id(name));
        let added = tokenizer.get_post_processor().map_or(0, |post| post.added_tokens(false));
        Ok(Self { tokenizer, settings, added, pad: padding.or(named).unwrap_or(0) })
    }

    /// The most tokens of a text, those that are added too; none if no file says so.
    pub fn most(&self) -> Option<usize> {
        self.settings.most
    }

    /// How the vectors of a text's tokens become one; none if no file says so.
    pub fn pooling(&self) -> Option<Pooling> {
        self.settings.pooling
    }

    /// Whether vectors are made as long as 1.
    pub fn normalizes(&self) -> bool {
        self.settings.normalizes
    }

    /// The token in the place where a text is shorter than others.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// The tokens of each input, at most `most` of them.
    ///
    /// # Errors
    /// [`EmbedError`]
    pub fn tokens(&self, request: &Request, most: usize) -> Result<Vec<Erased<Vec<u32>>>, EmbedError> {
        let prompt = self.prompt(request.prompt_name.as_deref())?;
        match &request.input {
            Input::Texts(texts) => {
                let one =
                    |(index, text): (usize, &String)| self.text(index, text, prompt, request.truncate, most);
                texts.iter().enumerate().map(one).collect()
            }
            Input::Tokens(all) => {
                let one =
                    |(index, tokens): (usize, &Vec<u32>)| self.given(index, tokens, request.truncate, most);
                all.iter().enumerate().map(one).collect()
            }
        }
    }

    fn prompt(&self, name: Option<&str>) -> Result<&str, EmbedError> {
        let prompts = &self.settings.prompts;
        let Some(name) = name.or(self.settings.default_prompt.as_deref()) else { return Ok("") };
        prompts.get(name).map(String::as_str).ok_or_else(|| EmbedError::Prompt {
            name: name.chars().take(64).collect(),
            expected: prompts.keys().cloned().collect(),
        })
    }

    fn text(
        &self,
        index: usize,
        text: &str,
        prompt: &str,
        truncate: bool,
        most: usize,
    ) -> Result<Erased<Vec<u32>>, EmbedError> {
        let mut whole = Erased::new(String::new());
        whole.append(prompt);
        whole.append(text);
        if self.settings.lowercase {
            whole = Erased::new(whole.to_lowercase());
        }
        let failed = |_| EmbedError::Tokenizer { index };
        let mut encoding = self.tokenizer.encode_fast(whole.trim(), false).map_err(failed)?;
        let found = encoding.len().saturating_add(self.added);
        if found > most {
            if !truncate {
                return Err(EmbedError::TooLong { index, found, most });
            }
            encoding.truncate(most.saturating_sub(self.added), 0, TruncationDirection::Right);
        }
        let encoding = self.tokenizer.post_process(encoding, None, true).map_err(failed)?;
        if encoding.is_empty() {
            return Err(EmbedError::Empty { index });
        }
        Ok(encoding.get_ids().to_vec().into())
    }

    /// Tokens that the caller chose; nothing is added.
    fn given(
        &self,
        index: usize,
        tokens: &[u32],
        truncate: bool,
        most: usize,
    ) -> Result<Erased<Vec<u32>>, EmbedError> {
        let known = self.tokenizer.get_vocab_size(true);
        let unknown = |token: &&u32| usize::try_from(**token).is_ok_and(|token| token >= known);
        if let Some(token) = tokens.iter().find(unknown) {
            return Err(EmbedError::Token { index, token: *token, tokens: known });
        }
        if tokens.is_empty() {
            return Err(EmbedError::Empty { index });
        }
        if tokens.len() > most && !truncate {
            return Err(EmbedError::TooLong { index, found: tokens.len(), most });
        }
        Ok(tokens.iter().take(most).copied().collect::<Vec<_>>().into())
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
