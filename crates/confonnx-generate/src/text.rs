//! Text to tokens and back, as the model's owner says.

mod guard;
mod stop;
mod stream;
mod template;

use std::{collections::BTreeSet, sync::OnceLock};

use serde_json::Value;
use tokenizers::Tokenizer;

use self::{guard::Guard, template::Template};
pub use self::{
    stop::StopStrings,
    stream::Detokenizer,
    template::{Message, Role},
};
use crate::constrain::{Constraint, ConstraintError, Forms};

/// The files that say how a model's text is made, as they lie beside it where it was published.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'f> {
    /// `tokenizer.json`
    pub tokenizer: &'f str,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'f str>,
    /// `chat_template.jinja`, instead of the one in `tokenizer_config.json`.
    pub chat_template: Option<&'f str>,
    /// `generation_config.json`
    pub generation_config: Option<&'f str>,
    /// `config.json`
    pub config: Option<&'f str>,
}

/// How a model's text is made.
pub struct Text {
    tokenizer: Tokenizer,
    template: Option<Template>,
    guard: Guard,
    /// Tokens that text does not become.
    controls: BTreeSet<u32>,
    /// The token before a text that is no chat.
    bos: Option<u32>,
    /// The tokens around a text that an encoder reads.
    around: (Vec<u32>, Vec<u32>),
    facts: Facts,
    /// The bytes of each token, if that is known.
    words: Option<Vec<Vec<u8>>>,
    /// Made of the tokens when first needed.
    forms: OnceLock<Option<Forms>>,
}

/// What the owner says of generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Tokens that end a text.
    pub ends: BTreeSet<u32>,
    /// Tokens that an answer begins with where an encoder reads the prompt; none if no file says so.
    pub start: Vec<u32>,
    /// Tokens that are never said.
    pub never: BTreeSet<u32>,
    /// The most tokens, prompt and answer together, or each of both where an encoder reads the prompt; none if it is not said.
    pub context: Option<usize>,
    /// Choices for who makes none.
    pub defaults: Defaults,
}

/// The owner's choices for requests that make none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Defaults {
    /// See [`Choices`](crate::sample::Choices).
    pub temperature: Option<f32>,
    /// See [`Choices`](crate::sample::Choices).
    pub top_p: Option<f32>,
    /// See [`Choices`](crate::sample::Choices).
    pub top_k: Option<usize>,
    /// See [`Choices`](crate::sample::Choices).
    pub min_p: Option<f32>,
    /// See [`Choices`](crate::sample::Choices).
    pub repetition_penalty: Option<f32>,
}

/// Why files do not say how text is made.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// `tokenizer.json` is none.
    #[error(
        "tokenizer.json cannot be used: {0}; expected the file of a fast tokenizer (the `tokenizers` library)"
    )]
    Tokenizer(String),
    /// Another file is no JSON object.
    #[error("{file} is not a JSON object (line {line})")]
    Json {
        /// The file's name.
        file: &'static str,
        /// The line.
        line: usize,
    },
    /// The template is no template.
    #[error("the chat template cannot be used: {0}")]
    Template(String),
    /// A value is of another kind.
    #[error("{key:?} of {file} is no {expected}")]
    Value {
        /// The file.
        file: &'static str,
        /// The key.
        key: &'static str,
        /// What the value can be.
        expected: &'static str,
    },
    /// A step after the model that is not done here.
    #[error(
        "modules.json has a module of type {0:?}; expected Transformer, Pooling and Normalize, in this order"
    )]
    Module(String),
    /// The files name another way to pool, or none.
    #[error("1_Pooling/config.json: expected one of mean, cls and lasttoken, found {0}")]
    Pooling(String),
    /// A text that ends nowhere.
    #[error(
        "no file says which token ends a text; expected \"eos_token_id\" in generation_config.json or config.json"
    )]
    NoEnd,
    /// An answer that begins with nothing.
    #[error(
        "the model has an encoder, and no file says which token an answer begins with; expected \"decoder_start_token_id\" in \
         generation_config.json or config.json"
    )]
    NoStart,
}

/// Why a text has no tokens.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The model has no chat template.
    #[error("the model has no chat template; expected a prompt (POST /v1/completions)")]
    NoTemplate,
    /// The template refuses.
    #[error("the model's chat template takes no such conversation: {0}")]
    Refused(String),
    /// The template works too long.
    #[error("the model's chat template takes too long for this conversation; send fewer or shorter messages")]
    TooLong,
    /// What the template makes is too much.
    #[error("the conversation becomes more than {limit} bytes of prompt; send fewer or shorter messages")]
    TooLarge {
        /// How many bytes are allowed.
        limit: usize,
    },
    /// There is no way to keep text apart from control tokens.
    #[error("a message has a character that is one of the model's control tokens; leave it out")]
    Control,
    /// The tokenizer fails.
    #[error("the text cannot be made into tokens")]
    Tokenizer,
}

