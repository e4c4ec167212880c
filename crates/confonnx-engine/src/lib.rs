//! ONNX Runtime sessions: tensors in, tensors out. Knows no keys and no HTTP.
//!
//! [`Runtime::load`] opens the shared library, [`Model::load`] makes a pool of sessions from `.onnx` bytes, and
//! [`Model::run`] checks its inputs against the model, runs it on the calling thread and returns owned tensors.
//! Inputs are handed to ONNX Runtime in place when they begin at a multiple of 64, else copied once.
//!
//! No error quotes a tensor value: ONNX Runtime's own texts sometimes do, so only their category is kept.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]

#[cfg(not(target_endian = "little"))]
compile_error!("tensors are little-endian on the wire and are handed to ONNX Runtime as they are");

mod batch;
mod boxed;
mod check;
mod convert;
mod decoder;
mod engine;
mod error;
mod memory;
mod model;
mod pool;
mod port;
mod recent;
mod run;
mod runtime;
mod sessions;
mod stop;
mod trial;
mod widths;
mod working_set;

pub use batch::{Batching, NotBatched};
pub use boxed::{
    ARGUMENT, Answer as BoxAnswer, Answered, BoxLimits, BoxedModel, Boxes, Deaths, Failure, Garbled, Part,
    Reserved, Running, run as run_box,
};
pub use decoder::{Decoder, Feed, names_a_decoder};
pub use engine::{Engine, LoadedModel};
pub use error::{Category, EngineError, InferError, ValueFault};
pub use model::{Model, ModelOptions};
pub use port::TensorInfo;
pub use run::Answer;
pub use runtime::{Library, Runtime};
pub use sessions::Arrangement;
pub use stop::Stop;
pub use widths::width_is_free;
