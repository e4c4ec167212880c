//! Requests.

use serde_json::Value;

use super::{
    read::{Fields, RequestError, wrong},
    response::Kind,
};
use crate::{
    sample::Choices,
    text::{Defaults, Message, Role},
};

/// A request for answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Of which API.
    pub kind: Kind,
    /// The model's name; empty where the path has it.
    pub model: String,
    /// What comes before the answer.
    pub prompt: Prompt,
    /// How many answers.
    pub answers: usize,
    /// The most tokens of each.
    pub max_tokens: Option<usize>,
    /// How to choose tokens, where the owner's choices are not to count.
    pub overrides: Overrides,
    /// What random numbers begin with; the same seed gives the same answer.
    pub seed: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Whether the answer is to come token by token.
    pub stream: bool,
    /// Whether such an answer is to end with how many tokens it took.
    pub stream_usage: bool,
    /// Milliseconds from one piece of such an answer to the next, if they are to come at fixed instants.
    pub pace_ms: Option<u64>,
    /// What the answer has to be.
    pub format: Format,
    /// Whether a whole answer begins with its prompt.
    pub repeats_prompt: bool,
}

/// What comes before the answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A conversation.
    Chat(Vec<Message>),
    /// Texts to go on with, each by itself.
    Texts(Vec<String>),
    /// The same, in tokens.
    Tokens(Vec<Vec<u32>>),
}

/// What the answer has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// Any text.
    Text,
    /// JSON.
    Json,
    /// JSON of this schema.
    Schema(Value),
}

/// Choices that were made.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Overrides {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<usize>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub logit_bias: Vec<(u32, f32)>,
    pub logprobs: Option<usize>,
}

impl Overrides {
    /// Those that all APIs spell alike.
    fn read(fields: &mut Fields) -> Result<Self, RequestError> {
        Ok(Self {
            temperature: fields.number("temperature", 0.0, 2.0)?,
            top_p: fields.number("top_p", 0.0, 1.0)?,
            top_k: fields.whole("top_k", 0, u64::from(u32::MAX))?.map(size),
            min_p: fields.number("min_p", 0.0, 1.0)?,
            repetition_penalty: fields.number("repetition_penalty", 0.01, 100.0)?,
            presence_penalty: fields.number("presence_penalty", -2.0, 2.0)?,
            frequency_penalty: fields.number("frequency_penalty", -2.0, 2.0)?,
            ..Self::default()
        })
    }

