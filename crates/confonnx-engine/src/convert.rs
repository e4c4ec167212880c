//! Tensors to ONNX Runtime values and back.

use std::{fmt::Debug, ops::Range};

use confonnx_device::{strings_from_bytes, strings_to_bytes};
use confonnx_tensor::{DataType, Erased, Shape, Tensor};
use half::{bf16, f16};
use ort::{
    session::SessionInputValue,
    value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

/// Calls a function generic over the element type with the one that `$dtype` names.
macro_rules! with_element {
    ($dtype:expr, $function:ident($($argument:expr),*), bool => $bool:expr, bytes => $bytes:expr) => {
        match $dtype {
            DataType::Bool => $bool,
            DataType::Uint8 => $function::<u8>($($argument),*),
            DataType::Uint16 => $function::<u16>($($argument),*),
            DataType::Uint32 => $function::<u32>($($argument),*),
            DataType::Uint64 => $function::<u64>($($argument),*),
            DataType::Int8 => $function::<i8>($($argument),*),
            DataType::Int16 => $function::<i16>($($argument),*),
            DataType::Int32 => $function::<i32>($($argument),*),
            DataType::Int64 => $function::<i64>($($argument),*),
            DataType::Fp16 => $function::<f16>($($argument),*),
            DataType::Bf16 => $function::<bf16>($($argument),*),
            DataType::Fp32 => $function::<f32>($($argument),*),
            DataType::Fp64 => $function::<f64>($($argument),*),
            DataType::Bytes => $bytes,
        }
    };
}

/// A tensor whose bytes begin where those of every buffer of ONNX Runtime's own do. Some of its kernels, sums above all, take
/// another path elsewhere, with other last bits: an answer must not depend on what comes before the tensor in a message.
pub(crate) enum Aligned<'a> {
    /// A tensor whose bytes began at such a place already.
    Borrowed(&'a Tensor<'a>),
    /// Copied, and scrubbed after use.
    Copied(&'a Tensor<'a>, Words),
}

impl<'a> Aligned<'a> {
    pub(crate) fn new(tensor: &'a Tensor<'a>) -> Self {
        let data = tensor.data();
        if tensor.dtype() == DataType::Bytes || data.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Self::Borrowed(tensor);
        }
        Self::Copied(tensor, Words::new(data))
    }

    /// A value that borrows these bytes. The caller has checked the tensor's values and dimensions.
    pub(crate) fn value(&self) -> ort::Result<SessionInputValue<'_>> {
        let (tensor, bytes) = match self {
            Self::Borrowed(tensor) => (tensor, tensor.data()),
            Self::Copied(tensor, words) => (tensor, words.bytes()),
        };
        let dims: Vec<i64> =
            tensor.shape().dims().iter().map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX)).collect();
        with_element!(tensor.dtype(), view(dims, bytes), bool => view_bool(dims, bytes), bytes => strings(&dims, tensor))
    }
}

/// The alignment of ONNX Runtime's allocator, and of a cache line.
const ALIGNMENT: usize = 64;

/// Bytes at a place that is aligned.
pub(crate) struct Words {
    words: Erased<Vec<u64>>,
    place: Range<usize>,
}

impl Words {
    fn new(data: &[u8]) -> Self {
        let mut words =
            Erased::new(vec![0_u64; data.len().saturating_add(ALIGNMENT).div_ceil(size_of::<u64>())]);
        let begin = words.as_ptr().addr();
        let start = begin.next_multiple_of(ALIGNMENT).saturating_sub(begin);
        let place = start..start.saturating_add(data.len());
        if let Some(bytes) = words.as_mut_bytes().get_mut(place.clone()) {
            bytes.copy_from_slice(data);
        }
        Self { words, place }
    }

    fn bytes(&self) -> &[u8] {
        self.words.as_bytes().get(self.place.clone()).unwrap_or_default()
    }
}

/// Copies an output into an owned tensor; `None` when it is not one the protocol has a name for.
pub(crate) fn output(value: &DynValue) -> Option<Tensor<'static>> {
    let dtype = data_type(value.dtype().tensor_type()?)?;
    let (dims, data) =
        with_element!(dtype, copy(value), bool => copy_bool(value), bytes => return copy_strings(value))?;
    Tensor::new(dtype, dims, data).ok()
}

/// The protocol's name for an ONNX element type, if it has one.
pub(crate) fn data_type(ty: TensorElementType) -> Option<DataType> {
    Some(match ty {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::String => DataType::Bytes,
        _ => return None,
    })
}

fn view<'v, T>(dims: Vec<i64>, bytes: &'v [u8]) -> ort::Result<SessionInputValue<'v>>
where
    T: FromBytes + Immutable + KnownLayout + PrimitiveTensorElementType + Debug + Clone + 'static,
{
    let elements = <[T]>::ref_from_bytes(bytes).map_err(|_| layout())?;
    Ok(TensorRef::from_array_view((dims, elements))?.into())
}

fn view_bool(dims: Vec<i64>, bytes: &[u8]) -> ort::Result<SessionInputValue<'_>> {
    let elements = <[bool]>::try_ref_from_bytes(bytes).map_err(|_| layout())?;
    Ok(TensorRef::from_array_view((dims, elements))?.into())
}

fn strings(dims: &[i64], tensor: &Tensor<'_>) -> ort::Result<SessionInputValue<'static>> {
    let items: Vec<&[u8]> = tensor.items().collect();
    Ok(strings_from_bytes(dims, &items)?.into())
}

/// The error for bytes that do not fit their type; a checked tensor's always do.
fn layout() -> ort::Error {
    ort::Error::new_with_code(ort::ErrorCode::InvalidArgument, "bytes and element type disagree")
}

type Copied = Option<(Shape, Vec<u8>)>;

fn copy<T: IntoBytes + Immutable + PrimitiveTensorElementType>(value: &DynValue) -> Copied {
    let (_, elements) = value.try_extract_tensor::<T>().ok()?;
    Some((dims(value.dtype())?, elements.as_bytes().to_vec()))
}

fn copy_bool(value: &DynValue) -> Copied {
    copy::<bool>(value)
}

fn copy_strings(value: &DynValue) -> Option<Tensor<'static>> {
    let shape = dims(value.dtype())?;
    let (bytes, offsets) = strings_to_bytes(value, shape.elements()).ok()?;
    let bytes = Erased::new(bytes);
    let ends = offsets.iter().skip(1).copied().chain([bytes.len()]);
    let items: Option<Vec<&[u8]>> =
        offsets.iter().zip(ends).map(|(start, end)| bytes.get(*start..end)).collect();
    items.and_then(|items| Tensor::from_strings(shape, &items).ok())
}

fn dims(ty: &ValueType) -> Option<Shape> {
    let dims: Option<Vec<u64>> = ty.tensor_shape()?.iter().map(|dim| u64::try_from(*dim).ok()).collect();
    Shape::new(dims?).ok()
}
