//! What an `.onnx` file says of itself without running it, Triton's configuration beside it ([`triton`]), and models
//! encrypted in the age format (`age`, `encrypted`).
//!
//! For servers and clients alike: [`ModelInfo`] reads inputs and outputs, [`model_hash`] names a model, and
//! [`read_tensor_proto`] and [`write_tensor_proto`] speak ONNX's files of single tensors; `encrypted` keeps a model from
//! whoever stores it (feature `age`). Needs no ONNX Runtime; skips weights unread.
//!
//! ```
//! use confonnx_model::{read_tensor_proto, write_tensor_proto};
//! use confonnx_tensor::{DataType, Shape, Tensor};
//!
//! let tensor = Tensor::new(DataType::Int64, Shape::new([1])?, 7_i64.to_le_bytes().to_vec())?;
//! let file = write_tensor_proto("labels", &tensor);
//! assert_eq!(read_tensor_proto(&file)?, ("labels".into(), tensor));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]

#[cfg(feature = "age")]
pub mod age;
mod annotate;
mod elem_type;
mod encoder;
#[cfg(feature = "age")]
pub mod encrypted;
mod hash;
mod indices;
mod info;
mod pair;
mod proto;
mod rows;
mod runnable;
mod state;
mod tensor_proto;
mod text;
pub mod triton;
mod wire;
mod zipmap;

pub use annotate::{AnnotateError, annotate, with_encoder, with_state, with_text};
pub use elem_type::{dtype_from_elem_type, elem_type};
pub use hash::{HashError, data_files, hash_bytes, hash_files, model_hash};
pub use info::{Dim, ModelError, ModelInfo, Opset, ValueInfo};
pub use pair::EncoderError;
pub use rows::{IndependentRows, PropertyError};
pub use runnable::runnable;
pub use state::Kept;
pub use tensor_proto::{TensorProtoError, read_tensor_proto, write_tensor_proto};
pub use text::TEXT_FILES;
pub use zipmap::ClassLabels;
