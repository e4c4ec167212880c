//! What a model's inputs and outputs look like.

use confonnx_tensor::DataType;
use ort::{session::Session, value::ValueType};

use crate::{convert, error::EngineError};

/// What one input or output of a model looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name in the graph.
    pub name: String,
    /// Element type.
    pub dtype: DataType,
    /// Dimensions; -1 is dynamic. Empty for a scalar and also for an unknown rank, which ONNX Runtime tells alike.
    pub shape: Vec<i64>,
}

/// A model's inputs and outputs.
#[derive(Debug)]
pub(crate) struct Ports {
    /// The inputs that every request gives.
    pub(crate) inputs: Vec<TensorInfo>,
    /// Initializers that a request may give another value for.
    pub(crate) optional: Vec<TensorInfo>,
    pub(crate) outputs: Vec<TensorInfo>,
}

impl Ports {
    pub(crate) fn of(session: &Session) -> Result<Self, EngineError> {
        let inputs = session.inputs().iter().map(|outlet| info("input", outlet.name(), outlet.dtype()));
        let outputs = session.outputs().iter().map(|outlet| info("output", outlet.name(), outlet.dtype()));
        let optional = session.overridable_initializers();
        // An initializer of a type that the protocol has not keeps its value, as all other initializers do.
        let optional = optional.iter().filter_map(|init| info("input", init.name(), init.dtype()).ok());
        Ok(Self {
            inputs: inputs.collect::<Result<_, _>>()?,
            optional: optional.collect(),
            outputs: outputs.collect::<Result<_, _>>()?,
        })
    }

    /// The input or optional input called `name`.
    pub(crate) fn input(&self, name: &str) -> Option<&TensorInfo> {
        self.inputs.iter().chain(&self.optional).find(|info| info.name == name)
    }
}

fn info(direction: &'static str, name: &str, ty: &ValueType) -> Result<TensorInfo, EngineError> {
    let refused = || EngineError::InputOutput { direction, name: name.to_owned(), found: ty.to_string() };
    let ValueType::Tensor { ty: element, shape, .. } = ty else { return Err(refused()) };
    let dtype = convert::data_type(*element).ok_or_else(refused)?;
    Ok(TensorInfo { name: name.to_owned(), dtype, shape: shape.to_vec() })
}