    /// The choices, with the owner's where none was made.
    pub fn over(&self, owner: &Defaults) -> Choices {
        let none = Choices::default();
        Choices {
            temperature: self.temperature.or(owner.temperature).unwrap_or(none.temperature),
            top_p: self.top_p.or(owner.top_p).unwrap_or(none.top_p),
            top_k: self.top_k.or(owner.top_k).unwrap_or(none.top_k),
            min_p: self.min_p.or(owner.min_p).unwrap_or(none.min_p),
            repetition_penalty: self
                .repetition_penalty
                .or(owner.repetition_penalty)
                .unwrap_or(none.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(none.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(none.frequency_penalty),
            logit_bias: self.logit_bias.clone(),
            logprobs: self.logprobs,
        }
    }
}

impl Request {
    /// Reads the body of a request of `kind`.
    ///
    /// # Errors
    /// [`RequestError`]
    pub fn read(kind: Kind, body: &[u8]) -> Result<Self, RequestError> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            RequestError::new("invalid_json", format!("the body is not JSON (line {line}, column {column})"))
        })?;
        let mut fields = Fields::of("", value).map_err(|_| {
            RequestError::new("invalid_json", "the body is no JSON object; expected {\"model\": …}")
        })?;
        if kind.is_tritons() {
            return generate(kind, fields);
        }
        let missing = |key: &str| RequestError::of(key, "missing_parameter", format!("{key:?} is missing"));
        let model = fields.text("model")?.ok_or_else(|| missing("model"))?;
        let prompt = match kind {
            Kind::Chat => {
                Prompt::Chat(messages(fields.take("messages").ok_or_else(|| missing("messages"))?)?)
            }
            _ => prompts(fields.take("prompt").ok_or_else(|| missing("prompt"))?)?,
        };
        let most = u64::from(u32::MAX);
        let longer = fields.whole("max_completion_tokens", 1, most)?;
        let max_tokens = longer.or(fields.whole("max_tokens", 1, most)?).or(match kind {
            Kind::Chat => None,
            // As the API has it.
            _ => Some(16),
        });
        let logprobs = match kind {
            Kind::Chat => {
                let top = fields.whole("top_logprobs", 0, MOST_LOGPROBS)?;
                match (fields.flag("logprobs")?.unwrap_or(false), top) {
                    (true, top) => Some(top.unwrap_or(0)),
                    (false, None | Some(0)) => None,
                    (false, Some(_)) => {
                        let message = "top_logprobs: expected \"logprobs\": true beside it";
                        return Err(RequestError::of("top_logprobs", "invalid_value", message));
                    }
                }
            }
            _ => fields.whole("logprobs", 0, 5)?,
        };
        let overrides = Overrides {
            logit_bias: fields.take("logit_bias").map(logit_bias).transpose()?.unwrap_or_default(),
            logprobs: logprobs.map(size),
            ..Overrides::read(&mut fields)?
        };
        let stream = fields.flag("stream")?.unwrap_or(false);
        let stream_usage = match fields.take("stream_options") {
            None => false,
            Some(options) => {
                let mut options = Fields::of("stream_options", options)?;
                let usage = options.flag("include_usage")?.unwrap_or(false);
                options.ignore(&["include_obfuscation"]);
                options.end()?;
                usage && stream
            }
        };
        let request = Self {
            kind,
            model,
            prompt,
            answers: size(fields.whole("n", 1, MOST_ANSWERS)?.unwrap_or(1)),
            max_tokens: max_tokens.map(size),
            overrides,
            seed: fields.take("seed").map(seed).transpose()?,
            stop: fields.take("stop").map(stop).transpose()?.unwrap_or_default(),
            stream,
            stream_usage,
            pace_ms: pace(&mut fields, stream)?,
            format: fields.take("response_format").map_or(Ok(Format::Text), format)?,
            repeats_prompt: false,
        };
        fields.refuse("tools", |tools| tools.as_array().is_some_and(Vec::is_empty))?;
        fields.refuse("functions", |tools| tools.as_array().is_some_and(Vec::is_empty))?;
        fields.refuse("tool_choice", |choice| matches!(choice.as_str(), Some("none" | "auto")))?;
        fields.refuse("function_call", |choice| matches!(choice.as_str(), Some("none" | "auto")))?;
        fields.refuse("store", |store| store == &Value::Bool(false))?;
        fields.refuse("echo", |echo| echo == &Value::Bool(false))?;
        fields.refuse("suffix", |suffix| suffix.as_str() == Some(""))?;
        fields.refuse("best_of", |best| best.as_u64() == Some(request.answers as u64))?;
        fields.refuse("modalities", |all| {
            all.as_array().is_some_and(|all| all.iter().all(|one| one == "text"))
        })?;
        // Names and hints for who runs a service; none is kept here.
        fields.ignore(&[
            "user",
            "metadata",
            "parallel_tool_calls",
            "prompt_cache_key",
            "safety_identifier",
            "service_tier",
            "verbosity",
        ]);
        fields.end()?;
        Ok(request)
    }
}

