use confonnx_tensor::{DataType, TensorError};

use super::{HEADER_LENGTH, MAX_NAME, MAX_TENSORS};

/// Why a message cannot be read or written. Names tensors, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OipError {
    /// The JSON object is not one, or not of the protocol's form.
    #[error("the inference message's JSON is not valid at line {line}, column {column}: {what}")]
    Json {
        /// What was expected or missing.
        what: String,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// The JSON would be longer than the body.
    #[error("{HEADER_LENGTH} is {header}, but the body has only {body} bytes")]
    HeaderLength {
        /// What the field says.
        header: usize,
        /// How many bytes the body has.
        body: usize,
    },
    /// The JSON length is zero: the extension's bare-tensor form.
    #[error("{HEADER_LENGTH} is 0; send the JSON object that describes the tensors before their bytes")]
    NoHeader,
    /// A tensor says it is binary, but nothing follows the JSON.
    #[error("tensor {name:?} has binary_data_size, but the {HEADER_LENGTH} field is missing")]
    HeaderMissing {
        /// The tensor.
        name: String,
    },
    /// A tensor's binary data goes past the end of the body.
    #[error("tensor {name:?} has a binary_data_size of {size}, but {left} bytes of the body are left for it")]
    BinaryTruncated {
        /// The tensor.
        name: String,
        /// How many bytes the tensor says that it has.
        size: u64,
        /// How many bytes are left.
        left: usize,
    },
    /// No tensor claims the last bytes of the body.
    #[error("{left} bytes of the body are left after the last tensor with binary_data_size")]
    BinarySurplus {
        /// How many bytes nobody claims.
        left: usize,
    },
    /// There are more than [`MAX_TENSORS`].
    #[error("the message has more than {MAX_TENSORS} {what}")]
    TooMany {
        /// `inputs` or `outputs`.
        what: &'static str,
    },
    /// A name is empty or longer than [`MAX_NAME`].
    #[error("the name of {what} {index} has {len} bytes; expected 1 to {MAX_NAME}")]
    NameLength {
        /// `input` or `output`.
        what: &'static str,
        /// The element's position, from 0.
        index: usize,
        /// How many bytes were found.
        len: usize,
    },
    /// Two inputs, or two outputs, have one name.
    #[error("{what} {name:?} is given twice")]
    Duplicate {
        /// `input` or `output`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The type is not one of the protocol's.
    #[error("tensor {name:?} has an unknown datatype; expected BOOL, UINT8, … FP32, FP64 or BYTES")]
    DataType {
        /// The tensor.
        name: String,
    },
    /// A dimension is negative.
    #[error("tensor {name:?} has a negative dimension at {index}; tensors need concrete shapes")]
    Dimension {
        /// The tensor.
        name: String,
        /// Position in its shape.
        index: usize,
    },
    /// A tensor has neither JSON nor binary data.
    #[error("tensor {name:?} has no data: give either data or parameters.binary_data_size")]
    NoData {
        /// The tensor.
        name: String,
    },
    /// A tensor has both JSON and binary data.
    #[error("tensor {name:?} has both data and parameters.binary_data_size: give one")]
    TwoData {
        /// The tensor.
        name: String,
    },
    /// `data` is no array, or its arrays are not all nested to one depth.
    #[error(
        "the data of tensor {name:?} is not an array, flat or nested to one depth, after element {index}"
    )]
    Nesting {
        /// The tensor.
        name: String,
        /// Elements read before.
        index: usize,
    },
    /// An element is not of the tensor's type, or out of its range.
    #[error("element {index} of tensor {name:?} is not a {dtype} value that JSON can carry")]
    Element {
        /// The tensor.
        name: String,
        /// The tensor's type.
        dtype: DataType,
        /// Position of the element.
        index: usize,
    },
    /// There are more or fewer elements than the shape has.
    #[error("the data of tensor {name:?} has {found} elements; its shape needs {expected}")]
    Count {
        /// The tensor.
        name: String,
        /// How many elements the shape needs.
        expected: usize,
        /// How many elements were found; reading stops at one too many.
        found: usize,
    },
    /// Shape and bytes do not agree.
    #[error("tensor {name:?}: {error}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with the tensor.
        error: TensorError,
    },
    /// An output's value has no form in JSON: NaN, an infinity, or bytes that are not UTF-8.
    #[error("element {index} of output {name:?} has no JSON form; ask for it with parameters.binary_data")]
    NotJson {
        /// The output.
        name: String,
        /// Position of the element.
        index: usize,
    },
}

impl OipError {
    /// What serde_json says, without the value that it may quote: the part up to ", expected" does that.
    pub(super) fn json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
        let what = match text.rsplit_once(", expected ") {
            Some((_, expected)) => format!("expected {expected}"),
            None if error.is_data()
                && !text.starts_with("missing field")
                && !text.starts_with("duplicate field") =>
            {
                "a member has the wrong type".into()
            }
            None => text.into(),
        };
        Self::Json { what, line: error.line(), column: error.column() }
    }
}

impl OipError {
    /// The reason in a word or two, as `vectors/` names it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Json { .. } => "json",
            Self::HeaderLength { .. } => "header-length",
            Self::NoHeader => "no-header",
            Self::HeaderMissing { .. } => "header-missing",
            Self::BinaryTruncated { .. } => "binary-truncated",
            Self::BinarySurplus { .. } => "binary-surplus",
            Self::TooMany { .. } => "too-many",
            Self::NameLength { .. } => "name-length",
            Self::Duplicate { .. } => "duplicate",
            Self::DataType { .. } => "data-type",
            Self::Dimension { .. } => "dimension",
            Self::NoData { .. } => "no-data",
            Self::TwoData { .. } => "two-data",
            Self::Nesting { .. } => "nesting",
            Self::Element { .. } => "element",
            Self::Count { .. } => "count",
            Self::Tensor { .. } => "tensor",
            Self::NotJson { .. } => "not-json",
        }
    }
}
