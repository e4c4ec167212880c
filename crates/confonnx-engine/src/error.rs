//! What can go wrong, with the values a caller needs to repair it and never a tensor's content.

use std::{fmt, path::PathBuf};

use confonnx_tensor::DataType;

/// Why a runtime or a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The library file could not be read.
    #[error("ONNX Runtime library {path}: {source}; install ONNX Runtime {expected} or give its path", path = path.display())]
    LibraryFile {
        /// Where it was looked for.
        path: PathBuf,
        /// The release line this crate is built for, such as `1.31`.
        expected: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not an ONNX Runtime of the release line this crate is built for. It was not loaded.
    #[error(
        "ONNX Runtime library {path}: expected version {expected}.x, found {found}; install ONNX Runtime {expected}",
        path = path.display(), found = found.as_deref().unwrap_or("no ONNX Runtime version in the file")
    )]
    LibraryVersion {
        /// The file that was read.
        path: PathBuf,
        /// Major and minor version needed.
        expected: String,
        /// The version the file declares, if any.
        found: Option<String>,
    },
    /// The system's loader refused the library.
    #[error("ONNX Runtime library {path}: the file was read but could not be loaded: {reason}", path = path.display())]
    LibraryLoad {
        /// The file that was read.
        path: PathBuf,
        /// The loader's message.
        reason: String,
    },
    /// ONNX Runtime allows one environment in a process, ever.
    #[error("ONNX Runtime is already loaded in this process; share the first `Runtime`")]
    AlreadyLoaded,
    /// The environment or a session option was refused.
    #[error("ONNX Runtime could not be set up: {0}")]
    Setup(Category),
    /// The bytes are not an ONNX model: truncated, or something else altogether.
    #[error("the model is not a valid ONNX file: {0}; expected a complete serialized ModelProto")]
    Malformed(Category),
    /// The model needs an operator or operator set that this ONNX Runtime does not have.
    #[error(
        "the model needs {what}, which ONNX Runtime {runtime} does not support; export it for an older opset or without it"
    )]
    Unsupported {
        /// An operator with its version, an operator set, or "an operator or type".
        what: String,
        /// Version of the loaded runtime.
        runtime: String,
    },
    /// A node's input comes from nowhere.
    #[error(
        "a node of the model takes an input that is no input of the graph, no initializer and no output of a node before it"
    )]
    NoSource,
    /// An operator is given types that do not go together.
    #[error(
        "the operator `{operator}` is given elements of two types, {one} and {other}; expected one type, see the operator's inputs"
    )]
    Types {
        /// The operator.
        operator: String,
        /// A type, as ONNX Runtime calls it.
        one: String,
        /// Another.
        other: String,
    },
    /// The system lacks a locale.
    #[error(
        "the model needs the locale `{name}`, which this system does not have; install it (Debian, Ubuntu: package locales)"
    )]
    Locale {
        /// As the system calls it.
        name: String,
    },
    /// The model parsed but ONNX Runtime refused it.
    #[error("ONNX Runtime refused the model: {0}; check it with `onnx.checker.check_model`")]
    Refused(Category),
    /// What is wrong is in the encoder's file.
    #[error("the encoder: {0}")]
    OfEncoder(Box<EngineError>),
    /// An encoder is named for a model that does not go on with what one reads.
    #[error(
        "the model has an encoder, but is not the decoder of one: expected the inputs input_ids, encoder_hidden_states, \
         past_key_values.N.decoder.key and .value, past_key_values.N.encoder.key and .value, use_cache_branch, and the outputs \
         logits and present.… (decoder_model_merged.onnx of Hugging Face optimum and transformers.js), with numbers of heads and \
         their sizes in the graph"
    )]
    NotADecoder,
    /// The decoder fails on what the encoder says.
    #[error("the model fails on what its encoder reads: {0}; take both from one export")]
    Encoder(InferError),
    /// An input or output is not a dense tensor of a type the protocol names.
    #[error(
        "model {direction} `{name}` is {found}; expected a tensor of BOOL, UINT8-64, INT8-64, FP16, BF16, FP32, FP64 or BYTES"
    )]
    InputOutput {
        /// `input` or `output`.
        direction: &'static str,
        /// The input's or output's name in the model.
        name: String,
        /// The type that it has in the model.
        found: String,
    },
    /// No box can be made for models.
    #[error(
        "no process can be set apart for models: {0}; --engine in-process does without, and clients see that in the claims"
    )]
    NoBox(String),
    /// What the box says of the model that it does not take.
    #[error("{0}")]
    Boxed(String),
}

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// An input of the model was not given.
    #[error("missing input `{name}`; the model takes {expected}", expected = Names(expected))]
    MissingInput {
        /// The input that is missing.
        name: String,
        /// All inputs of the model.
        expected: Vec<String>,
    },
    /// An input was given that the model does not have.
    #[error("unknown input `{name}`; the model takes {expected}", expected = Names(expected))]
    UnknownInput {
        /// The name given.
        name: String,
        /// All inputs of the model.
        expected: Vec<String>,
    },
    /// The same input was given twice.
    #[error("input `{name}` is given more than once")]
    DuplicateInput {
        /// The name given.
        name: String,
    },
    /// An input has another element type than the model's.
    #[error("input `{name}` is {found}, expected {expected}", found = found.name(), expected = expected.name())]
    InputType {
        /// The input.
        name: String,
        /// The model's type.
        expected: DataType,
        /// The type given.
        found: DataType,
    },
    /// An input's rank or a fixed dimension differs from the model's (where -1 is any size).
    #[error("input `{name}` has shape {found:?}, expected {expected:?} (-1: any size)")]
    InputShape {
        /// The input.
        name: String,
        /// The model's shape.
        expected: Vec<i64>,
        /// The shape given.
        found: Vec<u64>,
    },
    /// An element is not a value of its type.
    #[error("input `{name}`: element {element} {fault}")]
    InputValue {
        /// The input.
        name: String,
        /// Index of the element in row-major order.
        element: usize,
        /// What is wrong with it.
        fault: ValueFault,
    },
    /// An output was asked for that the model does not have.
    #[error("unknown output `{name}`; the model gives {expected}", expected = Names(expected))]
    UnknownOutput {
        /// The name given.
        name: String,
        /// All outputs of the model.
        expected: Vec<String>,
    },
    /// The same output was asked for twice.
    #[error("output `{name}` is asked for more than once")]
    DuplicateOutput {
        /// The name given.
        name: String,
    },
    /// The model answered with something that cannot be sent.
    #[error("output `{name}` is not a tensor of a type the protocol names")]
    OutputType {
        /// The output.
        name: String,
    },
    /// ONNX Runtime failed while it ran the model, usually on values the model cannot take.
    #[error("the model failed while running: {0}; check the input values against what the model expects")]
    Runtime(Category),
    /// The process that ran the model ended, and with it the run.
    #[error("the model's process ended while it ran this request; it is started again")]
    Crashed,
    /// The run took too long.
    #[error("the model was not done after {seconds} s, which is the limit (--inference-timeout)")]
    Timeout {
        /// The limit.
        seconds: u64,
    },
    /// The answer has more bytes than are taken.
    #[error(
        "the answer has {found} bytes of tensors, and this server takes at most {expected} (--max-held-bytes)"
    )]
    TooLong {
        /// What the model gives.
        found: u64,
        /// The limit.
        expected: u64,
    },
    /// The process that runs the model is being started again.
    #[error("the model's process is being started again; try again later")]
    Restarting,
    /// What a box says of a request that does not fit its model.
    #[error("{0}")]
    BoxedInput(String),
    /// What a box says of a run that failed.
    #[error("{0}")]
    BoxedRun(String),
}

/// How one element is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueFault {
    /// A BYTES element that is not UTF-8, which ONNX strings are.
    Utf8,
}

impl fmt::Display for ValueFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Utf8 => "is not UTF-8, which the strings of an ONNX model are",
        })
    }
}

/// ONNX Runtime's error category: all of its errors that is safe to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Category(ort::ErrorCode);

impl<R> From<&ort::Error<R>> for Category {
    fn from(error: &ort::Error<R>) -> Self {
        Self(error.code())
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ort::ErrorCode as C;
        f.write_str(match self.0 {
            C::InvalidArgument => "invalid argument",
            C::NoSuchFile => "no such file",
            C::NoModel => "no model",
            C::EngineError => "engine error",
            C::RuntimeException => "runtime exception",
            C::InvalidProtobuf => "invalid protobuf",
            C::NotImplemented => "not implemented",
            C::InvalidGraph => "invalid graph",
            C::ExecutionProviderFailure => "execution provider failure",
            _ => "general failure",
        })
    }
}

/// A list of names as a sentence has them.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, name) in self.0.iter().enumerate() {
            write!(f, "{}`{name}`", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