/// A request of Triton's generate extension, with the names of its vLLM and TensorRT-LLM backends. Parameters are members of
/// `parameters`, or of the request itself.
fn generate(kind: Kind, mut fields: Fields) -> Result<Request, RequestError> {
    if let Some(parameters) = fields.take("parameters") {
        fields.join(Fields::of("parameters", parameters)?)?;
    }
    let text = fields.text("text_input")?.ok_or_else(|| {
        RequestError::of("text_input", "missing_parameter", "\"text_input\" is missing; expected the prompt")
    })?;
    let streams = kind == Kind::GenerateStream;
    if fields.flag("stream")?.is_some_and(|stream| stream != streams) {
        let path = if streams { "generate" } else { "generate_stream" };
        let message = format!("stream: expected {streams} here; send it to …/{path}");
        return Err(RequestError::of("stream", "invalid_value", message));
    }
    let stops = fields.take("stop").or(fields.take("stop_words"));
    // As the vLLM backend has it.
    let repeats_prompt = !fields.flag("exclude_input_in_output")?.unwrap_or(streams);
    if repeats_prompt && streams {
        let message = "exclude_input_in_output: expected true, or nothing, in a stream";
        return Err(RequestError::of("exclude_input_in_output", "invalid_value", message));
    }
    let request = Request {
        kind,
        model: String::new(),
        prompt: Prompt::Texts(vec![text]),
        answers: 1,
        max_tokens: Some(size(fields.whole("max_tokens", 1, u64::from(u32::MAX))?.unwrap_or(16))),
        overrides: Overrides::read(&mut fields)?,
        seed: fields.take("seed").or(fields.take("random_seed")).map(seed).transpose()?,
        stop: stops.map(stop).transpose()?.unwrap_or_default(),
        stream: streams,
        stream_usage: false,
        pace_ms: pace(&mut fields, streams)?,
        format: Format::Text,
        repeats_prompt,
    };
    fields.ignore(&["id"]);
    fields.end()?;
    Ok(request)
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn messages(value: Value) -> Result<Vec<Message>, RequestError> {
    let list = list("messages", value, "an array of messages", MOST_MESSAGES)?;
    list.into_iter().enumerate().map(|(index, value)| message(&format!("messages[{index}]"), value)).collect()
}

/// A list with one item at least, and not too many.
fn list(path: &str, value: Value, expected: &str, most: usize) -> Result<Vec<Value>, RequestError> {
    match value {
        Value::Array(items) if items.is_empty() => {
            Err(RequestError::of(path, "invalid_value", format!("{path}: expected {expected}, found none")))
        }
        Value::Array(items) if items.len() > most => {
            let message = format!("{path}: expected {most} at most, found {}", items.len());
            Err(RequestError::of(path, "invalid_value", message))
        }
        Value::Array(items) => Ok(items),
        other => Err(wrong(path, expected, &other)),
    }
}

fn message(path: &str, value: Value) -> Result<Message, RequestError> {
    let mut fields = Fields::of(path, value)?;
    let role = match fields.text("role")?.as_deref() {
        Some("system") => Role::System,
        Some("developer") => Role::Developer,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        _ => {
            let path = fields.path("role");
            let message = format!("{path}: expected system, developer, user, assistant or tool");
            return Err(RequestError::of(path, "invalid_value", message));
        }
    };
    let path_of_content = fields.path("content");
    let content = match fields.take("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for (index, part) in parts.into_iter().enumerate() {
                let mut part = Fields::of(&format!("{path_of_content}[{index}]"), part)?;
                if part.text("type")?.as_deref() != Some("text") {
                    let path = part.path("type");
                    let message =
                        format!("{path}: expected \"text\": this server takes no images, sounds or files");
                    return Err(RequestError::of(path, "unsupported_parameter", message));
                }
                let missing = part.path("text");
                text.push_str(&part.text("text")?.ok_or_else(|| {
                    RequestError::of(missing.clone(), "missing_parameter", format!("{missing} is missing"))
                })?);
                part.end()?;
            }
            text
        }
        // An assistant that only called tools said nothing.
        None if role == Role::Assistant => String::new(),
        None => {
            let message = format!("{path_of_content} is missing");
            return Err(RequestError::of(path_of_content, "missing_parameter", message));
        }
        Some(other) => return Err(wrong(&path_of_content, "a string or an array of parts", &other)),
    };
    fields.refuse("tool_calls", |calls| calls.as_array().is_some_and(Vec::is_empty))?;
    fields.refuse("function_call", Value::is_null)?;
    fields.ignore(&["name", "refusal", "annotations", "audio", "tool_call_id"]);
    fields.end()?;
    Ok(Message { role, content })
}

fn prompts(value: Value) -> Result<Prompt, RequestError> {
    let expected = "a string, an array of strings or an array of token numbers";
    let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
    match value {
        Value::String(text) => Ok(Prompt::Texts(vec![text])),
        Value::Array(items) if items.first().is_some_and(Value::is_number) => {
            let tokens: Option<Vec<u32>> = items.iter().map(token).collect();
            let invalid =
                || RequestError::of("prompt", "invalid_value", format!("prompt: expected {expected}"));
            Ok(Prompt::Tokens(vec![tokens.ok_or_else(invalid)?]))
        }
        value => {
            let items = list("prompt", value, expected, size(MOST_ANSWERS))?;
            if items.iter().all(Value::is_array) {
                let tokens: Option<Vec<Vec<u32>>> = items
                    .iter()
                    .map(|item| item.as_array().into_iter().flatten().map(token).collect())
                    .collect();
                let invalid =
                    || RequestError::of("prompt", "invalid_value", format!("prompt: expected {expected}"));
                return Ok(Prompt::Tokens(tokens.ok_or_else(invalid)?));
            }
            let text = |(index, item): (usize, Value)| match item {
                Value::String(text) => Ok(text),
                other => Err(wrong(&format!("prompt[{index}]"), "a string", &other)),
            };
            Ok(Prompt::Texts(items.into_iter().enumerate().map(text).collect::<Result<_, _>>()?))
        }
    }
}

