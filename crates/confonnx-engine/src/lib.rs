//! ONNX Runtime sessions: tensors in, tensors out. Knows no keys and no HTTP.
use confonnx_tensor::{DataType, Tensor};
use std::path::Path;

/// The loaded ONNX Runtime library (once per process).
pub struct Runtime { /* ort::Environment, version, sha256 of the file that was loaded */ }
impl Runtime {
    /// Loads the shared library at `path` and remembers its version and SHA-256.
    pub fn load(_path: &Path) -> Result<Self, EngineError> { todo!() }
    pub fn version(&self) -> &str { todo!() }
    pub fn sha256(&self) -> [u8; 32] { todo!() }
}

/// What one input or output of a model looks like. A dimension of -1 is dynamic.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo { pub name: String, pub dtype: DataType, pub shape: Vec<i64> }

pub struct ModelOptions { pub sessions: usize, pub threads_per_session: usize }

/// A loaded model with its pool of sessions.
pub struct Model { }
impl Model {
    pub fn load(_runtime: &Runtime, _onnx: &[u8], _options: &ModelOptions) -> Result<Self, EngineError> { todo!() }
    pub fn inputs(&self) -> &[TensorInfo] { todo!() }
    pub fn outputs(&self) -> &[TensorInfo] { todo!() }
    /// Runs the model; blocks the calling thread. `outputs` empty means all of them, in the model's order.
    pub fn run(&self, _inputs: &[(String, Tensor<'_>)], _outputs: &[String]) -> Result<Vec<(String, Tensor<'static>)>, InferError> { todo!() }
}
#[derive(Debug)] pub enum EngineError {}
#[derive(Debug)] pub enum InferError {}
