//! The part of Triton's `config.pbtxt` that this server honours. What it does not is an error that names the field:
//! a setting that is read and not followed would be worse.

mod text;

use confonnx_tensor::DataType;

use text::{Field, Value};

/// A model's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelConfig {
    /// Its name, if it says one.
    pub name: Option<String>,
    /// The largest batch; 0: the model has no batch dimension.
    pub max_batch_size: u32,
    /// What it says of inputs.
    pub inputs: Vec<TensorConfig>,
    /// What it says of outputs.
    pub outputs: Vec<TensorConfig>,
    /// Which versions are served.
    pub version_policy: VersionPolicy,
    /// Whether requests are batched, and how.
    pub dynamic_batching: Option<DynamicBatching>,
    /// How many requests run at once, all instance groups together.
    pub instances: Option<usize>,
    /// How long one run may take, in seconds.
    pub inference_timeout_s: Option<u64>,
    /// What to run before the model is served.
    pub warmup: Vec<Warmup>,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorConfig {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DataType,
    /// Its dimensions, without that of the batch if there are batches; -1 is any size.
    pub dims: Vec<i64>,
}

/// Which versions are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// As many of the highest versions.
    Latest(usize),
    /// All there are.
    All,
    /// The versions that are named.
    Specific(Vec<u64>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(1)
    }
}

/// How requests are batched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DynamicBatching {
    /// Sizes worth waiting for.
    pub preferred_batch_size: Vec<u32>,
    /// How long a request waits for others, in microseconds.
    pub max_queue_delay_us: u64,
}

/// A request of zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// Its name, for messages.
    pub name: String,
    /// Its batch; 0 or 1 when the model has none.
    pub batch_size: u32,
    /// How often it is run.
    pub count: u32,
    /// Its tensors.
    pub inputs: Vec<TensorConfig>,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelConfigError {
    /// It is not protobuf's text format.
    #[error("line {line}: expected {expected}, found {found}")]
    Syntax {
        /// From 1.
        line: usize,
        /// What should be there.
        expected: &'static str,
        /// What is.
        found: String,
    },
    /// A field that is not read here.
    #[error("line {line}: the field {field:?} is not supported here; supported are {}", known.join(", "))]
    Unknown {
        /// From 1.
        line: usize,
        /// The field.
        field: String,
        /// The fields that are read.
        known: &'static [&'static str],
    },
    /// A field that can be there once only.
    #[error("line {line}: {field:?} is given again; expected once")]
    Repeated {
        /// From 1.
        line: usize,
        /// The field.
        field: String,
    },
    /// A field that has to be there.
    #[error("line {line}: expected the field {field:?}")]
    Missing {
        /// From 1, where the message begins that lacks it.
        line: usize,
        /// The field.
        field: &'static str,
    },
    /// A value that cannot be used.
    #[error("line {line}: {field:?} is {found}; expected {expected}")]
    Value {
        /// From 1.
        line: usize,
        /// The field.
        field: String,
        /// What is allowed.
        expected: &'static str,
        /// What is there.
        found: String,
    },
}

impl ModelConfig {
    /// Reads the text of a `config.pbtxt`.
    ///
    /// # Errors
    /// [`ModelConfigError`]
    pub fn parse(text: &str) -> Result<Self, ModelConfigError> {
        let fields = text::parse(text)?;
        let message = Message { line: 1, fields: &fields, known: MODEL };
        message.check()?;
        message.word(
            "platform",
            |name| matches!(name, "onnxruntime_onnx" | "onnxruntime"),
            "onnxruntime_onnx",
        )?;
        message.word("backend", |name| name == "onnxruntime", "onnxruntime")?;
        let max_batch_size = message.number("max_batch_size", 0, i64::from(u32::MAX >> 1), "0 or more")?;
        let config = Self {
            name: message.string("name")?,
            max_batch_size: max_batch_size.unwrap_or_default(),
            inputs: message.messages("input", PORT)?.iter().map(port).collect::<Result<_, _>>()?,
            outputs: message.messages("output", PORT)?.iter().map(port).collect::<Result<_, _>>()?,
            version_policy: version_policy(&message)?,
            dynamic_batching: dynamic_batching(&message)?,
            instances: instances(&message)?,
            inference_timeout_s: inference_timeout(&message)?,
            warmup: message.messages("model_warmup", WARMUP)?.iter().map(warmup).collect::<Result<_, _>>()?,
        };
        match (&config.dynamic_batching, config.max_batch_size, message.one("dynamic_batching")?) {
            (Some(_), 0, Some(field)) => Err(ModelConfigError::Value {
                line: field.line,
                field: "dynamic_batching".into(),
                expected: "a max_batch_size of 1 or more with it",
                found: "given".into(),
            }),
            _ => Ok(config),
        }
    }
}

fn port(message: &Message<'_>) -> Result<TensorConfig, ModelConfigError> {
    let name = message.required("name", message.string("name")?)?;
    Ok(TensorConfig { name, dtype: dtype(message)?, dims: dims(message)? })
}