fn logit_bias(value: Value) -> Result<Vec<(u32, f32)>, RequestError> {
    let expected = "an object of token numbers, each with a number from -100 to 100";
    let Value::Object(entries) = value else { return Err(wrong("logit_bias", expected, &value)) };
    if entries.len() > MOST_BIASES {
        let message = format!("logit_bias: expected {MOST_BIASES} tokens at most, found {}", entries.len());
        return Err(RequestError::of("logit_bias", "invalid_value", message));
    }
    let invalid =
        || RequestError::of("logit_bias", "invalid_value", format!("logit_bias: expected {expected}"));
    #[allow(clippy::cast_possible_truncation)]
    let entry = |(token, bias): (&String, &Value)| {
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias))?;
        Some((token.parse::<u32>().ok()?, bias as f32))
    };
    let mut all = entries.iter().map(entry).collect::<Option<Vec<_>>>().ok_or_else(invalid)?;
    // The same token in two spellings; the order of an object means nothing.
    all.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    all.dedup_by_key(|(token, _)| *token);
    Ok(all)
}

fn seed(value: Value) -> Result<u64, RequestError> {
    // Any whole number of 64 bits.
    let number = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    number.ok_or_else(|| wrong("seed", "a whole number of 64 bits", &value))
}

fn pace(fields: &mut Fields, stream: bool) -> Result<Option<u64>, RequestError> {
    let pace = fields.whole("pace_ms", LEAST_PACE, MOST_PACE)?;
    if pace.is_some() && !stream {
        let message =
            "pace_ms: expected an answer that is streamed (\"stream\": true): others come in one piece";
        return Err(RequestError::of("pace_ms", "invalid_value", message));
    }
    Ok(pace)
}

fn stop(value: Value) -> Result<Vec<String>, RequestError> {
    let expected = "a string or an array of strings";
    let texts = match value {
        Value::String(text) => vec![text],
        Value::Array(items) if items.is_empty() => Vec::new(),
        other => {
            let text = |(index, item): (usize, Value)| match item {
                Value::String(text) => Ok(text),
                other => Err(wrong(&format!("stop[{index}]"), "a string", &other)),
            };
            list("stop", other, expected, MOST_STOPS)?
                .into_iter()
                .enumerate()
                .map(text)
                .collect::<Result<_, _>>()?
        }
    };
    if texts.iter().any(|text| text.is_empty() || text.len() > LONGEST_STOP) {
        let message = format!("stop: expected strings of 1 to {LONGEST_STOP} bytes");
        return Err(RequestError::of("stop", "invalid_value", message));
    }
    Ok(texts)
}

fn format(value: Value) -> Result<Format, RequestError> {
    let mut fields = Fields::of("response_format", value)?;
    let format = match fields.text("type")?.as_deref() {
        Some("text") => Format::Text,
        Some("json_object") => Format::Json,
        Some("json_schema") => {
            let path = "response_format.json_schema";
            let schema = fields.take("json_schema");
            let missing = || RequestError::of(path, "missing_parameter", format!("{path} is missing"));
            let mut schema = Fields::of(path, schema.ok_or_else(missing)?)?;
            schema.ignore(&["name", "description", "strict"]);
            let found = schema.take("schema");
            schema.end()?;
            Format::Schema(found.unwrap_or_else(|| Value::Object(serde_json::Map::new())))
        }
        _ => {
            let message = "response_format.type: expected text, json_object or json_schema";
            return Err(RequestError::of("response_format.type", "invalid_value", message));
        }
    };
    fields.end()?;
    Ok(format)
}

/// As the API has it.
const MOST_LOGPROBS: u64 = 20;
const MOST_STOPS: usize = 4;
/// Each is a prompt to be remembered.
const MOST_ANSWERS: u64 = 8;
const MOST_MESSAGES: usize = 4096;
const MOST_BIASES: usize = 1024;
const LONGEST_STOP: usize = 256;
/// Milliseconds.
const LEAST_PACE: u64 = 10;
const MOST_PACE: u64 = 1000;

#[cfg(test)]
mod tests;
