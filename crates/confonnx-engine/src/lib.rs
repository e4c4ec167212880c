//! ONNX Runtime sessions: tensors in, tensors out. Knows no keys and no HTTP.
//!
//! [`Runtime::load`] opens the shared library, [`Model::load`] makes a pool of sessions from `.onnx` bytes, and
//! [`Model::run`] checks its inputs against the model, runs it on the calling thread and returns owned tensors.
//! Inputs are handed to ONNX Runtime in place when their bytes are aligned for their type, else copied once.
//!
//! No error quotes a tensor value: ONNX Runtime's own texts sometimes do, so only their category is kept.

#[cfg(not(target_endian = "little"))]
compile_error!("tensors are little-endian on the wire and are handed to ONNX Runtime as they are");

mod batch;
mod check;
mod convert;
mod error;
mod model;
mod pool;
mod recent;
mod runtime;
mod sessions;
mod trial;

pub use batch::NotBatched;
pub use error::{Category, EngineError, InferError, ValueFault};
pub use model::{Batching, Model, ModelOptions, TensorInfo};
pub use runtime::Runtime;
pub use sessions::Arrangement;
