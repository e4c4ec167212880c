//! The messages of `/v1/embeddings`.

use base64ct::{Base64, Encoding as _};
use confonnx_tensor::Erased;
use serde_json::{Value, json};

use crate::openai::{
    RequestError,
    read::{Fields, erase, wrong},
};

/// A request for vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The model's name.
    pub model: String,
    /// The texts to make vectors of.
    pub input: Input,
    /// How they are to be written.
    pub encoding: Encoding,
    /// How many numbers each vector has; all if it is not said.
    pub dimensions: Option<usize>,
    /// Whether what is too long is to be cut.
    pub truncate: bool,
    /// The model's prompt to put before each text, instead of the one that is put there by default.
    pub prompt_name: Option<String>,
}

/// What vectors are to be of.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Texts.
    Texts(Erased<Vec<String>>),
    /// Tokens of the model, to which nothing is added.
    Tokens(Erased<Vec<Vec<u32>>>),
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As numbers.
    Float,
    /// As 32-bit floats in little-endian order, in base64.
    Base64,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// [`RequestError`]
    pub fn read(body: &[u8]) -> Result<Self, RequestError> {
        // A body that is read takes several times its room.
        if body.len() > MOST_BODY {
            let message = format!("expected a body of {MOST_BODY} bytes at most, found {}", body.len());
            return Err(RequestError::new("invalid_value", message));
        }
        let value = serde_json::from_slice(body)
            .map_err(|_| RequestError::new("invalid_json", "the body is not JSON; expected an object"))?;
        let mut fields = Fields::of("", value)?;
        let missing = |name: &str| RequestError::of(name, "missing_parameter", format!("{name} is missing"));
        let request = Self {
            model: fields.text("model")?.ok_or_else(|| missing("model"))?,
            input: input(fields.take("input").ok_or_else(|| missing("input"))?)?,
            encoding: encoding(fields.text("encoding_format")?)?,
            dimensions: fields
                .whole("dimensions", 1, MOST_DIMENSIONS)?
                .and_then(|number| usize::try_from(number).ok()),
            truncate: truncate(fields.take("truncate"))?,
            prompt_name: fields.text("prompt_name")?,
        };
        fields.ignore(&["user"]);
        fields.end()?;
        Ok(request)
    }
}

fn encoding(name: Option<String>) -> Result<Encoding, RequestError> {
    match name.as_deref() {
        None | Some("float") => Ok(Encoding::Float),
        Some("base64") => Ok(Encoding::Base64),
        Some(_) => {
            let message = "encoding_format: expected float or base64";
            Err(RequestError::of("encoding_format", "invalid_value", message))
        }
    }
}

fn truncate(value: Option<Value>) -> Result<bool, RequestError> {
    match value {
        None => Ok(false),
        Some(Value::Bool(truncate)) => Ok(truncate),
        Some(Value::String(name)) if name == "NONE" => Ok(false),
        Some(Value::String(name)) if name == "END" => Ok(true),
        Some(other) => Err(wrong("truncate", "true, false, \"END\" or \"NONE\"", &other)),
    }
}

fn input(mut value: Value) -> Result<Input, RequestError> {
    let input = taken(&mut value);
    // Numbers, and what was refused.
    erase(&mut value);
    input
}

/// Takes the texts out of `value`, which is left for whoever erases it.
fn taken(value: &mut Value) -> Result<Input, RequestError> {
    const EXPECTED: &str = "a string, an array of strings, of token numbers or of arrays of these";
    let invalid = |message: String| RequestError::of("input", "invalid_value", message);
    let items = match value {
        Value::String(text) => return texts(vec![std::mem::take(text)].into()),
        Value::Array(items) => items,
        other => return Err(wrong("input", EXPECTED, other)),
    };
    if items.first().is_some_and(Value::is_number) {
        return Ok(Input::Tokens(vec![tokens(items, EXPECTED)?.take()].into()));
    }
    if items.is_empty() || items.len() > MOST_INPUTS {
        let found = items.len();
        return Err(invalid(format!("input: expected 1 to {MOST_INPUTS} inputs, found {found}")));
    }
    if items.iter().all(Value::is_array) {
        let mut all = Erased::new(Vec::with_capacity(items.len()));
        for item in items {
            all.push(tokens(item.as_array().map_or(&[][..], Vec::as_slice), EXPECTED)?.take());
        }
        return Ok(Input::Tokens(all));
    }
    let mut all = Erased::new(Vec::with_capacity(items.len()));
    for (index, item) in items.iter_mut().enumerate() {
        match item {
            Value::String(text) => all.push(std::mem::take(text)),
            other => return Err(wrong(&format!("input[{index}]"), "a string", other)),
        }
    }
    texts(all)
}

fn texts(texts: Erased<Vec<String>>) -> Result<Input, RequestError> {
    let invalid = |message: String| RequestError::of("input", "invalid_value", message);
    if let Some(index) = texts.iter().position(String::is_empty) {
        return Err(invalid(format!("input[{index}]: expected a text, found an empty one")));
    }
    let bytes = texts.iter().map(String::len).fold(0, usize::saturating_add);
    if bytes > MOST_BYTES {
        return Err(invalid(format!("input: expected {MOST_BYTES} bytes at most, found {bytes}")));
    }
    Ok(Input::Texts(texts))
}

fn tokens(items: &[Value], expected: &str) -> Result<Erased<Vec<u32>>, RequestError> {
    let mut tokens = Erased::new(Vec::with_capacity(items.len()));
    for item in items {
        let token = item.as_u64().and_then(|token| u32::try_from(token).ok());
        tokens.push(token.ok_or_else(|| {
            RequestError::of("input", "invalid_value", format!("input: expected {expected}"))
        })?);
    }
    Ok(tokens)
}

/// The answer: the vectors in the order of the inputs, which had `tokens` in all.
pub fn answer(
    model: &str,
    vectors: &[Erased<Vec<f32>>],
    encoding: Encoding,
    tokens: usize,
) -> Erased<Vec<u8>> {
    let name = Value::from(model).to_string();
    let mut out = Erased::new(Vec::new());
    let each = vectors.first().map_or(0, |vector| vector.len().saturating_mul(14).saturating_add(64));
    out.reserve_total(each.saturating_mul(vectors.len()).saturating_add(256));
    out.append(br#"{"object":"list","data":["#);
    for (index, vector) in vectors.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        out.append(format!(r#"{comma}{{"object":"embedding","index":{index},"embedding":"#).as_bytes());
        match encoding {
            Encoding::Base64 => {
                let bytes = vector.iter().flat_map(|number| number.to_le_bytes());
                let bytes = Erased::new(bytes.collect::<Vec<u8>>());
                let text = Erased::new(Base64::encode_string(&bytes));
                out.append(b"\"");
                out.append(text.as_bytes());
                out.append(b"\"");
            }
            Encoding::Float => {
                // Numbers only, and what is none as null: writing to memory cannot fail.
                let _ = serde_json::to_writer(&mut out, &**vector);
            }
        }
        out.append(b"}");
    }
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    out.append(format!(r#"],"model":{name},"usage":{usage}}}"#).as_bytes());
    out
}

/// The most inputs, as the API has it.
const MOST_INPUTS: usize = 2048;
/// The most bytes of all texts together: some 300,000 tokens, as the API has it, and more.
const MOST_BYTES: usize = 2 << 20;
/// The most bytes of a body: as many bytes of text, each escaped, and more tokens than those become.
const MOST_BODY: usize = 3 * MOST_BYTES;
const MOST_DIMENSIONS: u64 = 1 << 16;