fn version_policy(message: &Message<'_>) -> Result<VersionPolicy, ModelConfigError> {
    let Some(policy) = message.message("version_policy", POLICY)? else {
        return Ok(VersionPolicy::default());
    };
    let mut chosen = Vec::new();
    if let Some(latest) = policy.message("latest", &["num_versions"])? {
        let count = latest.number("num_versions", 1, i64::from(u32::MAX), "1 or more")?;
        chosen.push(VersionPolicy::Latest(count.unwrap_or(1)));
    }
    if policy.message("all", &[])?.is_some() {
        chosen.push(VersionPolicy::All);
    }
    if let Some(specific) = policy.message("specific", &["versions"])? {
        let versions = specific.numbers("versions", 1, i64::MAX, "version numbers, 1 or more")?;
        chosen.push(VersionPolicy::Specific(versions));
    }
    match chosen.pop() {
        Some(only) if chosen.is_empty() => Ok(only),
        _ => Err(ModelConfigError::Value {
            line: policy.line,
            field: "version_policy".into(),
            expected: "one of latest, all and specific",
            found: "none or several".into(),
        }),
    }
}

fn dynamic_batching(message: &Message<'_>) -> Result<Option<DynamicBatching>, ModelConfigError> {
    let Some(batching) = message.message("dynamic_batching", BATCHING)? else { return Ok(None) };
    let delay = batching.number("max_queue_delay_microseconds", 0, MAX_DELAY_US, "at most a minute")?;
    Ok(Some(DynamicBatching {
        preferred_batch_size: batching.numbers(
            "preferred_batch_size",
            1,
            i64::from(u32::MAX),
            "1 or more",
        )?,
        max_queue_delay_us: delay.unwrap_or_default(),
    }))
}

fn instances(message: &Message<'_>) -> Result<Option<usize>, ModelConfigError> {
    let groups = message.messages("instance_group", GROUP)?;
    let mut sum = 0_usize;
    for group in &groups {
        group.word("kind", |kind| matches!(kind, "KIND_CPU" | "KIND_AUTO"), "KIND_CPU; there is no other")?;
        let count: Option<usize> = group.number("count", 1, 1024, "1 to 1024")?;
        sum = sum.saturating_add(count.unwrap_or(1));
    }
    Ok((!groups.is_empty()).then_some(sum))
}

/// `parameters { key: "inference_timeout_s" value { string_value: "5" } }`
fn inference_timeout(message: &Message<'_>) -> Result<Option<u64>, ModelConfigError> {
    let mut timeout = None;
    for parameter in message.messages("parameters", &["key", "value"])? {
        let key = parameter.required("key", parameter.string("key")?)?;
        let value = parameter.message("value", &["string_value"])?;
        let value = value.map(|value| value.string("string_value")).transpose()?.flatten();
        let value = parameter.required("value", value)?;
        let wrong = |field: &str, expected, found| ModelConfigError::Value {
            line: parameter.line,
            field: field.into(),
            expected,
            found,
        };
        if key != TIMEOUT {
            return Err(wrong("key", "\"inference_timeout_s\", the only parameter there is", key));
        }
        let seconds = value.parse().ok().filter(|seconds| (1..=86_400).contains(seconds));
        timeout = Some(seconds.ok_or_else(|| wrong(TIMEOUT, "seconds from 1 to 86400", value))?);
    }
    Ok(timeout)
}

const TIMEOUT: &str = "inference_timeout_s";

fn warmup(message: &Message<'_>) -> Result<Warmup, ModelConfigError> {
    let input = |entry: &Message<'_>| {
        let name = entry.required("key", entry.string("key")?)?;
        let value = entry.required("value", entry.message("value", WARMUP_VALUE)?)?;
        let zero = value.required("zero_data", value.one("zero_data")?)?;
        match &zero.value {
            Value::Word(word) if word == "true" => {}
            found => return Err(wrong(zero, "true: warm-up is with zeros", found)),
        }
        Ok(TensorConfig { name, dtype: dtype(&value)?, dims: dims(&value)? })
    };
    Ok(Warmup {
        name: message.string("name")?.unwrap_or_default(),
        batch_size: message
            .number("batch_size", 0, i64::from(u32::MAX >> 1), "0 or more")?
            .unwrap_or_default(),
        count: message.number("count", 0, 1000, "0 to 1000")?.unwrap_or(1),
        inputs: message.messages("inputs", &["key", "value"])?.iter().map(input).collect::<Result<_, _>>()?,
    })
}

fn dtype(message: &Message<'_>) -> Result<DataType, ModelConfigError> {
    let field = message.required("data_type", message.one("data_type")?)?;
    let Value::Word(word) = &field.value else { return Err(wrong(field, TYPES, &field.value)) };
    let name = match word.strip_prefix("TYPE_") {
        Some("STRING") => "BYTES",
        Some(name) => name,
        None => word,
    };
    DataType::from_name(name).ok_or_else(|| wrong(field, TYPES, &field.value))
}

fn dims(message: &Message<'_>) -> Result<Vec<i64>, ModelConfigError> {
    message.numbers("dims", -1, i64::MAX, "sizes, -1 for any")
}

