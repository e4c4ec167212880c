//! Open Inference Protocol v2 over REST: the messages of the inner API.
//!
//! Tensors travel as JSON or by the binary tensor data extension: the JSON object comes first, its length in bytes in
//! the [`HEADER_LENGTH`] field, and then the bytes of each tensor that has `parameters.binary_data_size`, in the order
//! of the tensors. A request asks for binary outputs by `parameters.binary_data_output`, or output by output with
//! `parameters.binary_data`. Members and parameters that we do not know are ignored.
//!
//! JSON `data` is one array, or arrays nested to one depth; `BYTES` elements are strings, `FP16` and `BF16` are
//! numbers. Integers keep all 64 bits. Numbers are rounded to the nearest float, and refused where that is infinite.
//!
//! Requests are always sent binary. Errors name tensors and positions, never values.

mod data;
mod error;
mod metadata;
mod request;
mod response;
#[cfg(test)]
mod tests;
mod wire;

pub use error::OipError;
pub use metadata::{ErrorBody, ModelMetadata, ServerMetadata, TensorMetadata};
pub use request::{InferRequest, RequestedOutput, Sequence, SequenceId};
pub use response::InferResponse;
pub use wire::Encoded;

/// The header field that says how many bytes of the body are JSON; absent when all are.
pub const HEADER_LENGTH: &str = "inference-header-content-length";
/// Most inputs, and most outputs, in one message.
pub const MAX_TENSORS: usize = 1024;
/// Longest name of a tensor, in bytes.
pub const MAX_NAME: usize = 256;
