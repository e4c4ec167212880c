//! Named tensors and their bytes.
//!
//! A [`Tensor`] is a data type, a shape and little-endian bytes whose length was checked against both when it
//! was made: holding one means the three agree. `BYTES` tensors keep the Open Inference Protocol's packing, a
//! 32-bit little-endian length before each element.
//!
//! What is confidential among a program's values is [`Erased`] when it goes.
//!
//! No IO, no panics on any input.
//!
//! ```
//! use confonnx_tensor::{DataType, Shape, Tensor};
//!
//! let shape = Shape::new([2, 1])?;
//! let pixels: Vec<u8> = [0.5_f32, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
//! let tensor = Tensor::new(DataType::Fp32, shape.clone(), pixels)?;
//! assert_eq!(tensor.data().len(), 8);
//!
//! let words = Tensor::from_strings(shape, &["yes", "no"])?;
//! assert_eq!(words.items().collect::<Vec<_>>(), [&b"yes"[..], b"no"]);
//! # Ok::<(), confonnx_tensor::TensorError>(())
//! ```

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]

mod dtype;
mod erased;
mod error;
mod shape;
mod tensor;

pub use dtype::DataType;
pub use erased::{Erase, Erased};
pub use error::{MAX_RANK, TensorError};
pub use shape::Shape;
pub use tensor::Tensor;