/// A message and the fields it may have.
struct Message<'f> {
    line: usize,
    fields: &'f [Field],
    known: &'static [&'static str],
}

impl<'f> Message<'f> {
    fn check(&self) -> Result<(), ModelConfigError> {
        match self.fields.iter().find(|field| !self.known.contains(&field.name.as_str())) {
            None => Ok(()),
            Some(Field { line, name, .. }) => {
                Err(ModelConfigError::Unknown { line: *line, field: name.clone(), known: self.known })
            }
        }
    }

    fn all(&self, name: &'static str) -> impl Iterator<Item = &'f Field> {
        self.fields.iter().filter(move |field| field.name == name)
    }

    fn one(&self, name: &'static str) -> Result<Option<&'f Field>, ModelConfigError> {
        let mut all = self.all(name);
        let first = all.next();
        match all.next() {
            None => Ok(first),
            Some(again) => Err(ModelConfigError::Repeated { line: again.line, field: name.into() }),
        }
    }

    fn required<T>(&self, field: &'static str, value: Option<T>) -> Result<T, ModelConfigError> {
        value.ok_or(ModelConfigError::Missing { line: self.line, field })
    }

    fn string(&self, name: &'static str) -> Result<Option<String>, ModelConfigError> {
        let string = |field: &Field| match &field.value {
            Value::Text(text) => Ok(text.clone()),
            found => Err(wrong(field, "a string in quotes", found)),
        };
        self.one(name)?.map(string).transpose()
    }

    /// A string or bare word that has to satisfy `allowed`.
    fn word(
        &self,
        name: &'static str,
        allowed: impl Fn(&str) -> bool,
        expected: &'static str,
    ) -> Result<(), ModelConfigError> {
        match self.one(name)? {
            Some(Field { value: Value::Text(text) | Value::Word(text), .. }) if allowed(text) => Ok(()),
            Some(field) => Err(wrong(field, expected, &field.value)),
            None => Ok(()),
        }
    }

    fn number<T: TryFrom<i64>>(
        &self,
        name: &'static str,
        least: i64,
        most: i64,
        expected: &'static str,
    ) -> Result<Option<T>, ModelConfigError> {
        self.one(name)?.map(|field| number(field, least, most, expected)).transpose()
    }

    fn numbers<T: TryFrom<i64>>(
        &self,
        name: &'static str,
        least: i64,
        most: i64,
        expected: &'static str,
    ) -> Result<Vec<T>, ModelConfigError> {
        self.all(name).map(|field| number(field, least, most, expected)).collect()
    }

    fn message(
        &self,
        name: &'static str,
        known: &'static [&'static str],
    ) -> Result<Option<Message<'f>>, ModelConfigError> {
        self.one(name)?.map(|field| message(field, known)).transpose()
    }

    fn messages(
        &self,
        name: &'static str,
        known: &'static [&'static str],
    ) -> Result<Vec<Message<'f>>, ModelConfigError> {
        self.all(name).map(|field| message(field, known)).collect()
    }
}

fn message<'f>(field: &'f Field, known: &'static [&'static str]) -> Result<Message<'f>, ModelConfigError> {
    let Value::Message(fields) = &field.value else {
        return Err(wrong(field, "a message in braces", &field.value));
    };
    let message = Message { line: field.line, fields, known };
    message.check()?;
    Ok(message)
}

fn number<T: TryFrom<i64>>(
    field: &Field,
    least: i64,
    most: i64,
    expected: &'static str,
) -> Result<T, ModelConfigError> {
    let wrong = || wrong(field, expected, &field.value);
    let Value::Number(number) = field.value else { return Err(wrong()) };
    if !(least..=most).contains(&number) {
        return Err(wrong());
    }
    T::try_from(number).map_err(|_| wrong())
}

fn wrong(field: &Field, expected: &'static str, found: &Value) -> ModelConfigError {
    ModelConfigError::Value {
        line: field.line,
        field: field.name.clone(),
        expected,
        found: found.to_string(),
    }
}

const MODEL: &[&str] = &[
    "name",
    "platform",
    "backend",
    "max_batch_size",
    "input",
    "output",
    "version_policy",
    "dynamic_batching",
    "instance_group",
    "parameters",
    "model_warmup",
];
const PORT: &[&str] = &["name", "data_type", "dims"];
const POLICY: &[&str] = &["latest", "all", "specific"];
const BATCHING: &[&str] = &["preferred_batch_size", "max_queue_delay_microseconds"];
const GROUP: &[&str] = &["name", "count", "kind"];
const WARMUP: &[&str] = &["name", "batch_size", "inputs", "count"];
const WARMUP_VALUE: &[&str] = &["data_type", "dims", "zero_data"];
const TYPES: &str =
    "TYPE_BOOL, TYPE_UINT8 to 64, TYPE_INT8 to 64, TYPE_FP16, BF16, FP32, FP64 or TYPE_STRING";
const MAX_DELAY_US: i64 = 60_000_000;

#[cfg(test)]
mod tests;
