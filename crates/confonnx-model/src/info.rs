use std::{fmt, path::Path};

use confonnx_tensor::DataType;
use prost::Message;

use crate::{
    elem_type::{dtype_from_elem_type, elem_type_name},
    proto::{DimensionValue, ModelProto, ValueInfoProto},
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
    /// Outputs, in the model's order.
    pub outputs: Vec<ValueInfo>,
    /// Files with tensors of the model, relative to it: sorted, each once.
    pub external_data: Vec<String>,
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
    /// An input or output is a sequence, map, optional or sparse tensor, or has no type.
    #[error("{kind} {name:?} of the model is not a tensor; only tensors can be sent")]
    NotATensor {
        /// `input` or `output`.
        kind: &'static str,
        /// Its name.
        name: String,
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
        let model = ModelProto::decode(onnx)?;
        let external_data = model.external_data();
        if let Some(location) = external_data.iter().find(|location| !is_plain(location)) {
            return Err(ModelError::Location { location: location.clone() });
        }
        let graph = model.graph.ok_or(ModelError::NoGraph)?;
        let initializers = graph.initializer_names();
        let inputs = graph.input.iter().filter(|input| !initializers.contains(input.name.as_str()));
        Ok(Self {
            ir_version: model.ir_version,
            opsets: model
                .opset_import
                .into_iter()
                .map(|opset| Opset { domain: opset.domain, version: opset.version })
                .collect(),
            producer_name: model.producer_name,
            producer_version: model.producer_version,
            inputs: inputs.map(|input| value_info("input", input)).collect::<Result<_, _>>()?,
            outputs: graph
                .output
                .iter()
                .map(|output| value_info("output", output))
                .collect::<Result<_, _>>()?,
            graph_name: graph.name,
            external_data: external_data.into_iter().collect(),
        })
    }
}

fn value_info(kind: &'static str, value: &ValueInfoProto) -> Result<ValueInfo, ModelError> {
    let name = value.name.clone();
    let Some(tensor) = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else {
        return Err(ModelError::NotATensor { kind, name });
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

/// Whether a location is safe to join to a folder, and has only one spelling.
pub(crate) fn is_plain(location: &str) -> bool {
    // ONNX Runtime takes "*/_ORT_MEM_ADDR_/*" for an address in its own memory.
    let allowed = |c: char| !c.is_control() && !matches!(c, '\\' | ':' | '*');
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    location.chars().all(allowed) && location.split('/').all(plain) && Path::new(location).is_relative()
}
