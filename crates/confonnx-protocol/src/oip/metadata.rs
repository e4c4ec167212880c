use confonnx_tensor::DataType;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::{Map, Value};

/// `GET /v2`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerMetadata {
    /// The server's name.
    pub name: String,
    /// The server's version.
    pub version: String,
    /// Extensions it speaks, such as `binary_tensor_data`.
    #[serde(default)]
    pub extensions: Vec<String>,
}

/// `GET /v2/models/{m}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// The model's name.
    pub name: String,
    /// Versions that can be asked for.
    #[serde(default)]
    pub versions: Vec<String>,
    /// `onnxruntime_onnx`
    pub platform: String,
    /// The model's inputs, in its order.
    pub inputs: Vec<TensorMetadata>,
    /// The model's outputs, in its order.
    pub outputs: Vec<TensorMetadata>,
    /// How the server runs it: `arrangement`, its sessions and their threads; `max_batched_rows`, if requests are batched;
    /// `optional_inputs`, which have a value when none is given.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
}

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorMetadata {
    /// The input's or output's name.
    pub name: String,
    /// The element type.
    #[serde(serialize_with = "dtype_name", deserialize_with = "dtype_from_name")]
    pub datatype: DataType,
    /// The dimensions, outermost first; -1 where any size will do.
    pub shape: Vec<i64>,
    /// `class_labels`: what an output's columns stand for.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
}

/// The body of an answer with an error status (`docs/protocol.md`, section 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error's text, for people.
    pub error: String,
    /// The error's code, for programs; empty when the peer gives none.
    #[serde(default)]
    pub code: String,
}

fn dtype_name<S: Serializer>(dtype: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dtype.name())
}

fn dtype_from_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DataType, D::Error> {
    let name = String::deserialize(deserializer)?;
    DataType::from_name(&name)
        .ok_or_else(|| D::Error::custom("datatype is not one of the Open Inference Protocol"))
}
