use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use confonnx_tensor::DataType;
use prost::Message;

use crate::{
    elem_type::{dtype_from_elem_type, elem_type_name},
    encoder, indices,
    proto::{DimensionValue, ModelProto, TypeProto, ValueInfoProto},
    rows::{IndependentRows, PropertyError},
    state::{self, Kept},
    text,
    zipmap::{self, ClassLabels},
};

/// What a model says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Version of the file format.
    pub ir_version: i64,
    /// Operator sets the model uses.
    pub opsets: Vec<Opset>,
    /// The program that wrote the model; may be empty.
    pub producer_name: String,
    /// Its version; may be empty.
    pub producer_version: String,
    /// Name of the main graph; may be empty.
    pub graph_name: String,
    /// Inputs a caller gives, in the model's order; initializers are left out.
    pub inputs: Vec<ValueInfo>,
    /// Initializers that are inputs, too: a caller may give another value.
    pub optional_inputs: Vec<ValueInfo>,
    /// Outputs, in the model's order.
    pub outputs: Vec<ValueInfo>,
    /// Other files of the model, relative to it: those with its tensors, and its encoder. Sorted, each once, `./w.bin` as
    /// `w.bin`.
    pub external_data: Vec<String>,
    /// Each spelling of a file with tensors in the model, and the file that it names.
    pub spellings: BTreeMap<String, String>,
    /// Operators, each as `Conv` or `com.microsoft:Gelu`.
    pub operators: BTreeSet<String>,
    /// Whether the owner states that rows know nothing of one another.
    pub rows: Option<IndependentRows>,
    /// Inputs that are kept from one request of a sequence to the next.
    pub state: Vec<Kept>,
    /// The one of the other files that reads what the model answers to, if its owner names one.
    pub encoder: Option<String>,
    /// The files that say how a model's text is made, by name: of [`TEXT_FILES`](crate::TEXT_FILES).
    pub text: BTreeMap<String, String>,
    /// What the columns of an output stand for that ends in a `ZipMap`.
    pub class_labels: BTreeMap<String, ClassLabels>,
    /// Inputs that are indices, and of how many.
    pub indices: BTreeMap<String, i64>,
}

/// An operator set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opset {
    /// Empty for ONNX's own.
    pub domain: String,
    /// Its version.
    pub version: i64,
}

/// An input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: DataType,
    /// Its dimensions, outermost first; `None` when the model does not even say how many.
    pub shape: Option<Vec<Dim>>,
}

/// A dimension of a model's input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always this, 0 or more.
    Fixed(i64),
    /// Any size, the same wherever the name stands: `batch`.
    Symbolic(String),
    /// Any size.
    Unknown,
}

/// `28`, `batch` or `?`
impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => size.fmt(f),
            Self::Symbolic(name) => f.write_str(name),
            Self::Unknown => f.write_str("?"),
        }
    }
}

