//! Named tensors and their bytes.
//!
//! A [`Tensor`] is a data type, a shape and little-endian bytes whose length was checked against both when it
//! was made: holding one means the three agree. `BYTES` tensors keep the Open Inference Protocol's packing, a
//! 32-bit little-endian length before each element.
//!
//! No dependencies, no IO, no panics on any input.

use std::borrow::Cow;

/// Element type, by its Open Inference Protocol v2 name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType { Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64, Bytes }

impl DataType {
    /// Bytes per element; `None` for `BYTES`, whose elements vary.
    pub fn size(self) -> Option<usize> { todo!() }
    /// The protocol's name: `FP32`, `BYTES`, …
    pub fn name(self) -> &'static str { todo!() }
    /// The inverse of [`name`](Self::name).
    pub fn from_name(_name: &str) -> Option<Self> { todo!() }
}

/// Concrete dimensions whose product fits `usize`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(Vec<u64>);

impl Shape {
    pub fn new(_dims: impl Into<Vec<u64>>) -> Result<Self, TensorError> { todo!() }
    pub fn dims(&self) -> &[u64] { todo!() }
    /// Number of elements; 1 for a scalar.
    pub fn elements(&self) -> usize { todo!() }
}

/// A tensor that borrows its bytes where it can.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<'a> { dtype: DataType, shape: Shape, data: Cow<'a, [u8]> }

impl<'a> Tensor<'a> {
    pub fn new(_dtype: DataType, _shape: Shape, _data: impl Into<Cow<'a, [u8]>>) -> Result<Self, TensorError> { todo!() }
    /// Packs strings (or any byte strings) into a `BYTES` tensor.
    pub fn from_strings<S: AsRef<[u8]>>(_shape: Shape, _items: &[S]) -> Result<Tensor<'static>, TensorError> { todo!() }
    pub fn dtype(&self) -> DataType { todo!() }
    pub fn shape(&self) -> &Shape { todo!() }
    pub fn data(&self) -> &[u8] { todo!() }
    pub fn into_data(self) -> Cow<'a, [u8]> { todo!() }
    pub fn into_owned(self) -> Tensor<'static> { todo!() }
    /// The elements of a `BYTES` tensor; empty for other types.
    pub fn items(&self) -> impl Iterator<Item = &[u8]> { std::iter::empty() }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorError {
    /// The product of the dimensions, or of it and the element size, does not fit.
    ShapeOverflow,
    /// `found` bytes where shape and type need `expected`.
    Length { expected: usize, found: usize },
    /// A `BYTES` element says it is longer than what is left, or bytes are left over.
    Packing { element: usize },
}