impl Text {
    /// Reads the files.
    ///
    /// # Errors
    /// [`FilesError`]
    pub fn new(files: &Files<'_>) -> Result<Self, FilesError> {
        let mut tokenizer: Tokenizer = files
            .tokenizer
            .parse()
            .map_err(|error: tokenizers::Error| FilesError::Tokenizer(error.to_string()))?;
        tokenizer.with_truncation(None).map_err(|error| FilesError::Tokenizer(error.to_string()))?;
        tokenizer.with_padding(None);
        let tokenizer_config = object(TOKENIZER_CONFIG, files.tokenizer_config)?;
        let generation = object(GENERATION_CONFIG, files.generation_config)?;
        let config = object(CONFIG, files.config)?;

        let mut words = Vec::new();
        let mut controls = BTreeSet::new();
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            // Added tokens that are runs of spaces are text, and no control tokens.
            if !token.content.trim().is_empty() {
                controls.insert(id);
                words.push(token.content);
            }
        }
        let named = |key: &str| token_name(&tokenizer_config, key);
        let mut ends = ids(&generation, GENERATION_CONFIG, "eos_token_id")?;
        if ends.is_empty() {
            ends = ids(&config, CONFIG, "eos_token_id")?;
        }
        if let Some(id) = named("eos_token").and_then(|name| tokenizer.token_to_id(&name)) {
            ends.insert(id);
        }
        if ends.is_empty() {
            return Err(FilesError::NoEnd);
        }
        let source =
            files.chat_template.map(str::to_owned).or_else(|| template::of_config(&tokenizer_config));
        let specials = ["bos_token", "eos_token", "unk_token", "pad_token"]
            .into_iter()
            .filter_map(|key| Some((key, named(key)?)))
            .collect();
        let template = source.map(|source| Template::new(&source, specials)).transpose()?;
        let bos = tokenizer.encode("", true).ok().and_then(|added| added.get_ids().first().copied());
        let bos = bos.filter(|id| {
            !ends.contains(id)
                || named("bos_token").and_then(|name| tokenizer.token_to_id(&name)) == Some(*id)
        });
        let around = around(&tokenizer);
        let facts = Facts {
            ends,
            start: start(&generation, &config)?,
            never: never(&generation, &config),
            context: context(&config),
            defaults: defaults(&generation)?,
        };
        let bytes = serde_json::from_str(files.tokenizer).ok().as_ref().and_then(Forms::words);
        let guard = Guard::new(words);
        Ok(Self {
            tokenizer,
            template,
            guard,
            controls,
            bos,
            around,
            facts,
            words: bytes,
            forms: OnceLock::new(),
        })
    }

    /// What the model's owner says of generation.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Whether there is a chat template.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// How many tokens there are, those that were added too.
    pub fn tokens(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The tokens of a conversation, up to where the answer begins. `now` is the Unix time for templates that tell the
    /// date. What `messages` say never becomes a control token.
    ///
    /// # Errors
    /// [`TextError`]
    pub fn chat(&self, messages: &[Message], now: u64) -> Result<Vec<u32>, TextError> {
        let template = self.template.as_ref().ok_or(TextError::NoTemplate)?;
        let mark = guard::mark(messages.iter().map(|message| message.content.as_str()))?;
        let mut guarded = Vec::with_capacity(messages.len());
        for message in messages {
            let content = self.guard.apart(&message.content, mark)?;
            self.check(&content, mark)?;
            guarded.push(Message { role: message.role, content });
        }
        self.encode(&template.render(&guarded, now)?, mark)
    }

    /// The tokens of a text that the model is to go on with. None of it becomes a control token.
    ///
    /// # Errors
    /// [`TextError`]
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let mut tokens: Vec<u32> = self.bos.into_iter().collect();
        tokens.extend(self.plain(text)?);
        Ok(tokens)
    }

    /// The tokens of a text that an encoder is to read, with those that it expects around it. None of the text becomes a control
    /// token.
    ///
    /// # Errors
    /// [`TextError`]
    pub fn source(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let (before, after) = &self.around;
        let tokens = self.plain(text)?;
        Ok([before.as_slice(), &tokens, after].concat())
    }

    fn plain(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let mark = guard::mark([text].into_iter())?;
        let guarded = self.guard.apart(text, mark)?;
        self.check(&guarded, mark)?;
        self.encode(&guarded, mark)
    }

    /// The constraint that keeps an answer to JSON of `schema`.
    ///
    /// # Errors
    /// [`ConstraintError`]
    pub fn constraint(&self, schema: &Value) -> Result<Constraint, ConstraintError> {
        let ends = || self.facts.ends.iter().copied().collect::<Vec<u32>>();
        let forms = self.forms.get_or_init(|| Forms::new(self.words.as_deref()?, &ends()));
        forms.as_ref().ok_or(ConstraintError::Tokens)?.constraint(schema)
    }

    /// The text of one token by itself, for lists of probabilities.
    pub fn token(&self, id: u32) -> String {
        self.tokenizer.decode(&[id], false).unwrap_or_default()
    }

    /// What was kept apart is no control token, whatever the tokenizer makes of characters before it looks.
    fn check(&self, guarded: &str, mark: char) -> Result<(), TextError> {
        let tokens = self.encode(guarded, mark)?;
        if tokens.iter().any(|token| self.controls.contains(token)) {
            Err(TextError::Control)
        } else {
            Ok(())
        }
    }

    fn encode(&self, text: &str, mark: char) -> Result<Vec<u32>, TextError> {
        let mut tokens = Vec::new();
        for piece in text.split(mark).filter(|piece| !piece.is_empty()) {
            let encoded = self.tokenizer.encode_fast(piece, false).map_err(|_| TextError::Tokenizer)?;
            tokens.extend_from_slice(encoded.get_ids());
        }
        Ok(tokens)
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// What a file says; an object of nothing where it is not there.
pub(crate) fn object(file: &'static str, text: Option<&str>) -> Result<Value, FilesError> {
    match text {
        None => Ok(Value::Object(serde_json::Map::new())),
        Some(text) => serde_json::from_str::<Value>(text)
            .ok()
            .filter(Value::is_object)
            .ok_or_else(|| FilesError::Json { file, line: line_of_error(text) }),
    }
}

pub(crate) fn line_of_error(text: &str) -> usize {
    serde_json::from_str::<Value>(text).err().map_or(1, |error| error.line())
}

/// A token that is named by its text, or by an object that has it.
pub(crate) fn token_name(config: &Value, key: &str) -> Option<String> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// One number or a list of them.
fn ids(config: &Value, file: &'static str, key: &'static str) -> Result<BTreeSet<u32>, FilesError> {
    let id = |value: &Value| {
        value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or(FilesError::Value {
            file,
            key,
            expected: "token number or list of them",
        })
    };
    match config.get(key) {
        None | Some(Value::Null) => Ok(BTreeSet::new()),
        Some(Value::Array(all)) => all.iter().map(id).collect(),
        Some(one) => Ok([id(one)?].into()),
    }
}

/// The tokens that the tokenizer puts before and after a text.
fn around(tokenizer: &Tokenizer) -> (Vec<u32>, Vec<u32>) {
    let Ok(added) = tokenizer.encode("a", true) else { return Default::default() };
    let (tokens, mask) = (added.get_ids(), added.get_special_tokens_mask());
    let first = mask.iter().position(|special| *special == 0).unwrap_or(0);
    let last = mask.iter().rposition(|special| *special == 0).map_or(0, |last| last.saturating_add(1));
    let part = |range: Option<&[u32]>| range.unwrap_or_default().to_vec();
    (part(tokens.get(..first)), part(tokens.get(last..)))
}

/// The tokens that an answer begins with where an encoder reads the prompt.
fn start(generation: &Value, config: &Value) -> Result<Vec<u32>, FilesError> {
    let mut start = Vec::new();
    for key in ["decoder_start_token_id", "forced_bos_token_id"] {
        let mut found = ids(generation, GENERATION_CONFIG, key)?;
        if found.is_empty() {
            found = ids(config, CONFIG, key)?;
        }
        if found.len() > 1 {
            return Err(FilesError::Value { file: GENERATION_CONFIG, key, expected: "one token number" });
        }
        start.extend(found);
    }
    Ok(start)
}

/// Tokens that the owner forbids: of `bad_words_ids` those that stand by themselves.
fn never(generation: &Value, config: &Value) -> BTreeSet<u32> {
    let said = [generation, config].into_iter().find_map(|file| file.get("bad_words_ids")?.as_array());
    let alone = said.into_iter().flatten().filter_map(|word| match word.as_array()?.as_slice() {
        [token] => u32::try_from(token.as_u64()?).ok(),
        _ => None,
    });
    alone.collect()
}

fn context(config: &Value) -> Option<usize> {
    let said = ["max_position_embeddings", "n_positions", "n_ctx"]
        .into_iter()
        .find_map(|key| config.get(key)?.as_u64());
    said.and_then(|tokens| usize::try_from(tokens).ok()).filter(|tokens| *tokens > 0)
}

fn defaults(generation: &Value) -> Result<Defaults, FilesError> {
    let number = |key: &'static str| match generation.get(key) {
        None | Some(Value::Null) => Ok(None),
        // Between the extremes of the type, as every choice is.
        #[allow(clippy::cast_possible_truncation)]
        Some(value) => match value.as_f64().map(|number| number as f32).filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(FilesError::Value { file: GENERATION_CONFIG, key, expected: "number" }),
        },
    };
    let greedy = generation.get("do_sample").and_then(Value::as_bool) == Some(false);
    Ok(Defaults {
        temperature: if greedy { Some(0.0) } else { number("temperature")? },
        top_p: number("top_p")?,
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        top_k: number("top_k")?.filter(|k| *k >= 1.0).map(|k| k as usize),
        min_p: number("min_p")?,
        repetition_penalty: number("repetition_penalty")?.filter(|penalty| *penalty > 0.0),
    })
}

pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
pub(crate) const CONFIG: &str = "config.json";

#[cfg(test)]
pub(crate) mod tests;