/// Why a file is not a model we can serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Not a protobuf message of ONNX's form.
    #[error("this is not an ONNX model, or it was cut short ({0})")]
    Decode(#[from] prost::DecodeError),
    /// No graph: an empty file, or some other protobuf.
    #[error("this is not an ONNX model: it has no graph")]
    NoGraph,
    /// Nothing at all.
    #[error("the file is empty; expected an ONNX model")]
    Empty,
    /// What Git has instead of a large file.
    #[error("this is a Git LFS pointer, not the model; get the file with `git lfs pull`")]
    LfsPointer,
    /// ONNX Runtime's own format.
    #[error(
        "this is a model in ONNX Runtime's own format (.ort); expected the .onnx file that it was made from"
    )]
    OrtFormat,
    /// A page, as servers answer when a file is not to be had.
    #[error(
        "this is an HTML page, not an ONNX model; it was probably downloaded from a page about the model"
    )]
    Html,
    /// An input or output is a sequence, map, optional or sparse tensor, or has no type.
    #[error("{kind} {name:?} of the model is {found}, not a tensor; only tensors can be sent{}", hint(found))]
    NotATensor {
        /// `input` or `output`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// A metadata property has a value that cannot be used.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// More inputs and outputs than a message can carry.
    #[error("the model has {found} {kind}s; a message carries at most {most}")]
    TooMany {
        /// `input` or `output`.
        kind: &'static str,
        /// How many.
        found: usize,
        /// At most.
        most: usize,
    },
    /// A name that no message can carry.
    #[error("{kind} {index} of the model has a name of {len} bytes; a message carries names of 1 to {most}")]
    NameLength {
        /// `input` or `output`.
        kind: &'static str,
        /// Its position, from 0.
        index: usize,
        /// Bytes of the name.
        len: usize,
        /// At most.
        most: usize,
    },
    /// An input or output has elements that the Open Inference Protocol cannot carry.
    #[error(
        "{kind} {name:?} of the model has elements of type {found}, which the Open Inference Protocol lacks"
    )]
    DataType {
        /// `input` or `output`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// ONNX's name of the type.
        found: String,
    },
    /// External data is not in a file beside or below the model.
    #[error(
        "the model keeps data in {location:?}; expected a relative path below the model's folder, of plain names \
         and '/'"
    )]
    Location {
        /// What the model says.
        location: String,
    },
}

impl ModelInfo {
    /// Reads the bytes of an `.onnx` file.
    pub fn parse(onnx: &[u8]) -> Result<Self, ModelError> {
        no_other_file(onnx)?;
        let model = ModelProto::decode(onnx)?;
        let mut spellings = BTreeMap::new();
        for location in model.external_data() {
            let plain =
                plain(&location).ok_or_else(|| ModelError::Location { location: location.clone() })?;
            spellings.insert(location, plain);
        }
        let encoder = encoder::of(&model.metadata_props, plain)?;
        let external_data: BTreeSet<String> = spellings.values().chain(&encoder).cloned().collect();
        let operators = model.operators();
        let graph = model.graph.ok_or(ModelError::NoGraph)?;
        let class_labels = zipmap::at_the_end(&graph);
        let initializers = graph.initializer_names();
        let is_initializer = |input: &&ValueInfoProto| initializers.contains(input.name.as_str());
        let inputs = graph.input.iter().filter(|input| !is_initializer(input));
        let overridable = graph.input.iter().filter(|input| model.ir_version >= 4 && is_initializer(input));
        let output = |value: &ValueInfoProto| match class_labels.get(&value.name) {
            None => value_info("output", value),
            Some(labels) => Ok(ValueInfo {
                name: value.name.clone(),
                dtype: DataType::Fp32,
                shape: Some(vec![Dim::Unknown, Dim::Fixed(i64::try_from(labels.len()).unwrap_or(i64::MAX))]),
            }),
        };
        let inputs = inputs.map(|input| value_info("input", input)).collect::<Result<Vec<_>, _>>()?;
        let outputs = graph.output.iter().map(output).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            state: state::of(
                &model.metadata_props,
                |name| dtype(&inputs, name),
                |name| dtype(&outputs, name),
            )?,
            ir_version: model.ir_version,
            opsets: model
                .opset_import
                .into_iter()
                .map(|opset| Opset { domain: opset.domain, version: opset.version })
                .collect(),
            producer_name: model.producer_name,
            producer_version: model.producer_version,
            inputs,
            // An optional input of a type that cannot be sent keeps its value.
            optional_inputs: overridable.filter_map(|input| value_info("input", input).ok()).collect(),
            outputs,
            indices: indices::tables(&graph),
            rows: IndependentRows::of(&model.metadata_props)?,
            encoder,
            text: text::of(&model.metadata_props),
            graph_name: graph.name,
            external_data: external_data.into_iter().collect(),
            spellings,
            operators,
            class_labels,
        })
    }

    /// Checks that requests and answers can name all tensors: at most `most` inputs and outputs each, with names of at most
    /// `longest` bytes.
    ///
    /// # Errors
    /// [`ModelError::TooMany`] and [`ModelError::NameLength`].
    pub fn check_names(&self, most: usize, longest: usize) -> Result<(), ModelError> {
        for (kind, values) in [("input", &self.inputs), ("output", &self.outputs)] {
            if values.len() > most {
                return Err(ModelError::TooMany { kind, found: values.len(), most });
            }
            let fault = values.iter().position(|value| !(1..=longest).contains(&value.name.len()));
            if let Some(index) = fault {
                let len = values.get(index).map_or(0, |value| value.name.len());
                return Err(ModelError::NameLength { kind, index, len, most: longest });
            }
        }
        Ok(())
    }
}

