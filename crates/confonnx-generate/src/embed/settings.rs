//! What the files of a sentence encoder say, as sentence-transformers writes them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Pooling;
use crate::text::{CONFIG, FilesError, TOKENIZER_CONFIG, line_of_error, object, token_name};

/// The files of a sentence encoder, as they lie beside it where it was published.
#[derive(Clone, Copy, Debug, Default)]
pub struct Files<'f> {
    /// `tokenizer.json`
    pub tokenizer: &'f str,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'f str>,
    /// `config.json`
    pub config: Option<&'f str>,
    /// `modules.json`
    pub modules: Option<&'f str>,
    /// `1_Pooling/config.json`
    pub pooling: Option<&'f str>,
    /// `sentence_bert_config.json`
    pub sentence_bert: Option<&'f str>,
    /// `config_sentence_transformers.json`
    pub sentence_transformers: Option<&'f str>,
}

/// What they say.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) pooling: Option<Pooling>,
    pub(super) normalizes: bool,
    pub(super) lowercase: bool,
    pub(super) most: Option<usize>,
    pub(super) prompts: BTreeMap<String, String>,
    pub(super) default_prompt: Option<String>,
    /// The token that stands where there is no text.
    pub(super) pad: Option<String>,
}

impl Settings {
    pub(super) fn new(files: &Files<'_>) -> Result<Self, FilesError> {
        let tokenizer_config = object(TOKENIZER_CONFIG, files.tokenizer_config)?;
        let config = object(CONFIG, files.config)?;
        let sentence_bert = object(SENTENCE_BERT, files.sentence_bert)?;
        let own = object(SENTENCE_TRANSFORMERS, files.sentence_transformers)?;
        let pooling = match files.pooling {
            None => None,
            Some(text) => Some(pooling(&object(POOLING, Some(text))?)?),
        };
        let (prompts, default_prompt) = prompts(&own)?;
        Ok(Self {
            pooling,
            normalizes: normalizes(files.modules)?,
            lowercase: sentence_bert.get("do_lower_case").and_then(Value::as_bool).unwrap_or(false),
            most: most(&sentence_bert, &tokenizer_config, &config),
            prompts,
            default_prompt,
            pad: token_name(&tokenizer_config, "pad_token"),
        })
    }
}

/// Whether the last module makes vectors as long as 1.
fn normalizes(modules: Option<&str>) -> Result<bool, FilesError> {
    let Some(text) = modules else { return Ok(false) };
    let all: Option<Vec<Value>> = serde_json::from_str(text).ok();
    let all = all.ok_or_else(|| FilesError::Json { file: MODULES, line: line_of_error(text) })?;
    let mut normalizes = false;
    for (place, module) in all.iter().enumerate() {
        let kind = module.get("type").and_then(Value::as_str).unwrap_or_default();
        let last = kind.rsplit('.').next().unwrap_or_default();
        match (last, place) {
            ("Transformer", 0) | ("Pooling", 1) => {}
            ("Normalize", place) if place >= 1 => normalizes = true,
            _ => return Err(FilesError::Module(kind.chars().take(128).collect())),
        }
    }
    Ok(normalizes)
}

fn pooling(config: &Value) -> Result<Pooling, FilesError> {
    // A prompt that is read and not counted.
    if config.get("include_prompt") == Some(&Value::Bool(false)) {
        return Err(FilesError::Pooling("\"include_prompt\": false".into()));
    }
    let mode = |name: &str| match name {
        "mean" => Ok(Pooling::Mean),
        "cls" => Ok(Pooling::First),
        "lasttoken" => Ok(Pooling::Last),
        other => Err(FilesError::Pooling(other.chars().take(64).collect())),
    };
    if let Some(name) = config.get("pooling_mode").and_then(Value::as_str) {
        return mode(name);
    }
    let asked = |(key, value): (&String, &Value)| {
        let name = key.strip_prefix("pooling_mode_")?;
        (value == &Value::Bool(true)).then(|| match name {
            "mean_tokens" => "mean".to_owned(),
            "cls_token" => "cls".to_owned(),
            other => other.to_owned(),
        })
    };
    let all: Vec<String> = config.as_object().into_iter().flatten().filter_map(asked).collect();
    match all.as_slice() {
        [one] => mode(one),
        [] => Err(FilesError::Pooling("none".into())),
        several => Err(FilesError::Pooling(several.join(" and "))),
    }
}

/// The most tokens of a text: `max_seq_length` if it is said, else the least of what the other files say.
fn most(sentence_bert: &Value, tokenizer_config: &Value, config: &Value) -> Option<usize> {
    let said = |config: &Value, key: &str| {
        // A tokenizer without a limit says 10^30.
        let tokens = config.get(key)?.as_u64().and_then(|tokens| usize::try_from(tokens).ok());
        tokens.filter(|tokens| *tokens > 0)
    };
    said(sentence_bert, "max_seq_length").or_else(|| {
        let all = [said(tokenizer_config, "model_max_length"), said(config, "max_position_embeddings")];
        all.into_iter().flatten().min()
    })
}

type Prompts = (BTreeMap<String, String>, Option<String>);

fn prompts(own: &Value) -> Result<Prompts, FilesError> {
    let wrong = |key, expected| FilesError::Value { file: SENTENCE_TRANSFORMERS, key, expected };
    let mut prompts = BTreeMap::new();
    match own.get("prompts") {
        None | Some(Value::Null) => {}
        Some(Value::Object(all)) => {
            for (name, text) in all {
                let text = text.as_str().ok_or_else(|| wrong("prompts", "object of texts"))?;
                prompts.insert(name.clone(), text.to_owned());
            }
        }
        Some(_) => return Err(wrong("prompts", "object of texts")),
    }
    let default = match own.get("default_prompt_name") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if prompts.contains_key(name) => Some(name.clone()),
        Some(_) => return Err(wrong("default_prompt_name", "name of a prompt")),
    };
    Ok((prompts, default))
}

const MODULES: &str = "modules.json";
const POOLING: &str = "1_Pooling/config.json";
const SENTENCE_BERT: &str = "sentence_bert_config.json";
const SENTENCE_TRANSFORMERS: &str = "config_sentence_transformers.json";