fn dtype(values: &[ValueInfo], name: &str) -> Option<DataType> {
    values.iter().find(|value| value.name == name).map(|value| value.dtype)
}

/// Other files that are often found in a model's place.
fn no_other_file(bytes: &[u8]) -> Result<(), ModelError> {
    let text = bytes.trim_ascii_start();
    let begins = |with: &[u8]| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    if bytes.is_empty() {
        Err(ModelError::Empty)
    } else if begins(b"version https://git-lfs") {
        Err(ModelError::LfsPointer)
    } else if bytes.get(4..8) == Some(b"ORTM") {
        Err(ModelError::OrtFormat)
    } else if begins(b"<!doctype html") || begins(b"<html") {
        Err(ModelError::Html)
    } else {
        Ok(())
    }
}

fn value_info(kind: &'static str, value: &ValueInfoProto) -> Result<ValueInfo, ModelError> {
    let name = value.name.clone();
    let Some(tensor) = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else {
        let found = value.r#type.as_ref().map_or("without a type", not_a_tensor);
        return Err(ModelError::NotATensor { kind, name, found });
    };
    let Some(dtype) = dtype_from_elem_type(tensor.elem_type) else {
        return Err(ModelError::DataType { kind, name, found: elem_type_name(tensor.elem_type) });
    };
    let dim = |value: &Option<DimensionValue>| match value {
        Some(DimensionValue::Value(size @ 0..)) => Dim::Fixed(*size),
        Some(DimensionValue::Param(name)) if !name.is_empty() => Dim::Symbolic(name.clone()),
        // Some exporters write -1 or an empty name.
        _ => Dim::Unknown,
    };
    let shape = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(|d| dim(&d.value)).collect());
    Ok(ValueInfo { name, dtype, shape })
}

fn not_a_tensor(ty: &TypeProto) -> &'static str {
    let is_map = |ty: &TypeProto| ty.map_type.is_some();
    match &ty.sequence_type {
        Some(sequence) if sequence.elem_type.as_deref().is_some_and(is_map) => MAPS,
        Some(_) => "a sequence",
        None if is_map(ty) => "a map",
        None => "an optional or sparse tensor or of an unknown type",
    }
}

const MAPS: &str = "a sequence of maps";

fn hint(found: &str) -> &'static str {
    match found {
        MAPS => {
            ". A `ZipMap` is served as its tensor only where it is the last node before an output; export the model \
                 without it (skl2onnx: `options={\"zipmap\": False}`)"
        }
        _ => "",
    }
}

/// Whether a location is safe to join to a folder, and has only one spelling.
#[cfg_attr(not(feature = "age"), allow(dead_code, reason = "packages of models alone ask"))]
pub(crate) fn is_plain(location: &str) -> bool {
    plain(location).as_deref() == Some(location)
}

/// The one spelling of a location below the model's folder; none if it is not there, or no name of a file.
fn plain(location: &str) -> Option<String> {
    let allowed = |c: char| !c.is_control() && c != '\\';
    // ONNX Runtime takes "*/_ORT_MEM_ADDR_/*" for an address in its own memory.
    if !location.chars().all(allowed) || location.starts_with('/') || location.contains("_ORT_MEM_ADDR_") {
        return None;
    }
    let parts: Vec<&str> = location.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let is_file = location.rsplit('/').next().is_some_and(|last| !last.is_empty() && last != ".");
    (is_file && !parts.contains(&"..")).then(|| parts.join("/"))
}
